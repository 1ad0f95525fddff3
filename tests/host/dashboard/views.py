from datetime import timedelta

from babybuddy.mixins import LoginRequiredMixin, PermissionRequiredMixin
from core.models import Child
from django.db.models import Sum
from django.shortcuts import redirect
from django.utils import timezone
from django.views.generic import DetailView, TemplateView


class Dashboard(LoginRequiredMixin, TemplateView):
    """All children; with one child, that child's dashboard; with none, the welcome page."""

    template_name = "dashboard/dashboard.html"

    def get(self, request, *args, **kwargs):
        children = list(Child.objects.all()[:2])
        if not children:
            return redirect("babybuddy:welcome")
        if len(children) == 1:
            return redirect("dashboard:dashboard-child", children[0].slug)
        return super().get(request, *args, children=Child.objects.all(), **kwargs)


class ChildDashboard(PermissionRequiredMixin, DetailView):
    model = Child
    permission_required = "core.view_child"
    template_name = "dashboard/child.html"

    def get_context_data(self, **kwargs):
        child = self.object
        week = timezone.now() - timedelta(days=7)
        return super().get_context_data(
            timers=child.timers.all(),
            feeding=child.feeding.first(),
            change=child.diaper_change.first(),
            sleep=child.sleep.first(),
            pumping=child.pumping.first(),
            medication=child.medication.first(),
            weight=child.weight.first(),
            week_feedings=child.feeding.filter(start__gte=week).count(),
            week_changes=child.diaper_change.filter(time__gte=week).count(),
            week_sleep=child.sleep.filter(start__gte=week).aggregate(total=Sum("duration"))["total"],
            week_tummy=child.tummy_time.filter(start__gte=week).aggregate(total=Sum("duration"))["total"],
            notes=child.note.all()[:3],
            **kwargs,
        )

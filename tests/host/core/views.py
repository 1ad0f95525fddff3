from itertools import islice
from operator import itemgetter

from babybuddy.mixins import LoginRequiredMixin, PermissionRequiredMixin, SuccessMessageMixin
from django.forms import modelform_factory
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.views.generic import CreateView, DeleteView, DetailView, ListView, TemplateView, UpdateView

from . import models
from .utils import in_reading_order

WIDGETS = {
    models.models.DateField: {"type": "date"},
    models.models.TimeField: {"type": "time"},
    models.models.DateTimeField: {"type": "datetime-local", "step": "any"},
}


def formfield(field, **options):
    """Lets the browser's own pickers fill in dates and times."""
    if attributes := WIDGETS.get(type(field)):
        form = field.formfield(**options)
        formats = {"date": "%Y-%m-%d", "time": "%H:%M:%S", "datetime-local": "%Y-%m-%dT%H:%M:%S"}
        form.widget = type(form.widget)(attrs=attributes, format=formats[attributes["type"]])
        return form
    return field.formfield(**options)


class Page(PermissionRequiredMixin):
    """Of any one model: what the four kinds of pages share."""

    action = "view"
    url_name = ""

    def get_permission_required(self):
        return [f"core.{self.action}_{self.model._meta.model_name}"]

    def get_success_url(self):
        return reverse(f"core:{self.url_name}-list")

    def get_context_data(self, **kwargs):
        urls = {action: f"core:{self.url_name}-{action}" for action in ("list", "add", "update", "delete")}
        return super().get_context_data(meta=self.model._meta, urls=urls, **kwargs)


class List(Page, ListView):
    template_name = "core/list.html"

    def get_queryset(self):
        rows = super().get_queryset()
        return rows.select_related("child") if hasattr(self.model, "child") else rows

    def get_paginate_by(self, queryset):
        return self.request.user.settings.pagination_count or None


class Form(Page, SuccessMessageMixin):
    template_name = "babybuddy/form_page.html"

    def get_form_class(self):
        fields = [field.name for field in in_reading_order(self.model._meta)]
        return modelform_factory(self.model, fields=fields, formfield_callback=formfield)

    def form_valid(self, form):
        if self.model is models.Timer:
            form.instance.user = self.request.user
        return super().form_valid(form)

    def get_success_message(self, cleaned_data):
        return _("%(model)s entry saved!") % {"model": self.model._meta.verbose_name}


class Add(Form, CreateView):
    action = "add"

    def get_initial(self):
        return {"child": models.Child.objects.first()} if models.Child.count() == 1 else {}


class Update(Form, UpdateView):
    action = "change"


class Delete(Page, SuccessMessageMixin, DeleteView):
    action = "delete"
    template_name = "babybuddy/confirm_delete.html"
    success_message = _("Entry deleted.")


def page(kind, model, url_name):
    return kind.as_view(model=model, url_name=url_name)


class ChildDetail(PermissionRequiredMixin, DetailView):
    model = models.Child
    permission_required = "core.view_child"
    template_name = "core/child_detail.html"


class Timeline(LoginRequiredMixin, TemplateView):
    """The latest entries of every kind."""

    template_name = "core/timeline.html"
    kinds = [*models.Moment.__subclasses__(), *models.Period.__subclasses__()]

    def get_context_data(self, **kwargs):
        entries = []
        for model in self.kinds:
            when = "start" if issubclass(model, models.Period) else "time"
            rows = model.objects.filter(**{f"{when}__lte": timezone.now()}).select_related("child")[:50]
            entries += [
                {"time": getattr(row, when), "entry": row, "icon": model._meta.model_name} for row in rows
            ]
        entries.sort(key=itemgetter("time"), reverse=True)
        return super().get_context_data(entries=list(islice(entries, 50)), **kwargs)

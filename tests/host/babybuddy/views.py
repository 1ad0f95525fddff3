from django.contrib import messages
from django.contrib.auth import get_user_model, update_session_auth_hash
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.views import PasswordChangeView
from django.shortcuts import redirect, render
from django.urls import reverse_lazy
from django.utils.translation import gettext_lazy as _
from django.views import View, csrf
from django.views.generic import CreateView, DeleteView, ListView, RedirectView, TemplateView, UpdateView

from . import forms
from .mixins import LoginRequiredMixin, PermissionRequiredMixin, StaffOnlyMixin, SuccessMessageMixin


def csrf_failure(request, reason=""):
    return csrf.csrf_failure(request, reason, "403_csrf.html")


class RootRouter(LoginRequiredMixin, RedirectView):
    pattern_name = "dashboard:dashboard"


class Welcome(LoginRequiredMixin, TemplateView):
    template_name = "babybuddy/welcome.html"


class UserList(StaffOnlyMixin, ListView):
    model = get_user_model()
    ordering = "username"
    template_name = "babybuddy/user_list.html"


class UserChange(StaffOnlyMixin, PermissionRequiredMixin, SuccessMessageMixin):
    """What the three pages below share. Their permissions do not exist: they are for superusers."""

    model = get_user_model()
    template_name = "babybuddy/form_page.html"
    success_url = reverse_lazy("babybuddy:user-list")


class UserAdd(UserChange, CreateView):
    permission_required = "admin.add_user"
    form_class = forms.UserAddForm
    success_message = _("User %(username)s added!")
    extra_context = {"title": _("Create User")}


class UserUpdate(UserChange, UpdateView):
    permission_required = "admin.change_user"
    form_class = forms.UserUpdateForm
    success_message = _("User %(username)s updated.")
    extra_context = {"title": _("Update User")}
    # `user` in a template is who is signed in.
    context_object_name = "account"


class UserDelete(UserChange, DeleteView):
    permission_required = "admin.delete_user"
    success_message = _("User deleted.")
    template_name = "babybuddy/confirm_delete.html"
    context_object_name = "account"


class UserPassword(LoginRequiredMixin, PasswordChangeView):
    form_class = PasswordChangeForm
    template_name = "babybuddy/form_page.html"
    extra_context = {"title": _("Change Password")}

    def form_valid(self, form):
        update_session_auth_hash(self.request, form.save())
        messages.success(self.request, _("Password updated."))
        return redirect("babybuddy:user-password")


class UserSettings(LoginRequiredMixin, View):
    template_name = "babybuddy/user_settings_form.html"

    def forms(self, data=None):
        user = self.request.user
        return [
            forms.UserForm(data, instance=user),
            forms.UserSettingsForm(data, instance=user.settings, initial=self.initial(user.settings)),
        ]

    def initial(self, settings):
        rate = settings.dashboard_refresh_rate
        return {"dashboard_refresh_rate": f"00:{rate.seconds // 60:02}:00" if rate else ""}

    def get(self, request):
        return render(request, self.template_name, {"forms": self.forms()})

    def post(self, request):
        if "api_key_regenerate" in request.POST:
            request.user.settings.api_key(reset=True)
            messages.success(request, _("User API key regenerated."))
            return redirect("babybuddy:user-settings")
        both = self.forms(request.POST)
        valid = [form.is_valid() for form in both]
        if all(valid):
            for form in both:
                form.save()
            messages.success(request, _("Settings saved!"))
            return redirect("babybuddy:user-settings")
        return render(request, self.template_name, {"forms": both})


class UserAddDevice(LoginRequiredMixin, TemplateView):
    """Shows the API token, and by that creates it."""

    template_name = "babybuddy/user_add_device.html"

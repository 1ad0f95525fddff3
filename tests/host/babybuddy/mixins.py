from django.contrib.auth.mixins import AccessMixin, LoginRequiredMixin, PermissionRequiredMixin
from django.contrib.messages.views import SuccessMessageMixin

__all__ = ["LoginRequiredMixin", "PermissionRequiredMixin", "StaffOnlyMixin", "SuccessMessageMixin"]


class StaffOnlyMixin(AccessMixin):
    """Sends who is not signed in to the login page, and refuses who is not staff."""

    def dispatch(self, request, *args, **kwargs):
        if not request.user.is_staff:
            return self.handle_no_permission()
        return super().dispatch(request, *args, **kwargs)

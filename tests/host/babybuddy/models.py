from datetime import timedelta

from django.conf import settings
from django.db import models
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.utils.translation import gettext_lazy as _
from rest_framework.authtoken.models import Token

PER_PAGE = [(10, "10"), (25, "25"), (50, "50"), (100, "100"), (250, "250"), (0, _("Show All"))]


class Settings(models.Model):
    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    dashboard_refresh_rate = models.DurationField(
        _("Refresh rate"), blank=True, null=True, default=timedelta(minutes=1)
    )
    dashboard_hide_empty = models.BooleanField(_("Hide Empty Dashboard Cards"), default=False)
    dashboard_hide_age = models.DurationField(_("Hide data older than"), blank=True, null=True, default=None)
    language = models.CharField(_("Language"), max_length=255, default="en-US")
    timezone = models.CharField(_("Timezone"), max_length=100, default="UTC")
    pagination_count = models.PositiveIntegerField(_("Items Per Page"), choices=PER_PAGE, default=25)

    def __str__(self):
        return f"{self.user}'s settings"

    def api_key(self, reset=False):
        """The user's API token; reading it makes one where there is none."""
        if reset:
            Token.objects.filter(user=self.user).delete()
        return Token.objects.get_or_create(user=self.user)[0]


# Both receivers ignore `raw`, as Baby Buddy's do: loading a fixture with a second user fails on them.


@receiver(post_save, sender=settings.AUTH_USER_MODEL)
def create_user_settings(instance, created, **kwargs):
    if created:
        Settings.objects.create(user=instance)


@receiver(post_save, sender=settings.AUTH_USER_MODEL)
def save_user_settings(instance, **kwargs):
    instance.settings.save()

from django.apps import AppConfig
from django.conf import settings
from django.db.models.signals import post_migrate


def create_read_only_group(**kwargs):
    from django.contrib.auth.models import Group

    Group.objects.get_or_create(name=settings.BABY_BUDDY["READ_ONLY_GROUP_NAME"])


def set_default_site_settings(**kwargs):
    """Writes the default of the two nap settings as rows, where there are none (or several)."""
    from core.models import Sleep
    from dbsettings.loading import set_setting_value, setting_in_db

    for name in ("nap_start_min", "nap_start_max"):
        if not setting_in_db("core.models", "Sleep", name):
            set_setting_value("core.models", "Sleep", name, getattr(Sleep.settings, name))


class BabyBuddyConfig(AppConfig):
    name = "babybuddy"
    verbose_name = "Baby Buddy"

    def ready(self):
        post_migrate.connect(create_read_only_group, sender=self)
        post_migrate.connect(set_default_site_settings, sender=self)

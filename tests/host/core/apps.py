from django.apps import AppConfig, apps
from django.conf import settings
from django.db.models.signals import post_migrate


def add_read_only_group_permissions(**kwargs):
    """Lets the read-only group see every model of this app. Permissions are looked up by codename alone."""
    from django.contrib.auth.models import Group, Permission

    codenames = [f"view_{model}" for model in apps.all_models["core"]]
    for group in Group.objects.filter(name=settings.BABY_BUDDY["READ_ONLY_GROUP_NAME"]):
        group.permissions.add(*Permission.objects.filter(codename__in=codenames))


class CoreConfig(AppConfig):
    name = "core"

    def ready(self):
        post_migrate.connect(add_read_only_group_permissions, sender=self)

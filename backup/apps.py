"""The configuration of the app."""

from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings
from django.core.signals import request_finished, request_started
from django.utils.translation import gettext_lazy as _

from backup.conf import SECRETS, hidden
from backup.plug_in import plug_in


class BackupConfig(AppConfig):
    name = "backup"
    verbose_name = _("Backup & Restore")

    def ready(self) -> None:
        from backup import checks  # noqa: F401  registers them
        from backup.automatic.look import watch
        from backup.log_file import listen

        listen()

        request_started.connect(watch.before_request, dispatch_uid="backup")
        request_finished.connect(watch.after_request, dispatch_uid="backup")

        if not hasattr(settings, "BACKUP_HOST_URLCONF"):
            _plug_in_late()
        for name in SECRETS:  # only now, since they may be set after the snippet
            if hasattr(settings, name):
                setattr(settings, name, hidden(getattr(settings, name)))


def _plug_in_late() -> None:
    """Do what the snippet does, if it is missing: for hosts that find this app by its entry point."""
    names = {name: getattr(settings, name) for name in ("INSTALLED_APPS", "ROOT_URLCONF", "TEMPLATES")}
    plug_in(names)
    for name, value in names.items():
        setattr(settings, name, value)

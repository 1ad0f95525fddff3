"""The configuration of the app."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class BackupConfig(AppConfig):
    name = "backup"
    verbose_name = _("Backup & Restore")

    def ready(self) -> None:
        from backup import checks  # noqa: F401  registers them

"""What babybuddy_settings_snippet.py does in a settings module: app, addresses, menu entry, options.

Imports nothing of ours, and nothing of Django, since it runs while the settings are being loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import environ

_ENV = environ.Env()
#: Settings that may come from the environment, each explained in backup/conf.py, and how they are read.
OPTIONS: dict[str, Callable[[str], Any]] = {
    "BACKUP_ROOT": _ENV.str,
    "BACKUP_EXCLUDE": _ENV.list,
    "BACKUP_REQUIRE_SUPERUSER": _ENV.bool,
    "BACKUP_MAX_UPLOAD_SIZE": _ENV.int,
    "BACKUP_MAX_UNCOMPRESSED_SIZE": _ENV.int,
    "BACKUP_PHOTOS": _ENV.bool,
    "BACKUP_MAX_PHOTOS": _ENV.int,
    "BACKUP_SAFETY_COPIES": _ENV.int,
    "BACKUP_STAGED_SECONDS": _ENV.int,
    "BACKUP_UPGRADE_SECONDS": _ENV.int,
    "BACKUP_ENCRYPT": _ENV.list,
    "BACKUP_KEY": _ENV.str,
    "BACKUP_SCHEDULE": _ENV.str,
    "BACKUP_KEEP": _ENV.str,
    "BACKUP_LOCATIONS": os.environ.__getitem__,  # as it is, however it begins
    "BACKUP_PROVE": _ENV.str,
    "BACKUP_NOTIFY": _ENV.list,
    "BACKUP_PING_URL": _ENV.str,
    "BACKUP_WEBHOOK_URL": _ENV.str,
    "BACKUP_AUTOMATIC_SECONDS": _ENV.int,
}
_FALSE = ("false", "off", "n", "no", "0")
_APP = {"backup", "backup.apps.BackupConfig"}
_URLCONF = "backup.root_urls"
_TEMPLATES = str(Path(__file__).parent / "overrides")


def plug_in(settings: dict[str, Any]) -> None:
    """Change the settings of a Baby Buddy so that it has Backup & Restore. A second call changes nothing.

    `settings`: the names of a settings module, its `globals()`.
    """
    apps = list(settings["INSTALLED_APPS"])
    if not _APP & set(apps):
        settings["INSTALLED_APPS"] = [*apps, "backup"]

    # `backup.root_urls` puts /backup/ before the host's addresses, and keeps all of those.
    if settings["ROOT_URLCONF"] != _URLCONF:
        settings["BACKUP_HOST_URLCONF"] = settings["ROOT_URLCONF"]
        settings["ROOT_URLCONF"] = _URLCONF

    # The template of the menu extends the host's own of the same name, so it must be found first.
    first, *others = settings["TEMPLATES"]
    folders = [name for name in first.get("DIRS", []) if str(name) != _TEMPLATES]
    settings["TEMPLATES"] = [{**first, "DIRS": [_TEMPLATES, *folders]}, *others]

    for name, read in OPTIONS.items():
        if text := os.environ.get(name, "").strip():
            settings[name] = _value(name, text, read)


def _value(name: str, text: str, read: Callable[[str], Any]) -> Any:
    """Read a variable. A value of the wrong type stays text, so that `manage.py check` reports it."""
    try:
        value = read(name)
    except ValueError:
        return text
    # environ reads every unknown word as False.
    return text if value is False and text.lower() not in _FALSE else value

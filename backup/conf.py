"""The BACKUP_* settings, read at each use: `conf.root`, `conf.max_upload_size` …

Set them in the settings module or, with babybuddy_settings_snippet.py, in environment variables of the same names. A
value of the wrong type raises `ImproperlyConfigured`; `manage.py check` reports it in advance.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

MIB = 1024 * 1024


class Conf:
    @property
    def max_upload_size(self) -> int:
        """BACKUP_MAX_UPLOAD_SIZE, in bytes (100 MB): larger files are not accepted for a restore.

        A family's year is about 1 MB. A web server in front may allow less (nginx: 1 MB).
        """
        return _number("BACKUP_MAX_UPLOAD_SIZE", 100 * MIB, least=1)

    @property
    def max_uncompressed_size(self) -> int:
        """BACKUP_MAX_UNCOMPRESSED_SIZE, in bytes (4 GB): a backup that unpacks to more is refused.

        Real records compress to a tenth or a twentieth, so a backup of 100 MB unpacks to 1 or 2 GB. Twice that leaves
        room, and still limits the damage that a malicious file can do (deflate compresses up to 1000 to 1).
        """
        return _number("BACKUP_MAX_UNCOMPRESSED_SIZE", 4096 * MIB, least=1)

    @property
    def root(self) -> Path:
        """BACKUP_ROOT: the folder for safety copies, for uploads that wait for their confirmation, and for what
        `manage.py backup` makes without `--output`.

        By default `backups` beside the SQLite database file, which survives an update of a container, or `data/backups`
        in the host's folder with another database. A relative path starts at the host's folder.
        """
        base = Path(getattr(settings, "BASE_DIR", "."))
        value = getattr(settings, "BACKUP_ROOT", None)
        if value is None or value == "":
            return _database_folder() or base.absolute() / "data" / "backups"
        if not isinstance(value, str | os.PathLike):
            raise ImproperlyConfigured("BACKUP_ROOT must be the path of a folder.")
        return base.absolute() / Path(value).expanduser()

    @property
    def exclude(self) -> list[str]:
        """BACKUP_EXCLUDE (none): models or whole apps to leave out: `["imports.log", "metrics"]`."""
        value = getattr(settings, "BACKUP_EXCLUDE", ())
        if not isinstance(value, list | tuple | set | frozenset) or not all(
            isinstance(i, str) for i in value
        ):
            raise ImproperlyConfigured("BACKUP_EXCLUDE must be a list of names of models or apps.")
        return [name.strip() for name in value if name.strip()]

    @property
    def require_superuser(self) -> bool:
        """BACKUP_REQUIRE_SUPERUSER (False): whether only superusers, not all staff, may back up and restore."""
        value = getattr(settings, "BACKUP_REQUIRE_SUPERUSER", False)
        if not isinstance(value, bool):
            raise ImproperlyConfigured("BACKUP_REQUIRE_SUPERUSER must be True or False.")
        return value

    @property
    def safety_copies(self) -> int:
        """BACKUP_SAFETY_COPIES (5): how many of the backups made just before a restore are kept."""
        return _number("BACKUP_SAFETY_COPIES", 5, least=1)

    @property
    def staged_seconds(self) -> int:
        """BACKUP_STAGED_SECONDS (3600): how long an uploaded file waits for its confirmation."""
        return _number("BACKUP_STAGED_SECONDS", 3600, least=1)

    @property
    def upgrade_seconds(self) -> int:
        """BACKUP_UPGRADE_SECONDS (1800): how long it may take to bring an older backup to today's schema.

        The data of a family's year takes seconds. A web server in front may end a request earlier.
        """
        return _number("BACKUP_UPGRADE_SECONDS", 1800, least=1)


def _number(name: str, default: int, *, least: int) -> int:
    value: Any = getattr(settings, name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ImproperlyConfigured(f"{name} must be a whole number, {least} or more.")
    return value


def _database_folder() -> Path | None:
    """Return the default folder on SQLite; None with another database, or if the database is not a file."""
    database = settings.DATABASES.get("default", {})
    name = str(database.get("NAME") or "")
    if not str(database.get("ENGINE", "")).endswith("sqlite3") or not name or name.startswith(("file:", ":")):
        return None
    return Path(name).absolute().parent / "backups"


conf = Conf()

"""`manage.py backups`: lists the backups that the server keeps."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from backup import services
from backup.archive.metadata import shown
from backup.management.base import BackupCommand
from backup.storage.kept import StoredBackup


class Command(BackupCommand):
    help = "Lists the backups that the server keeps, newest first."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="In JSON, as GET /backup/ answers.")

    def handle(self, *args: Any, **options: Any) -> None:
        backups = services.kept_backups()
        if options["json"]:
            self.show(json.dumps({"backups": [backup.as_json() for backup in backups]}, indent=2))
            return
        for backup in backups:
            self.show(_line(backup))
        if not backups:
            self.show("No backup is kept yet.")


def _line(backup: StoredBackup) -> str:
    """Return what a kept backup is, on two lines. Its label may be anybody's."""
    if backup.is_damaged:
        what = "damaged: it cannot be read"
    else:
        what = f"{backup.records} records" + (f", “{shown(backup.label)}”" if backup.label else "")
    notes = [
        backup.kind.value,
        f"{backup.size} bytes",
        *(["pinned"] if backup.pinned else []),
        *(["the last restore can be undone with it"] if backup.is_undo else []),
    ]
    return f"{backup.name}\n    {what} ({', '.join(notes)})"

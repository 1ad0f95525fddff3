"""`manage.py compare_backups`: shows what differs between two backups."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import CommandError

from backup import services
from backup.archive import open_path
from backup.management.base import BackupCommand, add_key_option, add_leave_out_option, show_changes
from backup.storage import kept


class Command(BackupCommand):
    help = "Compares two backups, without this site's own data: what was added, changed and removed in the second."

    def add_arguments(self, parser: ArgumentParser) -> None:
        for name in ("first", "second"):
            parser.add_argument(
                name, metavar="FILE or NAME", help="A backup file, or the name of one that the server keeps."
            )
        add_leave_out_option(parser)
        add_key_option(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with self._opened(options["first"]) as first, self._opened(options["second"]) as second:
            keys = (self.key_of(first, options["key"]), self.key_of(second, options["key"]))
            lost: list[str] = []
            with self.progress_bar() as reporter:
                changes = services.compare_backups(
                    first, second, reporter, leave_out=options["leave_out"], keys=keys, note=lost.append
                )
            show_changes(self, changes)
            for line in lost:
                self.show(f"Left out: {line}", self.style.WARNING)

    def _opened(self, file: str) -> BinaryIO:
        try:
            return open_path(Path(file)) if Path(file).exists() else kept.open_backup(file)
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error.strerror}") from error

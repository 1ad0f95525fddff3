"""`manage.py verify_backup`: reads all of a backup file, without a database."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from backup import services
from backup.archive import open_path
from backup.archive.names import shown
from backup.management.base import BackupCommand, add_key_option, describe


class Command(BackupCommand):
    help = "Checks that a backup file is whole: ZIP, checksums, counts, JSON and photos. Needs no database."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "file", metavar="FILE", help="A backup file, or the folder that one was unpacked to."
        )
        add_key_option(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with open_path(Path(options["file"])) as source:
                metadata = services.verify_backup(source, key=self.key_of(source, options["key"]))
        except OSError as error:
            raise CommandError(f"{options['file']} cannot be read: {error.strerror}") from error
        self.report(f"{options['file']} is whole. {describe(metadata)}")
        for line in metadata.warnings:
            self.warn(shown(line, len(line)))

"""`manage.py verify_backup`: reads all of a backup file, without a database."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from backup import services
from backup.exceptions import BackupError


class Command(BaseCommand):
    help = "Checks that a backup file is whole: ZIP, checksums, counts and JSON. Needs no database."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="A backup file.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with open(options["file"], "rb") as source:
                metadata = services.verify_backup(source)
        except BackupError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"{options['file']} cannot be read: {error.strerror}") from error
        self.stdout.write(
            f"{options['file']} is whole: {metadata.total_records} records of {metadata.models_count} "
            f"models, made {metadata.timestamp.isoformat()} by Baby Buddy {metadata.babybuddy_version}"
        )

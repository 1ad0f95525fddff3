from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from argparse import ArgumentParser
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from django.core.management.base import BaseCommand, CommandError

from backup import services
from backup.archive import Metadata
from backup.conf import conf
from backup.exceptions import BackupError
from backup.management.progress import progress_bar
from backup.storage import files


class Command(BaseCommand):
    help = "Back up all data into one ZIP file. It appears under its name only when it is complete."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--output",
            metavar="FILE, FOLDER or -",
            help="where to; a folder gets a file with the date and time in its name, - is standard output "
            "(default: the folder BACKUP_ROOT)",
        )
        parser.add_argument("--label", default="", help="a note of yours that the backup carries")

    def handle(self, *args: Any, **options: Any) -> None:
        output, label = options["output"], options["label"]
        try:
            if output == "-":
                self._to_stdout(label)
            else:
                self._to_file(self._target(output), label)
        except BackupError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"The backup could not be written: {error}") from error

    def _target(self, output: str | None) -> Path:
        if output is None:
            conf.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            return conf.root / services.backup_name(None)
        path = Path(output)
        if output.endswith(os.sep) or path.is_dir():
            path /= services.backup_name(None)
        if not path.parent.is_dir():
            raise CommandError(f"There is no folder {path.parent}.")
        return path

    def _to_file(self, path: Path, label: str) -> None:
        _sweep(path.parent)
        # In the target's own folder, so that the last step is a rename. mkstemp lets only this user read it.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w+b") as file:
                metadata = self._write(file, label)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
        files.sync_folder(path.parent)
        services.note_backup(metadata)
        self.stdout.write(f"{path}\n{_counts(metadata)}")

    def _to_stdout(self, label: str) -> None:
        if sys.stdout.isatty():
            raise CommandError("A ZIP file is not for a terminal: redirect the output into a file or a pipe.")
        with tempfile.TemporaryFile() as file:
            metadata = self._write(cast(BinaryIO, file), label)
            file.seek(0)
            shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        services.note_backup(metadata)
        self.stderr.write(_counts(metadata), self.style.NOTICE)

    def _write(self, file: BinaryIO, label: str) -> Metadata:
        with progress_bar() as reporter:
            return services.create_backup(file, label=label, reporter=reporter)


def _counts(metadata: Metadata) -> str:
    return f"{metadata.total_records} records of {metadata.models_count} models"


def _sweep(folder: Path) -> None:
    """What commands left half written that were killed."""
    for part in folder.glob(".*.zip.*"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > files.ABANDONED.total_seconds():
                part.unlink()

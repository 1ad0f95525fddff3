"""`manage.py prove_backup`: restores a backup into a throw-away database and compares every value."""

from __future__ import annotations

from argparse import ArgumentParser
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from backup import services
from backup.archive import open_path
from backup.automatic import run as automatic
from backup.exceptions import InvalidBackup, LocationFailed, NoSuchBackup
from backup.management.base import BackupCommand, add_key_option, add_leave_out_option, way_on
from backup.proof import Verdict
from backup.storage import kept
from backup.storage.photos import completed


class Command(BackupCommand):
    help = (
        "Proves a backup: restores all of it into a throw-away database, and compares every value. This site's own "
        "data is not touched. Exits with 1 unless the backup is proved."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "file",
            metavar="FILE or NAME",
            help="A backup file, the folder that one was unpacked to, an old db.sqlite3, or the name of a backup that "
            "the server keeps (see the command `backups`).",
        )
        add_leave_out_option(parser)
        add_key_option(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        file, path = options["file"], Path(options["file"])
        leave_out: bool = options["leave_out"]
        try:
            if path.exists():
                with completed(open_path(path), None) as source:
                    key = self.known_key(source, options["key"])
                    with self.progress_bar() as reporter:
                        proof = services.prove_backup(
                            source,
                            path=path if path.is_file() else None,
                            leave_out=leave_out,
                            key=key,
                            reporter=reporter,
                        )
            else:
                kept.find(file)
                key = None
                # If the copy is gone or exchanged, or the location is down, the proof will say so.
                with suppress(NoSuchBackup, InvalidBackup, LocationFailed), kept.open_backup(file) as source:
                    key = self.known_key(source, options["key"])
                with self.progress_bar() as reporter:
                    proof = services.prove_kept(file, leave_out=leave_out, key=key, reporter=reporter)
                automatic.notify_of_proof()
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error.strerror}") from error
        for line in proof.left_out:
            self.report(f"Left out: {line}", self.style.WARNING)
        if proof.verdict is Verdict.PROVED:
            but = ", but for what was left out" if leave_out or proof.left_out else ""
            photos = f" and {proof.photos} photos" if proof.photos else ""
            self.report(
                f"Proved: all {proof.records} records{photos} came back identical{but}.", self.style.SUCCESS
            )
        else:
            how = way_on(proof.offer, options)
            if proof.verdict is Verdict.FAILED:
                raise CommandError(f"Failed: {proof.reason}{how}")
            raise CommandError(f"Unknown, it could not be told: {proof.reason}{how}")

"""`manage.py backup`: writes a backup to a file, a folder or standard output."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from django.core.management.base import CommandError

from backup import services
from backup.archive import Metadata
from backup.automatic import run as automatic
from backup.conf import conf
from backup.management.base import BackupCommand, counts, lacks
from backup.scope import lacks_users
from backup.storage import elsewhere, owner
from backup.storage.atomic import atomic_write, sweep
from backup.storage.keys import Place


class Command(BackupCommand):
    help = "Backs up all data into one ZIP file, which appears under its name only when it is complete."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--output",
            metavar="FILE, FOLDER or -",
            help="Where to write the backup. A folder gets a file named by date and time; - is standard output. "
            "Defaults to the folder BACKUP_ROOT.",
        )
        parser.add_argument(
            "--encrypt",
            action="store_true",
            help="Encrypt the backup with the key of this site, whatever BACKUP_ENCRYPT says: see `backup_key`.",
        )
        parser.add_argument("--photos", action="store_true", help="Put uploaded photos into the backup, too.")
        parser.add_argument("--label", default="", help="A note of yours that the backup carries.")
        parser.add_argument(
            "--keep",
            action="store_true",
            help="Keep the backup on the server, where the page and the command `backups` list it. Takes no --output.",
        )
        parser.add_argument(
            "--leave-out",
            action="store_true",
            help="Leave out what cannot be read, and name it, instead of making no backup.",
        )

        parser.add_argument(
            "--automatic",
            action="store_true",
            help="Make an automatic backup where one is due by BACKUP_SCHEDULE, and apply BACKUP_KEEP; for cron.",
        )
        parser.add_argument("--now", action="store_true", help="With --automatic: although none is due.")

    def handle(self, *args: Any, **options: Any) -> None:
        output = options["output"]
        how = {name: options[name] for name in ("label", "leave_out", "encrypt", "photos")}
        if options["now"] and not options["automatic"]:
            raise CommandError("--now is for --automatic: other backups are made at once anyhow.")
        if options["automatic"]:
            if output is not None or options["keep"] or any(how.values()):
                raise CommandError("--automatic takes --now only: the settings say what it makes.")
            self._automatic(options["now"])
            return
        if options["keep"] and output is not None:
            raise CommandError("--keep takes no --output: the server keeps the backup with the others.")
        if lacks_users():
            self.warn("The users of this site are not in the backup: a router has them in another database.")
        try:
            if options["keep"]:
                self._keep(how)
            elif output is not None and (output == "-" or _is_stdout(output)):
                self._to_stdout(how)
            elif output is not None and _is_special(output):
                self._to_special(output, how)
            else:
                place = Place.LOCAL if output is None else Place.DOWNLOAD
                path, is_named = self._target(output)
                self._to_file(path, {**how, "place": place}, replaces=is_named)
        except BrokenPipeError as error:
            self.drop_output()
            raise CommandError("The backup is not complete: whoever read the output is gone.") from error
        except OSError as error:
            if output is None and (isinstance(error, PermissionError) or owner.file_at(conf.root)):
                raise CommandError(owner.in_the_way(conf.root)) from error
            raise CommandError(f"The backup could not be written: {error}") from error

    def _target(self, output: str | None) -> tuple[Path, bool]:
        """Return the path to write to, and whether the user named the file, so that it may be replaced."""
        if output is None:
            conf.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            return conf.root / services.backup_name(None), False
        path = Path(output)
        is_named = not (output.endswith(os.sep) or path.is_dir())
        if not is_named:
            path /= services.backup_name(None)
        elif path.is_symlink():  # what it leads to is replaced, not the link
            path = Path(os.path.realpath(path))
        if not path.parent.is_dir():
            raise CommandError(f"There is no folder {path.parent}.")
        return path, is_named

    def _automatic(self, now: bool) -> None:
        with self.progress_bar() as reporter, automatic.time_limit():
            outcome = automatic.run(now=now, reporter=reporter)
        self.report(outcome.message)
        if outcome.error:  # the status says so, too; the backup is there
            self.report(outcome.error, self.style.WARNING)

    def _keep(self, how: dict[str, Any]) -> None:
        how["photos"] = how["photos"] or None  # otherwise the settings decide
        with self.progress_bar() as reporter:
            stored = services.keep_backup(reporter=reporter, **how)
        photos = f" and {stored.photos} photos" if stored.photos else ""
        self.report(f"{stored.name}\n{stored.records} records of {len(stored.counts)} models{photos}")
        for line in stored.warnings:
            self.warn(line)
        is_copied = automatic.copy_again()
        for seen in elsewhere.seen().values():
            waits = f"{seen.name}: not copied yet: another process makes backups or copies right now."
            self.report(f"{seen.name}: {seen.state.value}: {seen.message}" if is_copied else waits)

    def _to_file(self, path: Path, how: dict[str, Any], *, replaces: bool) -> None:
        sweep(path.parent)
        with atomic_write(path, replaces=replaces) as file:
            metadata = self._write(file, how)
        if path.parent == conf.root:
            owner.give_away(conf.root)
        services.note_backup(metadata)
        self.report(f"{file.name}\n{counts(metadata)}")
        self._warn(metadata)

    def _to_special(self, output: str, how: dict[str, Any]) -> None:
        """Write the backup into a pipe or a device, which cannot be replaced as a file can."""
        metadata = self._through_copy(how, lambda: open(output, "wb"))  # noqa: SIM115
        self.report(f"{output}\n{counts(metadata)}")
        self._warn(metadata)

    def _to_stdout(self, how: dict[str, Any]) -> None:
        if self.is_unread:
            raise CommandError("Standard output is closed, so the backup cannot be written there.")
        if sys.stdout.isatty():
            raise CommandError(
                "A ZIP file cannot be shown on a terminal. Redirect the output into a file or a pipe."
            )
        try:
            metadata = self._through_copy(how, lambda: nullcontext(sys.stdout.buffer))
        except OSError:
            self.drop_output()
            raise
        if self.verbosity:
            self.warn(counts(metadata), self.style.NOTICE)
        self._warn(metadata)

    def _through_copy(
        self, how: dict[str, Any], opened: Callable[[], AbstractContextManager[BinaryIO]]
    ) -> Metadata:
        """Write the backup into a temporary file, and copy that to where one can only write. `opened`: opens this."""
        with tempfile.TemporaryFile() as file:
            metadata = self._write(cast(BinaryIO, file), how)
            file.seek(0)
            with opened() as target:
                shutil.copyfileobj(file, target)
                target.flush()
        services.note_backup(metadata)
        return metadata

    def _warn(self, metadata: Metadata) -> None:
        """Show what is missing in the backup, even if the command is quiet."""
        for line in lacks(metadata):
            self.warn(line)

    def _write(self, file: BinaryIO, how: dict[str, Any]) -> Metadata:
        with self.progress_bar() as reporter:
            return services.create_backup(file, reporter=reporter, **how)


def _is_special(output: str) -> bool:
    """Tell whether there is something else than a file or a folder at a path, such as a pipe or a device."""
    return os.path.exists(output) and not os.path.isfile(output) and not os.path.isdir(output)


def _is_stdout(output: str) -> bool:
    """Tell whether a path, such as /dev/stdout, is that of standard output."""
    with suppress(OSError, ValueError):
        return os.path.samestat(os.stat(output), os.fstat(sys.stdout.fileno()))
    return False

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import BaseCommand, CommandError

from backup import services
from backup.archive import Metadata
from backup.exceptions import BackupError
from backup.management.progress import progress_bar
from backup.options import RestoreMode, RestoreOptions, Result
from backup.restore.plan import Plan
from backup.storage import kept


class Command(BaseCommand):
    help = (
        "Restore a backup. Without --clear nothing is deleted: the backup's records are added, and win over "
        "those that are there. Before anything changes, a safety copy is made, which --undo brings back."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", nargs="?", help="a backup file, or a db.sqlite3")
        parser.add_argument(
            "--undo",
            action="store_true",
            help="in place of FILE: the newest safety copy, clearing what is there now",
        )
        parser.add_argument(
            "--clear", action="store_true", help="delete all that is there now: exactly the backup is left"
        )
        parser.add_argument(
            "--clear-unknown-apps",
            action="store_true",
            help="with --clear: even what apps hold that the backup has never seen (asked for, without --no-input)",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="show what would change, and change nothing"
        )
        parser.add_argument(
            "--no-input",
            "--noinput",
            action="store_false",
            dest="interactive",
            help="do not ask before restoring",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if bool(options["file"]) == options["undo"]:
            raise CommandError("Name the backup file to restore, or --undo.")
        if options["undo"] and (options["dry_run"] or options["clear"]):
            raise CommandError("--undo goes with neither --dry-run nor --clear.")
        if options["clear_unknown_apps"] and not options["clear"]:
            raise CommandError("--clear-unknown-apps goes with --clear.")
        try:
            if options["undo"]:
                self._undo(options["interactive"])
            else:
                self._restore(**options)
        except BackupError as error:
            raise CommandError(str(error)) from error

    def _restore(
        self,
        file: str,
        clear: bool,
        clear_unknown_apps: bool,
        dry_run: bool,
        interactive: bool,
        **others: Any,
    ) -> None:
        try:
            given = open(file, "rb")  # noqa: SIM115  closed below; its errors are not those of what follows
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error.strerror}") from error
        mode = RestoreMode.CLEAR if clear else RestoreMode.OVERWRITE
        options = RestoreOptions(mode, clear_unknown_apps=clear_unknown_apps or interactive)
        with given, self._at_todays_schema(given, Path(file)) as source:
            if dry_run or interactive:
                plan = services.inspect_backup(source, options)
                self._show(plan)
                if dry_run:
                    return
                if plan.refusal is not None:
                    raise plan.refusal
                self._ask("Restore this backup?")  # what would be deleted has just been shown
                source.seek(0)
            with progress_bar() as reporter:
                result = services.restore_backup(
                    source,
                    options,
                    reporter=reporter,
                )
            self._report(result)

    @contextmanager
    def _at_todays_schema(self, given: BinaryIO, path: Path) -> Iterator[BinaryIO]:
        with ExitStack() as stack:
            with progress_bar() as reporter:
                source = stack.enter_context(services.at_todays_schema(given, path=path, reporter=reporter))
            yield source

    def _undo(self, interactive: bool) -> None:
        if interactive:
            copies = kept.backups()
            if copies:
                self.stdout.write(f"Newest safety copy: {copies[0].name}, of {copies[0].created.isoformat()}")
                self._ask("Delete all that is there now, and bring this copy back?")
        with progress_bar() as reporter:
            self._report(services.undo_restore(reporter=reporter))

    def _ask(self, question: str) -> None:
        if not sys.stdin.isatty():
            raise CommandError("There is nobody to ask: confirm with --no-input.")
        if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was changed.")

    def _show(self, plan: Plan) -> None:
        metadata = plan.metadata
        self.stdout.write(
            f"Backup of {metadata.timestamp.isoformat()} by {metadata.created_by or 'nobody known'}: "
            f"{metadata.total_records} records of {metadata.models_count} models, "
            f"Baby Buddy {metadata.babybuddy_version}, Django {metadata.django_version}, "
            f"{metadata.database_engine}\n"
            + _upgrade(metadata)
            + ("Everything that is there now is cleared first." if plan.clear else "Nothing is deleted.")
        )
        width = max([len(label) for label in plan.changes], default=5)
        kinds = ("added", "changed", "unchanged", "removed")
        self.stdout.write(f"\n{'model':{width}}" + "".join(f"{kind:>10}" for kind in kinds))
        for label, changes in plan.changes.items():
            self.stdout.write(f"{label:{width}}" + "".join(f"{getattr(changes, kind):>10}" for kind in kinds))
        self.stdout.write("")
        for line in plan.warnings:
            self.stdout.write(f"Note: {line}", self.style.WARNING)
        for line in plan.conflicts:
            self.stdout.write(f"Conflict: {line}", self.style.ERROR)
        if plan.refusal is not None:
            self.stdout.write(f"It would be refused: {plan.refusal.message}", self.style.ERROR)

    def _report(self, result: Result) -> None:
        for line in result.warnings:
            self.stdout.write(f"Note: {line}", self.style.WARNING)
        if result.safety_copy:
            self.stdout.write(
                f"What was there before is kept as {result.safety_copy}; `restore --undo` brings it back."
            )
        self.stdout.write(f"{result.records} records restored", self.style.SUCCESS)


def _upgrade(metadata: Metadata) -> str:
    if metadata.upgraded is None:
        return ""
    ran = metadata.upgraded.migrations
    return (
        f"Brought from Baby Buddy {metadata.upgraded.babybuddy_version or '?'} to {metadata.babybuddy_version} by "
        f"{len(ran)} migrations{': ' if ran else ''}{', '.join(ran)}\n"
    )

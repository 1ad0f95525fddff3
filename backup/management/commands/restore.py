"""`manage.py restore`: previews and restores a backup, or undoes the last restore."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import CommandError

from backup import services
from backup.archive import Key, Metadata, open_path
from backup.archive.names import shown
from backup.exceptions import Damaged, NoSuchBackup
from backup.management.base import (
    BackupCommand,
    add_key_option,
    describe,
    has_terminal,
    show_changes,
    way_on,
)
from backup.options import Part, RestoreMode, RestoreOptions, Result, parts_named
from backup.presentation.names import entered
from backup.restore.plan import Plan
from backup.storage import kept
from backup.storage.photos import completed


class Command(BackupCommand):
    help = (
        "Restores a backup. Without --clear nothing is deleted: the records of the backup are added, and replace "
        "those that are there. Before anything changes, a safety copy is made, which --undo brings back."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "file",
            metavar="FILE or NAME",
            nargs="?",
            help="A backup file, the folder that one was unpacked to, an old db.sqlite3, or the name of a backup that "
            "the server keeps (see the command `backups`).",
        )
        parser.add_argument(
            "--undo",
            action="store_true",
            help="Undo the last restore: bring back the safety copy that was made before it. Takes no FILE.",
        )
        parser.add_argument(
            "--clear",
            action="store_true",
            help="Delete everything that is there now. Exactly what the backup holds is left.",
        )
        parser.add_argument(
            "--keep-both",
            action="store_true",
            help="Where another record has the number of one in the backup, keep it, and give the backup's a new one.",
        )
        parser.add_argument(
            "--only",
            metavar="PART,…",
            type=_parts,
            default=tuple(Part),
            help="Restore only these parts: entries, accounts (users, groups, API tokens), settings. The others "
            "stay as they are here.",
        )
        parser.add_argument(
            "--clear-unknown-apps",
            action="store_true",
            help="With --clear and --no-input: also delete the records of apps that the backup does not know.",
        )
        parser.add_argument(
            "--edited",
            action="store_true",
            help="The file was changed by hand: do not hold its checksums and counts against it.",
        )
        parser.add_argument(
            "--leave-out",
            action="store_true",
            help="Leave out what cannot be restored (values that nobody can read, damaged parts of the file, records "
            "that refer to nothing), and name it, instead of restoring nothing.",
        )
        parser.add_argument(
            "--merge-tags",
            action="store_true",
            help="Of tags whose names are the same to this database (“Milk” and “milk”, any two emoji) make one.",
        )
        parser.add_argument(
            "--empty-missing-files",
            action="store_true",
            help="Afterwards, or without a FILE, empty the fields that name a photo which is not in the media folder.",
        )
        parser.add_argument(
            "--without-safety-copy",
            action="store_true",
            help="Restore although the database here is damaged, so that a safety copy cannot hold all of it. What can "
            "be read of it is kept.",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Show what would change, and change nothing."
        )
        parser.add_argument(
            "--no-input",
            "--noinput",
            action="store_false",
            dest="interactive",
            help="Do not ask for confirmation.",
        )

        add_key_option(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["undo"] and options["file"]:
            raise CommandError("--undo takes no FILE: it brings back what was there before the last restore.")
        if options["empty_missing_files"] and not options["file"] and not options["undo"]:
            self._empty_missing_files()
            return
        if not options["undo"] and not options["file"]:
            raise CommandError("Name the backup file to restore, or use --undo.")
        others = ("dry_run", "clear", "edited")
        if options["undo"] and (any(options[name] for name in others) or options["only"] != tuple(Part)):
            raise CommandError("--undo cannot be combined with --dry-run, --clear, --edited or --only.")
        if options["clear_unknown_apps"] and not options["clear"]:
            raise CommandError("--clear-unknown-apps needs --clear.")
        if options["keep_both"] and (options["clear"] or options["undo"]):
            raise CommandError("--keep-both cannot be combined with --clear or --undo.")
        if options["undo"]:
            self._undo(options["interactive"], options["without_safety_copy"], options["key"])
        else:
            self._restore(
                options["file"],
                _options_of(options),
                key=options["key"],
                dry_run=options["dry_run"],
                interactive=options["interactive"],
            )
            if options["empty_missing_files"] and not options["dry_run"]:
                self._empty_missing_files()

    def _restore(
        self, file: str, options: RestoreOptions, *, key: str | None, dry_run: bool, interactive: bool
    ) -> None:
        opened, path = self._open(file)
        with ExitStack() as stack:
            file_key = self.key_of(stack.enter_context(opened), key, ask=interactive or dry_run)
            source = opened
            if dry_run or interactive:
                # Once for both. A restore alone need not wait until it is done.
                source = stack.enter_context(self._at_todays_schema(opened, path, options, file_key))
                try:
                    plan = services.inspect_backup(source, options, key=file_key)
                    self._show(plan)
                    if plan.refusal is not None and not dry_run:
                        raise plan.refusal
                except Damaged as error:
                    if not options.without_safety_copy:
                        raise
                    self.show(f"{error}\nSo it cannot be told what would change here.", self.style.WARNING)
                if dry_run:
                    return
                self._ask("Restore this backup?")  # the changes have just been shown
                source.seek(0)
            with self.progress_bar() as reporter:
                result = services.restore_backup(source, options, reporter=reporter, key=file_key, path=path)
            self._report(result)

    def _open(self, file: str) -> tuple[BinaryIO, Path | None]:
        """Open a file, or a kept backup of this name; a kept backup has no path."""
        path = Path(file)
        try:
            if not path.exists():
                with suppress(NoSuchBackup):
                    return services.open_kept(file), None
            # What comes through a pipe has no file beside it, and is not there a second time.
            return completed(open_path(path), None), path if path.is_file() else None
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error.strerror}") from error

    @contextmanager
    def _at_todays_schema(
        self, file: BinaryIO, path: Path | None, options: RestoreOptions, key: Key | None
    ) -> Iterator[BinaryIO]:
        if options.without_safety_copy:  # the database may be too damaged to tell its migrations
            yield file
            return
        with ExitStack() as stack:
            with self.progress_bar() as reporter:
                source = stack.enter_context(
                    services.at_todays_schema(file, options, path=path, key=key, reporter=reporter)
                )
            yield source

    def _empty_missing_files(self) -> None:
        with self.progress_bar() as reporter:
            result = services.empty_missing_files(reporter=reporter)
        if not result.safety_copy:
            self.report("No photo is missing.")
            return
        for line in result.warnings:
            self.report(f"Note: {line}", self.style.WARNING)
        self.report(f"The data from before is kept as {result.safety_copy}; `restore --undo` brings it back.")

    def _undo(self, interactive: bool, without_safety_copy: bool, key: str | None) -> None:
        name = services.safety_copy_to_undo()
        with kept.open_backup(name) as source:
            file_key = self.key_of(source, key, ask=interactive)
        if interactive:
            copy = kept.find(name)
            self.show(f"Safety copy {name}, of {copy.created.isoformat()} ({copy.label})")
            self._ask("Delete everything that is there now, and bring this copy back?")
        with self.progress_bar() as reporter:
            self._report(
                services.undo_restore(
                    safety_copy=name,
                    only_last=True,
                    without_safety_copy=without_safety_copy,
                    reporter=reporter,
                    key=file_key,
                ),
                is_undo=True,
            )

    def _ask(self, question: str) -> None:
        if self.is_unread:
            raise CommandError("Whoever read the output is gone. Nothing was changed.")
        if not has_terminal():
            raise CommandError("There is no terminal to ask on. Confirm with --no-input.")
        if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was changed.")

    def _show(self, plan: Plan) -> None:
        metadata = plan.metadata
        self.show(
            f"{describe(metadata)}\n"
            + _upgrade_line(metadata)
            + _parts_line(plan.options.parts)
            + (
                "Everything that is there now is deleted first."
                if plan.mode.clears
                else "Existing data is kept."
            )
            + f"\n{_headline('come from the backup', plan.records, plan.children)}"
        )
        show_changes(self, {label: changes.as_json() for label, changes in plan.changes.items()})
        if any(plan.photos.as_json().values()):
            photos = plan.photos
            self.show(
                f"Photos: {photos.added} added, {photos.unchanged} already here, {photos.missing} missing"
            )
        self.show("")
        for line in plan.warnings:
            self.show(f"Note: {line}", self.style.WARNING)
        for conflict in plan.conflicts:
            self.show(f"Conflict: {conflict}", self.style.ERROR)
        if plan.refusal is not None:
            known = {*map(str, plan.conflicts)}
            lines = [line for line in plan.refusal.details if line not in known]
            self.show(
                "\n".join([f"This restore would be refused: {plan.refusal.message}", *lines])
                + way_on(plan.refusal.offer, vars(plan.options)),
                self.style.ERROR,
            )

    def _report(self, result: Result, *, is_undo: bool = False) -> None:
        for line in result.warnings:
            self.report(f"Note: {line}", self.style.WARNING)
        if result.safety_copy:
            way_back = f"restore {result.safety_copy} --clear" if is_undo else "restore --undo"
            self.report(f"The data from before is kept as {result.safety_copy}; `{way_back}` brings it back.")
        photos = f"and {result.photos} photos " if result.photos else ""
        self.report(
            _headline(f"{photos}restored", result.restored, result.children),
            self.style.SUCCESS,
        )


def _options_of(options: Mapping[str, Any]) -> RestoreOptions:
    """Return how to restore, from the options of the command."""
    modes = {"clear": RestoreMode.CLEAR, "keep_both": RestoreMode.KEEP_BOTH}
    return RestoreOptions(
        next((mode for name, mode in modes.items() if options[name]), RestoreMode.OVERWRITE),
        options["only"],
        # Whoever is asked sees before what would be deleted.
        clear_unknown_apps=options["clear_unknown_apps"] or options["interactive"],
        edited=options["edited"],
        leave_out=options["leave_out"],
        merge_tags=options["merge_tags"],
        without_safety_copy=options["without_safety_copy"],
    )


def _parts(text: str) -> tuple[Part, ...]:
    try:
        parts = parts_named(text)
    except ValueError as error:
        raise ArgumentTypeError(f"“{error}” is none of {', '.join(part.value for part in Part)}") from error
    if not parts:
        raise ArgumentTypeError("name at least one part")
    return parts


def _headline(what: str, records: Mapping[str, int], children: Sequence[str]) -> str:
    """Return how many records people have entered, with the names of children, and how many came with Baby Buddy."""
    number = entered(records)
    seeded = sum(records.values()) - number
    return (
        f"{number} records {what}"
        + (f", of {', '.join(map(shown, children))}" if children else "")
        + (f", and {seeded} of the growth tables that come with Baby Buddy" if seeded else "")
    )


def _parts_line(parts: tuple[Part, ...]) -> str:
    if parts == tuple(Part):
        return ""
    others = [part.value for part in Part if part not in parts]
    return (
        f"Only {' and '.join(part.value for part in parts)}; {' and '.join(others)} here stay as they are. "
    )


def _upgrade_line(metadata: Metadata) -> str:
    if metadata.upgraded is None:
        return ""
    ran, before = metadata.upgraded.migrations, metadata.upgraded.babybuddy_version
    if before == metadata.babybuddy_version and not ran:
        return ""
    versions = f"from Baby Buddy {shown(before) or '?'} to {shown(metadata.babybuddy_version)}"
    if before == metadata.babybuddy_version:
        versions = "to the schema of this site"
    return f"Brought {versions} by {len(ran)} migrations{': ' if ran else ''}{', '.join(map(shown, ran))}\n"

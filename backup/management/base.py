"""What the commands share."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from getpass import getpass
from io import TextIOWrapper
from typing import Any, BinaryIO, TextIO

from django.core.management.base import BaseCommand, CommandError

from backup import services
from backup.archive import Key, Metadata
from backup.archive.names import shown
from backup.exceptions import BackupError, InvalidBackup, KeyNeeded
from backup.management.progress import progress_bar
from backup.options import Reporter
from backup.tables import places_in_words


class BackupCommand(BaseCommand):
    """A command whose `BackupError`s are shown without a traceback."""

    verbosity = 1
    #: Whether nobody reads the output any longer, as with `| head`, or ever did, as with `>&-`.
    is_unread = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.is_unread = not has_stream("stdout")
        for name in ("stdout", "stderr"):
            if not has_stream(
                name
            ):  # Python has None in place of a closed one, and Django and tqdm fail at it
                setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  until the end of the process
        super().__init__(*args, **kwargs)

    def execute(self, *args: Any, **options: Any) -> str | None:
        self.verbosity = options["verbosity"]
        if isinstance(sys.stdout, TextIOWrapper):  # where it takes ASCII only, others are shown as codes
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().execute(*args, **options)
        except BackupError as error:
            raise CommandError(f"{error}{way_on(error.offer, options)}") from error

    def show(self, text: str = "", style: Callable[[str], str] | None = None) -> None:
        """Write a line to stdout. The command goes on even if nobody reads it.

        Raises `CommandError` if it cannot be written for another reason, such as a full disk.
        """
        try:
            self.stdout.write(text, style)
            self.stdout.flush()
        except BrokenPipeError:
            self.drop_output()
        except OSError as error:
            self.drop_output()
            raise CommandError(f"The output could not be written: {error.strerror or error}.") from error

    def report(self, text: str, style: Callable[[str], str] | None = None) -> None:
        """Write a line that says what was done, unless the command is quiet (`-v0`)."""
        if self.verbosity:
            try:
                self.show(text, style)
            except CommandError as error:  # it was done all the same
                self.warn(str(error))

    def warn(self, text: str, style: Callable[[str], str] | None = None) -> None:
        """Write a line to stderr, even if the command is quiet. It goes on if that cannot be written."""
        try:
            self.stderr.write(text, style or self.style.WARNING)
            self.stderr.flush()
        except OSError:
            _discard(sys.stderr)

    def drop_output(self) -> None:
        """Discard all output from now on."""
        self.is_unread = True
        _discard(sys.stdout)

    def key_of(self, source: BinaryIO, typed: str | None, *, ask: bool = True) -> Key | None:
        """Return the key that a file is encrypted with; None if it is not encrypted.

        `typed`: the option `--key`. Without it, if the server does not have the key, the user is asked for it, provided
        that there is a terminal and `ask` is true. Raises `KeyNeeded`, `WrongKey`, `InvalidBackup`.
        """
        try:
            return services.key_of(source, services.typed_key(typed or "", source))
        except KeyNeeded as error:
            if typed or not ask or not has_terminal():
                raise
            asked = getpass(f"{error.message} Key: ")
        return services.key_of(source, services.typed_key(asked, source))

    def known_key(self, source: BinaryIO, typed: str | None) -> Key | None:
        """Return the key as `key_of` does, but None also for a damaged file: the proof will say what is wrong with it.

        Raises `KeyNeeded`, `WrongKey`.
        """
        with suppress(InvalidBackup):
            return self.key_of(source, typed)
        return None

    def progress_bar(self) -> AbstractContextManager[Reporter]:
        return progress_bar(is_hidden=self.verbosity == 0)


def _discard(stream: TextIO) -> None:
    """Discard what is written to a stream, so that Python does not fail when it flushes it at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def has_stream(name: str) -> bool:
    """Tell whether `sys.stdin`, `sys.stdout` or `sys.stderr` is there: whoever starts a command may have closed it."""
    return getattr(sys, name) is not None


def has_terminal() -> bool:
    """Tell whether there is somebody to ask."""
    return has_stream("stdin") and sys.stdin.isatty()


def add_key_option(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--key",
        help="The key of an encrypted backup. Others on this machine can see it in the list of processes: without "
        "this, the keys of this site are tried, and BACKUP_KEY; else you are asked.",
    )


def add_leave_out_option(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--leave-out",
        action="store_true",
        help="Leave out what this site has no place for, or cannot restore.",
    )


def way_on(offer: str, options: Mapping[str, Any]) -> str:
    """Return a line that names the option of an offer (see `BackupError`); "" for none, if the command does not have
    the option, or if it is given. `options`: name -> value, of the command."""
    is_new = offer in options and not options[offer]
    return f"\nTo go on all the same, add --{offer.replace('_', '-')}." if is_new else ""


def counts(metadata: Metadata) -> str:
    photos = f" and {len(metadata.photos)} photos" if metadata.includes_media else ""
    return f"{metadata.total_records} records of {metadata.models_count} models{photos}"


def lacks(metadata: Metadata) -> list[str]:
    """Return lines about what is missing in a new backup."""
    lines = [f"Left out: {line}" for line in places_in_words(metadata.left_out)]
    lines += [f"Points at nothing: {line}" for line in places_in_words(metadata.dangling)]
    return [*lines, *metadata.warnings]


def describe(metadata: Metadata) -> str:
    """Return one line about a backup. Control characters are removed, since the file may be anybody's."""
    by = shown(metadata.created_by) or "nobody known"
    label = f" (“{shown(metadata.label)}”)" if metadata.label else ""
    return (
        f"Backup of {metadata.timestamp.isoformat()} by {by}{label}: {counts(metadata)}, "
        f"Baby Buddy {shown(metadata.babybuddy_version)}, Django {shown(metadata.django_version)}, "
        f"{shown(metadata.database_engine)}"
    )


def show_changes(command: BackupCommand, changes: Mapping[str, Mapping[str, int]]) -> None:
    """Show a table of changes: model label -> how many records are added, changed, unchanged, removed."""
    width = max([len(label) for label in changes], default=5)
    kinds = ("added", "changed", "unchanged", "removed")
    command.show(f"\n{'model':{width}}" + "".join(f"{kind:>10}" for kind in kinds))
    for label, counts in changes.items():
        command.show(f"{label:{width}}" + "".join(f"{counts[kind]:>10}" for kind in kinds))

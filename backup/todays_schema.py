"""Brings an older backup, or a database file, to today's schema before it is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from django.db.migrations.loader import MigrationLoader
from django.utils.translation import gettext as _

from .archive import GrowingArchive, Key, photos_beside, with_photos
from .database import database_of
from .database.sqlite_file import is_database
from .exceptions import BackupError, DamagedBackup, Forbidden
from .log import as_our_errors, logged
from .options import SILENT, Reporter, RestoreOptions
from .site import tables_here
from .storage.keys import unlocked
from .upgrade import process, schema


@contextmanager
def brought_to_todays_schema(
    source: BinaryIO,
    options: RestoreOptions,
    *,
    path: Path | None = None,
    key: Key | None = None,
    user: Any = None,
    reporter: Reporter = SILENT,
    may_grow: bool = False,
) -> Iterator[BinaryIO | GrowingArchive]:
    """Like `at_todays_schema`. `may_grow`: what is made of a database file may be read while it is still written."""
    if options.edited:
        superusers_only(
            user,
            _(
                "Only a superuser can restore a file that was edited. Choose the backup as it was made, or ask one."
            ),
        )
    database = database_of()
    with offers_for(user), ExitStack() as stack:
        if options.leave_out and not is_superuser(user):
            _check_whole(source, options, key)
        backup: BinaryIO | GrowingArchive = source
        with as_our_errors(), database.damage_explained():
            history = schema.load_history(database)
            needs_upgrade, file_key = look_at(
                source, options.edited, key, leave_out=options.leave_out, history=history
            )
            # An undo goes back to what was here, at these migrations. Those of other apps may be pending then.
            is_as_today = options.as_it_was and not needs_upgrade
            apps = {table.model._meta.app_label for table in tables_here()} if is_as_today else None
            schema.check_site(history, apps)
        is_plain = is_database(source) and not (options.edited or options.leave_out)
        if needs_upgrade and may_grow and is_plain:
            with logged("upgrade", user) as log:
                backup = stack.enter_context(process.read_meanwhile(source, path, reporter))
                log("under way" if isinstance(backup, GrowingArchive) else f"{backup.seek(0, 2)} bytes")
        elif needs_upgrade:
            with logged("upgrade", user) as log:
                upgraded = stack.enter_context(
                    process.upgraded(
                        source,
                        path,
                        reporter,
                        edited=options.edited,
                        leave_out=options.leave_out,
                        key=file_key,
                    )
                )
                log(f"{upgraded.seek(0, 2)} bytes")
                backup = with_photos(upgraded, photos_beside(source))
        database.close_if_lost()  # it stood idle meanwhile
        yield backup


@contextmanager
def offers_for(user: Any) -> Iterator[None]:
    """Let errors offer to others than superusers only what they may do."""
    try:
        yield
    except BackupError as error:
        is_for_superusers = error.offer in ("edited", "without_safety_copy") or isinstance(
            error, DamagedBackup
        )
        if is_for_superusers and not is_superuser(user):
            error.offer = ""
        raise


def _check_whole(source: BinaryIO, options: RestoreOptions, key: Key | None) -> None:
    """Raise `InvalidBackup` if records of a backup are damaged or missing: only a superuser may leave them out, since
    that takes a file although its checksums are wrong."""
    if is_database(source):
        return
    with unlocked(source, edited=options.edited, key=key) as archive:
        for label in archive.metadata.models:
            archive.check(label)


def superusers_only(user: Any, message: str) -> None:
    if not is_superuser(user):
        raise Forbidden(message)


def is_superuser(user: Any) -> bool:
    return user is None or bool(user.is_superuser)


def look_at(
    source: BinaryIO,
    edited: bool = False,
    key: Key | None = None,
    *,
    leave_out: bool = False,
    history: MigrationLoader | None = None,
) -> tuple[bool, Key | None]:
    """Return whether a file has to be brought to today's schema, and the key that it is encrypted with.

    `key`: tried first. `history`: of this site's migrations, if it is loaded already. Raises `InvalidBackup`,
    `KeyNeeded`, `RestoreRefused`.
    """
    if is_database(source):
        return True, None
    with unlocked(source, edited=edited, lenient=leave_out, key=key) as archive:
        history = history or schema.load_history(database_of())
        return schema.is_older(history, archive.metadata, leave_out=leave_out), archive.key

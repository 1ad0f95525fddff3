"""Removes photos that restores added to the host's own and that nothing names any longer, since the restore was killed
or undone.

Files that a record in the database or in a kept backup names stay, and so do all if that cannot be determined.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core.files.storage import FileSystemStorage
from django.db import DatabaseError

from .archive import Archive
from .database import database_of
from .exceptions import BackupError
from .log import logger
from .media import content_is, file_columns, storage_of
from .options import PlacedFile
from .storage import kept, placed
from .storage.atomic import sweep
from .storage.keys import unlocked
from .tables import Table
from .upgrade.process import remove_stale

#: Photos that were added less than this long ago are left alone.
AGE = dt.timedelta(days=30)


def remove_leftovers(*, fetches: bool = False) -> int:
    """Remove the photos that nothing names, and return how many. After a failure, the next call tries again.

    `fetches`: look into backups that are only in a location, too. These are fetched, which may take long; without it,
    nothing is removed if there are any. The caller must hold the lock of restores, since a running restore may be
    about to name a file.
    """
    try:
        return _remove_leftovers(fetches)
    except (BackupError, DatabaseError, OSError) as error:
        logger.warning("photos that nothing names could not be removed: %s", type(error).__name__)
        return 0


def _remove_leftovers(fetches: bool) -> int:
    tables = [table for table in map(Table, _models()) if file_columns(table)]
    storages = {
        (table.label, column.name): storage_of(column)
        for table in tables
        for _place, column in file_columns(table)
    }
    # These folders may also contain partial files, from photos that were being checked or placed.
    folders = [storage.location for storage in storages.values() if isinstance(storage, FileSystemStorage)]
    for folder in {tempfile.gettempdir(), *folders}:
        sweep(Path(folder))
    remove_stale()
    notes = {name: placed.read(name) for name in placed.noted(AGE)}
    if not any(notes.values()):
        return 0
    named = _named_here(tables)
    waiting = [file for files in notes.values() for file in files if file.name not in named]
    labels, names = {table.label for table in tables}, {file.name for file in waiting}
    named_in_backups = _named_in_backups(labels, names, fetches)
    rest, removed = [], 0
    for file in waiting:
        if file.name in named_in_backups:
            rest.append(file)
        elif (file.model, file.field) in storages:
            removed += _remove(storages[file.model, file.field], file)
    if rest:
        placed.note(rest)
    placed.forget(name for name, files in notes.items() if files)
    return removed


def _models() -> Iterator[Any]:
    return (model for model in apps.get_models() if model._meta.managed and not model._meta.proxy)


def _named_here(tables: Iterable[Table]) -> set[str]:
    database = database_of()
    with database.damage_explained(), database.snapshot() as reader:
        return {
            name
            for table in tables
            for _place, column in file_columns(table)
            for _key, name in reader.texts(table, column)
        }


def _named_in_backups(labels: set[str], names: set[str], fetches: bool) -> set[str]:
    """Return those of the names that kept backups contain; all of them if a backup cannot be read. `fetches`: see
    `remove_leftovers`."""
    named: set[str] = set()
    for backup in kept.backups() if names else ():
        if not (fetches or backup.is_local):
            return names
        try:
            place = "" if fetches else kept.LOCAL
            with kept.open_backup(backup.name, place) as source, unlocked(source) as archive:
                named |= names.intersection(_names_in(archive, labels))
        except BackupError as error:
            logger.warning("%s cannot be read for the photos that it names: %s", backup.name, error.code)
            return names
    return named


def _names_in(archive: Archive, labels: set[str]) -> Iterator[str]:
    """Yield all texts in the records of some models, whatever schema they have."""
    yield from archive.metadata.photos
    for label in labels & archive.metadata.models.keys():
        for records in archive.records(label, exact_json=True):
            for record in records:
                fields = record.get("fields") if isinstance(record, dict) else None
                values = fields.values() if isinstance(fields, dict) else ()
                yield from (value for value in values if isinstance(value, str))


def _remove(storage: Any, file: PlacedFile) -> bool:
    """Remove a file, if it is unchanged. If the storage fails, it stays."""
    with suppress(Exception):
        if content_is(storage, file.name, file.size, file.sha256):
            storage.delete(file.name)
            return True
    return False

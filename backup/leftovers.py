"""Removes photos that restores put where the host has its own, and that nothing names any more: those of a restore that
was killed, or undone.

Whatever a record of the database names, or of a backup that the server keeps, stays; so does what cannot be told.
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

#: Photos that were put there since are left alone.
AGE = dt.timedelta(days=30)


def remove_leftovers() -> int:
    """Remove what nothing names, and return how many files that were; what fails is tried again another time.

    Whoever calls it holds the lock of restores: one that runs may be about to name a file.
    """
    try:
        return _remove_leftovers()
    except (BackupError, DatabaseError, OSError) as error:
        logger.warning("photos that nothing names could not be removed: %s", type(error).__name__)
        return 0


def _remove_leftovers() -> int:
    tables = [table for table in map(Table, _models()) if file_columns(table)]
    storages = {
        (table.label, column.name): storage_of(column)
        for table in tables
        for _place, column in file_columns(table)
    }
    # Where photos are copied to while they are checked, and while they are put there.
    folders = [storage.location for storage in storages.values() if isinstance(storage, FileSystemStorage)]
    for folder in {tempfile.gettempdir(), *folders}:
        sweep(Path(folder))
    notes = {name: placed.read(name) for name in placed.noted(AGE)}
    if not any(notes.values()):
        return 0
    named = _named_here(tables)
    waiting = [file for files in notes.values() for file in files if file.name not in named]
    named_in_backups = _named_in_backups({table.label for table in tables}, {file.name for file in waiting})
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


def _named_in_backups(labels: set[str], names: set[str]) -> set[str]:
    """Return those of the names that a kept backup has in it; all of them where one cannot be read."""
    named: set[str] = set()
    for backup in kept.backups() if names else ():
        try:
            with kept.open_backup(backup.name) as source, unlocked(source) as archive:
                named |= names.intersection(_names_in(archive, labels))
        except BackupError as error:
            logger.warning("%s cannot be read for the photos that it names: %s", backup.name, error.code)
            return names
    return named


def _names_in(archive: Archive, labels: set[str]) -> Iterator[str]:
    """Yield the texts in records of some models, of whatever schema they are."""
    yield from archive.metadata.photos
    for label in labels & archive.metadata.models.keys():
        for records in archive.records(label, exact_json=True):
            for record in records:
                fields = record.get("fields") if isinstance(record, dict) else None
                values = fields.values() if isinstance(fields, dict) else ()
                yield from (value for value in values if isinstance(value, str))


def _remove(storage: Any, file: PlacedFile) -> bool:
    """Remove a file that is still what was put there. What a storage refuses stays."""
    with suppress(Exception):
        if content_is(storage, file.name, file.size, file.sha256):
            storage.delete(file.name)
            return True
    return False

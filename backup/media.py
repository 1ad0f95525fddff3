"""Files that records name: photos, say. Which of them are not in their storage."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable
from contextlib import suppress

from django.core.exceptions import SuspiciousFileOperation
from django.core.files.storage import Storage
from django.db.models import FileField

from .tables import Column, Table

#: Bytes of a file in a storage that are read at a time.
_BLOCK = 1024 * 1024


def file_columns(table: Table) -> list[tuple[int, Column]]:
    """Return (position in a row, column) of each field that names a file."""
    return [
        (place, column) for place, column in enumerate(table.columns) if isinstance(column.field, FileField)
    ]


def storage_of(column: Column) -> Storage:
    """Return the storage of a field that names a file."""
    storage: Storage = column.field.storage  # type: ignore[attr-defined]
    return storage


def missing(column: Column, names: Iterable[str]) -> set[str]:
    """Return those of the names that are not in the storage of a field. Raises whatever the storage raises.

    A folder is listed once, since to ask for each file takes a storage far away a while.
    """
    storage = storage_of(column)
    by_folder: dict[str, set[str]] = {}
    for name in names:
        by_folder.setdefault(posixpath.dirname(name), set()).add(name)
    gone: set[str] = set()
    for folder, wanted in by_folder.items():
        try:
            _folders, files = storage.listdir(folder)
            gone |= wanted - {posixpath.join(folder, file) for file in files}
        except (FileNotFoundError, NotADirectoryError, SuspiciousFileOperation):
            gone |= wanted
        except NotImplementedError:
            gone |= {name for name in wanted if not storage.exists(name)}
    return gone


def content_is(storage: Storage, name: str, size: int, sha256: str) -> bool | None:
    """Tell whether a file in a storage has this content; None where there is no such file. Raises whatever the storage
    raises."""
    try:
        with suppress(NotImplementedError):
            if storage.size(name) != size:
                return False
        digest = hashlib.sha256()
        with storage.open(name) as file:
            for block in iter(lambda: file.read(_BLOCK), b""):
                digest.update(block)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (IsADirectoryError, PermissionError):
        return False
    return digest.hexdigest() == sha256

"""Files that records name: photos, say. Which of them are not in their storage."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from django.core.exceptions import SuspiciousFileOperation
from django.db.models import FileField

from .tables import Column, Table


def file_columns(table: Table) -> list[tuple[int, Column]]:
    """Return (position in a row, column) of each field that names a file."""
    return [
        (place, column) for place, column in enumerate(table.columns) if isinstance(column.field, FileField)
    ]


def missing(column: Column, names: Iterable[str]) -> set[str]:
    """Return those of the names that are not in the storage of a field. Raises whatever the storage raises.

    A folder is listed once, since to ask for each file takes a storage far away a while.
    """
    storage = column.field.storage  # type: ignore[attr-defined]
    by_folder: dict[str, set[str]] = {}
    for name in names:
        by_folder.setdefault(posixpath.dirname(name), set()).add(name)
    gone: set[str] = set()
    for folder, wanted in by_folder.items():
        try:
            _folders, files = storage.listdir(folder)
            gone |= {name for name in wanted if posixpath.basename(name) not in files}
        except (FileNotFoundError, NotADirectoryError, SuspiciousFileOperation):
            gone |= wanted
        except NotImplementedError:
            gone |= {name for name in wanted if not storage.exists(name)}
    return gone

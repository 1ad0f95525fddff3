"""Files that records name, such as photos: finds them, tells which are missing in their storage, and reads them.

Each field has a storage of its own, which may be a remote server.
"""

from __future__ import annotations

import copy
import datetime as dt
import errno
import hashlib
import os
import posixpath
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

from django.core.exceptions import SuspiciousFileOperation
from django.core.files.storage import Storage
from django.db.models import FileField
from django.utils import timezone
from django.utils.translation import gettext as _

from .kinds import Plain
from .tables import Batch, Column, Table

#: Bytes of a photo that are read at a time, and that a storage of django-storages may keep in memory.
_BLOCK = 1024 * 1024
#: The most files whose sizes are added up for a page. Each takes a moment, or longer if the folder is on a network.
_MOST_SIZES = 2000
#: After failing continuously for this many seconds, a storage is not asked any more.
_PATIENCE = 60


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
    """Return the names that are missing in the storage of a field. Raises whatever the storage raises.

    Folders are listed, since asking a remote storage for each file would take long.
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
        except OSError as error:
            if not cannot_be_a_name(error):
                raise
            gone |= wanted
        except NotImplementedError:
            gone |= {name for name in wanted if not storage.exists(name)}
    return gone


def cannot_be_a_name(error: BaseException | None) -> bool:
    """Tell whether an error of the system says that no file can have this name."""
    return isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)


def content_is(storage: Storage, name: str, size: int, sha256: str) -> bool | None:
    """Tell whether a file in a storage has this content; None if there is no such file. Raises whatever the storage
    raises."""
    try:
        with suppress(NotImplementedError):
            if storage.size(name) != size:
                return False
        digest = hashlib.sha256()
        with _sparing(storage).open(name) as file:
            for block in iter(lambda: file.read(_BLOCK), b""):
                digest.update(block)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (IsADirectoryError, PermissionError):
        return False
    except OSError as error:
        if not cannot_be_a_name(error):
            raise
        return None
    return digest.hexdigest() == sha256


@dataclass(frozen=True, slots=True)
class NamedPhoto:
    """A file that a record names. `label`, `key`, `field`: the first record and field that do."""

    name: str
    storage: Storage
    label: str
    key: Plain
    field: str

    def size(self) -> int | None:
        """Return its size in bytes if that is known without asking a server; else None."""
        with suppress(Exception):  # a storage may be third-party code
            self.storage.path(self.name)  # only files in a folder have a path
            return int(self.storage.size(self.name))
        return None

    def state(self) -> tuple[int, dt.datetime] | None:
        """Return its size in bytes, and when it was last changed, aware; None if its storage cannot tell."""
        with suppress(Exception):  # a storage may be third-party code
            try:
                info = os.stat(self.storage.path(self.name))
            except NotImplementedError:
                moment = self.storage.get_modified_time(self.name)
                moment = timezone.make_aware(moment) if timezone.is_naive(moment) else moment
                return int(self.storage.size(self.name)), moment
            # A copied file may keep its old mtime, but its ctime says when it was copied here.
            changed = max(info.st_mtime, info.st_ctime)
            return info.st_size, dt.datetime.fromtimestamp(changed, dt.timezone.utc)
        return None


class NamedPhotos:
    """The files that records name, each name once for each storage."""

    def __init__(self) -> None:
        self._found: dict[str, list[NamedPhoto]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[tuple[str, list[NamedPhoto]]]:
        """Yield (name, one photo for each storage), sorted by name."""
        yield from sorted(self._found.items())

    def see(self, table: Table, batch: Batch) -> None:
        """Add the files that some rows name."""
        for place, column in file_columns(table):
            self.see_names(table, column, zip(batch[0], batch[place], strict=True))

    def see_names(self, table: Table, column: Column, names: Iterable[tuple[Any, Any]]) -> None:
        """Add the files that some rows name in a field. `names`: (key of the row, name)."""
        storage = storage_of(column)
        for key, name in names:
            if name:
                self.add(NamedPhoto(str(name), storage, table.label, key, column.name))

    def add(self, photo: NamedPhoto) -> None:
        same = self._found.setdefault(photo.name, [])
        if not any(other.storage is photo.storage for other in same):
            same.append(photo)

    def quick_size(self) -> int | None:
        """Return the same as `size`, but None if that would take long."""
        return self.size() if len(self) <= _MOST_SIZES else None

    def size(self) -> int | None:
        """Return the bytes of all files; None if a server would have to be asked for each. Missing files count as 0."""
        storages = {id(photo.storage): photo.storage for photos in self._found.values() for photo in photos}
        if not all(map(_is_here, storages.values())):
            return None
        return sum(photos[0].size() or 0 for photos in self._found.values())


def _is_here(storage: Storage) -> bool:
    """Tell whether a storage is a folder, and not a server."""
    try:
        storage.path("x")
    except NotImplementedError:
        return False
    except Exception:  # noqa: BLE001  a storage may be anybody's code
        return False
    return True


class UnreadablePhotoError(Exception):
    """A photo cannot be read. Its text is the reason, a phrase for people."""


class PhotoReader:
    """Reads photos, whatever their storages do."""

    def __init__(self) -> None:
        #: Storage -> since when it has failed continuously.
        self._failing: dict[int, float] = {}

    def read(self, photo: NamedPhoto, target: BinaryIO) -> tuple[str, int]:
        """Copy a photo into `target`. Returns its checksum (SHA-256, in hex) and its size. Raises
        `UnreadablePhotoError`, and what writing to `target` raises."""
        started = time.monotonic()
        known = id(photo.storage)
        if known in self._failing and started - self._failing[known] > _PATIENCE:
            raise UnreadablePhotoError(_("its storage does not answer"))
        try:
            for _attempt in range(2):
                checksum, size = self._copy(photo, target)
                if photo.size() in (size, None):
                    self._failing.pop(known, None)
                    return checksum, size
        except _StorageError as failure:
            error = failure.error
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                raise UnreadablePhotoError(_("it is missing")) from error
            self._failing.setdefault(known, started)
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise UnreadablePhotoError(_("it cannot be read (%(reason)s)") % {"reason": reason}) from error
        raise UnreadablePhotoError(_("it changed while it was read"))

    def _copy(self, photo: NamedPhoto, target: BinaryIO) -> tuple[str, int]:
        target.seek(0)
        target.truncate()
        digest, size = hashlib.sha256(), 0
        with _storage_errors():
            file = _sparing(photo.storage).open(photo.name, "rb")
        try:
            while True:
                with _storage_errors():
                    block = file.read(_BLOCK)
                    digest.update(block)
                    size += len(block)
                if not block:
                    return digest.hexdigest(), size
                target.write(block)
        finally:
            with _storage_errors():
                file.close()


def _sparing(storage: Any) -> Any:
    """Return a storage that reads in little memory: by default, those of django-storages keep a whole file in
    memory."""
    if getattr(storage, "max_memory_size", None) != 0:
        return storage
    # Django's default storage is an object that stands for another one, which changes with the settings.
    return _sparing_copy(getattr(storage, "_wrapped", storage))


@lru_cache(maxsize=16)
def _sparing_copy(storage: Any) -> Any:
    sparing = copy.copy(storage)
    sparing.max_memory_size = _BLOCK
    return sparing


class _StorageError(Exception):
    """A storage has failed with `error`."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a storage may be third-party code
        raise _StorageError(error) from error

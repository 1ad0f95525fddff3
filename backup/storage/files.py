"""Names, writes, lists and expires the files of this package: see its docstring for what lies where."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, Storage, storages
from django.utils import timezone
from django.utils.translation import gettext as _

from ..conf import conf
from ..exceptions import StorageFailed
from .atomic import atomic_write, sweep

STAGED = "staged"
SAFETY = "safety"
RESTORES = "restores"
LAST = "last"
LAST_BACKUP = f"{LAST}/backup.json"
#: How long the progress of a restore, and how it ended, is kept.
PROGRESS_KEPT = dt.timedelta(days=1)


def storage() -> Storage:
    """Return the storage `backups` of `STORAGES` where there is one, else the folder BACKUP_ROOT.

    A storage that is named but cannot be made (a typing error in its backend) raises Django's own error, rather than
    have the backups go somewhere else.
    """
    if "backups" in storages.backends:
        return storages["backups"]
    return FileSystemStorage(conf.root, file_permissions_mode=0o600, directory_permissions_mode=0o700)


@contextmanager
def disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageFailed(
            _(
                "The server cannot keep the file (%(reason)s). Look at the free space and the rights of BACKUP_ROOT."
            )
            % {"reason": reason}
        ) from error


def put(name: str, file: File[bytes]) -> None:
    """Save a file, in place of one of the same name. Raises `StorageFailed`.

    In a folder it appears under its name only when it is complete, and on the disk; other storages see to that
    themselves.
    """
    place = storage()
    with disk_errors():
        if isinstance(place, FileSystemStorage):
            _put_into_folder(place, Path(place.path(name)), file)
        else:
            place.delete(name)  # else the storage would choose another name
            place.save(name, file)


def _put_into_folder(place: FileSystemStorage, path: Path, file: File[bytes]) -> None:
    os.makedirs(place.location, mode=0o700, exist_ok=True)
    os.makedirs(path.parent, mode=place.directory_permissions_mode or 0o700, exist_ok=True)
    with atomic_write(path) as target:
        for chunk in file.chunks():
            target.write(chunk)
        if place.file_permissions_mode is not None:
            os.chmod(target.name, place.file_permissions_mode)


def names_in(folder: str) -> list[str]:
    """Return the names of the files in a folder, with the folder, in their order. Raises `StorageFailed`."""
    try:
        with disk_errors():
            return sorted(f"{folder}/{name}" for name in storage().listdir(folder)[1])
    except StorageFailed as error:
        if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
            return []  # nothing was kept yet
        raise


def tidy() -> None:
    """Delete what expired, and what killed processes left half written. Raises `StorageFailed`."""
    _remove_older(STAGED, dt.timedelta(seconds=conf.staged_seconds))
    _remove_older(RESTORES, PROGRESS_KEPT)
    place = storage()
    if isinstance(place, FileSystemStorage):
        for folder in (STAGED, SAFETY, RESTORES, LAST):
            sweep(Path(place.path(folder)))


def _remove_older(folder: str, age: dt.timedelta) -> None:
    """Delete the files that are older; those that are as far in the future, too: a clock was wrong once."""
    place = storage()
    for name in names_in(folder):
        with disk_errors(), suppress(FileNotFoundError):  # another process tidies up, too
            modified = place.get_modified_time(name)
            if timezone.is_naive(modified):
                modified = timezone.make_aware(modified)
            if abs(timezone.now() - modified) > age:
                place.delete(name)


def put_json(name: str, content: dict[str, Any]) -> None:
    """Raises `StorageFailed`."""
    put(name, ContentFile(json.dumps(content).encode()))


def get_json(name: str) -> dict[str, Any]:
    """Return what was put there; {} where there is nothing, or nothing that can be read."""
    try:
        with storage().open(name) as file:
            content = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}

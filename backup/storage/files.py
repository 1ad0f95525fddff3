"""Files that are kept on the server: uploads between preview and confirmation, and safety copies.

Through Django's storage API: the storage `backups` in `STORAGES` where there is one (several machines behind one host
can share it), else a folder that only the server's own user can read. What is where:

    staged/<unguessable>.zip                        an upload; its name, its owner and its time are in a signed id
    restores/<unguessable>.json                     how far the restore of that upload is, and how it ended
    safety/before_20261123T143022.123456Z.zip       a safety copy, named by its moment (UTC)
    last/backup.json                                when the last backup was taken, and by whom
    last/restore.json                               which restore was the last, so that none is done twice
    */*.part                                        a file in the making, or what a process left that died over it
"""

from __future__ import annotations

import datetime as dt
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, Storage, storages
from django.utils import timezone
from django.utils.translation import gettext as _

from ..conf import conf
from ..exceptions import StorageFailed

STAGED = "staged"
SAFETY = "safety"
RESTORES = "restores"
LAST_BACKUP = "last/backup.json"
LAST_RESTORE = "last/restore.json"
#: How long it is known how a restore ended.
KNOWN = dt.timedelta(days=1)
#: What is being written changes all the time; a part that did not for so long is of a process that died.
ABANDONED = dt.timedelta(minutes=10)


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
    """Save so that the file is there under its name only when it is complete, and on the disk."""
    place = storage()
    if not isinstance(place, FileSystemStorage):
        place.delete(name)  # else the storage would choose another name
        place.save(name, file)
        return
    os.makedirs(place.location, mode=0o700, exist_ok=True)
    part = f"{name}.{secrets.token_hex(4)}.part"
    try:
        part = place.save(part, file)
        with open(place.path(part), "rb+") as written:
            os.fsync(written.fileno())
        os.replace(place.path(part), place.path(name))
    except BaseException:
        place.delete(part)
        raise
    sync_folder(os.path.dirname(place.path(name)))


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """The new name on the disk, too; a file system that cannot is no reason to fail."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def names_in(folder: str) -> list[str]:
    try:
        with disk_errors():
            return sorted(f"{folder}/{name}" for name in storage().listdir(folder)[1])
    except StorageFailed as error:
        if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
            return []  # nothing was kept yet
        raise


def tidy() -> None:
    """Remove uploads that expired, and what processes left half written that died. Raises `StorageFailed`."""
    _remove_older(STAGED, dt.timedelta(seconds=conf.staged_seconds))
    _remove_older(RESTORES, KNOWN)
    for folder in (STAGED, SAFETY, RESTORES, os.path.dirname(LAST_RESTORE)):
        _remove_older(folder, ABANDONED, ".part")


def sweep_parts(prefix: str) -> None:
    """Of files that only the one restore writes that holds the lock: what is there now, somebody died over."""
    for part in names_in(os.path.dirname(prefix)):
        if part.startswith(prefix) and part.endswith(".part"):
            with disk_errors():
                storage().delete(part)


def _remove_older(folder: str, age: dt.timedelta, suffix: str = "") -> None:
    place = storage()
    for name in names_in(folder):
        if not name.endswith(suffix):
            continue
        with disk_errors(), suppress(FileNotFoundError):  # another process tidies up, too
            modified = place.get_modified_time(name)
            if timezone.is_naive(modified):
                modified = timezone.make_aware(modified)
            if modified < timezone.now() - age:
                place.delete(name)


def put_json(name: str, content: dict[str, Any]) -> None:
    with disk_errors():
        put(name, ContentFile(json.dumps(content).encode()))


def get_json(name: str) -> dict[str, Any]:
    """{} where there is none, or none that can be read."""
    try:
        with storage().open(name) as file:
            content = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}

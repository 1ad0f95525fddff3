"""Files that are kept on the server: uploads between preview and confirmation, and safety copies.

Through Django's storage API: the storage `backups` in `STORAGES` where there is one (several machines behind one host
can share it), else a folder that only the server's own user can read. What is where:

    staged/<unguessable>.zip                        an upload; its name, its owner and its time are in a signed id
    safety/before_20261123T143022.123456Z.zip       a safety copy, named by its moment (UTC)
    last/restore.json                               which restore was the last, so that none is done twice
    */*.part                                        a file in the making, or what a process left that died over it
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from django.core import signing
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, InvalidStorageError, Storage, storages
from django.utils import timezone
from django.utils.translation import gettext as _

from .conf import conf
from .exceptions import InvalidBackup, NoSafetyCopy, StorageFailed

STAGED = "staged"
SAFETY = "safety"
LAST_RESTORE = "last/restore.json"
#: What is being written changes all the time; a part that did not for so long is of a process that died.
ABANDONED = dt.timedelta(minutes=10)
_SALT = "backup.staged"


@dataclass(frozen=True)
class SafetyCopy:
    """`size` in bytes; `created` aware."""

    name: str
    created: dt.datetime
    size: int


@dataclass(frozen=True)
class Done:
    """A restore that was carried out. `once`: what told its request from others; `at`: ISO 8601."""

    at: str
    once: str
    safety_copy: str
    is_undo: bool


def storage() -> Storage:
    try:
        return storages["backups"]
    except InvalidStorageError:
        return FileSystemStorage(conf.root, file_permissions_mode=0o600, directory_permissions_mode=0o700)


@contextmanager
def _disk() -> Iterator[None]:
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


def _put(name: str, file: File) -> None:
    """Save so that the file is there under its name only when it is complete, and on the disk."""
    place = storage()
    if not isinstance(place, FileSystemStorage):
        place.delete(name)  # else the storage would choose another name
        place.save(name, file)
        return
    os.makedirs(place.location, mode=0o700, exist_ok=True)
    part = f"{name}.part"
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


def _names(folder: str) -> list[str]:
    try:
        with _disk():
            return sorted(f"{folder}/{name}" for name in storage().listdir(folder)[1])
    except StorageFailed as error:
        if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
            return []  # nothing was kept yet
        raise


def tidy() -> None:
    """Remove uploads that expired, and what processes left half written that died. Raises `StorageFailed`."""
    _remove_older(STAGED, dt.timedelta(seconds=conf.staged_seconds))
    _remove_older(STAGED, ABANDONED, ".part")
    _remove_older(SAFETY, ABANDONED, ".part")


def _remove_older(folder: str, age: dt.timedelta, suffix: str = "") -> None:
    place = storage()
    for name in _names(folder):
        if not name.endswith(suffix):
            continue
        with _disk(), suppress(FileNotFoundError):  # another process tidies up, too
            modified = place.get_modified_time(name)
            if timezone.is_naive(modified):
                modified = timezone.make_aware(modified)
            if modified < timezone.now() - age:
                place.delete(name)


# -- staged uploads ---


def stage(upload: File, user: Any) -> str:
    """Keep an upload until it is confirmed; returns the id that the form carries. Raises `StorageFailed`."""
    tidy()
    with _disk():
        name = secrets.token_urlsafe(24)
        upload.seek(0)
        _put(f"{STAGED}/{name}.zip", upload)
    return signing.dumps([name, str(user.pk)], salt=_SALT)


def _staged_name(upload_id: str, user: Any) -> str:
    try:
        name, owner = signing.loads(upload_id, salt=_SALT, max_age=conf.staged_seconds)
    except (signing.BadSignature, ValueError, TypeError) as error:
        raise _no_longer_there() from error
    if owner != str(user.pk):
        raise _no_longer_there()
    return f"{STAGED}/{name}.zip"


@contextmanager
def open_staged(upload_id: str, user: Any) -> Iterator[BinaryIO]:
    """The staged upload, open for reading. Raises `InvalidBackup` where it expired, is used up or is another's."""
    name = _staged_name(upload_id, user)
    with _disk():
        try:
            file = storage().open(name)
        except FileNotFoundError as error:
            raise _no_longer_there() from error
    with file:
        yield file  # type: ignore[misc]


def discard(upload_id: str, user: Any) -> None:
    """Remove a staged upload, if it is there and this user's. What cannot be removed now is when it expires."""
    with suppress(InvalidBackup, StorageFailed), _disk():
        storage().delete(_staged_name(upload_id, user))


def _no_longer_there() -> InvalidBackup:
    return InvalidBackup(_("The uploaded file is no longer there. Please choose it again."))


# -- safety copies ---


def keep_safety_copy(file: BinaryIO) -> str:
    """Keep a backup of the present state; returns its name. Called by one restore at a time. Raises `StorageFailed`."""
    for part in _names(SAFETY):
        if part.endswith(".part"):  # nobody else writes any now: a restore died over it
            with _disk():
                storage().delete(part)
    name = f"before_{dt.datetime.now(dt.timezone.utc):%Y%m%dT%H%M%S.%fZ}.zip"
    with _disk():
        _put(f"{SAFETY}/{name}", File(file))
    return name


def forget_safety_copy(name: str) -> None:
    """Raises `NoSafetyCopy`, `StorageFailed`."""
    find_safety_copy(name)
    with _disk():
        storage().delete(f"{SAFETY}/{name}")


def prune_safety_copies() -> None:
    """Remove all but the newest `BACKUP_SAFETY_COPIES`."""
    for copy in safety_copies()[conf.safety_copies :]:
        forget_safety_copy(copy.name)


def safety_copies() -> list[SafetyCopy]:
    """Those that there are, newest first."""
    found = []
    for path in _names(SAFETY):
        name = path.rpartition("/")[2]
        if match := re.fullmatch(r"before_(\d{8}T\d{6}\.\d{6})Z\.zip", name):
            created = dt.datetime.strptime(match[1], "%Y%m%dT%H%M%S.%f").replace(tzinfo=dt.timezone.utc)
            with _disk(), suppress(FileNotFoundError):  # gone since
                found.append(SafetyCopy(name, created, storage().size(path)))
    return sorted(found, key=lambda copy: copy.created, reverse=True)


def find_safety_copy(name: str | None = None) -> SafetyCopy:
    """The safety copy of this name, the newest without one. Raises `NoSafetyCopy`."""
    for copy in safety_copies():
        if name in (None, copy.name):
            return copy
    if name is None:
        raise NoSafetyCopy(_("There is no restore to undo: no safety copy is kept on this server."))
    raise NoSafetyCopy(_("This safety copy is no longer there."))


def open_safety_copy(name: str | None = None) -> BinaryIO:
    """A safety copy by its name, the newest without one; whoever asks closes it. Raises `NoSafetyCopy`."""
    path = f"{SAFETY}/{find_safety_copy(name).name}"
    with _disk():
        return storage().open(path)  # type: ignore[return-value]


# -- which restore was the last ---


def note_done(done: Done) -> None:
    """Called by one restore at a time. Raises `StorageFailed`."""
    with _disk():
        _put(LAST_RESTORE, ContentFile(json.dumps(asdict(done)).encode()))


def last_done() -> Done | None:
    """None where there was no restore, or nothing that can be read of it."""
    try:
        with storage().open(LAST_RESTORE) as file:
            return Done(**json.loads(file.read()))
    except (OSError, ValueError, TypeError):
        return None

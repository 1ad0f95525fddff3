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
RESTORES = "restores"
LAST_BACKUP = "last/backup.json"
LAST_RESTORE = "last/restore.json"
#: How long it is known how a restore ended.
KNOWN = dt.timedelta(days=1)
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
    _remove_older(RESTORES, KNOWN)
    for folder in (STAGED, SAFETY, RESTORES, os.path.dirname(LAST_RESTORE)):
        _remove_older(folder, ABANDONED, ".part")


def _sweep_parts(prefix: str) -> None:
    """Of files that only the one restore writes that holds the lock: what is there now, somebody died over."""
    for part in _names(os.path.dirname(prefix)):
        if part.startswith(prefix) and part.endswith(".part"):
            with _disk():
                storage().delete(part)


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
        upload_id = new_id(user)
        upload.seek(0)
        _put(_staged_name(upload_id, user), upload)
    return upload_id


def new_id(user: Any) -> str:
    """For an upload of this user's; or for a restore without one, to follow it by."""
    return signing.dumps([secrets.token_urlsafe(24), str(user.pk)], salt=_SALT)


def _unsigned(upload_id: str, *, max_age: int | None) -> tuple[str, str]:
    """The name of an upload, and the key of its owner."""
    try:
        name, owner = signing.loads(upload_id, salt=_SALT, max_age=max_age)
    except (signing.BadSignature, ValueError, TypeError) as error:
        raise _no_longer_there() from error
    return name, owner


def _staged_name(upload_id: str, user: Any) -> str:
    name, owner = _unsigned(upload_id, max_age=conf.staged_seconds)
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


# -- how far a restore is ---


def note_restore(upload_id: str, user: Any, state: dict[str, Any]) -> None:
    """Keep what is known of the restore of a staged upload, for `restore_state`; `state`: as JSON can say it.

    A file, since another process may be asked, and the database is locked meanwhile. Only for information: where it
    cannot be kept, the restore goes on.
    """
    with suppress(InvalidBackup, StorageFailed):
        _put_json(
            _state_name(upload_id),
            {
                **state,
                "id": upload_id,
                "user": user.get_username(),
                "at": timezone.now().isoformat(),
            },
        )


def restore_state(upload_id: str, user: Any) -> dict[str, Any] | None:
    """What `note_restore` kept, with `at`, when; None where nothing is known, or it is another user's.

    By the user's name: after a restore the same person may have another number.
    """
    try:
        state = _get_json(_state_name(upload_id))
    except InvalidBackup:
        return None
    return state if state.get("user") == user.get_username() else None


def last_restore(user: Any) -> dict[str, Any] | None:
    """The state of this user's newest restore of an upload, as long as it is kept."""
    own = [
        state
        for name in _names(RESTORES)
        if name.endswith(".json") and (state := _get_json(name)).get("user") == user.get_username()
    ]
    return max(own, key=lambda state: str(state.get("at")), default=None)


def _state_name(upload_id: str) -> str:
    return f"{RESTORES}/{_unsigned(upload_id, max_age=None)[0]}.json"


# -- the last backup ---


def note_backup(moment: dt.datetime, user: Any, records: int) -> None:
    """Remember that a backup was taken. Only for information: where that cannot be kept, the backup is no worse."""
    with suppress(StorageFailed):
        by = user.get_username() if user else ""
        _put_json(LAST_BACKUP, {"at": moment.isoformat(), "by": by, "records": records})


def last_backup() -> dict[str, Any] | None:
    """`at` (aware), `by` (a user's name; "" for the command line) and `records` of the last backup that is known."""
    said = _get_json(LAST_BACKUP)
    try:
        at = dt.datetime.fromisoformat(said["at"])
        return {"at": at, "by": str(said["by"]), "records": int(said["records"])}
    except (KeyError, TypeError, ValueError):
        return None


def _put_json(name: str, content: dict[str, Any]) -> None:
    with _disk():
        _put(name, ContentFile(json.dumps(content).encode()))


def _get_json(name: str) -> dict[str, Any]:
    """{} where there is none, or none that can be read."""
    try:
        with storage().open(name) as file:
            content = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


# -- safety copies ---


def keep_safety_copy(file: BinaryIO) -> str:
    """Keep a backup of the present state; returns its name. Called by one restore at a time. Raises `StorageFailed`."""
    _sweep_parts(f"{SAFETY}/")
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
    _sweep_parts(LAST_RESTORE)
    _put_json(LAST_RESTORE, asdict(done))


def last_done() -> Done | None:
    """None where there was no restore, or nothing that can be read of it."""
    try:
        return Done(**_get_json(LAST_RESTORE))
    except TypeError:
        return None

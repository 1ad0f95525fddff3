"""Keeps uploads between preview and confirmation."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from django.core import signing
from django.core.files import File
from django.utils.translation import gettext as _

from ..conf import conf
from ..exceptions import InvalidBackup, StorageFailed
from .files import STAGED, disk_errors, put, storage, tidy

_SALT = "backup.staged"


def stage(upload: File[bytes], user: Any) -> str:
    """Keep an upload until it is confirmed, and return the id that the form carries. Raises `StorageFailed`."""
    tidy()
    upload_id = new_id(user)
    with disk_errors():
        upload.seek(0)
    put(_staged_name(upload_id, user), upload)
    return upload_id


def new_id(user: Any) -> str:
    """Return an id for an upload of this user, or for a restore without one that is followed by it."""
    return signing.dumps([secrets.token_urlsafe(24), str(user.pk)], salt=_SALT)


def unsigned(upload_id: str, *, max_age: int | None) -> tuple[str, str]:
    """Return the name in an id, and the key of its owner. Raises `InvalidBackup`. `max_age`: in seconds."""
    try:
        name, owner = signing.loads(upload_id, salt=_SALT, max_age=max_age)
    except (signing.BadSignature, ValueError, TypeError) as error:
        raise _no_longer_there() from error
    return name, owner


def _staged_name(upload_id: str, user: Any) -> str:
    name, owner = unsigned(upload_id, max_age=conf.staged_seconds)
    if owner != str(user.pk):
        raise _no_longer_there()
    return f"{STAGED}/{name}.zip"


@contextmanager
def open_staged(upload_id: str, user: Any) -> Iterator[BinaryIO]:
    """Open a staged upload for reading. Raises `InvalidBackup` where it expired, is gone, or is another user's."""
    name = _staged_name(upload_id, user)
    with disk_errors():
        try:
            file = storage().open(name)
        except FileNotFoundError as error:
            raise _no_longer_there() from error
    with file:
        yield file  # type: ignore[misc]


def discard(upload_id: str, user: Any) -> None:
    """Delete a staged upload, if it is there and this user's. Where it cannot be deleted now, it expires."""
    with suppress(InvalidBackup, StorageFailed), disk_errors():
        storage().delete(_staged_name(upload_id, user))


def _no_longer_there() -> InvalidBackup:
    return InvalidBackup(_("The uploaded file is no longer there. Please choose it again."))

"""Keeps uploads between preview and confirmation."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from django.core import signing
from django.core.files import File
from django.utils.translation import gettext as _

from ..conf import conf
from ..exceptions import InvalidBackup, StorageFailed
from . import files
from .files import STAGED

_SALT = "backup.staged"
#: Uploads that one user may have, and how much all of them may hold, in uploads of the greatest size.
MOST_OF_ONE = 20
SIZES_OF_ONE = 3
#: The same of all users.
SIZES_OF_ALL = 10


def stage(upload: File[bytes], user: Any) -> str:
    """Keep an upload until it is confirmed, and return the id that the form carries. Raises `StorageFailed`.

    Where a user has too many, the oldest go.
    """
    files.tidy()
    upload_id = new_id(user)
    name = _staged_name(upload_id, user)
    with files.storage_errors():
        size = upload.seek(0, 2)
        upload.seek(0)
    _make_room(size, user)
    files.put(name, upload)
    return upload_id


def _make_room(size: int, user: Any) -> None:
    """Delete the oldest uploads of a user. Raises `StorageFailed` where the others have too many."""
    sizes = {name: files.size_of(name) for name in files.names_in(STAGED)}
    own = [name for name in sizes if name.startswith(_prefix(user))]
    own.sort(key=files.modified)
    while own and (
        len(own) >= MOST_OF_ONE
        or sum(sizes[name] for name in own) + size > SIZES_OF_ONE * conf.max_upload_size
    ):
        oldest = own.pop(0)
        files.delete(oldest)
        del sizes[oldest]
    if sum(sizes.values()) + size > SIZES_OF_ALL * conf.max_upload_size:
        raise StorageFailed(
            _("Too many uploads of others wait for their confirmation. Please try again later.")
        )


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
    return f"{_prefix(user)}{name}.zip"


def _prefix(user: Any) -> str:
    """Return how the names of this user's uploads begin."""
    return f"{STAGED}/{hashlib.sha256(str(user.pk).encode()).hexdigest()[:12]}_"


@contextmanager
def open_staged(upload_id: str, user: Any) -> Iterator[BinaryIO]:
    """Open a staged upload for reading. Raises `InvalidBackup` where it expired, is gone, or is another user's."""
    file = files.open_file(_staged_name(upload_id, user))
    if file is None:
        raise _no_longer_there()
    with file:
        yield file


def discard(upload_id: str, user: Any) -> None:
    """Delete a staged upload, if it is there and this user's. Where it cannot be deleted now, it expires."""
    with suppress(InvalidBackup, StorageFailed):
        files.delete(_staged_name(upload_id, user))


def _no_longer_there() -> InvalidBackup:
    return InvalidBackup(_("The uploaded file is no longer there. Please choose it again."))

"""Keeps uploads between preview and confirmation, those that come in pieces, too.

A web server in front of us may take only small requests, so a large file can come in pieces, which may be sent again,
or later. Each piece is a file of its own: several machines may share a storage in which nothing can be appended to.
What is there is what the names say, after OWNER_RANDOM:

    .zip                an upload that came whole
    .begin.SIZE         one in pieces begins. The content is the SHA-256 of the whole, in hexadecimal, or nothing
    .piece.START.END    a piece of it
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from django.core import signing
from django.core.files import File
from django.core.files.base import ContentFile
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _

from ..archive import with_photos
from ..conf import aware_now, conf
from ..exceptions import Incomplete, InvalidBackup, NoSuchUpload, StorageFailed, WrongOffset
from . import files
from .files import STAGED
from .joined import join
from .photos import Anywhere

_SALT = "backup.staged"
#: Uploads that one user may have, and how much all of them may hold, in uploads of the greatest size.
MOST_OF_ONE = 20
SIZES_OF_ONE = 3
#: The same of all users.
SIZES_OF_ALL = 10
#: Bytes of a piece at least, unless it is the last: else there could be any number of them.
LEAST_PIECE = 64 * 1024
_CHUNK = 1024 * 1024


class _Id(NamedTuple):
    """What is in an id. `owner`: the key of its user. `size`: in bytes, of an upload in pieces; 0 of others."""

    name: str
    owner: str
    size: int = 0


@dataclass(frozen=True)
class Incoming:
    """An upload in pieces. `size`: of the whole, in bytes. `pieces`: the names of those that are here, without a gap.
    `offset`: where the next one begins."""

    size: int
    offset: int
    pieces: list[str]


def stage(upload: File[bytes], user: Any) -> str:
    """Keep an upload until it is confirmed, and return the id that the form carries. Raises `StorageFailed`.

    If a user has too many, the oldest go.
    """
    files.tidy()
    upload_id = new_id(user)
    with files.storage_errors():
        size = upload.seek(0, 2)
        upload.seek(0)
    _make_room(size, user)
    files.put(f"{_stem(_own(upload_id, user), user)}.zip", upload)
    return upload_id


def begin(size: int, user: Any, sha256: str = "") -> str:
    """Make room for an upload in pieces, and return its id. Raises `InvalidBackup`, `StorageFailed`.

    `size`: of the whole, in bytes. `sha256`: its checksum, in hexadecimal, if it is known.
    """
    if size < 1:
        raise InvalidBackup(_("This file is empty."))
    files.tidy()
    _make_room(size, user)
    upload_id = new_id(user, size)
    files.put(_beginning(_own(upload_id, user), user), ContentFile(sha256.lower().encode()))
    return upload_id


def incoming(upload_id: str, user: Any) -> Incoming:
    """Return how much of an upload in pieces is here. Raises `NoSuchUpload`."""
    signed = _own(upload_id, user)
    stem = _stem(signed, user)
    names = _uploads(stem).get(stem, [])
    if not signed.size or _beginning(signed, user) not in names:
        raise _no_longer_there()
    offset, pieces = 0, []
    # The longest first: one that was sent again may begin where another did.
    for start, end, name in sorted(map(_span, names[1:]), key=lambda span: (span[0], -span[1])):
        if start == offset:
            offset = end
            pieces.append(name)
    return Incoming(signed.size, offset, pieces)


def add_piece(upload_id: str, user: Any, offset: int, piece: BinaryIO) -> int:
    """Keep the next piece of an upload, and return where the one after it begins.

    `piece`: a seekable file; it ends at or before the end of the whole. Raises `NoSuchUpload`, `WrongOffset` if it
    does not begin at `offset`, `InvalidBackup` if it is too short, or the last and the whole is not what was
    announced, `StorageFailed`.
    """
    found = incoming(upload_id, user)
    if offset != found.offset:
        raise WrongOffset(_("This piece of the upload does not begin where the last one ended."))
    size = piece.seek(0, 2)
    piece.seek(0)
    end = offset + size
    if end > found.size or (size < LEAST_PIECE and end < found.size):
        raise _incomplete()
    _check_room(size, (_arrived(names) for names in _uploads().values()))
    signed = _own(upload_id, user)
    name = f"{_stem(signed, user)}.piece.{offset:015}.{end:015}"
    files.put(name, File(piece), is_one_of_many=end < found.size)
    if end == found.size:
        _check_whole(upload_id, signed, user)
    return end


def _check_whole(upload_id: str, signed: _Id, user: Any) -> None:
    """Raise `InvalidBackup` where an upload is not what was announced. It is then deleted."""
    announced = files.open_file(_beginning(signed, user))
    with announced or ContentFile(b"") as file:
        wanted = file.read().decode()
    if not wanted:
        return
    digest = hashlib.sha256()
    with open_staged(upload_id, user) as whole:
        while chunk := whole.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != wanted:
        discard(upload_id, user)
        raise _incomplete()


def _make_room(size: int, user: Any) -> None:
    """Delete the oldest uploads of a user. Raises `StorageFailed` if the others have too many.

    What a user announced takes the room of that user's other uploads, but of nobody else's: others only lose room by
    what has arrived.
    """
    uploads = _uploads()
    sizes = {stem: _announced(names) or _arrived(names) for stem, names in uploads.items()}
    own = [stem for stem in uploads if stem.startswith(_prefix(user))]
    own.sort(key=lambda stem: files.modified(uploads[stem][-1]))
    while own and (
        len(own) >= MOST_OF_ONE
        or sum(sizes[stem] for stem in own) + size > SIZES_OF_ONE * conf.max_upload_size
    ):
        oldest = own.pop(0)
        for name in uploads[oldest]:
            files.delete(name)
        del sizes[oldest], uploads[oldest]
    _check_room(size, map(_arrived, uploads.values()))


def _check_room(size: int, arrived: Iterable[int]) -> None:
    """Raise `StorageFailed` if all users have too much, in bytes, to take `size` more."""
    if sum(arrived) + size > SIZES_OF_ALL * conf.max_upload_size:
        raise StorageFailed(
            _("Too many uploads of others wait for their confirmation. Please try again later.")
        )


def _uploads(stem: str = "") -> dict[str, list[str]]:
    """Return the names of the files of each upload, in their order; only those of one, if it is named."""
    found: dict[str, list[str]] = {}
    for name in files.names_in(STAGED):
        if name.startswith(stem):
            found.setdefault(name.partition(".")[0], []).append(name)
    return found


def _announced(names: list[str]) -> int:
    """Return the size of an upload in pieces, in bytes, as if all were there; 0 of one that came whole."""
    size = names[0].partition(".begin.")[2]
    return int(size) if size.isdecimal() else 0


def _arrived(names: list[str]) -> int:
    """Return how many bytes of an upload are here. Pieces say it by their names: there may be many."""
    if not _announced(names):
        return sum(map(files.size_of, names))
    return sum(end - start for start, end, _name in map(_span, names[1:]))


def _span(name: str) -> tuple[int, int, str]:
    """Return where a piece begins and ends, and its name."""
    start, end = name.split(".")[-2:]
    return int(start), int(end), name


def new_id(user: Any, size: int = 0) -> str:
    """Return an id for an upload of this user, or for a restore without one that is followed by it.

    `size`: in bytes, of an upload in pieces.
    """
    signed = [secrets.token_urlsafe(24), str(user.pk), *([size] if size else [])]
    return signing.dumps(signed, salt=_SALT)


def unsigned(upload_id: str, *, max_age: int | None = None) -> _Id:
    """Return what is in an id. Raises `NoSuchUpload`. `max_age`: in seconds."""
    try:
        return _Id(*signing.loads(upload_id, salt=_SALT, max_age=max_age))
    except (signing.BadSignature, ValueError, TypeError) as error:
        raise _no_longer_there() from error


def _own(upload_id: str, user: Any) -> _Id:
    """Return what is in the id of an upload of this user. Raises `NoSuchUpload` if it is another's, or expired.

    One in pieces may take any time to come; its files tell how old it is.
    """
    signed = unsigned(upload_id)
    if signed.owner != str(user.pk):
        raise _no_longer_there()
    return signed if signed.size else unsigned(upload_id, max_age=conf.staged_seconds)


def _stem(signed: _Id, user: Any) -> str:
    """Return how the names of the files of an upload begin."""
    return f"{_prefix(user)}{signed.name}"


def _beginning(signed: _Id, user: Any) -> str:
    """Return the name of the file that says that an upload in pieces has begun."""
    return f"{_stem(signed, user)}.begin.{signed.size}"


def _prefix(user: Any) -> str:
    """Return how the names of this user's uploads begin."""
    return f"{STAGED}/{hashlib.sha256(str(user.pk).encode()).hexdigest()[:12]}_"


@contextmanager
def open_staged(upload_id: str, user: Any) -> Iterator[BinaryIO]:
    """Open a staged upload for reading. Raises `NoSuchUpload` if it expired, is gone, or is another user's;
    `Incomplete` if not all of it came yet. A kept backup that was staged has its photos with it."""
    photos = Anywhere(others=bool(user.is_superuser))
    signed = _own(upload_id, user)
    if signed.size:
        found = incoming(upload_id, user)
        if found.offset < found.size:
            raise Incomplete(
                _("Only %(part)s of this file's %(whole)s have arrived. Please send the rest first.")
                % {"part": filesizeformat(found.offset), "whole": filesizeformat(found.size)}
            )
        if aware_now() - files.modified(found.pieces[-1]) > dt.timedelta(seconds=conf.staged_seconds):
            raise _no_longer_there()
        pieces = [(end - start, name) for start, end, name in map(_span, found.pieces)]
        with closing(join(pieces, _open)) as whole:
            yield with_photos(whole, photos)
        return
    with _open(f"{_stem(signed, user)}.zip") as file:
        yield with_photos(file, photos)


def _open(name: str) -> BinaryIO:
    file = files.open_file(name)
    if file is None:
        raise _no_longer_there()
    return file


def discard(upload_id: str, user: Any) -> None:
    """Delete a staged upload, if it is there and this user's. If it cannot be deleted now, it expires."""
    with suppress(InvalidBackup, StorageFailed):
        signed = _own(upload_id, user)
        stem = _stem(signed, user)
        for name in _uploads(stem).get(stem, []) if signed.size else [f"{stem}.zip"]:
            files.delete(name)


def _no_longer_there() -> NoSuchUpload:
    return NoSuchUpload(_("The uploaded file is no longer there. Please choose it again."))


def _incomplete() -> InvalidBackup:
    return InvalidBackup(_("The upload arrived damaged or incomplete. Please send it again."))

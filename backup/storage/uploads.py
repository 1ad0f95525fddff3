"""Stores uploads between preview and confirmation, including those that are sent in pieces.

A web server in front of the app may only accept small requests, so a large file can be sent in pieces, and each piece
again if it fails. Each piece is a file of its own: several machines may share a storage in which files cannot be
appended to. After OWNER_RANDOM, the names of the files end in:

    .zip                an upload that was sent at once
    .begin.SIZE         the beginning of one in pieces; contains the SHA-256 of the whole in hexadecimal, or nothing
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

from ..conf import aware_now, conf
from ..exceptions import Incomplete, InvalidBackup, NoSuchUpload, StorageFailed, WrongOffset
from . import files
from .files import STAGED
from .joined import join
from .photos import completed

_SALT = "backup.staged"
#: How many uploads one user may have, and how large they may be together, as a multiple of BACKUP_MAX_UPLOAD_SIZE.
MOST_OF_ONE = 20
SIZES_OF_ONE = 3
#: How large the uploads of all users may be together, as a multiple of BACKUP_MAX_UPLOAD_SIZE.
SIZES_OF_ALL = 10
#: The least bytes of a piece, except the last: otherwise there could be any number of them.
LEAST_PIECE = 64 * 1024
_CHUNK = 1024 * 1024


class _Id(NamedTuple):
    """The content of an id. `owner`: the key of its user. `size`: in bytes, for an upload in pieces; 0 for others."""

    name: str
    owner: str
    size: int = 0


@dataclass(frozen=True)
class Incoming:
    """An upload in pieces. `size`: of the whole, in bytes. `pieces`: the names of those that have arrived, up to the
    first gap. `offset`: where the next one must begin, in bytes."""

    size: int
    offset: int
    pieces: list[str]

    def check_offset(self, offset: int) -> None:
        """Raise `WrongOffset` if a piece does not begin where the next one must begin. `offset`: its beginning."""
        if offset != self.offset:
            raise WrongOffset(_("This piece of the upload does not begin where the last one ended."))


def stage(upload: File[bytes], user: Any) -> str:
    """Store an upload until it is confirmed, and return its id for the form. Raises `StorageFailed`.

    If a user has too many uploads, the oldest are deleted.
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
    """Begin an upload in pieces, and return its id. Raises `InvalidBackup`, `StorageFailed`.

    `size`: of the whole, in bytes. `sha256`: checksum of the whole, in hexadecimal; "" if unknown.
    """
    if size < 1:
        raise InvalidBackup(_("This file is empty."))
    files.tidy()
    _make_room(size, user)
    upload_id = new_id(user, size)
    files.put(_beginning(_own(upload_id, user), user), ContentFile(sha256.lower().encode()))
    return upload_id


def incoming(upload_id: str, user: Any) -> Incoming:
    """Return how much of an upload in pieces has arrived. Raises `NoSuchUpload`."""
    signed = _own(upload_id, user)
    stem = _stem(signed, user)
    names = _uploads(stem).get(stem, [])
    if not signed.size or _beginning(signed, user) not in names:
        raise _no_longer_there()
    offset, pieces = 0, []
    # The longest first: a piece that was sent again may begin where another does.
    for start, end, name in sorted(map(_span, names[1:]), key=lambda span: (span[0], -span[1])):
        if start == offset:
            offset = end
            pieces.append(name)
    return Incoming(signed.size, offset, pieces)


def add_piece(upload_id: str, user: Any, offset: int, piece: BinaryIO) -> int:
    """Store the next piece of an upload, and return where the one after it begins.

    `piece`: a seekable file; it ends at or before the end of the whole. Raises `NoSuchUpload`, `WrongOffset` if it
    does not begin at `offset`, `InvalidBackup` if it is too short, or the last and the whole is not what was
    announced, `StorageFailed`.
    """
    upload = incoming(upload_id, user)
    upload.check_offset(offset)
    size = piece.seek(0, 2)
    piece.seek(0)
    end = offset + size
    if end > upload.size or (size < LEAST_PIECE and end < upload.size):
        raise incomplete()
    _check_room(size, (_arrived(names) for names in _uploads().values()))
    signed = _own(upload_id, user)
    name = f"{_stem(signed, user)}.piece.{offset:015}.{end:015}"
    files.put(name, File(piece), is_one_of_many=end < upload.size)
    if end == upload.size:
        _check_whole(upload_id, signed, user)
    return end


def _check_whole(upload_id: str, signed: _Id, user: Any) -> None:
    """Raise `InvalidBackup` if an upload does not have the announced checksum. It is then deleted."""
    wanted = (files.read_file(_beginning(signed, user)) or b"").decode()
    if not wanted:
        return
    digest = hashlib.sha256()
    with open_staged(upload_id, user) as whole:
        while chunk := whole.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != wanted:
        discard(upload_id, user)
        raise incomplete()


def _make_room(size: int, user: Any) -> None:
    """Delete the oldest uploads of a user to make room. Raises `StorageFailed` if other users take up too much.

    The announced size of an upload in pieces counts for its own user only. For other users, only the bytes that have
    arrived count.
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
    """Raise `StorageFailed` if there is no room for `size` bytes. `arrived`: bytes of each upload of all users."""
    if sum(arrived) + size > SIZES_OF_ALL * conf.max_upload_size:
        raise StorageFailed(
            _("Too many uploads of others wait for their confirmation. Please try again later.")
        )


def _uploads(stem: str = "") -> dict[str, list[str]]:
    """Return upload -> the names of its files, sorted. `stem`: only of the upload whose names begin with it."""
    uploads: dict[str, list[str]] = {}
    for name in files.names_in(STAGED):
        if name.startswith(stem):
            uploads.setdefault(name.partition(".")[0], []).append(name)
    return uploads


def _announced(names: list[str]) -> int:
    """Return the announced size of an upload in pieces, in bytes; 0 for one that was sent at once."""
    size = names[0].partition(".begin.")[2]
    return int(size) if size.isdecimal() else 0


def _arrived(names: list[str]) -> int:
    """Return how many bytes of an upload have arrived. For pieces, it is computed from their names."""
    if not _announced(names):
        return sum(map(files.size_of, names))
    return sum(end - start for start, end, _name in map(_span, names[1:]))


def _span(name: str) -> tuple[int, int, str]:
    """Return where a piece begins and ends, and its name."""
    start, end = name.split(".")[-2:]
    return int(start), int(end), name


def new_id(user: Any, size: int = 0) -> str:
    """Return a new id for an upload of this user, or for following the progress of a restore without an upload.

    `size`: in bytes, for an upload in pieces.
    """
    signed = [secrets.token_urlsafe(24), str(user.pk), *([size] if size else [])]
    return signing.dumps(signed, salt=_SALT)


def unsigned(upload_id: str, *, max_age: int | None = None) -> _Id:
    """Return the content of an id. `max_age`: in seconds. Raises `NoSuchUpload` if it is older, or not from us."""
    try:
        return _Id(*signing.loads(upload_id, salt=_SALT, max_age=max_age))
    except (signing.BadSignature, ValueError, TypeError) as error:
        raise _no_longer_there() from error


def _own(upload_id: str, user: Any) -> _Id:
    """Return the content of the id of this user's upload. Raises `NoSuchUpload` if it is another's, or expired.

    An upload in pieces may take any time to arrive; it expires by the age of its files.
    """
    signed = unsigned(upload_id)
    if signed.owner != str(user.pk):
        raise _no_longer_there()
    return signed if signed.size else unsigned(upload_id, max_age=conf.staged_seconds)


def _stem(signed: _Id, user: Any) -> str:
    """Return the beginning of the names of an upload's files."""
    return f"{_prefix(user)}{signed.name}"


def _beginning(signed: _Id, user: Any) -> str:
    """Return the name of the file with which an upload in pieces begins."""
    return f"{_stem(signed, user)}.begin.{signed.size}"


def _prefix(user: Any) -> str:
    """Return the beginning of the names of this user's uploads."""
    return f"{STAGED}/{hashlib.sha256(str(user.pk).encode()).hexdigest()[:12]}_"


@contextmanager
def open_staged(upload_id: str, user: Any) -> Iterator[BinaryIO]:
    """Open a staged upload for reading; a kept backup comes with its photos.

    Raises `NoSuchUpload` if it expired, is gone, or is another user's; `Incomplete` if not all of it has arrived.
    """
    signed = _own(upload_id, user)
    if signed.size:
        upload = incoming(upload_id, user)
        if upload.offset < upload.size:
            raise Incomplete(
                _("Only %(part)s of this file's %(whole)s have arrived. Please send the rest first.")
                % {"part": filesizeformat(upload.offset), "whole": filesizeformat(upload.size)}
            )
        if aware_now() - files.modified(upload.pieces[-1]) > dt.timedelta(seconds=conf.staged_seconds):
            raise _no_longer_there()
        pieces = [(end - start, name) for start, end, name in map(_span, upload.pieces)]
        with closing(join(pieces, _open)) as whole:
            yield completed(whole, user)
        return
    with _open(f"{_stem(signed, user)}.zip") as file:
        yield completed(file, user)


def _open(name: str) -> BinaryIO:
    file = files.open_file(name)
    if file is None:
        raise _no_longer_there()
    return file


def discard(upload_id: str, user: Any) -> None:
    """Delete a staged upload, if it is there and this user's. If it cannot be deleted, it expires later."""
    with suppress(InvalidBackup, StorageFailed):
        signed = _own(upload_id, user)
        stem = _stem(signed, user)
        for name in _uploads(stem).get(stem, []) if signed.size else [f"{stem}.zip"]:
            files.delete(name)


def _no_longer_there() -> NoSuchUpload:
    return NoSuchUpload(_("The uploaded file is no longer there. Please choose it again."))


def incomplete(error: type[InvalidBackup] = InvalidBackup) -> InvalidBackup:
    """Return the error for an upload, or a piece of one, that is not what was sent. `error`: its class."""
    return error(_("The upload arrived damaged or incomplete. Please send it again."))

"""Writes a backup file: see `Writer`."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, BinaryIO

from django.utils.translation import gettext as _

from ..exceptions import InvalidRecord
from ..threads import worker
from . import encryption
from .deflate import Compressor, Stored
from .key import Key
from .limits import Limits, megabytes
from .lines import BETWEEN, has_more_values, split_lines, weight
from .members import (
    MEDIA,
    README,
    README_FILE,
    RECORDS,
    Member,
    MemberKind,
    Photo,
    Records,
    photo_file,
    records_file,
)
from .metadata import Metadata, parse_metadata
from .names import METADATA, is_photo_name


class Writer:
    """Writes a backup into `target`, a binary file open for writing. The caller makes it appear when it is complete.

    `limits`: those of the reader, so that nothing is written that cannot be read. `continued`: the metadata of a kept
    backup that has been copied to `target`, in order to add its photos. `key`: the key that it is encrypted with.

    Checksums and compression run in a thread of their own, since both release the interpreter lock.
    """

    #: Bytes that are passed to that thread at a time. With less, it would mostly wait for the lock.
    PIECE = 2 * 1024 * 1024
    #: Pieces that may wait for the thread, which bounds memory.
    WAITING = 2

    def __init__(
        self,
        target: BinaryIO,
        limits: Limits | None = None,
        *,
        continued: Metadata | None = None,
        key: Key | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._zip = zipfile.ZipFile(target, "a" if continued else "w", zipfile.ZIP_DEFLATED)
        self._members: dict[str, dict[str, Member]] = {RECORDS.key: {}}
        self._packer = worker()
        self._waiting: deque[Future[None]] = deque()
        self._key = key
        if continued:
            self._continue(continued)

    def _continue(self, metadata: Metadata) -> None:
        """Continue a backup: `metadata.json`, its last member, is overwritten and written anew at the end."""
        last = self._zip.filelist.pop()
        if last.filename != METADATA:
            raise ValueError(last.filename)
        del self._zip.NameToInfo[METADATA]
        self._zip.start_dir = last.header_offset
        for kind, members in metadata.members.items():
            if kind != MEDIA.key:
                self._members[kind] = dict(members)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self._packer.shutdown(cancel_futures=True)
        self._zip.close()

    def encrypt(self, key: Key, metadata: Metadata) -> None:
        """Encrypt everything that is written from now on, except README.txt. To be called before anything is added.

        Raises `EncryptionUnavailable`.
        """
        text = encryption.readme(
            metadata.timestamp.isoformat(" ", "seconds"), metadata.instance, key
        ).encode()
        digest = self.write(README_FILE, [text])
        self.register(README, README_FILE, Member(README_FILE, digest))
        self._zip.comment = text
        self._key = key
        encryption.check_available()

    def add(self, label: str, batches: Iterable[tuple[int, bytes]]) -> int:
        """Write a model's records. Returns how many there were.

        `batches`: for each batch, the number of records, and their text from `lines_of`. Raises `InvalidRecord` if a
        record is too large.
        """
        count = 0

        def blocks() -> Iterator[bytes]:
            nonlocal count
            yield b"["
            for number, lines in batches:
                self._check_records(label, lines)
                yield BETWEEN if count else b"\n"
                yield lines
                count += number
            yield b"\n]\n"

        file = records_file(label)
        digest = self.write(file, blocks())
        self.register(RECORDS, label, Records(file, digest, count))
        return count

    def _check_records(self, label: str, lines: bytes) -> None:
        if len(lines) <= min(self._limits.values, self._limits.record):
            return
        for line in split_lines(lines):
            if weight(line) > self._limits.record:
                message = _("%(record)s takes more than %(limit)s MB, too much for a backup.")
                limit: Any = megabytes(self._limits.record)
            elif has_more_values(line, self._limits.values):
                message = _("%(record)s has more than %(limit)s values, too much for a backup.")
                limit = self._limits.values
            else:
                continue
            key = json.loads(line)["pk"]
            raise InvalidRecord(message % {"record": f"{label} {key}", "limit": limit}, model=label, pk=key)

    @property
    def is_full_of_photos(self) -> bool:
        """Whether it has as many photos as the limits allow."""
        return len(self._members.get(MEDIA.key, {})) >= self._limits.photos

    def fault_of_photo(self, name: str) -> str:
        """Return why a photo of this name cannot be added, as a phrase for people; "" if it can."""
        file = self._photo_file(name)
        photos = self._members.get(MEDIA.key, {})
        if self.is_full_of_photos:
            return _("a backup has at most %(limit)s photos (BACKUP_MAX_PHOTOS)") % {
                "limit": self._limits.photos
            }
        if (
            not is_photo_name(name)
            or name in photos
            or any(member.file == file for member in self._members[RECORDS.key].values())
        ):
            return _("a photo in a backup cannot have this name")
        return ""

    def add_photo(self, name: str, blocks: Iterable[bytes]) -> Photo:
        """Write a photo. `blocks`: its content, in pieces of any size. `name`: one without a `fault_of_photo`.

        It is not compressed any further, since photos are compressed already.
        """
        size = 0

        def counted() -> Iterator[bytes]:
            nonlocal size
            for block in blocks:
                size += len(block)
                yield block

        digest = self.write(self._photo_file(name), counted(), zipfile.ZIP_STORED)
        return self.list_photo(name, digest, size)

    def list_photo(self, name: str, sha256: str, size: int) -> Photo:
        """List a photo in `metadata.json` whose content is stored elsewhere: see `Archive.has_photo`."""
        photo = Photo(self._photo_file(name), sha256, name, size)
        self.register(MEDIA, name, photo)
        return photo

    def _photo_file(self, name: str) -> str:
        number = len(self._members.get(MEDIA.key, {})) + 1
        return photo_file(name, number, hides_names=self._key is not None)

    def register(self, kind: MemberKind, name: str, member: Member) -> None:
        """List a member in `metadata.json` that was written. `name`: its identifier among the members of its kind."""
        self._members.setdefault(kind.key, {})[name] = member

    def write(self, file: str, blocks: Iterable[bytes], method: int = zipfile.ZIP_DEFLATED) -> str:
        """Write a member's content, in pieces of any size. Returns its checksum: SHA-256, in hexadecimal."""
        # This member and metadata.json are still to come.
        self._limits.check_members(len(self._zip.filelist) + 2, len(self._members.get(MEDIA.key, {})) + 1)
        return self._write(file, blocks, method)

    def _write(self, file: str, blocks: Iterable[bytes], method: int = zipfile.ZIP_DEFLATED) -> str:
        digest = hashlib.sha256()
        if self._key:
            info = encryption.entry(file, method)
        else:
            info = zipfile.ZipInfo(file)
            info.compress_type = method
        with self._zip.open(info, "w", force_zip64=True) as member:
            # `zipfile` has no public way to choose the library that compresses.
            compressor = Compressor() if method == zipfile.ZIP_DEFLATED else Stored()
            member._compressor = compressor  # type: ignore[attr-defined]
            if self._key:
                encryption.encrypt(member, info, self._key, compressor)

            def pack(data: bytes) -> None:
                digest.update(data)
                member.write(data)

            piece: list[bytes] = []
            size = 0
            try:
                for block in blocks:
                    piece.append(block)
                    size += len(block)
                    if size > self.PIECE:
                        self._wait(self.WAITING)
                        self._waiting.append(self._packer.submit(pack, b"".join(piece)))
                        piece, size = [], 0
                self._waiting.append(self._packer.submit(pack, b"".join(piece)))
            finally:
                self._wait(0)
            if self._key:
                encryption.end(member)
        return digest.hexdigest()

    def _wait(self, most: int) -> None:
        """Wait until at most `most` pieces are left to compress. Raises what compressing them raised."""
        while len(self._waiting) > most:
            self._waiting.popleft().result()

    def finish(self, metadata: Metadata) -> Metadata:
        """Write `metadata` together with the list of members, and return it as a reader will see it.

        Without this, the file is not a backup. Texts that are too long are cut, and invalid characters replaced.
        """
        metadata = replace(metadata.cut(), members=dict(self._members))
        metadata = replace(metadata, version=metadata.lowest_version())
        data = re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", _text_of(metadata)).encode()
        self._limits.check_metadata(len(data), len(metadata.photos))
        self._write(METADATA, [data])
        return replace(parse_metadata(json.loads(data)), key_id=self._key.id if self._key else "")


def _text_of(metadata: Metadata) -> str:
    """Return `metadata.json`, indented, but with each photo on one line."""
    content = metadata.as_json()
    photos = content.get(MEDIA.key, [])
    text = json.dumps({**content, MEDIA.key: []} if photos else content, indent=2, ensure_ascii=False)
    lines = ",\n".join(f"    {json.dumps(photo, ensure_ascii=False)}" for photo in photos)
    return text.replace(f'\n  "{MEDIA.key}": []', f'\n  "{MEDIA.key}": [\n{lines}\n  ]', 1) + "\n"

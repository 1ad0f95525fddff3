"""Copies members from one backup into another: all of them, encrypted, for a place where nobody may read them; or a
photo."""

from __future__ import annotations

import tempfile
from typing import BinaryIO

from .key import Key
from .members import KINDS, MEDIA, README, Photo
from .metadata import Metadata
from .photos import BLOCK, IN_MEMORY
from .reader import Archive
from .writer import Writer


def encrypt(archive: Archive, target: BinaryIO, key: Key) -> Metadata:
    """Write a backup to `target`, encrypted. Its content is the same: checksums are of what is in clear. Photos are
    listed, and not copied: a kept backup has them beside it.

    In flat memory. Raises `InvalidBackup` if the backup is damaged, `EncryptionUnavailable`.
    """
    metadata = archive.metadata
    with Writer(target) as writer:
        writer.encrypt(key, metadata)
        for kind in KINDS:
            members = metadata.members.get(kind.key, {}) if kind not in (README, MEDIA) else {}
            for name, member in members.items():
                writer.write(member.file, archive.read(member))
                writer.register(kind, name, member)
        for photo in metadata.photos.values():
            writer.list_photo(photo.name, photo.sha256, photo.size)
        return writer.finish(metadata)


def copy_photo(archive: Archive, photo: Photo, writer: Writer) -> None:
    """Copy the content of a photo, in flat memory. Raises `InvalidBackup` if it is missing or damaged; then nothing
    of it was written."""
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as content:
        for block in archive.read(photo):
            content.write(block)
        content.seek(0)
        writer.add_photo(photo.name, iter(lambda: content.read(BLOCK), b""))

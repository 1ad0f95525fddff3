"""Reads members of a backup through, or copies them: all of them, to make an encrypted copy, or one photo."""

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
    """Write an encrypted copy of a backup to `target`. Checksums stay the same, since they are of the unencrypted
    content. Photos are listed but not copied: a kept backup has them beside it.

    Memory does not grow with the size. Raises `InvalidBackup` if the backup is damaged, `EncryptionUnavailable`.
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


def read_through(archive: Archive) -> None:
    """Read all members of a backup against their checksums, but for photos. Raises `InvalidBackup`."""
    for kind in KINDS:
        for member in archive.metadata.members.get(kind.key, {}).values() if kind is not MEDIA else ():
            for _block in archive.read(member):
                pass


def copy_photo(archive: Archive, photo: Photo, writer: Writer) -> None:
    """Copy the content of a photo. Raises `InvalidBackup` if it is missing or damaged, without having written anything.

    Memory does not grow with the size.
    """
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as content:
        for block in archive.read(photo):
            content.write(block)
        content.seek(0)
        writer.add_photo(photo.name, iter(lambda: content.read(BLOCK), b""))

"""Collects which stored photos kept backups name: the others can be removed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from ..archive import Key, Photo
from ..archive.photos import stored_name
from ..exceptions import EncryptionUnavailable, KeyNeeded, NoSuchBackup
from . import kept, keys, photos
from .names import BackupKind, Name


@dataclass(frozen=True)
class NamedPhotos:
    """The photos that some backups name. `has`: tells whether a photo is in their place as a backup has it, in a file
    that was not cut off. `files`: the names of the files that are named. `locked`: the ids of keys that the server does
    not have; every photo that is encrypted with one of them may be named, too."""

    has: Callable[[Photo, Key | None], bool]
    files: set[str] = field(default_factory=set)
    locked: set[str] = field(default_factory=set)

    def see(self, file: BinaryIO, name: Name) -> None:
        """Add the photos that a backup names. Raises `InvalidBackup`, `StorageFailed`, `NoSuchBackup`."""
        try:
            with keys.unlocked(file) as archive:
                for photo in archive.metadata.photos.values():
                    stored = stored_name(photo.sha256, archive.key)
                    if stored in self.files:
                        continue
                    self.files.add(stored)
                    # Else it may be stored as another backup has it: see `photos.AnyKey`.
                    if not self.has(photo, archive.key):
                        self.files.update(stored_name(photo.sha256, key) for key in (None, *keys.known()))
        except (KeyNeeded, EncryptionUnavailable):
            self.locked.add(name.key_id)


def photos_named() -> NamedPhotos:
    """Return the photos that backups in BACKUP_ROOT name. Raises `InvalidBackup` if one is damaged, `StorageFailed`.

    Safety copies name none: a restore removes no file.
    """
    named = NamedPhotos(photos.Photos().has)
    for name in kept.names():
        if name.kind is not BackupKind.SAFETY:
            with suppress(NoSuchBackup), kept.open_backup(name.text, kept.LOCAL) as file:  # deleted since
                named.see(file, name)
    return named

"""Collects which stored photos kept backups name: the others can be removed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from ..archive.photos import stored_name
from ..exceptions import EncryptionUnavailable, KeyNeeded, NoSuchBackup
from . import kept, keys
from .names import BackupKind, Name


@dataclass(frozen=True)
class NamedPhotos:
    """The photos that some backups name. `files`: the names of their files. `locked`: the ids of keys that the server
    does not have; every photo that is encrypted with one of them may be named, too."""

    files: set[str] = field(default_factory=set)
    locked: set[str] = field(default_factory=set)

    def see(self, file: BinaryIO, name: Name) -> None:
        """Add the photos that a backup names. Raises `InvalidBackup`, `StorageFailed`, `NoSuchBackup`."""
        try:
            with keys.unlocked(file) as archive:
                named_photos = archive.metadata.photos.values()
                self.files.update(stored_name(photo.sha256, archive.key) for photo in named_photos)
        except (KeyNeeded, EncryptionUnavailable):
            self.locked.add(name.key_id)


def photos_named() -> NamedPhotos:
    """Return the photos that backups in BACKUP_ROOT name. Raises `InvalidBackup` if one is damaged, `StorageFailed`.

    Safety copies name none: a restore removes no file.
    """
    named = NamedPhotos()
    for name in kept.names():
        if name.kind is not BackupKind.SAFETY:
            with suppress(NoSuchBackup), kept.open_backup(name.text, kept.LOCAL) as file:  # deleted since
                named.see(file, name)
    return named

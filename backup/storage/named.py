"""Which stored photos kept backups name: the others can go."""

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
    """The photos that some backups name. `files`: the names of those that hold them. `locked`: the ids of keys that are
    not known here: what is encrypted with one may be named, too."""

    files: set[str] = field(default_factory=set)
    locked: set[str] = field(default_factory=set)

    def see(self, file: BinaryIO, name: Name) -> None:
        """Take note of what one names. Raises `InvalidBackup`, `StorageFailed`, `NoSuchBackup`."""
        try:
            with keys.unlocked(file) as archive:
                found = archive.metadata.photos.values()
                self.files.update(stored_name(photo.sha256, archive.key) for photo in found)
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

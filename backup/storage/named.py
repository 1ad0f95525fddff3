"""Collects which stored photos kept backups name: the others can be removed."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from ..archive.photos import stored_name
from ..exceptions import EncryptionUnavailable, KeyNeeded, NoSuchBackup
from . import files, kept, keys
from .names import BackupKind, Name


@dataclass(frozen=True)
class NamedPhotos:
    """The photos that some backups name. `there`: the names of all files in their place. `files`: of those that are
    named. `locked`: the ids of keys that the server does not have; every photo that is encrypted with one of them may
    be named, too."""

    there: Collection[str]
    files: set[str] = field(default_factory=set)
    locked: set[str] = field(default_factory=set)

    def see(self, file: BinaryIO, name: Name) -> None:
        """Add the photos that a backup names. Raises `InvalidBackup`, `StorageFailed`, `NoSuchBackup`."""
        try:
            with keys.unlocked(file) as archive:
                for photo in archive.metadata.photos.values():
                    stored = stored_name(photo.sha256, archive.key)
                    self.files.add(stored)
                    # Else it may be stored as another backup has it: see `photos.AnyKey`.
                    if stored not in self.there:
                        self.files.update(stored_name(photo.sha256, key) for key in (None, *keys.known()))
        except (KeyNeeded, EncryptionUnavailable):
            self.locked.add(name.key_id)


def photos_named() -> NamedPhotos:
    """Return the photos that backups in BACKUP_ROOT name. Raises `InvalidBackup` if one is damaged, `StorageFailed`.

    Safety copies name none: a restore removes no file.
    """
    named = NamedPhotos({path.rpartition("/")[2] for path in files.names_in(files.PHOTOS)})
    for name in kept.names():
        if name.kind is not BackupKind.SAFETY:
            with suppress(NoSuchBackup), kept.open_backup(name.text, kept.LOCAL) as file:  # deleted since
                named.see(file, name)
    return named

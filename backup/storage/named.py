"""Collects which stored photos kept backups name, and removes the others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import starmap
from typing import BinaryIO

from ..archive import Key, Photo
from ..archive.photos import stored_name
from ..conf import aware_now
from ..exceptions import EncryptionUnavailable, KeyNeeded, NoSuchBackup
from . import files, kept, keys, photos
from .files import PHOTOS
from .names import BackupKind, Name


@dataclass(frozen=True)
class NamedPhotos:
    """The photos that some backups name. `is_whole`: reads the file in which a photo lies in their place as a backup
    has it, and tells whether it is there and undamaged. `locked`: the ids of keys that the server does not have; every
    photo that is encrypted with one of them may be named, too."""

    is_whole: Callable[[Photo, Key | None], bool]
    locked: set[str] = field(default_factory=set)
    #: The name of each file that is named -> what is in it, and the key of the backup.
    _named: dict[str, tuple[Photo, Key | None]] = field(default_factory=dict)

    def see(self, file: BinaryIO, name: Name) -> None:
        """Add the photos that a backup names. Raises `InvalidBackup`, `StorageFailed`, `NoSuchBackup`."""
        try:
            with keys.unlocked(file) as archive:
                for photo in archive.metadata.photos.values():
                    self._named.setdefault(stored_name(photo.sha256, archive.key), (photo, archive.key))
        except (KeyNeeded, EncryptionUnavailable):
            self.locked.add(name.key_id)

    def names(self, file: str) -> bool:
        """Tell whether a backup names a file, or may."""
        return file in self._named or file.partition("_")[2].removesuffix(".zip") in self.locked

    def may_go(self, file: str) -> bool:
        """Tell whether a file that no backup names is not needed either. To be asked right before it is removed, since
        it may read a photo: one that a backup has in clear, say, and that lies here encrypted, too, may be whole only
        here, see `photos.AnyKey`. Raises `StorageFailed`."""
        return all(starmap(self.is_whole, self._other_forms.get(file, ())))

    @cached_property
    def _other_forms(self) -> dict[str, list[tuple[Photo, Key | None]]]:
        """The names of files in which another backup may have stored a photo that is named -> as it is named."""
        found: dict[str, list[tuple[Photo, Key | None]]] = {}
        forms = (None, *keys.known())
        for photo, key in self._named.values():
            for form in forms:
                found.setdefault(stored_name(photo.sha256, form), []).append((photo, key))
        return found


def remove_unnamed() -> int:
    """Delete the photos in BACKUP_ROOT that no backup there needs and that are a day old. Returns how many.

    Safety copies name none: a restore removes no file. Raises `InvalidBackup` if a backup is damaged, `StorageFailed`.
    """
    place, removed = photos.Local(), 0
    named = NamedPhotos(photos.made_whole)
    for backup in kept.names():
        if backup.kind is not BackupKind.SAFETY:
            with suppress(NoSuchBackup), kept.open_backup(backup.text, kept.LOCAL) as file:  # deleted since
                named.see(file, backup)
    for name in place.names(PHOTOS):
        if named.names(name):
            continue
        if abs(aware_now() - files.modified(f"{PHOTOS}/{name}")) > photos.YOUNG and named.may_go(name):
            place.delete(f"{PHOTOS}/{name}")
            removed += 1
    return removed

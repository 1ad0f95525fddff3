"""Stores the photos of a backup that the server keeps, beside it, and reads as few of them as it can.

A photo of the same name and size as in the newest kept backup, which has not changed since long before that was made,
is the same photo: it is not read again, so that a night's backup costs the new photos only. Once a week all are read,
since a storage may be wrong about when a file was changed.
"""

from __future__ import annotations

import datetime as dt
import shutil
from contextlib import suppress
from typing import BinaryIO

from django.utils.translation import gettext as _

from .archive import Key, Metadata, Photo
from .exceptions import BackupError
from .log import logger
from .media import NamedPhoto, UnreadablePhotoError
from .storage import files, kept
from .storage.keys import unlocked
from .storage.photos import Photos

#: A photo that was changed later than so long before the backup is read again: clocks differ.
MARGIN = dt.timedelta(days=1)
#: Bytes that stay free on the disk when photos are stored: for the records of this and of later backups.
SPARE = 256 * 1024 * 1024


class Keeping:
    """Takes the photos of one backup: see `dump.Store`.

    `reads_all`: read every photo. `mends`: and what is stored already, too, and store it anew if it is damaged.
    """

    def __init__(self, *, reads_all: bool = False, mends: bool = False) -> None:
        self._reads_all, self._mends = reads_all or mends, mends
        self._photos = Photos()
        self._key: Key | None = None
        self._before: Metadata | None = None
        #: Checksums of the photos that a kept backup names, this one too: nobody removes them now.
        self._named: set[str] = set()
        #: How many photos had no room on the disk.
        self.lacking = 0
        #: How many were stored anew, since they were damaged.
        self.mended = 0

    def begin(self, key: Key | None) -> None:
        """Take note of the key that the backup is encrypted with, and its photos too."""
        self._key, self._before = key, _newest_with_photos(key)
        self._named = {photo.sha256 for photo in self._before.photos.values()} if self._before else set()

    def known(self, named: NamedPhoto) -> Photo | None:
        """Return a photo that is stored already and need not be read; None if it may be another one."""
        photo = self._before.photos.get(named.name) if self._before else None
        if photo is None or self._before is None or self._reads_all or not self._photos.has(photo, self._key):
            return None
        state = named.state()
        if state is None or state[0] != photo.size or state[1] >= self._before.timestamp - MARGIN:
            return None
        return photo

    def add(self, photo: Photo, content: BinaryIO) -> None:
        """Store a photo that was read, unless it is there. Raises `StorageFailed`, `EncryptionUnavailable`;
        `UnreadablePhotoError` if there is no room."""
        if not self._is_there(photo):
            free = _free()
            if free is not None and free < photo.size + SPARE:
                self.lacking += 1
                raise UnreadablePhotoError(_("the disk has no room for it"))
            content.seek(0)
            self._photos.add(photo, content, self._key)
        self._named.add(photo.sha256)

    def _is_there(self, photo: Photo) -> bool:
        """Tell whether a photo is stored, and will be when the backup is made."""
        if not self._photos.has(photo, self._key):
            return False
        if self._mends:
            is_whole = self._photos.is_whole(photo, self._key)
            self.mended += not is_whole
            return is_whole
        return photo.sha256 in self._named or self._photos.is_young(photo, self._key)


def _free() -> int | None:
    """Return the free bytes where photos are stored; None if that is no folder of this machine."""
    path = files.local_path(files.ROOT)
    with suppress(OSError):
        return shutil.disk_usage(path).free if path else None
    return None


def _newest_with_photos(key: Key | None) -> Metadata | None:
    """Return what the newest kept backup says that has photos, and is encrypted with this key; None without one."""
    for name in kept.names():
        if name.kind is kept.BackupKind.SAFETY or name.key_id != (key.id if key else ""):
            continue
        try:
            with kept.open_backup(name.text) as file, unlocked(file, key=key) as archive:
                if archive.metadata.includes_media and archive.metadata.is_sealed:
                    return archive.metadata
        except BackupError as error:
            logger.warning("%s cannot be read for the photos that it names: %s", name.text, error.code)
    return None

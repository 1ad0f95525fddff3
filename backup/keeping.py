"""Stores the photos of a kept backup beside it, and reads as few of them as possible.

A photo with the same name and size as in the newest kept backup, which was last changed long before that was made, is
considered the same and not read again, so that each night only new photos are read. Once a week all are read, since a
storage may be wrong about when a file was changed.
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
from .storage.photos import Photos, is_whole

#: A photo must have been unchanged for this long before the backup, since clocks differ. Otherwise it is read again.
MARGIN = dt.timedelta(days=1)
#: Bytes that are left free on the disk when photos are stored, for the records of this and later backups.
SPARE = 256 * 1024 * 1024


class Keeping:
    """The `dump.Store` of a kept backup.

    `reads_all`: read every photo. `mends`: also read the stored files, and replace those that are damaged.
    """

    def __init__(self, *, reads_all: bool = False, mends: bool = False) -> None:
        self._reads_all, self._mends = reads_all or mends, mends
        self._photos = Photos()
        self._key: Key | None = None
        self._before: Metadata | None = None
        #: Checksums of the photos that kept backups name, including this one. Nobody removes these.
        self._named: set[str] = set()
        #: How many photos had no room on the disk.
        self.lacking = 0
        #: How many were more than BACKUP_MAX_PHOTOS allows.
        self.beyond = 0
        #: How many were stored anew while damaged ones are mended.
        self.mended = 0

    def begin(self, key: Key | None) -> None:
        """Set the key with which the backup and its photos are encrypted; None if they are not."""
        self._key, self._before = key, _newest_with_photos(key)
        self._named = {photo.sha256 for photo in self._before.photos.values()} if self._before else set()

    def known(self, named: NamedPhoto) -> Photo | None:
        """Return the stored photo for one that need not be read; None if it has to be read."""
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

    def pass_over(self) -> None:
        """Note that a photo is left out, since there are more than BACKUP_MAX_PHOTOS allows."""
        self.beyond += 1

    def _is_there(self, photo: Photo) -> bool:
        """Tell whether a photo is stored, and will still be when the backup is complete."""
        is_there = self._photos.has(photo, self._key)
        if self._mends:
            is_there = is_there and is_whole(self._photos, photo, self._key)
            self.mended += not is_there
            return is_there
        return is_there and (photo.sha256 in self._named or self._photos.is_young(photo, self._key))


def _free() -> int | None:
    """Return the free bytes where photos are stored; None if that is no folder of this machine."""
    path = files.local_path(files.ROOT)
    with suppress(OSError):
        return shutil.disk_usage(path).free if path else None
    return None


def _newest_with_photos(key: Key | None) -> Metadata | None:
    """Return the metadata of the newest backup in BACKUP_ROOT that has photos and is encrypted with this key; None
    without one."""
    for name in kept.names():
        if name.kind is kept.BackupKind.SAFETY or name.key_id != (key.id if key else ""):
            continue
        try:
            with kept.open_backup(name.text, kept.LOCAL) as file, unlocked(file, key=key) as archive:
                if archive.metadata.includes_media and archive.metadata.is_sealed:
                    return archive.metadata
        except BackupError as error:
            logger.warning("%s cannot be read for the photos that it names: %s", name.text, error.code)
    return None

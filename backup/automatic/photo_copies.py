"""Copies photos of kept backups to a location. Each photo is there once; it arrives before the first backup that names
it, and is removed after the last one."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import BinaryIO, cast

from ..archive import Archive, Key, Photo, with_photos
from ..archive.photos import IN_MEMORY, may_hold, stored_name, write_stored
from ..exceptions import (
    CannotDelete,
    CannotList,
    CannotRead,
    Denied,
    EncryptionUnavailable,
    InvalidBackup,
    KeyNeeded,
    LocationFailed,
    NoSuchBackup,
    StorageFailed,
)
from ..log import logger
from ..storage import files, kept, keys, locations
from ..storage.files import PHOTOS
from ..storage.kept import StoredBackup
from ..storage.named import NamedPhotos
from ..storage.names import Name, parse
from ..storage.photos import Anywhere, Photos, is_whole
from .read_back import check, is_sample_same, not_what_was_sent


class PhotoCopies:
    """The photos in a location, during one visit. Methods raise `LocationFailed` if the location fails.

    `good_before`: the copies that were good there before: name -> backup.
    """

    def __init__(self, location: locations.Location, good_before: Mapping[str, StoredBackup]) -> None:
        self._location = location
        self._good_before = good_before
        self._stored = Photos()
        #: Where photos are read from that are not whole in BACKUP_ROOT.
        self.source = Anywhere()
        self._here = {path.rpartition("/")[2] for path in files.names_in(PHOTOS)}
        self._there: set[str] = set()
        #: The size of each as the location lists it; None if it is not known.
        self._sizes: dict[str, int | None] = {}
        self._is_listed = True
        #: The names of the photos there that should be replaced, and cannot be.
        self.denied: list[str] = []
        #: The photos that were not sent, since no place that answers has them whole: the name of the file -> that of
        #: the photo.
        self.unsent: dict[str, str] = {}
        #: The names of backups whose photos are not known, since no place that answers has them undamaged.
        self.unknown: list[str] = []
        #: The names of the photos that backups in BACKUP_ROOT need. They stay.
        self._needed: set[str] = set()
        self._failures: list[str] = []
        try:
            self._sizes.update(location.sizes(PHOTOS))
        except CannotList:
            self._is_listed = False
        self._there.update(self._sizes)

    @property
    def failures(self) -> list[str]:
        """What was said by places that could not be asked for a photo or a backup that is not whole elsewhere."""
        return [*dict.fromkeys([*self._failures, *self.source.failures])]

    def complete(self, copies: Iterable[str], backups: Iterable[StoredBackup]) -> None:
        """Send missing photos of backups that have a copy in the location. `copies`: the names of all copies there."""
        here = {backup.identity: backup for backup in backups}
        for copy in map(parse, copies):
            if copy.identity in here:
                try:
                    self._complete(here[copy.identity], copy)
                except (KeyNeeded, EncryptionUnavailable, NoSuchBackup, InvalidBackup) as error:
                    logger.warning("the photos of %s are not looked at: %s", copy.text, error.code)

    def _complete(self, backup: StoredBackup, copy: Name) -> None:
        """Send missing photos of a backup. Raises as keys, the file and the location do."""
        local, is_damaged = backup.copies[kept.LOCAL], False
        own = self._location.name
        # What is damaged here may be whole there, or else in another location.
        others = {place: text for place, text in backup.copies.items() if place not in (kept.LOCAL, own)}
        texts = {kept.LOCAL: local, own: copy.text, **others}
        for place, text in texts.items():
            with ExitStack() as opened:
                try:
                    file = opened.enter_context(self._open(place, parse(text)))
                    archive = opened.enter_context(keys.unlocked(file))
                    key = keys.of_id(copy.key_id)
                except (InvalidBackup, NoSuchBackup, LocationFailed) as error:
                    if (
                        place == own
                        and isinstance(error, LocationFailed)
                        and not isinstance(error, CannotRead)
                    ):
                        raise
                    if isinstance(error, LocationFailed):
                        self._failures.append(error.message)
                    is_damaged = is_damaged or isinstance(error, InvalidBackup)
                    continue
                if not self._is_listed:  # photos are sent before the copy, so they are there
                    self._there |= _names_of(archive, key)
                self.send(archive, key)
                return
        if is_damaged:  # else it was deleted meanwhile
            logger.warning("the photos of %s are not known", local)
            self.unknown.append(local)

    def _open(self, place: str, name: Name) -> BinaryIO:
        """Open a backup, with its photos. Of one in a location, only what tells which photos it has is fetched."""
        if place == kept.LOCAL:
            return kept.open_backup(name.text, place, beside=self.source)
        location = self._location if place == self._location.name else locations.location(place)
        file = locations.open_parts(location, name.path)
        check(file, name)
        return with_photos(file, self.source)

    def send(self, archive: Archive, key: Key | None, *, anew: bool = False) -> None:
        """Send the photos of an open backup, which reads them from `source`. `key`: encrypt them with it. `anew`: also
        send those that are there."""
        for photo in archive.metadata.photos.values():
            name = stored_name(photo.sha256, key)
            self._needed.add(name)
            if self._is_there(photo, key) and not anew:
                continue
            # A file that is damaged here must not replace a good one there, nor pass for a photo.
            if name in self._here and is_whole(self._stored, photo, key):
                self._send_file(name)
            else:
                self._send_photo(archive, photo, key, name)

    def _is_there(self, photo: Photo, key: Key | None) -> bool:
        """Tell whether a photo is there, in a file of a size that it may have."""
        name = stored_name(photo.sha256, key)
        size = self._sizes.get(name)
        return name in self._there and (size is None or may_hold(size, photo, key))

    def send_locked(self, key_id: str) -> None:
        """Send all photos that are encrypted with a key that the server does not have.

        Without the key, nobody can tell which of them a backup needs.
        """
        for name in sorted(self._here):
            if name.endswith(f"_{key_id}.zip") and name not in self._there:
                self._send_file(name)

    def _send_file(self, name: str) -> None:
        """Send a photo as it is stored in BACKUP_ROOT."""
        file = files.open_file(f"{PHOTOS}/{name}")
        if file is not None:
            with file:
                self._send(name, file)

    def _send_photo(self, archive: Archive, photo: Photo, key: Key | None, name: str) -> None:
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as spooled:
            file = cast(BinaryIO, spooled)
            try:
                write_stored(file, archive.read(photo), key)
            except (InvalidBackup, NoSuchBackup, StorageFailed) as error:
                logger.warning("a photo was not sent to %s: %s", self._location.name, error.code)
                self.unsent[name] = photo.name
                return
            self._send(name, file)

    def _send(self, name: str, file: BinaryIO) -> None:
        """Send a file, and read a part of it back."""
        path = f"{PHOTOS}/{name}"
        file.seek(0)
        try:
            self._location.send(path, file)
        except Denied:
            if name not in self._there:
                raise
            self.denied.append(name)
            self._sizes[name] = None  # it is not tried again
            return
        with suppress(CannotRead):
            try:
                is_same = is_sample_same(self._location, path, file)
            except NoSuchBackup:  # it took the file, and does not have it
                is_same = False
            if not is_same:
                if not self._was_good(name):  # else the location may only list and read wrongly
                    with suppress(LocationFailed):
                        self._location.delete(path)
                raise not_what_was_sent(self._location)
        self._there.add(name)
        self._sizes[name] = None
        self.unsent.pop(name, None)

    def _was_good(self, name: str) -> bool:
        """Tell whether one of the copies that were good before has a photo, as far as the backups here tell."""
        for text, backup in self._good_before.items():
            if backup.is_local:
                with (
                    suppress(NoSuchBackup, InvalidBackup, KeyNeeded, EncryptionUnavailable),
                    kept.open_backup(backup.copies[kept.LOCAL], kept.LOCAL) as file,
                    keys.unlocked(file) as archive,
                ):
                    if name in _names_of(archive, archive.key or keys.of_id(parse(text).key_id)):
                        return True
        return False

    def tidy(self, copies: Collection[str]) -> None:
        """Remove the photos that no copy in the location names any more. `copies`: the names of all copies there.

        If one of the copies cannot be read, nothing is removed.
        """
        if not self._is_listed or self._there <= self._needed:
            return
        named = NamedPhotos(partial(is_whole, Photos(self._location)))
        try:
            for copy in map(parse, copies):
                with locations.open_parts(self._location, copy.path) as file:
                    named.see(file, copy)
        except (InvalidBackup, NoSuchBackup, CannotRead):
            return
        with suppress(CannotDelete, CannotRead):
            for name in sorted(self._there - self._needed):
                if not named.names(name) and named.may_go(name):
                    self._location.delete(f"{PHOTOS}/{name}")
                    self._there.discard(name)


def _names_of(archive: Archive, key: Key | None) -> set[str]:
    """Return the names of the photos of a backup, encrypted with a key if there is one."""
    return {stored_name(photo.sha256, key) for photo in archive.metadata.photos.values()}

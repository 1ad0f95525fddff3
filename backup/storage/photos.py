"""Stores the photos of kept backups: each once in a place, in its folder `photos/`, however many backups name it.

A file there is named by the photo's checksum (`archive.photos.stored_name`), so a file with a name always has the same
content. A place is this site's folder, or a location, or for reading the folder of another site in one of these.

Longer than most modules, since all that stands between a photo and its place is here.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast
from zipfile import BadZipFile

from django.core.files import File
from django.utils.translation import gettext as _

from ..archive import Archive, Key, Photo, PhotoSource, photos_beside, with_photos
from ..archive.encryption import check_available
from ..archive.photos import (
    BLOCK,
    DAMAGE,
    IN_MEMORY,
    link,
    may_hold,
    read_stored,
    stored_name,
    write_encrypted,
    write_stored,
)
from ..conf import aware_now
from ..exceptions import (
    BackupError,
    CannotList,
    EncryptionUnavailable,
    NoSuchBackup,
    NotMounted,
    Slow,
    StorageFailed,
    Unreachable,
    WrongSettings,
)
from . import files, keys, locations
from .bounded import one_of
from .facts import LOCAL
from .files import PHOTOS
from .locations import Location, client

#: The errors of a photo whose file is not there, or not whole.
NOT_WHOLE: tuple[type[Exception], ...] = (FileNotFoundError, *DAMAGE)
#: The errors of a photo that cannot be read in one place, but perhaps in another one.
NOT_READ: tuple[type[Exception], ...] = (StorageFailed, *NOT_WHOLE)
#: The errors of a place that will not answer for the next file, either.
DOWN = (NotMounted, Slow, Unreachable)
#: A photo that no backup names is kept for this long: a backup that names it may be in the making.
YOUNG = dt.timedelta(days=1)


class ReadPlace(Protocol):
    """A place for kept backups and their photos, for reading. Names begin with their folder, `photos/…`."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, without it."""

    def fetch(self, name: str) -> BinaryIO:
        """Open a file; the caller closes it. Raises `FileNotFoundError` or `NoSuchBackup`, `StorageFailed`."""


class Place(ReadPlace, Protocol):
    """The same, for writing, too."""

    def send(self, name: str, file: BinaryIO) -> None:
        """Write a file, in place of one of the same name. Raises `StorageFailed`."""

    def delete(self, name: str) -> None:
        """Delete a file."""


class Local:
    """The folder of a site in BACKUP_ROOT, or in the storage "backups". `site`: its id; "" for this one."""

    name = LOCAL

    def __init__(self, site: str = "") -> None:
        self._site = site

    def path(self, name: str) -> str:
        """Return the path of a file on this machine; "" if it is in another storage."""
        return files.local_path(name, self._site)

    def other_sites(self) -> list[str]:
        """Return the ids of the other sites that keep files there. Raises `StorageFailed`."""
        return files.other_sites()

    def names(self, folder: str) -> list[str]:
        return [name.rpartition("/")[2] for name in files.names_in(folder, self._site)]

    def fetch(self, name: str) -> BinaryIO:
        file = files.open_file(name, self._site)
        if file is None:
            raise FileNotFoundError(name)
        return file

    def send(self, name: str, file: BinaryIO) -> None:
        files.put(name, File(file), is_one_of_many=True)  # the backup that names it follows

    def delete(self, name: str) -> None:
        files.delete(name)


class _OtherSite:
    """The folder of another site in a location: see `ReadPlace`."""

    def __init__(self, location: Location, site: str) -> None:
        self._location, self._site = location, site

    def names(self, folder: str) -> list[str]:
        return self._location.names(folder, self._site)

    def fetch(self, name: str) -> BinaryIO:
        return self._location.fetch(name, self._site)


class ReadPhotos:
    """The photos in a place, for reading. The place is listed only once."""

    failures: Sequence[str] = ()

    def __init__(self, place: ReadPlace) -> None:
        self._place = place

    @cached_property
    def names(self) -> set[str]:
        """The names of the files. Raises `StorageFailed`."""
        return {*self._place.names(PHOTOS)}

    def has(self, photo: Photo, key: Key | None) -> bool:
        """Tell whether a photo is there; on this machine, also that its file was not cut off, by a full disk say.
        Raises `StorageFailed`."""
        name = stored_name(photo.sha256, key)
        if path := self._path(name):
            with files.storage_errors():
                try:
                    return may_hold(os.stat(path).st_size, photo, key)
                except FileNotFoundError:
                    return False
        try:
            return name in self.names
        except CannotList:
            with suppress(FileNotFoundError, NoSuchBackup):
                self._place.fetch(f"{PHOTOS}/{name}").close()
                return True
            return False

    def blocks(self, photo: Photo, key: Key | None) -> Iterator[bytes]:
        """Yield the stored content of a photo: see `archive.photos.PhotoSource`."""
        name = f"{PHOTOS}/{stored_name(photo.sha256, key)}"
        try:
            opened = self._place.fetch(name)
        except NoSuchBackup as error:
            raise FileNotFoundError(name) from error
        with opened as file:
            yield from read_stored(file, photo, key)

    def bring(self, photo: Photo, key: Key | None, folder: Path) -> None:
        """Put the stored file of a photo into a folder: see `archive.photos.PhotoSource`."""
        name = stored_name(photo.sha256, key)
        if path := self._path(name):
            link(Path(path), folder / name)
            return
        with self._place.fetch(f"{PHOTOS}/{name}") as file, (folder / name).open("wb") as copy:
            shutil.copyfileobj(file, copy)

    def _path(self, name: str) -> str:
        """Return the path of a file on this machine; "" if it is elsewhere."""
        return self._place.path(f"{PHOTOS}/{name}") if isinstance(self._place, Local) else ""


class Photos(ReadPhotos):
    """The photos of this site in a place, for reading and adding."""

    _place: Place

    def __init__(self, place: Place | None = None) -> None:
        super().__init__(place or Local())

    def add(self, photo: Photo, content: BinaryIO, key: Key | None) -> None:
        """Store a photo, replacing a file of its name, and read it back. `content`: at its beginning.

        Raises `StorageFailed`, `EncryptionUnavailable`.
        """
        name = stored_name(photo.sha256, key)
        if key is None:
            self._place.send(f"{PHOTOS}/{name}", content)
        else:
            with tempfile.SpooledTemporaryFile(IN_MEMORY) as packed:
                write_encrypted(cast(BinaryIO, packed), iter(lambda: content.read(BLOCK), b""), key)
                packed.seek(0)
                self._place.send(f"{PHOTOS}/{name}", cast(BinaryIO, packed))
        if not is_whole(self, photo, key):
            raise StorageFailed(
                _("The photo %(name)s was written, but something else came back.") % {"name": photo.name}
            )
        self.names.add(name)

    def is_young(self, photo: Photo, key: Key | None) -> bool:
        """Tell whether a photo of this site was stored so recently that `named.remove_unnamed` keeps it. Raises
        `StorageFailed`."""
        return _is_young(f"{PHOTOS}/{stored_name(photo.sha256, key)}", YOUNG / 2)


class AnyKey:
    """The photos in a place, for reading. One that is not whole there as the backup has it, in clear or encrypted with
    a key, is read as another backup has it: in clear where this one is encrypted, say. For a place may have its copies
    encrypted where others do not, and a copy of a backup may have come without its photos."""

    failures: Sequence[str] = ()

    def __init__(self, photos: ReadPhotos) -> None:
        self._photos = photos

    @cached_property
    def _others(self) -> Sequence[Key | None]:
        with suppress(StorageFailed, EncryptionUnavailable):
            check_available()
            return [None, *keys.known()]
        return [None]

    def _stored_as(self, photo: Photo, key: Key | None) -> Iterator[Key | None]:
        """Yield the keys with which a photo is stored there, that of the backup first; None if it is in clear."""
        if self._photos.has(photo, key):
            yield key
        for other in self._others:
            if other != key and self._photos.has(photo, other):
                yield other

    def has(self, photo: Photo, key: Key | None) -> bool:
        return any(True for _key in self._stored_as(photo, key))

    def blocks(self, photo: Photo, key: Key | None) -> Iterator[bytes]:
        stored_as = key
        for stored_as in self._stored_as(
            photo, key
        ):  # one after the other: to look for one may take a request
            try:
                yield from _whole(self._photos.blocks(photo, stored_as), photo)
                return
            except NOT_WHOLE:
                continue
        yield from self._photos.blocks(photo, stored_as)  # whoever reads it finds what is wrong with it

    def bring(self, photo: Photo, key: Key | None, folder: Path) -> None:
        stored = [*self._stored_as(photo, key)] or [key]
        if stored == [key] or (key in stored and is_whole(self._photos, photo, key)):
            self._photos.bring(photo, key, folder)
            return
        # Of one that is damaged there is a part: whoever reads that finds what is wrong with it.
        with suppress(*DAMAGE), (folder / stored_name(photo.sha256, key)).open("wb") as copy:
            write_stored(copy, self.blocks(photo, key), key)


def is_whole(source: PhotoSource, photo: Photo, key: Key | None) -> bool:
    """Tell whether the stored file of a photo is undamaged. Raises `StorageFailed`, `EncryptionUnavailable`."""
    digest = hashlib.sha256()
    try:
        for block in source.blocks(photo, key):
            digest.update(block)
    except NOT_WHOLE:
        return False
    return digest.hexdigest() == photo.sha256


class Anywhere:
    """The photos of this site, wherever they are: in BACKUP_ROOT, or else in a location. One that is damaged in a place
    is read from the next. `others`: include those of other sites in the same places, since a database that was made
    anew counts as another site. `beside`: a source that is asked first."""

    def __init__(self, *, others: bool = False, beside: PhotoSource | None = None) -> None:
        self._others, self._beside = others, beside
        self.failures: list[str] = []
        #: How many photos of other sites may still be listed.
        self._left = client.MOST_LISTED

    @cached_property
    def _own(self) -> dict[PhotoSource, Local | Location]:
        places: list[Local | Location] = [Local()]
        try:
            places += locations.locations()
        except WrongSettings as error:  # what is here can be read all the same
            self._note(error)
        return {AnyKey(Photos(place)): place for place in places}

    @cached_property
    def _sources(self) -> list[PhotoSource]:
        """Those that are asked. Other sites are added only when a photo is in none of them."""
        return [*([self._beside] if self._beside else []), *self._own]

    @cached_property
    def _unlisted(self) -> dict[PhotoSource, Local | Location]:
        """The places whose other sites are not among `_sources` yet, by what has the photos of this site there."""
        return {**self._own} if self._others else {}

    def _sources_of(self, photo: Photo, key: Key | None) -> Iterator[PhotoSource]:
        sources = [*self._sources]
        for number, source in enumerate(sources):
            try:
                with one_of(len(sources) + len(self._unlisted) - number):
                    is_here = source.has(photo, key)
            except StorageFailed as error:
                # It is down, or does not allow it. To be told so again for each photo would take as long each time.
                self._drop(source, error)
                continue
            if is_here:
                yield source
        while self._unlisted:
            for source in self._list_other_sites():
                if source.has(photo, key):
                    yield source

    def _list_other_sites(self) -> list[PhotoSource]:
        """Return what has the photos of the other sites in the next place, listed already, and add it to the sources.
        A site that cannot be listed is left out."""
        number = len(self._unlisted)
        place = self._unlisted.pop(next(iter(self._unlisted)))
        listed: list[PhotoSource] = []
        try:
            with one_of(number):
                sites = place.other_sites()
                for done, site in enumerate(sites):
                    photos = ReadPhotos(Local(site) if isinstance(place, Local) else _OtherSite(place, site))
                    try:
                        with one_of(len(sites) - done):
                            self._left -= len(photos.names)
                    except DOWN:
                        raise
                    except StorageFailed as error:
                        self._note(error)
                        continue
                    if self._left < 0:
                        text = _("Location “%(name)s”: %(text)s")
                        raise StorageFailed(
                            text % {"name": place.name, "text": client.lists_too_much().message}
                        )
                    listed.append(AnyKey(photos))
        except StorageFailed as error:
            self._note(error)
        self._sources += listed
        return listed

    def _note(self, error: BackupError) -> None:
        if error.message not in self.failures:
            self.failures.append(error.message)

    def _drop(self, source: PhotoSource, error: StorageFailed) -> None:
        """Do not ask a source again."""
        self._note(error)
        self._sources.remove(source)
        self._unlisted.pop(source, None)

    def has(self, photo: Photo, key: Key | None) -> bool:
        return any(True for _source in self._sources_of(photo, key))

    def blocks(self, photo: Photo, key: Key | None) -> Iterator[bytes]:
        error: Exception = FileNotFoundError(photo.name)
        for source in self._sources_of(photo, key):
            try:
                yield from _whole(source.blocks(photo, key), photo)
                return
            except NOT_READ as failure:
                if isinstance(failure, DOWN):
                    self._drop(source, failure)
                elif isinstance(failure, StorageFailed):
                    self._note(failure)
                error = failure
        raise error

    def bring(self, photo: Photo, key: Key | None, folder: Path) -> None:
        first = None
        for source in self._sources_of(photo, key):
            if is_whole(source, photo, key):
                source.bring(photo, key, folder)
                return
            first = first or source
        if first is None:
            raise FileNotFoundError(photo.name)
        first.bring(photo, key, folder)  # whoever reads it finds what is wrong with it


def _whole(blocks: Iterator[bytes], photo: Photo) -> Iterator[bytes]:
    """Yield a photo that was read as a whole before. Raises `BadZipFile` if it is not whole."""
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as copy:
        _copy_whole(blocks, photo, cast(BinaryIO, copy))
        yield from iter(lambda: copy.read(BLOCK), b"")


def _copy_whole(blocks: Iterator[bytes], photo: Photo, copy: BinaryIO) -> None:
    """Copy a photo to a file, and go back to its beginning. Raises `BadZipFile` if it is not whole."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
        copy.write(block)
        if copy.tell() > photo.size:
            break
    if digest.hexdigest() != photo.sha256:
        raise BadZipFile(photo.name)
    copy.seek(0)


def made_whole(photo: Photo, key: Key | None) -> bool:
    """Tell whether the stored file of a photo in BACKUP_ROOT is undamaged; one that is not is stored anew, if another
    backup has the photo there in another form. Raises `StorageFailed`, `EncryptionUnavailable`."""
    here = Photos()
    with files.storage_errors():
        if is_whole(here, photo, key):
            return True
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as copy, suppress(*NOT_WHOLE):
            _copy_whole(AnyKey(here).blocks(photo, key), photo, cast(BinaryIO, copy))
            here.add(photo, cast(BinaryIO, copy), key)
            return True
    return False


def mend(archive: Archive) -> int:
    """Store the photos of a backup in BACKUP_ROOT anew that are missing or damaged there, and whole in a location.
    Returns how many. Raises `StorageFailed`."""
    here, anywhere, mended = Photos(), Anywhere(), 0
    for photo in archive.metadata.photos.values():
        if archive.holds(photo) or is_whole(AnyKey(here), photo, archive.key):
            continue
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as copy, suppress(*NOT_READ):
            _copy_whole(anywhere.blocks(photo, archive.key), photo, cast(BinaryIO, copy))
            here.add(photo, cast(BinaryIO, copy), archive.key)
            mended += 1
    return mended


def completed(file: BinaryIO, user: Any) -> BinaryIO:
    """Return a file that somebody gives, joined with its photos: those beside it, or else those that are stored here,
    since it may be a copy of a kept backup. `user`: who gives it; None is the command line. Only superusers get photos
    of other sites."""
    others = user is None or bool(user.is_superuser)
    return with_photos(file, Anywhere(others=others, beside=photos_beside(file)))


def source(place: str) -> PhotoSource:
    """Return the source of a kept backup's photos. `place`: the location that it is fetched from, or `local`; "" for
    any. Raises `NoSuchLocation`."""
    if not place:
        return Anywhere()
    return AnyKey(Photos(None if place == LOCAL else locations.location(place)))


def _is_young(name: str, age: dt.timedelta) -> bool:
    return abs(aware_now() - files.modified(name)) < age

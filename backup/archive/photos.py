"""Photos that lie beside the backup that names them, not in it: how a reader gets at them, and how they are encrypted.

A backup that the server keeps is the same ZIP without its photos; those lie once in the same place, however many
backups name them. `FileWithPhotos` is such a file together with where its photos are, so that whoever opens it sees a
whole backup.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, cast

from . import encryption
from .deflate import Stored
from .key import Key
from .members import Photo

#: Bytes that are read at a time.
BLOCK = 1024 * 1024
#: Bytes of a photo that are held in memory; a larger one waits in a temporary file.
IN_MEMORY = 8 * 1024 * 1024
#: The name of the one entry of an encrypted photo's ZIP. It tells nothing: the backup knows the photo's name.
_ENTRY = "photo"
#: Bytes that such a ZIP may have beside the photo.
_AROUND = 4096


class PhotoSource(Protocol):
    """Where photos lie. `key`: the one that the backup is encrypted with, and its photos too; None where in clear."""

    def has(self, photo: Photo, key: Key | None) -> bool:
        """Tell whether a photo is there, without reading it."""

    def blocks(self, photo: Photo, key: Key | None) -> Iterator[bytes]:
        """Yield what lies there for a photo, whether or not it is the right content. Raises `FileNotFoundError`,
        `StorageFailed`, and what a reader takes for damage: `ValueError`, `zipfile.BadZipFile`, `EOFError`."""

    def bring(self, photo: Photo, key: Key | None, folder: Path) -> None:
        """Have the file of a photo, as it lies there, be in a `PhotoFolder`: as a link where that can be, else as a
        copy. Raises `FileNotFoundError`, `StorageFailed`, `OSError`."""


class FileWithPhotos:
    """A backup file, open for reading, and where its photos are. All else is as with `file`."""

    def __init__(self, file: BinaryIO, photos: PhotoSource) -> None:
        self._file, self.photos = file, photos

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._file)

    def __enter__(self) -> FileWithPhotos:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def with_photos(file: BinaryIO, photos: PhotoSource | None) -> BinaryIO:
    """Return a backup file together with where its photos are, if anywhere but in it."""
    return file if photos is None else cast(BinaryIO, FileWithPhotos(file, photos))


def photos_beside(source: Any) -> PhotoSource | None:
    """Return where the photos of an open file are, if they are not in it."""
    return source.photos if isinstance(source, FileWithPhotos) else None


class PhotoFolder:
    """The photos of kept backups in a folder of this machine: see `stored_name`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, photo: Photo, key: Key | None) -> bool:
        return (self._folder / stored_name(photo.sha256, key)).is_file()

    def blocks(self, photo: Photo, key: Key | None) -> Iterator[bytes]:
        with (self._folder / stored_name(photo.sha256, key)).open("rb") as file:
            yield from read_stored(file, photo, key)

    def bring(self, photo: Photo, key: Key | None, folder: Path) -> None:
        name = stored_name(photo.sha256, key)
        link(self._folder / name, folder / name)


def link(file: Path, target: Path) -> None:
    """Have `target` be a link to a file; a copy where the system knows no links."""
    try:
        os.symlink(file.absolute(), target)
    except (NotImplementedError, OSError):
        shutil.copyfile(file, target)


def stored_name(sha256: str, key: Key | None) -> str:
    """Return the name of the file that holds a photo: its checksum, or, if it is encrypted, a digest that only who
    has the key can tell from the photo, and the id of the key."""
    if key is None:
        return sha256
    secret = hashlib.sha256(f"babybuddy-backup photo {key.text}".encode()).digest()
    return f"{hmac.new(secret, bytes.fromhex(sha256), 'sha256').hexdigest()}_{key.id}.zip"


def read_stored(file: BinaryIO, photo: Photo, key: Key | None) -> Iterator[bytes]:
    """Yield the photo of a file that `stored_name` names. Raises what `PhotoSource.blocks` does."""
    if key is not None:
        yield from read_encrypted(file, photo.size, key)
        return
    while block := file.read(BLOCK):
        yield block


def write_encrypted(target: BinaryIO, blocks: Iterable[bytes], key: Key) -> None:
    """Write a photo as an encrypted ZIP of its own, which the tools open that open an encrypted backup.

    Raises `EncryptionUnavailable`.
    """
    encryption.check_available()
    with zipfile.ZipFile(target, "w") as packed:
        packed.comment = f"A photo of a backup of Baby Buddy, encrypted.\nKey id: {key.id}\n".encode()
        info = encryption.entry(_ENTRY, zipfile.ZIP_STORED)
        with packed.open(info, "w", force_zip64=True) as member:
            encryption.encrypt(member, info, key, Stored())
            for block in blocks:
                member.write(block)
            encryption.end(member)


def read_encrypted(source: BinaryIO, size: int, key: Key) -> Iterator[bytes]:
    """Yield the photo of such a ZIP. `size`: what it should have, in bytes.

    Raises `EncryptionUnavailable`, and what `PhotoSource.blocks` does.
    """
    if source.seek(0, 2) > size + _AROUND:  # before anything of it is read
        raise ValueError("too long")
    with zipfile.ZipFile(source) as packed:
        infos = packed.infolist()
        if len(infos) != 1 or encryption.compression(infos[0]) is None:
            raise ValueError("no photo")
        with packed.open(encryption.raw(infos[0])) as file:
            content = encryption.Decryptor(file, infos[0], key)
            while block := content.read(BLOCK):
                yield block

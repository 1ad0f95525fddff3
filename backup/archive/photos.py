"""Photos that are stored beside a backup, not in it: how a reader gets at them, and how they are encrypted.

A kept backup is a ZIP without its photos. These are stored in the same place, each once, however many backups name it.
`FileWithPhotos` joins such a file with the source of its photos, so that whoever opens it sees a complete backup.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import shutil
import struct
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, cast

from . import deflate, encryption
from .key import Key
from .members import Photo

#: Bytes that are read at a time.
BLOCK = 1024 * 1024
#: Photos up to this size (bytes) are held in memory; larger ones in a temporary file.
IN_MEMORY = 8 * 1024 * 1024
#: The name of the only entry in the ZIP of an encrypted photo. It does not reveal the photo's name.
_ENTRY = "photo"
#: Bytes that such a ZIP may have in addition to the photo.
_AROUND = 4096
#: What reading a damaged ZIP may raise.
DAMAGE: tuple[type[Exception], ...] = (
    *deflate.ERRORS,
    zipfile.BadZipFile,
    EOFError,
    struct.error,
    NotImplementedError,
    RuntimeError,
    UnicodeError,
    ValueError,
    OverflowError,
)


class PhotoSource(Protocol):
    """A place that photos can be read from. `key`: the key that backup and photos are encrypted with; None if they are
    not.

    `failures`: what was said by places that could not be asked.
    """

    @property
    def failures(self) -> Sequence[str]: ...

    def has(self, photo: Photo, key: Key | None) -> bool:
        """Tell whether a photo is there, without reading it."""

    def blocks(self, photo: Photo, key: Key | None) -> Iterator[bytes]:
        """Yield the stored content of a photo, which is not checked.

        Raises `FileNotFoundError`, `StorageFailed`; or, if it is damaged, an error of `DAMAGE`.
        """

    def bring(self, photo: Photo, key: Key | None, folder: Path) -> None:
        """Put the stored file of a photo into a folder, for `PhotoFolder`: as a link if possible, else as a copy.

        Raises `FileNotFoundError`, `StorageFailed`, `OSError`.
        """


class FileWithPhotos:
    """A backup file open for reading, with the source of its photos. It behaves like `file` in every other way."""

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
    """Return a backup file joined with the source of its photos, if it has one."""
    return file if photos is None else cast(BinaryIO, FileWithPhotos(file, photos))


def photos_beside(source: Any) -> PhotoSource | None:
    """Return the source of an open file's photos; None if it has none."""
    return source.photos if isinstance(source, FileWithPhotos) else None


class PhotoFolder:
    """A `PhotoSource` for photos in a folder of this machine, named by `stored_name`."""

    failures: Sequence[str] = ()

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
    """Make `target` a hard link to a file, or a copy if that is not possible."""
    try:
        os.symlink(file.absolute(), target)
    except (NotImplementedError, OSError):
        shutil.copyfile(file, target)


def stored_name(sha256: str, key: Key | None) -> str:
    """Return the name of the file in which a photo is stored: its checksum; if it is encrypted, a digest that cannot be
    computed without the key, and the id of the key."""
    if key is None:
        return sha256
    secret = hashlib.sha256(f"babybuddy-backup photo {key.text}".encode()).digest()
    return f"{hmac.new(secret, bytes.fromhex(sha256), 'sha256').hexdigest()}_{key.id}.zip"


def may_hold(size: int, photo: Photo, key: Key | None) -> bool:
    """Tell whether a file of this size (bytes) may be that in which a photo is stored: one that was cut off is not."""
    return photo.size <= size <= photo.size + (_AROUND if key else 0)


def read_stored(file: BinaryIO, photo: Photo, key: Key | None) -> Iterator[bytes]:
    """Yield the photo in a file that `stored_name` names. Raises what `PhotoSource.blocks` does."""
    if key is not None:
        yield from read_encrypted(file, photo.size, key)
        return
    while block := file.read(BLOCK):
        yield block


def write_stored(target: BinaryIO, blocks: Iterable[bytes], key: Key | None) -> None:
    """Write a photo to the file that `stored_name` names. Raises `EncryptionUnavailable`."""
    if key is not None:
        write_encrypted(target, blocks, key)
        return
    for block in blocks:
        target.write(block)


def write_encrypted(target: BinaryIO, blocks: Iterable[bytes], key: Key) -> None:
    """Write a photo as an encrypted ZIP of its own, which the same tools open as encrypted backups.

    Raises `EncryptionUnavailable`.
    """
    encryption.check_available()
    with zipfile.ZipFile(target, "w") as packed:
        packed.comment = f"A photo of a backup of Baby Buddy, encrypted.\nKey id: {key.id}\n".encode()
        info = encryption.entry(_ENTRY, zipfile.ZIP_STORED)
        with packed.open(info, "w", force_zip64=True) as member:
            encryption.encrypt(member, info, key, deflate.Stored())
            for block in blocks:
                member.write(block)
            encryption.end(member)


def read_encrypted(source: BinaryIO, size: int, key: Key) -> Iterator[bytes]:
    """Yield the photo in a ZIP of `write_encrypted`. `size`: the expected size of the photo, in bytes.

    Raises `EncryptionUnavailable`, and what `PhotoSource.blocks` does.
    """
    if source.seek(0, 2) > size + _AROUND:  # checked before anything is read
        raise ValueError("too long")
    with zipfile.ZipFile(source) as packed:
        infos = packed.infolist()
        if len(infos) != 1 or encryption.compression(infos[0]) is None or infos[0].header_offset < 0:
            raise ValueError("no photo")
        with packed.open(encryption.raw(infos[0])) as file:
            content = encryption.Decryptor(file, infos[0], key)
            while block := content.read(BLOCK):
                yield block

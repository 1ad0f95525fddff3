"""Opens a backup by its path: a file, or a folder to which a backup was unpacked."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import BinaryIO

from . import foreign
from .limits import Limits
from .names import shown
from .photos import PhotoFolder, with_photos


def open_path(path: Path, limits: Limits) -> BinaryIO:
    """Open a backup file. A folder is opened as a temporary ZIP of its content, and what cannot be read twice, such as
    a pipe, as a temporary copy.

    If the path is that of a kept backup, in BACKUP_ROOT or in a location, it is opened with the photos beside it.

    Raises `OSError`; `InvalidBackup` or `TooLarge` if a folder contains links, or if there is more than the limits
    allow.
    """
    if not path.is_dir():
        beside = path.absolute().parent
        photos = beside.with_name("photos") if beside.name == "kept" else None
        file: BinaryIO = path.open("rb")
        file = file if file.seekable() else _copied(file, limits)
        return with_photos(file, PhotoFolder(photos) if photos and photos.is_dir() else None)
    packed = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    try:
        size = 0
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
            for place in sorted(path.rglob("*")):
                name = place.relative_to(path).as_posix()
                if place.is_symlink() or not (place.is_dir() or place.is_file()):
                    raise foreign.is_link(shown(name))
                if place.is_dir():
                    continue
                size += place.stat().st_size
                limits.check_size(size)
                limits.check_members(len(archive.filelist) + 1)
                with place.open("rb") as source, archive.open(name, "w", force_zip64=True) as target:
                    while block := source.read(1024 * 1024):
                        target.write(block)
        packed.seek(0)
    except BaseException:
        packed.close()
        raise
    return packed


def _copied(file: BinaryIO, limits: Limits) -> BinaryIO:
    """Return a temporary copy of a file, and close that."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    try:
        with file:
            while block := file.read(1024 * 1024):
                copy.write(block)
                limits.check_size(copy.tell())
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return copy

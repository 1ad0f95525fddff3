"""Makes one complete file of a backup whose photos are stored beside it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import BinaryIO

from ..exceptions import InvalidBackup
from .copying import copy_photo
from .metadata import Metadata
from .reader import Archive
from .writer import Writer


def write_whole(source: BinaryIO, archive: Archive, target: BinaryIO) -> Metadata:
    """Write a backup to `target` with its photos in it, like a download of that time. Returns its metadata.

    `source`: the file that is open as `archive`. Missing and damaged photos are left out, and named in the warnings.
    Memory does not grow with the size. Raises `StorageFailed`, `EncryptionUnavailable`.
    """
    source.seek(0)
    shutil.copyfileobj(source, target)
    metadata, warnings = archive.metadata, [*archive.metadata.warnings]
    with Writer(target, continued=metadata, key=archive.key) as writer:
        for photo in metadata.photos.values():
            try:
                copy_photo(archive, photo, writer)
            except InvalidBackup as error:
                warnings.append(error.message)
        return writer.finish(replace(metadata, warnings=warnings))

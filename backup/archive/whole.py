"""Makes one whole file of a backup whose photos lie beside it."""

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
    """Write a backup to `target` with its photos in it: what a download of that moment was. Returns what it says.

    `source`: the file that is open as `archive`. A photo that is missing, or damaged, is left out, and named in the
    warnings. In flat memory. Raises `StorageFailed`, `EncryptionUnavailable`.
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

"""Writes, verifies and reads the backup file, a ZIP of `metadata.json` and members; docs/format.md describes it.

Imports no Django model and no connection. Reading raises `InvalidBackup` or a subclass of it, with one sentence that
names the place of the fault.

    with Writer(target) as writer:
        writer.add("core.child", batches_of_lines)
        writer.finish(metadata)  # without its members

    with open_archive(source) as archive:
        archive.metadata.models["core.child"].records
        for batch in archive.records("core.child"): ...
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..conf import MAX_PHOTOS, MAX_UNCOMPRESSED_SIZE, if_right
from . import folder
from .copying import encrypt, read_through
from .growing import GrowingArchive, GrowingWriter
from .key import Key, Keys
from .limits import Limits
from .lines import Lines, lines_of, split_lines, text_of
from .members import MEDIA, README, RECORDS, Member, MemberKind, Photo, Records
from .metadata import VERSION, Metadata, Upgrade, parse_metadata
from .photos import PhotoSource, photos_beside, with_photos
from .reader import Archive
from .writer import Writer

__all__ = [
    "MEDIA",
    "README",
    "RECORDS",
    "VERSION",
    "Archive",
    "GrowingArchive",
    "GrowingWriter",
    "Key",
    "Keys",
    "Limits",
    "Lines",
    "Member",
    "MemberKind",
    "Metadata",
    "Photo",
    "PhotoSource",
    "Records",
    "Upgrade",
    "Writer",
    "encrypt",
    "lines_of",
    "open_archive",
    "open_growing",
    "open_path",
    "parse_metadata",
    "photos_beside",
    "read_through",
    "site_limits",
    "split_lines",
    "text_of",
    "with_photos",
]


def open_archive(
    source: BinaryIO, *, edited: bool = False, lenient: bool = False, keys: Keys | None = None
) -> Archive:
    """Open a backup within the limits of the settings, with the photos that lie beside it: see `Archive`."""
    return Archive(
        source, site_limits(), edited=edited, lenient=lenient, keys=keys, photos=photos_beside(source)
    )


def open_growing(file: BinaryIO, content: Any, messages: Iterator[dict[str, Any]]) -> GrowingArchive:
    """Open a backup that is still written, within the limits of the settings: see `GrowingArchive`."""
    return GrowingArchive(file, content, messages, site_limits())


def open_path(path: Path) -> BinaryIO:
    """Open a backup file, or the folder that one was unpacked to, within the limits of the settings."""
    return folder.open_path(path, site_limits())


def site_limits() -> Limits:
    """Return the limits of the settings. A wrong one keeps nobody from the backups that there are."""
    return Limits(
        uncompressed=if_right("max_uncompressed_size", MAX_UNCOMPRESSED_SIZE),
        photos=if_right("max_photos", MAX_PHOTOS),
    )

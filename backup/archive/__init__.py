"""The backup file: a ZIP of `metadata.json` and one JSON file a model. Written, verified, read; nothing is trusted.

Imports no Django model and no connection. What reading may raise is `InvalidBackup`
and its kin, with one sentence that names the place.

    with Writer(target) as writer:
        writer.add("core.child", "core/child.json", batches_of_lines)
        writer.finish(metadata_without_models)

    with open_archive(source) as archive:
        archive.metadata.models["core.child"].records
        for batch in archive.records("core.child"): ...
"""

from typing import BinaryIO

from ..conf import conf
from .lines import Lines, lines_of, text_of
from .metadata import VERSION, Member, Metadata, Upgrade, parse_metadata
from .reader import Archive, Limits
from .writer import Writer

__all__ = [
    "VERSION",
    "Archive",
    "Limits",
    "Lines",
    "Member",
    "Metadata",
    "Upgrade",
    "Writer",
    "lines_of",
    "open_archive",
    "parse_metadata",
    "text_of",
]


def open_archive(source: BinaryIO) -> Archive:
    """Open a backup within the limits of the settings: see `Archive`."""
    return Archive(source, Limits(uncompressed=conf.max_uncompressed_size))

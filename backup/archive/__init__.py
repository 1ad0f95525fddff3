"""The backup file: a ZIP of `metadata.json` and one JSON file a model. Written, verified, read; nothing is trusted.

Imports no Django model and no connection; all limits come in as arguments. What reading may raise is `InvalidBackup`
and its kin, with one sentence that names the place.

    with Writer(target) as writer:
        writer.add("core.child", "core/child.json", batches_of_lines)
        writer.finish(metadata_without_models)

    with Archive(source, limits) as archive:
        archive.metadata.models["core.child"].records
        for batch in archive.records("core.child"): ...
"""

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
    "parse_metadata",
    "text_of",
]

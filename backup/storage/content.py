"""What lists show about the content of a backup: read from the file, or noted if the file is in a location."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, BinaryIO

from ..exceptions import EncryptionUnavailable, InvalidBackup, KeyNeeded, LocationFailed, StorageFailed
from ..options import Place, Places
from . import files, keys
from .names import no_longer_there


@dataclass(frozen=True)
class Content:
    """The content of a backup.

    `size`: in bytes. `label`, `by`, `baby_buddy`: as in `kept.StoredBackup`. `counts`: model label -> number of
    records. `photos`, `photos_size`: the number of photos, and their bytes. `warnings`: about missing photos.
    `left_out`: the values that could not be read and are missing. `is_damaged`: the file cannot be read. `is_locked`:
    the key is not on this server, or cannot be read at the moment. `includes_photos`: it was to include photos, even if
    there were none.
    """

    size: int = 0
    label: str = ""
    by: str = ""
    baby_buddy: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    photos: int = 0
    photos_size: int = 0
    warnings: Sequence[str] = ()
    left_out: Places = field(default_factory=Places)
    is_damaged: bool = False
    is_locked: bool = False
    includes_photos: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> Content:
        """Return the content from what `as_json` returned. Raises `TypeError`, `KeyError` if it is something else."""
        left_out = Places(
            [Place(**place).without_secrets() for place in content["left_out"]["named"]],
            content["left_out"]["total"],
        )
        return cls(**{**content, "left_out": left_out})


def content_of(file: BinaryIO) -> Content:
    """Read the content from a file: from its table of contents and its metadata only.

    Raises `LocationFailed` if the file lies in a location that does not let it be read.
    """
    size = file.seek(0, 2)
    try:
        with keys.unlocked(file) as archive:
            metadata = archive.metadata
    except InvalidBackup:
        return Content(size, is_damaged=True)
    except LocationFailed:
        raise
    except (KeyNeeded, EncryptionUnavailable, StorageFailed):
        return Content(size, is_locked=True)
    return Content(
        size,
        metadata.label,
        metadata.created_by,
        metadata.babybuddy_version,
        {label: max(member.records, 0) for label, member in metadata.models.items()},
        len(metadata.photos),
        sum(photo.size for photo in metadata.photos.values()),
        metadata.warnings,
        metadata.left_out,
        includes_photos=metadata.includes_media,
    )


def content_here(path: str, site: str = "") -> Content:
    """Return the content of a kept backup in BACKUP_ROOT. `site`: see `files.path_of`.

    Raises `NoSuchBackup`, `StorageFailed`.
    """
    try:
        return _remembered(path, site, files.version_of(path, site))
    except _LockedError as error:
        return error.content


@lru_cache(maxsize=1000)
def _remembered(path: str, site: str, version: str) -> Content:
    """Return the content, from a cache of this process if possible: a kept file never changes.

    `version`: see `files.version_of`.
    """
    file = files.open_file(path, site)
    if file is None:
        raise no_longer_there()
    with file:
        content = content_of(file)
    if content.is_locked:
        raise _LockedError(content)
    return content


class _LockedError(Exception):
    """A backup cannot be opened now. An error, so that this is not cached: the key may be there tomorrow."""

    def __init__(self, content: Content) -> None:
        super().__init__(content)
        self.content = content

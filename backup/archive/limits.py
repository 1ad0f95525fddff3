"""The limits of backup files: the reader enforces them, so that a file cannot exhaust memory or disk, and the writer
keeps to them."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from django.utils.translation import gettext as _

from ..exceptions import InvalidBackup, TooLarge


@dataclass(frozen=True)
class Limits:
    """The limits. Sizes are in bytes."""

    #: All entries together, uncompressed. (A writer ignores it, since a setting can raise it.)
    uncompressed: int = sys.maxsize
    #: Uncompressed to compressed size. Real backups reach about 30; deflate cannot exceed 1032.
    ratio: int = 300
    #: The number of entries, without photos.
    members: int = 2000
    photos: int = 50_000
    #: One record, in the file and as text in memory (see `lines.weight`). The largest real ones contain a long note, or
    #: a binary field as base64.
    record: int = 64 * 1024 * 1024
    #: The number of values in one record: in memory, each takes up to a hundred times as much as in the file.
    values: int = 500_000
    #: `metadata.json`, without photos.
    metadata: int = 1024 * 1024
    #: One text of the metadata, in characters.
    text: int = 1000
    #: One name of an app, a model or a migration in the metadata, in characters.
    name: int = 255
    #: Names in one list of the metadata: no site has as many.
    names: int = 1000
    #: The number of warnings in the metadata.
    warnings: int = 200
    #: The ZIP's table of contents, without photos. It has to be read as a whole.
    directory: int = 1024 * 1024
    #: What each photo adds to the limits of `metadata` and of `directory`.
    photo: int = 576

    @property
    def directory_with_photos(self) -> int:
        """The largest table of contents that a ZIP may have."""
        return self.directory + self.photos * self.photo

    def check_members(self, count: int, photos: int | None = None) -> None:
        """Raise `TooLarge` if a ZIP has too many entries. `photos`: how many photos it lists; by default, as many as
        are allowed."""
        limit = self.members + (self.photos if photos is None else photos)
        if count > limit:
            raise TooLarge(
                _("The file has %(count)s members; a backup has at most %(limit)s.")
                % {"count": count, "limit": limit}
            )

    def check_photos(self, count: int) -> None:
        """Raise `TooLarge` if a backup has too many photos."""
        if count > self.photos:
            raise TooLarge(
                _("The backup has %(count)s photos; at most %(limit)s are read (BACKUP_MAX_PHOTOS).")
                % {"count": count, "limit": self.photos}
            )

    def check_metadata(self, size: int, photos: int | None = None) -> None:
        """Raise `InvalidBackup` if `metadata.json` is too long. `photos`: as in `check_members`."""
        if size > self.metadata + self.photo * (self.photos if photos is None else photos):
            raise metadata_too_long()

    def check_size(self, size: int) -> None:
        """Raise `TooLarge` if the entries of a ZIP together are too large, uncompressed."""
        if size > self.uncompressed:
            raise TooLarge(
                _(
                    "Unpacked, the file has %(size)s MB; at most %(limit)s MB are read (BACKUP_MAX_UNCOMPRESSED_SIZE)."
                )
                % {"size": megabytes(size), "limit": megabytes(self.uncompressed)}
            )


def metadata_too_long() -> InvalidBackup:
    """Return the error for a `metadata.json` that is too long."""
    return InvalidBackup(_("metadata.json is too long."))


def megabytes(size: int) -> str:
    return f"{size / 1024 / 1024:,.1f}"

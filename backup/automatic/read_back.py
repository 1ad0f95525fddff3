"""Reads back what was sent to a location: whether it is there, unchanged, and encrypted if it should be."""

from __future__ import annotations

import secrets
from typing import BinaryIO

from django.utils.translation import gettext as _

from ..exceptions import InvalidBackup, LocationFailed, NoSuchBackup
from ..storage import kept, locations
from ..storage.names import Name

#: Bytes at a random place of a file that are compared with what was sent.
SAMPLE = 64 * 1024


def read_back(location: locations.Location, name: Name, sent: BinaryIO) -> None:
    """Read a copy of a backup back in part, and check that it is what was sent.

    Raises `LocationFailed` if it is not, `CannotRead` if the location lets nobody read.
    """
    try:
        is_same = is_sample_same(location, name.path, sent)
        if is_same:
            with locations.open_parts(location, name.path) as file:
                check(file, name)
    except (InvalidBackup, NoSuchBackup):
        is_same = False
    if not is_same:
        raise not_what_was_sent(location)


def is_sample_same(location: locations.Location, path: str, sent: BinaryIO) -> bool:
    """Tell whether a file in a location has the size of what was sent, and the same bytes at a random place.

    Raises `NoSuchBackup`, `LocationFailed`, `CannotRead`.
    """
    size = sent.seek(0, 2)
    start = secrets.randbelow(max(size - SAMPLE, 0) + 1)
    sent.seek(start)
    return location.size(path) == size and location.read_part(path, start, SAMPLE) == sent.read(SAMPLE)


def not_what_was_sent(location: locations.Location) -> LocationFailed:
    """Return the error for a file that is not what was sent."""
    return LocationFailed(
        _("What was read back from “%(name)s” is not what was sent there.") % {"name": location.name}
    )


def check(file: BinaryIO, name: Name) -> None:
    """Raise `InvalidBackup` if a file is not the backup that its name says: of another state, or with another key.

    Its records are not read; the proof does that. Errors from reading the file are passed on.
    """
    if not kept.is_what_its_name_says(file, name):
        raise kept.another_backup()

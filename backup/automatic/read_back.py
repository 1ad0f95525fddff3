"""Reading back what was sent to a location: whether it is there, the same, and encrypted where it should be."""

from __future__ import annotations

import secrets
from typing import BinaryIO

from django.utils.translation import gettext as _

from ..exceptions import InvalidBackup, KeyNeeded, LocationFailed, NoSuchBackup
from ..storage import kept, keys, locations
from ..storage.names import Name

#: Bytes from somewhere in a file that are compared with what was sent.
SAMPLE = 64 * 1024


def read_back(location: locations.Location, name: Name, sent: BinaryIO) -> None:
    """Read a file back in part, and compare. What was sent encrypted must be so there.

    Raises `LocationFailed`, `CannotRead`.
    """
    size = sent.seek(0, 2)
    start = secrets.randbelow(max(size - SAMPLE, 0) + 1)
    sent.seek(start)
    try:
        is_same = location.size(name.path) == size
        is_same = is_same and location.read_part(name.path, start, SAMPLE) == sent.read(SAMPLE)
        if is_same:
            with locations.open_parts(location, name.path) as file:
                check(file, name)
    except (InvalidBackup, NoSuchBackup):
        is_same = False
    if not is_same:
        raise LocationFailed(
            _("What was read back from “%(name)s” is not what was sent there.") % {"name": location.name}
        )


def check(file: BinaryIO, name: Name) -> None:
    """Raise `InvalidBackup` if a file is not the backup that its name says: its state, and its key.

    Its records are not read; the proof does that. Raises what reading the file raises.
    """
    try:
        with keys.unlocked(file) as archive:
            key_id, state = archive.metadata.key_id, kept.state_of(archive.metadata)
    except KeyNeeded as error:  # it is encrypted with an old key, which this server has not
        key_id, state = error.key_id, name.state
    if (key_id, state) != (name.key_id, name.state):
        raise InvalidBackup(_("The file is another backup than its name says."))

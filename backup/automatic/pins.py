"""Stores with the copies in a location which of them are pinned, so that no rule removes these after the loss of
BACKUP_ROOT, where that is noted.

Beside a copy that is pinned lies a small JSON file, as beside the backup in BACKUP_ROOT. Where BACKUP_ROOT says whether
a backup is pinned, that is right. Where it says nothing, since it was lost, the file is.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterable
from contextlib import suppress

from ..exceptions import CannotDelete
from ..storage.files import KEPT
from ..storage.locations import Location
from ..storage.names import parsed

_SUFFIX = ".json"


class Pins:
    """What a location says of pinned copies. `names`: of the files there."""

    def __init__(self, location: Location, names: Iterable[str]) -> None:
        self._location = location
        texts = (f"{name.removesuffix(_SUFFIX)}.zip" for name in names if name.endswith(_SUFFIX))
        #: The identities of the backups that are pinned by a file there.
        self.found = {name.identity for name in parsed(texts)}

    def update(self, pinned: Collection[str], there: Collection[str], unread: Collection[str]) -> None:
        """Write the files of copies that are pinned, and delete those of others.

        `pinned`: the identities of pinned backups. `there`: those of all that have a copy there. `unread`: those of
        which nothing is known yet but that there is a copy, so that their files stay. Raises `LocationFailed`.
        """
        wanted = {*there} & {*pinned}
        for identity in sorted(wanted - self.found):
            self._location.send(_path(identity), io.BytesIO(json.dumps({"pinned": True}).encode()))
        with suppress(CannotDelete):  # then no rule can delete the copy either
            for identity in sorted(self.found - wanted - {*unread}):
                self._location.delete(_path(identity))


def _path(identity: str) -> str:
    return f"{KEPT}/{identity}{_SUFFIX}"

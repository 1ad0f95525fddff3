"""Stores with the copies in a location what must not be lost with BACKUP_ROOT, where it is noted: which of them are
pinned, so that no rule removes these, and which show losses that nobody has accepted, so that they push out no others.

Beside such a copy lies a small JSON file, as beside the backup in BACKUP_ROOT: `{"pinned": false, "shrunk": […]}`, see
`guard.noted`. Where BACKUP_ROOT says something, that is right. Where it says nothing, since it was lost, the file is.
Earlier versions only noted `{"pinned": true}`. A file that does not say whether the backup is pinned is not ours, such
as one that came with a copy of BACKUP_ROOT: it says nothing, and stays as it is.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

from ..exceptions import CannotDelete, CannotRead, Denied, NoSuchBackup
from ..storage.files import KEPT, parse_json
from ..storage.locations import Location
from ..storage.names import parsed
from . import guard

_SUFFIX = ".json"
#: Bytes that are read of a file, which has a few hundred.
LONGEST = 1024 * 1024
#: What a file says that cannot be read, or that says something else.
_UNKNOWN: Mapping[str, Any] = {"pinned": True}


class CopyNotes:
    """What a location says of copies. `names`: of all files there. Raises `LocationFailed`."""

    def __init__(self, location: Location, names: Iterable[str]) -> None:
        self._location = location
        texts = (f"{name.removesuffix(_SUFFIX)}.zip" for name in names if name.endswith(_SUFFIX))
        #: The identities of the backups whose file lets nobody read it.
        self._unreadable: set[str] = set()
        found = {name.identity: self._read(name.identity) for name in parsed(texts)}
        self._found = {identity: note for identity, note in found.items() if "pinned" in note}
        #: The identities of the backups whose file is another one, as BACKUP_ROOT has them. It stays as it is.
        self._others = found.keys() - self._found.keys()

    def _read(self, identity: str) -> Mapping[str, Any]:
        content: Any = None
        try:
            with self._location.fetch(_path(identity)) as file:
                content = parse_json(file.read(LONGEST))
        except CannotRead:
            self._unreadable.add(identity)
        except (NoSuchBackup, ValueError):
            pass
        return content if isinstance(content, dict) else _UNKNOWN

    def unknown_here(self, identity: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the location says of a backup, and the facts in BACKUP_ROOT say nothing of, as facts."""
        there = self._found.get(identity, {})
        said: dict[str, Any] = {}
        if "pinned" not in facts and there.get("pinned", False) is not False:
            said["pinned"] = True
        if guard.SHRUNK not in facts:
            said |= guard.as_facts(guard.open_losses(there))
        return said

    def update(self, facts: Mapping[str, Mapping[str, Any]], unread: Collection[str]) -> list[str]:
        """Write the files of copies that are pinned or show losses, and delete those of others.

        `facts`: identity -> the facts about the backup, of all that have a copy there. `unread`: the identities of
        those of which nothing is known yet but that there is a copy, so that their files stay. Returns the names of
        files that cannot be replaced. Raises `LocationFailed`.
        """
        wanted = {identity: note for identity in sorted(facts) if (note := _note_of(facts[identity]))}
        denied = []
        for identity, note in wanted.items():
            if self._found.get(identity) == note or identity in self._unreadable:
                continue
            if identity in self._others:
                denied.append(f"{identity}{_SUFFIX}")
                continue
            try:
                self._location.send(_path(identity), io.BytesIO(json.dumps(note).encode()))
            except Denied:
                if identity not in self._found:
                    raise
                denied.append(f"{identity}{_SUFFIX}")
        with suppress(CannotDelete):  # then no rule can delete the copy either
            for identity in sorted(self._found.keys() - wanted.keys() - {*unread}):
                self._location.delete(_path(identity))
        return denied


def _note_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to note of a backup; {} if there is nothing to note."""
    pinned, losses = facts.get("pinned") is True, guard.open_losses(facts)
    if not (pinned or losses):
        return {}
    return {"pinned": pinned, **guard.as_facts(losses)}


def _path(identity: str) -> str:
    return f"{KEPT}/{identity}{_SUFFIX}"

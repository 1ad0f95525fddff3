"""Backups that the server keeps by itself. The files are the state: no index beside them can be out of step."""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from django.core.files import File
from django.utils.translation import gettext as _

from ..archive import Metadata, open_archive
from ..conf import conf
from ..exceptions import BackupError, InvalidBackup, NoSafetyCopy
from . import files
from .files import SAFETY
from .state import load_last_restore

#: Of a moment, which sorts as text, and a state.
_NAME = re.compile(r"before_(\d{8}T\d{6}\.\d{6})Z_[0-9A-F]{16}\.zip", re.ASCII)
#: What is younger is not pruned, however many there are.
YOUNG = dt.timedelta(days=1)


class BackupKind(enum.Enum):
    """Why the server keeps a backup."""

    #: Taken just before a restore or an undo, so that it can be undone.
    SAFETY = "safety"


@dataclass(frozen=True)
class StoredBackup:
    """A backup that the server keeps.

    `created`: aware. `size`: in bytes. `label`: why it was made. `by`: the name of the user who made it, "" for the
    command line. Of a damaged file both are "".
    """

    name: str
    kind: BackupKind
    created: dt.datetime
    size: int
    label: str
    by: str
    is_damaged: bool
    #: Whether undoing the last restore brings this one back.
    is_undo: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind.value,
            "created": self.created.isoformat(),
            "size": self.size,
            "label": self.label,
            "by": self.by,
        }


def add(file: BinaryIO, metadata: Metadata) -> tuple[str, bool]:
    """Keep a safety copy. Returns its name, and whether it is a new one: there is one copy of one state.

    What is kept is read back and checked. Raises `StorageFailed`, `InvalidBackup`.
    """
    state = _state(metadata)
    for name in _names():
        with suppress(InvalidBackup, NoSafetyCopy):  # a damaged one is none
            if name.endswith(f"_{state}.zip"):
                _check(name)
                return name, False
    name = f"before_{dt.datetime.now(dt.timezone.utc):%Y%m%dT%H%M%S.%fZ}_{state}.zip"
    files.put(_path(name), File(file))
    try:
        _check(name)
    except BaseException:
        with suppress(BackupError):
            delete(name)
        raise
    return name, True


def _state(metadata: Metadata) -> str:
    """Return a digest that is another one for another state of the database."""
    checksums = {label: member.sha256 for label, member in metadata.models.items()}
    text = json.dumps([checksums, metadata.migrations], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16].upper()


def _check(name: str) -> None:
    """Raise `InvalidBackup` where the checksums are not right. Where they are, our own file need not be parsed."""
    with open_backup(name) as file, open_archive(file) as archive:
        for label in archive.metadata.models:
            for _lines in archive.lines(label):
                pass


def backups() -> list[StoredBackup]:
    """List all that are kept, newest first. Reads the metadata of each, no more. Raises `StorageFailed`.

    Those that are dated in the future, since a clock was wrong once, come last.
    """
    found = []
    for name in _names():
        with suppress(NoSafetyCopy):  # deleted since
            found.append(find(name))
    return found


def find(name: str) -> StoredBackup:
    """Return the backup of this name. Raises `NoSafetyCopy`, `StorageFailed`."""
    last = load_last_restore()
    with open_backup(name) as file:
        size = file.seek(0, 2)
        try:
            with open_archive(file) as archive:
                label, by, is_damaged = archive.metadata.label, archive.metadata.created_by, False
        except InvalidBackup:
            label, by, is_damaged = "", "", True
    is_undo = last is not None and not last.is_undo and name == last.safety_copy
    return StoredBackup(name, BackupKind.SAFETY, _created(name), size, label, by, is_damaged, is_undo)


def open_backup(name: str) -> BinaryIO:
    """Open for reading; the caller closes it. Raises `NoSafetyCopy`, `StorageFailed`."""
    file = files.open_file(_path(name))
    if file is None:
        raise _no_longer_there()
    return file


def delete(name: str) -> None:
    """Raises `NoSafetyCopy`, `StorageFailed`."""
    if name not in _names():
        raise _no_longer_there()
    files.delete(_path(name))


def prune(keep: str) -> None:
    """Delete old safety copies. Raises `StorageFailed`.

    There stay the newest `BACKUP_SAFETY_COPIES`, those that are younger than a day, those that are dated in the future,
    and `keep`, the one that the last restore needs.
    """
    now = dt.datetime.now(dt.timezone.utc)
    past = [name for name in _names() if _created(name) <= now]
    for name in past[conf.safety_copies :]:
        if now - _created(name) > YOUNG and name != keep:
            with suppress(NoSafetyCopy):  # deleted since
                delete(name)


def _names() -> list[str]:
    """Return the names of all, newest first, those of the future last."""
    now = dt.datetime.now(dt.timezone.utc)
    moments = {}
    for path in files.names_in(SAFETY):
        name = path.rpartition("/")[2]
        with suppress(NoSafetyCopy):  # another file
            moments[name] = _created(name)
    return sorted(moments, key=lambda name: (moments[name] <= now, name), reverse=True)


def _path(name: str) -> str:
    _created(name)  # it may come out of a request
    return f"{SAFETY}/{name}"


def _created(name: str) -> dt.datetime:
    """Return the moment in a name. Raises `NoSafetyCopy` where it is not the name of a safety copy."""
    try:
        if match := _NAME.fullmatch(name):
            return dt.datetime.strptime(match[1], "%Y%m%dT%H%M%S.%f").replace(tzinfo=dt.timezone.utc)
    except ValueError:  # the 13th month
        pass
    raise _no_longer_there()


def _no_longer_there() -> NoSafetyCopy:
    return NoSafetyCopy(_("This safety copy is no longer there."))

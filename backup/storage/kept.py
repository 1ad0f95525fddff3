"""Backups that the server keeps by itself. The files are the state: no index beside them can be out of step."""

from __future__ import annotations

import datetime as dt
import enum
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from django.core.files import File
from django.utils.translation import gettext as _

from ..archive import open_archive
from ..conf import conf
from ..exceptions import InvalidBackup, NoSafetyCopy
from .files import SAFETY, disk_errors, names_in, put, storage
from .state import load_last_restore


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


def add(file: BinaryIO) -> str:
    """Keep a safety copy and return its name. Raises `StorageFailed`."""
    name = f"before_{dt.datetime.now(dt.timezone.utc):%Y%m%dT%H%M%S.%fZ}.zip"
    put(_path(name), File(file))
    return name


def backups() -> list[StoredBackup]:
    """List all that are kept, newest first. Reads the metadata of each, no more. Raises `StorageFailed`."""
    last = load_last_restore()
    found: list[StoredBackup] = []
    for name in _names():
        is_undo = not last.is_undo and name == last.safety_copy if last else not found
        with suppress(NoSafetyCopy):  # deleted since
            found.append(_read(name, is_undo))
    return found


def find(name: str | None = None) -> str:
    """Return this name where there is such a backup; without a name, that of the newest. Raises `NoSafetyCopy`."""
    names = _names()
    if name is None:
        if not names:
            raise NoSafetyCopy(_("There is no restore to undo: no safety copy is kept on this server."))
        return names[0]
    if name not in names:
        raise _no_longer_there()
    return name


def open_backup(name: str) -> BinaryIO:
    """Open for reading; the caller closes it. Raises `NoSafetyCopy`, `StorageFailed`."""
    with disk_errors():
        try:
            return storage().open(_path(name))  # type: ignore[return-value]
        except FileNotFoundError as error:
            raise _no_longer_there() from error


def delete(name: str) -> None:
    """Raises `NoSafetyCopy`, `StorageFailed`."""
    with disk_errors():
        storage().delete(_path(find(name)))


def prune() -> None:
    """Delete all safety copies but the newest `BACKUP_SAFETY_COPIES`. Raises `StorageFailed`."""
    for name in _names()[conf.safety_copies :]:
        with suppress(NoSafetyCopy):  # deleted since
            delete(name)


def _names() -> list[str]:
    """Newest first: the moment in a name sorts as text."""
    names = (path.rpartition("/")[2] for path in names_in(SAFETY))
    return sorted(filter(_created, names), reverse=True)


def _path(name: str) -> str:
    if _created(name) is None:  # a name out of a request
        raise _no_longer_there()
    return f"{SAFETY}/{name}"


def _created(name: str) -> dt.datetime | None:
    """The moment in a name; None where it is not the name of a kept backup."""
    match = re.fullmatch(r"before_(\d{8}T\d{6}\.\d{6})Z\.zip", name, re.ASCII)
    try:
        return match and dt.datetime.strptime(match[1], "%Y%m%dT%H%M%S.%f").replace(tzinfo=dt.timezone.utc)
    except ValueError:  # the 13th month
        return None


def _read(name: str, is_undo: bool) -> StoredBackup:
    created = _created(name)
    assert created is not None
    with open_backup(name) as file:
        with disk_errors():
            size = file.seek(0, 2)
        try:
            with open_archive(file) as archive:
                label, by, is_damaged = archive.metadata.label, archive.metadata.created_by, False
        except InvalidBackup:
            label, by, is_damaged = "", "", True
    return StoredBackup(name, BackupKind.SAFETY, created, size, label, by, is_damaged, is_undo)


def _no_longer_there() -> NoSafetyCopy:
    return NoSafetyCopy(_("This safety copy is no longer there."))

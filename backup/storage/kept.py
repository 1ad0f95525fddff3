"""Backups that the server keeps: the safety copies."""

from __future__ import annotations

import datetime as dt
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from django.core.files import File
from django.utils.translation import gettext as _

from ..conf import conf
from ..exceptions import NoSafetyCopy
from .files import SAFETY, disk_errors, names_in, put, storage, sweep_parts


@dataclass(frozen=True)
class SafetyCopy:
    """`size` in bytes; `created` aware."""

    name: str
    created: dt.datetime
    size: int


# -- safety copies ---


def keep_safety_copy(file: BinaryIO) -> str:
    """Keep a backup of the present state; returns its name. Called by one restore at a time. Raises `StorageFailed`."""
    sweep_parts(f"{SAFETY}/")
    name = f"before_{dt.datetime.now(dt.timezone.utc):%Y%m%dT%H%M%S.%fZ}.zip"
    with disk_errors():
        put(f"{SAFETY}/{name}", File(file))
    return name


def forget_safety_copy(name: str) -> None:
    """Raises `NoSafetyCopy`, `StorageFailed`."""
    find_safety_copy(name)
    with disk_errors():
        storage().delete(f"{SAFETY}/{name}")


def prune_safety_copies() -> None:
    """Remove all but the newest `BACKUP_SAFETY_COPIES`."""
    for copy in safety_copies()[conf.safety_copies :]:
        forget_safety_copy(copy.name)


def safety_copies() -> list[SafetyCopy]:
    """Those that there are, newest first."""
    found = []
    for path in names_in(SAFETY):
        name = path.rpartition("/")[2]
        if match := re.fullmatch(r"before_(\d{8}T\d{6}\.\d{6})Z\.zip", name):
            created = dt.datetime.strptime(match[1], "%Y%m%dT%H%M%S.%f").replace(tzinfo=dt.timezone.utc)
            with disk_errors(), suppress(FileNotFoundError):  # gone since
                found.append(SafetyCopy(name, created, storage().size(path)))
    return sorted(found, key=lambda copy: copy.created, reverse=True)


def find_safety_copy(name: str | None = None) -> SafetyCopy:
    """The safety copy of this name, the newest without one. Raises `NoSafetyCopy`."""
    for copy in safety_copies():
        if name in (None, copy.name):
            return copy
    if name is None:
        raise NoSafetyCopy(_("There is no restore to undo: no safety copy is kept on this server."))
    raise NoSafetyCopy(_("This safety copy is no longer there."))


def open_safety_copy(name: str | None = None) -> BinaryIO:
    """A safety copy by its name, the newest without one; whoever asks closes it. Raises `NoSafetyCopy`."""
    path = f"{SAFETY}/{find_safety_copy(name).name}"
    with disk_errors():
        return storage().open(path)  # type: ignore[return-value]

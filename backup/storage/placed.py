"""Notes which files restores put among the host's own, so that those that nothing names in the end can be removed: see
`leftovers`.

A file is noted before it is put there, so that not even a restore that is killed leaves unknown files behind.
"""

from __future__ import annotations

import datetime as dt
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from ..conf import aware_now
from ..options import PlacedFile
from . import files
from .files import PLACED

_NAME = re.compile(rf"{PLACED}/(?P<moment>\d{{8}}T\d{{6}}\.\d{{6}})Z_[0-9a-f]+\.json", re.ASCII)
_MOMENT = "%Y%m%dT%H%M%S.%f"


def note(placed: Sequence[PlacedFile]) -> str:
    """Note files. Returns a name for `read` and `forget`. Raises `StorageFailed`."""
    moment = aware_now().astimezone(dt.timezone.utc).strftime(_MOMENT)
    name = f"{PLACED}/{moment}Z_{secrets.token_hex(4)}.json"
    files.put_json(name, {"files": [asdict(file) for file in placed]})
    return name


def noted(age: dt.timedelta) -> list[str]:
    """Return the names of the notes that are older than `age`. Raises `StorageFailed`."""
    return [name for name in files.names_in(PLACED) if _is_older(name, age)]


def _is_older(name: str, age: dt.timedelta) -> bool:
    if (match := _NAME.fullmatch(name)) is None:
        return False
    moment = dt.datetime.strptime(match["moment"], _MOMENT).replace(tzinfo=dt.timezone.utc)
    return abs(aware_now() - moment) > age  # also far in the future, if a clock was wrong


def read(name: str) -> list[PlacedFile]:
    """Return the noted files; [] if the note cannot be read."""
    entries = files.get_json(name).get("files", [])
    try:
        return [PlacedFile(**entry) for entry in entries]
    except TypeError:
        return []


def forget(names: Iterable[str]) -> None:
    """Delete notes. Raises `StorageFailed`."""
    for name in names:
        files.delete(name)

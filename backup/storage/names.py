"""The names of kept backups: when a backup was made, why, by which site, and of which state of the database."""

from __future__ import annotations

import datetime as dt
import enum
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from django.utils.translation import gettext as _

from ..conf import in_every_zone
from ..exceptions import NoSuchBackup
from .files import KEPT, SAFETY

_NAME = re.compile(
    r"babybuddy_(?P<moment>\d{8}T\d{6}\.\d{6})Z_(?P<kind>[a-z]+)_(?P<site>[0-9a-f]{12})_(?P<state>[0-9A-F]{16})"
    r"(?:_(?P<key_id>[A-Z]{4}))?\.zip",
    re.ASCII,
)
#: The name of a safety copy of version 0.1.
_OLD_NAME = re.compile(r"before_(?P<moment>\d{8}T\d{6}\.\d{6})Z_(?P<state>[0-9A-F]{16})\.zip", re.ASCII)


class BackupKind(enum.Enum):
    """Why the server keeps a backup."""

    #: Taken just before a restore or an undo, so that it can be undone.
    SAFETY = "safety"
    #: Made by the schedule.
    AUTOMATIC = "automatic"
    #: Made because a person, or a script, asked for it.
    MANUAL = "manual"


@dataclass(frozen=True)
class Name:
    """The parts of the name of a kept backup. `created`: aware. `site`: the id of the site that made it; "" if unknown.
    `state`: see `kept.state_of`. `key_id`: of the key that it is encrypted with; "" if it is not."""

    text: str
    kind: BackupKind
    created: dt.datetime
    site: str
    state: str
    key_id: str = ""

    @property
    def path(self) -> str:
        """The name of the file, relative to the folder of the site."""
        return f"{SAFETY if self.text.startswith('before_') else KEPT}/{self.text}"

    @property
    def identity(self) -> str:
        """The part of the name that all copies of a backup share, encrypted or not."""
        return self.text.removesuffix(f"_{self.key_id}.zip" if self.key_id else ".zip")

    @property
    def facts(self) -> str:
        """The name of the file of facts beside it, see `facts`."""
        return f"{self.path.rpartition('/')[0]}/{self.identity}.json"


def parse(name: str) -> Name:
    """Return the parts of a name. Raises `NoSuchBackup` if it is not the name of a kept backup: it may be from a
    request."""
    try:
        match = _NAME.fullmatch(name) or _OLD_NAME.fullmatch(name)
        if match:
            parts = {"kind": "safety", "site": "", **match.groupdict()}
            created = in_every_zone(
                dt.datetime.strptime(parts["moment"], "%Y%m%dT%H%M%S.%f").replace(tzinfo=dt.timezone.utc)
            )
            kind = BackupKind(parts["kind"])
            return Name(name, kind, created, parts["site"], parts["state"], parts.get("key_id") or "")
    except ValueError:  # an unknown kind, or no date, such as a 13th month or the last day that there is
        pass
    raise no_longer_there()


def parsed(texts: Iterable[str]) -> list[Name]:
    """Return the parts of all names that are names of kept backups. Other names are passed over."""
    names = []
    for text in texts:
        with suppress(NoSuchBackup):
            names.append(parse(text))
    return names


def no_longer_there() -> NoSuchBackup:
    return NoSuchBackup(_("This backup is no longer there."))

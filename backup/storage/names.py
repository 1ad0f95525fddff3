"""What the name of a kept backup says: when it was made, why, by which site, and what is in it."""

from __future__ import annotations

import datetime as dt
import enum
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from django.utils.translation import gettext as _

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
    #: Made because a person, or a script, said so.
    MANUAL = "manual"


@dataclass(frozen=True)
class Name:
    """What the name of a kept backup says. `created`: aware. `site`: the id of the site that made it; "" if the name
    does not say it. `state`: see `state_of`. `key_id`: of the key that it is encrypted with; "" if it is not."""

    text: str
    kind: BackupKind
    created: dt.datetime
    site: str
    state: str
    key_id: str = ""

    @property
    def path(self) -> str:
        """The file, from the folder of the site."""
        return f"{SAFETY if self.text.startswith('before_') else KEPT}/{self.text}"

    @property
    def identity(self) -> str:
        """What all copies of the same backup share, encrypted or not."""
        return self.text.removesuffix(f"_{self.key_id}.zip" if self.key_id else ".zip")

    @property
    def facts(self) -> str:
        """The file beside it, for what is not in it."""
        return f"{self.path.rpartition('/')[0]}/{self.identity}.json"


def parse(name: str) -> Name:
    """Return what a name says. Raises `NoSuchBackup` if it is not the name of a kept backup: it may come out of a
    request."""
    try:
        found = _NAME.fullmatch(name) or _OLD_NAME.fullmatch(name)
        if found:
            parts = {"kind": "safety", "site": "", **found.groupdict()}
            created = dt.datetime.strptime(parts["moment"], "%Y%m%dT%H%M%S.%f").replace(
                tzinfo=dt.timezone.utc
            )
            kind = BackupKind(parts["kind"])
            return Name(name, kind, created, parts["site"], parts["state"], parts.get("key_id") or "")
    except ValueError:  # the 13th month, or another kind
        pass
    raise no_longer_there()


def parsed(texts: Iterable[str]) -> list[Name]:
    """Return what those of these names say that are names of kept backups; other files are passed over."""
    found = []
    for text in texts:
        with suppress(NoSuchBackup):
            found.append(parse(text))
    return found


def no_longer_there() -> NoSuchBackup:
    return NoSuchBackup(_("This backup is no longer there."))

"""What is known of the locations: how each is, and what was seen to lie there, in `last/locations.json`.

The files in a location are the state. This is what somebody saw when they last asked, so that a list, the page and the
status wait for no server, and are there when one is down. Whoever asks a location anew (`automatic.copies`, a deletion)
notes what they saw.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from django.utils.crypto import salted_hmac

from ..conf import aware_now, conf
from . import files
from .content import Content

NEVER = dt.datetime.min.replace(tzinfo=dt.timezone.utc)
_FILE = f"{files.LAST}/locations.json"


class State(enum.Enum):
    #: What was to go there lies there, and was read back.
    OK = "ok"
    #: It does not.
    FAILED = "failed"
    #: It cannot be told: nothing went there yet, or the place lets nobody look.
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Seen:
    """How a location is. `at`: when that was found out, aware; None if nobody asked yet. `message`: for people.

    `tries`: how often in a row it failed. `next_try`: when it is asked again, aware; None with the next backup.
    `is_lasting`: whether it failed although it was tried again and again. `copies`: the names of the kept backups
    there -> what they hold. `limits`: what it lets nobody do: code of the error -> sentence. `address`: a digest of its
    address, which tells when it is another place.
    """

    name: str
    state: State = State.UNKNOWN
    at: dt.datetime | None = None
    message: str = ""
    tries: int = 0
    next_try: dt.datetime | None = None
    is_lasting: bool = False
    copies: Mapping[str, Content] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    address: str = ""

    @property
    def due(self) -> dt.datetime | None:
        """When it is to be asked by itself, aware: at once if it never was. None: with the next backup."""
        return NEVER if self.at is None else self.next_try

    def is_due(self, now: dt.datetime) -> bool:
        return self.due is not None and self.due <= now

    def as_json(self) -> dict[str, Any]:
        """Return what the status says of it."""
        return {
            "name": self.name,
            "state": self.state.value,
            "at": self.at and self.at.isoformat(),
            "message": self.message,
        }


def seen() -> dict[str, Seen]:
    """Return what is known of each location of BACKUP_LOCATIONS, in order. Raises `ImproperlyConfigured`."""
    if not conf.locations:
        return {}
    content = files.get_json(_FILE)
    return {
        name: _parse(name, _digest(address), content.get(name)) for name, address in conf.locations.items()
    }


def change(name: str, changed: Callable[[Seen], Seen]) -> None:
    """Remember how a location is: what `changed` makes of what is known by then, since others may have noted something
    meanwhile. Locations that the settings name no more are forgotten. Raises `StorageFailed`."""
    if name not in conf.locations:
        return
    with files.noting():
        known = seen()
        known[name] = replace(changed(known[name]), address=_digest(conf.locations[name]))
        files.put_json(_FILE, {name: _as_json(found) for name, found in known.items()})


def ask_again() -> None:
    """Have all locations be asked with the next look: there is something new to copy. Raises `StorageFailed`."""
    now = aware_now()
    for name in seen():
        change(name, lambda found: replace(found, next_try=now, tries=0))


def forget(location: str, copy: str) -> None:
    """Note that a copy is not there any more. Raises `StorageFailed`."""

    def without(found: Seen) -> Seen:
        return replace(
            found, copies={name: content for name, content in found.copies.items() if name != copy}
        )

    change(location, without)


def fingerprint() -> str:
    """Return a text that is another one for other locations. Raises `ImproperlyConfigured`."""
    return " ".join(f"{name}={_digest(address)}" for name, address in conf.locations.items())


def _digest(address: str) -> str:
    """Return a text that is another one for another address, and tells nobody a password in it."""
    return salted_hmac("backup.locations", address).hexdigest()[:16]


def _as_json(found: Seen) -> dict[str, Any]:
    return {
        **found.as_json(),
        "tries": found.tries,
        "next_try": found.next_try and found.next_try.isoformat(),
        "is_lasting": found.is_lasting,
        "copies": {name: content.as_json() for name, content in found.copies.items()},
        "limits": dict(found.limits),
        "address": found.address,
    }


def _parse(name: str, address: str, content: Any) -> Seen:
    """Return what `_as_json` made this of; that nothing is known, if it is something else or of another address."""
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        if content["address"] == address:
            return Seen(
                name,
                State(content["state"]),
                content["at"] and dt.datetime.fromisoformat(content["at"]),
                str(content["message"]),
                int(content["tries"]),
                content["next_try"] and dt.datetime.fromisoformat(content["next_try"]),
                content["is_lasting"] is True,
                {str(copy): Content.from_json(what) for copy, what in content["copies"].items()},
                dict(content["limits"]),
                address,
            )
    return Seen(name)

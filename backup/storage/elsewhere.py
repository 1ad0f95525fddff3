"""Notes about the locations: the state of each, and which copies it had when it was last visited.

The files in a location are the truth; these notes, in `last/locations.json`, only spare waiting for a server when the
page, a list or the status is shown, or while a server is down. Whatever visits a location (`automatic.copies`, a
deletion) updates them.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from django.utils.crypto import salted_hmac

from ..conf import aware_now, conf, in_every_zone
from ..exceptions import WrongSettings
from . import files
from .content import Content
from .names import parsed

#: How many places are remembered that the settings do not name any more.
MOST_FORMER = 10
#: How many deletions stay noted of a place that has lost copies, those of the newest backups.
MOST_DELETED = 1000
NEVER = dt.datetime.min.replace(tzinfo=dt.timezone.utc)
_FILE = f"{files.LAST}/locations.json"


class State(enum.Enum):
    #: All backups that should be there are, and were read back.
    OK = "ok"
    #: Some are missing.
    FAILED = "failed"
    #: That is not known: nothing was sent yet, or the location does not allow reading or listing.
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Seen:
    """The state of a location as it was last seen. `at`: when, aware; None if it was never visited. `message`: for
    people.

    `tries`: how many times in a row it failed, since a backup or somebody asked for a visit. `next_try`: when it is
    tried again, aware; None: with the next backup. `since`: when it began to fail, aware; None if it does not.
    `reached`: when the last visit that did not fail ended, aware. `is_lasting`: whether it failed at every try.
    `copies`: name of a kept backup there -> its content. `limits`: what the location does not allow, as code of the
    error -> sentence. `address`: a digest of its address, by which another address of the same name is noticed.
    `key_ids`: of the keys with which copies are encrypted there, or were where the location was before. `gone`: the
    names of good copies that the last visits, which failed, did not find. `deleted`: the identities of backups that
    somebody deleted, and of which copies may be left; the next visit deletes those that it finds, whatever the location
    is called by then. `has_lost`: whether a copy was ever not found there. Its disk may not have been mounted, or be
    one of two that are used by turns, so a copy may turn up later: `deleted` stays noted, up to MOST_DELETED.
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
    key_ids: Set[str] = frozenset()
    gone: Set[str] = frozenset()
    deleted: Set[str] = frozenset()
    has_lost: bool = False
    since: dt.datetime | None = None
    reached: dt.datetime | None = None

    @property
    def due(self) -> dt.datetime | None:
        """When the next visit is due, aware: at once if there never was one. None: with the next backup."""
        return NEVER if self.at is None else self.next_try

    def is_due(self, now: dt.datetime) -> bool:
        """Tell whether a visit is due. The next try after a visit while the clock was ahead is due at once."""
        is_ahead = self.at is not None and self.at > now
        return self.due is not None and (self.due <= now or is_ahead)

    def as_json(self) -> dict[str, Any]:
        """Return the state as the API shows it."""
        return {
            "name": self.name,
            "state": self.state.value,
            "at": self.at and self.at.isoformat(),
            "message": self.message,
        }


def seen() -> dict[str, Seen]:
    """Return name -> state as last seen, of each location in BACKUP_LOCATIONS; none if that is wrong, so that what lies
    here can be used all the same. Raises `StorageFailed`."""
    return _noted()[0] if _names() else {}


def unseen() -> dict[str, Seen]:
    """Return what `seen` returns, as if no location had ever been visited."""
    return {name: Seen(name) for name in _names()}


def _noted() -> tuple[dict[str, Seen], list[dict[str, Any]]]:
    """Return name -> state as last seen, of each location in BACKUP_LOCATIONS, and what is noted of former places: the
    settings do not name them now, but one that is being repaired, say, comes back with all that it has. The latest are
    last. Raises `StorageFailed`, `WrongSettings`."""
    addresses = {name: _digest(address) for name, address in conf.locations.items()}
    content = files.read_json(_FILE)
    found = {
        name: _parse(name, address, content.get(address, content.get(name)))
        for name, address in addresses.items()
    }
    # A place may have got another name, or another password. So what must not be forgotten of any place that is not
    # here as it was goes for all that are new.
    moved = {name: entry for name, entry in content.items() if _address(entry) != addresses.get(name)}
    key_ids = {key for entry in moved.values() for key in _key_ids(entry)}
    deleted = {identity for entry in moved.values() for identity in _deleted(entry)}
    has_lost = any(map(_has_lost, moved.values()))
    known = {
        name: replace(
            entry,
            key_ids=entry.key_ids | key_ids,
            deleted=entry.deleted if entry.address else entry.deleted | deleted,
            has_lost=entry.has_lost if entry.address else entry.has_lost or has_lost,
        )
        for name, entry in found.items()
    }
    former = [
        {"name": name, **entry}
        for name, entry in moved.items()
        if _address(entry) not in {"", *addresses.values()} and (entry.get("copies") or _deleted(entry))
    ]
    return known, former[-MOST_FORMER:]


def _names() -> list[str]:
    """Return the names of the locations in BACKUP_LOCATIONS; none if that is wrong."""
    try:
        return [*conf.locations]
    except WrongSettings:
        return []


def change(name: str, changed: Callable[[Seen], Seen]) -> None:
    """Update the notes about a location. `changed`: is given the current state and returns the new one.

    It is a function since other processes may have updated the notes meanwhile. Raises `StorageFailed`.
    """
    if name not in conf.locations:
        return
    with files.noting():
        known, former = _noted()
        known[name] = replace(changed(known[name]), address=_digest(conf.locations[name]))
        _save(known, former)


def _save(known: Mapping[str, Seen], former: Iterable[Mapping[str, Any]]) -> None:
    """Save what `_noted` returned. A former place has its address for a name, since another one may have that name now.
    It is visited as soon as the settings name it again."""
    due = {"next_try": aware_now().isoformat(), "tries": 0}
    content = {entry["address"]: {**entry, **due} for entry in former}
    files.put_json(_FILE, {**content, **{name: _as_json(entry) for name, entry in known.items()}})


def ask_again() -> None:
    """Make a visit to all locations due, since there is something new to copy. Raises `StorageFailed`."""
    now = aware_now()
    for name in seen():
        change(name, lambda entry: replace(entry, next_try=now, tries=0))


def note_deletion(identity: str) -> list[str]:
    """Note, before a backup is deleted, that it is, and make a visit to all locations due. Returns the names of the
    former places that had a copy.

    A visit under way may have sent a copy that is not noted yet, or be sending one, as may one that was killed. And a
    location may be down, or not be named for a while. Raises `StorageFailed`.
    """
    former = _change_deletions(lambda deleted: deleted | {identity}, next_try=aware_now(), tries=0)
    return [
        entry["name"]
        for entry in former
        # Else it may only have got another password.
        if entry["name"] not in conf.locations
        and any(name.identity == identity for name in parsed(entry.get("copies", ())))
    ]


def take_back_deletion(identity: str) -> None:
    """Note that a backup is not to be deleted after all where it still is. Raises `StorageFailed`."""
    with suppress(WrongSettings):
        _change_deletions(lambda deleted: deleted - {identity})


def _change_deletions(changed: Callable[[Set[str]], Set[str]], **changes: Any) -> list[dict[str, Any]]:
    """Change `Seen.deleted` of all places, and other fields of those that the settings name. Returns the former ones.

    Raises `StorageFailed`, `WrongSettings`.
    """
    if not any(_noted()):
        return []
    with files.noting():
        known, former = _noted()
        before = [entry.deleted for entry in known.values()] + [_deleted(entry) for entry in former]
        if any(changes or changed(deleted) != deleted for deleted in before):
            _save(
                {
                    name: replace(entry, deleted=changed(entry.deleted), **changes)
                    for name, entry in known.items()
                },
                [{**entry, "deleted": sorted(changed(_deleted(entry)))} for entry in former],
            )
        return former


def forget(location: str, copy: str, *, was_there: bool) -> None:
    """Note that a copy is no longer there. `was_there`: whether it was until now. Raises `StorageFailed`."""

    def without(entry: Seen) -> Seen:
        copies = {name: content for name, content in entry.copies.items() if name != copy}
        return replace(entry, copies=copies, has_lost=entry.has_lost or not was_there)

    change(location, without)


def fingerprint() -> str:
    """Return a text that changes when BACKUP_LOCATIONS does. Raises `WrongSettings`."""
    return " ".join(f"{name}={_digest(address)}" for name, address in conf.locations.items())


def _digest(address: str) -> str:
    """Return a digest of an address, which does not reveal the password in it."""
    return salted_hmac("backup.locations", address, algorithm="sha1").hexdigest()[:16]


def _as_json(entry: Seen) -> dict[str, Any]:
    return {
        **entry.as_json(),
        "tries": entry.tries,
        "next_try": entry.next_try and entry.next_try.isoformat(),
        "is_lasting": entry.is_lasting,
        "copies": {name: content.as_json() for name, content in entry.copies.items()},
        "limits": dict(entry.limits),
        "address": entry.address,
        "key_ids": sorted(entry.key_ids),
        "gone": sorted(entry.gone),
        "deleted": sorted(entry.deleted),
        "has_lost": entry.has_lost,
        "since": entry.since and entry.since.isoformat(),
        "reached": entry.reached and entry.reached.isoformat(),
    }


def _parse(name: str, address: str, content: Any) -> Seen:
    """Return the state from what `_as_json` returned; an unknown one if it is something else or of another address."""
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        if content["address"] == address:
            return Seen(
                name,
                State(content["state"]),
                _moment(content["at"]),
                str(content["message"]),
                int(content["tries"]),
                _moment(content["next_try"]),
                content["is_lasting"] is True,
                {str(copy): Content.from_json(what) for copy, what in content["copies"].items()},
                dict(content["limits"]),
                address,
                _key_ids(content),
                frozenset(name.text for name in parsed(content.get("gone", ()))),
                _deleted(content),
                _has_lost(content),
                _moment(content.get("since")),
                _moment(content.get("reached")),
            )
    return Seen(name, key_ids=_key_ids(content), deleted=_deleted(content), has_lost=_has_lost(content))


def _moment(text: str | None) -> dt.datetime | None:
    return in_every_zone(dt.datetime.fromisoformat(text)) if text else None


def _address(content: Any) -> str:
    """Return `Seen.address` from what `_as_json` returned; "" if it is something else."""
    with suppress(KeyError, TypeError):
        return str(content["address"])
    return ""


def _key_ids(content: Any) -> Set[str]:
    """Return `Seen.key_ids` from what `_as_json` returned, whatever the address; none if it is something else."""
    with suppress(KeyError, TypeError, AttributeError):
        return {*content.get("key_ids", ())} | {name.key_id for name in parsed(content["copies"])} - {""}
    return frozenset()


def _deleted(content: Any) -> Set[str]:
    """Return `Seen.deleted` from what `_as_json` returned, whatever the address, since only a password in it may have
    changed; none if it is something else."""
    with suppress(TypeError, AttributeError):
        return frozenset(map(str, content.get("deleted", ())))
    return frozenset()


def _has_lost(content: Any) -> bool:
    """Return `Seen.has_lost` from what `_as_json` returned, whatever the address; False if it is something else."""
    return isinstance(content, dict) and content.get("has_lost") is True

"""Backups that the server keeps. The files are the state: no index beside them can be out of step.

The name of a file says when it was made, why, by which site, what state of the database is in it, and, where it is
encrypted, the id of the key: `babybuddy_20261123T143022.123456Z_automatic_SITE_STATE.zip`, `…_STATE_KEYID.zip`. Facts
that are not in the file (whether it is pinned) lie beside it, in a JSON file of the same name.
"""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, BinaryIO

from django.core.files import File
from django.utils.translation import gettext as _

from ..archive import Metadata
from ..conf import conf
from ..database.memo import site_id
from ..exceptions import (
    BackupError,
    EncryptionUnavailable,
    InvalidBackup,
    KeyNeeded,
    NoSuchBackup,
    StorageFailed,
)
from . import files, keys
from .files import KEPT, SAFETY
from .state import load_last_restore

_NAME = re.compile(
    r"babybuddy_(?P<moment>\d{8}T\d{6}\.\d{6})Z_(?P<kind>[a-z]+)_(?P<site>[0-9a-f]{12})_(?P<state>[0-9A-F]{16})"
    r"(?:_(?P<key_id>[A-Z]{4}))?\.zip",
    re.ASCII,
)
#: The name of a safety copy of version 0.1.
_OLD_NAME = re.compile(r"before_(?P<moment>\d{8}T\d{6}\.\d{6})Z_(?P<state>[0-9A-F]{16})\.zip", re.ASCII)
#: Safety copies that are younger are not pruned, however many there are.
YOUNG = dt.timedelta(days=1)


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
    """What the name of a kept backup says. `created`: aware. `site`: the id of the site that made it; "" where the name
    does not say it. `state`: see `state_of`. `key_id`: of the key that it is encrypted with; "" where it is not."""

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
    def facts(self) -> str:
        """The file beside it, for what is not in it."""
        return f"{self.path.removesuffix('.zip')}.json"


@dataclass(frozen=True)
class _Content:
    """What a file says of itself."""

    size: int
    label: str = ""
    by: str = ""
    baby_buddy: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    is_damaged: bool = False


@dataclass(frozen=True)
class StoredBackup:
    """A backup that the server keeps.

    `created`: aware. `site`, `state`: see `Name`. `by`: the name of the user who made it, "" for the command line.
    `label`: why it was made. `size`: in bytes. `baby_buddy`: the version of Baby Buddy that it is of. `counts`: model
    label -> number of records. `proof`: None where it was never proved. `locations`: the names of those where it lies.
    Of a damaged file, and of one whose key is not known here, the texts are "", the numbers 0.
    """

    name: str
    kind: BackupKind
    created: dt.datetime
    site: str
    state: str
    by: str
    label: str
    size: int
    baby_buddy: str
    counts: Mapping[str, int]
    photos: int = 0
    encrypted: bool = False
    key_id: str = ""
    pinned: bool = False
    proof: Mapping[str, Any] | None = None
    locations: tuple[str, ...] = ("local",)
    is_damaged: bool = False
    #: Whether its key is not known here, or cannot be read.
    is_locked: bool = False
    #: Whether undoing the last restore brings this one back.
    is_undo: bool = False
    #: All that is known about it and is not in it.
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def records(self) -> int:
        return sum(self.counts.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind.value,
            "created": self.created.isoformat(),
            "by": self.by,
            "label": self.label,
            "records": self.records,
            "photos": self.photos,
            "size": self.size,
            "baby_buddy": self.baby_buddy,
            "encrypted": self.encrypted,
            "key_id": self.key_id,
            "pinned": self.pinned,
            "proof": {name: self.proof[name] for name in ("verdict", "at", "records")}
            if self.proof
            else None,
            "locations": [*self.locations],
        }


# -- names ---


def parse(name: str) -> Name:
    """Return what a name says. Raises `NoSuchBackup` where it is not the name of a kept backup: it may come out of a
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
    raise _no_longer_there()


def add_file(file: BinaryIO) -> str:
    """Keep a damaged database file beside the safety copies. Returns where it is. Raises `StorageFailed`."""
    name = f"{SAFETY}/damaged_{dt.datetime.now(dt.timezone.utc):%Y%m%dT%H%M%S.%fZ}.sqlite3"
    files.put(name, File(file))
    return files.place_of(name)


def names(kind: BackupKind | None = None) -> list[Name]:
    """List the names of all, newest first, without opening a file. Raises `StorageFailed`.

    Those that are dated in the future, since a clock was wrong once, come last.
    """
    return _names_among(_paths(), kind)


def _paths() -> list[str]:
    return [*files.names_in(KEPT), *files.names_in(SAFETY)]


def _names_among(paths: list[str], kind: BackupKind | None) -> list[Name]:
    now = dt.datetime.now(dt.timezone.utc)
    found = []
    for path in paths:
        with suppress(NoSuchBackup):  # another file
            name = parse(path.rpartition("/")[2])
            if name.path == path and kind in (None, name.kind):
                found.append(name)
    return sorted(found, key=lambda name: (name.created <= now, name.created, name.text), reverse=True)


def state_of(metadata: Metadata) -> str:
    """Return a digest that is another one for another state of the database."""
    checksums = {label: member.sha256 for label, member in metadata.models.items()}
    text = json.dumps([checksums, metadata.migrations, metadata.next_keys], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16].upper()


# -- one backup ---


def keep(
    file: BinaryIO, metadata: Metadata, kind: BackupKind, *, facts: Mapping[str, Any] | None = None
) -> StoredBackup:
    """Keep a backup. It is read back and checked. `facts`: what is known about it and is not in it.

    Raises `StorageFailed`, `InvalidBackup`.
    """
    now = dt.datetime.now(dt.timezone.utc)
    key_id = f"_{metadata.key_id}" if metadata.key_id else ""
    name = parse(
        f"babybuddy_{now:%Y%m%dT%H%M%S.%fZ}_{kind.value}_{site_id()}_{state_of(metadata)}{key_id}.zip"
    )
    try:
        if facts:
            files.put_json(name.facts, dict(facts))  # before the file, which is never there without them
        files.put(name.path, File(file))
        _check(name)
    except BaseException:
        with suppress(BackupError):
            files.delete(name.path)
            files.delete(name.facts)
        raise
    return find(name.text)


def same_state(metadata: Metadata) -> StoredBackup | None:
    """Return the newest that holds this very state of the database, and is whole; None where there is none.

    Where the state is to be encrypted, one in clear does not count.
    """
    for name in names():
        if name.state == state_of(metadata) and (name.key_id or not metadata.key_id):
            # A damaged one is none, and neither is one that nobody can open here.
            with suppress(InvalidBackup, NoSuchBackup, KeyNeeded, EncryptionUnavailable):
                _check(name)
                return find(name.text)
    return None


def _check(name: Name) -> None:
    """Raise `InvalidBackup` where the checksums are not right. Where they are, our own file need not be parsed."""
    with open_backup(name.text) as file, keys.unlocked(file) as archive:
        for label in archive.metadata.models:
            for _lines in archive.lines(label):
                pass


def find(name: str) -> StoredBackup:
    """Return the backup of this name. Raises `NoSuchBackup`, `StorageFailed`."""
    return _stored(parse(name), name_to_undo())


def open_backup(name: str) -> BinaryIO:
    """Open for reading; the caller closes it. Raises `NoSuchBackup`, `StorageFailed`."""
    file = files.open_file(parse(name).path)
    if file is None:
        raise _no_longer_there()
    return file


def local_path(name: str) -> str:
    """Return where a backup lies in a folder of this machine; "" where it lies in another storage."""
    return files.local_path(parse(name).path)


def delete(name: str) -> None:
    """Delete a backup, and what is known about it. Raises `NoSuchBackup`, `StorageFailed`."""
    found = parse(name)
    if found not in names(found.kind):
        raise _no_longer_there()
    files.delete(found.path)
    files.delete(found.facts)


def pin(name: str, pinned: bool) -> StoredBackup:
    """Pin a backup, so that no rule ever removes it, or no longer. Raises `NoSuchBackup`, `StorageFailed`."""
    return note(name, pinned=pinned)


def note(name: str, **facts: Any) -> StoredBackup:
    """Remember something about a backup that is not in it. Raises `NoSuchBackup`, `StorageFailed`."""
    found = parse(name)
    if found not in names(found.kind):
        raise _no_longer_there()
    files.put_json(found.facts, {**_facts(found), **facts})
    return find(name)


# -- all of them ---


def backups(kind: BackupKind | None = None, *, start: int = 0, most: int | None = None) -> list[StoredBackup]:
    """List all, as `names` does. Reads the metadata of each, once in a process. `start`, `most`: of these the newest
    are passed over, and so many listed.

    Raises `StorageFailed`.
    """
    undo, paths = name_to_undo(), _paths()
    found = []
    for name in _names_among(paths, kind)[start:][:most]:
        with suppress(NoSuchBackup):  # deleted since
            found.append(_stored(name, undo, has_facts=name.facts in paths))
    return found


def beside(*, most: int) -> list[StoredBackup]:
    """List the newest backups that other sites keep in the same storage. Raises `StorageFailed`."""
    found = []
    for site in files.other_sites():
        for name in _names_among(files.names_in(KEPT, site), None)[:most]:
            if name.site == site:
                with suppress(NoSuchBackup):  # deleted since
                    found.append(_stored(name, "", has_facts=False, site=site))
    return sorted(found, key=lambda backup: backup.created, reverse=True)[:most]


def open_beside(name: str) -> BinaryIO:
    """Open a backup that another site keeps in the same storage; the caller closes it. Raises `NoSuchBackup`,
    `StorageFailed`."""
    found = parse(name)
    file = files.open_file(found.path, found.site) if found.site in files.other_sites() else None
    if file is None:
        raise _no_longer_there()
    return file


def prune(keep: str) -> None:
    """Delete old safety copies. Raises `StorageFailed`.

    There stay the newest `BACKUP_SAFETY_COPIES`, those that are younger than a day, those that are dated in the future,
    those that are pinned, and `keep`, the one that the last restore needs.
    """
    now = dt.datetime.now(dt.timezone.utc)
    past = [name for name in names(BackupKind.SAFETY) if name.created <= now]
    for name in past[conf.safety_copies :]:
        if now - name.created > YOUNG and name.text != keep and not _is_pinned(name):
            with suppress(NoSuchBackup):  # deleted since
                delete(name.text)


def name_to_undo() -> str:
    """Return the name of the backup that undoing the last restore brings back; "" where there is nothing to undo."""
    last = load_last_restore()
    return last.safety_copy if last is not None and not last.is_undo else ""


def _stored(name: Name, undo: str, *, has_facts: bool = True, site: str = "") -> StoredBackup:
    is_locked = False
    try:
        content = _content(name.path, site, files.version_of(name.path, site))
    except _LockedError as error:
        content, is_locked = _Content(error.size), True
    facts = _facts(name) if has_facts else {}
    return StoredBackup(
        name=name.text,
        kind=name.kind,
        created=name.created,
        site=name.site,
        state=name.state,
        by=content.by,
        label=str(facts.get("label", content.label)),
        size=content.size,
        baby_buddy=content.baby_buddy,
        counts=content.counts,
        encrypted=bool(name.key_id),
        key_id=name.key_id,
        pinned=facts.get("pinned") is True,
        facts=facts,
        proof=_proof(facts),
        is_damaged=content.is_damaged,
        is_locked=is_locked,
        is_undo=name.text == undo,
    )


def _proof(facts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    proof = facts.get("proof")
    return proof if isinstance(proof, dict) and {"verdict", "at", "records"} <= {*proof} else None


def _is_pinned(name: Name) -> bool:
    return _facts(name).get("pinned") is True


def _facts(name: Name) -> dict[str, Any]:
    """Return what is known about a backup and is not in it. Raises `StorageFailed`: what could not be read is not what
    is not there, else a rule might remove what is pinned."""
    file = files.open_file(name.facts)
    if file is None:
        return {}
    with file:
        try:
            facts = json.loads(file.read())
        except ValueError:
            return {}
    return facts if isinstance(facts, dict) else {}


class _LockedError(Exception):
    """The key of a backup is not known here, or there is no library for it. `size`: in bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


@lru_cache(maxsize=1000)
def _content(path: str, site: str, version: str) -> _Content:
    """Read what a file says of itself. It is remembered in this process, since a kept file never changes.

    `version`: see `files.version_of`. Raises `NoSuchBackup`, `StorageFailed`; `_LockedError` where it cannot be opened
    now, which is not remembered.
    """
    file = files.open_file(path, site)
    if file is None:
        raise _no_longer_there()
    with file:
        size = file.seek(0, 2)
        try:
            with keys.unlocked(file) as archive:
                metadata = archive.metadata
        except InvalidBackup:
            return _Content(size, is_damaged=True)
        except (KeyNeeded, EncryptionUnavailable, StorageFailed) as error:
            raise _LockedError(size) from error
    return _Content(
        size,
        metadata.label,
        metadata.created_by,
        metadata.babybuddy_version,
        {label: max(member.records, 0) for label, member in metadata.models.items()},
    )


def _no_longer_there() -> NoSuchBackup:
    return NoSuchBackup(_("This backup is no longer there."))

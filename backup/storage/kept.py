"""Backups that the server keeps. The files are the state: no index beside them can be out of step.

The name of a file says when it was made, why, by which site, what state of the database is in it, and, if it is
encrypted, the id of the key: `babybuddy_20261123T143022.123456Z_automatic_SITE_STATE.zip`, `…_STATE_KEYID.zip`. Facts
that are not in the file (whether it is pinned) lie beside it, in a JSON file of the same name, without the key's id.

The same backup may lie in locations, too, encrypted there and in clear here, or nowhere else but in one. What lies
there, `elsewhere` knows; a file itself is fetched where it is asked for.

Longer than most modules, since all that is done with one kept backup is here.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from django.core.files import File
from django.utils.translation import gettext as _

from ..archive import Metadata, with_photos
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
from ..options import Places
from . import elsewhere, files, keys, locations, photos
from . import facts as known
from .content import Content, content_here
from .facts import LOCAL as LOCAL
from .files import KEPT, SAFETY
from .names import BackupKind as BackupKind  # a kept backup is known by these everywhere
from .names import Name, no_longer_there, parsed
from .names import parse as parse
from .state import load_last_restore

#: Safety copies that are younger are not pruned, however many there are.
YOUNG = dt.timedelta(days=1)


@dataclass(frozen=True)
class StoredBackup:
    """A backup that the server keeps.

    `created`: aware. `site`, `state`: see `Name`. `by`: the name of the user who made it, "" for the command line.
    `label`: why it was made. `size`: in bytes. `baby_buddy`: the version of Baby Buddy that it is of. `counts`: model
    label -> number of records. `photos`, `photos_size`: how many it has, and their bytes, which are not in `size`.
    `warnings`: photos that it lacks, sentences for people. `left_out`: what it lacks, since nobody could read it.
    `proof`: None if it was never proved. `copies`: where it lies, `local` first, and the name of the file there. Of
    a damaged file, and of one whose key is not known here, the texts are "", the numbers 0.
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
    photos_size: int = 0
    warnings: Sequence[str] = ()
    encrypted: bool = False
    key_id: str = ""
    pinned: bool = False
    proof: Mapping[str, Any] | None = None
    copies: Mapping[str, str] = field(default_factory=dict)
    left_out: Places = field(default_factory=Places)
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

    @property
    def locations(self) -> tuple[str, ...]:
        """The names of the places where it lies."""
        return tuple(self.copies)

    @property
    def is_local(self) -> bool:
        return LOCAL in self.copies

    @property
    def is_elsewhere(self) -> bool:
        """Whether a location has it."""
        return bool({*self.copies} - {LOCAL})

    @property
    def identity(self) -> str:
        """See `Name`."""
        return parse(self.name).identity

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


def names(kind: BackupKind | None = None) -> list[Name]:
    """List the names of those in BACKUP_ROOT, newest first, without opening a file. Raises `StorageFailed`.

    Those that are dated in the future, since a clock was wrong once, come last.
    """
    return _names_among(_paths(), kind)


def count() -> int:
    """Return how many backups there are, wherever they lie. Raises `StorageFailed`."""
    return len(_placed(_paths(), None))


def _paths() -> list[str]:
    return [*files.names_in(KEPT), *files.names_in(SAFETY)]


def _names_among(paths: list[str], kind: BackupKind | None) -> list[Name]:
    names, there = parsed({path.rpartition("/")[2] for path in paths}), {*paths}
    found = [name for name in names if name.path in there and kind in (None, name.kind)]
    return sorted(found, key=_by_time, reverse=True)


def _by_time(name: Name) -> tuple[bool, dt.datetime, str]:
    return (name.created <= dt.datetime.now(dt.timezone.utc), name.created, name.text)


@dataclass(frozen=True)
class _Placed:
    """A backup by its name, and where it lies: see `StoredBackup.copies`. `content`: of one that is not in BACKUP_ROOT,
    as it was seen."""

    name: Name
    copies: dict[str, str]
    content: Content = field(default_factory=Content)


def _placed(paths: list[str], kind: BackupKind | None) -> list[_Placed]:
    """List the backups in BACKUP_ROOT, and those that were seen in locations, newest first. `paths`: see `_paths`."""
    found = {name.identity: _Placed(name, {LOCAL: name.text}) for name in _names_among(paths, kind)}
    for location, seen in elsewhere.seen().items():
        for name in parsed(seen.copies):
            if kind in (None, name.kind):
                placed = found.setdefault(name.identity, _Placed(name, {}, seen.copies[name.text]))
                placed.copies[location] = name.text
    return sorted(found.values(), key=lambda placed: _by_time(placed.name), reverse=True)


def _find(name: Name) -> _Placed:
    """Return where a backup lies. Raises `NoSuchBackup`, `StorageFailed`."""
    for placed in _placed(_paths(), name.kind):
        if placed.name.identity == name.identity:
            return placed
    raise no_longer_there()


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
        if metadata.photos:
            facts = {**(facts or {}), "photos": len(metadata.photos)}  # for where its key is not known
        if facts:
            known.save(name, facts)  # before the file, which is never there without them
        files.put(name.path, File(file))
        _check(name, with_photos=True)
    except BaseException:
        with suppress(BackupError):
            files.delete(name.path)
            files.delete(name.facts)
        raise
    return find(name.text)


def same_state(metadata: Metadata) -> StoredBackup | None:
    """Return the newest that holds this very state of the database, and is whole; None if there is none. If the
    state is to be encrypted, one in clear does not count."""
    for name in names():
        if name.state == state_of(metadata) and (name.key_id or not metadata.key_id):
            # One that is damaged, or that nobody can open here, does not count.
            with suppress(InvalidBackup, NoSuchBackup, KeyNeeded, EncryptionUnavailable):
                _check(name)
                return find(name.text)
    return None


def _check(name: Name, *, with_photos: bool = False) -> None:
    """Raise `InvalidBackup` if the checksums are not right. If they are, our own file need not be parsed.

    `with_photos`: raise `StorageFailed` if one of its photos is not there; those were read when they were stored.
    """
    with open_backup(name.text, LOCAL) as file, keys.unlocked(file) as archive:
        for photo in archive.metadata.photos.values() if with_photos else ():
            if not archive.has_photo(photo):
                raise StorageFailed(
                    _("The photo %(name)s was removed while the backup was made. Please try again.")
                    % {"name": photo.name}
                )
        for label in archive.metadata.models:
            for _lines in archive.lines(label):
                pass


def find(name: str) -> StoredBackup:
    """Return the backup of this name. Raises `NoSuchBackup`, `StorageFailed`."""
    return _stored(_find(parse(name)), name_to_undo())


def open_backup(name: str, place: str = "") -> BinaryIO:
    """Open for reading, with its photos; the caller closes it. Raises `NoSuchBackup`, `StorageFailed`.

    `place`: the location to fetch it from, with its photos, or `local`; by default the first one that has it.
    """
    return with_photos(_opened(name, place), photos.source(place))


def _opened(name: str, place: str) -> BinaryIO:
    found = parse(name)
    if place in ("", LOCAL) and (file := files.open_file(found.path)) is not None:
        return file
    trouble: BackupError = no_longer_there()
    for where, copy in _find(found).copies.items():
        if place in ("", where):
            try:
                return _open_in(where, parse(copy))
            except StorageFailed as error:
                trouble = error  # another place may have it
            except NoSuchBackup as error:
                trouble = trouble if isinstance(trouble, StorageFailed) else error
    raise trouble


def _open_in(place: str, copy: Name) -> BinaryIO:
    if place != LOCAL:
        return locations.location(place).fetch(copy.path)
    file = files.open_file(copy.path)
    if file is None:
        raise no_longer_there()
    return file


def local_path(name: str) -> str:
    """Return where a backup lies in a folder of this machine; "" if it lies in another storage."""
    return files.local_path(parse(name).path)


def delete(name: str) -> None:
    """Delete a backup wherever it lies, and what is known about it. Raises `NoSuchBackup`, `StorageFailed`.

    If a location does not let it go, it is deleted everywhere else before that is raised.
    """
    found = _find(parse(name)).name
    failed: StorageFailed | None = None
    for location, seen in elsewhere.seen().items():
        for copy in _same(seen.copies, found):
            try:
                locations.location(location).delete(copy.path)
                elsewhere.forget(location, copy.text)
            except StorageFailed as error:
                failed = error
    _delete_here(found)
    if failed is not None:
        raise failed
    files.delete(found.facts)


def delete_here(backup: StoredBackup) -> None:
    """Delete a backup from BACKUP_ROOT; its copies stay. Raises `StorageFailed`."""
    _delete_here(parse(backup.name))
    forget(backup.name)


def _delete_here(name: Name) -> None:
    for copy in _same((path.rpartition("/")[2] for path in _paths()), name):
        files.delete(copy.path)


def _same(texts: Iterable[str], name: Name) -> list[Name]:
    """Return which of these are files of a backup: one in clear, say, and one that is encrypted."""
    return [found for found in parsed(texts) if found.identity == name.identity]


def forget(name: str) -> None:
    """Forget what is known about a backup, where it lies nowhere any more. Raises `StorageFailed`."""
    found = parse(name)
    with suppress(NoSuchBackup):
        _find(found)
        return
    files.delete(found.facts)


def pin(name: str, pinned: bool) -> StoredBackup:
    """Pin a backup, so that no rule ever removes it, or no longer. Raises `NoSuchBackup`, `StorageFailed`."""
    return note(name, pinned=pinned)


def is_pinned(name: str) -> bool:
    """Tell whether a backup is pinned right now. Whoever removes one by a rule asks last. Raises `StorageFailed`."""
    return known.load(parse(name)).get("pinned") is True


def note(name: str, **facts: Any) -> StoredBackup:
    """Remember something about a backup that is not in it. Raises `NoSuchBackup`, `StorageFailed`."""
    _change(name, lambda before: {**before, **facts})
    return find(name)


def note_proof(name: str, proof: Mapping[str, Any], *, is_verdict: bool) -> None:
    """Remember what the proof of a copy came to: see `known.with_proof`. Raises `NoSuchBackup`, `StorageFailed`."""
    _change(name, lambda facts: known.with_proof(facts, proof, is_verdict=is_verdict))


def forget_proof(name: str, place: str) -> None:
    """Forget what the proof of a copy came to. Raises `NoSuchBackup`, `StorageFailed`."""
    _change(name, lambda facts: known.without_proof(facts, place))


def _change(name: str, changed: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """Change what is known about a backup. Raises `NoSuchBackup`, `StorageFailed`."""
    with files.noting():
        found = _find(parse(name)).name
        known.save(found, changed(known.load(found)))


# -- all of them ---


def backups(kind: BackupKind | None = None, *, start: int = 0, most: int | None = None) -> list[StoredBackup]:
    """List all, wherever they lie, in the order of `names`. Reads the metadata of each, once in a process. `start`,
    `most`: of these the newest are passed over, and so many listed.

    Raises `StorageFailed`.
    """
    undo, paths = name_to_undo(), _paths()
    found = []
    for placed in _placed(paths, kind)[start:][:most]:
        with suppress(NoSuchBackup):  # deleted since
            found.append(_stored(placed, undo, has_facts=placed.name.facts in paths))
    return found


def seen_in(location: str, copy: str, content: Content) -> StoredBackup:
    """Return the backup that a file in a location is, which nobody noted yet. Raises `NoSuchBackup` if it is another
    file, `StorageFailed`."""
    return _stored(_Placed(parse(copy), {location: copy}, content), "")


def beside(*, most: int) -> list[StoredBackup]:
    """List the newest backups that other sites keep in the same storage. Raises `StorageFailed`."""
    found = []
    for site in files.other_sites():
        for name in _names_among(files.names_in(KEPT, site), None)[:most]:
            if name.site == site:
                with suppress(NoSuchBackup):  # deleted since
                    placed = _Placed(name, {LOCAL: name.text})
                    found.append(_stored(placed, "", has_facts=False, site=site))
    return sorted(found, key=lambda backup: backup.created, reverse=True)[:most]


def open_beside(name: str) -> BinaryIO:
    """Open a backup that another site keeps in the same storage; the caller closes it. Raises `NoSuchBackup`,
    `StorageFailed`."""
    found = parse(name)
    file = files.open_file(found.path, found.site) if found.site in files.other_sites() else None
    if file is None:
        raise no_longer_there()
    return with_photos(file, photos.Photos(photos.Local(found.site)))


def prune(keep: str) -> None:
    """Delete old safety copies. Raises `StorageFailed`.

    There stay the newest `BACKUP_SAFETY_COPIES`, those that are younger than a day, those that are dated in the future,
    those that are pinned, and `keep`, the one that the last restore needs.
    """
    now = dt.datetime.now(dt.timezone.utc)
    past = [name for name in names(BackupKind.SAFETY) if name.created <= now]
    for name in past[conf.safety_copies :]:
        if now - name.created > YOUNG and name.text != keep and not is_pinned(name.text):
            with suppress(NoSuchBackup):  # deleted since
                delete(name.text)


def name_to_undo() -> str:
    """Return the name of the backup that undoing the last restore brings back; "" if there is nothing to undo."""
    last = load_last_restore()
    return last.safety_copy if last is not None and not last.is_undo else ""


def _stored(placed: _Placed, undo: str, *, has_facts: bool = True, site: str = "") -> StoredBackup:
    name, content = placed.name, placed.content
    if LOCAL in placed.copies:
        content = content_here(name.path, site)
    facts = known.load(name) if has_facts else {}
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
        photos=facts.get("photos", 0) if content.is_locked else content.photos,
        photos_size=content.photos_size,
        warnings=content.warnings,
        left_out=content.left_out,
        encrypted=bool(name.key_id),
        key_id=name.key_id,
        pinned=facts.get("pinned") is True,
        facts=facts,
        proof=known.counting_proof(facts, placed.copies),
        copies=placed.copies,
        is_damaged=content.is_damaged,
        is_locked=content.is_locked,
        is_undo=name.text == undo,
    )

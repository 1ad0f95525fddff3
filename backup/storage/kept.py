"""Backups that the server keeps. There is no index that could be out of date: the files themselves are the list.

The name of a file says when the backup was made, why, by which site, of which state of the database, and, if it is
encrypted, with which key: `babybuddy_20261123T143022.123456Z_automatic_SITE_STATE.zip`, `…_STATE_KEYID.zip`. Facts that
are not in the file, such as whether it is pinned, are in a JSON file beside it of the same name, without the key's id.

A backup may have copies in locations, encrypted there and unencrypted here, for example, or only be in a location.
`elsewhere` knows which copies there are; a file is only fetched from a location when it is needed.

Longer than most modules, since everything that is done with one kept backup is here.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from django.core.files import File
from django.utils.translation import gettext as _

from ..archive import Archive, Metadata, PhotoSource, with_photos
from ..conf import conf
from ..database.memo import site_id
from ..exceptions import (
    BackupError,
    CannotRead,
    EncryptionUnavailable,
    InvalidBackup,
    KeyNeeded,
    NoSuchBackup,
    StorageFailed,
    WrongSettings,
)
from ..options import Places
from . import elsewhere, files, keys, locations, photos
from . import facts as known
from .bounded import one_of
from .content import Content, content_here
from .facts import LOCAL as LOCAL
from .files import KEPT, SAFETY
from .names import BackupKind as BackupKind  # imported from here everywhere
from .names import Name, no_longer_there, parsed
from .names import parse as parse
from .state import load_last_restore

#: For this long, a safety copy is used again by a restore of the same state.
RECENT = dt.timedelta(hours=1)
#: Younger safety copies are never pruned, however many there are: none in the first day after its restore.
YOUNG = dt.timedelta(days=1) + RECENT
#: Where all the others are older than this, the clock may be ahead, and none is pruned this time.
SUSPICIOUS = dt.timedelta(days=60)


#: Seconds for which a process remembers that a file is whole: it may rot, and then a location may have a whole copy.
REMEMBERED = 3600.0
#: `files.version_of` a file -> until when that is remembered, by `time.monotonic`.
_whole_until: dict[str, float] = {}


@dataclass(frozen=True)
class StoredBackup:
    """A backup that the server keeps.

    `created`: aware. `site`, `state`: see `Name`. `by`: the name of the user who made it, "" for the command line.
    `label`: why it was made. `size`: in bytes. `baby_buddy`: the version of Baby Buddy that it is from. `counts`: model
    label -> number of records. `photos`, `photos_size`: the number of photos, and their bytes, which `size` does not
    include. `warnings`: about missing photos, for people. `left_out`: the values that are missing since they could not
    be read. `proof`: None if it was never proved. `copies`: place (`local` first, or the name of a location) -> name of
    the file there. If the file is damaged, or the server does not have its key, texts are "" and numbers are 0.
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
    #: Whether the server does not have its key, or cannot read it.
    is_locked: bool = False
    #: Whether this is the backup that undoing the last restore would restore.
    is_undo: bool = False
    #: Whether it was to include photos, even if there were none.
    includes_photos: bool = False
    #: See `facts`.
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def records(self) -> int:
        return sum(self.counts.values())

    @property
    def locations(self) -> tuple[str, ...]:
        """The names of the places where it is."""
        return tuple(self.copies)

    @property
    def is_local(self) -> bool:
        return LOCAL in self.copies

    @property
    def is_elsewhere(self) -> bool:
        """Whether a location has it."""
        return bool({*self.copies} - {LOCAL})

    @property
    def may_be_whole(self) -> bool:
        """Whether its file can be read, or another place has a copy."""
        return not self.is_damaged or len(self.copies) > 1

    @property
    def lacks_something(self) -> bool:
        """Whether values or photos are missing in it that its records should have."""
        return bool(self.left_out or self.warnings)

    @property
    def identity(self) -> str:
        """The part of the name that all copies share: see `Name`."""
        return parse(self.name).identity

    def content(self, size: int) -> Content:
        """Return the content of a copy. `size`: of that, in bytes."""
        return Content(
            size,
            self.label,
            self.by,
            self.baby_buddy,
            self.counts,
            self.photos,
            self.photos_size,
            self.warnings,
            self.left_out,
            is_locked=self.is_locked,
            includes_photos=self.includes_photos,
        )

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
    """List the names of the backups in BACKUP_ROOT, newest first. Opens no file. Raises `StorageFailed`.

    Names that are dated in the future, since a clock was wrong, come last.
    """
    return _names_among(_paths(), kind)


def identities_here() -> set[str]:
    """Return the identities of the backups in BACKUP_ROOT. Raises `StorageFailed`."""
    return {name.identity for name in names()}


def count() -> int:
    """Return how many backups there are in all places. Raises `StorageFailed`."""
    return len(_placed(_paths(), None))


def _paths() -> list[str]:
    return [*files.names_in(KEPT), *files.names_in(SAFETY)]


def _names_among(paths: list[str], kind: BackupKind | None) -> list[Name]:
    names, there = parsed({path.rpartition("/")[2] for path in paths}), {*paths}
    matching = [name for name in names if name.path in there and kind in (None, name.kind)]
    return sorted(matching, key=_by_time, reverse=True)


def _by_time(name: Name) -> tuple[bool, dt.datetime, str]:
    return (name.created <= dt.datetime.now(dt.timezone.utc), name.created, name.text)


@dataclass(frozen=True)
class _Placed:
    """A backup by its name. `copies`: see `StoredBackup`. `content`: if it is not in BACKUP_ROOT, its content as noted
    when it was last seen. `lacks_key`: whether its key is not here, which may have been otherwise then."""

    name: Name
    copies: dict[str, str]
    content: Content = field(default_factory=Content)
    lacks_key: bool = False


def _seen() -> dict[str, elsewhere.Seen]:
    """Return what was last seen in each location; nothing if that cannot be read, since BACKUP_ROOT can be used all the
    same."""
    try:
        return elsewhere.seen()
    except StorageFailed:
        return elsewhere.unseen()


def _placed(paths: list[str], kind: BackupKind | None) -> list[_Placed]:
    """List the backups in BACKUP_ROOT and those seen in locations, newest first. `paths`: see `_paths`."""
    by_identity = {name.identity: _Placed(name, {LOCAL: name.text}) for name in _names_among(paths, kind)}
    for location, seen in _seen().items():
        for name in parsed(seen.copies):
            if kind in (None, name.kind):
                placed = by_identity.setdefault(name.identity, _Placed(name, {}, seen.copies[name.text]))
                placed.copies[location] = name.text
    ids = keys.ids() if any(placed.name.key_id for placed in by_identity.values()) else set()
    by_identity = {
        identity: replace(placed, lacks_key=placed.name.key_id not in {"", *ids})
        for identity, placed in by_identity.items()
    }
    return sorted(by_identity.values(), key=lambda placed: _by_time(placed.name), reverse=True)


def _find(name: Name) -> _Placed:
    """Return in which places a backup is. Raises `NoSuchBackup`, `StorageFailed`."""
    for placed in _placed(_paths(), name.kind):
        if placed.name.identity == name.identity:
            return placed
    raise no_longer_there()


def state_of(metadata: Metadata) -> str:
    """Return a short digest that is another one for another state of the database."""
    return checksum_of(metadata)[:16].upper()


def checksum_of(metadata: Metadata) -> str:
    """Return a digest of the records of a backup, wherever it lies, encrypted or not. Nobody can make another backup
    that has the same."""
    checksums = {label: member.sha256 for label, member in metadata.models.items()}
    text = json.dumps([checksums, metadata.migrations, metadata.next_keys], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


# -- one backup ---


def keep(
    file: BinaryIO, metadata: Metadata, kind: BackupKind, *, facts: Mapping[str, Any] | None = None
) -> StoredBackup:
    """Store a backup, read it back and check it. `facts`: facts to save beside it.

    Raises `StorageFailed`, `InvalidBackup`.
    """
    now = dt.datetime.now(dt.timezone.utc)
    key_id = f"_{metadata.key_id}" if metadata.key_id else ""
    name = parse(
        f"babybuddy_{now:%Y%m%dT%H%M%S.%fZ}_{kind.value}_{site_id()}_{state_of(metadata)}{key_id}.zip"
    )
    try:
        if metadata.photos:
            facts = {**(facts or {}), "photos": len(metadata.photos)}  # for servers without its key
        if facts:
            known.save(name, facts)  # before the file, so that it is never there without them
        files.put(name.path, File(file))
        _check(name, with_photos=True)
    except BaseException:
        with suppress(BackupError):
            files.delete(name.path)
            files.delete(name.facts)
        raise
    return find(name.text)


def same_state(metadata: Metadata) -> StoredBackup | None:
    """Return the newest undamaged backup of exactly this state of the database that no rule removes soon, so that it
    can be a safety copy; None if there is none.

    If new backups are encrypted, an unencrypted one does not count.
    """
    for name in names():
        if name.state == state_of(metadata) and (name.key_id or not metadata.key_id) and _stays(name):
            # A backup that is damaged, or that this server cannot open, does not count.
            with suppress(InvalidBackup, NoSuchBackup, KeyNeeded, EncryptionUnavailable):
                _check(name)
                return find(name.text)
    return None


def _stays(name: Name) -> bool:
    """Tell whether no rule removes a backup in the next day: BACKUP_KEEP may remove an automatic one, and `prune` an
    older safety copy."""
    age = dt.datetime.now(dt.timezone.utc) - name.created
    return name.kind is BackupKind.MANUAL or (name.kind is BackupKind.SAFETY and age < RECENT)


def _check(name: Name, *, with_photos: bool = False) -> None:
    """Raise `InvalidBackup` if the checksums of a stored backup are wrong. Our own file need not be parsed.

    `with_photos`: raise `StorageFailed` if one of its photos is not there; those were read when they were stored.
    """
    with open_backup(name.text, LOCAL) as file, keys.unlocked(file) as archive:
        for photo in archive.metadata.photos.values() if with_photos else ():
            if not archive.has_photo(photo):
                raise StorageFailed(
                    _("The photo %(name)s was removed while the backup was made. Please try again.")
                    % {"name": photo.name}
                )
        _read_all(archive)


def _read_all(archive: Archive) -> None:
    """Raise `InvalidBackup` if a checksum of the records is wrong."""
    for label in archive.metadata.models:
        for _lines in archive.lines(label):
            pass


def find(name: str) -> StoredBackup:
    """Return the backup of this name. Raises `NoSuchBackup`, `StorageFailed`."""
    return _stored(_find(parse(name)), name_to_undo())


def open_backup(name: str, place: str = "", *, beside: PhotoSource | None = None) -> BinaryIO:
    """Open a backup for reading, with its photos; the caller closes it.

    Raises `NoSuchBackup`, `StorageFailed`; `InvalidBackup` if another backup has taken its place in a location.

    `place`: the location to fetch it from, or `local`; by default the first place that has it undamaged.
    `beside`: where its photos are read from; by default, the same place.
    """
    return with_photos(_opened(name, place), beside or photos.source(place))


def _opened(name: str, place: str) -> BinaryIO:
    kept_name = parse(name)
    # Before it is opened: another file may take its place.
    version = "" if place else _version_here(kept_name)
    here = files.open_file(kept_name.path) if place in ("", LOCAL) else None
    if here is not None and (place or not elsewhere.unseen() or _is_whole(here, kept_name, version)):
        return here
    trouble: BackupError = no_longer_there()
    copies = [(where, copy) for where, copy in _find(kept_name).copies.items() if place in ("", where)]
    if here is not None:
        copies = [(where, copy) for where, copy in copies if where != LOCAL]
    for number, (where, copy) in enumerate(copies):
        with one_of(len(copies) - number):
            try:
                opened = _open_in(where, parse(copy), is_chosen=place != "")
            except (StorageFailed, InvalidBackup) as error:
                trouble = error  # another place may have it
            except NoSuchBackup as error:
                trouble = error if isinstance(trouble, NoSuchBackup) else trouble
            else:
                if here is not None:
                    here.close()
                return opened
    if here is not None:
        return here  # whoever reads it finds what is wrong with it
    raise trouble


def _version_here(name: Name) -> str:
    """Return `files.version_of` a backup in BACKUP_ROOT; "" if nothing can be remembered of the file: it is gone, or in
    another storage, where its version is only its name."""
    return files.version_of(name.path) if files.local_path(name.path) else ""


def _is_whole(file: BinaryIO, name: Name, version: str) -> bool:
    """Tell whether the records of a backup in BACKUP_ROOT are undamaged, as far as the server has its key.

    That of one that was whole is remembered in this process for a while: a preview and the restore after it, say, need
    not read it twice only for this. `version`: see `_version_here`.
    """
    if time.monotonic() < _whole_until.get(version, 0.0):
        return True
    try:
        was_read = _check_fetched(file, name, with_records=True)
    except InvalidBackup:
        return False
    finally:
        file.seek(0)
    if version and was_read:
        _whole_until[version] = time.monotonic() + REMEMBERED
    return True


def _open_in(place: str, copy: Name, *, is_chosen: bool) -> BinaryIO:
    """Open a copy. `is_chosen`: just this one is wanted, so whoever reads it finds out whether it is damaged."""
    if place == LOCAL:
        file = files.open_file(copy.path)
        if file is None:
            raise no_longer_there()
        return file
    file = locations.location(place).fetch(copy.path)
    try:
        try:
            _check_fetched(file, copy, with_records=not is_chosen)
        except InvalidBackup as error:
            text = _("Location “%(name)s”: %(text)s") % {"name": place, "text": error.message}
            raise InvalidBackup(text, error.details) from error
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _check_fetched(file: BinaryIO, name: Name, *, with_records: bool) -> bool:
    """Raise `InvalidBackup` if a file that came from a location is another backup, since whoever can write there can
    exchange two of them; or, `with_records`, if it is damaged. What cannot be read now passes, such as what the server
    has no key for; then this returns False."""
    is_same, was_read = True, False
    with suppress(KeyNeeded, EncryptionUnavailable, StorageFailed):
        try:
            is_same = is_what_its_name_says(file, name)
            if is_same and with_records:
                with keys.unlocked(file) as archive:
                    _read_all(archive)
            was_read = True
        except InvalidBackup:
            if with_records:
                raise
    if not is_same:
        raise another_backup()
    return was_read


def is_what_its_name_says(file: BinaryIO, name: Name) -> bool:
    """Tell whether a file is the backup that its name says: of this state, and with this key.

    Its records are not read. Raises `InvalidBackup`. Errors from reading the file are passed on.
    """
    try:
        with keys.unlocked(file) as archive:
            actual = archive.metadata.key_id, state_of(archive.metadata)
    except KeyNeeded as error:  # it is encrypted with an old key, which this server does not have
        actual = error.key_id, name.state
    return actual == (name.key_id, name.state)


def another_backup() -> InvalidBackup:
    return InvalidBackup(_("The file is another backup than its name says."))


def local_path(name: str) -> str:
    """Return the path of a backup on this machine; "" if it is in another storage."""
    return files.local_path(parse(name).path)


def delete(name: str) -> list[str]:
    """Delete a backup in all places, and the facts about it. Returns the names of places that may still have a copy,
    since the settings do not name them now. Raises `NoSuchBackup`, `StorageFailed`, `WrongSettings`.

    If locations fail, or do not allow it, the backup is deleted in all others before an error is raised that names
    each. The next visit to each location deletes what was still on its way there, and what could not be deleted now; if
    the location has lost copies, as one whose disk is not mounted, any later visit does.
    """
    conf.locations  # noqa: B018  if it is wrong, nobody knows in which places the backup is
    kept_name = _find(parse(name)).name
    former: list[str] = []
    is_sent = kept_name.kind is not BackupKind.SAFETY
    if is_sent:
        try:
            former = elsewhere.note_deletion(kept_name.identity)
        except StorageFailed:  # the disk is full, say: this file makes room
            _delete_here(kept_name)
            former = elsewhere.note_deletion(kept_name.identity)
    failed: list[StorageFailed] = []
    copies = [
        (location, copy)
        for location, seen in elsewhere.seen().items()
        for copy in _same(seen.copies, kept_name)
    ]
    for number, (location, copy) in enumerate(copies):
        try:
            with one_of(len(copies) - number):
                was_there = _delete_there(locations.location(location), copy)
            elsewhere.forget(location, copy.text, was_there=was_there)
        except StorageFailed as error:
            failed.append(error)
    _delete_here(kept_name)
    if is_sent:  # a visit that saw it here until now may have taken the deletion back
        former = elsewhere.note_deletion(kept_name.identity)
    if failed:
        # The next visit deletes it, pinned or not, unless somebody pins it until then.
        with suppress(BackupError):
            note(name, pinned=False)
        raise type(failed[0])(" ".join(dict.fromkeys(error.message for error in failed)))
    files.delete(kept_name.facts)
    return former


def _delete_there(location: locations.Location, copy: Name) -> bool:
    """Delete a copy. Returns whether it was there, as far as the location tells. Raises `LocationFailed`."""
    was_there = True
    try:
        location.size(copy.path)
    except NoSuchBackup:
        was_there = False
    except CannotRead:
        pass
    location.delete(copy.path)
    return was_there


def delete_here(backup: StoredBackup) -> None:
    """Delete a backup from BACKUP_ROOT; its copies stay. Raises `StorageFailed`."""
    _delete_here(parse(backup.name))
    forget(backup.name)


def _delete_here(name: Name) -> None:
    for copy in _same((path.rpartition("/")[2] for path in _paths()), name):
        files.delete(copy.path)


def _same(texts: Iterable[str], name: Name) -> list[Name]:
    """Return those of the file names that are of one backup: an unencrypted file, say, and an encrypted one."""
    return [other for other in parsed(texts) if other.identity == name.identity]


def forget(name: str) -> None:
    """Delete the facts about a backup, unless it is still in some place, or may be. Raises `StorageFailed`."""
    kept_name = parse(name)
    try:
        conf.locations  # noqa: B018  as in `delete`
        elsewhere.seen()  # which must be known for this
        _find(kept_name)
    except WrongSettings:
        pass
    except NoSuchBackup:
        files.delete(kept_name.facts)


def pin(name: str, pinned: bool) -> StoredBackup:
    """Pin a backup, so that no rule removes it, or unpin it. Raises `NoSuchBackup`, `StorageFailed`.

    One that could not be deleted in some location then stays there. The next visit to each location notes there that it
    is pinned; and sends it again if a visit under way was just removing it.
    """
    stored = note(name, pinned=pinned)
    if pinned:
        elsewhere.take_back_deletion(stored.identity)
        with suppress(StorageFailed):  # otherwise that happens with the next automatic backup
            elsewhere.ask_again()
    return stored


def is_pinned(name: str) -> bool:
    """Tell whether a backup is pinned. To be asked right before a rule removes one. Raises `StorageFailed`."""
    return known.load(parse(name)).get("pinned") is True


def note(name: str, **facts: Any) -> StoredBackup:
    """Save facts about a backup. Returns the backup. Raises `NoSuchBackup`, `StorageFailed`."""
    change(name, lambda before: {**before, **facts})
    return find(name)


def note_proof(name: str, proof: Mapping[str, Any], *, is_verdict: bool) -> None:
    """Save the result of a proof: see `facts.with_proof`. Raises `NoSuchBackup`, `StorageFailed`."""
    change(name, lambda facts: known.with_proof(facts, proof, is_verdict=is_verdict))


def forget_proof(name: str, place: str) -> None:
    """Delete the result of the proof of a copy. Raises `NoSuchBackup`, `StorageFailed`."""
    change(name, lambda facts: known.without_proof(facts, place))


def change(name: str, changed: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """Change the facts about a backup: `changed` returns the new ones. Raises `NoSuchBackup`, `StorageFailed`."""
    with files.noting():
        kept_name = _find(parse(name)).name
        known.save(kept_name, changed(known.load(kept_name)))


# -- all of them ---


def backups(kind: BackupKind | None = None, *, start: int = 0, most: int | None = None) -> list[StoredBackup]:
    """List the kept backups in all places, in the order of `names`. `start`: how many to skip; `most`: to list.

    The metadata of each file is read once in a process. Raises `StorageFailed`.
    """
    undo, paths = name_to_undo(), _paths()
    listed = []
    for placed in _placed(paths, kind)[start:][:most]:
        with suppress(NoSuchBackup):  # deleted since
            listed.append(_stored(placed, undo, has_facts=placed.name.facts in paths))
    return listed


def seen_in(location: str, copy: str, content: Content) -> StoredBackup:
    """Return the backup of a file in a location that is not noted yet. `copy`: the name of the file.

    Raises `NoSuchBackup` if it is another file, `StorageFailed`.
    """
    return _stored(_Placed(parse(copy), {location: copy}, content), "")


def of_other_sites(*, most: int) -> list[StoredBackup]:
    """List the newest backups that other sites keep in the same storage. Raises `StorageFailed`."""
    listed = []
    for site in files.other_sites():
        for name in _names_among(files.names_in(KEPT, site), None)[:most]:
            if name.site == site:
                with suppress(NoSuchBackup):  # deleted since
                    placed = _Placed(name, {LOCAL: name.text})
                    listed.append(_stored(placed, "", has_facts=False, site=site))
    return sorted(listed, key=lambda backup: backup.created, reverse=True)[:most]


def open_of_other_site(name: str) -> BinaryIO:
    """Open a backup that another site keeps in the same storage; the caller closes it. Raises `NoSuchBackup`,
    `StorageFailed`."""
    kept_name = parse(name)
    file = files.open_file(kept_name.path, kept_name.site) if kept_name.site in files.other_sites() else None
    if file is None:
        raise no_longer_there()
    return with_photos(file, photos.AnyKey(photos.Photos(photos.Local(kept_name.site))))


def prune(keep: str) -> None:
    """Delete old safety copies. Raises `StorageFailed`.

    These stay: the newest `BACKUP_SAFETY_COPIES`, those younger than a day or dated in the future, pinned ones, and
    `keep`, the one that undoing the last restore needs. After two months without any other kept backup all stay until
    the next restore: a clock that is ahead makes what is minutes old look as old as that.
    """
    now = dt.datetime.now(dt.timezone.utc)
    if not any(dt.timedelta() <= now - name.created < SUSPICIOUS for name in names() if name.text != keep):
        return
    past = [name for name in names(BackupKind.SAFETY) if name.created <= now]
    for name in past[conf.safety_copies :]:
        if now - name.created > YOUNG and name.text != keep and not is_pinned(name.text):
            with suppress(NoSuchBackup):  # deleted since
                delete(name.text)


def name_to_undo() -> str:
    """Return the name of the backup that undoing the last restore would restore; "" if there is nothing to undo."""
    last = load_last_restore()
    return last.safety_copy if last is not None and not last.is_undo else ""


def _stored(placed: _Placed, undo: str, *, has_facts: bool = True, site: str = "") -> StoredBackup:
    name, content = placed.name, placed.content
    if LOCAL in placed.copies:
        content = content_here(name.path, site)
    is_locked = content.is_locked or placed.lacks_key
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
        is_locked=is_locked,
        is_undo=name.text == undo,
        includes_photos=content.includes_photos,
    )

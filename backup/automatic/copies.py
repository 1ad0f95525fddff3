"""Copies kept backups to the locations. A visit to a location sends the backups that are missing there, reads back what
it sent, and only then removes the copies that BACKUP_KEEP does not keep; before that only if there is no room.

Each location is visited in a thread of its own, so that one that is down delays no other, and each has its own count of
tries. No process waits for the next try: when it is due, `automatic.look` starts one after a request. Longer than most
modules, since the steps of a visit share what it found.
"""

from __future__ import annotations

import datetime as dt
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any, BinaryIO, TypeVar, cast

from django.db import connections
from django.utils import translation
from django.utils.translation import gettext as _

from ..archive import Key, encrypt, read_through
from ..conf import OFF, aware_now, conf
from ..database import database_of
from ..exceptions import (
    BackupError,
    CannotDelete,
    CannotList,
    CannotRead,
    Denied,
    EncryptionUnavailable,
    Full,
    InvalidBackup,
    KeyNeeded,
    LocationFailed,
    NoSuchBackup,
    StorageFailed,
)
from ..log import logged, logger
from ..storage import elsewhere, facts, kept, keys, locations
from ..storage.content import Content, content_of
from ..storage.elsewhere import Seen, State
from ..storage.kept import LOCAL, BackupKind, StoredBackup
from ..storage.names import Name, parse, parsed
from ..storage.photos import DOWN
from . import guard, messages
from .copy_notes import CopyNotes
from .photo_copies import PhotoCopies
from .read_back import check, read_back
from .status import retention_of
from .work import Work, work_now

T = TypeVar("T")
#: Minutes to wait before the next try of a location that failed. After the last of them, the next backup tries again …
TRIES = (1, 5, 30)
#: … or, if the schedule is off, so that there is no next backup, the next day.
DAILY = dt.timedelta(days=1)
#: A location that failed for as long as all tries take fails for good, although a backup may begin them anew each time.
ALL_TRIES = dt.timedelta(minutes=sum(TRIES))
#: How many files that were not sent from here a visit looks into, at most. The next visit reads the others.
LEARNED = 100


def is_due() -> bool:
    """Tell whether the next try of a location is due, whether or not a backup is."""
    return any(seen.is_due(aware_now()) for seen in elsewhere.seen().values())


def copy(halted: str = "", *, again: bool = False, user: Any = None) -> None:
    """Visit the locations, and note the state of each. A location that fails raises nothing.

    `halted`: why no old copy may be removed; "" if BACKUP_KEEP applies. `again`: visit only those whose next try is
    due. Otherwise all are visited, and the count of tries starts anew. `user`: who asked for it, for the log. Raises
    `StorageFailed` if a state cannot be noted.
    """
    due = [seen for seen in elsewhere.seen().values() if not again or seen.is_due(aware_now())]
    if not due:
        return
    work = work_now(halted, user)
    done: SimpleQueue[_Visit] = SimpleQueue()
    waiting = {seen.name: _Visit(seen if again else replace(seen, tries=0), work) for seen in due}
    for visit in waiting.values():
        # A daemon thread: the process can end although a location hangs.
        threading.Thread(target=_make, args=(visit, done), name="copies", daemon=True).start()
    while waiting:
        try:
            visit = done.get()
        except BackupError as error:  # the time of the whole run is up
            for visit in waiting.values():
                _note(visit, visit.failed(error.message))
            return
        del waiting[visit.seen.name]
        _note(visit, visit.seen)


def _make(visit: _Visit, done: SimpleQueue[_Visit]) -> None:
    try:
        visit.make()
    finally:
        done.put(visit)  # in any case, since somebody waits for it


def _note(visit: _Visit, outcome: Seen) -> None:
    """Note the state of a location after a visit. `outcome`: its state as the visit saw it.

    Other processes may have noted something meanwhile, so it is merged with what is noted now.
    """

    def merged(current: Seen) -> Seen:
        has_lost = current.has_lost or outcome.has_lost
        stays = {*sorted(current.deleted)[-elsewhere.MOST_DELETED :]} if has_lost else set[str]()
        deleted = current.deleted - (visit.deleted - stays)
        if deleted:
            deleted -= kept.identities_here()  # somebody put them back
        copies = {
            text: content
            for text, content in outcome.copies.items()
            # Else somebody deleted it meanwhile.
            if text in current.copies or (text not in visit.known and parse(text).identity not in deleted)
        }
        was_asked = current.next_try != visit.before.next_try  # somebody asked for another visit meanwhile
        next_try = current.next_try if was_asked else outcome.next_try
        return replace(outcome, copies=copies, next_try=next_try, deleted=deleted, has_lost=has_lost)

    database_of().close_if_lost()  # a visit may take hours
    # First: once the copies are known, none is compared with again until it is about to be removed.
    if visit.newest is not None and visit.found:
        with suppress(NoSuchBackup):
            kept.change(visit.newest.name, lambda facts: guard.merged(facts, visit.found))
    elsewhere.change(outcome.name, merged)
    for name in visit.replaced:
        with suppress(NoSuchBackup):  # deleted since
            kept.forget_proof(name, outcome.name)
    for name in visit.removed:
        kept.forget(name)
    for name, said in visit.said.items():
        with suppress(NoSuchBackup):
            kept.change(name, lambda facts, said=said: {**said, **facts})  # type: ignore[misc]


class _Visit:
    """A visit to one location. It runs in a thread and must not query the database.

    `before`: the state that was noted before the visit. `seen`: the state as the visit sees it. `known`: the copies
    that were noted before. `removed`: the names of backups whose copy the visit removed. `replaced`: the names of
    backups whose copy it replaced by another file. `said`: name of a backup -> facts about it of which only the
    location says something. `newest`: see `Work`. `found`: facts about that one, which the visit found: see `_compare`.
    `deleted`: those of `Seen.deleted` of which no copy is left that the visit knows of.
    """

    def __init__(self, before: Seen, work: Work) -> None:
        self.seen = self.before = before
        self.removed: list[str] = []
        self.replaced: list[str] = []
        self.said: dict[str, dict[str, Any]] = {}
        self.newest = work.newest
        self.found: dict[str, Any] = {}
        self.known: Mapping[str, Content] = before.copies
        self.deleted: Set[str] = frozenset()
        self._work = work
        self._copies = dict(before.copies)
        self._limits: dict[str, str] = {}
        #: The names of copies that could not be deleted. Each is tried once.
        self._undeleted: set[str] = set()
        #: Whether a deletion found the location down. None is tried after it: each might wait as long.
        self._stops_deleting = False
        #: Why something was not done that the next try may do. The visit fails with this, but only at its end.
        self._trouble: LocationFailed | None = None
        self._gone: list[str] = []
        #: The backups that cannot be sent, since they are damaged.
        self._unsent: list[StoredBackup] = []
        #: The names of photos that cannot be sent, and of backups whose photos are not known.
        self._unsent_photos: list[str] = []
        self._unknown: list[str] = []
        self._may_have_shrunk = False  #: since the newest copy there, so that none is removed
        self._there: set[str] = set()  #: the names of all files there, as far as it can be listed
        self._denied: list[str] = []  #: those of them that cannot be replaced
        #: What is noted beside the copies; None if the location cannot be listed.
        self._notes: CopyNotes | None = None
        #: The names of backups there that could not be read. Any photo there may belong to them.
        self._unread: set[str] = set()
        self._damaged: set[str] = set()  #: those of them that were read, and are not what they should be

    def make(self) -> None:
        """Make the visit. Raises nothing: `seen` says how it went."""
        with translation.override(self._work.language):
            try:
                with logged(f"copying to {self.seen.name}", self._work.user) as log:
                    self._do()
                    self.seen = self._outcome()
                    log(f"{len(self._copies)} there now")
            except BackupError as error:
                self.seen = self.failed(error.message)
            except BaseException as error:  # noqa: BLE001  in a thread, nobody else would see the error
                logger.exception("copying to %s failed", self.seen.name)
                self.seen = self.failed(type(error).__name__)
            finally:
                connections.close_all()  # a storage may keep its files in a database

    def _do(self) -> None:
        location = locations.location(self.seen.name)
        location.refuse_backups()
        key = keys.key_for(location.name)
        self._look(location)
        if key is None:
            self._refuse_clear()
        for name in [*map(parse, self._copies)]:
            self._remove_superseded(location, name)
        photos = PhotoCopies(location, self._good_before())
        lacking = [backup for backup in self._work.wanted if self._lacks(backup, key)]
        others = [backup for backup in self._work.wanted if backup not in lacking]
        others += self._work.damaged
        self._with_room(lambda: photos.complete(self._copies, others), location, photos)
        for backup in lacking:
            try:
                self._with_room(partial(self._send, location, backup, key, photos), location, photos, backup)
                self._delete_deleted(location)  # it may take long to send the others
            except NoSuchBackup:
                pass  # it was deleted from BACKUP_ROOT meanwhile
            except InvalidBackup as error:
                logger.warning("%s cannot be sent to %s: %s", backup.name, location.name, error.code)
                if backup.identity not in {name.identity for name in map(parse, self._copies)}:
                    self._unsent.append(backup)  # else a proof says what is wrong with the copy
        self._unsent += [b for b in self._work.damaged if b.identity not in _identities(self._copies)]
        self._unsent_photos, self._unknown = [*photos.unsent.values()], photos.unknown
        if photos.failures and (self._unsent_photos or self._unknown):
            self._trouble = self._trouble or LocationFailed(
                messages.out_of_reach(location.name, photos.failures)
            )
        self.deleted = self._delete_deleted(location)  # after this, none is sent any more
        self._denied += dict.fromkeys(photos.denied)
        if self._notes is not None:
            denied = self._with_room(partial(self._update, self._notes), location, photos)
            self._denied += denied
            if not denied:
                self._tidy(location, photos)
        if self._trouble is not None:
            raise self._trouble

    def _update(self, notes: CopyNotes) -> list[str]:
        noted = {name.identity: self._facts(name) for name in map(parse, self._copies)}
        return notes.update(noted, _identities(self._unread))

    # -- which copies there are ---

    def _look(self, location: locations.Location) -> None:
        """List the location: find the copies that are there, and those that are gone since the last visit."""
        try:
            names = location.names()
        except CannotList as error:
            self._limits[error.code] = error.message
            return
        self._there, self._notes = {*names}, CopyNotes(location, names)
        there = [name for name in parsed(names) if name.site == self._work.site]
        texts = {name.text for name in there}
        seen = elsewhere.seen()[location.name]
        known = self.known = seen.copies
        # What BACKUP_KEEP does not keep may have been removed while the place had another name, or another address.
        rules = retention_of([*self._work.known.values()], self._work.site, self._work.halted)
        goes = {verdict.backup.identity for verdict in rules if not verdict.stays}
        missing = [text for text in known if text not in texts and parse(text).identity not in goes]
        self._gone = [text for text in missing if parse(text).identity not in seen.deleted]
        self.seen = replace(self.seen, has_lost=self.seen.has_lost or bool(missing))
        self._copies = {text: content for text, content in known.items() if text in texts}
        self._delete_deleted(location)
        there = [name for name in there if name.text in self._there]
        texts = {name.text for name in there}
        # The key of a locked copy may be back.
        unknown = texts - {text for text, content in known.items() if not content.is_locked}
        others = sorted((name for name in there if name.text in unknown), key=_created, reverse=True)
        for name in others[:LEARNED]:
            try:
                self._copies[name.text] = self._learned(location, name)
            except (LocationFailed, InvalidBackup, NoSuchBackup) as error:
                if isinstance(error, InvalidBackup):
                    self._damaged.add(name.text)
                if not isinstance(error, CannotRead):
                    logger.warning("%s in %s cannot be used: %s", name.text, location.name, error.code)
        for name in there:
            backup = self._work.known.get(name.identity)
            if said := self._notes.unknown_here(name.identity, backup.facts if backup else {}):
                self.said[name.text] = said
        self._compare(location, others[:LEARNED])
        self._unread = texts - self._copies.keys()

    def _facts(self, name: Name) -> dict[str, Any]:
        """Return the facts about the backup of a copy, here and there."""
        backup = self._work.known.get(name.identity)
        facts = {**self.said.get(name.text, {}), **(backup.facts if backup else {})}
        is_newest = self.newest is not None and name.identity == self.newest.identity
        return guard.merged(facts, self.found) if is_newest else facts

    def _compare(self, location: locations.Location, learned: Sequence[Name]) -> None:
        """Find what was lost since the newest of the copies that were not known: if BACKUP_ROOT was lost, say, it is
        older than the newest backup here. One that shows losses itself is passed over. `learned`: newest first."""
        for name in learned:
            facts = self._facts(name)
            if (
                self.newest is None
                or not (name.text in self._copies and self._is_usable(name.text))
                or not (name.kind is BackupKind.AUTOMATIC and name.created < self.newest.created)
                or guard.open_losses(facts)
            ):
                continue
            try:
                with locations.open_parts(location, name.path) as file:
                    if self._has_all_of(name.text, facts, file) is not None:
                        return
            except StorageFailed as error:  # copies are sent all the same
                self._limits[error.code] = error.message
                return

    def _has_all_of(self, name: str, facts: Mapping[str, Any], file: BinaryIO) -> bool | None:
        """Tell whether the newest backup in BACKUP_ROOT has what an older one has. If it has not, that is noted, and
        nothing is removed. None if it cannot be told. `name`, `facts`, `file`: of the older one."""
        try:
            newest = cast(StoredBackup, self.newest).name
            lost = guard.lost_without(name, facts, file, newest, self._work.with_photos)
        except guard.CANNOT_OPEN as error:
            logger.warning("%s cannot be compared with the newest backup: %s", name, error.code)
            if not isinstance(error, NoSuchBackup):  # else another location does not answer
                self._limits[error.code] = error.message
            return None
        self.found = guard.merged(self.found, guard.as_facts(lost))
        self._may_have_shrunk = bool(lost)
        return not lost

    def _learned(self, location: locations.Location, name: Name) -> Content:
        """Return the content of a file that was not noted before. Raises `LocationFailed`, `InvalidBackup`."""
        with locations.open_parts(location, name.path) as file:
            backup = self._work.known.get(name.identity)
            if backup is None or not backup.is_local:
                return content_of(file)
            check(file, name)  # if this fails, the backup is sent again
            return backup.content(file.seek(0, 2))

    def _lacks(self, backup: StoredBackup, key: Key | None) -> bool:
        """Tell whether a backup must be sent: there is no copy, none encrypted as it should be, or a damaged one."""
        copies = [name for text in self._copies if (name := parse(text)).identity == backup.identity]
        copies = [name for name in copies if self._is_usable(name.text) or backup.is_locked]
        if key is not None:
            copies = [name for name in copies if name.key_id]
        return not copies or self._has_failed(backup)

    def _has_failed(self, backup: StoredBackup) -> bool:
        """Tell whether the last proof of the copy of a backup failed."""
        return facts.proofs_of(backup.facts).get(self.seen.name, {}).get("verdict") == "failed"

    def _good_before(self) -> dict[str, StoredBackup]:
        """Return the copies that were good before this visit, whatever the location lists now: name -> backup."""
        names = {text for text, content in self.known.items() if not content.is_damaged} | self.before.gone
        backups = {text: self._work.known.get(parse(text).identity) for text in sorted(names)}
        return {text: backup for text, backup in backups.items() if backup and not self._has_failed(backup)}

    # -- sending ---

    def _refuse_clear(self) -> None:
        """Raise `EncryptionUnavailable` if copies are encrypted by default, but the key is gone.

        Backups anywhere tell that there was one: a new location has none yet, and others cannot be listed.
        """
        ids = {name.key_id for name in parsed(self._copies)} - {""} | self._work.key_ids
        if ids and conf.encrypt is None:
            raise EncryptionUnavailable(
                _(
                    "Backups are encrypted with the key %(id)s, which is gone from this server. Nothing is sent to "
                    "“%(name)s” in clear: put keys.json back into BACKUP_ROOT, or set BACKUP_KEY. If you want copies "
                    "in clear, set BACKUP_ENCRYPT to off."
                )
                % {"name": self.seen.name, "id": ", ".join(sorted(ids))}
            )

    def _send(
        self, location: locations.Location, backup: StoredBackup, key: Key | None, photos: PhotoCopies
    ) -> None:
        """Send the photos of a backup, then a copy of it, and read that back.

        Raises `LocationFailed`, `NoSuchBackup`, `InvalidBackup`, `StorageFailed`.
        """
        name = parse(backup.copies[LOCAL])
        with (
            kept.open_backup(name.text, LOCAL, beside=photos.source) as clear,
            tempfile.TemporaryFile() as sealed,
        ):
            file: BinaryIO = clear
            try:
                with keys.unlocked(clear) as archive:
                    photos.send(archive, archive.key or key, anew=self._has_failed(backup))
                    if key is not None and not name.key_id:
                        encrypt(archive, cast(BinaryIO, sealed), key)
                        name = parse(f"{name.identity}_{key.id}.zip")
                        file = cast(BinaryIO, sealed)
                    else:
                        read_through(archive)  # what is damaged here must not replace a good copy
            except (KeyNeeded, EncryptionUnavailable):
                if not name.key_id:
                    raise
                # It is encrypted with an old key, which this server does not have: send the file as it is.
                photos.send_locked(name.key_id)
            file.seek(0)
            try:
                location.send(name.path, file)
            except Denied:
                if name.text not in self._there:
                    raise
                self._denied.append(name.text)
                return
            try:
                read_back(location, name, file)
            except CannotRead as error:
                self._limits[error.code] = error.message
            except BaseException:
                if name.text not in self._good_before():  # else the location may only list and read wrongly
                    with suppress(BackupError):
                        location.delete(name.path)  # a damaged copy must not look like a good one
                raise
            else:
                if self._has_failed(backup):
                    self._note_damage(name)
            if self.seen.name in facts.proofs_of(backup.facts):  # of the file that this one replaces
                self.replaced.append(backup.name)
            self._copies[name.text] = backup.content(file.seek(0, 2))
            self._damaged.discard(name.text)
        self._remove_superseded(location, name)

    def _note_damage(self, name: Name) -> None:
        """Note that the other copies of a backup are damaged, once a new one has arrived."""
        for text, content in self._copies.items():
            if parse(text).identity == name.identity and text != name.text:
                self._copies[text] = replace(content, is_damaged=True)

    def _remove_superseded(self, location: locations.Location, name: Name) -> None:
        """Delete the other copies of the same backup that this one makes worthless: damaged ones, those that cannot be
        opened and, if this one is encrypted, the unencrypted one."""
        is_usable = name.text in self._copies and self._is_usable(name.text)
        for other in [*map(parse, {*self._copies, *self._damaged})] if is_usable else ():
            if other.identity == name.identity and other.text != name.text:
                is_damaged = other.text in self._damaged or not self._is_usable(other.text)
                if is_damaged or (name.key_id and not other.key_id):
                    self._delete(location, other)

    def _is_usable(self, text: str) -> bool:
        """Tell whether a copy, by its name, can be opened."""
        content, key_id = self._copies[text], parse(text).key_id
        is_locked = content.is_locked or (key_id and key_id not in self._work.keys_here)
        return not (content.is_damaged or is_locked)

    # -- removing ---

    def _with_room(
        self,
        act: Callable[[], T],
        location: locations.Location,
        photos: PhotoCopies,
        coming: StoredBackup | None = None,
    ) -> T:
        """Return what `act` returns. If it finds no room, old copies are removed first. `coming`: see `_tidy`."""
        try:
            return act()
        except Full:
            self._tidy(location, photos, coming)
            return act()

    def _tidy(
        self, location: locations.Location, photos: PhotoCopies, coming: StoredBackup | None = None
    ) -> None:
        """Remove the copies that BACKUP_KEEP does not keep, and the photos that only these name.

        `coming`: a backup for which there is no room. It counts as if it were there, but for its sake nothing goes that
        would stay without it whatever BACKUP_KEEP says, such as the newest.
        """
        if self._notes is None or self._gone or self._may_have_shrunk or self._stops_deleting:
            return
        self._remove_copies(location, coming)
        is_known = self._unread <= self._copies.keys()
        if is_known and not self._work.halted and not self._stops_deleting:
            try:
                photos.tidy(self._copies)
            except LocationFailed as error:
                self._stops_deleting = isinstance(error, DOWN)
                self._trouble = self._trouble or error

    def _remove_copies(self, location: locations.Location, coming: StoredBackup | None) -> None:
        backups = {name.identity: self._known_as(name, location) for name in map(parse, self._copies)}
        pinned = _identities(text for text, said in self.said.items() if said.get("pinned"))
        site, halted = self._work.site, self._work.halted
        with_it = {**backups, coming.identity: coming} if coming else backups
        bound = {v.backup.identity for v in retention_of([*backups.values()], site, halted, {}) if v.stays}
        goes: list[StoredBackup] = []
        stay: list[StoredBackup] = []
        for verdict in retention_of([*with_it.values()], site, halted):
            backup = verdict.backup
            is_bound = backup.identity in bound or backup is coming
            (stay if verdict.stays or is_bound else goes).append(backup)
        needed = guard.needed_by(goes)
        # Last of all those that others are compared with, and only if these go, too.
        for backup in sorted(goes, key=lambda backup: backup.identity in needed):
            is_needed = backup.identity in guard.needed_by(stay)
            if is_needed or backup.identity in pinned or not self._may_go(location, backup):
                stay.append(backup)
                continue
            if kept.is_pinned(backup.name):  # asked last: comparing takes a while
                stay.append(backup)
                continue
            for name in [*map(parse, self._copies)]:
                is_to_go = name.identity == backup.identity and name.text not in self._undeleted
                if is_to_go and not self._delete(location, name):
                    return

    def _may_go(self, location: locations.Location, backup: StoredBackup) -> bool:
        """Tell whether the newest backup in BACKUP_ROOT has what a copy has that is about to be removed."""
        if self.newest is None or self._may_have_shrunk:
            return False
        texts = [text for text in self._copies if parse(text).identity == backup.identity]
        try:
            with (
                kept.open_backup(backup.name, LOCAL)
                if backup.is_local
                else locations.open_parts(location, parse(max(texts, key=self._is_usable)).path)
            ) as file:
                return self._has_all_of(backup.name, backup.facts, file) is True
        except CannotRead as error:
            self._limits[error.code] = error.message
            return False
        except NoSuchBackup:
            return False  # it was deleted meanwhile
        except LocationFailed:
            raise
        except StorageFailed as error:  # there is no room for comparing
            logger.warning("%s cannot be compared with the newest backup: %s", backup.name, error.code)
            return False

    def _known_as(self, name: Name, location: locations.Location) -> StoredBackup:
        """Return the backup of a copy: as it is known, unless the copy is worse than what is known of."""
        known = self._work.known.get(name.identity)
        if known is None:
            return kept.seen_in(location.name, name.text, self._copies[name.text])
        texts = [text for text in self._copies if parse(text).identity == name.identity]
        is_usable = any(map(self._is_usable, texts))
        is_damaged = all(self._copies[text].is_damaged for text in texts)
        return known if is_usable else replace(known, is_damaged=is_damaged, is_locked=not is_damaged)

    def _delete_deleted(self, location: locations.Location) -> Set[str]:
        """Delete the copies of backups that somebody deleted while a copy was sent, while the location was down, or
        while the copy was not there. Returns those of `Seen.deleted` of which no copy is left, which only a list of
        what is there can tell."""

        def deleted_now() -> Set[str]:
            deleted = elsewhere.seen()[location.name].deleted
            # One that somebody put back into BACKUP_ROOT is not deleted any more.
            return deleted - kept.identities_here() if deleted else deleted

        deleted = deleted_now()
        for name in parsed(sorted(self._there | self._copies.keys())):
            # Asked again: somebody may have pinned it while others were deleted.
            if name.identity in deleted and name.identity in deleted_now():
                self._delete(location, name)
        left = {name.identity for name in parsed(self._there | self._copies.keys())}
        return deleted - left if self._notes is not None else frozenset()

    def _delete(self, location: locations.Location, name: Name) -> bool:
        """Delete a copy. Returns False if that fails, which keeps no backup from being sent."""
        if self._stops_deleting or name.text in self._undeleted:
            self._undeleted.add(name.text)
            return False
        try:
            location.delete(name.path)
        except LocationFailed as error:
            self._undeleted.add(name.text)
            # It may be so for this file only. If not, whatever is asked next says so.
            self._stops_deleting = isinstance(error, DOWN)
            if isinstance(error, CannotDelete):
                self._limits[error.code] = error.message
            else:
                self._trouble = self._trouble or error
            return False
        self._limits.pop(CannotDelete.code, None)
        self._copies.pop(name.text, None)
        for names in (self._there, self._unread, self._damaged):
            names.discard(name.text)
        self.removed.append(name.text)
        logger.info("%s removed from %s", name.text, location.name)
        return True

    # -- the state after the visit ---

    def _outcome(self) -> Seen:
        """Return how the location is after the visit."""
        state, message = State.OK, messages.there(self._copies)
        if self._denied:
            self._limits["cannot_replace"] = messages.not_replaced(self.seen.name, self._denied)
        if self._gone:
            state, message = State.FAILED, messages.gone(self.seen.name, self._gone, self._copies)
        elif self._unsent or self._unsent_photos or self._unknown:
            others = elsewhere.seen().values()
            reasons = (
                messages.unsent(self.seen.name, self._unsent, others),
                messages.unsent_photos(self.seen.name, self._unsent_photos),
                messages.unknown_photos(self.seen.name, self._unknown),
            )
            state, message = State.FAILED, " ".join(filter(None, reasons))
        elif self._limits:
            state, message = State.UNKNOWN, " ".join(self._limits.values())
        elif not self._copies:
            state, message = State.UNKNOWN, _("There is no backup to copy yet.")
        return replace(
            self.seen,
            state=state,
            at=aware_now(),
            message=message,
            tries=0,
            next_try=None,
            is_lasting=state is State.FAILED,
            copies=self._copies,
            limits=self._limits,
            gone=frozenset(),
            since=None,
            reached=aware_now(),
        )

    def failed(self, message: str) -> Seen:
        """Return the state of a location that failed, with the time of the next try. `message`: the reason."""
        now, tries = aware_now(), self.seen.tries + 1
        is_over = tries > len(TRIES)
        since = min(self.seen.since or now, now)  # one in the future was noted while the clock was wrong
        next_try = None if is_over else now + dt.timedelta(minutes=TRIES[tries - 1])
        return replace(
            self.seen,
            state=State.FAILED,
            at=now,
            message=message,
            tries=tries,
            next_try=now + DAILY if is_over and conf.schedule == OFF else next_try,
            is_lasting=is_over or self.seen.is_lasting or now - since >= ALL_TRIES,
            copies=dict(self._copies),
            limits=dict(self._limits),
            gone=(self.before.gone | self._good_before().keys() & {*self._gone}) - self._copies.keys(),
            since=since,
        )


def _created(name: Name) -> dt.datetime:
    return name.created


def _identities(texts: Iterable[str]) -> set[str]:
    return {parse(text).identity for text in texts}

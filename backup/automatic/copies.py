"""Copies of kept backups in the locations: sends what a location lacks, reads back what was sent, and then, and only
then, removes what the rules do not want there any more.

Each location is visited in a thread of its own, so that one that is down delays no other, and has tries of its own. No
process waits for the next try: the look after a request starts one when it has come (`automatic.look`).
"""

from __future__ import annotations

import datetime as dt
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any, BinaryIO, cast

from django.db import connections
from django.utils import formats, timezone, translation
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import babybuddy
from ..archive import Key, encrypt
from ..conf import OFF, aware_now, conf, keep_rules
from ..database.memo import site_id
from ..exceptions import (
    BackupError,
    CannotDelete,
    CannotList,
    CannotRead,
    EncryptionUnavailable,
    InvalidBackup,
    KeyNeeded,
    LocationFailed,
    NoSuchBackup,
)
from ..log import logged, logger
from ..storage import elsewhere, facts, kept, keys, locations
from ..storage.content import Content, content_of
from ..storage.elsewhere import Seen, State
from ..storage.kept import LOCAL, BackupKind, StoredBackup
from ..storage.names import Name, parse, parsed
from .photo_copies import PhotoCopies
from .read_back import check, read_back
from .retention import Verdict, verdicts

#: Minutes after which a location that failed is tried again; after that, with the next backup.
TRIES = (1, 5, 30)
#: The same where no backup is made by itself, so that there is no next one.
DAILY = dt.timedelta(days=1)
#: Files that nobody sent from here which a visit reads the metadata of. Others wait for the next one.
LEARNED = 100


def is_due() -> bool:
    """Tell whether a location is to be visited although no backup is due."""
    return any(seen.is_due(aware_now()) for seen in elsewhere.seen().values())


def copy(halted: str = "", *, again: bool = False) -> None:
    """Visit the locations. How each is, is noted: nothing is raised for one that fails.

    `halted`: why no old copy is removed; "" if the rules hold. `again`: only those whose next try has come; else
    all, and those that failed have all of their tries again. Raises `StorageFailed` if that cannot be noted.
    """
    now = aware_now()
    due = [seen for seen in elsewhere.seen().values() if not again or seen.is_due(now)]
    if not due:
        return
    work = _work(halted)
    done: SimpleQueue[_Visit] = SimpleQueue()
    waiting = {seen.name: _Visit(seen if again else replace(seen, tries=0), work) for seen in due}
    for visit in waiting.values():
        # A daemon, so that one that hangs is not waited for when the process ends.
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
    visit.make()
    done.put(visit)


def _note(visit: _Visit, found: Seen) -> None:
    """Note how a location is after a visit. `found`: as the visit found it; others may have noted something since."""

    def merged(current: Seen) -> Seen:
        copies = {
            text: content
            for text, content in found.copies.items()
            if text in current.copies or text not in visit.known  # else it was deleted by hand
        }
        was_asked = current.next_try != visit.before.next_try  # for what the visit did not know of yet
        return replace(found, copies=copies, next_try=current.next_try if was_asked else found.next_try)

    elsewhere.change(found.name, merged)
    for name in visit.replaced:
        with suppress(NoSuchBackup):  # deleted since
            kept.forget_proof(name, found.name)
    for name in visit.removed:
        kept.forget(name)


@dataclass(frozen=True)
class _Work:
    """What is to be done in each location. `known`: all backups that are known, by `StoredBackup.identity`. `wanted`:
    those to copy, newest first. `halted`: see `retention.verdicts`. `language`: of messages."""

    known: Mapping[str, StoredBackup]
    wanted: Sequence[StoredBackup]
    halted: str
    site: str
    language: str | None


def _work(halted: str) -> _Work:
    """Return what is to be done: to copy what is here, but for safety copies and what is about to be removed."""
    backups, site = kept.backups(), site_id()
    here = [backup for backup in backups if backup.is_local and backup.site == site and not backup.is_damaged]
    goes = {verdict.backup.name for verdict in _retention(here, site, halted) if not verdict.stays}
    wanted = [b for b in here if b.kind is not BackupKind.SAFETY and b.name not in goes]
    known = {backup.identity: backup for backup in backups}
    return _Work(known, wanted, halted, site, translation.get_language())


def _retention(backups: Sequence[StoredBackup], site: str, halted: str) -> list[Verdict]:
    return verdicts(
        backups,
        keep_rules(conf.keep),
        site=site,
        zone=babybuddy.user_timezone(None),
        now=aware_now(),
        halted=halted,
    )


class _Visit:
    """A visit to one location. Nothing in it asks the database: it is made in a thread.

    `before`: how the location was known to be. `seen`: how it is, as far as the visit came. `known`: what was known to
    lie there. `removed`: the names of backups whose copy was removed. `replaced`: of those whose copy was replaced by
    another file.
    """

    def __init__(self, before: Seen, work: _Work) -> None:
        self.seen = self.before = before
        self.removed: list[str] = []
        self.replaced: list[str] = []
        self.known: Mapping[str, Content] = before.copies
        self._work = work
        self._copies = dict(before.copies)
        #: Whether it lets us delete is only known once something was to be deleted.
        self._limits = {code: text for code, text in before.limits.items() if code == CannotDelete.code}
        self._gone: list[str] = []
        self._is_listed = False
        #: The names of files there that nobody could read: they may need any of the photos.
        self._unread: set[str] = set()

    def make(self) -> None:
        """Make the visit. Nothing is raised."""
        with translation.override(self._work.language):
            try:
                with logged(f"copying to {self.seen.name}", None) as log:
                    self._do()
                    self.seen = self._found()
                    log(f"{len(self._copies)} there now")
            except BackupError as error:
                self.seen = self.failed(error.message)
            except Exception as error:  # noqa: BLE001  in a thread of its own: nobody else would hear of it
                logger.exception("copying to %s failed", self.seen.name)
                self.seen = self.failed(type(error).__name__)
            finally:
                connections.close_all()  # a storage may keep its files in a database

    def _do(self) -> None:
        location = locations.location(self.seen.name)
        key = keys.key_for(location.name)
        self._look(location)
        if key is None:
            self._refuse_clear()
        for name in [*map(parse, self._copies)]:
            self._remove_clear(location, name)
        photos = PhotoCopies(location)
        lacking = [backup for backup in self._work.wanted if self._lacks(backup, key)]
        photos.complete(self._copies, [backup for backup in self._work.wanted if backup not in lacking])
        for backup in lacking:
            with suppress(NoSuchBackup):  # deleted here meanwhile
                self._send(location, backup, key, photos)
        if self._is_listed and not self._gone:
            self._tidy(location)
            if not self._work.halted and self._unread <= self._copies.keys():
                photos.tidy(self._copies)

    # -- what is there ---

    def _look(self, location: locations.Location) -> None:
        """See what lies there, and what does not any more."""
        try:
            there = [name for name in parsed(location.names()) if name.site == self._work.site]
        except CannotList as error:
            self._limits[error.code] = error.message
            return
        self._is_listed = True
        texts = {name.text for name in there}
        known = self.known = elsewhere.seen()[location.name].copies
        self._gone = [text for text in known if text not in texts]
        self._copies = {text: content for text, content in known.items() if text in texts}
        others = sorted((name for name in there if name.text not in known), key=_created, reverse=True)
        for name in others[:LEARNED]:
            try:
                self._copies[name.text] = self._learned(location, name)
            except (LocationFailed, InvalidBackup) as error:
                if not isinstance(error, CannotRead):
                    logger.warning("%s in %s cannot be used: %s", name.text, location.name, error.code)
        self._unread = texts - self._copies.keys()

    def _learned(self, location: locations.Location, name: Name) -> Content:
        """Return what a file holds that was not seen there before. Raises `LocationFailed`, `InvalidBackup`."""
        with locations.open_parts(location, name.path) as file:
            backup = self._work.known.get(name.identity)
            if backup is None or not backup.is_local:
                return content_of(file)
            check(file, name)  # else it is sent again
            return _content(backup, file.seek(0, 2))

    def _lacks(self, backup: StoredBackup, key: Key | None) -> bool:
        copies = [name for text in self._copies if (name := parse(text)).identity == backup.identity]
        if key is not None:
            copies = [name for name in copies if name.key_id]
        last = facts.proofs_of(backup.facts).get(self.seen.name, {})
        return not copies or last.get("verdict") == "failed"

    # -- what is sent ---

    def _refuse_clear(self) -> None:
        """Raise `EncryptionUnavailable` if copies were encrypted by default, and the key is gone since."""
        ids = sorted({parse(text).key_id for text in self._copies} - {""})
        if ids and conf.encrypt is None:
            raise EncryptionUnavailable(
                _(
                    "The copies in “%(name)s” are encrypted with the key %(id)s, which is gone from this server. "
                    "Nothing is sent there in clear: put keys.json back into BACKUP_ROOT, or set BACKUP_KEY. If you "
                    "want copies in clear, set BACKUP_ENCRYPT to off."
                )
                % {"name": self.seen.name, "id": ", ".join(ids)}
            )

    def _send(
        self, location: locations.Location, backup: StoredBackup, key: Key | None, photos: PhotoCopies
    ) -> None:
        """Send a copy, after its photos, and read it back.

        Raises `LocationFailed`, `NoSuchBackup`, `InvalidBackup`, `StorageFailed`.
        """
        name = parse(backup.copies[LOCAL])
        with kept.open_backup(name.text, LOCAL) as clear, tempfile.TemporaryFile() as sealed:
            file: BinaryIO = clear
            is_failed = facts.proofs_of(backup.facts).get(self.seen.name, {}).get("verdict") == "failed"
            try:
                with keys.unlocked(clear) as archive:
                    photos.send(archive, archive.key or key, anew=is_failed)
                    if key is not None and not name.key_id:
                        encrypt(archive, cast(BinaryIO, sealed), key)
                        name = parse(f"{name.identity}_{key.id}.zip")
                        file = cast(BinaryIO, sealed)
            except (KeyNeeded, EncryptionUnavailable):
                if not name.key_id:
                    raise
                photos.send_locked(name.key_id)  # an old key, which this server has not: it goes as it is
            file.seek(0)
            location.send(name.path, file)
            try:
                read_back(location, name, file)
            except CannotRead as error:
                self._limits[error.code] = error.message
            except BaseException:
                with suppress(BackupError):
                    location.delete(name.path)  # else it would be taken for a good one
                raise
            if self.seen.name in facts.proofs_of(backup.facts):  # of the file that was there before
                self.replaced.append(backup.name)
            self._copies[name.text] = _content(backup, file.seek(0, 2))
        self._remove_clear(location, name)

    def _remove_clear(self, location: locations.Location, name: Name) -> None:
        """Delete the same copy in clear, if this one is encrypted."""
        clear = f"{name.identity}.zip"
        if name.key_id and clear in self._copies:
            self._delete(location, parse(clear))

    # -- what goes ---

    def _tidy(self, location: locations.Location) -> None:
        """Remove what the rules do not want there any more."""
        backups = {
            name.identity: self._work.known.get(name.identity)
            or kept.seen_in(location.name, name.text, self._copies[name.text])
            for name in map(parse, self._copies)
        }
        for verdict in _retention([*backups.values()], self._work.site, self._work.halted):
            if verdict.stays or kept.is_pinned(verdict.backup.name):
                continue
            for name in [*map(parse, self._copies)]:
                if name.identity == verdict.backup.identity and not self._delete(location, name):
                    return

    def _delete(self, location: locations.Location, name: Name) -> bool:
        """Delete a copy. Returns whether the location lets us."""
        try:
            location.delete(name.path)
        except CannotDelete as error:
            self._limits[error.code] = error.message
            return False
        self._limits.pop(CannotDelete.code, None)
        self._copies.pop(name.text, None)
        self.removed.append(name.text)
        logger.info("%s removed from %s", name.text, location.name)
        return True

    # -- how it is ---

    def _found(self) -> Seen:
        state, message = State.OK, _there(self._copies)
        if self._gone:
            state, message = State.FAILED, self._gone_message()
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
        )

    def _gone_message(self) -> str:
        sent = {parse(text).identity for text in self._copies}
        lost = [text for text in self._gone if parse(text).identity not in sent]
        message = ngettext(
            "%(n)s copy in “%(name)s” is gone, and not by this app: %(copy)s.",
            "%(n)s copies in “%(name)s” are gone, and not by this app: %(copy)s and others.",
            len(self._gone),
        ) % {"n": len(self._gone), "name": self.seen.name, "copy": self._gone[0]}
        if not lost:
            return f"{message} " + _("What was lost was sent again.")
        return f"{message} " + _("If nobody deleted them on purpose, find out who can write there.")

    def failed(self, message: str) -> Seen:
        """Return that it failed, and when it is tried again."""
        now, tries = aware_now(), self.seen.tries + 1
        is_over = tries > len(TRIES)
        next_try = None if is_over else now + dt.timedelta(minutes=TRIES[tries - 1])
        return replace(
            self.seen,
            state=State.FAILED,
            at=now,
            message=message,
            tries=tries,
            next_try=now + DAILY if is_over and conf.schedule == OFF else next_try,
            is_lasting=is_over or self.seen.is_lasting,
            copies=dict(self._copies),
            limits=dict(self._limits),
        )


def _created(name: Name) -> dt.datetime:
    return name.created


def _content(backup: StoredBackup, size: int) -> Content:
    """Return what the copy of a backup holds. `size`: its own, in bytes."""
    return Content(
        size,
        backup.label,
        backup.by,
        backup.baby_buddy,
        backup.counts,
        backup.photos,
        backup.photos_size,
        backup.warnings,
        backup.left_out,
        is_locked=backup.is_locked,
    )


def _there(copies: Mapping[str, Content]) -> str:
    """Return "7 backups, the newest of Nov. 26, 2026, 3:12 a.m."; "" if there is none."""
    if not copies:
        return ""
    newest = timezone.localtime(max(parse(text).created for text in copies))
    return ngettext(
        "%(n)s backup, of %(date)s",
        "%(n)s backups, the newest of %(date)s",
        len(copies),
    ) % {"n": len(copies), "date": formats.date_format(newest, "DATETIME_FORMAT")}


def test(name: str, user: Any) -> Seen:
    """Write a small file into a location, read it back and delete it. Notes how that went, and returns it.

    `user`: who said so; None is nobody.
    If it works, what the location lacks is sent with the next look. Raises `NoSuchLocation`, `StorageFailed`.
    """
    location, now = locations.location(name), aware_now()
    found: dict[str, Any] = {"at": now, "next_try": now}
    try:
        with logged(f"test of {name}", user) as log:
            limits = {error.code: error.message for error in location.test()}
            log(", ".join(limits) or "works")
    except LocationFailed as error:
        found |= {"state": State.FAILED, "message": error.message}
    else:
        message = " ".join(limits.values()) or _(
            "The test worked: a file was written, read back and deleted."
        )
        # Nothing but a copy tells whether copies are there, and a visit makes one now.
        was_good = elsewhere.seen()[name].state is State.OK
        state = State.OK if was_good and not limits else State.UNKNOWN
        found |= {"state": state, "message": message, "limits": limits, "tries": 0, "is_lasting": False}
    elsewhere.change(name, lambda seen: replace(seen, **found))
    return elsewhere.seen()[name]

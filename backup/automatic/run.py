"""Making an automatic backup, in this order: write, read back and check; prove; copy to each location; then, and only
then, retention; then notices.

It is the same for the child process, `manage.py backup --automatic` and `POST /backup/run/`.
"""

from __future__ import annotations

import datetime as dt
import math
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import services
from ..conf import OFF, aware_now, conf
from ..database import Job, database_of
from ..exceptions import BackupError, Busy, InvalidBackup, KeyNeeded, NoSuchBackup, StorageFailed
from ..keeping import Keeping
from ..leftovers import remove_leftovers
from ..log import logged, logger
from ..options import SILENT, Reporter
from ..storage import facts, files, kept, keys, photos, state
from ..storage.kept import BackupKind, StoredBackup
from ..storage.keys import Place
from ..storage.named import photos_named
from . import copies, guard, notices, status, turns
from .status import State
from .unchanged import is_unchanged

#: The fact beside a backup: when all photos were read for it, not only those that may be new.
PHOTOS_READ = "photos_read"
#: Seconds between two looks whether a restore has ended.
PATIENCE = 0.5
#: Seconds that a run gets to end by itself when its time is up, twice.
LAST_SECONDS = 60


@dataclass(frozen=True)
class Outcome:
    """What a run did. `made`: whether there is a new file. `backup`: the newest automatic one; None if another
    process makes the first one right now. `message`: what happened, in words. `lacking`: what the backup lacks and
    somebody has to see to, in words. `has_mended`: whether photos were stored anew, since they were damaged."""

    made: bool
    backup: StoredBackup | None
    message: str
    lacking: str = ""
    has_mended: bool = False

    def as_json(self) -> dict[str, Any]:
        backup = self.backup
        return {
            "name": backup.name if backup else None,
            "kind": BackupKind.AUTOMATIC.value,
            "records": backup.records if backup else None,
            "made": self.made,
        }


def run(*, now: bool = False, user: Any = None, reporter: Reporter = SILENT) -> Outcome:
    """Make an automatic backup if one is due. `now`: although none is due. `user`: who said so; None is nobody.

    Among all processes and machines one makes it; for the others there is nothing to do. Raises `BackupError` if it
    fails; people were told then. What becomes of old backups, and of the notices, is told by the status.
    """
    before = status.status()
    if not (now or _is_due() or copies.is_due()):
        status.remember(before)
        return Outcome(False, before.last, _("No backup is due."))
    with _alone() as alone:
        if not alone:
            return Outcome(False, before.last, _("An automatic backup is being made right now."))
        if now or _is_due():  # else another process has made it meanwhile
            return _run(user, reporter)
        found = _copy_again()
    return Outcome(False, found.last, _("No backup is due."))


def copy_again() -> None:
    """Make the copies that are due, if no other process does right now. Whatever fails is told by the status.

    Raises `StorageFailed` if that cannot be noted.
    """
    with _alone() as alone:
        if alone:
            _copy_again()


def tell_of_proof() -> None:
    """Tell people and programs where a proof by hand changed how things are: the next run may be a day away.

    A run that is under way does it at its end. Raises `StorageFailed` if it cannot be noted that they were told.
    """
    with _alone() as alone:
        if alone:
            _tell()


def _copy_again() -> status.Status:
    copies.copy(status.halted(), again=True)
    return _tell()


def _tell() -> status.Status:
    """Leave for other processes how things are, and tell people and programs. Returns it."""
    found = status.status()
    status.remember(found)
    _tell_once(found)
    return found


def _is_due() -> bool:
    """Tell whether a backup is due by the schedule, or again since the last run failed, in whatever it was."""
    now, last = aware_now(), status.last_run()
    try:
        schedule = status.current_schedule()
        if schedule is None:
            return False
        newest = status.newest(status.here(kept.backups(BackupKind.AUTOMATIC)), now)
    except StorageFailed:  # the run will fail, and say so
        return True
    return (last is not None and last.error != "") or schedule.is_due(status.good_until(newest), now)


@contextmanager
def _alone() -> Iterator[bool]:
    """Hold the lock of automatic backups. Yields whether it was free."""
    with ExitStack() as stack:
        try:
            stack.enter_context(database_of().lock(Job.AUTOMATIC_BACKUP))
        except Busy:
            yield False
        else:
            yield True


def _run(user: Any, reporter: Reporter) -> Outcome:
    before, last = status.status(), status.last_run() or state.LastRun(aware_now())
    if before.state is State.OVERDUE and last.is_unfinished:
        _tell_once(before)  # those before this one were killed, and told nobody
        last = status.last_run() or last
    status.save_run(replace(last, at=aware_now(), is_unfinished=True))
    notices.ping("/start")
    try:
        with logged("automatic backup", user) as log:
            _wait_for_restore(conf.automatic_seconds if user is None else 0)
            outcome = _make(user, reporter)
            log(outcome.message.rstrip("."))
        if outcome.has_mended:
            _prove_again(reporter)
        _prove(outcome.backup if outcome.made else None, reporter)
        trouble = _copy() or _retain()
    except Exception as error:
        _note_run(error.message if isinstance(error, BackupError) else type(error).__name__)
        _conclude("/fail")
        raise
    _note_run(outcome.lacking or trouble)
    _conclude("")
    return outcome


def _wait_for_restore(seconds: float) -> None:
    """Wait while somebody restores. A restore that begins later does no harm: a backup is of one moment.

    Raises `Busy` if it takes longer. (Whoever sent a request does not wait for an answer as long as a child can.)
    """
    until = time.monotonic() + seconds
    database = database_of()
    while True:
        try:
            with database.lock(Job.RESTORE):
                return
        except Busy:
            if time.monotonic() >= until:
                raise
            time.sleep(PATIENCE)


def _make(user: Any, reporter: Reporter) -> Outcome:
    """Make a backup and keep it; where nothing has changed, the newest one is good until now instead."""
    with suppress(StorageFailed):
        files.tidy()  # what killed processes left
    with suppress(Busy), database_of().lock(Job.RESTORE):
        remove_leftovers()
    backups = status.here(kept.backups(BackupKind.AUTOMATIC))
    newest = status.newest(backups, aware_now())
    photos_read = max(
        (str(at) for b in backups if _is_of_this_week(at := b.facts.get(PHOTOS_READ))), default=""
    )
    reads_all = not photos_read
    keeping = Keeping(reads_all=reads_all, mends=not all(map(status.is_good, backups)))
    with tempfile.TemporaryFile() as file:
        moment = aware_now()
        # One that lacks what nobody can read is better than none. The status says so, and no rule takes it for whole.
        metadata = services.create_backup(
            file,
            user=user,
            reporter=reporter,
            place=Place.LOCAL,
            leave_out=True,
            photos=conf.photos,
            store=keeping,
        )
        # A backup that read few of them hands on when all were read: the one that did may go before the week is over.
        noted: dict[str, Any] = {PHOTOS_READ: photos_read or moment.isoformat()} if metadata.photos else {}
        lacking = _lacking(keeping.lacking)
        shrunk: list[guard.Loss] = []
        if newest is not None:
            try:
                with kept.open_backup(newest.name) as source, keys.unlocked(source) as then:
                    file.seek(0)
                    with keys.unlocked(file) as today:
                        shrunk = guard.losses(then, today)  # first: the rest of that file may be damaged
                        if status.is_good(newest) and is_unchanged(then, today):
                            same = kept.note(newest.name, **noted, **{status.UNCHANGED: moment.isoformat()})
                            message = _("Nothing has changed since the newest backup.")
                            return Outcome(False, same, message, lacking, keeping.mended > 0)
            except (InvalidBackup, NoSuchBackup, KeyNeeded) as error:
                # It is damaged, deleted, or cannot be opened: a new one is all the more needed.
                logger.warning("%s cannot be compared with: %s", newest.name, error.code)
        file.seek(0)
        if shrunk:
            noted[guard.SHRUNK] = [loss.as_json() for loss in shrunk]
        made = kept.keep(file, metadata, BackupKind.AUTOMATIC, facts=noted)
    message = _("%(n)s records, kept as %(name)s.") % {"n": made.records, "name": made.name}
    return Outcome(True, made, message, lacking, keeping.mended > 0)


def _lacking(photos: int) -> str:
    if not photos:
        return ""
    return ngettext(
        "The backup was made, but %(n)s photo is not in it: there is no room on the disk of BACKUP_ROOT.",
        "The backup was made, but %(n)s photos are not in it: there is no room on the disk of BACKUP_ROOT.",
        photos,
    ) % {"n": photos}


def _prove(made: StoredBackup | None, reporter: Reporter) -> None:
    """Prove the backup that was made, and the older one whose turn it is. The verdicts are notes beside the files."""
    if conf.prove == OFF:
        return
    try:
        if made is not None:
            known = _photos_read_lately(status.here(kept.backups(BackupKind.AUTOMATIC)))
            services.prove_kept(made.name, place=kept.LOCAL, reporter=reporter, photos_known=known)
        backups = kept.backups(BackupKind.AUTOMATIC)
        if conf.prove == "local":
            backups = status.here(backups)
        turn = turns.next_to_prove(backups, aware_now())
        if turn is not None and not _is_late():
            place = kept.LOCAL if conf.prove == "local" else turns.place_to_prove(turn, backups)
            services.prove_kept(turn.name, place=place, reporter=reporter)
    except NoSuchBackup:
        pass  # deleted since
    except StorageFailed as error:
        logger.warning("the proof could not be noted: %s", error.code)


def _prove_again(reporter: Reporter) -> None:
    """Prove those that failed, since a photo was the reason, and is mended. The verdicts are notes beside the files."""
    for backup in status.here(kept.backups(BackupKind.AUTOMATIC)) if conf.prove != OFF else ():
        if not _is_late() and facts.proofs_of(backup.facts).get(kept.LOCAL, {}).get("verdict") == "failed":
            with suppress(NoSuchBackup, StorageFailed):  # deleted since; it is tried again by hand
                services.prove_kept(backup.name, place=kept.LOCAL, reporter=reporter)


def _photos_read_lately(backups: Sequence[StoredBackup]) -> set[str]:
    """Return the checksums of the photos that a proof of one of these read less than a week ago: so a night's proof
    costs the new photos only. None if a proof failed since, of which a photo may be the reason."""
    known: set[str] = set()
    for backup in backups if all(map(status.is_good, backups)) else ():
        proof = facts.proofs_of(backup.facts).get(kept.LOCAL, {})
        if proof.get("verdict") == "proved" and proof.get("photos") and not proof.get("photos_known"):
            if not _is_of_this_week(proof["at"]):
                continue
            with (
                suppress(BackupError),
                kept.open_backup(backup.name, kept.LOCAL) as file,
                keys.unlocked(file) as archive,
            ):
                known |= {photo.sha256 for photo in archive.metadata.photos.values()}
    return known


def _is_of_this_week(text: Any) -> bool:
    """Tell whether a moment, in ISO 8601, is less than a week ago."""
    try:
        return dt.timedelta(0) <= aware_now() - dt.datetime.fromisoformat(text) < turns.EVERY
    except (TypeError, ValueError):
        return False


def _copy() -> str:
    """Copy to each location. Returns what went wrong here; "" if nothing did. What goes wrong there is noted."""
    try:
        copies.copy(status.halted())
    except BackupError as error:
        return _("The backup was made, but not copied. %(reason)s") % {"reason": error.message}
    return ""


def _retain() -> str:
    """Delete what the rules do not want any more. Returns what went wrong; "" if nothing did."""
    try:
        # Not while somebody restores, who may be about to name one for undo. Then they go with the next run.
        with suppress(Busy), database_of().lock(Job.RESTORE), files.noting():  # nor while somebody pins one
            for verdict in status.retention():
                if not verdict.stays:
                    kept.delete_here(verdict.backup)
                    logger.info("automatic backup %s removed by BACKUP_KEEP", verdict.backup.name)
        _remove_photos()
    except BackupError as error:
        return _("The backup was made, but old ones could not be removed. %(reason)s") % {
            "reason": error.message
        }
    return ""


def _remove_photos() -> None:
    """Delete the stored photos that no kept backup names any more. Raises `StorageFailed`."""
    if status.halted():
        return
    try:
        named = photos_named()
    except InvalidBackup:
        return  # a damaged one may name any of them: it is for somebody to look at, and delete
    if removed := photos.remove_unnamed(named.files, named.locked):
        logger.info("%s photos removed that no kept backup names", removed)


# -- how it went, and who is told ---


def _note_run(error: str) -> None:
    last = status.last_run()
    run = state.LastRun(
        at=aware_now(),
        error=error,
        tries=(last.tries if last else 0) + 1 if error else 0,
        told=last.told if last else "",
    )
    status.save_run(run)


def _conclude(suffix: str) -> None:
    """Leave for other processes how things are, and tell people and programs."""
    _tell()
    notices.ping(suffix)


def _tell_once(found: status.Status) -> None:
    """Tell people of a state that is another one than the one that they know. The first success is no news."""
    last = status.last_run() or state.LastRun(aware_now())
    if found.told == last.told:
        return
    status.save_run(replace(last, at=aware_now(), told=found.told))
    if last.told or found.state.is_trouble or found.lasting:
        notices.tell(found)


# -- its time ---


#: When the time of a run is up, by `time.monotonic`.
_end = math.inf


def _is_late() -> bool:
    """Tell whether the time of this run is up: what is left is for the copies."""
    return time.monotonic() >= _end


@contextmanager
def time_limit() -> Iterator[None]:
    """End what is done inside after BACKUP_AUTOMATIC_SECONDS, by an error. A proof that is ended so could tell nothing;
    what comes after it ends by another error, and, if that does not end it, at once."""
    global _end
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return
    seconds = conf.automatic_seconds
    errors = 0

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal errors
        errors += 1
        if errors == 2:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LAST_SECONDS)
        raise BackupError(
            _("It took more than %(seconds)s seconds (BACKUP_AUTOMATIC_SECONDS).") % {"seconds": seconds}
        )

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    _end = time.monotonic() + seconds
    try:
        yield
    finally:
        _end = math.inf
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

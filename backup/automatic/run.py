"""Makes an automatic backup. The order matters: write the file, read it back and check it; prove it; copy it to each
location; only then remove old ones; then send notices.

The child process, `manage.py backup --automatic` and `POST /backup/run/` all use this. Longer than most modules, since
the order is easiest to see in one place.
"""

from __future__ import annotations

import datetime as dt
import math
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from types import FrameType
from typing import Any

from django.db import DatabaseError
from django.utils.translation import gettext as _

from .. import services
from ..conf import AUTOMATIC_SECONDS, OFF, aware_now, conf, if_right
from ..database import Job, database_of, interface_explained
from ..database.errors import already_running
from ..exceptions import BackupError, Busy, InvalidBackup, NoSuchBackup, StorageFailed, WrongSettings
from ..keeping import Keeping
from ..leftovers import remove_leftovers
from ..log import as_our_errors, logged, logger
from ..options import SILENT, Reporter
from ..storage import facts, files, kept, keys, state
from ..storage.kept import BackupKind, StoredBackup
from ..storage.keys import Place
from ..storage.named import remove_unnamed
from . import copies, guard, messages, notices, status, turns
from .status import State
from .unchanged import is_unchanged

#: A fact beside a backup: when all photos were last read for a backup, not only those that may be new.
PHOTOS_READ = "photos_read"
#: After so many runs in a row that were killed, people are told. One that is killed once is made up for soon.
KILLED_RUNS = 2
#: Seconds to wait before checking again whether a restore has ended.
PATIENCE = 0.5
#: Seconds that a run has for ending by itself when its time is up. It gets them twice: see `time_limit`.
LAST_SECONDS = 60


@dataclass(frozen=True)
class Outcome:
    """What a run did. `made`: whether there is a new file. `backup`: the newest automatic backup; None if another
    process makes the first one right now. `message`: what happened, for people. `lacking`: what is missing in the
    backup, so that somebody has to act, for people. `has_mended`: whether damaged photos were stored anew. `error`: why
    the run failed all the same, for people; "" if it did not."""

    made: bool
    backup: StoredBackup | None
    message: str
    lacking: str = ""
    has_mended: bool = False
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        backup = self.backup
        content = {
            "name": backup.name if backup else None,
            "kind": BackupKind.AUTOMATIC.value,
            "records": backup.records if backup else None,
            "made": self.made,
        }
        return {**content, "error": self.error} if self.error else content


def run(*, now: bool = False, user: Any = None, reporter: Reporter = SILENT) -> Outcome:
    """Make an automatic backup if one is due. `now`: make it in any case. `user`: who asked for it; None: nobody did.

    Of all processes and machines, only one makes it; the others do nothing. Raises `BackupError` if it fails, after
    people were notified. If only removing old backups or copying fails, `Outcome.error` and the status say so.
    """
    with ExitStack() as stack:
        if user is not None:
            stack.enter_context(notices.in_request())
        before = status.status()
        try:
            is_due = now or _is_due() or copies.is_due() or _is_ping_due(before)
        except WrongSettings as error:
            _conclude(error.message)
            raise
        if not is_due:
            status.remember(before)
            return _not_due(before)
        try:
            ensure_alone = stack.enter_context(_alone())
        except BackupError as error:
            _conclude(error.message)
            raise
        if ensure_alone is None:
            status.put_off()
            return Outcome(False, before.last, already_running(Job.AUTOMATIC_BACKUP).message)
        if now or _is_due():  # asked again: another process may have made it meanwhile
            return _run(user, reporter, ensure_alone)
        return _not_due(_copy_again())


def _not_due(current: status.Status) -> Outcome:
    return Outcome(False, current.last, _("No backup is due."))


def copy_again() -> bool:
    """Make the copies that are due, and return True. If a location fails, the status says so. Returns False if another
    process makes backups or copies now, so that nothing was done.

    Raises `StorageFailed` if a state cannot be noted.
    """
    with _alone() as alone:
        if alone:
            _copy_again()
        return alone is not None


def notify_of_proof() -> None:
    """Send notices if a proof that somebody started changed the state: the next run may be a day away.

    If a run is under way, it will do so at its end. Raises `StorageFailed` if the notices cannot be noted as sent.
    """
    with notices.in_request(), _alone() as alone:
        if alone:
            _notify_between_runs()


def _copy_again() -> status.Status:
    copies.copy(status.halted(), again=True)
    return _notify_between_runs()


def _notify_between_runs() -> status.Status:
    """Do as `_save_and_notify` does. If the last run pinged a failure, or its ping did not arrive, and all is well now,
    ping that, too: the next run may be a day away."""
    current, last = _save_and_notify(), status.last_run()
    if last is not None and (last.pinged_failure or last.pings_lost) and status.is_well(current, last.error):
        _ping_success(current, is_again=True)
    return current


def _ping_success(current: status.Status, *, is_again: bool = False) -> None:
    """Ping a success, and note whether that arrived. `is_again`: it is not the first time since the run."""
    arrives, last = notices.ping(), status.last_run() or state.LastRun(aware_now())
    lost = 0 if arrives else last.pings_lost + is_again
    if last.pinged_failure or last.pings_lost != lost:
        status.save_run(replace(last, at=aware_now(), pinged_failure=False, pings_lost=lost))
        status.remember(current)  # which says when it is repeated


def _is_ping_due(current: status.Status) -> bool:
    due = status.ping_due(current)
    return due is not None and due <= aware_now()


def _save_and_notify() -> status.Status:
    """Save the status for other processes, send notices if it changed, and return it."""
    database_of().close_if_lost()
    current = status.status()
    status.remember(current)
    _notify_of_change(current)
    return current


def _is_due() -> bool:
    """Tell whether a backup is due: by the schedule, or since the last run failed in any way, or was killed.

    While a run is under way, it looks like one that was killed. Whoever then tries to begin another finds the lock
    taken.
    """
    now, last = aware_now(), status.last_run()
    try:
        schedule = status.current_schedule()
        if schedule is None:
            return False
        newest = status.newest(status.in_backup_root(kept.backups(BackupKind.AUTOMATIC)), now)
    except (StorageFailed, Busy):  # the run will fail for the same reason, and report it
        return True
    has_failed = last is not None and (last.error != "" or last.is_unfinished)
    return has_failed or schedule.is_due(status.good_until(newest), now)


@contextmanager
def _alone() -> Iterator[Callable[[], object] | None]:
    """Hold the lock of automatic backups, and yield a function that raises `Busy` if it was lost to another process.
    Yields None, without holding it, if another process has it now."""
    with ExitStack() as stack:
        try:
            with interface_explained():
                ensure_alone = stack.enter_context(database_of().lock(Job.AUTOMATIC_BACKUP))
        except Busy:
            yield None
        except DatabaseError as error:
            raise database_of().trouble(error) from error
        else:
            yield ensure_alone


def _run(user: Any, reporter: Reporter, ensure_alone: Callable[[], object]) -> Outcome:
    if user is not None:  # a request cannot wait, and that is no failure of which anybody must be told
        _wait_for_restore(0)
    last = status.last_run() or state.LastRun(aware_now())
    if last.is_unfinished:
        last = _note_killed(last)
    status.save_run(replace(last, at=aware_now(), is_unfinished=True))
    notices.ping("/start")
    try:
        with logged("automatic backup", user) as log:
            if user is None:
                _wait_for_restore(if_right("automatic_seconds", AUTOMATIC_SECONDS))
            outcome = _make(user, reporter)
            log(outcome.message.rstrip("."))
        with as_our_errors():
            _prove(outcome.backup, reporter, outcome.has_mended)
            trouble = _copy(user) or _retain(ensure_alone)
            outcome = replace(outcome, error=outcome.lacking or trouble)
    except Exception as error:
        _conclude(error.message if isinstance(error, BackupError) else type(error).__name__)
        raise
    _conclude(outcome.error)
    return outcome


def _note_killed(last: state.LastRun) -> state.LastRun:
    """Note that the run before this one was killed, and notify people if that is serious: it could not do so itself."""
    last = replace(last, at=aware_now(), tries=last.tries + 1)
    if last.tries >= KILLED_RUNS and not last.error:
        text = _(
            "It was ended before it was done, several times in a row: by a time limit of the server, say, or since "
            "memory was short."
        )
        last = replace(last, error=text)
    status.save_run(last)
    current = status.status()
    if last.error or current.state is State.OVERDUE:
        status.remember(current)
        _notify_of_change(current)
    return status.last_run() or last


def _wait_for_restore(seconds: float) -> None:
    """Wait for the end of a restore that is under way. One that begins later does no harm: a backup is a snapshot.

    Raises `Busy` if it has not ended after so many seconds: a child process can wait long, but a request cannot.
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
    """Make a backup and keep it. If nothing has changed, note with the newest one that it still is up to date."""
    with suppress(StorageFailed):
        files.tidy()  # temporary files of killed processes
    with suppress(Busy), database_of().lock(Job.RESTORE):
        remove_leftovers(fetches=True)
    backups = status.in_backup_root(kept.backups(BackupKind.AUTOMATIC))
    newest = status.newest(backups, aware_now())
    photos_read = max(
        (str(at) for b in backups if _is_of_this_week(at := b.facts.get(PHOTOS_READ))), default=""
    )
    reads_all = not photos_read
    keeping = Keeping(reads_all=reads_all, mends=any(map(status.has_failed_proof, backups)))
    with tempfile.TemporaryFile() as file:
        moment = aware_now()
        # A backup without unreadable values is better than none. The status reports it, and retention does not count
        # it as complete.
        metadata = services.create_backup(
            file,
            user=user,
            reporter=reporter,
            place=Place.LOCAL,
            leave_out=True,
            photos=conf.photos,
            store=keeping,
        )
        database_of().close_if_lost()  # all was read on another one
        # Pass on when all photos were last read: the backup that read them may be removed before the week is over.
        noted: dict[str, Any] = {PHOTOS_READ: photos_read or moment.isoformat()} if metadata.photos else {}
        lacking = messages.lacking(keeping.lacking) or messages.beyond(keeping.beyond)
        is_good = newest is not None and status.is_good(newest) and facts.UNREADABLE not in newest.facts
        if newest is not None and is_good and guard.compare(is_unchanged, newest.name, file, kept.LOCAL):
            same = kept.note(newest.name, **noted, **{status.UNCHANGED: moment.isoformat()})
            message = _("Nothing has changed since the newest backup.")
            return Outcome(False, same, message, lacking, keeping.mended > 0)
        noted |= guard.found_in(file)
        file.seek(0)
        made = kept.keep(file, metadata, BackupKind.AUTOMATIC, facts=noted)
    message = _("%(n)s records, kept as %(name)s.") % {"n": made.records, "name": made.name}
    return Outcome(True, made, message, lacking, keeping.mended > 0)


def _prove(newest: StoredBackup | None, reporter: Reporter, has_mended: bool) -> None:
    """Prove those that failed before, if that may have changed, the newest backup, unless it was proved before, and the
    older one whose turn it is. The verdicts are noted beside the files. `has_mended`: see `_prove_again`."""
    try:
        if conf.prove == OFF:
            return
        _prove_again(reporter, has_mended)
        if newest is not None and newest.is_local and not newest.proof:
            known = _photos_read_lately(status.in_backup_root(kept.backups(BackupKind.AUTOMATIC)))
            services.prove_kept(newest.name, place=kept.LOCAL, reporter=reporter, photos_known=known)
        backups = kept.backups(BackupKind.AUTOMATIC)
        if conf.prove == "local":
            backups = status.in_backup_root(backups)
        turn = turns.next_to_prove(backups, aware_now())
        if turn is not None and not _is_late():
            place = kept.LOCAL if conf.prove == "local" else turns.place_to_prove(turn, backups)
            services.prove_kept(turn.name, place=place, reporter=reporter)
    except NoSuchBackup:
        pass  # somebody deleted it meanwhile
    except (
        StorageFailed,
        Busy,
        WrongSettings,
    ) as error:  # what follows, the copies say, is done all the same
        logger.warning("the proof could not be made or noted: %s", error.code)


def _prove_again(reporter: Reporter, has_mended: bool) -> None:
    """Prove the backups that failed before, if the reason may have been a photo that is repaired now: from the host's
    own photos (`has_mended`), or from a location."""
    for backup in status.in_backup_root(kept.backups(BackupKind.AUTOMATIC)):
        failed = facts.proofs_of(backup.facts).get(kept.LOCAL, {}).get("verdict") == "failed"
        if failed and not _is_late() and (has_mended or services.mend_photos(backup.name)):
            with suppress(
                NoSuchBackup, StorageFailed, Busy
            ):  # deleted meanwhile; else somebody can prove it later
                services.prove_kept(backup.name, place=kept.LOCAL, reporter=reporter)


def _photos_read_lately(backups: Sequence[StoredBackup]) -> set[str]:
    """Return the checksums of photos that a proof has read in the last week, so that only new ones have to be read.

    The result is empty if a proof failed: a photo may be the reason.
    """
    known: set[str] = set()
    for backup in () if any(map(status.has_failed_proof, backups)) else backups:
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
    """Tell whether a moment (ISO 8601) is less than a week ago. False if it is no moment at all."""
    try:
        return dt.timedelta(0) <= aware_now() - dt.datetime.fromisoformat(text) < turns.EVERY
    except (TypeError, ValueError):
        return False


def _copy(user: Any) -> str:
    """Copy to each location. Returns an error on this side, for people; "" if there is none.

    The state of each location is noted separately, so one that fails is no error here.
    """
    try:
        copies.copy(status.halted(), user=user)
    except BackupError as error:
        return _("The backup was made, but not copied. %(reason)s") % {"reason": error.message}
    return ""


def _retain(ensure_alone: Callable[[], object]) -> str:
    """Delete the backups that BACKUP_KEEP does not keep. Returns an error, for people; "" if there is none.

    If another run has begun, since the lock was lost with a connection, this is left to that one.
    """
    try:
        ensure_alone()
    except Busy:
        return ""
    tried: set[str] = set()
    try:
        while not _is_late() and (backup := _next_to_remove(tried)) is not None:
            tried.add(backup.name)
            if not _may_go(backup):
                continue
            # Not during a restore (the next run removes it then), nor while somebody pins it.
            with suppress(Busy), database_of().lock(Job.RESTORE), files.noting():
                again = _next_to_remove(tried - {backup.name})
                if again is not None and again.name == backup.name:
                    kept.delete_here(backup)
                    logger.info("automatic backup %s removed by BACKUP_KEEP", backup.name)
        _remove_photos()
    except BackupError as error:
        return _("The backup was made, but old ones could not be removed. %(reason)s") % {
            "reason": error.message
        }
    return ""


def _next_to_remove(tried: Collection[str]) -> StoredBackup | None:
    """Return the oldest backup that BACKUP_KEEP does not keep, except for those that were tried, and those that others
    are compared with, as long as these are there. Raises `StorageFailed`."""
    goes = [verdict.backup for verdict in status.retention() if not verdict.stays]
    needed = guard.needed_by(goes)
    left = [backup for backup in goes if backup.name not in tried]
    free = [backup for backup in left if backup.identity not in needed]
    if not free and len(left) == len(goes):  # each of them is compared with another one
        free = left
    return free[-1] if free else None


def _may_go(backup: StoredBackup) -> bool:
    """Tell whether the newest backup has what one has that is about to be removed. If it has not, that is noted, and
    nothing is removed any more. Raises `StorageFailed`."""
    backups = kept.backups(BackupKind.AUTOMATIC)
    newest = status.newest(status.in_backup_root(backups), aware_now())
    noted = guard.newest(backups)
    if newest is None or noted is None:
        return False
    try:
        with kept.open_backup(backup.name, kept.LOCAL) as file:
            lost = guard.lost_without(
                backup.name, backup.facts, file, newest.name, guard.newest_with_photos(backups)
            )
    except guard.CANNOT_OPEN as error:
        logger.warning("%s cannot be compared with the newest, and stays: %s", backup.name, error.code)
        return False
    if lost:
        kept.change(noted.name, partial(guard.merged, found=guard.as_facts(lost)))
    return not lost


def _remove_photos() -> None:
    """Delete the stored photos that no kept backup names any more. Raises `StorageFailed`."""
    if status.halted():
        return
    try:
        removed = remove_unnamed()
    except InvalidBackup:
        return  # a damaged backup may name any of them: somebody has to look at it, and delete it
    if removed:
        logger.info("%s photos removed that no kept backup names", removed)


# -- the result of a run, and notices ---


def _note_run(error: str) -> None:
    last = status.last_run()
    run = state.LastRun(
        at=aware_now(),
        error=error,
        tries=(last.tries if last else 0) + 1 if error else 0,
        notified=last.notified if last else "",
        posted=last.posted if last else "",
        pinged_failure=bool(error),
        pings_lost=0
        if error or not if_right("ping_url", "")
        else 1,  # until it arrives: this process may be killed
    )
    status.save_run(run)


def _conclude(error: str) -> None:
    """Note the end of the run, save the status, send notices if it changed, and report whether all is well.

    `error`: why the run failed; "" if it did not. What an earlier one left, such as a failed proof, is a failure, too.
    """
    is_well = False
    try:
        _note_run(error)
        current = _save_and_notify()
        is_well = status.is_well(current, error)
        if not (is_well or error) and (last := status.last_run()) is not None:
            status.save_run(replace(last, pinged_failure=True))
    finally:
        if not is_well:
            notices.ping("/fail")
    if is_well:
        _ping_success(current)


def _notify_of_change(current: status.Status) -> None:
    """Notify people and programs if the state differs from that of their last notice. A first success is no news, nor
    is it that the first backup is still to come. A notice that failed is tried again by the next run."""
    last = status.last_run() or state.LastRun(aware_now())
    is_to_come = current.state is State.OVERDUE and current.last is None and not last.is_unfinished
    if is_to_come or {last.notified, last.posted} == {current.notified}:
        return
    # Noted first: if the process is killed while it waits for a server, nobody is told twice.
    status.save_run(replace(last, at=aware_now(), notified=current.notified, posted=current.notified))

    def outcome(send: Callable[[status.Status], bool], before: str) -> str:
        is_news = before or current.state.is_trouble or current.lasting or current.losses
        is_to_send = is_news and before != current.notified
        return before if is_to_send and not send(current) else current.notified

    notified, posted = outcome(notices.mail_to_all, last.notified), outcome(notices.post, last.posted)
    if {notified, posted} != {current.notified}:
        status.save_run(replace(last, at=aware_now(), notified=notified, posted=posted))


# -- the time limit ---


#: When the time of the run is up, by `time.monotonic`.
_end = math.inf


def _is_late() -> bool:
    """Tell whether the time of this run is up. What is left then is kept for copying."""
    return time.monotonic() >= _end


@contextmanager
def time_limit() -> Iterator[None]:
    """Raise an error in the block after BACKUP_AUTOMATIC_SECONDS, where the system has alarm signals.

    A proof that is interrupted by it has no verdict, and the run goes on to copy. After another `LAST_SECONDS`, a
    second error is raised; after those again, the process is ended.
    """
    global _end
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return
    seconds = if_right("automatic_seconds", AUTOMATIC_SECONDS)
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

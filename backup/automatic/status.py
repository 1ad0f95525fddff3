"""Determines the status of automatic backups, for the page, the API, the commands and the notices alike.

Longer than most modules, since all of these have to come to the same verdict.
"""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from django.utils.translation import gettext as _

from .. import babybuddy
from ..conf import aware_now, conf, keep_rules, wrong_settings
from ..database.memo import site_id
from ..exceptions import (
    BackupError,
    Forbidden,
    LossesChanged,
    NoSuchBackup,
    StorageFailed,
    WrongSettings,
)
from ..storage import elsewhere, kept, state
from ..storage.elsewhere import Seen
from ..storage.elsewhere import State as Copies
from ..storage.kept import BackupKind, StoredBackup
from . import guard, messages, outlook
from .guard import Loss
from .retention import Verdict, verdicts
from .schedule import Schedule, schedule_of

#: A fact beside the newest backup: the last moment at which the data was still the same.
UNCHANGED = "unchanged"
#: Seconds for which a process remembers whether the menu shows a mark.
REMEMBERED = 60.0
#: How many times a ping of a success that did not arrive is repeated before the next run.
PING_TRIES = 3
#: Seconds after which it is looked again whether a run that is under way was killed.
UNDER_WAY = 600
EPOCH = dt.datetime(1970, 1, 2, tzinfo=dt.timezone.utc)


class State(enum.Enum):
    OK = "ok"
    OVERDUE = "overdue"
    FAILED = "failed"
    SHRUNK = "shrunk"
    OFF = "off"

    @property
    def is_trouble(self) -> bool:
        """Whether somebody has to do something."""
        return self in (State.OVERDUE, State.FAILED, State.SHRUNK)


@dataclass(frozen=True)
class Status:
    """The status of automatic backups. `message`: the state in words. `schedule`: BACKUP_SCHEDULE.

    `last`: the newest automatic backup that is not damaged; None if there is none. `unchanged`: the last moment at
    which the data was the same as in it; None if it is not known to be up to date for longer. `next`: when the next
    backup is due, or the next try if the last run failed, which is now if it is late; None if the schedule is off.
    `losses`: the records that are gone and that nobody said are rightly so, whatever the state. `before`: the name of
    the last backup that has them; "" if nothing is gone, or that backup is. `shown`: all that is lost, as JSON, for
    whoever confirms it. `proved`: the backup whose proof is reported: the newest that failed, else the newest that has
    one. `locations`: the state of each of BACKUP_LOCATIONS.
    """

    state: State
    message: str
    schedule: str
    last: StoredBackup | None = None
    unchanged: dt.datetime | None = None
    next: dt.datetime | None = None
    losses: Sequence[Loss] = ()
    before: str = ""
    shown: str = ""
    proved: StoredBackup | None = None
    locations: Sequence[Seen] = ()
    #: Whether the only trouble is that the last backup lacks values that cannot be read.
    is_lossy: bool = False

    @property
    def failing(self) -> list[Seen]:
        """The locations to which copying fails."""
        return [seen for seen in self.locations if seen.state is Copies.FAILED]

    @property
    def lasting(self) -> list[Seen]:
        """The locations that still failed at the last try."""
        return [seen for seen in self.failing if seen.is_lasting]

    @property
    def notified(self) -> str:
        """A text for the state: if it differs from that of the last notice, people are notified."""
        state = "lossy" if self.is_lossy else self.state.value
        losses = sorted(f"{loss.model}:{loss.grade}" for loss in self.losses)
        return " ".join([state, *losses, *(seen.name for seen in self.lasting)])

    @property
    def good_until(self) -> dt.datetime | None:
        """The moment up to which the data is backed up; None if there is no backup."""
        return good_until(self.last)

    def as_json(self) -> dict[str, Any]:
        last = self.last
        return {
            "state": self.state.value,
            "message": self.message,
            "schedule": self.schedule,
            "last": last
            and {
                "name": last.name,
                "at": last.created.isoformat(),
                "records": last.records,
                "unchanged": self.unchanged and self.unchanged.isoformat(),
            },
            "next": self.next and self.next.isoformat(),
            "proof": self.proved and _proof_as_json(self.proved),
            "shrunk": [loss.as_json() for loss in guard.in_short(self.losses)],
            "locations": [seen.as_json() for seen in self.locations],
        }


def status() -> Status:
    """Return the status of automatic backups now, even if the storage cannot be reached, or if a setting is wrong: then
    it is failed before any of them fails, and without the rest if that setting is needed for it."""
    wrong = wrong_settings()
    if not wrong:
        return _status()
    message = " ".join(dict.fromkeys(error.message for error in wrong.values()))
    try:
        known = _status()
        if known.losses:
            message = f"{message} {messages.shrunk(known.losses)}"
        return replace(known, state=State.FAILED, message=message, is_lossy=False)
    except WrongSettings:
        return Status(State.FAILED, message, "" if "schedule" in wrong else conf.schedule)


def _status() -> Status:
    """Return the status as if all settings were right. Raises `WrongSettings` if one is needed that is not."""
    now = aware_now()
    run = last_run()
    locations = [*elsewhere.unseen().values()]
    try:
        locations = [*elsewhere.seen().values()]
        schedule, backups = current_schedule(), kept.backups(BackupKind.AUTOMATIC)
    except WrongSettings:
        raise
    except BackupError as error:
        return Status(State.FAILED, error.message, conf.schedule, locations=locations)
    last = newest(backups, now)
    until = good_until(last)
    losses = guard.losses_now(backups)
    failed = _latest(backup for backup in backups if has_failed_proof(backup))
    bad = failed or _latest(backup for backup in backups if not is_good(backup))
    proved = failed or newest([backup for backup in backups if backup.proof], now)
    is_lossy = False
    if schedule is None:
        current, message = State.OFF, _("Automatic backups are off (BACKUP_SCHEDULE).")
    elif run is not None and run.error:
        current, message = (
            State.FAILED,
            _("The last automatic backup failed: %(reason)s") % {"reason": run.error},
        )
    elif bad is not None:
        current, message = State.FAILED, messages.bad(bad, locations)
    elif (trouble := messages.locations_fail(locations)) and not _is_covered(
        backups, locations, schedule, now
    ):
        current, message = State.FAILED, trouble
    elif losses:
        current, message = State.SHRUNK, messages.shrunk(losses)
        if schedule.is_overdue(until, now):
            message = f"{message} {messages.overdue(until)}"
    elif schedule.is_overdue(until, now):
        current, message = State.OVERDUE, messages.overdue(until)
    elif last is not None and last.left_out:
        current, message, is_lossy = State.FAILED, messages.lossy(last), True
    else:
        parts = [messages.ok(last), messages.photos_missing(last), trouble]
        current, message = State.OK, " ".join(filter(None, parts))
    if losses and current is not State.SHRUNK:
        message = f"{message} {messages.shrunk(losses)}"
    return Status(
        state=current,
        message=message,
        schedule=conf.schedule,
        last=last,
        unchanged=until if last is not None and until != last.created else None,
        next=max(now, _next(schedule, until, run)) if schedule else None,
        losses=losses,
        before=guard.backup_before(backups, losses),
        shown=json.dumps(guard.as_facts(losses)),
        proved=proved,
        locations=locations,
        is_lossy=is_lossy,
    )


def in_backup_root(backups: Sequence[StoredBackup]) -> list[StoredBackup]:
    """Return those of the backups that are in BACKUP_ROOT: the schedule and retention only count these."""
    return [backup for backup in backups if backup.is_local]


def _is_covered(
    backups: Sequence[StoredBackup], locations: Sequence[Seen], schedule: Schedule, now: dt.datetime
) -> bool:
    """Tell whether some location has a recent copy, not more than two slots old, although others failed.

    One that fails only counts if it cannot be reached, and as long as its tries are not over. That the data is the
    same as in a copy only counts up to the last visit: nobody knows whether the copy is still there.
    """
    before = schedule.last(schedule.last(now) - dt.timedelta(seconds=1))
    for seen in locations:
        copied = newest([backup for backup in backups if seen.name in backup.locations], now)
        if copied is None or seen.is_lasting or seen.state is Copies.UNKNOWN:
            continue
        reached = seen.reached or (seen.at if seen.state is Copies.OK else None) or copied.created
        until = max(copied.created, min(good_until(copied) or reached, reached))
        if until >= before:
            return True
    return False


def current_schedule() -> Schedule | None:
    """Return the schedule of this site; None if it is off. Raises `StorageFailed`, `WrongSettings`."""
    return schedule_of(conf.schedule, site_id(), babybuddy.user_timezone(None))


def newest(backups: Sequence[StoredBackup], now: dt.datetime) -> StoredBackup | None:
    """Return the newest backup that can be opened, and is not dated in the future; None if there is none."""
    past = [b for b in backups if b.created <= now and not (b.is_damaged or b.is_locked)]
    return _latest(past)


def _latest(backups: Iterable[StoredBackup]) -> StoredBackup | None:
    return max(backups, key=lambda backup: backup.created, default=None)


def good_until(backup: StoredBackup | None) -> dt.datetime | None:
    """Return the last moment at which the data was as in the backup: when it was made, or later. None for None.

    A later moment that is in the future was noted while the clock was wrong, and does not count.
    """
    if backup is None:
        return None
    try:
        unchanged = dt.datetime.fromisoformat(backup.facts[UNCHANGED])
        return max(backup.created, unchanged) if unchanged <= latest_past() else backup.created
    except (KeyError, TypeError, ValueError):
        return backup.created


def latest_past() -> dt.datetime:
    """Return the latest moment that the clock of another server may have noted."""
    return aware_now() + dt.timedelta(seconds=outlook.DRIFT)


def last_run() -> state.LastRun | None:
    """Return how the last run went; None if there was none.

    It is read from the storage, and from a file of this machine, to which it is written if the storage fails. One of
    the future was saved while the clock was wrong, so it is older than any other, and cannot put off the next run.
    """
    known, latest = outlook.read(), latest_past()
    runs = [known.last_run] if known else []
    with suppress(WrongSettings):  # nobody knows where it is stored
        runs = [state.load_last_run(), *runs]
    run = max(filter(None, runs), key=lambda run: (run.at <= latest, run.at), default=None)
    return run and replace(run, at=min(run.at, latest))


def save_run(run: state.LastRun) -> None:
    """Save how a run went, in the storage and on this machine: either may be all that can be read later."""
    known = outlook.read()
    try:
        state.save_last_run(run)
    except (StorageFailed, WrongSettings):
        known = known or _unknown(run)
    if known is not None:
        outlook.write(replace(known, written=aware_now().timestamp(), run=run.as_json()))


def put_off() -> None:
    """Let no process start a run for some minutes, since one is under way. At its end, that one says when the next is
    due."""
    if (known := outlook.read()) is not None:
        now = aware_now().timestamp()
        outlook.write(replace(known, written=now, due=max(known.due, now + UNDER_WAY)))


def _unknown(run: state.LastRun) -> outlook.Outlook:
    moment = aware_now().timestamp()
    return outlook.Outlook(moment, "", "", moment, moment, "", State.FAILED.value, run.as_json())


def retention() -> list[Verdict]:
    """Return what BACKUP_KEEP says about each automatic backup in BACKUP_ROOT: see `retention.verdicts`.

    Raises `StorageFailed`, `WrongSettings`.
    """
    backups = kept.backups(BackupKind.AUTOMATIC)
    return retention_of(in_backup_root(backups), site_id(), halted(backups))


def retention_of(
    backups: Sequence[StoredBackup], site: str, halted: str, rules: Mapping[str, int | None] | None = None
) -> list[Verdict]:
    """Return what BACKUP_KEEP, or other rules, say about these backups now. `site`, `halted`: see
    `retention.verdicts`."""
    return verdicts(
        backups,
        keep_rules(conf.keep) if rules is None else rules,
        site=site,
        zone=babybuddy.user_timezone(None),
        now=aware_now(),
        halted=halted,
        compared_with=guard.compared_with,
    )


def halted(backups: Sequence[StoredBackup] | None = None) -> str:
    """Return why retention must not remove anything, in words; "" if it may.

    `backups`: all automatic backups, wherever they are; by default, they are looked up. Raises `StorageFailed`.
    """
    if "locations" in wrong_settings():  # what copies show is not known
        return _("kept since BACKUP_LOCATIONS is wrong")
    backups = kept.backups(BackupKind.AUTOMATIC) if backups is None else backups
    if guard.losses_now(backups):
        return _("kept until a superuser says that it is right that entries are fewer")
    if any(map(has_failed_proof, backups)):
        return _("kept since a backup failed its proof")
    if not all(map(is_good, backups)):
        return _("kept since a backup is damaged")
    return ""


def is_good(backup: StoredBackup) -> bool:
    """Tell whether a backup has not failed its proof, and its file in BACKUP_ROOT, if there is one, can be read."""
    return not (has_failed_proof(backup) or (backup.is_local and backup.is_damaged))


def has_failed_proof(backup: StoredBackup) -> bool:
    """Tell whether the proof of a backup that counts failed, whichever copy it was of."""
    return (backup.proof or {}).get("verdict") == "failed"


def acknowledge(user: Any, shown: str | None = None) -> Status:
    """Note that a superuser confirms that there are fewer entries, so that retention goes on with the next backup.

    `user`: None on the command line. `shown`: `Status.shown`, as they have seen it; None: whatever is lost now. Raises
    `Forbidden`, `LossesChanged`, `StorageFailed`.
    """
    if user is not None and not user.is_superuser:
        raise Forbidden(_("Only a superuser can say that it is right that entries are fewer."))
    backups = kept.backups(BackupKind.AUTOMATIC)
    losses = guard.losses_now(backups)
    if shown is not None and not guard.are_covered(losses, shown):
        raise LossesChanged(_("Since then more entries went missing. Look again."))
    accepted = {"by": user.get_username() if user is not None else "", "at": aware_now().isoformat()}
    newest, with_photos = guard.newest(backups), guard.newest_with_photos(backups)

    def after(loss: guard.Loss) -> str:
        name = newest.name if newest is not None else ""
        return with_photos if loss.model == guard.PHOTOS else name

    for backup in backups if losses else ():
        with suppress(NoSuchBackup):
            # An older one may be compared with, too, should the newest be deleted.
            if guard.open_losses(backup.facts):
                kept.change(backup.name, lambda facts: guard.with_accepted(facts, losses, accepted))
            if backup is not newest:
                kept.change(backup.name, lambda facts: guard.with_expected(facts, losses, after))
    current = status()
    _forget_notices(current)
    remember(current)
    return current


def _forget_notices(current: Status) -> None:
    """Forget that people were told of losses that were confirmed: what goes missing next is news, although it may be
    as much of the same model."""
    run = last_run()
    if run is None:
        return
    lost = {loss.model for loss in current.losses}

    def without(notified: str) -> str:
        parts = notified.split(" ")
        return " ".join(part for part in parts if ":" not in part or part.rpartition(":")[0] in lost)

    save_run(replace(run, notified=without(run.notified), posted=without(run.posted)))


# -- for the menu ---


def remember(status: Status) -> None:
    """Write the outlook: the status, and when the next run is to start, for all processes of this machine."""
    now, run, until = aware_now(), last_run(), status.good_until
    try:
        schedule = current_schedule()
        path = kept.local_path(status.last.name) if status.last else ""
    except (StorageFailed, WrongSettings):
        schedule, path = None, ""
    locations = ""
    with suppress(WrongSettings):
        locations = elsewhere.fingerprint()
    due = (status.next or _next(None, None, run)).timestamp() if status.state is not State.OFF else math.inf
    tries = [max(seen.due, EPOCH).timestamp() for seen in status.locations if seen.due is not None]
    if (ping := ping_due(status)) is not None:
        tries.append(ping.timestamp())
    overdue = schedule.overdue_from(until) if schedule and until else now
    outlook.write(
        outlook.Outlook(
            written=now.timestamp(),
            schedule=status.schedule,
            zone=babybuddy.user_timezone(None).key,
            due=min([due, *tries]),
            overdue=overdue.timestamp(),
            newest=path,
            state=status.state.value,
            run=run.as_json() if run else {},
            locations=locations,
        )
    )


def _next(schedule: Schedule | None, until: dt.datetime | None, run: state.LastRun | None) -> dt.datetime:
    """Return when the next run is due. `schedule`: None if it is not known. `until`: see `good_until`. `run`: the last
    one."""
    if run is not None and run.error:
        return run.at + retry_after(run.tries)
    return schedule.next(until) if schedule and until else EPOCH


def retry_after(tries: int) -> dt.timedelta:
    """Return how long to wait before the next try. `tries`: how many runs in a row have failed."""
    return dt.timedelta(minutes=[1, 5, 30, 60][min(tries, 4) - 1])


def ping_due(status: Status) -> dt.datetime | None:
    """Return when a ping of a success that did not arrive is due again; None if none is. The next run pings anyway."""
    run = last_run()
    if run is None or not 0 < run.pings_lost <= PING_TRIES or not is_well(status, run.error):
        return None
    return run.at + retry_after(run.pings_lost)


def is_well(status: Status, error: str) -> bool:
    """Tell whether a ping reports a success. `error`: of the last run."""
    return status.state is not State.FAILED and not error


_mark: tuple[float, bool] = (0.0, False)


def needs_attention() -> bool:
    """Tell whether the menu shows a mark. It is on every page of the host, so this asks no storage, and the
    database only once in a process, for the id of the site."""
    global _mark
    moment = time.monotonic()
    if moment >= _mark[0]:
        known = outlook.read()
        _mark = (
            moment + REMEMBERED,
            bool(wrong_settings()) or (known is not None and _marks(known)),
        )
    return _mark[1]


def _marks(known: outlook.Outlook) -> bool:
    if known.state in (State.FAILED.value, State.SHRUNK.value):
        return True
    return known.state != State.OFF.value and aware_now().timestamp() > known.overdue


def _proof_as_json(backup: StoredBackup) -> dict[str, Any]:
    proof = backup.proof or {}
    content = {name: proof.get(name) for name in ("verdict", "at", "records", "photos")}
    return {**content, "name": backup.name}

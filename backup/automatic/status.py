"""How automatic backups are: one answer for the page, the API, the commands and the notices."""

from __future__ import annotations

import datetime as dt
import enum
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.utils import formats, timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import babybuddy
from ..conf import aware_now, conf, keep_rules
from ..database.memo import site_id
from ..exceptions import BackupError, Forbidden, StorageFailed
from ..presentation import names
from ..presentation.kept import entered_in
from ..proof import Verdict as ProofVerdict
from ..storage import elsewhere, kept, state
from ..storage.elsewhere import Seen
from ..storage.elsewhere import State as Copies
from ..storage.kept import BackupKind, StoredBackup
from ..tables import describe
from . import guard, outlook
from .guard import Loss
from .retention import Verdict, verdicts
from .schedule import Schedule, schedule_of

#: The fact beside the newest backup: until when nothing had changed since.
UNCHANGED = "unchanged"
#: Seconds for which a process remembers whether the menu has a mark.
REMEMBERED = 60.0
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
    """How things are. `message`: the same in words. `schedule`: BACKUP_SCHEDULE.

    `last`: the newest automatic backup that is whole; None if there is none. `unchanged`: until when nothing had
    changed since it was made; None if it is not known to be good for longer. `next`: when the next one is due, now
    where it is due already; None if the schedule is off. `losses`: what is fewer than in `before`, the name of the
    last backup that has it; "" if nothing is fewer, or there is none any more. `proved`: the one whose proof counts:
    the newest that failed, else the newest that has one. `locations`: how each of BACKUP_LOCATIONS is.
    """

    state: State
    message: str
    schedule: str
    last: StoredBackup | None = None
    unchanged: dt.datetime | None = None
    next: dt.datetime | None = None
    losses: Sequence[Loss] = ()
    before: str = ""
    proved: StoredBackup | None = None
    locations: Sequence[Seen] = ()
    #: Whether it failed for nothing but what nobody can read, and the last backup lacks.
    is_lossy: bool = False

    @property
    def failing(self) -> list[Seen]:
        """The locations to which copying fails."""
        return [seen for seen in self.locations if seen.state is Copies.FAILED]

    @property
    def lasting(self) -> list[Seen]:
        """The locations that failed although they were tried again and again."""
        return [seen for seen in self.failing if seen.is_lasting]

    @property
    def told(self) -> str:
        """What people are told of, as a text that is another one if there is news."""
        state = "lossy" if self.is_lossy else self.state.value
        return " ".join([state, *(seen.name for seen in self.lasting)])

    @property
    def good_until(self) -> dt.datetime | None:
        """The moment whose state is kept; None if there is none."""
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
            "shrunk": [loss.as_json() for loss in self.losses],
            "locations": [seen.as_json() for seen in self.locations],
        }


def status() -> Status:
    """Return how automatic backups are now. It answers even if the storage does not.

    Raises `ImproperlyConfigured` if a setting is wrong.
    """
    now = aware_now()
    run = last_run()
    locations = [*elsewhere.seen().values()]
    try:
        schedule, backups = current_schedule(), kept.backups(BackupKind.AUTOMATIC)
    except BackupError as error:
        return Status(State.FAILED, error.message, conf.schedule, locations=locations)
    last = newest(backups, now)
    until = good_until(last)
    shrunk = guard.shrunk(backups)
    losses = guard.losses_of(shrunk)
    failed = [backup for backup in backups if not is_good(backup)]
    proved = newest(failed or [backup for backup in backups if backup.proof], now)
    is_lossy = False
    if schedule is None:
        found, message = State.OFF, _("Automatic backups are off (BACKUP_SCHEDULE).")
    elif run is not None and run.error:
        found, message = (
            State.FAILED,
            _("The last automatic backup failed: %(reason)s") % {"reason": run.error},
        )
    elif failed and proved:
        found, message = State.FAILED, _failed_message(proved)
    elif (trouble := _trouble(locations)) and not _is_covered(backups, locations, schedule, now):
        found, message = State.FAILED, trouble
    elif shrunk:
        found, message = State.SHRUNK, _shrunk_message(losses)
    elif schedule.is_overdue(until, now):
        found, message = State.OVERDUE, _overdue_message(until)
    elif last is not None and last.left_out:
        found, message, is_lossy = State.FAILED, _lossy_message(last), True
    else:
        found, message = State.OK, " ".join(filter(None, [_ok_message(last), trouble]))
    return Status(
        state=found,
        message=message,
        schedule=conf.schedule,
        last=last,
        unchanged=until if last is not None and until != last.created else None,
        next=max(now, schedule.next(until) if until else now) if schedule else None,
        losses=losses,
        before=_before(backups, shrunk),
        proved=proved,
        locations=locations,
        is_lossy=is_lossy,
    )


def here(backups: Sequence[StoredBackup]) -> list[StoredBackup]:
    """Return those that lie in BACKUP_ROOT: the schedule and BACKUP_KEEP are about files here."""
    return [backup for backup in backups if backup.is_local]


def _is_covered(
    backups: Sequence[StoredBackup], locations: Sequence[Seen], schedule: Schedule, now: dt.datetime
) -> bool:
    """Tell whether a copy outside of BACKUP_ROOT is younger than two slots, though others failed."""
    where = {seen.name for seen in locations if seen.state is not Copies.UNKNOWN}
    copied = newest([backup for backup in backups if where & {*backup.locations}], now)
    before = schedule.last(schedule.last(now) - dt.timedelta(seconds=1))
    until = good_until(copied)
    return until is not None and until >= before


def current_schedule() -> Schedule | None:
    """Return the schedule of this site; None if it is off. Raises `StorageFailed`, `ImproperlyConfigured`."""
    return schedule_of(conf.schedule, site_id(), babybuddy.user_timezone(None))


def newest(backups: Sequence[StoredBackup], now: dt.datetime) -> StoredBackup | None:
    """Return the newest that is whole, of those that are not dated in the future: these decide nothing."""
    past = [backup for backup in backups if backup.created <= now and not backup.is_damaged]
    return max(past, key=lambda backup: backup.created, default=None)


def good_until(backup: StoredBackup | None) -> dt.datetime | None:
    """Return the last moment whose state a backup holds: that of its making, or a later one."""
    if backup is None:
        return None
    try:
        return max(backup.created, dt.datetime.fromisoformat(backup.facts[UNCHANGED]))
    except (KeyError, TypeError, ValueError):
        return backup.created


def last_run() -> state.LastRun | None:
    """Return how the last run went: what the storage says, or what this machine knows since the storage failed."""
    known = outlook.read()
    runs = [state.load_last_run(), known.last_run if known else None]
    return max((run for run in runs if run is not None), key=lambda run: run.at, default=None)


def save_run(run: state.LastRun) -> None:
    """Remember how a run went, on this machine at least."""
    try:
        state.save_last_run(run)
    except StorageFailed:
        known = outlook.read() or _unknown(run)
        outlook.write(replace(known, written=aware_now().timestamp(), run=run.as_json()))


def _unknown(run: state.LastRun) -> outlook.Outlook:
    moment = aware_now().timestamp()
    return outlook.Outlook(moment, "", "", moment, moment, "", State.FAILED.value, run.as_json())


def retention() -> list[Verdict]:
    """Return what the rules make of each automatic backup now, newest first: which stays, why, and which would go.

    Raises `StorageFailed`, `ImproperlyConfigured`.
    """
    backups = kept.backups(BackupKind.AUTOMATIC)
    return verdicts(
        here(backups),
        keep_rules(conf.keep),
        site=site_id(),
        zone=babybuddy.user_timezone(None),
        now=aware_now(),
        halted=halted(backups),
    )


def halted(backups: Sequence[StoredBackup] | None = None) -> str:
    """Return why nothing is removed at all; "" if the rules hold. `backups`: those of the schedule, wherever they
    lie. Raises `StorageFailed`."""
    backups = kept.backups(BackupKind.AUTOMATIC) if backups is None else backups
    if guard.shrunk(backups):
        return _("kept until a superuser says that it is right that entries are fewer")
    if not all(map(is_good, backups)):
        return _("kept since a backup failed its proof")
    return ""


def is_good(backup: StoredBackup) -> bool:
    """Tell whether nothing is known against a backup."""
    return (backup.proof or {}).get("verdict") != "failed"


def acknowledge(user: Any) -> Status:
    """Take a superuser's word that it is right that entries are fewer. Retention goes on from the next backup.

    `user`: None is the command line. Raises `Forbidden`, `StorageFailed`.
    """
    if user is not None and not user.is_superuser:
        raise Forbidden(_("Only a superuser can say that it is right that entries are fewer."))
    by = user.get_username() if user is not None else ""
    for backup in guard.shrunk(kept.backups(BackupKind.AUTOMATIC)):
        kept.note(backup.name, **{guard.ACCEPTED: {"by": by, "at": aware_now().isoformat()}})
    found = status()
    remember(found)
    return found


# -- for the menu ---


def remember(found: Status) -> None:
    """Leave for the other processes of this machine how things are, and when the next run is to start."""
    now, run, until = aware_now(), last_run(), found.good_until
    try:
        schedule = current_schedule()
        path = kept.local_path(found.last.name) if found.last else ""
    except StorageFailed:
        schedule, path = None, ""
    due = (found.next or now).timestamp() if found.state is not State.OFF else math.inf
    if run is not None and run.error:
        due = (run.at + retry_after(run.tries)).timestamp()
    tries = [max(seen.due, EPOCH).timestamp() for seen in found.locations if seen.due is not None]
    overdue = schedule.overdue_from(until) if schedule and until else now
    outlook.write(
        outlook.Outlook(
            written=now.timestamp(),
            schedule=found.schedule,
            zone=babybuddy.user_timezone(None).key,
            due=min([due, *tries]),
            overdue=overdue.timestamp(),
            newest=path,
            state=found.state.value,
            run=run.as_json() if run else {},
            locations=elsewhere.fingerprint(),
        )
    )


def retry_after(tries: int) -> dt.timedelta:
    """Return how long to wait before the next try. `tries`: how many failed in a row."""
    return dt.timedelta(minutes=[1, 5, 30, 60][min(tries, 4) - 1])


_mark: tuple[float, bool] = (0.0, False)


def needs_attention() -> bool:
    """Tell whether the menu is to have a mark. Asks no database and no storage: every page of the host has a menu."""
    global _mark
    moment = time.monotonic()
    if moment >= _mark[0]:
        known = outlook.read()
        _mark = (
            moment + REMEMBERED,
            known is not None
            and (
                known.state in (State.FAILED.value, State.SHRUNK.value)
                or (known.state != State.OFF.value and aware_now().timestamp() > known.overdue)
            ),
        )
    return _mark[1]


# -- in words ---


def _trouble(locations: Sequence[Seen]) -> str:
    """Return what is wrong with the locations; "" if nothing is."""
    reasons = [seen.message for seen in locations if seen.state is Copies.FAILED]
    if not reasons:
        return ""
    return _("Copies elsewhere fail. %(reasons)s") % {"reasons": " ".join(reasons)}


def _ok_message(last: StoredBackup | None) -> str:
    if last is None:
        return ""
    proof, records = last.proof or {}, entered_in(last)
    if proof.get("verdict") == ProofVerdict.PROVED.value:
        dates = {"date": _date(last.created), "proved": _day(dt.datetime.fromisoformat(proof["at"]))}
        if proof.get("photos"):
            what = names.records_and_photos(records, proof["photos"])
            text = _(
                "The last automatic backup (%(date)s) was proved on %(proved)s: all %(what)s came back identical."
            )
            return text % {**dates, "what": what}
        return ngettext(
            "The last automatic backup (%(date)s) was proved on %(proved)s: its %(n)s record came back identical.",
            "The last automatic backup (%(date)s) was proved on %(proved)s: all %(n)s records came back identical.",
            records,
        ) % {**dates, "n": names.grouped(records)}
    return ngettext(
        "The last automatic backup (%(date)s) holds %(n)s record.",
        "The last automatic backup (%(date)s) holds %(n)s records.",
        records,
    ) % {"date": _date(last.created), "n": names.grouped(records)}


def _failed_message(backup: StoredBackup) -> str:
    proof = backup.proof or {}
    words = {
        "date": _date(backup.created),
        "place": proof.get("place"),
        "reason": " ".join(str(proof.get("reason", "")).split()),
    }
    if proof.get("place") in conf.locations:
        return (
            _(
                "The copy in “%(place)s” of the backup of %(date)s could not be restored in a trial. %(reason)s No old "
                "backup is removed until this one is deleted or proved."
            )
            % words
        )
    return (
        _(
            "The backup of %(date)s could not be restored in a trial. %(reason)s No old backup is removed until this "
            "one is deleted or proved."
        )
        % words
    )


def _lossy_message(backup: StoredBackup) -> str:
    """Say where something is missing, and not what it was: a message goes through mail."""
    places = [describe(place.model, place.pk, place.field, "") for place in backup.left_out.named[:3]]
    return ngettext(
        "The last automatic backup (%(date)s) lacks %(n)s value that cannot be read: %(places)s. Mend it, on the page "
        "of the entry, say. Older backups that lack nothing stay.",
        "The last automatic backup (%(date)s) lacks %(n)s values that cannot be read: %(places)s. Mend them, on the "
        "pages of the entries, say. Older backups that lack nothing stay.",
        backup.left_out.total,
    ) % {
        "date": _date(backup.created),
        "n": names.grouped(backup.left_out.total),
        "places": ", ".join(places) + (" …" if backup.left_out.total > len(places) else ""),
    }


def _proof_as_json(backup: StoredBackup) -> dict[str, Any]:
    proof = backup.proof or {}
    content = {name: proof.get(name) for name in ("verdict", "at", "records", "photos")}
    return {**content, "name": backup.name}


def _overdue_message(until: dt.datetime | None) -> str:
    if until is None:
        return _("There is no automatic backup yet. The first one is made when Baby Buddy is used.")
    return _(
        "An automatic backup is overdue: the last one (%(date)s) is too old. If none is made while Baby Buddy is used, "
        "run “manage.py backup --automatic” on the server, which says why."
    ) % {"date": _date(until)}


def _shrunk_message(losses: Sequence[Loss]) -> str:
    called = names.model_names(loss.model for loss in losses)
    lines = ", ".join(
        f"{called[loss.model]} {names.grouped(loss.before)} → {names.grouped(loss.now)}" for loss in losses
    )
    return _(
        "Entries are fewer than in the backup before: %(losses)s. No old backup is removed until a superuser says that "
        "this is right."
    ) % {"losses": lines}


def _before(backups: Sequence[StoredBackup], shrunk: Sequence[StoredBackup]) -> str:
    """Return the name of the last whole backup before the first loss."""
    first = min((backup.created for backup in shrunk), default=None)
    older = [b for b in backups if first is not None and b.created < first and not b.is_damaged]
    return max(older, key=lambda backup: backup.created).name if older else ""


def _day(moment: dt.datetime) -> str:
    return formats.date_format(timezone.localtime(moment), "DATE_FORMAT")


def _date(moment: dt.datetime) -> str:
    return formats.date_format(timezone.localtime(moment), "DATETIME_FORMAT")

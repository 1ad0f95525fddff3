"""When automatic backups are due. A pure computation: nothing here looks at a clock, a file or a database."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from cronsim import CronSim

from ..conf import DAILY, HOURLY, OFF, WEEKLY

#: The night, in hours of the day: a daily backup is made from 1 o'clock on, and before 5.
NIGHT = range(1, 5)
#: A clock that is put back repeats less than this.
REPEATED = dt.timedelta(hours=3)
#: A backup is overdue when the slot that it missed passed this long ago, or one whole period ago, whichever is less: a
#: server that sleeps at night makes its backup in the morning.
GRACE = dt.timedelta(days=1)


@dataclass(frozen=True)
class Schedule:
    """Slots: the moments from which on a new backup is due. `cron`: five fields. `zone`: the one that they are in."""

    cron: str
    zone: ZoneInfo

    def last(self, now: dt.datetime) -> dt.datetime:
        """Return the last slot that has come. `now`: aware."""
        return self._first(now, reverse=True)

    def next(self, now: dt.datetime) -> dt.datetime:
        """Return the next slot. `now`: aware."""
        return self._first(now, reverse=False)

    def _first(self, now: dt.datetime, *, reverse: bool) -> dt.datetime:
        # From a little too far: an hour that comes twice when the clock is put back has a slot once, and the library
        # computes by the clock on the wall.
        start = (now + (REPEATED if reverse else -REPEATED)).astimezone(self.zone)
        for slot in CronSim(self.cron, start, reverse=reverse):
            moment = slot.astimezone(dt.timezone.utc)
            if (moment <= now) is reverse:
                return moment
        raise AssertionError("the settings are checked: each schedule has slots")

    def is_due(self, newest: dt.datetime | None, now: dt.datetime) -> bool:
        """Tell whether a backup is due. `newest`: the moment of the newest one; None if there is none."""
        return newest is None or newest < self.last(now)

    def overdue_from(self, newest: dt.datetime) -> dt.datetime:
        """Return from when on the backup after this one is overdue, if it is not there by then."""
        missed = self.next(newest)
        return missed + min(self.next(missed) - missed, GRACE)

    def is_overdue(self, newest: dt.datetime | None, now: dt.datetime) -> bool:
        """Tell whether a backup should have been there for a while."""
        return newest is None or now > self.overdue_from(newest)


def schedule_of(text: str, site: str, zone: ZoneInfo) -> Schedule | None:
    """Return the schedule that BACKUP_SCHEDULE names; None for `off`.

    `site`: the id of the site, of hexadecimal digits. Sites that share a machine, or a place for their copies, do not
    all begin at once.
    """
    number = int(site, 16)
    minute, hour = number % 60, NIGHT[number // 60 % len(NIGHT)]
    crons = {
        DAILY: f"{minute} {hour} * * *",
        HOURLY: f"{minute} * * * *",
        WEEKLY: f"{minute} {hour} * * 0",
    }
    return None if text == OFF else Schedule(crons.get(text, text), zone)

"""Computes when automatic backups are due. A pure computation: it looks at no clock, no file and no database."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from cronsim import CronSim

from ..conf import DAILY, HOURLY, OFF, WEEKLY

#: The hours in which daily backups are made: from 1 a.m. to before 5 a.m.
NIGHT = range(1, 5)
#: More than what a clock repeats when it is put back.
REPEATED = dt.timedelta(hours=3)
#: A backup is overdue if its slot passed this long ago, or one period ago if that is less. So a server that sleeps at
#: night can make its backup in the morning.
GRACE = dt.timedelta(days=1)


@dataclass(frozen=True)
class Schedule:
    """A series of slots, the moments at which a new backup becomes due.

    `cron`: the five fields of a cron expression. `zone`: its time zone.
    """

    cron: str
    zone: ZoneInfo

    def last(self, now: dt.datetime) -> dt.datetime:
        """Return the last slot at or before `now`, which is aware."""
        return self._first(now, reverse=True)

    def next(self, now: dt.datetime) -> dt.datetime:
        """Return the first slot after `now`, which is aware."""
        return self._first(now, reverse=False)

    def _first(self, now: dt.datetime, *, reverse: bool) -> dt.datetime:
        # Start a little too far away: the library computes in local time, in which an hour comes twice when the clock
        # is put back, but a slot in that hour must come only once.
        start = (now + (REPEATED if reverse else -REPEATED)).astimezone(self.zone)
        for slot in CronSim(self.cron, start, reverse=reverse):
            moment = slot.astimezone(dt.timezone.utc)
            if (moment <= now) is reverse:
                return moment
        raise AssertionError("the settings are checked: each schedule has slots")

    def is_due(self, newest: dt.datetime | None, now: dt.datetime) -> bool:
        """Tell whether a backup is due. `newest`: when the newest one was made; None if there is none."""
        return newest is None or newest < self.last(now)

    def overdue_from(self, newest: dt.datetime) -> dt.datetime:
        """Return the moment after which the backup that follows is overdue. `newest`: when the newest was made."""
        missed = self.next(newest)
        return missed + min(self.next(missed) - missed, GRACE)

    def is_overdue(self, newest: dt.datetime | None, now: dt.datetime) -> bool:
        """Tell whether a new backup should have been made a while ago."""
        return newest is None or now > self.overdue_from(newest)


def schedule_of(text: str, site: str, zone: ZoneInfo) -> Schedule | None:
    """Return the schedule for a value of BACKUP_SCHEDULE; None for `off`.

    `site`: the id of the site, in hexadecimal digits. The time depends on it, so that sites that share a machine or a
    location do not all begin at once.
    """
    number = int(site, 16)
    minute, hour = number % 60, NIGHT[number // 60 % len(NIGHT)]
    crons = {
        DAILY: f"{minute} {hour} * * *",
        HOURLY: f"{minute} * * * *",
        WEEKLY: f"{minute} {hour} * * 0",
    }
    return None if text == OFF else Schedule(crons.get(text, text), zone)

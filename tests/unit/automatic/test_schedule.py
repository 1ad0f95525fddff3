"""When an automatic backup is due: slots by name and by cron, across clock changes."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ImproperlyConfigured

from backup.automatic.schedule import NIGHT, schedule_of
from backup.conf import conf

SITE = "0123456789ab"
BERLIN = ZoneInfo("Europe/Berlin")


def at(text, zone=BERLIN):
    moment = dt.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


def slots(cron, start, count, zone=BERLIN):
    """The next slots after a moment, on the clock of the zone."""
    schedule, moment, found = schedule_of(cron, SITE, zone), at(start, zone), []
    for _ in range(count):
        moment = schedule.next(moment)
        found.append(f"{moment.astimezone(zone):%m-%d %H:%M%z}")
    return found


def test_daily_is_a_moment_of_the_night():
    found = {slots("daily", "2026-01-01", 1)[0], *slots("daily", "2026-06-01 23:00", 1)}
    (moment,) = {text.split()[1].partition("+")[0] for text in found}
    assert int(moment[:2]) in NIGHT


def test_the_moment_differs_from_site_to_site():
    crons = [schedule_of("daily", f"{number:012x}", BERLIN).cron for number in range(240)]
    assert len(set(crons)) == 240
    assert all(int(cron.split()[1]) in NIGHT for cron in crons)
    assert schedule_of("daily", SITE, BERLIN) == schedule_of("daily", SITE, BERLIN)


def test_hourly_weekly_and_cron():
    hours = slots("hourly", "2026-01-01 12:59:59", 3)
    assert [text[6:8] for text in hours] in (["13", "14", "15"], ["12", "13", "14"])
    weeks = slots("weekly", "2026-01-01", 2)
    assert [text[:5] for text in weeks] == ["01-04", "01-11"], "Sundays"
    assert slots("30 2 1 * *", "2026-01-01", 2) == ["01-01 02:30+0100", "02-01 02:30+0100"]
    assert schedule_of("off", SITE, BERLIN) is None


def test_last_and_next_meet_at_a_slot():
    schedule = schedule_of("30 2 * * *", SITE, BERLIN)
    slot = at("2026-01-05 02:30")
    assert schedule.last(slot) == slot
    assert schedule.last(slot - dt.timedelta(microseconds=1)) == slot - dt.timedelta(days=1)
    assert schedule.last(slot + dt.timedelta(microseconds=1)) == slot
    assert schedule.next(slot) == slot + dt.timedelta(days=1)
    assert schedule.next(slot - dt.timedelta(microseconds=1)) == slot


def test_spring_skips_no_backup():
    """At 2 o'clock it is 3 o'clock: a slot of the hour that is not there comes right after it."""
    found = slots("30 2 * * *", "2026-03-28", 3)
    assert found == ["03-28 02:30+0100", "03-29 03:00+0200", "03-30 02:30+0200"]


def test_autumn_makes_no_second_one():
    found = slots("30 2 * * *", "2026-10-24", 3)
    assert found == ["10-24 02:30+0200", "10-25 02:30+0200", "10-26 02:30+0100"]


@pytest.mark.parametrize("cron", ["30 2 * * *", "daily", "hourly", "15 */6 * * *", "0 0 29 2 *"])
@pytest.mark.parametrize("day", ["2026-03-29T00:00+00:00", "2026-10-25T00:00+00:00"])
def test_in_a_clock_change_last_and_next_agree(cron, day):
    schedule = schedule_of(cron, SITE, BERLIN)
    for minute in range(-90, 240, 5):
        now = at(day) + dt.timedelta(minutes=minute)
        last, following = schedule.last(now), schedule.next(now)
        assert last <= now < following
        assert schedule.next(last) == following
        assert schedule.last(following) == following


def test_due_from_the_slot_on():
    schedule = schedule_of("30 2 * * *", SITE, BERLIN)
    assert schedule.is_due(None, at("2026-01-05 12:00"))
    assert not schedule.is_due(at("2026-01-05 02:30"), at("2026-01-06 02:29"))
    assert schedule.is_due(at("2026-01-05 02:30"), at("2026-01-06 02:30"))
    assert schedule.is_due(at("2025-12-01 02:30"), at("2026-01-06 02:29")), "a missed one is made up"


def test_overdue_a_day_or_a_period_after_the_slot_that_was_missed():
    daily, hourly = (schedule_of(cron, SITE, BERLIN) for cron in ("30 2 * * *", "0 * * * *"))
    newest = at("2026-01-05 02:30")
    assert not daily.is_overdue(newest, at("2026-01-06 12:00"))
    assert not daily.is_overdue(newest, at("2026-01-07 02:30"))
    assert daily.is_overdue(newest, at("2026-01-07 02:31"))
    assert daily.is_overdue(newest, at("2026-02-07 02:31"))
    assert daily.is_overdue(None, newest)
    assert not hourly.is_overdue(newest, at("2026-01-05 03:59"))
    assert hourly.is_overdue(newest, at("2026-01-05 04:01"))
    weekly = schedule_of("0 3 * * 0", SITE, BERLIN)
    assert weekly.is_overdue(at("2026-01-04 03:00"), at("2026-01-12 03:01"))
    assert not weekly.is_overdue(at("2026-01-04 03:00"), at("2026-01-12 02:59"))


@pytest.mark.parametrize(
    "text", ["daily", "Daily ", "hourly", "weekly", "off", "30 2 * * *", "0 4 * * MON-FRI", "0 0 1,15 * *"]
)
def test_schedules(settings, text):
    settings.BACKUP_SCHEDULE = text
    assert conf.schedule == text.strip().lower()
    assert (schedule_of(conf.schedule, SITE, BERLIN) is None) is (text == "off")
    assert text == "off" or slots(conf.schedule, "2026-01-01", 1)


@pytest.mark.parametrize(
    "text", ["", "dayly", "* * * *", "* * * * * *", "61 2 * * *", "0 0 30 2 *", "@daily", None, 7, True]
)
def test_what_is_no_schedule(settings, text):
    settings.BACKUP_SCHEDULE = text
    with pytest.raises(ImproperlyConfigured, match="BACKUP_SCHEDULE must be"):
        _ = conf.schedule

"""Which automatic backups stay, and the reasons that people are told."""

import datetime as dt
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ImproperlyConfigured

from backup.automatic.retention import verdicts
from backup.conf import conf, keep_rules
from backup.options import Place, Places
from backup.storage.kept import BackupKind
from tests.support.backups import stored

SITE = "0123456789ab"
BERLIN = ZoneInfo("Europe/Berlin")
NOW = dt.datetime(2026, 11, 26, 12, tzinfo=BERLIN)
DEFAULT = "last=7,weekly=4,monthly=12,yearly=all"


def backup(moment, kind=BackupKind.AUTOMATIC, site=SITE, **more):
    created = moment if isinstance(moment, dt.datetime) else dt.datetime.fromisoformat(moment)
    created = created if created.tzinfo else created.replace(tzinfo=BERLIN)
    moment = created.astimezone(dt.timezone.utc)
    name = f"babybuddy_{moment:%Y%m%dT%H%M%S.%f}Z_{kind.value}_{site}_0123456789ABCDEF.zip"
    return stored(created, name=name, kind=kind, site=site, **more)


def nightly(days, until=NOW):
    night = until.replace(hour=2, minute=30)
    return [backup(night - dt.timedelta(days=day)) for day in range(days)]


def judged(backups, keep=DEFAULT, now=NOW, halted=""):
    return verdicts(backups, keep_rules(keep), site=SITE, zone=BERLIN, now=now, halted=halted)


def days_that_stay(backups, keep=DEFAULT, **more):
    return [f"{v.backup.created:%m-%d}" for v in judged(backups, keep, **more) if v.stays]


def test_the_default():
    found = judged(nightly(420))
    stay = [f"{v.backup.created:%y-%m-%d}" for v in found if v.stays]
    assert stay == [
        *[
            f"26-11-{day}" for day in range(26, 19, -1)
        ],  # the last seven, and with them two weeks, a month, a year
        "26-11-15",
        "26-11-08",
        *["26-10-31", "26-09-30", "26-08-31", "26-07-31", "26-06-30", "26-05-31"],
        *["26-04-30", "26-03-31", "26-02-28", "26-01-31", "25-12-31"],
    ]
    assert found[0].reasons == ("the newest", "last", "weekly 2026-11-23", "monthly 2026-11", "yearly 2026")
    assert {v.reasons for v in found if not v.stays} == {()}


@pytest.mark.parametrize(
    ("keep", "days"),
    [
        ("last=2", ["11-26", "11-25"]),
        ("daily=2", ["11-26", "11-25"]),
        ("weekly=3", ["11-26", "11-22", "11-15"]),
        ("monthly=2", ["11-26", "10-31"]),
        ("yearly=all", ["11-26"]),
        ("last=1,weekly=2", ["11-26", "11-22"]),
    ],
)
def test_each_rule(keep, days):
    assert days_that_stay(nightly(40), keep) == days


def test_hours_and_days_have_a_last_one():
    hours = [backup(NOW - dt.timedelta(minutes=20 * n)) for n in range(12)]
    found = [f"{v.backup.created:%H:%M}" for v in judged(hours, "hourly=3") if v.stays]
    assert found == ["12:00", "11:40", "10:40"]


def test_periods_are_those_of_the_zone():
    """Sunday night in Berlin is Sunday still in UTC: which week, and which month, is a matter of TIME_ZONE."""
    early = backup("2026-11-02T00:30:00+01:00")  # a Monday there; in UTC the 1st, a Sunday
    late = backup("2026-11-01T23:30:00+01:00")
    assert [v.stays for v in judged([early, late], "weekly=2")] == [True, True]
    utc = verdicts([early, late], keep_rules("weekly=2"), site=SITE, zone=ZoneInfo("UTC"), now=NOW)
    assert [v.stays for v in utc] == [True, False]


def test_periods_without_a_backup_do_not_count():
    old = [backup(f"{year}-06-01") for year in (2026, 2021, 2015)] + [backup("2015-05-31")]
    assert [v.stays for v in judged(old, "monthly=3")] == [True, True, True, False]


def test_the_newest_and_the_newest_proved_one_always_stay():
    proved = {"verdict": "proved", "at": "", "records": 1}
    failed = {"verdict": "failed", "at": "", "records": 1}
    nights = nightly(9)
    moments = [night.created for night in nights]
    found = judged(
        [backup(moments[0], proof=failed), backup(moments[3]), backup(moments[5], proof=proved)], "yearly=1"
    )
    assert [v.reasons for v in found] == [("the newest", "yearly 2026"), (), ("the newest that is proved",)]


def test_a_pinned_one_stays_and_counts_like_the_others():
    nights = nightly(4)
    nights[1] = backup(nights[1].created, pinned=True)
    nights[3] = backup(nights[3].created, pinned=True)
    found = judged(nights, "last=2")
    assert [v.reasons for v in found] == [("the newest", "last"), ("pinned", "last"), (), ("pinned",)]


def test_the_future_neither_pushes_out_nor_goes():
    ahead = [backup(NOW + dt.timedelta(days=day)) for day in range(1, 9)]
    assert days_that_stay([*nightly(4), *ahead], "last=2")[-2:] == ["11-26", "11-25"]
    assert len(days_that_stay([*nightly(4), *ahead], "last=2")) == 10
    assert {v.reasons for v in judged(ahead, "last=2")} == {("dated in the future",)}
    later = NOW + dt.timedelta(days=9)  # its moment has come: by the rules
    assert len(days_that_stay([*nightly(4), *ahead], "last=2", now=later)) == 2


def test_a_damaged_one_pushes_none_out():
    nights = nightly(4)
    nights[0] = backup(nights[0].created, is_damaged=True)
    assert days_that_stay(nights, "last=2") == ["11-26", "11-25", "11-24"]


def lacking_values(backup):
    return replace(backup, left_out=Places([Place("core.note", 1, "note", "no text")], 1))


def lacking_photos(backup):
    return replace(backup, warnings=["A photo is not in the backup."])


@pytest.mark.parametrize("lacking", [lacking_values, lacking_photos])
def test_one_that_lacks_something_pushes_no_whole_one_out(lacking):
    """It stays where the rules want it beside the whole ones, which stay as if it were not there."""
    whole = nightly(20, until=NOW - dt.timedelta(days=10))
    since = [lacking(backup) for backup in nightly(10)]
    names = {v.backup.name for v in judged(whole, "last=3,weekly=2") if v.stays}
    found = {v.backup.name for v in judged([*since, *whole], "last=3,weekly=2") if v.stays}
    assert found - {backup.name for backup in since} == names
    assert found & {backup.name for backup in since} == {backup.name for backup in since[:3]} | {
        since[4].name
    }
    (proved,) = [replace(whole[12], proof={"verdict": "proved"})]
    lacks = [replace(backup, proof={"verdict": "proved"}) for backup in since]
    verdict = judged([*lacks, *whole[:12], proved, *whole[13:]], "last=1")
    assert [v.backup.name for v in verdict if v.stays] == [since[0].name, whole[0].name, proved.name]


def with_photos(backup, number=3):
    return replace(backup, photos=number, includes_photos=True)


def reasons(backups, keep="last=2"):
    return [v.reasons for v in judged(backups, keep)]


def test_the_newest_with_photos_stays_while_newer_ones_include_none():
    """Somebody has set BACKUP_PHOTOS to False, which may be a mistake."""
    nights = nightly(6)
    before = [with_photos(backup) for backup in nights[3:]]
    assert reasons([*nights[:3], *before])[2:] == [(), ("the newest with photos",), (), ()]
    assert reasons([with_photos(nights[0]), *nights[1:3], *before])[2:] == [()] * 4, "photos are on again"
    none = [with_photos(backup, 0) for backup in nights]
    assert reasons([*nights[:3], *none[3:]])[2:] == [()] * 4, "there never was any"
    assert reasons([*none[:3], *before])[2:] == [()] * 4, "somebody has deleted all photos"


@pytest.mark.parametrize("lacking", [lacking_values, lacking_photos])
def test_neither_the_newest_with_photos_nor_the_newest_whole_one_with_photos_goes(lacking):
    nights = nightly(9)
    lacks = [lacking(with_photos(backup)) for backup in nights[3:6]]
    found = reasons([*nights[:3], *lacks, *map(with_photos, nights[6:])])
    assert found[2:] == [(), ("the newest with photos",), (), (), ("the newest with photos",), (), ()]
    not_mounted = lacking_photos(with_photos(nights[0], 0))
    found = reasons([not_mounted, *nights[1:3], *lacks])
    assert found[3:] == [("the newest with photos",), (), ()]


def test_only_automatic_ones_of_this_site_are_judged():
    nights = nightly(3)
    others = [
        backup(NOW, kind=BackupKind.MANUAL),
        backup(NOW, kind=BackupKind.SAFETY),
        backup(NOW, site="ffffffffffff"),
    ]
    assert [v.backup for v in judged([*others, *nights], "last=1")] == nights


def test_nothing_goes_while_there_is_a_reason_to_halt():
    found = judged(nightly(4), "last=2", halted="entries are missing")
    assert [v.reasons for v in found][2:] == [("entries are missing",)] * 2
    assert all(v.stays for v in found)


def test_any_order_gives_the_same():
    nights = nightly(50)
    assert judged(nights[::-1]) == judged(nights)


@pytest.mark.parametrize("keep", ["last=7", " last = 7 , yearly=all", DEFAULT, "hourly=24,daily=7"])
def test_policies(settings, keep):
    settings.BACKUP_KEEP = keep
    assert conf.keep == keep
    assert keep_rules(keep)


@pytest.mark.parametrize(
    "keep",
    ["", " ", "last", "last=", "last=0", "last=-1", "lats=7", "last=7,", "last=7,last=8", "all", None, 7],
)
def test_an_empty_or_misspelled_policy_is_refused(settings, keep):
    settings.BACKUP_KEEP = keep
    with pytest.raises(ImproperlyConfigured, match="BACKUP_KEEP must be"):
        _ = conf.keep


def test_what_an_undo_would_bring_back_stays():
    """A safety copy of a state that an automatic backup holds is no second file, so that one must not go."""
    old = backup("2026-11-03", is_undo=True)
    verdict = next(v for v in judged([*nightly(9), old], "last=2") if v.backup is old)
    assert verdict.reasons == ("the last restore can be undone with it",)

"""The alarm of the shrink guard: when it begins, when it ends, what it says, and what accepting it means."""

import datetime as dt
import json
import os
import resource
import sqlite3
from pathlib import Path

import pytest
from core import models as core
from django.core import mail
from django.core.management import call_command
from django.test import Client
from freezegun import freeze_time

from backup.archive import Key
from backup.automatic import guard, left, run, status
from backup.automatic.status import State, acknowledge
from backup.exceptions import StorageFailed
from backup.storage import facts, kept
from tests.support.http import error_of, script, url


@pytest.fixture
def night(nightly, settings, at):
    """A run on a day of November, after something was entered. Returns the backup."""
    settings.BACKUP_PROVE = "off"

    def night(day):
        with freeze_time(at(f"2026-11-{day:02} 03:00")):
            core.Note.objects.create(child=core.Child.objects.first(), note=f"day {day}")
            return run.run().backup

    return night


@pytest.fixture
def now(at):
    """The status at noon of a day of November."""

    def now(day):
        with freeze_time(at(f"2026-11-{day:02} 12:00")):
            return status.status()

    return now


def add_child(name="Third"):
    return core.Child.objects.create(first_name=name, last_name="Child", birth_date="2025-01-01")


def lose(child):
    """Delete a child. Returns a function that brings it back."""
    key = child.pk
    child.delete()

    def back():
        child.pk = key
        child.save()

    return back


def at_noon(number):
    return dt.datetime(2026, 10, 1, 12, tzinfo=dt.timezone.utc) + dt.timedelta(seconds=number)


def days():
    return sorted(backup.created.day for backup in kept.backups())


def test_it_ends_once_what_was_lost_is_back_and_begins_anew(night, now, settings):
    settings.BACKUP_KEEP = "last=2"
    child = add_child()
    night(1)
    back = lose(child)
    night(2)
    assert now(2).state is State.SHRUNK
    back()
    night(3)
    assert (now(3).state, now(3).losses, now(3).before) == (State.OK, [], "")
    good = night(4)
    assert days() == [3, 4], "the rules apply again"
    lose(child)
    for day in (5, 6, 7):
        night(day)
    found = now(7)
    assert (found.state, found.before) == (State.SHRUNK, good.name)
    assert found.as_json()["shrunk"] == [{"model": "core.child", "before": 3, "now": 2}]
    assert days() == [3, 4, 5, 6, 7]


@pytest.fixture
def many(nightly):
    """Notes enough for the guard."""
    child = core.Child.objects.first()
    return core.Note.objects.bulk_create([core.Note(child=child, note=f"{n}") for n in range(300)])


def test_what_is_entered_since_does_not_make_up_for_what_is_gone(many, night, now, settings):
    settings.BACKUP_KEEP = "last=1"
    good = night(1)
    gone = [note for note in core.Note.objects.all() if note.pk % 3 == 0]
    core.Note.objects.filter(pk__in=[note.pk for note in gone]).delete()
    night(2)
    before = now(2).losses
    assert [loss.model for loss in before] == ["core.note"]
    core.Note.objects.bulk_create([core.Note(child=many[0].child, note="new") for _ in range(90)])
    for day in (3, 4):
        night(day)
    assert (now(4).state, now(4).before) == (State.SHRUNK, good.name)
    assert [(loss.before, loss.now) for loss in now(4).losses] == [(before[0].before, before[0].now)]
    assert days() == [1, 2, 3, 4]
    core.Note.objects.bulk_create(gone)
    night(5)
    assert now(5).state is State.OK
    assert days() == [5]


def test_other_entries_with_the_same_keys_do_not_make_up_for_it(many, night, now, settings):
    """A database that was made anew, or an early backup that was restored, gives the keys once more."""
    settings.BACKUP_KEEP = "last=1"
    good = night(1)
    keys = [note.pk for note in many]
    core.Note.objects.filter(pk__in=keys).delete()
    night(2)
    core.Note.objects.bulk_create(
        [core.Note(pk=key, child=many[0].child, note="new", time=at_noon(key)) for key in keys]
    )
    for day in (3, 4):
        night(day)
    assert (now(4).state, now(4).before) == (State.SHRUNK, good.name)
    assert days() == [1, 2, 3, 4]


def test_the_same_entries_with_other_keys_are_back(many, night, now, settings):
    """As a restore beside what is there brings them."""
    settings.BACKUP_KEEP = "last=1"
    night(1)
    core.Note.objects.filter(pk__in=[note.pk for note in many]).delete()
    night(2)
    assert now(2).state is State.SHRUNK
    core.Note.objects.bulk_create(
        [core.Note(pk=note.pk + 5000, child=note.child, note=note.note, time=note.time) for note in many]
    )
    night(3)
    assert now(3).state is State.OK
    assert days() == [3]


def test_what_backups_leave_out_since_is_not_back(many, night, now, settings):
    settings.BACKUP_KEEP = "last=1"
    good = night(1)
    core.Note.objects.filter(pk__in=[note.pk for note in many[:200]]).delete()
    night(2)
    settings.BACKUP_EXCLUDE = ["core.note"]
    night(3)
    assert [loss.model for loss in now(3).losses] == ["core.note"]
    assert now(3).before == good.name
    assert days() == [1, 2, 3]


def test_it_stays_if_nothing_can_be_compared(night, now, settings):
    settings.BACKUP_KEEP, settings.BACKUP_ENCRYPT = "last=1", ["local"]
    settings.BACKUP_KEY = Key.make().text
    night(1)
    lose(core.Child.objects.last())
    night(2)
    settings.BACKUP_KEY = Key.make().text
    night(3)
    assert [loss.model for loss in now(3).losses] == ["core.child"]


def test_it_stays_until_the_very_backup_that_had_it_is_no_better(night, now):
    """As where the last backup was also compared with an older one, that a location had."""
    first, child = night(1), add_child()
    good = night(2)
    lose(child)
    night(3)
    shrunk = night(4)
    loss = {"model": "core.child", "before": 3, "now": 2, "backup": good.name}
    assert shrunk.facts[guard.SHRUNK] == [loss]
    Path(kept.local_path(good.name)).unlink()
    facts.save(kept.parse(shrunk.name), {**shrunk.facts, guard.SHRUNK: [loss]})
    night(5)
    assert [(loss.model, loss.backup) for loss in now(5).losses] == [("core.child", good.name)]
    assert now(5).before == "", "it is gone"
    assert first.name in [backup.name for backup in kept.backups()]


# --- Before a backup is removed -----------------------------------------------------------------------------


def away(paths, folder):
    """Move files away. Returns a function that brings them back."""
    folder.mkdir(exist_ok=True)
    moved = [(path, folder / path.name) for path in paths]
    for path, other in moved:
        path.rename(other)

    def back():
        for path, other in moved:
            other.rename(path)

    return back


@pytest.mark.parametrize("changes", [True, False], ids=["something changed", "nothing changed"])
def test_what_comes_back_after_a_while_is_not_removed(night, now, at, settings, tmp_path, changes):
    """The disk with the backups was away for some nights, so the new ones could be compared with nothing."""
    settings.BACKUP_KEEP = "last=2"
    child = add_child()
    good = night(1)
    folder = Path(kept.local_path(good.name)).parent
    back = away([*folder.iterdir()], tmp_path / "away")
    lose(child)
    for day in (2, 3):
        night(day)
    assert now(3).state is State.OK
    back()
    if changes:
        night(4)
    else:
        with freeze_time(at("2026-11-04 03:00")):
            assert not run.run().made
    assert (now(4).state, now(4).before) == (State.SHRUNK, good.name)
    assert 1 in days()


@pytest.mark.parametrize("changes", [True, False], ids=["something changed", "nothing changed"])
def test_without_any_notes_nothing_is_removed_that_the_newest_lacks(night, now, at, settings, changes):
    """The backups were copied to another machine without the small files beside them."""
    settings.BACKUP_KEEP = "last=1"
    child = add_child()
    good = night(1)
    lose(child)
    night(2)
    for path in Path(kept.local_path(good.name)).parent.glob("*.json"):
        path.unlink()
    if changes:
        night(3)
    else:
        with freeze_time(at("2026-11-03 03:00")):
            assert not run.run().made
    found = now(3)
    assert (found.state, found.before) == (State.SHRUNK, good.name)
    assert found.as_json()["shrunk"] == [{"model": "core.child", "before": 3, "now": 2}]
    assert {1, 2} <= {*days()}


def test_what_is_accepted_does_not_come_up_for_each_backup_that_has_it(
    many, night, now, at, settings, nightly
):
    """Each of them is compared once more before it is removed."""
    settings.BACKUP_KEEP = "last=4"
    for day in (1, 2, 3):
        night(day)
    core.Note.objects.filter(pk__in=[note.pk for note in many]).delete()
    night(4)
    assert now(4).state is State.SHRUNK
    with freeze_time(at("2026-11-04 12:00")):
        acknowledge(nightly.admin)
    for day in (5, 6, 7, 8):
        night(day)
        assert now(day).state is State.OK
    assert days() == [5, 6, 7, 8]


def test_what_goes_missing_right_after_a_confirmation_is_told_though_it_is_as_much(
    night, now, at, nightly, many
):
    night(1)
    half = len(many) // 2
    core.Note.objects.filter(pk__in=[note.pk for note in many[:half]]).delete()
    night(2)
    assert len(mail.outbox) == 1
    with freeze_time(at("2026-11-02 12:00")):
        assert acknowledge(nightly.admin).state is State.OK
    core.Note.objects.filter(pk__in=[note.pk for note in many[half : half + half // 2]]).delete()
    night(3)
    assert now(3).state is State.SHRUNK
    fewer = "Baby Buddy: entries are fewer than in the backup before"
    assert [message.subject for message in mail.outbox] == [fewer] * 2
    with freeze_time(at("2026-11-03 12:00")):
        acknowledge(nightly.admin)
    core.Note.objects.create(child=core.Child.objects.first(), note="all is well")
    night(4)
    assert [message.subject for message in mail.outbox][2:] == ["Baby Buddy: automatic backups work again"]


def test_what_is_accepted_is_asked_again_for_a_backup_that_was_away(
    many, night, now, at, settings, nightly, tmp_path
):
    settings.BACKUP_KEEP = "last=2"
    child = add_child()
    first = night(1)
    lose(child)
    with freeze_time(at("2026-11-01 13:00")):
        away(Path(kept.local_path(first.name)).parent.glob("*20261101T*"), tmp_path / "away")
    night(2)
    core.Note.objects.filter(pk__in=[note.pk for note in many]).delete()
    night(3)
    with freeze_time(at("2026-11-03 12:00")):
        acknowledge(nightly.admin)
    for path in (tmp_path / "away").iterdir():
        path.rename(Path(kept.local_path(first.name)).parent / path.name)
    night(4)
    night(5)
    found = now(5)
    assert (found.state, found.before) == (State.SHRUNK, first.name)
    assert "core.child" in [loss.model for loss in found.losses]
    assert 1 in days()


def test_who_was_entered_and_lost_while_another_loss_was_open_is_a_loss_of_its_own(
    night, now, at, settings, nightly
):
    settings.BACKUP_KEEP = "last=2"
    leo = add_child("Leo")
    night(1)
    leo.delete()
    night(2)
    nora = add_child("Nora")
    night(3)
    last = night(4)
    shown = now(4).shown
    mail.outbox.clear()
    nora.delete()
    night(5)
    assert [(loss.model, loss.before, loss.now) for loss in now(5).losses] == [("core.child", 3, 2)] * 2
    both = "Children 3 → 2 (Nov. 4, 2026, 3 a.m.), Children 3 → 2 (Nov. 1, 2026, 3 a.m.)"
    assert both in now(5).message
    assert len(mail.outbox) == 1, "people are told of it"
    assert now(5).as_json()["shrunk"] == [{"model": "core.child", "before": 3, "now": 2}]
    with freeze_time(at("2026-11-05 12:00")):
        answer = script(nightly.admin).post(url("acknowledge"), {"shown": shown})
        assert answer.status_code == 409
    for day in (6, 7):
        night(day)
    assert {1, 3, 4} <= {*days()}
    assert last.name in {loss.backup for loss in now(7).losses}


def test_what_is_accepted_covers_no_other_child_of_a_backup_that_comes_back(
    night, now, at, settings, nightly, tmp_path
):
    settings.BACKUP_KEEP = "last=2"
    mia, leo = add_child("Mia"), add_child("Leo")
    good = night(1)
    folder = Path(kept.local_path(good.name)).parent
    back = away([*folder.iterdir()], tmp_path / "away")
    mia.delete()
    night(2)
    leo.delete()
    night(3)
    assert now(3).state is State.SHRUNK
    back()
    with freeze_time(at("2026-11-04 12:00")):
        acknowledge(nightly.admin)
    for day in (5, 6):
        night(day)
    assert (now(6).state, now(6).before) == (State.SHRUNK, good.name)
    assert 1 in days()
    with freeze_time(at("2026-11-06 12:00")):
        acknowledge(nightly.admin)
    for day in (7, 8):
        night(day)
        assert now(day).state is State.OK
    assert days() == [7, 8]


def test_a_child_whose_name_and_birth_date_are_corrected_at_once_is_confirmed_once(
    many, night, now, at, settings, nightly
):
    settings.BACKUP_KEEP = "last=3"
    for day in (1, 2):
        night(day)
    core.Child.objects.filter(pk=many[0].child.pk).update(
        first_name="Emma", last_name="X", birth_date="2020-02-02"
    )
    night(3)
    assert [loss.model for loss in now(3).losses] == ["core.child"], "its entries are there"
    with freeze_time(at("2026-11-03 12:00")):
        acknowledge(nightly.admin)
    for day in (4, 5, 6):
        night(day)
        assert now(day).state is State.OK
    assert days() == [4, 5, 6]


def test_what_tells_others_apart_stays_as_long_as_these(many, night, now, at, settings, nightly):
    """Backups of months are compared with the one of the day by which a loss was found, which must not go before."""
    settings.BACKUP_KEEP = "monthly=2,last=1"
    with freeze_time(at("2026-10-31 03:00")):
        run.run()
    good = night(1)
    core.Note.objects.filter(pk__in=[note.pk for note in many]).delete()
    after = night(2)
    with freeze_time(at("2026-11-02 12:00")):
        acknowledge(nightly.admin)
        assert now(2).state is State.OK
    night(3)
    assert days() == [1, 2, 3, 31]
    reasons = {v.backup.name: v.reasons for v in status.retention()}
    assert reasons[good.name] == reasons[after.name] == ("older ones are compared with it",)
    settings.BACKUP_KEEP = "last=1"
    night(4)
    assert now(4).state is State.OK
    assert days() == [4]


def gone_or_damaged(backup, after):
    path = Path(kept.local_path(backup.name))
    if after == "is deleted":
        kept.delete(backup.name)
    elif after == "is damaged":
        path.write_bytes(path.read_bytes()[:200] + bytes(path.stat().st_size - 200))


@pytest.mark.parametrize("after", ["is there", "is deleted", "is damaged"])
def test_what_is_lost_after_something_was_accepted_is_a_new_loss(
    many, night, now, at, settings, nightly, after
):
    """Whatever becomes of the backup that was the newest then."""
    settings.BACKUP_KEEP = "last=2"
    add_child("Ben")
    cleo = add_child("Cleo")
    night(1)
    cleo.delete()
    core.Note.objects.filter(pk__in=[note.pk for note in many[:100]]).delete()
    shown = night(2)
    with freeze_time(at("2026-11-02 12:00")):
        acknowledge(nightly.admin)
        gone_or_damaged(shown, after)
    core.Child.objects.get(first_name="Ben").delete()
    core.Note.objects.filter(pk__in=[note.pk for note in many[100:]]).delete()
    for day in (3, 4, 5, 6):
        night(day)
    found = now(6)
    assert found.state is (State.FAILED if after == "is damaged" else State.SHRUNK)
    assert {loss.model for loss in found.losses} == {"core.child", "core.note"}
    assert 1 in days() or (after == "is there" and 2 in days())
    with freeze_time(at("2026-11-06 12:00")):
        acknowledge(nightly.admin)
        if after == "is damaged":
            kept.delete(shown.name)
    for day in (7, 8, 9):
        night(day)
        assert now(day).state is State.OK
    assert days() == [8, 9]


@pytest.mark.parametrize("after", ["is deleted", "is damaged"])
def test_as_many_others_are_no_substitute_for_what_was_accepted(
    many, night, now, at, settings, nightly, after
):
    """What was rightly gone comes back, and as much else goes, where nobody can look at the backup of that day."""
    settings.BACKUP_KEEP = "last=2"
    ben, cleo = add_child("Ben"), add_child("Cleo")
    night(1)
    back = lose(ben)
    gone = [*core.Note.objects.filter(pk__in=[note.pk for note in many[:100]])]
    core.Note.objects.filter(pk__in=[note.pk for note in gone]).delete()
    shown = night(2)
    with freeze_time(at("2026-11-02 12:00")):
        acknowledge(nightly.admin)
        gone_or_damaged(shown, after)
    back()
    core.Note.objects.bulk_create(gone)
    cleo.delete()
    core.Note.objects.filter(pk__in=[note.pk for note in many[100:200]]).delete()
    for day in (3, 4, 5, 6):
        night(day)
    found = now(6)
    assert found.state is (State.FAILED if after == "is damaged" else State.SHRUNK)
    assert {loss.model for loss in found.losses} == {"core.child", "core.note"}
    assert 1 in days()


def test_what_was_found_by_the_oldest_is_not_asked_again_by_the_others(night, now, at, settings, nightly):
    """The oldest one, which the others are compared with, goes last."""
    settings.BACKUP_KEEP = "last=9"
    ben = add_child("Ben")
    first = [night(day) for day in (1, 2, 3)]
    ben.delete()
    night(4)
    for path in Path(kept.local_path(first[0].name)).parent.glob("*.json"):
        path.unlink()
    settings.BACKUP_KEEP = "last=1"
    night(5)
    assert (now(5).state, now(5).before) == (State.SHRUNK, first[0].name)
    with freeze_time(at("2026-11-05 12:00")):
        acknowledge(nightly.admin)
    for day in (6, 7, 8):
        night(day)
        assert now(day).state is State.OK
    assert days() == [8]


def test_a_backup_of_the_future_does_not_tell_which_photos_there_are(nightly, at):
    with freeze_time(at("2030-01-01 03:00")):
        future = run.run(now=True).backup
    assert future.includes_photos
    with freeze_time(at("2026-11-01 03:00")):
        assert guard.newest_with_photos(kept.backups()) == ""
        today = run.run(now=True).backup
        assert guard.newest_with_photos(kept.backups()) == today.name


def test_what_goes_slowly_after_something_was_accepted_is_noticed(many, night, now, at, settings, nightly):
    settings.BACKUP_KEEP = "last=2,monthly=1"
    with freeze_time(at("2026-10-31 03:00")):
        run.run()
    core.Note.objects.filter(pk__in=[note.pk for note in many[:80]]).delete()
    night(1)
    with freeze_time(at("2026-11-01 12:00")):
        assert [loss.model for loss in now(1).losses] == ["core.note"]
        acknowledge(nightly.admin)
    for day in range(2, 7):
        core.Note.objects.filter(pk__in=[note.pk for note in many[80 + 40 * (day - 2) :][:40]]).delete()
        night(day)
    found = now(6)
    assert found.state is State.SHRUNK, "fewer than fifty a day, and two hundred in all"
    assert 31 in days() or 1 in days()


def test_it_does_not_end_before_all_is_back(many, night, now, settings):
    settings.BACKUP_KEEP = "last=1"
    good = night(1)
    gone = [*core.Note.objects.filter(pk__in=[note.pk for note in many[:100]])]
    core.Note.objects.filter(pk__in=[note.pk for note in gone]).delete()
    night(2)
    for day, first, last in ((3, 0, 60), (4, 60, 99)):
        core.Note.objects.bulk_create(gone[first:last])
        night(day)
        assert (now(day).state, now(day).before) == (State.SHRUNK, good.name)
    assert days() == [1, 2, 3, 4]
    core.Note.objects.bulk_create(gone[99:])
    night(5)
    assert now(5).state is State.OK
    assert days() == [5]


def test_what_was_accepted_of_the_same_backup_need_not_come_back(many, night, now, at, settings, nightly):
    settings.BACKUP_KEEP = "last=9"
    cleo, ben = add_child("Cleo"), add_child("Ben")
    night(1)
    cleo.delete()
    night(2)
    with freeze_time(at("2026-11-02 12:00")):
        acknowledge(nightly.admin)
    back = lose(ben)
    night(3)
    assert now(3).state is State.SHRUNK
    back()
    night(4)
    assert now(4).state is State.OK


def test_twins_who_got_each_others_keys_are_the_same_children(night, now):
    """As after a restore beside what was there. The birth date and the key are those of the other one, too."""
    mia, zoe = add_child("Mia"), add_child("Zoe")
    core.Note.objects.bulk_create([core.Note(child=mia, note=f"{n}", time=at_noon(n)) for n in range(90)])
    night(1)
    core.Note.objects.filter(child=mia).update(child=zoe)
    core.Child.objects.filter(pk=mia.pk).update(first_name="Zoe", slug="zoe-a")
    core.Child.objects.filter(pk=zoe.pk).update(first_name="Mia", slug="mia-a")
    night(2)
    assert now(2).state is State.OK


def test_a_twin_does_not_make_up_for_the_other(night, now):
    mia, zoe = add_child("Mia"), add_child("Zoe")
    night(1)
    key = mia.pk
    mia.delete()
    core.Child.objects.filter(pk=zoe.pk).update(id=key)
    night(2)
    assert [(loss.model, loss.before, loss.now) for loss in now(2).losses] == [("core.child", 4, 3)]


def test_without_room_for_comparing_a_backup_is_made_all_the_same(night, now, settings, monkeypatch, caplog):
    """And nothing is removed."""
    settings.BACKUP_KEEP = "last=1"
    night(1)

    def full(*args):
        with left._room_explained():
            raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(guard, "records_left", full)
        night(2)
        assert "cannot be compared" in caplog.text
        assert days() == [1, 2]
        assert now(2).state is State.FAILED
        assert "database or disk is full" in now(2).message
    night(3)
    assert (now(3).state, days()) == (State.OK, [3])


def test_no_room_for_a_temporary_database_is_told(monkeypatch):
    monkeypatch.setattr(left, "_MEMORY", 16)
    bag = left._Bag()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    try:
        with pytest.raises(StorageFailed), left._room_explained():
            bag.put(range(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        bag.close()


def test_what_cannot_all_be_compared_in_time_goes_on_in_the_next_night(night, now, settings, monkeypatch):
    settings.BACKUP_KEEP = "last=9"
    for day in range(1, 7):
        night(day)
    settings.BACKUP_KEEP = "last=1"
    calls = []

    def is_late():
        calls.append(1)
        return len(calls) > 2

    monkeypatch.setattr(run, "_is_late", is_late)
    night(7)
    assert days() == [3, 4, 5, 6, 7], "the oldest first"
    assert now(7).state is State.OK
    monkeypatch.undo()
    settings.BACKUP_PROVE, settings.BACKUP_KEEP = "off", "last=1"
    night(8)
    assert days() == [8]


def test_one_that_is_pinned_while_it_is_compared_stays(night, settings, monkeypatch):
    """Although the next one is to be removed, too."""
    settings.BACKUP_KEEP = "last=9"
    first = night(1)
    for day in (2, 3):
        night(day)
    settings.BACKUP_KEEP = "last=1"
    real = guard.lost_without

    def lost_without(name, *arguments):
        if name == first.name:
            kept.pin(name, True)
        return real(name, *arguments)

    monkeypatch.setattr(guard, "lost_without", lost_without)
    night(4)
    assert days() == [1, 4]


def test_one_that_cannot_be_compared_stays_and_stops_no_other(night, now, settings, caplog):
    settings.BACKUP_KEEP = "last=1"
    first = night(1)
    settings.BACKUP_KEEP = "last=3"
    night(2)
    night(3)
    path = Path(kept.local_path(first.name))
    content = bytearray(path.read_bytes())
    content[200:400] = os.urandom(200)
    path.write_bytes(content)
    settings.BACKUP_KEEP = "last=1"
    night(4)
    assert days() == [1, 4]


# --- What is noted ------------------------------------------------------------------------------------------


def test_notes_of_older_versions(night, now):
    good, child = night(1), core.Child.objects.last()
    lose(child)
    shrunk = night(2)
    older = {"model": "core.child", "before": 2, "now": 1}
    facts.save(
        kept.parse(shrunk.name), {guard.SHRUNK: [older, "?", {"model": 1}, {**older, "model": "child"}]}
    )
    found = now(2)
    assert (found.state, found.before, found.as_json()["shrunk"]) == (State.SHRUNK, good.name, [older])
    accepted = {"by": "admin", "at": "2026-11-02T12:00:00+00:00"}
    facts.save(kept.parse(shrunk.name), {guard.SHRUNK: [older], guard.ACCEPTED: accepted})
    assert now(2).state is State.OK
    night(3)
    assert now(3).state is State.OK


def test_damaged_notes_of_the_newest_end_nothing(night, now):
    night(1)
    lose(core.Child.objects.last())
    night(2)
    newest = night(3)
    Path(kept.local_path(newest.name)).with_suffix(".json").write_text("{")
    assert now(3).state is State.SHRUNK


def test_it_is_not_up_again_if_the_backup_is_deleted_for_which_it_was_accepted(night, now, settings, nightly):
    settings.BACKUP_KEEP = "last=9"
    night(1)
    lose(core.Child.objects.last())
    night(2)
    newest = night(3)
    acknowledge(nightly.admin)
    kept.delete(newest.name)
    assert now(3).state is State.OK
    night(4)
    assert now(4).state is State.OK


# -- what is said, and where ---


def page(user):
    client = Client()
    client.force_login(user)
    return client.get(url("index")).content.decode()


@pytest.mark.parametrize("trouble", ["failed run", "failed proof", "failed location", "off", "overdue"])
def test_no_other_trouble_hides_it(night, now, at, settings, nightly, monkeypatch, tmp_path, capsys, trouble):
    good, child = night(1), core.Child.objects.last()
    lose(child)
    shrunk, day = night(2), 2
    if trouble == "failed run":

        def full(*args, **kwargs):
            raise StorageFailed("No space left on device.")

        with monkeypatch.context() as patch:
            patch.setattr(kept, "keep", full)
            with pytest.raises(StorageFailed):
                night(3)
        day = 3
        assert "Children 2 → 1" in mail.outbox[-1].body
    elif trouble == "failed proof":
        proof = {"verdict": "failed", "at": "2026-11-02T03:00:00+00:00", "records": 0, "place": "local"}
        kept.note(shrunk.name, proofs={"local": proof})
    elif trouble == "failed location":
        (tmp_path / "file").touch()
        settings.BACKUP_LOCATIONS = f"usb={tmp_path / 'file' / 'usb'}"
        night(3)
        day = 3
    elif trouble == "off":
        settings.BACKUP_SCHEDULE = "off"
    else:
        day = 9
    found = now(day)
    states = {"off": State.OFF, "overdue": State.SHRUNK}
    assert found.state is states.get(trouble, State.FAILED)
    said = "Entries are fewer than in the backup before: Children 2 → 1."
    assert said in found.message
    assert ("is overdue" in found.message) is (trouble == "overdue")
    assert found.as_json()["shrunk"] == [{"model": "core.child", "before": 2, "now": 1}]
    with freeze_time(at(f"2026-11-{day:02} 12:00")):
        shown = page(nightly.admin)
        for text in ("Children 2 → 1", f'name="kept" value="{good.name}"', url("acknowledge")):
            assert text in shown
        assert url("acknowledge") not in page(nightly.staff)
        call_command("backups")
        assert said in capsys.readouterr().out
        assert "Entries are fewer" not in acknowledge(nightly.admin).message


def test_the_next_loss_is_told_too_and_what_is_entered_is_not(night, now):
    add_child()
    child = core.Child.objects.first()
    core.Note.objects.bulk_create(core.Note(child=child, note=f"{n}") for n in range(200))
    night(1)
    core.Note.objects.filter(pk__in=list(core.Note.objects.values_list("pk", flat=True))[100:]).delete()
    for day in (2, 3, 4):
        night(day)
    assert len(mail.outbox) == 1
    lose(core.Child.objects.last())
    night(5)
    assert len(mail.outbox) == 2
    lose(core.Child.objects.last())
    night(6)
    night(7)
    assert len(mail.outbox) == 3
    assert "Children 3 → 1" in mail.outbox[-1].body


# -- accepting it ---


def test_what_yesterdays_page_showed_is_all_that_it_accepts(night, now, at, settings, nightly):
    settings.BACKUP_KEEP = "last=1"
    add_child()
    night(1)
    lose(core.Child.objects.last())
    night(2)
    shown = now(2).shown
    client = Client()
    client.force_login(nightly.admin)
    night(3)
    lose(core.Child.objects.last())
    night(4)
    with freeze_time(at("2026-11-04 12:00")):
        answer = client.post(url("acknowledge"), {"shown": shown})
        text = answer.content.decode()
        assert answer.status_code == 409
        assert "Since then more entries went missing. Look again." in text
        assert "Children 3 → 1" in text
        for wrong in (shown, "", "{", "[]"):
            refused = script(nightly.admin).post(url("acknowledge"), {"shown": wrong})
            assert (refused.status_code, error_of(refused)["code"]) == (409, "losses_changed")
        assert status.status().state is State.SHRUNK
        answer = client.post(url("acknowledge"), {"shown": status.status().shown}, follow=True)
        assert "Protected" in answer.content.decode()
    night(5)
    assert days() == [5]


def test_what_a_page_showed_is_accepted_on_a_later_day(night, now, at, nightly):
    night(1)
    lose(core.Child.objects.last())
    night(2)
    shown = now(2).shown
    night(3)
    with freeze_time(at("2026-11-03 12:00")):
        assert acknowledge(nightly.admin, shown).state is State.OK


def test_the_page_sends_what_it_shows(night, at, nightly):
    night(1)
    lose(core.Child.objects.last())
    night(2)
    with freeze_time(at("2026-11-02 12:00")):
        sent = page(nightly.admin).partition('name="shown" value="')[2].partition('"')[0]
        shown = status.status().shown
    assert json.loads(sent.replace("&quot;", '"')) == json.loads(shown)


def test_what_is_accepted_is_one_loss_and_no_other():
    one = {"model": "core.note", "before": 500, "now": 100, "backup": name(1)}
    other = {"model": "core.child", "before": 3, "now": 2, "backup": name(2)}
    beside = guard.with_accepted({guard.SHRUNK: [one]}, guard.noted({guard.SHRUNK: [one]}), {"by": "admin"})
    assert guard.open_losses(beside) == []
    both = guard.merged(beside, {guard.SHRUNK: [one, other]})
    assert [loss.as_fact() for loss in guard.open_losses(both)] == [other]


def name(day):
    return f"babybuddy_2026110{day}T030000.000000Z_automatic_0123456789ab_0123456789ABCDEF.zip"

"""Backups that are proved by themselves: which, when, and what follows from the verdict."""

import datetime as dt

import pytest
from core import models as core
from django.core import mail
from freezegun import freeze_time

from backup import services
from backup.automatic import run, status
from backup.automatic.status import State
from backup.automatic.turns import next_to_prove
from backup.conf import conf
from backup.storage import kept
from backup.storage.facts import TRIED
from tests.support.backups import spoiled, stored

NOW = dt.datetime(2026, 11, 25, 3, tzinfo=dt.timezone.utc)


def backup(days, tried=None):
    """A backup that is so many days old, of which a proof was tried so many days ago."""
    tries = {} if tried is None else {TRIED: {"local": (NOW - dt.timedelta(days=tried)).isoformat()}}
    return stored(NOW - dt.timedelta(days=days), name=f"{days} days old", facts=tries)


@pytest.mark.parametrize(
    ("backups", "days"),
    [
        ([], None),
        ([backup(1), backup(6)], None),
        ([backup(1), backup(8, tried=8)], 8),
        ([backup(8, tried=8), backup(15, tried=15), backup(22, tried=22)], 22),
        ([backup(8, tried=8), backup(15), backup(22, tried=22)], 15),
        ([backup(8, tried=8), backup(22, tried=8)], 22),
        ([backup(8, tried=8), backup(22, tried=6)], None),
        ([backup(8, tried=8), backup(15, tried=9), backup(22, tried=10)], 22),
        ([backup(8, tried=-400), backup(15, tried=15)], 15),  # a clock that was wrong
    ],
)
def test_whose_turn_it_is(backups, days):
    found = next_to_prove(backups, NOW)
    assert (found and found.name) == (days and f"{days} days old")


def test_all_take_turns():
    backups = {days: backup(days, tried=days) for days in (10, 20, 30)}
    turns = []
    for week in range(6):
        now = NOW + dt.timedelta(weeks=week)
        found = next_to_prove([*backups.values()], now)
        days = int(found.name.split()[0])
        turns.append(days)
        backups[days] = backup(days, tried=-7 * week)
        assert next_to_prove([*backups.values()], now + dt.timedelta(days=6)) is None
    assert turns == [30, 20, 10, 30, 20, 10]


@pytest.fixture
def proving(nightly, settings):
    settings.BACKUP_PROVE = "all"
    return nightly


def write_a_note():
    core.Note.objects.create(child=core.Child.objects.first(), note="another day")


def test_each_one_is_proved_as_it_is_made(proving):
    made = run.run().backup
    found = status.status()
    assert found.state is State.OK
    assert "came back identical" in found.message
    proof = found.as_json()["proof"]
    assert proof == {
        "verdict": "proved",
        "at": kept.find(made.name).proof["at"],
        "name": made.name,
        "records": made.records,
        "photos": 0,
    }


def test_rot_is_found_and_stops_retention(proving, quick_proofs, settings, at):
    settings.BACKUP_PROVE = "local"
    settings.BACKUP_KEEP = "last=1"
    with freeze_time(at("2026-11-03 03:00")):
        old = run.run().backup.name
        kept.pin(old, True)
    (path,) = conf.root.rglob(old)
    path.write_bytes(spoiled(path.read_bytes()))
    with freeze_time(at("2026-11-11 03:00")):
        write_a_note()
        mail.outbox = []
        second = run.run().backup.name
        mail.outbox = [message for message in mail.outbox if "overdue" not in message.body]
        found = status.status()
        assert found.state is State.FAILED
        assert found.as_json()["proof"]["name"] == old
        assert found.as_json()["proof"]["verdict"] == "failed"
        assert "damaged" in found.message
        assert len(mail.outbox) == 1
        write_a_note()
        run.run(now=True)
        assert kept.find(second), "nothing is removed while a proof has failed"
        assert len(mail.outbox) == 1, "told once"
        kept.delete(old)
        assert status.status().state is State.OK
        run.run(now=True)
        assert len(mail.outbox) == 2, "and once when all is right again"
    with freeze_time(at("2026-11-12 03:00")):
        write_a_note()
        run.run()
        assert [b.created for b in kept.backups()] == [status.status().last.created]


def test_a_failed_one_does_not_stand_for_now(proving, quick_proofs, at):
    with freeze_time(at("2026-11-03 03:00")):
        name = run.run().backup.name
        proof = {"verdict": "failed", "at": NOW.isoformat(), "records": 0, "place": "local"}
        kept.note_proof(name, proof, is_verdict=True)
    with freeze_time(at("2026-11-04 03:00")):
        again = run.run()
        assert again.made, "although nothing has changed"
        # That very file is proved by hand, and all is right.
        assert status.status().state is State.FAILED
        services.prove_kept(name)
        assert status.status().state is State.OK


def test_off(proving, settings):
    settings.BACKUP_PROVE = "off"
    name = run.run().backup.name
    assert kept.find(name).proof is None
    assert status.status().as_json()["proof"] is None

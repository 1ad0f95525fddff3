"""What a preview shows beside its counts: example rows, and records by month."""

import datetime as dt
import json
from collections import Counter

import pytest
from core import models as core
from rest_framework.authtoken.models import Token

from backup.archive import reader
from backup.database import database_of
from backup.restore import preview
from backup.tables import Table
from tests.support.backups import inspect, lines, packed, rewritten, take, unpacked
from tests.support.filling import fill


@pytest.fixture
def three_days(host_db):
    return fill(days=3, children=1, odd=False)


@pytest.fixture
def few(monkeypatch):
    """Small bounds, batches and blocks, so that few rows reach them."""
    monkeypatch.setattr(preview, "MOST", 3)
    monkeypatch.setattr(reader, "BLOCK", 700)
    monkeypatch.setattr(type(database_of()), "BATCH", 4)


def looked(file, clear, label):
    plan = inspect(file, clear=clear)
    return plan.changes[label], plan.preview.samples[label]


@pytest.mark.parametrize("clear", [True, False])
def test_examples_of_each_kind(three_days, few, clear):
    file = take()
    gone, other, *_ = core.Feeding.objects.order_by("pk")
    old, lost = other.notes, gone.pk
    gone.delete()
    core.Feeding.objects.filter(pk=other.pk).update(notes="now")
    child = core.Child.objects.create(first_name="New", last_name="Baby", birth_date="2026-03-01")
    changes, found = looked(file, clear, "core.feeding")
    assert (changes.added, changes.changed) == (1, 1)
    assert [row[0] for row in found.added] == [lost]
    ((here, new),) = found.changed
    assert here[0] == new[0] == other.pk
    assert set(here) - set(new) == {"now"}
    assert old in new
    _changes, children = looked(file, clear, "core.child")
    assert [row[0] for row in children.removed] == ([child.pk] if clear else [])


@pytest.mark.parametrize("clear", [True, False])
def test_no_more_than_so_many(three_days, few, clear):
    file = take()
    keys = list(core.Feeding.objects.values_list("pk", flat=True))
    core.Feeding.objects.filter(pk__in=keys[:5]).delete()
    core.Feeding.objects.filter(pk__in=keys[5:10]).update(notes="now")
    changes, found = looked(file, clear, "core.feeding")
    assert (changes.added, changes.changed) == (5, 5)
    assert (len(found.added), len(found.changed)) == (3, 3)


@pytest.mark.parametrize("clear", [True, False])
def test_long_texts_are_cut_where_they_differ(family, clear):
    child = core.Child.objects.first()
    time = dt.datetime(2026, 6, 1, tzinfo=dt.timezone.utc)
    same = "same " * 100_000
    added, changed, gone = (
        core.Note.objects.create(child=child, time=time, note=f"{number} {same} at the end")
        for number in range(3)
    )
    gone.delete()
    file = take()
    core.Note.objects.filter(pk=changed.pk).update(note=f"1 {same} another end")
    core.Note.objects.filter(pk=added.pk).delete()
    core.Note.objects.create(child=child, time=time, note=same)
    _changes, samples = looked(file, clear, "core.note")
    texts = [value for row in samples.rows() for value in row if isinstance(value, str)]
    assert max(map(len, texts)) <= preview.LONGEST
    ((here, new),) = samples.changed
    assert any("another end" in str(value) for value in here)
    assert any("at the end" in str(value) for value in new)


@pytest.mark.parametrize("places", [[0], [3], [4, 5], [-1], [0, 9, -1], [*range(12)], [*range(2, 30)]])
@pytest.mark.parametrize("layout", ["ours", "another", "unordered"])
def test_rows_that_the_backup_does_not_hold_are_found_wherever_they_are(three_days, few, places, layout):
    keys = sorted(core.DiaperChange.objects.values_list("pk", flat=True))
    assert len(keys) > 12
    missing = sorted({keys[place] for place in places if place < len(keys)})
    rows = list(core.DiaperChange.objects.filter(pk__in=missing))
    core.DiaperChange.objects.filter(pk__in=missing).delete()
    file = take()
    core.DiaperChange.objects.bulk_create(rows)
    if layout == "another":
        file = rewritten(file)
    elif layout == "unordered":
        file = as_version_1_0(file)
    changes, found = looked(file, True, "core.diaperchange")
    assert changes.as_json() == {
        "added": 0,
        "changed": 0,
        "unchanged": len(keys) - len(missing),
        "removed": len(missing),
    }
    assert [row[0] for row in found.removed] == missing[::-1][:3], "the last first"


def as_version_1_0(file):
    """Without checksums, and records in any order."""
    members = unpacked(file)
    metadata = json.loads(members["metadata.json"])
    metadata["version"] = "1.0"
    del metadata["models"]
    records = json.loads(members["core/diaperchange.json"])
    members["core/diaperchange.json"] = lines(records[::-1])
    return packed({**members, "metadata.json": json.dumps(metadata)})


def test_a_row_that_makes_way(three_days):
    file = take()
    Token.objects.filter(user=three_days.admin).delete()
    token = Token.objects.create(user=three_days.admin)
    _changes, found = looked(file, False, "authtoken.token")
    assert [row[0] for row in found.removed] == [token.key]


def test_tables_that_the_backup_does_not_hold(three_days):
    note = core.Note.objects.create(child=core.Child.objects.first(), note="late")
    changes, found = looked(rewritten(take(), lambda records: records.pop("core.note")), True, "core.note")
    assert changes.removed == core.Note.objects.count()
    assert found.removed[0][0] == note.pk


@pytest.mark.parametrize("clear", [True, False])
def test_months(three_days, clear):
    """Cut out of text, parsed, or counted by the database: the same numbers."""
    child = core.Child.objects.first()
    for year, month in ((2024, 12), (2025, 1), (2025, 1), (2026, 6)):
        time = dt.datetime(year, month, 1, tzinfo=dt.timezone.utc)
        core.DiaperChange.objects.create(child=child, time=time, wet=True, solid=False)
    core.Weight.objects.create(child=child, weight=4, date=dt.date(2024, 12, 31))
    file = take()
    before = counted()
    core.DiaperChange.objects.filter(time__year=2025).delete()
    core.Feeding.objects.update(notes="now")
    look = inspect(file, clear=clear).preview
    assert look.months == before
    assert look.months_here == counted()
    assert (before["2025-01"], look.months_here["2025-01"]) == (2, 0)
    assert before["2024-12"] == 2


def counted():
    """The same by Django's own means."""
    entries = (
        (core.DiaperChange, "time"),
        (core.Feeding, "start"),
        (core.Medication, "time"),
        (core.Note, "time"),
        (core.Pumping, "start"),
        (core.Sleep, "start"),
        (core.Temperature, "time"),
        (core.Timer, "start"),
        (core.TummyTime, "start"),
        (core.BMI, "date"),
        (core.HeadCircumference, "date"),
        (core.Height, "date"),
        (core.Weight, "date"),
    )
    months = Counter()
    for model, name in entries:
        months.update(f"{moment:%Y-%m}" for moment in model.objects.values_list(name, flat=True))
    return months


def test_a_note_that_looks_like_a_moment_is_not_counted(three_days):
    child = core.Child.objects.first()
    time = dt.datetime(2026, 6, 1, tzinfo=dt.timezone.utc)
    core.Note.objects.create(child=child, note='"time":"1999-01-01', time=time)
    assert "1999-01" not in inspect(take(), clear=True).preview.months


def test_keys_descending(three_days, few):
    database = database_of()
    keys = [key for batch in database.keys_descending(Table(core.DiaperChange)) for key in batch]
    assert keys == sorted(core.DiaperChange.objects.values_list("pk", flat=True), reverse=True)


def test_size_of_the_database(three_days):
    assert database_of().size() > 10_000

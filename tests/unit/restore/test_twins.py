"""Two records of a backup with the same unique values, as in an edited file: named before anything is written."""

import pytest
from core import models as core

from backup.exceptions import RecordsConflict
from backup.presentation.conflicts import conflict_in_words
from backup.restore.twins import twins
from backup.tables import Table
from tests.support.backups import inspect, records_of, refused, rewritten, take

both_modes = pytest.mark.parametrize("clear", [True, False])


def copied(label, pk, **fields):
    """A change that copies the first record of a model, with another key."""

    def change(records):
        first = records[label][0]
        records[label].append({**first, "pk": pk, "fields": {**first["fields"], **fields}})

    return change


@both_modes
def test_a_copied_line_is_named_by_the_preview_and_the_restore(family, clear):
    file = rewritten(take(), copied("core.child", 90))
    core.Child.objects.all().delete()  # otherwise both match the child here, which is another conflict
    first = records_of(file)["core.child"][0]["pk"]
    plan = inspect(file, clear=clear)
    for error in (plan.refusal, refused(file, RecordsConflict, clear=clear)):
        assert "the same values" in error.message
        (line,) = error.details
        assert line.startswith("core.child 90: ")
        assert f"the same slug as core.child {first}," in line
    (conflict,) = plan.conflicts
    assert conflict.reason in conflict_in_words(conflict)


def test_two_tokens_of_a_user_are_named_without_their_keys(family):
    file = rewritten(take(), copied("authtoken.token", "b" * 40))
    token = records_of(file)["authtoken.token"][0]["pk"]
    for error in (inspect(file, clear=True).refusal, refused(file, RecordsConflict, clear=True)):
        (line,) = error.details
        assert "the same user as authtoken.token" in line
        assert "b" * 40 not in line
        assert token not in line


def test_records_that_match_the_same_row_are_named_once(family):
    file = rewritten(take(), copied("core.child", 90))
    assert len(inspect(file, clear=False).conflicts) == 1


def test_null_is_no_value(family):
    """Any number of rows may have it in a unique field."""
    table = Table(core.Child)
    place = table.uniques[0][0]
    rows = [tuple(None if at == place else key for at in range(len(table.columns))) for key in (1, 2)]
    assert twins(table, lambda: [rows], 2) == []


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_many_are_read_several_times(at_once):
    table = Table(core.Child)
    place = table.uniques[0][0]
    rows = [
        tuple(key if at else 7 + number for at in range(len(table.columns)))
        for number, key in enumerate([*range(10), 4, 2])
    ]
    found = twins(table, lambda: [rows[:5], rows[5:]], len(rows), at_once)
    assert sorted((conflict.row[0], conflict.same_as) for conflict in found) == [(17, 11), (18, 9)]
    assert all(conflict.row[place] in (2, 4) for conflict in found)

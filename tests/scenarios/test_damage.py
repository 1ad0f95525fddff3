"""Data that cannot be read: a backup, a safety copy and a restore all the same, by choice, with all that is lost named.

SQLite lets a column hold anything, and a file of its own may be damaged: no other engine does either.
"""

import io
import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from core import models as core
from django.core.management import CommandError, call_command
from django.db import connection
from django.urls import reverse

from backup import services
from backup.database import memo
from backup.exceptions import Damaged, InvalidBackup, Unreadable
from backup.options import RestoreMode, RestoreOptions
from tests.support.backups import metadata_of, records_of, take
from tests.support.snapshots import differences, snapshot

pytestmark = pytest.mark.skipif(connection.vendor != "sqlite", reason="of SQLite")

CLEAR = RestoreOptions(RestoreMode.CLEAR)

LATIN = "Fièvre".encode("latin-1")


def spoil():
    """Three values that nobody can read: one that may be missing, one that may not, and a text of other bytes."""
    change = core.DiaperChange.objects.first()
    weight = core.Weight.objects.first()
    note = core.Note.objects.first()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE core_diaperchange SET amount = '3,45' WHERE id = %s", [change.pk])
        cursor.execute("UPDATE core_weight SET weight = '' WHERE id = %s", [weight.pk])
        cursor.execute("UPDATE core_note SET note = CAST(%s AS TEXT) WHERE id = %s", [LATIN, note.pk])
    return change.pk, weight.pk, note.pk


def expected(before, change, weight, note):
    """What a backup holds that leaves out what `spoil` spoiled."""
    before["core.diaperchange"][change]["amount"] = None
    del before["core.weight"][weight]
    before["core.note"][note]["note"] = "Fi\N{REPLACEMENT CHARACTER}vre"
    return before


def assert_named(text, change, weight, note):
    for name, value in (
        (f"core.diaperchange {change}, field amount", "3,45"),
        (f"core.weight {weight}", "weight"),
        (f"core.note {note}, field note", r"Fi\xe8vre"),
    ):
        assert name in text
        assert value in text


def test_what_cannot_be_read_is_named_all_at_once_and_left_out_by_choice(family):
    before = snapshot()
    spoiled = spoil()
    with pytest.raises(Unreadable) as caught:
        take()
    assert len(caught.value.details) == 3
    assert caught.value.offer == "leave_out"
    assert_named(str(caught.value), *spoiled)

    file = take(leave_out=True)
    left_out = metadata_of(file)["left_out"]
    assert left_out["total"] == 3
    assert {(place["model"], place["pk"], place["field"]) for place in left_out["places"]} == {
        ("core.diaperchange", spoiled[0], "amount"),
        ("core.weight", spoiled[1], None),
        ("core.note", spoiled[2], "note"),
    }
    file.seek(0)
    plan = services.inspect_backup(file, CLEAR)
    assert_named("\n".join(plan.warnings), *spoiled)


def test_nothing_else_is_lost(family):
    before = snapshot()
    change, weight, note = spoil()
    file = take(leave_out=True)
    services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR, without_safety_copy=True))
    assert not differences(expected(before, change, weight, note), snapshot())


def path():
    return Path(connection.settings_dict["NAME"])


def hurt(table, which):
    """Overwrite a page of a table with 0xff: `which` of those that hold rows of it, or that of an index."""
    connection.close()
    with closing(sqlite3.connect(path())) as database:
        size = database.execute("PRAGMA page_size").fetchone()[0]
        pages = [
            number
            for (number,) in database.execute(
                "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY pageno", [table]
            )
        ]
    with path().open("r+b") as file:
        file.seek((pages[which] - 1) * size)
        file.write(b"\xff" * size)


@pytest.fixture
def many(family):
    """Notes on several pages of the file."""
    child = core.Child.objects.first()
    core.Note.objects.bulk_create(
        core.Note(child=child, note=f"{number} " + "x" * 200) for number in range(200)
    )
    return family


@pytest.mark.parametrize("which", [0, 3, -1])
def test_rows_around_a_damaged_page(many, which):
    before = snapshot()
    hurt("core_note", which)
    with pytest.raises(Unreadable) as caught:
        take()
    assert "core.note" in str(caught.value)
    file = take(leave_out=True)
    (place,) = metadata_of(file)["left_out"]["places"]
    assert place["model"] == "core.note"
    found = {record["pk"] for record in records_of(file)["core.note"]}
    lost = before["core.note"].keys() - found
    first, last = map(int, re.findall(r"\d+", place["reason"]))
    assert lost == {key for key in before["core.note"] if first <= key <= last}
    assert 0 < len(lost) < 40
    assert records_of(file)["core.child"]


def test_a_damaged_index_is_no_reason(family):
    before = records_of(take())
    hurt(index_of("auth_user_groups"), 0)
    assert records_of(take()) == before


def index_of(table):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = %s AND sql <> ''", [table]
        )
        return cursor.fetchone()[0]


def test_a_table_that_is_missing(family):
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE core_note")
    with pytest.raises(Unreadable, match="core_note is missing"):
        take()
    file = take(leave_out=True)
    assert "core.note" not in metadata_of(file)["models"]
    assert records_of(file)["core.feeding"]


# -- a restore over it ----------------------------------------------------------------------------------------


ALL_THE_SAME = RestoreOptions(RestoreMode.CLEAR, without_safety_copy=True)


def kept_file(result):
    """The path of the database file that a result says is kept."""
    (path,) = re.findall(r"\S+\.sqlite3\S*", " ".join(result.warnings))
    return Path(path.rstrip("."))


@pytest.mark.parametrize("mode", RestoreMode)
def test_over_values_that_cannot_be_read(family, mode):
    before, good = snapshot(), take()
    spoiled = spoil()
    as_read = records_of(take(leave_out=True))
    options = RestoreOptions(mode)
    services.inspect_backup(good, options)  # a preview is no problem
    good.seek(0)
    with pytest.raises(Damaged) as caught:
        services.restore_backup(good, options)
    assert caught.value.offer == "without_safety_copy"
    assert_named(str(caught.value), *spoiled)

    good.seek(0)
    result = services.restore_backup(good, replace(options, without_safety_copy=True))
    assert not differences(before, snapshot())
    assert_named("\n".join(result.warnings), *spoiled)
    with closing(sqlite3.connect(kept_file(result))) as raw:
        assert raw.execute("SELECT amount FROM core_diaperchange WHERE id = ?", spoiled[:1]).fetchone() == (
            "3,45",
        )
    services.undo_restore()
    assert records_of(take()) == as_read


@pytest.mark.parametrize("how", ["a page", "a missing table", "the header"])
def test_over_a_damaged_file(many, how):
    before, good, site = snapshot(), take(), memo.site_id()
    inode = path().stat().st_ino
    if how == "a page":
        hurt("core_note", 3)
    elif how == "a missing table":
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE core_note")
    else:
        connection.close()
        with path().open("r+b") as file:
            file.write(b"\xff" * 4096)
    for act in (services.inspect_backup, services.restore_backup):
        good.seek(0)
        with pytest.raises(Damaged) as caught:
            act(good, CLEAR)
        assert caught.value.offer == "without_safety_copy"
    good.seek(0)
    with pytest.raises(Damaged):  # nothing can be added to it
        services.restore_backup(good, RestoreOptions(without_safety_copy=True))
    good.seek(0)
    with pytest.raises(InvalidBackup):
        services.restore_backup(io.BytesIO(b"no backup"), ALL_THE_SAME)
    assert path().stat().st_ino == inode  # it was put back

    good.seek(0)
    result = services.restore_backup(good, ALL_THE_SAME)
    assert not differences(before, snapshot())
    assert kept_file(result).stat().st_ino == inode
    if how != "the header":
        memo._sites.clear()
        assert memo.site_id() == site
        services.undo_restore()  # to what could be read
        assert core.Feeding.objects.count() == len(before["core.feeding"])
        assert core.Note.objects.count() < len(before["core.note"])
    for left in path().parent.glob(f"{path().name}-damaged-*"):
        left.unlink()

"""A database file that is restored while the child still reads it: what comes of it is the same."""

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from backup import services
from backup.exceptions import InvalidBackup, RecordsRefused, Unreadable, UpgradeFailed
from backup.upgrade import process as upgrade
from tests.support import older
from tests.support.backups import how, inspect, refused, restore
from tests.support.matrices import again
from tests.support.snapshots import differences, snapshot

pytestmark = pytest.mark.usefixtures("scratch")
#: Enough that they come in several pieces.
NOTES = 12_000


@pytest.fixture
def opened(monkeypatch):
    """The archives that were opened while they were written."""
    archives = []
    plain = upgrade.open_growing

    def open_growing(*args):
        archives.append(plain(*args))
        return archives[-1]

    monkeypatch.setattr(upgrade, "open_growing", open_growing)
    return archives


@pytest.fixture
def todays(tmp_path, host_db):
    """Makes a database file of today's, after these SQL statements, and opens it."""
    files = []

    def make(*statements):
        path = tmp_path / f"{len(files)}.sqlite3"
        shutil.copyfile(older.updated_in_place("2.6.0"), path)
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            (child,) = database.execute("SELECT MIN(id) FROM core_child").fetchone()
            database.execute("BEGIN")
            database.executemany(
                "INSERT INTO core_note (id, note, time, child_id, image) VALUES (?, ?, '2024-01-01 00:00:00', ?, '')",
                [(1000 + number, f"{number} " * 30, child) for number in range(NOTES)],
            )
            database.execute("COMMIT")
            for statement in statements:
                database.execute(statement)
        files.append(path.open("rb"))
        return files[-1]

    yield make
    for file in files:
        file.close()


@pytest.mark.parametrize("clear", [True, again(False)])
def test_it_is_what_it_would_be_if_it_were_read_first(todays, opened, clear):
    file = todays()
    with services.at_todays_schema(file) as backup:
        plain = restore(backup, clear=True, clear_unknown_apps=True)
    assert not opened
    expected = snapshot()
    assert len(expected["core.note"]) > NOTES
    services.undo_restore()
    result = restore(file, clear=clear, clear_unknown_apps=clear)
    assert len(opened) == 1
    if clear:
        assert not differences(expected, snapshot())
        assert result.records == plain.records
    assert snapshot()["core.note"] == expected["core.note"]


def test_what_is_made_of_an_older_file_is_read_meanwhile_too(host_db, opened, tmp_path):
    """Its log is not there, which is said either way."""
    path = tmp_path / "older.sqlite3"
    shutil.copyfile(older.old("2.0") / "db.sqlite3", path)
    with path.open("r+b") as file:
        file.seek(18)
        file.write(b"\2\2")  # it uses a write-ahead log
    with path.open("rb") as file:
        with services.at_todays_schema(file) as backup:
            plain = restore(backup, clear=True, clear_unknown_apps=True)
        assert not opened
        expected = snapshot()
        services.undo_restore()
        result = restore(file, clear=True, clear_unknown_apps=True)
    assert len(opened) == 1
    assert not differences(expected, snapshot())
    assert (result.records, result.warnings) == (plain.records, plain.warnings)
    assert [line for line in result.warnings if "-wal" in line]


#: What is wrong with a file -> how, and the error.
WRONG = {
    "a value that nobody can read": (["UPDATE core_note SET time = 'soon' WHERE id = 2000"], Unreadable),
    "another one that is said only then": (
        ["UPDATE core_note SET time = 'soon' WHERE id = 2000", "UPDATE core_child SET first_name = ''"],
        Unreadable,
    ),
    "a row that points at nothing": (
        ["UPDATE core_note SET child_id = 4711 WHERE id = 2000"],
        RecordsRefused,
    ),
    "a value that the host does not take": (["UPDATE core_child SET first_name = ''"], InvalidBackup),
    "a table that is missing": (["DROP TABLE core_bmi"], Unreadable),
    "one of a relation": (["DROP TABLE auth_group_permissions"], Unreadable),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_said_in_the_same_words(todays, wrong):
    statements, kind = WRONG[wrong]
    file = todays("PRAGMA foreign_keys = OFF", *statements)
    with pytest.raises(kind) as plain:
        inspect(file, clear=True)
    before = snapshot()
    with pytest.raises(kind) as caught:
        restore(file, clear=True, clear_unknown_apps=True)
    assert not differences(before, snapshot())
    assert str(caught.value) == str(plain.value)
    assert caught.value.details == plain.value.details
    assert caught.value.offer == plain.value.offer


def test_what_cannot_be_read_is_left_out_by_choice(todays, opened):
    file = todays("UPDATE core_note SET time = 'soon' WHERE id = 2000")
    file.seek(0)
    options = replace(how(clear=True, clear_unknown_apps=True), leave_out=True)
    services.restore_backup(file, options)
    assert not opened
    assert 2000 not in snapshot()["core.note"]
    assert 2001 in snapshot()["core.note"]


def test_a_child_that_is_killed(todays, monkeypatch):
    file = todays()
    children = []

    class Popen(upgrade.subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            children.append(self)

    plain = upgrade.open_growing

    def open_growing(*args):
        children[-1].kill()
        return plain(*args)

    monkeypatch.setattr(upgrade.subprocess, "Popen", Popen)
    monkeypatch.setattr(upgrade, "open_growing", open_growing)
    assert "SIGKILL" in refused(file, UpgradeFailed, clear=True, clear_unknown_apps=True).message


def test_a_file_that_is_too_large(todays, settings):
    file = todays()
    settings.BACKUP_MAX_UNCOMPRESSED_SIZE = 1024 * 1024
    with pytest.raises(InvalidBackup) as caught:
        restore(file, clear=True)
    assert caught.value.code == "too_large"

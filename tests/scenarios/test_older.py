"""Backups and database files of older versions, from their upload to the restored rows."""

import io
import json
import os
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import tracemalloc
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from core import models as core
from django.contrib.auth.models import Group
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.migrations.loader import MigrationLoader
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from backup import services
from backup.archive import Writer, open_archive
from backup.database.foreign_file import damage_explained
from backup.database.sqlite import SQLite
from backup.exceptions import (
    InvalidBackup,
    InvalidRecord,
    RecordsRefused,
    RestoreRefused,
    StorageFailed,
    Unreadable,
    UpgradeFailed,
)
from backup.options import SILENT, RestoreOptions
from backup.storage import kept
from backup.storage.kept import BackupKind
from backup.tables import Table
from backup.upgrade import process as upgrade
from backup.upgrade.sources import DatabaseSource
from tests.support import older
from tests.support.backups import (
    Telling,
    checksums_of,
    how,
    inspect,
    packed,
    records_of,
    refused,
    restore,
    rewritten,
    take,
    unpacked,
)
from tests.support.filling import fill, token_key
from tests.support.matrices import ALL, again
from tests.support.processes import ask, process
from tests.support.snapshots import differences, snapshot

pytestmark = pytest.mark.usefixtures("scratch")


def backup_of(version):
    return io.BytesIO((older.old(version) / "backup.zip").read_bytes())


def database_of(version):
    return io.BytesIO((older.old(version) / "db.sqlite3").read_bytes())


def in_place(version):
    """The snapshot of an old database after an update of the host in place."""
    default = connections["default"].settings_dict
    engine = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(older.updated_in_place(version)),
        "OPTIONS": {},
    }
    connections.settings["in place"] = {**default, **engine}
    try:
        return snapshot("in place")
    finally:
        connections["in place"].close()
        del connections["in place"]
        del connections.settings["in place"]


# --- Equal, value for value -------------------------------------------------------------------------------

#: Each version; as both kinds where it costs little to make sure that they are alike. A database file becomes a backup
#: first, and `test_golden_files_are_made_as_they_say` compares the two.
CASES = [
    ("1.9", database_of),
    again("1.9.1", database_of),
    ("1.12", backup_of),
    ("1.16", database_of),
    ("2.0", backup_of),
    ("2.2", database_of),
    ("2.6.0", backup_of),
    ("2.9", database_of),
    again("2.9", backup_of),
]


@pytest.mark.parametrize(("version", "kind"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_it_arrives_as_after_an_update_in_place(host_db, version, kind):
    before = snapshot()
    steps = []
    with services.at_todays_schema(
        kind(version), reporter=Telling(lambda *step: steps.append(step))
    ) as source:
        plan = services.inspect_backup(source, how(clear=True))
        assert not differences(before, snapshot())
        services.restore_backup(source, how(clear=True, clear_unknown_apps=True))
    # Version 1.9.0 cannot be updated in place, since a migration fails on each row of sleep. The next can.
    expected = in_place("1.9.1" if version == "1.9" else version)
    assert not differences(expected, snapshot())
    # The numbers of the preview are of the result, and it says what ran.
    assert plan.metadata.models["core.timer"].records == 1
    assert plan.metadata.models["core.sleep"].records == core.Sleep.objects.count() == 12
    if plan.metadata.upgraded:
        ran = plan.metadata.upgraded.migrations
        assert ran == ran_in_place(version)
        names = [
            label for label, _done, _total in steps if "." in label and label.split(".")[1][:4].isdigit()
        ]
        assert [name for name in names if name in ran] == ran
        assert all(done <= total for _label, done, total in steps)


def ran_in_place(version):
    graph = MigrationLoader(None).graph
    in_scope = {label.split(".")[0] for label in snapshot()} - {"zoo"}
    have = applied(older.old(version) / "db.sqlite3")
    if version == "1.9":  # see `babybuddy.IMPASSABLE`
        have |= {key for key in graph.nodes if key[0] == "core" and key[1].startswith("0015")}
    order = [key for leaf in graph.leaf_nodes() for key in graph.forwards_plan(leaf)]
    ran = [
        f"{app}.{name}" for app, name in dict.fromkeys(order) if (app, name) not in have and app in in_scope
    ]
    # An app that the old version did not have is there from the start.
    return [name for name in ran if not name.startswith("dbsettings.")]


def applied(file):
    with closing(sqlite3.connect(file)) as database:
        return {*database.execute("SELECT app, name FROM django_migrations")}


def test_what_the_migrations_did(host_db):
    """The comparison above says that it is the same; this, that it is something."""
    with closing(sqlite3.connect(older.old("1.12") / "db.sqlite3")) as old:
        assert old.execute("SELECT count(*) FROM core_timer").fetchone() == (13,)
        assert old.execute("SELECT count(*) FROM auth_group WHERE name = 'standard'").fetchone() == (1,)
        times = dict(old.execute("SELECT id, time FROM core_pumping"))
    # Nobody need say that the site settings may go, which 1.9 did not know: they are what migrations make.
    restore(backup_of("1.9"), clear=True)
    assert {row["language"] for row in snapshot()["babybuddy.settings"].values()} == {"en-US", "de"}
    tables = in_place("1.12")
    assert [row["name"] for row in tables["core.timer"].values()] == [None]
    assert {row["name"] for row in tables["auth.group"].values()} == {"grandparents", "read_only"}
    for row in tables["core.feeding"].values():
        assert row["duration"] == row["end"] - row["start"] == timedelta(minutes=95, microseconds=7)
    for row in tables["core.sleep"].values():
        assert row["nap"] == (6 <= row["start"].hour < 18)
    for pk, row in tables["core.pumping"].items():
        assert row["start"] == row["end"]
        assert str(row["start"]).startswith(times[pk])
    assert len(tables["core.weightpercentile"]) == len(tables["core.heightpercentile"]) > 20
    assert {row["image"] for row in tables["core.note"].values()} == {None}


def test_existing_data_is_kept(filled):
    """What the old version did not know, site settings and the zoo, stays; the rest is added by its identity."""
    before = snapshot()
    result = restore(backup_of("1.12"), clear=False)
    after = snapshot()
    kept = {label for label in before if label.split(".")[0] in ("dbsettings", "zoo")}
    assert before["dbsettings.setting"]
    assert before["zoo.specimen"]
    assert not differences({label: before[label] for label in kept}, {label: after[label] for label in kept})
    assert any("dbsettings, zoo" in line for line in result.warnings)
    assert {row["username"] for row in after["auth.user"].values()} >= {"admin", "grandma", "saba@home"}


# --- Apps that one side does not know ---------------------------------------------------------------------


@pytest.fixture
def without_zoo(filled):
    """A backup of this schema, of a host without the zoo."""

    def change(records):
        for label in [label for label in records if label.startswith("zoo.")]:
            del records[label]

    return rewritten(take(), change, lambda metadata: metadata["migrations"].pop("zoo"))


def test_an_app_that_the_backup_does_not_know_keeps_its_rows(without_zoo):
    before = snapshot()
    plan = services.inspect_backup(without_zoo, how(clear=False))
    assert any("zoo" in line and "stays" in line for line in plan.warnings)
    assert plan.unknown_apps == []
    restore(without_zoo, clear=False)
    assert not differences(before, snapshot())


def test_it_is_emptied_only_on_demand(without_zoo):
    before = snapshot()
    plan = services.inspect_backup(without_zoo, how(clear=True))
    assert plan.unknown_apps == plan.as_json()["unknown_apps"] == ["zoo"]
    assert any("zoo" in line and "deleted" in line for line in plan.warnings)
    with pytest.raises(RestoreRefused) as caught:
        restore(without_zoo, clear=True)
    assert caught.value.code == "unknown_apps"
    assert caught.value.details == ["zoo"]
    assert not differences(before, snapshot())
    restore(without_zoo, clear=True, clear_unknown_apps=True)
    after = snapshot()
    assert not any(rows for label, rows in after.items() if label.startswith("zoo."))
    assert before["core.feeding"] == after["core.feeding"]


def test_nothing_need_be_said_where_nothing_would_go(host_db):
    fill(days=1, children=1, odd=False)  # nothing in the zoo
    core.Note.objects.all().delete()
    file = rewritten(
        take(),
        lambda records: [records.pop(label) for label in [*records] if label.startswith("zoo.")],
        lambda metadata: metadata["migrations"].pop("zoo"),
    )
    assert services.inspect_backup(file, how(clear=True)).unknown_apps == []
    restore(file, clear=True)


def test_a_number_that_the_scratch_database_cannot_hold_is_refused_by_name(host_db):
    """PostgreSQL holds NaN, the SQLite of an upgrade does not: never NULL in place of it, nor a crash."""

    def change(records):
        records["core.temperature"][0]["fields"]["temperature"] = "NaN"

    file = rewritten(backup_of("2.6.0"), change)
    error = refused(file, RecordsRefused, clear=True)
    (line,) = error.details
    assert "core.temperature" in line
    assert "NaN" in line
    assert error.offer == "leave_out"


def test_a_number_that_the_scratch_database_cannot_hold_can_be_left_out(host_db):
    """With its record, where that cannot be without it."""
    gone = []

    def change(records):
        gone.append(records["core.temperature"][0]["pk"])
        records["core.temperature"][0]["fields"]["temperature"] = "NaN"

    file = rewritten(backup_of("2.6.0"), change)
    result = services.restore_backup(file, replace(how(clear=True), leave_out=True))
    assert [line for line in result.warnings if "NaN" in line and "core.temperature" in line]
    expected = in_place("2.6.0")
    del expected["core.temperature"][gone[0]]
    assert [line for line in differences(expected, snapshot()) if "tagged" not in line] == []


def test_an_app_that_is_not_here_is_left_out(host_db):
    """Of an upgraded backup too."""
    file = rewritten(
        backup_of("2.6.0"),
        lambda records: records.update(
            {"elsewhere.thing": [{"model": "elsewhere.thing", "pk": 1, "fields": {}}]}
        ),
        lambda metadata: metadata["migrations"].update(elsewhere=["0007_x"]),
    )
    result = restore(file, clear=True)
    assert any("elsewhere.thing" in line for line in result.warnings)
    assert not differences(in_place("2.6.0"), snapshot())


def test_an_app_of_a_database_that_is_not_here_is_told(host_db, tmp_path):
    file = changed(
        tmp_path, "2.6.0", "INSERT INTO django_migrations VALUES (9999, 'elsewhere', '0001_x', '2020-01-01')"
    )
    plan = services.inspect_backup(file, how(clear=False))
    assert any("elsewhere" in line for line in plan.warnings)


# --- What is no upgrade -----------------------------------------------------------------------------------


def test_a_site_that_is_not_up_to_date(host_db, monkeypatch):
    from django.db.migrations.recorder import MigrationRecorder

    recorder = MigrationRecorder(connections["default"])
    name = MigrationLoader(None).graph.leaf_nodes("core")[0][1]
    recorder.migration_qs.filter(app="core", name=name).delete()
    for file in (backup_of("2.6.0"), database_of("2.6.0")):
        with pytest.raises(RestoreRefused) as caught:
            services.inspect_backup(file, how(clear=False))
        assert caught.value.details == [f"core.{name}"]


def test_version_1_0_files_that_do_not_fit(filled):
    members = unpacked(take())
    metadata = json.loads(members.pop("metadata.json"))
    metadata["version"] = "1.0"
    for name in ("models", "migrations", "label"):
        del metadata[name]

    def change(name, old, new):
        members[name] = members[name].replace(old, new)

    file = packed({"metadata.json": json.dumps(metadata), **members})
    restore(file, clear=True)  # as it is, it fits
    change("core/sleep.json", b'"nap":', b'"napping":')
    change("core/child.json", b'"birth_time":', b'"born_at":')
    before = snapshot()
    file = packed({"metadata.json": json.dumps(metadata), **members})
    with pytest.raises(RestoreRefused) as caught:
        restore(file, clear=False)
    child, sleep = caught.value.details
    assert child.startswith("core.child: ")
    assert "birth_time is missing" in child
    assert "born_at is unknown" in child
    assert sleep.startswith("core.sleep: ")
    assert "nap is missing" in sleep
    assert "napping is unknown" in sleep
    with pytest.raises(RestoreRefused, match=r"(?s)Without metadata\.json.*core.child: ") as caught:
        services.restore_backup(packed(members), RestoreOptions(leave_out=True))
    assert "1.0" not in str(caught.value)
    assert not differences(before, snapshot())


# --- Database files that are not what they should be ------------------------------------------------------


def changed(folder, version, *statements):
    """A database of that version after these SQL statements."""
    file = folder / "changed.sqlite3"
    shutil.copyfile(older.old(version) / "db.sqlite3", file)
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA writable_schema = ON")
        for statement in statements:
            database.execute(statement)
        database.commit()
    return io.BytesIO(file.read_bytes())


BAD = {
    "a column is missing": ["ALTER TABLE core_feeding RENAME COLUMN amount TO much"],
    "a table is missing": ["ALTER TABLE core_feeding RENAME TO feeding"],
    "a relation is missing": ["DROP TABLE auth_group_permissions"],
    "a view in place of a table": [
        "ALTER TABLE core_feeding RENAME TO feeding",
        "CREATE VIEW core_feeding AS SELECT * FROM feeding",
    ],
    "a generated column": [
        "ALTER TABLE core_note RENAME COLUMN note TO was",
        "ALTER TABLE core_note ADD COLUMN note text AS (hex(zeroblob(9)))",
    ],
    "nothing of Baby Buddy's": ["DELETE FROM django_migrations WHERE app = 'core'"],
    "two tables in one place": [
        "UPDATE sqlite_master SET rootpage = "
        "(SELECT rootpage FROM sqlite_master WHERE name = 'core_height') WHERE name = 'core_bmi'"
    ],
    "no migrations": ["DROP TABLE django_migrations"],
    "text for a number": ["UPDATE core_feeding SET amount = 'much' WHERE id = 3"],
    "a date that is none": ["UPDATE core_child SET birth_date = 'yesterday'"],
    "a blob for a text": ["UPDATE core_note SET note = x'00ff' WHERE id = 2"],
    "no UTF-8": ["UPDATE core_note SET note = CAST(x'ff' AS text) WHERE id = 2"],
    "a duration that is none": ["UPDATE core_sleep SET duration = 'long' WHERE id = 2"],
    "a true that is none": ["UPDATE core_diaperchange SET wet = 7 WHERE id = 2"],
}


def pointing_at_one_another(path, table):
    """Let the pages of a table lead to each other in more ways than anybody can go."""
    with closing(sqlite3.connect(path)) as database:
        sql = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ?"  # it could be counted by that
        for (name,) in database.execute(sql, [table]).fetchall():
            database.execute(f"DROP INDEX {name}")
        database.execute("CREATE TABLE filler (pages)")
        database.executemany("INSERT INTO filler VALUES (zeroblob(4000))", [()] * 9)
        database.commit()
        (size,) = database.execute("PRAGMA page_size").fetchone()
        (count,) = database.execute("PRAGMA page_count").fetchone()
        (root,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [table]).fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        page = file.read(size)
        for number in (*range(count - 8, count + 1), root):
            file.seek((number - 1) * size)
            file.write(page)
            # An inner page: hundreds of cells of five bytes each, that all lead to the page before.
            cells = [size - 5 * (cell + 1) for cell in range((size - 12) // 7)]
            head = struct.pack(">BHHHBL", 5, 0, len(cells), cells[-1], 0, number)
            page = (head + struct.pack(f">{len(cells)}H", *cells)).ljust(cells[-1], b"\0")
            page += struct.pack(">LB", number, 1) * len(cells)


def test_a_small_file_takes_no_minutes(host_db, tmp_path):
    path = tmp_path / "db.sqlite3"
    shutil.copyfile(older.old("2.6.0") / "db.sqlite3", path)
    pointing_at_one_another(path, "core_note")
    with SQLite.foreign(path) as reader:
        for read in (
            partial(reader.count, Table(core.Note)),
            partial(reader.fetch, "SELECT * FROM core_note"),
        ):
            with pytest.raises(InvalidBackup, match="interrupted"), damage_explained():
                read()


def convert(data, tmp_path):
    """What the child does with a database file: read all of it. It touches nothing but its own copy, so it may do it
    here."""
    path = tmp_path / "copy.sqlite3"
    path.write_bytes(data)
    with SQLite.foreign(path) as reader, Writer(io.BytesIO()) as writer:
        DatabaseSource(reader).write(writer, SILENT)


@pytest.mark.parametrize("bad", BAD)
def test_a_database_that_is_not_right_is_refused(host_db, tmp_path, bad):
    with pytest.raises((InvalidBackup, Unreadable)) as caught:
        convert(changed(tmp_path, "2.6.0", *BAD[bad]).getvalue(), tmp_path)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("prove", [False, again(True)])
def test_a_value_that_this_version_no_longer_takes_is_to_be_corrected_in_the_database(
    host_db, tmp_path, prove
):
    """What was computed only since some version, say. A database is no file that anybody could edit."""
    file = changed(tmp_path, "2.9", "UPDATE core_feeding SET duration = NULL WHERE id = 3")
    if prove:
        said = services.prove_backup(file).reason
    else:
        with pytest.raises(InvalidBackup, match=r"core\.feeding 3, field duration: ") as caught:
            services.inspect_backup(file, how(clear=False))
        said = str(caught.value)
    assert "with sqlite3 in a copy" in said
    assert "edited" not in said


def test_its_refusal_comes_from_the_child_as_it_is(host_db, tmp_path):
    before, data = snapshot(), changed(tmp_path, "2.6.0", *BAD["text for a number"])
    with pytest.raises(Unreadable) as here:
        convert(data.getvalue(), tmp_path)
    with pytest.raises(Unreadable) as there:
        services.inspect_backup(data, how(clear=False))
    assert str(there.value) == str(here.value)
    assert there.value.details == here.value.details
    assert not differences(before, snapshot())


def test_databases_of_others_and_broken_ones(host_db, tmp_path):
    other = tmp_path / "other.sqlite3"
    with closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE bookmark (id)")
    good = database_of("2.6.0").getvalue()
    noise = bytearray(good)
    noise[len(good) // 2 : len(good) // 2 + 20_000] = b"\x5a" * 20_000
    for data, reason in [
        (other.read_bytes(), "not one of Baby Buddy"),
        (good[: len(good) // 2], "restore an older copy"),
        (bytes(noise), "cannot be read"),
        (good.replace(b"AUTOINCREMENT", b"AUTOINCREMEN\x85", 1), "malformed database schema"),
        (good.replace(b"AUTOINCREMENT", b"\x1b[31mREMENT", 1), "malformed database schema"),
        (good[:16] + b"\0" * 500, "database file"),
        (good[:16], "database file"),
    ]:
        with pytest.raises((InvalidBackup, Unreadable)) as caught:
            convert(data, tmp_path)
        assert reason in caught.value.message
        assert caught.value.message.isprintable()


def test_a_database_of_a_newer_version(host_db, tmp_path):
    row = "(9999, 'core', '0999_later', '2020-01-01')"
    with pytest.raises(RestoreRefused) as caught:
        convert(
            changed(tmp_path, "2.6.0", f"INSERT INTO django_migrations VALUES {row}").getvalue(), tmp_path
        )
    assert caught.value.details == ["core.0999_later"]


def test_a_database_without_its_journal(host_db, tmp_path):
    """Whoever copies the file of a running Baby Buddy alone may lack the latest entries."""
    file = tmp_path / "db.sqlite3"
    shutil.copyfile(older.old("2.9") / "db.sqlite3", file)
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("UPDATE core_child SET first_name = 'x'")
        database.commit()
        (tmp_path / "copy").write_bytes(file.read_bytes())
    with (tmp_path / "copy").open("rb") as source:
        plan = services.inspect_backup(source, how(clear=True))
    assert [line for line in plan.warnings if "-wal" in line]


@pytest.mark.parametrize("version", [again("2.6.0"), "2.9"])
def test_the_next_row_gets_the_number_that_it_would_have_got_in_a_database_file(host_db, tmp_path, version):
    """The last notes were deleted there. No number is given a second time."""
    file = changed(tmp_path, version, "UPDATE sqlite_sequence SET seq = 8500 WHERE name = 'core_note'")
    restore(file, clear=True, clear_unknown_apps=True)
    note = core.Note.objects.create(child=core.Child.objects.first(), note="n", time=timezone.now())
    assert note.pk == 8501


@pytest.mark.parametrize("counter", ["'many'", again("1e300"), "9e999", again("-5")])
def test_counters_of_a_database_file_that_are_none_are_passed_over(host_db, tmp_path, counter):
    file = changed(tmp_path, "2.9", f"UPDATE sqlite_sequence SET seq = {counter} WHERE name = 'core_note'")
    restore(file, clear=True, clear_unknown_apps=True)
    assert core.Note.objects.exists()


#: Makes many rows, "with x …".
MANY = "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x WHERE n < 300000)"


@pytest.mark.parametrize(
    ("statement", "is_refused"),
    [
        (f"INSERT INTO django_migrations (app, name, applied) {MANY} SELECT 'x', n, '' FROM x", True),
        (f"INSERT INTO sqlite_sequence (name, seq) {MANY} SELECT n, n FROM x", False),
        ("INSERT INTO django_migrations (app, name, applied) SELECT 'x', hex(zeroblob(200)), ''", True),
        ("INSERT INTO django_migrations (app, name, applied) SELECT 'x', zeroblob(50000000), ''", True),
    ],
    ids=["migrations", "counters", "a long name", "a very long name"],
)
def test_no_database_file_fills_the_memory_before_its_rows_are_read(host_db, tmp_path, statement, is_refused):
    path = tmp_path / "copy.sqlite3"
    path.write_bytes(changed(tmp_path, "2.9", statement).getvalue())
    with SQLite.foreign(path) as reader:
        tracemalloc.start()
        try:
            with pytest.raises(InvalidBackup, match="not one of") if is_refused else nullcontext():
                DatabaseSource(reader)
            assert tracemalloc.get_traced_memory()[1] < 24 * 1024 * 1024
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("version", [again("2.6.0"), "2.9"])
def test_a_key_of_a_database_file_that_is_no_number_is_named(host_db, tmp_path, version):
    """Other software may have made the table anew."""
    file = changed(
        tmp_path,
        version,
        "CREATE TABLE own (id text PRIMARY KEY, child_id integer, note text, time datetime, image varchar)",
        "INSERT INTO own SELECT 'n' || id, child_id, note, time, image FROM core_note",
        "DROP TABLE core_note",
        "ALTER TABLE own RENAME TO core_note",
    )
    assert "core.note n1" in str(refused(file, Unreadable, clear=True))


@pytest.mark.parametrize(
    ("version", "long", "keys", "named"),
    [
        ("2.9", False, [None], ["NULL"]),
        ("2.9", False, [None, "5"], ["NULL"]),
        ("2.9", False, [None, 5, 1.5], ["NULL", "1.5"]),
        ("2.9", False, [*[None] * 600, *range(1, 600), "x"], [*["NULL"] * 600, "x"]),
        again("2.6.0", True, [None, 5, 1.5], ["NULL", "1.5"]),
        again("2.6.0", True, [*[None] * 600, *range(1, 600), "x"], [*["NULL"] * 600, "x"]),
    ],
)
def test_rows_without_a_key_in_a_database_file_are_named(host_db, tmp_path, version, keys, named, long):
    """Other software may have made the table anew, without a primary key."""
    columns = "child_id, note, time, image"
    row = f"(SELECT MIN(id) FROM core_child), '{'x' * 20_000 if long else ''}.', '2024-01-01 00:00:00', ''"
    file = changed(
        tmp_path,
        version,
        "CREATE TABLE own (id, child_id integer, note text, time datetime, image varchar)",
        *(f"INSERT INTO own (id, {columns}) SELECT {'NULL' if k is None else repr(k)}, {row}" for k in keys),
        "DROP TABLE core_note",
        "ALTER TABLE own RENAME TO core_note",
    )
    error = refused(file, Unreadable, clear=True)
    assert [line.partition(":")[0] for line in error.details[:20]] == [
        f"core.note {key}" for key in named[:20]
    ]
    assert str(len(named)) in error.message
    services.restore_backup(file, replace(how(clear=True), leave_out=True))
    assert core.Note.objects.count() == len(keys) - len(named)


def test_an_error_blames_the_table_that_is_read(host_db, tmp_path, monkeypatch):
    monkeypatch.setattr(SQLite, "batches", lambda self, table: 1 / 0)
    labels = []
    path = tmp_path / "copy.sqlite3"
    path.write_bytes(database_of("2.9").getvalue())
    with SQLite.foreign(path) as reader, Writer(io.BytesIO()) as writer:
        source = DatabaseSource(reader)
        with pytest.raises(ZeroDivisionError):
            source.write(writer, Telling(lambda label, done, total: labels.append((label, done))))
    assert labels == [(source._tables[0].label, 0)]


@pytest.mark.parametrize("version", [again("2.6.0"), "2.9"])
def test_keys_of_a_database_file_may_be_texts_of_numbers(host_db, tmp_path, version):
    """As texts, 10 comes before 9."""
    file = changed(
        tmp_path,
        version,
        "CREATE TABLE own (id text, child_id integer, note text, time datetime, image varchar)",
        "INSERT INTO own SELECT id + 8, child_id, note, time, image FROM core_note WHERE id <= 2",
        "DROP TABLE core_note",
        "ALTER TABLE own RENAME TO core_note",
    )
    restore(file, clear=True)
    assert {*core.Note.objects.values_list("pk", flat=True)} == {9, 10}


def test_groups_of_users_are_there_where_another_user_has_no_key(host_db, tmp_path):
    columns = (
        "password, is_superuser, username, last_name, email, is_staff, is_active, date_joined, first_name"
    )
    file = changed(
        tmp_path,
        "2.9",
        f"CREATE TABLE own (id, last_login datetime, {columns})",
        f"INSERT INTO own (id, {columns}) SELECT id, {columns} FROM auth_user",
        f"INSERT INTO own (id, {columns}) SELECT NULL, {columns.replace('username', repr('x'))} FROM auth_user LIMIT 1",
        "DROP TABLE auth_user",
        "ALTER TABLE own RENAME TO auth_user",
        "INSERT INTO auth_group (name) VALUES ('some')",
        "INSERT INTO auth_user_groups (user_id, group_id)"
        " SELECT (SELECT MIN(id) FROM auth_user), (SELECT MAX(id) FROM auth_group)",
    )
    assert str(refused(file, Unreadable, clear=True)).count("auth.user NULL") == 1
    services.restore_backup(file, replace(how(clear=True), leave_out=True))
    assert Group.objects.get(name="some").user_set.count() == 1


@pytest.mark.parametrize("version", ["2.6.0", again("2.9")])
def test_a_missing_value_in_a_database_file_is_named(host_db, tmp_path, version):
    file = changed(
        tmp_path,
        version,
        "ALTER TABLE core_note RENAME COLUMN note TO was",
        "ALTER TABLE core_note ADD COLUMN note text",
        "UPDATE core_note SET note = was WHERE id <> 2",
    )
    reason = refused(file, InvalidRecord, clear=True)
    assert str(reason) == "core.note 2, field note: a value is needed"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["database", again("backup")])
def test_the_additions_of_a_fork_are_left_out_by_choice(host_db, tmp_path, kind):
    """To update helps nobody whose Baby Buddy somebody has changed."""
    if kind == "database":
        statements = [
            "INSERT INTO django_migrations VALUES (9999, 'core', '0999_mood', '2020-01-01')",
            "ALTER TABLE core_note ADD COLUMN mood varchar(9) NOT NULL DEFAULT 'happy'",
        ]
        file = changed(tmp_path, "2.9", *statements)
    else:

        def change(records):
            for record in records["core.note"]:
                record["fields"]["mood"] = "happy"
            records["core.mood"] = [{"model": "core.mood", "pk": 1, "fields": {"name": "happy"}}]

        file = rewritten(
            backup_of("2.9"), change, lambda metadata: metadata["migrations"].update(core=["0999_mood"])
        )
    with pytest.raises(RestoreRefused, match="additions") as caught:
        services.inspect_backup(file, how(clear=True))
    assert caught.value.offer == "leave_out"
    path = tmp_path / "fork"
    file.seek(0)
    path.write_bytes(file.read())
    plain = older.old("2.9") / "backup.zip"
    for command in [("prove_backup", str(path)), ("compare_backups", str(plain), str(path))]:
        if kind == "backup" or (ALL and command[0] == "prove_backup"):
            with pytest.raises(CommandError, match="add --leave-out"):
                call_command(*command)
            call_command(*command, leave_out=True)
    file.seek(0)
    options = replace(how(clear=True, clear_unknown_apps=True), leave_out=True)
    result = services.restore_backup(file, options)
    assert core.Note.objects.exists()
    assert "core.note, field mood" in " ".join(result.warnings)
    assert ("core.mood" in " ".join(result.warnings)) is (kind == "backup")


def test_nothing_in_a_database_is_run(host_db, tmp_path):
    """Triggers, and checks and views that would, do nothing; what is not Django's is not looked at."""
    file = changed(
        tmp_path,
        "2.6.0",
        "CREATE VIEW anything AS SELECT load_extension('x'), * FROM core_child",
        "CREATE TRIGGER harm AFTER DELETE ON core_child BEGIN DELETE FROM core_feeding; END",
        "CREATE TABLE more (x CHECK (x > length(randomblob(9))), y AS (zeroblob(x)))",
        "PRAGMA ignore_check_constraints = ON",
        "INSERT INTO more VALUES (-1)",
        "ALTER TABLE core_child ADD COLUMN secret text",
        "CREATE VIRTUAL TABLE words USING fts5(word)",
        "PRAGMA journal_mode = WAL",  # and no WAL beside it
    )
    restore(file, clear=True, clear_unknown_apps=True)
    assert not differences(in_place("2.6.0"), snapshot())


def test_limits_hold_for_databases(host_db, settings):
    settings.BACKUP_MAX_UNCOMPRESSED_SIZE = 20_000
    with pytest.raises(InvalidBackup) as caught:
        services.inspect_backup(database_of("2.6.0"), how(clear=False))
    assert caught.value.code == "too_large"


def bloated(tmp_path, rows, size):
    """A small database file with long notes: they are the default of their column, which stands in the file once."""
    path = tmp_path / "bloated.sqlite3"
    shutil.copyfile(older.old("2.6.0") / "db.sqlite3", path)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA foreign_keys = OFF")
        child, *_ = database.execute("SELECT id FROM core_child").fetchone()
        database.execute("DELETE FROM core_note")
        database.execute("ALTER TABLE core_note DROP COLUMN note")
        database.executemany(
            "INSERT INTO core_note (id, time, child_id, image) VALUES (?, '2024-01-01 00:00:00', ?, '')",
            [(number, child) for number in range(1, rows + 1)],
        )
        database.execute(f"ALTER TABLE core_note ADD COLUMN note text NOT NULL DEFAULT '{'x' * size}'")
    return path


PEAK = """
    import resource, sys
    from backup import services
    from backup.exceptions import BackupError
    from tests.support.backups import how

    for line in sys.stdin:
        try:
            with open(line.strip(), "rb") as file, services.at_todays_schema(file) as backup:
                answer = "done"
        except BackupError as error:
            answer = f"{error.code} {error.message}"
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, answer, flush=True)
"""


def test_memory_is_bounded_by_bytes(host_db, tmp_path):
    """Rows are read one by one where they are that long."""
    path = bloated(tmp_path, rows=120, size=1024 * 1024)
    assert path.stat().st_size < 3 * 1024 * 1024
    with process(PEAK) as child:
        peak, answer = ask(child, str(path)).split(" ", 1)
    assert answer == "done"
    assert int(peak) < 250, "megabytes"


def test_more_than_may_be_is_refused_before_it_is_read(host_db, tmp_path, settings):
    settings.BACKUP_MAX_UNCOMPRESSED_SIZE = 100 * 1024 * 1024
    path = bloated(tmp_path, rows=300, size=1024 * 1024)
    with path.open("rb") as file, pytest.raises(InvalidBackup) as caught:
        services.inspect_backup(file, how(clear=False))
    assert caught.value.code == "too_large"


@pytest.mark.parametrize(
    ("version", "column", "value"),
    [
        ("2.6.0", "core_note.note", "zeroblob(90000000)"),
        ("2.9", "core_note.note", "CAST(zeroblob(20000000) AS text)"),
        again("2.9", "core_tag.slug", "zeroblob(90000000)"),
    ],
    ids=["a long text", "a text that grows in JSON", "a text that should be short"],
)
def test_a_record_that_is_too_large_is_named_before_it_is_read(host_db, tmp_path, version, column, value):
    path, (table, name) = tmp_path / "large.sqlite3", column.split(".")
    statement = f"UPDATE {table} SET {name} = {value} WHERE id = (SELECT max(id) FROM {table})"
    path.write_bytes(changed(tmp_path, version, statement).getvalue())
    with process(PEAK) as child:
        peak, answer = ask(child, str(path)).split(" ", 1)
    assert answer.startswith("unreadable")
    assert int(peak) < 250, "megabytes"


@pytest.mark.parametrize("letter", [again("日"), again("é")])
def test_the_largest_record_fits(host_db, tmp_path, letter):
    size = 62_000_000
    count = size // len(letter.encode())
    statement = f"UPDATE core_note SET note = replace(hex(zeroblob({count // 2})), '00', '{letter * 2}')"
    path = tmp_path / "large.sqlite3"
    path.write_bytes(
        changed(tmp_path, "2.6.0", f"{statement} WHERE id = (SELECT max(id) FROM core_note)").getvalue()
    )
    with process(PEAK) as child:
        peak, answer = ask(child, str(path)).split(" ", 1)
    assert answer == "done"
    assert int(peak) < 800, "megabytes"


def test_a_record_that_is_too_large_can_be_left_out(host_db, tmp_path):
    with closing(sqlite3.connect(older.old("2.6.0") / "db.sqlite3")) as database:
        first, *others = database.execute("SELECT id, note FROM core_note ORDER BY id")
    file = changed(tmp_path, "2.6.0", f"UPDATE core_note SET note = zeroblob(90000000) WHERE id = {first[0]}")
    error = refused(file, Unreadable, clear=True)
    assert f"core.note {first[0]}" in str(error)
    assert "takes more than 64 MB" in str(error)
    assert error.offer == "leave_out"
    result = services.restore_backup(file, replace(how(clear=True), leave_out=True))
    assert any(f"core.note {first[0]}" in line for line in result.warnings)
    assert list(core.Note.objects.order_by("pk").values_list("pk", "note")) == others


def test_a_table_is_not_described_at_any_length(host_db, tmp_path):
    """What is long there is read for each look at the table."""
    path = bloated(tmp_path, rows=3, size=20 * 1024 * 1024)
    with process(PEAK) as child:
        peak, answer = ask(child, str(path)).split(" ", 1)
    assert "not one of Baby Buddy" in answer
    assert int(peak) < 250, "megabytes"


def test_memory_of_the_child_is_limited(trouble):
    """Whatever a migration does."""
    assert "MemoryError" in trouble("take all memory").message


# --- Databases that are in use ----------------------------------------------------------------------------


def test_a_database_with_its_wal(host_db, tmp_path):
    file = tmp_path / "db.sqlite3"
    shutil.copyfile(older.old("2.6.0") / "db.sqlite3", file)
    with closing(sqlite3.connect(file, isolation_level=None)) as user:
        user.execute("PRAGMA journal_mode = WAL")
        user.execute("UPDATE core_note SET note = 'only in the WAL'")
        assert (tmp_path / "db.sqlite3-wal").stat().st_size
        call_command("restore", str(file), clear=True, clear_unknown_apps=True, interactive=False)
    assert {*core.Note.objects.values_list("note", flat=True)} == {"only in the WAL"}


def test_a_database_whose_user_was_killed(host_db, tmp_path):
    """What was not committed is not there: the journal takes it back."""
    file = killed(tmp_path)
    call_command("restore", str(file), clear=True, clear_unknown_apps=True, interactive=False)
    assert not differences(in_place("2.6.0"), snapshot())


def test_a_journal_that_names_another_file(host_db, tmp_path):
    """SQLite would delete the file that it takes for the journal of several databases."""
    file = killed(tmp_path)
    other = tmp_path / "other"
    other.write_text("not a journal")
    with (tmp_path / "db.sqlite3-journal").open("ab") as journal:
        name = os.fsencode(other)
        page = struct.pack(">L", 0x40000000 // 4096 + 1)
        journal.write(
            page + name + struct.pack(">LL", len(name), sum(name)) + bytes.fromhex("d9d505f920a163d7")
        )
    with pytest.raises(CommandError, match="several databases"):
        call_command("restore", str(file), interactive=False, dry_run=True)
    assert other.read_text() == "not a journal"


def killed(folder):
    """A database whose user was killed in the middle of a change, with its journal beside it."""
    file = folder / "db.sqlite3"
    shutil.copyfile(older.old("2.6.0") / "db.sqlite3", file)
    script = (
        "import os, sqlite3, sys; user = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "user.execute('PRAGMA cache_size = 1'); user.execute('BEGIN');"
        "user.execute(\"UPDATE core_note SET note = printf('%5000d', id)\"); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(file)], check=False)
    assert (folder / "db.sqlite3-journal").stat().st_size
    assert file.read_bytes() != (older.old("2.6.0") / "db.sqlite3").read_bytes()
    return file


def test_a_database_that_is_written_to(host_db, tmp_path, monkeypatch):
    file = tmp_path / "db.sqlite3"
    shutil.copyfile(older.old("2.6.0") / "db.sqlite3", file)
    copy = shutil.copyfileobj

    def meanwhile(source, target):
        copy(source, target)
        with closing(sqlite3.connect(file)) as user:
            user.execute("UPDATE core_note SET note = 'meanwhile'")
            user.commit()

    monkeypatch.setattr(shutil, "copyfileobj", meanwhile)
    with pytest.raises(CommandError, match="written to"):
        call_command("restore", str(file), interactive=False)


def test_a_name_leads_to_no_other_file(host_db, tmp_path, monkeypatch):
    """The name of an upload is its sender's: what lies beside a file of that name here is not ours to read."""
    upload = database_of("2.6.0")
    monkeypatch.chdir(tmp_path)
    Path("db.sqlite3-wal").write_bytes(b"x")
    upload.name = "db.sqlite3"
    seen = []

    def look(folder, *more, **options):
        seen.extend(folder.iterdir())
        raise UpgradeFailed("That is enough.")

    monkeypatch.setattr(upgrade, "_run", look)
    with pytest.raises(UpgradeFailed):
        services.inspect_backup(upload, how(clear=False))
    assert [path.name for path in seen] == ["source"]


# --- In the browser, and by curl --------------------------------------------------------------------------


@pytest.fixture
def upgrades(monkeypatch):
    """How often something was upgraded."""
    calls = []
    started = upgrade.started
    monkeypatch.setattr(upgrade, "started", lambda *order: (calls.append(1), started(*order))[1])
    return calls


def upload(file, name):
    return SimpleUploadedFile(name, file.getvalue())


def test_preview_and_confirmation_in_a_browser(browser, upgrades):
    form = {"backup_file": upload(database_of("2.0"), "db.sqlite3"), "clear_existing_data": "true"}
    page = browser.post(reverse("backup:restore"), form, follow=True)
    assert page.status_code == 200
    text = page.content.decode()
    assert "2.0.0-2.0.2" in text
    for name in ("core.0036_medication", "babybuddy.0035_alter_settings_language"):
        assert name in text
    assert "core.0029_alter" not in text
    assert "clear_unknown_apps" not in text  # nothing is in the zoo
    form = {"upload": page.context["upload"], "clear_existing_data": "true"}
    page = browser.post(reverse("backup:restore"), form, follow=True)
    assert "2.0.0-2.0.2" in page.content.decode()
    form = {"upload": page.context["upload"], "clear_existing_data": "true", "confirmed": "yes"}
    assert browser.post(reverse("backup:confirm"), form).status_code == 200
    assert upgrades == [1]
    assert not differences(in_place("2.0"), snapshot())


def test_what_is_to_be_emptied_must_be_confirmed(browser):
    """Site settings of today, where the backup is from before there were any."""
    form = {"backup_file": upload(backup_of("1.12"), "backup.zip"), "clear_existing_data": "true"}
    page = browser.post(reverse("backup:restore"), form, follow=True)
    assert 'name="clear_unknown_apps"' in page.content.decode()
    assert "dbsettings" in page.content.decode()
    before = snapshot()
    form = {"upload": page.context["upload"], "clear_existing_data": "true"}
    page = browser.post(reverse("backup:confirm"), {**form, "confirmed": "yes"})
    assert page.status_code == 409
    assert "dbsettings" in page.content.decode()
    assert not differences(before, snapshot())
    # The second question carries the word on.
    page = browser.post(reverse("backup:confirm"), {**form, "clear_unknown_apps": "true"}, follow=True)
    assert 'name="clear_unknown_apps" value="true"' in page.content.decode()
    form |= {"clear_unknown_apps": "true", "confirmed": "yes"}
    assert browser.post(reverse("backup:confirm"), form).status_code == 200
    assert not differences(in_place("1.12"), snapshot())


def test_by_curl(family, upgrades):
    script = Client(headers={"Authorization": f"Token {token_key(family.admin.username)}"})
    form = {"backup_file": upload(database_of("2.0"), "x"), "clear_existing_data": "true"}
    said = script.post(reverse("backup:restore"), form).json()
    assert said["metadata"]["upgraded"]["babybuddy_version"] == "2.0.0-2.0.2"
    assert said["metadata"]["upgraded"]["migrations"][-1] == "core.0036_medication"
    assert said["changes"]["core.sleep"]["added"] + said["changes"]["core.sleep"]["changed"] == 12
    form["backup_file"].seek(0)
    answer = script.post(reverse("backup:confirm"), form)
    assert answer.status_code == 200
    assert answer.json()["restored"]["core.sleep"] == 12
    assert upgrades == [1, 1]


def test_a_bad_file_is_told_beside_the_field(browser, tmp_path):
    form = {"backup_file": upload(changed(tmp_path, "2.6.0", *BAD["no migrations"]), "db.sqlite3")}
    page = browser.post(reverse("backup:restore"), form, follow=True)
    assert page.status_code == 400
    assert "not one of Baby Buddy" in page.content.decode()
    assert "db.sqlite3" in browser.get(reverse("backup:index")).content.decode()


# --- The command ------------------------------------------------------------------------------------------


def test_the_command_says_what_ran(host_db, upgrades, monkeypatch):
    """At the end, and what runs now on a terminal."""
    before = snapshot()
    out, screen = io.StringIO(), io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", screen)
    call_command("restore", str(older.old("2.0") / "db.sqlite3"), dry_run=True, stdout=out)
    assert "from Baby Buddy 2.0.0-2.0.2 to 2.10.0 by" in out.getvalue()
    assert "core.0035_recalculate_durations, core.0036_medication" in out.getvalue()
    shown = screen.getvalue()
    assert 0 < shown.index("core.sleep") < shown.index("core.0035_rec") < shown.index("core.0036_med")
    assert not differences(before, snapshot())
    assert upgrades == [1]


def test_the_command_needs_the_word_too(without_zoo, tmp_path):
    file = tmp_path / "backup.zip"
    file.write_bytes(without_zoo.getvalue())
    with pytest.raises(CommandError, match="zoo"):
        call_command("restore", str(file), clear=True, interactive=False)
    with pytest.raises(CommandError, match="--clear"):
        call_command("restore", str(file), clear_unknown_apps=True, interactive=False)
    call_command("restore", str(file), clear=True, clear_unknown_apps=True, interactive=False)
    assert not any(rows for label, rows in snapshot().items() if label.startswith("zoo."))


# --- When it goes wrong -----------------------------------------------------------------------------------


@contextmanager
def largest_file(size):
    """A full disk: no file may grow beyond that."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def trouble(host_db, monkeypatch):
    """Makes the upgrade of a backup go wrong, in a migration that runs last; returns the error."""

    def make(kind, error=UpgradeFailed, file=None, progress=lambda *args: None):
        monkeypatch.setenv("BACKUP_TEST_TROUBLE", kind)
        before = snapshot()
        with pytest.raises(error) as caught:
            restore(file or backup_of("2.6.0"), clear=True, reporter=Telling(progress))
        assert not differences(before, snapshot())
        return caught.value

    return make


def test_a_failing_migration_is_named(trouble):
    message = trouble("fail").message
    assert "trouble.0001_initial" in message
    assert "ValueError: out of order" in message


def test_a_migration_that_fails_since_tables_were_made_at_once(host_db, monkeypatch, tmp_path):
    """It needs what an earlier migration made without showing it in the models. Then all of them are run."""
    restore(backup_of("2.6.0"), clear=True)
    before = snapshot()
    tried, steps = tmp_path / "tried", []
    monkeypatch.setenv("BACKUP_TEST_TROUBLE", f"fail once:{tried}")
    restore(
        backup_of("2.6.0"), clear=True, reporter=Telling(lambda label, _done, _total: steps.append(label))
    )
    assert tried.exists()
    last, first = "trouble.0001_initial", "core.0001_initial"
    assert [step for step in dict.fromkeys(reversed(steps)) if step in (first, last)] == [last, first]
    assert steps.index(last) < steps.index(first)
    assert not differences(before, snapshot())


def test_an_endless_migration_is_stopped(trouble, monkeypatch):
    late = []

    class Timer:  # strikes as soon as the migration runs
        def __init__(self, seconds, function):
            late.append((seconds, function))

        def start(self):
            pass

        cancel = start

    monkeypatch.setattr(upgrade.threading, "Timer", Timer)

    def progress(step, done, total):
        if step == "trouble.0001_initial":
            late[0][1]()

    message = trouble("go on for ever", progress=progress).message
    assert "trouble.0001_initial" in message
    assert "1800" in message
    assert late[0][0] == 1800


def test_the_time_that_it_may_take(trouble, settings):
    settings.BACKUP_UPGRADE_SECONDS = 1
    assert "BACKUP_UPGRADE_SECONDS" in trouble("go on for ever").message


def test_a_killed_child(trouble):
    message = trouble("die").message
    assert "trouble.0001_initial" in message
    assert "SIGKILL" in message


def test_a_child_that_has_no_time_to_start(host_db, monkeypatch):
    class Timer:
        def __init__(self, seconds, function):
            self.start = function  # strikes at once

        def cancel(self):
            pass

    monkeypatch.setattr(upgrade.threading, "Timer", Timer)
    with pytest.raises(UpgradeFailed, match="before its first step"):
        services.inspect_backup(backup_of("2.6.0"), how(clear=False))


def test_a_child_that_cannot_start(host_db, monkeypatch):
    monkeypatch.setenv("BACKUP_TEST_FOLDER", "/proc/nowhere")  # `tests.settings` makes it
    with pytest.raises(UpgradeFailed, match=r"ended before its first step \(.*nowhere"):
        services.inspect_backup(backup_of("2.6.0"), how(clear=False))


@pytest.mark.parametrize(("kind", "size"), [(backup_of, 200_000), (database_of, 20_000)])
def test_a_full_disk(host_db, kind, size):
    """While the child works, and before."""
    file = kind("2.6.0")
    before = snapshot()
    with pytest.raises(StorageFailed), largest_file(size):
        services.inspect_backup(file, how(clear=False))
    assert not differences(before, snapshot())


def test_a_killed_parent_leaves_nothing(host_db, tmp_path, scratch, monkeypatch):
    command = [sys.executable, "manage.py", "restore", str(older.old("1.12") / "backup.zip"), "--no-input"]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    before = snapshot()
    connections.close_all()
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as parent:
        wait_until(lambda: [*scratch.glob("*/scratch.sqlite3")])
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not [*scratch.iterdir()])
    assert not differences(before, snapshot())


#: A child that makes files in its folder until it cannot any more.
BUSY = """
from backup.upgrade import child

def work(order, folder, reporter):
    number = 0
    while True:
        number += 1
        (folder / f"{number % 500}").write_bytes(b"x")

child.serve(work)
"""


def test_a_child_that_is_still_busy_leaves_nothing_when_its_parent_ends(scratch):
    folder = scratch / "folder"
    folder.mkdir()
    order = {"folder": str(folder), "language": "en", "settings": {}}
    command = [sys.executable, "-c", BUSY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as busy:
        busy.stdin.write(json.dumps(order).encode() + b"\n")
        busy.stdin.flush()
        wait_until(lambda: len([*folder.glob("[0-9]*")]) == 500)
        busy.stdin.close()
        busy.wait(timeout=60)
    assert not [*scratch.iterdir()]


def test_a_child_whose_folder_is_gone_ends(scratch):
    """Somebody, or a cleaner of temporary folders, removed it. The parent waits for the child."""
    folder = scratch / "folder"
    order = {"folder": str(folder), "language": "en", "settings": {}}
    command = [sys.executable, "-c", BUSY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as lost:
        lost.stdin.write(json.dumps(order).encode() + b"\n")
        lost.stdin.flush()
        wait_until(lambda: lost.poll() is not None)
        assert b"FileNotFoundError" in lost.stderr.read()


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_a_power_cut_left_is_removed(host_db, scratch):
    stale, fresh = scratch / f"{upgrade.PREFIX}stale", scratch / f"{upgrade.PREFIX}fresh"
    for folder in (stale, fresh):
        folder.mkdir()
        (folder / "scratch.sqlite3").touch()
    left = time.time() - 900  # the README says: within minutes
    os.utime(stale, (left, left))
    with upgrade.scratch_folder():  # as any upgrade, whatever comes of it
        pass
    assert [*scratch.iterdir()] == [fresh]
    shutil.rmtree(fresh)


@pytest.mark.skipif(sys.platform == "win32", reason="folders are locked on POSIX only")
def test_a_folder_that_is_in_use_is_removed_by_nobody(host_db, scratch):
    """Where the clock is set meanwhile, on a computer that has none of its own say, it looks old."""
    with upgrade.scratch_folder() as folder:
        os.utime(folder, (1, 1))
        with upgrade.scratch_folder():
            pass
        assert folder.exists()


def test_the_child_has_no_way_to_the_live_site(host_db, tmp_path, monkeypatch):
    cache.set("core.child.count", 1)
    backup = backup_of("2.6.0")
    monkeypatch.chdir(tmp_path)  # `manage.py` may be called from anywhere
    seen = tmp_path / "seen.json"
    monkeypatch.setenv("BACKUP_TEST_TROUBLE", f"look around:{seen}")
    live = str(connections["default"].settings_dict["NAME"])
    host = Path(sys.modules["babybuddy"].__file__).parents[1]
    with services.at_todays_schema(backup):
        pass
    said = json.loads(seen.read_text())
    assert said["aliases"] == ["default"]
    for place in ("database", "settings", "environment"):
        assert said[place].endswith("scratch.sqlite3")
        assert live not in said[place]
    assert Path(said["folder"]) == host
    assert said["input"] == ""
    assert said["permissions"] == 1  # as in place: those of that time are there before migrations run
    assert cache.get("core.child.count") == 1
    assert not [*Path(os.environ["BACKUP_TEST_FOLDER"]).rglob("left behind*")]


# --- Records that do harm ---------------------------------------------------------------------------------


def test_a_record_that_is_not_of_its_time_is_named(host_db):
    def change(records):
        records["babybuddy.settings"][1]["fields"]["timezone"] = 7

    with pytest.raises(InvalidBackup) as caught:
        services.inspect_backup(rewritten(backup_of("2.6.0"), change), how(clear=False))
    assert (caught.value.model, caught.value.pk, caught.value.field) == ("babybuddy.settings", 2, "timezone")


def test_a_reference_to_nothing_is_named_before_migrations_meet_it(host_db):
    def change(records):
        records["core.feeding"][0]["fields"]["child"] = 4711

    with pytest.raises(RecordsRefused, match="4711"):
        services.inspect_backup(rewritten(backup_of("2.6.0"), change), how(clear=False))


def test_a_number_in_place_of_a_natural_key_is_left_out_by_choice(host_db):
    """It points at nothing, whatever has that number in the database of the upgrade."""
    gone = []

    def change(records):
        gone.append(records["core.tagged"][0]["pk"])
        records["core.tagged"][0]["fields"]["content_type"] = 1

    file = rewritten(backup_of("2.6.0"), change)
    with pytest.raises(RecordsRefused, match=r"contenttypes\.contenttype 1, which is not there"):
        services.inspect_backup(file, how(clear=False))
    services.restore_backup(file, replace(how(clear=True), leave_out=True))
    expected = in_place("2.6.0")
    del expected["core.tagged"][gone[0]]
    assert not differences(expected, snapshot())


def test_a_model_that_its_migrations_do_not_know(host_db):
    def change(records):
        records["core.medication"] = []

    with pytest.raises(InvalidBackup, match=r"core\.medication"):
        services.inspect_backup(rewritten(backup_of("2.6.0"), change), how(clear=False))


# --- Golden files -----------------------------------------------------------------------------------------


@pytest.fixture
def stand_in():
    if Path.cwd() != older.STAND_IN:
        pytest.skip("the golden files are the stand-in's")


def test_all_golden_files_are_there(stand_in):
    assert sorted(path.name for path in older.GOLDEN.iterdir()) == sorted(
        [*older.GOLDEN_VERSIONS, "format-1.0.zip"]
    )


def test_the_format_has_a_golden_file(stand_in, host_db):
    """A backup that is made now is, byte for byte, the newest golden file. Where the format, or the stand-in's schema,
    changes, this fails until a new golden file is added; the old ones stay, and must restore."""
    golden = backup_of(older.GOLDEN_VERSIONS[-1])
    restore(golden, clear=True, clear_unknown_apps=True)
    now = take(label="before the update")
    old, new = unpacked(golden), unpacked(now)
    said, says = json.loads(old.pop("metadata.json")), json.loads(new.pop("metadata.json"))
    assert {name: new[name] for name in old} == old
    assert type(says.pop("instance")) is str  # which readers of this version need not know
    assert list(says) == list(said)
    assert {name: type(value) for name, value in says.items()} == {
        name: type(value) for name, value in said.items()
    }
    assert says["version"] == said["version"]
    assert says["migrations"] == {**said["migrations"], "zoo": ["0006_empty"]}
    assert says["models"].items() >= said["models"].items()


def test_version_1_0_restores(stand_in, host_db):
    with (older.GOLDEN / "format-1.0.zip").open("rb") as file:
        services.restore_backup(file, how(clear=True, clear_unknown_apps=True))
    assert not differences(in_place("2.9"), snapshot())


def test_golden_files_are_made_as_they_say(stand_in, tmp_path):
    """Both files of a version, made anew, hold the same records."""
    folder = tmp_path / "2.6.0"
    folder.mkdir()
    older.make("2.6.0", folder)
    with (folder / "backup.zip").open("rb") as file:
        assert records_of(file) == records_of(backup_of("2.6.0"))
        assert checksums_of(file) == checksums_of(backup_of("2.6.0"))


def test_the_interpreter_inside_of_uwsgi(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/usr/bin/uwsgi")
    command = [upgrade.python(), "-c", "import sys; print(sys.prefix)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == sys.prefix


def test_a_backup_that_lacks_fields_of_its_version(host_db):
    """Made between an update and `migrate`: such a backup once lacked what a migration was about to remove."""

    def take_out(records):
        for record in records["core.timer"]:
            del record["fields"]["active"], record["fields"]["end"]  # with a default; may be empty
        for record in records["core.feeding"]:
            del record["fields"]["notes"]
        del records["core.weight"][0]["fields"]["weight"]  # neither

    whole = backup_of("1.16")
    records = records_of(whole)
    lacking = rewritten(whole, take_out)
    error = refused(lacking, InvalidRecord, clear=True)
    assert error.offer == "leave_out"
    lacking.seek(0)
    result = services.restore_backup(lacking, replace(how(clear=True), leave_out=True))
    assert core.Timer.objects.count() == len(records["core.timer"])
    assert core.Feeding.objects.count() == len(records["core.feeding"])
    assert core.Weight.objects.count() == len(records["core.weight"]) - 1
    said = "\n".join(result.warnings)
    for name in ("core.timer, field end", "core.feeding, field notes", "core.weight 1, field weight"):
        assert name in said


@pytest.mark.parametrize("excluded", ["babybuddy", "babybuddy.settings"])
def test_an_app_that_is_left_out_here_by_now(host_db, scratch, settings, excluded):
    file = io.BytesIO((older.old("2.0") / "backup.zip").read_bytes())
    settings.BACKUP_EXCLUDE = [excluded]
    plan = inspect(file, clear=False)
    assert plan.refusal is None
    assert "babybuddy.settings" not in plan.changes
    assert [line for line in plan.warnings if "babybuddy.settings" in line]
    restore(file, clear=False)
    assert core.Feeding.objects.exists()


@pytest.mark.parametrize("excluded", [["babybuddy"], ["auth"], ["auth.group", "core.tag", "core.timer"]])
def test_what_an_older_copy_never_held_stays(host_db, scratch, excluded):
    """`BACKUP_EXCLUDE` named it when the copy was made, and Baby Buddy was updated since: its upgrade brings empty
    tables of such models, which an undo would take for the state before. Others refer to their rows here."""
    whole = backup_of("2.0")
    restore(whole, clear=True)

    def leave_out(records):
        for label in [*records]:
            if not {label, label.partition(".")[0]}.isdisjoint(excluded):
                assert records.pop(label)

    def name(metadata):
        metadata["excluded"] = [app for app in excluded if metadata["migrations"].pop(app, None)]

    lacking = rewritten(whole, leave_out, name)
    with open_archive(lacking) as archive:
        copy = kept.keep(lacking, archive.metadata, BackupKind.SAFETY)
    before = snapshot()
    core.Note.objects.all().delete()
    services.undo_restore(safety_copy=copy.name)
    assert not differences(before, snapshot())
    # Clearing says what it deletes, as it does where nothing is upgraded.
    warnings = "\n".join(inspect(lacking, clear=True).warnings)
    assert all(label in warnings for label in excluded)

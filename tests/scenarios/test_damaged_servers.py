"""What PostgreSQL, MySQL and MariaDB may hold that nobody can read: values that are none, bytes, and tables whose file
is gone. Named, with a way on."""

import datetime as dt
import io
import signal
from contextlib import contextmanager
from dataclasses import replace

import pytest
from core import models as core
from django.apps import apps
from django.db import connection
from django.test import override_settings

from backup import services
from backup.archive import Key
from backup.database import database_of
from backup.exceptions import BackupError, Damaged, RestoreRefused, StorageFailed, UnknownApps, Unreadable
from backup.options import Part, Places, RestoreMode, RestoreOptions
from backup.site import tables_here
from backup.storage import kept
from backup.tables import Table
from tests.support.backups import encrypted, inspect, metadata_of, records_of, restore, rewritten, take
from tests.support.matrices import again
from tests.support.processes import process
from tests.support.snapshots import differences, schema, snapshot
from tests.zoo import models as zoo

pytestmark = pytest.mark.skipif(connection.vendor == "sqlite", reason="of servers")

postgresql_only = pytest.mark.skipif(connection.vendor != "postgresql", reason="of PostgreSQL")
mysql_only = pytest.mark.skipif(connection.vendor != "mysql", reason="of MySQL")

ALL_THE_SAME = RestoreOptions(RestoreMode.CLEAR, without_safety_copy=True)

#: Column of core.note, or of core.child -> a value that Python has no date for.
ODD = {
    "postgresql": {
        "note": ["infinity", "0044-03-15 12:00:00 BC", "12000-03-15 12:00:00.5"],
        "child": "-infinity",
    },
    "mysql": {"note": ["0000-00-00", "2026-00-15 12:00:00", "2026-02-31"], "child": "0000-00-00"},
}


def spoil():
    """Give three notes and a child dates that are none. Returns the keys of the notes, and that of the child."""
    notes = [
        core.Note.objects.create(child=core.Child.objects.first(), note=f"odd {number}").pk
        for number in range(3)
    ]
    child = core.Child.objects.create(
        first_name="Odd", last_name="One", birth_date=dt.date(2026, 1, 1), slug="odd-one"
    ).pk
    odd = ODD[connection.vendor]
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute("SELECT @@sql_mode")
            (mode,) = cursor.fetchone()
            cursor.execute("SET sql_mode = 'ALLOW_INVALID_DATES'")
        for key, value in zip(notes, odd["note"], strict=True):
            cursor.execute("UPDATE core_note SET time = %s WHERE id = %s", [value, key])
        cursor.execute("UPDATE core_child SET birth_date = %s WHERE id = %s", [odd["child"], child])
        if connection.vendor == "mysql":
            cursor.execute("SET sql_mode = %s", [mode])
    return notes, child


@pytest.mark.parametrize("mode", RestoreMode)
def test_dates_that_are_none(family, mode):
    before, good = snapshot(), take()
    as_read = records_of(good)
    notes, child = spoil()
    with pytest.raises(Unreadable) as caught:
        take()
    names = [f"core.child {child}: ", *(f"core.note {key}: " for key in notes)]
    assert [name for name in names if name not in str(caught.value)] == []
    assert len(caught.value.details) == 4
    file = take(leave_out=True)
    assert records_of(file) == as_read
    assert metadata_of(file)["left_out"]["total"] == 4

    good.seek(0)
    with pytest.raises(Damaged) as caught:
        services.restore_backup(good, RestoreOptions(mode))
    assert caught.value.offer == "without_safety_copy"
    assert [name for name in names if name not in str(caught.value)] == []
    good.seek(0)
    result = services.restore_backup(good, RestoreOptions(mode, without_safety_copy=True))
    assert [name for name in names if name not in " ".join(result.warnings)] == []
    if mode.clears:
        assert not differences(before, snapshot())
    else:  # what is not in the backup stays, odd as it is
        assert records_of(take(leave_out=True)) == as_read
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM core_note WHERE note LIKE 'odd %%'")
            cursor.execute("DELETE FROM core_child WHERE id = %s", [child])
    services.undo_restore()
    assert records_of(take(leave_out=True)) == as_read


def test_times_that_are_none(family):
    """Which a driver returns as an error for all rows, or as midnight."""
    odd = {"postgresql": ["24:00:00"], "mysql": ["25:00:00", "-01:00:00.5", "838:59:59"]}[connection.vendor]
    good = [
        zoo.Sample.objects.create(time=time).pk for time in ("12:00", "23:59:59.5", "00:00:00.000001", None)
    ]
    day = zoo.Day.objects.create(date="2026-01-01")
    for time in ("12:00:00", "13:00:00.25"):
        zoo.Bell.objects.create(time=time).days.add(day)
    as_read = records_of(take())
    assert [record["fields"]["time"] for record in as_read["zoo.sample"]] == [
        *("12:00:00", "23:59:59.500000", "00:00:00.000001", None)
    ]
    samples = [zoo.Sample.objects.create().pk for _time in odd]
    with connection.cursor() as cursor:
        for key, time in zip(samples, odd, strict=True):
            cursor.execute("UPDATE zoo_sample SET time = %s WHERE id = %s", [time, key])
            cursor.execute("INSERT INTO zoo_bell (time) VALUES (%s)", [time])
    with pytest.raises(Unreadable) as caught:
        take()
    names = [f"zoo.sample {key}, field time: " for key in samples] + odd
    assert [name for name in names if name not in str(caught.value)] == []
    file = take(leave_out=True)
    assert metadata_of(file)["left_out"]["total"] == 2 * len(odd)
    rows = records_of(file)
    assert [record["fields"]["time"] for record in rows["zoo.sample"][len(good) :]] == [None] * len(odd)
    assert rows["zoo.sample"][: len(good)] == as_read["zoo.sample"]
    assert rows["zoo.bell"] == as_read["zoo.bell"]


@postgresql_only
def test_a_duration_that_is_too_long_is_left_out_alone(family):
    before = records_of(take())
    (key, *_others) = [record["pk"] for record in before["core.sleep"]]
    with connection.cursor() as cursor:
        cursor.execute("UPDATE core_sleep SET duration = '400000 years' WHERE id = %s", [key])
    file = take(leave_out=True)
    before["core.sleep"] = [record for record in before["core.sleep"] if record["pk"] != key]
    assert records_of(file) == before
    (place,) = metadata_of(file)["left_out"]["places"]
    assert (place["model"], place["pk"]) == ("core.sleep", key)


@postgresql_only
def test_bytes_that_are_no_text(host_db):
    """A server that was set up without a locale takes texts for bytes."""
    name = f"{connection.settings_dict['NAME']}_ascii"[:63]
    with connection.cursor() as cursor:
        cursor.execute(f'DROP DATABASE IF EXISTS "{name}"')
        cursor.execute(f"CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    other = connection.copy()
    other.settings_dict = {**other.settings_dict, "NAME": name}
    try:
        with other.schema_editor() as editor:
            editor.create_model(core.Tag)
        with other.cursor() as cursor:
            insert = "INSERT INTO core_tag (id, name, slug, color, last_used) VALUES (%s, {}, %s, '#ff0000', now())"
            cursor.execute(insert.format("%s"), [1, "Grüße 🍼", "a"])
            cursor.execute(
                insert.format("convert_from(%s, 'SQL_ASCII')"), [2, "Fièvre".encode("latin-1"), "b"]
            )
        reader = type(database_of())(other)
        reader.unreadable = Places()
        table = Table(core.Tag)
        (batch,) = reader.batches(table)
        place = [column.name for column in table.columns].index("name")
        assert batch[place] == ["Grüße 🍼", "Fi\N{REPLACEMENT CHARACTER}vre"]
        (noted,) = reader.unreadable.named
        assert (noted.pk, noted.field) == (2, "name")
        assert r"b'Fi\xe8vre'" in noted.reason
    finally:
        other.close()
        with connection.cursor() as cursor:
            cursor.execute(f'DROP DATABASE "{name}"')


@mysql_only
def test_a_column_of_bytes_is_read_as_text(family):
    before = records_of(take())
    key = core.Note.objects.order_by("pk").first().pk
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE core_note MODIFY note longblob NOT NULL")
        assert records_of(take()) == before
        cursor.execute("UPDATE core_note SET note = %s WHERE id = %s", ["Fièvre".encode("latin-1"), key])
        file = take(leave_out=True)
        cursor.execute("UPDATE core_note SET note = '' WHERE id = %s", [key])
        cursor.execute("ALTER TABLE core_note MODIFY note longtext NOT NULL")
    next(record for record in before["core.note"] if record["pk"] == key)["fields"]["note"] = (
        "Fi\N{REPLACEMENT CHARACTER}vre"
    )
    assert records_of(file) == before


#: Engine -> (model, column, the type that somebody gave it, the type that it has, a value that does not fit it).
OTHER_TYPES = {
    "postgresql": [
        ("core.Feeding", "amount", "numeric(12,4)", "double precision", None),
        ("zoo.Specimen", "integer", "numeric(12,0)", "integer", None),
        ("core.Sleep", "nap", "integer USING nap::integer", "boolean USING nap::integer::boolean", None),
        ("core.Feeding", "amount", "numeric(40,20)", "double precision", "0.12345678901234567891"),
    ],
    "mysql": [
        ("core.Feeding", "amount", "decimal(12,4) NULL", "double NULL", None),
        ("core.DiaperChange", "amount", "decimal(40,20) NULL", "double NULL", "0.12345678901234567891"),
        ("zoo.Specimen", "integer", "decimal(12,0) NOT NULL", "integer NOT NULL", None),
    ],
}


@pytest.mark.parametrize(
    ("model", "column", "other", "own", "value"), OTHER_TYPES.get(connection.vendor, []), ids=repr
)
def test_a_column_whose_type_was_changed(family, model, column, other, own, value):
    """As by somebody who wanted to see fewer decimal places."""
    table = apps.get_model(model)._meta.db_table
    zoo.Specimen.objects.create(integer=-7, float=1.5)
    before, as_read = snapshot(), records_of(take())
    alter = {"postgresql": "ALTER COLUMN {} TYPE {}", "mysql": "MODIFY {} {}"}[connection.vendor]
    quoted = connection.ops.quote_name(column)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} {alter.format(quoted, other)}")
        key = as_read[model.lower()][0]["pk"]
        if value is not None:
            cursor.execute(f"UPDATE {table} SET {quoted} = {value} WHERE id = %s", [key])
    try:
        if value is not None:
            with pytest.raises(Unreadable, match=rf"{model.lower()} {key}, field {column}: .*{value}"):
                take()
            return
        file = take()
        assert records_of(file) == as_read
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table} {alter.format(quoted, own)}")
    apps.get_model(model).objects.all().delete()
    restore(file, clear=True)
    assert not differences(before, snapshot())


@mysql_only
def test_a_column_of_single_precision_is_read_with_all_digits(family):
    """Of which the server writes six digits; and those that somebody entered are not read otherwise."""
    keys = core.Temperature.objects.order_by("pk").values_list("pk", flat=True)[:2]
    double = "SELECT temperature * 1E0 FROM core_temperature ORDER BY id LIMIT 2"
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE core_temperature MODIFY temperature float NOT NULL")
        for key, value in zip(keys, (123456.789, 37.6), strict=True):
            cursor.execute("UPDATE core_temperature SET temperature = %s WHERE id = %s", [value, key])
        cursor.execute(double)
        before = cursor.fetchall()
        file = take()
        first, second, *_others = records_of(file)["core.temperature"]
        cursor.execute("UPDATE core_temperature SET temperature = 123457")
        restore(file, clear=False)
        cursor.execute(double)
        after = cursor.fetchall()
        cursor.execute("ALTER TABLE core_temperature MODIFY temperature double NOT NULL")
    assert before == after
    assert first["fields"]["temperature"] == 123456.79
    assert second["fields"]["temperature"] == 37.6


def lose(table):
    """Have the server find no file for a table."""
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute("SET foreign_key_checks = 0")
            cursor.execute(f"ALTER TABLE {table} DISCARD TABLESPACE")
            cursor.execute("SET foreign_key_checks = 1")
        else:
            cursor.execute("SET allow_system_table_mods = on")
            cursor.execute("UPDATE pg_class SET relfilenode = 2147483647 WHERE oid = %s::regclass", [table])
            cursor.execute("RESET allow_system_table_mods")
    connection.close()


@contextmanager
def same_schema():
    """The indexes and foreign keys of the database are afterwards those from before."""
    before = schema()
    yield
    assert sorted(before ^ schema()) == []


@pytest.mark.parametrize("table", ["core_note", "core_child", "auth_user_groups"])
def test_a_table_whose_file_is_gone(family, table):
    before, good = snapshot(), take()
    records = records_of(good)
    with same_schema():
        lose(table)
        with pytest.raises(Unreadable, match=table.replace("_", r"\.", 1).partition("_")[0]):
            take()
        left = records_of(take(leave_out=True))
        if table == "auth_user_groups":
            assert {str(user["fields"]["groups"]) for user in left["auth.user"]} == {"[]"}
        else:
            assert not left.pop(table.replace("_", ".", 1))
        assert [label for label in left if label != "auth.user" and left[label] != records[label]] == []
        for clear in (True, False):
            good.seek(0)
            with pytest.raises(Damaged) as preview:
                inspect(good, clear=clear)
            good.seek(0)
            with pytest.raises(Damaged) as restore:
                services.restore_backup(
                    good, RestoreOptions(RestoreMode.CLEAR if clear else RestoreMode.OVERWRITE)
                )
            for error in (preview.value, restore.value):
                assert (error.offer, error.must_clear) == ("without_safety_copy", True)
        good.seek(0)
        with pytest.raises(Damaged, match=table):  # nothing can be added to it
            services.restore_backup(good, RestoreOptions(without_safety_copy=True))
        good.seek(0)
        result = services.restore_backup(good, ALL_THE_SAME)
        assert f"These tables were damaged, and were made anew: {table}." in result.warnings
        assert result.safety_copy
        assert not differences(before, snapshot())
    services.restore_backup(take(), RestoreOptions(RestoreMode.CLEAR))
    assert not differences(before, snapshot())


def refusals():
    """Name -> a function that is given a good backup, and returns a file and options for which a restore is refused."""

    def nobody(records):
        for user in records["auth.user"]:
            user["fields"]["is_superuser"] = False

    def dangling(records):
        records["core.note"][0]["fields"]["child"] = 4711

    def impossible(records):
        records["core.note"][0]["fields"]["time"] = "yesterday"

    def unwanted(records):
        records["core.tag"][0]["fields"]["name"] = "unwanted"

    return {
        "no backup": lambda good: (io.BytesIO(b"no backup"), ALL_THE_SAME),
        "its key is not here": lambda good: (encrypted(good, Key.make()), ALL_THE_SAME),
        "no superuser left": lambda good: (rewritten(good, nobody), ALL_THE_SAME),
        "a value that is none": lambda good: (rewritten(good, impossible), ALL_THE_SAME),
        "a reference to nothing": lambda good: (rewritten(good, dangling), ALL_THE_SAME),
        "a value that only the database refuses": lambda good: (rewritten(good, unwanted), ALL_THE_SAME),
    }


@pytest.fixture
def refuses_a_name():
    """A database that refuses a tag's name, by a rule that somebody added."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE core_tag ADD CONSTRAINT wanted CHECK (name <> 'unwanted')")
    yield
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE core_tag DROP CONSTRAINT wanted")


@pytest.mark.parametrize(
    ("table", "why"),
    [
        *(("core_child", why) for why in refusals()),
        again("core_note", "a value that is none"),
        again("auth_user", "no superuser left"),
        *(again("auth_user_groups", why) for why in ("no backup", "a value that only the database refuses")),
    ],
)
def test_a_restore_that_is_refused_leaves_a_damaged_table_as_it_is(family, refuses_a_name, table, why):
    before, good = snapshot(), take()
    lose(table)
    file, options = refusals()[why](good)
    with pytest.raises(BackupError) as caught:
        services.restore_backup(file, options)
    if why == "a value that only the database refuses" and connection.vendor == "mysql":
        assert f"These damaged tables are empty now: {table}." in caught.value.details[0]
        assert kept.names()[0].text in caught.value.details[0]
    else:
        assert [*database_of().damaged_tables(tables_here())] == [table]
    good.seek(0)
    services.restore_backup(good, ALL_THE_SAME)
    assert not differences(before, snapshot())


@pytest.mark.parametrize("why", ["no room", "no key"])
def test_nothing_is_restored_if_what_can_be_read_cannot_be_kept(family, monkeypatch, why):
    before, good = snapshot(), take()
    lose("core_note")

    def full(*arguments, **options):
        raise StorageFailed("No space left on device")

    with monkeypatch.context() as patched, override_settings(BACKUP_ENCRYPT=["local"] * (why == "no key")):
        if why == "no room":
            patched.setattr(kept, "keep", full)
        with pytest.raises(Damaged, match="could not be kept") as caught:
            services.restore_backup(good, ALL_THE_SAME)
    assert caught.value.offer == ""
    assert "manage.py migrate" in caught.value.message
    assert [*database_of().damaged_tables(tables_here())] == ["core_note"]
    good.seek(0)
    services.restore_backup(good, ALL_THE_SAME)
    assert not differences(before, snapshot())


@pytest.mark.parametrize("part", Part)
def test_a_damaged_table_that_is_not_restored_is_not_emptied(family, part):
    before, good = snapshot(), take()
    table = {Part.ENTRIES: "auth_user", Part.ACCOUNTS: "core_note"}.get(part, "core_child")
    lose(table)
    with pytest.raises(Damaged, match=table) as caught:
        services.restore_backup(good, replace(ALL_THE_SAME, parts=(part,)))
    assert caught.value.offer == ""
    assert [*database_of().damaged_tables(tables_here())] == [table]
    good.seek(0)
    services.restore_backup(good, ALL_THE_SAME)
    assert not differences(before, snapshot())


def test_a_damaged_table_of_an_app_that_the_backup_does_not_know_is_not_lost_silently(family):
    zoo.Sample.objects.create()
    good = take()

    def without_zoo(records):
        for label in [label for label in records if label.startswith("zoo.")]:
            del records[label]

    file = rewritten(good, without_zoo, lambda metadata: metadata["migrations"].pop("zoo"))
    lose("zoo_sample")
    with pytest.raises(UnknownApps):
        services.restore_backup(file, ALL_THE_SAME)
    assert [*database_of().damaged_tables(tables_here())] == ["zoo_sample"]
    file.seek(0)
    services.restore_backup(file, replace(ALL_THE_SAME, clear_unknown_apps=True))


#: Restores over a damaged table, and is killed when all rows are written.
KILLED = """
    import os, signal, sys
    from backup import restoring, services
    from tests.scenarios.test_damaged_servers import ALL_THE_SAME

    restoring.next_keys = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
    with open(sys.argv[1], "rb") as file:
        services.restore_backup(file, ALL_THE_SAME)
"""


@postgresql_only
def test_a_restore_that_is_killed_leaves_a_damaged_table_as_it_is(family, tmp_path):
    before, good = snapshot(), tmp_path / "good.zip"
    good.write_bytes(take().getvalue())
    lose("core_child")
    with process(KILLED, good) as child:
        assert child.wait(60) == -signal.SIGKILL, child.stderr.read()
    assert [*database_of().damaged_tables(tables_here())] == ["core_child"]
    with good.open("rb") as file:
        services.restore_backup(file, ALL_THE_SAME)
    assert not differences(before, snapshot())


@mysql_only
def test_a_preview_names_a_table_that_cannot_be_restored(family):
    """Since changes of its engine's tables cannot be rolled back."""
    file = take()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE zoo_sample ENGINE = MyISAM")
    try:
        plan = inspect(file, clear=True)
        with pytest.raises(RestoreRefused) as caught:
            restore(file, clear=True)
        assert plan.as_json()["refused"] == caught.value.message
        assert plan.refusal.details == ["ALTER TABLE `zoo_sample` ENGINE = InnoDB;"]
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE zoo_sample ENGINE = InnoDB")


@contextmanager
def not_in_index(index):
    """Rows that are added in the block are not added to an index, as after a crash."""
    with connection.cursor() as cursor:
        ready = "UPDATE pg_index SET indisready = %s WHERE indexrelid = %s::regclass"
        cursor.execute(ready, [False, index])
        yield
        cursor.execute(ready, [True, index])
    connection.close()


@postgresql_only
def test_an_index_that_lacks_rows(family):
    """By which PostgreSQL reads rows in the order of their keys, and says nothing."""
    good = take()
    with not_in_index("core_note_pkey"):
        core.Note.objects.create(child=core.Child.objects.first(), note="not in the index")
    with pytest.raises(Unreadable, match=r"core\.note: an index lacks rows.*REINDEX TABLE core_note"):
        take()
    assert metadata_of(take(leave_out=True))["left_out"]["total"] == 1
    before = core.Note.objects.filter(note__startswith="not in").count()
    good.seek(0)
    with pytest.raises(Damaged):
        services.restore_backup(good, RestoreOptions(RestoreMode.CLEAR))
    assert core.Note.objects.filter(note__startswith="not in").count() == before == 1
    with connection.cursor() as cursor:
        cursor.execute("REINDEX TABLE core_note")
    assert "not in the index" in str(records_of(take()))


def left_out_alone(records):
    """Return a backup that leaves out these records, each of which is named by the error that comes without that."""
    with pytest.raises(Unreadable) as caught:
        take()
    assert [line.split(",")[0].split(":")[0] for line in caught.value.details] == records
    file = take(leave_out=True)
    assert metadata_of(file)["left_out"]["total"] == len(records)
    return file


@contextmanager
def without_primary_key(table):
    key = {"postgresql": "DROP CONSTRAINT {}_pkey", "mysql": "MODIFY id bigint NOT NULL, DROP PRIMARY KEY"}
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} {key[connection.vendor].format(table)}")
        yield
        cursor.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (id)")
        if connection.vendor == "mysql":
            cursor.execute(f"ALTER TABLE {table} MODIFY id bigint NOT NULL AUTO_INCREMENT")


@pytest.mark.parametrize(
    ("batch", "which"),
    [(1000, (0, 2, 3, 4)), (3, (0, 2, 3, 4)), (3, (2,)), (3, (2, 5)), (3, (2, 2, 2, 2, 5))],
)
def test_a_key_that_is_there_twice(family, monkeypatch, batch, which):
    """As in a table that lost its primary key. Also where a batch ends between the two, and below zero; and one that
    more rows have than a batch."""
    child = core.Child.objects.first()
    core.Note.objects.all().delete()
    keys = [-7, *(core.Note.objects.create(child=child, note=f"note {number}").pk for number in range(7))]
    core.Note.objects.create(pk=keys[0], child=child, note="below zero")
    good, before = take(), snapshot()
    as_read = records_of(good)
    monkeypatch.setattr(type(database_of()), "BATCH", batch)
    twice = [keys[number] for number in which]
    columns = "child_id, note, time, image"
    copy = f"INSERT INTO core_note (id, {columns}) SELECT DISTINCT id, {columns} FROM core_note WHERE id = %s"
    with without_primary_key("core_note"):
        with connection.cursor() as cursor:
            cursor.executemany(copy, [[key] for key in twice])
        file = left_out_alone([f"core.note {key}" for key in twice])
        assert records_of(file) == as_read
        good.seek(0)
        with pytest.raises(Damaged, match=rf"core\.note {twice[0]}") as damaged:
            services.restore_backup(good, RestoreOptions(RestoreMode.CLEAR))
        assert damaged.value.offer == "without_safety_copy"
        good.seek(0)
        services.restore_backup(good, ALL_THE_SAME)
        assert not differences(before, snapshot())


@pytest.mark.parametrize(("batch", "which"), [(1000, (0, 2)), (3, (2,)), (3, (1, 2, 5, 6))])
def test_a_text_that_is_a_key_twice(family, monkeypatch, batch, which):
    """As where an index of texts is of another version of the collation."""
    for number in range(7):
        zoo.Species.objects.create(code=f"code {number}", latin=f"latin {number}")
    good, before = take(), snapshot()
    as_read = records_of(good)
    monkeypatch.setattr(type(database_of()), "BATCH", batch)
    table = "zoo_species"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey CASCADE")
        else:
            cursor.execute("SET foreign_key_checks = 0")
            cursor.execute(f"ALTER TABLE {table} DROP PRIMARY KEY")
        for number in which:
            cursor.execute(
                f"INSERT INTO {table} (code, latin) VALUES (%s, %s)",
                [f"code {number}", f"twice {number}"],
            )
    found = records_of(left_out_alone([f"zoo.species code {number}" for number in which]))
    for record in found["zoo.species"]:
        record["fields"]["latin"] = record["fields"]["latin"].replace("twice", "latin")
    assert found == as_read
    good.seek(0)
    services.restore_backup(good, ALL_THE_SAME)
    assert not differences(before, snapshot())
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (code)")

"""What a database refuses, and what several processes do at once, on the database of this run."""

import datetime as dt
from collections import Counter

import pytest
from core import models as core
from django.apps import apps
from django.contrib.auth.models import Group, User
from django.core.checks import run_checks
from django.db import OperationalError, connection

from backup import services
from backup.database import database_of
from backup.exceptions import (
    BackupError,
    Busy,
    InvalidRecord,
    RecordsConflict,
    RecordsRefused,
    RestoreRefused,
)
from backup.site import tables_here
from tests.support.backups import Telling, inspect, metadata_of, records_of, refused, restore, rewritten, take
from tests.support.changing import add_everywhere
from tests.support.processes import ask, hear, process, wait_until_usable
from tests.support.snapshots import differences, snapshot
from tests.unit.database import test_conformance as conformance
from tests.zoo import models as zoo

ENGINE = connection.vendor
sqlite_only = pytest.mark.skipif(ENGINE != "sqlite", reason="of SQLite")


both_modes = pytest.mark.parametrize("clear", [True, False], ids=["clear", "overwrite"])

# --- What a database refuses ------------------------------------------------------------------------------

ALL = {"sqlite", "postgresql", "mysql"}
SERVERS = {"postgresql", "mysql"}  # SQLite keeps nearly all that it is given, but makes null of NaN

#: name -> (engines that refuse it, model, field, value)
REFUSED = {
    "a long name": (SERVERS, "core.child", "first_name", "x" * 256),
    "a long slug": (SERVERS, "core.child", "slug", "ü" * 101),
    "NUL": ({"postgresql"}, "core.note", "note", "a\0b"),
    "a small integer": (SERVERS, "admin.logentry", "action_flag", 70_000),
    "a negative number": (ALL, "babybuddy.settings", "pagination_count", -1),
    "beyond 64 bits": (ALL, "babybuddy.settings", "pagination_count", 2**64),
    "beyond 32 bits": (SERVERS, "babybuddy.settings", "pagination_count", 2**32),
    "NaN": ({"mysql", "sqlite"}, "core.temperature", "temperature", "NaN"),
    "infinity": ({"mysql"}, "core.temperature", "temperature", "-Infinity"),
    "no such child": (ALL, "core.feeding", "child", 4711),
    "no such user": (ALL, "core.timer", "user", 4711),
    "no such tag": (ALL, "core.tagged", "tag", 4711),
    "no such group": (ALL, "auth.user", "groups", [4711]),
}


@both_modes
@pytest.mark.parametrize("case", REFUSED)
def test_a_record_that_the_database_refuses_is_named(family, case, clear):
    engines, label, field, value = REFUSED[case]
    pk = apps.get_model(label)._base_manager.latest("pk").pk

    def change(records):
        next(record["fields"] for record in records[label] if record["pk"] == pk)[field] = value

    file = rewritten(take(), change)
    apps.get_model(label)._base_manager.filter(pk=pk).delete()  # so that it is inserted in both modes
    if ENGINE not in engines:
        restore(file, clear=clear)
        return
    if case == "beyond 64 bits":  # no integer of any engine: found as the file is read
        error = refused(file, InvalidRecord, clear=clear)
        assert (error.model, error.pk, error.field) == (label, pk, field)
        return
    error = refused(file, RecordsRefused, clear=clear)
    line, *way_on = error.details
    assert error.offer == "leave_out" or "Correct it in the file" in way_on[0]
    assert f"{label} {pk}" in line
    assert field in line
    assert error.status == 409
    assert len(line) < 500


@both_modes
def test_two_records_that_exclude_each_other_are_named(family, clear):
    def change(records):
        records["core.child"][0]["fields"]["slug"] = records["core.child"][1]["fields"]["slug"]

    file = rewritten(take(), change)
    error = refused(file, RecordsConflict, clear=clear)
    assert [child for child in family.children if f"core.child {child.pk}" in str(error)]


@both_modes
@pytest.mark.parametrize("bad", ["references", "names"])
def test_twenty_of_many_are_listed(family, bad, clear):
    def change(records):
        for record in records["core.feeding"] + records["core.sleep"]:
            record["fields"]["child"] = 4711

    def change_names(records):
        child = records["core.child"][0]
        for number in range(25):
            fields = {**child["fields"], "slug": f"slug-{number}", "last_name": "x" * 300}
            records["core.child"].append({**child, "pk": 100 + number, "fields": fields})

    if bad == "names" and ENGINE == "sqlite":
        pytest.skip("SQLite keeps long names")
    file = rewritten(take(), change if bad == "references" else change_names)
    error = refused(file, RecordsRefused, clear=clear)
    assert len(error.details) == 20
    assert len({*error.details}) == 20


@both_modes
def test_good_records_around_a_bad_one_are_not_blamed(family, clear):
    def change(records):
        records["core.feeding"][5]["fields"]["child"] = 4711
        records["core.sleep"][2]["fields"]["child"] = 4712

    error = refused(rewritten(take(), change), RecordsRefused, clear=clear)
    feeding = core.Feeding.objects.order_by("pk")[5].pk
    sleep = core.Sleep.objects.order_by("pk")[2].pk
    assert len(error.details) == 2, error.details
    assert f"core.feeding {feeding}," in str(error)
    assert f"core.sleep {sleep}," in str(error)


def test_rows_that_are_not_in_scope_must_not_dangle(family, settings):
    """Clearing takes what rows of left-out models point at: they stay where it comes back, else it is refused."""
    settings.BACKUP_EXCLUDE = ["core.timer"]
    file = take()
    timers = snapshot()["core.timer"]
    restore(file, clear=True)
    assert snapshot()["core.timer"] == timers

    child = core.Child(first_name="New", last_name="", birth_date="2026-01-01")
    child.save()
    timer = core.Timer.objects.create(user=family.admin, child=child)
    error = refused(file, RecordsRefused, clear=True)
    assert f"core.timer {timer.pk}" in str(error)
    restore(file, clear=False)


@sqlite_only
@pytest.mark.parametrize(
    ("model", "field", "value"),
    [
        (core.Feeding, "start", "yesterday"),
        (core.Feeding, "start", "2026-99-99 10:00:00"),
        (core.Feeding, "amount", "much"),
        (core.Feeding, "duration", "long"),
        (core.Child, "birth_date", "01/02/2026"),
        (core.Child, "birth_time", "noon"),
        (core.Child, "first_name", b"\xff"),
    ],
    ids=str,
)
def test_a_value_that_is_not_of_its_type_fails_the_backup_by_name(family, model, field, value):
    """SQLite lets any column hold anything; a backup without the row, or one that cannot be restored, would be none."""
    pk = model.objects.order_by("pk").first().pk
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {model._meta.db_table} SET {field} = %s WHERE id = %s", [value, pk])
    with pytest.raises(BackupError) as caught:
        take()
    assert f"{model._meta.label_lower} {pk}" in str(caught.value)
    assert field in str(caught.value)


@pytest.mark.parametrize("text", ["1e999", '{"deep": [-1e999]}'])
def test_a_number_that_no_float_holds_fails_the_backup_by_name(host_db, text):
    """Databases keep it in JSON; null in its place would be another value, and nobody told."""
    if ENGINE == "mysql" and not connection.mysql_is_mariadb:
        pytest.skip("MySQL itself refuses such a number")
    row = zoo.Specimen.objects.create(char="endless")
    with connection.cursor() as cursor:
        char = connection.ops.quote_name("char")
        cursor.execute(f"UPDATE {row._meta.db_table} SET json = %s WHERE {char} = 'endless'", [text])
    with pytest.raises(BackupError) as caught:
        take()
    assert f"zoo.specimen {row.pk}" in str(caught.value)
    assert "json" in str(caught.value)


@both_modes
def test_zero_is_a_key_like_any_other(family, clear):
    """MySQL would count on instead."""

    def change(records):
        records["core.note"].insert(0, {**records["core.note"][0], "pk": 0})

    restore(rewritten(take(), change), clear=clear)
    assert core.Note.objects.filter(pk=0).exists()


@pytest.mark.skipif(ENGINE != "mysql", reason="of MySQL")
@both_modes
def test_nothing_is_cut_on_a_server_that_is_not_strict(family, clear):
    def change(records):
        records["core.medication"][0]["fields"]["name"] = "x" * 256

    file = rewritten(take(), change)
    with connection.cursor() as cursor:
        cursor.execute("SET sql_mode = ''")
    assert "core.medication" in str(refused(file, RecordsRefused, clear=clear))
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@sql_mode")
        assert cursor.fetchone() == ("",), "as it was"


@pytest.mark.skipif(ENGINE != "mysql", reason="of MySQL")
@pytest.mark.parametrize("digits", [0, 3, 6])
def test_moments_of_columns_with_fewer_digits(family, digits):
    """As old versions of MySQL made them, or somebody by hand."""

    def make(digits):
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE core_note MODIFY time datetime({digits}) NOT NULL")

    make(digits)
    try:
        child = core.Child.objects.first()
        for fraction in (0, 987_000, 987_654):
            moment = dt.datetime(2026, 6, 1, 23, 59, 5, fraction, dt.timezone.utc)
            core.Note.objects.create(child=child, note="n", time=moment)
        expected = {note.pk: note.time.isoformat().replace("+00:00", "Z") for note in core.Note.objects.all()}
        before, file = snapshot(), take()
        assert {note["pk"]: note["fields"]["time"] for note in records_of(file)["core.note"]} == expected
        core.Note.objects.all().delete()
        restore(file, clear=True)
        assert not differences(before, snapshot())
    finally:
        make(6)


@both_modes
@pytest.mark.parametrize("mode", ["", "NO_BACKSLASH_ESCAPES"] if ENGINE == "mysql" else [""])
def test_texts_that_mean_something_to_a_database(family, mode, clear):
    child = core.Child.objects.first()
    texts = [
        "it's",
        'a "word"',
        "back\\",
        "\\'",
        "\\N",
        "a\nb\r\tc\x1a",
        "%s %% %(x)s",
        "'); --",
        "\\x41 🍼",
        "",
    ]
    core.Note.objects.bulk_create(core.Note(child=child, note=text) for text in texts)
    file, before = take(), snapshot()
    core.Note.objects.filter(note__in=texts[::2]).delete()
    core.Note.objects.update(note="other")
    with connection.cursor() as cursor:
        if mode:
            cursor.execute("SET sql_mode = CONCAT(@@sql_mode, %s)", [f",{mode}"])
    restore(file, clear=clear)
    assert not differences(before, snapshot())


# --- After a restore --------------------------------------------------------------------------------------


@both_modes
def test_the_next_row_of_each_table_gets_a_free_key(filled, django_db_setup, clear):
    file = take()
    django_db_setup.put_back()
    restore(file, clear=clear)
    before = snapshot()
    add_everywhere()  # a clash of keys would be an IntegrityError
    after = snapshot()
    for label, rows in before.items():
        assert {key: after[label].get(key) for key in rows} == rows, label
        assert len(after[label]) > len(rows), label


def test_a_failed_restore_leaves_the_sequences_usable(family):
    file = rewritten(take(), lambda records: records["core.feeding"][0]["fields"].update(child=4711))
    add_feeding()
    refused(file, RecordsRefused, clear=True)
    add_feeding()


def add_feeding():
    row = core.Feeding.objects.first()
    row.pk = None
    core.Feeding.objects.bulk_create([row])


def test_foreign_keys_are_checked_again_after_a_restore(family):
    restore(take(), clear=True)
    with connection.cursor() as cursor:
        checks = {
            "sqlite": "PRAGMA foreign_keys",
            "mysql": "SELECT @@foreign_key_checks",
            "postgresql": "SELECT 1",
        }
        cursor.execute(checks[ENGINE])
        assert cursor.fetchone()[0] == 1
        if ENGINE == "mysql":
            cursor.execute("SELECT @@sql_mode")
            assert "NO_AUTO_VALUE_ON_ZERO" not in cursor.fetchone()[0]


ACTIONS = ["CASCADE", "RESTRICT", "SET NULL"]


@pytest.mark.skipif(ENGINE != "postgresql", reason="the others delete nothing with it then")
@pytest.mark.parametrize(
    "rule", [f"ON DELETE {action} DEFERRABLE INITIALLY DEFERRED" for action in ACTIONS] + ["NOT DEFERRABLE"]
)
@pytest.mark.parametrize("each_row", [True, False])
def test_what_refers_to_a_restored_row_stays_as_it_is(family, rule, each_row):
    """In a table that no model knows. Only a superuser can switch the server's own triggers off."""
    file = take()
    child = core.Child.objects.values_list("pk", flat=True).first()
    with connection.cursor() as cursor:
        cursor.execute(
            f'CREATE TABLE "other %%" (child int REFERENCES core_child {rule})',
            [],
        )
        cursor.execute('INSERT INTO "other %%" VALUES (%s)', [child])
        if each_row:
            cursor.execute(
                "CREATE TRIGGER other BEFORE UPDATE ON core_child FOR EACH ROW EXECUTE FUNCTION"
                " suppress_redundant_updates_trigger()"
            )
    try:
        plan = inspect(file, clear=True)
        assert bool(plan.refusal) == each_row
        if each_row:
            error = refused(file, RestoreRefused, clear=True)
            assert str(error) == str(plan.refusal)
            with connection.cursor() as cursor:
                for statement in error.details:
                    cursor.execute(statement)
        restore(file, clear=True)
        with connection.cursor() as cursor:
            cursor.execute('SELECT child FROM "other %"')
            assert cursor.fetchall() == [(child,)]
    finally:
        with connection.cursor() as cursor:
            cursor.execute('DROP TABLE "other %"')
            cursor.execute("DROP TRIGGER IF EXISTS other ON core_child")


@pytest.mark.skipif(ENGINE != "postgresql", reason="the others check no references of their own then")
def test_it_is_said_beforehand_that_an_undo_would_be_refused(family, monkeypatch):
    """A restore over existing data deletes nothing, but its undo does, and so would a restore that clears."""
    monkeypatch.setattr(type(database_of()), "_must_check_each_row", lambda self, names: True)
    file = take()
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE other (child int REFERENCES core_child)")
        try:
            assert not inspect(file, clear=False).warnings, "it has no rows"
            cursor.execute("INSERT INTO other SELECT id FROM core_child")
            (warning,) = inspect(file, clear=False).warnings
            assert restore(file, clear=False).warnings == [warning]
            with pytest.raises(RestoreRefused) as caught:
                services.undo_restore()
            (statement,) = caught.value.details
            assert statement in warning
            cursor.execute(statement)
            assert not inspect(file, clear=False).warnings
            services.undo_restore()
        finally:
            cursor.execute("DROP TABLE other")


@pytest.mark.skipif(ENGINE != "postgresql", reason="the others check no references of their own then")
@pytest.mark.parametrize("clear", [False, True])
def test_a_preview_says_that_a_row_that_goes_with_another_one_is_held(family, monkeypatch, clear):
    monkeypatch.setattr(type(database_of()), "_must_check_each_row", lambda self, names: True)
    file = take()
    child = core.Child.objects.first()
    another = {"first_name": "Another", "last_name": "One", "slug": "another", "birth_date": "2020-01-01"}
    core.Child.objects.filter(pk=child.pk).update(**another)
    note = core.Note.objects.create(child=child, note="of the other one")
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE other (note int REFERENCES core_note)")
        try:
            assert not inspect(file, clear=clear).refusal
            cursor.execute("INSERT INTO other VALUES (%s)", [note.pk])
            plan = inspect(file, clear=clear)
            assert str(refused(file, RestoreRefused, clear=clear)) == str(plan.refusal)
            cursor.execute("DELETE FROM other")
            restore(file, clear=clear)
            assert not core.Note.objects.filter(pk=note.pk)
        finally:
            cursor.execute("DROP TABLE other")


# --- At the same time -------------------------------------------------------------------------------------

WRITER = """
    import sys
    from core.models import Child, Feeding
    from django.db import transaction
    from django.utils import timezone

    def write(name):
        with transaction.atomic():
            child = Child(first_name=name, last_name="written", birth_date="2026-01-01")
            child.save()
            now = timezone.now()
            Feeding.objects.bulk_create(
                Feeding(child=child, start=now, end=now, type="formula", method="bottle") for _ in range(10)
            )
"""


def written(records):
    """Name of each child that the writer made -> number of its feedings. No feeding is without its child."""
    names = {row["pk"]: row["fields"]["first_name"] for row in records["core.child"]}
    counts = Counter(names[row["fields"]["child"]] for row in records["core.feeding"])
    made = [row["fields"] for row in records["core.child"] if row["fields"]["last_name"] == "written"]
    return {fields["first_name"]: counts[fields["first_name"]] for fields in made}


@pytest.fixture(params=["delete", "wal"] if ENGINE == "sqlite" else [""])
def journal(request, family):
    """SQLite's two ways to keep a journal."""
    if request.param:
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA journal_mode = {request.param}")
            assert cursor.fetchone()[0] == request.param
    yield
    if request.param == "wal":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode = delete")


def test_a_backup_is_of_one_moment_and_lets_others_write(journal):
    """Somebody writes while the backup is read, and need not wait for it; none of that is in the backup."""
    code = (
        WRITER
        + "    for line in sys.stdin:\n        write(line.strip())\n        print('written', flush=True)\n"
    )
    answers = {}
    with process(code) as writer:
        assert ask(writer, "before") == "written"

        def progress(label, done, total):
            if label not in answers:  # once after each table
                answers[label] = ask(writer, f"during {label}")

        records = records_of(take(reporter=Telling(progress)))
    assert answers.keys() > {"auth.user", "core.child", "core.feeding"}
    assert {*answers.values()} == {"written"}
    assert written(records) == {"before": 10}
    assert core.Child.objects.filter(last_name="written").count() == 1 + len(answers)


def test_backups_while_somebody_keeps_writing(journal):
    """Each holds all or nothing of what was written in one transaction, and can be restored."""
    code = (
        WRITER
        + "    n = 0\n    while True:\n        write(str(n))\n        n += 1\n        print(n, flush=True)\n"
    )
    seen = []
    with process(code) as writer:
        hear(writer)
        for _ in range(4):
            file = take()
            seen.append(written(records_of(file)))
    for counts in seen:
        assert {*counts.values()} == {10}
    assert len(seen[-1]) > len(seen[0]), "the writer got nowhere"
    wait_until_usable()
    restore(file, clear=True)
    assert written(records_of(take())) == seen[-1]


@pytest.mark.skipif(ENGINE != "mysql", reason="others show the table as it is")
def test_a_table_that_was_altered_since_a_snapshot_is_a_trouble_that_passes(family):
    def alter(what):
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE core_weight {what}")

    database = database_of()
    try:
        with database.snapshot() as reader:
            alter("ADD COLUMN later integer NULL, ALGORITHM = COPY")
            with pytest.raises(OperationalError) as caught:
                reader.fetch("SELECT COUNT(*) FROM core_weight")
        assert isinstance(database.trouble(caught.value), Busy)
    finally:
        alter("DROP COLUMN later")


# --- Tables that are not as Django makes them ---------------------------------------------------------------


def alter(*changes):
    with connection.cursor() as cursor:
        for change in changes:
            cursor.execute(f"ALTER TABLE {change}")


def change_and_restore(family, clear):
    """Back up, change rows, restore and undo, twice: all is as it was each time."""
    User.objects.first().groups.add(Group.objects.create(name="before"))
    before, file = snapshot(), take()
    assert not metadata_of(file).get("left_out")
    core.Note.objects.update(note="changed")
    core.Note.objects.create(child=family.children[0], note="more")
    core.Note.objects.first().delete()
    User.objects.first().groups.clear()
    changed = snapshot()
    for _again in range(2):
        restore(file, clear=clear)
        if clear:
            assert not differences(before, snapshot())
        services.undo_restore()
        assert not differences(changed, snapshot())


@pytest.fixture
def with_history(family):
    """Tables of MariaDB that keep a history of their rows."""
    if not conformance.is_mariadb():
        pytest.skip("of MariaDB")
    names = ["core_child", "core_note", "auth_user_groups", "auth_group", "django_session", "core_tag"]
    alter(*[f"{name} ADD SYSTEM VERSIONING" for name in names])
    yield family
    alter(*[f"{name} DROP SYSTEM VERSIONING" for name in names])


@both_modes
def test_tables_with_a_history_of_their_rows(with_history, clear):
    change_and_restore(with_history, clear)


@pytest.mark.parametrize("change", ["insert", "update", "delete"])
def test_the_history_of_rows_hinders_neither_lock_nor_marker(with_history, change):
    core.Note.objects.last().delete()
    conformance.test_a_locked_table_takes_no_row_at_either_end(database_of(), empty=change == "delete")
    conformance.test_the_change_marker_tells_of_every_change(database_of(), "insert")
    conformance.test_the_change_marker_tells_of_every_change(database_of(), change)


@pytest.mark.skipif(ENGINE != "mysql", reason="the others have one character set")
@both_modes
def test_columns_of_several_character_sets(family, clear):
    columns = {
        "core_child": {"first_name": "latin2", "last_name": "latin1"},
        "core_note": {"note": "ucs2", "image": "ascii"},
        "zoo_specimen": {"url": "utf16", "slug": "utf8mb3", "email": "latin7"},
    }
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name, column_name, column_type, is_nullable FROM information_schema.columns"
            " WHERE table_schema = DATABASE()"
        )
        types = {(table, name): (type_, null) for table, name, type_, null in cursor.fetchall()}

    def set_charsets(charset=None):
        for table, names in columns.items():
            for name, own in names.items():
                type_, null = types[table, name]
                null = "" if null == "YES" else "NOT NULL"
                alter(f"{table} MODIFY {name} {type_} CHARACTER SET {charset or own} {null}")

    zoo.Specimen.objects.create()
    zoo.Specimen.objects.create(other_uuid="4b528c69-908d-4165-8ed0-f39b49eb42ab")
    zoo.Specimen.objects.update(url="", slug="", email="")
    core.Child.objects.update(first_name="Zoé", last_name="Müller")
    core.Note.objects.update(note="é")
    set_charsets()
    try:
        change_and_restore(family, clear)
    finally:
        set_charsets("utf8mb4")


@pytest.fixture(params=["UNIQUE", "KEY"])
def without_primary_key(family, request):
    """Tables whose keys are in no primary key, but in another index, which need not be unique."""
    if ENGINE != "mysql":
        pytest.skip("the others lock whole tables")
    names = ["core_note", "auth_user_groups"]
    for name in names:
        alter(f"{name} ADD {request.param} own_index (id), DROP PRIMARY KEY")
    yield family
    for name in names:
        alter(f"{name} DROP INDEX own_index, ADD PRIMARY KEY (id)")


@both_modes
def test_tables_without_a_primary_key(without_primary_key, clear):
    change_and_restore(without_primary_key, clear)


@pytest.mark.parametrize("empty", [False, True])
def test_a_table_without_a_primary_key_is_locked_as_a_whole(without_primary_key, empty):
    conformance.test_a_locked_table_takes_no_row_at_either_end(database_of(), empty)
    core.Note.objects.filter(note="later").delete()
    conformance.test_what_was_written_before_the_lock_is_seen_and_what_comes_later_waits(database_of())


def test_the_system_check_names_models_that_django_does_not_manage(family, settings, monkeypatch):
    """If they have tables of their own, which no backup holds."""

    def found():
        return [m for m in run_checks(databases=["default"]) if str(m.id).startswith("backup.")]

    assert found() == []
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE zoo_ghost (id INTEGER PRIMARY KEY)")
    try:
        (message,) = found()
        assert message.id == "backup.W012"
        assert "zoo.ghost" in message.msg
        assert "zoo.ghost" not in records_of(take())
        settings.BACKUP_EXCLUDE = ["zoo.ghost"]
        assert found() == [], "it is said already"
        settings.BACKUP_EXCLUDE = []
        monkeypatch.setattr(zoo.Ghost._meta, "db_table", "zoo_shelf")
        assert found() == [], "the rows are those of another model"
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE zoo_ghost")


@pytest.mark.skipif(connection.vendor == "sqlite", reason="it has no connection that could break")
def test_a_broken_connection_is_no_altered_table(host_db):
    database, tables = database_of(), tables_here()
    assert database.altered(tables) == []
    connection.connection.close()
    assert database.altered(tables) == []
    connection.connection = None  # it cannot be closed twice

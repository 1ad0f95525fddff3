"""What every engine must do, by the interface of `backup.database` alone; runs on the database of this run."""

import datetime as dt
import re
import time
from contextlib import contextmanager
from decimal import Decimal

import pytest
from core import models as core
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, models
from django.test.utils import isolate_apps

from backup.database import VENDORS, Database, Job, base, database_of
from backup.exceptions import BackupError, Busy, InvalidRecord, RestoreRefused
from backup.options import Places
from backup.tables import Table
from tests.support.processes import HOLDER, ask, hear, lose_locks, process, wait_until_usable
from tests.support.snapshots import differences, snapshot
from tests.zoo import models as zoo
from tests.zoo.filling import fill_zoo

CHILD, NOTE, TAG, GROUP = Table(core.Child), Table(core.Note), Table(core.Tag), Table(User)
SPECIES, TIDE, SIGHTING, KEEPER = Table(zoo.Species), Table(zoo.Tide), Table(zoo.Sighting), Table(zoo.Keeper)
NOON = dt.datetime(2026, 6, 1, 12, tzinfo=dt.timezone.utc)


@pytest.fixture
def database(family):
    return database_of()


@pytest.fixture
def few(monkeypatch):
    """So few rows a batch that a family's day takes several."""
    monkeypatch.setattr(type(database_of()), "BATCH", 4)


def rows_of(database, table):
    return [row for batch in database.batches(table) for row in zip(*batch, strict=True)]


def row_of(table, **fields):
    """A row of a Species, say, by the names of its fields."""
    return tuple(fields[name] for name in ("pk", *table.names))


def make_species(count, start=0):
    return [
        row_of(SPECIES, pk=f"code {number:06}", latin=f"Latin {number}", parent=None)
        for number in range(start, start + count)
    ]


def insert_by_pack(database, table, rows):
    batch = list(zip(*rows, strict=True))
    database.insert_packed(table, [(database.pack(table, batch), lambda: batch)])


class Undone(Exception):
    pass


@contextmanager
def undone(database, tables):
    """A restore that fails at its end."""
    with pytest.raises(Undone), database.restoring(tables):  # noqa: PT012
        yield
        raise Undone


both_ways = pytest.mark.parametrize("insert", [Database.insert, insert_by_pack], ids=["insert", "pack"])

# --- Reading ------------------------------------------------------------------------------------------------


def test_batches_hold_all_rows_in_the_order_of_their_keys(database, few):
    for table in (NOTE, CHILD, GROUP, Table(core.DiaperChange)):
        batches = [*database.batches(table)]
        keys = [key for batch in batches for key in batch[0]]
        assert keys == sorted(table.model._base_manager.values_list("pk", flat=True)), table
        assert all(len(batch[0]) <= 4 for batch in batches)
        for batch in batches:
            assert len(batch) == 1 + len(table.names)
            assert {len(column) for column in batch} == {len(batch[0])}


def test_an_empty_table_has_no_batches(database):
    assert not [*database.batches(SPECIES)]
    assert database.count(SPECIES) == 0
    assert database.highest_key(SPECIES) is None
    assert not [*database.keys_descending(SPECIES)]
    assert database.rows_by_key(SPECIES, ["none"]) == {}


def test_rows_by_key_are_the_rows_of_the_batches(database):
    rows = rows_of(database, NOTE)
    by_key = database.rows_by_key(NOTE, [row[0] for row in rows] + [987654])
    assert by_key == {row[0]: row for row in rows}


def test_more_keys_than_a_statement_has_parameters(database):
    rows = make_species(2000)
    with database.restoring([SPECIES]):
        database.insert(SPECIES, rows)
    assert database.rows_by_key(SPECIES, [row[0] for row in rows]) == {row[0]: row for row in rows}
    with database.restoring([SPECIES]):
        database.delete(SPECIES, [row[0] for row in rows[:1999]])
    assert rows_of(database, SPECIES) == rows[1999:]


def test_a_range_of_rows(database):
    rows = rows_of(database, NOTE)
    keys = [row[0] for row in rows]

    def between(after, last, limit):
        batch = database.canonical(NOTE, database.prefetch_range(NOTE, after, last, limit)())
        return [*zip(*batch, strict=True)]

    assert between(None, keys[-1], 1000) == rows
    assert between(keys[0], keys[-1], 1000) == rows[1:]
    assert between(None, keys[-1], 1) == rows[:1]
    assert between(keys[-1], keys[-1] + 100, 1000) == []


def test_counts_and_keys(database, few):
    table = Table(core.DiaperChange)
    keys = sorted(core.DiaperChange.objects.values_list("pk", flat=True))
    assert database.count(table) == len(keys)
    assert database.count(table, after=keys[2]) == len(keys) - 3
    assert database.highest_key(table) == keys[-1]
    assert [key for batch in database.keys_descending(table) for key in batch] == keys[::-1]


def test_counts_by_month_are_those_of_utc(database):
    core.Note.objects.all().delete()
    child = core.Child.objects.first()
    for moment in ("2025-12-31T23:59:59+00:00", "2026-01-01T00:30:00+01:00", "2026-01-01T00:00:00+00:00"):
        core.Note.objects.create(child=child, note="n", time=dt.datetime.fromisoformat(moment))
    (column,) = [column for column in NOTE.columns if column.name == "time"]
    assert database.count_by_month(NOTE, column) == {"2025-12": 2, "2026-01": 1}
    (column,) = [column for column in CHILD.columns if column.name == "birth_date"]
    expected = {f"{child.birth_date:%Y-%m}" for child in core.Child.objects.all()}
    assert database.count_by_month(CHILD, column).keys() == expected


def test_size(database):
    assert database.size() > 10_000


def test_matches_are_what_the_database_holds_for_the_same(database):
    place = SPECIES.columns.index(next(column for column in SPECIES.columns if column.name == "latin"))
    parent = SPECIES.columns.index(next(column for column in SPECIES.columns if column.name == "parent"))
    with database.restoring([SPECIES]):
        database.insert(SPECIES, make_species(3))
    wanted = [
        row_of(SPECIES, pk="x", latin="Latin 1", parent=None),
        row_of(SPECIES, pk="y", latin="Nothing", parent=None),
        row_of(SPECIES, pk="z", latin="LATIN 2", parent=None),
    ]
    same, nothing, other_case = database.matches(SPECIES, [place], wanted)
    assert same == ["code 000001"]
    assert nothing == []
    assert other_case == [*zoo.Species.objects.filter(latin="LATIN 2").values_list("pk", flat=True)]
    assert database.matches(SPECIES, [parent], wanted) == [[], [], []], "NULL is nothing's equal"
    many = [row_of(SPECIES, pk="x", latin=f"Latin {number % 3}", parent=None) for number in range(1000)]
    assert database.matches(SPECIES, [place], many) == [[f"code {number % 3:06}"] for number in range(1000)]


def test_natural_keys(database):
    """Each database numbers content types and permissions by itself."""
    rows = rows_of(database, Table(core.Tagged))
    types = {row[1 + Table(core.Tagged).names.index("content_type")][0] for row in rows}
    assert types <= {"core"}
    rule = Table(zoo.Rule)
    made = ("a_new_one", "not_installed", "model")
    with database.restoring([rule]):
        database.insert(rule, [row_of(rule, pk=1, permission=made, subjects=[("core", "child")])])
    assert rows_of(database, rule) == [(1, made, [("core", "child")])]
    with pytest.raises(LookupError):
        database.pack(rule, [[2], [("unknown", "not_installed", "model")], [[]]])


@pytest.mark.parametrize("clear", [True, False])
def test_every_kind_of_key_with_its_relations(family, clear):
    """Read and written in the form that each column has: moments, dates, times, durations, decimals, texts."""
    fill_zoo(NOON)
    before = snapshot()
    tables = [Table(model) for model in (zoo.Species, zoo.Tide, zoo.Day, zoo.Bell, zoo.Lap, zoo.Coin)]
    database = database_of()
    rows = {table: rows_of(database, table) for table in tables}
    assert [row for row in rows[tables[2]] if row[1]] == [("2026-11-23", ["0 birds", "ψ"])]
    assert rows[tables[3]] == [("07:00:00.000001", ["2026-11-23", "2026-11-24"])]
    assert [row[1] for row in rows[tables[4]]] == [
        ["2026-11-23T00:00:00Z", "2026-11-23T00:00:30.250000Z"],
        [],
    ]
    with database.restoring(tables):
        if clear:
            database.clear(tables)
            for table in tables:
                insert_by_pack(database, table, rows[table])
        else:
            for table in tables:
                database.update(table, rows[table])
        assert database.dangling(tables) == []
    assert not differences(before, snapshot())
    with undone(database, tables):
        for table in reversed(tables):
            database.delete(table, [row[0] for row in rows[table]])
        after = snapshot()
        related = ("zoo.tide_", "zoo.day_", "zoo.bell_", "zoo.lap_", "zoo.coin_")
        assert not any(after[table.label] for table in tables)
        assert not any(rows for label, rows in after.items() if label.startswith(related))


# --- Writing ------------------------------------------------------------------------------------------------


@both_ways
def test_what_is_inserted_is_there(database, insert):
    rows = make_species(5000)
    with database.restoring([SPECIES]):
        insert(database, SPECIES, rows)
    assert rows_of(database, SPECIES) == rows


@both_ways
def test_a_refused_record_is_named_and_those_around_it_are_not(database, insert):
    rows = make_species(40)
    rows[17] = (rows[17][0], rows[3][1], None)  # a name that another one has
    with undone(database, [SPECIES]):
        insert(database, SPECIES, rows)
        (line,) = database.refused
        assert "zoo.species code 000017" in line
    assert rows_of(database, SPECIES) == []


@pytest.mark.skipif(connection.vendor != "postgresql", reason="only PostgreSQL's sessions can be set to it")
@pytest.mark.parametrize("write", [Database.insert, Database.update])
def test_no_record_is_blamed_if_the_database_may_only_be_read(database, write):
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
    try:
        with pytest.raises(BackupError, match="read-only transaction"), database.restoring([SPECIES]):
            write(database, SPECIES, make_species(3))
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = off")


@pytest.mark.parametrize("value", [2, 2**70, "text", None])
def test_whatever_a_refused_record_holds_it_is_named(host_db, value):
    """A number in a field for JSON has no range."""
    with isolate_apps("tests.zoo"):

        class Free(models.Model):
            json = models.JSONField(null=True)
            taken = models.IntegerField(unique=True)

            class Meta:
                app_label = "zoo"

    table, database = Table(Free), database_of()
    with connection.schema_editor() as editor:
        editor.create_model(Free)
    try:
        with undone(database, [table]):
            database.insert(table, [(1, value, 7), (2, value, 7)])
            (line,) = database.refused
            assert "zoo.free 2" in line
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(Free)


def test_no_more_than_twenty_are_named(database):
    with undone(database, [SPECIES]):
        database.insert(SPECIES, [(f"code {n}", "all the same", None) for n in range(40)])
        assert len(database.refused) == 20
    with database.restoring([SPECIES]):
        assert database.refused == [], "of this restore"


def test_update_writes_over_the_rows_with_those_keys_only(database):
    rows = make_species(1200)
    new = [(key, f"New {number}", None) for number, (key, _latin, _parent) in enumerate(rows)][100:]
    with database.restoring([SPECIES]):
        database.insert(SPECIES, rows)
        database.update(SPECIES, new)
    assert rows_of(database, SPECIES) == [*rows[:100], *new]


@pytest.mark.skipif(connection.vendor != "postgresql", reason="the others keep no sign of zero")
def test_the_sign_of_zero_is_kept_however_it_is_written(database):
    sample = Table(zoo.Sample)
    place = 1 + sample.names.index("float")

    def rows(first, *others):
        empty = (None,) * (len(sample.names) - place)
        return [(key, *(None,) * (place - 1), value, *empty) for key, value in enumerate((first, *others), 1)]

    for write in (database.insert, database.update):
        for values in ([-0.0, 1.5, None, 0.0], [0.0, -0.0, 2.5, -0.0]):
            with database.restoring([sample]):
                if write == database.insert:
                    database.clear([sample])
                write(sample, rows(*values))
            assert repr([row[place] for row in rows_of(database, sample)]) == repr(values)


def test_clear_empties_tables_and_their_relations(database):
    fill_zoo(NOON)
    tables = [SPECIES, TIDE]
    with undone(database, tables):
        database.clear(tables)
        assert database.count(TIDE) == 0
        assert zoo.Tide.species.through.objects.count() == 0
        assert zoo.Keeper.objects.count() == 1, "others stay"
    assert database.count(TIDE) == 1100


def test_a_restore_is_atomic(database):
    before = snapshot()
    with undone(database, [NOTE, CHILD, SPECIES]):
        database.clear([CHILD, NOTE])
        database.insert(SPECIES, make_species(3))
    assert not differences(before, snapshot())


def test_a_restore_has_a_transaction_of_its_own(database):
    with (
        database.restoring(),
        pytest.raises(BackupError),
        database.restoring(),
    ):
        pass


def test_rows_may_come_before_those_that_they_refer_to(database):
    with database.restoring([SPECIES, SIGHTING]):
        database.insert(SIGHTING, [(1, "Parus major")])
        assert len(database.dangling([SIGHTING])) == 1
        database.insert(SPECIES, [("tit", "Parus major", "bird"), ("bird", "Aves", None)])
        assert database.dangling([SPECIES, SIGHTING]) == []
    assert rows_of(database, SIGHTING) == [(1, "Parus major")]


def test_what_points_at_nothing_is_named(database):
    with undone(database, [SIGHTING, SPECIES]):
        database.insert(SIGHTING, [(number, "Nothing") for number in range(1, 31)])
        database.insert(SPECIES, [("tit", "Parus major", "gone")])
        lines = database.dangling([SIGHTING])
        assert len(lines) == 20
        assert all("zoo.sighting" in line and "species" in line for line in lines)
        (line,) = database.dangling([SPECIES])
        assert "zoo.species tit" in line
        assert "parent" in line


@pytest.mark.parametrize("fails", [False, True])
def test_the_next_row_gets_a_free_key(database, fails):
    child = core.Child.objects.first()
    highest = core.Note.objects.latest("pk").pk
    (row,) = database.rows_by_key(NOTE, [highest]).values()
    try:
        with database.restoring([NOTE]):
            database.insert(NOTE, [(highest + 50, *row[1:])])
            database.reset_sequences([NOTE, CHILD, TAG, KEEPER])
            if fails:
                raise Undone
    except Undone:
        pass
    note = core.Note(child=child, note="next", time=NOON)
    note.save(force_insert=True)
    assert note.pk > (highest if fails else highest + 50)


# --- At the same time ---------------------------------------------------------------------------------------

WRITER = """
    import sys
    from core.models import Child, Note
    from django.utils import timezone
    child = Child.objects.first()
    print("ready", flush=True)
    for line in sys.stdin:
        Note.objects.create(child=child, note=line.strip(), time=timezone.now())
        print("written", flush=True)
"""
READER = """
    import sys
    from core.models import Note
    print("ready", flush=True)
    for line in sys.stdin:
        print(Note.objects.count(), flush=True)
"""


def notes(database):
    return {row[1 + NOTE.names.index("note")] for row in rows_of(database, NOTE)}


def test_a_snapshot_is_of_one_moment(database):
    with process(WRITER) as writer:
        hear(writer)
        with database.snapshot() as reader:
            before = rows_of(reader, CHILD), rows_of(reader, NOTE)
            ask(writer, "meanwhile")
            assert (rows_of(reader, CHILD), rows_of(reader, NOTE)) == before
        assert "meanwhile" in notes(database)


def test_what_was_written_before_the_lock_is_seen_and_what_comes_later_waits(database):
    """Of the whole restore: every change that was acknowledged is in it, or comes after it."""
    with process(WRITER) as writer, process(READER) as reader:
        hear(writer), hear(reader)
        ask(writer, "before")
        count = core.Note.objects.count()
        with database.restoring([CHILD, NOTE]):
            assert "before" in notes(database)
            writer.stdin.write("later\n")
            writer.stdin.flush()
            time.sleep(0.5)
            assert "later" not in notes(database)
            if connection.vendor != "sqlite":  # which locks readers out at the end of a large restore
                assert ask(reader, "count") == str(count), "readers go on"
            database.clear([NOTE])
            time.sleep(0.3)
            assert notes(database) == set()
            if connection.vendor != "sqlite":
                assert ask(reader, "count") == str(count), "and see what was there before"
        assert hear(writer) == "written"
    assert notes(database) == {"later"}


@pytest.mark.parametrize("empty", [False, True])
def test_a_locked_table_takes_no_row_at_either_end(database, empty):
    """Nor where it is empty: there is no row then that could be locked."""
    if empty:
        core.Note.objects.all().delete()
    expected = notes(database)
    with process(WRITER) as writer:
        hear(writer)
        with database.restoring([NOTE]):
            writer.stdin.write("later\n")
            writer.stdin.flush()
            time.sleep(0.5)
            assert notes(database) == expected
        hear(writer)
    assert notes(database) == {*expected, "later"}


def test_what_no_constraint_leads_to_need_not_be_there(database):
    """Where a site's router puts the other table into another database, say."""
    sample, q = Table(zoo.Sample), database.quote
    database.execute(f"ALTER TABLE {q('zoo_species')} RENAME TO {q('zoo_elsewhere')}")
    try:
        with database.restoring([sample]):
            database.clear([sample])
    finally:
        database.execute(f"ALTER TABLE {q('zoo_elsewhere')} RENAME TO {q('zoo_species')}")


def test_a_writer_that_does_not_end_is_waited_for_no_longer_than_that(database, monkeypatch):
    code = """
        from core.models import Note
        from django.db import transaction
        with transaction.atomic():
            Note.objects.filter(pk=Note.objects.first().pk).update(note="held")
            print("holds", flush=True)
            input()
    """
    monkeypatch.setattr(type(database), "LOCK_SECONDS", 1)
    if connection.vendor == "sqlite":
        database.execute("PRAGMA busy_timeout = 1000")
    before = snapshot()
    with process(code) as writer:
        hear(writer)
        begin = time.monotonic()
        with pytest.raises(Busy), database.restoring([CHILD, NOTE]):
            pytest.fail("it was let in")
        assert time.monotonic() - begin < 5
    wait_until_usable()
    assert not differences(before, snapshot())
    with database.restoring([CHILD, NOTE]):
        pass


@pytest.mark.parametrize("change", ["insert", "update", "delete", "relation"])
def test_the_change_marker_tells_of_every_change(database, change):
    tables = [CHILD, NOTE, GROUP]
    code = """
        import sys
        from core.models import Note
        from django.contrib.auth.models import Group, User
        change = sys.argv[1]
        note = Note.objects.last()
        if change == "insert":
            note.pk = None
            Note.objects.bulk_create([note])
        elif change == "update":
            Note.objects.filter(pk=note.pk).update(note="changed")
        elif change == "delete":
            note.delete()
        else:
            User.objects.first().groups.add(Group.objects.first())
        print("done", flush=True)
    """
    database.change_marker(tables)
    marker = database.change_marker(tables)
    with process(code, change) as writer:
        assert hear(writer) == "done"
    with database.restoring(tables):
        assert database.change_marker(tables) != marker


def test_the_change_marker_tells_where_a_value_ends(database):
    key = core.Child.objects.first().pk
    markers = []
    for names in [("a,b", "c"), ("a", "b,c"), ("a','b", "c"), ("a", "b','c"), ("NULL", ""), ("", "NULL")]:
        core.Child.objects.filter(pk=key).update(first_name=names[0], last_name=names[1])
        markers.append(database.change_marker([CHILD]))
    assert all(marker not in markers[:number] for number, marker in enumerate(markers))


def test_the_change_marker_tells_of_long_texts(database):
    note = core.Note.objects.filter(pk=core.Note.objects.first().pk)
    markers = []
    for text in ("", *("x" * length for length in (999, 1000, 1001)), "y" * 1001):
        note.update(note=text)
        markers.append(database.change_marker([NOTE]))
    assert all(marker not in markers[:number] for number, marker in enumerate(markers))


def test_rows_between_are_deleted(database):
    note = core.Note.objects.first()
    core.Note.objects.bulk_create(core.Note(child=note.child, note=str(n), time=note.time) for n in range(3))
    keys = [note.pk for note in core.Note.objects.order_by("pk")]
    lowest, highest = -(2**63), 2**63 - 1
    with database.restoring([NOTE]):
        database.delete_between(NOTE, [])
        database.delete_between(
            NOTE, [(lowest, keys[0] - 1), (keys[1] + 1, keys[2] - 1), (keys[-1] + 1, highest)]
        )
        assert database.count(NOTE) == len(keys)
        database.delete_between(NOTE, [(keys[1], keys[1])] + [(highest, highest)] * 500)
        assert [*core.Note.objects.order_by("pk").values_list("pk", flat=True)] == [keys[0], *keys[2:]]
        database.delete_between(NOTE, [(lowest, highest)])
        assert database.count(NOTE) == 0


def test_one_restore_at_a_time(database):
    with process(HOLDER) as holder:
        assert hear(holder) == "held"
        begin = time.monotonic()
        with pytest.raises(Busy), database.exclusive():
            pytest.fail("two at a time")
        assert time.monotonic() - begin < database.RESTORE_SECONDS + 2
    wait_until_usable()  # the holder was killed
    with database.exclusive():
        pass
    with database.exclusive():
        pass


def test_a_restore_waits_for_who_tidies_up(database):
    """That takes a moment, in which nobody is told that another restore is running."""
    code = """
    import time
    from backup.database import Job, database_of
    with database_of().lock(Job.RESTORE):
        print("held", flush=True)
        time.sleep(0.5)
    """
    with process(code) as holder:
        assert hear(holder) == "held"
        with database.exclusive():
            pass


def test_a_lock_is_free_at_once(database):
    for _ in range(100):
        with database.lock(Job.RESTORE):
            pass


def test_each_job_has_a_lock_of_its_own(database):
    code = """
    from backup.database import Job, database_of
    with database_of().lock(Job.AUTOMATIC_BACKUP):
        print("held", flush=True)
        input()
    print("free", flush=True)
    """
    with process(code) as holder:
        assert hear(holder) == "held"
        with pytest.raises(Busy, match="automatic backup"), database.lock(Job.AUTOMATIC_BACKUP):
            pytest.fail("two at a time")
        with database.exclusive():
            pass
        assert ask(holder, "") == "free"
    for job in Job:
        with database.lock(job):
            pass


@pytest.mark.skipif(connection.vendor == "sqlite", reason="the system keeps its locks")
@pytest.mark.parametrize("job", Job, ids=lambda job: job.name)
def test_a_lock_that_was_lost_is_taken_again_unless_somebody_has_it(database, job):
    code = """
    import sys
    from backup.database import Job, database_of
    with database_of().lock(Job[sys.argv[1]]):
        print("held", flush=True)
        input()
    print("free", flush=True)
    """
    with database.lock(job) as ensure_held:
        assert ensure_held()
        lose_locks()
        database.close_if_lost()
        with process(code, job.name) as holder:
            assert hear(holder) == "held"
            with pytest.raises(Busy):
                ensure_held()
            assert ask(holder, "") == "free"
        assert [ensure_held(), ensure_held()] == [False, True]
        with process(code, job.name) as holder:
            assert holder.wait(60) == 1, "it is held"
    with process(code, job.name) as holder:
        assert hear(holder) == "held"


@pytest.mark.skipif(connection.vendor != "sqlite", reason="a database that is a file")
def test_a_file_that_is_named_by_a_uri_has_the_same_lock(database):
    named = connection.copy()
    named.settings_dict["NAME"] = f"{database.file().as_uri()}?cache=private"
    by_uri = type(database)(named)
    assert by_uri.file() == database.file()
    for one, other in [(database, by_uri), (by_uri, database)]:
        with one.lock(Job.RESTORE), pytest.raises(Busy), other.lock(Job.RESTORE):
            pytest.fail("two at a time")


def is_mariadb():
    return connection.vendor == "mysql" and connection.mysql_is_mariadb


def session_of(database):
    """Return the settings of the session that a restore changes."""
    isolation = "tx_isolation" if is_mariadb() else "transaction_isolation"
    queries = {
        "sqlite": ["PRAGMA foreign_keys", "PRAGMA cache_size"],
        "postgresql": ["SHOW lock_timeout", "SHOW transaction_isolation", "SHOW extra_float_digits"],
        "mysql": [
            f"SELECT @@foreign_key_checks, @@sql_mode, @@innodb_lock_wait_timeout, @@{isolation}",
            "SELECT @@character_set_client, @@character_set_results, @@collation_connection",
        ],
    }[connection.vendor]
    return [database.fetch(query) for query in queries]


def test_the_session_is_as_it_was_after_a_restore(database):
    before = session_of(database)
    with database.restoring([NOTE]):
        pass
    assert session_of(database) == before
    with undone(database, [NOTE]):
        pass
    assert session_of(database) == before


def test_decimals_as_keys(database):
    coin = Table(zoo.Coin)
    with database.restoring([coin]):
        database.insert(coin, [("0.10", [], []), ("2.00", [], ["0.10"])])
    assert [*zoo.Coin.objects.values_list("worth", flat=True)] == [Decimal("0.10"), Decimal("2.00")]
    assert rows_of(database, coin) == [("0.10", [], []), ("2.00", [], ["0.10"])]


def test_no_values_are_no_values(database):
    """In a batch of which no row has a relation, for one."""
    for table in map(Table, [zoo.Specimen, zoo.Tide, zoo.Day, zoo.Bell, zoo.Lap, zoo.Coin]):
        for column in table.columns:
            assert list(database.writer_of(column)([])) == []
            to_plain = database.reader_of(column).to_plain
            assert to_plain is None or list(to_plain([])) == []


# --- Whatever the server or its sessions are set to ----------------------------------------------------------


ODD_SESSIONS = {
    "sqlite": [],
    "postgresql": [{"options": "-c extra_float_digits=0 -c intervalstyle=sql_standard"}],
    "mysql": [
        {"sql_mode": ("ORACLE,EMPTY_STRING_IS_NULL", "ANSI,PAD_CHAR_TO_FULL_LENGTH")},
        {"charset": "latin1"},
        {"charset": "utf8"},
    ],
}[connection.vendor]


@pytest.fixture(params=ODD_SESSIONS, ids=lambda odd: next(iter(odd.values()))[-6:])
def odd_session(request, host_db):
    """Every connection of this process has a session that is set to something odd."""
    odd = {**request.param}
    if "sql_mode" in odd:
        odd["sql_mode"] = odd["sql_mode"][0 if is_mariadb() else 1]
    options = connection.settings_dict["OPTIONS"]
    before = {**options}
    options.update(odd)
    connection.close()
    yield
    options.clear()
    options.update(before)
    connection.close()


@pytest.mark.skipif(connection.vendor == "sqlite", reason="there is nothing to set")
def test_values_are_exact_whatever_the_session_is_set_to(odd_session):
    sample = Table(zoo.Sample)
    values = {
        "char": "Zoë 👶",
        "float": 0.1 + 0.2,
        "duration": "-1 00:00:00.000001",
        "text": "",
        "datetime": "2026-01-01T00:00:00.5Z",
    }
    fields = {name: values.get(name) for name in sample.names}
    batch = sample.batch_from([{"model": sample.label, "pk": 1, "fields": fields}])
    rows = [*zip(*batch, strict=True)]
    database = database_of()
    before = session_of(database)
    with database.exclusive():
        packed = database.pack(sample, batch)
        with database.restoring([sample]):
            database.insert_packed(sample, [(packed, lambda: batch)])
            assert not database.refused
        assert rows_of(database, sample) == rows
    assert session_of(database) == before
    with database.snapshot() as reader:
        assert rows_of(reader, sample) == rows
        month = reader.count_by_month(sample, sample.columns[1 + sample.names.index("datetime")])
        assert month == {"2026-01": 1}


UNSTORABLE = {
    "sqlite": [("float", "NaN"), ("decimal", "NaN"), ("decimal", "12345678901234.567891")],
    "postgresql": [("decimal", "Infinity")],
    "mysql": [("float", "NaN"), ("float", "Infinity"), ("float", "-Infinity"), ("decimal", "NaN")],
}[connection.vendor]


@both_ways
@pytest.mark.parametrize(("field", "value"), UNSTORABLE)
def test_a_value_that_cannot_be_held_is_refused_by_name(database, insert, field, value):
    """Never a NULL in place of it, nor another number."""
    specimen = Table(zoo.Specimen)
    zoo.Specimen.objects.create(char="a")
    (row,) = rows_of(database, specimen)
    place = 1 + specimen.names.index(field)
    rows = [(*row[:place], value, *row[place + 1 :])]
    with undone(database, [specimen]):
        database.clear([specimen])
        try:
            insert(database, specimen, rows)
        except (
            ValueError,
            OverflowError,
            ArithmeticError,
        ):  # `pack` says so at once, and `insert` then names it
            database.insert(specimen, rows)
        (line,) = database.refused
        assert f"zoo.specimen {row[0]}" in line
        assert field in line or connection.vendor == "postgresql"


@pytest.mark.skipif(connection.vendor != "mysql", reason="the others have one engine")
@pytest.mark.parametrize("engine", ["MyISAM", "Aria"])
def test_a_table_without_transactions_is_refused_before_anything(database, engine):
    if engine == "Aria" and not is_mariadb():
        pytest.skip("an engine of MariaDB's")
    table = Table(zoo.Reserved)
    before = snapshot()
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE `zoo select` ENGINE = {engine}")
    try:
        with pytest.raises(RestoreRefused) as caught, database.restoring([SPECIES, table]):
            pytest.fail("it was let in")
        assert caught.value.details == ["ALTER TABLE `zoo select` ENGINE = InnoDB;"]
        with database.restoring([SPECIES]):
            pass
        assert not differences(before, snapshot())
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE `zoo select` ENGINE = InnoDB")


@pytest.mark.skipif(connection.vendor != "mysql", reason="the others have one engine")
@pytest.mark.parametrize("engine", ["MyISAM", "Aria"])
def test_so_is_a_table_that_no_backup_holds_but_a_restore_writes_to(host_db, engine):
    """Not rolled back with the rows, the note would name a restore that never was, and an undo would take that back."""
    from django.core.checks import run_checks

    if engine == "Aria" and not is_mariadb():
        pytest.skip("an engine of MariaDB's")
    mends = "ALTER TABLE `django_session` ENGINE = InnoDB;"
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE django_session ENGINE = {engine}")
    try:
        assert [m.hint for m in run_checks(databases=["default"]) if m.id == "backup.W006"] == [mends]
        with pytest.raises(RestoreRefused) as caught, database_of().restoring([SPECIES]):
            pytest.fail("it was let in")
        assert caught.value.details == [mends]
    finally:
        with connection.cursor() as cursor:
            cursor.execute(mends)


def test_a_restore_also_writes_what_numbers_stand_for(database):
    """Content types and permissions that are missing here."""
    assert {"django_content_type", "auth_permission"} <= database.written([SPECIES])


@pytest.mark.skipif(connection.vendor != "mysql", reason="the others have one engine and one character set")
@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("`zoo select` ENGINE = MyISAM", "backup.W006"),
        ("zoo_sample CONVERT TO CHARACTER SET utf8mb3", "backup.W007"),
    ],
)
def test_the_system_check_names_such_a_table_and_what_mends_it(host_db, change, check):
    from django.core.checks import run_checks

    def found():
        return [m for m in run_checks(databases=["default"]) if str(m.id).startswith("backup.W")]

    assert found() == []
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {change}")
    (message,) = found()
    assert message.id == check
    with connection.cursor() as cursor:
        cursor.execute(message.hint)
    assert found() == []


def test_a_snapshot_under_the_lock_holds_what_there_is(database):
    """A safety copy is completed so: others cannot write any more, and nothing has been written yet."""
    with process(WRITER) as writer:
        hear(writer)
        ask(writer, "acknowledged")
        with undone(database, [CHILD, NOTE]):
            with database.snapshot() as reader:
                assert "acknowledged" in notes(reader)
            database.clear([NOTE])
    assert "acknowledged" in notes(database)


# --- What SQLite may hold in a column -------------------------------------------------------------------------

HOUR = "01:00:00"
#: (field, what is stored, plain value)
STORED = [
    ("datetime", "2026-11-23 14:30:22+00:00", "2026-11-23T14:30:22Z"),
    ("datetime", "2026-11-23 16:30:22.5+02:00", "2026-11-23T14:30:22.500000Z"),
    ("datetime", "2026-11-23T14:30:22Z", "2026-11-23T14:30:22Z"),
    ("datetime", "2026-11-23T14:30:22.123456", "2026-11-23T14:30:22.123456Z"),
    ("datetime", "2026-11-23 14:30", "2026-11-23T14:30:00Z"),
    ("datetime", "2026-1-2 3:04", "2026-01-02T03:04:00Z"),
    ("datetime", "2026-1-2 3:04+01:00", "2026-01-02T02:04:00Z"),
    ("date", "2026-1-2", "2026-01-02"),
    ("time", "3:04", "03:04:00"),
    ("date", "2026-11-23 00:00:00", "2026-11-23"),
    ("date", "2026-11-23T00:00:00Z", "2026-11-23"),
    ("flag", "true", True),
    ("flag", "False", False),
    ("duration", 3600000000.0, HOUR),
    ("duration", "3600000000", HOUR),
    ("integer", "x'3432'", None),
    ("float", 3, 3.0),
]


@pytest.mark.skipif(
    connection.vendor != "postgresql", reason="the others check no references of their own then"
)
@pytest.mark.parametrize("trouble", ["", "trigger", "rule", "not valid"])
def test_references_are_checked_though_the_server_does_not_check_each(database, trouble):
    """Of a table that no model knows, too; and row by row where there is more to it than that."""
    statements = {
        "": "SELECT 1",
        "trigger": "CREATE TRIGGER other BEFORE INSERT ON core_child FOR EACH ROW EXECUTE FUNCTION"
        " suppress_redundant_updates_trigger()",
        "rule": "CREATE RULE other AS ON UPDATE TO core_child DO ALSO NOTIFY other",
        "not valid": "ALTER TABLE other ADD FOREIGN KEY (again) REFERENCES core_child NOT VALID",
    }
    child = core.Child.objects.create(first_name="Ida", last_name="Doe", birth_date="2026-01-01").pk
    with connection.cursor() as cursor:
        cursor.execute(
            'CREATE TABLE other ("the %% child" int REFERENCES core_child DEFERRABLE INITIALLY DEFERRED, again int)',
            [],
        )
        cursor.execute("INSERT INTO other VALUES (%s)", [child])
        cursor.execute(statements[trouble])
    roles = []

    def restore():
        with database.restoring([CHILD, NOTE]):
            roles.extend(database.fetch("SHOW session_replication_role"))
            database.delete(CHILD, [child])

    with pytest.raises(RestoreRefused, match="other"):
        restore()
    assert roles == [("origin" if trouble else "replica",)]
    assert core.Child.objects.filter(pk=child).exists()
    with database.restoring([CHILD, NOTE]):
        pass
    assert database.fetch("SHOW session_replication_role") == [("origin",)]


@pytest.mark.skipif(
    connection.vendor != "postgresql", reason="the others check no references of their own then"
)
def test_only_rows_that_refer_to_what_goes_are_in_the_way(database, monkeypatch):
    monkeypatch.setattr(type(database), "_must_check_each_row", lambda self, names: True)
    names = {"birth_date": "2026-01-01", "last_name": "Doe"}
    child, other = (core.Child.objects.create(first_name=name, **names).pk for name in ("Ida", "Eda"))
    with connection.cursor() as cursor:
        cursor.execute('CREATE TABLE other ("the %% child" int REFERENCES core_child, again int)', [])
        cursor.execute("INSERT INTO other VALUES (%s), (NULL)", [child])

    def delete(key):
        with database.restoring([CHILD]):
            database.delete(CHILD, [key])

    delete(other)
    with pytest.raises(RestoreRefused) as caught:
        delete(child)
    (statement,) = caught.value.details
    assert statement == (
        'ALTER TABLE other ALTER CONSTRAINT "other_the % child_fkey" DEFERRABLE INITIALLY DEFERRED;'
    )
    assert [*core.Child.objects.filter(pk__in=[child, other]).values_list("pk", flat=True)] == [child]


@pytest.mark.skipif(
    connection.vendor != "postgresql", reason="the others check no references of their own then"
)
def test_what_refers_to_rows_may_be_unreadable(database):
    """If it is another role's, though it is empty. Only what the server would change is in the way then."""
    child = core.Child.objects.create(first_name="Ida", last_name="Doe", birth_date="2026-01-01").pk
    role = "backup_test_role"
    with connection.cursor() as cursor:
        for sql in (
            f"CREATE ROLE {role}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
            "CREATE TABLE other (child int REFERENCES core_child)",
            "CREATE SCHEMA others",
            "CREATE TABLE others.acts (child int REFERENCES core_child ON DELETE CASCADE)",
            f"GRANT SELECT ON others.acts TO {role}",  # which is of no use without USAGE of the schema
            f"SET ROLE {role}",
        ):
            cursor.execute(sql)
        try:
            with pytest.raises(RestoreRefused) as caught, database.restoring([CHILD]):
                database.delete(CHILD, [child])
            cursor.execute("RESET ROLE")
            (statement,) = caught.value.details
            cursor.execute(statement)
            cursor.execute(f"SET ROLE {role}")
            with database.restoring([CHILD]):
                database.delete(CHILD, [child])
        finally:
            cursor.execute("RESET ROLE")
            cursor.execute("DROP SCHEMA others CASCADE")
            cursor.execute(f"DROP OWNED BY {role}")
            cursor.execute(f"DROP ROLE {role}")
    assert not core.Child.objects.filter(pk=child).exists()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="the others check a unique value at once")
def test_unique_values_are_checked_where_the_server_does_so_at_the_end(database):
    """It does that by triggers of its own, which would be off while references are checked as a set."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE core_child ADD UNIQUE (last_name) DEFERRABLE INITIALLY DEFERRED")
    before = core.Child.objects.count()

    def restore():
        with database.restoring([CHILD, NOTE]):
            for name in ("Ida", "Eda"):
                core.Child.objects.create(first_name=name, last_name="Twice", birth_date="2026-01-01")

    with pytest.raises(RestoreRefused, match="last_name"):
        restore()
    assert core.Child.objects.count() == before


@pytest.mark.skipif(connection.vendor != "sqlite", reason="the others hold what their columns are for")
@pytest.mark.parametrize(("field", "stored", "plain"), STORED)
@pytest.mark.parametrize("alone", [True, False])
def test_values_in_other_forms_are_read(host_db, field, stored, plain, alone):
    sample, database = Table(zoo.Sample), database_of()
    usual = {
        "datetime": NOON,
        "date": NOON.date(),
        "time": NOON.time(),
        "flag": True,
        "duration": dt.timedelta(hours=2),
        "integer": 1,
        "float": 0.5,
    }
    count = 1 if alone else 3
    for _ in range(count):
        zoo.Sample.objects.create(**({} if alone else {field: usual[field]}))
    pk = zoo.Sample.objects.latest("pk").pk
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE zoo_sample SET {field} = %s WHERE id = %s", [stored, pk])
    place = 1 + sample.names.index(field)

    def read():
        yield rows_of(database, sample)
        yield [*database.rows_by_key(sample, [pk]).values()]
        batch = database.prefetch_range(sample, None, pk, 10)()
        yield [*zip(*database.canonical(sample, batch), strict=True)]

    for rows in read():
        if plain is None:  # nobody can read it: it is equal to nothing
            assert isinstance(rows[-1][place], bytes)
            continue
        assert rows[-1][place] == plain
        assert type(rows[-1][place]) is type(plain)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="the others hold what their columns are for")
@pytest.mark.parametrize(
    ("field", "stored"),
    [
        ("date", "2026-11-23 08:00:00"),
        ("flag", "maybe"),
        ("flag", 2),
        ("datetime", "yesterday"),
        ("float", "3,45"),
        ("integer", 1.5),
        ("duration", "long"),
    ],
)
def test_a_value_without_one_meaning_is_named(host_db, field, stored):
    row = zoo.Sample.objects.create()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE zoo_sample SET {field} = %s", [stored])
    database, sample = database_of(), Table(zoo.Sample)
    database.unreadable = Places()
    rows = rows_of(database, sample)
    (place,) = database.unreadable.named
    assert (place.model, place.pk) == ("zoo.sample", row.pk)
    assert field in (place.field or place.reason)
    if rows:  # the field may be empty
        assert place.field == field
        assert rows[0][1 + sample.names.index(field)] is None


# --- Keys ---------------------------------------------------------------------------------------------------


#: Engine -> collations in which texts are the same, and SQL that says a text otherwise by it; with names for the tests.
#: The server's own one is None.
FOLDING = {
    "sqlite": {"case": ("NOCASE", "UPPER({})"), "blank": ("RTRIM", "{} || ' '")},
    "postgresql": {"case": ("folding", "UPPER({})")},
    "mysql": {"case": (None, "UPPER({})"), "blank": (None, "CONCAT({}, ' ')")},
}[connection.vendor]


@pytest.fixture
def dishes(host_db, request):
    """Tables whose keys are texts, and are the same to the engine in another spelling; and how to spell them so."""
    collation, otherwise = FOLDING[request.param]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            options = "provider = icu, locale = 'und-u-ks-level2', deterministic = false"
            cursor.execute(f"CREATE COLLATION {collation} ({options})")
    with isolate_apps("tests.zoo"):

        class Dish(models.Model):
            name = models.CharField(max_length=50, primary_key=True, db_collation=collation)
            goes_with = models.ManyToManyField("self", symmetrical=False)

            class Meta:
                app_label = "zoo"

        class Recipe(models.Model):
            dish = models.OneToOneField(Dish, models.CASCADE, primary_key=True)
            like = models.ForeignKey(Dish, models.CASCADE, null=True, related_name="+")
            others = models.ManyToManyField(Dish, related_name="+")

            class Meta:
                app_label = "zoo"

    def respell(table, column):
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {table} SET {column} = {otherwise.format(column)}")
            assert cursor.rowcount > 0

    with connection.schema_editor() as editor:
        # For a key that is a reference, Django would make an index here that PostgreSQL refuses.
        editor._create_like_index_sql = lambda model, field: None
        editor.create_model(Dish)
        editor.create_model(Recipe)
    try:
        yield Dish, Recipe, respell
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(Recipe)
            editor.delete_model(Dish)
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"DROP COLLATION {collation}")


@pytest.mark.parametrize("dishes", FOLDING, indirect=True)
def test_a_reference_that_says_a_text_otherwise_is_read_as_its_row_has_it(dishes):
    """Otherwise relations of it would be in no backup, and lost with the next restore."""
    Dish, Recipe, respell = dishes
    milk, rusk = Dish.objects.create(name="milk"), Dish.objects.create(name="rusk")
    milk.goes_with.add(milk, rusk)
    Recipe.objects.create(dish=milk, like=rusk)
    respell("zoo_recipe", "dish_id")
    Recipe.objects.get().others.add(rusk)
    database, tables = database_of(), [Table(Dish), Table(Recipe)]

    def rows():
        return [rows_of(database, table) for table in tables]

    before = rows()
    assert before == [[("milk", ["milk", "rusk"]), ("rusk", [])], [("milk", "rusk", ["rusk"])]]
    respell("zoo_recipe", "like_id")
    respell("zoo_dish_goes_with", "from_dish_id")
    respell("zoo_dish_goes_with", "to_dish_id")
    respell("zoo_recipe_others", "recipe_id")
    respell("zoo_recipe_others", "dish_id")
    assert rows() == before
    assert [*database.rows_by_key(tables[1], ["milk"]).values()] == before[1]
    assert [*database.keys_descending(tables[1])] == [["milk"]]
    with database.snapshot() as snapshot_of_it:
        assert [rows_of(snapshot_of_it, table) for table in tables] == before
    with database.restoring(tables):
        database.clear(tables)
        for table, some in zip(tables, before, strict=True):
            database.insert(table, some)
    assert rows() == before


@pytest.mark.parametrize(("model", "highest"), [(zoo.Animal, 2**63 - 1), (zoo.Reserved, 2**31 - 1)])
def test_a_key_near_the_end_of_its_column_is_refused(host_db, model, highest):
    """No row could be added after it."""
    table = Table(model)
    fields = {"name": "a", "gone": False, "friends": [], "order": 1}
    fields = {name: fields[name] for name in table.names}

    def record(pk):
        return {"model": table.label, "pk": pk, "fields": fields}

    for pk in (highest, highest - 999, highest * 10):
        for records in ([record(pk)], [record(1), record(pk)]):
            with pytest.raises(InvalidRecord, match=f"{table.label} {pk}"):
                table.batch_from(records)
    assert table.batch_from([record(highest // 2)])[0] == [highest // 2]


def test_how_much_fits_is_asked_once(database, django_assert_num_queries):
    column = next(column for column in CHILD.columns if column.name == "first_name")
    most = database.most_characters(CHILD, column)
    assert most == (255 if database.IS_SERVER else None)
    with django_assert_num_queries(0):
        assert database.most_characters(CHILD, column) == most


def test_how_many_rows_have_a_damaged_key_may_be_unknown(database, monkeypatch):
    def fails(*_parts):
        raise DatabaseError("damaged")

    monkeypatch.setattr(database, "fetch", fails)
    monkeypatch.setattr(database, "unreadable", Places())
    database._note_others(NOTE, 7, 1000)
    (place,) = database.unreadable.named
    assert (place.pk, place.field) == (7, None)


@pytest.mark.skipif(
    connection.vendor != "postgresql", reason="the others have no sequences with rights of their own"
)
def test_the_next_row_gets_a_free_key_where_the_role_may_not_set_sequences(host_db):
    table, database = Table(zoo.Animal), database_of()
    role = "backup_test_role"
    names = "zoo_animal, zoo_animal_friends"
    grants = [
        f"CREATE ROLE {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {names} TO {role}",
        f"GRANT USAGE ON SEQUENCE zoo_animal_id_seq, zoo_animal_friends_id_seq TO {role}",
        f"SET ROLE {role}",
    ]
    with connection.cursor() as cursor:
        cursor.execute(f"DROP ROLE IF EXISTS {role}")
        for grant in grants:
            cursor.execute(grant)
    try:
        with database.restoring([table]):
            database.insert(table, [(1, "a", False, []), (500, "b", False, [])])
            database.reset_sequences([table])
        assert zoo.Animal.objects.create(name="next").pk == 501
        for _again in range(3):
            with database.restoring([table]):
                database.reset_sequences([table])
        assert zoo.Animal.objects.create(name="next").pk == 502
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET ROLE")
            cursor.execute(f"DROP OWNED BY {role}")
            cursor.execute(f"DROP ROLE {role}")


@pytest.mark.skipif(connection.vendor != "postgresql", reason="only PostgreSQL has sequences")
@pytest.mark.parametrize(
    "sequence",
    ["", "INCREMENT 10", "MINVALUE 1000", "INCREMENT -1"],
    ids=["owned by none", "in steps", "from 1000", "downwards"],
)
def test_a_sequence_that_somebody_else_made(host_db, sequence):
    """A database that was filled by other tools may have sequences that belong to no column."""
    table, database = Table(zoo.Animal), database_of()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE zoo_animal ALTER id DROP IDENTITY")
        cursor.execute(f"CREATE SEQUENCE backup_test_sequence {sequence}")
        cursor.execute("ALTER TABLE zoo_animal ALTER id SET DEFAULT nextval('backup_test_sequence')")
    down = sequence == "INCREMENT -1"
    try:
        for keys, next_key in (((1, 500), 501), ((), 1), ((1,), 9000), ((1,), 2)):
            with database.restoring([table]):
                database.clear([table])
                database.insert(table, [(key, f"a{key}", False, []) for key in keys])
                database.reset_sequences([table])
                database.set_next_keys({table: next_key})
            assert (database.next_keys([table]) == {}) == down
            made = zoo.Animal.objects.create(name="next").pk
            assert made < 0 if down else made >= next_key
    finally:
        with connection.cursor() as cursor:
            zoo.Animal.objects.all().delete()
            cursor.execute("ALTER TABLE zoo_animal ALTER id DROP DEFAULT")
            cursor.execute("DROP SEQUENCE backup_test_sequence")
            cursor.execute("ALTER TABLE zoo_animal ALTER id ADD GENERATED BY DEFAULT AS IDENTITY")


@pytest.mark.skipif(connection.vendor != "postgresql", reason="only PostgreSQL has such columns")
def test_keys_that_the_server_always_gives(host_db):
    """Rows with such keys are written as others are, however they are written."""
    table, database = Table(zoo.Animal), database_of()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE zoo_animal ALTER id SET GENERATED ALWAYS")
    try:
        with database.restoring([table]):
            database.insert(table, [(1, "a", False, []), (2, "b", False, [])])
            database.update(table, [(2, "c", True, [1])])
            database.insert_rows(table.db_table, table.columns, [(3, "d", False)])
        assert rows_of(database, table) == [(1, "a", False, []), (2, "c", True, [1]), (3, "d", False, [])]
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE zoo_animal ALTER id SET GENERATED BY DEFAULT")


def test_names_with_the_sign_of_parameters(host_db):
    """The sequences of PostgreSQL have the names of the tables, too."""
    with isolate_apps("tests.zoo"):

        class Odd(models.Model):
            name = models.CharField(max_length=50, unique=True, db_column="100% %s")
            others = models.ManyToManyField("self", symmetrical=False, db_table="zoo %(others)s %")

            class Meta:
                app_label = "zoo"
                db_table = "zoo 100%_s"

    table, database = Table(Odd), database_of()
    rows = [(1, "a", [500]), (500, "b", [1, 500])]
    with connection.schema_editor() as editor:
        editor.create_model(Odd)
    try:
        for write in (Database.insert, insert_by_pack):
            with database.restoring([table]):
                database.clear([table])
                write(database, table, rows)
                database.reset_sequences([table])
                if not database.KEYS_AFTER_COMMIT:
                    database.set_next_keys({table: 600})
            if database.KEYS_AFTER_COMMIT:
                database.set_next_keys({table: 600})
        with database.snapshot() as reader:
            assert rows_of(reader, table) == rows
            assert reader.next_keys([table]) == {table: 600}
            assert not reader.altered([table])
            assert not reader.missing_tables([table])
            assert not reader.dangling([table])
            marker = reader.change_marker([table])
        assert database.matches(table, [1], [(0, "b", [])]) == [[500]]
        assert {*database.rows_by_key(table, [1, 2])} == {1}
        with database.restoring([table]):
            database.update(table, [(1, "c", [1])])
            database.delete(table, [500])
        assert rows_of(database, table) == [(1, "c", [1])]
        assert database.change_marker([table]) != marker
    finally:
        with connection.cursor() as cursor:  # Django's own statements fail for such names
            for name, _columns in reversed(table.db_tables):
                cursor.execute(f"DROP TABLE {connection.ops.quote_name(name)}")


@pytest.mark.skipif(connection.vendor != "postgresql", reason="only PostgreSQL has sequences")
def test_tables_that_share_a_sequence(host_db):
    """The next number is above the keys of all of them."""
    tables, database = [Table(zoo.Animal), Table(zoo.Enclosure)], database_of()
    with connection.cursor() as cursor:
        cursor.execute("CREATE SEQUENCE backup_test_sequence")
        for table in tables:
            cursor.execute(f"ALTER TABLE {table.db_table} ALTER id DROP IDENTITY")
            cursor.execute(
                f"ALTER TABLE {table.db_table} ALTER id SET DEFAULT nextval('backup_test_sequence')"
            )
    try:
        with database.restoring(tables):
            database.set_next_keys(dict(zip(tables, (500, 3), strict=True)))
        assert zoo.Enclosure.objects.create(name="next").pk == 500
    finally:
        with connection.cursor() as cursor:
            zoo.Enclosure.objects.all().delete()
            for table in tables:
                cursor.execute(f"ALTER TABLE {table.db_table} ALTER id DROP DEFAULT")
            cursor.execute("DROP SEQUENCE backup_test_sequence")
            for table in tables:
                cursor.execute(f"ALTER TABLE {table.db_table} ALTER id ADD GENERATED BY DEFAULT AS IDENTITY")


@pytest.mark.parametrize("engine", VENDORS.values(), ids=VENDORS)
def test_every_hook_is_in_the_list(engine):
    """Whoever adds an engine needs to know no more than the list."""
    own = {name for kind in engine.__mro__ if kind not in Database.__mro__ for name in vars(kind)}
    hooks = {name for name in own if hasattr(Database, name) and not name.startswith("_")}
    listed = set(re.findall(r"\w+", " ".join(re.findall(r"^`.*`$", base.__doc__, re.MULTILINE))))
    assert hooks <= listed

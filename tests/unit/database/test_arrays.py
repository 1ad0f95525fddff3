"""PostgreSQL's arrays and ranges, whose values Django's own fields convert: the same after a restore, whatever is in
them; and named, if the driver cannot read them or changes them."""

import datetime as dt
import json
from decimal import Decimal

import pytest
from django.db import connection, models
from django.test.utils import isolate_apps

from backup.archive import lines_of
from backup.database import database_of
from backup.database.reading import Reading
from backup.options import Places
from backup.tables import Table

pytestmark = pytest.mark.skipif(connection.vendor != "postgresql", reason="the others have no arrays")
NEW_YEAR = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)


@pytest.fixture
def table(host_db):
    from django.contrib.postgres.fields import ArrayField, DateRangeField, DateTimeRangeField

    with isolate_apps("tests.zoo"):

        class Arrays(models.Model):
            binary = ArrayField(models.BinaryField(), null=True)
            numbers = ArrayField(models.DecimalField(max_digits=20, decimal_places=5), null=True)
            moments = ArrayField(ArrayField(models.DateTimeField()), null=True)
            days = ArrayField(models.DateField(null=True), null=True)
            times = ArrayField(models.TimeField(), null=True)
            texts = ArrayField(models.TextField(null=True), null=True)
            floats = ArrayField(models.FloatField(), null=True)
            stay = DateRangeField(null=True)
            period = DateTimeRangeField(null=True)

            class Meta:
                app_label = "zoo"

        with connection.schema_editor() as editor:
            editor.create_model(Arrays)
        numbers = [Decimal("123456789012345.12345"), None]
        Arrays.objects.create(
            binary=[b"\0\xff", b""],
            numbers=numbers,
            moments=[[NEW_YEAR, NEW_YEAR]],
            days=[NEW_YEAR.date(), None],
            times=[NEW_YEAR.time(), dt.time(23, 59, 59, 1)],
            texts=["[2:3]={a,b}", "infinity", 'a "b" \\ {c}\n', "NULL", None],
            floats=[float("inf"), 0.1],
            stay=(NEW_YEAR.date(), None),
            period=(None, NEW_YEAR),
        )
        Arrays.objects.create(binary=[])
        try:
            yield Table(Arrays)
        finally:
            with connection.schema_editor() as editor:
                editor.delete_model(Arrays)


@pytest.mark.parametrize("is_packed", [True, False])
def test_arrays_come_back_as_they_were(table, is_packed):
    database = database_of()

    def stored():
        names = ", ".join(f'"{name}"::text' for name in table.names)
        return database.fetch(f"SELECT {names} FROM {table.db_table} ORDER BY id")

    before = stored()
    (columns,) = database.batches(table)
    batch = table.batch_from(json.loads(b"[" + lines_of(table.record_template, columns) + b"]"))
    with database.restoring([table]):
        database.clear([table])
        if is_packed:
            database.insert_packed(table, [(database.pack(table, batch), lambda: batch)])
        else:
            database.insert(table, list(zip(*batch, strict=True)))
        assert not database.refused
    assert stored() == before


def test_what_nobody_could_restore_is_named(table):
    """The field does not take it: a backup with it would be refused, also one that undoes a restore."""
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table.db_table} (numbers) VALUES ('{{NaN}}')")
    database = database_of()
    database.unreadable = Places()
    (columns,) = database.batches(table)
    (place,) = database.unreadable.named
    assert (place.pk, place.field) == (3, "numbers")
    assert columns[1 + table.names.index("numbers")][2] is None


UNREADABLE = [
    ("days", "{2026-01-01,infinity}"),
    ("days", "{12026-01-01}"),
    ("days", '{"0044-03-15 BC"}'),
    ("moments", "{{-infinity}}"),
    ("times", "{24:00:00}"),
    ("texts", "[0:1]={a,b}"),
    ("texts", "[2:3][1:2]={{a,b},{c,d}}"),
    ("stay", "[2020-01-01,infinity)"),
    ("stay", "[2020-01-01,12026-01-01)"),
    ("period", '["2020-01-01 00:00:00+00",infinity)'),
]


@pytest.mark.parametrize(("field", "text"), UNREADABLE)
def test_what_the_driver_cannot_read_is_named(table, field, text):
    """psycopg raises an error while it fetches some of them, for all rows; others it changes."""
    database = database_of()
    place = 1 + table.names.index(field)
    ((*before,),) = [[*zip(*batch, strict=True)] for batch in database.batches(table)]
    name = database.quote(table.db_table)
    rows = database.fetch(f"INSERT INTO {name} ({field}) VALUES (%s) RETURNING id", [text])
    (key,) = rows[0]

    def read(reader):
        yield [row for batch in reader.batches(table) for row in zip(*batch, strict=True)]
        yield [*reader.rows_by_key(table, [row[0] for row in before] + [key]).values()]
        yield [*zip(*reader.canonical(table, reader.prefetch_range(table, None, key, 10)()), strict=True)]

    for rows in read(database):  # for comparison
        assert rows[:-1] == before
        assert isinstance(rows[-1][place], bytes)
    with database.snapshot() as reader:
        reader.unreadable = Places()
        for rows in read(reader):  # for a backup
            assert rows == [*before, (key, *[None] * len(table.names))]
            assert {(place.pk, place.field) for place in reader.unreadable.named} == {(key, field)}
            assert text in reader.unreadable.named[0].reason


def test_a_key_that_is_read_as_a_text_is_sorted_as_a_value(host_db, monkeypatch, settings):
    """PostgreSQL would sort by a column of the result that has the name of the key, or refuse to if there are two."""
    settings.USE_TZ = False
    monkeypatch.setattr(Reading, "BATCH", 1)
    with isolate_apps("tests.zoo"):

        class Moment(models.Model):
            at = models.DateTimeField(primary_key=True)

            class Meta:
                app_label = "zoo"

        with connection.schema_editor() as editor:
            editor.create_model(Moment)
        try:
            moments = [dt.datetime(2026, 1, 1, second=second) for second in (9, 0, 10)]
            Moment.objects.bulk_create(map(Moment, moments))
            table, database = Table(Moment), database_of()
            keys = [key for batch in database.batches(table) for key in batch[0]]
            assert keys == [moment.isoformat() for moment in sorted(moments)]
            assert [*database.rows_by_key(table, keys)] == keys
            assert [*database.keys_descending(table)] == [[key] for key in reversed(keys)]
        finally:
            with connection.schema_editor() as editor:
                editor.delete_model(Moment)

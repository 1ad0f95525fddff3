"""The fast ways of an engine, each against the plain way that it stands for: SQLite's packed values, PostgreSQL's text
for COPY, MySQL's literals, and the readers that let the database make a column plain."""

import datetime as dt
from contextlib import contextmanager
from itertools import product

import pytest
from django.db import DatabaseError, connection, transaction
from hypothesis import HealthCheck, assume, example, given
from hypothesis import strategies as st

from backup.database import database_of
from backup.database.conversion import Conversion
from backup.database.writing import Writing
from backup.kinds import plain_datetime, plain_float
from backup.tables import Table
from tests.support.properties import examples
from tests.zoo import models as zoo

SAMPLE = Table(zoo.Sample)
SPECIAL = "\\'\"`%\t\n\r\x1a\b\0\x7f;-$@:N\u2028\ufeff\ufffe\U0001f37c\U0010ffff "
TEXT = st.text(st.sampled_from(SPECIAL) | st.characters(exclude_categories=["Cs"]), max_size=40)
UTC = st.just(dt.timezone.utc)
#: Field -> its plain values.
PLAIN = {
    "char": TEXT,
    "text": TEXT | st.sampled_from(["\\N", "\\.", "\\x41", "NULL", "'", "''", "\\", "\\'; --", "\x1a"]),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "big": st.integers(-(2**63), 2**63 - 1),
    "float": (st.floats() | st.sampled_from([1e-7, 5e-324, -0.0, 2.2250738585072014e-308, 1e22])).map(
        plain_float
    ),
    "flag": st.booleans(),
    "date": st.dates(dt.date(1000, 1, 1)).map(dt.date.isoformat),
    "time": st.times().map(dt.time.isoformat),
    "datetime": st.datetimes(dt.datetime(1000, 1, 1), dt.datetime(9998, 1, 1), timezones=UTC).map(
        plain_datetime
    ),
    "duration": st.timedeltas(dt.timedelta(days=-9999), dt.timedelta(days=9999)).map(
        SAMPLE.columns[1 + SAMPLE.names.index("duration")].kind.dump
    ),
    "species": TEXT,
}
ROWS = st.lists(st.tuples(*(st.none() | PLAIN[name] for name in SAMPLE.names)), min_size=1, max_size=6)
fuzzed = examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@contextmanager
def undone():
    """A transaction of which nothing stays."""
    with transaction.atomic():
        try:
            yield
        finally:
            transaction.set_rollback(True)


def written(database, write):
    """What the driver reads of rows that were written by `write`; None where they are refused. Nothing of it stays."""
    names = ", ".join(database.quote(column.column) for column in SAMPLE.columns)
    with database.restore_settings(), undone():
        try:
            with transaction.atomic():
                write()
            rows = database.fetch(f"SELECT {names} FROM {database.quote(SAMPLE.db_table)} ORDER BY id")
        except (DatabaseError, ValueError, OverflowError):
            rows = None
    return rows


@fuzzed
@given(ROWS)
@example(
    [
        (None,) * 11,
        ("", "", 0, 0, 0.0, False, "1000-01-01", "00:00:00", "1000-01-01T00:00:00Z", "00:00:00", ""),
    ]
)
@example([(*["\\" * 50, "'\\'\"\\\\", 1, 1, 5e-324, True, None, None, None, None, "\\N"],)])
def test_rows_are_written_as_on_the_plain_path(host_db, rows):
    database = database_of()
    if connection.vendor == "postgresql":
        # On the plain path -0.0 is a decimal number to PostgreSQL and loses its sign. Ours keep it.
        rows = [tuple(v + 0.0 if isinstance(v, float) else v for v in row) for row in rows]
    plain = list(zip(*((number, *row) for number, row in enumerate(rows, 1)), strict=True))
    columns = SAMPLE.columns

    def fast():
        values = [
            database.writer_of(column)(column_of) for column, column_of in zip(columns, plain, strict=True)
        ]
        packed = database.pack_rows(columns, values)
        if connection.vendor != "sqlite":
            assert packed[:4] in (b"COPY", b"VALU"), "the fast path is what this is about"
        database.insert_packed_rows(SAMPLE.db_table, columns, packed)

    def slow():
        values = [
            database._plain_writer(column)(column_of)
            for column, column_of in zip(columns, plain, strict=True)
        ]
        Writing.insert_packed_rows(
            database, SAMPLE.db_table, columns, Writing.pack_rows(database, columns, values)
        )

    expected = written(database, slow)
    if expected is not None and any("NaN" in row for row in rows):
        assume(connection.vendor != "sqlite")  # which takes it for NULL: the fast path refuses it
    assert repr(written(database, fast)) == repr(expected)


@fuzzed
@given(ROWS)
def test_rows_are_read_as_on_the_plain_path(host_db, rows):
    database = database_of()
    rows = [(number, *row) for number, row in enumerate(rows, 1)]
    database.refused = []
    with database.restore_settings(), undone():
        database.insert(SAMPLE, rows)
        if database.refused:
            return  # it holds a value that this engine does not
        table = database.quote(SAMPLE.db_table)
        for column in SAMPLE.columns:
            read = []
            for reader in (database.reader_of(column), Conversion.plain_reader(database, column)):
                values = [
                    value for (value,) in database.fetch(f"SELECT {reader.sql} FROM {table} ORDER BY id")
                ]
                read.append([*reader.to_plain(values)] if reader.to_plain and values else values)
            assert repr(read[0]) == repr(read[1]), column.name
        found = [row for batch in database.batches(SAMPLE) for row in zip(*batch, strict=True)]
        assert found == rows


@pytest.mark.parametrize("count", [1, 3, 63, 64, 65, 255, 256, 257, 900])
def test_any_number_of_rows(host_db, count):
    database = database_of()
    rows = [(number, *[None] * len(SAMPLE.names)) for number in range(1, count + 1)]
    with database.restoring([SAMPLE]):
        database.insert(SAMPLE, rows)
    assert [row for batch in database.batches(SAMPLE) for row in zip(*batch, strict=True)] == rows


@pytest.mark.skipif(connection.vendor != "mysql", reason="the others hold no day that is none")
def test_every_day_that_is_none_is_found():
    to_plain = database_of().reader_of(SAMPLE.columns[1 + SAMPLE.names.index("datetime")]).to_plain
    for year, month, day in product((0, 1900, 2000, 2023, 2024), range(13), range(32)):
        moment = f"{year:04d}-{month:02d}-{day:02d}T14:30:22.000001Z"
        among = ["2026-10-10T14:30:22.000001Z", moment, "2020-02-29T14:30:22.000001Z"]
        try:
            dt.datetime.fromisoformat(moment[:-1])
        except ValueError:
            for values in ([moment], among):
                with pytest.raises(ValueError, match="a date is needed"):
                    to_plain(values)
        else:
            assert to_plain([moment]) == [moment]
            assert to_plain(among) == among

"""MySQL and MariaDB."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from django.conf import settings
from django.db import OperationalError

from ..kinds import BOOLEAN, DATE, DATETIME, DURATION, FLOAT, INTEGER, TEXT, TIME, Kind, Plain
from ..tables import Batch, Column
from .base import Database, already_running
from .values import ConvertAll, as_they_are, booleans, durations, floats, is_harmless, microseconds, moments


class MySQL(Database):
    vendor = "mysql"

    def size(self) -> int | None:
        sql = "SELECT SUM(data_length + index_length) FROM information_schema.tables WHERE table_schema = DATABASE()"
        size = self.fetch(sql)[0][0]
        return None if size is None else int(size)

    def _begin_reading(self) -> None:
        # Django runs MySQL at READ COMMITTED, where each statement sees another moment.
        self.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        name = f"backup.{self.connection.settings_dict['NAME']}"[:64]
        if self.fetch("SELECT GET_LOCK(%s, 0)", [name])[0][0] != 1:
            raise already_running()
        try:
            yield
        finally:
            if self.connection.is_usable():
                self.execute("SELECT RELEASE_LOCK(%s)", [name])

    @contextmanager
    def _unchecked(self) -> Iterator[None]:
        """MySQL checks each row at once, and cannot defer. Strict mode: a value that does not fit is an error, and is
        never cut; 0 is a key like any other."""
        checks, mode = self.fetch("SELECT @@foreign_key_checks, @@sql_mode")[0]
        strict = ",".join({*filter(None, mode.split(",")), "STRICT_ALL_TABLES", "NO_AUTO_VALUE_ON_ZERO"})
        try:
            self.execute("SET foreign_key_checks = 0, sql_mode = %s", [strict])
            yield
        finally:
            if self.connection.is_usable():
                self.execute("SET foreign_key_checks = %s, sql_mode = %s", [checks, mode])
            else:
                self.connection.close()

    def _shortcut(self, column: Column) -> tuple[str, ConvertAll | None] | None:
        name, kind = self.quote(column.column), column.kind
        if kind in (INTEGER, FLOAT) or column.field.get_internal_type() in ("CharField", "TextField"):
            return name, None
        if kind is BOOLEAN:
            return name, booleans
        if kind is DATE:
            return f"DATE_FORMAT({name}, '%%Y-%%m-%%d')", None
        if kind is DATETIME and settings.USE_TZ and self.connection.timezone_name == "UTC":
            # As the server says it anyway, which is quicker than to have it formatted.
            return f"CONCAT(INSERT({name}, 11, 1, 'T'), 'Z')", _without_zeros
        if kind is DURATION:
            return name, durations
        return None

    def _plain(self, *args: Any, **options: Any) -> Batch:
        columns = super()._plain(*args, **options)
        # The driver needs the interpreter lock several times a query. The thread that reads may have it now, rather
        # than after the five milliseconds that Python lets it wait: a backup takes a fifth less time.
        time.sleep(0)
        return columns

    def _write_shortcut(self, column: Column) -> ConvertAll | None:
        kind = column.kind
        if kind in (DATE, TIME):
            return as_they_are
        if kind is FLOAT:
            return floats
        if kind is DURATION:
            return lambda values: [None if value is None else microseconds(value) for value in values]
        if kind is DATETIME and settings.USE_TZ and self.connection.timezone_name == "UTC":
            return lambda values: [None if value is None else value[:-1] for value in values]
        return super()._write_shortcut(column)

    #: Kinds of whose values we can say ourselves how they stand in a statement.
    AS_SQL = (INTEGER, TEXT, BOOLEAN, FLOAT, DATE, TIME, DATETIME, DURATION)

    def _pack(self, columns: Sequence[Column], values: Sequence[Sequence[Any]]) -> bytes:
        """As SQL, a column at a time, where all columns can be said so: the driver says each value by itself."""
        raw = self.connection.connection
        if (
            not values[0]
            or not all(column.kind in self.AS_SQL or column.is_natural for column in columns)
            or getattr(raw, "encoding", "")
            != "utf8"  # in other character sets, part of a letter may be a quote
            or not hasattr(raw, "string_literal")  # another driver than mysqlclient
        ):
            return super()._pack(columns, values)
        said = [
            _as_sql(column.kind, some, raw.string_literal)
            for column, some in zip(columns, values, strict=True)
        ]
        return b"VALUES (" + "),(".join(map(",".join, zip(*said, strict=True))).encode() + b")"

    def _insert_packed(self, db_table: str, columns: Sequence[str], data: bytes) -> None:
        if not data.startswith(b"VALUES"):
            super()._insert_packed(db_table, columns, data)
            return
        quote = self.connection.ops.quote_name
        begin = f"INSERT INTO {quote(db_table)} ({', '.join(map(quote, columns))}) ".encode()
        with self.connection.wrap_database_errors, closing(self._cursor()) as cursor:
            cursor.execute(begin + data)

    def _is_about_a_record(self, error: OperationalError) -> bool:
        # Errors of data and of constraints that mysqlclient files under OperationalError.
        return bool(error.args) and error.args[0] in {
            1048,
            1264,
            1292,
            1364,
            1366,
            1367,
            1406,
            3140,
            3819,
            4025,
        }


def _as_sql(kind: Kind, values: Sequence[Any], literal: Callable[[bytes], bytes]) -> Sequence[str]:
    """A column as its values stand in a statement of MySQL's. `literal`: the driver's way to put text in quotes. Raises
    `ValueError` where there is no way to say a value."""
    if kind is FLOAT:
        return ["NULL" if value is None else _double(value) for value in values]
    if kind in (INTEGER, BOOLEAN, DURATION) or kind.name == "natural":
        return ["NULL" if value is None else f"{value:d}" for value in values]
    if is_harmless(values):
        return ["NULL" if value is None else f"'{value}'" for value in values]
    return ["NULL" if value is None else literal(value.encode()).decode() for value in values]


def _double(value: float) -> str:
    """With an exponent, which tells it from a decimal number."""
    text = repr(value)
    if text in ("nan", "inf", "-inf"):
        raise ValueError(text)
    return text if "e" in text else f"{text}e0"


def _without_zeros(values: Sequence[Any]) -> Sequence[Plain]:
    """Moments with as many digits of a fraction as their column always has; ours have six, or none where it is zero."""
    if None in values:
        return [None if value is None else _without_zeros([value])[0] for value in values]
    text = "\n".join(values)
    if len(text) != 28 * len(values) - 1:  # not six, as Django's columns have
        return [moment.replace(".000000", "") for moment in moments([value[:-1] for value in values])]
    return text.replace(".000000", "").split("\n") if ".000000" in text else values

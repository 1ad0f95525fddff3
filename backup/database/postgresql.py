"""PostgreSQL."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from django.conf import settings

from ..kinds import (
    BOOLEAN,
    DATE,
    DATETIME,
    DECIMAL,
    DURATION,
    FLOAT,
    INTEGER,
    TEXT,
    TIME,
    UUID_,
    Kind,
    plain_float,
)
from ..tables import Column, Table
from .base import Database, already_running
from .values import ConvertAll, as_they_are, durations, is_harmless, moments


class PostgreSQL(Database):
    vendor = "postgresql"

    def _month(self, name: str) -> str:
        return f"TO_CHAR({name}, 'YYYY-MM')"

    def size(self) -> int | None:
        return int(self.fetch("SELECT pg_database_size(current_database())")[0][0])

    #: Any number, the same for all: which restore runs is told apart by the database.
    LOCK = 0x62616279

    def _begin_reading(self) -> None:
        self.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        # Rows are read in the order of their keys, a batch at a time. A planner that knows nothing of a table yet, as
        # after a restore, would sort all of it for each batch.
        self.execute("SET LOCAL enable_sort = off")

    def change_marker(self) -> Any:
        return self.fetch("SELECT pg_current_snapshot()::text")

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        if not self.fetch("SELECT pg_try_advisory_lock(%s)", [self.LOCK])[0][0]:
            raise already_running()
        try:
            yield
        finally:
            if self.connection.is_usable():
                self.execute("SELECT pg_advisory_unlock(%s)", [self.LOCK])

    def _begin_writing(self) -> None:
        self.execute("SET CONSTRAINTS ALL DEFERRED")

    def _check_at_the_end(self) -> None:
        self.execute("SET CONSTRAINTS ALL IMMEDIATE")

    def _shortcut(self, column: Column) -> tuple[str, ConvertAll | None] | None:
        # The server makes the text, which is quicker than to make Python's objects of it first.
        name, kind = self.quote(column.column), column.kind
        if kind in (INTEGER, BOOLEAN) or column.field.get_internal_type() in ("CharField", "TextField"):
            return name, None
        if kind is FLOAT:
            return name, lambda values: [v if v is None or v - v == 0 else plain_float(v) for v in values]
        if kind is DATE:
            return f"to_char({name}, 'YYYY-MM-DD')", None
        if kind is DATETIME and settings.USE_TZ:
            # In DateStyle ISO, which psycopg needs to be set anyway. to_char would take three times as long.
            return f"({name} AT TIME ZONE 'UTC')::text", moments
        if kind is DURATION:
            return f"(EXTRACT(EPOCH FROM {name}) * 1000000)::bigint", durations
        return None

    #: Kinds whose plain form PostgreSQL reads as it is.
    AS_TEXT = (INTEGER, TEXT, BOOLEAN, FLOAT, DATE, TIME, DATETIME, DURATION, DECIMAL, UUID_)

    def _write_shortcut(self, column: Column) -> ConvertAll | None:
        return as_they_are if column.kind in self.AS_TEXT else super()._write_shortcut(column)

    def _pack(self, columns: Sequence[Column], values: Sequence[Sequence[Any]]) -> bytes:
        """As text for COPY, where all columns can be said so."""
        if not all(column.kind in self.AS_TEXT or column.is_natural for column in columns):
            return super()._pack(columns, values)
        said = [_copied(column.kind, some) for column, some in zip(columns, values, strict=True)]
        return b"COPY" + "".join(["\t".join(row) + "\n" for row in zip(*said, strict=True)]).encode()

    def _insert_packed(self, db_table: str, columns: Sequence[str], data: bytes) -> None:
        if not data.startswith(b"COPY"):
            super()._insert_packed(db_table, columns, data)
            return
        sql = f"COPY {self.quote(db_table)} ({', '.join(map(self.quote, columns))}) FROM STDIN".replace(
            "%%", "%"
        )
        with self.connection.wrap_database_errors, closing(self._cursor()) as cursor:
            if hasattr(cursor, "copy_expert"):  # psycopg 2
                cursor.copy_expert(sql, io.BytesIO(data[4:]))
            else:
                with cursor.copy(sql) as copy:
                    copy.write(data[4:])

    def _update_values(self, table: Table, values: Sequence[Sequence[Any]]) -> None:
        q = self.quote
        assignments = ", ".join(
            f"{q(column.column)} = EXCLUDED.{q(column.column)}" for column in table.nonkey_columns
        )
        names = [column.column for column in table.columns]
        end = f"ON CONFLICT ({q(table.key.column)}) DO UPDATE SET {assignments}"
        self._insert_rows(table.db_table, names, list(zip(*values, strict=True)), end)

    def reset_sequences(self, tables: Sequence[Table]) -> None:
        """Sequences stand outside of transactions: they only ever go up here, so that a restore that is rolled back
        leaves none below a key that is in use."""
        relations = [(relation.table, "id") for table in tables for relation in table.relations]
        for db_table, column in [*((table.db_table, table.key.column) for table in tables), *relations]:
            q = self.quote
            (sequence,) = self.fetch("SELECT pg_get_serial_sequence(%s, %s)", [q(db_table), column])[0]
            if sequence:
                self.execute(
                    f"SELECT setval(%s, GREATEST((SELECT MAX({q(column)}) FROM {q(db_table)}), nextval(%s)))",
                    [sequence, sequence],
                )

    def unknown_time_zones(self, names: Iterable[str]) -> set[str]:
        wanted = set(names)
        if not wanted:
            return set()
        return wanted - {name for (name,) in self.fetch("SELECT name FROM pg_timezone_names")}


_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _copied(kind: Kind, values: Sequence[Any]) -> Sequence[str]:
    """A column as COPY takes it."""
    if kind is TEXT and not is_harmless(values):
        return ["\\N" if value is None else value.translate(_ESCAPES) for value in values]
    return ["\\N" if value is None else str(value) for value in values]

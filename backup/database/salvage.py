"""Reads what can be read of a table in a damaged file of SQLite's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from django.db import DatabaseError, OperationalError
from django.utils.translation import gettext as _

from ..kinds import INTEGER, Plain
from ..tables import Batch, Relation, Table
from .errors import reason_of
from .reading import Reading
from .session import RawRows

#: What SQLite says of damage, and of a table or column that is missing.
DAMAGE = ("malformed", "not a database", "no such table", "no such column")
#: Failures after which the rest of a table is given up: each halves a range of rows.
MOST_FAILURES = 2000


class Salvage(Reading):
    """Reads around damage, where what cannot be read is left out. All else goes the plain way."""

    #: What a snapshot reads from, in place of Django's connection.
    _source: sqlite3.Connection | None

    def _fetch(self, sql: str, params: Sequence[Any]) -> RawRows:
        try:
            return super()._fetch(sql, params)
        except OperationalError as error:
            if "decode" not in str(error):
                raise
        # A text that is no UTF-8 comes as the bytes that it is.
        raw = self._source or self.connection.connection
        raw.text_factory = _text_or_bytes
        try:
            return super()._fetch(sql, params)
        finally:
            raw.text_factory = str

    def is_damage(self, error: DatabaseError) -> bool:
        return any(words in str(error) for words in DAMAGE)

    def count(self, table: Table, after: Plain = None) -> int:
        try:
            return super().count(table, after)
        except DatabaseError:
            if self.unreadable is None:
                raise
            return 0  # it is for the progress only

    def batches(self, table: Table) -> Iterator[Batch]:
        """Yield all rows in the order of their keys. Where what cannot be read is left out, so is what lies in damaged
        pages of the file, and the rest is read around them."""
        if self.unreadable is None:
            yield from super().batches(table)
            return
        rises = table.key.kind is INTEGER
        last: Plain = None
        try:
            for batch in super().batches(table):
                if rises and last is not None and batch[0][0] <= last:
                    raise DatabaseError("malformed: rows are out of order")
                yield batch
                last = batch[0][-1]
        except DatabaseError as error:
            if not self.is_damage(error):
                raise
            if last is not None and not rises:
                raise  # there is no telling which rows came already
            yield from self._batches_around(table, last, error)

    def _related(
        self, table: Table, relation: Relation, keys: Sequence[Plain], first: Any, last: Any
    ) -> list[Plain]:
        try:
            return super()._related(table, relation, keys, first, last)
        except DatabaseError as error:
            if self.unreadable is None or not self.is_damage(error):
                raise
            self._note(table, None, relation.name, reason_of(error))
            return [[] for _key in keys]

    def _rows_between(self, select: str, name: str, first: Any, last: Any) -> RawRows:
        try:
            return super()._rows_between(select, name, first, last)
        except DatabaseError:
            if self.unreadable is None:
                raise
            return super()._rows_between(
                f"{select} NOT INDEXED", name, first, last
            )  # the index may be to blame

    def _batches_around(self, table: Table, after: int | None, error: DatabaseError) -> Iterator[Batch]:
        """Yield the rows above `after`, as far as they can be read, and note the others.

        They are asked for by SQLite's own number of a row. A range that cannot be read is halved.
        """
        lost: list[tuple[int, int]] = []
        try:
            high = self._last_number(table)
        except DatabaseError as gone:
            self._note(table, None, None, reason_of(gone))
            return
        ranges = [(0 if after is None else after + 1, high)]
        failures = 0
        while ranges:
            low, high = ranges.pop()
            try:
                if low > high:
                    continue
                if failures > MOST_FAILURES:
                    raise error
                rows = self._numbered(table, low, high)
            except DatabaseError:
                failures += 1
                if low == high or failures > MOST_FAILURES:
                    lost.append((low, high))
                else:
                    middle = (low + high) // 2
                    ranges += [(middle + 1, high), (low, middle)]
                continue
            if len(rows) == self.BATCH:
                ranges.append((rows[-1][-1] + 1, high))
            if batch := self.to_batch(table, self.readers(table), [row[:-1] for row in rows]):
                yield batch
        for low, high in _joined(lost):
            reason = _("the rows %(first)s to %(last)s, which lie in a damaged part of the file")
            self._note(table, None, None, reason % {"first": low, "last": high})

    def _numbered(self, table: Table, low: int, high: int) -> list[tuple[Plain, ...]]:
        readers = self.readers(table)
        names = [reader.sql for reader in readers]
        if not readers[0].is_raw:
            names.append(self.quote(table.key.column))
        return self.fetch(
            f"SELECT {', '.join(names)}, rowid FROM {self.quote(table.db_table)} NOT INDEXED"
            f" WHERE rowid BETWEEN %s AND %s ORDER BY rowid LIMIT {self.BATCH}",
            [low, high],
        )

    def _last_number(self, table: Table) -> int:
        """Return the highest number that a row may have."""
        for sql, params in (
            (f"SELECT MAX(rowid) FROM {self.quote(table.db_table)} NOT INDEXED", []),
            ("SELECT seq FROM sqlite_sequence WHERE name = %s", [table.db_table]),
        ):
            try:
                rows = self.fetch(sql, params)
                return int(rows[0][0] or 0) if rows else 0
            except DatabaseError as error:
                if "no such" in str(error) and not params:
                    raise
        return 2**31


def _text_or_bytes(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join ranges that follow each other."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and joined[-1][1] + 1 == low:
            joined[-1] = joined[-1][0], high
        else:
            joined.append((low, high))
    return joined

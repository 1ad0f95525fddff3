"""Reads what is readable of a damaged table, one range of keys after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.db import DatabaseError
from django.utils.translation import gettext as _

from ..kinds import INTEGER, Plain
from ..tables import Batch, Relation, Table
from .errors import reason_of
from .reading import Reading
from .session import RawRows

#: The number of failures after which the rest of a table is given up. Each failure halves a range of rows.
MOST_FAILURES = 2000


class Salvage(Reading):
    """Reads around damage, if unreadable rows are to be left out. Otherwise reads as usual."""

    def batches(self, table: Table) -> Iterator[Batch]:
        """Yield all rows in the order of their keys. If unreadable values are left out, so are rows in damaged
        places."""
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
            self.recover()
            if last is not None and not rises:
                raise  # it is not known which rows were read already
            yield from self._batches_around(table, last, error)

    def count(self, table: Table, after: Plain = None) -> int:
        try:
            return super().count(table, after)
        except DatabaseError as error:
            if self.unreadable is None or not self.is_damage(error):
                raise
            self.recover()
            return 0  # it is only used for the progress

    def _related(
        self, table: Table, relation: Relation, keys: Sequence[Plain], first: Any, last: Any
    ) -> list[Plain]:
        try:
            return super()._related(table, relation, keys, first, last)
        except DatabaseError as error:
            if self.unreadable is None or not self.is_damage(error):
                raise
            self.recover()
            self._note(table, None, relation.name, reason_of(error))
            return [[] for _key in keys]

    def _batches_around(self, table: Table, after: int | None, error: DatabaseError) -> Iterator[Batch]:
        """Yield the readable rows with keys above `after`, and note the others. Unreadable ranges are halved."""
        lost: list[tuple[int, int]] = []
        try:
            high = self.last_number(table)
        except DatabaseError as gone:
            self.recover()
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
                rows = self.numbered(table, low, high)
            except DatabaseError as failure:
                self.recover()
                error = failure
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
            details = {"first": low, "last": high, "reason": reason_of(error)}
            if low == high and table.key.kind is INTEGER:
                self._note(
                    table, low, None, _("the whole record, which cannot be read (%(reason)s)") % details
                )
            else:
                reason = _("the rows %(first)s to %(last)s, which cannot be read (%(reason)s)")
                self._note(table, None, None, reason % details)

    def numbered(self, table: Table, low: int, high: int) -> RawRows:
        """Return the first rows whose numbers are in a range, sorted by number, each with its number at the end."""
        key = self._sort_key(table)
        return self.numbered_by(table, f"{key} FROM {self.quote(table.db_table)}", key, low, high)

    def numbered_by(self, table: Table, source: str, number: str, low: int, high: int) -> RawRows:
        """Do what `numbered` does. `source`: SQL for the number and for the source of the rows. `number`: SQL for the
        value by which the rows are found."""
        readers = self.readers(table)
        names = [reader.sql for reader in readers]
        if not readers[0].is_raw:
            names.append(self.quote(table.key.column))
        return self.fetch(
            f"SELECT {', '.join(names)}, {source}"
            f" WHERE {number} BETWEEN %s AND %s ORDER BY {number} LIMIT {self.BATCH}",
            [low, high],
        )

    def last_number(self, table: Table) -> int:
        """Return the highest number that a row may have."""
        if table.key.kind is not INTEGER:
            raise DatabaseError(_("its rows have no numbers by which to read around the damage"))
        return int(self.highest_key(table) or 0)

    # -- hooks: see `base` ---

    def recover(self) -> None:
        """Make a snapshot usable again after a query that failed. By default, nothing needs to be done."""


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the ranges, with adjacent ones joined."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and joined[-1][1] + 1 == low:
            joined[-1] = joined[-1][0], high
        else:
            joined.append((low, high))
    return joined

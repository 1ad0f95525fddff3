"""Reads what is readable of a damaged table, one range of keys after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import Any

from django.db import DatabaseError
from django.utils.translation import gettext as _

from ..kinds import INTEGER, Plain
from ..options import Place, Places
from ..tables import Batch, Relation, Table, place_of, places_in_words
from .errors import Malformed, reason_of
from .reading import Reading
from .session import RawRows

#: The number of failures after which the rest of a table is given up. Each failure halves a range of rows.
MOST_FAILURES = 2000


class Salvage(Reading):
    """Reads around damage, if unreadable rows are to be left out. Otherwise reads as usual."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        #: Names of tables with an index that lacks rows: see `broken_indexes`.
        self.unindexed: set[str] = set()

    def batches(self, table: Table) -> Iterator[Batch]:
        """Yield all rows in the order of their keys. If unreadable values are left out, so are rows in damaged
        places."""
        if self.unreadable is None:
            yield from super().batches(table)
            return
        rises = table.key.kind is INTEGER
        last: Plain = None
        read = -self.left_out  # with the rows that are left out since they cannot be read
        try:
            self._note_rows_without_key(table)
            self._check_indexes(table)
            for batch in super().batches(table):
                if rises and not _rise(batch[0], last):
                    raise Malformed("rows are out of order")
                if not rises:
                    batch = self._without_twins(table, batch, last)
                if batch:
                    yield batch
                    last = batch[0][-1]
                    read += len(batch[0])
            self._compare_with_scan(table, read + self.left_out)
        except DatabaseError as error:
            if not self.is_damage(error):
                raise
            self.recover()
            if last is not None and not rises:
                raise  # it is not known which rows were read already
            for batch in self._batches_around(table, last, error):
                yield batch
                read += len(batch[0])
            if isinstance(error, Malformed):  # else parts of it cannot be read
                self._compare_with_scan(table, read + self.left_out)

    def _compare_with_scan(self, table: Table, read: int) -> None:
        """Note that an index lacks rows, if fewer were read by it than there are."""
        scanned = self.rows_by_scan(table)
        if scanned is not None and read < scanned:
            text = _(
                "an index lacks rows (%(read)s of %(all)s were read): REINDEX TABLE %(table)s repairs it"
            )
            self._note(table, None, None, text % {"read": read, "all": scanned, "table": table.db_table})

    def _without_twins(self, table: Table, batch: Batch, last: Plain) -> Batch:
        """Return the rows of a batch whose keys are there for the first time, and note the others. `last`: the key of
        the row before the batch, which comes again if another row has it: see `Reading.batches`. It is not the first
        one of the batch where the database sorts texts as equal that differ."""
        if last not in batch[0] and len({*batch[0]}) == len(batch[0]):
            return batch
        seen: set[Plain] = set()
        kept = []
        for key in batch[0]:
            kept.append(key != last and key not in seen)
            if key in seen:
                self._note(table, key, None, _another_record())
            seen.add(key)
        return _of(batch, kept)

    def _check_indexes(self, table: Table) -> None:
        """Note which indexes of a table and of its relations lack rows: who reads by such an index lacks them, too,
        without any error. Raises `DatabaseError` if the table is to be read without its indexes.
        """
        for db_table, place in self._broken(table):
            self.unindexed.add(db_table)
            self._note(table, None, place.field, place.reason)
        if table.db_table in self.unindexed:
            raise Malformed("an index lacks rows")

    def refuse_broken_indexes(self, tables: Iterable[Table]) -> None:
        """Raise `Damaged` if an index of one of the tables lacks rows: a restore could not find these, and would let
        them be, or leave them to another record than the one that they belong to."""
        broken = Places()
        for table in tables:
            for _db_table, place in self._broken(table):
                broken.add(place)
        if broken:
            raise self.damaged(DatabaseError("; ".join(places_in_words(broken))))

    def _broken(self, table: Table) -> Iterator[tuple[str, Place]]:
        """Yield (name of the table in the database, what is wrong) for each broken index: see `broken_indexes`."""
        names = {relation.db_table: relation.name for relation in table.relations}
        for db_table, reason in self.broken_indexes(table).items():
            text = _(
                "all rows can be read, but an index lacks some (%(reason)s): REINDEX in sqlite3 repairs it"
            )
            yield db_table, place_of(table.label, None, names.get(db_table), text % {"reason": reason})

    def count(self, table: Table, after: Plain = None) -> int:
        try:
            return super().count(table, after)
        except DatabaseError as error:
            if self.unreadable is None or not self.is_damage(error):
                raise
            self.recover()
            return 0  # it is only used for the progress

    def numbers_of(self, db_table: str, columns: Sequence[str], order: Sequence[str] = ("id",)) -> RawRows:
        """Do what the shared method does. If the table is damaged, its unique index may still hold all."""
        try:
            return super().numbers_of(db_table, columns, order)
        except DatabaseError as error:
            if self.unreadable is None or not self.is_damage(error):
                raise
            self.recover()
            if order != columns:  # sorted by these, all is read from the index, and nothing from the table
                return self.numbers_of(db_table, columns, columns)
            self.unreadable.add(Place(db_table, None, None, reason_of(error)))
            return []

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
        ranges = [(self._begin(table, after), high)]
        #: The highest key so far, of keys that are numbers.
        seen: list[Plain] = [after]
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
                next_number = max(row[-1] for row in rows)
                if next_number == low:  # which only fails if all have one number, as others may
                    next_number += 1
                    self._note_others(table, low, len(rows))
                # Rows with the number at which a batch ends are read again: there may be more of them.
                rows = [row for row in rows if row[-1] < next_number]
                ranges.append((next_number, high))
            if self.IS_SERVER and rows and rows[0][-1] == after:
                rows, after = rows[1:], None  # it was read before
            if batch := self._batch_in_order(table, rows, seen):
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

    def _note_others(self, table: Table, key: int, read: int) -> None:
        """Note the rows with a key that more rows have than are read at a time. `read`: how many of them were read."""
        name = self.quote(table.key.column)
        try:
            rows = self.fetch(f"SELECT COUNT(*) FROM {self.quote(table.db_table)} WHERE {name} = %s", [key])
        except DatabaseError as error:
            self.recover()
            self._note(table, key, None, reason_of(error))
            return
        for _row in range(read, rows[0][0]):
            self._note(table, key, None, _another_record())

    def _begin(self, table: Table, after: int | None) -> int:
        """Return the number at which to begin to read around damage, if all rows up to `after` were read."""
        if after is not None:  # on a server, others may have this key, too: see `Reading.batches`
            return after if self.IS_SERVER else after + 1
        try:
            return self.first_number(table)
        except DatabaseError:  # the damage may be just there
            self.recover()
            return 0

    def _batch_in_order(self, table: Table, rows: RawRows, seen: list[Plain]) -> Batch:
        """Return rows of `numbered` in the order of their keys. Where pages were exchanged, rows may come twice, or too
        late: then they are noted. `seen`: the highest key so far, which is updated."""
        place = 0 if self.readers(table)[0].is_raw else -2
        rows = sorted(rows, key=lambda row: (_rank(row[place]), row[place]))
        batch = self.to_batch(table, self.readers(table), [row[:-1] for row in rows])
        if (
            batch and table.key.kind is INTEGER
        ):  # which may be texts of numbers, where other software made the table
            order = sorted(range(len(batch[0])), key=batch[0].__getitem__)
            batch = [[column[row] for row in order] for column in batch]
        if not batch or table.key.kind is not INTEGER or _rise(batch[0], seen[0]):
            seen[:] = batch[0][-1:] if batch else seen
            return batch
        kept: list[bool] = []
        for key in batch[0]:
            kept.append(seen[0] is None or key > seen[0])
            if kept[-1]:
                seen[0] = key
            else:
                self._note(table, key, None, _another_record())
        return _of(batch, kept)

    def numbered(self, table: Table, low: int, high: int) -> RawRows:
        """Return the first rows whose numbers are in a range, sorted by number, each with its number at the end."""
        key = self._sort_key(table)
        return self.numbered_by(table, f"{key} FROM {self.quote(table.db_table)}", key, low, high)

    def numbered_by(self, table: Table, source: str, number: str, low: int, high: int) -> RawRows:
        """Do what `numbered` does. `source`: SQL for the number and for the source of the rows. `number`: SQL for the
        value by which the rows are found."""
        readers, key = self.readers(table), self.quote(table.key.column)
        names = [reader.sql for reader in readers]
        if not readers[0].is_raw:
            names.append(key)
        return self.fetch(
            f"SELECT {', '.join(names)}, {source}"
            f" WHERE {number} BETWEEN %s AND %s AND {key} IS NOT NULL ORDER BY {number} LIMIT {self.BATCH}",
            [low, high],
        )

    def first_number(self, table: Table) -> int:
        """Return the lowest number that a row may have, or 0 if that is lower."""
        sql = f"SELECT MIN({self.quote(table.key.column)}) FROM {self.quote(table.db_table)}"
        return min(0, int(self.fetch(sql)[0][0] or 0)) if table.key.kind is INTEGER else 0

    def last_number(self, table: Table) -> int:
        """Return the highest number that a row may have."""
        if table.key.kind is not INTEGER:
            raise DatabaseError(_("its rows have no numbers by which to read around the damage"))
        return int(self.highest_key(table) or 0)

    # -- hooks: see `base` ---

    def rows_by_scan(self, table: Table) -> int | None:
        """Return the number of rows of a table, found without any index; None if what is read cannot differ from it, or
        if that is known before (see `broken_indexes`)."""
        return None

    def broken_indexes(self, table: Table) -> dict[str, str]:
        """Return name of a table in the database -> how an index of it lacks rows. By default, that is not known."""
        return {}

    def recover(self) -> None:
        """Make a snapshot usable again after a query that failed. By default, nothing needs to be done."""


def _another_record() -> str:
    """Return the reason for leaving out a record, as a phrase."""
    return _("another record with this key, or one in a wrong place")


def _of(batch: Batch, kept: Sequence[bool]) -> Batch:
    """Return those rows of a batch that are kept."""
    return [list(compress(column, kept)) for column in batch] if any(kept) else []


def _rise(keys: Sequence[Plain], last: Plain) -> bool:
    """Tell whether keys that are numbers rise, and are above the last one."""
    return (last is None or keys[0] > last) and sorted({*keys}) == [*keys]


def _rank(value: Any) -> int:
    """Return the place of a value's type in SQLite's order. Servers give keys of one type."""
    return 2 if isinstance(value, bytes) else isinstance(value, str)


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the ranges, with adjacent ones joined."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and joined[-1][1] + 1 == low:
            joined[-1] = joined[-1][0], high
        else:
            joined.append((low, high))
    return joined

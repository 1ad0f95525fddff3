"""Collects what a preview shows beside its counts: examples of records that differ, and numbers of records by month.

A `PreviewCollector` is given what is read and compared while the plan is built. It keeps at most `MOST` rows of each
kind and model, and a number for each month, so memory does not grow with the number of rows. A restore has none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress
from operator import itemgetter

from ..database import Database
from ..kinds import Plain
from ..options import RestoreMode
from ..tables import Batch, Column, Row, Table
from .batches import ComparedBatch, Spool

#: Returns the month of a date or moment in ISO 8601: "2026-11".
_MONTH = itemgetter(slice(7))
#: The most example rows of each kind (added, changed, removed) and model.
MOST = 50
#: The most characters of a text in an example row, which is more than a page shows. A note may have millions.
LONGEST = 1000


@dataclass
class Samples:
    """Example rows of one model. `changed`: pairs of the row here and the backup's; `used`: the same, if they differ
    only in when the record was last used."""

    added: list[Row] = field(default_factory=list)
    changed: list[tuple[Row, Row]] = field(default_factory=list)
    used: list[tuple[Row, Row]] = field(default_factory=list)
    removed: list[Row] = field(default_factory=list)

    def rows(self) -> Iterator[Row]:
        yield from chain(self.added, self.removed, *self.changed, *self.used)


class PreviewCollector:
    """Collects what a preview shows.

    `mode`: of the restore; only if it clears are there rows that the backup does not hold. `date_columns`: model label
    -> the column that dates a record, for the models that are counted by month (months of UTC, on both sides alike).
    `uses`: model label -> the field that says when a record was last used.
    """

    def __init__(
        self,
        spool: Spool,
        mode: RestoreMode,
        date_columns: Mapping[str, Column],
        uses: Mapping[str, str] | None = None,
    ) -> None:
        self._spool = spool
        self._mode = mode
        self._date_columns = date_columns
        self._uses = uses or {}
        #: Labels of models whose keys did not come in rising order.
        self._unordered: set[str] = set()
        self._months: dict[str, Counter[str]] = {label: Counter() for label in date_columns}
        #: How many more rows than records each month has, by what was compared as text.
        self._differences: dict[str, Counter[str]] = {label: Counter() for label in date_columns}
        #: "2026-11" -> records in the database; in the backup: see `months`.
        self.months_here: Counter[str] = Counter()
        self.samples: dict[str, Samples] = {}
        #: Model label -> how many records differ only in when they were last used.
        self.used: Counter[str] = Counter()

    @property
    def months(self) -> Counter[str]:
        """Return "2026-11" -> records in the backup."""
        return sum(self._months.values(), Counter())

    # -- while the backup is read ---

    def add_months(
        self, table: Table, batch: Sequence[Sequence[Plain]], which: Sequence[bool] | None = None
    ) -> None:
        """Count a batch of records by month. `which`: whether each record counts; by default, all do."""
        if column := self._date_columns.get(table.label):
            values = batch[table.columns.index(column)]
            counted = values if which is None else compress(values, which)
            self._months[table.label].update(_months_in(counted))

    def add_difference(self, table: Table, batch: Batch, here: Batch) -> None:
        """Count records and rows here, in place of each other, by month."""
        if column := self._date_columns.get(table.label):
            place = table.columns.index(column)
            difference = self._differences[table.label]
            difference.update(_months_in(here[place] if here else ()))
            difference.subtract(_months_in(batch[place] if batch else ()))

    def add_keys(self, table: Table, keys: Sequence[Plain], *, in_order: bool) -> None:
        """Add the keys of a batch of a model's records. `in_order`: they are numbers in rising order."""
        if not self._mode.clears:
            return
        if not in_order:
            self._unordered.add(table.label)
        unbroken = in_order and keys[-1] - keys[0] == len(keys) - 1
        self._spool.put(_keys_of(table), (keys[0], keys[-1] + 1) if unbroken else list(keys))

    # -- while the changes are counted ---

    def add_batch(self, database: Database, table: Table, batch: ComparedBatch) -> None:
        """Add examples of the rows that a batch adds and changes."""
        samples = self.samples.setdefault(table.label, Samples())
        added = [*batch.added[:MOST], *batch.replaced[:MOST]]
        samples.added += _cut_rows(added[: MOST - len(samples.added)])
        if batch.replaced:
            self.add_removed(database, table, [row[0] for row in batch.replaced])
        use = self._uses.get(table.label)
        if rows := batch.changed if use else batch.changed[: MOST - len(samples.changed)]:
            current = database.rows_by_key(table, [row[0] for row in rows])
            used: list[tuple[Row, Row]] = []
            changed: list[tuple[Row, Row]] = []
            for row in rows:
                if row[0] in current:
                    pair = current[row[0]], database.row_as_stored(table, row)
                    (used if database.differing(table, row, current[row[0]]) == [use] else changed).append(
                        pair
                    )
            self.used[table.label] += len(used)
            samples.used += _cut_pairs(used[: MOST - len(samples.used)])
            samples.changed += _cut_pairs(changed[: MOST - len(samples.changed)])

    def add_removed(self, database: Database, table: Table, keys: Sequence[Plain]) -> None:
        """Add examples of rows that are removed. `keys`: their keys."""
        samples = self.samples.setdefault(table.label, Samples())
        keys = keys[: MOST - len(samples.removed)]
        for chunk in database.portions(table, keys):
            rows = database.rows_by_key(table, chunk)
            samples.removed += _cut_rows(rows[key] for key in chunk if key in rows)

    def add_missing(self, database: Database, table: Table) -> None:
        """Add examples of the rows here that the backup does not contain: those with the highest keys."""
        missing: list[Plain] = []
        for keys in self._missing_keys(database, table):
            missing += keys[: MOST - len(missing)]
            if len(missing) == MOST:
                break
        self.add_removed(database, table, missing)

    def _missing_keys(self, database: Database, table: Table) -> Iterator[list[Plain]]:
        """Yield keys of missing rows backwards, so that what was entered last comes first, mostly in the first
        batch."""
        batches = self._keys_backwards(table)
        batch = next(batches, None)
        for keys in database.keys_descending(table):
            missing = {*keys}
            if table.label in self._unordered:
                for chunk in self._keys_backwards(table):
                    missing.difference_update(chunk)
            else:
                while batch is not None and batch[-1] >= keys[-1]:
                    missing.difference_update(batch)
                    if batch[0] < keys[-1]:
                        break  # the rest of it belongs to the rows that come next
                    batch = next(batches, None)
            yield [key for key in keys if key in missing]

    def _keys_backwards(self, table: Table) -> Iterator[Sequence[Plain]]:
        for keys in self._spool.backwards(_keys_of(table)):
            yield range(*keys) if isinstance(keys, tuple) else keys

    def add_months_here(self, database: Database, table: Table, *, same: bool, read_up_to: Plain) -> None:
        """Count the rows here by month, if possible without a query.

        `same`: the table is the same as in the backup. `read_up_to`: all rows up to this key were compared as text
        (None: they were not).
        """
        column = self._date_columns.get(table.label)
        if column is None:
            return
        months: Counter[str] = Counter()
        if same or read_up_to is not None:
            months.update(self._months[table.label])
        if not same:
            months.update(self._differences[table.label] if read_up_to is not None else ())
            months.update(database.count_by_month(table, column, after=read_up_to))
        self.months_here += months


def _months_in(values: Iterable[Plain]) -> Iterator[str]:
    return map(_MONTH, filter(None, values))


def _cut_rows(rows: Iterable[Row]) -> list[Row]:
    """Return example rows with long texts cut, so that they take little memory."""
    return [tuple([_cut(value, 0) for value in row]) for row in rows]


def _cut_pairs(pairs: Iterable[tuple[Row, Row]]) -> list[tuple[Row, Row]]:
    """Return pairs of rows with long texts cut, so that the place where they begin to differ is kept."""
    cut = []
    for current, new in pairs:
        starts = [_difference(old, value) for old, value in zip(current, new, strict=True)]
        old_row, new_row = (tuple(map(_cut, row, starts)) for row in (current, new))
        cut.append((old_row, new_row))
    return cut


def _difference(current: Plain, new: Plain) -> int:
    """Return at which character to begin showing two values, so that the first difference is seen in its context."""
    if not isinstance(current, str) or not isinstance(new, str) or max(len(current), len(new)) <= LONGEST:
        return 0
    block = 4096
    start = 0
    while start < len(current) and current[start : start + block] == new[start : start + block]:
        start += block
    pairs = zip(current[start : start + block], new[start : start + block], strict=False)
    start += next((place for place, (old, value) in enumerate(pairs) if old != value), 0)
    return max(start - 40 - start % 4, 0) if start >= LONGEST else 0  # a multiple of four, for base64


def _cut(value: Plain, start: int) -> Plain:
    return value[start : start + LONGEST] if isinstance(value, str) and len(value) > LONGEST else value


def _keys_of(table: Table) -> str:
    return f"{table.label} keys"

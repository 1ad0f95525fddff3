"""What a preview shows beside its counts: some of the records that differ, and how many records there are a month.

A plan tells a `Look` what it reads, in the passes that it makes anyway. Kept are no more than `MOST` rows of each kind
and model, and one number a month: memory does not grow with the number of rows. A restore has no `Look`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress
from operator import itemgetter
from typing import Any, Protocol

from ..database.base import Database
from ..kinds import Plain
from ..tables import Column, Row, Table

#: "2026-11" of a date or a moment.
_MONTH = itemgetter(slice(7))
#: Example rows of each kind (added, changed, removed) and model.
MOST = 50


class Store(Protocol):
    """Where the keys of the backup's records go: a `plan.Spool`."""

    def put(self, name: str, batch: Any) -> None: ...
    def backwards(self, name: str) -> Iterator[Any]: ...


@dataclass
class Samples:
    """Of one model. `changed`: as it is here, and as the backup has it; `used`: the same, where what differs is only
    when it was last used."""

    added: list[Row] = field(default_factory=list)
    changed: list[tuple[Row, Row]] = field(default_factory=list)
    used: list[tuple[Row, Row]] = field(default_factory=list)
    removed: list[Row] = field(default_factory=list)

    def rows(self) -> Iterator[Row]:
        yield from chain(self.added, self.removed, *self.changed, *self.used)


class Look:
    """`moments`: model label -> the column that says of which moment a record tells, for the models that are counted by
    month. Months are those of UTC, for both sides alike. `uses`: model label -> the field that says when a record was
    last used."""

    def __init__(
        self, moments: Mapping[str, Column], store: Store, uses: Mapping[str, str] | None = None
    ) -> None:
        self._moments = moments
        self._uses = uses or {}
        self._store = store
        #: Labels of models whose keys did not come in rising order.
        self._unordered: set[str] = set()
        self._months: dict[str, Counter[str]] = {label: Counter() for label in moments}
        #: "2026-11" -> records in the database; in the backup: see `months`.
        self.months_here: Counter[str] = Counter()
        self.samples: dict[str, Samples] = {}
        #: Model label -> of how many records only that differs when they were last used.
        self.used: Counter[str] = Counter()

    @property
    def months(self) -> Counter[str]:
        return sum(self._months.values(), Counter())

    # -- while the backup is read ---

    def columns(
        self, table: Table, columns: Sequence[Sequence[Plain]], which: Sequence[bool] | None = None
    ) -> None:
        """Records as their columns. `which`: of each of them whether it counts; by default, all do."""
        if column := self._moments.get(table.label):
            values = columns[table.columns.index(column)]
            counted = values if which is None else compress(values, which)
            self._months[table.label].update(map(_MONTH, filter(None, counted)))

    def keys(self, table: Table, keys: Sequence[Plain], in_order: bool) -> None:
        """The keys of all of a model's records, batch by batch. `in_order`: they are numbers that only rise."""
        if not in_order:
            self._unordered.add(table.label)
        unbroken = in_order and keys[-1] - keys[0] == len(keys) - 1
        self._store.put(_keys_of(table), (keys[0], keys[-1] + 1) if unbroken else list(keys))

    # -- while the plan is counted ---

    def step(self, database: Database, table: Table, added: Sequence[Row], changed: Sequence[Row]) -> None:
        samples = self.samples.setdefault(table.label, Samples())
        samples.added += added[: MOST - len(samples.added)]
        use = self._uses.get(table.label)
        if some := changed if use else changed[: MOST - len(samples.changed)]:
            here = database.rows_by_key(table, [row[0] for row in some])
            pairs = [(here[row[0]], row) for row in some if row[0] in here]
            used: list[tuple[Row, Row]] = []
            changed_too: list[tuple[Row, Row]] = []
            for pair in pairs:
                (used if _differing(table, *pair) == [use] else changed_too).append(pair)
            self.used[table.label] += len(used)
            samples.used += used[: MOST - len(samples.used)]
            samples.changed += changed_too[: MOST - len(samples.changed)]

    def replaced(self, database: Database, table: Table, keys: Sequence[Plain]) -> None:
        """Rows that make way for a record, by their keys."""
        self._removed(database, table, keys[:MOST])

    def missing(self, database: Database, table: Table) -> None:
        """There are rows here that the backup does not hold: the last of them."""
        found: list[Plain] = []
        for keys in self._missing_keys(database, table):
            found += keys[: MOST - len(found)]
            if len(found) == MOST:
                break
        self._removed(database, table, found)

    def _missing_keys(self, database: Database, table: Table) -> Iterator[list[Plain]]:
        """Backwards, so that what was entered last comes first, and mostly in the first batch."""
        batches = self._keys_backwards(table)
        batch = next(batches, None)
        for keys in database.keys_descending(table):
            missing = {*keys}
            if table.label in self._unordered:
                for some in self._keys_backwards(table):
                    missing.difference_update(some)
            else:
                while batch is not None and batch[-1] >= keys[-1]:
                    missing.difference_update(batch)
                    if batch[0] < keys[-1]:
                        break  # the rest of it belongs to the rows that come next
                    batch = next(batches, None)
            yield [key for key in keys if key in missing]

    def _keys_backwards(self, table: Table) -> Iterator[Sequence[Plain]]:
        for keys in self._store.backwards(_keys_of(table)):
            yield range(*keys) if isinstance(keys, tuple) else keys

    def _removed(self, database: Database, table: Table, keys: Sequence[Plain]) -> None:
        rows = database.rows_by_key(table, keys)
        samples = self.samples.setdefault(table.label, Samples())
        samples.removed += [rows[key] for key in keys if key in rows]

    def count_here(self, database: Database, table: Table, *, same: bool) -> None:
        """`same`: the table holds what the backup does, so that its months are known."""
        if column := self._moments.get(table.label):
            self.months_here.update(
                self._months[table.label] if same else database.count_by_month(table, column)
            )


def _differing(table: Table, here: Row, new: Row) -> list[str]:
    """The names of the fields that differ."""
    return [name for name, old, value in zip(("pk", *table.names), here, new, strict=True) if old != value]


def _keys_of(table: Table) -> str:
    return f"{table.label} keys"

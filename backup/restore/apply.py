"""Carries out a plan, in the restore's transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from ..database import Database
from ..options import RecordCounter
from ..tables import Table
from .plan import Plan
from .records import RecordReader
from .replaced import Lost, Replaced
from .values import refuse_to_write, way_on

#: About how many bytes of packed rows are written at once. Each write costs a server as much as a hundred rows.
TOGETHER = 2 * 1024 * 1024
#: A batch packed by `Database.pack`, see `Plan.packed`.
Packed = list[bytes] | None


def write(
    plan: Plan, database: Database, tables: Sequence[Table], reader: RecordReader, counter: RecordCounter
) -> Lost:
    """Carry out a plan. `tables`: all in scope here. `reader`: of the same backup. Returns what was lost where existing
    data is not cleared. Raises `RecordsRefused`."""
    lost = Lost()
    if plan.mode.clears:
        _write_all(plan, database, reader, counter)
    else:
        lost = _write_changes(plan, database, tables, reader, counter)
    refuse_to_write(database.refused, way_on(plan.metadata.is_of_database))
    return lost


def next_keys(plan: Plan, database: Database) -> dict[Table, int]:
    """Return table -> the key that its next row gets after clearing: the same as at the site of the backup. So keys of
    rows that are gone are used again, and a counter that was far too high is corrected.

    To be called when all rows are written, and before any are left out, whose keys must not be given again.
    """
    keys = {}
    for table in [*plan.tables, *plan.emptied] if plan.mode.clears else ():
        if table.high_key is not None:
            left_out = plan.highest_left_out.get(table.label, 0)
            highest = max(int(database.highest_key(table) or 0), left_out)
            key = max(plan.metadata.next_keys.get(table.label) or 1 + highest, 1 + left_out)
            keys[table] = key if plan.options.as_it_was else min(key, table.high_key)
    return keys


def _write_all(plan: Plan, database: Database, reader: RecordReader, counter: RecordCounter) -> None:
    """Replace all rows by those of the backup, except identical ones. Rows were packed before the transaction, so that
    others are locked out as briefly as possible."""
    for table in reversed([*plan.tables, *plan.emptied]):
        between = plan.between(table)
        if between is None:
            database.clear([table])
        for ranges in between or ():
            database.delete_between(table, ranges)
    for table in plan.tables:
        for rows in plan.rows(table) if not plan.is_packed else ():
            database.insert(table, plan.key_map.remap(table, rows))
            counter.add(table.label, len(rows))
        read = partial(reader.batch, table)
        if identical := plan.identical.get(table.label):
            counter.add(table.label, identical.count)
            read = partial(plan.spool.batch, table.label)
        for group in _together(plan.packed(table)):
            database.insert_packed(
                table, [(packed, partial(read, number)) for number, _count, packed in group]
            )
            counter.add(table.label, sum(count for _number, count, _packed in group))


def _together(packed: Iterator[tuple[int, Packed]]) -> Iterator[list[tuple[int, int, Packed]]]:
    """Yield lists of packed batches to be written at once: (number of the batch, number of rows, packed rows)."""
    group: list[tuple[int, int, Packed]] = []
    size = 0
    for number, (count, data) in enumerate(packed):
        if group and size > TOGETHER:
            yield group
            group, size = [], 0
        group.append((number, count, data))
        size += sum(map(len, data or ()))
    if group:
        yield group


def _write_changes(
    plan: Plan, database: Database, tables: Sequence[Table], reader: RecordReader, counter: RecordCounter
) -> Lost:
    """Write the rows that are missing here or differ. Returns what `write` returns."""
    replaced: dict[str, int] = {}
    gone = Replaced(plan, database, tables, reader.quiet())
    for table in plan.tables:
        database.delete(table, plan.displaced.get(table.label, []))
        for batch in plan.batches(database, table):
            gone.add(table, (row[0] for row in batch.replaced))
            gone.add_changed(table, batch.changed)
            database.insert(table, batch.added)
            database.update(table, [*batch.changed, *batch.replaced])
            replaced[table.label] = replaced.get(table.label, 0) + len(batch.replaced)
            counter.add(table.label, batch.records)
    return gone.remove(replaced)

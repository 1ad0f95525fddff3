"""Write what a plan says, inside of the restore's transaction."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ..database import Database, refuse_records
from ..options import RecordCounter
from ..tables import Table
from .plan import Plan
from .records import RecordReader

#: Bytes of packed rows that are written at once, about. Each time costs a server as much as a hundred rows.
TOGETHER = 2 * 1024 * 1024
#: What `Database.pack` made of a batch, see `Plan.packed`.
Packed = list[bytes] | None


def write(plan: Plan, database: Database, reader: RecordReader, counter: RecordCounter) -> dict[str, int]:
    """Carry out a plan. `reader`: of the same backup. Raises `RecordsRefused`.

    Returns model label -> how many rows here were plainly other records, and were replaced.
    """
    replaced: dict[str, int] = {}
    if plan.mode.clears:
        _write_all(plan, database, reader, counter)
    else:
        replaced = _write_changes(plan, database, counter)
    refuse_records(database.refused)
    return replaced


def next_keys(plan: Plan) -> dict[Table, int]:
    """Return the keys that the next rows get after clearing: as where the backup was made, so far as it says; so the
    keys of rows that are gone since are given again, and a counter that was far too high is right again."""
    keys = {}
    for table in [*plan.tables, *plan.emptied] if plan.mode.clears else ():
        if table.highest_usable_key is not None:
            key = plan.metadata.next_keys.get(table.label, 1)
            keys[table] = key if plan.options.as_it_was else min(key, table.highest_usable_key)
    return keys


def _write_all(plan: Plan, database: Database, reader: RecordReader, counter: RecordCounter) -> None:
    """Write every row, in place of all that is there, but for what is there to the letter. Rows were packed before the
    transaction, so that others are locked out as briefly as possible."""
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
    """Yield packed batches, with their numbers, as many together as are written at once."""
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


def _write_changes(plan: Plan, database: Database, counter: RecordCounter) -> dict[str, int]:
    """Write the rows that are not here yet or differ. Returns model label -> how many of them replaced another one."""
    replaced: dict[str, int] = {}
    for table in plan.tables:
        database.delete(table, plan.displaced.get(table.label, []))
        for batch in plan.batches(database, table):
            database.insert(table, batch.added)
            database.update(table, [*batch.changed, *batch.replaced])
            replaced[table.label] = replaced.get(table.label, 0) + len(batch.replaced)
            counter.add(table.label, batch.records)
    return replaced

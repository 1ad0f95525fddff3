"""Prepares the records of a restore that clears existing data for the driver, before others are locked out."""

from __future__ import annotations

from collections.abc import Sequence

from ..database import Database
from ..options import Part
from ..scope import part_of
from ..tables import Batch, Table
from .apart import has_identity
from .batches import Spool
from .compare import TextComparison
from .plan import Identical, between_name, packed_name
from .records import RecordReader


def pack_all(
    reader: RecordReader,
    database: Database,
    into: Database,
    tables: Sequence[Table],
    spool: Spool,
    *,
    as_text: bool,
) -> tuple[dict[str, int], dict[str, Identical]]:
    """Read and check every record, and pack those that are not identical to rows here for the driver.

    Returns model label -> number of records; and, for the tables that were compared (see `_may_stay`), model label ->
    the records that are known to be identical.
    """

    def put(table: Table, batch: Batch) -> None:
        spool.put(packed_name(table), [len(batch[0]), into.try_to_pack(table, batch)])

    def put_differing(table: Table, batch: Batch) -> None:
        spool.put(table.label, batch)  # so that `apply` need not count those that are identical
        put(table, batch)

    comparison = TextComparison(
        reader, database, put_differing, lambda table, ranges: spool.put(between_name(table), ranges)
    )
    # Rows can only stay if deleting others does not affect them. Deleting and writing all of them is always safe.
    as_text = as_text and not into.acts_on_delete()
    records: dict[str, int] = {}
    identical: dict[str, Identical] = {}
    for table in tables:
        if as_text and _may_stay(reader, database, table):
            records[table.label], identical[table.label] = comparison.compare(table)
            continue
        records[table.label] = 0
        for batch in reader.batches(table):
            records[table.label] += len(batch[0])
            if _is_spooled(reader, table):
                spool.put(table.label, batch)
            put(table, batch)
            del batch  # which may be long, and so may the next ones
    return records, identical


def _is_spooled(reader: RecordReader, table: Table) -> bool:
    """Tell whether all records of a table go into the spool since they are needed once more: if they may conflict by
    more than their keys, if they are accounts (see `policy`), or of apps that the backup does not know."""
    return (
        has_identity(table)
        or part_of(table.label) is Part.ACCOUNTS
        or table.app not in reader.archive.metadata.apps
    )


def _may_stay(reader: RecordReader, database: Database, table: Table) -> bool:
    """Tell whether the rows of a table are compared with the records, so that identical ones can stay: if that is
    possible, and if there are enough rows for it to pay.

    It needs numeric keys given by the database, since the rows in between are deleted by ranges of keys.
    """
    return (
        not _is_spooled(reader, table)
        and not table.relations
        and not reader.alters(table)
        and table.is_numbered
        and reader.unique_keys(table).in_order
        and 2 * database.count(table) >= reader.archive.metadata.models[table.label].records
        and not database.is_long(table)
    )

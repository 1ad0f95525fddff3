"""Copies the rows of a database into an archive, column by column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .archive import Writer, lines_of
from .database import Database
from .options import SILENT, RecordCounter, Reporter
from .tables import Table


def write_records(
    writer: Writer, reader: Database, tables: Sequence[Table], reporter: Reporter = SILENT
) -> None:
    """Write all rows of the tables, as `reader` reads them, to the archive."""
    expected = 0 if reporter is SILENT else sum(reader.count(table) for table in tables)
    counter = RecordCounter(reporter, expected)
    for table in tables:
        writer.add(table.label, _lines(reader, table, counter))


def _lines(database: Database, table: Table, counter: RecordCounter) -> Iterator[tuple[int, bytes]]:
    for columns in database.batches(table):
        yield len(columns[0]), lines_of(table.record_template, columns)
        counter.add(table.label, len(columns[0]))

"""Find the records that are here already by comparing text with text: the lines of the file with the rows here,
written as the file would have them.

That is many times as fast as to parse every record, and changes nothing: what is found identical needs no more looking
at, and whatever differs goes the plain way (`RecordReader.columns`, `Plan.batches`). A property test holds the plans
of both ways equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import compress

from ..archive.lines import Lines, lines_of, split_lines
from ..database import Database
from ..kinds import Plain
from ..tables import Batch, Table
from .batches import Spool
from .plan import Identical
from .records import RecordReader


class TextComparison:
    """Compares the records of a backup with the rows of a database, table by table."""

    def __init__(self, reader: RecordReader, database: Database, spool: Spool) -> None:
        self._reader = reader
        self._archive = reader.archive
        self._database = database
        self._spool = spool

    def compare(self, table: Table) -> tuple[int, Identical]:
        """Read a table's records, and put those that are not here to the letter into the spool.

        Returns how many records there are, and which of them are identical. Raises `InvalidBackup`.
        """
        unique = self._reader.unique_keys(table)
        records = identical = 0
        up_to: Plain = None
        differs = False
        for lines, columns in self._pair_with_rows(table):
            text = _text_of(table, columns)
            # Of a backup of this very database, nearly all blocks are the same as a whole.
            if text == lines.text:
                records += len(columns[0])
                identical += len(columns[0])
                self._reader.accept(table, unique, columns[0], rising=True)
                self._reader.collect(table, columns)
                up_to = columns[0][-1]
                continue
            differs = True
            current = self._identical_rows(table, {*lines.each}, columns, text)
            keys = list(map(current.get, lines.each))
            others = [line for line, key in zip(lines.each, keys, strict=True) if key is None]
            parsed = self._archive.parse(table.label, others, table.needs_exact_json, records)
            columns = self._reader.batch_from(table, parsed) if parsed else [()]
            read = iter(columns[0])
            self._reader.accept(table, unique, [next(read) if key is None else key for key in keys])
            if parsed:
                self._reader.collect(table, columns)
                self._spool.put(table.label, columns)
            records += len(keys)
            identical += len(keys) - len(others)
        return records, Identical(identical, None if differs else up_to)

    def _identical_rows(
        self, table: Table, lines: set[bytes], columns: Batch, text: bytes | None
    ) -> dict[bytes, Plain]:
        """Return the lines that are those of rows here -> the rows' keys."""
        current, rest = self._partition(table, lines, columns, text)
        # The canonical form of a value costs time; what differs without it may be the same after all.
        rest = self._database.canonical(table, rest)
        current |= self._partition(table, lines, rest, _text_of(table, rest))[0]
        return current

    def _partition(
        self, table: Table, lines: set[bytes], columns: Batch, text: bytes | None
    ) -> tuple[dict[bytes, Plain], Batch]:
        """Divide rows here, given as their columns and as their text, into those that are among the lines, as line ->
        key, and the others, as columns."""
        if not columns or text is None:
            return {}, columns
        texts = split_lines(text)
        matching = list(map(lines.__contains__, texts))
        self._reader.collect(table, columns, matching)
        current = dict(zip(compress(texts, matching), compress(columns[0], matching), strict=True))
        others = [place for place, is_among in enumerate(matching) if not is_among]
        return current, [[column[place] for place in others] for column in columns] if others else []

    def _pair_with_rows(self, table: Table) -> Iterator[tuple[Lines, Batch]]:
        """Yield each block of a model's lines with the rows here that have its keys, as columns.

        Those are the keys above the last one of the block before, up to the last of this one; there are none where a
        key cannot be read off the text. The database is asked for the next rows while these are compared.
        """
        waiting: tuple[Lines, Callable[[], Batch]] | None = None
        after: int | None = None
        for lines in self._archive.lines(table.label):
            before, waiting = waiting, (lines, list)
            last = _key_of(table, lines.last)
            if last is not None:
                most = (
                    len(lines.text) // len(b"".join(table.record_template)) + 1
                )  # records that fit into the text
                waiting = lines, self._database.prefetch_range(table, after, last, most)
                after = last
            if before:
                yield before[0], before[1]()
        if waiting:
            yield waiting[0], waiting[1]()


def _text_of(table: Table, columns: Batch) -> bytes | None:
    """Return rows here as a file has them; None where there are none, or nobody can read one of them."""
    try:
        return lines_of(table.record_template, columns) if columns else None
    except TypeError:  # a value in the database that JSON cannot express
        return None


def _key_of(table: Table, line: bytes) -> int | None:
    """Return the key at the beginning of a line; None where the line is not as we write it, or the key no number of 64
    bits."""
    head = table.record_template[0]
    key = line[len(head) : line.find(b",", len(head))] if line.startswith(head) else b""
    return int(key) if key.isdigit() and len(key) < 19 else None

"""Find the records that are here already by comparing text with text: the lines of the file with the rows here,
written as the file would have them.

That is many times as fast as to parse every record, and changes nothing: what is found identical needs no more looking
at, and whatever differs goes the plain way (`RecordReader.columns`, `Plan.batches`). A property test holds the plans
of both ways equal.

Where existing data is cleared, what is identical stays, and only what lies between is deleted (`Plan.between`):
to delete rows only to write them again would take several times as long, and nobody could write meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import compress, pairwise
from typing import Any

from ..archive.lines import Lines, lines_of, split_lines
from ..database import Database
from ..tables import Batch, Table
from .plan import Identical, KeyRange
from .records import RecordReader

#: Between these are all keys.
LOWEST, HIGHEST = -(2**63), 2**63 - 1
#: After so many records that all differ, the others are taken to differ as well: to compare costs more than to write.
HOPELESS = 5000


class TextComparison:
    """Compares the records of a backup with the rows of a database, table by table."""

    def __init__(
        self,
        reader: RecordReader,
        database: Database,
        put: Callable[[Table, Batch], None],
        put_between: Callable[[Table, list[KeyRange]], None] | None = None,
    ) -> None:
        """`put`: takes the records that are not here to the letter; `put_between`: takes the ranges of keys in which
        all rows here are others than the backup's."""
        self._reader = reader
        self._archive = reader.archive
        self._database = database
        self._put = put
        self._put_between = put_between or (lambda _table, _ranges: None)

    def compare(self, table: Table) -> tuple[int, Identical]:
        """Read a table's records, and put aside those that are not here to the letter.

        Returns how many records there are, and which of them are identical. Raises `InvalidBackup`.
        """
        unique = self._reader.unique_keys(table)
        records = identical = 0
        up_to: Any = None
        differs = False
        #: The first key that is not known to be identical, or between those that are.
        start = LOWEST

        def is_hopeless() -> bool:
            return identical == 0 and records > HOPELESS

        for lines, columns, last in self._pair_with_rows(table, is_hopeless):
            text = _text_of(table, columns)
            # Of a backup of this very database, nearly all blocks are the same as a whole.
            if text == lines.text:
                records += len(columns[0])
                identical += len(columns[0])
                self._reader.accept(table, unique, columns[0], rising=True)
                self._reader.collect(table, columns)
                up_to = columns[0][-1]
                start = up_to + 1
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
                self._put(table, columns)
            records += len(keys)
            identical += len(keys) - len(others)
            if last is not None:
                between = [start - 1, *sorted(current.values()), last + 1]
                self._put_between(table, [(a + 1, b - 1) for a, b in pairwise(between) if a + 1 < b])
                start = last + 1
        self._put_between(table, [(start, HIGHEST)])
        return records, Identical(identical, None if differs else up_to)

    def _identical_rows(
        self, table: Table, lines: set[bytes], columns: Batch, text: bytes | None
    ) -> dict[bytes, Any]:
        """Return the lines that are those of rows here -> the rows' keys."""
        current, rest = self._partition(table, lines, columns, text)
        # The canonical form of a value costs time; what differs without it may be the same after all.
        rest = self._database.canonical(table, rest)
        current |= self._partition(table, lines, rest, _text_of(table, rest))[0]
        return current

    def _partition(
        self, table: Table, lines: set[bytes], columns: Batch, text: bytes | None
    ) -> tuple[dict[bytes, Any], Batch]:
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

    def _pair_with_rows(
        self, table: Table, is_hopeless: Callable[[], bool]
    ) -> Iterator[tuple[Lines, Batch, int | None]]:
        """Yield each block of a model's lines with the rows here that have its keys, as columns, and its last key.

        Those are the keys above the last one of the block before, up to the last of this one; there are none where a
        key cannot be read off the text (then the last key is None). The database is asked for the next rows while these
        are compared; no more once it is hopeless that any row is the same.
        """
        waiting: tuple[Lines, Callable[[], Batch], int | None] | None = None
        after: int | None = None
        for lines in self._archive.lines(table.label):
            before, waiting = waiting, (lines, list, None)
            last = _key_of(table, lines.last)
            if last is not None:
                most = (
                    len(lines.text) // len(b"".join(table.record_template)) + 1
                )  # records that fit into the text
                rows = list if is_hopeless() else self._database.prefetch_range(table, after, last, most)
                waiting = lines, rows, last
                after = last
            if before:
                yield before[0], before[1](), before[2]
        if waiting:
            yield waiting[0], waiting[1](), waiting[2]


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

"""Finds the records that are here already by comparing text: the lines of the file, and the rows here written in the
same form.

This is many times as fast as parsing every record, and has the same result: identical records need no more work, and
all others go the plain way (`RecordReader.batches`, `Plan.batches`). A property test holds the plans of both ways
equal.

If existing data is cleared, identical rows stay, and only the rows between them are deleted (`Plan.between`): deleting
rows and writing them again would take several times as long, and others could not write meanwhile.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, compress, pairwise
from typing import Any, NamedTuple

from ..archive.lines import BETWEEN, Lines, lines_of, split_lines
from ..database import Database
from ..exceptions import InvalidBackup
from ..tables import Batch, Table
from .plan import Identical, KeyRange
from .records import RecordReader

#: The lowest and the highest key that there can be.
LOWEST, HIGHEST = -(2**63), 2**63 - 1
#: After this many records that all differ, the others are assumed to differ as well: comparing costs more than writing.
HOPELESS = 5000
#: The fewest bytes that must be the same, of a block that differs, for a piece of their own.
PIECE = 4 * 1024
#: About how many bytes of differing records are put aside together.
TOGETHER = 128 * 1024


class TextComparison:
    """Compares the records of a backup with the rows of a database, table by table."""

    def __init__(
        self,
        reader: RecordReader,
        database: Database,
        put: Callable[[Table, Batch], None],
        put_between: Callable[[Table, list[KeyRange]], None] | None = None,
    ) -> None:
        """`put`: is given the records that are not identical; `put_between`: the ranges of keys in which no row here is
        identical to a record."""
        self._reader = reader
        self._archive = reader.archive
        self._database = database
        self._put = put
        self._put_between = put_between or (lambda _table, _ranges: None)

    def compare(self, table: Table) -> tuple[int, Identical]:
        """Read a table's records, and put aside those that are not identical to a row here.

        Returns the number of records, and which of them are identical. Raises `InvalidBackup`.
        """
        unique = self._reader.unique_keys(table)
        records = identical = rows_here = 0
        up_to: int | None = None
        is_complete = True
        #: The first key that is not known to be identical, or between those that are.
        start = LOWEST

        #: Records that differ, and the bytes of their lines. They are collected, since looking them up is a query.
        waiting: list[Batch] = []
        size = 0

        def is_hopeless() -> bool:
            return identical == 0 and records > HOPELESS

        def put() -> None:
            nonlocal size
            if waiting:
                self._put(table, [[*chain(*values)] for values in zip(*waiting, strict=True)])
            waiting.clear()
            size = 0

        for lines, batch, text, last, all_rows in self._pieces(table, is_hopeless):
            rows_here += len(batch[0]) if batch else 0
            up_to = last
            is_complete = is_complete and all_rows
            if lines is None:
                records += len(batch[0])
                identical += len(batch[0])
                self._reader.accept(table, unique, batch[0], rising=True)
                self._reader.collect(table, batch)
                start = batch[0][-1] + 1
                continue
            current, rest = self._identical_rows(table, {*lines}, batch, text)
            keys = list(map(current.get, lines))
            others = [line for line, key in zip(lines, keys, strict=True) if key is None]
            parsed = self._parse(table, others, lines, records)
            batch = self._reader.batch_from(table, parsed) if parsed else []
            read = iter(batch[0] if batch else ())
            self._reader.accept(table, unique, [next(read) if key is None else key for key in keys])
            self._reader.collect_difference(table, batch, rest)
            if batch:
                waiting.append(batch)
                size += sum(map(len, others))
            if size > TOGETHER:
                put()
            records += len(keys)
            identical += len(keys) - len(others)
            if last is not None:
                between = [start - 1, *sorted(current.values()), last + 1]
                self._put_between(table, [(a + 1, b - 1) for a, b in pairwise(between) if a + 1 < b])
                start = last + 1
            # All of them may be long, and so may the next ones.
            del lines, others, parsed, batch, text, current, rest
        put()
        self._put_between(table, [(start, HIGHEST)])
        return records, Identical(identical, up_to if is_complete else None, rows_here)

    def _parse(self, table: Table, others: list[bytes], lines: list[bytes], before: int) -> list[Any]:
        """Parse those of the lines that are not identical to rows here. `before`: as in `Archive.parse`."""
        try:
            return self._archive.parse(table.label, others, table.needs_exact_json, before)
        except InvalidBackup:
            # The message names the record by its number among all of them.
            self._archive.parse(table.label, lines, table.needs_exact_json, before)
            raise

    def _identical_rows(
        self, table: Table, lines: set[bytes], batch: Batch, text: bytes | None
    ) -> tuple[dict[bytes, Any], Batch]:
        """Return line -> key, for the lines that are identical to rows here, and the other rows here."""
        current, rest = self._partition(table, lines, batch, text)
        # Rows that differ may be the same in canonical form, which is only made now, since it takes time.
        rest = self._database.canonical(table, rest)
        more, rest = self._partition(table, lines, rest, _text_of(table, rest))
        return current | more, rest

    def _partition(
        self, table: Table, lines: set[bytes], batch: Batch, text: bytes | None
    ) -> tuple[dict[bytes, Any], Batch]:
        """Split the rows here: return those whose text is one of the lines, as line -> key, and the others, as a batch.

        `batch`, `text`: the rows here, as a batch and as text.
        """
        if not batch or text is None:
            return {}, batch
        texts = split_lines(text)
        matching = list(map(lines.__contains__, texts))
        self._reader.collect(table, batch, matching)
        current = dict(zip(compress(texts, matching), compress(batch[0], matching), strict=True))
        others = [index for index, matches in enumerate(matching) if not matches]
        return current, [[column[index] for index in others] for column in batch] if others else []

    def _pieces(self, table: Table, is_hopeless: Callable[[], bool]) -> Iterator[_Piece]:
        """Yield the blocks of `_pair_with_rows`, in pieces where they differ from the rows.

        In a backup of the database itself, nearly all blocks are identical. If one is not, most of its pieces still
        are, and comparing these is several times as fast as splitting the whole block into lines.
        """
        for lines, batch, last, is_complete in self._pair_with_rows(table, is_hopeless):
            text = _text_of(table, batch)
            if text == lines.text:
                yield _Piece(None, batch, None, last, is_complete)
            elif text is None or lines.is_split or (table.needs_exact_json and not lines.has_one_a_line):
                yield _Piece(lines.each, batch, text, last, is_complete)
            else:
                for a, b, same in _runs(table, lines.text, batch[0], text):
                    yield _Piece(
                        None if same else lines.between(a.line, b.line),
                        [column[a.row : b.row] for column in batch],
                        None if same else text[a.text : b.text].removesuffix(BETWEEN),
                        last if b.key is None else b.key - 1,
                        is_complete,
                    )

    def _pair_with_rows(
        self, table: Table, is_hopeless: Callable[[], bool]
    ) -> Iterator[tuple[Lines, Batch, int | None, bool]]:
        """Yield each block of a model's lines, the rows here in its range of keys, as a batch, its last key, and
        whether these are all rows in that range.

        The range begins after the last key of the block before, and ends with the last key of this one. If that key
        cannot be read from the text, it is None, and there are no rows. The next rows are read from the database while
        these are compared; none are read once `is_hopeless()` is true, or a row is long.
        """
        waiting: tuple[Lines, Callable[[], Batch | None], int | None, int] | None = None
        after: int | None = None
        are_long = False

        def paired(
            lines: Lines, rows: Callable[[], Batch | None], last: int | None, most: int
        ) -> tuple[Lines, Batch, int | None, bool]:
            """Wait for rows here. `most`: with as many, not all may have been read."""
            nonlocal are_long
            batch = rows()
            are_long = are_long or batch is None
            count = len(batch[0]) if batch else 0
            return lines, batch or [], last, batch is not None and count < most

        for lines in self._archive.lines(table.label):
            last = _key_of(table, lines.last)
            if last is not None and after is not None and last <= after:
                # The records are not in order, or the last line is a part of a JSON value that looks like a record.
                last = None
            most = 0
            rows: Callable[[], Batch | None] = list
            if last is not None and not (are_long or is_hopeless()):
                # More than the records that fit into the text are not read: there may be any number.
                most = len(lines.text) // len(b"".join(table.record_template)) + 1
                rows = self._database.prefetch_range(table, after, last, most)
            if waiting:
                yield paired(*waiting)
            waiting = lines, rows, last, most
            after = after if last is None else last
        if waiting:
            yield paired(*waiting)


class _Piece(NamedTuple):
    """Some lines, and the rows here in their range of keys.

    `lines`: None if they are identical to the rows. `batch`, `text`: the rows as a batch and, unless identical, as
    text. `last`: the last key of both; None if it is not known. `is_complete`: whether these are all rows here since
    the piece before.
    """

    lines: list[bytes] | None
    batch: Batch
    text: bytes | None
    last: int | None
    is_complete: bool


class _Cut(NamedTuple):
    """The beginning of a record that is both in the lines and here, or the beginning or end of both texts.

    `line`, `text`: its position in the lines, and in the text of the rows. `row`: how many rows are before it. `key`:
    its key; None at the beginning and at the end.
    """

    line: int
    text: int
    row: int
    key: int | None


def _runs(table: Table, lines: bytes, keys: Sequence[Any], text: bytes) -> Iterator[tuple[_Cut, _Cut, bool]]:
    """Yield start, end, and whether both texts are the same there, for each stretch in which they are, or differ.

    `keys`, `text`: the keys and the text of the rows here. Stretches that are the same have at least `PIECE` bytes.
    """
    begin = BETWEEN + table.record_template[0]
    end = _Cut(len(lines), len(text), len(keys), None)
    cut = _Cut(0, 0, 0, None)
    while cut != end:
        differs = _first_difference(lines, text, cut)
        if differs == end.line and end.line - cut.line == end.text - cut.text:
            yield cut, end, True
            return
        place = lines.rfind(begin, cut.line, differs)
        if place - cut.line >= PIECE:
            line = place + len(BETWEEN)
            there = line + cut.text - cut.line
            # The row's key, since the record's may differ. Counting the rows is always right, but takes longer.
            key = _key_of(table, text[there : there + len(begin) + 20])
            row = (
                cut.row + text.count(BETWEEN, cut.text, there)
                if key is None
                else bisect_left(keys, key, cut.row)
            )
            same = _Cut(line, there, row, keys[row])
            yield cut, same, True
            cut = same
        # Up to the next record that is here, too, and with which enough begins that is the same.
        after = cut
        place = lines.find(begin, differs)
        while place >= 0:
            after = _cut_at(table, lines, keys, text, place, after) or after
            same_bytes = _first_difference(lines, text, after) - after.line
            if after.line > place and same_bytes >= min(PIECE, end.line - after.line):
                break
            place = lines.find(begin, place + PIECE)
        else:
            after = end
        yield cut, after, False
        cut = after


def _cut_at(
    table: Table, lines: bytes, keys: Sequence[Any], text: bytes, place: int, before: _Cut
) -> _Cut | None:
    """Return the cut before the record at `place` in the lines; None if there is no such row here after `before`."""
    begin = BETWEEN + table.record_template[0]
    line = place + len(BETWEEN)
    key = _key_of(table, lines[line : line + len(begin) + 20])
    if key is None:
        return None
    row = bisect_left(keys, key, before.row)
    if row == len(keys) or keys[row] != key:
        return None
    text_place = text.find(begin + b"%d," % key, before.text)
    return _Cut(line, text_place + len(BETWEEN), row, key) if text_place >= 0 else None


def _first_difference(lines: bytes, text: bytes, cut: _Cut) -> int:
    """Return the position in the lines at which the texts first differ after a cut; the end of the lines if none."""
    line, there, size = cut.line, cut.text, PIECE
    while line < len(lines) and lines[line : line + size] == text[there : there + size]:
        line, there = line + size, there + size
    while size > 1:
        size //= 2
        if lines[line : line + size] == text[there : there + size]:
            line, there = line + size, there + size
    return min(line, len(lines))


def _text_of(table: Table, batch: Batch) -> bytes | None:
    """Return rows here as text, in the form of a file; None if there are none, or if one cannot be written as JSON."""
    try:
        return lines_of(table.record_template, batch) if batch else None
    except TypeError:  # a value in the database that JSON cannot express
        return None


def _key_of(table: Table, line: bytes) -> int | None:
    """Return the key at the beginning of a line; None if the line has another layout than ours, or the key is not a
    non-negative number of fewer than 19 digits."""
    head = table.record_template[0]
    key = line[len(head) : line.find(b",", len(head))] if line.startswith(head) else b""
    return int(key) if key.isdigit() and len(key) < 19 else None

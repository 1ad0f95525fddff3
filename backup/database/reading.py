"""Reads rows: all rows of a table in batches, some rows by their keys or values, and counts.

Longer than most modules, since all ways of reading share the way from the driver's rows to a batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from operator import itemgetter
from sys import getsizeof
from typing import Any

from django.utils.translation import gettext as _

from ..kinds import (
    BOOLEAN,
    DATE,
    DATETIME,
    DECIMAL,
    DURATION,
    FLOAT,
    INTEGER,
    TEXT,
    TIME,
    UUID_,
    Plain,
)
from ..options import Places
from ..tables import Batch, Column, Relation, Row, Table, in_order, place_of
from ..threads import give_way
from .conversion import ColumnReader, Conversion
from .session import RawRows
from .values import UNREADABLE, Checked, ConvertAll, escapes, slices

#: The most parameters of a statement that every engine accepts (SQLite's limit was 999 until 2020).
PARAMETERS = 900
#: How much larger than in the database a text can be as JSON: a control character is six. In memory, four times.
MOST_GROWTH = 6
#: The most queries that one UNION ALL joins: SQLite accepts 500.
UNION_TERMS = 400
#: Stands for a value whose row is left out with it.
_GONE = object()


class Reading(Conversion):
    """Reads rows, and changes nothing."""

    #: Rows that are read and converted at a time.
    BATCH = 1000
    #: Bytes of long values (see `is_long`) that are read at a time, or one row.
    BATCH_BYTES = 8 * 1024**2
    #: Characters of a long value that are read before it is known how long it is: see `cut`.
    SHORT = 4000

    #: Collects unreadable values, which are left out. None if rows are only read for comparison: bytes then replace
    #: such a value, since these never equal a value of a backup.
    unreadable: Places | None = None
    #: How many of these are whole rows.
    left_out = 0
    #: Rows of more bytes, as JSON or in memory, count as unreadable; and are not even read, if their bytes in the
    #: database say so. None if any row is read.
    largest: int | None = None

    # -- all rows ---

    def batches(self, table: Table) -> Iterator[Batch]:
        """Yield all rows in the order of their keys, without those that have none: see `_note_rows_without_key`."""
        key = self._sort_key(table)
        has_key = f"{key} IS NOT NULL"
        if self.is_long(table):
            yield from self._long_batches(table, has_key, [])
            return
        readers = self._cut_readers(table)
        place = 0 if readers[0].is_raw else -1
        order = f"ORDER BY {key} LIMIT {self.BATCH + 1}"
        rows = self._prefetch_rows(table, readers, f"WHERE {has_key} {order}", [])()
        while rows:
            next_rows: Callable[[], RawRows] = list
            first = rows[0][place]
            if len(rows) > self.BATCH:
                # The next batch begins at the key of one row more, rather than above that of the last row: in a table
                # that has lost its primary key, a key may be there twice. (If all rows have one key, it goes on above.)
                begin = rows.pop()[place]
                sign = ">=" if begin != first else ">"
                next_rows = self._prefetch_rows(table, readers, f"WHERE {key} {sign} %s {order}", [begin])
            if self._are_cut(table, rows):
                yield from self._long_batches(table, f"{key} BETWEEN %s AND %s", [first, rows[-1][place]])
            elif batch := self.to_batch(table, readers, rows):  # all of them may be unreadable
                yield batch
            rows = next_rows()

    def is_long(self, table: Table) -> bool:
        """Tell whether a batch of rows may take much memory, because of their texts and other long values.

        Such rows are read by their lengths, which takes longer. If long values can be cut, this is only noticed when
        rows are read.
        """
        if table.db_table in self.missing or self._cut_places(table):
            return False
        if table not in self._longest:
            self._longest[table] = 0
            if size := self._size_of(table):
                self._longest[table] = int(
                    self.fetch(f"SELECT MAX({size}) FROM {self.quote(table.db_table)}")[0][0] or 0
                )
        return self._longest[table] * self.BATCH > self.BATCH_BYTES

    def portions(self, table: Table, keys: Sequence[Plain]) -> Iterator[Sequence[Plain]]:
        """Divide keys into portions whose rows take little memory. Keys without a row are included."""
        if table.db_table in self.missing or not (self._cut_places(table) or self.is_long(table)):
            yield keys
            return
        reader, key = self.reader_of(table.key), self.quote(table.key.column)
        select = (
            f"SELECT {reader.sql}, {self._size_of(table)} FROM {self.quote(table.db_table)} WHERE {key} IN"
        )
        sizes: dict[Plain, int] = {}
        for params in slices(self.writer_of(table.key)(self._askable(table.key, keys)), PARAMETERS):
            if rows := self.fetch(f"{select} ({', '.join(['%s'] * len(params))})", params):
                raw, lengths = zip(*rows, strict=True)
                sizes.update(zip(reader.to_plain(raw) if reader.to_plain else raw, lengths, strict=True))
        start = 0
        for count in self._counts([sizes.get(key, 0) for key in keys]):
            yield keys[start : start + count]
            start += count

    def _long_batches(self, table: Table, where: str, params: Sequence[Any]) -> Iterator[Batch]:
        """Yield rows like `batches`, after asking how long they are. `where`: the SQL condition."""
        readers, key = self.readers(table), self._sort_key(table)
        sizes = f"SELECT {key}, {self._size_of(table)} FROM {self.quote(table.db_table)} WHERE {where}"
        end = f"ORDER BY {key} LIMIT {self.BATCH}"
        rows = self.fetch(f"{sizes} {end}", params)
        while rows:
            start = 0
            for count in self._counts([size for _key, size in rows]):
                (first, size), (last, _size) = rows[start], rows[start + count - 1]
                start += count
                between = f"WHERE {key} BETWEEN %s AND %s ORDER BY {key}"
                read: RawRows = []
                is_too_large = (
                    self.largest is not None and size > self.largest
                )  # then it is a portion of its own
                if not is_too_large:
                    read = self._prefetch_rows(table, readers, between, [first, last])()
                    is_too_large = self._grows_too_large(read, size)
                if is_too_large:
                    reason = _("the whole record, which takes more than %(limit)s MB")
                    self._note(table, first, None, reason % {"limit": (self.largest or 0) // 1024**2})
                elif batch := self.to_batch(table, readers, read):
                    yield batch
            rows = self.fetch(f"{sizes} AND {key} > %s {end}", [*params, rows[-1][0]])

    def _grows_too_large(self, rows: RawRows, size: int) -> bool:
        """Tell whether a row, the only one, is larger than `largest` as JSON or in memory. `size`: its bytes in the
        database."""
        if self.largest is None or MOST_GROWTH * size <= self.largest:
            return False
        texts = [value for row in rows for value in row if isinstance(value, str)]
        return sum(map(getsizeof, texts)) > self.largest or size + sum(map(escapes, texts)) > self.largest

    def _cut_places(self, table: Table) -> list[int]:
        """Return the positions of a table's columns whose values are cut; [] if not all long ones can be."""
        if table not in self._cut:
            long = [place for place, column in enumerate(table.columns) if _is_long_in_row(column)]
            can_be_cut = 0 not in long and all(self.cut(table.columns[place]) for place in long)
            self._cut[table] = long if can_be_cut else []
        return self._cut[table]

    def _cut_readers(self, table: Table) -> list[ColumnReader]:
        """Return the readers of a table's columns, with long values cut if possible: see `_are_cut`."""
        readers = [*self.readers(table)]
        for place in self._cut_places(table):
            readers[place] = readers[place]._replace(sql=self.cut(table.columns[place]))
        return readers

    def _are_cut(self, table: Table, rows: RawRows) -> bool:
        """Tell whether a value in rows of `_cut_readers` may be cut."""
        return any(
            max(map(len, filter(None, map(itemgetter(place), rows))), default=0) >= self.SHORT
            for place in self._cut_places(table)
        )

    def _counts(self, sizes: Sequence[int]) -> Iterator[int]:
        """Divide rows of these sizes into portions of at most `BATCH_BYTES`, or one row; yield the number of rows."""
        count = total = 0
        for size in sizes:
            if count and total + size > self.BATCH_BYTES:
                yield count
                count = total = 0
            count, total = count + 1, total + size
        if count:
            yield count

    def _size_of(self, table: Table) -> str:
        """Return SQL for the bytes of a row's long values; "" if no column can have long values."""
        return " + ".join(
            f"COALESCE({self.length_of(self.quote(column.column))}, 0)"
            for column in table.columns
            if _is_long_in_row(column)
        )

    def keys_descending(self, table: Table) -> Iterator[list[Plain]]:
        """Yield all keys in batches, the highest first."""
        if table.db_table in self.missing:
            return
        key = self._sort_key(table)
        reader = self.reader_of(table.key)
        select = f"SELECT {reader.sql}, {key} FROM {self.quote(table.db_table)}"
        order = f"ORDER BY {key} DESC LIMIT {self.BATCH}"
        where = ""
        params: list[Any] = []
        while True:
            rows = self.fetch(f"{select} {where} {order}", params)
            keys = [row[0] for row in rows]
            if keys:
                yield [*(reader.to_plain(keys) if reader.to_plain else keys)]
            if len(keys) < self.BATCH:
                return
            where, params = f"WHERE {key} < %s", [rows[-1][1]]

    # -- some rows ---

    def prefetch_range(
        self, table: Table, after: int | None, last: int, limit: int
    ) -> Callable[[], Batch | None]:
        """Start to read the rows with keys above `after` (None: any) up to `last`, but no more than `limit` rows.

        Returns a function that waits for them; it returns None if they are long. They are meant for comparison, so
        their values are not checked yet: see `canonical`.
        """
        key = self._sort_key(table)
        readers = self._cut_readers(table)
        above, params = ("", [last]) if after is None else (f"{key} > %s AND ", [after, last])
        where = f"WHERE {above}{key} <= %s ORDER BY {key} LIMIT {limit}"
        rows = self._prefetch_rows(table, readers, where, params)

        def batch() -> Batch | None:
            rows_read = rows()
            if self._are_cut(table, rows_read):
                return None
            return self.to_batch(table, readers, rows_read, check=False)

        return batch

    def canonical(self, table: Table, batch: Batch) -> Batch:
        """Check the rows of `prefetch_range`, and convert their values to canonical form, in place.

        For values that cannot be read, see `unreadable`.
        """
        for place, column in enumerate(table.columns if batch else ()):
            to_plain = self.reader_of(column).to_plain
            if isinstance(to_plain, Checked):
                batch[place] = self._converted(table, batch, place, to_plain.check, set())
        return batch

    def rows_by_key(self, table: Table, keys: Sequence[Plain]) -> dict[Plain, Row]:
        """Return key -> row, for those of the keys that exist."""
        key = self._sort_key(table)
        readers = self.readers(table)
        by_key: dict[Plain, Row] = {}
        for params in slices(self.writer_of(table.key)(self._askable(table.key, keys)), PARAMETERS):
            marks = ", ".join(["%s"] * len(params))
            rows = self._prefetch_rows(table, readers, f"WHERE {key} IN ({marks}) ORDER BY {key}", params)
            if batch := self.to_batch(table, readers, rows()):
                by_key.update(zip(batch[0], zip(*batch, strict=True), strict=True))
        return by_key

    def matches(self, table: Table, places: Sequence[int], rows: Sequence[Row]) -> list[list[Plain]]:
        """Return for each row the keys of the rows here that have the same values in the columns at `places`.

        The database compares, so its collation applies. NULL never equals anything.
        """
        columns = [table.columns[place] for place in places]
        writers = [self.writer_of(column) for column in columns]
        key_sql, to_plain = self.reader_of(table.key)
        condition = " AND ".join(f"{self.quote(column.column)} = %s" for column in columns)
        select = f"SELECT %s, {key_sql} FROM {self.quote(table.db_table)} WHERE {condition}"
        keys: list[list[Plain]] = [[] for _row in rows]
        wanted = [
            (number, [write([row[place]])[0] for place, write in zip(places, writers, strict=True)])
            for number, row in enumerate(rows)
            if all(row[place] is not None for place in places)
            and all(self._askable(table.columns[place], [row[place]]) for place in places)
        ]
        for chunk in slices(wanted, min(PARAMETERS // (len(places) + 1), UNION_TERMS)):
            params = [value for number, values in chunk for value in (number, *values)]
            for number, key in self.fetch(" UNION ALL ".join([select] * len(chunk)), params):
                keys[int(number)].append(to_plain([key])[0] if to_plain else key)
        return keys

    def keys_with(
        self,
        db_table: str,
        key: Column,
        column: Column,
        values: Collection[Plain],
        also: tuple[Column, Plain] | None = None,
    ) -> list[Plain]:
        """Return the keys of the rows of a table, or the owners of a relation, that hold one of the values in a column.
        `also`: another column, and the value that it must hold."""
        reader, name = self.reader_of(key), self.quote(column.column)
        where, given = "", []
        if also is not None:
            other, value = also
            if not self._askable(other, [value]):
                return []
            where, given = f"{self.quote(other.column)} = %s AND ", [*self.writer_of(other)([value])]
        found: list[Plain] = []
        for params in slices(self.writer_of(column)(self._askable(column, [*values])), PARAMETERS):
            sql = f"SELECT {reader.sql} FROM {self.quote(db_table)} WHERE {where}{name} IN"
            rows = self.fetch(f"{sql} ({', '.join(['%s'] * len(params))})", [*given, *params])
            keys = [row[0] for row in rows]
            found += reader.to_plain(keys) if reader.to_plain else keys
        return found

    def numbers_in(self, db_table: str, column: Column, also: tuple[Column, Plain]) -> set[int]:
        """Return the whole numbers that a column holds, as numbers or as texts, in rows of a table that hold a value in
        another column. `also`: the other column, and the value."""
        other, value = also
        if not self._askable(other, [value]):
            return set()
        sql = f"SELECT DISTINCT {self.quote(column.column)} FROM {self.quote(db_table)}"
        rows = self.fetch(f"{sql} WHERE {self.quote(other.column)} = %s", [*self.writer_of(other)([value])])
        texts = (str(number) for (number,) in rows if isinstance(number, (int, str)))
        return {int(text) for text in texts if text.isascii() and text.isdecimal()}

    def _askable(self, column: Column, values: Sequence[Plain]) -> Sequence[Plain]:
        """Return those of the values that the database can be asked for. No row can have the others."""
        if column.is_natural:
            return [value for value in values if self.natural_keys.has(column.natural_model, value)]
        if column.kind not in self.BOUNDED:
            return values
        return [value for value in values if value is None or self.can_hold(column, value)]

    def texts(self, table: Table, column: Column) -> list[tuple[Any, str]]:
        """Return (key as the driver returns it, text) of each row whose text in a column is not empty."""
        key, name = self.quote(table.key.column), self.quote(column.column)
        return self.fetch(
            f"SELECT {key}, {name} FROM {self.quote(table.db_table)} WHERE {name} <> '' ORDER BY {key}"
        )

    # -- counts ---

    def count(self, table: Table, after: Plain = None) -> int:
        """Return the number of rows with keys above `after` (None: any)."""
        if table.db_table in self.missing:
            return 0
        sql = f"SELECT COUNT(*) FROM {self.quote(table.db_table)}"
        if after is None:
            return int(self.fetch(sql)[0][0])
        return int(self.fetch(f"{sql} WHERE {self.quote(table.key.column)} > %s", [after])[0][0])

    def highest_key(self, table: Table) -> Plain:
        """Return the highest key as the driver returns it; None if there are no rows."""
        sql = f"SELECT MAX({self.quote(table.key.column)}) FROM {self.quote(table.db_table)}"
        return self.fetch(sql)[0][0]

    def count_by_month(self, table: Table, column: Column, after: Plain = None) -> dict[str, int]:
        """Return the number of rows of each month ("2026-11") by a column of dates or of moments (in UTC). `after`: as
        in `count`."""
        month = self.month_of(self.quote(column.column))
        sql = f"SELECT {month}, COUNT(*) FROM {self.quote(table.db_table)}"
        if after is not None:
            sql = f"{sql} WHERE {self.quote(table.key.column)} > %s"
        return {
            f"{month // 100:04d}-{month % 100:02d}" if isinstance(month, int) else month: int(count)
            for month, count in self.fetch(f"{sql} GROUP BY {month}", [] if after is None else [after])
            if month is not None
        }

    # -- from the driver's rows to a batch ---

    def _sort_key(self, table: Table) -> str:
        """Return SQL for a table's key by which rows are sorted, with the table's name.

        Without it, PostgreSQL sorts by the column of the result that has this name, which may be a text, or refuses to
        if there are two.
        """
        return f"{self.quote(table.db_table)}.{self.quote(table.key.column)}"

    def _prefetch_rows(
        self, table: Table, readers: Sequence[ColumnReader], where: str, params: Sequence[Any]
    ) -> Callable[[], RawRows]:
        """Start to read rows, and return a function that waits for them. `where`: the SQL condition.

        If the key is selected in a converted form, the driver's own value of it is added at the end of each row.
        """
        if table.db_table in self.missing:
            return list
        names = [reader.sql for reader in readers]
        if not readers[0].is_raw:
            names.append(self.quote(table.key.column))
        return self.prefetch(f"SELECT {', '.join(names)} FROM {self.quote(table.db_table)} {where}", params)

    def to_batch(
        self, table: Table, readers: Sequence[ColumnReader], rows: RawRows, *, check: bool = True
    ) -> Batch:
        """Convert rows of `_prefetch_rows` to a plain batch, and add their relations; [] if there are no rows.

        `check`: whether to check that each value is of its column's kind. For values that cannot be read, see
        `unreadable`.
        """
        if not rows:
            return []
        batch: Batch = list(zip(*rows, strict=True))
        raw_keys = batch[0] if readers[0].is_raw else batch.pop()
        gone: set[int] = set()
        for place, (_sql, to_plain) in enumerate(readers):
            if not check and isinstance(to_plain, Checked):
                to_plain = to_plain.convert
            if to_plain is not None:
                batch[place] = self._converted(table, batch, place, to_plain, gone)
        if gone:
            batch = [[value for row, value in enumerate(column) if row not in gone] for column in batch]
        for relation in table.relations:
            batch.append(self._related(table, relation, batch[0], raw_keys[0], raw_keys[-1]))
        if self.IS_SERVER:
            # Its driver needs the interpreter lock. Give it to the prefetching thread now, not only after the five
            # milliseconds that Python makes it wait: a backup takes a tenth to a fifth less time.
            give_way()
        return batch if batch[0] else []

    def _related(
        self, table: Table, relation: Relation, keys: Sequence[Plain], first: Any, last: Any
    ) -> list[Plain]:
        """Return for each of the keys the sorted keys that it is related to.

        `first`, `last`: the lowest and the highest of the keys, as values of the driver. Each column of the relation
        has a reader of its own, since keys may be of any kind.
        """
        if relation.db_table in self.missing:
            return [[] for _key in keys]
        owner, target = self.reader_of(relation.owner), self.reader_of(relation.target)
        name = self.quote(relation.owner.column)
        rows = self._rows_between(f"{owner.sql}, {target.sql}", relation.db_table, name, first, last)
        if not rows:
            return [[] for _key in keys]
        lists: dict[Plain, list[Plain]] = {}
        for key, value in self._pairs(table, relation, owner, target, rows):
            lists.setdefault(key, []).append(value)
        return [in_order(lists.get(key, ())) for key in keys]

    def _rows_between(self, columns: str, db_table: str, name: str, first: Any, last: Any) -> RawRows:
        sql = f"SELECT {columns} FROM {self.quote(db_table)} WHERE {name} BETWEEN %s AND %s"
        return self.fetch(sql, [first, last])

    def _pairs(
        self, table: Table, relation: Relation, owner: ColumnReader, target: ColumnReader, rows: RawRows
    ) -> list[tuple[Plain, Plain]]:
        """Convert the rows of a relation to plain keys. Unreadable ones are noted."""
        try:
            owners, targets = (
                reader.to_plain(values) if reader.to_plain else values
                for reader, values in zip((owner, target), zip(*rows, strict=True), strict=True)
            )
            return list(zip(owners, targets, strict=True))
        except UNREADABLE:
            if len(rows) > 1:
                return [pair for row in rows for pair in self._pairs(table, relation, owner, target, [row])]
            self._note(table, rows[0][0], relation.name, _shown(relation.target, rows[0][1]))
            return []

    def _converted(
        self, table: Table, batch: Batch, place: int, convert: ConvertAll, gone: set[int]
    ) -> Sequence[Plain]:
        """Convert the column at `place`. For values that cannot be read, see `_instead`."""
        try:
            return convert(batch[place])
        except UNREADABLE:
            plain: list[Plain] = []
            for row, value in enumerate(batch[place]):
                try:
                    plain += [None] if row in gone else convert([value])
                except UNREADABLE:
                    plain.append(self._instead(table, batch[0][row], place, value))
                    if plain[-1] is _GONE:
                        gone.add(row)
            return plain

    def _instead(self, table: Table, key: Plain, place: int, value: Any) -> Plain:
        """Return the replacement for a value that cannot be read: None if the column may be empty; the readable part of
        a text; otherwise `_GONE`, so that the whole row is left out."""
        column = table.columns[place]
        value = bytes(value) if isinstance(value, memoryview) else value  # psycopg 2 returns it
        shown = _shown(column, value)
        if place and self.unreadable is None:
            return shown.encode(errors="replace")
        if place and column.kind is TEXT and isinstance(value, bytes):
            self._note(table, key, column.name, shown)
            return value.decode(errors="replace")
        if place and column.field.null:
            self._note(table, key, column.name, shown)
            return None
        self._note(table, key, None, _whole(column, shown))
        return _GONE

    def _note_rows_without_key(self, table: Table) -> None:
        """Note the rows whose key is NULL, which a table may have that other software made without a primary key. No
        order and no comparison finds them."""
        key = self._sort_key(table)
        rows = self.fetch(f"SELECT COUNT(*) FROM {self.quote(table.db_table)} WHERE {key} IS NULL")
        for _row in range(rows[0][0]):
            self._note(table, "NULL", None, _whole(table.key, "NULL"))

    def _note(self, table: Table, key: Plain, field: str | None, reason: str) -> None:
        if self.unreadable is not None:
            self.unreadable.add(place_of(table.label, key, field, reason))
            self.left_out += field is None

    # -- hooks: see `base` ---

    def length_of(self, name: str) -> str:
        """Return SQL for the bytes of a quoted column."""
        return f"OCTET_LENGTH({name})"

    def cut(self, column: Column) -> str:
        """Return SQL for the first `SHORT` characters of a column's value. By default "": how long values are has to be
        asked first."""
        return ""

    def in_utc(self, name: str) -> str:
        """Return SQL for a moment, by SQL that names it, whatever time zone the session has."""
        return name

    @abstractmethod
    def month_of(self, name: str) -> str: ...

    @abstractmethod
    def size(self) -> int | None: ...


def _whole(column: Column, value: str) -> str:
    """Return the reason for leaving out a whole record, as a phrase."""
    return _("the whole record, whose %(field)s is %(value)s") % {"field": column.name, "value": value}


def _shown(column: Column, value: Any) -> str:
    return str(column.shown(repr(value)[:80]))


#: Kinds whose values have one size, or nearly so.
_SHORT = (INTEGER, FLOAT, BOOLEAN, DATE, TIME, DATETIME, DURATION, DECIMAL, UUID_)


def _is_long_in_row(column: Column) -> bool:
    return not column.refers_to and may_be_long(column)


def may_be_long(column: Column) -> bool:
    """Tell whether values of a column may have any length. (SQLite does not enforce the limits of other columns, nor
    does all software that fills them.)"""
    return column.kind not in _SHORT and not (column.kind is TEXT and column.field.max_length)

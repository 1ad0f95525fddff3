"""Writes rows: many at once; and if that fails, looks for the record that is to blame."""

from __future__ import annotations

import io
import pickle
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import chain
from typing import Any, ClassVar

from django.db import DatabaseError, OperationalError, transaction
from django.db.models import Field
from django.utils.translation import gettext as _

from ..kinds import INTEGER, TEXT, Plain
from ..tables import MAX_NAMED, Batch, Column, Relation, Row, Table, cannot_store, describe
from .conversion import Conversion
from .errors import reason_of
from .reading import PARAMETERS
from .values import slices

#: Rows packed by `Writing.pack` (None: they cannot be packed), and a function that returns the rows themselves, which
#: is called if they could not be packed, or to find the row that the database refuses.
PackedBatch = tuple[Sequence[bytes] | None, Callable[[], Batch]]
#: The most ranges in one statement: SQLite accepts a thousand conditions.
RANGES = 200
#: The most values in one INSERT on the plain path. (SQLite accepts fewer, and has a path of its own.)
VALUES = 16_000


class Writing(Conversion):
    """Writes rows, inside `restoring`. Records that the database refuses are collected in `refused`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        #: Table -> column -> how many characters fit into it, as the server says it.
        self._sizes: dict[str, dict[str, int]] = {}

    # -- rows ---

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Insert rows with their keys and relations."""
        self._write(table, rows, self._insert)

    def insert_batch(self, table: Table, batch: Batch) -> None:
        """Insert rows that are held by column, like `insert`."""
        self.insert_packed(table, [(self.try_to_pack(table, batch), lambda: batch)])

    def update(self, table: Table, rows: Sequence[Row]) -> None:
        """Overwrite the rows that have the same keys, including their relations."""
        self._write(table, rows, self._update)

    def pack(self, table: Table, batch: Batch) -> list[bytes]:
        """Convert rows to the form that `insert_packed` needs, so that the transaction has less to do.

        Returns bytes for each of `Table.db_tables`, for this process and connection only. Raises `LookupError` if a
        natural key would have to be created first, `ValueError` or `OverflowError` if the driver refuses a value.
        """
        values = [self.writer_of(column)(plain) for column, plain in zip(table.columns, batch, strict=False)]
        packed = [self.pack_rows(table.columns, values)]
        for relation, lists in zip(table.relations, batch[len(table.columns) :], strict=True):
            pairs = [
                (key, target) for key, targets in zip(batch[0], lists, strict=True) for target in targets
            ]
            owners = self.writer_of(relation.owner)([pair[0] for pair in pairs])
            targets = self.writer_of(relation.target)([pair[1] for pair in pairs])
            packed.append(self.pack_rows((relation.owner, relation.target), [owners, targets]))
        return packed

    def try_to_pack(self, table: Table, batch: Batch) -> list[bytes] | None:
        """Return what `pack` returns; None if it raises an error, so that `insert` finds the row that is the reason."""
        try:
            return self.pack(table, batch)
        except (LookupError, ValueError, OverflowError):
            return None

    def insert_packed(self, table: Table, batches: Sequence[PackedBatch]) -> None:
        """Insert some batches: all at once, or, if that fails, one by one."""
        packs = [packed for packed, _rows in batches if packed is not None]
        if len(packs) == len(batches) and len(self.refused) < MAX_NAMED:
            try:
                with transaction.atomic(self.connection.alias):
                    self._insert_all(table, packs)
                return
            except (DatabaseError, ValueError, OverflowError) as error:
                self._raise_unless_about_a_record(error)
        if len(batches) > 1:
            for batch in batches:
                self.insert_packed(table, [batch])
        else:
            for _packed, rows in batches:
                self.insert(table, list(zip(*rows(), strict=True)))

    def delete(self, table: Table, keys: Sequence[Plain]) -> None:
        """Delete the rows with these keys, including their relations, but not rows that refer to them."""
        for relation in table.relations:
            self._delete_where(relation.db_table, relation.owner, keys)
        self._delete_where(table.db_table, table.key, keys)

    def delete_between(self, table: Table, ranges: Sequence[tuple[int, int]]) -> None:
        """Delete the rows whose keys, which are numbers, are in one of these ranges. Both ends are included."""
        name, key = self.quote(table.db_table), self.quote(table.key.column)
        for part in slices(ranges, RANGES):
            where = " OR ".join([f"{key} BETWEEN %s AND %s"] * len(part))
            self.execute(f"DELETE FROM {name} WHERE {where}", [*chain.from_iterable(part)])

    def empty(self, table: Table, column: Column, key: Any) -> None:
        """Set a text to "". `key`: of the row, as the driver returns it."""
        value = "NULL" if column.field.null else "''"
        sql = f"UPDATE {self.quote(table.db_table)} SET {self.quote(column.column)} = {value}"
        self.execute(f"{sql} WHERE {self.quote(table.key.column)} = %s", [key])

    def unlink(self, table: Table, column: Column, keys: Sequence[Plain]) -> None:
        """Empty a reference in the rows with these keys."""
        sql = f"UPDATE {self.quote(table.db_table)} SET {self.quote(column.column)} = NULL"
        for values in slices(self.writer_of(table.key)(keys), PARAMETERS):
            marks = ", ".join(["%s"] * len(values))
            self.execute(f"{sql} WHERE {self.quote(table.key.column)} IN ({marks})", values)

    def relink(self, table: Table, column: Column, values: Mapping[Plain, Plain]) -> None:
        """Set a reference in some rows. `values`: key of the row -> value."""
        sql = f"UPDATE {self.quote(table.db_table)} SET {self.quote(column.column)} = %s"
        given = self.writer_of(column)([*values.values()])
        for value, key in zip(given, self.writer_of(table.key)([*values]), strict=True):
            self.execute(f"{sql} WHERE {self.quote(table.key.column)} = %s", [value, key])

    def unlink_pairs(self, relation: Relation, owners: Sequence[Plain], targets: Sequence[Plain]) -> None:
        """Delete what relates these owners to these targets."""
        owner, target = self.quote(relation.owner.column), self.quote(relation.target.column)
        for some in slices(self.writer_of(relation.owner)(owners), PARAMETERS // 2):
            for others in slices(self.writer_of(relation.target)(targets), PARAMETERS // 2):
                marks, other_marks = (", ".join(["%s"] * len(values)) for values in (some, others))
                where = f"{owner} IN ({marks}) AND {target} IN ({other_marks})"
                self.execute(f"DELETE FROM {self.quote(relation.db_table)} WHERE {where}", [*some, *others])

    def clear(self, tables: Sequence[Table]) -> None:
        """Delete all rows of these tables and of their relations. Never uses TRUNCATE, which commits on MySQL."""
        for table in reversed(tables):
            for db_table, _columns in reversed(table.db_tables):
                self.execute(f"DELETE FROM {self.quote(db_table)}")

    # -- which record is to blame ---

    def _write(
        self, table: Table, rows: Sequence[Row], write: Callable[[Table, Sequence[Row]], None]
    ) -> None:
        """Write the rows. If that fails, halve them again and again to find the record that is to blame."""
        if not rows or len(self.refused) >= MAX_NAMED:
            return
        try:
            with transaction.atomic(self.connection.alias):
                write(table, rows)
        except (DatabaseError, ValueError, OverflowError) as error:
            self._raise_unless_about_a_record(error)
            if len(rows) > 1:
                middle = len(rows) // 2
                self._write(table, rows[:middle], write)
                self._write(table, rows[middle:], write)
            else:
                field, reason = self._explain(table, rows[0], error)
                self.cannot_hold += bool(self.values_it_cannot_hold(table, rows[0]))
                self.refused.append(describe(table.label, rows[0][0], field, reason))

    def _raise_unless_about_a_record(self, error: Exception) -> None:
        """Raise an error again if it is not about a record (a lost connection, a full disk)."""
        if not self.is_about_a_record(error):
            raise error

    def _explain(self, table: Table, row: Row, error: Exception) -> tuple[str | None, str]:
        """Return the field that the database most likely refused (None if that is unknown), and the reason."""
        for column, value in zip(table.columns, row, strict=False):
            if reason := self.why_refused(table, column, value):
                return column.name, reason
        reason = reason_of(error)  # which may quote values of the row
        for column, value in zip(table.columns, row, strict=False):
            reason = column.without_secret(reason, value)
        return None, reason

    def values_it_cannot_hold(self, table: Table, row: Row) -> dict[int, str]:
        """Return the places in a row whose value does not come back from this database, and why, as a phrase."""
        return {
            place: cannot_store(column, value)
            for place, (column, value) in enumerate(zip(table.columns, row, strict=False))
            if column.kind in self.BOUNDED and value is not None and not self.can_hold(column, value)
        }

    def why_refused(self, table: Table, column: Column, value: Plain) -> str | None:
        """Return why the database refuses a value, as a phrase; None if it is not known to do so."""
        field = column.field
        if isinstance(value, str) and "\0" in value and TEXT in self.BOUNDED:
            return _("it holds the character NUL, which this database does not take")
        if (
            column.kind is TEXT
            and isinstance(value, str)
            and field.max_length
            and len(value) > field.max_length
            and (most := self.most_characters(table, column)) is not None
            and len(value) > most
        ):
            return _("it has %(length)s characters; at most %(most)s fit") % {
                "length": len(value),
                "most": most,
            }
        if column.kind is TEXT and isinstance(value, str) and (reason := self.why_too_long(value)):
            return reason
        if column.kind is INTEGER and type(value) is int and not column.is_natural:
            low, high = self.connection.ops.integer_field_range(_integer_type(field))
            if (low is not None and value < low) or (high is not None and value > high):
                return _("%(value)s is out of range") % {"value": column.shown(value)}
        if value is not None and not self.can_hold(column, value):
            return cannot_store(column, value)
        return None

    @property
    def fits_surely(self) -> int:
        """The characters of a text that a statement can have, whatever they are."""
        return sys.maxsize

    def why_too_long(self, text: str) -> str | None:
        """Return why a statement cannot hold all the text of a row, as a phrase; None if it can."""
        return None

    def most_characters(self, table: Table, column: Column) -> int | None:
        """Return how many characters fit into a column, which somebody may have altered; None if any number does."""
        if not self.IS_SERVER:
            return None
        if (sizes := self._sizes.get(table.db_table)) is None:
            with self.errors_explained(), closing(self.connection.cursor()) as cursor:
                described = self.connection.introspection.get_table_description(cursor, table.db_table)
            sizes = self._sizes[table.db_table] = {info.name: info.display_size or 0 for info in described}
        size = sizes.get(column.column, 0)
        return size if size > 0 else None

    # -- statements ---

    def _insert(self, table: Table, rows: Sequence[Row]) -> None:
        self._insert_all(table, [self.pack(table, list(zip(*rows, strict=True)))])

    def _insert_all(self, table: Table, packs: Sequence[Sequence[bytes]]) -> None:
        for (db_table, columns), data in zip(table.db_tables, zip(*packs, strict=True), strict=True):
            self.insert_all_packed_rows(db_table, columns, data)

    def _update(self, table: Table, rows: Sequence[Row]) -> None:
        batch: Batch = list(zip(*rows, strict=True))
        if table.nonkey_columns:
            values = [
                self.writer_of(column)(plain) for column, plain in zip(table.columns, batch, strict=False)
            ]
            self.update_rows(table, values)
        for relation in table.relations:
            self._delete_where(relation.db_table, relation.owner, batch[0])
        _own, *related = zip(table.db_tables, self.pack(table, batch), strict=True)
        for (db_table, columns), data in related:
            self.insert_packed_rows(db_table, columns, data)

    def insert_rows(
        self, db_table: str, columns: Sequence[Column], rows: Sequence[Sequence[Any]], end: str = ""
    ) -> None:
        """Insert rows of values for the driver. `end`: the SQL after the values."""
        names = ", ".join(self.quote(column.column) for column in columns)
        marks = f"({', '.join(['%s'] * len(columns))})"
        for chunk in slices(rows, max(1, VALUES // len(columns))):
            values = ", ".join([marks] * len(chunk))
            sql = f"INSERT INTO {self.quote(db_table)} ({names}) {self.OVERRIDING} VALUES {values} {end}"
            self.execute(sql, [value for row in chunk for value in row])

    def _delete_where(self, db_table: str, column: Column, plain: Sequence[Plain]) -> None:
        for values in slices(self.writer_of(column)(plain), PARAMETERS):
            marks = ", ".join(["%s"] * len(values))
            self.execute(
                f"DELETE FROM {self.quote(db_table)} WHERE {self.quote(column.column)} IN ({marks})", values
            )

    # -- hooks: see `base` ---

    #: SQL before the VALUES of an insert, if the engine needs it to take keys that it gives by itself.
    OVERRIDING: ClassVar[str] = ""

    def pack_rows(self, columns: Sequence[Column], values: Sequence[Sequence[Any]]) -> bytes:
        """Pack rows for `insert_packed_rows`. `values`: columns of values for the driver."""
        return pickled(list(zip(*values, strict=True)))

    def insert_all_packed_rows(self, db_table: str, columns: Sequence[Column], data: Sequence[bytes]) -> None:
        """Insert several batches of packed rows."""
        for part in data:
            self.insert_packed_rows(db_table, columns, part)

    def insert_packed_rows(self, db_table: str, columns: Sequence[Column], data: bytes) -> None:
        """Insert the rows that `pack_rows` packed."""
        # This is safe to unpickle: we wrote it to a temporary file that nobody else can open.
        self.insert_rows(db_table, columns, pickle.loads(data))

    def update_rows(self, table: Table, values: Sequence[Sequence[Any]]) -> None:
        """Overwrite the rows with the same keys. `values`: the table's columns, with values for the driver."""
        key, *others = values
        q = self.quote
        assignments = ", ".join(f"{q(column.column)} = %s" for column in table.nonkey_columns)
        sql = f"UPDATE {q(table.db_table)} SET {assignments} WHERE {q(table.key.column)} = %s"
        with self.errors_explained(), closing(self.cursor()) as cursor:
            cursor.executemany(sql, list(zip(*others, key, strict=True)))

    def is_about_a_record(self, error: Exception) -> bool:
        """Tell whether an error is about one record. By default, any but an `OperationalError` is."""
        return not isinstance(error, OperationalError)

    @abstractmethod
    def reset_sequences(self, tables: Sequence[Table]) -> None: ...

    #: Whether `set_next_keys` would commit, so that it has to wait until a restore's transaction has ended.
    KEYS_AFTER_COMMIT: ClassVar[bool] = False

    @abstractmethod
    def next_keys(self, tables: Sequence[Table]) -> dict[Table, int]: ...

    @abstractmethod
    def set_next_keys(self, next_keys: Mapping[Table, int]) -> None: ...


class _Pickler(pickle.Pickler):
    """A pickler that can also pickle a `memoryview`, which Django uses for binary values, even inside lists."""

    def reducer_override(self, value: Any) -> Any:
        return (memoryview, (bytes(value),)) if isinstance(value, memoryview) else NotImplemented


def pickled(value: Any) -> bytes:
    """Pickle values for a driver. Raises `ValueError` if one cannot be pickled."""
    data = io.BytesIO()
    try:
        _Pickler(data, protocol=5).dump(value)
    except (TypeError, pickle.PicklingError) as error:
        raise ValueError(str(error)) from error
    return data.getvalue()


def _integer_type(field: Field[Any, Any]) -> str:
    """Return the internal type of the numbers in a column; for a reference, that of the key that it refers to."""
    while field.remote_field is not None:
        field = field.target_field  # type: ignore[attr-defined]
    name = field.get_internal_type()
    return {
        "AutoField": "IntegerField",
        "BigAutoField": "BigIntegerField",
        "SmallAutoField": "SmallIntegerField",
    }.get(name, name)

"""Converts columns between the values of the driver and plain values (see `kinds`)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar, NamedTuple

from django.core.exceptions import ValidationError

from ..kinds import (
    BINARY,
    BOOLEAN,
    INTEGER,
    JSON,
    TEXT,
    Kind,
    Plain,
    load_json,
    parse_json,
    plain_json,
    target_of,
)
from ..tables import Column, Row, Table, are_same
from .session import Session
from .values import Checked, ConvertAll, as_they_are, each


class ColumnReader(NamedTuple):
    """How to read a column. `sql`: selects it. `to_plain`: converts its values to plain ones; None if they are
    plain."""

    sql: str
    to_plain: ConvertAll | None

    @property
    def is_raw(self) -> bool:
        """Whether it selects the value of the driver unchanged, which can also be used as a parameter."""
        return self.to_plain is None or isinstance(self.to_plain, Checked)


class Conversion(Session):
    """Readers and writers of columns. These are the plain paths; an engine may add faster ones: see `base`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._readers: dict[Table, list[ColumnReader]] = {}
        #: Table -> the positions of its columns whose values are cut.
        self._cut: dict[Table, list[int]] = {}
        #: Table -> the most bytes of a row's long values. It is only computed once.
        self._longest: dict[Table, int] = {}
        #: Two columns, each as (table, column) -> whether a text in the first may say one in the second otherwise.
        self._folded: dict[tuple[tuple[str, str], tuple[str, str]], bool] = {}

    def readers(self, table: Table) -> list[ColumnReader]:
        """Return the readers of a table's columns, in the order of the columns."""
        if table not in self._readers:
            self._readers[table] = [self.reader_of(column) for column in table.columns]
        return self._readers[table]

    def reader_of(self, column: Column) -> ColumnReader:
        """Return the reader of a column.

        A text that refers to a row is read as that row has it: to many a collation, "milk" refers to "Milk". In a
        backup, texts are only the same to the letter.
        """
        reader = self._reader_of_its_own(column)
        if not column.refers_to or not (column.kind is TEXT or column.kind.name == "own"):
            return reader
        target = target_of(column.field)
        assert target.column is not None
        here, there = column.field.model._meta.db_table, target.model._meta.db_table
        names = (here, column.column), (there, target.column)
        if names not in self._folded:
            self._folded[names] = self.folds(*names)
        if not self._folded[names]:
            return reader
        name, key = self.quote(column.column), f"referred.{self.quote(target.column)}"
        own = f"{self.quote(here)}.{name}"
        as_there = f"SELECT {key} FROM {self.quote(there)} AS referred WHERE {key} = {own} LIMIT 1"
        return reader._replace(sql=reader.sql.replace(name, f"COALESCE(({as_there}), {own})"))

    def _reader_of_its_own(self, column: Column) -> ColumnReader:
        """Return the reader of a column that knows nothing of rows that it refers to."""
        name = self.quote(column.column)
        if column.is_natural:
            return ColumnReader(name, self.natural_keys.to_natural(column.natural_model))
        if column.kind is JSON:  # read the text itself, without a decoder that the field may have
            nullable = column.field.null
            return ColumnReader(name, each(lambda value: plain_json(parse_json(value), nullable)))
        return self.fast_reader(column) or self.plain_reader(column)

    def plain_reader(self, column: Column) -> ColumnReader:
        """Return a reader that uses Django's own conversion, value by value."""
        expression: Any = column.field.get_col(column.field.model._meta.db_table)
        connection = self.connection
        converters = [
            *connection.ops.get_db_converters(expression),
            *expression.get_db_converters(connection),
        ]
        dump = column.kind.dump

        def convert(raw: Any) -> Plain:
            value = last = raw
            for converter in converters:
                value = converter(value, expression, connection)
                last = last if value is None else value
            return self._taken_for_none(column, raw, last) if value is None else dump(value)

        return ColumnReader(self.quote(column.column), each(convert))

    def _taken_for_none(self, column: Column, raw: Any, last: Any) -> Plain:
        """Return the plain form of a value that is not NULL, though its field reads it as None, such as "". Raises
        `ValueError` if the field would not write it again.

        `raw`: the value of the driver; `last`: what it was before it became None.
        """
        if column.kind.name == "own":
            plain = last if isinstance(last, str | int) else column.kind.dump(last)
            (written,) = self._plain_writer(column)([plain])
            if written is not None and str(written) in (
                str(raw),
                str(last),
            ):  # a driver may write another type
                return plain
        raise ValueError(raw)  # Django's conversion would take it for a missing value

    def writer_of(self, column: Column) -> ConvertAll:
        """Return a function that converts plain values of a column to values for the driver."""
        field, connection = column.field, self.connection
        if column.is_natural:
            return self.natural_keys.to_numbers(column.natural_model)
        if column.kind is JSON:
            return lambda values: [
                None
                if value is None and field.null
                else connection.ops.adapt_json_value(load_json(value, field.null), None)
                for value in values
            ]
        return self.fast_writer(column) or self._plain_writer(column)

    def _plain_writer(self, column: Column) -> ConvertAll:
        """Return a function that uses Django's own conversion, value by value."""
        field, connection, load = column.field, self.connection, column.kind.load

        def write(value: Plain) -> Any:
            try:
                return field.get_db_prep_save(load(value), connection)
            except ValidationError as error:  # the field refuses a value that its column could hold
                raise ValueError(" ".join(error.messages)) from None

        return each(write)

    def is_here(self, table: Table, row: Row, current: Row) -> bool:
        """Tell whether a row here is what another row would be, once it is written."""
        return row == current and all(
            are_same(self.as_stored(table.columns[place], row[place]), current[place])
            for place in table.exact_places
        )

    def row_as_stored(self, table: Table, row: Row) -> Row:
        """Return a row as it is read after it was written."""
        values = [*row]
        for place in table.exact_places:
            values[place] = self.as_stored(table.columns[place], row[place])
        return tuple(values)

    def differing(self, table: Table, row: Row, current: Row) -> list[str]:
        """Return the names of the fields in which a row here is not what another row would be."""
        pairs = zip(("pk", *table.names), self.row_as_stored(table, row), current, strict=True)
        return [name for name, value, here in pairs if not are_same(value, here)]

    def is_json(self, column: Column, type_name: str) -> bool:
        """Tell whether a column holds JSON, be it of a custom field. `type_name`: of the database for that."""
        own = column.kind.name == "own"
        return column.kind is JSON or (own and column.field.db_type(self.connection) == type_name)

    # -- hooks: see `base` ---

    def as_stored(self, column: Column, value: Plain) -> Plain:
        """Return a value as it is read after it was written. By default, it is the same."""
        return value

    #: Kinds with values for which `can_hold` returns False.
    BOUNDED: ClassVar[Collection[Kind]] = ()

    def can_hold(self, column: Column, value: Plain) -> bool:
        """Tell whether this database can store a value and return it unchanged. By default, it can."""
        return True

    def folds(self, own: tuple[str, str], referred: tuple[str, str]) -> bool:
        """Tell whether a text in a column may refer to one that differs from it. Both columns are given as (table,
        column). By default, none may."""
        return False

    def fast_reader(self, column: Column) -> ColumnReader | None:
        """Return a reader that is faster than Django's conversion; None if this engine has none for the column."""
        return None

    def fast_writer(self, column: Column) -> ConvertAll | None:
        """Return a writer that is faster than Django's conversion; None if this engine has none for the column."""
        if column.kind is BINARY:
            return each(BINARY.load)
        return as_they_are if column.kind in (INTEGER, TEXT, BOOLEAN) else None

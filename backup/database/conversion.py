"""How each column is read and written: what a driver gives <-> plain values (see `kinds`)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar, NamedTuple

from django.core.exceptions import ValidationError

from ..kinds import (
    BINARY,
    BOOLEAN,
    DATE,
    DATETIME,
    INTEGER,
    JSON,
    TEXT,
    TIME,
    Kind,
    Plain,
    load_json,
    parse_json,
    plain_json,
)
from ..tables import Column, Table
from .session import Session
from .values import Checked, ConvertAll, as_they_are, each


class ColumnReader(NamedTuple):
    """How a column is read. `sql` selects it; `to_plain` makes its values plain, None if they come so."""

    sql: str
    to_plain: ConvertAll | None

    @property
    def is_raw(self) -> bool:
        """Whether what is selected is the value as the driver knows it, which it also takes as a parameter."""
        return self.to_plain is None or isinstance(self.to_plain, Checked)


class Conversion(Session):
    """Readers and writers of columns. Plain paths stand here; a vendor adds faster ones: see the hooks in `base`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._readers: dict[Table, list[ColumnReader]] = {}
        #: Table -> the bytes that the long values of one row take at most, as of the first look.
        self._longest: dict[Table, int] = {}

    def readers(self, table: Table) -> list[ColumnReader]:
        """Return how the columns of a table are read, in the order of its rows."""
        if table not in self._readers:
            self._readers[table] = [self.reader_of(column) for column in table.columns]
        return self._readers[table]

    def reader_of(self, column: Column) -> ColumnReader:
        """Return how a column is read."""
        name = self.quote(column.column)
        if column.is_natural:
            return ColumnReader(name, self.natural_keys.to_natural(column.refers_to))
        if column.kind is JSON:  # the text itself: what a field's own decoder makes of it is not for the file
            nullable = column.field.null
            return ColumnReader(name, each(lambda value: plain_json(parse_json(value), nullable)))
        return self.fast_reader(column) or self._plain_reader(column)

    def _plain_reader(self, column: Column) -> ColumnReader:
        """Return how Django itself reads a column, value by value."""
        expression: Any = column.field.get_col(column.field.model._meta.db_table)
        connection = self.connection
        converters = [
            *connection.ops.get_db_converters(expression),
            *expression.get_db_converters(connection),
        ]
        dump = column.kind.dump

        def convert(raw: Any) -> Plain:
            value = raw
            for converter in converters:
                value = converter(value, expression, connection)
            if value is None and column.kind in (DATE, TIME, DATETIME):
                raise ValueError(raw)  # which Django's conversion takes for no value at all
            return value if value is None else dump(value)

        return ColumnReader(self.quote(column.column), each(convert))

    def writer_of(self, column: Column) -> ConvertAll:
        """Return what makes plain values such as the driver takes."""
        field, connection = column.field, self.connection
        if column.is_natural:
            return self.natural_keys.to_numbers(column.refers_to)
        if column.kind is JSON:
            return lambda values: [
                None
                if value is None and field.null
                else connection.ops.adapt_json_value(load_json(value, field.null), None)
                for value in values
            ]
        return self.fast_writer(column) or self._plain_writer(column)

    def _plain_writer(self, column: Column) -> ConvertAll:
        """Return how Django itself writes a column, value by value."""
        field, connection, load = column.field, self.connection, column.kind.load

        def write(value: Plain) -> Any:
            try:
                return field.get_db_prep_save(load(value), connection)
            except ValidationError as error:  # a field's own opinion of a value that its column may hold
                raise ValueError(" ".join(error.messages)) from None

        return each(write)

    # -- hooks: see `base` ---

    #: Kinds of which `can_hold` says no for some values.
    BOUNDED: ClassVar[Collection[Kind]] = ()

    def can_hold(self, column: Column, value: Plain) -> bool:
        """Tell whether a value comes back from this database as it was. By default, all do."""
        return True

    def fast_reader(self, column: Column) -> ColumnReader | None:
        """Return a reader that is faster than Django's conversion, for kinds that this vendor has one for."""
        return None

    def fast_writer(self, column: Column) -> ConvertAll | None:
        """Return a writer for kinds that the driver takes as they are, or nearly so."""
        if column.kind is BINARY:
            return each(BINARY.load)
        return as_they_are if column.kind in (INTEGER, TEXT, BOOLEAN) else None

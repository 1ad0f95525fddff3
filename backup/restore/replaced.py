"""What belongs to rows that other records replace, a child's entries or a user's API token: it goes with them, since it
would belong to somebody else afterwards."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial

from ..database import Database
from ..kinds import TEXT, Plain
from ..scope import part_of
from ..tables import Column, Table, owner_of_keys
from .plan import Plan
from .records import RecordReader


class Replaced:
    """Finds what belongs to replaced rows, in the parts that are restored. (A row that the other parts refer to is
    never replaced.)

    `tables`: all in scope here. `reader`: of the backup. What its records replace anyway is left to them.
    """

    def __init__(self, plan: Plan, database: Database, tables: Iterable[Table], reader: RecordReader) -> None:
        self._plan, self._database, self._reader = plan, database, reader
        by_label = {
            table.label: table for table in [*tables, *plan.tables]
        }  # those of the plan are other objects
        self._tables = [table for table in by_label.values() if part_of(table.label) in plan.options.parts]
        #: Label of the model that owns the keys -> keys of rows here that are replaced, or go with such a row.
        self._gone: dict[str, set[Plain]] = {}
        #: The labels of the models of these rows.
        self._models: dict[str, set[str]] = {}
        #: Label of a model -> keys of the rows here that go, in order.
        self.going: dict[str, dict[Plain, None]] = {}

    def add(self, table: Table, keys: Iterable[Plain]) -> None:
        """Add rows of a table that are replaced."""
        if keys := [*keys]:
            owner = owner_of_keys(table.label)
            self._gone.setdefault(owner, set()).update(keys)
            self._models.setdefault(owner, set()).add(table.label)

    def find(self) -> Mapping[str, Collection[Plain]]:
        """Return model label -> keys of the rows that go with the rows that were added."""
        has_more = bool(self._gone)
        while has_more:  # what refers to a row may come before it
            has_more = False
            for table in self._tables:
                going = self.going.setdefault(table.label, {})
                found = [key for key in self._referring(table) if key not in going]
                going.update(dict.fromkeys(found))
                self.add(table, found)
                has_more |= bool(found)
        return {label: keys for label, keys in self.going.items() if keys}

    def remove(self) -> dict[str, int]:
        """Delete what `find` returns, and empty what else refers to what is gone. Returns model label -> number of rows
        that were deleted."""
        removed = {label: len(keys) for label, keys in self.find().items()}
        database = self._database
        for table in self._tables if self._gone else ():
            database.delete(table, [*self.going.get(table.label, ())])
            for column, values, _also in self._columns(table, null=True):
                rows = database.keys_with(table.db_table, table.key, column, values)
                database.unlink(table, column, self._staying(table, rows))
            for relation in table.relations:
                if targets := self._gone.get(owner_of_keys(relation.target.key_of)):
                    owners = database.keys_with(relation.db_table, relation.owner, relation.target, targets)
                    database.unlink_pairs(relation, self._staying(table, owners), [*targets])
        return removed

    def _referring(self, table: Table) -> list[Plain]:
        """Return the keys of the rows of a table that must refer to rows that were added."""
        keys = (
            key
            for column, values, also in self._columns(table, null=False)
            for key in self._database.keys_with(table.db_table, table.key, column, values, also)
        )
        return self._staying(table, keys)

    def _columns(
        self, table: Table, *, null: bool
    ) -> Iterator[tuple[Column, Collection[Plain], tuple[Column, Plain] | None]]:
        """Yield columns that refer to rows that were added, their keys, and of a generic reference the column of the
        content type with its value. `null`: those that may be empty, or those that may not."""
        for place, label in table.references:
            values: Collection[Plain] = self._gone.get(owner_of_keys(label), ())
            if values and table.columns[place].field.null is null:
                yield table.columns[place], values, None
        for type_place, place in () if null else table.generics:
            column = table.columns[place]
            for owner, gone in self._gone.items():
                keys = [*map(str, gone)] if column.kind is TEXT else [*filter(partial(_fits, column), gone)]
                for label in self._models[owner]:
                    yield column, keys, (table.columns[type_place], tuple(label.split(".")))

    def _staying(self, table: Table, keys: Iterable[Plain]) -> list[Plain]:
        """Return those of the keys here that make way for no record of the backup, and under which none comes."""
        staying = dict.fromkeys(keys)
        for key in self._plan.displaced.get(table.label, ()):
            staying.pop(key, None)
        if not staying or table not in self._plan.tables:
            return [*staying]
        # The plan has no identical records; but only of tables of which none is left out.
        is_compared = table.label in self._plan.identical
        for rows in self._reader.rows(table) if is_compared else self._plan.rows(table):
            for row in self._plan.key_map.remap(table, rows):
                staying.pop(row[0], None)
        return [*staying]


def _fits(column: Column, key: Plain) -> bool:
    """Tell whether a column can hold a key. A generic reference leads to rows with keys of its own kind only."""
    try:
        return bool(column.kind.check(key) == key)
    except (TypeError, ValueError):
        return False

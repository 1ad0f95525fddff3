"""What belongs to rows that other records replace, a child's entries or a user's API token: it goes with them, since it
would belong to somebody else afterwards."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import partial

from ..database import Database
from ..kinds import TEXT, Plain
from ..tables import Column, Table, owner_of_keys
from .plan import Plan
from .records import RecordReader


class Replaced:
    """Finds what belongs to replaced rows, table by table: those with generic references last, see `generics_last`.

    `reader`: of the backup. What its records replace anyway is left to them.
    """

    def __init__(self, plan: Plan, database: Database, reader: RecordReader) -> None:
        self._plan, self._database, self._reader = plan, database, reader
        #: Label of the model that owns the keys -> keys of rows here that are replaced, or go with such a row.
        self._gone: dict[str, set[Plain]] = {}
        #: The labels of the models of these rows.
        self._models: dict[str, set[str]] = {}

    def add(self, table: Table, keys: Iterable[Plain]) -> None:
        """Add rows of a table that are replaced."""
        if keys := [*keys]:
            owner = owner_of_keys(table.label)
            self._gone.setdefault(owner, set()).update(keys)
            self._models.setdefault(owner, set()).add(table.label)

    def keys(self, table: Table) -> list[Plain]:
        """Return the keys of the rows of a table that go with rows that were added, and add them, too."""
        found = self._staying(
            table,
            (
                key
                for column, values, also in self._columns(table, null=False)
                for key in self._database.keys_with(table.db_table, table.key, column, values, also)
            ),
        )
        self.add(table, found)
        return found

    def remove(self, table: Table) -> int:
        """Delete these rows, and empty what else refers to rows that were added. Returns the number of rows."""
        keys, database = self.keys(table), self._database
        database.delete(table, keys)
        for column, values, _also in self._columns(table, null=True):
            rows = database.keys_with(table.db_table, table.key, column, values)
            database.unlink(table, column, self._staying(table, rows))
        for relation in table.relations:
            if targets := self._gone.get(owner_of_keys(relation.target.key_of)):
                owners = database.keys_with(relation.db_table, relation.owner, relation.target, targets)
                database.unlink_pairs(relation, self._staying(table, owners), [*targets])
        return len(keys)

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
        """Return those of the keys here under which no record of the backup comes."""
        staying = dict.fromkeys(keys)
        for rows in self._reader.rows(table) if staying and table in self._plan.tables else ():
            for row in self._plan.key_map.remap(table, rows):
                staying.pop(row[0], None)
        return [*staying]


def _fits(column: Column, key: Plain) -> bool:
    """Tell whether a column can hold a key. A generic reference leads to rows with keys of its own kind only."""
    try:
        return bool(column.kind.check(key) == key)
    except (TypeError, ValueError):
        return False

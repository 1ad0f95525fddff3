"""What belongs to rows that other records replace, a child's entries or a user's API token: it goes with them, since it
would belong to somebody else afterwards. What only refers to them is emptied, such as who is in a group. And what
refers to rows that change, by a value that changes, follows them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from ..database import Database
from ..dump import needed_generics
from ..kinds import TEXT, Plain
from ..scope import part_of
from ..tables import Column, Relation, Row, Table, owner_of, owner_of_keys
from .plan import Plan
from .records import RecordReader

#: A column of a table, the values that refer to rows which are gone, and of a generic reference the column of the
#: content type with its value: arguments of `Database.keys_with`.
_References = tuple[Column, Collection[Plain], tuple[Column, Plain] | None]


@dataclass(frozen=True)
class Lost:
    """What a restore over existing data takes away: model label -> number of rows here.

    `replaced`: they are plainly other records than the backup's with their keys. `removed`: they belong to such a row.
    `emptied`: they stay, but no longer refer to such a row.
    """

    replaced: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)
    emptied: Mapping[str, int] = field(default_factory=dict)


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
        #: All, and those of the parts that are restored.
        self._all_tables = [*by_label.values()]
        self._tables = [table for table in self._all_tables if part_of(table.label) in plan.options.parts]
        #: Label of the model that owns the keys -> keys of rows here that are replaced, or go with such a row.
        self._gone: dict[str, set[Plain]] = {}
        #: The labels of the models of these rows.
        self._models: dict[str, set[str]] = {}
        #: Label of a model -> its columns that others refer to in place of the primary key -> the values of these rows.
        self._values: dict[str, dict[Column, set[Plain]]] = {}
        for table in self._tables:
            for _place, label, target in table.references_by_field:
                self._values.setdefault(label, {})[target] = set()
        #: Label of a model -> keys of the rows here that go, in order.
        self.going: dict[str, dict[Plain, None]] = {}
        #: A table and the position of a reference -> key of a row here -> the value before, and the one that it gets.
        self._following: dict[tuple[Table, int], dict[Plain, tuple[Plain, Plain]]] = {}

    def add(self, table: Table, keys: Iterable[Plain]) -> None:
        """Add rows of a table that are replaced, before that happens."""
        if keys := [*keys]:
            owner = owner_of_keys(table.label)
            self._gone.setdefault(owner, set()).update(keys)
            self._models.setdefault(owner, set()).add(table.label)
            for target, values in self._values.get(table.label, {}).items():
                values.update(self._database.keys_with(table.db_table, target, table.key, keys))
                values.discard(None)

    def add_changed(self, table: Table, rows: Sequence[Row]) -> None:
        """Add rows of a table that are changed to these, before that happens."""
        targets = {
            column
            for other in self._all_tables
            for _place, label, column in other.references_by_field
            if label == table.label
        }
        here = self._database.rows_by_key(table, [row[0] for row in rows]) if targets and rows else {}
        for place, column in enumerate(table.columns):
            if column in targets:
                moved = {here[row[0]][place]: row[place] for row in rows if row[0] in here}
                self._follow(table, column, moved)

    def _follow(self, table: Table, column: Column, moved: Mapping[Plain, Plain]) -> None:
        """Note what refers to rows by their values in a column. `moved`: the value of each before -> after."""
        moved = {old: new for old, new in moved.items() if old != new and None not in (old, new)}
        for other in self._all_tables if moved else ():
            for place, label, target in other.references_by_field:
                if (label, target) == (table.label, column):
                    self._note_following(other, place, moved)

    def _note_following(self, table: Table, place: int, moved: Mapping[Plain, Plain]) -> None:
        column = table.columns[place]
        following = self._following.setdefault((table, place), {})
        if self._database.keys_with(table.db_table, table.key, column, [*moved]):
            for old, new in moved.items():
                for key in self._database.keys_with(table.db_table, table.key, column, [old]):
                    following[key] = (old, new)

    def following(self) -> list[tuple[Table, Column, Mapping[Plain, Plain]]]:
        """Return what refers to rows that were added as changed, and stays: key of a row -> value that its reference
        gets. To be called after `find`."""
        while True:
            known = sum(map(len, self._following.values()))
            found: list[tuple[Table, Column, Mapping[Plain, Plain]]] = []
            for (table, place), following in [*self._following.items()]:
                column = table.columns[place]
                staying = self._staying(table, following, self.going.get(table.label, ()))
                found.append((table, column, {key: following[key][1] for key in staying}))
                # What refers to these in turn, by the same value, may come before them.
                self._follow(table, column, dict(following[key] for key in staying))
            if known == sum(map(len, self._following.values())):
                return found

    def find(self) -> Mapping[str, Collection[Plain]]:
        """Return model label -> keys of the rows that go with the rows that were added."""
        has_more = bool(self._gone)
        while has_more:  # what refers to a row may come before it
            has_more = False
            for table in self._tables:
                going = self.going.setdefault(table.label, {})
                belonging = [*self._belonging(table), *self._attached_to_nothing(table)]
                found = [key for key in belonging if key not in going]
                going.update(dict.fromkeys(found))
                self.add(table, found)
                has_more |= bool(found)
        return {label: keys for label, keys in self.going.items() if keys}

    def remove(self, replaced: Mapping[str, int]) -> Lost:
        """Delete what `find` returns, empty what else refers to what is gone, and write what `following` returns.
        `replaced`: see `Lost`."""
        removed = {label: len(keys) for label, keys in self.find().items()}
        referring = [*self.referring()]
        for table, column, following in self.following():
            self._database.relink(table, column, following)
        for table in self._tables if self._gone else ():
            self._database.delete(table, [*self.going[table.label]])
        for table, part, targets, keys in referring:
            if isinstance(part, Relation):
                self._database.unlink_pairs(part, keys, targets)
            else:
                self._database.unlink(table, part, keys)
        return Lost(replaced, removed, counts((table, keys) for table, _part, _targets, keys in referring))

    def _belonging(self, table: Table) -> list[Plain]:
        """Return the keys of the rows of a table that belong to rows that were added."""
        keys = (
            key
            for column, values, also in [*self._columns(table, belongs=True), *self._generics(table)]
            for key in self._database.keys_with(table.db_table, table.key, column, values, also)
        )
        return self._staying(table, keys)

    def _attached_to_nothing(self, table: Table) -> Iterator[Plain]:
        """Yield the keys here of records of the backup that are attached to rows which go: a tag of an entry that is
        left out."""
        going = {(label, str(key)) for label, keys in self.going.items() for key in keys}
        generics = needed_generics(table) if going and table in self._plan.tables else ()
        for rows in self._coming(table) if generics else ():
            for row in rows:
                if any((owner_of(row[kind]), str(row[place])) in going for kind, place in generics):
                    yield row[0]

    def referring(self) -> Iterator[tuple[Table, Column | Relation, list[Plain], list[Plain]]]:
        """Yield what else refers to rows that go: a column or relation of a table, the values of these rows, and the
        keys of the rows that hold them, and stay. To be called after `find`."""
        for table in self._tables if self._gone else ():
            for column, values, _also in self._columns(table, belongs=False):
                keys = self._database.keys_with(table.db_table, table.key, column, values)
                yield table, column, [*values], self._staying(table, keys, self.going[table.label])
            for relation in table.relations:
                if targets := self._gone.get(owner_of_keys(relation.target.key_of)):
                    owner, target = relation.owner, relation.target
                    keys = self._database.keys_with(relation.db_table, owner, target, targets)
                    yield table, relation, [*targets], self._staying(table, keys, self.going[table.label])

    def _columns(self, table: Table, *, belongs: bool) -> Iterator[_References]:
        """Yield columns that refer to rows that were added. `belongs`: those whose rows belong to them, or others."""
        references: list[tuple[int, Collection[Plain]]] = [
            (place, self._gone.get(owner_of_keys(label), ())) for place, label in table.references
        ]
        references += [
            (place, self._values[label][target]) for place, label, target in table.references_by_field
        ]
        for place, values in references:
            if values and table.columns[place].belongs is belongs:
                yield table.columns[place], values, None

    def _generics(self, table: Table) -> Iterator[_References]:
        """Yield the columns of generic references to rows that were added. Their rows belong to them."""
        for type_place, place in table.generics:
            for owner, gone in self._gone.items():
                for label in self._models[owner]:
                    yield generic_reference(table, type_place, place, label, gone)

    def _staying(self, table: Table, keys: Iterable[Plain], going: Collection[Plain] = ()) -> list[Plain]:
        """Return those of the keys here that make way for no record of the backup, and under which none comes. `going`:
        keys of rows that go anyway."""
        staying = dict.fromkeys(keys)
        for key in (*going, *self._plan.displaced.get(table.label, ())):
            staying.pop(key, None)
        if not staying or table not in self._plan.tables:
            return [*staying]
        for rows in self._coming(table):
            for row in rows:
                staying.pop(row[0], None)
        return [*staying]

    def _coming(self, table: Table) -> Iterator[list[Row]]:
        """Yield the records of the backup, with the keys that they get here."""
        # The plan has no identical records; but only of tables of which none is left out.
        is_compared = table.label in self._plan.identical
        for rows in self._reader.rows(table) if is_compared else self._plan.rows(table):
            yield self._plan.key_map.remap(table, rows)


def counts(rows: Iterable[tuple[Table, Iterable[Plain]]]) -> dict[str, int]:
    """Return model label -> number of rows. `rows`: tables and some keys of their rows."""
    keys_of: dict[str, set[Plain]] = {}
    for table, keys in rows:
        keys_of.setdefault(table.label, set()).update(keys)
    return {label: len(keys) for label, keys in keys_of.items() if keys}


def generic_reference(
    table: Table, type_place: int, place: int, label: str, gone: Iterable[Plain]
) -> _References:
    """Return what a generic reference to one of some rows of a model holds. `gone`: the keys of these rows."""
    column = table.columns[place]
    keys = [*map(str, gone)] if column.kind is TEXT else [*filter(partial(_fits, column), gone)]
    return column, keys, (table.columns[type_place], tuple(label.split(".")))


def _fits(column: Column, key: Plain) -> bool:
    """Tell whether a column can hold a key. A generic reference leads to rows with keys of its own kind only."""
    try:
        return bool(column.kind.check(key) == key)
    except (TypeError, ValueError):
        return False

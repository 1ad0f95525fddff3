"""What tells which row a record is, and which rows with the same key are different records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import is_password_usable

from .. import babybuddy
from ..scope import label_of
from ..tables import Row, Table, owner_of_keys

#: Sets of columns, as positions in a row, see `Table.uniques`.
Groups = Sequence[tuple[int, ...]]


def has_identity(table: Table) -> bool:
    """Tell whether something else than the primary key can identify a row of this model."""
    return bool(table.uniques) or table.key_is_data or bool(table.key.refers_to)


def unresolved_places(table: Table, unresolved: Iterable[Table]) -> set[int]:
    """Return the positions in a row that hold keys of tables whose records are still to be resolved."""
    labels = {other.label for other in unresolved if not other.key.refers_to}
    places = {place for place, label in table.references if owner_of_keys(label) in labels}
    return places | {place for _type_place, place in table.generics if labels}


def usable(table: Table, unresolved: Iterable[Table]) -> Groups:
    """Return the sets of unique columns that hold no key of tables whose records are still to be resolved; none if the
    key of the table is such a key."""
    places = unresolved_places(table, unresolved)
    return [group for group in table.uniques if places.isdisjoint({0, *group})]


def apart_by(table: Table) -> list[list[int]]:
    """Return the sets of positions that tell rows with the same key apart, see `babybuddy.apart`: if the host has none,
    a row that belongs to another row is another record, unless its key says which one it is."""
    sets = babybuddy.apart(table)
    return sets if sets or table.key_is_data or not table.belongs_by else [table.belongs_by]


def are_apart(current: Row, row: Row, apart: Sequence[Sequence[int]]) -> bool:
    """Tell whether two rows are plainly different records. `apart`: see `babybuddy.apart`."""
    return bool(apart) and all(any(current[place] != row[place] for place in places) for places in apart)


def are_people(table: Table) -> bool:
    """Tell whether a table holds users, and their passwords."""
    return table.label == label_of(get_user_model()) and "password" in table.names


def is_same_person(table: Table, current: Row, row: Row) -> bool:
    """Tell whether two rows are of the same user, whatever the names are: key and password are the same, since each
    password has a salt of its own."""
    if not are_people(table):
        return False
    place = 1 + table.names.index("password")
    # One that was never set is empty, like those of others.
    has_password = bool(row[place]) and is_password_usable(str(row[place]))
    return has_password and (current[0], current[place]) == (row[0], row[place])

"""The key map: which records get other keys here than they have in the backup, and what refers to them; and which
fields of a record keep what the row here has."""

from __future__ import annotations

from collections.abc import Mapping

from ..kinds import INTEGER, NATURAL, Plain
from ..tables import Row, Table, in_order, owner_of, owner_of_keys


class KeyMap:
    """The keys that records get here, if they differ from their keys in the backup.

    They are stored under the model that owns the keys (`owner_of_keys`), so that every reference to them is remapped,
    direct or inherited.
    """

    def __init__(self) -> None:
        self._keys: dict[str, Mapping[Plain, Plain]] = {}
        #: The same with keys as texts, since a generic reference may store keys of any kind as text. Whole numbers need
        #: no second map.
        self._texts: dict[str, Mapping[Plain, Plain]] = {}
        #: Model label -> key in the backup -> position in a row -> value here.
        self._own: dict[str, Mapping[Plain, Mapping[int, Plain]]] = {}

    def __bool__(self) -> bool:
        return any(self._keys.values()) or bool(self._own)

    def of(self, label: str) -> Mapping[Plain, Plain]:
        """Return key in the backup -> key here, for the records of one model."""
        return self._keys.get(owner_of_keys(label), {})

    def put(self, table: Table, keys: Mapping[Plain, Plain]) -> None:
        """Set the keys of a table whose key is not a reference."""
        load = table.key.kind.load
        self._keys[table.label] = keys
        if table.key.kind is not INTEGER:
            self._texts[table.label] = {str(load(key)): str(load(here)) for key, here in keys.items()}

    def keep(self, table: Table, own: Mapping[Plain, Mapping[int, Plain]]) -> None:
        """Set which values here records of a table do not change: key in the backup -> position in a row -> value."""
        self._own[table.label] = own

    def remap(self, table: Table, rows: list[Row]) -> list[Row]:
        """Return rows of the backup with their own keys, and their references, remapped."""
        return self._remap(table, rows, self.of(table.label), self._own.get(table.label)) if self else rows

    def remap_references(self, table: Table, rows: list[Row]) -> list[Row]:
        """Remap only references, before the table's own keys are resolved. A primary key is remapped only if it is a
        reference, as in multi-table inheritance."""
        own = self.of(table.label) if table.key.refers_to else {}
        return self._remap(table, rows, own) if self else rows

    def _remap(
        self,
        table: Table,
        rows: list[Row],
        own: Mapping[Plain, Plain],
        kept: Mapping[Plain, Mapping[int, Plain]] | None = None,
    ) -> list[Row]:
        """Remap references, and keys by `own`. `kept`: see `keep`."""
        columns = [(0, own), *((place, self.of(label)) for place, label in table.references if place)]
        relations = [
            (place, self.of(relation.target.refers_to))
            for place, relation in enumerate(table.relations, len(table.columns))
            if relation.target.refers_to not in NATURAL
        ]
        columns, relations = ([part for part in parts if part[1]] for parts in (columns, relations))
        remapped = []
        for row in rows:
            new: dict[int, Plain] = {place: keys[row[place]] for place, keys in columns if row[place] in keys}
            for place, keys in relations:
                if any(value in keys for value in row[place]):
                    new[place] = in_order(keys.get(value, value) for value in row[place])
            for type_place, place in table.generics:
                here = self._referred_to(owner_of(row[type_place]), row[place])
                if here is not None:
                    new[place] = here
            if kept and row[0] in kept:
                new |= kept[row[0]]
            remapped.append(tuple(new.get(place, value) for place, value in enumerate(row)) if new else row)
        return remapped

    def _referred_to(self, label: str, key: Plain) -> Plain:
        """Return the key here for the key in a generic reference, and of its type; None if it stays."""
        if isinstance(key, str) and label in self._texts:
            return self._texts[label].get(key)
        here = self._keys.get(label, {}).get(key_in(key))
        return str(here) if isinstance(key, str) and here is not None else here


def key_in(value: Plain) -> Plain:
    """Return the key that a generic reference to a model with whole numbers as keys has, perhaps as a text."""
    try:
        number = int(value) if isinstance(value, str) else None
    except ValueError:
        return value
    return value if number is None or str(number) != value else number

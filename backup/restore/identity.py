"""Decides which row a record is, and thus under which key it is written. That depends on the mode of the restore:

- Clear (`BackupKeys`): a record is the row with its primary key. If only some parts are cleared, rows that stay may
  refer to rows that are removed. For models that they refer to, a record is the row with the same unique values;
  otherwise it gets a key that is not in use here, so that nothing comes to belong to somebody else.
- Overwrite (`MatchedRows`): a record is (1) the row with the same values in a unique field or constraint. The row keeps
  its key, and the backup's references to the record are remapped; but if the key is itself data (an API token), the
  row is displaced. Otherwise it is (2) the row with the same primary key, or (3) none: then it is inserted with its
  key, or with a fresh key if another record is that row. It is a conflict if a record matches two rows, or two records
  match one row. If the row of rule 2 is plainly another record (see `babybuddy.apart`), it is replaced.
  Where unique values are keys of one another in a circle, it is begun with those that are not. If that does not settle
  it, that is a conflict, too.
- Keep both (`KeptRows`): the same, but a row that is plainly another record stays, and the record gets a fresh key. Of
  models that the host's table does not know, a row is another record if it belongs to another row: so what belongs to
  a row that stays, stays, too. If a row here is the same in all but its key, including tags and the like, the record is
  that row, since it has been restored this way before.

To add a mode of restore, add a `Resolver` to `RESOLVERS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain, count

from django.utils.translation import gettext as _

from .. import babybuddy
from ..database import MAX_NAMED, Database
from ..kinds import INTEGER, TEXT, Plain
from ..options import RestoreMode
from ..tables import Row, Table, describe, owner_of
from .apart import Groups, apart_by, are_apart, has_identity, is_same_person, unresolved_places, usable
from .key_map import KeyMap, key_in

#: How often tables whose rows are told apart by keys of one another are resolved, before it is given up. A tree takes
#: as many rounds as it has levels.
MOST_ROUNDS = 100

#: Yields a table's rows as the backup has them, from the first one each time that it is called.
Rows = Callable[[], Iterator[list[Row]]]


@dataclass(frozen=True)
class Conflict:
    """A record that matches several rows, or a row that several records match. `rows_here`: the keys of the rows."""

    table: Table
    row: Row
    rows_here: list[Plain]
    reason: str
    #: If the cause is that the database considers different texts the same: an SQL statement that solves it, …
    statement: str = ""
    #: … and the key of the record, or of the row here, that this record is the same as; also if its unique values are.
    same_as: Plain = None

    def __str__(self) -> str:
        label = self.table.label
        if owner := babybuddy.SECRET_KEYS.get(label):
            label = f"{label} ({owner}: {self.row[1 + self.table.names.index(owner)]})"
            return describe(label, None, None, self.reason)
        return describe(label, self.row[0], None, self.reason)


class Resolver:
    """Decides, table by table in dependency order, which rows the records of a backup are.

    `in_use`: labels of the models that are referred to by rows which are not restored, and stay.
    """

    def __init__(self, database: Database, in_use: Set[str] = frozenset()) -> None:
        self._database = database
        self._in_use = in_use
        #: All tables that are resolved, with the backup's records.
        self._rows: Mapping[Table, Rows] = {}
        self.key_map = KeyMap()
        #: Model label -> keys of the rows here that make way for a record.
        self.displaced: dict[str, list[Plain]] = {}
        #: Model label -> key in the backup -> key that was made for it, where the database does not number the rows.
        self._fresh_keys: dict[str, dict[Plain, Plain]] = {}
        #: Model label -> keys of the rows here that are a record by its unique values, where babybuddy.APART could take
        #: it for another one, since the database's collation is not as strict.
        self.matched: dict[str, set[Plain]] = {}
        #: At most `MAX_NAMED`.
        self.conflicts: list[Conflict] = []
        #: Tells whether a row that the database found by unique values of a record really has them, see `collation`.
        #: None: it always does.
        self.is_alike: Callable[[Table, Row, Row, Sequence[int]], bool] | None = None
        #: See `Others.emptied`.
        self.emptied: Mapping[str, Mapping[Plain, Set[int]]] = {}
        #: Returns the numbers of a model that no record must get for that reason: see `left_behind.hanging`.
        self.hanging: Callable[[Table], Set[int]] = lambda _table: frozenset()
        #: The tables of `babybuddy.ATTACHED` that are restored, with the backup's records.
        self.attached: list[tuple[Table, Rows]] = []

    def resolves(self, table: Table) -> bool:
        """Tell whether records of a table may get other keys here, so that it must come before tables that refer to
        it."""
        raise NotImplementedError

    def resolve(self, tables: Mapping[Table, Rows]) -> None:
        """Resolve the records of some tables, in this order: fill `key_map`, `displaced` and `conflicts`."""
        raise NotImplementedError


class MatchedRows(Resolver):
    """Records are matched with rows by unique values, then by primary key."""

    def resolves(self, table: Table) -> bool:
        return has_identity(table) or bool(self._apart_by(table))

    def resolve(self, tables: Mapping[Table, Rows]) -> None:
        self._rows = tables
        waiting = {table: rows for table, rows in tables.items() if table.label not in babybuddy.ATTACHED}
        while ready := [table for table in waiting if self._is_ready(table, waiting)]:
            for table in ready:
                self._resolve(table, waiting.pop(table), table.uniques)
        if waiting:
            self._resolve_circle(waiting)
        for table, rows in tables.items():  # what they are attached to is known now
            if table.label in babybuddy.ATTACHED:
                self._resolve(table, rows, table.uniques)

    def _is_ready(self, table: Table, unresolved: Iterable[Table]) -> bool:
        """Tell whether nothing that tells which row a record is depends on tables that are still to be resolved."""
        places = {*chain.from_iterable([*table.uniques, *self._apart_by(table)])}
        return not places or unresolved_places(table, unresolved).isdisjoint({0, *places})

    def _resolve_circle(self, tables: Mapping[Table, Rows]) -> None:
        """Resolve tables whose rows are told apart by keys of one another: first by what is no such key, then by all of
        it, with the keys that this gave, until none of these changes."""
        known = len(self.conflicts)
        waiting = {**tables}
        while ready := [table for table in waiting if usable(table, waiting)] or [*waiting]:
            for table in ready:
                groups, unknown = usable(table, waiting), unresolved_places(table, waiting)
                self._resolve(table, tables[table], groups, unknown)
            for table in ready:
                del waiting[table]
        for _round in range(MOST_ROUNDS):
            del self.conflicts[known:]
            before = {table: self.key_map.of(table.label) for table in tables}
            for table, rows in tables.items():
                self._resolve(table, rows, table.uniques)
            changed = {table: keys for table, keys in before.items() if keys != self.key_map.of(table.label)}
            if not changed:
                return
        reason = _(
            "it and others refer to each other in a circle, so it is not clear which row it is. Clear existing data: "
            "then nothing can clash"
        )
        for table, keys in changed.items():
            own = self.key_map.of(table.label)
            for row in chain.from_iterable(tables[table]()):
                rows_here = {keys.get(row[0], row[0]), own.get(row[0], row[0])}
                if len(rows_here) > 1:
                    self._conflict(table, row, [*rows_here], reason)

    def _resolve(self, table: Table, rows: Rows, groups: Groups, unknown: Set[int] = frozenset()) -> None:
        """Resolve the records of a table by some groups of unique columns, anew if they were resolved before.
        `unknown`: the positions of what cannot tell yet, see `unresolved_places`."""
        #: Key in the backup -> key here.
        own: dict[Plain, Plain] = {}
        #: Key of a row here -> key of the record that it is, if the two differ.
        claimed: dict[Plain, Plain] = {}
        self.displaced.pop(table.label, None)
        self.matched.pop(table.label, None)
        highest = self._database.highest_key(table) if table.key.kind is INTEGER else None
        for batch in rows():
            highest = _highest(highest, batch)
            remapped = self.key_map.remap_references(table, batch)
            for row, new, matches in zip(batch, remapped, self.matches(table, remapped, groups), strict=True):
                self._claim(table, (row[0], *new[1:]), new[0], matches, claimed, own)
        if claimed and not table.key_is_data:
            highest = self._rehouse(table, rows, groups, claimed, own, highest)
        if not table.key.refers_to:  # otherwise it follows the row that it refers to
            self._keep(table, rows, groups, own, highest, unknown)
            self.key_map.put(table, own)

    def _rehouse(
        self,
        table: Table,
        rows: Rows,
        groups: Groups,
        claimed: dict[Plain, Plain],
        own: dict[Plain, Plain],
        highest: Plain,
    ) -> Plain:
        """Give a fresh key to each record whose row was claimed by another record. Returns the highest key."""
        for batch in rows():
            homeless = [row for row in batch if row[0] in claimed and row[0] not in own]
            remapped = self.key_map.remap_references(table, homeless)
            for row, matches in zip(remapped, self.matches(table, remapped, groups), strict=True):
                if matches:
                    self._conflict(table, row, [row[0]], _claimed_twice(table, row[0]))
                else:
                    highest = own[row[0]] = self._fresh(table, row[0], highest)
        return highest

    def _keep(
        self,
        table: Table,
        rows: Rows,
        groups: Groups,
        own: dict[Plain, Plain],
        highest: Plain,
        unknown: Set[int],
    ) -> None:
        """Keep the rows that are another record: the record that has their key gets another one, or is the row that is
        the same in all but its key, since it has been restored this way before."""
        is_another = self._is_another(table, unknown)
        if is_another is None or table.key_is_data:
            return
        #: Key of a record whose row is plainly another record -> digest of its values.
        strangers: dict[Plain, bytes] = {}
        moved, emptied = self._moved(table), self.emptied.get(table.label, {})
        for batch in rows():
            remapped = self.key_map.remap_references(table, [row for row in batch if row[0] not in own])
            others: list[Row] = []
            for keys in self._database.portions(table, [row[0] for row in remapped]):
                current = self._database.rows_by_key(table, keys)
                for row in remapped:
                    here = current.get(row[0])
                    if here is None or is_same_person(table, here, row):
                        continue
                    if is_another(here, _like(_with(row, moved), here, emptied.get(row[0], ()))):
                        others.append(row)
            for row, matches in zip(others, self.matches(table, others, groups), strict=True):
                if not matches:  # otherwise its unique values say that it is that row after all
                    strangers[row[0]] = _digest(row, unknown)
        own.update(self._rows_alike(table, rows, strangers, own, unknown) if strangers else {})
        for key in strangers:
            if key not in own:
                highest = own[key] = self._fresh(table, key, highest)

    def _moved(self, table: Table) -> dict[int, dict[Plain, Plain]]:
        """Return the position of each reference by another field than the key -> value in the backup -> value here, of
        the rows whose value the restore changes. So whoever refers to one by both values refers to the same row."""
        moved: dict[int, dict[Plain, Plain]] = {}
        for place, label, column in table.references_by_field:
            values = moved.setdefault(place, {})
            for target in [target for target in self._rows if target.label == label]:
                there = target.columns.index(column)
                for batch in self._rows[target]():
                    rows = self.key_map.remap(target, batch)
                    for keys in self._database.portions(target, [row[0] for row in rows]):
                        current = self._database.rows_by_key(target, keys)
                        here = {row[there]: current[row[0]][there] for row in rows if row[0] in current}
                        values.update((value, other) for value, other in here.items() if value != other)
        return moved

    def _rows_alike(
        self,
        table: Table,
        rows: Rows,
        strangers: Mapping[Plain, bytes],
        own: Mapping[Plain, Plain],
        unknown: Set[int],
    ) -> dict[Plain, Plain]:
        """Return key of a record -> key of the row here that is the same in all but its key. Each row is used once."""
        # A file may have any number of these, so each digest is held once.
        wanted = {digest: digest for digest in strangers.values()}
        candidates: dict[Plain, bytes] = {}
        for columns in self._database.batches(table):
            digests = {row[0]: _digest(row, unknown) for row in zip(*columns, strict=True)}
            candidates.update((key, wanted[digest]) for key, digest in digests.items() if digest in wanted)
        taken = {*own.values()}
        for batch in rows() if candidates else ():
            taken.update(
                row[0]
                for row in batch
                if row[0] in candidates and row[0] not in strangers and row[0] not in own
            )
        wanted = {digest: digest for digest in candidates.values()}
        alike = {key: digest for key, digest in strangers.items() if digest in wanted}
        self._add_attached(table, alike, here=False)
        self._add_attached(table, candidates, here=True)
        waiting: dict[bytes, list[Plain]] = {}
        for key, digest in alike.items():
            waiting.setdefault(digest, []).append(key)
        same_rows: dict[Plain, Plain] = {}
        for key, digest in candidates.items():
            if key not in taken and waiting.get(digest):
                same_rows[waiting[digest].pop(0)] = key
        return same_rows

    def _add_attached(self, table: Table, digests: dict[Plain, bytes], *, here: bool) -> None:
        """Add what is attached to rows to their digests, by key. `here`: they are rows here, not the backup's."""
        is_number = table.key.kind is INTEGER
        keys = {} if is_number else {str(key): key for key in digests}
        attached_texts: dict[Plain, list[str]] = {}
        for other, rows in self.attached:
            batches = (list(zip(*columns, strict=True)) for columns in self._database.batches(other))
            for batch in batches if here else rows():
                # Attached records refer to this one by its key in the backup, and to others by their keys here.
                remapped = batch if here else self.key_map.remap_references(other, batch)
                for row, values in zip(batch, remapped, strict=True):
                    for type_place, place in other.generics:
                        key = key_in(row[place]) if is_number else keys.get(str(row[place]))
                        if key in digests and owner_of(row[type_place]) == table.label:
                            rest = [v for p, v in enumerate(values) if p not in (0, type_place, place)]
                            attached_texts.setdefault(key, []).append(f"{other.label} {rest!r}")
        for key, texts in attached_texts.items():
            digests[key] = _digest((key, digests[key], *sorted(texts)))

    def _apart_by(self, table: Table) -> list[list[int]]:
        """Return what tells that a row here is another record than the one with its key in the backup, and stays; [] if
        none does. Here, a row that is plainly another record is replaced, unless rows refer to it that are not
        restored."""
        return apart_by(table) if table.label in self._in_use else []

    def _is_another(self, table: Table, unknown: Set[int]) -> Callable[[Row, Row], bool] | None:
        """Return a function that tells whether a row here is another record, as far as that is known; None if none
        is."""
        sets = [[place for place in places if place not in unknown] for places in self._apart_by(table)]
        return (lambda current, row: are_apart(current, row, sets)) if sets else None

    def _claim(
        self,
        table: Table,
        row: Row,
        key: Plain,
        matches: list[Plain],
        claimed: dict[Plain, Plain],
        own: dict[Plain, Plain],
    ) -> None:
        """Decide which row a record is. `key`: its own, remapped; `matches`: keys of rows with its unique values."""
        if babybuddy.apart(table):
            self.matched.setdefault(table.label, set()).update(matches)
        if len(matches) > 1 or (matches and table.key.refers_to and matches != [key]):
            rows_here = [*{*matches, key}]
            keys = ", ".join(str(table.key.shown(key)) for key in rows_here)
            reason = _("it matches the rows %(keys)s here by different unique values") % {"keys": keys}
            self._conflict(table, row, rows_here, reason)
        elif matches and matches[0] != key:
            (match,) = matches
            if match in claimed:
                self._conflict(table, row, [match], _claimed_twice(table, match))
            claimed[match] = row[0]
            if table.key_is_data:
                self.displaced.setdefault(table.label, []).append(match)
            else:
                own[row[0]] = match

    def matches(self, table: Table, rows: Sequence[Row], groups: Groups) -> list[list[Plain]]:
        """Return, for each row, the keys of the rows here that hold the same values in one of the groups of columns,
        which are unique."""
        keys_here: list[list[Plain]] = [[] for _row in rows]
        groups = [*groups, (0,)] if table.key_is_data else groups
        present = self._database.rows_by_key(table, [row[0] for row in rows]) if groups else {}
        for group in groups:
            unknown = []
            for place, row in enumerate(rows):
                # If the row with the same key holds the same unique values, no other row does.
                current = present.get(row[0])
                if current is not None and all(row[i] == current[i] and row[i] is not None for i in group):
                    if group != (0,) and row[0] not in keys_here[place]:
                        keys_here[place].append(row[0])
                else:
                    unknown.append(place)
            answers = self._database.matches(table, group, [rows[place] for place in unknown])
            for place, keys in zip(unknown, answers, strict=True):
                keys = self._alike(table, rows[place], keys, group)
                # If no constraint makes the values unique, take the row with the record's key, else the first one.
                if len(keys) > 1:
                    keys = [rows[place][0]] if rows[place][0] in keys else [min(keys)]
                keys_here[place] += [key for key in keys if key not in keys_here[place]]
        return keys_here

    def _alike(self, table: Table, row: Row, keys: list[Plain], group: Sequence[int]) -> list[Plain]:
        """Return the keys of the rows that really have a record's values, and not only by the database's collation."""
        if not keys or self.is_alike is None or not any(table.columns[p].kind is TEXT for p in group):
            return keys
        current = self._database.rows_by_key(table, keys)
        return [key for key in keys if key not in current or self.is_alike(table, row, current[key], group)]

    def _fresh(self, table: Table, key: Plain, highest: Plain) -> Plain:
        """Return a key that no row and no record has, for the record with a key; the same one each time."""
        if table.key.kind is INTEGER:
            first, hanging = int(highest or 0) + 1, self.hanging(table)
            return next(number for number in count(first) if number not in hanging)
        fresh = self._fresh_keys.setdefault(table.label, {})
        if key not in fresh:
            fresh[key] = table.key.kind.dump(table.key.field.get_default())
        return fresh[key]

    def _conflict(self, table: Table, row: Row, rows_here: list[Plain], reason: str) -> None:
        if len(self.conflicts) < MAX_NAMED:
            self.conflicts.append(Conflict(table, row, rows_here, reason))


class KeptRows(MatchedRows):
    """Like `MatchedRows`, but a row that is plainly another record stays. The record is then the row that is the same
    in all but its key, or it gets a fresh key."""

    def _apart_by(self, table: Table) -> list[list[int]]:
        return apart_by(table)


class BackupKeys(KeptRows):
    """Records keep the backup's keys, except those of models that are `in_use`: there, every row with other unique
    values counts as another record."""

    def resolves(self, table: Table) -> bool:
        return table.label in self._in_use

    def _apart_by(self, table: Table) -> list[list[int]]:
        return []

    def _is_another(self, table: Table, unknown: Set[int]) -> Callable[[Row, Row], bool]:
        return lambda current, row: True


#: The resolver of each mode.
RESOLVERS: dict[RestoreMode, type[Resolver]] = {
    RestoreMode.CLEAR: BackupKeys,
    RestoreMode.OVERWRITE: MatchedRows,
    RestoreMode.KEEP_BOTH: KeptRows,
}


def _claimed_twice(table: Table, key: Plain) -> str:
    return _("it matches row %(key)s here, as another record does") % {"key": table.key.shown(key)}


def _with(row: Row, moved: Mapping[int, Mapping[Plain, Plain]]) -> Row:
    """Return a row with some values exchanged. `moved`: position -> value -> the one in its place."""
    if not moved:
        return row
    return tuple(moved.get(place, {}).get(value, value) for place, value in enumerate(row))


def _like(row: Row, here: Row, places: Collection[int]) -> Row:
    """Return a row with the values of the one here at some positions."""
    return (
        tuple(here[place] if place in places else value for place, value in enumerate(row)) if places else row
    )


def _highest(highest: Plain, rows: Iterable[Row]) -> Plain:
    keys = [row[0] for row in rows if isinstance(row[0], int)]
    return max([*keys, highest or 0])


def _digest(row: Row, without: Set[int] = frozenset()) -> bytes:
    """Return a digest of the values of a row, without its key and some others."""
    values = repr(tuple(value for place, value in enumerate(row) if place and place not in without))
    return hashlib.blake2b(values.encode(), digest_size=16).digest()

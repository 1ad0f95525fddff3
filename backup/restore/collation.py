"""Finds different texts that the database considers the same: in some collations, "Milk" equals "milk", and all emoji
are equal. A unique column can hold only one of them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from django.utils.translation import gettext as _

from .. import babybuddy
from ..archive.reader import Archive
from ..database import MAX_NAMED, Database
from ..kinds import TEXT, Plain
from ..tables import Row, Table
from .apart import is_same_person
from .identity import Conflict
from .records import RecordReader

#: Yields a table's rows as the backup has them.
Rows = Callable[[], Iterable[Sequence[Row]]]
#: Characters beyond the first 65,536, as they are in JSON.
_ASTRAL = re.compile(rb"[\xf0-\xf4]|\\\\u[dD][89a-fA-F]")


def is_same_text(text: Plain, other: Plain) -> bool:
    """Tell whether two texts mean the same to people: they only differ in case, width and trailing blanks."""
    return bool(_folded(text) == _folded(other))


def are_alike(_table: Table, row: Row, current: Row, group: Sequence[int]) -> bool:
    """Tell whether a row that the database found by unique texts of a record has the same ones to people."""
    return _first_difference(row, current, group) is None


def _first_difference(row: Row, current: Row, group: Sequence[int]) -> int | None:
    return next((place for place in group if not is_same_text(row[place], current[place])), None)


def _folded(text: Plain) -> Plain:
    return unicodedata.normalize("NFKC", text).casefold().rstrip() if isinstance(text, str) else text


def collation_conflicts(database: Database, table: Table, rows: Rows) -> list[Conflict]:
    """Return conflicts of records that have the same unique text as another record, by the database's collation."""
    conflicts = []
    for group, first, row, collation in _alike(database, table, rows):
        place = next(place for place in group if first[place] != row[place])
        conflicts.append(collation_conflict(database, table, row, place, first[place], first[0], collation))
    return conflicts[:MAX_NAMED]


def collation_conflict(
    database: Database,
    table: Table,
    row: Row,
    place: int,
    other: Plain,
    key: Plain,
    collation: str,
    *,
    is_here: bool = False,
) -> Conflict:
    """Return the conflict of a record with another one, of which `other` is the text, `key` the key. `is_here`: that is
    no record but a row here.

    `row`: the record. `place`: the column of the text.
    """
    column = table.columns[place]
    text = _(
        "its %(field)s “%(value)s” is the same as “%(other)s” of %(model)s %(key)s to this database (%(collation)s)"
    )
    if is_here:
        text = _(
            "its %(field)s “%(value)s” is the same as “%(other)s” of %(model)s %(key)s here to this database "
            "(%(collation)s)"
        )
    reason = text % {
        "field": column.name,
        "value": column.shown(row[place]),
        "other": column.shown(other),
        "model": table.label,
        "key": table.key.shown(key),
        "collation": collation,
    }
    return Conflict(table, row, [], reason, statement=database.distinguishing(table), same_as=key)


class Likeness:
    """Tells whether a row here that the database found by unique texts of a record really matches it: see
    `Resolver.is_alike`.

    If it does not, because the collation ignores a difference that people see, a conflict is added to `conflicts`.
    `merges`: it does all the same where that may be.
    """

    def __init__(self, database: Database, conflicts: list[Conflict], *, merges: bool) -> None:
        self._database, self._conflicts, self._merges = database, conflicts, merges
        #: (label of the model, key of a row here) -> its text, and the one that it gets.
        self._merged: dict[tuple[str, Plain], tuple[Plain, Plain]] = {}

    def __call__(self, table: Table, row: Row, current: Row, group: Sequence[int]) -> bool:
        place = _first_difference(row, current, group)
        if place is None or is_same_person(table, current, row):
            return True
        if self._merges and table.label in babybuddy.MERGEABLE:
            self._merged.setdefault((table.label, current[0]), (current[place], row[place]))
            return True
        known = {(conflict.table.label, conflict.row[0]) for conflict in self._conflicts}
        if (table.label, row[0]) not in known and len(self._conflicts) < MAX_NAMED:
            collation = self._database.collation(table, table.columns[place])
            self._conflicts.append(
                collation_conflict(
                    self._database, table, row, place, current[place], current[0], collation, is_here=True
                )
            )
        return False

    def warnings(self) -> list[str]:
        """Return warnings about the rows here that are merged with a record."""
        text = _("“%(other)s” here becomes “%(value)s”, since this database takes them for the same.")
        pairs = [*self._merged.values()][:MAX_NAMED]
        return [text % {"value": value, "other": other} for other, value in pairs]


def merge(reader: RecordReader, database: Database, tables: Sequence[Table]) -> list[str]:
    """Let the reader merge records that are the same to the database, and that may be merged. Returns warnings."""
    warnings: list[str] = []
    merged: dict[str, Mapping[Plain, Plain]] = {}
    quiet = reader.quiet()
    for table in tables:
        if table.label in babybuddy.MERGEABLE:
            merged[table.label], lines = _merges(database, table, partial(quiet.rows, table))
            warnings += lines
    reader.merged = merged
    reader.merged = merged | {
        table.label: _twice(reader.quiet(), table, merged)
        for table in tables
        if table.label in babybuddy.ATTACHED
    }
    return warnings


def _twice(
    reader: RecordReader, table: Table, merged: Mapping[str, Mapping[Plain, Plain]]
) -> dict[Plain, Plain]:
    """Return key -> key of an earlier record that is the same in all but its key, since both refer to records that are
    merged into one."""
    merging = [(place, {*merged[label].values()}) for place, label in table.references if merged.get(label)]
    first: dict[Row, Plain] = {}
    twice: dict[Plain, Plain] = {}
    for rows in reader.rows(table) if merging else ():
        for row in rows:
            if any(row[place] in keys for place, keys in merging):
                key = first.setdefault(row[1:], row[0])
                if key != row[0]:
                    twice[row[0]] = key
    return twice


def _merges(database: Database, table: Table, rows: Rows) -> tuple[dict[Plain, Plain], list[str]]:
    """Return key of a record -> key of the record that it is merged with; and warnings about that."""
    merged: dict[Plain, Plain] = {}
    warnings = []
    for group, first, row, _collation in _alike(database, table, rows):
        if row[0] not in merged:
            merged[row[0]] = first[0]
            place = next(place for place in group if first[place] != row[place])
            text = _("“%(value)s” and “%(other)s” become one, since this database takes them for the same.")
            warnings.append(text % {"value": first[place], "other": row[place]})
    for key in [*merged]:  # the other record may itself be merged with a third, by another unique text
        chain = [key]
        while chain[-1] in merged:
            chain.append(merged[chain[-1]])
        merged.update(dict.fromkeys(chain[:-1], chain[-1]))
    return merged, warnings[:MAX_NAMED]


def _alike(database: Database, table: Table, rows: Rows) -> Iterator[tuple[tuple[int, ...], Row, Row, str]]:
    """Yield pairs of records whose unique texts differ, but are the same to the database.

    Each is a tuple: positions of the unique columns, the record, a later record, name of the collation.
    """
    for group in [*table.uniques, (0,)] if not table.key.refers_to else table.uniques:
        collations = {
            place: collation
            for place in group
            if table.columns[place].kind is TEXT
            and (collation := database.collation(table, table.columns[place]))
        }
        if not collations or [table.columns[place].name for place in group] in babybuddy.IDENTITIES.get(
            table.label, ()
        ):
            continue
        seen: dict[tuple[Plain, ...], Row] = {}
        for batch in rows():
            columns = []
            for place in group:
                values = [row[place] for row in batch]
                columns.append(
                    weights_of(database, collations[place], values) if place in collations else values
                )
            for row, weights in zip(batch, zip(*columns, strict=True), strict=True):
                if None in weights:
                    continue
                first = seen.setdefault(weights, row)
                if any(first[place] != row[place] for place in group):
                    yield group, first, row, next(iter(collations.values()))


def weights_of(database: Database, collation: str, texts: Sequence[Plain]) -> list[Plain]:
    """Return the weight of each text, see `Database.weights`. The database computes that of equal texts once."""
    distinct = [*dict.fromkeys(texts)]
    weights = dict(zip(distinct, database.weights(collation, distinct), strict=True))
    return [weights[text] for text in texts]


def too_narrow(database: Database, archive: Archive, tables: Sequence[Table]) -> list[str]:
    """Return an SQL statement for each table here that cannot hold every character of its records, which changes it so
    that it can."""
    if not database.without_all_characters(tables):
        return []
    statements = []
    for table in tables:
        wanted = database.without_all_characters([table])
        if wanted and any(_ASTRAL.search(lines.text) for lines in archive.lines(table.label)):
            statements += wanted
    return statements

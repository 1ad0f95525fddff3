"""Find texts that the database takes for the same although they are not: by its collation, "Milk" may be "milk", and
every emoji every other. A unique column holds one of them only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

from django.utils.translation import gettext as _

from .. import babybuddy
from ..archive.reader import Archive
from ..database import MAX_NAMED, Database
from ..kinds import TEXT, Plain
from ..tables import HIDDEN, Row, Table
from .identity import Conflict

#: Yields a table's rows as the backup has them.
Rows = Callable[[], Iterable[Sequence[Row]]]
#: Characters beyond the first 65,536, as they are in JSON.
_ASTRAL = re.compile(rb"[\xf0-\xf4]|\\\\u[dD][89a-fA-F]")


def is_same_text(text: Plain, other: Plain) -> bool:
    """Tell whether two texts differ in nothing but case, width and blanks at the end: people mean the same by them."""
    return bool(_folded(text) == _folded(other))


def _folded(text: Plain) -> Plain:
    return unicodedata.normalize("NFKC", text).casefold().rstrip() if isinstance(text, str) else text


def collation_conflicts(database: Database, table: Table, rows: Rows) -> list[Conflict]:
    """Return the records of which the database would take a unique text for that of another record."""
    conflicts = []
    for group, first, row, collation in _alike(database, table, rows):
        place = next(place for place in group if first[place] != row[place])
        conflicts.append(collation_conflict(database, table, row, place, first[place], first[0], collation))
    return conflicts[:MAX_NAMED]


def collation_conflict(
    database: Database, table: Table, row: Row, place: int, other: Plain, key: Plain, collation: str
) -> Conflict:
    """Return a conflict of a record with another record, or a row here. `other`, `key`: its text and its key."""
    is_secret = table.label in babybuddy.SECRET_KEYS
    reason = _(
        "its %(field)s “%(value)s” is the same as “%(other)s” of %(model)s %(key)s to this database (%(collation)s)"
    ) % {
        "field": table.columns[place].name,
        "value": HIDDEN if is_secret and not place else row[place],
        "other": HIDDEN if is_secret and not place else other,
        "model": table.label,
        "key": HIDDEN if is_secret else key,
        "collation": collation,
    }
    return Conflict(table, row, [], reason, statement=database.distinguishing(table), same_as=key)


def merges(database: Database, table: Table, rows: Rows) -> tuple[dict[Plain, Plain], list[str]]:
    """Return key of a record -> key of the record that it becomes one with, and what is to be said of it."""
    merged: dict[Plain, Plain] = {}
    warnings = []
    for group, first, row, _collation in _alike(database, table, rows):
        if row[0] not in merged:
            merged[row[0]] = first[0]
            place = next(place for place in group if first[place] != row[place])
            text = _("“%(value)s” and “%(other)s” become one, since this database takes them for the same.")
            warnings.append(text % {"value": first[place], "other": row[place]})
    for key in [*merged]:  # one that another becomes may itself become a third, by another unique text
        chain = [key]
        while chain[-1] in merged:
            chain.append(merged[chain[-1]])
        merged.update(dict.fromkeys(chain[:-1], chain[-1]))
    return merged, warnings[:MAX_NAMED]


def _alike(database: Database, table: Table, rows: Rows) -> Iterator[tuple[tuple[int, ...], Row, Row, str]]:
    """Yield the unique columns, a record and a later one that are the same in them to the database, but not to the
    letter, and the collation."""
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
                columns.append(database.weights(collations[place], values) if place in collations else values)
            for row, weights in zip(batch, zip(*columns, strict=True), strict=True):
                if None in weights:
                    continue
                first = seen.setdefault(weights, row)
                if any(first[place] != row[place] for place in group):
                    yield group, first, row, next(iter(collations.values()))


def too_narrow(database: Database, archive: Archive, tables: Sequence[Table]) -> list[str]:
    """Return for each table here that cannot hold every character of its records the statement that mends that."""
    if not database.without_all_characters(tables):
        return []
    statements = []
    for table in tables:
        wanted = database.without_all_characters([table])
        if wanted and any(_ASTRAL.search(lines.text) for lines in archive.lines(table.label)):
            statements += wanted
    return statements

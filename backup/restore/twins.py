"""Finds records of a backup that have the same unique values, as after a line of an edited file was copied. The
database would refuse the second one, after everything else was done, and in its own words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from django.utils.translation import gettext as _

from ..database import MAX_NAMED
from ..kinds import Plain
from ..tables import Row, Table
from .identity import Conflict

#: How many records are compared with one another at once. For more, they are read several times.
AT_ONCE = 256 * 1024

#: Yields a table's rows as the backup has them.
Rows = Callable[[], Iterable[Sequence[Row]]]


def twins(table: Table, rows: Rows, records: int, at_once: int = AT_ONCE) -> list[Conflict]:
    """Return conflicts of records whose values in a unique constraint are those of an earlier one.

    `records`: how many there are. `at_once`: as `AT_ONCE`.
    """
    conflicts: list[Conflict] = []
    for group in table.uniques:
        if group in table.identities:
            continue  # no constraint, so there may be several
        fields = ", ".join(table.columns[place].name for place in group)
        for row, other in _pairs(group, rows, 1 + records // at_once):
            reason = _("it has the same %(fields)s as %(model)s %(key)s, but no two may have the same") % {
                "fields": fields,
                "model": table.label,
                "key": table.key.shown(other),
            }
            conflicts.append(Conflict(table, row, [], reason, same_as=other))
    return conflicts[:MAX_NAMED]


def _pairs(group: Sequence[int], rows: Rows, parts: int) -> Iterator[tuple[Row, Plain]]:
    """Yield each record whose values in the columns `group` an earlier one has, too, and the key of that one.

    Memory holds only digests, of one of `parts` parts of the records at a time.
    """
    for part in range(parts):
        seen: set[int] = set()
        twice: set[int] = set()
        for _row, digest in _digests(group, rows, parts, part):
            (twice if digest in seen else seen).add(digest)
            if len(twice) > MAX_NAMED:
                break
        first: dict[int, Row] = {}
        for row, digest in _digests(group, rows, parts, part) if twice else ():
            if digest in twice:
                other = first.setdefault(digest, row)
                if other[0] != row[0] and all(other[place] == row[place] for place in group):
                    yield row, other[0]


def _digests(group: Sequence[int], rows: Rows, parts: int, part: int) -> Iterator[tuple[Row, int]]:
    """Yield the records of a part with a digest of their values in the columns `group`, unless one is null."""
    for batch in rows():
        for row in batch:
            values = [row[place] for place in group]
            if None not in values:
                data = hashlib.blake2b(repr(values).encode(errors="surrogatepass"), digest_size=8).digest()
                digest = int.from_bytes(data, "big")
                if digest % parts == part:
                    yield row, digest

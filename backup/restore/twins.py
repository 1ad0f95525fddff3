"""Finds records of a backup that have the same unique values, as after a line of an edited file was copied. The
database would refuse the second one, after everything else was done, and in its own words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice

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
        # Of a file with one record many times, no more than are named.
        for row, other in islice(_pairs(group, rows, 1 + records // at_once), MAX_NAMED):
            reason = _("it has the same %(fields)s as %(model)s %(key)s, but no two may have the same") % {
                "fields": fields,
                "model": table.label,
                "key": table.key.shown(other),
            }
            conflicts.append(Conflict(table, row, [], reason, same_as=other))
    return conflicts[:MAX_NAMED]


def _pairs(group: Sequence[int], rows: Rows, parts: int) -> Iterator[tuple[Row, Plain]]:
    """Yield each record whose values in the columns `group` an earlier one has, too, and the key of that one.

    Memory holds only hashes, of one of `parts` parts of the records at a time.
    """

    def hashes(part: int) -> Iterator[list[int]]:
        for batch in rows():
            of_batch = [_hash([row[place] for place in group]) for row in batch]
            yield [value for value in of_batch if value is not None and value % parts == part]

    for part in range(parts):
        seen: set[int] = set()
        count = 0
        for block in hashes(part):
            seen.update(block)
            count += len(block)
        if len(seen) == count:
            continue
        counts = Counter(chain.from_iterable(hashes(part)))
        twice = {*islice((value for value, times in counts.items() if times > 1), MAX_NAMED)}
        first: dict[int, Row] = {}
        for row in chain.from_iterable(rows()):
            value = _hash([row[place] for place in group])
            if value in twice:
                other = first.setdefault(value, row)
                if other[0] != row[0] and all(other[place] == row[place] for place in group):
                    yield row, other[0]


def _hash(values: list[Plain]) -> int | None:
    """Return a hash of values; None if one of them is null, since such records may be there twice."""
    if None in values:
        return None
    try:
        return hash(tuple(values))
    except TypeError:  # a list, say
        return hash(repr(values))

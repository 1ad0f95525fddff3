"""The comparison of texts by itself, without a database: far more cases than those that are restored."""

from itertools import accumulate, pairwise
from types import SimpleNamespace

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from backup.archive.limits import Limits
from backup.archive.lines import start_of
from backup.archive.reader import Archive
from backup.restore import compare
from backup.restore.batches import UniqueKeys
from tests.support.properties import examples

LABEL = "zoo.thing"
TABLE = SimpleNamespace(
    label=LABEL,
    record_template=[b'{"model":"zoo.thing","pk":', b',"fields":{"text":', b',"json":', b"}}"],
    needs_exact_json=True,
)
LIKE_A_RECORD = {"model": LABEL, "pk": 2, "fields": {"text": "", "json": 1}}
VALUES = st.sampled_from([None, 7, [7, LIKE_A_RECORD], [LIKE_A_RECORD, LIKE_A_RECORD], "x" * 40])
TEXTS = st.sampled_from(["", "a", "b" * 30, ',\n{"model":"zoo.thing","pk":2,', '"},{"', '}},\n{"model'])
KEYS = st.integers(-9, 30) | st.integers(10**18 - 3, 10**18 + 3)
ROWS = st.dictionaries(KEYS, st.tuples(TEXTS, VALUES), max_size=20)


class File(Archive):
    """A file with these records, read in blocks that end where a record begins, `together` records each.

    `is_split`: whether a list of what looks like records takes a line for each.
    """

    def __init__(self, records, together, is_split):
        lines = [orjson.dumps({"model": LABEL, "pk": key, "fields": fields}) for key, fields in records]
        if is_split:
            lines = [line.replace(b"[{", b"[\n{").replace(b'},{"model"', b'},\n{"model"') for line in lines]
        self._text = b"[\n%b\n]\n" % b",\n".join(lines)
        begins = accumulate((len(line) + len(b",\n") for line in lines), initial=len(b"[\n"))
        self._ends = [begin + len(start_of(LABEL)) for begin in [*begins][together::together]]
        self._limits = Limits()
        member = SimpleNamespace(file="zoo/thing.json", records=len(lines))
        self.metadata = SimpleNamespace(models={LABEL: member}, is_edited=False, is_sealed=True)

    def read(self, member):
        for start, end in pairwise([0, *self._ends, None]):
            yield self._text[start:end]


class Reader:
    """A reader of records that counts nothing."""

    def __init__(self, archive):
        self.archive = archive

    def unique_keys(self, table):
        return UniqueKeys(table, in_order=True)

    def accept(self, table, unique, keys, *, rising=False):
        unique.check(keys, rising=rising)

    def batch_from(self, table, records):
        return columns_of((r["pk"], r["fields"]["text"], r["fields"]["json"]) for r in records)

    def collect(self, *args):
        pass

    def collect_difference(self, *args):
        pass


class Here:
    """The rows of a database. `longest`: of texts with more characters it only says that they are long."""

    def __init__(self, rows, longest):
        self._rows, self._longest = rows, longest

    def prefetch_range(self, table, after, last, limit):
        rows = [row for row in self._rows if (after is None or row[0] > after) and row[0] <= last]
        are_long = any(len(row[1]) > self._longest for row in rows[:limit])
        return lambda: None if are_long else columns_of(rows[:limit])

    def canonical(self, table, batch):
        return batch


def columns_of(rows):
    return [list(column) for column in zip(*rows, strict=True)]


def flat(rows):
    return sorted((key, *values) for key, values in rows.items())


@examples(300)
@given(
    here=ROWS,
    changes=st.dictionaries(KEYS, st.none() | st.tuples(TEXTS, VALUES), max_size=4),
    piece=st.integers(1, 64),
    together=st.sampled_from([1, 3, 100]),
    is_split=st.booleans(),
    longest=st.sampled_from([9999, 1]),
)
@example(
    here=dict.fromkeys([-2, -1, 1, 3], ("", 7)),
    changes={-1: None},
    piece=1,
    together=3,
    is_split=False,
    longest=9999,
)
@example(
    here=dict.fromkeys(range(1, 9), ("", 7)) | {6: ("", [LIKE_A_RECORD, LIKE_A_RECORD])},
    changes={10: ("", 7)},
    piece=1,
    together=3,
    is_split=True,
    longest=9999,
)
def test_what_stays_and_what_is_written_are_the_records(here, changes, piece, together, is_split, longest):
    """Neither negative keys nor JSON values that look like records are in the way."""
    records = {key: values for key, values in (here | changes).items() if values is not None}
    if is_split:  # else the last block could be cut inside of a list, which only `read_elements` can tell
        records[2 * 10**18] = ("", 7)
    file = File(((k, {"text": t, "json": j}) for k, t, j in flat(records)), together, is_split)
    put, gone = [], []
    old, compare.PIECE = compare.PIECE, piece
    try:
        count, identical = compare.TextComparison(
            Reader(file),
            Here(flat(here), longest),
            lambda table, columns: put.extend(zip(*columns, strict=True)),
            lambda table, ranges: gone.extend(ranges),
        ).compare(TABLE)
    finally:
        compare.PIECE = old
    stay = [row for row in flat(here) if not any(first <= row[0] <= last for first, last in gone)]
    key = orjson.dumps
    assert sorted(map(key, [*stay, *put])) == sorted(map(key, flat(records)))
    assert (count, identical.count) == (len(records), len(records) - len(put))
    if identical.up_to is not None:
        assert identical.rows_read == sum(key <= identical.up_to for key in here)

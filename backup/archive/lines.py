"""Converts batches of records to the JSON text of a backup file, and back.

It writes one record a line (`lines_of`). It reads every JSON array of objects, whatever its layout (`read_lines`): fast
if the layout is ours, otherwise element by element.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import chain
from typing import Any

import orjson

from .limits import Limits

# -- writing ---


BETWEEN = b",\n"


def lines_of(template: Sequence[bytes], columns: Sequence[Sequence[Any]]) -> bytes:
    """Return records as JSON text: one a line, with a comma and a line break between them.

    `columns`: the values, one sequence for each column; there is at least one record. `template`: the record template,
    that is, the constant texts before each value and after the last. Joining whole columns is faster than making a dict
    of each record first.
    """
    row: list[bytes] = []
    for before in template[:-1]:
        row += [before, b""]
    row.append(template[-1] + BETWEEN)
    pieces = row * len(columns[0])
    for place, values in enumerate(columns):
        pieces[2 * place + 1 :: len(row)] = _texts(values)
    pieces[-1] = template[-1]
    return b"".join(pieces)


def _texts(values: Sequence[Any]) -> list[bytes]:
    """Return each value as JSON. They are dumped all at once, which is several times as fast as one by one."""
    with suppress(TypeError):  # a whole number beyond 64 bits inside a JSON value
        texts = orjson.dumps(values)[1:-1].split(b",")
        if len(texts) == len(values):
            return texts
        if not texts[0].startswith(_NESTED):
            # A value contains commas. Dump each value on a line of its own: JSON texts contain no line breaks. This
            # fails only for lists and objects, which take several lines.
            text = orjson.dumps(values, option=orjson.OPT_INDENT_2)
            if all(text.find(begin + b"\n", 1) < 0 for begin in _NESTED):
                return text[4:-2].split(b",\n  ")
    # Many rows often share an object, such as a natural key: dump each object once.
    numbers = list(map(id, values))
    known = {number: text_of(value) for number, value in dict(zip(numbers, values, strict=True)).items()}
    return list(map(known.__getitem__, numbers))


#: The first byte of a JSON array, and of an object.
_NESTED = (b"[", b"{")


def text_of(value: Any) -> bytes:
    """Return a value, or a record, as JSON."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


# -- reading ---


class LayoutError(ValueError):
    """The text is no JSON array of objects."""


class RecordTooLongError(ValueError):
    """A record is longer than the limit, or would be in memory."""


class RecordTooDeepError(LayoutError):
    """The lists and objects in a record are nested more deeply than the parser reads."""


class TooManyValuesError(ValueError):
    """A record has more values than the limit."""


class Lines:
    """A batch of a model's records, at least one, as JSON text.

    It is only split into records if `each` is used, since comparing all of the text at once is faster.
    """

    def __init__(self, text: bytes, start: bytes, each: list[bytes] | None = None) -> None:
        """`text`: one record a line, with a comma and a line break between them. `start`: the beginning of every
        record. `each`: the records, if they are known already."""
        self.text = text
        self._start = start
        self._each = each

    @cached_property
    def count(self) -> int:
        """How many records there seem to be. Quicker than to take them apart, and right but where a JSON value holds
        what looks like another record, or where records are laid out in a mixture of ways."""
        return self.text.count(self._start) if self._each is None else len(self._each)

    @cached_property
    def each(self) -> list[bytes]:
        """The records, each as its own JSON text."""
        if self._each is not None:
            return self._each
        lines = split_lines(self.text)
        return lines if len(lines) == self.count else split_records(self.text)

    def between(self, start: int, end: int) -> list[bytes]:
        """Return the records in a part of the text. Both its ends are between two records."""
        return Lines(self.text[start:end].removesuffix(BETWEEN), self._start).each

    @property
    def is_split(self) -> bool:
        """Whether the records are known already, and the text may have any layout."""
        return self._each is not None

    @property
    def has_one_a_line(self) -> bool:
        """Whether `each` are the lines of the text."""
        return self._each is None and self.text.count(BETWEEN) + 1 == self.count

    @property
    def last(self) -> bytes:
        """The last line."""
        if self._each is not None:
            return self._each[-1]
        between = self.text.rfind(BETWEEN)
        return self.text if between < 0 else self.text[between + len(BETWEEN) :]


#: After this many bytes without the beginning of a record, the layout is not ours, so the text is parsed.
_LONG = 4 * 1024 * 1024
#: A record of more bytes than this is a batch of its own.
_TOGETHER = 256 * 1024
#: How deeply lists and objects may be nested in a record: orjson reads no more.
DEEPEST = 1024


def start_of(label: str) -> bytes:
    """Return the beginning of a record of this model, as we write it."""
    return b'{"model":%b,' % text_of(label)


def read_lines(blocks: Iterator[bytes], label: str, limits: Limits) -> Iterator[Lines]:
    """Yield the records of a model's member in batches. `blocks`: its text. `limits`: of a record.

    As long as there is one record on each line, each block is only cut after its last whole line. (JSON strings contain
    no line breaks.) The rest, which is at least the last record, is read by `read_elements`.

    Raises `LayoutError`, `RecordTooLongError`, `RecordTooDeepError`, `TooManyValuesError`.
    """
    start = start_of(label)
    following = b"}" + BETWEEN + start
    waiting: list[bytes] = []  # not yielded yet; joined only once, since a long record has many blocks
    size = 0
    started = False
    for block in blocks:
        if not started and not waiting and not block.startswith(b"[\n" + start):
            waiting = [block]
            break
        end = block.rfind(following)
        if end < 0:
            waiting.append(block)
            size += len(block)
            if size > _LONG:
                break
            continue
        text = b"".join([*waiting, memoryview(block)[: end + 1]])
        yield Lines(text if started else text[2:], start)
        waiting, started = [block[end + 1 + len(BETWEEN) :]], True
        size = len(waiting[0])
    yield from read_elements(chain([b","] if started else [], waiting, blocks), limits, started=started)


def read_elements(blocks: Iterator[bytes], limits: Limits, *, started: bool = False) -> Iterator[Lines]:
    """Yield the records of a JSON array of any layout, in batches: some hundred kilobytes, or one long record.

    `started`: whether the text begins after a record. `limits`, errors: as in `read_lines`.
    """
    depth = 1 if started else 0
    separator = b"," if started else b""  # the content of the gap before an element, apart from white space
    in_string = closed = False
    unread = b""  # the beginning of an escape sequence, at the end of a block
    #: What earlier blocks hold of the current element, or of the gap before the next one. It is joined only once.
    pieces: list[bytes] = []
    values = 0  # how many lists and objects begin in the current element
    elements: list[bytes] = []

    def batch() -> Lines:
        nonlocal elements
        ready, elements = elements, []
        return Lines(BETWEEN.join(ready), b"", ready)

    for block in blocks:
        text = unread + block
        place = 0  # the text is scanned up to here
        start = 0  # where the current element or gap begins, or goes on
        while place < len(text):
            match = (_IN_STRING if in_string else _OUTSIDE).match(text, place)
            if match is None or match.end() == place:  # the text ends inside an escape sequence
                break
            mark = match[1]
            place = match.end()
            if mark == b'"':
                in_string = not in_string
                if depth <= 1:
                    raise LayoutError
            elif mark:
                opens = mark in b"[{"
                if depth <= 1:
                    gap = b"".join([*pieces, text[start : place - 1]]).strip(_WHITE_SPACE)
                    if depth == 0:
                        fits = mark == b"[" and not closed and gap in (b"", codecs.BOM_UTF8)
                    else:
                        fits = gap == separator if opens else mark == b"]" and not gap
                    if not fits:
                        raise LayoutError
                    start = place - 1 if depth == 1 and opens else place
                    pieces, values = [], 0
                depth += 1 if opens else -1
                closed = closed or depth == 0
                values += opens
                if values > limits.values or depth - 1 > DEEPEST:
                    if elements:
                        yield batch()
                    raise TooManyValuesError if values > limits.values else RecordTooDeepError
                if depth == 1 and not opens:
                    elements.append(b"".join([*pieces, text[start:place]]))
                    pieces, start, separator = [], place, b","
                    size = len(elements[-1])
                    if 4 * size > limits.record and weight(elements[-1]) > limits.record:
                        raise RecordTooLongError
                    if size > _TOGETHER:
                        yield batch()
        if elements:
            yield batch()
        pieces.append(text[start:place])
        unread = text[place:]
        if sum(map(len, pieces)) > limits.record:
            raise RecordTooLongError
    if not closed or b"".join([*pieces, unread]).strip(_WHITE_SPACE):
        raise LayoutError


def split_records(text: bytes) -> list[bytes]:
    """Return the elements of a part of a JSON array of any layout; if it is not one, the lines of the text."""
    array = iter([b"[", text, b"]"])
    with suppress(LayoutError, RecordTooLongError, TooManyValuesError):
        return list(chain.from_iterable(lines.each for lines in read_elements(array, Limits())))
    return split_lines(text)


def split_lines(text: bytes) -> list[bytes]:
    """Return the records in a text of `lines_of`, each as its own JSON text."""
    return text.split(BETWEEN)


def has_more_values(record: bytes, limit: int) -> bool:
    """Tell whether a record has more values than the limit: by counting commas and opening brackets outside of
    strings."""
    if sum(map(record.count, (b",", *_NESTED))) <= limit:
        return False
    plain = record.replace(b"\\\\", b"").replace(b'\\"', b"")  # without escaped quotes
    # Strings without a mark are dropped, and those that are not separated by one are joined, so that there are no more
    # strings to skip than marks to count.
    marks = plain.translate(None, _NO_MARKS).replace(b'""', b"")
    count = 0
    for match in _MARKS.finditer(marks):
        count += len(match[1])
        if count > limit:
            return True
    return False


def weight(record: bytes) -> int:
    """Return about how many bytes a record takes, at most: in the file, or as text in memory, where Python keeps every
    letter of a text in as many bytes as the widest one needs, which may be four."""
    width = 4 if _WIDEST.search(record) else 2 if _WIDE.search(record) else 1
    if width == 1:
        return len(record)
    parts = (record[start : start + _TOGETHER] for start in range(0, len(record), _TOGETHER))
    return max(len(record), width * sum(len(part.translate(None, _CONTINUING)) for part in parts))


#: Match what begins a letter of two bytes in memory, or of four: in UTF-8, or escaped.
_WIDE = re.compile(rb"[\xc4-\xf4]|\\u(?!00)")
_WIDEST = re.compile(rb"[\xf0-\xf4]|\\u[dD][89abAB]")
#: The bytes of UTF-8 that do not begin a letter.
_CONTINUING = bytes(range(0x80, 0xC0))


_WHITE_SPACE = b" \t\n\r"
# Repetitions are bounded, since Python's `re` needs a hundred bytes of memory for each repetition of a group.
#: Matches up to the next bracket, skipping whole strings; or up to a string that is too long or does not end here.
_OUTSIDE = re.compile(rb'[^]["{}]*(?:"[^"\\]*(?:\\.[^"\\]*){0,50}"[^]["{}]*){0,50}([]["{}]?)', re.DOTALL)
#: Matches the inside of such a string.
_IN_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*){0,1000}("?)', re.DOTALL)
#: All bytes but quotes, and what separates values or begins some.
_NO_MARKS = bytes({*range(256)} - {*b'",[{'})
#: Matches such marks, and skips the string that follows.
_MARKS = re.compile(rb'([^"]*)(?:"[^"]*"?)?')

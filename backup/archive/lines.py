"""Records as the JSON text that a backup file holds, a batch at a time: put together, and taken apart.

Written is one record a line (`lines_of`). Read is every JSON array of objects, however it is laid out (`read_lines`):
quickly where it is laid out as ours, else element by element.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import chain, islice
from typing import Any

import orjson

# -- writing ---


BETWEEN = b",\n"


def lines_of(frame: Sequence[bytes], columns: Sequence[Sequence[Any]]) -> bytes:
    """Return records as the file has them: one a line, a comma and a line break between them.

    `columns`: the values of the records, at least one, one sequence for each place. `frame`: what stands before each
    place, and behind the last. Joining whole columns is quicker than making a dict of each record first.
    """
    row: list[bytes] = []
    for before in frame[:-1]:
        row += [before, b""]
    row.append(frame[-1] + BETWEEN)
    pieces = row * len(columns[0])
    for place, values in enumerate(columns):
        pieces[2 * place + 1 :: len(row)] = _texts(values)
    pieces[-1] = frame[-1]
    return b"".join(pieces)


def _texts(values: Sequence[Any]) -> list[bytes]:
    """Return each value as JSON. All at once is several times as fast as one by one."""
    with suppress(TypeError):  # a whole number beyond 64 bits inside a JSON value
        texts = orjson.dumps(values)[1:-1].split(b",")
        if len(texts) == len(values):
            return texts
        if not texts[0].startswith(_NESTED):
            # A value has commas in it. Put each on a line of its own: in JSON, texts hold no line breaks. Only lists
            # and objects, which take several lines, cannot be told apart like this.
            text = orjson.dumps(values, option=orjson.OPT_INDENT_2)
            if all(text.find(begin + b"\n", 1) < 0 for begin in _NESTED):
                return text[4:-2].split(b",\n  ")
    # Often many rows hold the same object, a natural key for example: dump each once.
    numbers = list(map(id, values))
    known = {number: text_of(value) for number, value in dict(zip(numbers, values, strict=True)).items()}
    return list(map(known.__getitem__, numbers))


#: How a JSON array and an object begin.
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
    """A record is longer than the limit."""


class Lines:
    """A batch of a model's records, at least one, as JSON text. Only taken apart where somebody asks for `each`: to
    compare all of the text at once is quicker."""

    def __init__(self, text: bytes, start: bytes, each: list[bytes] | None = None) -> None:
        """`text`: one record a line, a comma and a line break between them. `start`: how a record begins. `each`: the
        records, if they are known already."""
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


#: Where so many bytes hold no beginning of a record, they are looked at more closely.
_LONG = 4 * 1024 * 1024


def start_of(label: str) -> bytes:
    """Return how a record of this model begins as we write it."""
    return b'{"model":%b,' % text_of(label)


def read_lines(blocks: Iterator[bytes], label: str, limit: int) -> Iterator[Lines]:
    """Yield the records of a model's member, given as its text, in batches.

    `limit`: bytes of a record. Raises `LayoutError`, `RecordTooLongError`.

    If records stand one a line, the text is only cut behind the last whole line of each block. (A line break is
    never inside a JSON string.) From where that is not so, and for the last record in any case, `read_elements` goes
    on.
    """
    start = start_of(label)
    following = b"}" + BETWEEN + start
    waiting: list[bytes] = []  # what is not yielded yet, put together once: a long record has many blocks
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
    yield from read_elements(chain([b","] if started else [], waiting, blocks), limit, started=started)


def read_elements(blocks: Iterator[bytes], limit: int, *, started: bool = False) -> Iterator[Lines]:
    """Yield the records of a JSON array, laid out in any way, in batches.

    `started`: the text begins behind a record. `limit`, errors: as in `read_lines`.
    """
    text = b""
    place = 0  # up to here the text is scanned
    start = 0  # here begins the element that is open, or the gap before the next one
    depth = 1 if started else 0
    separator = b"," if started else b""  # what a gap before an element holds, beside white space
    in_string = closed = False
    while True:
        elements: list[bytes] = []
        while place < len(text):
            match = (_IN_STRING if in_string else _OUTSIDE).match(text, place)
            if match is None or match.end() == place:  # the first half of an escape
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
                    gap = text[start : place - 1].strip(_WHITE_SPACE)
                    if depth == 0:
                        fits = mark == b"[" and not closed and gap in (b"", codecs.BOM_UTF8)
                    else:
                        fits = gap == separator if opens else mark == b"]" and not gap
                    if not fits:
                        raise LayoutError
                    start = place - 1 if depth == 1 and opens else place
                depth += 1 if opens else -1
                closed = closed or depth == 0
                if depth == 1 and not opens:
                    elements.append(text[start:place])
                    start, separator = place, b","
        if elements:
            yield Lines(BETWEEN.join(elements), b"", elements)
        text, place, start = text[start:], place - start, 0
        if len(text) > limit:
            raise RecordTooLongError
        # Double what is there each time, so that a long record is not joined over and over again.
        more, size = [text], 0
        while size <= min(len(text), limit - len(text)) and (block := next(blocks, b"")):
            more.append(block)
            size += len(block)
        if not size:
            break
        text = b"".join(more)
    if not closed or text.strip(_WHITE_SPACE):
        raise LayoutError


def split_records(text: bytes) -> list[bytes]:
    """Return the elements of a part of a JSON array, laid out in any way; the lines of the text where it is none."""
    array = iter([b"[", text, b"]"])
    with suppress(LayoutError):
        return list(chain.from_iterable(lines.each for lines in read_elements(array, len(text) + 2)))
    return split_lines(text)


def split_lines(text: bytes) -> list[bytes]:
    """Return the records of a text that `lines_of` put together, each as its own JSON text."""
    return text.split(BETWEEN)


def has_more_values(record: bytes, limit: int) -> bool:
    """Return whether a record has more values than the limit, about: commas outside of strings."""
    if record.count(b",") <= limit:
        return False
    plain = record.replace(b"\\\\", b"").replace(b'\\"', b"")  # no quote is escaped in it
    return next(islice(_COMMA.finditer(plain), limit, None), None) is not None


_WHITE_SPACE = b" \t\n\r"
# What is repeated here is bounded: Python's `re` keeps a hundred bytes for each time that a group is repeated.
#: Up to the next bracket, over whole strings; or up to a string that is too long for that, or does not end here.
_OUTSIDE = re.compile(rb'[^]["{}]*(?:"[^"\\]*(?:\\.[^"\\]*){0,50}"[^]["{}]*){0,50}([]["{}]?)', re.DOTALL)
#: The inside of such a string.
_IN_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*){0,1000}("?)', re.DOTALL)
#: A comma, after whatever stands before it, over whole strings.
_COMMA = re.compile(rb'[^",]*(?:"[^"]*"[^",]*){0,50},')

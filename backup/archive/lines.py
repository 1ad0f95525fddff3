"""Records as the JSON text that a backup file holds, a block at a time: put together, and taken apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import orjson

# -- writing ---


BETWEEN = b",\n"


def lines_of(frame: Sequence[bytes], columns: Sequence[Sequence[Any]]) -> bytes:
    """Records as the file has them: one a line, a comma and a line break between them.

    `columns`: the values of the records, at least one, one sequence for each place. `frame`: what stands before each
    place, and behind the last. To put the text together by columns is quicker than to make a dict of each record first.
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
    """Each value as JSON. All at once is several times as fast as one by one."""
    with suppress(TypeError):  # a whole number beyond 64 bits inside a JSON value
        texts = orjson.dumps(values)[1:-1].split(b",")
        if len(texts) == len(values):
            return texts
        if not texts[0].startswith(_NESTED):
            # There are commas inside. One value a line: no text holds a line break, only lists and objects do.
            text = orjson.dumps(values, option=orjson.OPT_INDENT_2)
            if all(text.find(begin + b"\n", 1) < 0 for begin in _NESTED):
                return text[4:-2].split(b",\n  ")
    # Often the very same comes again and again, as natural keys do.
    numbers = list(map(id, values))
    known = {number: text_of(value) for number, value in dict(zip(numbers, values, strict=True)).items()}
    return list(map(known.__getitem__, numbers))


#: How a list and an object begin.
_NESTED = (b"[", b"{")


def text_of(value: Any) -> bytes:
    """One value, or record, as JSON."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


# -- reading ---


class Lines:
    """Some of a model's records as the JSON that they are in the file. Taken apart only where somebody asks for it: to
    compare all of them at once is quicker."""

    def __init__(self, text: bytes, lines: list[bytes] | None = None) -> None:
        """`text`: one a line, a comma and a line break between them. `lines`: where they stand in some other way."""
        self.text = text
        self._lines = lines

    @cached_property
    def count(self) -> int:
        return len(self.each) if "each" in vars(self) else self.text.count(BETWEEN) + 1

    @cached_property
    def each(self) -> list[bytes]:
        return self.text.split(BETWEEN) if self._lines is None else self._lines

    @property
    def last(self) -> bytes:
        """The last one."""
        if self._lines is not None:
            return self._lines[-1]
        between = self.text.rfind(BETWEEN)
        return self.text if between < 0 else self.text[between + len(BETWEEN) :]

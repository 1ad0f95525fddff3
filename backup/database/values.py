"""Converters that several engines share: from values of the driver to plain values, and back."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from operator import itemgetter
from typing import Any

from ..kinds import BOOLEAN, DURATION, FLOAT, INTEGER, TEXT, Kind, Plain, load_float

Convert = Callable[[Any], Any]
#: Converts a whole column: a call for each column costs less than one for each value.
ConvertAll = Callable[[Sequence[Any]], Sequence[Plain]]


#: The errors of a conversion for a value that does not belong in its column.
UNREADABLE = (TypeError, ValueError, ArithmeticError, LookupError)


def slices(values: Sequence[Any], size: int) -> Iterator[Any]:
    """Yield slices of the values. `size`: the length of each."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def escapes(text: str) -> int:
    """Return how many bytes more than in UTF-8 a text takes as JSON."""
    return sum(text.count(letter) for letter in _SHORT_ESCAPES) + 5 * sum(map(text.count, _LONG_ESCAPES))


#: Characters that JSON writes as two, and those that it writes as six.
_SHORT_ESCAPES = '"\\\b\t\n\f\r'
_LONG_ESCAPES = "".join(map(chr, {*range(0x20)} - {*map(ord, _SHORT_ESCAPES)}))


def as_they_are(values: Sequence[Any]) -> Sequence[Any]:
    return values


@dataclass(frozen=True)
class Checked:
    """Converts a column, and checks that its values are of this kind. `Database.prefetch_range` skips the check, and
    `Database.canonical` makes it later."""

    kind: Kind
    convert: ConvertAll = as_they_are

    def __call__(self, values: Sequence[Any]) -> Sequence[Plain]:
        return self.check(self.convert(values))

    def check(self, values: Sequence[Any]) -> Sequence[Plain]:
        return values if self.kind.all_canonical(values) else each(self.kind.check)(values)


@dataclass(frozen=True)
class OfOneType(Checked):
    """Does what `Checked` does for a column of a server. Its values are all of one type, so the first one shows whether
    they are of this kind. They are not if somebody has changed the type of the column: then each is converted, if that
    is possible without changing it."""

    def check(self, values: Sequence[Any]) -> Sequence[Plain]:
        first = next((value for value in values if value is not None), None)
        return values if first is None or type(first) is _TYPES[self.kind] else each(self._exactly)(values)

    def _exactly(self, value: Any) -> Plain:
        if self.kind is FLOAT and isinstance(value, int | Decimal):
            number = float(value)
            if number - number == 0 and Decimal(repr(number)) != value:
                raise ValueError(value)
            return number
        if self.kind is INTEGER and isinstance(value, float | Decimal) and value == int(value):
            return int(value)
        if self.kind is BOOLEAN and value in (0, 1):
            return bool(value)
        return self.kind.check(value)


#: The type of the values that a driver returns.
_TYPES = {BOOLEAN: bool, FLOAT: float, INTEGER: int, TEXT: str}


def each(convert: Convert) -> ConvertAll:
    """Return the conversion of a column, from the conversion of a value, which is not called for NULL."""
    return lambda values: [None if value is None else convert(value) for value in values]


def floats(values: Sequence[Any]) -> Sequence[Any]:
    return [load_float(value) if type(value) is str else value for value in values]


@lru_cache(maxsize=4096)
def microseconds(text: str) -> int:
    """Return the microseconds of a duration. Raises `OverflowError` beyond 64 bits (292,000 years): too much for
    all."""
    duration: dt.timedelta = DURATION.load(text)
    number = duration // dt.timedelta(microseconds=1)
    if not is_whole(number):
        raise OverflowError(text)
    return number


def is_whole(number: int) -> bool:
    """Tell whether a number has no more than 64 bits."""
    return -(2**63) <= number < 2**63


def is_countable(text: str) -> bool:
    """Tell whether `microseconds` works for a duration, without an `OverflowError`."""
    try:
        microseconds(text)
    except OverflowError:
        return False
    return True


#: Characters with a special meaning in COPY, or in a quoted text of a statement.
_SPECIAL = re.compile("[\\\\\t\n\r\0'\"\x1a]")


def is_harmless(texts: Sequence[str | None]) -> bool:
    """Tell whether no text needs escaping."""
    return not _SPECIAL.search("".join(filter(None, texts)))


#: Length of the text of a moment whose fraction lacks zeros at its end -> the text to append.
_TO_MICROSECONDS = {19: "Z", **{20 + digits: "0" * (6 - digits) + "Z" for digits in range(1, 7)}}


def moments(values: Sequence[Any]) -> Sequence[Plain]:
    """Convert moments (UTC) from the text of a server, "2026-11-23 14:30:22.1234"; all at once, if none is missing."""
    if not values or None in values:
        return [None if value is None else moments([value])[0] for value in values]
    text = "\n".join(values).replace(" ", "T").replace(".000000", "")
    texts = text.split("\n")
    if "BC" in text or {*map(itemgetter(10), texts)} != {"T"}:
        raise ValueError(text)  # a year before 1 or after 9999
    return [text + _TO_MICROSECONDS[len(text)] for text in texts]


def times(values: Sequence[Any]) -> Sequence[Plain]:
    """Convert times of day from the text of a server, "14:30:22.1234"."""
    return list(map(_time, values))


@lru_cache(maxsize=4096)
def _time(text: str | None) -> str | None:
    """Write the fraction of a second with six digits, or none if it is zero."""
    if text is None:
        return None
    whole, _point, fraction = text.partition(".")
    return f"{whole}.{fraction:0<6}" if fraction.strip("0") else whole


_BOOLEANS = {None: None, 0: False, 1: True}


def booleans(values: Sequence[Any]) -> Sequence[Plain]:
    return list(map(_BOOLEANS.__getitem__, values))


def durations(values: Sequence[int | None]) -> Sequence[str | None]:
    """Convert microseconds into durations."""
    return list(map(_duration, values))


@lru_cache(maxsize=4096)
def _duration(microseconds: int | None) -> str | None:
    """Write a duration as Django's `duration_string` does."""
    if microseconds is None:
        return None
    seconds, microseconds = divmod(microseconds, 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    text = f"{hours:02d}:{minutes:02d}:{seconds:02d}"
    if days:
        text = f"{days} {text}"
    return f"{text}.{microseconds:06d}" if microseconds else text


def json_as_stored(value: Plain, number: Callable[[Any], Plain]) -> Plain:
    """Return JSON as PostgreSQL's jsonb and MySQL's json give it back: keys are sorted by their length, then by their
    bytes. `number`: converts a number."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return {key: json_as_stored(value[key], number) for key in keys}
    if isinstance(value, list):
        return [json_as_stored(part, number) for part in value]
    return number(value) if type(value) in (int, float) else value

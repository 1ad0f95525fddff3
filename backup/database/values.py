"""Column converters that the vendors share: from what a driver gives to plain values, and back."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..kinds import DURATION, Kind, Plain, load_float

Convert = Callable[[Any], Any]
#: What makes a whole column plain: a call a column costs less than one a value.
ConvertAll = Callable[[Sequence[Any]], Sequence[Plain]]


#: What a conversion says of a value that is not what its column should hold.
UNREADABLE = (TypeError, ValueError, ArithmeticError, LookupError)


def slices(values: Sequence[Any], size: int) -> Iterator[Any]:
    """Yield the values, so many at a time."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def as_they_are(values: Sequence[Any]) -> Sequence[Any]:
    return values


@dataclass(frozen=True)
class Checked:
    """Convert a column, and check that its values are of this kind. `Database.prefetch_range` leaves the check out,
    `Database.canonical` makes up for it."""

    kind: Kind
    convert: ConvertAll = as_they_are

    def __call__(self, values: Sequence[Any]) -> Sequence[Plain]:
        return self.check(self.convert(values))

    def check(self, values: Sequence[Any]) -> Sequence[Plain]:
        return values if self.kind.all_canonical(values) else each(self.kind.check)(values)


def each(convert: Convert) -> ConvertAll:
    """Make the conversion of a column from that of a value, which is never given NULL."""
    return lambda values: [None if value is None else convert(value) for value in values]


def floats(values: Sequence[Any]) -> Sequence[Any]:
    return [load_float(value) if type(value) is str else value for value in values]


@lru_cache(maxsize=4096)
def microseconds(text: str) -> int:
    """Return how long a duration is. Raises `OverflowError` beyond 64 bits, 292,000 years, which no engine counts."""
    duration: dt.timedelta = DURATION.load(text)
    number = duration // dt.timedelta(microseconds=1)
    if not is_whole(number):
        raise OverflowError(text)
    return number


def is_whole(number: int) -> bool:
    """Tell whether a number has no more than 64 bits."""
    return -(2**63) <= number < 2**63


def is_countable(text: str) -> bool:
    """Tell whether `microseconds` can be told of a duration."""
    try:
        microseconds(text)
    except OverflowError:
        return False
    return True


#: Characters that COPY, or a quoted text in a statement, takes for something else.
_SPECIAL = re.compile("[\\\\\t\n\r\0'\"\x1a]")


def is_harmless(texts: Sequence[str | None]) -> bool:
    """Tell whether none of the texts needs escaping."""
    return not _SPECIAL.search("".join(filter(None, texts)))


#: Length of the text of a moment, which lacks zeros at the end of its fraction -> what completes it.
_TO_MICROSECONDS = {19: "Z", **{20 + digits: "0" * (6 - digits) + "Z" for digits in range(1, 7)}}


def moments(values: Sequence[Any]) -> Sequence[Plain]:
    """Convert moments of UTC as servers say them, "2026-11-23 14:30:22.1234", all at once if none is missing."""
    if not values or None in values:
        return [None if value is None else moments([value])[0] for value in values]
    text = "\n".join(values).replace(" ", "T").replace(".000000", "")
    texts = text.split("\n")
    if "BC" in text or {text[10:11] for text in texts} != {"T"}:
        raise ValueError(text)  # of a year before the first one, or after 9999
    return [text + _TO_MICROSECONDS[len(text)] for text in texts]


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

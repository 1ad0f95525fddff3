"""Reads values in SQLite that have another form than Django writes today: from other software or older versions.

SQLite stores any value in any column, and Django reads many of them. A form that can only mean one thing is read as
that, and so is a date or time that Django reads, since people see it in the host. For anything else, `ValueError` is
raised, and the backup names the value.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.utils.dateparse import parse_date, parse_datetime, parse_time

from ..kinds import BOOLEAN, DATE, DATETIME, DURATION, FLOAT, INTEGER, TIME, Kind, Plain
from .values import UNREADABLE, Checked, ConvertAll, each

_OFFSET = re.compile(r"(?:Z|[+-]\d\d:?\d\d)$")
_MIDNIGHT = re.compile(r"[T ]00:00(?::00(?:\.0+)?)?(?:Z|\+00:00)?")
_WORDS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def _moment(value: Any) -> Plain:
    """Read `2026-11-23T14:30:22Z`, `2026-11-23 16:30:22+02:00`, `2026-11-23 14:30`; without an offset it is UTC."""
    text = value.strip()
    if text.endswith("Z") and _OFFSET.search(text[:-1]):
        text = text[:-1]  # the fast conversion added it
    try:
        return DATETIME.check(text if _OFFSET.search(text[10:]) else f"{text}Z")
    except ValueError:
        moment = _parsed(parse_datetime, text)  # 2026-1-2 3:04
        return DATETIME.check(moment.isoformat() if moment.tzinfo else f"{moment.isoformat()}Z")


def _date(value: Any) -> Plain:
    text = value.strip()
    if _MIDNIGHT.fullmatch(text[10:]):
        return DATE.check(text[:10])
    return DATE.dump(_parsed(parse_date, text))  # 2026-1-2


def _time(value: Any) -> Plain:
    return TIME.check(_parsed(parse_time, value.strip()).isoformat())  # 3:04


def _parsed(parse: Callable[[str], Any], text: str) -> Any:
    """Parse a text as Django does when it reads it. Raises `ValueError`."""
    parsed = parse(text)
    if parsed is None:
        raise ValueError(text)
    return parsed


def _boolean(value: Any) -> Plain:
    return bool(value) if value in (0, 1) else _WORDS[value.strip().lower()]


def _duration(value: Any) -> Plain:
    """Read microseconds that have a fraction, or that are text."""
    number = float(value)
    return DURATION.dump(dt.timedelta(microseconds=round(number)))


def _integer(value: Any) -> Plain:
    number = int(value) if isinstance(value, str) else float(value)
    if number != int(number):
        raise ValueError(value)
    return int(number)


def _float(value: Any) -> Plain:
    return FLOAT.check(float(value))


_READERS: dict[Kind, Callable[[Any], Plain]] = {
    DATETIME: _moment,
    DATE: _date,
    TIME: _time,
    BOOLEAN: _boolean,
    DURATION: _duration,
    INTEGER: _integer,
    FLOAT: _float,
}


def _read(kind: Kind, convert: ConvertAll, value: Any) -> Plain:
    """Read one value, in the form that Django writes or in another one. Raises `ValueError`."""
    try:
        return kind.check(convert([value])[0])
    except UNREADABLE:
        if kind not in _READERS or isinstance(value, bytes):
            raise
    try:
        return _READERS[kind](value)
    except AttributeError:  # it is not text, as expected
        raise ValueError(value) from None


@dataclass(frozen=True)
class LenientChecked(Checked):
    """Converts and checks a column: all values at once, or, if some have another form, one by one."""

    def __call__(self, values: Sequence[Any]) -> Sequence[Plain]:
        try:
            return super().__call__(values)
        except UNREADABLE:
            return each(partial(_read, self.kind, self.convert))(values)

    def check(self, values: Sequence[Any]) -> Sequence[Plain]:
        return (
            values
            if self.kind.all_canonical(values)
            else each(partial(_read, self.kind, self.convert))(values)
        )


def lenient(kind: Kind, convert: ConvertAll) -> ConvertAll:
    """Return a conversion that reads other forms, too. `convert`: fails by itself for a value of another form."""

    def read(values: Sequence[Any]) -> Sequence[Plain]:
        try:
            return convert(values)
        except UNREADABLE:
            return each(partial(_read, kind, convert))(values)

    return read

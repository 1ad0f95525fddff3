"""The chart of records by month, as coordinates of bars for SVG."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.formats import date_format

#: How many months are drawn, the newest ones: more would be too narrow on a phone.
MONTHS = 24
WIDTH, HEIGHT = 360, 120


@dataclass(frozen=True)
class Month:
    """Name of a month, the number of records, and the places and heights of its two bars, in units of the drawing."""

    name: str
    backup: int
    here: int
    x: str
    x_here: str
    width: str
    y: str
    height: str
    y_here: str
    height_here: str


def chart(backup: Counter[str], here: Counter[str]) -> dict[str, Any] | None:
    """Return the chart that compares the backup with the site. Keys are months, "2026-11". None if there are none."""
    months = _continuous(
        sorted(month for month in {*backup, *here} if re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", month))
    )
    if not months:
        return None
    highest = max(max(backup[month], here[month]) for month in months)
    step = WIDTH / len(months)
    width = min(step * 0.4, 24)
    bars = []
    for place, month in enumerate(months):
        middle = (place + 0.5) * step
        tall, tall_here = (_height(counts[month], highest) for counts in (backup, here))
        bars.append(
            Month(
                date_format(dt.date(int(month[:4]), int(month[5:]), 1), "YEAR_MONTH_FORMAT"),
                backup[month],
                here[month],
                *(f"{number:.1f}" for number in (middle - width, middle, width)),
                *(f"{number:.1f}" for number in (HEIGHT - tall, tall, HEIGHT - tall_here, tall_here)),
            )
        )
    older = any(month < months[0] for month in {*backup, *here})
    return {"months": bars, "first": bars[0].name, "last": bars[-1].name, "older": older}


def _height(count: int, highest: int) -> float:
    return max(count / highest * (HEIGHT - 4), 2) if count else 0


def _continuous(months: Sequence[str]) -> list[str]:
    """Return the newest months, with the empty ones between them unless those are too many."""
    months = months[-MONTHS:]
    if not months:
        return []
    first, last = (int(month[:4]) * 12 + int(month[5:]) - 1 for month in (months[0], months[-1]))
    if last - first >= 2 * MONTHS:
        return [*months]
    every = [f"{number // 12:04}-{number % 12 + 1:02}" for number in range(first, last + 1)]
    return every[-MONTHS:]

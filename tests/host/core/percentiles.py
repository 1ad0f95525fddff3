"""Growth charts for two migrations. The numbers are made up: smooth, plausible, of no medical use."""

import csv
from datetime import timedelta
from itertools import pairwise

PERCENTILES = ["p3", "p15", "p50", "p85", "p97"]


def daily(path, columns):
    """Yields one dict a day, day 0 to the last in the file, on straight lines between the file's rows.

    `path` is relative to the working directory, as in Baby Buddy's migrations.
    """
    with open(path) as file:
        rows = [[float(value) for value in row] for row in list(csv.reader(file))[1:]]
    for (day, *low), (next_day, *high) in pairwise(rows):
        # The last row closes the last piece.
        last = next_day == rows[-1][0]
        for offset in range(int(next_day - day) + last):
            part = offset / (next_day - day)
            values = [round(a + (b - a) * part, 3) for a, b in zip(low, high, strict=True)]
            yield {"age_in_days": timedelta(days=day + offset), **dict(zip(columns, values, strict=True))}


def fill(manager, measure):
    columns = [f"{percentile}_{measure}" for percentile in PERCENTILES]
    for sex in ("boy", "girl"):
        rows = daily(f"core/migrations/{measure}_percentile_{sex}s.csv", columns)
        manager.bulk_create([manager.model(sex=sex, **row) for row in rows], batch_size=100)

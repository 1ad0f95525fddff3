from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from backup.services import Progress


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on stderr, where that is a terminal."""
    with tqdm(unit=" rows", disable=None, leave=False) as bar:
        shown: list[str] = []

        def update(label: str, done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
            # At once where it is a new one: a migration may take long, and counts as one.
            bar.set_description_str(label, refresh=[label] != shown)
            shown[:] = [label]

        yield update

"""Shows the progress of a command on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from tqdm import tqdm

from backup.options import PHOTOS, Phase, Reporter


class _Bar:
    """A `Reporter` that advances a progress bar."""

    def __init__(self, bar: tqdm[NoReturn]) -> None:
        self._bar = bar
        self._label = ""

    def phase(self, phase: Phase) -> None:
        self._bar.reset()

    def progress(self, label: str, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.unit = " photos" if label == PHOTOS else " rows"
        self._bar.update(done - self._bar.n)
        # Draw a new label at once, since a migration counts as one step but may take long.
        self._bar.set_description_str(label, refresh=label != self._label)
        self._label = label


@contextmanager
def progress_bar(*, is_hidden: bool = False) -> Iterator[Reporter]:
    """Show a progress bar on stderr, if that is a terminal."""
    with tqdm(unit=" rows", disable=is_hidden or None, leave=False) as bar:
        yield _Bar(bar)

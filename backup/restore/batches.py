"""Batches of rows on their way to the database: checked for duplicate keys (`UniqueKeys`), stored in a temporary file
(`Spool`), and compared with the rows here (`ComparedBatch`)."""

from __future__ import annotations

import marshal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import lt
from types import TracebackType
from typing import Any

from django.utils.translation import gettext as _

from ..exceptions import StorageFailed
from ..kinds import Plain
from ..tables import Row, Table

#: Called when records were read, with the model label and their number.
Report = Callable[[str, int], None]


@dataclass(frozen=True)
class ComparedBatch:
    """Some rows of one table, by how they are written. `replaced`: those that replace a row which is plainly another
    record."""

    added: Sequence[Row] = ()
    changed: Sequence[Row] = ()
    replaced: Sequence[Row] = ()
    unchanged: int = 0

    @property
    def records(self) -> int:
        return len(self.added) + len(self.changed) + len(self.replaced) + self.unchanged


class Spool:
    """A temporary file of batches. Each has a name; those of one name are returned in the order in which they were put.

    Nobody else can open the file. It is deleted when it is closed or the process ends.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._places: dict[str, list[tuple[int, int]]] = {}
        self._end = 0
        #: Whether the file is positioned at its end: to seek flushes it, which takes long for many small batches.
        self._is_at_end = True

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def put(self, name: str, batch: Any) -> None:
        """Append a batch: lists, dicts and plain values, or bytes. Raises `StorageFailed` if the disk is full."""
        data = marshal.dumps(batch)
        try:
            if not self._is_at_end:
                self._file.seek(self._end)
            self._is_at_end = False  # unless all of it is written
            self._file.write(data)
        except OSError as error:
            raise no_room(error.strerror or error) from error
        self._places.setdefault(name, []).append((self._end, len(data)))
        self._end += len(data)
        self._is_at_end = True

    def batches(self, name: str) -> Iterator[Any]:
        for place in self._places.get(name, ()):
            yield self._read(place)

    def batch(self, name: str, number: int) -> Any:
        """Return one of the batches of a name. `number`: its position among them, from 0."""
        return self._read(self._places[name][number])

    def backwards(self, name: str) -> Iterator[Any]:
        """Yield the batches of a name, the last one first."""
        for place in reversed(self._places.get(name, ())):
            yield self._read(place)

    def _read(self, place: tuple[int, int]) -> Any:
        start, length = place
        self._is_at_end = False
        try:
            self._file.seek(start)
        except OSError as error:  # what was written last does not fit
            raise no_room(error.strerror or error) from error
        return marshal.loads(self._file.read(length))


class UniqueKeys:
    """Checks that no key of a model occurs twice. Rising numbers, as in our own files, need no memory."""

    def __init__(self, table: Table, *, in_order: bool) -> None:
        self._table = table
        self._last: Plain = None
        self._seen: set[Plain] | None = None if in_order else set()

    @property
    def in_order(self) -> bool:
        """Whether keys are numbers that must rise from record to record."""
        return self._seen is None

    def check(self, keys: Sequence[Plain], *, rising: bool = False) -> None:
        """Check the keys of the next records. Raises `InvalidRecord`.

        `rising`: they are known to rise among themselves, since a database gave them in that order.
        """
        if not keys:
            return
        follow = self._last is None or keys[0] > self._last
        if self._seen is None and follow and (rising or all(map(lt, keys, islice(keys, 1, None)))):
            self._last = keys[-1]  # all of them at once
            return
        for key in keys:
            if self._seen is None:
                if self._last is None or key > self._last:
                    self._last = key
                    continue
                raise self._table.invalid(
                    _("its key is there twice, or the records are not in the order of their keys"), key
                )
            if key in self._seen:
                raise self._table.invalid(_("its key is there twice"), key)
            self._seen.add(key)


def no_room(reason: object) -> StorageFailed:
    """Return the error for a disk without room for temporary files."""
    return StorageFailed(
        _("The server has no room for temporary files (%(reason)s). Nothing was changed.")
        % {"reason": reason}
    )

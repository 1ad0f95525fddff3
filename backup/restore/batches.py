"""Batches of rows on their way: a temporary file for them (`Spool`), and the check that no key comes twice."""

from __future__ import annotations

import marshal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from operator import lt
from typing import Any

from django.utils.translation import gettext as _

from ..exceptions import StorageFailed
from ..kinds import Plain
from ..tables import Table
from .preview import Look


class Spool:
    """A temporary file of batches, each under a name, that come back in the order in which they were put.

    Nobody else can open it, and it is gone when it is closed, or the process dies.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._places: dict[str, list[tuple[int, int]]] = {}

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def put(self, name: str, batch: Any) -> None:
        """`batch`: lists, dicts and plain values, or bytes. Raises `StorageFailed` where the disk is full."""
        data = marshal.dumps(batch)
        try:
            self._places.setdefault(name, []).append((self._file.seek(0, 2), len(data)))
            self._file.write(data)
        except OSError as error:
            raise StorageFailed(
                _("The server has no room for temporary files (%(reason)s). Nothing was changed.")
                % {"reason": error.strerror or error}
            ) from error

    def batch(self, name: str, number: int) -> Any:
        place, length = self._places[name][number]
        self._file.seek(place)
        return marshal.loads(self._file.read(length))

    def batches(self, name: str) -> Iterator[Any]:
        for number in range(len(self._places.get(name, ()))):
            yield self.batch(name, number)

    def backwards(self, name: str) -> Iterator[Any]:
        for number in reversed(range(len(self._places.get(name, ())))):
            yield self.batch(name, number)


class UniqueKeys:
    """Sees to it that no key comes twice. Numbers that only rise, as they do in our files, need no memory."""

    def __init__(
        self, table: Table, *, in_order: bool, look: Look | None, tell: Callable[[str, int], None] | None
    ) -> None:
        self._table = table
        self._look, self._tell = look, tell
        self._last: Plain = None
        self._seen: set[Plain] | None = None if in_order else set()

    def check(self, keys: Sequence[Plain], *, rising: bool = False) -> None:
        """`rising`: they are known to, among themselves, since a database gave them in that order."""
        if not keys:
            return
        if self._look:
            self._look.keys(self._table, keys, self._seen is None)
        if self._tell:
            self._tell(self._table.label, len(keys))
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
                    _("its key comes twice, or the records are not in the order of their keys"), key
                )
            if key in self._seen:
                raise self._table.invalid(_("its key comes twice"), key)
            self._seen.add(key)

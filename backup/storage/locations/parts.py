"""Opens a file in a location without fetching all of it: only the parts that are read are fetched."""

from __future__ import annotations

import io
from collections import OrderedDict
from typing import BinaryIO, cast

from .location import Location

#: Bytes of a part, and how many parts are kept in memory. A backup's table of contents and its metadata are at its end,
#: so mostly one request fetches both.
_PART, _REMEMBERED = 64 * 1024, 8


class _Parts(io.RawIOBase):
    def __init__(self, location: Location, name: str) -> None:
        self._location, self._name = location, name
        self._size, self._position = location.size(name), 0
        self._known: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError("before the beginning")  # as a file does
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        number, start = divmod(self._position, _PART)
        data = self._part(number)[start : start + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _part(self, number: int) -> bytes:
        if number not in self._known:
            length = min(_PART, max(self._size - number * _PART, 0))
            self._known[number] = (
                self._location.read_part(self._name, number * _PART, length) if length else b""
            )
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return self._known[number]


def open_parts(location: Location, name: str) -> BinaryIO:
    """Open a file in a location for reading. This and reading it raise what `Location.read_part` raises."""
    return cast(BinaryIO, io.BufferedReader(_Parts(location, name), _PART))

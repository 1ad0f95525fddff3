"""Reads several files as if they were one."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, BinaryIO, cast


def join(pieces: Sequence[tuple[int, str]], open_piece: Callable[[str], BinaryIO]) -> BinaryIO:
    """Return a seekable file with the content of all pieces in a row. `pieces`: the size in bytes and name of each.

    A piece is opened when it is read from, one at a time. A read may raise whatever `open_piece` raises.
    """
    return cast(BinaryIO, io.BufferedReader(_Joined(pieces, open_piece), buffer_size=64 * 1024))


class _Joined(io.RawIOBase):
    def __init__(self, pieces: Sequence[tuple[int, str]], open_piece: Callable[[str], BinaryIO]) -> None:
        super().__init__()
        self._names = [name for _size, name in pieces]
        self._ends = [*accumulate(size for size, _name in pieces)]
        self._open_piece = open_piece
        self._current: tuple[int, BinaryIO] | None = None
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: [0, *self._ends][-1]}[whence]
        if base + offset < 0:
            raise OSError("a file cannot be read from before its beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        number = bisect_right(self._ends, self._position)
        if number == len(self._ends):
            return 0
        start = self._ends[number - 1] if number else 0
        file = self._piece(number)
        file.seek(self._position - start)
        data = file.read(min(len(buffer), self._ends[number] - self._position))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _piece(self, number: int) -> BinaryIO:
        if self._current is None or self._current[0] != number:
            self._close_current()
            self._current = number, self._open_piece(self._names[number])
        return self._current[1]

    def _close_current(self) -> None:
        if self._current is not None:
            self._current[1].close()
            self._current = None

    def close(self) -> None:
        self._close_current()
        super().close()

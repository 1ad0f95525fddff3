"""Writes a backup file: see `Writer`."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, BinaryIO

try:
    from isal import isal_zlib
except ImportError:  # it knows 64-bit processors of Intel's and ARM's kinds only
    isal_zlib = None  # type: ignore[assignment]
from .metadata import METADATA, Member, Metadata


def compressor() -> Any:
    """Raw deflate, such as a ZIP holds. Level 1: the time counts (a request has 30 seconds), and JSON packs well at any
    level. ISA-L, where there is a wheel of it, takes a quarter of the time, and makes smaller files too."""
    return (isal_zlib or zlib).compressobj(1, zlib.DEFLATED, -15)


class Writer:
    """Writes a backup into `target`, a binary file open for writing. Whoever opened it makes it appear when complete.

    Checksums and compression run in a thread of their own, since both let go of the interpreter lock.
    """

    #: Bytes that go to that thread at a time. Less, and it would wait for the lock more than it works.
    PIECE = 2 * 1024 * 1024
    #: Pieces that may wait for it: a bound on memory.
    WAITING = 2

    def __init__(self, target: BinaryIO) -> None:
        self._zip = zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED)
        self._members: dict[str, Member] = {}
        self._packer = ThreadPoolExecutor(1, "backup")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self._packer.shutdown(cancel_futures=True)
        self._zip.close()

    def add(self, label: str, file: str, batches: Iterable[tuple[int, bytes]]) -> int:
        """Write a model's records, given as how many they are, and as `lines_of` them. Returns how many all were."""
        count = 0
        digest = hashlib.sha256()
        with self._zip.open(file, "w", force_zip64=True) as member:
            member._compressor = compressor()  # type: ignore[attr-defined]  # there is no public way to choose it

            def write(data: bytes) -> None:
                digest.update(data)
                member.write(data)

            piece, size = [b"["], 0
            try:
                for number, lines in batches:
                    piece += [b",\n" if count else b"\n", lines]
                    size += len(lines)
                    count += number
                    if size > self.PIECE:
                        self._pack(write, b"".join(piece))
                        piece, size = [], 0
                self._pack(write, b"".join([*piece, b"\n]\n"]))
            finally:
                self._wait(0)
        self._members[label] = Member(file, count, digest.hexdigest())
        return count

    def _pack(self, write: Callable[[bytes], None], data: bytes) -> None:
        self._wait(self.WAITING)
        self._waiting.append(self._packer.submit(write, data))

    def _wait(self, most: int) -> None:
        """Until no more than `most` pieces wait. Raises what the thread raised."""
        while len(self._waiting) > most:
            self._waiting.popleft().result()

    def finish(self, metadata: Metadata) -> Metadata:
        """Write `metadata`, with the models that were added; returns it so. Without this there is no backup."""
        metadata = replace(metadata, models=dict(self._members))
        text = json.dumps(metadata.as_json(), indent=2, ensure_ascii=False)
        self._zip.writestr(METADATA, text + "\n")
        return metadata

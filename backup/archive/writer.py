"""Writes a backup file: see `Writer`."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import BinaryIO

from .deflate import compressor
from .lines import BETWEEN
from .members import RECORDS, Member, MemberKind, Records, records_file
from .metadata import Metadata
from .names import METADATA


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
        self._members: dict[str, dict[str, Member]] = {RECORDS.key: {}}
        self._packer = ThreadPoolExecutor(1, "backup")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self._packer.shutdown(cancel_futures=True)
        self._zip.close()

    def add(self, label: str, batches: Iterable[tuple[int, bytes]]) -> int:
        """Write a model's records, given as how many they are, and as `lines_of` them. Returns how many all were."""
        count = 0

        def blocks() -> Iterator[bytes]:
            nonlocal count
            yield b"["
            for number, lines in batches:
                yield BETWEEN if count else b"\n"
                yield lines
                count += number
            yield b"\n]\n"

        file = records_file(label)
        digest = self.write(file, blocks())
        self.register(RECORDS, label, Records(file, digest, count))
        return count

    def register(self, kind: MemberKind, name: str, member: Member) -> None:
        """Have `metadata.json` list a member that was written. `name`: what tells it from others of its kind."""
        self._members.setdefault(kind.key, {})[name] = member

    def write(self, file: str, blocks: Iterable[bytes]) -> str:
        """Write a member's content, given in blocks of any size. Returns its checksum: SHA-256, in hex."""
        digest = hashlib.sha256()
        with self._zip.open(file, "w", force_zip64=True) as member:
            member._compressor = compressor()  # type: ignore[attr-defined]  # there is no public way to choose it

            def pack(data: bytes) -> None:
                digest.update(data)
                member.write(data)

            piece: list[bytes] = []
            size = 0
            try:
                for block in blocks:
                    piece.append(block)
                    size += len(block)
                    if size > self.PIECE:
                        self._wait(self.WAITING)
                        self._waiting.append(self._packer.submit(pack, b"".join(piece)))
                        piece, size = [], 0
                self._waiting.append(self._packer.submit(pack, b"".join(piece)))
            finally:
                self._wait(0)
        return digest.hexdigest()

    def _wait(self, most: int) -> None:
        """Wait until no more than `most` pieces are left to pack. Raises what packing raised."""
        while len(self._waiting) > most:
            self._waiting.popleft().result()

    def finish(self, metadata: Metadata) -> Metadata:
        """Write `metadata`, with the members that were added, and return it so. Without this there is no backup."""
        metadata = replace(metadata, members=dict(self._members))
        metadata = replace(metadata, version=metadata.lowest_version())
        text = json.dumps(metadata.as_json(), indent=2, ensure_ascii=False)
        self._zip.writestr(METADATA, text + "\n")
        return metadata

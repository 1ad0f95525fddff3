"""Records that one process of ours writes while another reads them: `GrowingWriter`, `GrowingArchive`.

The text of model after model is in one file. The first message from the writer is `{"metadata"}`. Each later one,
`{"file", "end", "is_complete"}`, names a member, the position in the file at which its text ends so far, and whether
that is all of it. A member begins where the one before ends.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

from ..exceptions import BackupError
from .limits import Limits
from .members import RECORDS, Member, Records, records_file
from .metadata import Metadata, parse_metadata
from .reader import BLOCK, Archive, damaged
from .writer import Writer


class GrowingWriter(Writer):
    """Writes records, and nothing else, into `target`. `send`: takes the messages."""

    #: Less, and there would be many messages; more, and who reads would wait.
    PIECE = 512 * 1024

    def __init__(self, target: BinaryIO, send: Callable[..., None]) -> None:
        super().__init__(io.BytesIO())
        self._target, self._send = target, send

    def begin(self, metadata: Metadata, expected: dict[str, int]) -> None:
        """Send the metadata. `expected`: label of each model that will be added -> about how many records it has.

        Raises `InvalidBackup` if it is too long.
        """
        members = {label: Records(records_file(label), "", count) for label, count in expected.items()}
        content = replace(metadata.cut(), members={RECORDS.key: members}).as_json()
        self._limits.check_metadata(len(json.dumps(content)))
        self._send(metadata=content)

    def _write(self, file: str, blocks: Iterable[bytes], method: int = zipfile.ZIP_STORED) -> str:
        sent = self._target.tell()
        for block in blocks:
            self._target.write(block)
            if self._target.tell() > sent + self.PIECE:
                sent = self._report(file, is_complete=False)
        self._report(file, is_complete=True)
        return ""

    def _report(self, file: str, *, is_complete: bool) -> int:
        self._target.flush()
        end = self._target.tell()
        self._send(file=file, end=end, is_complete=is_complete)
        return end


class GrowingArchive(Archive):
    """Reads records while a child process writes them.

    What was made of them must be thrown away if the child fails in the end: see `completed`. There are no checksums,
    since nobody else has the file; all else is checked as in any backup.
    """

    def __init__(
        self, file: BinaryIO, content: Any, messages: Iterator[dict[str, Any]], limits: Limits
    ) -> None:
        """`content`: the metadata, as parsed JSON; how many records there are is only expected. `messages`: waits for
        the child's messages, and raises the error that it reports."""
        self.metadata = parse_metadata(content)
        self.key, self.is_encrypted = None, False
        self._limits, self._photos, self._entries, self._remaining = limits, None, {}, {}
        self._file, self._messages = file, messages
        #: File of a member -> where its text begins and ends, and whether it is complete.
        self._parts: dict[str, tuple[int, int, bool]] = {}
        self._end = 0

    def __exit__(self, *error: object) -> None:
        """Leave the file to who opened it."""

    @contextmanager
    def completed(self) -> Iterator[None]:
        try:
            yield
        except BackupError:
            self._wait()  # what the child says of the file comes first
            raise
        self._wait()

    def _wait(self) -> None:
        while self._follow():
            pass

    def _follow(self) -> bool:
        """Process the child's next message. Returns False at the end. Raises the error that the child reports."""
        message = next(self._messages, None)
        if message is not None and "file" in message:
            file, end = message["file"], message["end"]
            self._limits.check_size(end)
            start, _end, _is_complete = self._parts.get(file, (self._end, 0, False))
            self._parts[file] = start, end, message["is_complete"]
            self._end = end
        return message is not None

    def read(self, member: Member) -> Iterator[bytes]:
        """Yield a member's content, a block at a time, as far as it is written; wait for the rest."""
        size = 0
        while True:
            start, end, is_complete = self._parts.get(member.file, (0, 0, False))
            if not is_complete:
                # Only whole blocks: a batch is read again by its number, so it must be cut in the same places then.
                end -= (end - start) % BLOCK
            while start + size < end:
                self._file.seek(start + size)
                block = self._file.read(min(BLOCK, end - start - size))
                if not block:
                    raise damaged(member.file)
                size += len(block)
                yield block
            if is_complete:
                return
            if not self._follow():
                raise damaged(member.file)

    def _check_count(self, member: Records, count: int) -> None:
        """Do nothing, since how many there are was only expected."""

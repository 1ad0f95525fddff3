"""Reads a backup file, and trusts nothing in it: see `Archive`.

Longer than most modules, since the whole defence against hostile files stands in one place.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import orjson
from django.utils.translation import gettext as _

from ..exceptions import InvalidBackup, TooLarge

try:
    from isal import isal_zlib
except ImportError:  # it knows 64-bit processors of Intel's and ARM's kinds only
    isal_zlib = None  # type: ignore[assignment]
from .lines import BETWEEN, Lines
from .metadata import METADATA, Member, Metadata, megabytes, models_by_name, parse_metadata, shown

#: Bytes of a member that are read, checked and parsed at a time. With it, memory does not grow with the file. Less, and
#: a preview would ask a server too often for too little.
BLOCK = 256 * 1024
#: Bytes that a thread unpacks ahead. Less, and it would wait for the interpreter lock more than it works.
AHEAD = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """What a file may ask of the reader. Sizes in bytes."""

    uncompressed: int
    #: Uncompressed to compressed. Real backups reach some 30; deflate itself ends at 1032.
    ratio: int = 300
    members: int = 2000
    #: One record. The largest real ones hold a long note, or a binary field as base64.
    record: int = 64 * 1024 * 1024
    #: Values in one record, which in Python's memory take a hundred times what they take in the file.
    values: int = 500_000
    metadata: int = 1024 * 1024
    #: The ZIP's own table of contents, which has to be read whole.
    directory: int = 1024 * 1024


def _loads_exactly(data: bytes) -> Any:
    """What the standard library makes of it (whole numbers of any size), where it is JSON at all: orjson alone
    refuses NaN and half of a surrogate pair."""
    orjson.loads(data)
    return json.loads(data)


def _is_ours(records: list[Any], text: bytes) -> bool:
    """Whether the text is to the letter what we would write of these records. Then nothing is hidden in it."""
    try:
        return orjson.dumps(records) == text
    except TypeError:  # a whole number beyond 64 bits
        return False


class _TwiceError(ValueError):
    """The name that stands twice."""


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _TwiceError(name)
        found[name] = value
    return found


def _values(line: bytes) -> int:
    """About how many values a long record has: commas that are no text."""
    return _STRING.sub(b"", line).count(b",")


class _BoundedReads:
    """A file that refuses to be read in one huge piece, as `zipfile` would for a hostile table of contents."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._limit = file, limit
        self.seek, self.tell = file.seek, file.tell

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(min(size, self._limit + 1) if size >= 0 else self._limit + 1)
        if len(data) > self._limit:
            raise InvalidBackup(
                _("The file is damaged or no backup: its table of contents is impossibly long.")
            )
        return data


#: What `zipfile` makes of a damaged file.
_DAMAGE: tuple[type[Exception], ...] = (
    EOFError,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    UnicodeError,
    ValueError,
    OverflowError,
)
if isal_zlib:
    _DAMAGE += (isal_zlib.IsalError,)  # type: ignore[operator]


@contextmanager
def _zip_errors() -> Iterator[None]:
    """Whatever `zipfile` and `zlib` have to say of a damaged file, as one sentence."""
    try:
        yield
    except zipfile.BadZipFile as error:
        if "password" in str(error) or "encrypted" in str(error):
            raise InvalidBackup(_("The file is encrypted; a backup is not.")) from error
        raise _damaged() from error
    except _DAMAGE as error:
        raise _damaged() from error


def _damaged() -> InvalidBackup:
    return InvalidBackup(_("The file is damaged: part of it is missing or was changed."))


class Archive:
    """A backup file open for reading.

    `source`: a seekable binary file; it stays open. The constructor reads the table of contents and the metadata and
    checks that they agree; `records` checks each model's file while it reads. Raises `InvalidBackup`, `TooLarge`.
    """

    def __init__(self, source: BinaryIO, limits: Limits) -> None:
        self._limits = limits
        # It belongs to the archive, which is closed by whoever opened it, and to no generator: one that is left in the
        # middle is closed by the garbage collector, at any moment and in any thread, where waiting may be for ever.
        self._unpacker = ThreadPoolExecutor(1, "backup")
        source.seek(0, 2)
        size = source.tell()
        if size == 0:
            raise InvalidBackup(_("The file is empty."))
        try:
            with _zip_errors():
                self._zip = zipfile.ZipFile(_BoundedReads(source, max(limits.directory, AHEAD)))
        except InvalidBackup as error:
            source.seek(0)
            if source.read(2) != b"PK":
                raise InvalidBackup(_("The file is not a ZIP, so it is no backup.")) from error
            raise
        self._entries = self._checked_entries(size)
        self.metadata = self._read_metadata()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *error: object) -> None:
        self._unpacker.shutdown(cancel_futures=True)
        self._zip.close()

    def _checked_entries(self, size: int) -> dict[str, zipfile.ZipInfo]:
        entries: dict[str, zipfile.ZipInfo] = {}
        infos = self._zip.infolist()
        if len(infos) > self._limits.members:
            raise TooLarge(
                _("The file has %(count)s members; a backup has at most %(limit)s.")
                % {"count": len(infos), "limit": self._limits.members}
            )
        for info in infos:
            name = shown(info.filename)
            if info.filename in entries:
                raise InvalidBackup(_("The file holds “%(name)s” twice.") % {"name": name})
            if info.flag_bits & 0x1:
                raise InvalidBackup(_("The file is encrypted; a backup is not."))
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InvalidBackup(_("“%(name)s” is packed in a way that no backup is.") % {"name": name})
            if info.header_offset + info.compress_size > size:
                raise _damaged()
            if (info.external_attr >> 16) & 0o170000 not in (0, 0o100000, 0o040000):
                raise InvalidBackup(_("“%(name)s” is a link, not a file.") % {"name": name})
            entries[info.filename] = info
        total = sum(info.file_size for info in infos)
        if total > self._limits.uncompressed:
            raise TooLarge(
                _(
                    "Unpacked, the file has %(size)s MB; at most %(limit)s MB are read (BACKUP_MAX_UNCOMPRESSED_SIZE)."
                )
                % {"size": megabytes(total), "limit": megabytes(self._limits.uncompressed)}
            )
        if total > 10 * 1024 * 1024 and total > size * self._limits.ratio:
            raise TooLarge(
                _("The file would grow more than %(ratio)s-fold when unpacked; no backup does.")
                % {"ratio": self._limits.ratio}
            )
        return entries

    def _read_metadata(self) -> Metadata:
        info = self._entries.get(METADATA)
        if info is None:
            raise InvalidBackup(_("The ZIP has no metadata.json, so it is no backup."))
        if info.file_size > self._limits.metadata:
            raise InvalidBackup(_("metadata.json is impossibly long."))
        with _zip_errors(), self._zip.open(info) as file:
            # `ZipFile.read` would unpack all that is there, whatever was said.
            text = file.read(self._limits.metadata)
            if file.read(1):
                raise InvalidBackup(_("metadata.json is impossibly long."))
        try:
            said = json.loads(text, object_pairs_hook=_each_once)
        except _TwiceError as error:
            raise InvalidBackup(
                _("metadata.json cannot be read: “%(name)s” stands in it twice.")
                % {"name": shown(str(error))}
            ) from error
        except (ValueError, RecursionError) as error:
            raise InvalidBackup(_("metadata.json cannot be read: it is no JSON.")) from error
        metadata = parse_metadata(said)
        found = {
            name: info
            for name, info in self._entries.items()
            if name != METADATA and not (name.endswith("/") and info.file_size == 0)
        }
        if not metadata.has_checksums:
            metadata = replace(metadata, models=models_by_name(found))
        for label, member in metadata.models.items():
            if member.file not in found:
                raise InvalidBackup(
                    _("“%(file)s” is missing from the ZIP: the records of %(model)s are not there.")
                    % {"file": shown(member.file), "model": label}
                )
        for name in found.keys() - {member.file for member in metadata.models.values()}:
            raise InvalidBackup(
                _("The ZIP holds “%(name)s”, which metadata.json does not know.") % {"name": shown(name)}
            )
        return metadata

    def records(self, label: str, exact_json: bool = False) -> Iterator[list[Any]]:
        """A model's records as parsed JSON, in batches. Checksum and count are known to be right when it is done.

        `exact_json`: read whole numbers of any size (slower). Raises `InvalidBackup`, in the middle too.
        """
        count = 0
        for lines in self.lines(label):
            yield self.parse(label, lines.each, exact_json, count)
            count += lines.count

    def parse(self, label: str, lines: list[bytes], exact_json: bool = False, before: int = 0) -> list[Any]:
        """Some of the `lines` as parsed JSON. `before`: how many stand before them, to say which one is malformed."""
        loads: Callable[[bytes], Any] = _loads_exactly if exact_json else orjson.loads
        member = self.metadata.models[label]
        text = b"[%b]" % b",".join(lines)
        if len(text) > 2 * self._limits.values:  # a value takes two bytes at least
            self._refuse_many_values(member, before, lines)
        try:
            records: list[Any] = loads(text)  # all at once is quicker than one by one
            if len(records) == len(lines) and _is_ours(records, text):
                return records
        except (ValueError, RecursionError):
            pass  # one by one, to find which it is
        try:
            records = [loads(line) for line in lines]
        except (ValueError, RecursionError) as error:
            raise self._malformed(member, before, lines, loads) from error
        self._refuse_twice(member, before, lines)
        return records

    def _refuse_many_values(self, member: Member, before: int, lines: list[bytes]) -> None:
        for number, line in enumerate(lines, before + 1):
            if len(line) > 2 * self._limits.values and _values(line) > self._limits.values:
                raise TooLarge(
                    _("“%(file)s” holds a record of more than %(limit)s values, number %(number)s.")
                    % {"file": shown(member.file), "limit": self._limits.values, "number": number}
                )

    def _refuse_twice(self, member: Member, before: int, lines: list[bytes]) -> None:
        """A name that stands twice in an object: parsers take the last one, and people see the first."""
        for number, line in enumerate(lines, before + 1):
            try:
                json.loads(line, object_pairs_hook=_each_once, parse_int=str)
            except _TwiceError as error:
                raise InvalidBackup(
                    _("“%(file)s” cannot be read: record number %(number)s has “%(name)s” twice.")
                    % {"file": shown(member.file), "number": number, "name": shown(str(error))}
                ) from error
            except RecursionError as error:
                raise self._malformed(member, number - 1, [line], json.loads) from error

    def lines(self, label: str) -> Iterator[Lines]:
        """A model's records as the JSON that they are in the file, in batches; else like `records`."""
        member = self.metadata.models[label]
        digest = hashlib.sha256()
        count = 0
        blocks = self._blocks(member, digest)
        pieces = (
            self._lines(member, blocks) if self.metadata.has_checksums else self._elements(member, blocks)
        )
        before: Lines | None = None
        for batch in pieces:
            yield batch
            count += before.count if before else 0  # one late: who compares them may know the number by then
            before = batch
        count += before.count if before else 0
        if self.metadata.has_checksums:
            if digest.hexdigest() != member.sha256:
                raise InvalidBackup(
                    _("“%(file)s” was changed or damaged: its checksum is not the one in metadata.json.")
                    % {"file": shown(member.file)}
                )
            if count != member.records:
                raise InvalidBackup(
                    _("“%(file)s” holds %(found)s records; metadata.json says %(said)s.")
                    % {"file": shown(member.file), "found": count, "said": member.records}
                )

    def _blocks(self, member: Member, digest: Any) -> Iterator[bytes]:
        size = 0
        entry = self._entries[member.file]
        with _zip_errors(), self._zip.open(entry) as file:
            if isal_zlib and entry.compress_type == zipfile.ZIP_DEFLATED:
                file._decompressor = isal_zlib.decompressobj(-15)  # type: ignore[attr-defined]  # as in `Writer.add`

            def read() -> list[bytes]:
                data = file.read(AHEAD)
                digest.update(data)
                return [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]

            ahead = self._unpacker.submit(read)
            while blocks := ahead.result():
                ahead = self._unpacker.submit(read)
                size += sum(map(len, blocks))
                yield from blocks
        if size != entry.file_size:
            raise _damaged()

    def _lines(self, member: Member, blocks: Iterator[bytes]) -> Iterator[Lines]:
        """The records of a file that has one a line. A line break never stands inside a record: JSON escapes it."""
        rest = b""
        waiting: list[bytes] = []  # blocks that end no record, put together once: a long one has many
        size = 0
        started = False
        for block in blocks:
            size += len(block)
            if size > self._limits.record:
                raise self._endless(member)
            end = block.rfind(BETWEEN)
            if end >= 0:
                text, rest = b"".join([*waiting, memoryview(block)[:end]]), block[end + len(BETWEEN) :]
            elif block[:1] == b"\n" and waiting and waiting[-1][-1:] == b",":  # it is cut in two
                text, _between, rest = b"".join([*waiting, block]).rpartition(BETWEEN)
            else:
                waiting.append(block)
                continue
            waiting, size = [rest], len(rest)
            if not started:
                if not text.startswith(b"[\n"):
                    raise self._not_an_array(member)
                text, started = text[2:], True
            yield Lines(text)
        rest = b"".join(waiting)
        if not started:
            if not rest.startswith(b"[\n"):
                raise self._not_an_array(member)
            rest = rest[1:]
        if not rest.endswith(b"\n]\n"):
            raise self._not_an_array(member)
        if started or len(rest) > 3:
            yield Lines(rest[:-3])

    def _elements(self, member: Member, blocks: Iterator[bytes]) -> Iterator[Lines]:
        """The records of a JSON array laid out in any way (version 1.0)."""
        text = b""
        place = 0  # up to here the text is scanned
        start = 0  # here begins the element that is open, or the gap before the next one
        depth = 0
        separator: bytes = b""  # what a gap may hold, beside white space
        closed = False
        found: list[bytes] = []
        while True:
            for token in _TOKEN.finditer(text, place):
                mark = token.group()
                if (
                    mark[:1] == b'"' and not token[1]
                ):  # a string that does not end in what has been read so far
                    break
                opens, closes = mark in b"[{", mark in b"]}"
                if depth <= 1:
                    gap = text[start : token.start()].strip()
                    if depth == 0:
                        fits = mark == b"[" and not closed and not gap
                    else:
                        fits = gap == separator if opens else mark == b"]" and not gap
                    if not fits:
                        raise self._not_an_array(member)
                    start = token.start() if depth == 1 and opens else token.end()
                depth += opens - closes
                place = token.end()
                closed = closed or depth == 0
                if closes and depth == 1:
                    found.append(text[start:place])
                    start, separator = place, b","
            if found:
                yield Lines(BETWEEN.join(found), found)
                found = []
            text, place, start = text[start:], place - start, 0
            if len(text) > self._limits.record:
                raise self._endless(member)
            # As much again each time, so that a long record is not scanned over and over.
            more, size = [text], 0
            while size <= len(text) and (block := next(blocks, b"")):
                more.append(block)
                size += len(block)
            if not size:
                break
            text = b"".join(more)
        if not closed or text.strip():
            raise self._not_an_array(member)

    def _malformed(
        self, member: Member, before: int, batch: list[bytes], loads: Callable[[bytes], Any]
    ) -> InvalidBackup:
        for number, piece in enumerate(batch, before + 1):
            try:
                loads(piece)
            except (ValueError, RecursionError):
                return InvalidBackup(
                    _("“%(file)s” cannot be read: record number %(number)s is no JSON.")
                    % {"file": shown(member.file), "number": number}
                )
        return self._not_an_array(member)

    def _not_an_array(self, member: Member) -> InvalidBackup:
        return InvalidBackup(
            _("“%(file)s” cannot be read: it is no list of records.") % {"file": shown(member.file)}
        )

    def _endless(self, member: Member) -> TooLarge:
        return TooLarge(
            _("“%(file)s” holds a record of more than %(limit)s MB.")
            % {"file": shown(member.file), "limit": megabytes(self._limits.record)}
        )


_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
#: A string, or a bracket. Of a string that does not end here all that there is, so that nothing is tried twice.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*("?)|[][{}]', re.DOTALL)

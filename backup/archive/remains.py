"""Reads what can still be read of a damaged backup: a member up to where it is damaged, a ZIP without its end.

It is only used if somebody chose to leave out what cannot be read, since checksums then say nothing any longer.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import orjson

from .encryption import OVERHEAD
from .limits import Limits
from .lines import BETWEEN, LayoutError, RecordTooLongError, TooManyValuesError, read_elements

#: Bytes that are unpacked at a time, until there is an error.
PIECE = 4096
#: Bytes of text that are looked at at a time: records that end in the same ones as the damage begins are lost.
_TEXT = 1024

_LOCAL = struct.Struct("<4s5H3I2H")
_WIDE = struct.Struct("<HHQQ")


def unpacked(pieces: Iterable[bytes], method: int, size: int) -> Iterator[bytes]:
    """Yield the content of an entry up to its damage. `pieces`: its packed bytes. `size`: how long it should be."""
    for block in _inflated(pieces) if method == zipfile.ZIP_DEFLATED else pieces:
        yield block[:size]
        size -= len(block)
        if size <= 0:
            return


def _inflated(pieces: Iterable[bytes]) -> Iterator[bytes]:
    unpacker: Any = zlib.decompressobj(-15)
    for piece in pieces:
        before = unpacker.copy()
        try:
            block = unpacker.decompress(piece)
        except zlib.error:
            yield from _up_to_error(before, piece)
            return
        yield block


def _up_to_error(unpacker: Any, piece: bytes) -> Iterator[bytes]:
    """Yield what comes before an error in a piece: fed byte by byte, the decompressor hands over all that it knows."""
    with suppress(zlib.error):
        for place in range(len(piece)):
            yield unpacker.decompress(piece[place : place + 1])


def whole_records(
    blocks: Iterable[bytes], label: str, limits: Limits, *, in_order: bool, fits: Callable[[Any], bool]
) -> Iterator[bytes]:
    """Yield the records at the beginning of a damaged member, each as JSON, up to the first that is none of its model.

    `in_order`: keys that are numbers must rise. `fits`: tells whether the model takes a record.
    """
    names: Any = None
    last: int | None = None
    try:
        for lines in read_elements(_small(blocks), limits):
            for line in lines.each:
                orjson.loads(line)  # refuses halves of surrogate pairs
                record = json.loads(line, object_pairs_hook=_each_once)
                key = record.get("pk")
                fields = record.get("fields")
                if record.keys() != {"model", "pk", "fields"} or record["model"] != label:
                    return
                if not isinstance(fields, dict) or (names is not None and fields.keys() != names):
                    return
                if in_order and type(key) is int:
                    if last is not None and key <= last:
                        return
                    last = key
                if not fits(record):
                    return
                names = fields.keys()
                yield line
    except (LayoutError, RecordTooLongError, TooManyValuesError, ValueError, RecursionError):
        return


def text_of(records: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the text of a member with these records."""
    before = b"[\n"
    for record in records:
        yield before + record
        before = BETWEEN
    yield b"[]\n" if before == b"[\n" else b"\n]\n"


def _small(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut blocks after each line, or if that is long."""
    for block in blocks:
        for line in block.splitlines(keepends=True):
            for place in range(0, len(line), _TEXT):
                yield line[place : place + _TEXT]


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError
    return entries


class CutOff(zipfile.ZipFile):
    """A ZIP without its end, and so without its table of contents, which is made anew from the headers of its entries.

    It has the entries up to the first whose header does not say how long it is, or that is not there as a whole: of
    that one, as much as is there.
    """

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._limits = limits
        super().__init__(file)

    def _RealGetContents(self) -> None:
        """Replace the method of `zipfile` that reads the table of contents."""
        file: Any = self.fp
        end = file.seek(0, 2)
        place = 0
        while place + _LOCAL.size < end:
            file.seek(place)
            magic, version, flags, method, time, date, crc, packed, size, name_size, extra_size = (
                _LOCAL.unpack(file.read(_LOCAL.size))
            )
            if magic != zipfile.stringFileHeader:  # type: ignore[attr-defined]
                break
            name = file.read(name_size)
            extra = file.read(extra_size)
            start = place + _LOCAL.size + name_size + extra_size
            packed, size = _sizes(extra, packed, size)
            # Without its length, an entry was not finished, or was written as a stream. An empty one, such as a folder,
            # has none either, but is followed by the next one.
            file.seek(start)
            is_empty = not size and file.read(4) == zipfile.stringFileHeader  # type: ignore[attr-defined]
            if flags & 0x8 or not (packed or is_empty) or start + min(packed, OVERHEAD) > end:
                break
            info = zipfile.ZipInfo(
                name.decode("utf-8" if flags & 0x800 else "cp437", errors="replace"),
                (1980 + (date >> 9), date >> 5 & 15, date & 31, time >> 11, time >> 5 & 63, time % 32 * 2),
            )
            info.extract_version, info.flag_bits, info.compress_type = version, flags, method
            info.orig_filename, info.header_offset, info.CRC, info.extra = info.filename, place, crc, extra
            info.compress_size, info.file_size = min(packed, end - start), size
            if start + packed > end:  # less will come out of it
                info.file_size = min(size, info.compress_size * self._limits.ratio)
            self.filelist.append(info)
            self.NameToInfo[info.filename] = info
            self._limits.check_members(len(self.filelist))
            place = start + packed
        self.start_dir = place


def _sizes(extra: bytes, packed: int, size: int) -> tuple[int, int]:
    """Return the sizes of an entry; those of more than 4 GB, and those of most writers, are in the extra field."""
    while len(extra) >= 4 and 0xFFFFFFFF in (packed, size):
        kind, length = struct.unpack_from("<HH", extra)
        if kind == 1 and length >= 16 and len(extra) >= _WIDE.size:
            _kind, _length, size, packed = _WIDE.unpack_from(extra)
            break
        extra = extra[4 + length :]
    return packed, size

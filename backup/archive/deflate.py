"""The compression inside of the ZIP: ISA-L where there is a wheel of it (64-bit Intel and ARM), else zlib.

ISA-L takes a quarter of the time, and makes smaller files, too.
"""

from __future__ import annotations

import zlib
from typing import Any

try:
    from isal import isal_zlib
except ImportError:
    isal_zlib = None  # type: ignore[assignment]

#: What decompressing damaged data may raise.
ERRORS: tuple[type[Exception], ...] = (zlib.error, isal_zlib.IsalError) if isal_zlib else (zlib.error,)  # type: ignore[assignment]

#: The highest ratio of uncompressed to compressed size that we write. zlib reaches some 230 on level 1, ISA-L a
#: thousand, which a reader would take for a ZIP bomb (`Limits.ratio`).
_MOST = 200


class Compressor:
    """Compresses to raw deflate, as used in ZIP files. Each piece is compressed independently of the others.

    Level 1, since time counts (some servers end a request after 30 seconds) and JSON compresses well at any level.
    """

    def compress(self, data: bytes) -> bytes:
        if isal_zlib:
            packed = _piece(isal_zlib, data)
            if len(data) <= _MOST * len(packed):
                return packed
        return _piece(zlib, data)

    def flush(self) -> bytes:
        """Return the end of the data."""
        return zlib.compressobj(1, zlib.DEFLATED, -15).flush()


class Stored:
    """A stand-in for a compressor that does not compress."""

    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _piece(library: Any, data: bytes) -> bytes:
    compressor = library.compressobj(1, zlib.DEFLATED, -15)
    return bytes(compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))


def decompressor() -> Any:
    """Return a decompressor of raw deflate."""
    return (isal_zlib or zlib).decompressobj(-15)

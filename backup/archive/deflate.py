"""The compression inside of the ZIP: ISA-L where there is a wheel of it (64-bit Intel and ARM), else zlib.

ISA-L takes a quarter of the time, and makes smaller files too.
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

#: Uncompressed to compressed. zlib ends at some 230 on level 1, ISA-L at a thousand, which a reader would take for a
#: bomb (`Limits.ratio`).
_MOST = 200


class Compressor:
    """Makes raw deflate, such as a ZIP holds, of pieces that are each compressed by themselves.

    On level 1, since time counts (some servers end a request after 30 seconds) and JSON packs well at any level.
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
    """Compresses nothing, and takes a compressor's place."""

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

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


def compressor() -> Any:
    """Return a compressor of raw deflate, such as a ZIP holds.

    Level 1, since time counts (some servers end a request after 30 seconds) and JSON packs well at any level.
    """
    return (isal_zlib or zlib).compressobj(1, zlib.DEFLATED, -15)


def decompressor() -> Any:
    """Return a decompressor of raw deflate."""
    return (isal_zlib or zlib).decompressobj(-15)

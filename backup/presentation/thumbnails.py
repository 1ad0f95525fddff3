"""Small pictures of the photos in a backup, for its preview. They are decoded and encoded anew, so that a browser never
gets the bytes of a file that may be hostile."""

from __future__ import annotations

import io
import threading
from typing import BinaryIO

from PIL import Image, ImageOps

#: Pixels of the longer side.
SIDE = 128
#: The bytes of memory that decoding may take. Several workers may need as many at the same time.
MEMORY = 72 * 1024 * 1024
#: A worker has several threads, and a browser asks for several pictures at once.
_ONE_AT_A_TIME = threading.Lock()
#: The formats that browsers and phones make -> bytes of memory that Pillow needs for a pixel. Pillow's other formats
#: are not tried on a file that may be hostile.
FORMATS = {"JPEG": 4, "PNG": 4, "GIF": 2, "WEBP": 16}


def thumbnail(photo: BinaryIO) -> bytes | None:
    """Return a small JPEG of a photo; None if it is no photo, or too large."""
    Image.init()  # without it, Pillow does not know all of these formats
    try:
        with _ONE_AT_A_TIME, Image.open(photo, formats=[*FORMATS]) as image:
            needed = 0
            if image.info.get("progressive"):  # of which all is held, two bytes for each value
                needed = 2 * len(image.getbands()) * image.width * image.height
            image.draft("RGB", (2 * SIDE, 2 * SIDE))  # a JPEG is decoded to a fraction of its size
            if max(needed, FORMATS[str(image.format)] * image.width * image.height) > MEMORY:
                return None
            # First make it small without a copy: other methods, and turning it, copy the whole image.
            image.thumbnail((4 * SIDE, 4 * SIDE), Image.Resampling.NEAREST)
            small = ImageOps.exif_transpose(image)
            small.thumbnail((SIDE, SIDE))
            small = small.convert("RGBA")
            background = Image.new("RGB", small.size, "white")
            background.paste(small, mask=small)
            target = io.BytesIO()
            background.save(target, "JPEG", quality=80)
            return target.getvalue()
    except Exception:  # noqa: BLE001  a decoder may raise anything for a file that somebody made by hand
        return None

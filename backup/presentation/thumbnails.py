"""Small pictures of the photos in a backup, for its preview: decoded and encoded anew, so that nothing of what is in
the file reaches a browser but how it looks."""

from __future__ import annotations

import io
from typing import BinaryIO

from PIL import Image, ImageOps

#: Pixels of the longer side.
SIDE = 128
#: Pixels that are decoded: four bytes each in memory. A JPEG is decoded to a fraction of its size.
MAX_PIXELS = 24_000_000
#: What browsers and phones make. Others of Pillow's formats are not tried on a file that anybody may have made.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP")


def thumbnail(photo: BinaryIO) -> bytes | None:
    """Return a small JPEG of a photo; None where it is none, or too large."""
    Image.init()  # else Pillow knows not all of them
    try:
        with Image.open(photo, formats=FORMATS) as image:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
            if image.width * image.height > MAX_PIXELS:
                return None
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

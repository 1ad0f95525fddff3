"""Small pictures of the photos in a backup, for its preview. They are decoded and encoded anew, so that a browser never
gets the bytes of a file that may be hostile."""

from __future__ import annotations

import io
import threading
from typing import BinaryIO, cast

from PIL import Image, ImageOps

#: Pixels of the longer side.
SIDE = 128
#: The bytes of memory that decoding may take. Several workers may need as many at the same time. It is enough for an
#: ordinary JPEG of any phone, which is decoded line by line, and for one of 12 megapixels that comes in several scans.
MEMORY = 72 * 1024 * 1024
#: A worker has several threads, and a browser asks for several pictures at once.
_ONE_AT_A_TIME = threading.Lock()
#: The formats that browsers and phones make -> bytes of memory that Pillow needs for a pixel. Pillow's other formats
#: are not tried on a file that may be hostile.
FORMATS = {"JPEG": 4, "PNG": 4, "GIF": 2, "WEBP": 16}
#: Markers in a JPEG: of a scan, and those that nothing belongs to.
_SCAN, _ALONE = 0xDA, (0x00, 0x01, *range(0xD0, 0xD8))


def _comes_in_scans(photo: BinaryIO, components: int) -> bool:
    """Tell whether a JPEG comes in several scans, as libjpeg does: by what the first one lacks. It then holds all of
    the image at its full size, although a baseline JPEG, unlike a progressive one, does not say so."""
    photo.seek(2)
    while byte := photo.read(1):
        if byte != b"\xff":
            continue
        while (byte := photo.read(1)) == b"\xff":
            pass
        if not byte or byte[0] in _ALONE:
            continue
        size = int.from_bytes(photo.read(2), "big")
        if byte[0] == _SCAN:
            return photo.read(1) != bytes([components])
        photo.seek(max(size - 2, 0), 1)
    return True


def thumbnail(photo: BinaryIO) -> bytes | None:
    """Return a small JPEG of a photo; None if it is no photo, or too large."""
    Image.init()  # without it, Pillow does not know all of these formats
    try:
        with _ONE_AT_A_TIME, Image.open(photo, formats=[*FORMATS]) as image:
            needed = 0
            file = cast(BinaryIO, image.fp)
            place = file.tell()
            if image.info.get("progressive") or (
                image.format == "JPEG" and _comes_in_scans(file, len(image.getbands()))
            ):
                # All is held, two bytes for each value.
                needed = 2 * len(image.getbands()) * image.width * image.height
            file.seek(place)
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

"""The names of the entries of a ZIP, once what operating systems do to a folder that is packed again is undone."""

from __future__ import annotations

import re
import unicodedata
import zipfile
from collections.abc import Iterable

METADATA = "metadata.json"

#: Files that Finder and Explorer leave in any folder, in lower case.
_LITTER = (".ds_store", "desktop.ini", "thumbs.db")
#: The longest name of a photo, in bytes of UTF-8. A storage takes about as many (file systems 255 a folder).
_LONGEST = 400
#: Control characters, halves of surrogate pairs, and what ends a line.
_NOT_IN_NAMES = ("Cc", "Cs", "Zl", "Zp")


def members_of(infos: Iterable[zipfile.ZipInfo]) -> list[tuple[str, zipfile.ZipInfo]]:
    """Return the entries that are members of a backup, by their names in it.

    Explorer's backslashes are slashes; folders and what an operating system added are passed over; so is one folder
    around everything else. No name is judged here, and none is ever used as a path: what is no member of a backup, or
    is there twice, is for the reader to refuse.
    """
    members = [
        (name, info)
        for info in infos
        if not _is_added(name := slashed(info)) and not (name.endswith("/") and info.file_size == 0)
    ]
    names = {name for name, _info in members}
    tops = {name.partition("/")[0] for name in names}
    top = tops.pop() if len(tops) == 1 else ""
    if top not in ("", ".", "..") and f"{top}/{METADATA}" in names:
        return [(name.removeprefix(f"{top}/"), info) for name, info in members]
    return members


def slashed(info: zipfile.ZipInfo) -> str:
    """Return an entry's name with slashes, which is what the ZIP format asks for."""
    return info.filename.replace("\\", "/")


def _is_added(name: str) -> bool:
    """Tell whether an operating system added the file. `._x` is where macOS keeps what other file systems cannot of
    `x`."""
    last = name.rpartition("/")[2]
    return name.startswith("__MACOSX/") or last.lower() in _LITTER or last.startswith("._")


def is_photo_name(name: str) -> bool:
    """Tell whether a name is one that a photo may have in a backup: relative, with slashes between its parts, and none
    that leads out of where it begins, or that would be passed over."""
    parts = name.split("/")
    return (
        not any(unicodedata.category(char) in _NOT_IN_NAMES for char in name)
        and len(name.encode()) <= _LONGEST
        and "\\" not in name
        and not re.match("[A-Za-z]:", name)
        and not any(part in ("", ".", "..") for part in parts)
        and not any(_is_added(part) for part in parts)
    )


def shown(text: str, most: int = 100) -> str:
    """Return a text from a file as messages show it: on one line, and at most so many characters long."""
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[: most + 1])
    return text if len(text) <= most else text[:most] + "…"

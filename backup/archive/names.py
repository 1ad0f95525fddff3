"""The names of the entries of a ZIP, without what operating systems change when they pack a folder again."""

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
#: Unicode categories that names must not contain: control characters, halves of surrogate pairs, line separators.
_NOT_IN_NAMES = ("Cc", "Cs", "Zl", "Zp")


def members_of(infos: Iterable[zipfile.ZipInfo]) -> list[tuple[str, zipfile.ZipInfo]]:
    """Return the entries of a ZIP that may be members of a backup, with their names.

    Backslashes, as Explorer writes them, become slashes. Folders, files that an operating system added, and one folder
    around everything else are passed over. Names are not checked here, and never used as paths: the reader refuses
    entries that do not belong in a backup, or that are there twice.
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
    """Return an entry's name with slashes, as the ZIP format demands."""
    return info.filename.replace("\\", "/")


def _is_added(name: str) -> bool:
    """Tell whether an operating system added the file. In `._x`, macOS stores attributes of the file `x`."""
    last = name.rpartition("/")[2]
    return name.startswith("__MACOSX/") or last.lower() in _LITTER or last.startswith("._")


def is_photo_name(name: str) -> bool:
    """Tell whether a photo may have this name in a backup: it must be relative, with slashes between its parts, must
    not lead out of its folder, and must not be one that `members_of` passes over."""
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
    """Return a text from a file for a message: on one line, without control characters, at most `most` characters."""
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[: most + 1])
    return text if len(text) <= most else text[:most] + "…"

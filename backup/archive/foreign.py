"""Recognises what a file is that is not a backup, and says what to do with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from django.utils.translation import gettext as _

from ..exceptions import DamagedBackup, InvalidBackup
from .members import RECORDS_FILE
from .names import METADATA, shown

#: The first bytes of files of other kinds.
_ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
}
#: Members of a ZIP that may be what somebody wants to restore.
_WANTED = re.compile(r".*\.(?:sqlite3?|db)|(?:.*/)?backup_[^/]*\.zip", re.IGNORECASE | re.DOTALL)


def no_zip(source: BinaryIO) -> InvalidBackup:
    """Return the error for a file that is not a ZIP, which says what it seems to be."""
    source.seek(0)
    start = source.read(4096)
    kind = next((kind for mark, kind in _ARCHIVES.items() if start.startswith(mark)), "")
    if start[257:262] == b"ustar":
        kind = "tar"
    if kind:
        return InvalidBackup(
            _(
                "This is a %(kind)s archive, not a backup. Unpack it, and restore the backup or the db.sqlite3 in it."
            )
            % {"kind": kind}
        )
    if any(re.match(r'\s*\[\s*\{\s*"model"\s*:', text) for text in _texts(start)):
        return InvalidBackup(
            _(
                "This is a file of records, not a whole backup. Restore the ZIP that it is from; or, if it was made by "
                "“manage.py dumpdata”, load it by “manage.py loaddata”."
            )
        )
    return InvalidBackup(_("The file is not a ZIP, so it is not a backup."))


def _texts(start: bytes) -> Iterator[str]:
    """Yield the beginning of a file, decoded in likely encodings: `>` in a Windows shell writes UTF-16."""
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        yield start.decode(encoding, errors="replace").removeprefix("\ufeff")


def no_metadata(names: Iterable[str]) -> InvalidBackup:
    """Return the error for a ZIP without `metadata.json`: `DamagedBackup` if it seems to be a backup that has lost it.
    `names`: of its members."""
    names = [*names]
    records = [name for name in names if name.lower().endswith(".json") and "/" not in name]
    wanted = [*filter(_WANTED.fullmatch, names), *(records if len(records) == 1 else ())]
    name = next(iter(wanted), None)
    if name is None and any(map(RECORDS_FILE.fullmatch, names)):
        return missing(METADATA)
    if name is None:
        return InvalidBackup(_("The ZIP has no metadata.json, so it is not a backup."))
    return InvalidBackup(
        _("This ZIP is not a backup, but holds “%(name)s”. Take that out of it, and restore it.")
        % {"name": shown(name)}
    )


def missing(name: str) -> DamagedBackup:
    """Return the error for a backup that lacks a file of this name."""
    return DamagedBackup(_("“%(file)s” is missing from the ZIP.") % {"file": shown(name)})


def encrypted() -> InvalidBackup:
    """Return the error for an encrypted ZIP that names none of our keys, and that none of those at hand opens."""
    return InvalidBackup(
        _(
            "This file was encrypted with another program. Unpack it there, and pack it again without a password, or "
            "restore what is in it."
        )
    )


def is_link(name: str) -> InvalidBackup:
    """Return the error for a link in place of a file. `name`: as messages show it."""
    return InvalidBackup(_("“%(name)s” is a link, not a file.") % {"name": name})

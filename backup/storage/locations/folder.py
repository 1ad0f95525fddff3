"""A folder: on a disk, on a NAS, or one that another program synchronises (Syncthing, a Nextcloud client).

If a disk is not mounted, its folder is there but empty, and writing to it would fill the server's own disk. So the
first copy also writes a file to the folder, the *marker*, and this is noted in BACKUP_ROOT. A folder that has lost its
marker is not mounted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ... import ownership
from ...exceptions import NotMounted, StorageFailed, WrongAddress
from .. import files
from ..atomic import atomic_write, sweep
from ..bounded import Activity
from .client import CHUNK, HIDDEN, Client, fetched, listed, of_backups

#: The name of the marker. Its content is for people.
MARKER = "babybuddy-backup.txt"
_TEXT = "Baby Buddy keeps copies of its backups here. Without this file it takes the folder for one not mounted.\n"
#: Which folders have a marker: {"folders": [digest of a path, …]}. Beside the folders of the sites.
_MARKED = f"{files.ROOT}folders.json"
_marking = threading.Lock()


class Folder(Client):
    """Reads and writes files in a folder, see `Client`."""

    kind = gettext_lazy("folder")
    is_remote = False

    def __init__(self, path: Path) -> None:
        if _is_of_backups(path):
            raise of_backups()
        self.folder = self._path = path
        self.target = path.resolve()
        self._swept: set[Path] = set()

    def write(self, name: str, file: BinaryIO, activity: Activity) -> None:
        self._mark()
        path = self._path / name
        above = ownership.folder_above(path)
        path.parent.mkdir(mode=self._mode(0o770), parents=True, exist_ok=True)
        if path.parent not in self._swept:  # only once, since it lists the folder
            self._swept.add(path.parent)
            sweep(path.parent)
        file.seek(0)
        with atomic_write(path) as target:
            shutil.copyfileobj(file, target, CHUNK)
            os.chmod(target.name, self._mode(0o660))
        ownership.give_as(above, path)

    def _mode(self, most: int) -> int:
        """Return the mode of a new file: the group has the rights that it has to the folder, others have none."""
        return stat.S_IMODE(self._path.stat().st_mode) & most | (most & 0o700)

    def read(self, name: str, activity: Activity) -> BinaryIO:
        self._check()
        with (self._path / name).open("rb") as file:
            return fetched(lambda copy: shutil.copyfileobj(file, copy, CHUNK), activity)

    def read_part(self, name: str, start: int, length: int) -> bytes:
        self._check()
        with (self._path / name).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def size(self, name: str) -> int:
        self._check()
        return (self._path / name).stat().st_size

    def sizes(self, folder: str, activity: Activity) -> dict[str, int | None]:
        return {entry.name: _size(entry) for entry in self._entries(folder) if entry.is_file()}

    def folders(self, activity: Activity) -> list[str]:
        return [entry.name for entry in self._entries("") if entry.is_dir()]

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        self._check()
        try:
            with os.scandir(self._path / folder) as entries:
                return [entry for entry in listed(entries) if not entry.name.startswith(HIDDEN)]
        except FileNotFoundError:
            return []

    def delete(self, name: str) -> None:
        self._check()
        (self._path / name).unlink(missing_ok=True)

    # -- the marker ---

    def _check(self) -> None:
        """Raise `NotMounted` if the folder had a marker and has none now."""
        marker = self._path / MARKER
        # Ask twice for the marker, since another process may be making the first copy just now.
        if not marker.exists() and self._digest in _marked() and not marker.exists():
            raise NotMounted(
                _(
                    "It is not mounted: the file %(marker)s, which the first copy left in its folder, is not there. "
                    "Mount it. If it is a new folder on purpose, create a file of this name in it."
                )
                % {"marker": MARKER}
            )

    def _mark(self) -> None:
        """Write the marker if the folder never had one, and note that. Raises `NotMounted`, `WrongAddress`."""
        self._check()
        marker = self._path / MARKER
        if not marker.exists():
            above = ownership.folder_above(marker)
            try:
                self._path.mkdir(mode=0o700, exist_ok=True)
            except FileNotFoundError:
                raise WrongAddress(
                    _("The folder above it does not exist. Create it, or correct BACKUP_LOCATIONS.")
                ) from None
            with atomic_write(marker) as file:
                file.write(_TEXT.encode())
            ownership.give_as(above, marker)
        with _marking:  # several threads, one for each location, may do this at once
            marked = _marked()
            if self._digest not in marked:
                content = json.dumps({"folders": sorted({*marked, self._digest})})
                files.put(_MARKED, ContentFile(content.encode()))

    @property
    def _digest(self) -> str:
        """A digest of the path, which is noted instead of the path itself, since that may be private."""
        return hashlib.sha256(os.fsencode(os.path.abspath(self._path))).hexdigest()


def _size(entry: os.DirEntry[str]) -> int | None:
    with suppress(FileNotFoundError):  # deleted since
        return entry.stat().st_size
    return None


def _is_of_backups(path: Path) -> bool:
    """Tell whether a folder is that of the backups themselves. One inside or around it may be another disk."""
    with suppress(StorageFailed), files.storage_errors():  # if their storage is wrong, that is said elsewhere
        storage = files.storage()
        if isinstance(storage, FileSystemStorage):
            root = Path(storage.location)
            with suppress(OSError):  # it is not there yet
                return root.samefile(path)  # by whatever mount it is reached
            return root.resolve() == path.resolve()
    return False


def _marked() -> set[str]:
    """Return the digests of the folders that have a marker. Raises `StorageFailed` if the note cannot be read, which is
    different from there being none."""
    text = files.read_file(_MARKED)
    if text is None:
        return set()
    try:
        return {str(digest) for digest in files.parse_json(text)["folders"]}
    except (ValueError, KeyError, TypeError):
        return set()

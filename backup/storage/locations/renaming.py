"""What SFTP and WebDAV have in common: a file is sent under another name, and gets its own when it is complete."""

from __future__ import annotations

import io
import secrets
import time
from abc import abstractmethod
from contextlib import suppress
from typing import BinaryIO

from ..atomic import PARTIAL
from ..bounded import Activity
from .client import HIDDEN, Client

#: Seconds after which a file that is still being written was left by a process that died.
ABANDONED = 24 * 3600


class Renaming(Client):
    def __init__(self) -> None:
        self._swept: set[str] = set()
        self._can_rename: bool | None = None

    @abstractmethod
    def _make_folder(self, folder: str) -> None:
        """Make a folder and those above it, as far as they are not there."""

    @abstractmethod
    def _put(self, name: str, file: BinaryIO) -> None:
        """Save a file, all of it. It may be seen before it is complete."""

    @abstractmethod
    def _rename(self, name: str, to: str) -> None:
        """Give a file another name, in place of one that has it. Raises `PermissionError`."""

    @abstractmethod
    def _all_names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder as `names` does, hidden ones too."""

    def write(self, name: str, file: BinaryIO, activity: Activity) -> None:
        folder, _slash, bare = name.rpartition("/")
        self._make_folder(folder)
        self._sweep(folder)
        if not self._renames(folder):
            self._put(name, file)
            return
        partial = self._partial(folder, bare)
        try:
            self._put(partial, file)
            self._rename(partial, name)
        except BaseException:
            with suppress(Exception):  # what can be said was said
                self.delete(partial)
            raise

    def names(self, folder: str) -> list[str]:
        return [name for name in self._all_names(folder) if not name.startswith(HIDDEN)]

    def _renames(self, folder: str) -> bool:
        """Tell whether names can be changed there, which is tried once, with an empty file. An append-only place may
        forbid it."""
        if self._can_rename is None:
            before, after = self._partial(folder, "test"), self._partial(folder, "test")
            self._put(before, io.BytesIO())
            try:
                self._rename(before, after)
                self._can_rename = True
            except PermissionError:
                self._can_rename = False
            with suppress(PermissionError):
                self.delete(after if self._can_rename else before)
        return self._can_rename

    def _partial(self, folder: str, bare: str) -> str:
        """Return a new name for a file that is being written; it says since when."""
        return f"{folder}/{HIDDEN}{bare}.{int(time.time())}.{secrets.token_hex(4)}{PARTIAL}"

    def _sweep(self, folder: str) -> None:
        """Delete what killed processes left half written in a folder; once a client, since that lists the folder."""
        if folder in self._swept:
            return
        self._swept.add(folder)
        with suppress(PermissionError):
            for name in self._all_names(folder):
                if name.endswith(PARTIAL) and _age(name) > ABANDONED:
                    self.delete(f"{folder}/{name}")


def _age(partial: str) -> float:
    """Return how long ago a file began to be written, in seconds, as its name says it; 0 if it does not."""
    began = [*partial.removesuffix(PARTIAL).split("."), "", ""][-4]
    return abs(time.time() - int(began)) if began.isdigit() else 0

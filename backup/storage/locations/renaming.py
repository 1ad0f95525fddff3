"""What SFTP and WebDAV have in common: a file is sent under a temporary name, and renamed when it is complete."""

from __future__ import annotations

import io
import secrets
import time
from abc import abstractmethod
from contextlib import suppress
from typing import BinaryIO

from ...exceptions import Unreachable
from ..atomic import PARTIAL
from ..bounded import Activity
from .client import HIDDEN, Client, did_not_arrive

#: Seconds after which an incomplete file is taken for one of a process that was killed.
ABANDONED = 24 * 3600


class Renaming(Client):
    def __init__(self) -> None:
        self._swept: set[str] = set()
        self._can_rename: bool | None = None

    @abstractmethod
    def _make_folder(self, folder: str) -> None:
        """Make a folder, and those above it, if they are not there."""

    @abstractmethod
    def _put(self, name: str, file: BinaryIO) -> None:
        """Write a whole file. It may appear before it is complete."""

    @abstractmethod
    def _rename(self, name: str, to: str) -> None:
        """Rename a file, replacing one of that name. Raises `PermissionError`."""

    @abstractmethod
    def _all_sizes(self, folder: str, activity: Activity) -> dict[str, int | None]:
        """Return the sizes of the files in a folder as `sizes` does, including hidden ones."""

    def write(self, name: str, file: BinaryIO, activity: Activity) -> None:
        folder, _slash, bare = name.rpartition("/")
        self._make_folder(folder)
        self._sweep(folder, activity)
        if not self._renames(folder):
            self._put(name, file)
            return
        partial = self._partial(folder, bare)
        try:
            self._put(partial, file)
            self._move(partial, name)
        except BaseException:
            with suppress(Exception):  # the first error is the one to report
                self.delete(partial)
            raise

    def sizes(self, folder: str, activity: Activity) -> dict[str, int | None]:
        every = self._all_sizes(folder, activity)
        return {name: size for name, size in every.items() if not name.startswith(HIDDEN)}

    def _renames(self, folder: str) -> bool:
        """Tell whether files can be renamed there: an append-only server may forbid it. It is tried once, with an empty
        file. Its name is always the same, since it may stay there."""
        if self._can_rename is None:
            before, after = (f"{folder}/{HIDDEN}test{number}{PARTIAL}" for number in (1, 2))
            try:
                self._put(before, io.BytesIO())
                self._rename(before, after)
                self._can_rename = True
            except PermissionError:
                self._can_rename = False
            except (FileNotFoundError, Unreachable):
                # Another process may be trying it, too. If it is something else, the file that is to be sent shows it.
                self._can_rename = True
            with suppress(PermissionError, Unreachable):
                self.delete(after if self._can_rename else before)
        return self._can_rename

    def _move(self, partial: str, name: str) -> None:
        """Rename a file that was just written. Raises `PermissionError`, and `LocationFailed` if it is not there."""
        try:
            self._rename(partial, name)
        except FileNotFoundError:
            raise did_not_arrive() from None

    def _partial(self, folder: str, bare: str) -> str:
        """Return a temporary name for a file, which contains the present time."""
        return f"{folder}/{HIDDEN}{bare}.{int(time.time())}.{secrets.token_hex(4)}{PARTIAL}"

    def _sweep(self, folder: str, activity: Activity) -> None:
        """Delete incomplete files of killed processes. Only once for each client, since it lists the folder."""
        if folder in self._swept:
            return
        self._swept.add(folder)
        with suppress(PermissionError):
            for name in self._all_sizes(folder, activity):
                if name.endswith(PARTIAL) and _age(name) > ABANDONED:
                    self.delete(f"{folder}/{name}")


def _age(partial: str) -> float:
    """Return the age of an incomplete file in seconds, by its name; 0 if the name does not say."""
    began = [*partial.removesuffix(PARTIAL).split("."), "", ""][-4]
    return abs(time.time() - int(began)) if began.isdigit() else 0

"""What a kind of location must be able to do. Names are relative to the location: `site_1/kept/x`.

Each method raises Python's own errors where they say it: `FileNotFoundError`, `PermissionError` where the place does
not allow this to anybody, `ConnectionError`, `TimeoutError`, `OSError` with `ENOSPC`; or a `LocationFailed` of its own
with a sentence. `Location` makes sentences of the former. Of a library's error nothing is passed on but its kind or its
code: its text may have parts of the address in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import BinaryIO

from ..bounded import Activity


class Client(ABC):
    """One place. It connects when it is first asked, and may be asked by several threads, one after another."""

    #: Whether what goes there leaves this machine.
    is_remote = True

    @abstractmethod
    def write(self, name: str, file: BinaryIO, activity: Activity) -> None:
        """Save a file from its position on, in place of one of the same name. It appears only when it is complete.

        `file` reports to `activity` what is read of it.
        """

    @abstractmethod
    def read(self, name: str, activity: Activity) -> BinaryIO:
        """Return a file as a temporary one, at its beginning. Raises `FileNotFoundError`."""

    @abstractmethod
    def read_part(self, name: str, start: int, length: int) -> bytes:
        """Return some bytes of a file, fewer at its end. Raises `FileNotFoundError`."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Return the size of a file in bytes. Raises `FileNotFoundError`."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, without the folder; [] where there is no such folder."""

    @abstractmethod
    def folders(self) -> list[str]:
        """Return the names of the folders at the top; [] where there is none."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file; one that is gone already is fine."""

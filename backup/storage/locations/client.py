"""What a kind of location must be able to do. Names are relative to the location: `site_1/kept/x`.

Each method raises Python's own errors where they say it: `FileNotFoundError`, `PermissionError` if the place does
not allow this to anybody, `ConnectionError`, `TimeoutError`, `OSError` with `ENOSPC`; or a `LocationFailed` of its own
with a sentence. `Location` makes sentences of the former. Of a library's error nothing is passed on but its kind or its
code: its text may have parts of the address in it.
"""

from __future__ import annotations

import importlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, cast

from django.utils.functional import Promise
from django.utils.translation import gettext as _

from ...exceptions import LibraryMissing, NotVerified, StorageFailed
from ..bounded import Activity

#: How the name of a file begins that is being written, or was left half written. It is not listed.
HIDDEN = "."
#: Bytes that are moved at a time.
CHUNK = 256 * 1024


class Client(ABC):
    """One place. It connects when it is first asked, and may be asked by several threads, one after another."""

    #: What it is, in a word for people.
    kind: str | Promise
    #: Whether what goes there leaves this machine.
    is_remote = True
    #: The folder that it is, if it is one.
    folder: Path | None = None
    #: Whether what is sent can be read on the way, since nothing encrypts the connection.
    is_open = False

    @abstractmethod
    def write(self, name: str, file: BinaryIO, activity: Activity) -> None:
        """Save a file, all of it, in place of one of the same name. It appears only when it is complete.

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
        """Return the names of the files in a folder, without the folder; [] if there is no such folder."""

    @abstractmethod
    def folders(self) -> list[str]:
        """Return the names of the folders at the top; [] if there is none."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file; one that is gone already is fine."""

    def close(self) -> None:  # noqa: B027  many have none
        """Close its connections. Nothing is asked afterwards."""


def library(name: str, extra: str) -> ModuleType:
    """Return a library that not everybody has. Raises `LibraryMissing`, which says with which extra it comes."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise LibraryMissing(
            _("It needs the library %(library)s. Install it: pip install 'babybuddy-backup[%(extra)s]'")
            % {"library": name.partition(".")[0], "extra": extra}
        ) from None


def not_verified(error: BaseException) -> NotVerified:
    """Return what an error of TLS means. `error`: whose text says whether it is about the certificate."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return NotVerified(
            _(
                "Its certificate is not of an authority that this system trusts, or is for another name, or expired."
            )
        )
    return NotVerified(
        _("It does not speak TLS there, or none that this system accepts. Check port and address.")
    )


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Raise `StorageFailed` for what the disk of this server says, which must not be taken for that of the location."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            _("The server has no room for a copy of the file (%(reason)s). Free some of its disk.")
            % {"reason": error.strerror}
        ) from error


class _Copy:
    """A temporary file that is being written."""

    def __init__(self, file: Any, activity: Activity) -> None:
        self._file, self._activity = file, activity

    def write(self, content: bytes) -> int:
        self._activity.moved()
        with _disk_errors():
            return int(self._file.write(content))


def fetched(fill: Callable[[BinaryIO], object], activity: Activity) -> BinaryIO:
    """Return a temporary file, at its beginning, that `fill` has written into. The caller closes it.

    Raises what `fill` raises, and `StorageFailed`.
    """
    with _disk_errors():
        file = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        fill(cast(BinaryIO, _Copy(file, activity)))
        with _disk_errors():
            file.seek(0)  # which writes what is left
    except BaseException:
        with suppress(OSError):  # it tries to write that again
            file.close()
        raise
    return cast(BinaryIO, file)


def part_of(chunks: Iterable[bytes], start: int, length: int) -> bytes:
    """Return `length` bytes of what a server sends, from `start` on; fewer at its end. No more is held, or waited for:
    a server that was asked for a part may send all of the file."""
    part = bytearray()
    for chunk in chunks:
        part += chunk[start : start + length - len(part)]
        start = max(start - len(chunk), 0)
        if len(part) == length:
            break
    return bytes(part)

"""The interface of a kind of location. Names are relative to the location: `site_1/kept/x`.

Methods raise Python's own errors where one fits, which `Location` then puts into words: `FileNotFoundError`,
`PermissionError` if the location does not allow something to anybody, `ConnectionError`, `TimeoutError`, `OSError` with
`ENOSPC`. Otherwise they raise a `LocationFailed` with a message of their own. The text of a library's error is never
passed on, only its type or code: the text may contain parts of the address.
"""

from __future__ import annotations

import importlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, TypeVar, cast

from django.utils.functional import Promise
from django.utils.translation import gettext as _

from ...archive import site_limits
from ...exceptions import (
    LibraryMissing,
    LocationFailed,
    NotVerified,
    StorageFailed,
    Unreachable,
    WrongAddress,
)
from ..bounded import Activity

T = TypeVar("T")
#: The beginning of the name of a file that is not complete yet. Such files are not listed.
HIDDEN = "."
#: Bytes that are sent or fetched at a time.
CHUNK = 256 * 1024
#: The most files and folders that a place may list together: four times the photos that a backup may have.
MOST_LISTED = 200_000


class Client(ABC):
    """A client for one place. It connects on its first use. Several threads may use it, but not at the same time."""

    #: What it is, in a word for people: "S3".
    kind: str | Promise
    #: Whether files that are sent leave this machine.
    is_remote = True
    #: The path, if the place is a folder.
    folder: Path | None = None
    #: Whether the connection is not encrypted, so that what is sent can be read on the way.
    is_open = False
    #: Equal for two addresses of the same place, whatever their passwords. It may have a user's name in it.
    target: object

    @abstractmethod
    def write(self, name: str, file: BinaryIO, activity: Activity) -> None:
        """Write a whole file, replacing one of the same name. It only appears once it is complete.

        Reading `file` reports to `activity` by itself.
        """

    @abstractmethod
    def read(self, name: str, activity: Activity) -> BinaryIO:
        """Return a temporary file with the content of a file, at its beginning. Raises `FileNotFoundError`."""

    @abstractmethod
    def read_part(self, name: str, start: int, length: int) -> bytes:
        """Return `length` bytes of a file from `start` on, fewer at its end. Raises `FileNotFoundError`."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Return the size of a file in bytes. Raises `FileNotFoundError`."""

    @abstractmethod
    def sizes(self, folder: str, activity: Activity) -> dict[str, int | None]:
        """Return name -> size in bytes of the files in a folder; {} if there is no such folder. Names are without the
        folder. A size is None if the place does not tell it together with the name.

        Where a list comes in parts, `activity.check` is called for each.
        """

    @abstractmethod
    def folders(self, activity: Activity) -> list[str]:
        """Return the names of the folders at the top level; [] if there are none. `activity`: as in `sizes`."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""

    def break_off(self) -> None:  # noqa: B027
        """Break the connections, from another thread than the one that waits for an answer.

        A client need not do this if it calls `activity.check` for all that may come without end.
        """

    def close(self) -> None:  # noqa: B027  many have nothing to close
        """Close the connections. The client is not used afterwards."""


def library(name: str, extra: str) -> ModuleType:
    """Import an optional library. Raises `LibraryMissing`, which names the extra that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise LibraryMissing(
            _("It needs the library %(library)s. Install it: pip install 'babybuddy-backup[%(extra)s]'")
            % {"library": name.partition(".")[0], "extra": extra}
        ) from None


def not_verified(error: BaseException) -> NotVerified:
    """Return the error to raise for an error of TLS, whose text says whether it is about the certificate."""
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
    """Raise `StorageFailed` for errors of this server's disk, so that they are not blamed on the location."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            _("The server has no room for a copy of the file (%(reason)s). Free some of its disk.")
            % {"reason": error.strerror}
        ) from error


class _Copy:
    """A temporary file to write to, which reports to an `Activity`.

    It takes no more than the largest backup that is read: a server may send without end.
    """

    def __init__(self, file: Any, activity: Activity) -> None:
        self._file, self._activity = file, activity
        # Around what is in a backup are two headers for each entry.
        most = site_limits()
        self._left = most.uncompressed + 2 * most.directory_with_photos

    def write(self, content: bytes) -> int:
        self._activity.moved(len(content))
        self._left -= len(content)
        if self._left < 0:
            raise was_changed()
        with _disk_errors():
            return int(self._file.write(content))


def fetched(fill: Callable[[BinaryIO], object], activity: Activity) -> BinaryIO:
    """Return a temporary file that `fill` has written to, at its beginning. The caller closes it.

    Raises what `fill` raises, and `StorageFailed`.
    """
    with _disk_errors():
        file = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        fill(cast(BinaryIO, _Copy(file, activity)))
        with _disk_errors():
            file.seek(0)  # this writes what is still buffered
    except BaseException:
        with suppress(OSError):  # it tries to write that again
            file.close()
        raise
    return cast(BinaryIO, file)


def part_of(chunks: Iterable[bytes], start: int, length: int) -> bytes:
    """Return `length` bytes from `start` on of what a server sends; fewer at its end.

    A server that was asked for a part of a file may send all of it, so no more than that is kept or read.
    """
    part = bytearray()
    for chunk in chunks:
        part += chunk[start : start + length - len(part)]
        start = max(start - len(chunk), 0)
        if len(part) == length:
            break
    return bytes(part)


def listed(entries: Iterable[T]) -> list[T]:
    """Return what a place lists. Raises `LocationFailed` if that is too much."""
    items = list(islice(entries, MOST_LISTED + 1))
    if len(items) > MOST_LISTED:
        raise lists_too_much()
    return items


# -- errors that several kinds have in common ---


def lists_too_much() -> LocationFailed:
    """Return the error for a place that lists more than anybody keeps there."""
    return LocationFailed(
        _("It lists more than %(most)s files. Choose a place that nothing else is kept in.")
        % {"most": f"{MOST_LISTED:,}"}
    )


def does_not_work(reason: str) -> LocationFailed:
    """Return the error for an unexpected one. `reason`: its type or code, nothing of its text."""
    return LocationFailed(_("It does not work (%(reason)s).") % {"reason": reason})


def was_changed() -> LocationFailed:
    """Return the error for a file that is not what was written."""
    return LocationFailed(_("What was written there comes back as something else."))


def did_not_arrive() -> LocationFailed:
    """Return the error for a file that a place has taken, and does not have."""
    return LocationFailed(_("What was written there is not there afterwards."))


def no_such_folder() -> WrongAddress:
    """Return the error for a folder that is missing, and cannot be made."""
    return WrongAddress(_("The folder in its address does not exist, and cannot be made."))


def of_backups() -> WrongAddress:
    """Return the error for a place that is BACKUP_ROOT itself."""
    return WrongAddress(
        _("Its folder is that of the backups themselves (BACKUP_ROOT), so a copy there would be none.")
    )


def cannot_work_now(code: object) -> Unreachable:
    """Return the error for a server that answers, but cannot work. `code`: of its answer."""
    return Unreachable(
        _("It says that it cannot work now (%(code)s). Wait, or ask who runs it.") % {"code": code}
    )


def unknown_host() -> Unreachable:
    """Return the error for a host whose name cannot be resolved."""
    return Unreachable(_("The name of its host is not known. Check its address, and the network."))

"""A location as the rest of the app sees it: with a time limit, errors in words, and a folder for each site."""

from __future__ import annotations

import errno
import io
import secrets
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from django.core.files.base import ContentFile
from django.utils.translation import gettext as _

from ...conf import conf
from ...exceptions import (
    BackupError,
    CannotDelete,
    CannotList,
    CannotRead,
    Denied,
    Full,
    LocationFailed,
    NoSuchBackup,
    NoSuchLocation,
    Slow,
    StorageFailed,
    Unreachable,
    WrongAddress,
)
from .. import files
from ..bounded import (
    ANSWER,
    STALLED,
    Activity,
    DoesNotAnswer,
    PageWaitsNoLonger,
    WatchedFile,
    bounded,
    patience,
)
from ..keys import key_for
from .client import Client, did_not_arrive, does_not_work, no_such_folder, of_backups, was_changed
from .clients import client_of, kind_of

T = TypeVar("T")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_GONE = {
    errno.ESTALE,
    errno.ENOTCONN,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENODEV,
    errno.ENXIO,
}


class Location:
    """A place where copies go. Methods only raise `LocationFailed` and `NoSuchBackup`; see exceptions.py."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self._address = address
        self._made: Client | None = None

    def __repr__(self) -> str:
        return f"<Location {self.name}>"

    @property
    def is_remote(self) -> bool:
        """Whether files that are sent leave this machine, going by the address. Raises `LocationFailed`."""
        with self._words():
            return self._client.is_remote

    @property
    def is_open(self) -> bool:
        """Whether the connection to another machine is not encrypted. Raises `LocationFailed`."""
        with self._words():
            return self._client.is_open

    @property
    def folder(self) -> Path | None:
        """The path, if it is a folder; else None. Raises `LocationFailed`."""
        with self._words():
            return self._client.folder

    @property
    def target(self) -> object:
        """Equal for two names of the same place, going by their addresses. Raises `LocationFailed`."""
        with self._words():
            return self._client.target

    @property
    def kind(self) -> str:
        """What it is, in a word for people, going by the address: "S3". It contains nothing secret."""
        return str(kind_of(self._address).kind)

    @property
    def encrypts(self) -> bool:
        """Whether copies there are encrypted. Raises `StorageFailed`, `EncryptionUnavailable`: see `keys.key_for`."""
        return key_for(self.name) is not None

    def names(self, folder: str = files.KEPT, site: str = "") -> list[str]:
        """Return the names of the files in a folder, without the folder, sorted; [] if there is no such folder.

        `site`: the id of another site that keeps its files there. Raises `CannotList`, `LocationFailed`.
        """
        return sorted(self.sizes(folder, site))

    def sizes(self, folder: str, site: str = "") -> dict[str, int | None]:
        """Return name -> size in bytes of the files in a folder; None if the location does not tell sizes when it lists
        names. The rest is as in `names`."""
        path = self._path(folder, site)
        with self._words(CannotList):
            return self._ask(lambda client, activity: client.sizes(path, activity))

    def other_sites(self) -> list[str]:
        """Return the ids of the other sites that keep files there. Raises `CannotList`, `LocationFailed`."""
        with self._words(CannotList):
            return files.sites_among(self._ask(lambda client, activity: client.folders(activity)))

    def send(self, name: str, file: BinaryIO, seconds: int = 0) -> None:
        """Write a whole file, replacing one of the same name. It only appears once it is complete.

        `seconds`: how long no bytes may move; by default, STALLED. Raises `LocationFailed`.
        """
        path = self._path(name)

        def write(client: Client, activity: Activity) -> None:
            client.write(path, cast(BinaryIO, WatchedFile(file, activity)), activity)

        with self._words():
            self._ask(write, seconds or STALLED)

    def fetch(self, name: str, site: str = "") -> BinaryIO:
        """Return a temporary file with the content of a file; the caller closes it.

        Raises `NoSuchBackup`, `LocationFailed`.

        `site`: see `names`.
        """
        path = self._path(name, site)
        with self._words(CannotRead):
            return self._ask(lambda client, activity: client.read(path, activity), STALLED)

    def read_part(self, name: str, start: int, length: int) -> bytes:
        """Return `length` bytes of a file from `start` on, fewer at its end. Raises as `fetch` does."""
        path = self._path(name)
        with self._words(CannotRead):
            return self._ask(lambda client, _activity: client.read_part(path, start, length))

    def size(self, name: str) -> int:
        """Return the size of a file in bytes. Raises as `fetch` does."""
        path = self._path(name)
        with self._words(CannotRead):
            return self._ask(lambda client, _activity: client.size(path))

    def delete(self, name: str) -> None:
        """Delete a file, if it is there. Raises `CannotDelete`, `LocationFailed`."""
        path = self._path(name)
        with self._words(CannotDelete):
            self._ask(lambda client, _activity: client.delete(path))

    def refuse_backups(self) -> None:
        """Raise `WrongAddress` if this is BACKUP_ROOT itself, reached in another way, such as by another mount or SFTP.

        If so, a new file in BACKUP_ROOT is there, too. Nothing is written to the location.
        """
        name, content = f"{files.RESTORES}/{secrets.token_hex(16)}.json", secrets.token_bytes(16)
        try:
            files.put(name, ContentFile(content), is_one_of_many=True, seconds=ANSWER)
        except StorageFailed:
            return  # then nobody could write to it as a location, either
        try:
            with suppress(NoSuchBackup, CannotRead):
                if self.read_part(name, 0, len(content)) == content:
                    raise WrongAddress(self._sentence(of_backups().message))
        finally:
            with suppress(StorageFailed):  # it expires
                files.delete(name)

    def test(self) -> list[Denied]:
        """Write a small file, read it back and delete it, with short time limits. Raises `LocationFailed`.

        Returns errors for what the location does not allow, such as deleting, though copies can be made.
        """
        self.refuse_backups()
        limits: list[Denied] = []
        name, content = f"test/{secrets.token_hex(8)}.txt", secrets.token_bytes(1000)
        self.send(name, io.BytesIO(content), ANSWER)
        try:
            if self.read_part(name, 0, len(content) + 1) != content:
                raise LocationFailed(self._sentence(was_changed().message))
        except CannotRead as error:
            limits.append(error)
        except NoSuchBackup as error:
            raise LocationFailed(self._sentence(did_not_arrive().message)) from error
        for act in (self.names, lambda: self.delete(name)):
            try:
                act()
            except (CannotList, CannotDelete) as error:
                limits.append(error)
        return limits

    # -- calling the client ---

    @property
    def _client(self) -> Client:
        if self._made is None:
            self._made = client_of(self._address)
            # Connections stay open as long as this object lives, so that several files share one.
            weakref.finalize(self, self._made.close).atexit = False
        return self._made

    def _ask(self, question: Callable[[Client, Activity], T], seconds: int = 0) -> T:
        """Return what `question` returns for the client. `seconds`: how long no bytes may move."""
        client = self._client
        try:
            return bounded(lambda activity: question(client, activity), seconds or ANSWER, patience())
        except DoesNotAnswer:
            client.break_off()
            self._made = None  # a thread may still hang in this client
            raise

    def _path(self, name: str, site: str = "") -> str:
        """Return the full name of a file there. Raises `NoSuchBackup` for bad names, which a server may list."""
        if "\\" in name or {"", ".", ".."} & {*name.split("/")}:
            raise self._no_such_backup()
        return files.path_of(name, site)

    def _no_such_backup(self) -> NoSuchBackup:
        return NoSuchBackup(_("The location “%(name)s” has no such file.") % {"name": self.name})

    def _sentence(self, text: str) -> str:
        return _("Location “%(name)s”: %(text)s") % {"name": self.name, "text": text}

    @contextmanager
    def _words(self, refused: type[Denied] = Denied) -> Iterator[None]:
        """Raise a `LocationFailed` with the name of this location for whatever a client raises.

        `refused`: the error for something that the location does not allow. The original error is not chained to ours,
        since its text may contain parts of the address and might be logged.
        """
        try:
            yield
        except LocationFailed as error:
            raise type(error)(self._sentence(error.message), error.details) from None
        except (FileNotFoundError, NotADirectoryError):
            if refused is CannotRead:
                raise self._no_such_backup() from None
            raise WrongAddress(self._sentence(no_such_folder().message)) from None
        except BackupError:
            raise
        except Exception as error:  # noqa: BLE001  whatever a library raises
            failed, text = _failure_for(error, refused)
            raise failed(self._sentence(text)) from None


def _failure_for(error: Exception, refused: type[Denied]) -> tuple[type[LocationFailed], str]:
    """Return which of our errors to raise for an error, and its message."""
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, PageWaitsNoLonger):
        return Slow, _(
            "It answers too slowly for this page. Try again later, or use a command on the server, such as "
            "manage.py restore, which waits longer."
        )
    if isinstance(error, TimeoutError | DoesNotAnswer) or code == errno.ETIMEDOUT:
        return Slow, _("It does not answer in time. Check that it is up and not overloaded.")
    if isinstance(error, ConnectionError) or code in _GONE:
        return Unreachable, _("It cannot be reached. Check that it is up, and the network in between.")
    if code == errno.EIO:
        return LocationFailed, _(
            "Reading or writing there fails. Check its disk, and the network in between."
        )
    if code in _FULL:
        return Full, _("It is full. Delete something there, or give it more room.")
    cannot = (
        isinstance(error, NotImplementedError) and refused is not Denied
    )  # a storage that has no such method
    if cannot or isinstance(error, PermissionError) or code == errno.EROFS:
        return refused, {
            CannotList: _("It lets nobody list what is there, so the copies cannot be checked from here."),
            CannotRead: _("It lets nobody read what is there, so the copies cannot be checked from here."),
            CannotDelete: _("It lets nobody delete, so old copies stay there."),
        }.get(refused, _("It does not let this user write. Check the user's rights there."))
    return LocationFailed, does_not_work(_kind(error)).message


def _kind(error: Exception) -> str:
    """Return what may be shown of an unknown error: its type and number, but not its text."""
    with suppress(TypeError, ValueError):
        if isinstance(error, OSError) and error.errno:
            return f"{type(error).__name__} {errno.errorcode[error.errno]}"
    return type(error).__name__


def locations() -> list[Location]:
    """Return the locations of BACKUP_LOCATIONS, in its order."""
    return [Location(name, address) for name, address in conf.locations.items()]


def location(name: str) -> Location:
    """Return the location of this name. Raises `NoSuchLocation`."""
    if name not in conf.locations:
        raise NoSuchLocation(_("There is no location of this name in BACKUP_LOCATIONS."))
    return Location(name, conf.locations[name])

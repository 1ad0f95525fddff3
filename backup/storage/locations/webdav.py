"""WebDAV, as in Nextcloud and many NAS devices: `webdavs://USER:PASSWORD@HOST/PATH`.

`webdav://` is the same without TLS. Anybody in between can then read the password, so unless the server is this
machine, it also needs `?insecure=yes`.
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlsplit
from xml.etree.ElementTree import ParseError, XMLParser

from django.utils.translation import gettext as _

from ...exceptions import Denied, LocationFailed, WrongAddress
from ..bounded import ANSWER, Activity
from . import client
from .address import parse
from .client import (
    CHUNK,
    cannot_work_now,
    fetched,
    library,
    no_such_folder,
    not_verified,
    part_of,
    unknown_host,
)
from .renaming import Renaming

_DAV = "{DAV:}"
#: Bytes that a list of files may have, and what it says of one of them. Nextcloud takes some 300 for one.
_LONGEST_LIST, _LONGEST_ENTRY = 256 * 1024 * 1024, 1024 * 1024
_KINDS = (
    b'<?xml version="1.0"?><propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/></prop></propfind>'
)


class WebDav(Renaming):
    """Reads and writes files on a WebDAV server, see `Client`."""

    kind = "WebDAV"

    def __init__(self, text: str) -> None:
        super().__init__()
        library("httpx", "webdav")
        self._address = address = parse(text, "insecure")
        self.target = address.target()
        has_tls = address.scheme == "webdavs"
        self.is_open = not has_tls and not address.is_loopback
        if self.is_open and address.parameters.get("insecure") != "yes":
            raise WrongAddress(
                _(
                    "Its address begins with webdav://, so everybody on the way could read the password. Use "
                    "webdavs://, or add ?insecure=yes where you know the way."
                )
            )
        host = f"[{address.host}]" if ":" in address.host else address.host
        port = f":{address.port}" if address.port else ""
        self._origin = f"{'https' if has_tls else 'http'}://{host}{port}"
        self._root = f"/{quote(address.path)}" if address.path else ""
        self._http: Any = None
        self._made: set[str] = set()

    def _put(self, name: str, file: BinaryIO) -> None:
        size = file.seek(0, 2)
        file.seek(0)
        with self._asked("PUT", name, content=_chunks(file), headers={"Content-Length": str(size)}):
            pass

    def _rename(self, name: str, to: str) -> None:
        headers = {"Destination": self._origin + self._path(to), "Overwrite": "T"}
        with self._asked("MOVE", name, headers=headers):
            pass

    def read(self, name: str, activity: Activity) -> BinaryIO:
        def fill(copy: BinaryIO) -> None:
            with self._asked("GET", name) as answer:
                for chunk in answer.iter_raw(CHUNK):
                    copy.write(chunk)

        return fetched(fill, activity)

    def read_part(self, name: str, start: int, length: int) -> bytes:
        with self._asked(
            "GET", name, headers={"Range": f"bytes={start}-{start + length - 1}"}, allowed=(416,)
        ) as answer:
            if answer.status_code == 416:  # the part begins behind the end of the file
                return b""
            is_part = answer.status_code == 206  # otherwise the server sends all of the file
            return part_of(answer.iter_raw(CHUNK), 0 if is_part else start, length)

    def size(self, name: str) -> int:
        with self._asked("HEAD", name) as answer:
            try:
                return int(answer.headers["Content-Length"])
            except (KeyError, ValueError):
                raise LocationFailed(_("It does not say how large a file is.")) from None

    def _all_sizes(self, folder: str, activity: Activity) -> dict[str, int | None]:
        return {name: size for name, is_folder, size in self._entries(folder, activity) if not is_folder}

    def folders(self, activity: Activity) -> list[str]:
        return [name for name, is_folder, _size in self._entries("", activity) if is_folder]

    def _entries(self, folder: str, activity: Activity) -> list[tuple[str, bool, int | None]]:
        """Return the names in a folder, whether each is a folder, and its size, if the server tells it.

        The answer is parsed bit by bit, since it may be long.
        """
        listing = _Entries()
        parser = XMLParser(target=listing)
        own = unquote(self._path(folder))
        number = size = last = 0  # entries and bytes so far, and the bytes when the last entry was complete
        headers = {"Depth": "1", "Content-Type": "application/xml"}
        try:
            with self._asked("PROPFIND", f"{folder}/", headers=headers, content=_KINDS) as answer:
                if answer.status_code != 207:
                    raise self._no_webdav()
                for chunk in answer.iter_raw(CHUNK):
                    activity.check()
                    size += len(chunk)
                    if size > _LONGEST_LIST or size - last > _LONGEST_ENTRY + CHUNK:
                        raise self._no_webdav()
                    parser.feed(chunk)
                    if len(listing.entries) > number:
                        number, last = len(listing.entries), size
                    if number > client.MOST_LISTED + 1:  # with the folder itself
                        raise client.lists_too_much()
                parser.close()
        except FileNotFoundError:
            return []
        except ParseError:
            raise self._no_webdav() from None
        return [
            (path.rpartition("/")[2], is_folder, size)
            for path, is_folder, size in listing.entries
            if path != own
        ]

    def delete(self, name: str) -> None:
        with suppress(FileNotFoundError), self._asked("DELETE", name):
            pass

    def close(self) -> None:
        if self._http is not None:
            self._http.close()

    def _make_folder(self, folder: str) -> None:
        if folder in self._made:
            return
        status = self._make(folder)
        if status == 409:  # the folder above is missing
            if not folder:
                raise WrongAddress(_("The folder above the one in its address does not exist."))
            self._make_folder(folder.rpartition("/")[0])
            status = self._make(folder)
        if status == 409:
            raise no_such_folder()
        self._made.add(folder)

    def _make(self, folder: str) -> int:
        """Make a folder. Returns the status: 405 if it exists already, 409 if the folder above is missing."""
        with self._asked("MKCOL", f"{folder}/", allowed=(405, 409)) as answer:
            return int(answer.status_code)

    # -- requests ---

    def _path(self, name: str) -> str:
        return f"{self._root}/{quote(name)}".rstrip("/")

    @contextmanager
    def _asked(
        self, method: str, name: str, *, allowed: tuple[int, ...] = (), **options: Any
    ) -> Iterator[Any]:
        """Send a request, and yield the answer, whose content is not read yet.

        `allowed`: statuses that are not to be treated as errors. Raises what a `Client` may raise.
        """
        path = self._path(name) + ("/" if name.endswith("/") else "")
        with _errors(), self._connected().stream(method, self._origin + path, **options) as answer:
            status = answer.status_code
            if status not in allowed and not 200 <= status < 300:
                raise self._refused(status)
            yield answer

    def _refused(self, status: int) -> Exception:
        if status == 401:
            return Denied(_("It does not accept user and password. Correct them in its address."))
        if status in (403, 405):
            return PermissionError()
        if status in (404, 410):
            return FileNotFoundError()
        if status == 409:
            return WrongAddress(_("The folder in its address does not exist."))
        if status == 507:
            return OSError(errno.ENOSPC, "")
        if status == 413:
            return LocationFailed(_("It does not take files of this size. Its limit must be raised there."))
        if status in (423, 429, 500, 502, 503, 504):
            return cannot_work_now(status)
        if 300 <= status < 400:
            return WrongAddress(_("It says that it is elsewhere now. Correct its address."))
        return self._no_webdav()

    def _no_webdav(self) -> Exception:
        return WrongAddress(_("What answers at its address does not speak WebDAV."))

    def _connected(self) -> Any:
        """Return httpx's client, which connects when it is used."""
        if self._http is None:
            import httpx

            logging.getLogger("httpx").addFilter(_is_not_ours)
            address = self._address
            self._http = httpx.Client(
                auth=(address.user, address.password) if address.user else None,
                timeout=httpx.Timeout(
                    ANSWER, read=3 * ANSWER
                ),  # a server may think about a file that it has received
                verify=ssl.create_default_context(),  # the authorities that this system trusts
                headers={"User-Agent": "babybuddy-backup", "Accept-Encoding": "identity"},
            )
        return self._http


class _Entries:
    """Collects the entries of a list as it is parsed, and nothing else of it: what a parser builds of an element takes
    a hundred times the bytes of its shortest text."""

    def __init__(self) -> None:
        #: (path, whether it is a folder, its size or None) of each.
        self.entries: list[tuple[str, bool, int | None]] = []
        self._depth = 0
        self._depth_of_entry = -1
        self._path: list[str] = []
        self._size: list[str] = []
        self._is_path = self._is_folder = self._is_size = False

    def doctype(self, *_parts: Any) -> None:
        """Refuse what a list never has: it could name some letters that stand for a million."""
        raise ParseError

    def start(self, tag: str, _attributes: Any) -> None:
        self._depth += 1
        if tag == f"{_DAV}response":
            self._depth_of_entry, self._path, self._size, self._is_folder = self._depth, [], [], False
        elif tag == f"{_DAV}href":
            self._is_path = self._depth == self._depth_of_entry + 1
        elif tag == f"{_DAV}getcontentlength":
            self._is_size = True
        elif tag == f"{_DAV}collection":
            self._is_folder = True

    def data(self, text: str) -> None:
        if self._is_path:
            self._path.append(text)
        elif self._is_size:
            self._size.append(text)

    def end(self, tag: str) -> None:
        self._depth -= 1
        self._is_path = self._is_size = False
        if tag == f"{_DAV}response":
            path = unquote(urlsplit("".join(self._path).strip()).path)
            size = "".join(self._size).strip()
            is_size = len(size) < 20 and size.isdecimal()
            self.entries.append((path.rstrip("/"), self._is_folder, int(size) if is_size else None))

    def close(self) -> None:
        """Do nothing: the parser calls it at the end."""


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


#: Set in a thread that sends requests, so that httpx does not log them: the line would contain the address.
_asking = threading.local()


def _is_not_ours(_record: logging.LogRecord) -> bool:
    return not getattr(_asking, "now", False)


@contextmanager
def _errors() -> Iterator[None]:
    """Raise httpx's errors as a `Client` should."""
    import httpx

    _asking.now = True
    try:
        yield
    except httpx.TimeoutException:
        raise TimeoutError from None
    except httpx.ConnectError as error:
        if _caused_by(error, ssl.SSLError):
            raise not_verified(error) from None
        if _caused_by(error, socket.gaierror):
            raise unknown_host() from None
        raise ConnectionError from None
    except httpx.TransportError:
        raise ConnectionError from None
    except (httpx.InvalidURL, UnicodeError):
        raise WrongAddress(_("The host in its address cannot be right.")) from None
    finally:
        _asking.now = False


def _caused_by(error: BaseException, kind: type[BaseException]) -> bool:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, kind):
        cause = cause.__cause__ or cause.__context__
    return cause is not None

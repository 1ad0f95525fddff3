"""SFTP: `sftp://USER:PASSWORD@HOST:PORT/PATH`, or with a private key, of which the password then is the passphrase.

The server is verified: its host key must be in known_hosts, or its fingerprint in the address, for those who can set a
variable but cannot change a file.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import hmac
import logging
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar
from weakref import WeakSet

from django.utils.translation import gettext as _

from ...exceptions import Denied, LocationFailed, NotVerified, WrongAddress
from ..bounded import ANSWER, Activity
from .address import parse
from .client import CHUNK, fetched, library, listed, unknown_host, was_changed
from .renaming import Renaming

T = TypeVar("T")
#: Bytes that are requested ahead while a file is read, and bytes of one request. paramiko's own prefetch would hold in
#: memory whatever the server has sent and nobody has read yet.
WINDOW, PIECE = 4 * 1024 * 1024, 32 * 1024
#: The flag of a disk that cannot be written to, as OpenSSH's server sends it.
_READ_ONLY = 1


class Sftp(Renaming):
    """Reads and writes files on an SFTP server, see `Client`."""

    kind = "SFTP"

    def __init__(self, text: str) -> None:
        super().__init__()
        library("paramiko", "sftp")
        self._address = address = parse(text, "known_hosts", "host_key", "key_file")
        self.target = address.target()
        if not address.user:
            raise WrongAddress(_("Its address has no user."))
        # As in curl, a path that begins with ~ starts at the user's home folder.
        path = address.path
        self._root = PurePosixPath(path.removeprefix("~").lstrip("/") if path.startswith("~") else f"/{path}")
        for name in ("known_hosts", "key_file"):
            if name in address.parameters and not self._file(name).is_file():
                raise WrongAddress(
                    _("The file that %(name)s in its address names is not there.") % {"name": name}
                )
        if (key := address.parameters.get("host_key")) is not None and not key.startswith("SHA256:"):
            raise WrongAddress(
                _("The host_key in its address must begin with SHA256:, as ssh-keygen -l shows it.")
            )
        # A connection of its own for each thread: paramiko's client mixes up the answers to several at a time.
        self._connection = threading.local()
        #: The connections of all threads.
        self._all: WeakSet[Any] = WeakSet()
        self._is_given_up = False
        self._made: set[str] = set()

    def _file(self, name: str) -> Path:
        return Path(self._address.parameters[name]).expanduser()

    def _put(self, name: str, file: BinaryIO) -> None:
        path = str(self._path(name))

        def send(sftp: Any) -> None:
            file.seek(0)
            with sftp.open(path, "wb") as target:
                target.set_pipelined(True)
                shutil.copyfileobj(file, target, CHUNK)
            there = sftp.stat(path).st_size
            if there != file.tell():
                # The errors of pipelined writes get lost, so a piece of what is missing is written by itself.
                file.seek(there)
                with sftp.open(path, "ab") as target:
                    target.write(file.read(PIECE))
                raise was_changed()

        self._change(send)

    def _rename(self, name: str, to: str) -> None:
        old, new = str(self._path(name)), str(self._path(to))
        is_again = False

        def rename(sftp: Any) -> None:
            nonlocal is_again
            if is_again and not _exists(sftp, old) and _exists(sftp, new):
                return  # it was done before the connection was cut
            is_again = True
            try:
                sftp.posix_rename(old, new)
            except OSError as error:
                if error.errno is not None:
                    raise
                # A server without this extension cannot replace a file, so the other one must be deleted first.
                with suppress(FileNotFoundError):
                    sftp.remove(new)
                sftp.rename(old, new)

        self._change(rename)

    def read(self, name: str, activity: Activity) -> BinaryIO:
        path = str(self._path(name))

        def fill(sftp: Any, copy: BinaryIO) -> None:
            with sftp.open(path, "rb") as file:
                size = file.stat().st_size
                for start in range(0, size, WINDOW):
                    end = min(start + WINDOW, size)
                    pieces = [(at, min(PIECE, end - at)) for at in range(start, end, PIECE)]
                    for (_at, length), content in zip(pieces, file.readv(pieces), strict=True):
                        if len(content) != length:
                            raise ConnectionError
                        copy.write(content)

        return self._ask(lambda sftp: fetched(lambda copy: fill(sftp, copy), activity))

    def read_part(self, name: str, start: int, length: int) -> bytes:
        def read(sftp: Any) -> bytes:
            with sftp.open(str(self._path(name)), "rb") as file:
                file.seek(start)
                return bytes(file.read(length))

        return self._ask(read)

    def size(self, name: str) -> int:
        return int(self._ask(lambda sftp: sftp.stat(str(self._path(name)))).st_size)

    def _all_sizes(self, folder: str, activity: Activity) -> dict[str, int | None]:
        return self._entries(folder, stat.S_ISREG, activity)

    def folders(self, activity: Activity) -> list[str]:
        return [*self._entries("", stat.S_ISDIR, activity)]

    def _entries(
        self, folder: str, is_wanted: Callable[[int], bool], activity: Activity
    ) -> dict[str, int | None]:
        def entries(sftp: Any) -> Iterator[tuple[str, int | None]]:
            for entry in sftp.listdir_iter(str(self._path(folder))):
                activity.check()
                if is_wanted(entry.st_mode or 0):
                    yield entry.filename, entry.st_size

        try:
            return dict(self._ask(lambda sftp: listed(entries(sftp))))
        except FileNotFoundError:
            return {}

    def delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._change(lambda sftp: sftp.remove(str(self._path(name))))

    # -- folders ---

    def _path(self, name: str) -> PurePosixPath:
        return self._root / name

    def _make_folder(self, folder: str) -> None:
        if folder not in self._made:
            self._change(lambda sftp: _make(sftp, self._path(folder)))
            self._made.add(folder)

    def _change(self, question: Callable[[Any], None]) -> None:
        """Do as `_ask` does, for what changes something there. Where the server only says "Failure", find out why."""
        try:
            self._ask(question)
        except OSError as error:
            if type(error) is OSError and error.errno is None and (reason := self._ask_for_reason()):
                raise OSError(reason, "") from None
            raise

    def _ask_for_reason(self) -> int | None:
        """Return why nothing can be written: `ENOSPC`, `EROFS`; None if the server cannot say. OpenSSH's can."""
        from paramiko.sftp import CMD_EXTENDED

        def ask(sftp: Any) -> int | None:
            folder = next(path for path in (self._root, *self._root.parents) if _exists(sftp, str(path)))
            _kind, answer = sftp._request(CMD_EXTENDED, "statvfs@openssh.com", str(folder))
            numbers = [answer.get_int64() for _ in range(10)]  # those of statvfs(3), in its order
            fragment, available, files, files_available, flags = (numbers[place] for place in (1, 4, 5, 7, 9))
            if flags & _READ_ONLY:
                return errno.EROFS
            is_full = available * fragment < PIECE or (files > 0 and files_available == 0)
            return errno.ENOSPC if is_full else None

        with suppress(Exception):  # another server, which cannot be asked
            return self._ask(ask)
        return None

    # -- the connection ---

    def _ask(self, question: Callable[[Any], T]) -> T:
        """Return what `question` returns for the connection, which is made on its first use.

        If the connection was cut, it is made again once, so every question may be asked twice.
        """
        is_fresh = self._sftp is None
        try:
            return self._ask_once(question)
        except ConnectionError:
            self.close()
            if is_fresh:
                raise
        except TimeoutError:
            self.close()
            raise
        return self._ask_once(question)

    def _ask_once(self, question: Callable[[Any], T]) -> T:
        with _errors():
            try:
                return question(self._connected())
            except OSError as error:
                # "Socket is closed" has no number either, and is not the server's "Failure".
                sftp = self._sftp
                if error.errno is None and sftp is not None and sftp.get_channel().closed:
                    raise ConnectionError from None
                raise

    @property
    def _sftp(self) -> Any:
        """This thread's connection; None if there is none yet."""
        return getattr(self._connection, "sftp", None)

    def close(self) -> None:
        """Close this thread's connection. Those of other threads end with them."""
        if self._sftp is not None:
            self._connection.ssh.close()
        self._connection.ssh = self._connection.sftp = None

    def break_off(self) -> None:
        # The library asks on while it is sent what it passes over itself.
        self._is_given_up = True
        for transport in self._all:
            transport.sock.close()

    def _connected(self) -> Any:
        if self._is_given_up:
            raise TimeoutError
        if self._sftp is not None:
            return self._sftp
        import paramiko

        address = self._address
        ssh = paramiko.SSHClient()
        # Nothing of its log is written: our errors say what went wrong, without what the server sent.
        ssh.set_log_channel("backup.storage.sftp")
        logging.getLogger("backup.storage.sftp").setLevel(logging.CRITICAL + 1)
        fingerprint = address.parameters.get("host_key", "")
        if not fingerprint:
            self._load_known_hosts(ssh)
        ssh.set_missing_host_key_policy(_Policy(fingerprint))
        key_file = str(self._file("key_file")) if "key_file" in address.parameters else None
        secret = {"password" if key_file is None else "passphrase": address.password or None}
        try:
            ssh.connect(
                address.host,
                address.port or 22,
                username=address.user,
                key_filename=key_file,
                **secret,
                timeout=ANSWER,
                banner_timeout=ANSWER,
                auth_timeout=ANSWER,
                channel_timeout=ANSWER,
                allow_agent=False,
                look_for_keys=not address.password and key_file is None,
            )
            sftp = ssh.open_sftp()
            sftp.get_channel().settimeout(ANSWER)
        except BaseException as error:
            transport = ssh.get_transport()
            was_asked = transport is not None and transport.is_active() and transport.initial_kex_done
            is_refused = was_asked and not transport.is_authenticated()
            ssh.close()
            # paramiko tries to load a key as each type in turn, and raises the error of the last one that it tried.
            if is_refused and type(error) is paramiko.SSHException:
                raise paramiko.AuthenticationException from None
            raise
        self._connection.ssh, self._connection.sftp = ssh, sftp
        self._all.add(ssh.get_transport())
        if self._is_given_up:  # meanwhile
            self.close()
            raise TimeoutError
        return sftp

    def _load_known_hosts(self, ssh: Any) -> None:
        if "known_hosts" in self._address.parameters:
            ssh.load_host_keys(str(self._file("known_hosts")))
            return
        for path in (Path("/etc/ssh/ssh_known_hosts"), Path(os.path.expanduser("~/.ssh/known_hosts"))):
            if path.is_file():
                ssh.load_system_host_keys(str(path))


def _exists(sftp: Any, path: str) -> bool:
    try:
        sftp.stat(path)
    except FileNotFoundError:
        return False
    return True


def _make(sftp: Any, folder: PurePosixPath) -> None:
    if _exists(sftp, str(folder)):
        return
    if folder.parent != folder:
        _make(sftp, folder.parent)
    try:
        sftp.mkdir(str(folder), 0o700)
    except OSError as error:
        with suppress(OSError):
            sftp.stat(str(folder))  # another process made it meanwhile
            return
        raise error


class _Policy:
    """What to do with a host key that is not in known_hosts: refuse it, unless the address has its fingerprint."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint

    def missing_host_key(self, _client: Any, _host: str, key: Any) -> None:
        fingerprint = "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip(
            "="
        )
        if self._fingerprint and hmac.compare_digest(
            self._fingerprint.rstrip("=").encode(), fingerprint.encode()
        ):
            return
        if self._fingerprint:
            raise NotVerified(
                _(
                    "Its host key is %(found)s (%(kind)s), not the one in its address. Somebody may be in between. "
                    "Find out whether the server has a new key before you correct the address."
                )
                % {"found": fingerprint, "kind": key.get_name()}
            )
        raise NotVerified(
            _(
                "Its host key, %(found)s (%(kind)s), is not known. Find out whether it is the server's: there, "
                "ssh-keygen -l shows it. Then add ?host_key=%(found)s to its address, or the key to known_hosts."
            )
            % {"found": fingerprint, "kind": key.get_name()}
        )


@contextmanager
def _errors() -> Iterator[None]:
    """Raise paramiko's errors as a `Client` should."""
    import paramiko
    from paramiko.ssh_exception import NoValidConnectionsError

    try:
        yield
    except paramiko.BadHostKeyException:
        raise NotVerified(
            _(
                "Its host key is another one than known_hosts has. Somebody may be in between. Find out whether the "
                "server has a new key before you correct known_hosts."
            )
        ) from None
    except paramiko.PasswordRequiredException:
        raise Denied(
            _("Its private key needs a passphrase. It stands in the address for the password.")
        ) from None
    except paramiko.AuthenticationException:
        raise Denied(
            _("It does not accept user and password, or the private key. Correct its address.")
        ) from None
    except NoValidConnectionsError:
        raise ConnectionError from None
    except paramiko.ssh_exception.IncompatiblePeer:
        raise LocationFailed(_("It knows no encryption that this server knows, too.")) from None
    except (paramiko.SSHException, EOFError) as error:
        if isinstance(error.__context__, TimeoutError):
            raise TimeoutError from None
        raise ConnectionError from None
    except OSError as error:
        if _is_lookup(error):
            raise unknown_host() from None
        raise


def _is_lookup(error: OSError) -> bool:
    import socket

    return isinstance(error, socket.gaierror)

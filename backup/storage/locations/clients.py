"""Which client an address is for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from django.utils.translation import gettext as _

from ...exceptions import WrongAddress
from .alias import alias_client
from .client import Client
from .folder import Folder
from .s3 import S3
from .sftp import Sftp
from .webdav import WebDav

#: By what stands before `://`.
KINDS: dict[str, Callable[[str], Client]] = {"s3": S3, "sftp": Sftp, "webdavs": WebDav, "webdav": WebDav}


def client_of(address: str) -> Client:
    """Return a client for an address; nothing is asked yet. Raises `WrongAddress`, `LibraryMissing`."""
    if address.startswith("storage:"):
        return alias_client(address.removeprefix("storage:"))
    scheme, mark, _rest = address.partition("://")
    if mark and scheme in KINDS:
        return KINDS[scheme](address)
    path = Path(address).expanduser()
    if mark or not path.is_absolute():
        raise WrongAddress(
            _(
                "Its address is none. It must be the whole path of a folder, storage: and an alias of STORAGES, or "
                "begin with s3://, sftp:// or webdavs://."
            )
        )
    return Folder(path)

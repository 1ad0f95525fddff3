"""Chooses the client for an address."""

from __future__ import annotations

from pathlib import Path

from django.utils.translation import gettext as _

from ...exceptions import WrongAddress
from .alias import Alias, alias_client
from .client import Client
from .folder import Folder
from .s3 import S3
from .sftp import Sftp
from .webdav import WebDav

#: Scheme of an address (before `://`) -> client.
KINDS: dict[str, type[S3 | Sftp | WebDav]] = {"s3": S3, "sftp": Sftp, "webdavs": WebDav, "webdav": WebDav}
#: The beginning of the address of an alias of STORAGES.
_ALIAS = "storage:"


def kind_of(address: str) -> type[Client]:
    """Return the client class for an address. Only the beginning of the address is looked at."""
    return Alias if address.startswith(_ALIAS) else _remote(address) or Folder


def client_of(address: str) -> Client:
    """Return a client for an address. It does not connect yet. Raises `WrongAddress`, `LibraryMissing`."""
    if address.startswith(_ALIAS):
        return alias_client(address.removeprefix(_ALIAS))
    if remote := _remote(address):
        return remote(address)
    path = Path(address).expanduser()
    if "://" in address or not path.is_absolute():
        raise WrongAddress(
            _(
                "Its address is none. It must be the whole path of a folder, storage: and an alias of STORAGES, or "
                "begin with s3://, sftp:// or webdavs://."
            )
        )
    return Folder(path)


def _remote(address: str) -> type[S3 | Sftp | WebDav] | None:
    scheme, mark, _rest = address.partition("://")
    return KINDS.get(scheme) if mark else None

"""Addresses of locations: which client one is for, and its parts.

They are taken apart here and not by `urllib`, whose errors show what they are about, passwords included, and which
takes a password with a `#`, `?` or `/` in it for something else without a word.
"""

from __future__ import annotations

from pathlib import Path

from django.utils.translation import gettext as _

from ...exceptions import WrongAddress
from .client import Client
from .folder import Folder


def client_of(address: str) -> Client:
    """Return a client for an address; nothing is asked yet. Raises `WrongAddress`, `LibraryMissing`."""
    if "://" not in address and not address.startswith("storage:"):
        path = Path(address).expanduser()
        if not path.is_absolute():
            raise WrongAddress(
                _(
                    "Its address is none. It must be a folder, as a whole path, storage: and an alias of STORAGES, or "
                    "begin with s3://, sftp:// or webdavs://."
                )
            )
        return Folder(path)
    raise WrongAddress(_("Its kind of address is not known."))

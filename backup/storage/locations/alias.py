"""An alias of STORAGES: any storage that works with Django's storage API."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from django.core.exceptions import ImproperlyConfigured
from django.core.files import File
from django.core.files.storage import FileSystemStorage, InvalidStorageError, Storage, storages
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ...exceptions import LocationFailed, WrongAddress
from ..bounded import Activity
from . import s3
from .client import CHUNK, HIDDEN, Client, fetched, listed
from .folder import Folder


def alias_client(alias: str) -> Client:
    """Return a client for an alias: a `Folder` if the storage is a folder. Raises `WrongAddress`."""
    if alias == "backups":
        raise WrongAddress(
            _("The storage “backups” is where the backups themselves lie, so a copy there would be none.")
        )
    if alias not in storages.backends:
        raise WrongAddress(_("STORAGES has no alias of the name that its address has."))
    try:
        storage = storages[alias]
    except (InvalidStorageError, ImproperlyConfigured) as error:
        raise WrongAddress(
            _("Its storage cannot be made of what STORAGES says (%(reason)s).")
            % {"reason": type(error).__name__}
        ) from None
    if isinstance(storage, FileSystemStorage):
        return Folder(Path(storage.location))
    return Alias(storage)


class Alias(Client):
    """A storage that is not a folder. It may raise any error; those of boto3 are recognised by their shape."""

    kind = gettext_lazy("storage")

    def __init__(self, storage: Storage) -> None:
        self._storage = self.target = storage

    def write(self, name: str, file: BinaryIO, activity: Activity) -> None:
        storage, saved = self._storage, name
        with s3.errors():
            exists = storage.exists(name)
            overwrites = exists and storage.get_available_name(name) == name
            if exists and not overwrites:
                storage.delete(name)  # otherwise the storage would choose another name
        try:
            with s3.errors():
                saved = storage.save(name, File(cast(Any, file), name=name))
        except BaseException:
            if not overwrites:
                with suppress(Exception):  # some storages are left with half of the file
                    storage.delete(name)
            raise
        if saved != name:
            storage.delete(saved)
            raise LocationFailed(_("It saves files under other names than they should have."))

    def read(self, name: str, activity: Activity) -> BinaryIO:
        with s3.errors(), self._storage.open(name) as file:
            return fetched(lambda copy: shutil.copyfileobj(cast(BinaryIO, file), copy, CHUNK), activity)

    def read_part(self, name: str, start: int, length: int) -> bytes:
        with s3.errors(), self._storage.open(name) as file:
            file.seek(start)
            return bytes(file.read(length))

    def size(self, name: str) -> int:
        with s3.errors():
            return self._storage.size(name)

    def sizes(self, folder: str, activity: Activity) -> dict[str, int | None]:
        return {name: None for name in self._listed(folder)[1] if not name.startswith(HIDDEN)}

    def folders(self, activity: Activity) -> list[str]:
        return self._listed("")[0]

    def _listed(self, folder: str) -> tuple[list[str], list[str]]:
        try:
            with s3.errors():
                folders, names = self._storage.listdir(folder)
                return listed(folders), listed(names)
        except FileNotFoundError:
            return [], []

    def delete(self, name: str) -> None:
        try:
            with s3.errors():
                self._storage.delete(name)
        except FileNotFoundError:
            pass

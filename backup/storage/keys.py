"""The keys that backups are encrypted with, and which backups are to be encrypted.

The keys are in a ring, `keys.json`, from which none is ever removed. It is in BACKUP_ROOT itself, beside the folders of
the sites, so that it is found with a new database, too. It is never in the database or in a backup. BACKUP_KEY, if it
is set, is used before the keys of the ring.
"""

from __future__ import annotations

import enum
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from django.core.files.base import ContentFile
from django.utils.translation import gettext as _

from ..archive import Archive, Key, Keys, open_archive
from ..archive.encryption import check_available
from ..archive.key import key_needed
from ..conf import aware_now, conf
from ..exceptions import EncryptionUnavailable, StorageFailed, WrongKey, WrongSettings
from . import files

_RING = f"{files.ROOT}keys.json"


class Place(enum.Enum):
    """Where a backup goes, by the names that BACKUP_ENCRYPT uses."""

    #: A download or a file of a command.
    DOWNLOAD = "download"
    #: BACKUP_ROOT.
    LOCAL = "local"


@dataclass(frozen=True)
class StoredKey:
    """A key that the server has. `made`: when, ISO 8601; "" for BACKUP_KEY. `is_noted`: whether somebody has typed its
    last group, which shows that it is kept somewhere else, too."""

    key: Key
    made: str = ""
    is_noted: bool = False


def ring() -> list[StoredKey]:
    """Return the keys of the ring, the newest first. Raises `StorageFailed` if it cannot be read."""
    text = files.read_file(_RING)
    if text is None:
        return []
    try:
        entries = files.parse_json(text)["keys"]
        if not isinstance(entries, list):  # other empty values would count as an empty ring
            raise TypeError
        return [_parse(entry) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, WrongKey) as error:
        raise StorageFailed(
            _(
                "The file of the keys, keys.json in BACKUP_ROOT, cannot be read. Nothing is written over it. "
                "Put it back from a copy; or move it away, and make a new key: older backups then ask for theirs."
            )
        ) from error


def _parse(entry: Any) -> StoredKey:
    return StoredKey(Key.parse(entry["key"]), str(entry["made"]), entry["noted"] is True)


def _save(keys: Sequence[StoredKey]) -> None:
    entries = [{"key": stored.key.text, "made": stored.made, "noted": stored.is_noted} for stored in keys]
    files.put(_RING, ContentFile(json.dumps({"keys": entries}, indent=1).encode()))
    if ring() != [*keys]:
        raise StorageFailed(_("The file of the keys was written to meanwhile. Please try again."))


def configured() -> Key | None:
    """Return BACKUP_KEY; None if it is not set. Raises `StorageFailed` if it is no key."""
    try:
        return Key.parse(conf.key) if conf.key else None
    except (WrongKey, WrongSettings) as error:
        raise StorageFailed(_("BACKUP_KEY is not a key, so nothing can be encrypted with it.")) from error


def current() -> StoredKey | None:
    """Return the key that new backups are encrypted with; None if there is none. Raises `StorageFailed`."""
    if key := configured():
        return StoredKey(key, is_noted=True)
    return next(iter(ring()), None)


def add() -> StoredKey:
    """Make a new key, and add it to the front of the ring. Raises `StorageFailed`, `EncryptionUnavailable`."""
    check_available()
    if configured():
        raise EncryptionUnavailable(
            _("The key comes from the setting BACKUP_KEY. Remove that first, then make a new key.")
        )
    new = StoredKey(Key.make(), aware_now().isoformat(timespec="seconds"))
    with files.noting_for_all():
        _save([new, *ring()])
    return new


def note(last_group: str) -> bool:
    """Note that the current key is kept somewhere else, too, if this is its last group. Returns whether it is.

    Raises `StorageFailed`.
    """
    with files.noting_for_all():
        keys = ring()
        if not keys or not hmac.compare_digest(
            last_group.strip().upper().encode(), keys[0].key.last_group.encode()
        ):
            return False
        _save([replace(keys[0], is_noted=True), *keys[1:]])
        return True


def unlocked(
    source: BinaryIO, *, edited: bool = False, lenient: bool = False, key: Key | None = None
) -> Archive:
    """Open a backup. If it is encrypted, `key` or a key of the server opens it. Raises what `Archive` raises, and
    `StorageFailed`."""
    return open_archive(source, edited=edited, lenient=lenient, keys=Keys(key, known))


def known() -> list[Key]:
    """Return the keys that the server has, the current one first. Raises `StorageFailed`."""
    key = configured()
    return [*([key] if key else []), *(stored.key for stored in ring())]


def ids() -> set[str]:
    """Return the ids of the keys that the server has; none if the ring cannot be read."""
    try:
        return {key.id for key in known()}
    except (StorageFailed, EncryptionUnavailable):
        return set()


def of_id(key_id: str) -> Key | None:
    """Return the key of this id; None for "". Raises `KeyNeeded` if the server does not have it, `StorageFailed`."""
    for key in known() if key_id else ():
        if key.id == key_id:
            return key
    if not key_id:
        return None
    raise key_needed(key_id)


def key_for(place: Place | str, *, encrypt: bool = False) -> Key | None:
    """Return the key to encrypt a backup for a place; None if it is not to be encrypted.

    `place`: a `Place`, or the name of a location. `encrypt`: encrypt it whatever BACKUP_ENCRYPT says. What is to be
    encrypted is never written unencrypted: without a key, `EncryptionUnavailable` or `StorageFailed` is raised.
    """
    if not encrypt and not conf.encrypts(place.value if isinstance(place, Place) else place):
        return None
    stored = current()
    if stored:
        check_available()
        return stored.key
    if not encrypt and conf.encrypt is None:
        return None  # by default, locations are encrypted once there is a key
    check_available()
    raise EncryptionUnavailable(
        _(
            "The backup is to be encrypted, but there is no key. If there was one, put keys.json back into "
            "BACKUP_ROOT; else make one with “manage.py backup_key --new”."
        )
    )

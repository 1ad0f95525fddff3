"""The kit: what a family needs to open an encrypted backup, years later and without this app.

`user`: the `User` who asks; None is the command line, which may do everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from .archive import Key
from .database import memo
from .exceptions import EncryptionUnavailable, Forbidden
from .log import logged
from .storage import files, keys
from .storage.locations import locations


@dataclass(frozen=True)
class Kit:
    """What to print or save, so that encrypted backups can be opened one day. `made`: when, ISO 8601; "" for
    BACKUP_KEY. `site`: the id of the site. `place`: where the backups are. `copies`: name and kind of each location of
    copies, without anything secret. `is_noted`: whether somebody has shown that the key is kept somewhere else, too."""

    key: Key
    made: str
    site: str
    place: str
    copies: list[str]
    is_noted: bool

    @property
    def folder(self) -> str:
        """The folder of the backups, in each of the places."""
        return files.path_of(files.KEPT, self.site)


def kit(user: Any = None) -> Kit:
    """Return the kit of the key that new backups are encrypted with.

    Raises `Forbidden` but for superusers, `EncryptionUnavailable` if there is no key yet, `StorageFailed`.
    """
    only_superusers(user)
    stored = keys.current()
    if stored is None:
        raise EncryptionUnavailable(
            _("There is no key yet. Make one with “manage.py backup_key --new”, or on the page of the key.")
        )
    return Kit(
        stored.key,
        stored.made,
        memo.site_id(),
        files.local_path("/") or _("the storage “backups”"),
        [f"{location.name} ({location.kind})" for location in locations()],
        stored.is_noted,
    )


def new_key(user: Any = None) -> Kit:
    """Make a new key, with which backups are encrypted from now on, and return its kit. Old keys stay in the ring.

    Raises `Forbidden` but for superusers, `EncryptionUnavailable`, `StorageFailed`.
    """
    only_superusers(user)
    with logged("new key", user) as log:
        log(keys.add().key.id)
    return kit(user)


def note_key(last_group: str, user: Any = None) -> bool:
    """Note that the kit is kept somewhere else, too, if this is the last group of the key. Returns whether it is.

    Raises `Forbidden`, `StorageFailed`.
    """
    only_superusers(user)
    return keys.note(last_group)


def only_superusers(user: Any) -> None:
    """Raise `Forbidden` unless the user is a superuser or the command line."""
    if user is not None and not user.is_superuser:
        raise Forbidden(_("Only a superuser can see or make the key of encrypted backups."))

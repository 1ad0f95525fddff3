"""The parts of a backup, in words. A new `Part` needs an entry here."""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from ..options import Part

TITLES: dict[Part, str | Promise] = {
    Part.ENTRIES: _("Children and entries"),
    Part.ACCOUNTS: _("Accounts, groups and API tokens"),
    Part.SETTINGS: _("Settings"),
}


def titles(parts: tuple[Part, ...]) -> list[str]:
    """Return the titles of parts."""
    return [str(TITLES[part]) for part in parts]

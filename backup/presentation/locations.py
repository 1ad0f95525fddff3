"""The locations of copies of kept backups, in words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from ..conf import aware_now
from ..storage.elsewhere import Seen, State
from ..storage.locations import location
from ..storage.names import parse

_STATES = {
    State.OK: gettext_lazy("Copies are there"),
    State.FAILED: gettext_lazy("Copying fails"),
    State.UNKNOWN: gettext_lazy("Cannot be told"),
}


@dataclass(frozen=True)
class LocationInWords:
    """A line of the list. `copies`: the number of copies. `newest`: when the newest backup there was made, aware; None
    if there is none. `key_id`: the id of the key it is encrypted with; "" if it is not. `next_try`: when the location
    is tried again, aware; None if that is with the next backup."""

    seen: Seen
    kind: str
    state: str | Promise
    copies: int
    newest: dt.datetime | None
    key_id: str
    next_try: dt.datetime | None


def locations_in_words(states: Sequence[Seen]) -> list[LocationInWords]:
    """Return a line for each location. `states`: how each was last seen."""
    now = aware_now()
    lines = []
    for seen in states:
        newest = max((parse(copy) for copy in seen.copies), key=lambda name: name.created, default=None)
        next_try = seen.next_try if seen.next_try and seen.next_try > now else None
        lines.append(
            LocationInWords(
                seen,
                location(seen.name).kind,
                _STATES[seen.state],
                len(seen.copies),
                newest.created if newest else None,
                newest.key_id if newest else "",
                next_try,
            )
        )
    return lines

"""Tests a location when somebody asks for it: see `locations.Location.test`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.utils.translation import gettext as _

from ..conf import aware_now
from ..exceptions import LocationFailed
from ..log import logged
from ..storage import elsewhere, locations
from ..storage.elsewhere import Seen, State


def test(name: str, user: Any) -> Seen:
    """Write a small file into a location, read it back and delete it. Notes and returns the state of the location.

    `user`: who asked for it; None if nobody did. The backups that the location lacks are sent after one of the next
    requests. Raises `NoSuchLocation`, `StorageFailed`.
    """
    location, now = locations.location(name), aware_now()
    changes: dict[str, Any] = {"at": now, "next_try": now}
    try:
        with logged(f"test of {name}", user) as log:
            limits = {error.code: error.message for error in location.test()}
            log(", ".join(limits) or "works")
    except LocationFailed as error:
        changes |= {"state": State.FAILED, "message": error.message}
    else:
        message = " ".join(limits.values()) or _(
            "The test worked: a file was written, read back and deleted."
        )
        # A test does not tell whether the copies are there. The visit that follows does.
        was_good = elsewhere.seen()[name].state is State.OK
        state = State.OK if was_good and not limits else State.UNKNOWN
        changes |= {"state": state, "message": message, "limits": limits, "tries": 0}
        changes |= {"is_lasting": False, "since": None}
    elsewhere.change(name, lambda seen: replace(seen, **changes))
    return elsewhere.seen()[name]

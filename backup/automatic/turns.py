"""Decides which backup is proved next. A pure computation: it looks at no clock and no file."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from ..storage import facts
from ..storage.elsewhere import NEVER
from ..storage.kept import StoredBackup

#: How often an older backup is proved once more, since files can be damaged with time.
EVERY = dt.timedelta(weeks=1)


def next_to_prove(backups: Sequence[StoredBackup], now: dt.datetime) -> StoredBackup | None:
    """Return the backup whose turn it is; None if none is due.

    That is, among those that are at least a week old, the one whose last proof is longest ago; but none if one of them
    was proved in the last week. `backups`: all automatic backups, in any order.
    """
    older = [b for b in backups if now - b.created >= EVERY and not b.is_damaged]
    # A proof right after a backup was made does not count as a turn.
    turns = [tried for b in older if (tried := tried_at(b)) and tried - b.created >= EVERY / 2]
    if any(dt.timedelta(0) <= now - turn < EVERY for turn in turns):
        return None
    return min(older, key=lambda b: (tried_at(b) or NEVER, b.created), default=None)


def place_to_prove(backup: StoredBackup, backups: Sequence[StoredBackup]) -> str:
    """Return the place whose copy of a backup is to be proved: where the last proof of any copy is longest ago.

    So the places take turns, as the backups do. `backups`: see `next_to_prove`.
    """
    last: dict[str, dt.datetime] = {}
    for other in backups:
        for place, moment in _tries(other).items():
            last[place] = max(moment, last.get(place, NEVER))
    return min(backup.locations, key=lambda place: last.get(place, NEVER))


def tried_at(backup: StoredBackup) -> dt.datetime | None:
    """Return when a proof of a backup was last tried, aware; None if it never was."""
    return max(_tries(backup).values(), default=None)


def _tries(backup: StoredBackup) -> dict[str, dt.datetime]:
    """Return place of a copy -> when a proof of that copy was last tried, aware."""
    return {place: dt.datetime.fromisoformat(at) for place, at in facts.tried(backup.facts).items()}

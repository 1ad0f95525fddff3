"""Which backup is proved next. A pure computation: nothing here looks at a clock or at a file."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from ..storage import facts
from ..storage.kept import StoredBackup

#: So often one backup that is older is proved once more: files rot.
EVERY = dt.timedelta(weeks=1)
NEVER = dt.datetime.min.replace(tzinfo=dt.timezone.utc)


def next_to_prove(backups: Sequence[StoredBackup], now: dt.datetime) -> StoredBackup | None:
    """Return the backup whose turn it is; None if none is due.

    That is the one that was not tried for the longest time, if it is a week old, and if none has had its turn this
    week. `backups`: those that the schedule made, in any order.
    """
    older = [b for b in backups if now - b.created >= EVERY and not b.is_damaged]
    # The proof right after a backup was made is no turn.
    turns = [tried for b in older if (tried := tried_at(b)) and tried - b.created >= EVERY / 2]
    if any(dt.timedelta(0) <= now - turn < EVERY for turn in turns):
        return None
    return min(older, key=lambda b: (tried_at(b) or NEVER, b.created), default=None)


def place_to_prove(backup: StoredBackup, backups: Sequence[StoredBackup]) -> str:
    """Return which copy of a backup is proved: that in the place where no copy was for the longest time.

    So all places take turns, as all backups do. `backups`: see `next_to_prove`.
    """
    last: dict[str, dt.datetime] = {}
    for other in backups:
        for place, moment in _tries(other).items():
            last[place] = max(moment, last.get(place, NEVER))
    return min(backup.locations, key=lambda place: last.get(place, NEVER))


def tried_at(backup: StoredBackup) -> dt.datetime | None:
    """Return when a proof of a backup was tried last, aware; None if it never was."""
    return max(_tries(backup).values(), default=None)


def _tries(backup: StoredBackup) -> dict[str, dt.datetime]:
    """Return the place of each copy -> when a proof of it was tried last, aware."""
    return {place: dt.datetime.fromisoformat(at) for place, at in facts.tried(backup.facts).items()}

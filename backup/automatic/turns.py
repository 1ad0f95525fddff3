"""Which backup is proved next. A pure computation: nothing here looks at a clock or at a file."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from ..storage.kept import StoredBackup

#: So often one backup that is older is proved once more: files rot.
EVERY = dt.timedelta(weeks=1)
#: The fact beside a backup: when a proof of it was tried last, whatever came of it.
TRIED = "proof_tried"


def next_to_prove(backups: Sequence[StoredBackup], now: dt.datetime) -> StoredBackup | None:
    """Return the backup whose turn it is; None where none is due.

    That is the one that was not tried for the longest time, if it is a week old, and if none has had its turn this
    week. `backups`: those that the schedule made, in any order.
    """
    older = [b for b in backups if now - b.created >= EVERY and not b.is_damaged]
    # The proof right after a backup was made is no turn.
    turns = [tried for b in older if (tried := tried_at(b)) and tried - b.created >= EVERY / 2]
    if any(dt.timedelta(0) <= now - turn < EVERY for turn in turns):
        return None
    never = dt.datetime.min.replace(tzinfo=dt.timezone.utc)
    return min(older, key=lambda b: (tried_at(b) or never, b.created), default=None)


def tried_at(backup: StoredBackup) -> dt.datetime | None:
    """Return when a proof of a backup was tried last, aware; None where it never was."""
    try:
        return dt.datetime.fromisoformat(backup.facts[TRIED])
    except (KeyError, TypeError, ValueError):
        return None

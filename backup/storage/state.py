"""How far a restore is, which restore was the last, and when the last backup was taken."""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from django.utils import timezone

from ..exceptions import InvalidBackup, StorageFailed
from .files import LAST_BACKUP, LAST_RESTORE, RESTORES, get_json, names_in, put_json
from .uploads import unsigned


@dataclass(frozen=True)
class LastRestore:
    """A restore that was carried out. `idempotency_key`: what told its request from others; `at`: ISO 8601."""

    at: str
    idempotency_key: str
    safety_copy: str
    is_undo: bool


# -- how far a restore is ---


def save_progress(upload_id: str, user: Any, state: dict[str, Any]) -> None:
    """Keep what is known of the restore of a staged upload, for `load_progress`; `state`: as JSON can say it.

    A file, since another process may be asked, and the database is locked meanwhile. Only for information: where it
    cannot be kept, the restore goes on.
    """
    with suppress(InvalidBackup, StorageFailed):
        put_json(
            _state_name(upload_id),
            {
                **state,
                "id": upload_id,
                "user": user.get_username(),
                "at": timezone.now().isoformat(),
            },
        )


def load_progress(upload_id: str, user: Any) -> dict[str, Any] | None:
    """What `save_progress` kept, with `at`, when; None where nothing is known, or it is another user's.

    By the user's name: after a restore the same person may have another number.
    """
    try:
        state = get_json(_state_name(upload_id))
    except InvalidBackup:
        return None
    return state if state.get("user") == user.get_username() else None


def newest_progress(user: Any) -> dict[str, Any] | None:
    """The state of this user's newest restore of an upload, as long as it is kept."""
    own = [
        state
        for name in names_in(RESTORES)
        if name.endswith(".json") and (state := get_json(name)).get("user") == user.get_username()
    ]
    return max(own, key=lambda state: str(state.get("at")), default=None)


def _state_name(upload_id: str) -> str:
    return f"{RESTORES}/{unsigned(upload_id, max_age=None)[0]}.json"


# -- the last backup ---


def save_last_backup(moment: dt.datetime, user: Any, records: int) -> None:
    """Remember that a backup was taken. Only for information: where that cannot be kept, the backup is no worse."""
    with suppress(StorageFailed):
        by = user.get_username() if user else ""
        put_json(LAST_BACKUP, {"at": moment.isoformat(), "by": by, "records": records})


def load_last_backup() -> dict[str, Any] | None:
    """`at` (aware), `by` (a user's name; "" for the command line) and `records` of the last backup that is known."""
    said = get_json(LAST_BACKUP)
    try:
        at = dt.datetime.fromisoformat(said["at"])
        return {"at": at, "by": str(said["by"]), "records": int(said["records"])}
    except (KeyError, TypeError, ValueError):
        return None


# -- which restore was the last ---


def save_last_restore(last: LastRestore) -> None:
    """Called by one restore at a time. Raises `StorageFailed`."""
    put_json(LAST_RESTORE, asdict(last))


def load_last_restore() -> LastRestore | None:
    """None where there was no restore, or nothing that can be read of it."""
    try:
        return LastRestore(**get_json(LAST_RESTORE))
    except TypeError:
        return None

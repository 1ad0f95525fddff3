"""Saves the progress of restores, and facts about the last restore, the last backup and the last automatic backup."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from django.db import DEFAULT_DB_ALIAS, transaction

from ..conf import aware_now, in_every_zone
from ..database import memo
from ..exceptions import InvalidBackup, StorageFailed
from .files import (
    LAST_BACKUP,
    LAST_RESTORE,
    LAST_RUN,
    RESTORES,
    get_json,
    names_in,
    parse_json,
    put_json,
    read_json,
)
from .uploads import unsigned


@dataclass(frozen=True)
class LastRestore:
    """The last restore that was carried out. `at`: ISO 8601. `idempotency_key`: a digest that identifies its request.
    `safety_copy`: the name of the copy that was made before it; "" if the database was damaged, and none could be made.
    `made`: model label and natural key of each content type and permission that it created. `checksum`: of the safety
    copy, see `kept.checksum_of`. `kept_passwords`, `kept_tokens`: whether it left all passwords, and all API tokens,
    as they were. `damaged_file`: where the file of a damaged database is kept; "" if none is."""

    at: str
    idempotency_key: str
    safety_copy: str
    is_undo: bool
    made: Sequence[tuple[str, Sequence[str]]] = ()
    checksum: str = ""
    kept_passwords: bool = False
    kept_tokens: bool = False
    damaged_file: str = ""


@dataclass(frozen=True)
class LastBackup:
    """The last backup that was made. `at`: aware. `by`: the name of a user; "" for the command line. `dangling`: its
    dangling references, as lines for people."""

    at: dt.datetime
    by: str
    records: int
    dangling: tuple[str, ...] = ()


@dataclass(frozen=True)
class LastRun:
    """How the last automatic backup went. `at`: when this was saved, aware. `error`: why it failed; "" if it did not.
    `tries`: how many in a row failed, or were killed. `notified`, `posted`: the state of the last notice to people, and
    to BACKUP_WEBHOOK_URL; "" if there was none. `is_unfinished`: another one has begun since, which is still running or
    was killed. `pinged_failure`: whether the last ping to BACKUP_PING_URL told of a failure. `pings_lost`: how many
    pings of a success since the last run did not arrive."""

    at: dt.datetime
    error: str = ""
    tries: int = 0
    notified: str = ""
    is_unfinished: bool = False
    posted: str = ""
    pinged_failure: bool = False
    pings_lost: int = 0

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "at": self.at.isoformat()}

    @classmethod
    def from_json(cls, content: Any) -> LastRun | None:
        """Return the run from what `as_json` returned; None if it is something else.

        In older files, `notified` is called `told`, and there is no `posted`.
        """
        try:
            notified = str(content["notified"] if "notified" in content else content["told"])
            return cls(
                in_every_zone(dt.datetime.fromisoformat(content["at"])),
                str(content["error"]),
                int(content["tries"]),
                notified,
                content.get("is_unfinished") is True,
                str(content.get("posted", notified)),
                content.get("pinged_failure") is True,
                int(content.get("pings_lost", 0)),
            )
        except (KeyError, TypeError, ValueError):
            return None


# -- the progress of a restore ---


def save_progress(upload_id: str, user: Any, state: dict[str, Any]) -> None:
    """Save the progress of the restore of an upload for `load_progress`. `state`: anything that JSON can hold.

    It is a file, since another process may need it while the database is locked. If it cannot be saved, the restore
    goes on.
    """
    with suppress(InvalidBackup, StorageFailed):
        put_json(
            _state_name(upload_id),
            {**state, "id": upload_id, "user": user.get_username(), "at": aware_now().isoformat()},
        )


def load_progress(upload_id: str, user: Any) -> dict[str, Any] | None:
    """Return what `save_progress` saved, with `id`, `user` and `at` added; None if there is nothing of this user's.

    Users are compared by name: after a restore, the same person may have another primary key.
    """
    try:
        state = get_json(_state_name(upload_id))
    except InvalidBackup:
        return None
    return state if state.get("user") == user.get_username() else None


def mark_seen(upload_id: str, user: Any) -> None:
    """Note that the user has seen the result of a restore. If it cannot be noted, nothing is raised."""
    state = load_progress(upload_id, user)
    if state and not state.get("seen") and ("result" in state or "error" in state):
        with suppress(InvalidBackup, StorageFailed):
            put_json(_state_name(upload_id), {**state, "seen": True})


def newest_progress(user: Any) -> dict[str, Any] | None:
    """Return the progress of this user's newest restore; None if there is none. Raises `StorageFailed`."""
    own = [
        state
        for name in names_in(RESTORES)
        if name.endswith(".json") and (state := get_json(name)).get("user") == user.get_username()
    ]
    return max(own, key=lambda state: str(state.get("at")), default=None)


def _state_name(upload_id: str) -> str:
    return f"{RESTORES}/{unsigned(upload_id).name}.json"


# -- the last backup ---


def save_last_backup(moment: dt.datetime, user: Any, records: int, dangling: Sequence[str] = ()) -> None:
    """Save that a backup was made. If that cannot be saved, nothing is raised: the backup is good all the same.

    `dangling`: see `LastBackup`.
    """
    with suppress(StorageFailed):
        by = user.get_username() if user else ""
        content = {"at": moment.isoformat(), "by": by, "records": records, "dangling": [*dangling]}
        put_json(LAST_BACKUP, content)


def load_last_backup() -> LastBackup | None:
    """Return the last backup; None if there was none, or it is not known."""
    content = get_json(LAST_BACKUP)
    try:
        return LastBackup(
            in_every_zone(dt.datetime.fromisoformat(content["at"])),
            str(content["by"]),
            int(content["records"]),
            tuple(map(str, content.get("dangling", ()))),
        )
    except (KeyError, TypeError, ValueError):
        return None


# -- the last restore ---


def save_last_restore(last: LastRestore) -> None:
    """Save a restore in place of the one before. To be called in its transaction: see `database.memo`.

    Where the database has no place for that, since a router has the sessions in another one, say, it is saved in a file
    as soon as the transaction is committed. Until then the file says that a restore is under way, and what it said
    before, for `take_back`: should the process be killed, it is not known which one was the last. Raises
    `StorageFailed`.
    """
    if memo.has_notes():
        memo.save_note(json.dumps(asdict(last)))
    else:
        before = read_json(LAST_RESTORE)
        # Of one that is still under way: only its own process could have taken it back.
        before.pop("before", None)
        put_json(LAST_RESTORE, {"under_way": asdict(last), "before": before})
        transaction.on_commit(lambda: put_json(LAST_RESTORE, asdict(last)), DEFAULT_DB_ALIAS, robust=True)


def under_way() -> dict[str, Any]:
    """Return the restore of which the file says that it is under way, as JSON; {} if there is none."""
    last = get_json(LAST_RESTORE).get("under_way")
    return last if isinstance(last, dict) else {}


def take_back(last: LastRestore) -> None:
    """Let the file say what it said before this restore, if it says that this one is under way: it was rolled back. If
    it cannot be written, nothing is raised."""
    content = get_json(LAST_RESTORE)
    if "before" in content and under_way().get("at") == last.at:
        with suppress(StorageFailed):
            put_json(LAST_RESTORE, content["before"])


def load_last_restore() -> LastRestore | None:
    """Return the last restore; None if there was none, or it is not known. Raises `Busy`: see `memo.load_note`."""
    try:
        content = parse_json(memo.load_note()) if memo.has_notes() else get_json(LAST_RESTORE)
        made = tuple((label, natural) for label, natural in content.pop("made", ()))
        return LastRestore(**content, made=made)
    except (AttributeError, TypeError, ValueError):
        return None


# -- automatic backups ---


def save_last_run(run: LastRun) -> None:
    """Save how the last automatic backup went. Raises `StorageFailed`."""
    put_json(LAST_RUN, run.as_json())


def load_last_run() -> LastRun | None:
    """Return how the last automatic backup went; None if that is not known."""
    return LastRun.from_json(get_json(LAST_RUN))

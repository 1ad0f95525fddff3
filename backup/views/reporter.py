"""The reporter of a restore that a page follows."""

from __future__ import annotations

import time
from typing import Any

from django.utils.translation import gettext as _

from backup.exceptions import BackupError
from backup.options import Phase, Result
from backup.storage import state as states


class StateReporter:
    """Saves the progress and the result of a restore for all processes of the server, see `storage.state`.

    `upload_id`: the id of the upload, or another one from `uploads.new_id`; "" to save nothing. Used as a context
    manager, it saves an error, too.
    """

    def __init__(self, upload_id: str, user: Any) -> None:
        self._id, self._user = upload_id, user
        self._state: dict[str, Any] = {}
        self._next = 0.0

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BackupError):
            self._end(error={"message": error.message, "details": error.details}, status=error.status)
        elif error is not None:
            self._end(error={"message": _("An unexpected error occurred on the server.")}, status=500)

    def phase(self, phase: Phase) -> None:
        """Save that a phase begins."""
        self._note({"phase": phase.value})

    def progress(self, label: str, done: int, total: int) -> None:
        """Save how many records or photos are done, at most once a second."""
        if time.monotonic() >= self._next:
            self._note({**self._state, "label": label, "done": done, "total": total})

    def finish(self, result: Result, undone: bool = False) -> Result:
        """Save the result, and return it."""
        self._end(result=result.as_json(), undone=undone)
        return result

    def _end(self, **how: Any) -> None:
        if self._state:  # otherwise it did not begin, and the state may be that of another restore
            self._note(how)

    def _note(self, state: dict[str, Any]) -> None:
        self._state = state
        if self._id:
            states.save_progress(self._id, self._user, state)
        self._next = time.monotonic() + 1

"""The progress and the result of a restore, for a page and its script."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..conf import aware_now
from ..options import PHOTOS, Phase
from .names import entered, grouped

#: After this time without news, a restore may have been interrupted.
SILENCE = dt.timedelta(minutes=2)

_PHASES = {
    Phase.CHECK: gettext_lazy("Checking the backup"),
    Phase.COPY: gettext_lazy("Making a safety copy of what is here now"),
    Phase.WRITE: gettext_lazy("Writing the records"),
    Phase.FINISH: gettext_lazy("Checking the result"),
}


def progress(state: dict[str, Any] | None) -> dict[str, Any]:
    """Return `state` (running, ended, unknown), `text`, `done`, `total`; while it runs, also `step` and `silent`.

    The argument is what `storage.state.load_progress` returns.
    """
    if state is None:
        return {"state": "unknown", "text": "", "done": None, "total": None}
    if "result" in state or "error" in state:
        return {"state": "ended", "text": "", "done": None, "total": None}
    phase = Phase(state["phase"])
    text = _("Step %(place)s of %(steps)s: %(step)s") % {
        "place": [*Phase].index(phase) + 1,
        "steps": len(Phase),
        "step": _PHASES[phase],
    }
    done, total = state.get("done"), state.get("total")
    if done is not None and total:
        words = (
            _("%(step)s, %(done)s of %(total)s photos")
            if state.get("label") == PHOTOS
            else _("%(step)s, %(done)s of %(total)s records")
        )
        text = words % {
            "step": text,
            "done": grouped(min(done, total)),
            "total": grouped(total),
        }
    return {
        "state": "running",
        "step": str(_PHASES[phase]),
        "text": text,
        "done": done,
        "total": total,
        "silent": _is_silent(state),
    }


def _is_silent(state: dict[str, Any]) -> bool:
    # One of the future was saved while the clock was wrong.
    return abs(aware_now() - dt.datetime.fromisoformat(state["at"])) > SILENCE


def last_restore(state: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a summary for the front page: a dict with `how` (done, failed, running), `id`, `at`, `records`.

    None if there was no restore, or if the user has seen its result.
    """
    if state is None or state.get("seen"):
        return None
    how = "done" if "result" in state else "failed" if "error" in state else "running"
    records = entered(state["result"]["restored"]) if how == "done" else None
    return {"how": how, "id": state["id"], "at": dt.datetime.fromisoformat(state["at"]), "records": records}

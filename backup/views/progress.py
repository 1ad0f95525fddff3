"""The progress of a restore, for the page that waits for it, and for people who come back to it."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _

from backup import access
from backup.exceptions import BackupError
from backup.forms import RestoreForm
from backup.options import Result
from backup.presentation import progress as in_words
from backup.storage import state as states

from .answers import error_page, page, result_of
from .front_page import front_page
from .guard import endpoint


@endpoint("GET", "HEAD")
def progress(request: HttpRequest, upload_id: str) -> HttpResponseBase:
    """Show the progress or the result of the restore of an upload."""
    # Never save the session here: the host's middleware may have changed it, but the restore may hold a lock on the
    # database.
    request.session.modified = False
    state = states.load_progress(upload_id, request.user)
    if access.wants_json(request):
        return JsonResponse(in_words.progress(state))
    states.mark_seen(upload_id, request.user)
    if state is None:
        notice = _("Nothing was changed: this restore did not begin. (Or it was more than a day ago.)")
        return front_page(request, RestoreForm(), 404, notice=notice)
    if "result" in state:
        return result_of(request, Result.from_json(state["result"]), state["undone"])
    if "error" in state:
        return error_page(request, BackupError(**state["error"]), status=state["status"])
    return page(request, "progress", {"upload": upload_id, "progress": in_words.progress(state)})

"""Safety copies: download, deletion, and the way back to one (undo)."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect

from backup import access, services
from backup.exceptions import BackupError
from backup.log import log
from backup.storage import kept

from .answers import attachment, not_done, result_of
from .guard import endpoint
from .reporter import StateReporter


@endpoint("POST")
def undo(request: HttpRequest) -> HttpResponseBase:
    """Undo the last restore; or, with a `safety_copy`, go back to that one."""
    name = request.POST.get("safety_copy") or None
    reporter = StateReporter(request.POST.get("follow", ""), request.user)
    try:
        with reporter:
            result = reporter.finish(
                services.undo_restore(safety_copy=name, user=request.user, reporter=reporter), undone=True
            )
    except BackupError as error:
        return not_done(request, error)
    return result_of(request, result, undone=True)


@endpoint("GET", "HEAD")
def safety_copy(request: HttpRequest, name: str) -> HttpResponseBase:
    """Send a safety copy."""
    response = attachment(request, kept.open_backup(name), name)
    if request.method == "GET":
        log(f"download of safety copy {name}", request.user)
    return response


@endpoint("POST")
def delete_safety_copy(request: HttpRequest, name: str) -> HttpResponseBase:
    """Delete a safety copy."""
    try:
        kept.delete(name)
    except BackupError as error:
        return not_done(request, error)
    log(f"deletion of safety copy {name}", request.user)
    if access.wants_json(request):
        return HttpResponse(status=204)
    return redirect("backup:index")

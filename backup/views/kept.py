"""What the server keeps: a backup made to be kept, each one's download, pin and deletion, and undo."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.utils.translation import gettext as _

from backup import access, services
from backup.exceptions import BackupError
from backup.forms import PinForm, RunForm
from backup.log import log
from backup.presentation.names import grouped
from backup.storage import kept as kept_backups

from .answers import attachment, not_done, result_of
from .front_page import invalid
from .guard import endpoint
from .reporter import StateReporter


@endpoint("POST")
def run(request: HttpRequest) -> HttpResponseBase:
    """Make a backup that the server keeps."""
    form = RunForm(request.POST)
    if not form.is_valid():
        return invalid(request, form)
    try:
        stored = services.keep_backup(user=request.user, label=form.cleaned_data["label"])
    except BackupError as error:
        return not_done(request, error)
    return _to_list(
        request,
        {"name": stored.name, "kind": stored.kind.value, "records": stored.records, "made": True},
        _("The backup is made, and kept on the server: %(number)s records.")
        % {"number": grouped(stored.records)},
    )


@endpoint("GET", "HEAD")
def kept(request: HttpRequest, name: str) -> HttpResponseBase:
    """Send a kept backup, under the name that a download of that moment had."""
    file = services.open_kept(name, request.user)
    try:
        moment = kept_backups.parse(name).created
        response = attachment(request, file, services.backup_name(request.user, moment))
    except BaseException:
        file.close()
        raise
    if request.method == "GET":
        log(f"download of {name}", request.user)
    return response


@endpoint("POST")
def delete(request: HttpRequest, name: str) -> HttpResponseBase:
    """Delete a kept backup."""
    try:
        kept_backups.delete(name)
    except BackupError as error:
        return not_done(request, error)
    log(f"deletion of {name}", request.user)
    return _to_list(request, None, _("The backup is deleted."))


@endpoint("POST")
def pin(request: HttpRequest, name: str) -> HttpResponseBase:
    """Pin a kept backup, so that no rule removes it; or no longer."""
    form = PinForm(request.POST)
    if not form.is_valid():
        return invalid(request, form)
    try:
        stored = kept_backups.pin(name, form.cleaned_data["pinned"])
    except BackupError as error:
        return not_done(request, error)
    log(f"{'pinning' if stored.pinned else 'unpinning'} of {name}", request.user)
    said = _("This backup is pinned: it stays until somebody deletes it.")
    return _to_list(
        request, stored.as_json(), said if stored.pinned else _("This backup is no longer pinned.")
    )


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


def _to_list(request: HttpRequest, answer: dict[str, Any] | None, said: str) -> HttpResponse:
    """Send a browser back to the list, where `said` stands on top; a script gets the answer, or 204 without one."""
    if access.wants_json(request):
        return HttpResponse(status=204) if answer is None else JsonResponse(answer)
    messages.success(request, said, fail_silently=True)
    return redirect("backup:index")

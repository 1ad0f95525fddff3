"""Automatic backups: their status, making one now, confirming a loss of entries, and testing a location."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from backup import access, services
from backup.automatic import probe
from backup.automatic import run as automatic
from backup.automatic import status as states
from backup.automatic.look import watch
from backup.exceptions import BackupError, LossesChanged
from backup.forms import RestoreForm, RunForm
from backup.log import log
from backup.presentation.kept import entered_in
from backup.presentation.names import grouped, in_words
from backup.storage.bounded import unhurried
from backup.storage.elsewhere import State
from backup.tables import places_in_words

from .answers import done, error_page, log_refusal, not_done
from .front_page import front_page, invalid
from .guard import endpoint


@endpoint("POST")
def run(request: HttpRequest) -> HttpResponseBase:
    """Make a backup that the server keeps; with `automatic`, only if one is due."""
    form = RunForm(request.POST)
    if not form.is_valid():
        return invalid(request, form)
    try:
        if form.cleaned_data["automatic"]:
            with unhurried():  # a script waits for all of it, copies included
                outcome = automatic.run(user=request.user)
            return done(request, outcome.as_json(), f"{outcome.message} {outcome.error}".rstrip())
        label, leave_out = form.cleaned_data["label"], form.cleaned_data["leave_out"]
        stored = services.keep_backup(
            user=request.user, label=label, photos=form.photos_as_sent, leave_out=leave_out
        )
        copy_soon()
    except BackupError as error:
        if error.offer == "leave_out" and not access.wants_json(request):
            log_refusal(request, error)
            return error_page(request, error, keep=request.POST)
        return not_done(request, error)
    answer: dict[str, Any] = {
        "name": stored.name,
        "kind": stored.kind.value,
        "records": stored.records,
        "made": True,
    }
    if stored.warnings:
        answer["warnings"] = [*stored.warnings]
    message = _("The backup is made, and kept on the server: %(number)s records.")
    warnings = [in_words(line) for line in stored.warnings[:3]]
    if stored.left_out:
        answer["left_out"] = stored.left_out.total
        lacks = ngettext(
            "It lacks %(n)s value that cannot be read: %(places)s.",
            "It lacks %(n)s values that cannot be read: %(places)s.",
            stored.left_out.total,
        )
        places = "; ".join(places_in_words(stored.left_out))
        warnings.append(lacks % {"n": grouped(stored.left_out.total), "places": places})
    level = messages.WARNING if warnings else messages.SUCCESS
    return done(
        request, answer, " ".join([message % {"number": grouped(entered_in(stored))}, *warnings]), level
    )


def copy_soon() -> None:
    """Let a child process visit the locations to which that is due, after this request, since one may be slow."""
    states.remember(states.status())
    watch.soon()


@endpoint("GET", "HEAD")
def status(request: HttpRequest) -> HttpResponseBase:
    """Return the status of automatic backups, always as JSON and with status 200."""
    return JsonResponse(states.status().as_json())


@endpoint("POST")
def acknowledge(request: HttpRequest) -> HttpResponseBase:
    """Note that a superuser confirms that there are fewer entries: those that the page showed, if it sends that."""
    try:
        current = states.acknowledge(request.user, request.POST.get("shown"))
    except LossesChanged as error:
        if access.wants_json(request):
            return not_done(request, error)
        log_refusal(request, error)
        return front_page(request, RestoreForm(), error.status, notice=error.message)
    except BackupError as error:
        return not_done(request, error)
    log("acknowledging that entries are fewer", request.user)
    return done(
        request, current.as_json(), _("Thank you. Old backups are removed again as BACKUP_KEEP says.")
    )


@endpoint("POST")
def test_location(request: HttpRequest, name: str) -> HttpResponseBase:
    """Test a location: write a small file, read it back and delete it. Missing copies are sent after this request."""
    try:
        seen = probe.test(name, request.user)
    except BackupError as error:
        return not_done(request, error)
    copy_soon()
    is_failed = seen.state is State.FAILED
    level = messages.ERROR if is_failed else messages.SUCCESS
    return done(request, states.status().as_json(), seen.message, level)

"""How automatic backups are, a backup made by hand or where one is due, and the answer to the shrink guard."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _

from backup import services
from backup.automatic import run as automatic
from backup.automatic import status as states
from backup.exceptions import BackupError
from backup.forms import RunForm
from backup.log import log
from backup.presentation.names import grouped

from .answers import done, not_done
from .front_page import invalid
from .guard import endpoint


@endpoint("POST")
def run(request: HttpRequest) -> HttpResponseBase:
    """Make a backup that the server keeps; with `automatic`, only where one is due."""
    form = RunForm(request.POST)
    if not form.is_valid():
        return invalid(request, form)
    try:
        if form.cleaned_data["automatic"]:
            outcome = automatic.run(user=request.user)
            return done(request, outcome.as_json(), outcome.message)
        stored = services.keep_backup(user=request.user, label=form.cleaned_data["label"])
    except BackupError as error:
        return not_done(request, error)
    answer = {"name": stored.name, "kind": stored.kind.value, "records": stored.records, "made": True}
    message = _("The backup is made, and kept on the server: %(number)s records.")
    return done(request, answer, message % {"number": grouped(stored.records)})


@endpoint("GET", "HEAD")
def status(request: HttpRequest) -> HttpResponseBase:
    """Tell how automatic backups are, in JSON whoever asks; 200 however that is."""
    return JsonResponse(states.status().as_json())


@endpoint("POST")
def acknowledge(request: HttpRequest) -> HttpResponseBase:
    """Take a superuser's word that it is right that entries are fewer."""
    try:
        found = states.acknowledge(request.user)
    except BackupError as error:
        return not_done(request, error)
    log("acknowledging that entries are fewer", request.user)
    return done(request, found.as_json(), _("Thank you. Old backups are removed again as BACKUP_KEEP says."))

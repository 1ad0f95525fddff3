"""The front page: download, upload form, kept backups, commands. It is also the answer to a form with errors."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from django.apps import apps
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from backup import access, babybuddy, services
from backup.automatic import notices
from backup.automatic import status as automatic_backups
from backup.conf import conf, if_right
from backup.exceptions import BackupError, WrongSettings
from backup.forms import RestoreForm
from backup.presentation.kept import KeptInWords, kept_in_words
from backup.presentation.locations import locations_in_words
from backup.presentation.progress import last_restore
from backup.storage import kept, keys, uploads
from backup.storage import state as states
from backup.storage.keys import Place

from .answers import error_page, json_error, json_of_error, log_refusal, page

T = TypeVar("T")
#: How many kept backups the page lists at first, how many when somebody asks for older ones, and how many of other
#: sites it offers to an empty site.
LISTED, LISTED_LATER, OFFERED = 5, 50, 3


def front_page(
    request: HttpRequest,
    form: RestoreForm,
    status: int = 200,
    details: list[str] | None = None,
    notice: str = "",
) -> HttpResponse:
    """Render the front page. `details`: lines below the error of the form. `notice`: a sentence at the top."""
    context: dict[str, Any] = {
        "form": form,
        "details": details,
        "notice": notice,
        "limit": if_right("max_upload_size", None),
        "status": (status_now := automatic_backups.status()),
        "mail_lacks": notices.what_mail_lacks(),
        "locations": locations_in_words(status_now.locations),
    }
    try:
        start, total = _start(request), kept.count()
        most = LISTED_LATER if start else LISTED
        backups = services.kept_backups(start=start, most=most)
        context["backups"] = kept_in_words(backups, _unless_wrong(services.counts) or {})
        context["start"], context["older"] = start, start + most if start + most < total else None
        context["offered"] = kept_in_words(services.backups_for_an_empty_site(request.user, most=OFFERED), {})
        if status == 200:  # not next to an error of another action
            context["last_restore"] = _last_restore(request)
        services.check_storage()
    except BackupError as error:
        # The rest of the page works all the same: a download needs no storage.
        context["storage_error"] = error
    context["photos"], context["photos_size"] = _photos(context.get("backups", ()))
    context["key"] = _key()
    context["encrypts_downloads"] = _unless_wrong(lambda: conf.encrypts(Place.DOWNLOAD.value))
    context["follow"] = uploads.new_id(request.user)
    context.update(last_backup())
    context["token"] = _token(request) if "token" in request.GET else None
    context["asked_for_token"] = "token" in request.GET
    context["curl_download"], context["curl_restore"] = _curl_lines(request, context["token"] or "YOUR_TOKEN")
    # Home Assistant's ingress needs its own sign-in, so scripts have to use the mapped port.
    context["ingress"] = babybuddy.is_home_assistant(request)
    return page(request, "index", context, status)


def _unless_wrong(value: Callable[[], T]) -> T | None:
    """Return a value; None if a setting that it needs is wrong. The status, at the top of the page, says which one."""
    try:
        return value()
    except WrongSettings:
        return None


def last_backup() -> dict[str, Any]:
    """Return what the page shows of the last backup and of the next."""
    context: dict[str, Any] = {"database_size": services.database_size()}
    with suppress(BackupError):  # the page says so
        context["last_backup"] = states.load_last_backup()
    return context


def _photos(backups: Sequence[KeptInWords]) -> tuple[int, int | None]:
    """Return how many photos there are, and their bytes.

    If asking for the size of each would need a server, it is taken from the newest backup with photos, if any.
    """
    number, size = services.photos_here()
    if size is None:
        size = next((line.backup.photos_size for line in backups if line.backup.photos), None)
    return number, size


def _key() -> dict[str, Any]:
    """Return what the page shows of the key of encrypted backups: its id ("" if there is none) and whether it is kept
    somewhere else, too; or what is wrong with it."""
    try:
        stored = keys.current()
    except BackupError as error:
        return {"error": error.message}
    return {"id": stored.key.id, "is_noted": stored.is_noted} if stored else {"id": ""}


def _start(request: HttpRequest) -> int:
    """Return how many of the newest kept backups the page skips."""
    text = request.GET.get("from", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0


def _last_restore(request: HttpRequest) -> dict[str, Any] | None:
    """Return the result of the viewer's last restore, for somebody who closed the page meanwhile. It is shown once."""
    state = states.newest_progress(request.user)
    if state:
        states.mark_seen(state["id"], request.user)
    return last_restore(state)


def invalid(request: HttpRequest, form: Form) -> HttpResponse:
    """Return the answer to a form with invalid fields."""
    log_refusal(request, "invalid")
    if isinstance(form, RestoreForm) and not access.wants_json(request):
        return front_page(request, form, status=400)
    fields = form.errors.get_json_data()
    first = next(iter(fields.values()))[0]
    if not access.wants_json(request):
        return error_page(request, BackupError(first["message"]), status=400)
    return json_error(400, first["code"] or "invalid", first["message"], fields=fields)


def failed(request: HttpRequest, error: BackupError, form: RestoreForm | None = None) -> HttpResponse:
    """Return the answer to a form with a bad file: the page again, with the error beside the file field."""
    log_refusal(request, error)
    if access.wants_json(request):
        return json_of_error(error)
    if form is None:
        # The body may not have been read, so the form cannot be filled in again.
        if request.method != "POST":
            return error_page(request, error)
        form = RestoreForm({})
        form.is_valid()
        form.errors.clear()
    form.add_error("backup_file", error.message)
    return front_page(request, form, error.status, error.details)


def _token(request: HttpRequest) -> str | None:
    """Return the viewer's API token; None if there is none. It is not created."""
    if not apps.is_installed("rest_framework.authtoken"):
        return None
    token = apps.get_model(babybuddy.TOKENS).objects.filter(user_id=request.user.pk or 0).first()
    return str(token.key) if token else None


def _curl_lines(request: HttpRequest, token: str) -> tuple[str, str]:
    """Return the commands that download a backup and restore one.

    With them, an error is neither saved as a backup nor taken for a success (--fail), and the server names the file
    (-OJ).
    """
    key = f'-H "Authorization: Token {token}"'
    download = shlex.quote(request.build_absolute_uri(reverse("backup:download")))
    restore = shlex.quote(request.build_absolute_uri(reverse("backup:confirm")))
    file = "-F backup_file=@backup_MMDDYY_HHMMSS.zip"
    return (
        f"curl --fail -OJ {key} {download}",
        f"curl --fail-with-body {key} {file} -F clear_existing_data=false {restore}",
    )

"""Answers that several views give: pages, JSON, files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import get_user, get_user_model
from django.contrib.sessions.backends.base import UpdateError
from django.db.models import Q
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render, resolve_url

from backup import access, babybuddy
from backup.conf import MIB
from backup.exceptions import BackupError, KeyNeeded, WrongKey
from backup.log import log
from backup.options import Result
from backup.presentation.names import entered, model_names
from backup.storage import state as states
from backup.storage import uploads

logger = logging.getLogger("backup")

#: Bytes of a file that may be sent out of memory: see `attachment`.
IN_MEMORY = 16 * MIB

#: What the log calls a view, if that is not the view's name.
_IN_LOG = {"restore": "preview", "confirm": "restore", "download": "backup"}


def page(request: HttpRequest, name: str, context: dict[str, Any], status: int = 200) -> HttpResponse:
    """Render one of our templates, in the host's layout; in a plain one if the host's menu fails."""
    context["viewer_timezone"] = babybuddy.user_timezone(request.user)
    context["layout"] = babybuddy.PAGE_TEMPLATE
    try:
        return render(request, f"backup/{name}.html", context, status=status)
    except Exception as error:  # noqa: BLE001  what a value of the host's makes of its menu; else it is raised below
        logger.warning("the host's layout cannot be shown: %s", type(error).__name__)
    context["layout"] = "backup/plain.html"
    return render(request, f"backup/{name}.html", context, status=status)


def error_page(
    request: HttpRequest, error: BackupError, status: int | None = None, **context: Any
) -> HttpResponse:
    """Render an error on a page of its own, for actions without a form. `status`: by default, that of the error."""
    return page(request, "error", {"error": error, **context}, status or error.status)


def key_needed_page(
    request: HttpRequest, error: KeyNeeded, action: str, fields: dict[str, str], *, upload: str = ""
) -> HttpResponse:
    """Render the page that asks for the key of an encrypted backup.

    `action`: the address to send the key to, together with `fields` and the id of an upload, if any.
    """
    context = {"error": error, "action": action, "fields": fields, "upload": upload}
    return page(request, "key_needed", {**context, "is_wrong": isinstance(error, WrongKey)}, error.status)


def json_error(status: int, code: str, message: str, **more: Any) -> JsonResponse:
    """Return `{"error": …}`; see "What scripts get" in docs/operations.md."""
    return JsonResponse({"error": {"code": code, "message": message, "details": [], **more}}, status=status)


def json_of_error(error: BackupError, **others: Any) -> JsonResponse:
    """Return an error as JSON, with the record that it names, if any, and the option that would help."""
    place = {name: getattr(error, name, None) for name in ("model", "pk", "field", "key_id")}
    more = {name: value for name, value in place.items() if value is not None}
    if error.offer:
        more["offer"] = error.offer
    return json_error(error.status, error.code, error.message, details=error.details, **more, **others)


def not_done(request: HttpRequest, error: BackupError) -> HttpResponse:
    """Return the answer for an error: JSON, or a page of its own."""
    log_refusal(request, error)
    return json_of_error(error) if access.wants_json(request) else error_page(request, error)


def done(
    request: HttpRequest, answer: dict[str, Any] | None, message: str, level: int = messages.SUCCESS
) -> HttpResponse:
    """Return the answer for a successful action. A browser goes back to the front page, which shows `message`; a script
    gets `answer` as JSON, or 204 without one."""
    if access.wants_json(request):
        return HttpResponse(status=204) if answer is None else JsonResponse(answer)
    messages.add_message(request, level, message, fail_silently=True)
    return redirect("backup:index")


def attachment(
    request: HttpRequest, file: BinaryIO, name: str, sent: Callable[[], None] = lambda: None
) -> HttpResponseBase:
    """Send a ZIP file as a download. `sent`: called after all of it was sent. The answer closes the file."""
    response: HttpResponseBase
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if babybuddy.is_home_assistant(request) and size <= IN_MEMORY:
        # The host's middleware for Home Assistant logs an error for every streamed answer. With photos, a line in the
        # log is better than a file as large as the memory.
        with file:
            response = HttpResponse(file.read(), content_type="application/zip")
        if request.method != "HEAD":
            sent()
    else:
        response = StreamingHttpResponse(_Chunks(file, sent), content_type="application/zip")
        response["Content-Length"] = str(size)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


class _Chunks:
    """Content of a file in chunks, for a streamed answer. `FileResponse` cannot tell whether all of it was sent."""

    def __init__(self, file: BinaryIO, sent: Callable[[], None]) -> None:
        self._file, self._sent = file, sent

    def __iter__(self) -> Iterator[bytes]:
        # The server asks for the next chunk, even if there is none, only after it has sent the one before.
        while chunk := self._file.read(access.CHUNK):
            yield chunk
        self._sent()

    def close(self) -> None:
        self._file.close()


def result_of(request: HttpRequest, result: Result, undone: bool = False, follow: str = "") -> HttpResponse:
    """Return the answer after a restore. A browser is redirected to a page that shows the result and can be reloaded.

    `follow`: the id under which the result was saved, see `views.progress`. If it was not saved, or if the user has to
    sign in again, the result is shown in this answer.
    """
    signed_out = not access.sends_token(request) and _session_has_ended(request)
    if access.wants_json(request):
        return JsonResponse(result.as_json())
    if follow and not signed_out and "result" in (states.load_progress(follow, request.user) or {}):
        return redirect("backup:progress", follow)
    names = model_names(result.restored)
    rows = [
        {"name": names[label], "records": count}
        for label, count in result.restored.items()
        if count and babybuddy.is_entered(label)
    ]
    records = entered(result.restored)
    context = {
        "result": result,
        "records": records,
        "seeded": result.records - records,
        "rows": sorted(rows, key=lambda row: str(row["name"]).lower()),
        "undone": undone,
        "follow": uploads.new_id(request.user),
        "signed_out": signed_out,
        "is_gone": signed_out and _is_gone(request.user),
        "login_url": resolve_url(settings.LOGIN_URL),
    }
    return page(request, "result", context)


def _session_has_ended(request: HttpRequest) -> bool:
    """Tell whether the restore removed the viewer's account, or changed its name or password; then the session is
    flushed. With another name, a proxy that signs people in would take the next request for one of somebody new.

    The page may still be rendered for the viewer: `request.user` is the user from before.
    """
    user = get_user(request)
    if user.is_authenticated and user.get_username() == request.user.get_username():
        try:
            # Save it now: the session middleware would replace this page by an error if it were gone.
            request.session.save()
        except UpdateError:
            pass
        else:
            return False
    request.session.flush()
    return True


def _is_gone(user: Any) -> bool:
    """Tell whether a user has no account any more, under this name or, with the same password, under another one."""
    by_name = Q(**{user.USERNAME_FIELD: user.get_username()})
    by_key = Q(pk=user.pk, password=user.password)
    return not get_user_model()._default_manager.filter(by_name | by_key).exists()


def log_refusal(request: HttpRequest, refused: str | BackupError) -> None:
    """Log why a request was refused, unless `services` has done so already."""
    if isinstance(refused, BackupError):
        if refused.logged:
            return
        refused.logged, refused = True, refused.code
    name = request.resolver_match.url_name if request.resolver_match else None
    log(_IN_LOG.get(str(name), str(name)), request.user, refused)

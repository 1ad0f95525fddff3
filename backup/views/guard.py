"""Guards every view: checks access and method, and turns errors into answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from urllib.parse import urlsplit

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from backup import access
from backup.exceptions import BackupError

from .answers import error_page, json_error, log_refusal
from .front_page import failed

#: Names of what people send that nobody else may see.
SECRETS = ["key", "last_group"]
#: Methods that change nothing.
SAFE = ("GET", "HEAD", "OPTIONS")
#: What an address says for which somebody had to sign in anew, so that what was sent was not done.
ENDED = "ended"
View = Callable[..., HttpResponseBase]


def endpoint(*methods: str) -> Callable[[View], View]:
    """Decorate a view, so that only people with access reach it, by these methods, and a `BackupError` is answered.

    Django's CSRF middleware is told to pass (`csrf_exempt`), since a client with a token needs no CSRF token, and
    since that middleware would read an upload of any size. `_rejection` checks in its place.
    """

    def decorate(view: View) -> View:
        @csrf_exempt
        @never_cache
        @non_atomic_requests
        @wraps(view)
        def guarded(request: HttpRequest, **place: str) -> HttpResponseBase:
            # What must not be in a report of an error.
            request.sensitive_post_parameters = SECRETS  # type: ignore[attr-defined]
            if (refused := _refuse_stranger(request, "upload_id" in place)) is not None:
                access.drop_body(request, refused)
                return _without_body(refused) if request.method == "HEAD" else refused
            try:
                response = _rejection(request, methods) or view(request, **place)
            except BackupError as error:
                response = failed(request, error)
            finally:
                access.drain(request)
            return _without_body(response) if request.method == "HEAD" else response

        return guarded

    return decorate


def _refuse_stranger(request: HttpRequest, of_upload: bool) -> HttpResponseBase | None:
    """Return the answer to a request of somebody without access, whose body is not read; None for others.

    `of_upload`: whether it is for a page of an upload. That one waits on the server until its owner is signed in again;
    with all else one begins anew, since a form would be lost, and a download leaves the login page where it is.
    """
    json = access.wants_json(request)
    reason = access.sign_in_by_token(request) if access.sends_token(request) else None
    if reason is not None or not request.user.is_authenticated:
        if not json:
            return redirect_to_login(_place_to_return(request, of_upload))
        log_refusal(request, "not_signed_in")
        response = json_error(401, "not_signed_in", reason or _("Sign in first, or send a token."))
        response["WWW-Authenticate"] = "Token"
        return response
    if not access.is_allowed(request.user):
        log_refusal(request, "not_allowed")
        if not json:
            raise PermissionDenied
        return json_error(403, "not_allowed", _("You do not have permission to back up or restore."))
    return None


def _place_to_return(request: HttpRequest, of_upload: bool) -> str:
    """Return the address to go on from after a new sign-in. What was sent is lost, but not the upload that the page
    was about which it was sent from."""
    index = reverse("backup:index")
    if request.method in SAFE:
        return request.get_full_path() if of_upload and request.method != "OPTIONS" else index
    pages = [reverse(f"backup:{name}", args=["-"]).removesuffix("-/") for name in ("preview", "question")]
    with suppress(ValueError):
        came_from = urlsplit(request.headers.get("Referer", ""))
        if came_from.netloc == request.get_host() and came_from.path.startswith(tuple(pages)):
            return f"{came_from.path}?{came_from.query}{'&' * bool(came_from.query)}{ENDED}=1"
    return f"{index}?{ENDED}=1"


def _rejection(request: HttpRequest, methods: tuple[str, ...]) -> HttpResponseBase | None:
    """Return the answer to a request that is not as it should be; None if it is."""
    token = access.sends_token(request)
    json = access.wants_json(request)
    changes = request.method not in SAFE
    if not changes and not token and access.is_of_another_site(request):
        log_refusal(request, "other_site")
        return json_error(403, "other_site", _("Another site cannot read this."))
    if request.method not in methods:
        refused = _wrong_method(request)
        refused["Allow"] = ", ".join(methods)
        return refused
    if changes:
        access.read_form(request)
        reason = None if token else access.csrf_reason(request)
        if reason is not None:
            log_refusal(request, "csrf")
            return json_error(403, "csrf", reason) if json else _csrf_page(request, reason)
    return None


def _csrf_page(request: HttpRequest, reason: str) -> HttpResponse:
    """Return the host's page, which knows what may be wrong with its set-up; ours, if only the form is old."""
    if not reason.startswith("CSRF token"):
        return access.csrf_page(request, reason)
    message = _("You have signed in anew since this page was opened. Reload it, and try again.")
    return error_page(request, BackupError(message), status=403)


def _wrong_method(request: HttpRequest) -> HttpResponse:
    if access.wants_json(request):
        message = _("This address does not accept %(method)s requests.") % {"method": request.method}
        return json_error(405, "wrong_method", message)
    message = _("This page cannot be opened by itself. Please start again from the beginning.")
    return error_page(request, BackupError(message), status=405)


def _without_body(response: HttpResponseBase) -> HttpResponseBase:
    """Keep only the headers: gunicorn would send the body, and the client take it for the next answer."""
    if isinstance(response, StreamingHttpResponse):
        response.streaming_content = iter(())
    elif isinstance(response, HttpResponse):
        response["Content-Length"] = str(len(response.content))
        response.content = b""
    return response

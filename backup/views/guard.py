"""Guards every view: checks access and method, and turns errors into answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from urllib.parse import urlsplit

from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.views import redirect_to_login
from django.db import DatabaseError, InterfaceError
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from backup import access, services
from backup.exceptions import BackupError, Damaged, Unavailable, WrongSettings
from backup.log import logger
from backup.storage.bounded import page_waits

from .answers import error_page, json_error, log_refusal, not_done
from .front_page import failed

#: Fields of forms that must not appear in error reports.
SECRETS = ["key", "last_group"]
#: Methods that change nothing.
SAFE = ("GET", "HEAD", "OPTIONS")
#: Parameter of the address after a new sign-in: what was sent before was not carried out.
ENDED = "ended"
View = Callable[..., HttpResponseBase]


def endpoint(*methods: str) -> Callable[[View], View]:
    """Decorate a view: only people with access reach it, only by these methods, and a `BackupError` becomes an answer.

    The view is exempt from Django's CSRF middleware, since a client with an API token needs no CSRF token, and since
    the middleware would read an upload of any size. `_rejection` makes the check instead.
    """

    def decorate(view: View) -> View:
        @csrf_exempt
        @never_cache
        @non_atomic_requests
        @wraps(view)
        def guarded(request: HttpRequest, **place: str) -> HttpResponseBase:
            # Keep them out of error reports.
            request.sensitive_post_parameters = SECRETS  # type: ignore[attr-defined]
            try:
                refused = _refuse_stranger(request, "upload_id" in place)
            except (DatabaseError, InterfaceError) as error:
                if not access.wants_json(request):  # for a page, the host needs the database, too
                    raise
                refused = _not_known_now(request, error)
            if refused is not None:
                access.drop_body(request, refused)
                return _without_body(refused) if request.method == "HEAD" else refused
            try:
                with page_waits():
                    response = _answer(request, methods, view, place)
            except (DatabaseError, InterfaceError) as error:  # where a page about another error needs it, too
                response = _without_database(request, services.database_failed(error))
            access.drain(request, response)
            return _without_body(response) if request.method == "HEAD" else response

        return guarded

    return decorate


def _answer(
    request: HttpRequest, methods: tuple[str, ...], view: View, place: dict[str, str]
) -> HttpResponseBase:
    try:
        return _rejection(request, methods) or view(request, **place)
    except WrongSettings as error:  # the front page may need that setting, too
        return not_done(request, error)
    except BackupError as error:
        return failed(request, error)


def _refuse_stranger(request: HttpRequest, of_upload: bool) -> HttpResponseBase | None:
    """Return the answer to a request of somebody without access, before its body is read; None if they have access.

    `of_upload`: whether the page is about an upload. After a new sign-in its owner returns to that page, since the
    upload is still on the server. Otherwise people return to the front page: a form would be lost, and a download would
    leave the login page on the screen.
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
            return access.forbidden_page(request)
        return json_error(403, "not_allowed", _("You do not have permission to back up or restore."))
    return None


def _not_known_now(request: HttpRequest, reason: DatabaseError | InterfaceError) -> HttpResponse:
    """Return the answer to a program while the database does not say who it is: to a stranger, so without the reason,
    which is logged."""
    error = services.database_failed(reason)
    logger.error("nobody can sign in: %s", reason)
    if isinstance(error, Damaged):
        text = _(
            "The database of this site is damaged, so that it cannot tell who you are. The command “manage.py restore” "
            "works all the same."
        )
        error = Damaged(text, offer="")
    request.user = AnonymousUser()  # rather than ask again
    return _without_database(request, error)


def _without_database(request: HttpRequest, error: BackupError) -> HttpResponse:
    response = not_done(request, error)
    if isinstance(error, Unavailable):
        response["Retry-After"] = "60"
    return response


def _place_to_return(request: HttpRequest, of_upload: bool) -> str:
    """Return the address to return to after a new sign-in. What was sent is lost, but not an upload that the page was
    about."""
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
    """Return the answer to a request with a wrong method or without a CSRF token; None if both are right."""
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
    """Return the host's page for a failed CSRF check, which explains faults of the set-up; our own page if the form is
    merely old."""
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
    """Remove the body from an answer to HEAD: gunicorn would send it, and the client take it for the next answer."""
    if isinstance(response, StreamingHttpResponse):
        response.streaming_content = iter(())
    elif isinstance(response, HttpResponse):
        response["Content-Length"] = str(len(response.content))
        response.content = b""
    return response

"""The pages, and the same in JSON for scripts. They translate between HTTP and `backup.services`, no more."""

from __future__ import annotations

import hashlib
import shlex
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, BinaryIO, cast

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.views import redirect_to_login
from django.contrib.sessions.backends.base import UpdateError
from django.core.exceptions import PermissionDenied
from django.core.files.base import File
from django.db.transaction import non_atomic_requests
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render, resolve_url
from django.urls import reverse
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from backup import access, babybuddy, services, vault
from backup.conf import conf
from backup.exceptions import BackupError, Busy, StorageFailed
from backup.forms import RestoreForm
from backup.plan import Plan
from backup.services import Result

View = Callable[..., HttpResponseBase]

#: What a view is about, in the log, where that is not its name.
ABOUT = {"restore": "preview", "confirm": "restore", "download": "backup"}


# --- The doorkeeper of every view -------------------------------------------------------------------------


def endpoint(*methods: str) -> Callable[[View], View]:
    """A view that only those who may can reach, with these methods; its BackupErrors become answers.

    The host's CSRF middleware is told to pass (`csrf_exempt`), since a client with a token needs no CSRF
    token, and since that middleware would read an upload of any size; `_rejection` does its part.
    """

    def decorate(view: View) -> View:
        @csrf_exempt
        @never_cache
        @non_atomic_requests
        @wraps(view)
        def guarded(request: HttpRequest, **place: str) -> HttpResponseBase:
            try:
                response = _rejection(request, methods) or view(request, **place)
            except BackupError as error:
                response = _failed(request, error)
            finally:
                access.drain(request)
            return _without_body(response) if request.method == "HEAD" else response

        return guarded

    return decorate


def _rejection(request: HttpRequest, methods: tuple[str, ...]) -> HttpResponseBase | None:
    """The answer to who may not do this; None for who may."""
    token = access.sends_token(request)
    json = access.wants_json(request)
    reason = access.sign_in_by_token(request) if token else None
    if reason is not None or not request.user.is_authenticated:
        if not json:
            return redirect_to_login(reverse("backup:index"))
        _log_refusal(request, "not_signed_in")
        response = _json_error(401, "not_signed_in", reason or _("Sign in first, or send a token."))
        response["WWW-Authenticate"] = "Token"
        return response
    if not access.is_allowed(request.user):
        _log_refusal(request, "not_allowed")
        if not json:
            raise PermissionDenied
        return _json_error(403, "not_allowed", _("You may not back up or restore here."))
    if request.method not in methods:
        refused = _wrong_method(request)
        refused["Allow"] = ", ".join(methods)
        return refused
    if request.method == "POST":
        access.read_form(request)
        reason = None if token else access.csrf_reason(request)
        if reason is not None:
            _log_refusal(request, "csrf")
            return _json_error(403, "csrf", reason) if json else access.csrf_page(request, reason)
    return None


def _log_refusal(request: HttpRequest, refused: str | BackupError) -> None:
    """Once: what the services refused, they have logged."""
    if isinstance(refused, BackupError):
        if refused.logged:
            return
        refused.logged, refused = True, refused.code
    name = request.resolver_match.url_name if request.resolver_match else None
    services.log(ABOUT.get(str(name), str(name)), request.user, refused)


def _wrong_method(request: HttpRequest) -> HttpResponse:
    if access.wants_json(request):
        message = _("This address does not answer to %(method)s.") % {"method": request.method}
        return _json_error(405, "wrong_method", message)
    message = _("This page cannot be opened by itself. Please start again from the beginning.")
    return _error_page(request, 405, message)


def _without_body(response: HttpResponseBase) -> HttpResponseBase:
    """The same headers. Gunicorn would send the body, and the client take it for the next answer."""
    if isinstance(response, StreamingHttpResponse):
        response.streaming_content = iter(())
    elif isinstance(response, HttpResponse):
        response["Content-Length"] = str(len(response.content))
        response.content = b""
    return response


# --- The views --------------------------------------------------------------------------------------------


@endpoint("GET", "HEAD")
def index(request: HttpRequest) -> HttpResponseBase:
    if access.wants_json(request):
        copies = [
            {
                "name": copy.name,
                "created": copy.created.isoformat(),
                "size": copy.size,
                "reason": copy.reason,
                "by": copy.by,
            }
            for copy in services.safety_copies()
        ]
        return JsonResponse({"max_upload_size": conf.max_upload_size, "safety_copies": copies})
    return _index_page(request, RestoreForm())


@endpoint("GET", "HEAD")
def download(request: HttpRequest) -> HttpResponseBase:
    name = services.backup_name(request.user)
    # It has no name on the disk, so nobody else can open it, and it is gone when the answer is sent.
    file = tempfile.TemporaryFile()  # noqa: SIM115  the answer closes it
    try:
        services.create_backup(cast(BinaryIO, file), user=request.user)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return _attachment(request, file, name)


def _attachment(request: HttpRequest, file: Any, name: str) -> HttpResponseBase:
    """The answer closes the file."""
    if not getattr(request, "is_homeassistant_ingress_request", False):
        return FileResponse(file, as_attachment=True, filename=name, content_type="application/zip")
    # The host's middleware for Home Assistant reports every streamed answer as an error.
    with file:
        response = HttpResponse(file.read(), content_type="application/zip")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@endpoint("POST")
def restore(request: HttpRequest) -> HttpResponseBase:
    """The preview: of a file, or, in the other mode, of what was uploaded for an earlier preview."""
    form = RestoreForm(request.POST, request.FILES)
    if not form.is_valid():
        return _invalid(request, form)
    try:
        if form.file is not None:
            access.check_size(form.file.size or 0)
            upload = vault.stage(form.file, request.user)
        else:
            upload = form.upload_id
        try:
            with vault.open_staged(upload, request.user) as source:
                plan = services.inspect_backup(source, clear=form.clear, user=request.user)
        except BackupError:
            vault.discard(upload, request.user)
            raise
    except BackupError as error:
        return _failed(request, error, form)
    if access.wants_json(request):
        return JsonResponse({"upload": upload, **plan.as_json()})
    return _page(request, "preview", {"upload": upload, "plan": plan, **_preview(plan)})


@endpoint("POST")
def confirm(request: HttpRequest) -> HttpResponseBase:
    form = RestoreForm(request.POST, request.FILES)
    if not form.is_valid():
        return _invalid(request, form)
    try:
        with _source(request, form) as (source, once):
            result = services.restore_backup(source, clear=form.clear, user=request.user, once=once)
    except BackupError as error:
        if form.file is not None or access.wants_json(request):
            return _failed(request, error, form)
        _log_refusal(request, error)
        # What passes by itself may be tried again, the upload is still there.
        again = form if isinstance(error, Busy | StorageFailed) else None
        return _error_page(request, error.status, error.message, details=error.details, again=again)
    if form.file is None:
        vault.discard(form.upload_id, request.user)
    return _result(request, result)


@contextmanager
def _source(request: HttpRequest, form: RestoreForm) -> Iterator[tuple[BinaryIO, str]]:
    """What to restore, and what tells this request from others: see `services.refuse_again`."""
    if form.file is None:
        services.refuse_again(form.upload_id)  # before the upload is missed, which is used up then
        with vault.open_staged(form.upload_id, request.user) as source:
            yield source, form.upload_id
    else:
        access.check_size(form.file.size or 0)
        digest = hashlib.sha256()
        for chunk in form.file.chunks():
            digest.update(chunk)
        once = f"{request.user.pk} {form.clear} {digest.hexdigest()}"
        yield cast(BinaryIO, cast("File[bytes]", form.file).file), once


@endpoint("POST")
def cancel(request: HttpRequest) -> HttpResponseBase:
    vault.discard(request.POST.get("upload", ""), request.user)
    if access.wants_json(request):
        return HttpResponse(status=204)
    return redirect("backup:index")


@endpoint("POST")
def undo(request: HttpRequest) -> HttpResponseBase:
    """Of the last restore; or, with a `safety_copy`, back to that one."""
    name = request.POST.get("safety_copy") or None
    try:
        result = services.undo_restore(safety_copy=name, user=request.user)
    except BackupError as error:
        return _not_done(request, error)
    return _result(request, result, undone=True)


@endpoint("GET", "HEAD")
def safety_copy(request: HttpRequest, name: str) -> HttpResponseBase:
    response = _attachment(request, vault.open_safety_copy(name), name)
    if request.method == "GET":
        services.log(f"download of safety copy {name}", request.user)
    return response


@endpoint("POST")
def delete_safety_copy(request: HttpRequest, name: str) -> HttpResponseBase:
    try:
        vault.forget_safety_copy(name)
    except BackupError as error:
        return _not_done(request, error)
    services.log(f"deletion of safety copy {name}", request.user)
    if access.wants_json(request):
        return HttpResponse(status=204)
    return redirect("backup:index")


def _not_done(request: HttpRequest, error: BackupError) -> HttpResponse:
    """What is wrong, where no file was to be chosen."""
    if access.wants_json(request):
        return _failed(request, error)
    _log_refusal(request, error)
    return _error_page(request, error.status, error.message, details=error.details)


# --- The answers ------------------------------------------------------------------------------------------


def _page(request: HttpRequest, name: str, context: dict[str, Any], status: int = 200) -> HttpResponse:
    context["viewer_timezone"] = babybuddy.user_timezone(request.user)
    return render(request, f"backup/{name}.html", context, status=status)


def _index_page(
    request: HttpRequest, form: RestoreForm, status: int = 200, details: list[str] | None = None
) -> HttpResponse:
    context: dict[str, Any] = {"form": form, "details": details, "limit": conf.max_upload_size}
    try:
        context["safety_copies"] = services.safety_copies()
    except BackupError as error:
        # The page still serves for a download.
        context["vault_error"] = error
    context["curl_download"], context["curl_restore"] = _curl_lines(request)
    # Home Assistant's ingress asks for its own sign-in: a script must come by the mapped port.
    context["ingress"] = getattr(request, "is_homeassistant_ingress_request", False)
    return _page(request, "index", context, status)


def _curl_lines(request: HttpRequest) -> tuple[str, str]:
    curl = 'curl -H "Authorization: Token YOUR_TOKEN"'
    download = shlex.quote(request.build_absolute_uri(reverse("backup:download")))
    restore = shlex.quote(request.build_absolute_uri(reverse("backup:confirm")))
    return (
        f"{curl} -o backup.zip {download}",
        f"{curl} -F backup_file=@backup.zip -F clear_existing_data=false {restore}",
    )


def _result(request: HttpRequest, result: Result, undone: bool = False) -> HttpResponse:
    """What was restored; in this very answer, since the next request may need a new sign-in."""
    signed_out = not access.sends_token(request) and _session_has_ended(request)
    if access.wants_json(request):
        return JsonResponse(result.as_json())
    names = _model_names(result.restored)
    rows = [{"name": names[label], "records": count} for label, count in result.restored.items() if count]
    context = {
        "result": result,
        "rows": sorted(rows, key=lambda row: str(row["name"]).lower()),
        "undone": undone,
        "signed_out": signed_out,
        "login_url": resolve_url(settings.LOGIN_URL),
    }
    return _page(request, "result", context)


def _session_has_ended(request: HttpRequest) -> bool:
    """Whether the restore took the viewer's account away, or gave it another password; then nothing is left
    of the session. (The page may still be rendered for the viewer: `request.user` is the user as it was.)"""
    if get_user(request).is_authenticated:
        try:
            # Now: for a session that ended meanwhile, the middleware would replace this page by an error.
            request.session.save()
        except UpdateError:
            pass
        else:
            return False
    request.session.flush()
    return True


def _invalid(request: HttpRequest, form: RestoreForm) -> HttpResponse:
    _log_refusal(request, "invalid")
    if not access.wants_json(request):
        return _index_page(request, form, status=400)
    fields = form.errors.get_json_data()
    first = next(iter(fields.values()))[0]
    return _json_error(400, first["code"] or "invalid", first["message"], fields=fields)


def _failed(request: HttpRequest, error: BackupError, form: RestoreForm | None = None) -> HttpResponse:
    """The page again, with what is wrong beside the file field."""
    _log_refusal(request, error)
    if access.wants_json(request):
        place = {name: getattr(error, name, None) for name in ("model", "pk", "field")}
        more = {name: value for name, value in place.items() if value is not None}
        return _json_error(error.status, error.code, error.message, details=error.details, **more)
    if form is None:
        # The body may not have been read, so nothing of what was filled in is known.
        if request.method != "POST":
            return _error_page(request, error.status, error.message, details=error.details)
        form = RestoreForm({})
        form.is_valid()
        form.errors.clear()
    form.add_error("backup_file", error.message)
    return _index_page(request, form, error.status, error.details)


def _error_page(request: HttpRequest, status: int, message: str, **context: Any) -> HttpResponse:
    return _page(request, "error", {"message": message, **context}, status)


def _json_error(status: int, code: str, message: str, **more: Any) -> JsonResponse:
    return JsonResponse({"error": {"code": code, "message": message, "details": [], **more}}, status=status)


# --- A plan in words --------------------------------------------------------------------------------------


def _preview(plan: Plan) -> dict[str, Any]:
    """The models of a plan as rows, and their sums. Models with no records anywhere are only counted."""
    changing: list[dict[str, Any]] = []
    staying: list[dict[str, Any]] = []
    empty = 0
    names = _model_names(plan.changes)
    for label, changes in sorted(plan.changes.items(), key=lambda item: names[item[0]].lower()):
        member = plan.metadata.models.get(label)
        records = member.records if member else changes.added + changes.changed + changes.unchanged
        if not records and not changes.removed:
            empty += 1
            continue
        row = {"name": names[label], "records": records, "changes": changes}
        (changing if changes.added or changes.changed or changes.removed else staying).append(row)
    total = {
        kind: sum(getattr(changes, kind) for changes in plan.changes.values())
        for kind in ("added", "changed", "unchanged", "removed")
    }
    told = plan.refusal.details if plan.refusal else []
    return {
        "changing": changing,
        "staying": staying,
        "empty": empty,
        "total": total,
        "conflicts": [line for line in plan.conflicts if line not in told],
        "blocked": bool(plan.refusal or plan.conflicts),
    }


def _model_names(labels: Iterable[str]) -> dict[str, str]:
    """Label -> the host's own plural, in the viewer's language; two that are alike get their label added."""
    names = {}
    for label in labels:
        try:
            names[label] = str(capfirst(apps.get_model(label)._meta.verbose_name_plural))
        except LookupError:
            names[label] = label
    often = Counter(names.values())
    return {label: f"{name} ({label})" if often[name] > 1 else name for label, name in names.items()}

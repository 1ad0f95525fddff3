"""The pages, and the same in JSON for scripts. They translate between HTTP and `backup.services`, no more."""

from __future__ import annotations

import hashlib
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
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
from django.core.files.uploadedfile import UploadedFile
from django.db.transaction import non_atomic_requests
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render, resolve_url
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from backup import access, babybuddy, display, services
from backup.conf import conf
from backup.exceptions import AlreadyRestored, BackupError, Busy, StorageFailed
from backup.forms import RestoreForm, UploadForm
from backup.options import Phase, Result
from backup.storage import kept, uploads
from backup.storage import state as states

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
    if request.method != "POST" and not token and access.is_of_another_site(request):
        _log_refusal(request, "other_site")
        return _json_error(403, "other_site", _("Another site cannot read this."))
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
    return _error_page(request, BackupError(message), status=405)


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
        copies = [copy.as_json() for copy in services.safety_copies()]
        return JsonResponse({"max_upload_size": conf.max_upload_size, "safety_copies": copies})
    return _index_page(request, RestoreForm())


@endpoint("GET", "HEAD")
def download(request: HttpRequest) -> HttpResponseBase:
    name = services.backup_name(request.user)
    # It has no name on the disk, so nobody else can open it, and it is gone when the answer is sent.
    file = tempfile.TemporaryFile()  # noqa: SIM115  the answer closes it
    try:
        metadata = services.create_backup(cast(BinaryIO, file), user=request.user)
        if request.method == "GET":
            services.note_backup(metadata, request.user)
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
def upload(request: HttpRequest) -> HttpResponseBase:
    """Keep a file for a preview that is asked for next: a page's script sends it, to show how far that is."""
    form = UploadForm(request.POST, request.FILES)
    if not form.is_valid():
        return _invalid(request, form)
    assert form.file is not None  # else it would not be valid
    return JsonResponse({"upload": _stage(request, form.file)})


@endpoint("POST")
def restore(request: HttpRequest) -> HttpResponseBase:
    """The preview: of a file, or, in the other mode, of what was uploaded for an earlier preview."""
    form = RestoreForm(request.POST, request.FILES)
    return _preview(request, form) if form.is_valid() else _invalid(request, form)


def _preview(request: HttpRequest, form: RestoreForm) -> HttpResponse:
    try:
        staged = form.upload_id if form.file is None else _stage(request, form.file)
        try:
            with (
                uploads.open_staged(staged, request.user) as source,
                services.at_todays_schema(source, user=request.user) as backup,
            ):
                if backup is not source:  # kept as what it has become, so that it is upgraded once
                    older, staged = staged, uploads.stage(File(backup), request.user)
                    uploads.discard(older, request.user)
                plan = services.inspect_backup(backup, form.options, user=request.user)
        except BackupError:
            uploads.discard(staged, request.user)
            raise
    except BackupError as error:
        return _failed(request, error, form)
    if access.wants_json(request):
        return JsonResponse({"upload": staged, **plan.as_json()})
    words = display.preview(plan, babybuddy.user_timezone(request.user))
    return _page(request, "preview", {"upload": staged, "plan": plan, **words})


def _stage(request: HttpRequest, file: UploadedFile[bytes]) -> str:
    access.check_size(file.size or 0)
    return uploads.stage(file, request.user)


@endpoint("POST")
def confirm(request: HttpRequest) -> HttpResponseBase:
    form = RestoreForm(request.POST, request.FILES)
    if not form.is_valid():
        return _invalid(request, form)
    if not form.confirmed and not access.wants_json(request):
        # Nobody deletes what is here by one click. (A script says what it wants, and is not asked again.)
        return _sure(request, form) if form.file is None else _preview(request, form)
    follow = _Follower(form.upload_id, request.user)
    try:
        with follow, _source(request, form) as (source, key):
            result = follow.ended(
                services.restore_backup(
                    source,
                    form.options,
                    user=request.user,
                    reporter=follow,
                    idempotency_key=key,
                )
            )
    except BackupError as error:
        if form.file is not None or access.wants_json(request):
            return _failed(request, error, form)
        _log_refusal(request, error)
        state = states.load_progress(form.upload_id, request.user) or {}
        if isinstance(error, AlreadyRestored) and "result" in state:
            # A page that was sent once more, by a reload or a second click.
            return _result(request, Result.from_json(state["result"]))
        # What passes by itself may be tried again, the upload is still there.
        again = form if isinstance(error, Busy | StorageFailed) else None
        return _error_page(request, error, again=again)
    if form.file is None:
        uploads.discard(form.upload_id, request.user)
    return _result(request, result)


def _sure(request: HttpRequest, form: RestoreForm) -> HttpResponse:
    """The second step."""
    try:
        with uploads.open_staged(form.upload_id, request.user):
            pass
    except BackupError as error:
        return _failed(request, error, form)
    data = form.cleaned_data
    context = {
        "upload": form.upload_id,
        "removed": data["removed"] or 0,
        "missing": data["asked"],
        "clear_unknown_apps": form.options.clear_unknown_apps,
    }
    return _page(request, "sure", context, 400 if data["asked"] else 200)


class _Follower:
    """Keeps how far a restore is, and how it ended, where every process of the server finds it.

    `upload_id`: of the upload, or another id of `uploads.new_id`; "" where nobody follows. Inside of `with`, an error
    is noted too.
    """

    def __init__(self, upload_id: str, user: Any) -> None:
        self._id, self._user = upload_id, user
        self._state: dict[str, Any] = {}
        self._next = 0.0

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BackupError):
            self._ended(error={"message": error.message, "details": error.details}, status=error.status)
        elif error is not None:
            self._ended(error={"message": _("The server met an error that it did not expect.")}, status=500)

    def phase(self, phase: Phase) -> None:
        """A phase begins."""
        self._note({"phase": phase.value})

    def progress(self, label: str, done: int, total: int) -> None:
        """Records were done; noted at most once a second."""
        if time.monotonic() >= self._next:
            self._note({**self._state, "done": done, "total": total})

    def ended(self, result: Result, undone: bool = False) -> Result:
        self._ended(result=result.as_json(), undone=undone)
        return result

    def _ended(self, **how: Any) -> None:
        if self._state:  # else it did not begin: what is known of the one that runs, or ran, stays
            self._note(how)

    def _note(self, state: dict[str, Any]) -> None:
        self._state = state
        if self._id:
            states.save_progress(self._id, self._user, state)
        self._next = time.monotonic() + 1


@endpoint("GET", "HEAD")
def progress(request: HttpRequest, upload_id: str) -> HttpResponseBase:
    """How far the restore of an upload is, or how it ended: for a page that was left, or that waits."""
    # Not now: the host's middleware may have touched the session, and the database may be locked by the restore.
    request.session.modified = False
    state = states.load_progress(upload_id, request.user)
    if access.wants_json(request):
        return JsonResponse(display.progress(state))
    if state is None:
        notice = _("Nothing is known of that restore: it did not begin, or it was more than a day ago.")
        return _index_page(request, RestoreForm(), 404, notice=notice)
    if "result" in state:
        return _result(request, Result.from_json(state["result"]), state["undone"])
    if "error" in state:
        return _error_page(request, BackupError(**state["error"]), status=state["status"])
    return _page(request, "progress", {"upload": upload_id, "told": display.progress(state)})


@contextmanager
def _source(request: HttpRequest, form: RestoreForm) -> Iterator[tuple[BinaryIO, str]]:
    """What to restore, and what tells this request from others: see `services.ensure_not_repeated`."""
    if form.file is None:
        services.ensure_not_repeated(form.upload_id)  # before the upload is missed, which is used up then
        with uploads.open_staged(form.upload_id, request.user) as source:
            yield source, form.upload_id
    else:
        access.check_size(form.file.size or 0)
        digest = hashlib.sha256()
        for chunk in form.file.chunks():
            digest.update(chunk)
        key = f"{request.user.pk} {form.clear} {digest.hexdigest()}"
        yield cast(BinaryIO, cast("File[bytes]", form.file).file), key


@endpoint("POST")
def cancel(request: HttpRequest) -> HttpResponseBase:
    uploads.discard(request.POST.get("upload", ""), request.user)
    if access.wants_json(request):
        return HttpResponse(status=204)
    return redirect("backup:index")


@endpoint("POST")
def undo(request: HttpRequest) -> HttpResponseBase:
    """Of the last restore; or, with a `safety_copy`, back to that one."""
    name = request.POST.get("safety_copy") or None
    follow = _Follower(request.POST.get("follow", ""), request.user)
    try:
        with follow:
            result = follow.ended(
                services.undo_restore(safety_copy=name, user=request.user, reporter=follow),
                undone=True,
            )
    except BackupError as error:
        return _not_done(request, error)
    return _result(request, result, undone=True)


@endpoint("GET", "HEAD")
def safety_copy(request: HttpRequest, name: str) -> HttpResponseBase:
    response = _attachment(request, kept.open_backup(name), name)
    if request.method == "GET":
        services.log(f"download of safety copy {name}", request.user)
    return response


@endpoint("POST")
def delete_safety_copy(request: HttpRequest, name: str) -> HttpResponseBase:
    try:
        kept.delete(name)
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
    return _error_page(request, error)


# --- The answers ------------------------------------------------------------------------------------------


def _page(request: HttpRequest, name: str, context: dict[str, Any], status: int = 200) -> HttpResponse:
    context["viewer_timezone"] = babybuddy.user_timezone(request.user)
    return render(request, f"backup/{name}.html", context, status=status)


def _index_page(
    request: HttpRequest,
    form: RestoreForm,
    status: int = 200,
    details: list[str] | None = None,
    notice: str = "",
) -> HttpResponse:
    context: dict[str, Any] = {
        "form": form,
        "details": details,
        "notice": notice,
        "limit": conf.max_upload_size,
    }
    try:
        context["safety_copies"] = services.safety_copies()
        context["last_backup"] = states.load_last_backup()
        context["last_restore"] = display.last_restore(states.newest_progress(request.user))
    except BackupError as error:
        # The page still serves for a download.
        context["storage_error"] = error
    context["follow"] = uploads.new_id(request.user)
    context["database_size"] = services.database_size()
    context["token"] = _token(request) if "token" in request.GET else None
    context["asked_for_token"] = "token" in request.GET
    context["curl_download"], context["curl_restore"] = _curl_lines(request, context["token"] or "YOUR_TOKEN")
    # Home Assistant's ingress asks for its own sign-in: a script must come by the mapped port.
    context["ingress"] = getattr(request, "is_homeassistant_ingress_request", False)
    return _page(request, "index", context, status)


def _token(request: HttpRequest) -> str | None:
    """The viewer's own, where there is one: none is made by looking."""
    if not apps.is_installed("rest_framework.authtoken"):
        return None
    found = apps.get_model("authtoken", "Token").objects.filter(user_id=request.user.pk or 0).first()
    return str(found.key) if found else None


def _curl_lines(request: HttpRequest, token: str) -> tuple[str, str]:
    curl = f'curl -H "Authorization: Token {token}"'
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
    names = display.model_names(result.restored)
    rows = [{"name": names[label], "records": count} for label, count in result.restored.items() if count]
    context = {
        "result": result,
        "rows": sorted(rows, key=lambda row: str(row["name"]).lower()),
        "undone": undone,
        "follow": uploads.new_id(request.user),
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
            return _error_page(request, error)
        form = RestoreForm({})
        form.is_valid()
        form.errors.clear()
    form.add_error("backup_file", error.message)
    return _index_page(request, form, error.status, error.details)


def _error_page(
    request: HttpRequest, error: BackupError, status: int | None = None, **context: Any
) -> HttpResponse:
    return _page(request, "error", {"error": error, **context}, status or error.status)


def _json_error(status: int, code: str, message: str, **more: Any) -> JsonResponse:
    return JsonResponse({"error": {"code": code, "message": message, "details": [], **more}}, status=status)

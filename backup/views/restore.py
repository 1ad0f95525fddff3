"""The steps of a restore: upload, preview, the last question, the restore itself; or none of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from django.core.files.base import File
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect

from backup import access, babybuddy, services
from backup.exceptions import AlreadyRestored, BackupError, Busy, StorageFailed
from backup.forms import RestoreForm, UploadForm, fields_of
from backup.options import RestoreMode, RestoreOptions, Result
from backup.presentation.modes import MODES
from backup.presentation.preview import preview as in_words
from backup.storage import state as states
from backup.storage import uploads

from .answers import error_page, log_refusal, page, result_of
from .front_page import failed, invalid
from .guard import endpoint
from .reporter import StateReporter


@endpoint("POST")
def upload(request: HttpRequest) -> HttpResponseBase:
    """Keep a file for the preview that the page's script asks for next: so it can show how far the upload is."""
    form = UploadForm(request.POST, request.FILES)
    if not form.is_valid():
        return invalid(request, form)
    assert form.file is not None  # else the form would not be valid
    return JsonResponse({"upload": _stage(request, form.file)})


@endpoint("POST")
def restore(request: HttpRequest) -> HttpResponseBase:
    """Show the preview: of a file, or of an earlier upload (in another mode, say)."""
    form = RestoreForm(request.POST, request.FILES)
    return _preview(request, form) if form.is_valid() else invalid(request, form)


def _preview(request: HttpRequest, form: RestoreForm) -> HttpResponse:
    try:
        staged = form.upload_id if form.file is None else _stage(request, form.file)
        try:
            with (
                uploads.open_staged(staged, request.user) as source,
                services.at_todays_schema(source, user=request.user) as backup,
            ):
                if backup is not source:  # keep the upgraded one in its place, so that it is upgraded once
                    older, staged = staged, uploads.stage(File(backup), request.user)
                    uploads.discard(older, request.user)
                plan = services.inspect_backup(backup, form.options, user=request.user)
        except BackupError:
            uploads.discard(staged, request.user)
            raise
    except BackupError as error:
        return failed(request, error, form)
    if access.wants_json(request):
        return JsonResponse({"upload": staged, **plan.as_json()})
    words = in_words(plan, babybuddy.user_timezone(request.user))
    context = {
        "upload": staged,
        "plan": plan,
        "mode": MODES[form.options.mode],
        "fields": fields_of(form.options),
        "asks": form.options.mode.clears or words["total"]["removed"],
        "others": [
            {"mode": MODES[mode], "fields": fields_of(RestoreOptions(mode))}
            for mode in RestoreMode
            if mode is not form.options.mode
        ],
        **words,
    }
    return page(request, "preview", context)


def _stage(request: HttpRequest, file: UploadedFile[bytes]) -> str:
    access.check_size(file.size or 0)
    return uploads.stage(file, request.user)


@endpoint("POST")
def confirm(request: HttpRequest) -> HttpResponseBase:
    """Restore: of an earlier upload, or, for scripts, of a file."""
    form = RestoreForm(request.POST, request.FILES)
    if not form.is_valid():
        return invalid(request, form)
    if not form.is_confirmed and not access.wants_json(request):
        # Nobody deletes anything by one click. (A script says what it wants, and is not asked again.)
        return _question(request, form) if form.file is None else _preview(request, form)
    reporter = StateReporter(form.upload_id, request.user)
    try:
        with reporter, _source(request, form) as (source, key):
            result = reporter.finish(
                services.restore_backup(
                    source,
                    form.options,
                    user=request.user,
                    reporter=reporter,
                    idempotency_key=key,
                )
            )
    except BackupError as error:
        if form.file is not None or access.wants_json(request):
            return failed(request, error, form)
        log_refusal(request, error)
        state = states.load_progress(form.upload_id, request.user) or {}
        if isinstance(error, AlreadyRestored) and "result" in state:
            # The page was sent once more, by a reload or a second click.
            return result_of(request, Result.from_json(state["result"]))
        # What passes by itself may be tried again: the upload is still there.
        again = isinstance(error, Busy | StorageFailed)
        retry = {"upload": form.upload_id, "fields": fields_of(form.options)} if again else None
        return error_page(request, error, retry=retry)
    if form.file is None:
        uploads.discard(form.upload_id, request.user)
    return result_of(request, result)


def _question(request: HttpRequest, form: RestoreForm) -> HttpResponse:
    """Ask before something is deleted."""
    try:
        with uploads.open_staged(form.upload_id, request.user):
            pass
    except BackupError as error:
        return failed(request, error, form)
    data = form.cleaned_data
    context = {
        "upload": form.upload_id,
        "mode": MODES[form.options.mode],
        "fields": fields_of(form.options),
        "removed": data["removed"] or 0,
        "missing": data["asked"],
    }
    return page(request, "question", context, 400 if data["asked"] else 200)


@contextmanager
def _source(request: HttpRequest, form: RestoreForm) -> Iterator[tuple[BinaryIO, str]]:
    """Yield what to restore, and its idempotency key: see `services.ensure_not_repeated`."""
    if form.file is None:
        # Checked before the upload is opened: the first request has used it up.
        services.ensure_not_repeated(form.upload_id)
        with uploads.open_staged(form.upload_id, request.user) as source:
            yield source, form.upload_id
    else:
        access.check_size(form.file.size or 0)
        digest = hashlib.sha256()
        for chunk in form.file.chunks():
            digest.update(chunk)
        key = f"{request.user.pk} {form.options} {digest.hexdigest()}"
        yield cast(BinaryIO, cast("File[bytes]", form.file).file), key


@endpoint("POST")
def cancel(request: HttpRequest) -> HttpResponseBase:
    """Discard an upload."""
    uploads.discard(request.POST.get("upload", ""), request.user)
    if access.wants_json(request):
        return HttpResponse(status=204)
    return redirect("backup:index")

"""The steps of a restore: preview, a last question before something is deleted, and the restore itself; or cancel."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO, cast
from urllib.parse import urlencode

from django.core.files.base import File
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _

from backup import access, babybuddy, services
from backup.archive import Key
from backup.exceptions import (
    AlreadyRestored,
    BackupError,
    Busy,
    Damaged,
    EncryptionUnavailable,
    Forbidden,
    Incomplete,
    KeyNeeded,
    RemovesMore,
    StorageFailed,
)
from backup.forms import RestoreForm, fields_of
from backup.options import Part, RestoreMode, Result
from backup.presentation.modes import MODES, other_modes
from backup.presentation.parts import TITLES, titles
from backup.presentation.preview import preview as in_words
from backup.presentation.thumbnails import thumbnail
from backup.restore.accounts import in_words as in_words_of_accounts
from backup.restore.plan import Plan
from backup.storage import state as states
from backup.storage import uploads
from backup.storage.photos import completed

from .answers import error_page, json_of_error, key_needed_page, log_refusal, page, result_of
from .front_page import failed, invalid
from .guard import endpoint
from .reporter import StateReporter


@endpoint("POST")
def restore(request: HttpRequest) -> HttpResponseBase:
    """Accept what to preview: a file, an earlier upload or a kept backup. A browser is redirected to `preview`."""
    form = RestoreForm(request.POST, request.FILES)
    if not form.is_valid():
        return invalid(request, form)
    upload_id = ""
    try:
        upload_id = _staged(request, form)
        upload_id = _at_todays_schema(request, form, upload_id)
    except BackupError as error:
        return _failed(request, error, form, upload_id)
    if access.wants_json(request):
        return _preview(request, form, upload_id)
    return _to(request, "preview", form, upload_id)


def _staged(request: HttpRequest, form: RestoreForm) -> str:
    """Return the id of the upload to preview. A file or kept backup becomes an upload first."""
    if form.file is not None:
        return _stage(request, form.file)
    if form.upload_id:
        return form.upload_id
    with services.open_kept(form.kept_name, request.user) as file:
        return uploads.stage(File(file), request.user)


def _at_todays_schema(request: HttpRequest, form: RestoreForm, upload_id: str) -> str:
    """Bring an older backup to today's schema once, and not again for each page. Returns the id of the new upload, or
    `upload_id` if it is up to date.

    Raises `InvalidBackup` if the file is no backup.
    """
    try:
        with (
            uploads.open_staged(upload_id, request.user) as source,
            services.at_todays_schema(
                source, form.options, key=_key(form, source), user=request.user
            ) as backup,
        ):
            if backup is source:
                return upload_id
            newer = uploads.stage(File(backup), request.user)
        uploads.discard(upload_id, request.user)
        return newer
    except BackupError as error:
        _discard_if_useless(request, upload_id, error)
        raise


def _key(form: RestoreForm, source: BinaryIO) -> Key | None:
    return services.typed_key(form.typed_key, source)


def _discard_if_useless(request: HttpRequest, upload_id: str, error: BackupError) -> None:
    passes = isinstance(error, Busy | StorageFailed | KeyNeeded | EncryptionUnavailable | Incomplete)
    if not passes and not _offer(error):  # otherwise it may still be restored
        uploads.discard(upload_id, request.user)


def _offer(error: BackupError) -> str:
    """Return the option that a page offers for an error: it asks for an edited file by a switch of its own."""
    return "" if error.offer == "edited" else error.offer


def _failed(request: HttpRequest, error: BackupError, form: RestoreForm, upload_id: str) -> HttpResponse:
    """Return the answer to an error, with a way on if there is one, such as leaving something out."""
    if not upload_id or not (_offer(error) or isinstance(error, KeyNeeded)):
        return failed(request, error, form)
    log_refusal(request, error)
    if access.wants_json(request):
        return json_of_error(error, upload=upload_id)
    if isinstance(error, KeyNeeded):
        return key_needed_page(
            request, error, reverse("backup:restore"), fields_of(form.options), upload=upload_id
        )
    must_clear = isinstance(error, Damaged) and error.must_clear
    way_on: dict[str, Any] = {error.offer: True}
    options = replace(form.options, **way_on)
    options = replace(options, mode=RestoreMode.CLEAR) if must_clear else options
    offer = {"upload": upload_id, "fields": fields_of(options), "clears": options.mode.clears}
    offer["asks"] = options.without_safety_copy
    return error_page(request, error, offer=offer, key=form.typed_key)


def _to(request: HttpRequest, name: str, form: RestoreForm, upload_id: str, **more: str) -> HttpResponse:
    """Redirect a browser to a page, so that it can be reloaded without sending the form again.

    But if a key was typed, the page is the answer to the POST itself, since an address must not contain a key.
    """
    if form.typed_key:
        form = RestoreForm({**fields_of(form.options), **more, "upload": upload_id, "key": form.typed_key})
        if not form.is_valid():
            return invalid(request, form)
        return {"preview": _preview, "question": _question}[name](request, form, upload_id)
    return redirect(
        f"{reverse(f'backup:{name}', args=[upload_id])}?{urlencode({**fields_of(form.options), **more})}"
    )


@endpoint("GET", "HEAD")
def preview(request: HttpRequest, upload_id: str) -> HttpResponseBase:
    """Show what the restore of an upload would do."""
    form = _form_of(request, upload_id)
    if not form.is_valid():
        return invalid(request, form)
    return _restored_already(request, upload_id) or _preview(request, form, upload_id)


@endpoint("GET", "HEAD")
def preview_photo(request: HttpRequest, upload_id: str, sha256: str) -> HttpResponseBase:
    """Show a small picture of a photo in an upload to the owner of the upload. Nothing is stored."""
    edited = request.GET.get("edited") == "true"
    with (
        uploads.open_staged(upload_id, request.user) as backup,
        services.photo_in(backup, sha256, edited=edited) as photo,
    ):
        small = thumbnail(photo) if photo else None
    if small is None:
        return HttpResponse(status=404)
    return HttpResponse(
        small,
        content_type="image/jpeg",
        headers={"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'"},
    )


def _form_of(request: HttpRequest, upload_id: str) -> RestoreForm:
    """Return the form with the parameters in the address of a page."""
    data = request.GET.copy()
    data["upload"] = upload_id
    return RestoreForm(data)


def _plan(request: HttpRequest, form: RestoreForm, upload_id: str) -> Plan:
    with uploads.open_staged(upload_id, request.user) as backup:
        return services.inspect_backup(backup, form.options, user=request.user, key=_key(form, backup))


def _preview(request: HttpRequest, form: RestoreForm, upload_id: str) -> HttpResponse:
    try:
        plan = _plan(request, form, upload_id)
    except BackupError as error:
        _discard_if_useless(request, upload_id, error)
        return _failed(request, error, form, upload_id)
    if access.wants_json(request):
        return JsonResponse({"upload": upload_id, **plan.as_json()})
    words = in_words(plan, babybuddy.user_timezone(request.user))
    options = form.options
    without_parts = fields_of(replace(options, parts=tuple(Part)))
    is_forbidden = isinstance(plan.refusal, Forbidden)
    # Whoever chose to restore only accounts need not be asked about them.
    accounts = _accounts_in_words(request, plan) if options.parts != (Part.ACCOUNTS,) else []
    context = {
        "upload": upload_id,
        "key": form.typed_key,
        "plan": plan,
        "mode": MODES[options.mode],
        "fields": fields_of(options),
        "asks": options.mode.clears or words["total"]["removed"],
        "accounts": accounts,
        "warnings": [line for line in plan.warnings if plan.refusal or line not in accounts],
        "is_unanswered": form.lacks_answer,
        "previewed": ",".join(part.value for part in options.parts),
        "entries_only": fields_of(replace(options, parts=(Part.ENTRIES,))) if is_forbidden else None,
        "can_go_on": plan.refusal is None or is_forbidden,
        "parts": [
            {"value": part.value, "title": title, "is_chosen": part in options.parts}
            for part, title in TITLES.items()
        ],
        "only": titles(options.parts) if options.parts != tuple(Part) else [],
        "fields_without_parts": without_parts,
        "merge_tags": urlencode(fields_of(replace(options, merge_tags=True))),
        "leave_out": urlencode(fields_of(replace(options, leave_out=True))),
        "others": [
            {"mode": MODES[mode], "fields": fields, "query": urlencode(fields)}
            for mode in other_modes(plan)
            for fields in [fields_of(replace(options, mode=mode, clear_unknown_apps=False))]
        ],
        **words,
    }
    return page(request, "preview", context)


def _accounts_in_words(request: HttpRequest, plan: Plan) -> list[str]:
    """Return the changes of accounts, and whether the viewer's own is among those that are removed."""
    lines = in_words_of_accounts(plan.accounts)
    if str(request.user.get_username()) in plan.accounts.removed:
        lines.append(_("Your own account is removed: you then need another one to undo the restore."))
    return lines


def _restored_already(request: HttpRequest, upload_id: str) -> HttpResponse | None:
    """Redirect somebody who went back, or reloads, to the result if the upload has been restored; else return None."""
    state = states.load_progress(upload_id, request.user)
    if state is None or "error" in state or access.wants_json(request):
        return None
    return redirect("backup:progress", upload_id)


def _stage(request: HttpRequest, file: UploadedFile[bytes]) -> str:
    access.check_size(file.size or 0)
    return uploads.stage(file, request.user)


@endpoint("POST")
def confirm(request: HttpRequest) -> HttpResponseBase:
    """Restore: from an earlier upload, or, for scripts, from a file or a kept backup."""
    form = RestoreForm(request.POST, request.FILES)
    if not form.is_valid():
        return invalid(request, form)
    if not access.wants_json(request):  # scripts are not asked questions
        if form.lacks_answer and form.upload_id:
            return _to(request, "preview", form, form.upload_id, asked_accounts="yes")
        if _deletes_unasked(request, form):
            # Deleting takes more than one click.
            return _ask(request, form)
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
                    key=_key(form, source),
                    most_removed=None if access.wants_json(request) else _most_removed(form),
                )
            )
    except RemovesMore as error:
        log_refusal(request, error)
        return _to(request, "question", form, form.upload_id)
    except BackupError as error:
        has_way_on = _offer(error) or isinstance(error, KeyNeeded)
        if not form.upload_id or has_way_on or access.wants_json(request):
            return _failed(request, error, form, form.upload_id)
        log_refusal(request, error)
        state = states.load_progress(form.upload_id, request.user) or {}
        if isinstance(error, AlreadyRestored) and "result" in state:
            # The form was sent twice, by a reload or a second click.
            return result_of(request, Result.from_json(state["result"]), follow=form.upload_id)
        # After an error that may pass, it can be tried again: the upload is still there.
        again = isinstance(error, Busy | StorageFailed)
        fields = fields_of(form.options)
        retry = (
            {"upload": form.upload_id, "fields": fields, "removed": _most_removed(form)} if again else None
        )
        return error_page(request, error, retry=retry, key=form.typed_key)
    if form.upload_id:
        uploads.discard(form.upload_id, request.user)
    return result_of(request, result, follow=form.upload_id)


def _ask(request: HttpRequest, form: RestoreForm) -> HttpResponse:
    if not form.upload_id:
        upload_id = ""
        try:
            upload_id = _staged(request, form)
            upload_id = _at_todays_schema(request, form, upload_id)
            return _to(request, "preview", form, upload_id)
        except BackupError as error:
            return _failed(request, error, form, upload_id)
    asked = {"asked": "yes"} if form.cleaned_data["asked"] else {}
    return _to(request, "question", form, form.upload_id, **asked)


def _deletes_unasked(request: HttpRequest, form: RestoreForm) -> bool:
    """Tell whether something would be deleted although the last question was not answered with yes."""
    options = form.options
    if not form.has_other_parts or options.mode.clears or options.without_safety_copy or not form.upload_id:
        return not form.is_confirmed
    # Build the plan to know how many: the form does not say it.
    plan = _plan(request, form, form.upload_id)
    return any(changes.removed for changes in plan.changes.values())


def _most_removed(form: RestoreForm) -> int | None:
    """Return how many records the preview has said will be deleted; None if whoever confirmed it was not told a number,
    since all are, or any may be."""
    options = form.options
    if options.mode.clears or options.without_safety_copy or not form.upload_id:
        return None
    return 0 if form.has_other_parts else form.cleaned_data["removed"] or 0


@endpoint("GET", "HEAD")
def question(request: HttpRequest, upload_id: str) -> HttpResponseBase:
    """Ask before something is deleted."""
    form = _form_of(request, upload_id)
    if not form.is_valid():
        return invalid(request, form)
    return _restored_already(request, upload_id) or _question(request, form, upload_id)


def _question(request: HttpRequest, form: RestoreForm, upload_id: str) -> HttpResponse:
    try:
        plan = _plan(request, form, upload_id)
    except BackupError as error:
        return _failed(request, error, form, upload_id)
    words = in_words(plan, babybuddy.user_timezone(request.user))
    options = form.options
    if not (words["total"]["removed"] or options.mode.clears):
        return _to(request, "preview", form, upload_id)
    context = {
        "upload": upload_id,
        "key": form.typed_key,
        "mode": MODES[options.mode],
        "fields": fields_of(options),
        "only": titles(options.parts) if options.parts != tuple(Part) else [],
        "removed": words["total"]["removed"],
        "children_lost": words["children_lost"],
        "accounts": _accounts_in_words(request, plan),
        "missing": form.cleaned_data["asked"],
    }
    return page(request, "question", context)


@contextmanager
def _source(request: HttpRequest, form: RestoreForm) -> Iterator[tuple[BinaryIO, str]]:
    """Yield what to restore, and its idempotency key: see `services.ensure_not_repeated`."""
    who_and_how = f"{request.user.pk} {form.options}"
    if form.upload_id:
        # Check this before opening the upload, which the first request has deleted.
        services.ensure_not_repeated(form.upload_id)
        with uploads.open_staged(form.upload_id, request.user) as source:
            yield source, form.upload_id
    elif form.kept_name:
        with services.open_kept(form.kept_name, request.user) as file:
            yield file, f"{who_and_how} {form.kept_name}"
    else:
        assert form.file is not None  # otherwise the form would be invalid
        access.check_size(form.file.size or 0)
        digest = hashlib.sha256()
        for chunk in form.file.chunks():
            digest.update(chunk)
        file = cast(BinaryIO, cast("File[bytes]", form.file).file)
        yield completed(file, request.user), f"{who_and_how} {digest.hexdigest()}"


@endpoint("POST")
def cancel(request: HttpRequest) -> HttpResponseBase:
    """Discard an upload."""
    uploads.discard(request.POST.get("upload", ""), request.user)
    if access.wants_json(request):
        return HttpResponse(status=204)
    return redirect("backup:index")

"""Kept backups: downloading, labelling, pinning, proving and deleting one, and undoing a restore."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.translation import gettext as _

from backup import access, services
from backup.archive import Key
from backup.automatic import run as automatic
from backup.exceptions import BackupError, Forbidden, KeyNeeded
from backup.forms import LabelForm, PinForm, UndoForm
from backup.log import log
from backup.presentation.kept import verdict_in_words
from backup.proof import Verdict
from backup.storage import kept as kept_backups

from .answers import attachment, done, error_page, key_needed_page, log_refusal, not_done, result_of
from .automatic import copy_soon
from .front_page import invalid
from .guard import endpoint
from .reporter import StateReporter


@endpoint("GET", "HEAD")
def kept(request: HttpRequest, name: str) -> HttpResponseBase:
    """Send a kept backup with its photos, under the name that a download at that time would have had."""
    file = services.open_whole(name, request.user)
    try:
        moment = kept_backups.parse(name).created
        response = attachment(request, file, services.backup_name(request.user, moment))
    except BaseException:
        file.close()
        raise
    if request.method == "GET":
        log(f"download of {name}", request.user)
    return response


@endpoint("POST")
def empty_missing(request: HttpRequest) -> HttpResponseBase:
    """Clear the fields that name a photo which does not exist."""
    try:
        result = services.empty_missing_files(user=request.user)
    except BackupError as error:
        return not_done(request, error)
    emptied = " ".join([_("The fields of missing photos are empty now."), *result.warnings])
    return done(request, result.as_json(), emptied if result.safety_copy else _("No photo is missing."))


@endpoint("POST")
def delete(request: HttpRequest, name: str) -> HttpResponseBase:
    """Delete a kept backup."""
    try:
        former = kept_backups.delete(name)
    except BackupError as error:
        return not_done(request, error)
    finally:
        copy_soon()  # it deletes what was still on its way
    log(f"deletion of {name}", request.user)
    text = _("The backup is deleted.")
    if former:
        left = _("A copy is left in “%(names)s”, and is deleted when BACKUP_LOCATIONS names that again.")
        text = f"{text} {left % {'names': '”, “'.join(former)}}"
    return done(request, None, text)


@endpoint("POST")
def label(request: HttpRequest, name: str) -> HttpResponseBase:
    """Give a kept backup another label, or none."""
    form = LabelForm(request.POST)
    if not form.is_valid():
        return invalid(request, form)
    try:
        stored = kept_backups.note(name, label=form.cleaned_data["label"])
    except BackupError as error:
        return not_done(request, error)
    log(f"another label of {name}", request.user)
    return done(request, stored.as_json(), _("The label is saved."))


@endpoint("POST")
def pin(request: HttpRequest, name: str) -> HttpResponseBase:
    """Pin a kept backup, so that no rule removes it, or unpin it."""
    form = PinForm(request.POST)
    if not form.is_valid():
        return invalid(request, form)
    try:
        stored = kept_backups.pin(name, form.cleaned_data["pinned"])
    except BackupError as error:
        return not_done(request, error)
    copy_soon()
    log(f"{'pinning' if stored.pinned else 'unpinning'} of {name}", request.user)
    message = _("This backup is pinned: it stays until somebody deletes it.")
    return done(
        request, stored.as_json(), message if stored.pinned else _("This backup is no longer pinned.")
    )


@endpoint("POST")
def prove(request: HttpRequest, name: str) -> HttpResponseBase:
    """Prove a kept backup: restore it into a throw-away database, and compare every value."""
    try:
        proof = services.prove_kept(name, user=request.user)
        automatic.notify_of_proof()
        stored = kept_backups.find(name)
    except BackupError as error:
        return not_done(request, error)
    level = messages.SUCCESS if proof.verdict is Verdict.PROVED else messages.ERROR
    return done(request, stored.as_json(), verdict_in_words(proof, stored), level)


def _typed_key(request: HttpRequest, name: str | None) -> Key | None:
    typed = request.POST.get("key", "").strip()
    if not typed:
        return None
    with kept_backups.open_backup(name or services.safety_copy_to_undo()) as source:
        return services.typed_key(typed, source)


@endpoint("POST")
def undo(request: HttpRequest) -> HttpResponseBase:
    """Undo the last restore; or, with a `safety_copy`, go back to that one, with `last` only if it is that of the last
    restore: a page may be older than another restore."""
    name = request.POST.get("safety_copy") or None
    form = UndoForm(request.POST)
    if not form.is_valid():
        return invalid(request, form)
    reporter = StateReporter(request.POST.get("follow", ""), request.user)
    try:
        with reporter:
            result = reporter.finish(
                services.undo_restore(
                    safety_copy=name,
                    only_last=bool(form.cleaned_data["last"]),
                    user=request.user,
                    reporter=reporter,
                    key=_typed_key(request, name),
                ),
                undone=True,
            )
    except BackupError as error:
        if isinstance(error, KeyNeeded) and not access.wants_json(request):
            log_refusal(request, error)
            fields = {field: request.POST.get(field, "") for field in ("safety_copy", "last", "follow")}
            return key_needed_page(request, error, reverse("backup:undo"), fields)
        if isinstance(error, Forbidden) and not access.wants_json(request):
            log_refusal(request, error)
            return error_page(request, error, copy=name or services.safety_copy_to_undo())
        return not_done(request, error)
    return result_of(request, result, undone=True, follow=request.POST.get("follow", ""))

"""The page of the key of encrypted backups: the kit, to print or save, and a new key."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _

from backup import access
from backup.conf import conf
from backup.exceptions import BackupError, EncryptionUnavailable, WrongKey
from backup.forms import KeyForm
from backup.kit import Kit, kit, new_key, note_key, only_superusers

from .answers import done, not_done, page
from .front_page import invalid
from .guard import endpoint

try:
    import segno
except ImportError:  # the extra "encryption" is not installed
    segno = None  # type: ignore[assignment]


@endpoint("GET", "HEAD", "POST")
def key(request: HttpRequest) -> HttpResponseBase:
    """Show the kit; with `new=true`, make a new key first; with `last_group`, note that the kit is kept elsewhere."""
    try:
        only_superusers(request.user)
        return _change(request) if request.method == "POST" else _show(request)
    except BackupError as error:
        return not_done(request, error)


def _change(request: HttpRequest) -> HttpResponseBase:
    form = KeyForm(request.POST)
    if not form.is_valid():
        return invalid(request, form)
    if form.cleaned_data["new"]:
        new_key(request.user)
    elif note_key(form.cleaned_data["last_group"], request.user):
        if not access.wants_json(request):
            return done(
                request, None, _("The key is kept elsewhere, too: its backups can be opened anywhere.")
            )
    elif access.wants_json(request):
        raise WrongKey(_("This is not the last group of the key."))
    else:
        return _show(request, status=400)
    return _show(request) if access.wants_json(request) else redirect("backup:key")


def _show(request: HttpRequest, status: int = 200) -> HttpResponseBase:
    """Show the kit. A script is not told the key itself: whoever has a token need not have that."""
    try:
        found: Kit | None = kit(request.user)
    except EncryptionUnavailable:
        found = None
    if access.wants_json(request):
        return JsonResponse(
            {
                "key_id": found.key.id if found else None,
                "made": found.made if found else None,
                "noted": bool(found and found.is_noted),
            }
        )
    context: dict[str, Any] = {
        "kit": found,
        "qr_code": _qr_code(found.key.text) if found else "",
        "address": request.build_absolute_uri("/"),
        "is_wrong": status != 200,
        "is_configured": bool(conf.key),
    }
    return page(request, "key", context, status)


def _qr_code(text: str) -> SafeString:
    """Return an image of the text; "" without the library. The text is a key of ours, never from a file."""
    if segno is None:
        return SafeString("")
    return mark_safe(segno.make(text, error="q").svg_inline(scale=5, light="#fff"))

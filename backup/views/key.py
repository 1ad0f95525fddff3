"""The page about the key of encrypted backups: shows the kit, to print or save, and makes a new key."""

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


@endpoint("GET", "HEAD", "POST")
def key(request: HttpRequest) -> HttpResponseBase:
    """Show the kit. `new=true` makes a new key first; `last_group` notes that the kit is kept somewhere else, too."""
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
    """Show the kit. A script does not get the key itself: an API token must not be enough to read it."""
    try:
        current_kit: Kit | None = kit(request.user)
    except EncryptionUnavailable:
        current_kit = None
    if access.wants_json(request):
        return JsonResponse(
            {
                "key_id": current_kit.key.id if current_kit else None,
                "made": current_kit.made if current_kit else None,
                "noted": bool(current_kit and current_kit.is_noted),
            }
        )
    context: dict[str, Any] = {
        "kit": current_kit,
        "qr_code": _qr_code(current_kit.key.text) if current_kit else "",
        "address": request.build_absolute_uri("/"),
        "is_wrong": status != 200,
        "is_configured": bool(conf.key),
    }
    return page(request, "key", context, status)


def _qr_code(text: str) -> SafeString:
    """Return an SVG image of a text; "" without the library. The text is a key of this server, never from a file."""
    try:
        import segno  # only now, since it takes a tenth of a second, in each command, too
    except ImportError:  # the extra "encryption" is not installed
        return SafeString("")
    return mark_safe(segno.make(text, error="q").svg_inline(scale=5, light="#fff"))

"""Downloads of a new backup."""

from __future__ import annotations

import tempfile
from functools import partial
from typing import BinaryIO, cast

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from backup import services
from backup.forms import YES, DownloadForm

from .answers import attachment
from .front_page import invalid
from .guard import endpoint


@endpoint("GET", "HEAD")
def download(request: HttpRequest) -> HttpResponseBase:
    """Make a backup and send it. Nothing of it stays on the server."""
    form = DownloadForm(request.GET)
    if not form.is_valid():  # a typing error must not result in an unencrypted backup
        return invalid(request, form)
    name = services.backup_name(request.user)
    leave_out = request.GET.get("leave_out", "").lower() in YES
    # The file has no name on the disk, so nobody else can open it, and it is gone when the answer is sent.
    file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115  the answer closes it
    try:
        metadata = services.create_backup(file, user=request.user, leave_out=leave_out, **form.cleaned_data)
    except BaseException:
        file.close()
        raise
    response = attachment(request, file, name, partial(services.note_backup, metadata, request.user))
    for header, places in (("Left-Out", metadata.left_out), ("Dangling", metadata.dangling)):
        if places:
            response[f"X-Backup-{header}"] = str(places.total)
    if metadata.warnings:
        response["X-Backup-Warnings"] = str(len(metadata.warnings))
    return response

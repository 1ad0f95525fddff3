"""Downloads of a new backup."""

from __future__ import annotations

import tempfile
from functools import partial
from typing import BinaryIO, cast

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from backup import services

from .answers import attachment
from .guard import endpoint


@endpoint("GET", "HEAD")
def download(request: HttpRequest) -> HttpResponseBase:
    """Make a backup and send it. Nothing of it stays on the server."""
    name = services.backup_name(request.user)
    # The file has no name on the disk, so nobody else can open it, and it is gone when the answer is sent.
    file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115  the answer closes it
    try:
        metadata = services.create_backup(file, user=request.user)
    except BaseException:
        file.close()
        raise
    return attachment(request, file, name, partial(services.note_backup, metadata, request.user))

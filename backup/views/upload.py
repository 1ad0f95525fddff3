"""Uploads in pieces, which pass web servers that only accept small requests, and can be resumed.

They implement the core of the protocol tus 1.0.0, with its extensions creation and termination. The page's script sends
pieces by POST instead of PATCH, since some proxies do not know PATCH.
"""

from __future__ import annotations

import base64
import re

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.translation import gettext as _

from backup import access
from backup.exceptions import BackupError, InvalidBackup
from backup.storage import uploads

from .answers import json_of_error, log_refusal
from .guard import endpoint


@endpoint("POST")
def upload(request: HttpRequest) -> HttpResponseBase:
    """Begin an upload of `Upload-Length` bytes. The answer contains the address to send them to."""
    try:
        size = _number(request, "Upload-Length")
        access.check_size(size)
        upload_id = uploads.begin(size, request.user, _sha256(request))
    except BackupError as error:
        return _refused(request, error)
    response = _where(upload_id, size, 0, status=201)
    response["Location"] = reverse("backup:upload_piece", args=[upload_id])
    return response


@endpoint("GET", "HEAD", "PATCH", "POST", "DELETE")
def piece(request: HttpRequest, upload: str) -> HttpResponseBase:
    """Store the piece of an upload that begins at `Upload-Offset`, tell how much has arrived, or discard the upload."""
    try:
        incoming_upload = uploads.incoming(upload, request.user)
        if request.method == "DELETE":
            uploads.discard(upload, request.user)
            return _spoken(HttpResponse(status=204))
        if request.method in ("GET", "HEAD"):
            return _where(upload, incoming_upload.size, incoming_upload.offset)
        offset = _number(request, "Upload-Offset")
        incoming_upload.check_offset(offset)  # before the body is read
        with access.read_piece(request, incoming_upload.size - offset) as body:
            offset = uploads.add_piece(upload, request.user, offset, body)
    except BackupError as error:
        return _refused(request, error)
    return _where(upload, incoming_upload.size, offset, status=204)


def _where(upload_id: str, size: int, offset: int, status: int = 200) -> HttpResponse:
    """Return an answer that says how much of an upload has arrived."""
    response = HttpResponse(status=204)
    if status != 204:
        response = JsonResponse({"upload": upload_id, "size": size, "offset": offset}, status=status)
    response["Upload-Length"], response["Upload-Offset"] = str(size), str(offset)
    return _spoken(response)


def _refused(request: HttpRequest, error: BackupError) -> HttpResponse:
    """Return the answer to an error, always as JSON: these addresses are not pages."""
    log_refusal(request, error)
    return _spoken(json_of_error(error))


def _spoken(response: HttpResponse) -> HttpResponse:
    response["Tus-Resumable"] = "1.0.0"
    return response


def _number(request: HttpRequest, header: str) -> int:
    text = request.headers.get(header, "")
    if not re.fullmatch(r"\d{1,15}", text, re.ASCII):
        raise InvalidBackup(_("The header %(name)s must be a number of bytes.") % {"name": header})
    return int(text)


def _sha256(request: HttpRequest) -> str:
    """Return the checksum of the whole upload, in hexadecimal, from `Upload-Metadata: sha256 BASE64`; "" without one.

    As the protocol demands, the value is in base64; decoded, it is the hexadecimal digits.
    """
    for pair in request.headers.get("Upload-Metadata", "").split(","):
        name, _space, value = pair.strip().partition(" ")
        if name == "sha256":
            try:
                text = base64.b64decode(value, validate=True).decode("ascii")
            except ValueError:  # not base64, or not ASCII
                text = ""
            if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
                raise InvalidBackup(_("A checksum must be sha256, in hexadecimal digits."))
            return text
    return ""

"""Decides who may use the app and in which form they get answers, and reads uploads. Every view uses it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import tempfile
import time
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from django.apps import apps
from django.conf import settings
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, MemoryFileUploadHandler
from django.core.handlers.wsgi import LimitedStream
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.http.response import HttpResponseBase
from django.template.defaultfilters import filesizeformat
from django.urls import get_callable, get_resolver
from django.utils.translation import gettext as _
from rest_framework.authentication import CSRFCheck, TokenAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed

from backup.conf import MIB, conf
from backup.exceptions import InvalidBackup, StorageFailed, TooLarge, WrongChecksum, WrongSettings
from backup.storage.uploads import incomplete

#: The most bytes of a form, without the file in it.
FORM_SIZE = MIB
CHUNK = 64 * 1024
#: For how many seconds somebody with access, and a stranger, may go on sending after the answer; within how many CHUNK
#: bytes must arrive.
DRAIN, STRANGER_SENDS, STALLS = 10, 2, 0.5


def is_allowed(user: object) -> bool:
    """Tell whether a user may back up and restore: staff, or only superusers if BACKUP_REQUIRE_SUPERUSER is set."""
    try:
        superusers_only = conf.require_superuser
    except WrongSettings:
        # Every page of the host calls this for its menu, so it must not fail. Take the stricter setting.
        superusers_only = True
    return bool(
        getattr(user, "is_active", False)
        and getattr(user, "is_staff", False)
        and (not superusers_only or getattr(user, "is_superuser", False))
    )


def sends_token(request: HttpRequest) -> bool:
    """Tell whether a request has a header `Authorization: Token …`. Other schemes (a proxy's Basic) are ignored.

    It is read as REST framework does, in bytes: as a text, there are more kinds of white space in it.
    """
    return get_authorization_header(request).lower().split()[:1] == [b"token"]  # type: ignore[arg-type]


def wants_json(request: HttpRequest) -> bool:
    """Tell whether to answer in JSON: to clients that send a token or accept JSON before HTML."""
    if sends_token(request):
        return True
    for media_type in request.headers.get("Accept", "").split(","):
        name = media_type.split(";")[0].strip().lower()
        if name == "application/json":
            return True
        if name in ("text/html", "application/xhtml+xml"):
            return False
    return False


def sign_in_by_token(request: HttpRequest) -> str | None:
    """Set `request.user` to the token's user. Returns None, or the reason why the token is not valid."""
    if not apps.is_installed("rest_framework.authtoken"):
        return _("API tokens are not enabled on this server.")
    try:
        signed_in = TokenAuthentication().authenticate(request)  # type: ignore[arg-type]  # reads META only
    except AuthenticationFailed as error:
        return str(error.detail)
    assert signed_in is not None  # with a header of this scheme it returns a user or raises
    request.user = signed_in[0]
    return None


def csrf_reason(request: HttpRequest) -> str | None:
    """Return the reason why a browser's POST fails the CSRF check; None if it passes."""
    check = CSRFCheck(lambda _: HttpResponse())
    check.process_request(request)
    return check.process_view(request, lambda _: HttpResponse(), (), {})  # type: ignore[return-value]


def is_of_another_site(request: HttpRequest) -> bool:
    """Tell whether a script of another site sent the request: browsers then name the site in `Origin` (CORS).

    A host that lets other sites read its API lets them read every address, so we must refuse them ourselves.
    """
    check = CSRFCheck(lambda _: HttpResponse())
    return "Origin" in request.headers and not check._origin_verified(request)  # type: ignore[attr-defined]


def csrf_page(request: HttpRequest, reason: str) -> HttpResponse:
    """Return the host's page about a failed CSRF check."""
    response: HttpResponse = get_callable(settings.CSRF_FAILURE_VIEW)(request, reason=reason)
    return response


def forbidden_page(request: HttpRequest) -> HttpResponse:
    """Return the host's page for those without access. If `PermissionDenied` were raised, it would come with a body to
    a HEAD, too, and caches could keep it."""
    handler: Callable[..., HttpResponse] = get_resolver().resolve_error_handler(403)
    return handler(request, exception=PermissionDenied())


def read_form(request: HttpRequest) -> None:
    """Read the body of a request with an uploaded file. Raises `TooLarge`, `InvalidBackup`, `StorageFailed`."""
    try:
        announced = int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        announced = 0
    if announced > FORM_SIZE and announced > conf.max_upload_size + FORM_SIZE:  # a form needs no such setting
        check_size(announced)
    with contextlib.suppress(AttributeError):  # a middleware has read it already
        request.upload_handlers = [MemoryFileUploadHandler(request), NamelessUploadHandler(request)]
    try:
        request.POST.get("")
    except (MultiPartParserError, BadRequest, SuspiciousOperation, UnreadablePostError, LookupError) as error:
        # A LookupError: its header names a charset that Python knows, but that is none of texts, such as hex.
        raise incomplete() from error
    except OSError as error:
        raise _not_kept(error) from error


def read_piece(request: HttpRequest, most: int) -> BinaryIO:
    """Read the raw body of a request into a temporary file without a name, which the caller closes.

    `most`: the most bytes. If the connection breaks off, the file has what arrived until then. Raises `TooLarge` if
    there is more, `StorageFailed`, and `WrongChecksum` if the body does not match the checksum in the header
    `Upload-Checksum: sha256 BASE64`.
    """
    kind, _space, wanted = request.headers.get("Upload-Checksum", "").partition(" ")
    if kind not in ("", "sha1", "sha256"):
        raise unknown_checksum()
    digest = hashlib.new(kind or "sha1", usedforsecurity=False)
    piece = cast(BinaryIO, tempfile.TemporaryFile(dir=settings.FILE_UPLOAD_TEMP_DIR))  # noqa: SIM115
    try:
        with contextlib.suppress(UnreadablePostError):
            while chunk := request.read(CHUNK):
                if piece.tell() + len(chunk) > most:
                    raise TooLarge(_("This piece is longer than what is missing of the file."))
                digest.update(chunk)
                piece.write(chunk)
        piece.seek(0)
        if kind and base64.b64encode(digest.digest()).decode() != wanted:
            raise incomplete(WrongChecksum)
    except OSError as error:
        piece.close()
        raise _not_kept(error) from error
    except BaseException:
        piece.close()
        raise
    return piece


def _not_kept(error: OSError) -> StorageFailed:
    reason = error.strerror or str(error)
    return StorageFailed(_("The server could not keep the uploaded file: %(reason)s.") % {"reason": reason})


class NamelessUploadHandler(FileUploadHandler):
    """Writes a large upload to a temporary file, as Django's own handler does, but without a name.

    Nobody else can open it, and nothing is left if the process dies.
    """

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        self.file = tempfile.TemporaryFile(dir=settings.FILE_UPLOAD_TEMP_DIR)  # noqa: SIM115  the request closes it

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        self.file.write(raw_data)
        return None

    def file_complete(self, file_size: int) -> UploadedFile[bytes]:
        self.file.seek(0)
        return UploadedFile(self.file, self.file_name, self.content_type, file_size, self.charset)

    def upload_interrupted(self) -> None:
        if hasattr(self, "file"):
            self.file.close()


def check_size(size: int) -> None:
    """Raise `TooLarge` if an upload of `size` bytes is larger than BACKUP_MAX_UPLOAD_SIZE."""
    limit = conf.max_upload_size
    if size > limit:
        raise TooLarge(
            _(
                "This file is too large: it has %(size)s, and this server takes up to %(limit)s. "
                "Whoever runs the server can raise that with BACKUP_MAX_UPLOAD_SIZE."
            )
            % {"size": filesizeformat(size), "limit": filesizeformat(limit)}
        )


def drain(request: HttpRequest, response: HttpResponseBase) -> None:
    """Have what nobody has read of the body discarded: see `drop_body`. With other servers it is read now, which may
    wait for the client."""
    stream = getattr(request, "_stream", None)
    if not isinstance(stream, LimitedStream) or getattr(stream, "_pos", 0) >= stream.limit:
        return
    if "gunicorn.socket" in request.META:
        drop_body(request, response, DRAIN)
        return
    until = time.monotonic() + DRAIN
    with contextlib.suppress(UnreadablePostError):
        while time.monotonic() < until and request.read(CHUNK):
            pass


def drop_body(request: HttpRequest, response: HttpResponseBase, seconds: float = STRANGER_SENDS) -> None:
    """Have the body of a request discarded after the answer was sent, without waiting if no data comes.

    If a server closes a connection while the client is still sending, the client reports "connection reset" instead of
    the answer that says that the file is too large or the token wrong. WSGI has no way to stop reading from a client
    that sends nothing, so this needs the socket, which gunicorn provides. With other servers nothing is read.
    """
    connection = request.META.get("gunicorn.socket")
    has_body = (
        request.META.get("CONTENT_LENGTH", "0") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in request.META
    )
    if connection is None or not has_body:
        return
    close = response.close

    def close_after_client() -> None:
        close()
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
            until = time.monotonic() + seconds
            while time.monotonic() < until and _receives(connection):
                pass
            connection.shutdown(socket.SHUT_RDWR)

    response.close = close_after_client  # type: ignore[method-assign]


def _receives(connection: socket.socket) -> bool:
    """Receive and discard CHUNK bytes, and tell whether they arrived within STALLS seconds.

    A client that sends a few bytes now and then would keep the worker busy, too.
    """
    left, until = CHUNK, time.monotonic() + STALLS
    while left > 0:
        connection.settimeout(max(until - time.monotonic(), 0.001))
        try:
            received = len(connection.recv(left))
        except TimeoutError:
            return False
        if not received or time.monotonic() > until:
            return False
        left -= received
    return True


def unknown_checksum() -> InvalidBackup:
    """Return the error for a checksum of an unknown kind."""
    return InvalidBackup(_("A checksum must be sha256 or sha1."))

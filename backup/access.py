"""Who may come in, and in which form they want their answer. Used by every view, and by the menu entry."""

from __future__ import annotations

import contextlib
import tempfile
import time
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, SuspiciousOperation
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, MemoryFileUploadHandler
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.template.defaultfilters import filesizeformat
from django.urls import get_callable
from django.utils.translation import gettext as _
from rest_framework.authentication import CSRFCheck, TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed

from backup.conf import MIB, conf
from backup.exceptions import InvalidBackup, StorageFailed, TooLarge

# What a form weighs beside the file in it.
FORM_SIZE = MIB
CHUNK = 64 * 1024


def is_allowed(user: object) -> bool:
    """Staff; where BACKUP_REQUIRE_SUPERUSER says so, superusers only."""
    try:
        superusers_only = conf.require_superuser
    except ImproperlyConfigured:
        # Called for the menu of every page of the host, none of which may break: the narrower reading.
        superusers_only = True
    return bool(
        getattr(user, "is_active", False)
        and getattr(user, "is_staff", False)
        and (not superusers_only or getattr(user, "is_superuser", False))
    )


def sends_token(request: HttpRequest) -> bool:
    """`Authorization: Token …`. Other schemes (a proxy's Basic) are not ours to judge."""
    return request.headers.get("Authorization", "").lower().split()[:1] == ["token"]


def wants_json(request: HttpRequest) -> bool:
    """Token clients, and whoever names JSON before HTML in `Accept`."""
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
    """Make the token's user the request's; None, or why not."""
    if not apps.is_installed("rest_framework.authtoken"):
        return _("API tokens are not enabled on this server.")
    try:
        signed_in = TokenAuthentication().authenticate(request)  # type: ignore[arg-type]  # reads META only
    except AuthenticationFailed as error:
        return str(error.detail)
    assert signed_in is not None  # for a header of this scheme it answers or raises
    request.user = signed_in[0]
    return None


def csrf_reason(request: HttpRequest) -> str | None:
    """Why this browser's POST is not believed to come from our own page; None where it is."""
    check = CSRFCheck(lambda _: HttpResponse())
    check.process_request(request)
    return check.process_view(request, lambda _: HttpResponse(), (), {})  # type: ignore[return-value]


def is_of_another_site(request: HttpRequest) -> bool:
    """Whether a script on a page of somebody else's asks: browsers name it where its answer is to be read (CORS).

    The host may let other sites read its API, and then lets them read everything.
    """
    check = CSRFCheck(lambda _: HttpResponse())
    return "Origin" in request.headers and not check._origin_verified(request)  # type: ignore[attr-defined]


def csrf_page(request: HttpRequest, reason: str) -> HttpResponse:
    """The host's page about that."""
    response: HttpResponse = get_callable(settings.CSRF_FAILURE_VIEW)(request, reason=reason)
    return response


def read_form(request: HttpRequest) -> None:
    """Take the request's body in, an uploaded file included; none that is too large."""
    try:
        announced = int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        announced = 0
    if announced > conf.max_upload_size + FORM_SIZE:
        check_size(announced)
    with contextlib.suppress(AttributeError):  # where a middleware has read it before
        request.upload_handlers = [MemoryFileUploadHandler(request), NamelessUploadHandler(request)]
    try:
        request.POST.get("")
    except (MultiPartParserError, SuspiciousOperation, UnreadablePostError) as error:
        raise InvalidBackup(_("The upload arrived damaged or incomplete. Please send it again.")) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageFailed(
            _("The server could not keep the uploaded file: %(reason)s.") % {"reason": reason}
        ) from error


class NamelessUploadHandler(FileUploadHandler):
    """Keeps a large upload on the disk as Django's own does, but under no name: nobody else can open it, and when the
    process dies over it nothing is left."""

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
    limit = conf.max_upload_size
    if size > limit:
        raise TooLarge(
            _(
                "This file is too large: it has %(size)s, and this server takes up to %(limit)s. "
                "Whoever runs the server can raise that with BACKUP_MAX_UPLOAD_SIZE."
            )
            % {"size": filesizeformat(size), "limit": filesizeformat(limit)}
        )


def drain(request: HttpRequest, seconds: float = 10) -> None:
    """Read and drop what is left of the body, for some seconds.

    A server that closes a connection while the client still sends makes the client see "connection reset"
    rather than the answer, and the answer is what says that the file is too large or the token wrong.
    """
    until = time.monotonic() + seconds
    with contextlib.suppress(UnreadablePostError):
        while time.monotonic() < until and request.read(CHUNK):
            pass

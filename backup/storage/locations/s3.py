"""S3, and servers with the same API: `s3://KEY:SECRET@BUCKET/PREFIX?endpoint_url=https://…`.

Without key and secret, boto3 uses those of the machine: from environment variables, its configuration files or a role.
"""

from __future__ import annotations

import errno
import re
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO
from xml.parsers.expat import ExpatError, ParserCreate

from django.utils.translation import gettext as _

from ...exceptions import Denied, WrongAddress
from ..bounded import ANSWER, Activity
from .address import parse
from .client import (
    CHUNK,
    HIDDEN,
    Client,
    cannot_work_now,
    does_not_work,
    fetched,
    library,
    listed,
    not_verified,
    part_of,
)

_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidSecurity",
    "ExpiredToken",
    "InvalidToken",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "AccountProblem",
    "NotSignedUp",
}
_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
_FULL = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "ServiceQuotaExceededException"}
#: What a code of S3 looks like: `SlowDown`, `KMS.DisabledException`, `503`. A server may write anything there, such as
#: the key that was sent to it, so nothing else is shown. The ids of keys have no small letters.
_SHOWN = re.compile(r"(?=.*[a-z])[A-Z][A-Za-z.]{1,39}|[0-9]{3}", re.ASCII)
#: Bytes that an answer may have if it is not a file. A page of a list has a thousand names, of some 300 bytes each.
_LONGEST_ANSWER = 4 * 1024 * 1024
#: Elements that it may have. A list of 1,000 names, the most that S3 sends at once, has some 10,000.
_MOST_ELEMENTS = 50_000
#: Of these, a list has at least one, however empty it is, and of whichever version.
_IN_EVERY_LIST = {"IsTruncated", "KeyCount", "Name"}


class S3(Client):
    """Reads and writes objects in a bucket, see `Client`."""

    kind = "S3"

    def __init__(self, text: str) -> None:
        library("boto3", "s3")
        self._address = address = parse(text, "endpoint_url", "region_name", "addressing_style")
        self.target = replace(address.target("endpoint_url"), user="")
        self._prefix = f"{address.path}/" if address.path else ""
        self._endpoint = address.parameters.get("endpoint_url")
        if bool(address.user) != bool(address.password):
            raise WrongAddress(_("Its address has a key without a secret, or the other way round."))
        if address.port is not None:
            raise WrongAddress(
                _("The host in its address is the name of a bucket; a port belongs into endpoint_url.")
            )
        if self._endpoint is not None:
            if not self._endpoint.startswith(("https://", "http://")):
                raise WrongAddress(_("The endpoint_url in its address must begin with https:// or http://."))
            endpoint = parse(self._endpoint)
            if endpoint.user or endpoint.password:
                raise WrongAddress(_("User and password cannot stand in endpoint_url."))
            self.is_open = endpoint.scheme == "http" and not endpoint.is_loopback
        self._client: Any = None

    def write(self, name: str, file: BinaryIO, activity: Activity) -> None:
        from boto3.s3.transfer import TransferConfig

        file.seek(0)
        with errors():
            # In this thread, so that one part at a time is in memory. boto3 removes the parts of a failed upload.
            self._asked().upload_fileobj(
                file, self._address.host, self._key(name), Config=TransferConfig(use_threads=False)
            )

    def read(self, name: str, activity: Activity) -> BinaryIO:
        def fill(copy: BinaryIO) -> None:
            with self._opened(name) as answer:
                for chunk in answer["Body"].iter_chunks(CHUNK):
                    copy.write(chunk)

        return fetched(fill, activity)

    def read_part(self, name: str, start: int, length: int) -> bytes:
        try:
            with self._opened(name, Range=f"bytes={start}-{start + length - 1}") as answer:
                is_part = "ContentRange" in answer  # otherwise the server sends all of the file
                return part_of(answer["Body"].iter_chunks(CHUNK), 0 if is_part else start, length)
        except EOFError:
            return b""

    def size(self, name: str) -> int:
        # Not by a HEAD request: its answer has no body, so different errors could not be told apart.
        try:
            with self._opened(name, Range="bytes=0-0") as answer:
                if "ContentRange" not in answer:
                    return int(answer["ContentLength"])
                return int(answer["ContentRange"].rpartition("/")[2])
        except EOFError:
            return 0

    @contextmanager
    def _opened(self, name: str, **options: Any) -> Iterator[Any]:
        """Yield the answer to a request for a file. Raises `EOFError` if a part begins behind the end of the file."""
        with errors():
            answer = self._asked().get_object(Bucket=self._address.host, Key=self._key(name), **options)
            with closing(answer["Body"]):
                yield answer

    def sizes(self, folder: str, activity: Activity) -> dict[str, int | None]:
        prefix = self._key(f"{folder}/")
        entries = listed(
            (entry["Key"].removeprefix(prefix), entry.get("Size"))
            for page in self._pages(prefix, activity)
            for entry in page.get("Contents", ())
            if entry["Key"].startswith(prefix)  # a server may list others
        )
        return {name: size for name, size in entries if name and not name.startswith(HIDDEN)}

    def folders(self, activity: Activity) -> list[str]:
        return listed(
            entry["Prefix"].removeprefix(self._prefix).rstrip("/")
            for page in self._pages(self._prefix, activity)
            for entry in page.get("CommonPrefixes", ())
            if entry["Prefix"].startswith(self._prefix)
        )

    def _pages(self, prefix: str, activity: Activity) -> Iterator[Any]:
        with errors():
            pages = self._asked().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._address.host, Prefix=prefix, Delimiter="/"):
                activity.check()
                if _IN_EVERY_LIST.isdisjoint(page):  # botocore takes any XML for an empty list
                    raise _no_s3()
                yield page

    def delete(self, name: str) -> None:
        with errors():
            self._asked().delete_object(Bucket=self._address.host, Key=self._key(name))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _key(self, name: str) -> str:
        return self._prefix + name

    def _asked(self) -> Any:
        """Return boto3's client. It is made on its first use, since that takes a while."""
        if self._client is None:
            import boto3
            from botocore.config import Config

            options = {
                "connect_timeout": ANSWER,
                "read_timeout": 3 * ANSWER,  # a server may think about a file that it has received
                "retries": {"total_max_attempts": 2},  # the schedule tries again by itself
                "s3": {"addressing_style": self._address.parameters.get("addressing_style", "auto")},
                # Many servers with the same API do not know the newer checksums of S3.
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            }
            known = Config.OPTION_DEFAULTS
            self._client = boto3.session.Session().client(
                "s3",
                aws_access_key_id=self._address.user or None,
                aws_secret_access_key=self._address.password or None,
                endpoint_url=self._endpoint,
                region_name=self._address.parameters.get("region_name"),
                verify=authorities(),
                config=Config(**{name: value for name, value in options.items() if name in known}),
            )
            self._client._endpoint.http_session = _Session(self._client._endpoint.http_session)
        return self._client


class _Session:
    """Wraps what botocore sends requests with. By itself, it takes every answer that is not a file into memory, however
    long that is and however long it takes."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def send(self, request: Any) -> Any:
        is_for_file, request.stream_output = request.stream_output, True  # it is not read yet
        answer = self._session.send(request)
        if not is_for_file or answer.status_code >= 300:
            answer.raw = _ShortAnswer(answer.raw)
            answer.content  # noqa: B018  it is read here, and kept in the answer
        if (
            request.method == "HEAD"
            and 300 <= answer.status_code < 400
            and "x-amz-bucket-region" not in answer.headers
        ):  # botocore asks so for the region of a bucket, and would ask again without end
            raise does_not_work(str(answer.status_code))
        return answer

    def close(self) -> None:
        self._session.close()


class _ShortAnswer:
    """The body of an answer that is not a file."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def stream(self) -> Iterator[bytes]:
        """Yield the body. Raises `WrongAddress` if it is too long, `TimeoutError` if it takes too long."""
        size, until = 0, time.monotonic() + ANSWER
        check = _Check()
        for chunk in self._raw.stream():
            size += len(chunk)
            if size > _LONGEST_ANSWER or not check.passes(chunk):
                self._raw.close()
                raise _no_s3()
            if time.monotonic() > until:
                self._raw.close()
                raise TimeoutError
            yield chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


class _Check:
    """Tells whether an answer takes much more memory than it has bytes: each of its elements does, and with a document
    type some letters can stand for a million."""

    def __init__(self) -> None:
        self._elements = 0
        self._has_doctype = self._is_at_end = False
        self._parser = ParserCreate("utf-8")
        self._parser.StartElementHandler = self._count
        self._parser.StartDoctypeDeclHandler = self._refuse

    def _count(self, *_element: Any) -> None:
        self._elements += 1

    def _refuse(self, *_parts: Any) -> None:
        self._has_doctype = True
        raise ValueError  # what follows must not be parsed

    def passes(self, chunk: bytes) -> bool:
        """Add a part of the answer, and tell whether it may be read so far."""
        if not self._is_at_end:
            try:
                self._parser.Parse(chunk)
            except (ExpatError, ValueError):  # botocore reads no more of it, either
                self._is_at_end = True
        return not self._has_doctype and self._elements <= _MOST_ELEMENTS


def _no_s3() -> WrongAddress:
    return WrongAddress(_("What answers at its address does not speak S3."))


def authorities() -> str | bool:
    """Return the path of the certificate authorities that this system trusts; if it has none, True, which means those
    of the library."""
    paths = ssl.get_default_verify_paths()
    for path in (paths.cafile, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"):
        if path and Path(path).is_file():
            return path
    return True


def _code(error: Exception) -> str:
    """Return the code in an error of S3; "" if it is another error."""
    with suppress(AttributeError, KeyError, TypeError):
        return str(error.response["Error"]["Code"])  # type: ignore[attr-defined]
    return ""


def _status(error: Exception) -> int:
    with suppress(AttributeError, KeyError, TypeError, ValueError):
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"])  # type: ignore[attr-defined]
    return 0


@contextmanager
def errors() -> Iterator[None]:
    """Raise boto3's errors as a `Client` should. They are recognised by their shape; other errors pass."""
    try:
        yield
    except Exception as error:
        translated = _client_error(error)
        if translated is error:
            raise
        raise translated from None


def _client_error(error: Exception) -> Exception:
    code, status = _code(error), _status(error)
    if code:
        return _error_for(code, status)
    exceptions = sys.modules.get("botocore.exceptions")
    if exceptions is None or not isinstance(error, exceptions.BotoCoreError | exceptions.ClientError):
        if not type(error).__module__.startswith("urllib3."):
            return error
        # What urllib3 raises while an answer is read.
        return TimeoutError() if "Timeout" in type(error).__name__ else ConnectionError()
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return WrongAddress(_("Its address has no key and secret, and this machine has none of its own."))
    if isinstance(error, exceptions.SSLError):
        return not_verified(error)
    if isinstance(error, exceptions.ConnectTimeoutError | exceptions.ReadTimeoutError):
        return TimeoutError()
    if isinstance(
        error, exceptions.ConnectionError | exceptions.HTTPClientError | exceptions.IncompleteReadError
    ):
        return ConnectionError()
    if isinstance(error, exceptions.ParamValidationError | exceptions.InvalidRegionError):
        return WrongAddress(_("The name of the bucket, or of the region, in its address cannot be right."))
    return does_not_work(type(error).__name__)


def _error_for(code: str, status: int) -> Exception:
    """Return the error for an answer. `code`: S3's code; for an answer without a body, its status."""
    if code == "NoSuchBucket":
        return WrongAddress(_("There is no bucket of the name that its address has."))
    if code in ("InvalidBucketName", "InvalidURI"):
        return WrongAddress(_("The name of the bucket in its address cannot be right."))
    if code in _REGION:
        return WrongAddress(_("The bucket is in another region. Add region_name to its address."))
    if code == "InvalidRange":
        return EOFError()
    if code in ("NoSuchKey", "NotFound", "404"):
        return FileNotFoundError()
    if code in _CREDENTIALS:
        return Denied(
            _("It does not accept key and secret (%(code)s). Correct them in its address.") % {"code": code}
        )
    if code == "RequestTimeTooSkewed":
        return Denied(_("It refuses requests since the clock of this server is wrong. Set the clock."))
    if code in _FULL or status == 507:
        return OSError(errno.ENOSPC, "")
    if status in (401, 403, 405) or code in ("AccessDenied", "403"):
        return PermissionError()
    shown = code if _SHOWN.fullmatch(code) else str(status)
    if status in (429, 500, 502, 503, 504):
        return cannot_work_now(shown)
    return does_not_work(shown)

"""Tells people and programs when automatic backups begin to fail, and when they work again.

An error while sending a notice is logged and never makes a backup fail. Of an address only the host is logged: the rest
may be a secret. The next run sends a notice again that was refused, or whose server cannot be reached. One whose time
was up may have arrived, and is not sent again: a slow server would get it with each run. A ping of a success that does
not arrive, or whose time was up, is repeated soon after the run, up to three times: a service that waits for it would
sound the alarm, and to get it twice does no harm.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings
from django.core import mail
from django.db import Error
from django.utils.translation import gettext as _

from .. import babybuddy
from ..conf import OFF, conf
from ..exceptions import WrongSettings
from ..log import logger
from ..storage.bounded import Activity, DoesNotAnswer, bounded
from .status import State, Status

#: Seconds to wait for a server to say anything, and for all that it says.
TIMEOUT, WHOLE = 10.0, 20.0
#: Seconds that all notices of a run in a request may take together, and what each gets once they are up: a server ends
#: a request that takes too long, and one slow address must not keep the other notices back.
TOGETHER, LITTLE = 12.0, 1.0
#: The seconds that are left for them; None if nobody waits.
_left: ContextVar[float | None] = ContextVar("seconds left for notices", default=None)
#: Backends of Django that send no mail to anybody. The first is Baby Buddy's without EMAIL_HOST.
_SENDS_NOTHING = {f"django.core.mail.backends.{name}.EmailBackend" for name in ("console", "dummy")}


@contextmanager
def in_request() -> Iterator[None]:
    """Bound the time of all notices that are sent in the block together: somebody waits for the answer."""
    token = _left.set(TOGETHER)
    try:
        yield
    finally:
        _left.reset(token)


def mail_to_all(status: Status) -> bool:
    """Send a change of state to BACKUP_NOTIFY. Returns False if no server took any mail, if the settings name none, if
    nobody has an address, or if nobody knows to whom to send it, since the database does not answer."""
    try:
        addresses = _addresses()
    except Error as error:
        logger.warning("nobody to send a notice to: %s", type(error).__name__)
        return False
    if addresses is None:
        return True
    return bool(addresses) and not _sends_nothing() and _mail(addresses, status)


def post(status: Status) -> bool:
    """Send a change of state to BACKUP_WEBHOOK_URL. Returns False if it does not take it."""
    url = _address("webhook_url")
    return not url or _ask(url, json.dumps(status.as_json()).encode())


def ping(suffix: str = "") -> bool:
    """Request BACKUP_PING_URL for a run. `suffix`: "/start", "/fail", or "" after a success. Returns False if that did
    not work."""
    url = _address("ping_url")
    if not url:
        return True
    parts = urlsplit(url)
    return _ask(urlunsplit(parts._replace(path=parts.path.rstrip("/") + suffix if suffix else parts.path)))


def what_mail_lacks(*, asks_database: bool = True) -> str:
    """Return what mails lack: "server", as in Baby Buddy without EMAIL_HOST, or "recipients", if nobody has an address,
    unless programs are told; "sender", as in Baby Buddy without EMAIL_FROM and EMAIL_HOST_USER; "" if nothing, or if
    there is nothing to tell.

    `asks_database`: for recipients; without it, or if it does not answer, there are some. If a setting of ours is
    wrong, that is told instead.
    """
    try:
        if conf.notify == [OFF] or (conf.schedule == OFF and not conf.locations):
            return ""
        tells_programs = bool(conf.webhook_url or conf.ping_url)
        if _sends_nothing():
            return "" if tells_programs else "server"
    except WrongSettings:
        return ""
    if asks_database and not tells_programs:
        with suppress(Error):
            if not _addresses():
                return "recipients"
    return "" if settings.DEFAULT_FROM_EMAIL else "sender"


def _address(name: str) -> str:
    """Return the address in a setting; "" if there is none, or a wrong one, of which the others are told."""
    try:
        return str(getattr(conf, name))
    except WrongSettings:
        return ""


def _addresses() -> list[str] | None:
    """Return to whom mails are sent; None if nobody wants any."""
    try:
        chosen = conf.notify
    except WrongSettings:
        chosen = []
    return None if chosen == [OFF] else chosen or babybuddy.superuser_addresses()


def _mail(addresses: Iterable[str], status: Status) -> bool:
    """Send a mail to each address separately, so that the recipients do not see each other, over one connection if
    nothing goes wrong with it. Returns whether a server took any of them, or may have."""
    if status.lasting and not status.state.is_trouble:
        subject = _("Baby Buddy: copies of the backups fail")
    elif status.state is State.OK:
        subject = _("Baby Buddy: automatic backups work again")
    elif status.state is State.SHRUNK:
        subject = _("Baby Buddy: entries are fewer than in the backup before")
    else:
        subject = _("Baby Buddy: automatic backups need your attention")
    sender = (
        settings.DEFAULT_FROM_EMAIL
    )  # without one, the recipient: mail servers refuse mail without a sender
    messages = [
        mail.EmailMessage(subject, status.message, sender or address, [address])
        for address in dict.fromkeys(addresses)
    ]
    connection: Any = None
    is_told = False
    for message in messages:
        is_open = False
        try:
            connection = connection or _connection()
            _bounded(connection, connection.open)  # unless it is
            is_open = True
            _bounded(connection, connection.send_messages, [message])
            is_told = True
        except Exception as error:  # noqa: BLE001  any mail backend may be configured
            host = message.to[0].rpartition("@")[2]
            logger.warning("a notice could not be sent by mail to …@%s: %s", host, type(error).__name__)
            is_late = _is_late(error)
            if is_late and not is_open:
                return is_told  # the others would wait as long
            is_told = is_told or is_late
            if not isinstance(error, DoesNotAnswer):  # else it is still in use
                _close(connection)
            connection = None  # it may be broken
    _close(connection)
    return is_told


def _mailers() -> dict[str, dict[str, Any]] | None:
    """Return MAILERS, which stands in place of EMAIL_BACKEND since Django 6.1; None if it is not set, or not known."""
    return getattr(settings, "MAILERS", None) if hasattr(mail, "mailers") else None


def _sends_nothing() -> bool:
    """Tell whether the settings name no server for mails."""
    mailers = _mailers()
    if mailers is None:
        return settings.EMAIL_BACKEND in _SENDS_NOTHING
    return "default" not in mailers or mailers["default"].get("BACKEND") in _SENDS_NOTHING


def _connection() -> Any:
    # Django 6.1 warns of get_connection, and has `mailers` in its place.
    connection = mail.mailers.default if hasattr(mail, "mailers") else mail.get_connection()
    if getattr(connection, "timeout", TIMEOUT) is None:
        connection.timeout = TIMEOUT  # type: ignore[attr-defined]
    return connection


def _close(connection: Any) -> None:
    with suppress(Exception):
        _bounded(connection, connection.close)


def _bounded(connection: Any, call: Callable[..., object], *args: Any) -> None:
    def work(activity: Activity) -> None:
        try:
            call(*args)
        except Exception as error:
            if isinstance(error.__context__, TimeoutError):  # of which smtplib makes an error of its own
                raise error.__context__ from error
            raise
        finally:
            if activity.is_abandoned:  # nobody else closes it
                connection.close()

    _in_time(work)


def _in_time(work: Callable[[Activity], object]) -> None:
    """Do `work`, which sends a notice, in the time that is left for it. Raises `DoesNotAnswer`."""
    left = _left.get()
    if left is None:
        bounded(work, WHOLE)
        return
    begin = time.monotonic()
    try:
        bounded(work, max(LITTLE, min(left, WHOLE)))
    finally:
        _left.set(left - (time.monotonic() - begin))


def _is_late(error: Exception) -> bool:
    """Tell whether the time was up. urllib packs the errors of a socket into one of its own."""
    return isinstance(getattr(error, "reason", error), TimeoutError | DoesNotAnswer)


def _ask(url: str, data: bytes | None = None) -> bool:
    """Request an address: by GET, or, with `data`, which is JSON, by POST. Returns whether that worked, or may have."""
    headers = {"User-Agent": "babybuddy-backup"}
    sent: list[bytes] = []
    if data:
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(data))}

    def body(content: bytes) -> Iterator[bytes]:
        sent.append(content)  # it is asked for as soon as there is a connection
        yield content

    try:
        request = urllib.request.Request(url, body(data) if data else None, headers)
        _in_time(lambda _activity: urllib.request.urlopen(request, timeout=TIMEOUT).close())
    except Exception as error:  # noqa: BLE001  what a server on the network answers may be anything
        reason = getattr(error, "code", None) or type(getattr(error, "reason", error)).__name__
        logger.warning("a notice could not be sent to %s: %s", urlsplit(url).hostname, reason)
        return bool(sent) and _is_late(error)
    return True

"""Errors of databases in words for people, and the jobs that have a lock."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from django.db import DatabaseError, InterfaceError, OperationalError
from django.utils.translation import gettext as _

from ..exceptions import Busy, RecordsRefused
from ..tables import MAX_NAMED


class Job(enum.Enum):
    """A job that only one process may do at a time. Each has a lock of its own."""

    RESTORE = "restore"
    AUTOMATIC_BACKUP = "automatic backup"
    #: Changing facts about a kept backup, which only takes a moment.
    NOTE = "note"


class Malformed(DatabaseError):
    """What was read shows that a table is damaged, although the database gave no error."""


@contextmanager
def interface_explained() -> Iterator[None]:
    """Raise an `OperationalError` for what a driver calls an error of its interface. Django does not count these among
    the errors of a database, but psycopg 2 and mysqlclient raise one for every statement on a lost connection, except
    for the first."""
    try:
        yield
    except InterfaceError as error:
        raise OperationalError(*error.args) from error


def reason_of(error: BaseException) -> str:
    """Return the message of a database, on one line of at most 300 characters."""
    args = error.args
    if isinstance(error, UnicodeDecodeError):  # SQLite quotes a damaged schema in its message
        return reason_of(ValueError(error.object.decode(errors="replace")))
    text = str(args[1]) if len(args) == 2 and isinstance(args[0], int) else str(error)
    line = " ".join(text.split())
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
    return text[:300].rstrip(".?") or type(error).__name__


def refuse_records(lines: Sequence[str], offer: str = "") -> None:
    """Raise `RecordsRefused`, unless `lines` is empty. Each line names a record, a field and the reason."""
    if lines:
        raise RecordsRefused(
            _("The database cannot take these records, so nothing was changed:"),
            lines[:MAX_NAMED],
            offer=offer,
        )


def dangling_refusal(lines: Sequence[str], offer: str = "leave_out") -> RecordsRefused:
    """Return the error for dangling references. Each line names one."""
    message = _("These records refer to something that is not there, so nothing was changed:")
    return RecordsRefused(message, lines[:MAX_NAMED], offer=offer)


def refuse_dangling(lines: Sequence[str], offer: str = "leave_out") -> None:
    """Raise the error for dangling references, unless there are none."""
    if lines:
        raise dangling_refusal(lines, offer)


def already_running(job: Job) -> Busy:
    """Return the error for a job that cannot begin since another one of its kind is running."""
    if job is Job.AUTOMATIC_BACKUP:
        return Busy(_("An automatic backup is being made right now."))
    if job is Job.NOTE:
        return Busy(_("Something is being noted about a kept backup right now. Please try again."))
    return Busy(_("Another restore is running; wait until it is done, then try again."))


def somebody_writes() -> Busy:
    """Return the error for a lock that others did not release in time."""
    return Busy(
        _("Others are writing to the database all the time. Nothing was changed; try again in a minute.")
    )

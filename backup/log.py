"""Writes one line to the log for each job: who, what, how much, how long. No secrets, and no content of files."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError
from django.utils.translation import gettext as _

from .database import database_of, interface_explained
from .exceptions import BackupError, StorageFailed

logger = logging.getLogger("backup")
#: What the log calls a job without a user. The child process of automatic backups sets it to `AUTOMATIC`.
nobody, AUTOMATIC = "the command line", "automatic"


@contextmanager
def logged(job: str, user: Any) -> Iterator[Callable[[str], None]]:
    """Log that the job in the block was done, refused or failed. Yields a function that adds a remark to the line.

    Errors of the disk and of the database become a `BackupError`.
    """
    started = time.monotonic()
    remarks: list[str] = []

    def took() -> str:
        return f"{time.monotonic() - started:.1f} s"

    try:
        with as_our_errors():
            yield remarks.append
    except BackupError as error:
        error.logged = True
        database_of().close_if_lost()  # so that the page which tells about the error gets another one
        cause = error.__cause__
        if isinstance(error, StorageFailed) and isinstance(cause, DatabaseError):
            # It may be a fault of ours, such as wrong SQL.
            logger.error("%s by %s failed: %s, %s", job, _name_of(user), type(cause).__name__, took())
        else:
            logger.warning("%s by %s refused: %s, %s", job, _name_of(user), error.code, took())
        raise
    except BaseException as error:
        logger.error("%s by %s failed: %s, %s", job, _name_of(user), type(error).__name__, took())
        raise
    logger.info("%s by %s: %s, %s", job, _name_of(user), ", ".join(remarks), took())


def log(job: str, user: Any, refused: str = "") -> None:
    """Log a job that was refused before it reached `services`. `refused`: the code of the reason."""
    if refused:
        logger.warning("%s by %s refused: %s", job, _name_of(user), refused)
    else:
        logger.info("%s by %s", job, _name_of(user))


def _name_of(user: Any) -> str:
    """Return a user's name, quoted, since it may contain line breaks and worse."""
    if user is None:
        return nobody
    return ascii(user.get_username()) if user.is_authenticated else "nobody known"


@contextmanager
def as_our_errors() -> Iterator[None]:
    """Turn errors of the disk and of the database into errors of ours."""
    try:
        with interface_explained():
            yield
    except OSError as error:  # of temporary files; those of the drivers are others
        raise StorageFailed(
            _("The server cannot store the files that this needs (%(reason)s). Nothing was changed.")
            % {"reason": error.strerror or type(error).__name__}
        ) from error
    except DatabaseError as error:
        raise database_of().trouble(error) from error

"""Opens an SQLite database file of unknown origin, which may be hostile."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from django.db import DatabaseError
from django.utils.translation import gettext as _

from ..exceptions import InvalidBackup
from .errors import reason_of

#: After how many steps they are counted.
STEPS = 10_000
#: How many steps reading takes at most: for the definitions, and for each byte, of which it takes about one.
STEPS_AT_LEAST, STEPS_A_BYTE = 10_000_000, 100
#: The longest value that may always be read. Others are at most twice as long as the file: UTF-16 takes fewer bytes.
MIB = 1024**2


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file for reading. Raises `InvalidBackup` if it cannot be read at all; what is read later has to be read
    inside `damage_explained`.

    Nothing in it is executed: no trigger, no view, and no function except those that reading needs. SQLite opens it for
    writing, but only to apply a journal beside it.
    """
    _refuse_journal_of_several(path)
    log = path.with_name(f"{path.name}-wal")
    size = sum(file.stat().st_size for file in (path, log) if file.exists())
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None)
    with closing(connection):
        with damage_explained():
            for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "ignore_check_constraints=ON"):
                connection.execute(f"PRAGMA {pragma}")
            if _takes_own_json_for_unsafe(connection):
                connection.execute("PRAGMA trusted_schema=ON")
            connection.set_authorizer(_may_only_read)
            connection.set_progress_handler(_Steps(size), STEPS)
            if hasattr(connection, "setlimit"):  # since Python 3.11
                connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(2 * size, MIB))
            shared = connection.execute(
                "SELECT max(name) FROM sqlite_master WHERE rootpage > 0 GROUP BY rootpage HAVING count(*) > 1"
            )
            if shared.fetchall():  # one table would be read as the other
                raise _unreadable(_("two of its tables are in one place"))
        yield connection


class _Steps:
    """Counts the steps of SQLite's machine, and stops it when they are more than reading a file of this size takes.

    A few damaged pages may lead to each other in more ways than there are atoms. Time would not do: it differs from
    machine to machine.
    """

    def __init__(self, size: int) -> None:
        self._left = STEPS_AT_LEAST + STEPS_A_BYTE * size

    def __call__(self) -> bool:
        self._left -= STEPS
        return self._left < 0


#: What SQLite may do with such a file; functions and pragmas by name.
_READING = {
    sqlite3.SQLITE_SELECT: None,
    sqlite3.SQLITE_READ: None,
    sqlite3.SQLITE_TRANSACTION: None,
    sqlite3.SQLITE_FUNCTION: {"count", "coalesce", "length", "max", "min", "sum"},
    sqlite3.SQLITE_PRAGMA: {"table_xinfo", "integrity_check"},
}


def _may_only_read(action: int, first: str | None, second: str | None, *place: object) -> int:
    names = _READING.get(action, ())
    name = second if action == sqlite3.SQLITE_FUNCTION else first
    return sqlite3.SQLITE_OK if names is None or name in names else sqlite3.SQLITE_DENY


def _takes_own_json_for_unsafe(connection: sqlite3.Connection) -> bool:
    """Tell whether the file has a constraint with JSON_VALID, as Django's JSON fields have. SQLite before 3.41
    considers it unsafe. Constraints are not checked while reading, and other functions remain forbidden."""
    try:
        connection.execute("SELECT 1 FROM sqlite_master")
    except sqlite3.DatabaseError as error:
        if "unsafe use of JSON_VALID" in str(error):
            return True
        raise
    return False


#: The last bytes of a journal that names another file.
_NAMES_ANOTHER = bytes.fromhex("d9d505f920a163d7")


def _refuse_journal_of_several(path: Path) -> None:
    """Raise `InvalidBackup` if the journal beside a file is part of a journal of several databases.

    Baby Buddy never writes such a journal. SQLite would delete the file that it names, wherever that is.
    """
    journal = path.with_name(f"{path.name}-journal")
    if not journal.exists():
        return
    with journal.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - len(_NAMES_ANOTHER), 0))
        names_another = file.read() == _NAMES_ANOTHER
    if names_another:
        raise InvalidBackup(_("The journal beside the database file is that of several databases at once."))


@contextmanager
def damage_explained() -> Iterator[None]:
    """Raise `InvalidBackup` for errors of SQLite about a file that it cannot read."""
    try:
        yield
    except (sqlite3.Error, DatabaseError, UnicodeDecodeError) as error:
        raise _unreadable(reason_of(error)) from error


def _unreadable(reason: str) -> InvalidBackup:
    text = _(
        "The database file cannot be read: %(reason)s. If there is a -wal file that belongs beside it, put it there, "
        "and use “manage.py restore”. Else restore an older copy, or what “sqlite3 FILE .recover | sqlite3 NEW” makes "
        "of it."
    )
    return InvalidBackup(text % {"reason": reason})

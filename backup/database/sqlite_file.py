"""What an SQLite database is on the disk: its header, and the files beside it.

Source of the facts: https://www.sqlite.org/fileformat.html
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

#: The first bytes of a database file.
_MAGIC = b"SQLite format 3\0"
#: The position in the header of two bytes with which a file is written and read, and their value for a write-ahead log.
_VERSIONS, _WAL = slice(18, 20), 2
#: Suffixes of the files beside a database that hold a part of it: the write-ahead log, or the rollback journal.
JOURNALS = ("-wal", "-journal")
#: Suffixes of all files beside a database: also an index of the log, which only running processes need.
SIBLINGS = (*JOURNALS, "-shm")


def is_database(source: BinaryIO) -> bool:
    """Tell by its first bytes whether a file is an SQLite database. The position is at the beginning afterwards."""
    source.seek(0)
    magic = source.read(len(_MAGIC))
    source.seek(0)
    return magic == _MAGIC


def uses_log(path: Path) -> bool:
    """Tell whether a database file uses a write-ahead log: by its header, or, if that is damaged, by whether there is
    one. Raises `OSError`."""
    with path.open("rb") as file:
        header = file.read(_VERSIONS.stop)
    return _WAL in header[_VERSIONS] if header.startswith(_MAGIC) else Path(f"{path}-wal").exists()


def lacks_log(path: Path) -> bool:
    """Tell whether a database file uses a write-ahead log that is missing. The log need not have contained anything.
    Raises `OSError`."""
    return uses_log(path) and not Path(f"{path}-wal").exists()


def use_log(path: Path) -> None:
    """Let a database file use a write-ahead log. Raises `sqlite3.Error`."""
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA journal_mode = WAL")


def empty_log(path: Path) -> None:
    """Write what is in the log to the database file, which is then whole without it. Raises `sqlite3.Error`, or
    `UnicodeDecodeError` if the file is damaged."""
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")

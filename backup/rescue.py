"""Makes a restore possible over a database that is damaged, with all of it kept that there is."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from django.db import DatabaseError
from django.db.migrations.recorder import MigrationRecorder
from django.utils.translation import gettext as _

from .database import Database, reason_of
from .exceptions import BackupError, Damaged, StorageFailed
from .options import Reporter
from .tables import Table
from .upgrade import process

#: What the header of a file says that uses a write-ahead log.
_WAL = 2


@dataclass
class Rescue:
    """What was done so that a restore is possible. `safety_copy`: the name of the copy of what could be read; "" where
    nothing could. `warnings`: what was kept, and where."""

    safety_copy: str = ""
    warnings: list[str] = field(default_factory=list)


@contextmanager
def rescued(
    database: Database,
    tables: Sequence[Table],
    reporter: Reporter,
    keep: Callable[[], str],
    *,
    clears: bool,
) -> Iterator[Rescue | None]:
    """Put a new database in the place of a damaged one for the restore that follows; if that fails, the old one is put
    back. If only tables are missing, or a server's are damaged, they are made anew.

    `keep`: keeps what can be read, and returns the name of that copy. `clears`: whether the restore needs nothing of
    what is here. Yields None if there is no such damage. Raises `Damaged` if there is no way.
    """
    damage, missing, damaged = _damage(database, tables)
    if not damage and not missing and not damaged:
        yield None
        return
    if not clears:
        raise Damaged(
            _("The database of this site is damaged, so nothing can be added to it. Clear existing data:"),
            [*damage, *missing, *(f"{name}: {reason}" for name, reason in damaged.items())],
        )
    rescue = Rescue()
    with suppress(BackupError, DatabaseError):  # then the file itself is all that is kept
        rescue.safety_copy = keep()
    path = database.file() if damage else None
    if path is None:
        with database.damage_explained(), database.made_anew(tables, damaged):
            if missing:
                text = _("These tables were missing, and were made anew: %(names)s.")
                rescue.warnings.append(text % {"names": ", ".join(missing)})
            if damaged:
                text = _("These tables were damaged, and were made anew: %(names)s.")
                rescue.warnings.append(text % {"names": ", ".join(damaged)})
            yield rescue
        return
    with process.fresh_database(reporter) as fresh, _replaced(database, path, fresh) as aside:
        rescue.warnings.append(
            _("The database file was damaged, and a new one was made. The old one is kept as %(path)s.")
            % {"path": aside}
        )
        yield rescue


def name_aside(path: Path) -> Path:
    """Return the name under which a database file is kept that is damaged: beside the one in its place."""
    return path.with_name(f"{path.name}-damaged-{dt.datetime.now(dt.timezone.utc):%Y%m%dT%H%M%SZ}")


def _damage(database: Database, tables: Sequence[Table]) -> tuple[list[str], list[str], dict[str, str]]:
    """Return what is wrong with the database as such, the names of missing tables, and those of damaged ones."""
    try:
        return database.damage(tables), [*database.missing_tables(tables)], database.damaged_tables(tables)
    except DatabaseError as error:
        if not database.is_damage(error):
            raise
        return [reason_of(error)], [], {}


@contextmanager
def _replaced(database: Database, path: Path, fresh: Path) -> Iterator[Path]:
    """Put another database file in the place of the site's, and the old one back where that did not help.

    Yields the path of the old one.
    """
    first = _first_migration(database)
    aside = name_aside(path)
    new = path.with_name(f"{path.name}-new")
    database.connection.close()
    try:
        shutil.copyfile(fresh, new)
        if _has_wal(path):
            with closing(sqlite3.connect(new)) as raw:
                raw.execute("PRAGMA journal_mode = WAL")
        with suppress(OSError):
            shutil.copystat(path, new)
        _move(path, aside)
        os.replace(new, path)
    except OSError as error:
        raise StorageFailed(
            _("The server cannot replace the database file (%(reason)s).")
            % {"reason": error.strerror or error}
        ) from error
    try:
        if first is not None:  # so that it stays the same site
            migrations = MigrationRecorder(database.connection).migration_qs
            migrations.filter(pk=migrations.order_by("pk").values_list("pk", flat=True)[0]).update(**first)
        yield aside
    except BaseException:
        database.connection.close()
        _move(aside, path)
        raise


def _has_wal(path: Path) -> bool:
    """Tell whether a database file uses a write-ahead log. Its header says so, as far as that is whole."""
    with path.open("rb") as file:
        header = file.read(20)
    is_whole = header.startswith(b"SQLite format 3\0")
    return header[18] == _WAL if is_whole else Path(f"{path}-wal").exists()


def _first_migration(database: Database) -> dict[str, object] | None:
    with suppress(DatabaseError):
        migrations = MigrationRecorder(database.connection).migration_qs.order_by("pk")
        return migrations.values("app", "name", "applied").first()
    return None


def _move(path: Path, target: Path) -> None:
    """Rename a database file, with what SQLite keeps beside it."""
    for suffix in ("-wal", "-shm", "-journal", ""):
        with suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{target}{suffix}")

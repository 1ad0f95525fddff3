"""Makes it possible to restore over a damaged database, and keeps all that is left of that."""

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

#: The value in the header of a file that uses a write-ahead log.
_WAL = 2


@dataclass
class Rescue:
    """What was done to make a restore possible. `safety_copy`: the name of the copy of what could be read; "" if
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
    """Replace a damaged database file by a new one for the restore in the block; if that fails, put the old one back.
    If only tables are missing, or tables of a server are damaged, create these anew.

    `keep`: makes a copy of what can be read, and returns its name. `clears`: whether the restore does not need existing
    data. Yields None if there is no such damage. Raises `Damaged` if the restore is not possible.
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
    with suppress(BackupError, DatabaseError, UnicodeDecodeError):  # then only the file itself is kept
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
    """Return the path under which a damaged database file is kept, beside the new one."""
    return path.with_name(f"{path.name}-damaged-{dt.datetime.now(dt.timezone.utc):%Y%m%dT%H%M%SZ}")


def _damage(database: Database, tables: Sequence[Table]) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the damage to the database itself, the names of missing tables, and damaged tables: name -> reason."""
    try:
        return database.damage(tables), [*database.missing_tables(tables)], database.damaged_tables(tables)
    except DatabaseError as error:
        if not database.is_damage(error):
            raise
        return [reason_of(error)], [], {}


@contextmanager
def _replaced(database: Database, path: Path, fresh: Path) -> Iterator[Path]:
    """Replace the site's database file by another one; if the block raises an error, put the old one back.

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
        if first is not None:  # the id of the site is made of it
            migrations = MigrationRecorder(database.connection).migration_qs
            migrations.filter(pk=migrations.order_by("pk").values_list("pk", flat=True)[0]).update(**first)
        yield aside
    except BaseException:
        database.connection.close()
        _move(aside, path)
        raise


def _has_wal(path: Path) -> bool:
    """Tell whether a database file uses a write-ahead log, by its header."""
    with path.open("rb") as file:
        header = file.read(20)
    is_whole = header.startswith(b"SQLite format 3\0")
    return header[18] == _WAL if is_whole else Path(f"{path}-wal").exists()


def _first_migration(database: Database) -> dict[str, object] | None:
    with suppress(DatabaseError, UnicodeDecodeError):
        migrations = MigrationRecorder(database.connection).migration_qs.order_by("pk")
        return migrations.values("app", "name", "applied").first()
    return None


def _move(path: Path, target: Path) -> None:
    """Rename a database file, together with the files of SQLite beside it."""
    for suffix in ("-wal", "-shm", "-journal", ""):
        with suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{target}{suffix}")

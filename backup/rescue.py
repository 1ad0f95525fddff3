"""Makes it possible to restore over a damaged database, and keeps all that is left of that."""

from __future__ import annotations

import datetime as dt
import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from django.core.management import call_command
from django.db import DatabaseError
from django.db.migrations.recorder import MigrationRecorder
from django.utils.translation import gettext as _

from .database import Database, memo, reason_of
from .database.sqlite_file import SIBLINGS, empty_log, use_log, uses_log
from .exceptions import BackupError, Damaged, RestoreRefused, StorageFailed
from .options import Reporter, RestoreOptions
from .scope import part_of
from .storage import files
from .storage.atomic import sync_folder
from .tables import MAX_NAMED, Table
from .upgrade import process, schema


@dataclass
class Rescue:
    """What was done to make a restore possible. `safety_copy`: the name of the copy of what could be read; "" if
    nothing could. `damaged`: the tables that the restore has to write. `aside`: where the damaged file is kept; "" if
    none is. `warnings`: what was kept, and where. `finish`: to be called once the restore is committed. Raises
    `StorageFailed`, and then nothing was changed."""

    safety_copy: str = ""
    damaged: Sequence[str] = ()
    aside: str = ""
    warnings: list[str] = field(default_factory=list)
    finish: Callable[[], None] = lambda: None


@contextmanager
def rescued(
    database: Database,
    tables: Sequence[Table],
    options: RestoreOptions,
    reporter: Reporter,
    keep: Callable[[], str],
) -> Iterator[Rescue | None]:
    """Have the restore in the block write to a new file, if the database file is damaged; it takes the place of the old
    one at the end. If only tables are missing, or tables of a server are damaged, let the restore create these anew.

    `keep`: makes a copy of what can be read, and returns its name. Yields None if there is no such damage. Raises
    `RestoreRefused` if the restore is not possible.
    """
    damage, missing, damaged = _damage(database, tables)
    if not damage and not missing and not damaged:
        yield None
        return
    _check_up_to_date(database)
    if not options.mode.clears:
        raise Damaged(
            _("The database of this site is damaged, so nothing can be added to it. Clear existing data:"),
            [*damage, *missing, *(f"{name}: {reason}" for name, reason in damaged.items())],
        )
    staying = {
        name
        for table in tables
        if part_of(table.label) not in options.parts
        for name, _columns in table.db_tables
    }
    if empty := sorted(staying if damage else staying & {*missing, *damaged}):
        text = _(
            "Tables would be empty after this restore, since the database here is damaged. Restore all parts."
        )
        raise Damaged(text, empty[:MAX_NAMED])
    rescue = Rescue(damaged=[*damaged])
    path = database.file() if damage else None
    try:
        rescue.safety_copy = keep()
    except (BackupError, DatabaseError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, BackupError) else reason_of(error)
        if path is None:
            text = _("What can be read of the database here could not be kept first. Nothing was changed.")
            raise Damaged(text, [reason]) from error
        text = _("What could be read of the damaged file could not be kept: %(reason)s")
        rescue.warnings.append(text % {"reason": reason})
    if path is None:
        database.missing = {*missing, *damaged}
        if missing:
            text = _("These tables were missing, and were made anew: %(names)s.")
            rescue.warnings.append(text % {"names": ", ".join(missing)})
        if damaged:
            text = _("These tables were damaged, and were made anew: %(names)s.")
            rescue.warnings.append(text % {"names": ", ".join(damaged)})
        with database.damage_explained(), _emptied_explained(database, rescue):
            yield rescue
        return
    aside = name_aside(path)
    first = _first_migration(database)
    with process.fresh_database(reporter) as fresh, _new_file(database, path, fresh, first) as put_in_place:
        rescue.warnings.append(
            _("The database file was damaged, and a new one was made. The old one is kept as %(path)s.")
            % {"path": aside}
        )
        rescue.aside = str(aside)
        if first is None:
            rescue.warnings += _other_sites_in_words()
        if database.connection.settings_dict["CONN_MAX_AGE"] != 0:
            rescue.warnings.append(_("Restart Baby Buddy: it may still have the old database file open."))
        rescue.finish = partial(put_in_place, aside)
        yield rescue


def _check_up_to_date(database: Database) -> None:
    """Raise `RestoreRefused` if migrations are not applied: a table that one of them makes is not missing. A file that
    is damaged by more than that is replaced by one that is up to date."""
    pending: list[str] = []
    with suppress(DatabaseError):
        pending = [] if database.damage(()) else schema.pending(schema.load_history(database))
    if pending:
        raise RestoreRefused(
            _(
                "This site's own database is not up to date. Run “manage.py migrate” first. If that fails, run it on "
                "a new database, and restore into that. Not applied are:"
            ),
            pending,
        )


@contextmanager
def _emptied_explained(database: Database, rescue: Rescue) -> Iterator[None]:
    """Say in an error of the block which tables were damaged, and are empty after it."""
    try:
        yield
    except BackupError as error:
        names = ", ".join(name for name in rescue.damaged if name not in database.missing)
        if database.ANEW_AT_ONCE and names:
            text = _("These damaged tables are empty now: %(names)s. What could be read is kept as %(copy)s.")
            error.details.insert(0, text % {"names": names, "copy": rescue.safety_copy})
        raise


def _other_sites_in_words() -> list[str]:
    """Return a warning that names the folders of other sites in BACKUP_ROOT; nothing if there are none."""
    folders: list[str] = []
    with suppress(StorageFailed):
        folders = [files.path_of("", site).rstrip("/") for site in files.other_sites()]
    text = _(
        "The damaged file does not say any more which site this is, so it counts as a new one. Backups that were kept "
        "before are not listed, but still in BACKUP_ROOT: look into %(folders)s."
    )
    return [text % {"folders": ", ".join(folders)}] if folders else []


def name_aside(path: Path) -> Path:
    """Return the path under which a damaged database file is kept, beside the new one."""
    return path.with_name(f"{path.name}-damaged-{dt.datetime.now(dt.timezone.utc):%Y%m%dT%H%M%SZ}")


def remove_rest(database: Database) -> None:
    """Delete the new file of a process that was killed while it replaced a damaged one."""
    if path := database.file():
        shutil.rmtree(_folder(path), ignore_errors=True)


def _folder(path: Path) -> Path:
    """Return the folder in which a new file is made: there it has its name already, of which the id of the site is
    made."""
    real = path.resolve()
    return real.with_name(f"{real.name}-anew")


def _damage(database: Database, tables: Sequence[Table]) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the damage to the database itself, the names of missing tables, and damaged tables: name -> reason."""
    try:
        return database.damage(tables), [*database.missing_tables(tables)], database.damaged_tables(tables)
    except DatabaseError as error:
        if not database.is_damage(error):
            raise
        return [reason_of(error)], [], {}


@contextmanager
def _new_file(
    database: Database, path: Path, fresh: Path, first: dict[str, object] | None
) -> Iterator[Callable[[Path], None]]:
    """Use a copy of another database file, beside that of the site, in its stead. `first`: see `_first_migration`.

    Yields a function that ends this: it lets the copy take the place of the site's file, of which it is given the new
    path. Until then, that file stays where it is, so that it is still there if this process is killed.
    """
    real = path.resolve()  # SQLite's own files are beside it, not beside a link to it
    folder = _folder(path)
    new = folder / path.name
    with ExitStack() as stack:
        with _failure_explained():
            remove_rest(database)
            folder.mkdir(0o700)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            shutil.copyfile(fresh, new)
            if uses_log(real):
                use_log(new)
            _look_like(new, real)
        stack.callback(memo.forget_site)
        use = stack.enter_context(ExitStack())
        use.enter_context(database.instead(new))
        memo.forget_site()
        # A migration of the host makes the tables of caches. The process that ran it has other caches than the site.
        call_command("createcachetable", database=database.connection.alias, verbosity=0)
        if first is not None:  # the id of the site is made of it, too
            migrations = MigrationRecorder(database.connection).migration_qs
            migrations.filter(pk=migrations.order_by("pk").values_list("pk", flat=True)[0]).update(**first)

        def put_in_place(aside: Path) -> None:
            use.close()
            memo.forget_site()
            with _failure_explained():
                _replace(real, new, aside)

        yield put_in_place


@contextmanager
def _failure_explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            _("The server cannot replace the database file (%(reason)s).")
            % {"reason": error.strerror or error}
        ) from error


def _replace(path: Path, new: Path, aside: Path) -> None:
    """Put a new database file in the place of another one, and keep that as `aside`. Whenever this process is killed,
    or the power fails, one of the two is there. Raises `OSError`."""
    if Path(f"{new}-wal").exists():  # SQLite could not empty it
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    _sync(new)
    with suppress(sqlite3.Error, UnicodeDecodeError):
        empty_log(path)
    try:
        os.link(path, aside)
    except FileExistsError:
        if not aside.samefile(path):  # a process that was killed has come as far as this
            raise
    except OSError:  # not every file system can do that
        shutil.copyfile(path, aside)
        _look_like(aside, path)
        _sync(aside)
    # SQLite would take them for those of the new file.
    moved = [suffix for suffix in SIBLINGS if Path(f"{path}{suffix}").exists()]
    try:
        for suffix in moved:
            os.replace(f"{path}{suffix}", f"{aside}{suffix}")
        os.replace(new, path)
    except OSError:
        for suffix in moved:
            with suppress(FileNotFoundError):
                os.replace(f"{aside}{suffix}", f"{path}{suffix}")
        aside.unlink()
        raise
    sync_folder(path.parent)


def _sync(file: Path) -> None:
    with file.open("r+b") as opened:
        os.fsync(opened.fileno())


def _look_like(file: Path, other: Path) -> None:
    """Give a file the owner, the mode and the times of another one, as far as this user may."""
    with suppress(OSError):
        shutil.copystat(other, file)
    if os.name != "nt":
        with suppress(OSError):
            info = other.stat()
            os.chown(file, info.st_uid, info.st_gid)


def _first_migration(database: Database) -> dict[str, object] | None:
    """Return the values of the first migration that was applied; None if they cannot be read."""
    with suppress(DatabaseError, UnicodeDecodeError):
        migrations = MigrationRecorder(database.connection).migration_qs.order_by("pk")
        return migrations.values("app", "name", "applied").first()
    return None

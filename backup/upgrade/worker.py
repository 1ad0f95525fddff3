"""Brings a backup or a database file to today's schema: the child process of `process`, `python -m
backup.upgrade.worker`. See `child` for how it gets its order, and what it can access.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from django.apps import apps as live_apps
from django.core.management import call_command
from django.core.management.commands import migrate
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.utils.translation import gettext as _

from .. import babybuddy
from ..archive import Archive, GrowingWriter, Key, Keys, Limits, Metadata, Upgrade, Writer, open_archive
from ..archive.copying import copy_photo
from ..archive.names import shown
from ..conf import conf
from ..database import Database, database_of, refuse_dangling, refuse_records
from ..database.sqlite import SQLite
from ..database.sqlite_file import is_database, lacks_log
from ..dump import gc_paused, unreadable, write_records
from ..exceptions import InvalidBackup, UpgradeFailed
from ..kinds import DATE, DATETIME, TIME, UUID_
from ..options import Place, Places, RecordCounter, Reporter
from ..scope import models_in_scope
from ..tables import Batch, Row, Table, place_of
from . import process, schema
from .building import build_schema, targets_of
from .child import ParentReporter, explained, is_of_migration, serve, start_anew
from .sources import (
    BackupSource,
    DatabaseSource,
    Source,
    apps_in_scope,
    bound_batches,
    installed_apps,
    no_place,
)


def main() -> None:
    def work(order: dict[str, Any], folder: Path, reporter: ParentReporter) -> dict[str, Any]:
        with explained(reporter):
            if order["is_fresh"]:
                migrate_to_newest(reporter)
            else:
                key = Key.parse(order["key"]) if order["key"] else None
                how = {name: order[name] for name in ("edited", "leave_out", "is_read_meanwhile")}
                # Before SQLite makes one, or removes it.
                how["lacks_log"] = lacks_log(folder / process.SOURCE)
                try:
                    upgrade(folder, reporter, key=key, **how)
                except Exception as error:
                    if not is_of_migration(error, reporter):
                        raise
                    # It may need something that a migration before it made, and that no model shows.
                    start_anew(folder)
                    upgrade(folder, reporter, key=key, one_by_one=True, **how)
        return {}

    serve(work)


def upgrade(
    folder: Path,
    reporter: ParentReporter,
    *,
    edited: bool = False,
    leave_out: bool = False,
    key: Key | None = None,
    is_read_meanwhile: bool = False,
    lacks_log: bool = False,
    one_by_one: bool = False,
) -> None:
    """Make `UPGRADED` in the folder from `SOURCE`, a backup or a database file of any age.

    `edited`, `leave_out`: see `RestoreOptions`. `key`: of both files, if they are encrypted. `is_read_meanwhile`: make
    `GROWING` instead if that is possible. `lacks_log`: see `sqlite_file`. `one_by_one`: see `build_schema`.
    """
    path = folder / process.SOURCE
    growing = folder / process.GROWING if is_read_meanwhile else None
    unknown_apps: list[str] = []
    #: What this site has no place for.
    pointless = Places()
    left_out = pointless if leave_out else None
    archive: Archive | None = None
    source: Source
    with path.open("rb") as file, ExitStack() as stack:
        if is_database(file):
            reader = stack.enter_context(SQLite.foreign(path))
            source = DatabaseSource(reader, leave_out=leave_out, lacks_log=lacks_log)
            if source.is_of_today and _write_as_it_is(source, folder, reporter, growing):
                return
            unknown_apps = source.unknown_apps
        else:
            archive = stack.enter_context(
                open_archive(file, edited=edited, lenient=leave_out, keys=Keys(key))
            )
            if leave_out:
                archive.leave_out_damaged()
            source = BackupSource(archive, left_out)
        migrations = schema.known_migrations(source.metadata.migrations, pointless)
        if reason := babybuddy.too_old(migrations):
            raise UpgradeFailed(reason)
        migrations, added_fields = babybuddy.past_obstacles(migrations)
        build_schema(migrations, source.new_apps, reporter, one_by_one=one_by_one)
        gone, lacking = load_rows(source, migrations, added_fields, reporter, left_out)
        source.metadata.left_out.extend(pointless)
        new_apps = schema.new_apps(source.metadata)
        filled: list[Table] = []
        applied = migrate_to_newest(
            reporter,
            lambda: filled.extend(_filled(lambda table: table.app in new_apps or table.label in lacking)),
        )
        made_of_data = _made_of_data(filled)
        metadata = _metadata_of_today(source.metadata, applied, [*unknown_apps, *gone], made_of_data)
        lacking -= made_of_data
        if growing and not growing.exists():
            database, tables = _scratch_database(lacking)
            counts = {table.label: database.count(table) for table in tables}
            _write_growing(growing, metadata, counts, reporter, partial(_write_scratch, database, tables))
            return
        with (folder / process.UPGRADED).open("w+b") as target:
            write_backup(target, archive, metadata, reporter, lacking, leave_out=leave_out, key=key)


def _write_as_it_is(
    source: DatabaseSource, folder: Path, reporter: ParentReporter, growing: Path | None
) -> bool:
    """Write the rows of a database file that is at today's schema.

    Returns whether that is all. Dangling references are left out, or refused, while rows are loaded, so they need the
    full upgrade. Raises `Unreadable`.
    """
    before = source.metadata.babybuddy_version
    upgrade = Upgrade(before, [], source.unknown_apps, [])
    metadata = replace(source.metadata, babybuddy_version=babybuddy.version(), upgraded=upgrade)
    if growing and source.is_whole:
        return not _write_growing(growing, metadata, source.counts(), reporter, source.write)
    with (folder / process.UPGRADED).open("w+b") as target, Writer(target) as writer:
        dangling = source.write(writer, reporter)
        writer.finish(replace(metadata, left_out=source.metadata.left_out))
    return not dangling


def _write_growing(
    path: Path,
    metadata: Metadata,
    counts: dict[str, int],
    reporter: ParentReporter,
    write: Callable[[Writer, Reporter], Places],
) -> Places:
    """Have `write` write the rows to `path`, and report each part to the parent, which reads it at once.

    `counts`: model label -> number of rows. Returns the dangling references.
    """
    with path.open("wb") as target, (writer := GrowingWriter(target, reporter.send)):
        writer.begin(metadata, counts)
        return write(writer, reporter)


# -- the scratch database ---


def load_rows(
    source: Source,
    migrations: dict[str, list[str]],
    added_fields: dict[str, dict[str, Any]],
    reporter: ParentReporter,
    left_out_rows: Places | None = None,
) -> tuple[list[str], set[str]]:
    """Load rows into the scratch database, replacing those that migrations put there.

    `added_fields`: model label -> values of fields that the source does not have. `left_out_rows`: collects dangling
    references, and values that the scratch database cannot hold, which are then left out; None: they are an error.
    References to models that are not among `Source.targets` stay as they are. Returns the labels of models that are not
    in scope here any more: their app is not installed, say; and of those that the site of the source had, and the
    source lacks: `BACKUP_EXCLUDE` named them, say. Raises `InvalidBackup`, `Unreadable`, `RecordsRefused`.
    """
    labels = {*source.begin()}
    loader = MigrationLoader(connection)
    historical = loader.project_state(targets_of(loader, migrations)).apps
    _create_permissions(historical)
    apps = {label.partition(".")[0] for label in labels}
    tables = [
        Table(model)
        for model in models_in_scope(historical, exclude={*conf.exclude} - labels - apps)
        if model._meta.app_label in source.metadata.apps
    ]
    installed = installed_apps()
    left_out = [label for label in source.metadata.models if label.split(".")[0] not in installed]
    for label in labels - {table.label for table in tables} - {*left_out}:
        if left_out_rows is not None:
            left_out_rows.add(no_place(label, None))
            continue
        raise InvalidBackup(
            _("The backup holds records of %(model)s, which its migrations do not know.") % {"model": label}
        )
    database = database_of()
    counts = source.counts()
    counter = RecordCounter(reporter, sum(counts.values()))
    with gc_paused(), database.restoring():
        database.clear(tables)
        for table in tables:
            if table.label not in labels:
                continue
            counter.begin(table.label)
            for batch in source.batches(table, added_fields.get(table.label, {})):
                counter.add(table.label, len(batch[0]))
                if left_out_rows is None:
                    database.insert_batch(table, batch)
                else:
                    rows = _without_what_it_cannot_hold(database, table, batch, left_out_rows)
                    database.insert(table, rows)
        source.complete()
        refuse_records(database.refused, "leave_out" if len(database.refused) == database.cannot_hold else "")
        if left_out_rows is None:
            refuse_dangling(database.dangling(tables, targets=source.targets()))
        else:
            before = {table.label: database.count(table) for table in tables}
            dangling = database.leave_out_dangling(tables, targets=source.targets())
            lost = {table.label: before[table.label] - database.count(table) for table in tables}
            _name_lost(lost, left_out_rows)
            left_out_rows.extend(dangling)
    todays = {table.label: table.app for table in _tables()}
    gone = [table.label for table in tables if counts.get(table.label) and table.label not in todays]
    lacking = {table.label for table in tables} - labels
    lacking |= {label for label, app in todays.items() if app in source.metadata.excluded}
    return [*left_out, *gone], lacking


def _name_lost(lost: dict[str, int], left_out: Places) -> None:
    """Put the models that lost rows before all other places, of which only some are named: the restore must know that
    generic references, which nothing here checks, may lead to such rows. `lost`: model label -> number of rows."""
    reason = _("%(count)s of its records refer to something that is not there")
    places = [Place(label, None, None, reason % {"count": count}) for label, count in lost.items() if count]
    left_out.named[:0] = places
    left_out.total += len(places)


def _without_what_it_cannot_hold(
    database: Database, table: Table, batch: Batch, left_out: Places
) -> list[Row]:
    """Return the rows of a batch without values that a database cannot hold, and take note of each: NaN, say, which
    SQLite makes NULL of. Where a field cannot be empty, the whole row is left out."""
    remaining = []
    for row in zip(*batch, strict=True):
        reasons = database.values_it_cannot_hold(table, row)
        stays = all(table.columns[place].field.null for place in reasons)
        for place, reason in reasons.items():
            field = table.columns[place].name if stays else None
            left_out.add(place_of(table.label, row[0], field, reason))
        if stays:
            remaining.append(tuple(None if place in reasons else value for place, value in enumerate(row)))
    return remaining


def _create_permissions(historical: Any) -> None:
    """Create content types and permissions, as `migrate` did at that time."""
    if live_apps.is_installed("django.contrib.auth") and live_apps.is_installed(
        "django.contrib.contenttypes"
    ):
        from django.contrib.auth.management import create_permissions

        for config in live_apps.get_app_configs():
            create_permissions(config, verbosity=0, interactive=False, apps=historical)


def migrate_to_newest(reporter: ParentReporter, look: Callable[[], object] = lambda: None) -> list[str]:
    """Run the host's own migrations up to the newest, and the `post_migrate` signal. Returns their names, "app.name".

    `look`: called after the last migration, before the signal.
    """

    class Migrate(
        migrate.Command
    ):  # Django's own, since the host's creates a user with a well-known password
        def migration_progress_callback(self, action: str, migration: Any = None, fake: bool = False) -> None:
            reporter.on_migration(action, migration, fake)
            if action == "apply_success" and migration == plan[-1]:
                look()

    # Migrations create many objects, and the garbage collector would look at all that is there again and again.
    gc.freeze()
    gc.set_threshold(10_000)
    executor = MigrationExecutor(connection)
    plan = [migration for migration, _back in executor.migration_plan(executor.loader.graph.leaf_nodes())]
    reporter.expect_migrations(len(plan))
    _let_dangling_pass()
    call_command(Migrate(), verbosity=0, interactive=False, run_syncdb=True)
    in_scope = apps_in_scope()
    return [f"{applied.app_label}.{applied.name}" for applied in plan if applied.app_label in in_scope]


def _let_dangling_pass() -> None:
    """Let migrations pass over dangling references if `load_rows` did: after each one, Django looks for any. Those that
    migrations make are then found when the rows are written."""
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA foreign_key_check")
        if cursor.fetchone():
            connection.check_constraints = lambda table_names=None: None  # type: ignore[method-assign]


def _filled(is_asked: Callable[[Table], bool]) -> list[Table]:
    """Return those of the tables that have rows in the scratch database."""
    database = database_of()
    return [table for table in _tables() if is_asked(table) and database.count(table)]


def _made_of_data(tables: Sequence[Table]) -> set[str]:
    """Return the labels of those tables that have rows which migrations do not make in an empty database, too."""
    if not tables:
        return set()
    database, _all_tables = _scratch_database()
    with process.fresh_database() as path, SQLite.foreign(path) as fresh:
        bound_batches(fresh, tables)
        always = {table.label: {*_lasting_values(fresh, table)} for table in tables}
    return {
        table.label
        for table in tables
        if any(row not in always[table.label] for row in _lasting_values(database, table))
    }


def _lasting_values(database: Database, table: Table) -> Iterator[str]:
    """Yield each row of a table as a text, without values that migrations may make anew whenever they are run."""
    kinds = (DATETIME, DATE, TIME, UUID_)
    places = [place for place, column in enumerate(table.columns) if column.kind not in kinds]
    for batch in database.batches(table):
        yield from map(repr, zip(*(batch[place] for place in places), strict=True))


def _metadata_of_today(
    old: Metadata, applied: list[str], left_out: list[str], made_of_data: Collection[str]
) -> Metadata:
    """Return the metadata of the scratch database's backup. `applied`: migrations. `left_out`: apps and models.
    `made_of_data`: models of apps that the data did not know, see `_made_of_data`."""
    tables = _tables()
    apps = {table.app for table in tables}
    known = old.apps | {label.partition(".")[0] for label in made_of_data}
    new_models = [t.label for t in tables if t.app in known - old.apps and t.label not in made_of_data]
    before = old.upgraded or Upgrade(old.babybuddy_version, [], [], [])
    return replace(
        old,
        babybuddy_version=babybuddy.version(),
        migrations=schema.leaf_migrations(schema.load_history(database_of()), apps),
        upgraded=Upgrade(
            before.babybuddy_version,
            [*before.migrations, *applied],
            [*before.left_out, *left_out],
            [*sorted(apps - known), *new_models],
        ),
    )


def _tables() -> list[Table]:
    """Return the tables of today's models."""
    return [Table(model) for model in models_in_scope(exclude=conf.exclude)]


def _scratch_database(lacking: Collection[str] = ()) -> tuple[SQLite, list[Table]]:
    """Return the scratch database, and its tables, ready to be read. `lacking`: the labels of models that a backup of
    it must not name, since an undo would empty those here that it names."""
    database = cast(SQLite, database_of())
    tables = [table for table in _tables() if table.label not in lacking]
    bound_batches(database, tables)
    database.unreadable = Places()
    return database, tables


def _write_scratch(
    database: SQLite, tables: list[Table], writer: Writer, reporter: Reporter, *, leave_out: bool = False
) -> Places:
    """Write the rows of the scratch database. Returns the dangling references. Raises `Unreadable`."""
    with gc_paused():
        dangling = write_records(writer, database, tables, reporter)
    if database.unreadable and not leave_out:
        raise unreadable(database.unreadable)
    return dangling


def write_backup(
    target: Any,
    archive: Archive | None,
    metadata: Metadata,
    reporter: ParentReporter,
    lacking: Collection[str] = (),
    *,
    leave_out: bool = False,
    key: Key | None = None,
) -> None:
    """Write a backup of the scratch database with this metadata, and with the photos of the older backup, if it is made
    of one. `lacking`: see `_scratch_database`."""
    database, tables = _scratch_database(lacking)
    with Writer(target, Limits(photos=conf.max_photos)) as writer:
        if key:
            writer.encrypt(key, metadata)
        dangling = _write_scratch(database, tables, writer, reporter, leave_out=leave_out)
        metadata.left_out.extend(database.unreadable or Places())
        if archive:
            _copy_photos(archive, writer, metadata, leave_out=leave_out)
        writer.finish(replace(metadata, dangling=dangling))


def _copy_photos(archive: Archive, writer: Writer, metadata: Metadata, *, leave_out: bool) -> None:
    for photo in metadata.photos.values():
        if not archive.has_photo(photo):  # it is stored beside the parent's file
            writer.list_photo(photo.name, photo.sha256, photo.size)
            continue
        try:
            copy_photo(archive, photo, writer)
        except InvalidBackup as error:
            if not leave_out:
                error.offer = "leave_out"
                raise
            metadata.left_out.add(Place(shown(photo.name), None, None, error.message.rstrip(".")))


if __name__ == "__main__":
    main()

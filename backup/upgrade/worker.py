"""Brings a backup or a database file to today's schema: the child process of `process`, `python -m
backup.upgrade.worker`. See `child` for how it gets its order, and what it can access.

Longer than most modules, since it is one job from the file that came to the backup that goes on, and its steps follow
each other here as they do there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
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
from ..conf import aware_now, conf
from ..database import Database, database_of, refuse_dangling, refuse_records
from ..database.sqlite import SQLite
from ..dump import gc_paused, unreadable, write_records
from ..exceptions import InvalidBackup
from ..options import Place, Places, RecordCounter
from ..scope import models_in_scope
from ..tables import Row, Table, place_of
from . import process, schema
from .child import ParentReporter, explained, serve

#: The most bytes of rows that are read at a time, unless one row has more.
BATCH_BYTES = SQLite.BATCH_BYTES
#: App label, name.
MigrationKey = tuple[str, str]


def main() -> None:
    def work(order: dict[str, Any], folder: Path, reporter: ParentReporter) -> dict[str, Any]:
        with explained(reporter):
            if order["is_fresh"]:
                migrate_to_newest(reporter)
            else:
                key = Key.parse(order["key"]) if order["key"] else None
                how = {name: order[name] for name in ("edited", "leave_out", "is_read_meanwhile")}
                upgrade(folder, reporter, key=key, **how)
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
) -> None:
    """Make `UPGRADED` in the folder from `SOURCE`, a backup or a database file of any age.

    `edited`, `leave_out`: see `RestoreOptions`. `key`: of both files, if they are encrypted. `is_read_meanwhile`: make
    `GROWING` instead if that is possible.
    """
    path = folder / process.SOURCE
    growing = folder / process.GROWING if is_read_meanwhile else None
    left_out: list[str] = []
    with path.open("rb") as source:
        is_database = process.is_database(source)
    if is_database:
        lacks = _lacks_journal(path)
        backup = folder / "old.zip"
        with SQLite.foreign(path) as reader, backup.open("w+b") as target:
            left_out, is_of_today = convert_database(
                reader,
                target,
                reporter,
                leave_out=leave_out,
                lacks_journal=lacks,
                growing=growing,
            )
        path = backup
        if is_of_today:
            path.rename(folder / process.UPGRADED)
            return
    with path.open("rb") as source, open_archive(source, edited=edited, keys=Keys(key)) as archive:
        migrations = archive.metadata.migrations
        if leave_out:
            migrations = schema.known_migrations(MigrationLoader(None, ignore_no_migrations=True), migrations)
        migrations, added_fields = babybuddy.past_obstacles(migrations)
        build_schema(migrations, reporter)
        pointless = Places()
        left_out += load_records(
            archive, migrations, added_fields, reporter, pointless if leave_out else None
        )
        archive.metadata.left_out.extend(pointless)
        applied = migrate_to_newest(reporter)
        metadata = _metadata_of_today(archive.metadata, applied, left_out)
        if growing and not growing.exists():
            _write_growing(growing, *_scratch_database(), metadata, reporter)
            return
        with (folder / process.UPGRADED).open("w+b") as target:
            write_backup(target, archive, metadata, reporter, leave_out=leave_out, key=key)


def _installed_apps() -> set[str]:
    return {config.label for config in live_apps.get_app_configs()}


def _apps_in_scope() -> set[str]:
    return {model._meta.app_label for model in models_in_scope()}


# -- from a database file to a backup at its migrations ---


def _lacks_journal(path: Path) -> bool:
    """Tell whether a database file uses a write-ahead log (WAL), by its header, but the log is missing. The log need
    not have contained anything."""
    with path.open("rb") as file:
        return 2 in file.read(20)[18:] and not Path(f"{path}-wal").exists()


def convert_database(
    reader: SQLite,
    target: Any,
    reporter: ParentReporter,
    *,
    leave_out: bool = False,
    lacks_journal: bool = False,
    growing: Path | None = None,
) -> tuple[list[str], bool]:
    """Write a backup of a database file, at the migrations that it has. Returns its apps that are not installed here,
    and whether it is at today's schema, so that the backup need not be upgraded.

    `growing`: write the records here instead, to be read meanwhile, if nothing is wrong with the file.

    Only the columns that Django knows at those migrations are read, and each value is checked. Raises `Unreadable` if a
    value cannot be read, unless it may be left out; `InvalidBackup` if it is not a database of Baby Buddy;
    `RestoreRefused` if it is of a newer version.
    """
    if not reader.column_names("django_migrations") >= {"app", "name"}:
        raise _not_baby_buddys()
    applied: list[MigrationKey] = [
        (str(app), str(name)) for app, name in reader.fetch("SELECT app, name FROM django_migrations")
    ]
    apps = {app for app, _name in applied}
    if not babybuddy.owns(apps):
        raise _not_baby_buddys()
    in_scope = _apps_in_scope()
    loader = MigrationLoader(None, ignore_no_migrations=True)
    schema.check_known(loader, "", [key for key in applied if key[0] in in_scope], leave_out=leave_out)
    migrations = schema.leaves(loader, applied, apps & in_scope)
    is_of_today = migrations == _todays(loader, in_scope & loader.migrated_apps)
    models = models_in_scope(exclude=conf.exclude) if is_of_today else _models_at(loader, migrations)
    tables: list[Table] = []

    def missing(table: Table) -> bool:
        return table.db_table in reader.missing_tables([table])

    for table in map(Table, models):
        app = table.model._meta.app_label
        if app in migrations or (app in loader.unmigrated_apps and reader.column_names(table.db_table)):
            migrations.setdefault(app, [])
            if not missing(table):
                _check_columns(reader, table)
            tables.append(table)
    metadata = Metadata(
        timestamp=aware_now(),
        label="db.sqlite3",
        babybuddy_version=babybuddy.release(migrations),
        database_engine="sqlite",
        migrations=migrations,
    )
    _bound_batches(reader, [table for table in tables if not missing(table)])
    reader.unreadable = Places()
    left_out = sorted(apps - _installed_apps())
    is_of_today = is_of_today and len(tables) == len(models)
    todays = replace(
        metadata,
        babybuddy_version=babybuddy.version(),
        upgraded=Upgrade(metadata.babybuddy_version, [], left_out, []),
    )
    is_plain = is_of_today and not (leave_out or lacks_journal or reader.missing_tables(tables))
    if growing and is_plain and _write_growing(growing, reader, tables, todays, reporter):
        return left_out, True
    if leave_out:
        for table in tables:
            for name in sorted(_additions(reader, table)):
                reader.unreadable.add(_no_place(table.label, name))
    with gc_paused(), Writer(target) as writer:
        dangling = write_records(writer, reader, tables, reporter)
        if reader.unreadable and not leave_out:
            raise unreadable(reader.unreadable)
        if lacks_journal:
            reason = _("its -wal file is not there, which may hold the latest entries")
            reader.unreadable.add(Place("db.sqlite3", None, None, reason))
        # Dangling references are left out, or refused, while records are loaded. So they need the full upgrade.
        is_of_today = is_of_today and not dangling
        writer.finish(replace(todays if is_of_today else metadata, left_out=reader.unreadable))
    return left_out, is_of_today


def _write_growing(
    path: Path, reader: SQLite, tables: list[Table], metadata: Metadata, reporter: ParentReporter
) -> bool:
    """Write the records for a parent that reads them meanwhile, and tell it so. Returns whether no row points at
    nothing. Raises `Unreadable`."""
    with path.open("wb") as target, (writer := GrowingWriter(target, reporter.send)), gc_paused():
        writer.begin(metadata, {table.label: reader.count(table) for table in tables})
        dangling = write_records(writer, reader, tables, reporter)
    if reader.unreadable:
        raise unreadable(reader.unreadable)
    return not dangling


def _todays(loader: MigrationLoader, app_labels: Iterable[str]) -> dict[str, list[str]]:
    """Return the migrations of an up-to-date database, as `schema.leaf_migrations` does."""
    return schema.leaves(loader, loader.graph.nodes, app_labels)


def _models_at(loader: MigrationLoader, migrations: dict[str, list[str]]) -> list[Any]:
    """Return the models in scope as they were at these migrations."""
    keys = [(app, name) for app, names in migrations.items() for name in names]
    return models_in_scope(loader.project_state(keys).apps)


def _additions(reader: SQLite, table: Table) -> set[str]:
    """Return the columns of a table that Django does not know."""
    return reader.column_names(table.db_table) - {column.column for column in table.model._meta.local_fields}


def _no_place(label: str, field: str | None) -> Place:
    return Place(label, None, field, _("this site has no place for it"))


def _bound_batches(database: SQLite, tables: list[Table]) -> None:
    """Limit how much is read at a time. Raises `TooLarge` if the rows are larger than a backup may be."""
    total = database.bound_batches(tables, BATCH_BYTES)
    Limits(uncompressed=conf.max_uncompressed_size).check_size(total)


def _check_columns(reader: SQLite, table: Table) -> None:
    missing = reader.missing_tables([table])
    for name, columns in table.db_tables:
        if name not in missing and not reader.column_names(name) >= {column.column for column in columns}:
            raise _incomplete(name)


def _not_baby_buddys() -> InvalidBackup:
    return InvalidBackup(_("This is an SQLite database, but not one of Baby Buddy."))


def _incomplete(table: str) -> InvalidBackup:
    return InvalidBackup(
        _("The database is incomplete: the table %(table)s, or a part of it, is missing.") % {"table": table}
    )


# -- the scratch database ---


def build_schema(migrations: dict[str, list[str]], reporter: ParentReporter) -> None:
    """Build the scratch database at exactly these migrations.

    Apps that the backup does not know get all of their migrations, unless these depend on newer ones of others. They
    need their tables, since a migration that deletes a row looks into every table that may refer to it.
    """
    executor = MigrationExecutor(connection, cast(Any, reporter.on_migration))
    graph = executor.loader.graph
    targets = _targets(executor.loader, migrations)
    planned = {key for target in targets for key in graph.forwards_plan(target)}
    for leaf in graph.leaf_nodes():
        if leaf[0] not in migrations:
            needed = graph.forwards_plan(leaf)
            if all(key in planned or key[0] not in migrations for key in needed):
                targets.append(leaf)
    reporter.expect_migrations(len(executor.migration_plan(targets)))
    executor.migrate(targets)
    _create_tables_without_migrations(executor.loader.unmigrated_apps)


def _targets(loader: MigrationLoader, migrations: dict[str, list[str]]) -> list[MigrationKey]:
    keys = [(app, name) for app, names in migrations.items() for name in names]
    return [
        key for key in keys if key in loader.graph.nodes
    ]  # others are of apps that are not installed here


def _create_tables_without_migrations(app_labels: Iterable[str]) -> None:
    existing = {*connection.introspection.table_names()}
    models = [model for model in live_apps.get_models() if model._meta.app_label in app_labels]
    with connection.schema_editor() as editor:
        for model in models:
            if model._meta.managed and not model._meta.proxy and model._meta.db_table not in existing:
                editor.create_model(model)


def load_records(
    archive: Archive,
    migrations: dict[str, list[str]],
    added_fields: dict[str, dict[str, Any]],
    reporter: ParentReporter,
    left_out_rows: Places | None = None,
) -> list[str]:
    """Load the records of a backup into the scratch database, replacing those that migrations put there.

    `added_fields`: model label -> values of fields that its records do not have. `left_out_rows`: collects dangling
    references, and values that the scratch database cannot hold, which are then left out; None: they are an error.
    Returns the labels of models that are left out because their app is not installed here. Raises `InvalidBackup`,
    `RecordsRefused`.
    """
    metadata = archive.metadata
    loader = MigrationLoader(connection)
    historical = loader.project_state(_targets(loader, migrations)).apps
    _create_permissions(historical)
    tables = [
        Table(model)
        for model in models_in_scope(historical, exclude={*conf.exclude} - {*metadata.models})
        if model._meta.app_label in metadata.apps
    ]
    installed = _installed_apps()
    left_out = [label for label in metadata.models if label.split(".")[0] not in installed]
    for label in metadata.models.keys() - {table.label for table in tables} - {*left_out}:
        if left_out_rows is not None:
            left_out_rows.add(_no_place(label, None))
            continue
        raise InvalidBackup(
            _("The backup holds records of %(model)s, which its migrations do not know.") % {"model": label}
        )
    database = database_of()
    counter = RecordCounter(reporter, metadata.total_records)
    with gc_paused(), database.restoring():
        database.clear(tables)
        for table in tables:
            if table.label not in metadata.models:
                continue
            for records in archive.records(table.label, table.needs_exact_json):
                for record in records if table.label in added_fields else ():
                    if isinstance(record, dict) and isinstance(record.get("fields"), dict):
                        record["fields"].update(added_fields[table.label])
                if left_out_rows is not None:
                    _leave_out_additions(table, records, left_out_rows)
                rows = [*zip(*table.batch_from(records), strict=True)]
                if left_out_rows is not None:
                    rows = _without_what_it_cannot_hold(database, table, rows, left_out_rows)
                database.insert(table, rows)
                counter.add(table.label, len(records))
        refuse_records(database.refused, "leave_out" if len(database.refused) == database.cannot_hold else "")
        if left_out_rows is None:
            refuse_dangling(database.dangling(tables))
        else:
            left_out_rows.extend(database.leave_out_dangling(tables))
    return left_out


def _without_what_it_cannot_hold(
    database: Database, table: Table, rows: list[Row], left_out: Places
) -> list[Row]:
    """Return rows without values that a database cannot hold, and take note of each: NaN, say, which SQLite makes NULL
    of. Where a field cannot be empty, the whole row is left out."""
    remaining = []
    for row in rows:
        found = database.values_it_cannot_hold(table, row)
        stays = all(table.columns[place].field.null for place in found)
        for place, reason in found.items():
            field = table.columns[place].name if stays else None
            left_out.add(place_of(table.label, row[0], field, reason))
        if stays:
            remaining.append(tuple(None if place in found else value for place, value in enumerate(row)))
    return remaining


def _leave_out_additions(table: Table, records: list[Any], left_out: Places) -> None:
    """Remove fields from records that the model does not have, and add each to `left_out`."""
    for record in records:
        fields = record.get("fields") if isinstance(record, dict) else None
        if not isinstance(fields, dict):
            continue
        for name in [*fields]:
            if name not in table.names:
                del fields[name]
                place = _no_place(table.label, name[:80])
                if place not in left_out.named:
                    left_out.add(place)


def _create_permissions(historical: Any) -> None:
    """Create content types and permissions, as `migrate` did at that time."""
    if live_apps.is_installed("django.contrib.auth") and live_apps.is_installed(
        "django.contrib.contenttypes"
    ):
        from django.contrib.auth.management import create_permissions

        for config in live_apps.get_app_configs():
            create_permissions(config, verbosity=0, interactive=False, apps=historical)


def migrate_to_newest(reporter: ParentReporter) -> list[str]:
    """Run the host's own migrations up to the newest, and the `post_migrate` signal. Returns their names,
    "app.name"."""

    class Migrate(
        migrate.Command
    ):  # Django's own, since the host's creates a user with a well-known password
        def migration_progress_callback(self, action: str, migration: Any = None, fake: bool = False) -> None:
            reporter.on_migration(action, migration, fake)

    executor = MigrationExecutor(connection)
    plan = [migration for migration, _back in executor.migration_plan(executor.loader.graph.leaf_nodes())]
    reporter.expect_migrations(len(plan))
    call_command(Migrate(), verbosity=0, interactive=False, run_syncdb=True)
    in_scope = _apps_in_scope()
    return [f"{applied.app_label}.{applied.name}" for applied in plan if applied.app_label in in_scope]


def _metadata_of_today(old: Metadata, applied: list[str], left_out: list[str]) -> Metadata:
    """Return the metadata of the scratch database's backup. `applied`, `left_out`: migrations and apps."""
    apps = {model._meta.app_label for model in models_in_scope(exclude=conf.exclude)}
    before = old.upgraded or Upgrade(old.babybuddy_version, [], [], [])
    return replace(
        old,
        babybuddy_version=babybuddy.version(),
        migrations=schema.leaf_migrations(connection, apps),
        upgraded=Upgrade(
            before.babybuddy_version,
            [*before.migrations, *applied],
            [*before.left_out, *left_out],
            sorted(apps - old.apps),
        ),
    )


def _scratch_database() -> tuple[SQLite, list[Table]]:
    """Return the scratch database, and its tables, ready to be read."""
    database = cast(SQLite, database_of())
    tables = [Table(model) for model in models_in_scope(exclude=conf.exclude)]
    _bound_batches(database, tables)
    database.unreadable = Places()
    return database, tables


def write_backup(
    target: Any,
    archive: Archive,
    metadata: Metadata,
    reporter: ParentReporter,
    *,
    leave_out: bool = False,
    key: Key | None = None,
) -> None:
    """Write a backup of the scratch database with this metadata, and with the photos of the older backup."""
    database, tables = _scratch_database()
    with gc_paused(), Writer(target, Limits(photos=conf.max_photos)) as writer:
        if key:
            writer.encrypt(key, metadata)
        dangling = write_records(writer, database, tables, reporter)
        if database.unreadable and not leave_out:
            raise unreadable(database.unreadable)
        metadata.left_out.extend(database.unreadable or Places())
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
        writer.finish(replace(metadata, dangling=dangling))


if __name__ == "__main__":
    main()

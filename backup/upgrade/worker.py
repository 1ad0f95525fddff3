"""The child process of `process`: `python -m backup.upgrade.worker`.

Its `default` database *is* a scratch file, and there is no other: that is said before Django is set up, so that there
is no way to the live one. Many data migrations ignore the alias that they are run for, and write to `default`.

In comes one line of JSON, the order; then standard input stays open as long as the parent lives. Out go lines of JSON:
`{"step", "done", "total"}`, the label of a model or the name of a migration; at the end `{"done"}` or `{"error", …}`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO, cast

import django
from django.apps import apps as live_apps
from django.conf import settings
from django.core.management import call_command
from django.core.management.commands import migrate
from django.db import connection
from django.db.backends.signals import connection_created
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from .. import babybuddy
from ..archive import VERSION, Archive, Metadata, Upgrade, Writer, open_archive
from ..conf import conf
from ..database import database_of, reason_of, refuse_records
from ..database.sqlite import SQLite, is_disk_trouble
from ..dump import write_records
from ..exceptions import BackupError, InvalidBackup, StorageFailed, UpgradeFailed
from ..options import Phase
from ..scope import models_in_scope
from ..tables import Table
from . import process, schema

Key = tuple[str, str]


class Steps:
    """Tells the parent how far we are, and knows which migration runs."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.migration = ""
        self._done = self._total = 0

    def say(self, **what: Any) -> None:
        self._out.write(json.dumps(what) + "\n")
        self._out.flush()

    def phase(self, phase: Phase) -> None:
        """An upgrade has none."""

    def progress(self, label: str, done: int, total: int) -> None:
        self.say(step=label, done=done, total=total)

    def expect(self, migrations: int) -> None:
        self._done, self._total = 0, migrations

    def migrates(self, action: str, migration: Any = None, fake: bool = False) -> None:
        """What Django calls before and after each migration."""
        if action == "apply_start":
            self.migration = f"{migration.app_label}.{migration.name}"
            self.say(step=self.migration, done=self._done, total=self._total)
        elif action == "apply_success":
            self._done += 1
            self.migration = ""


def main() -> None:
    # What a migration prints, or asks, is for nobody.
    order = json.loads(sys.stdin.buffer.readline())
    parent, out = os.dup(0), os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    folder = Path(order["folder"])
    threading.Thread(target=_end_with, args=(parent, folder), daemon=True).start()
    steps = Steps(out)
    try:
        set_up(folder, order["settings"])
        with translation.override(order["language"]):
            _report(steps, lambda: run(folder, steps))
    except BackupError as error:
        place = {name: getattr(error, name, None) for name in ("model", "pk", "field")}
        kind = type(error).__name__
        steps.say(error=kind, message=error.message, details=error.details, place=place)
    else:
        steps.say(done=True)


def _end_with(parent: int, folder: Path) -> None:
    """Leave nothing when the parent is gone, however it went: only then does its end of the pipe close early."""
    while os.read(parent, 1024):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def set_up(folder: Path, others: dict[str, Any]) -> None:
    """Django, with the project's settings, but for what would lead to anything of the live site's."""
    scratch = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "scratch.sqlite3")}
    settings.DATABASES = {"default": scratch}
    settings.DATABASE_ROUTERS = []
    # Settings of the host's are cached under the same keys as the live site's; files belong to it.
    memory = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {alias: {"BACKEND": memory, "LOCATION": alias} for alias in settings.CACHES}
    memory = "django.core.files.storage.InMemoryStorage"
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": memory}}
    for name, value in others.items():
        setattr(settings, name, value)
    django.setup()
    connection_created.connect(_in_haste)


def _in_haste(connection: Any, **kwargs: Any) -> None:
    """Nobody needs the scratch file after a power cut."""
    connection.cursor().execute("PRAGMA synchronous = OFF")


def _report(steps: Steps, work: Callable[[], None]) -> None:
    """Whatever comes of migrations that are not ours as a `BackupError` that names the migration."""
    try:
        work()
    except BackupError:
        raise
    except Exception as error:
        if is_disk_trouble(error):
            raise StorageFailed(
                _("The server has no room for temporary files (%(reason)s). Nothing was changed.")
                % {"reason": reason_of(error)}
            ) from error
        reason = f"{type(error).__name__}: {reason_of(error)}"
        if steps.migration:
            text = _("The migration %(migration)s failed on this data (%(reason)s). Nothing was changed.")
        else:
            text = _("The data could not be brought to this version (%(reason)s). Nothing was changed.")
        raise UpgradeFailed(text % {"migration": steps.migration, "reason": reason}) from error


def run(folder: Path, steps: Steps) -> None:
    """`GIVEN` in the folder, a backup or a database file of any age, becomes `UPGRADED`."""
    given = folder / process.GIVEN
    left_out: list[str] = []
    with given.open("rb") as source:
        database = process.is_database(source)
    if database:
        old = folder / "old.zip"
        with SQLite.foreign(given) as reader, old.open("w+b") as target:
            left_out = backup_of(reader, target, steps)
        given = old
    with given.open("rb") as source, open_archive(source) as archive:
        migrations, added = babybuddy.past_obstacles(archive.metadata.migrations)
        make(migrations, steps)
        left_out += load(archive, migrations, added, steps)
        ran = forward(steps)
        with (folder / process.UPGRADED).open("w+b") as target:
            write(target, archive.metadata, ran, left_out, steps)


def _here() -> set[str]:
    return {config.label for config in live_apps.get_app_configs()}


def _in_scope() -> set[str]:
    return {model._meta.app_label for model in models_in_scope()}


# -- a database file becomes a backup of its time ---


def backup_of(reader: SQLite, target: Any, steps: Steps) -> list[str]:
    """Write a backup of a database file, as one of its time. Returns the apps that it has and that are not here.

    Only the columns are read that Django knows of at those migrations, and each value is checked; all else in the file
    is nobody's business. Raises `InvalidBackup` where it is no database of this host's, `RestoreRefused` where it is of
    a newer one.
    """
    if not reader.column_names("django_migrations") >= {"app", "name"}:
        raise _foreign()
    applied: list[Key] = [
        (str(a), str(n)) for a, n in reader.fetch("SELECT app, name FROM django_migrations")
    ]
    recorded = {app for app, _name in applied}
    if not babybuddy.owns(recorded):
        raise _foreign()
    in_scope = _in_scope()
    loader = MigrationLoader(None, ignore_no_migrations=True)
    schema.check_known(loader, "", [key for key in applied if key[0] in in_scope])
    migrations = schema.leaves(loader, applied, recorded & in_scope)
    state = loader.project_state([(app, name) for app, names in migrations.items() for name in names])
    tables = []
    for table in map(Table, models_in_scope(state.apps)):
        app = table.model._meta.app_label
        if app in migrations or (app in loader.unmigrated_apps and reader.column_names(table.db_table)):
            migrations.setdefault(app, [])
            _check_columns(reader, table)
            tables.append(table)
    metadata = Metadata(
        timestamp=timezone.now(),
        label="db.sqlite3",
        babybuddy_version=babybuddy.release(migrations),
        database_engine="sqlite",
        migrations=migrations,
    )
    try:
        with Writer(target) as writer:
            write_records(writer, reader, tables, steps)
            writer.finish(metadata)
    except BackupError as error:
        if type(error) is BackupError:  # a value that is not what its column says
            raise InvalidBackup(error.message) from error
        raise
    return sorted(recorded - _here())


def _check_columns(reader: SQLite, table: Table) -> None:
    parts = [(table.db_table, [column.column for column in table.columns])]
    parts += [(relation.table, [relation.owner, relation.target.column]) for relation in table.relations]
    for name, columns in parts:
        if not reader.column_names(name) >= {*columns}:
            raise _lacks(name)


def _foreign() -> InvalidBackup:
    return InvalidBackup(_("This is a database of SQLite's, but not one of Baby Buddy's."))


def _lacks(table: str) -> InvalidBackup:
    return InvalidBackup(
        _("The database is not whole: the table %(table)s, or a part of it, is missing.") % {"table": table}
    )


# -- the scratch database ---


def make(migrations: dict[str, list[str]], steps: Steps) -> None:
    """Build the scratch database at exactly these migrations.

    Apps that the backup does not know are there from the start where they need nothing newer, as they are in a database
    that is migrated in place: a migration that deletes a row looks into every table that may refer to it.
    """
    executor = MigrationExecutor(connection, cast(Any, steps.migrates))
    graph = executor.loader.graph
    targets = _targets(executor.loader, migrations)
    there = {key for target in targets for key in graph.forwards_plan(target)}
    for leaf in graph.leaf_nodes():
        if leaf[0] not in migrations:
            needed = graph.forwards_plan(leaf)
            if all(key in there or key[0] not in migrations for key in needed):
                targets.append(leaf)
    steps.expect(len(executor.migration_plan(targets)))
    executor.migrate(targets)
    _make_tables_without_migrations(executor.loader.unmigrated_apps)


def _targets(loader: MigrationLoader, migrations: dict[str, list[str]]) -> list[Key]:
    keys = [(app, name) for app, names in migrations.items() for name in names]
    return [key for key in keys if key in loader.graph.nodes]  # others are of apps that are not here


def _make_tables_without_migrations(app_labels: Iterable[str]) -> None:
    there = {*connection.introspection.table_names()}
    models = [model for model in live_apps.get_models() if model._meta.app_label in app_labels]
    with connection.schema_editor() as editor:
        for model in models:
            if model._meta.managed and not model._meta.proxy and model._meta.db_table not in there:
                editor.create_model(model)


def load(
    archive: Archive, migrations: dict[str, list[str]], added: dict[str, dict[str, Any]], steps: Steps
) -> list[str]:
    """The backup's records into the scratch database, in place of what migrations put there.

    `added`: model label -> fields that its records do not have, with their values. Returns the labels of the models
    that are left out, because their app is not here. Raises `InvalidBackup`, `RecordsRefused`.
    """
    metadata = archive.metadata
    loader = MigrationLoader(connection)
    historical = loader.project_state(_targets(loader, migrations)).apps
    _make_permissions(historical)
    tables = [
        Table(model)
        for model in models_in_scope(historical, exclude={*conf.exclude} - {*metadata.models})
        if model._meta.app_label in metadata.apps
    ]
    left_out = [label for label in metadata.models if label.split(".")[0] not in _here()]
    for label in metadata.models.keys() - {table.label for table in tables} - {*left_out}:
        raise InvalidBackup(
            _("The backup holds records of %(model)s, which its migrations do not know.") % {"model": label}
        )
    database = database_of()
    done = 0
    with database.restoring():
        database.clear(tables)
        for table in tables:
            if table.label not in metadata.models:
                continue
            for records in archive.records(table.label, table.needs_exact_json):
                for record in records if table.label in added else ():
                    if isinstance(record, dict) and isinstance(record.get("fields"), dict):
                        record["fields"].update(added[table.label])
                database.insert(table, list(zip(*table.batch_from(records), strict=True)))
                done += len(records)
                steps.progress(table.label, done, max(done, metadata.total_records))
        refuse_records(database.refused)
        refuse_records(database.dangling(tables))
    return left_out


def _make_permissions(historical: Any) -> None:
    """Content types and permissions, as the `migrate` of that time left them."""
    if live_apps.is_installed("django.contrib.auth") and live_apps.is_installed(
        "django.contrib.contenttypes"
    ):
        from django.contrib.auth.management import create_permissions

        for config in live_apps.get_app_configs():
            create_permissions(config, verbosity=0, interactive=False, apps=historical)


def forward(steps: Steps) -> list[str]:
    """The host's own migrations, to the newest, and what it does after them. Returns those that ran."""

    class Migrate(migrate.Command):  # Django's own: the host's makes a user with a known password
        def migration_progress_callback(self, action: str, migration: Any = None, fake: bool = False) -> None:
            steps.migrates(action, migration, fake)

    executor = MigrationExecutor(connection)
    plan = [migration for migration, _back in executor.migration_plan(executor.loader.graph.leaf_nodes())]
    steps.expect(len(plan))
    call_command(Migrate(), verbosity=0, interactive=False, run_syncdb=True)
    return [f"{ran.app_label}.{ran.name}" for ran in plan if ran.app_label in _in_scope()]


def write(target: Any, old: Metadata, ran: list[str], left_out: list[str], steps: Steps) -> None:
    """A backup of the scratch database, which says where its data is from."""
    tables = [Table(model) for model in models_in_scope(exclude=conf.exclude)]
    before = old.upgraded or Upgrade(old.babybuddy_version, [], [], [])
    metadata = replace(
        old,
        version=VERSION,
        babybuddy_version=babybuddy.version(),
        migrations=schema.leaf_migrations(connection, (table.model._meta.app_label for table in tables)),
        upgraded=Upgrade(
            before.babybuddy_version,
            [*before.migrations, *ran],
            [*before.left_out, *left_out],
            sorted({table.model._meta.app_label for table in tables} - old.apps),
        ),
    )
    with Writer(target) as writer:
        write_records(writer, database_of(), tables, steps)
        writer.finish(metadata)


if __name__ == "__main__":
    main()

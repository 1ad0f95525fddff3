"""Builds the scratch database of an upgrade at the migrations that the older data was made under."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from django.apps import apps as live_apps
from django.db import connection
from django.db import migrations as django_migrations
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

from ..scope import left_out_apps
from . import schema
from .child import ParentReporter
from .schema import MigrationKey


def build_schema(
    migrations: dict[str, list[str]],
    new_apps: Collection[str],
    reporter: ParentReporter,
    *,
    one_by_one: bool = False,
) -> None:
    """Build the scratch database at exactly these migrations.

    Apps that the backup does not name get theirs, too, unless these depend on newer ones of others. They need their
    tables, since a migration that deletes a row looks into every table that may refer to it. But in an app that is new
    to the data (`new_apps`), a migration that acts on rows waits until those of the backup are there.

    `one_by_one`: run each migration. Otherwise tables are made as the models were at the last of them, wherever that
    is the same: it takes a fifth of the time.
    """
    loader = schema.OtherHistory(migrations)
    targets = targets_of(loader, migrations)
    planned = {key for target in targets for key in loader.graph.forwards_plan(target)}
    waiting = {
        key
        for key in loader.graph.nodes
        if key not in planned
        and (key[0] in migrations or (key[0] in new_apps and schema.acts_on_rows(loader, key)))
    }
    ahead = {
        key
        for key in loader.graph.nodes
        if key[0] not in migrations and waiting.isdisjoint(loader.graph.forwards_plan(key))
    }
    leaves = schema.leaves(loader, ahead, [app for app, _name in ahead])
    further = [(app, name) for app, names in leaves.items() for name in names]
    targets += further
    if not one_by_one:
        known = {*migrations, *left_out_apps()}
        at_once = [target for target in targets if _is_shown_by_models(loader, target, known)]
        rest = [target for target in targets if target not in at_once]
        # Those that are applied are not named again: Django would take that for a wish to go back to them.
        if {*rest} <= {*further} and _create_tables(loader, at_once):
            targets = rest
    executor = _executor(loader, reporter.on_migration)
    reporter.expect_migrations(len(executor.migration_plan(targets)))
    executor.migrate(targets)
    _create_tables_without_migrations(loader.unmigrated_apps)


def _executor(loader: MigrationLoader, on_migration: Any = None) -> Any:
    """Return Django's executor, which knows the migrations that `loader` does: it would take those that were squashed
    for replaced as long as none of them is applied."""
    executor = MigrationExecutor(connection, on_migration)
    executor.loader.graph = loader.graph
    return executor


def targets_of(loader: MigrationLoader, migrations: dict[str, list[str]]) -> list[MigrationKey]:
    """Return the migrations that are known here. Others are of apps that are not installed."""
    keys = [(app, name) for app, names in migrations.items() for name in names]
    return [key for key in keys if key in loader.graph.nodes]


def _is_shown_by_models(loader: MigrationLoader, target: MigrationKey, known: set[str]) -> bool:
    """Tell whether models show all that a migration, and those before it, do to an empty database.

    `known`: the apps whose rows are replaced or not needed, so that it does not matter what code of theirs makes rows.
    """
    return all(
        schema.is_shown(operation) or (type(operation) is django_migrations.RunPython and app in known)
        for app, name in loader.graph.forwards_plan(target)
        for operation in loader.graph.nodes[app, name].operations
    )


def _create_tables(loader: MigrationLoader, targets: list[MigrationKey]) -> bool:
    """Create the tables of the models as they were at these migrations, which count as applied then. Returns whether
    that was possible."""
    executor = _executor(loader)
    state = executor.loader.project_state(targets)
    if any(model.options.get("index_together") for model in state.models.values()):
        return False  # newer versions of Django would not make such an index, which a migration may look for
    with connection.schema_editor() as editor:
        for model in state.apps.get_models():
            is_migrated = model._meta.app_label in executor.loader.migrated_apps
            if is_migrated and model._meta.can_migrate(connection):
                editor.create_model(model)
    for migration, _back in executor.migration_plan(targets):
        for key in schema.with_replaced(loader, (migration.app_label, migration.name)):
            executor.recorder.record_applied(*key)
    return True


def _create_tables_without_migrations(app_labels: Iterable[str]) -> None:
    existing = {*connection.introspection.table_names()}
    models = [model for model in live_apps.get_models() if model._meta.app_label in app_labels]
    with connection.schema_editor() as editor:
        for model in models:
            if model._meta.managed and not model._meta.proxy and model._meta.db_table not in existing:
                editor.create_model(model)

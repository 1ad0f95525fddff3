"""Compares the migrations that a backup was made under with those of this site."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.exceptions import InconsistentMigrationHistory
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Model
from django.utils.translation import gettext as _

from ..archive.metadata import Metadata
from ..archive.names import shown
from ..archive.reader import Archive
from ..database import Database, reason_of
from ..exceptions import RestoreRefused
from ..scope import models_in_scope
from ..tables import MAX_NAMED, Table


def leaf_migrations(history: MigrationLoader, app_labels: Iterable[str]) -> dict[str, list[str]]:
    """Return app label -> names of its newest applied migrations: those that no other applied one depends on."""
    return leaves(history, history.applied_migrations.keys(), app_labels)


def applied(database: Database) -> set[tuple[Any, ...]]:
    """Return the applied migrations: (app label, name). Raises `DatabaseError`.

    Django's recorder would ask another connection than that of a snapshot.
    """
    name = MigrationRecorder.Migration._meta.db_table
    with _damage_is_an_error():
        rows = (
            database.fetch(f"SELECT app, name FROM {database.quote(name)}")
            if name in database.table_names()
            else ()
        )
        return {*rows}


def load_history(database: Database) -> MigrationLoader:
    """Return Django's history of migrations: which there are, and which are applied. Load it once and pass it on.
    Raises `DatabaseError`."""
    with database.exact_session(), _damage_is_an_error():  # it has the moments at which they were applied
        return MigrationLoader(database.connection)


@contextmanager
def _damage_is_an_error() -> Iterator[None]:
    """Raise `DatabaseError` for texts that are none, which a damaged file has: see `reason_of`."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DatabaseError(reason_of(error)) from error


def leaves(
    loader: MigrationLoader, applied: Iterable[tuple[str, str]], app_labels: Iterable[str]
) -> dict[str, list[str]]:
    """Return what `leaf_migrations` returns, for these applied migrations: (app label, name)."""
    applied = {key for key in applied if key in loader.graph.node_map}
    return {
        app: sorted(
            name
            for label, name in applied
            if label == app
            and not any(
                child.key[0] == app and child.key in applied
                for child in loader.graph.node_map[label, name].children
            )
        )
        for app in sorted(set(app_labels))
    }


def is_older(history: MigrationLoader, metadata: Metadata, *, leave_out: bool = False) -> bool:
    """Tell whether a backup has to be brought to this site's schema first. `leave_out`: also if it has migrations that
    are unknown here, since an upgrade leaves out what this site has no place for.

    A file of version 1.0 names no migrations and is taken to be at today's schema; see `check_fields`. Raises
    `RestoreRefused` if the backup has migrations that are unknown here.
    """
    check_known(
        history,
        metadata.babybuddy_version,
        [(app, name) for app, names in metadata.migrations.items() for name in names],
        leave_out=leave_out,
    )
    current = leaf_migrations(history, metadata.migrations)
    return any(
        app in history.migrated_apps and sorted(names) != current[app]
        for app, names in metadata.migrations.items()
    )


def check_site(history: MigrationLoader, app_labels: Collection[str] | None = None) -> None:
    """Raise `RestoreRefused` if migrations of this site are not applied: an upgraded backup has all of them.

    `app_labels`: of the apps that matter; None: all do.
    """
    missing = [
        name for name in pending(history) if app_labels is None or name.partition(".")[0] in app_labels
    ]
    if missing:
        raise RestoreRefused(
            _("This site's own database is not up to date. Run “manage.py migrate” first. Not applied are:"),
            missing,
        )


def pending(history: MigrationLoader) -> list[str]:
    """Return the last migrations of this site, "app.name", that are not applied."""
    leaf_nodes = history.graph.leaf_nodes()
    return [f"{app}.{name}" for app, name in leaf_nodes if (app, name) not in history.applied_migrations]


def unknown_apps(history: MigrationLoader) -> set[str]:
    """Return the labels of the apps of which migrations are applied that this site does not have: its code is older
    than its database."""
    known = {*history.disk_migrations, *(key for m in history.disk_migrations.values() for key in m.replaces)}
    applied = {*history.applied_migrations} - known
    return {app for app, _name in applied if app in history.migrated_apps}


def models_before_pending(
    connection: BaseDatabaseWrapper, exclude: Iterable[str], history: MigrationLoader
) -> list[type[Model]] | None:
    """Return the models in scope as they were before the migrations that are not applied; None if all are applied, or
    if the history of migrations has gaps. `exclude`: see `models_in_scope`."""
    if not pending(history):
        return None
    try:
        history.check_consistent_history(connection)
    except InconsistentMigrationHistory:
        return None
    return models_at(history, leaf_migrations(history, history.migrated_apps), exclude)


def models_at(
    loader: MigrationLoader, migrations: dict[str, list[str]], exclude: Iterable[str] = ()
) -> list[type[Model]]:
    """Return the models in scope as they were at these migrations. `exclude`: see `models_in_scope`."""
    keys = [(app, name) for app, names in migrations.items() for name in names]
    return models_in_scope(loader.project_state(keys).apps, exclude)


def known_migrations(loader: MigrationLoader, migrations: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return app label -> its newest migrations without those that are unknown here; if none is left, today's."""
    known = {}
    for app, names in migrations.items():
        known[app] = [name for name in names if (app, name) in loader.graph.node_map]
        if names and not known[app] and app in loader.migrated_apps:
            known[app] = [name for _app, name in loader.graph.leaf_nodes(app)]
        elif app not in loader.migrated_apps:
            known[app] = names
    return known


def check_known(
    loader: MigrationLoader, version: str, migrations: Iterable[tuple[str, str]], *, leave_out: bool = False
) -> None:
    """Raise `RestoreRefused`, which names them, if some of these migrations, (app label, name), are unknown here.

    Apps that are not installed here do not count: their models are left out. `version`: the version of Baby Buddy that
    the migrations are from.
    """
    unknown = sorted(
        f"{app}.{name}"
        for app, name in migrations
        if app in loader.migrated_apps and (app, name) not in loader.graph.node_map
    )
    if unknown and not leave_out:
        raise RestoreRefused(
            _(
                "The backup comes from a newer or a different Baby Buddy (%(version)s), with changes to the database "
                "that are unknown here. If it is a newer one, update Baby Buddy first, then restore. If it is one with "
                "additions of somebody's own, these can be left out. Unknown are:"
            )
            % {"version": version or "?"},
            [*(shown(name) for name in unknown[:MAX_NAMED]), *(["…"] if len(unknown) > MAX_NAMED else [])],
            offer="leave_out",
        )


def check_fields(archive: Archive, tables: Iterable[Table]) -> None:
    """Raise `RestoreRefused`, which names the fields, if the records of a version 1.0 file do not have today's fields.

    Such a file does not name its migrations. Only the first record of each model is looked at; the others are checked
    as they are read.
    """
    lines = []
    for table in tables:
        if table.label not in archive.metadata.models:
            continue
        for record in next(archive.records(table.label, table.needs_exact_json), [])[:1]:
            fields = record.get("fields") if isinstance(record, dict) else None
            if isinstance(fields, dict):
                wrong = [
                    _("%(field)s is unknown here") % {"field": name} for name in fields.keys() - table.names
                ]
                wrong += [
                    _("%(field)s is missing") % {"field": name} for name in table.names if name not in fields
                ]
                if wrong:
                    lines.append(f"{table.label}: {', '.join(sorted(wrong))}")
    if lines:
        raise RestoreRefused(
            _(
                "The backup has format version 1.0, which does not say what schema it has, and its fields "
                "are not those of this site. Restore it into the Baby Buddy that made it. These do not fit:"
            ),
            lines,
        )

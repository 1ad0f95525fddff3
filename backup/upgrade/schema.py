"""Compares the migrations that a backup was made under with those of this site."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.exceptions import InconsistentMigrationHistory
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Model
from django.utils.translation import gettext as _

from ..archive.metadata import Metadata
from ..archive.names import shown
from ..archive.reader import Archive
from ..conf import conf
from ..database import Database, reason_of
from ..exceptions import RestoreRefused
from ..options import Place, Places
from ..scope import models_in_scope
from ..tables import MAX_NAMED, Table

#: App label, name.
MigrationKey = tuple[str, str]


class OtherHistory(MigrationLoader):
    """Django's history of migrations of a database that is elsewhere: `leaf_migrations` names its newest ones.

    Migrations that were squashed since count as Django would count them there: as the one that replaces them if all of
    them are applied; if only some are, that one does not exist.
    """

    def __init__(self, migrations: Mapping[str, Iterable[str]]) -> None:
        """`migrations`: app label -> names of applied ones. Those of the app before them are applied, too."""
        self._named = {(app, name) for app, names in migrations.items() for name in names}
        #: Those of them that are unknown here. Apps that are not installed do not count.
        self.unknown: set[MigrationKey] = set()
        super().__init__(None, ignore_no_migrations=True)

    @property
    def applied_migrations(self) -> dict[MigrationKey, Any]:
        return self._applied

    @applied_migrations.setter
    def applied_migrations(self, _found: object) -> None:
        """Do nothing: Django's loader has no database in which it could find any."""

    def load_disk(self) -> None:
        """Load the migrations of this site, and find those that are applied there."""
        super().load_disk()
        applied = self._with_those_before(self._named)
        known = {*self.disk_migrations}
        gone: set[MigrationKey] = set()
        for migration in self.disk_migrations.values():
            replaced = {*migration.replaces}
            if replaced <= applied:
                known |= replaced
            elif not replaced <= {*self.disk_migrations}:
                gone |= replaced  # No way leads from some of them to the others, which were deleted.
        if gone:  # Nor from what was made beside them.
            known -= {key for key in self._named if not gone.isdisjoint(self._with_those_before([key]))}
        self.unknown = {key for key in self._named - known if key[0] in self.migrated_apps}
        self._applied: dict[MigrationKey, Any] = dict.fromkeys(self._with_those_before(self._named & known))

    def _with_those_before(self, keys: Iterable[MigrationKey]) -> set[MigrationKey]:
        """Return migrations with those of the same app that they depend on, and with those that they replace."""
        found: set[MigrationKey] = set()
        ahead = [*keys]
        while ahead:
            key = ahead.pop()
            if key in found:
                continue
            found.add(key)
            if migration := self.disk_migrations.get(key):
                ahead += migration.replaces
                ahead += [before for before in migration.dependencies if before[0] == key[0]]
            else:  # Its file was deleted after it was squashed. What replaces it knows the order.
                for migration in self.disk_migrations.values():
                    if key in migration.replaces:
                        ahead += migration.replaces[: migration.replaces.index(key)]
        return found


def with_replaced(loader: MigrationLoader, key: MigrationKey) -> list[MigrationKey]:
    """Return a migration and all that it replaces: where it is applied, Django wants all of them to be noted."""
    replaced = loader.disk_migrations[key].replaces if key in loader.disk_migrations else []
    return [key, *(noted for other in replaced for noted in with_replaced(loader, other))]


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
    """Tell whether a backup has to be brought to this site's schema first: also if the migrations of an app that it has
    never seen act on rows. `leave_out`: also if it has migrations that are unknown here, since an upgrade leaves out
    what this site has no place for.

    A file of version 1.0 names no migrations and is taken to be at today's schema; see `check_fields`. Raises
    `RestoreRefused` if the backup has migrations that are unknown here.
    """
    if not metadata.migrations:
        return False
    todays = leaf_migrations(history, metadata.migrations)
    new = new_apps(metadata)
    is_new_data = any(
        key[0] in new and acts_on_rows(history, key) for key in (history.graph.nodes if new else ())
    )
    if {app: sorted(names) for app, names in metadata.migrations.items()} == todays and not is_new_data:
        return False
    theirs = OtherHistory(metadata.migrations)
    check_known(theirs, metadata.babybuddy_version, leave_out=leave_out)
    return is_new_data or bool(theirs.unknown) or leaf_migrations(theirs, metadata.migrations) != todays


def new_apps(metadata: Metadata) -> set[str]:
    """Return the labels of the apps in scope here that the data of a backup has never seen."""
    known = metadata.apps.union(metadata.excluded)
    return {model._meta.app_label for model in models_in_scope(exclude=conf.exclude)} - known


#: The modules of Django's operations that change models. (The others run SQL or Python, or change the database in
#: another way than the models.)
_SHOWN = {"django.db.migrations.operations.models", "django.db.migrations.operations.fields"}


def is_shown(operation: Operation) -> bool:
    """Tell whether models show all that an operation of a migration does."""
    return type(operation).__module__ in _SHOWN


def acts_on_rows(loader: MigrationLoader, key: MigrationKey) -> bool:
    """Tell whether a migration may do more than models show: make rows out of others, say."""
    return not all(map(is_shown, loader.graph.nodes[key].operations))


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


def migrated_apps(history: MigrationLoader) -> set[str]:
    """Return the labels of the apps of which migrations are applied."""
    return {app for app, _name in history.applied_migrations}


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


def known_migrations(migrations: dict[str, list[str]], left_out: Places) -> dict[str, list[str]]:
    """Return app label -> its newest migrations, without those that are unknown here, and by the names that they have
    since they were squashed. If none is left, they are today's, and the app is added to `left_out`."""
    theirs = OtherHistory(migrations)
    known = leaf_migrations(theirs, migrations)
    for app in sorted({app for app, _name in theirs.unknown if not known[app]}):
        known[app] = [name for _app, name in theirs.graph.leaf_nodes(app)]
        reason = _(
            "its migrations are unknown here: no migration is run on its records, which are taken as they are"
        )
        left_out.add(Place(app, None, None, reason))
    return known


def check_known(theirs: OtherHistory, version: str, *, leave_out: bool = False) -> None:
    """Raise `RestoreRefused`, which names them, if some migrations are unknown here.

    Apps that are not installed here do not count: their models are left out. `version`: the version of Baby Buddy that
    the migrations are from.
    """
    unknown = sorted(f"{app}.{name}" for app, name in theirs.unknown)
    if unknown and not leave_out:
        raise RestoreRefused(
            _(
                "The backup comes from a newer or a different Baby Buddy (%(version)s), with changes to the database "
                "that are unknown here. If it is a newer one, update Baby Buddy first, then restore. If it is one with "
                "additions of somebody's own, these can be left out. If it is an older one, its migrations were "
                "squashed since: restore it where they are still known, update that site, and make a new backup. "
                "Unknown are:"
            )
            % {"version": version or "?"},
            [*(shown(name) for name in unknown[:MAX_NAMED]), *(["…"] if len(unknown) > MAX_NAMED else [])],
            offer="leave_out",
        )


def check_fields(archive: Archive, tables: Iterable[Table]) -> None:
    """Raise `RestoreRefused`, which names the fields, if the records of a file that does not name its migrations do not
    have today's fields: one of version 1.0, or one that has lost its metadata.

    Only the first record of each model is looked at; the others are checked
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
        message = _(
            "The backup has format version 1.0, which does not say what schema it has, and its fields "
            "are not those of this site. Restore it into the Baby Buddy that made it. These do not fit:"
        )
        if archive.lacks_metadata:
            message = _(
                "Without metadata.json nothing says what schema the backup has, and its fields are not those of this "
                "site. Restore it into a Baby Buddy of the version that made it. These do not fit:"
            )
        raise RestoreRefused(message, lines)

"""Knows the data of this site: its tables, and what is wrong with them if a query fails."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from django.apps import apps
from django.db import DatabaseError
from django.db.migrations.loader import MigrationLoader
from django.utils.translation import gettext as _

from . import babybuddy
from .conf import conf
from .database import Database, database_of
from .exceptions import Busy, Damaged, RestoreRefused, StorageFailed
from .options import Place, RestoreOptions
from .scope import is_here, models_in_scope
from .tables import Table
from .upgrade import schema
from .upgrade.sources import no_place


def counts_of(tables: Iterable[Table]) -> dict[str, int]:
    database, numbers = database_of(), {}
    for table in tables:
        with suppress(Damaged), database.damage_explained():
            numbers[table.label] = database.count(table)
    return numbers


@contextmanager
def damage_explained(database: Database, options: RestoreOptions | None = None) -> Iterator[None]:
    """Explain damage as `Database.damage_explained` does, and name missing tables; but not if these are only missing
    because migrations have not been applied yet. Raises `Busy` if tables were altered meanwhile.

    `options`: of a restore. If it has done already what is offered for damage, that is not offered again.
    """
    before = _altered(database)
    try:
        with database.damage_explained():
            yield
    except (RestoreRefused, StorageFailed, DatabaseError) as error:
        if names := sorted({*_altered(database)} - {*before}):
            raise altered(names) from error
        if not isinstance(error, Damaged):
            raise
        if options and options.without_safety_copy and options.mode.clears:
            way_on = _(
                "If it cannot be repaired: make a new one with “manage.py migrate”, and restore into that."
            )
            damaged = Damaged(f"{error.message} {way_on}", error.details)
            damaged.offer = ""
            raise damaged from error
        missing: Iterable[str] = ()
        with suppress(DatabaseError):
            schema.check_site(schema.load_history(database))
            missing = database.missing_tables(tables_here())
        if missing and error.must_clear:
            raise Damaged(
                _(
                    "Tables are missing in the database of this site. Nothing was changed. A restore that clears "
                    "existing data makes them anew. Missing are:"
                ),
                [*missing],
            ) from error
        raise


def altered(names: Iterable[str]) -> Busy:
    """Return the error for tables that were altered while they were read. `names`: of these."""
    return Busy(
        _(
            "The tables of the database were altered meanwhile: %(tables)s. Nothing was changed. Please try again."
        )
        % {"tables": ", ".join(names)}
    )


def _altered(database: Database) -> list[str]:
    """Return what `Database.altered` does; nothing where the database does not answer at all."""
    try:
        database.fetch("SELECT 1")
    except DatabaseError:
        return []
    return database.altered(tables_here())


def tables_here(*, everything: bool = False) -> list[Table]:
    """Return the tables in scope, in dependency order. `everything`: also those of all other models, which may refer to
    rows in scope."""
    models = models_in_scope(exclude=conf.exclude)
    if everything:
        models = [*models, *(model for model in _all_models() if model not in models)]
    return [*map(_table_of_today, models)]


def _table(model: Any) -> Table:
    return Table(model, babybuddy.IDENTITIES.get(model._meta.label_lower, ()))


#: Remembers the table of each model that is installed. One of historical models would keep them in memory.
_table_of_today = cache(_table)


def tables_in_database(history: MigrationLoader) -> list[Table]:
    """Return the tables in scope as the database has them: between an update of the host and `migrate`, those of the
    version before. A backup of them is as whole as one that was made before the update. `history`: of the migrations.
    """
    database, today = database_of(), tables_here()
    models = schema.models_before_pending(database.connection, conf.exclude, history)
    if models is None:
        return today
    before = [_table(model) for model in models]
    known = {name for table in before for name in (table.label, table.db_table)}
    # The history of migrations may lack some that were applied.
    there = database.table_names() - known
    return [*before, *(table for table in today if table.db_table in there and table.label not in known)]


def unknown_parts(database: Database, tables: Iterable[Table], newer: Collection[str]) -> Iterator[Place]:
    """Yield what the database has and these tables do not: columns of migrations that were applied and not noted, or
    that this site does not have, and tables of the latter. `newer`: see `schema.unknown_apps`."""
    there = database.table_names()
    for table in tables:
        if table.db_table in there:
            known = {field.column for field in table.model._meta.local_concrete_fields}
            for name in sorted(database.column_names(table.db_table) - known):
                if table.model._meta.app_label in newer:
                    yield _of_newer_version(table.label, name)
                else:
                    yield no_place(table.label, name)
    models = {model._meta.db_table for model in apps.get_models(include_auto_created=True)}
    for name in sorted(there - models):
        if name.startswith(tuple(f"{app}_" for app in newer)):
            yield _of_newer_version(name, None)


def _of_newer_version(label: str, field: str | None) -> Place:
    return Place(label, None, field, _("it is of a newer version than this site: update the site first"))


def tables_outside(scope: Iterable[Table]) -> list[Table]:
    """Return the tables here that no backup holds. `scope`: those that backups do."""
    labels = {table.label for table in scope}
    return [table for table in tables_here(everything=True) if table.label not in labels]


def _all_models() -> list[Any]:

    models = [m for m in apps.get_models() if m._meta.managed and not m._meta.proxy and not m._meta.swapped]
    return [*filter(is_here, models)]

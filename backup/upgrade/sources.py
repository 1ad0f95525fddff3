"""What an upgrade loads into its scratch database: the records of a backup, or the rows of a database file."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

from django.apps import apps as live_apps
from django.core.exceptions import ValidationError
from django.db import DatabaseError
from django.utils.translation import gettext as _

from .. import babybuddy
from ..archive import Archive, Limits, Metadata, Writer, lines_of
from ..archive.metadata import DATABASE_FILE
from ..conf import aware_now, conf
from ..database.foreign_file import damage_explained
from ..database.sqlite import SQLite
from ..dump import counts_to_report, gc_paused, next_keys_of, unreadable, without_missing, write_records
from ..exceptions import InvalidBackup, InvalidRecord
from ..kinds import NATURAL
from ..options import Place, Places, Reporter
from ..scope import left_out_apps, models_in_scope
from ..tables import Batch, Table, place_of
from . import schema

#: The most bytes of rows that are read at a time, unless one row has more.
BATCH_BYTES = SQLite.BATCH_BYTES
#: The most migrations that are read. A site with many plug-ins has some hundreds.
MOST_APPLIED = 10 * Limits.names
#: The most bytes of the SQL that defines a table. It is read often; that of a real one has a few thousand.
MOST_SQL = 4 * 1024**2


class Source(ABC):
    """Data at the migrations that its `metadata` names."""

    metadata: Metadata
    #: The labels of apps here that the data has never seen.
    new_apps: Collection[str]

    @abstractmethod
    def begin(self) -> Collection[str]:
        """Begin to read. Returns the labels of its models."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Return model label -> number of rows."""

    def targets(self) -> Collection[str] | None:
        """Return the labels of the models to which references must lead to a row of its own; None: all models."""
        return None

    @abstractmethod
    def batches(self, table: Table, added: dict[str, Any]) -> Iterator[Batch]:
        """Yield the rows of a model, with every value checked. `added`: values of fields that the data does not have.

        Raises `InvalidBackup`.
        """

    @abstractmethod
    def complete(self) -> None:
        """End reading. Raises `Unreadable` if something could not be read."""


class BackupSource(Source):
    """The records of a backup."""

    def __init__(self, archive: Archive, left_out: Places | None = None) -> None:
        """`left_out`: collects fields that this site has no place for; None: they are an error."""
        self._archive, self._left_out = archive, left_out
        self.metadata = archive.metadata
        self.new_apps = schema.new_apps(archive.metadata)

    def begin(self) -> Collection[str]:
        return self.metadata.models.keys()

    def counts(self) -> dict[str, int]:
        return {label: member.records for label, member in self.metadata.models.items()}

    def targets(self) -> Collection[str]:
        # Its site left the other models out (`BACKUP_EXCLUDE`). Their rows may be here, which the restore finds out.
        return {*self.metadata.models, *NATURAL}

    def batches(self, table: Table, added: dict[str, Any]) -> Iterator[Batch]:
        for records in self._archive.records(table.label, table.needs_exact_json):
            _add_fields(records, added)
            if self._left_out is not None:
                _leave_out_additions(table, records, self._left_out)
                records = _without_gaps(table, records, self._left_out)
            try:
                if records:
                    yield table.batch_from(records)
            except InvalidRecord as error:
                if self._left_out is not None and self._archive.is_in_part(table.label):
                    yield from self._before_error(table, records, self._left_out)
                    return
                if any(_gaps(table, record) for record in records):
                    error.offer = "leave_out"
                raise

    def _before_error(self, table: Table, records: list[Any], left_out: Places) -> Iterator[Batch]:
        """Yield the records before the first that is not valid, where a member is damaged: it is cut off there."""
        for record in records:
            try:
                yield table.batch_from([record])
            except InvalidRecord as error:
                reason = _("%(reason)s; the records after it are left out, too") % {
                    "reason": error.message.rstrip(".")
                }
                left_out.add(place_of(table.label, error.pk, None, reason))
                return

    def complete(self) -> None:
        """Do nothing: what cannot be read ends in an error at once."""


def _add_fields(records: list[Any], added: dict[str, Any]) -> None:
    for record in records if added else ():
        if isinstance(record, dict) and isinstance(record.get("fields"), dict):
            record["fields"].update(added)


def _leave_out_additions(table: Table, records: list[Any], left_out: Places) -> None:
    """Remove fields from records that the model does not have, and add each to `left_out`."""
    for record in records:
        fields = record.get("fields") if isinstance(record, dict) else None
        if not isinstance(fields, dict):
            continue
        for name in [*fields]:
            if name not in table.names:
                del fields[name]
                place = no_place(table.label, name[:80])
                if place not in left_out.named:
                    left_out.add(place)


def _gaps(table: Table, record: Any) -> list[str]:
    """Return the fields that a record does not have, although its migrations say that its model did: a backup that was
    made between an update and `migrate` once lacked what the update would remove."""
    fields = record.get("fields") if isinstance(record, dict) else None
    return [name for name in table.names if name not in fields] if isinstance(fields, dict) else []


def _without_gaps(table: Table, records: list[Any], left_out: Places) -> list[Any]:
    """Return the records with the defaults of fields that they do not have; without those of which a field has none."""
    whole = []
    for record in records:
        missing = _gaps(table, record)
        values = {name: _default(table, name) for name in missing}
        for name in missing:
            lost = values[name] is _NONE
            place = place_of(table.label, record.get("pk") if lost else None, name, _("it is missing"))
            if place not in left_out.named:
                left_out.add(place)
        if _NONE not in values.values():
            if values:
                record["fields"].update(values)
            whole.append(record)
    return whole


#: Stands for the default of a field that has none.
_NONE = object()


def _default(table: Table, name: str) -> Any:
    column = next((column for column in table.nonkey_columns if column.name == name), None)
    if column is None:
        return []  # of a relation
    value = column.field.get_default()
    if value is None:
        return None if column.field.null else _NONE
    try:  # it may be written as a text
        return column.kind.dump(column.field.to_python(value))
    except (TypeError, ValueError, ValidationError):
        return _NONE


class DatabaseSource(Source):
    """The rows of a database file. Only the columns that Django knows at its migrations are read."""

    def __init__(self, reader: SQLite, *, leave_out: bool = False, lacks_log: bool = False) -> None:
        """`leave_out`: see `RestoreOptions`. `lacks_log`: see `sqlite_file`.

        Raises `InvalidBackup` if it is not a database of Baby Buddy; `RestoreRefused` if it is of a newer version;
        `TooLarge`.
        """
        self._reader, self._leave_out, self._lacks_log = reader, leave_out, lacks_log
        with damage_explained():
            if reader.longest_definition() > MOST_SQL:
                raise _not_baby_buddys()
            applied = _applied_migrations(reader)
            apps = {app for app, _name in applied}
            if not babybuddy.owns(apps):
                raise _not_baby_buddys()
            in_scope = apps_in_scope()
            loader = schema.OtherHistory(
                {app: [name for label, name in applied if label == app] for app in apps & in_scope}
            )
            schema.check_known(loader, "", leave_out=leave_out)
            migrations = schema.leaf_migrations(loader, apps & in_scope)
            has_todays = migrations == _todays(loader, in_scope & {app for app, _name in loader.graph.nodes})
            #: The apps of which all migrations are unknown here, so that nobody knows what their tables hold.
            self._pointless = sorted({app for app, _name in loader.unknown if not migrations[app]})
            models = (
                models_in_scope(exclude=conf.exclude) if has_todays else schema.models_at(loader, migrations)
            )
            #: The tables of its models, also those that are missing in the file.
            self._tables: list[Table] = []
            for table in map(Table, models):
                app = table.model._meta.app_label
                if app in migrations or (
                    app in loader.unmigrated_apps and reader.column_names(table.db_table)
                ):
                    migrations.setdefault(app, [])
                    self._tables.append(table)
            for table in self._present():
                _check_columns(reader, table)
            bound_batches(reader, self._present())
            next_keys = self._next_keys()
        #: The labels of apps that are not installed here.
        self.unknown_apps = sorted(apps - installed_apps())
        self.new_apps = in_scope - apps
        #: Whether it is at today's schema.
        self.is_of_today = has_todays and len(self._tables) == len(models)
        self.metadata = Metadata(
            timestamp=aware_now(),
            label=DATABASE_FILE,
            babybuddy_version=babybuddy.release(migrations),
            database_engine="sqlite",
            migrations=migrations,
            next_keys=next_keys,
        )

    def _next_keys(self) -> dict[str, int]:
        """Return what `next_keys_of` returns; {} if that cannot be read: the next keys then follow the highest ones."""
        if not self._reader.column_names("sqlite_sequence"):
            return {}
        try:
            next_keys = next_keys_of(self._reader, self._present(), leaves_out=self._leave_out)
        except (DatabaseError, OverflowError, TypeError, ValueError):
            # If tables are damaged, or keys are no numbers, that is found when their rows are read.
            return {}
        return {label: key for label, key in next_keys.items() if 0 < key <= 2**63}

    def _present(self) -> list[Table]:
        missing = self._reader.missing_tables(self._tables)
        return [table for table in self._tables if table.db_table not in missing]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out, and nothing may be missing."""
        return not (self._leave_out or self._lacks_log or self._reader.missing_tables(self._tables))

    def counts(self) -> dict[str, int]:
        with damage_explained():
            return counts_to_report(self._reader, self._present())

    def write(self, writer: Writer, reporter: Reporter) -> Places:
        """Write all rows to an archive, as they are. Returns the dangling references. Raises `Unreadable`."""
        self._collect()
        with damage_explained(), gc_paused():
            dangling = write_records(writer, self._reader, self._tables, reporter)
        self.complete()
        return dangling

    def begin(self) -> Collection[str]:
        self._by_label = {
            table.label: table for table in without_missing(self._reader, self._tables, self._collect())
        }
        return self._by_label.keys()

    def batches(self, table: Table, added: dict[str, Any]) -> Iterator[Batch]:
        own = self._by_label[table.label]
        with damage_explained():
            for batch in self._reader.batches(own):
                checked = table.checked(batch) if own.names == table.names else None
                if checked is None:  # add fields, or find the row that is wrong
                    records = json.loads(b"[%b]" % lines_of(own.record_template, batch))
                    _add_fields(records, added)
                    checked = table.batch_from(records)
                yield checked

    def complete(self) -> None:
        left_out = self.metadata.left_out
        if left_out and not self._leave_out:
            raise unreadable(left_out)
        if self._lacks_log:
            reason = _("its -wal file is not there, which may hold the latest entries")
            left_out.add(Place(DATABASE_FILE, None, None, reason))

    def _collect(self) -> Places:
        """Collect anew what cannot be read, and return where it is collected."""
        left_out = Places()
        self._reader.unreadable = left_out
        self.metadata = replace(self.metadata, left_out=left_out)
        for app in self._pointless:
            left_out.add(no_place(app, None))
        for table in self._tables if self._leave_out else ():
            for name in sorted(_additions(self._reader, table)):
                left_out.add(no_place(table.label, name))
        return left_out


def _applied_migrations(reader: SQLite) -> list[schema.MigrationKey]:
    if not reader.column_names("django_migrations") >= {"app", "name"}:
        raise _not_baby_buddys()
    ((count, longest),) = reader.fetch(
        "SELECT COUNT(*), MAX(LENGTH(CAST(app AS BLOB)) + LENGTH(CAST(name AS BLOB))) FROM django_migrations"
    )
    if count > MOST_APPLIED or (longest or 0) > 8 * Limits.name:
        raise _not_baby_buddys()
    applied = [(str(app), str(name)) for app, name in reader.fetch("SELECT app, name FROM django_migrations")]
    if any(len(text) > Limits.name for key in applied for text in key):
        raise _not_baby_buddys()
    return applied


def installed_apps() -> set[str]:
    return {config.label for config in live_apps.get_app_configs()}


def apps_in_scope() -> set[str]:
    """Return the labels of the apps whose data matters. One that has no models may have had some."""
    return (installed_apps() - left_out_apps()) | {model._meta.app_label for model in models_in_scope()}


def _todays(loader: schema.OtherHistory, app_labels: Iterable[str]) -> dict[str, list[str]]:
    """Return the migrations of an up-to-date database, as `schema.leaf_migrations` does."""
    return schema.leaves(loader, loader.graph.nodes, app_labels)


def _additions(reader: SQLite, table: Table) -> set[str]:
    """Return the columns of a table that Django does not know."""
    return reader.column_names(table.db_table) - {column.column for column in table.model._meta.local_fields}


def no_place(label: str, field: str | None) -> Place:
    return Place(label, None, field, _("this site has no place for it"))


def bound_batches(database: SQLite, tables: Iterable[Table]) -> None:
    """Limit how much is read at a time. Raises `TooLarge` if the rows are larger than a backup may be."""
    total = database.bound_batches(tables, BATCH_BYTES, Limits.record)
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

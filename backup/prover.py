"""Restores a backup into a throw-away database, and compares every value, or a second backup, with it: the child
process of `proof`.

See `upgrade.child` for how it gets its order, and what it can access.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from django.conf import settings
from django.core.management import call_command
from django.core.management.commands import migrate
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.utils.translation import gettext as _

from . import babybuddy, proof
from .archive import Archive, Key, Keys, Photo, open_archive, with_photos
from .archive.names import shown
from .archive.photos import PhotoFolder
from .conf import conf
from .database import Database, database_of, refuse_dangling
from .exceptions import Mismatch, RecordsRefused
from .media import NamedPhoto
from .options import Places, RestoreMode, RestoreOptions
from .restore.members import not_restored
from .restore.photos import Placing
from .restore.records import RecordReader
from .scope import elsewhere, excluded, models_in_scope
from .tables import Row, Table, describe, places_in_words
from .upgrade import process, schema
from .upgrade.child import ParentReporter, explained, serve
from .upgrade.worker import upgrade

#: Added to the priority number of the process, since nobody waits for it.
NICE = 10


def main() -> None:
    serve(_work)


def _work(order: dict[str, Any], folder: Path, reporter: ParentReporter) -> dict[str, Any]:
    with suppress(AttributeError, OSError):  # Windows; a system that does not allow it
        os.nice(NICE)
    keys = [Key.parse(text) if text else None for text in order["keys"]]
    with explained(reporter):
        path = _at_todays_schema(order, folder, reporter, keys[0])
        if order["job"] == "compare":
            return _compare(path, folder / proof.OTHER, keys, leave_out=order["leave_out"])
        return _prove(path, folder, order, keys[0], reporter)


def _at_todays_schema(order: dict[str, Any], folder: Path, reporter: ParentReporter, key: Key | None) -> Path:
    """Build the scratch database at the site's schema. Returns the file whose records have that schema, too."""
    path = folder / process.SOURCE
    if order["is_older"]:
        upgrade(folder, reporter, edited=order["edited"], leave_out=order["leave_out"], key=key)
        path = folder / process.UPGRADED
    if not connection.introspection.table_names():  # a database file that needed no migration has its tables
        _build_schema()
    return path


class _NoMigrations(dict[str, None]):
    """Value of MIGRATION_MODULES by which no app has migrations, so that Django creates the tables from the models."""

    def __contains__(self, label: object) -> bool:
        return True

    def __missing__(self, label: str) -> None:
        return None


def _build_schema() -> None:
    """Create all tables from the models, and record all migrations as applied: running them takes ten times as long."""
    before = settings.MIGRATION_MODULES
    settings.MIGRATION_MODULES = _NoMigrations()
    try:
        # Django's own command, since the host's also creates a user with a well-known password.
        call_command(migrate.Command(), verbosity=0, interactive=False, run_syncdb=True)
    finally:
        settings.MIGRATION_MODULES = before
    recorder = MigrationRecorder(connection)
    recorder.ensure_schema()
    loader = MigrationLoader(None, ignore_no_migrations=True)
    applied = {noted for key in loader.graph.nodes for noted in schema.with_replaced(loader, key)}
    recorder.Migration.objects.bulk_create(
        recorder.Migration(app=app, name=name) for app, name in sorted(applied)
    )


# -- a proof ---


def _prove(
    path: Path, folder: Path, order: dict[str, Any], key: Key | None, reporter: ParentReporter
) -> dict[str, Any]:
    from . import services  # only now, since it reads the settings
    from .restoring import leave_out_damaged

    database, edited, leave_out = database_of(), order["edited"], order["leave_out"]
    options = RestoreOptions(
        RestoreMode.CLEAR, clear_unknown_apps=True, edited=edited, leave_out=leave_out, as_it_was=True
    )
    text = _("%(value)s cannot be stored in SQLite, where it would be proved")
    with (
        _opened(path, folder) as source,
        open_archive(source, edited=edited, lenient=leave_out, keys=Keys(key)) as archive,
    ):
        leave_out_damaged(archive, _tables(), options, database)
        # Only the site's own database has a table for it. What the site itself leaves out is excluded here.
        for label in ({*elsewhere()} - {*conf.exclude}) & archive.metadata.models.keys():
            if archive.metadata.models[label].records:
                return {"unknown": text % {"value": label}}
        tables = [table for table in _tables() if table.label in archive.metadata.models]
        photos = archive.metadata.photos
        wanted = {name: photo for name, photo in photos.items() if photo.sha256 not in order["photos_known"]}
        _check_photos_are_there(archive, wanted)
        _check_values(archive, tables, database)
        try:
            result = services.restore_backup(source, options, reporter=reporter, key=key)
        except RecordsRefused:
            if reason := _not_held(archive, tables, database, text):
                return {"unknown": reason}
            raise
        named = _place_photos(archive, tables, wanted, reporter)
        with (folder / "proved.zip").open("w+b") as target:
            services.create_backup(
                target, reporter=reporter, photos=bool(wanted), store=_Checksums() if wanted else None
            )
            with open_archive(target) as again:
                if not any(
                    map(archive.is_in_part, archive.metadata.models)
                ):  # otherwise more references lead nowhere
                    _check_references(archive.metadata.dangling, again.metadata.dangling)
                _compare_records(archive, again, tables, database_of())
                _compare_photos({name: wanted[name] for name in named}, again.metadata.photos)
            left_out = places_in_words(archive.metadata.left_out) if leave_out else []
            left_out += not_restored(archive.metadata, _tables(), excluded(conf.exclude))
    return {
        "records": result.records,
        "photos": len(photos),
        "photos_known": len(photos) - len(wanted),
        "left_out": left_out,
    }


def _opened(path: Path, folder: Path) -> BinaryIO:
    """Open a backup together with the photos that lie beside it; the parent has copied them into the folder."""
    return with_photos(path.open("rb"), PhotoFolder(folder / proof.PHOTOS))


def _tables() -> list[Table]:
    return [Table(model) for model in models_in_scope(exclude=conf.exclude)]


def _check_values(archive: Archive, tables: list[Table], database: Database) -> None:
    """Check all values as a restore does before it begins. Raises `InvalidBackup`.

    The trial restore itself is done like an undo, which restores values as they are, without these checks.
    """
    reader = RecordReader(archive, babybuddy.validators(database))
    for table in tables:
        for _batch in reader.batches(table):
            pass


def _not_held(archive: Archive, tables: list[Table], database: Database, text: str) -> str:
    """Return a line that names a value of the backup which only other databases can hold; "" if it has none. `text`:
    what the line says of it."""
    for table in tables:
        for batch in RecordReader(archive).batches(table):
            for place, column in enumerate(table.columns):
                for key, value in zip(batch[0], batch[place], strict=True):
                    if value is not None and not database.can_hold(column, value):
                        return describe(
                            table.label, str(key), column.name, text % {"value": column.shown(value)}
                        )
    return ""


def _check_references(before: Places, after: Places) -> None:
    """Raise `RecordsRefused` if references are dangling that the backup does not list as dangling.

    A restore would refuse these. Those that are listed were dangling when the backup was made.
    """
    if after.total > before.total:
        known = {(place.model, str(place.pk), place.field) for place in before.named}
        new = [p for p in after.named if (p.model, str(p.pk), p.field) not in known]
        refuse_dangling([describe(p.model, p.pk, p.field, p.reason) for p in new or after.named])


def _compare_records(archive: Archive, again: Archive, tables: list[Table], database: Database) -> None:
    """Raise `Mismatch` if the records of a model differ between the file and the database, of which `again` was made.
    It names the first one that does."""
    for table in tables:
        before, after = archive.metadata.models[table.label], again.metadata.models[table.label]
        if before.sha256 == after.sha256:
            continue
        # The same values may be laid out differently, for example in a file that somebody edited. Nor need they be in
        # the same order: each engine sorts texts, UUIDs and addresses in its own.
        records = 0
        for rows in RecordReader(archive).rows(table):
            records += len(rows)
            by_key = {row[0]: row for row in rows}
            for keys in database.portions(table, [*by_key]):
                here = database.rows_by_key(table, keys)
                for key in keys:
                    if key not in here or not database.is_here(table, by_key[key], here[key]):
                        raise _mismatch(_difference(table, by_key[key], here.get(key), database))
        if records != database.count(table):
            raise _mismatch(_difference(table, None, _more(archive, table, database), database))


def _more(archive: Archive, table: Table, database: Database) -> Row | None:
    """Return a row of the database that is not in the file."""
    keys = {key for batch in RecordReader(archive).batches(table) for key in batch[0]}
    rows = (row for batch in database.batches(table) for row in zip(*batch, strict=True))
    return next((row for row in rows if row[0] not in keys), None)


def _check_photos_are_there(archive: Archive, wanted: Mapping[str, Photo]) -> None:
    for photo in wanted.values():
        if not archive.has_photo(photo):
            raise Mismatch(_("The photo “%(name)s” is missing.") % {"name": shown(photo.name)})


def _place_photos(
    archive: Archive, tables: list[Table], wanted: Mapping[str, Photo], reporter: ParentReporter
) -> list[str]:
    """Restore the photos into the temporary media folder. Returns the names of those that records name; the others are
    only read, and so are those whose names that folder cannot have, since the site's storage may. Raises
    `InvalidBackup` if one is damaged."""
    placing = Placing(archive, reporter, as_it_was=True)
    placing.decide(RecordReader(archive, as_it_was=True), tables, lambda _table, batch: batch)
    placing.place(lambda files: None)
    named = [name for name in placing.there() if name in wanted]
    for name in wanted.keys() - {*named}:
        for _block in archive.read(wanted[name]):
            pass
    return named


class _Checksums:
    """A `dump.Store` that only collects the checksums of photos."""

    def begin(self, key: Key | None) -> None:
        pass

    def known(self, named: NamedPhoto) -> Photo | None:
        return None

    def add(self, photo: Photo, content: BinaryIO) -> None:
        pass

    def pass_over(self) -> None:
        pass


def _compare_photos(before: Mapping[str, Photo], after: Mapping[str, Photo]) -> None:
    """Raise `Mismatch` if a photo changed. It names the first one."""
    for name, photo in before.items():
        if name not in after or after[name].sha256 != photo.sha256:
            raise _mismatch(_("the photo “%(name)s” is not what it was") % {"name": shown(name)})


def _mismatch(difference: str) -> Mismatch:
    return Mismatch(_("What came back is not what is in the file:"), [difference])


def _difference(table: Table, old: Row | None, new: Row | None, database: Database) -> str:
    if old is None or new is None or old[0] != new[0]:
        key = (old or new or [None])[0]
        reason = _("it is in one of them only")
        return describe(table.label, str(key), None, reason)
    name = database.differing(table, old, new)[0]
    return describe(table.label, str(old[0]), name, _("it has another value"))


# -- a comparison ---


def _compare(path: Path, other: Path, keys: list[Key | None], *, leave_out: bool) -> dict[str, Any]:
    from . import services
    from .restoring import leave_out_damaged

    options = RestoreOptions(RestoreMode.CLEAR, clear_unknown_apps=True, leave_out=leave_out, as_it_was=True)
    with (
        path.open("rb") as source,
        open_archive(source, lenient=leave_out, keys=Keys(keys[0])) as archive,
    ):
        leave_out_damaged(archive, _tables(), options, database_of())
        left_out = places_in_words(archive.metadata.left_out)
        try:
            services.restore_backup(source, options, key=keys[0])
        except RecordsRefused:
            text = _("%(value)s cannot be stored in SQLite, where backups are compared")
            tables = [table for table in _tables() if table.label in archive.metadata.models]
            if line := _not_held(archive, tables, database_of(), text):
                raise RecordsRefused(line) from None
            raise
    with other.open("rb") as source:
        plan = services.inspect_backup(source, options, key=keys[1])
    return {
        "changes": {label: change.as_json() for label, change in plan.changes.items()},
        "left_out": [*left_out, *places_in_words(plan.metadata.left_out)] if leave_out else [],
    }


if __name__ == "__main__":
    main()

"""Copies the rows of a database into an archive, column by column, and the photos that they name."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import chain
from typing import BinaryIO, Protocol

from django.db import DatabaseError, transaction
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .archive import Key, Photo, Writer, lines_of
from .archive.names import shown
from .archive.photos import BLOCK, IN_MEMORY
from .database import Database, is_checked
from .exceptions import Unreadable
from .kinds import NATURAL, Plain
from .media import NamedPhoto, NamedPhotos, PhotoReader, UnreadablePhotoError
from .options import PHOTOS, SILENT, Places, RecordCounter, Reporter
from .tables import (
    Column,
    Table,
    describe,
    nothing_there,
    owner_of,
    place_of,
    places_in_words,
    refers_to_nothing,
)

#: How many missing photos are named one by one.
MOST_WARNINGS = 100


@contextmanager
def gc_paused() -> Iterator[None]:
    """Switch Python's garbage collector off: among millions of rows it would take a third of the time, and none of them
    are part of a reference cycle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def write_records(
    writer: Writer,
    reader: Database,
    tables: Sequence[Table],
    reporter: Reporter = SILENT,
    photos: NamedPhotos | None = None,
) -> Places:
    """Write all rows of the tables, as `reader` reads them, to the archive. Returns the dangling references.

    If `reader` leaves out what cannot be read, it also leaves out missing tables. `photos`: collects the files that the
    rows name.
    """
    if reader.unreadable is not None:
        tables = without_missing(reader, tables, reader.unreadable)
    expected = 0 if reporter is SILENT else sum(counts_to_report(reader, tables).values())
    counter = RecordCounter(reporter, expected)
    references = References(tables)
    for table in tables:
        writer.add(table.label, _lines(reader, table, counter, references, photos))
    return references.dangling()


def counts_to_report(reader: Database, tables: Iterable[Table]) -> dict[str, int]:
    """Return model label -> number of rows, for a progress bar; 0 if damage keeps them from being counted.

    They may be readable all the same: SQLite counts by an index, and that may be damaged.
    """
    counts: dict[str, int] = {}
    # In a transaction, a server would answer nothing from an error on.
    savepoint = (
        partial(transaction.atomic, reader.connection.alias)
        if reader.connection.in_atomic_block
        else nullcontext
    )
    for table in tables:
        try:
            with savepoint():
                counts[table.label] = reader.count(table)
        except DatabaseError as error:
            if not reader.is_damage(error):
                raise
            counts[table.label] = 0
    return counts


def next_keys_of(reader: Database, tables: Sequence[Table], *, leaves_out: bool) -> dict[str, int]:
    """Return model label -> the key of the next row, for models where that is not the one after the highest key.
    `leaves_out`: whether the backup may lack the row with the highest key; then for all models."""
    missing = reader.missing_tables(tables).values()
    try:
        keys = reader.next_keys([table for table in tables if table not in missing])
        return {
            table.label: key
            for table, key in keys.items()
            if leaves_out or key != (reader.highest_key(table) or 0) + 1
        }
    except DatabaseError as error:
        if reader.unreadable and reader.is_damage(error):
            return {}
        raise


def without_missing(reader: Database, tables: Sequence[Table], unreadable: Places) -> list[Table]:
    """Return the tables that are there, and add the others to `unreadable`. Relations whose table is missing are added,
    too, and read as empty ones."""
    reader.missing = missing = reader.missing_tables(tables)
    for name, table in missing.items():
        if name == table.db_table or table.db_table not in missing:
            field = next((relation.name for relation in table.relations if relation.db_table == name), None)
            reason = _("the table %(table)s is missing in the database") % {"table": name}
            unreadable.add(place_of(table.label, None, field, reason))
    return [table for table in tables if table.db_table not in missing]


def _lines(
    database: Database,
    table: Table,
    counter: RecordCounter,
    references: References,
    photos: NamedPhotos | None,
) -> Iterator[tuple[int, bytes]]:
    counter.begin(table.label)
    for columns in database.batches(table):
        references.see(table, columns)
        if photos is not None:
            photos.see(table, columns)
        yield len(columns[0]), lines_of(table.record_template, columns)
        counter.add(table.label, len(columns[0]))


class Store(Protocol):
    """Stores photos outside the archive."""

    def begin(self, key: Key | None) -> None:
        """Set the key that the archive is encrypted with; None if it is not."""

    def known(self, named: NamedPhoto) -> Photo | None:
        """Return the stored photo for one that need not be read; None if it has to be read."""

    def add(self, photo: Photo, content: BinaryIO) -> None:
        """Store the content of a photo. Raises `UnreadablePhotoError` if that is not possible."""

    def pass_over(self) -> None:
        """Note that a photo is left out, since the archive has as many as it may have."""


def write_photos(
    writer: Writer, photos: NamedPhotos, reporter: Reporter = SILENT, store: Store | None = None
) -> list[str]:
    """Write photos to the archive; or, with `store`, store their content there, and only list them in the archive.

    Returns a warning about each photo that is not in the backup: the rows were read before, so a photo that they name
    may have been deleted since.
    """
    reader = PhotoReader()
    warnings: list[str] = []
    more = 0
    for done, (name, same) in enumerate(photos, 1):
        if store is not None and writer.is_full_of_photos:
            store.pass_over()
        if reason := writer.fault_of_photo(name) or _write_photo(writer, reader, name, same, store):
            if len(warnings) < MOST_WARNINGS:
                warnings.append(_warning(same[0], reason))
            else:
                more += 1
        reporter.progress(PHOTOS, done, len(photos))
    if more:
        text = ngettext(
            "%(n)s more photo is not in the backup.", "%(n)s more photos are not in the backup.", more
        )
        warnings.append(text % {"n": more})
    return warnings


def _write_photo(
    writer: Writer, reader: PhotoReader, name: str, same: Sequence[NamedPhoto], store: Store | None
) -> str:
    """Write the photo of this name. Returns why it cannot be written; "" if it was.

    `same`: one for each storage that it may be in. If several storages have different files of this name, none is
    written, since nobody could tell which of them a record means.
    """
    if store is not None and len(same) == 1 and (known := store.known(same[0])):
        writer.list_photo(name, known.sha256, known.size)
        return ""
    read: set[tuple[str, int]] = set()
    with ExitStack() as stack:
        for photo in same:
            file = stack.enter_context(tempfile.SpooledTemporaryFile(IN_MEMORY))
            try:
                read.add(reader.read(photo, file))  # type: ignore[arg-type]
            except UnreadablePhotoError as error:
                return str(error)
        if len(read) > 1:
            return _("there are different files of this name")
        checksum, size = read.pop()
        file.seek(0)
        if store is None:
            writer.add_photo(name, iter(lambda: file.read(BLOCK), b""))
            return ""
        try:
            store.add(Photo(name, checksum, name, size), file)  # type: ignore[arg-type]
        except UnreadablePhotoError as error:
            return str(error)
        writer.list_photo(name, checksum, size)
    return ""


def _warning(photo: NamedPhoto, reason: str) -> str:
    place = place_of(photo.label, photo.key, photo.field, f"{shown(photo.name)}, {reason}")
    line = describe(place.model, place.pk, place.field, place.reason)
    return _("A photo is not in the backup: %(place)s.") % {"place": line}


def unreadable(places: Places, *, is_migrated: bool = True, is_newer: bool = False) -> Unreadable:
    """Return the error that names what cannot be read. `is_migrated`: whether all migrations are applied. `is_newer`:
    whether others are, too."""
    if not is_migrated:
        message = _(
            "This site's own database is not up to date, so not all of it can be read. Run “manage.py migrate” first, "
            "or make a backup of all but this:"
        )
        return Unreadable(message, places_in_words(places))
    if is_newer:
        message = _(
            "This site's own database was made by a newer version than this one, so not all of it can be read. Update "
            "the site first, or make a backup of all but this:"
        )
        return Unreadable(message, places_in_words(places))
    message = ngettext(
        "%(n)s value in the database cannot be read. Mend it, or make a backup of all but this value:",
        "%(n)s values in the database cannot be read. Mend them, or make a backup of all but these values:",
        places.total,
    )
    return Unreadable(message % {"n": places.total}, places_in_words(places))


#: A model and the field that others refer to.
Target = tuple[str, str]
#: Returns which of some values of a column that others refer to are in rows that were not added, or are the same to the
#: database as those in rows that were (the third argument).
Elsewhere = Callable[[Column, Set[Plain], Set[Plain]], Collection[Plain]]
#: Stands for the key of a model in a `Target` of generic references, which may hold keys as texts.
ANY_KEY = ""


class References:
    """Finds dangling references among the rows of some tables.

    Only keys that others can refer to are held in memory: those of children, users and tags, for example, but not those
    of entries.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        elsewhere: Elsewhere = lambda _column, _values, _known: (),
        targets: Collection[str] | None = None,
        generic: Mapping[str, Set[str]] | None = None,
    ) -> None:
        """`tables`: in the order in which their rows are added. `elsewhere`: where else a row may be. `targets`: labels
        of the models to which references are checked; by default, those of the tables. `generic`: label of a model to
        which generic references are checked -> the keys in these, as texts; by default, none are."""
        self._elsewhere = elsewhere
        self._order = {table.label: number for number, table in enumerate(tables)}
        targets = self._order.keys() if targets is None else targets
        self._keys: dict[Target, set[Plain]] = {}
        #: The columns that are referred to.
        self._columns: dict[Target, Column] = {}
        #: Table -> (position in a batch, name, column) of each reference.
        self._places: dict[Table, list[tuple[int, str, Column]]] = {}
        #: The same of each reference by natural key, to rows that are in no backup. If it is dangling, it is a number.
        self._natural: dict[Table, list[tuple[int, str, Column]]] = {}
        for table in tables:
            checked = checked_references(table)
            self._places[table] = [part for part in checked if part[2].refers_to in targets]
            self._natural[table] = [part for part in checked if part[2].refers_to in NATURAL]
        for column in [column for places in self._places.values() for _place, _name, column in places]:
            self._keys[target_of(column)] = set()
            self._columns[target_of(column)] = Column.of(column.field.target_field)  # type: ignore[attr-defined]
        self._generic = generic or {}
        self._keys |= {(label, ANY_KEY): set() for label in self._generic}
        #: The dangling references.
        self._dangling = Places()
        #: The values that lead to nothing. None: they are not collected, since there may be as many as rows.
        self.missing: dict[Target, set[Plain]] | None = None
        #: Keys that were referred to before they were seen, since the table refers to itself or to a later one -> the
        #: rows that refer to them. These are dangling if the key is never seen.
        self._waiting: dict[Target, dict[Plain, Places]] = {target: {} for target in self._keys}

    def see(self, table: Table, batch: Sequence[Sequence[Plain]]) -> None:
        """Add some rows."""
        for place, column in enumerate(table.columns):
            if (target := (table.label, column.name)) in self._keys:
                self._arrive(target, batch[place])
        if wanted := self._generic.get(table.label):
            load = table.key.kind.load
            self._arrive((table.label, ANY_KEY), wanted & {str(load(key)) for key in batch[0]})
        for place, name, column in self._places[table]:
            target = target_of(column)
            known, waiting = self._keys[target], self._waiting[target]
            may_come = self._order.get(target[0], -1) >= self._order[table.label]
            is_relation = place >= len(table.columns)
            values = chain.from_iterable(batch[place]) if is_relation else batch[place]
            unknown = {*values} - known - {None}
            if unknown and not may_come:
                known.update(self._elsewhere(self._columns[target], unknown, known))
                unknown -= known
                self._miss(target, unknown)
            for key, own in zip(batch[0], batch[place], strict=True) if unknown else ():
                for value in unknown.intersection(own if is_relation else [own]):
                    places = waiting.setdefault(value, Places()) if may_come else self._dangling
                    _add(places, table, key, name, column, value)
        for place, name, column in self._natural[table]:
            is_relation = place >= len(table.columns)
            if int in map(type, chain.from_iterable(batch[place]) if is_relation else batch[place]):
                for key, own in zip(batch[0], batch[place], strict=True):
                    for value in own if is_relation else [own]:
                        if type(value) is int:
                            self._miss(target_of(column), {value})
                            _add(self._dangling, table, key, name, column, value)
        for type_place, place in needed_generics(table) if self._generic else ():
            name = table.columns[place].name
            for key, content_type, value in zip(batch[0], batch[type_place], batch[place], strict=True):
                target = owner_of(content_type), ANY_KEY
                if target in self._keys and value is not None and str(value) not in self._keys[target]:
                    places = self._waiting[target].setdefault(str(value), Places())
                    places.add(place_of(table.label, key, name, nothing_there(target[0], value)))

    def dangling(self) -> Places:
        """Return the dangling references, when all rows were added."""
        for target, waiting in self._waiting.items():
            found: Collection[Plain] = ()
            if waiting and target in self._columns:
                found = {*self._elsewhere(self._columns[target], waiting.keys(), self._keys[target])}
            self._miss(target, waiting.keys() - {*found})
            for value, places in waiting.items():
                if value not in found:
                    self._dangling.extend(places)
            waiting.clear()
        return self._dangling

    def _arrive(self, target: Target, values: Collection[Plain]) -> None:
        self._keys[target].update(values)
        if arrived := self._waiting[target]:
            for value in arrived.keys() & values:
                del arrived[value]

    def _miss(self, target: Target, values: Set[Plain]) -> None:
        if values and self.missing is not None:
            self.missing.setdefault(target, set()).update(values)


def checked_references(table: Table) -> list[tuple[int, str, Column]]:
    """Return (position in a batch, name, column) of each reference that must lead to a row."""
    own = [(place, column.name, column) for place, column in enumerate(table.columns)]
    related = [
        (place, relation.name, relation.target)
        for place, relation in enumerate(table.relations, len(table.columns))
    ]
    return [part for part in (*own, *related) if is_checked(part[2])]


def needed_generics(table: Table) -> list[tuple[int, int]]:
    """Return the generic references that a row cannot be without: those of tags, but not those of a log, whose entries
    stay when what they tell of is deleted. See `Table.generics`."""
    return [
        (type_place, place) for type_place, place in table.generics if not table.columns[place].field.null
    ]


def target_of(column: Column) -> Target:
    """Return what a reference refers to."""
    return column.refers_to, column.field.target_field.name  # type: ignore[attr-defined]


def _add(places: Places, table: Table, key: Plain, name: str, column: Column, value: Plain) -> None:
    """Add a dangling reference. Its words take most of the time, so there are none where it is only counted."""
    if places.is_full:
        places.total += 1
    else:
        places.add(place_of(table.label, key, name, refers_to_nothing(column, value)))

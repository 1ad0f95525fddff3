"""Copies the rows of a database into an archive, column by column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .archive import Writer, lines_of
from .database import Database
from .exceptions import Unreadable
from .kinds import Plain
from .options import SILENT, Place, Places, RecordCounter, Reporter
from .tables import Batch, Column, Table, place_of, places_in_words


def write_records(
    writer: Writer, reader: Database, tables: Sequence[Table], reporter: Reporter = SILENT
) -> Places:
    """Write all rows of the tables, as `reader` reads them, to the archive. Returns those that point at nothing.

    Where `reader` leaves out what cannot be read, that goes for tables which are missing, too.
    """
    if reader.unreadable is not None:
        names = reader.missing_tables(tables)
        missing = [table for table in tables if table.db_table in names]
        for table in missing:
            reason = _("the table %(table)s is missing in the database") % {"table": table.db_table}
            reader.unreadable.add(place_of(table.label, None, None, reason))
        tables = [table for table in tables if table not in missing]
    expected = 0 if reporter is SILENT else sum(reader.count(table) for table in tables)
    counter = RecordCounter(reporter, expected)
    references = References(tables)
    for table in tables:
        writer.add(table.label, _lines(reader, table, counter, references))
    return references.dangling()


def _lines(
    database: Database, table: Table, counter: RecordCounter, references: References
) -> Iterator[tuple[int, bytes]]:
    for columns in database.batches(table):
        references.see(table, columns)
        yield len(columns[0]), lines_of(table.record_template, columns)
        counter.add(table.label, len(columns[0]))


def unreadable(places: Places, *, is_migrated: bool = True) -> Unreadable:
    """Return the error that names what nobody can read. `is_migrated`: whether the database is up to date."""
    if not is_migrated:
        message = _(
            "This site's own database is not up to date, so not all of it can be read. Run “manage.py migrate” first, "
            "or make a backup of all but this:"
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


class References:
    """Finds the rows of some tables that refer to a row which is not among them.

    In memory are only the keys that others can refer to: those of children, users, tags, say, and not of entries.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        labels = {table.label for table in tables}
        self._keys: dict[Target, set[Plain]] = {}
        #: Table -> (position in a batch, name, what it refers to) of each reference.
        self._places: dict[Table, list[tuple[int, str, Target]]] = {}
        for table in tables:
            columns = [(place, column.name, column) for place, column in enumerate(table.columns)]
            related = [
                (place, relation.name, relation.target)
                for place, relation in enumerate(table.relations, len(table.columns))
            ]
            self._places[table] = [
                (place, name, _target(column))
                for place, name, column in (*columns, *related)
                if column.refers_to in labels
                and not column.is_natural
                and getattr(column.field, "db_constraint", True)
            ]
        for target in [target for places in self._places.values() for _place, _name, target in places]:
            self._keys[target] = set()
        #: What was referred to before it came, if it comes.
        self._waiting: dict[tuple[Target, Plain], list[Place]] = {}

    def see(self, table: Table, batch: Batch) -> None:
        """Take note of some rows."""
        for place, column in enumerate(table.columns):
            if (table.label, column.name) in self._keys:
                self._keys[table.label, column.name].update(batch[place])
        for place, name, target in self._places[table]:
            known = self._keys[target]
            is_relation = place >= len(table.columns)
            values = chain.from_iterable(batch[place]) if is_relation else batch[place]
            unknown = {*values} - known - {None}
            for key, own in zip(batch[0], batch[place], strict=True) if unknown else ():
                for value in unknown.intersection(own if is_relation else [own]):
                    reason = _("it refers to %(model)s %(key)s, which is not there") % {
                        "model": target[0],
                        "key": value,
                    }
                    self._waiting.setdefault((target, value), []).append(
                        place_of(table.label, key, name, reason)
                    )

    def dangling(self) -> Places:
        """Return the rows that refer to nothing, once all were seen."""
        places = Places()
        for (target, value), waiting in self._waiting.items():
            for place in waiting if value not in self._keys[target] else ():
                places.add(place)
        return places


def _target(column: Column) -> Target:
    target = column.field.target_field  # type: ignore[attr-defined]
    return column.refers_to, target.name

"""`Database`: what all engines share, and the hooks that the module of an engine implements.

To add an engine: a module with a subclass of `Database` that implements these hooks, a line in `VENDORS`, and the
conformance suite (`tests/unit/database/test_conformance.py`) run on it. That is all that there is to read; the other
methods, in `session`, `conversion`, `reading` and `writing`, are written in terms of them.

A subclass must say

`vendor`
    Django's `connection.vendor`.
`lock(job)`
    A context that one process holds at a time for each `Job`, among all processes and machines that use the database.
    Raises `Busy` at once if another holds it; is free as soon as its holder has died, however it died.
`lock_out_writers(tables)`
    The first statements of a restore's transaction: wait until nobody is writing to these tables and their relations,
    then let nobody else write to them until the transaction ends. What was acknowledged before is seen afterwards by
    every read. Readers go on. Raises `Busy` after `LOCK_SECONDS`, or an `OperationalError`.
`change_marker(tables)`
    A value that is another one as soon as somebody has changed rows of these tables; equal values promise that nothing
    was changed between. It may change without need. Of a snapshot: as of its moment, or of one before. None if the
    database does not say.
`length_of(name)`
    SQL for the bytes of a quoted column.
`month_of(name)`
    SQL for the month, "2026-11" or 202611, of a quoted column of dates or of moments (in UTC).
`size()`
    The bytes that the database takes, None if that cannot be told.
`reset_sequences(tables)`
    After it, the next row of each table, and of each relation, gets a key that is free, even if the restore is
    rolled back.
`next_keys(tables)`
    Table -> the key that its next row gets, for the tables whose keys the database gives by itself. A table of which
    it does not say so is left out.
`set_next_keys(next_keys)`
    Have the next row of each table get this key; where rows have it or higher ones, the one after the highest. It is
    undone with the transaction, unless the vendor says `KEYS_AFTER_COMMIT`: then it is called after that.
`passes(error)`
    Whether what an `OperationalError` of the driver's says passes by itself: a lock, a connection that was lost.

A subclass may say, to be right

`begin_snapshot()`
    The first statements of a snapshot's transaction: all that it reads is of one moment, though others write, and to
    the letter (see `exact_session`). A vendor whose readers hold up writers overrides `snapshot` as a whole.
`exact_session()`
    A context in which values are read and written to the letter, whatever the site sets for its sessions. It is entered
    for a restore as a whole and again for its transaction.
`without_transactions(tables)`, `without_all_characters(tables)`
    For each table whose changes cannot be undone, or that cannot hold every character, the statement that mends that.
`folds_texts`, `collation(table, column)`, `weights(collation, texts)`, `distinguishing(table)`
    Whether different texts may be the same to it; for which columns, which texts, and the statement that mends that.
`acts_on_delete()`
    Whether to delete a row that others refer to may do more than that inside of `restoring`: change or delete rows, by
    a trigger or a reference that cascades, or fail, by one that is checked at once. Such are not of Django's making,
    but somebody's own, or another tool's. It may say so without need.
`restore_settings()`
    A context around a restore's transaction: no value is cut or rounded to fit, 0 is a key like any other, a row may
    refer to one that comes later. Puts back what was set.
`defer_constraints()`, `check_deferred_constraints()`
    The same inside of the transaction, where an engine can defer its checks: as it begins, and at the end.
`is_about_a_record(error)`
    Whether an `OperationalError` of the driver's is the fault of one record, rather than of the whole.
`is_damage(error)`
    Whether the driver's error says that the database is damaged, or lacks a table.
`can_hold(column, value)`, `BOUNDED`
    Whether a plain value comes back as it was, and the kinds of which some values do not. Those are refused by name;
    `writer_of` must not let them pass either.
`takes_dangling`
    Whether a row that points at nothing can be written inside of `restoring`.
`damage(tables)`, `file()`, `copy_file(target)`
    What is wrong with the database as such; where it is one file: its path, and a copy of it.
`damaged_tables(tables)`, `made_anew(tables, damaged)`
    Which tables of a server are damaged as such, and a context around a restore that makes them anew.
`cursor()`, `quote(name)`, `table_names()`
    A cursor of the driver's, a quoted name, the names of all tables; where what Django gives does not serve.
`recover()`
    What lets a snapshot go on after a query that failed.
`unknown_time_zones(names)`
    Those of the zones that the database cannot compute with, though Python can.

and may say, to be fast, if a test holds it equal to the plain path

`fast_reader(column)`, `fast_writer(column)`
    A conversion for kinds that this driver gives, or takes, in a form close to the plain one; None for others.
`pack_rows(columns, values)`, `insert_packed_rows(db_table, columns, data)`
    Rows as bytes, and their way into a table. `pack_rows` runs outside of the transaction.
`insert_all_packed_rows(db_table, columns, data)`
    The same for several batches at once.
`update_rows(table, values)`
    Many rows written over those with their keys.
`to_batch(…)`, `BATCH`
    What the driver gave as plain columns; the rows of one query.

The SQL of the shared modules is what these engines have in common, no more: `LIMIT` (the standard's `FETCH FIRST` is
unknown to SQLite and MySQL), `INSERT` with several rows, `IN` with a list, `UNION ALL`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.utils.translation import gettext as _

from ..options import Places
from ..scope import is_here
from ..tables import MAX_NAMED, Column, Relation, Table, describe, place_of
from .salvage import Salvage
from .writing import Writing

#: Rows that point at nothing are left out so many at a time.
MOST_AT_ONCE = 1000


@dataclass(frozen=True)
class DanglingRow:
    """A row, or a pair of a relation, that refers to a row which is not there. Keys are as the driver gives them."""

    table: Table
    relation: Relation | None
    column: Column
    key: Any
    value: Any

    @property
    def name(self) -> str:
        """The name of the field."""
        return self.relation.name if self.relation else self.column.name

    @property
    def is_whole(self) -> bool:
        """Whether the row makes no sense without what it refers to."""
        return not self.relation and not self.column.field.null

    @property
    def reason(self) -> str:
        return _("it refers to %(model)s %(key)s, which is not there") % {
            "model": self.column.refers_to,
            "key": self.value,
        }


def is_checked(column: Column) -> bool:
    """Tell whether a column is a reference that has to lead to a row: not where the site says that it need not, or has
    the other table in another database."""
    return (
        bool(column.refers_to)
        and getattr(column.field, "db_constraint", True)
        and is_here(column.field.target_field.model)  # type: ignore[attr-defined]
    )


class Database(Salvage, Writing):
    """A database that backups are made of and restored to. `database_of` gives the one of an alias."""

    def damage(self, tables: Iterable[Table]) -> list[str]:
        """Return what is wrong with the database as such, and with these tables in it, but for those that are missing.
        By default, nothing is looked at."""
        return []

    def file(self) -> Path | None:
        """Return the path of the file that is the database; None if it is no file."""
        return None

    def create_tables(self, tables: Iterable[Table]) -> None:
        """Create the tables that are missing, as they are today."""
        missing = self.missing_tables(tables)
        with self.connection.schema_editor() as editor:
            for table in dict.fromkeys(missing.values()):
                for field in [None, *table.model._meta.local_many_to_many]:
                    model: Any = field.remote_field.through if field else table.model
                    if model._meta.db_table in missing:
                        sql, params = editor.table_sql(model)
                        editor.execute(sql, params or None)

    def damaged_tables(self, tables: Iterable[Table]) -> dict[str, str]:
        """Return those of the tables that there are, but that cannot be read or written: name in the database -> why.
        By default, none is looked at."""
        return {}

    @contextmanager
    def made_anew(self, tables: Iterable[Table], damaged: Iterable[str]) -> Iterator[None]:
        """Make the `damaged` tables, and those that are missing, anew, for what is written to them inside."""
        for name in damaged:
            self.execute(f"DROP TABLE {self.quote(name)}")
        self.create_tables(tables)
        yield

    def copy_file(self, target: Path) -> None:
        """Copy the database file as it is, damage and all. Raises `OSError`."""
        raise NotImplementedError

    def missing_tables(self, tables: Iterable[Table]) -> dict[str, Table]:
        """Return the tables that the database lacks: name in the database -> the model's."""
        current = self.table_names()
        wanted = {name: table for table in tables for name, _columns in table.db_tables}
        return {name: table for name, table in wanted.items() if name not in current}

    def dangling(self, tables: Iterable[Table], limit: int = MAX_NAMED) -> list[str]:
        """Return the rows that refer to a row that is not there, at most `limit` of them, as lines for people."""
        return [
            describe(row.table.label, str(row.key), row.name, row.reason)
            for row in self._dangling_rows(tables, limit)
        ]

    def leave_out_dangling(self, tables: Iterable[Table], spared: Iterable[str] = ()) -> Places:
        """Delete the rows that refer to a row that is not there, but for those whose lines are `spared`, and what then
        refers to them; of a reference that may be empty only that is emptied. Returns what was done."""
        tables, spared, places = list(tables), {*spared}, Places()
        while True:
            dangling = [
                row
                for row in self._dangling_rows(tables, MOST_AT_ONCE + len(spared))
                if describe(row.table.label, str(row.key), row.name, row.reason) not in spared
            ]
            for row in dangling:
                self._leave_out(row)
                name = None if row.is_whole else row.name
                places.add(place_of(row.table.label, row.key, name, row.reason))
            if not dangling:
                return places

    def _leave_out(self, row: DanglingRow) -> None:
        q, table, column = self.quote, row.table, row.column
        if row.relation:
            where = f"{q(row.relation.owner.column)} = %s AND {q(column.column)} = %s"
            self.execute(f"DELETE FROM {q(row.relation.db_table)} WHERE {where}", [row.key, row.value])
        elif not row.is_whole:
            sql = f"UPDATE {q(table.db_table)} SET {q(column.column)} = NULL WHERE {q(table.key.column)} = %s"
            self.execute(sql, [row.key])
        else:
            for relation in table.relations:
                sql = f"DELETE FROM {q(relation.db_table)} WHERE {q(relation.owner.column)} = %s"
                self.execute(sql, [row.key])
            self.execute(f"DELETE FROM {q(table.db_table)} WHERE {q(table.key.column)} = %s", [row.key])

    def _dangling_rows(self, tables: Iterable[Table], limit: int) -> list[DanglingRow]:
        rows: list[DanglingRow] = []
        for table in tables:
            own: list[tuple[Column, Relation | None]] = [(column, None) for column in table.columns]
            for column, relation in [*own, *((r.target, r) for r in table.relations)]:
                left = limit - len(rows)
                if left > 0 and is_checked(column):
                    rows += [
                        DanglingRow(table, relation, column, key, value)
                        for key, value in self._dangling(table, relation, column, left)
                    ]
        return rows

    def _dangling(
        self, table: Table, relation: Relation | None, column: Column, limit: int
    ) -> list[tuple[Any, ...]]:
        """Return (key of the row, the key that it refers to) of such rows."""
        q = self.quote
        db_table, owner = (relation.db_table, relation.owner) if relation else (table.db_table, table.key)
        target = column.field.target_field  # type: ignore[attr-defined]
        return self.fetch(
            f"SELECT a.{q(owner.column)}, a.{q(column.column)} FROM {q(db_table)} a"
            f" LEFT JOIN {q(target.model._meta.db_table)} b ON a.{q(column.column)} = b.{q(target.column)}"
            f" WHERE a.{q(column.column)} IS NOT NULL AND b.{q(target.column)} IS NULL LIMIT {limit}"
        )

    def unknown_time_zones(self, names: Iterable[str]) -> set[str]:
        """Return those of the names that this database cannot compute with, though Python can."""
        return set()

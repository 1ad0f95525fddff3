"""`Database`: what all engines share, and the hooks that the module of an engine implements.

To add an engine, write a module with a subclass of `Database` that implements these hooks, add a line to `VENDORS`, and
run the conformance suite (`tests/unit/database/test_conformance.py`) on it. You need not know more than this list: all
other methods, in `session`, `conversion`, `reading`, `salvage` and `writing`, are built on the hooks.

A subclass must define

`vendor`
    Django's `connection.vendor`.
`lock(job)`
    A context manager: a lock for each `Job`, held by one process at a time of all processes and machines that use the
    database. Raises `Busy` at once if another process holds it. It is released when its holder dies, however it dies.
    Yields a function that takes it again if it was lost, as with a connection, and raises `Busy` if another process has
    it by then. It returns whether the lock was still held.
`lock_out_writers(tables)`
    Run the first statements of a restore's transaction: wait until nobody is writing to these tables and their
    relations, then keep others from writing to them until the transaction ends. Later reads see everything that was
    committed before. Others can still read. Raises `Busy` after `LOCK_SECONDS`, or an `OperationalError`.
`change_marker(tables)`
    Return a value that differs as soon as somebody has changed rows of these tables: equal values mean that nothing was
    changed in between, but different values need not mean a change. On a snapshot, it must not be newer than the
    snapshot. None if the database cannot tell.
`length_of(name)`
    SQL for the bytes of a quoted column.
`month_of(name)`
    SQL for the month, "2026-11" or 202611, of a quoted column of dates or of moments (in UTC).
`in_utc(name)`
    SQL for a moment in UTC, whatever time zone the session has, by SQL that names it.
`size()`
    Return the size of the database in bytes; None if that is unknown.
`reset_sequences(tables)`
    Make sure that the next row of each table, and of each relation, gets a free key. If the restore is rolled back, the
    keys that come next must be free as well, and should be those of before.
`next_keys(tables)`
    Return table -> the key that its next row gets, for tables whose keys are given by the database. A table for which
    this is unknown is left out.
`set_next_keys(next_keys)`, `KEYS_AFTER_COMMIT`
    Let the next row of each table get this key. If there are keys as high as that, the one after the highest, unless
    the engine can go on below. This is undone with the transaction, unless the class sets `KEYS_AFTER_COMMIT`: then it
    is called after the commit.
`passes(error)`
    Tell whether an `OperationalError` of the driver is temporary: a lock, a lost connection.

A subclass may define, if the engine needs it to be correct

`begin_snapshot()`, `snapshot()`
    Run the first statements of a snapshot's transaction, so that all reads see the same moment, whatever others write,
    and values exactly (see `exact_session`). An engine whose readers block writers overrides `snapshot` as a whole.
`given(connection)`
    A context manager around the opening of a further connection, see `another`. It may bound how long that takes.
`exact_session()`
    A context manager in which values are read and written exactly, whatever settings the site's sessions have. It is
    entered for a restore as a whole, and again for its transaction.
`without_transactions(tables)`, `without_all_characters(tables)`
    Return an SQL statement that solves the problem, for each table that a restore into these writes to (see `written`)
    and whose changes cannot be rolled back, or that cannot hold every Unicode character.
`held(tables, scope, keys)`
    Return an error with the SQL statements that mend it, if rows of a table that is not in the `scope` of a restore
    keep it from deleting all rows of some tables, or those of one with some keys. It raises the same then. On the
    connection that would write.
`folds_texts`, `collation(table, column)`, `weights(collation, texts)`, `distinguishing(table)`
    Whether different texts may be considered the same; in which columns; which texts; and an SQL statement that changes
    that.
`folds(own, referred)`
    Tell whether a text in a column may refer to one that differs from it, by its collation. It is then read as the row
    that it refers to has it. Returning True without need is allowed.
`OVERRIDING`
    SQL with which an insert may give keys that the engine would rather give by itself.
`acts_on_delete()`
    Tell whether deleting a row may have side effects inside `restoring`: a trigger or a cascading reference that
    changes or deletes other rows, or a reference that is checked at once and fails. Django creates none of these, but
    people and other tools may. Returning True without need is allowed.
`clear(tables)`, `delete(table, keys)`
    Delete all rows, or the rows with these keys. An engine on which that may delete or change rows that no restore
    brings back, or is not allowed, raises `RestoreRefused` first.
`restore_settings()`
    A context manager around a restore's transaction in which no value is cut or rounded to fit, 0 is a valid key, and a
    row may refer to one that is written later. It restores the settings of before.
`defer_constraints()`, `check_deferred_constraints()`
    The same for engines that can defer the checks of references: called when the transaction begins, and at its end.
`is_about_a_record(error)`
    Tell whether an error is about one record, rather than about the whole restore.
`is_damage(error)`
    Tell whether an error of the driver means that the database is damaged, or lacks a table.
`has_refused_commit(error)`
    Tell whether an error of a COMMIT means that all was rolled back, rather than that its answer was lost.
`as_stored(column, value)`
    Return a value as it is read after it was written: equal, but perhaps not the same, see `tables.are_same`.
`can_hold(column, value)`, `BOUNDED`
    Tell whether a plain value can be stored and read back unchanged; and the kinds with values that cannot. Such values
    are refused by name; `writer_of` must refuse them as well.
`why_refused(table, column, value)`, `why_too_long(text)`, `fits_surely`
    Tell why the database refuses a value, or all the text of a row; and how many characters of a text it never refuses
    for their number, so that only longer ones are looked at.
`writer_of(column)`, `plain_reader(column)`
    Return a conversion for values that Django's own would change, or could not find; call `super()` for all others.
`takes_dangling`
    Whether a row with a dangling reference can be written inside `restoring`.
`damage(tables)`, `file()`, `copy_file(target)`, `instead(file)`
    Return what is damaged in the database. For an engine whose database is a file: return its path, copy it, and use
    another file instead of it.
`damaged_tables(tables)`, `made_anew(tables)`
    For servers: return which tables are damaged; and a context manager in a restore's transaction, which creates those
    that are `missing` anew, and is undone with it.
`restoring(tables)`, `ANEW_AT_ONCE`
    For an engine that cannot undo that: set `ANEW_AT_ONCE`, and make them anew just before the transaction.
`first_number(table)`, `last_number(table)`, `numbered(table, low, high)`
    Return the lowest and the highest number that a row of a damaged table may have, and its rows by number.
`count(table, after)`
    Return the number of rows with keys above `after`, by steps that can be stopped, where a file is somebody else's.
`rows_by_scan(table)`
    Return the number of rows that a scan finds, where rows are read by an index, which may lack some after a crash.
`broken_indexes(table)`
    Return which tables in the database have an index that lacks rows or is damaged, so that none can be found by that.
`cursor()`, `quote(name)`, `table_names()`, `column_names(table)`, `schema_editor()`
    A cursor of the driver, a quoted name, the names of all tables and of the columns of one, an editor of tables; for
    engines where those of Django will not do.
`recover()`
    Make a snapshot usable again after a query that failed.
`unknown_time_zones(names)`
    Return the time zones that Python knows, but that the database cannot compute with.

A subclass may also define, to be faster. A test has to hold each of these equal to the plain path

`fast_reader(column)`, `fast_writer(column)`
    Return a conversion for kinds that the driver returns, or accepts, in a form close to the plain one; None for
    others.
`pack_rows(columns, values)`, `insert_packed_rows(db_table, columns, data)`
    Convert rows to bytes, and insert these. `pack_rows` runs outside the transaction.
`insert_all_packed_rows(db_table, columns, data)`
    The same for several batches at once.
`update_rows(table, values)`
    Overwrite many rows by their keys.
`cut(column)`
    Return SQL for the first `SHORT` characters of a value, so that the lengths of values need not be asked for first;
    "" if the engine has none.
`IS_SERVER`, `BATCH`
    Whether a server works on the next query while rows are converted; and the number of rows that one query reads.

The shared modules only use SQL that all these engines have in common: `LIMIT` (SQLite and MySQL do not know the
standard's `FETCH FIRST`), `INSERT` with several rows, `IN` with a list, `UNION ALL`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Model

from ..kinds import Plain
from ..options import Places
from ..scope import is_here
from ..tables import MAX_NAMED, Column, Relation, Table, describe, place_of, refers_to_nothing
from .conversion import ColumnReader
from .salvage import Salvage
from .values import UNREADABLE
from .writing import Writing

#: How many rows with dangling references are left out at a time.
MOST_AT_ONCE = 1000


@dataclass(frozen=True)
class DanglingRow:
    """A dangling reference of a row, or of a pair in a relation. `key`, `value`: as the driver returns them. `pk`,
    `refers_to`: the same as plain values."""

    table: Table
    relation: Relation | None
    column: Column
    key: Any
    value: Any
    pk: Plain
    refers_to: Plain

    @property
    def name(self) -> str:
        """The name of the field."""
        return self.relation.name if self.relation else self.column.name

    @property
    def is_whole(self) -> bool:
        """Whether the reference must not be empty, so that the whole row has to be left out."""
        return not self.relation and not self.column.field.null

    @property
    def reason(self) -> str:
        return refers_to_nothing(self.column, self.refers_to)

    @property
    def line(self) -> str:
        """What names it to people."""
        return describe(self.table.label, self.pk, self.name, self.reason)


def is_checked(column: Column) -> bool:
    """Tell whether a column is a reference that must lead to a row. That is not so if the field has no constraint, or
    if the other table is in another database."""
    return (
        bool(column.refers_to)
        and getattr(column.field, "db_constraint", True)
        and is_here(column.field.target_field.model)  # type: ignore[attr-defined]
    )


def _plain(reader: ColumnReader, value: Any) -> Plain:
    """Convert one value for people; one that cannot be read, which SQLite stores as well, stays as it is."""
    try:
        return reader.to_plain([value])[0] if reader.to_plain else value
    except UNREADABLE:
        return str(value)


class Database(Salvage, Writing):
    """A database that backups are made of and restored to. Use `database_of` to get one."""

    #: Whether tables are made anew before the transaction of a restore, so that they stay empty if it fails.
    ANEW_AT_ONCE: ClassVar[bool] = False

    def damage(self, tables: Iterable[Table]) -> list[str]:
        """Return what is damaged in the database and in these tables, as lines. Missing tables do not count. By
        default, nothing is checked."""
        return []

    def file(self) -> Path | None:
        """Return the path of the database file; None if the database is not a file."""
        return None

    def create_tables(self, tables: Iterable[Table]) -> None:
        """Create the tables that are missing, as the models are today, with their indexes and references."""
        missing = self.missing_tables(tables)
        with self.schema_editor() as editor:
            create = editor.create_model

            def create_if_missing(model: type[Model]) -> None:
                if missing.pop(model._meta.db_table, None):
                    create(model)

            # Django calls it for the tables of a model's relations, too, of which some may be there.
            editor.create_model = create_if_missing  # type: ignore[method-assign]
            for table in dict.fromkeys(missing.values()):
                # The table of any other "through" is that of a model, which is among the `tables` itself.
                throughs: list[Any] = [f.remote_field.through for f in table.model._meta.local_many_to_many]
                for model in [table.model, *(model for model in throughs if model._meta.auto_created)]:
                    editor.create_model(model)

    def schema_editor(self) -> BaseDatabaseSchemaEditor:
        """Return Django's editor of tables, which must not check the references of rows that a restore replaces. It
        begins no transaction, which Django would not end if an index cannot be made."""
        return self.connection.schema_editor(atomic=False)

    def damaged_tables(self, tables: Iterable[Table]) -> dict[str, str]:
        """Return name in the database -> reason, for tables that exist but cannot be read or written. By default, none
        is checked."""
        return {}

    @contextmanager
    def made_anew(self, tables: Sequence[Table]) -> Iterator[None]:
        """Create the tables that are `missing` anew, so that rows can be written to them in the block."""
        if self.missing and not self.ANEW_AT_ONCE:
            self.make_anew(tables)
        yield

    def make_anew(self, tables: Sequence[Table]) -> None:
        """Create the tables that are `missing` anew. Those that are damaged are dropped first."""
        for name in self.damaged_names():
            self.execute(f"DROP TABLE {self.quote(name)}")
            self.missing = {*self.missing} - {name}
        self.missing = ()
        self.create_tables(tables)

    def damaged_names(self) -> list[str]:
        """Return which of the tables that are `missing` are damaged, but there."""
        return sorted({*self.missing} & self.table_names()) if self.missing else []

    def copy_file(self, target: Path) -> None:
        """Copy the database file as it is, including any damage. Raises `OSError`."""
        raise NotImplementedError

    def instead(self, file: Path) -> AbstractContextManager[None]:
        """Use another database file in the block. `file` and `lock` are still about that of the site."""
        raise NotImplementedError

    def missing_tables(self, tables: Iterable[Table]) -> dict[str, Table]:
        """Return name in the database -> table of the model, for tables that are missing."""
        current = self.table_names()
        wanted = {name: table for table in tables for name, _columns in table.db_tables}
        return {name: table for name, table in wanted.items() if name not in current}

    def column_names(self, db_table: str) -> set[str]:
        """Return the names of a table's columns."""
        with self.errors_explained(), closing(self.cursor()) as cursor:
            cursor.execute(f"SELECT * FROM {self.quote(db_table)} WHERE 1 = 0", ())
            return {description[0] for description in cursor.description}

    def dangling(
        self,
        tables: Iterable[Table],
        limit: int = MAX_NAMED,
        targets: Collection[str] | None = None,
    ) -> list[str]:
        """Return dangling references as lines for people, at most `limit`. `targets`: labels of the models to which
        references are checked; by default, all are."""
        return [row.line for row in self._dangling_rows(tables, limit, targets)]

    def leave_out_dangling(
        self,
        tables: Iterable[Table],
        spared: Iterable[str] = (),
        targets: Collection[str] | None = None,
    ) -> Places:
        """Leave out dangling references: empty those that may be empty, and delete the rows of others, until none is
        left. `spared`: lines (see `dangling`) of references to keep. `targets`: as in `dangling`. Returns the places of
        what was left out."""
        tables, spared, places = list(tables), {*spared}, Places()
        while True:
            dangling = [
                row
                for row in self._dangling_rows(tables, MOST_AT_ONCE + len(spared), targets)
                if row.line not in spared
            ]
            for row in dangling:
                self._leave_out(row)
                name = None if row.is_whole else row.name
                places.add(place_of(row.table.label, row.pk, name, row.reason))
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

    def _dangling_rows(
        self, tables: Iterable[Table], limit: int, targets: Collection[str] | None
    ) -> list[DanglingRow]:
        rows: list[DanglingRow] = []
        for table in tables:
            own: list[tuple[Column, Relation | None]] = [(column, None) for column in table.columns]
            for column, relation in [*own, *((r.target, r) for r in table.relations)]:
                left = limit - len(rows)
                if left > 0 and is_checked(column) and (targets is None or column.refers_to in targets):
                    rows += self._dangling(table, relation, column, left)
        return rows

    def _dangling(
        self, table: Table, relation: Relation | None, column: Column, limit: int
    ) -> Iterator[DanglingRow]:
        """Yield the dangling references in one column."""
        q = self.quote
        db_table, owner = (relation.db_table, relation.owner) if relation else (table.db_table, table.key)
        target = column.field.target_field  # type: ignore[attr-defined]
        readers = self.reader_of(owner), self.reader_of(column)
        name, there = q(column.column), q(target.model._meta.db_table)
        rows = self.fetch(
            f"SELECT {q(owner.column)}, {name}, {', '.join(reader.sql for reader in readers)} FROM {q(db_table)}"
            f" LEFT JOIN (SELECT {q(target.column)} AS referred_key FROM {there}) AS referred_rows"
            f" ON {name} = referred_key WHERE {name} IS NOT NULL AND referred_key IS NULL LIMIT {limit}"
        )
        for key, value, *read in rows:
            yield DanglingRow(table, relation, column, key, value, *map(_plain, readers, read))

    def unknown_time_zones(self, names: Iterable[str]) -> set[str]:
        """Return the names of time zones that Python knows, but that this database cannot compute with."""
        return set()

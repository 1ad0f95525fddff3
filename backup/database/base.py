"""`Database`: what all engines share, and the hooks that the module of an engine implements.

To add an engine: a module with a subclass of `Database` that implements these hooks, a line in `VENDORS`, and the
conformance suite (`tests/unit/database/test_conformance.py`) run on it. That is all that there is to read; the other
methods, in `session`, `conversion`, `reading` and `writing`, are written in terms of them.

A subclass must say

`vendor`
    Django's `connection.vendor`.
`lock(job)`
    A context that one process holds at a time for each `Job`, among all processes and machines that use the database.
    Raises `Busy` at once where another holds it; is free as soon as its holder has died, however it died.
`lock_out_writers(tables)`
    The first statements of a restore's transaction: wait until nobody is writing to these tables and their relations,
    then let nobody else write to them until the transaction ends. What was acknowledged before is seen afterwards by
    every read. Readers go on. Raises `Busy` after `LOCK_SECONDS`, or an `OperationalError`.
`change_marker(tables)`
    A value that is another one as soon as somebody has changed rows of these tables; equal values promise that nothing
    was changed between. It may change without need. None where the database does not say.
`month_of(name)`
    SQL for the month, "2026-11", of a quoted column of dates or of moments (in UTC).
`size()`
    The bytes that the database takes, None where that cannot be told.
`reset_sequences(tables)`
    After it, the next row of each table, and of each relation, gets a key that is free, even where the restore is
    rolled back.
`next_keys(tables)`
    Table -> the key that its next row gets, for the tables whose keys the database gives by itself. A table of which
    it does not say so is left out.
`set_next_keys(next_keys)`
    Have the next row of each table get this key; where rows have it or higher ones, the one after the highest. It is
    undone with the transaction, unless the vendor says `KEYS_AFTER_COMMIT`: then it is called after that.

A subclass may say, to be right

`begin_snapshot()`
    The first statements of a snapshot's transaction: all that it reads is of one moment, though others write, and to
    the letter (see `exact_session`). A vendor whose readers hold up writers overrides `snapshot` as a whole.
`exact_session()`
    A context in which values are read and written to the letter, whatever the site sets for its sessions. It is entered
    for a restore as a whole and again for its transaction.
`without_transactions(tables)`, `without_all_characters(tables)`
    For each table whose changes cannot be undone, or that cannot hold every character, the statement that mends that.
`restore_settings()`
    A context around a restore's transaction: no value is cut or rounded to fit, 0 is a key like any other, a row may
    refer to one that comes later. Puts back what was set.
`defer_constraints()`, `check_deferred_constraints()`
    The same inside of the transaction, where an engine can defer its checks: as it begins, and at the end.
`is_about_a_record(error)`
    Whether an `OperationalError` of the driver's is the fault of one record, rather than of the whole.
`can_hold(column, value)`
    Whether a plain value comes back as it was. Values that do not are refused by name; `writer_of` must not let them
    pass either.
`unknown_time_zones(names)`
    Those of the zones that the database cannot compute with, though Python can.

and may say, to be fast, where a test holds it equal to the plain path

`fast_reader(column)`, `fast_writer(column)`
    A conversion for kinds that this driver gives, or takes, in a form close to the plain one; None for others.
`pack_rows(columns, values)`, `insert_packed_rows(db_table, columns, data)`
    Rows as bytes, and their way into a table. `pack_rows` runs outside of the transaction.
`update_rows(table, values)`
    Many rows written over those with their keys.
`to_batch(…)`, `BATCH`
    What the driver gave as plain columns; the rows of one query.

The SQL of the shared modules is what these engines have in common, no more: `LIMIT` (the standard's `FETCH FIRST` is
unknown to SQLite and MySQL), `INSERT` with several rows, `IN` with a list, `UNION ALL`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.utils.translation import gettext as _

from ..tables import Column, Table, describe
from .errors import MAX_NAMED
from .reading import Reading
from .writing import Writing


class Database(Reading, Writing):
    """A database that backups are made of and restored to. `database_of` gives the one of an alias."""

    def dangling(self, tables: Iterable[Table]) -> list[str]:
        """Return the rows that refer to a row that is not there, at most `MAX_NAMED` of them, as lines for people."""
        lines: list[str] = []
        for table in tables:
            own = [
                (table.db_table, table.key, column.name, column)
                for column in table.columns
                if column.refers_to
            ]
            related = [(r.db_table, r.owner, r.name, r.target) for r in table.relations]
            for db_table, owner, name, column in [*own, *related]:
                if len(lines) < MAX_NAMED and getattr(column.field, "db_constraint", True):
                    for key, value in self._dangling(db_table, owner, column, MAX_NAMED - len(lines)):
                        reason = _("it refers to %(model)s %(key)s, which is not there") % {
                            "model": column.refers_to,
                            "key": value,
                        }
                        lines.append(describe(table.label, str(key), name, reason))
        return lines

    def _dangling(self, db_table: str, owner: Column, column: Column, limit: int) -> list[tuple[Any, ...]]:
        """Return (key of the row, the key that it refers to) of such rows."""
        q = self.quote
        target = column.field.target_field  # type: ignore[attr-defined]
        return self.fetch(
            f"SELECT a.{q(owner.column)}, a.{q(column.column)} FROM {q(db_table)} a"
            f" LEFT JOIN {q(target.model._meta.db_table)} b ON a.{q(column.column)} = b.{q(target.column)}"
            f" WHERE a.{q(column.column)} IS NOT NULL AND b.{q(target.column)} IS NULL LIMIT {limit}"
        )

    def unknown_time_zones(self, names: Iterable[str]) -> set[str]:
        """Return those of the names that this database cannot compute with, though Python can."""
        return set()

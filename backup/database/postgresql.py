"""PostgreSQL.

Longer than most modules, to keep all that is special about this engine in one place.
"""

from __future__ import annotations

import copyreg
import io
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from decimal import Decimal
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from django.apps import apps
from django.conf import settings
from django.db import DatabaseError, Error, IntegrityError, OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext as _

from ..exceptions import RestoreRefused, StorageFailed
from ..kinds import (
    BOOLEAN,
    DATE,
    DATETIME,
    DECIMAL,
    DURATION,
    FLOAT,
    INTEGER,
    TEXT,
    TIME,
    UUID_,
    Kind,
    Plain,
    plain_float,
)
from ..scope import is_here
from ..tables import Column, Table
from .base import Database, is_checked
from .conversion import ColumnReader
from .errors import Job, already_running, reason_of, somebody_writes
from .reading import PARAMETERS
from .session import EnsureHeld
from .values import (
    Checked,
    ConvertAll,
    OfOneType,
    as_they_are,
    durations,
    each,
    is_countable,
    is_harmless,
    json_as_stored,
    microseconds,
    moments,
    slices,
    times,
)


class OwnSequence(NamedTuple):
    """The sequence of a column. `name`: its name, quoted, for a parameter. `highest`: SQL for the highest key in use
    that it has to be above. `lowest`, `last`: the lowest and the highest number that it gives."""

    db_table: str
    name: str
    highest: str
    lowest: int
    last: int
    may_read: bool
    may_set: bool
    is_owned: bool

    @property
    def sql(self) -> str:
        """Its name for a statement that is run with parameters."""
        return self.name.replace("%", "%%")


class PostgreSQL(Database):
    """Implements the hooks of `base` for PostgreSQL."""

    vendor = "postgresql"
    takes_dangling = False
    #: For columns that are GENERATED ALWAYS AS IDENTITY. COPY does so by itself.
    OVERRIDING = "OVERRIDING SYSTEM VALUE"

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        super().__init__(connection)
        #: The quoted names of the tables of this restore, if their references are checked as a set; else [].
        self._restored: list[str] = []
        #: The quoted names of all tables of this restore.
        self._locked: list[str] = []
        #: The server's name of the encoding of its texts; None before it was asked.
        self._encoding: str | None = None
        #: (table, column) -> its type: see `_type_of`.
        self._types: dict[tuple[str, str], tuple[int, str]] = {}
        #: In a snapshot: table -> the number of its rows, as far as it is known.
        self._scanned: dict[str, int] | None = None

    def length_of(self, name: str) -> str:
        return f"OCTET_LENGTH({name}::text)"

    def in_utc(self, name: str) -> str:
        return f"{name} AT TIME ZONE 'UTC'"

    def month_of(self, name: str) -> str:
        return f"TO_CHAR({name}, 'YYYY-MM')"

    def size(self) -> int | None:
        return int(self.fetch("SELECT pg_database_size(current_database())")[0][0])

    @contextmanager
    def exact_session(self) -> Iterator[None]:
        """Set the format of values as text: with fewer digits, floats would be rounded; in another style, the sign of a
        duration would mean something else, and a date could not be read. The session may stand idle."""
        settings = ", ".join(f"current_setting('{name}', true)" for name in SESSION)
        before = dict(zip(SESSION, self.fetch(f"SELECT {settings}")[0], strict=True))
        # Only change what is necessary: behind a pooler, others may get this session next.
        odd = {name: value for name, value in before.items() if value not in {*SESSION[name], None}}
        self._set({name: SESSION[name][0] for name in odd}, local=False)
        try:
            yield
        finally:
            if odd and self.is_usable():
                self._set(odd, local=False)

    def _set(self, settings: dict[str, str], *, local: bool) -> None:
        """Set parameters of the server.

        `local`: until the end of the transaction, which also works if a pooler changes sessions between transactions.
        """
        for name, value in settings.items():
            self.fetch("SELECT set_config(%s, %s, %s)", [name, value, local])

    def _take_as_long_as_needed(self) -> None:
        """Let this transaction, and each statement in it, take any time, whatever the role or the server bounds. This
        is no query, which would determine what the transaction sees."""
        for name in ("statement_timeout", "idle_in_transaction_session_timeout", "transaction_timeout"):
            if name != "transaction_timeout" or self.connection.pg_version >= 170000:  # type: ignore[attr-defined]
                self.execute(f"SET LOCAL {name} = 0")

    def begin_snapshot(self) -> None:
        self.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        # Rows are read in the order of their keys, a batch at a time. Without statistics, as after a restore, the
        # planner would sort the whole table for each batch.
        self.execute("SET LOCAL enable_sort = off")
        self._scanned = {}
        self._take_as_long_as_needed()
        self._set(WHOLE, local=True)
        self.execute("SAVEPOINT snapshot")

    def recover(self) -> None:
        if self.connection.connection is not None and not self.connection.get_autocommit():
            self.execute("ROLLBACK TO SAVEPOINT snapshot")

    def is_about_a_record(self, error: Exception) -> bool:
        return super().is_about_a_record(error) and self.code_of(error) not in NOT_ALLOWED

    def is_damage(self, error: DatabaseError) -> bool:
        return super().is_damage(error) or str(self.code_of(error))[:2] in DAMAGED

    def damaged_tables(self, tables: Iterable[Table]) -> dict[str, str]:
        damaged = {}
        there = self.table_names()
        for table in tables:
            for name, columns in table.db_tables:
                key = self.quote(columns[0].column)
                try:
                    if name in there:
                        self.fetch(f"SELECT COUNT(t::text) FROM {self.quote(name)} t")
                        with transaction.atomic(self.connection.alias):
                            self.execute("SET LOCAL enable_seqscan = off")  # by its index
                            self.fetch(f"SELECT COUNT(*) FROM {self.quote(name)} WHERE {key} IS NOT NULL")
                except DatabaseError as error:
                    if not self.is_damage(error):
                        raise
                    damaged[name] = reason_of(error)
        return damaged

    @contextmanager
    def made_anew(self, tables: Sequence[Table]) -> Iterator[None]:
        """Create the references to these tables anew, too, since they are dropped with a damaged table, and went with a
        missing one if somebody dropped that with CASCADE. Rows are checked at the end."""
        if not self.missing:
            yield
            return
        quote = self.connection.ops.quote_name
        anew, damaged = (
            [quote(name) for name in sorted(names)] for names in (self.missing, self.damaged_names())
        )
        references = self.fetch(
            "SELECT conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE contype = 'f' AND confrelid = ANY (%s::regclass[]) AND conrelid <> ALL (%s::regclass[])",
            [damaged, damaged],
        )
        references = [tuple(part.replace("%", "%%") for part in row) for row in references]
        with self._giving_up():
            for name in damaged:
                self.execute(f"DROP TABLE {name.replace('%', '%%')} CASCADE")
            self.create_tables(tables)
            for table, name, definition in references:
                self.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition} NOT VALID")
            self._add_lacking_references(anew)
        self.missing, self.locks_out_readers = (), True
        yield
        unchecked = self.fetch(
            "SELECT conrelid::regclass::text, quote_ident(conname) FROM pg_constraint"
            " WHERE contype = 'f' AND NOT convalidated AND confrelid = ANY (%s::regclass[])",
            [anew],
        )
        for row in unchecked:
            table, name = (part.replace("%", "%%") for part in row)
            self.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")

    def _add_lacking_references(self, referred: Collection[str]) -> None:
        """Create the references that models have to some tables, but the database lacks. Rows are not checked.
        `referred`: the quoted names of these tables."""
        there = self.fetch(
            "SELECT relname, attname FROM pg_constraint JOIN pg_class r ON r.oid = conrelid"
            " JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]"
            " WHERE contype = 'f' AND cardinality(conkey) = 1 AND confrelid = ANY (%s::regclass[])",
            [referred],
        )
        quote, names = self.connection.ops.quote_name, self.table_names()
        fields = [
            field
            for model in apps.get_models(include_auto_created=True)
            if model._meta.managed and model._meta.db_table in names and is_here(model)
            for field in model._meta.local_fields
            if field.remote_field and getattr(field, "db_constraint", False)
        ]
        with self.schema_editor() as editor:
            for field in fields:
                other = field.target_field.model._meta.db_table  # type: ignore[attr-defined]
                if quote(other) in referred and (field.model._meta.db_table, field.column) not in there:
                    sql = editor._create_fk_sql(field.model, field, "_fk_%(to_table)s_%(to_column)s")  # type: ignore[attr-defined]
                    editor.execute(f"{sql} NOT VALID", None)

    def acts_on_delete(self) -> bool:
        rows = self.fetch(
            "SELECT EXISTS (SELECT FROM pg_trigger WHERE NOT tgisinternal)"
            " OR EXISTS (SELECT FROM pg_rewrite WHERE ev_type = '4' AND ev_class >= 16384)"
            " OR EXISTS (SELECT FROM pg_constraint"
            " WHERE contype = 'f' AND (confdeltype <> 'a' OR NOT condeferrable))"
        )
        return bool(rows[0][0])

    def change_marker(self, tables: Sequence[Table]) -> object:
        """Return for each table the number of rows, and a sum over the transactions that wrote them.

        A change makes a new version of a row, by a transaction with a higher number. (The number of the last
        transaction would not do: it belongs to the whole server, and rises by itself.)
        """
        sql = "SELECT COUNT(*), SUM(hashint8extended(xmin::text::bigint, 0)), MAX(xmin::text::bigint) FROM {}"
        marker = {
            name: self.fetch(sql.format(self.quote(name)))[0]
            for table in tables
            for name, _columns in table.db_tables
        }
        if self._scanned is not None:
            self._scanned = {name: int(count) for name, (count, *_rest) in marker.items()}
        return [*marker.values()]

    def rows_by_scan(self, table: Table) -> int | None:
        if self._scanned is None:  # others may add rows meanwhile
            return None
        if (count := self._scanned.get(table.db_table)) is None:
            # No index has the place of a row.
            count = int(self.fetch(f"SELECT COUNT(ctid) FROM {self.quote(table.db_table)}")[0][0])
        return count

    @contextmanager
    def lock(self, job: Job) -> Iterator[EnsureHeld]:
        with ExitStack() as stack:
            is_first = self.connection not in _holders
            holder = stack.enter_context(self._holding(job))
            if is_first:
                self._ensure_given(FURTHER[job])

            def ensure_held() -> bool:
                nonlocal holder
                sql = (
                    "SELECT 1 FROM pg_locks"
                    " WHERE locktype = 'advisory' AND virtualtransaction = %s AND objid::bigint = %s"
                    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                )
                held = bool(self.fetch(sql, [holder, LOCKS[job]]))
                if not held:
                    holder = stack.enter_context(self._holding(job))
                return held

            yield ensure_held

    @contextmanager
    def _holding(self, job: Job) -> Iterator[str]:
        """Hold a lock. Yields the name that the server has for the transaction that holds it."""
        with self._holder() as (holder, jobs):
            if job in jobs:  # the server would give it to the same session once more
                raise already_running(job)
            holder.execute("SAVEPOINT lock")
            jobs.add(job)
            try:
                sql = (
                    "SELECT virtualtransaction, pg_try_advisory_xact_lock(%s) FROM pg_locks"
                    " WHERE locktype = 'virtualxid' AND pid = pg_backend_pid()"
                )
                ((name, is_mine),) = holder.fetch(sql, [LOCKS[job]])
                if not is_mine:
                    raise already_running(job)
                yield name
            finally:
                jobs.discard(job)
                with suppress(Error):
                    if holder.connection.connection is not None:  # else it was lost, and the lock with it
                        holder.execute("ROLLBACK TO SAVEPOINT lock")  # which releases it
                        holder.execute("RELEASE SAVEPOINT lock")

    @contextmanager
    def _holder(self) -> Iterator[tuple[PostgreSQL, set[Job]]]:
        """Open a transaction that holds locks, on a separate connection: a pooler may give each transaction another
        session, so that a lock of the session could end up with somebody else. Yields it, and the jobs whose locks it
        holds. There is one for all locks of a thread, since a pooler may have few connections to give. So locks are
        released in reverse order, and none is taken anew (see `EnsureHeld`) while one is held that was taken later.
        """
        before = _holders.get(self.connection)
        if before is not None and before[0].is_usable():
            yield before
            return
        connection = self.another()
        try:
            connection.set_autocommit(False)
            holder = PostgreSQL(connection)
            holder._take_as_long_as_needed()
            _holders[self.connection] = holder, set()
            yield _holders[self.connection]
        finally:
            if before is None:
                _holders.pop(self.connection, None)
            else:
                _holders[self.connection] = before
            # Release the locks first: the server would hold them until it notices that the connection is closed.
            with suppress(Error):  # also that of a driver's interface, if the connection is closed already
                connection.rollback()
            connection.close()

    @contextmanager
    def given(self, connection: BaseDatabaseWrapper) -> Iterator[None]:
        """Bound how long a new connection is waited for while this thread already uses one: if a pooler has none left,
        each would wait for the other, for minutes. After `LOCK_SECONDS`, a timer shuts the new one down, since neither
        the driver nor the server does."""
        if self.connection not in _holders and not self.connection.in_atomic_block:
            yield
            return

        def end() -> None:
            with suppress(Exception), socket.socket(fileno=os.dup(connection.connection.fileno())) as waiting:
                waiting.shutdown(socket.SHUT_RDWR)

        connection.settings_dict["OPTIONS"]["connect_timeout"] = self.LOCK_SECONDS
        until = time.monotonic() + self.LOCK_SECONDS
        timer = threading.Timer(self.LOCK_SECONDS, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except DatabaseError as error:
            if time.monotonic() < until:
                raise
            raise StorageFailed(
                _(
                    "The database gives no further connection. If a pooler such as PgBouncer is before it, set its "
                    "default_pool_size to at least %(n)s. Nothing was changed."
                )
                % {"n": POOL}
            ) from error
        finally:
            timer.cancel()

    def _ensure_given(self, count: int) -> None:
        """Raise `StorageFailed` if so many further connections are not to be had at a time."""
        with ExitStack() as stack:
            for _number in range(count):
                connection = self.another()
                stack.callback(connection.close)
                with self.given(connection):
                    connection.set_autocommit(False)
                    PostgreSQL(connection).fetch("SELECT 1")

    def lock_out_writers(self, tables: Sequence[Table]) -> None:
        self._take_as_long_as_needed()
        # This must come before any query: at a higher isolation level, the first one determines what is visible.
        names = [
            self.quote(name)
            for table in tables
            for name, _columns in table.db_tables
            if name not in self.missing
        ]
        self._restored = []
        quote = self.connection.ops.quote_name
        self._locked = [quote(name) for table in tables for name, _columns in table.db_tables]
        if not names:
            return
        with self._giving_up():
            self.execute(f"LOCK TABLE {', '.join(names)} IN SHARE ROW EXCLUSIVE MODE")
            # References cannot be checked as a set if they have to wait for tables that are made anew.
            if not self.missing and self._may_check_as_a_set():
                self._restored = [*self._locked]
                # Nobody may delete the rows that they refer to before the commit: see `check_deferred_constraints`.
                columns = [column for table in tables for column in table.columns]
                columns += [relation.target for table in tables for relation in table.relations]
                referred = {self.quote(_target(column)) for column in columns if is_checked(column)}
                if referred := referred.difference(names):
                    self.execute(f"LOCK TABLE {', '.join(sorted(referred))} IN SHARE MODE")

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        """Give up to wait for a lock after `LOCK_SECONDS`. Raises `Busy`."""
        (before,) = self.fetch("SHOW lock_timeout")[0]
        try:
            self.execute(f"SET LOCAL lock_timeout = '{self.LOCK_SECONDS}s'")
            yield
            self.fetch("SELECT set_config('lock_timeout', %s, true)", [before])
        except OperationalError as error:
            if self.code_of(error) in LOCKED:
                raise somebody_writes() from error
            raise

    def _may_check_as_a_set(self) -> bool:
        """Tell whether the role may switch off the server's own checks. At another isolation level we would not see
        what others commit, and could not check references ourselves."""
        if self.fetch("SHOW is_superuser") != [("on",)]:
            return False
        return self.fetch("SHOW transaction_isolation") == [("read committed",)]

    def defer_constraints(self) -> None:
        self._set(WHOLE, local=True)
        self.execute("SET CONSTRAINTS ALL DEFERRED")
        if self._restored and not self._must_check_each_row(self._restored):
            self.execute("SET LOCAL session_replication_role = replica")
        else:
            self._restored = []

    def check_deferred_constraints(self) -> None:
        """Check the references. The server does it row by row, which takes as long as writing the rows. If the role may
        switch that off (a superuser, as in the official container), all rows of a table are checked at once instead."""
        if not self._restored:
            self.execute("SET CONSTRAINTS ALL IMMEDIATE")
            return
        self.execute("SET LOCAL session_replication_role = DEFAULT")
        columns = self.fetch(
            "SELECT conname, conrelid::regclass::text, quote_ident(a.attname), confrelid::regclass::text,"
            f" quote_ident(b.attname) FROM ({REFERENCES}) AS c"
            " JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = conkey[1]"
            " JOIN pg_attribute b ON b.attrelid = confrelid AND b.attnum = confkey[1]",
            [self._restored, self._restored],
        )
        for name, *names in columns:
            table, column, other, key = [part.replace("%", "%%") for part in names]
            sql = (
                f"SELECT DISTINCT a.{column}::text FROM {table} a LEFT JOIN {other} b ON a.{column} = b.{key}"
            )
            sql += f" WHERE a.{column} IS NOT NULL AND b.{key} IS NULL"
            if not self.fetch(f"{sql} LIMIT 1"):
                continue
            # The server would not check rows that were not changed. So references may stay dangling.
            before = [value for (value,) in self._fetch_as_it_was(sql)]
            rows = self.fetch(f"{sql} AND a.{column}::text <> ALL (%s) LIMIT 1", [before])
            if rows:
                raise IntegrityError(
                    _("%(table)s refers to %(other)s %(key)s, which is not there (%(name)s)")
                    % {"table": names[0], "other": names[2], "key": rows[0][0], "name": name}
                )

    def _fetch_as_it_was(self, sql: str) -> list[Any]:
        """Return the rows of a query as of the last commit, without the changes of this transaction."""
        connection = self.another()
        try:
            with self.given(connection):
                connection.set_autocommit(False)
                own = PostgreSQL(connection)
                own._take_as_long_as_needed()
            return own.fetch(sql)
        finally:
            connection.close()

    def clear(self, tables: Sequence[Table]) -> None:
        self._refuse_actions(tables)
        super().clear(tables)

    def delete(self, table: Table, keys: Sequence[Plain]) -> None:
        for some in slices(keys, PARAMETERS):
            self._refuse_actions([table], some)
        super().delete(table, keys)

    def held(
        self, tables: Sequence[Table], scope: Sequence[Table], keys: Sequence[Plain] | None = None
    ) -> RestoreRefused | None:
        names = [
            self.connection.ops.quote_name(name) for table in scope for name, _columns in table.db_tables
        ]
        alias = self.connection.alias
        with transaction.atomic(alias):  # which has the isolation level of a restore
            transaction.set_rollback(True, alias)  # nothing is written, so there is nothing to commit
            if self._may_check_as_a_set() and not self._must_check_each_row(names):
                return None
            parts: Iterable[Sequence[Plain] | None] = [None] if keys is None else slices(keys, PARAMETERS)
            return next(filter(None, (self._held(tables, names, part) for part in parts)), None)

    def _refuse_actions(self, tables: Sequence[Table], keys: Sequence[Plain] | None = None) -> None:
        """Raise what `_held` returns, unless the server's own triggers are off."""
        if not self._restored and (refusal := self._held(tables, self._locked, keys)):
            raise refusal

    def _held(
        self, tables: Sequence[Table], written: Sequence[str], keys: Sequence[Plain] | None = None
    ) -> RestoreRefused | None:
        """Return an error if rows of a table that no restore writes anew refer to rows of these tables, and are deleted
        or changed with them, or do not let them go even until they are written again; else None. Django makes no such
        references, but people and other tools do.

        A table that this role may not read is taken to have such rows if the server would change them. Otherwise, the
        server itself says so.

        `written`: the quoted names of the tables that a restore writes anew. `keys`: of the rows of the one table that
        are deleted; None: all.
        """
        quote = self.connection.ops.quote_name
        owners = {quote(name): columns[0] for table in tables for name, columns in table.db_tables}
        references = self.fetch(
            "SELECT t, conrelid::regclass::text, quote_ident(conname), confdeltype, pg_get_constraintdef(k.oid),"
            " has_schema_privilege(relnamespace, 'USAGE') AND has_table_privilege(conrelid, 'SELECT'),"
            f" {ON} FROM unnest(%s::text[]) AS t JOIN pg_constraint k ON confrelid = t::regclass"
            " JOIN pg_class r ON r.oid = conrelid"
            " WHERE contype = 'f' AND (confdeltype <> 'a' OR NOT condeferrable) AND conparentid = 0"
            " AND conrelid <> ALL (%s::regclass[]) ORDER BY 2, 3",
            [[*owners], [*written]],
        )
        statements = []
        for target, table, name, action, definition, is_readable, on in references:
            if not is_readable and action in SAFE_ACTIONS:
                continue
            sql = f"SELECT 1 FROM {table} a JOIN {target} b ON {on}".replace("%", "%%")
            values: Sequence[Any] = ()
            if keys is not None:
                values = self.writer_of(owners[target])(keys)
                sql += f" WHERE b.{self.quote(owners[target].column)} IN ({', '.join(['%s'] * len(values))})"
            if not is_readable or self.fetch(f"{sql} LIMIT 1", values):
                change = f"ALTER CONSTRAINT {name}"
                if action != "a":
                    without = WITHOUT_ACTION.sub("", definition)
                    change = f"DROP CONSTRAINT {name}, ADD CONSTRAINT {name} {without}"
                statements.append(f"ALTER TABLE {table} {change} DEFERRABLE INITIALLY DEFERRED;")
        if not statements:
            return None
        return RestoreRefused(
            _(
                "Other tables refer to rows that a restore deletes and writes again. The database would delete or "
                "change what refers to them, or not let them go. Nothing was changed. What mends it:"
            ),
            statements,
        )

    def _must_check_each_row(self, names: Sequence[str]) -> bool:
        """Tell whether these tables have more than references that can be checked as a set: custom triggers or rules,
        references by several columns, references that were never validated, or deferred unique constraints, which the
        server checks by triggers."""
        rows = self.fetch(
            "SELECT EXISTS (SELECT FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = ANY (%s::regclass[]))"
            " OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class = ANY (%s::regclass[]))"
            " OR EXISTS (SELECT FROM pg_constraint"
            " WHERE contype <> 'f' AND condeferrable AND conrelid = ANY (%s::regclass[]))"
            f" OR EXISTS (SELECT FROM ({REFERENCES}) AS c"
            " WHERE NOT convalidated OR cardinality(conkey) > 1 OR confmatchtype <> 's')",
            [[*names]] * 5,
        )
        return bool(rows[0][0])

    def fast_reader(self, column: Column) -> ColumnReader | None:
        # Let the server return texts, since Python objects in between would take longer.
        name, kind = self.quote(column.column), column.kind
        if kind is TEXT and self._holds_any_bytes():
            return ColumnReader(f"convert_to({name}, 'SQL_ASCII')", each(_text_of_bytes))
        # By its kind, too: a field of a plug-in may convert the text of its column.
        is_text = kind is TEXT and column.field.get_internal_type() in ("CharField", "TextField")
        if is_text or kind in (INTEGER, BOOLEAN):
            return ColumnReader(name, OfOneType(kind))
        if kind is FLOAT:
            return ColumnReader(name, lambda values: _plain_floats(_FLOATS(values)))
        if kind is DATE:
            return ColumnReader(f"{name}::text", Checked(DATE))
        if kind is TIME:  # "24:00:00" is midnight to psycopg 2, and an error to psycopg 3
            return ColumnReader(f"{name}::text", Checked(TIME, times))
        if kind is DATETIME and settings.USE_TZ:
            # This needs the DateStyle ISO (see `EXACT`). to_char would take three times as long.
            return ColumnReader(f"({name} AT TIME ZONE 'UTC')::text", moments)
        if kind is DURATION:
            return ColumnReader(f"(EXTRACT(EPOCH FROM {name}) * 1000000)::bigint", durations)
        return None

    def folds(self, own: tuple[str, str], referred: tuple[str, str]) -> bool:
        """Tell whether the columns have a collation that is not deterministic, or the type `citext`."""
        quote = self.connection.ops.quote_name
        sql = (
            "SELECT 1 FROM pg_attribute a JOIN pg_attribute b USING (attcollation)"
            " JOIN pg_collation c ON c.oid = attcollation JOIN pg_type t ON t.oid = a.atttypid"
            " WHERE a.attrelid = to_regclass(%s) AND a.attname = %s"
            " AND b.attrelid = to_regclass(%s) AND b.attname = %s"
            " AND (NOT collisdeterministic OR typname = 'citext')"
        )
        return bool(self.fetch(sql, [quote(own[0]), own[1], quote(referred[0]), referred[1]]))

    def plain_reader(self, column: Column) -> ColumnReader:
        """Read lists, ranges and moments as texts, and convert them with the driver, one by one.

        Otherwise, one value that it cannot convert makes the whole query fail, and it changes some values silently.
        """
        reader = super().plain_reader(column)
        oid, name = self._type_of(column)
        if not oid or reader.to_plain is None:
            return reader
        to_plain = reader.to_plain
        is_array, has_moments = name.endswith("[]"), WITH_MOMENTS.match(name)

        def convert(texts: Sequence[Any]) -> Sequence[Plain]:
            for text in filter(None, texts):
                if (is_array and text[0] == "[") or (has_moments and NO_MOMENT.search(text)):
                    raise ValueError(text)
            driver = self.connection.Database  # type: ignore[attr-defined]
            with closing(self.cursor()) as cursor:
                try:
                    return to_plain(each(_loader(driver, cursor, oid))(texts))
                except driver.Error as error:
                    raise ValueError(str(error)) from error

        return ColumnReader(f"{reader.sql}::text", convert)

    def _type_of(self, column: Column) -> tuple[int, str]:
        """Return number and name of a column's type, if it is one of arrays, ranges, or dates and times; else 0, ""."""
        if column.kind is not DATETIME and column.kind.name != "own":
            return 0, ""
        names = column.field.model._meta.db_table, column.column
        if names not in self._types:
            rows = self.fetch(
                "SELECT t.oid, format_type(t.oid, NULL) FROM pg_attribute JOIN pg_type a ON a.oid = atttypid"
                " JOIN pg_type t ON t.oid = COALESCE(NULLIF(a.typbasetype, 0), a.oid)"
                " WHERE attrelid = to_regclass(%s) AND attname = %s AND t.typcategory IN ('A', 'R', 'D', 'T')",
                [self.connection.ops.quote_name(names[0]), names[1]],
            )
            self._types[names] = rows[0] if rows else (0, "")
        return self._types[names]

    def _holds_any_bytes(self) -> bool:
        """Tell whether the server does not check the encoding of texts, so that they need not be UTF-8. It then refuses
        to send those that are not."""
        if self._encoding is None:
            self._encoding = self.fetch("SHOW server_encoding")[0][0]
        return self._encoding == "SQL_ASCII"

    #: Kinds whose plain form PostgreSQL accepts unchanged.
    AS_TEXT = (INTEGER, TEXT, BOOLEAN, FLOAT, DATE, TIME, DATETIME, DURATION, DECIMAL, UUID_)

    BOUNDED = (TEXT, DURATION)

    def as_stored(self, column: Column, value: Plain) -> Plain:
        is_json = self.is_json(column, "jsonb")
        return json_as_stored(value, _as_decimal) if is_json else value

    def can_hold(self, column: Column, value: Plain) -> bool:
        """Tell whether a value can be written and read again: texts must not contain NUL, and durations must fit."""
        if column.kind is DURATION:
            return is_countable(value)
        return column.kind is not TEXT or "\0" not in value

    def fast_writer(self, column: Column) -> ConvertAll | None:
        if column.kind is FLOAT:
            return _signed_zeros
        if column.kind is DURATION:
            return _countable
        return as_they_are if column.kind in self.AS_TEXT else super().fast_writer(column)

    def pack_rows(self, columns: Sequence[Column], values: Sequence[Sequence[Any]]) -> bytes:
        """Pack rows as text for COPY, if all columns have a kind for which that works."""
        if not all(column.kind in self.AS_TEXT or column.is_natural for column in columns):
            driver = self.connection.Database  # type: ignore[attr-defined]
            if hasattr(driver, "extensions"):  # psycopg 2: its class for bytes in an array cannot be pickled
                binary = driver.extensions.Binary
                copyreg.pickle(binary, lambda value: (binary, (bytes(value.adapted),)))
            return super().pack_rows(columns, values)
        texts = [_copy_texts(column.kind, raw) for column, raw in zip(columns, values, strict=True)]
        return b"COPY" + "".join(["\t".join(row) + "\n" for row in zip(*texts, strict=True)]).encode()

    def insert_all_packed_rows(self, db_table: str, columns: Sequence[Column], data: Sequence[bytes]) -> None:
        if all(packed.startswith(b"COPY") for packed in data):
            self._copy(db_table, columns, b"".join([memoryview(packed)[4:] for packed in data]))
        else:
            super().insert_all_packed_rows(db_table, columns, data)

    def insert_packed_rows(self, db_table: str, columns: Sequence[Column], data: bytes) -> None:
        if data.startswith(b"COPY"):
            self._copy(db_table, columns, data[4:])
        else:
            super().insert_packed_rows(db_table, columns, data)

    def _copy(self, db_table: str, columns: Sequence[Column], data: bytes) -> None:
        quote = self.connection.ops.quote_name  # "%" stands for itself in a statement without parameters
        sql = f"COPY {quote(db_table)} ({', '.join(quote(column.column) for column in columns)}) FROM STDIN"
        with self.errors_explained(), closing(self.cursor()) as cursor:
            if hasattr(cursor, "copy_expert"):  # psycopg 2
                cursor.copy_expert(sql, io.BytesIO(data))
            else:
                with cursor.copy(sql) as copy:
                    copy.write(data)

    def update_rows(self, table: Table, values: Sequence[Sequence[Any]]) -> None:
        q = self.quote
        assignments = ", ".join(
            f"{q(column.column)} = EXCLUDED.{q(column.column)}" for column in table.nonkey_columns
        )
        end = f"ON CONFLICT ({q(table.key.column)}) DO UPDATE SET {assignments}"
        self.insert_rows(table.db_table, table.columns, list(zip(*values, strict=True)), end)

    def reset_sequences(self, tables: Sequence[Table]) -> None:
        """Set each sequence above the keys that are in use.

        Where the role does not own a sequence, that is not undone by a rollback. So sequences are only ever raised
        here, and none can end up below a key that is in use.
        """
        columns = [(table.db_table, table.key.column) for table in tables]
        columns += [(relation.db_table, "id") for table in tables for relation in table.relations]
        for sequence in self._sequences(columns):
            name, highest = sequence.name, sequence.highest
            if sequence.may_set:
                # Nothing is added to a number here, since that may be the last one of its type.
                sql = f"SELECT {highest} FROM {sequence.sql} WHERE ({highest}, false) >= (last_value, is_called)"
                for (last,) in self.fetch(sql):
                    if sequence.is_owned:
                        self._restart(sequence, last)
                    else:
                        self.fetch("SELECT setval(%s, %s)", [name, last])
            else:
                # A role that may only use `nextval` calls it for each key up to the highest one: at least once if no
                # number was given yet, since it may not read where the sequence begins; otherwise not without need.
                first = f"CASE WHEN {highest} >= {sequence.lowest} THEN nextval(%s) END"
                numbers = f"generate_series(COALESCE(pg_sequence_last_value(%s), {first}), {highest})"
                further = f"(SELECT FROM {numbers} OFFSET 1) AS further"
                self.fetch(f"SELECT MAX(nextval(%s)) FROM {further}", [name] * 3)

    def _restart(self, sequence: OwnSequence, last: int) -> None:
        """Let a sequence give the number after `last` next. Unlike `setval`, only its owner may do it, and it is undone
        by a rollback."""
        last = min(last, sequence.last)
        start = max(last, sequence.lowest)
        self.execute(f"ALTER SEQUENCE {sequence.sql} RESTART WITH {start:d}")
        if start == last:
            self.fetch("SELECT nextval(%s)", [sequence.name])

    def next_keys(self, tables: Sequence[Table]) -> dict[Table, int]:
        numbered = {table.db_table: table for table in tables if table.is_numbered}
        columns = [(name, table.key.column) for name, table in numbered.items()]
        readable = [sequence for sequence in self._sequences(columns) if sequence.may_read]
        if not readable:
            return {}
        sql = " UNION ALL ".join(
            f"SELECT {place}, last_value, is_called FROM {sequence.sql}"
            for place, sequence in enumerate(readable)
        )
        return {
            numbered[readable[place].db_table]: int(last) + bool(is_called)
            for place, last, is_called in self.fetch(sql)
        }

    def set_next_keys(self, next_keys: Mapping[Table, int]) -> None:
        """Restart the sequences that the role owns, even below keys that are in use: see `reset_sequences`."""
        columns = {(table.db_table, table.key.column): key for table, key in next_keys.items()}
        keys = {db_table: key for (db_table, _column), key in columns.items()}
        last = {sequence: keys[sequence.db_table] - 1 for sequence in self._sequences([*columns])}
        # Tables may share a sequence: the one that needs the highest number comes last.
        for sequence in sorted(last, key=last.__getitem__):
            if sequence.is_owned:
                self._restart(sequence, last[sequence])

    def _sequences(self, columns: Sequence[tuple[str, str]]) -> list[OwnSequence]:
        """Return the sequences of columns, given as (table, column), that have one which counts up."""
        rows = self.fetch(
            "SELECT n, s, seqmin, seqmax, has_sequence_privilege(s, 'SELECT'), has_sequence_privilege(s, 'UPDATE'),"
            " pg_has_role(relowner, 'USAGE')"
            " FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS columns (t, c, n)"
            f" CROSS JOIN LATERAL COALESCE(pg_get_serial_sequence(t, c), ({BY_DEFAULT})) AS s"
            " JOIN pg_class ON pg_class.oid = s::regclass JOIN pg_sequence ON seqrelid = pg_class.oid"
            " WHERE seqincrement > 0 ORDER BY n",
            [
                [self.connection.ops.quote_name(db_table) for db_table, _column in columns],
                [column for _db_table, column in columns],
            ],
        )
        sequences = []
        for number, name, lowest, last, may_read, may_update, is_owned in rows:
            db_table, column = columns[number - 1]
            highest = self._highest(db_table, column, last)
            sequences.append(
                OwnSequence(
                    db_table, name, highest, lowest, last, may_read, may_read and may_update, is_owned
                )
            )
        return sequences

    def _highest(self, db_table: str, column: str, last: int) -> str:
        """Return SQL for the highest key in use that a sequence, which ends at `last`, has to be above.

        Somebody may have given a row one of the last keys, while the sequence went on far below. Above such a row it
        would soon be at its end; so it stays below, where more keys are free there.
        """
        q, usual = self.quote, last // 1000 * 999  # as `Table.high_key`
        below, any_ = (
            f"(SELECT MAX({q(column)}) FROM {q(db_table)} WHERE {q(column)} <= {n})" for n in (usual, last)
        )
        is_free = f"{usual} - GREATEST({below}, 0) > {last} - GREATEST({any_}, 0)"
        return f"(CASE WHEN {is_free} THEN {below} ELSE {any_} END)"

    def passes(self, error: OperationalError) -> bool:
        """Decide by the SQLSTATE. Without one, the server was not reached, or closed the connection."""
        state = self.code_of(error)
        return state is None or state in LOCKED | {"53300"} or str(state)[:2] in PASSING

    def unknown_time_zones(self, names: Iterable[str]) -> set[str]:
        unknown = set(names) - KNOWN_TIME_ZONES
        if unknown:
            KNOWN_TIME_ZONES.update(name for (name,) in self.fetch("SELECT name FROM pg_timezone_names"))
        return unknown - KNOWN_TIME_ZONES


#: A cache, since the server reads hundreds of files to list its zones. They are only listed again for an unknown zone.
KNOWN_TIME_ZONES: set[str] = set()


#: The sequence that the default of the column c of the table t takes its numbers from. It need not belong to the
#: column: a database that was filled by other tools may have sequences that belong to none.
BY_DEFAULT = (
    "SELECT refobjid::regclass::text FROM pg_depend JOIN pg_class q ON q.oid = refobjid AND q.relkind = 'S'"
    " JOIN pg_attrdef d ON d.oid = objid JOIN pg_attribute a ON a.attrelid = adrelid AND a.attnum = adnum"
    " WHERE classid = 'pg_attrdef'::regclass AND refclassid = 'pg_class'::regclass"
    " AND adrelid = t::regclass AND attname = c LIMIT 1"
)
#: What a definition of a reference says that happens when the row it refers to is deleted, and when it is checked.
WITHOUT_ACTION = re.compile(
    r" ON DELETE (CASCADE|RESTRICT|SET NULL|SET DEFAULT)( \([^)]*\))?|( NOT)? DEFERRABLE| INITIALLY DEFERRED"
)
#: The condition on which a row of the table of a reference, a, refers to a row of the other one, b.
ON = (
    "(SELECT string_agg(format('a.%%I = b.%%I', x.attname, y.attname), ' AND ')"
    " FROM unnest(conkey, confkey) AS pairs (own, other)"
    " JOIN pg_attribute x ON x.attrelid = conrelid AND x.attnum = own"
    " JOIN pg_attribute y ON y.attrelid = confrelid AND y.attnum = other)"
)
#: What the server does with a row that refers to one that is deleted: nothing, but it refuses that.
SAFE_ACTIONS = "ar"
#: The references from and to some tables.
REFERENCES = (
    "SELECT * FROM pg_constraint"
    " WHERE contype = 'f' AND (conrelid = ANY (%s::regclass[]) OR confrelid = ANY (%s::regclass[]))"
)
#: Arbitrary numbers, the same for all sites: an advisory lock belongs to one database.
LOCKS = {Job.RESTORE: 0x62616279, Job.AUTOMATIC_BACKUP: 0x6261627A, Job.NOTE: 0x6261627B}
#: How many connections, beside the one that holds the lock, a job needs at the same time: a restore writes on one and
#: reads on another, a backup only reads.
FURTHER = {Job.RESTORE: 2, Job.AUTOMATIC_BACKUP: 1, Job.NOTE: 0}
#: How many a pooler should have: those of a restore, and one for the pages.
POOL = 4
#: Django's connection, which is that of one thread -> the transaction that holds its locks, and for which jobs.
_holders: WeakKeyDictionary[BaseDatabaseWrapper, tuple[PostgreSQL, set[Job]]] = WeakKeyDictionary()
#: Setting -> the values with which floats have all digits, and durations and dates the style that we read; the best one
#: first.
EXACT = {
    "extra_float_digits": ("3", "2", "1"),
    "intervalstyle": ("postgres",),
    "datestyle": ("ISO, MDY", "ISO, DMY", "ISO, YMD"),
}
#: The same, and that the server ends neither a session that stands idle, which PostgreSQL 13 cannot do anyhow, nor a
#: statement that takes long.
SESSION = {**EXACT, "idle_session_timeout": ("0",), "statement_timeout": ("0",)}
#: The same as `EXACT`, for a transaction; and an error in place of rows that a policy of row-level security would hide,
#: since a backup without them would look complete.
WHOLE = {**{name: values[0] for name, values in EXACT.items()}, "row_security": "off"}
#: SQLSTATE: a lock was not granted in time.
LOCKED = {"55P03"}
#: SQLSTATE: the database may only be read, or the role may not do it.
NOT_ALLOWED = {"25006", "42501"}
#: Classes of SQLSTATE of temporary errors: connections, deadlocks, a server that starts or shuts down.
PASSING = {"08", "40", "57"}
#: Classes of SQLSTATE for something that cannot be read: values, files, an internal error.
DAMAGED = {"22", "58", "XX"}


#: The names of types of dates, times and moments, and of arrays and ranges of these.
WITH_MOMENTS = re.compile("date|time|ts(tz)?(multi)?range")
#: Texts of those that psycopg 2 takes for the last day there is, and for midnight.
NO_MOMENT = re.compile("infinity|24:00:00")


def _loader(driver: Any, cursor: Any, oid: int) -> Callable[[str], Any]:
    """Return how the driver makes a value of the text of a type."""
    if hasattr(cursor, "adapters"):  # psycopg 3
        load = driver.adapt.Transformer.from_context(cursor).get_loader(oid, driver.pq.Format.TEXT).load
        return lambda text: load(text.encode())
    casts = {**driver.extensions.string_types, **cursor.connection.string_types}
    return (lambda text: casts[oid](text, cursor)) if oid in casts else str


def _text_of_bytes(value: Any) -> str:
    return bytes(value).decode()


_FLOATS = OfOneType(FLOAT)


def _plain_floats(values: Sequence[Any]) -> Sequence[Plain]:
    return [value if value is None or value - value == 0 else plain_float(value) for value in values]


def _signed_zeros(values: Sequence[Any]) -> Sequence[Any]:
    """Write minus zero as text: a number in a statement is a decimal one, in which zero has no sign."""
    if 0.0 not in values:
        return values
    return ["-0.0" if value == 0 and str(value) == "-0.0" else value for value in values]


def _as_decimal(number: float) -> float:
    """Return a number of JSON as it is read again, since it is held as a decimal one: zero has no sign, and what has no
    decimal places is a whole number."""
    decimal = Decimal(repr(number))
    exponent = decimal.as_tuple().exponent
    return int(decimal) if isinstance(exponent, int) and exponent >= 0 else number + 0.0


def _countable(values: Sequence[Any]) -> Sequence[Any]:
    """Refuse durations that PostgreSQL can store but nobody can read again, since no backup could be made of them."""
    for value in {*values}:
        if value is not None:
            microseconds(value)
    return values


_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _copy_texts(kind: Kind, values: Sequence[Any]) -> Sequence[str]:
    """Return the values of a column as text for COPY."""
    if kind is TEXT and not is_harmless(values):
        return ["\\N" if value is None else value.translate(_ESCAPES) for value in values]
    return ["\\N" if value is None else str(value) for value in values]


def _target(column: Column) -> str:
    """Return the table that a column refers to."""
    return str(column.field.target_field.model._meta.db_table)  # type: ignore[attr-defined]

"""One connection to a database: statements, snapshots to read from, and the transaction of a restore."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

from django.apps import apps
from django.db import DatabaseError, DataError, OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext as _

from ..exceptions import BackupError, Busy, Damaged, RestoreRefused, StorageFailed
from ..kinds import Plain
from ..tables import Column, Table
from ..threads import worker
from .errors import Job, Malformed, interface_explained, reason_of
from .natural_keys import NaturalKeys

if TYPE_CHECKING:
    from typing_extensions import Self

#: Rows as the driver returns them.
RawRows = list[tuple[Any, ...]]
#: Makes sure that a lock is held: see `lock` in `base`.
EnsureHeld = Callable[[], bool]


def is_held() -> bool:
    """Return True, for a lock that cannot be lost."""
    return True


def notes_table() -> list[str]:
    """Return the name of the table that holds the note about the last restore (see `memo`), that of Django's sessions;
    [] if they are not installed."""
    is_installed = apps.is_installed("django.contrib.sessions")
    return [apps.get_model("sessions", "Session")._meta.db_table] if is_installed else []


#: Seconds between two tries to get a lock that another process has.
PATIENCE = 0.05
#: Error codes of PostgreSQL and MySQL: there is no such table, or no such column.
MISSING = {"42P01", "42703", 1146, 1054}
#: Codes of PostgreSQL and MySQL of a COMMIT whose end is not known: no code, or the connection, the server or the query
#: was ended. MySQL's with 2 and 5 are those of the clients.
UNANSWERED = re.compile(r"|0|08...|40003|57...|1053|1317|1927|4031|[25]\d{3}")


class Session(ABC):
    """Statements and transactions on one of Django's connections. See `base` for the hooks."""

    #: Django's `connection.vendor`.
    vendor: ClassVar[str]
    #: Whether a server works on the next query while rows are converted here.
    IS_SERVER: ClassVar[bool] = True
    #: Whether rows with dangling references can be written.
    takes_dangling: ClassVar[bool] = True
    #: Whether different texts may be considered the same: see `collation`.
    folds_texts: ClassVar[bool] = False
    #: Seconds that a restore waits for other writers before it gives up.
    LOCK_SECONDS = 10
    #: Seconds that a restore waits for another: what seems to be one may be somebody who tidies up.
    RESTORE_SECONDS = 2

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self.natural_keys = NaturalKeys(connection, self.numbers_of, self.table_names)
        #: The records that the database has refused in this restore: lines that name record, field and reason.
        self.refused: list[str] = []
        #: How many of them have a value that this database cannot hold.
        self.cannot_hold = 0
        #: Makes sure that the lock of restores is held, in `exclusive`.
        self._ensure_held: EnsureHeld = is_held
        self._has_lost_lock = False
        #: Names of tables that are read as empty ones, or a relation as an empty one, since they are missing, or
        #: damaged: a restore makes these anew, when nothing but the writing is left.
        self.missing: Collection[str] = ()
        #: Whether the transaction of a restore keeps others from reading, too, since tables were made anew in it.
        self.locks_out_readers = False
        #: The driver's connection on which the COMMIT of a restore was sent; None before that.
        self.committed_on: Any = None
        #: Thread that prefetches the next rows of a snapshot while others are processed; None outside a snapshot.
        self._prefetcher: Executor | None = None

    def another(self) -> BaseDatabaseWrapper:
        """Return another connection to the same database, which is to be closed. It is none of Django's pool, where a
        restore could wait for one that only the end of the restore frees."""
        connection = self.connection.copy()
        connection.settings_dict.get("OPTIONS", {}).pop("pool", None)
        return connection

    # -- statements ---

    @contextmanager
    def given(self, connection: BaseDatabaseWrapper) -> Iterator[None]:
        """Open another connection (see `another`) in the block, and run its first statement. An engine may bound how
        long that takes."""
        yield

    def is_usable(self) -> bool:
        """Tell whether the connection works. Django's own method fails on MySQL if there is none."""
        return self.connection.connection is not None and bool(self.connection.is_usable())

    def close_if_lost(self) -> None:
        """Close a connection that was lost, so that the next statement gets another one.

        To be called where it may have stood idle for long: servers and routers end such connections.
        """
        if not self.connection.in_atomic_block and not self.is_usable():
            self.connection.close()

    def cursor(self) -> Any:
        """Return a cursor of the driver, with `%s` for parameters.

        It bypasses Django's query log, which would keep every statement with its rows while DEBUG is on.
        """
        self.connection.ensure_connection()
        return self.connection.create_cursor()

    @contextmanager
    def errors_explained(self) -> Iterator[None]:
        """Turn errors of the driver into errors of Django, all of them a `DatabaseError`."""
        with interface_explained(), self.connection.wrap_database_errors:
            yield

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run one statement, and return the number of rows that it changed."""
        with self.errors_explained(), closing(self.cursor()) as cursor:
            cursor.execute(sql, params)
            return int(cursor.rowcount)

    def fetch(self, sql: str, params: Sequence[Any] = ()) -> RawRows:
        """Run a query, and return all its rows."""
        return self.prefetch(sql, params)()

    def prefetch(self, sql: str, params: Sequence[Any]) -> Callable[[], RawRows]:
        """Start a query, and return a function that waits for its rows. Outside a snapshot, that function runs it."""
        if self._prefetcher is None:
            return partial(self._fetch, sql, params)
        return self._prefetcher.submit(self._fetch, sql, params).result

    def _fetch(self, sql: str, params: Sequence[Any]) -> RawRows:
        with self.errors_explained(), closing(self.cursor()) as cursor:
            cursor.execute(sql, params)
            return list(cursor.fetchall())

    def numbers_of(self, db_table: str, columns: Sequence[str], order: Sequence[str] = ("id",)) -> RawRows:
        """Return the `id` and these columns of all rows of a table. `order`: the columns by which they are sorted."""
        names, by = (", ".join(map(self.quote, names)) for names in (("id", *columns), order))
        return self.fetch(f"SELECT {names} FROM {self.quote(db_table)} ORDER BY {by}")

    def quote(self, name: str) -> str:
        """Quote a name for a statement that is run with parameters, where "%" has to be doubled."""
        return self.connection.ops.quote_name(name).replace("%", "%%")

    # -- transactions ---

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock of restores, against all processes and machines that use this database.

        Raises `Busy` if another restore is running. The lock is released when its holder dies.
        """
        with self.lock_within(Job.RESTORE, self.RESTORE_SECONDS) as ensure_held, self.exact_session():
            self._ensure_held, self._has_lost_lock = ensure_held, False
            try:
                yield
            finally:
                self._ensure_held = is_held

    def _ensure_exclusive(self) -> None:
        """Raise `Busy` if another restore is running although this is in `exclusive`: the lock may have been lost."""
        self._has_lost_lock |= not self._ensure_held()

    def was_exclusive(self) -> bool:
        """Tell whether nobody else can have restored since `exclusive` began. False if the database does not answer."""
        try:
            self._ensure_exclusive()
        except (BackupError, DatabaseError):
            return False
        return not self._has_lost_lock

    @contextmanager
    def lock_within(self, job: Job, seconds: float) -> Iterator[EnsureHeld]:
        """Hold a lock, and yield what `lock` yields. If another process has it, wait for up to `seconds`, then raise
        `Busy`."""
        with ExitStack() as stack:
            for tries_left in reversed(range(round(seconds / PATIENCE))):
                try:
                    ensure_held = stack.enter_context(self.lock(job))
                    break
                except Busy:
                    if not tries_left:
                        raise
                    time.sleep(PATIENCE)
            yield ensure_held

    @contextmanager
    def snapshot(self) -> Iterator[Self]:
        """Open a separate connection for reading, which sees one moment of the database, whatever others write."""
        connection = self.another()
        try:
            reader = type(self)(connection)
            with self.given(connection):
                connection.set_autocommit(False)
                reader.begin_snapshot()
            with worker() as reader._prefetcher:
                yield reader
        finally:
            connection.close()

    @contextmanager
    def restoring(self, tables: Iterable[Table] = ()) -> Iterator[None]:
        """Open the one transaction of a restore. It is committed if the block succeeds, and rolled back otherwise.

        From its beginning, nobody else can write to the `tables` until it has ended. Others can read meanwhile, and see
        the state before. Raises `Busy` if other writers do not end within `LOCK_SECONDS`, or if the lock of `exclusive`
        was lost to another restore; `RestoreRefused` if the database does not accept the result, or cannot roll back
        changes.
        """
        if self.connection.in_atomic_block:
            raise BackupError(
                _("A backup or restore needs a transaction of its own, and cannot run inside of another.")
            )
        self.refused, self.cannot_hold, self.committed_on = [], 0, None
        self.natural_keys.forget()
        tables = list(tables)
        self.check_transactional(tables)
        with (
            self.exact_session(),
            self.restore_settings(),
            self._translated_errors(),
            transaction.atomic(self.connection.alias, durable=True),
        ):
            self.lock_out_writers(tables)
            self._ensure_exclusive()
            with self.made_anew(tables):
                self.defer_constraints()
                yield
                self.check_deferred_constraints()
            self.committed_on = self.connection.connection

    def wait_for_writers(self, tables: Sequence[Table]) -> None:
        """Wait until all transactions that have written to the tables are committed or rolled back. Raises `Busy` if
        they do not end within `LOCK_SECONDS`, or if the database does not answer."""
        with (
            self._translated_errors(),
            self.exact_session(),
            self.restore_settings(),
            transaction.atomic(self.connection.alias, durable=True),
        ):
            self.lock_out_writers(tables)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Turn errors of the driver that are not about one record into a `BackupError`.

        What a restore reads was read before, too. So a `DataError` is about a value of our own, and no damage.
        """
        try:
            with interface_explained():
                yield
        except DatabaseError as error:
            if self.is_damage(error) and not isinstance(error, DataError):
                raise self.damaged(error) from error
            if not isinstance(error, OperationalError):
                raise RestoreRefused(
                    _("The database refused the result: %(reason)s. Nothing was changed.")
                    % {"reason": reason_of(error)}
                ) from error
            raise self.trouble(error) from error

    @contextmanager
    def damage_explained(self) -> Iterator[None]:
        """Raise `Damaged` for errors of the driver about a damaged database, or a missing table."""
        try:
            yield
        except DatabaseError as error:
            if not self.is_damage(error):
                raise
            raise self.damaged(error) from error

    def altered(self, tables: Iterable[Table]) -> list[str]:
        """Return the names of the tables in the database that lack something that Django expects of them; none if the
        database stops answering."""
        altered = []
        for name, columns in chain.from_iterable(table.db_tables for table in tables):
            names = ", ".join(self.quote(column.column) for column in columns)
            try:
                self.fetch(f"SELECT {names} FROM {self.quote(name)} WHERE 1 = 0")
            except DatabaseError:
                if not self.is_usable():
                    return []
                altered.append(name)
        return altered

    def trouble(self, error: DatabaseError) -> BackupError:
        """Return our error for one of the driver that is not about one record: `Busy` if it is temporary."""
        text = _("The database could not do it: %(reason)s. Nothing was changed.")
        kind = Busy if isinstance(error, OperationalError) and self.passes(error) else StorageFailed
        return kind(text % {"reason": reason_of(error)})

    def has_refused_commit(self, error: Exception) -> bool:
        """Tell whether an error of the COMMIT of a restore is the answer of the database, so that all was rolled back.
        If the connection was lost, nobody knows."""
        cause = error.__cause__ if isinstance(error, BackupError) else error
        if not isinstance(cause, DatabaseError) or UNANSWERED.fullmatch(str(self.code_of(cause) or "")):
            return False
        return self.connection.connection is self.committed_on and self.is_usable()

    def damaged(self, error: DatabaseError) -> Damaged:
        """Return our error for one of the driver that `is_damage`."""
        return Damaged(
            _("The database of this site is damaged: %(reason)s. Nothing was changed.")
            % {"reason": reason_of(error)}
        )

    # -- hooks: see `base` ---

    @abstractmethod
    def lock(self, job: Job) -> AbstractContextManager[EnsureHeld]: ...

    @abstractmethod
    def lock_out_writers(self, tables: Sequence[Table]) -> None: ...

    @abstractmethod
    def made_anew(self, tables: Sequence[Table]) -> AbstractContextManager[None]: ...

    @abstractmethod
    def change_marker(self, tables: Sequence[Table]) -> object: ...

    @contextmanager
    def exact_session(self) -> Iterator[None]:
        """Read and write values exactly in the block, whatever settings the session has; restore the settings after."""
        yield

    def check_transactional(self, tables: Sequence[Table]) -> None:
        """Raise what `untransactional` returns, if anything."""
        if refusal := self.untransactional(tables):
            raise refusal

    def held(
        self, tables: Sequence[Table], scope: Sequence[Table], keys: Sequence[Plain] | None = None
    ) -> RestoreRefused | None:
        """Return an error that names what does not let the rows of these tables go; None if nothing does. `keys`: of
        the rows of the one table that go; None: all."""
        return None

    def untransactional(self, tables: Sequence[Table]) -> RestoreRefused | None:
        """Return an error that names the tables whose changes cannot be rolled back; None if there are none."""
        if not (lines := self.without_transactions(tables)):
            return None
        text = _(
            "A restore writes to these tables, whose engine knows no transactions: one that fails could not be undone. "
            "Nothing was changed. What mends it:"
        )
        return RestoreRefused(text, lines)

    def written(self, tables: Iterable[Table]) -> set[str]:
        """Return the names of all tables that a restore into these writes to in its transaction."""
        names = {name for table in tables for name, _columns in table.db_tables}
        return {*names, *self.natural_keys.db_tables(), *notes_table()}

    def table_names(self) -> set[str]:
        """Return the names of all existing tables."""
        return {*self.connection.introspection.table_names()}

    @abstractmethod
    def passes(self, error: OperationalError) -> bool: ...

    def is_damage(self, error: DatabaseError) -> bool:
        """Tell whether an error says that the database is damaged, or that a table is missing."""
        return isinstance(error, Malformed) or self.code_of(error) in MISSING

    def code_of(self, error: Exception) -> object:
        """Return the code of a server's error: a SQLSTATE, or a number. None if it is not from the server."""
        cause = error.__cause__  # psycopg 3 and psycopg 2 name it differently
        state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
        return state or (error.args[0] if error.args and isinstance(error.args[0], int) else None)

    def without_transactions(self, tables: Sequence[Table]) -> list[str]:
        """Return an SQL statement for each table whose changes cannot be rolled back, which solves that."""
        return []

    def without_all_characters(self, tables: Sequence[Table]) -> list[str]:
        """Return an SQL statement for each table that cannot hold every Unicode character, which solves that."""
        return []

    def collation(self, table: Table, column: Column) -> str:
        """Return the collation of a column by which different texts may be the same; "" if none are."""
        return ""

    def weights(self, collation: str, texts: Sequence[Plain]) -> Sequence[Plain]:
        """Return a value for each text. Values are equal if the collation considers the texts the same."""
        return texts

    def distinguishing(self, table: Table) -> str:
        """Return an SQL statement that changes a table so that it distinguishes all texts."""
        return ""

    def acts_on_delete(self) -> bool:
        """Tell whether deleting rows may have side effects. By default, it has none."""
        return False

    def begin_snapshot(self) -> None:  # noqa: B027 - it is optional, as the next ones are
        """Run the first statements of a snapshot's transaction."""

    @contextmanager
    def restore_settings(self) -> Iterator[None]:
        """Set the session up for a restore, before its transaction begins; restore the settings after it."""
        yield

    def defer_constraints(self) -> None:  # noqa: B027
        """Defer the checks of constraints to the end, if the database can."""

    def check_deferred_constraints(self) -> None:  # noqa: B027
        """Let the database check the constraints that it deferred, in addition to `Database.dangling`."""

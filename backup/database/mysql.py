"""MySQL and MariaDB.

Longer than most modules, to keep all that is special about this engine in one place.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from functools import cached_property
from typing import Any

from django.conf import settings
from django.db import DatabaseError, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext as _

from ..kinds import (
    BINARY,
    BOOLEAN,
    DATE,
    DATETIME,
    DECIMAL,
    DURATION,
    FLOAT,
    INTEGER,
    JSON,
    TEXT,
    TIME,
    UNBOUNDED,
    UUID_,
    Kind,
    Plain,
)
from ..tables import Column, Table
from .base import Database
from .conversion import ColumnReader
from .errors import Job, already_running, somebody_writes
from .reading import UNION_TERMS, may_be_long
from .session import EnsureHeld
from .values import (
    Checked,
    ConvertAll,
    OfOneType,
    as_they_are,
    booleans,
    durations,
    each,
    floats,
    is_countable,
    is_harmless,
    json_as_stored,
    microseconds,
    moments,
    slices,
    times,
)


class MySQL(Database):
    """Implements the hooks of `base` for MySQL and MariaDB."""

    vendor = "mysql"
    folds_texts = True

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        super().__init__(connection)
        #: (table, column) -> collation, as the server says it.
        self._collations: dict[tuple[str, ...], str] = {}
        #: (table, column) of single precision; None before the server was asked.
        self._singles: set[tuple[str, str]] | None = None

    def table_names(self) -> set[str]:
        """Return the names of all tables, those that keep a history of their rows (of MariaDB) included."""
        rows = self.fetch(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
            " AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')"
        )
        return {name for (name,) in rows}

    def size(self) -> int | None:
        sql = "SELECT SUM(data_length + index_length) FROM information_schema.tables WHERE table_schema = DATABASE()"
        size = self.fetch(sql)[0][0]
        return None if size is None else int(size)

    @contextmanager
    def exact_session(self) -> Iterator[None]:
        """Set the session to all characters, to MySQL's own SQL dialect, to strict storing of values, and to answers
        with all rows.

        Whether a backslash escapes is not changed, since rows are packed before a restore's transaction begins.
        """
        charset = self._use_charset(CHARSET)
        before, exact = self._exact_settings()
        odd = {name: value for name, value in exact.items() if value != before[name]}
        try:
            if odd:
                self._set(odd)
            yield
        finally:
            if self.is_usable():
                self._use_charset(charset)
                if odd:
                    self._set({name: before[name] for name in odd})

    def _use_charset(self, name: str) -> str:
        """Set the character set in which the server and the driver exchange texts, and return that of before. In one
        that lacks a character, the server writes "?" in its place."""
        self.connection.ensure_connection()
        before: str = self.connection.connection.character_set_name()
        if before != name:
            self.connection.connection.set_character_set(name)
        return before

    def _exact_settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return settings of the session, and those with which all values are read and written exactly, and with which
        it may stand idle, and a statement run, for as long as it takes."""
        is_mariadb = self.connection.mysql_is_mariadb  # type: ignore[attr-defined]
        unbound = (*IDLE, "max_statement_time") if is_mariadb else ("max_execution_time",)
        patient = {"wait_timeout": LONGEST, **dict.fromkeys(unbound, 0)}
        names = ("sql_mode", *WHOLE, *patient)
        before = dict(zip(names, self.fetch(f"SELECT @@{', @@'.join(names)}")[0], strict=True))
        exact, modes = before["sql_mode"], {*before["sql_mode"].split(",")}
        if "STRICT_ALL_TABLES" not in modes or modes & ODD_MODES:
            exact = ",".join(["STRICT_ALL_TABLES", *sorted(modes & {"NO_BACKSLASH_ESCAPES"})])
        return before, {"sql_mode": exact, **WHOLE, **patient}

    def without_transactions(self, tables: Sequence[Table]) -> list[str]:
        """Return an ALTER TABLE for each table of an engine without transactions, such as MyISAM or Aria.

        Those count, too, that no backup holds but a restore writes to: a note that stays when the restore is rolled
        back would name one that never was.
        """
        written = self.written(tables)
        rows = self.fetch(
            "SELECT t.table_name FROM information_schema.tables t JOIN information_schema.engines e USING (engine)"
            " WHERE t.table_schema = DATABASE() AND e.transactions <> 'YES'"
        )
        quote = self.connection.ops.quote_name
        return [f"ALTER TABLE {quote(name)} ENGINE = InnoDB;" for (name,) in sorted(rows) if name in written]

    def without_all_characters(self, tables: Sequence[Table]) -> list[str]:
        """Return an ALTER TABLE for each table with texts in utf8mb3 and the like, which cannot hold emoji."""
        ours = {name for table in tables for name, _columns in table.db_tables}
        rows = self.fetch(
            "SELECT DISTINCT table_name FROM information_schema.columns WHERE table_schema = DATABASE()"
            " AND character_set_name <> 'utf8mb4'"
        )
        quote = self.connection.ops.quote_name
        return [
            f"ALTER TABLE {quote(name)} CONVERT TO CHARACTER SET utf8mb4;"
            for (name,) in sorted(rows)
            if name in ours
        ]

    def collation(self, table: Table, column: Column) -> str:
        collation_here = self._collation_of(table.db_table, column.column)
        return "" if collation_here.endswith("_bin") else collation_here

    def _collation_of(self, *name: str) -> str:
        """Return the collation of a column, given as (table, column); "" if it has none, or does not exist."""
        if name not in self._collations:
            rows = self.fetch(
                "SELECT collation_name FROM information_schema.columns WHERE table_schema = DATABASE()"
                " AND table_name = %s AND column_name = %s",
                name,
            )
            self._collations[name] = str(rows[0][0] or "") if rows else ""
        return self._collations[name]

    def folds(self, own: tuple[str, str], referred: tuple[str, str]) -> bool:
        # In nearly all collations, "Milk " refers to "Milk" as well.
        collation = self._collation_of(*own)
        return bool(collation) and collation == self._collation_of(*referred)

    def weights(self, collation: str, texts: Sequence[Plain]) -> Sequence[Plain]:
        """Let the server compute the weights. They do not say whether trailing blanks count, so that is asked, too."""
        pads = self.fetch(f"SELECT {_collated(collation)} = {_collated(collation)}", ["a", "a "])[0][0]
        all_weights: list[Plain] = []
        for part in slices(texts, UNION_TERMS):
            select = f"SELECT %s AS number, HEX(WEIGHT_STRING({_collated(collation)})) AS weight"
            values = [text.rstrip(" ") if pads and text is not None else text for text in part]
            params = [param for number_and_text in enumerate(values) for param in number_and_text]
            rows = self.fetch(" UNION ALL ".join([select] * len(values)), params)
            all_weights += [weight for _number, weight in sorted(rows, key=lambda row: int(row[0]))]
        return all_weights

    def distinguishing(self, table: Table) -> str:
        name = self.connection.ops.quote_name(table.db_table)
        return f"ALTER TABLE {name} CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;"

    def begin_snapshot(self) -> None:
        self._use_charset(CHARSET)
        self._set(self._exact_settings()[1])
        # Django's default level here, READ COMMITTED, shows each statement a newer state.
        self.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")

    @contextmanager
    def lock(self, job: Job) -> Iterator[EnsureHeld]:
        """Hold a lock of the session. The server must not end that because it stands idle, or others get the lock."""
        name = f"{LOCKS[job]}.{self.connection.settings_dict['NAME']}"[:64]

        def take() -> None:
            if self.fetch("SELECT GET_LOCK(%s, 0)", [name]) != [(1,)]:
                raise already_running(job)
            self._set({"wait_timeout": LONGEST})

        def ensure_held() -> bool:
            held = self.fetch("SELECT IS_USED_LOCK(%s) = CONNECTION_ID()", [name]) == [(1,)]
            if not held:  # otherwise the session would have it twice
                take()
            return held

        (before,) = self.fetch("SELECT @@wait_timeout")[0]
        try:
            take()
            yield ensure_held
        finally:
            if self.is_usable():
                self._set({"wait_timeout": before})
                self.execute("SELECT RELEASE_LOCK(%s)", [name])

    @contextmanager
    def restore_settings(self) -> Iterator[None]:
        """Change the settings of the session for a restore, and restore them after it.

        MySQL checks references row by row, and cannot defer that. Strict mode: a value that does not fit is an error,
        and is never cut; 0 is a key like any other. All rows of a table may be deleted at once. Django runs MySQL at
        READ COMMITTED, where a lock on all rows of a table keeps nobody from inserting one between them: see
        `lock_out_writers`.
        """
        names = (
            *("foreign_key_checks", "unique_checks", "sql_safe_updates", "sql_mode"),
            *(self._isolation, "innodb_lock_wait_timeout"),
        )
        before = dict(zip(names, self.fetch(f"SELECT @@{', @@'.join(names)}")[0], strict=True))
        modes = {*filter(None, before["sql_mode"].split(",")), "STRICT_ALL_TABLES", "NO_AUTO_VALUE_ON_ZERO"}
        settings = dict(
            zip(names, (0, 1, 0, ",".join(sorted(modes)), "REPEATABLE-READ", self.LOCK_SECONDS), strict=True)
        )
        try:
            self._set(settings)
            yield
        finally:
            if self.is_usable():
                self._set(before)
            else:
                self.connection.close()

    def _set(self, settings: dict[str, Any]) -> None:
        self.execute(f"SET {', '.join(f'{name} = %s' for name in settings)}", [*settings.values()])

    @property
    def _isolation(self) -> str:
        """The name of the variable that holds the session's isolation level."""
        return "tx_isolation" if self.connection.mysql_is_mariadb else "transaction_isolation"  # type: ignore[attr-defined]

    def lock_out_writers(self, tables: Sequence[Table]) -> None:
        """Lock every row, and every gap between rows, as a query does that reads all of them FOR UPDATE.

        `LOCK TABLES` would commit, and would lock out readers, too. No query may come before, since it would determine
        what this transaction sees. Tables that refer to others come first: a writer that inserts a row locks it, and
        then needs the row that it refers to.
        """
        try:
            for table in reversed(tables):
                for name in [
                    name for name, _columns in reversed(table.db_tables) if name not in self.missing
                ]:
                    # Without an index, the rows themselves are locked, into which a new one is inserted first. To lock
                    # an index beside them is not enough.
                    self.fetch(f"SELECT COUNT(*) FROM {self.quote(name)} USE INDEX () FOR UPDATE")
        except OperationalError as error:
            if error.args and error.args[0] in LOCKED:
                raise somebody_writes() from error
            raise

    def damaged_tables(self, tables: Iterable[Table]) -> dict[str, str]:
        there = self.table_names()
        damaged: dict[str, str] = {}
        for name in [name for table in tables for name, _columns in table.db_tables if name in there]:
            for _name, _check, kind, message in self.fetch(f"CHECK TABLE {self.quote(name)}"):
                if kind.lower() == "error":
                    damaged.setdefault(name, message)
        return damaged

    #: CREATE TABLE and DROP TABLE commit the transaction.
    ANEW_AT_ONCE = True

    @contextmanager
    def restoring(self, tables: Iterable[Table] = ()) -> Iterator[None]:
        """Make tables anew before the transaction, but not before it is known that nothing else is in the way."""
        tables = [*tables]
        if self.missing:
            with super().restoring(tables):
                pass
            # References to a damaged table stay, and are not checked: see `restore_settings`.
            with self.restore_settings(), self._translated_errors():
                ((before,),) = self.fetch("SELECT @@lock_wait_timeout")
                self._set({"lock_wait_timeout": self.LOCK_SECONDS})
                missing = [*self.missing]
                try:
                    self.make_anew(tables)
                except BaseException:
                    # The next restore would take one that lacks indexes or references for a whole one.
                    with suppress(DatabaseError):
                        for name in {*missing}.difference(self.missing):
                            self.execute(f"DROP TABLE IF EXISTS {self.quote(name)}")
                    raise
                finally:
                    if self.is_usable():
                        self._set({"lock_wait_timeout": before})
        keys: dict[Table, int] = {}
        try:
            with super().restoring(tables):
                keys = self.next_keys(tables)  # nobody else can raise them any more
                yield
        except BaseException:
            with suppress(DatabaseError):  # the first error is the one to tell
                self.set_next_keys(keys)  # which are not rolled back with the rows
            raise

    def acts_on_delete(self) -> bool:
        # Foreign keys do not cascade while they are not checked: see `restore_settings`.
        triggers = "SELECT 1 FROM information_schema.triggers WHERE trigger_schema = DATABASE()"
        if self.fetch(f"SELECT EXISTS ({triggers})")[0][0]:
            return True
        return not (self.connection.mysql_is_mariadb or self._sees_triggers())  # type: ignore[attr-defined]

    def _sees_triggers(self) -> bool:
        """Tell whether this account can see triggers: MySQL only shows them to accounts that may create some."""
        user, host = self.fetch("SELECT CURRENT_USER()")[0][0].rsplit("@", 1)
        may = (
            "SELECT 1 FROM information_schema.{}_privileges WHERE privilege_type = 'TRIGGER' AND grantee = %s"
        )
        everywhere, here = may.format("user"), may.format("schema")
        sql = f"SELECT EXISTS ({everywhere}) OR EXISTS ({here} AND DATABASE() LIKE table_schema)"
        return bool(self.fetch(sql, [f"'{user}'@'{host}'"] * 2)[0][0])

    def change_marker(self, tables: Sequence[Table]) -> object:
        """Return for each table the number of rows, and a sum of digests of the rows, since MySQL itself cannot
        tell."""
        return [
            self.fetch(f"SELECT COUNT(*), SUM({self._digest_of(columns)}) FROM {self.quote(name)}")
            for table in tables
            for name, columns in table.db_tables
        ]

    def _digest_of(self, columns: Sequence[Column]) -> str:
        """Return SQL for a digest of the values of these columns in a row."""
        texts = []
        for column in columns:
            name = self.quote(column.column)
            # In hexadecimal digits, since texts of several character sets, or bytes, cannot be joined.
            digits = f"HEX({name})"
            if may_be_long(column):
                # HEX makes NULL of what is longer than max_allowed_packet, and a digest takes time.
                texts.append(f"COALESCE(IF(OCTET_LENGTH({name}) < 1000, {digits}, SHA2({name}, 256)), '-')")
            elif column.kind in (TEXT, UUID_):
                texts.append(f"COALESCE({digits}, '-')")
            else:
                exact = self._exact(column)
                texts.append(f"QUOTE({exact})" if column.field.null else exact)
        # SHA2 is the only digest that each version has: MySQL 9.6 moved MD5 and SHA1 out of the server.
        return f"CAST(CONV(LEFT(SHA2(CONCAT_WS(',', {', '.join(texts)}), 256), 15), 16, 10) AS UNSIGNED)"

    def month_of(self, name: str) -> str:
        return f"EXTRACT(YEAR_MONTH FROM {name})"

    def reset_sequences(self, tables: Sequence[Table]) -> None:
        """Do nothing: InnoDB continues after the highest key that was inserted."""

    #: ALTER TABLE commits the transaction.
    KEYS_AFTER_COMMIT = True

    def next_keys(self, tables: Sequence[Table]) -> dict[Table, int]:
        if not self.connection.mysql_is_mariadb:  # type: ignore[attr-defined]
            self._set(
                {"information_schema_stats_expiry": 0}
            )  # else the server answers from a cache of the last day
        sql = (
            "SELECT table_name, auto_increment FROM information_schema.tables WHERE table_schema = DATABASE()"
        )
        counters = {name: int(key) for name, key in self.fetch(sql) if key is not None}
        return {
            table: counters[table.db_table]
            for table in tables
            if table.is_numbered and table.db_table in counters
        }

    def set_next_keys(self, next_keys: Mapping[Table, int]) -> None:
        """Set only what differs. InnoDB itself takes the key after the highest one, if that is higher."""
        now = self.next_keys([*next_keys])
        (before,) = self.fetch("SELECT @@lock_wait_timeout")[0]
        self._set({"lock_wait_timeout": self.LOCK_SECONDS})
        try:
            for table, key in next_keys.items():
                # ALTER TABLE takes as long as some hundred rows, and everybody waits for the table.
                if now.get(table) != max(key, int(self.highest_key(table) or 0) + 1):
                    self.execute(f"ALTER TABLE {self.quote(table.db_table)} AUTO_INCREMENT = {key:d}")
        finally:
            if self.is_usable():
                self._set({"lock_wait_timeout": before})

    def cut(self, column: Column) -> str:
        # To ask for the longest value of each table first takes a tenth of a backup's time.
        is_text = column.kind in (TEXT, JSON, BINARY)
        return f"LEFT({self.quote(column.column)}, {self.SHORT})" if is_text else ""

    def fast_reader(self, column: Column) -> ColumnReader | None:
        name, kind = self.quote(column.column), column.kind
        if kind in (INTEGER, FLOAT):
            is_single = self._is_single(column)
            return ColumnReader(self._exact(column), OfOneType(kind, _singles if is_single else as_they_are))
        # By its kind, too: a field of a plug-in may convert the text of its column.
        if kind is TEXT and column.field.get_internal_type() in ("CharField", "TextField"):
            return ColumnReader(name, Checked(_OF_DRIVER, _texts))
        if kind is BOOLEAN:
            return ColumnReader(name, booleans)
        if kind is DATE:
            return ColumnReader(f"DATE_FORMAT({name}, '%%Y-%%m-%%d')", Checked(DATE))
        if kind is TIME:  # which the driver returns as an error, if it is none of a day ("25:00:00")
            return ColumnReader(f"CAST({name} AS CHAR)", Checked(TIME, times))
        if kind is DATETIME and settings.USE_TZ and self.connection.timezone_name == "UTC":
            # The text that the server sends anyway: DATE_FORMAT would take longer.
            return ColumnReader(f"CONCAT(INSERT({name}, 11, 1, 'T'), 'Z')", _without_zeros)
        if kind is DURATION:
            return ColumnReader(name, durations)
        return None

    def _exact(self, column: Column) -> str:
        """Return SQL for the values of a column with all their digits: of single precision, the server writes six."""
        name = self.quote(column.column)
        return f"{name} * 1E0" if self._is_single(column) else name

    def _is_single(self, column: Column) -> bool:
        """Tell whether somebody has made a column one of single precision."""
        if self._singles is None:
            sql = (
                "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE()"
                " AND data_type = 'float'"
            )
            self._singles = {(table, name) for table, name in self.fetch(sql)}
        return (column.field.model._meta.db_table, column.column) in self._singles

    def fast_writer(self, column: Column) -> ConvertAll | None:
        kind = column.kind
        if kind in (DATE, TIME):
            return as_they_are
        if kind is FLOAT:
            return floats
        if kind is DURATION:
            return lambda values: [None if value is None else microseconds(value) for value in values]
        if kind is DATETIME and settings.USE_TZ and self.connection.timezone_name == "UTC":
            return lambda values: [None if value is None else value[:-1] for value in values]
        return super().fast_writer(column)

    #: Kinds whose values we write into a statement ourselves.
    AS_SQL = (INTEGER, TEXT, BOOLEAN, FLOAT, DATE, TIME, DATETIME, DURATION)

    def pack_rows(self, columns: Sequence[Column], values: Sequence[Sequence[Any]]) -> bytes:
        """Pack rows as SQL, if all columns have a kind for which that works.

        A column at a time: the driver would write each value by itself.
        """
        raw = self.connection.connection
        if (
            not values[0]
            or not all(column.kind in self.AS_SQL or column.is_natural for column in columns)
            # In other character sets, a byte within a character may equal that of a quote.
            or getattr(raw, "encoding", "") != "utf8"
            or not hasattr(raw, "string_literal")  # another driver than mysqlclient
        ):
            return super().pack_rows(columns, values)
        literals = [
            _literals(column.kind, plain, raw.string_literal)
            for column, plain in zip(columns, values, strict=True)
        ]
        return b"VALUES (" + "),(".join(map(",".join, zip(*literals, strict=True))).encode() + b")"

    def insert_packed_rows(self, db_table: str, columns: Sequence[Column], data: bytes) -> None:
        if not data.startswith(b"VALUES"):
            super().insert_packed_rows(db_table, columns, data)
            return
        quote = self.connection.ops.quote_name
        names = ", ".join(quote(column.column) for column in columns)
        begin = f"INSERT INTO {quote(db_table)} ({names}) ".encode()
        with self.errors_explained(), closing(self.cursor()) as cursor:
            cursor.execute(begin + data)

    BOUNDED = (FLOAT, DECIMAL, DURATION)

    def as_stored(self, column: Column, value: Plain) -> Plain:
        # MariaDB keeps the text of JSON.
        is_text = self.connection.mysql_is_mariadb  # type: ignore[attr-defined]
        is_json = self.is_json(column, "json")
        return json_as_stored(value, _in_64_bits) if is_json and not is_text else value

    def can_hold(self, column: Column, value: Plain) -> bool:
        """Tell whether a float is a number: MySQL has no NaN and no infinity."""
        if column.kind is DURATION:
            return is_countable(value)
        if column.kind is DECIMAL:
            number: Decimal = DECIMAL.load(value)
            return number.is_finite()
        return column.kind is not FLOAT or value not in UNBOUNDED

    @cached_property
    def _most_bytes(self) -> int:
        """The bytes of a text that fit into a statement, with the rest of its row."""
        return int(self.fetch("SELECT @@max_allowed_packet")[0][0]) - REST_OF_ROW

    @property
    def fits_surely(self) -> int:
        return self._most_bytes // 4  # an escaped character is two bytes, others are up to four

    def why_too_long(self, text: str) -> str | None:
        if len(text) > self.fits_surely:
            size = len(text.encode()) + sum(map(text.count, ESCAPED))
            if size > self._most_bytes:
                return _(
                    "it takes %(size)s bytes; raise the server's max_allowed_packet to more than that"
                ) % {"size": size + REST_OF_ROW}
        return None

    def passes(self, error: OperationalError) -> bool:
        return bool(error.args) and error.args[0] in {*LOCKED, *LOST, *ALTERED}

    def is_damage(self, error: DatabaseError) -> bool:
        return super().is_damage(error) or self.code_of(error) in DAMAGED

    def is_about_a_record(self, error: Exception) -> bool:
        # Errors of data and constraints that mysqlclient raises as OperationalError.
        return super().is_about_a_record(error) or self.code_of(error) in {
            1048,
            1264,
            1292,
            1364,
            1366,
            1367,
            1406,
            3140,
            3819,
            4025,
        }


#: The beginnings of the names of the locks, which are shared by the whole server.
LOCKS = {Job.RESTORE: "backup", Job.AUTOMATIC_BACKUP: "backup.automatic", Job.NOTE: "backup.note"}
#: Seconds, as many as every system takes, that a session may stand idle.
LONGEST = 2147483
#: MariaDB's names for the seconds that a transaction may stand idle; 0 for any time.
IDLE = ("idle_transaction_timeout", "idle_readonly_transaction_timeout", "idle_write_transaction_timeout")
#: The characters of a text that take one more byte in a statement.
ESCAPED = "\0\n\r\x1a'\"\\"
#: Bytes that are left for the rest of a statement with a long text.
REST_OF_ROW = 10_000
#: The character set that has all characters.
CHARSET = "utf8mb4"
#: Settings that would leave rows out of an answer, or refuse it -> the values with which they do not.
WHOLE = {"sql_select_limit": 2**64 - 1, "sql_big_selects": 1}
#: Modes that change the meaning of SQL, or how values are stored.
ODD_MODES = {
    *("ANSI", "ORACLE", "MSSQL", "DB2", "POSTGRESQL", "MAXDB"),
    *("ANSI_QUOTES", "PIPES_AS_CONCAT", "IGNORE_SPACE", "HIGH_NOT_PRECEDENCE", "SIMULTANEOUS_ASSIGNMENT"),
    *("EMPTY_STRING_IS_NULL", "PAD_CHAR_TO_FULL_LENGTH", "TIME_ROUND_FRACTIONAL"),
}


def _collated(collation: str) -> str:
    """Return SQL for a parameter with a collation."""
    return f"CONVERT(%s USING {collation.split('_')[0]}) COLLATE {collation}"


#: Error numbers: a lock was not granted in time, or there is a deadlock.
LOCKED = {1205, 1213}
#: Error numbers: too many connections, the server cannot be reached or shuts down, or it ended this one or a query. 0
#: is mysqlclient's own, for each statement after the one that was told so.
LOST = {0, 1040, 1053, 1317, 2002, 2003, 2006, 2013}
#: Error numbers: a row or a table is not what it was when the snapshot began.
ALTERED = {1020, 1412}
#: Error numbers of damage: a file that is missing or holds something else, an index, a table that crashed.
DAMAGED = {1016, 1017, 1030, 1033, 1034, 1035, 1194, 1195, 1712, 1812, 1814, 1815, 1877, 1932}


def _literals(kind: Kind, values: Sequence[Any], literal: Callable[[bytes], bytes]) -> Sequence[str]:
    """Return the values of a column as literals of MySQL's SQL.

    `literal`: the driver's function that quotes text. Raises `ValueError` if MySQL cannot express a value.
    """
    if kind is FLOAT:
        return ["NULL" if value is None else _double(value) for value in values]
    if kind in (INTEGER, BOOLEAN, DURATION) or kind.name == "natural":
        return ["NULL" if value is None else f"{value:d}" for value in values]
    if is_harmless(values):
        return ["NULL" if value is None else f"'{value}'" for value in values]
    return ["NULL" if value is None else literal(value.encode()).decode() for value in values]


def _double(value: float) -> str:
    """Write a float with an exponent, which distinguishes it from a decimal number."""
    text = repr(value)
    if text in ("nan", "inf", "-inf"):
        raise ValueError(text)
    return text if "e" in text else f"{text}e0"


@each
def _singles(value: float) -> float:
    """Return the shortest number that single precision does not tell from this one, so that 37.6 is not read as
    37.599998474121094."""
    single = struct.pack("f", value)
    numbers = (float(f"{value:.{digits}g}") for digits in range(6, 10))
    return next(number for number in numbers if struct.pack("f", number) == single)


#: Months and days that no date has, " MMDD ". The server may hold them.
_NO_DAYS = (b" 00", b"00 ", b"0230", b"0231", b"0431", b"0631", b"0931", b"1131")


#: Texts as the driver returns them: of one type in all rows of a column, so that `_texts` need only look at one.
_OF_DRIVER = replace(TEXT, all_canonical=lambda values: True)


def _texts(values: Sequence[Any]) -> Sequence[Any]:
    """Read texts, also if somebody has made the column one of bytes."""
    first = next((value for value in values if value is not None), "")
    return values if isinstance(first, str) else each(bytes.decode)(values)


def _may_hold_no_day(text: str) -> bool:
    """Tell whether one of the moments may have an impossible date (February 30, month 0), or the year 0.

    `text`: the moments, in lines of 27 characters. All lines are checked at once, since to check them one by one would
    take a tenth of a backup's time.
    """
    days = bytearray(b" ") * (5 * (len(text) // 28 + 1) + 1)
    for place, at in enumerate((5, 6, 8, 9), 1):
        days[place::5] = text[at::28].encode()
    return "0" in text[::28] or any(day in days for day in _NO_DAYS)


def _without_zeros(values: Sequence[Any]) -> Sequence[Plain]:
    """Read moments with as many digits of a fraction as their column has; ours have six, or none if it is zero."""
    if not values or None in values:
        return [None if value is None else _without_zeros([value])[0] for value in values]
    text = "\n".join(values)
    if len(text) != 28 * len(values) - 1:  # not six, as Django's columns have
        Checked(DATE)([value[:10] for value in values])
        return [moment.replace(".000000", "") for moment in moments([value[:-1] for value in values])]
    if _may_hold_no_day(text):
        Checked(DATE)([value[:10] for value in values])
    elif "-02-29T" in text:
        Checked(DATE)([value[:10] for value in values if value[5:10] == "02-29"])
    return text.replace(".000000", "").split("\n") if ".000000" in text else values


def _in_64_bits(number: float) -> float:
    """Return a number of JSON as MySQL reads it again: whole ones beyond 64 bits are floats."""
    if not -(2**63) <= number < 2**64:
        with suppress(OverflowError):  # it cannot be stored at all
            return float(number)
    return number

"""SQLite, and SQLite database files that somebody uploads.

Longer than most modules, to keep all that is special about this engine in one place.
"""

from __future__ import annotations

import marshal
import pickle
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from decimal import Context, Decimal
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, DatabaseError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from ..kinds import (
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
    UUID_,
    Plain,
    target_of,
)
from ..options import Place
from ..tables import Column, Table
from .base import Database
from .conversion import ColumnReader
from .damaged_file import INSTEAD_OF, DamagedFile
from .errors import Job, already_running, reason_of
from .foreign_file import opened
from .lenient import LenientChecked, lenient
from .lock_file import LOCK_FILES, make_lock_file
from .reading import PARAMETERS
from .session import EnsureHeld, is_held
from .values import (
    UNREADABLE,
    ConvertAll,
    as_they_are,
    booleans,
    durations,
    each,
    floats,
    is_countable,
    is_whole,
    microseconds,
)
from .writing import pickled


class SQLite(DamagedFile, Database):
    """Implements the hooks of `base` for SQLite."""

    vendor = "sqlite"
    #: A low number: there is no server to wait for, and this many rows fit into the processor's cache.
    BATCH = 500
    IS_SERVER = False
    #: Numbers of rows that a statement inserts. More hardly save time, and SQLite keeps the memory of each statement.
    ROWS = (256, 64, 16, 4, 1)

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        super().__init__(connection)
        #: The connection that a snapshot reads from, instead of Django's.
        self._source: sqlite3.Connection | None = None
        #: In a snapshot: the `change_marker` just before it.
        self._marker: object = None
        #: Name of a table and of a unique column -> see `_forms_here`.
        self._forms: dict[tuple[str, str], dict[Plain, Any]] = {}

    def cursor(self) -> Any:
        if self._source is None:
            return super().cursor()
        from django.db.backends.sqlite3.base import SQLiteCursorWrapper

        return self._source.cursor(factory=SQLiteCursorWrapper)

    def quote(self, name: str) -> str:
        """Quote a name in the form that SQLite only takes for a name: with Django's quotes, the name of a missing
        column would be read as a text."""
        return "`" + name.replace("`", "``").replace("%", "%%") + "`"

    def passes(self, error: OperationalError) -> bool:
        return "locked" in str(error)

    def has_refused_commit(self, error: Exception) -> bool:
        return True  # there is no connection to lose

    @contextmanager
    def snapshot(self) -> Iterator[SQLite]:
        """Open a separate connection for reading, which sees one moment of the database, whatever others write.

        In WAL mode, readers do not block writers. In other modes they do, so the pages are first copied, which takes a
        fraction of the time, into a private temporary database that SQLite itself deletes. Django's own connections are
        not used, since they may be set to lock out writers at once.
        """
        self.connection.ensure_connection()
        path = str(self.connection.settings_dict["NAME"])
        in_memory = self.connection.is_in_memory_db()  # type: ignore[attr-defined]
        wal = self.fetch("PRAGMA journal_mode")[0][0] == "wal"
        with self.connection.wrap_database_errors, ExitStack() as stack:
            if in_memory:
                source = self.connection.connection
            else:
                timeout = float(self.connection.settings_dict["OPTIONS"].get("timeout", 5))
                source = sqlite3.connect(
                    path, timeout=timeout, isolation_level=None, uri=path.startswith("file:")
                )
                stack.callback(source.close)
            reader = SQLite(self.connection)
            reader._marker = self.change_marker(())
            if wal:
                source.execute("BEGIN")
                reader._source = source
            else:
                reader._source = sqlite3.connect("", isolation_level=None)
                stack.callback(reader._source.close)
                source.backup(reader._source, progress=_not_for_ever)
            yield reader

    @classmethod
    @contextmanager
    def foreign(cls, path: Path) -> Iterator[SQLite]:
        """Open a file of unknown origin, which may be hostile, for reading. It must be a private copy.

        Raises `InvalidBackup` if it cannot be read at all. Parts of it may be damaged.
        """
        with opened(path) as connection:
            reader = cls(connections[DEFAULT_DB_ALIAS])
            reader._source = connection
            yield reader

    def bound_batches(self, tables: Iterable[Table], most: int, largest: int) -> int:
        """Limit the rows that are read at a time to `most` bytes, or one row of up to `largest` bytes. Returns the
        bytes of all rows.

        A small file may have thousands of rows with a long text, if that is the default of its column.
        """
        self.largest = largest
        longest = total = 0
        for table in tables:
            size = f"SELECT {self._size_of(table)} AS size FROM {self.quote(table.db_table)}"
            try:
                row = self.fetch(f"SELECT COALESCE(MAX(size), 0), COALESCE(SUM(size), 0) FROM ({size})")[0]
            except DatabaseError as error:
                if not self.is_damage(error):
                    raise
                row = most // 16, 0  # a damaged table is read a few rows at a time
            self._longest[table] = int(row[0])  # so that `is_long` need not ask
            longest, total = max(longest, self._longest[table]), total + int(row[1])
        self.BATCH = max(1, min(self.BATCH, most // max(longest, 1)))
        return total

    def _size_of(self, table: Table) -> str:
        """Return SQL for the bytes of a row's long values; of all its values, in a file where any may be long."""
        if self.largest is None:
            return super()._size_of(table)
        return " + ".join(map(self._size_of_value, table.columns))

    def longest_definition(self) -> int:
        """Return the bytes of the longest SQL text that defines a table, or a part of one."""
        return int(self.fetch("SELECT COALESCE(MAX(LENGTH(CAST(sql AS BLOB))), 0) FROM sqlite_master")[0][0])

    def _size_of_value(self, column: Column) -> str:
        """Return SQL for the bytes of a value, which may be a text in any column."""
        name = self.quote(column.column)
        length = f"LENGTH(CAST({name} AS BLOB))"
        if column.kind in (INTEGER, FLOAT, BOOLEAN, DURATION):
            # Numbers come before all texts. They are not measured, since that takes long.
            return f"CASE WHEN {name} >= '' THEN {length} ELSE 8 END"
        return f"COALESCE({length}, 0)"

    def damage(self, tables: Iterable[Table]) -> list[str]:
        lines = [line for (line,) in self.fetch("PRAGMA integrity_check(20)")]
        current = self.table_names()
        lines += [
            f"no such column: {name}.{column.column}"
            for table in tables
            for name, columns in table.db_tables
            for column in columns
            if name in current and column.column not in self.column_names(name)
        ]
        # No restore makes these, but migrations do.
        lines += [f"no such table: {name}" for name in self.natural_keys.db_tables() if name not in current]
        return [line for line in lines if line != "ok"]

    def file(self) -> Path | None:
        if self.connection.is_in_memory_db():  # type: ignore[attr-defined]
            return None
        settings_dict = self.connection.settings_dict
        name = str(settings_dict.get(INSTEAD_OF) or settings_dict["NAME"])
        return Path(unquote(urlsplit(name).path) if name.startswith("file:") else name)

    def copy_file(self, target: Path) -> None:
        """Copy the pages as they are now, including those that are still in a journal."""
        self.connection.ensure_connection()
        with self.connection.wrap_database_errors, closing(sqlite3.connect(target)) as copy:
            self.connection.connection.backup(copy, progress=_not_for_ever)

    def count(self, table: Table, after: Plain = None) -> int:
        if self._source is None or after is not None or table.db_table in self.missing:
            return super().count(table, after)
        # In somebody else's file: COUNT(*) is a single step, which `foreign_file` could not stop.
        return int(self.fetch(f"SELECT SUM(1) FROM {self.quote(table.db_table)}")[0][0] or 0)

    def table_names(self) -> set[str]:
        return {name for (name,) in self.fetch("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def column_names(self, db_table: str) -> set[str]:
        """Return the names of a table's plain columns; none if it is a view, a virtual table, or missing."""
        rows = self.fetch("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = %s", [db_table])
        if not rows or not re.match(r"\s*CREATE\s+TABLE\b", rows[0][0] or "", re.IGNORECASE):
            return set()
        hidden = 6  # generated, or a virtual table's own
        return {
            row[1] for row in self.fetch(f"PRAGMA table_xinfo({self.quote(db_table)})") if not row[hidden]
        }

    def folds(self, own: tuple[str, str], referred: tuple[str, str]) -> bool:
        """Tell whether the definition of the table names a collation at all: SQLite does not say whose it is, and it
        does no harm to look for a row that says a text in the same way."""
        # No function of SQL: in somebody else's file only those are allowed that all reading needs.
        rows = self.fetch("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = %s", [referred[0]])
        return any("COLLATE" in (sql or "").upper() for (sql,) in rows)

    @contextmanager
    def lock(self, job: Job) -> Iterator[EnsureHeld]:
        """Lock a file beside the database, with SQLite's own locks. The system releases them when the process dies."""
        database = self.file()
        if database is None:
            yield is_held
            return
        # The empty file is never deleted: otherwise one process could lock the deleted file, and another a new one.
        path = f"{database}-{LOCK_FILES[job]}"
        make_lock_file(path, database)
        with ExitStack() as stack:
            with self.connection.wrap_database_errors:
                guard = stack.enter_context(closing(sqlite3.connect(path, timeout=0, isolation_level=None)))
                try:
                    guard.execute("BEGIN EXCLUSIVE")
                except sqlite3.OperationalError as error:
                    if "locked" in str(error):
                        raise already_running(job) from error
                    raise
            yield is_held

    def acts_on_delete(self) -> bool:
        rows = self.fetch(
            "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'trigger')"
            " OR EXISTS (SELECT 1 FROM sqlite_master AS t, pragma_foreign_key_list(t.name) AS f"
            " WHERE t.type = 'table' AND f.on_delete NOT IN ('NO ACTION', 'RESTRICT'))"
        )
        return bool(rows[0][0])

    def change_marker(self, tables: Sequence[Table]) -> object:
        # The first changes when other connections write, the second when this one does.
        return self._marker or (self.fetch("PRAGMA data_version"), self.fetch("SELECT total_changes()"))

    def size(self) -> int | None:
        return int(self.fetch("PRAGMA page_count")[0][0]) * int(self.fetch("PRAGMA page_size")[0][0])

    def lock_out_writers(self, tables: Sequence[Table]) -> None:
        # Take the write lock, of which there is one for the whole database. After a read, it might not be granted.
        self.execute("DELETE FROM django_content_type WHERE 0")

    def length_of(self, name: str) -> str:
        return f"LENGTH(CAST({name} AS BLOB))"

    def month_of(self, name: str) -> str:
        return f"SUBSTR({name}, 1, 7)"

    def reset_sequences(self, tables: Sequence[Table]) -> None:
        """Do nothing: SQLite always continues after the highest key that there ever was."""

    def next_keys(self, tables: Sequence[Table]) -> dict[Table, int]:
        numbered = [table for table in tables if table.is_numbered]
        if not numbered:
            return {}  # and perhaps no table of counters either
        # Only these: somebody else's file may have any number of other rows.
        names = [table.db_table for table in numbered]
        sql = f"SELECT name, MAX(seq) FROM sqlite_sequence WHERE name IN ({', '.join(['%s'] * len(names))})"
        try:
            last: dict[str, int] = dict(self.fetch(f"{sql} GROUP BY name", names))
        except DatabaseError as error:
            if self.unreadable is None or not self.is_damage(error):
                raise
            self.unreadable.add(Place("sqlite_sequence", None, None, reason_of(error)))
            return {}
        return {table: 1 + int(last.get(table.db_table) or 0) for table in numbered}

    def set_next_keys(self, next_keys: Mapping[Table, int]) -> None:
        for table, key in next_keys.items():
            last = max(key - 1, self.highest_key(table) or 0)
            if not self.execute(
                "UPDATE sqlite_sequence SET seq = %s WHERE name = %s", [last, table.db_table]
            ):
                self.execute(
                    "INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", [table.db_table, last]
                )

    def fast_reader(self, column: Column) -> ColumnReader | None:
        # A column behind "+" has no declared type, so that no converter of Django is called for each value. Each value
        # is checked, since SQLite stores anything in any column, and every backup must be restorable. Forms that Django
        # reads, but does not write, are made canonical.
        name, kind = f"+{self.quote(column.column)}", column.kind
        if kind is BOOLEAN:
            return ColumnReader(name, lenient(kind, booleans))
        if kind is DURATION:  # microseconds
            return ColumnReader(name, lenient(kind, durations))
        if kind is DATETIME and settings.USE_TZ and self.connection.timezone_name == "UTC":
            return ColumnReader(name, LenientChecked(kind, _unspaced))
        if kind is FLOAT:  # in JSON text, infinity would become null and look identical to it
            read = lenient(kind, each(kind.check))
            return ColumnReader(name, lambda values: values if kind.all_canonical(values) else read(values))
        return ColumnReader(name, LenientChecked(kind)) if kind in (INTEGER, TEXT, DATE, TIME) else None

    def fast_writer(self, column: Column) -> ConvertAll | None:
        kind = column.kind
        if kind in (DATE, TIME):
            return as_they_are
        if kind is FLOAT:
            return _floats
        if kind is DECIMAL:
            return self._exact_decimals(column)
        if kind is DURATION:
            return lambda values: [None if value is None else microseconds(value) for value in values]
        if kind is DATETIME and settings.USE_TZ and self.connection.timezone_name == "UTC":
            return _spaced
        return super().fast_writer(column)

    #: Kinds of values that are texts in SQLite, of which other software may write other forms than Django does, such as
    #: a UUID with hyphens.
    IN_FORMS = (UUID_, DATE, TIME, DATETIME)

    def writer_of(self, column: Column) -> ConvertAll:
        """Return a function that converts plain values to values for the driver. Values by which rows are found keep
        the form that they have here, since SQLite compares texts."""
        write = super().writer_of(column)
        forms = self._forms_here(column) if column.kind in self.IN_FORMS else {}
        if not forms:
            return write
        return lambda values: [
            forms.get(value, written) for value, written in zip(values, write(values), strict=True)
        ]

    def _forms_here(self, column: Column) -> dict[Plain, Any]:
        """Return plain value -> value in the database, of those that are not in the form that Django writes. {} for a
        column that is not unique, and does not refer to one that is."""
        field = target_of(column.field)
        table, name = field.model._meta.db_table, field.column
        if not field.unique or name is None:
            return {}
        if (table, name) not in self._forms:
            own = Column(field, column.kind, "")
            to_plain, write = self.reader_of(own).to_plain or as_they_are, super().writer_of(own)
            forms = self._forms[table, name] = {}
            if table not in self.table_names():
                return {}
            with self.errors_explained(), closing(self.cursor()) as cursor:
                for (stored,) in cursor.execute(f"SELECT +{self.quote(name)} FROM {self.quote(table)}", ()):
                    with suppress(*UNREADABLE):
                        (plain,) = to_plain([stored])
                        if [stored] != write([plain]):
                            forms[plain] = stored
        return self._forms[table, name]

    def _exact_decimals(self, column: Column) -> ConvertAll:
        """Return Django's own writer of decimals, but refuse those of which SQLite would lose digits: it stores them as
        floats, with 15 digits."""
        plain = super()._plain_writer(column)

        def write(values: Sequence[Plain]) -> Sequence[Any]:
            for value in values:
                if value is not None and not self.can_hold(column, value):
                    raise ValueError(value)
            return plain(values)

        return write

    BOUNDED = (FLOAT, DECIMAL, INTEGER, DURATION)

    def can_hold(self, column: Column, value: Plain) -> bool:
        """Tell whether SQLite can store a number unchanged: it turns NaN into NULL, and decimals into floats."""
        if column.kind is INTEGER:
            return is_whole(value)
        if column.kind is DURATION:
            return is_countable(value)
        if column.kind is FLOAT:
            return bool(value != "NaN")
        if column.kind is DECIMAL:
            number: Decimal = DECIMAL.load(value)
            return number.is_finite() and (
                (len(number.as_tuple().digits) <= 15 and abs(number.adjusted()) < 300)
                or DIGITS.create_decimal_from_float(float(number)) == number
            )
        return True

    def as_stored(self, column: Column, value: Plain) -> Plain:
        """Return a value as it is read after it was written: zero has no sign in SQLite, but in JSON."""
        return value + 0.0 if type(value) is float and column.kind is not JSON else value

    def pack_rows(self, columns: Sequence[Column], values: Sequence[Sequence[Any]]) -> bytes:
        """Pack the values of all rows, one after the other."""
        flat = list(chain.from_iterable(zip(*values, strict=True)))
        try:
            return marshal.dumps(flat)
        except ValueError:  # a value that a custom field gives the driver
            return pickled(flat)

    def insert_packed_rows(self, db_table: str, columns: Sequence[Column], data: bytes) -> None:
        """Insert many rows with each statement, which takes half the time.

        Only a few different numbers of rows are used, so that SQLite prepares each statement once and caches it.
        """
        values = pickle.loads(data) if data.startswith(_PICKLED) else marshal.loads(data)
        quote = self.connection.ops.quote_name
        begin = (
            f"INSERT INTO {quote(db_table)} ({', '.join(quote(column.column) for column in columns)}) VALUES "
        )
        row = f"({', '.join('?' * len(columns))})"
        raw = self.connection.connection  # Django's cursor would look for "%s" in each statement
        start = 0
        with self.connection.wrap_database_errors:
            for count in self.ROWS:
                size = count * len(columns)
                sql = begin + ", ".join([row] * count)
                while start + size <= len(values) and (count == 1 or size <= self._most_values):
                    raw.execute(sql, values[start : start + size])
                    start += size

    @property
    def _most_values(self) -> int:
        """The most parameters of a statement."""
        raw = self.connection.connection
        # Python can ask since 3.11. Before, use what every SQLite allows that Django supports; recent ones allow
        # 32,766.
        return raw.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) if hasattr(raw, "getlimit") else PARAMETERS

    #: Whether changes must survive a crash. A child process throws its database away.
    IS_DURABLE = True
    #: Kilobytes that a restore may change before SQLite writes to the file, which locks readers out until the end:
    #: more than a year of a family. They come on top of the memory that a restore takes.
    HELD = 10 * 1024

    @contextmanager
    def restore_settings(self) -> Iterator[None]:
        enabled = self.connection.disable_constraint_checking()
        pragmas = {"cache_size": -self.HELD, "ignore_check_constraints": 0, **self._safe_pragmas()}
        before = {name: self.fetch(f"PRAGMA {name}")[0][0] for name in pragmas}
        self._set(pragmas)
        try:
            yield
        finally:
            self._set(before)
            if enabled:
                self.connection.enable_constraint_checking()

    def _safe_pragmas(self) -> dict[str, Any]:
        """Return the pragmas without which a restore is not all or nothing, where the site's settings have others:
        without a journal, changes cannot be rolled back; in memory, it is lost with its process; and what is not
        synced may be written in any order before a power cut."""
        pragmas: dict[str, Any] = {}
        if not self.IS_DURABLE:
            return pragmas
        if self.fetch("PRAGMA journal_mode")[0][0] in ("off", "memory"):
            pragmas["journal_mode"] = "DELETE"
        if self.fetch("PRAGMA synchronous")[0][0] == 0:
            pragmas["synchronous"] = "FULL"
        return pragmas

    def _set(self, pragmas: Mapping[str, Any]) -> None:
        for name, value in pragmas.items():
            self.fetch(f"PRAGMA {name} = {value}")


def is_disk_trouble(error: BaseException) -> bool:
    """Tell whether SQLite could not write a file: the disk is full or broken."""
    return isinstance(error, OSError) or (
        isinstance(error, (OperationalError, sqlite3.OperationalError)) and "disk" in str(error)
    )


#: What SQLite answers if others hold a lock (SQLITE_BUSY, SQLITE_LOCKED; the module names them since Python 3.11).
HELD_BY_OTHERS = (5, 6)


def _not_for_ever(status: int, _remaining: int, _total: int) -> None:
    """Raise `sqlite3.OperationalError` if others have locked the database, so that its pages cannot be copied.

    By then, SQLite has waited for its timeout; Python would try again for ever.
    """
    if status in HELD_BY_OTHERS:
        raise sqlite3.OperationalError("database is locked")


#: The precision with which Django turns SQLite's floats into decimals.
DIGITS = Context(prec=15)


def _floats(values: Sequence[Any]) -> Sequence[Any]:
    if "NaN" in values:
        raise ValueError("NaN")
    return floats(values)


#: The first bytes of pickled data; marshalled data never begins with them.
_PICKLED = pickle.dumps(None, protocol=5)[:2]


def _spaced(values: Sequence[Any]) -> Sequence[Any]:
    """Convert moments to the form that Django writes to SQLite; all at once, if none is missing."""
    if not values or None in values:
        return [None if value is None else f"{value[:10]} {value[11:-1]}" for value in values]
    return "\n".join(values).replace("T", " ").replace("Z", "").split("\n")


def _unspaced(values: Sequence[Any]) -> Sequence[Plain]:
    """Convert moments (UTC) from the form that Django writes to SQLite, "2026-11-23 14:30:22.123456", with a fraction
    only if it is not zero; all at once, if none is missing."""
    if not values or None in values:
        return [None if value is None else _unspaced([value])[0] for value in values]
    texts = ("Z\n".join(values) + "Z").replace(" ", "T").split("\n")
    if len(texts) != len(values):
        raise ValueError(values)  # a line break in one of them
    return texts

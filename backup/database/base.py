"""What all databases have in common: `Database`, which the modules of the vendors complete."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cached_property, partial
from typing import Any

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, DatabaseError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field
from django.utils.translation import gettext as _

from ..exceptions import BackupError, Busy, RecordsRefused, RestoreRefused
from ..kinds import (
    BINARY,
    BOOLEAN,
    DATE,
    DATETIME,
    FLOAT,
    INTEGER,
    JSON,
    NATURAL,
    TEXT,
    TIME,
    Plain,
    load_json,
    parse_json,
    plain_json,
)
from ..tables import Batch, Column, Relation, Row, Table, describe, in_order
from .values import Checked, ConvertAll, as_they_are, each, key_place

#: Values in one statement: every engine takes as many (SQLite's own limit was 999 until 2020).
PARAMETERS = 900
#: Records that one error names at most.
MAX_NAMED = 20


class Database:
    """One connection of the project's. Subclasses hold what is special to a vendor; `of` chooses."""

    vendor = ""
    #: Rows that are read and converted at a time.
    BATCH = 1000

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        #: What the database refused so far in this restore: lines that name record, field and reason.
        self.refused: list[str] = []
        self._known_readers: dict[Table, list[tuple[str, ConvertAll | None]]] = {}
        #: Where all reading happens in a thread of its own, so that a server works on what comes next meanwhile.
        self._reading: ThreadPoolExecutor | None = None

    @staticmethod
    def of(alias: str = DEFAULT_DB_ALIAS) -> Database:
        connection = connections[alias]
        vendors: dict[str, type[Database]] = {cls.vendor: cls for cls in Database.__subclasses__()}
        return vendors.get(connection.vendor, Database)(connection)

    # -- statements ---

    def _cursor(self) -> Any:
        """A cursor of the driver's, with `%s` for parameters, past Django's query log (which would keep every row)."""
        self.connection.ensure_connection()
        return self.connection.create_cursor()

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run one statement; returns the number of rows that it changed."""
        with self.connection.wrap_database_errors, closing(self._cursor()) as cursor:
            cursor.execute(sql, params)
            return int(cursor.rowcount)

    def fetch(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._ask(sql, params)()

    def _ask(self, sql: str, params: Sequence[Any]) -> Callable[[], list[tuple[Any, ...]]]:
        """What gives the rows when it is called. The server may be asked for them at once."""
        if self._reading is None:
            return partial(self._fetch, sql, params)
        return self._reading.submit(self._fetch, sql, params).result

    def _fetch(self, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self.connection.wrap_database_errors, closing(self._cursor()) as cursor:
            cursor.execute(sql, params)
            return list(cursor.fetchall())

    def quote(self, name: str) -> str:
        return self.connection.ops.quote_name(name).replace("%", "%%")

    # -- transactions ---

    @contextmanager
    def snapshot(self) -> Iterator[Database]:
        """A database to read from, all of one moment, on a connection of its own."""
        connection = self.connection.copy()
        try:
            connection.set_autocommit(False)
            reader = type(self)(connection)
            reader._begin_reading()
            with ThreadPoolExecutor(1, "backup") as reader._reading:
                yield reader
        finally:
            connection.close()

    def _begin_reading(self) -> None:
        """The first statements of a snapshot's transaction."""

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Held by one restore at a time, on all processes and machines of the database, and freed when one dies.

        Raises `Busy` at once where another holds it.
        """
        yield

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """The transaction of a restore: all that happens inside is kept when it ends well, and else nothing of it.

        Raises `RestoreRefused` where the database does not accept the end, `Busy` where it cannot be had.
        """
        self.refused = []
        with (
            self._outermost(),
            self._unchecked(),
            self._failures(),
            transaction.atomic(self.connection.alias, durable=True),
        ):
            self._begin_writing()
            self._forget()
            yield
            self._check_at_the_end()

    @contextmanager
    def _outermost(self) -> Iterator[None]:
        if self.connection.in_atomic_block:
            raise BackupError(
                _("A backup or restore needs a transaction of its own, and cannot run inside of another.")
            )
        yield

    def change_marker(self) -> Any:
        """What is another value as soon as somebody else changed something; None where that cannot be told."""
        return None

    def _begin_writing(self) -> None:
        """The first statement of a restore's transaction."""

    def _check_at_the_end(self) -> None:
        """Have the database itself check what it deferred, beside what `dangling` looks at."""

    @contextmanager
    def _unchecked(self) -> Iterator[None]:
        """Foreign keys may dangle inside; `dangling` tells what did not come right."""
        yield

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """What the driver says of the whole (not of a record) as one of our errors."""
        try:
            yield
        except OperationalError as error:
            raise Busy(
                _("The database could not do it: %(reason)s. Nothing was changed.")
                % {"reason": reason_of(error)}
            ) from error
        except DatabaseError as error:
            raise RestoreRefused(
                _("The database refused the result: %(reason)s. Nothing was changed.")
                % {"reason": reason_of(error)}
            ) from error

    # -- natural keys ---

    def _forget(self) -> None:
        self._known_readers.clear()
        self.__dict__.pop("_naturals", None)
        self.__dict__.pop("_numbers", None)

    @cached_property
    def _naturals(self) -> dict[str, dict[int, list[str]]]:
        """Model label -> the number that this database gave -> natural key."""
        found: dict[str, dict[int, list[str]]] = {label: {} for label in NATURAL}
        if apps.is_installed("django.contrib.contenttypes"):
            q = self.quote
            types = found["contenttypes.contenttype"]
            for pk, app, model in self.fetch(f"SELECT id, app_label, model FROM {q('django_content_type')}"):
                types[pk] = [app, model]
            if apps.is_installed("django.contrib.auth"):
                sql = f"SELECT id, codename, content_type_id FROM {q('auth_permission')}"
                for pk, codename, type_pk in self.fetch(sql):
                    found["auth.permission"][pk] = [codename, *types.get(type_pk, ["", ""])]
        return found

    @cached_property
    def _numbers(self) -> dict[str, dict[tuple[str, ...], int]]:
        """Model label -> natural key -> number."""
        return {
            label: {tuple(natural): pk for pk, natural in naturals.items()}
            for label, naturals in self._naturals.items()
        }

    def _number(self, label: str, natural: list[str] | int) -> int:
        """The number of a natural key here. One that this database has not made yet (of an app that is not installed,
        say) is made, as Django itself keeps those of apps that went away."""
        if not isinstance(natural, list):
            return (
                natural  # a number that was nobody's where the backup was made; the check of references tells
            )
        known = self._numbers[label]
        key = tuple(natural)
        if key not in known:
            if not self.connection.in_atomic_block:
                raise LookupError(key)
            model = apps.get_model(label)
            manager = model._base_manager.using(self.connection.alias)
            if label == "contenttypes.contenttype":
                known[key] = manager.create(app_label=key[0], model=key[1]).pk
            else:
                codename, *type_key = natural
                type_pk = self._number("contenttypes.contenttype", type_key)
                known[key] = manager.create(codename=codename, content_type_id=type_pk, name=codename).pk
        return known[key]

    def _numbered(self, label: str) -> ConvertAll:
        """`_number` of each; the same ones come again and again."""

        def convert(values: Sequence[Any]) -> Sequence[Any]:
            keys = [tuple(value) if type(value) is list else value for value in values]
            numbers = {
                key: self._number(label, [*key] if isinstance(key, tuple) else key)
                for key in {*keys} - {None}
            }
            return [numbers.get(key) for key in keys]

        return convert

    # -- reading ---

    def _shortcut(self, column: Column) -> tuple[str, ConvertAll | None] | None:
        """`_reader` for a kind that this vendor can make plain faster than Django's conversion does."""
        return None

    def _reader(self, column: Column) -> tuple[str, ConvertAll | None]:
        """The SQL that selects a column, and what makes its values plain (None: they are plain as they come)."""
        name = self.quote(column.column)
        if column.is_natural:
            names = self._naturals[column.refers_to]
            return name, lambda values: list(map(names.get, values, values))
        if column.kind is JSON:  # the text itself: what a field's own decoder makes of it is not for the file
            nullable = column.field.null
            return name, each(lambda value: plain_json(parse_json(value), nullable))
        if shortcut := self._shortcut(column):
            return shortcut
        expression: Any = column.field.get_col(column.field.model._meta.db_table)
        connection = self.connection
        steps = [*connection.ops.get_db_converters(expression), *expression.get_db_converters(connection)]
        dump = column.kind.dump

        def by_django(value: Any) -> Plain:
            found = value
            for step in steps:
                found = step(found, expression, connection)
            if found is None and column.kind in (DATE, TIME, DATETIME):
                raise ValueError(value)  # which Django's conversion takes for none at all
            return found if found is None else dump(found)

        return name, each(by_django)

    def _readers(self, table: Table) -> list[tuple[str, ConvertAll | None]]:
        if table not in self._known_readers:
            self._known_readers[table] = [self._reader(column) for column in table.columns]
        return self._known_readers[table]

    def _ask_rows(
        self,
        table: Table,
        readers: Sequence[tuple[str, ConvertAll | None]],
        where: str,
        params: Sequence[Any],
    ) -> Callable[[], list[tuple[Any, ...]]]:
        """Like `_ask`, for the rows that `where` names; the key as the driver gives it is each row's `key_place`."""
        names = [name for name, _convert in readers]
        if key_place(readers):
            names.append(self.quote(table.key.column))
        return self._ask(f"SELECT {', '.join(names)} FROM {self.quote(table.db_table)} {where}", params)

    def _plain(
        self,
        table: Table,
        readers: Sequence[tuple[str, ConvertAll | None]],
        found: Sequence[tuple[Any, ...]],
        *,
        check: bool = True,
    ) -> Batch:
        """What `_ask_rows` gave, as its columns and relations."""
        if not found:
            return []
        columns: list[Sequence[Any]] = list(zip(*found, strict=True))
        keys = columns.pop() if len(columns) > len(readers) else columns[0]
        for place, (_name, convert) in enumerate(readers):
            if not check and isinstance(convert, Checked):
                convert = convert.convert
            if convert is not None:
                columns[place] = self._converted(table, columns, place, convert)
        for relation in table.relations:
            columns.append(self._related(relation, readers[0][1], columns[0], keys[0], keys[-1]))
        return columns

    def _related(
        self, relation: Relation, to_key: ConvertAll | None, keys: Sequence[Plain], first: Any, last: Any
    ) -> list[Plain]:
        """For each of the keys, which run from `first` to `last`, the keys that the relation leads to."""
        owner, target = self.quote(relation.owner), self.quote(relation.target.column)
        pairs = self.fetch(
            f"SELECT {owner}, {target} FROM {self.quote(relation.table)} WHERE {owner} BETWEEN %s AND %s",
            [first, last],
        )
        owners: Sequence[Any] = [pair[0] for pair in pairs]
        targets: Sequence[Any] = [pair[1] for pair in pairs]
        to_target = self._reader(relation.target)[1]
        lists: dict[Plain, list[Plain]] = {}
        for key, value in zip(
            to_key(owners) if to_key else owners, to_target(targets) if to_target else targets, strict=True
        ):
            lists.setdefault(key, []).append(value)
        return [in_order(lists.get(key, ())) for key in keys]

    def _converted(
        self, table: Table, columns: list[Any], place: int, convert: ConvertAll
    ) -> Sequence[Plain]:
        try:
            return convert(columns[place])
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            # SQLite lets a column hold anything; say where, since a backup that leaves it out would be none.
            for key, value in zip(columns[0], columns[place], strict=True):
                try:
                    convert([value])
                except (TypeError, ValueError, ArithmeticError, LookupError):
                    where = describe(table.label, key, table.columns[place].name, repr(value)[:80])
                    raise BackupError(
                        _("A value in the database cannot be read: %(record)s.") % {"record": where}
                    ) from error
            raise

    def batches(self, table: Table) -> Iterator[Batch]:
        """All rows in the order of their keys, in batches, each as its columns: one sequence of values each."""
        readers = self._readers(table)
        order = f"ORDER BY {self.quote(table.key.column)} LIMIT {self.BATCH}"
        after = f"WHERE {self.quote(table.key.column)} > %s {order}"
        rows = self._ask_rows(table, readers, order, [])()
        while rows:
            full = len(rows) == self.BATCH
            more = self._ask_rows(table, readers, after, [rows[-1][key_place(readers)]]) if full else list
            yield self._plain(table, readers, rows)
            rows = more()

    def prefetch_range(self, table: Table, after: int | None, last: int, most: int) -> Callable[[], Batch]:
        """What gives, when it is called, those of the rows with keys above `after` (None: any) up to `last` that come
        first, at most so many, as columns, for comparison: see `canonical`."""
        key = self.quote(table.key.column)
        readers = self._readers(table)
        above, params = ("", [last]) if after is None else (f"{key} > %s AND ", [after, last])
        where = f"WHERE {above}{key} <= %s ORDER BY {key} LIMIT {most}"
        rows = self._ask_rows(table, readers, where, params)
        return lambda: self._plain(table, readers, rows(), check=False)

    def canonical(self, table: Table, columns: Batch) -> Batch:
        """What `prefetch_range` gave, each value in its canonical form: what differs may be the same after all."""
        for place, column in enumerate(table.columns if columns else ()):
            convert = self._reader(column)[1]
            if isinstance(convert, Checked):
                columns[place] = self._converted(table, columns, place, convert.check)
        return columns

    def rows_by_key(self, table: Table, keys: Sequence[Plain]) -> dict[Plain, Row]:
        """The rows with these keys that there are, by key."""
        key = self.quote(table.key.column)
        readers = self._readers(table)
        found: dict[Plain, Row] = {}
        for some in _slices(self._writer(table.key)(keys), PARAMETERS):
            marks = ", ".join(["%s"] * len(some))
            rows = self._ask_rows(table, readers, f"WHERE {key} IN ({marks}) ORDER BY {key}", some)
            if batch := self._plain(table, readers, rows()):
                found.update(zip(batch[0], zip(*batch, strict=True), strict=True))
        return found

    def count(self, table: Table, after: Plain = None) -> int:
        """How many rows there are, with keys above `after` (None: any)."""
        above, params = (
            ("", []) if after is None else (f" WHERE {self.quote(table.key.column)} > %s", [after])
        )
        return int(self.fetch(f"SELECT COUNT(*) FROM {self.quote(table.db_table)}{above}", params)[0][0])

    def highest_key(self, table: Table) -> Plain:
        return self.fetch(f"SELECT MAX({self.quote(table.key.column)}) FROM {self.quote(table.db_table)}")[0][
            0
        ]

    def keys_descending(self, table: Table) -> Iterator[list[Plain]]:
        """All keys, the highest first, in batches."""
        key = self.quote(table.key.column)
        name, to_key = self._reader(table.key)
        where = ""
        params: list[Any] = []
        select = f"SELECT {name}, {key} FROM {self.quote(table.db_table)}"
        order = f"ORDER BY {key} DESC LIMIT {self.BATCH}"
        while True:
            found = self.fetch(f"{select} {where} {order}", params)
            keys = [row[0] for row in found]
            if keys:
                yield [*(to_key(keys) if to_key else keys)]
            if len(keys) < self.BATCH:
                return
            where, params = f"WHERE {key} < %s", [found[-1][1]]

    def count_by_month(self, table: Table, column: Column) -> dict[str, int]:
        """How many rows there are a month, "2026-11", by a column of dates or moments (in UTC)."""
        month = self._month(self.quote(column.column))
        sql = f"SELECT {month}, COUNT(*) FROM {self.quote(table.db_table)} GROUP BY 1"
        return {month: int(count) for month, count in self.fetch(sql) if month is not None}

    def _month(self, name: str) -> str:
        return f"SUBSTR({name}, 1, 7)"

    def size(self) -> int | None:
        """How many bytes the database takes; None where that cannot be told."""
        return None

    def matches(self, table: Table, places: Sequence[int], rows: Sequence[Row]) -> list[list[Plain]]:
        """For each row, the keys of the rows here that hold the same values in the columns at `places`.

        The database itself says what is the same, so that its collation counts. NULL is never the same as anything.
        """
        columns = [table.columns[place] for place in places]
        writers = [self._writer(column) for column in columns]
        key_sql, to_key = self._reader(table.key)
        condition = " AND ".join(f"{self.quote(column.column)} = %s" for column in columns)
        select = f"SELECT %s, {key_sql} FROM {self.quote(table.db_table)} WHERE {condition}"
        found: list[list[Plain]] = [[] for _row in rows]
        asked = [
            (number, [write([row[place]])[0] for place, write in zip(places, writers, strict=True)])
            for number, row in enumerate(rows)
            if all(row[place] is not None for place in places)
        ]
        for some in _slices(asked, min(PARAMETERS // (len(places) + 1), 400)):
            params = [value for number, values in some for value in (number, *values)]
            for number, key in self.fetch(" UNION ALL ".join([select] * len(some)), params):
                found[int(number)].append(to_key([key])[0] if to_key else key)
        return found

    # -- writing ---

    def _write_shortcut(self, column: Column) -> ConvertAll | None:
        """`_writer` for a kind that the driver takes as it is, or nearly so."""
        if column.kind is BINARY:
            return each(BINARY.load)
        return as_they_are if column.kind in (INTEGER, TEXT, BOOLEAN) else None

    def _writer(self, column: Column) -> ConvertAll:
        """What makes plain values such as the driver takes."""
        field, connection = column.field, self.connection
        if column.is_natural:
            return self._numbered(column.refers_to)
        if column.kind is JSON:
            return lambda values: [
                None
                if value is None and field.null
                else connection.ops.adapt_json_value(load_json(value, field.null), None)
                for value in values
            ]
        if shortcut := self._write_shortcut(column):
            return shortcut
        load = column.kind.load
        return each(lambda value: field.get_db_prep_save(load(value), connection))

    def _parts(self, table: Table) -> list[tuple[str, list[str]]]:
        """The tables in the database that hold a model's rows, with their columns: its own, and its relations'."""
        own = (table.db_table, [column.column for column in table.columns])
        return [
            own,
            *((relation.table, [relation.owner, relation.target.column]) for relation in table.relations),
        ]

    def pack(self, table: Table, columns: Sequence[Sequence[Plain]]) -> list[bytes]:
        """Rows, given as their columns, in the form that `insert_packed` takes: all that can be done before the
        transaction is. Raises `LookupError` where a natural key would have to be made first."""
        values = [self._writer(column)(plain) for column, plain in zip(table.columns, columns, strict=False)]
        packed = [self._pack(table.columns, values)]
        for relation, lists in zip(table.relations, columns[len(table.columns) :], strict=True):
            pairs = [
                (key, target) for key, targets in zip(values[0], lists, strict=True) for target in targets
            ]
            owners, targets = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
            packed.append(
                self._pack((table.key, relation.target), [owners, self._writer(relation.target)(targets)])
            )
        return packed

    def insert_packed(
        self, table: Table, packed: Sequence[bytes] | None, columns: Callable[[], Sequence[Sequence[Plain]]]
    ) -> None:
        """Like `insert`, for what `pack` made. `columns`: the same rows, asked for where they are needed again, to
        find the one that the database refuses, or because they could not be prepared (`packed` is None)."""
        if packed is not None and len(self.refused) < MAX_NAMED:
            try:
                with transaction.atomic(self.connection.alias):
                    self._insert_all(table, packed)
                return
            except (DatabaseError, ValueError, OverflowError) as error:
                self._must_be_about_a_record(error)
        self.insert(table, list(zip(*columns(), strict=True)))

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Insert rows with their keys and relations. What the database refuses is gathered in `refused`."""
        self._write(table, rows, self._insert)

    def update(self, table: Table, rows: Sequence[Row]) -> None:
        """Write rows over those that have their keys, relations too. Like `insert`."""
        self._write(table, rows, self._update)

    def _write(
        self, table: Table, rows: Sequence[Row], write: Callable[[Table, Sequence[Row]], None]
    ) -> None:
        """`write` the rows, and where it fails, halve them until the record is found that is to blame."""
        if not rows or len(self.refused) >= MAX_NAMED:
            return
        try:
            with transaction.atomic(self.connection.alias):
                write(table, rows)
        except (DatabaseError, ValueError, OverflowError) as error:
            self._must_be_about_a_record(error)
            if len(rows) > 1:
                middle = len(rows) // 2
                self._write(table, rows[:middle], write)
                self._write(table, rows[middle:], write)
            else:
                field, reason = self._blame(table, rows[0], error)
                self.refused.append(describe(table.label, rows[0][0], field, reason))

    def _must_be_about_a_record(self, error: Exception) -> None:
        """Raise again what is trouble of the whole (a lost connection, a full disk), and no record's fault."""
        if isinstance(error, OperationalError) and not self._is_about_a_record(error):
            raise error

    def _is_about_a_record(self, error: OperationalError) -> bool:
        return False

    def _blame(self, table: Table, row: Row, error: Exception) -> tuple[str | None, str]:
        """The field that the database most likely refused, and why."""
        for column, value in zip(table.columns, row, strict=False):
            field: Field[Any, Any] = column.field
            if isinstance(value, str) and "\0" in value:
                return column.name, _("it holds the character NUL, which this database does not take")
            if (
                isinstance(value, str)
                and column.kind is TEXT
                and field.max_length
                and len(value) > field.max_length
            ):
                return column.name, _("it has %(length)s characters; at most %(most)s fit") % {
                    "length": len(value),
                    "most": field.max_length,
                }
            if type(value) is int and not column.is_natural:
                low, high = self.connection.ops.integer_field_range(_integer_type(field))
                if (low is not None and value < low) or (high is not None and value > high):
                    return column.name, _("%(value)s is out of range") % {"value": value}
            if column.kind is FLOAT and isinstance(value, str) and self.vendor == "mysql":
                return column.name, _("%(value)s cannot be stored in this database") % {"value": value}
        return None, reason_of(error)

    def _insert(self, table: Table, rows: Sequence[Row]) -> None:
        self._insert_all(table, self.pack(table, list(zip(*rows, strict=True))))

    def _insert_all(self, table: Table, packed: Sequence[bytes]) -> None:
        for (db_table, columns), data in zip(self._parts(table), packed, strict=True):
            self._insert_packed(db_table, columns, data)

    def _update(self, table: Table, rows: Sequence[Row]) -> None:
        columns = list(zip(*rows, strict=True))
        values = [self._writer(column)(plain) for column, plain in zip(table.columns, columns, strict=False)]
        if table.nonkey_columns:
            self._update_values(table, values)
        for relation in table.relations:
            self._delete_where(relation.table, relation.owner, values[0])
        for (db_table, names), data in [*zip(self._parts(table), self.pack(table, columns), strict=True)][1:]:
            self._insert_packed(db_table, names, data)

    def _pack(self, columns: Sequence[Column], values: Sequence[Sequence[Any]]) -> bytes:
        """Rows, given as the columns that the driver takes, in the form that `_insert_packed` wants."""
        return pickle.dumps(list(zip(*values, strict=True)), protocol=5)

    def _insert_packed(self, db_table: str, columns: Sequence[str], data: bytes) -> None:
        self._insert_rows(db_table, columns, pickle.loads(data))  # our own, from a file that only we can see

    def _insert_rows(
        self, db_table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], end: str = ""
    ) -> None:
        names = ", ".join(map(self.quote, columns))
        one = f"({', '.join(['%s'] * len(columns))})"
        for some in _slices(rows, max(1, 16000 // len(columns))):
            sql = f"INSERT INTO {self.quote(db_table)} ({names}) VALUES {', '.join([one] * len(some))} {end}"
            self.execute(sql, [value for row in some for value in row])

    def _update_values(self, table: Table, values: Sequence[Sequence[Any]]) -> None:
        """`values`: as the driver takes them, the columns of `table.columns`."""
        key, *others = values
        assignments = ", ".join(f"{self.quote(column.column)} = %s" for column in table.nonkey_columns)
        sql = (
            f"UPDATE {self.quote(table.db_table)} SET {assignments} WHERE {self.quote(table.key.column)} = %s"
        )
        self._execute_many(sql, list(zip(*others, key, strict=True)))

    def _execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        with self.connection.wrap_database_errors, closing(self._cursor()) as cursor:
            cursor.executemany(sql, rows)

    def _delete_where(self, db_table: str, column: str, values: Sequence[Any]) -> None:
        for some in _slices(values, PARAMETERS):
            marks = ", ".join(["%s"] * len(some))
            self.execute(f"DELETE FROM {self.quote(db_table)} WHERE {self.quote(column)} IN ({marks})", some)

    def delete(self, table: Table, keys: Sequence[Plain]) -> None:
        """Delete the rows with these keys, with their relations, and nothing that refers to them."""
        values = self._writer(table.key)(keys)
        for relation in table.relations:
            self._delete_where(relation.table, relation.owner, values)
        self._delete_where(table.db_table, table.key.column, values)

    def clear(self, tables: Sequence[Table]) -> None:
        """Delete every row of these tables and of their relations. Never TRUNCATE: on MySQL it commits."""
        for table in reversed(tables):
            for name in [*(relation.table for relation in table.relations), table.db_table]:
                self.execute(f"DELETE FROM {self.quote(name)}")

    # -- after the rows ---

    def dangling(self, tables: Iterable[Table]) -> list[str]:
        """The rows that refer to a row that is not there, at most `MAX_NAMED` of them, as lines for people."""
        lines: list[str] = []
        for table in tables:
            key = table.key.column
            own = [(table.db_table, key, column.name, column) for column in table.columns if column.refers_to]
            related = [(r.table, r.owner, r.name, r.target) for r in table.relations]
            for db_table, owner, name, column in [*own, *related]:
                if len(lines) < MAX_NAMED and getattr(column.field, "db_constraint", True):
                    found = self._dangling(db_table, owner, column, MAX_NAMED - len(lines))
                    lines += [describe(table.label, str(pk), name, reason) for pk, reason in found]
        return lines

    def _dangling(self, db_table: str, owner: str, column: Column, most: int) -> Iterator[tuple[Any, str]]:
        q = self.quote
        target = column.field.target_field  # type: ignore[attr-defined]
        sql = (
            f"SELECT a.{q(owner)}, a.{q(column.column)} FROM {q(db_table)} a"
            f" LEFT JOIN {q(target.model._meta.db_table)} b ON a.{q(column.column)} = b.{q(target.column)}"
            f" WHERE a.{q(column.column)} IS NOT NULL AND b.{q(target.column)} IS NULL LIMIT {most}"
        )
        for pk, value in self.fetch(sql):
            yield (
                pk,
                _("it refers to %(model)s %(key)s, which is not there")
                % {"model": column.refers_to, "key": value},
            )

    def reset_sequences(self, tables: Sequence[Table]) -> None:
        """See to it that the next row of each table gets a key that is free."""

    def unknown_time_zones(self, names: Iterable[str]) -> set[str]:
        """Those of the names that this database cannot compute with, though Python can."""
        return set()


def reason_of(error: BaseException) -> str:
    """What a database said, in one line."""
    args = error.args
    text = str(args[1]) if len(args) == 2 and isinstance(args[0], int) else str(error)
    return " ".join(text.split())[:300].rstrip(".") or type(error).__name__


def refuse_records(lines: Sequence[str]) -> None:
    """Raise `RecordsRefused` where there are lines."""
    if lines:
        raise RecordsRefused(
            _("The database cannot take these records, so nothing was changed:"), lines[:MAX_NAMED]
        )


def _integer_type(field: Field[Any, Any]) -> str:
    while field.remote_field is not None:
        field = field.target_field  # type: ignore[attr-defined]
    name = field.get_internal_type()
    return {
        "AutoField": "IntegerField",
        "BigAutoField": "BigIntegerField",
        "SmallAutoField": "SmallIntegerField",
    }.get(name, name)


def already_running() -> Busy:
    return Busy(_("Another restore is running; wait until it is done, then try again."))


def _slices(values: Sequence[Any], size: int) -> Iterator[Any]:
    for start in range(0, len(values), size):
        yield values[start : start + size]

"""Keeps the database of a freshly installed host, and puts it back before each test.

The code under test opens transactions, connections and processes of its own, so a test cannot run in a transaction that
is rolled back. Flushing all tables, Django's other way, would lose the rows that migrations and the host's `migrate`
command make.
"""

import copy
import shutil
from pathlib import Path

from django.db import connection, connections, transaction


def keep_stock():
    """Keep the database as it is now. Return an object with these methods:

    `put_back()` restores that state. `filled(fill)`, called right after it, fills the database with `fill()`, and
    returns what that returns. Since this is kept, too, `fill` is only called once; `put_back(fill)` before it saves
    some time. `drop()` deletes what was kept.
    """
    return {"sqlite": SQLite, "postgresql": PostgreSQL, "mysql": MySQL}[connection.vendor]()


class Stock:
    """What the engines share. A state is the function that filled the database, or None for the stock itself."""

    def __init__(self):
        #: State -> what the engine keeps of it.
        self.kept = {}
        #: State -> what its function returned.
        self.results = {}
        #: The state that was put back last, or was just made.
        self.state = None
        self._keep_state(None)

    def _keep_state(self, state, result=None):
        self.state, self.results[state] = state, copy.deepcopy(result)
        connections.close_all()
        self.kept[state] = self._keep(state)
        connections.close_all()

    def put_back(self, fill=None):
        connections.close_all()
        state = fill if fill in self.kept else None
        self._put_back(state)
        self.state = state
        connections.close_all()

    def filled(self, fill):
        if fill not in self.kept:
            if self.state is not None:  # a test module may have a fixture of its own that is called "filled"
                self.put_back()
            result = fill()
            self._keep_state(fill, result)
            return result
        if self.state != fill:
            self.put_back(fill)
        return copy.deepcopy(self.results[fill])


class SQLite(Stock):
    """Keeps copies of the file."""

    def __init__(self):
        self.file = Path(connection.settings_dict["NAME"])
        super().__init__()

    @property
    def stock(self):
        """Return the path of the unchanged copy."""
        return self.kept[None]

    def _keep(self, state):
        file = self.file.with_name(f"stock_{len(self.kept)}.sqlite3")
        shutil.copyfile(self.file, file)
        return file

    def _put_back(self, state):
        for suffix in ("-wal", "-shm", "-journal"):
            self.file.with_name(self.file.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(self.kept[state], self.file)

    def drop(self):
        for file in self.kept.values():
            file.unlink()


class PostgreSQL(Stock):
    """Keeps a second database as a template, and the rows in further schemas.

    Creating a database from the template takes half a second. Usually only rows have changed; then only their tables
    are put back, from the schema, in a tenth of that time.
    """

    #: The catalogues that define the tables: every change of a table adds a newer row to one of these, or removes one.
    CATALOGS = ["attribute", "attrdef", "constraint", "index", "namespace", "proc", "trigger", "type"]

    def __init__(self):
        self.name = connection.settings_dict["NAME"]
        self.copy = f"{self.name}_stock"
        with connection.cursor() as cursor:
            self.tables = connection.introspection.table_names(cursor)
            cursor.execute("SELECT sequencename FROM pg_sequences WHERE schemaname = current_schema()")
            self.sequences = [name for (name,) in cursor.fetchall()]
        #: See `_versions`: of the rows that were put back last.
        self.rows = {}
        super().__init__()

    def _keep(self, state):
        """Return the schema with the state's own rows, the tables of these, and the numbers of the sequences."""
        schema = f"stock_{len(self.kept)}"
        with connection.cursor() as cursor:
            rows = self._versions(cursor, self.tables)
            own = [table for table in self.tables if rows[table] != self.rows.get(table)]
            cursor.execute(f"CREATE SCHEMA {schema}")
            for table in map(self._quote, own):
                cursor.execute(f"CREATE TABLE {schema}.{table} AS SELECT * FROM {table}")
            numbers = self._numbers(cursor)
        connections.close_all()
        self._create(self.copy, self.name)
        self.of_copy = state
        self._look()
        return schema, own, numbers

    def _quote(self, name):
        return connection.ops.quote_name(name)

    def _create(self, name, template):
        name, template = self._quote(name), self._quote(template)
        with connection._nodb_cursor() as cursor:
            # FORCE ends connections that other processes of the test may have left.
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template}")

    def _look(self):
        with connection.cursor() as cursor:
            self.rows, self.catalogs = self._versions(cursor, self.tables), self._catalogs(cursor)
        connections.close_all()

    def _versions(self, cursor, tables):
        """Return table -> number of rows, and the newest transaction that wrote one: every change changes this pair."""
        cursor.execute(
            " UNION ALL ".join(
                f"SELECT {number}, count(*), max(xmin::text::bigint) FROM {self._quote(table)}"
                for number, table in enumerate(tables)
            )
        )
        return {tables[number]: version for number, *version in cursor.fetchall()}

    def _catalogs(self, cursor):
        # Two of them by their content, since restarting a sequence writes newer rows there, too.
        cursor.execute(
            "SELECT (SELECT sum(hashtext(concat_ws(' ', oid, relname, relowner, relacl))) FROM pg_class),"
            " (SELECT sum(hashtext(sequence::text)) FROM pg_sequence AS sequence)"
        )
        return cursor.fetchone(), self._versions(cursor, [f"pg_{name}" for name in self.CATALOGS])

    def _numbers(self, cursor):
        """Return sequence -> its last number, and whether that was used."""
        cursor.execute(
            " UNION ALL ".join(
                f"SELECT {number}, last_value, is_called FROM {self._quote(name)}"
                for number, name in enumerate(self.sequences)
            )
        )
        return {self.sequences[number]: state for number, *state in cursor.fetchall()}

    def _put_back(self, state):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
            if same := self._catalogs(cursor) == self.catalogs:
                self._put_rows_back(cursor, self.state, state)
        connections.close_all()
        if not same:
            self._create(self.name, self.copy)
            self._look()
            with connection.cursor() as cursor:
                self._put_rows_back(cursor, self.of_copy, state)

    def _put_rows_back(self, cursor, before, state):
        """Make the rows those of a state. `before`: the state that `self.rows` is of."""
        schema, own, numbers = self.kept[state]
        filled = [fill for fill in {before, state} if fill] if before != state else ()
        different = {table for fill in filled for table in self.kept[fill][1]}
        rows = self._versions(cursor, self.tables)
        changed = [table for table in self.tables if rows[table] != self.rows[table] or table in different]
        with transaction.atomic():  # references are checked at its end
            for table in map(self._quote, changed):
                cursor.execute(f"DELETE FROM {table}")
            for table in changed:
                source = f"{schema if table in own else 'stock_0'}.{self._quote(table)}"
                cursor.execute(f"INSERT INTO {self._quote(table)} SELECT * FROM {source}")
        if changed:
            self.rows |= self._versions(cursor, changed)
        for name, number in self._numbers(cursor).items():
            if number != numbers[name]:
                cursor.execute("SELECT setval(%s::regclass, %s, %s)", [self._quote(name), *numbers[name]])

    def drop(self):
        with connection._nodb_cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {self._quote(self.copy)} WITH (FORCE)")


class MySQL(Stock):
    """Keeps all rows in memory, and only writes tables again whose checksum has changed."""

    def __init__(self):
        with connection.cursor() as cursor:
            self.tables = connection.introspection.table_names(cursor)
        super().__init__()

    def _keep(self, state):
        rows = {}
        with connection.cursor() as cursor:
            for table in self.tables:
                cursor.execute(f"SELECT * FROM {self._quote(table)}")
                names = ", ".join(self._quote(column[0]) for column in cursor.description)
                rows[table] = names, cursor.fetchall()
            return rows, self._checksums(cursor)

    def _quote(self, name):
        return connection.ops.quote_name(name)

    def _checksums(self, cursor):
        """Return table -> its checksum and the next number of its sequence."""
        cursor.execute("CHECKSUM TABLE " + ", ".join(map(self._quote, self.tables)))
        checksums = {name.rpartition(".")[2]: checksum for name, checksum in cursor.fetchall()}
        if not connection.mysql_is_mariadb:
            cursor.execute(
                "SET SESSION information_schema_stats_expiry = 0"
            )  # MySQL would answer from a cache
        cursor.execute(
            "SELECT table_name, auto_increment FROM information_schema.tables WHERE table_schema = DATABASE()"
        )
        numbers = dict(cursor.fetchall())
        return {table: (checksums[table], numbers.get(table)) for table in self.tables}

    def _put_back(self, state):
        kept, checksums = self.kept[state]
        with connection.cursor() as cursor:
            now = self._checksums(cursor)
            cursor.execute("SET foreign_key_checks = 0")
            for table in self.tables:
                if now[table] == checksums[table]:
                    continue
                cursor.execute(f"DELETE FROM {self._quote(table)}")
                names, rows = kept[
                    table
                ]  # a test may have made the table anew, with another order of columns
                if rows:
                    marks = ", ".join(["%s"] * len(rows[0]))
                    cursor.executemany(f"INSERT INTO {self._quote(table)} ({names}) VALUES ({marks})", rows)
                if number := checksums[table][1]:
                    cursor.execute(f"ALTER TABLE {self._quote(table)} AUTO_INCREMENT = {number}")

    def drop(self):
        """Do nothing: what is kept is in memory."""

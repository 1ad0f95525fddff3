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
    returns what that returns. `drop()` deletes what was kept.
    """
    return {"sqlite": SQLite, "postgresql": PostgreSQL, "mysql": MySQL}[connection.vendor]()


class SQLite:
    """Keeps a copy of the file, and one for each function that has filled it, so that it is only called once."""

    def __init__(self):
        connections.close_all()
        self.file = Path(connection.settings_dict["NAME"])
        self.copies = {}
        self._keep(None, "stock")

    @property
    def stock(self):
        """Return the path of the unchanged copy."""
        return self.copies[None][0]

    def _keep(self, fill, name, result=None):
        file = self.file.with_name(f"{name}.sqlite3")
        connections.close_all()
        shutil.copyfile(self.file, file)
        self.copies[fill] = file, copy.deepcopy(result)

    def put_back(self, fill=None):
        file, result = self.copies[fill]
        connections.close_all()
        for suffix in ("-wal", "-shm", "-journal"):
            self.file.with_name(self.file.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(file, self.file)
        return copy.deepcopy(result)

    def filled(self, fill):
        if fill in self.copies:
            return self.put_back(fill)
        result = fill()
        self._keep(fill, f"stock_{len(self.copies)}", result)
        return result

    def drop(self):
        for file, _ in self.copies.values():
            file.unlink()


class PostgreSQL:
    """Keeps a second database as a template, and the rows in a second schema.

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
            cursor.execute("CREATE SCHEMA stock")
            for table in map(self._quote, self.tables):
                cursor.execute(f"CREATE TABLE stock.{table} AS SELECT * FROM {table}")
            cursor.execute("SELECT sequencename FROM pg_sequences WHERE schemaname = current_schema()")
            self.sequences = [name for (name,) in cursor.fetchall()]
            self.numbers = self._numbers(cursor)
        connections.close_all()
        self._create(self.copy, self.name)
        self._look()

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

    def put_back(self):
        connections.close_all()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
            same = self._catalogs(cursor) == self.catalogs
            if same:
                self._put_rows_back(cursor)
        connections.close_all()
        if not same:
            self._create(self.name, self.copy)
            self._look()

    def _put_rows_back(self, cursor):
        rows = self._versions(cursor, self.tables)
        changed = [table for table in self.tables if rows[table] != self.rows[table]]
        with transaction.atomic():  # references are checked at its end
            for table in map(self._quote, changed):
                cursor.execute(f"DELETE FROM {table}")
            for table in map(self._quote, changed):
                cursor.execute(f"INSERT INTO {table} SELECT * FROM stock.{table}")
        if changed:
            self.rows |= self._versions(cursor, changed)
        for name, state in self._numbers(cursor).items():
            if state != self.numbers[name]:
                cursor.execute(
                    "SELECT setval(%s::regclass, %s, %s)", [self._quote(name), *self.numbers[name]]
                )

    def filled(self, fill):
        return fill()

    def drop(self):
        with connection._nodb_cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {self._quote(self.copy)} WITH (FORCE)")


class MySQL:
    """Keeps all rows in memory, and only writes tables again whose checksum has changed."""

    def __init__(self):
        with connection.cursor() as cursor:
            self.tables = connection.introspection.table_names(cursor)
            self.rows = {}
            for table in self.tables:
                cursor.execute(f"SELECT * FROM {self._quote(table)}")
                self.rows[table] = cursor.fetchall()
            self.state = self._state(cursor)

    def _quote(self, name):
        return connection.ops.quote_name(name)

    def _state(self, cursor):
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

    def put_back(self):
        connections.close_all()
        with connection.cursor() as cursor:
            changed = [table for table, state in self._state(cursor).items() if state != self.state[table]]
            cursor.execute("SET foreign_key_checks = 0")
            for table in changed:
                cursor.execute(f"DELETE FROM {self._quote(table)}")
                if rows := self.rows[table]:
                    marks = ", ".join(["%s"] * len(rows[0]))
                    cursor.executemany(f"INSERT INTO {self._quote(table)} VALUES ({marks})", rows)
                if number := self.state[table][1]:
                    cursor.execute(f"ALTER TABLE {self._quote(table)} AUTO_INCREMENT = {number}")
        connections.close_all()

    def filled(self, fill):
        return fill()

    def drop(self):
        pass

"""The database of a freshly installed host, kept to be put back before each test.

The code under test opens transactions, connections and processes of its own, so a test cannot be wrapped in a
transaction that is rolled back; and Django's own way out, flushing all tables, would lose the rows that
migrations and the host's `migrate` command made.
"""

import copy
import shutil
from pathlib import Path

from django.db import connection, connections, transaction


def keep_stock():
    """Keeps the database as it is now. Returns an object whose `put_back()` brings it back to that.

    `filled(fill)` is for a database that was just put back: what `fill()` makes of it, and returns.
    """
    return {"sqlite": SQLite, "postgresql": PostgreSQL, "mysql": MySQL}[connection.vendor]()


class SQLite:
    """A copy of the file. What a function made of it is kept as a copy, too, and not made again."""

    def __init__(self):
        connections.close_all()
        self.file = Path(connection.settings_dict["NAME"])
        self.copies = {}
        self._keep(None, "stock")

    @property
    def stock(self):
        """The file that nobody has changed."""
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
    """A second database, used as a template; and a second schema with the same rows, for the rule.

    A database is made of a template in half a second. Where only rows were changed, those tables are put back by
    themselves, in a tenth of that.
    """

    #: What defines the tables: whoever changes anything of them leaves a newer row in one of these, or one less.
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
            # FORCE ends what other processes of the test may have left connected.
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template}")

    def _look(self):
        with connection.cursor() as cursor:
            self.rows, self.catalogs = self._versions(cursor, self.tables), self._catalogs(cursor)
        connections.close_all()

    def _versions(self, cursor, tables):
        """Table -> how many rows, and the newest transaction that wrote one: a change is another pair."""
        cursor.execute(
            " UNION ALL ".join(
                f"SELECT {number}, count(*), max(xmin::text::bigint) FROM {self._quote(table)}"
                for number, table in enumerate(tables)
            )
        )
        return {tables[number]: version for number, *version in cursor.fetchall()}

    def _catalogs(self, cursor):
        # Two of them by what they say, since a sequence that starts anew leaves newer rows there, too.
        cursor.execute(
            "SELECT (SELECT sum(hashtext(concat_ws(' ', oid, relname, relowner, relacl))) FROM pg_class),"
            " (SELECT sum(hashtext(sequence::text)) FROM pg_sequence AS sequence)"
        )
        return cursor.fetchone(), self._versions(cursor, [f"pg_{name}" for name in self.CATALOGS])

    def _numbers(self, cursor):
        """Sequence -> its last number, and whether that was given out."""
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
    """All rows in memory; only tables whose checksum changed are written again."""

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
        """Table -> its checksum and the next number of its sequence."""
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

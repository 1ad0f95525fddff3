"""Runs the databases' own tools for the benchmark: dumps of the test database, and restoring them."""

import os
import shutil
import sqlite3
import subprocess
from contextlib import ExitStack, closing

from django.db import connection

TOOLS = {
    "sqlite": ["sqlite3", "gzip"],
    "postgresql": ["pg_dump", "pg_restore"],
    "mysql": ["mariadb-dump", "mariadb", "gzip"],
}


def is_installed():
    return all(map(shutil.which, TOOLS[connection.vendor]))


def backup(target):
    """Write a compressed backup, as people keep them."""
    if connection.vendor == "sqlite":
        plain = target.with_suffix(".sqlite3")
        plain.unlink(missing_ok=True)
        with closing(sqlite3.connect(connection.settings_dict["NAME"])) as source:
            source.execute("VACUUM INTO ?", [str(plain)])
        _run("gzip", "-1", "-c", stdin=plain, stdout=target)
    elif connection.vendor == "postgresql":
        _run("pg_dump", "-Fc", "-f", target, os.environ["DATABASE_URL"])
    else:
        with subprocess.Popen(_mariadb("mariadb-dump"), env=_environment(), stdout=subprocess.PIPE) as dump:
            _run("gzip", "-1", "-c", stdin=dump.stdout, stdout=target)


def prepare(dump):
    """Write the dump that `restore` reads."""
    if connection.vendor == "sqlite":
        _run("sqlite3", connection.settings_dict["NAME"], ".dump", stdout=dump)
    elif connection.vendor == "postgresql":
        _run("pg_dump", "-Fc", "-f", dump, os.environ["DATABASE_URL"])
    else:
        _run(*_mariadb("mariadb-dump"), stdout=dump)


def empty():
    """Empty the tables before `restore`, on PostgreSQL only: a dump of MariaDB does that by itself, and SQLite gets a
    new file."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            names = ", ".join(map(connection.ops.quote_name, connection.introspection.table_names(cursor)))
            cursor.execute(f"TRUNCATE {names}")


def restore(dump):
    """Restore a dump, on SQLite into a new file."""
    if connection.vendor == "sqlite":
        fresh = dump.with_suffix(".restored")
        fresh.unlink(missing_ok=True)
        _run("sqlite3", fresh, stdin=dump)
    elif connection.vendor == "postgresql":
        _run("pg_restore", "--data-only", "--disable-triggers", "-d", os.environ["DATABASE_URL"], dump)
    else:
        _run(*_mariadb("mariadb"), stdin=dump)


def _mariadb(tool):
    """Return the command of a tool, with the options for the test database."""
    settings = connection.settings_dict
    where = {"host": settings["HOST"], "port": settings["PORT"], "user": settings["USER"]}
    one_moment = ["--single-transaction"] if tool == "mariadb-dump" else []
    return [
        tool,
        *one_moment,
        *(f"--{name}={value}" for name, value in where.items() if value),
        settings["NAME"],
    ]


def _environment():
    return {**os.environ, "MYSQL_PWD": connection.settings_dict["PASSWORD"] or ""}


def _run(*command, stdin=None, stdout=None):
    """Run a tool to its end. `stdin`, `stdout`: paths, or a pipe to read from."""
    with ExitStack() as stack:
        if not hasattr(stdin, "fileno"):
            stdin = stack.enter_context(open(stdin or os.devnull, "rb"))
        target = stack.enter_context(open(stdout or os.devnull, "wb"))
        subprocess.run(command, stdin=stdin, stdout=target, env=_environment(), check=True)

"""Starts other processes of the host on the same database, like those of a server."""

import os
import subprocess
import sys
import textwrap
import time
from contextlib import closing, contextmanager

from django.contrib.auth.models import User
from django.db import DEFAULT_DB_ALIAS, connection, connections, models

from backup.database import database_of

#: Code for `process`: holds the lock of restores until it is killed, or gets a line.
HOLDER = """
    from backup.database import database_of
    with database_of().exclusive():
        print("held", flush=True)
        input()
"""


@contextmanager
def process(code, *arguments):
    """Run code in another process of the host, on the same database; it is killed at the end of the block."""
    code = "import django; django.setup()\n" + textwrap.dedent(code)
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def ask(child, line):
    """Send a line to a process, and return the line that it answers."""
    child.stdin.write(line + "\n")
    child.stdin.flush()
    return hear(child)


def hear(child):
    """Return the next line that a process prints."""
    answer = child.stdout.readline().strip()
    assert answer, child.stderr.read()
    return answer


def wait_until_usable():
    """Wait until the database server has ended what a killed process left running there."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with database_of().exclusive():
                User.objects.update(first_name=models.F("first_name"))
            return
        except Exception:
            connections.close_all()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def lose_locks():
    """End the connections that hold locks, as a server, a pooler or a router may. SQLite's cannot be lost."""
    if connection.vendor == "postgresql":
        how = (
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks JOIN pg_database d ON d.oid = database"
            " WHERE locktype = 'advisory' AND datname = current_database()"
        )
    else:
        how = f"KILL {database_of().fetch('SELECT CONNECTION_ID()')[0][0]}"
    own = connections[DEFAULT_DB_ALIAS].copy()
    with closing(own), own.cursor() as cursor:
        cursor.execute(how)

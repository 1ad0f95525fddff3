"""Starts other processes of the host on the same database, like those of a server."""

import os
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager

from django.contrib.auth.models import User
from django.db import connections, models

from backup.database import database_of


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

"""`python3 -m tests.demo`: fills a stand-in for Baby Buddy, backs it up, loses data, restores, serves."""

import argparse
import os
import shlex
import shutil
import socket
import subprocess
import sys
from itertools import count

from tests.bootstrap import REPOSITORY, enter

HOST = REPOSITORY / "tests" / "host"
DATA = HOST / "data"


def main():
    arguments = parse()
    enter("tests.demo", extra="host")
    set_up()

    from core.models import Child, Feeding
    from django.core.management import call_command
    from django.utils import timezone

    from tests.support.filling import fill, token_key
    from tests.support.snapshots import differences, snapshot

    say("Setting up a stand-in for Baby Buddy, and sixty days with two children …")
    call_command("migrate", verbosity=0)
    fill(days=60, children=2, until=timezone.now(), odd=False)
    before = snapshot()

    backup = manage("backup", "--label", "the demo").splitlines()[0]
    say("\nNow an accident: one child is deleted, with all that belongs to it, and the other's feedings.")
    Child.objects.first().delete()
    Feeding.objects.all().delete()
    say(f"{rows(before) - rows(snapshot()):,} rows are lost.")
    manage("restore", backup, "--clear", "--no-input")

    if wrong := differences(before, snapshot()):
        sys.exit("\n".join(["Not all came back:", *wrong]))
    say("\nCompared value by value: everything is back, as it was.")
    if arguments.serve:
        serve(free_port(arguments.port), token_key("admin"))


def parse():
    parser = argparse.ArgumentParser(prog="python3 -m tests.demo", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="the next free one is taken (default: 8000)")
    parser.add_argument("--no-serve", dest="serve", action="store_false", help="end after the restore")
    return parser.parse_args()


def set_up():
    """A fresh database and an empty folder for backups, whatever an earlier demo left."""
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir()
    os.environ.update(
        DATABASE_URL=f"sqlite:///{DATA / 'db.sqlite3'}",
        BACKUP_ROOT=str(DATA / "backups"),
        DJANGO_SETTINGS_MODULE="tests.demo_settings",
        PYTHONPATH=str(REPOSITORY),
    )
    sys.path[:0] = [str(HOST)]
    os.chdir(HOST)  # the host finds its templates and data files from there

    import django

    django.setup()


def say(text):
    print(text, flush=True)


def rows(snapshot):
    return sum(map(len, snapshot.values()))


def manage(*arguments):
    """Runs and shows a command as one would type it. Returns what it printed."""
    from django.db import connections

    connections.close_all()
    shown = [os.path.relpath(text) if os.path.isabs(text) else text for text in arguments]
    say(f"\n$ manage.py {shlex.join(shown)}")
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    say(done.stdout.rstrip())
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def free_port(first):
    def taken(port):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return next(port for port in count(first) if not taken(port))


def serve(port, token):
    from django.core.servers.basehttp import get_internal_wsgi_application, run

    address = f"http://127.0.0.1:{port}"
    say(
        f"""
Open      {address}/backup/
Sign in   admin, password admin
Token     {token}

curl --fail -OJ -H "Authorization: Token {token}" {address}/backup/download/
curl --fail-with-body -H "Authorization: Token {token}" -F backup_file=@FILE {address}/backup/restore/confirm/

Ctrl-C ends it.
"""
    )
    try:
        run("127.0.0.1", port, get_internal_wsgi_application(), threading=True)
    except KeyboardInterrupt:
        say("")


if __name__ == "__main__":
    main()

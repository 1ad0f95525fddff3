"""From each of the three databases into each: nine pairs, both modes, every field of every row.

A process has one default database, so both ends are processes of their own, started as `manage.py` would be. The
servers are those of BACKUP_TEST_POSTGRESQL and BACKUP_TEST_MYSQL, URLs without a database; the databases made there
begin with `pairing_`.
"""

import os
import pickle
import subprocess
import sys

import pytest
from django.db import connection

from tests.filling import TAGS
from tests.snapshots import differences

SERVERS = {
    "postgresql": os.environ.get("BACKUP_TEST_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432"),
    "mysql": os.environ.get("BACKUP_TEST_MYSQL", "mysql://root@127.0.0.1:3306"),
}
ENGINES = ["sqlite", *SERVERS]
MISSING = pytest.fail if os.environ.get("BACKUP_TEST_STRICT") == "1" else pytest.skip

# Once is enough, whatever database the run is on.
pytestmark = pytest.mark.skipif(connection.vendor != "sqlite", reason="part of the run on SQLite")

CREATE = """
    from django.core.management import call_command
    from django.db import connection

    def create(name):
        quoted = connection.ops.quote_name(name)
        with connection._nodb_cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {quoted}")
            cursor.execute(f"CREATE DATABASE {quoted}" + (" CHARACTER SET utf8mb4" if connection.vendor == "mysql" else ""))

    if connection.vendor != "sqlite":
        create(connection.settings_dict["NAME"])
    call_command("migrate", verbosity=0)
    call_command("createcachetable", verbosity=0)
"""
DROP = """
    from django.db import connection

    quoted = connection.ops.quote_name(connection.settings_dict["NAME"])
    with connection._nodb_cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {quoted}")
"""
FILL = """
    from tests.filling import fill
    from core.models import BMI
    from tests.zoo.models import Specimen

    fill(days=2, children=2)
    if sys.argv[2] == "plain":  # without what MySQL has no room for
        for model, field in ((BMI, "bmi"), (Specimen, "float")):
            for row in model.objects.all():
                value = getattr(row, field)
                if value is not None and (value != value or value in (float("inf"), float("-inf"))):
                    row.delete()
"""
BACKUP = """
    from backup import services
    from tests.snapshots import snapshot

    with open(folder / "backup.zip", "wb") as file:
        services.create_backup(file)
    (folder / "snapshot").write_bytes(pickle.dumps(snapshot()))
"""
RESTORE = """
    from backup import exceptions, services
    from tests.snapshots import snapshot

    before = snapshot()
    with open(folder / "backup.zip", "rb") as file:
        try:
            services.restore_backup(file, clear=sys.argv[2] == "clear")
            refused = []
        except exceptions.RecordsRefused as error:
            refused = error.details
            assert snapshot() == before
    (folder / "restored").write_bytes(pickle.dumps((snapshot(), refused)))
"""
# In overwrite mode the target has a life of its own before.
MEANWHILE = """
    from core.models import Child, Note, Tag
    from tests.changing import renumber
    from django.contrib.auth.models import User

    User.objects.filter(is_superuser=True).update(email="other@example.com")
    Tag(name=sys.argv[2]).save()
    renumber(Tag, {Tag.objects.get().pk: 4711})
"""


def url_of(engine, folder, name):
    return f"sqlite:///{folder / name}.sqlite3" if engine == "sqlite" else f"{SERVERS[engine]}/pairing_{name}"


def run(url, folder, code, *arguments):
    """A piece of Python in a process whose default database is at `url`."""
    import textwrap

    head = "import pathlib, pickle, sys, django\ndjango.setup()\nfolder = pathlib.Path(sys.argv[1])\n"
    done = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(code), str(folder), *arguments],
        env={
            **os.environ,
            "DATABASE_URL": url,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "BACKUP_TEST_FOLDER": str(folder),
            "BACKUP_ROOT": str(folder / "kept"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def reachable(tmp_path_factory):
    """Engine -> why its server cannot be reached, or None."""
    folder = tmp_path_factory.mktemp("servers")
    found = {"sqlite": None}
    for engine in SERVERS:
        try:
            run(url_of(engine, folder, "probe"), folder, DROP)
            found[engine] = None
        except AssertionError as error:
            found[engine] = str(error).strip().splitlines()[-1]
    return found


def need(reachable, *engines):
    for engine in engines:
        if reachable[engine]:
            MISSING(f"no {engine} at {SERVERS[engine]}: {reachable[engine]}")


@pytest.fixture(scope="module", params=ENGINES)
def source(request, reachable, tmp_path_factory):
    """(engine, folder of each variant): backup and snapshot of a filled host on that engine."""
    need(reachable, request.param)
    folder = tmp_path_factory.mktemp(request.param)
    url = url_of(request.param, folder, "source")
    run(url, folder, CREATE)
    folders = {"odd": folder / "odd", "plain": folder / "plain"}
    for variant, place in folders.items():
        place.mkdir()
        if variant == "odd":
            run(url, place, FILL + BACKUP, variant)
        else:  # the same host, but for what MySQL cannot hold
            run(url, place, FILL.replace("fill(days=2, children=2)", "") + BACKUP, variant)
    yield request.param, folders
    if request.param != "sqlite":
        run(url, folder, DROP)


@pytest.fixture(scope="module", params=ENGINES)
def target(request, reachable, tmp_path_factory):
    """(engine, URL) of a freshly installed host on that engine; a restore that clears makes it fit for the next."""
    need(reachable, request.param)
    folder = tmp_path_factory.mktemp(f"to-{request.param}")
    url = url_of(request.param, folder, "target")
    yield request.param, url, folder
    if request.param != "sqlite":
        run(url, folder, DROP)


def restored(folder):
    return pickle.loads((folder / "restored").read_bytes())


def expected(folder):
    return pickle.loads((folder / "snapshot").read_bytes())


def nan_becomes_null(tables):
    """SQLite has no NaN, and takes null in its place where it may."""
    for rows in tables.values():
        for row in rows.values():
            if isinstance(row, dict):
                row.update({name: None for name, value in row.items() if value == "nan"})
    return tables


def test_every_pair(source, target):
    """Over a fresh host, overwriting and clearing; with infinities where the target can hold them."""
    (engine, folders), (target_engine, url, place) = source, target
    run(url, place, CREATE)

    folder = folders["plain"]
    run(url, folder, MEANWHILE + RESTORE, TAGS[0])
    after, refused = restored(folder)
    assert not refused
    moved = {"core.tag": {key: 4711 for key, row in expected(folder)["core.tag"].items() if row["name"] == TAGS[0]}}
    from tests.changing import renumbered

    assert not differences(renumbered(expected(folder), moved), after), f"{engine} to {target_engine}, overwriting"

    run(url, folder, RESTORE, "clear")
    after, refused = restored(folder)
    assert not refused
    assert not differences(expected(folder), after), f"{engine} to {target_engine}, clearing"

    folder = folders["odd"]
    run(url, folder, RESTORE, "clear")
    after, refused = restored(folder)
    has_nan = engine == "postgresql"
    has_infinity = engine != "mysql"
    if (target_engine == "mysql" and has_infinity) or (target_engine == "sqlite" and has_nan):
        assert refused, "what the target cannot hold is named"
        assert all("core.bmi" in line or "zoo.specimen" in line for line in refused)
        assert not differences(expected(folders["plain"]), after), "and nothing was changed"
    else:
        assert not refused
        assert not differences(expected(folder), after)

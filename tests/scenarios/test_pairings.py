"""From each of the three databases into each: nine pairs, both modes, every field of every row.

A process has one default database, so both ends are processes of their own, started as `manage.py` would be. The
servers are those of BACKUP_TEST_POSTGRESQL and BACKUP_TEST_MYSQL, URLs without a database, as CI sets them: nothing is
tried on a server that nobody named. The databases made there begin with `pairing_`, and with what tells one process of
a run from the others.
"""

import os
import pickle
import subprocess
import sys
import textwrap

import pytest
from django.db import connection

from tests.support.changing import renumbered
from tests.support.filling import TAGS
from tests.support.snapshots import differences

#: Engine -> the variable with the address of its server.
SERVERS = {"postgresql": "BACKUP_TEST_POSTGRESQL", "mysql": "BACKUP_TEST_MYSQL"}
ENGINES = ["sqlite", *SERVERS]
PREFIX = f"pairing_{os.environ.get('PYTEST_XDIST_WORKER', '')}{os.getpid()}_"
STRICT = os.environ.get("BACKUP_TEST_STRICT") == "1"
MISSING = pytest.fail if STRICT else pytest.skip

pytestmark = [
    # Once is enough, whatever database the run is on.
    pytest.mark.skipif(connection.vendor != "sqlite", reason="part of the run on SQLite"),
    # SQLite with itself is what all other tests are about.
    pytest.mark.skipif(
        not STRICT and not any(map(os.environ.get, SERVERS.values())),
        reason=f"neither {' nor '.join(SERVERS.values())} names a server",
    ),
]

CREATE = """
    from django.core.management import call_command
    from django.db import connection

    def create(name):
        quoted = connection.ops.quote_name(name)
        with connection._nodb_cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {quoted}")
            letters = " CHARACTER SET utf8mb4" if connection.vendor == "mysql" else ""
            cursor.execute(f"CREATE DATABASE {quoted}{letters}")

    if connection.vendor == "sqlite":
        pathlib.Path(connection.settings_dict["NAME"]).unlink(missing_ok=True)
    else:
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
    from backup import services
    from core.models import BMI
    from tests.support.filling import fill
    from tests.support.snapshots import snapshot
    from tests.zoo.models import Specimen

    def keep(variant):
        (folder / variant).mkdir()
        with open(folder / variant / "backup.zip", "wb") as file:
            services.create_backup(file)
        (folder / variant / "snapshot").write_bytes(pickle.dumps(snapshot()))

    fill(days=2, children=2)
    keep("odd")
    for model, field in ((BMI, "bmi"), (Specimen, "float")):
        for row in model.objects.all():
            if str(getattr(row, field)) in ("nan", "inf", "-inf"):
                row.delete()
    keep("plain")
"""
# In overwrite mode the target has a life of its own before: a tag of the same name under another key.
RESTORE = """
    from backup import exceptions, services
    from core.models import Tag
    from django.contrib.auth.models import User
    from tests.support.backups import how
    from tests.support.changing import renumber
    from tests.support.snapshots import snapshot

    def restore(variant, clear):
        with open(folder / variant / "backup.zip", "rb") as file:
            try:
                services.restore_backup(file, how(clear=clear))
                refused = []
            except exceptions.RecordsRefused as error:
                refused = error.details
        return snapshot(), refused

    User.objects.filter(is_superuser=True).update(email="other@example.com")
    Tag(name=sys.argv[2]).save()
    renumber(Tag, {Tag.objects.get().pk: 4711})
    results = [restore("plain", False), restore("plain", True), restore("odd", True)]
    (folder / "restored").write_bytes(pickle.dumps(results))
"""


def url_of(engine, folder, name):
    return (
        f"sqlite:///{folder / name}.sqlite3"
        if engine == "sqlite"
        else f"{os.environ[SERVERS[engine]]}/{PREFIX}{name}"
    )


def run(url, folder, code, *arguments):
    """A piece of Python in a process whose default database is at `url`."""
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


def need(engine):
    if engine in SERVERS and not os.environ.get(SERVERS[engine]):
        MISSING(f"{SERVERS[engine]} names no server")


@pytest.fixture(scope="module", params=ENGINES)
def source(request, tmp_path_factory):
    """(engine, folder): backups and snapshots of a filled host on that engine."""
    need(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    url = url_of(request.param, folder, "source")
    run(url, folder, CREATE + FILL)
    yield request.param, folder
    if request.param != "sqlite":
        run(url, folder, DROP)


@pytest.fixture(scope="module", params=ENGINES)
def target(request, tmp_path_factory):
    """(engine, URL) of the database on that engine that is restored into."""
    need(request.param)
    folder = tmp_path_factory.mktemp(f"to-{request.param}")
    url = url_of(request.param, folder, "target")
    yield request.param, url
    if request.param != "sqlite":
        run(url, folder, DROP)


def test_every_pair(source, target):
    """Over a fresh host, overwriting, then clearing; then with what not every engine can hold."""
    (engine, folder), (target_engine, url) = source, target
    run(url, folder, CREATE + RESTORE, TAGS[0])
    plain, odd = (pickle.loads((folder / name / "snapshot").read_bytes()) for name in ("plain", "odd"))
    overwritten, cleared, last = pickle.loads((folder / "restored").read_bytes())

    after, refused = overwritten
    assert not refused
    tag = next(key for key, row in plain["core.tag"].items() if row["name"] == TAGS[0])
    assert not differences(renumbered(plain, {"core.tag": {tag: 4711}}), after)

    after, refused = cleared
    assert not refused
    assert not differences(plain, after)

    after, refused = last
    # MySQL has no infinity and no NaN; SQLite no NaN, and PostgreSQL alone can bring one.
    if (target_engine == "mysql" and engine != "mysql") or (
        target_engine == "sqlite" and engine == "postgresql"
    ):
        *lines, way_on = refused
        assert lines, "what the target cannot hold is named"
        assert all("core.bmi" in line or "zoo.specimen" in line for line in lines)
        assert way_on.startswith("Correct it")
        assert not differences(plain, after), "and nothing was changed"
    else:
        assert not refused
        assert not differences(odd, after)

"""Runs the tests in a host: the stand-in, or, with `--baby-buddy PATH`, a real checkout of Baby Buddy.

The host and the database must be known before Django is set up. `pytest_configure` does both here, before that of
pytest-django, which then only guards the database.
"""

import gc
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support import properties  # noqa: F401  before Hypothesis looks for the profile that is asked for

TESTS = Path(__file__).resolve().parent
SCRATCH = pytest.StashKey[Path]()
STRICT = os.environ.get("BACKUP_TEST_STRICT") == "1"


def pytest_addoption(parser):
    group = parser.getgroup("babybuddy-backup")
    group.addoption("--baby-buddy", metavar="PATH", default=TESTS / "host", help="the host to run in")
    url = os.environ.get("DATABASE_URL", "")
    group.addoption("--database", metavar="URL", default=url, help="default: $DATABASE_URL, or SQLite")


def only_distributes(config):
    """Tell whether pytest-xdist runs the tests in other processes, each with a database and a folder of its own."""
    return getattr(config.option, "dist", "no") != "no" and not config.option.collectonly


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    host = Path(config.invocation_params.dir, config.getoption("--baby-buddy")).resolve()
    if not (host / "manage.py").is_file():
        raise pytest.UsageError(f"--baby-buddy: {host} has no manage.py")
    if host != TESTS / "host" and not hasattr(config, "workerinput"):
        ensure_runs(host)
    scratch = config.stash[SCRATCH] = Path(tempfile.mkdtemp(prefix="babybuddy-backup-"))
    if only_distributes(config):
        return
    # A test whose clock is ahead would take the files of other tests' restores for abandoned ones, and remove them.
    temporary = scratch / "tmp"
    temporary.mkdir()
    scratch.chmod(0o711)  # some tests run processes of another user
    temporary.chmod(0o1777)
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    tempfile.tempdir = str(temporary)
    os.environ.update(
        TMPDIR=str(temporary),
        BACKUP_TEST_FOLDER=str(scratch),
        # For files that are expensive to make and never changed: they are made once for all workers.
        BACKUP_TEST_SHARED=getattr(config, "workerinput", {}).get("shared", str(scratch)),
        BACKUP_ROOT=str(scratch / "backups"),
        DATABASE_URL=config.getoption("--database"),
        DJANGO_SETTINGS_MODULE="tests.settings",
        PYTHONPATH=os.pathsep.join([str(host), str(TESTS.parent)]),  # for processes that tests start
    )
    # The host first, and as working directory: it finds its templates and data files from there.
    sys.path[:0] = [str(host), str(TESTS.parent)]
    os.chdir(host)

    import django

    django.setup()
    remember_migrations()


def remember_migrations():
    """Let Django read the files of migrations only once, since they do not change while tests run.

    Reading them each time would be a tenth of the work of an ordinary test.
    """
    from django.apps import apps
    from django.conf import settings
    from django.db.migrations.loader import MigrationLoader

    load, loaded = MigrationLoader.load_disk, {}

    def load_disk(self):
        modules = settings.MIGRATION_MODULES
        key = (self.ignore_no_migrations, tuple(apps.app_configs), type(modules), repr(modules))
        if key not in loaded:
            load(self)
            loaded[key] = self.disk_migrations, self.unmigrated_apps, self.migrated_apps
        migrations, unmigrated, migrated = loaded[key]
        self.disk_migrations, self.unmigrated_apps, self.migrated_apps = (
            dict(migrations),
            set(unmigrated),
            set(migrated),
        )

    MigrationLoader.load_disk = load_disk


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Tell a worker of pytest-xdist where the shared folder is, before it starts."""
    node.workerinput["shared"] = str(node.config.stash[SCRATCH])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Run slow tests first: at the end, the other processes would wait for one that runs a slow test."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish(session):
    """Exclude modules and tests from garbage collection: they stay to the end, and looking through them takes time."""
    gc.collect()
    gc.freeze()


def ensure_runs(host):
    """Raise `UsageError` if the packages that a host needs are not installed."""
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=host,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "babybuddy.settings.test"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1]
        install = f"{sys.executable} -m pip install -r {host / 'requirements.txt'}"
        raise pytest.UsageError(
            f"--baby-buddy: {host} does not run: {reason}. Its packages come by: {install}"
        )


def pytest_unconfigure(config):
    if SCRATCH in config.stash:
        shutil.rmtree(config.stash[SCRATCH], ignore_errors=True)


def pytest_report_header(config):
    if only_distributes(config):
        return None
    from babybuddy import VERSION
    from django.db import connection

    return f"host: Baby Buddy {VERSION} in {os.getcwd()}, database: {connection.vendor}"


@pytest.fixture(scope="session")
def django_db_setup(request, django_test_environment, django_db_blocker):
    """Replaces pytest-django's: the test database is made by the host's own `migrate`, then kept as stock."""
    from django.db import connection
    from django.test.utils import teardown_databases

    from tests.support.stock import keep_stock

    with django_db_blocker.unblock():
        before = new_databases()
        os.environ["DATABASE_URL"] = database_url(connection.settings_dict)
        stock = keep_stock()
        yield stock
        stock.drop()
        teardown_databases(before, verbosity=0)


def new_databases():
    """Make the test databases as Django does, and return what `teardown_databases` needs.

    That takes seconds, so on SQLite only the first process of a run does it. The others get a copy, in which `migrate`
    finds nothing to do.
    """
    from django.db import connection, connections
    from django.test.utils import setup_databases

    how = {"verbosity": 0, "interactive": False, "serialized_aliases": ()}
    if connection.vendor != "sqlite":
        return setup_databases(**how)
    migrated = Path(os.environ["BACKUP_TEST_SHARED"], "migrated.sqlite3")
    with FileLock(f"{migrated}.lock"):
        if not migrated.exists():
            before = setup_databases(**how)
            connections.close_all()
            shutil.copyfile(connection.settings_dict["NAME"], migrated)
            return before
    shutil.copyfile(migrated, connection.settings_dict["TEST"]["NAME"])
    return setup_databases(**how, keepdb=True)


def database_url(settings):
    """Return the URL of the test database, for processes that tests start."""
    given = os.environ["DATABASE_URL"]
    if not given or given.startswith("sqlite"):
        return f"sqlite:///{settings['NAME']}"
    server, _, rest = given.rpartition("/")
    _, mark, options = rest.partition("?")
    return f"{server}/{settings['NAME']}{mark}{options}"


@pytest.fixture
def host_db(request, django_db_setup, django_db_blocker):
    """A freshly installed host, its database open to this test with no transaction around; no backups yet."""
    from tests.support.filling import fill, fill_a_little

    fills = {"family": fill_a_little, "filled": fill}
    with django_db_blocker.unblock():
        django_db_setup.put_back(next((fills[name] for name in request.fixturenames if name in fills), None))
        forget(Path(os.environ["BACKUP_ROOT"]))
        yield
        wait_for_jobs()
        forget(Path(os.environ["BACKUP_ROOT"]))


def wait_for_jobs():
    """Wait for what a test left running, in the server say: the next test would find the lock taken, and do nothing.

    Only on SQLite, where it costs nothing; a test may have left a connection to a server that does not work.
    """
    from django.db import connection

    from backup.database import Job, database_of

    for job in (Job.AUTOMATIC_BACKUP, Job.RESTORE) if connection.vendor == "sqlite" else ():
        with database_of().lock_within(job, 60):
            pass


def forget(backups):
    """Delete what could leak from one test into the next. The host's cache is a table, which was put back already."""
    from django.contrib.contenttypes.models import ContentType
    from django.db import connections
    from django.utils import timezone, translation

    from backup.automatic import look

    # Otherwise a request would start a process in the background that outlives its test.
    look.watch.next = math.inf
    connections.close_all()
    ContentType.objects.clear_cache()
    timezone.deactivate()
    translation.deactivate()
    shutil.rmtree(backups, ignore_errors=True)


@pytest.fixture
def family(host_db, django_db_setup):
    """One day's entries of two children, nothing odd, and few of the thousands of rows that migrations make."""
    from tests.support.filling import fill_a_little

    return django_db_setup.filled(fill_a_little)


@pytest.fixture
def filled(host_db, django_db_setup):
    """A host that a family has used for some days."""
    from tests.support.filling import fill

    return django_db_setup.filled(fill)


@pytest.fixture
def browser(family):
    """Django's test client, in which the family's superuser is signed in."""
    from django.test import Client

    client = Client()
    client.force_login(family.admin)
    return client


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """A folder of this test for temporary files, in which nothing may be left."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not [*folder.iterdir()]


@pytest.fixture
def acting_before_the_lock(monkeypatch):
    """A function to call with what somebody else does after the safety copy, right before others are locked out."""
    from backup.database import database_of

    def schedule(act):
        kind = type(database_of())
        restoring = kind.restoring

        def act_and_restore(self, *arguments):
            monkeypatch.setattr(kind, "restoring", restoring)
            act()
            return restoring(self, *arguments)

        monkeypatch.setattr(kind, "restoring", act_and_restore)

    return schedule


@contextmanager
def gunicorn(log, **environment):
    """Serve the host as in production, by several processes with several threads. Yields the URL."""
    options = "--bind=127.0.0.1:0 --workers=2 --threads=4 --graceful-timeout=1"
    command = [sys.executable, "-m", "gunicorn", "babybuddy.wsgi", *options.split()]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output) as process,
    ):
        try:
            yield wait_for(log, process)
        finally:
            process.terminate()


def wait_for(log, process):
    """Wait until gunicorn answers, and return its URL. It chooses a free port itself, and logs it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        _, found, rest = log.read_text(errors="replace").partition("Listening at: ")
        if found and " " in rest:
            address = rest.split()[0]
            with suppress(OSError), urllib.request.urlopen(f"{address}/login/"):
                return address
        time.sleep(0.05)
    raise RuntimeError(f"gunicorn did not start:\n{log.read_text(errors='replace')}")


@pytest.fixture(scope="session")
def running_server(django_db_setup, tmp_path_factory):
    with gunicorn(tmp_path_factory.mktemp("server") / "log.txt") as address:
        yield address


@pytest.fixture
def server(host_db, running_server):
    """The URL of a real server on this test's database."""
    return running_server


@pytest.fixture(scope="session")
def chromium():
    """A headless browser. Without one the test is skipped; BACKUP_TEST_STRICT=1 makes it fail instead."""
    missing = pytest.fail if STRICT else pytest.skip
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed")
    if path is None:
        missing("no chromium on this machine")
    arguments = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        # Playwright runs an event loop in this thread: Django would refuse to use the database beside it.
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
        yield browser
        browser.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture(scope="session")
def window(chromium, running_server):
    """A window of the browser on the running server. It takes a second of processor time, a page in it a tenth."""
    context = chromium.new_context(base_url=running_server, accept_downloads=True)
    context.new_page()
    yield context
    context.close()


@pytest.fixture
def clean_window(window, server):
    """The window without pages, cookies or storage: `clean_window.new_page().goto("/")`."""
    blank = window.pages[0]
    yield window
    for page in window.pages:
        if page is not blank:
            page.close()
    window.set_offline(False)
    window.clear_cookies()
    everything = {"origin": server, "storageTypes": "all"}
    window.new_cdp_session(blank).send("Storage.clearDataForOrigin", everything)


@pytest.fixture
def visit(clean_window, server, family):
    """A function that opens the page of the app as the admin sees it, and returns it. `size`: of the screen, by default
    a phone's, where there is least space. `script`: whether the browser runs JavaScript."""
    from tests.support.http import PHONE, signed_in

    def visit(size=PHONE, script=True):
        page = clean_window.new_page()
        page.set_viewport_size(size)
        if not script:
            clean_window.new_cdp_session(page).send("Emulation.setScriptExecutionDisabled", {"value": True})
        page.goto("/backup/")
        return page

    signed_in(clean_window, server, family.admin)
    return visit


@pytest.fixture
def page(visit):
    return visit()

"""Sites that are set up in other ways than most, each in a process of its own, and one that is not migrated."""

import os
import shutil
import subprocess
import sys
import textwrap

import pytest
from core import models as core
from django.contrib.auth.models import User
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from backup import services
from backup.database import memo
from backup.exceptions import RestoreRefused, Unreadable
from tests.support.backups import inspect, metadata_of, restore, take

#: What a site can do, whatever it is: says "well" at the end.
EVERYTHING = """
    import datetime as dt, io, os, sys
    import django
    django.setup()
    from django.contrib.auth import get_user_model
    from django.core.checks import run_checks
    from django.core.files.base import ContentFile
    from django.core.management import call_command
    from django.test import Client
    from django.test.utils import setup_test_environment
    from django.utils import timezone
    from backup import services
    from backup.archive import open_archive
    from backup.automatic.unchanged import is_unchanged
    from backup.proof import Verdict
    from core import models as core
    from tests.support.backups import inspect, records_of, restore, take

    setup_test_environment()
    people = get_user_model().objects
    user = people.create_superuser("boss", password="boss")
    people.create(username="made by a proxy!", email="nowhere", password="")
    child = core.Child(first_name="Mia", last_name="Lind", birth_date=dt.date(2026, 1, 1))
    child.save()
    for number in range(5):
        core.Note.objects.create(child=child, note=f"{number}", time=timezone.now())
    file, then = take(), records_of(take())
    people.update(last_login=timezone.now())
    with open_archive(file) as before, open_archive(take()) as after:
        assert is_unchanged(before, after)
    then = records_of(take())
    file = take()
    core.Note.objects.all().delete()
    now = records_of(take())
    assert inspect(file, clear=True).changes["core.note"].added == 5
    assert not inspect(file, clear=True).warnings
    restore(file, clear=True)
    assert records_of(take()) == then
    services.undo_restore()
    assert records_of(take()) == now
    restore(file, clear=False)
    assert core.Note.objects.count() == 5
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    for path in ("/backup/", "/backup/status/", "/backup/download/"):
        assert client.get(path).status_code == 200, path
    upload = {"backup_file": ContentFile(file.getvalue(), "backup.zip")}
    assert client.post("/backup/restore/", upload, follow=True).status_code == 200
    output = io.StringIO()
    for arguments, options in (
        (["check"], {}),
        (["backup"], {"keep": True}),
        (["backup"], {"automatic": True, "now": True}),
        (["backups"], {}),
    ):
        call_command(*arguments, **options, stdout=output)
    assert services.prove_backup(file).verdict is Verdict.PROVED
    print("well", run_checks())
"""

MIGRATE = """
    import django
    django.setup()
    from django.apps import apps
    from django.core.management import call_command

    if apps.is_installed("people"):
        call_command("makemigrations", "people", verbosity=0)
    call_command("migrate", verbosity=0)
    call_command("createcachetable", verbosity=0)
"""

#: Moves the tables of the zoo, which are empty, from a site with one database to another database.
MOVE_THE_ZOO = """
    import django
    django.setup()
    from django.core.management import call_command
    from django.db import connection

    connection.disable_constraint_checking()
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names():
            if table.startswith("zoo_"):
                cursor.execute(f"DROP TABLE {connection.ops.quote_name(table)}")
    call_command("migrate", "zoo", verbosity=0, database="other")
"""

NO_TIME_ZONES = "USE_TZ = False"

#: The zoo is in another database.
TWO_DATABASES = """
    import os

    DATABASES["other"] = {
        "ENGINE": "django.db.backends.sqlite3", "NAME": os.path.join(os.environ["BACKUP_TEST_FOLDER"], "other.sqlite3")
    }

    class Router:
        def db_for_read(self, model, **hints):
            return "other" if model._meta.app_label == "zoo" else None

        db_for_write = db_for_read

        def allow_migrate(self, db, app_label, **hints):
            return (db == "other") == (app_label == "zoo")

    DATABASE_ROUTERS = [Router()]
"""

#: Users are of a model of its own, in the app `people`.
OWN_USERS = """
    INSTALLED_APPS = [*INSTALLED_APPS, "people"]
    AUTH_USER_MODEL = "people.Person"
    SILENCED_SYSTEM_CHECKS = [*SILENCED_SYSTEM_CHECKS, "fields.E304"]
"""
PERSON = """
    from django.contrib.auth.models import AbstractUser
    from django.db import models

    class Person(AbstractUser):
        nickname = models.CharField(max_length=20, default="")
"""


@pytest.fixture
def site(tmp_path):
    """A function that makes a site with these settings on SQLite, runs EVERYTHING in it, and returns what that printed.

    `migrated`: the file of a database to begin with. `prepare`: code to run first.
    """

    def run(*arguments):
        folders = [str(tmp_path), *os.environ["PYTHONPATH"].split(os.pathsep)]
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "site_settings",
            "PYTHONPATH": os.pathsep.join(folders),
            "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
            "BACKUP_TEST_FOLDER": str(tmp_path),
            "BACKUP_ROOT": str(tmp_path / "backups"),
        }
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def make(settings, migrated=None, prepare=MIGRATE):
        (tmp_path / "site_settings.py").write_text(
            "from tests.settings import *  # noqa\n" + textwrap.dedent(settings)
        )
        if migrated:
            shutil.copyfile(migrated, tmp_path / "db.sqlite3")
        if prepare:
            run("-c", textwrap.dedent(prepare))
        return run("-c", textwrap.dedent(EVERYTHING))

    return make


on_sqlite = pytest.mark.skipif(
    connection.vendor != "sqlite", reason="it has a database of its own, of SQLite's"
)


@on_sqlite
def test_a_site_without_time_zones(site, django_db_setup):
    """But with them when it was migrated: Baby Buddy's own migrations need them."""
    assert "well" in site(NO_TIME_ZONES, django_db_setup.stock, prepare="")


def test_a_site_keeps_its_id_whatever_is_set_about_time_zones(transactional_db):
    """On each engine: its kept backups are found by it."""
    text = """
        from django.conf import settings
        settings.USE_TZ, settings.TIME_ZONE = %r, %r
        settings.DATABASES["default"].update(%r)
        import django
        django.setup()
        from backup.database.memo import site_id
        print(site_id())
    """
    names = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")
    database = {name: str(connection.settings_dict[name]) for name in names}
    found = [
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(text % (*zones, database))],
            capture_output=True,
            text=True,
            check=False,
        )
        for zones in ((True, "UTC"), (True, "Asia/Tokyo"), (False, "UTC"), (False, "Asia/Tokyo"))
    ]
    assert {said.stdout.strip() for said in found} == {memo.site_id()}, found


@pytest.mark.slow
@on_sqlite
def test_a_site_with_two_databases(site, django_db_setup):
    """What is in the other one is in no backup, and a check says so."""
    said = site(TWO_DATABASES, django_db_setup.stock, MOVE_THE_ZOO)
    assert "well" in said
    assert "backup.W008" in said


@pytest.mark.slow
@on_sqlite
def test_a_site_with_users_of_its_own(site, tmp_path):
    (tmp_path / "people").mkdir()
    (tmp_path / "people/__init__.py").touch()
    (tmp_path / "people/models.py").write_text(textwrap.dedent(PERSON))
    (tmp_path / "people/migrations").mkdir()
    (tmp_path / "people/migrations/__init__.py").touch()
    assert "well" in site(OWN_USERS)


# --- A site whose migrations are not all applied, since Baby Buddy was just updated -------------------------


@pytest.fixture(params=["a table", "a column"])
def outdated(request, family):
    """A backup of before, and a site that lacks a table, or a column, since a migration is yet to come."""
    file = take()
    services.keep_backup()
    model = core.Medication
    field = model._meta.get_field("notes")
    key = {"app": "core", "name": "0036_medication"}
    MigrationRecorder(connection).record_unapplied(**key)
    with connection.schema_editor() as editor:
        if request.param == "a table":
            editor.delete_model(model)
        else:
            editor.remove_field(model, field)
    yield file
    with connection.schema_editor() as editor:
        if request.param == "a table":
            editor.create_model(model)
        else:
            editor.add_field(model, field)
    MigrationRecorder(connection).record_applied(**key)


def test_a_site_that_is_not_migrated_says_what_to_do(outdated, client):
    lacks_a_table = core.Medication._meta.db_table not in connection.introspection.table_names()
    if lacks_a_table:  # as the version before did, so a backup lacks nothing
        assert "core.medication" not in metadata_of(take())["models"]
    for act in (
        *(() if lacks_a_table else (take,)),
        lambda: inspect(outdated, clear=True),
        lambda: inspect(outdated, clear=False),
        lambda: restore(outdated, clear=True),
        lambda: restore(outdated, clear=False),
    ):
        with pytest.raises((Unreadable, RestoreRefused), match=r"manage\.py migrate"):
            act()
    client.force_login(User.objects.get(username="admin"), "django.contrib.auth.backends.ModelBackend")
    assert client.get("/backup/").status_code == 200
    assert client.get("/backup/status/").status_code == 200
    answer = client.get("/backup/download/")
    if lacks_a_table:
        assert answer.status_code == 200
        answer.close()
    else:
        assert answer.status_code == 409
        assert "manage.py migrate" in answer.content.decode()
    upload = {"backup_file": outdated}
    outdated.name = "backup.zip"
    outdated.seek(0)
    answer = client.post("/backup/restore/", upload)
    assert answer.status_code == 409
    assert "manage.py migrate" in answer.content.decode()

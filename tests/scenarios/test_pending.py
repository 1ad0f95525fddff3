"""Between an update of the host and `manage.py migrate`: the database is that of the version before."""

import io
import shutil

import pytest
from core import models as core
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.db.migrations.recorder import MigrationRecorder

from backup import services
from backup.automatic import run, status
from backup.automatic.status import State
from backup.database import memo
from backup.exceptions import Damaged, RestoreRefused, Unreadable
from tests.support import older
from tests.support.backups import how, inspect, metadata_of, records_of, refused, restore, take
from tests.support.matrices import again
from tests.support.snapshots import differences, snapshot

on_sqlite = pytest.mark.skipif(connection.vendor != "sqlite", reason="the older database is a file of SQLite")

CASES = [again("1.9.1"), again("1.12"), "1.16", again("2.0"), "2.2", again("2.6.0")]


def put_in_place(file):
    connections.close_all()
    shutil.copyfile(file, connection.settings_dict["NAME"])
    memo.forget_site()


@pytest.fixture
def pending(host_db, scratch, request):
    """The version of the database that the updated site still has."""
    put_in_place(older.old(request.param) / "db.sqlite3")
    yield request.param
    memo.forget_site()


@on_sqlite
@pytest.mark.parametrize("pending", CASES, indirect=True)
def test_a_backup_is_as_whole_as_one_of_the_version_before(pending):
    made = take()
    before = io.BytesIO((older.old(pending) / "backup.zip").read_bytes())
    assert records_of(made) == records_of(before)
    old, new = metadata_of(before), metadata_of(made)
    assert {app: names for app, names in new["migrations"].items() if names} == old["migrations"]
    assert new["babybuddy_version"] == old["babybuddy_version"]
    assert not new.get("left_out")


@on_sqlite
@pytest.mark.parametrize("pending", ["1.16"], indirect=True)
def test_after_migrate_it_is_restored(pending):
    made = take()
    put_in_place(older.updated_in_place(pending))
    before = snapshot()
    core.Child.objects.all().delete()
    restore(made, clear=True)
    assert not differences(before, snapshot())


@on_sqlite
@pytest.mark.parametrize("pending", ["1.16"], indirect=True)
def test_an_automatic_backup_lacks_nothing(pending, settings):
    settings.BACKUP_SCHEDULE = "daily"
    outcome = run.run(now=True)
    assert outcome.made
    assert not outcome.backup.left_out
    assert run.run(now=True).message.startswith("Nothing has changed")
    assert status.status().state is State.OK


@on_sqlite
@pytest.mark.parametrize("pending", ["1.16", again("2.6.0")], indirect=True)
@pytest.mark.parametrize("name", ["backup.zip", "db.sqlite3"])
def test_a_restore_and_its_preview_say_that_migrate_comes_first(pending, name):
    path = older.old(pending) / name
    for option in ("--clear", "--dry-run"):
        with pytest.raises(CommandError, match=r"Run “manage\.py migrate” first"):
            call_command("restore", str(path), option, interactive=False)
    for act in (services.inspect_backup, services.restore_backup):
        with path.open("rb") as file, pytest.raises(RestoreRefused, match=r"Run “manage\.py migrate” first"):
            act(file, how(clear=True))


LAST = "core", "0036_medication"


def test_any_restore_says_it(family):
    """Also that of a backup which was made in this state, and of which by chance all would fit."""
    MigrationRecorder(connection).record_unapplied(*LAST)
    made = take()
    for clear in (True, False):
        assert refused(made, RestoreRefused, clear=clear).details == [".".join(LAST)]
        with pytest.raises(RestoreRefused, match=r"manage\.py migrate"):
            inspect(made, clear=clear)


def test_an_undo_is_possible_if_no_migration_concerns_it(family):
    made = take()
    core.Note.objects.all().delete()
    before = snapshot()
    restore(made, clear=True)
    MigrationRecorder(connection).record_unapplied("sessions", "0001_initial")
    refused(made, RestoreRefused, clear=True)
    services.undo_restore()
    assert not differences(before, snapshot())


def test_a_model_that_is_yet_to_come(family):
    """Its table is not there yet, so a backup lacks nothing."""
    call_command("migrate", "core", "0035", verbosity=0)
    made = take()
    assert "core.medication" not in metadata_of(made)["models"]
    assert not metadata_of(made).get("left_out")
    call_command("migrate", verbosity=0)
    before = snapshot()
    restore(made, clear=True)
    assert not differences(before, snapshot())


@pytest.mark.parametrize("gone", [{"app": "core"}, {"app": "core", "name__lt": "0020"}, {}])
def test_a_history_of_migrations_that_has_gaps(family, gone):
    """Then nobody knows which models the database has: it is read with those of today."""
    before, migrations = records_of(take()), MigrationRecorder(connection).migration_qs
    migrations.filter(**gone).delete()
    assert records_of(take()) == before


def test_a_migration_that_was_applied_and_not_noted(family):
    """What the database has of it already is named, since a backup does not hold it."""
    MigrationRecorder(connection).migration_qs.filter(app="babybuddy", name__gt="0032").delete()
    with pytest.raises(
        Unreadable, match=r"(?s)manage\.py migrate.*babybuddy\.settings, field pagination_count"
    ):
        take()
    assert metadata_of(take(leave_out=True))["left_out"]["total"] == 1


@pytest.fixture
def newer(family):
    """The database of a version that this site does not have yet: after going back to an older one."""
    migrations = MigrationRecorder(connection)
    before = {*connection.introspection.table_names()}
    with connection.schema_editor() as editor:
        editor.execute("ALTER TABLE core_note ADD COLUMN mood varchar(20) NULL")
        editor.execute("CREATE TABLE core_bath (id integer NOT NULL PRIMARY KEY, warm integer NOT NULL)")
    migrations.record_applied("core", "9999_of_a_newer_version")
    yield
    migrations.record_unapplied("core", "9999_of_a_newer_version")
    with connection.schema_editor() as editor:
        editor.execute("ALTER TABLE core_note DROP COLUMN mood")
        editor.execute("DROP TABLE core_bath")
    assert {*connection.introspection.table_names()} == before


def test_a_database_of_a_newer_version(newer):
    """What this version does not know is named, and is in no backup without a word; nor does a restore remove it."""
    made = take(leave_out=True)
    left_out = metadata_of(made)["left_out"]
    assert [(place["model"], place["field"]) for place in left_out["places"]] == [
        ("core.note", "mood"),
        ("core_bath", None),
    ]
    with pytest.raises(Unreadable, match=r"(?s)newer version.*core\.note, field mood.*core_bath"):
        take()
    with pytest.raises(Damaged, match=r"(?s)core\.note, field mood.*core_bath.*update the site first"):
        restore(made, clear=True)


@pytest.fixture
def newer_session(family):
    """A newer version of an app that no backup holds."""
    migrations = MigrationRecorder(connection)
    with connection.schema_editor() as editor:
        editor.execute("CREATE TABLE sessions_bath (id integer NOT NULL PRIMARY KEY)")
    migrations.record_applied("sessions", "9999_of_a_newer_version")
    yield
    migrations.record_unapplied("sessions", "9999_of_a_newer_version")
    with connection.schema_editor() as editor:
        editor.execute("DROP TABLE sessions_bath")


def test_a_newer_version_of_an_app_that_no_backup_holds(newer_session):
    """It is nothing that a backup could lack."""
    made = take()
    assert not metadata_of(made).get("left_out")
    core.Note.objects.all().delete()
    restore(made, clear=True)
    assert core.Note.objects.exists()


def test_migrations_that_were_squashed_are_not_of_a_newer_version(family):
    """Their names may stay in the history for ever."""
    migrations = MigrationRecorder(connection)
    migrations.record_applied("core", "0000_squashed_long_ago")
    before = records_of(take())
    migrations.record_unapplied("core", "0000_squashed_long_ago")
    assert records_of(take()) == before

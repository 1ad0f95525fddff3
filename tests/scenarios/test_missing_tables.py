"""Tables that the database lacks, those of many-to-many fields among them: named, with a way on, on every database."""

from contextlib import contextmanager

import pytest
from core import models as core
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import OperationalError, connection
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.recorder import MigrationRecorder

from backup import services
from backup.database import database_of
from backup.exceptions import BackupError, Damaged, RestoreRefused, Unreadable
from backup.management.base import way_on
from backup.options import RestoreMode, RestoreOptions
from tests.support.backups import inspect, metadata_of, records_of, take
from tests.support.snapshots import differences, schema, snapshot
from tests.zoo import models as zoo


@pytest.fixture(params=["auth_user_groups", "core_note"])
def missing(family, request):
    """The name of a table that is gone, what was here, and a backup of that."""
    before, file = snapshot(), take()
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {request.param}")
    return request.param, before, file


def test_a_backup_names_it_and_has_all_else_by_choice(missing):
    name, _before, _file = missing
    with pytest.raises(Unreadable, match=f"{name} is missing") as caught:
        take()
    assert caught.value.offer == "leave_out"
    file = take(leave_out=True)
    places = metadata_of(file)["left_out"]
    assert name in str(places)
    records = records_of(file)
    assert len(records["core.feeding"]) == core.Feeding.objects.count()
    assert len(records["auth.user"]) == User.objects.count()
    if name == "core_note":
        assert "core.note" not in records
    else:
        assert {str(user["fields"]["groups"]) for user in records["auth.user"]} == {"[]"}
    # The tags of notes would go to the next ones.
    options = RestoreOptions(RestoreMode.CLEAR, without_safety_copy=True, leave_out=name == "core_note")
    services.restore_backup(take(leave_out=True), options)


@pytest.mark.parametrize("clear", [True, False])
def test_a_restore_names_it_and_makes_it_anew_by_choice(missing, clear):
    name, before, file = missing
    with pytest.raises(Damaged) as preview:
        inspect(file, clear=clear)
    file.seek(0)
    mode = RestoreMode.CLEAR if clear else RestoreMode.OVERWRITE
    with pytest.raises(Damaged) as restore:
        services.restore_backup(file, RestoreOptions(mode))
    for error in (preview.value, restore.value):
        assert error.details == [name]
        assert (error.offer, error.must_clear) == ("without_safety_copy", True)
    file.seek(0)
    options = RestoreOptions(RestoreMode.CLEAR, without_safety_copy=True)
    result = services.restore_backup(file, options)
    assert any(name in warning for warning in result.warnings)
    assert result.safety_copy
    assert not differences(before, snapshot())


@pytest.mark.parametrize(
    "names",
    [["core_tagged"], ["core_note", "core_tagged"], ["auth_user"], ["auth_user", "auth_user_groups"]],
    ids="+".join,
)
def test_tables_that_others_refer_to_are_made_anew(family, names):
    before, file = snapshot(), take()
    drop(names)
    services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR, without_safety_copy=True))
    assert not differences(before, snapshot())


def test_what_is_made_anew_has_its_indexes_and_what_referred_to_it_does_again(family):
    """Tables of many-to-many fields, of unique and of indexed texts, and such that refer to each other among them; and
    with them go, on PostgreSQL, the references of tables that stay, and of those that no backup holds."""
    before, as_it_was, file = snapshot(), schema(), take()
    drop(
        [
            "core_child",
            "core_tagged",
            "auth_user",
            "auth_user_groups",
            "zoo_species",
            "zoo_enclosure",
            "zoo_training",
        ]
    )
    services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR, without_safety_copy=True))
    assert sorted(as_it_was ^ schema()) == []
    assert not differences(before, snapshot())


def test_a_table_that_cannot_be_made_with_all_its_indexes_is_not_made(family, monkeypatch):
    """As in the middle of it somebody locks a table that it refers to. The next restore makes it."""
    before, as_it_was, file = snapshot(), schema(), take()
    drop(["core_note"])
    without = schema()
    execute = BaseDatabaseSchemaEditor.execute

    def fail_after_the_table(editor, sql, params=()):
        if not str(sql).startswith("CREATE TABLE"):
            raise OperationalError(1205, "locked")
        execute(editor, sql, params)

    options = RestoreOptions(RestoreMode.CLEAR, without_safety_copy=True)
    with monkeypatch.context() as patched:
        patched.setattr(BaseDatabaseSchemaEditor, "execute", fail_after_the_table)
        with pytest.raises(BackupError, match="locked"):
            services.restore_backup(file, options)
    assert sorted(without ^ schema()) == []
    file.seek(0)
    services.restore_backup(file, options)
    assert sorted(as_it_was ^ schema()) == []
    assert not differences(before, snapshot())


@pytest.mark.parametrize("missing", [[], ["core_note"]], ids=str)
def test_a_table_whose_migration_is_not_applied_is_not_missing(family, missing):
    """`migrate` makes it, which it could not if a restore had."""
    before, file = snapshot(), take()
    drop([*missing, "core_medication"])
    MigrationRecorder(connection).record_unapplied("core", "0036_medication")
    options = RestoreOptions(RestoreMode.CLEAR, without_safety_copy=True)
    with pytest.raises(RestoreRefused, match="migrate") as caught:
        services.restore_backup(file, options)
    assert caught.value.details == ["core.0036_medication"]
    assert {*missing, "core_medication"}.isdisjoint(database_of().table_names())
    call_command("migrate", verbosity=0)
    file.seek(0)
    services.restore_backup(file, options)
    assert not differences(before, snapshot())


def drop(names):
    with connection.constraint_checks_disabled(), connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"DROP TABLE {name}{' CASCADE' if connection.vendor == 'postgresql' else ''}")


@pytest.mark.skipif(connection.vendor != "sqlite", reason="of a database that is a file")
@pytest.mark.parametrize("names", [["django_content_type"], ["auth_permission"], None], ids=str)
def test_tables_that_no_backup_holds(family, names):
    """A new file has them. `None`: the file is empty."""
    before, file = snapshot(), take()
    if names:
        drop(names)
    else:
        connection.close()
        database_of().file().write_bytes(b"")
    with pytest.raises(Damaged if names else RestoreRefused) as caught:
        services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR))
    assert ("add --without-safety-copy" if names else "manage.py migrate") in (
        str(caught.value) + way_on(caught.value.offer, {"without_safety_copy": False})
    )
    file.seek(0)
    result = services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR, without_safety_copy=True))
    assert "The database file was damaged" in " ".join(result.warnings)
    assert not differences(before, snapshot())
    for aside in database_of().file().parent.glob("*-damaged-*"):
        aside.unlink()


@pytest.mark.skipif(connection.vendor == "sqlite", reason="of servers")
@pytest.mark.parametrize("name", ["django_content_type", "auth_permission"])
def test_what_a_restore_cannot_make_is_named_without_the_advice_that_was_followed(family, name):
    file = take()
    with renamed(name), pytest.raises(Damaged, match=name) as caught:
        services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR, without_safety_copy=True))
    assert caught.value.offer == ""
    assert "migrate" in caught.value.message


@contextmanager
def renamed(name):
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {name} RENAME TO gone")
        try:
            yield
        finally:
            cursor.execute(f"ALTER TABLE gone RENAME TO {name}")


def test_a_table_that_this_database_never_has_is_not_missing(family, monkeypatch):
    """That of a model for other databases: backups are whole, and no restore makes it."""
    file = take()
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE zoo_shelf")
    monkeypatch.setattr(zoo.Shelf._meta, "required_db_vendor", "oracle")
    before = records_of(take())
    assert "zoo.shelf" not in before
    options = RestoreOptions(RestoreMode.CLEAR, without_safety_copy=True)
    file.seek(0)
    result = services.restore_backup(file, options)
    assert any("zoo.shelf" in warning for warning in result.warnings), "the file holds it"
    assert "zoo_shelf" not in database_of().table_names()
    assert records_of(take()) == before

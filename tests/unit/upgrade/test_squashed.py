"""Migrations of a plug-in that were squashed after a backup was made."""

import io
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.commands import migrate
from django.db import connection, connections
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder

from backup import services
from backup.exceptions import RestoreRefused
from backup.proof import Verdict
from backup.upgrade import schema
from tests.support.backups import how, inspect, metadata_of, refused, restore, rewritten, take
from tests.support.matrices import again
from tests.support.snapshots import differences, snapshot
from tests.zoo import migrations, models

on_sqlite = pytest.mark.skipif(connection.vendor != "sqlite", reason="the older database is a file of SQLite")

OLD = sorted(path for path in Path(migrations.__file__).parent.glob("0*.py"))
NAMES = [path.stem for path in OLD]
#: Models that came with the last two migrations.
LATE = ["blanket", "cot", "plate"]

SQUASHED = """
from importlib import import_module

from django.db import migrations

old = [import_module(f"tests.zoo.migrations.{{name}}").Migration for name in {replaced}]


class Migration(migrations.Migration):
    initial = True
    replaces = [("zoo", name) for name in {replaced}]
    dependencies = [key for one in old for key in one.dependencies if key[0] != "zoo"]
    operations = [operation for one in old for operation in one.operations]
"""

LATER = """
from django.db import migrations


def mark(apps, schema_editor):
    for shelf in apps.get_model("zoo", "shelf").objects.all():
        shelf.label += "!"
        shelf.save()


class Migration(migrations.Migration):
    dependencies = [("zoo", "{before}")]
    operations = [migrations.RunPython(mark)]
"""


@pytest.fixture
def update(family, settings, monkeypatch, tmp_path, request):
    """Update the zoo: a function of how many of its migrations are squashed into one, whether their files are deleted,
    whether “migrate” has run since, and whether there is a later migration, that changes data. It returns the name of
    the last one."""
    models.Shelf.objects.bulk_create(models.Shelf(number=n, label=f"{n}") for n in (0, 8))
    models.Day.objects.create(date="2026-11-23").species.create(code="aves", latin="Aves")
    cot = models.Cot.objects.create(child=family.children[0], text="by the window")
    models.Blanket.objects.create(cot=cot)
    models.Plate.objects.create(serial="7")
    recorder = MigrationRecorder(connection)
    before = recorder.applied_migrations().keys()

    def make(squashed=6, *, deleted=False, migrated=True, later=False):
        package = tmp_path / f"zoo_{abs(hash(request.node.name))}"
        package.mkdir()
        (package / "__init__.py").touch()
        for path in OLD[squashed if deleted else 0 :]:
            shutil.copy(path, package)
        last = NAMES[-1]
        if squashed:
            replacing = f"0001_squashed_{NAMES[squashed - 1]}"
            (package / f"{replacing}.py").write_text(SQUASHED.format(replaced=NAMES[:squashed]))
            last = replacing if squashed == len(NAMES) else last
        if later:
            (package / "0007_marks.py").write_text(LATER.format(before=last))
            last = "0007_marks"
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("BACKUP_TEST_ZOO_MIGRATIONS", package.name)
        settings.MIGRATION_MODULES = {"zoo": package.name}
        if migrated:
            run_migrations()
        return last

    yield make
    for app, name in recorder.applied_migrations().keys() - before:
        recorder.record_unapplied(app, name)


def run_migrations():
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes())


def labels_of_shelves():
    return dict(models.Shelf.objects.values_list("pk", "label"))


def without_late(file):
    """The backup as it was two migrations ago."""

    def change(records):
        for name in LATE:
            del records[f"zoo.{name}"]

    return rewritten(file, change, lambda metadata: metadata["migrations"].update(zoo=[NAMES[-3]]))


def database_file(tmp_path, *statements):
    """A copy of the database, changed by these statements."""
    path = tmp_path / "copy.sqlite3"
    connections.close_all()
    shutil.copyfile(connection.settings_dict["NAME"], path)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)
    return io.BytesIO(path.read_bytes())


def late_are_gone(before):
    """What of a snapshot comes back of a backup that was made two migrations ago."""
    return {
        label: {} if label in [f"zoo.{name}" for name in LATE] else rows for label, rows in before.items()
    }


@pytest.mark.parametrize(
    ("squashed", "deleted", "migrated"),
    [
        (6, False, True),
        (6, True, False),
        again(6, True, True),
        again(6, False, False),
        again(4, False, False),
        again(4, True, True),
    ],
)
def test_a_backup_from_before(update, squashed, deleted, migrated):
    """It is at today's schema, by another name."""
    before, made = snapshot(), take()
    last = update(squashed, deleted=deleted, migrated=migrated)
    assert not inspect(made, clear=True).metadata.upgraded
    assert services.prove_backup(made).verdict is Verdict.PROVED
    models.Shelf.objects.all().delete()
    restore(made, clear=True)
    assert not differences(before, snapshot())
    now = take()
    assert metadata_of(now)["migrations"]["zoo"] == [last]
    services.undo_restore()
    assert not models.Shelf.objects.exists()
    restore(now, clear=True)
    assert not differences(before, snapshot())


def test_an_undo_after_an_update(update):
    made = take()
    models.Shelf.objects.create(number=3, label="only in the safety copy")
    before = snapshot()
    restore(made, clear=True)
    update()
    services.undo_restore()
    assert not differences(before, snapshot())


@on_sqlite
@pytest.mark.parametrize("deleted", [False, True])
def test_a_database_file_from_before(update, tmp_path, deleted):
    before, file = snapshot(), database_file(tmp_path)
    update(deleted=deleted)
    assert inspect(file, clear=True).metadata.upgraded.migrations == []
    models.Shelf.objects.all().delete()
    restore(file, clear=True)
    assert not differences(before, snapshot())


@pytest.mark.parametrize(
    ("squashed", "deleted", "is_database"),
    [
        (6, False, False),
        again(5, False, False),
        pytest.param(4, True, True, marks=on_sqlite),
        again(2, True, False),
    ],
)
def test_one_from_the_midst_of_them(update, tmp_path, squashed, deleted, is_database):
    """It is upgraded by those that were squashed, as Django does it in place."""
    call_command(migrate.Command(), verbosity=0)  # after which the host gives groups their permissions
    before = late_are_gone(snapshot())
    if is_database:
        file = database_file(
            tmp_path,
            "PRAGMA foreign_keys = OFF",
            *(f"DROP TABLE zoo_{name}" for name in LATE),
            f"DELETE FROM django_migrations WHERE app = 'zoo' AND name > '{NAMES[-3]}'",
        )
    else:
        file = without_late(take())
    update(squashed, deleted=deleted)
    plan = inspect(file, clear=True)
    assert plan.metadata.upgraded.migrations == [f"zoo.{name}" for name in NAMES[-2:]]
    restore(file, clear=True)
    assert not differences(before, snapshot())


@pytest.mark.parametrize("is_database", [False, pytest.param(True, marks=on_sqlite)])
def test_one_from_the_midst_of_them_after_they_were_deleted(update, tmp_path, is_database):
    """Nobody knows any more what was between it and the last of them."""
    if is_database:
        names = f"'{NAMES[-1]}', '{NAMES[-2]}'"
        file = database_file(
            tmp_path, f"DELETE FROM django_migrations WHERE app = 'zoo' AND name IN ({names})"
        )
    else:
        file = without_late(take())
    update(deleted=True)
    error = refused(file, RestoreRefused, clear=True)
    assert f"zoo.{NAMES[-3]}" in error.details
    assert "squashed" in error.message


@pytest.mark.parametrize("deleted", [False, True])
def test_data_is_migrated_by_what_came_after(update, deleted):
    """Also that of a backup whose last migration is the squashed one."""
    marked = {number: f"{label}!" for number, label in labels_of_shelves().items()}
    old = take()
    squashed = update(deleted=deleted, later=True)
    new = rewritten(
        old, None, lambda metadata: metadata["migrations"].update(zoo=["0001_squashed_0006_empty"])
    )
    assert squashed == "0007_marks"
    for file in (old, new):
        restore(file, clear=True)
        assert labels_of_shelves() == marked


def test_a_backup_between_an_update_and_migrate(update):
    """The history has only the names of those that were squashed yet."""
    labels = labels_of_shelves()
    marked = {number: f"{label}!" for number, label in labels.items()}
    update(migrated=False, later=True)
    made = take()
    assert metadata_of(made)["migrations"]["zoo"] == ["0001_squashed_0006_empty"]
    assert "left_out" not in metadata_of(made)
    run_migrations()
    assert labels_of_shelves() == marked
    models.Shelf.objects.all().delete()
    restore(made, clear=True)
    assert labels_of_shelves() == marked


def test_it_is_told_where_no_migration_can_be_run(update):
    """What the last migration of a backup is, is unknown here, and so is what is yet to be done to its records."""
    labels = labels_of_shelves()
    made = rewritten(take(), None, lambda metadata: metadata["migrations"].update(zoo=["0006_of_a_fork"]))
    update(squashed=0, later=True)
    assert refused(made, RestoreRefused, clear=True).offer == "leave_out"
    options = replace(how(clear=True), leave_out=True)
    made.seek(0)
    plan = services.inspect_backup(made, options)
    assert [(place.model, place.pk, place.field) for place in plan.metadata.left_out.named] == [
        ("zoo", None, None)
    ]
    made.seek(0)
    warnings = " ".join(services.restore_backup(made, options).warnings)
    assert "zoo: its migrations are unknown here" in warnings
    assert labels_of_shelves() == labels


@on_sqlite
def test_an_app_of_a_database_file_whose_migrations_are_all_unknown(update, tmp_path):
    """Nobody knows what its tables hold."""
    call_command(migrate.Command(), verbosity=0)
    file = database_file(tmp_path, "UPDATE django_migrations SET name = 'x' || name WHERE app = 'zoo'")
    before = {label: rows for label, rows in snapshot().items() if not label.startswith("zoo.")}
    options = replace(how(clear=True, clear_unknown_apps=True), leave_out=True)
    assert refused(file, RestoreRefused, clear=True).offer == "leave_out"
    file.seek(0)
    warnings = " ".join(services.restore_backup(file, options).warnings)
    assert "zoo: this site has no place for it" in warnings
    after = snapshot()
    assert not differences(before, {label: after[label] for label in before})


@pytest.mark.skipif(connection.vendor != "sqlite", reason="no database is asked")
def test_from_beside_what_was_squashed(monkeypatch, tmp_path, settings):
    """Of two branches one was squashed, and its files were deleted, those before the branches too."""
    package = tmp_path / "zoo_branches"
    package.mkdir()
    (package / "__init__.py").touch()
    head = "from django.db import migrations\n\n\nclass Migration(migrations.Migration):\n"
    replaces = [("zoo", name) for name in ("1", "2", "3a")]
    (package / "squashed.py").write_text(f"{head}    replaces = {replaces}\n")
    (package / "3b.py").write_text(f"{head}    dependencies = [('zoo', '2')]\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings.MIGRATION_MODULES = {"zoo": package.name}
    assert schema.OtherHistory({"zoo": ["3b"]}).unknown == {("zoo", "3b")}
    assert schema.OtherHistory({"zoo": ["2"]}).unknown == {("zoo", "2")}
    assert schema.OtherHistory({"zoo": ["3a"]}).unknown == set()
    assert schema.OtherHistory({"zoo": ["3a", "3b"]}).unknown == set()

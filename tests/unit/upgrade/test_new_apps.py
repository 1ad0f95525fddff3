"""Plug-ins that came after a backup was made, or that gave their models away since."""

import io
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from core import models as core
from django.core.management import call_command
from django.core.management.commands import migrate
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from backup import services
from backup.options import SILENT
from backup.proof import Verdict
from backup.upgrade import process
from tests.support import older
from tests.support.backups import inspect, metadata_of, records_of, restore, rewritten, take
from tests.support.snapshots import differences, snapshot
from tests.zoo import migrations, models

pytestmark = pytest.mark.usefixtures("scratch")

#: Makes rows of the zoo out of notes, and one that it always makes.
MOVE = """
from django.db import migrations


def move(apps, schema_editor):
    for note in apps.get_model("core", "note").objects.all():
        apps.get_model("zoo", "shelf").objects.create(number=note.pk, label=note.note[:50])
    apps.get_model("zoo", "plate").objects.create(serial="7", text="always")


class Migration(migrations.Migration):
    dependencies = [("zoo", "{before}"), ("core", "0036_medication")]
    operations = [migrations.RunPython(move)]
"""


@pytest.fixture
def moved(family, settings, monkeypatch, tmp_path):
    """A backup of before the zoo was there, whose migrations move notes into it; they have run here."""
    file = rewritten(
        take(),
        lambda records: [records.pop(label) for label in [*records] if label.startswith("zoo.")],
        lambda metadata: metadata["migrations"].pop("zoo"),
    )
    package = tmp_path / "zoo_that_moves"
    shutil.copytree(Path(migrations.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    before = max(path.stem for path in package.glob("0*.py"))
    (package / "0007_move.py").write_text(MOVE.format(before=before))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("BACKUP_TEST_ZOO_MIGRATIONS", package.name)
    settings.MIGRATION_MODULES = {"zoo": package.name}
    call_command(migrate.Command(), verbosity=0)
    yield file
    MigrationRecorder(connection).record_unapplied("zoo", "0007_move")


def test_rows_that_its_migrations_made_of_the_data_come_back(moved):
    in_place, count = snapshot(), core.Note.objects.count()
    models.Shelf.objects.create(number=0, label="ours")
    models.Shelf.objects.exclude(pk=0).first().delete()
    models.Plate.objects.update(text="ours")
    with services.at_todays_schema(moved) as file:
        plan = inspect(file, clear=False)
        assert plan.changes["zoo.shelf"].added == 1
        assert "zoo.plate" not in plan.changes
        restore(file, clear=False)
        after = snapshot()
        assert after["zoo.shelf"] == in_place["zoo.shelf"] | {0: {"number": 0, "label": "ours"}}
        assert models.Plate.objects.get().text == "ours"
        restored = restore(file, clear=True).restored
        assert restored["zoo.shelf"] == count > 0
    assert not differences(in_place, snapshot())


def test_a_model_that_is_not_managed_any_more_is_named(family):
    record = {"model": "zoo.ghost", "pk": 1, "fields": {}}
    file = rewritten(take(), lambda records: records.update({"zoo.ghost": [record]}))
    (line,) = [line for line in inspect(file, clear=True).warnings if "zoo.ghost" in line]
    proof = services.prove_backup(file)
    assert (proof.verdict, proof.left_out) == (Verdict.PROVED, (line,))


HEAD = "from django.db import migrations, models\n"
KEY = '("id", models.BigAutoField(primary_key=True)), ("text", models.TextField())'
#: Of an app without models, one that is new, and one whose table is no longer Django's.
PLUG_INS = {
    "old_diary/models.py": "",
    "old_diary/migrations/0001_initial.py": f"""{HEAD}
class Migration(migrations.Migration):
    operations = [migrations.CreateModel("Entry", [{KEY}])]
""",
    "old_diary/migrations/0002_moved.py": """from django.db import migrations
class Migration(migrations.Migration):
    dependencies = [("old_diary", "0001_initial"), ("new_diary", "0001_initial")]
    operations = [migrations.DeleteModel("Entry")]
""",
    "new_diary/models.py": "from django.db import models\nclass Page(models.Model):\n    text = models.TextField()\n",
    "new_diary/migrations/0001_initial.py": f"""{HEAD}
def move(apps, schema_editor):
    for entry in apps.get_model("old_diary", "Entry").objects.all():
        apps.get_model("new_diary", "Page").objects.create(id=entry.id, text=entry.text)
class Migration(migrations.Migration):
    dependencies = [("old_diary", "0001_initial")]
    operations = [migrations.CreateModel("Page", [{KEY}]), migrations.RunPython(move)]
""",
    "view/models.py": "from django.db import models\nclass Sum(models.Model):\n    text = models.TextField()\n"
    "    class Meta:\n        managed = False\n",
    "view/migrations/0001_initial.py": f"""{HEAD}
class Migration(migrations.Migration):
    operations = [migrations.CreateModel("Sum", [{KEY}])]
""",
    "view/migrations/0002_view.py": """from django.db import migrations
class Migration(migrations.Migration):
    dependencies = [("view", "0001_initial")]
    operations = [migrations.AlterModelOptions("sum", {"managed": False})]
""",
}


@pytest.mark.skipif(connection.vendor != "sqlite", reason="no database is asked")
def test_models_of_a_database_file_that_are_gone(host_db, monkeypatch, tmp_path):
    for name, text in PLUG_INS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in {path.parent, tmp_path / path.relative_to(tmp_path).parts[0]}:
            (folder / "__init__.py").touch()
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("BACKUP_TEST_PLUG_INS", "old_diary,new_diary,view")
    shutil.copyfile(older.old("2.9") / "db.sqlite3", tmp_path / "db.sqlite3")
    with closing(sqlite3.connect(tmp_path / "db.sqlite3", isolation_level=None)) as database:
        for app, table in (("old_diary", "old_diary_entry"), ("view", "view_sum")):
            database.execute(
                f"CREATE TABLE {table} (id integer PRIMARY KEY AUTOINCREMENT, text text NOT NULL)"
            )
            database.execute(f"INSERT INTO {table} VALUES (3, 'a'), (5, 'b')")
            database.execute(
                "INSERT INTO django_migrations (app, name, applied) VALUES (?, '0001_initial', '2026-11-23')",
                [app],
            )
    file = io.BytesIO((tmp_path / "db.sqlite3").read_bytes())
    with process.upgraded(file) as upgraded:
        pages = {record["pk"]: record["fields"]["text"] for record in records_of(upgraded)["new_diary.page"]}
        how = metadata_of(upgraded)["upgraded"]
    assert pages == {3: "a", 5: "b"}
    assert sorted(how["left_out"]) == ["old_diary.entry", "view.sum"]
    assert "new_diary" not in how["new_apps"]


#: A child that finds its own database damaged.
DAMAGED = """
from backup.upgrade import child

def work(order, folder, reporter):
    from django.db import connection
    from backup.database import database_of
    with database_of().damage_explained():
        connection.cursor().execute("SELECT * FROM nowhere")

child.serve(work)
"""


def test_no_fault_of_a_scratch_database_is_taken_for_damage_of_the_site(monkeypatch, tmp_path):
    (tmp_path / "damaged.py").write_text(DAMAGED)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(process.Died, match="OperationalError: no such table: nowhere"):
        process.run_child("damaged", tmp_path, {}, SILENT)

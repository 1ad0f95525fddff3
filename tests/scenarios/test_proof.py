"""A backup is proved when all of it was restored elsewhere and every value came back; else it is said what is wrong."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap

import pytest
from core import models as core
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.db.migrations.recorder import MigrationRecorder
from django.urls import reverse

from backup import proof, services
from backup.conf import conf
from backup.database import database_of
from backup.exceptions import RecordsRefused
from backup.options import Phase
from backup.proof import Verdict
from backup.storage import kept
from backup.upgrade import process
from tests.support import older
from tests.support.backups import Telling, metadata_of, rewritten, spoiled, take
from tests.support.matrices import again
from tests.support.snapshots import differences, snapshot
from tests.zoo import models as zoo


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where the folders of child processes lie."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def untouched(scratch):
    """Nothing here changed, and nothing is left, whatever the proof came to."""
    before, files = snapshot(), sorted(conf.root.rglob("*"))
    cache.set("core.child.count", 41)
    yield
    assert not differences(before, snapshot())
    assert cache.get("core.child.count") == 41
    assert sorted(conf.root.rglob("*")) == files
    assert [*scratch.iterdir()] == []


def test_a_good_backup_is_proved(filled, untouched):
    file = take()
    found = services.prove_backup(file)
    assert (found.verdict, found.reason) == (Verdict.PROVED, "")
    assert found.records == metadata_of(file)["total_records"] > 1000


@pytest.mark.parametrize("name", ["backup.zip", again("db.sqlite3")])
def test_older_backups_are_proved_through_their_upgrade(host_db, scratch, name):
    with (older.old("2.6.0") / name).open("rb") as file:
        found = services.prove_backup(file)
    assert (found.verdict, found.reason) == (Verdict.PROVED, "")
    assert found.records > 100


@pytest.mark.parametrize("rows", [0, 1])
def test_what_sqlite_has_no_table_for_is_not_called_proved(family, scratch, monkeypatch, rows):
    """That of a model for other databases only. One without rows does no harm."""
    zoo.Shelf.objects.bulk_create(zoo.Shelf(number=number) for number in range(rows))
    file = take()
    monkeypatch.setenv("BACKUP_TEST_SHELF_VENDOR", "oracle")
    found = services.prove_backup(file)
    if rows:
        assert found.verdict is Verdict.UNKNOWN
        assert "zoo.shelf cannot be stored in SQLite" in found.reason
    else:
        assert (found.verdict, found.reason) == (Verdict.PROVED, "")


def test_a_database_file_of_today_is_proved(host_db, scratch, tmp_path):
    """No migration is to run, which would make the tables. One of them has a JSON field and so a constraint by
    JSON_VALID."""
    path = tmp_path / "db.sqlite3"
    shutil.copyfile(older.updated_in_place("2.6.0"), path)
    with path.open("rb") as file:
        found = services.prove_backup(file)
    assert (found.verdict, found.reason) == (Verdict.PROVED, "")
    assert found.records > 100


# --- At fault -----------------------------------------------------------------------------------------------


def damaged():
    return io.BytesIO(spoiled(take().getvalue()))


def change(model, **fields):
    """A backup, sound by its checksums, in whose first record of the model other values stand."""

    def change(records):
        records[model][0]["fields"].update(fields)

    return rewritten(take(), change)


def twice():
    def add(records):
        records["core.tag"].append({**records["core.tag"][0], "pk": 10_000})

    return rewritten(take(), add)


FAULTS = {
    "a damaged byte": (damaged, ""),
    "no backup": (lambda: io.BytesIO(b"no"), ""),
    "a value of another type": (lambda: change("core.feeding", amount="much"), "core.feeding .*amount"),
    "a record that the database refuses": (twice, "core.tag 10000"),
    "a reference to nothing": (lambda: change("core.feeding", child=4711), "core.feeding .*4711"),
    "a value that the host does not take": (
        lambda: change("core.child", first_name=""),
        "core.child .*first_name",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_at_fault_fails(filled, scratch, fault):
    make, where = FAULTS[fault]
    file = make()
    before = snapshot()
    found = services.prove_backup(file)
    assert found.verdict is Verdict.FAILED
    assert found.reason
    assert re.search(where, found.reason), found.reason
    assert not differences(before, snapshot())
    assert [*scratch.iterdir()] == []


#: A fault of our own -> what it does in the child, once the modules of a restore are loaded; where it is found.
OUR_FAULTS = {
    "microseconds are lost": (
        """
        from backup.database import sqlite
        spaced = sqlite._spaced
        sqlite._spaced = lambda values: [v and v.partition(".")[0] for v in spaced(values)]
        """,
        "core.*another value",
    ),
    "relations are lost": (
        """
        from backup.database.sqlite import SQLite
        insert = SQLite.insert_packed_rows
        SQLite.insert_packed_rows = lambda self, db_table, *args: (
            db_table == "auth_group_permissions" or insert(self, db_table, *args)
        )
        """,
        "auth.group.*permissions.*another value",
    ),
    "rows are lost": (
        """
        from backup.database.sqlite import SQLite
        insert = SQLite.insert_packed_rows
        SQLite.insert_packed_rows = lambda self, db_table, *args: (
            db_table == "core_tagged" or insert(self, db_table, *args)
        )
        """,
        "core.tagged.*one of them only",
    ),
    "a row is added": (
        """
        from backup.database.sqlite import SQLite
        fill = SQLite.check_deferred_constraints
        SQLite.check_deferred_constraints = lambda self: (
            fill(self), self.execute("INSERT INTO auth_group VALUES (4711, 'x')")
        )
        """,
        "auth.group 4711.*one of them only",
    ),
}


@pytest.mark.parametrize("fault", OUR_FAULTS)
def test_a_restore_that_lost_something_would_be_found(filled, scratch, child_with, fault):
    code, where = OUR_FAULTS[fault]
    child_with(code)
    found = services.prove_backup(take())
    assert found.verdict is Verdict.FAILED
    assert re.search(where, found.reason, re.DOTALL), found.reason


@pytest.fixture
def child_with(monkeypatch, tmp_path):
    """Has the child run some code before it restores."""
    fault = tmp_path / "faulty" / "sitecustomize.py"
    fault.parent.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(fault.parent))
    monkeypatch.syspath_prepend(fault.parent)
    return lambda code: fault.write_text(FAULTY % textwrap.indent(textwrap.dedent(code), " " * 12))


FAULTY = """
import sys
from importlib.abc import MetaPathFinder

class Break(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "backup.restore.apply":
            sys.meta_path.remove(self)
%s

sys.meta_path.insert(0, Break())
"""


def test_what_pointed_at_nothing_here_already_is_no_fault_of_the_backup(family, scratch):
    if not database_of().takes_dangling:
        pytest.skip("it takes none")
    with connection.constraint_checks_disabled():
        core.Feeding.objects.filter(pk=core.Feeding.objects.first().pk).update(child_id=4711)
    file = take()
    assert metadata_of(file)["dangling"]["total"] == 1
    found = services.prove_backup(file)
    assert (found.verdict, found.reason) == (Verdict.PROVED, "")


# --- It could not be told -----------------------------------------------------------------------------------


def test_a_value_that_sqlite_cannot_hold(filled, untouched):
    found = services.prove_backup(change("core.temperature", temperature="NaN"))
    assert found.verdict is Verdict.UNKNOWN
    assert "core.temperature" in found.reason
    assert "NaN" in found.reason


@pytest.mark.parametrize("error", ["KeyError('ours')", "MemoryError()"])
def test_an_error_of_our_own_says_nothing_about_the_file(family, untouched, child_with, error):
    child_with(
        f"""
        from backup.database.base import Database
        def clear(self, tables):
            raise {error}
        Database.clear = clear
        """
    )
    found = services.prove_backup(take())
    assert found.verdict is Verdict.UNKNOWN
    assert error.partition("(")[0] in found.reason


@pytest.mark.parametrize(
    ("trouble", "verdict"),
    [("fail", Verdict.FAILED), ("take all memory", Verdict.UNKNOWN), again("die", Verdict.UNKNOWN)],
)
def test_a_migration_that_fails_is_about_the_data_and_one_that_lacks_memory_is_not(
    host_db, scratch, monkeypatch, trouble, verdict
):
    monkeypatch.setenv("BACKUP_TEST_TROUBLE", trouble)
    with (older.old("2.6.0") / "backup.zip").open("rb") as file:
        found = services.prove_backup(file)
    assert found.verdict is verdict, found.reason


def test_a_database_that_is_written_to_while_it_is_copied(host_db, untouched, tmp_path):
    path = tmp_path / "db.sqlite3"
    shutil.copyfile(older.old("2.6.0") / "db.sqlite3", path)

    class Written(io.FileIO):
        def read(self, *args):
            os.utime(path)
            return super().read(*args)

    with Written(path) as file:
        found = services.prove_backup(file, path=path)
    assert found.verdict is Verdict.UNKNOWN
    assert "written to while" in found.reason


def test_a_newer_backup(family, untouched):
    def newer(metadata):
        metadata["migrations"]["core"] = ["0999_new"]

    found = services.prove_backup(rewritten(take(), change_metadata=newer))
    assert found.verdict is Verdict.UNKNOWN
    assert "core.0999_new" in found.reason


def test_no_time(family, untouched, monkeypatch):
    monkeypatch.setattr(type(conf), "upgrade_seconds", 0.2)
    found = services.prove_backup(take())
    assert found.verdict is Verdict.UNKNOWN
    assert "BACKUP_UPGRADE_SECONDS" in found.reason


def test_no_room(family, untouched, monkeypatch):
    """Before it begins: nothing is written."""
    monkeypatch.setattr(proof, "ROOM", 10**12)
    monkeypatch.setattr(process, "run_child", None)
    found = services.prove_backup(take())
    assert found.verdict is Verdict.UNKNOWN
    assert "room" in found.reason


def test_a_child_that_is_killed(filled, untouched):
    def kill(label, done, total):
        for pid in provers():
            os.kill(pid, signal.SIGKILL)

    found = services.prove_backup(take(), reporter=Telling(kill))
    assert found.verdict is Verdict.UNKNOWN
    assert "SIGKILL" in found.reason


def provers():
    """The numbers of the child processes of this one that prove a backup."""
    command = ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if line.endswith(proof.CHILD)]


# --- What the server keeps ----------------------------------------------------------------------------------


def test_the_verdict_lies_beside_the_file(family, scratch, monkeypatch):
    name = services.keep_backup().name
    assert kept.find(name).proof is None
    proved = services.prove_kept(name)
    stored = kept.find(name)
    assert stored.proof == proved.as_json()
    assert stored.as_json()["proof"] == {"verdict": "proved", "at": proved.at, "records": stored.records}
    # Where nothing could be told, the last verdict stands.
    monkeypatch.setattr(type(conf), "upgrade_seconds", 0.1)
    assert services.prove_kept(name).verdict is Verdict.UNKNOWN
    assert kept.find(name).proof == proved.as_json()
    kept.delete(name)
    assert not [*conf.root.rglob("*babybuddy_*")]


def test_what_failed_stands_until_it_is_proved(family, scratch, monkeypatch):
    name = services.keep_backup().name
    (path,) = conf.root.rglob(name)
    good = path.read_bytes()
    path.write_bytes(spoiled(good))
    assert services.prove_kept(name).verdict is Verdict.FAILED
    with monkeypatch.context() as patch:
        patch.setattr(type(conf), "upgrade_seconds", 0.1)
        services.prove_kept(name)
        path.write_bytes(good)
        services.prove_kept(name)
    assert kept.find(name).proof["verdict"] == "failed"
    assert services.prove_kept(name).verdict is Verdict.PROVED
    assert kept.find(name).proof["verdict"] == "proved"


DAMAGED_NOTES = [
    {"verdict": "proved", "at": "yesterday", "records": 5},
    {"verdict": "?", "at": "2026-11-24T03:00:00+00:00", "records": 5},
    {"verdict": "proved", "at": "2026-11-24T03:00:00", "records": 5},
    {"verdict": "proved", "at": "2026-11-24T03:00:00+00:00", "records": "many"},
    {"verdict": "failed", "at": 5, "records": 5},
    {"verdict": "proved", "at": "2026-11-24T03:00:00+00:00", "records": 5, "photos": None},
]


def test_a_note_that_is_damaged_takes_no_page_down(family, client):
    client.force_login(family.admin)
    name = services.keep_backup(kept.BackupKind.AUTOMATIC).name
    for note in DAMAGED_NOTES:
        kept.note(name, proofs={"local": note}, proof_tried={"local": note["at"]})
        assert client.get(reverse("backup:index")).status_code == 200, note
        assert client.get(reverse("backup:status")).json()["proof"] is None, note
        assert kept.find(name).proof is None, note
    services.prove_kept(name)
    assert kept.find(name).proof["verdict"] == "proved"


def test_a_note_of_a_newer_version_is_read(family, client):
    client.force_login(family.admin)
    name = services.keep_backup().name
    proof = services.prove_kept(name).as_json()
    kept.note(name, proofs={"local": {**proof, "seconds": 3}})
    assert "Proved on" in client.get(reverse("backup:index")).content.decode()


# --- Commands -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_exits_with_1_unless_proved(family, scratch, tmp_path):
    path = tmp_path / "backup.zip"
    out = io.StringIO()
    name = services.keep_backup().name
    call_command("prove_backup", name, stdout=out)
    assert "came back identical" in out.getvalue()
    assert kept.find(name).proof["verdict"] == "proved"
    path.write_bytes(damaged().getvalue())
    with pytest.raises(CommandError, match="no longer there"):
        call_command("prove_backup", "nothing.zip", stdout=out)
    connections.close_all()
    command = [sys.executable, "manage.py", "prove_backup", str(path)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert re.search("Failed: .*damaged", done.stderr)


def test_a_site_that_is_not_migrated_yet_gives_no_verdict(family):
    """After an update, a good backup would be found to have other values: those that a migration changes."""
    migrations = MigrationRecorder(connection).migration_qs
    migrations.filter(pk=migrations.filter(app="core").latest("pk").pk).delete()
    proved = services.prove_backup(take())
    assert proved.verdict is Verdict.UNKNOWN
    assert "manage.py migrate" in proved.reason


def test_two_backups_are_compared(filled, untouched, tmp_path):
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    first.write_bytes(take().getvalue())
    counts = {"added": 1, "changed": 1, "removed": 1}

    def changed(records):
        feedings = records["core.feeding"]
        feedings[0]["fields"]["notes"] = "another"
        gone = feedings.pop()
        records["core.feeding"] = [*feedings, {**gone, "pk": gone["pk"] + 1}]
        records["core.tagged"] = [r for r in records["core.tagged"] if r["fields"]["object_id"] != gone["pk"]]

    second.write_bytes(rewritten(take(), changed).getvalue())
    with first.open("rb") as one, second.open("rb") as two:
        changes = services.compare_backups(one, two)
    assert changes["core.feeding"] == {**counts, "unchanged": core.Feeding.objects.count() - 2}
    assert changes["core.note"]["unchanged"] == core.Note.objects.count()
    out = io.StringIO()
    call_command("compare_backups", str(first), str(second), stdout=out)
    line = next(line for line in out.getvalue().splitlines() if line.startswith("core.feeding "))
    assert line.split()[1:] == [str(n) for n in (1, 1, core.Feeding.objects.count() - 2, 1)]


def test_a_value_that_cannot_be_compared(filled, scratch):
    """It is SQLite that cannot hold it, and not the database of the site."""
    with pytest.raises(RecordsRefused) as caught:
        services.compare_backups(change("core.temperature", temperature="NaN"), take())
    assert str(caught.value).startswith("core.temperature ")
    assert str(caught.value).endswith("NaN cannot be stored in SQLite, where backups are compared")


def test_progress_is_told(filled, scratch):
    seen = []
    phases = []
    reporter = Telling(lambda *step: seen.append(step))
    reporter.phase = phases.append
    services.prove_backup(take(), reporter=reporter)
    assert {"core.feeding", "core.note"} <= {label for label, _done, _total in seen}
    assert all(done <= total for _label, done, total in seen)
    assert not [phase for phase in phases if not isinstance(phase, Phase)]

"""A backup is proved when all of it was restored elsewhere and every value came back; else it is said what is wrong."""

import io
import os
import re
import signal
import subprocess
import sys
import tempfile

import pytest
from core import models as core
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.db import connections

from backup import proof, services
from backup.conf import conf
from backup.options import Phase
from backup.proof import Verdict
from backup.storage import kept
from backup.upgrade import process
from tests.support import older
from tests.support.backups import Telling, metadata_of, rewritten, take
from tests.support.snapshots import differences, snapshot


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where the folders of child processes lie."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    tempfile.tempdir = None


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


@pytest.mark.parametrize("name", ["backup.zip", "db.sqlite3"])
def test_older_backups_are_proved_through_their_upgrade(host_db, scratch, name):
    with (older.old("2.6.0") / name).open("rb") as file:
        found = services.prove_backup(file)
    assert (found.verdict, found.reason) == (Verdict.PROVED, "")
    assert found.records > 100


# --- At fault -----------------------------------------------------------------------------------------------


def damaged():
    data = bytearray(take().getvalue())
    data[len(data) // 2] ^= 0xFF
    return io.BytesIO(data)


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


def test_a_restore_that_lost_something_would_be_found(filled, scratch, monkeypatch, tmp_path):
    """A fault of our own: the child's writer leaves the microseconds of all moments out."""
    fault = tmp_path / "faulty" / "sitecustomize.py"
    fault.parent.mkdir()
    fault.write_text(FAULTY)
    monkeypatch.setenv("PYTHONPATH", str(fault.parent))
    monkeypatch.syspath_prepend(fault.parent)
    found = services.prove_backup(take())
    assert found.verdict is Verdict.FAILED
    assert "another value" in found.reason
    assert "core." in found.reason


FAULTY = """
import sys
from importlib.abc import MetaPathFinder

class Break(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "backup.restore.apply":
            sys.meta_path.remove(self)
            from backup.database import sqlite
            spaced = sqlite._spaced
            sqlite._spaced = lambda values: [v and v.partition(".")[0] for v in spaced(values)]

sys.meta_path.insert(0, Break())
"""


# --- It could not be told -----------------------------------------------------------------------------------


def test_a_value_that_sqlite_cannot_hold(filled, untouched):
    found = services.prove_backup(change("core.temperature", temperature="NaN"))
    assert found.verdict is Verdict.UNKNOWN
    assert "core.temperature" in found.reason
    assert "NaN" in found.reason


def test_a_newer_backup(filled, untouched):
    def newer(metadata):
        metadata["migrations"]["core"] = ["0999_new"]

    found = services.prove_backup(rewritten(take(), change_metadata=newer))
    assert found.verdict is Verdict.UNKNOWN
    assert "core.0999_new" in found.reason


def test_no_time(filled, untouched, monkeypatch):
    monkeypatch.setattr(type(conf), "upgrade_seconds", 0.2)
    found = services.prove_backup(take())
    assert found.verdict is Verdict.UNKNOWN
    assert "BACKUP_UPGRADE_SECONDS" in found.reason


def test_no_room(filled, untouched, monkeypatch):
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


def test_the_verdict_lies_beside_the_file(filled, scratch, monkeypatch):
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


def test_what_failed_stands_until_it_is_proved(filled, scratch, monkeypatch):
    name = services.keep_backup().name
    (path,) = conf.root.rglob(name)
    good = path.read_bytes()
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 1
    path.write_bytes(bad)
    assert services.prove_kept(name).verdict is Verdict.FAILED
    with monkeypatch.context() as patch:
        patch.setattr(type(conf), "upgrade_seconds", 0.1)
        services.prove_kept(name)
        path.write_bytes(good)
        services.prove_kept(name)
    assert kept.find(name).proof["verdict"] == "failed"
    assert services.prove_kept(name).verdict is Verdict.PROVED
    assert kept.find(name).proof["verdict"] == "proved"


# --- Commands -----------------------------------------------------------------------------------------------


def test_the_command_exits_with_1_unless_proved(filled, scratch, tmp_path):
    path = tmp_path / "backup.zip"
    path.write_bytes(take().getvalue())
    out = io.StringIO()
    call_command("prove_backup", str(path), stdout=out)
    assert "came back identical" in out.getvalue()
    name = services.keep_backup().name
    call_command("prove_backup", name, stdout=out)
    assert kept.find(name).proof["verdict"] == "proved"
    path.write_bytes(damaged().getvalue())
    with pytest.raises(CommandError, match="no longer there"):
        call_command("prove_backup", "nothing.zip", stdout=out)
    connections.close_all()
    command = [sys.executable, "manage.py", "prove_backup", str(path)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert re.search("Failed: .*damaged", done.stderr)


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


def test_progress_is_told(filled, scratch):
    seen = []
    phases = []
    reporter = Telling(lambda *step: seen.append(step))
    reporter.phase = phases.append
    services.prove_backup(take(), reporter=reporter)
    assert {"core.feeding", "core.note"} <= {label for label, _done, _total in seen}
    assert all(done <= total for _label, done, total in seen)
    assert not [phase for phase in phases if not isinstance(phase, Phase)]

"""Whatever goes wrong in a restore, the data is the old or the new, whole: every value is compared.

Faults of all kinds, at all places: errors after each model and before the end, disks that are full or cannot be
written, and processes that are killed at any moment.
"""

import json
import os
import queue
import random
import signal
import sqlite3
import sys
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from threading import Timer

import django
import pytest
from core import models as core
from django.contrib.auth.models import User
from django.core import mail
from django.core.files.base import ContentFile
from django.core.files.storage import InMemoryStorage
from django.core.management import CommandError, call_command
from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, connections
from django.utils import timezone
from freezegun import freeze_time

from backup import babybuddy, restoring, services
from backup.automatic import copies, notices, status
from backup.conf import conf
from backup.database import VENDORS, Database, Job, database_of
from backup.exceptions import BackupError, Busy, InvalidBackup, StorageFailed
from backup.options import Phase, Silent
from backup.storage import files, kept, state
from backup.storage.atomic import ABANDONED, PARTIAL
from backup.upgrade import process as upgrading
from backup.upgrade.process import scratch_folder
from tests.support import older
from tests.support.backups import Telling, how, metadata_of, refused, restore, take
from tests.support.matrices import ALL, again
from tests.support.processes import ask, hear, lose_locks, process, wait_until_usable
from tests.support.snapshots import differences, snapshot

ENGINE = connection.vendor


class Unforeseen(Exception):
    pass


@pytest.fixture
def changed(family):
    """(a backup, the state that it holds, another state, which is here now)."""
    file, then = take(), snapshot()
    core.Feeding.objects.all().delete()
    core.Note.objects.update(note="changed")
    core.Child(first_name="New", last_name="Baby", birth_date="2026-03-01").save()
    User.objects.update(first_name="changed")
    return file, then, snapshot()


def nothing_is_left():
    assert kept.backups() == []
    assert [path.name for path in conf.root.rglob("*.*")] == []


# --- Errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clear", [True, False], ids=["clear", "overwrite"])
def test_an_error_after_each_model(changed, clear):
    """A programming error, say."""
    file, _, now = changed
    labels = list(metadata_of(file)["models"])
    is_each = clear and ALL and ENGINE == "sqlite"  # which model it is matters to no server
    told = []
    for label in labels if is_each else labels[::4]:

        def fails(at, done, total, label=label):
            if at == label:
                told.append(at)
                raise Unforeseen

        with suppress(Unforeseen):
            restore(file, clear=clear, reporter=Telling(fails))
            assert not metadata_of(file)["models"][label]["records"], "it is not told of empty models"
            services.undo_restore()
        assert not differences(now, snapshot()), label
        for copy in kept.backups() if label not in told else ():
            kept.delete(copy.name)
        assert kept.backups() == [], label
    assert len(told) > (10 if is_each else 3)


@pytest.mark.parametrize("clear", [True, False], ids=["clear", "overwrite"])
def test_an_error_before_the_end(changed, clear, monkeypatch):
    file, then, now = changed
    engine = type(database_of())
    for name in ("reset_sequences", "check_deferred_constraints"):
        real = getattr(engine, name)

        def fails(*args, real=real):
            real(*args)
            raise Unforeseen

        with monkeypatch.context() as patch:
            patch.setattr(engine, name, fails)
            with pytest.raises(Unforeseen):
                restore(file, clear=clear)
        assert not differences(now, snapshot())
    restore(file, clear=True)
    assert not differences(then, snapshot())


def test_an_error_after_the_end_is_told_and_no_failure(changed, monkeypatch):
    """The data is there, so it must not be said that nothing was changed."""
    file, then, now = changed

    def fails(*args):
        raise Unforeseen

    def full(**how):
        raise StorageFailed("No space is left.")

    monkeypatch.setattr(babybuddy, "drop_caches", fails)
    monkeypatch.setattr(kept, "prune", full)
    result = restore(file, clear=True)
    assert any("Restart" in line for line in result.warnings)
    assert "No space is left." in result.warnings
    assert not differences(then, snapshot())
    services.undo_restore()
    assert not differences(now, snapshot())


#: An error of each engine that says that the connection is gone, or that others hold the database.
LOST = {"sqlite": "database is locked", "postgresql": None, "mysql": 2013}


class Ending:
    """Makes the COMMIT of a restore fail after the server has, or has not, carried it out. `answers`: whether the
    database answers afterwards."""

    def __init__(self, monkeypatch, *, carried_out, answers=True):
        wrapper = connections[DEFAULT_DB_ALIAS]
        commit, ended = wrapper._commit, []

        def lost():
            if ended:
                return commit()
            ended.append(True)
            if carried_out:
                commit()
            if not answers:
                monkeypatch.setattr(state, "load_last_restore", self._does_not_answer)
            raise error_of_the_driver(LOST[ENGINE])

        monkeypatch.setattr(wrapper, "_commit", lost)
        monkeypatch.setattr(Database, "LOCK_SECONDS", 1)

    def _does_not_answer(self):
        raise Busy("The server starts.")


@pytest.mark.parametrize("what", ["restore", "undo", "empty"])
def test_a_commit_without_an_answer_is_carried_out_or_not(changed, monkeypatch, what):
    """A connection that breaks at COMMIT says nothing of whether the server has carried it out. The database does."""
    file, then, now = changed
    core.Note.objects.update(image="gone.png")
    now, ends, back = snapshot(), then, services.undo_restore
    if what == "undo":
        restore(file, clear=True)
        now, then, ends, back = then, now, now, lambda: restore(file, clear=True)

    def act():
        if what == "restore":
            restore(file, clear=True)
        elif what == "undo":
            services.undo_restore()
        else:
            services.empty_missing_files()

    with monkeypatch.context() as patch:
        Ending(patch, carried_out=False)
        with pytest.raises(BackupError):
            act()
    assert not differences(now, snapshot())
    with monkeypatch.context() as patch:
        Ending(patch, carried_out=True)
        act()
    if what == "empty":
        assert not core.Note.objects.filter(image="gone.png").exists()
    else:
        assert not differences(ends, snapshot())
    back()
    assert not differences(now, snapshot())


def break_at_commit(patch, then):
    """Let the connection break at the next COMMIT, of which the server does not hear. `then` gets what is broken."""
    wrapper = connections[DEFAULT_DB_ALIAS]
    commit = wrapper._commit

    def lost():
        patch.setattr(wrapper, "_commit", commit)
        broken, wrapper.connection = wrapper.connection, None
        then(broken)
        raise error_of_the_driver(LOST[ENGINE])

    patch.setattr(wrapper, "_commit", lost)


@pytest.mark.skipif(ENGINE == "sqlite", reason="it has no connection that could break")
def test_a_commit_that_comes_late_is_waited_for(changed, monkeypatch):
    """The connection breaks, and the server only hears of the COMMIT, or gets to it, some time later."""
    file, then, now = changed

    def carry_out(broken):
        broken.commit()
        broken.close()

    with monkeypatch.context() as patch:
        break_at_commit(patch, lambda broken: Timer(1, carry_out, [broken]).start())
        restore(file, clear=True)
    assert not differences(then, snapshot())
    services.undo_restore()
    assert not differences(now, snapshot())


@pytest.mark.skipif(ENGINE == "sqlite", reason="it has no connection that could break")
def test_a_commit_that_does_not_come_is_not_waited_for_long(changed, monkeypatch):
    file, _then, now = changed
    broken = []
    with monkeypatch.context() as patch:
        patch.setattr(Database, "LOCK_SECONDS", 1)
        break_at_commit(patch, broken.append)
        begin = time.monotonic()
        with pytest.raises(Busy, match="not known whether this was done") as unknown:
            restore(file, clear=True)
        assert time.monotonic() - begin < 20
    assert "Nothing was changed" not in unknown.value.message
    broken[0].rollback()
    broken[0].close()
    assert not differences(now, snapshot())


@pytest.mark.skipif(ENGINE == "sqlite", reason="it has no connection that could break")
def test_others_who_write_hide_no_commit(changed, monkeypatch):
    file, then, _now = changed
    wrapper = connections[DEFAULT_DB_ALIAS]
    with closing(wrapper.copy()) as other, monkeypatch.context() as patch:
        other.ensure_connection()
        ends = Timer(4, other.connection.rollback)
        patch.setattr(Database, "LOCK_SECONDS", 1)
        commit = wrapper._commit

        def lost():
            patch.setattr(wrapper, "_commit", commit)
            commit()
            other.set_autocommit(False)
            with other.cursor() as cursor:
                cursor.execute("UPDATE core_note SET note = note")
            ends.start()
            raise error_of_the_driver(LOST[ENGINE])

        patch.setattr(wrapper, "_commit", lost)
        restore(file, clear=True)
        ends.join()
    assert not differences(then, snapshot())


@pytest.mark.skipif(ENGINE == "sqlite", reason="it has no connection that could break")
@pytest.mark.parametrize("carried_out", [True, False])
def test_a_server_that_takes_no_locks_afterwards(changed, monkeypatch, carried_out):
    """The one that took over after a failover may only be read."""
    file, then, now = changed
    wrapper = connections[DEFAULT_DB_ALIAS]
    commit = wrapper._commit

    def fails(database, _tables):
        database.execute("SELECT 1 FROM nothing")

    with monkeypatch.context() as patch:

        def lost():
            patch.setattr(wrapper, "_commit", commit)
            if carried_out:
                commit()
            patch.setattr(type(database_of()), "lock_out_writers", fails)
            raise error_of_the_driver(LOST[ENGINE])

        patch.setattr(wrapper, "_commit", lost)
        if carried_out:
            restore(file, clear=True)
        else:
            with pytest.raises(Busy, match="not known whether this was done"):
                restore(file, clear=True)
    assert not differences(then if carried_out else now, snapshot())


@pytest.mark.parametrize("carried_out", [True, False])
def test_where_the_end_is_uncertain_the_safety_copy_stays(changed, monkeypatch, carried_out):
    file, then, now = changed
    with monkeypatch.context() as patch:
        Ending(patch, carried_out=carried_out, answers=False)
        with pytest.raises(Busy, match="not known whether this was done"):
            restore(file, clear=True)
    assert not differences(then if carried_out else now, snapshot())
    assert len(kept.backups()) == 1
    if carried_out:
        services.undo_restore()
        assert not differences(now, snapshot())


def test_a_connection_that_breaks_after_the_end_is_no_failure(changed, monkeypatch):
    file, then, now = changed

    def breaks(database):
        raise error_of_the_driver(LOST[ENGINE])

    monkeypatch.setattr(restoring, "files_here", breaks)
    restore(file, clear=True)
    assert not differences(then, snapshot())
    services.undo_restore()
    assert not differences(now, snapshot())


# --- Disks ------------------------------------------------------------------------------------------------


#: Places where nobody can write, root neither: a file is in the way, or the system does not take files.
NO_FOLDERS = [
    Path(__file__) / "backups",
    Path("/dev/full/backups"),
    Path("/proc/backups"),
    Path("/sys/backups"),
]


@pytest.mark.parametrize("root", NO_FOLDERS, ids=str)
def test_a_safety_copy_that_cannot_be_written(changed, settings, root):
    file, _, now = changed
    settings.BACKUP_ROOT = root
    with pytest.raises(StorageFailed, match="BACKUP_ROOT") as caught:
        restore(file, clear=True)
    assert caught.value.status == 507
    assert not differences(now, snapshot())


class Lossy(InMemoryStorage):
    """A disk that says that all is well, and keeps half."""

    def _save(self, name, content):
        return super()._save(name, ContentFile(content.read()[: content.size // 2]))


def test_a_safety_copy_that_is_not_whole(changed, settings):
    """What is verified is what was kept."""
    file, _, now = changed
    settings.STORAGES = {**settings.STORAGES, "backups": {"BACKEND": "tests.scenarios.test_faults.Lossy"}}
    with pytest.raises(InvalidBackup):
        restore(file, clear=True)
    assert not differences(now, snapshot())
    nothing_is_left()


def test_a_safety_copy_that_fails_half_way(changed, monkeypatch):
    file, _, now = changed

    def breaks(self, chunk_size=None):
        yield b"PK"
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("django.core.files.base.File.chunks", breaks)
        with pytest.raises(StorageFailed, match="No space left"):
            restore(file, clear=True)
    assert not differences(now, snapshot())
    nothing_is_left()


def test_no_place_for_temporary_files(changed, monkeypatch):
    file, _, now = changed
    monkeypatch.setattr("tempfile.tempdir", "/dev/full")
    for act in (lambda: restore(file, clear=True), lambda: restore(file, clear=False)):
        with pytest.raises(StorageFailed, match="Nothing was changed"):
            act()
    assert not differences(now, snapshot())


LIMITED = """
    import resource, sys
    from backup import services
    from backup.exceptions import BackupError
    from tests.support.backups import how

    for line in sys.stdin:
        path, clear, limit = line.split()
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
        try:
            with open(path, "rb") as file:
                services.restore_backup(file, how(clear=clear == "True"))
            answer = "done"
        except BackupError as error:
            answer = f"{error.code} {error.message}"
        except Exception as error:
            answer = f"unexpected {error!r}"
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        print(" ".join(answer.split()), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits are POSIX's")
def test_a_disk_that_is_full_at_any_point(changed, tmp_path):
    """No file may grow beyond the limit: temporary ones, the safety copy, on SQLite the database and its journal."""
    file, then, now = changed
    path = tmp_path / "backup.zip"
    path.write_bytes(file.getvalue())
    connections.close_all()
    answers = set()
    with process(LIMITED) as limited:
        for clear in (True, False):
            for limit in (0, 100, 5_000, 20_000, 80_000, 300_000, 700_000):
                answer = ask(limited, f"{path} {clear} {limit}")
                code = answer.split()[0]
                answers.add(code)
                if code == "done":
                    now = snapshot()
                    break
                assert code in ("storage_failed", "busy"), answer
                assert not differences(now, snapshot()), limit
                assert not list(conf.root.rglob("*.part"))
                for copy in kept.backups():  # kept where it failed at the very end
                    with kept.open_backup(copy.name) as kept_file:
                        services.verify_backup(kept_file)
                connections.close_all()
    assert "storage_failed" in answers
    restore(file, clear=True)  # there is room again
    assert not differences(then, snapshot())


# --- Processes that are killed ----------------------------------------------------------------------------

#: Django is set up once; each command runs in a copy of this process.
COMMANDER = """
    import json, os, sys, tempfile
    from django.core.management import call_command

    tempfile.gettempdir()  # Python tries out once whether it can write there
    for line in sys.stdin:
        arguments = json.loads(line)
        pid = os.fork()
        if not pid:
            call_command("restore", *arguments, "--no-input", stdout=open(os.devnull, "w"))
            os._exit(0)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
#: Fewer on a server, which goes on running.
MOMENTS = 24 if ENGINE == "sqlite" else 12


class Commander:
    """Runs `manage.py restore` in a process of its own, which may be killed."""

    def __init__(self, child):
        self._child = child

    def run(self, *arguments, delay=None):
        """How it ended, and how long it took. `delay`: it is killed after so many seconds."""
        started = time.monotonic()
        pid = int(ask(self._child, json.dumps([*map(str, arguments)])))
        if delay is not None:
            time.sleep(delay)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended = int(hear(self._child))
        assert ended in (0, -signal.SIGKILL)
        return ended, time.monotonic() - started


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files, of processes that are started from here on as well."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def is_whole(copies):
    for copy in copies:
        with kept.open_backup(copy.name) as file:
            services.verify_backup(file)


def nothing_half_done_is_left(temporary):
    """Once it is so old that nobody may be at it any more, the next one removes it."""
    with freeze_time(timezone.now() + timedelta(days=2)):
        services.kept_backups()
        with scratch_folder():
            pass
    assert not list(conf.root.rglob("*.part"))
    # SQLite opens a file of its own and takes its name away at once; who is killed in between leaves it empty.
    left = [path for path in temporary.iterdir() if not path.name.startswith("etilqs_")]
    assert not left


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and forks are POSIX's")
def test_killed_at_any_moment(changed, tmp_path, temporary):
    file, then, now = changed
    paths = [tmp_path / "then.zip", tmp_path / "now.zip"]
    paths[0].write_bytes(file.getvalue())
    paths[1].write_bytes(take().getvalue())
    states = [then, now]
    moments = random.Random(5)
    here = killed = 0
    connections.close_all()
    with process(COMMANDER) as child:
        commander = Commander(child)
        for here in (0, 1):
            ended, whole = commander.run(paths[here], "--clear")
            assert ended == 0
        assert not differences(states[1], snapshot())
        for number in range(MOMENTS):
            connections.close_all()
            delay = whole * (number + moments.random()) / MOMENTS
            ended, took = commander.run(paths[1 - here], "--clear", delay=delay)
            if ended == 0:  # it is warm now
                whole = min(whole, took)
            killed += ended != 0
            wait_until_usable()
            present = snapshot()
            if differences(states[here], present):
                here = 1 - here
            assert not differences(states[here], present), "neither the old nor the new"
            is_whole(kept.backups())
        assert killed > MOMENTS / 2
        connections.close_all()
        assert commander.run(paths[1 - here], "--clear")[0] == 0, "no lock is stale"
    assert not differences(states[1 - here], snapshot())
    nothing_half_done_is_left(temporary)
    assert len(kept.backups()) <= 5


OLD = older.old("2.6.0") / "backup.zip"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and forks are POSIX's")
@pytest.mark.parametrize(
    ("arguments", "moments"),
    [
        pytest.param([OLD, "--clear", "--clear-unknown-apps"], 3, id="upgrade"),
        pytest.param(["--undo"], 10 if ENGINE == "sqlite" else 5, id="undo"),
        again([OLD, "--dry-run"], 2, id="preview"),
    ],
)
def test_killed_in_the_middle(changed, tmp_path, temporary, arguments, moments):
    """Of an upgrade, and the restore of it; of an undo; of a preview of what has to be upgraded."""
    file, then, now = changed
    before = after = now
    if arguments == ["--undo"]:
        restore(file, clear=True)
        before = then
    random_moments = random.Random(7)
    killed = 0
    connections.close_all()
    with process(COMMANDER) as child:
        commander = Commander(child)

        def go_back():
            if arguments == ["--undo"]:
                restore(file, clear=True)
            elif arguments[1] == "--clear":
                services.undo_restore()
            connections.close_all()

        for _ in range(
            2 if arguments == ["--undo"] else 1
        ):  # it is warm the second time; an upgrade never is
            ended, whole = commander.run(*arguments)
            assert ended == 0
            after = snapshot()
            go_back()
        if arguments == ["--undo"]:
            assert not differences(now, after)
        assert bool(differences(before, after)) == ("--dry-run" not in arguments)
        copies = {copy.name for copy in kept.backups()}
        for number in range(moments):
            delay = whole * (number + random_moments.random()) / moments
            ended, took = commander.run(*arguments, delay=delay)
            if ended == 0:  # the machine is less busy now
                whole = min(whole, took)
            killed += ended != 0
            wait_until_usable()
            present = snapshot()
            is_after = bool(differences(before, present))
            assert not differences(after if is_after else before, present), "neither the old nor the new"
            is_whole(kept.backups())
            if is_after:
                go_back()
                assert not differences(before, snapshot())
            connections.close_all()
        assert killed >= moments / 2
        assert commander.run(*arguments)[0] == 0, "no lock is stale"
    assert not differences(after, snapshot())
    nothing_half_done_is_left(temporary)
    if "--dry-run" in arguments:
        assert {copy.name for copy in kept.backups()} == copies


STAGER = """
    import sys, time
    from django.contrib.auth.models import User
    from django.core.files.base import ContentFile
    from backup.storage import uploads

    class Slow(ContentFile):
        def chunks(self, chunk_size=None):
            yield b"PK"
            print("half-way", flush=True)
            time.sleep(60)

    uploads.stage(Slow(b""), User.objects.first())
"""


def test_an_upload_whose_process_was_killed_is_swept(family):
    with process(STAGER) as stager:
        assert hear(stager) == "half-way"
        stager.kill()
        stager.wait()
    assert len(list(conf.root.rglob("*.part"))) == 1
    services.kept_backups()  # as the page does
    assert len(list(conf.root.rglob("*.part"))) == 1, "it might still be written"
    with freeze_time(timezone.now() + timedelta(seconds=2 * ABANDONED)):
        services.kept_backups()
    (part,) = conf.root.rglob("*.part")  # a wrong clock of this process does not make it older
    os.utime(part, (time.time() - 2 * ABANDONED,) * 2)
    services.kept_backups()
    assert not part.exists()


def test_what_killed_processes_left_is_swept(family):
    """In each folder; a file that changed just now is still written."""
    parts = {}
    for folder in ("staged", "kept", "safety", "restores", "last"):
        for name, age in (("old", 2 * ABANDONED), ("new", 0), ("future", -(10**8))):
            path = conf.root / files.path_of(folder) / f".{name}.zip.0123{PARTIAL}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"PK")
            os.utime(path, (time.time() - age,) * 2)
            parts[path] = name
    services.kept_backups()  # as the page does
    assert {path for path in parts if path.exists()} == {
        path for path, name in parts.items() if name == "new"
    }


def end_connections():
    """What a server's administrator can do: end all connections to this database but the own one."""
    own = connections[DEFAULT_DB_ALIAS].copy()
    with closing(own), own.cursor() as cursor:
        if ENGINE == "postgresql":
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return
        cursor.execute(
            "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
        )
        for (number,) in cursor.fetchall():
            cursor.execute(f"KILL {number}")


@pytest.mark.skipif(ENGINE == "sqlite", reason="nobody can end its connections")
@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("clear", [True, False])
def test_connections_that_somebody_ends(changed, phase, clear):
    file, then, now = changed

    class Ended(Silent):
        def phase(self, at):
            if at is phase:
                end_connections()

    with pytest.raises(Busy):
        restore(file, clear=clear, reporter=Ended())
    assert not differences(now, snapshot()), "the next one asks on another connection"
    restore(file, clear=True)
    assert not differences(then, snapshot())


@pytest.mark.skipif(ENGINE == "sqlite", reason="its driver has no such errors")
@pytest.mark.parametrize("phase", [*Phase, None])
def test_a_driver_that_calls_a_lost_connection_its_interface(changed, phase, monkeypatch):
    """As psycopg 2 and mysqlclient do for each statement but the first one."""
    file, _then, now = changed
    wrapper = connections[DEFAULT_DB_ALIAS]

    def is_lost(*args):
        number = [0] if ENGINE == "mysql" else []
        raise wrapper.Database.InterfaceError(*number, "connection already closed")

    def lose(at):
        if at is phase:
            monkeypatch.setattr(wrapper, "create_cursor", is_lost)
            monkeypatch.setattr(wrapper, "is_usable", lambda: False)

    class Lost(Silent):
        def phase(self, at):
            lose(at)

    lose(None)
    with pytest.raises(Busy, match="already closed"):
        restore(file, clear=True, reporter=Lost()) if phase else services.undo_restore()
    monkeypatch.undo()
    assert not differences(now, snapshot())


@pytest.mark.skipif(ENGINE != "sqlite", reason="pragmas of SQLite's")
@pytest.mark.parametrize("journal", ["OFF", "MEMORY", "PERSIST"])
def test_a_site_without_a_journal(changed, journal, monkeypatch):
    """SQLite cannot roll back without one, and one in memory is lost with its process."""
    monkeypatch.setattr(type(database_of()), "HELD", 10)  # so that it writes to the file before the end
    file, then, now = changed
    pragmas = {"journal_mode": journal, "synchronous": 0}

    class Failing(Silent):
        def phase(self, phase):
            if phase is Phase.FINISH:
                raise Unforeseen

    with connection.cursor() as cursor:
        before = {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas}
        for name, value in pragmas.items():
            cursor.execute(f"PRAGMA {name} = {value}")
    try:
        with pytest.raises(Unforeseen):
            restore(file, clear=True, reporter=Failing())
        assert not differences(now, snapshot())
        restore(file, clear=True)
        assert not differences(then, snapshot())
        with connection.cursor() as cursor:
            after = {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas}
        assert after == {"journal_mode": journal.lower(), "synchronous": 0}
    finally:
        with connection.cursor() as cursor:
            for name, value in before.items():
                cursor.execute(f"PRAGMA {name} = {value}")


# --- What passes by itself --------------------------------------------------------------------------------


def error_of_the_driver(words):
    """What Django makes of it. `words`: a text (SQLite), a number (MySQL), a SQLSTATE or None (PostgreSQL)."""
    error = OperationalError(words, "said") if isinstance(words, int) else OperationalError(words or "said")
    error.__cause__ = type("Cause", (Exception,), {"sqlstate": words})()
    return error


@pytest.mark.parametrize(
    ("vendor", "words", "code"),
    [
        ("sqlite", "database is locked", "busy"),
        ("sqlite", "database table is locked: core_child", "busy"),
        ("sqlite", "attempt to write a readonly database", "storage_failed"),
        ("sqlite", "database or disk is full", "storage_failed"),
        ("sqlite", "unable to open database file", "storage_failed"),
        ("postgresql", None, "busy"),  # the connection is gone
        ("postgresql", "40P01", "busy"),
        ("postgresql", "55P03", "busy"),
        ("postgresql", "57P01", "busy"),
        ("postgresql", "53300", "busy"),
        ("postgresql", "53100", "storage_failed"),  # the disk is full
        ("postgresql", "28P01", "storage_failed"),  # no password
        ("mysql", 1205, "busy"),
        ("mysql", 2006, "busy"),
        ("mysql", 1021, "storage_failed"),  # the disk is full
        ("mysql", 1142, "storage_failed"),  # a privilege is missing
    ],
)
def test_busy_is_only_what_passes_by_itself(vendor, words, code):
    database = VENDORS[vendor](connection)
    assert database.trouble(error_of_the_driver(words)).code == code


@pytest.fixture
def held_by_others(host_db):
    """Call it, and until the end somebody else keeps the SQLite file from being read."""
    with (
        closing(sqlite3.connect(database_of().file(), isolation_level=None)) as other,
        connection.cursor() as cursor,
    ):
        cursor.execute("PRAGMA busy_timeout")
        (before,) = cursor.fetchone()
        cursor.execute("PRAGMA busy_timeout = 50")
        yield lambda: other.execute("BEGIN EXCLUSIVE")
        cursor.execute(f"PRAGMA busy_timeout = {before}")


@pytest.mark.slow
@pytest.mark.skipif(ENGINE != "sqlite", reason="readers of the others wait for nobody")
def test_a_database_that_others_hold_is_busy(changed, held_by_others, tmp_path):
    file, _then, _now = changed
    path = tmp_path / "backup.zip"
    path.write_bytes(file.getvalue())
    restore(file, clear=False)
    held_by_others()
    for arguments in ([str(path)], [str(path), "--clear"], ["--undo"]):
        with pytest.raises(CommandError, match="database is locked"):
            call_command("restore", *arguments, "--no-input", "-v0")


@pytest.mark.skipif(ENGINE != "sqlite", reason="the others know no such mode")
def test_a_database_that_this_process_holds_is_busy(host_db):
    """Nobody would ever free it."""
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA locking_mode = EXCLUSIVE")
        cursor.execute("SELECT COUNT(*) FROM core_child")
    try:
        core.Child(first_name="New", last_name="Baby", birth_date="2026-03-01").save()
        with pytest.raises(Busy, match="locked"):
            take()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA locking_mode = NORMAL")
            cursor.execute("SELECT COUNT(*) FROM core_child")


@pytest.mark.skipif(ENGINE != "postgresql", reason="the others have no such policies")
@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("REVOKE SELECT ON core_note FROM backup_test_reader", "permission denied for table core_note"),
        (
            "ALTER TABLE core_note ENABLE ROW LEVEL SECURITY",
            'row-level security policy for table "core_note"',
        ),
    ],
)
def test_a_role_that_may_not_see_every_row_gets_no_backup(family, monkeypatch, statement, words):
    """It would look as complete as any other."""
    role = "backup_test_reader"
    grants = [
        f"DROP ROLE IF EXISTS {role}",
        f"CREATE ROLE {role}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}",
        statement,
    ]
    with connection.cursor() as cursor:
        for grant in grants:
            cursor.execute(grant)
    # A snapshot opens a connection of its own.
    options = {**connection.settings_dict["OPTIONS"], "options": f"-c role={role}"}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    try:
        with pytest.raises(StorageFailed, match=words):
            take()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE core_note DISABLE ROW LEVEL SECURITY")
            cursor.execute(f"DROP OWNED BY {role}")
            cursor.execute(f"DROP ROLE {role}")


@pytest.mark.skipif(connection.vendor != "sqlite", reason="a pragma of SQLite's")
def test_a_database_that_cannot_be_written_is_not_busy(changed):
    file, _then, now = changed
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA query_only = 1")
    try:
        assert refused(file, StorageFailed).code == "storage_failed"
    finally:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA query_only = 0")
    assert not differences(now, snapshot())


@pytest.fixture
def nightly(family, settings):
    """A site with automatic backups, that has changed since the last one. Notices come in `mail.outbox`."""
    settings.BACKUP_SCHEDULE, settings.BACKUP_PROVE = "daily", "all"
    User.objects.filter(is_superuser=True).update(email="admin@example.com")
    mail.outbox = []
    call_command("backup", "--automatic", "--now", "-v0")
    core.Note.objects.create(child=core.Child.objects.first(), note="since")
    return family


def end_idle_connection():
    """End the connection that stands idle during a proof, as somebody who restarts the server or a router may."""
    if ENGINE == "postgresql":
        ((number,),) = database_of().fetch("SELECT pg_backend_pid()")
        how = "SELECT pg_terminate_backend(%s, 10000)"
    else:
        ((number,),) = database_of().fetch("SELECT CONNECTION_ID()")
        how = "KILL %s"
    own = connections[DEFAULT_DB_ALIAS].copy()
    with closing(own), own.cursor() as cursor:
        cursor.execute(how, [number])


@pytest.mark.skipif(ENGINE == "sqlite", reason="nobody ends its connections")
@pytest.mark.parametrize("by", ["the server", "somebody"])
def test_a_connection_that_is_ended_while_it_stands_idle_in_a_proof(nightly, monkeypatch, by):
    prove = services.prove

    def interrupted(*args, **kwargs):
        proof = prove(*args, **kwargs)
        if by == "somebody":
            end_idle_connection()
        return proof

    monkeypatch.setattr(services, "prove", interrupted)
    if by == "the server":  # a proof takes longer
        idle = "idle_session_timeout = '500ms'" if ENGINE == "postgresql" else "wait_timeout = 1"
        database_of().execute(f"SET {idle}")
    call_command("backup", "--automatic", "--now", "-v0")
    newest = max(kept.backups(), key=lambda backup: backup.created)
    assert newest.proof["verdict"] == "proved"
    assert status.status().state is status.State.OK
    assert mail.outbox == []


@pytest.mark.skipif(ENGINE == "sqlite", reason="nobody ends its connections")
@pytest.mark.parametrize("is_another_under_way", [True, False])
def test_a_run_that_has_lost_its_lock_removes_nothing_while_another_is_under_way(
    nightly, settings, monkeypatch, is_another_under_way
):
    settings.BACKUP_KEEP = "last=1"
    code = """
    from backup.database import Job, database_of
    with database_of().lock(Job.AUTOMATIC_BACKUP):
        print("held", flush=True)
        input()
    """
    prove = services.prove
    with ExitStack() as stack:

        def interrupted(*args, **kwargs):
            proof = prove(*args, **kwargs)
            monkeypatch.setattr(services, "prove", prove)
            lose_locks()
            if is_another_under_way:
                assert hear(stack.enter_context(process(code))) == "held"
            return proof

        monkeypatch.setattr(services, "prove", interrupted)
        call_command("backup", "--automatic", "--now", "-v0")
        assert len(kept.backups()) == 1 + is_another_under_way
    assert status.status().state is status.State.OK


@pytest.mark.skipif(ENGINE == "sqlite", reason="nobody ends its connections")
def test_a_connection_that_is_ended_while_copies_are_made(nightly, settings, tmp_path, monkeypatch):
    settings.BACKUP_LOCATIONS = f"nas={tmp_path / 'nas'}"

    class Interrupted(queue.SimpleQueue):
        def get(self):
            visit = super().get()
            end_idle_connection()
            return visit

    monkeypatch.setattr(copies, "SimpleQueue", Interrupted)
    call_command("backup", "--automatic", "--now", "-v0")
    newest = max(kept.backups(), key=lambda backup: backup.created)
    assert newest.locations == ("local", "nas")
    assert status.status().state is status.State.OK


@pytest.mark.skipif(ENGINE == "sqlite", reason="nobody ends its connections")
def test_a_notice_with_nobody_to_send_it_to_is_sent_by_the_next_run(nightly, settings, monkeypatch):
    """The addresses are read from the database, which may be what does not answer."""

    def full(*args, **kwargs):
        raise StorageFailed("No space left on device.")

    send = notices.mail_to_all

    def to_nobody(*args):
        end_idle_connection()
        return send(*args)

    monkeypatch.setattr(kept, "keep", full)
    with monkeypatch.context() as patch:
        patch.setattr(notices, "mail_to_all", to_nobody)
        with pytest.raises(CommandError, match="No space left"):
            call_command("backup", "--automatic", "--now", "-v0")
    assert mail.outbox == []
    connection.close()  # the next run is that of another process
    with pytest.raises(CommandError, match="No space left"):
        call_command("backup", "--automatic", "--now", "-v0")
    assert [message.to for message in mail.outbox] == [["admin@example.com"]]


@pytest.mark.skipif(ENGINE == "sqlite", reason="nobody ends its connections")
def test_a_restore_during_which_the_connection_stands_idle(changed):
    """As it does while a large file is read."""
    file, then, _now = changed
    idle = "idle_session_timeout = '500ms'" if ENGINE == "postgresql" else "wait_timeout = 1"

    class Slow(Silent):
        def phase(self, at):
            if at is Phase.COPY:
                time.sleep(1.5)

    database_of().execute(f"SET {idle}")
    restore(file, clear=True, reporter=Slow())
    assert not differences(then, snapshot())
    if ENGINE == "postgresql":
        assert database_of().fetch("SHOW idle_session_timeout") == [("500ms",)]


@pytest.mark.skipif(ENGINE == "sqlite", reason="nobody ends its connections")
@pytest.mark.parametrize("act", [services.inspect_backup, services.restore_backup])
def test_a_connection_that_is_ended_while_it_stands_idle_in_an_upgrade(family, monkeypatch, act):
    upgraded = upgrading.upgraded

    @contextmanager
    def interrupted(*args, **kwargs):
        with upgraded(*args, **kwargs) as backup:
            end_idle_connection()
            yield backup

    monkeypatch.setattr(upgrading, "upgraded", interrupted)
    with (older.old("2.6.0") / "backup.zip").open("rb") as file:
        act(file, how(clear=True))


@pytest.mark.skipif(ENGINE == "sqlite", reason="nobody ends its connections")
def test_a_restore_during_which_all_connections_stand_idle(changed, monkeypatch):
    """Those that the server lets stand idle for a moment only, also in a transaction."""
    file, then, _now = changed
    if ENGINE == "postgresql":
        short = "-c idle_session_timeout=700 -c idle_in_transaction_session_timeout=700"
        option = "options", short
    else:
        short = "SET wait_timeout = 1"
        if connection.mysql_is_mariadb:
            short += ", idle_transaction_timeout = 1, idle_readonly_transaction_timeout = 1"
        option = "init_command", short
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], *option)

    class Slow(Silent):
        def phase(self, at):
            if at in (Phase.COPY, Phase.WRITE):
                time.sleep(2.5)

    connection.close()
    try:
        restore(file, clear=True, reporter=Slow())
    finally:
        connection.close()
        monkeypatch.undo()
    assert not differences(then, snapshot())


@pytest.mark.skipif(
    ENGINE != "postgresql" or django.VERSION < (5, 1), reason="Django has no pool of connections there"
)
def test_a_restore_needs_one_connection_of_djangos_pool(changed, monkeypatch):
    """Others who wait for the restore hold the rest of the pool."""
    file, then, _now = changed
    connection.close()
    monkeypatch.setitem(
        connection.settings_dict["OPTIONS"], "pool", {"min_size": 1, "max_size": 1, "timeout": 3}
    )
    try:
        restore(file, clear=True)
        services.undo_restore()
        restore(file, clear=True)
        take()
    finally:
        connection.close()
        connection.close_pool()
        monkeypatch.undo()
    assert not differences(then, snapshot())


@pytest.mark.skipif(ENGINE != "mysql", reason="the others hold locks elsewhere")
def test_a_lock_outlasts_the_time_that_a_session_may_stand_idle(family):
    database = database_of()
    database.execute("SET wait_timeout = 1")
    with database.lock(Job.AUTOMATIC_BACKUP):
        with database.lock(Job.NOTE):
            pass
        time.sleep(2)
        assert database.is_usable()
    assert database.fetch("SELECT @@wait_timeout") == [(1,)]

"""Behind a pooler, pgbouncer, that may give each transaction another session of the database's."""

import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import suppress

import pytest
from core import models as core
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command
from django.db import connection, connections

from backup import services
from backup.automatic import status
from backup.database import Database, Job, database_of
from backup.exceptions import BackupError, Busy
from backup.storage import kept
from tests.conftest import STRICT
from tests.support.backups import inspect, restore, take
from tests.support.snapshots import differences, snapshot

pytestmark = pytest.mark.skipif(connection.vendor != "postgresql", reason="a pooler of PostgreSQL's")

#: Seconds after which the pooler ends a connection that waits for one of the server's.
PATIENCE_OF_POOLER = 20


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def pool_size():
    """How many connections the pooler has."""
    return 20


@pytest.fixture(params=["session", "transaction"])
def pooled(request, family, tmp_path, pool_size):
    """All connections that are opened from now on go by way of a pooler in this mode."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if program is None:
        (pytest.fail if STRICT else pytest.skip)("no pgbouncer on this machine")
    settings = connection.settings_dict
    server = {
        name: settings[name.upper()]
        for name in ("host", "port", "user", "password")
        if settings[name.upper()]
    }
    port = free_port()
    config = tmp_path / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = {' '.join(f'{name}={value}' for name, value in server.items())}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = {request.param}\nignore_startup_parameters = extra_float_digits,options\n"
        f"default_pool_size = {pool_size}\nquery_wait_timeout = {PATIENCE_OF_POOLER}\n"
    )
    as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
    before = {name: settings[name] for name in ("HOST", "PORT", "DISABLE_SERVER_SIDE_CURSORS")}
    connections.close_all()
    with subprocess.Popen([program, "-q", *as_nobody, config], stderr=subprocess.DEVNULL) as process:
        try:
            settings.update(HOST="127.0.0.1", PORT=port, DISABLE_SERVER_SIDE_CURSORS=True)
            wait_for(port, process)
            yield request.param
        finally:
            connections.close_all()
            settings.update(before)
            process.terminate()


def wait_for(port, process):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    pytest.fail("pgbouncer did not start")


def test_everything_works(pooled):
    file, then = take(), snapshot()
    core.Note.objects.all().delete()
    Group.objects.create(name="since")
    now = snapshot()
    assert inspect(file, clear=True).changes["core.note"].added
    restore(file, clear=True)
    assert not differences(then, snapshot())
    services.undo_restore()
    assert not differences(now, snapshot())
    restore(file, clear=False)
    assert core.Note.objects.exists()


@pytest.mark.parametrize("job", Job, ids=lambda job: job.name)
def test_one_at_a_time(pooled, job):
    held, done = threading.Event(), threading.Event()

    def hold():
        with database_of().lock(job):
            held.set()
            done.wait(20)
        connections.close_all()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(20)
        for _ in range(3):
            with pytest.raises(Busy), database_of().lock(job):
                pytest.fail("two at a time")
    finally:
        done.set()
        holder.join()
    with database_of().lock(job):
        pass


def test_a_lock_within_another_is_one_of_its_own(pooled):
    """Although one transaction holds both."""
    taken = []

    def take_both():
        for job in (Job.AUTOMATIC_BACKUP, Job.NOTE):
            with suppress(Busy), database_of().lock(job):
                taken.append(job)
        connections.close_all()

    with database_of().lock(Job.AUTOMATIC_BACKUP):
        with database_of().lock(Job.NOTE), pytest.raises(Busy), database_of().lock(Job.NOTE):
            pytest.fail("two at a time")
        other = threading.Thread(target=take_both)
        other.start()
        other.join()
        assert taken == [Job.NOTE]


def test_a_session_is_handed_on_as_it_was(pooled):
    """What a restore sets would be set for whoever gets the session next."""
    names = ("extra_float_digits", "intervalstyle", "lock_timeout", "idle_in_transaction_session_timeout")

    def state():
        return [database_of().fetch(f"SHOW {name}") for name in names]

    before = state()
    with database_of().exclusive():
        assert state() == before
        with database_of().restoring():
            pass
    assert state() == before


@pytest.mark.parametrize("pooled", ["statement"], indirect=True)
def test_a_pooler_that_knows_no_transactions(pooled, settings):
    """Nothing can be done on it but to say so, in words, to the program that counts the runs, too."""
    settings.BACKUP_SCHEDULE = "daily"
    with pytest.raises(CommandError, match=r"could not do it: .*statement"):
        call_command("backup", "--automatic", "--now", "-v0")
    assert status.status().state is status.State.FAILED


def in_transactions(pool_size):
    """Behind a pooler in transaction mode, which has so many connections."""

    def marked(test):
        sized = pytest.mark.parametrize("pool_size", [pool_size])(test)
        return pytest.mark.parametrize("pooled", ["transaction"], indirect=True)(sized)

    return marked


@in_transactions(1)
def test_a_backup_needs_one_connection_at_a_time(pooled):
    assert take()


@in_transactions(2)
def test_an_automatic_backup_needs_two(pooled, settings):
    settings.BACKUP_SCHEDULE, settings.BACKUP_KEEP = "daily", "last=1"
    for note in ("one", "another"):  # the second run removes the first backup
        core.Note.objects.create(child=core.Child.objects.first(), note=note)
        call_command("backup", "--automatic", "--now", "-v0")
    assert status.status().state is status.State.OK
    assert len(kept.backups()) == 1


@in_transactions(3)
def test_a_restore_needs_three(pooled):
    file, then = take(), snapshot()
    core.Note.objects.all().delete()
    now = snapshot()
    restore(file, clear=True)
    assert not differences(then, snapshot())
    services.undo_restore()
    assert not differences(now, snapshot())


@in_transactions(1)
def test_an_automatic_backup_does_not_wait_for_a_connection_that_nobody_gives(pooled, settings, monkeypatch):
    monkeypatch.setattr(Database, "LOCK_SECONDS", 1)
    settings.BACKUP_SCHEDULE = "daily"
    began = time.monotonic()
    with pytest.raises(CommandError, match="default_pool_size to at least 4"):
        call_command("backup", "--automatic", "--now", "-v0")
    assert time.monotonic() - began < PATIENCE_OF_POOLER
    assert status.status().state is status.State.FAILED
    assert core.Child.objects.exists(), "the connections are given back"


@in_transactions(2)
def test_nor_does_a_restore(pooled, monkeypatch):
    monkeypatch.setattr(Database, "LOCK_SECONDS", 1)
    file, before, began = take(), snapshot(), time.monotonic()
    with pytest.raises(BackupError, match="default_pool_size to at least 4"):
        restore(file, clear=True)
    assert time.monotonic() - began < PATIENCE_OF_POOLER
    assert not differences(before, snapshot())


@in_transactions(3)
def test_a_snapshot_is_not_waited_for_either(pooled, monkeypatch):
    monkeypatch.setattr(Database, "LOCK_SECONDS", 1)
    database, began = database_of(), time.monotonic()
    refused = pytest.raises(BackupError, match="default_pool_size")
    with database.lock(Job.RESTORE), database.snapshot(), database.snapshot(), refused, database.snapshot():
        pytest.fail("there is none")
    assert time.monotonic() - began < PATIENCE_OF_POOLER
    with database.snapshot() as reader:
        assert reader.fetch("SELECT 1") == [(1,)]

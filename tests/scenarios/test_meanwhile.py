"""What others see and may do while a restore runs, and after it."""

import os
import signal
import threading
import time

import pytest
from core import models as core
from django.contrib.auth.models import User
from django.db import connection, connections
from django.test import Client

from backup import services
from backup.exceptions import Busy
from tests.support.backups import how, restore, take
from tests.support.filling import token_key
from tests.support.processes import ask, hear, process, wait_until_usable
from tests.support.snapshots import differences, snapshot

ENGINE = connection.vendor


# --- While a restore is half-way, in another process ------------------------------------------------------

RESTORER = """
    import io, sys
    from backup import services
    from backup.options import Phase, Silent
    from tests.support.backups import how

    class Pausing(Silent):
        now = None

        def phase(self, phase):
            self.now = phase

        def progress(self, label, done, total):
            # Most is cleared and written, nothing is kept yet.
            if self.now is Phase.WRITE and label == "core.sleep":
                self.now = None
                print("half-way", flush=True)
                sys.stdin.readline()

    with open(sys.argv[1], "rb") as file:
        services.restore_backup(file, how(clear=True), reporter=Pausing())
    print("done", flush=True)
"""


@pytest.fixture
def half_way(family, tmp_path):
    """(snapshot, file, a process that is in the middle of restoring another state)."""
    path = tmp_path / "backup.zip"
    path.write_bytes(take().getvalue())
    core.Feeding.objects.all().delete()
    User.objects.update(first_name="changed")
    before = snapshot()
    connections.close_all()
    with process(RESTORER, path) as restorer:
        assert hear(restorer) == "half-way"
        yield before, path, restorer


def test_a_second_restore_is_told_at_once(half_way):
    _, path, restorer = half_way
    deadline = threading.Timer(30, restorer.kill)  # instead of waiting for each other for ever
    deadline.start()
    started = time.monotonic()
    with path.open("rb") as file, pytest.raises(Busy) as caught:
        services.restore_backup(file, how(clear=True))
    deadline.cancel()
    assert time.monotonic() - started < 4, "less than the time that a database waits for a lock"
    assert caught.value.status == 409
    assert "restore" in caught.value.message
    assert ask(restorer, "go on") == "done"
    with path.open("rb") as file:
        services.restore_backup(file, how(clear=True))


def test_a_killed_restore_leaves_nothing_behind(half_way):
    before, path, restorer = half_way
    os.kill(restorer.pid, signal.SIGKILL)
    restorer.wait()
    wait_until_usable()
    assert not differences(before, snapshot())
    with path.open("rb") as file:
        services.restore_backup(file, how(clear=True))
    assert core.Feeding.objects.exists()


def test_others_see_nothing_of_a_restore_before_its_end(half_way):
    before, _, restorer = half_way
    assert not differences(before, snapshot())
    assert ask(restorer, "go on") == "done"
    assert differences(before, snapshot())


def test_backups_go_on_meanwhile(half_way):
    before, _, restorer = half_way
    file = take()
    assert ask(restorer, "go on") == "done"
    restore(file, clear=True)
    assert not differences(before, snapshot())


def test_readers_need_not_wait_for_a_large_restore(family, tmp_path):
    """SQLite would lock them out as soon as it writes to the file."""
    child = family.children[0]
    moment = core.Note.objects.first().time
    core.Note.objects.bulk_create(
        core.Note(child=child, time=moment, note=f"{number} " + "text " * 40_000) for number in range(40)
    )
    path = tmp_path / "backup.zip"
    path.write_bytes(take().getvalue())
    connections.close_all()
    with process(RESTORER, path) as restorer:
        assert hear(restorer) == "half-way"
        started = time.monotonic()
        response = Client(headers={"Authorization": f"Token {token_key('admin')}"}).get("/api/children/")
        assert response.status_code == 200
        assert time.monotonic() - started < 4, "less than the time that a database waits for a lock"
        assert ask(restorer, "go on") == "done"


# --- Home Assistant ---------------------------------------------------------------------------------------


def test_who_polls_never_sees_fewer_children(family):
    """Home Assistant deletes the devices of children that it once does not see."""
    file = take()
    done = threading.Event()
    seen, wrong = [], []

    def poll():
        client = Client(headers={"Authorization": f"Token {token_key('admin')}"})
        try:
            while not done.is_set():
                response = client.get("/api/children/")
                if response.status_code == 200:
                    said = response.json()
                    seen.append(min(said["count"], len(said["results"])))
                else:
                    wrong.append(response.content)
        except Exception as error:  # noqa: BLE001  it is told below
            wrong.append(error)
        finally:
            connections.close_all()

    poller = threading.Thread(target=poll)
    poller.start()
    try:
        for number in range(6):
            restore(file, clear=number % 3 != 2)
    finally:
        done.set()
        poller.join()
    assert not wrong
    assert len(seen) > 6
    assert {*seen} == {2}


# --- Sessions ---------------------------------------------------------------------------------------------


def is_signed_in(client):
    return client.get("/user/settings/").status_code == 200


@pytest.mark.parametrize("clear", [True, False], ids=["clear", "overwrite"])
def test_who_is_the_same_stays_signed_in_and_nobody_else(family, clear):
    """By the way that people sign in: whose account is another now, or another's, must do so again."""
    file = take()
    changed, same, gone = family.plain, family.staff, None
    changed.set_password("another")
    changed.save()
    gone = User.objects.create_user("late")
    clients = {}
    for user in (changed, same, gone, family.reader):
        clients[user] = Client()
        clients[user].force_login(user)
        assert is_signed_in(clients[user])
    restore(file, clear=clear)
    assert is_signed_in(clients[same])
    assert is_signed_in(clients[family.reader])
    assert not is_signed_in(clients[changed])
    assert is_signed_in(clients[gone]) == (not clear)


def test_a_session_does_not_become_that_of_who_gets_the_number(family):
    """Where the backup has somebody else under the key of who is signed in."""
    file = take()
    key = family.plain.pk
    family.plain.delete()
    other = User(pk=key, username="other")
    other.set_password("x")
    other.save()
    client = Client()
    client.force_login(other)
    assert is_signed_in(client)
    restore(file, clear=True)
    assert User.objects.get(pk=key).username == "joe"
    assert not is_signed_in(client)


@pytest.mark.parametrize("clear", [True, False], ids=["clear", "overwrite"])
def test_a_column_that_is_renamed_while_a_restore_runs(family, acting_before_the_lock, clear):
    """That is no damage."""
    file = take()
    core.Note.objects.update(note="changed")
    before = snapshot()
    alter = "ALTER TABLE core_note RENAME COLUMN %s TO %s"

    def rename(*names):
        with connection.cursor() as cursor:
            cursor.execute(alter % names)

    acting_before_the_lock(lambda: rename("note", "words"))
    try:
        with pytest.raises(Busy, match="core_note"):
            restore(file, clear=clear)
    finally:
        rename("words", "note")
    assert not differences(before, snapshot())
    restore(file, clear=clear)
    assert not core.Note.objects.filter(note="changed").exists()

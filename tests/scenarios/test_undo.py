"""Undo brings back the state before the last restore that happened, and no safety copy goes that it may need."""

import io
import os
import signal
import threading
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import chain

import pytest
from babybuddy.models import Settings
from core import models as core
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, connection, connections, transaction
from django.test import override_settings
from freezegun import freeze_time
from rest_framework.authtoken.models import Token

from backup import services
from backup.archive import RECORDS, Writer
from backup.automatic import run as automatic
from backup.conf import conf
from backup.database import database_of, memo
from backup.exceptions import (
    AlreadyRestored,
    BackupError,
    Busy,
    Forbidden,
    InvalidBackup,
    NoSafetyCopy,
    RecordsRefused,
    StorageFailed,
)
from backup.options import Part
from backup.storage import files, kept, keys, state
from backup.tables import Table
from tests.scenarios.test_faults import error_of_the_driver
from tests.support.backups import encrypted, how, inspect, restore, rewritten, take
from tests.support.processes import HOLDER, ask, hear, lose_locks, process, wait_until_usable
from tests.support.snapshots import differences, snapshot

NOW = datetime.now(timezone.utc)
THE_FUTURE = datetime(2035, 1, 1, tzinfo=timezone.utc)


def enter(text):
    """Somebody enters a note, so that the state is another one."""
    core.Note.objects.create(child=core.Child.objects.first(), note=text, time=NOW)


def test_another_restore_before_an_undo_has_begun(family, monkeypatch):
    """Its copy was looked up already: it would bring back the state before the restore before."""
    file = take()
    enter("earlier")
    restore(file, clear=True)
    enter("later")
    states = []
    exclusive = type(database_of()).exclusive

    def restore_first(self):
        monkeypatch.undo()
        restore(file, clear=True)
        states.append(snapshot())
        return exclusive(self)

    monkeypatch.setattr(type(database_of()), "exclusive", restore_first)
    with pytest.raises(AlreadyRestored, match="meanwhile"):
        services.undo_restore()
    assert not differences(states[0], snapshot())
    services.undo_restore()
    assert core.Note.objects.filter(note="later").exists()


def test_where_sessions_are_in_another_database(family, monkeypatch):
    """The database has no place for the note about a restore, so it is in a file."""
    monkeypatch.setattr(memo, "notes_table", list)
    file = take()
    enter("earlier")
    states = [snapshot()]
    restore(file, clear=True, idempotency_key="a click")
    with pytest.raises(AlreadyRestored):
        restore(file, clear=True, idempotency_key="a click")
    enter("later")
    states.append(snapshot())
    restore(file, clear=True)
    services.undo_restore()
    assert not differences(states[1], snapshot())
    with pytest.raises(AlreadyRestored, match="undone already"):
        services.undo_restore()
    enter("a third")
    with pytest.raises(StorageFailed), rolled_back(monkeypatch):
        restore(file, clear=True)
    with pytest.raises(AlreadyRestored, match="undone already"):
        services.undo_restore()
    restore(file, clear=True)
    services.undo_restore()
    assert core.Note.objects.filter(note="a third").exists()
    with monkeypatch.context() as patch:
        patch.setattr(
            transaction, "on_commit", lambda *args, **options: None
        )  # killed right after the commit
        copy = restore(file, clear=True).safety_copy
    with pytest.raises(NoSafetyCopy, match="not known any more"):
        services.undo_restore()
    with pytest.raises(NoSafetyCopy, match="not known any more"):
        services.undo_restore(safety_copy=copy, only_last=True)


@contextmanager
def rolled_back(monkeypatch):
    """Let a restore fail right before its commit."""
    with monkeypatch.context() as patch:
        save = state.save_last_restore

        def save_and_fail(last):
            save(last)
            raise StorageFailed("No space left on device.")

        patch.setattr(state, "save_last_restore", save_and_fail)
        yield


#: What the server says if it refuses a COMMIT, and if its answer is lost: see `error_of_the_driver`.
REFUSED = {"sqlite": "database is locked", "postgresql": "23514", "mysql": 1180}[connection.vendor]
LOST = {"sqlite": "database is locked", "postgresql": None, "mysql": 2013}[connection.vendor]


@contextmanager
def commit_fails(monkeypatch, words, *, carried_out):
    """Let the next COMMIT fail, after it was carried out or without."""
    commit = connection._commit

    def fails():
        patch.undo()
        if carried_out:
            commit()
        raise error_of_the_driver(words)

    with monkeypatch.context() as patch:
        patch.setattr(connection, "_commit", fails)
        yield


@contextmanager
def interrupted(monkeypatch):
    """Let somebody press Ctrl-C while the database checks the references."""
    with monkeypatch.context() as patch:

        def interrupt(self):
            raise KeyboardInterrupt

        patch.setattr(type(database_of()), "check_deferred_constraints", interrupt)
        yield


@contextmanager
def note_is_lost(monkeypatch):
    """Let the disk be full as soon as a restore is committed."""
    put_json = state.put_json

    def full(name, content):
        if name == files.LAST_RESTORE and "under_way" not in content:
            raise StorageFailed("No space is left.")
        put_json(name, content)

    with monkeypatch.context() as patch:
        patch.setattr(state, "put_json", full)
        yield


@pytest.fixture
def in_a_file(family, monkeypatch):
    """The note is in a file. Returns a backup, the state that the last restore replaced, and its safety copy, which is
    not the newest."""
    monkeypatch.setattr(memo, "notes_table", list)
    file = take()
    enter("earlier")
    before = snapshot()
    copy = restore(file, clear=True).safety_copy
    services.undo_restore()
    assert restore(file, clear=True).safety_copy == copy != kept.names(kept.BackupKind.SAFETY)[0].text
    return file, before, copy


@pytest.mark.parametrize(
    ("fails", "error"),
    [
        (rolled_back, StorageFailed),
        (interrupted, KeyboardInterrupt),
        (partial(commit_fails, words=REFUSED, carried_out=False), BackupError),
    ],
    ids=["refused", "interrupted", "at commit"],
)
def test_a_restore_that_is_rolled_back_leaves_the_undo_of_the_one_before(
    in_a_file, monkeypatch, fails, error
):
    file, before, _copy = in_a_file
    enter("later")
    now, note = snapshot(), files.get_json(files.LAST_RESTORE)
    with pytest.raises(error), fails(monkeypatch):
        restore(file, clear=True)
    assert files.get_json(files.LAST_RESTORE) == note
    assert not differences(now, snapshot())
    services.undo_restore()
    assert not differences(before, snapshot())


@pytest.mark.skipif(connection.vendor != "postgresql", reason="the others have no deferred triggers")
def test_a_trigger_that_refuses_at_the_commit_leaves_the_undo_of_the_one_before(in_a_file, monkeypatch):
    file, before, _copy = in_a_file
    monkeypatch.setattr(type(database_of()), "check_deferred_constraints", lambda self: None)
    enter("later")
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;"
            "CREATE CONSTRAINT TRIGGER refuse AFTER DELETE ON core_note DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        try:
            with pytest.raises(BackupError, match="Nothing was changed"):
                restore(file, clear=True)
        finally:
            cursor.execute("DROP FUNCTION refuse CASCADE")
    services.undo_restore()
    assert not differences(before, snapshot())


@pytest.mark.skipif(connection.vendor == "sqlite", reason="no connection can be lost")
@pytest.mark.parametrize("carried_out", [True, False])
def test_an_answer_that_is_lost_where_nobody_else_knows(in_a_file, monkeypatch, carried_out):
    """The database has no note that would tell it."""
    file, _, copy = in_a_file
    services.undo_restore()  # to the state of that copy
    with (
        pytest.raises(Busy, match="not known whether this was done"),
        commit_fails(monkeypatch, LOST, carried_out=carried_out),
    ):
        restore(file, clear=True)
    with pytest.raises(NoSafetyCopy, match=f"not known any more.*{copy}"):
        services.undo_restore()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="ends a session by its number")
def test_a_server_that_ends_the_session_at_the_commit(in_a_file, monkeypatch):
    file, _, _copy = in_a_file
    commit, another = connection._commit, connection.copy()

    def ended():
        patch.undo()
        with closing(another), another.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.connection.info.backend_pid])
        commit()

    with monkeypatch.context() as patch:
        patch.setattr(connection, "_commit", ended)
        with pytest.raises(Busy, match="not known whether this was done"):
            restore(file, clear=True)


def test_an_unknown_end_stays_unknown_after_one_that_is_rolled_back(in_a_file, monkeypatch):
    file, _, copy = in_a_file
    services.undo_restore()
    with monkeypatch.context() as patch:
        patch.setattr(transaction, "on_commit", lambda *args, **options: None)  # killed after the commit
        restore(file, clear=True)
    for _try in range(2):
        enter("since")
        with pytest.raises(StorageFailed), rolled_back(monkeypatch):
            restore(file, clear=True)
        with pytest.raises(NoSafetyCopy, match=f"not known any more.*{copy}"):
            services.undo_restore()


def test_a_note_that_cannot_be_written_after_the_commit_is_told(in_a_file, monkeypatch):
    file, _, copy = in_a_file
    services.undo_restore()
    with note_is_lost(monkeypatch):
        result = restore(file, clear=True)
    assert result.safety_copy == copy
    assert [line for line in result.warnings if "Undo does not know" in line and copy in line]
    with pytest.raises(NoSafetyCopy, match=f"not known any more.*{copy}"):
        services.undo_restore()
    core.Note.objects.update(image="gone.png")
    with note_is_lost(monkeypatch):
        result = services.empty_missing_files()
    assert [line for line in result.warnings if "Undo does not know" in line and result.safety_copy in line]
    assert not [line for line in restore(file, clear=True).warnings if "Undo" in line]


def restore_elsewhere(file, **options):
    """Restore on another connection, as another process would."""

    def act():
        with closing(connections[DEFAULT_DB_ALIAS]):
            restore(file, clear=True, **options)

    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="the others lose what they write, too")
def test_another_restore_while_an_undo_has_lost_its_lock(family, acting_before_the_lock):
    """It would be undone as well, which nobody asked for."""
    file = take()
    enter("earlier")
    restore(file, clear=True)
    enter("later")
    states = []

    def restore_meanwhile():
        lose_locks()
        restore_elsewhere(file)
        states.append(snapshot())

    acting_before_the_lock(restore_meanwhile)
    with pytest.raises(AlreadyRestored, match="meanwhile"):
        services.undo_restore()
    assert not differences(states[0], snapshot())
    services.undo_restore()
    assert core.Note.objects.filter(note="later").exists()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="the others lose what they write, too")
def test_the_same_request_twice_of_which_the_first_has_lost_its_lock(family, acting_before_the_lock):
    file = take()
    enter("since")

    def restore_meanwhile():
        lose_locks()
        restore_elsewhere(file, idempotency_key="a click")
        enter("after that")

    acting_before_the_lock(restore_meanwhile)
    with pytest.raises(AlreadyRestored, match="just now"):
        restore(file, clear=True, idempotency_key="a click")
    assert core.Note.objects.filter(note="after that").exists()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="the others lose what they write, too")
@pytest.mark.parametrize("act", [services.undo_restore, services.empty_missing_files])
def test_another_restore_is_under_way_when_the_lock_is_lost(family, acting_before_the_lock, act):
    file = take()
    restore(file, clear=True)
    enter("since")
    with ExitStack() as stack:

        def begin_another():
            lose_locks()
            assert hear(stack.enter_context(process(HOLDER))) == "held"

        acting_before_the_lock(begin_another)
        with pytest.raises(Busy, match="Another restore"):
            act()
    assert core.Note.objects.filter(note="since").exists()


# --- Which safety copies are kept -------------------------------------------------------------------------


def test_a_state_is_kept_once(family):
    file, then = take(), snapshot()
    enter("of great worth")
    worth = snapshot()
    results = [restore(file, clear=True) for _ in range(7)]
    names = [copy.name for copy in kept.backups()]
    assert len(names) == 2
    assert {result.safety_copy for result in results} == {*names}
    assert not differences(then, snapshot())
    services.undo_restore(safety_copy=results[0].safety_copy)
    assert not differences(worth, snapshot())


def test_a_damaged_copy_of_the_state_is_no_copy_of_it(family):
    file = take()
    name = restore(file, clear=True).safety_copy
    (path,) = conf.root.rglob(name)
    data = bytearray(path.read_bytes())
    data[data.index(b"core/feeding.json") + 200] ^= 1
    path.write_bytes(data)
    again = restore(file, clear=True).safety_copy
    assert again != name
    with kept.open_backup(again) as copy:
        services.verify_backup(copy)


def test_a_copy_that_is_deleted_while_the_restore_runs(family, acting_before_the_lock):
    """A backup of the same state was there, and somebody has no use for it."""
    file = take()
    enter("of great worth")
    worth = snapshot()
    name = services.keep_backup().name
    acting_before_the_lock(lambda: kept.delete(name))
    result = restore(file, clear=True)
    assert result.safety_copy != name
    assert result.safety_copy in {copy.name for copy in kept.backups()}
    services.undo_restore()
    assert not differences(worth, snapshot())


def test_retention_between_an_undo_and_taking_it_back(family, settings):
    """An automatic backup of the same state is no safety copy: BACKUP_KEEP removes it when another one is made."""
    settings.BACKUP_KEEP, settings.BACKUP_PROVE = "last=1", "off"
    file = take()
    enter("of great worth")
    restore(file, clear=True)
    restored = snapshot()
    automatic.run(now=True)
    copy = services.undo_restore().safety_copy
    automatic.run(now=True)
    services.undo_restore(safety_copy=copy)
    assert not differences(restored, snapshot())


def test_an_old_safety_copy_of_the_same_state_stays_for_another_day(family):
    file = take()
    enter("of great worth")
    worth = snapshot()
    with freeze_time(NOW - timedelta(days=2)):
        restore(file, clear=True)
        services.undo_restore()
    copy = restore(file, clear=True).safety_copy
    for number in range(7):
        enter(f"note {number}")
        restore(file, clear=True)
    services.undo_restore(safety_copy=copy)
    assert not differences(worth, snapshot())


def test_none_younger_than_a_day_is_pruned(family):
    file = take()
    for number in range(7):
        with freeze_time(NOW + timedelta(hours=number)):
            enter(f"note {number}")
            restore(file, clear=True)
    assert len(kept.backups()) == 8 - 1
    with freeze_time(NOW + timedelta(days=2)):
        enter("another")
        name = restore(file, clear=True).safety_copy
        names = [copy.name for copy in kept.backups()]
    assert len(names) == 5
    assert names[0] == name


def test_the_copy_of_the_last_restore_is_not_pruned_however_old(family):
    file, then = take(), snapshot()
    enter("one more")
    restore(file, clear=True)  # what is there now is kept with the next one, and never again
    for day in range(1, 10):
        with freeze_time(NOW + timedelta(days=3 * day)):
            enter(f"note {day}")
            restore(file, clear=True)
    with freeze_time(NOW + timedelta(days=60)):
        restore(file, clear=True)
        services.undo_restore()
    assert not differences(then, snapshot())


def test_copies_of_the_future_push_none_out(family):
    file = take()
    with freeze_time(THE_FUTURE):
        for number in range(5):
            enter(f"note {number}")
            services.keep_backup(kept.BackupKind.SAFETY)
    enter("of great worth")
    now = snapshot()
    result = restore(file, clear=True)
    assert result.safety_copy in {copy.name for copy in kept.backups()}
    assert kept.backups()[0].name == result.safety_copy
    services.undo_restore()
    assert not differences(now, snapshot())


def test_a_restore_of_the_future_refuses_nothing(family):
    file = take()
    with freeze_time(THE_FUTURE):
        restore(file, clear=True, idempotency_key="x")
        with pytest.raises(AlreadyRestored):
            restore(file, clear=True, idempotency_key="x")
    restore(file, clear=True, idempotency_key="x")


# --- A copy that is fetched from somewhere else -------------------------------------------------------------


@pytest.fixture(params=["in clear", "encrypted"])
def elsewhere(request, family, settings, tmp_path):
    """Call it to restore a backup, so that an undo has to fetch what was before from another place. Returns the state
    before, the file there, and the key that it is encrypted with, or None."""
    settings.BACKUP_LOCATIONS, settings.BACKUP_PROVE = f"nas={tmp_path / 'nas'}", "off"
    key = keys.add().key if request.param == "encrypted" else None
    file = take()

    def restored():
        enter("since")
        before = snapshot()
        made = services.keep_backup()
        assert automatic._copy(None) == ""
        assert restore(file, clear=True).safety_copy == made.name
        kept.delete_here(made)
        (path,) = (tmp_path / "nas").glob("site_*/kept/*")
        return before, path, key

    return restored


def test_undo_of_what_was_fetched_from_a_location(elsewhere):
    """It is what was here, to the letter, whatever was wrong with it."""
    an_unknown_time_zone()
    before, _path, _key = elsewhere()
    services.undo_restore()
    assert not differences(before, snapshot())


def test_undo_does_not_trust_who_can_write_to_a_location(elsewhere, family):
    _before, path, key = elsewhere()
    with path.open("rb") as file, keys.unlocked(file) as archive:
        clear = io.BytesIO()
        with Writer(clear) as writer:
            for label, member in archive.metadata.models.items():
                writer.write(member.file, archive.read(member))
                writer.register(RECORDS, label, member)
            writer.finish(archive.metadata)

    def change(records):
        records["core.child"][0]["fields"]["picture"] = "../../../etc/passwd"

    changed = rewritten(clear, change)
    path.write_bytes((encrypted(changed, key) if key else changed).getvalue())
    now = snapshot()
    with pytest.raises(InvalidBackup, match="another backup than its name says"):
        services.undo_restore(user=family.staff)
    assert not differences(now, snapshot())


def test_undo_does_not_take_another_backup_for_the_copy(family):
    """Somebody put another one in its place, with its name."""
    enter("of another day")
    another = take()
    enter("since")
    name = restore(another, clear=True).safety_copy
    now = snapshot()
    (path,) = conf.root.rglob(name)
    path.write_bytes(another.getvalue())
    with pytest.raises(InvalidBackup, match=f"{name} is another backup"):
        services.undo_restore()
    assert not differences(now, snapshot())


# --- Which restore was the last ---------------------------------------------------------------------------

#: Restores a file, and is killed just before or just after its COMMIT.
KILLED = """
    import os, signal, sys
    from contextlib import contextmanager
    from backup import services
    from backup.database import Database
    from tests.support.backups import how

    restoring = Database.restoring

    @contextmanager
    def killed(*args):
        with restoring(*args):
            yield
            if moment == "before":
                os.kill(os.getpid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    Database.restoring = killed
    moment, path = sys.stdin.readline().split()
    print("ready", flush=True)
    with open(path, "rb") as file:
        services.restore_backup(file, how(clear=True))
"""


def kill(tmp_path, file, moment):
    path = tmp_path / "backup.zip"
    path.write_bytes(file.getvalue())
    connections.close_all()
    with process(KILLED) as child:
        assert ask(child, f"{moment} {path}") == "ready"
        child.stdin.close()
        assert child.wait(60) == -signal.SIGKILL
        child.stdin = None
    wait_until_usable()


@pytest.fixture
def twice(family):
    """(a backup, the state before the restore of it, the state that was restored): that was the last one so far."""
    enter("first")
    file, restored = take(), snapshot()
    enter("second")
    before = snapshot()
    restore(file, clear=True)
    return file, before, restored


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_killed_just_after_the_commit(twice, tmp_path):
    """It happened, although nobody could take note of it."""
    file, _, restored = twice
    enter("third")
    now = snapshot()
    kill(tmp_path, file, "after")
    assert not differences(restored, snapshot())
    services.undo_restore()
    assert not differences(now, snapshot())


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_killed_just_before_the_commit(twice, tmp_path, monkeypatch):
    """It did not happen, although its safety copy is the newest. The command shows the copy that it brings back."""
    file, before, _ = twice
    name = kept.backups()[0].name
    enter("third")
    now = snapshot()
    kill(tmp_path, file, "before")
    assert not differences(now, snapshot())
    assert kept.backups()[0].name != name
    assert [copy.name for copy in kept.backups() if copy.is_undo] == [name]
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "y")
    out = io.StringIO()
    call_command("restore", undo=True, stdout=out)
    assert name in out.getvalue().splitlines()[0]
    assert not differences(before, snapshot())
    redo = kept.backups()[0].name
    assert f"`restore {redo} --clear` brings it back" in out.getvalue()


def test_nobody_knows_any_more_which_was_the_last(twice):
    """The table of sessions, which has the note, was emptied. The safety copies are still there."""
    Session.objects.all().delete()
    with pytest.raises(NoSafetyCopy, match=f"not known any more.*{kept.backups()[0].name}"):
        services.undo_restore()


def test_a_disk_that_is_full_after_the_commit(twice, monkeypatch):
    file, _, _ = twice
    enter("third")
    now = snapshot()

    def full(*args):
        raise StorageFailed("No space is left.")

    keep = kept.keep

    def and_then_it_is_full(*args):
        stored = keep(*args)
        monkeypatch.setattr(files, "put", full)
        monkeypatch.setattr(kept, "put", full, raising=False)
        monkeypatch.setattr("backup.storage.files.put_json", full)
        monkeypatch.setattr("backup.storage.state.put_json", full)
        return stored

    with monkeypatch.context() as patch:
        patch.setattr(kept, "keep", and_then_it_is_full)
        restore(file, clear=True)
    monkeypatch.undo()
    services.undo_restore()
    assert not differences(now, snapshot())


def test_without_a_restore_there_is_nothing_to_undo(twice, tmp_path):
    """A safety copy alone, of a restore that never happened, is nothing that undo would bring back."""
    services.undo_restore()
    with pytest.raises(AlreadyRestored):
        services.undo_restore()


def test_a_safety_copy_of_a_restore_that_did_not_happen(family, tmp_path):
    file = take()
    enter("first")
    now = snapshot()
    kill(tmp_path, file, "before")
    assert len(kept.backups()) == 1
    assert not kept.backups()[0].is_undo
    with pytest.raises(NoSafetyCopy):
        services.undo_restore()
    assert not differences(now, snapshot())


# --- Whatever was wrong with the state before -------------------------------------------------------------


def an_unknown_time_zone():
    Settings.objects.update(timezone="Mars/Phobos")


def nobody_who_administers():
    User.objects.update(is_superuser=False)


def a_user_without_settings():
    Settings.objects.filter(user__username="joe").delete()


def a_row_that_points_at_nothing():
    entry = LogEntry.objects.create(user=User.objects.first(), object_repr="x", action_flag=1)
    with connection.constraint_checks_disabled(), connection.cursor() as cursor:
        cursor.execute("UPDATE django_admin_log SET user_id = 9999 WHERE id = %s", [entry.pk])


WRONG = [an_unknown_time_zone, nobody_who_administers, a_user_without_settings, a_row_that_points_at_nothing]
CHECKS_ALWAYS = connection.vendor == "postgresql"


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_undo_brings_back_what_was_wrong_before(family, wrong):
    if CHECKS_ALWAYS and wrong is a_row_that_points_at_nothing:
        pytest.skip("this engine never has such rows")
    file = take()
    enter("since")
    wrong()
    before = snapshot()
    restore(file, clear=True)
    assert differences(before, snapshot())
    services.undo_restore()
    assert not differences(before, snapshot())


@pytest.mark.skipif(CHECKS_ALWAYS, reason="this engine never has such rows")
def test_a_row_that_points_at_nothing_does_not_keep_a_good_backup_out(family):
    """It was here before the restore, and is none of the backup's."""
    file = take()
    core.Note.objects.all().delete()
    a_row_that_points_at_nothing()
    result = restore(file, clear=False)
    assert core.Note.objects.exists()
    assert [line for line in result.warnings if "admin.logentry" in line]


@pytest.mark.skipif(CHECKS_ALWAYS, reason="this engine never has such rows")
def test_a_backup_with_a_row_that_points_at_nothing_is_refused_by_name(family):
    before = snapshot()
    a_row_that_points_at_nothing()
    file = take()
    LogEntry.objects.filter(user_id=9999).delete()
    with pytest.raises(RecordsRefused, match=r"admin\.logentry"):
        restore(file, clear=True)
    assert not differences(before, snapshot())


MD5 = "django.contrib.auth.hashers.MD5PasswordHasher"
PBKDF2 = "django.contrib.auth.hashers.PBKDF2PasswordHasher"


def change_password(name, password):
    user = User.objects.get(username=name)
    user.set_password(password)
    user.save()


@pytest.fixture
def hashed_by_md5(family, settings):
    """The admin's password was hashed in another way than it would be now, at each sign-in."""
    settings.PASSWORD_HASHERS = [MD5]
    change_password("admin", "before")
    settings.PASSWORD_HASHERS = [PBKDF2, MD5]


@pytest.mark.parametrize("since", ["before", "changed"], ids=["signed in", "changed"])
def test_undo_by_staff_leaves_a_password_that_was_hashed_anew(family, hashed_by_md5, since):
    """By a sign-in, or since somebody changed it: nothing tells the two apart. The old one may be known to many."""
    file = take()
    enter("since")
    before = snapshot()
    restore(file, clear=True, user=family.staff)
    change_password("admin", since)  # a sign-in does the same
    services.undo_restore(user=family.staff)
    assert [line for line in differences(before, snapshot()) if ": password was" not in line] == []
    assert User.objects.get(username="admin").check_password(since)


def test_undo_by_staff_leaves_a_password_that_was_changed_since(family):
    """It was hashed as it would be now, so that no sign-in can have changed it."""
    file = take()
    enter("since")
    before = snapshot()
    restore(file, clear=True, user=family.staff)
    change_password("admin", "changed")
    services.undo_restore(user=family.staff)
    assert [line for line in differences(before, snapshot()) if ": password was" not in line] == []
    assert User.objects.get(username="admin").check_password("changed")


def test_undo_by_staff_while_somebody_changes_a_password(family, hashed_by_md5, acting_before_the_lock):
    file = take()
    enter("since")
    restore(file, clear=True, user=family.staff)
    acting_before_the_lock(lambda: change_password("admin", "changed"))
    services.undo_restore(user=family.staff)
    assert User.objects.get(username="admin").check_password("changed")
    assert core.Note.objects.filter(note="since").exists()


def undo_is_forbidden(user):
    now = snapshot()
    with pytest.raises(Forbidden):
        services.undo_restore(user=user)
    assert not differences(now, snapshot())


def test_undo_by_staff_where_two_have_the_same_hash(family, hashed_by_md5):
    User.objects.filter(username="grandma").update(password=User.objects.get(username="admin").password)
    file = take()
    restore(file, clear=True, user=family.staff)
    change_password("admin", "changed")
    undo_is_forbidden(family.staff)


def test_undo_by_staff_of_a_restore_that_changed_passwords(family, hashed_by_md5):
    """By a superuser: it is theirs to undo."""
    file = take()
    with override_settings(PASSWORD_HASHERS=[MD5]):
        change_password("admin", "another")
    restore(file, clear=True, user=family.admin)
    undo_is_forbidden(family.staff)


def test_undo_by_staff_of_a_restore_that_changed_a_password_set_meanwhile(family, acting_before_the_lock):
    """Of an edited file, all rows are written anew, whatever is here."""
    file = take()
    acting_before_the_lock(lambda: change_password("admin", "meanwhile"))
    result = services.restore_backup(file, replace(how(clear=True), edited=True), user=family.admin)
    assert "The password of admin becomes the one in the backup." in result.warnings
    undo_is_forbidden(family.staff)


def test_undo_by_a_superuser_brings_the_very_hash_back(family, hashed_by_md5):
    file = take()
    enter("since")
    before = snapshot()
    restore(file, clear=True, user=family.staff)
    change_password("admin", "changed")
    services.undo_restore(user=family.admin)
    assert not differences(before, snapshot())


@pytest.mark.parametrize("is_there", [True, False], ids=["some in the backup", "none in the backup"])
def test_a_restore_by_staff_leaves_tokens_that_were_made_since(family, is_there):
    """The host makes one for whoever looks at their settings; others are of the scripts of superusers."""
    if not is_there:
        Token.objects.all().delete()
    file = take()
    enter("since")
    for user in (family.admin, family.staff, family.inactive):
        Token.objects.get_or_create(user=user)
    before = snapshot()
    plan = inspect(file, clear=True, user=family.staff)
    assert plan.refusal is None
    assert not plan.accounts
    restore(file, clear=True, user=family.staff)
    assert snapshot()["authtoken.token"] == before["authtoken.token"]
    assert not core.Note.objects.filter(note="since").exists()
    services.undo_restore(user=family.staff)
    assert not differences(before, snapshot())


def test_undo_by_staff_leaves_tokens_as_they_are_by_now(family):
    """One that was revoked since, and one that was made. Going back to an older copy must not bring it back either."""
    file = take()
    enter("since")
    before = snapshot()
    copy = restore(file, clear=True, user=family.staff).safety_copy
    Token.objects.filter(user__username="admin").delete()
    Token.objects.create(user=family.inactive)
    now = snapshot()["authtoken.token"]
    services.undo_restore(user=family.staff)
    after = snapshot()
    assert after["authtoken.token"] == now
    assert not differences({**before, "authtoken.token": now}, after)
    restore(file, clear=True, parts=[Part.ENTRIES])
    with pytest.raises(Forbidden):
        services.undo_restore(safety_copy=copy, user=family.staff)


@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize("name", ["admin", "staff"])
def test_undo_by_staff_where_a_file_has_another_date_of_a_token(family, name, clear):
    """No file of a staff user changes a token. One of a superuser does; then the undo brings back what was there."""
    before = snapshot()

    def change(records):
        records["authtoken.token"][0]["fields"]["created"] = "2001-01-01T00:00:00Z"

    restore(rewritten(take(), change), clear=clear, user=getattr(family, name))
    assert Token.objects.filter(created__year=2001).exists() == (name == "admin")
    services.undo_restore(user=family.staff)
    assert not differences(before, snapshot())


@pytest.mark.parametrize("clear", [True, False])
def test_a_restore_by_staff_of_users_under_other_keys(family, clear):
    """The tokens stay with them, one that the backup lacks and one that it has, and they keep their keys."""
    Token.objects.get_or_create(user=family.inactive)
    joe, nanny = User.objects.get(username="joe").pk, family.inactive.pk
    before, others = snapshot(), {joe: nanny, nanny: joe + 1000}

    def change(records):
        for record in records["auth.user"]:
            record["pk"] = others.get(record["pk"], record["pk"])
        records["auth.user"].sort(key=lambda record: record["pk"])
        for record in chain.from_iterable(records.values()):
            if (user := record["fields"].get("user")) in others:
                record["fields"]["user"] = others[user]
        tokens = records["authtoken.token"]
        tokens[:] = [record for record in tokens if record["fields"]["user"] != joe + 1000]

    file = rewritten(take(), change)
    assert inspect(file, clear=clear, user=family.staff).refusal is None
    enter("since")
    restore(file, clear=clear, user=family.staff)
    core.Note.objects.filter(note="since").delete()
    assert not differences(before, snapshot())


def test_a_token_that_is_left_out_takes_no_others_with_it(family):
    """Its user is in the backup no more. So it brings no token in, but the plan has the tokens."""

    def edited(records):
        fields = {"user": 99_999, "created": "2026-01-01T00:00:00Z"}
        records["authtoken.token"] = [{"model": "authtoken.token", "pk": "f" * 40, "fields": fields}]

    def lossy(metadata):
        place = {"model": "auth.user", "pk": None, "field": None, "reason": "it could not be read"}
        metadata["left_out"] = {"total": 1, "places": [place]}

    file, before = rewritten(take(), edited, lossy), snapshot()
    file.seek(0)
    with pytest.raises(Forbidden):
        services.restore_backup(file, replace(how(clear=True), leave_out=True), user=family.staff)
    assert not differences(before, snapshot())


def test_undo_by_staff_of_a_restore_that_brought_a_token(family):
    """By a superuser: it goes again."""
    file = take()
    Token.objects.filter(user__username="joe").delete()
    before = snapshot()
    restore(file, clear=True, user=family.admin)
    assert Token.objects.filter(user__username="joe").exists()
    services.undo_restore(user=family.staff)
    assert not differences(before, snapshot())


@pytest.mark.parametrize("is_there", [True, False], ids=["some in the backup", "no member in the backup"])
def test_undo_by_staff_of_a_restore_that_removed_a_token(family, is_there):
    """By a superuser, after whose restore there is exactly the backup."""
    file = take() if is_there else rewritten(take(), lambda records: records.pop("authtoken.token"))
    Token.objects.create(user=family.inactive)
    before = snapshot()
    restore(file, clear=True, user=family.admin)
    assert not Token.objects.filter(user=family.inactive).exists()
    undo_is_forbidden(family.staff)
    services.undo_restore(user=family.admin)
    assert not differences(before, snapshot())


def test_staff_cannot_go_back_to_a_password_that_was_given_up(family, settings):
    """It may be one that they know."""
    old = "django.contrib.auth.hashers.MD5PasswordHasher"
    settings.PASSWORD_HASHERS = [old]
    admin = User.objects.get(username="admin")
    admin.set_password("known")
    admin.save()
    copy = services.keep_backup(user=family.staff).name
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher", old]
    admin.set_password("another")
    admin.save()
    before = snapshot()
    with pytest.raises(Forbidden):
        services.undo_restore(safety_copy=copy, user=family.staff)
    assert not differences(before, snapshot())
    services.undo_restore(safety_copy=copy, user=family.admin)
    assert User.objects.get(username="admin").check_password("known")


def natural_rows():
    """Which content types and permissions there are, and how this database numbers them."""
    types = {*ContentType.objects.values_list("pk", "app_label", "model")}
    return types, {*Permission.objects.values_list("pk", "codename", "content_type")}


def next_natural_keys():
    tables = [Table(ContentType), Table(Permission)]
    return {table.label: key for table, key in database_of().next_keys(tables).items()}


def an_app_that_went_away():
    """A group and a log entry know content types and permissions of it."""
    gone = ContentType.objects.create(app_label="gone", model="thing")
    other = ContentType.objects.create(app_label="gone", model="other")
    may = Permission.objects.create(content_type=gone, codename="see_thing", name="May see things")
    group = Group.objects.create(name="Seers")
    group.permissions.add(may)
    LogEntry.objects.create(
        user=User.objects.first(), content_type=other, object_id="1", object_repr="x", action_flag=1
    )
    file = take()
    LogEntry.objects.filter(content_type=other).delete()
    group.delete()
    may.delete()
    gone.delete()
    other.delete()
    return file


@pytest.mark.parametrize("clear", [True, False], ids=["clear", "overwrite"])
def test_content_types_and_permissions_that_a_restore_made_go(family, clear):
    file = an_app_that_went_away()
    before, natural, next_keys = snapshot(), natural_rows(), next_natural_keys()
    restore(file, clear=clear)
    types, permissions = natural_rows()
    assert [len(types - natural[0]), len(permissions - natural[1])] == [2, 1]
    assert next_natural_keys() != next_keys
    services.undo_restore()
    assert natural_rows() == natural
    assert not differences(before, snapshot())
    assert next_natural_keys() == next_keys


def test_those_that_something_refers_to_stay(family):
    """Rows of models that no backup holds are not those of the state before."""
    file = an_app_that_went_away()
    before = natural_rows()
    restore(file, clear=True)
    gone = ContentType.objects.get(app_label="gone", model="other")
    Permission.objects.create(content_type=gone, codename="since", name="Since")
    services.undo_restore()
    assert natural_rows()[0] - before[0] == {(gone.pk, "gone", "other")}
    assert {codename for _pk, codename, _type in natural_rows()[1] - before[1]} == {"since"}


def test_what_the_last_but_one_restore_made_was_there_before_the_last(family):
    file = an_app_that_went_away()
    then = take()
    restore(file, clear=True)
    natural = natural_rows()
    restore(then, clear=True)
    services.undo_restore()
    assert natural_rows() == natural


def test_staff_cannot_gain_by_an_undo(family):
    file = take()
    User.objects.filter(username="grandma").update(is_superuser=True)
    restore(file, clear=True)
    with pytest.raises(Forbidden):
        services.undo_restore(user=User.objects.get(username="grandma"))

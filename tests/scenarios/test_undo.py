"""Undo brings back the state before the last restore that happened."""

import io
import os
import signal
import threading
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial

import pytest
from babybuddy.models import Settings
from core import models as core
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, connection, connections, transaction

from backup import services
from backup.database import database_of, memo
from backup.exceptions import (
    AlreadyRestored,
    BackupError,
    Busy,
    Forbidden,
    NoSafetyCopy,
    RecordsRefused,
    RestoreRefused,
    StorageFailed,
)
from backup.options import RestoreMode
from backup.storage import files, kept, state
from backup.tables import Table
from tests.scenarios.test_faults import error_of_the_driver
from tests.scenarios.test_pointless import unchecked
from tests.support.backups import how, inspect, metadata_of, restore, rewritten, take
from tests.support.processes import HOLDER, ask, hear, lose_locks, process, wait_until_usable
from tests.support.snapshots import differences, snapshot
from tests.zoo import models as zoo

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


def test_more_rows_that_point_at_nothing_than_are_told_apart(family, settings):
    """They are of a model that no backup holds, and were here before the restore."""
    settings.BACKUP_EXCLUDE = ["admin"]
    LogEntry.objects.bulk_create(
        LogEntry(user=family.admin, object_repr="x", action_flag=1) for _number in range(1100)
    )
    with unchecked() as cursor:
        cursor.execute("UPDATE django_admin_log SET user_id = 9999")
    file = take()
    enter("since")
    before = snapshot()
    for clear in (True, False):
        result = restore(file, clear=clear)
        assert [line for line in result.warnings if "admin.logentry" in line]
        result = services.undo_restore()
        assert [line for line in result.warnings if "admin.logentry" in line]
        assert not differences(before, snapshot())


@pytest.mark.parametrize("clear", [True, False])
def test_an_app_that_was_left_out_is_not_new_to_the_data(family, settings, clear):
    """Its migrations do not run again: they would make rows, or change others."""
    Settings.objects.update(language="fr", timezone="Europe/Berlin")
    Group.objects.create(name="standard")
    settings.BACKUP_EXCLUDE = ["babybuddy.settings", "zoo"]
    file = take()
    assert metadata_of(file)["excluded"] == ["babybuddy", "zoo"]
    restore(file, clear=True)
    settings.BACKUP_EXCLUDE = []
    before = snapshot()
    assert inspect(file, clear=clear).metadata.upgraded is None
    services.undo_restore()
    assert not differences(before, snapshot())
    restore(file, clear=False)
    assert not differences(before, snapshot())


def test_what_stays_at_a_record_that_clearing_removes_is_told_beforehand(family, settings):
    """Of a model that no backup holds. Leaving out is no way on."""
    settings.BACKUP_EXCLUDE = ["core.tagged"]
    file = take()
    core.Note.objects.first().tags.add("private")
    before = snapshot()
    refusal = inspect(file, clear=True).refusal
    assert [line for line in refusal.details if "core.tagged" in line]
    assert "BACKUP_EXCLUDE" in refusal.details[-1]
    with pytest.raises(RecordsRefused) as caught:
        restore(file, clear=True)
    assert (caught.value.details, caught.value.offer) == (refusal.details, refusal.offer)
    assert not differences(before, snapshot())


@pytest.fixture
def reused(family):
    """The backup of a child and a note whose numbers are those of others here."""

    def enter(name):
        child = core.Child.objects.create(first_name=name, birth_date=NOW.date() - timedelta(days=len(name)))
        return child, core.Note.objects.create(
            child=child, note=name, time=NOW + timedelta(minutes=len(name))
        )

    for name in ("doctor", "alpha"):
        core.Tag.objects.create(name=name, slug=name)
    empty = take()
    enter("Ada")
    file = take()
    restore(empty, clear=True)
    return file, *enter("Beate")


def test_what_belongs_to_an_entry_of_another_child_is_not_kept(family, settings):
    """The entry of the backup has the same number, day and child's number, but its child is another one."""
    child = core.Child.objects.create(first_name="Ada", birth_date=NOW.date() - timedelta(days=50))
    weight = core.Weight.objects.create(child=child, date=NOW.date(), weight=9.9)
    core.Tag.objects.create(name="private", slug="private")

    def change(records):
        for record in records["core.child"]:
            if record["pk"] == child.pk:
                record["fields"] |= {"first_name": "Beate", "slug": "beate", "birth_date": "2020-02-02"}

    def of_another_site(metadata):
        metadata["instance"] = "another"

    settings.BACKUP_EXCLUDE = ["core.tagged"]
    file = rewritten(take(), change, of_another_site)
    weight.tags.add("private")
    before = snapshot()
    refusal = inspect(file, clear=True).refusal
    assert [line for line in refusal.details if f"core.weight {weight.pk}" in line]
    with pytest.raises(RecordsRefused) as caught:
        restore(file, clear=True)
    assert caught.value.details == refusal.details
    assert not differences(before, snapshot())


@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize("excluded", ["core.tagged", "core.timer"])
def test_what_no_backup_holds_does_not_come_to_belong_to_another_record(
    family, reused, settings, excluded, clear
):
    file, child, note = reused
    settings.BACKUP_EXCLUDE = [excluded]
    note.tags.add("doctor")
    core.Timer.objects.create(user=family.admin, child=child, start=NOW)
    before = snapshot()
    if clear:
        refusal = inspect(file, clear=True).refusal
        assert [line for line in refusal.details if excluded in line]
        with pytest.raises(RecordsRefused) as caught:
            restore(file, clear=True)
        assert caught.value.details == refusal.details
    else:
        restore(file, clear=False)
        if excluded == "core.timer":
            assert core.Timer.objects.get(child__isnull=False, start=NOW).child.first_name == "Beate"
        else:
            assert core.Note.objects.get(tags__name="doctor").note == "Beate"
        services.undo_restore()
    assert not differences(before, snapshot())


def test_what_belongs_to_a_restored_record_does_not_stay_with_another_one_after_an_undo(
    family, reused, settings
):
    file, child, note = reused
    settings.BACKUP_EXCLUDE = ["core.tagged", "core.timer"]
    restore(file, clear=True)
    core.Note.objects.get(pk=note.pk).tags.add("alpha")
    timer = core.Timer.objects.create(user=family.admin, child_id=child.pk, start=NOW)
    before = snapshot()
    with pytest.raises(RecordsRefused, match=r"(?s)core\.timer.*Delete these records first"):
        services.undo_restore()
    assert not differences(before, snapshot())
    timer.delete()
    core.Note.objects.get(pk=note.pk).tags.clear()
    services.undo_restore()
    assert core.Note.objects.get(pk=note.pk).note == "Beate"


def test_tags_of_entries_that_go_do_not_become_those_of_the_next(family, settings):
    """Where no backup holds the tags. They stay, and are named."""
    settings.BACKUP_EXCLUDE = ["core.tagged"]
    core.Tag.objects.create(name="private", slug="private")
    empty = take()
    note = core.Note.objects.create(child=family.children[0], note="goes", time=NOW)
    file = take()
    note.tags.add("private")

    def ensure_named(warnings):
        assert [line for line in warnings if "core.tagged" in line and f"core.note {note.pk}" in line]
        following = core.Note.objects.create(child=family.children[0], note="the next", time=NOW)
        assert following.pk > note.pk
        assert not following.tags.count()
        following.delete()

    ensure_named(restore(empty, clear=True).warnings)
    services.undo_restore()
    core.Note.objects.filter(pk=note.pk).delete()
    core.Tagged.objects.filter(object_id=note.pk).delete()
    restore(file, clear=True)
    core.Note.objects.get(pk=note.pk).tags.add("private")
    ensure_named(services.undo_restore().warnings)


@pytest.fixture
def hanging(family, settings):
    """A note that is gone, its tag, which no backup holds and thus stayed, and the backup that cleared the note."""
    settings.BACKUP_EXCLUDE = ["core.tagged"]
    core.Tag.objects.create(name="private", slug="private")
    empty = take()
    note = core.Note.objects.create(child=family.children[0], note="goes", time=NOW)
    note.tags.add("private")
    restore(empty, clear=True)
    assert not core.Note.objects.filter(pk=note.pk)
    return note.pk, empty


@pytest.mark.parametrize("far", [False, True])
def test_tags_of_entries_that_went_long_ago_do_not_become_those_of_the_next(family, hanging, far):
    """A second restore removes nothing that has tags. `far`: it removes a number that a site never gives."""
    key, empty = hanging
    if far:
        core.Note.objects.create(pk=2**31 - 5, child=family.children[0], note="far", time=NOW)
    restore(empty, clear=True)
    following = core.Note.objects.create(child=family.children[0], note="the next", time=NOW)
    assert following.pk > key
    assert not following.tags.count()


@pytest.mark.parametrize("by", ["clearing", "keeping", "an undo"])
def test_tags_of_entries_that_went_do_not_become_those_of_one_that_had_the_number_before(
    family, settings, by
):
    """A backup holds an entry that went by a restore before the tagged one was entered."""
    settings.BACKUP_EXCLUDE = ["core.tagged"]
    core.Tag.objects.create(name="private", slug="private")
    empty = take()
    first = core.Note.objects.create(child=family.children[0], note="first", time=NOW)
    file = take()
    copy = restore(empty, clear=True).safety_copy
    later = NOW + timedelta(minutes=1)
    core.Note.objects.create(child=family.children[0], note="second", time=later).tags.add("private")
    restore(empty, clear=True)
    if by == "an undo":
        services.undo_restore(safety_copy=copy)
    else:
        restore(file, clear=by == "clearing")
    assert core.Note.objects.get(note="first").pk == first.pk
    assert not core.Note.objects.get(note="first").tags.count()


@pytest.mark.parametrize("mode", RestoreMode)
def test_tags_of_entries_that_went_do_not_become_those_of_what_comes(family, hanging, mode):
    """Of a record of another site that has the number of the entry, or of one that gets a new number. The same entry
    gets its tag back."""
    key, _empty = hanging

    def enter(records):
        fields = {**records["core.note"][-1]["fields"], "note": "theirs"}
        records["core.note"].append({"model": "core.note", "pk": key, "fields": fields})

    def of_another_site(metadata):
        metadata["instance"] = "another"

    own = rewritten(take(), enter)
    theirs = rewritten(own, change_metadata=of_another_site)
    before = snapshot()
    options = replace(how(clear=False), mode=mode)
    refusal = services.inspect_backup(theirs, options).refusal
    assert [line for line in refusal.details if "core.tagged" in line and f"core.note {key}" in line]
    with pytest.raises(RecordsRefused) as caught:
        services.restore_backup(theirs, options)
    assert caught.value.details == refusal.details
    assert not differences(before, snapshot())
    services.restore_backup(own, options)
    assert core.Note.objects.get(pk=key).tags.count() == 1


def test_a_record_gets_no_number_that_has_tags(family, hanging):
    """Of an entry that went, where both are kept."""
    key, _empty = hanging
    last = core.Note.objects.order_by("pk").last()
    assert last.pk == key - 1
    file = take()
    core.Note.objects.filter(pk=last.pk).update(note="another", time=NOW - timedelta(days=100))
    services.restore_backup(file, replace(how(clear=False), mode=RestoreMode.KEEP_BOTH))
    new = core.Note.objects.get(note=last.note, time=last.time)
    assert new.pk > key
    assert not new.tags.count()


def test_what_an_undo_leaves_at_a_record_that_it_removes_is_named(family, settings):
    """The tags of an entry that came with the restore. The copy before it was made without tags."""
    key = core.Note.objects.create(child=family.children[0], note="of the backup", time=NOW).pk
    settings.BACKUP_EXCLUDE = ["core.tag", "core.tagged"]
    file = take()
    core.Note.objects.filter(pk=key).delete()
    restore(file, clear=True)
    settings.BACKUP_EXCLUDE = []
    core.Note.objects.get(pk=key).tags.add("since")
    result = services.undo_restore()
    assert not core.Note.objects.filter(pk=key)
    assert [line for line in result.warnings if "core.tagged" in line and f"core.note {key}" in line]


@pytest.mark.parametrize("excluded", ["auth.User", "auth", "core.timer", "zoo", "core.tag"])
def test_what_is_excluded_by_now_is_part_of_an_undo(family, settings, excluded):
    """Else rows would belong to whoever has the numbers of the backup, or refer to nothing."""
    core.Timer.objects.create(user=family.admin, start=NOW)
    zoo.Badge.objects.create(user=family.admin)

    def renumber(records):
        for record in records["auth.user"]:
            record["pk"] += 100
        for record in [*records["babybuddy.settings"], *records["core.timer"]]:
            record["fields"]["user"] += 100
        for model in ("admin.logentry", "authtoken.token", "zoo.badge"):
            records[model].clear()

    def of_another_site(metadata):
        metadata["instance"] = "another"

    file = rewritten(take(), renumber, change_metadata=of_another_site)
    before = snapshot()
    copy = restore(file, clear=True).safety_copy
    since = snapshot()
    settings.BACKUP_EXCLUDE = [excluded]
    for name in (None, copy):
        with pytest.raises(RestoreRefused, match=f"BACKUP_EXCLUDE.* {excluded.lower()}"):
            services.undo_restore(safety_copy=name)
    settings.BACKUP_EXCLUDE = []
    assert not differences(since, snapshot())
    services.undo_restore()
    assert not differences(before, snapshot())

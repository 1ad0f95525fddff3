"""Automatic backups as they are made: what, when, in which order, and what stays."""

import datetime as dt
import os
import queue
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from core import models as core
from django.contrib.auth.models import User
from django.core import mail
from django.core.files.storage import InMemoryStorage
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.urls import reverse
from freezegun import freeze_time

from backup import log as backup_log
from backup import services
from backup.archive import Key
from backup.automatic import __main__ as child
from backup.automatic import look, messages, outlook, run, status
from backup.automatic.status import State, acknowledge
from backup.conf import OPTIONS, aware_now, conf
from backup.exceptions import BackupError, Busy, Forbidden, StorageFailed
from backup.options import Place, Places
from backup.storage import elsewhere, files, kept
from backup.storage.kept import BackupKind
from backup.storage.state import LastRun
from backup.upgrade import process as process_of_children
from tests.support.backups import restore
from tests.support.processes import ask, hear, process
from tests.support.snapshots import differences, snapshot
from tests.support.wrong_settings import WRONG

HOLDER = """
    import sys
    from backup.database import Job, database_of
    with database_of().lock(Job[sys.argv[1]]):
        print("held", flush=True)
        input()
    print("free", flush=True)
"""


@pytest.fixture(autouse=True)
def this_process_stays_as_it_is(monkeypatch):
    """What the main function of a child process changes in its process, for tests which call it in this one."""
    monkeypatch.setattr(backup_log, "nobody", backup_log.nobody)
    monkeypatch.setattr("os.nice", lambda _steps: None)  # it could not be taken back


def automatic():
    """The moments of all automatic backups, oldest first, in UTC."""
    return [
        f"{created:%m-%d %H:%M}" for created in sorted(b.created for b in kept.backups(BackupKind.AUTOMATIC))
    ]


def write_a_note(text="another day"):
    return core.Note.objects.create(child=core.Child.objects.first(), note=text)


def made(moment):
    with freeze_time(moment):
        return run.run().made


def test_a_night(nightly, at):
    with freeze_time(at("2026-11-03 02:29")):
        assert run.run().made, "the first one is due at once"
        assert not run.run().made
    write_a_note()
    assert made(at("2026-11-04 02:29")) is True, "made up: the slot of the day before"
    write_a_note()
    assert made(at("2026-11-04 02:30")) is True
    assert made(at("2026-11-04 12:00")) is False
    write_a_note()
    assert made(at("2026-11-09 08:00")) is True, "one for all that were missed"
    assert automatic() == ["11-03 01:29", "11-04 01:29", "11-04 01:30", "11-09 07:00"]


def test_what_is_kept_is_the_whole_state(nightly):
    before = snapshot()
    name = run.run().backup.name
    core.Child.objects.all().delete()
    with kept.open_backup(name) as file:
        restore(file, clear=True)
    assert not differences(before, snapshot())


def test_off(nightly, settings):
    settings.BACKUP_SCHEDULE = "off"
    assert not run.run().made
    assert status.status().state is State.OFF
    assert status.status().next is None
    assert run.run(now=True).made, "by hand all the same"


def test_now_although_none_is_due(nightly, at):
    with freeze_time(at("2026-11-03 12:00")):
        assert run.run().made
        write_a_note()
        assert not run.run().made
        assert run.run(now=True).made


# -- nothing changed ---


def test_where_nothing_has_changed_the_newest_one_is_good_until_now(nightly, at):
    assert made(at("2026-11-03 12:00"))
    for day in (4, 5, 6):
        moment = at(f"2026-11-0{day} 03:00")
        User.objects.filter(username="admin").update(last_login=moment)  # by use
        core.Tag.objects.update(last_used=moment)
        assert not made(moment)
        with freeze_time(moment + dt.timedelta(hours=1)):
            found = status.status()
            assert found.state is State.OK
            assert found.as_json()["last"]["unchanged"] == moment.astimezone(dt.timezone.utc).isoformat()
            assert found.next == at(f"2026-11-0{day + 1} 02:30")
            assert not run.run().made, "and is not tried again all the time"
    assert automatic() == ["11-03 11:00"]
    User.objects.filter(username="admin").update(first_name="Somebody")
    assert made(at("2026-11-07 03:00"))
    with freeze_time(at("2026-11-07 03:00")):
        assert status.status().as_json()["last"]["unchanged"] is None


def test_a_newest_one_that_is_damaged_does_not_stand_for_now(nightly, at):
    assert made(at("2026-11-03 12:00"))
    (name,) = (backup.name for backup in kept.backups())
    path = Path(kept.local_path(name))
    data = bytearray(path.read_bytes())
    data[200] ^= 1  # inside of the first member
    path.write_bytes(data)
    assert made(at("2026-11-04 12:00"))


def test_the_guard_looks_at_a_damaged_one_as_far_as_it_can(nightly, at):
    assert made(at("2026-11-03 12:00"))
    (name,) = (backup.name for backup in kept.backups())
    path = Path(kept.local_path(name))
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    core.Child.objects.first().delete()
    assert made(at("2026-11-04 12:00"))
    with freeze_time(at("2026-11-04 12:00")):
        assert status.status().state is State.SHRUNK


def test_a_newest_one_that_failed_its_proof_does_not_stand_for_now(nightly, at, monkeypatch):
    assert made(at("2026-11-03 12:00"))
    monkeypatch.setattr(status, "is_good", lambda backup: False)
    assert made(at("2026-11-04 12:00"))


def test_other_migrations_are_a_change(nightly, at):
    assert made(at("2026-11-03 12:00"))
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'core' AND name LIKE '0036%%'")
    assert made(at("2026-11-04 12:00"))


# -- one at a time, and a restore ---


def test_one_at_a_time(nightly):
    with process(HOLDER, "AUTOMATIC_BACKUP") as holder:
        assert hear(holder) == "held"
        outcome = run.run()
        assert not outcome.made
        assert "right now" in outcome.message
        assert ask(holder, "") == "free"
    assert run.run().made


def test_a_backup_that_another_process_will_copy_is_not_said_to_be_copied(
    nightly, settings, tmp_path, capsys
):
    settings.BACKUP_LOCATIONS = f"nas={tmp_path / 'nas'}"
    settings.BACKUP_PROVE = "off"
    run.run(now=True)
    with process(HOLDER, "AUTOMATIC_BACKUP") as holder:
        assert hear(holder) == "held"
        call_command("backup", "--keep")
        assert ask(holder, "") == "free"
    out = capsys.readouterr().out
    assert "not copied yet" in out
    assert "nas: ok" not in out


def test_beside_a_run_others_are_not_started_all_the_time(nightly):
    status.remember(status.status())
    assert outlook.read().is_due(aware_now())
    with process(HOLDER, "AUTOMATIC_BACKUP") as holder:
        assert hear(holder) == "held"
        run.run()
        assert not outlook.read().is_due(aware_now())
        assert outlook.read().is_due(aware_now() + dt.timedelta(minutes=11)), "it may be killed"
        assert ask(holder, "") == "free"


def test_it_waits_while_somebody_restores(nightly, monkeypatch):
    with process(HOLDER, "RESTORE") as holder:
        assert hear(holder) == "held"

        def restore_ends(seconds):
            waited.append(seconds)
            assert ask(holder, "") == "free"
            monkeypatch.undo()  # others sleep, too

        waited = []
        monkeypatch.setattr(time, "sleep", restore_ends)
        assert run.run().made
        assert waited == [run.PATIENCE]


def test_a_request_does_not_wait_for_a_restore(nightly):
    with process(HOLDER, "RESTORE") as holder:
        assert hear(holder) == "held"
        with pytest.raises(Busy):
            run.run(user=nightly.admin)
        assert status.last_run() is None, "nothing has failed"
        assert not mail.outbox
        assert ask(holder, "") == "free"


def test_it_looks_again_under_the_lock(nightly, monkeypatch):
    """Two that found it due: the second one finds the first one's when it has the lock."""
    answers = [True]
    real = run._is_due
    monkeypatch.setattr(run, "_is_due", lambda: answers.pop() if answers else real())
    with freeze_time("2026-11-03 12:00"):
        services.keep_backup(BackupKind.AUTOMATIC)
        assert not run.run().made
    assert len(automatic()) == 1


def test_it_ends_by_itself(nightly, settings, monkeypatch):
    settings.BACKUP_AUTOMATIC_SECONDS = 1
    monkeypatch.setattr(services, "create_backup", lambda *args, **kwargs: time.sleep(20))
    begin = time.monotonic()
    with pytest.raises(BackupError, match="BACKUP_AUTOMATIC_SECONDS"), run.time_limit():
        run.run()
    assert time.monotonic() - begin < 10
    assert status.status().state is State.FAILED


def test_what_goes_wrong_after_the_backup_is_told_too(nightly, settings, monkeypatch):
    """An error that nobody expects, in a proof or while copying."""
    settings.BACKUP_PROVE = "all"

    def fail(*args, **kwargs):
        raise RuntimeError

    for module, name in ((services, "prove_kept"), (run.copies, "copy"), (status, "retention")):
        run.run(now=True)
        assert status.status().state is State.OK
        write_a_note()
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(RuntimeError):
                run.run(now=True)
        assert "RuntimeError" in status.status().message
        assert status.status().state is State.FAILED
        assert not status.last_run().is_unfinished


def test_a_proof_whose_time_is_up_ends_so_and_the_copies_are_made(nightly, settings, tmp_path, monkeypatch):
    settings.BACKUP_AUTOMATIC_SECONDS, settings.BACKUP_PROVE = 2, "all"
    settings.BACKUP_LOCATIONS = f"nas={tmp_path / 'nas'}"
    begun = []

    def slow(*args):
        begun.append(1)
        time.sleep(20)

    monkeypatch.setattr(process_of_children, "copy_source", slow)
    monkeypatch.setattr(run.turns, "next_to_prove", lambda backups, now: backups[0])
    with run.time_limit():
        run.run(now=True)
    (backup,) = kept.backups()
    assert backup.proof["verdict"] == "unknown"
    assert "BACKUP_AUTOMATIC_SECONDS" in backup.proof["reason"]
    assert begun == [1], "no other one is begun"
    assert backup.locations == ("local", "nas")
    assert status.status().state is State.OK


def test_its_last_seconds_end_too(nightly, settings, tmp_path, monkeypatch):
    """What is left of its time after a proof goes to the copies, and they may hang as well."""
    settings.BACKUP_AUTOMATIC_SECONDS, settings.BACKUP_PROVE = 2, "all"
    settings.BACKUP_LOCATIONS = f"nas={tmp_path / 'nas'}"
    monkeypatch.setattr(run, "LAST_SECONDS", 1)
    monkeypatch.setattr(process_of_children, "copy_source", lambda *args: time.sleep(20))

    class Hanging(queue.Queue):
        def get(self):
            time.sleep(20)

    monkeypatch.setattr(run.copies, "SimpleQueue", Hanging)
    with run.time_limit():
        run.run(now=True)
    assert not status.last_run().is_unfinished
    assert "BACKUP_AUTOMATIC_SECONDS" in elsewhere.seen()["nas"].message


# -- retention ---


def test_retention_comes_after_a_backup(nightly, at, settings):
    settings.BACKUP_KEEP = "last=3"
    for day in range(1, 8):
        write_a_note()
        assert made(at(f"2026-11-0{day} 03:00"))
    assert automatic() == ["11-05 02:00", "11-06 02:00", "11-07 02:00"]
    with freeze_time(at("2026-11-07 04:00")):
        assert [verdict.reasons for verdict in status.retention()] == [
            ("the newest", "last"),
            ("last",),
            ("last",),
        ]


def test_other_kinds_and_pinned_ones_stay(nightly, at, settings):
    settings.BACKUP_KEEP = "last=1"
    with freeze_time(at("2026-11-01 03:00")):
        manual = services.keep_backup(BackupKind.MANUAL).name
        kept.pin(run.run().backup.name, True)
    for day in (2, 3):
        write_a_note()
        assert made(at(f"2026-11-0{day} 03:00"))
    assert automatic() == ["11-01 02:00", "11-03 02:00"]
    assert manual in {backup.name for backup in kept.backups(BackupKind.MANUAL)}


def test_a_failed_backup_removes_nothing(nightly, at, settings, monkeypatch):
    settings.BACKUP_KEEP = "last=3"
    for day in (1, 2, 3):
        write_a_note()
        assert made(at(f"2026-11-0{day} 03:00"))
    settings.BACKUP_KEEP = "last=1"
    write_a_note()
    with monkeypatch.context() as patch:
        patch.setattr(kept, "keep", full_disk)
        with pytest.raises(StorageFailed), freeze_time(at("2026-11-04 03:00")):
            run.run()
    assert len(automatic()) == 3


def test_the_future_decides_nothing(nightly, at):
    with freeze_time(at("2031-01-01 12:00")):
        services.keep_backup(BackupKind.AUTOMATIC)
    with freeze_time(at("2026-11-03 12:00")):
        assert status.status().last is None
        assert run.run().made
        assert status.status().last.created == at("2026-11-03 12:00")
        assert status.status().state is State.OK
    assert len(automatic()) == 2


def full_disk(*args, **kwargs):
    raise StorageFailed("The server cannot store the file (No space left on device).")


# -- failures ---


def test_a_failure_is_told_once_and_its_end_too(nightly, at, monkeypatch):
    assert made(at("2026-11-03 12:00"))
    assert mail.outbox == [], "the first success is no news"
    write_a_note()
    with monkeypatch.context() as patch:
        patch.setattr(kept, "keep", full_disk)
        for minute in (0, 1, 6):
            with pytest.raises(StorageFailed), freeze_time(at(f"2026-11-04 03:0{minute}")):
                run.run()
    with freeze_time(at("2026-11-04 03:07")):
        found = status.status()
        assert found.state is State.FAILED
        assert "No space left" in found.message
        assert outlook.read().due == at("2026-11-04 03:36").timestamp(), "1, 5, 30 minutes, then each hour"
        assert found.next == at("2026-11-04 03:36")
    (told,) = mail.outbox
    assert told.to == ["admin@example.com"]
    assert "No space left" in told.body
    assert made(at("2026-11-04 03:36"))
    assert len(mail.outbox) == 2
    assert "work again" in mail.outbox[1].subject
    with freeze_time(at("2026-11-04 03:37")):
        assert status.status().state is State.OK


def test_the_last_notice_is_read_from_older_files(at):
    last = LastRun(at("2026-11-04 03:00"), error="No space left", tries=2, notified="failed", posted="failed")
    older = last.as_json()
    del older["posted"]
    older["told"] = older.pop("notified")
    assert LastRun.from_json(older) == LastRun.from_json(last.as_json()) == last
    del older["told"]
    assert LastRun.from_json(older) is None


def test_an_unknown_fault_is_told_too(nightly, monkeypatch):
    def fault(*args, **kwargs):
        raise RuntimeError("secret")

    monkeypatch.setattr(services, "create_backup", fault)
    with pytest.raises(RuntimeError):
        run.run()
    assert "RuntimeError" in status.status().message
    assert "secret" not in status.status().message


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_storage_that_fails_altogether_is_told_once(nightly, settings, tmp_path, monkeypatch):
    """The state cannot be written there either."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    file = tmp_path / "file"
    file.touch()
    settings.BACKUP_ROOT = file / "below"
    for _ in range(3):
        with pytest.raises(StorageFailed):
            run.run()
    assert len(mail.outbox) == 1
    assert status.status().state is State.FAILED
    assert outlook.read().last_run.tries == 3


@pytest.fixture
def pings(monkeypatch):
    """The ends of the addresses that are requested after runs."""
    found = []
    monkeypatch.setattr(run.notices, "ping", lambda suffix="": found.append(suffix) or True)
    return found


@pytest.fixture
def disk(settings, tmp_path, monkeypatch):
    """A folder for backups that goes away, as a disk does, and comes back."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    root, away = tmp_path / "disk", tmp_path / "away"
    settings.BACKUP_ROOT = root

    class Disk:
        def goes(self):
            root.rename(away)
            root.touch()

        def returns(self):
            root.unlink()
            away.rename(root)

    return Disk()


def fails_at(moment):
    with freeze_time(moment), pytest.raises(BackupError):
        run.run()


def told():
    return ["works" if "work again" in message.subject else "fails" for message in mail.outbox]


def test_each_outage_of_the_storage_is_told(nightly, at, disk):
    """What was told of an earlier one says nothing of this one."""
    assert made(at("2026-11-03 12:00"))
    for day in (4, 7):
        disk.goes()
        for later in (0, 1):
            fails_at(at(f"2026-11-0{day + later} 12:00"))
        disk.returns()
        write_a_note()
        assert made(at(f"2026-11-0{day + 2} 12:00"))
        with freeze_time(at(f"2026-11-0{day + 2} 12:00")):
            assert status.last_run().tries == 0
    assert told() == ["fails", "works"] * 2


def test_each_wrong_folder_is_told(nightly, at, settings, disk):
    right = settings.BACKUP_ROOT
    for day, wrong in ((4, "/proc/x"), (5, "/proc/x"), (6, "~nosuchuser/x"), (7, "~nosuchuser/x")):
        settings.BACKUP_ROOT = wrong
        fails_at(at(f"2026-11-0{day} 03:00"))
        fails_at(at(f"2026-11-0{day} 04:00"))
        settings.BACKUP_ROOT = right
        assert made(at(f"2026-11-0{day} 12:00"))
        write_a_note()
    assert told() == ["fails", "works"] * 4


def test_an_outage_is_told_by_whom_another_one_has_ended_the_last_one_for(nightly, at, disk, tmp_path):
    """Another machine or user has other temporary files, which only show that its own runs failed."""
    assert made(at("2026-11-03 12:00"))
    disk.goes()
    fails_at(at("2026-11-04 12:00"))
    (mine,) = tmp_path.glob("babybuddy-backup-*.json")
    content = mine.read_bytes()
    disk.returns()
    write_a_note()
    assert made(at("2026-11-05 12:00"))
    mine.write_bytes(content)  # the run that succeeded was somebody else's
    with freeze_time(at("2026-11-05 12:01")):
        assert not look._is_due(), "a look after a request"
    disk.goes()
    fails_at(at("2026-11-06 12:00"))
    assert told() == ["fails", "works", "fails"]


class Distant(InMemoryStorage):
    """A storage on a server that can be away."""

    is_away = False

    def __getattribute__(self, name):
        if Distant.is_away and name in ("open", "save", "delete", "exists", "listdir", "size"):
            raise ConnectionError("The server is away.")
        return super().__getattribute__(name)


def test_each_outage_of_a_storage_on_a_server_is_told(nightly, at, settings, disk, monkeypatch):
    """What is noted on this machine is as new as what is noted in the storage."""
    settings.STORAGES = {**settings.STORAGES, "backups": {"BACKEND": f"{__name__}.Distant"}}
    assert made(at("2026-11-03 12:00"))
    for day in (4, 6):
        with monkeypatch.context() as patch:
            patch.setattr(Distant, "is_away", True)
            fails_at(at(f"2026-11-0{day} 12:00"))
            fails_at(at(f"2026-11-0{day} 13:00"))
        write_a_note()
        assert made(at(f"2026-11-0{day + 1} 12:00"))
    assert told() == ["fails", "works"] * 2


def test_a_disk_that_is_full_is_told_once(nightly, at, monkeypatch, tmp_path):
    """Nothing can be written beside the backups that are there, but in the folder for temporary files."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert made(at("2026-11-03 12:00"))
    real = outlook.atomic_write

    def full(path):
        if path.parent == conf.root:
            raise OSError(28, "No space left on device")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "put", full_disk)
        patch.setattr(outlook, "atomic_write", full)
        write_a_note()
        for minute in (0, 1, 6):
            with freeze_time(at(f"2026-11-04 03:0{minute}")):
                with pytest.raises(StorageFailed):
                    run.run()
                assert status.status().state is State.FAILED
        assert len(mail.outbox) == 1
    assert made(at("2026-11-04 03:36"))
    with freeze_time(at("2026-11-04 03:36")):
        assert status.status().state is State.OK
    assert len(mail.outbox) == 2


@pytest.mark.skipif(connection.vendor != "sqlite", reason="of SQLite, which lets a column hold anything")
def test_a_value_that_cannot_be_read_is_no_reason_for_no_backup(nightly, at, monkeypatch, settings):
    """All else is kept, the state says what is missing, once, and a failure after that is news again."""
    settings.BACKUP_KEEP = "last=1"
    assert made(at("2026-11-03 03:00"))
    whole = kept.names()[0].text
    note = core.Note.objects.first().pk
    with connection.cursor() as cursor:
        cursor.execute("UPDATE core_note SET note = CAST(x'e8e9' AS TEXT) WHERE id = %s", [note])
    assert made(at("2026-11-04 03:00"))
    with freeze_time(at("2026-11-04 12:00")):
        found = status.status()
        assert found.state is State.FAILED
        assert f"core.note {note}, field note" in found.message
        assert "\xe8" not in found.message, "what is in it goes to nobody's mail box"
        assert found.last.left_out.total == 1
        assert found.last.counts == {backup.name: backup for backup in kept.backups()}[whole].counts
    assert len(mail.outbox) == 1
    assert f"core.note {note}" in mail.outbox[0].body
    for night in range(5, 8):
        write_a_note(f"{night}")
        assert made(at(f"2026-11-0{night} 03:00"))
    assert len(mail.outbox) == 1, "it is no news"
    assert {name.text for name in kept.names()} == {whole, found_newest()}, "the whole one stays beside"
    assert made(at("2026-11-08 03:00")) is False, "nothing has changed"
    assert len(kept.names()) == 2
    write_a_note()
    with monkeypatch.context() as patch:
        patch.setattr(kept, "keep", full_disk)
        with pytest.raises(StorageFailed):
            made(at("2026-11-09 03:00"))
    assert len(mail.outbox) == 2
    assert made(at("2026-11-09 04:00"))
    core.Note.objects.filter(pk=note).update(note="mended")
    assert made(at("2026-11-10 03:00"))
    with freeze_time(at("2026-11-10 12:00")):
        assert status.status().state is State.OK
    assert found_newest() != whole
    assert len(kept.names()) == 1


@pytest.mark.skipif(connection.vendor != "sqlite", reason="of SQLite, which lets a column hold anything")
def test_mended_to_what_was_left_out(nightly, at):
    """The file would be the same, but it no longer lacks anything."""
    change = core.DiaperChange.objects.first().pk
    with connection.cursor() as cursor:
        cursor.execute("UPDATE core_diaperchange SET amount = '3,45' WHERE id = %s", [change])
    assert made(at("2026-11-03 03:00"))
    core.DiaperChange.objects.filter(pk=change).update(amount=None)
    assert made(at("2026-11-04 03:00")) is True
    with freeze_time(at("2026-11-04 12:00")):
        assert status.status().state is State.OK


def test_what_is_wrong_with_a_table_is_said(nightly):
    """A mail without it would not say how to mend it. Of a record, only the place is named."""
    places = [
        Place("core.feeding", None, None, "an index lacks some"),
        Place("core.note", 1, "note", "secret"),
        Place("authtoken.token", None, "created", "secret"),
    ]
    message = messages.lossy(replace(services.keep_backup(), left_out=Places(places, 3)))
    assert "core.feeding: an index lacks some, core.note 1, field note, authtoken.token, field" in message
    assert "secret" not in message


def found_newest():
    return max(kept.backups(BackupKind.AUTOMATIC), key=lambda backup: backup.created).name


def test_old_ones_that_cannot_be_removed_are_a_failure_but_the_backup_is_made(
    nightly, at, settings, monkeypatch
):
    settings.BACKUP_KEEP = "last=1"
    assert made(at("2026-11-03 12:00"))
    write_a_note()
    with monkeypatch.context() as patch:
        patch.setattr(kept, "delete_here", full_disk)
        assert made(at("2026-11-04 12:00"))
    with freeze_time(at("2026-11-04 12:00")):
        assert status.status().state is State.FAILED
        assert status.status().message.count("could not be removed") == 1
        assert outlook.read().due == at("2026-11-04 12:01").timestamp(), "tried again soon"
    with freeze_time(at("2026-11-04 12:01")):
        assert not run.run().made
        assert status.status().state is State.OK
    assert automatic() == ["11-04 11:00"]


def test_overdue_is_worked_out_when_somebody_looks(nightly, at):
    assert status.status().state is State.OVERDUE, "there is none yet"
    assert made(at("2026-11-03 12:00"))
    for moment, state in (("04 12:00", State.OK), ("05 02:29", State.OK), ("05 02:31", State.OVERDUE)):
        with freeze_time(at(f"2026-11-{moment}")):
            assert status.status().state is state
    write_a_note()
    assert made(at("2026-11-09 03:00"))
    assert mail.outbox == [], "a server that was switched off is no news once it is made up"


class Killed(BaseException):
    """Nothing can be done any more."""


def test_runs_that_are_killed_are_told_by_the_next_one_once_a_backup_is_overdue(nightly, at, monkeypatch):
    assert made(at("2026-11-03 12:00"))

    def die(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(services, "create_backup", die)
        for moment, mails in (
            ("04 03:00", 0),
            ("04 12:00", 0),
            ("05 03:00", 1),
            ("05 04:00", 1),
            ("06 03:00", 1),
        ):
            with freeze_time(at(f"2026-11-{moment}")):
                with pytest.raises(Killed):
                    run.run()
                assert len(mail.outbox) == mails, moment
    assert made(at("2026-11-06 04:00")) is False, "nothing has changed"
    assert [message.subject for message in mail.outbox] == [
        "Baby Buddy: automatic backups need your attention",
        "Baby Buddy: automatic backups work again",
    ]


@pytest.mark.parametrize("where", ["proof", "copy", "tidy"])
def test_a_run_that_is_killed_after_the_backup_is_finished_by_the_next_look(
    nightly, at, settings, tmp_path, monkeypatch, quick_proofs, where
):
    settings.BACKUP_LOCATIONS = f"nas={tmp_path / 'nas'}"
    settings.BACKUP_KEEP, settings.BACKUP_PROVE = "last=2", "all"
    for day in (1, 2):
        write_a_note()
        assert made(at(f"2026-11-0{day} 03:00"))
    module, name = {
        "proof": (services, "prove_kept"),
        "copy": (run.copies, "copy"),
        "tidy": (kept, "delete_here"),
    }[where]

    def die(*args, **kwargs):
        raise Killed

    write_a_note()
    with freeze_time(at("2026-11-03 03:00")), monkeypatch.context() as patch:
        patch.setattr(module, name, die)
        with pytest.raises(Killed):
            run.run()
        assert outlook.read().is_due(at("2026-11-03 03:01"))
    with freeze_time(at("2026-11-03 03:01")):
        assert not run.run().made, "nothing has changed since"
        newest, before = (kept.find(backup.name) for backup in kept.backups())
        assert newest.created == at("2026-11-03 03:00"), "the oldest is removed"
        assert newest.locations == before.locations == ("local", "nas")
        assert newest.proof["verdict"] == "proved"
        assert status.status().state is State.OK
        assert not outlook.read().is_due(at("2026-11-03 03:02"))
    assert mail.outbox == []


def test_runs_that_are_killed_again_and_again_are_told_although_there_is_a_backup(
    nightly, at, settings, tmp_path, monkeypatch
):
    settings.BACKUP_LOCATIONS = f"nas={tmp_path / 'nas'}"

    def die(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(run.copies, "copy", die)
        for moment, mails in (("03:00", 0), ("03:01", 0), ("03:02", 1), ("03:04", 1)):
            with freeze_time(at(f"2026-11-03 {moment}")):
                with pytest.raises(Killed):
                    run.run()
                assert len(mail.outbox) == mails, moment
        with freeze_time(at("2026-11-03 04:00")):
            assert status.status().state is State.FAILED
            assert "several times in a row" in status.status().message
    with freeze_time(at("2026-11-03 05:00")):
        run.run()
        assert status.status().state is State.OK
        assert kept.backups()[0].locations == ("local", "nas")
    assert [message.subject for message in mail.outbox] == [
        "Baby Buddy: automatic backups need your attention",
        "Baby Buddy: automatic backups work again",
    ]


def test_that_the_first_backup_is_still_to_come_is_no_news(nightly, at):
    with freeze_time(at("2026-11-03 12:00")):
        call_command("backup", keep=True)
        run.notify_of_proof()
        assert status.status().state is State.OVERDUE
        assert mail.outbox == []
    assert made(at("2026-11-03 12:01"))
    assert mail.outbox == [], "nor does anything work again"


def test_that_the_first_backup_never_comes_is_news(nightly, at, monkeypatch):
    def die(*args, **kwargs):
        raise Killed

    with freeze_time(at("2026-11-03 12:00")):
        with monkeypatch.context() as patch:
            patch.setattr(services, "create_backup", die)
            with pytest.raises(Killed):
                run.run()
        assert mail.outbox == []
        call_command("backup", keep=True)
        assert [message.subject for message in mail.outbox] == [
            "Baby Buddy: automatic backups need your attention"
        ]


# -- the shrink guard ---


def many_notes(number):
    child = core.Child.objects.first()
    core.Note.objects.bulk_create(core.Note(child=child, note=f"{n}") for n in range(number))


def test_the_guard_goes_up_where_a_child_is_gone(nightly, at, settings):
    settings.BACKUP_KEEP = "last=1"
    with freeze_time(at("2026-11-01 03:00")):
        good = run.run().backup.name
    core.Child.objects.first().delete()
    core.Child.objects.create(first_name="Another", last_name="One", birth_date=dt.date(2026, 1, 1))
    for day in (2, 3, 4):
        write_a_note()
        assert made(at(f"2026-11-0{day} 03:00"))
    with freeze_time(at("2026-11-04 12:00")):
        assert len(automatic()) == 4, "nothing is removed"
        found = status.status()
        assert found.state is State.SHRUNK
        assert found.before == good
        losses = {loss["model"]: loss for loss in found.as_json()["shrunk"]}
        assert losses["core.child"] == {"model": "core.child", "before": 2, "now": 1}
        assert {"fewer" in message.subject for message in mail.outbox} == {True}
        assert len(mail.outbox) == 1
        assert all("superuser" in reason for v in status.retention()[1:] for reason in v.reasons)
        with pytest.raises(Forbidden):
            acknowledge(nightly.staff)
        assert acknowledge(nightly.admin).state is State.OK
    write_a_note()
    assert made(at("2026-11-05 03:00"))
    assert automatic() == ["11-05 02:00"]


def test_a_child_that_another_one_has_replaced_is_gone(nightly, at, settings):
    settings.BACKUP_KEEP = "last=1"
    assert made(at("2026-11-01 03:00"))
    child = core.Child.objects.last()
    child.last_name = "Married"
    child.save()
    assert made(at("2026-11-02 03:00"))
    with freeze_time(at("2026-11-02 12:00")):
        assert status.status().state is State.OK, "it only got another name"
    child.birth_date, child.first_name = dt.date(2019, 1, 1), "Nobody"
    child.save()
    assert made(at("2026-11-03 03:00"))
    with freeze_time(at("2026-11-03 12:00")):
        assert [loss.model for loss in status.status().losses] == ["core.child"]


def test_the_guard_stays_up_if_the_backup_that_shows_the_loss_is_deleted(nightly, at, settings):
    settings.BACKUP_KEEP = "last=1"
    assert made(at("2026-11-01 03:00"))
    core.Child.objects.first().delete()
    for day in (2, 3):
        write_a_note()
        with freeze_time(at(f"2026-11-0{day} 03:00")):
            small = run.run().backup.name
            if day == 2:
                kept.delete(small)
    with freeze_time(at("2026-11-03 12:00")):
        assert [loss.model for loss in status.status().losses] == ["core.child"]
        assert automatic() == ["11-01 02:00", "11-03 02:00"]
        kept.delete(small)
    write_a_note()
    assert made(at("2026-11-04 03:00"))
    assert automatic() == ["11-01 02:00", "11-04 02:00"]


def test_what_no_key_here_opens_stays_and_pushes_nothing_out(nightly, at, settings):
    """Its key may be on paper, and nobody knows what it holds."""
    settings.BACKUP_KEEP, settings.BACKUP_ENCRYPT, settings.BACKUP_PROVE = "last=1", ["local"], "off"
    first, second = Key.make().text, Key.make().text
    settings.BACKUP_KEY = first
    assert made(at("2026-11-01 03:00"))
    core.Child.objects.first().delete()
    settings.BACKUP_KEY = second
    for day in (2, 3):
        write_a_note()
        assert made(at(f"2026-11-0{day} 03:00"))
    assert automatic() == ["11-01 02:00", "11-03 02:00"]
    settings.BACKUP_KEY = first
    with freeze_time(at("2026-11-03 12:00")):
        assert status.status().last.created == at("2026-11-01 03:00")
    write_a_note()
    assert made(at("2026-11-04 03:00"))
    assert automatic() == ["11-01 02:00", "11-03 02:00", "11-04 02:00"]
    with freeze_time(at("2026-11-04 12:00")):
        assert [loss.model for loss in status.status().losses] == ["core.child"]


@pytest.mark.parametrize(
    ("before", "now", "is_up"),
    [(300, 240, False), (300, 239, True), (60, 10, False), (60, 9, True), (40, 0, False), (1000, 949, False)],
)
def test_a_fifth_and_more_than_fifty(nightly, at, before, now, is_up):
    core.Note.objects.all().delete()
    many_notes(before)
    assert made(at("2026-11-01 03:00"))
    core.Note.objects.filter(pk__in=list(core.Note.objects.values_list("pk", flat=True))[now:]).delete()
    assert made(at("2026-11-02 03:00"))
    with freeze_time(at("2026-11-02 04:00")):
        assert (status.status().state is State.SHRUNK) is is_up


def test_other_models_may_shrink(nightly, at):
    User.objects.bulk_create(User(username=f"user{n}") for n in range(100))
    assert made(at("2026-11-01 03:00"))
    User.objects.filter(username__startswith="user").delete()
    assert made(at("2026-11-02 03:00"))
    with freeze_time(at("2026-11-02 04:00")):
        assert status.status().state is State.OK


# -- a clock that was wrong ---


def fails(moment, settings):
    settings.BACKUP_ENCRYPT = "local"  # there is no key
    with freeze_time(moment), pytest.raises(BackupError):
        run.run(now=True)
    settings.BACKUP_ENCRYPT = "off"


def test_a_run_that_failed_while_the_clock_was_ahead_puts_nothing_off(nightly, at, settings):
    fails(at("2027-11-03 12:00"), settings)
    with freeze_time(at("2026-11-03 12:00")):
        assert look._is_due()
        assert run.run().made
        assert status.status().state is State.OK
        assert not look._is_due()
    with freeze_time(at("2026-11-04 12:00")):
        assert look._is_due()


def test_a_run_that_found_nothing_new_while_the_clock_was_ahead_puts_nothing_off(nightly, at):
    assert made(at("2026-11-03 12:00"))
    assert not made(at("2031-05-01 12:00"))
    write_a_note("new")
    with freeze_time(at("2026-11-04 12:00")):
        assert look._is_due()
        assert run.run().made
    assert not made(at("2026-11-05 12:00"))
    with freeze_time(at("2026-11-05 13:00")):
        assert status.status().as_json()["last"]["unchanged"].startswith("2026-11-05")


@pytest.mark.parametrize("fails_to_save", [False, True])
def test_a_good_run_while_the_clock_was_ahead_hides_no_failure(
    nightly, at, settings, monkeypatch, fails_to_save
):
    assert made(at("2027-11-03 12:00"))
    assert made(at("2026-11-03 12:00"))
    if fails_to_save:  # the run is then noted on this machine only
        monkeypatch.setattr(status.state, "save_last_run", full_disk)
    fails(at("2026-11-03 13:00"), settings)
    with freeze_time(at("2026-11-03 13:02")):
        assert status.status().state is State.FAILED
        assert look._is_due()
    assert len(mail.outbox) == 1


# -- many months ---


def test_six_weeks_of_nights(nightly, at):
    """Each night a backup, and at the end a look at what the rules left. A clock change is among them."""
    with freeze_time(at("2026-10-20 06:00")) as clock:
        for _ in range(42):
            write_a_note()
            assert run.run().made
            clock.tick(dt.timedelta(days=1))
    assert automatic() == [
        *["10-31 04:00", "11-15 04:00", "11-22 04:00"],
        *[f"11-{day} 04:00" for day in range(24, 31)],
    ]
    assert mail.outbox == []


def test_two_machines_with_one_database_and_one_storage(nightly, at, settings, tmp_path):
    """What one of them made, the other finds, though it has to ask once."""
    memory = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
    settings.STORAGES = {**settings.STORAGES, "backups": memory}

    def on(machine):
        settings.BACKUP_ROOT = str(tmp_path / machine)
        return look._is_due(), run.run().made, look._is_due()

    with freeze_time(at("2026-11-03 12:00")):
        assert on("one") == (True, True, False)
        assert on("two") == (True, False, False)
    write_a_note()
    with freeze_time(at("2026-11-04 12:00")):
        assert on("two") == (True, True, False)
        assert on("one") == (True, False, False)
        assert len(automatic()) == 2
        assert status.status().state is State.OK


def test_the_child_is_nobody_at_a_command_line(nightly, caplog):
    caplog.set_level("INFO", "backup")
    assert child.main() == 0
    told = [line for line in caplog.messages if line.startswith("automatic backup by ")]
    assert len(told) == 1
    assert told[0].startswith("automatic backup by automatic: ")


def test_there_is_a_wrong_value_of_each_setting():
    assert {f"BACKUP_{name}" for name in WRONG} == {*OPTIONS}


def by_child(admin):
    assert child.main() in (0, 1)


def by_command(admin):
    with suppress(CommandError):
        call_command("backup", "--automatic")


def by_command_now(admin):
    with suppress(CommandError):
        call_command("backup", "--automatic", "--now")


def by_request(admin):
    client = Client()
    client.force_login(admin)
    assert client.post(reverse("backup:run"), {"automatic": "true"}).status_code in (302, 500)


@pytest.mark.parametrize(
    ("name", "value"), [*WRONG.items(), ("AUTOMATIC_SECONDS", 0), ("AUTOMATIC_SECONDS", 10**20)]
)
@pytest.mark.parametrize("by", [by_child, by_command, by_command_now, by_request])
def test_a_wrong_setting_is_named_to_whoever_is_told(
    nightly, settings, tmp_path, monkeypatch, quick_proofs, pings, name, value, by
):
    """Not only by the name of an error: the status and the mail say which setting, and what it must be."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings.BACKUP_PING_URL = "https://example.com"
    setattr(settings, f"BACKUP_{name}", value)
    by(nightly.admin)
    (message,) = {status.status().message, *(message.body for message in mail.outbox)}
    assert f"A setting of this site is wrong: BACKUP_{name} " in message
    assert len(mail.outbox) == 1
    assert outlook.read().state == "failed"
    assert pings[-1:] == ["/fail"]


@pytest.mark.parametrize("value", ["1h", 0, 10**20])
def test_a_wrong_time_limit_stops_no_backup(nightly, settings, value):
    settings.BACKUP_AUTOMATIC_SECONDS = value
    child.main()
    assert len(automatic()) == 1


def test_a_wrong_setting_of_proofs_stops_no_copy(nightly, settings, tmp_path):
    settings.BACKUP_PROVE = "yes"
    settings.BACKUP_LOCATIONS = {"nas": tmp_path / "nas"}
    made = run.run(now=True).backup
    assert kept.find(made.name).locations == (kept.LOCAL, "nas")

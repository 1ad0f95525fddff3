"""Copies of kept backups in locations: what goes there, encrypted or not, when it is tried again, and what stays."""

import asyncio
import datetime as dt
import errno
import io
import json
import os
import shutil
import threading
import time
import zipfile
from dataclasses import replace
from typing import ClassVar

import pytest
from core import models as core
from django.contrib.auth.models import User
from django.core import mail
from django.core.files.base import ContentFile
from django.core.files.storage import InMemoryStorage
from django.core.management import CommandError, call_command
from django.test import Client
from freezegun import freeze_time

from backup import services
from backup.archive import Key, Keys, open_archive
from backup.automatic import copies, guard, look, outlook, probe, run, status
from backup.automatic.status import State
from backup.conf import aware_now, conf
from backup.database.memo import site_id
from backup.exceptions import InvalidBackup, LocationFailed, NoSuchBackup, NotMounted, StorageFailed
from backup.presentation.kept import kept_in_words, verdict_in_words
from backup.proof import Verdict
from backup.storage import bounded, elsewhere, files, kept, keys
from backup.storage.elsewhere import State as Copies
from backup.storage.kept import BackupKind
from backup.storage.locations import Location
from backup.storage.locations.folder import Folder
from tests.support.backups import restore, spoiled
from tests.support.http import script, url
from tests.support.matrices import again
from tests.support.photos import picture
from tests.support.processes import ask, hear, process
from tests.support.snapshots import differences, snapshot


@pytest.fixture
def places(nightly, settings, tmp_path):
    """Two locations, `nas` and `usb`, that are folders; nothing is proved, and no process is started."""
    settings.BACKUP_LOCATIONS = ",".join(f"{name}={tmp_path / name}" for name in ("nas", "usb"))
    settings.BACKUP_PROVE = "off"
    return {name: tmp_path / name for name in ("nas", "usb")}


@pytest.fixture
def starts(monkeypatch):
    """The starts of a child, which is not started."""
    found = []
    monkeypatch.setattr(look, "start", lambda: found.append(1))
    return found


def there(folder):
    """The files of this site in a location, by their moments."""
    return sorted((folder / f"site_{site_id()}" / "kept").glob("*.zip"))


def night(moment):
    """A run after something was entered."""
    with freeze_time(moment):
        core.Note.objects.create(child=core.Child.objects.first(), note=str(moment))
        return run.run().backup


def states():
    return {seen["name"]: seen["state"] for seen in status.status().as_json()["locations"]}


def away(folder):
    """As a disk that is not mounted."""
    return folder.rename(folder.with_name(f"{folder.name}.away"))


def back(folder):
    folder.with_name(f"{folder.name}.away").rename(folder)


# -- what goes there ---


def test_the_log_says_who_had_it_copied(places, caplog):
    caplog.set_level("INFO", "backup")
    run.run(now=True, user=User.objects.get(username="admin"))
    told = [line for line in caplog.messages if line.startswith("copying to ")]
    assert len(told) == 2
    assert all(" by 'admin'" in line for line in told)


def test_an_automatic_backup_goes_to_each_location(places):
    assert states() == {"nas": "unknown", "usb": "unknown"}, "nobody has asked yet"
    before = snapshot()
    made = run.run().backup
    for folder in places.values():
        (path,) = there(folder)
        assert path.name == made.name
        with kept.open_backup(made.name) as here:
            assert path.read_bytes() == here.read()
        with path.open("rb") as file:
            restore(file, clear=True)
        assert not differences(before, snapshot())
    (entry,) = kept.backups(BackupKind.AUTOMATIC)
    assert entry.as_json()["locations"] == ["local", "nas", "usb"]
    assert states() == {"nas": "ok", "usb": "ok"}


def test_what_is_clear_here_is_encrypted_there_once_there_is_a_key(places):
    key = keys.add().key
    made = run.run().backup
    assert not made.encrypted
    (path,) = there(places["nas"])
    assert path.name == f"{made.identity}_{key.id}.zip"
    with zipfile.ZipFile(path) as archive:
        assert all(info.flag_bits & 1 for info in archive.infolist() if info.filename != "README.txt")
    with (
        path.open("rb") as file,
        kept.open_backup(made.name) as clear,
        open_archive(file, keys=Keys(key)) as sealed,
        open_archive(clear) as original,
    ):
        assert sealed.metadata.models == original.metadata.models
        assert sealed.metadata.timestamp == original.metadata.timestamp
        for label in original.metadata.models:
            assert [*sealed.records(label)] == [*original.records(label)]
    assert kept.find(made.name).locations == ("local", "nas", "usb")


def test_what_is_encrypted_by_name(places, settings):
    settings.BACKUP_ENCRYPT = ["usb"]
    keys.add()
    run.run()
    (clear,), (sealed,) = there(places["nas"]), there(places["usb"])
    assert zipfile.is_zipfile(clear)
    assert "_" not in clear.name.removesuffix(".zip")[-16:]
    assert sealed.name != clear.name


def test_what_is_encrypted_here_goes_as_it_is(places, settings):
    settings.BACKUP_ENCRYPT = ["local"]
    keys.add()
    made = run.run().backup
    for folder in places.values():
        assert [path.name for path in there(folder)] == [made.name]


def test_nothing_falls_back_to_clear(places, settings):
    settings.BACKUP_ENCRYPT = ["nas"]
    run.run()
    assert there(places["nas"]) == []
    assert states() == {"nas": "failed", "usb": "ok"}
    assert "there is no key" in elsewhere.seen()["nas"].message


def test_a_key_that_went_lost_stops_the_copies(places, at):
    keys.add()
    night(at("2026-11-03 03:00"))
    ring = f"{conf.root}/keys.json"
    shutil.move(ring, f"{ring}.away")
    night(at("2026-11-04 03:00"))
    assert [len(there(folder)) for folder in places.values()] == [1, 1]
    assert states() == {"nas": "failed", "usb": "failed"}
    assert "BACKUP_KEY" in elsewhere.seen()["nas"].message
    shutil.move(f"{ring}.away", ring)
    night(at("2026-11-05 03:00"))
    assert [len(there(folder)) for folder in places.values()] == [3, 3], "what was lacking as well"


def test_a_key_that_went_lost_lets_nothing_in_clear_go_to_a_new_location(places, settings, at):
    locations = settings.BACKUP_LOCATIONS
    settings.BACKUP_LOCATIONS = locations.partition(",")[0]
    key = keys.add().key
    night(at("2026-11-03 03:00"))
    (conf.root / "keys.json").unlink()
    settings.BACKUP_LOCATIONS = locations
    night(at("2026-11-04 03:00"))
    assert [len(there(folder)) for folder in places.values()] == [1, 0]
    for seen in elsewhere.seen().values():
        assert (seen.state, key.id in seen.message, seen.name in seen.message) == (Copies.FAILED, True, True)
    settings.BACKUP_ENCRYPT = "off"
    night(at("2026-11-05 03:00"))
    assert [len(there(folder)) for folder in places.values()] == [3, 3]


def test_a_key_that_went_lost_is_known_from_what_is_kept_here(places, settings, at):
    """Where nothing is known of the locations: they have other addresses, and none lets anybody list them."""
    locations, settings.BACKUP_LOCATIONS = settings.BACKUP_LOCATIONS, ""
    settings.BACKUP_ENCRYPT = ["local"]
    key = keys.add().key
    night(at("2026-11-03 03:00"))
    (conf.root / "keys.json").unlink()
    del settings.BACKUP_ENCRYPT
    settings.BACKUP_LOCATIONS = locations
    night(at("2026-11-04 03:00"))
    assert [there(folder) for folder in places.values()] == [[], []]
    assert all(key.id in seen.message for seen in elsewhere.seen().values())


def test_a_ring_that_cannot_be_read_stops_the_copies(places, at):
    keys.add()
    files.put_json("/keys.json", {"keys": "?"})
    night(at("2026-11-03 03:00"))
    assert [there(folder) for folder in places.values()] == [[], []]
    assert states() == {"nas": "failed", "usb": "failed"}


def test_once_encrypted_the_copy_in_clear_goes(places, at):
    night(at("2026-11-03 03:00"))
    key = keys.add().key
    night(at("2026-11-04 03:00"))
    for folder in places.values():
        assert [path.name[-8:-4] for path in there(folder)] == [key.id, key.id]


def test_a_copy_in_clear_that_stayed_beside_an_encrypted_one_goes(places):
    """As where a visit was killed between the two, or the location let nobody delete then."""
    made = run.run().backup
    clear = {name: there(folder)[0].read_bytes() for name, folder in places.items()}
    keys.add()
    run.run(now=True)
    for name, folder in places.items():
        (folder / f"site_{site_id()}" / "kept" / made.name).write_bytes(clear[name])
    run.run(now=True)
    for folder in places.values():
        assert made.name not in [path.name for path in there(folder)]
    assert states() == {"nas": "ok", "usb": "ok"}


def test_a_new_location_gets_what_is_here(places, settings, at, starts):
    for day in (3, 4, 5):
        night(at(f"2026-11-0{day} 03:00"))
    with freeze_time(at("2026-11-05 12:00")):
        assert not look._is_due()
        settings.BACKUP_LOCATIONS = f"{settings.BACKUP_LOCATIONS},cloud={places['nas'].with_name('cloud')}"
        assert look._is_due(), "another location"
        assert not run.run().made
        assert len(there(places["nas"].with_name("cloud"))) == 3
        assert not look._is_due()


def test_only_what_can_be_read_counts(places, at):
    """Where the notes are gone, too, and with them what the file was."""
    first, second = (night(at(f"2026-11-0{day} 03:00")) for day in (3, 4))
    for path in conf.root.rglob(second.name):
        path.unlink()
    with zipfile.ZipFile(there(places["nas"])[-1], "w") as archive:
        archive.writestr("metadata.json", "{}")
    (notes,) = conf.root.rglob("locations.json")
    notes.unlink()
    with freeze_time(at("2026-11-04 04:00")):
        run.copy_again()
        (seen,) = [seen for seen in status.status().locations if seen.name == "nas"]
    assert {path.name for path in there(places["nas"])} == {first.name, second.name}
    assert "1 backup, of Nov. 3" in seen.message


def test_safety_copies_stay_here(places):
    services.keep_backup(BackupKind.SAFETY)
    made = services.keep_backup(label="by hand")
    run.copy_again()
    assert [path.name for path in there(places["nas"])] == [made.name]


def cut_off(monkeypatch):
    """As by a server that takes only the beginning of a backup, and says nothing."""
    real = Folder.write

    def write(self, name, file, activity):
        real(self, name, file, activity)
        if "/kept/" in name:
            with (self._path / name).open("r+b") as target:
                target.truncate(1000)

    monkeypatch.setattr(Folder, "write", write)


def test_what_was_sent_is_read_back(places, monkeypatch):
    cut_off(monkeypatch)
    run.run()
    assert states() == {"nas": "failed", "usb": "failed"}
    assert "not what was sent" in elsewhere.seen()["nas"].message
    assert there(places["nas"]) == [], "nor is it taken for a good one"


@pytest.mark.parametrize("what", [["kept"], ["photos"], ["kept", "photos"]])
def test_a_location_that_shows_something_else_loses_no_good_copy(one, at, monkeypatch, what):
    """As a server does behind a page that answers in its place: it lists nothing, and what is read is not the file."""
    photo = ContentFile(picture(), name="photo.png")
    core.Note.objects.create(child=core.Child.objects.first(), note="photo", image=photo)
    night(at("2026-11-01 03:00"))
    before = {path: path.read_bytes() for path in one["nas"].rglob("*") if path.is_file()}
    assert {"kept", "photos"} <= {path.parent.name for path in before}
    with monkeypatch.context() as patch:
        lie(patch, what)
        for visit in (copies.copy, copies.copy, lambda: night(at("2026-11-02 03:00"))):
            visit()
            assert states() == {"nas": "failed"}
            assert "not what was sent" in elsewhere.seen()["nas"].message
            now = {path: path.read_bytes() for path in one["nas"].rglob("*") if path.is_file()}
            assert before.items() <= now.items()
    night(at("2026-11-03 03:00"))
    assert states() == {"nas": "ok"}, "it has looked again"


def test_a_copy_that_is_gone_and_comes_back_damaged_is_no_good_one(one, at, monkeypatch):
    night(at("2026-11-01 03:00"))
    there(one["nas"])[0].unlink()
    with monkeypatch.context() as patch:
        cut_off(patch)
        for day in (2, 3):
            night(at(f"2026-11-0{day} 03:00"))
            assert states() == {"nas": "failed"}
            assert not elsewhere.seen()["nas"].copies
    night(at("2026-11-04 03:00"))
    assert states() == {"nas": "ok"}
    here = {path.name: path.read_bytes() for path in (conf.root / f"site_{site_id()}" / "kept").glob("*.zip")}
    assert {path.name: path.read_bytes() for path in there(one["nas"])} == here


def lie(patch, folders):
    real = {name: getattr(Folder, name) for name in ("sizes", "read_part")}

    def sizes(self, folder, activity):
        return {} if folder.endswith(tuple(folders)) else real["sizes"](self, folder, activity)

    def read_part(self, name, start, length):
        is_other = name.split("/")[-2] in folders
        return b"<html/>" if is_other else real["read_part"](self, name, start, length)

    patch.setattr(Folder, "sizes", sizes)
    patch.setattr(Folder, "read_part", read_part)


# -- when ---


def test_one_that_is_down_has_tries_of_its_own(places, at, starts):
    night(at("2026-11-03 03:00"))
    away(places["usb"])
    night(at("2026-11-04 02:30"))
    assert states() == {"nas": "ok", "usb": "failed"}
    assert len(there(places["nas"])) == 2, "it delays no other"
    tries = []
    for minute in [*range(31, 120), *range(120, 24 * 60, 15)]:
        with freeze_time(at("2026-11-04 02:00") + dt.timedelta(minutes=minute)):
            if look._is_due():
                tries.append(minute - 30)
                assert not run.run().made
    assert tries == [1, 6, 36], "1, 5 and 30 minutes after the one before"
    back(places["usb"])
    night(at("2026-11-05 02:30"))
    assert states() == {"nas": "ok", "usb": "ok"}
    assert len(there(places["usb"])) == 3


def test_it_is_told_once_where_the_tries_are_over(places, at):
    night(at("2026-11-03 03:00"))
    away(places["usb"])
    night(at("2026-11-04 02:30"))
    for minutes in (1, 6):
        with freeze_time(at("2026-11-04 02:30") + dt.timedelta(minutes=minutes)):
            run.run()
    assert mail.outbox == [], "a disk that sleeps is no news"
    with freeze_time(at("2026-11-04 02:30") + dt.timedelta(minutes=36)):
        run.run()
        assert status.status().state is State.OK, "another copy is as young"
    (told,) = mail.outbox
    assert "usb" in told.body
    assert str(places["usb"]) not in told.body
    for day in (5, 6, 7):
        night(at(f"2026-11-0{day} 02:30"))
    assert len(mail.outbox) == 1
    back(places["usb"])
    night(at("2026-11-08 02:30"))
    assert [message.subject for message in mail.outbox[1:]] == ["Baby Buddy: automatic backups work again"]


def test_the_whole_fails_where_no_copy_is_younger_than_two_slots(places, settings, at):
    settings.BACKUP_LOCATIONS = f"nas={places['nas']}"
    night(at("2026-11-03 02:30"))
    away(places["nas"])
    night(at("2026-11-04 02:30"))
    with freeze_time(at("2026-11-04 02:31")):
        found = status.status()
        assert found.state is State.OK
        assert "nas" in found.message, "but it is said"
    night(at("2026-11-05 02:30"))
    with freeze_time(at("2026-11-05 02:31")):
        assert status.status().state is State.FAILED
    assert len(mail.outbox) == 1
    back(places["nas"])
    night(at("2026-11-06 02:30"))
    assert len(mail.outbox) == 2


@pytest.mark.parametrize("minutes", [10, 60, 24 * 60])
def test_it_is_told_where_each_run_begins_the_tries_anew(places, at, minutes):
    """Only a command makes the backups, say, and nobody asks the site for a page."""

    def visit(moment):
        with freeze_time(moment):
            run.run(now=True)

    visit(at("2026-11-03 02:30"))
    away(places["usb"])
    begin, told = at("2026-11-04 02:30"), []
    for number in range(6):
        visit(begin + dt.timedelta(minutes=minutes * number))
        told.append(len(mail.outbox))
    first = -(-36 // minutes)
    assert told == [int(number >= first) for number in range(6)]
    assert "usb" in mail.outbox[0].body
    back(places["usb"])
    visit(begin + dt.timedelta(minutes=minutes * 6))
    assert len(mail.outbox) == 2
    away(places["usb"])
    visit(begin + dt.timedelta(minutes=minutes * 7))
    assert len(mail.outbox) == 2, "that it failed before does not count"


def test_a_location_that_is_down_does_not_count_as_up_to_date(places, settings, at):
    """Each run finds that nothing has changed, but not whether the copy still is there."""
    settings.BACKUP_LOCATIONS = f"nas={places['nas']}"
    night(at("2026-11-03 02:30"))
    with freeze_time(at("2026-11-06 02:30")):
        assert not run.run().made
    away(places["nas"])
    with freeze_time(at("2026-11-07 02:30")):
        assert not run.run().made
        assert status.status().state is State.OK, "a disk that sleeps is no news"
    for day in range(8, 12):
        with freeze_time(at(f"2026-11-{day:02} 02:30")):
            assert not run.run().made
            assert status.status().state is State.FAILED
    assert len(mail.outbox) == 1


def test_two_locations_that_are_down_do_not_cover_each_other(places, at):
    night(at("2026-11-03 02:30"))
    away(places["nas"])
    away(places["usb"])
    for moment in ("2026-11-04 02:30", "2026-11-04 03:10"):
        with freeze_time(at(moment)):
            run.run(now=True)
    with freeze_time(at("2026-11-04 03:11")):
        assert status.status().state is State.FAILED


@pytest.mark.parametrize("number", [1, 2])
def test_a_location_whose_state_is_failed_covers_nothing(places, settings, at, number):
    """Here since a damaged backup cannot be sent to any of them."""
    addresses, settings.BACKUP_LOCATIONS = settings.BACKUP_LOCATIONS.split(",")[:number], ""
    night(at("2026-11-02 02:30"))
    with freeze_time(at("2026-11-02 12:00")):
        bad = services.keep_backup()
    damage(conf.root / f"site_{site_id()}" / "kept" / bad.name, "core/child")
    settings.BACKUP_LOCATIONS = ",".join(addresses)
    night(at("2026-11-04 02:30"))
    assert set(states().values()) == {"failed"}
    with freeze_time(at("2026-11-04 02:31")):
        assert status.status().state is State.FAILED


def test_a_location_that_failed_while_the_clock_was_ahead_is_tried_at_once(places, at):
    night(at("2026-11-03 03:00"))
    away(places["usb"])
    night(at("2031-05-01 02:30"))
    back(places["usb"])
    with freeze_time(at("2026-11-03 12:00")):
        assert elsewhere.seen()["usb"].is_due(aware_now())
        run.run()
        assert states() == {"nas": "ok", "usb": "ok"}
        assert not elsewhere.seen()["usb"].is_due(aware_now())


def test_where_there_never_was_a_copy_the_whole_fails(places, settings, at):
    settings.BACKUP_LOCATIONS = "nas=/proc/there/is/none"
    night(at("2026-11-03 02:30"))
    with freeze_time(at("2026-11-03 02:31")):
        assert status.status().state is State.FAILED
        assert len(kept.backups()) == 1


def test_a_backup_by_hand_is_copied_after_the_request(places, nightly, starts, monkeypatch):
    run.run()
    monkeypatch.setattr(look.watch, "next", 1e12)
    answer = script(nightly.admin).post(url("run"), {"label": "before the update"})
    assert answer.status_code == 200
    assert starts == [1]
    run.run()
    assert len(there(places["nas"])) == 2
    assert not look._is_due()


def test_with_the_schedule_off_copies_are_made_all_the_same(places, settings, starts, watch):
    settings.BACKUP_SCHEDULE = "off"
    services.keep_backup()
    assert look._is_due()
    assert not run.run().made
    assert len(there(places["nas"])) == 1
    assert not look._is_due()


def test_one_that_takes_too_long_is_left_alone(places, settings, monkeypatch):
    """When the time of the whole run is up. What is done in the others stands."""
    settings.BACKUP_AUTOMATIC_SECONDS = 3
    real, goes_on = Folder.write, threading.Event()

    def write(self, name, file, activity):
        if self._path == places["usb"]:
            goes_on.wait(60)
        real(self, name, file, activity)

    monkeypatch.setattr(Folder, "write", write)
    before = time.monotonic()
    with run.time_limit():
        assert run.run().made
    goes_on.set()
    assert time.monotonic() - before < 20
    assert states() == {"nas": "ok", "usb": "failed"}
    assert "BACKUP_AUTOMATIC_SECONDS" in elsewhere.seen()["usb"].message
    assert elsewhere.seen()["usb"].next_try is not None


class Ending(InMemoryStorage):
    """A storage whose library raises errors that would end a process. `errors`: one for each way to ask."""

    errors: ClassVar = {}

    def _save(self, name, content):
        if error := self.errors.get("save"):
            raise error
        return super()._save(name, content)

    def listdir(self, path):
        if error := self.errors.get("list"):
            raise error
        return super().listdir(path)


@pytest.mark.parametrize("step", ["save", "list"])
@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, GeneratorExit, KeyboardInterrupt])
def test_an_error_that_would_end_a_process_is_one_of_the_location(places, settings, monkeypatch, step, error):
    settings.BACKUP_AUTOMATIC_SECONDS = 10
    settings.STORAGES = {**settings.STORAGES, "ending": {"BACKEND": f"{__name__}.Ending"}}
    settings.BACKUP_LOCATIONS = f"nas={places['nas']},cloud=storage:ending"
    monkeypatch.setattr(Ending, "errors", {step: error()})
    with run.time_limit():
        assert run.run().made
    assert states() == {"nas": "ok", "cloud": "failed"}
    cloud = elsewhere.seen()["cloud"]
    assert error.__name__ in cloud.message
    assert cloud.next_try is not None
    assert probe.test("cloud", None).state is Copies.FAILED
    monkeypatch.setattr(Ending, "errors", {})
    assert probe.test("cloud", None).state is not Copies.FAILED
    copies.copy()
    assert states() == {"nas": "ok", "cloud": "ok"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_location_whose_visit_cannot_even_fail_is_not_waited_for(places, settings, monkeypatch):
    """Whatever goes wrong in its thread, it comes to its end."""
    settings.BACKUP_AUTOMATIC_SECONDS = 10

    class Connections:
        def close_all(self):
            raise SystemExit

    monkeypatch.setattr(copies, "connections", Connections())
    with run.time_limit():
        run.run()
    assert {*states().values()} == {"ok"}


# -- what stays there ---


def test_each_location_keeps_what_the_rules_want(places, settings, at):
    settings.BACKUP_KEEP = "last=2"
    for day in (3, 4, 5):
        night(at(f"2026-11-0{day} 03:00"))
    by_hand = services.keep_backup()
    run.copy_again()
    for folder in places.values():
        assert len(there(folder)) == 3
        assert by_hand.name in [path.name for path in there(folder)]
    assert len(kept.backups()) == 3


@pytest.mark.parametrize("room", [2, 0], ids=["for two", "for none any more"])
def test_a_location_that_is_full_keeps_what_the_rules_want_of_what_comes(
    one, settings, at, monkeypatch, room
):
    settings.BACKUP_KEEP = "last=2"
    write = Folder.write
    for day in (1, 2):
        night(at(f"2026-11-0{day} 03:00"))

    def full(self, name, file, activity):
        if name.endswith(".zip") and len(there(one["nas"])) >= room:
            raise OSError(errno.ENOSPC, "")
        write(self, name, file, activity)

    monkeypatch.setattr(Folder, "write", full)
    for day in (3, 4):
        night(at(f"2026-11-0{day} 03:00"))
    assert of_day(one["nas"], *((3, 4) if room else (2,)))
    assert states()["nas"] == ("ok" if room else "failed")


def test_a_location_that_has_no_room_for_a_note_makes_some(one, settings, at, monkeypatch):
    for day in (1, 2):
        last = night(at(f"2026-11-0{day} 03:00"))
    kept.pin(last.name, True)
    write = Folder.write

    def full(self, name, file, activity):
        if name.endswith(".json") and len(there(one["nas"])) > 1:
            raise OSError(errno.ENOSPC, "")
        write(self, name, file, activity)

    monkeypatch.setattr(Folder, "write", full)
    settings.BACKUP_KEEP = "last=1"
    copies.copy()
    assert of_day(one["nas"], 2)
    assert states() == {"nas": "ok"}
    assert [*one["nas"].glob("site_*/kept/*.json")]


def test_a_pinned_one_stays_everywhere(places, settings, at):
    settings.BACKUP_KEEP = "last=1"
    kept.pin(night(at("2026-11-03 03:00")).name, True)
    night(at("2026-11-04 03:00"))
    night(at("2026-11-05 03:00"))
    for folder in places.values():
        assert [path.name[14:18] for path in there(folder)] == ["1103", "1105"]


def lose_root():
    """What a server loses that has its database elsewhere, with its disk."""
    shutil.rmtree(conf.root)


def lose_backups():
    """What a clean-up takes."""
    shutil.rmtree(conf.root / f"site_{site_id()}" / "kept")


@pytest.mark.parametrize(
    ("lose", "is_encrypted"), [(lose_root, False), (lose_backups, False), again(lose_root, True)]
)
def test_what_is_pinned_stays_if_the_disk_is_lost(places, settings, at, is_encrypted, lose):
    settings.BACKUP_KEEP = "last=1"
    if is_encrypted:
        settings.BACKUP_KEY = keys.add().key.text
    kept.pin(night(at("2026-11-03 03:00")).name, True)
    night(at("2026-11-04 03:00"))
    (marker,) = there(places["nas"])[0].parent.glob("*.json")
    assert marker.stem == kept.backups()[-1].identity
    lose()
    for day in (5, 6, 7):
        night(at(f"2026-11-0{day} 03:00"))
    for folder in places.values():
        assert [path.name[14:18] for path in there(folder)] == ["1103", "1107"]
    pinned = kept.backups()[-1]
    assert (pinned.pinned, pinned.locations) == (True, ("nas", "usb"))
    kept.pin(pinned.name, False)
    night(at("2026-11-08 03:00"))
    for folder in places.values():
        assert [path.name[14:18] for path in there(folder)] == ["1108"]
    night(at("2026-11-09 03:00"))
    assert not [*marker.parent.glob("*.json")]


def test_what_was_not_read_yet_stays_pinned(one, settings, at, monkeypatch):
    """A visit looks into a limited number of files that it did not know."""
    settings.BACKUP_KEEP = "last=2"
    kept.pin(night(at("2026-11-03 03:00")).name, True)
    night(at("2026-11-04 03:00"))
    night(at("2026-11-05 03:00"))
    lose_root()
    monkeypatch.setattr(copies, "LEARNED", 1)
    for day in range(6, 11):
        night(at(f"2026-11-{day:02} 03:00"))
    assert [path.name[14:18] for path in there(one["nas"])] == ["1103", "1109", "1110"]


def test_a_copy_is_compared_before_it_is_removed(one, settings, at):
    """The copy is known, nothing is noted beside it, and the file in BACKUP_ROOT is gone."""
    settings.BACKUP_KEEP = "last=2"
    good = night(at("2026-11-01 03:00"))
    night(at("2026-11-02 03:00"))
    core.Child.objects.last().delete()
    folder = conf.root / f"site_{site_id()}" / "kept"
    for path in folder.iterdir():
        path.unlink()
    elsewhere.change(
        "nas", lambda seen: replace(seen, copies={good.name: seen.copies[good.name]})
    )  # as if the others were sent by somebody else
    there(one["nas"])[1].unlink()
    away(one["nas"])
    night(at("2026-11-03 03:00"))
    back(one["nas"])
    night(at("2026-11-04 03:00"))
    assert status.status().before == good.name
    night(at("2026-11-05 03:00"))
    assert of_day(one["nas"], 1, 3, 4, 5)
    assert [loss.model for loss in status.status().losses] == ["core.child"]


@pytest.mark.parametrize("trouble", ["no reading", "damaged"])
def test_a_copy_that_cannot_be_read_is_not_removed(one, settings, at, monkeypatch, trouble):
    settings.BACKUP_KEEP = "last=2"
    for day in (1, 2):
        night(at(f"2026-11-0{day} 03:00"))
    (conf.root / f"site_{site_id()}" / "kept" / there(one["nas"])[0].name).unlink()
    if trouble == "damaged":
        damage(there(one["nas"])[0], "core/child")
    else:
        real = Folder.read_part

        def read_part(self, name, start, length):
            if "20261101" in name:
                raise PermissionError(13, "denied")
            return real(self, name, start, length)

        monkeypatch.setattr(Folder, "read_part", read_part)
    night(at("2026-11-03 03:00"))
    assert of_day(one["nas"], 1, 2, 3)
    assert states() == {"nas": "unknown"}


@pytest.mark.parametrize("way_on", ["the old key", again("a new key")])
def test_a_loss_is_noticed_if_the_keys_are_lost_too(one, settings, at, way_on):
    settings.BACKUP_KEEP = "last=1"
    ring = keys.add()
    night(at("2026-11-03 03:00"))
    stored = (conf.root / "keys.json").read_bytes()
    lose_root()
    core.Child.objects.last().delete()
    night(at("2026-11-04 03:00"))
    assert states() == {"nas": "failed"}
    if way_on == "the old key":
        (conf.root / "keys.json").write_bytes(stored)
    else:
        keys.add()
    for day in (5, 6):
        night(at(f"2026-11-0{day} 03:00"))
    good = [path for path in there(one["nas"]) if path.name[14:18] == "1103"]
    assert [path.name[-8:-4] for path in good] == [ring.key.id]
    if way_on == "the old key":
        assert [loss.model for loss in status.status().losses] == ["core.child"]


def test_a_copy_that_cannot_be_compared_stays(one, settings, at):
    """Its records are damaged, which nobody has noticed yet."""
    settings.BACKUP_KEEP = "last=1"
    night(at("2026-11-03 03:00"))
    lose_root()
    (path,) = there(one["nas"])
    damage(path, "core/child")
    for day in (4, 5):
        night(at(f"2026-11-0{day} 03:00"))
    assert [path.name[14:18] for path in there(one["nas"])] == ["1103", "1105"]
    assert states() == {"nas": "unknown"}


def cut(path):
    path.write_bytes(path.read_bytes()[:5000])


def of_day(folder, *days):
    """Whether a location has these and no others."""
    return [path.name[14:18] for path in there(folder)] == [f"11{day:02}" for day in days]


def test_a_damaged_copy_does_not_hide_the_others(one, settings, at):
    settings.BACKUP_KEEP = "last=1,daily=3"
    for day in (1, 2, 3):
        night(at(f"2026-11-0{day} 03:00"))
    cut(there(one["nas"])[-1])
    lose_root()
    core.Child.objects.last().delete()
    night(at("2026-11-04 03:00"))
    assert [loss.model for loss in status.status().losses] == ["core.child"]
    assert [b.created.day for b in kept.backups() if not b.is_damaged] == [4, 2, 1]


def test_a_loss_is_noticed_if_the_location_was_away_as_well(one, settings, at):
    """Until all backups from before it came back were gone, or had only been compared with one another."""
    settings.BACKUP_KEEP = "last=1"
    night(at("2026-11-01 03:00"))
    lose_root()
    core.Child.objects.last().delete()
    locations, settings.BACKUP_LOCATIONS = settings.BACKUP_LOCATIONS, ""
    for day in (2, 3, 4):
        night(at(f"2026-11-0{day} 03:00"))
    settings.BACKUP_LOCATIONS = locations
    night(at("2026-11-05 03:00"))
    assert [loss.model for loss in status.status().losses] == ["core.child"]
    kept.delete(kept.backups()[0].name)
    night(at("2026-11-06 03:00"))
    assert [loss.model for loss in status.status().losses] == ["core.child"]
    assert there(one["nas"])[0].name[14:18] == "1101"


def test_a_loss_is_noticed_that_only_a_location_shows_which_is_down(one, settings, at):
    settings.BACKUP_KEEP = "last=2"
    night(at("2026-11-01 03:00"))
    newest = night(at("2026-11-02 03:00"))
    (conf.root / f"site_{site_id()}" / "kept" / newest.name).unlink()
    core.Child.objects.last().delete()
    away(one["nas"])
    night(at("2026-11-03 03:00"))
    assert [loss.model for loss in status.status().losses] == ["core.child"]
    back(one["nas"])
    for day in (4, 5):
        night(at(f"2026-11-0{day} 03:00"))
    assert of_day(one["nas"], 1, 2, 3, 4, 5)


def test_a_key_that_went_lost_is_known_from_a_location_of_another_name(one, settings, at):
    keys.add()
    night(at("2026-11-01 03:00"))
    (conf.root / "keys.json").unlink()
    settings.BACKUP_LOCATIONS = f"cloud={one['usb']}"
    for day in (2, 3):
        night(at(f"2026-11-0{day} 03:00"))
    assert there(one["usb"]) == []
    assert states() == {"cloud": "failed"}


@pytest.mark.parametrize("step", [0, 1])
def test_a_visit_whose_end_is_not_noted_is_made_up_for(one, settings, at, monkeypatch, step):
    """As where the server is killed after the first visit to copies that BACKUP_ROOT knew."""
    settings.BACKUP_KEEP = "last=1"
    kept.pin(night(at("2026-11-01 03:00")).name, True)
    night(at("2026-11-02 03:00"))
    lose_root()
    core.Child.objects.last().delete()

    real, steps = kept.change, []

    def fails(*args):
        steps.append(args)
        if len(steps) > step:
            raise StorageFailed("No.")
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(kept, "change", fails)
        night(at("2026-11-03 03:00"))
    assert len(steps) == step + 1
    for day in (4, 5):
        night(at(f"2026-11-0{day} 03:00"))
    assert of_day(one["nas"], 1, 2, 3, 4, 5)
    assert [loss.model for loss in status.status().losses] == ["core.child"]
    assert kept.backups()[-1].pinned


def test_a_copy_that_is_listed_and_not_there_is_passed_over(one, settings, at, monkeypatch):
    settings.BACKUP_KEEP = "last=1"
    kept.pin(night(at("2026-11-01 03:00")).name, True)
    ghost = night(at("2026-11-02 03:00")).name
    real, name = Folder.sizes, ghost.replace("20261102", "20261030")
    monkeypatch.setattr(Folder, "sizes", lambda *args: {**real(*args), name: 1})
    lose_root()
    for day in (3, 4, 5):
        night(at(f"2026-11-0{day} 03:00"))
    assert of_day(one["nas"], 1, 5)
    assert states() == {"nas": "ok"}


@pytest.mark.parametrize("content", ["", again("{"), again("[]")])
def test_what_nobody_knows_any_more_counts_as_pinned(one, settings, at, content):
    settings.BACKUP_KEEP = "last=1"
    kept.pin(night(at("2026-11-01 03:00")).name, True)
    night(at("2026-11-02 03:00"))
    for path in (conf.root / f"site_{site_id()}" / "kept").glob("*.zip"):
        path.with_suffix(".json").write_text(content)
    night(at("2026-11-03 03:00"))
    assert of_day(one["nas"], 1, 2, 3), "those whose notes were damaged"
    kept.pin(kept.backups()[1].name, False)
    night(at("2026-11-04 03:00"))
    assert of_day(one["nas"], 1, 4)


@pytest.mark.parametrize("damaged", [True, False])
def test_a_copy_in_clear_only_goes_for_one_that_can_be_opened(one, settings, at, damaged):
    settings.BACKUP_KEEP = "last=9"
    made = night(at("2026-11-01 03:00"))
    clear = there(one["nas"])[0].read_bytes()
    ring = keys.add().key
    night(at("2026-11-02 03:00"))
    first = there(one["nas"])[0]
    (first.parent / made.name).write_bytes(clear)
    if damaged:
        cut(first)
    lose_root()  # with its keys
    settings.BACKUP_KEY = ring.text if damaged else Key.make().text
    night(at("2026-11-03 03:00"))
    assert made.name in [path.name for path in there(one["nas"])]


@pytest.mark.parametrize("was", ["in clear", again("encrypted")])
def test_a_damaged_copy_goes_for_a_whole_one_of_another_key(one, at, quick_proofs, monkeypatch, was):
    """Nothing is noted of it: it was cut off by a killed upload, say. Or it failed its proof."""
    if was == "encrypted":
        keys.add()
    made = night(at("2026-11-01 03:00"))
    (damaged,) = there(one["nas"])
    cut(damaged)
    if was == "encrypted":
        services.prove_kept(made.name, place="nas")
    else:
        files.delete(f"{files.LAST}/locations.json")
    key = keys.add().key
    with monkeypatch.context() as patch:
        cut_off(patch)
        night(at("2026-11-02 03:00"))
        assert damaged in there(one["nas"]), "the whole one did not arrive"
    night(at("2026-11-03 03:00"))
    assert [path.name[-8:-4] for path in there(one["nas"])] == [key.id] * 3
    assert states() == {"nas": "ok"}


def test_a_copy_whose_key_is_lost_is_sent_again(one, at):
    """What it is of is here, and can be opened."""
    keys.add()
    night(at("2026-11-01 03:00"))
    (conf.root / "keys.json").unlink()
    key = keys.add().key
    night(at("2026-11-02 03:00"))
    assert [path.name[-8:-4] for path in there(one["nas"])] == [key.id, key.id]


def test_a_key_that_went_lost_is_known_from_the_address_before(one, settings, at):
    keys.add()
    night(at("2026-11-01 03:00"))
    (conf.root / "keys.json").unlink()
    settings.BACKUP_LOCATIONS = f"nas={one['usb']}"
    for day in (2, 3):
        night(at(f"2026-11-0{day} 03:00"))
    assert there(one["usb"]) == []
    assert states() == {"nas": "failed"}


@pytest.mark.parametrize("what", ["records", "all of it"])
def test_a_damaged_backup_stops_no_other(one, settings, at, what):
    settings.BACKUP_LOCATIONS = ""
    night(at("2026-11-01 03:00"))
    with freeze_time(at("2026-11-01 12:00")):
        bad = services.keep_backup()
    night(at("2026-11-02 03:00"))
    path = conf.root / f"site_{site_id()}" / "kept" / bad.name
    damage(path, "core/child") if what == "records" else cut(path)
    keys.add()
    settings.BACKUP_LOCATIONS = f"nas={one['nas']}"
    night(at("2026-11-03 03:00"))
    assert of_day(one["nas"], 1, 2, 3)
    assert states() == {"nas": "failed"}
    assert bad.name in elsewhere.seen()["nas"].message


@pytest.mark.parametrize(
    ("what", "lose"), [("a child", lose_root), again("notes", lose_backups), again("nothing", lose_root)]
)
def test_a_loss_is_noticed_if_the_disk_is_lost_too(places, settings, at, nightly, what, lose):
    settings.BACKUP_KEEP = "last=1"
    core.Note.objects.bulk_create(
        core.Note(child=core.Child.objects.first(), note=str(n)) for n in range(100)
    )
    night(at("2026-11-03 03:00"))
    night(at("2026-11-04 03:00"))
    lose()
    if what == "a child":
        core.Child.objects.last().delete()
    elif what == "notes":
        core.Note.objects.all().delete()
    for day in (5, 6):
        night(at(f"2026-11-0{day} 03:00"))
    if what == "nothing":
        for folder in places.values():
            assert [path.name[14:18] for path in there(folder)] == ["1106"]
        return
    (loss,) = status.status().losses
    assert loss.model == ("core.child" if what == "a child" else "core.note")
    assert status.status().before.startswith("babybuddy_20261104")
    for folder in places.values():
        assert [path.name[14:18] for path in there(folder)] == ["1104", "1105", "1106"]
    status.acknowledge(nightly.admin)
    night(at("2026-11-07 03:00"))
    assert not status.status().losses
    for folder in places.values():
        assert [path.name[14:18] for path in there(folder)] == ["1107"]


def during(monkeypatch, act):
    """Have something done while the locations are being visited, once."""
    real, waiting = Folder.sizes, [act]

    def sizes(self, folder, activity):
        found = real(self, folder, activity)
        if folder.endswith("kept") and waiting:
            waiting.pop()()
        return found

    monkeypatch.setattr(Folder, "sizes", sizes)


@pytest.fixture
def one(places, settings):
    """The locations, but only `nas`."""
    settings.BACKUP_LOCATIONS = f"nas={places['nas']}"
    return places


def test_one_that_is_pinned_meanwhile_stays(one, settings, at, monkeypatch):
    settings.BACKUP_KEEP = "last=1"
    first = night(at("2026-11-03 03:00"))
    during(monkeypatch, lambda: kept.pin(first.name, True))
    night(at("2026-11-04 03:00"))
    assert kept.find(first.name).locations == ("local", "nas")


def test_one_that_is_pinned_while_it_is_compared_stays(one, settings, at, monkeypatch):
    settings.BACKUP_KEEP = "last=1"
    first = night(at("2026-11-03 03:00"))
    real = guard.lost_without

    def lost_without(name, *arguments):
        kept.pin(first.name, True)
        return real(name, *arguments)

    monkeypatch.setattr(guard, "lost_without", lost_without)
    night(at("2026-11-04 03:00"))
    assert kept.find(first.name).locations == ("local", "nas")


def while_one_is_deleted(monkeypatch, act):
    """Have something done while a location deletes a backup, once."""
    real, waiting = Folder.delete, [act]

    def delete(self, name):
        if name.endswith(".zip") and waiting:
            waiting.pop()()
        real(self, name)

    monkeypatch.setattr(Folder, "delete", delete)


def test_one_that_is_pinned_while_its_copy_is_removed_is_sent_again(one, nightly, settings, at, monkeypatch):
    settings.BACKUP_KEEP = "last=1"
    first = night(at("2026-11-03 03:00"))
    pin = url("kept_pin", first.name)
    while_one_is_deleted(monkeypatch, lambda: script(nightly.admin).post(pin, {"pinned": "true"}))
    night(at("2026-11-04 03:00"))
    assert look._is_due()
    run.copy_again()
    assert kept.find(first.name).locations == ("local", "nas")
    lose_root()
    copies.copy()
    assert [backup.name for backup in kept.backups() if backup.pinned] == [first.name]


def test_one_that_is_pinned_while_others_are_deleted_stays(one, monkeypatch):
    made = [services.keep_backup() for _ in range(2)]
    copies.copy()
    away(one["nas"])
    for backup in made:
        with pytest.raises(NotMounted):
            kept.delete(backup.name)
    back(one["nas"])
    while_one_is_deleted(monkeypatch, lambda: kept.pin(made[1].name, True))
    copies.copy()
    assert [backup.name for backup in kept.backups()] == [made[1].name]
    assert [path.name for path in there(one["nas"])] == [made[1].name]


def test_one_that_is_deleted_is_not_pinned_any_more(one):
    made = services.keep_backup(pinned=True)
    copies.copy()
    away(one["nas"])
    with pytest.raises(NotMounted):
        kept.delete(made.name)
    assert not kept.find(made.name).pinned, "it is deleted with the next visit"
    back(one["nas"])
    copies.copy()
    assert kept.backups() == []
    assert not [*one["nas"].glob("site_*/kept/*")]


def test_one_that_is_deleted_meanwhile_is_no_failure(one, at, monkeypatch):
    """Its copy was lost and is sent again, and then it is deleted before that is noted."""
    first = night(at("2026-11-03 03:00"))
    there(one["nas"])[0].unlink()
    with freeze_time(at("2026-11-03 04:00")):
        services.prove_kept(first.name, place="nas")
    real = elsewhere.change

    def change(name, change):
        with monkeypatch.context() as patch:
            patch.setattr(elsewhere, "change", real)
            kept.delete(first.name)
        return real(name, change)

    monkeypatch.setattr(elsewhere, "change", change)
    assert run.run(now=True).backup is not None
    assert status.last_run().error == ""


@pytest.mark.parametrize("number", [0, 1])
def test_one_that_is_deleted_during_a_visit_stays_nowhere(one, monkeypatch, number):
    """The first copy is complete then, and not noted yet. The second one arrives after the deletion."""
    names = [services.keep_backup().name for _ in range(2)][::-1]  # in the order in which they are sent
    real = Folder.write

    def write(self, name, file, activity):
        if name.endswith(names[1]):
            kept.delete(names[number])
        real(self, name, file, activity)

    monkeypatch.setattr(Folder, "write", write)
    copies.copy()
    assert [path.name for path in there(one["nas"])] == [names[1 - number]]
    assert [(backup.name, backup.locations) for backup in kept.backups()] == [
        (names[1 - number], ("local", "nas"))
    ]
    seen = elsewhere.seen()["nas"]
    assert (seen.state, seen.deleted) == (Copies.OK, frozenset())


def test_one_that_is_deleted_after_a_visit_was_killed_stays_nowhere(one, nightly, monkeypatch):
    first = run.run().backup
    made = services.keep_backup()
    with monkeypatch.context() as patch:
        patch.setattr(copies, "_note", lambda visit, outcome: None)
        run.copy_again()
    assert len(there(one["nas"])) == 2
    assert script(nightly.admin).post(url("kept_delete", made.name)).status_code == 204
    assert look._is_due()
    run.copy_again()
    assert [path.name for path in there(one["nas"])] == [first.name]
    assert [backup.name for backup in kept.backups()] == [first.name]
    assert states() == {"nas": "ok"}
    assert not look._is_due()


def test_what_is_noted_meanwhile_is_not_lost(one, monkeypatch):
    """A location is tested while a run copies to it."""
    real = Location.test

    def test(self):
        run.run()
        return real(self)

    monkeypatch.setattr(Location, "test", test)
    probe.test("nas", None)
    (backup,) = kept.backups()
    assert backup.locations == ("local", "nas")


def test_a_backup_by_hand_that_is_made_during_a_visit_is_copied_next(one, monkeypatch, starts):
    made = []
    during(monkeypatch, lambda: made.append(services.keep_backup()))
    run.run()
    assert kept.find(made[0].name).locations == ("local",)
    assert elsewhere.seen()["nas"].is_due(aware_now())
    run.copy_again()
    assert kept.find(made[0].name).locations == ("local", "nas")


def test_notes_are_made_one_after_the_other(one, monkeypatch):
    run.run()
    with process(HOLDER) as holder:
        assert hear(holder) == "held"
        waited = []

        def ends(seconds):
            waited.append(seconds)
            assert ask(holder, "") == "free"
            monkeypatch.undo()

        monkeypatch.setattr(time, "sleep", ends)
        elsewhere.ask_again()
    assert waited


HOLDER = """
    from backup.storage import files
    with files.noting():
        print("held", flush=True)
        input()
    print("free", flush=True)
"""


def test_nothing_is_removed_while_the_guard_is_up(places, settings, at):
    settings.BACKUP_KEEP = "last=1"
    night(at("2026-11-03 03:00"))
    core.Child.objects.all()[1].delete()
    night(at("2026-11-04 03:00"))
    night(at("2026-11-05 03:00"))
    assert [len(there(folder)) for folder in places.values()] == [3, 3]


def test_a_location_that_was_down_is_tidied_later(places, settings, at):
    settings.BACKUP_KEEP = "last=1"
    night(at("2026-11-03 03:00"))
    away(places["usb"])
    night(at("2026-11-04 03:00"))
    assert len(there(places["nas"])) == 1
    back(places["usb"])
    assert len(kept.backups()) == 2, "the older one lies in usb alone"
    night(at("2026-11-05 03:00"))
    assert len(there(places["usb"])) == 1
    assert len(kept.backups()) == 1
    assert {name.rpartition(".")[0] for name in files.names_in("kept")} == {
        f"kept/{kept.backups()[0].identity}"
    }


def test_copies_that_are_gone_are_said_and_sent_again(places, at):
    first = night(at("2026-11-03 03:00"))
    night(at("2026-11-04 03:00"))
    there(places["nas"])[0].unlink()
    night(at("2026-11-05 03:00"))
    assert states() == {"nas": "failed", "usb": "ok"}
    assert first.name in elsewhere.seen()["nas"].message
    assert len(there(places["nas"])) == 3
    assert len(mail.outbox) == 1
    night(at("2026-11-06 03:00"))
    assert states() == {"nas": "ok", "usb": "ok"}


def deny(monkeypatch, *names):
    def refuse(self, *args):
        raise PermissionError(13, "denied")

    for name in names:
        monkeypatch.setattr(Folder, name, refuse)


def test_a_location_that_lets_nobody_list_or_delete_is_neither_good_nor_an_error(
    places, settings, at, monkeypatch
):
    settings.BACKUP_LOCATIONS = f"nas={places['nas']}"
    settings.BACKUP_KEEP = "last=1"
    deny(monkeypatch, "sizes", "delete", "read", "read_part", "size")
    for day in (3, 4, 5):
        night(at(f"2026-11-0{day} 03:00"))
    assert states() == {"nas": "unknown"}
    assert "cannot be checked from here" in elsewhere.seen()["nas"].message
    assert len(there(places["nas"])) == 3
    with freeze_time(at("2026-11-05 03:00")):
        assert status.status().state is State.OK
    assert mail.outbox == []


def test_a_location_that_lets_nobody_delete(places, settings, at, monkeypatch):
    settings.BACKUP_LOCATIONS = f"nas={places['nas']}"
    settings.BACKUP_KEEP = "last=1"
    night(at("2026-11-03 03:00"))
    assert states() == {"nas": "ok"}
    with monkeypatch.context() as patch:
        deny(patch, "delete")
        night(at("2026-11-04 03:00"))
        assert states() == {"nas": "unknown"}
        assert probe.test("nas", None).state is elsewhere.State.UNKNOWN
    assert probe.test("nas", None).state is elsewhere.State.UNKNOWN
    run.copy_again()
    assert states() == {"nas": "ok"}


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO])
def test_a_deletion_that_is_refused_for_a_while_is_made_up_for(one, monkeypatch, error):
    """It keeps no other backup from being copied."""
    first = run.run().backup
    with monkeypatch.context() as patch:
        tries = []

        def delete(self, name):
            tries.append(name)
            raise OSError(error, "")

        patch.setattr(Folder, "delete", delete)
        with pytest.raises(LocationFailed):
            kept.delete(first.name)
        second = services.keep_backup()
        tries.clear()
        copies.copy()
        assert len([name for name in tries if name.endswith(first.name)]) == 1
        assert kept.find(second.name).locations == ("local", "nas")
        assert states() == {"nas": "unknown" if error == errno.EACCES else "failed"}
    copies.copy()
    assert [path.name for path in there(one["nas"])] == [second.name]
    assert [backup.name for backup in kept.backups()] == [second.name]
    seen = elsewhere.seen()["nas"]
    assert (seen.state, seen.limits, seen.deleted) == (Copies.OK, {}, frozenset())


@pytest.mark.parametrize(
    ("errors", "tried", "told"),
    [
        ([TimeoutError, TimeoutError], 1, "does not answer in time"),
        ([ConnectionRefusedError, TimeoutError], 1, "cannot be reached"),
        ([OSError(errno.EIO, ""), OSError(errno.EISDIR, "")], 2, "Check its disk"),
    ],
)
def test_deletions_wait_once_for_a_location_that_is_down(one, monkeypatch, errors, tried, told):
    names = [services.keep_backup().name for _ in errors]
    copies.copy()
    away(one["nas"])
    for name in names:
        with pytest.raises(NotMounted):
            kept.delete(name)
    back(one["nas"])
    with monkeypatch.context() as patch:
        tries = []

        def delete(self, name):
            tries.append(name)
            raise errors[len(tries) - 1]

        patch.setattr(Folder, "delete", delete)
        copies.copy()
    assert len(tries) == tried
    assert told in elsewhere.seen()["nas"].message
    copies.copy()
    assert there(one["nas"]) == []
    assert kept.backups() == []


def test_one_file_whose_deletion_hangs_keeps_no_backup_from_being_sent(one, nightly, at, monkeypatch):
    hangs = night(at("2026-11-01 03:00"))
    with monkeypatch.context() as patch:
        real = Folder.delete

        def delete(self, name):
            if name.endswith(hangs.name):
                raise TimeoutError
            real(self, name)

        patch.setattr(Folder, "delete", delete)
        with pytest.raises(LocationFailed):
            kept.delete(hangs.name)
        made = [night(at(f"2026-11-0{day} 03:00")).name for day in (2, 3)]
        assert [path.name for path in there(one["nas"])] == [hangs.name, *made]
        seen = elsewhere.seen()["nas"]
        assert (seen.state, seen.deleted) == (Copies.FAILED, {hangs.identity})
        assert "does not answer in time" in seen.message
    with freeze_time(at("2026-11-04 03:00")):
        copies.copy()
    assert [path.name for path in there(one["nas"])] == made
    assert elsewhere.seen()["nas"].deleted == frozenset()


def test_a_deletion_waits_until_the_location_was_listed(one, nightly, monkeypatch):
    """Of the copy nothing is noted, since the visit that sent it was killed."""
    made = services.keep_backup()
    with monkeypatch.context() as patch:
        patch.setattr(copies, "_note", lambda visit, outcome: None)
        copies.copy()
    kept.delete(made.name)
    with monkeypatch.context() as patch:
        deny(patch, "sizes")
        copies.copy()
    assert len(there(one["nas"])) == 1
    copies.copy()
    assert there(one["nas"]) == []
    assert kept.backups() == []
    assert elsewhere.seen()["nas"].deleted == frozenset()


def test_that_nothing_can_be_deleted_is_no_limit_once_nothing_waits(one, monkeypatch):
    made = run.run().backup
    with monkeypatch.context() as patch:
        deny(patch, "delete")
        with pytest.raises(LocationFailed):
            kept.delete(made.name)
        copies.copy()
        assert "lets nobody delete" in elsewhere.seen()["nas"].message
    there(one["nas"])[0].unlink()  # by somebody else
    services.keep_backup()
    copies.copy()
    assert states() == {"nas": "ok"}


def keep_existing(monkeypatch):
    """As in a place that only lets new files be written."""
    deny(monkeypatch, "delete")
    real = Folder.write

    def write(self, name, file, activity):
        if (self._path / name).exists():
            raise PermissionError(13, "denied")
        real(self, name, file, activity)

    monkeypatch.setattr(Folder, "write", write)


def test_a_file_that_cannot_be_replaced_is_a_limit(one, settings, at, monkeypatch):
    """What an upload leaves that was cut off, say."""
    night(at("2026-11-01 03:00"))
    locations, settings.BACKUP_LOCATIONS = settings.BACKUP_LOCATIONS, ""
    name = night(at("2026-11-02 03:00")).name
    settings.BACKUP_LOCATIONS = locations
    stuck = there(one["nas"])[0].with_name(name)
    stuck.write_bytes(b"PK")
    keep_existing(monkeypatch)
    for day in (3, 4):
        night(at(f"2026-11-0{day} 03:00"))
    assert states() == {"nas": "unknown"}
    assert f"cannot be replaced there: {name}." in elsewhere.seen()["nas"].message
    assert of_day(one["nas"], 1, 2, 3, 4)
    with freeze_time(at("2026-11-04 12:00")):
        assert status.status().state is State.OK
    assert mail.outbox == []
    stuck.unlink()
    monkeypatch.undo()
    settings.BACKUP_LOCATIONS, settings.BACKUP_SCHEDULE, settings.BACKUP_PROVE = (
        locations,
        "30 2 * * *",
        "off",
    )
    night(at("2026-11-05 03:00"))
    assert elsewhere.seen()["nas"].limits == {}


def test_a_note_that_cannot_be_replaced_is_a_limit(one, settings, at, monkeypatch):
    settings.BACKUP_KEEP = "last=1"
    night(at("2026-11-01 03:00"))
    core.Child.objects.last().delete()
    shrunk = night(at("2026-11-02 03:00"))
    keep_existing(monkeypatch)
    kept.pin(shrunk.name, True)
    night(at("2026-11-03 03:00"))
    assert states() == {"nas": "unknown"}
    assert f"{shrunk.identity}.json" in elsewhere.seen()["nas"].message


# -- losses, and the loss of BACKUP_ROOT ---


def lost_now():
    return sorted(loss.model for loss in status.status().losses)


@pytest.mark.parametrize("lose", [lose_root, again(lose_backups)])
def test_a_loss_that_nobody_has_accepted_is_not_forgotten_with_the_disk(one, settings, at, nightly, lose):
    settings.BACKUP_KEEP = "last=2"
    night(at("2026-11-01 03:00"))
    child = core.Child.objects.last()
    child.delete()
    shrunk = night(at("2026-11-02 03:00"))
    (noted,) = there(one["nas"])[0].parent.glob("*.json")
    assert noted.stem == shrunk.identity
    assert json.loads(noted.read_text())["pinned"] is False
    lose()
    for day in (3, 4, 5):
        night(at(f"2026-11-0{day} 03:00"))
    assert lost_now() == ["core.child"]
    assert status.status().before.startswith("babybuddy_20261101")
    assert of_day(one["nas"], 1, 2, 3, 4, 5)
    status.acknowledge(nightly.admin)
    for day in (6, 7):
        night(at(f"2026-11-0{day} 03:00"))
    assert lost_now() == []
    assert of_day(one["nas"], 6, 7)
    assert [*noted.parent.glob("*.json")] == []


def test_once_the_child_is_back_the_loss_before_the_disk_was_lost_is_over(one, settings, at):
    settings.BACKUP_KEEP = "last=2"
    night(at("2026-11-01 03:00"))
    child = core.Child.objects.last()
    key = child.pk
    child.delete()
    night(at("2026-11-02 03:00"))
    lose_root()
    child.pk = key
    child.save()
    for day in (3, 4):
        night(at(f"2026-11-0{day} 03:00"))
    assert lost_now() == []
    assert of_day(one["nas"], 3, 4)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"pinned": 7, "shrunk": 7}',
        '{"pinned": null, "shrunk": [{"model": "child", "before": 1e400, "now": 0}]}',
        again('{"pinned": true}'),
    ],
)
def test_what_else_a_note_beside_a_copy_says_is_that_it_is_pinned(one, settings, at, content):
    """Notes of earlier versions say nothing of losses."""
    settings.BACKUP_KEEP = "last=1"
    path = there_after(night(at("2026-11-01 03:00")), one["nas"])
    lose_root()
    path.write_text(content)
    for day in (2, 3):
        night(at(f"2026-11-0{day} 03:00"))
    assert of_day(one["nas"], 1, 3)
    assert kept.backups()[-1].pinned


def test_facts_that_came_with_a_copy_of_the_backups_are_no_note(one, settings, at):
    """Such as the label of a backup. They pin nothing, and nothing takes their place, which is said of a pin."""
    settings.BACKUP_KEEP = "last=1"
    made = night(at("2026-11-01 03:00"))
    path = there_after(made, one["nas"])
    path.write_text('{"label": "before the update"}')
    kept.pin(made.name, True)
    night(at("2026-11-02 03:00"))
    assert states() == {"nas": "unknown"}
    assert path.name in elsewhere.seen()["nas"].message
    kept.pin(made.name, False)
    night(at("2026-11-03 03:00"))
    assert of_day(one["nas"], 3)
    assert states() == {"nas": "ok"}
    assert path.read_text() == '{"label": "before the update"}'


def there_after(backup, folder):
    return there(folder)[0].with_name(f"{backup.identity}.json")


def test_accepting_some_losses_accepts_none_that_a_location_shows_later(one, settings, at, nightly):
    settings.BACKUP_KEEP = "last=2"
    child = core.Child.objects.first()
    core.Note.objects.bulk_create(core.Note(child=child, note=str(n)) for n in range(100))
    night(at("2026-11-01 03:00"))
    lose_root()
    locations, settings.BACKUP_LOCATIONS = settings.BACKUP_LOCATIONS, ""
    core.Child.objects.last().delete()
    night(at("2026-11-02 03:00"))
    core.Note.objects.all().delete()
    night(at("2026-11-03 03:00"))
    assert lost_now() == ["core.note"]
    with freeze_time(at("2026-11-03 12:00")):
        assert status.acknowledge(nightly.admin).losses == []
        settings.BACKUP_LOCATIONS = locations
        run.run()
        assert "core.child" in lost_now()
        shown = status.status()
        assert shown.before.startswith("babybuddy_20261101")
        status.acknowledge(nightly.admin, shown.shown)
        assert lost_now() == []
    for day in (4, 5):
        night(at(f"2026-11-0{day} 03:00"))
    assert lost_now() == []
    assert of_day(one["nas"], 4, 5)


def test_what_a_location_shows_later_stays_until_it_is_accepted(one, settings, at, nightly):
    settings.BACKUP_KEEP = "last=2"
    night(at("2026-11-01 03:00"))
    lose_root()
    locations, settings.BACKUP_LOCATIONS = settings.BACKUP_LOCATIONS, ""
    core.Child.objects.last().delete()
    child = core.Child.objects.first()
    core.Note.objects.bulk_create(core.Note(child=child, note=str(n)) for n in range(100))
    night(at("2026-11-02 03:00"))
    core.Note.objects.all().delete()
    night(at("2026-11-03 03:00"))
    with freeze_time(at("2026-11-03 12:00")):
        status.acknowledge(nightly.admin)
        settings.BACKUP_LOCATIONS = locations
        run.run()
    for day in (4, 5, 6):
        night(at(f"2026-11-0{day} 03:00"))
        assert "core.child" in lost_now()
        assert "core.note" not in lost_now(), "that was accepted"
    away(one["nas"])
    night(at("2026-11-07 03:00"))
    assert "core.child" in lost_now()
    back(one["nas"])
    assert of_day(one["nas"], 1, 2, 3, 4, 5, 6)


def test_each_location_may_show_another_loss(places, settings, at):
    settings.BACKUP_KEEP = "last=1"
    both, nas = settings.BACKUP_LOCATIONS, f"nas={places['nas']}"
    child = core.Child.objects.first()
    core.Note.objects.bulk_create(core.Note(child=child, note=str(n)) for n in range(100))
    night(at("2026-11-01 03:00"))
    settings.BACKUP_LOCATIONS = nas
    core.Note.objects.all().delete()
    night(at("2026-11-02 03:00"))
    status.acknowledge(None)
    lost = core.Child.objects.create(first_name="Third", last_name="Child", birth_date="2025-01-01")
    night(at("2026-11-03 03:00"))
    settings.BACKUP_LOCATIONS = both
    lose_root()
    lost.delete()
    night(at("2026-11-04 03:00"))
    assert lost_now() == ["core.child", "core.note"]
    assert status.status().before.startswith("babybuddy_20261103"), "the one that has the child"
    night(at("2026-11-05 03:00"))
    assert lost_now() == ["core.child", "core.note"]
    assert of_day(places["usb"], 1, 4, 5)


def test_the_last_backup_that_has_them_is_the_one_that_was_compared_with(one, settings, at):
    for day in (1, 2):
        night(at(f"2026-11-0{day} 03:00"))
    away(one["nas"])
    (one["nas"]).touch()
    lose_root()
    core.Child.objects.last().delete()
    for day in (3, 4):
        night(at(f"2026-11-0{day} 03:00"))
    one["nas"].unlink()
    back(one["nas"])
    night(at("2026-11-05 03:00"))
    assert lost_now() == ["core.child"]
    assert status.status().before.startswith("babybuddy_20261102")


# -- back from there ---


@pytest.fixture
def lost(places):
    """A backup that lies in locations only, encrypted, and the state that it holds."""
    keys.add()
    before = snapshot()
    made = run.run().backup
    kept.delete_here(made)
    core.Note.objects.all().delete()
    (backup,) = kept.backups()
    assert backup.locations == ("nas", "usb")
    return backup, before


def test_one_that_lies_only_elsewhere_is_listed_and_fetched(lost, nightly, at):
    backup, before = lost
    assert backup.records > 0
    assert backup.as_json()["encrypted"] is True
    client = script(nightly.admin)
    (entry,) = client.get(url("index")).json()["backups"]
    assert entry["locations"] == ["nas", "usb"]
    assert b"".join(client.get(url("kept", backup.name)).streaming_content).startswith(b"PK")
    answer = client.post(url("restore"), {"kept": backup.name, "clear_existing_data": "true"})
    assert answer.status_code == 200
    done = client.post(url("confirm"), {"upload": answer.json()["upload"], "clear_existing_data": "true"})
    assert done.status_code == 200
    assert not differences(before, snapshot())


def test_it_is_fetched_from_another_location_where_one_is_down(lost, places):
    backup, _before = lost
    away(places["nas"])
    with kept.open_backup(backup.name) as file:
        assert file.read(2) == b"PK"
    away(places["usb"])
    with pytest.raises(NotMounted):
        kept.open_backup(backup.name)


def test_page_and_status_answer_where_locations_are_down(lost, places, nightly):
    for folder in places.values():
        away(folder)
    client = Client()
    client.force_login(nightly.admin)
    page = client.get(url("index"))
    assert page.status_code == 200
    assert lost[0].name in page.content.decode()
    assert client.get(url("status")).status_code == 200


def test_it_is_deleted_everywhere(lost, places, nightly):
    backup, _before = lost
    assert script(nightly.admin).post(url("kept_delete", backup.name)).status_code == 204
    assert [there(folder) for folder in places.values()] == [[], []]
    assert kept.backups() == []
    with pytest.raises(NoSuchBackup):
        kept.find(backup.name)
    run.run()
    assert states() == {"nas": "ok", "usb": "ok"}, "a copy that was deleted here is not missed"


def test_each_place_that_is_down_is_named(places):
    made = run.run().backup
    away(places["nas"])
    away(places["usb"])
    with pytest.raises(NotMounted) as error:
        kept.delete(made.name)
    assert [f"“{name}”" in str(error.value) for name in ("nas", "usb")] == [True, True]
    assert not kept.find(made.name).is_local


def test_both_files_of_a_backup_are_deleted(places):
    """In a location one may lie in clear and encrypted, where the first could not be deleted."""
    made = run.run().backup
    clear = there(places["nas"])[0].read_bytes()
    keys.add()
    run.run(now=True)
    (places["nas"] / f"site_{site_id()}" / "kept" / made.name).write_bytes(clear)
    found = elsewhere.seen()["nas"]
    elsewhere.change("nas", lambda seen: replace(seen, copies={made.name: content(seen), **seen.copies}))
    assert len(found.copies) == 1
    kept.delete(made.name)
    assert [there(folder) for folder in places.values()] == [[], []]
    assert kept.backups() == []


def content(seen):
    return next(iter(seen.copies.values()))


@pytest.mark.parametrize("is_pinned", [False, True])
def test_where_one_is_down_it_stays_there_until_it_is_up_again(lost, places, nightly, is_pinned):
    backup, _before = lost
    away(places["usb"])
    answer = script(nightly.admin).post(url("kept_delete", backup.name))
    assert answer.status_code == 507
    assert "usb" in answer.json()["error"]["message"]
    assert there(places["nas"]) == []
    assert kept.find(backup.name).locations == ("usb",)
    if is_pinned:  # since then
        kept.pin(backup.name, True)
    run.copy_again()
    assert kept.find(backup.name).locations == ("usb",), "it is still down"
    back(places["usb"])
    copies.copy()
    assert [kept_backup.locations for kept_backup in kept.backups()] == ([("usb",)] if is_pinned else [])
    assert len(there(places["usb"])) == is_pinned


@pytest.mark.parametrize("what", ["renamed", "swapped", "away meanwhile"])
@pytest.mark.parametrize("is_pinned", [False, True])
def test_a_deletion_that_waits_is_one_of_the_place_not_of_its_name(lost, places, settings, what, is_pinned):
    backup, _before = lost
    nas, usb = places["nas"], places["usb"]
    away(usb)
    with pytest.raises(NotMounted):
        kept.delete(backup.name)
    if what == "away meanwhile":
        settings.BACKUP_LOCATIONS = f"nas={nas}"
    copies.copy()
    if is_pinned:
        if what == "away meanwhile":  # the backup is nowhere now
            elsewhere.take_back_deletion(backup.identity)
        else:
            kept.pin(backup.name, True)
    settings.BACKUP_LOCATIONS = f"nas={usb},usb={nas}" if what == "swapped" else f"nas={nas},disk={usb}"
    copies.copy()
    back(usb)
    copies.copy()
    assert len(there(usb)) == is_pinned
    assert len(kept.backups()) == is_pinned


@pytest.mark.parametrize("meanwhile", ["", "usb={usb}", "nas={usb}"], ids=["none", "another", "same name"])
@pytest.mark.parametrize("is_found_here", [True, False])
def test_what_is_deleted_while_a_place_is_not_named_does_not_come_back(
    one, settings, capsys, meanwhile, is_found_here
):
    made = run.run().backup
    other = services.keep_backup()
    copies.copy()
    named, settings.BACKUP_LOCATIONS = settings.BACKUP_LOCATIONS, meanwhile.format(**one)
    copies.copy()
    call_command("backups", delete=made.name)
    told = capsys.readouterr().out
    copies.copy()
    assert ("“nas”" in told) == (meanwhile != "nas={usb}"), (
        "of another address of the same name it is not known"
    )
    settings.BACKUP_LOCATIONS = named if is_found_here else f"disk={one['nas']}"
    copies.copy()
    copies.copy()
    assert [path.name for path in there(one["nas"])] == [other.name]
    assert [backup.name for backup in kept.backups()] == [other.name]


def exchange(folder):
    """As another disk, which was prepared for copies, or a server in which the disk is not mounted."""
    away(folder)
    folder.mkdir()
    shutil.copy(folder.with_name(f"{folder.name}.away") / "babybuddy-backup.txt", folder)


def exchange_back(folder):
    folder.rename(folder.with_name(f"{folder.name}.other"))
    back(folder)


@pytest.mark.parametrize(
    ("others", "renamed"), [(0, False), (1, False), (1, True)], ids=["the only one", "one of two", "renamed"]
)
def test_what_is_deleted_while_its_copy_is_not_there_does_not_come_back(one, settings, others, renamed):
    stay = [services.keep_backup().name for _ in range(others)]
    made = services.keep_backup(label="private")
    copies.copy()
    exchange(one["nas"])
    kept.delete(made.name)
    for _ in range(2):
        copies.copy()
    if renamed:
        settings.BACKUP_LOCATIONS = f"disk={one['nas']}"
        copies.copy()
    exchange_back(one["nas"])
    copies.copy()
    assert [path.name for path in there(one["nas"])] == stay
    assert [backup.name for backup in kept.backups()] == stay
    assert {*states().values()} == ({"ok"} if others else {"unknown"})


def test_what_is_deleted_from_one_of_two_disks_is_deleted_from_the_other(one, monkeypatch):
    monkeypatch.setattr(elsewhere, "MOST_DELETED", 2)
    forgotten, *made, stays = [services.keep_backup() for _ in range(4)]
    copies.copy()
    exchange(one["nas"])
    copies.copy()
    for backup in [forgotten, *made]:
        kept.delete(backup.name)
    copies.copy()
    assert [path.name for path in there(one["nas"])] == [stays.name]
    assert elsewhere.seen()["nas"].deleted == {backup.identity for backup in made}, "the newest ones"
    exchange_back(one["nas"])
    copies.copy()
    assert [path.name for path in there(one["nas"])] == [forgotten.name, stays.name]


@pytest.mark.parametrize("way", ["put back here", "pinned"])
def test_a_deletion_that_stays_noted_can_be_taken_back(one, way):
    services.keep_backup()
    made = services.keep_backup()
    with kept.open_backup(made.name) as file:
        content = file.read()
    copies.copy()
    exchange(one["nas"])
    kept.delete(made.name)
    copies.copy()
    files.put(kept.parse(made.name).path, ContentFile(content))
    if way == "pinned":
        kept.pin(made.name, True)
    else:
        copies.copy()
    exchange_back(one["nas"])
    assert elsewhere.seen()["nas"].deleted == frozenset()
    kept.delete_here(made)  # by BACKUP_KEEP, say
    copies.copy()
    assert len(there(one["nas"])) == 2
    assert kept.find(made.name).locations == ("nas",)


def test_a_deletion_is_not_taken_back_by_a_visit_that_ends_before_the_file_here_is_gone(one, monkeypatch):
    made = services.keep_backup()
    copies.copy()
    exchange(one["nas"])
    real = kept._delete_here

    def delete_here(name):
        copies.copy()
        real(name)

    with monkeypatch.context() as patch:
        patch.setattr(kept, "_delete_here", delete_here)
        kept.delete(made.name)
    copies.copy()
    exchange_back(one["nas"])
    copies.copy()
    assert there(one["nas"]) == []
    assert kept.backups() == []


@pytest.mark.parametrize("by", ["this app", "somebody"])
def test_what_went_from_a_place_while_it_had_another_name_is_not_missed(one, settings, at, tmp_path, by):
    settings.BACKUP_KEEP = "last=2"
    for day in (1, 2):
        night(at(f"2026-11-0{day} 03:00"))
    named = settings.BACKUP_LOCATIONS
    (tmp_path / "same").symlink_to(one["nas"])
    settings.BACKUP_LOCATIONS = f"disk={tmp_path / 'same'}"
    for day in (3, 4):
        night(at(f"2026-11-0{day} 03:00"))
    settings.BACKUP_LOCATIONS = named
    if by == "somebody":
        copies.copy()
        there(one["nas"])[-1].unlink()
    night(at("2026-11-05 03:00"))
    seen = elsewhere.seen()["nas"]
    if by == "this app":
        assert (seen.state, len(there(one["nas"]))) == (Copies.OK, 2)
    else:
        assert (seen.state, "not by this app" in seen.message) == (Copies.FAILED, True)


def test_a_command_that_does_not_know_the_locations_forgets_nothing_of_them(one, settings, nightly):
    made, other = run.run().backup, services.keep_backup()
    copies.copy()
    before = elsewhere.seen()["nas"]
    named, settings.BACKUP_LOCATIONS = settings.BACKUP_LOCATIONS, ""
    client = Client()
    client.force_login(nightly.admin)
    answer = client.post(url("kept_delete", made.name), follow=True)
    assert "A copy is left in “nas”" in answer.content.decode()
    settings.BACKUP_LOCATIONS = named
    after = elsewhere.seen()["nas"]
    assert (after.copies, after.reached, after.state) == (before.copies, before.reached, before.state)
    assert copies.is_due()
    copies.copy(again=True)
    assert [path.name for path in there(one["nas"])] == [other.name]


def test_only_the_latest_places_are_remembered(one, settings, tmp_path):
    made = run.run().backup
    for number in range(elsewhere.MOST_FORMER + 3):
        settings.BACKUP_LOCATIONS = f"place{number}={tmp_path / str(number)}"
        copies.copy()
    settings.BACKUP_LOCATIONS = ""
    former = kept.delete(made.name)
    assert former == [f"place{number}" for number in range(3, elsewhere.MOST_FORMER + 3)]
    assert len(files.read_json("last/locations.json")) == elsewhere.MOST_FORMER


def test_what_another_one_sent_there_is_listed(lost, places):
    """As after the loss of BACKUP_ROOT."""
    backup, _before = lost
    files.delete("last/locations.json")
    assert kept.backups() == []
    copies.copy()
    (again,) = kept.backups()
    assert (again.name, again.records, again.counts) == (backup.name, backup.records, backup.counts)
    assert again.locations == ("nas", "usb")


@pytest.mark.parametrize("is_encrypted", [True, False], ids=["encrypted", "clear"])
def test_a_damaged_copy_is_not_taken_where_there_is_a_good_one(places, nightly, settings, is_encrypted):
    keys.add()
    settings.BACKUP_ENCRYPT = "all" if is_encrypted else "download"
    made = run.run().backup
    kept.delete_here(made)
    client = script(nightly.admin)
    damage(there(places["nas"])[0])

    def download():
        return client.get(url("kept", made.name))

    with zipfile.ZipFile(io.BytesIO(b"".join(download().streaming_content))) as whole:
        assert is_encrypted or whole.testzip() is None
    answer = client.post(url("restore"), {"kept": made.name})
    assert answer.status_code == 200
    with kept.open_backup(made.name, "nas") as file:  # as it is
        assert file.read() == there(places["nas"])[0].read_bytes()
    damage(there(places["usb"])[0])
    for answer in (download(), client.post(url("restore"), {"kept": made.name})):
        assert answer.status_code == 400
        assert "usb" in answer.json()["error"]["message"]
        assert "damaged" in answer.json()["error"]["message"]


def test_a_file_that_is_damaged_here_is_not_taken_where_there_is_a_good_copy(places, nightly):
    made = run.run().backup
    path = conf.root / f"site_{site_id()}" / "kept" / made.name
    damage(path)
    client = script(nightly.admin)

    def download():
        return b"".join(client.get(url("kept", made.name)).streaming_content)

    assert download() == there(places["nas"])[0].read_bytes()
    assert client.post(url("restore"), {"kept": made.name}).status_code == 200
    with kept.open_backup(made.name, "local") as file:
        assert file.read() == path.read_bytes()
    damage(there(places["nas"])[0])
    away(places["usb"])
    assert download() == path.read_bytes(), "no place has a better one"


def test_a_file_here_is_not_read_as_a_whole_each_time_it_is_opened(places, nightly, monkeypatch):
    made = run.run().backup
    read, real = [], kept._read_all
    monkeypatch.setattr(kept, "_read_all", lambda archive: (read.append(archive), real(archive))[1])
    client = script(nightly.admin)

    def download():
        answer = client.get(url("kept", made.name))
        content = b"".join(answer.streaming_content)
        answer.close()
        return content

    client.head(url("kept", made.name)).close()
    before = download()
    client.post(url("restore"), {"kept": made.name})
    assert len(read) == 1
    damage(conf.root / f"site_{site_id()}" / "kept" / made.name)
    assert download() == before, "it comes from a location"


def test_a_file_that_could_not_be_read_is_read_once_its_key_is_back(one, settings):
    keys.add()
    settings.BACKUP_ENCRYPT = "all"
    made = run.run().backup
    path = conf.root / f"site_{site_id()}" / "kept" / made.name
    whole = path.read_bytes()
    damage(path)
    away(conf.root / "keys.json")
    kept.open_backup(made.name).close()
    back(conf.root / "keys.json")
    with kept.open_backup(made.name) as file:
        assert file.read() == whole, "it comes from a location"


def test_of_a_file_in_another_storage_nothing_is_remembered(one, settings):
    """Its name is all that is known of it without reading it."""
    memory = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
    settings.STORAGES = {**settings.STORAGES, "backups": memory}
    made = run.run().backup
    name = f"kept/{made.name}"
    with kept.open_backup(made.name) as file:
        whole = file.read()
    files.put(name, ContentFile(spoiled(whole, "core/")))
    with kept.open_backup(made.name) as file:
        assert file.read() == whole, "it comes from a location"


def test_a_file_that_is_damaged_here_is_not_unchanged(places, at):
    """Although a location has a good copy: a good one is made here."""
    made = night(at("2026-11-01 03:00"))
    damage(conf.root / f"site_{site_id()}" / "kept" / made.name)
    with freeze_time(at("2026-11-02 03:00")):
        outcome = run.run()
        assert outcome.made
        assert not run.run(now=True).made, "that one is good"
    with kept.open_backup(outcome.backup.name, "local") as file:
        restore(file, clear=True)


@pytest.mark.parametrize("is_there", [True, False])
def test_the_way_on_from_a_damaged_file_is_the_whole_copy(places, settings, at, is_there):
    settings.BACKUP_LOCATIONS = f"nas={places['nas']}" if is_there else ""
    made = night(at("2026-11-01 03:00"))
    path = conf.root / f"site_{site_id()}" / "kept" / made.name
    damage(path, "core/child")
    services.prove_kept(made.name, place="local")
    settings.BACKUP_LOCATIONS = f"nas={places['nas']},usb={places['usb']}"
    copies.copy()
    message = elsewhere.seen()["usb"].message
    assert ("“nas” has another copy" in message) == is_there
    assert ("delete it" in message) != is_there
    assert ("“nas” has another copy" in status.status().message) == is_there
    if is_there:
        path.write_bytes(there(places["nas"])[0].read_bytes())
        copies.copy()
        assert states() == {"nas": "ok", "usb": "ok"}


@pytest.mark.parametrize("proves", [again("before it tells"), "as it says"])
def test_the_way_on_from_a_damaged_file_is_the_next_copy_if_one_is_damaged_too(
    places, quick_proofs, settings, at, tmp_path, proves
):
    """Nobody has read the copies: the message names all that may be good."""
    made = night(at("2026-11-01 03:00"))
    path = conf.root / f"site_{site_id()}" / "kept" / made.name
    for damaged in (path, *there(places["nas"])):
        rot(damaged)
    settings.BACKUP_LOCATIONS += f",new={tmp_path / 'new'}"
    if proves == "before it tells":
        services.prove_kept(made.name, place="nas")
    copies.copy()
    message = elsewhere.seen()["new"].message
    assert made.name in message
    assert " whole " not in message
    if proves == "before it tells":
        assert "“usb” has another copy of it." in message
    else:
        assert "“nas”, “usb” have other copies of it." in message
        path.write_bytes(there(places["nas"])[0].read_bytes())
        assert services.prove_kept(made.name, place="local").verdict is Verdict.FAILED
        assert "“nas”, “usb” have other copies of it." in status.status().message
    path.write_bytes(there(places["usb"])[0].read_bytes())
    assert services.prove_kept(made.name, place="local").verdict is Verdict.PROVED
    copies.copy()
    assert states() == {"nas": "ok", "usb": "ok", "new": "ok"}
    if proves == "before it tells":
        assert services.prove_kept(made.name, place="nas").verdict is Verdict.PROVED, "it was sent again"


def damage(path, what="core/"):
    """Change some bytes of the records, as a server that lies would, or a disk that fails."""
    path.write_bytes(spoiled(path.read_bytes(), what))


@pytest.mark.parametrize("act", ["download", "preview", "test", "delete"])
def test_a_page_does_not_wait_for_long(lost, places, nightly, monkeypatch, act):
    """Each of two locations sends a byte now and then, so that neither ever seems to hang."""
    backup, _before = lost

    def drip(*arguments):
        (activity,) = [one for one in arguments if isinstance(one, bounded.Activity)] or [None]
        for _ in range(100):
            time.sleep(0.05)
            if activity is not None:
                activity.moved(1)

    for method in ("read", "write", "delete"):
        monkeypatch.setattr(f"backup.storage.locations.folder.Folder.{method}", drip)
    monkeypatch.setattr(bounded, "PAGE", 0.5)
    client, began = script(nightly.admin), time.monotonic()
    answer = {
        "download": lambda: client.get(url("kept", backup.name)),
        "preview": lambda: client.post(url("restore"), {"kept": backup.name}),
        "test": lambda: client.post(url("test_location", "nas")),
        "delete": lambda: client.post(url("kept_delete", backup.name)),
    }[act]()
    assert time.monotonic() - began < 2
    assert "manage.py restore" in answer.content.decode()
    assert answer.status_code == (200 if act == "test" else 507)


def test_a_location_that_hangs_does_not_keep_a_page_from_another(lost, places, nightly, monkeypatch):
    backup, _before = lost
    read = Folder.read

    def hang(client, name, activity):
        if client.folder == places["nas"]:
            time.sleep(3)
        return read(client, name, activity)

    monkeypatch.setattr(Folder, "read", hang)
    monkeypatch.setattr(bounded, "PAGE", 1)
    answer = script(nightly.admin).get(url("kept", backup.name))
    assert b"".join(answer.streaming_content).startswith(b"PK")


# -- proofs ---


def test_where_the_disk_is_full_a_deletion_makes_room(places, at, monkeypatch):
    """To note that it is deleted takes room as well."""
    made = night(at("2026-11-03 03:00"))
    path, real = conf.root / f"site_{site_id()}" / "kept" / made.name, files.put_json

    def put_json(*args, **options):
        if path.exists():
            raise StorageFailed("No space left on device")
        real(*args, **options)

    monkeypatch.setattr(files, "put_json", put_json)
    kept.delete(made.name)
    assert not path.exists()
    assert [there(folder) for folder in places.values()] == [[], []]
    assert kept.backups() == []


def test_a_copy_that_is_not_there_any_more_fails_its_proof(lost, places):
    backup, _before = lost
    there(places["nas"])[0].unlink()
    proof = services.prove_kept(backup.name)
    assert proof.verdict is Verdict.FAILED
    assert proof.place == "nas"
    found = status.status()
    assert found.state is State.FAILED
    assert "nas" in found.message
    copies.copy()
    assert kept.find(backup.name).proof is None, "a file that is gone says nothing about the others"


def test_another_backup_in_its_place_is_not_taken_for_it(lost, places):
    """Whoever can write there, without the key, can put one copy in the place of another."""
    backup, before = lost
    run.run(now=True)
    one, other = sorted(there(places["nas"]))
    assert one.name == backup.name
    shutil.copyfile(other, one)
    proof = services.prove_kept(backup.name, place="nas")
    assert proof.verdict is Verdict.FAILED
    assert "another backup" in proof.reason
    with pytest.raises(InvalidBackup, match="another backup"):
        kept.open_backup(backup.name, "nas")
    with services.open_kept(backup.name) as file:  # another place has it
        restore(file, clear=True)
    assert not differences(before, snapshot())
    with pytest.raises(CommandError, match="another backup"):
        call_command("prove_backup", backup.name)


@pytest.mark.parametrize(
    ("what", "told"), [("gone", "Failed: "), ("down", "Unknown, it could not be told: ")]
)
def test_the_command_tells_what_became_of_copies_that_are_nowhere_else(lost, places, what, told):
    backup, _before = lost
    for folder in places.values():
        there(folder)[0].unlink() if what == "gone" else away(folder)
    with pytest.raises(CommandError, match=told):
        call_command("prove_backup", backup.name)
    assert [*kept.find(backup.name).facts["proof_tried"]] == ["nas"]


def test_a_copy_that_was_gone_and_is_sent_again_is_a_new_file(places, at):
    made = night(at("2026-11-03 03:00"))
    there(places["usb"])[0].unlink()
    with freeze_time(at("2026-11-03 04:00")):
        assert services.prove_kept(made.name, place="usb").verdict is Verdict.FAILED
    night(at("2026-11-04 03:00"))
    with freeze_time(at("2026-11-04 04:00")):
        found = status.status()
        assert found.state is State.OK
        assert "gone" in found.message
        assert kept.find(made.name).locations == ("local", "nas", "usb")


def test_where_the_location_is_down_it_cannot_be_told(lost, places):
    backup, _before = lost
    assert services.prove_kept(backup.name).verdict is Verdict.PROVED
    for folder in places.values():
        away(folder)
    proof = services.prove_kept(backup.name)
    assert proof.verdict is Verdict.UNKNOWN
    assert "nas" in proof.reason
    assert kept.find(backup.name).as_json()["proof"]["verdict"] == "proved", "the last verdict stands"
    assert services.prove_kept(backup.name, place="usb").verdict is Verdict.UNKNOWN
    assert kept.find(backup.name).as_json()["proof"]["verdict"] == "proved", "that of another copy, too"


def test_a_copy_that_rotted_fails_and_is_sent_again(places, quick_proofs, at):
    made = night(at("2026-11-03 03:00"))
    rot(there(places["usb"])[0])
    with freeze_time(at("2026-11-03 04:00")):
        assert services.prove_kept(made.name, place="usb").verdict is Verdict.FAILED
        assert services.prove_kept(made.name, place="local").verdict is Verdict.PROVED
        found = status.status()
        assert found.state is State.FAILED, "only another proof of the same file clears it"
        assert "usb" in found.message
    night(at("2026-11-04 03:00"))
    with freeze_time(at("2026-11-04 04:00")):
        assert status.status().state is State.OK
        assert services.prove_kept(made.name, place="usb").verdict is Verdict.PROVED


def rot(path):
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)


def test_a_damaged_file_does_not_replace_a_good_copy(places, quick_proofs, settings, at, tmp_path):
    """Its proof failed, and it was mended since. Nor does a new location get what is damaged here."""
    made = night(at("2026-11-03 03:00"))
    (copy,) = there(places["usb"])
    good = copy.read_bytes()
    rot(copy)
    with freeze_time(at("2026-11-03 04:00")):
        assert services.prove_kept(made.name, place="usb").verdict is Verdict.FAILED
    copy.write_bytes(good)
    rot(conf.root / f"site_{site_id()}" / "kept" / made.name)
    settings.BACKUP_LOCATIONS += f",new={tmp_path / 'new'}"
    newer = night(at("2026-11-04 03:00"))
    assert copy.read_bytes() == good
    assert [path.name for path in there(tmp_path / "new")] == [newer.name]
    with freeze_time(at("2026-11-04 04:00")):
        assert status.status().state is State.FAILED
        assert services.prove_kept(made.name, place="usb").verdict is Verdict.PROVED


def test_all_places_take_turns(places, quick_proofs, settings, at):
    settings.BACKUP_PROVE = "all"
    night(at("2026-10-01 03:00"))
    proved = []
    for week in range(4):
        with freeze_time(at("2026-10-10 03:00") + dt.timedelta(weeks=week)):
            run.run()
            found = kept.backups(BackupKind.AUTOMATIC)[-1]
            proved.append(
                found.proof["place"]
                if not week
                else max(found.facts["proof_tried"].items(), key=lambda item: item[1])[0]
            )
    assert {*proved} == {"local", "nas", "usb"}
    settings.BACKUP_PROVE = "local"
    with freeze_time(at("2026-12-10 03:00")):
        run.run()
        found = kept.backups(BackupKind.AUTOMATIC)[-1]
        assert found.facts["proof_tried"]["local"] > found.facts["proof_tried"]["usb"]


# -- test ---


def test_the_test_of_a_location(places, nightly, starts, monkeypatch):
    client = script(nightly.admin)
    run.run()
    answer = client.post(url("test_location", "nas"))
    assert answer.status_code == 200
    seen = {entry["name"]: entry for entry in answer.json()["locations"]}
    assert seen["nas"]["state"] == "ok"
    assert seen["nas"]["message"]
    away(places["nas"])
    answer = client.post(url("test_location", "nas"))
    assert answer.status_code == 200
    seen = {entry["name"]: entry for entry in answer.json()["locations"]}
    assert seen["nas"]["state"] == "failed"
    assert client.post(url("test_location", "other")).status_code == 404
    assert not [*places["usb"].glob("*/test/*")]


def test_a_test_is_no_copy(places, nightly, starts, monkeypatch):
    """What a test writes is gone again: that copies are there is said after a copy only."""
    assert probe.test("nas", None).state is elsewhere.State.UNKNOWN
    text = page(nightly.admin)
    assert "Copies are there" not in text
    assert "The test worked" in text
    with monkeypatch.context() as patch:
        deny(patch, "write")
        run.run()
        assert states()["nas"] == "failed"
    assert probe.test("nas", None).state is elsewhere.State.UNKNOWN
    run.copy_again()
    assert probe.test("nas", None).state is elsewhere.State.OK


def test_a_state_that_cannot_be_read_is_none(places):
    run.run()
    for text in ({}, {"nas": 1, "usb": {"address": 1}}):
        files.put_json("last/locations.json", text)
        assert states() == {"nas": "unknown", "usb": "unknown"}
    run.run()
    assert states() == {"nas": "ok", "usb": "ok"}


def test_another_address_is_another_place(places, settings):
    run.run()
    settings.BACKUP_LOCATIONS = f"nas={places['usb']}"
    assert states() == {"nas": "unknown"}
    assert outlook.read().locations != elsewhere.fingerprint()
    (backup,) = kept.backups()
    assert backup.locations == ("local",)
    with pytest.raises(NoSuchBackup):
        kept.open_backup(backup.name, "usb")


# -- what people see ---


def page(user):
    client = Client()
    client.force_login(user)
    return " ".join(client.get(url("index")).content.decode().split())


def test_the_page_says_where_copies_are(places, nightly, settings):
    assert "Cannot be told" in page(nightly.admin)
    key = keys.add().key
    made = run.run().backup
    text = page(nightly.admin)
    assert "Copies: nas, usb" in text
    assert text.count("Copies are there") == 2
    assert text.count(f"encrypted with the key {key.id}") == 2
    assert url("test_location", "nas") in text
    kept.delete_here(made)
    away(places["nas"])
    elsewhere.ask_again()
    run.copy_again()
    text = page(nightly.admin)
    assert "Not on this server any more, only in: nas, usb." in text
    assert "Delete it here, and all of its copies?" in text
    assert "Copying fails" in text
    assert "Next try:" in text
    assert "Protected, but copies elsewhere fail" in text
    assert str(places["nas"]) not in text
    settings.BACKUP_LOCATIONS = ""
    assert "All backups are on this server, and would be lost with it." in page(nightly.admin)


def test_the_test_button_tells_how_it_went(places, nightly, starts):
    client = Client()
    client.force_login(nightly.admin)
    run.run()
    answer = client.post(url("test_location", "nas"), follow=True)
    assert "The test worked" in answer.content.decode()
    away(places["nas"])
    answer = client.post(url("test_location", "nas"), follow=True)
    assert "It is not mounted" in answer.content.decode()
    assert script(nightly.plain).post(url("test_location", "nas")).status_code == 403


def test_the_commands(places, capsys):
    run.run()
    call_command("backup", "--keep", "--label", "before the update")
    out = capsys.readouterr().out
    assert "nas: ok: 2 backups" in out
    assert len(there(places["nas"])) == 2
    call_command("backups")
    out = capsys.readouterr().out
    assert out.count("in local, nas, usb") == 2
    assert "usb: ok (" in out
    call_command("backups", "--json")
    content = json.loads(capsys.readouterr().out)
    assert [entry["locations"] for entry in content["backups"]] == [["local", "nas", "usb"]] * 2
    assert [seen["state"] for seen in content["status"]["locations"]] == ["ok", "ok"]
    keys.add()
    call_command("backup_key")
    out = capsys.readouterr().out
    assert f"Copies are in nas (folder), usb (folder), in a folder site_{site_id()}/kept." in out
    assert str(places["nas"]) not in out


def test_commands_fetch_what_is_not_here(lost, capsys):
    backup, before = lost
    call_command("prove_backup", backup.name)
    assert "Proved" in capsys.readouterr().out
    call_command("restore", backup.name, "--clear", "--no-input")
    assert not differences(before, snapshot())


def test_pinning_and_labels_are_of_all_copies(lost, settings, at):
    backup, _before = lost
    settings.BACKUP_KEEP = "last=1"
    kept.note(backup.name, label="the first steps")
    assert kept.pin(backup.name, True).label == "the first steps"
    for day in (3, 4):
        night(at(f"2027-01-0{day} 03:00"))
    pinned = kept.find(backup.name)
    assert (pinned.pinned, pinned.label, pinned.locations) == (True, "the first steps", ("nas", "usb"))


def test_nothing_is_deleted_while_nobody_knows_where_copies_are(places, settings, at):
    """Else what was noted about a backup that has copies would go with its file here."""
    first = kept.pin(night(at("2026-11-03 03:00")).name, True)
    others = [night(at(f"2026-11-0{day} 03:00")) for day in (4, 5)]
    kept.note(others[0].name, label="dear")
    addresses, settings.BACKUP_LOCATIONS = settings.BACKUP_LOCATIONS, "oops"
    settings.BACKUP_KEEP = "last=1"
    assert "BACKUP_LOCATIONS" in status.halted()
    night(at("2026-11-06 03:00"))
    assert all(verdict.stays for verdict in status.retention())
    with pytest.raises(CommandError, match="BACKUP_LOCATIONS"):
        call_command("backups", delete=first.name)
    kept.delete_here(others[0])
    settings.BACKUP_LOCATIONS = addresses
    assert [kept.find(first.name).pinned, kept.find(first.name).is_local] == [True, True]
    assert [kept.find(others[0].name).label, kept.find(others[0].name).is_local] == ["dear", False]
    assert len(kept.backups()) == 4


@pytest.mark.parametrize("is_proved", [False, True])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_file_that_was_cut_off_here_is_told_of(places, nightly, settings, at, is_there, is_proved):
    """As one that failed its proof: until it is deleted, or a good one is in its place."""
    settings.BACKUP_LOCATIONS = f"nas={places['nas']}" if is_there else ""
    night(at("2026-11-01 03:00"))
    cut = night(at("2026-11-02 03:00")).name
    path = conf.root / f"site_{site_id()}" / "kept" / cut
    os.truncate(path, path.stat().st_size // 2)
    if is_proved:
        assert services.prove_kept(cut).verdict is Verdict.FAILED
    night(at("2026-11-03 03:00"))
    with freeze_time(at("2026-11-03 04:00")):
        found = status.status()
        assert (found.state, status.needs_attention()) == (State.FAILED, True)
        assert "Nov. 2, 2026" in found.message
        assert ("“nas” has another copy" in found.message) == is_there
        assert (found.as_json()["proof"] or {}).get("name") == (cut if is_proved else None)
        assert len(mail.outbox) == 1
        assert not [verdict for verdict in status.retention() if not verdict.stays]
        client = Client()
        client.force_login(nightly.admin)
        page = client.get(url("index")).content.decode()
        assert page.count("Preview and restore") == len(kept.backups()) - (not is_there)
        if is_there:
            answer = client.post(url("restore"), {"kept": cut}, follow=True)
            assert "What this backup would do" in answer.content.decode()
            path.write_bytes(there(places["nas"])[1].read_bytes())
            if is_proved:
                services.prove_kept(cut)
        else:
            kept.delete(cut)
        assert status.status().state is State.OK


def test_the_proof_of_a_copy_tells_how_many_records_came_back(places):
    """The file here does not tell, since it is damaged."""
    made = run.run().backup
    path = conf.root / f"site_{site_id()}" / "kept" / made.name
    os.truncate(path, path.stat().st_size // 2)
    proof = services.prove_kept(made.name, place="nas")
    found = kept.find(made.name)
    assert found.is_damaged
    (line,) = kept_in_words([found], {})
    for text in (line.proof, verdict_in_words(proof, found)):
        assert f" {proof.records} records came back identical." in text
    assert found.as_json()["proof"]["records"] == proof.records > 0

"""Photos that a restore put there go once nothing names them: not sooner, and nothing else."""

import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import pytest
from core import models as core
from django.core.files.base import ContentFile
from django.utils import timezone
from freezegun import freeze_time

from backup import restoring, services
from backup.automatic import copies, run
from backup.exceptions import StorageFailed
from backup.leftovers import AGE, remove_leftovers
from backup.storage import files as stored
from backup.storage import kept, placed
from backup.storage.atomic import ABANDONED, PARTIAL
from backup.storage.locations import Location
from backup.upgrade import process
from tests.support.backups import restore, take
from tests.support.photos import files, picture, put, setting, with_photos

A, B, OWN = "child/picture/a.png", "child/picture/b.png", "child/picture/own.png"


@pytest.fixture
def undone(family, settings, tmp_path):
    """After a restore of two photos that was undone. The host has a photo of its own that nothing names, too."""
    settings.MEDIA_ROOT = tmp_path / "media"
    first, second = core.Child.objects.order_by("pk")[:2]
    put(OWN, picture(5))
    change = setting(core_child={first.pk: {"picture": A}, second.pk: {"picture": B}})
    restore(with_photos(take(), {A: picture(1), B: picture(2)}, change), clear=False)
    services.undo_restore()
    assert {*files()} == {A, B, OWN}
    return first


def later(function, age=AGE + timedelta(hours=1)):
    with freeze_time(timezone.now() + age):
        return function()


def drop_copies():
    for backup in kept.backups():
        kept.delete(backup.name)


def drop_safety_copies():
    for backup in kept.backups(kept.BackupKind.SAFETY):
        kept.delete(backup.name)


def test_they_go_after_a_month_and_nothing_else_does(undone):
    drop_copies()
    assert later(remove_leftovers, AGE - timedelta(hours=1)) == 0
    assert {*files()} == {A, B, OWN}
    assert later(remove_leftovers) == 2
    assert {*files()} == {OWN}
    assert placed.noted(timedelta()) == []


def test_what_a_kept_backup_names_stays_until_that_goes(undone):
    """The safety copy of the undo."""
    assert later(remove_leftovers) == 0
    assert {*files()} == {A, B, OWN}
    drop_copies()
    assert later(remove_leftovers, 3 * AGE) == 2
    assert {*files()} == {OWN}


def test_what_the_database_names_stays(undone):
    drop_copies()
    core.Child.objects.filter(pk=undone.pk).update(picture=A)
    assert later(remove_leftovers) == 1
    assert {*files()} == {A, OWN}
    core.Child.objects.update(picture="")  # from then on it is the host's, which never deletes any
    assert later(remove_leftovers, 3 * AGE) == 0
    assert {*files()} == {A, OWN}


def test_what_is_another_file_by_now_stays(undone):
    drop_copies()
    put(A, picture(7))
    assert later(remove_leftovers) == 1
    assert files() == {A: picture(7), OWN: picture(5)}


def test_where_a_backup_cannot_be_read_nothing_goes(undone):
    for backup in kept.backups():
        stored.put(f"kept/{backup.name}", ContentFile(b"PK damaged"))
    assert later(remove_leftovers) == 0
    assert {*files()} == {A, B, OWN}


@pytest.mark.parametrize("lies", ["only there", "damaged here"])
def test_a_restore_does_not_wait_for_a_location(undone, settings, tmp_path, monkeypatch, lies):
    """What is whole only there is looked at by an automatic backup, which may take its time."""
    settings.BACKUP_LOCATIONS = {"nas": str(tmp_path / "nas")}
    drop_copies()
    services.keep_backup(photos=False)
    copies.copy()
    (only_there,) = kept.backups()
    if lies == "only there":
        kept._delete_here(kept.parse(only_there.name))
    else:
        stored.put(f"kept/{only_there.name}", ContentFile(b"PK damaged"))
    fetched, fetch = [], Location.fetch
    monkeypatch.setattr(Location, "fetch", lambda *args: (fetched.append(args[1]), fetch(*args))[1])
    file = take()
    later(lambda: restore(file, clear=True))
    assert fetched == []
    assert {*files()} == {A, B, OWN}
    drop_safety_copies()
    later(lambda: run.run(now=True), 3 * AGE)
    assert [*{*fetched}] == [f"kept/{only_there.name}"]
    assert {*files()} == {OWN}


def test_an_automatic_backup_does_it(undone):
    drop_copies()
    later(lambda: run.run(now=True))
    assert {*files()} == {OWN}


def test_a_restore_that_fails_takes_its_photos_back(undone, monkeypatch):
    drop_copies()
    later(remove_leftovers)
    change = setting(core_child={undone.pk: {"picture": A}})
    file = with_photos(take(), {A: picture(1)}, change)

    def fails(*args):
        raise StorageFailed("No.")

    monkeypatch.setattr(restoring, "write", fails)
    with pytest.raises(StorageFailed):
        restore(file, clear=True)
    assert {*files()} == {OWN}
    assert placed.noted(timedelta()) == []


def test_what_killed_processes_left_half_written_goes(family, settings, tmp_path, monkeypatch):
    settings.MEDIA_ROOT = tmp_path / "media"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for folder in (tmp_path / "media", tmp_path / "temporary"):
        folder.mkdir()
        for name, age in ((f".old{PARTIAL}", ABANDONED + 60), (f".new{PARTIAL}", 0), ("old.png", 10**7)):
            (folder / name).write_bytes(b"x")
            os.utime(folder / name, (time.time() - age,) * 2)
    upgrade = Path(tempfile.mkdtemp(prefix=process.PREFIX))  # of an upgrade whose restore was killed
    (upgrade / process.SCRATCH).write_bytes(b"x")
    os.utime(upgrade, (time.time() - process.ABANDONED - 60,) * 2)
    remove_leftovers()
    for folder in (tmp_path / "media", tmp_path / "temporary"):
        assert {path.name for path in folder.iterdir()} == {f".new{PARTIAL}", "old.png"}

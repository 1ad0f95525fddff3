"""Kept backups with photos: each photo lies once beside them, and all that is done with them sees a whole backup."""

import datetime as dt
import errno
import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from core import models as core
from django.conf import settings as live
from django.core.management import CommandError, call_command
from django.urls import reverse
from freezegun import freeze_time

from backup import keeping, media, services
from backup.archive import Archive, Keys, Limits, encryption
from backup.automatic import copies, guard, status
from backup.automatic import run as automatic
from backup.conf import conf
from backup.exceptions import CannotList, CannotRead, InvalidBackup, KeyNeeded, Slow, StorageFailed
from backup.options import RestoreMode, RestoreOptions
from backup.presentation.kept import kept_in_words
from backup.proof import Verdict
from backup.restore import photos as placing
from backup.storage import elsewhere, kept, keys, locations
from backup.storage import files as stored_files
from backup.storage import photos as stored_photos
from backup.storage.files import LAST
from backup.storage.locations import Location, parts
from backup.storage.locations.folder import Folder
from tests.support.backups import rewritten, spoiled, take
from tests.support.http import script
from tests.support.matrices import again
from tests.support.photos import files, picture, put
from tests.support.snapshots import differences, snapshot

CLEAR = RestoreOptions(RestoreMode.CLEAR)
NAMES = ("child/picture/anna.png", "child/picture/ben.png", "notes/images/a.png", "notes/images/b.png")


@pytest.fixture
def pictured(family, settings, tmp_path):
    """Four photos, of which two are the same picture. Returns name -> content."""
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.BACKUP_SCHEDULE = "daily"
    anna, ben = core.Child.objects.order_by("pk")[:2]
    core.Child.objects.filter(pk=anna.pk).update(picture=NAMES[0])
    core.Child.objects.filter(pk=ben.pk).update(picture=NAMES[1])
    for name in NAMES[2:]:
        core.Note.objects.create(child=anna, note=name, image=name)
    contents = dict(zip(NAMES, [picture(1), picture(2), picture(3), picture(2)], strict=True))
    for name, content in contents.items():
        put(name, content)
    return contents


@pytest.fixture
def admin(family, pictured):
    return family.admin


@pytest.fixture
def browser(pictured, browser):
    return browser


@pytest.fixture(params=[again("in clear"), "encrypted"])
def key(request, pictured, settings):
    if request.param == "in clear":
        return None
    settings.BACKUP_ENCRYPT = ["local"]
    return keys.add().key


@pytest.fixture
def proving(settings):
    """What is made by itself is proved by itself."""
    settings.BACKUP_PROVE = "all"


@pytest.fixture
def long_ago(monkeypatch):
    """Photos count as unchanged since a backup although both were made just now."""
    monkeypatch.setattr(keeping, "MARGIN", -dt.timedelta(seconds=60))


@pytest.fixture
def read(monkeypatch):
    """The names of the photos that are read."""
    names, real = [], media.PhotoReader.read

    def reading(self, photo, target):
        names.append(photo.name)
        return real(self, photo, target)

    monkeypatch.setattr(media.PhotoReader, "read", reading)
    return names


def store():
    """Name -> path of the stored photos."""
    return {path.name: path for path in conf.root.glob("site_*/photos/*")}


def content_of(file):
    """Name -> content of the photos in a whole backup."""
    with Archive(file, Limits(), keys=Keys(None, lambda: [stored.key for stored in keys.ring()])) as archive:
        assert all(map(archive.holds, archive.metadata.photos.values()))
        return {name: b"".join(archive.read(photo)) for name, photo in archive.metadata.photos.items()}


def lose_media():
    for path in Path(live.MEDIA_ROOT).rglob("*.png"):
        path.unlink()


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def restored(name, options=CLEAR):
    with services.open_kept(name) as source:
        return services.restore_backup(source, options)


# --- Making -------------------------------------------------------------------------------------------------


def test_each_photo_lies_once_beside_the_backups(pictured, key):
    first, second = services.keep_backup(), services.keep_backup(encrypt=key is not None)
    assert (first.photos, second.photos) == (4, 4)
    assert len(store()) == 3
    for stored in (first, second):
        with kept.open_backup(stored.name) as file, zipfile.ZipFile(file) as archive:
            assert not any(name.startswith("media/") for name in archive.namelist())
    for path in store().values():
        assert path.stat().st_mode & 0o777 == 0o600
        assert any(content in path.read_bytes() for content in pictured.values()) != bool(key)
    assert all(name.endswith(f"_{key.id}.zip") if key else len(name) == 64 for name in store())


def test_without_photos_where_somebody_says_so(pictured, settings):
    assert services.keep_backup(photos=False).photos == 0
    settings.BACKUP_PHOTOS = False
    assert services.keep_backup().photos == 0
    assert automatic.run(now=True).backup.photos == 0
    assert not store()
    assert services.keep_backup(photos=True).photos == 4


def test_only_photos_that_may_be_new_are_read(pictured, long_ago, read):
    automatic.run(now=True)
    assert sorted(read) == sorted(pictured)
    read.clear()
    before = {name: path.stat().st_mtime_ns for name, path in store().items()}
    core.Note.objects.filter(image=NAMES[2]).update(note="changed")
    outcome = automatic.run(now=True)
    assert outcome.made
    assert outcome.backup.photos == 4
    assert read == []
    core.Note.objects.filter(image=NAMES[3]).update(image="notes/images/new.png")
    put("notes/images/new.png", picture(9))
    outcome = automatic.run(now=True)
    assert read == ["notes/images/new.png"]
    assert len(store()) == 4
    assert {name: path.stat().st_mtime_ns for name, path in store().items() if name in before} == before


def test_another_photo_of_the_same_name_and_size_is_read(pictured, monkeypatch, read):
    """Copied there with an old date, which `cp -p` and `rsync` do."""
    monkeypatch.setattr(keeping, "MARGIN", dt.timedelta(0))
    automatic.run(now=True)
    read.clear()
    path, other = Path(live.MEDIA_ROOT, NAMES[0]), picture(77)
    told = path.stat()
    assert len(other) == told.st_size
    path.write_bytes(other)
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
    outcome = automatic.run(now=True)
    assert NAMES[0] in read
    assert outcome.made
    with services.open_whole(outcome.backup.name) as file:
        assert content_of(file)[NAMES[0]] == other


def test_once_a_week_all_are_read(pictured, long_ago, read):
    first = automatic.run(now=True).backup
    read.clear()
    automatic.run(now=True)
    assert read == []
    week_ago = (dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=7, seconds=1)).isoformat()
    kept.note(first.name, photos_read=week_ago)
    automatic.run(now=True)
    assert sorted(read) == sorted(pictured)
    read.clear()
    automatic.run(now=True)
    assert read == []


def test_they_are_not_read_again_before_the_week_is_over_where_the_backup_that_read_them_is_gone(
    pictured, long_ago, read, settings
):
    settings.BACKUP_KEEP = "last=1"
    first = automatic.run(now=True).backup
    read.clear()
    for number in range(3):
        core.Child.objects.filter(picture=NAMES[0]).update(first_name=f"Night {number}")
        assert automatic.run(now=True).made
    assert first.name not in {backup.name for backup in kept.backups()}
    assert read == []


def test_nothing_changed_is_no_new_file_with_photos_too(pictured, key, long_ago):
    made = automatic.run(now=True)
    assert made.made
    assert not automatic.run(now=True).made
    put(NAMES[1], picture(50))
    Path(live.MEDIA_ROOT, NAMES[1]).touch()
    core.Child.objects.filter(picture=NAMES[1]).update(picture="child/picture/carl.png")
    put("child/picture/carl.png", picture(51))
    assert automatic.run(now=True).made


def test_a_photo_that_is_missing_is_told(pictured):
    Path(live.MEDIA_ROOT, NAMES[2]).unlink()
    stored = services.keep_backup()
    assert stored.photos == 3
    with kept.open_backup(stored.name) as file, keys.unlocked(file) as archive:
        (warning,) = archive.metadata.warnings
    assert NAMES[2] in warning


def test_no_room_for_photos_is_a_failure_and_the_records_are_kept(pictured, monkeypatch):
    monkeypatch.setattr(keeping, "_free", lambda: keeping.SPARE + len(picture(1)) // 2)
    outcome = automatic.run(now=True)
    assert outcome.made
    assert outcome.backup.photos == 0
    assert outcome.backup.records > 100
    found = status.status()
    assert found.state is status.State.FAILED
    assert "4 photos" in found.message
    monkeypatch.undo()
    assert automatic.run().backup.photos == 4  # due at once
    assert status.status().state is status.State.OK


def nights(number, moment="2026-11-01T03:00:00+00:00"):
    """Make an automatic backup in each of some nights, with a new note each."""
    for day in range(number):
        with freeze_time(dt.datetime.fromisoformat(moment) + dt.timedelta(days=day)):
            core.Note.objects.create(child=core.Child.objects.first(), note=f"{moment} {day}")
            assert automatic.run(now=True).made


def test_a_photo_that_cannot_be_replaced_in_a_location_keeps_no_other_from_it(
    pictured, settings, monkeypatch, tmp_path
):
    """The copy failed its proof, and the place is append-only."""
    settings.BACKUP_LOCATIONS = {"nas": f"{tmp_path / 'nas'}"}
    nights(1)
    (backup,) = kept.backups()
    proof = {"verdict": "failed", "at": "2026-11-01T04:00:00+00:00", "records": 0, "place": "nas"}
    kept.note(backup.name, proofs={"nas": proof})
    real = Folder.write

    def write(self, name, file, activity):
        if (self._path / name).exists():
            raise PermissionError(13, "denied")
        real(self, name, file, activity)

    monkeypatch.setattr(Folder, "write", write)
    put("notes/images/new.png", picture(9))
    core.Note.objects.create(child=core.Child.objects.first(), note="new", image="notes/images/new.png")
    nights(1, "2026-11-02T03:00:00+00:00")
    seen = elsewhere.seen()["nas"]
    assert (seen.state, len(seen.copies)) == (elsewhere.State.UNKNOWN, 2)
    assert "4 files in “nas” are damaged or out of date, and cannot be replaced there" in seen.message
    assert len(copied(tmp_path / "nas", "photos")) == 4


def test_a_photo_that_is_damaged_here_does_not_replace_a_good_one(pictured, settings, tmp_path):
    """A proof of the copy failed, so its photos are sent again."""
    settings.BACKUP_LOCATIONS = {"nas": f"{tmp_path / 'nas'}"}
    nights(1)
    (backup,) = kept.backups()
    proof = {"verdict": "failed", "at": "2026-11-01T04:00:00+00:00", "records": 0, "place": "nas"}
    kept.note(backup.name, proofs={"nas": proof})
    photos = copied(tmp_path / "nas", "photos")
    good = {path: path.read_bytes() for path in (tmp_path / "nas").rglob("photos/*")}
    assert len(good) == len(photos) == 3
    flip(store()[min(photos)])
    lose_media()  # else the next backup would store it anew
    nights(1, "2026-11-02T03:00:00+00:00")
    assert {path: path.read_bytes() for path in (tmp_path / "nas").rglob("photos/*")} == good


def test_photos_that_cannot_be_read_push_nothing_out(
    pictured, admin, browser, settings, monkeypatch, tmp_path
):
    """The folder of photos is not mounted: neither whole backups nor their photos are removed, here and elsewhere."""
    monkeypatch.setattr(stored_photos, "YOUNG", dt.timedelta(0))
    settings.BACKUP_KEEP = "last=2"
    browser.get(reverse("backup:index"))  # what it imports must not be imported while the clock stands still
    settings.BACKUP_LOCATIONS = {"nas": f"{tmp_path / 'nas'}"}
    nights(2)
    photos, copies = {*store()}, {*copied(tmp_path / "nas", "photos")}
    assert len(photos) == len(copies) == 3
    lose_media()
    nights(4, "2026-11-03T03:00:00+00:00")
    with freeze_time("2026-11-06T04:00:00+00:00"):
        found = status.status()
        assert found.state is status.State.SHRUNK
        assert "4 photos → 0" in found.message
        assert found.as_json()["shrunk"] == [{"model": "photos", "before": 4, "now": 0}]
        assert "4 photos → 0" in browser.get(reverse("backup:index")).content.decode()
        out = io.StringIO()
        call_command("backups", stdout=out)
        assert "4 photos → 0" in out.getvalue()
        assert len(kept.names()) == 6
        assert len([b for b in kept.backups() if b.photos == 4]) == 2
        assert ({*store()}, {*copied(tmp_path / "nas", "photos")}) == (photos, copies)
        accepted = status.acknowledge(admin)
        assert accepted.state is status.State.OK
        assert "It lacks 4 photos that entries name." in accepted.message
    nights(3, "2026-11-07T03:00:00+00:00")
    assert len([b for b in kept.backups() if b.photos == 4]) == 2, "they lack nothing, unlike the others"
    assert ({*store()}, {*copied(tmp_path / "nas", "photos")}) == (photos, copies)


def test_photos_that_were_lost_are_missed_after_photos_are_switched_off(
    pictured, settings, monkeypatch, tmp_path
):
    """What is removed then is compared with the newest backup that tells which photos there are."""
    monkeypatch.setattr(guard, "MANY", 2)
    settings.BACKUP_KEEP = "last=3"
    anna = core.Child.objects.order_by("pk")[0]
    for number in range(4):
        name = f"notes/images/more{number}.png"
        core.Note.objects.create(child=anna, note=name, image=name)
        put(name, picture(10 + number))
    for day in (1, 2, 3):
        nights(1, f"2026-11-0{day}T03:00:00+00:00")
        gone = core.Note.objects.filter(image__contains="more").order_by("pk")[:2]
        for note in gone:
            note.image = ""
            note.save()
    assert [b.photos for b in kept.backups()] == [4, 6, 8]
    settings.BACKUP_PHOTOS = False
    nights(3, "2026-11-04T03:00:00+00:00")
    with freeze_time("2026-11-06T04:00:00+00:00"):
        found = status.status()
    assert found.as_json()["shrunk"] == [{"model": "photos", "before": 8, "now": 4}]
    assert 8 in [b.photos for b in kept.backups()]


def test_photos_that_were_missing_before_hide_no_others(pictured, settings):
    """Fewer are named by entries and missing than before, but others."""
    Path(live.MEDIA_ROOT, NAMES[2]).unlink()
    Path(live.MEDIA_ROOT, NAMES[3]).unlink()
    nights(1)
    core.Note.objects.filter(image__in=NAMES[2:]).delete()
    Path(live.MEDIA_ROOT, NAMES[1]).unlink()
    nights(1, "2026-11-02T03:00:00+00:00")
    with freeze_time("2026-11-02T04:00:00+00:00"):
        found = status.status()
    assert found.as_json()["shrunk"] == [{"model": "photos", "before": 2, "now": 1}]


def test_photos_that_are_switched_off_do_not_go_with_the_old_backups(
    pictured, settings, monkeypatch, tmp_path
):
    """It may be a mistake: the newest backup with photos stays, here and elsewhere, until there is another one."""
    monkeypatch.setattr(stored_photos, "YOUNG", dt.timedelta(0))
    settings.BACKUP_KEEP = "last=2"
    settings.BACKUP_LOCATIONS = {"nas": f"{tmp_path / 'nas'}"}
    nights(3)
    photos, copies = {*store()}, {*copied(tmp_path / "nas", "photos")}
    assert len(photos) == len(copies) == 3
    settings.BACKUP_PHOTOS = False
    nights(4, "2026-11-04T03:00:00+00:00")
    assert [(b.photos, b.locations) for b in kept.backups()] == [(n, (kept.LOCAL, "nas")) for n in (0, 0, 4)]
    assert ({*store()}, {*copied(tmp_path / "nas", "photos")}) == (photos, copies)
    out = io.StringIO()
    with freeze_time("2026-11-07T04:00:00+00:00"):
        call_command("backups", stdout=out)
    assert out.getvalue().count("stays: the newest with photos\n") == 1
    with services.open_whole(kept.backups()[2].name) as whole:
        assert content_of(whole) == pictured
    settings.BACKUP_PHOTOS = True
    nights(2, "2026-11-08T03:00:00+00:00")
    assert [b.photos for b in kept.backups()] == [4, 4]
    core.Note.objects.filter(image__in=NAMES).update(image="")
    core.Child.objects.update(picture="")
    nights(2, "2026-11-10T03:00:00+00:00")
    assert [b.photos for b in kept.backups()] == [0, 0], "nobody has left these out"
    assert not store()


def test_photos_that_somebody_took_away_are_no_loss(pictured, settings):
    automatic.run(now=True)
    core.Note.objects.filter(image__in=NAMES).update(image="")
    assert automatic.run(now=True).backup.photos == 2
    assert status.status().state is status.State.OK
    settings.BACKUP_PHOTOS = False
    assert automatic.run(now=True).backup.photos == 0
    assert status.status().state is status.State.OK


def test_one_that_somebody_takes_away_beside_one_that_is_missing_is_no_loss(pictured, settings):
    """What is missing was missing before."""
    settings.MEDIA_ROOT.joinpath(NAMES[2]).unlink()
    assert automatic.run(now=True).backup.photos == 3
    core.Child.objects.filter(picture=NAMES[0]).update(picture="")
    assert automatic.run(now=True).backup.photos == 2
    assert status.status().state is not status.State.SHRUNK


def test_more_photos_than_a_backup_may_have_are_told(pictured, settings):
    settings.BACKUP_MAX_PHOTOS = 2
    outcome = automatic.run(now=True)
    assert outcome.backup.photos == 2
    assert len(outcome.backup.warnings) == 2
    found = status.status()
    assert found.state is status.State.FAILED
    assert "2 photos" in found.message
    assert "BACKUP_MAX_PHOTOS" in found.message
    settings.BACKUP_MAX_PHOTOS = 4
    assert automatic.run().backup.photos == 4
    assert status.status().state is status.State.OK


def test_what_a_killed_one_stored_is_not_stored_twice(pictured, monkeypatch):
    real = stored_photos.Photos.add
    added = []

    def add(self, photo, content, key):
        if len(added) == 2:
            raise KeyboardInterrupt
        added.append(photo.name)
        real(self, photo, content, key)

    with monkeypatch.context() as patch:
        patch.setattr(stored_photos.Photos, "add", add)
        with pytest.raises(KeyboardInterrupt):
            automatic.run(now=True)
    assert not kept.names()
    before = {name: path.stat().st_mtime_ns for name, path in store().items()}
    assert len(before) == 2
    assert automatic.run(now=True).backup.photos == 4
    assert {name: path.stat().st_mtime_ns for name, path in store().items() if name in before} == before
    assert not [*conf.root.rglob("*.part")]


def test_a_photo_that_comes_back_otherwise_is_no_backup(pictured, monkeypatch):
    monkeypatch.setattr(stored_photos.Photos, "blocks", lambda self, photo, key: iter([b"something else"]))
    with pytest.raises(StorageFailed, match="something else came back"):
        services.keep_backup()
    assert not kept.names()


# --- Restoring ----------------------------------------------------------------------------------------------


def test_photos_come_back_byte_for_byte(pictured, key):
    before = snapshot()
    stored = services.keep_backup()
    lose_media()
    core.Note.objects.all().delete()
    result = restored(stored.name)
    assert result.photos == 4
    assert files() == pictured
    assert differences(before, snapshot()) == []


def test_the_preview_counts_them(pictured, key):
    stored = services.keep_backup()
    Path(live.MEDIA_ROOT, NAMES[0]).unlink()
    with services.open_kept(stored.name) as source:
        photos = services.inspect_backup(source, CLEAR).photos
    assert (photos.added, photos.unchanged, photos.missing) == (1, 3, 0)


def test_what_is_previewed_on_the_page_comes_back_with_its_photos(pictured, admin, key):
    stored = services.keep_backup()
    lose_media()
    preview = script(admin).post(reverse("backup:restore"), {"kept": stored.name}).json()
    assert preview["photos"]["added"] == 4
    result = script(admin).post(reverse("backup:confirm"), {"upload": preview["upload"]}).json()
    assert result["photos"] == 4
    assert files() == pictured


def test_a_file_that_was_copied_from_here_is_one_thing_however_it_is_sent(pictured, admin, key, tmp_path):
    """Its photos are still stored here: a preview counts them, and they come back."""
    (path,) = conf.root.rglob(services.keep_backup().name)
    copy = tmp_path / "copy.zip"
    copy.write_bytes(path.read_bytes())
    lose_media()
    with copy.open("rb") as file:
        preview = script(admin).post(reverse("backup:restore"), {"backup_file": file}).json()
    assert preview["photos"] == {"added": 4, "unchanged": 0, "missing": 0}
    with copy.open("rb") as file:
        result = script(admin).post(reverse("backup:confirm"), {"backup_file": file}).json()
    assert result["photos"] == 4
    assert files() == pictured
    lose_media()
    out = io.StringIO()
    call_command("restore", str(copy), "--dry-run", stdout=out)
    assert "4 added, 0 already here, 0 missing" in out.getvalue()
    call_command("restore", str(copy), "--no-input", stdout=out)
    assert files() == pictured
    call_command("prove_backup", str(copy), stdout=out)
    assert "and 4 photos came back identical" in out.getvalue()


def test_a_photo_that_is_not_beside_a_file_comes_from_here(pictured, settings, tmp_path):
    """From a location that lost it, say."""
    folder = tmp_path / "nas"
    settings.BACKUP_LOCATIONS = {"nas": str(folder)}
    automatic.run(now=True)
    (path,) = copied(folder, "kept").values()
    gone, damaged, *_others = copied(folder, "photos").values()
    gone.unlink()
    flip(damaged)
    lose_media()
    call_command("restore", str(path), "--clear", "--no-input", stdout=io.StringIO())
    assert files() == pictured
    call_command("prove_backup", str(path), stdout=io.StringIO())


def named_often(stored, pictured, count):
    """The file of a kept backup with so many notes more, whose photos are all the same one under another name."""
    (path,) = conf.root.rglob(stored.name)

    def change(records):
        first = records["core.note"][-1]
        records["core.note"] += [
            {
                **first,
                "pk": first["pk"] + number,
                "fields": {**first["fields"], "image": f"notes/{number}.png"},
            }
            for number in range(1, count + 1)
        ]

    def change_metadata(metadata):
        entry = next(entry for entry in metadata["media"] if entry["name"] == NAMES[1])
        metadata["media"] += [{**entry, "name": f"notes/{number}.png"} for number in range(1, count + 1)]

    return rewritten(io.BytesIO(path.read_bytes()), change, change_metadata)


@pytest.mark.parametrize("is_here", [False, again(True)])
def test_a_small_file_cannot_write_one_photo_any_number_of_times(
    pictured, admin, monkeypatch, is_here, settings
):
    """It need not contain the photo, since that is stored here. What it writes stays in proportion to that."""
    stored = services.keep_backup()
    size = len(pictured[NAMES[1]])
    monkeypatch.setattr(placing, "REPEATED", 5 * size)
    Path(settings.MEDIA_ROOT, NAMES[0]).unlink()
    if not is_here:
        lose_media()
    before, files_before = snapshot(), files()
    fits = named_often(stored, pictured, 4)  # and one more, that it had
    file = named_often(stored, pictured, 20)
    preview = script(admin).post(reverse("backup:restore"), {"backup_file": fits}).json()
    assert preview["photos"]["missing"] == 0
    for address in ("restore", "confirm"):
        file.seek(0)
        answer = script(admin).post(reverse(f"backup:{address}"), {"backup_file": file})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["offer"]) == (413, "too_large", "leave_out")
        assert "so many names" in error["message"]
    assert (differences(before, snapshot()), files()) == ([], files_before)
    file.seek(0)
    answer = script(admin).post(reverse("backup:confirm"), {"backup_file": file, "leave_out": "true"}).json()
    assert len(files()) == (9 if is_here else 8)
    assert answer["records"] > 20
    assert any("so many names" in line for line in answer["warnings"])


def test_photos_that_had_many_names_come_back_where_they_are_still_here(pictured, monkeypatch):
    """Nothing is written then; and an undo is of what was here."""
    child = core.Child.objects.earliest("pk")
    for number in range(9):
        put(f"notes/{number}.png", pictured[NAMES[1]])
        core.Note.objects.create(child=child, note="x", image=f"notes/{number}.png")
    monkeypatch.setattr(placing, "REPEATED", 0)
    stored, before, contents = services.keep_backup(), snapshot(), files()
    assert restored(stored.name).photos == 13
    lose_media()
    with pytest.raises(InvalidBackup, match=r"so many names.*Download the kept backup"):
        restored(stored.name)
    with services.open_whole(stored.name) as whole:
        assert services.restore_backup(whole, CLEAR).photos == 13
    assert (differences(before, snapshot()), files()) == ([], contents)


def test_a_photo_that_is_gone_is_named_and_the_records_come_back(pictured, key):
    before = snapshot()
    stored = services.keep_backup()
    with services.open_kept(stored.name) as file, keys.unlocked(file) as archive:
        name = stored_photos.stored_name(archive.metadata.photos[NAMES[0]].sha256, archive.key)
    store()[name].unlink()
    lose_media()
    core.Note.objects.all().delete()
    result = restored(stored.name)
    assert differences(before, snapshot()) == []
    assert any(NAMES[0] in line for line in result.warnings)
    assert files() == {name: content for name, content in pictured.items() if name != NAMES[0]}


def test_a_damaged_photo_is_named(pictured, key):
    stored = services.keep_backup()
    for path in store().values():
        flip(path)
    lose_media()
    with pytest.raises(InvalidBackup, match="is damaged"):
        restored(stored.name)


def test_a_photo_that_was_cut_off_is_stored_again(pictured, key, long_ago):
    services.keep_backup()
    for path in store().values():
        os.truncate(path, 1)
    stored = services.keep_backup()
    lose_media()
    restored(stored.name)
    assert files() == pictured


@pytest.mark.parametrize("is_here", [True, False])
def test_photos_that_are_here_come_back_though_nobody_knows_where_copies_are(pictured, settings, is_here):
    name = services.keep_backup().name
    settings.BACKUP_LOCATIONS = "oops"
    lose_media()
    if not is_here:
        next(iter(store().values())).unlink()
    result = restored(name)
    assert (files() == pictured) is is_here
    assert ("BACKUP_LOCATIONS" in str(result.warnings)) is not is_here, "it may be in a location"


def test_undo_needs_no_photos(pictured, key):
    before = snapshot()
    stored = services.keep_backup()
    core.Child.objects.update(picture="")
    result = restored(stored.name)
    assert kept.find(result.safety_copy).photos == 0
    services.undo_restore()
    assert set(core.Child.objects.values_list("picture", flat=True)) == {""}
    services.undo_restore(safety_copy=stored.name)
    assert differences(before, snapshot()) == []
    assert files() == pictured


# --- Downloads ----------------------------------------------------------------------------------------------


def test_a_download_is_one_whole_file(pictured, browser, key):
    stored = services.keep_backup()
    answer = browser.get(reverse("backup:kept", args=[stored.name]))
    data = b"".join(answer.streaming_content)
    assert int(answer["Content-Length"]) == len(data)
    assert content_of(io.BytesIO(data)) == pictured
    lose_media()
    core.Note.objects.all().delete()
    result = services.restore_backup(io.BytesIO(data), CLEAR)
    assert result.photos == 4
    assert files() == pictured


def test_a_download_lacks_what_is_missing_and_says_so(pictured, key):
    stored = services.keep_backup()
    path = next(iter(store().values()))
    path.unlink()
    with services.open_whole(stored.name) as file:
        assert len(content_of(file)) < 4
        with keys.unlocked(file) as archive:
            assert len(archive.metadata.warnings) >= 1
        assert services.verify_backup(file).photos.keys() < pictured.keys()


def test_without_its_key_a_download_would_lack_its_photos(pictured, settings):
    settings.BACKUP_ENCRYPT = ["local"]
    keys.add()
    stored, without = services.keep_backup(), services.keep_backup(photos=False)
    (conf.root / "keys.json").unlink()
    with pytest.raises(KeyNeeded):
        services.open_whole(stored.name)
    assert kept.find(stored.name).photos == 4
    with services.open_whole(without.name) as file:
        assert zipfile.is_zipfile(file)


def test_a_file_on_the_disk_is_verified_with_its_photos(pictured, key):
    stored = services.keep_backup()
    (path,) = conf.root.rglob(stored.name)
    out = io.StringIO()
    call_command("verify_backup", str(path), stdout=out)
    assert "4 photos" in out.getvalue()
    flip([*store().values()][1])
    with pytest.raises(CommandError, match="is damaged"):
        call_command("verify_backup", str(path), stdout=out)


# --- Proofs -------------------------------------------------------------------------------------------------


def test_it_is_proved_with_its_photos(pictured, key):
    before, live_files = snapshot(), files()
    stored = services.keep_backup()
    proof = services.prove_kept(stored.name)
    assert (proof.verdict, proof.reason) == (Verdict.PROVED, "")
    assert (proof.records, proof.photos) == (stored.records, 4)
    assert kept.find(stored.name).proof["photos"] == 4
    assert differences(before, snapshot()) == []
    assert files() == live_files


def test_a_download_with_photos_is_proved(pictured):
    proof = services.prove_backup(take(photos=True))
    assert (proof.verdict, proof.reason, proof.photos) == (Verdict.PROVED, "", 4)


@pytest.mark.parametrize("fault", ["damaged", "gone", "cut off"])
def test_a_photo_that_is_not_what_it_was_fails_the_proof(pictured, key, fault):
    stored = services.keep_backup()
    path = next(iter(store().values()))
    flip(path) if fault == "damaged" else path.unlink() if fault == "gone" else os.truncate(path, 1)
    proof = services.prove_kept(stored.name)
    assert proof.verdict is Verdict.FAILED
    assert any(name in proof.reason for name in pictured)
    assert ("is damaged" if fault == "damaged" else "is missing") in proof.reason


def test_a_live_photo_that_no_form_would_take_is_no_fault_of_the_backup(pictured):
    put(NAMES[0], b"no picture at all")
    stored = services.keep_backup()
    proof = services.prove_kept(stored.name)
    assert (proof.verdict, proof.reason, proof.photos) == (Verdict.PROVED, "", 4)


def test_what_was_read_lately_is_not_read_again(pictured, long_ago, proving):
    made = automatic.run(now=True).backup
    proof = kept.find(made.name).proof
    assert (proof["verdict"], proof["photos"], proof.get("photos_known", 0)) == ("proved", 4, 0)
    core.Note.objects.filter(image=NAMES[3]).update(image="notes/images/new.png")
    put("notes/images/new.png", picture(9))
    made = automatic.run(now=True).backup
    proof = kept.find(made.name).proof
    assert (proof["verdict"], proof["photos"], proof["photos_known"]) == ("proved", 4, 3)
    for text in (status.status().message, kept_in_words([kept.find(made.name)], {})[0].proof):
        assert "and 1 photo came back identical. 3 more photos did so in the week before." in text


def test_a_backup_that_was_cut_off_has_no_photos_read_again(pictured, long_ago, proving, read):
    """It failed no proof, so no photo can be the reason."""
    made = [automatic.run(now=True).backup]
    for number in range(2):
        core.Note.objects.filter(image=NAMES[3]).update(note=f"changed {number}")
        made.append(automatic.run(now=True).backup)
    os.truncate(conf.root / f"site_{made[1].site}" / "kept" / made[1].name, 100)
    read.clear()
    core.Note.objects.filter(image=NAMES[3]).update(note="changed again")
    proof = kept.find(automatic.run(now=True).backup.name).proof
    assert read == []
    assert (proof["verdict"], proof["photos"], proof["photos_known"]) == ("proved", 4, 4)


@pytest.mark.slow
def test_a_damaged_photo_is_found_within_a_week_and_mended(pictured, long_ago, proving):
    first = automatic.run(now=True).backup
    flip(next(iter(store().values())))
    proof = {**kept.find(first.name).proof, "at": week_ago()}
    kept.note(first.name, **proof_facts(proof))
    core.Note.objects.filter(image=NAMES[3]).update(note="changed")
    second = automatic.run(now=True).backup
    assert kept.find(second.name).proof["verdict"] == "failed"
    assert status.status().state is status.State.FAILED
    core.Note.objects.filter(image=NAMES[3]).update(note="changed again")
    third = automatic.run(now=True).backup  # which stores the photo anew
    for made in (first, second, third):  # the one that failed was proved again by itself
        assert kept.find(made.name).proof["verdict"] == "proved"
    assert status.status().state is status.State.OK


def week_ago():
    return (dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=7, seconds=1)).isoformat()


def proof_facts(proof):
    return {"proofs": {"local": proof}}


# --- Removal ------------------------------------------------------------------------------------------------


def test_photos_go_with_the_last_backup_that_names_them(pictured, key, monkeypatch, long_ago):
    monkeypatch.setattr(stored_photos, "YOUNG", dt.timedelta(0))
    old = services.keep_backup()
    core.Note.objects.filter(image=NAMES[2]).update(image="")
    automatic.run(now=True)
    assert len(store()) == 3
    kept.delete(old.name)
    automatic.run(now=True)
    assert len(store()) == 2


def test_young_photos_stay(pictured, long_ago):
    kept.delete(services.keep_backup().name)
    automatic.run(now=True)
    core.Note.objects.filter(image=NAMES[2]).update(image="")
    automatic.run(now=True)
    assert len(store()) == 3


def test_nothing_goes_while_a_backup_cannot_be_read(pictured, monkeypatch, long_ago):
    monkeypatch.setattr(stored_photos, "YOUNG", dt.timedelta(0))
    old = services.keep_backup()
    (path,) = conf.root.rglob(old.name)
    path.write_bytes(path.read_bytes()[:-100])
    core.Note.objects.filter(image=NAMES[2]).update(image="")
    automatic.run(now=True)
    assert len(store()) == 3
    kept.delete(old.name)
    automatic.run(now=True)
    assert len(store()) == 2


def test_what_is_encrypted_with_a_key_that_is_not_here_stays(pictured, settings, monkeypatch, long_ago):
    settings.BACKUP_ENCRYPT = ["local"]
    keys.add()
    services.keep_backup()
    sealed = {*store()}
    settings.BACKUP_ENCRYPT = []
    (conf.root / "keys.json").unlink()
    monkeypatch.setattr(stored_photos, "YOUNG", dt.timedelta(0))
    automatic.run(now=True)
    assert sealed < {*store()}


@pytest.fixture
def in_both_forms(pictured, settings, monkeypatch):
    """The only backup, which is encrypted. The photos of one in clear, which is gone, are still there, too."""
    monkeypatch.setattr(stored_photos, "YOUNG", dt.timedelta(0))
    clear = services.keep_backup().name
    keys.add()
    settings.BACKUP_ENCRYPT = ["local"]
    made = services.keep_backup().name
    lose_media()
    kept.delete(clear)
    return made


def spoil(path, how):
    os.truncate(path, 40) if how == "cut off" else flip(path)


@pytest.mark.parametrize("how", ["flipped", again("cut off")])
def test_the_only_whole_file_of_a_photo_does_not_go(in_both_forms, pictured, monkeypatch, how):
    """The backup that stays has the photo encrypted, and that file is damaged."""
    sealed = {name for name in store() if name.endswith(".zip")}
    spoil(store()[min(sealed)], how)
    read, real = [], stored_photos.is_whole
    monkeypatch.setattr(stored_photos, "is_whole", lambda *args: (read.append(1), real(*args))[1])
    automatic._remove_photos()
    assert read
    assert store().keys() == sealed, "it was stored anew"
    read.clear()
    automatic._remove_photos()
    assert not read, "a photo is only read before another file of it goes"
    assert restored(in_both_forms).photos == 4
    assert files() == pictured


@pytest.mark.parametrize("how", ["cut off", "flipped"])
def test_a_photo_whose_file_is_damaged_comes_from_the_one_beside(in_both_forms, pictured, how):
    """It is there in clear, too, from another backup."""
    for name, path in store().items():
        if name.endswith(".zip"):
            spoil(path, how)
    assert services.prove_kept(in_both_forms).verdict is Verdict.PROVED
    assert restored(in_both_forms).photos == 4
    assert files() == pictured


# --- Lists --------------------------------------------------------------------------------------------------


def test_lists_and_status_count_photos(pictured, admin, browser, proving):
    made = automatic.run(now=True).backup
    entry = script(admin).get(reverse("backup:index")).json()["backups"][0]
    assert (entry["name"], entry["photos"]) == (made.name, 4)
    assert script(admin).get(reverse("backup:status")).json()["proof"]["photos"] == 4
    out = io.StringIO()
    call_command("backups", stdout=out)
    assert "4 photos" in out.getvalue()
    page = browser.get(reverse("backup:index")).content.decode()
    assert "4 photos" in page


def test_a_script_says_with_or_without_photos(pictured, admin):
    for value, photos in (("", 4), ("true", 4), ("false", 0)):
        data = {"photos": value} if value else {}
        name = script(admin).post(reverse("backup:run"), data).json()["name"]
        assert kept.find(name).photos == photos


def test_the_command_says_so_too(pictured):
    out = io.StringIO()
    call_command("backup", "--keep", stdout=out)
    assert kept.find(out.getvalue().splitlines()[0]).photos == 4


# --- Locations ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["in clear", again("encrypted")])
def place(request, pictured, settings, tmp_path, monkeypatch):
    """A location that is a folder; returns it, and what its copies are encrypted with."""
    settings.BACKUP_LOCATIONS = f"nas={tmp_path / 'nas'}"
    monkeypatch.setattr(keeping, "MARGIN", -dt.timedelta(seconds=60))
    return tmp_path / "nas", keys.add().key if request.param == "encrypted" else None


def copied(folder, what):
    return {path.name: path for path in folder.glob(f"site_*/{what}/*")}


def test_photos_go_to_a_location_once_and_before_the_backup(place, monkeypatch):
    folder, key = place
    sent, real = [], Location.send

    def send(self, name, file):
        sent.append(name.partition("/")[0])
        return real(self, name, file)

    monkeypatch.setattr(Location, "send", send)
    made = automatic.run(now=True).backup
    assert sent == ["photos"] * 3 + ["kept"]
    assert all(
        name.endswith(f"_{key.id}.zip") if key else name in store() for name in copied(folder, "photos")
    )
    sent.clear()
    core.Note.objects.filter(image=NAMES[3]).update(image="notes/images/new.png")
    put("notes/images/new.png", picture(9))
    automatic.run(now=True)
    assert sent == ["photos", "kept"]
    assert kept.find(made.name).locations == ("local", "nas")


@pytest.mark.parametrize("arrives", ["nothing", "half"])
def test_a_photo_that_does_not_arrive_is_a_failure_of_the_location(place, monkeypatch, arrives):
    """A server may answer that it has a file which it has not."""
    folder, _key = place
    real = Folder.write

    def write(self, name, file, activity):
        real(self, name, file, activity)
        if "/photos/" in name:
            (folder / name).unlink() if arrives == "nothing" else os.truncate(folder / name, 50)

    monkeypatch.setattr(Folder, "write", write)
    automatic.run(now=True)
    seen = elsewhere.seen()["nas"]
    assert (seen.state, "is not what was sent" in seen.message) == (elsewhere.State.FAILED, True)
    assert not copied(folder, "kept")
    monkeypatch.setattr(Folder, "write", real)
    automatic.run(now=True)
    assert elsewhere.seen()["nas"].state is elsewhere.State.OK
    assert len(copied(folder, "photos")) == 3


def test_what_lies_in_a_location_comes_back_without_this_server(place, pictured):
    made = automatic.run(now=True).backup
    before = snapshot()
    lose_media()
    core.Note.objects.all().delete()
    for path in [*store().values(), *conf.root.rglob("*_automatic_*.zip")]:
        path.unlink()
    result = restored(made.name)
    assert result.photos == 4
    assert files() == pictured
    assert differences(before, snapshot()) == []


def test_a_photo_that_is_damaged_here_comes_from_a_location(pictured, settings, tmp_path):
    settings.BACKUP_LOCATIONS = {"nas": str(tmp_path / "nas")}
    made = automatic.run(now=True).backup
    lose_media()
    list(map(flip, store().values()))
    assert restored(made.name).photos == 4
    assert files() == pictured


@pytest.fixture
def sealed(pictured, settings, tmp_path):
    """Backups that are in clear here, and encrypted in a location. Returns its folder."""
    settings.BACKUP_LOCATIONS = f"nas={tmp_path / 'nas'}"
    settings.BACKUP_PROVE = "off"
    keys.add()
    return tmp_path / "nas"


@pytest.mark.parametrize("spoil", [flip, again(Path.unlink)])
def test_a_photo_that_is_not_whole_here_comes_from_where_it_is_encrypted(sealed, pictured, admin, spoil):
    made = automatic.run(now=True).backup
    lose_media()
    list(map(spoil, store().values()))
    client = script(admin)
    download = client.get(reverse("backup:kept", args=[made.name]), {"photos": "1"})
    assert content_of(io.BytesIO(b"".join(download.streaming_content))) == pictured
    preview = client.post(reverse("backup:restore"), {"kept": made.name}).json()
    assert (preview["photos"]["added"], preview["photos"]["missing"]) == (4, 0)
    assert restored(made.name).photos == 4
    assert files() == pictured


def test_a_photo_that_is_encrypted_here_comes_from_where_it_is_in_clear(pictured, settings, tmp_path):
    settings.BACKUP_LOCATIONS = f"nas={tmp_path / 'nas'}"
    automatic.run(now=True)
    keys.add()
    settings.BACKUP_ENCRYPT, settings.BACKUP_LOCATIONS = ["local"], ""
    made = services.keep_backup()
    assert made.encrypted
    settings.BACKUP_LOCATIONS = f"nas={tmp_path / 'nas'}"
    lose_media()
    for path in store().values():
        path.unlink()
    assert restored(made.name).photos == 4
    assert files() == pictured


def test_a_new_location_gets_a_photo_that_another_one_has(sealed, settings, tmp_path):
    automatic.run(now=True)
    lose_media()
    for path in store().values():
        path.unlink()
    settings.BACKUP_LOCATIONS += f",disk={tmp_path / 'disk'}"
    copies.copy()
    assert copied(tmp_path / "disk", "photos").keys() == copied(sealed, "photos").keys()
    assert services.prove_kept(kept.backups()[0].name, place="disk").verdict is Verdict.PROVED
    assert {seen.state for seen in elsewhere.seen().values()} == {elsewhere.State.OK}


def test_a_photo_that_was_not_sent_is_a_failure_of_the_location(pictured, settings, tmp_path):
    made = automatic.run(now=True).backup
    lose_media()
    flip(store()[hashlib.sha256(pictured[NAMES[0]]).hexdigest()])
    settings.BACKUP_LOCATIONS = f"nas={tmp_path / 'nas'}"
    for _visit in range(2):
        copies.copy()
        seen = elsewhere.seen()["nas"]
        assert seen.state is elsewhere.State.FAILED
        assert "1 photo cannot be copied to “nas”" in seen.message
        assert NAMES[0] in seen.message
    assert [*seen.copies] == [made.name], "the others are there"
    assert len(copied(tmp_path / "nas", "photos")) == 2


@pytest.mark.parametrize("what", ["photo", "backup"])
def test_what_another_location_may_have_that_is_down_is_tried_again(sealed, settings, tmp_path, what):
    settings.BACKUP_LOCATIONS += f",usb={tmp_path / 'usb'}"
    made = automatic.run(now=True).backup
    lose_media()
    list(map(flip, store().values()))
    for path in copied(sealed, "photos").values():
        path.unlink()
    if what == "backup":
        for path in (
            conf.root / f"site_{made.site}" / "kept" / made.name,
            *copied(sealed, "kept").values(),
        ):
            os.truncate(path, 100)
    (tmp_path / "usb").rename(tmp_path / "away")
    copies.copy()
    seen = elsewhere.seen()["nas"]
    assert (seen.state, seen.is_lasting, seen.next_try is None) == (elsewhere.State.FAILED, False, False)
    assert "cannot be asked. Location “usb”: It is not mounted" in seen.message
    assert "delete it" not in seen.message
    (tmp_path / "away").rename(tmp_path / "usb")
    with freeze_time(seen.next_try):
        automatic.copy_again()
    assert elsewhere.seen()["nas"].state is elsewhere.State.OK
    assert len(copied(sealed, "photos")) == 3


def test_without_the_library_backups_are_sent_although_a_photo_of_an_encrypted_copy_is_missing(
    sealed, settings, monkeypatch
):
    automatic.run(now=True)
    for path in copied(sealed, "photos").values():
        path.unlink()
    settings.BACKUP_ENCRYPT = "off"
    monkeypatch.setattr(encryption, "AES", None)
    core.Note.objects.filter(image=NAMES[3]).update(note="changed")
    made = automatic.run(now=True).backup
    assert made.name in elsewhere.seen()["nas"].copies
    assert made.name in copied(sealed, "kept")


def test_photos_of_a_copy_are_sent_although_the_file_here_is_damaged(sealed, monkeypatch):
    made = automatic.run(now=True).backup
    for path in copied(sealed, "photos").values():
        path.unlink()
    os.truncate(conf.root / f"site_{made.site}" / "kept" / made.name, 100)
    fetched, real = [], Location.fetch
    monkeypatch.setattr(Location, "fetch", lambda *args: (fetched.append(args[1]), real(*args))[1])
    copies.copy()
    assert len(copied(sealed, "photos")) == 3
    assert elsewhere.seen()["nas"].state is elsewhere.State.OK
    assert fetched == [], "its table of contents is enough"


@pytest.mark.parametrize("of", ["the next location", "none"])
def test_which_photos_a_copy_has_that_is_damaged_too_is_known_from_the_next(sealed, settings, tmp_path, of):
    settings.BACKUP_LOCATIONS += f",usb={tmp_path / 'usb'}"
    made = automatic.run(now=True).backup
    for path in copied(sealed, "photos").values():
        path.unlink()
    damaged = [conf.root / f"site_{made.site}" / "kept" / made.name, *copied(sealed, "kept").values()]
    if of == "none":
        damaged += copied(tmp_path / "usb", "kept").values()
    for path in damaged:
        os.truncate(path, 100)
    copies.copy()
    assert len(copied(sealed, "photos")) == (0 if of == "none" else 3)
    state, message = elsewhere.seen()["nas"].state, elsewhere.seen()["nas"].message
    if of == "none":
        assert (state, made.name in message) == (elsewhere.State.FAILED, True)
        assert message.endswith("Look at it, then delete it.")
    else:
        assert state is elsewhere.State.OK


@pytest.mark.parametrize("name_of", ["the copy", again("the file here")])
def test_the_whole_copy_in_its_place_is_proved(sealed, monkeypatch, name_of):
    """As the message says. The photos stay those that are here."""
    monkeypatch.setattr(stored_photos, "YOUNG", dt.timedelta(0))
    made = automatic.run(now=True).backup
    path = conf.root / f"site_{made.site}" / "kept" / made.name
    path.write_bytes(spoiled(path.read_bytes()))
    assert services.prove_kept(made.name, place="local").verdict is Verdict.FAILED
    assert "“nas” has another copy of it" in status.status().message
    ((name, copy),) = copied(sealed, "kept").items()
    path.unlink()
    (path.parent / (name if name_of == "the copy" else path.name)).write_bytes(copy.read_bytes())
    proof = services.prove_kept(kept.backups()[0].name, place="local")
    assert (proof.verdict, proof.reason, proof.photos) == (Verdict.PROVED, "", 4)
    assert status.status().state is status.State.OK
    automatic._remove_photos()
    assert len(store()) == 3


@pytest.mark.parametrize("by", ["a person", again("a run"), again("a person who puts the copy in its place")])
def test_a_photo_that_failed_a_proof_is_mended_from_a_location(sealed, settings, pictured, by):
    made = automatic.run(now=True).backup
    lose_media()
    list(map(flip, store().values()))
    assert services.prove_kept(made.name, place="local").verdict is Verdict.FAILED
    if by == "a run":
        settings.BACKUP_PROVE = "local"
        automatic.run(now=True)
    else:
        if by != "a person":
            ((name, copy),) = copied(sealed, "kept").items()
            path = conf.root / f"site_{made.site}" / "kept" / made.name
            path.with_name(name).write_bytes(copy.read_bytes())
            path.unlink()
        assert services.prove_kept(kept.backups()[-1].name, place="local").verdict is Verdict.PROVED
    assert kept.backups()[-1].proof["verdict"] == "proved"
    assert restored(kept.backups()[-1].name).photos == 4
    assert files() == pictured


def test_a_photo_that_is_damaged_in_one_location_comes_from_the_next(place, pictured, settings, tmp_path):
    settings.BACKUP_LOCATIONS = {name: str(tmp_path / name) for name in ("nas", "disk")}
    made = automatic.run(now=True).backup
    lose_media()
    for path in [*store().values(), *conf.root.rglob("*_automatic_*.zip")]:
        path.unlink()
    list(map(flip, copied(tmp_path / "nas", "photos").values()))
    assert restored(made.name).photos == 4
    assert files() == pictured


def test_a_plugged_in_disk_is_restored_from_by_the_command(place, pictured):
    folder, _key = place
    automatic.run(now=True)
    (path,) = copied(folder, "kept").values()
    lose_media()
    for stored in store().values():
        stored.unlink()
    call_command("restore", str(path), "--clear", "--no-input", stdout=io.StringIO())
    assert files() == pictured


def test_a_copy_is_proved_with_the_photos_that_lie_there(place):
    folder, _key = place
    made = automatic.run(now=True).backup
    proof = services.prove_kept(made.name, place="nas")
    assert (proof.verdict, proof.reason, proof.photos) == (Verdict.PROVED, "", 4)
    flip(next(iter(copied(folder, "photos").values())))
    proof = services.prove_kept(made.name, place="nas")
    assert proof.verdict is Verdict.FAILED
    assert "is damaged" in proof.reason
    automatic.run(now=True)  # which sends it anew
    assert services.prove_kept(made.name, place="nas").verdict is Verdict.PROVED


def test_a_photo_that_is_gone_from_a_location_is_sent_again(place):
    folder, _key = place
    automatic.run(now=True)
    name, path = next(iter(copied(folder, "photos").items()))
    path.unlink()
    automatic.run(now=True)
    assert name in copied(folder, "photos")


def test_a_location_that_has_no_room_for_a_photo_makes_some(place, settings, monkeypatch):
    folder, _key = place
    nights(2)
    next(iter(copied(folder, "photos").values())).unlink()
    real = Folder.write

    def write(self, name, file, activity):
        if len(copied(folder, "kept")) > 1:
            raise OSError(errno.ENOSPC, "")
        real(self, name, file, activity)

    monkeypatch.setattr(Folder, "write", write)
    settings.BACKUP_KEEP = "last=1"
    copies.copy()
    assert elsewhere.seen()["nas"].state is elsewhere.State.OK
    assert (len(copied(folder, "kept")), len(copied(folder, "photos"))) == (1, 3)


@pytest.mark.parametrize("what", ["cut off", "longer"])
def test_a_photo_of_another_size_in_a_location_is_sent_again(place, what):
    folder, _key = place
    automatic.run(now=True)
    path = next(iter(copied(folder, "photos").values()))
    good = path.read_bytes()
    path.write_bytes(good[:50] if what == "cut off" else good + bytes(10_000))
    automatic.run(now=True)
    assert path.read_bytes()[:50] == good[:50]
    assert abs(path.stat().st_size - len(good)) < 10, "it may be encrypted anew"


def test_photos_go_from_a_location_with_the_last_copy_that_names_them(place, settings):
    folder, _key = place
    settings.BACKUP_KEEP = "last=1"
    automatic.run(now=True)
    core.Note.objects.filter(image=NAMES[2]).update(image="")
    automatic.run(now=True)
    automatic.run(now=True)
    assert len(copied(folder, "kept")) == 1
    assert len(copied(folder, "photos")) == 2
    assert len(store()) == 3  # a day old only tomorrow


@pytest.mark.parametrize("spoil", [again("cut off"), "flipped"])
def test_a_photo_in_clear_stays_in_a_location_where_the_encrypted_one_is_damaged(sealed, spoil):
    """The backup that names it is only there."""
    first = automatic.run(now=True).backup
    before = copied(sealed, "photos").keys()
    core.Note.objects.filter(image=NAMES[2]).update(image="")
    automatic.run(now=True)
    kept.delete_here(first)
    digest = hashlib.sha256(picture(3)).hexdigest()
    (sealed / f"site_{first.site}" / "photos" / digest).write_bytes(picture(3))
    for path in copied(sealed, "photos").values():
        if path.suffix:
            os.truncate(path, 40) if spoil == "cut off" else flip(path)
    automatic.run(now=True)
    assert copied(sealed, "photos").keys() == {*before, digest}


def test_photos_stay_in_a_location_while_a_copy_there_cannot_be_read(place, monkeypatch):
    """It may be the only one that needs them, as after the loss of BACKUP_ROOT."""
    folder, _key = place
    first = automatic.run(now=True).backup
    core.Note.objects.filter(image=NAMES[2]).update(image="")
    automatic.run(now=True)
    kept.delete_here(first)
    stored_files.delete(f"{LAST}/locations.json")
    real = parts.open_parts

    def refuse(location, name):
        if first.identity in name:
            raise CannotRead("Nobody may read this one.")
        return real(location, name)

    with monkeypatch.context() as patch:
        patch.setattr(locations, "open_parts", refuse)
        automatic.run(now=True)
    assert len(copied(folder, "photos")) == 3
    automatic.run(now=True)
    with services.open_whole(first.name) as file:
        assert content_of(file).keys() == {*NAMES}


def test_a_location_that_lets_nobody_list_gets_each_photo_once(place, monkeypatch):
    def refuse(self, folder="kept", site=""):
        raise CannotList("Nobody may list here.")

    sent, real = [], Location.send

    def send(self, name, file):
        sent.append(name.partition("/")[0])
        return real(self, name, file)

    monkeypatch.setattr(Location, "sizes", refuse)
    monkeypatch.setattr(Location, "send", send)
    automatic.run(now=True)
    assert sent == ["photos"] * 3 + ["kept"]
    sent.clear()
    core.Note.objects.filter(image=NAMES[3]).update(image="notes/images/new.png")
    put("notes/images/new.png", picture(9))
    automatic.run(now=True)
    assert sent == ["photos", "kept"]


def test_a_location_that_lets_nobody_list_is_asked_for_no_other_form_of_a_whole_photo(
    sealed, pictured, monkeypatch
):
    made = automatic.run(now=True).backup
    for _number in range(3):
        keys.add()
    there = copied(sealed, "photos").keys()

    def refuse(self, folder="kept", site=""):
        raise CannotList("Nobody may list here.")

    fetched, real = set(), Location.fetch
    monkeypatch.setattr(Location, "sizes", refuse)
    monkeypatch.setattr(Location, "fetch", lambda *args: (fetched.add(args[1]), real(*args))[1])
    with kept.open_backup(made.name, "nas") as file, keys.unlocked(file) as archive:
        assert {p.name: b"".join(archive.read(p)) for p in archive.metadata.photos.values()} == pictured
    assert {Path(name).name for name in fetched if name.startswith("photos/")} == there


def test_a_location_that_is_down_is_asked_once_for_all_photos(place, admin, monkeypatch):
    """A location that hangs takes twenty seconds each time, and a backup may have thousands of photos."""
    asked = []

    def names(self, folder="kept", site=""):
        asked.append(folder)
        raise Slow("hangs")

    name = services.keep_backup().name
    for path in store().values():
        path.unlink()
    lose_media()
    monkeypatch.setattr(Location, "names", names)
    answer = script(admin).post(reverse("backup:restore"), {"kept": name}).json()
    assert answer["photos"]["missing"] == 4
    assert asked == ["photos"] * len(asked)
    assert len(asked) <= 2, "where it is staged, and where it is previewed"


@pytest.fixture
def lost(place, pictured, tmp_path):
    """The server of a backup is lost, and what is left are its copies in a location, and the key. This is another site.
    Returns the copy, as a file that somebody took from there, and the text of the key."""
    folder, key = place
    automatic.run(now=True)
    (own,) = folder.glob("site_*")
    own.rename(folder / "site_0123456789ab")
    shutil.rmtree(conf.root)
    lose_media()
    (path,) = copied(folder, "kept").values()
    copy = tmp_path / "taken.zip"
    copy.write_bytes(path.read_bytes())
    return copy, key.text if key else ""


def sent_by(user, address, copy, text, **fields):
    """The answer to the file, sent to an address, or to the upload that it became."""
    with copy.open("rb") as file:
        fields = fields or {"backup_file": file}
        return script(user).post(reverse(f"backup:{address}"), {**fields, "key": text}).json()


def test_from_the_copies_of_a_lost_server_photos_come_back(lost, admin, pictured):
    """However the file is given: to the page, from a preview on, and to each command."""
    copy, text = lost
    preview = sent_by(admin, "restore", copy, text)
    assert preview["photos"] == {"added": 4, "unchanged": 0, "missing": 0}
    assert sent_by(admin, "confirm", copy, text, upload=preview["upload"])["photos"] == 4
    assert files() == pictured
    lose_media()
    assert sent_by(admin, "confirm", copy, text)["photos"] == 4
    assert files() == pictured
    lose_media()
    key = ["--key", text] if text else []
    call_command("restore", str(copy), "--no-input", *key, stdout=io.StringIO())
    assert files() == pictured
    out = io.StringIO()
    call_command("prove_backup", str(copy), *key, stdout=out)
    assert "and 4 photos came back identical" in out.getvalue()


def test_a_preview_shows_photos_of_a_lost_server(lost, admin, browser, pictured):
    copy, text = lost
    upload = sent_by(admin, "restore", copy, text)["upload"]
    if text:
        conf.root.joinpath("keys.json").write_text(
            json.dumps({"keys": [{"key": text, "made": "", "noted": True}]})
        )
    digest = hashlib.sha256(pictured[NAMES[0]]).hexdigest()
    answer = browser.get(reverse("backup:preview_photo", args=[upload, digest]))
    assert (answer.status_code, answer["Content-Type"].partition("/")[0]) == (200, "image")


def test_staff_do_not_get_at_the_photos_of_other_sites(lost, family):
    """The file names them by their checksums only, and whoever knows one would see the photo of another family."""
    copy, text = lost
    preview = sent_by(family.staff, "restore", copy, text)
    assert preview["photos"] == {"added": 0, "unchanged": 0, "missing": 4}
    (warning,) = [line for line in preview["warnings"] if NAMES[0] in line]
    assert "BACKUP_LOCATIONS" in warning
    assert "superuser" in warning
    digest = hashlib.sha256(picture(1)).hexdigest()
    answer = script(family.staff).get(reverse("backup:preview_photo", args=[preview["upload"], digest]))
    assert answer.status_code in (404, 409)
    sent_by(family.staff, "confirm", copy, text, upload=preview["upload"])
    sent_by(family.staff, "confirm", copy, text)
    assert files() == {}


def test_the_way_to_photos_that_are_not_in_the_file_is_told(lost, admin, settings):
    copy, text = lost
    settings.BACKUP_LOCATIONS = {}
    preview = sent_by(admin, "restore", copy, text)
    result = sent_by(admin, "confirm", copy, text, upload=preview["upload"])
    for answer in (preview, result):
        (warning,) = [line for line in answer["warnings"] if NAMES[0] in line]
        for word in ("4 fields", "“photos”", "“kept”", "BACKUP_LOCATIONS", "manage.py restore"):
            assert word in warning
        assert "Copy the media folder" not in warning
    core.Note.objects.filter(image=NAMES[2]).update(image="notes/images/gone.png")
    (warning,) = [
        line for line in sent_by(admin, "confirm", copy, text)["warnings"] if "gone.png" in line
    ] or [""]
    assert warning == "", "the record is as in the backup again"


@pytest.mark.parametrize("fails", ["other_sites", "names", "fetch"])
def test_a_location_that_fails_costs_the_photos_only_and_says_why(lost, admin, monkeypatch, fails):
    copy, text = lost
    asked, real = [], getattr(Location, fails)

    def failing(self, *args, **kwargs):
        if fails == "other_sites" or "0123456789ab" in (*args, *kwargs.values()):
            asked.append(args)
            raise Slow("Location “nas”: It hangs.")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Location, fails, failing)
    answer = sent_by(admin, "restore", copy, text)
    if fails == "fetch":
        assert (answer["error"]["message"], answer["error"]["offer"]) == (
            "Location “nas”: It hangs.",
            "leave_out",
        )
        return
    assert answer["photos"]["missing"] == 4
    assert "Location “nas”: It hangs." in answer["warnings"]
    assert len(asked) <= 2, "where it is staged, and where it is previewed"
    result = sent_by(admin, "confirm", copy, text)
    assert result["records"] > 100
    assert "Location “nas”: It hangs." in result["warnings"]


def test_one_site_that_cannot_be_listed_hides_no_other(lost, admin, monkeypatch):
    copy, text = lost
    real = Location.names

    def names(self, folder="kept", site=""):
        if site == "aaaaaaaaaaaa":
            raise CannotList("It lets nobody list.")
        return real(self, folder, site)

    monkeypatch.setattr(Location, "names", names)
    monkeypatch.setattr(Location, "other_sites", lambda self: ["aaaaaaaaaaaa", "0123456789ab"])
    assert sent_by(admin, "restore", copy, text)["photos"]["added"] == 4


def test_the_photos_of_other_sites_take_little_memory(lost, admin, monkeypatch):
    """Whoever can write there can make any number of them."""
    copy, text = lost
    monkeypatch.setattr(locations.client, "MOST_LISTED", 10)
    listed, real = [], Location.names

    def names(self, folder="kept", site=""):
        if not site:
            return real(self, folder)
        listed.append(site)
        return [f"{number}" for number in range(4)]

    monkeypatch.setattr(Location, "names", names)
    monkeypatch.setattr(Location, "other_sites", lambda self: [f"{number:012}" for number in range(1000)])
    answer = sent_by(admin, "restore", copy, text)
    assert answer["photos"]["missing"] == 4
    assert len({*listed}) == 3
    assert any("more than 10 files" in line for line in answer["warnings"])

"""Whatever goes wrong while photos are restored, database and files are as they were; and they come from and to any
storage, byte for byte."""

import io
import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from core import models as core
from django.core.files.storage import FileSystemStorage, default_storage
from django.db import connections
from django.utils.module_loading import import_string

from backup import services
from backup.archive import RECORDS, Key, Records, Writer, open_archive
from backup.conf import conf
from backup.exceptions import BackupError, InvalidBackup
from backup.options import Part, RestoreMode, RestoreOptions
from backup.restore.photos import PARTIAL
from backup.storage import atomic
from tests.support import older
from tests.support.backups import records_of, restore, take
from tests.support.matrices import again
from tests.support.photos import files, picture, put, setting, with_damage, with_photos
from tests.support.processes import ask, hear, process, wait_until_usable
from tests.support.snapshots import differences, snapshot

A, B, C = "child/picture/a.png", "notes/images/b.png", "child/picture/c.png"


@pytest.fixture
def backup(family, settings, tmp_path):
    """A backup that brings three photos, over two that are here: one is the same, one has a name that is taken."""
    settings.MEDIA_ROOT = tmp_path / "media"
    child, other = core.Child.objects.order_by("pk")[:2]
    note = core.Note.objects.create(child=child, note="x")
    change = setting(
        core_child={child.pk: {"picture": A}, other.pk: {"picture": C}}, core_note={note.pk: {"image": B}}
    )
    file = with_photos(take(), {A: picture(1), B: picture(2), C: picture(3)}, change)
    put(A, picture(9))
    core.Child.objects.filter(pk=child.pk).update(picture=A)
    core.Feeding.objects.all().delete()
    return file


def is_restored():
    """Whether everything is there, and the photo that was here before, too."""
    found = files()
    pictures = [child.picture.name for child in core.Child.objects.order_by("pk")[:2]]
    image = core.Note.objects.exclude(image="").exclude(image=None).get().image.name
    assert [found[name] for name in (*pictures, image)] == [picture(1), picture(3), picture(2)]
    assert found[A] == picture(9)
    assert core.Feeding.objects.exists()


def test_what_is_being_written_has_one_ending():
    """So that what was left is removed."""
    assert PARTIAL == atomic.PARTIAL


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can give files away")
def test_what_root_restores_belongs_to_the_owner_of_the_folder(backup, settings):
    """Otherwise the server could add no photo to the folders that are new."""
    media = settings.MEDIA_ROOT
    for path in [media, *media.rglob("*")]:
        os.chown(path, 33, 4242)
    restore(backup, clear=True)
    assert (media / B).is_file()
    assert {(path.stat().st_uid, path.stat().st_gid) for path in [media, *media.rglob("*")]} == {(33, 4242)}


#: Where a restore stops: the function, and whether before or after it was called, for how many times.
STEPS = {
    "before they are noted": ("backup.storage.placed.note", "before", 1),
    "after they are noted": ("backup.storage.placed.note", "after", 1),
    "while the first is copied": ("backup.archive.Archive.read", "after", 4),
    "before the first": ("django.core.files.storage.FileSystemStorage._save", "before", 1),
    "after the first": ("django.core.files.storage.FileSystemStorage._save", "after", 1),
    "before the last": ("django.core.files.storage.FileSystemStorage._save", "before", 3),
    "after the last": ("django.core.files.storage.FileSystemStorage._save", "after", 3),
    "before the database": ("backup.restore.apply._write_all", "before", 1),
    "before the end": ("backup.storage.state.save_last_restore", "before", 1),
    "at the end": ("backup.storage.state.save_last_restore", "after", 1),
}


def owner_of(name):
    """The module or class that holds a function, and the function's name there."""
    owner, _, attribute = name.rpartition(".")
    with suppress(ImportError):
        return import_module(owner), attribute
    return import_string(owner), attribute


#: Django is set up once; each restore runs in a copy of this process.
KILLED = """
    import functools, os, signal, sys
    from django.conf import settings
    from backup import services
    from tests.scenarios.test_photos_in import owner_of
    from tests.support.backups import how

    def restore(name, when, times, media, path):
        settings.MEDIA_ROOT = media
        owner, attribute = owner_of(name)
        real, left = getattr(owner, attribute), [int(times)]

        @functools.wraps(real)
        def killed(*arguments, **named):
            left[0] -= 1
            if when == "before" and left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **named)
            if when == "after" and left[0] == 0:
                if hasattr(result, "__next__"):
                    next(result)
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, attribute, killed)
        with open(path, "rb") as file:
            services.restore_backup(file, how(clear=True))

    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            restore(*line.split())
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def killable(django_db_setup):
    with process(KILLED) as child:
        yield child


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and forks are POSIX's")
@pytest.mark.parametrize("step", STEPS)
def test_a_process_that_is_killed(backup, killable, settings, tmp_path, step):
    path = tmp_path / "backup.zip"
    path.write_bytes(backup.getvalue())
    before, there = snapshot(), files()
    name, when, times = STEPS[step]
    connections.close_all()
    ended = ask(killable, f"{name} {when} {times} {settings.MEDIA_ROOT} {path}")
    assert int(ended) == -signal.SIGKILL
    wait_until_usable()
    assert not differences(before, snapshot())
    found = files()
    assert {name: found[name] for name in there} == there
    whole = {picture(1), picture(2), picture(3), picture(9)}
    for name, content in found.items():
        assert content in whole or name.endswith(PARTIAL), "under its name, a photo is whole"
    restore(backup, clear=True)
    is_restored()


class Unforeseen(Exception):
    pass


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("clear", [True, False], ids=["clear", "overwrite"])
def test_an_error(backup, step, clear, monkeypatch):
    """All that was put there is gone again, and forgotten."""
    name, when, times = STEPS[step]
    if not clear:
        name = name.replace("_write_all", "_write_changes")
    before, there = snapshot(), files()
    left = [times]

    def fails(real):
        def failing(*arguments, **named):
            left[0] -= 1
            if when == "before" and left[0] == 0:
                raise Unforeseen
            result = real(*arguments, **named)
            if when == "after" and left[0] == 0:
                raise Unforeseen
            return result

        return failing

    owner, attribute = owner_of(name)
    with monkeypatch.context() as patch:
        patch.setattr(owner, attribute, fails(getattr(owner, attribute)))
        with pytest.raises((Unforeseen, BackupError)):
            restore(backup, clear=clear)
    assert left[0] <= 0
    assert not differences(before, snapshot())
    found = files()
    if name.endswith("._save") or step == "after they are noted":
        # Whoever is told that it failed cannot know whether it did; that is seen to later.
        assert [*conf.root.rglob("placed/*")]
        assert len(found) <= len(there) + 1
        found = {name: found[name] for name in there}
    else:
        assert not [*conf.root.rglob("placed/*")]
    assert found == there
    assert not list(Path(default_storage.location).rglob(f"*{PARTIAL}"))
    restore(backup, clear=clear)
    is_restored()


class Streaming(FileSystemStorage):
    """One that is no folder as far as anybody knows: files are read and written, not moved."""

    def _save(self, name, content):
        return super()._save(name, type("Stream", (), {"chunks": content.chunks})())


def test_a_storage_that_copies(backup, settings):
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": f"{__name__}.Streaming"}}
    restore(backup, clear=True)
    is_restored()


@pytest.fixture
def bucket(settings, monkeypatch):
    """Amazon's S3, as far as moto imitates it, as the host has it where AWS_STORAGE_BUCKET_NAME is set."""
    moto = pytest.importorskip("moto")
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("storages")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with moto.mock_aws():
        bucket = boto3.resource("s3", region_name="us-east-1").create_bucket(Bucket="photos")
        storage = {
            "BACKEND": "storages.backends.s3.S3Storage",
            "OPTIONS": {"bucket_name": "photos", "region_name": "us-east-1"},
        }
        settings.STORAGES = {**settings.STORAGES, "default": storage}
        yield bucket


def objects(bucket):
    return {item.key: item.get()["Body"].read() for item in bucket.objects.all()}


@pytest.mark.parametrize("clear", [True, again(False)], ids=["clear", "overwrite"])
def test_to_and_from_s3(backup, bucket, clear):
    bucket.put_object(Key=A, Body=picture(9))
    plan = services.inspect_backup(
        backup, RestoreOptions(RestoreMode.CLEAR if clear else RestoreMode.OVERWRITE)
    )
    assert plan.as_json()["photos"] == {"added": 3, "unchanged": 0, "missing": 0}
    assert objects(bucket) == {A: picture(9)}
    restore(backup, clear=clear)
    found, child = objects(bucket), core.Child.objects.earliest("pk")
    assert found == {A: picture(9), child.picture.name: picture(1), B: picture(2), C: picture(3)}
    # Out again, and into an empty bucket.
    again = io.BytesIO()
    services.create_backup(again, photos=True)
    for item in bucket.objects.all():
        item.delete()
    then = snapshot()
    restore(again, clear=clear)
    del found[A]
    assert objects(bucket) == found
    assert not differences(then, snapshot())
    assert services.inspect_backup(again, RestoreOptions()).as_json()["photos"]["unchanged"] == 3


def test_s3_that_is_down(backup, bucket):
    bucket.delete()
    before = snapshot()
    with pytest.raises(BackupError, match="cannot be stored") as caught:
        restore(backup, clear=True)
    assert caught.value.offer == "leave_out"
    assert not differences(before, snapshot())
    result = services.restore_backup(backup, RestoreOptions(RestoreMode.CLEAR, leave_out=True))
    assert any("3 photos are left out" in line for line in result.warnings)


# --- Older backups, and encrypted ones --------------------------------------------------------------------


def encrypted(file, key):
    """The same backup, encrypted."""
    target = io.BytesIO()
    with open_archive(file) as archive, Writer(target) as writer:
        writer.encrypt(key, archive.metadata)
        for label, member in archive.metadata.models.items():
            digest = writer.write(member.file, archive.read(member))
            writer.register(RECORDS, label, Records(member.file, digest, member.records))
        for name, photo in archive.metadata.photos.items():
            writer.add_photo(name, archive.read(photo))
        writer.finish(archive.metadata)
    return target


def test_an_encrypted_backup(backup, client, family):
    """By a key that is only given for this."""
    key = Key.make()
    file = encrypted(backup, key)
    plan = services.inspect_backup(file, RestoreOptions(), key=key)
    assert plan.as_json()["photos"] == {"added": 3, "unchanged": 0, "missing": 0}
    services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR), key=key)
    is_restored()


@pytest.mark.parametrize("is_encrypted", [again(False), True], ids=["clear", "encrypted"])
@pytest.mark.parametrize("version", ["2.2", "2.9"])
def test_an_older_backup_keeps_its_photos(family, settings, tmp_path, version, is_encrypted):
    settings.MEDIA_ROOT = tmp_path / "media"
    file = io.BytesIO((older.old(version) / "backup.zip").read_bytes())
    records = records_of(file)
    key, *_others = (record["pk"] for record in records["core.child"])
    change = setting(
        core_child={key: {"picture": A}}, core_note={records["core.note"][0]["pk"]: {"image": B}}
    )
    file = with_photos(file, {A: picture(1), B: picture(2)}, change)
    put(A, picture(9))
    secret = Key.make() if is_encrypted else None
    file = encrypted(file, secret) if secret else file
    with services.at_todays_schema(
        file, key=secret
    ) as newer:  # as a preview does, whose file is then restored
        plan = services.inspect_backup(newer, RestoreOptions(), key=secret)
        assert plan.as_json()["photos"] == {"added": 2, "unchanged": 0, "missing": 0}
        result = services.restore_backup(newer, RestoreOptions(RestoreMode.CLEAR), key=secret)
    name = core.Child.objects.get(pk=key).picture.name
    assert files() == {A: picture(9), name: picture(1), B: picture(2)}
    assert (result.photos, result.missing_files) == (2, 0)


@pytest.mark.slow
def test_a_member_of_staff_may_leave_out_a_damaged_photo(backup, family):
    """Only records that are damaged are for superusers."""
    damaged = with_damage(backup, picture(1))
    options = RestoreOptions(parts=(Part.ENTRIES,))
    with pytest.raises(InvalidBackup, match=r"photo .* is damaged") as caught:
        services.restore_backup(damaged, options, user=family.staff)
    assert caught.value.offer == "leave_out"
    services.restore_backup(damaged, replace(options, leave_out=True), user=family.staff)


def test_a_damaged_photo_of_an_older_backup_can_be_left_out(family, settings, tmp_path):
    """As that of a current one can; the record comes without it."""
    settings.MEDIA_ROOT = tmp_path / "media"
    file = io.BytesIO((older.old("2.2") / "backup.zip").read_bytes())
    key = records_of(file)["core.child"][0]["pk"]
    change = setting(core_child={key: {"picture": A}})
    file = with_damage(with_photos(file, {A: picture(1), B: picture(2)}, change), picture(1))
    before = snapshot()
    with pytest.raises(InvalidBackup) as caught:
        restore(file, clear=True)
    assert caught.value.offer == "leave_out"
    assert not differences(before, snapshot())
    result = services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR, leave_out=True))
    assert any(A in line for line in result.warnings)
    assert core.Child.objects.get(pk=key).picture.name == A, "it may be copied there later"
    assert (files(), result.missing_files) == ({}, 1)


# --- Large ones, and many ---------------------------------------------------------------------------------

MEASURED = """
    import re, sys
    from pathlib import Path
    from django.conf import settings
    from backup import services
    from backup.options import RestoreMode, RestoreOptions
    from core.models import Note

    def peak():
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

    media, small, path = sys.argv[1:]
    settings.MEDIA_ROOT = media
    with open(small, "rb") as file:  # what is loaded for the first one
        services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR))
    before = peak()
    with open(path, "rb") as file:
        services.inspect_backup(file, RestoreOptions())
    with open(path, "rb") as file:
        result = services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR))
    print(peak() - before, result.photos, *result.warnings, flush=True)
"""


def measured(small, file, settings, tmp_path):
    """MiB of memory that a preview and a restore take beside what one of a small backup does, and how many photos were
    restored."""
    paths = [tmp_path / "small.zip", tmp_path / "large.zip"]
    for path, content in zip(paths, (small, file), strict=True):
        path.write_bytes(content.getvalue())
    connections.close_all()
    with process(MEASURED, settings.MEDIA_ROOT, *paths) as child:
        taken, photos, *warnings = hear(child).split(maxsplit=2)
    assert not warnings
    return int(taken) / 1024, int(photos)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_large_photo_takes_little_memory(backup, settings, tmp_path):
    child = core.Child.objects.latest("pk")
    large = picture(1, "JPEG", (3000, 2000)) + bytes(100 * 1024 * 1024)
    change = setting(core_child={child.pk: {"picture": "child/picture/large.jpg"}})
    file = with_photos(take(), {"child/picture/large.jpg": large}, change)
    taken, photos = measured(backup, file, settings, tmp_path)
    assert photos == 1
    assert taken < 40
    assert (settings.MEDIA_ROOT / "child/picture/large.jpg").stat().st_size == len(large)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_many_photos_take_little_memory(backup, settings, tmp_path):
    child, count = core.Child.objects.earliest("pk"), 3000
    names = [f"notes/images/{number}.png" for number in range(count)]
    core.Note.objects.bulk_create(core.Note(child=child, note="", image=name) for name in names)
    file = with_photos(take(), {name: picture(number) for number, name in enumerate(names)})
    taken, photos = measured(backup, file, settings, tmp_path)
    assert photos == count
    assert taken < 40

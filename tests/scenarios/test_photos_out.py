"""Photos that go out with a backup: which, byte for byte, from any storage; and what is missing is told."""

import hashlib
import io
import os
import random
import re
import tempfile
import tracemalloc
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from core import models as core
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, default_storage
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from backup import dump, media, services
from backup.archive import Archive, Keys, Limits, Writer
from backup.exceptions import InvalidBackup, StorageFailed
from backup.media import NamedPhoto, NamedPhotos
from backup.storage import keys
from tests.support import servers
from tests.support.backups import Telling, metadata_of, packed, records_of, take, unpacked
from tests.support.filling import fill
from tests.support.http import script, url
from tests.zoo.models import Specimen

noise = random.Random(20)


@pytest.fixture(scope="session")
def s3_server():
    with servers.s3_server() as server:
        yield server


@pytest.fixture(params=["folder", "link", "s3"])
def photo_storage(request, host_db, settings, tmp_path):
    """The host's photos are in a folder, in one behind a link, on a server."""
    if request.param == "s3":
        server = request.getfixturevalue("s3_server")
        server.client().create_bucket(Bucket=s3(server, settings, tmp_path.name))
    else:
        folder = tmp_path / "media"
        folder.mkdir()
        if request.param == "link":
            (tmp_path / "link").symlink_to(folder)
            folder = tmp_path / "link"
        settings.MEDIA_ROOT = folder
    return request.param


def s3(server, settings, bucket, **options):
    """The host's photos are on this server."""
    pytest.importorskip("storages")
    bucket = bucket.replace("_", "-")
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "storages.backends.s3.S3Storage",
            "OPTIONS": {
                "access_key": server.key,
                "secret_key": server.secret,
                "endpoint_url": server.endpoint,
                "region_name": "us-east-1",
                "bucket_name": bucket,
                "location": "photos",
                **options,
            },
        },
    }
    return bucket


@pytest.fixture
def folder(host_db, settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.MEDIA_ROOT.mkdir()
    return settings.MEDIA_ROOT


def child(name="Mia", **fields):
    return core.Child.objects.create(
        first_name=name, last_name="Lind", birth_date=timezone.now().date(), **fields
    )


def note(mia, name, content=None):
    """A note with a photo of this name; without `content` there is none."""
    made = core.Note.objects.create(child=mia, note="x", image=name)
    if content is not None:
        default_storage.delete(name)
        assert default_storage.save(name, ContentFile(content)) == name
    return made


def photos_in(file):
    """Name -> content, by other means than the code under test."""
    prefix = "media/"
    return {
        name.removeprefix(prefix): data for name, data in unpacked(file).items() if name.startswith(prefix)
    }


def about(metadata):
    return "\n".join(metadata_of(metadata).get("warnings", []))


# --- Which, and byte for byte -----------------------------------------------------------------------------


def test_all_files_that_records_name_come_out_byte_for_byte(photo_storage):
    mia = child()
    contents = {
        "child/picture/mia.jpg": noise.randbytes(3_000_000),
        "notes/images/Ünïcode 🍼.png": noise.randbytes(70_000),
        "notes/images/empty.png": b"",
        "zoo/anything.txt": b"no picture at all",
    }
    for name, content in contents.items():
        assert default_storage.save(name, ContentFile(content)) == name
    core.Child.objects.filter(pk=mia.pk).update(picture="child/picture/mia.jpg")
    core.Child.objects.create(
        first_name="Leo", last_name="Lind", birth_date=mia.birth_date, picture="child/picture/mia.jpg"
    )
    for name in list(contents)[1:3]:
        note(mia, name)
    core.Note.objects.create(child=mia, note="none", image="")
    core.Note.objects.create(child=mia, note="none", image=None)
    Specimen.objects.create(file="zoo/anything.txt")
    for orphan in ("CACHE/images/child/picture/mia/abc.jpg", "notes/images/nobody.png"):
        default_storage.save(orphan, ContentFile(b"x"))
    file = take(photos=True)
    assert photos_in(file) == contents
    said = metadata_of(file)
    assert (said["version"], said["includes_media"]) == ("1.2", True)
    assert "warnings" not in said
    assert {entry["name"]: (entry["size"], entry["sha256"]) for entry in said["media"]} == {
        name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in contents.items()
    }
    assert [row["fields"]["picture"] for row in records_of(file)["core.child"]] == [
        "child/picture/mia.jpg"
    ] * 2
    with zipfile.ZipFile(file) as archive:
        assert {info.compress_type for info in archive.infolist() if info.filename.startswith("media/")} == {
            zipfile.ZIP_STORED
        }
    assert services.verify_backup(file).warnings == []


def test_an_excluded_model_has_no_photos_in_it(folder, settings):
    note(child(), "notes/images/a.png", b"a")
    settings.BACKUP_EXCLUDE = ["core.note"]
    assert photos_in(take(photos=True)) == {}


def test_without_the_wish_a_backup_is_as_it_was(folder):
    note(child(), "notes/images/a.png", b"a")
    file = take()
    said = metadata_of(file)
    assert photos_in(file) == {}
    assert (said["version"], said["includes_media"]) == ("1.1", False)
    assert not {"media", "warnings"} & {*said}


def test_where_there_are_no_photos_the_file_is_of_the_version_before(folder):
    child()
    said = metadata_of(take(photos=True))
    assert (said["version"], said["includes_media"]) == ("1.1", True)


def test_in_an_encrypted_backup_names_tell_nothing(folder):
    key = keys.add().key
    note(child(), "notes/images/a.png", b"content of a")
    file = take(photos=True, encrypt=True)
    assert b"notes/images" not in file.getvalue()
    with Archive(file, Limits(), keys=Keys(key)) as archive:
        (photo,) = archive.metadata.photos.values()
        assert (photo.name, photo.file) == ("notes/images/a.png", "media/0001")
        assert b"".join(archive.read(photo)) == b"content of a"
    assert services.verify_backup(file).total_records > 0


# --- What is missing, or odd, is told, and no reason for no backup -----------------------------------------


def test_a_missing_photo_is_told_with_its_record(photo_storage):
    mia = child()
    note(mia, "notes/images/there.png", b"x")
    gone = note(mia, "notes/images/gone.png")
    core.Child.objects.filter(pk=mia.pk).update(picture="nowhere/gone.jpg")
    file = take(photos=True)
    assert [*photos_in(file)] == ["notes/images/there.png"]
    first, second = metadata_of(file)["warnings"]
    assert f"core.note {gone.pk}" in first
    assert "notes/images/gone.png, it is missing" in first
    assert f"core.child {mia.pk}" in second
    assert services.verify_backup(file).warnings == [first, second]


@pytest.mark.parametrize(
    "name", ["../secret.txt", "/etc/passwd", "a\\b.png", "C:/a.png", "a\nb.png", "a//b.png", "notes/._a.png"]
)
def test_an_odd_name_is_told_and_never_followed(folder, name):
    (folder.parent / "secret.txt").write_bytes(b"secret")
    odd = note(child(), name)
    file = take(photos=True)
    assert photos_in(file) == {}
    assert b"secret" not in file.getvalue()
    (line,) = metadata_of(file)["warnings"]
    assert f"core.note {odd.pk}" in line
    assert "name" in line
    assert line.isprintable()


def test_a_folder_and_what_nobody_may_read_are_told(folder):
    mia = child()
    note(mia, "notes/images/a.png", b"x")
    note(mia, "notes/images")
    (folder / "notes/images/loop.png").symlink_to(folder / "notes/images/loop.png")
    note(mia, "notes/images/loop.png")
    file = take(photos=True)
    assert [*photos_in(file)] == ["notes/images/a.png"]
    assert [line.count("cannot be read") for line in metadata_of(file)["warnings"]] == [1, 1]


def test_as_many_are_named_as_people_read(folder):
    mia = child()
    for number in range(130):
        note(mia, f"notes/images/{number}.png")
    warnings = metadata_of(take(photos=True))["warnings"]
    assert len(warnings) == 101
    assert "30 more photos" in warnings[-1]


def test_more_photos_than_may_be_are_told(folder, settings):
    settings.BACKUP_MAX_PHOTOS = 2
    mia = child()
    for name in "abc":
        note(mia, f"{name}.png", b"x")
    file = take(photos=True)
    assert [*photos_in(file)] == ["a.png", "b.png"]
    assert "BACKUP_MAX_PHOTOS" in about(file)
    assert services.verify_backup(file)


def test_a_photo_that_vanishes_meanwhile_is_told(folder):
    mia = child()
    for name in "abc":
        note(mia, f"{name}.png", b"x")

    def meanwhile(label, done, total):
        if label != "photos":
            (folder / "a.png").unlink(missing_ok=True)  # after its record was read
        elif done == 2:
            (folder / "c.png").unlink()

    file = take(photos=True, reporter=Telling(meanwhile))
    assert photos_in(file) == {"b.png": b"x"}
    assert [line.count("it is missing") for line in metadata_of(file)["warnings"]] == [1, 1]


class Torn(FileSystemStorage):
    """What is read is not all that there is when it was read: somebody writes on, `times` times."""

    times = 0

    def _open(self, name, mode="rb"):
        file = super()._open(name, mode)
        if Torn.times and "r" in mode:
            Torn.times -= 1
            content = file.read()
            file.close()
            with open(self.path(name), "ab") as other:
                other.write(b"!")
            return ContentFile(content, name)
        return file


def custom(settings, storage):
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {"BACKEND": f"{storage.__module__}.{storage.__qualname__}"},
    }


def test_a_photo_that_changes_meanwhile_is_read_again(folder, settings):
    note(child(), "a.png", b"x")
    custom(settings, Torn)
    Torn.times = 1
    file = take(photos=True)
    assert photos_in(file) == {"a.png": b"x!"}
    assert services.verify_backup(file).warnings == []
    Torn.times = 100
    file = take(photos=True)
    Torn.times = 0
    assert photos_in(file) == {}
    assert "it changed while it was read" in about(file)


class Strange(FileSystemStorage):
    """Raises what nobody expects, at the beginning or in the middle."""

    def _open(self, name, mode="rb"):
        if name == "a.png":
            raise KeyError(name)
        return (
            Breaking(super()._open(name, mode).file, name) if name == "b.png" else super()._open(name, mode)
        )


class Breaking(File):
    def read(self, *size):
        if self.tell():
            raise KeyError("secret")
        return self.file.read(10)


def test_whatever_a_storage_raises_is_told(folder, settings):
    mia = child()
    for name in "abc":
        note(mia, f"{name}.png", name.encode() * 100)
    custom(settings, Strange)
    file = take(photos=True)
    assert photos_in(file) == {"c.png": b"c" * 100}
    assert about(file).count("cannot be read (KeyError)") == 2
    assert "secret" not in about(file)
    assert services.verify_backup(file)


def test_a_server_that_is_down_is_no_reason_for_no_backup(host_db, settings, tmp_path):
    pytest.importorskip("storages")
    from botocore.config import Config

    config = Config(retries={"max_attempts": 0}, connect_timeout=1, s3={"addressing_style": "path"})
    s3(servers.S3Server(servers.free_port()), settings, "nowhere", client_config=config)
    mia = child()
    for name in "abc":
        core.Note.objects.create(child=mia, note="x", image=f"{name}.png")
    file = take(photos=True)
    assert about(file).count("cannot be read") == 3
    assert records_of(file)["core.note"]


def test_a_storage_that_only_fails_is_given_up(monkeypatch):
    class Hanging:
        asked = 0

        def open(self, name, mode):
            Hanging.asked += 1
            now[0] += 40
            raise TimeoutError

    now = [1000.0]
    monkeypatch.setattr(media.time, "monotonic", lambda: now[0])
    photos = NamedPhotos()
    storage = Hanging()
    for number in range(9):
        photos.add(NamedPhoto(f"{number}.png", storage, "core.note", number, "image"))
    with Writer(io.BytesIO()) as writer:
        warnings = dump.write_photos(writer, photos)
    assert Hanging.asked == 2
    assert sum("its storage does not answer" in line for line in warnings) == 7


# --- Two fields of different storages ----------------------------------------------------------------------


def in_two_storages(tmp_path, first, second):
    photos = NamedPhotos()
    for number, content in enumerate((first, second)):
        storage = FileSystemStorage(tmp_path / str(number))
        if content is not None:
            storage.save("a.png", ContentFile(content))
        for key in (1, 2):
            photos.add(NamedPhoto("a.png", storage, "core.note", number * 10 + key, "image"))
    file = io.BytesIO()
    with Writer(file) as writer:
        warnings = dump.write_photos(writer, photos)
        writer.finish(services.Metadata(timestamp=timezone.now(), includes_media=True))
    return photos_in(file), warnings


def test_the_same_file_in_two_storages_is_one(tmp_path):
    assert in_two_storages(tmp_path, b"x", b"x") == ({"a.png": b"x"}, [])


@pytest.mark.parametrize("second", [b"y", None])
def test_different_files_of_one_name_are_none(tmp_path, second):
    """A restore could not tell which one a record means, and would put one for the other."""
    found, (line,) = in_two_storages(tmp_path, b"x", second)
    assert found == {}
    assert "core.note" in line


# --- Sizes ------------------------------------------------------------------------------------------------

MIB = 1024 * 1024


@pytest.mark.parametrize("photo_storage", ["folder", "s3"], indirect=True)
def test_a_large_photo_takes_little_memory(photo_storage):
    mia = child()
    with tempfile.TemporaryFile() as large:
        for _ in range(100):
            large.write(noise.randbytes(MIB))
        large.seek(0)
        default_storage.save("large.png", File(large))
    note(mia, "large.png")
    most = (64 if photo_storage == "s3" else 24) * MIB  # boto3 fetches several parts of a file at once
    take(photos=True)
    with tempfile.TemporaryFile() as file:
        tracemalloc.start()
        try:
            services.create_backup(file, photos=True)
            assert tracemalloc.get_traced_memory()[1] < most
            tracemalloc.reset_peak()
            assert services.verify_backup(file).warnings == []
            assert tracemalloc.get_traced_memory()[1] < 24 * MIB
        finally:
            tracemalloc.stop()
        assert metadata_of(file)["media"][0]["size"] == 100 * MIB


def test_many_photos_take_little_memory(folder):
    mia = child()
    names = [f"notes/images/{number:05}-{'x' * 40}.png" for number in range(3000)]
    (folder / "notes/images").mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    core.Note.objects.bulk_create(
        core.Note(child=mia, time=timezone.now(), note="x", image=name) for name in names
    )
    peaks = []
    with tempfile.TemporaryFile() as file:
        for photos in (False, True):
            file.seek(0)
            file.truncate()
            tracemalloc.start()
            try:
                services.create_backup(file, photos=photos)
                services.verify_backup(file)
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
        assert peaks[1] < peaks[0] + 5000 * len(names)
        assert photos_in(file) == {name: name.encode() for name in names}


def test_where_there_is_no_room_nothing_is_begun(folder, monkeypatch):
    note(child(), "a.png", b"x" * 5 * MIB)

    def nearly_full(number):
        disk = os.statvfs(folder)
        return os.statvfs_result((disk.f_bsize, 1, disk.f_blocks, 4 * MIB, 4 * MIB, *list(disk)[5:]))

    monkeypatch.setattr(os, "fstatvfs", nearly_full)
    with tempfile.TemporaryFile() as file:
        with pytest.raises(StorageFailed, match=r"5\.0 MB.*4\.0 MB"):
            services.create_backup(file, photos=True)
        services.create_backup(file)


# --- Pages, scripts, commands -----------------------------------------------------------------------------


def content_of(answer):
    with closing(answer):
        return io.BytesIO(b"".join(answer.streaming_content))


@pytest.fixture
def family_with_photos(folder):
    family = fill(days=1, children=1)
    (folder / "notes/images").mkdir(parents=True)
    (folder / "zoo").mkdir()
    for model, field in ((core.Note, "image"), (Specimen, "file")):
        for name in filter(None, model.objects.values_list(field, flat=True)):
            (folder / name).write_bytes(name.encode())
    note(family.children[0], "a.png", b"content")
    return family


def test_a_download_with_photos(family_with_photos, client):
    client.force_login(family_with_photos.admin)
    for browser in (client, script(family_with_photos.admin)):
        answer = browser.get(url("download"), {"photos": "1"})
        assert answer.status_code == 200
        assert not answer.has_header("X-Backup-Warnings")
        file = content_of(answer)
        assert int(answer["Content-Length"]) == len(file.getvalue())
        assert photos_in(file)["a.png"] == b"content"
        file = content_of(browser.get(url("download")))
        assert photos_in(file) == {}
    answer = script(family_with_photos.admin).get(url("download"), {"photos": "perhaps"})
    assert answer.status_code == 400
    (Path(default_storage.location) / "a.png").unlink()
    answer = client.get(url("download"), {"photos": "true"})
    assert answer["X-Backup-Warnings"] == "1"
    answer.close()


def test_an_encrypted_download_with_photos(family_with_photos):
    key = keys.add().key
    file = content_of(script(family_with_photos.admin).get(url("download"), {"photos": "1", "encrypt": "1"}))
    with Archive(file, Limits(), keys=Keys(key)) as archive:
        assert b"".join(archive.read(archive.metadata.photos["a.png"])) == b"content"


def test_the_command(family_with_photos, tmp_path, capfd):
    call_command("backup", output=str(tmp_path / "x.zip"), photos=True)
    assert photos_in(tmp_path / "x.zip")["a.png"] == b"content"
    said = capfd.readouterr()
    assert "photos" in said.out
    assert said.err == ""
    call_command("verify_backup", str(tmp_path / "x.zip"))
    assert "photos" in capfd.readouterr().out
    call_command("backup", output=str(tmp_path / "y.zip"))
    assert photos_in(tmp_path / "y.zip") == {}
    assert "photos" not in capfd.readouterr().out
    (Path(default_storage.location) / "a.png").unlink()
    call_command("backup", output=str(tmp_path / "z.zip"), photos=True)
    assert "a.png, it is missing" in capfd.readouterr().err
    with pytest.raises(CommandError, match="--automatic"):
        call_command("backup", automatic=True, photos=True)


def test_verifying_reads_the_photos(family_with_photos, tmp_path, capfd):
    contents = unpacked(take(photos=True))
    contents["media/a.png"] = b"CONTENT"
    with pytest.raises(InvalidBackup, match=r"media/a\.png.*checksum"):
        services.verify_backup(packed(contents))
    for name in [name for name in contents if name.startswith("media/")]:
        del contents[name]
    (tmp_path / "x.zip").write_bytes(packed(contents).getvalue())
    call_command("verify_backup", str(tmp_path / "x.zip"))
    assert "photos of the backup are not in this file" in capfd.readouterr().err


def test_an_unpacked_backup_is_read(family_with_photos, tmp_path):
    with zipfile.ZipFile(take(photos=True)) as archive:
        archive.extractall(tmp_path / "x")
    call_command("verify_backup", str(tmp_path / "x"))
    (tmp_path / "x/media/a.png").write_bytes(b"other")
    with pytest.raises(CommandError):
        call_command("verify_backup", str(tmp_path / "x"))


# --- The page ---------------------------------------------------------------------------------------------


def front_page(client):
    return client.get(url("index")).content.decode()


def box(text):
    """What stands beside the box, without what keeps right-to-left text in order."""
    found = re.search(r'<label[^>]*for="id_photos">(.*?)</label>', text, re.DOTALL)
    return re.sub(r"<[^>]*>|[\u2066-\u2069\u00a0\s]+", " ", found[1]).split() if found else None


def test_the_page_says_how_many_and_how_large(family_with_photos, client):
    client.force_login(family_with_photos.admin)
    number, size = services.photos_here()
    names = {*map(str, Path(default_storage.location).rglob("*.*"))}
    assert number == len(names)
    assert size == sum(os.path.getsize(name) for name in names)
    words = " ".join(box(front_page(client)))
    assert f"({number}," in words
    assert f"{size} bytes" in words


def test_without_photos_the_page_has_no_box(host_db, client):
    family = fill(days=0, children=1)
    Specimen.objects.update(file=None)
    core.Note.objects.update(image=None)
    client.force_login(family.admin)
    assert box(front_page(client)) is None


def test_a_server_far_away_is_not_asked_for_sizes(host_db, settings, client, monkeypatch):
    pytest.importorskip("storages")
    s3(servers.S3Server(servers.free_port()), settings, "nowhere")
    family = fill(days=0, children=1)
    note(family.children[0], "a.png")
    client.force_login(family.admin)
    number, size = services.photos_here()
    assert (number > 0, size) == (True, None)
    assert " ".join(box(front_page(client))) == f"Include photos ({number})"


def test_then_the_newest_kept_backup_knows_them(folder, settings, client):
    family = fill(days=0, children=1)
    note(family.children[0], "a.png", b"x" * 5000)
    kept = services.keep_backup(photos=True)
    assert (kept.photos, kept.photos_size) == (1, 5000)
    assert kept.warnings
    assert kept.as_json()["photos"] == 1
    s3(servers.S3Server(servers.free_port()), settings, "nowhere")
    client.force_login(family.admin)
    page = front_page(client)
    assert "4.9 KB" in " ".join(box(page))
    assert "1 photo" in page
    assert "Not everything is in it" in page


def test_a_backup_that_is_kept_by_hand(family_with_photos, client):
    answer = script(family_with_photos.admin).post(url("run"), {"photos": "true"})
    assert [*answer.json()] == ["name", "kind", "records", "made"]
    assert services.kept_backups()[0].photos == services.photos_here()[0]
    (Path(default_storage.location) / "a.png").unlink()
    answer = script(family_with_photos.admin).post(url("run"), {"photos": "true"})
    (line,) = answer.json()["warnings"]
    assert "a.png, it is missing" in line
    client.force_login(family_with_photos.admin)
    answer = client.post(url("run"), {"photos": "true"}, follow=True)
    assert "a.png, it is missing" in answer.content.decode()
    script(family_with_photos.admin).post(url("run"), {"photos": "false"})
    assert services.kept_backups()[0].photos == 0
    assert script(family_with_photos.admin).post(url("run"), {"photos": "x"}).status_code == 400


def test_a_backup_of_everything_else_is_as_it_was_asked_for(family_with_photos, client):
    """A download that some value hinders is offered again, with the photos, and encrypted."""
    if connection.vendor != "sqlite":
        pytest.skip("other databases hold no such value")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE core_weight SET weight = 'heavy'")
    client.force_login(family_with_photos.admin)
    text = client.get(url("download"), {"photos": "1", "encrypt": "0"}).content.decode()
    assert "?leave_out=true&amp;photos=1&amp;encrypt=0" in text

"""Files that are kept on the server."""

import datetime as dt
import io
import os
import stat
from pathlib import Path

import pytest
from core import models as core
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from freezegun import freeze_time

from backup import vault
from backup.conf import conf
from backup.exceptions import InvalidBackup, NoSafetyCopy, StorageFailed
from tests.backups import restore, take
from tests.filling import fill

DATA = bytes(range(256)) * 1000


@pytest.fixture(params=["folder", "storage"])
def kept(request, host_db, settings):
    """In BACKUP_ROOT, and in a storage of the project's own choice."""
    if request.param == "storage":
        memory = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
        settings.STORAGES = {**settings.STORAGES, "backups": memory}
    return request.param


@pytest.fixture
def user(host_db):
    return User.objects.get()


def upload():
    return ContentFile(DATA, name="../../evil.zip")


def staged_names():
    try:
        return vault.storage().listdir("staged")[1]
    except FileNotFoundError:
        return []


# --- Staged uploads ---------------------------------------------------------------------------------------


def test_an_upload_is_kept_until_it_is_discarded(kept, user):
    upload_id = vault.stage(upload(), user)
    for _ in range(2):  # a preview, then the confirmation
        with vault.open_staged(upload_id, user) as file:
            assert file.read() == DATA
            file.seek(0)
            assert file.read(4) == DATA[:4]
    vault.discard(upload_id, user)
    assert staged_names() == []
    with pytest.raises(InvalidBackup, match="no longer there"), vault.open_staged(upload_id, user):
        pass
    vault.discard(upload_id, user)  # once more is no error


def test_an_upload_that_was_read_before_is_kept_whole(kept, user):
    file = upload()
    file.read(1000)
    with vault.open_staged(vault.stage(file, user), user) as kept_file:
        assert kept_file.read() == DATA


def test_an_upload_is_its_users_own(kept, user):
    other = User.objects.create_user("other")
    upload_id = vault.stage(upload(), user)
    with pytest.raises(InvalidBackup), vault.open_staged(upload_id, other):
        pass
    vault.discard(upload_id, other)
    with vault.open_staged(upload_id, user) as file:
        assert file.read() == DATA


@pytest.mark.parametrize(
    "tamper",
    [
        lambda i: i[:-1],
        lambda i: "x" + i,
        lambda i: i.swapcase(),
        lambda i: "",
        lambda i: "../../x",
        lambda i: "a:b:c",
        lambda i: "\0",
        lambda i: i + "ü",
    ],
)
def test_an_id_that_was_tampered_with(kept, user, tamper):
    upload_id = tamper(vault.stage(upload(), user))
    with pytest.raises(InvalidBackup), vault.open_staged(upload_id, user):
        pass
    vault.discard(upload_id, user)
    assert len(staged_names()) == 1


def test_uploads_do_not_get_in_each_others_way(kept, user):
    ids = [vault.stage(ContentFile(bytes([number])), user) for number in range(3)]
    assert len({*ids}) == 3
    for number, upload_id in enumerate(ids):
        with vault.open_staged(upload_id, user) as file:
            assert file.read() == bytes([number])


def test_an_upload_expires(kept, user):
    now = dt.datetime.now(dt.timezone.utc)
    upload_id = vault.stage(upload(), user)
    with (
        freeze_time(now + dt.timedelta(seconds=conf.staged_seconds - 60)),
        vault.open_staged(upload_id, user) as file,
    ):
        assert file.read() == DATA
    with freeze_time(now + dt.timedelta(seconds=conf.staged_seconds + 60)):
        with pytest.raises(InvalidBackup), vault.open_staged(upload_id, user):
            pass
        another = vault.stage(upload(), user)  # which also tidies up
        assert len(staged_names()) == 1
        with vault.open_staged(another, user):
            pass


# --- Safety copies ----------------------------------------------------------------------------------------


def keep(number):
    with freeze_time(dt.datetime(2026, 11, 23, 14, number)):
        return vault.keep_safety_copy(io.BytesIO(bytes([number]) * (number + 1)))


def test_safety_copies_are_listed_newest_first(kept):
    assert vault.safety_copies() == []
    names = [keep(number) for number in (3, 1, 2)]
    copies = vault.safety_copies()
    assert [copy.name for copy in copies] == [names[0], names[2], names[1]]
    assert [copy.size for copy in copies] == [4, 3, 2]
    assert copies[0].created == dt.datetime(2026, 11, 23, 14, 3, tzinfo=dt.timezone.utc)


def test_the_newest_five_are_kept(kept):
    names = [keep(number) for number in range(8)]
    vault.prune_safety_copies()
    assert [copy.name for copy in vault.safety_copies()] == names[:2:-1]


def test_how_many_are_kept_can_be_set(kept, settings):
    settings.BACKUP_SAFETY_COPIES = 2
    names = [keep(number) for number in range(4)]
    vault.prune_safety_copies()
    assert [copy.name for copy in vault.safety_copies()] == names[:1:-1]


def test_a_safety_copy_is_opened(kept):
    with pytest.raises(NoSafetyCopy), vault.open_safety_copy():
        pass
    names = [keep(number) for number in range(3)]
    with vault.open_safety_copy() as file:
        assert file.read() == bytes([2]) * 3
    with vault.open_safety_copy(names[1]) as file:
        assert file.read() == bytes([1]) * 2
    for name in ("../staged/x.zip", "nothing", ""):
        with pytest.raises(NoSafetyCopy), vault.open_safety_copy(name):
            pass


def test_a_safety_copy_is_forgotten(kept):
    name = keep(1)
    vault.forget_safety_copy(name)
    assert vault.safety_copies() == []


def test_other_files_beside_them_are_left_alone(kept):
    place = vault.storage()
    for name in ("safety/notes.txt", "safety/before_x.zip", "safety/before_20261123T143022.123456Z.zip.part"):
        place.save(name, ContentFile(b"x"))
    assert vault.safety_copies() == []
    for number in range(7):
        keep(number)
    vault.prune_safety_copies()
    assert {"notes.txt", "before_x.zip"} <= {*place.listdir("safety")[1]}


def test_each_restore_keeps_one(kept):
    fill(days=1, children=1, odd=False)
    file = take()
    for number in range(7):
        core.Note.objects.all().delete()
        result = restore(file, clear=True)
        assert vault.safety_copies()[0].name == result.safety_copy
        assert len(vault.safety_copies()) == min(number + 1, 5)


def test_a_damaged_note_of_the_last_restore_is_none(kept):
    assert vault.last_done() is None
    done = vault.Done("2026-11-23T14:30:22+00:00", "x", "before_x.zip", is_undo=False)
    vault.note_done(done)
    vault.note_done(done)  # in place of the one before
    assert vault.last_done() == done
    assert vault.storage().listdir("last")[1] == ["restore.json"]
    for text in (b"", b"[]", b'{"at": 1}', b"\xff"):
        vault.storage().delete(vault.LAST_RESTORE)
        vault.storage().save(vault.LAST_RESTORE, ContentFile(text))
        assert vault.last_done() is None


def test_what_cannot_be_removed_is_no_failure_of_the_restore(user, monkeypatch):
    upload_id = vault.stage(upload(), user)

    def fails(self, name):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("django.core.files.storage.FileSystemStorage.delete", fails)
    vault.discard(upload_id, user)


# --- The folder -------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_only_the_servers_user_can_read_them(user):
    before = os.umask(0)
    try:
        vault.stage(upload(), user)
        vault.keep_safety_copy(io.BytesIO(DATA))
    finally:
        os.umask(before)
    places = [conf.root, *conf.root.rglob("*")]
    assert len(places) == 5
    for place in places:
        assert stat.S_IMODE(place.stat().st_mode) == (0o700 if place.is_dir() else 0o600), place


def test_a_file_is_there_only_when_it_is_complete(user):
    class Torn(ContentFile):
        def chunks(self, chunk_size=None):
            yield DATA
            assert not list(conf.root.rglob("*.zip")), "seen before its end"
            raise OSError(28, "No space left on device")

    with pytest.raises(StorageFailed, match="No space left"):
        vault.stage(Torn(DATA), user)
    assert not list(conf.root.rglob("*.*"))


def test_a_folder_that_cannot_be_written(user, settings, tmp_path):
    settings.BACKUP_ROOT = tmp_path / "file" / "backups"
    Path(tmp_path, "file").write_text("in the way")
    with pytest.raises(StorageFailed, match="BACKUP_ROOT") as caught:
        vault.stage(upload(), user)
    assert caught.value.status == 507
    with pytest.raises(StorageFailed):
        vault.keep_safety_copy(io.BytesIO(DATA))


def test_the_storage_of_the_project_is_used(settings, user):
    settings.STORAGES = {
        **settings.STORAGES,
        "backups": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    }
    vault.stage(upload(), user)
    vault.keep_safety_copy(io.BytesIO(DATA))
    assert vault.storage() is storages["backups"]
    assert not conf.root.exists()
    assert {*storages["backups"].listdir("")[0]} == {"staged", "safety"}

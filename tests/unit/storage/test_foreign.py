"""Storages that are no folder: whatever they raise is one error of ours, and no more fails than must."""

import io
import threading
import time

import pytest
from core import models as core
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, InMemoryStorage
from django.core.management import CommandError, call_command

from backup import services
from backup.automatic import run, status
from backup.conf import conf
from backup.exceptions import StorageFailed
from backup.safety_copy import SafetyCopy
from backup.storage import content, elsewhere, files, kept, keys, state, uploads
from tests.support.backups import restore, take
from tests.support.http import url
from tests.support.snapshots import differences, snapshot


class ClientError(Exception):
    """As that of boto3: no OSError."""


class Bucket(InMemoryStorage):
    """A storage somewhere else, which is gone from some moment on, or fails at what is named."""

    fails = ()
    FAILING = ("open", "_save", "delete", "exists", "listdir", "size", "get_modified_time")

    def _is_there(self, what):
        if what in Bucket.fails:
            raise ClientError(f"An error occurred (NoSuchBucket) when calling {what}")


def _failing(what):
    real = getattr(InMemoryStorage, what)

    def method(self, *args, **options):
        self._is_there(what)
        return real(self, *args, **options)

    return method


for _what in Bucket.FAILING:
    setattr(Bucket, _what, _failing(_what))


@pytest.fixture
def bucket(family, settings, monkeypatch):
    backend = {"BACKEND": f"{__name__}.Bucket"}
    settings.STORAGES = {**settings.STORAGES, "backups": backend}
    Bucket.fails = ()
    monkeypatch.setattr(files, "_silent_until", 0.0)  # and as it was afterwards
    yield Bucket
    Bucket.fails = ()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ClientError("pw:SECRET"), "ClientError"),
        (OSError("https://bucket/?sig=SECRET"), "OSError"),
        (PermissionError(13, "Permission denied", "SECRET"), "Permission denied"),
        (SystemExit("SECRET"), "SystemExit"),
    ],
)
def test_what_a_library_says_may_be_secret(bucket, monkeypatch, error, said):
    """Only what the system says of an error of its own is told, and else of what kind it is."""

    def listdir(self, path):
        raise error

    monkeypatch.setattr(Bucket, "listdir", listdir)
    with pytest.raises(StorageFailed) as caught:
        kept.backups()
    assert f"({said})" in caught.value.message
    assert "SECRET" not in caught.value.message


def page_and_download_answer(client):
    client.force_login(User.objects.get(username="admin"))
    for name in ("index", "download"):
        response = client.get(url(name))
        assert response.status_code == 200
        response.close()


def test_whatever_it_raises_is_our_error(bucket):
    user = User.objects.get(username="admin")
    upload_id = uploads.stage(ContentFile(b"x"), user)
    name = restore(take(), clear=True).safety_copy
    bucket.fails = Bucket.FAILING
    for act in (
        lambda: uploads.stage(ContentFile(b"x"), user),
        lambda: uploads.open_staged(upload_id, user).__enter__(),
        kept.backups,
        services.kept_backups,
        lambda: kept.open_backup(name),
        lambda: kept.delete(name),
        lambda: kept.prune(keep=""),
        lambda: state.newest_progress(user),
    ):
        with pytest.raises(StorageFailed, match=r"\(ClientError\)"):
            act()
    uploads.discard(upload_id, user)
    state.save_progress(upload_id, user, {"phase": "check"})
    assert state.load_progress(upload_id, user) is None
    assert state.load_last_backup() is None


def test_a_file_that_breaks_off_while_it_is_read(bucket, monkeypatch):
    name = restore(take(), clear=True).safety_copy

    def breaks(self, *args):
        raise ClientError("Connection reset")

    monkeypatch.setattr("django.core.files.storage.memory.InMemoryFileNode.chunks", breaks, raising=False)
    monkeypatch.setattr("django.core.files.storage.memory.InMemoryFileNode.read", breaks, raising=False)
    content._remembered.cache_clear()  # as in another process
    with pytest.raises(StorageFailed, match=r"\(ClientError\)"):
        kept.backups()
    with pytest.raises(StorageFailed, match=r"\(ClientError\)"):
        services.undo_restore(safety_copy=name)


def test_gone_after_the_commit(bucket, monkeypatch):
    """The data is there, so that is what is said."""
    before, file = snapshot(), take()
    core.Note.objects.all().delete()
    now = snapshot()
    make_sure = SafetyCopy.make_sure  # the last that is asked of the storage before the commit

    def and_gone(copy):
        make_sure(copy)
        bucket.fails = Bucket.FAILING

    monkeypatch.setattr(SafetyCopy, "make_sure", and_gone)
    result = restore(file, clear=True)
    assert any("ClientError" in line for line in result.warnings)
    assert not differences(before, snapshot())
    bucket.fails = ()
    services.undo_restore()
    assert not differences(now, snapshot())


def fail_once(monkeypatch, what):
    """Have the storage fail for a moment."""
    real, waiting = getattr(Bucket, what), [1]

    def method(self, *args, **options):
        if waiting:
            waiting.pop()
            raise ClientError("ServiceUnavailable")
        return real(self, *args, **options)

    monkeypatch.setattr(Bucket, what, method)


def test_notes_that_cannot_be_read_are_not_replaced(bucket, settings, tmp_path, client, monkeypatch):
    settings.BACKUP_LOCATIONS = f"nas={tmp_path / 'nas'}"
    settings.BACKUP_PROVE = "off"
    made = run.run(now=True).backup
    for act in (
        elsewhere.ask_again,
        lambda: elsewhere.change("nas", lambda seen: seen),
        lambda: elsewhere.note_deletion(made.identity),
        lambda: kept.forget(made.name),
    ):
        fail_once(monkeypatch, "open")
        with pytest.raises(StorageFailed, match="ClientError"):
            act()
    assert kept.find(made.name).locations == ("local", "nas")
    bucket.fails = ("open",)
    client.force_login(User.objects.get(username="admin"))
    assert client.get(url("index")).status_code == 200
    assert status.status().as_json()["locations"] == [
        {"name": "nas", "state": "unknown", "at": None, "message": ""}
    ]


def test_what_is_not_known_of_locations_keeps_nobody_from_a_restore(family, settings, tmp_path, monkeypatch):
    """Nor from an undo: safety copies lie in BACKUP_ROOT."""
    settings.BACKUP_LOCATIONS = f"nas={tmp_path / 'nas'}"
    file, then = take(), snapshot()
    family.children[0].delete()
    before, real = snapshot(), files.read_file

    def read(name, **options):
        if name == "last/locations.json":
            raise StorageFailed("it cannot be read")
        return real(name, **options)

    monkeypatch.setattr(files, "read_file", read)
    restore(file, clear=True)
    assert not differences(then, snapshot())
    services.undo_restore()
    assert not differences(before, snapshot())


def test_what_undo_needs_to_know_is_not_forgotten(bucket, monkeypatch):
    """Where it is in a file, and that cannot be read just before the next restore."""
    monkeypatch.setattr(state.memo, "has_notes", lambda: False)
    file = take()
    restore(file, clear=True)
    last = state.load_last_restore()
    assert last is not None
    fail_once(monkeypatch, "open")
    with pytest.raises(StorageFailed, match="ClientError"):
        state.save_last_restore(last)
    assert state.load_last_restore() == last


def test_a_download_needs_no_storage(bucket, client, tmp_path):
    client.force_login(User.objects.get(username="admin"))
    bucket.fails = Bucket.FAILING
    response = client.get(url("download"))
    assert response.status_code == 200
    services.verify_backup(io.BytesIO(b"".join(response.streaming_content)))
    page = client.get(url("index"))
    assert page.status_code == 200
    assert "ClientError" in page.content.decode()
    call_command("backup", output=str(tmp_path), verbosity=0)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("backend", ["no.such.Storage", f"{__name__}.Unmade"])
def test_a_storage_that_cannot_be_made(family, settings, client, tmp_path, backend):
    settings.STORAGES = {**settings.STORAGES, "backups": {"BACKEND": backend}}
    now, file = snapshot(), take()
    with pytest.raises(StorageFailed, match="backups"):
        restore(file, clear=True)
    assert not differences(now, snapshot())
    page_and_download_answer(client)
    call_command("backup", output=str(tmp_path), verbosity=0)
    call_command("backup", verbosity=0, stdout=io.StringIO())
    assert conf.root.exists(), "the command writes into the folder"
    with pytest.raises(CommandError):
        call_command("restore", str(next(tmp_path.iterdir())), interactive=False)
    with pytest.raises(StorageFailed):
        files.names_in("safety")


@pytest.mark.parametrize("failing", [{1, 2, 3, 4}, {1}, {2}], ids=["all", "the first", "the second"])
def test_a_write_that_fails_loses_nothing(bucket, monkeypatch, failing):
    """The storage chooses another name for a file that is there, so that must be deleted; and a full one still allows
    that."""
    name = restore(take(), clear=True).safety_copy
    kept.pin(name, True)
    keys.add()
    ring, listed, saves = keys.ring(), [*_all_names(files.storage(), "")], []
    real = InMemoryStorage._save

    def save(self, path, content):
        saves.append(path)
        if len(saves) in failing:
            raise ClientError("ServiceUnavailable")
        return real(self, path, content)

    monkeypatch.setattr(Bucket, "_save", save)
    for write in (keys.add, lambda: kept.pin(name, False)):
        saves.clear()
        with pytest.raises(StorageFailed, match="ClientError"):
            write()
    monkeypatch.setattr(Bucket, "_save", real)
    assert keys.ring() == ring
    assert kept.backups()[0].pinned
    assert [*_all_names(files.storage(), "")] == listed
    keys.add()
    assert len(keys.ring()) == len(ring) + 1
    kept.pin(name, False)
    assert not kept.backups()[0].pinned
    assert [*_all_names(files.storage(), "")] == listed


def _all_names(place, folder):
    """Yield the names of all files of a storage."""
    folders, names = place.listdir(folder)
    yield from (f"{folder}{name}" for name in sorted(names))
    for inner in sorted(folders):
        yield from _all_names(place, f"{folder}{inner}/")


def test_a_storage_that_hangs(bucket, client, monkeypatch):
    """It holds nobody for ever: each question has a time limit, a transfer as long as nothing moves."""
    file, now = take(), snapshot()
    monkeypatch.setattr(files, "ANSWER", 0.1)
    monkeypatch.setattr(files, "STALLED", 0.2)
    released = threading.Event()
    monkeypatch.setattr(Bucket, "_is_there", lambda self, what: what not in Bucket.fails or released.wait())
    bucket.fails = Bucket.FAILING
    try:
        with pytest.raises(StorageFailed, match="does not answer"):
            restore(file, clear=True)
        assert not differences(now, snapshot())
        page_and_download_answer(client)
    finally:
        released.set()
    bucket.fails = ()
    monkeypatch.setattr(files, "_silent_until", 0)
    restore(file, clear=True)


def test_a_page_does_not_wait_for_each_thing_that_it_asks(bucket, client, monkeypatch):
    """A server would kill its worker meanwhile."""
    monkeypatch.setattr(files, "ANSWER", 1)
    released = threading.Event()
    monkeypatch.setattr(Bucket, "_is_there", lambda self, what: what not in Bucket.fails or released.wait(9))
    bucket.fails = Bucket.FAILING
    client.force_login(User.objects.get(username="admin"))
    began = time.monotonic()
    try:
        assert client.get(url("status")).status_code == 200
        assert time.monotonic() - began < 1.8
    finally:
        released.set()
        bucket.fails = ()
    monkeypatch.setattr(files, "_silent_until", 0)
    assert files.names_in("kept") == []


def test_a_slow_transfer_is_no_hanging_one(bucket, monkeypatch):
    """What counts is the time since the last bytes."""
    monkeypatch.setattr(files, "STALLED", 0.3)
    content = ContentFile(b"x" * 8)
    real = InMemoryStorage._save

    def slowly(self, name, file):
        taken = b""
        for _ in range(8):
            time.sleep(0.1)
            taken += file.read(1)
        return real(self, name, ContentFile(taken))

    monkeypatch.setattr(Bucket, "_save", slowly)
    files.put("staged/slow.zip", content)
    with files.open_file("staged/slow.zip") as file:
        assert file.read() == b"x" * 8


class Broken(io.BytesIO):
    """A file of a library. Class attributes: what its reads and its close do."""

    reads, closes = staticmethod(lambda: b""), staticmethod(lambda: None)

    def read(self, *args):
        return Broken.reads()

    def readinto(self, buffer):
        data = Broken.reads()
        buffer[: len(data)] = data
        return len(data)

    def close(self):
        Broken.closes()

    def __del__(self):
        """Close nothing: Python 3.13 tells of the error where nobody can catch it."""


class Folder(FileSystemStorage):
    """A storage that is somebody's own, though it keeps its files in a folder: one that encrypts them, say."""

    def _open(self, name, mode="rb"):
        return Broken() if Folder.is_broken else super()._open(name, mode)

    is_broken = False


def fails(*args):
    raise ClientError("Connection reset")


def fails_and_cannot_say_how(*args):
    class Mute(Exception):
        def __str__(self):
            raise ValueError

    raise Mute


@pytest.mark.parametrize("reads", [fails, fails_and_cannot_say_how, lambda: None, lambda: "text", lambda: 7])
@pytest.mark.parametrize("closes", [lambda: None, fails], ids=["closed", "not closed"])
@pytest.mark.parametrize("kind", ["Bucket", "Folder"])
def test_a_file_that_does_as_it_likes(
    family, bucket, settings, client, tmp_path, monkeypatch, kind, reads, closes
):
    backend = {"BACKEND": f"{__name__}.{kind}", "OPTIONS": {"location": tmp_path} if kind == "Folder" else {}}
    settings.STORAGES = {**settings.STORAGES, "backups": backend}
    client.force_login(family.admin)
    name = restore(take(), clear=True).safety_copy
    upload_id = uploads.stage(ContentFile(b"x"), family.admin)
    keys.add()
    monkeypatch.setattr(Broken, "reads", staticmethod(reads))
    monkeypatch.setattr(Broken, "closes", staticmethod(closes))
    monkeypatch.setattr(Folder, "is_broken", True)
    monkeypatch.setattr(Bucket, "open", lambda self, name, mode="rb": Broken())
    content._remembered.cache_clear()  # as in another process
    for act in (kept.backups, keys.ring, lambda: services.undo_restore(safety_copy=name)):
        with pytest.raises(StorageFailed):
            act()
    with pytest.raises(StorageFailed), kept.open_backup(name) as file:
        file.read()
    with pytest.raises(StorageFailed), uploads.open_staged(upload_id, family.admin) as file:
        file.read()
    answer = client.get(url("kept", name), headers={"accept": "application/json"})
    assert answer.status_code == 507
    page_and_download_answer(client)


@pytest.mark.parametrize("answer", [None, "text", object(), float("nan"), [None], (None, [7])])
@pytest.mark.parametrize("what", ["size", "get_modified_time", "listdir"])
def test_an_answer_that_is_none(family, bucket, client, monkeypatch, what, answer):
    uploads.stage(ContentFile(b"x"), family.admin)
    monkeypatch.setattr(Bucket, what, lambda self, path: answer)
    ask = {"size": files.size_of, "get_modified_time": files.modified, "listdir": files.names_in}[what]
    with pytest.raises(StorageFailed):
        ask(files.STAGED)
    with pytest.raises(StorageFailed):
        uploads.stage(ContentFile(b"x"), family.admin)
    page_and_download_answer(client)


def test_a_list_that_breaks_off(family, bucket, monkeypatch):
    monkeypatch.setattr(Bucket, "listdir", lambda self, path: ([], (fails() for _ in range(1))))
    for ask in (lambda: files.names_in(files.KEPT), kept.backups):
        with pytest.raises(StorageFailed, match=r"\(ClientError\)"):
            ask()


class Unmade(InMemoryStorage):
    def __init__(self):
        raise ClientError("Set AWS_STORAGE_BUCKET_NAME for backups")

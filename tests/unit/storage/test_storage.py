"""Files that are kept on the server."""

import datetime as dt
import hashlib
import io
import json
import os
import stat
import zipfile
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from core import models as core
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.files.base import ContentFile
from django.core.files.storage import InvalidStorageError, storages
from django.core.management import call_command
from django.db import connections
from freezegun import freeze_time

from backup import services
from backup.archive import Metadata, Writer, text_of
from backup.conf import conf
from backup.database.memo import site_id
from backup.exceptions import (
    Incomplete,
    InvalidBackup,
    NoSuchBackup,
    NoSuchUpload,
    StorageFailed,
    WrongOffset,
)
from backup.storage import facts, files, kept, state, uploads
from backup.storage.names import parse
from tests.support.backups import restore, take
from tests.support.filling import fill

DATA = bytes(range(256)) * 1000
NOW = dt.datetime.now(dt.timezone.utc)
AUTOMATIC, MANUAL, SAFETY = kept.BackupKind.AUTOMATIC, kept.BackupKind.MANUAL, kept.BackupKind.SAFETY


@pytest.fixture(params=["folder", "storage"])
def place(request, host_db, settings):
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
    return files.names_in("staged")


# --- Staged uploads ---------------------------------------------------------------------------------------


def test_an_upload_is_kept_until_it_is_discarded(place, user):
    upload_id = uploads.stage(upload(), user)
    for _ in range(2):  # a preview, then the confirmation
        with uploads.open_staged(upload_id, user) as file:
            assert file.read() == DATA
            file.seek(0)
            assert file.read(4) == DATA[:4]
    uploads.discard(upload_id, user)
    assert staged_names() == []
    with pytest.raises(InvalidBackup, match="no longer there"), uploads.open_staged(upload_id, user):
        pass
    uploads.discard(upload_id, user)  # once more is no error


def test_an_upload_that_was_read_before_is_kept_whole(place, user):
    file = upload()
    file.read(1000)
    with uploads.open_staged(uploads.stage(file, user), user) as kept_file:
        assert kept_file.read() == DATA


def test_an_upload_is_its_users_own(place, user):
    other = User.objects.create_user("other")
    upload_id = uploads.stage(upload(), user)
    with pytest.raises(InvalidBackup), uploads.open_staged(upload_id, other):
        pass
    uploads.discard(upload_id, other)
    with uploads.open_staged(upload_id, user) as file:
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
def test_an_id_that_was_tampered_with(place, user, tamper):
    upload_id = tamper(uploads.stage(upload(), user))
    with pytest.raises(InvalidBackup), uploads.open_staged(upload_id, user):
        pass
    uploads.discard(upload_id, user)
    assert len(staged_names()) == 1


def test_uploads_do_not_get_in_each_others_way(place, user):
    ids = [uploads.stage(ContentFile(bytes([number])), user) for number in range(3)]
    assert len({*ids}) == 3
    for number, upload_id in enumerate(ids):
        with uploads.open_staged(upload_id, user) as file:
            assert file.read() == bytes([number])


def test_an_upload_expires(place, user):
    now = dt.datetime.now(dt.timezone.utc)
    upload_id = uploads.stage(upload(), user)
    with (
        freeze_time(now + dt.timedelta(seconds=conf.staged_seconds - 60)),
        uploads.open_staged(upload_id, user) as file,
    ):
        assert file.read() == DATA
    with freeze_time(now + dt.timedelta(seconds=conf.staged_seconds + 60)):
        with pytest.raises(InvalidBackup), uploads.open_staged(upload_id, user):
            pass
        another = uploads.stage(upload(), user)  # which also tidies up
        assert len(staged_names()) == 1
        with uploads.open_staged(another, user):
            pass


def test_how_many_one_user_may_have(place, user, settings):
    """The oldest go; those of others stay."""
    other = User.objects.create_user("other")
    theirs = uploads.stage(upload(), other)
    moments = iter(range(100))

    def stage(data):
        with freeze_time(NOW + dt.timedelta(seconds=next(moments))):
            return uploads.stage(ContentFile(data), user)

    ids = [stage(b"x") for _ in range(22)]
    assert len(staged_names()) == 21
    for upload_id in ids[:2]:
        with pytest.raises(InvalidBackup), uploads.open_staged(upload_id, user):
            pass
    settings.BACKUP_MAX_UPLOAD_SIZE = len(DATA)
    ids = [stage(DATA) for _ in range(5)]
    assert len(staged_names()) == 4
    for upload_id in ids[2:]:
        with uploads.open_staged(upload_id, user) as file:
            assert file.read() == DATA
    with uploads.open_staged(theirs, other):
        pass


def test_how_much_all_users_may_have(place, user, settings):
    """Nobody's uploads go for the sake of others; who comes last must wait."""
    settings.BACKUP_MAX_UPLOAD_SIZE = len(DATA)
    users = [User.objects.create_user(f"user {number}") for number in range(4)]
    for one in [*users[:3] * 3, users[3]]:
        uploads.stage(upload(), one)
    with pytest.raises(StorageFailed, match="later"):
        uploads.stage(upload(), users[3])
    assert len(staged_names()) == 10
    uploads.stage(upload(), users[0])  # in place of an own one
    assert len(staged_names()) == 10


# --- Uploads in pieces ------------------------------------------------------------------------------------

PIECE = uploads.LEAST_PIECE


def add(upload_id, user, offset, data):
    return uploads.add_piece(upload_id, user, offset, io.BytesIO(data))


def send(user, data=DATA, piece=PIECE, **more):
    """Upload in pieces, one after the other."""
    upload_id, offset = uploads.begin(len(data), user, **more), 0
    while offset < len(data):
        assert uploads.incoming(upload_id, user).offset == offset
        offset = add(upload_id, user, offset, data[offset : offset + piece])
    return upload_id


def test_an_upload_in_pieces_is_read_as_one(place, user):
    upload_id = send(user, sha256=hashlib.sha256(DATA).hexdigest())
    assert uploads.incoming(upload_id, user) == uploads.Incoming(len(DATA), len(DATA), staged_names()[1:])
    for _ in range(2):
        with uploads.open_staged(upload_id, user) as file:
            assert file.read() == DATA
            for start, length in [
                (0, 10),
                (PIECE - 1, 2),
                (PIECE, PIECE),
                (len(DATA) - 3, 10),
                (len(DATA) + 5, 1),
            ]:
                assert file.seek(start) == file.tell() == start
                assert file.read(length) == DATA[start : start + length]
            assert file.seek(-4, io.SEEK_END) == len(DATA) - 4
            assert file.read() == DATA[-4:]
    uploads.discard(upload_id, user)
    assert staged_names() == []
    with pytest.raises(NoSuchUpload):
        uploads.incoming(upload_id, user)
    with pytest.raises(NoSuchUpload):
        add(upload_id, user, 0, DATA)


def test_a_piece_is_one_of_many(host_db, user, monkeypatch):
    """What makes the files the owner's looks at all of them: it is done once, with the last piece."""
    looked = []
    monkeypatch.setattr("backup.storage.owner.give_away", looked.append)
    send(user)
    assert len(looked) == 2  # as it began, and as it was complete


def test_a_backup_in_pieces_is_read(place, user):
    file = take()
    upload_id = send(user, file.getvalue(), piece=PIECE)
    with uploads.open_staged(upload_id, user) as source:
        assert services.verify_backup(source) == services.verify_backup(file)


def test_what_is_missing_is_said(place, user):
    upload_id = uploads.begin(len(DATA), user)
    add(upload_id, user, 0, DATA[:PIECE])
    with pytest.raises(Incomplete, match="Only"), uploads.open_staged(upload_id, user):
        pass


def test_pieces_that_do_not_fit(place, user):
    upload_id = uploads.begin(len(DATA), user)
    add(upload_id, user, 0, DATA[:PIECE])
    for offset in (0, PIECE - 1, PIECE + 1, 2 * PIECE, len(DATA)):
        with pytest.raises(WrongOffset):
            add(upload_id, user, offset, DATA[offset : offset + PIECE])
    for data in (b"", DATA[:10], DATA):  # none, too short, beyond the end
        with pytest.raises(InvalidBackup):
            add(upload_id, user, PIECE, data)
    assert uploads.incoming(upload_id, user).offset == PIECE
    add(upload_id, user, PIECE, DATA[PIECE:])
    with uploads.open_staged(upload_id, user) as file:
        assert file.read() == DATA


def test_two_that_send_the_same_piece_at_once(place, user, monkeypatch):
    """Another process of the server took it in between the look and the write; of another length, too."""
    upload_id = uploads.begin(len(DATA), user)
    put = files.put

    def late(name, file, **how):
        monkeypatch.setattr(files, "put", put)
        add(upload_id, user, 0, DATA[: 2 * PIECE])
        put(name, file, **how)

    monkeypatch.setattr(files, "put", late)
    add(upload_id, user, 0, DATA[:PIECE])
    assert uploads.incoming(upload_id, user).offset == 2 * PIECE
    add(upload_id, user, 2 * PIECE, DATA[2 * PIECE :])
    with uploads.open_staged(upload_id, user) as file:
        assert file.read() == DATA


def test_the_whole_must_be_what_was_announced(place, user):
    with pytest.raises(InvalidBackup, match="damaged or incomplete"):
        send(user, sha256=hashlib.sha256(b"other").hexdigest())
    assert staged_names() == []


def test_pieces_are_their_users_own(place, user):
    other = User.objects.create_user("other")
    upload_id = uploads.begin(len(DATA), user)
    for act in (uploads.incoming, lambda *who: add(*who, 0, DATA[:PIECE])):
        with pytest.raises(NoSuchUpload):
            act(upload_id, other)
    uploads.discard(upload_id, other)
    assert uploads.incoming(upload_id, user).offset == 0
    for whole in (uploads.stage(upload(), user), uploads.new_id(user)):
        with pytest.raises(NoSuchUpload):
            uploads.incoming(whole, user)


def test_pieces_expire_together(place, user):
    """A day after the last one came while some are missing; as any upload once all are here."""
    now = dt.datetime.now(dt.timezone.utc)
    half = uploads.begin(len(DATA), user)
    add(half, user, 0, DATA[:PIECE])
    whole = send(user)
    later = now + dt.timedelta(hours=20)
    with (
        freeze_time(now + dt.timedelta(seconds=conf.staged_seconds + 60)),
        pytest.raises(NoSuchUpload),
        uploads.open_staged(whole, user),
    ):
        pass
    for name in files.names_in("staged"):  # as if the last one of the first came later
        if place == "folder" and name.endswith(f"{PIECE:015}"):
            os.utime(files.local_path(name), (later.timestamp(),) * 2)
    if place == "folder":
        with freeze_time(now + dt.timedelta(hours=40)):
            files.tidy()
            assert uploads.incoming(half, user).offset == PIECE
            with pytest.raises(NoSuchUpload):
                uploads.incoming(whole, user)
    with freeze_time(now + dt.timedelta(hours=45)):
        files.tidy()
        assert staged_names() == []


def test_what_is_announced_takes_no_room_of_others(place, user, settings):
    """A user's own uploads go for it; all others lose room by what has arrived, and by no more."""
    settings.BACKUP_MAX_UPLOAD_SIZE = len(DATA)
    settings.BACKUP_MAX_UPLOAD_SIZE = len(DATA)
    moments = iter(range(100))

    def begin():
        with freeze_time(NOW + dt.timedelta(seconds=next(moments))):
            return uploads.begin(len(DATA), user)

    ids = [begin() for _ in range(4)]
    with pytest.raises(NoSuchUpload):
        uploads.incoming(ids[0], user)
    assert [uploads.incoming(upload_id, user).offset for upload_id in ids[1:]] == [0, 0, 0]
    others = [User.objects.create_user(f"user {number}") for number in range(4)]
    for other in others[:3] * 3:
        uploads.begin(len(DATA), other)
    late, last = uploads.begin(1, others[3]), uploads.begin(len(DATA), others[3])
    add(last, others[3], 0, DATA[:PIECE])
    whole = [send(other) for other in others[:3] for _ in range(3)]  # in place of what they only announced
    with pytest.raises(StorageFailed, match="later"):
        uploads.begin(len(DATA), user)
    assert add(last, others[3], PIECE, DATA[PIECE:]) == len(DATA)
    assert sum(files.size_of(name) for name in staged_names()) == 10 * len(DATA)
    with pytest.raises(StorageFailed, match="later"):
        add(late, others[3], 0, b"a")
    uploads.discard(whole[0], others[0])
    assert add(late, others[3], 0, b"a") == 1
    with pytest.raises(InvalidBackup, match="empty"):
        uploads.begin(0, user)


# --- Kept backups ----------------------------------------------------------------------------------------


def small(number=0):
    """A backup of some state, and its metadata."""
    file = io.BytesIO()
    with Writer(file) as writer:
        writer.add("app.model", [(1, text_of({"model": "app.model", "pk": number, "fields": {}}))])
        return file, writer.finish(Metadata(NOW, label=str(number)))


def keep(number):
    with freeze_time(dt.datetime(2026, 11, 3, 14, number)):
        return kept.keep(*small(number), SAFETY).name


def prune(keep="", *, days=7):
    """As a restore does so many days after `keep(number)`."""
    with freeze_time(dt.datetime(2026, 11, 3) + dt.timedelta(days=days)):
        kept.prune(keep)


def test_they_are_listed_newest_first(place):
    assert kept.backups() == []
    names = [keep(number) for number in (3, 1, 2)]
    copies = kept.backups()
    assert [copy.name for copy in copies] == [names[0], names[2], names[1]]
    assert [copy.label for copy in copies] == ["3", "2", "1"]
    assert copies[0].size == len(small(3)[0].getvalue())
    assert copies[0].created == dt.datetime(2026, 11, 3, 14, 3, tzinfo=dt.timezone.utc)
    assert copies[0].kind is kept.BackupKind.SAFETY


def test_a_state_that_is_kept_is_found(place):
    file, metadata = small(1)
    assert kept.same_state(metadata) is None
    stored = kept.keep(file, metadata, MANUAL)
    assert kept.same_state(small(1)[1]) == stored
    assert kept.same_state(small(2)[1]) is None


def test_the_newest_five_are_kept(place):
    names = [keep(number) for number in range(8)]
    prune(names[1])
    assert [copy.name for copy in kept.backups()] == [*names[:2:-1], names[1]]


def test_how_many_are_kept_can_be_set(place, settings):
    settings.BACKUP_SAFETY_COPIES = 2
    names = [keep(number) for number in range(4)]
    prune()
    assert [copy.name for copy in kept.backups()] == names[:1:-1]


def test_a_clock_that_is_ahead_prunes_none(place):
    """What was kept minutes ago seems to be years old, but not once there is another one of that time."""
    names = [keep(number) for number in range(8)]
    prune(names[0], days=3000)
    assert {copy.name for copy in kept.backups()} == {*names}
    with freeze_time("2035-01-01"):
        newest = kept.keep(*small(20), SAFETY).name
    with freeze_time("2035-01-02"):
        last = kept.keep(*small(21), SAFETY).name
        kept.prune(keep=last)
        assert [copy.name for copy in kept.backups()] == [last, newest, *names[:4:-1]]


def test_none_of_today_is_pruned_and_none_of_the_future(place):
    with freeze_time("2035-01-01"):
        future = [kept.keep(*small(number), SAFETY).name for number in range(10, 16)]
    today = [kept.keep(*small(number), SAFETY).name for number in range(7)]
    keep(20)
    kept.prune(keep="")
    assert [copy.name for copy in kept.backups()] == [*today[::-1], *sorted(future, reverse=True)]


def test_one_is_opened(place):
    names = [keep(number) for number in range(3)]
    with kept.open_backup(names[1]) as file:
        assert json.loads(zipfile.ZipFile(file).read("metadata.json"))["label"] == "1"
    wrong = ("../staged/x.zip", "nothing", "", names[1].replace("202611", "202613"), f"{names[1]}\n")
    for name in (*wrong, names[1].replace("14", "15")):
        for act in (kept.open_backup, kept.find, kept.delete):
            with pytest.raises(NoSuchBackup):
                act(name)


def test_one_is_deleted(place):
    name = keep(1)
    kept.delete(name)
    assert kept.backups() == []


def test_other_files_beside_them_are_left_alone(place):
    name = keep(1)
    others = {
        *("safety/notes.txt", "safety/before_x.zip", "safety/before_20261123T143022.123456Z.zip"),
        *(f"safety/{name}", "kept/before_20261123T143022.123456Z_0123456789ABCDEF.zip"),
        *(f"kept/{name.replace('_safety_', '_unknown_')}", f"kept/{name}.part", "kept/x.json"),
    }
    for other in others:
        files.put(other, ContentFile(b"x"))
    for number in range(2, 8):
        keep(number)
    prune()
    assert len(kept.backups()) == 5
    assert others <= {*files.names_in("safety"), *files.names_in("kept")}


def test_safety_copies_of_version_0_1_are_listed(place):
    name = "before_20251123T143022.123456Z_0123456789ABCDEF.zip"
    file, _ = small(1)
    files.put(f"safety/{name}", ContentFile(file.getvalue()))
    newer = keep(2)
    assert [copy.name for copy in kept.backups(SAFETY)] == [newer, name]
    old = kept.find(name)
    assert (old.created.isoformat(), old.label) == ("2025-11-23T14:30:22.123456+00:00", "1")
    assert kept.pin(name, True).pinned
    kept.delete(name)
    assert files.names_in("safety") == []


def test_what_an_entry_of_the_list_says(place):
    file, metadata = small(1)
    stored = kept.keep(file, metadata, MANUAL, facts={"pinned": True})
    assert stored == kept.find(stored.name) == kept.backups()[0]
    assert stored.as_json() == {
        "name": stored.name,
        "kind": "manual",
        "created": stored.created.isoformat(),
        "by": "",
        "label": "1",
        "records": 1,
        "photos": 0,
        "size": len(file.getvalue()),
        "baby_buddy": "",
        "encrypted": False,
        "key_id": "",
        "pinned": True,
        "proof": None,
        "locations": ["local"],
    }
    assert stored.counts == {"app.model": 1}
    assert (stored.state, stored.site) == (kept.state_of(metadata), site_id())
    for part in (f"{stored.created:%Y%m%dT%H%M%S.%fZ}", "_manual_", site_id()):
        assert part in stored.name


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 200_000], ids=range(5))
def test_notes_that_cannot_be_read_are_none_but_count_as_pinned(place, content):
    stored = kept.keep(*small(1), MANUAL, facts={"pinned": True})
    for name in (files.LAST_RUN, parse(stored.name).facts):
        files.put(name, ContentFile(content))
        assert files.get_json(name) == {}
    assert facts.load(parse(stored.name)) == {"pinned": True, facts.UNREADABLE: True}
    assert kept.find(stored.name).pinned


def test_names_sort_by_time_and_are_listed_by_kind(place):
    kinds = [AUTOMATIC, SAFETY, MANUAL, AUTOMATIC]
    for number, kind in enumerate(kinds):
        with freeze_time(dt.datetime(2026, 11, 3, 14, number)):
            kept.keep(*small(number), kind)
    listed = kept.names()
    assert [name.kind for name in listed] == kinds[::-1]
    assert [name.text for name in listed] == sorted((name.text for name in listed), reverse=True)
    assert [name.kind for name in kept.names(AUTOMATIC)] == [AUTOMATIC] * 2
    assert [copy.kind for copy in kept.backups(MANUAL)] == [MANUAL]


def test_what_is_pinned_is_never_pruned(place):
    names = [keep(number) for number in range(8)]
    assert kept.pin(names[0], True).pinned
    assert kept.pin(names[1], True).pinned
    assert not kept.pin(names[1], False).pinned
    prune()
    assert [copy.name for copy in kept.backups()] == [*names[:2:-1], names[0]]
    kept.delete(names[0])
    assert [name for name in files.names_in("kept") if name.endswith(".json")] == []
    with pytest.raises(NoSuchBackup):
        kept.pin(names[0], True)


def test_what_two_note_at_a_time(place, monkeypatch):
    """As a person who pins a backup while a run notes what its proof came to."""
    name = keep(1)
    save, pins = facts.save, []

    def save_a_little_later(*args):
        monkeypatch.undo()
        pins.append(another.submit(lambda: (kept.pin(name, True), connections.close_all())))
        wait(pins, timeout=0.2)
        save(*args)

    with ThreadPoolExecutor(1) as another:
        monkeypatch.setattr(facts, "save", save_a_little_later)
        kept.note(name, label="of the summer")
        pins[0].result()
    assert (kept.find(name).pinned, kept.find(name).label) == (True, "of the summer")


def test_each_restore_keeps_one(place):
    fill(days=1, children=1, odd=False)
    file = take()
    for number in range(3):
        core.Note.objects.create(child=core.Child.objects.get(), note=str(number), time=NOW)
        result = restore(file, clear=True)
        assert kept.backups()[0].name == result.safety_copy
        assert len(kept.backups()) == number + 1


# --- What is remembered -----------------------------------------------------------------------------------


def test_the_last_restore_is_remembered(host_db):
    assert state.load_last_restore() is None
    first = state.LastRestore("2026-11-23T14:30:22+00:00", "x", "before_x.zip", is_undo=False)
    made = (("contenttypes.contenttype", ["zoo", "coin"]),)
    last = state.LastRestore("2026-11-24T14:30:22+00:00", "", "before_y.zip", is_undo=True, made=made)
    for saved in (first, last):  # in place of the one before
        state.save_last_restore(saved)
        assert state.load_last_restore() == saved
    for text in ("", "[]", '{"at": 1}', "x", "[" * 200_000):
        Session.objects.filter(session_key__startswith="backup-").update(session_data=text)
        assert state.load_last_restore() is None
    Session.objects.all().delete()
    assert state.load_last_restore() is None


def test_the_row_of_it_is_no_session(host_db, client):
    state.save_last_restore(state.LastRestore("2026-11-23T14:30:22+00:00", "x", "x", is_undo=False))
    row = Session.objects.get()
    assert len(row.session_key) <= 40
    client.cookies["sessionid"] = row.session_key
    assert client.get("/backup/").status_code == 302
    call_command("clearsessions")
    assert state.load_last_restore() is not None


def test_what_cannot_be_removed_is_no_failure_of_the_restore(user, monkeypatch):
    upload_id = uploads.stage(upload(), user)

    def fails(self, name):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("django.core.files.storage.FileSystemStorage.delete", fails)
    uploads.discard(upload_id, user)


# --- The folder -------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_only_the_servers_user_can_read_them(user):
    before = os.umask(0)
    try:
        uploads.stage(upload(), user)
        kept.keep(*small(), SAFETY)
    finally:
        os.umask(before)
    places = [conf.root, *conf.root.rglob("*")]
    assert len(places) == 6
    for place in places:
        assert stat.S_IMODE(place.stat().st_mode) == (0o700 if place.is_dir() else 0o600), place


def test_a_file_is_there_only_when_it_is_complete(user):
    class Torn(ContentFile):
        def chunks(self, chunk_size=None):
            yield DATA
            assert not list(conf.root.rglob("*.zip")), "seen before its end"
            raise OSError(28, "No space left on device")

    with pytest.raises(StorageFailed, match="No space left"):
        uploads.stage(Torn(DATA), user)
    assert not list(conf.root.rglob("*.*"))


def test_a_folder_that_cannot_be_written(user, settings, tmp_path):
    settings.BACKUP_ROOT = tmp_path / "file" / "backups"
    Path(tmp_path, "file").write_text("in the way")
    with pytest.raises(StorageFailed, match="BACKUP_ROOT") as caught:
        uploads.stage(upload(), user)
    assert caught.value.status == 507
    with pytest.raises(StorageFailed):
        kept.keep(*small(), SAFETY)


def test_the_storage_of_the_project_is_used(settings, user):
    settings.STORAGES = {
        **settings.STORAGES,
        "backups": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    }
    uploads.stage(upload(), user)
    kept.keep(*small(), SAFETY)
    assert files.storage() is storages["backups"]
    assert not conf.root.exists()
    assert {*storages["backups"].listdir(files.path_of(""))[0]} == {"staged", "kept"}


def test_a_storage_that_cannot_be_made_is_not_passed_over(host_db, settings):
    settings.STORAGES = {**settings.STORAGES, "backups": {"BACKEND": "no.such.Storage"}}
    with pytest.raises(InvalidStorageError):
        files.storage()

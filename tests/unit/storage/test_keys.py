"""The ring of keys: it only grows, nothing is written over it that cannot be read, and it decides what is encrypted."""

import json
import stat
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from backup.archive import Key
from backup.conf import conf
from backup.exceptions import EncryptionUnavailable, StorageFailed
from backup.storage import keys
from backup.storage.keys import Place
from tests.support.processes import ask, hear, process

pytestmark = pytest.mark.django_db


@pytest.fixture
def root(settings, tmp_path):
    settings.BACKUP_ROOT = str(tmp_path / "backups")
    return tmp_path / "backups"


def test_a_new_key_comes_first_and_the_old_ones_stay(root):
    assert keys.current() is None
    made = [keys.add() for _ in range(3)]
    assert keys.ring() == made[::-1]
    assert keys.current() == made[-1]
    assert stat.S_IMODE((root / "keys.json").stat().st_mode) == 0o600
    assert sorted(path.name for path in root.iterdir()) == ["keys.json", "keys.lock"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"keys": 7}',
        b'{"keys": {}}',
        b'{"keys": ""}',
        b"[" * 200_000,
        b'{"keys": ' + b"[" * 200_000,
        b'{"keys": [{}]}',
        b'{"keys": [{"key": "AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA", "made": "", "noted": true}]}',
        b"\xff",
    ],
)
def test_nothing_is_written_over_a_ring_that_cannot_be_read(root, content):
    root.mkdir()
    (root / "keys.json").write_bytes(content)
    for work in (keys.ring, keys.current, keys.add, lambda: keys.note("AAAAA")):
        with pytest.raises(StorageFailed, match=r"keys\.json"):
            work()
    with pytest.raises(StorageFailed):
        keys.key_for(Place.DOWNLOAD, encrypt=True)
    assert (root / "keys.json").read_bytes() == content


def test_a_ring_that_somebody_writes_meanwhile(root, monkeypatch):
    """Else a key would be shown, and printed, that is not in the ring."""
    keys.add()
    before = (root / "keys.json").read_bytes()
    put = keys.files.put

    def overtaken(name, file):
        put(name, file)
        (root / "keys.json").write_bytes(before)

    monkeypatch.setattr(keys.files, "put", overtaken)
    with pytest.raises(StorageFailed):
        keys.add()


WORK = pytest.mark.parametrize(
    "work", [keys.add, lambda: keys.note(keys.current().key.last_group)], ids=["add", "note"]
)


def assert_is_in_the_ring(result):
    """Whatever `work` returned is true of the ring: the new key is there, or one is noted, or none is."""
    if isinstance(result, bool):
        assert result is any(stored.is_noted for stored in keys.ring())
    else:
        assert result in keys.ring()


@WORK
def test_a_ring_that_another_process_writes(root, monkeypatch, work):
    """Whoever reads it to write it waits for the other one: no key is lost that was shown to somebody."""
    first = keys.add()
    with process(WRITER, root) as writer:
        assert hear(writer) == "held"
        others = []

        def ends(seconds):
            others.append(ask(writer, ""))
            monkeypatch.undo()

        monkeypatch.setattr(time, "sleep", ends)
        result = work()
    assert len(others) == 1
    assert {*others, first.key.text} <= {stored.key.text for stored in keys.ring()}
    assert_is_in_the_ring(result)


WRITER = """
    import sys
    from django.conf import settings
    from backup.archive import Key
    from backup.storage import files, keys
    settings.BACKUP_ROOT = sys.argv[1]
    new = keys.StoredKey(Key.make())
    with files.noting_for_all():
        before = keys.ring()
        print("held", flush=True)
        input()
        keys._save([new, *before])
    print(new.key.text, flush=True)
"""


@WORK
def test_a_ring_that_another_site_writes(root, work):
    """Its database has a lock of its own, which keeps nobody out here."""
    first = keys.add()
    other_site = (
        "from contextlib import nullcontext\nfrom backup.storage import files\nfiles.noting = nullcontext\n"
    )

    def work_and_close():
        try:
            return work()
        finally:
            connections.close_all()

    with process(other_site + textwrap.dedent(WRITER), root) as writer, ThreadPoolExecutor(1) as pool:
        assert hear(writer) == "held"
        done = pool.submit(work_and_close)
        wait([done], timeout=0.5)
        new = ask(writer, "")
        result = done.result()
    assert_is_in_the_ring(result)
    assert {new, first.key.text} <= {stored.key.text for stored in keys.ring()}
    assert len(keys.ring()) == 2 + (work is keys.add)


def test_it_is_noted_by_the_last_group(root):
    stored = keys.add()
    assert not stored.is_noted
    assert not keys.note("AAAAA")
    assert not keys.note("")
    assert keys.note(f" {stored.key.last_group.lower()} ")
    assert keys.current().is_noted
    assert not keys.add().is_noted
    assert [entry["noted"] for entry in json.loads((root / "keys.json").read_text())["keys"]] == [False, True]


def test_the_setting_comes_before_the_ring(root, settings):
    stored = keys.add()
    settings.BACKUP_KEY = f" {Key.make().text.lower()} "
    assert keys.current().key == Key.parse(settings.BACKUP_KEY)
    assert keys.current().is_noted
    assert keys.known() == [Key.parse(settings.BACKUP_KEY), stored.key]
    with pytest.raises(EncryptionUnavailable):
        keys.add()
    settings.BACKUP_KEY = "hunter2"
    with pytest.raises(StorageFailed, match="BACKUP_KEY") as caught:
        keys.current()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "encrypted"),
    [
        ([], []),
        (["download"], [Place.DOWNLOAD]),
        (["local"], [Place.LOCAL]),
        (" Local , download", [Place.DOWNLOAD, Place.LOCAL]),
        ("all", [Place.DOWNLOAD, Place.LOCAL]),
    ],
)
def test_what_is_encrypted(root, settings, value, encrypted):
    settings.BACKUP_ENCRYPT = value
    for place in encrypted:
        with pytest.raises(EncryptionUnavailable, match="backup_key --new"):
            keys.key_for(place)
    key = keys.add().key
    for place in Place:
        assert keys.key_for(place) == (key if place in encrypted else None)
        assert keys.key_for(place, encrypt=True) == key


@pytest.mark.parametrize("value", [7, [7], "everything", ["local", "nas"]])
def test_a_place_that_is_none(settings, value):
    settings.BACKUP_ENCRYPT = value
    with pytest.raises(ImproperlyConfigured, match="BACKUP_ENCRYPT"):
        _ = conf.encrypt

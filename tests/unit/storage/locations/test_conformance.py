"""Every kind of location does the same, on the real thing: what is written comes back, complete or not at all."""

import io
import os
import tracemalloc

import pytest
from django.core.files.storage import storages

from backup.database.memo import site_id
from backup.exceptions import BackupError, NoSuchBackup
from backup.storage import bounded
from backup.storage.locations import location

from .conftest import SERVERS

KINDS = ["folder", "alias of a folder", "alias in memory", "alias on S3", *SERVERS]
MIB = 1024 * 1024


@pytest.fixture(params=KINDS)
def place(request, settings, tmp_path, host_db, remote):
    kind = request.param
    if kind in SERVERS:
        yield remote(kind).place
        return
    backend = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
    if kind == "alias of a folder":
        backend = {"BACKEND": "django.core.files.storage.FileSystemStorage"}
        backend["OPTIONS"] = {"location": tmp_path / "nas"}
    elif kind == "alias on S3":
        from boto3.s3.transfer import TransferConfig

        server = request.getfixturevalue("s3")
        backend = {"BACKEND": "storages.backends.s3.S3Storage"}
        backend["OPTIONS"] = {
            "bucket_name": "backups",
            "endpoint_url": server.endpoint,
            "access_key": server.key,
            "secret_key": server.secret,
            "max_memory_size": MIB,  # else it holds whole files
            "transfer_config": TransferConfig(use_threads=False),
        }
    settings.STORAGES = {**settings.STORAGES, "offsite": backend}
    settings.BACKUP_LOCATIONS = {"there": tmp_path / "nas" if kind == "folder" else "storage:offsite"}
    yield location("there")
    if kind == "alias on S3":  # django-storages closes none
        for thread in bounded._idle:
            thread.work.put(lambda: storages["offsite"].connection.meta.client.close())
            thread.outcome.get()


def put(place, name, content):
    place.send(name, io.BytesIO(content))


def get(place, name):
    with place.fetch(name) as file:
        return file.read()


def test_what_is_written_comes_back(place):
    content = os.urandom(3 * MIB)
    assert place.names() == place.names("photos") == place.other_sites() == []
    put(place, "kept/a.zip", content)
    put(place, "photos/0a", b"")
    assert get(place, "kept/a.zip") == content
    assert get(place, "photos/0a") == b""
    assert (place.size("kept/a.zip"), place.size("photos/0a")) == (len(content), 0)
    assert place.read_part("kept/a.zip", MIB, 20) == content[MIB : MIB + 20]
    assert place.read_part("kept/a.zip", len(content) - 3, 20) == content[-3:]
    assert place.read_part("kept/a.zip", 0, 1) == content[:1]
    assert place.names() == ["a.zip"]
    assert place.names("photos") == ["0a"]
    sizes = [place.sizes("kept")["a.zip"], place.sizes("photos")["0a"]]
    assert sizes == [len(content), 0] or (sizes == [None, None] and place.kind == "storage")


def test_in_place_of_another(place):
    for content in (b"first, and long", b"second", b""):
        put(place, "kept/a.zip", content)
        assert get(place, "kept/a.zip") == content
        assert place.size("kept/a.zip") == len(content)
    assert place.names() == ["a.zip"]


def test_all_of_it(place):
    file = io.BytesIO(b"wherever it was read to")
    file.seek(10)
    place.send("kept/a.zip", file)
    assert get(place, "kept/a.zip") == b"wherever it was read to"


def test_what_is_gone(place):
    put(place, "kept/a.zip", b"a")
    put(place, "kept/b.zip", b"b")
    place.delete("kept/a.zip")
    place.delete("kept/a.zip")
    place.delete("nowhere/a.zip")
    assert place.names() == ["b.zip"]
    for act in (place.fetch, place.size, lambda name: place.read_part(name, 0, 1)):
        for name in ("kept/a.zip", "nowhere/a.zip"):
            with pytest.raises(NoSuchBackup, match="there"):
                act(name)


NAMES = [
    "babybuddy_20261123T143022.123456Z_automatic_0123456789ab_ABC.zip",
    "a b&c=d%41+.zip",
    "Ä–ñ'(1).zip",
    "a",
]


def test_names(place):
    for name in NAMES:
        put(place, f"kept/{name}", name.encode())
    assert place.names() == sorted(NAMES)
    for name in NAMES:
        assert get(place, f"kept/{name}") == name.encode()
        place.delete(f"kept/{name}")
    assert place.names() == []


@pytest.mark.parametrize(
    "name", ["../a", "kept/../../a", "/etc/passwd", "kept//a", "kept/./a", "", "kept\\a"]
)
def test_names_that_lead_elsewhere(place, name):
    """A list of names may be anybody's."""
    for act in (place.fetch, place.size, place.delete, lambda name: put(place, name, b"")):
        with pytest.raises(NoSuchBackup):
            act(name)


def test_other_sites(place, monkeypatch):
    """Each has a folder of its own, and a new host finds what the old one left."""
    own = site_id()
    put(place, "kept/a.zip", b"old")
    monkeypatch.setattr("backup.storage.files.site_id", lambda: "0" * 12)
    assert place.names() == []
    assert place.other_sites() == [own]
    assert place.names(site=own) == ["a.zip"]
    with place.fetch("kept/a.zip", site=own) as file:
        assert file.read() == b"old"


class Breaks(io.BytesIO):
    """A file that cannot be read to its end, as if this server's disk broke."""

    def read(self, size=-1):
        if self.tell() >= 6 * MIB:
            raise RuntimeError("in the middle")
        return super().read(size)


def test_an_interrupted_write_never_appears(place, request):
    """What was there stays, but where Django's storage must delete it first."""
    put(place, "kept/b.zip", b"before")
    for name in ("kept/a.zip", "kept/b.zip"):
        with pytest.raises(BackupError):
            place.send(name, Breaks(bytes(24 * MIB)))
    if "alias in memory" in request.node.name:
        assert place.names() == []
    else:
        assert place.names() == ["b.zip"]
        assert get(place, "kept/b.zip") == b"before"


def test_a_large_file_in_flat_memory(place, request, tmp_path):
    """48 MiB, with less than half of that in memory, both ways."""
    if "alias in memory" in request.node.name:
        pytest.skip("it is in memory by intention")
    large = tmp_path / "large"
    with large.open("wb") as file:
        for _ in range(48):
            file.write(os.urandom(MIB))
    tracemalloc.start()
    try:
        with large.open("rb") as file:
            place.send("kept/a.zip", file)
        with place.fetch("kept/a.zip") as back, large.open("rb") as file:
            while chunk := file.read(MIB):
                assert back.read(MIB) == chunk
            assert back.read() == b""
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 23 * MIB


def test_the_probe(place):
    assert place.test() == []
    assert place.names("test") == []


def test_two_at_a_time(place):
    """The page may ask while a copy is sent."""
    put(place, "kept/first", b"")
    threads = [bounded._Worker() for _ in range(4)]
    for number, thread in enumerate(threads):
        thread.work.put(lambda number=number: put(place, f"kept/{number}", bytes([number]) * MIB))
    assert [thread.outcome.get(timeout=60)[1] for thread in threads] == [None] * 4
    assert [get(place, f"kept/{number}") for number in range(4)] == [
        bytes([number]) * MIB for number in range(4)
    ]

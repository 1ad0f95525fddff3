"""Photos that lie beside a backup: it is read as if they were in it, and one whole file can be made of both."""

import hashlib
import io
import os
import shutil
import subprocess
import tempfile
import tracemalloc
import zipfile
from unittest import mock

import pytest

from backup.archive import Archive, Key, Keys, Metadata, Writer, open_archive, open_path, with_photos
from backup.archive.encryption import NotAuthenticError
from backup.archive.photos import DAMAGE, read_encrypted, stored_name, write_encrypted
from backup.archive.whole import write_whole
from backup.exceptions import EncryptionUnavailable, InvalidBackup
from tests.unit.archive.test_archive import LIMITS, MOMENT
from tests.unit.archive.test_encryption import MISSING
from tests.unit.archive.test_photos import KEY, PHOTOS, read, write

both = pytest.mark.parametrize("key", [None, KEY], ids=["in clear", "encrypted"])
TIM, EMPTY = "child/picture/tim.jpg", "notes/images/empty.png"


class Folder:
    """A place for photos in memory: name of the file -> content."""

    def __init__(self, key=None):
        self.files = {}
        with Archive(write(key=key), LIMITS, keys=Keys(KEY)) as archive:
            for photo in archive.metadata.photos.values():
                file = io.BytesIO()
                if key:
                    write_encrypted(file, archive.read(photo), key)
                else:
                    file.write(b"".join(archive.read(photo)))
                self.files[self.name(photo, key)] = file.getvalue()
                if photo.name == TIM:
                    self.tim = self.name(photo, key)

    @staticmethod
    def name(photo, key):
        return stored_name(photo.sha256, key)

    def has(self, photo, key):
        return self.name(photo, key) in self.files

    def blocks(self, photo, key):
        if not self.has(photo, key):
            raise FileNotFoundError
        file = io.BytesIO(self.files[self.name(photo, key)])
        if key:
            yield from read_encrypted(file, photo.size, key)
        else:
            yield file.read()


def whole(key, folder):
    file, target = write(key=key, listed=PHOTOS), io.BytesIO()
    with Archive(file, LIMITS, keys=Keys(KEY), photos=folder) as archive:
        said = write_whole(file, archive, target)
    return target, said


@both
def test_it_is_read_as_if_they_were_in_it(key):
    file = with_photos(write(key=key, listed=PHOTOS), Folder(key))
    with open_archive(file, keys=Keys(KEY)) as archive:
        photos = archive.metadata.photos
        assert all(map(archive.has_photo, photos.values()))
        assert {name: b"".join(archive.read(photo)) for name, photo in photos.items()} == PHOTOS


@both
def test_opening_it_asks_for_no_photo(key):
    file = with_photos(write(key=key, listed=PHOTOS), mock.Mock(spec=[]))
    with open_archive(file, keys=Keys(KEY)) as archive:
        assert [*archive.metadata.photos] == [*PHOTOS]


@both
def test_a_file_on_a_disk_has_the_photos_beside_it(key, tmp_path):
    """As it lies in BACKUP_ROOT, or in the folder of a location that somebody plugged in."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "kept" / "x.zip").write_bytes(write(key=key, listed=PHOTOS).getvalue())
    for name, content in Folder(key).files.items():
        (tmp_path / "photos" / name).write_bytes(content)
    with open_path(tmp_path / "kept" / "x.zip") as file, open_archive(file, keys=Keys(KEY)) as archive:
        photos = archive.metadata.photos
        assert all(map(archive.has_photo, photos.values()))
        assert {name: b"".join(archive.read(photo)) for name, photo in photos.items()} == PHOTOS


def flipped(content):
    content = bytearray(content)
    content[len(content) // 2] ^= 1
    return bytes(content)


@both
@pytest.mark.parametrize(
    "damage",
    [flipped, lambda c: c[:-200], lambda c: c + b"x" * 5000, lambda c: b"", lambda c: b"PK\5\6" + bytes(18)],
    ids=["a bit", "cut", "longer", "empty", "an empty ZIP"],
)
def test_a_damaged_photo_is_named_and_the_others_are_read(key, damage):
    folder = Folder(key)
    folder.files[folder.tim] = damage(folder.files[folder.tim])
    with Archive(write(key=key, listed=PHOTOS), LIMITS, keys=Keys(KEY), photos=folder) as archive:
        for name, photo in archive.metadata.photos.items():
            if name == TIM:
                with pytest.raises(InvalidBackup, match=r"“child/picture/tim\.jpg” is damaged"):
                    b"".join(archive.read(photo))
            else:
                assert b"".join(archive.read(photo)) == PHOTOS[name]


@both
def test_a_missing_photo_is_named(key):
    folder = Folder(key)
    del folder.files[folder.tim]
    with Archive(write(key=key, listed=PHOTOS), LIMITS, keys=Keys(KEY), photos=folder) as archive:
        photos = archive.metadata.photos
        assert [name for name, photo in photos.items() if not archive.has_photo(photo)] == [TIM]
        with pytest.raises(InvalidBackup, match=r"“child/picture/tim\.jpg” is missing"):
            b"".join(archive.read(photos[TIM]))


def test_another_key_opens_no_photo():
    other = Key.make()
    sealed = io.BytesIO()
    write_encrypted(sealed, [b"x" * 100], KEY)
    with pytest.raises(NotAuthenticError):
        b"".join(read_encrypted(sealed, 100, other))
    assert b"".join(read_encrypted(sealed, 100, KEY)) == b"x" * 100


def test_whatever_is_wrong_with_an_encrypted_photo_is_damage():
    """On a disk, which takes some places for wrong that memory takes."""
    content, sealed = b"x" * 100, io.BytesIO()
    write_encrypted(sealed, [content], KEY)
    sound, wrong = sealed.getvalue(), 0
    for place in range(len(sound)):
        for value in {0, 8, 0x7F, 0xFF} - {sound[place]}:
            with tempfile.TemporaryFile() as file:
                file.write(sound[:place] + bytes([value]) + sound[place + 1 :])
                try:
                    assert b"".join(read_encrypted(file, len(content), KEY)) == content
                except DAMAGE:
                    wrong += 1
    assert wrong > len(sound)


def test_names_of_encrypted_photos_tell_nothing():
    """Who has the photo, but not the key, cannot tell whether it is there."""
    clear, sealed = Folder(), Folder(KEY)
    for name in sealed.files:
        digest, _, rest = name.partition("_")
        assert rest == f"{KEY.id}.zip"
        assert len(digest) == 64
        assert digest not in clear.files
    assert not {*sealed.files} & {stored_name(name, Key.make()) for name in clear.files}


def test_without_the_library_nothing_is_written_in_clear(monkeypatch):
    monkeypatch.setattr("backup.archive.encryption.AES", None)
    target = io.BytesIO()
    with pytest.raises(EncryptionUnavailable):
        write_encrypted(target, [b"a photo"], KEY)
    assert not target.getvalue()


# --- One whole file -----------------------------------------------------------------------------------------


@both
def test_the_whole_file_is_what_a_download_is(key):
    target, said = whole(key, Folder(key))
    assert read(target) == PHOTOS
    with Archive(target, LIMITS, keys=Keys(KEY)) as archive:
        assert archive.metadata == said
        assert [len(batch) for batch in archive.records("core.note")] == [1]
        with Archive(write(key=key), LIMITS, keys=Keys(KEY)) as direct:
            assert archive.metadata == direct.metadata
    names = zipfile.ZipFile(target).namelist()
    assert len(names) == len({*names}) == (1 if key else 0) + 1 + len(PHOTOS) + 1
    assert names[-1] == "metadata.json"


@both
def test_what_is_missing_or_damaged_is_left_out_and_named(key):
    folder = Folder(key)
    folder.files[folder.tim] = flipped(folder.files[folder.tim])
    del folder.files[[*folder.files][3]]
    target, said = whole(key, folder)
    content = {name: content for name, content in PHOTOS.items() if name not in (TIM, "readme.txt")}
    assert read(target) == content
    assert [*said.photos] == [*content]
    assert len(said.warnings) == 2
    assert TIM in said.warnings[0]
    assert "readme.txt" in said.warnings[1]


@both
@pytest.mark.parametrize("tool", ["7z", "bsdtar"])
def test_other_tools_open_the_whole_file(key, tool, tmp_path):
    if shutil.which(tool) is None:
        MISSING(f"{tool} is not installed")
    target, _said = whole(key, Folder(key))
    (tmp_path / "x.zip").write_bytes(target.getvalue())
    command = {
        "7z": ["7z", "x", "-y", f"-p{KEY.text}", "x.zip"],
        "bsdtar": ["bsdtar", "--passphrase", KEY.text, "-xf", "x.zip"],
    }
    subprocess.run(command[tool], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    found = {p.relative_to(tmp_path / "media").as_posix(): p for p in (tmp_path / "media").rglob("*.*")}
    if key:
        found = dict(zip(PHOTOS, sorted((tmp_path / "media").iterdir()), strict=True))
    assert {name: path.read_bytes() for name, path in found.items()} == PHOTOS


@pytest.mark.parametrize("tool", ["7z", "bsdtar"])
def test_other_tools_open_an_encrypted_photo(tool, tmp_path):
    if shutil.which(tool) is None:
        MISSING(f"{tool} is not installed")
    with (tmp_path / "x.zip").open("wb") as file:
        write_encrypted(file, [PHOTOS[TIM]], KEY)
    command = {
        "7z": ["7z", "x", "-y", f"-p{KEY.text}", "x.zip"],
        "bsdtar": ["bsdtar", "--passphrase", KEY.text, "-xf", "x.zip"],
    }
    subprocess.run(command[tool], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "photo").read_bytes() == PHOTOS[TIM]


@both
def test_memory_is_flat_with_a_photo_of_100_mb(key, tmp_path):
    size = 100 * 1024 * 1024
    block = os.urandom(1024 * 1024)
    digest = hashlib.sha256()
    for _number in range(100):
        digest.update(block)
    said = Metadata(timestamp=MOMENT, includes_media=True)
    with (tmp_path / "listed.zip").open("w+b") as file, Writer(file) as writer:
        if key:
            writer.encrypt(key, said)
        writer.list_photo("large.jpg", digest.hexdigest(), size)
        writer.finish(said)
    with (tmp_path / "photo").open("w+b") as file:
        if key:
            write_encrypted(file, (block for _number in range(100)), key)
        else:
            for _number in range(100):
                file.write(block)

    class OnDisk:
        def has(self, photo, key):
            return True

        def blocks(self, photo, key):
            with (tmp_path / "photo").open("rb") as file:
                if key:
                    yield from read_encrypted(file, photo.size, key)
                else:
                    yield from iter(lambda: file.read(1024 * 1024), b"")

    tracemalloc.start()
    try:
        with (
            (tmp_path / "listed.zip").open("rb") as file,
            (tmp_path / "whole.zip").open("w+b") as target,
            Archive(file, LIMITS, keys=Keys(KEY), photos=OnDisk()) as archive,
        ):
            write_whole(file, archive, target)
        assert tracemalloc.get_traced_memory()[1] < 40 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert (tmp_path / "whole.zip").stat().st_size > size

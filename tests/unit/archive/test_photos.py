"""Photos in the ZIP: what goes in comes out, and no name, size or number that is wrong passes."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tracemalloc
import zipfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backup.archive import Archive, Key, Keys, Limits, Metadata, Writer
from backup.archive.names import is_photo_name
from backup.exceptions import InvalidBackup, TooLarge
from tests.support.backups import packed, refused_by, unpacked
from tests.support.properties import examples
from tests.unit.archive.test_archive import LIMITS, MOMENT, batches
from tests.unit.archive.test_encryption import MISSING

KEY = Key.parse("K7QXM-3RPHW-ZT9AE-V4NCD-8YGBJ-N8M5X")
#: Larger than what is read at a time; empty; and what looks like a part of a ZIP.
PHOTOS = {
    "child/picture/tim.jpg": b"\xff\xd8" + bytes(range(256)) * 9000,
    "notes/images/empty.png": b"",
    "notes/images/Ünïcode 🍼.png": b"PK\1\2" * 3000,
    "readme.txt": b"not ours",
}


def write(photos=PHOTOS, key=None, limits=None, listed=(), **metadata):
    """A backup with photos. `listed`: the names of those that are in its metadata only."""
    said = Metadata(timestamp=MOMENT, includes_media=True, **metadata)
    file = io.BytesIO()
    with Writer(file, limits) as writer:
        if key:
            writer.encrypt(key, said)
        writer.add("core.note", batches([{"model": "core.note", "pk": 1, "fields": {}}]))
        for name, content in photos.items():
            assert not writer.fault_of_photo(name), name
            if name in listed:
                writer.list_photo(name, hashlib.sha256(content).hexdigest(), len(content))
            else:
                photo = writer.add_photo(name, [content[:1000], content[1000:]])
                assert photo.size == len(content)
                assert photo.sha256 == hashlib.sha256(content).hexdigest()
        writer.finish(said)
    return file


def read(file, limits=LIMITS, **options):
    """Name -> content of each photo; None where it is not in the file."""
    with Archive(file, limits, keys=Keys(KEY), **options) as archive:
        assert all(photo.name == name for name, photo in archive.metadata.photos.items())
        return {
            name: b"".join(archive.read(photo)) if archive.has_photo(photo) else None
            for name, photo in archive.metadata.photos.items()
        }


def refuse(file, error=InvalidBackup, limits=LIMITS):
    return refused_by(read, error, file, limits)


def changed(change, photos=PHOTOS):
    """`change` gets name -> bytes, and the metadata as an object."""
    contents = unpacked(write(photos))
    metadata = json.loads(contents["metadata.json"])
    change(contents, metadata)
    return packed({**contents, "metadata.json": json.dumps(metadata)})


def named(name, file=None, content=b"x"):
    """A backup with one more photo, of any name."""

    def change(contents, metadata):
        contents[file or f"media/{name}"] = content
        entry = {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        metadata["media"].append(entry)

    return changed(change)


# --- Out and in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, KEY], ids=["in clear", "encrypted"])
def test_what_is_written_is_read(key):
    file = write(key=key, warnings=["A photo is missing."])
    assert read(file) == PHOTOS
    with Archive(file, LIMITS, keys=Keys(KEY)) as archive:
        said = archive.metadata
    assert (said.version, said.includes_media, said.warnings) == ("1.2", True, ["A photo is missing."])
    assert {name: photo.size for name, photo in said.photos.items()} == {
        name: len(content) for name, content in PHOTOS.items()
    }


def test_photos_are_stored_under_their_names():
    with zipfile.ZipFile(write()) as archive:
        for name, content in PHOTOS.items():
            assert archive.read(f"media/{name}") == content
            assert archive.getinfo(f"media/{name}").compress_type == zipfile.ZIP_STORED


def test_each_photo_is_one_line_of_the_metadata():
    text = unpacked(write())["metadata.json"].decode()
    for name in PHOTOS:
        (line,) = (line for line in text.splitlines() if name in line)
        assert json.loads(line.strip().rstrip(","))["name"] == name


def test_names_in_an_encrypted_file_tell_nothing():
    file = write(key=KEY)
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.startswith("media/")]
    assert names == ["media/0001", "media/0002", "media/0003", "media/0004"]
    for name in PHOTOS:
        assert name.encode() not in file.getvalue()


def test_an_encrypted_file_that_was_packed_again_in_clear_is_read():
    contents = {}
    with Archive(write(key=KEY), LIMITS, keys=Keys(KEY)) as archive:
        for name, info in archive._entries.items():
            with archive._open(info) as file:
                contents[name] = b"".join(iter(lambda file=file: file.read(10**6), b""))
    assert read(packed(contents)) == PHOTOS


def test_a_backup_without_photos_is_as_it_was():
    file = write({})
    with Archive(file, LIMITS) as archive:
        assert archive.metadata.version == "1.1"
        assert archive.metadata.photos == {}
        assert archive.metadata.includes_media
    assert "media" not in json.loads(unpacked(file)["metadata.json"])


@pytest.mark.parametrize("key", [None, KEY], ids=["in clear", "encrypted"])
def test_a_kept_backup_lists_photos_and_holds_none(key):
    file = write(key=key, listed=PHOTOS)
    assert read(file) == dict.fromkeys(PHOTOS)
    assert not any(name.startswith("media/") for name in zipfile.ZipFile(file).namelist())


def test_some_photos_are_none_of_both():
    """It is a file from which somebody took a photo."""
    file = write(listed=["readme.txt"])
    assert "media/readme.txt" in refuse(file)
    assert read(file, edited=True) == {**PHOTOS, "readme.txt": None}


def test_an_edited_file_may_have_other_photos():
    file = changed(lambda contents, metadata: contents.update({"media/readme.txt": b"other"}))
    refuse(file)
    assert read(file, edited=True) == {**PHOTOS, "readme.txt": b"other"}


# --- Names ------------------------------------------------------------------------------------------------

NO_NAMES = [
    "",
    "/",
    "/etc/passwd",
    "../evil.jpg",
    "child/../../evil.jpg",
    "child/./tim.jpg",
    "child//tim.jpg",
    "child/",
    ".",
    "..",
    "C:/evil.jpg",
    "c:evil.jpg",
    "child\\evil.jpg",
    "..\\evil.jpg",
    "a\0b.jpg",
    "a\nb.jpg",
    "a\x1b[31mb.jpg",
    "a\x85b.jpg",
    "a\u2028b.jpg",
    "a" * 401,
    "ä" * 201,
    "child/.DS_Store",
    "Thumbs.db",
    "child/._tim.jpg",
]


@pytest.mark.parametrize("name", NO_NAMES, ids=repr)
def test_a_name_that_is_none_is_refused(name):
    assert not is_photo_name(name)
    with Writer(io.BytesIO()) as writer:
        assert writer.fault_of_photo(name)
    file = "media/x" if "\0" in name else None
    assert "no name" in refuse(named(name, file))


def test_half_of_a_surrogate_pair_is_no_name():
    assert not is_photo_name("a\ud800.jpg")


@pytest.mark.parametrize(
    "name",
    ["a", "a.b/c.d", "a b.jpg", "é", "10:30.jpg", "...", "a" * 400, "~", "-x", "a'b", "__MACOSX/tim.jpg"],
)
def test_a_name_that_is_one_is_taken(name):
    assert read(named(name))[name] == b"x"


@examples(300)
@given(st.text(max_size=8) | st.text("./\\:aA\0\n ", max_size=8))
@example("a/b")
def test_a_name_that_is_taken_stays_below_the_folder(name):
    if is_photo_name(name):
        assert os.path.normpath(os.path.join("/media", name)) == f"/media/{name}"
        assert read(named(name))[name] == b"x"


@examples(100)
@given(
    st.lists(
        st.tuples(st.text("aA./\\:é\u0301\n", max_size=6) | st.text(max_size=300), st.binary(max_size=50)),
        max_size=8,
    ),
    st.booleans(),
)
def test_what_is_written_can_be_read(named, is_encrypted):
    """Whatever the host's files are called: what the format does not take is not written."""
    few = Limits(uncompressed=10**9, members=20, photos=5, metadata=3000, directory=3000)
    file, taken = io.BytesIO(), {}
    said = Metadata(timestamp=MOMENT, includes_media=True)
    with Writer(file, few) as writer:
        if is_encrypted:
            writer.encrypt(KEY, said)
        writer.add("media.a", [])
        for name, content in named:
            if not writer.fault_of_photo(name):
                writer.add_photo(name, [content])
                taken[name] = content
        written = writer.finish(said)
    assert read(file, few) == taken
    with Archive(file, few, keys=Keys(KEY)) as archive:
        assert archive.metadata == written


def test_names_that_are_the_same_to_some_file_systems_are_two():
    photos = {"a.jpg": b"1", "A.jpg": b"2", "\u00e9.jpg": b"3", "e\u0301.jpg": b"4"}
    assert read(write(photos)) == photos


def test_no_name_comes_twice():
    def change(contents, metadata):
        metadata["media"].append(metadata["media"][0])

    assert "twice" in refuse(changed(change))
    with Writer(io.BytesIO()) as writer:
        writer.add_photo("a.jpg", [b"x"])
        assert writer.fault_of_photo("a.jpg")


def test_a_photo_is_not_called_what_records_are():
    with Writer(io.BytesIO()) as writer:
        writer.add("media.photo", [])
        assert writer.fault_of_photo("photo.json")
    assert "media" in refuse(
        changed(lambda c, m: m["models"].update({"media.a": {**m["models"]["core.note"], "file": "media/a.json"}}),
                {"a.json": b"x"})
    )  # fmt: skip


# --- What else may be wrong -------------------------------------------------------------------------------


def entry(**values):
    return changed(lambda contents, metadata: metadata["media"][0].update(values))


@pytest.mark.parametrize(
    "values",
    [
        {"name": None},
        {"name": 7},
        {"name": ["x"]},
        {"size": -1},
        {"size": 2**63},
        {"size": True},
        {"size": 1.0},
        {"size": "1"},
        {"sha256": ""},
        {"sha256": None},
        {"sha256": "F" * 64},
        {"sha256": "../" + "0" * 61},
    ],
    ids=str,
)
def test_an_entry_that_is_wrong_is_refused(values):
    assert "“media”" in refuse(entry(**values))


@pytest.mark.parametrize("media", [{}, 7, "x", None, [7], [None], [[]], [{}]], ids=repr)
def test_a_list_that_is_none_is_refused(media):
    assert "“media”" in refuse(changed(lambda contents, metadata: metadata.update(media=media)))


@pytest.mark.parametrize(
    "warnings", [{}, "x", [7], ["x" * 1001], ["x"] * 201], ids=lambda value: repr(value)[:20]
)
def test_warnings_that_are_none_are_refused(warnings):
    assert "“warnings”" in refuse(changed(lambda contents, metadata: metadata.update(warnings=warnings)))


def test_photos_of_a_file_that_includes_none_are_refused():
    assert "includes_media" in refuse(changed(lambda c, m: m.update(includes_media=False)))


def test_another_size_is_refused():
    assert "readme.txt" in refuse(changed(lambda c, m: c.update({"media/readme.txt": b"longer than it was"})))


def test_other_content_of_the_same_size_is_refused():
    assert "checksum" in refuse(changed(lambda c, m: c.update({"media/readme.txt": b"not OURS"})))


def test_a_photo_that_nobody_lists_is_refused():
    assert "media/more.jpg" in refuse(changed(lambda c, m: c.update({"media/more.jpg": b"x"})))


def test_a_file_of_an_older_version_has_no_photos():
    assert "does not list" in refuse(changed(lambda c, m: m.update(version="1.1")))


# --- Limits -----------------------------------------------------------------------------------------------


def limits(photos):
    return Limits(uncompressed=10**9, members=20, photos=photos, metadata=3000, directory=3000)


def test_as_many_photos_as_may_be():
    photos = {f"{'x' * 380}/{number}": b"x" for number in range(50)}
    assert read(write(photos, limits=limits(50)), limits(50)) == photos
    with Writer(io.BytesIO(), limits(1)) as writer:
        writer.add_photo("a", [b""])
        assert writer.fault_of_photo("b")


def test_too_many_photos_are_refused():
    assert "BACKUP_MAX_PHOTOS" in refuse(write(listed=PHOTOS), TooLarge, limits(3))
    assert "3" in refuse(write({str(n): b"" for n in range(30)}), TooLarge, limits(3))


def test_photos_are_no_way_to_more_of_anything_else():
    few = limits(1000)
    empty = {f"core/{n}.json": b"" for n in range(30)}
    assert "members" in refuse(changed(lambda c, m: c.update(empty)), TooLarge, few)
    assert "too long" in refuse(changed(lambda c, m: m.update(more="x" * 50_000)), InvalidBackup, few)


def test_metadata_is_only_parsed_if_it_is_no_longer_than_its_photos_explain():
    """Parsed, texts with one wide letter each take many times as much memory."""
    more = [f"🍼{number:035}" for number in range(150_000)]
    file = changed(lambda c, m: m.update(more=more))
    tracemalloc.start()
    try:
        assert "too long" in refuse(file, InvalidBackup, Limits(uncompressed=10**9))
        assert tracemalloc.get_traced_memory()[1] < 25 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_table_of_contents_with_too_many_entries_takes_no_memory():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("metadata.json", "{}")
        info = zipfile.ZipInfo("x")
        archive.filelist += [info] * 300_000
        info.header_offset = info.CRC = 0
    tracemalloc.start()
    try:
        assert "members" in refuse(file, TooLarge)
        assert tracemalloc.get_traced_memory()[1] < 50 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_metadata_with_too_many_values_takes_no_memory():
    media = ",".join(["{}"] * 9_000_000)
    file = packed(
        {"metadata.json": f'{{"version": "1.2", "timestamp": "2026-11-23T14:30:22Z", "media": [{media}]}}'}
    )
    tracemalloc.start()
    try:
        refuse(file)
        assert tracemalloc.get_traced_memory()[1] < 120 * 1024 * 1024
    finally:
        tracemalloc.stop()


# --- Other tools ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, KEY], ids=["in clear", "encrypted"])
@pytest.mark.parametrize("tool", ["7z", "bsdtar"])
def test_other_tools_open_it(tool, key, tmp_path):
    if shutil.which(tool) is None:
        MISSING(f"no {tool}")
    (tmp_path / "x.zip").write_bytes(write(key=key).getvalue())
    command = {
        "7z": ["7z", "x", "-y", f"-p{KEY.text}", "x.zip"],
        "bsdtar": ["bsdtar", "--passphrase", KEY.text, "-xf", "x.zip"],
    }
    subprocess.run(command[tool], cwd=tmp_path, check=True, capture_output=True)
    for number, (name, content) in enumerate(PHOTOS.items(), 1):
        assert (tmp_path / "media" / (f"{number:04}" if key else name)).read_bytes() == content

"""Encrypted backups: other tools open them, and they are trusted no more than others."""

import copy
import hashlib
import io
import json
import os
import random
import shutil
import struct
import subprocess
import tracemalloc
import zipfile

import pytest

from backup.archive import Archive, Key, Keys, Limits, Metadata, Writer, encryption
from backup.archive.key import ALPHABET
from backup.exceptions import EncryptionUnavailable, InvalidBackup, KeyNeeded, TooLarge, WrongKey
from tests.support.backups import packed, refused_by
from tests.unit.archive.test_archive import LIMITS, MOMENT, RECORDS, batches, read, write

KEY = Key.parse("K7QXM-3RPHW-ZT9AE-V4NCD-8YGBJ-N8M5X")
OTHER = Key.make()
MISSING = pytest.fail if os.environ.get("BACKUP_TEST_STRICT") == "1" else pytest.skip


def encrypted(records=RECORDS, key=KEY, **metadata):
    file = io.BytesIO()
    with Writer(file) as writer:
        writer.encrypt(key, Metadata(timestamp=MOMENT, **metadata))
        for label, rows in records.items():
            writer.add(label, batches(rows[:2], rows[2:]))
        writer.finish(Metadata(timestamp=MOMENT, **metadata))
    return file


def keys(given=None, *others):
    return Keys(given, lambda: others)


def read_with(file, given=KEY, *others, limits=LIMITS):
    with Archive(file, limits, keys=keys(given, *others)) as archive:
        return {
            label: [record for batch in archive.records(label, True) for record in batch]
            for label in archive.metadata.models
        }


def refused_to_read(file, error=InvalidBackup, given=KEY, *others):
    if isinstance(file, bytes):
        file = io.BytesIO(file)
    message = refused_by(read_with, error, file, given, *others)
    assert KEY.text not in message
    return message


# -- the key ---


def test_a_key_is_what_the_kit_says():
    made = {Key.make() for _ in range(200)}
    assert len({key.text for key in made}) == 200
    for key in made:
        groups = key.text.split("-")
        assert [len(group) for group in groups] == [5] * 6
        assert {*"".join(groups)} <= {*ALPHABET}
        assert len(key.id) == 4
        assert key.id.isalpha()
        assert key.id.isupper()
        assert Key.parse(key.text) == key
    assert not {*"ILO01"} & {*ALPHABET}


@pytest.mark.parametrize(
    "typed",
    [
        KEY.text.lower(),
        KEY.text.replace("-", " "),
        f"  {KEY.text}\n",
        KEY.text.replace("-", ""),
        KEY.text.replace("-", "–"),
    ],
)
def test_a_key_is_forgiven_how_it_is_typed(typed):
    assert Key.parse(typed) == KEY


def test_every_wrong_sign_in_a_key_is_found():
    for place, sign in enumerate(KEY.text):
        if sign != "-":
            wrong = KEY.text[:place] + ("A" if sign != "A" else "B") + KEY.text[place + 1 :]
            with pytest.raises(WrongKey):
                Key.parse(wrong)
    for typed in (
        "",
        "hunter2",
        KEY.text[:-1],
        KEY.text + "A",
        KEY.text.replace(KEY.text[0], "0", 1),
        "ſ" * 30,
    ):
        with pytest.raises(WrongKey):
            Key.parse(typed)


def test_a_key_is_shown_by_no_error_report():
    assert KEY.text not in repr(KEY)
    assert KEY.text not in repr(Keys(KEY))


# -- the file ---


def test_what_goes_in_comes_out():
    file = encrypted(instance="the-site", label="a label")
    assert read_with(file) == RECORDS
    with Archive(file, LIMITS, keys=keys(None, OTHER, KEY)) as archive:
        assert archive.key == KEY
        assert archive.metadata.version == "1.2"
        assert archive.metadata.label == "a label"
        (readme,) = archive.metadata.members["readme"].values()
        text = b"".join(archive.read(readme))
    with zipfile.ZipFile(file) as archive:
        first, *others = archive.infolist()
        assert archive.read("README.txt") == archive.comment == text
    assert (first.filename, first.header_offset, first.flag_bits & 1) == ("README.txt", 0, 0)
    assert {info.CRC for info in others} == {0}
    assert all(info.flag_bits & 1 and info.compress_type == 99 for info in others)
    assert "the-site" in text.decode()
    assert KEY.id in text.decode()
    for secret in (KEY.text, "a label", "sha256", "timestamp"):
        assert secret.encode() not in file.getvalue()


def test_no_two_members_are_encrypted_alike():
    """The same text and the same key, and yet nothing tells that two members, or two files, are the same."""
    texts = []
    for file in (encrypted(), encrypted()):
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist()[1:]:
                with archive.open(encryption.raw(info)) as member:
                    texts.append(member.read(16))
    assert len({*texts}) == len(texts) == 8


def test_a_file_that_is_not_encrypted_needs_no_key():
    file = write(RECORDS)
    assert read(file) == RECORDS
    with Archive(file, LIMITS, keys=Keys(OTHER, lambda: pytest.fail("asked"))) as archive:
        assert archive.key is None
        assert not archive.is_encrypted


def run(*command, **options):
    if not shutil.which(command[0]):
        MISSING(f"there is no {command[0]}")
    return subprocess.run(command, check=True, capture_output=True, **options).stdout


@pytest.fixture
def on_disk(tmp_path):
    path = tmp_path / "backup.zip"
    path.write_bytes(encrypted().getvalue())
    return path


@pytest.mark.parametrize("tool", ["7z", "bsdtar"])
def test_other_tools_open_it(tool, on_disk, tmp_path):
    """With nothing but the key as it is printed."""
    into = tmp_path / "unpacked"
    into.mkdir()
    if tool == "7z":
        run("7z", "x", f"-p{KEY.text}", f"-o{into}", str(on_disk))
    else:
        run("bsdtar", "--passphrase", KEY.text, "-xf", str(on_disk), "-C", str(into))
    assert json.loads((into / "core/note.json").read_text(encoding="utf-8")) == RECORDS["core.note"]
    said = json.loads((into / "metadata.json").read_text())
    for member in [*said["models"].values(), said["readme"]]:
        assert hashlib.sha256((into / member["file"]).read_bytes()).hexdigest() == member["sha256"]
    # What was unpacked is a backup, and so is what is packed again: in clear, and encrypted by the other tool.
    assert (
        read(packed({str(path.relative_to(into)): path.read_bytes() for path in into.rglob("*.*")}))
        == RECORDS
    )
    if tool == "7z":
        again = tmp_path / "again.zip"
        run("7z", "a", "-tzip", "-mem=AES256", f"-p{KEY.text}", str(again), ".", cwd=into)
        assert read_with(io.BytesIO(again.read_bytes())) == RECORDS


# -- keys that do not fit ---


def test_it_says_which_key_it_needs():
    with pytest.raises(KeyNeeded) as caught:
        read_with(encrypted(), None)
    assert (type(caught.value), caught.value.code, caught.value.key_id) == (KeyNeeded, "key_needed", KEY.id)
    assert KEY.id in caught.value.message
    with pytest.raises(KeyNeeded) as caught:
        read_with(encrypted(), None, OTHER)
    assert caught.value.code == "key_needed"
    with pytest.raises(WrongKey) as caught:
        read_with(encrypted(), OTHER)
    assert (caught.value.code, caught.value.key_id) == ("wrong_key", KEY.id)
    assert read_with(encrypted(), OTHER, OTHER, KEY) == RECORDS


@pytest.mark.parametrize("folder", ["", "unpacked/"])
def test_a_file_that_another_program_encrypted(folder):
    """By a password of somebody's own: no key opens it. It names none either, but may be packed with one of ours."""
    members = {f"{folder}{name}": data for name, data in plain(encrypted()).items()}
    for given in (None, OTHER):
        message = refused_to_read(sealed(members), InvalidBackup, given, OTHER)
        assert "encrypted with another program" in message
        assert "?" not in message
    assert read_with(sealed(members)) == read_with(sealed(members), None, KEY) == RECORDS


@pytest.mark.parametrize("folder", ["", "unpacked/"])
def test_a_file_without_its_comment_names_its_key(folder):
    """Some tools drop the comment, or put a folder around everything."""
    members = plain(encrypted())
    readme = members.pop("README.txt")
    file = sealed({f"{folder}{name}": data for name, data in members.items()})
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(f"{folder}README.txt", readme)
    for given, error in ((None, KeyNeeded), (OTHER, WrongKey)):
        assert KEY.id in refused_to_read(file, error, given)
    assert read_with(file) == RECORDS


def test_a_file_that_names_no_key_any_more_is_opened_by_its_key():
    """Its comment is cut, and README.txt, which is the first, damaged."""
    file = encrypted()
    data = bytearray(file.getvalue()[: 1 - len(zipfile.ZipFile(file).comment)])
    data[30 + len("README.txt") + 100] ^= 1
    assert read_with(io.BytesIO(data)) == read_with(io.BytesIO(data), None, KEY) == RECORDS
    assert "README.txt” in the backup is damaged" in refused_to_read(bytes(data), InvalidBackup, None)


def directory_of(file):
    with zipfile.ZipFile(file) as archive:
        return {info.filename: info for info in archive.infolist()}


def start_of(file, name):
    """Where the salt of a member lies."""
    info = directory_of(file)[name]
    name_length, extra_length = struct.unpack_from("<HH", file.getvalue(), info.header_offset + 26)
    return info.header_offset + 30 + name_length + extra_length


def test_a_wrong_key_that_fits_the_check_bytes_by_chance():
    file = encrypted()
    data = bytearray(file.getvalue())
    start = start_of(file, "metadata.json")
    _cipher, _code, check = encryption._keys_for(OTHER, bytes(data[start : start + 16]))
    data[start + 16 : start + 18] = check
    assert KEY.id in refused_to_read(bytes(data), WrongKey, OTHER)
    refused_to_read(bytes(data), KeyNeeded, None, OTHER)
    assert "damaged" in refused_to_read(bytes(data))


# -- hostile files ---


def test_whatever_byte_is_changed():
    """It is refused, or what is read is what was written."""
    file = encrypted(RECORDS | {"core.note": RECORDS["core.note"][:3]})
    data = file.getvalue()
    chance = random.Random(1)
    read_all = 0
    for place in chance.sample(range(len(data)), 150):
        changed = bytearray(data)
        changed[place] ^= 1 << chance.randrange(8)
        try:
            found = read_with(io.BytesIO(bytes(changed)))
        except (InvalidBackup, KeyNeeded):
            pass
        else:
            read_all += 1
            assert found == RECORDS | {"core.note": RECORDS["core.note"][:3]}
    assert read_all < 150


def test_a_member_that_was_changed_is_damaged():
    for name in ("core/note.json", "metadata.json"):
        file = encrypted()
        data = bytearray(file.getvalue())
        data[start_of(file, name) + 30] ^= 1
        assert "damaged" in refused_to_read(bytes(data))


@pytest.mark.parametrize("name", ["core/note.json", "metadata.json"])
@pytest.mark.parametrize("left", [0, 10, 20])
def test_a_member_of_which_only_the_beginning_is_left_is_damaged(name, left):
    file = encrypted()
    data = bytearray(file.getvalue())
    struct.pack_into("<I", data, place_of(data, name) + 20, left)
    assert "damaged" in refused_to_read(bytes(data))


def test_a_file_that_was_cut():
    """Its comment may be cut, since it is in README.txt, too; nothing else may be."""
    file = encrypted()
    data, comment = file.getvalue(), len(zipfile.ZipFile(file).comment)
    assert read_with(io.BytesIO(data[: 1 - comment])) == RECORDS
    with pytest.raises(KeyNeeded) as caught:
        read_with(io.BytesIO(data[: 1 - comment]), None)
    assert caught.value.key_id == KEY.id
    for left in (1, 10, 50, 100, 1000, 2000):
        refused_to_read(data[: -comment - left])
        refused_to_read(data[:left])


def test_members_that_were_swapped():
    """Each of them is authentic, but not the one that the metadata speaks of."""
    data = encrypted({"core.aaaa": RECORDS["core.note"], "core.bbbb": RECORDS["auth.user"]}).getvalue()
    swapped = data
    for name, other in (
        (b"core/aaaa", b"core/????"),
        (b"core/bbbb", b"core/aaaa"),
        (b"core/????", b"core/bbbb"),
    ):
        swapped = swapped.replace(name, other)
    assert swapped != data
    assert "checksum" in refused_to_read(swapped)


def place_of(data, name):
    """Where the entry of a member begins in the table of contents."""
    return data.rindex(name.encode(), 0, data.rindex(b"PK\x05\x06")) - 46


@pytest.mark.parametrize("name", ["core/note.json", "metadata.json"])
@pytest.mark.parametrize("change", [-1, 1, 1000, -100])
def test_sizes_that_lie(name, change):
    file = encrypted()
    info = directory_of(file)[name]
    for offset, size in ((20, info.compress_size), (24, info.file_size)):
        data = bytearray(file.getvalue())
        place = place_of(data, name) + offset
        assert struct.unpack_from("<L", data, place) == (size,)
        struct.pack_into("<L", data, place, size + change)
        refused_to_read(bytes(data))


def sealed(members, key=KEY, change=lambda info: None):
    """A ZIP of these, each encrypted: name -> content. `change`: what to do to an entry of the table of contents."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            info = encryption.entry(name)
            with archive.open(info, "w") as member:
                encryption.encrypt(member, info, key, member._compressor)
                for start in range(0, len(content), 1 << 20):
                    member.write(content[start : start + (1 << 20)])
                encryption.end(member)
            change(info)
    file.seek(0)
    return file


def plain(file):
    """The content of an encrypted backup: name -> bytes."""
    with Archive(file, LIMITS, keys=Keys(KEY)) as archive:
        found = {}
        for name, info in archive._entries.items():
            with archive._open(info) as member:
                found[name] = b"".join(iter(lambda read=member.read: read(1 << 16), b""))
        return found


def test_a_bomb_behind_the_encryption():
    members = plain(encrypted({"core.note": RECORDS["core.note"][:2]}))
    bomb = b"[" + b" " * (100 << 20) + b"]"

    def small(info):
        info.file_size = min(info.file_size, 1000)

    for file, error in (
        (sealed({**members, "core/note.json": bomb}), TooLarge),
        (sealed({**members, "core/note.json": bomb}, change=small), InvalidBackup),
        (sealed({**members, "metadata.json": bomb}), InvalidBackup),
        (sealed({**members, "metadata.json": bomb}, change=small), InvalidBackup),
    ):
        tracemalloc.start()
        try:
            refused_to_read(file, error)
            assert tracemalloc.get_traced_memory()[1] < 40 << 20  # what the metadata may take with photos
        finally:
            tracemalloc.stop()


def test_all_members_are_encrypted_or_none():
    members = plain(encrypted())
    file = sealed({name: data for name, data in members.items() if name != "auth/user.json"})
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("auth/user.json", members["auth/user.json"])
    assert "auth/user.json" in refused_to_read(file)
    file = sealed({name: data for name, data in members.items() if name != "metadata.json"})
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("metadata.json", members["metadata.json"])
    assert "metadata.json" in refused_to_read(file)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (b"", "encrypted"),
        (b"\x01\x99\x07\x00\x02\x00AE\x01\x08\x00", "encrypted"),  # AES-128
        (b"\x01\x99\x07\x00\x03\x00AE\x03\x08\x00", "encrypted"),  # AE-3
        (b"\x01\x99\x07\x00\x02\x00XX\x03\x08\x00", "encrypted"),
        (b"\x01\x99\x07\x00\x02\x00AE\x03\x0c\x00", "compressed"),  # bzip2
        (b"\x01\x99\x06\x00\x02\x00AE\x03\x08", "encrypted"),
        (b"\x01\x99\x07\x00\x02\x00AE\x03\x08\x00" * 2, "encrypted"),
    ],
)
def test_other_ways_to_encrypt(extra, reason):
    def change(info):
        info.extra = extra

    message = refused_to_read(sealed({"metadata.json": b"{}"}, change=change))
    assert f"{reason} in a way that backups do not use" in message


def test_a_readme_that_was_changed_is_found_by_who_reads_it():
    members = plain(encrypted())
    readme = members.pop("README.txt")
    file = sealed(members)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("README.txt", readme.replace(b"Without the key nobody", b"Send us your key, then"))
    with Archive(file, LIMITS, keys=Keys(KEY)) as archive:
        (readme,) = archive.metadata.members["readme"].values()
        with pytest.raises(InvalidBackup):
            list(archive.read(readme))


def test_memory_is_flat():
    rows = [{"model": "core.note", "pk": n, "fields": {"note": os.urandom(2000).hex()}} for n in range(100)]
    file = io.BytesIO()
    tracemalloc.start()
    try:
        with Writer(file) as writer:
            writer.encrypt(KEY, Metadata(timestamp=MOMENT))
            writer.add("core.note", (batch for _ in range(100) for batch in batches(rows)))
            writer.finish(Metadata(timestamp=MOMENT))
        written = tracemalloc.get_traced_memory()[1] - len(file.getvalue())
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        with Archive(file, Limits(), keys=Keys(KEY)) as archive:
            member = archive.metadata.models["core.note"]
            size = sum(map(len, archive.read(member)))
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert size > 40_000_000
    assert written < 40 << 20
    assert peak < 12 << 20


def test_without_the_library(monkeypatch):
    file = encrypted()
    monkeypatch.setattr(encryption, "AES", None)
    assert "babybuddy-backup[encryption]" in refused_to_read(file, EncryptionUnavailable)
    with pytest.raises(EncryptionUnavailable), Writer(io.BytesIO()) as writer:
        writer.encrypt(KEY, Metadata(timestamp=MOMENT))
    assert read(write(RECORDS)) == RECORDS


def test_the_counter_is_that_of_winzip():
    """Little-endian, and from one: AES-CTR as others have it would be decrypted by us alone."""
    from Cryptodome.Cipher import AES

    salt = bytes(16)
    cipher, _code, _check = encryption._keys_for(KEY, salt)
    derived = hashlib.pbkdf2_hmac("sha1", KEY.text.encode(), salt, 1000, 66)
    block = AES.new(derived[:32], AES.MODE_ECB)
    expected = b"".join(block.encrypt(struct.pack("<QQ", number, 0)) for number in range(1, 600))
    assert copy.copy(cipher).encrypt(bytes(len(expected))) == expected

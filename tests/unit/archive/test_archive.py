"""The ZIP: what goes in comes out, and nothing that is wrong with a file passes, nor ends in another error.

Files that were made to do harm are in `test_hostile.py`.
"""

import copy
import datetime as dt
import hashlib
import io
import json
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backup.archive import Archive, Limits, Metadata, Writer, lines_of, parse_metadata, text_of
from backup.exceptions import InvalidBackup
from tests.support.backups import lines, packed, unpacked
from tests.support.properties import examples

LIMITS = Limits(uncompressed=64 * 1024 * 1024)
MOMENT = dt.datetime(2026, 11, 23, 14, 30, 22, 123456, tzinfo=dt.timezone.utc)
RECORDS = {
    "auth.user": [{"model": "auth.user", "pk": n, "fields": {"username": f"user {n}"}} for n in range(3)],
    "core.child": [],
    "core.note": [
        {"model": "core.note", "pk": n, "fields": {"note": text}}
        for n, text in enumerate(
            ["", "},\n{", '"]', "\\", "\u2028", "שלום", "🍼" * 3000, "],[", "\n]\n", ",\n"]
        )
    ],
}


def batches(*parts):
    return [(len(part), b",\n".join(map(text_of, part))) for part in parts if part]


def write(records, **metadata):
    file = io.BytesIO()
    with Writer(file) as writer:
        for label, rows in records.items():
            writer.add(label, f"{label.replace('.', '/')}.json", batches(rows[:2], rows[2:]))
        writer.finish(Metadata(timestamp=MOMENT, **metadata))
    return file


def read(file, limits=LIMITS):
    with Archive(file, limits) as archive:
        return {
            label: [record for batch in archive.records(label, True) for record in batch]
            for label in archive.metadata.models
        }


def test_a_value_that_looks_like_the_next_record():
    nested = {"model": "zoo.specimen", "pk": 1, "fields": {}}
    records = [{**nested, "pk": n, "fields": {"json": [nested, nested], "big": 10**n}} for n in range(30)]
    file = write({"zoo.specimen": records})
    assert read(file) == {"zoo.specimen": records}
    (text,) = (text for name, text in unpacked(file).items() if name == "zoo/specimen.json")
    assert len(text.splitlines()) == 2 + len(records)


def read_quickly(file, limits=LIMITS):
    with Archive(file, limits) as archive:
        for label in archive.metadata.models:
            for _ in archive.records(label):
                pass


def refuse(file, error=InvalidBackup, limits=LIMITS):
    """What is said of a file that is no good: one sentence."""
    if isinstance(file, bytes):
        file = io.BytesIO(file)
    messages = []
    for reader in (read, read_quickly):
        with pytest.raises(InvalidBackup) as caught:
            reader(file, limits)
        messages.append(caught.value.message)
        assert type(caught.value) is error
    assert messages[0] == messages[1]
    message = messages[0]
    assert message
    assert message[-1] == "."
    assert len(message) < 400
    assert "\n" not in message
    assert message.isprintable()
    return message


def repacked(change):
    """A backup whose members were changed: `change` gets name -> bytes, and the metadata as an object."""
    members = unpacked(write(RECORDS))
    metadata = json.loads(members["metadata.json"])
    change(members, metadata)
    if "metadata.json" in members:
        members["metadata.json"] = json.dumps(metadata).encode()
    return packed(members)


def with_content(data, count=None, **other):
    """A backup whose note.json is this, the checksum right."""

    def change(members, metadata):
        members["core/note.json"] = data
        metadata["models"]["core.note"]["sha256"] = hashlib.sha256(data).hexdigest()
        if count is not None:
            metadata["total_records"] += count - metadata["models"]["core.note"]["records"]
            metadata["models"]["core.note"]["records"] = count

    return repacked(change)


# --- Out and in -------------------------------------------------------------------------------------------


def test_what_is_written_is_read():
    metadata = {
        "timezone": "Europe/Berlin",
        "created_by": "Änne",
        "label": "✓",
        "babybuddy_version": "2.10.0",
        "django_version": "5.2",
        "database_engine": "sqlite",
        "migrations": {"core": ["0036_medication"], "auth": []},
    }
    file = write(RECORDS, **metadata)
    assert read(file) == RECORDS
    with Archive(file, LIMITS) as archive:
        said = archive.metadata
    assert {name: getattr(said, name) for name in metadata} == metadata
    assert said.timestamp == MOMENT
    assert (said.version, said.models_count, said.total_records) == ("1.1", 3, 13)
    assert {label: member.records for label, member in said.models.items()} == {
        label: len(rows) for label, rows in RECORDS.items()
    }
    assert parse_metadata(said.as_json()) == said


def test_without_the_fast_deflate_the_standard_one_does(monkeypatch):
    monkeypatch.setattr("backup.archive.reader.isal_zlib", None)
    monkeypatch.setattr("backup.archive.writer.isal_zlib", None)
    assert read(write(RECORDS)) == RECORDS


def test_records_come_in_batches_and_the_file_stays_open():
    file = write(RECORDS)
    with Archive(file, LIMITS) as archive:
        batches = list(archive.records("core.note"))
        assert [record for batch in batches for record in batch] == RECORDS["core.note"]
    assert not file.closed


def test_a_file_without_its_end_is_no_backup():
    file = io.BytesIO()
    with Writer(file) as writer:
        writer.add("core.note", "core/note.json", batches(RECORDS["core.note"]))
    assert "metadata.json" in refuse(file)


def test_a_disk_that_is_full_is_an_error_of_the_disk():
    class Full(io.BytesIO):
        def write(self, data):
            if self.tell() > 100_000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    noise = random.Random(1)
    large = batches(*([{"x": noise.randbytes(300_000).hex()}] for _ in range(20)))
    with pytest.raises(OSError, match="No space"), Writer(Full()) as writer:
        writer.add("core.note", "core/note.json", large)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=8,
)
ANY_RECORDS = st.lists(
    st.fixed_dictionaries(
        {"model": st.just("core.note"), "pk": VALUES, "fields": st.dictionaries(TEXT, VALUES)}
    ),
    max_size=6,
)


def same(one, other):
    """Equal, and of the same types: True is not 1, and 1 is not 1.0."""
    return repr(one) == repr(other)


#: Texts that are full of what tells values apart, and values of which some hold others.
COLUMNS = st.lists(
    st.text(',"[]{}\\ \n1', max_size=4) | st.none() | st.just(["core", "child"]), min_size=1
) | st.lists(VALUES, min_size=1)


@examples(200)
@given(COLUMNS)
@example([","])
@example(["a,b", '",', None, ",", '","'])
@example(["a,b", ["c"]])
@example([["a,b"], "c"])
@example(["a,b", {"c": 1}])
@example(["a,b", [], {}])
@example(["a,b", 2**70])
def test_many_values_at_once_are_written_as_each_is(column):
    """By the standard library, which knows no shortcuts."""
    written = lines_of([b'{"pk":', b',"value":', b"}"], [range(len(column)), column])
    assert same(
        [json.loads(line) for line in written.split(b",\n")],
        [{"pk": pk, "value": value} for pk, value in enumerate(column)],
    )


@examples(60)
@given(ANY_RECORDS)
def test_any_records_come_back(records):
    assert same(read(write({"core.note": records}))["core.note"], records)


@examples(60)
@given(ANY_RECORDS, st.sampled_from([None, 2, "\t"]), st.booleans())
def test_any_records_of_version_1_0_come_back(records, indent, escaped):
    text = json.dumps(records, indent=indent, ensure_ascii=escaped)
    assert same(read(version_1_0({"core/note.json": text}))["core.note"], records)


# --- Version 1.0 ------------------------------------------------------------------------------------------


def version_1_0(members, **metadata):
    metadata = {"version": "1.0", "timestamp": "2025-01-02T03:04:05+00:00", **metadata}
    return packed({"metadata.json": json.dumps(metadata), **members})


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(RECORDS["core.note"]),
        json.dumps(RECORDS["core.note"], indent=2),
        json.dumps(RECORDS["core.note"], indent=4, ensure_ascii=False),
        json.dumps(RECORDS["core.note"], separators=(",", ":")),
        lines(RECORDS["core.note"]).decode(),
        "\r\n ".join(["", "[", ",".join(map(json.dumps, RECORDS["core.note"])), "]", ""]),
    ],
    ids=["one line", "indented", "by four", "tight", "one a line", "white space"],
)
def test_version_1_0_in_any_layout(text):
    assert read(version_1_0({"core/note.json": text})) == {"core.note": RECORDS["core.note"]}


def test_version_1_0_in_large_blocks():
    """Records that lie across the blocks that are read at a time, with everything in them that could mislead."""
    text = '{"[\\"}]' * 30_000 + "\\"
    records = [{"model": "core.note", "pk": n, "fields": {"note": text[n:]}} for n in range(7)]
    for indent in (None, 1):
        file = version_1_0({"core/note.json": json.dumps(records, indent=indent)})
        assert read(file)["core.note"] == records


@pytest.mark.parametrize("text", ["[]", "[ ]\n", "\n[\n]"])
def test_version_1_0_without_records(text):
    assert read(version_1_0({"core/note.json": text})) == {"core.note": []}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "]",
        "{}",
        "7",
        '"x"',
        "null",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1",
        "1]",
        "[1]]",
        "[1][2]",
        "[1] x",
        "[{]",
        '["x]',
        "[1,,2]",
        "[}]",
        "[nul]",
    ],
)
def test_version_1_0_that_is_no_list(text):
    refuse(version_1_0({"core/note.json": text}))


@pytest.mark.parametrize(
    "name",
    [
        "note.json",
        "core/note.txt",
        "core/a/note.json",
        "../core/note.json",
        "/core/note.json",
        "core\\note.json",
    ],
)
def test_version_1_0_with_names_of_no_model(name):
    refuse(version_1_0({name: "[]"}))


# --- Damage -----------------------------------------------------------------------------------------------


def test_truncated_files():
    data = write(RECORDS).getvalue()
    for length in {*range(0, len(data), 97), *range(len(data) - 60, len(data))}:
        refuse(data[:length])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"no",
        b"\xff\xfe",
        b"[]",
        b"7",
        b"null",
        b"NaN",
        b'"x"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{}",
        b"9" * 10_000,
    ],
    ids=lambda text: repr(text[:8]),
)
def test_broken_metadata(text):
    assert "metadata.json" in refuse(packed({"metadata.json": text, "core/note.json": "[]"}))


WRONG = [None, True, 7, -1, 1.5, "", "x", "\0" * 2000, [], {}, [[]], {"x": 1}, {"a.b": {}}]
RIGHT = {  # what each key may be
    "timezone": ["", "x"],
    "created_by": ["", "x"],
    "label": ["", "x"],
    "babybuddy_version": ["", "x"],
    "django_version": ["", "x"],
    "database_engine": ["", "x"],
    "includes_media": [True],
    "migrations": [{}],
}
KEYS = ["version", "timestamp", "models_count", "total_records", "models", *RIGHT]


@pytest.mark.parametrize("key", KEYS)
def test_metadata_of_wrong_types(key):
    for value in WRONG:
        file = repacked(lambda members, metadata, value=value: metadata.update({key: value}))
        if value in RIGHT.get(key, []) and type(value) in map(type, RIGHT[key]):
            assert read(file) == RECORDS
        else:
            assert key in refuse(file), value


@pytest.mark.parametrize(
    "key", ["version", "timestamp", "models", "migrations", "models_count", "total_records"]
)
def test_metadata_without_a_part(key):
    assert key in refuse(repacked(lambda members, metadata: metadata.pop(key)))


@pytest.mark.parametrize("part", ["file", "records", "sha256"])
def test_metadata_of_a_member(part):
    for value in WRONG:
        if (part == "records" and value == 7) or value == "x" * 64:
            continue
        refuse(
            repacked(
                lambda members, metadata, value=value: metadata["models"]["core.note"].update({part: value})
            )
        )
    refuse(repacked(lambda members, metadata: metadata["models"]["core.note"].pop(part)))


def test_two_models_in_one_file():
    def change(members, metadata):
        metadata["models"]["core.child"] = metadata["models"]["core.note"]

    refuse(repacked(change))


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-23",
        "2026-11-23T14:30:22",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "yesterday",
        "2026-13-01T00:00:00Z",
    ],
)
def test_timestamps_that_are_none(value):
    assert "timestamp" in refuse(repacked(lambda members, metadata: metadata.update(timestamp=value)))


@pytest.mark.parametrize("version", ["2.0", "2.7", "10.1"])
def test_a_newer_major_version(version):
    message = refuse(repacked(lambda members, metadata: metadata.update(version=version)))
    assert version in message
    assert "newer" in message


@pytest.mark.parametrize("version", ["0.9", "1", "1.x", "1.1.1", "-1.1", "٢.٠", "1.1\n", "999999999999.1"])
def test_what_is_no_version(version):
    refuse(repacked(lambda members, metadata: metadata.update(version=version)))


def test_a_newer_minor_version_is_read():
    def change(members, metadata):
        metadata["version"] = "1.9"
        metadata["colour"] = "blue"

    assert read(repacked(change)) == RECORDS


def test_a_wrong_checksum_names_the_file():
    def change(members, metadata):
        members["core/note.json"] = members["core/note.json"].replace(b'"pk":3', b'"pk":4')

    message = refuse(repacked(change))
    assert "core/note.json" in message
    assert "checksum" in message


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_wrong_count_names_the_file(difference):
    def change(members, metadata):
        metadata["models"]["core.note"]["records"] += difference
        metadata["total_records"] += difference

    assert "core/note.json" in refuse(repacked(change))


def test_folders_are_no_harm():
    assert read(repacked(lambda members, metadata: members.update({"core/": b""}))) == RECORDS


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[",
        b"[]",
        b"{}",
        b"null",
        b"[\n]",
        b'[\n{"a": 1}',
        b'[\n{"a": 1},\n]\n',
        b'[\n,\n{"a": 1}\n]\n',
        b'[\n{"a": 1}\n{"a": 2}\n]\n',
        b'[\n{"a": 1}\n]\n]\n',
        b'[\n{"a": 1}\n]\nmore',
        b'[\n{"a": NaN}\n]\n',
        b"[\n{'a': 1}\n]\n",
        b'[\n{"a": "\xff"}\n]\n',
        b'[\n{"a": "\\ud800"}\n]\n',
        b'[\n"' + b"\n" + b'"\n]\n',
        b"[\n" + b"[" * 50_000 + b"]" * 50_000 + b"\n]\n",
        b"[\n" + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"\n]\n",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_not_one_record_a_line(data):
    """The checksum being right: written so by somebody else."""
    refuse(with_content(data, count=1))


# --- Any damage at all ------------------------------------------------------------------------------------

SOUND = write(RECORDS).getvalue()
OLD = version_1_0({"core/note.json": json.dumps(RECORDS["core.note"], indent=1)}).getvalue()
DAMAGE = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["set", "cut", "add"]),
        st.binary(min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=4,
)


def damaged(data, damage):
    data = bytearray(data)
    for place, how, new in damage:
        at = int(place * len(data))
        if how == "add":
            data[at:at] = new
        elif how == "cut":
            del data[at : at + len(new)]
        else:
            data[at : at + len(new)] = new
    return io.BytesIO(bytes(data))


@examples(300)
@given(DAMAGE)
def test_damage_is_found_or_does_no_harm(damage):
    file = damaged(SOUND, damage)
    try:
        found = read(file)
    except InvalidBackup:
        return
    assert found == RECORDS


@examples(150)
@given(DAMAGE)
def test_damage_to_a_file_without_checksums_is_no_other_error(damage):
    try:
        read(damaged(OLD, damage))
    except InvalidBackup:
        return


@examples(100)
@given(VALUES)
def test_any_metadata_is_read_or_refused(value):
    try:
        parse_metadata(value)
    except InvalidBackup:
        return
    raise AssertionError("accepted")


@examples(200)
@given(st.sampled_from(KEYS), VALUES)
def test_metadata_with_any_part_is_read_or_refused(key, value):
    metadata = copy.deepcopy(METADATA)
    metadata[key] = value
    try:
        said = parse_metadata(metadata)
    except InvalidBackup:
        return
    json.dumps(said.as_json())


METADATA = json.loads(unpacked(io.BytesIO(SOUND))["metadata.json"])

"""The ZIP: what goes in comes out, and nothing that is wrong with a file passes, nor ends in another error.

Files that were made to do harm are in `test_hostile.py`.
"""

import copy
import dataclasses
import datetime as dt
import hashlib
import io
import json
import random
import re
import subprocess
import sys
import time
import tracemalloc
import zipfile

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backup.archive import (
    Archive,
    Limits,
    Member,
    MemberKind,
    Metadata,
    Upgrade,
    Writer,
    lines_of,
    parse_metadata,
    text_of,
)
from backup.archive.lines import RecordTooLongError, has_more_values, read_elements, weight
from backup.archive.members import KINDS
from backup.exceptions import InvalidBackup, InvalidRecord, TooLarge
from tests.support.backups import lines, packed, refused_by, unpacked
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
            writer.add(label, batches(rows[:2], rows[2:]))
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
    """What is said of a file that is no good, whichever way it is read."""
    if isinstance(file, bytes):
        file = io.BytesIO(file)
    (message,) = {refused_by(reader, error, file, limits) for reader in (read, read_quickly)}
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
        "instance": "0123456789ab",
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
    monkeypatch.setattr("backup.archive.deflate.isal_zlib", None)
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
        writer.add("core.note", batches(RECORDS["core.note"]))
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
        writer.add("core.note", large)


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


# --- What we write we can read ------------------------------------------------------------------------------

ANY_TEXT = st.text(st.characters(), max_size=1200) | st.builds(
    str.__mul__, st.text(max_size=3), st.integers(0, 2000)
)
ZONES = st.integers(-86399, 86399).map(lambda seconds: dt.timezone(dt.timedelta(seconds=seconds)))


@given(
    st.fixed_dictionaries(
        dict.fromkeys(
            [
                "timezone",
                "created_by",
                "label",
                "instance",
                "babybuddy_version",
                "django_version",
                "database_engine",
            ],
            ANY_TEXT,
        )
    ),
    st.datetimes(min_value=dt.datetime(2, 1, 1), max_value=dt.datetime(9998, 1, 1), timezones=ZONES),
    st.dictionaries(st.text(min_size=1), st.lists(st.text(max_size=50), max_size=3), max_size=5),
    st.none() | st.builds(Upgrade, ANY_TEXT, *[st.lists(ANY_TEXT, max_size=3)] * 3),
)
@example({"label": "x" * 1001}, MOMENT, {}, None)
@example({"label": "a\udcff"}, MOMENT, {}, None)
def test_whatever_the_metadata_says_is_read(texts, moment, migrations, upgraded):
    file = io.BytesIO()
    with Writer(file) as writer:
        written = writer.finish(Metadata(timestamp=moment, migrations=migrations, upgraded=upgraded, **texts))
    with Archive(file, LIMITS) as archive:
        assert archive.metadata == written
    assert written.timestamp == moment
    for name, text in texts.items():
        written_text = getattr(written, name)
        if len(text) <= 1000 and not re.search("[\ud800-\udfff]", text):
            assert written_text == text
        else:
            assert len(written_text) == min(len(text), 1000)


@pytest.mark.parametrize(
    "text",
    [b"x", b"ab", b" ", b"a\\n", b"0123456789abcdef" * 20],
    ids=repr,
)
def test_a_text_that_packs_well_is_no_bomb(text):
    """Hundredfold is too little for a reader to tell both apart."""
    record = b'{"model":"core.note","pk":%d,"fields":{"note":"%b"}}'
    size = 4 * 1024 * 1024 // len(text)
    file = io.BytesIO()
    with Writer(file) as writer:
        for app in "abcd":
            writer.add(f"{app}.note", [(1, record % (n, text * size)) for n in range(2)])
        writer.finish(Metadata(timestamp=MOMENT))
    with Archive(file, LIMITS) as archive:
        assert sum(len(batch.each) for batch in archive.lines("a.note")) == 2


@pytest.mark.parametrize(
    "fields",
    [{"note": "x" * 3000}, {"note": "🍼" + "x" * 700}, {"values": list(range(400))}],
    ids=["too long", "too wide", "too many values"],
)
def test_a_record_that_could_not_be_read_is_not_written(fields, monkeypatch):
    limits = Limits(uncompressed=10**9, record=2500, values=300)
    rows = [
        {"model": "core.note", "pk": n, "fields": {"note": "a, b"} if n != 7 else fields} for n in range(12)
    ]
    file = io.BytesIO()
    with pytest.raises(InvalidRecord) as caught, Writer(file, limits) as writer:
        writer.add("core.note", batches(rows))
    assert (caught.value.model, caught.value.pk) == ("core.note", 7)


# --- Version 1.0 ------------------------------------------------------------------------------------------


OLD_METADATA = json.dumps({"version": "1.0", "timestamp": "2025-01-02T03:04:05+00:00"})


def version_1_0(members):
    return packed({"metadata.json": OLD_METADATA, **members})


NOTES = RECORDS["core.note"]
OURS = b"[\n" + b",\n".join(map(text_of, NOTES)) + b"\n]\n"


def second_line(change):
    """Our layout, but for one record."""
    rows = OURS.split(b"\n")
    rows[2] = change(rows[2])
    return b"\n".join(rows)


LAYOUTS = {
    "one line": json.dumps(NOTES),
    "indented": json.dumps(NOTES, indent=2),
    "by four": json.dumps(NOTES, indent=4, ensure_ascii=False),
    "by nothing": json.dumps(NOTES, indent=0),
    "by tabs": json.dumps(NOTES, indent="\t"),
    "tight": json.dumps(NOTES, separators=(",", ":")),
    "wide": json.dumps(NOTES, indent=1, separators=(" ,", " : ")),
    "one a line": lines(NOTES),
    "white space": "\r\n ".join(["", "[", ",".join(map(json.dumps, NOTES)), "]", ""]),
    "a byte order mark": b"\xef\xbb\xbf" + OURS,
    "CR LF": OURS.replace(b"\n", b"\r\n"),
    "indented with CR LF and a byte order mark": b"\xef\xbb\xbf"
    + json.dumps(NOTES, indent=2).replace("\n", "\r\n").encode(),
    "the first record beside the bracket": b"[" + OURS[2:],
    "the bracket beside the last record": OURS.removesuffix(b"\n]\n") + b"]",
    "no last line break": OURS.removesuffix(b"\n"),
    "commas in front": OURS.replace(b",\n{", b"\n,{"),
    "empty lines": OURS.replace(b",\n{", b",\n\n{"),
    "a record with its parts in another order": second_line(
        lambda line: json.dumps(dict(sorted(json.loads(line[:-1]).items()))).encode() + b","
    ),
    "an indented record": second_line(
        lambda line: json.dumps(json.loads(line[:-1]), indent=2).encode() + b","
    ),
    "a record broken after a comma": second_line(lambda line: line.replace(b',"pk"', b',\n"pk"')),
    "two records on a line": OURS.replace(b",\n", b",", 1),
}


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_is_read(text):
    text = text if isinstance(text, bytes) else text.encode()
    assert read(version_1_0({"core/note.json": text})) == {"core.note": NOTES}
    assert read(with_content(text)) == RECORDS
    with Archive(with_content(text), LIMITS) as archive:
        assert sum(len(batch.each) for batch in archive.lines("core.note")) == len(NOTES)
    refuse(with_content(text, count=len(NOTES) + 1))


WHITE_SPACE = st.lists(st.text(" \t\r\n", max_size=3), min_size=1, max_size=7)


@given(ANY_RECORDS, WHITE_SPACE, st.booleans())
def test_white_space_anywhere_is_read(records, spaces, escaped):
    """Between all that JSON allows it between, in turn."""
    text = json.dumps(records, ensure_ascii=escaped, separators=(",", ":"))
    pieces = re.findall(r'"(?:[^"\\]|\\.)*"|[^][{},:"]+|.', text, re.DOTALL)
    laid_out = "".join(piece + spaces[n % len(spaces)] for n, piece in enumerate(pieces))
    assert json.loads(laid_out) == json.loads(text)
    assert same(read(version_1_0({"core/note.json": laid_out}))["core.note"], records)
    assert same(read(with_content(laid_out.encode(), len(records)))["core.note"], records)


def test_every_layout_is_read_in_little_memory():
    """No line break between any two of many records; and what looks like ours at first, and then goes on like that."""
    record = text_of({"model": "core.note", "pk": 1, "fields": {"note": "x" * 100_000}})
    beginning = b"[\n" + b",\n".join([record] * 10) + b",\n"
    for text in (b"[" + b",".join([record] * 200) + b"]", beginning + b",".join([record] * 200) + b"]"):
        file = packed({"metadata.json": OLD_METADATA, "core/note.json": text}, zipfile.ZIP_STORED)
        with Archive(file, LIMITS) as archive:
            tracemalloc.start()
            try:
                count = sum(len(batch.each) for batch in archive.lines("core.note"))
                _now, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert count == text.count(record)
        assert peak < 12 * 1024 * 1024


def test_long_records_are_read_one_at_a_time():
    """Else a file with many of them would take several times as much memory as the longest one."""
    size = 3 * 1024 * 1024
    record = text_of({"model": "core.note", "pk": 1, "fields": {"note": "x" * size}})
    text = b"[\n" + b",\n".join([record] * 8) + b"\n]\n"
    file = packed({"metadata.json": OLD_METADATA, "core/note.json": text}, zipfile.ZIP_STORED)
    with Archive(file, LIMITS) as archive:
        tracemalloc.start()
        try:
            counts = [len(batch.each) for batch in archive.lines("core.note")]
            _now, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert counts == [1] * 8
    assert (
        peak < 3 * size + 6 * 1024 * 1024
    )  # the one before, the pieces of this one, and both of them joined


TOO_DEEP = {
    "nested": (b"[" * 3_000_000 + b"]" * 3_000_000, "not JSON"),
    "objects": (b'{"x":' * 1_000_000 + b"1" + b"}" * 1_000_000, "not JSON"),
    "side by side": (b"[" + b"[]," * 3_000_000 + b"[]]", "values"),
    "many, each as deep as is read": (b"[" + b",".join([b"[" * 1000 + b"]" * 1000] * 1000) + b"]", "values"),
}


def in_no_time():
    """Return a function that tells whether little happened since: no more than takes some seconds on a usual machine.

    That is measured by what Python takes for something else now, since a machine may be slow.
    """
    started = time.process_time()
    assert sum(1 for _ in range(300_000))
    pace = time.process_time() - started
    begun = time.process_time()
    most = pace * 400
    return lambda: time.process_time() - begun < most


@pytest.mark.parametrize(("value", "reason"), TOO_DEEP.values(), ids=TOO_DEEP)
@pytest.mark.parametrize("number", [1, 3])
def test_brackets_without_end_are_refused_at_once(value, reason, number):
    """Not after all of them were counted, and not after the parser has made an object of each."""
    record = b'{"model":"core.note","pk":%d,"fields":{"note":%b}}'
    text = b"[\n" + b",\n".join(record % (n, b"1" if n < number else value) for n in range(1, 4)) + b"\n]\n"
    limits = dataclasses.replace(LIMITS, ratio=10**6)
    quickly = in_no_time()
    said = pytest.raises(InvalidBackup, match=f"(number {number} .*{reason}|{reason}, number {number})")
    with Archive(version_1_0({"core/note.json": text}), limits) as archive, said:
        list(archive.records("core.note"))
    assert quickly()


MANY = {
    "commas in a text": (b'{"a":"%b","b":1}' % (b"," * 1000), 2),
    "commas in a text, and a long one": (b'{"a":"%b","b":"%b"}' % (b"," * 1000, b"x" * 3_000_000), 2),
    "a text without its end": (b'{"a":"%b","b":"%b' % (b"," * 1000, b"x" * 3_000_000), 2),
    "escaped quotes": (rb'{"a":"%b","b":[1,2]}' % (rb"\",\\" * 1000), 4),
    "numbers": (b"[%b1]" % (b"1," * 999), 1000),
    "lists": (b"[%b[]]" % (b"[]," * 999), 2000),
    "lists in lists": (b"[" * 900 + b"]" * 900, 900),
    "names with commas": (b"{%b}" % b",".join([b'",[":"],{"'] * 500), 500),
    "strings side by side": (b"[%b]" % (b'",""," "," ' * 500), 1),
}


@pytest.mark.parametrize(("record", "values"), MANY.values(), ids=MANY)
def test_values_are_counted_in_linear_time(record, values):
    quickly = in_no_time()
    assert not has_more_values(record, values)
    assert has_more_values(record, values - 1)
    assert quickly()


@pytest.mark.parametrize("text", [b"\\n", b'",",', b"\\\\,", b'"},{"'], ids=repr)
def test_no_text_takes_much_more_memory_than_it_is_long(text):
    """Regular expressions of Python's may take a hundred times as much. Nothing is parsed: that has its own bounds."""
    size = 4 * 1024 * 1024
    data = b'[{"a":"' + text * (size // len(text)) + b'"}]'
    command = (
        "import resource, sys; from backup.archive.lines import *\n"
        "data = sys.stdin.buffer.read()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "blocks = (data[n : n + 262144] for n in range(0, len(data), 262144))\n"
        "print(sum(1 for batch in read_elements(blocks, Limits())))\n"
        "has_more_values(data, 500_000)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", command], input=data, stdout=subprocess.PIPE, check=True)
    batches, kibibytes = map(int, done.stdout.split())
    assert batches
    assert kibibytes < 10 * size // 1024


@pytest.mark.parametrize("letter", "xüяע日🍼")
@pytest.mark.parametrize("dumps", [orjson.dumps, lambda value: json.dumps(value).encode()])
def test_one_wide_letter_makes_a_text_heavy(letter, dumps):
    """Of a few bytes in the file, Python would make many in memory."""
    text = letter + "x" * 10_000
    in_memory = sys.getsizeof(text)  # before its bytes are kept with it
    record = dumps({"note": text})
    assert 0 <= weight(record) - in_memory + 100 < 500
    for limit in (weight(record), weight(record) - 1):
        elements = read_elements(iter([b"[", record, b"]"]), Limits(record=limit))
        if limit == weight(record):
            assert sum(batch.count for batch in elements) == 1
        else:
            with pytest.raises(RecordTooLongError):
                list(elements)


def test_ours_is_not_taken_apart_to_be_counted():
    """The quick way is taken, else nobody would see that it is not."""
    with Archive(write({"core.note": NOTES * 300}), dataclasses.replace(LIMITS, ratio=2000)) as archive:
        *batches, _last = archive.lines("core.note")
    assert len(batches) > 3
    assert all("each" not in vars(batch) and batch._each is None for batch in batches)
    assert all(batch.text == b",\n".join(batch.each) for batch in batches)


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
        "core\\a\\note.json",
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
    "instance": ["", "x"],
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


PLACE = {"model": "core.note", "pk": 1, "field": "note", "reason": "x"}
#: What may be of any length where nobody looks, and ends up in a page.
TOO_MUCH = {
    "many apps": ("migrations", {f"app{number}": ["0001_x"] for number in range(1001)}),
    "many migrations": ("migrations", {"core": [f"{number}_x" for number in range(1001)]}),
    "many migrations of many apps": ("migrations", {f"a{n}": [f"{n}_x"] * 11 for n in range(100)}),
    "a long app": ("migrations", {"a" * 256: []}),
    "a long migration": ("migrations", {"core": ["a" * 256]}),
    "many keys": ("next_keys", {f"core.m{number}": 1 for number in range(1001)}),
    "a long label": ("next_keys", {"core." + "m" * 251: 1}),
    "a long model": (
        "models",
        {"core." + "m" * 251: {"file": f"core/{'m' * 251}.json", "records": 0, "sha256": ""}},
    ),
    "many records": ("models", {"core.m": {"file": "core/m.json", "records": 2**63, "sha256": ""}}),
    "many that ran": ("upgraded", {"migrations": [f"core.{number}" for number in range(1001)]}),
    "a long one that ran": ("upgraded", {"migrations": ["a" * 256]}),
    "many left out": ("upgraded", {"left_out": [f"app{number}" for number in range(1001)]}),
    "a long one left out": ("upgraded", {"left_out": ["a" * 256]}),
    "many new": ("upgraded", {"new_apps": [f"app{number}" for number in range(1001)]}),
    "a long version": ("upgraded", {"babybuddy_version": "1" * 256}),
    "many warnings": ("warnings", ["x"] * 201),
    "a long warning": ("warnings", ["x" * 1001]),
    "many places": ("left_out", {"total": 501, "places": [PLACE] * 501}),
    "a long reason": ("left_out", {"total": 1, "places": [PLACE | {"reason": "x" * 1001}]}),
    "a high number": ("dangling", {"total": 2**63, "places": []}),
    "a long key": ("dangling", {"total": 1, "places": [PLACE | {"pk": "1" * 1001}]}),
    "no field": ("dangling", {"total": 1, "places": [PLACE | {"field": []}]}),
}


@pytest.mark.parametrize(("part", "value"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_metadata_is_bounded_in_number_and_length(part, value):
    def change(members, metadata):
        none = {"babybuddy_version": "", "migrations": [], "left_out": [], "new_apps": []}
        metadata[part] = none | value if part == "upgraded" else value

    assert part in refuse(repacked(change))


def test_what_an_upgrade_says_is_cut():
    upgraded = Upgrade("2" * 300, [f"core.{number}" for number in range(1500)], ["a"] * 1001, ["b"] * 1001)
    with Archive(write({"core.note": NOTES}, upgraded=upgraded), LIMITS) as archive:
        said = archive.metadata.upgraded
    assert [len(said.babybuddy_version), len(said.left_out), len(said.new_apps)] == [255, 1000, 1000]
    assert said.migrations == upgraded.migrations[-1000:]


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
        "0001-01-01T23:59:59Z",
        "9999-12-31T00:00:00Z",
        "9999-12-31T01:00:00+01:00",
        "yesterday",
        "2026-13-01T00:00:00Z",
    ],
)
def test_timestamps_that_are_none(value):
    assert "timestamp" in refuse(repacked(lambda members, metadata: metadata.update(timestamp=value)))


@pytest.mark.parametrize("version", ["1.3", "1.7", "1.10", "2.0", "2.7", "10.1"])
def test_a_newer_version_is_refused_as_such(version):
    """Whatever else is in such a file: what is no fault in it, we cannot know."""

    def like_this(members, metadata):
        metadata["version"] = version

    def of_another_shape(members, metadata):
        members |= {"new/kind.bin": b"x", "core/link": b""}
        metadata |= {"version": version, "models": [], "colour": "blue", "timestamp": 7}

    def larger(members, metadata):
        members |= {f"photos/{n}": b"x" for n in range(3000)}
        metadata["version"] = version

    for change in (like_this, of_another_shape, larger):
        message = refuse(repacked(change))
        assert f"format version {version}, which is newer" in message
        assert "update the app" in message


@pytest.mark.parametrize(
    "version", ["0.9", "1", "1.x", "1.1.1", "-1.1", "٢.٠", "1.1\n", "01.1", "999999999999.1"]
)
def test_what_is_no_version(version):
    assert "version" in refuse(repacked(lambda members, metadata: metadata.update(version=version)))


def test_an_older_version_is_read_and_what_it_does_not_know_is_ignored():
    def change(members, metadata):
        metadata["version"] = "1.1"
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


# --- Names, and what packs a folder again -------------------------------------------------------------------


def renamed(function, extra=()):
    """A backup whose members have other names in the ZIP."""
    members = {function(name): data for name, data in unpacked(write(RECORDS)).items()}
    return packed({**members, **dict.fromkeys(extra, b"x")})


AGAIN = {
    "folders": lambda: repacked(lambda members, metadata: members.update({"core/": b"", "auth/": b""})),
    "a folder around it": lambda: renamed("backup_112326_143022/{}".format),
    "Finder": lambda: packed(
        {
            "backup/": b"",
            **{f"backup/{name}": data for name, data in unpacked(write(RECORDS)).items()},
            "backup/.DS_Store": b"x",
            "backup/core/.DS_Store": b"x",
            "__MACOSX/backup/._metadata.json": b"x",
            "__MACOSX/._backup": b"x",
        }
    ),
    "Finder, of what is in the folder": lambda: renamed(str, [".DS_Store", "__MACOSX/._core"]),
    "Explorer": lambda: renamed(
        lambda name: name.replace("/", "\\"), ["desktop.ini", "core\\Thumbs.db", "core\\desktop.ini"]
    ),
    "Explorer, with a folder around it": lambda: renamed(
        lambda name: f"backup\\{name}".replace("/", "\\"), ["backup\\Desktop.ini"]
    ),
    "a disk of a Mac": lambda: renamed(str, ["._metadata.json", "core/._note.json"]),
}


@pytest.mark.parametrize("file", AGAIN.values(), ids=AGAIN)
def test_a_folder_that_was_packed_again_is_read(file):
    assert read(file()) == RECORDS


STRANGE = {
    "two folders around it": lambda: renamed("a/b/{}".format),
    "two folders beside": lambda: renamed("a/{}".format, ["b/metadata.json"]),
    "a folder that climbs": lambda: renamed("../{}".format),
    "a folder of no name": lambda: renamed("/{}".format),
    "something beside the folder": lambda: renamed("a/{}".format, ["more.json"]),
    "a name twice, once with a backslash": lambda: renamed(str, ["core\\note.json"]),
    "a name in capitals": lambda: renamed(lambda name: name.replace("note", "Note")),
    "a file of nobody's": lambda: renamed(str, ["core/notes.txt"]),
    "a folder with something in it": lambda: renamed(str, ["core/"]),
    "like a Mac's, but not quite": lambda: renamed(str, ["__macosx/x"]),
    "a model's file that is hidden": lambda: renamed(lambda name: name.replace("core/", "core/._")),
}


@pytest.mark.parametrize("file", STRANGE.values(), ids=STRANGE)
def test_what_is_no_member_is_refused(file):
    refuse(file())


def test_a_model_s_file_is_called_what_its_label_says():
    def change(members, metadata):
        members["core/other.json"] = members.pop("core/note.json")
        metadata["models"]["core.note"]["file"] = "core/other.json"

    assert "models" in refuse(repacked(change))


def test_what_is_passed_over_counts():
    """Towards every limit, and nothing odd is let in under such a name."""
    extra = {f"__MACOSX/{n}": b"x" * 1000 for n in range(50)}
    file = repacked(lambda members, metadata: members.update(extra))
    assert read(file) == RECORDS
    refuse(file, TooLarge, dataclasses.replace(LIMITS, members=50))
    refuse(file, TooLarge, dataclasses.replace(LIMITS, uncompressed=50_000))
    assert "compressed in a way" in refuse(
        packed({**unpacked(write(RECORDS)), ".DS_Store": b"x"}, zipfile.ZIP_BZIP2)
    )


# --- Kinds of members -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Sound(Member):
    size: int


def _parse_sounds(value, hides_names):
    if not isinstance(value, list) or not all("/" not in sound["name"] for sound in value):
        raise ValueError(value)
    return {
        sound["name"]: Sound(f"sounds/{sound['name']}", sound["sha256"], sound["size"]) for sound in value
    }


def _sounds_as_json(sounds):
    return [{"name": name, "size": sound.size, "sha256": sound.sha256} for name, sound in sounds.items()]


SOUNDS = MemberKind("sounds", "1.2", _parse_sounds, _sounds_as_json)
LAUGH = bytes(range(256)) * 10_000


def with_a_sound():
    file = io.BytesIO()
    with Writer(file) as writer:
        writer.add("core.note", batches(NOTES))
        digest = writer.write("sounds/laugh.ogg", [LAUGH[:7], LAUGH[7:]])
        writer.register(SOUNDS, "laugh.ogg", Sound("sounds/laugh.ogg", digest, len(LAUGH)))
        writer.finish(Metadata(timestamp=MOMENT))
    return file


def test_a_second_kind_of_member(monkeypatch):
    """A new entry of the table is all that reader and writer need."""
    monkeypatch.setattr("backup.archive.metadata.KINDS", (*KINDS, SOUNDS))
    file = with_a_sound()
    assert read(file) == {"core.note": NOTES}
    with Archive(file, LIMITS) as archive:
        metadata = archive.metadata
        (sound,) = metadata.members["sounds"].values()
        assert b"".join(archive.read(sound)) == LAUGH
    assert metadata.version == "1.2"
    assert metadata.as_json()["sounds"] == [
        {"name": "laugh.ogg", "size": len(LAUGH), "sha256": hashlib.sha256(LAUGH).hexdigest()}
    ]
    assert parse_metadata(metadata.as_json()) == metadata


def test_a_second_kind_of_member_is_believed_as_little(monkeypatch):
    monkeypatch.setattr("backup.archive.metadata.KINDS", (*KINDS, SOUNDS))
    members = unpacked(with_a_sound())
    metadata = json.loads(members["metadata.json"])

    def changed(**said):
        return packed({**members, "metadata.json": json.dumps({**metadata, **said})})

    assert "sounds/laugh.ogg" in refuse(packed({n: d for n, d in members.items() if "sounds" not in n}))
    assert "sounds/laugh.ogg" in refuse(changed(version="1.1"))  # which knows no sounds
    assert "sounds" in refuse(changed(sounds=7))
    assert "sounds" in refuse(changed(sounds=[{**metadata["sounds"][0], "name": "../core/note.json"}]))
    damaged = packed({**members, "sounds/laugh.ogg": b"x"})
    with (
        Archive(damaged, LIMITS) as archive,
        pytest.raises(InvalidBackup, match=r"sounds/laugh\.ogg.*checksum"),
    ):
        list(archive.read(archive.metadata.members["sounds"]["laugh.ogg"]))


def test_without_the_kind_the_file_is_refused():
    assert "sounds/laugh.ogg" in refuse(with_a_sound())


def test_a_file_says_the_lowest_version_that_can_read_it():
    with Archive(write(RECORDS), LIMITS) as archive:
        assert archive.metadata.version == "1.1"


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

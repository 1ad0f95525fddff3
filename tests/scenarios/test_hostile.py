"""Files that were made to do harm, or were harmed: each is refused in one sentence that names the place.

One table. Every kind is tried against the host's own database, whose rows are compared afterwards, in
little memory. What a fuzzer found (`tests/fuzz.py`) is kept here, too.
"""

import contextlib
import hashlib
import io
import json
import os
import random
import re
import signal
import stat
import struct
import sys
import tempfile
import warnings
import zipfile
import zlib
from dataclasses import dataclass

import pytest
from core import models as core

from backup import services
from backup.exceptions import BackupError, InvalidRecord
from tests.support.backups import how, inspect, packed, restore, rewritten, take, unpacked
from tests.support.filling import fill
from tests.support.matrices import ALL
from tests.support.snapshots import differences, snapshot

FEEDING = "core/feeding.json"
DAMAGED = "damaged"

# --- How a backup is changed ------------------------------------------------------------------------------


def members(change, method=zipfile.ZIP_DEFLATED):
    """`change` gets name -> bytes, and the metadata as an object; checksums are as they were."""

    def build(backup):
        contents = unpacked(io.BytesIO(backup))
        metadata = json.loads(contents["metadata.json"])
        change(contents, metadata)
        if "metadata.json" in contents:
            contents["metadata.json"] = json.dumps(metadata).encode()
        return packed(contents, method).getvalue()

    return build


def content(data, count=None, method=zipfile.ZIP_DEFLATED):
    """core/feeding.json is this, its checksum and its count right. `data`: bytes, or what makes them of those there."""

    def change(contents, metadata):
        member = metadata["models"]["core.feeding"]
        new = data(contents[FEEDING]) if callable(data) else data
        said = member["records"] if count is None else count
        metadata["total_records"] += said - member["records"]
        member.update(sha256=hashlib.sha256(new).hexdigest(), records=said)
        contents[FEEDING] = new

    return members(change, method)


def records(change):
    """`change` gets model label -> records."""
    return lambda backup: rewritten(io.BytesIO(backup), change).getvalue()


def feeding(change):
    """The fourth feeding, changed."""
    return records(lambda rows: change(rows["core.feeding"][3]))


def field(**values):
    return feeding(lambda record: record["fields"].update(values))


def feeding_line(old, new):
    """The first feeding's line, with a piece of its text replaced."""
    return content(lambda data: data.replace(old, new, 1))


def metadata(**values):
    return members(lambda contents, said: said.update(values))


def without(name):
    return members(lambda contents, said: said.pop(name))


def metadata_text(text):
    def build(backup):
        return packed({**unpacked(io.BytesIO(backup)), "metadata.json": text}).getvalue()

    return build


def member(**values):
    return members(lambda contents, said: said["models"]["core.feeding"].update(values))


def one_more(name, data=b"[\n]\n"):
    return members(lambda contents, said: contents.update({name: data}))


def appended(info, data=b"[\n]\n"):
    """One more member, by whatever entry."""

    def build(backup):
        file = io.BytesIO(backup)
        with zipfile.ZipFile(file, "a") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.writestr(info, data)
        return file.getvalue()

    return build


def entry(kind):
    info = zipfile.ZipInfo("core/link.json")
    info.external_attr = (kind | 0o777) << 16
    return info


def packed_by(method):
    return lambda backup: packed(unpacked(io.BytesIO(backup)), method).getvalue()


def in_directory(offset, form, value, name=FEEDING):
    """Another value in a member's entry of the table of contents."""

    def build(backup):
        data = bytearray(backup)
        at = data.rindex(b"PK\1\2", 0, data.rindex(name.encode()))
        struct.pack_into(form, data, at + offset, value)
        return bytes(data)

    return build


def in_local_header(offset, form, value, name=FEEDING):
    def build(backup):
        data = bytearray(backup)
        struct.pack_into(form, data, data.index(name.encode()) - 30 + offset, value)
        return bytes(data)

    return build


def at_the_end(offset, form, value):
    def build(backup):
        data = bytearray(backup)
        struct.pack_into(form, data, data.rindex(b"PK\5\6") + offset, value)
        return bytes(data)

    return build


def flipped(where):
    def build(backup):
        data = bytearray(backup)
        data[where(data)] ^= 0xFF
        return bytes(data)

    return build


def bomb(name, data, claimed):
    """A member that unpacks to more than its entries say."""

    def build(backup):
        contents = {**unpacked(io.BytesIO(backup)), name: b"x" * claimed}
        file = packed(contents)
        with zipfile.ZipFile(file) as archive:
            info = archive.getinfo(name)
        start = info.header_offset + 30 + len(name)
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        deflated = packer.compress(data) + packer.flush()
        old = file.getvalue()
        new = bytearray(old[:start] + deflated + old[start + info.compress_size :])
        shift = len(deflated) - info.compress_size
        place = new.rindex(b"PK\5\6")
        directory = struct.unpack_from("<I", new, place + 16)[0] + shift
        struct.pack_into("<I", new, place + 16, directory)
        while new[directory : directory + 4] == b"PK\1\2":
            length, extra, comment = struct.unpack_from("<HHH", new, directory + 28)
            offset = struct.unpack_from("<I", new, directory + 42)[0]
            if offset > info.header_offset:
                struct.pack_into("<I", new, directory + 42, offset + shift)
            if new[directory + 46 : directory + 46 + length] == name.encode():
                struct.pack_into("<I", new, directory + 20, len(deflated))
            directory += 46 + length + extra + comment
        return bytes(new)

    return build


def shifted(front):
    """Data in front, with all places in the ZIP moved behind it."""

    def build(backup):
        data = bytearray(backup)
        place = data.rindex(b"PK\5\6")
        directory = struct.unpack_from("<I", data, place + 16)[0]
        struct.pack_into("<I", data, place + 16, directory + len(front))
        while data[directory : directory + 4] == b"PK\1\2":
            offset = struct.unpack_from("<I", data, directory + 42)[0]
            struct.pack_into("<I", data, directory + 42, offset + len(front))
            directory += 46 + sum(struct.unpack_from("<HHH", data, directory + 28))
        return front + bytes(data)

    return build


def overlapping(backup):
    """Two members that are the same bytes of the file."""
    data = bytearray(backup)
    with zipfile.ZipFile(io.BytesIO(backup)) as archive:
        offset = archive.getinfo("core/sleep.json").header_offset
    return in_directory(42, "<I", offset)(data)


def zip64_end(backup):
    """A table of contents of 2^60 bytes."""
    place = backup.rindex(b"PK\5\6")
    end = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 2**50, 2**50, 2**60, 0)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, place, 1)
    closing = bytearray(backup[place:])
    struct.pack_into("<HHII", closing, 8, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    return backup[:place] + end + locator + bytes(closing)


def version_1_0(text, name=FEEDING, method=zipfile.ZIP_DEFLATED):
    said = {"version": "1.0", "timestamp": "2025-01-02T03:04:05+00:00"}
    return lambda backup: packed({"metadata.json": json.dumps(said), name: text}, method).getvalue()


def another_model(record):
    record["model"] = "core.sleep"


def one_line(text, method=zipfile.ZIP_DEFLATED):
    return content(b"[\n" + text + b"\n]\n", count=1, method=method)


def noise(size):
    return random.Random(1).randbytes(size)


def endless():
    """Too long for a record; nothing that packs well, which would be refused for that."""
    return noise(1_000_000).hex() * 36


# --- The table --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """`build`: makes the file of a sound backup; what is large in it is made there, not kept in memory by each process
    of a run. `says`: what the sentence, with its details, must hold."""

    build: object
    says: str
    status: int = 400
    #: BACKUP_MAX_UNCOMPRESSED_SIZE
    limit: int = 64 * 1024 * 1024


def photo(name="notes/images/a.jpg", content=b"x", stored=None, file=None, **lies):
    """One photo, as the metadata has it. `stored`: the content that is in the file."""

    def change(contents, metadata):
        entry = {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest(), **lies}
        metadata.update(version="1.2", includes_media=True, media=[*metadata.get("media", []), entry])
        if stored != "":
            contents[file or f"media/{name}"] = content if stored is None else stored

    return members(change)


def photo_into(contents, metadata, name="a.jpg", *others):
    contents[f"media/{name}"] = b"x"
    entry = {"name": name, "size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    metadata.update(version="1.2", includes_media=True, media=[entry])


def photos(*builds):
    def build(backup):
        for one in builds:
            backup = one(backup)
        return backup

    return build


KINDS = {
    # No ZIP, or not all of one
    "nothing": Kind(lambda b: b"", "empty"),
    "one byte": Kind(lambda b: b"P", "not a ZIP"),
    "a text": Kind(lambda b: b"Hello, baby!\n" * 99, "not a ZIP"),
    "zeros": Kind(lambda b: bytes(99_999), "not a ZIP"),
    "noise": Kind(lambda b: noise(99_999), "not a ZIP"),
    "a PDF": Kind(lambda b: b"%PDF-1.4\n" * 99, "not a ZIP"),
    "gzip": Kind(lambda b: b"\x1f\x8b\x08" + noise(999), "gzip"),
    "the mark of a ZIP": Kind(lambda b: b"PK\3\4", DAMAGED),
    "a ZIP of nothing": Kind(lambda b: b"PK\5\6" + bytes(18), "no metadata.json"),
    "an end without a beginning": Kind(lambda b: b[b.rindex(b"PK\5\6") :], DAMAGED + "|not a ZIP"),
    "the first half": Kind(lambda b: b[: len(b) // 2], DAMAGED),
    "all but the last byte": Kind(lambda b: b[:-1], DAMAGED),
    "without its table of contents": Kind(lambda b: b[: b.index(b"PK\1\2")], DAMAGED),
    "without its first bytes": Kind(lambda b: b[1000:], DAMAGED + "|not a ZIP"),
    "data in front of it": Kind(lambda b: b"#!/bin/sh\n" + b, "before the ZIP"),
    "data in front of it, and the ZIP knows": Kind(shifted(b"GIF89a" * 99), "before the ZIP"),
    "a hole in the middle": Kind(lambda b: b[: len(b) // 3] + b[len(b) // 2 :], DAMAGED),
    # Bytes that were changed
    "a byte of a member": Kind(
        flipped(lambda d: d.index(FEEDING.encode()) + 60), DAMAGED + "|checksum|JSON|list"
    ),
    "a byte of a name in the table of contents": Kind(
        flipped(lambda d: d.rindex(b"core/feeding") + 5), "damaged|missing"
    ),
    "a byte of a name before the member": Kind(flipped(lambda d: d.index(b"core/feeding") + 5), DAMAGED),
    # Headers that lie
    "smaller than it is": Kind(in_directory(24, "<I", 10), f"{DAMAGED}|{FEEDING}"),
    "larger than it is": Kind(in_directory(24, "<I", 99_999), f"{DAMAGED}|{FEEDING}"),
    "empty, it says": Kind(in_directory(24, "<I", 0), f"{DAMAGED}|{FEEDING}"),
    "of 4 GB, it says": Kind(in_directory(24, "<I", 0xFFFFFFF0), "MB", 413),
    "packed smaller than it is": Kind(in_directory(20, "<I", 10), f"{DAMAGED}|{FEEDING}"),
    "packed larger than the file": Kind(in_directory(20, "<I", 0x7FFFFFFF), DAMAGED),
    "beyond the end": Kind(in_directory(42, "<I", 0x7FFFFFFF), DAMAGED),
    "at the place of another": Kind(overlapping, DAMAGED),
    "of another checksum": Kind(in_directory(16, "<I", 0x12345678), DAMAGED),
    "of a newer ZIP": Kind(in_directory(6, "<H", 99), DAMAGED),
    "named otherwise before the member": Kind(in_local_header(26, "<H", 3), DAMAGED),
    "a table of contents beyond the end": Kind(at_the_end(16, "<I", 0x7FFFFFFF), DAMAGED),
    "a table of contents that says that it begins later": Kind(at_the_end(16, "<I", 0x7FFFFFF), DAMAGED),
    "a table of contents of 2 GB": Kind(at_the_end(12, "<I", 0x7FFFFFFF), DAMAGED + "|table of contents"),
    "a table of contents of 2^60 bytes": Kind(zip64_end, DAMAGED),
    # What a ZIP may be, and a backup is not
    "encrypted": Kind(in_directory(8, "<H", 1), "encrypted"),
    "packed by bzip2": Kind(packed_by(zipfile.ZIP_BZIP2), "do not use. Unpack the file, then pack it again"),
    "packed by LZMA": Kind(packed_by(zipfile.ZIP_LZMA), "do not use. Unpack the file, then pack it again"),
    "packed by nobody knows what": Kind(in_directory(10, "<H", 99), "compressed in a way"),
    "a link": Kind(appended(entry(stat.S_IFLNK), "/etc/passwd"), "core/link.json.*link"),
    "a device": Kind(appended(entry(stat.S_IFCHR)), "core/link.json"),
    "a member twice": Kind(appended(FEEDING), f"{FEEDING}.*twice"),
    "metadata twice": Kind(appended("metadata.json", "{}"), "metadata.json.*twice"),
    "a ZIP in a ZIP": Kind(lambda b: packed({"backup.zip": b}).getvalue(), "no metadata.json"),
    "a file of records in a ZIP": Kind(
        lambda b: packed({"dump.json": b"[]"}).getvalue(), "holds “dump.json”"
    ),
    "a ZIP beside": Kind(lambda b: one_more("more.zip", b)(b), "more.zip"),
    "an absolute name": Kind(one_more("/etc/cron.d/evil"), "/etc/cron.d/evil"),
    "a climbing name": Kind(one_more("../../../etc/passwd"), r"\.\./etc/passwd"),
    "a climbing name of Windows": Kind(one_more("..\\..\\evil.json"), "evil.json"),
    "a drive": Kind(one_more("C:/evil.json"), "C:/evil.json"),
    "a name with NUL": Kind(
        lambda b: one_more("evil.txt*.json")(b).replace(b"evil.txt*", b"evil.txt\0"), "evil.txt|damaged"
    ),
    "a name of two lines": Kind(one_more("a\nb.json"), "a.b.json"),
    "a name in red": Kind(one_more("\x1b[31mevil.json"), "31mevil.json"),
    "a name that is HTML": Kind(one_more("<script>alert(1)</script>.json"), "<script>"),
    "a name that runs backwards": Kind(one_more("\u202egnp.json"), "gnp.json"),
    "a name without end": Kind(one_more("x" * 60_000), "x…"),
    "a member twice, once with a backslash": Kind(one_more("core\\feeding.json"), f"{FEEDING}.*twice"),
    "a member that nobody knows": Kind(one_more("README.txt"), "README.txt"),
    "two folders around it": Kind(
        lambda b: packed({f"a/b/{n}": d for n, d in unpacked(io.BytesIO(b)).items()}).getvalue(),
        "no metadata.json",
    ),
    "a climbing folder around it": Kind(
        lambda b: packed({f"../{n}": d for n, d in unpacked(io.BytesIO(b)).items()}).getvalue(),
        "no metadata.json",
    ),
    "a folder with something in it": Kind(one_more("core/", b"x"), "core/"),
    "a member that is missing": Kind(members(lambda c, m: c.pop(FEEDING)), f"{FEEDING}.*missing"),
    "metadata that is missing": Kind(members(lambda c, m: c.pop("metadata.json")), "metadata.json.*missing"),
    # Bombs
    "a bomb by ratio": Kind(lambda b: one_line(b'{"x":"' + b" " * 40_000_000 + b'"}')(b), "fold", 413),
    "a bomb that claims to be small": Kind(
        lambda b: bomb(FEEDING, b"[\n" + b" " * 300_000_000, 20)(b), f"{DAMAGED}|{FEEDING}"
    ),
    "metadata that claims to be small": Kind(
        lambda b: bomb("metadata.json", b" " * 300_000_000, 20)(b), "metadata.json|damaged"
    ),
    "more than the limit": Kind(
        one_line(b'{"x":"%b"}' % noise(300_000).hex().encode()), "BACKUP_MAX_UNCOMPRESSED", 413, limit=400_000
    ),
    "five thousand members": Kind(
        members(lambda c, m: c.update({f"core/x{n}.json": b"" for n in range(5000)})),
        "5\\d\\d\\d members",
        413,
    ),
    # More than the table of contents of as many photos as may be takes.
    "names of megabytes": Kind(
        members(lambda c, m: c.update({f"{n}{'y' * 60_000}": b"" for n in range(520)})), "table of contents"
    ),
    "names longer than those of files": Kind(
        members(lambda c, m: c.update({f"{n}{'y' * 60_000}": b"" for n in range(60)})), "does not list"
    ),
    "metadata of megabytes": Kind(members(lambda c, m: m.update(x=noise(2_000_000).hex())), "metadata.json"),
    "a line without end": Kind(
        lambda b: one_line(b'{"x":"' + endless().encode(), zipfile.ZIP_STORED)(b),
        f"{FEEDING}.*MB",
        413,
        limit=2**30,
    ),
    "white space without end": Kind(
        lambda b: content(b"[\n" + b" " * 80_000_000, count=1)(b), "fold|MB", 413
    ),
    "a comma and no record": Kind(one_line(b",\n"), f"{FEEDING}.*not a list"),
    "half a million values": Kind(
        lambda b: one_line(b'{"x":[' + b"[]," * 600_000 + b"0]}")(b), f"{FEEDING}.*number 1", 413
    ),
    "half a million objects": Kind(
        lambda b: one_line(b'{"x":[' + b'{"":0},' * 600_000 + b"0]}")(b), f"{FEEDING}.*number 1", 413
    ),
    "arrays, deeply nested": Kind(one_line(b"[" * 99_999 + b"]" * 99_999), f"{FEEDING}.*number 1"),
    "objects, deeply nested": Kind(
        one_line(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), f"{FEEDING}.*number 1"
    ),
    "a number of a million digits": Kind(
        one_line(b'{"model":"core.feeding","pk":' + b"9" * 1_000_000 + b',"fields":{}}'), "core.feeding"
    ),
    "metadata, deeply nested": Kind(metadata_text("[" * 99_999), "metadata.json"),
    "metadata with a number of many digits": Kind(
        metadata_text('{"version":' + "9" * 99_999 + "}"), "metadata.json"
    ),
    # Metadata
    "metadata of nothing": Kind(metadata_text(""), "metadata.json"),
    "metadata that is no JSON": Kind(metadata_text("{version: 1.1}"), "metadata.json"),
    "metadata that is no text": Kind(metadata_text(b"\xff\xfe\x00"), "metadata.json"),
    "metadata that is a list": Kind(metadata_text("[]"), "metadata.json"),
    "metadata with a name twice": Kind(
        lambda b: metadata_text(
            unpacked(io.BytesIO(b))["metadata.json"].replace(b"{", b'{"version":"1.0",', 1)
        )(b),
        "metadata.json.*version.*twice",
    ),
    "no version": Kind(without("version"), "version"),
    "a version that is a number": Kind(metadata(version=1.1), "version"),
    "a newer version": Kind(metadata(version="2.0"), "2.0.*newer"),
    "a newer minor version": Kind(metadata(version="1.7"), "1.7.*newer.*update"),
    "a newer minor version with members of its own": Kind(
        members(lambda c, m: (c.update({"photos/1": b"x"}), m.update(version="1.7"))), "1.7.*newer.*update"
    ),
    "a version of Arabic digits": Kind(metadata(version="٢.٠"), "version"),
    "a moment that is none": Kind(metadata(timestamp="yesterday"), "timestamp"),
    "a moment without an offset": Kind(metadata(timestamp="2026-11-23T14:30:22"), "timestamp"),
    "a moment before time": Kind(metadata(timestamp="0001-01-01T00:00:00+23:59"), "timestamp"),
    "a label that is a list": Kind(metadata(label=["x"]), "label"),
    "a label without end": Kind(metadata(label="x" * 99_999), "label"),
    "models that are a list": Kind(metadata(models=[]), "models"),
    "no models": Kind(without("models"), "models"),
    "a model of no name": Kind(
        members(lambda c, m: m["models"].update({"<b>": m["models"]["core.sleep"]})), "models"
    ),
    "two models in one member": Kind(member(file="core/sleep.json"), "models"),
    "a member that is not called what its label says": Kind(
        members(
            lambda c, m: (
                c.update({"core/x.json": c.pop(FEEDING)}),
                m["models"]["core.feeding"].update(file="core/x.json"),
            )
        ),
        "models",
    ),
    "a member's name that is a number": Kind(member(file=7), "models"),
    "fewer than no records": Kind(member(records=-1), "models"),
    "10^30 records": Kind(member(records=10**30), "models"),
    "true records": Kind(member(records=True), "models"),
    "one record too few": Kind(
        members(
            lambda c, m: (
                m["models"]["core.feeding"].update(records=m["models"]["core.feeding"]["records"] - 1),
                m.update(total_records=m["total_records"] - 1),
            )
        ),
        f"{FEEDING}.*records",
    ),
    "a sum that is wrong": Kind(metadata(total_records=10**30), "total_records"),
    "a number of models that is wrong": Kind(metadata(models_count=-1), "models_count"),
    "no checksum": Kind(member(sha256=None), "models"),
    "another checksum": Kind(member(sha256="0" * 64), f"{FEEDING}.*checksum"),
    "migrations that are text": Kind(metadata(migrations="all"), "migrations"),
    "migrations of the future": Kind(
        members(lambda c, m: m["migrations"].update(core=["9999_future"])), "9999_future", 409
    ),
    "a model that is not here": Kind(records(lambda rows: rows.update({"core.evil": []})), "core.evil"),
    # What is not one record a line
    "a member of nothing": Kind(content(b""), FEEDING),
    "a member that is an object": Kind(content(b"{}"), FEEDING),
    "a member that is not closed": Kind(content(lambda data: data[:-3]), FEEDING),
    "a member that goes on": Kind(content(lambda data: data + b"more"), FEEDING),
    "a record that is no JSON": Kind(one_line(b"{'a': 1}"), f"{FEEDING}.*number 1"),
    "a record of bytes": Kind(one_line(b'{"a": "\xff"}'), f"{FEEDING}.*number 1"),
    "half of a surrogate pair": Kind(one_line(b'{"a": "\\ud800"}'), f"{FEEDING}.*number 1"),
    "NaN": Kind(one_line(b'{"a": NaN}'), f"{FEEDING}.*number 1"),
    "a number beyond all": Kind(feeding_line(b'"amount":null', b'"amount":1e999'), f"{FEEDING}|amount"),
    # Records
    "a record that is a number": Kind(
        records(lambda rows: rows["core.feeding"].insert(2, 7)), "core.feeding"
    ),
    "a record that is a list": Kind(records(lambda rows: rows["core.feeding"].insert(2, [])), "core.feeding"),
    "a record of another model": Kind(feeding(another_model), "core.feeding .*another model"),
    "a record without a key": Kind(feeding(lambda r: r.pop("pk")), "core.feeding"),
    "a record without fields": Kind(feeding(lambda r: r.pop("fields")), "core.feeding"),
    "a record with one more part": Kind(feeding(lambda r: r.update(evil=1)), "core.feeding .*evil"),
    "a field that is missing": Kind(feeding(lambda r: r["fields"].pop("amount")), "core.feeding .*amount"),
    "a field that nobody knows": Kind(field(evil=1), "core.feeding .*evil"),
    "a field with a name that is HTML": Kind(field(**{"<img src=x>": 1}), "core.feeding"),
    "a field twice": Kind(
        feeding_line(b'"child":', b'"child":1,"child":'), f"{FEEDING}.*number 1 .*child.*twice"
    ),
    "a key twice in a record": Kind(
        feeding_line(b'"pk":', b'"pk":4711,"pk":'), f"{FEEDING}.*number 1 .*pk.*twice"
    ),
    "a name twice, differently spelt": Kind(
        feeding_line(b'"pk":', b'"\\u0070k" : 4711, "pk" :'), f"{FEEDING}.*number 1 .*pk.*twice"
    ),
    "a record twice": Kind(
        records(lambda rows: rows["core.feeding"].insert(1, rows["core.feeding"][0])), "core.feeding .*twice"
    ),
    "records out of order": Kind(
        records(lambda rows: rows["core.feeding"].reverse()), "core.feeding .*order"
    ),
    "text for a number": Kind(field(amount="much"), "core.feeding .*amount"),
    "true for a number": Kind(field(amount=True), "core.feeding .*amount"),
    "a list for text": Kind(field(notes=["x"]), "core.feeding .*notes"),
    "an object for text": Kind(field(notes={"x": 1}), "core.feeding .*notes"),
    "null where none may be": Kind(field(start=None), "core.feeding .*start"),
    "a day that is none": Kind(field(start="2026-02-30T00:00:00Z"), "core.feeding .*start"),
    "a moment at the edge of time": Kind(field(start="0001-01-01T00:00:00+23:59"), "core.feeding .*start"),
    "a duration of ages": Kind(field(duration="999999999999 00:00:00"), "core.feeding .*duration"),
    "a key that is null": Kind(feeding(lambda r: r.update(pk=None)), "core.feeding"),
    "a key that is text": Kind(feeding(lambda r: r.update(pk="4")), "core.feeding"),
    "a key that is an object": Kind(feeding(lambda r: r.update(pk={})), "core.feeding"),
    "a key beyond 64 bits": Kind(
        records(lambda rows: rows["core.feeding"][-1].update(pk=2**64)), "core.feeding"
    ),
    "a key of 40 digits": Kind(
        records(lambda rows: rows["core.feeding"][-1].update(pk=10**40)), "core.feeding"
    ),
    "a reference that is text": Kind(field(child="1"), "core.feeding .*child"),
    "a reference into nowhere": Kind(field(child=4711), "core.feeding .*child", 409),
    "a relation that is no list": Kind(
        records(lambda rows: rows["auth.user"][0]["fields"].update(groups=7)), "auth.user .*groups"
    ),
    "a relation twice": Kind(
        records(lambda rows: rows["auth.user"][0]["fields"].update(groups=[1, 1])), "auth.user .*groups"
    ),
    "a relation into nowhere": Kind(
        records(lambda rows: rows["auth.user"][0]["fields"].update(groups=[4711])), "auth.user .*groups", 409
    ),
    "a name of a permission that is a number": Kind(
        records(lambda rows: rows["auth.user"][0]["fields"].update(user_permissions=[[1, 2, 3]])),
        "auth.user .*user_permissions",
    ),
    "nobody who could come in": Kind(
        records(lambda rows: [r["fields"].update(is_active=False) for r in rows["auth.user"]]),
        "superuser",
        409,
    ),
    # Photos
    "a photo that leads out of its folder": Kind(photo("../../settings.py"), r"settings\.py.*no name"),
    "a photo with an absolute name": Kind(photo("/etc/cron.d/evil", file="media/x"), "no name|does not list"),
    "a photo on a drive": Kind(photo("C:/evil.jpg"), "no name"),
    "a photo with backslashes": Kind(photo("..\\..\\evil.jpg"), "no name"),
    "a photo with a NUL": Kind(photo("a\0.jpg", file="media/a"), "no name"),
    "a photo with a line break": Kind(photo("a\n.jpg"), "no name"),
    "a photo without a name": Kind(photo(""), "no name"),
    "a photo of a folder": Kind(photo("notes/", file="media/notes/x"), "no name"),
    "a photo with an endless name": Kind(photo("x" * 5000), "no name"),
    "a photo that an operating system added": Kind(photo("Thumbs.db"), "no name"),
    "a photo twice": Kind(photos(photo(), photo()), "twice"),
    "a photo of another size": Kind(photo(stored=b"xx"), r"a\.jpg.*bytes"),
    "a photo of fewer than no bytes": Kind(photo(size=-1), "media"),
    "a photo of 10^30 bytes": Kind(photo(size=10**30), "media"),
    "a photo whose checksum is a path": Kind(photo(sha256="../../../etc/passwd"), "media"),
    "a photo that is missing": Kind(photos(photo("b.jpg"), photo(stored="")), r"a\.jpg.*missing"),
    "a photo that nobody lists": Kind(one_more("media/more.jpg"), r"more\.jpg"),
    "photos that are an object": Kind(metadata(version="1.2", includes_media=True, media={}), "media"),
    "photos where there are none": Kind(
        members(lambda c, m: (photo_into(c, m), m.update(includes_media=False))), "includes_media"
    ),
    "a photo where records are": Kind(
        members(
            lambda c, m: photo_into(
                c,
                m,
                "a.json",
                m["models"].update(
                    {
                        "media.a": {
                            "file": "media/a.json",
                            "records": 0,
                            "sha256": hashlib.sha256(b"[\n]\n").hexdigest(),
                        }
                    }
                ),
            )
        ),
        "media|models_count",
    ),
    "a bomb in place of a photo": Kind(
        lambda b: photo(content=bytes(30_000_000), stored=bytes(30_000_000))(b), "fold", 413
    ),
    "photos without end": Kind(
        members(
            lambda c, m: m.update(
                version="1.2",
                includes_media=True,
                media=[{"name": f"{n}.jpg", "size": 0, "sha256": "0" * 64} for n in range(50_001)],
            )
        ),
        "BACKUP_MAX_PHOTOS",
        413,
    ),
    # Version 1.0, which has no checksums
    "1.0: a name of no model": Kind(version_1_0("[]", "../core/feeding.json"), r"\.\./core"),
    "1.0: a text without end": Kind(
        lambda b: version_1_0('[{"x":"' + endless(), method=zipfile.ZIP_STORED)(b), FEEDING, 413, limit=2**30
    ),
    "1.0: deeply nested": Kind(version_1_0("[" * 300_000), "fold|" + FEEDING),
    "1.0: no list": Kind(version_1_0('{"a": 1}'), FEEDING),
    "1.0: a name twice": Kind(
        version_1_0('[{"model": "core.feeding", "pk": 1, "pk": 2, "fields": {}}]'), f"{FEEDING}.*pk.*twice"
    ),
}


# --- The trial --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(django_db_setup, django_db_blocker):
    """(a sound backup, the state of the host). What is refused changes nothing, so it serves for all."""
    with django_db_blocker.unblock():
        django_db_setup.put_back()
        fill(days=1, children=1, odd=False)
        for model in (core.WeightPercentile, core.HeightPercentile):
            model.objects.all().delete()  # thousands, and not the matter here
        yield take().getvalue(), snapshot()


@contextlib.contextmanager
def bounded(memory=256 * 1024 * 1024, seconds=120):
    """Little memory, that of C included; and an end, should there be none."""
    if sys.platform != "linux":
        yield
        return
    import resource

    def too_long(*args):
        raise TimeoutError

    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * os.sysconf("SC_PAGESIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


@contextlib.contextmanager
def on_disk(data):
    """A file as an upload is one: other than one in memory, it cannot be read from before its beginning."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        yield file


def said_of(data, **options):
    """What is said when it is restored."""
    with on_disk(data) as file, pytest.raises(BackupError) as caught, bounded():
        restore(file, **options)
    return caught.value


def is_seen_by_a_preview(data, error):
    """Where what is wrong is the file."""
    told = []
    with on_disk(data) as file, contextlib.suppress(BackupError), bounded():
        told.append(inspect(file, clear=False))
    return not told or error.status == 409


@pytest.mark.parametrize("name", KINDS)
def test_a_hostile_file_is_refused(home, name, settings):
    backup, before = home
    kind = KINDS[name]
    settings.BACKUP_MAX_UNCOMPRESSED_SIZE = kind.limit
    file = kind.build(backup)
    assert file != backup
    for clear in (True, False) if ALL else (True,):  # a preview of the other mode follows
        error = said_of(file, clear=clear)
        assert re.search(kind.says, str(error)), str(error)
        assert error.status == kind.status
        for line in (error.message, *error.details):
            assert len(line) < 500
            assert line.isprintable()
        assert error.message[-1] in ".:" or isinstance(error, InvalidRecord)
    assert is_seen_by_a_preview(file, error)
    assert not differences(before, snapshot())


def test_there_are_enough_of_them():
    assert len(KINDS) >= 60


def test_a_sound_file_is_not_refused(home):
    """Else the table would prove nothing."""
    backup, before = home
    for file in (backup, rewritten(io.BytesIO(backup)).getvalue()):
        for clear in (True, False):
            with bounded():
                services.inspect_backup(io.BytesIO(file), how(clear=clear))
                services.restore_backup(io.BytesIO(file), how(clear=clear))
            assert not differences(before, snapshot())


def test_a_text_of_many_commas_is_no_hostile_file(home):
    """What bounds the values of a record does not bound its words."""
    backup, before = home
    file = field(notes='a,b,"c",{[' * 120_000)(backup)
    services.restore_backup(io.BytesIO(file), how(clear=False))
    services.restore_backup(io.BytesIO(backup), how(clear=False))
    assert not differences(before, snapshot())

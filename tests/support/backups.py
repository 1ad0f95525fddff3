"""Backups as the tests need them: taken, read, and rewritten by other means than the code under test."""

import hashlib
import io
import json
import zipfile

import pytest

from backup import services
from backup.archive import RECORDS, Archive, Limits, Writer
from backup.options import Part, RestoreMode, RestoreOptions, Silent
from tests.support.snapshots import differences, snapshot


def take(**options):
    """A backup of the database as it is now, as a file in memory."""
    file = io.BytesIO()
    services.create_backup(file, **options)
    return file


def how(*, clear, clear_unknown_apps=False, parts=tuple(Part)):
    """The options of a restore."""
    mode = RestoreMode.CLEAR if clear else RestoreMode.OVERWRITE
    return RestoreOptions(mode, clear_unknown_apps=clear_unknown_apps, parts=parts)


class Telling(Silent):
    """A reporter that calls a function with each progress."""

    def __init__(self, function):
        self.progress = function


def restore(file, *, clear, clear_unknown_apps=False, parts=tuple(Part), **options):
    file.seek(0)
    how_to = how(clear=clear, clear_unknown_apps=clear_unknown_apps, parts=parts)
    return services.restore_backup(file, how_to, **options)


def inspect(file, *, clear, parts=tuple(Part), **options):
    file.seek(0)
    return services.inspect_backup(file, how(clear=clear, parts=parts), **options)


def metadata_of(file):
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read("metadata.json"))


def records_of(file):
    """Model label -> its records."""
    with zipfile.ZipFile(file) as archive:
        return {
            label: json.loads(archive.read(member["file"]))
            for label, member in json.loads(archive.read("metadata.json"))["models"].items()
        }


def checksums_of(file):
    return {label: member["sha256"] for label, member in metadata_of(file)["models"].items()}


def rewritten(file, change=None, change_metadata=None):
    """A sound backup, but with other records. `change` gets model label -> list of records."""
    metadata, records = metadata_of(file), records_of(file)
    if change:
        change(records)
    contents = {f"{label.replace('.', '/')}.json": (label, lines(rows)) for label, rows in records.items()}
    metadata["models"] = {
        label: {"file": name, "records": len(records[label]), "sha256": hashlib.sha256(data).hexdigest()}
        for name, (label, data) in contents.items()
    }
    metadata["models_count"] = len(records)
    metadata["total_records"] = sum(map(len, records.values()))
    if change_metadata:
        change_metadata(metadata)
    return packed(
        {"metadata.json": json.dumps(metadata), **{name: data for name, (_, data) in contents.items()}}
    )


def lines(records):
    """A member's bytes: one record a line."""
    rows = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    return (f"[\n{rows}\n]\n" if rows else "[\n]\n").encode()


def packed(members, method=zipfile.ZIP_DEFLATED):
    """A ZIP of these: name -> content."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    file.seek(0)
    return file


def unpacked(file):
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def encrypted(file, key):
    """The same backup, encrypted."""
    target = io.BytesIO()
    file.seek(0)
    with Archive(file, Limits()) as archive, Writer(target) as writer:
        writer.encrypt(key, archive.metadata)
        for label, member in archive.metadata.models.items():
            writer.write(member.file, archive.read(member))
            writer.register(RECORDS, label, member)
        writer.finish(archive.metadata)
    target.seek(0)
    return target


def refused(file, error, *, clear=False, **options):
    """The error of a restore that is refused, and has changed nothing."""
    before = snapshot()
    with pytest.raises(error) as caught:
        restore(file, clear=clear, **options)
    assert type(caught.value) is error
    assert not differences(before, snapshot())
    return caught.value

"""Makes, reads and rewrites backups for tests, with as little of the code under test as possible."""

import hashlib
import io
import json
import zipfile

import pytest

from backup import services
from backup.archive import RECORDS, Archive, Limits, Writer
from backup.exceptions import BackupError, DamagedBackup, InvalidBackup
from backup.options import Part, RestoreMode, RestoreOptions, Silent
from backup.storage.kept import BackupKind, StoredBackup
from tests.support.snapshots import differences, snapshot


def take(**options):
    """Return a backup of the database as it is now, as a file in memory."""
    file = io.BytesIO()
    services.create_backup(file, **options)
    return file


def how(*, clear, clear_unknown_apps=False, parts=tuple(Part)):
    """Return the options of a restore."""
    mode = RestoreMode.CLEAR if clear else RestoreMode.OVERWRITE
    return RestoreOptions(mode, clear_unknown_apps=clear_unknown_apps, parts=parts)


class Telling(Silent):
    """A reporter that calls a function with each progress."""

    def __init__(self, function):
        self.progress = function


def restore(file, *, clear, clear_unknown_apps=False, parts=tuple(Part), **options):
    """Restore a backup, and return the result. `options`: those of `services.restore_backup`."""
    file.seek(0)
    how_to = how(clear=clear, clear_unknown_apps=clear_unknown_apps, parts=parts)
    return services.restore_backup(file, how_to, **options)


def inspect(file, *, clear, parts=tuple(Part), **options):
    """Return the plan of a restore."""
    file.seek(0)
    return services.inspect_backup(file, how(clear=clear, parts=parts), **options)


def metadata_of(file):
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read("metadata.json"))


def records_of(file):
    """Return model label -> list of its records."""
    with zipfile.ZipFile(file) as archive:
        return {
            label: json.loads(archive.read(member["file"]))
            for label, member in json.loads(archive.read("metadata.json"))["models"].items()
        }


def checksums_of(file):
    """Return model label -> SHA-256 of its member."""
    return {label: member["sha256"] for label, member in metadata_of(file)["models"].items()}


def rewritten(file, change=None, change_metadata=None):
    """Return a valid backup with other records. `change` gets model label -> list of records, `change_metadata` the
    metadata; both change them in place."""
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


def spoiled(data, what="core/"):
    """Return the bytes of a backup with one byte of its records changed. `what`: of the largest member that has such a
    name. Elsewhere in a ZIP there are bytes that nobody reads."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = [info for info in file.infolist() if info.filename.startswith(what)]
    member = max(members, key=lambda info: info.compress_size)
    changed = bytearray(data)
    changed[member.header_offset + 100 + member.compress_size // 2] ^= 0x55
    return bytes(changed)


def lines(records):
    """Return the bytes of a member, one record a line."""
    rows = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    return (f"[\n{rows}\n]\n" if rows else "[\n]\n").encode()


def packed(members, method=zipfile.ZIP_DEFLATED):
    """Return a ZIP, as a file in memory. `members`: name -> content."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    file.seek(0)
    return file


def unpacked(file):
    """Return name -> content of the entries of a ZIP."""
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def encrypted(file, key):
    """Return the same backup, encrypted."""
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


def stored(created, *, name, kind=BackupKind.AUTOMATIC, site="", **more):
    """Return a `StoredBackup` without a file. `created`: aware; `more`: other attributes."""
    other = {"state": "", "by": "", "label": "", "size": 1, "baby_buddy": "", "counts": {}} | more
    return StoredBackup(name=name, kind=kind, created=created, site=site, **other)


def refused(file, error, *, clear=False, **options):
    """Assert that a restore is refused with this class of error, and changes nothing. Return the error."""
    before = snapshot()
    with pytest.raises(error) as caught:
        restore(file, clear=clear, **options)
    assert type(caught.value) in (error, DamagedBackup if error is InvalidBackup else error)
    assert not differences(before, snapshot())
    return caught.value


def refused_by(reader, error, *arguments):
    """Assert that `reader` raises this class of error, and that its message is one sentence. Return the message."""
    with pytest.raises(BackupError) as caught:
        reader(*arguments)
    assert type(caught.value) in (error, DamagedBackup if error is InvalidBackup else error)
    message = caught.value.message
    assert message[-1] == "."
    assert message.isprintable()
    assert len(message) < 400
    return message

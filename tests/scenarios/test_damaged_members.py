"""Damage to a backup file: it is named, a superuser can leave it out, and nothing that was lost comes back wrong."""

import io
import json
import zipfile

import pytest
from core import models as core
from django.core.management import CommandError, call_command
from django.urls import reverse

from backup import services
from backup.exceptions import BackupError, InvalidBackup
from backup.options import RestoreMode, RestoreOptions
from backup.proof import Verdict
from tests.support.backups import metadata_of, packed, records_of, take, unpacked
from tests.support.http import error_of, script, upload

MODES = RestoreMode.OVERWRITE, RestoreMode.CLEAR
LEFT_OUT = {mode: RestoreOptions(mode, leave_out=True) for mode in MODES}


def data_of(data, name):
    """Where the packed bytes of a member begin and end."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = archive.getinfo(name)
    header = data[info.header_offset : info.header_offset + 30]
    start = (
        info.header_offset
        + 30
        + int.from_bytes(header[26:28], "little")
        + int.from_bytes(header[28:], "little")
    )
    return start, start + info.compress_size


def flipped(file, name, where=0.5):
    """The file with a bit flipped in a member."""
    data = bytearray(file.getvalue())
    start, end = data_of(bytes(data), name)
    data[start + int((end - start - 1) * where)] ^= 0x10
    return io.BytesIO(bytes(data))


def without(file, name):
    members = unpacked(file)
    del members[name]
    return packed(members)


def cut_off(file, name="metadata.json"):
    """The file as an interrupted download leaves it, which has come to the middle of a member."""
    start, end = data_of(file.getvalue(), name)
    return io.BytesIO(file.getvalue()[: (start + end) // 2])


@pytest.fixture
def many(family):
    """A family with so many notes that a part of them can be read."""
    core.Note.objects.bulk_create(
        core.Note(child=family.children[0], note=f"No. {n} of many: {n**5 % 7919}") for n in range(400)
    )
    return family


@pytest.mark.parametrize("where", [0.02, 0.5, 0.97])
@pytest.mark.parametrize("mode", MODES)
def test_a_flipped_bit_costs_what_comes_after_it(many, mode, where):
    file = take()
    before = {record["pk"]: record for record in records_of(file)["core.note"]}
    damaged = flipped(file, "core/note.json", where)
    for options in (RestoreOptions(mode), RestoreOptions(mode, edited=True)):
        for do in (services.inspect_backup, services.restore_backup):
            with pytest.raises(InvalidBackup, match=r"“core/note\.json” in the backup is damaged") as caught:
                do(damaged, options)
            assert caught.value.offer == "leave_out"

    core.Note.objects.all().delete()
    core.Feeding.objects.all().delete()
    plan = services.inspect_backup(damaged, LEFT_OUT[mode])
    result = services.restore_backup(damaged, LEFT_OUT[mode])
    for warnings in (plan.warnings, result.warnings):
        assert any("core.note" in line and "core/note.json" in line for line in warnings)
        assert any("in part only" in line for line in warnings) == mode.clears
    assert result.restored["core.note"] == core.Note.objects.count() == plan.records["core.note"]
    assert core.Note.objects.count() <= len(before)
    assert where < 0.1 or core.Note.objects.count() > (where - 0.3) * len(before)
    assert core.Feeding.objects.count() == len(records_of(file)["core.feeding"])


def test_a_missing_member_counts_as_empty(many):
    damaged = without(take(), "core/timer.json")
    for options in (RestoreOptions(), RestoreOptions(edited=True)):
        with pytest.raises(InvalidBackup, match=r"“core/timer\.json” is missing") as caught:
            services.inspect_backup(damaged, options)
        assert caught.value.offer == "leave_out"
    result = services.restore_backup(damaged, RestoreOptions(RestoreMode.CLEAR, edited=True, leave_out=True))
    assert any("core/timer.json" in line for line in result.warnings)
    assert not core.Timer.objects.exists()
    assert core.Note.objects.exists()


@pytest.mark.parametrize(
    "how", [lambda f: flipped(f, "metadata.json"), cut_off, lambda f: cut_off(f, "core/note.json")]
)
def test_a_backup_without_its_metadata_or_its_end(many, how):
    file = take()
    damaged = how(file)
    with pytest.raises(
        InvalidBackup, match=r"metadata\.json” in the backup|end of the file is missing"
    ) as caught:
        services.inspect_backup(damaged, RestoreOptions())
    assert caught.value.offer == "leave_out"
    core.Child.objects.all().delete()
    result = services.restore_backup(damaged, LEFT_OUT[RestoreMode.OVERWRITE])
    assert any("metadata.json" in line for line in result.warnings)
    assert core.Child.objects.count() == len(records_of(file)["core.child"])

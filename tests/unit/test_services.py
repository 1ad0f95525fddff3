"""Whole backups and restores, each proved by comparing every field of every row."""

import datetime as dt
import hashlib
import json
import zipfile
from itertools import pairwise
from zoneinfo import ZoneInfo

import django
import pytest
from babybuddy import VERSION
from django.core import serializers
from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader
from django.utils import timezone

from backup import services
from backup.database import database_of, memo
from backup.exceptions import AlreadyRestored, BackupError, NoSafetyCopy
from backup.tables import Table
from tests.support.backups import (
    Telling,
    checksums_of,
    how,
    inspect,
    metadata_of,
    records_of,
    restore,
    rewritten,
    take,
    unpacked,
)
from tests.support.changing import change_everything, models_kept
from tests.support.snapshots import differences, snapshot

# --- Out and back in --------------------------------------------------------------------------------------


def both(backup, present):
    """The snapshot that is due when `backup` was written over `present`, where all keys mean the same."""
    result = {}
    for model in models_kept():
        label = model._meta.label_lower
        result[label] = {**present[label], **backup[label]}
        if model._meta.auto_created:
            # A relation belongs to its owner, and is the backup's where the backup holds the owner.
            owner = model._meta.local_concrete_fields[1].remote_field.model._meta.label_lower
            kept = {pair: n for pair, n in present[label].items() if pair[0] not in backup[owner]}
            result[label] = {**kept, **backup[label]}
    return result


#: Tables of keys and names alone, and those whose only row is deleted; beside the pairs of many-to-many relations.
NOTHING_TO_CHANGE = {
    "auth.group",
    "zoo.bell",
    "zoo.bird",
    "zoo.blanket",
    "zoo.camera",
    "zoo.coin",
    "zoo.day",
    "zoo.egg",
    "zoo.keeper",
    "zoo.key",
    "zoo.kindnote",
    "zoo.lap",
    "zoo.link",
    "zoo.lock",
    "zoo.parrot",
    "zoo.passport",
    "zoo.privilege",
    "zoo.rule",
    "zoo.sample",
    "zoo.sighting",
    "zoo.species",
    "zoo.training",
}


@pytest.fixture
def changed(filled):
    """(snapshot, backup, snapshot after a change in every table)."""
    before, file = snapshot(), take()
    change_everything()
    return before, file, snapshot()


def test_the_change_reaches_every_table(changed):
    before, _, after = changed
    unchanged = set()
    for label, rows in before.items():
        assert rows.keys() - after[label].keys(), f"nothing was deleted from {label}"
        assert after[label].keys() - rows.keys(), f"nothing was added to {label}"
        if all(rows[key] == after[label][key] for key in rows.keys() & after[label].keys()):
            unchanged.add(label)
    assert unchanged == {label for label in before if "_" in label} | NOTHING_TO_CHANGE


def test_clearing_brings_everything_back(changed):
    before, file, _ = changed
    result = restore(file, clear=True)
    assert not differences(before, snapshot())
    assert result.restored == {label: len(rows) for label, rows in records_of(file).items()}
    assert result.records == metadata_of(file)["total_records"]


def test_overwriting_keeps_what_was_added_since(changed):
    before, file, after = changed
    restore(file, clear=False)
    assert not differences(both(before, after), snapshot())


@pytest.mark.parametrize("clear", [True, False])
def test_restoring_twice_changes_nothing(filled, clear):
    before, file = snapshot(), take()
    for _ in range(2):
        restore(file, clear=clear)
        assert not differences(before, snapshot())


def test_a_backup_of_what_was_restored_is_the_same_backup(changed):
    _, file, _ = changed
    restore(file, clear=True)
    assert checksums_of(take()) == checksums_of(file)


@pytest.mark.parametrize("clear", [True, False])
def test_what_a_vendor_does_faster_it_does_the_same(changed, clear, monkeypatch):
    """By the fields' own conversions, as on a database that we know nothing of."""
    before, file, after = changed
    vendor = type(database_of())
    hooks = {"fast_reader", "fast_writer", "pack_rows", "insert_packed_rows", "update_rows"}
    names = hooks & vars(vendor).keys()
    assert len(names) >= 4
    for name in names:
        monkeypatch.delattr(vendor, name)
    restore(file, clear=clear)
    assert not differences(before if clear else both(before, after), snapshot())
    slow = take()
    monkeypatch.undo()
    assert checksums_of(slow) == checksums_of(take())


def test_the_preview_and_the_counts_of_a_restore_agree(changed):
    before, file, after = changed
    for clear in (True, False):
        file.seek(0)
        plan = services.inspect_backup(file, how(clear=clear))
        for label, changes in plan.changes.items():
            old, new = after[label], before[label]
            assert changes.added - changes.replaced == len(new.keys() - old.keys()), label
            same_key = changes.changed + changes.unchanged + changes.replaced
            assert same_key == len(new.keys() & old.keys()), label
            assert changes.removed == (len(old.keys() - new.keys()) if clear else changes.replaced), label
            assert changes.unchanged <= sum(old[key] == row for key, row in new.items() if key in old), label
    assert not differences(after, snapshot()), "a preview changes nothing"


def test_undo_brings_back_what_a_restore_replaced(changed):
    before, file, after = changed
    with pytest.raises(NoSafetyCopy):
        services.undo_restore()
    restore(file, clear=True)
    undo = services.undo_restore()
    assert not differences(after, snapshot())
    with pytest.raises(AlreadyRestored, match=undo.safety_copy):
        services.undo_restore()  # sent again, it must not undo the undo
    assert not differences(after, snapshot())
    services.undo_restore(safety_copy=undo.safety_copy)  # said so, it does
    assert not differences(before, snapshot())


def test_progress_reaches_the_end(filled):
    told = []
    file = take(reporter=Telling(lambda *args: told.append(args)))
    total = metadata_of(file)["total_records"]
    assert told[-1][1:] == (total, total)
    told.clear()
    restore(file, clear=True, reporter=Telling(lambda *args: told.append(args)))
    starts = [n for n, (before, after) in enumerate(pairwise(told), 1) if after[1] < before[1]]
    written = told[starts[-1] :]
    assert written[-1][1:] == (total, total)
    assert [done for _, done, _ in written] == sorted(done for _, done, _ in written)


def test_a_backup_changes_nothing(filled):
    before = snapshot()
    take()
    assert not differences(before, snapshot())


def test_neither_runs_inside_of_a_transaction(filled):
    before, file = snapshot(), take()
    with transaction.atomic(), pytest.raises(BackupError):
        restore(file, clear=True)
    assert not differences(before, snapshot())


def test_excluded_models_are_neither_written_nor_touched(filled, settings):
    settings.BACKUP_EXCLUDE = ["core.Timer", "zoo"]
    file = take()
    labels = metadata_of(file)["models"].keys()
    assert "core.timer" not in labels
    assert not [label for label in labels if label.startswith("zoo.")]
    assert "core.feeding" in labels
    change_everything()
    present = snapshot()
    restore(file, clear=False)
    after = snapshot()
    for label in ("core.timer", "zoo.parrot", "zoo.specimen", "zoo.reserved"):
        assert after[label] == present[label]


# --- The file ---------------------------------------------------------------------------------------------


def test_metadata_is_true(filled):
    began = timezone.now()
    file = take(user=filled.reader, label="Before the update ✓")
    metadata, members = metadata_of(file), unpacked(file)
    moment = dt.datetime.fromisoformat(metadata.pop("timestamp"))
    assert began <= moment <= timezone.now()
    assert moment.utcoffset() == moment.astimezone(ZoneInfo("Asia/Jerusalem")).utcoffset()

    tables = {label: rows for label, rows in snapshot().items() if label in metadata["models"]}
    leaves = MigrationLoader(connection).graph.leaf_nodes()  # all are applied: the host was just migrated
    for app, names in metadata.pop("migrations").items():
        assert names == sorted(name for label, name in leaves if label == app), app
    for label, member in metadata.pop("models").items():
        data = members[member["file"]]
        assert member["sha256"] == hashlib.sha256(data).hexdigest()
        assert member["records"] == len(json.loads(data)) == len(tables[label])
        assert member["file"] == f"{label.replace('.', '/')}.json"
    assert metadata == {
        "version": "1.1",
        "timezone": "Asia/Jerusalem",
        "created_by": "saba@home",
        "label": "Before the update ✓",
        "instance": memo.site_id(),
        "babybuddy_version": VERSION,
        "django_version": django.get_version(),
        "database_engine": connection.vendor,
        "models_count": len(tables),
        "total_records": sum(map(len, tables.values())),
        "includes_media": False,
        # A key that is named, as some in the zoo are, moves no sequence of PostgreSQL's.
        **({"next_keys": {"zoo.reserved": 1}} if connection.vendor == "postgresql" else {}),
    }
    kept = {model._meta.label_lower for model in models_kept() if not model._meta.auto_created}
    assert tables.keys() == kept


def of_site(instance):
    def change(metadata):
        metadata["instance"] = instance

    return change


@pytest.mark.parametrize("clear", [True, False])
def test_a_backup_of_another_site_is_said_to_be_one(family, clear):
    warned = "The backup was made by another Baby Buddy site"
    own = take()
    for file, said in [
        (own, False),
        (rewritten(own, change_metadata=of_site("0123456789ab")), True),
        (rewritten(own, change_metadata=of_site("")), False),
        (rewritten(own, change_metadata=lambda metadata: metadata.pop("instance")), False),
    ]:
        for warnings in (inspect(file, clear=clear).warnings, restore(file, clear=clear).warnings):
            assert any(line.startswith(warned) for line in warnings) == said


def test_the_zip_is_plain_and_deflated(filled):
    file = take()
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_DEFLATED}
    assert len(names) == len(set(names)) == metadata_of(file)["models_count"] + 1
    assert {"metadata.json", "auth/user.json", "babybuddy/settings.json", "core/feeding.json"} <= {*names}


def test_members_have_one_record_a_line_in_the_order_of_keys(filled):
    file = take()
    members = unpacked(file)
    for label, member in metadata_of(file)["models"].items():
        first, *lines, last, end = members[member["file"]].decode().split("\n")
        assert (first, last, end) == ("[", "]", ""), label
        lines = [line for line in lines if line]
        records = [json.loads(line.removesuffix(",")) for line in lines]
        assert [line.endswith(",") for line in lines] == [True] * (len(lines) - 1) + [False] * bool(lines)
        keys = [record["pk"] for record in records]
        if all(isinstance(key, int) for key in keys):  # the order of others is the database's affair
            assert keys == sorted(keys), label
        assert {record["model"] for record in records} <= {label}


def test_members_are_fixtures(filled):
    """Django's own deserializer reads every record, and finds the values that the database has."""
    file = take()
    records, kept = records_of(file), {model._meta.label_lower: model for model in models_kept()}
    for label, rows in records.items():
        if Table(
            kept[label]
        ).key.is_natural:  # Django writes the number, which another site may have given to others
            continue
        here = {row.pk: row for row in kept[label]._base_manager.all()}
        read = list(serializers.deserialize("json", json.dumps(rows)))
        assert {item.object.pk for item in read} == here.keys(), label
        for item in read:
            row = here[item.object.pk]
            for field in kept[label]._meta.local_concrete_fields:
                found, wanted = value_of(item.object, field), value_of(row, field)
                # repr tells 1 from 1.0 and True, and NaN equals NaN. A field may see None in what it stores as "".
                is_same = repr(found) == repr(wanted) or (
                    wanted is None and field.get_prep_value(None) == found
                )
                assert is_same, (label, row.pk, field.name)
            for name, values in item.m2m_data.items():
                field = kept[label]._meta.get_field(name)
                through = field.remote_field.through._base_manager.filter(**{field.m2m_field_name(): row})
                present = through.values_list(f"{field.m2m_reverse_field_name()}_id", flat=True)
                assert {getattr(value, "pk", value) for value in values} == {*present}, (label, row.pk, name)


def value_of(row, field):
    value = getattr(row, field.attname)
    if value == {"$json": None}:
        return None  # how the file tells JSON's null from SQL's, which Django itself does not
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.timezone.utc)
    return dict(sorted(value.items())) if isinstance(value, dict) else value


def test_nothing_is_lost_in_the_text(filled):
    """What other exports cut, in the file itself."""
    records = records_of(take())
    texts = {record["fields"]["note"] for record in records["core.note"]}
    assert "שלום עם ניקוד: שָׁלוֹם، مرحبا" in texts
    assert any("\u2028" in text for text in texts)
    assert any(len(text) == 200_000 for text in texts)
    assert {None, ""} <= {record["fields"]["image"] for record in records["core.note"]}
    assert {None, ""} <= {record["fields"]["notes"] for record in records["core.feeding"]}
    assert records["core.feeding"][0]["fields"]["duration"].count(".") == 1
    assert all(len(r["fields"]["start"]) == len("2026-03-29T12:00:00.123457Z") for r in records["core.timer"])
    assert 0.1 + 0.2 in {record["fields"]["bmi"] for record in records["core.bmi"]}
    specimen = next(r["fields"] for r in records["zoo.specimen"] if r["fields"]["duration"])
    assert specimen["duration"].startswith("-")
    assert "little-one" in {record["fields"]["slug"] for record in records["core.child"]}
    assert all("." in record["fields"]["created"] for record in records["authtoken.token"])
    assert ["view_child", "core", "child"] in next(
        record["fields"]["permissions"]
        for record in records["auth.group"]
        if record["fields"]["name"] == "grandparents"
    )

"""The comparison of texts finds what the plain way finds: the same changes, the same rows written."""

import hashlib
import json
from collections import Counter
from dataclasses import replace

import orjson
import pytest
from core import models as core
from django.db import connection
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

from backup import babybuddy, scope, site
from backup.archive import open_archive, reader
from backup.database import database_of
from backup.exceptions import InvalidBackup
from backup.options import SILENT, RecordCounter, RestoreMode, RestoreOptions
from backup.restore import apply, batches, build, compare, preview, records
from tests.support.backups import packed, rewritten, take, unpacked
from tests.support.filling import fill
from tests.support.properties import examples
from tests.support.snapshots import snapshot
from tests.zoo import models as zoo


@pytest.fixture(scope="module")
def backup(django_db_setup, django_db_blocker):
    """A small host with values of all kinds, and a backup of it: model label -> records."""
    with django_db_blocker.unblock():
        django_db_setup.put_back()
        fill(days=1, children=2, odd=True)
        for model in (core.WeightPercentile, core.HeightPercentile, zoo.Tide):
            model.objects.all().delete()
        yield take()
        connection.close()


#: With plain keys, with many-to-many relations, with generic references, with JSON, with a key that is a reference.
MODELS = [
    "core.note",
    "core.feeding",
    "core.tagged",
    "core.child",
    "core.timer",
    "zoo.reserved",
    "zoo.keeper",
    "zoo.shelf",
]
KINDS = ["remove", "change", "add", "copy with gap", "reorder", "space", "rekey", "last to first key"]
EDITS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.sampled_from(MODELS), st.integers(0, 40)), min_size=0, max_size=8
)


def edited(file, edits, layout):
    """The backup with other records. `layout`: of lines; as we write them, or in another way."""
    spaced = set()

    def change(records):
        for kind, label, number in edits:
            rows = records[label]
            if rows:
                edit(records, label, rows, rows[number % len(rows)], kind, number, spaced)
        for rows in records.values():
            rows.sort(key=lambda row: (str(type(row["pk"])), row["pk"]))

    members = unpacked(rewritten(file, change))
    metadata = json.loads(members["metadata.json"])
    if layout != "another":
        for member in metadata["models"].values():
            rows = json.loads(members[member["file"]])
            text = b",\n".join(line_of(row, spaced) for row in rows)
            members[member["file"]] = b"[\n" + text + b"\n]\n" if rows else b"[\n]\n"
            member["sha256"] = hashlib.sha256(members[member["file"]]).hexdigest()
    if layout == "1.0":
        metadata["version"] = "1.0"
        del metadata["models"]
    return packed({**members, "metadata.json": json.dumps(metadata)})


def line_of(row, spaced):
    if (row["model"], str(row["pk"])) in spaced:
        return json.dumps(row).encode()
    return orjson.dumps(row)


def edit(records, label, rows, row, kind, number, spaced):
    keys = {r["pk"] for r in rows}
    if kind in ("add", "copy with gap", "rekey") and max(keys) == 2**63 - 1:
        return  # there is no higher key
    if kind == "remove":
        rows.remove(row)
    elif kind == "change":
        for name, value in row["fields"].items():
            if isinstance(value, str) and name in ("note", "notes", "name", "first_name", "color"):
                row["fields"][name] = f"{value}{number}"
            elif isinstance(value, int) and name == "order":
                row["fields"][name] = value + number
    elif kind in ("add", "copy with gap"):
        new = json.loads(json.dumps(row))
        new["pk"] = max(keys) + 1 + (number if kind == "copy with gap" else 0)
        if "slug" in new["fields"]:
            new["fields"]["slug"] += f"-{new['pk']}"
        rows.append(new)
    elif kind == "reorder":
        row["fields"] = dict(reversed(row["fields"].items()))
    elif kind == "space":
        spaced.add((row["model"], str(row["pk"])))
    elif kind == "rekey":
        # With everything that refers to it, so that the file stays sound.
        rekey(records, label, row, max(keys) + 1 + number)
    elif kind == "last to first key":
        free = next((key for key in range(1, max(keys)) if key not in keys), None)
        if free is not None:
            rekey(records, label, rows[-1], free)


def rekey(records, label, row, new):
    old, row["pk"] = row["pk"], new
    if label != "core.child":
        return
    for rows in records.values():
        for other in rows:
            if "child" in other["fields"] and other["fields"]["child"] == old:
                other["fields"]["child"] = new


class RolledBackError(Exception):
    pass


def outcome(file, mode, *, as_text):
    """What a preview says, and what a restore leaves behind."""
    file.seek(0)
    database = database_of()
    tables = site.tables_here()
    found = {}
    with open_archive(file) as archive, batches.Spool() as spool, database.snapshot() as snapshot_reader:
        columns = {table.label: column for table in tables if (column := babybuddy.date_column_of(table))}
        collector = preview.PreviewCollector(spool, mode, columns)
        plan = build.build(
            records.RecordReader(archive, preview=collector),
            snapshot_reader,
            tables,
            spool,
            RestoreOptions(mode),
            superuser=True,
            preview=collector,
            as_text=as_text,
        )
        found["plan"] = plan.as_json()
        found["records"] = plan.metadata
        found["months"] = collector.months, collector.months_here
        found["examples"] = {
            label: replace(samples, added=sorted(samples.added, key=repr))
            for label, samples in collector.samples.items()
        }
        if plan.refusal is not None:
            return found
    file.seek(0)
    with open_archive(file) as archive, batches.Spool() as spool:
        record_reader = records.RecordReader(archive)
        plan = build.build(
            record_reader, database, tables, spool, RestoreOptions(mode), superuser=True, as_text=as_text
        )
        try:
            with database.restoring():
                apply.write(plan, database, tables, record_reader, RecordCounter(SILENT, 0))
                found["after"] = snapshot()
                raise RolledBackError
        except RolledBackError:
            pass
    return found


@examples(10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    edits=EDITS,
    layout=st.sampled_from(["ours", "another", "1.0"]),
    mode=st.sampled_from(RestoreMode),
    block=st.sampled_from([300, 700, 5000, 1 << 18]),
    hopeless=st.sampled_from([0, 2, 5000]),
    piece=st.sampled_from([1, 500, 8192]),
    together=st.sampled_from([0, 1 << 17]),
)
@example(edits=[], layout="ours", mode=RestoreMode.OVERWRITE, block=300, hopeless=0, piece=1, together=0)
@example(
    edits=[("change", "core.feeding", 0)],
    layout="ours",
    mode=RestoreMode.CLEAR,
    block=300,
    hopeless=0,
    piece=1,
    together=0,
)
@example(
    edits=[("rekey", "core.child", 0)],
    layout="ours",
    mode=RestoreMode.OVERWRITE,
    block=300,
    hopeless=5000,
    piece=500,
    together=0,
)
@example(
    edits=[("reorder", "core.note", 1), ("space", "core.note", 2), ("remove", "core.note", 3)],
    layout="ours",
    mode=RestoreMode.OVERWRITE,
    block=700,
    hopeless=5000,
    piece=1,
    together=1 << 17,
)
@example(
    edits=[
        ("change", "core.feeding", 3),
        ("remove", "core.feeding", 7),
        ("copy with gap", "core.feeding", 9),
    ],
    layout="ours",
    mode=RestoreMode.CLEAR,
    block=1 << 18,
    hopeless=5000,
    piece=1,
    together=1 << 17,
)
def test_texts_are_compared_to_the_same_end(backup, edits, layout, mode, block, hopeless, piece, together):
    before = snapshot()
    file = edited(backup, edits, layout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "BLOCK", block)
        patch.setattr(compare, "HOPELESS", hopeless)
        patch.setattr(compare, "PIECE", piece)
        patch.setattr(compare, "TOGETHER", together)
        compared = outcome(file, mode, as_text=True)
        plain = outcome(file, mode, as_text=False)
    assert compared == plain
    assert snapshot() == before, "the test itself"


@pytest.fixture
def partitioned(monkeypatch):
    """The lines that are taken apart, of each model."""
    partitioned = Counter()
    here = compare.TextComparison._identical_rows

    def counted(self, table, lines, batch, text):
        partitioned[table.label] += len(lines)
        return here(self, table, lines, batch, text)

    monkeypatch.setattr(compare.TextComparison, "_identical_rows", counted)
    return partitioned


def test_blocks_that_are_the_same_are_not_taken_apart(backup, monkeypatch, partitioned):
    """The property would hold, too, where nothing was compared as text."""
    monkeypatch.setattr(reader, "BLOCK", 700)
    outcome(backup, RestoreMode.OVERWRITE, as_text=True)
    assert partitioned["core.note"] < core.Note.objects.count() / 2
    assert partitioned["core.feeding"] < core.Feeding.objects.count() / 2


def test_of_a_block_only_what_lies_around_a_change_is_taken_apart(backup, monkeypatch, partitioned):
    monkeypatch.setattr(compare, "PIECE", 1)
    file = edited(backup, [("change", "core.feeding", 3), ("remove", "core.feeding", 7)], "ours")
    outcome(file, RestoreMode.OVERWRITE, as_text=True)
    assert 0 < partitioned["core.feeding"] < core.Feeding.objects.count() / 2


def test_what_is_the_same_stays_where_all_is_cleared(backup, monkeypatch):
    """The property would hold, too, where every row was deleted and written again."""
    cleared, deleted = [], Counter()
    kind = type(database_of())
    clear, between = kind.clear, kind.delete_between

    def clearing(self, tables):
        cleared.extend(table.label for table in tables)
        clear(self, tables)

    def deleting(self, table, ranges):
        count = self.count(table)
        between(self, table, ranges)
        deleted[table.label] += count - self.count(table)

    monkeypatch.setattr(kind, "clear", clearing)
    monkeypatch.setattr(kind, "delete_between", deleting)
    monkeypatch.setattr(reader, "BLOCK", 700)
    file = edited(backup, [("change", "core.feeding", 3), ("remove", "core.feeding", 7)], "ours")
    outcome(file, RestoreMode.CLEAR, as_text=True)
    assert "core.feeding" not in cleared
    assert "core.child" in cleared, "whose records are compared by more than their keys"
    assert "zoo.shelf" in cleared, "whose keys the database does not give: they may be beyond 64 bits"
    # It has a long row, and where long values are cut, all after that is written anew.
    del deleted["core.note"]
    assert +deleted == {"core.feeding": 2}


@pytest.mark.parametrize("as_text", [True, False])
def test_a_record_that_is_not_json_is_named_by_its_number(backup, as_text):
    """Those before it that are here already count, too."""
    members = unpacked(backup)
    metadata = json.loads(members["metadata.json"])
    member = metadata["models"]["core.feeding"]
    lines = members[member["file"]].split(b",\n")
    lines[6] = lines[6].replace(b'"fields":{', b'"fields":{,')
    members[member["file"]] = b",\n".join(lines)
    member["sha256"] = hashlib.sha256(members[member["file"]]).hexdigest()
    file = packed({**members, "metadata.json": json.dumps(metadata)})
    with pytest.raises(InvalidBackup, match="record number 7 is not JSON"):
        outcome(file, RestoreMode.OVERWRITE, as_text=as_text)


TRIGGERS = {
    "sqlite": "CREATE TRIGGER zap AFTER DELETE ON core_child"
    " BEGIN DELETE FROM core_feeding WHERE child_id = OLD.id; END",
    "mysql": "CREATE TRIGGER zap AFTER DELETE ON core_child"
    " FOR EACH ROW DELETE FROM core_feeding WHERE child_id = OLD.id",
    "postgresql": "CREATE FUNCTION zap() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN DELETE FROM core_feeding WHERE child_id = OLD.id; RETURN OLD; END';"
    " CREATE TRIGGER zap AFTER DELETE ON core_child FOR EACH ROW EXECUTE FUNCTION zap()",
}


def test_nothing_stays_where_the_database_deletes_by_itself(backup):
    """A trigger of somebody's own on the children would delete the entries that are the same, and so stayed."""
    with connection.cursor() as cursor:
        cursor.execute(TRIGGERS[connection.vendor])
    try:
        assert outcome(backup, RestoreMode.CLEAR, as_text=True) == outcome(
            backup, RestoreMode.CLEAR, as_text=False
        )
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER zap" + " ON core_child" * (connection.vendor == "postgresql"))


@pytest.mark.skipif(connection.vendor != "postgresql", reason="others do not look while a restore runs")
@pytest.mark.parametrize(
    "rule", ["ON DELETE RESTRICT DEFERRABLE INITIALLY DEFERRED", ""], ids=["acts", "now"]
)
def test_nothing_stays_where_the_database_forbids_to_delete_what_is_referred_to(backup, rule):
    """Children are deleted and written again, while entries that are the same would stay."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conrelid = 'core_feeding'::regclass AND contype = 'f'"
        )
        ((name, definition),) = cursor.fetchall()
        alter = f'ALTER TABLE core_feeding DROP CONSTRAINT "{name}", ADD CONSTRAINT "{name}"'
        reference = definition.split(" DEFERRABLE")[0]
        cursor.execute(f"{alter} {reference} {rule}")
        try:
            assert outcome(backup, RestoreMode.CLEAR, as_text=True) == outcome(
                backup, RestoreMode.CLEAR, as_text=False
            )
        finally:
            cursor.execute(f"{alter} {definition}")


@pytest.fixture
def role(backup):
    """A connection of somebody who may do with the rows of this database what the site does, and no more."""
    if connection.vendor != "mysql":
        pytest.skip("the others show triggers to everybody")
    name = connection.settings_dict["NAME"]
    other = connection.copy()
    other.settings_dict |= {"USER": "backup_role", "PASSWORD": "secret"}
    with connection.cursor() as cursor:
        cursor.execute("DROP USER IF EXISTS 'backup_role'@'%%'", [])
        cursor.execute("CREATE USER 'backup_role'@'%%' IDENTIFIED BY 'secret'", [])
        cursor.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON `{name}`.* TO 'backup_role'@'%%'", [])
        yield other
        other.close()
        cursor.execute("DROP USER 'backup_role'@'%%'", [])


def test_nothing_stays_where_a_trigger_may_be_hidden(role):
    """MariaDB shows triggers to everybody who sees their table; MySQL only to those who may make some."""
    if role.mysql_is_mariadb:
        assert not type(database_of())(role).acts_on_delete()
        role.mysql_is_mariadb = False
    assert type(database_of())(role).acts_on_delete()
    with connection.cursor() as cursor:
        name = connection.settings_dict["NAME"]
        cursor.execute(f"GRANT TRIGGER ON `{name}`.* TO 'backup_role'@'%%'", [])
    role.close()
    assert not type(database_of())(role).acts_on_delete()


def test_no_account_stays(backup, monkeypatch):
    """Who may do what is judged by all rows of accounts, which are written anew."""
    monkeypatch.setattr(scope, "_ACCOUNTS", {"zoo"})
    cleared = []
    kind = type(database_of())
    clear = kind.clear
    monkeypatch.setattr(
        kind, "clear", lambda self, tables: cleared.extend(t.label for t in tables) or clear(self, tables)
    )
    outcome(backup, RestoreMode.CLEAR, as_text=True)
    assert "zoo.sample" in cleared
    assert "core.feeding" not in cleared


def test_few_rows_are_not_compared_with_many_records(backup, monkeypatch):
    """Into a database that is as good as empty, all is written at once."""
    compared = []
    here = compare.TextComparison.compare
    monkeypatch.setattr(
        compare.TextComparison,
        "compare",
        lambda self, table: compared.append(table.label) or here(self, table),
    )
    monkeypatch.setattr(type(database_of()), "count", lambda *args, **options: 1)
    outcome(backup, RestoreMode.CLEAR, as_text=True)
    assert compared.count("core.feeding") == 1, "for the preview only"

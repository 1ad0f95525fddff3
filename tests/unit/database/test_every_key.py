"""Whatever the key of a model is, its rows, their relations and what refers to them come back as they were.

The models are made here, one for each kind of key, with relations to itself and to a model of the next kind.
"""

import datetime as dt
import json
import uuid
from decimal import Decimal

import pytest
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.db import connection, models
from django.test.utils import isolate_apps
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from backup.archive import lines_of
from backup.database import database_of
from backup.restore.key_map import KeyMap
from backup.tables import Table
from tests.support.properties import examples

MYSQL, SQLITE = connection.vendor == "mysql", connection.vendor == "sqlite"
#: Neither NUL, which PostgreSQL does not take, nor surrogates, which are no text; no blank at the end, which MySQL does
#: not count; and no two letters that MySQL takes for the same.
LETTERS = st.characters(
    codec="utf-8", exclude_categories=["C", "Z", "M", "L", "S"], min_codepoint=33
) | st.sampled_from("abcdefgh")
SECONDS = st.integers(-(10**9), 10**9)


def whole(low, high):
    return st.integers(low, high)


#: Name -> what makes the field, and its values.
KEYS = {
    "auto": (models.AutoField, whole(1, 2**31 - 1)),
    "big auto": (models.BigAutoField, whole(1, 2**63 - 1)),
    "small auto": (models.SmallAutoField, whole(1, 2**15 - 1)),
    "integer": (models.IntegerField, whole(-(2**31), 2**31 - 1)),
    "big": (models.BigIntegerField, whole(-(2**63), 2**63 - 1)),
    "positive": (models.PositiveIntegerField, whole(0, 2**31 - 1)),
    "boolean": (models.BooleanField, st.booleans()),
    "uuid": (models.UUIDField, st.uuids(version=4)),
    "char": (lambda **o: models.CharField(max_length=60, **o), st.text(LETTERS, min_size=1, max_size=60)),
    "slug": (models.SlugField, st.from_regex(r"[a-z0-9_-]{1,50}", fullmatch=True)),
    "date": (models.DateField, st.dates(dt.date(1000, 1, 1))),
    "moment": (
        models.DateTimeField,
        st.datetimes(dt.datetime(1000, 1, 2), dt.datetime(9999, 12, 30), timezones=st.just(dt.timezone.utc)),
    ),
    "time": (models.TimeField, st.times()),
    "duration": (models.DurationField, st.timedeltas(dt.timedelta(-90_000), dt.timedelta(90_000))),
    "decimal": (
        lambda **o: models.DecimalField(max_digits=15, decimal_places=5, **o),
        st.decimals(-(10**9), 10**9, places=5, allow_nan=False),
    ),
    "float": (
        models.FloatField,
        st.floats(-1e15, 1e15, allow_subnormal=False).map(lambda value: value + 0.0),
    ),
    "address": (models.GenericIPAddressField, st.ip_addresses().map(str)),
    "binary": (models.BinaryField, st.binary(max_size=40)),
}
if MYSQL:
    del KEYS["binary"]  # it has no index of a whole one
names = [*KEYS]


@pytest.fixture(params=KEYS)
def keyed(request, host_db):
    """The name of a kind of key, and that of the next one; a model of each, the first one with relations to both."""
    name, other_name = request.param, names[(names.index(request.param) + 1) % len(names)]
    with isolate_apps("tests.zoo"):
        meta = type("Meta", (), {"app_label": "zoo"})

        def make(model_name, kind, **fields):
            alike = models.ManyToManyField("self", symmetrical=False)
            key = KEYS[kind][0](primary_key=True)
            body = {"key": key, "alike": alike, **fields, "__module__": __name__, "Meta": meta}
            return type(model_name, (models.Model,), body)

        other = make("Other", other_name)
        model = make("Keyed", name, others=models.ManyToManyField(other, related_name="+"))
        with connection.schema_editor() as editor:
            editor.create_model(other)
            editor.create_model(model)
        yield name, other_name, model, other
        with connection.schema_editor() as editor:
            editor.delete_model(model)
            editor.delete_model(other)


def state(model):
    """What Django itself says of all rows: key -> keys of the relations."""
    rows = {row.pk: {} for row in model._base_manager.all()}
    for field in model._meta.local_many_to_many:
        through = field.remote_field.through
        for pk in rows:
            found = through._base_manager.filter(**{field.m2m_field_name(): pk})
            rows[pk][field.name] = sorted(
                found.values_list(field.m2m_reverse_field_name(), flat=True), key=repr
            )
    return {repr(pk): value for pk, value in rows.items()}


def fill(model, keys, pairs):
    model._base_manager.bulk_create(model(pk=key) for key in keys)
    rows = [*model._base_manager.all()]  # keys as the database has them
    field = model._meta.get_field("alike")
    through = field.remote_field.through
    names = field.m2m_field_name(), field.m2m_reverse_field_name()
    chosen = {(a % len(rows), b % len(rows)) for a, b in pairs} if rows else ()
    through._base_manager.bulk_create(
        through(**{f"{names[0]}_id": rows[a].pk, f"{names[1]}_id": rows[b].pk}) for a, b in chosen
    )
    return rows


def unlike(name):
    """What makes two keys one to the database."""
    if name in ("char", "slug") and MYSQL:
        return lambda key: key.lower()
    if name == "float":
        return lambda key: f"{key:.9e}"
    return repr


def test_keys_of_every_kind_come_back_with_their_relations(keyed):
    name, other_name, model, other = keyed
    database = database_of()
    tables = [Table(other), Table(model)]

    @examples(10, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(KEYS[name][1], max_size=6, unique_by=unlike(name)),
        st.lists(KEYS[other_name][1], min_size=1, max_size=4, unique_by=unlike(other_name)),
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8),
    )
    def check(keys, other_keys, pairs):
        with database.restoring():
            database.clear(tables)
        others = fill(other, other_keys, pairs)
        rows = fill(model, keys, pairs)
        for number, row in enumerate(rows):
            row.others.set(others[: number % 3])
        before = state(model), state(other)

        records = {}
        for table in tables:
            texts = [lines_of(table.record_template, batch) for batch in database.batches(table)]
            records[table] = [json.loads(line) for text in texts for line in text.decode().split(",\n")]
        assert len(records[tables[1]]) == len(rows)
        for write in ("insert", "pack"):
            batches = {
                table: table.batch_from(some, as_it_was=True) for table, some in records.items() if some
            }
            packed = {
                table: database.pack(table, batch) for table, batch in batches.items() if write == "pack"
            }
            with database.restoring(tables):
                database.clear(tables)
                for table, batch in batches.items():
                    if write == "pack":
                        database.insert_packed(table, [(packed[table], lambda batch=batch: batch)])
                    else:
                        database.insert(table, [*zip(*batch, strict=True)])
                assert not database.refused
                assert not database.dangling(tables)
            assert (state(model), state(other)) == before
            again = [row for batch in database.batches(tables[1]) for row in zip(*batch, strict=True)]
            assert again == ([*zip(*batches[tables[1]], strict=True)] if tables[1] in batches else [])
            # Each row is found again by its key, and written over.
            if again:
                assert database.rows_by_key(tables[1], [row[0] for row in again]) == {
                    row[0]: row for row in again
                }
                with database.restoring(tables):
                    database.update(tables[1], again)
                    assert not database.refused
                assert (state(model), state(other)) == before

    check()


@pytest.mark.parametrize(
    ("key", "new"),
    [
        (7, 8),
        (uuid.UUID(int=7), uuid.UUID(int=8)),
        (dt.date(2026, 1, 2), dt.date(2026, 1, 3)),
        (
            dt.datetime(2026, 1, 2, 3, tzinfo=dt.timezone.utc),
            dt.datetime(2026, 1, 2, 4, tzinfo=dt.timezone.utc),
        ),
        (dt.time(1, 2), dt.time(1, 3)),
        (dt.timedelta(1), dt.timedelta(2)),
        (Decimal("0.10"), Decimal("0.20")),
        (1.5, 2.5),
        ("ä", "b"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_generic_reference_follows_a_key_of_every_kind(key, new):
    """It holds the key as text, the way that Python writes it."""
    field = {
        int: models.IntegerField,
        uuid.UUID: models.UUIDField,
        dt.date: models.DateField,
        dt.datetime: models.DateTimeField,
        dt.time: models.TimeField,
        dt.timedelta: models.DurationField,
        Decimal: lambda **o: models.DecimalField(max_digits=5, decimal_places=2, **o),
        float: models.FloatField,
        str: lambda **o: models.CharField(max_length=9, **o),
    }[type(key)](primary_key=True)
    with isolate_apps("tests.zoo"):
        meta = type("Meta", (), {"app_label": "zoo"})
        target = Table(type("Target", (models.Model,), {"key": field, "__module__": __name__, "Meta": meta}))
        body = {
            "content_type": models.ForeignKey(ContentType, models.CASCADE, related_name="+"),
            "object_id": models.CharField(max_length=200),
            "target": GenericForeignKey(),
            "__module__": __name__,
            "Meta": meta,
        }
        label = Table(type("Label", (models.Model,), body))
    key_map = KeyMap()
    key_map.put(target, {target.key.kind.dump(key): target.key.kind.dump(new)})
    (row,) = key_map.remap(label, [(1, ("zoo", "target"), str(key))])
    assert row == (1, ("zoo", "target"), str(new))
    (row,) = key_map.remap(label, [(1, ("zoo", "target"), "another")])
    assert row == (1, ("zoo", "target"), "another")

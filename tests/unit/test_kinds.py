"""Rows and records: every kind of field, out as JSON and in again, and what is wrong said by name."""

import datetime as dt
import json
import re
from decimal import Decimal
from uuid import UUID

import pytest
from core import models as core
from django.contrib.auth.models import Group, User
from django.core import serializers
from django.db import models
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from rest_framework.authtoken.models import Token

from backup.archive import lines_of
from backup.exceptions import InvalidRecord
from backup.kinds import _DURATION, DURATION, kind_of
from backup.tables import Table
from tests.support.backups import restore, take
from tests.support.properties import examples
from tests.support.snapshots import differences, snapshot
from tests.zoo import models as zoo
from tests.zoo.fields import Size, SizeField

SPECIMEN = Table(zoo.Specimen)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
MOMENTS = st.datetimes(dt.datetime(1000, 1, 1), dt.datetime(9998, 1, 1), timezones=st.just(dt.timezone.utc))
# PostgreSQL keeps numbers in JSON as decimals: -0.0 is 0 there.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.sampled_from([0.5, 1e10, -2.25]) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
#: Field of Specimen -> values that every engine can hold.
VALUES = {
    "id": st.uuids(version=4),  # MariaDB takes no others than there are versions of
    "small": st.integers(-(2**15), 2**15 - 1),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "big": st.integers(-(2**63), 2**63 - 1),
    "positive_small": st.integers(0, 2**15 - 1),
    "positive": st.integers(0, 2**31 - 1),
    "positive_big": st.integers(0, 2**63 - 1),
    "float": st.none() | st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
    "decimal": st.none() | st.decimals(-99_999_999, 99_999_999, places=6),
    "flag": st.none() | st.booleans(),
    "char": st.none() | TEXT.map(lambda text: text[:100]),
    "text": st.none() | TEXT,
    "other_uuid": st.none() | st.uuids(version=4),
    # A name outside of the storage is refused: see `restore.values`.
    "file": st.none() | TEXT.map(lambda text: "xx" + re.sub(r"[/\\]", "_", text)[:90]),
    "binary": st.none() | st.binary(),
    "json": JSON,
    "json_required": JSON.filter(lambda value: value is not None),
    "date": st.none() | st.dates(dt.date(1000, 1, 1), dt.date(9998, 1, 1)),
    "time": st.none() | st.times(),
    "datetime": st.none() | MOMENTS,
    "duration": st.none() | st.timedeltas(dt.timedelta(days=-9999), dt.timedelta(days=9999)),
    "size": st.none() | st.builds(Size, st.integers(0, 999), st.integers(0, 999)),
    "address": st.none() | st.ip_addresses().map(str),
}


def through_json(value):
    return json.loads(json.dumps(value))


def records(table, columns):
    """As a file has them."""
    return json.loads(b"[%b]" % lines_of(table.record_template, columns))


def read(table, record):
    """A record as it comes out of a file -> the record that it is after all."""
    columns = table.batch_from([through_json(record)])
    (again,) = records(table, columns)
    return again


@given(st.from_regex(_DURATION, fullmatch=True))
def test_a_duration_that_need_not_be_parsed_is_right(text):
    assert DURATION.dump(DURATION.load(text)) == text


@given(st.timedeltas())
def test_every_duration_that_django_says_need_not_be_parsed(value):
    assert _DURATION.fullmatch(DURATION.dump(value))


# --- Every kind ------------------------------------------------------------------------------------------


@examples(12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=5, unique_by=lambda row: row["id"]))
def test_any_values_come_back_from_the_database(host_db, rows):
    core.WeightPercentile.objects.all().delete()  # thousands, and not the matter here
    core.HeightPercentile.objects.all().delete()
    zoo.Specimen.objects.all().delete()
    zoo.Specimen.objects.bulk_create([zoo.Specimen(**row) for row in rows])
    before, file = snapshot(), take()
    zoo.Specimen.objects.all().delete()
    restore(file, clear=True)
    assert not differences(before, snapshot())


#: (field, value in the record, value in Python)
FORMS = [
    ("small", -3, -3),
    ("big", 2**63 - 1, 2**63 - 1),
    ("float", 1, 1.0),
    ("float", 0.1, 0.1),
    ("float", -0.0, -0.0),
    ("float", "Infinity", float("inf")),
    ("float", "-Infinity", float("-inf")),
    ("float", "NaN", float("nan")),
    ("decimal", "0.100000", Decimal("0.100000")),
    ("flag", True, True),
    ("flag", None, None),
    ("char", "", ""),
    ("char", None, None),
    ("text", " \u2028\0\r\n", " \u2028\0\r\n"),
    ("file", "a/ü.png", "a/ü.png"),
    ("binary", "AAH/", b"\0\1\xff"),
    ("binary", "", b""),
    ("json", {"a": [1, 1.0, True, None, 10**30]}, {"a": [1, 1.0, True, None, 10**30]}),
    ("date", "2024-02-29", dt.date(2024, 2, 29)),
    ("time", "23:59:59.999999", dt.time(23, 59, 59, 999999)),
    ("datetime", "2026-03-29T01:00:00.000001Z", dt.datetime(2026, 3, 29, 1, 0, 0, 1, dt.timezone.utc)),
    ("duration", "-1 00:00:00.000001", dt.timedelta(days=-1, microseconds=1)),
    ("other_uuid", "00000000-0000-0001-0000-000000000000", UUID(int=1 << 64)),
    ("size", "3x4", Size(3, 4)),
    ("address", "2001:db8::1", "2001:db8::1"),
]


def record_of(**fields):
    """A sound record of a Specimen, but for `fields`."""
    blank = zoo.Specimen(
        id=UUID(int=7), created=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc), changed=MOMENT
    )
    (record,) = serializers.serialize("python", [blank])
    record["pk"] = str(record["pk"])
    for name in ("created", "changed"):
        record["fields"][name] = "2026-01-01T00:00:00Z"
    record["fields"].update(fields)
    return record


MOMENT = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)


@pytest.mark.parametrize(("field", "plain", "value"), FORMS, ids=lambda value: str(value)[:20])
def test_a_value_and_its_form(field, plain, value):
    record = record_of(**{field: plain})
    again = read(SPECIMEN, record)
    assert through_json(again) == through_json(
        {**record, "fields": {**record["fields"], field: again["fields"][field]}}
    )
    (item,) = serializers.deserialize("json", json.dumps([again]))
    found = getattr(item.object, field)
    found = bytes(found) if isinstance(found, memoryview) else found
    assert repr(found if field != "file" else str(found)) == repr(value)
    assert repr(read(SPECIMEN, again)) == repr(again), "the form is canonical"


@pytest.mark.parametrize(
    ("field", "given", "canonical"),
    [
        ("datetime", "2026-03-29T03:00:00+02:00", "2026-03-29T01:00:00Z"),
        ("datetime", "2026-03-29T01:00:00.500", "2026-03-29T01:00:00.500000Z"),
        ("datetime", "2026-03-29T01:00:00.000000Z", "2026-03-29T01:00:00Z"),
        ("datetime", "2026-03-29 01:00:00Z", "2026-03-29T01:00:00Z"),
        ("duration", "P1DT2H", "1 02:00:00"),
        ("duration", "26:00:00", "1 02:00:00"),
        ("duration", "02:00:00.000000", "02:00:00"),
        ("other_uuid", "00000000000000010000000000000000", "00000000-0000-0001-0000-000000000000"),
        ("float", 3, 3.0),
    ],
)
def test_other_spellings_are_read(field, given, canonical):
    record = record_of(**{field: given})
    place = 1 + SPECIMEN.names.index(field)
    assert repr(SPECIMEN.row_from(record)[place]) == repr(canonical)
    beside = record_of(**{field: canonical})
    assert repr(SPECIMEN.batch_from([beside, record, beside])[place]) == repr([canonical] * 3)


# --- What is wrong ----------------------------------------------------------------------------------------

TWO = "2026-01-01T00:00:00Z\n2026-01-01T00:00:00Z"
WRONG = {
    "small": ["1", 1.5, True, None, [], {}],
    "float": ["1", "nan", "inf", True, [], {}],
    "decimal": [1, 1.5, "x", True, []],
    "flag": [0, 1, "true", []],
    "char": [0, True, [], {}],
    "text": [1.5, False],
    "url": [None, 1],
    "other_uuid": ["x", 7, "", []],
    "file": [1, {}],
    "binary": ["*", "A", 7, "ü", []],
    "date": ["2026-02-30", "x", 7, "", [], "2026-01-01T00:00:00Z"],
    "time": ["24:00:00", "x", 7, "", "10:00:00+01:00"],
    "datetime": [
        "2026-13-01T00:00:00Z",
        "x",
        7,
        "",
        "2026-01-01T00:00:00+99:00",
        {},
        TWO,
        "0000-01-01T00:00:00Z",
    ],
    "duration": ["x", 7, "", []],
    "size": ["x", "axb"],
    "json_required": [],
    "created": [None],
}


@pytest.mark.parametrize(
    ("field", "value"), [(f, v) for f, values in WRONG.items() for v in values], ids=repr
)
def test_wrong_values_are_named(field, value):
    record = record_of(**{field: value})
    for reader in (SPECIMEN.row_from, lambda record: SPECIMEN.batch_from([record_of(), record, record_of()])):
        with pytest.raises(InvalidRecord) as caught:
            reader(record)
        error = caught.value
        assert (error.model, error.pk, error.field) == ("zoo.specimen", record["pk"], field)
        assert f"zoo.specimen {record['pk']}, field {field}: " in error.message


@pytest.mark.parametrize(
    ("model", "change", "field"),
    [
        (User, {"groups": 7}, "groups"),
        (User, {"groups": ["x"]}, "groups"),
        (User, {"groups": [1, 1]}, "groups"),
        (User, {"groups": [None]}, "groups"),
        (User, {"user_permissions": ["1"]}, "user_permissions"),
        (User, {"user_permissions": [["view_child", "core"]]}, "user_permissions"),
        (Group, {"permissions": [["view_child", "core", 7]]}, "permissions"),
        (Group, {"permissions": None}, "permissions"),
        (core.Tagged, {"content_type": "7"}, "content_type"),
        (core.Tagged, {"content_type": ["core"]}, "content_type"),
        (core.Tagged, {"tag": "1"}, "tag"),
        (Token, {"user": None}, "user"),
    ],
    ids=str,
)
def test_wrong_references_are_named(model, change, field):
    fields = {
        User: {
            "password": "",
            "last_login": None,
            "is_superuser": True,
            "username": "x",
            "first_name": "",
            "last_name": "",
            "email": "",
            "is_staff": True,
            "is_active": True,
            "date_joined": "2026-01-01T00:00:00Z",
            "groups": [],
            "user_permissions": [],
        },
        Group: {"name": "x", "permissions": []},
        core.Tagged: {"content_type": ["core", "child"], "object_id": 1, "tag": 1},
        Token: {"user": 1, "created": "2026-01-01T00:00:00Z"},
    }[model]
    label = model._meta.label_lower
    record = {"model": label, "pk": "k" if model is Token else 1, "fields": fields}
    table = Table(model)
    assert read(table, record) == record
    with pytest.raises(InvalidRecord) as caught:
        table.batch_from([{**record, "fields": {**fields, **change}}])
    pk = None if model is Token else record["pk"]  # a token's key is a secret
    assert (caught.value.model, caught.value.pk, caught.value.field) == (label, pk, field)


def test_messages_stay_short_and_on_one_line():
    record = record_of(char=["x"])
    record["pk"] = "\n\u202e" + "k" * 10_000
    with pytest.raises(InvalidRecord) as caught:
        SPECIMEN.row_from(record)
    assert len(caught.value.message) < 300
    assert caught.value.message.isprintable()


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)  # which no parser of ours lets in
    | st.text()
    | st.sampled_from(
        [
            "NaN",
            "Infinity",
            "2026-01-01",
            "2026-01-01T00:00:00Z",
            "00:00:01",
            "1 00:00:00",
            "3x4",
            "1.5",
            "AAAA",
        ]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)


@examples(400)
@given(st.sampled_from(["pk", *VALUES]).filter(lambda name: name != "id"), ANYTHING)
def test_any_value_is_read_or_refused_by_name(field, value):
    """And a value alone is read as it is among others."""
    record = record_of()
    if field == "pk":
        record["pk"] = value
    else:
        record["fields"][field] = value
    try:
        row = SPECIMEN.row_from(record)
    except InvalidRecord as error:
        refused = error
    else:
        refused = None
    if refused:
        assert refused.field == field
        with pytest.raises(InvalidRecord):
            SPECIMEN.batch_from([record_of(), record])
        return
    columns = SPECIMEN.batch_from([record_of(), record])
    assert repr([column[1] for column in columns]) == repr(list(row))
    (_, again) = records(SPECIMEN, columns)
    assert repr(SPECIMEN.row_from(again)) == repr(row), "canonical"


@examples(150)
@given(ANYTHING)
def test_anything_is_no_record(value):
    with pytest.raises(InvalidRecord):
        SPECIMEN.row_from(value)
    with pytest.raises(InvalidRecord):
        SPECIMEN.batch_from([value])


# --- Fields of plug-ins -----------------------------------------------------------------------------------


class Words(models.TextField):
    """Python sees a list, the database "a b": nothing tells Django's serializers how to write the list."""

    def from_db_value(self, value, expression, connection):
        return self.to_python(value)

    def to_python(self, value):
        return value.split() if isinstance(value, str) else value

    def get_prep_value(self, value):
        return " ".join(value) if isinstance(value, list) else value


class Strange(SizeField):
    """Its values are never the same as any other; or they say neither yes nor no to that."""

    class Never(str):
        __hash__ = str.__hash__

        def __eq__(self, other):
            return False

    class Array(list):
        __hash__ = None

        def __eq__(self, other):
            return Strange.Array(map(str.__eq__, self, other))

        def __bool__(self):
            raise ValueError("The truth value of an array is ambiguous")

    def __init__(self, of):
        super().__init__()
        self.of = of

    def to_python(self, value):
        return self.of(value) if isinstance(value, str) else value

    def get_prep_value(self, value):
        return "".join(value)


def field_of_its_own(field):
    field.set_attributes_from_name("text")
    field.model = zoo.Sample
    return field


def test_a_value_that_its_field_would_read_as_another_is_refused():
    kind = kind_of(field_of_its_own(Words()))
    with pytest.raises(ValueError, match="a"):
        kind.dump(["a", "b"])


class YesOrNo(models.CharField):
    """Python sees true or false, the database "Y" or "N"."""

    def from_db_value(self, value, expression, connection):
        return value == "Y"

    def get_prep_value(self, value):
        return "Y" if value else "N"


class YesOrNoAgain(YesOrNo):
    def to_python(self, value):
        return value


def test_a_truth_that_its_field_would_read_as_another_is_refused():
    """To a text field, false is the text "False", which is true."""
    dump = kind_of(field_of_its_own(YesOrNo())).dump
    assert dump(True) is True
    with pytest.raises(ValueError, match="False"):
        dump(False)
    dump = kind_of(field_of_its_own(YesOrNoAgain())).dump
    assert [dump(True), dump(False)] == [True, False]


class Euros(models.IntegerField):
    """Python sees euros, the database cents."""

    def from_db_value(self, value, expression, connection):
        return None if value is None else value / 100

    def get_prep_value(self, value):
        return None if value is None else round(value * 100)


def test_a_number_that_its_field_would_read_as_another_is_refused():
    dump = kind_of(field_of_its_own(Euros())).dump
    assert dump(2.0) == 2.0
    with pytest.raises(ValueError, match=r"1\.5"):
        dump(1.5)


class AnyNumber(models.FloatField):
    def from_db_value(self, value, expression, connection):
        return value


def test_numbers_of_its_own_field_are_as_others():
    dump = kind_of(field_of_its_own(AnyNumber())).dump
    assert list(map(dump, [1, 1.5, float("nan"), float("inf")])) == [1, 1.5, "NaN", "Infinity"]


def test_a_text_of_a_field_that_no_file_can_hold_is_refused():
    kind = kind_of(field_of_its_own(Strange(str)))
    with pytest.raises(ValueError, match="surrogates"):
        kind.dump("\ud83d")


@pytest.mark.parametrize("of", [Strange.Never, Strange.Array])
def test_a_value_that_equals_nothing_is_known_by_its_text(of):
    kind = kind_of(field_of_its_own(Strange(of)))
    assert kind.dump(of("abc")) == "abc"
    assert kind_of(field_of_its_own(SizeField())).dump(Size(3, 4)) == "3x4"

"""Values that a database holds and the host cannot live with are refused by name, and undo takes what was there."""

import cProfile
import datetime as dt
import json
import pstats
import random

import pytest
from babybuddy.models import Settings
from core import models as core
from dbsettings.models import Setting
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core import serializers
from django.db import connection
from freezegun import freeze_time

from backup import babybuddy, services
from backup.database import database_of
from backup.exceptions import InvalidRecord, RecordsConflict, RecordsRefused, Unreadable
from backup.options import Part
from tests.support.backups import how, inspect, records_of, refused, restore, rewritten, take
from tests.support.snapshots import differences, snapshot
from tests.zoo.fields import EmptyIsNone, Size, SizeField
from tests.zoo.models import Plate, Specimen


def with_value(label, field, value, **where):
    """A backup of what is here, with another value in one record."""

    def change(records):
        (record, *_others) = [r for r in records[label] if where.items() <= r["fields"].items()]
        record["fields"][field] = value

    return rewritten(take(), change)


HARMFUL = [
    *(
        ("core.child", "picture", name)
        for name in ("../../../etc/passwd", "/etc/passwd", "a\0b", "C:\\x.png")
    ),
    *(
        ("core.child", "picture", name)
        for name in ("..\\..\\x.png", "child/picture/", "\\\\host\\x", "c:x", ".")
    ),
    ("core.note", "image", "notes/../../x.png"),
    *(("core.child", "slug", slug) for slug in ("a/b", "", "a b", "?", "a\n")),
    *(("core.tag", "color", color) for color in ("red", "", "#12345", "#1234567", "#12345g")),
    ("core.tag", "slug", "a/b"),
    ("core.tag", "slug", ""),  # the list of tags fails
    ("core.tag", "name", ""),
    ("core.child", "first_name", ""),
    ("auth.user", "username", ""),
    ("babybuddy.settings", "dashboard_hide_age", "999999999 00:00:00"),
    ("core.sleep", "duration", "90000000 00:00:00"),
    ("core.feeding", "end", "9999-12-31T23:59:59.999999Z"),  # in Tokyo, the year 10000
    ("core.feeding", "end", "1500-02-28T00:00:00Z"),  # the dashboard lists days by how long ago it ended
    ("core.feeding", "type", "soup"),  # a report looks for it among those that there are
    ("core.sleep", "end", "9999-12-30T23:59:59.999999Z"),
    ("core.pumping", "start", "0001-01-02T00:00:00Z"),
    ("core.tummytime", "start", "2999-01-01T00:00:00.5Z"),
    *((label, "date", "9999-12-31") for label in ("core.height", "core.weight")),
    *((label, "duration", None) for label in ("core.feeding", "core.sleep", "core.tummytime")),
    *(("core.heightpercentile", "age_in_days", f"{days} 00:00:00") for days in (3_000_000, -800_000, -1)),
    ("core.weightpercentile", "age_in_days", "36526 00:00:00"),  # no birth date can be so early
    *(("admin.logentry", "change_message", text) for text in ("[1, 2]", '[{"changed": 5}]', "[" * 5000)),
    ("admin.logentry", "change_message", '[{"added": {"name": "note"}}]'),
    ("admin.logentry", "change_message", f"[{'[' * 900}{']' * 900}]"),  # it is shown far down in the stack
    ("admin.logentry", "change_message", f"[{'1' * 5000}]"),
]


@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize(("label", "field", "value"), HARMFUL)
def test_a_value_that_the_host_cannot_live_with_is_refused_by_name(family, label, field, value, clear):
    error = refused(with_value(label, field, value), InvalidRecord, clear=clear)
    assert (error.model, error.field) in ((label, field), (label, field.replace("start", "end")))
    assert error.pk is not None
    assert f"{label} {error.pk}" in error.message
    assert "edited file" in error.message


@pytest.mark.parametrize("value", ["red", "", "25:00", "\0", "\u202e\n", "x" * 100_000])
def test_a_site_setting_that_should_be_a_time(family, value):
    error = refused(
        with_value("dbsettings.setting", "value", value, attribute_name="nap_start_min"),
        InvalidRecord,
        clear=True,
    )
    assert (error.model, error.field) == ("dbsettings.setting", "value")
    assert error.message.isprintable()
    assert len(error.message) < 300


@pytest.mark.parametrize(
    ("label", "field", "value"),
    [
        ("core.child", "picture", "child/picture/ü 1..2.png"),
        ("core.child", "picture", ""),
        ("core.child", "picture", None),
        ("core.child", "picture", "child\\picture\\a.png"),
        ("core.child", "slug", "zoë-ליה_1"),
        ("core.child", "last_name", ""),
        ("core.tag", "color", "#aBcDeF"),
        ("core.note", "note", ""),
        ("auth.user", "email", ""),
        ("auth.user", "email", "admin@localhost"),
        ("auth.user", "email", "root@server"),  # as the command that makes users takes it
        ("auth.user", "username", "Anna Müller"),  # as the header of a proxy brings it
        ("auth.user", "password", ""),
        ("babybuddy.settings", "dashboard_hide_age", "28 00:00:00"),
        ("core.sleep", "duration", "3 00:00:00"),
        ("core.pumping", "duration", None),  # of a version that had no end of it
        ("core.feeding", "amount", None),
        ("core.weightpercentile", "age_in_days", "1857 00:00:00"),
        ("admin.logentry", "change_message", "[not JSON"),
        ("admin.logentry", "change_message", '[{"changed": {"fields": ["Time", "Note"]}}]'),
        ("admin.logentry", "change_message", '[{"added": {"name": "user", "object": "a [[[["}}]'),
        ("core.note", "time", "0001-01-02T00:00:00Z"),
        ("core.note", "time", "9999-12-30T23:59:59.999999Z"),
        ("core.child", "birth_date", "0001-01-01"),
        ("core.child", "birth_date", "9999-12-31"),  # its report on growth fails, and no other page
        ("core.medication", "next_dose_interval", "-90000000 00:00:00"),
        ("dbsettings.setting", "value", "07:30:00"),
    ],
)
def test_a_value_that_the_host_has_itself_is_taken(family, label, field, value):
    where = {"attribute_name": "nap_start_min"} if field == "value" else {}
    file = with_value(label, field, value, **where)
    expected = records_of(file)[label]
    restore(file, clear=True)
    assert records_of(take())[label] == expected


ACCEPTED = [
    ("core.weight", "weight", "Infinity"),
    ("core.bmi", "bmi", "-Infinity"),
    ("core.medication", "dosage", "Infinity"),
    ("core.medication", "next_dose_interval", "3000000 00:00:00"),
    ("core.medication", "next_dose_interval", "-900000 00:00:00"),
    ("core.medication", "next_dose_interval", "-90000000 00:00:00"),
    ("zoo.specimen", "url", "http://x/?a= b"),
    ("core.note", "time", "0001-01-01T00:00:00Z"),  # in New York that is the year 0
    ("core.note", "time", "9999-12-31T23:59:59.999999Z"),  # in Tokyo, the year 10000
    ("core.diaperchange", "time", "9999-12-31T00:00:00Z"),
    ("core.tag", "last_used", "0001-01-01T23:59:59Z"),
    ("core.timer", "start", "9999-12-31T12:00:00Z"),
    ("admin.logentry", "action_time", "0001-01-01T00:00:00Z"),
    ("zoo.specimen", "datetime", "9999-12-31T23:59:59Z"),
]


#: One of each kind, since a proof takes long.
PROVED = {"Infinity", "-90000000 00:00:00", "http://x/?a= b", "0001-01-01T00:00:00Z"}


@pytest.mark.parametrize(("label", "field", "value"), ACCEPTED)
def test_a_value_that_the_host_accepts_and_fails_with_needs_a_superuser(family, label, field, value):
    """Since such a value may be there, the site's own backup must not be refused, nor fail its proof."""
    Specimen.objects.create()
    if value.endswith("Infinity") and connection.vendor == "mysql":
        pytest.skip("It can hold none.")
    file = with_value(label, field, value)
    expected = records_of(file)[label]
    staff = User.objects.get(username="grandma")
    error = refused(file, InvalidRecord, user=staff, parts=(Part.ENTRIES,))
    assert (error.model, error.field) == (label, field)
    assert error.message.endswith("Only a superuser can restore it.")
    if connection.vendor == "sqlite" and value in PROVED:  # the throw-away database is SQLite's everywhere
        assert services.prove_backup(file).verdict is services.Verdict.PROVED
    result = restore(file, clear=True, user=family.admin)
    assert any(f"{label} {error.pk}, field {field}" in warning for warning in result.warnings)
    assert records_of(take())[label] == expected


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_staff_set_no_sign_in_of_others_that_no_page_can_show(family, moment):
    file = with_value("auth.user", "last_login", moment, username="admin")
    staff = User.objects.get(username="grandma")
    error = refused(file, InvalidRecord, user=staff)
    assert (error.model, error.field) == ("auth.user", "last_login")
    restore(file, clear=False, user=family.admin)


@pytest.mark.parametrize(
    ("moment", "interval", "is_shown"),
    [
        ("2026-01-01T00:00:00Z", None, True),
        ("2026-01-01T00:00:00Z", "00:00:00", True),
        ("2026-01-01T00:00:00Z", "7000 06:00:00", True),
        ("0001-01-01T00:00:00Z", None, True),
        ("9999-12-30T00:00:00Z", "20:00:00", True),
        ("9999-12-30T00:00:00Z", "1 01:00:00", False),
        ("0001-01-03T00:00:00Z", "-2 12:00:00", False),
    ],
)
def test_the_next_dose_is_within_the_years_that_pages_can_show(family, moment, interval, is_shown):
    check = babybuddy.validators(database_of())["core.medication", "next_dose_interval"].check
    assert (check(interval, moment) is None) == is_shown


@pytest.mark.parametrize("name", ["☀", "ליה", "…"])
def test_what_the_host_makes_an_empty_slug_of_is_taken(family, name):
    """Some version of it does: older ones make slugs of Latin letters only."""
    core.Tag.objects.filter(pk=core.Tag.objects.first().pk).update(name=name, slug="")
    core.Child.objects.filter(pk=family.children[0].pk).update(first_name=name, last_name="❤", slug="")
    before = snapshot()
    restore(take(), clear=True)
    assert not differences(before, snapshot())


@pytest.mark.parametrize("last_name", ["", "Lind"])
def test_a_child_of_whose_name_the_host_makes_a_slug_needs_it(family, last_name):
    core.Child.objects.filter(pk=family.children[0].pk).update(
        first_name="❤" if last_name else "Mia", last_name=last_name, slug=""
    )
    assert refused(take(), InvalidRecord, clear=True).field == "slug"


def test_a_tag_without_its_slug_comes_back_by_an_undo(family):
    file = take()
    core.Tag.objects.filter(pk=core.Tag.objects.first().pk).update(name="milk", slug="")
    before = snapshot()
    restore(file, clear=True)
    services.undo_restore()
    assert not differences(before, snapshot())


@pytest.mark.parametrize(
    ("began", "took", "is_taken"),
    [
        (dt.timedelta(), dt.timedelta(minutes=-45), False),  # across midnight: the pattern of feedings fails
        (dt.timedelta(milliseconds=-500), dt.timedelta(milliseconds=-500), True),  # within a second
        (dt.timedelta(), dt.timedelta(), True),
        (dt.timedelta(), dt.timedelta(hours=-4.5), False),
        (dt.timedelta(days=-90), dt.timedelta(minutes=-45), True),  # on the night when clocks went back
        (dt.timedelta(), dt.timedelta(days=3), True),
        (dt.timedelta(), dt.timedelta(days=8), False),
        (dt.timedelta(days=-90), dt.timedelta(days=20), True),  # the host shows it
        (dt.timedelta(days=-90), dt.timedelta(days=-20), True),
        (dt.timedelta(days=-90), dt.timedelta(days=80), False),
        (dt.timedelta(days=40), dt.timedelta(days=-800), False),
    ],
)
def test_a_recent_entry_does_not_end_before_it_begins_nor_long_after(family, began, took, is_taken):
    start = dt.datetime.now(dt.timezone.utc).replace(hour=0, minute=30, microsecond=0) + began
    file = with_values("core.feeding", start=start, end=start + took)
    if is_taken:
        restore(file, clear=True)
        entry = core.Feeding.objects.earliest("pk")
        assert (entry.start, entry.end) == (start, start + took)
    else:
        assert refused(file, InvalidRecord, clear=True).field == "end"


def with_values(label, **moments):
    def change(records):
        texts = {name: moment.isoformat().replace("+00:00", "Z") for name, moment in moments.items()}
        min(records[label], key=lambda record: record["pk"])["fields"].update(texts)

    return rewritten(take(), change)


@pytest.mark.parametrize(
    ("label", "years", "is_taken"),
    [
        ("core.sleep", 9, True),
        ("core.sleep", 12, False),
        ("core.pumping", 12, False),
        ("core.sleep", -1990, True),
    ],
)
def test_reports_list_each_day_up_to_an_entry(family, label, years, is_taken):
    """The host's forms take an entry of the year 26, but none of the future."""
    start = dt.datetime.now(dt.timezone.utc).replace(month=1, day=1)
    start = start.replace(year=start.year + years)
    file = with_values(label, start=start, end=start + dt.timedelta(hours=1))
    if is_taken:
        restore(file, clear=True)
    else:
        error = refused(file, InvalidRecord, clear=True)
        assert (error.model, error.field) == (label, "start")
        assert "future" in error.message


def test_the_future_does_not_depend_on_a_clock_that_was_never_set(family):
    with freeze_time("1970-01-01"):
        assert babybuddy.latest("core.sleep") >= "2036"


@pytest.mark.parametrize("clear", [True, False])
def test_a_site_setting_that_is_there_twice(family, clear):
    """The host reads no page any more that needs it."""

    def change(records):
        first = records["dbsettings.setting"][0]
        records["dbsettings.setting"].append({**first, "pk": 4711})

    error = refused(rewritten(take(), change), RecordsConflict, clear=clear)
    assert "dbsettings.setting 4711" in error.message
    assert "attribute_name" in error.message


@pytest.mark.parametrize(
    ("label", "field", "value"),
    [
        ("core.temperature", "temperature", "NaN"),
        ("zoo.specimen", "float", "NaN"),
        ("core.heightpercentile", "age_in_days", "999999999 00:00:00"),
        ("babybuddy.settings", "dashboard_refresh_rate", "999999999 00:00:00"),
        ("zoo.specimen", "duration", "-999999999 00:00:00"),
    ],
)
def test_a_preview_tells_what_the_database_cannot_hold(family, label, field, value):
    Specimen.objects.create()
    file = with_value(label, field, value)
    if value == "NaN" and connection.vendor == "postgresql":
        return
    with pytest.raises((RecordsRefused, InvalidRecord)) as error:
        services.inspect_backup(file, how(clear=True))
    assert label in str(error.value.message) + str(error.value.details)


@pytest.mark.parametrize("text", ["x" * 2000, "x\0y"])
def test_a_preview_tells_of_texts_as_the_restore_would(family, text):
    """All of them. SQLite takes every text, and servers those that fit into a column that somebody has altered."""

    def change(records):
        for row in records["core.child"]:
            row["fields"]["first_name"] = text

    file = rewritten(take(), change)
    takes = {"sqlite": True, "mysql": "\0" in text, "postgresql": False}[connection.vendor]
    if not takes:
        with pytest.raises(RecordsRefused) as error:
            services.inspect_backup(file, how(clear=True))
        keys = [child.pk for child in family.children]
        *lines, way_on = error.value.details
        assert way_on.startswith("Correct it in the file")
        for key, line in zip(keys, lines, strict=True):
            assert f"core.child {key}, field first_name" in line
            assert ("2000 characters; at most 255" in line) is ("\0" not in text)
        if "\0" in text:
            return
        with connection.cursor() as cursor:
            alter = "ALTER TABLE core_child ALTER first_name TYPE varchar({})"
            if connection.vendor == "mysql":
                alter = "ALTER TABLE core_child MODIFY first_name varchar({}) NOT NULL"
            cursor.execute(alter.format(2000))
    try:
        assert services.inspect_backup(file, how(clear=True)).refusal is None
    finally:
        if not takes:
            with connection.cursor() as cursor:
                cursor.execute(alter.format(255))


def test_a_time_as_nobody_writes_it(family, settings):
    """The host reads it in Finnish only, and writes seconds itself."""
    settings.LANGUAGES = [("en", "English"), ("fi", "Finnish")]
    file = with_value("dbsettings.setting", "value", "6.00", attribute_name="nap_start_min")
    assert refused(file, InvalidRecord, clear=True).field == "value"


def test_a_site_setting_in_the_language_of_another(family, settings):
    """In Finland one writes a time with full stops, and so does the host."""
    settings.LANGUAGES = [("en", "English"), ("fi", "Finnish")]
    restore(with_value("dbsettings.setting", "value", "07.30.00", attribute_name="nap_start_min"), clear=True)


@pytest.mark.parametrize(
    "name",
    [
        *("NAP_START_MIN", "nap_start_min  ", "náp_start_min", "nap\u200b_ßtart_mın", "nap\x01_start_min"),
        "nap_start_myn",  # in Lithuanian
    ],
)
def test_a_site_setting_by_a_name_that_some_databases_take_for_it(family, name):
    def change(records):
        for record in records["dbsettings.setting"]:
            if record["fields"]["attribute_name"] == "nap_start_min":
                record["fields"].update(attribute_name=name, value="garbage")

    assert refused(rewritten(take(), change), InvalidRecord, clear=True).field == "value"


@pytest.mark.skipif(connection.vendor != "mysql", reason="The others tell such names apart.")
@pytest.mark.parametrize("name", ["NAP_START_MIN", "nap_start_min  ", "náp_start_min"])
def test_a_site_setting_that_is_there_twice_for_the_database(family, name):
    def change(records):
        (first,) = [
            r for r in records["dbsettings.setting"] if r["fields"]["attribute_name"] == "nap_start_min"
        ]
        fields = {**first["fields"], "attribute_name": name}
        records["dbsettings.setting"].append({**first, "pk": 4711, "fields": fields})

    refused(rewritten(take(), change), RecordsConflict, clear=True)


def test_many_names_of_settings_take_no_longer_for_their_letters(family):
    """A file of 100 KB would take a preview half a minute. The number of calls is counted, not the time."""

    def with_names(letters):
        def change(records):
            first = records["dbsettings.setting"][0]
            for number in range(300):
                fields = {**first["fields"], "module_name": f"{letters * 100}{number}"}
                records["dbsettings.setting"].append({**first, "pk": 1000 + number, "fields": fields})

        return rewritten(take(), change)

    def calls(file):
        with cProfile.Profile() as profile:
            services.inspect_backup(file, how(clear=True))
        return pstats.Stats(profile).total_calls

    few = calls(with_names("x"))
    assert calls(with_names("é")) < 1.5 * few


def test_what_is_no_setting_of_this_host_may_be_anything(family):
    def change(records):
        records["dbsettings.setting"][0]["fields"].update(attribute_name="of_another", value="red")

    restore(rewritten(take(), change), clear=True)


def test_undo_takes_whatever_was_there(family):
    file = take()
    core.Child.objects.filter(pk=family.children[0].pk).update(slug="a/b", picture="../x")
    core.Tag.objects.update(color="red")
    Settings.objects.update(timezone="Mars/Phobos", language="tlh")
    User.objects.filter(username="joe").update(username="a b\n")
    core.Sleep.objects.update(duration=None)
    LogEntry.objects.update(change_message="[1]")
    Setting.objects.create(
        **Setting.objects.values("module_name", "class_name", "attribute_name", "value")[0]
    )
    before = snapshot()
    restore(file, clear=True)
    services.undo_restore()
    assert not differences(before, snapshot())


def test_a_field_that_does_not_know_its_own_text_is_named(family, monkeypatch):
    """Each restore would change the value a little more."""
    specimen = Specimen.objects.create(size=Size(3, 4))
    monkeypatch.setattr(
        SizeField, "value_to_string", lambda self, obj: "{1}x{0}".format(*self.value_from_object(obj))
    )
    with pytest.raises(Unreadable, match=f"zoo.specimen {specimen.pk}, field size: '3x4'"):
        take()
    (record,) = [r for r in records_of(take(leave_out=True))["zoo.specimen"] if r["pk"] == str(specimen.pk)]
    assert record["fields"]["size"] is None


@pytest.fixture
def plates(family):
    """Rows as the database has them: NULL is not the same as "", of which their field says None."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO zoo_plate (serial, text) VALUES (%s, %s)", [("", ""), ("1", None), ("2", "a")]
        )
    assert [*Plate.objects.order_by("pk").values_list("serial", "text")] == [
        (None, None),
        ("1", None),
        ("2", "a"),
    ]
    return plates_here()


def plates_here():
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, serial, text FROM zoo_plate ORDER BY id")
        return cursor.fetchall()


def test_a_value_that_its_field_reads_as_none_comes_back(plates):
    file = take()
    assert [record["fields"] for record in records_of(file)["zoo.plate"]] == [
        {"serial": "", "text": ""},
        {"serial": "1", "text": None},
        {"serial": "2", "text": "a"},
    ]
    assert services.prove_backup(file).verdict is services.Verdict.PROVED
    file.seek(0)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE zoo_plate SET text = CASE WHEN text IS NULL THEN '' END")
    changed = plates_here()
    assert services.inspect_backup(file, how(clear=False)).changes["zoo.plate"].changed == 3
    restore(file, clear=False)
    assert plates_here() == plates
    services.undo_restore()
    assert plates_here() == changed


def test_a_file_with_such_a_value_can_be_loaded_by_django(plates):
    text = json.dumps(records_of(take())["zoo.plate"])
    Plate.objects.all().delete()
    for record in serializers.deserialize("json", text):
        record.save()
    assert [serial for _key, serial, _text in plates_here()] == ["", "1", "2"]


@pytest.mark.parametrize("seen", [None, ""])
def test_a_value_that_its_field_would_store_as_null_is_named(plates, seen, monkeypatch):
    monkeypatch.setattr(EmptyIsNone, "from_db_value", lambda self, value, *_: value or seen)
    monkeypatch.setattr(EmptyIsNone, "get_prep_value", lambda self, value: value or None)
    with pytest.raises(Unreadable, match="''"):
        take()
    rows = [record["fields"] for record in records_of(take(leave_out=True))["zoo.plate"]]
    assert rows == [{"serial": "1", "text": None}, {"serial": "2", "text": "a"}]


@pytest.mark.skipif(connection.vendor != "mysql", reason="the others take a statement of any length")
@pytest.mark.parametrize(("label", "clear"), [("core.note", True), ("admin.logentry", False)])
def test_what_no_statement_can_hold_is_refused_by_name(family, label, clear):
    """One text, or several of a row, each of which would fit."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@max_allowed_packet")
        most = cursor.fetchone()[0]
    entry = LogEntry.objects.create(user=family.admin, action_flag=1)
    key = {"core.note": core.Note.objects.order_by("pk").first().pk, "admin.logentry": entry.pk}[label]

    def of(length):
        text = random.randbytes(length // 4).hex()
        fields = {
            "core.note": {"note": "'\n" * (length // 8) + text},
            "admin.logentry": {"object_id": text, "change_message": text},
        }[label]

        def change(records):
            (row,) = [row for row in records[label] if row["pk"] == key]
            row["fields"] |= fields

        return rewritten(take(), change), fields

    file, _fields = of(most)
    with pytest.raises(RecordsRefused, match=f"{label} {key}.*max_allowed_packet") as caught:
        inspect(file, clear=clear)
    assert str(refused(file, RecordsRefused, clear=clear)) == str(caught.value)
    file, fields = of(most - 20_000)
    restore(file, clear=clear)
    (row,) = apps.get_model(label).objects.filter(pk=key).values(*fields)
    assert row == fields

"""A plan in words: what a person reads in the preview."""

import datetime as dt
import zoneinfo
from collections import Counter

import pytest
from core import models as core
from django.apps import apps
from django.contrib.auth import get_user_model
from django.utils import translation
from rest_framework.authtoken.models import Token

from backup import babybuddy
from backup.presentation import chart
from backup.presentation.names import in_words
from backup.presentation.preview import KINDS, photos_in_words, preview, sentence
from backup.restore.plan import PhotoChanges
from tests.support.backups import inspect, rewritten, take
from tests.support.changing import change_everything
from tests.support.filling import fill

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


@pytest.fixture
def two_days(host_db):
    return fill(days=2, children=1, odd=False)


def shown(file, clear=True):
    return preview(inspect(file, clear=clear), BERLIN)


def row_of(page, name):
    """The line of the preview with this name, in its group."""
    for group in page["groups"]:
        for row in group["differing"]:
            if row["name"] == name:
                return group["id"], row
    raise LookupError(name)


@pytest.mark.parametrize(
    ("total", "said"),
    [
        ((1204, 3, 0, 12), "1,204 records will be added, 3 will change, 12 will be deleted."),
        ((1, 0, 0, 1), "1 record will be added, 1 will be deleted."),
        ((2, 0, 1, 0), "2 records will be added; nothing will be deleted."),
        ((0, 1, 0, 2), "1 record will change, 2 will be deleted."),
        ((0, 3, 0, 0), "3 records will change; nothing will be deleted."),
        ((0, 0, 1, 12), "12 records will be deleted."),
        ((0, 0, 0, 0), "Nothing will change: everything in the backup is already here."),
        (
            (0, 0, 1, 0),
            "Nothing will change except when some records were last used, such as your last sign-in.",
        ),
    ],
)
def test_one_sentence(total, said):
    counts = dict(zip(KINDS, total, strict=True))
    with translation.override("en"):
        assert sentence(counts) == said


@pytest.mark.parametrize(
    ("photos", "said"),
    [
        (PhotoChanges(3, 5, 1), ["3 photos will be added", "5 are already here", "1 is missing"]),
        (PhotoChanges(0, 5, 1), ["5 photos are already here", "1 is missing"]),
        (PhotoChanges(0, 0, 2), ["2 photos are missing"]),
        (PhotoChanges(), []),
    ],
)
def test_the_first_number_says_of_what_it_is(photos, said):
    with translation.override("en"):
        assert photos_in_words(photos) == said


def test_groups(two_days):
    groups = {group["id"]: group for group in shown(take())["groups"]}
    names = {
        group: {row["name"] for row in [*found["differing"], *found["same"]]}
        for group, found in groups.items()
    }
    assert {"Feedings", "Children", "Tags", "Tags on entries"} <= names[babybuddy.CARE]
    assert {"Users", "Groups", "User settings", "Site settings"} <= names[babybuddy.ACCOUNTS]
    assert len(names[babybuddy.SEEDED]) == 2
    assert list(groups) == [group for group in babybuddy.GROUPS if group in groups]


def test_every_model_of_the_host_has_its_group(two_days):
    """A new model of the host's core is a care record."""
    groups = {
        model._meta.label_lower: babybuddy.group_of(model._meta.label_lower) for model in apps.get_models()
    }
    assert groups["core.feeding"] == "care"
    assert groups["auth.user"] == groups["authtoken.token"] == "accounts"
    assert groups["core.weightpercentile"] == "seeded"
    assert groups["zoo.animal"] == "other"


def test_what_changes_is_readable(two_days):
    feeding = core.Feeding.objects.order_by("pk").first()
    start = dt.datetime(2026, 3, 4, 23, 30, tzinfo=dt.timezone.utc)
    values = {"start": start, "method": "bottle", "amount": 1234.5, "notes": "<b>before</b>"}
    core.Feeding.objects.filter(pk=feeding.pk).update(**values)
    file = take()
    core.Feeding.objects.filter(pk=feeding.pk).update(method="left breast", notes="x" * 1000)
    with translation.override("en"):
        group, row = row_of(shown(file), "Feedings")
    assert group == "care"
    (example,) = row["examples"]["changed"]
    assert example.title == f"No. {feeding.pk}"
    about = {value.name: value.text for value in example.about}
    assert about["Child"] == str(feeding.child)
    assert about["Start time"] == "March 5, 2026, 12:30 a.m.", "in the viewer's zone"
    values = {value.name: value for value in example.values}
    assert set(values) == {"Method", "Notes"}
    assert (values["Method"].before, values["Method"].text) == ("Left breast", "Bottle")
    assert values["Notes"].text == "<b>before</b>"
    assert len(values["Notes"].before) < 200


def test_what_differs_in_too_little_to_be_seen_is_shown_exactly(two_days):
    feeding = core.Feeding.objects.first()
    file = take()
    core.Feeding.objects.filter(pk=feeding.pk).update(start=feeding.start + dt.timedelta(microseconds=7))
    _group, row = row_of(shown(file), "Feedings")
    (value,) = row["examples"]["changed"][0].values
    assert value.before != value.text


@pytest.mark.parametrize("clear", [True, False])
def test_a_sign_in_is_no_change_to_puzzle_over(two_days, clear):
    """Nor is a tag that was used again. The counts for scripts stay what they are."""
    file = take()
    users = get_user_model().objects
    users.update(last_login=dt.datetime(2026, 3, 4, 23, 30, tzinfo=dt.timezone.utc))
    core.Tag.objects.update(last_used=dt.datetime(2026, 3, 4, 23, 30, tzinfo=dt.timezone.utc))
    number = users.count()
    plan = inspect(file, clear=clear)
    assert plan.as_json()["changes"]["auth.user"]["changed"] == number
    with translation.override("en"):
        page = preview(plan, BERLIN)
    assert page["sentence"].startswith("Nothing will change except when some records were last used")
    _group, row = row_of(page, "Users")
    assert (row["counts"]["changed"], row["counts"]["used"]) == (0, number)
    assert row["examples"]["changed"] == []
    assert len(row["examples"]["used"]) == number
    users.filter(username="admin").update(email="another@example.com")
    _group, row = row_of(shown(file, clear), "Users")
    assert (row["counts"]["changed"], row["counts"]["used"]) == (1, number - 1)
    (example,) = row["examples"]["changed"]
    assert example.title.startswith("admin (")
    assert row_of(shown(file, clear), "Tags")[1]["counts"]["used"] == core.Tag.objects.count()


def test_a_tag_on_an_entry_names_the_entry(two_days):
    file = take()
    tagged = core.Tagged.objects.first()
    kind, key = tagged.content_type.name, tagged.object_id
    tagged.delete()
    with translation.override("en"):
        _group, row = row_of(shown(file), "Tags on entries")
    values = {value.name: value.text for value in row["examples"]["added"][0].values}
    assert values.items() >= {kind.capitalize(): f"No. {key}"}.items()
    assert len(values) == 2, "the other is the tag"


@pytest.mark.parametrize(
    ("backup", "here", "said"),
    [
        (
            [(1, "Night", "night")],
            [(1, "Nap", "night"), (2, "Night", "night_1")],
            "Tag Night (No. 1) in the backup could be any of these here: "
            "Nap (No. 1), by its Slug; Night (No. 2), by its Name.",
        ),
        (
            [(1, "Night", "night"), (2, "Nap", "nap")],
            [(7, "Night", "nap")],
            "Tag Nap (No. 2) in the backup could be what another record of the backup is, too: "
            "Night (No. 7), by its Slug.",
        ),
    ],
)
def test_a_conflict_is_told_by_names(host_db, backup, here, said):
    def make(tags):
        core.Tag.objects.all().delete()
        core.Tag.objects.bulk_create(core.Tag(pk=pk, name=name, slug=slug) for pk, name, slug in tags)

    make(backup)
    file = take()
    make(here)
    with translation.override("en"):
        assert shown(file, clear=False)["conflicts"] == [said]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "core.feeding 8, field child: it refers to core.child 9999, which is not there",
            "Feeding No. 8, field child: it refers to Child No. 9999, which is not there",
        ),
        (
            "The backup holds nothing of core.child, core.tagged.",
            "The backup holds nothing of Children, Tags on entries.",
        ),
        (
            "garden.tree is in the backup, but not installed here",
            "garden.tree is in the backup, but not installed here",
        ),
        (
            "core/feeding.json, core.child.zip and www.core.child",
            "core/feeding.json, core.child.zip and www.core.child",
        ),
    ],
)
def test_messages_name_models_as_the_host_does(host_db, message, said):
    with translation.override("en"):
        assert in_words(message) == said


def test_secrets_are_not_shown(two_days):
    user = get_user_model().objects.get(username="admin")
    before, token = user.password, Token.objects.get(user=user).key
    file = take()
    user.set_password("another")
    user.save()
    Token.objects.filter(user=user).delete()
    for clear in (True, False):
        page = shown(file, clear)
        text = str([[row["examples"] for row in group["differing"]] for group in page["groups"]])
        assert "Password" in text
        for secret in (before, user.password, token):
            assert secret not in text
        _group, row = row_of(page, "Users")
        assert row["examples"]["changed"][0].title.startswith("admin (")


def test_records_that_come_back_with_what_they_refer_to_are_named(two_days):
    file = take()
    child = core.Child.objects.first()
    name = str(child)
    child.delete()
    _group, row = row_of(shown(file), "Feedings")
    assert {"Child": name}.items() <= {v.name: v.text for v in row["examples"]["added"][0].values}.items()


@pytest.mark.parametrize("clear", [True, False])
def test_a_file_of_odd_things_can_be_shown(two_days, clear):
    def odd(records):
        for number, record in enumerate(records["core.feeding"]):
            record["fields"]["child"] = 2**63 + number
            record["fields"] |= {"start": "0001-01-02T09:59:59Z", "end": "0001-01-02T10:09:59Z"}
            record["fields"]["notes"] = "\u202e<script>" * 1000
        for record in records["core.note"]:
            record["fields"]["time"] = "9999-12-30T00:00:00Z"

    page = shown(rewritten(take(), odd), clear)
    _group, row = row_of(page, "Feedings")
    assert row["examples"]["changed" if clear else "removed"], "of another child, so plainly another record"
    assert page["chart"]["last"] == "December 9999"


def test_all_sorts_of_rows(filled):
    """Everything that the tests know of odd values, changed in every table."""
    file = take()
    change_everything()
    for clear in (True, False):
        plan = inspect(file, clear=clear)
        for language in ("en", "de", "he", "ja"):
            with translation.override(language):
                page = preview(plan, BERLIN)
            rows = [row for group in page["groups"] for row in group["differing"]]
            assert len(rows) > 20
            for example in [e for row in rows for examples in row["examples"].values() for e in examples]:
                assert all(len(value.text) < 4000 for value in example.values)


class TestChart:
    def months(self, backup, here=()):
        return chart.chart(Counter(backup), Counter(here))

    def test_gaps_are_seen(self):
        found = self.months({"2026-01": 10, "2026-04": 5}, {"2026-01": 10})
        assert [(month.backup, month.here) for month in found["months"]] == [(10, 10), (0, 0), (0, 0), (5, 0)]
        assert found["first"] == "January 2026"
        assert not found["older"]

    def test_bars(self):
        (month,) = self.months({"2026-01": 100}, {"2026-01": 1})["months"]
        assert float(month.y) + float(month.height) == float(month.y_here) + float(month.height_here) == 120
        assert float(month.height) == 116
        assert float(month.height_here) == 2, "one is not none"
        assert float(month.x) + float(month.width) == float(month.x_here)

    def test_many_years_fit(self):
        every = {f"{year}-{month:02}": 1 for year in range(2000, 2030) for month in range(1, 13)}
        found = self.months(every)
        assert len(found["months"]) == chart.MONTHS
        assert found["last"] == "December 2029"
        assert found["older"]

    def test_odd_years(self):
        found = self.months({"0001-01": 1, "9999-12": 1, "2026-13": 1, "nonsense": 2})
        assert [month.name for month in found["months"]] == ["January 0001", "December 9999"]

    def test_nothing(self):
        assert self.months({}) is None

"""Which row a record is, and when a restore is refused: overwrite mode over data that is there."""

import datetime as dt

import pytest
from babybuddy.models import Settings
from core import models as core
from dbsettings.models import Setting
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from rest_framework.authtoken.models import Token

from backup import scope
from backup.exceptions import (
    Forbidden,
    InvalidBackup,
    InvalidRecord,
    RecordsConflict,
    RestoreRefused,
)
from backup.options import Part
from tests.support.backups import inspect, records_of, refused, restore, rewritten, take
from tests.support.changing import renumber, renumbered
from tests.support.filling import token_key
from tests.support.snapshots import differences, snapshot
from tests.zoo import models as zoo

# MySQL's usual collation does not tell cases apart.
FOLDS_CASE = connection.vendor == "mysql"


@pytest.fixture
def install_anew(django_db_setup):
    """Call it for the freshly installed host."""
    return django_db_setup.put_back


def type_of(model):
    return ContentType.objects.get_for_model(model)


# --- Over a host that has rows of its own -----------------------------------------------------------------


def test_over_a_fresh_host(filled, install_anew):
    before, file = snapshot(), take()
    install_anew()
    restore(file, clear=False)
    assert not differences(before, snapshot())


def test_over_a_fresh_host_whose_rows_have_other_keys(filled, install_anew):
    """Its admin, their settings, the group, the site settings, the percentiles: each is there once afterwards."""
    before, file = snapshot(), take()
    install_anew()
    moves = {}
    for model in (User, Group, Setting, core.WeightPercentile, core.HeightPercentile, Settings):
        keys = model.objects.values_list("pk", flat=True)
        moves[model._meta.label_lower] = {key: key + 10_000 for key in keys}
        renumber(model, moves[model._meta.label_lower])
    assert len(moves) == 6
    restore(file, clear=False)
    assert not differences(renumbered(before, moves), snapshot())


def test_over_the_same_people_under_other_keys(family, install_anew):
    """Users, children and tags changed places: all that refers to them follows, on both ends of generic relations."""
    child, other = family.children
    tag = core.Tag.objects.first()
    core.Tagged.objects.bulk_create(
        [core.Tagged(content_type=type_of(core.Child), object_id=child.pk, tag=tag)]
    )
    zoo.Sign.objects.create(target=child, text="child")
    zoo.Sign.objects.create(target=tag, text="tag")
    zoo.Sign.objects.create(target=family.staff, text="user")
    LogEntry.objects.filter(object_id=str(child.pk)).update(content_type=type_of(core.Child))
    before, file = snapshot(), take()

    tags = list(core.Tag.objects.values_list("pk", flat=True))
    moves = {
        User: {family.staff.pk: family.plain.pk, family.plain.pk: family.staff.pk, family.admin.pk: 4711},
        core.Child: {child.pk: other.pk, other.pk: child.pk},
        core.Tag: dict(zip(tags, [*tags[1:], tags[0]], strict=True)),
        Group: {pk: pk + 50 for pk in Group.objects.values_list("pk", flat=True)},
    }
    for model, keys in moves.items():
        renumber(model, keys)
    expected = renumbered(before, {model._meta.label_lower: keys for model, keys in moves.items()})
    assert not differences(expected, snapshot()), "the test itself"
    User.objects.update(first_name="changed")
    core.Child.objects.update(first_name="changed")
    core.Tag.objects.update(color="#000000")
    core.Timer.objects.update(user_id=4711)
    core.Feeding.objects.update(child_id=child.pk)

    restore(file, clear=False)
    assert not differences(expected, snapshot())
    restore(file, clear=False)
    assert not differences(expected, snapshot()), "once more makes no difference"


def test_unique_values_that_changed_places(host_db):
    """Tags 5 "x" and 9 "z" over 5 "y" and 9 "x"."""
    child = core.Child(first_name="A", last_name="B", birth_date=dt.date(2026, 1, 1))
    child.save()

    def tags(**names):
        core.Tagged.objects.all().delete()
        core.Tag.objects.all().delete()
        for name, pk in names.items():
            core.Tag.objects.bulk_create(
                [core.Tag(pk=pk, name=name, slug=f"slug-{name}", color="#00000" + str(pk))]
            )
            tagged = core.Tagged(pk=pk * 10, content_type=type_of(core.Child), object_id=child.pk, tag_id=pk)
            core.Tagged.objects.bulk_create([tagged])

    tags(x=5, z=9)
    core.Tag.objects.update(color="#ffffff")
    file = take()
    tags(y=5, x=9)
    y = core.Tag.objects.get(name="y")
    restore(file, clear=False)

    names = dict(core.Tag.objects.values_list("name", "pk"))
    assert names["y"] == 5
    assert names["x"] == 9
    assert names["z"] not in (5, 9)
    assert len(names) == 3
    assert core.Tag.objects.get(name="y").color == y.color
    assert {tag.color for tag in core.Tag.objects.exclude(name="y")} == {"#ffffff"}
    # Tagged 50 and 90: the backup's, each at the tag that it had.
    tagged = dict(core.Tagged.objects.values_list("pk", "tag__name"))
    assert tagged == {50: "x", 90: "z"}


def test_a_user_with_another_token_gets_the_one_of_the_backup(family):
    before, file = snapshot(), take()
    token = Token.objects.get(user=family.staff)
    Token.objects.filter(user=family.staff).delete()
    Token.objects.create(user=family.staff, key="0" * 40)
    restore(file, clear=False)
    assert not differences(before, snapshot())
    assert Token.objects.get(user=family.staff).key == token.key


def test_tokens_that_changed_hands(family):
    before, file = snapshot(), take()
    first, second = Token.objects.filter(user__in=[family.staff, family.plain])
    first.user_id, second.user_id = second.user_id, first.user_id
    Token.objects.filter(pk__in=[first.pk, second.pk]).delete()
    Token.objects.bulk_create([first, second])
    restore(file, clear=False)
    assert not differences(before, snapshot())


def test_a_token_that_somebody_else_has_here(family, install_anew):
    """The key is one user's in the backup, and another's here, who has none in the backup."""
    file = take()
    key = token_key(family.staff.username)
    Token.objects.filter(user__in=[family.staff, family.inactive]).delete()
    Token.objects.create(user=family.inactive, key=key)
    before = snapshot()
    restore(file, clear=False)
    after = snapshot()
    assert after["authtoken.token"][key]["user_id"] == family.staff.pk
    assert len(after["authtoken.token"]) == len(before["authtoken.token"])


def test_text_keys_make_way_for_those_of_the_backup(host_db):
    """The same species (by its unique name) under another code; what refers to it follows."""
    parent = zoo.Species.objects.create(code="a", latin="Aves")
    zoo.Species.objects.create(code="p", latin="Psittacus", parent=parent)
    zoo.Sighting.objects.create(species=parent)
    before, file = snapshot(), take()
    zoo.Sighting.objects.all().delete()
    zoo.Species.objects.all().delete()
    parent = zoo.Species.objects.create(code="other", latin="Aves")
    restore(file, clear=False)
    after = snapshot()
    assert after["zoo.species"] == before["zoo.species"]
    assert after["zoo.sighting"] == before["zoo.sighting"]


def test_site_settings_stay_single(host_db):
    """No constraint says so, but two rows of one setting make every page fail."""
    before, file = snapshot(), take()
    keys = list(Setting.objects.values_list("pk", flat=True))
    moves = {key: key + 100 for key in keys}
    renumber(Setting, moves)
    Setting.objects.update(value="01:02:03")
    restore(file, clear=False)
    assert not differences(renumbered(before, {"dbsettings.setting": moves}), snapshot())


def test_site_settings_that_are_there_twice_are_no_obstacle(host_db):
    file = take()
    for setting in list(Setting.objects.all()):
        setting.pk, setting.value = None, "23:23:23"
        Setting.objects.bulk_create([setting])
    restore(file, clear=False)
    assert {row.pk: row.value for row in Setting.objects.all() if row.pk in (1, 2)}.keys() == {1, 2}
    assert not Setting.objects.filter(pk__in=[1, 2], value="23:23:23").exists()


# --- Names that differ by case ----------------------------------------------------------------------------


def test_a_name_in_another_case(host_db):
    """One name on MySQL, two on the others, and an error on neither."""

    def tag(pk, name, slug):
        core.Tag.objects.bulk_create([core.Tag(pk=pk, name=name, slug=slug, color="#000000")])

    tag(4, "night", "night")
    file = take()
    core.Tag.objects.all().delete()
    tag(50, "NIGHT", "NIGHT")
    restore(file, clear=False)
    names = dict(core.Tag.objects.values_list("pk", "name"))
    assert names == ({50: "night"} if FOLDS_CASE else {4: "night", 50: "NIGHT"})
    restore(file, clear=False)
    assert dict(core.Tag.objects.values_list("pk", "name")) == names


def test_a_user_in_another_case(family):
    file = take()
    User.objects.filter(pk=family.staff.pk).update(username="GRANDMA")
    renumber(User, {family.staff.pk: 900})
    restore(file, clear=False)
    names = dict(User.objects.filter(username__iexact="grandma").values_list("pk", "username"))
    assert names == ({900: "grandma"} if FOLDS_CASE else {900: "GRANDMA", family.staff.pk: "grandma"})
    owner = core.Timer.objects.get(child=None).user_id
    assert names[owner] == "grandma"


@pytest.mark.parametrize("clear", [True, False])
def test_two_names_of_the_backup_that_are_one_here(host_db, clear):
    """As a backup of another engine has them: refused by name on MySQL, restored elsewhere."""
    core.Tag.objects.bulk_create(
        [core.Tag(pk=4, name="night", slug="a"), core.Tag(pk=5, name="other", slug="b")]
    )

    def change(records):
        records["core.tag"][1]["fields"]["name"] = "Night"

    file = rewritten(take(), change)
    core.Tag.objects.all().delete()
    if FOLDS_CASE:
        error = refused(file, RecordsConflict, clear=clear)
        assert "core.tag 5" in str(error)
    else:
        restore(file, clear=clear)
        assert dict(core.Tag.objects.values_list("pk", "name")) == {4: "night", 5: "Night"}


# --- Conflicts --------------------------------------------------------------------------------------------


def make_tags(*rows):
    core.Tag.objects.all().delete()
    core.Tag.objects.bulk_create([core.Tag(pk=pk, name=name, slug=slug) for pk, name, slug in rows])


@pytest.mark.parametrize(
    ("backup", "here", "named"),
    [
        ([(1, "x", "s")], [(5, "x", "t"), (6, "y", "s")], "core.tag 1"),
        ([(5, "x", "s")], [(5, "x", "t"), (6, "y", "s")], "core.tag 5"),
        ([(1, "x", "s"), (2, "y", "t")], [(7, "x", "t")], "core.tag 2"),
        ([(1, "x", "s"), (7, "y", "t")], [(7, "x", "t")], "core.tag 7"),
    ],
    ids=["one record, two rows", "one of them its own", "two records, one row", "one of them its own row"],
)
def test_conflicts_are_listed_and_refused(host_db, backup, here, named):
    make_tags(*backup)
    file = take()
    make_tags(*here)
    plan = inspect(file, clear=False)
    assert [line for line in plan.conflicts if named in str(line)]
    assert isinstance(plan.refusal, RecordsConflict)
    assert plan.as_json()["conflicts"] == [*map(str, plan.conflicts)]
    error = refused(file, RecordsConflict)
    assert error.details == [*map(str, plan.conflicts)]
    assert (error.status, error.code) == (409, "conflict")
    # Clearing asks nobody who is who.
    assert inspect(file, clear=True).conflicts == []
    restore(file, clear=True)
    assert list(core.Tag.objects.order_by("pk").values_list("pk", "name", "slug")) == backup


def test_site_settings_twice_in_the_backup(host_db):
    """The host that it was taken from was broken already: said, and not carried over beside a sound one."""

    def change(records):
        first = records["dbsettings.setting"][0]
        records["dbsettings.setting"].append({**first, "pk": 77})

    file = rewritten(take(), change)
    assert "dbsettings.setting" in str(refused(file, RecordsConflict))


# --- Who may, and what is left ----------------------------------------------------------------------------


def superusers(**change):
    def apply(records):
        for record in records["auth.user"]:
            record["fields"].update(change)

    return apply


def without_users(records):
    users = {record["pk"] for record in records["auth.user"]}
    for label, rows in records.items():
        records[label] = [
            row for row in rows if label != "auth.user" and row["fields"].get("user") not in users
        ]


@pytest.mark.parametrize(
    ("change", "clear"),
    [
        (superusers(is_superuser=False), True),
        (superusers(is_active=False), True),
        (without_users, True),
        (
            lambda records: [
                records.pop(label)
                for label in (
                    "auth.user",
                    "babybuddy.settings",
                    "authtoken.token",
                    "admin.logentry",
                    "core.timer",
                )
            ],
            True,
        ),
        (superusers(is_superuser=False), False),
        (superusers(is_active=False), False),
    ],
    ids=[
        "none super",
        "none active",
        "no users",
        "no users' file",
        "none super, overwriting",
        "none active, overwriting",
    ],
)
def test_somebody_must_be_left_to_administer(family, change, clear):
    file = rewritten(take(), change)
    assert isinstance(inspect(file, clear=clear).refusal, RestoreRefused)
    error = refused(file, RestoreRefused, clear=clear)
    assert "superuser" in error.message


def test_a_superuser_who_is_here_and_stays_is_enough(family):
    file = rewritten(take(), superusers(is_superuser=False))
    User.objects.create_superuser("another", password="x")
    restore(file, clear=False)
    assert list(User.objects.filter(is_superuser=True).values_list("username", flat=True)) == ["another"]


def user_record(records, name):
    return next(r["fields"] for r in records["auth.user"] if r["fields"]["username"] == name)


GAINS = {
    "a password": lambda r: user_record(r, "admin").update(password="md5$a$b"),
    "a name": lambda r: user_record(r, "joe").update(username="joseph"),
    "an e-mail": lambda r: user_record(r, "admin").update(email="mine@example.com"),
    "active": lambda r: user_record(r, "nanny").update(is_active=True),
    "staff": lambda r: user_record(r, "joe").update(is_staff=True),
    "superuser": lambda r: user_record(r, "grandma").update(is_superuser=True),
    "a group": lambda r: user_record(r, "joe")["groups"].append(r["auth.group"][0]["pk"]),
    "a permission": lambda r: user_record(r, "joe")["user_permissions"].append(
        ["delete_child", "core", "child"]
    ),
    "a group's permission": lambda r: r["auth.group"][-1]["fields"]["permissions"].append(
        ["delete_user", "auth", "user"]
    ),
    "a group's name": lambda r: r["auth.group"][-1]["fields"].update(name="other"),
    "a new group": lambda r: r["auth.group"].append(
        {"model": "auth.group", "pk": 99, "fields": {"name": "new", "permissions": []}}
    ),
    "an account": lambda r: r["auth.user"].append(
        {"model": "auth.user", "pk": 99, "fields": {**user_record(r, "joe"), "username": "new"}}
    ),
    "a new token": lambda r: r["authtoken.token"].append(
        {
            "model": "authtoken.token",
            "pk": "f" * 40,
            "fields": {"user": r["auth.user"][-1]["pk"], "created": "2026-01-01T00:00:00Z"},
        }
    ),
    "another token": lambda r: r["authtoken.token"][0].update(pk="f" * 40),
    "somebody else's token": lambda r: r["authtoken.token"][0]["fields"].update(
        user=r["auth.user"][-1]["pk"]
    ),
}


@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize("gain", GAINS)
def test_staff_cannot_gain_by_a_restore(family, gain, clear):
    file = rewritten(take(), GAINS[gain])
    assert isinstance(inspect(file, clear=clear, user=family.staff).refusal, Forbidden)
    error = refused(file, Forbidden, clear=clear, user=family.staff)
    assert error.status == 403
    if gain not in ("a name",):
        restore(file, clear=clear, user=family.admin)


def test_staff_cannot_remove_an_account(family):
    file = take()
    User.objects.create_user("new")
    refused(file, Forbidden, clear=True, user=family.staff)
    before = snapshot()
    restore(file, clear=False, user=family.staff)  # the account stays
    assert not differences(before, snapshot())


@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize("how", ["added", "changed", "removed"])
@pytest.mark.parametrize(("model", "field"), [(zoo.Species, "latin"), (zoo.Sample, "char")])
def test_staff_cannot_change_what_people_sign_in_with(family, monkeypatch, model, field, how, clear):
    """A second factor, say, of a package that is installed beside: here the zoo stands for one. Its rows may be told by
    nothing but their numbers."""
    monkeypatch.setattr(scope, "_ACCOUNTS", {*scope._ACCOUNTS, "zoo"})
    model.objects.create(pk=1, **{field: "a"})
    file = take()
    if how == "added":
        model.objects.all().delete()
    elif how == "changed":
        model.objects.update(**{field: "b"})
    else:
        model.objects.create(pk=2, **{field: "b"})
    if clear or how != "removed":
        refused(file, Forbidden, clear=clear, user=family.staff)
    restore(file, clear=clear, parts=[Part.ENTRIES], user=family.staff)
    restore(file, clear=clear, user=family.admin)


def test_staff_cannot_remove_a_group(family):
    file = take()
    Group.objects.create(name="new")
    refused(file, Forbidden, clear=True, user=family.staff)


@pytest.mark.parametrize("clear", [True, False])
def test_what_happens_by_use_is_no_gain(family, clear):
    """Sign-ins, and tokens made since, which stay: else no such user could restore anything."""
    before, file = snapshot(), take()
    User.objects.update(last_login=dt.datetime(2026, 5, 1, tzinfo=dt.timezone.utc))
    Token.objects.create(user=family.inactive)
    before["authtoken.token"] = snapshot()["authtoken.token"]
    core.Feeding.objects.all().delete()
    User.objects.get(pk=family.staff.pk).settings.save()
    restore(file, clear=clear, user=family.staff)
    assert not differences(before, snapshot())


def test_a_superuser_judged_by_the_database_of_now(family):
    """Not by the object that a long request holds, nor by what the backup says of them."""
    file = rewritten(take(), GAINS["superuser"])
    refused(file, Forbidden, clear=True, user=User.objects.get(username="grandma"))


# --- Schema and models ------------------------------------------------------------------------------------


def newer(metadata):
    metadata["migrations"]["core"] = ["0999_from_the_future"]


def test_a_newer_schema_names_its_migrations(family):
    file = rewritten(take(), change_metadata=newer)
    with pytest.raises(RestoreRefused, match="newer"):
        inspect(file, clear=True)
    error = refused(file, RestoreRefused, clear=True)
    assert error.details == ["core.0999_from_the_future"]


def test_an_unknown_model_is_refused(family):
    file = rewritten(take(), lambda records: records.update({"core.thing": []}))
    assert "core.thing" in refused(file, InvalidBackup).message


def test_a_model_of_an_app_that_is_not_here_is_told_and_left_out(family):
    things = [{"model": "elsewhere.thing", "pk": 1, "fields": {"x": 1}}]
    file = rewritten(take(), lambda records: records.update({"elsewhere.thing": things}))
    before = snapshot()
    assert any("elsewhere.thing" in line for line in inspect(file, clear=True).warnings)
    result = restore(file, clear=True)
    assert any("elsewhere.thing" in line for line in result.warnings)
    assert "elsewhere.thing" not in result.restored
    assert not differences(before, snapshot())


def test_a_model_that_is_left_out_here_is_told_and_ignored(family, settings):
    file = take()
    settings.BACKUP_EXCLUDE = ["core.timer"]
    core.Timer.objects.all().delete()
    before = snapshot()
    result = restore(file, clear=False)
    assert any("core.timer" in warning for warning in result.warnings)
    assert not differences(before, snapshot())


def test_models_that_the_backup_lacks_are_cleared_and_told(filled):
    file = rewritten(
        take(), lambda records: [records.pop(label) for label in [*records] if label.startswith("zoo.")]
    )
    present = snapshot()
    plan = inspect(file, clear=True)
    assert plan.changes["zoo.reserved"].removed == 2
    assert any("zoo.reserved" in warning for warning in plan.warnings)
    restore(file, clear=False)
    assert not differences(present, snapshot())
    restore(file, clear=True)
    assert not any(rows for label, rows in snapshot().items() if label.startswith("zoo."))


# --- Records that are not right ---------------------------------------------------------------------------


def in_feeding(**change):
    return lambda records: records["core.feeding"][3]["fields"].update(change)


def without(name):
    return lambda records: records["core.feeding"][3]["fields"].pop(name)


BAD_RECORDS = {
    "an unknown field": (in_feeding(spoon=1), "spoon"),
    "a missing field": (without("amount"), "amount"),
    "text for a number": (in_feeding(amount="much"), "amount"),
    "true for a number": (in_feeding(amount=True), "amount"),
    "a number for text": (in_feeding(notes=7), "notes"),
    "null where none may be": (in_feeding(start=None), "start"),
    "no date": (in_feeding(start="yesterday"), "start"),
    "no duration": (in_feeding(duration="long"), "duration"),
    "a list": (in_feeding(notes=["x"]), "notes"),
    "a key as text": (in_feeding(child="1"), "child"),
    "a date beyond time": (in_feeding(start="0001-01-01T00:00:00+23:59"), "start"),
}


@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize("bad", BAD_RECORDS)
def test_a_bad_field_is_named(family, bad, clear):
    change, field = BAD_RECORDS[bad]
    file = rewritten(take(), change)
    pk = core.Feeding.objects.order_by("pk")[3].pk
    error = refused(file, InvalidRecord, clear=clear)
    assert (error.model, error.pk, error.field) == ("core.feeding", pk, field)
    assert f"core.feeding {pk}" in error.message
    assert field in error.message
    with pytest.raises(InvalidRecord):
        inspect(file, clear=clear)


@pytest.mark.parametrize(
    "record",
    [
        [],
        {},
        {"model": "core.feeding", "pk": 1},
        {"model": "core.feeding", "fields": {}},
        {"model": "core.child", "pk": 1, "fields": {}},
        {"model": "core.feeding", "pk": 1, "fields": []},
        {"model": "core.feeding", "pk": None, "fields": {}},
        {"model": "core.feeding", "pk": {}, "fields": {}},
        {"model": "core.feeding", "pk": 1, "fields": {}, "more": 1},
        {"model": ["core.feeding"], "pk": 1, "fields": {}},
    ],
    ids=str,
)
def test_what_is_no_record_is_refused(family, record):
    file = rewritten(take(), lambda records: records["core.feeding"].insert(2, record))
    assert refused(file, InvalidRecord).model == "core.feeding"


@pytest.mark.parametrize("value", [7, None, "text"], ids=str)
def test_what_is_no_list_of_records_is_refused(family, value):
    file = rewritten(take(), lambda records: records["core.feeding"].insert(2, value))
    assert "core/feeding.json" in str(refused(file, InvalidBackup))


@pytest.mark.parametrize("clear", [True, False])
def test_a_key_that_comes_twice(family, clear):
    file = rewritten(take(), lambda records: records["core.feeding"].insert(1, records["core.feeding"][0]))
    error = refused(file, InvalidRecord, clear=clear)
    assert (error.model, error.pk) == ("core.feeding", core.Feeding.objects.order_by("pk")[0].pk)


@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize("zone", ["Mars/Phobos", "../../etc/passwd", "x" * 99])
def test_a_user_with_an_unknown_time_zone_gets_that_of_the_site(family, zone, clear):
    """With it, every page would fail."""
    before = snapshot()

    def change(records):
        records["babybuddy.settings"][1]["fields"]["timezone"] = zone

    file = rewritten(take(), change)
    plan = inspect(file, clear=clear)
    result = restore(file, clear=clear)
    for warnings in (plan.warnings, result.warnings):
        assert len([line for line in warnings if zone[:50] in line]) == 1
    user = records_of(file)["babybuddy.settings"][1]["pk"]
    before["babybuddy.settings"][user]["timezone"] = settings.TIME_ZONE
    assert not differences(before, snapshot())
    assert not any(zone[:50] in line for line in inspect(take(), clear=clear).warnings)


@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize("language", ["</script><img src=x onerror=alert(1)>", "../de", "tlh"])
@pytest.mark.parametrize("user", ["admin", "staff"])
def test_a_user_with_an_unknown_language_gets_that_of_the_site(family, language, clear, user):
    """The host puts it into a page's script as it is."""
    user = getattr(family, user)
    before = snapshot()

    def change(records):
        records["babybuddy.settings"][1]["fields"]["language"] = language

    file = rewritten(take(), change)
    plan = inspect(file, clear=clear, user=user)
    result = restore(file, clear=clear, user=user)
    for warnings in (plan.warnings, result.warnings):
        assert len([line for line in warnings if language in line]) == 1
    changed = records_of(file)["babybuddy.settings"][1]["pk"]
    before["babybuddy.settings"][changed]["language"] = settings.LANGUAGE_CODE
    assert not differences(before, snapshot())


@pytest.mark.parametrize("language", ["en", "en-US", "pt-br", "zh-Hans"])
def test_a_language_that_the_site_has_in_some_form_stays(family, settings, language):
    settings.LANGUAGES = [(code, code) for code in ("en-US", "pt", "zh-hans", "he", "fr", "de")]

    def change(records):
        records["babybuddy.settings"][1]["fields"]["language"] = language

    file = rewritten(take(), change)
    assert not [line for line in restore(file, clear=True).warnings if "language" in line]
    changed = records_of(file)["babybuddy.settings"][1]["pk"]
    assert snapshot()["babybuddy.settings"][changed]["language"] == language


# --- What happens between the plan and the writing --------------------------------------------------------


def change_some_rows():
    core.Feeding.objects.update(amount=77)
    core.Note.objects.all().delete()
    User.objects.update(first_name="changed")


@pytest.mark.parametrize("clear", [True, False])
def test_rows_that_change_while_a_restore_is_prepared_are_restored_too(family, acting_before_the_lock, clear):
    before, file = snapshot(), take()
    acting_before_the_lock(change_some_rows)
    restore(file, clear=clear)
    assert not differences(before, snapshot())


def test_an_account_that_is_made_while_a_restore_is_prepared_counts(family, acting_before_the_lock):
    """Clearing would remove it, which staff may not."""
    before, file = snapshot(), take()
    acting_before_the_lock(lambda: User.objects.create_user("new"))
    with pytest.raises(Forbidden):
        restore(file, clear=True, user=family.staff)
    assert User.objects.filter(username="new").exists()
    User.objects.get(username="new").delete()
    assert not differences(before, snapshot())


def test_the_last_superuser_may_go_while_a_restore_is_prepared(family, acting_before_the_lock):
    """The backup has none that is active, and the one here is gone by the time that counts."""
    file = rewritten(take(), superusers(is_superuser=False))
    another = User.objects.create_superuser("another", password="x")
    acting_before_the_lock(another.delete)
    with pytest.raises(RestoreRefused, match="superuser"):
        restore(file, clear=False)
    assert User.objects.get(pk=family.admin.pk).is_superuser

"""Texts that MySQL takes for the same, by the collation of their column, though they are not."""

import pytest
from core import models as core
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection

from backup import services
from backup.exceptions import RecordsConflict, RestoreRefused
from backup.options import Part, RestoreMode, RestoreOptions
from tests.support.backups import inspect, metadata_of, records_of, refused, restore, rewritten, take
from tests.support.snapshots import differences, snapshot
from tests.zoo import models as zoo

pytestmark = pytest.mark.skipif(
    connection.vendor != "mysql", reason="the others tell every text from every other"
)
COLLATION = "utf8mb4_general_ci"  # to which every emoji is the same


@pytest.fixture
def folding(family, django_db_setup):
    def collate(collation):
        with connection.constraint_checks_disabled(), connection.cursor() as cursor:
            for table in ("core_tag", "auth_user", "core_child", "zoo_cot"):  # which refers to a name
                cursor.execute(f"ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb4 COLLATE {collation}")

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT collation_name FROM information_schema.columns WHERE table_schema = DATABASE()"
            " AND table_name = 'core_tag' AND column_name = 'name'"
        )
        before = cursor.fetchone()[0]
    collate(COLLATION)
    yield family
    collate(before)


def with_tags(*names):
    """A backup of a site whose tags are these, the second of them on every note, and on one the first as well."""

    def change(records):
        keys = range(100, 100 + len(names))
        like = records["core.tag"][0]["fields"]
        records["core.tag"] = [
            {"model": "core.tag", "pk": key, "fields": {**like, "name": name, "slug": f"s{key}"}}
            for key, name in zip(keys, names, strict=True)
        ]
        for record in records["core.tagged"]:
            record["fields"]["tag"] = 101
        for both in records["core.tagged"][:1]:
            records["core.tagged"].append({**both, "pk": 5000, "fields": {**both["fields"], "tag": 100}})

    return rewritten(take(), change)


PAIRS = [("🍼", "💩"), ("Milk", "milk"), ("Zoë", "Zoe"), ("a", "a ")]
both_modes = pytest.mark.parametrize("clear", [True, False])


@both_modes
@pytest.mark.parametrize("pair", PAIRS)
def test_both_are_named_before_with_the_cause(folding, pair, clear):
    file = with_tags(*pair)
    core.Tag.objects.all().delete()
    plan = inspect(file, clear=clear)
    error = refused(file, RecordsConflict, clear=clear)
    assert str(plan.refusal) == str(error)
    for text in (*pair, COLLATION, "core.tag 100", "core.tag 101", "ALTER TABLE `core_tag`"):
        assert text in str(error)
    assert error.offer == "merge_tags"


def test_a_dry_run_says_what_would_help(folding, tmp_path, capsys):
    file = with_tags("Milk", "milk")
    core.Tag.objects.all().delete()
    (tmp_path / "tags.zip").write_bytes(file.getvalue())
    call_command("restore", str(tmp_path / "tags.zip"), dry_run=True)
    shown = capsys.readouterr().out
    assert shown.count("core.tag 101") == 1
    assert "ALTER TABLE `core_tag`" in shown
    assert "--merge-tags" in shown


@both_modes
@pytest.mark.parametrize("pair", PAIRS)
def test_such_tags_are_made_one_by_choice(folding, pair, clear):
    file = with_tags(*pair)
    core.Tag.objects.all().delete()
    options = RestoreOptions(RestoreMode.CLEAR if clear else RestoreMode.OVERWRITE, merge_tags=True)
    file.seek(0)
    plan = services.inspect_backup(file, options)
    assert plan.refusal is None
    file.seek(0)
    result = services.restore_backup(file, options)
    assert any(pair[0] in line and pair[1] in line for line in result.warnings)
    (tag,) = core.Tag.objects.all()
    assert (tag.pk, tag.name) == (100, pair[0])
    assert {*core.Tagged.objects.values_list("tag", flat=True)} == {100}
    tagged = [*core.Tagged.objects.values_list("content_type", "object_id")]
    assert tagged
    assert len({*tagged}) == len(tagged), "no entry has it twice"


@pytest.mark.parametrize(("key", "here"), [(100, "Milk"), (101, "milk"), (7, "Milk")])
def test_two_that_match_one_here(folding, key, here):
    """What tells them apart is said, and the choice is there: that two records match one row follows from it."""
    file = with_tags("Milk", "milk")
    core.Tag.objects.all().delete()
    core.Tag.objects.create(pk=key, name=here, slug=f"s{key}")
    error = refused(file, RecordsConflict, clear=False)
    assert error.offer == "merge_tags"
    assert "ALTER TABLE `core_tag`" in str(error)
    file.seek(0)
    services.restore_backup(file, RestoreOptions(merge_tags=True))
    assert core.Tag.objects.get().name == "Milk"


@pytest.mark.parametrize(("here", "there"), [("💩", "🍼"), ("ZOE", "Zoë")])
def test_a_tag_is_not_taken_for_another(folding, here, there):
    core.Tag.objects.all().delete()
    core.Tag.objects.create(name=here, slug="here")
    before = snapshot()
    file = with_tags(there, "other")
    error = refused(file, RecordsConflict, clear=False)
    assert f"“{there}” is the same as “{here}” of core.tag {core.Tag.objects.get().pk} here " in str(error)
    assert error.offer == "merge_tags"
    assert not differences(before, snapshot())
    for do in (services.inspect_backup, services.restore_backup):
        file.seek(0)
        warnings = do(file, RestoreOptions(merge_tags=True)).warnings
        assert [f"“{here}” here becomes “{there}”" in line for line in warnings].count(True) == 1
    assert core.Tag.objects.filter(name=there).count() == 1
    restore(file, clear=True)  # nothing is here then
    assert core.Tag.objects.filter(name=there).count() == 1


def test_a_tag_in_other_case_is_the_same_as_ever(folding):
    core.Tag.objects.all().delete()
    tag = core.Tag.objects.create(name="Milk", slug="here")
    restore(with_tags("milk", "other"), clear=False)
    tag.refresh_from_db()
    assert tag.name == "milk"


@both_modes
def test_accounts_are_never_made_one(folding, clear):
    def change(records):
        user = records["auth.user"][-1]
        records["auth.user"].append({**user, "pk": 900, "fields": {**user["fields"], "username": "Mom"}})
        records["auth.user"].append({**user, "pk": 901, "fields": {**user["fields"], "username": "mom"}})

    error = refused(rewritten(take(), change), RecordsConflict, clear=clear)
    assert error.offer == ""
    assert "auth.user 900" in str(error)
    assert not User.objects.filter(username="mom").exists()


@both_modes
def test_somebody_whose_name_got_an_accent(folding, clear):
    """With the same password, it is the same person."""
    file, before = take(), snapshot()
    User.objects.filter(username="joe").update(username="jöe")
    restore(file, clear=clear)
    assert not differences(before, snapshot())


@both_modes
def test_an_account_that_is_not_restored_is_not_taken_for_another(folding, clear):
    """Entries alone: those of somebody whose name is another one to people do not become those of who is here."""
    core.Timer.objects.all().delete()
    User.objects.filter(username="joe").update(username="Zoë")

    def change(records):
        user = next(record for record in records["auth.user"] if record["fields"]["username"] == "Zoë")
        records["auth.user"] = [record for record in records["auth.user"] if record is not user]
        for number, name in ((900, "Zoe"), (901, "grandma ")):
            records["auth.user"].append(
                {**user, "pk": number, "fields": {**user["fields"], "username": name}}
            )
            fields = {
                "name": name,
                "child": None,
                "start": "2024-05-01T10:00:00Z",
                "active": True,
                "user": number,
            }
            records["core.timer"].append({"model": "core.timer", "pk": number, "fields": fields})

    result = restore(rewritten(take(), change), clear=clear, parts=(Part.ENTRIES,))
    assert [timer.user.username for timer in core.Timer.objects.all()] == ["grandma"]
    assert [line for line in result.warnings if "core.timer" in line]


@both_modes
@pytest.mark.parametrize("merge_tags", [False, True])
def test_a_table_of_tags_without_emoji_is_named_before(folding, clear, merge_tags):
    file = with_tags("🍼", "other")
    core.Tag.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE core_tag CONVERT TO CHARACTER SET utf8mb3")
    mode = RestoreMode.CLEAR if clear else RestoreMode.OVERWRITE
    file.seek(0)
    with pytest.raises(RestoreRefused, match=r"ALTER TABLE `core_tag` CONVERT TO CHARACTER SET utf8mb4"):
        services.restore_backup(file, RestoreOptions(mode, merge_tags=merge_tags))


@both_modes
def test_a_table_without_emoji_is_named_before(family, clear, request):
    def convert(charset):
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE core_note CONVERT TO CHARACTER SET {charset}")

    core.Note.objects.create(child=family.children[0], note="🍼")
    file = take()
    core.Note.objects.all().delete()
    convert("utf8mb3")
    request.addfinalizer(lambda: convert("utf8mb4"))
    plan = inspect(file, clear=clear)
    error = refused(file, RestoreRefused, clear=clear)
    assert str(plan.refusal) == str(error)
    assert "ALTER TABLE `core_note` CONVERT TO CHARACTER SET utf8mb4;" in str(error)
    file = take()  # no emoji in it
    restore(file, clear=clear)


@both_modes
@pytest.mark.parametrize("pair", [("Wolf", "wolf"), ("a", "a ")])
def test_keys_that_are_texts_are_named_before(family, pair, clear):
    """As unique texts are."""

    def change(records):
        records["zoo.species"] = [
            {"model": "zoo.species", "pk": text, "fields": {"latin": f"latin {n}", "parent": None}}
            for n, text in enumerate(pair)
        ]

    file = rewritten(take(), change)
    plan = inspect(file, clear=clear)
    error = refused(file, RecordsConflict, clear=clear)
    assert str(plan.refusal) == str(error)
    for text in (f"“{pair[0]}”", f"“{pair[1]}”", "zoo.species", "ALTER TABLE `zoo_species`"):
        assert text in str(error)


@both_modes
def test_a_token_is_not_told(folding, clear):
    token = "abcdef" * 6 + "abcd"

    def change(records):
        records["authtoken.token"] = [
            {
                "model": "authtoken.token",
                "pk": key,
                "fields": {"user": user["pk"], "created": "2026-01-01T00:00:00Z"},
            }
            for key, user in zip((token, token.upper()), records["auth.user"], strict=False)
        ]

    error = refused(rewritten(take(), change), RecordsConflict, clear=clear)
    assert "authtoken.token" in str(error)
    assert token not in str(error).lower()


@both_modes
def test_tags_that_are_the_same_one_after_the_other(folding, clear):
    """The second is the third by its name, and the first by its slug."""

    def change(records):
        like = records["core.tag"][0]["fields"]
        tags = [("Cafe!", "cafe"), ("Café", "café"), ("CAFÉ", "café_1")]
        records["core.tag"] = [
            {"model": "core.tag", "pk": pk, "fields": {**like, "name": name, "slug": slug}}
            for pk, (name, slug) in enumerate(tags, 100)
        ]
        for number, record in enumerate(records["core.tagged"]):
            record["fields"]["tag"] = 100 + number % 3

    file = rewritten(take(), change)
    core.Tag.objects.all().delete()
    file.seek(0)
    mode = RestoreMode.CLEAR if clear else RestoreMode.OVERWRITE
    services.restore_backup(file, RestoreOptions(mode, merge_tags=True))
    assert [*core.Tag.objects.values_list("pk", "name")] == [(100, "Cafe!")]
    assert core.Tagged.objects.exclude(tag=100).count() == 0


def respell(table, column, text="UPPER({})"):
    """Make a reference say its text otherwise, which the server takes for the same."""
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {column} = {text.format(column)}")
        assert cursor.rowcount > 0


SPELLINGS = pytest.mark.parametrize("text", ["UPPER({})", "CONCAT({}, ' ')"], ids=["case", "blank"])


@both_modes
@SPELLINGS
def test_a_reference_that_says_a_text_otherwise_is_kept(family, text, clear):
    """As the text is in the row that it refers to, so that the backup is whole everywhere."""
    wolf = zoo.Species.objects.create(code="wolf", latin="lupus")
    zoo.Species.objects.create(code="dog", latin="familiaris", parent=wolf)
    zoo.Sighting.objects.create(species=wolf)
    zoo.Day.objects.create(date="2026-01-01").species.add(wolf)
    zoo.Sample.objects.create(species=wolf)
    before = snapshot()
    respell("zoo_sighting", "species_id", text)
    respell("zoo_day_species", "species_id", text)
    respell("zoo_sample", "species_id", text)
    respell("zoo_species", "parent_id", text)
    file = take()
    assert not metadata_of(file).get("left_out")
    assert records_of(file)["zoo.day"][-1]["fields"]["species"] == ["wolf"]
    assert records_of(file)["zoo.sighting"][-1]["fields"]["species"] == "lupus"
    zoo.Day.objects.all().delete()
    zoo.Sighting.objects.all().delete()
    restore(file, clear=clear)
    with connection.cursor() as cursor:
        for table, column in [("zoo_species", "parent_id"), ("zoo_sample", "species_id")]:
            cursor.execute(f"UPDATE {table} SET {column} = 'wolf' WHERE {column} = 'wolf'")
    assert not differences(before, snapshot())

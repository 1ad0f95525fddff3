"""Rows that refer to something that is not there: a backup says so, a restore leaves them out by choice, and undo
brings them back."""

import re
from contextlib import contextmanager
from dataclasses import replace

import pytest
from core import models as core
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import CommandError, call_command
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from backup import services
from backup.exceptions import Damaged, Forbidden, RecordsRefused
from backup.options import RestoreMode, RestoreOptions
from backup.proof import Verdict
from tests.support.backups import metadata_of, rewritten, take
from tests.support.http import error_of, script, upload
from tests.support.snapshots import differences, snapshot

KEEP = RestoreMode.OVERWRITE, RestoreMode.CLEAR
UNCHECKED = {
    "sqlite": ("PRAGMA foreign_keys = OFF", "PRAGMA foreign_keys = ON"),
    "postgresql": ("SET session_replication_role = replica", "SET session_replication_role = DEFAULT"),
    "mysql": ("SET foreign_key_checks = 0", "SET foreign_key_checks = 1"),
}


@contextmanager
def unchecked():
    """A cursor for which references are not checked."""
    before, after = UNCHECKED[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(before)
        yield cursor
        cursor.execute(after)


@pytest.fixture
def pointless(family):
    """A note of a child that is not there, with a tag, a timer that need have no child, a user in no group. Returns the
    keys of the note and of the timer."""
    child, tag = family.children[0], core.Tag.objects.first()
    note = core.Note.objects.create(child=child, note="lost")
    note.tags.add(tag)
    timer = core.Timer.objects.create(user=family.admin, child=child, start=note.time)
    with unchecked() as cursor:
        cursor.execute("UPDATE core_note SET child_id = 9999 WHERE id = %s", [note.pk])
        cursor.execute("UPDATE core_timer SET child_id = 9998 WHERE id = %s", [timer.pk])
        cursor.execute(
            "INSERT INTO auth_user_groups (user_id, group_id) VALUES (%s, 9997)", [family.admin.pk]
        )
    return note.pk, timer.pk


def assert_named(text, note, timer):
    assert f"core.note {note}" in text
    assert f"core.timer {timer}" in text
    assert "auth.user" in text
    for key in (9999, 9998, 9997):
        assert str(key) in text


def test_the_page_after_a_download_names_them(pointless, client, family):
    client.force_login(family.admin)
    assert client.get(reverse("backup:download")).getvalue()
    page = client.get(reverse("backup:index")).content.decode()
    for line in (
        f"Note No. {pointless[0]}, field child",
        f"Timer No. {pointless[1]}, field child",
        "User No.",
    ):
        assert line in page
    core.Note.objects.filter(pk=pointless[0]).update(child=family.children[0])
    core.Timer.objects.filter(pk=pointless[1]).update(child=None)
    family.admin.groups.clear()
    with unchecked() as cursor:
        cursor.execute("DELETE FROM auth_user_groups WHERE group_id = 9997")
    assert client.get(reverse("backup:download")).getvalue()
    assert "refer to something that is not there" not in client.get(reverse("backup:index")).content.decode()


def without(state, family, note, timer):
    del state["core.note"][note]
    state["core.timer"][timer]["child_id"] = None
    state["auth.user_groups"] = {
        pair: count for pair, count in state["auth.user_groups"].items() if 9997 not in pair
    }
    return state


def test_a_backup_says_so_when_it_is_made(pointless, capfd, tmp_path):
    file = take()
    dangling = metadata_of(file)["dangling"]
    assert dangling["total"] == 3
    assert {(place["model"], place["field"]) for place in dangling["places"]} == {
        ("core.note", "child"),
        ("core.timer", "child"),
        ("auth.user", "groups"),
    }
    call_command("backup", output=str(tmp_path / "x.zip"))
    assert_named(capfd.readouterr().err, *pointless)
    file.seek(0)
    plan = services.inspect_backup(file, RestoreOptions())
    assert_named("\n".join(plan.warnings), *pointless)


def test_a_backup_without_such_rows_says_nothing(family):
    assert not {"dangling", "left_out"} & metadata_of(take()).keys()


@pytest.mark.parametrize("mode", KEEP)
def test_they_are_left_out_by_choice(family, pointless, mode, django_db_setup):
    before, file = snapshot(), take()
    tagged = core.Tagged.objects.get(content_type__model="note", object_id=pointless[0]).pk
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM auth_user_groups WHERE group_id = 9997")
        cursor.execute("DELETE FROM core_note WHERE id = %s", [pointless[0]])
        cursor.execute("DELETE FROM core_timer WHERE id = %s", [pointless[1]])
    there = snapshot()
    refusal = services.inspect_backup(file, RestoreOptions(mode)).refusal
    with pytest.raises(RecordsRefused) as caught:
        services.restore_backup(file, RestoreOptions(mode))
    assert caught.value.offer == "leave_out"
    assert_named(str(caught.value), *pointless)
    assert str(refusal) == str(caught.value)
    assert not differences(there, snapshot())
    plan = services.inspect_backup(file, RestoreOptions(mode, leave_out=True))
    assert plan.refusal is None
    assert_named("\n".join(plan.warnings), *pointless)
    file.seek(0)
    result = services.restore_backup(file, RestoreOptions(mode, leave_out=True))
    assert_named("\n".join(result.warnings), *pointless)
    for warnings in (plan.warnings, result.warnings):
        (line,) = [line for line in warnings if line.startswith("Left out, since they refer")]
        assert f"core.note {pointless[0]}: " in line  # the whole record
        assert f"core.timer {pointless[1]}, field child: " in line
    assert result.restored["core.note"] == len(before["core.note"]) - 1
    expected = without(before, family, *pointless)
    if mode.clears:  # the tag of the note goes with it, or the next note with its number would get it
        del expected["core.tagged"][tagged]
    assert not differences(expected, snapshot())


@pytest.mark.parametrize("mode", KEEP)
def test_a_preview_knows_what_a_file_does_not_say(family, mode):
    """It says what refers to a row that is neither in the file nor here, though other records are only compared."""
    child, other = family.children
    note = core.Note.objects.create(child=child, note="here", time=timezone.now())

    def change(records):
        for row in records["core.note"]:
            if row["pk"] == note.pk:
                row["fields"]["child"] = 9999
        gone = [row for row in records["core.child"] if row["pk"] == other.pk]
        records["core.child"].remove(*gone)

    file, now = rewritten(take(), change), snapshot()
    plan = services.inspect_backup(file, RestoreOptions(mode))
    with pytest.raises(RecordsRefused) as caught:
        services.restore_backup(file, RestoreOptions(mode))
    assert str(plan.refusal) == str(caught.value)
    assert plan.as_json()["offer"] == "leave_out"
    # Where existing data is kept, the other child is still here.
    named = f"core.child {other.pk}," if mode.clears else f"core.note {note.pk}, field child"
    assert all(named in line for line in plan.refusal.details)
    assert not differences(now, snapshot())


def test_undo_brings_them_back(family, pointless):
    file = take()
    before = snapshot()
    file.seek(0)
    services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR, leave_out=True))
    assert differences(before, snapshot())
    result = services.undo_restore()
    if connection.vendor == "postgresql":  # it takes no such rows
        assert_named("\n".join(result.warnings), *pointless)
        before = without(before, family, *pointless)
    assert not differences(before, snapshot())


def test_those_that_were_here_stay_where_nothing_is_cleared(family, pointless):
    before = snapshot()
    with unchecked() as cursor:
        cursor.execute("DELETE FROM core_note WHERE id = %s", [pointless[0]])
        file = take()
    child = core.Child.objects.first()
    other = core.Note.objects.create(child=child, note="here")
    with unchecked() as cursor:
        cursor.execute("UPDATE core_note SET child_id = 9999 WHERE id = %s", [other.pk])
    file.seek(0)
    services.restore_backup(file, RestoreOptions(leave_out=True))
    assert before["core.note"].keys() - {pointless[0]} < snapshot()["core.note"].keys()
    assert core.Note.objects.filter(pk=other.pk).exists()


def test_the_page_and_a_script_are_offered_it(family, pointless, client):
    file = take().getvalue()
    with unchecked() as cursor:
        cursor.execute("DELETE FROM core_note WHERE id = %s", [pointless[0]])
        cursor.execute("DELETE FROM core_timer WHERE id = %s", [pointless[1]])
        cursor.execute("DELETE FROM auth_user_groups WHERE group_id = 9997")
    answer = script(family.admin).post(reverse("backup:confirm"), {"backup_file": upload(file)})
    assert (answer.status_code, error_of(answer)["offer"]) == (409, "leave_out")

    client.force_login(family.admin)
    answer = client.post(reverse("backup:restore"), {"backup_file": upload(file)}, follow=True)
    page = answer.content.decode()
    (link,) = re.findall(r'href="([^"]*leave_out=true[^"]*)"[^>]*>\s*Leave these out', page)
    answer = client.get(link.replace("&amp;", "&"))
    fields = dict(
        re.findall(
            r'type="hidden" name="(?!csrf)([^"]*)" value="([^"]*)"',
            answer.content.decode().split(f'action="{reverse("backup:confirm")}"')[1].split("</form>")[0],
        )
    )
    answer = client.post(
        reverse("backup:confirm"), {**fields, "confirmed": "yes", "accounts": "replace"}, follow=True
    )
    assert answer.status_code == 200
    assert not core.Note.objects.filter(pk=pointless[0]).exists()
    assert core.Timer.objects.get(pk=pointless[1]).child is None


def test_a_command_is_offered_it(pointless, tmp_path):
    (tmp_path / "x.zip").write_bytes(take().getvalue())
    with unchecked() as cursor:
        cursor.execute("DELETE FROM core_note WHERE id = %s", [pointless[0]])
    with pytest.raises(CommandError, match="add --leave-out"):
        call_command("restore", str(tmp_path / "x.zip"), clear=True, interactive=False)
    call_command("restore", str(tmp_path / "x.zip"), clear=True, interactive=False, leave_out=True)
    assert not core.Note.objects.filter(pk=pointless[0]).exists()


# --- References by natural key ------------------------------------------------------------------------------

NATURAL = [
    ("core_tagged", "content_type_id", 9876),
    ("django_admin_log", "content_type_id", 999),
    ("auth_user_user_permissions", "permission_id", 5555),
    ("auth_group_permissions", "permission_id", 5556),
]


def without_natural_keys(family):
    """Let references by natural key point at nothing, or at a permission that is of no content type."""
    group = Group.objects.create(name="Sitters")
    of_none, other = Permission.objects.filter(content_type__model="tummytime").order_by("pk")[:2]
    group.permissions.add(of_none, other)
    family.admin.user_permissions.add(of_none, other)
    kind = ContentType.objects.get_for_model(core.Note)
    LogEntry.objects.create(user=family.admin, content_type=kind, object_repr="x", action_flag=1)
    with unchecked() as cursor:
        cursor.execute("DELETE FROM django_content_type WHERE model = 'tummytime'")
        for table, column, number in NATURAL:
            where = f"permission_id = {other.pk}"
            if column == "content_type_id":
                cursor.execute(f"SELECT MIN(id) FROM {table}")
                where = f"id = {cursor.fetchone()[0]}"
            cursor.execute(f"UPDATE {table} SET {column} = {number} WHERE {where}")
    ContentType.objects.clear_cache()
    return of_none.pk


def with_what_is_there(state, *, of_none):
    """Take out of a snapshot what points at nothing. `of_none`: whether a permission that is of no content type stays,
    since it has a row."""

    def is_gone(value):
        return isinstance(value, tuple) and (value[0] == "missing" or (value[1] == "missing" and not of_none))

    for label in ("auth.user_user_permissions", "auth.group_permissions"):
        state[label] = {p: count for p, count in state[label].items() if not any(map(is_gone, p))}
    tagged = state["core.tagged"]
    state["core.tagged"] = {pk: row for pk, row in tagged.items() if not is_gone(row["content_type_id"])}
    for row in state["admin.logentry"].values():
        row["content_type_id"] = (
            ("missing", None) if is_gone(row["content_type_id"]) else row["content_type_id"]
        )
    return state


def assert_all_named(text, of_none):
    for label, number in (
        ("contenttypes.contenttype", 9876),
        ("contenttypes.contenttype", 999),
        ("auth.permission", 5555),
        ("auth.permission", 5556),
        ("auth.permission", of_none),
    ):
        assert f"it refers to {label} {number}, which is not there" in text


def test_a_backup_names_what_has_no_natural_key(family, capfd, tmp_path):
    of_none = without_natural_keys(family)
    call_command("backup", output=str(tmp_path / "x.zip"))
    assert_all_named(capfd.readouterr().err, of_none)
    with (tmp_path / "x.zip").open("rb") as file:
        for mode in RestoreMode:
            assert_all_named("\n".join(services.inspect_backup(file, RestoreOptions(mode)).warnings), of_none)
        proof = services.prove_backup(file)
    assert (proof.verdict, proof.reason) == (Verdict.PROVED, "")


def test_undo_brings_back_what_has_no_natural_key(family):
    """Though content types and permissions are made for the backup that is restored."""
    file = take()
    of_none = without_natural_keys(family)
    before = snapshot()
    services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR))
    assert differences(before, snapshot())
    result = services.undo_restore()
    if connection.vendor == "postgresql":  # it takes no such rows
        before = with_what_is_there(before, of_none=True)
        assert_all_named("\n".join(result.warnings), of_none)
    assert not differences(before, snapshot())


@pytest.mark.parametrize("mode", KEEP)
def test_what_has_no_natural_key_is_left_out_by_choice(family, mode):
    """Although other rows here have the numbers."""
    kind = ContentType.objects.get(model="tummytime").pk
    of_none = without_natural_keys(family)
    before, file = snapshot(), take()
    with unchecked() as cursor:
        # The read-only group has it, too, where `migrate` has run twice.
        related = [(f"auth_{name}_permissions", "permission_id", of_none) for name in ("user_user", "group")]
        for table, column, number in [*NATURAL, *related]:
            cursor.execute(f"DELETE FROM {table} WHERE {column} = {number}")
        cursor.execute(f"DELETE FROM core_tagged WHERE content_type_id = {kind}")
    kind = ContentType.objects.create(pk=9876, app_label="another", model="type")
    ContentType.objects.create(pk=999, app_label="another", model="one")
    for number in (5555, 5556):
        Permission.objects.create(pk=number, content_type=kind, codename=f"do_{number}", name="x")
    ContentType.objects.create(app_label="core", model="tummytime")
    now = snapshot()
    with pytest.raises(RecordsRefused) as caught:
        services.restore_backup(file, RestoreOptions(mode))
    assert caught.value.offer == "leave_out"
    assert_all_named(str(caught.value), of_none)
    assert not differences(now, snapshot())
    result = services.restore_backup(file, RestoreOptions(mode, leave_out=True))
    assert_all_named("\n".join(result.warnings), of_none)
    assert not differences(with_what_is_there(before, of_none=False), snapshot())


def test_a_number_in_place_of_a_natural_key_gives_nobody_a_right(family):
    """A member of staff writes the number of a permission into a file."""
    number = Permission.objects.get(codename="add_user").pk

    def change(records):
        (record,) = [row for row in records["auth.user"] if row["pk"] == family.staff.pk]
        record["fields"]["user_permissions"].append(number)

    file, now = rewritten(take(), change), snapshot()
    with pytest.raises(Forbidden):
        services.restore_backup(file, RestoreOptions(), user=family.staff)
    for user in (family.staff, family.admin):
        services.restore_backup(file, RestoreOptions(leave_out=True), user=user)
        assert not differences(now, snapshot())


def test_a_missing_table_is_said_and_made_anew(family, django_db_setup):
    """On every engine: one sentence, and a way on."""
    before, file = snapshot(), take()
    with unchecked() as cursor:
        cursor.execute(f"DROP TABLE core_note{' CASCADE' if connection.vendor == 'postgresql' else ''}")
    for act in (services.inspect_backup, services.restore_backup):
        file.seek(0)
        with pytest.raises(Damaged, match="core_note") as caught:
            act(file, RestoreOptions(RestoreMode.CLEAR))
        assert caught.value.offer == "without_safety_copy"
    file.seek(0)
    result = services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR, without_safety_copy=True))
    assert any("core_note" in line for line in result.warnings)
    assert not differences(before, snapshot())


# --- What is left out does not touch what is here -----------------------------------------------------------


def of_another_site(file):
    return rewritten(file, change_metadata=lambda metadata: metadata.update(instance="0" * 32))


def referring_to_nothing(family):
    """A backup of which a note, a timer and a tag's link refer to nothing, though they are fine here; and what is here.
    Every other record of it is the same."""
    child = family.children[0]
    note = core.Note.objects.create(child=child, note="fine", time=timezone.now())
    note.tags.add("mine")
    timer = core.Timer.objects.create(user=family.admin, child=child, name="fine", start=timezone.now())
    link = core.Tagged.objects.get(tag__name="mine")

    def change(records):
        for label, key, field, value in (
            ("core.note", note.pk, "child", 9999),
            ("core.timer", timer.pk, "child", 9998),
            ("core.tagged", link.pk, "tag", 9997),
        ):
            (row,) = [row for row in records[label] if row["pk"] == key]
            row["fields"][field] = value
            row["fields"].update({"note": "changed"} if label == "core.note" else {})

    return rewritten(take(), change), {"core.note": note.pk, "core.timer": timer.pk, "core.tagged": link.pk}


@pytest.mark.parametrize("mode", [mode for mode in RestoreMode if not mode.clears])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["of this site", "of another"])
def test_a_record_that_is_left_out_leaves_the_one_here(family, mode, elsewhere):
    file, _keys = referring_to_nothing(family)
    file = of_another_site(file) if elsewhere else file
    before, options = snapshot(), RestoreOptions(mode, leave_out=True)
    plan = services.inspect_backup(file, options)
    assert sum(change.changed + change.removed + change.added for change in plan.changes.values()) == 0
    result = services.restore_backup(file, options)
    for warnings in plan.warnings, result.warnings:
        (line,) = [line for line in warnings if line.startswith("Left out, since")]
        assert all(str(number) in line for number in (9999, 9998, 9997))
    assert not differences(before, snapshot())


def test_a_preview_that_refuses_says_what_would_be(family, client):
    file = of_another_site(referring_to_nothing(family)[0]).getvalue()
    core.Note.objects.create(child=family.children[0], note="new")
    client.force_login(family.admin)
    form = {"backup_file": upload(file), "clear_existing_data": "true"}
    refused = client.post(reverse("backup:restore"), form, follow=True).content.decode()
    (link,) = re.findall(r'href="([^"]*leave_out=true[^"]*)"[^>]*>\s*Leave these out', refused)
    done = client.get(link.replace("&amp;", "&")).content.decode()
    for text in ('class="lead"', "What will happen", "You need not do anything"):
        assert text in done
        assert text not in refused
    for text in ("What would happen", "If this backup could be restored"):
        assert text in refused
        assert text not in done
    for text in ("What this backup would do", "made by another Baby Buddy site"):
        assert text in done
        assert text in refused


def test_where_all_is_cleared_the_preview_counts_what_is_left_out(family):
    file, keys = referring_to_nothing(family)
    before, options = snapshot(), RestoreOptions(RestoreMode.CLEAR, leave_out=True)
    changes = {
        label: change.as_json() for label, change in services.inspect_backup(file, options).changes.items()
    }
    assert (changes["core.note"]["removed"], changes["core.tagged"]["removed"]) == (1, 1)
    assert changes["core.timer"]["changed"] == 1
    result = services.restore_backup(file, options)
    for label, change in changes.items():
        assert result.restored[label] == change["added"] + change["changed"] + change["unchanged"]
    del before["core.note"][keys["core.note"]], before["core.tagged"][keys["core.tagged"]]
    before["core.timer"][keys["core.timer"]]["child_id"] = None
    assert not differences(before, snapshot())


@pytest.mark.parametrize("lacking", [False, True], ids=["a record", "the model"])
def test_a_number_of_another_site_is_not_one_of_here(family, lacking):
    """A note of the backup refers to a child that is not in it. Here, somebody else has that number."""
    child = family.children[0]
    core.Note.objects.create(child=child, note="of the other site", time=timezone.now())

    def change(records):
        if lacking:
            del records["core.child"]
        else:
            records["core.child"] = [row for row in records["core.child"] if row["pk"] != child.pk]

    file = rewritten(take(), change)
    core.Note.objects.all().delete()
    before, options = snapshot(), RestoreOptions()
    # The site that made it still knows whose the note is.
    assert services.inspect_backup(file, options).refusal is None
    file = of_another_site(file)
    plan = services.inspect_backup(file, options)
    with pytest.raises(RecordsRefused, match=f"it refers to core.child {child.pk}") as caught:
        services.restore_backup(file, options)
    assert (str(plan.refusal), caught.value.offer) == (str(caught.value), "leave_out")
    assert not differences(before, snapshot())
    services.restore_backup(file, replace(options, leave_out=True))
    assert not core.Note.objects.filter(child=child).exists()


@pytest.mark.parametrize("mode", KEEP)
def test_a_file_without_a_model_loses_nothing_unasked(family, mode):
    """At the same site, what belongs to it is that of the rows here. If these are cleared, nothing is restored."""
    file = rewritten(take(), lambda records: records.pop("core.child"))
    before = snapshot()
    plan = services.inspect_backup(file, RestoreOptions(mode))
    if mode.clears:
        with pytest.raises(RecordsRefused) as caught:
            services.restore_backup(file, RestoreOptions(mode))
        assert str(plan.refusal) == str(caught.value)
    else:
        services.restore_backup(file, RestoreOptions(mode))
    assert not differences(before, snapshot())


@pytest.mark.parametrize("mode", KEEP)
def test_what_refers_to_an_excluded_model(family, mode, settings):
    """Its rows stay, so that the preview knows what the restore would refuse."""
    core.Tag.objects.create(name="more")
    settings.BACKUP_EXCLUDE = ["core.tag"]
    file, before = take(), snapshot()
    services.restore_backup(file, RestoreOptions(mode))
    assert not differences(before, snapshot())
    file.seek(0)
    other = of_another_site(file)
    plan = services.inspect_backup(other, RestoreOptions(mode))
    with pytest.raises(RecordsRefused, match=r"core\.tag") as caught:
        services.restore_backup(other, RestoreOptions(mode))
    assert str(plan.refusal) == str(caught.value)
    assert not differences(before, snapshot())


def test_what_refers_to_a_record_that_is_left_out_keeps_the_one_here(family):
    """A tag's link of the backup leads to a note that is left out, since it refers to nothing. The note is here."""
    child = family.children[0]
    note = core.Note.objects.create(child=child, note="fine", time=timezone.now())
    for name in ("one", "two"):
        note.tags.add(name)

    def change(records):
        (row,) = [row for row in records["core.note"] if row["pk"] == note.pk]
        row["fields"]["child"] = 9999

    file, before = rewritten(take(), change), snapshot()
    core.Tagged.objects.filter(tag__name="one").delete()
    services.restore_backup(file, RestoreOptions(leave_out=True))
    assert not differences(before, snapshot())
    # The note of another site that has its number is another one, so its tags stay away.
    core.Tagged.objects.filter(tag__name="one").delete()
    services.restore_backup(of_another_site(file), RestoreOptions(leave_out=True))
    assert [*note.tags.names()] == ["two"]


@pytest.mark.parametrize("mode", [mode for mode in RestoreMode if not mode.clears])
def test_a_field_that_is_left_out_keeps_what_is_here_whatever_its_number(family, mode):
    """The children of the backup have each other's numbers, and two users as well."""
    LogEntry.objects.all().delete()  # it has numbers of children as texts
    one, other = family.children
    timer = core.Timer.objects.create(user=family.admin, child=one, name="mine", start=timezone.now())
    for user in (family.staff, family.plain):
        user.groups.set([Group.objects.get_or_create(name="Sitters")[0]])
    swaps = {"core.child": {one.pk: other.pk, other.pk: one.pk}}
    swaps["auth.user"] = {family.staff.pk: family.plain.pk, family.plain.pk: family.staff.pk}

    def change(records):
        for label, keys in swaps.items():
            for row in records[label]:
                row["pk"] = keys.get(row["pk"], row["pk"])
            records[label].sort(key=lambda row: row["pk"])
            for row in [row for rows in records.values() for row in rows]:
                name = {"core.child": "child", "auth.user": "user"}[label]
                if name in row["fields"]:
                    row["fields"][name] = keys.get(row["fields"][name], row["fields"][name])
        (row,) = [row for row in records["core.timer"] if row["pk"] == timer.pk]
        row["fields"]["child"] = 9999
        for row in records["auth.user"]:
            row["fields"]["groups"] = [9998] if row["fields"]["groups"] else []

    before = snapshot()
    file = rewritten(take(), change)
    for source in (file, of_another_site(file)):
        plan = services.inspect_backup(source, RestoreOptions(mode, leave_out=True))
        assert not [line for line in plan.warnings if "same numbers" in line or "rights" in line]
        services.restore_backup(source, RestoreOptions(mode, leave_out=True))
        assert not differences(before, snapshot())


@pytest.mark.parametrize("why", ["a record", "the model", "excluded there", "excluded here"])
def test_tags_of_another_site_do_not_become_those_of_other_entries(family, settings, why):
    child = family.children[0]
    note = core.Note.objects.create(child=child, note="theirs", time=timezone.now())
    note.tags.add("theirs")

    def change(records):
        if why == "the model":
            del records["core.note"]
        elif why == "a record":
            records["core.note"] = [row for row in records["core.note"] if row["pk"] != note.pk]

    settings.BACKUP_EXCLUDE = ["core.note"] if why == "excluded there" else []
    file = of_another_site(rewritten(take(), change))
    settings.BACKUP_EXCLUDE = ["core.note"] if why == "excluded here" else []
    core.Tagged.objects.filter(tag__name="theirs").delete()
    core.Note.objects.filter(pk=note.pk).update(note="mine")
    before = snapshot()
    for mode in RestoreMode:
        if mode.clears and why != "excluded here":
            continue  # the note here goes
        options = RestoreOptions(mode)
        plan = services.inspect_backup(file, options)
        with pytest.raises(RecordsRefused, match=f"core.note {note.pk}") as caught:
            services.restore_backup(file, options)
        assert (caught.value.offer, str(caught.value)) == ("leave_out", str(plan.refusal))
        assert not differences(before, snapshot())
        result = services.restore_backup(file, replace(options, leave_out=True))
        assert any("Left out" in line and f"core.note {note.pk}" in line for line in result.warnings)
        assert not core.Note.objects.get(pk=note.pk).tags.filter(name="theirs")
        services.undo_restore()
        assert not differences(before, snapshot())


def test_tags_of_what_is_cleared_and_not_in_the_file_go_to_nobody(family, settings):
    """The next note would get them, with the number."""
    note = core.Note.objects.create(child=family.children[0], note="tagged", time=timezone.now())
    note.tags.add("theirs")
    settings.BACKUP_EXCLUDE = ["core.note"]
    file = take()
    settings.BACKUP_EXCLUDE = []
    before = snapshot()
    for source in (file, of_another_site(file)):
        with pytest.raises(RecordsRefused, match=f"core.note {note.pk}") as caught:
            services.restore_backup(source, RestoreOptions(RestoreMode.CLEAR))
        assert caught.value.offer == "leave_out"
        assert not differences(before, snapshot())
        services.restore_backup(source, RestoreOptions(RestoreMode.CLEAR, leave_out=True))
        assert not core.Tagged.objects.filter(content_type__model="note").exists()
        services.undo_restore()
        assert not differences(before, snapshot())


def test_a_log_of_what_is_gone_comes_back_anywhere(family):
    """The admin's log tells of rows that were deleted since."""
    kind = ContentType.objects.get_for_model(core.Note)
    LogEntry.objects.create(
        user=family.admin, content_type=kind, object_id="77", object_repr="x", action_flag=3
    )
    file, before = of_another_site(take()), snapshot()
    for mode in RestoreMode:
        assert services.inspect_backup(file, RestoreOptions(mode)).refusal is None
        services.restore_backup(file, RestoreOptions(mode))
        assert not differences(before, snapshot())

"""Rows that refer to something that is not there: a backup says so, a restore leaves them out by choice, and undo
brings them back."""

import re
from contextlib import contextmanager

import pytest
from core import models as core
from django.core.management import CommandError, call_command
from django.db import connection
from django.urls import reverse

from backup import services
from backup.exceptions import Damaged, RecordsRefused
from backup.options import RestoreMode, RestoreOptions
from tests.support.backups import metadata_of, take
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
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM auth_user_groups WHERE group_id = 9997")
        cursor.execute("DELETE FROM core_note WHERE id = %s", [pointless[0]])
        cursor.execute("DELETE FROM core_timer WHERE id = %s", [pointless[1]])
    there = snapshot()
    file.seek(0)
    with pytest.raises(RecordsRefused) as caught:
        services.restore_backup(file, RestoreOptions(mode))
    assert caught.value.offer == "leave_out"
    assert_named(str(caught.value), *pointless)
    assert not differences(there, snapshot())
    file.seek(0)
    result = services.restore_backup(file, RestoreOptions(mode, leave_out=True))
    assert_named("\n".join(result.warnings), *pointless)
    assert result.restored["core.note"] == len(before["core.note"]) - 1
    assert not differences(without(before, family, *pointless), snapshot())


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
    (link,) = re.findall(r'href="([^"]*leave_out=true[^"]*)"[^>]*>\s*Leave out what refers', page)
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

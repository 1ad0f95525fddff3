"""What comes back is chosen on the pages: accounts that are here are neither replaced nor kept without being asked."""

import re

import pytest
from babybuddy.models import Settings
from core.models import Child, Note, Timer
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from rest_framework.authtoken.models import Token

from tests.support.backups import rewritten, take
from tests.support.http import backup_bytes, error_of, script, staged, upload, url
from tests.support.snapshots import differences, snapshot

ACCOUNTS = ("auth.user", "auth.group", "authtoken.token")
MODES = pytest.mark.parametrize("clear", ["true", "false"])


def preview_of(client, data, **fields):
    return client.post(url("restore"), {"backup_file": upload(data), **fields}, follow=True)


def fields_of(response, button):
    """The hidden fields of the form with this button."""
    page = response.content.decode()
    (form,) = (form for form in re.findall(r"<form.*?</form>", page, re.DOTALL) if button in form)
    return dict(re.findall(r'<input type="hidden" name="([a-z_]+)" value="([^"]*)"', form))


def radios(response):
    return re.findall(r'<input type="radio"[^>]*name="accounts"[^>]*>', response.content.decode(), re.DOTALL)


@pytest.fixture
def changed(family):
    """A backup; a password, a note and a timer are others since, somebody came, and there is a child more."""
    Settings.objects.update(language="en-US")
    data = backup_bytes()
    User.objects.filter(username="grandma").update(password="new")
    User.objects.create_user("late")
    Note.objects.update(note="changed")
    Timer.objects.update(name="changed")
    Child.objects.create(first_name="New", last_name="Baby", birth_date="2026-03-01")
    return data


def accounts_of(tables):
    return {label: rows for label, rows in tables.items() if label.split("_")[0] in ACCOUNTS}


@MODES
def test_neither_way_is_set_beforehand(browser, changed, clear):
    before = snapshot()
    preview = preview_of(browser, changed, clear_existing_data=clear)
    found = radios(preview)
    assert len(found) == 2
    assert not any("checked" in radio for radio in found)
    assert all("required" in radio for radio in found)
    page = preview.content.decode()
    assert "The password of grandma becomes the one in the backup." in page
    assert ("The user late is removed." in page) == (clear == "true")
    button = "Continue" if clear == "true" else "Confirm Restore"
    fields = fields_of(preview, button)
    for more in ({}, {"confirmed": "yes"}):
        unanswered = browser.post(url("confirm"), {**fields, **more}, follow=True)
        assert 'id="accounts-missing"' in unanswered.content.decode()
        assert len(radios(unanswered)) == 2
        assert not differences(before, snapshot())
    assert len(staged()) == 1


@MODES
@pytest.mark.parametrize("answer", ["replace", "keep"])
def test_the_answer_counts(browser, changed, clear, answer):
    before = snapshot()
    preview = preview_of(browser, changed, clear_existing_data=clear)
    button = "Continue" if clear == "true" else "Confirm Restore"
    fields = {**fields_of(preview, button), "accounts": answer}
    response = browser.post(url("confirm"), fields, follow=True)
    if clear == "true":
        page = response.content.decode()
        # The child and the settings of who came; and the user, where accounts are replaced.
        assert f"<strong>{3 if answer == 'replace' else 2} records</strong>" in page
        response = browser.post(
            url("confirm"), {**fields_of(response, "Delete and restore"), "confirmed": "yes"}, follow=True
        )
    assert "Your data is back" in response.content.decode()
    after = snapshot()
    kept = not differences(accounts_of(before), accounts_of(after))
    assert kept == (answer == "keep")
    assert User.objects.filter(password="new").exists() == (answer == "keep")
    assert not Note.objects.filter(note="changed").exists()
    assert Child.objects.filter(first_name="New").exists() == (clear == "false")


@pytest.mark.parametrize(("answer", "asks"), [("keep", False), ("replace", True)])
def test_nobody_is_asked_where_only_accounts_would_go(browser, family, answer, asks):
    """A token makes way for the one in the backup. Where the accounts are kept, nothing is deleted."""
    data = backup_bytes()
    Token.objects.filter(user=family.admin).delete()
    Token.objects.create(user=family.admin, key="f" * 40)
    fields = fields_of(preview_of(browser, data), "Continue")
    response = browser.post(url("confirm"), {**fields, "accounts": answer}, follow=True)
    assert ("Are you sure?" in response.content.decode()) is asks
    assert ("Your data is back" in response.content.decode()) is not asks
    assert Token.objects.filter(key="f" * 40).exists()


def test_no_question_where_nothing_is_deleted_any_more(browser, family):
    fields = fields_of(preview_of(browser, backup_bytes()), "Confirm Restore")
    response = browser.get(reverse("backup:question", args=[fields["upload"]]))
    assert response.url == reverse("backup:preview", args=[fields["upload"]]) + "?clear_existing_data=false"


def test_nobody_is_asked_where_no_account_changes(browser, family):
    data = backup_bytes()
    Note.objects.update(note="changed")
    User.objects.filter(username="grandma").update(first_name="changed")
    preview = preview_of(browser, data)
    assert not radios(preview)
    response = browser.post(url("confirm"), fields_of(preview, "Confirm Restore"), follow=True)
    assert "Your data is back" in response.content.decode()


def test_parts_are_chosen_in_the_preview(browser, changed):
    preview = preview_of(browser, changed)
    fields = fields_of(preview, "Update preview")
    address = reverse("backup:preview", args=[fields_of(preview, "Confirm Restore")["upload"]])
    chosen = browser.get(address, {**fields, "parts": ["entries", "settings"]})
    page = chosen.content.decode()
    boxes = re.findall(r'<input type="checkbox"[^>]*name="parts"[^>]*>', page, re.DOTALL)
    assert [("checked" in box) for box in boxes] == [True, False, True]
    assert not radios(chosen), "accounts stay: nothing to ask"
    assert "The password of grandma" not in page
    before = snapshot()
    response = browser.post(url("confirm"), fields_of(chosen, "Confirm Restore"), follow=True)
    assert "Your data is back" in response.content.decode()
    assert not differences(accounts_of(before), accounts_of(snapshot()))
    assert not Note.objects.filter(note="changed").exists()


def test_staff_restores_the_entries_at_once(family, changed):
    client = Client()
    family.staff.refresh_from_db()
    client.force_login(family.staff)
    before = snapshot()
    preview = preview_of(client, changed)
    assert preview.status_code == 200
    response = client.post(url("confirm"), fields_of(preview, "Restore entries only"), follow=True)
    assert "Your data is back" in response.content.decode()
    after = snapshot()
    for label in (*ACCOUNTS, "babybuddy.settings", "dbsettings.setting"):
        assert before[label] == after[label]
    assert not Note.objects.filter(note="changed").exists()
    assert not staged()


def test_staff_is_asked_before_entries_go(family, changed):
    client = Client()
    family.staff.refresh_from_db()
    client.force_login(family.staff)
    before = snapshot()
    preview = preview_of(client, changed, clear_existing_data="true")
    page = preview.content.decode()
    assert "These children will be deleted" in page
    assert "If this backup could be restored" not in page
    asked = client.post(url("confirm"), fields_of(preview, "Restore entries only"), follow=True)
    assert "delete 1 record" in asked.content.decode()
    assert not differences(before, snapshot())
    fields = {**fields_of(asked, "Delete and restore"), "confirmed": "yes"}
    assert "Your data is back" in client.post(url("confirm"), fields, follow=True).content.decode()
    assert not Child.objects.filter(first_name="New").exists()
    assert not differences(accounts_of(before), accounts_of(snapshot()))


@pytest.fixture
def undoable(family, changed):
    """The state before a restore that changed accounts; staff may not undo that."""
    before = snapshot()
    script(family.admin).post(url("confirm"), {"backup_file": upload(changed), "clear_existing_data": "true"})
    family.staff.refresh_from_db()
    return before


def entries_of(tables):
    return {label: rows for label, rows in tables.items() if label.startswith("core.")}


def test_staff_is_led_from_an_undo_to_the_entries_of_the_safety_copy(family, undoable):
    client = Client()
    client.force_login(family.staff)
    page = client.post(url("undo"))
    assert page.status_code == 403
    preview = client.post(url("restore"), fields_of(page, "Preview and restore"), follow=True)
    asked = client.post(url("confirm"), fields_of(preview, "Restore entries only"), follow=True)
    fields = {**fields_of(asked, "Delete and restore"), "confirmed": "yes"}
    assert "Your data is back" in client.post(url("confirm"), fields, follow=True).content.decode()
    assert not differences(entries_of(undoable), entries_of(snapshot()))


def test_a_script_of_staff_is_told_how_instead_of_an_undo(family, undoable):
    client = script(family.staff)
    answer = client.post(url("undo"))
    assert answer.status_code == 403
    fields = dict(re.findall(r"“(\w+)=([^”]+)”", error_of(answer)["message"]))
    assert {*fields} == {"kept", "clear_existing_data", "parts"}
    answer = client.post(url("confirm"), fields)
    assert answer.status_code == 200
    assert "auth.user" not in answer.json()["restored"]
    assert not differences(entries_of(undoable), entries_of(snapshot()))


def test_a_script_of_staff_is_told_how(family, changed):
    client = script(family.staff)
    answer = client.post(url("confirm"), {"backup_file": upload(changed)})
    assert answer.status_code == 403
    assert "parts=entries" in error_of(answer)["message"]
    preview = client.post(url("restore"), {"backup_file": upload(changed), "parts": "entries"}).json()
    assert preview["parts"] == ["entries"]
    assert preview["refused"] is None
    result = client.post(url("confirm"), {"upload": preview["upload"], "parts": ["entries"]}).json()
    assert "core.note" in result["restored"]
    assert "auth.user" not in result["restored"]


@pytest.mark.parametrize("parts", ["", "entry", ["entries", "all"]])
@pytest.mark.parametrize("name", ["restore", "confirm"])
def test_what_is_no_part_is_refused(family, name, parts):
    before = snapshot()
    answer = script(family.admin).post(url(name), {"backup_file": upload(), "parts": parts})
    assert answer.status_code == 400
    assert [*error_of(answer)["fields"]] == ["parts"]
    assert not differences(before, snapshot())


# --- The numbers agree ------------------------------------------------------------------------------------


@MODES
def test_preview_question_and_result_agree(browser, changed, clear):
    """They name the children, and leave out the growth tables, which nobody entered."""
    preview = preview_of(browser, changed, clear_existing_data=clear)
    page = preview.content.decode()
    assert "Mia Lind" in page
    fields = fields_of(preview, "Continue" if clear == "true" else "Confirm Restore")
    response = browser.post(url("confirm"), {**fields, "accounts": "replace"}, follow=True)
    if clear == "true":
        question = re.sub(r"\s+", " ", response.content.decode())
        assert f"<strong>{fields['removed']} records</strong>" in question
        assert f"{fields['removed']} will be deleted" in page
        assert "New Baby" in question, "who goes is named"
        response = browser.post(
            url("confirm"), {**fields_of(response, "Delete and restore"), "confirmed": "yes"}, follow=True
        )
    result = response.content.decode()
    assert "Mia Lind" in result
    (number,) = re.findall(r"([\d,]+) records come from the backup", re.sub(r"\s+", " ", page))
    assert f"{number} records were restored" in re.sub(r"\s+", " ", result)


def test_growth_tables_are_no_news(browser, family):
    """A backup from before they were there."""
    data = rewritten(
        take(), lambda records: [records.pop(f"core.{name}percentile") for name in ("weight", "height")]
    ).getvalue()
    preview = preview_of(browser, data, clear_existing_data="true")
    assert 'name="removed" value="0"' in preview.content.decode()
    assert "Only the growth tables" in preview.content.decode()

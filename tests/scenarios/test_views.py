"""Every view as a browser and as a script meets it: access, methods, answers, errors."""

import datetime as dt
import io
import json
import logging
import re
import tempfile
import threading
import zipfile
import zoneinfo
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from html import unescape
from itertools import count
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from core.models import Child, Feeding
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.core.files.base import ContentFile
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import NoReverseMatch, reverse, set_script_prefix
from django.utils import timezone
from django.utils.html import escape
from freezegun import freeze_time
from rest_framework.authtoken.models import Token

from backup import access, last_restore, restoring, services, urls
from backup.automatic import status as automatic
from backup.conf import conf
from backup.database import database_of
from backup.presentation.progress import progress
from backup.storage import content, files, kept, state, uploads
from backup.views import answers
from tests.support.backups import rewritten, spoiled, take
from tests.support.filling import token_key
from tests.support.http import backup_bytes, error_of, hidden, script, staged, upload, url
from tests.support.snapshots import differences, snapshot
from tests.support.wrong_settings import WRONG

pytestmark = pytest.mark.usefixtures("family")

#: Those that only look; all others are POST.
READING = {"index", "download", "preview", "preview_photo", "question", "progress", "kept", "status"}
#: Those that not even all staff may use.
SUPERUSERS = {"acknowledge", "key"}
VIEWS = {
    pattern.name: {"GET", "HEAD"} if pattern.name in READING else {"POST"} for pattern in urls.urlpatterns
} | {"key": {"GET", "HEAD", "POST"}, "upload_piece": {"GET", "HEAD", "PATCH", "POST", "DELETE"}}
# What a browser sends after the second step.
CLEAR = {"clear_existing_data": "true", "confirmed": "yes"}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


# --- Who may come in --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("BACKUP_ENCRYPT", "nowhere"),
        ("BACKUP_NOTIFY", "nobody"),
        ("BACKUP_SCHEDULE", "sometimes"),
        ("BACKUP_EXCLUDE", 3),
        ("BACKUP_ROOT", 3),
        ("BACKUP_KEEP", "all"),
        ("BACKUP_LOCATIONS", "somewhere"),
        ("BACKUP_MAX_UPLOAD_SIZE", "much"),
        ("BACKUP_KEY", 3),
        ("BACKUP_PROVE", "no"),
        ("BACKUP_PHOTOS", "yes"),
    ],
)
def test_a_wrong_setting_is_named(browser, family, settings, setting, value):
    setattr(settings, setting, value)
    token = script(family.admin)
    answers = [
        client.generic(method, url(name))
        for client in (browser, token)
        for method, name in [("GET", "index"), ("GET", "download"), ("POST", "undo"), ("POST", "run")]
    ]
    for answer in answers:
        # Not every request needs every setting. In a page, quotes are escaped, but names are not.
        assert answer.status_code in (200, 302, 404) or setting in answer.content.decode()
        answer.close()


@pytest.fixture(params=WRONG)
def wrong(request, settings):
    """A wrong setting, in a process that was started with it, beside a backup. Returns its name, and the backup's."""
    name = services.keep_backup().name
    content._remembered.cache_clear()
    setattr(settings, f"BACKUP_{request.param}", WRONG[request.param])
    return f"BACKUP_{request.param}", name


def test_the_front_page_shows_the_status_whatever_setting_is_wrong(browser, wrong):
    """It is the page that says which one, and from which everything that does not need it can be done."""
    setting, name = wrong
    answer = browser.get(url("index"))
    assert answer.status_code == 200
    text = answer.content.decode()
    assert f"A setting of this site is wrong: {setting} " in text
    assert name in text or setting == "BACKUP_ROOT"


def test_backups_are_listed_and_can_be_used_whatever_setting_is_wrong(family, wrong, capsys):
    """An emergency is no time to refuse the list because of a rule of retention."""
    setting, name = wrong
    if setting == "BACKUP_ROOT":
        pytest.skip("nobody knows where they are")
    token = script(family.admin)
    found = token.get(url("index")).json()
    call_command("backups", "--json")
    assert json.loads(capsys.readouterr().out).keys() == found.keys()
    assert [backup["name"] for backup in found["backups"]] == [name]
    assert setting in found["status"]["message"]
    assert (found["max_upload_size"] is None) is (setting == "BACKUP_MAX_UPLOAD_SIZE")
    call_command("backups")
    text = capsys.readouterr().out
    assert name in text
    assert f"A setting of this site is wrong: {setting} " in text
    download = token.get(reverse("backup:kept", args=[name]))
    assert download.getvalue().startswith(b"PK")
    download.close()
    answer = token.post(url("confirm"), {"kept": name, "clear_existing_data": "false"})
    if setting in ("BACKUP_EXCLUDE", "BACKUP_ENCRYPT"):  # what else would be restored, or be kept in clear?
        assert (answer.status_code, setting in answer.json()["error"]["message"]) == (500, True)
    else:
        assert answer.status_code == 200


@pytest.mark.parametrize("name", VIEWS)
class TestAccess:
    """Every view, every method."""

    def test_anonymous_browser_goes_to_the_login(self, name):
        for method in METHODS:
            response = Client().generic(method, url(name))
            assert response.status_code == 302
            # A page of an upload comes after it, since its file is still there; everything else begins anew.
            back = method in ("GET", "HEAD") and name in (
                "preview",
                "preview_photo",
                "question",
                "progress",
            )
            next_page = url(name if back else "index")
            if method not in ("GET", "HEAD", "OPTIONS"):
                next_page += "%3Fended%3D1"
            assert response["Location"] == f"{reverse('babybuddy:login')}?next={next_page}"

    def test_anonymous_script_gets_401(self, name):
        for method in METHODS:
            for headers in (
                {"Accept": "application/json"},
                {"Authorization": "Token wrong"},
                {"Authorization": "token"},
            ):
                response = Client(headers=headers).generic(method, url(name))
                assert response.status_code == 401
                assert response["WWW-Authenticate"] == "Token"
                assert method == "HEAD" or error_of(response)["code"] == "not_signed_in"

    def test_who_is_no_staff_gets_403(self, family, name):
        for user in (family.plain, family.reader):
            client = Client()
            client.force_login(user)
            for method in METHODS:
                response = client.generic(method, url(name))
                assert response.status_code == 403
                assert response["Content-Type"].startswith("text/html")
                assert "no-store" in response["Cache-Control"]
                response = script(user).generic(method, url(name))
                assert response.status_code == 403
                assert method == "HEAD" or error_of(response)["code"] == "not_allowed"

    def test_staff_may_come_in_with_the_right_method_only(self, family, name):
        browser = Client(headers={"Accept": "application/json"})
        browser.force_login(family.staff)
        for method in METHODS:
            for client in (browser, script(family.staff)):
                response = client.generic(method, url(name))
                if method in VIEWS[name]:
                    assert response.status_code in ((403,) if name in SUPERUSERS else (200, 204, 400, 404))
                else:
                    assert response.status_code == 405
                    assert set(response["Allow"].split(", ")) == VIEWS[name]
                assert "no-store" in response["Cache-Control"]
                response.close()

    def test_superusers_only(self, family, settings, name):
        settings.BACKUP_REQUIRE_SUPERUSER = True
        for method in METHODS:
            assert script(family.staff).generic(method, url(name)).status_code == 403
            response = script(family.admin).generic(method, url(name))
            assert response.status_code != 403
            response.close()


def test_who_is_no_longer_active_cannot_come_in(family):
    get_user_model().objects.filter(pk=family.staff.pk).update(is_active=False)
    assert script(family.staff).get(url("index")).status_code == 401


def test_wrong_method_is_a_page_for_a_browser(browser):
    response = browser.get(url("confirm"))
    assert response.status_code == 405
    assert url("index") in response.content.decode()


def test_other_authorization_is_left_to_others(browser):
    """A proxy's own password, which browsers send on."""
    assert browser.get(url("index"), headers={"Authorization": "Basic Zm9vOmJhcg=="}).status_code == 200


def test_no_tokens_installed(family, settings):
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "rest_framework.authtoken"]
    assert script(family.admin).get(url("index")).status_code == 401


def test_wrong_superuser_setting_lets_superusers_in_only(family, settings):
    settings.BACKUP_REQUIRE_SUPERUSER = "ture"
    assert access.is_allowed(family.admin)
    assert not access.is_allowed(family.staff)


# --- CSRF -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, methods in VIEWS.items() if "POST" in methods])
def test_browser_posts_need_csrf(family, name):
    client = Client(enforce_csrf_checks=True)
    client.force_login(family.admin)
    before = snapshot()
    response = client.post(url(name), {"backup_file": upload(), "clear_existing_data": "true"})
    assert response.status_code == 403
    assert response["Content-Type"].startswith("text/html")
    response = client.post(url(name), headers={"Accept": "application/json"})
    assert response.status_code == 403
    assert error_of(response)["code"] == "csrf"
    assert not differences(before, snapshot())
    assert not staged()


@pytest.mark.parametrize("name", ["preview", "question"])
def test_a_session_that_ended_at_confirm(browser, family, name):
    """Without JavaScript, too: back to the page that the form was on, which says that nothing was changed."""
    before = snapshot()
    preview = browser.post(
        url("restore"), {"backup_file": upload(), "clear_existing_data": "true"}, follow=True
    )
    fields = hidden(preview, "confirm")
    came_from = f"{url(name, fields['upload'])}?clear_existing_data=true"
    headers = {"Referer": f"http://testserver{came_from}"}
    response = Client().post(url("confirm"), {**fields, "confirmed": "yes"}, headers=headers)
    assert response.status_code == 302
    place = parse_qs(urlsplit(response["Location"]).query)["next"][0]
    assert place == f"{came_from}&ended=1"
    assert "Nothing was changed" in browser.get(place).content.decode()
    assert not differences(before, snapshot())
    for elsewhere in (
        f"http://other{came_from}",
        "http://testserver/",
        "http://testserver//other/",
        "http://[",
        "x",
    ):
        response = Client().post(url("confirm"), fields, headers={"Referer": elsewhere})
        place = parse_qs(urlsplit(response["Location"]).query)["next"][0]
        assert place == f"{url('index')}?ended=1"
    assert "Nothing was changed" in browser.get(place).content.decode()


@pytest.mark.parametrize("name", ["confirm", "undo"])
def test_a_page_from_before_a_new_sign_in(family, name):
    """Its token is another one: that nothing was changed is said in words, where the host's page says nothing of it."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(family.admin)
    client.get(url("index"))
    before = snapshot()
    response = client.post(url(name), {"backup_file": upload(), "csrfmiddlewaretoken": "a" * 64})
    assert response.status_code == 403
    page = response.content.decode()
    assert "signed in anew" in page
    assert "Nothing was changed." in page
    assert not differences(before, snapshot())


def test_the_pages_carry_the_csrf_token(family):
    client = Client(enforce_csrf_checks=True)
    client.force_login(family.admin)
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', client.get(url("index")).content.decode())[
        1
    ]
    response = client.post(
        url("restore"), {"backup_file": upload(), "csrfmiddlewaretoken": token}, follow=True
    )
    assert response.status_code == 200
    assert response.content.decode().count("csrfmiddlewaretoken") >= 3


def test_token_clients_need_no_csrf(family):
    client = Client(enforce_csrf_checks=True, headers={"Authorization": f"Token {token_key('grandma')}"})
    client.force_login(family.admin)  # cookies of somebody else do not count
    response = client.post(url("restore"), {"backup_file": upload()}, follow=True)
    assert response.status_code == 200


# --- Download ---------------------------------------------------------------------------------------------


def test_download(family, browser):
    for client in (browser, script(family.admin)):
        response = client.get(url("download"))
        data = response.getvalue()
        assert response.status_code == 200
        assert response["Content-Type"] == "application/zip"
        assert re.fullmatch(
            r'attachment; filename="backup_\d{6}_\d{6}\.zip"', response["Content-Disposition"]
        )
        assert int(response["Content-Length"]) == len(data)
        metadata = services.verify_backup(io.BytesIO(data))
        assert metadata.created_by == family.admin.username
        response.close()


def test_download_head_has_no_body(browser):
    response = browser.head(url("download"))
    assert response.status_code == 200
    assert int(response["Content-Length"]) > 1000
    assert response.getvalue() == b""


@pytest.mark.parametrize("name", ["restore", "confirm", "run"])
def test_a_form_that_is_not_utf8_is_refused_as_json(family, name):
    kind = "application/x-www-form-urlencoded; charset=iso-8859-1"
    response = script(family.staff).generic("POST", url(name), b"kept=x", content_type=kind)
    assert response.status_code == 400
    assert error_of(response)["code"] == "invalid_backup"


@pytest.fixture
def home_assistant(browser, settings):
    """A signed-in superuser's browser behind Home Assistant's ingress."""
    settings.ENABLE_HOME_ASSISTANT_SUPPORT = True
    client = Client(headers={"X-Hass-Source": "core.ingress", "X-Ingress-Path": "/api/ingress/x"})
    client.cookies = browser.cookies
    response = client.get(url("index"))
    set_script_prefix("/")  # the host's middleware leaves its own
    if not getattr(response.wsgi_request, "is_homeassistant_ingress_request", False):
        pytest.skip("this host knows no Home Assistant")
    yield client
    set_script_prefix("/")


def test_download_through_home_assistant_is_not_streamed(home_assistant, caplog):
    response = home_assistant.get(url("download"))
    assert not response.streaming
    assert zipfile.ZipFile(io.BytesIO(response.content)).namelist()[0]
    assert int(response["Content-Length"]) == len(response.content)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_large_download_through_home_assistant_is_streamed(home_assistant, monkeypatch):
    """With photos it may be larger than the memory."""
    monkeypatch.setattr(answers, "IN_MEMORY", 1000)
    response = home_assistant.get(url("download"))
    assert response.streaming
    data = response.getvalue()
    assert int(response["Content-Length"]) == len(data)
    assert zipfile.ZipFile(io.BytesIO(data)).testzip() is None


def test_download_that_fails_is_a_page(browser, family, monkeypatch):
    from backup.exceptions import StorageFailed

    def full(*args, **kwargs):
        raise StorageFailed("No space is left.")

    monkeypatch.setattr(services, "create_backup", full)
    response = browser.get(url("download"))
    assert response.status_code == 507
    assert "No space is left." in response.content.decode()
    assert error_of(script(family.admin).get(url("download")))["code"] == "storage_failed"


# --- Preview, confirm, cancel -----------------------------------------------------------------------------


def change():
    """What a family does after the backup: one record more, one less, one other."""
    feedings = Feeding.objects.order_by("pk")
    feedings.first().delete()
    Feeding.objects.filter(pk=feedings.last().pk).update(notes="changed")
    Child.objects.create(first_name="New", last_name="Baby", birth_date="2026-03-01")


@pytest.mark.parametrize("clear", [True, False])
def test_preview_confirm_result_in_a_browser(browser, clear):
    before = snapshot()
    data = backup_bytes()
    change()
    changed = snapshot()
    fields = {"backup_file": upload(data), **({"clear_existing_data": "true"} if clear else {})}
    preview = browser.post(url("restore"), fields, follow=True)
    page = preview.content.decode()
    assert preview.status_code == 200
    assert not differences(changed, snapshot()), "a preview changes nothing"
    for text in ("2.10", connection.vendor, "Feedings", "admin"):
        assert text in page
    assert len(staged()) == 1
    fields = hidden(preview, "confirm")
    assert fields["clear_existing_data"] == str(clear).lower()

    if clear:
        asked = browser.post(url("confirm"), fields, follow=True)
        assert asked.status_code == 200
        assert not differences(changed, snapshot()), "there is a second step"
        fields["confirmed"] = "yes"
    result = browser.post(url("confirm"), fields, follow=True)
    assert result.redirect_chain[0][0] == reverse("backup:progress", args=[fields["upload"]])
    assert "Your data is back" in result.content.decode()
    assert not staged(), "used"
    if clear:
        assert not differences(before, snapshot())
    else:
        assert Child.objects.filter(first_name="New").exists()
        assert not Feeding.objects.filter(notes="changed").exists()
    restored = snapshot()
    again = browser.post(url("confirm"), fields, follow=True)
    assert again.status_code == 200, "the result is shown once more"
    assert "Your data is back" in again.content.decode()
    again = browser.post(url("confirm"), fields, headers={"Accept": "application/json"})
    assert again.status_code == 409
    assert "not restored again" in error_of(again)["message"]
    with freeze_time(dt.datetime.now(dt.timezone.utc) + last_restore.SENT_AGAIN):
        again = browser.post(url("confirm"), fields, follow=True)
    assert again.status_code == 404
    assert "no longer there" in again.content.decode()
    assert not differences(restored, snapshot())
    assert len(kept.backups()) == 1


@pytest.mark.parametrize("clear", ["true", "false"])
def test_preview_and_confirm_in_json(family, clear):
    before = snapshot()
    data = backup_bytes()
    change()
    client = script(family.admin)
    preview = client.post(url("restore"), {"backup_file": upload(data), "clear_existing_data": clear}).json()
    assert preview["metadata"]["total_records"] > 100
    assert preview["changes"]["core.feeding"] == {
        "added": 1,
        "changed": 1,
        "unchanged": Feeding.objects.count() - 1,
        "removed": 0,
    }
    assert preview["changes"]["core.child"]["removed"] == (1 if clear == "true" else 0)
    assert preview["conflicts"] == []
    result = client.post(url("confirm"), {"upload": preview["upload"], "clear_existing_data": clear}).json()
    assert result["records"] == preview["metadata"]["total_records"]
    assert result["restored"]["core.feeding"] == Feeding.objects.count()
    assert result["safety_copy"] == kept.backups()[0].name
    if clear == "true":
        assert not differences(before, snapshot())


def test_confirm_with_the_file_itself(family):
    before = snapshot()
    data = backup_bytes()
    change()
    response = script(family.admin).post(
        url("confirm"), {"backup_file": upload(data), "clear_existing_data": "1"}
    )
    assert response.status_code == 200
    assert not differences(before, snapshot())
    assert not staged()


def test_preview_in_the_other_mode_needs_no_second_upload(browser):
    change()
    first = browser.post(url("restore"), {"backup_file": upload()}, follow=True)
    assert first.redirect_chain, "a page of its own, that can be reloaded"
    fields = hidden(first, "confirm")
    assert fields["clear_existing_data"] == "false"
    (other,) = re.findall(r'href="([^"]*preview[^"]*clear_existing_data=true)"', first.content.decode())
    second = browser.get(unescape(other))
    assert hidden(second, "confirm") == {**fields, "clear_existing_data": "true"}
    assert len(staged()) == 1


def test_back_after_the_restore_leads_to_its_result(browser):
    preview = browser.post(
        url("restore"), {"backup_file": upload(), "clear_existing_data": "true"}, follow=True
    )
    fields = hidden(preview, "confirm")
    clearing = "?clear_existing_data=true"
    pages = [preview.redirect_chain[-1][0], url("question", fields["upload"]) + clearing]
    assert [browser.get(page).status_code for page in pages] == [200, 200]
    assert browser.post(url("confirm"), {**fields, **CLEAR}, follow=True).status_code == 200
    for page in pages:
        response = browser.get(page)
        assert (response.status_code, response.url) == (302, url("progress", fields["upload"]))


def test_back_after_cancel_says_that_nothing_was_changed(browser):
    preview = browser.post(url("restore"), {"backup_file": upload()}, follow=True)
    fields = hidden(preview, "confirm")
    browser.post(url("cancel"), fields)
    for response in (browser.get(preview.redirect_chain[-1][0]), browser.post(url("confirm"), fields)):
        assert response.status_code == 404
        assert "Nothing was changed." in response.content.decode()
        assert (
            "restore continues"
            not in response.content.decode().split("<script")[0].split('id="restoring"')[0]
        )


def test_going_back_to_a_kept_copy_has_a_preview(browser, family):
    first, name = restored(family)
    restored(family, 7)
    before = snapshot()
    preview = browser.post(url("restore"), {"kept": name, "clear_existing_data": "true"}, follow=True)
    assert "What this backup would do" in preview.content.decode()
    assert not differences(before, snapshot())
    fields = hidden(preview, "confirm")
    result = browser.post(url("confirm"), {**fields, **CLEAR}, follow=True)
    assert "Your data is back" in result.content.decode()
    assert not differences(first, snapshot())


def test_a_script_restores_a_kept_copy_by_its_name(family):
    first, name = restored(family)
    client = script(family.admin)
    fields = {"kept": name, "clear_existing_data": "true"}
    assert client.post(url("restore"), fields).json()["metadata"]["total_records"] > 100
    assert client.post(url("confirm"), fields).json()["records"] > 100
    assert not differences(first, snapshot())
    assert client.post(url("confirm"), fields).status_code == 409, "the same request again"
    assert client.post(url("confirm"), {"kept": "../x"}).status_code == 404


def test_cancel(browser, family):
    before = snapshot()
    fields = hidden(browser.post(url("restore"), {"backup_file": upload()}, follow=True), "cancel")
    response = browser.post(url("cancel"), fields)
    assert (response.status_code, response.url) == (302, url("index"))
    assert not staged()
    assert not differences(before, snapshot())
    assert script(family.admin).post(url("cancel"), {"upload": "nonsense"}).status_code == 204


def test_the_upload_of_somebody_else(browser, family):
    fields = hidden(browser.post(url("restore"), {"backup_file": upload()}, follow=True), "confirm")
    other = script(family.staff)
    for name in ("confirm", "restore"):
        assert other.post(url(name), fields).status_code == 404
    assert other.post(url("cancel"), fields).status_code == 204
    assert len(staged()) == 1


def test_what_staff_may_not_do_is_told_in_the_preview(family):
    data = backup_bytes()
    get_user_model().objects.filter(pk=family.plain.pk).update(email="new@example.com")
    client = Client()
    client.force_login(family.staff)
    preview = client.post(url("restore"), {"backup_file": upload(data)}, follow=True)
    assert preview.status_code == 200
    assert 'name="parts" value="entries"' in preview.content.decode().split(f'action="{url("confirm")}"')[1]
    assert preview.content.decode().count(f'action="{url("confirm")}"') == 1
    assert script(family.staff).post(url("restore"), {"backup_file": upload(data)}).json()["refused"]
    response = script(family.staff).post(url("confirm"), {"backup_file": upload(data)})
    assert response.status_code == 403
    assert error_of(response)["code"] == "forbidden"


def test_staff_cannot_delete_the_groups_by_a_file_without_them(family):
    """While nobody is in a group, no account changes by it."""
    for user in get_user_model().objects.all():
        user.groups.clear()
    data = rewritten(take(), lambda records: records.pop("auth.group")).getvalue()
    before = snapshot()
    fields = {"clear_existing_data": "true"}
    assert (
        script(family.staff).post(url("restore"), {"backup_file": upload(data), **fields}).json()["refused"]
    )
    response = script(family.staff).post(url("confirm"), {"backup_file": upload(data), **fields})
    assert response.status_code == 403
    assert not differences(before, snapshot())


def test_no_token_is_named_where_tokens_conflict(family, browser):
    """A file in which two tokens are of one user, who has a third one here. It must not come to be known by that."""

    def twice(records):
        tokens = records["authtoken.token"]
        (token,) = (token for token in tokens if token["fields"]["user"] == family.staff.pk)
        tokens.remove(token)
        tokens += [{**token, "pk": "a" * 40}, {**token, "pk": "b" * 40}]

    data = rewritten(take(), twice).getvalue()
    keys = {"a" * 40, "b" * 40, *Token.objects.values_list("key", flat=True)}
    page = browser.post(url("restore"), {"backup_file": upload(data)}, follow=True).content.decode()
    assert "Token grandma in the backup could be what another record of the backup is, too: grandma" in page
    assert [key for key in keys if key in page] == []
    for name, status in (("restore", 200), ("confirm", 409)):
        answer = browser.post(
            url(name), {"backup_file": upload(data)}, headers={"Accept": "application/json"}
        )
        assert answer.status_code == status
        said = answer.content.decode()
        assert f"authtoken.token (user: {family.staff.pk})" in said
        assert [key for key in keys if key in said] == []


def test_names_in_the_file_are_only_text(family):
    """What is in metadata or in names must not become HTML."""
    family.admin.username = "<b>&amp;"
    family.admin.save()
    client = Client()
    client.force_login(family.admin)
    data = client.get(url("download")).getvalue()
    page = client.post(url("restore"), {"backup_file": upload(data)}, follow=True).content.decode()
    assert escape("<b>&amp;") in page
    assert "<b>&amp;" not in page.split("<h1>")[1]


# --- The second step --------------------------------------------------------------------------------------


def test_the_second_step_names_what_goes(browser, family):
    data = backup_bytes()
    Child.objects.create(first_name="New", last_name="Baby", birth_date="2026-03-01")
    before = snapshot()
    preview = browser.post(
        url("restore"), {"backup_file": upload(data), "clear_existing_data": "true"}, follow=True
    )
    page = preview.content.decode()
    assert 'name="removed" value="1"' in page
    fields = {**hidden(preview, "confirm"), "removed": "1"}
    for more in ({}, {"confirmed": "no"}, {"confirmed": ""}):
        page = browser.post(url("confirm"), {**fields, **more}, follow=True).content.decode()
        assert "1 record" in page
        assert "safety copy" in page
        assert 'name="confirmed"' in page
        assert not differences(before, snapshot())
    missed = browser.post(url("confirm"), {**fields, "asked": "yes"}, follow=True)
    assert 'id="confirmed-missing"' in missed.content.decode()
    assert len(staged()) == 1
    assert (
        "Your data is back"
        in browser.post(url("confirm"), {**fields, "confirmed": "yes"}, follow=True).content.decode()
    )
    assert not Child.objects.filter(first_name="New").exists()


def test_what_is_entered_after_the_preview_is_asked_about(browser, family):
    """It has the number of a record of the backup, which would take its place."""
    first, second = Feeding.objects.order_by("pk")[:2]
    data = backup_bytes()
    Feeding.objects.filter(pk__in=(first.pk, second.pk)).delete()
    preview = browser.post(url("restore"), {"backup_file": upload(data)}, follow=True)
    assert 'name="removed" value="0"' in preview.content.decode()
    fields = {**hidden(preview, "confirm"), "removed": "0", "accounts": "replace"}

    def entered(feeding):
        moment = feeding.start + dt.timedelta(days=99)
        Feeding.objects.create(
            pk=feeding.pk, child=feeding.child, start=moment, end=moment, type="formula", method="bottle"
        )
        return snapshot()

    for number, feeding in enumerate((first, second), 1):
        before = entered(feeding)
        answer = browser.post(url("confirm"), fields, follow=True)
        assert 'name="confirmed"' in answer.content.decode()
        assert f'name="removed" value="{number}"' in answer.content.decode()
        assert not differences(before, snapshot())
        fields = {**hidden(answer, "confirm"), "removed": str(number), "confirmed": "yes"}
    answer = browser.post(url("confirm"), fields, follow=True)
    assert "Your data is back" in answer.content.decode()
    assert Feeding.objects.get(pk=first.pk).start == first.start


def test_a_browser_that_clears_at_once_gets_the_preview(browser, family):
    before = snapshot()
    data = backup_bytes()
    change()
    changed = snapshot()
    response = browser.post(
        url("confirm"), {"backup_file": upload(data), "clear_existing_data": "true"}, follow=True
    )
    assert "What this backup would do" in response.content.decode()
    assert not differences(changed, snapshot())
    fields = hidden(response, "confirm")
    assert (
        "Your data is back" in browser.post(url("confirm"), {**fields, **CLEAR}, follow=True).content.decode()
    )
    assert not differences(before, snapshot())


def test_the_second_step_of_an_upload_that_is_gone(browser):
    response = browser.post(
        url("confirm"), {"upload": "nonsense", "clear_existing_data": "true"}, follow=True
    )
    assert response.status_code == 404
    assert "no longer there" in response.content.decode()


def test_growth_tables_are_no_headline(browser, family):
    """They come with every installation: neither headline nor table counts them."""
    label = "core.heightpercentile"
    if not services.counts().get(label):
        pytest.skip("there are none in this host")
    fields = hidden(browser.post(url("restore"), {"backup_file": upload(), **CLEAR}, follow=True), "confirm")
    page = browser.post(url("confirm"), {**fields, **CLEAR}, follow=True).content.decode()
    table = page.split("<tbody>")[1].split("</tbody>")[0]
    assert "ercentile" not in table
    assert "growth tables that come with Baby Buddy" in page


def test_a_script_in_a_session_is_not_asked_again(browser):
    response = browser.post(
        url("confirm"),
        {"backup_file": upload(), "clear_existing_data": "true"},
        headers={"Accept": "application/json"},
    )
    assert response.json()["records"] > 100


# --- How far it is ----------------------------------------------------------------------------------------


def progress_of(client, upload, **headers):
    return client.get(reverse("backup:progress", args=[upload]), headers=headers)


JSON = {"Accept": "application/json"}


def test_a_restore_can_be_followed_and_its_result_is_found(browser, family, monkeypatch):
    fields = hidden(browser.post(url("restore"), {"backup_file": upload()}, follow=True), "confirm")
    assert progress_of(browser, fields["upload"]).status_code == 404
    assert progress_of(browser, fields["upload"], **JSON).json()["state"] == "unknown"
    seen = []
    note = state.save_progress

    def noted(upload_id, user, known):
        note(upload_id, user, known)
        page = progress(state.load_progress(upload_id, user))
        seen.append((page["state"], page["text"]))

    monkeypatch.setattr(state, "save_progress", noted)
    monkeypatch.setattr(
        "backup.views.reporter.time.monotonic", count().__next__
    )  # each look at the clock is a second later
    assert browser.post(url("confirm"), fields).url == reverse("backup:progress", args=[fields["upload"]])
    texts = [text for state, text in seen if state == "running"]
    for number, step in enumerate(["Checking", "Making a safety copy", "Writing", "Checking"], 1):
        assert any(text.startswith(f"Step {number} of 4: {step}") for text in texts)
    assert any(re.search(r"Writing the records, [\d,]+ of [\d,]+ records$", text) for text in texts)
    assert seen[-1][0] == "ended"

    assert progress_of(browser, fields["upload"], **JSON).json()["state"] == "ended"
    failed = browser.post(url("restore"), {"backup_file": upload(b"hello")})
    assert "is done:" not in failed.content.decode(), "not beside what it does not belong to"
    index = browser.get(url("index")).content.decode()
    assert reverse("backup:progress", args=[fields["upload"]]) in index
    assert "is done:" in index
    assert "is done:" not in browser.get(url("index")).content.decode(), "told once"
    page = progress_of(browser, fields["upload"]).content.decode()
    assert "Your data is back" in page
    assert kept.backups()[0].name in page
    # A second try does not make that forgotten.
    assert "Your data is back" in browser.post(url("confirm"), fields, follow=True).content.decode()
    assert "Your data is back" in progress_of(browser, fields["upload"]).content.decode()


def test_a_running_restore_is_shown(browser, family):
    name = uploads.new_id(family.admin)
    state.save_progress(name, family.admin, {"phase": "write", "done": 1204, "total": 5000})
    found = progress_of(browser, name, **JSON).json()
    assert found["text"] == "Step 3 of 4: Writing the records, 1,204 of 5,000 records"
    assert (found["done"], found["total"], found["silent"]) == (1204, 5000, False)
    page = progress_of(browser, name).content.decode()
    assert found["text"] in page
    assert 'http-equiv="refresh"' in page
    assert 'role="status">Writing the records<' in page, "which is read out, without the numbers"
    silent = '<p id="restoring-silent" role="status" >'
    assert silent not in page
    assert "is running" in browser.get(url("index")).content.decode()
    # Another process died with it.
    with freeze_time(timezone.now() + dt.timedelta(minutes=5)):
        assert progress_of(browser, name, **JSON).json()["silent"]
        assert silent in progress_of(browser, name).content.decode()


def test_a_restore_that_failed_tells_why(browser, family):
    name = uploads.new_id(family.admin)
    error = {"message": "It broke.", "details": ["core.child 7"]}
    state.save_progress(name, family.admin, {"error": error, "status": 409})
    assert "did not work" in browser.get(url("index")).content.decode()
    response = progress_of(browser, name)
    assert response.status_code == 409
    for text in ("It broke.", "Child No. 7", url("index")):
        assert text in response.content.decode()


def test_what_is_not_expected_is_noted_too(browser, family, monkeypatch):
    fields = hidden(browser.post(url("restore"), {"backup_file": upload()}, follow=True), "confirm")
    monkeypatch.setattr(restoring, "write", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        browser.post(url("confirm"), fields)
    assert progress_of(browser, fields["upload"]).status_code == 500


def test_a_restore_is_its_users_own(browser, family):
    name = uploads.new_id(family.admin)
    state.save_progress(name, family.admin, {"phase": "write"})
    assert progress_of(browser, name).status_code == 200
    assert progress_of(browser, name + "x").status_code == 404
    assert progress_of(script(family.staff), name).json()["state"] == "unknown"
    assert progress_of(script(family.plain), name).status_code == 403
    assert progress_of(Client(), name).status_code == 302
    assert "is running" not in script(family.staff).get(url("index")).content.decode()


def test_to_ask_does_not_write_the_session(browser, family):
    name = uploads.new_id(family.admin)
    state.save_progress(name, family.admin, {"phase": "write"})
    session = browser.session
    session["session_refresh"] = 1  # long ago: the host would renew it
    session.save()
    progress_of(browser, name)
    assert browser.session["session_refresh"] == 1


def test_undo_can_be_followed(browser, family):
    browser.post(url("confirm"), {"backup_file": upload()}, follow=True)
    page = browser.get(url("index")).content.decode()
    name = re.search(r'name="follow" value="([^"]+)"', page)[1]
    assert browser.post(url("undo"), {"follow": name}, follow=True).status_code == 200
    assert "as it was before" in progress_of(browser, name).content.decode()


# --- Undo -------------------------------------------------------------------------------------------------


def test_undo(browser, family):
    assert browser.post(url("undo")).status_code == 404
    assert error_of(script(family.admin).post(url("undo")))["code"] == "no_safety_copy"
    data = backup_bytes()
    change()
    changed = snapshot()
    assert browser.post(url("confirm"), {"backup_file": upload(data)}).status_code == 200
    page = browser.get(url("index")).content.decode()
    assert kept.backups()[0].name in page
    assert f'action="{url("undo")}"' in page
    response = browser.post(url("undo"))
    assert response.status_code == 200
    assert "as it was before" in response.content.decode()
    assert not differences(changed, snapshot())


def restored(family, amount=None):
    """(the state that a restore replaced, its safety copy)."""
    data = backup_bytes()
    change() if amount is None else Feeding.objects.update(amount=amount)
    present = snapshot()
    return present, script(family.admin).post(url("confirm"), {"backup_file": upload(data)}).json()[
        "safety_copy"
    ]


def test_undo_from_the_result_page(browser):
    data = backup_bytes()
    change()
    changed = snapshot()
    result = browser.post(url("confirm"), {"backup_file": upload(data), **CLEAR})
    page = result.content.decode()
    assert "Undo this restore" in page
    assert browser.post(url("undo"), undo_form(result), follow=True).status_code == 200
    assert not differences(changed, snapshot())


def undo_form(page):
    """The hidden fields of the form that undoes a restore, or an undo."""
    (form,) = re.findall(rf'<form action="{url("undo")}".*?</form>', page.content.decode(), re.DOTALL)
    assert "Entries made since will be deleted." in form
    return dict(re.findall(r'<input type="hidden" name="([a-z_]+)" value="([^"]*)"', form))


@pytest.mark.parametrize("where", ["result", "index"])
@pytest.mark.parametrize("meanwhile", ["restore", "undo"])
def test_a_page_from_before_another_restore_undoes_nothing(browser, family, where, meanwhile):
    """A result that was reloaded, or the front page in a second tab: it is not the last restore any more."""
    data = backup_bytes()
    change()
    result = browser.post(url("confirm"), {"backup_file": upload(data), **CLEAR})
    fields = undo_form(result if where == "result" else browser.get(url("index")))
    if meanwhile == "restore":
        restored(family, amount=99)
    else:
        browser.post(url("undo"))
    Child.objects.create(first_name="Newer", last_name="Baby", birth_date="2026-03-01")
    present = snapshot()
    if meanwhile == "undo":  # long after, so that the form was not sent twice
        with freeze_time(dt.datetime.now(dt.timezone.utc) + last_restore.SENT_AGAIN):
            response = browser.post(url("undo"), fields)
    else:
        response = browser.post(url("undo"), fields)
    assert response.status_code == 409
    assert fields["safety_copy"] in response.content.decode()
    assert "start again" not in response.content.decode()
    assert not differences(present, snapshot())
    if meanwhile == "restore":
        answer = script(family.admin).post(
            url("undo"), {"safety_copy": fields["safety_copy"], "last": "true"}
        )
        assert error_of(answer)["code"] == "already_restored"
        answer = script(family.admin).post(url("undo"), {"safety_copy": fields["safety_copy"]})
        assert answer.status_code == 200, "on purpose"
    else:
        kept.delete(fields["safety_copy"])
        with freeze_time(dt.datetime.now(dt.timezone.utc) + last_restore.SENT_AGAIN):
            response = browser.post(url("undo"), fields)
        assert "no longer there" in response.content.decode()
        assert fields["safety_copy"] not in response.content.decode()


def test_an_undo_is_taken_back_from_its_page(browser):
    data = backup_bytes()
    change()
    changed = snapshot()
    browser.post(url("confirm"), {"backup_file": upload(data), **CLEAR})
    present = snapshot()
    undone = browser.post(url("undo"), undo_form(browser.get(url("index"))), follow=True)
    assert not differences(changed, snapshot())
    assert browser.post(url("undo"), undo_form(undone), follow=True).status_code == 200
    assert not differences(present, snapshot())


@pytest.mark.parametrize("named", [True, False])
def test_an_undo_that_is_sent_again_is_not_done_again(family, named):
    """It would bring back what was just undone."""
    changed, name = restored(family)
    fields = {"safety_copy": name, "last": "true"} if named else {}
    client = script(family.admin)
    assert client.post(url("undo"), fields).status_code == 200
    for _ in range(2):
        response = client.post(url("undo"), fields)
        assert response.status_code == 409
        assert error_of(response)["code"] == "already_restored"
    assert not differences(changed, snapshot())
    assert len(kept.backups()) == 2


def test_a_file_that_is_sent_again_is_not_restored_again(family):
    """A gateway that did not wait for the answer; what was entered since stays."""
    data = backup_bytes()
    client = script(family.admin)

    def send(clear="true", **again):
        return client.post(
            url("confirm"), {"backup_file": upload(data), "clear_existing_data": clear, **again}
        )

    assert send().status_code == 200
    Child.objects.create(first_name="New", last_name="Baby", birth_date="2026-03-01")
    response = send()
    assert response.status_code == 409
    assert error_of(response)["code"] == "already_restored"
    assert Child.objects.filter(first_name="New").exists()
    assert len(kept.backups()) == 1
    assert send(clear="false").status_code == 200, "which is another request"
    assert send(clear="true").status_code == 200, "and not the last one any more"
    with freeze_time(dt.datetime.now(dt.timezone.utc) + last_restore.SENT_AGAIN):
        assert send(clear="true").status_code == 200, "long after, somebody means it"


def test_a_confirmation_that_waited_for_another_is_not_carried_out(browser, monkeypatch):
    """A second click that came while the first was read: both have opened the upload before one has the lock."""
    fields = hidden(browser.post(url("restore"), {"backup_file": upload()}, follow=True), "confirm")
    real = restoring.unlocked
    answers = []

    def and_another_comes_first(source, **options):
        monkeypatch.setattr(restoring, "unlocked", real)
        answers.append(browser.post(url("confirm"), fields, follow=True).status_code)
        return real(source, **options)

    monkeypatch.setattr(restoring, "unlocked", and_another_comes_first)
    response = browser.post(url("confirm"), fields, follow=True)
    assert (answers, response.status_code) == ([200], 200)
    assert "Your data is back" in response.content.decode(), "the result of the other one"
    assert len(kept.backups()) == 1


# --- Backups that the server keeps ------------------------------------------------------------------------


def test_a_backup_is_kept_on_the_server(family, browser):
    response = browser.post(url("run"), {"label": "before the update"}, follow=True)
    assert response.redirect_chain == [(url("index"), 302)]
    first = kept.backups()[0]
    for text in ("kept on the server", "before the update", first.name, "Made by hand", "2 children"):
        assert text in response.content.decode()
    answer = script(family.admin).post(url("run")).json()
    second = kept.backups()[0]
    assert answer == {"name": second.name, "kind": "manual", "records": second.records, "made": True}
    entries = script(family.admin).get(url("index")).json()["backups"]
    assert entries == [second.as_json(), first.as_json()]
    assert (first.label, first.by, first.baby_buddy) == (
        "before the update",
        "admin",
        services.babybuddy.version(),
    )
    for client in (browser, script(family.admin)):
        assert client.post(url("run"), {"label": "x" * 201}).status_code == 400
    assert len(kept.backups()) == 2


def test_a_kept_backup_is_previewed_restored_and_undone(family, browser):
    then = snapshot()
    name = script(family.admin).post(url("run")).json()["name"]
    change()
    now = snapshot()
    page = browser.get(url("index")).content.decode()
    # Each in a direction of its own: else a sign in a list in Hebrew goes to the number beside it.
    assert re.search("Here now: <bdi>Children \\+1</bdi>, .*<bdi>Feedings \N{MINUS SIGN}1</bdi>", page)
    fields = {"kept": name, "clear_existing_data": "true"}
    assert browser.post(url("restore"), fields, follow=True).status_code == 200
    assert not differences(now, snapshot())
    assert script(family.admin).post(url("confirm"), fields).json()["records"] > 100
    assert not differences(then, snapshot())
    result = script(family.admin).post(url("undo")).json()
    assert not differences(now, snapshot())
    assert result["safety_copy"] == name, "which holds that very state: no second file"
    assert len(kept.backups()) == 2


def test_the_page_lists_the_newest_and_older_ones_if_asked(family, browser):
    undo = restored(family)[1]
    names = [services.keep_backup().name for _ in range(7)]
    page = browser.get(url("index")).content.decode()
    assert [name for name in names if name in page] == names[2:]
    assert undo in page, "the last restore can be undone here"
    assert "?from=5#kept-title" in page
    assert "Show the newest" not in page
    page = browser.get(url("index"), {"from": "5"}).content.decode()
    assert [name for name in [undo, *names] if name in page] == [undo, *names[:2]]
    assert "Show older" not in page
    assert "Show the newest" in page
    for odd in ("-1", "x", "٣", "9" * 30):
        assert names[6] in browser.get(url("index"), {"from": odd}).content.decode()


def test_a_kept_backup_is_pinned(family, browser):
    name = script(family.admin).post(url("run")).json()["name"]
    assert browser.post(url("kept_pin", name), {"pinned": "true"}, follow=True).status_code == 200
    assert kept.find(name).pinned
    assert "Unpin" in browser.get(url("index")).content.decode()
    answer = script(family.admin).post(url("kept_pin", name), {"pinned": "false"})
    assert answer.json() == kept.find(name).as_json()
    assert not kept.find(name).pinned
    for client in (browser, script(family.admin)):
        assert client.post(url("kept_pin", name)).status_code == 400
        assert client.post(url("kept_pin", name), {"pinned": "flase"}).status_code == 400
        assert client.post(url("kept_pin"), {"pinned": "true"}).status_code == 404


def test_a_kept_backup_gets_another_label(family, browser):
    name = script(family.admin).post(url("run"), {"label": "before"}).json()["name"]
    page = browser.post(url("kept_label", name), {"label": "<b>holiday</b>"}, follow=True).content.decode()
    assert "The label is saved." in page
    assert 'value="&lt;b&gt;holiday&lt;/b&gt;"' in page
    assert kept.find(name).label == "<b>holiday</b>"
    entry = script(family.admin).post(url("kept_label", name), {"label": ""}).json()
    assert entry == kept.find(name).as_json()
    assert entry["label"] == ""
    for client in (browser, script(family.admin)):
        assert client.post(url("kept_label", name), {"label": "x" * 201}).status_code == 400
        assert client.post(url("kept_label")).status_code == 404


def test_a_kept_backup_is_proved(family, browser):
    name = script(family.admin).post(url("run")).json()["name"]
    page = browser.post(url("kept_prove", name), follow=True).content.decode()
    counts = kept.find(name).counts  # the growth tables come with every installation
    records = sum(count for label, count in counts.items() if not label.endswith("percentile"))
    assert 0 < records < kept.find(name).records
    assert f"Proved: all {records} records came back identical." in page
    assert re.search(rf"Proved on [^:]+: all {records} records came back identical\.", page)
    (path,) = conf.root.rglob(name)
    path.write_bytes(spoiled(path.read_bytes()))
    entry = script(family.admin).post(url("kept_prove", name)).json()
    assert entry == kept.find(name).as_json()
    assert entry["proof"]["verdict"] == "failed"
    assert re.search(r"Failed its proof on [^:]+: .*damaged", browser.get(url("index")).content.decode())
    assert script(family.admin).post(url("kept_prove")).status_code == 404


# --- Automatic backups ------------------------------------------------------------------------------------


def test_an_automatic_backup_is_made_where_one_is_due(family, browser, settings):
    settings.BACKUP_SCHEDULE = "daily"
    client = script(family.admin)
    assert client.get(url("status")).json()["state"] == "overdue"
    page = browser.get(url("index")).content.decode()
    assert "No automatic backup yet" in page
    answer = client.post(url("run"), {"automatic": "true"}).json()
    (made,) = kept.backups()
    assert answer == {"name": made.name, "kind": "automatic", "records": made.records, "made": True}
    assert client.post(url("run"), {"automatic": "true"}).json() == {**answer, "made": False}
    assert client.get(url("status")).json()["last"]["name"] == made.name
    page = browser.post(url("run"), {"automatic": "true"}, follow=True).content.decode()
    for text in ("Protected", "No backup is due", "Next: "):
        assert text in page


def test_entries_that_became_fewer(family, browser, settings):
    settings.BACKUP_SCHEDULE = "daily"
    then = snapshot()
    client = script(family.admin)
    before = client.post(url("run"), {"automatic": "true"}).json()["name"]
    Child.objects.first().delete()
    with freeze_time(dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=1)):
        found = client.post(url("run"), {"automatic": "true"}).json()
        assert found["made"]
        found = client.get(url("status")).json()
        assert (found["state"], found["shrunk"]) == (
            "shrunk",
            [{"model": "core.child", "before": 2, "now": 1}],
        )
        page = browser.get(url("index")).content.decode()
        for text in ("Entries have become fewer", f'name="kept" value="{before}"', url("acknowledge")):
            assert text in page
        grandma = script(family.staff)
        assert grandma.post(url("acknowledge")).status_code == 403
        assert client.get(url("status")).json()["state"] == "shrunk"
        assert client.post(url("acknowledge")).json()["state"] == "ok"
        assert "Protected" in browser.get(url("index")).content.decode()
    client.post(url("confirm"), {"kept": before})
    assert Child.objects.count() == len(then["core.child"])


# --- Safety copies ----------------------------------------------------------------------------------------


def test_each_safety_copy_is_listed_with_its_reason(family, browser):
    restored(family)
    services.undo_restore(user=family.staff)
    copies = script(family.admin).get(url("index")).json()["backups"]
    assert [copy["by"] for copy in copies] == [family.staff.username, family.admin.username]
    assert copies[0]["label"] == "before an undo"
    assert re.fullmatch(r"before restoring backup_\d{6}_\d{6}\.zip", copies[1]["label"])
    page = browser.get(url("index")).content.decode()
    for copy in copies:
        assert copy["size"] > 1000
        for text in (copy["label"], copy["name"], url("kept", copy["name"])):
            assert text in page
        assert url("kept_delete", copy["name"]) in page
    assert "Undo the last restore" not in page, "it is undone"


def test_a_safety_copy_that_is_damaged_is_listed_as_such(family, browser):
    _, name = restored(family)
    (path,) = conf.root.glob(f"*/kept/{name}")
    path.write_bytes(path.read_bytes()[:-100])
    assert "damaged" in browser.get(url("index")).content.decode()
    before = snapshot()
    assert browser.post(url("undo")).status_code == 400
    assert not differences(before, snapshot())


def test_any_safety_copy_can_be_restored(family, browser):
    first, name = restored(family)
    restored(family, 7)
    assert kept.backups()[0].name != name
    response = browser.post(url("undo"), {"safety_copy": name})
    assert response.status_code == 200
    assert not differences(first, snapshot())
    assert services.kept_backups()[0].label == f"before going back to {name}"


def test_a_safety_copy_is_downloaded(family, browser):
    _, name = restored(family)
    restored(family, 7)  # a newer one
    with kept.open_backup(name) as file:
        wanted = file.read()
    for client in (browser, script(family.admin)):
        response = client.get(url("kept", name))
        assert response.status_code == 200
        moment = kept.parse(name).created
        assert services.backup_name(family.admin, moment) in response["Content-Disposition"]
        assert response["Content-Type"] == "application/zip"
        assert "no-store" in response["Cache-Control"]
        data = response.getvalue()
        assert int(response["Content-Length"]) == len(data)
        assert data == wanted


def test_a_safety_copy_is_deleted(family, browser):
    _, name = restored(family)
    _, other = restored(family, 7)
    response = browser.post(url("kept_delete", name))
    assert (response.status_code, response.url) == (302, url("index"))
    assert [copy.name for copy in kept.backups()] == [other]
    assert browser.post(url("kept_delete", name)).status_code == 404
    assert script(family.admin).post(url("kept_delete", other)).status_code == 204
    assert browser.post(url("undo"), {"safety_copy": other}).status_code == 404


@pytest.mark.parametrize(
    "name", ["..", "../staged/x.zip", "%2e%2e%2fstaged", "notes.txt", "before_x.zip", "a\0b", "a\r\nb", "<b>"]
)
def test_what_is_no_safety_copy_is_not_there(family, name):
    files.put("safety/notes.txt", ContentFile(b"not yours"))
    client = script(family.admin)
    for view, method in (("kept", "GET"), ("kept_delete", "POST"), ("kept_pin", "POST")):
        with suppress(NoReverseMatch):
            send = client.get if method == "GET" else client.post
            assert send(url(view, name), {"pinned": "true"}).status_code == 404
    assert client.post(url("undo"), {"safety_copy": name}).status_code == 404
    assert files.names_in("safety") == ["safety/notes.txt"]


# --- After the restore, in the same browser ---------------------------------------------------------------


def sign_in_again(response):
    return "sign in again" in response.content.decode().lower()


def sessions():
    """Those of people: among them, the app remembers the last restore."""
    return [key for key in Session.objects.values_list("pk", flat=True) if not key.startswith("backup-")]


def test_who_is_the_same_stays_signed_in(browser):
    response = browser.post(url("confirm"), {"backup_file": upload(), **CLEAR})
    assert not sign_in_again(response)
    assert browser.get(url("index")).status_code == 200


def test_who_gets_another_password_must_sign_in_again(family):
    data = backup_bytes()
    family.admin.set_password("another")
    family.admin.save()
    client = Client()
    client.force_login(family.admin)
    response = client.post(url("confirm"), {"backup_file": upload(data)})
    assert response.status_code == 200
    assert sign_in_again(response)
    assert reverse("babybuddy:login") in response.content.decode()
    assert not client.cookies["sessionid"].value
    assert not sessions()
    assert client.get(url("index")).status_code == 302


def test_who_is_gone_must_sign_in_again():
    data = backup_bytes()
    late = get_user_model().objects.create_superuser("late", password="late")
    client = Client()
    client.force_login(late)
    preview = client.post(url("restore"), {"backup_file": upload(data), **CLEAR}, follow=True)
    fields = {"upload": re.search(r'name="upload" value="([^"]+)"', preview.content.decode())[1], **CLEAR}
    question = client.post(url("confirm"), {**fields, "confirmed": ""}, follow=True)
    for page in (preview, question):
        assert "Your own account is removed" in page.content.decode()
    response = client.post(url("confirm"), fields)
    assert response.status_code == 200
    assert re.search("The account <bdi.*>late</bdi> is not in this backup", response.content.decode())
    assert "the password from the time of the backup" not in response.content.decode()
    assert not get_user_model().objects.filter(username="late").exists()
    assert not sessions()
    assert client.get(url("index")).status_code == 302


@pytest.mark.parametrize("form", [CLEAR, {}])
def test_who_has_another_name_must_sign_in_again(family, form):
    """With the key and the password of before: a proxy that names its users would not name this one."""
    data = backup_bytes()
    get_user_model().objects.filter(pk=family.admin.pk).update(username="chief")
    family.admin.refresh_from_db()
    client = Client()
    client.force_login(family.admin)
    response = client.post(url("confirm"), {"backup_file": upload(data), **form})
    assert response.status_code == 200
    assert sign_in_again(response)
    assert not sessions()


def test_session_that_ends_meanwhile(browser, monkeypatch):
    """The middleware of the host has touched the session, and would fail to save it after the view."""
    real = services.restore_backup

    def and_then_the_session_ends(*args, **kwargs):
        result = real(*args, **kwargs)
        Session.objects.all().delete()
        return result

    monkeypatch.setattr(services, "restore_backup", and_then_the_session_ends)
    response = browser.post(url("confirm"), {"backup_file": upload()})
    assert response.status_code == 200
    assert sign_in_again(response)


# --- Bad input --------------------------------------------------------------------------------------------

BAD_FILES = {"no zip": b"hello", "nothing": b"", "zip of nothing": b"PK\x05\x06" + b"\0" * 18}


@pytest.mark.parametrize("name", ["restore", "confirm"])
@pytest.mark.parametrize("data", BAD_FILES.values(), ids=BAD_FILES)
def test_bad_file(family, browser, name, data):
    before = snapshot()
    response = browser.post(url(name), {"backup_file": upload(data), "clear_existing_data": "true"})
    page = response.content.decode()
    assert response.status_code == 400
    assert 'id="backup-file-error"' in page
    assert re.search(r'name="clear_existing_data"[^>]*\schecked', page), "what was family in stays"
    json_response = script(family.admin).post(url(name), {"backup_file": upload(data)})
    assert json_response.status_code == 400
    error = error_of(json_response)
    assert escape(error["message"]) in page
    assert set(error) >= {"code", "message", "details"}
    assert not staged()
    assert not differences(before, snapshot())


@pytest.mark.parametrize("name", ["restore", "confirm"])
def test_a_typo_in_the_mode_is_refused(family, browser, name):
    before = snapshot()
    fields = {"backup_file": upload(), "clear_existing_data": "flase"}
    assert browser.post(url(name), fields).status_code == 400
    response = script(family.admin).post(url(name), {**fields, "backup_file": upload()})
    assert response.status_code == 400
    assert "flase" in error_of(response)["message"]
    assert not differences(before, snapshot())


@pytest.mark.parametrize("name", ["restore", "confirm"])
def test_no_file(family, browser, name):
    assert browser.post(url(name)).status_code == 400
    assert browser.post(url(name), {"backup_file": "a text"}).status_code == 400
    assert error_of(script(family.admin).post(url(name)))["code"] == "missing"


@pytest.mark.parametrize("name", ["restore", "confirm", "cancel", "undo", "run", "kept_delete", "kept_pin"])
def test_too_large_is_refused_before_it_is_read(family, browser, settings, name, monkeypatch):
    settings.BACKUP_MAX_UPLOAD_SIZE = 1024
    monkeypatch.setattr(access, "FORM_SIZE", 1024)
    handled = []
    monkeypatch.setattr(
        "django.http.request.HttpRequest.parse_file_upload", lambda *a: handled.append(a) or 1 / 0
    )
    response = browser.post(url(name), {"backup_file": upload(b"x" * 5000)})
    assert response.status_code == 413
    assert "BACKUP_MAX_UPLOAD_SIZE" in response.content.decode()
    response = script(family.admin).post(url(name), {"backup_file": upload(b"x" * 5000)})
    assert response.status_code == 413
    assert error_of(response)["code"] == "too_large"
    assert not handled


@pytest.mark.parametrize("name", ["restore", "confirm"])
def test_too_large_by_little(family, browser, settings, name):
    settings.BACKUP_MAX_UPLOAD_SIZE = 1024
    response = browser.post(url(name), {"backup_file": upload(b"x" * 1025), "clear_existing_data": "1"})
    assert response.status_code == 413
    assert 'id="backup-file-error"' in response.content.decode()
    assert not staged()
    assert script(family.admin).post(url(name), {"backup_file": upload(b"x" * 1025)}).status_code == 413


def test_broken_upload(family):
    response = script(family.admin).post(
        url("restore"), b"no form", content_type="multipart/form-data; boundary="
    )
    assert response.status_code == 400
    assert error_of(response)["code"] == "invalid_backup"


@contextmanager
def another_restore():
    """One that runs meanwhile, on a connection of its own."""
    running, done = threading.Event(), threading.Event()

    def run():
        try:
            with database_of().exclusive():
                running.set()
                done.wait(60)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        restore = pool.submit(run)
        try:
            assert running.wait(60)
            yield
        finally:
            done.set()
            restore.result()


def test_busy(family, browser):
    fields = hidden(browser.post(url("restore"), {"backup_file": upload()}, follow=True), "confirm")
    with another_restore():
        response = browser.post(url("confirm"), fields, follow=True)
        assert response.status_code == 409
        assert hidden(response, "confirm") == fields, "it can be tried again"
        response = script(family.admin).post(url("confirm"), {"backup_file": upload()})
        assert response.status_code == 409
        assert error_of(response)["code"] == "busy"
    assert browser.post(url("confirm"), fields, follow=True).status_code == 200


def test_server_that_cannot_keep_files(browser, settings, tmp_path):
    (tmp_path / "file").touch()
    settings.BACKUP_ROOT = tmp_path / "file"
    assert browser.get(url("index")).status_code == 200
    for name in ("restore", "confirm"):
        response = browser.post(url(name), {"backup_file": upload()})
        assert response.status_code == 507


def test_other_errors_are_not_hidden(browser, monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(services, "inspect_backup", broken)
    with pytest.raises(ZeroDivisionError):
        browser.post(url("restore"), {"backup_file": upload()}, follow=True)


# --- The index and the menu -------------------------------------------------------------------------------


def test_index_has_the_commands_with_the_address(browser):
    page = browser.get(url("index"), headers={"Host": "baby.example:8000"}).content.decode()
    assert "http://baby.example:8000/backup/download/" in page
    assert "http://baby.example:8000/backup/restore/confirm/" in page
    assert token_key("admin") not in page


def test_the_key_is_shown_to_who_asks(browser, family):
    key = token_key("admin")
    page = browser.get(url("index"), {"token": "1"}).content.decode()
    assert page.count(f"Authorization: Token {key}") == 2
    assert "curl --fail -OJ" in page, "an error is not saved as a backup"
    Token.objects.all().delete()
    page = browser.get(url("index"), {"token": "1"}).content.decode()
    assert "YOUR_TOKEN" in page
    assert "no API key yet" in page
    assert not Token.objects.exists(), "none is made by looking"


def test_index_tells_of_the_last_backup_and_the_size(browser, family):
    assert "Nobody has downloaded a backup yet" in browser.get(url("index")).content.decode()
    browser.head(url("download")).close()
    assert state.load_last_backup() is None, "nobody got it"
    # One that is broken off is none either.
    broken = browser.get(url("download"))
    assert len(next(iter(broken))) > 100
    broken.close()
    assert state.load_last_backup() is None
    browser.get(url("download")).getvalue()
    last = state.load_last_backup()
    assert last.by == "admin"
    assert last.records > 100
    page = browser.get(url("index")).content.decode()
    assert ", by <bdi>admin</bdi>." in page
    assert re.search(r"The database takes <bdi>[\d.,]+\s[KM]B", page)
    call_command("backup", verbosity=0, stdout=io.StringIO())
    assert "by a command on the server" in browser.get(url("index")).content.decode()


def test_what_cannot_be_remembered_is_no_reason_to_fail(browser, settings, tmp_path):
    settings.BACKUP_ROOT = tmp_path
    last = tmp_path / files.path_of("last")
    last.parent.mkdir()
    last.touch()
    response = browser.get(url("download"))
    assert response.status_code == 200
    response.close()
    last.unlink()
    last.mkdir()
    (last / "backup.json").write_text("[]")
    assert "Nobody has downloaded a backup yet" in browser.get(url("index")).content.decode()


def test_index_json(family):
    answer = script(family.admin).get(url("index")).json()
    assert answer == {
        "max_upload_size": conf.max_upload_size,
        "backups": [],
        "status": automatic.status().as_json(),
    }
    assert script(family.admin).get(url("status")).json() == answer["status"]
    assert answer["status"]["state"] == "off"


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("*/*", False),
        ("", False),
        ("application/json", True),
        ("application/json, text/plain, */*", True),
        ("text/html, application/json", False),
    ],
)
def test_json_for_whom_wants_it(browser, accept, is_json):
    response = browser.get(url("index"), headers={"Accept": accept})
    assert response["Content-Type"].startswith("application/json" if is_json else "text/html")


def test_menu_entry_is_the_last_of_the_staff_links(family):
    client = Client()
    client.force_login(family.staff)
    page = client.get(reverse("dashboard:dashboard"), follow=True).content.decode()
    items = re.findall(r'<a\s[^>]*href="([^"]*)"[^>]*class="dropdown-item"', page)
    assert items[items.index(reverse("admin:index")) + 1] == url("index")
    assert items.count(url("index")) == 1


@pytest.mark.parametrize("who", ["plain", "reader"])
def test_menu_entry_is_not_for_others(family, who):
    client = Client()
    client.force_login(getattr(family, who))
    page = client.get(reverse("babybuddy:user-settings")).content.decode()
    assert reverse("babybuddy:user-password") in page, "the menu is there"
    assert url("index") not in page


def test_menu_entry_is_not_for_staff_where_superusers_are_asked_for(family, settings):
    settings.BACKUP_REQUIRE_SUPERUSER = True
    client = Client()
    client.force_login(family.staff)
    assert url("index") not in client.get(reverse("dashboard:dashboard"), follow=True).content.decode()


def test_menu_without_the_place_is_unharmed(family, monkeypatch):
    from backup import menu

    client = Client()
    client.force_login(family.admin)
    page = client.get(reverse("babybuddy:user-settings")).content.decode()
    monkeypatch.setattr(menu, "NEIGHBOUR", "core:nowhere")
    response = client.get(reverse("babybuddy:user-settings"))
    assert response.status_code == 200
    assert url("index") in page
    assert url("index") not in response.content.decode()


def test_pages_survive_whatever_the_menu_does(browser, settings, tmp_path):
    """A value that a restore brought may break it, on every page of the host."""
    menu = tmp_path / "babybuddy" / "nav-dropdown.html"
    menu.parent.mkdir()
    menu.write_text(
        "{% extends 'babybuddy/base.html' %}{% block nav %}{% include 'no/where.html' %}{% endblock %}"
    )
    first, *others = settings.TEMPLATES
    settings.TEMPLATES = [{**first, "DIRS": [str(tmp_path), *first["DIRS"]]}, *others]
    response = browser.get(url("index"))
    assert response.status_code == 200
    assert f'action="{url("download")}"' in response.content.decode()
    preview = browser.post(url("restore"), {"backup_file": upload()}, follow=True)
    assert (
        "Your data is back"
        in browser.post(url("confirm"), hidden(preview, "confirm"), follow=True).content.decode()
    )


def test_pages_below_a_path(browser, settings, request):
    settings.ENABLE_HOME_ASSISTANT_SUPPORT = False  # that middleware overrules the path
    request.addfinalizer(lambda: set_script_prefix("/"))
    set_script_prefix("/baby/")  # as a server does, other than the test client
    page = browser.get("/backup/", SCRIPT_NAME="/baby").content.decode()
    assert 'href="/baby/backup/" class="dropdown-item"' in page
    assert 'action="/baby/backup/restore/"' in page
    assert "http://testserver/baby/backup/download/" in page


def test_time_is_the_viewers(family):
    """Berlin's clocks, not UTC's, nor those of who was served before."""
    data = io.BytesIO()
    moment = services.create_backup(data).timestamp
    client = Client()
    client.force_login(family.admin)
    client.get(url("index"))
    client.force_login(family.staff)
    page = client.post(url("restore"), {"backup_file": upload(data.getvalue())}, follow=True).content.decode()
    there = moment.astimezone(zoneinfo.ZoneInfo("Europe/Berlin"))
    assert "Europe/Berlin" in page
    assert there.strftime("%H:%M") in page


def test_nothing_is_left_in_the_temporary_folder(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    browser.get(url("download")).getvalue()
    browser.post(url("confirm"), {"backup_file": upload(backup_bytes())})
    assert list(Path(tmp_path).iterdir()) == []


def test_a_large_upload_has_no_name_that_a_killed_process_would_leave(
    browser, settings, tmp_path, monkeypatch
):
    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = 0
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path)
    data, seen = backup_bytes(), []
    real = access.NamelessUploadHandler.receive_data_chunk

    def and_look(self, *args):
        seen.append(list(tmp_path.iterdir()))
        return real(self, *args)

    monkeypatch.setattr(access.NamelessUploadHandler, "receive_data_chunk", and_look)
    assert browser.post(url("restore"), {"backup_file": upload(data)}, follow=True).status_code == 200
    assert browser.post(url("confirm"), {"backup_file": upload(data)}).status_code == 200
    assert seen
    assert not any(seen)


# --- Moments that not every time zone has -------------------------------------------------------------------

EDGES = {"America/New_York": "0001-01-01T00:00:00+00:00", "Asia/Tokyo": "9999-12-31T23:59:59+00:00"}


@pytest.mark.parametrize("zone", EDGES)
def test_no_file_has_a_moment_that_its_reader_does_not(browser, family, zone):
    """A backup, the name of one, and what is noted of one: pages say when that was."""
    moment = EDGES[zone]
    family.admin.settings.timezone = zone
    family.admin.settings.save()
    edge = rewritten(take(), change_metadata=lambda metadata: metadata.update(timestamp=moment))
    answer = browser.post(url("restore"), {"backup_file": upload(edge.getvalue())})
    assert answer.status_code == 400
    assert "“timestamp” is missing or wrong" in answer.content.decode()

    name = services.keep_backup().name
    here = Path(kept.local_path(name))
    compact = f"{re.sub('[-:]', '', moment).removesuffix('+0000')}.000000Z"
    named = here.with_name(re.sub(r"_\d{8}T.*?Z", f"_{compact}", name))
    named.write_bytes(here.read_bytes())
    proof = {"verdict": "proved", "at": moment, "records": 1, "place": "local"}
    files.put_json(kept.parse(name).facts, {"proofs": {"local": proof}, "unchanged": moment})
    files.put_json(files.LAST_BACKUP, {"at": moment, "by": "", "records": 1})
    files.put_json(
        files.LAST_RUN, {"at": moment, "error": "failed", "tries": 1, "notified": "", "is_unfinished": False}
    )
    for page in ("index", "status"):
        assert browser.get(url(page)).status_code == 200
    assert [backup.name for backup in services.kept_backups()] == [name]
    assert browser.get(url("kept", named.name)).status_code == 404
    call_command("backups", stdout=io.StringIO())

"""The way of a parent through the pages, in a real browser on a real server (gunicorn, several processes)."""

import http.client
import re
import urllib.parse

import pytest
from core.models import Child
from django.contrib.auth import get_user_model

from backup import services
from tests.filling import PASSWORD, fill, token_key
from tests.snapshots import differences, snapshot

WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@pytest.fixture
def family(host_db):
    return fill(days=1, children=1, odd=False)


@pytest.fixture(params=[WIDE, PHONE], ids=["wide", "phone"])
def page(request, family, browser):
    page = browser.new_page()
    page.set_viewport_size(request.param)
    yield page
    page.close()


def sign_in(page, username="admin", password="admin", path="/backup/"):
    page.goto(path)
    page.fill("[name=username]", username)
    page.fill("[name=password]", password)
    page.press("[name=password]", "Enter")
    page.wait_for_url(lambda url: "/login" not in url)


def fits(page):
    """No page is wider than the screen."""
    return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def preview(page, path, clear=False):
    page.goto("/backup/")
    page.set_input_files("#id_backup_file", path)
    page.set_checked("#id_clear_existing_data", clear)
    page.click("text=Upload and Preview")
    page.wait_for_selector("h1:has-text('What this backup would do')")


@pytest.fixture
def saved(family, tmp_path):
    path = tmp_path / "saved.zip"
    with path.open("wb") as file:
        services.create_backup(file)
    return path


def test_the_whole_way(page, tmp_path):
    """Sign in, menu, download, upload, preview, confirm, sign in again, undo."""
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    before = snapshot()
    sign_in(page, path="/user/settings/")
    if page.is_visible(".navbar-toggler"):
        page.click(".navbar-toggler")
        page.wait_for_selector(".navbar-collapse.show:not(.collapsing)")
    page.click("#nav-user-menu-link, .navbar .dropdown-toggle:has-text('admin')")
    page.click("a.dropdown-item:has-text('Backup & Restore')")
    assert page.url.endswith("/backup/")
    assert fits(page)

    with page.expect_download() as download:
        page.click("text=Download Backup")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert re.fullmatch(r"backup_\d{6}_\d{6}\.zip", path.name)
    assert page.is_enabled("text=Download Backup"), "it can be clicked again"

    Child.objects.create(first_name="New", last_name="Baby", birth_date="2026-03-01")
    admin = get_user_model().objects.get(username="admin")
    admin.set_password("another one")
    admin.save()
    sign_in(page, password="another one")
    preview(page, path, clear=True)
    assert fits(page)
    assert "records change" in page.inner_text("body") or "record changes" in page.inner_text("body")

    # Not by habit: the box must be ticked.
    page.click("text=Confirm Restore")
    assert page.evaluate("document.querySelector('#clear-sure').validity.valueMissing")
    assert Child.objects.filter(first_name="New").exists()
    page.check("#clear-sure")
    page.click("text=Confirm Restore")
    page.wait_for_selector("h1:has-text('Your data is back')")
    assert fits(page)
    assert "sign in again" in page.inner_text("body").lower()
    after = snapshot()
    after["auth.user"][admin.pk]["last_login"] = before["auth.user"][admin.pk]["last_login"]
    assert not [line for line in differences(before, after) if "last_login" not in line]

    page.click("a:has-text('Sign in')")
    sign_in(page)
    page.check("#undo-sure")
    page.click("text=Undo the last restore")
    page.wait_for_selector("h1:has-text('taken back')")
    assert Child.objects.filter(first_name="New").exists()
    assert not problems


def test_bad_file_and_cancel(page, saved, tmp_path):
    sign_in(page)
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"hello")
    page.set_input_files("#id_backup_file", bad)
    page.check("#id_clear_existing_data")
    page.click("text=Upload and Preview")
    page.wait_for_selector("#backup-file-error")
    assert page.is_checked("#id_clear_existing_data")
    assert page.is_enabled("text=Upload and Preview")
    assert fits(page)
    preview(page, saved)
    page.click("text=Preview with existing data cleared")
    page.wait_for_selector("#clear-sure")
    page.click("text=Cancel")
    page.wait_for_url("**/backup/")


def test_the_limit_is_known_before_sending(page, tmp_path):
    sign_in(page)
    page.eval_on_selector("#id_backup_file", "input => { input.dataset.limit = 3; }")
    large, small = tmp_path / "large.zip", tmp_path / "small.zip"
    large.write_bytes(b"four")
    small.write_bytes(b"two")
    page.set_input_files("#id_backup_file", large)
    page.click("text=Upload and Preview")
    assert "too large" in page.eval_on_selector("#id_backup_file", "input => input.validationMessage")
    assert page.url.endswith("/backup/")
    page.set_input_files("#id_backup_file", small)
    assert page.eval_on_selector("#id_backup_file", "input => input.validity.valid")


def test_without_javascript(chromium, server, family, saved):
    context = chromium.new_context(base_url=server, java_script_enabled=False, viewport=PHONE)
    try:
        page = context.new_page()
        page.goto("/backup/")
        page.fill("[name=username]", "grandma")
        page.fill("[name=password]", PASSWORD)
        page.click("[type=submit]")
        page.goto("/backup/")
        page.set_input_files("#id_backup_file", saved)
        page.click("#restore-form [type=submit]")
        page.click("form[action$='/confirm/'] [type=submit]")
        assert page.is_visible(".alert-success")
    finally:
        context.close()


def test_right_to_left(page, family, saved):
    family.admin.settings.language = "he"
    family.admin.settings.save()
    sign_in(page)
    assert page.get_attribute("html", "dir") == "rtl"
    assert fits(page)
    page.set_input_files("#id_backup_file", saved)
    page.click("#restore-form [type=submit]")
    page.wait_for_selector("table")
    assert fits(page)


def test_by_keyboard(page, saved):
    """Everything that acts can be reached with the Tab key, and has a name."""
    sign_in(page)
    names = []
    for _ in range(60):
        page.keyboard.press("Tab")
        names.append(
            page.evaluate("(e => e.id || e.textContent.trim().replace(/\\s+/g, ' '))(document.activeElement)")
        )
        if names[-1] == "Upload and Preview":
            break
    wanted = ["Download Backup", "id_backup_file", "id_clear_existing_data", "Upload and Preview"]
    assert [name for name in names if name in wanted] == wanted


def test_large_upload_gets_its_answer(server, family, settings):
    """Not "connection reset": gunicorn closes the connection when the view has answered."""
    for token, status in ((token_key("admin"), 413), ("wrong", 401)):
        address = urllib.parse.urlsplit(server)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        size = 110 * 1024 * 1024
        connection.putrequest("POST", "/backup/restore/confirm/")
        connection.putheader("Authorization", f"Token {token}")
        connection.putheader("Content-Type", "multipart/form-data; boundary=x")
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        for _ in range(size // 2**20):
            connection.send(bytes(2**20))
        response = connection.getresponse()
        assert response.status == status
        response.read()
        connection.close()


def test_head_leaves_the_connection_usable(server, family):
    address = urllib.parse.urlsplit(server)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    headers = {"Authorization": f"Token {token_key('admin')}"}
    for method in ("HEAD", "GET", "HEAD", "GET"):
        connection.request(method, "/backup/download/", headers=headers)
        response = connection.getresponse()
        assert response.status == 200
        length = int(response.headers["Content-Length"])
        assert length > 1000
        assert len(response.read()) == (length if method == "GET" else 0)
    connection.close()

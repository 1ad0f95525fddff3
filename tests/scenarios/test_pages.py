"""The way of a parent through the pages, in a real browser on a real server (gunicorn, several processes)."""

import contextlib
import http.client
import os
import re
import time
import urllib.parse
from pathlib import Path

import axe_playwright_python
import pytest
from core.models import Child, DiaperChange, Feeding, Note, Tag
from django.contrib.auth import get_user_model
from django.test import Client

from backup import babybuddy, services
from backup.automatic import copies
from backup.conf import conf
from backup.options import RestoreOptions
from backup.storage import state, uploads
from tests.scenarios.test_pointless import unchecked
from tests.support.filling import PASSWORD, token_key
from tests.support.http import PHONE
from tests.support.matrices import again
from tests.support.snapshots import differences, snapshot

WIDE = {"width": 1280, "height": 900}
SIZES = {"wide": WIDE, "phone": PHONE}


def sign_in(page, username="admin", password="admin", path="/backup/"):
    page.goto(path)
    page.fill("[name=username]", username)
    page.fill("[name=password]", password)
    page.press("[name=password]", "Enter")
    page.wait_for_url(lambda url: "/login" not in url)


def loaded(page):
    """Waits until the page is there as people see it. An element may be there before the style sheets are: a browser
    draws nothing until then, but measures all the same."""
    page.wait_for_function("document.readyState === 'complete'")


def fits(page):
    """No page is wider than the screen."""
    loaded(page)
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


@pytest.mark.parametrize("size", ["phone", again("wide")])
def test_the_whole_way(page, size, tmp_path):
    """Sign in, menu, download, upload, preview, confirm, sign in again, undo."""
    page.set_viewport_size(SIZES[size])
    page.context.clear_cookies()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    before = snapshot()
    sign_in(page, path="/user/settings/")
    if page.is_visible(".navbar-toggler"):
        page.click(".navbar-toggler")
        page.wait_for_selector(".navbar-collapse.show:not(.collapsing)")
    page.click("#nav-user-menu-link, .navbar .dropdown-toggle:has-text('admin')")
    page.click("a.dropdown-item:has-text('Backup & Restore')")
    # A click ends when the answer begins, before there is any document.
    page.wait_for_url("**/backup/")
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
    assert "1 will be deleted" in page.inner_text("#backup-page .lead")

    # What becomes of the accounts is a question by itself, without an answer set beforehand.
    page.click("text=Continue")
    assert page.evaluate("document.querySelector('#accounts-keep').validity.valueMissing")
    page.check("text=Replace accounts with those of the backup")
    # Not by habit: on a second page a box must be ticked, that says how many.
    page.click("text=Continue")
    page.wait_for_selector("label:has-text('delete 1 record')")
    page.click("text=Delete and restore")
    assert page.evaluate("document.querySelector('#confirmed').validity.valueMissing")
    assert Child.objects.filter(first_name="New").exists()
    page.check("#confirmed")
    page.click("text=Delete and restore")
    page.wait_for_selector("h1:has-text('Your data is back')")
    assert fits(page)
    assert "sign in again" in page.inner_text("body").lower()
    after = snapshot()
    after["auth.user"][admin.pk]["last_login"] = before["auth.user"][admin.pk]["last_login"]
    assert not [line for line in differences(before, after) if "last_login" not in line]

    page.click("a:has-text('Sign in')")
    page.wait_for_url("**/login/**")
    sign_in(page)
    page.check("#undo-sure")
    page.click("text=Undo the last restore")
    page.wait_for_selector("h1:has-text('as it was before')")
    assert Child.objects.filter(first_name="New").exists()
    assert not problems


def test_bad_file_and_cancel(page, saved, tmp_path):
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"hello")
    page.set_input_files("#id_backup_file", bad)
    page.check("#id_clear_existing_data")
    page.click("text=Upload and Preview")
    page.wait_for_selector("#backup-file-error")
    check(page, "bad file")
    assert page.is_checked("#id_clear_existing_data")
    assert page.is_enabled("text=Upload and Preview")
    assert fits(page)
    preview(page, saved)
    page.click("text=Preview with existing data cleared")
    page.wait_for_selector("text=Continue")
    page.click("text=Cancel")
    page.wait_for_url("**/backup/")


def test_the_limit_is_known_before_sending(page, tmp_path):
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


@pytest.mark.parametrize(
    ("language", "size", "script"),
    [
        ("en", "phone", True),
        again("en", "wide", True),
        ("en", "wide", False),
        again("de", "phone", True),  # the longest words
        ("he", "phone", True),
        again("he", "wide", True),
    ],
    ids=lambda value: {True: "script", False: "no script"}.get(value, value),
)
def test_the_way_there_and_back(visit, family, saved, size, language, script):
    """In other languages too, one from right to left that we do not speak; with and without JavaScript."""
    family.admin.settings.language = language
    family.admin.settings.save()
    Child.objects.create(first_name="New", last_name="Baby", birth_date="2026-03-01")
    Feeding.objects.filter(pk__in=first(Feeding, 2)).delete()
    DiaperChange.objects.filter(pk__in=first(DiaperChange, 2)).update(color="green", notes="<b>other</b>")

    def seen(name):
        if script:
            look = f"{name} {size} {language}"
            assert fits(page), look
            keep(page, look)
            if (language, size) == ("en", "phone"):
                check(page, look)

    page = visit(SIZES[size], script=script)
    assert page.get_attribute("html", "dir") == ("rtl" if language == "he" else "ltr")
    page.set_input_files("#id_backup_file", saved)
    page.check("#id_clear_existing_data")
    seen("1 index")
    page.click("#restore-form [type=submit]")
    page.wait_for_selector("#records-title")
    seen("2 preview")
    for summary in page.query_selector_all("summary"):
        summary.click()
    assert page.is_visible("del:has-text('<b>other</b>')"), "what is here now"
    seen("3 examples")
    page.click("form[action$='/confirm/'] [type=submit]")
    page.wait_for_selector("#confirmed")
    seen("4 sure")
    page.check("#confirmed")
    page.click("form[action$='/confirm/'] .btn-danger")
    page.wait_for_selector(".alert-success")
    seen("5 result")
    assert not Child.objects.filter(first_name="New").exists()
    if script:
        page.reload()
        assert page.is_visible(".alert-success"), "the result is found again"
    page.goto("/backup/")
    assert not page.is_visible("a[href*='/backup/restore/']"), "it was seen"
    seen("6 index after it")
    if language != "en":
        return
    page.check("#undo-sure")
    page.click("text=Undo the last restore")
    page.wait_for_selector(".alert-success")
    assert Child.objects.filter(first_name="New").exists()


def first(model, number):
    return [*model.objects.order_by("pk").values_list("pk", flat=True)[:number]]


def keep(page, name):
    """A screenshot, in the folder that BACKUP_TEST_SCREENSHOTS names."""
    if folder := os.environ.get("BACKUP_TEST_SCREENSHOTS"):
        loaded(page)
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder, f"{name.replace(' ', '-')}.png"), full_page=True)


def check(page, name):
    """Who cannot see, or has no mouse, comes along: axe-core finds nothing in our part of the page."""
    loaded(page)
    assert page.locator("main").count() == 1, "which the host does not have"
    page.evaluate(AXE)
    found = page.evaluate("axe.run('#backup-page')")["violations"]
    assert not [(rule["id"], node["html"]) for rule in found for node in rule["nodes"]], name


AXE = next(Path(axe_playwright_python.__file__).parent.rglob("axe.min.js")).read_text(encoding="utf-8")


# --- Backups on the server ---


@pytest.mark.parametrize(("size", "script"), [("phone", True), ("wide", False)], ids=["script", "no script"])
def test_a_backup_that_is_kept_on_the_server(visit, family, size, script):
    """Made, pinned, previewed and restored, and deleted after a question; never downloaded."""
    then = snapshot()
    page = visit(SIZES[size], script=script)
    page.fill("#id_label", "before the holidays")
    page.click("text=Keep a backup on the server")
    page.wait_for_selector(".alert-success:has-text('kept on the server')")
    entry = page.locator("li", has_text="before the holidays")
    entry.get_by_role("button", name="Pin", exact=True).click()
    page.wait_for_selector("text=This backup is pinned")
    assert entry.get_by_role("button", name="Unpin").is_visible()
    Child.objects.create(first_name="New", last_name="Baby", birth_date="2026-03-01")
    page.reload()
    assert "Children +1" in entry.inner_text()
    if script:
        assert fits(page)
        keep(page, f"kept {size}")
        check(page, "kept backups")
    entry.get_by_role("button", name="Preview and restore").click()
    page.wait_for_selector("#records-title")
    page.click("form[action$='/confirm/'] [type=submit]")
    page.check("#confirmed")
    page.click("form[action$='/confirm/'] .btn-danger")
    page.wait_for_selector(".alert-success")
    assert not differences(then["core.child"], snapshot()["core.child"])
    page.goto("/backup/")
    assert not entry.get_by_role("button", name="Delete permanently").is_visible()
    entry.locator("summary").click()
    entry.get_by_role("button", name="Delete permanently").click()
    page.wait_for_selector("text=The backup is deleted")
    assert entry.count() == 0


# --- How far it is ---


def test_progress_of_a_restore(page, saved, family):
    """Steps and counts, while the answer is waited for; the numbers come from another process, by a file."""
    preview(page, saved)
    held = []
    page.route("**/confirm/", lambda route: held.append(route))
    upload = page.get_attribute("form[data-follow] [name=upload]", "value")
    state.save_progress(upload, family.admin, {"phase": "write", "done": 1204, "total": 5000})
    page.click("text=Confirm Restore")
    page.wait_for_selector("#restoring-text:has-text('Step 3 of 4: Writing the records, 1,204 of 5,000')")
    assert page.evaluate("document.activeElement.id") == "restoring"
    assert page.inner_text("#restoring-step") == "Writing the records", "which is what is read out"
    assert page.inner_text("h1") == "Your backup is being restored"
    assert not page.is_visible("text=Preview with existing data cleared")
    assert page.eval_on_selector("#restoring-bar", "bar => bar.position") == pytest.approx(0.2408)
    check(page, "progress")
    keep(page, "restoring")
    held[0].continue_()
    page.wait_for_selector("h1:has-text('Your data is back')")


def test_a_proxy_that_has_no_patience(page, saved):
    preview(page, saved)

    def too_late(route):
        route.fetch()
        route.fulfill(status=504, body="<h1>504 Gateway Time-out</h1>")

    page.route("**/confirm/", too_late)
    page.click("text=Confirm Restore")
    page.wait_for_selector("h1:has-text('Your data is back')")


def test_the_result_comes_like_any_page(page, saved):
    """It takes the place of the page that waited: whoever listens is told its heading, once it looks as it should."""
    preview(page, saved)
    page.route("**/*.css", lambda route: (time.sleep(0.5), route.continue_()))
    page.click("text=Confirm Restore")
    page.wait_for_selector("h1:has-text('Your data is back')")
    assert fits(page)
    assert page.evaluate("document.activeElement.textContent") == "Your data is back"


def test_offline_at_confirm(page, saved):
    """It says that nothing was changed; back online the same button works."""
    preview(page, saved)
    before = snapshot()
    page.context.set_offline(True)
    page.click("text=Confirm Restore")
    page.wait_for_selector("#restoring-failed:has-text('Nothing was changed')")
    assert "continues" not in page.inner_text("#backup-page")
    assert fits(page)
    keep(page, "offline")
    assert not differences(before, snapshot())
    page.context.set_offline(False)
    page.wait_for_selector("#restoring-failed", state="hidden")
    page.click("text=Confirm Restore")
    page.wait_for_selector("h1:has-text('Your data is back')")


@pytest.mark.slow
def test_a_server_that_is_gone_at_confirm(page, saved):
    preview(page, saved)
    page.route("**/confirm/", lambda route: route.abort())
    page.route("**/backup/restore/*/", lambda route: route.abort())
    page.click("text=Confirm Restore")
    page.wait_for_selector("#restoring-text:has-text('nothing was changed')")
    assert "continues" not in page.inner_text("#backup-page")
    page.unroute("**/backup/restore/*/")
    page.wait_for_selector(".alert-warning:has-text('Nothing was changed')")


def test_a_session_that_expired_at_confirm(page, saved):
    preview(page, saved)
    before = snapshot()
    page.context.clear_cookies()
    page.click("text=Confirm Restore")
    page.wait_for_selector("#restoring-failed:has-text('Nothing was changed')")
    assert "continues" not in page.inner_text("#backup-page")
    assert page.inner_text("h1") == "What this backup would do"
    assert not differences(before, snapshot())
    page.reload()
    page.wait_for_url("**/login/**")
    page.fill("[name=username]", "admin")
    page.fill("[name=password]", "admin")
    page.press("[name=password]", "Enter")
    page.wait_for_selector("h1:has-text('What this backup would do')")
    page.click("text=Confirm Restore")
    page.wait_for_selector("h1:has-text('Your data is back')")


def test_back_and_reload_ask_nothing(page, saved):
    """No page is the answer to a form, which a browser would ask to send again."""
    preview(page, saved, clear=True)
    page.reload()
    page.wait_for_selector("h1:has-text('What this backup would do')")
    page.click("text=Continue")
    page.wait_for_selector("#confirmed")
    page.go_back()
    page.wait_for_selector("h1:has-text('What this backup would do')")
    page.click("text=Cancel")
    page.wait_for_url("**/backup/")
    page.go_back()
    page.wait_for_selector("text=Nothing was changed")
    assert "continues" not in page.inner_text("#backup-page")


def test_back_to_a_file_that_was_wrong_asks_nothing(page, saved, tmp_path):
    """Its error is the answer to a form; the browser need not know."""
    (tmp_path / "photo.jpg").write_bytes(b"hello")
    for path, found in [(tmp_path / "photo.jpg", "#backup-file-error"), (saved, "h1:has-text('would do')")]:
        page.set_input_files("#id_backup_file", path)
        page.click("text=Upload and Preview")
        page.wait_for_selector(found)
    page.go_back()
    page.wait_for_selector("text=Download Backup")
    assert page.url.endswith("/backup/")
    page.reload()
    assert not page.query_selector("#backup-file-error")


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_a_page_that_was_left_and_comes_back(visit, family, script):
    upload = uploads.new_id(family.admin)
    state.save_progress(upload, family.admin, {"phase": "copy"})
    page = visit(script=script)
    page.click("a[href*='/backup/restore/']")
    assert "Step 2 of 4" in page.inner_text("#restoring-text")
    if script:
        assert page.inner_text("#restoring-step") == "Making a safety copy of what is here now"
        check(page, "a restore that runs")
    result = {"restored": {"core.child": 2}, "records": 2, "warnings": [], "safety_copy": "a"}
    state.save_progress(upload, family.admin, {"result": result, "undone": False})
    page.wait_for_selector(".alert-success")


def test_what_is_not_right_with_a_download_is_said_at_once(page, family):
    """The page stays when the file comes."""
    note = Note.objects.create(child=family.children[0], note="lost")
    with unchecked() as cursor:
        cursor.execute("UPDATE core_note SET child_id = 9999 WHERE id = %s", [note.pk])
    page.goto("/backup/")
    assert "Nobody has downloaded a backup yet." in page.inner_text("#last-backup")
    with page.expect_download() as download:
        page.click("text=Download Backup")
    download.value.path()
    page.wait_for_selector("#last-backup .alert")
    assert f"Note No. {note.pk}, field child" in page.inner_text("#last-backup")
    assert "Last download: " in page.inner_text("#last-backup")
    assert fits(page)


def test_a_file_can_be_dropped(page, family):
    page.evaluate(
        """() => {
            const data = new DataTransfer();
            data.items.add(new File(["x"], "dropped.zip"));
            const options = {dataTransfer: data, bubbles: true, cancelable: true};
            document.getElementById("clear-help").dispatchEvent(new DragEvent("drop", options));
        }"""
    )
    assert page.eval_on_selector("#id_backup_file", "input => input.files[0].name") == "dropped.zip"


def test_a_conflict_says_what_clashes_and_what_to_do(page, family, tmp_path):
    tag = Tag.objects.create(name="Night", slug="night")
    path = tmp_path / "night.zip"
    with path.open("wb") as file:
        services.create_backup(file)
    Tag.objects.filter(pk=tag.pk).update(name="Nap")
    Tag.objects.create(name="Night", slug="night_1")
    preview(page, path)
    said = page.inner_text(".alert-danger")
    for text in ("Tag Night", "Nap", "by its Slug", "What to do:"):
        assert text in said
    assert fits(page)
    check(page, "conflict")
    keep(page, "conflict")
    page.click("a:has-text('Preview with existing data cleared')")
    page.wait_for_selector("text=Continue")


def test_an_error_is_a_page(page, family):
    page.goto("/backup/restore/confirm/")
    check(page, "error")
    keep(page, "error")
    page.click("#backup-page a.btn")
    page.wait_for_url("**/backup/")


# --- Other ways to use it ---


def test_where_the_menu_of_the_host_fails_a_page_fits_a_phone(page, family, saved, client, monkeypatch):
    page.set_viewport_size(PHONE)
    with saved.open("rb") as file:
        name = services.restore_backup(file, RestoreOptions()).safety_copy
    monkeypatch.setattr(babybuddy, "PAGE_TEMPLATE", "missing.html")
    client.force_login(family.admin)
    page.set_content(client.get("/backup/").content.decode())
    assert not page.query_selector(".navbar")
    page.evaluate("document.querySelectorAll('details').forEach(element => element.open = true)")
    assert name in page.inner_text("body")
    assert fits(page)


def test_a_message_that_names_a_file_fits_a_phone(page, family, client, settings, tmp_path):
    settings.BACKUP_SCHEDULE = "daily"
    settings.BACKUP_LOCATIONS = f"nas={tmp_path / 'nas'}"
    name = services.keep_backup().name
    (path,) = conf.root.rglob(name)
    os.truncate(path, 100)
    copies.copy()
    client.force_login(family.admin)
    page.set_viewport_size({**PHONE, "width": 360})
    page.goto("/backup/")  # where its style sheets are
    page.set_content(client.get("/backup/").content.decode())
    state = page.get_by_role("region", name="The last backup failed")
    assert name in state.inner_text()
    assert page.evaluate("getComputedStyle(document.querySelector('.navbar')).display") == "flex"
    assert fits(page)


def test_by_keyboard(page, saved):
    """Everything that acts can be reached with the Tab key, and has a name."""
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


@pytest.mark.parametrize(
    ("path", "status"), [("upload/", 201), ("download/", 405), ("locations/nothing/test/", 404)]
)
def test_staff_who_send_nothing_do_not_keep_the_server_busy(server, family, path, status):
    """Where no body is wanted, nobody waits for one; and a body that was read keeps no connection from the next."""
    address, started = urllib.parse.urlsplit(server), time.monotonic()
    headers = {"Authorization": f"Token {token_key('admin')}", "Upload-Length": "10"}
    with contextlib.ExitStack() as stack:

        def connect():
            connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
            stack.callback(connection.close)
            return connection

        stalled = []
        for _ in range(12):
            connection = connect()
            connection.putrequest("POST", f"/backup/{path}")
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.putheader("Content-Type", "application/octet-stream")
            connection.putheader("Content-Length", "50000000")
            connection.endheaders()
            connection.send(b"x")  # and no more
            stalled.append(connection)
        assert {connection.getresponse().status for connection in stalled} == {status}
        connection = connect()
        file = '--x\r\nContent-Disposition: form-data; name="backup_file"; filename="a"\r\n\r\nb\r\n--x--\r\n'
        for kind, body in (
            ("application/x-www-form-urlencoded", "a=1"),
            ("multipart/form-data; boundary=x", file),
        ):
            for _ in range(2):
                connection.request("POST", "/backup/restore/", body, headers | {"Content-Type": kind})
                assert connection.getresponse().read()
                assert connection.sock is not None
    assert time.monotonic() - started < 8


def test_strangers_who_send_nothing_do_not_keep_the_server_busy(server, family):
    """Two workers with four threads each: whoever may not is answered before a body is read, and not waited for."""
    address = urllib.parse.urlsplit(server)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        stalled = []
        for number in range(12):
            connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
            stack.callback(connection.close)
            connection.putrequest("POST", "/backup/restore/confirm/")
            connection.putheader("Authorization", f"Token wrong{number}")
            connection.putheader("Content-Type", "multipart/form-data; boundary=x")
            connection.putheader("Content-Length", "50000000")
            connection.endheaders()
            connection.send(b"--x")  # and no more
            stalled.append(connection)
        for connection in stalled:
            assert connection.getresponse().status == 401
        answer = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
        stack.callback(answer.close)
        answer.request("GET", "/login/")
        assert answer.getresponse().status == 200
    assert time.monotonic() - started < 6, "each is waited for half a second"


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


def test_head_of_a_page_for_others_leaves_the_connection_usable(server, family):
    address = urllib.parse.urlsplit(server)
    client = Client()
    client.force_login(family.plain)
    headers = {"Cookie": f"sessionid={client.cookies['sessionid'].value}"}
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    for method in ("HEAD", "GET"):
        connection.request(method, "/backup/", headers=headers)
        response = connection.getresponse()
        assert response.status == 403
        assert bool(response.read()) == (method == "GET")
    connection.close()


# --- What comes back ---


@pytest.mark.parametrize(
    ("clear", "script"),
    [(True, True), (False, True), (True, False)],
    ids=["clear", "keep", "clear without script"],
)
def test_accounts_are_kept_by_choice(visit, family, saved, script, clear):
    get_user_model().objects.filter(username="joe").update(password="new")
    Feeding.objects.update(notes="changed")
    page = visit(script=script)
    page.set_input_files("#id_backup_file", saved)
    page.set_checked("#id_clear_existing_data", clear)
    page.click("#restore-form [type=submit]")
    page.wait_for_selector("#accounts")
    if script:
        assert fits(page)
        check(page, "accounts")
        keep(page, f"accounts {clear}")
    page.check("#accounts-keep")
    page.click("form[action$='/confirm/'] [type=submit]")
    if clear:
        page.wait_for_selector("#confirmed")
        if script:
            keep(page, "accounts question")
        page.check("#confirmed")
        page.click("form[action$='/confirm/'] .btn-danger")
    page.wait_for_selector(".alert-success")
    assert get_user_model().objects.get(username="joe").password == "new"
    assert not Feeding.objects.filter(notes="changed").exists()


def test_staff_restores_entries(page, family, saved):
    get_user_model().objects.filter(username="joe").update(password="new")
    Feeding.objects.update(notes="changed")
    family.staff.settings.language = "en-US"
    family.staff.settings.save()
    page.context.clear_cookies()
    sign_in(page, "grandma", PASSWORD)
    preview(page, saved)
    check(page, "staff")
    keep(page, "staff")
    page.click("text=Restore entries only")
    page.wait_for_selector("h1:has-text('Your data is back')")
    assert not Feeding.objects.filter(notes="changed").exists()


def test_parts_are_chosen(page, saved):
    get_user_model().objects.filter(username="joe").update(password="new")
    preview(page, saved)
    page.click("text=Choose what comes back")
    keep(page, "parts")
    page.uncheck("#part-accounts")
    page.click("text=Update preview")
    page.wait_for_selector("text=everything else here stays as it is")
    assert not page.is_visible("#accounts")
    assert fits(page)
    check(page, "parts")
    page.go_back()
    page.wait_for_selector("#accounts")


def test_the_result_can_be_gone_back_to_without_script(visit, family, saved):
    """Nor does a browser ask there whether to send a form again."""
    page = visit(script=False)
    page.set_input_files("#id_backup_file", saved)
    page.click("#restore-form [type=submit]")
    page.click("text=Confirm Restore")
    page.wait_for_selector("h1:has-text('Your data is back')")
    page.reload()
    page.goto("/backup/")
    page.go_back()
    page.wait_for_selector("h1:has-text('Your data is back')")
    page.check("#undo-sure")
    page.click("text=Undo this restore")
    page.wait_for_selector("h1:has-text('as it was before')")
    assert page.is_visible("text=Take the undo back")
    page.goto("/backup/")
    assert "is done" not in page.inner_text("#backup-page"), "it was seen"
    page.go_back()
    page.wait_for_selector("h1:has-text('as it was before')")


def test_a_session_that_is_another_one_at_confirm(page, saved):
    """It expired, and somebody signed in again beside this page."""
    preview(page, saved)
    before = snapshot()
    page.context.clear_cookies()
    other = page.context.new_page()
    sign_in(other)
    page.click("text=Confirm Restore")
    page.wait_for_selector("text=Nothing was changed")
    assert fits(page)
    assert not [line for line in differences(before, snapshot()) if "last_login" not in line]

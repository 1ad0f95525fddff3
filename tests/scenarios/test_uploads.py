"""Large files, in pieces: past web servers that take only small requests, and on after a break."""

import base64
import hashlib
import http.client
import io
import json
import re
import subprocess
import time
import urllib.parse
import zipfile
from pathlib import Path

import pytest
from core.models import Child
from django.test import Client

from backup import services
from backup.storage import files, uploads
from tests.scenarios.test_pages import check, fits, keep, loaded, sign_in
from tests.support.filling import token_key
from tests.support.http import PHONE, backup_bytes, error_of, script, signed_in, staged, url

PIECE = 900_000
LIMIT = 1024 * 1024


def large(size=3_000_000):
    """A backup with something beside it that a computer has put there, and that is passed over."""
    file = io.BytesIO()
    services.create_backup(file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("__MACOSX/._backup", hashlib.shake_128(b"").digest(size))
    return file.getvalue()


# --- For scripts ---


def begin(client, data, **headers):
    headers = {"Upload-Length": str(len(data)), **headers}
    return client.post(url("upload"), headers=headers, content_type="application/octet-stream")


def send(client, upload, offset, data, method="PATCH", **headers):
    return client.generic(
        method,
        url("upload_piece", upload),
        data,
        content_type="application/offset+octet-stream",
        headers={"Upload-Offset": str(offset), **headers},
    )


def test_a_script_sends_pieces_and_restores(family):
    """As the protocol tus says: what it asks for, and what it gets."""
    client, data = script(family.admin), large()
    Child.objects.create(first_name="New", last_name="Baby", birth_date="2026-03-01")
    digest = base64.b64encode(hashlib.sha256(data).hexdigest().encode()).decode()
    response = begin(client, data, **{"Upload-Metadata": f"filename YmFja3Vw,sha256 {digest}"})
    assert response.status_code == 201
    upload = response.json()["upload"]
    place = response["Location"]
    assert place == url("upload_piece", upload)
    for offset in range(0, len(data), PIECE):
        piece = data[offset : offset + PIECE]
        checksum = f"sha256 {base64.b64encode(hashlib.sha256(piece).digest()).decode()}"
        response = send(client, upload, offset, piece, **{"Upload-Checksum": checksum})
        assert response.status_code == 204
        end = str(offset + len(piece))
        assert (response["Upload-Offset"], response["Tus-Resumable"]) == (end, "1.0.0")
        head = client.head(place)
        assert (head["Upload-Offset"], head["Upload-Length"]) == (end, str(len(data)))
        assert "no-store" in head["Cache-Control"]
        assert client.get(place).json() == {"upload": upload, "size": len(data), "offset": int(end)}
    assert client.post(url("restore"), {"upload": upload}).json()["changes"]
    result = client.post(url("confirm"), {"upload": upload, "clear_existing_data": "true"}).json()
    assert result["records"] > 100
    assert not Child.objects.filter(first_name="New").exists()
    assert not staged(), "used"
    assert client.post(url("confirm"), {"upload": upload, "clear_existing_data": "true"}).status_code == 409


def test_pieces_that_are_wrong(family, settings):
    client, data = script(family.admin), large(200_000)
    upload = begin(client, data).json()["upload"]
    wrong = {"Upload-Checksum": f"sha256 {base64.b64encode(bytes(32)).decode()}"}
    for offset, piece, headers, status, code in [
        (1, data[1:100_000], {}, 409, "wrong_offset"),
        ("x", data[:100_000], {}, 400, "invalid_backup"),
        (-1, data[:100_000], {}, 400, "invalid_backup"),
        (0, data + b"more", {}, 413, "too_large"),
        (0, data[:100], {}, 400, "invalid_backup"),
        (0, data[:100_000], wrong, 400, "wrong_checksum"),
        (0, data[:100_000], {"Upload-Checksum": "crc32 AAAA"}, 400, "invalid_backup"),
    ]:
        response = send(client, upload, offset, piece, **headers)
        assert (response.status_code, error_of(response)["code"]) == (status, code)
    assert client.get(url("upload_piece", upload)).json()["offset"] == 0
    response = client.post(url("restore"), {"upload": upload})
    assert (response.status_code, error_of(response)["code"]) == (409, "incomplete")
    assert "Please send the rest first" in error_of(response)["message"]
    assert send(client, upload, 0, data, method="POST").status_code == 204
    assert client.delete(url("upload_piece", upload)).status_code == 204
    assert not staged()
    assert send(client, upload, 0, data).status_code == 404
    for headers in ({"Upload-Length": "x"}, {"Upload-Length": "0"}, {"Upload-Length": ""}):
        assert begin(client, data, **headers).status_code == 400
    for value in ("!", "é", "", "AAAA", "AAAA é"):
        refused = begin(client, data, **{"Upload-Metadata": f"sha256 {value}"})
        assert refused.status_code == 400
        assert "sha1" not in refused.json()["error"]["message"]
    settings.BACKUP_MAX_UPLOAD_SIZE = len(data) - 1
    response = begin(client, data)
    assert (response.status_code, error_of(response)["code"]) == (413, "too_large")


def test_pieces_need_rights_and_csrf(family):
    data = large(100_000)
    upload = begin(script(family.admin), data).json()["upload"]
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(family.admin)
    for method in ("PATCH", "POST", "DELETE"):
        assert send(browser, upload, 0, data, method=method, Accept="application/json").status_code == 403
        assert send(Client(), upload, 0, data, method=method, Accept="application/json").status_code == 401
        assert send(script(family.staff), upload, 0, data, method=method).status_code == 404, "another's"
        assert send(script(family.plain), upload, 0, data, method=method).status_code == 403
    assert client_offset(script(family.admin), upload) == 0


def client_offset(client, upload):
    return client.get(url("upload_piece", upload)).json()["offset"]


def test_the_lines_of_the_documentation(server, family, tmp_path):
    """As they stand there."""
    text = Path(__file__).parents[2].joinpath("docs/operations.md").read_text(encoding="utf-8")
    (lines,) = (
        block for block in re.findall(r"```shell\n(.*?)```", text, re.DOTALL) if "Upload-Offset" in block
    )
    data = large(2_000_000)
    tmp_path.joinpath("backup_112326_143022.zip").write_bytes(data)
    Child.objects.update(last_name="Other")
    lines = lines.replace("https://baby.example.com", server).replace("YOUR_TOKEN", token_key("admin"))
    done = subprocess.run(["sh", "-c", lines], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["records"] > 100, done
    assert not Child.objects.filter(last_name="Other").exists()


def test_a_body_that_breaks_off_counts_as_far_as_it_came(server, family):
    """From a client that sends all at once: it goes on from there."""
    data = large()
    address = urllib.parse.urlsplit(server)
    key = {"Authorization": f"Token {token_key('admin')}"}
    upload = uploads.begin(len(data), family.admin)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.putrequest("PATCH", url("upload_piece", upload))
    headers = {
        "Content-Type": "application/offset+octet-stream",
        "Upload-Offset": 0,
        "Content-Length": len(data),
    }
    for name, value in (key | headers).items():
        connection.putheader(name, str(value))
    connection.endheaders()
    connection.send(data[:1_000_000])
    connection.close()
    until = time.monotonic() + 20
    while uploads.incoming(upload, family.admin).offset == 0 and time.monotonic() < until:
        time.sleep(0.1)
    offset = uploads.incoming(upload, family.admin).offset
    assert offset == 1_000_000
    uploads.add_piece(upload, family.admin, offset, io.BytesIO(data[offset:]))
    with uploads.open_staged(upload, family.admin) as whole:
        assert whole.read() == data


# --- On the page ---


@pytest.fixture
def file(family, tmp_path):
    path = tmp_path / "holidays.zip"
    path.write_bytes(large())
    return path


class Wire:
    """What passes between the page and the server. `pieces`: where each began; `answer`: what happens to the next."""

    def __init__(self, page):
        self.pieces, self.answer = [], None
        page.route("**/upload/*/", self._pass_on)

    def _pass_on(self, route):
        offset = route.request.headers.get("upload-offset")
        if offset is None:
            return route.continue_()
        if self.answer and self.answer(route, int(offset)):
            return None
        self.pieces.append(int(offset))
        return route.continue_()


@pytest.fixture
def hurried(chromium, server, family):
    """The page, in a window of its own, whose clock `time_passes` moves on."""
    context = chromium.new_context(base_url=server, viewport=PHONE)
    signed_in(context, server, family.admin)
    page = context.new_page()
    page.clock.install()
    page.goto("/backup/")
    yield page
    context.close()


def time_passes(page, selector):
    """Until that is to be seen."""
    for _ in range(90):
        page.clock.run_for(1000)
        if page.is_visible(selector):
            return


def send_by_page(page, file):
    page.set_input_files("#id_backup_file", file)
    page.click("#restore-form [type=submit]")


def arrives(page):
    page.wait_for_selector("#records-title", timeout=60_000)
    assert not page.query_selector("#upload-failed:visible")


def test_a_file_larger_than_a_proxy_takes(page, file):
    """It goes in pieces that fit through nginx as it comes; and in smaller ones, where that is not enough."""
    wire = Wire(page)
    for limit in (LIMIT, 300_000):
        wire.pieces.clear()

        def proxy(route, _offset, limit=limit):
            if len(route.request.post_data_buffer) <= limit:
                return False
            route.fulfill(status=413, body="<h1>413 Request Entity Too Large</h1>")
            return True

        wire.answer = proxy
        page.goto("/backup/")
        send_by_page(page, file)
        arrives(page)
        steps = [after - before for before, after in zip(wire.pieces, wire.pieces[1:], strict=False)]
        assert all(step == (PIECE if limit == LIMIT else 225_000) for step in steps)


def test_no_request_waits_for_ever(page, file):
    """And none pretends to be another than it is, which some servers take for an attack."""
    page.add_init_script(
        """window.timeouts = [];
        const send = XMLHttpRequest.prototype.send;
        XMLHttpRequest.prototype.send = function (body) { timeouts.push(this.timeout); send.call(this, body); };"""
    )
    page.goto("/backup/")
    wire, headers = Wire(page), []
    page.on("request", lambda request: headers.extend(request.headers))
    wire.answer = lambda _route, offset: offset >= 2 * PIECE  # never answered
    send_by_page(page, file)
    page.wait_for_function("timeouts.length === 4")  # it begins, and three pieces
    timeouts = page.evaluate("timeouts")
    page.reload()
    page.wait_for_selector("#uploading-unfinished:visible")
    assert all([*timeouts, *page.evaluate("timeouts")])
    assert "x-http-method-override" not in headers


def test_a_proxy_that_takes_next_to_nothing(hurried, file):
    page = hurried
    Wire(page).answer = lambda route, _: route.fulfill(status=413, body="<h1>413</h1>") or True
    send_by_page(page, file)
    time_passes(page, "#upload-failed")
    assert "client_max_body_size" in page.inner_text("#upload-failed")
    assert page.is_enabled("#restore-form [type=submit]"), "it can be tried again"
    assert page.evaluate("document.activeElement.matches('#restore-form [type=submit]')")


def test_a_connection_that_is_lost_in_the_middle(page, file):
    """It waits, and goes on by itself from where it was."""
    wire = Wire(page)
    wire.answer = lambda route, offset: offset >= 2 * PIECE and (route.abort() or True)
    send_by_page(page, file)
    page.wait_for_selector("#uploading-text:has-text('59% have arrived')")
    assert "no connection" in page.inner_text("#uploading-step")
    assert fits(page)
    check(page, "waiting")
    keep(page, "upload-waiting")
    wire.answer = None
    arrives(page)
    assert wire.pieces[:3] == [0, PIECE, 2 * PIECE]
    assert len({*wire.pieces}) == len(wire.pieces), "nothing was sent twice"


def test_a_page_that_is_reloaded_goes_on(page, file, tmp_path):
    wire = Wire(page)
    wire.answer = lambda _route, offset: offset >= 2 * PIECE  # never answered
    send_by_page(page, file)
    page.wait_for_selector("#uploading-text:has-text('59%')")
    page.reload()
    page.wait_for_selector("#uploading-unfinished:has-text('59% of “holidays.zip”')")
    assert fits(page)
    check(page, "unfinished")
    keep(page, "upload-unfinished")
    wire.answer = None
    send_by_page(page, file)
    arrives(page)
    assert wire.pieces == [0, PIECE, 2 * PIECE, 3 * PIECE]
    page.goto("/backup/")
    loaded(page)
    assert not page.is_visible("#uploading-unfinished"), "it is finished"


def test_another_file_begins_anew(page, file, tmp_path):
    wire = Wire(page)
    wire.answer = lambda _route, offset: offset >= PIECE
    send_by_page(page, file)
    page.wait_for_selector("#uploading-text:has-text('29%')")
    page.reload()
    wire.answer = None
    wire.pieces.clear()
    other = tmp_path / "other.zip"
    other.write_bytes(large(1_000_000))
    send_by_page(page, other)
    arrives(page)
    assert wire.pieces == [0, PIECE]


def test_an_upload_is_cancelled(page, file):
    Wire(page).answer = lambda _route, offset: offset >= PIECE
    send_by_page(page, file)
    page.wait_for_selector("#uploading-text:has-text('29%')")
    check(page, "uploading")
    keep(page, "uploading")
    page.click("text=Cancel the upload")
    page.wait_for_selector("#upload-failed:has-text('Nothing was changed')")
    assert page.is_enabled("#restore-form [type=submit]")
    until = time.monotonic() + 10
    while staged() and time.monotonic() < until:
        time.sleep(0.1)
    assert not staged()
    page.reload()
    loaded(page)
    assert not page.is_visible("#uploading-unfinished")


def test_what_the_server_keeps_is_gone(page, file):
    """It expired, say: the page sends all of it anew, and does not ask."""
    wire = Wire(page)

    def deleted(_route, offset):
        if offset == 2 * PIECE and wire.pieces.count(0) == 1:
            for name in files.names_in("staged"):
                files.delete(name)

    wire.answer = deleted
    send_by_page(page, file)
    arrives(page)
    assert wire.pieces == [0, PIECE, 2 * PIECE, 0, PIECE, 2 * PIECE, 3 * PIECE]


def test_answers_that_are_wrong(hurried, file):
    """Of a proxy that fails: tried again some times, then said."""
    page, wire = hurried, Wire(hurried)
    wire.answer = lambda route, _: route.fulfill(status=502, body="<h1>502</h1>") or True
    send_by_page(page, file)
    time_passes(page, "#upload-failed")
    assert "does not answer as it should" in page.inner_text("#upload-failed")
    wire.answer = None
    page.click("#restore-form [type=submit]")
    arrives(page)


def test_an_error_of_ours_is_said(page, file):
    page.route(
        "**/upload/",
        lambda route: route.fulfill(
            status=507,
            json={"error": {"message": "The disk is full.", "details": [], "code": "storage_failed"}},
        ),
    )
    send_by_page(page, file)
    page.wait_for_selector("#upload-failed:has-text('The disk is full.')")


def test_a_session_that_ended_meanwhile(page, file):
    wire = Wire(page)

    def end(_route, offset):
        if offset == PIECE:
            page.context.clear_cookies()

    wire.answer = end
    send_by_page(page, file)
    page.wait_for_selector("#upload-failed:has-text('no longer signed in')")
    wire.answer = None
    wire.pieces.clear()
    sign_in(page)
    send_by_page(page, file)
    arrives(page)
    assert wire.pieces == [PIECE, 2 * PIECE, 3 * PIECE], "it goes on where it was"


def test_a_small_file_and_a_wrong_one(page, tmp_path):
    """All go the same way."""
    for data, found in [(b"hello", "#backup-file-error"), (backup_bytes(), "#records-title")]:
        path = tmp_path / "small.zip"
        path.write_bytes(data)
        send_by_page(page, path)
        page.wait_for_selector(found)

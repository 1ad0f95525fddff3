"""Who gets in, by which way, and what is written down of it: by proxies, from other sites, by files and by names."""

import json
import re

import pytest
from core.models import Feeding
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, connections
from django.test import Client
from django.urls import set_script_prefix

from backup import access, services
from backup.conf import conf
from backup.database import Database, database_of
from backup.exceptions import BackupError, Busy
from backup.storage import kept
from tests.support.backups import how, rewritten, take
from tests.support.filling import PASSWORD, token_key
from tests.support.http import backup_bytes, error_of, hidden, script, staged, upload, url
from tests.support.snapshots import differences, snapshot

pytestmark = pytest.mark.usefixtures("family")


# --- Behind a proxy that signs people in ------------------------------------------------------------------


@pytest.fixture
def proxy(settings):
    """REVERSE_PROXY_AUTH, as the host sets it up."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "babybuddy.middleware.CustomRemoteUser"]
    settings.AUTHENTICATION_BACKENDS = [
        *settings.AUTHENTICATION_BACKENDS,
        "django.contrib.auth.backends.RemoteUserBackend",
    ]


def through_proxy(user, **options):
    return Client(headers={"Remote-User": user}, **options)


def test_proxy_names_who_it_is(proxy, family):
    assert through_proxy("admin").get(url("index")).status_code == 200
    assert through_proxy("joe").get(url("index")).status_code == 403
    assert through_proxy("somebody new").get(url("index")).status_code == 403
    assert Client().get(url("index")).status_code == 302


def test_proxy_browser_restores(proxy, family):
    before = snapshot()
    client = through_proxy("admin", enforce_csrf_checks=True)
    page = client.get(url("index")).content.decode()
    token = {"csrfmiddlewaretoken": re.search(r'csrfmiddlewaretoken" value="(\w+)"', page)[1]}
    data = backup_bytes()
    Feeding.objects.all().delete()
    assert client.post(url("confirm"), {"backup_file": upload(data)}).status_code == 403, "CSRF counts"
    preview = client.post(
        url("restore"), {"backup_file": upload(data), "clear_existing_data": "1", **token}, follow=True
    )
    assert (
        client.post(
            url("confirm"), {**hidden(preview, "confirm"), **token, "confirmed": "yes"}, follow=True
        ).status_code
        == 200
    )
    after = snapshot()
    for users in (before["auth.user"], after["auth.user"]):
        for row in users.values():
            row["last_login"] = None  # the proxy signs in, and the backup was taken after
    assert not differences(before, after)


def test_proxy_and_tokens(proxy, family):
    """The token decides, whomever the proxy names, and where it names nobody."""
    headers = {"Authorization": f"Token {token_key('admin')}"}
    assert Client(headers=headers).get(url("index")).status_code == 200
    assert Client(headers={**headers, "Remote-User": "joe"}).get(url("index")).status_code == 200
    wrong = {"Authorization": "Token wrong", "Remote-User": "admin"}
    assert Client(headers=wrong).get(url("index")).status_code == 401
    weak = {"Authorization": f"Token {token_key('joe')}", "Remote-User": "admin"}
    assert Client(headers=weak).get(url("index")).status_code == 403


def test_a_program_is_told_that_the_database_does_not_answer(family, log):
    """It cannot be asked whose token that is. The reason may name the server, which is nothing for strangers, so it is
    logged."""

    def fail(*args):
        raise OperationalError("connection to db.example.com refused")

    with connection.execute_wrapper(fail):
        answer = script(family.admin).get(url("status"))
    assert (answer.status_code, answer["Retry-After"]) == (503, "60")
    assert error_of(answer)["code"] == "unavailable"
    assert "example" not in answer.content.decode()
    assert "connection to db.example.com refused" in log()[0]


@pytest.mark.parametrize("name", ["authtoken_token", "auth_user"])
def test_a_program_is_told_that_the_database_is_damaged(family, log, name):
    """It is not down: to try again later is no help."""
    client = script(family.admin)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {name} RENAME TO gone")
        try:
            answers = [client.get(url("status")), client.post(url("confirm"), {"kept": "x"})]
        finally:
            cursor.execute(f"ALTER TABLE gone RENAME TO {name}")
    for answer in answers:
        error = error_of(answer)
        assert (answer.status_code, error["code"], "offer" in error) == (409, "damaged", False)
        assert "manage.py restore" in error["message"]
        assert "Retry-After" not in answer
    assert name in log()[0]


@pytest.fixture
def lost_after_sign_in(monkeypatch):
    """From the moment on at which somebody was found to be allowed, the database does not answer. Clear it to go on."""
    kind, lost = type(connections[DEFAULT_DB_ALIAS]), []
    create_cursor, is_allowed = kind.create_cursor, access.is_allowed

    def cursor(self, *args, **options):
        if lost:
            raise self.Database.OperationalError("connection refused")
        return create_cursor(self, *args, **options)

    def lose(user):
        lost.append(user)
        return is_allowed(user)

    monkeypatch.setattr(kind, "create_cursor", cursor)
    monkeypatch.setattr(access, "is_allowed", lose)
    yield lost
    lost.clear()


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_the_database_goes_away_after_sign_in(family, lost_after_sign_in, accept):
    """Whatever was asked for, the answer says so."""
    data = backup_bytes()
    client = Client(headers={"Accept": accept})
    client.force_login(family.admin)
    client.get("/login/")  # the host changes the session once in a while, and could not save it
    forms = {"confirm": {"backup_file": upload(data)}, "run": {}}
    for name in ("index", "download", *forms):
        lost_after_sign_in.clear()
        answer = client.post(url(name), forms[name]) if name in forms else client.get(url(name))
        if name == "index" and answer.status_code == 200:
            continue  # it shows the rest
        assert answer.status_code in (503, 507, 409), name  # a job says what it could not do, and why
        assert "The database" in answer.content.decode()
        assert ("Retry-After" in answer) == (answer.status_code == 503)


@pytest.mark.parametrize("space", ["\xa0", "\x85", "\x1c", ",", ""])
def test_what_is_no_token(family, space):
    """Only what REST framework takes for a token is one: what else a text may have between words is none there."""
    key = token_key("admin")
    client = Client(headers={"Authorization": f"Token{space}{key}"})
    assert client.get(url("index")).status_code == 302
    assert (
        client.post(url("confirm"), {"kept": "x"}, headers={"Accept": "application/json"}).status_code == 401
    )
    browser = Client(headers={"Authorization": f"Token{space}{key}"}, enforce_csrf_checks=True)
    browser.force_login(family.admin)
    assert browser.get(url("index")).status_code == 200
    assert browser.post(url("run")).status_code == 403


def test_a_form_in_a_charset_of_no_texts(family):
    client = Client(headers={"Authorization": f"Token {token_key('admin')}"})
    body = b'--b\r\nContent-Disposition: form-data; name="kept"\r\n\r\nxx\r\n--b--\r\n'
    for kind in ("multipart/form-data; boundary=b", "application/x-www-form-urlencoded"):
        answer = client.generic("POST", url("restore"), body, content_type=f"{kind}; charset=hex")
        assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_backup")


def test_no_proxy_no_header(family):
    """Without the setting, whoever sends the header is nobody."""
    assert through_proxy("admin").get(url("index")).status_code == 302


# --- Behind Home Assistant's ingress ----------------------------------------------------------------------

INGRESS = "/api/hassio_ingress/abc"


@pytest.fixture
def ingress(settings):
    settings.ENABLE_HOME_ASSISTANT_SUPPORT = True
    yield {"X-Hass-Source": "core.ingress", "X-Ingress-Path": INGRESS}
    set_script_prefix("/")  # the host's middleware leaves its own


def test_ingress_pages_lead_to_ingress(ingress, family):
    client = Client(headers=ingress)
    client.force_login(family.admin)
    before = snapshot()
    page = client.get("/backup/")
    assert page.status_code == 200
    for name in ("restore", "download"):
        assert f'"{INGRESS}/backup/{name}/"' in page.content.decode()
    data = backup_bytes()
    Feeding.objects.all().delete()
    answer = client.post("/backup/restore/", {"backup_file": upload(data), "clear_existing_data": "1"})
    assert answer.url.startswith(f"{INGRESS}/backup/restore/preview/")
    preview = client.get(answer.url.removeprefix(INGRESS))
    form = (
        preview.content.decode().split(f'action="{INGRESS}/backup/restore/confirm/"')[1].split("</form>")[0]
    )
    fields = dict(re.findall(r'type="hidden" name="(upload|clear_existing_data)" value="([^"]*)"', form))
    answer = client.post("/backup/restore/confirm/", {**fields, "confirmed": "yes"})
    result = client.get(answer.url.removeprefix(INGRESS))
    assert f'action="{INGRESS}/backup/undo/"' in result.content.decode()
    assert not differences(before, snapshot())
    response = client.get(f"/backup/kept/{kept.backups()[0].name}/")
    assert not response.streaming
    response = client.post(f"/backup/kept/{kept.backups()[0].name}/delete/")
    assert response["Location"].startswith(f"{INGRESS}/backup/")


def test_ingress_and_tokens(ingress, family):
    """By the mapped port, so without ingress; and where ingress lets one through."""
    token = {"Authorization": f"Token {token_key('admin')}"}
    for headers in (token, {**ingress, **token}):
        client = Client(headers=headers)
        assert client.get("/backup/").json()["backups"] == []
        response = client.post("/backup/restore/", {"backup_file": upload()})
        assert response.status_code == 200
    assert Client(headers=ingress).get("/backup/").status_code == 302


# --- From other sites -------------------------------------------------------------------------------------


def cors(response):
    return [name for name in response.headers if name.startswith("Access-Control-")]


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_no_other_site_gets_in(family, origin):
    """A browser that is signed in here, on a page of somebody else's."""
    client = Client(enforce_csrf_checks=True, headers={"Origin": origin})
    client.force_login(family.admin)
    before = snapshot()
    for name in ("index", "download", "kept"):
        response = client.get(url(name))
        assert response.status_code == 403
        assert error_of(response)["code"] == "other_site"
        assert not cors(response)
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for name in ("restore", "confirm", "undo", "cancel", "kept_delete"):
        assert not cors(client.options(url(name), headers=preflight))
        for content_type in ("text/plain", "application/json", "application/x-www-form-urlencoded"):
            response = client.generic("POST", url(name), b"{}", content_type=content_type)
            assert response.status_code == 403
            assert not cors(response)
    assert not differences(before, snapshot())


def test_a_site_that_may_read_the_api_does_not_read_backups(family, settings):
    """With the cookies of who is signed in. With a token of its own it may: it could do so without a browser."""
    settings.CORS_ALLOWED_ORIGINS = ["https://wall.example"]
    settings.CORS_ALLOW_CREDENTIALS = True
    client = Client(headers={"Origin": "https://wall.example"})
    client.force_login(family.admin)
    for name in ("index", "download"):
        assert client.get(url(name)).status_code == 403
    headers = {"Origin": "https://wall.example", "Authorization": f"Token {token_key('admin')}"}
    assert Client(headers=headers).get(url("index")).status_code == 200


def test_our_own_site_is_no_other(family, settings):
    settings.CSRF_TRUSTED_ORIGINS = ["https://*.family.example"]
    for origin in ("http://testserver", "https://baby.family.example"):
        client = Client(headers={"Origin": origin})
        client.force_login(family.admin)
        assert client.get(url("index")).status_code == 200


def test_a_token_of_one_is_not_the_session_of_another(browser):
    """A wrong token is no way around CSRF by way of the session that comes along."""
    response = browser.post(url("undo"), headers={"Authorization": "Token wrong"})
    assert response.status_code == 401


def test_what_is_kept_has_no_address(family, browser):
    browser.post(url("restore"), {"backup_file": upload()}, follow=True)
    browser.post(url("confirm"), {"backup_file": upload()})
    (upload_file,) = staged()
    kept = [upload_file, *conf.root.glob("*/kept/*")]
    for file in kept:
        relative = file.relative_to(conf.root)
        for prefix in (
            "/",
            "/backup/",
            "/backup/kept/",
            "/backup/kept/../",
            "/static/",
            "/media/",
            "/backups/",
        ):
            for client in (Client(raise_request_exception=False), browser):
                browser.raise_request_exception = False  # a host may have no page for what is not there
                response = client.get(f"{prefix}{relative}")
                assert response.status_code in (301, 302, 404, 500), (prefix, relative)
                response.close()
    name = next(conf.root.glob("*/kept/*")).name
    assert Client().get(url("kept", name)).status_code == 302


# --- From a file ------------------------------------------------------------------------------------------

EVIL = '<script>alert("1")</script><img src=x onerror=alert(1)>{{ evil }}{% evil %}'
RED = "\x1b[31mred\r\nbackup INFO forged"


def evil_files():
    """Backups with EVIL and RED in one of the places that a page might show."""

    def record(change):
        return lambda records: change(records["core.feeding"][0])

    word = EVIL + RED
    for name in (
        "label",
        "instance",
        "created_by",
        "timezone",
        "babybuddy_version",
        "django_version",
        "database_engine",
    ):
        yield lambda name=name: rewritten(take(), None, lambda said: said.update({name: word}))
    yield lambda: rewritten(take(), None, lambda said: said.update(version=word))
    yield lambda: rewritten(take(), None, lambda said: said["migrations"].update({word: [word]}))
    yield lambda: rewritten(take(), None, lambda said: said["migrations"]["core"].append(word))
    yield lambda: rewritten(take(), lambda records: records.update({f"x.{word}": []}))
    yield lambda: rewritten(take(), record(lambda r: r.update(model=word)))
    yield lambda: rewritten(take(), record(lambda r: r.update(pk=word)))
    yield lambda: rewritten(take(), record(lambda r: r["fields"].update({word: 1})))
    yield lambda: rewritten(take(), record(lambda r: r["fields"].update(amount=word)))
    yield lambda: rewritten(take(), record(lambda r: r["fields"].update(child=word)))
    yield lambda: rewritten(take(), record(lambda r: r["fields"].update(notes=word)))

    def conflict(records):
        tags = records["core.tag"]
        tags[0]["fields"]["name"] = tags[1]["fields"]["name"] = word

    yield lambda: rewritten(take(), conflict)
    yield lambda: rewritten(
        take(), lambda records: records["babybuddy.settings"][0]["fields"].update(timezone=word)
    )


def test_nothing_in_a_file_becomes_html_or_a_line_of_the_log(browser, caplog):
    caplog.set_level("INFO", "backup")
    for build in evil_files():
        data = build().getvalue()
        for name, clear in (("restore", "1"), ("confirm", "")):
            file = upload(data, name=f"{EVIL}.zip")
            response = browser.post(
                url(name), {"backup_file": file, "clear_existing_data": clear}, follow=True
            )
            page = response.content.decode()
            assert response.status_code in (200, 400, 409)
            assert "<script>alert(" not in page
            assert "<img src=x" not in page
        page = browser.get(url("index")).content.decode()
        assert "<script>alert(" not in page
    for record in caplog.records:
        line = record.getMessage()
        assert line.isprintable(), line
        assert "evil" not in line
        assert "forged" not in line


def test_no_name_of_a_user_becomes_html(family):
    """Who restored stands in the list of safety copies, and in the copies themselves."""
    get_user_model().objects.filter(pk=family.admin.pk).update(username=EVIL[:150])
    family.admin.refresh_from_db()
    client = Client()
    client.force_login(family.admin)
    assert client.post(url("confirm"), {"backup_file": upload()}).status_code == 200
    for response in (
        client.get(url("index")),
        client.post(url("restore"), {"backup_file": upload()}, follow=True),
    ):
        page = response.content.decode()
        assert "alert(&quot;1&quot;)" in page
        assert "<script>alert(" not in page


@pytest.mark.parametrize(
    "name", ["../../evil.zip", "/tmp/evil.zip", "..\\evil.zip", "evil\0.zip", "x" * 300 + ".zip"]
)
def test_the_name_of_an_upload_is_no_path(browser, name):
    response = browser.post(url("restore"), {"backup_file": upload(name=name)}, follow=True)
    assert response.status_code in (200, 400)
    for path in staged():
        assert re.fullmatch(r"[0-9a-f]{12}_[\w-]{32}\.zip", path.name)
    assert not list(conf.root.parent.rglob("*evil*"))


# --- The log ----------------------------------------------------------------------------------------------


@pytest.fixture
def log(caplog):
    """What was logged since it was asked last."""
    caplog.set_level("INFO", "backup")

    def lines():
        found = [r.getMessage() for r in caplog.records if r.name == "backup"]
        caplog.clear()
        return found

    return lines


def once(lines, pattern):
    assert len(lines) == 1, lines
    assert re.fullmatch(pattern, lines[0]), lines
    assert lines[0].isprintable()
    for secret in (token_key("admin"), PASSWORD, "pbkdf2", "sessionid"):
        assert secret not in lines[0]


SECONDS = r"\d+\.\d s"


def test_each_thing_is_logged_once(family, browser, log, tmp_path, settings):
    browser.get(url("download")).close()
    once(log(), rf"backup by 'admin': \d+ records, {SECONDS}")
    preview = browser.post(url("restore"), {"backup_file": upload()}, follow=True)
    assert len(log()) == 2  # `upload` takes a backup
    data = backup_bytes()
    log()
    browser.post(url("restore"), {"backup_file": upload(data)}, follow=True)
    once(log(), rf"preview by 'admin': \d+ records, {SECONDS}")
    browser.post(url("confirm"), hidden(preview, "confirm"))
    once(log(), rf"restore by 'admin': \d+ records, safety copy babybuddy_\S+\.zip, {SECONDS}")
    browser.post(url("undo"))
    once(log(), rf"undo by 'admin': \d+ records of babybuddy_\S+, safety copy babybuddy_\S+, {SECONDS}")
    settings.BACKUP_LOCATIONS = {"nas": str(tmp_path / "nas")}
    browser.post(url("test_location", "nas"))
    once(log(), rf"test of nas by 'admin': works, {SECONDS}")
    settings.BACKUP_LOCATIONS = {}
    name = kept.backups()[0].name
    browser.get(url("kept", name)).close()
    once(log(), rf"download of {name} by 'admin'")
    browser.post(url("kept_delete", name))
    once(log(), rf"deletion of {name} by 'admin'")
    path = tmp_path / "backup.zip"
    call_command("backup", output=str(path))
    once(log(), rf"backup by the command line: \d+ records, {SECONDS}")
    call_command("restore", str(path), "--dry-run")
    once(log(), rf"preview by the command line: \d+ records, {SECONDS}")
    call_command("restore", str(path), "--no-input")
    once(log(), r"restore by the command line: \d+ records, .*")
    for quiet in ("index", "restore"):
        browser.get(url(quiet))
    assert log() == []


def refusals(family, settings):
    """What is refused, and the line of it."""
    admin, joe, browser = script(family.admin), script(family.plain), Client(enforce_csrf_checks=True)
    browser.force_login(family.admin)
    data = backup_bytes()
    yield lambda: joe.get(url("download")), r"backup by 'joe' refused: not_allowed"
    yield lambda: joe.post(url("confirm")), r"restore by 'joe' refused: not_allowed"
    signed_in = Client()
    signed_in.force_login(family.plain)
    yield lambda: signed_in.get(url("index")), r"index by 'joe' refused: not_allowed"
    wrong = Client(headers={"Authorization": "Token wrong"})
    yield lambda: wrong.get(url("download")), r"backup by nobody known refused: not_signed_in"
    yield lambda: browser.post(url("undo")), r"undo by 'admin' refused: csrf"
    yield lambda: admin.post(url("restore")), r"preview by 'admin' refused: invalid"
    yield (
        lambda: admin.post(url("confirm"), {"backup_file": upload(data), "clear_existing_data": "flase"}),
        r"restore by 'admin' refused: invalid",
    )
    for view, what in (("restore", "preview"), ("confirm", "restore")):
        yield (
            lambda view=view: admin.post(url(view), {"backup_file": upload(b"no ZIP")}),
            rf"{what} by 'admin' refused: invalid_backup(, {SECONDS})?",
        )
        yield (
            lambda view=view: admin.post(url(view), {"upload": "nonsense"}),
            rf"{what} by 'admin' refused: no_such_upload",
        )
    yield lambda: admin.post(url("undo")), rf"undo by 'admin' refused: no_safety_copy, {SECONDS}"
    yield (
        lambda: admin.post(url("kept_delete")),
        r"kept_delete by 'admin' refused: no_such_backup",
    )
    evil = rewritten(take(), lambda records: records["auth.user"][1]["fields"].update(is_superuser=True))
    yield (
        lambda: script(family.staff).post(url("confirm"), {"backup_file": upload(evil.getvalue())}),
        rf"restore by 'grandma' refused: forbidden, {SECONDS}",
    )
    yield (
        lambda: admin.post(url("confirm"), {"backup_file": upload(data), "_": "x" * 10_000}),
        r"restore by 'admin': .*",
    )
    yield (
        lambda: admin.post(url("confirm"), {"backup_file": upload(data)}),
        rf"restore by 'admin' refused: already_restored, {SECONDS}",
    )
    settings.BACKUP_MAX_UPLOAD_SIZE = 100
    yield (
        lambda: admin.post(url("restore"), {"backup_file": upload(data)}, follow=True),
        r"preview by 'admin' refused: too_large",
    )
    yield (
        lambda: admin.post(url("confirm"), {"backup_file": upload(b"x" * 3_000_000)}),
        r"restore by 'admin' refused: too_large",
    )


def test_each_refusal_is_logged_once(family, settings, log):
    for act, pattern in refusals(family, settings):
        log()
        act()
        once(log(), pattern)


def test_what_fails_is_logged_once(family, log, monkeypatch):
    data = take()

    def fails(*args, **kwargs):
        raise ZeroDivisionError("a secret")

    log()
    monkeypatch.setattr(Database, "dangling", fails)
    data.seek(0)
    with pytest.raises(ZeroDivisionError):
        services.restore_backup(data, how(clear=True), user=family.admin)
    once(log(), rf"restore by 'admin' failed: ZeroDivisionError, {SECONDS}")


def test_a_busy_server_is_logged_once(family, log, monkeypatch):
    data = take()
    log()

    def busy(self):
        raise Busy("Another one.")

    monkeypatch.setattr(database_of().__class__, "exclusive", busy)
    data.seek(0)
    with pytest.raises(BackupError):
        services.restore_backup(data, how(clear=True), user=family.staff)
    once(log(), rf"restore by 'grandma' refused: busy, {SECONDS}")


def test_a_name_cannot_forge_a_line(family, log):
    get_user_model().objects.filter(pk=family.staff.pk).update(username=f"eve{RED}")
    family.staff.refresh_from_db()
    client = Client()
    client.force_login(family.staff)
    log()
    client.get(url("download")).close()
    once(log(), rf"backup by 'eve\\x1b\[31mred\\r\\nbackup INFO forged': \d+ records, {SECONDS}")


def test_json_errors_hold_nothing_but_text(family):
    """A sentence with what the file says in it is JSON, whatever stands there."""
    file = rewritten(take(), lambda records: records["core.feeding"][0]["fields"].update({EVIL: 1}))
    response = script(family.admin).post(url("restore"), {"backup_file": upload(file.getvalue())})
    assert response["Content-Type"] == "application/json"
    assert "core.feeding" in error_of(response)["message"]
    assert json.loads(response.content)

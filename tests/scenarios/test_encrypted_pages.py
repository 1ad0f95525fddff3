"""Encrypted backups by page and by script: the key is asked for, handed on in forms, and lies nowhere."""

import io
import re
import zipfile

import pytest
from core.models import Child
from django.contrib.sessions.models import Session
from django.test import Client

from backup import services
from backup.archive import Key
from backup.conf import conf
from backup.storage import content, keys
from tests.support import older
from tests.support.backups import encrypted, take
from tests.support.http import error_of, script, staged, upload, url
from tests.support.snapshots import differences, snapshot
from tests.unit.archive.test_encryption import sealed


@pytest.fixture
def key(family):
    return keys.add().key


@pytest.fixture
def elsewhere(key):
    """An encrypted backup, on a server that does not know its key."""
    file = io.BytesIO()
    services.create_backup(file, encrypt=True)
    (conf.root / "keys.json").unlink()
    return file.getvalue()


def is_encrypted(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return all(info.flag_bits & 1 for info in archive.infolist()[1:])


def body(response):
    return b"".join(response.streaming_content)


# -- downloads ---


def test_a_download_is_encrypted_on_demand(key, browser, family):
    for client in (browser, script(family.staff)):
        assert is_encrypted(body(client.get(url("download"), {"encrypt": "1"})))
        assert not is_encrypted(body(client.get(url("download"))))
        for wrong in ("flase", "2"):
            response = client.get(url("download"), {"encrypt": wrong})
            assert response.status_code == 400


def test_downloads_are_encrypted_where_the_settings_say_so(key, browser, settings):
    settings.BACKUP_ENCRYPT = ["download"]
    assert is_encrypted(body(browser.get(url("download"))))
    assert is_encrypted(body(browser.get(url("download"), {"encrypt": "0"})))
    (conf.root / "keys.json").unlink()
    assert browser.get(url("download")).status_code == 409


def test_a_download_never_falls_back_to_clear(family, browser):
    response = browser.get(url("download"), {"encrypt": "1"})
    assert response.status_code == 409
    assert "there is no key" in response.content.decode()
    assert (
        error_of(script(family.staff).get(url("download"), {"encrypt": "1"}))["code"]
        == "encryption_unavailable"
    )


# -- restoring by script ---


def test_by_script(elsewhere, key, family):
    client = script(family.admin)
    before = snapshot()
    for name in ("restore", "confirm"):
        response = client.post(url(name), {"backup_file": upload(elsewhere)})
        assert (response.status_code, error_of(response)["code"]) == (409, "key_needed")
        assert error_of(response)["key_id"] == key.id
        for typed in (Key.make().text, "hunter2"):
            response = client.post(url(name), {"backup_file": upload(elsewhere), "key": typed})
            assert (response.status_code, error_of(response)["code"]) == (409, "wrong_key")
            assert error_of(response)["key_id"] == key.id
            assert typed not in response.content.decode()
    Child.objects.all().delete()
    typed = key.text.lower().replace("-", " ")
    response = client.post(url("restore"), {"backup_file": upload(elsewhere), "key": typed})
    assert response.status_code == 200
    assert response.json()["changes"]["core.child"]["added"]
    # The server has kept the file, and no key.
    fields = {"upload": response.json()["upload"], "clear_existing_data": "true"}
    assert error_of(client.post(url("confirm"), fields))["code"] == "key_needed"
    response = client.post(url("confirm"), {**fields, "key": typed})
    assert response.status_code == 200
    assert differences(before, snapshot()) == []


def test_an_upload_that_lacks_its_key_can_be_named(elsewhere, key, family):
    client = script(family.admin)
    error = error_of(client.post(url("restore"), {"backup_file": upload(elsewhere)}))
    response = client.post(url("restore"), {"upload": error["upload"], "key": key.text})
    assert response.status_code == 200


# -- and in a browser ---


def hidden(response, action):
    """The hidden fields of the first form with this action."""
    form = response.content.decode().split(f'action="{action}"')[1].split("</form>")[0]
    found = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form))
    del found["csrfmiddlewaretoken"]
    return found


def typed_in(browser, response, **more):
    """Fill in the form that asks for the key."""
    action = re.search(r'<form action="([^"]+)" method="post" class="mb-3">', response.content.decode())[1]
    return browser.post(action, {**hidden(response, action), **more})


def test_in_a_browser(browser, elsewhere, key, caplog):
    before = snapshot()
    Child.objects.all().delete()
    answers = [
        browser.post(url("restore"), {"backup_file": upload(elsewhere), "clear_existing_data": "true"})
    ]
    assert answers[-1].status_code == 409
    assert key.id in answers[-1].content.decode()
    answers.append(typed_in(browser, answers[-1], key=Key.make().text))
    assert answers[-1].status_code == 409
    assert "not the key" in answers[-1].content.decode()
    answers.append(typed_in(browser, answers[-1], key=key.text))
    assert answers[-1].status_code == 200  # the preview itself: the key would stand in an address
    fields = hidden(answers[-1], url("confirm"))
    assert fields["key"] == key.text
    answers.append(browser.post(url("confirm"), fields))
    assert answers[-1].status_code == 200  # the last question
    fields = hidden(answers[-1], url("confirm"))
    answers.append(browser.post(url("confirm"), {**fields, "confirmed": ""}))  # the box was not ticked
    assert answers[-1].status_code == 200
    assert 'aria-invalid="true"' in answers[-1].content.decode()
    (file,) = staged()
    assert is_encrypted(file.read_bytes())
    answers.append(browser.post(url("confirm"), {**fields, "confirmed": "yes"}))
    assert answers[-1].status_code == 302  # to the result
    answers.append(browser.get(answers[-1]["Location"]))
    assert answers[-1].status_code == 200
    assert differences(before, snapshot()) == []
    assert staged() == []
    # It is in no address, on no disk, in no session, in no log.
    assert not any(key.text in response.get("Location", "") for response in answers)
    assert key.text not in answers[-1].content.decode()
    assert not any(key.text in str(session.get_decoded()) for session in Session.objects.all())
    assert not any(key.text.encode() in path.read_bytes() for path in conf.root.rglob("*") if path.is_file())
    assert key.text not in caplog.text


def test_what_another_program_encrypted_asks_for_no_key(browser, family):
    """No key opens it."""
    with zipfile.ZipFile(take()) as archive:
        file = sealed({name: archive.read(name) for name in archive.namelist()})
    answer = browser.post(url("restore"), {"backup_file": upload(file.getvalue())})
    assert answer.status_code == 400
    page = answer.content.decode()
    assert "encrypted with another program" in page
    assert 'name="key"' not in page
    assert staged() == []


def test_a_page_that_was_gone_back_to_asks_again(elsewhere, key, browser):
    asked = browser.post(url("restore"), {"backup_file": upload(elsewhere)})
    preview = typed_in(browser, asked, key=key.text)
    upload_id = hidden(preview, url("confirm"))["upload"]
    for name in ("preview", "question"):
        response = browser.get(url(name, upload_id), {"clear_existing_data": "true"})
        assert response.status_code == 409
        assert hidden(response, url("restore"))["clear_existing_data"] == "true"
        assert typed_in(browser, response, key=key.text).status_code == 200


def test_other_choices_in_the_preview_ask_for_no_key(elsewhere, key, browser):
    asked = browser.post(url("restore"), {"backup_file": upload(elsewhere)})
    preview = typed_in(browser, asked, key=key.text)
    assert "?clear_existing_data" not in preview.content.decode()
    fields = hidden(preview, url("restore"))  # of what comes back by choice
    assert fields["key"] == key.text
    chosen = browser.post(url("restore"), {**fields, "parts": ["entries"]})
    assert chosen.status_code == 200
    assert hidden(chosen, url("confirm"))["parts"] == "entries"
    buttons = chosen.content.decode().split('id="decide-title"')[1]
    forms = re.findall(rf'<form action="{url("restore")}" method="post">(.*?)</form>', buttons, re.DOTALL)
    sent = [dict(re.findall(r'name="(\w+)" value="([^"]*)"', form)) for form in forms]
    assert {fields["key"] for fields in sent} == {key.text}
    (clearing,) = (fields for fields in sent if fields["clear_existing_data"] == "true")
    cleared = browser.post(url("restore"), clearing)
    assert cleared.status_code == 200
    assert hidden(cleared, url("confirm"))["clear_existing_data"] == "true"


def test_where_the_server_has_the_key_nobody_is_asked(elsewhere, key, browser):
    (conf.root / "keys.json").parent.mkdir(exist_ok=True)
    keys._save([keys.StoredKey(key, "2026-11-26T02:00:00+00:00")])
    response = browser.post(url("restore"), {"backup_file": upload(elsewhere)})
    assert response.status_code == 302
    assert browser.get(response["Location"]).status_code == 200


def test_an_older_one_in_a_browser(family, browser):
    """What is made of it is kept for the confirmation, and encrypted with the same key."""
    key = Key.make()
    old = encrypted(io.BytesIO((older.old("2.6.0") / "backup.zip").read_bytes()), key).getvalue()
    asked = browser.post(url("restore"), {"backup_file": upload(old), "clear_existing_data": "true"})
    assert asked.status_code == 409
    preview = typed_in(browser, asked, key=key.text)
    assert preview.status_code == 200
    (file,) = staged()
    assert file.read_bytes() != old
    assert is_encrypted(file.read_bytes())
    fields = {**hidden(preview, url("confirm")), "clear_unknown_apps": "true", "accounts": "replace"}
    question = browser.post(url("confirm"), fields)
    confirmed = {**hidden(question, url("confirm")), "confirmed": "yes"}
    assert browser.post(url("confirm"), confirmed, follow=True).status_code == 200
    assert Child.objects.exists()


def test_undo_asks_for_the_key_of_a_safety_copy(key, browser, settings, family):
    settings.BACKUP_ENCRYPT = ["local"]
    file = io.BytesIO()
    services.create_backup(file)
    Child.objects.all().delete()
    before = snapshot()
    services.restore_backup(file, services.UNDO)
    settings.BACKUP_ENCRYPT = []
    (conf.root / "keys.json").unlink()
    asked = browser.post(url("undo"))
    for typed in ("hunter2", Key.make().text):
        assert asked.status_code == 409
        assert f"Key with the id {key.id}" in asked.content.decode()
        asked = typed_in(browser, asked, key=typed)
        error = error_of(script(family.admin).post(url("undo"), {"key": typed}))
        assert (error["code"], error["key_id"]) == ("wrong_key", key.id)
    assert f"Key with the id {key.id}" in asked.content.decode()
    assert typed_in(browser, asked, key=key.text).status_code == 200
    assert differences(before, snapshot()) == []


def test_a_kept_backup_says_which_key_it_needs(key, browser, settings, family):
    settings.BACKUP_ENCRYPT = ["local"]
    name = services.keep_backup().name
    settings.BACKUP_ENCRYPT = []
    (conf.root / "keys.json").unlink()
    for act in ("restore", "confirm"):
        error = error_of(script(family.admin).post(url(act), {"kept": name, "key": "hunter2"}))
        assert (error["code"], error["key_id"]) == ("wrong_key", key.id)
    page = browser.post(url("restore"), {"kept": name, "key": "hunter2"}).content.decode()
    assert f"Key with the id {key.id}" in page
    assert "hunter2" not in page


# -- the page of the key ---


def shown(browser):
    response = browser.get(url("key"))
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    return response.content.decode()


def test_the_kit(family, browser):
    assert "Make a key" in shown(browser)
    assert "Download encrypted" not in browser.get(url("index")).content.decode()
    assert browser.post(url("key"), {"new": "true"}).status_code == 302
    key = keys.current().key
    kit = shown(browser)
    for text in (key.text, f"Backup key {key.id}", "http://testserver/", "7-Zip", str(conf.root), "<svg"):
        assert text in kit
    # The front page reminds superusers until somebody has proved to have it elsewhere.
    front = browser.get(url("index")).content.decode()
    assert "Print or save the key" in front
    assert "Download encrypted" in front
    assert key.text not in front
    response = browser.post(url("key"), {"last_group": "AAAAA"})
    assert response.status_code == 400
    assert 'aria-invalid="true"' in response.content.decode()
    assert browser.post(url("key"), {"last_group": key.last_group.lower()}, follow=True).status_code == 200
    assert "Print or save the key" not in browser.get(url("index")).content.decode()
    assert "last_group" not in shown(browser)
    # A new one has to be kept, too, and the old one stays.
    browser.post(url("key"), {"new": "true"})
    assert len(keys.ring()) == 2
    assert key.text not in shown(browser)
    assert "Print or save the key" in browser.get(url("index")).content.decode()
    assert browser.post(url("key")).status_code == 400


def test_the_key_is_for_superusers(key, family):
    staff = Client()
    staff.force_login(family.staff)
    for client in (staff, script(family.staff)):
        for response in (
            client.get(url("key")),
            client.post(url("key"), {"new": "true"}),
            client.post(url("key"), {"last_group": key.last_group}),
        ):
            assert response.status_code == 403
            assert key.text not in response.content.decode()
    assert len(keys.ring()) == 1
    assert url("key") not in staff.get(url("index")).content.decode()


def test_a_script_is_not_told_the_key(key, family):
    client = script(family.admin)
    answer = client.get(url("key")).json()
    assert answer == {"key_id": key.id, "made": keys.current().made, "noted": False}
    assert error_of(client.post(url("key"), {"last_group": "AAAAA"}))["code"] == "wrong_key"
    assert client.post(url("key"), {"last_group": key.last_group}).json()["noted"] is True
    assert client.post(url("key"), {"new": "true"}).json()["key_id"] == keys.current().key.id != key.id


def test_pages_where_the_ring_cannot_be_read(key, browser):
    (conf.root / "keys.json").write_text("{")
    front = browser.get(url("index"))
    assert front.status_code == 200
    assert "keys.json" in front.content.decode()
    assert browser.get(url("key")).status_code == 507
    assert browser.post(url("key"), {"new": "true"}).status_code == 507
    assert (conf.root / "keys.json").read_text() == "{"


def test_what_is_kept_says_with_which_key(key, family, browser, settings):
    settings.BACKUP_ENCRYPT = ["local"]
    services.keep_backup(label="before the holidays")
    front = browser.get(url("index")).content.decode()
    assert f"encrypted with the key {key.id}" in front
    (conf.root / "keys.json").unlink()
    content._remembered.cache_clear()  # what was read is remembered in this process
    front = browser.get(url("index")).content.decode()
    assert "Its key is not on this server" in front
    (entry,) = script(family.admin).get(url("index")).json()["backups"]
    assert (entry["encrypted"], entry["key_id"]) == (True, key.id)

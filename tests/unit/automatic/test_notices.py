"""Who is told of what: real servers for mail and for HTTP."""

import asyncio
import datetime as dt
import json
import logging
import re
import socket
import socketserver
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from core import models as core
from django.contrib.auth.models import User
from django.core import mail
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.urls import reverse
from freezegun import freeze_time

from backup import services
from backup.automatic import look, notices, run, status
from backup.conf import aware_now
from backup.exceptions import BackupError, StorageFailed
from backup.storage import kept


class Web:
    """An HTTP server that remembers what it was asked: (method, path, body). `answer`: the status of its answers;
    None: it keeps silent."""

    def __init__(self):
        self.asked, self.answer = [], 200
        web, self.released = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                web.asked.append((self.command, self.path, body))
                if web.answer is None:
                    web.released.wait(10)
                else:
                    self.send_response(web.answer)
                    self.end_headers()

            do_POST = do_GET

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def web():
    server = Web()
    yield server
    server.close()


#: Who sent the mails of a test, as the server was told; the recipients that it refuses, on which it hangs up, and whose
#: mails it takes slowly; the connections to it.
found_senders, refused, hung_up_on, slow, connections = [], set(), set(), set(), []


@pytest.fixture
def mails(settings):
    """What a real mail server gets: (recipients, text)."""
    found, senders = [], found_senders
    for noted in (senders, refused, hung_up_on, slow, connections):
        noted.clear()

    class Handler:
        async def handle_EHLO(self, server, session, envelope, hostname, responses):
            connections.append(session.peer)
            session.host_name = hostname
            return responses

        async def handle_RCPT(self, server, session, envelope, address, options):
            if address in hung_up_on:
                server.transport.close()
            if address in refused | hung_up_on:
                return "550 5.1.1 No such user"
            envelope.rcpt_tos.append(address)
            return "250 OK"

        async def handle_DATA(self, server, session, envelope):
            found.append((envelope.rcpt_tos, envelope.content.decode()))
            senders.append(envelope.mail_from)
            if slow & {*envelope.rcpt_tos}:
                await asyncio.sleep(1)
            return "250 OK"

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(Handler(), hostname="127.0.0.1", port=port)
    controller.start()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", port
    yield found
    controller.stop()


@pytest.fixture
def failing(monkeypatch):
    def full(*args, **kwargs):
        raise StorageFailed("No space left on device.")

    def fail():
        core.Note.objects.create(child=core.Child.objects.first(), note="changed")
        with monkeypatch.context() as patch:
            patch.setattr(kept, "keep", full)
            with pytest.raises(StorageFailed):
                run.run(now=True)

    return fail


def test_people_are_told_once_there_is_a_mail_server(nightly, mails, failing, settings, capsys):
    """Baby Buddy prints its mails until EMAIL_HOST is set. Where automatic backups run, nobody sees that."""
    works, settings.EMAIL_BACKEND = settings.EMAIL_BACKEND, "django.core.mail.backends.console.EmailBackend"
    failing()
    client = Client()
    client.force_login(nightly.admin)
    assert "sends no mails" in client.get(reverse("backup:index")).content.decode()
    settings.EMAIL_BACKEND = works
    assert "sends no mails" not in client.get(reverse("backup:index")).content.decode()
    failing()
    failing()
    assert [to for to, _text in mails] == [["admin@example.com"]]
    assert "No space left on device." not in capsys.readouterr().out


def test_superusers_are_told_once_one_has_an_address(nightly, mails, failing):
    User.objects.update(email="")
    failing()
    client = Client()
    client.force_login(nightly.admin)
    assert "has an e-mail address" in client.get(reverse("backup:index")).content.decode()
    (warning,) = (w for w in run_checks(include_deployment_checks=True) if w.id == "backup.W018")
    assert "address" in warning.msg
    User.objects.filter(username="admin").update(email="admin@example.com")
    assert "has an e-mail address" not in client.get(reverse("backup:index")).content.decode()
    failing()
    assert [to for to, _text in mails] == [["admin@example.com"]]


def test_mails_without_a_sender(nightly, mails, failing, settings):
    """What Baby Buddy makes of a mail server without EMAIL_FROM and EMAIL_HOST_USER."""
    settings.DEFAULT_FROM_EMAIL = ""
    failing()
    assert found_senders == ["admin@example.com"]
    (to, text), *others = mails
    assert (to, others) == (["admin@example.com"], [])
    assert "From: admin@example.com" in text
    client = Client()
    client.force_login(nightly.admin)
    assert "set EMAIL_FROM" in client.get(reverse("backup:index")).content.decode()
    settings.DEFAULT_FROM_EMAIL = "baby@example.com"
    assert run.run(now=True).made
    assert found_senders[1:] == ["baby@example.com"]
    assert "set EMAIL_FROM" not in client.get(reverse("backup:index")).content.decode()


@pytest.mark.skipif(not hasattr(mail, "mailers"), reason="Django 6.1+")
def test_a_mail_server_in_mailers(nightly, mails, failing, settings):
    """MAILERS stands in place of EMAIL_BACKEND and EMAIL_HOST, which nobody can ask for then."""
    server = {"host": settings.EMAIL_HOST, "port": settings.EMAIL_PORT}
    client = Client()
    client.force_login(nightly.admin)
    for lacking in ({}, {"default": {"BACKEND": "django.core.mail.backends.console.EmailBackend"}}):
        settings.MAILERS = lacking
        failing()
        assert "sends no mails" in client.get(reverse("backup:index")).content.decode()
    settings.MAILERS = {"default": {"OPTIONS": server}}
    assert "sends no mails" not in client.get(reverse("backup:index")).content.decode()
    failing()
    assert [to for to, _text in mails] == [["admin@example.com"]]


def test_mail_goes_to_active_superusers_who_have_an_address(nightly, mails, failing):
    User.objects.create(username="a", is_superuser=True, is_active=True, email="second@example.com")
    User.objects.create(username="b", is_superuser=True, is_active=False, email="gone@example.com")
    User.objects.create(username="c", is_superuser=True, is_active=True, email="")
    User.objects.filter(username="grandma").update(email="staff@example.com")
    failing()
    assert sorted(to for to, _ in mails) == [["admin@example.com"], ["second@example.com"]]
    assert all("No space left on device." in text.replace("=\r\n", "") for _, text in mails)
    failing()
    assert len(mails) == 2, "once"
    assert run.run(now=True).made
    assert len(mails) == 4
    assert "work again" in mails[-1][1]


@pytest.mark.parametrize("trouble", [refused, hung_up_on], ids=["refused", "hung up on"])
def test_an_address_that_is_refused_keeps_the_mail_from_nobody_else(
    nightly, mails, failing, settings, caplog, trouble
):
    settings.BACKUP_NOTIFY = ["a@old.example.com", "b@example.com", "c@old.example.com", "d@example.com"]
    trouble |= {"a@old.example.com", "c@old.example.com"}
    with caplog.at_level(logging.WARNING, "backup"):
        failing()
    assert [to for to, _ in mails] == [["b@example.com"], ["d@example.com"]]
    assert caplog.text.count("a notice could not be sent by mail to …@old.example.com: ") == 2
    assert not any(name in caplog.text for name in ("a@", "c@", "…@example.com"))
    trouble.clear()
    failing()
    assert len(mails) == 2, "nobody is told twice"


def test_the_mails_of_a_notice_share_a_connection(nightly, mails, failing, settings):
    settings.BACKUP_NOTIFY = ["a@example.com", "b@example.com", "a@example.com", "c@example.com"]
    failing()
    assert [to for to, _ in mails] == [["a@example.com"], ["b@example.com"], ["c@example.com"]]
    assert len(connections) == 1


@pytest.mark.parametrize("by", ["command", "page"])
def test_a_proof_by_hand_tells_at_once_what_it_found(nightly, quick_proofs, mails, web, settings, client, by):
    """The next run may be a day away, and who asked for the proof is not everybody who wants to know."""
    settings.BACKUP_WEBHOOK_URL = web.url
    assert run.run(now=True).made
    (name,) = (backup.name for backup in kept.backups())
    path = Path(kept.local_path(name))
    good = path.read_bytes()
    client.force_login(nightly.admin)

    def prove():
        if by == "page":
            client.post(reverse("backup:kept_prove", args=[name]))
        else:
            with suppress(CommandError):
                call_command("prove_backup", name)
        return [json.loads(body)["state"] for _method, _path, body in web.asked]

    assert (prove(), mails) == ([], []), "it was known to be good"
    path.write_bytes(good[:300] + bytes([good[300] ^ 1]) + good[301:])
    assert prove() == ["failed"]
    assert prove() == ["failed"], "once"
    path.write_bytes(good)
    assert prove() == ["failed", "ok"]
    assert ["attention" in mails[0][1], "work again" in mails[1][1], len(mails)] == [True, True, 2]


def test_other_addresses_or_nobody(nightly, mails, failing, settings):
    settings.BACKUP_NOTIFY = ["nas@example.com"]
    failing()
    assert [to for to, _ in mails] == [["nas@example.com"]]
    run.run(now=True)
    settings.BACKUP_NOTIFY = "off"
    failing()
    assert len(mails) == 2


def test_a_ping_after_every_run(nightly, web, failing, settings):
    settings.BACKUP_PING_URL = f"{web.url}/ping/secret"
    assert run.run(now=True).made
    assert not run.run(now=True).made, "nothing has changed, which is a success"
    assert not run.run().made, "none is due: no run"
    failing()
    assert web.asked == [
        ("GET", "/ping/secret/start", b""),
        ("GET", "/ping/secret", b""),
        ("GET", "/ping/secret/start", b""),
        ("GET", "/ping/secret", b""),
        ("GET", "/ping/secret/start", b""),
        ("GET", "/ping/secret/fail", b""),
    ]


@pytest.mark.parametrize("trouble", ["unreadable", "not copied"])
def test_a_backup_with_which_something_is_wrong_pings_no_success(
    nightly, web, settings, monkeypatch, trouble
):
    settings.BACKUP_PING_URL = f"{web.url}/ping"

    def fail(*args, **kwargs):
        raise StorageFailed("No space left on device.")

    if trouble == "not copied":
        monkeypatch.setattr(run.copies, "copy", fail)
    elif connection.vendor != "sqlite":
        pytest.skip("of SQLite, which lets a column hold anything")
    else:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE core_note SET note = CAST(x'e8e9' AS TEXT)")
    outcome = run.run(now=True)
    assert outcome.made
    assert outcome.error == outcome.as_json().get("error", "") == status.last_run().error
    assert bool(outcome.error) == (trouble == "not copied")
    assert [path for _, path, _ in web.asked] == ["/ping/start", "/ping/fail"]


def test_the_command_says_that_old_backups_could_not_be_removed(nightly, settings, capsys):
    run.run()
    settings.BACKUP_KEEP = "bogus=1"
    call_command("backup", "--automatic", "--now")
    said = capsys.readouterr()
    assert "Nothing has changed" in said.out
    assert re.search(r"old ones could not be removed\. .*BACKUP_KEEP must be like", said.out + said.err)


def test_a_success_whose_ping_is_not_sent_since_the_process_is_killed_is_pinged_by_the_next(
    nightly, web, settings, monkeypatch
):
    settings.BACKUP_PING_URL = f"{web.url}/ping"
    with monkeypatch.context() as patch:
        patch.setattr(run, "_ping_success", lambda *args, **kwargs: None)
        assert run.run(now=True).made
    with freeze_time(aware_now() + dt.timedelta(minutes=2)):
        assert look._is_due()
        assert not run.run().made
        assert not look._is_due()
    assert [path for _, path, _ in web.asked] == ["/ping/start", "/ping"]


def test_one_of_two_locations_that_fails_pings_a_success(nightly, web, settings, tmp_path):
    """The copy in the other one keeps the state as it was."""
    (tmp_path / "file").touch()
    settings.BACKUP_LOCATIONS = f"nas={tmp_path / 'nas'}, usb={tmp_path / 'file' / 'usb'}"
    settings.BACKUP_PING_URL = f"{web.url}/ping"
    assert run.run(now=True).made
    assert [seen.name for seen in status.status().failing] == ["usb"]
    assert [path for _, path, _ in web.asked] == ["/ping/start", "/ping"]


@pytest.mark.parametrize("by", ["next try", "command", "proof"])
def test_what_is_well_again_between_two_runs_is_pinged(
    nightly, web, settings, tmp_path, quick_proofs, monkeypatch, by
):
    settings.BACKUP_PING_URL = f"{web.url}/ping"
    (tmp_path / "file").touch()
    if by != "proof":
        settings.BACKUP_LOCATIONS = f"nas={tmp_path / 'file' / 'nas'}"
    made = run.run(now=True).backup
    if by == "proof":
        web.asked.clear()
        path = Path(kept.local_path(made.name))
        good = path.read_bytes()
        path.write_bytes(good[:300] + bytes([good[300] ^ 1]) + good[301:])
        services.prove_kept(made.name)
        path.write_bytes(good)
        with monkeypatch.context() as patch:
            patch.setattr(run, "_prove_again", lambda *args: None)
            run.run(now=True)
    run.copy_again()
    assert [path for _, path, _ in web.asked] == ["/ping/start", "/ping/fail"], "nothing has changed"
    (tmp_path / "file").unlink()
    (tmp_path / "file").mkdir()
    if by == "proof":
        call_command("prove_backup", made.name)
    elif by == "command":
        call_command("backup", "--keep")
    else:
        with freeze_time(aware_now() + dt.timedelta(minutes=2)):
            assert not run.run().made
    assert status.status().state is status.State.OK
    run.copy_again()
    assert [path for _, path, _ in web.asked] == ["/ping/start", "/ping/fail", "/ping"]


def test_a_success_whose_ping_is_lost_is_pinged_again(nightly, web, settings, at):
    """Soon after the run, and not without end. The next run pings in any case."""
    settings.BACKUP_PING_URL = f"{web.url}/ping"
    web.answer = 500
    moment = at("2026-11-03 03:00")
    with freeze_time(moment):
        assert run.run(now=True).made
        assert not look._is_due()
    for minutes in (2, 6, 31):
        moment += dt.timedelta(minutes=minutes)
        with freeze_time(moment):
            assert look._is_due()
            assert not run.run().made
            assert not run.run().made
    with freeze_time(moment + dt.timedelta(hours=3)):
        assert not look._is_due()
        run.run()
        assert [path for _, path, _ in web.asked] == ["/ping/start", *["/ping"] * 4]
        run.run(now=True)
    web.answer = 200
    with freeze_time(moment + dt.timedelta(hours=3, minutes=2)):
        assert look._is_due()
        run.run()
        assert not look._is_due()
        run.run()
    assert [path for _, path, _ in web.asked][5:] == ["/ping/start", "/ping", "/ping"]


def test_the_query_of_a_push_address_is_kept(nightly, web, settings):
    settings.BACKUP_PING_URL = f"{web.url}/api/push/TOKEN?status=up&msg=OK&ping="
    run.run()
    assert [path for _, path, _ in web.asked] == [
        "/api/push/TOKEN/start?status=up&msg=OK&ping=",
        "/api/push/TOKEN?status=up&msg=OK&ping=",
    ]


def test_a_webhook_is_told_of_changes_only(nightly, web, failing, settings):
    settings.BACKUP_WEBHOOK_URL = f"{web.url}/hook"
    assert run.run(now=True).made
    assert web.asked == [], "the first success is none"
    failing()
    failing()
    assert run.run(now=True).made
    assert run.run(now=True).made is False
    assert [(method, path) for method, path, _ in web.asked] == [("POST", "/hook")] * 2
    states = [json.loads(body) for _, _, body in web.asked]
    assert [state["state"] for state in states] == ["failed", "ok"]
    assert states[0]["message"].endswith("No space left on device.")


@pytest.mark.parametrize("trouble", ["nobody", "error", "silent"])
def test_trouble_of_a_notice_fails_no_backup(nightly, web, failing, settings, monkeypatch, caplog, trouble):
    monkeypatch.setattr(notices, "TIMEOUT", 0.2)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    settings.BACKUP_PING_URL = f"{web.url}/ping/secret"
    settings.BACKUP_WEBHOOK_URL = f"{web.url}/hook/secret"
    web.answer = {"error": 500, "silent": None}.get(trouble, 200)
    if trouble == "nobody":
        settings.BACKUP_PING_URL = settings.BACKUP_WEBHOOK_URL = "http://127.0.0.1:1/secret"
    with caplog.at_level(logging.WARNING, "backup"):
        failing()
        begin = time.monotonic()
        assert run.run(now=True).made
    assert time.monotonic() - begin < 5
    assert "could not be sent" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("kind", ["web", "mail"])
def test_a_server_that_never_ends_is_given_up(nightly, settings, monkeypatch, caplog, kind):
    """It says something all the time, so that no single wait is long."""
    monkeypatch.setattr(notices, "WHOLE", 0.5)
    ends = threading.Event()

    class Endless(socketserver.BaseRequestHandler):
        def handle(self):
            with suppress(OSError):
                while not ends.wait(0.05):
                    self.request.sendall(b"x")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Endless) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        host, port = server.server_address
        if kind == "web":
            settings.BACKUP_PING_URL = f"http://{host}:{port}/"
        else:
            settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
            settings.EMAIL_HOST, settings.EMAIL_PORT = host, port
            settings.BACKUP_ENCRYPT = "local"  # there is no key, which is told
        with caplog.at_level(logging.WARNING, "backup"), suppress(BackupError):
            run.run(now=True)
        assert "could not be sent" in caplog.text
        ends.set()
        server.shutdown()


def test_in_a_request_notices_share_their_time(nightly, mails, web, failing, settings, monkeypatch):
    """A slow one takes the time of all, but keeps none of the others back."""
    monkeypatch.setattr(notices, "TOGETHER", 2.0)
    web.answer = None
    settings.BACKUP_PING_URL = f"{web.url}/ping"
    settings.BACKUP_WEBHOOK_URL = f"{web.url}/hook"
    core.Note.objects.create(child=core.Child.objects.first(), note="changed")

    def full(*args, **kwargs):
        raise StorageFailed("No space left on device.")

    monkeypatch.setattr(kept, "keep", full)
    begin = time.monotonic()
    with pytest.raises(StorageFailed):
        run.run(now=True, user=nightly.admin)
    assert time.monotonic() - begin < 2 + 3 * notices.LITTLE + 2
    assert len(mails) == 1
    assert [path for _, path, _ in web.asked] == ["/ping/start", "/hook", "/ping/fail"]


def test_a_notice_that_did_not_arrive_is_sent_again_and_no_other(nightly, mails, web, failing, settings):
    settings.BACKUP_WEBHOOK_URL = web.url
    refused.add("admin@example.com")
    failing()
    failing()
    assert (mails, len(web.asked)) == ([], 1), "the webhook was told"
    refused.clear()
    web.answer = 500
    assert run.run(now=True).made
    assert (mails, len(web.asked)) == ([], 2), "nobody knows of the failure by mail"
    core.Note.objects.create(child=core.Child.objects.first(), note="changed")
    assert run.run(now=True).made
    assert (mails, len(web.asked)) == ([], 3)
    web.answer = 200
    run.run(now=True)
    run.run(now=True)
    assert (mails, len(web.asked)) == ([], 4)
    assert [json.loads(body)["state"] for _, _, body in web.asked] == ["failed", "ok", "ok", "ok"]


def test_a_mail_that_no_server_takes_is_sent_once_one_does(nightly, mails, failing):
    refused.add("admin@example.com")
    failing()
    refused.clear()
    failing()
    failing()
    assert len(mails) == 1


@pytest.mark.parametrize("limit", ["TIMEOUT", "WHOLE"])
def test_a_mail_that_a_slow_server_may_have_taken_is_not_sent_again(
    nightly, mails, failing, settings, monkeypatch, limit
):
    """Nor does it keep the others from getting it."""
    monkeypatch.setattr(notices, limit, 0.3)
    settings.BACKUP_NOTIFY = ["a@example.com", "b@example.com", "c@example.com"]
    slow.add("a@example.com")
    failing()
    failing()
    assert [to for to, _ in mails] == [["a@example.com"], ["b@example.com"], ["c@example.com"]]
    settings.BACKUP_NOTIFY = ["a@example.com"]
    run.run(now=True)
    run.run(now=True)
    assert len(mails) == 4, "though it took that one slowly, too"
    failing()
    failing()
    assert len(mails) == 5


def test_what_a_slow_webhook_may_have_taken_is_not_sent_again(nightly, web, failing, settings, monkeypatch):
    monkeypatch.setattr(notices, "TIMEOUT", 0.2)
    settings.BACKUP_WEBHOOK_URL = web.url
    web.answer = None
    failing()
    failing()
    assert [json.loads(body)["state"] for _, _, body in web.asked] == ["failed"]


def test_a_server_that_cannot_be_reached_in_time_has_taken_nothing(
    nightly, mails, failing, settings, monkeypatch
):
    """It is full: the system accepts connections for it, and nobody reads from them."""
    settings.BACKUP_NOTIFY = ["a@example.com", "b@example.com"]
    port = settings.EMAIL_PORT
    with monkeypatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as silent:
        patch.setattr(notices, "TIMEOUT", 0.2)
        settings.EMAIL_PORT = silent.getsockname()[1]
        failing()
    settings.EMAIL_PORT = port
    failing()
    assert len(mails) == 2

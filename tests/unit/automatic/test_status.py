"""How automatic backups are: the same for the page, scripts and commands; and the mark in the menu."""

import datetime as dt
import json

import pytest
from core import models as core
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from freezegun import freeze_time

from backup import services
from backup.automatic import run, status
from backup.automatic.status import State
from backup.exceptions import StorageFailed
from backup.storage import content, files, kept
from backup.storage.kept import BackupKind
from tests.support.http import error_of, script, url


def full(*args, **kwargs):
    raise StorageFailed("No space left on device.")


@pytest.fixture
def client_of():
    def sign_in(user):
        client = Client()
        client.force_login(user)
        return client

    return sign_in


def shrink():
    """Two backups, in the second of which a child is gone."""
    run.run(now=True)
    core.Child.objects.first().delete()
    run.run(now=True)


def test_the_answer_in_json(nightly, at):
    client = script(nightly.staff)
    with freeze_time(at("2026-11-03 12:00")):
        stored = run.run().backup
        answer = client.get(url("status"))
        assert answer.status_code == 200
        assert client.get(url("index")).json()["status"] == answer.json()
    entered = sum(count for label, count in stored.counts.items() if not label.endswith("percentile"))
    assert answer.json() == {
        "state": "ok",
        "message": f"The last automatic backup (Nov. 3, 2026, noon) holds {entered:,} records.",
        "schedule": "30 2 * * *",
        "last": {
            "name": stored.name,
            "at": "2026-11-03T11:00:00+00:00",
            "records": stored.records,
            "unchanged": None,
        },
        "next": "2026-11-04T01:30:00+00:00",
        "proof": None,
        "shrunk": [],
        "locations": [],
    }


@pytest.mark.parametrize("state", ["off", "overdue", "failed", "shrunk"])
def test_it_answers_200_however_the_state_is(nightly, settings, monkeypatch, state):
    if state == "off":
        settings.BACKUP_SCHEDULE = "off"
    elif state == "failed":
        with monkeypatch.context() as patch:
            patch.setattr(kept, "keep", full)
            with pytest.raises(StorageFailed):
                run.run()
    elif state == "shrunk":
        shrink()
    answer = script(nightly.staff).get(url("status"))
    assert answer.status_code == 200
    assert answer.json()["state"] == state
    assert answer.json()["message"]


@pytest.mark.parametrize("reason", ["It is damaged.", "What came back is not it:\ncore.tag 7: another value"])
def test_the_reason_of_a_failed_proof_is_a_sentence(nightly, reason):
    """It may end with the name of a record."""
    run.run(now=True)
    name = kept.backups(BackupKind.AUTOMATIC)[0].name
    proof = {"verdict": "failed", "at": "2026-11-04T03:00:00+00:00", "records": 0, "reason": reason}
    kept.note(name, proofs={"local": {**proof, "place": "local"}})
    said = status.status().message
    assert f" in a trial. {' '.join(reason.split()).rstrip('.')}. No old backup is" in said


def test_it_answers_where_the_storage_does_not(nightly, monkeypatch, client_of):
    monkeypatch.setattr(files, "names_in", full)
    answer = script(nightly.staff).get(url("status"))
    assert (answer.status_code, answer.json()["state"]) == (200, "failed")
    assert client_of(nightly.staff).get(url("index")).status_code == 200


def test_strangers_learn_nothing(nightly):
    assert Client(headers={"Accept": "application/json"}).get(url("status")).status_code == 401
    assert script(nightly.plain).get(url("status")).status_code == 403
    assert script(nightly.plain).post(url("acknowledge")).status_code == 403


def test_the_next_one_is_now_where_it_is_due(nightly, at):
    with freeze_time(at("2026-11-03 12:00")):
        run.run()
    with freeze_time(at("2026-11-04 08:00")):
        assert status.status().next == at("2026-11-04 08:00")


def test_the_next_one_is_soon_where_the_last_one_failed(nightly, at, client_of):
    with freeze_time(at("2026-11-03 12:00")):
        run.run()
        run._conclude("No space left on device.")
        assert status.status().next == at("2026-11-03 12:01")
        assert "Next: " in client_of(nightly.admin).get(url("index")).content.decode()


def test_the_guards_answer_is_for_superusers(nightly):
    shrink()
    refused = script(nightly.staff).post(url("acknowledge"))
    assert (refused.status_code, error_of(refused)["code"]) == (403, "forbidden")
    assert status.status().state is State.SHRUNK
    answer = script(nightly.admin).post(url("acknowledge"))
    assert (answer.status_code, answer.json()["state"]) == (200, "ok")
    assert status.status().state is State.OK


def test_the_page_says_it_first_thing(nightly, client_of):
    shrink()
    before = status.status().before
    page = client_of(nightly.admin).get(url("index")).content.decode()
    assert page.index("Entries are fewer") < page.index("Create Backup")
    assert "2 → 1" in page
    assert f'value="{before}"' in page
    assert url("acknowledge") in page
    assert url("acknowledge") not in client_of(nightly.staff).get(url("index")).content.decode()


def test_the_last_backup_before_it_is_one_click_away(nightly, client_of):
    shrink()
    client = client_of(nightly.admin)
    answer = client.post(
        url("restore"), {"kept": status.status().before, "clear_existing_data": "true"}, follow=True
    )
    assert answer.status_code == 200
    assert core.Child.objects.count() == 1, "so far only looked at"


# -- the menu ---


#: What the menu has, whatever the user's language.
MARK = '<span aria-hidden="true">!</span>'


def menu(client):
    status._mark = (0.0, False)
    page = client.get("/user/settings/").content.decode()
    return page[page.index('href="/backup/"') :].partition("</a>")[0]


def test_the_menu_has_a_mark_where_somebody_has_to_look(nightly, client_of, monkeypatch, at):
    client = client_of(nightly.staff)
    assert MARK not in menu(client), "nothing is known"
    run.run(now=True)
    assert MARK not in menu(client)
    core.Note.objects.create(child=core.Child.objects.first(), note="changed")
    with monkeypatch.context() as patch:
        patch.setattr(kept, "keep", full)
        with pytest.raises(StorageFailed):
            run.run(now=True)
    assert MARK in menu(client)
    run.run(now=True)
    assert MARK not in menu(client)
    shrink()
    assert MARK in menu(client)
    script(nightly.admin).post(url("acknowledge"))
    assert MARK not in menu(client)
    with freeze_time(dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=3)):
        status._mark = (0.0, False)
        assert status.needs_attention(), "overdue"


def test_the_mark_asks_no_database(nightly):
    run.run(now=True)
    with CaptureQueriesContext(connection) as queries:
        status._mark = (0.0, False)
        status.needs_attention()
    assert len(queries) == 0


# -- from outside ---


def test_by_token(nightly):
    client = script(nightly.staff)
    answer = client.post(url("run"), {"automatic": "true"})
    assert answer.status_code == 200
    (stored,) = kept.backups(BackupKind.AUTOMATIC)
    assert answer.json() == {
        "name": stored.name,
        "kind": "automatic",
        "records": stored.records,
        "made": True,
    }
    assert client.post(url("run"), {"automatic": "true"}).json() == {**answer.json(), "made": False}
    assert client.post(url("run"), {"automatic": "false"}).json()["kind"] == "manual"


def test_by_command(nightly, capsys):
    call_command("backup", "--automatic")
    (stored,) = kept.backups(BackupKind.AUTOMATIC)
    assert stored.name in capsys.readouterr().out
    call_command("backup", "--automatic")
    assert capsys.readouterr().out == "No backup is due.\n"
    call_command("backup", "--automatic", "--now")
    assert "Nothing has changed" in capsys.readouterr().out
    core.Note.objects.create(child=core.Child.objects.first(), note="changed")
    call_command("backup", "--automatic", "--now")
    assert len(kept.backups(BackupKind.AUTOMATIC)) == 2


def test_a_failure_is_the_commands_failure(nightly, monkeypatch):
    monkeypatch.setattr(kept, "keep", full)
    with pytest.raises(CommandError, match="No space left"):
        call_command("backup", "--automatic")


@pytest.mark.parametrize(
    "options",
    [["--now"], ["--automatic", "--output", "x"], ["--automatic", "--label", "x"], ["--automatic", "--keep"]],
)
def test_options_that_do_not_go_together(nightly, options):
    with pytest.raises(CommandError):
        call_command("backup", *options)


def test_kinds_do_not_mix(nightly):
    services.keep_backup(BackupKind.MANUAL)
    assert status.status().last is None
    assert json.dumps(status.status().as_json())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BACKUP_SCHEDULE", "never"),
        ("BACKUP_LOCATIONS", 7),
        ("BACKUP_MAX_PHOTOS", 0),
        ("BACKUP_KEEP", "all"),
        ("BACKUP_PHOTOS", "ja"),
        ("BACKUP_PROVE", "yes"),
        ("BACKUP_ENCRYPT", "cloud"),
        ("BACKUP_NOTIFY", "somebody"),
        ("BACKUP_STAGED_SECONDS", 0),
    ],
)
def test_a_wrong_setting_is_told_by_the_status(nightly, settings, name, value):
    """It always answers 200: whoever watches it reads the state."""
    run.run(now=True)
    services.keep_backup()
    content._remembered.cache_clear()  # as in a process that was started with the wrong setting
    setattr(settings, name, value)
    response = script(nightly.admin).get(url("status"))
    assert response.status_code == 200
    assert response.json()["state"] == "failed"
    assert name in response.json()["message"]
    assert response.json().keys() >= {"last", "next", "proof", "shrunk", "locations", "schedule"}


def test_the_menu_marks_a_wrong_setting(nightly, settings):
    """No run may ever begin with it, so nobody else would say so."""
    settings.BACKUP_SCHEDULE = "never"
    assert status.needs_attention()

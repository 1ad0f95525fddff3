"""After a request: what a look costs, when it starts a child, and when it does not."""

import datetime as dt
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest
from django.core import mail
from django.core.signals import request_finished
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from freezegun import freeze_time

from backup.automatic import look, outlook, run
from backup.database import memo
from backup.exceptions import StorageFailed, WrongSettings
from backup.storage import kept


@pytest.fixture
def starts(monkeypatch):
    """The starts of a child, which is not started."""
    found = []
    monkeypatch.setattr(look, "start", lambda: found.append(1))
    return found


@pytest.fixture
def minutes(monkeypatch):
    """A clock for looks that a test moves."""
    passed = [1000.0]
    monkeypatch.setattr(look.time, "monotonic", lambda: passed[0])

    def forward(number):
        passed[0] += 60 * number

    return forward


def test_each_request_is_followed_by_a_look(nightly, starts, monkeypatch):
    seen = []
    monkeypatch.setattr(look.watch, "next", 0.0)
    monkeypatch.setattr(look, "_is_due", lambda: seen.append(1))
    Client().get("/login/")
    Client().get("/login/")
    assert seen == [1], "at most once a minute"
    assert any(key[0] == "backup" for key, *_ in request_finished.receivers)


def test_a_server_that_never_says_that_a_request_has_ended(nightly, starts, monkeypatch):
    """It does not close the response, as uvicorn does not with `--interface wsgi`."""
    seen, answers = [], []
    monkeypatch.setattr(look.watch, "next", 0.0)
    monkeypatch.setattr(look, "_is_due", lambda: seen.append(1))
    environment = RequestFactory().get("/login/").environ
    for _ in range(3):
        answers.append(get_wsgi_application()(environment, lambda *args: None))
    assert seen == [1], "at most once a minute"
    for answer in answers:
        answer.close()


def test_nothing_asks_the_database_and_it_costs_nothing(nightly, watch, starts):
    run.run()
    with CaptureQueriesContext(connection) as queries:
        watch.after_request()
        assert starts == []
        rounds = []
        for _ in range(5):
            begin = time.perf_counter()
            for _ in range(1000):
                watch.after_request()
            rounds.append((time.perf_counter() - begin) / 1000)
    assert len(queries) == 0
    assert min(rounds) < 20e-6


def test_once_a_minute_and_once_where_many_look_at_once(nightly, watch, starts, minutes):
    with ThreadPoolExecutor(20) as pool:
        [*pool.map(lambda _: watch.after_request(), range(200))]
    assert starts == [1]
    minutes(0.9)
    watch.after_request()
    assert starts == [1]
    minutes(0.1)
    watch.after_request()
    assert starts == [1, 1]


def test_what_comes_to_nothing_is_tried_less_and_less_often(nightly, watch, starts, minutes):
    for _ in range(24 * 60):
        watch.after_request()
        minutes(1)
    assert len(starts) == 29, "after 1, 2, 4, 8, 16, 32 minutes, then each hour"
    run.run()
    for _ in range(60):
        watch.after_request()
        minutes(1)
    assert len(starts) <= 30


def test_off(nightly, settings, watch, starts):
    settings.BACKUP_SCHEDULE = "off"
    watch.after_request()
    assert starts == []


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("SCHEDULE", "dayly"), ("SCHEDULE", None), ("SCHEDULE", 7), ("LOCATIONS", "nas"), ("ROOT", 7)],
)
def test_a_run_starts_with_a_wrong_setting_to_tell_of_it(
    nightly, settings, monkeypatch, tmp_path, at, name, wrong
):
    """It fails, and is tried again as rarely as any other that fails."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with freeze_time(at("2026-11-03 12:00")):
        run.run()
    setattr(settings, f"BACKUP_{name}", wrong)
    starts = 0
    for minute in range(3 * 60):
        with freeze_time(at("2026-11-04 00:00") + dt.timedelta(minutes=minute)):
            if look._is_due():
                starts += 1
                with suppress(WrongSettings):
                    run.run()
    assert len(mail.outbox) == 1
    assert f"BACKUP_{name}" in mail.outbox[0].body
    assert starts < 8, "after 1, 5 and 30 minutes, then each hour"


def test_a_child_that_cannot_be_started_breaks_no_request(nightly, watch, monkeypatch, caplog):
    monkeypatch.setattr(look, "python", lambda: "/there/is/no/python")
    monkeypatch.setattr(
        look.subprocess, "run", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("no memory"))
    )
    watch.after_request()
    assert "no memory" in caplog.text


def test_when_a_look_starts_a_child(nightly, settings, at, starts):
    def is_due(moment):
        with freeze_time(moment):
            return look._is_due()

    assert is_due(at("2026-11-03 12:00")), "nothing is known"
    with freeze_time(at("2026-11-03 12:00")):
        name = run.run().backup.name
    assert not is_due(at("2026-11-03 12:00"))
    assert not is_due(at("2026-11-04 02:29"))
    assert is_due(at("2026-11-04 02:30"))
    assert is_due(at("2026-12-04 02:29"))
    assert is_due(at("2026-11-02 12:00")), "the clock was wrong when it was written"
    settings.BACKUP_SCHEDULE = "hourly"
    assert is_due(at("2026-11-03 12:00")), "another schedule"
    settings.BACKUP_SCHEDULE = "30 2 * * *"
    settings.TIME_ZONE = "Asia/Tokyo"
    assert is_due(at("2026-11-03 12:00")), "another zone"
    settings.TIME_ZONE = "Europe/Berlin"
    kept.delete(name)
    assert is_due(at("2026-11-03 12:00")), "the newest is gone"


def test_an_outlook_that_cannot_be_read_is_none(nightly):
    run.run()
    path = next(outlook._paths())
    for text in ("", "[]", "{", '{"written": 1}', "[" * 200_000):
        path.write_text(text)
        assert outlook.read() is None
        assert look._is_due()


def test_sites_whose_databases_have_the_same_name_have_outlooks_of_their_own(nightly, settings):
    """In containers, all databases have the same path."""
    run.run()
    known, key = outlook.read(), settings.SECRET_KEY
    settings.SECRET_KEY = "that of another site"
    assert outlook.read() is None
    assert look._is_due()
    outlook.write(replace(known, state="failed"))
    settings.SECRET_KEY = key
    assert outlook.read() == known


def test_an_outlook_lies_in_the_temporary_folder_where_it_cannot_lie_elsewhere(
    nightly, settings, tmp_path, monkeypatch
):
    run.run()
    known = outlook.read()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "file").touch()
    settings.BACKUP_ROOT = str(tmp_path / "file" / "below")
    assert outlook.read() is None
    outlook.write(known)
    assert outlook.read() == known
    assert len([*tmp_path.glob("babybuddy-backup-*.json")]) == 1


def test_sites_that_only_differ_in_what_is_in_their_databases_have_outlooks_of_their_own(
    nightly, tmp_path, monkeypatch
):
    """Two containers with the same settings, which share BACKUP_ROOT."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run.run()
    known = outlook.read()
    migrations = MigrationRecorder(connection).migration_qs.order_by("pk")
    first = migrations.values("pk", "applied")[0]
    try:
        migrations.filter(pk=first["pk"]).update(applied=first["applied"] - dt.timedelta(days=1))
        memo.forget_site()  # as in a process of the other site
        assert outlook.read() is None
        assert look._is_due()
        outlook.write(replace(known, state="failed"))
        assert outlook.read().state == "failed"
    finally:
        migrations.filter(pk=first["pk"]).update(applied=first["applied"])
        memo.forget_site()
    assert outlook.read() == known


def test_the_database_is_asked_once_in_a_process_which_site_it_is(nightly, django_assert_num_queries):
    run.run()
    memo.forget_site()
    outlook.read()
    with django_assert_num_queries(0):
        assert outlook.read() is not None
        assert not look._is_due()


def test_what_is_written_while_the_database_does_not_answer_is_read_later(nightly, monkeypatch):
    """That people were told of the outage, say."""
    run.run()
    known = outlook.read()

    def silent():
        raise StorageFailed("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(memo, "site_id", silent)
        assert outlook.read() is None
        of_outage = replace(known, written=known.written + 1, state="failed")
        outlook.write(of_outage)
        assert outlook.read() == of_outage
    assert outlook.read() == of_outage
    outlook.write(replace(known, written=known.written + 2))
    with monkeypatch.context() as patch:
        patch.setattr(memo, "site_id", silent)
        assert outlook.read() is None, "else it would say at the next outage that people know"


def pipe(path, content):
    os.mkfifo(path)


def link(path, content):
    other = path.with_name("other")
    other.write_text(content)
    path.symlink_to(other)


def folder(path, content):
    path.mkdir()


def endless(path, content):
    path.symlink_to("/dev/zero")


def of_somebody_else(path, content):
    if os.geteuid():
        pytest.skip("only root can give a file away")
    path.write_text(content)
    os.chown(path, 65534, -1)


@pytest.mark.parametrize("put", [pipe, link, folder, endless, of_somebody_else])
def test_what_is_no_file_of_ours_is_no_outlook(nightly, tmp_path, monkeypatch, put):
    """Anybody may put it into the folder for temporary files; nobody waits for it, or believes it."""
    run.run()
    known = outlook.read()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine, *_others, path = outlook._paths()
    put(path, json.dumps(vars(replace(known, written=known.written + 10, state="failed"))))
    seen = []
    reading = threading.Thread(target=lambda: seen.append(outlook.read()), daemon=True)
    reading.start()
    reading.join(10)
    assert seen == [known]
    mine.unlink()
    assert look._is_due()
    outlook.write(known)
    assert outlook.read() == known


def test_the_newer_outlook_holds(nightly, tmp_path, monkeypatch):
    run.run()
    known = outlook.read()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    *_, path = outlook._paths()
    for seconds in (-10, 10):
        other = replace(known, written=known.written + seconds, state="failed")
        path.write_text(json.dumps(vars(other)))
        assert (outlook.read() == other) is (seconds > 0)


def test_a_database_that_is_not_supported_hinders_no_page(nightly, monkeypatch, watch):
    memo.forget_site()
    with monkeypatch.context() as patch:
        patch.setattr("backup.database.VENDORS", {})
        assert outlook.read() is None
        watch.after_request()

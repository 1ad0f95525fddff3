"""The log that is there although the host has none."""

import io
import logging
import os
import stat
import subprocess
import sys

import pytest

from backup import log_file, services
from backup.conf import conf
from backup.log import logger


@pytest.fixture
def handler(host_db, monkeypatch):
    """Ours, as in a host that has none: the test's own are not heard."""
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers, logger.propagate = [], False
    logger.setLevel(logging.NOTSET)
    log_file.listen()
    (handler,) = logger.handlers
    yield handler
    logger.handlers, level, logger.propagate = before
    logger.setLevel(level)


def lines():
    path = conf.root / log_file.NAME
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def test_each_job_is_a_line_of_the_file(handler, capsys):
    services.create_backup(io.BytesIO())
    assert (lines(), capsys.readouterr().err) == ([], ""), "there is no folder yet"
    services.keep_backup()
    services.create_backup(io.BytesIO())
    kept, made = lines()
    assert "INFO manual backup by the command line: " in kept
    assert "INFO backup by the command line: " in made
    if os.name != "nt":
        assert stat.S_IMODE((conf.root / log_file.NAME).stat().st_mode) == 0o600


def test_the_file_does_not_grow_for_ever(handler, monkeypatch):
    conf.root.mkdir()
    monkeypatch.setattr(log_file, "LARGE", 100)
    for number in range(10):
        logger.info("line %s, which is neither long nor short", number)
    assert {path.name for path in conf.root.iterdir()} <= {"backup.log", "backup.log.1"}
    assert all(path.stat().st_size < 300 for path in conf.root.iterdir())
    last = (conf.root / "backup.log.1").read_text().splitlines() + lines()
    assert "line 9" in last[-1]


def test_where_it_cannot_be_written_warnings_are_seen(handler, capsys, settings):
    settings.BACKUP_ROOT = "/proc/backups"
    logger.info("a trifle")
    logger.warning("of interest")
    assert "of interest" in (said := capsys.readouterr().err)
    assert "trifle" not in said
    memory = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
    settings.STORAGES = {**settings.STORAGES, "backups": memory}
    logger.info("a trifle")
    assert "trifle" in capsys.readouterr().err


def test_a_link_is_not_followed(handler, tmp_path, capsys):
    conf.root.mkdir()
    (conf.root / log_file.NAME).symlink_to(tmp_path / "elsewhere")
    logger.warning("of interest")
    assert not (tmp_path / "elsewhere").exists()
    assert "of interest" in capsys.readouterr().err


def test_a_host_that_listens_has_no_second_log(handler):
    logger.handlers = [logging.NullHandler()]
    log_file.listen()
    assert len(logger.handlers) == 1


def test_a_stock_host_gets_one(host_db):
    """As a host comes: nobody listens to INFO."""
    code = (
        "import django, logging; django.setup();"
        "print([type(handler).__name__ for handler in logging.getLogger('backup').handlers])"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "babybuddy.settings.base", "SECRET_KEY": "x"}
    snippet = (
        "from backup.plug_in import plug_in\nfrom babybuddy.settings.base import *\nplug_in(globals())\n"
    )
    conf.root.mkdir()
    (conf.root / "stock_settings.py").write_text(snippet)
    environment["PYTHONPATH"] = os.pathsep.join([str(conf.root), environment["PYTHONPATH"]])
    environment["DJANGO_SETTINGS_MODULE"] = "stock_settings"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.stdout.strip(), done.returncode) == ("['LogFile']", 0), done.stderr

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from backup.conf import conf
from backup.exceptions import WrongSettings
from backup.upgrade import process


def test_defaults():
    assert conf.max_upload_size == 100 * 1024 * 1024
    assert conf.max_uncompressed_size == 4 * 1024**3
    assert conf.exclude == []
    assert conf.require_superuser is False
    assert conf.safety_copies == 5
    assert conf.staged_seconds == 3600


def test_values_are_read_live(settings):
    settings.BACKUP_MAX_UPLOAD_SIZE = 5
    assert conf.max_upload_size == 5
    settings.BACKUP_EXCLUDE = ("core.timer", " zoo ", "")
    assert conf.exclude == ["core.timer", "zoo"]


@pytest.mark.parametrize(
    ("value", "addresses"),
    [((), []), ("off", ["off"]), ("a@b.c", ["a@b.c"]), (["a@b.c", " d@e.f "], ["a@b.c", "d@e.f"])],
)
def test_who_is_told(settings, value, addresses):
    settings.BACKUP_NOTIFY = value
    assert conf.notify == addresses


@pytest.mark.parametrize(
    ("database", "root"),
    [
        (
            {"ENGINE": "django.db.backends.sqlite3", "NAME": "/config/data/db.sqlite3"},
            "/config/data/backups",
        ),
        (
            {"ENGINE": "django.db.backends.sqlite3", "NAME": Path("/data/db.sqlite3")},
            "/data/backups",
        ),
        ({"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}, "/host/data/backups"),
        (
            {"ENGINE": "django.db.backends.sqlite3", "NAME": "file:x?mode=memory"},
            "/host/data/backups",
        ),
        ({"ENGINE": "django.db.backends.postgresql", "NAME": "baby"}, "/host/data/backups"),
    ],
)
def test_root_is_beside_the_data(settings, monkeypatch, database, root):
    settings.BACKUP_ROOT = None
    settings.BASE_DIR = "/host"
    settings.MEDIA_ROOT = "/host/media"
    monkeypatch.setitem(settings.DATABASES, "default", database)
    assert conf.root == Path(root)


def test_root_is_beside_photos_that_lie_elsewhere(settings, monkeypatch, tmp_path):
    """As the host's guide for bare metal has it: there the server can write, and in the host's folder it cannot."""
    host = tmp_path / "babybuddy" / "public"
    settings.BACKUP_ROOT = None
    settings.BASE_DIR = str(host)
    settings.MEDIA_ROOT = str(host / "../data/media")
    monkeypatch.setitem(settings.DATABASES, "default", {"ENGINE": "django.db.backends.mysql", "NAME": "baby"})
    assert conf.root == tmp_path / "babybuddy" / "data" / "backups"
    (host / "data" / "backups").mkdir(parents=True)
    assert conf.root == host / "data" / "backups", "where they lay before"


@pytest.mark.parametrize(
    ("value", "root"), [("/srv/b", "/srv/b"), ("b", "/host/b"), (Path("/srv/b"), "/srv/b")]
)
def test_root_as_set(settings, value, root):
    settings.BASE_DIR = "/host"
    settings.BACKUP_ROOT = value
    assert conf.root == Path(root)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_UPLOAD_SIZE", "200 MB"),
        ("MAX_UPLOAD_SIZE", 0),
        ("MAX_UPLOAD_SIZE", True),
        ("MAX_UNCOMPRESSED_SIZE", 1.5),
        ("SAFETY_COPIES", -1),
        ("STAGED_SECONDS", None),
        ("EXCLUDE", "core.timer"),
        ("EXCLUDE", [1]),
        ("REQUIRE_SUPERUSER", "ture"),
        ("ROOT", 7),
        ("ROOT", "~nosuchuser/backups"),
        ("SCHEDULE", "dayly"),
        ("KEEP", "lats=7"),
        ("KEEP", ""),
        ("NOTIFY", "somebody"),
        ("NOTIFY", [7]),
        ("PING_URL", "hc-ping.com/1"),
        ("PING_URL", "file:///etc/passwd"),
        ("PING_URL", "http://[foo"),
        ("PING_URL", "https://example.com:port/"),
        ("WEBHOOK_URL", 7),
        ("WEBHOOK_URL", "http://example.com:99999/"),
        ("AUTOMATIC_SECONDS", 0),
        ("AUTOMATIC_SECONDS", 10**10),
        ("STAGED_SECONDS", 10**10),
        ("UPGRADE_SECONDS", 10**10),
    ],
)
def test_wrong_types_are_named(settings, name, value):
    setattr(settings, f"BACKUP_{name}", value)
    with pytest.raises(ImproperlyConfigured, match=f"^BACKUP_{name} must be"):
        getattr(conf, name.lower())


def test_what_a_child_process_says_of_a_wrong_setting_arrives(settings):
    """A child has the settings of its parent, and its parent makes the error of the child's message anew."""
    settings.BACKUP_EXCLUDE = 7
    with pytest.raises(WrongSettings) as caught:
        conf.exclude  # noqa: B018
    error = caught.value
    told = {
        "error": "WrongSettings",
        "message": error.message,
        "details": error.details,
        "offer": error.offer,
    }
    assert process._error(told).message == error.message

"""Each wrong set-up gets its message and a hint; the right one gets none. None may use the database."""

import os
import re
import sys

import pytest
from django.core.checks.registry import registry
from django.db import models
from django.test.utils import isolate_apps

from backup import checks, menu
from backup.archive import Key, encryption
from backup.conf import OPTIONS


def run_checks(**options):
    """Run the checks of no database in particular: of each, some of Django's own ask what it can do."""
    return registry.run_checks(databases=[], **options)


def found(**options):
    """The ids of our messages; each must have a hint."""
    messages = [message for message in run_checks(**options) if str(message.id).startswith("backup.")]
    assert all(message.hint for message in messages)
    return [message.id for message in messages]


def templates(settings, *folders):
    first, *others = settings.TEMPLATES
    settings.TEMPLATES = [{**first, "DIRS": list(folders)}, *others]


OURS = str(menu.OVERRIDE.parents[1])


def test_right_set_up():
    assert found() == []


def test_no_urls(settings):
    settings.ROOT_URLCONF = settings.BACKUP_HOST_URLCONF
    assert "backup.E001" in found()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_UPLOAD_SIZE", "1"),
        ("EXCLUDE", "x"),
        ("REQUIRE_SUPERUSER", "ture"),
        ("ROOT", 7),
        ("SCHEDULE", "dayly"),
        ("KEEP", ""),
        ("ENCRYPT", "nas"),
        ("KEY", 7),
    ],
)
def test_wrong_types(settings, name, value):
    setattr(settings, f"BACKUP_{name}", value)
    assert found() == ["backup.W013"]


@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_said_of_a_wrong_setting_is_for_people(settings, name):
    """The hint is a docstring."""
    setattr(settings, name, "off" if name == "BACKUP_LOCATIONS" else object())
    (hint,) = {
        message.hint for message in run_checks() if message.id == "backup.W013" and name in message.msg
    }
    assert hint.startswith(f"What it is: {name}")
    assert not re.search(r"Return|Raise|None|->|  |\n", hint)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BACKUP_LOCATION", "BACKUP_LOCATIONS"),
        ("BACKUP_SCHEDUEL", "BACKUP_SCHEDULE"),
        ("BACKUP_REQUIRE_SUPERUSERS", "BACKUP_REQUIRE_SUPERUSER"),
        ("BACKUP_ENCRYPTION", "BACKUP_ENCRYPT"),
    ],
)
def test_a_misspelled_name_is_named_with_the_right_one(settings, monkeypatch, name, meant):
    setattr(settings, name, "x")
    assert found() == ["backup.W017"]
    (message,) = (message for message in run_checks() if message.id == "backup.W017")
    assert f" {name}," in message.msg
    assert f" {meant} " in message.hint
    delattr(settings, name)
    monkeypatch.setenv(name, "x")
    assert found() == ["backup.W017"]


def test_names_of_others(settings, monkeypatch):
    """The environment has those of other programs; in the settings, nobody but this app uses such names."""
    for name in ("BACKUP_DIR", "BACKUP_KEEP_DAYS", "BACKUP_CRON_EXPRESSION", "BACKUP_TEST_ALL", "BACKUP_KEY"):
        monkeypatch.setenv(name, "x")
    assert found() == []
    settings.BACKUP_DIR = "/srv"
    assert found() == ["backup.W017"]


@pytest.mark.parametrize("served", ["MEDIA_ROOT", "STATIC_ROOT", "WHITENOISE_ROOT"])
@pytest.mark.parametrize("below", ["", "deep/down"])
def test_root_that_everybody_can_read(settings, tmp_path, served, below):
    setattr(settings, served, str(tmp_path))
    settings.BACKUP_ROOT = tmp_path / below
    assert found() == ["backup.E003"]


def test_root_is_no_matter_where_backups_go_elsewhere(settings, tmp_path):
    settings.MEDIA_ROOT = settings.BACKUP_ROOT = str(tmp_path)
    settings.STORAGES = {**settings.STORAGES, "backups": settings.STORAGES["default"]}
    assert found() == []


def test_root_that_cannot_be_written(settings, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    settings.BACKUP_ROOT = file / "below"
    assert found() == ["backup.W001"]
    settings.BACKUP_ROOT = tmp_path / "below"
    assert found() == []
    monkeypatch.setattr(os, "access", lambda path, mode, **options: False)
    assert found() == ["backup.W001"]


def test_unknown_names_to_leave_out(settings):
    settings.BACKUP_EXCLUDE = ["core.timer", "zoo", "core.timre", "nothing"]
    assert found() == ["backup.E004", "backup.E004"]


@pytest.mark.skipif(not hasattr(models, "CompositePrimaryKey"), reason="Django 5.2+")
def test_composite_key(settings, monkeypatch):
    from backup import scope

    with isolate_apps("tests.zoo"):

        class Two(models.Model):
            pk = models.CompositePrimaryKey("a", "b")
            a = models.IntegerField()
            b = models.IntegerField()

            class Meta:
                app_label = "zoo"

    in_scope = scope.models_in_scope()
    monkeypatch.setattr(scope, "models_in_scope", lambda exclude=(): [*in_scope, Two])
    assert found() == ["backup.E005"]


def test_another_template_first(settings):
    templates(settings, *settings.TEMPLATES[0]["DIRS"][1:], OURS)
    assert found() == ["backup.W002"]
    templates(settings, *settings.TEMPLATES[0]["DIRS"][:-1])
    assert found() == ["backup.W002"]


@pytest.mark.parametrize(
    ("text", "placed"),
    [
        ("""<a href="{% url 'admin:index' %}" class="dropdown-item">Admin</a>""", True),
        (
            """{% if a %}<a class="dropdown-item"\n href={% url 'admin:index' %}>{{ b }}</a>{% endif %}""",
            True,
        ),
        ("""<a href="{% url 'admin:index' %}">Admin</a>""", False),
        ("""<a href="{% url 'admin:index' %}" class="dropdown-item">Admin""", False),
        ("""<a href="{% url 'admin:logout' %}" class="dropdown-item">Out</a>""", False),
        ("", False),
    ],
)
def test_place_in_the_menu(settings, tmp_path, text, placed):
    host = tmp_path / menu.NAME
    host.parent.mkdir()
    host.write_text("{% block nav %}" + text + "{% endblock %}", encoding="utf-8")
    templates(settings, OURS, str(tmp_path), *settings.TEMPLATES[0]["DIRS"][1:])
    assert found() == ([] if placed else ["backup.W003"])


def test_there_is_no_host_template(settings):
    first, *others = settings.TEMPLATES
    settings.TEMPLATES = [{**first, "DIRS": [OURS], "APP_DIRS": False}, *others]
    assert found() == ["backup.W003"]


def test_host_template_that_is_broken(settings, tmp_path):
    host = tmp_path / menu.NAME
    host.parent.mkdir()
    host.write_text("{% nonsense %}", encoding="utf-8")
    templates(settings, OURS, str(tmp_path), *settings.TEMPLATES[0]["DIRS"][1:])
    assert found() == ["backup.W003"]


def test_no_tokens(settings):
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "rest_framework.authtoken"]
    assert "backup.W004" in found()


def test_a_key_that_is_none(settings):
    settings.BACKUP_KEY = "hunter2"
    assert found() == ["backup.W015"]
    assert not any("hunter2" in str(message) for message in run_checks())
    settings.BACKUP_KEY = Key.make().text
    assert found() == []


def test_no_library_for_encryption(settings, monkeypatch):
    monkeypatch.setattr(encryption, "AES", None)
    assert found() == []
    settings.BACKUP_ENCRYPT = ["local"]
    assert found() == ["backup.W016"]


SECRET = "Hunter2Hunter2"


@pytest.mark.parametrize(
    "address",
    [
        f"s3://AKIA:{SECRET}/x@bucket",
        f"s3://AKIA:{SECRET}%x@bucket",
        f"s3://:{SECRET}@bucket",
        f"sftp://u:{SECRET}@host:x/y",
        f"sftp://u:{SECRET}@host/y?key={SECRET}",
        f"webdav://u:{SECRET}@192.0.2.1/y",
        f"gopher://u:{SECRET}@host/y",
        "storage:nowhere",
        "relative/folder",
    ],
)
def test_a_location_whose_address_is_wrong(settings, address):
    settings.BACKUP_LOCATIONS = {"there": address}
    assert found() == ["backup.W014"]
    assert not any(SECRET in str(message) or address in str(message) for message in run_checks())


@pytest.mark.parametrize(
    "value",
    [
        f"s3://AKIA:{SECRET}@bucket",
        f"There=s3://AKIA:{SECRET}@bucket",
        f"there=s3://AKIA:{SECRET},{SECRET}@bucket",
        f"local=s3://AKIA:{SECRET}@bucket",
        f"a=s3://AKIA:{SECRET}@bucket,a=/mnt",
        [f"s3://AKIA:{SECRET}@bucket"],
        {"a": ""},
        {f"a {SECRET}": "/mnt"},
        7,
        [7],
    ],
)
def test_locations_that_are_none(settings, value):
    settings.BACKUP_LOCATIONS = value
    assert found() == ["backup.W013"]
    assert not any(SECRET in str(message) for message in run_checks(include_deployment_checks=True))


@pytest.mark.parametrize(
    ("name", "address"),
    [("boto3", "s3://AKIA:secret@bucket"), ("paramiko", "sftp://u@host/x"), ("httpx", "webdavs://host/x")],
)
def test_a_location_whose_library_is_missing(settings, monkeypatch, name, address):
    pytest.importorskip(name)
    settings.BACKUP_LOCATIONS = {"there": address}
    assert found() == []
    monkeypatch.setitem(sys.modules, name, None)
    assert found() == ["backup.W014"]


def test_a_location_where_the_backups_themselves_are(settings, tmp_path, monkeypatch):
    settings.BACKUP_ROOT = tmp_path / "root"
    media = {"BACKEND": "django.core.files.storage.FileSystemStorage"}
    settings.STORAGES = {
        **settings.STORAGES,
        "same": {**media, "OPTIONS": {"location": str(tmp_path / "root")}},
    }
    (tmp_path / "link").symlink_to(tmp_path / "root")
    for address in ("root", "link", "storage:same"):
        settings.BACKUP_LOCATIONS = {"there": address if ":" in address else f"{tmp_path / address}"}
        assert found() == ["backup.W014"], address
    for address, told in (("rooted", []), ("root/nas", ["backup.W020"]), ("", ["backup.W020"])):
        settings.BACKUP_LOCATIONS = {"there": f"{tmp_path / address}"}
        assert found() == told, address
    monkeypatch.setattr(checks, "_disk", str)  # each folder is a disk of its own
    for address in ("root/nas", ""):
        settings.BACKUP_LOCATIONS = {"there": f"{tmp_path / address}"}
        assert found() == [], address


def test_two_names_for_one_location(settings, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nas")
    same = ["backup.W019"]
    for first, second, told in (
        (tmp_path / "nas", tmp_path / "link", same),
        (tmp_path / "nas", tmp_path / "other", []),
        ("s3://AKIA:secret@bucket/x", "s3://bucket/x/?region_name=eu", same),
        ("s3://bucket/x", "s3://bucket/x?endpoint_url=https://minio", []),
        ("s3://bucket/x", "s3://bucket/y", []),
        ("sftp://u:secret@host/x", "sftp://u@host/x?host_key=SHA256:x", same),
        ("sftp://u@host/x", "sftp://v@host/x", []),
        ("webdavs://u:secret@host/x", "webdavs://u@host/x/", same),
    ):
        settings.BACKUP_LOCATIONS = {"first": first, "second": second}
        assert found() == told, second


def test_a_location_that_everybody_can_read(settings, tmp_path):
    settings.MEDIA_ROOT = str(tmp_path)
    settings.STORAGES = {
        **settings.STORAGES,
        "media": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    }
    for address in (tmp_path, tmp_path / "below", "storage:media"):
        settings.BACKUP_LOCATIONS = {"there": address}
        assert found() == ["backup.E009"]


def test_mails_that_have_no_sender(settings):
    settings.BACKUP_SCHEDULE = "daily"
    settings.DEFAULT_FROM_EMAIL = ""
    assert found() == ["backup.W011"]
    settings.BACKUP_NOTIFY = "off"
    assert found() == []


@pytest.mark.parametrize("backend", ["console", "dummy"])
def test_a_site_that_sends_no_mails(settings, backend):
    """As Baby Buddy without EMAIL_HOST. It is enough if programs are told, or nobody."""
    settings.BACKUP_SCHEDULE = "daily"
    settings.EMAIL_BACKEND = f"django.core.mail.backends.{backend}.EmailBackend"
    assert found() == [], "each command would say it"
    assert found(include_deployment_checks=True) == ["backup.W018"]
    settings.BACKUP_WEBHOOK_URL = "https://example.org/"
    assert found(include_deployment_checks=True) == []
    del settings.BACKUP_WEBHOOK_URL
    settings.BACKUP_PING_URL = "https://example.org/"
    assert found(include_deployment_checks=True) == []
    del settings.BACKUP_PING_URL
    settings.BACKUP_NOTIFY = "off"
    assert found(include_deployment_checks=True) == []
    del settings.BACKUP_NOTIFY
    settings.BACKUP_SCHEDULE = "off"
    assert found(include_deployment_checks=True) == []


def test_copies_that_leave_in_clear(settings, tmp_path):
    """Of a place that is another machine, as far as its address says; and not once they are encrypted."""
    settings.BACKUP_ROOT, settings.BACKUP_NOTIFY = tmp_path / "root", "off"
    memory = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
    settings.STORAGES = {**settings.STORAGES, "offsite": memory}
    clear = ["backup.W009"]
    for address, told in (
        (tmp_path / "nas", []),
        ("storage:offsite", clear),
        ("s3://AKIA:secret@bucket", clear),
        ("s3://AKIA:secret@bucket?endpoint_url=http://127.0.0.1:9", clear),
        ("s3://AKIA:secret@bucket?endpoint_url=http://192.0.2.1:9", [*clear, "backup.W010"]),
        ("sftp://u@host/x", clear),
        ("webdavs://host/x", clear),
        ("webdav://host/x?insecure=yes", [*clear, "backup.W010"]),
    ):
        settings.BACKUP_LOCATIONS = {"there": address}
        assert found() == []
        assert found(include_deployment_checks=True) == told
    settings.STORAGES = {**settings.STORAGES, "backups": memory}
    settings.BACKUP_LOCATIONS = {}
    assert found(include_deployment_checks=True) == clear
    settings.BACKUP_KEY = Key.make().text
    settings.BACKUP_ENCRYPT = "local"
    assert found(include_deployment_checks=True) == []
    settings.BACKUP_ENCRYPT = None
    settings.BACKUP_LOCATIONS = {"there": "sftp://u@host/x"}
    assert found(include_deployment_checks=True) == clear, (
        "of the storage; the location is encrypted by itself"
    )
    settings.BACKUP_ENCRYPT = "off"
    assert found(include_deployment_checks=True) == [*clear, *clear]

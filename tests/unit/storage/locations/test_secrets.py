"""Whatever an address is, and however wrong: nothing of it is in a message, a repr, a setting that is shown, a log."""

import traceback
from urllib.parse import quote

import pytest
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.test import RequestFactory
from django.views.debug import ExceptionReporter
from hypothesis import example, given
from hypothesis import strategies as st

from backup.conf import conf
from backup.exceptions import BackupError
from backup.plug_in import Hidden, plug_in
from backup.storage.locations.clients import KINDS, client_of
from backup.storage.locations.location import Location

SECRET = st.text(min_size=8, max_size=20).map(lambda text: f"Zq{text}qZ")
SCHEMES = st.sampled_from([*KINDS, "ftp", "", "S3", "storage"])
REST = st.sampled_from(
    ["host", "host/path", "host:x", "", "[::1]/x", "h?endpoint_url=x", "h?insecure=no", "a b/c"]
)


@given(SCHEMES, SECRET, SECRET, REST, st.booleans())
@example("sftp", "Zq/aqZaaaa", "Zq?bqZaaaa", "host", False)
@example("webdavs", "Zq[aqZaaaa", "Zq\ud800bqZaaa", "host", False)
def test_no_message_has_a_secret(scheme, user, password, rest, is_quoted):
    if is_quoted:
        said = f"{quote(user.encode(errors='replace'), safe='')}:{quote(password.encode(errors='replace'), safe='')}"
    else:
        said = f"{user}:{password}"
    address = f"{scheme}://{said}@{rest}"
    place = Location("there", address)
    shown = repr(place) + str(place)
    try:
        client = client_of(address)
        shown += repr(client) + str(client)
        shown += repr(getattr(client, "_address", ""))
        client.close()
    except BackupError as error:
        shown += "".join(traceback.format_exception(error)) + repr(error)
    for secret in (user, password, said):
        assert secret not in shown
    assert "Zq" not in shown


@given(
    SECRET,
    st.sampled_from(
        ["{}", "{}=/mnt", "a={}", "a=/mnt,{}", "a=/mnt,a={}", "local={}", "A={}", "a=s3://x:{0}@b,{0}=x"]
    ),
)
def test_no_setting_that_is_wrong_has_a_secret(secret, form):
    old = getattr(django_settings, "BACKUP_LOCATIONS", None)
    django_settings.BACKUP_LOCATIONS = form.format(secret)
    try:
        found = conf.locations
        shown = " ".join(found)
    except ImproperlyConfigured as error:
        shown = "".join(traceback.format_exception(error)) + repr(error)
    finally:
        django_settings.BACKUP_LOCATIONS = old
    assert secret not in shown
    assert "Zq" not in shown


def test_what_the_snippet_sets_is_not_shown(settings, monkeypatch, capsys):
    """Neither in Django's report of an error, as admins get it by mail, nor by `manage.py diffsettings`."""
    secret = "".join(["Zq", "secret", "qZ"])  # reports show the lines of this function
    monkeypatch.setenv("BACKUP_LOCATIONS", f"cloud=s3://AKIA:{secret}@bucket, nas=/mnt/nas\n")
    values = {"INSTALLED_APPS": [], "ROOT_URLCONF": "x", "TEMPLATES": [{}]}
    plug_in(values)
    assert isinstance(values["BACKUP_LOCATIONS"], Hidden)
    settings.BACKUP_LOCATIONS = values["BACKUP_LOCATIONS"]
    assert conf.locations == {"cloud": f"s3://AKIA:{secret}@bucket", "nas": "/mnt/nas"}
    try:
        raise ValueError("something")
    except ValueError as error:
        reporter = ExceptionReporter(RequestFactory().get("/"), type(error), error, error.__traceback__)
        for text in (reporter.get_traceback_text(), reporter.get_traceback_html()):
            assert "BACKUP_LOCATIONS" in text
            settings_of_it = text[text.index("BACKUP_LOCATIONS", text.index("Using settings module")) :]
            assert secret not in settings_of_it
    call_command("diffsettings", all=True)
    assert secret not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a", "nas-2", "0" * 40])
def test_names(settings, name):
    settings.BACKUP_LOCATIONS = [f" {name} = /mnt/a=b "]
    assert conf.locations == {name: "/mnt/a=b"}
    settings.BACKUP_LOCATIONS = {name: "/mnt/a,b"}
    assert conf.locations == {name: "/mnt/a,b"}
    settings.BACKUP_LOCATIONS = f"\n{name}=/mnt/a\nother=/mnt/b,third=/mnt/c\n"
    assert conf.locations == {name: "/mnt/a", "other": "/mnt/b", "third": "/mnt/c"}

"""Whatever an address is, and however wrong: nothing of it is in a message, a repr, a setting that is shown, a log."""

import json
import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from hypothesis import example, given
from hypothesis import strategies as st

from backup.conf import conf, hidden
from backup.exceptions import BackupError
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


#: Prints what Django's report of an error shows, as admins get it by mail, and what `manage.py diffsettings` does.
SHOW = """
import sys, django
from django.core.management import call_command
from django.views.debug import ExceptionReporter
django.setup()
from backup.conf import conf, hidden
found = [conf.locations, conf.key, conf.ping_url, conf.webhook_url]
assert str(found[0]["cloud"]) + found[1] + found[2] + found[3] == sys.stdin.read(), "and they are read all the same"
try:
    raise ValueError("something")
except ValueError:
    reporter = ExceptionReporter(None, *sys.exc_info())
print(reporter.get_traceback_text(), reporter.get_traceback_html(), sep="\\n")
call_command("diffsettings", all=True)
call_command("diffsettings", output="unified", default="babybuddy.settings.test")
"""
ADDRESS, KEY = "s3://AKIA:Zq1@bucket", "ZqKEY"
PING, HOOK = "https://Zq2.example.com/Zq3", "https://user:Zq4@example.com/"
SET = [
    f"BACKUP_LOCATIONS = 'cloud={ADDRESS}, nas=/mnt/nas'",
    f"BACKUP_LOCATIONS = ['cloud={ADDRESS}']",
    f"BACKUP_LOCATIONS = ('cloud={ADDRESS}', 'nas=/mnt/nas')",
    f"BACKUP_LOCATIONS = {{'cloud': '{ADDRESS}'}}",
    "",
]


@pytest.mark.parametrize("text", SET)
def test_no_secret_among_the_settings_is_shown(tmp_path, text):
    """Whatever form it has, and whether it is set before the snippet, after it, or in the environment."""
    options = {"BACKUP_KEY": KEY, "BACKUP_PING_URL": PING, "BACKUP_WEBHOOK_URL": HOOK}
    assignments = "".join(f"{name} = {value!r}\n" for name, value in options.items())
    before, after = (f"{text}\n", assignments) if "(" in text else ("", f"{text}\n{assignments}")
    (tmp_path / "site_of_a_family.py").write_text(
        f"{before}from tests.settings import *\n{after if text else ''}"
    )
    root = str(Path(__file__).resolve().parents[4])
    done = subprocess.run(
        [sys.executable, "-c", SHOW],
        input=ADDRESS + KEY + PING + HOOK,
        env={
            **{name: value for name, value in os.environ.items() if name not in options},
            **({} if text else {**options, "BACKUP_LOCATIONS": f"cloud={ADDRESS}, nas=/mnt/nas\n"}),
            "DJANGO_SETTINGS_MODULE": "site_of_a_family",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), root, *sys.path]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("BACKUP_LOCATIONS", *options):
        assert done.stdout.count(f"{name} = ") >= 2
    assert "Zq" not in done.stdout


def test_a_hidden_text_is_one(settings):
    """It goes on being one wherever it comes along; only what is shown of it is nothing."""
    for value in (hidden("a=Zq"), pickle.loads(pickle.dumps(hidden("a=Zq")))):
        assert (value, f"{value}", json.dumps(value)) == ("a=Zq", "a=Zq", '"a=Zq"')
        assert "Zq" not in repr({"x": [value]})
    assert hidden({"a": Path("/x"), "b": ["c", ("d",)], "e": 1}) == {
        "a": Path("/x"),
        "b": ["c", ("d",)],
        "e": 1,
    }
    settings.BACKUP_LOCATIONS = "there=s3://a:Zq@b"
    assert "Zq" not in repr(conf.locations), "nor as a variable in a traceback"


@pytest.mark.parametrize("name", ["a", "nas-2", "0" * 40])
def test_names(settings, name):
    settings.BACKUP_LOCATIONS = [f" {name} = /mnt/a=b "]
    assert conf.locations == {name: "/mnt/a=b"}
    settings.BACKUP_LOCATIONS = {name: "/mnt/a,b"}
    assert conf.locations == {name: "/mnt/a,b"}
    settings.BACKUP_LOCATIONS = f"\n{name}=/mnt/a\nother=/mnt/b,third=/mnt/c\n"
    assert conf.locations == {name: "/mnt/a", "other": "/mnt/b", "third": "/mnt/c"}

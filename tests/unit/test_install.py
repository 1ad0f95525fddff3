"""The snippet in settings modules of all kinds, and the command that appends it."""

import os
import re
import runpy
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.urls import clear_url_caches, get_resolver, reverse

from backup import install

ROOT = Path(install.__file__).resolve().parents[1]
SNIPPET = (ROOT / "babybuddy_settings_snippet.py").read_text(encoding="utf-8")
MINIMAL = """\
INSTALLED_APPS = ("babybuddy", "core")
ROOT_URLCONF = "babybuddy.urls"
TEMPLATES = [{"BACKEND": "django", "DIRS": ["a", "b"], "OPTIONS": {"x": 1}}, {"BACKEND": "jinja2"}]
"""


@pytest.fixture(autouse=True)
def no_options(monkeypatch):
    for name in [name for name in os.environ if name.startswith("BACKUP_")]:
        monkeypatch.delenv(name)


def settings_of(folder, text, name="base"):
    """What a settings module of this text sets."""
    path = folder / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    return {key: value for key, value in runpy.run_path(str(path)).items() if not key.startswith("__")}


# --- The snippet ------------------------------------------------------------------------------------------


def test_snippet_plugs_in(tmp_path):
    found = settings_of(tmp_path, MINIMAL + SNIPPET)
    folder = str(ROOT / "backup" / "overrides")
    assert found == {
        "INSTALLED_APPS": ["babybuddy", "core", "backup"],
        "ROOT_URLCONF": "backup.root_urls",
        "BACKUP_HOST_URLCONF": "babybuddy.urls",
        "TEMPLATES": [
            {"BACKEND": "django", "DIRS": [folder, "a", "b"], "OPTIONS": {"x": 1}},
            {"BACKEND": "jinja2"},
        ],
    }, "and it leaves no names of its own"


def test_snippet_twice_is_as_once(tmp_path):
    once = settings_of(tmp_path, MINIMAL + SNIPPET)
    assert settings_of(tmp_path, MINIMAL + SNIPPET + SNIPPET) == once


def test_snippet_in_a_chain_of_modules(tmp_path, monkeypatch):
    """In the base, in the module that imports it, or in both."""
    monkeypatch.syspath_prepend(str(tmp_path))
    once = settings_of(tmp_path, MINIMAL + SNIPPET, "chain_base")
    assert settings_of(tmp_path, "from chain_base import *\n", "chain_plain") == once
    assert settings_of(tmp_path, "from chain_base import *\n" + SNIPPET, "chain_both") == once


def test_snippet_follows_a_module_that_sets_other_urls_and_templates(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    settings_of(tmp_path, MINIMAL + SNIPPET, "other_base")
    other = "from other_base import *\nROOT_URLCONF = 'mine.urls'\nTEMPLATES[0]['DIRS'].insert(0, 'mine')\n"
    found = settings_of(tmp_path, other + SNIPPET, "other")
    assert found["BACKUP_HOST_URLCONF"] == "mine.urls"
    assert found["TEMPLATES"][0]["DIRS"] == [str(ROOT / "backup" / "overrides"), "mine", "a", "b"]


def test_snippet_reads_the_environment_with_types(tmp_path, monkeypatch):
    monkeypatch.setenv("BACKUP_MAX_UPLOAD_SIZE", "209715200")
    monkeypatch.setenv("BACKUP_REQUIRE_SUPERUSER", "yes")
    monkeypatch.setenv("BACKUP_EXCLUDE", "metrics,imports.log")
    monkeypatch.setenv("BACKUP_ROOT", "/srv/backups")
    monkeypatch.setenv("BACKUP_SAFETY_COPIES", "")
    found = settings_of(
        tmp_path, MINIMAL + "BACKUP_SAFETY_COPIES = 9\nBACKUP_ROOT = '/elsewhere'\n" + SNIPPET
    )
    assert found["BACKUP_MAX_UPLOAD_SIZE"] == 200 * 1024 * 1024
    assert found["BACKUP_REQUIRE_SUPERUSER"] is True
    assert found["BACKUP_EXCLUDE"] == ["metrics", "imports.log"]
    assert found["BACKUP_ROOT"] == "/srv/backups"
    assert found["BACKUP_SAFETY_COPIES"] == 9, "an empty variable is none"
    assert "BACKUP_STAGED_SECONDS" not in found, "what nobody set is left to conf.py"


@pytest.mark.parametrize(("text", "value"), [("false", False), ("0", False), ("on", True), ("ture", "ture")])
def test_snippet_never_takes_a_typo_for_no(tmp_path, monkeypatch, text, value):
    monkeypatch.setenv("BACKUP_REQUIRE_SUPERUSER", text)
    assert settings_of(tmp_path, MINIMAL + SNIPPET)["BACKUP_REQUIRE_SUPERUSER"] == value


def test_snippet_keeps_a_wrong_number_for_the_check_to_name(tmp_path, monkeypatch):
    monkeypatch.setenv("BACKUP_MAX_UPLOAD_SIZE", "200 MB")
    assert settings_of(tmp_path, MINIMAL + SNIPPET)["BACKUP_MAX_UPLOAD_SIZE"] == "200 MB"


def test_snippet_without_the_package(tmp_path):
    """An image that was renewed: Baby Buddy starts all the same, and its log says why the entry is missing."""
    path = tmp_path / "base.py"
    path.write_text(MINIMAL + SNIPPET + "print(INSTALLED_APPS, ROOT_URLCONF)", encoding="utf-8")
    command = [sys.executable, "-I", "-S", path]  # no packages at all
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "('babybuddy', 'core') babybuddy.urls\n")
    assert done.stderr == "Backup & Restore is not available: No module named 'backup'\n"


def test_a_host_that_finds_plug_ins_by_their_entry_point(tmp_path):
    """With the snippet or without it, the app is there once."""
    (entry,) = re.findall(r'^backup = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    found = f"INSTALLED_APPS = [*INSTALLED_APPS, {entry.replace(':', '.')!r}]\n"
    for name, snippet in (("plug_in_alone", ""), ("plug_in_twice", SNIPPET)):
        text = "from babybuddy.settings.test import *\n" + found + snippet
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
        environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": name,
            "PYTHONPATH": path,
            "BACKUP_EXCLUDE": "core.timer",
        }
        code = """if True:
            import django; django.setup()
            from django.core.management import call_command
            from django.urls import reverse
            from backup.conf import conf
            print(reverse('backup:index'), reverse('babybuddy:login'), conf.exclude)
            call_command('check', tag=['urls', 'templates'])
        """
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[0] == "/backup/ /login/ ['core.timer']"
        assert "no issues" in done.stdout


# --- The URLs ---------------------------------------------------------------------------------------------


def test_urls_of_the_host_stay(settings):
    import babybuddy.urls

    assert reverse("backup:index") == "/backup/"
    assert reverse("babybuddy:login") == "/login/"
    resolver = get_resolver()
    assert resolver.url_patterns[1:] == babybuddy.urls.urlpatterns
    assert {"admin", "babybuddy", "core", "dashboard", "backup"} <= set(resolver.namespace_dict)


def test_error_handlers_of_the_host_stay(settings, tmp_path, monkeypatch):
    (tmp_path / "host_with_handlers.py").write_text(
        "from django.http import HttpResponse\n"
        "urlpatterns = []\n"
        "def handler404(request, exception): return HttpResponse('ours', status=404)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import backup
    from backup import root_urls as before

    settings.BACKUP_HOST_URLCONF = "host_with_handlers"
    monkeypatch.delitem(sys.modules, "backup.root_urls")
    clear_url_caches()
    try:
        resolver = get_resolver("backup.root_urls")
        assert resolver.resolve_error_handler(404)(None, None).content == b"ours"
        assert resolver.resolve_error_handler(500).__module__ == "django.views.defaults"
    finally:
        backup.root_urls = before
        clear_url_caches()


# --- python -m backup.install -----------------------------------------------------------------------------


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "backup.install", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
    )


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "base.py"
    path.write_text(
        MINIMAL.rstrip(), encoding="utf-8"
    )  # no line end: the snippet must not join the last line
    path.chmod(0o640)
    return path


def test_install_appends_once(module):
    first = run(module)
    assert (first.returncode, first.stderr) == (0, "")
    assert str(module) in first.stdout
    once = module.read_text(encoding="utf-8")
    assert once == MINIMAL.rstrip() + "\n\n\n" + SNIPPET
    second = run(module)
    assert second.returncode == 0
    assert "already" in second.stdout
    assert module.read_text(encoding="utf-8") == once
    assert runpy.run_path(str(module))["ROOT_URLCONF"] == "backup.root_urls"


OLD = """\
# --- babybuddy-backup: begin ------------------------------------------------------------------------------
# An earlier version.
def _plug_in_backup(settings):
    1 / 0


_plug_in_backup(globals())
del _plug_in_backup
# --- babybuddy-backup: end --------------------------------------------------------------------------------
"""


@pytest.mark.parametrize("after", ["", "\nTIME_ZONE = 'UTC'\n"])
def test_install_brings_an_earlier_snippet_up_to_date(module, after):
    module.write_text(MINIMAL + "\n\n" + OLD + after, encoding="utf-8")
    first = run(module)
    assert (first.returncode, first.stderr) == (0, "")
    assert "up to date" in first.stdout
    assert module.read_text(encoding="utf-8") == MINIMAL + "\n\n" + SNIPPET + after, "in its place"
    assert "already" in run(module).stdout


def test_install_keeps_mode_and_link_and_leaves_nothing_else(module, tmp_path):
    link = tmp_path / "link.py"
    link.symlink_to(module)
    assert run(link).returncode == 0
    assert link.is_symlink()
    assert SNIPPET in module.read_text(encoding="utf-8")
    assert stat.S_IMODE(module.stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.py", "link.py"]


def test_install_into_a_module_that_only_imports(tmp_path):
    path = tmp_path / "production.py"
    path.write_text("from .base import *\n", encoding="utf-8")
    assert run(path).returncode == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "missing"),
        ("print('hello')\n", "no Django settings module"),
        ("INSTALLED_APPS = [\n", "no Python module"),
        ("INSTALLED_APPS = '\0'\n", "no Python module"),
    ],
)
def test_install_says_what_is_wrong(tmp_path, content, reason):
    path = tmp_path / "base.py"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    result = run(path)
    assert (result.returncode, result.stdout) == (1, "")
    assert reason in result.stderr
    assert "Traceback" not in result.stderr
    assert content is None or path.read_text(encoding="utf-8") == content


def test_install_refuses_a_folder(tmp_path):
    result = run(tmp_path)
    assert result.returncode == 1
    assert "no file" in result.stderr


def test_install_does_not_write_what_it_may_not(module, monkeypatch):
    """(A superuser of the system may write all, so the question is asked of the system's answer.)"""
    monkeypatch.setattr(install.os, "access", lambda path, mode: False)
    with pytest.raises(install.InstallError, match="may not be written"):
        install.install(module)
    assert module.read_text(encoding="utf-8") == MINIMAL.rstrip()


def test_install_that_fails_midway_changes_nothing(module, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(install.os, "fsync", full)
    with pytest.raises(install.InstallError, match="No space left"):
        install.install(module)
    assert module.read_text(encoding="utf-8") == MINIMAL.rstrip()
    assert list(tmp_path.iterdir()) == [module]


def test_install_wants_one_argument():
    assert run().returncode == 2

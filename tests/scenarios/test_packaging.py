"""What a person installs: the wheel, alone in an empty environment, plugged into a host by its one command."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from backup.install import snippet
from tests.support.matrices import full_run_only

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow  # all of them, so that one process builds the wheel
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def run(*command, cwd, **environment):
    """Returns what the command printed; fails with it where the command failed. Nothing of this repository helps."""
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("BACKUP_", "DJANGO_"))}
    for name in ("PYTHONPATH", "DATABASE_URL"):
        keep.pop(name, None)
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=keep | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing left over from an earlier build gets in, and nothing is left here."""
    source = tmp_path_factory.mktemp("source") / "repository"
    shutil.copytree(
        REPOSITORY,
        source,
        ignore=shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests"),
    )
    target = tmp_path_factory.mktemp("wheel")
    run(*PIP, "wheel", "--quiet", "--no-deps", "--wheel-dir", target, source, cwd=source)
    (found,) = target.glob("*.whl")
    return found


def test_the_wheel_holds_all_of_the_app_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    app = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "backup").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    assert held == app | {"babybuddy_settings_snippet.py"}


def test_it_needs_no_more_than_it_says(wheel):
    """The license, the README and the requirements are in the metadata; the extras are for this repository."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
        points = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert points.split() == ["[babybuddy.plugins]", "backup", "=", "backup.apps:BackupConfig"]
    assert "License-Expression: BSD-2-Clause" in metadata
    needed = {
        line.removeprefix("Requires-Dist: ").partition(">")[0].lower()
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist: ") and "extra ==" not in line
    }
    assert needed == {"cronsim", "django", "django-environ", "djangorestframework", "isal", "orjson", "tqdm"}
    assert (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()[0] in metadata


@full_run_only
def test_from_an_empty_environment_to_a_restore(wheel, tmp_path):
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)  # it is filled from outside, by the pip that is here
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [*PIP, "--python", python, "install", "--quiet", "--no-compile"]
    run(*install, f"babybuddy-backup[host] @ {wheel.as_uri()}", cwd=tmp_path)

    host = tmp_path / "host"
    shutil.copytree(
        REPOSITORY / "tests" / "host", host, ignore=shutil.ignore_patterns("__pycache__", "data", "media")
    )
    (host / "data").mkdir()
    settings = host / "babybuddy" / "settings" / "development.py"

    def manage(*arguments):
        return run(python, "manage.py", *arguments, cwd=host)

    assert "was added" in run(python, "-m", "backup.install", settings, cwd=tmp_path)
    assert "already" in run(python, "-m", "backup.install", settings, cwd=tmp_path)
    assert settings.read_bytes().endswith(snippet())

    assert "no issues" in manage("check", "--fail-level", "WARNING")
    manage("migrate", "--verbosity", "0")
    assert "No changes" in manage("makemigrations", "--check", "--dry-run", "backup")
    where = Path(manage("shell", "--verbosity", "0", "-c", "import backup; print(backup.__file__)").strip())
    assert where.is_relative_to(environment)

    backup = Path(manage("backup").splitlines()[0])
    assert backup.parent == host / "data" / "backups"
    assert "is whole" in manage("verify_backup", backup)
    assert "auth.user" in manage("restore", backup, "--dry-run")
    assert "records restored" in manage("restore", backup, "--clear", "--no-input")
    assert "records restored" in manage("restore", "--undo", "--no-input")

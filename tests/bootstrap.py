"""Gives the commands of this folder what they need, in a virtual environment: `.venv` in the repository, or the
folder that BACKUP_TEST_VENV names.

Runs on a bare Python: imports nothing but the standard library.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
VENV = Path(os.environ.get("BACKUP_TEST_VENV") or REPOSITORY / ".venv").absolute()
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
UNFINISHED = VENV / "unfinished"  # is there while something is installed; stays where that was interrupted


def enter(module, extra="test", optional=()):
    """Returns inside the environment; outside, makes it, and goes on as `python -m module` in there.

    `extra`, of pyproject.toml, is what the module needs. `optional` names extras that a machine may be unable
    to build, as MySQL's driver without a compiler; BACKUP_TEST_STRICT=1 makes that an error.
    """
    if sys.version_info < (3, 10):  # noqa: UP036  whoever runs this has not installed it
        sys.exit("Python 3.10 or newer, please: this is " + sys.version.split()[0])
    if Path(sys.prefix).resolve() != VENV.resolve():
        if not _is_whole():
            _make()
        _run([PYTHON, "-m", module, *sys.argv[1:]])
    _install(extra)
    strict = os.environ.get("BACKUP_TEST_STRICT") == "1"
    for extra in optional:
        _install(extra, required=strict)


def _is_whole():
    """Whether the environment is there, with pip, and nobody was interrupted while filling it."""
    if not PYTHON.exists() or UNFINISHED.exists():
        return False
    return not subprocess.run([PYTHON, "-c", "import pip"], capture_output=True, check=False).returncode


def _make():
    """Makes the environment, anew where it is half made. A folder that is something else is not touched."""
    if not (VENV / "pyvenv.cfg").exists() and any(path.is_file() for path in VENV.rglob("*")):
        sys.exit(
            f"{VENV} is no virtual environment. Move it away, or name another folder in BACKUP_TEST_VENV."
        )
    print(f"Making {VENV} …", flush=True)
    try:
        venv.create(VENV, clear=True, with_pip=True)
    except subprocess.CalledProcessError:
        sys.exit(
            "This Python cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv"
        )


def _run(command):
    """Becomes the command; where the system has no such thing, runs it and ends as it ended."""
    os.chdir(REPOSITORY)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes would compile the same again
    if os.name == "nt":
        sys.exit(subprocess.call(list(map(str, command))))
    os.execv(command[0], list(map(str, command)))


def _install(extra, required=True):
    """Once, and again whenever `pyproject.toml` changes."""
    stamp = VENV / f"installed-{extra}"
    wanted = hashlib.sha256((REPOSITORY / "pyproject.toml").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"Installing the packages for [{extra}] …", flush=True)
    command = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e"]
    UNFINISHED.touch()
    done = subprocess.run([*command, f"{REPOSITORY}[{extra}]"], capture_output=not required, check=False)
    UNFINISHED.unlink()
    if done.returncode:
        if required:
            sys.exit(done.returncode)
        print(f"They cannot be built here, so tests on {extra} will not run.", flush=True)
    stamp.write_text(wanted)

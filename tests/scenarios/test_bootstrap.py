"""`python3 -m tests` from whatever state an earlier start left the environment in."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def bootstrap(folder, code):
    """Runs a piece of tests/bootstrap.py with its environment in this folder."""
    return subprocess.run(
        [sys.executable, "-c", f"from tests import bootstrap; {code}"],
        cwd=REPOSITORY,
        env=os.environ | {"BACKUP_TEST_VENV": str(folder), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


def is_whole(folder):
    return bootstrap(folder, "print(bootstrap._is_whole())").stdout.strip() == "True"


def make(folder):
    done = bootstrap(folder, "bootstrap._make()")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"Making {folder} …\n", "")


@pytest.mark.slow
def test_what_is_half_made_is_made_anew(tmp_path):
    folder = tmp_path / "venv"
    assert not is_whole(folder)
    (folder / "bin").mkdir(parents=True)  # killed right after it began
    assert not is_whole(folder)
    venv.create(folder)  # killed before pip was in
    assert not is_whole(folder)
    python = folder / "bin" / "python"
    python.unlink()
    python.symlink_to("no such file")  # made by a Python that is gone
    assert not is_whole(folder)
    (folder / "unfinished").touch()
    make(folder)
    assert is_whole(folder)
    (folder / "unfinished").touch()  # killed while packages were installed
    assert not is_whole(folder)


def test_a_folder_of_somebody_else_is_not_emptied(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "thesis.txt").write_text("the only copy")
    done = bootstrap(tmp_path, "bootstrap._make()")
    assert done.returncode == 1
    assert "is no virtual environment" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "the only copy"


def test_a_host_whose_packages_are_missing_says_how_to_install_them(tmp_path):
    (tmp_path / "manage.py").write_text("import a_package_that_is_not_here")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--baby-buddy", str(tmp_path), "tests/scenarios/test_bootstrap.py"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4, done.stdout  # pytest's code for a wrong call
    assert "No module named 'a_package_that_is_not_here'" in done.stderr
    assert f"-m pip install -r {tmp_path}/requirements.txt" in done.stderr

"""Automatic backups on real servers: the child that a look after a request starts."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from backup.automatic import look, outlook, status
from backup.storage import kept
from backup.storage.kept import BackupKind
from tests.conftest import gunicorn

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes by /proc")


def get(address):
    with urllib.request.urlopen(f"{address}/login/") as answer:
        return answer.status


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.05)


def automatic():
    return kept.names(BackupKind.AUTOMATIC)


def processes():
    """PID -> (parent, state, command line), of all."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent = (folder / "stat").read_text().rpartition(") ")[2].split()[:2]
            found[int(folder.name)] = int(parent), state, (folder / "cmdline").read_bytes().decode()
    return found


def children():
    """The PIDs of children that make automatic backups of this test's site."""
    mine = f"BACKUP_TEST_FOLDER={os.environ['BACKUP_TEST_FOLDER']}".encode()
    found = []
    for pid, (_parent, _state, command) in processes().items():
        with suppress(OSError):
            if "backup.automatic" in command and mine in Path(f"/proc/{pid}/environ").read_bytes().split(
                b"\0"
            ):
                found.append(pid)
    return found


@pytest.fixture
def scheduled(family, monkeypatch):
    """Processes that are started from here on make automatic backups; those of the last test are gone."""
    monkeypatch.setenv("BACKUP_SCHEDULE", "daily")
    yield family
    for pid in children():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not children())


def test_of_twenty_requests_at_once_exactly_one_backup(scheduled, tmp_path):
    """Two processes with four threads each."""
    with gunicorn(tmp_path / "log.txt") as address:  # it has answered once
        with ThreadPoolExecutor(20) as pool:
            assert set(pool.map(get, [address] * 20)) == {200}
        wait_for(automatic)
        wait_for(lambda: not children())
        get(address)
        assert len(automatic()) == 1
        of_server = [(state, command) for _, state, command in processes().values() if state == "Z"]
        assert [command for state, command in of_server if "python" in command] == []
    assert outlook.read().newest == kept.local_path(automatic()[0].text)


def test_a_child_that_is_killed_leaves_nothing_in_the_way(scheduled):
    """At any moment; whoever looks next starts another one, which makes the backup."""
    begin = time.monotonic()
    look.start()
    wait_for(automatic)
    wait_for(lambda: not children())
    whole = time.monotonic() - begin
    for part in (0.6, 0.9):
        for name in automatic():
            kept.delete(name.text)
        look.start()
        time.sleep(whole * part)
        for pid in children():
            with suppress(ProcessLookupError):  # it may just have ended
                assert os.getpriority(os.PRIO_PROCESS, pid) >= 15, "it leaves the processor to others"
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not children())
        for name in automatic():  # it was ready, or is whole
            assert not kept.find(name.text).is_damaged
        look.start()
        wait_for(automatic)
        wait_for(lambda: not children())
        assert len(automatic()) == 1
        assert status.status().last is not None


def test_the_child_sees_the_settings_of_the_process_that_starts_it(scheduled, tmp_path, monkeypatch):
    """A settings module that only sys.path finds, an environment, and a working directory that paths start from."""
    (tmp_path / "odd_settings.py").write_text(
        "import os\nfrom pathlib import Path\nfrom tests.settings import *\n"
        "assert os.environ['ODD'] == 'yes'\nBACKUP_ROOT = str(Path('odd').resolve())\n"
    )
    code = """if True:
        import os, sys
        sys.path.insert(0, sys.argv[1])
        os.environ.update(DJANGO_SETTINGS_MODULE="odd_settings", ODD="yes")
        import django
        django.setup()
        from backup.automatic import look
        look.start()
    """
    (tmp_path / "odd").mkdir()
    for folder in ("babybuddy", "core"):  # what the host looks for by paths relative to the working directory
        (tmp_path / folder).symlink_to(Path.cwd() / folder)
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, check=True)
    wait_for(lambda: [*tmp_path.glob("odd/site_*/kept/*_automatic_*.zip")])
    wait_for(lambda: not children())
    assert not automatic()

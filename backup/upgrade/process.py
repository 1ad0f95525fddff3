"""Backups of older versions, and database files of SQLite (an old `db.sqlite3`): brought to today's schema.

Under which migrations a backup was made, its metadata says. Where they are older than this site's, a child process
(`worker`) loads it into a throw-away database at exactly those migrations, lets the host's own migrations run forward,
and makes a new backup of the result, which goes on like any other. A database file first becomes a backup of its time.
The live database is only asked which migrations it has.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from django.utils.translation import get_language
from django.utils.translation import gettext as _

from .. import babybuddy, exceptions
from ..conf import conf
from ..exceptions import InvalidBackup, InvalidRecord, StorageFailed, UpgradeFailed
from ..options import SILENT, Reporter

#: The files in the folder of an upgrade.
GIVEN, UPGRADED = "given", "upgraded.zip"
#: How the folders begin.
PREFIX = "babybuddy-backup-upgrade-"
#: Files that SQLite keeps beside a database, without which the database is not whole.
SIBLINGS = ("-wal", "-journal")


# -- the upgrade ---


def is_database(source: BinaryIO) -> bool:
    """Whether a file is a database of SQLite's, by its first bytes."""
    source.seek(0)
    start = source.read(16)
    source.seek(0)
    return start == b"SQLite format 3\0"


@contextmanager
def upgraded(source: BinaryIO, path: Path | None = None, reporter: Reporter = SILENT) -> Iterator[BinaryIO]:
    """A backup, or a database file, as a backup at today's schema: a file that is gone when it is closed.

    `path`: where the database file lies, if it may have a journal beside it. Raises `InvalidBackup`, `RestoreRefused`,
    `UpgradeFailed`, `StorageFailed`; the folder of the upgrade is gone then, too.
    """
    _remove_stale()
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))  # for this user alone
        try:
            _copy(source, folder / GIVEN, path)
            _run(folder, reporter)
            file = open(folder / UPGRADED, "rb")  # noqa: SIM115 - closed below; nobody else finds it from here on
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise StorageFailed(
            _("The server has no room for temporary files (%(reason)s). Nothing was changed.")
            % {"reason": error.strerror or error}
        ) from error
    with file:
        yield file


def _copy(source: BinaryIO, target: Path, path: Path | None) -> None:
    """The file, and, where `path` says where it lies, what SQLite keeps beside it."""
    places = [place for suffix in ("", *SIBLINGS) if path and (place := Path(f"{path}{suffix}")).exists()]
    before = [_state(place) for place in places]
    source.seek(0)
    with target.open("wb") as file:
        shutil.copyfileobj(source, file)
    for place in places[1:]:
        shutil.copyfile(place, f"{target}{place.name.removeprefix(cast(Path, path).name)}")
    if [_state(place) for place in places] != before:
        raise InvalidBackup(
            _(
                "The database was written to while it was copied. Stop the Baby Buddy that uses it, then try again."
            )
        )


def _state(place: Path) -> tuple[int, int]:
    try:
        found = place.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _remove_stale() -> None:
    """Folders of upgrades that nobody ended, since parent and child were killed at once: a power cut, say."""
    oldest = time.time() - conf.upgrade_seconds - 3600
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            found = folder.lstat()
            if found.st_mtime < oldest and (not hasattr(os, "getuid") or found.st_uid == os.getuid()):
                shutil.rmtree(folder)


def _run(folder: Path, reporter: Reporter) -> None:
    """The child process, from its order to its result. Raises what it says."""
    order = {
        "folder": str(folder),
        "language": get_language(),
        "settings": {
            "BACKUP_EXCLUDE": conf.exclude,
            "BACKUP_MAX_UNCOMPRESSED_SIZE": conf.max_uncompressed_size,
        },
    }
    environment = {
        **os.environ,
        # The child says so itself, once it has the settings; thus not even the settings name another.
        "DATABASE_URL": f"sqlite:///{folder / 'scratch.sqlite3'}",
        "PYTHONPATH": os.pathsep.join(place or os.getcwd() for place in sys.path),
    }
    said: dict[str, Any] = {}
    step = ""
    late = threading.Event()
    with (
        (folder / "errors").open("w+b") as errors,
        subprocess.Popen(
            [_python(), "-m", "backup.upgrade.worker"],
            cwd=babybuddy.folder(),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(conf.upgrade_seconds, stop)
        timer.start()
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(order).encode() + b"\n")
                process.stdin.flush()  # it stays open: the child sees by it that we are alive
            for line in process.stdout:
                said = json.loads(line) if line.endswith(b"\n") else {}  # killed in the middle of a word
                if "step" in said:
                    step = said["step"]
                    reporter.progress(step, said["done"], said["total"])
            process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
        if late.is_set():
            raise UpgradeFailed(
                _(
                    "Bringing the data to this version took more than %(seconds)s seconds (BACKUP_UPGRADE_SECONDS), "
                    "and was stopped at %(step)s. Nothing was changed."
                )
                % {"seconds": conf.upgrade_seconds, "step": step or "?"}
            )
        if "error" in said:
            raise _error(said)
        if process.returncode or "done" not in said:
            raise UpgradeFailed(
                _(
                    "Bringing the data to this version broke off at %(step)s (%(reason)s). Nothing was changed."
                )
                % {"step": step or "?", "reason": _reason(process.returncode, errors)}
            )


def _error(said: dict[str, Any]) -> exceptions.BackupError:
    """What the child raised."""
    kind: type[exceptions.BackupError] = getattr(exceptions, said["error"])
    if issubclass(kind, InvalidRecord):
        return kind(said["message"], **said["place"])
    return kind(said["message"], said["details"])


def _reason(status: int, errors: BinaryIO) -> str:
    """Why a process ended that said nothing."""
    if status < 0:
        return signal.Signals(-status).name
    errors.seek(0, 2)
    errors.seek(max(0, errors.tell() - 2000))
    lines = errors.read().decode(errors="replace").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), str(status))


def _python() -> str:
    """The interpreter that this is; inside of uwsgi, `sys.executable` is uwsgi."""
    names = [f"python{sys.version_info[0]}.{sys.version_info[1]}", "python3", "python"]
    if Path(sys.executable or "").name.startswith("python"):
        return sys.executable
    places = [Path(prefix, "bin", name) for prefix in (sys.prefix, sys.base_prefix) for name in names]
    return str(next((place for place in places if place.is_file()), "python3"))

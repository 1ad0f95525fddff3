"""Brings older backups, and database files of SQLite (an old `db.sqlite3`), to today's schema: the parent process.

The metadata of a backup names the migrations that it was made under. If they are older than those of this site, a
child process (`worker`) loads the backup into a throw-away database at exactly those migrations, runs the host's own
migrations to the newest, and makes a new backup of the result, which is then restored like any other. The rows of a
database file are loaded likewise. The live database is only asked for its migrations.
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
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from django.utils.translation import get_language
from django.utils.translation import gettext as _

from .. import babybuddy, exceptions
from ..archive import GrowingArchive, Key, open_growing
from ..conf import conf
from ..database.sqlite_file import JOURNALS
from ..exceptions import Busy, InvalidRecord, UpgradeFailed
from ..options import SILENT, Reporter
from ..restore.batches import no_room
from ..scope import elsewhere

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: Names in the folder of an upgrade: the original file, and the new backup.
SOURCE, UPGRADED = "source", "upgraded.zip"
#: The text of records that are read while it is written.
GROWING = "growing"
#: The scratch database.
SCRATCH = "scratch.sqlite3"
#: The module of the child.
WORKER = "backup.upgrade.worker"
#: The beginning of the names of these folders.
PREFIX = "babybuddy-backup-upgrade-"
#: Seconds after which a folder without a lock is taken for one of killed processes.
ABANDONED = 600


@contextmanager
def upgraded(
    source: BinaryIO,
    path: Path | None = None,
    reporter: Reporter = SILENT,
    *,
    edited: bool = False,
    leave_out: bool = False,
    key: Key | None = None,
) -> Iterator[BinaryIO]:
    """Yield a backup at today's schema that is made from an older one, or from a database file.

    The yielded file is deleted already, and disappears when it is closed. `path`: of the database file, if SQLite may
    have left a journal beside it. `edited`, `leave_out`: see `RestoreOptions`. `key`: of an encrypted backup; the new
    one is encrypted with it, too. Raises `InvalidBackup`, `Unreadable`, `RestoreRefused`, `UpgradeFailed`,
    `StorageFailed`, `Busy`, and then leaves nothing on the disk.
    """
    with scratch_folder() as folder:
        copy_source(source, folder / SOURCE, path)
        _run(folder, reporter, edited=edited, leave_out=leave_out, key=key)
        file = open(folder / UPGRADED, "rb")  # noqa: SIM115  closed below; its name goes with the folder
    with file:
        yield file


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder for a child process, which only this user can read, and which is deleted afterwards.

    Raises `StorageFailed` if there is no room.
    """
    remove_stale()
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            with _in_use(folder):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise no_room(error.strerror or error) from error


@contextmanager
def fresh_database(reporter: Reporter = SILENT) -> Iterator[Path]:
    """Yield the path of an SQLite database made by this host's migrations, in a folder that is deleted afterwards.

    Raises `UpgradeFailed`, `StorageFailed`.
    """
    with scratch_folder() as folder:
        _run(folder, reporter, is_fresh=True)
        yield folder / SCRATCH


def copy_source(source: BinaryIO, target: Path, path: Path | None) -> None:
    """Copy the file, and, if `path` is known, the files of SQLite beside it.

    Raises `Busy` if one of them was changed meanwhile.
    """
    originals = [file for suffix in ("", *JOURNALS) if path and (file := Path(f"{path}{suffix}")).exists()]
    before = [_fingerprint(file) for file in originals]
    source.seek(0)
    with target.open("wb") as copy:
        shutil.copyfileobj(source, copy)
    for sibling in originals[1:]:
        shutil.copyfile(sibling, f"{target}{sibling.name.removeprefix(cast(Path, path).name)}")
    if [_fingerprint(file) for file in originals] != before:
        raise Busy(
            _(
                "The database was written to while it was copied. Stop the Baby Buddy that uses it, then try again."
            )
        )


def _fingerprint(file: Path) -> tuple[int, int]:
    """Return modification time and size of a file, by which changes are noticed; zeros if there is no such file."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def temporary_folder() -> Path:
    """Return the folder in which the folders of children are."""
    return Path(tempfile.gettempdir())


def remove_stale() -> None:
    """Delete the folders of upgrades whose parent and child were killed at the same time, by a power cut for
    example."""
    # Where folders can be locked, the age only protects one that is not locked yet, or that a child is about to delete.
    oldest = time.time() - (ABANDONED if fcntl else conf.upgrade_seconds + 3600)
    for folder in temporary_folder().glob(f"{PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            if status.st_mtime < oldest and (not hasattr(os, "getuid") or status.st_uid == os.getuid()):
                with _in_use(folder, alone=True):
                    shutil.rmtree(folder)


@contextmanager
def _in_use(folder: Path, *, alone: bool = False) -> Iterator[None]:
    """Hold a lock on a folder, which is released when this process ends. Age alone would be wrong if the clock was set.

    `alone`: raise `BlockingIOError` if another process holds it.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if alone:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            with suppress(OSError):  # a file system without locks, where no folder is removed by its lock
                fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def _run(
    folder: Path,
    reporter: Reporter,
    *,
    edited: bool = False,
    leave_out: bool = False,
    key: Key | None = None,
    is_fresh: bool = False,
) -> None:
    """Run the child process to its end. Raises the error that it reports."""
    order = {
        "edited": edited,
        "leave_out": leave_out,
        "is_fresh": is_fresh,
        "key": key.text if key else "",
        "is_read_meanwhile": False,
    }
    with _explained():
        run_child(WORKER, folder, order, reporter)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn `TooLate` and `Died` into an `UpgradeFailed`, in words for people."""
    try:
        yield
    except TooLate as error:
        text = _(
            "Upgrading the data took more than %(seconds)s seconds (BACKUP_UPGRADE_SECONDS), and was "
            "stopped at %(step)s. Nothing was changed."
        )
        if not error.label:
            text = _(
                "Upgrading the data took more than %(seconds)s seconds (BACKUP_UPGRADE_SECONDS) before its first step. "
                "Nothing was changed."
            )
        raise UpgradeFailed(text % {"seconds": conf.upgrade_seconds, "step": error.label}) from error
    except Died as error:
        text = _("Upgrading the data failed at %(step)s (%(reason)s). Nothing was changed.")
        if not error.label:
            text = _(
                "The process that upgrades the data ended before its first step (%(reason)s). Nothing was changed."
            )
        raise UpgradeFailed(text % {"step": error.label, "reason": error.reason}) from error


@contextmanager
def read_meanwhile(
    source: BinaryIO, path: Path | None = None, reporter: Reporter = SILENT
) -> Iterator[BinaryIO | GrowingArchive]:
    """Yield an archive of a database file, to be read while the child still writes it.

    If that is not possible, yield what `upgraded` yields. Raises what `upgraded` raises, also while the archive is
    read.
    """
    content: Any = None
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        copy_source(source, folder / SOURCE, path)
        order = {"edited": False, "leave_out": False, "is_fresh": False, "key": "", "is_read_meanwhile": True}
        child = stack.enter_context(started(WORKER, folder, order))
        with _explained():
            for message in child:
                _pass_on(message, reporter)
                if content := message.get("metadata"):
                    break
        file = open(folder / (GROWING if content else UPGRADED), "rb")  # noqa: SIM115  closed below
        working = stack.pop_all()  # what is raised later is not about the folder

    def messages() -> Iterator[dict[str, Any]]:
        with _explained():
            yield from child
        working.close()  # the name of the file goes with the folder

    with file:
        try:
            if content:
                yield open_growing(file, content, messages())
            else:
                working.close()
                yield file
        finally:
            working.close()


class TooLate(Exception):
    """A child took more than `BACKUP_UPGRADE_SECONDS`, and was killed. `label`: of its last report."""

    def __init__(self, label: str) -> None:
        self.label = label


class Died(Exception):
    """A child ended without a result: it was killed, or had an unexpected error. `label`: of its last report."""

    def __init__(self, label: str, reason: str) -> None:
        self.label, self.reason = label, reason


def run_child(module: str, folder: Path, order: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Run a module as a child process that works in `folder`, see `child.serve`. Returns its last message.

    `order`: the rest of its order, as JSON. Raises the `BackupError` that it reports, `TooLate`, `Died`.
    """
    message: dict[str, Any] = {}
    with started(module, folder, order) as messages:
        for message in messages:
            _pass_on(message, reporter)
    return message


def _pass_on(message: dict[str, Any], reporter: Reporter) -> None:
    if "label" in message:
        reporter.progress(message["label"], message["done"], message["total"])


@contextmanager
def started(module: str, folder: Path, order: dict[str, Any]) -> Iterator[Iterator[dict[str, Any]]]:
    """Start a child process like `run_child`, and yield an iterator of its messages.

    The iterator raises the error that the child ended with. The child is killed when the block ends.
    """
    order = {
        **order,
        "folder": str(folder),
        "language": get_language(),
        "settings": {
            "BACKUP_EXCLUDE": [*conf.exclude, *elsewhere()],
            "BACKUP_MAX_UNCOMPRESSED_SIZE": conf.max_uncompressed_size,
            "BACKUP_MAX_PHOTOS": conf.max_photos,
            "BACKUP_UPGRADE_SECONDS": conf.upgrade_seconds,
        },
    }
    environment = {
        **os.environ,
        # The child sets its database itself. This is for settings modules that connect while they are imported.
        "DATABASE_URL": f"sqlite:///{folder / SCRATCH}",
        "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path),
    }
    with (
        (folder / "errors").open("w+b") as errors,
        subprocess.Popen(
            [python(), "-m", module],
            cwd=babybuddy.folder(),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
    ):
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(conf.upgrade_seconds, stop)
        timer.start()
        try:
            yield _messages(process, order, timer, late, errors)
        finally:
            timer.cancel()
            process.kill()


def _messages(
    process: subprocess.Popen[bytes],
    order: dict[str, Any],
    timer: threading.Timer,
    late: threading.Event,
    errors: BinaryIO,
) -> Iterator[dict[str, Any]]:
    """Give the child its order, and yield what it says: {} if it was killed in the middle of a message."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()  # it stays open: by its end, the child notices that the parent has ended
    label = ""
    message: dict[str, Any] = {}
    for line in process.stdout:
        message = json.loads(line) if line.endswith(b"\n") else {}
        label = message.get("label", label)
        yield message
    process.wait()
    timer.cancel()
    if late.is_set() and process.returncode:  # else it was done, and only who reads it was late
        raise TooLate(label)
    if "error" in message:
        raise _error(message)
    if process.returncode or "finished" not in message:
        raise Died(label, _reason(process.returncode, errors))


def _error(message: dict[str, Any]) -> exceptions.BackupError:
    """Return the error that the child raised, made from its message."""
    kind: type[exceptions.BackupError] = getattr(exceptions, message["error"])
    if issubclass(kind, InvalidRecord):
        error = kind(message["message"], **message["place"])
        error.offer = message["offer"]
        return error
    return kind(message["message"], message["details"], message["offer"])


def _reason(status: int, errors: BinaryIO) -> str:
    """Return why a process ended without a message: the signal, or the last line that it wrote to stderr."""
    if status < 0:
        return signal.Signals(-status).name
    errors.seek(0, 2)
    errors.seek(max(0, errors.tell() - 2000))
    lines = errors.read().decode(errors="replace").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), str(status))


def python() -> str:
    """Return the path of this Python. Inside uwsgi `sys.executable` is uwsgi."""
    if Path(sys.executable or "").name.startswith("python"):
        return sys.executable
    names = [f"python{sys.version_info[0]}.{sys.version_info[1]}", "python3", "python"]
    paths = [Path(prefix, "bin", name) for prefix in (sys.prefix, sys.base_prefix) for name in names]
    return str(next((path for path in paths if path.is_file()), "python3"))

"""The common part of our child processes, which run in a Django of their own whose only database is a scratch file.

A child reads its order, one line of JSON, from standard input, which then stays open as long as the parent lives. It
writes lines of JSON: `{"label", "done", "total"}`, with the label of a model or the name of a migration, and at the end
`{"finished": true, …}` or `{"error", "message", …}`. `process.run_child` is the parent's side.

Its `default` database *is* the scratch file, and there is no other. This is set before Django is set up, so that the
live database cannot be reached: many data migrations ignore the alias that they run for, and write to `default`. The
live cache, files and kept backups cannot be reached either.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import django
from django.apps import apps
from django.conf import settings
from django.core.files.storage import default_storage
from django.db import connection
from django.db.backends.signals import connection_created
from django.db.models import FileField
from django.utils import translation
from django.utils.translation import gettext as _

from ..conf import conf
from ..database import is_disk_trouble, reason_of
from ..database.sqlite import SQLite
from ..exceptions import BackupError, Damaged, UpgradeFailed
from ..options import Phase
from ..restore.batches import no_room
from .process import SCRATCH

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

#: The folder of uploaded files, in the folder of the child.
MEDIA = "media"
#: The most bytes of address space of the child. Django and the largest possible record need about 1 GB of it, of which
#: they use a third.
MEMORY = 3 * 1024**3 // 2


class ParentReporter:
    """A `Reporter` that sends the progress to the parent process. `migration`: the one that is running, or ""."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.migration = ""
        self._done = self._total = 0

    def send(self, **message: Any) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def phase(self, phase: Phase) -> None:
        """Do nothing: an upgrade has no phases."""

    def progress(self, label: str, done: int, total: int) -> None:
        self.send(label=label, done=done, total=total)

    def expect_migrations(self, total: int) -> None:
        self._done, self._total = 0, total

    def on_migration(self, action: str, migration: Any = None, fake: bool = False) -> None:
        """Report which migration is running. Django calls this before and after each one."""
        if action == "apply_start":
            self.migration = f"{migration.app_label}.{migration.name}"
            self.progress(self.migration, self._done, self._total)
        elif action == "apply_success":
            self._done += 1
            self.migration = ""


def serve(work: Callable[[dict[str, Any], Path, ParentReporter], dict[str, Any]]) -> None:
    """Carry out the order of the parent, in a Django whose database is a scratch file in the folder of the order.

    `work` is called with the order, that folder, and the reporter. What it returns is sent to the parent.
    """
    order = json.loads(sys.stdin.buffer.readline())
    # Discard what migrations print. If one asks a question, it reads the end of its input.
    parent, out = os.dup(0), os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    folder = Path(order["folder"])
    ended = threading.Event()
    cleaner = threading.Thread(target=_end_with_parent, args=(parent, ended, folder), daemon=True)
    cleaner.start()
    reporter = ParentReporter(out)
    with _folder_deleted_first(cleaner, ended):
        try:
            set_up(folder, order["settings"])
            with translation.override(order["language"]):
                outcome = work(order, folder, reporter)
        except Damaged as error:
            # It is not about the site's own database, but about ours. Nothing that can be done with the former helps.
            raise _first_cause(error) from None
        except BackupError as error:
            reporter.send(
                error=type(error).__name__,
                message=error.message,
                details=error.details,
                offer=error.offer,
                place={name: getattr(error, name, None) for name in ("model", "pk", "field")},
            )
        else:
            reporter.send(**outcome, finished=True)


def _first_cause(error: BaseException) -> BaseException:
    return _first_cause(error.__cause__) if isinstance(error, BackupError) and error.__cause__ else error


@contextmanager
def _folder_deleted_first(cleaner: threading.Thread, ended: threading.Event) -> Iterator[None]:
    """Delay an error in the block by up to two seconds, to see whether it came because the parent has ended.

    If so, wait until the folder is deleted, which ends this process. A parent that lives gets the error.
    """
    try:
        yield
    except BaseException:
        if ended.wait(timeout=2):
            cleaner.join()
        raise


def _end_with_parent(parent: int, ended: threading.Event, folder: Path) -> None:
    """Wait until the parent has ended, in whatever way; then say so, delete the folder and exit."""
    while os.read(parent, 1024):
        pass
    ended.set()
    # Under another name first: else the other thread, which still works, would make new files in it meanwhile.
    gone = folder.with_name(f"{folder.name}.gone")
    with suppress(OSError):
        folder = folder.rename(gone)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def set_up(folder: Path, backup_settings: dict[str, Any]) -> None:
    """Set Django up with the project's settings, except those that lead to the live site's data."""
    scratch = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / SCRATCH)}
    settings.DATABASES = {"default": scratch}
    settings.DATABASE_ROUTERS = []
    # The host caches its settings under the same keys as the live site, and files in the media folder are the live
    # ones.
    memory = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {alias: {"BACKEND": memory, "LOCATION": alias} for alias in settings.CACHES}
    (folder / MEDIA).mkdir()
    settings.MEDIA_ROOT = str(folder / MEDIA)
    files = {"BACKEND": "django.core.files.storage.FileSystemStorage"}
    settings.STORAGES = {
        alias: backend if alias == "staticfiles" else files
        for alias, backend in settings.STORAGES.items()
        if alias != "backups"  # the child keeps its backups in its folder
    }
    settings.BACKUP_ROOT = str(folder / "backups")
    # Not the keys of the site: the child only gets the key of the file that it has to open or encrypt.
    settings.BACKUP_KEY, settings.BACKUP_ENCRYPT = "", []
    for name, value in backup_settings.items():
        setattr(settings, name, value)
    _limit_resources()
    django.setup()
    for model in apps.get_models():
        for field in model._meta.local_fields:
            if isinstance(field, FileField):  # some have a storage of their own
                field.storage = default_storage
    # Nobody needs the scratch file after a crash.
    SQLite.IS_DURABLE = False
    connection_created.connect(_skip_fsync)


def _limit_resources() -> None:
    """Limit what the child can use, whatever is in the file: memory, the size of a file, processor time."""
    if resource is None:
        return
    for kind, limit in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_FSIZE, 2 * conf.max_uncompressed_size + MEMORY),
        (resource.RLIMIT_CPU, 2 * conf.upgrade_seconds),
    ):
        before = resource.getrlimit(kind)
        with suppress(OSError, ValueError):  # a system without such a limit
            resource.setrlimit(
                kind, (min(value for value in (limit, *before) if value != resource.RLIM_INFINITY), before[1])
            )


def _skip_fsync(connection: Any, **kwargs: Any) -> None:
    """Let SQLite not wait for the disk."""
    connection.cursor().execute("PRAGMA synchronous = OFF")
    connection.cursor().execute("PRAGMA journal_mode = MEMORY")


@contextmanager
def explained(reporter: ParentReporter) -> Iterator[None]:
    """Turn an error of a migration into a `BackupError` that names the migration.

    Any other error that is no `BackupError` is a fault of ours or of the machine. It is passed on and ends the child,
    without a verdict about the file.
    """
    try:
        yield
    except BackupError:
        raise
    except Exception as error:
        if is_disk_trouble(error):
            raise no_room(reason_of(error)) from error
        if not is_of_migration(error, reporter):
            raise
        raise UpgradeFailed(
            _("The migration %(migration)s failed on this data (%(reason)s). Nothing was changed.")
            % {"migration": reporter.migration, "reason": f"{type(error).__name__}: {reason_of(error)}"}
        ) from error


def is_of_migration(error: Exception, reporter: ParentReporter) -> bool:
    """Tell whether a migration failed, and not because the machine is short of something."""
    is_shortage = isinstance(error, MemoryError) or is_disk_trouble(error)
    return bool(reporter.migration) and not isinstance(error, BackupError) and not is_shortage


def start_anew(folder: Path) -> None:
    """Delete the scratch database, so that the next one to use it gets an empty one."""
    connection.close()
    (folder / SCRATCH).unlink()

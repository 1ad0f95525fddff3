"""A child process of ours, in a Django of its own whose only database is a throw-away file.

It reads one line of JSON from standard input, the order; then standard input stays open as long as the parent lives. It
writes lines of JSON: `{"label", "done", "total"}` with the label of a model or the name of a migration, and at last
`{"finished": true, …}` or `{"error", "message", …}`. `process.run_child` is the other side.

Its `default` database *is* a scratch file, and there is no other. That is set before Django is set up, so that there
is no way to the live database: many data migrations ignore the alias that they run for, and write to `default`. Nor
is there one to the live cache, files, and kept backups.
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
from django.db.backends.signals import connection_created
from django.db.models import FileField
from django.utils import translation
from django.utils.translation import gettext as _

from ..conf import conf
from ..database import is_disk_trouble, reason_of
from ..exceptions import BackupError, UpgradeFailed
from ..options import Phase
from ..restore.batches import no_room
from .process import SCRATCH

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

#: The folder of uploaded files, in the folder of the child.
MEDIA = "media"
#: Bytes of address space that the child may have. Django and a record of the greatest size need a fraction of it.
MEMORY = 2 * 1024**3


class ParentReporter:
    """A `Reporter` that sends the progress to the parent process. `migration`: the one that runs now, or ""."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.migration = ""
        self._done = self._total = 0

    def send(self, **message: Any) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def phase(self, phase: Phase) -> None:
        """Ignore it: an upgrade has no phases."""

    def progress(self, label: str, done: int, total: int) -> None:
        self.send(label=label, done=done, total=total)

    def expect_migrations(self, total: int) -> None:
        self._done, self._total = 0, total

    def on_migration(self, action: str, migration: Any = None, fake: bool = False) -> None:
        """Tell which migration runs. Django calls this before and after each one."""
        if action == "apply_start":
            self.migration = f"{migration.app_label}.{migration.name}"
            self.progress(self.migration, self._done, self._total)
        elif action == "apply_success":
            self._done += 1
            self.migration = ""


def serve(work: Callable[[dict[str, Any], Path, ParentReporter], dict[str, Any]]) -> None:
    """Do what the parent orders, in a Django whose database is a scratch file in the folder of the order.

    `work` is given the order, that folder, and who is told of progress. What it returns is sent to the parent.
    """
    order = json.loads(sys.stdin.buffer.readline())
    # Whatever a migration prints goes nowhere, and if it asks something, it finds the end of its input.
    parent, out = os.dup(0), os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    folder = Path(order["folder"])
    threading.Thread(target=_end_with_parent, args=(parent, folder), daemon=True).start()
    reporter = ParentReporter(out)
    try:
        set_up(folder, order["settings"])
        with translation.override(order["language"]):
            outcome = work(order, folder, reporter)
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


def _end_with_parent(parent: int, folder: Path) -> None:
    """Wait until the parent is gone, however it went; then delete the folder and exit."""
    while os.read(parent, 1024):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def set_up(folder: Path, backup_settings: dict[str, Any]) -> None:
    """Set Django up with the project's settings, but for those that lead to anything of the live site's."""
    scratch = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / SCRATCH)}
    settings.DATABASES = {"default": scratch}
    settings.DATABASE_ROUTERS = []
    # The host caches its settings under the same keys as the live site, and the files belong to that.
    memory = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {alias: {"BACKEND": memory, "LOCATION": alias} for alias in settings.CACHES}
    (folder / MEDIA).mkdir()
    settings.MEDIA_ROOT = str(folder / MEDIA)
    files = {"BACKEND": "django.core.files.storage.FileSystemStorage"}
    settings.STORAGES = {
        alias: backend if alias == "staticfiles" else files
        for alias, backend in settings.STORAGES.items()
        if alias != "backups"  # what the child keeps lies in its folder
    }
    settings.BACKUP_ROOT = str(folder / "backups")
    # No key of the site: the child gets the one of the file that it has to open or encrypt.
    settings.BACKUP_KEY, settings.BACKUP_ENCRYPT = "", []
    for name, value in backup_settings.items():
        setattr(settings, name, value)
    _limit_resources()
    django.setup()
    for model in apps.get_models():
        for field in model._meta.local_fields:
            if isinstance(field, FileField):  # some name a storage of their own
                field.storage = default_storage
    connection_created.connect(_skip_fsync)


def _limit_resources() -> None:
    """Bound what the child can take, whatever is in the file: memory, the size of a file, time of a processor."""
    if resource is None:
        return
    for kind, limit in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_FSIZE, 2 * conf.max_uncompressed_size + MEMORY),
        (resource.RLIMIT_CPU, 2 * conf.upgrade_seconds),
    ):
        before = resource.getrlimit(kind)
        with suppress(OSError, ValueError):  # a system that has no such limit
            resource.setrlimit(
                kind, (min(value for value in (limit, *before) if value != resource.RLIM_INFINITY), before[1])
            )


def _skip_fsync(connection: Any, **kwargs: Any) -> None:
    """Have SQLite not wait for the disk: nobody needs the scratch file after a power cut."""
    connection.cursor().execute("PRAGMA synchronous = OFF")


@contextmanager
def explained(reporter: ParentReporter) -> Iterator[None]:
    """Raise what a migration raises as a `BackupError` that names it.

    Whatever else is no `BackupError` is an error of our own, or of the machine's. It passes, and ends the child:
    nothing is said about the file.
    """
    try:
        yield
    except BackupError:
        raise
    except Exception as error:
        if is_disk_trouble(error):
            raise no_room(reason_of(error)) from error
        if not reporter.migration or isinstance(error, MemoryError):
            raise
        raise UpgradeFailed(
            _("The migration %(migration)s failed on this data (%(reason)s). Nothing was changed.")
            % {"migration": reporter.migration, "reason": f"{type(error).__name__}: {reason_of(error)}"}
        ) from error

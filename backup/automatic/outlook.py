"""A small file that says when the next backup is due, so that nobody has to ask the database or a remote storage.

Every run writes it anew. It is only a shortcut: if it is missing, old or wrong, a run is started and finds out. It lies
in BACKUP_ROOT, or, if that cannot be written to, in the folder for temporary files. A file there is removed once
BACKUP_ROOT can be written to again. Otherwise it would be read at the next outage, and say that people had been
notified of that one already.

Sites with the same settings, in containers say, may share both folders, so the name is made of the id of the site, too.
The database is asked for that once in each process. If it does not answer, the name of this machine stands in for it.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from django.conf import settings
from django.core.exceptions import SynchronousOnlyOperation
from django.db import DEFAULT_DB_ALIAS, connections
from django.utils.crypto import salted_hmac

from .. import babybuddy
from ..conf import conf
from ..database import memo
from ..exceptions import StorageFailed, UnknownDatabase, WrongSettings
from ..storage import elsewhere
from ..storage.atomic import atomic_write, sweep
from ..storage.files import parse_json
from ..storage.owner import give_away
from ..storage.state import LastRun

#: Seconds by which the clocks of two machines may differ.
DRIFT = 60
#: Bytes that are read of the file, which has a few hundred.
LONGEST = 1024 * 1024


@dataclass(frozen=True)
class Outlook:
    """The content of the file. Moments are seconds since 1970.

    `written`: when it was written. `schedule`, `zone`: BACKUP_SCHEDULE and the time zone at that time. `due`: when the
    next run is to start. `overdue`: from when on the backup is overdue. `newest`: the path of the newest automatic
    backup; "" if there is none, or if it is in no folder of this machine. `state`: a value of `status.State`. `run`:
    how the last run went, as JSON; it is saved here, too, since the storage may be what failed. `locations`: a
    fingerprint of BACKUP_LOCATIONS, which shows whether that was changed.
    """

    written: float
    schedule: str
    zone: str
    due: float
    overdue: float
    newest: str
    state: str
    run: dict[str, object]
    locations: str = ""

    @property
    def last_run(self) -> LastRun | None:
        return LastRun.from_json(self.run)

    @property
    def order(self) -> tuple[bool, float]:
        """The sort key: a newer outlook has a greater one. One dated in the future was written while the clock was
        wrong, and counts as older than all others."""
        return (self.written <= time.time() + DRIFT, self.written)

    def is_due(self, now: dt.datetime) -> bool:
        """Tell whether a run is to start: it is time for it, or this file is out of date."""
        moment = now.timestamp()
        return (
            moment >= self.due
            or self.written > moment + DRIFT  # the clock was wrong when it was written
            or (self.schedule, self.zone) != (conf.schedule, babybuddy.user_timezone(None).key)
            or self.locations != elsewhere.fingerprint()
            or (self.newest != "" and not os.path.exists(self.newest))
        )


def read() -> Outlook | None:
    """Return the outlook that the last run wrote; None if there is none that can be read.

    An older one in the folder for temporary files is removed: the last run was another user's, or another machine's.
    """
    newest: Outlook | None = None
    for path in _paths():
        with suppress(OSError, TypeError, ValueError):
            outlook = Outlook(**parse_json(_content(path)))
            if newest is None or outlook.order > newest.order:
                newest = outlook
            else:
                path.unlink()
    return newest


def write(outlook: Outlook) -> None:
    """Write the outlook for the other processes. If it cannot be written anywhere, each has to find out by itself."""
    is_written = False
    for path in _paths():
        with suppress(OSError):
            if is_written:
                path.unlink()  # an older one
                continue
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            sweep(path.parent)
            with atomic_write(path) as file:
                file.write(json.dumps(asdict(outlook)).encode())
                os.chmod(file.name, 0o644)  # a command may be run by another user than the server
            is_written = True
            if path.parent != Path(tempfile.gettempdir()):
                give_away(path.parent)


def _content(path: Path) -> bytes:
    """Return the content of a file of ours. Raises `OSError` if it is anything else.

    Anybody may put something of this name into the folder for temporary files: a pipe, which would keep who opens it
    waiting, a link to another file, or a file that says what is wrong. Ours belong to this user, to root or to the
    folder's owner.
    """
    # Neither of them exists on Windows.
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        status = os.fstat(descriptor)
        owners = (0, os.getuid(), path.parent.stat().st_uid) if hasattr(os, "getuid") else (status.st_uid,)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in owners:
            raise PermissionError(path)
        return os.read(descriptor, LONGEST)
    finally:
        os.close(descriptor)


def _paths() -> Iterator[Path]:
    """Yield the paths where the file may lie: of this site and, if the database did not answer, of this machine."""
    database = settings.DATABASES[DEFAULT_DB_ALIAS]
    names = [str(database.get(name, "")) for name in ("ENGINE", "HOST", "PORT", "NAME")]
    owners = [*filter(None, [_site()]), f"machine {platform.node()}"]
    digests = [
        salted_hmac(__name__, repr([*names, owner]), algorithm="sha256").hexdigest()[:12] for owner in owners
    ]
    with suppress(WrongSettings):
        root = conf.root
        yield from (root / f"automatic_{digest}.json" for digest in digests)
    user = os.getuid() if hasattr(os, "getuid") else ""
    folder = tempfile.gettempdir()
    yield from (Path(folder, f"babybuddy-backup-{user}-{digest}.json") for digest in digests)


def _site() -> str:
    """Return the id of the site; "" if the database does not answer. A connection that was opened for it is closed:
    after a request, nobody else would."""
    connection = connections[DEFAULT_DB_ALIAS]
    was_open = connection.connection is not None
    try:
        return memo.site_id()
    except (StorageFailed, UnknownDatabase, SynchronousOnlyOperation):  # the last one in an asynchronous view
        return ""
    finally:
        if not was_open and connection.connection is not None:
            connection.close()

"""A small file that says when the next backup is due, so that nobody has to ask the database or a remote storage.

Every run writes it anew. It is only a shortcut: if it is missing, old or wrong, a run is started and finds out. It lies
in BACKUP_ROOT, or, if that cannot be written to, in the folder for temporary files.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS

from .. import babybuddy
from ..conf import conf
from ..storage import elsewhere
from ..storage.atomic import atomic_write, sweep
from ..storage.owner import give_away
from ..storage.state import LastRun

#: Seconds by which the clocks of two machines may differ.
DRIFT = 60


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
    """Return the outlook that the last run on this machine wrote; None if there is none that can be read."""
    outlooks = []
    for path in _paths():
        with suppress(OSError, TypeError, ValueError):
            outlook = Outlook(**json.loads(path.read_text(encoding="utf-8")))
            if _is_trusted(path):
                outlooks.append(outlook)
    return max(outlooks, key=lambda outlook: outlook.written, default=None)


def write(outlook: Outlook) -> None:
    """Write the outlook for the other processes. If it cannot be written anywhere, each has to find out by itself."""
    for path in _paths():
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            sweep(path.parent)
            with atomic_write(path) as file:
                file.write(json.dumps(asdict(outlook)).encode())
                os.chmod(file.name, 0o644)  # a command may be run by another user than the server
            if path.parent == conf.root:
                give_away(conf.root)
            return


def _is_trusted(path: Path) -> bool:
    """Tell whether a file belongs to this user, to root or to the folder's owner: anybody may write temporary files."""
    return not hasattr(os, "getuid") or path.stat().st_uid in (0, os.getuid(), path.parent.stat().st_uid)


def _paths() -> Iterator[Path]:
    """Yield the paths where the file may lie. Its name is made of the settings of the database, since the id of the
    site is in the database, which must not be asked here."""
    database = settings.DATABASES[DEFAULT_DB_ALIAS]
    names = [str(database.get(name, "")) for name in ("ENGINE", "HOST", "PORT", "NAME")]
    digest = hashlib.sha256(repr(names).encode()).hexdigest()[:12]
    with suppress(ImproperlyConfigured):
        yield conf.root / f"automatic_{digest}.json"
    user = os.getuid() if hasattr(os, "getuid") else ""
    yield Path(tempfile.gettempdir(), f"babybuddy-backup-{user}-{digest}.json")

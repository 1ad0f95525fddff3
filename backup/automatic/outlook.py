"""What this machine knows about the next backup without asking a database or a distant storage: one small file.

It is made anew by every run, and only spares questions: where it is missing, old or wrong, a run is started and finds
out. It lies in BACKUP_ROOT, or, if nothing can be written there, in the folder for temporary files.
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

#: Seconds that clocks may differ.
DRIFT = 60


@dataclass(frozen=True)
class Outlook:
    """What a run left. Moments are seconds since 1970.

    `written`: when. `schedule`, `zone`: BACKUP_SCHEDULE and the zone that it was in. `due`: when the next run is to
    start. `overdue`: from when on the backup is overdue. `newest`: the path of the newest automatic backup, "" where
    there is none, or where it is in no folder of this machine. `state`: of `status`. `run`: how the last run went, as
    JSON; it is here as well since the storage may be what fails. `locations`: a text that tells when the settings name
    others.
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
        """Tell whether a run is to start: its moment has come, or what is written here does not hold any more."""
        moment = now.timestamp()
        return (
            moment >= self.due
            or self.written > moment + DRIFT  # the clock was wrong then
            or (self.schedule, self.zone) != (conf.schedule, babybuddy.user_timezone(None).key)
            or self.locations != elsewhere.fingerprint()
            or (self.newest != "" and not os.path.exists(self.newest))
        )


def read() -> Outlook | None:
    """Return what the last run left on this machine; None if there is nothing that can be read."""
    found = []
    for path in _paths():
        with suppress(OSError, TypeError, ValueError):
            outlook = Outlook(**json.loads(path.read_text(encoding="utf-8")))
            if _is_trusted(path):
                found.append(outlook)
    return max(found, key=lambda outlook: outlook.written, default=None)


def write(outlook: Outlook) -> None:
    """Leave this for others. If it cannot be written anywhere, each process has to find out for itself."""
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
    """Tell whether a file is from this user, or from one who rules the folder: anybody may write to a temporary one."""
    return not hasattr(os, "getuid") or path.stat().st_uid in (0, os.getuid(), path.parent.stat().st_uid)


def _paths() -> Iterator[Path]:
    """Return where the file may lie. It is named by the settings of the database, since its id is not known here."""
    database = settings.DATABASES[DEFAULT_DB_ALIAS]
    names = [str(database.get(name, "")) for name in ("ENGINE", "HOST", "PORT", "NAME")]
    digest = hashlib.sha256(repr(names).encode()).hexdigest()[:12]
    with suppress(ImproperlyConfigured):
        yield conf.root / f"automatic_{digest}.json"
    user = os.getuid() if hasattr(os, "getuid") else ""
    yield Path(tempfile.gettempdir(), f"babybuddy-backup-{user}-{digest}.json")

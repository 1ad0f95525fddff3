"""Looks after a request whether a backup, or a copy of one, is due, and starts the child process that makes it.

A server that never says that a request has ended is looked after when the next one begins.

A request pays for no more than that: once a minute a look at one small file, and once a day the start of a shell, which
starts the child in the background and ends at once. So no process of the server has to wait for the child to end.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from typing import Any

from django.conf import ENVIRONMENT_VARIABLE
from django.core.exceptions import ImproperlyConfigured

from .. import babybuddy
from ..conf import OFF, aware_now, conf
from ..exceptions import WrongSettings
from ..upgrade.process import python
from . import outlook

logger = logging.getLogger("backup")

#: Seconds between two looks of a process. They double, up to an hour, as long as no run that it starts succeeds.
PAUSE, LONGEST_PAUSE = 60.0, 3600.0
#: What the shell does: it starts the command in the background.
LEAVE_BEHIND = '"$@" &'


class Watch:
    """Decides when this process looks next."""

    def __init__(self) -> None:
        self.next = 0.0
        self._pause = PAUSE
        self._is_open = False  #: Whether the last request that began has not ended yet.
        self._looking = threading.Lock()

    def soon(self) -> None:
        """Look after the current request, which has made something due."""
        self.next = 0.0

    def before_request(self, **kwargs: Any) -> None:
        """Look, if the request before has not ended: the server may never say so. Receives `request_started`.

        It may also be under way in another thread, and then it does no harm.
        """
        if self._is_open:
            self.after_request()
        self._is_open = True

    def after_request(self, **kwargs: Any) -> None:
        """Look, if the last look was long enough ago. Receives the signal `request_finished`."""
        self._is_open = False
        if time.monotonic() < self.next or not self._looking.acquire(blocking=False):
            return
        try:
            if time.monotonic() >= self.next:  # another thread may have looked meanwhile
                self._look()
        finally:
            self._looking.release()

    def _look(self) -> None:
        self.next = time.monotonic() + self._pause
        try:
            if not _is_due():
                self._pause = PAUSE
                self.next = time.monotonic() + PAUSE
                return
            start()
        except Exception as error:  # noqa: BLE001  the request must not fail because of it
            logger.warning("an automatic backup cannot be started: %s", error)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


watch = Watch()


def _is_due() -> bool:
    known, now = outlook.read(), aware_now()
    try:
        if conf.schedule == OFF and not conf.locations:
            return False
        return known is None or known.is_due(now)
    except WrongSettings:  # a run tells people of it, and is tried again as one that failed
        return known is None or now.timestamp() >= known.due


def start() -> None:
    """Start `python -m backup.automatic` in the background, with the settings of this process. Raises `OSError`."""
    if ENVIRONMENT_VARIABLE not in os.environ:
        raise ImproperlyConfigured(f"the settings come from no module that {ENVIRONMENT_VARIABLE} names.")
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        folder = str(babybuddy.folder())
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(entry or folder for entry in sys.path),
    }
    subprocess.run(
        ["/bin/sh", "-c", LEAVE_BEHIND, "sh", python(), "-m", "backup.automatic"],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # errors go where those of the server go
        start_new_session=True,  # a signal to all processes of the server, from a terminal say, does not end this one
        check=False,
    )

"""A log file of our own, for hosts that do not write the app's log anywhere: by default, Baby Buddy only shows
warnings.
"""

from __future__ import annotations

import logging
import os
import sys

from django.core.files.storage import storages

from .conf import conf
from .exceptions import WrongSettings
from .log import logger
from .storage.owner import give_away

NAME = "backup.log"
#: Bytes after which the file is rotated, which replaces the one rotated before: some ten thousand lines.
LARGE = 1024 * 1024


def listen() -> None:
    """Install the handler for the app's log, unless the host has one that writes it."""
    if logger.isEnabledFor(logging.INFO) and logger.hasHandlers():
        return
    handler = LogFile()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


class LogFile(logging.Handler):
    """Writes to a file in BACKUP_ROOT, or to standard error if backups go to another storage.

    The file is opened for each line, since several processes write to it and rotate it. As long as there is no folder,
    or if the file cannot be written to, warnings go to standard error.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
            if "backups" in storages.backends or (
                not self._write(line) and record.levelno >= logging.WARNING
            ):
                sys.stderr.write(line)
        except Exception:  # noqa: BLE001  as every handler does: a log fails nothing
            self.handleError(record)

    def _write(self, line: str) -> bool:
        """Add a line to the file. Returns whether that was possible."""
        try:
            root = conf.root
            path = root / NAME
            if not root.is_dir():
                return False
            is_new = not path.exists()
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            with os.fdopen(os.open(path, flags, 0o600), "a", encoding="utf-8", errors="replace") as file:
                file.write(line)
                is_large = file.tell() > LARGE
            if is_large:
                os.replace(path, f"{path}.1")
            if is_new:
                give_away(root)
        except (OSError, WrongSettings):
            return False
        return True

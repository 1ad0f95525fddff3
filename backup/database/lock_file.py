"""The file beside an SQLite database that is locked in its place."""

from __future__ import annotations

import os
from pathlib import Path

from django.utils.translation import gettext as _

from ..exceptions import StorageFailed
from .errors import Job

#: The ends of the names of these files.
LOCK_FILES = {Job.RESTORE: "restoring", Job.AUTOMATIC_BACKUP: "automatic", Job.NOTE: "noting"}


def make_lock_file(path: str, database: Path) -> None:
    """Make the file, with the owner and the mode of the database, whoever runs this. Raises `StorageFailed`.

    SQLite cannot lock a file exclusively that it may not write to, but does not report that. An existing file is not
    opened: closing it would release the locks that other threads of this process hold on it.
    """
    try:
        info = os.stat(database)
        is_root = os.name != "nt" and os.geteuid() == 0
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            if is_root and os.stat(path, follow_symlinks=False).st_uid == 0:
                os.chown(path, info.st_uid, info.st_gid, follow_symlinks=False)
        else:
            with os.fdopen(descriptor, "wb"):
                if is_root:
                    os.fchown(descriptor, info.st_uid, info.st_gid)
                os.chmod(path, info.st_mode & 0o666)
    except OSError as error:
        raise StorageFailed(
            _("The server cannot make the file %(path)s, which it needs beside the database (%(reason)s).")
            % {"path": path, "reason": error.strerror or error}
        ) from error
    if not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise StorageFailed(
            _(
                "The server cannot write the file %(path)s, which another user made. Delete it, then try again."
            )
            % {"path": path}
        )

"""Writes a file that is never seen half written. Needs no Django, so that `backup.install` can use it, too."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

#: How the name of a file ends that is being written: `.NAME.RANDOM` and this.
PARTIAL = ".babybuddy.part"
#: Seconds after which a partial file that did not change was left by a process that died.
ABANDONED = 600


@contextmanager
def atomic_write(path: Path) -> Iterator[Any]:
    """Open a new binary file for this user alone, which takes the place of `path` when the block ends.

    It is on the disk by then. If the block raises an error, `path` is as it was. Raises `OSError`.
    """
    # In the same folder, so that the last step is a rename. Closed below, before that.
    file = tempfile.NamedTemporaryFile(  # noqa: SIM115
        dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL, delete=False
    )
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(file.name)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Have the new name on the disk, too; not every file system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep(folder: Path) -> None:
    """Delete the partial files that processes left in a folder when they were killed.

    A file that is being written changes all the time; a time that lies in the future is no proof of that.
    """
    for partial in folder.glob(f".*{PARTIAL}"):
        with suppress(OSError):  # another process sweeps, too
            if abs(time.time() - partial.stat().st_mtime) > ABANDONED:
                partial.unlink()

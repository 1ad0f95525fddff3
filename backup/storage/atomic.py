"""Writes a file so that nobody ever sees half of it. Needs no Django, so that `backup.install` can use it, too."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

#: The end of the name of a file while it is written: `.NAME.RANDOM.babybuddy.part`.
PARTIAL = ".babybuddy.part"
#: Seconds after which a partial file that did not change is taken for one of a process that was killed.
ABANDONED = 600


@contextmanager
def atomic_write(path: Path, *, replaces: bool = True) -> Iterator[Any]:
    """Open a new binary file, readable by this user only, that replaces `path` when the block ends.

    It is synced to disk before. If the block raises an error, `path` stays as it was. Raises `OSError`.

    `replaces`: if False, a file that has the name by then stays, and the new one gets the next that is free:
    `NAME_2.zip`. After the block, the `name` of the new file is the one that it got.
    """
    # It is made in the same folder, so that replacing `path` is a rename. It is closed below, before that.
    file = tempfile.NamedTemporaryFile(  # noqa: SIM115
        dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL, delete=False
    )
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        path = path if replaces else _reserved(path)
        os.replace(file.name, path)
        file.name = str(path)
    except BaseException:
        with suppress(OSError):
            os.unlink(file.name)
        raise
    sync_folder(path.parent)


def _reserved(path: Path) -> Path:
    """Return the first name that is free: `path`, `NAME_2.zip` … An empty file is made there, so that another process
    cannot get the same one."""
    for number in itertools.count(1):
        free = path if number == 1 else path.with_stem(f"{path.stem}_{number}")
        with suppress(FileExistsError):
            os.close(os.open(free, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            break
    return free


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that the new name is on the disk, too. Not every file system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep(folder: Path) -> None:
    """Delete the partial files that killed processes left in a folder.

    They are recognised by their age, since a file that is being written changes all the time. Whatever dates the files
    there, be it another machine, also dates a new one to compare with: the clock of this process may differ. A file
    that is dated in the future, from before that clock was set back, is deleted, too.
    """
    partials = [*folder.glob(f".*{PARTIAL}")]
    with suppress(OSError):
        now = _present_time(folder) if partials else 0
        for partial in partials:
            with suppress(OSError):  # another process may delete it at the same time
                if abs(now - partial.stat().st_mtime) > ABANDONED:
                    partial.unlink()


def _present_time(folder: Path) -> float:
    """Return the time by which the files of a folder are dated."""
    with tempfile.TemporaryFile(dir=folder) as new:
        return os.fstat(new.fileno()).st_mtime

"""Gives what root writes among the files of others to whom the folder there belongs, so that the server can use and
remove it. BACKUP_ROOT, which belongs to this app alone, is the matter of `storage.owner`."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def folder_above(path: Path) -> Path:
    """Return the nearest folder above a path that is there."""
    # `Path.is_dir` fails for a name that is too long.
    return next((folder for folder in path.parents if os.path.isdir(folder)), path)


def give_as(folder: Path, path: Path) -> None:
    """Make the owner of a folder own a new file in it, and the folders in between. Does nothing unless run as root.

    `folder`: the `folder_above` of the file, before that was written. Links are not followed.
    """
    if os.name == "nt" or os.geteuid() != 0 or not path.is_relative_to(folder):
        return
    with suppress(OSError):  # a network drive may not allow changing the owner
        info = folder.stat()
        while info.st_uid != 0 and path != folder:
            if path.lstat().st_uid == 0:
                os.chown(path, info.st_uid, info.st_gid, follow_symlinks=False)
            path = path.parent

"""Takes care of who owns the files: the server must be able to use what a command wrote, whoever ran the command.

What root writes is given to the owner of the data: of the SQLite database, or else of the uploaded photos, which the
server writes, too. If the server's user cannot write to a folder, a message says which user, which folder, and what to
do.
"""

from __future__ import annotations

import os
import shlex
import stat
from contextlib import suppress
from pathlib import Path

from django.utils.translation import gettext as _

from ..conf import data_places


def give_away(folder: Path) -> None:
    """Make the owner of the data own a folder, and everything of root's in it. Does nothing unless run as root.

    Links are not followed: the owner of the folder could have made them to get hold of other files.
    """
    owner = _owner_of_data()
    if os.name == "nt" or os.geteuid() != 0 or owner is None or owner[0] == 0:
        return
    with suppress(OSError):  # a network drive may not allow changing the owner
        for _name, _folders, names, descriptor in os.fwalk(folder, follow_symlinks=False):
            for place, name in [(descriptor, ""), *((descriptor, name) for name in names)]:
                info = os.stat(name, dir_fd=place, follow_symlinks=False) if name else os.fstat(place)
                if info.st_uid == 0 and (stat.S_ISDIR(info.st_mode) or info.st_nlink == 1):
                    if name:
                        os.chown(name, *owner, dir_fd=place, follow_symlinks=False)
                    else:
                        os.fchown(place, *owner)


def can_write(folder: Path, user: int | None = None) -> bool:
    """Tell whether a user can write into a folder, or create it. `user`: a user id; by default the server's user."""
    for place in (folder, *folder.parents):
        if place.exists():
            return place.is_dir() and _may_write(place, _server_user() if user is None else user)
    return False


def file_at(folder: Path) -> Path | None:
    """Return the file that lies where a folder, or one of those around it, should be; None if there is none."""
    # Unlike those of `Path`, these raise nothing where a folder may not be entered.
    places = (place for place in (folder, *folder.parents) if os.path.exists(place))
    return next((place for place in places if not os.path.isdir(place)), None)


def in_the_way(folder: Path, user: int | None = None) -> str:
    """Return why a user cannot write into a folder, and what to do, in words for people. `user`: see `can_write`."""
    if place := file_at(folder):
        return _(
            "%(place)s is a file, so there can be no folder %(folder)s (BACKUP_ROOT). Move the file away, or set "
            "BACKUP_ROOT to another folder."
        ) % {"place": place, "folder": folder}
    name, quoted = _user_name(_server_user() if user is None else user), shlex.quote(str(folder))
    command = f"sudo mkdir -p {quoted} && sudo chown -R {shlex.quote(name)} {quoted}"
    return _(
        "The user “%(user)s”, whom Baby Buddy runs as, cannot write into the folder %(folder)s (BACKUP_ROOT). "
        "Run this on the server: %(command)s"
    ) % {"user": name, "folder": folder, "command": command}


def _may_write(folder: Path, user: int | None) -> bool:
    if user is None or user == os.geteuid():
        return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)
    if user == 0:
        return True
    groups = _groups(user)
    return _has(user, groups, folder, stat.S_IWUSR | stat.S_IXUSR) and all(
        _has(user, groups, parent, stat.S_IXUSR) for parent in folder.resolve().parents
    )


def _has(user: int, groups: set[int], folder: Path, bits: int) -> bool:
    """Tell whether a user has rights to a folder. `bits`: the rights, as bits of its mode for the owner."""
    info = folder.stat()
    if info.st_uid != user:
        bits >>= 3 if info.st_gid in groups else 6
    return info.st_mode & bits == bits


def _groups(user: int) -> set[int]:
    import pwd

    try:
        entry = pwd.getpwuid(user)
    except KeyError:
        return set()
    return {*os.getgrouplist(entry.pw_name, entry.pw_gid)}


def _server_user() -> int | None:
    """Return the user that the server seems to run as: the owner of the data, else the user of this process."""
    if os.name == "nt":
        return None
    owner = _owner_of_data()
    return owner[0] if owner and owner[0] != 0 else os.geteuid()


def _owner_of_data() -> tuple[int, int] | None:
    """Return the ids of user and group that own the data; None if no data is in a folder of this machine."""
    for place in data_places():
        with suppress(OSError):
            info = place.stat()
            return info.st_uid, info.st_gid
    return None


def _user_name(user: int | None) -> str:
    if user is None:
        return os.environ.get("USERNAME", "")
    import pwd

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)

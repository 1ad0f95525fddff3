"""Names, writes, reads and expires the files of this package, which its docstring lists.

Names are relative to the folder of this site, such as "kept/x.zip". The functions raise `StorageFailed` for whatever
error a storage raises.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, Storage, storages
from django.db import DatabaseError
from django.utils import timezone
from django.utils.translation import gettext as _

from ..conf import aware_now, conf, if_right
from ..database import Job, database_of, reason_of
from ..database.memo import site_id
from ..exceptions import BackupError, Busy, StorageFailed
from . import owner
from .atomic import atomic_write, sweep
from .bounded import ANSWER, STALLED, Activity, DoesNotAnswer, WatchedFile, bounded

T = TypeVar("T")

#: The beginning of the name of a site's folder.
_SITE = "site_"
#: The beginning of the names of files that belong to no site.
ROOT = "/"
#: An empty file that is locked, beside the folders of the sites.
LOCK = "keys.lock"
STAGED = "staged"
KEPT = "kept"
#: The folder of the safety copies of version 0.1.
SAFETY = "safety"
#: The photos of kept backups: see `photos`.
PHOTOS = "photos"
RESTORES = "restores"
PLACED = "placed"
LAST = "last"
LAST_BACKUP = f"{LAST}/backup.json"
LAST_RESTORE = f"{LAST}/restore.json"
LAST_RUN = f"{LAST}/automatic.json"
#: Seconds that somebody who notes something waits for another process that does.
NOTING_SECONDS = 30
#: Seconds after which a storage that did not answer is asked again, and when that is, by `time.monotonic`.
ASKED_AGAIN, _silent_until = 5, 0.0
#: How long the progress and the result of a restore are kept.
PROGRESS_KEPT = dt.timedelta(days=1)
#: How long an upload in pieces waits for the next one: a laptop may sleep for a night.
UNFINISHED_KEPT = dt.timedelta(days=1)


def storage() -> Storage:
    """Return the storage `backups` of `STORAGES` if there is one, else the folder BACKUP_ROOT.

    If that storage cannot be made, because of a typing error say, Django's own error is raised, so that backups do not
    go to another place unnoticed.
    """
    if "backups" in storages.backends:
        return storages["backups"]
    return FileSystemStorage(conf.root, file_permissions_mode=0o600, directory_permissions_mode=0o700)


def is_remote() -> bool:
    """Tell whether the storage is something else than a folder of this machine. Raises `StorageFailed`."""
    with storage_errors():
        return not isinstance(storage(), FileSystemStorage)


@contextmanager
def storage_errors() -> Iterator[None]:
    """Raise `StorageFailed` for whatever a storage raises: it may be third-party code.

    Its text may have a password in it, so only what the system says of an error of its own is told.
    """
    try:
        yield
    except BackupError:
        raise
    except DoesNotAnswer as error:
        raise StorageFailed(
            _("The storage “backups” of this site does not answer. Check that it is up, then try again.")
        ) from error
    except OSError as error:
        is_root = "backups" not in storages.backends
        if is_root and (isinstance(error, PermissionError) or owner.file_at(conf.root)):
            raise StorageFailed(owner.in_the_way(conf.root)) from error
        raise StorageFailed(
            _(
                "The server cannot store the file (%(reason)s). Check the free space and the "
                "permissions of BACKUP_ROOT."
            )
            % {"reason": error.strerror or type(error).__name__}
        ) from error
    except Exception as error:
        raise StorageFailed(
            _("The storage “backups” of this site does not work (%(reason)s).")
            % {"reason": type(error).__name__}
        ) from error


def _bounded(work: Callable[[Activity], T], seconds: float) -> T:
    """Do as `bounded` does, but give up at once for some seconds after the storage did not answer: a page asks for
    several things, and would wait for each of them."""
    global _silent_until
    if time.monotonic() < _silent_until:
        raise DoesNotAnswer("no answer just now")
    try:
        return bounded(work, seconds)
    except DoesNotAnswer:
        _silent_until = time.monotonic() + ASKED_AGAIN
        raise


def _ask(question: Callable[[Storage], T], missing: T) -> T:
    """Return what `question` returns for the storage, or `missing` if the file is gone; in bounded time.

    `question` raises an error for an answer that is none, such as None for a size. Raises `StorageFailed`. A folder
    needs no time limit: a disk that hangs stops the process anyway.
    """
    with storage_errors():
        place = storage()
        try:
            if isinstance(place, FileSystemStorage):
                return question(place)
            return _bounded(lambda _activity: question(place), ANSWER)
        except (FileNotFoundError, NotADirectoryError):
            return missing


def path_of(name: str, site: str = "") -> str:
    """Return the full name of a file in the storage. `site`: the id of the other site whose file it is, if any."""
    return name.removeprefix(ROOT) if name.startswith(ROOT) else f"{_SITE}{site or site_id()}/{name}"


def check_folder() -> None:
    """Raise `StorageFailed` if this process cannot write into BACKUP_ROOT. Other storages are not asked."""
    user = os.geteuid() if hasattr(os, "geteuid") else None
    if "backups" not in storages.backends and not owner.can_write(conf.root, user):
        raise StorageFailed(owner.in_the_way(conf.root, user))


def other_sites() -> list[str]:
    """Return the ids of the other sites that keep files in the same storage. Raises `StorageFailed`."""
    none: list[str] = []
    folders = _ask(lambda place: _listed(place, "")[0], none)
    return sites_among(folders)


def sites_among(folders: list[str]) -> list[str]:
    """Return the ids of other sites from the names of folders, sorted."""
    sites = {folder.removeprefix(_SITE) for folder in folders if folder.startswith(_SITE)}
    return sorted(sites - {site_id()})


def local_path(name: str, site: str = "") -> str:
    """Return the path of a file; "" if the storage is no mere folder of this machine. `site`: see `path_of`."""
    with storage_errors():
        place = storage()
        # What a class of somebody's own writes into a file may be something else than its content.
        return place.path(path_of(name, site)) if type(place) is FileSystemStorage else ""


def put(name: str, file: File[bytes], *, is_one_of_many: bool = False, seconds: float | None = None) -> None:
    """Save a file, in place of one of the same name. `is_one_of_many`: another one follows, and with that all are given
    to the owner of the data, since that looks at every file. `seconds`: how long the storage may hang.

    In a folder it appears under its name only when it is complete, and on the disk; other storages see to that
    themselves.
    """
    with storage_errors():
        place, path = storage(), path_of(name)
        if isinstance(place, FileSystemStorage):
            _put_into_folder(place, Path(place.path(path)), file)
            if not is_one_of_many:
                owner.give_away(Path(place.location))
            return

        def send(activity: Activity) -> None:
            content = File(cast(Any, WatchedFile(file, activity)), name=path)
            if place.get_available_name(path) != path and place.exists(path):
                _replace(place, path, content, activity)
            else:  # the name is free, or the storage overwrites
                place.save(path, content)

        _bounded(send, seconds or STALLED)


def _replace(place: Storage, path: str, content: File[bytes], activity: Activity) -> None:
    """Save a file in a storage that would choose another name for it, since there is one of this name.

    It is saved under that other name first: a storage that is full, or refuses it, then still has the old file. If only
    the second time fails, the old content is put back.
    """
    with _fetch(place, path, activity) as old:
        spare = place.save(path, content)
        place.delete(path)
        content.seek(0)
        try:
            place.save(path, content)
        except BaseException:
            with suppress(Exception):
                place.delete(path)  # some storages are left with half of the file
            place.save(path, File(old, name=path))  # if that fails, too, the spare one stays
            place.delete(spare)
            raise
        place.delete(spare)


def _put_into_folder(place: FileSystemStorage, path: Path, file: File[bytes]) -> None:
    os.makedirs(place.location, mode=0o700, exist_ok=True)
    for folder in (path.parent.parent, path.parent):
        os.makedirs(folder, mode=place.directory_permissions_mode or 0o700, exist_ok=True)
    with atomic_write(path) as target:
        for chunk in file.chunks():
            target.write(chunk)
        if place.file_permissions_mode is not None:
            os.chmod(target.name, place.file_permissions_mode)


def open_file(name: str, site: str = "", *, seconds: float | None = None) -> BinaryIO | None:
    """Open a file for reading; returns None if there is none. The caller closes it.

    Unless the storage is a mere folder, the whole file is fetched first, so that reading it cannot fail later.

    `site`: see `path_of`. `seconds`: how long the storage may hang.
    """
    with storage_errors():
        place, path = storage(), path_of(name, site)
        try:
            if type(place) is FileSystemStorage:  # a class of somebody's own has files of its own
                return cast(BinaryIO, place.open(path))
            return _bounded(lambda activity: _fetch(place, path, activity), seconds or STALLED)
        except FileNotFoundError:
            return None


def read_file(name: str, *, seconds: float | None = None) -> bytes | None:
    """Return the content of a small file; None if there is none. `seconds`: as for `open_file`."""
    file = open_file(name, seconds=seconds)
    if file is None:
        return None
    with storage_errors(), file:
        return file.read()


def _fetch(place: Storage, path: str, activity: Activity) -> BinaryIO:
    copy = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    try:
        with place.open(path) as file:
            shutil.copyfileobj(cast(BinaryIO, WatchedFile(file, activity)), copy)
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return cast(BinaryIO, copy)


def version_of(name: str, site: str = "") -> str:
    """Return a text that differs if the file does; "" if the file is gone.

    In a folder it is made of path, size and time. Other storages would need a request for each file, so there it is
    only the name.
    """
    with storage_errors():
        place, path = storage(), path_of(name, site)
        if not isinstance(place, FileSystemStorage):
            return path
        try:
            info = os.stat(place.path(path))
        except FileNotFoundError:
            return ""
        return f"{place.path(path)} {info.st_size} {info.st_mtime_ns}"


def size_of(name: str) -> int:
    """Return the size of a file in bytes; 0 if it is gone."""
    path = path_of(name)
    return _ask(lambda place: int(place.size(path)), missing=0)


def delete(name: str) -> None:
    """Delete a file, if it is there."""
    path = path_of(name)
    _ask(lambda place: place.delete(path), missing=None)


def names_in(folder: str, site: str = "") -> list[str]:
    """Return the names of the files in a folder, with the folder, sorted; [] if there is no such folder."""
    path = path_of(folder, site)
    none: list[str] = []
    names = _ask(lambda place: _listed(place, path)[1], none)
    return sorted(f"{folder}/{name}" for name in names)


def tidy() -> None:
    """Delete files that expired, and partial files of killed processes."""
    if seconds := if_right("staged_seconds", 0):  # else nobody knows what has expired
        _remove_older(STAGED, dt.timedelta(seconds=seconds), unfinished=UNFINISHED_KEPT)
    _remove_older(RESTORES, PROGRESS_KEPT)
    with storage_errors():
        place = storage()
        if isinstance(place, FileSystemStorage):
            for folder in (STAGED, KEPT, SAFETY, PHOTOS, RESTORES, PLACED, LAST):
                sweep(Path(place.path(path_of(folder))))


def _remove_older(folder: str, age: dt.timedelta, unfinished: dt.timedelta | None = None) -> None:
    """Delete the files that are older than `age`, or as far in the future, since a clock was wrong when they were made.

    The pieces of one upload are deleted together, `unfinished` after the last of them arrived.
    """
    for _stem, group in groupby(names_in(folder), key=lambda name: name.partition(".")[0]):
        names = [*group]
        most = unfinished if unfinished and ".begin." in names[0] else age
        if abs(aware_now() - modified(names[-1])) > most:
            for name in names:
                delete(name)


def modified(name: str) -> dt.datetime:
    """Return when a file was written, aware; the present time if it is gone."""
    path = path_of(name)
    return _ask(lambda place: _aware(place.get_modified_time(path)), missing=aware_now())


def _aware(moment: dt.datetime) -> dt.datetime:
    return timezone.make_aware(moment) if timezone.is_naive(moment) else moment


def _listed(place: Storage, path: str) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in a folder."""
    folders, names = map(list, place.listdir(path))
    if not all(isinstance(name, str) for name in [*folders, *names]):
        raise TypeError("listdir returned something else than names")
    return folders, names


@contextmanager
def noting() -> Iterator[None]:
    """Hold the lock for notes about backups and locations, against all processes and machines.

    Without it, what others note between reading and writing would be lost. Raises `StorageFailed` if another process
    does not release it in time.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(database_of().lock_within(Job.NOTE, NOTING_SECONDS))
        except Busy as error:
            raise StorageFailed(error.message) from error
        except DatabaseError as error:
            raise StorageFailed(
                _("The database does not answer, so nothing can be noted (%(reason)s).")
                % {"reason": reason_of(error)}
            ) from error
        yield


@contextmanager
def noting_for_all() -> Iterator[None]:
    """Do as `noting` does for what belongs to no site: the lock of a database keeps out nobody who has another one.

    In a storage that is no folder there is nothing to lock. Raises `StorageFailed`.
    """
    with noting(), ExitStack() as stack:
        with storage_errors():
            place = storage()
            if isinstance(place, FileSystemStorage):
                os.makedirs(place.location, mode=0o700, exist_ok=True)
                path = Path(place.location, LOCK)
                # SQLite would neither say why it cannot open a file, nor that it cannot lock one that it may only read.
                path.touch(0o600)
                guard = sqlite3.connect(path, timeout=NOTING_SECONDS, isolation_level=None)
                stack.enter_context(closing(guard))
                guard.execute("BEGIN EXCLUSIVE")  # SQLite locks a file on every system
        yield


def put_json(name: str, content: dict[str, Any]) -> None:
    put(name, ContentFile(json.dumps(content).encode()), seconds=ANSWER)


def read_json(name: str) -> dict[str, Any]:
    """Return what `put_json` saved; {} if there is nothing, or nothing that can be parsed. Raises `StorageFailed`."""
    text = read_file(name, seconds=ANSWER)  # a few bytes, for which a page does not wait as for a backup
    content: Any = None
    with suppress(ValueError):
        content = parse_json(text) if text is not None else None
    return content if isinstance(content, dict) else {}


def get_json(name: str) -> dict[str, Any]:
    """Return what `read_json` returns; {} also if it cannot be read, so nothing must be saved in its place."""
    try:
        return read_json(name)
    except StorageFailed:
        return {}


def parse_json(text: bytes | str) -> Any:
    """Return what JSON says. Raises `ValueError` if it is none, also where Python's own error is another one."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error

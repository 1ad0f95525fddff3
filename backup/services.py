"""The API: create, keep, list, inspect, verify, prove, compare, restore, undo. Views and commands only translate
between it and people.

`user`: the `User` who does it; None is the command line, which may do everything. `reporter`: is informed of the
progress. All functions raise `exceptions.BackupError`, or rather the subclasses that their docstrings name.

Longer than most modules, since the verbs share their steps, and the order of the steps is what makes a restore safe.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import django
from django.db import DatabaseError, OperationalError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from . import babybuddy, media
from .archive import (
    README,
    Archive,
    GrowingArchive,
    Key,
    Limits,
    Metadata,
    Writer,
    photos_beside,
    with_photos,
)
from .archive.limits import megabytes
from .archive.whole import write_whole
from .conf import aware_now, conf
from .database import MAX_NAMED, Database, database_of, memo, reason_of, refuse_dangling
from .database.sqlite_file import is_database
from .dump import Store, gc_paused, next_keys_of, unreadable, write_photos, write_records
from .exceptions import (
    AlreadyRestored,
    BackupError,
    Busy,
    Damaged,
    Forbidden,
    InvalidBackup,
    KeyNeeded,
    LocationFailed,
    NoSafetyCopy,
    NoSuchBackup,
    RestoreRefused,
    StorageFailed,
    Unreadable,
    WrongKey,
)
from .keeping import Keeping
from .leftovers import remove_leftovers
from .log import as_our_errors, logged, logger
from .media import NamedPhotos
from .options import (
    PHOTOS,
    SILENT,
    Phase,
    PlacedFile,
    Places,
    RecordCounter,
    Reporter,
    RestoreMode,
    RestoreOptions,
    Result,
)
from .proof import Proof, Verdict, compare, prove
from .rescue import Rescue, name_aside, remove_rest, rescued
from .restore.apply import next_keys, write
from .restore.batches import Report, Spool
from .restore.build import build
from .restore.photos import Placing, State
from .restore.plan import Plan
from .restore.policy import check_policy, check_removed, lost_in_words, refuse
from .restore.preview import PreviewCollector
from .restore.records import RecordReader
from .scope import elsewhere, is_here, models_in_scope, part_of
from .storage import files, kept, placed, state
from .storage.elsewhere import ask_again
from .storage.keys import Place, key_for, unlocked
from .tables import Column, Table, place_of, places_in_words
from .upgrade import process, schema

#: An undo restores exactly the earlier state, whatever apps there are now, and whatever was wrong with that state.
UNDO = RestoreOptions(RestoreMode.CLEAR, clear_unknown_apps=True, as_it_was=True)


#: The largest photo, in bytes, of which a preview shows a small picture.
LARGEST_SHOWN = 64 * 1024 * 1024
#: Seconds between two tries to ask a database that does not answer.
ASK_AGAIN = 0.5
#: For this long after a restore, the same request is taken for a second click, or for one that a gateway sent again.
SENT_AGAIN = dt.timedelta(minutes=5)


def backup_name(user: Any = None, moment: dt.datetime | None = None) -> str:
    """Return the name of a backup, `backup_MMDDYY_HHMMSS.zip`, in the user's time zone. `moment`: aware; default:
    now."""
    return _named((moment or aware_now()).astimezone(babybuddy.user_timezone(user)))


def _named(moment: dt.datetime) -> str:
    return f"backup_{moment:%m%d%y_%H%M%S}.zip"


def create_backup(
    target: BinaryIO,
    *,
    user: Any = None,
    label: str = "",
    leave_out: bool = False,
    reporter: Reporter = SILENT,
    place: Place = Place.DOWNLOAD,
    encrypt: bool = False,
    photos: bool = False,
    store: Store | None = None,
) -> Metadata:
    """Write a consistent backup of everything in scope to `target`, a seekable binary file.

    `label`: a note for the metadata. `leave_out`: leave out values that cannot be read, and name them in the metadata.
    `photos`: include the photos that records name; the metadata has warnings about missing ones. `store`: stores their
    content instead of the backup. `place`: where the backup goes, which decides whether it is encrypted. `encrypt`:
    encrypt it in any case. Raises `Unreadable`, `StorageFailed`, `Busy`, `EncryptionUnavailable`.
    """
    with logged("backup", user) as log:
        key = key_for(place, encrypt=encrypt)
        metadata = _write_backup(
            target, user, label, reporter, key, leave_out=leave_out, photos=photos, store=store
        )
        log(
            f"{metadata.total_records} records"
            + (f", {len(metadata.photos)} photos" if photos else "")
            + (f", encrypted with the key {key.id}" if key else "")
        )
    return metadata


def _write_backup(
    target: BinaryIO,
    user: Any,
    label: str,
    reporter: Reporter,
    key: Key | None,
    *,
    leave_out: bool = False,
    photos: bool = False,
    store: Store | None = None,
    snapshot: Database | None = None,
) -> Metadata:
    """Write a backup, encrypted if there is a key. `photos`, `store`: see `create_backup`. `snapshot`: to read from;
    None opens a new one."""
    database = database_of()
    tables = _tables()
    zone = babybuddy.user_timezone(user)
    named = NamedPhotos() if photos else None
    with (
        _damage_explained(database),
        database.exact_session(),
        Writer(target, Limits(photos=conf.max_photos)) as writer,
    ):
        with gc_paused(), nullcontext(snapshot) if snapshot else database.snapshot() as reader:
            metadata = Metadata(
                timestamp=aware_now().astimezone(zone),
                timezone=zone.key,
                created_by=user.get_username() if user else "",
                label=label,
                instance=memo.site_id(),
                babybuddy_version=babybuddy.version(),
                django_version=django.get_version(),
                database_engine=database.connection.vendor,
                migrations=schema.leaf_migrations(
                    database.connection, (t.model._meta.app_label for t in tables)
                ),
            )
            if key:
                writer.encrypt(key, metadata)
            reader.unreadable = Places()
            dangling = write_records(writer, reader, tables, reporter, named)
            if reader.unreadable and not leave_out:
                raise unreadable(reader.unreadable, is_migrated=not schema.pending(database.connection))
            metadata = replace(
                metadata,
                left_out=reader.unreadable,
                dangling=dangling,
                next_keys=next_keys_of(reader, tables, leaves_out=bool(reader.unreadable)),
                includes_media=photos,
            )
        if named is not None:  # after the snapshot, which need not stay open while photos are read
            if store is not None:
                store.begin(key)
            else:
                _check_space(target, named)
            metadata = replace(metadata, warnings=write_photos(writer, named, reporter, store))
        return writer.finish(metadata)


def _check_space(target: BinaryIO, photos: NamedPhotos) -> None:
    """Raise `StorageFailed` if the disk of a file has no room for photos."""
    try:
        disk = os.fstatvfs(target.fileno())
    except (AttributeError, OSError):  # Windows; a file in memory
        return
    free, size = disk.f_bavail * disk.f_frsize, photos.size() or 0
    if size > free:
        raise StorageFailed(
            _(
                "The photos take %(size)s MB, and where the backup is written only %(free)s MB are free. Make room, "
                "or make a backup without photos."
            )
            % {"size": megabytes(size), "free": megabytes(free)}
        )


def keep_backup(
    kind: kept.BackupKind = kept.BackupKind.MANUAL,
    *,
    user: Any = None,
    label: str = "",
    pinned: bool = False,
    leave_out: bool = False,
    reporter: Reporter = SILENT,
    encrypt: bool = False,
    photos: bool | None = None,
) -> kept.StoredBackup:
    """Make a kept backup, read it back and check it. Copies of it become due.

    `leave_out`, `encrypt`: see `create_backup`. `photos`: with photos, which are stored beside it; by default,
    BACKUP_PHOTOS decides.

    Raises `Unreadable`, `StorageFailed`, `InvalidBackup`, `Busy`, `EncryptionUnavailable`.
    """
    with logged(f"{kind.value} backup", user) as log, tempfile.TemporaryFile() as file:
        key = key_for(Place.LOCAL, encrypt=encrypt)
        metadata = _write_backup(
            file,
            user,
            label,
            reporter,
            key,
            leave_out=leave_out,
            photos=conf.photos if photos is None else photos,
            store=Keeping(),
        )
        database_of().close_if_lost()  # all was read on another one
        file.seek(0)
        stored = kept.keep(file, metadata, kind, facts={"pinned": True} if pinned else None)
        log(f"{stored.records} records, kept as {stored.name}")
    with suppress(StorageFailed):  # otherwise the copies are made with the next automatic backup
        ask_again()
    return stored


def open_kept(name: str, user: Any = None) -> BinaryIO:
    """Open a kept backup, or one of `backups_for_an_empty_site`; the caller closes it.

    Raises `NoSuchBackup`, `StorageFailed`.
    """
    try:
        return kept.open_backup(name)
    except NoSuchBackup:
        if not (_is_superuser(user) and _is_empty()):
            raise
        return kept.open_of_other_site(name)


def open_whole(name: str, user: Any = None) -> BinaryIO:
    """Open a kept backup as one complete file with its photos in it, like a download; the caller closes it.

    Missing and damaged photos are left out, and named in its metadata. Raises what `open_kept` raises, and `KeyNeeded`
    if the server does not have its key, so that photos cannot be added to it.
    """
    with ExitStack() as stack:
        source = open_kept(name, user)
        stack.callback(source.close)
        try:
            whole = _whole(source)
        except KeyNeeded:
            if _may_have_photos(name):
                raise
            whole = None
        if whole is None:
            stack.pop_all()
            whole = source
    whole.seek(0)
    return whole


def _may_have_photos(name: str) -> bool:
    """Tell whether a backup whose key the server does not have may have photos. One of another site always may."""
    try:
        return kept.find(name).photos > 0
    except NoSuchBackup:
        return True


def _whole(source: BinaryIO) -> BinaryIO | None:
    """Return one complete file of a backup whose photos are stored beside it; None if it has none, or if it is damaged,
    since somebody may want to look at the file as it is."""
    try:
        opened = unlocked(source)
    except InvalidBackup:
        return None
    with opened as archive:
        photos = archive.metadata.photos.values()
        if all(map(archive.holds, photos)):
            return None
        _check_temporary_space(source.seek(0, 2) + sum(photo.size for photo in photos))
        whole = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115  the caller closes it
        try:
            write_whole(source, archive, whole)
        except BaseException:
            whole.close()
            raise
        return whole


def _check_temporary_space(size: int) -> None:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > free:
        raise StorageFailed(
            _("The backup takes %(size)s MB, and only %(free)s MB are free in the temporary folder.")
            % {"size": megabytes(size), "free": megabytes(free)}
        )


def backups_for_an_empty_site(user: Any = None, *, most: int) -> list[kept.StoredBackup]:
    """Return the newest kept backups that a site without children could be filled with; [] for any other site.

    They are those of this site or, for superusers, of other sites in the same storage: a new database counts as a new
    site, but the backups of the old one are still there. Only superusers see them, since several families may share a
    storage. Raises `StorageFailed`.
    """
    if not _is_empty():
        return []
    own = [backup for backup in kept.backups() if backup.counts.get(babybuddy.CHILD)]
    if own or not _is_superuser(user):
        return own[:most]
    return [backup for backup in kept.of_other_sites(most=most) if backup.counts.get(babybuddy.CHILD)]


def _is_empty() -> bool:
    """Tell whether there is no child. False if the host has no such model, or if its table cannot be read."""
    return _counts(table for table in _tables() if table.label == babybuddy.CHILD) == {babybuddy.CHILD: 0}


def note_backup(metadata: Metadata, user: Any = None) -> None:
    """Save that somebody downloaded a backup, for `state.load_last_backup`."""
    dangling = places_in_words(metadata.dangling)
    state.save_last_backup(metadata.timestamp, user, metadata.total_records, dangling)


def counts() -> dict[str, int]:
    """Return model label -> number of records, for all models in scope that can be read."""
    return _counts(_tables())


def _counts(tables: Iterable[Table]) -> dict[str, int]:
    database, numbers = database_of(), {}
    for table in tables:
        with suppress(Damaged), database.damage_explained():
            numbers[table.label] = database.count(table)
    return numbers


def database_size() -> int | None:
    """Return the size of the database in bytes; None if it is not known."""
    try:
        return database_of().size()
    except DatabaseError:  # the database account may lack the permission
        return None


def photos_here() -> tuple[int, int | None]:
    """Return how many photos a backup would contain now, and their bytes; None instead of the bytes if there are very
    many photos, or if a server would have to be asked for each."""
    database, photos = database_of(), NamedPhotos()
    try:
        for table in _tables():
            for _place, column in media.file_columns(table):
                photos.see_names(table, column, database.texts(table, column))
    except DatabaseError:  # making a backup will report it
        return 0, None
    return len(photos), photos.quick_size()


@contextmanager
def at_todays_schema(
    source: BinaryIO,
    options: RestoreOptions = RestoreOptions(),  # noqa: B008  it is frozen
    *,
    path: Path | None = None,
    key: Key | None = None,
    user: Any = None,
    reporter: Reporter = SILENT,
) -> Iterator[BinaryIO]:
    """Yield a backup at today's schema: `source` itself, or, if it is an older backup or an SQLite database file, a new
    backup that is made from it with the host's own migrations (see `upgrade`).

    Preview and restore do this by themselves. Callers that do both should do it once, before. `path`: see
    `upgrade.process.upgraded`. `key`: tried first on an encrypted backup; the new one is encrypted with the same key.
    Raises `InvalidBackup`, `KeyNeeded`, `Unreadable`, `RestoreRefused`, `Damaged`, `UpgradeFailed`, `StorageFailed`,
    `Busy`.
    """
    with _at_todays_schema(source, options, path=path, key=key, user=user, reporter=reporter) as backup:
        yield cast(BinaryIO, backup)


@contextmanager
def _at_todays_schema(
    source: BinaryIO,
    options: RestoreOptions,
    *,
    path: Path | None = None,
    key: Key | None = None,
    user: Any = None,
    reporter: Reporter = SILENT,
    may_grow: bool = False,
) -> Iterator[BinaryIO | GrowingArchive]:
    """Like `at_todays_schema`. `may_grow`: what is made of a database file may be read while it is still written."""
    if options.edited:
        _superusers_only(
            user,
            _(
                "Only a superuser can restore a file that was edited. Choose the backup as it was made, or ask one."
            ),
        )
    database = database_of()
    connection = database.connection
    with ExitStack() as stack:
        backup: BinaryIO | GrowingArchive = source
        with as_our_errors(), database.damage_explained():
            needs_upgrade, file_key = _look_at(source, options.edited, key, leave_out=options.leave_out)
            if needs_upgrade:
                schema.check_site(connection)
        is_plain = is_database(source) and not (options.edited or options.leave_out)
        if needs_upgrade and may_grow and is_plain:
            with logged("upgrade", user) as log:
                backup = stack.enter_context(process.read_meanwhile(source, path, reporter))
                log("under way" if isinstance(backup, GrowingArchive) else f"{backup.seek(0, 2)} bytes")
        elif needs_upgrade:
            with logged("upgrade", user) as log:
                upgraded = stack.enter_context(
                    process.upgraded(
                        source,
                        path,
                        reporter,
                        edited=options.edited,
                        leave_out=options.leave_out,
                        key=file_key,
                    )
                )
                log(f"{upgraded.seek(0, 2)} bytes")
                backup = with_photos(upgraded, photos_beside(source))
        yield backup


def _superusers_only(user: Any, message: str) -> None:
    if not _is_superuser(user):
        raise Forbidden(message)


def _look_at(
    source: BinaryIO, edited: bool = False, key: Key | None = None, *, leave_out: bool = False
) -> tuple[bool, Key | None]:
    """Return whether a file has to be brought to today's schema, and the key that it is encrypted with.

    `key`: tried first. Raises `InvalidBackup`, `KeyNeeded`, `RestoreRefused`.
    """
    if is_database(source):
        return True, None
    with unlocked(source, edited=edited, key=key) as archive:
        is_older = schema.is_older(database_of().connection, archive.metadata, leave_out=leave_out)
        return is_older, archive.key


def key_of(source: BinaryIO, key: Key | None = None) -> Key | None:
    """Return the key that a file is encrypted with: `key`, or one that the server has; None if it is not encrypted.

    Needs no database. Raises `InvalidBackup`, `KeyNeeded`.
    """
    if is_database(source):
        return None
    with unlocked(source, edited=True, key=key) as archive:  # the next step reports other faults
        return archive.key


def typed_key(typed: str, source: BinaryIO) -> Key | None:
    """Return the key that somebody typed for a backup; None if nothing was typed.

    Raises `WrongKey`, with the id of the key that the backup needs, if the text cannot be a key. Raises
    `InvalidBackup`.
    """
    if not typed:
        return None
    try:
        return Key.parse(typed)
    except WrongKey as error:
        try:
            known = key_of(source)
            error.key_id = known.id if known else ""
        except KeyNeeded as needed:
            error.key_id = needed.key_id
        raise


def verify_backup(source: BinaryIO, reporter: Reporter = SILENT, *, key: Key | None = None) -> Metadata:
    """Read a backup completely: ZIP, checksums, counts, JSON, photos. Needs no database.

    Returns the metadata. It has an additional warning if none of the photos are there, as in a kept backup that was
    copied without the photos beside it. `key`: tried first if the backup is encrypted. Raises `InvalidBackup`,
    `KeyNeeded`.
    """
    with unlocked(source, key=key) as archive:
        for member in archive.metadata.members.get(README.key, {}).values():
            for _block in archive.read(member):
                pass
        counter = RecordCounter(reporter, max(archive.metadata.total_records, 0))
        counts: dict[str, int] = {}
        for label in archive.metadata.models:
            counts[label] = 0
            for batch in archive.records(label):
                counts[label] += len(batch)
                counter.add(label, len(batch))
        return _with_photos_verified(archive, reporter).counted(counts)


def _with_photos_verified(archive: Archive, reporter: Reporter) -> Metadata:
    metadata = archive.metadata
    photos = metadata.photos.values()
    if not any(map(archive.has_photo, photos)):
        text = ngettext(
            "%(n)s photo of the backup is not in this file. The server that made it keeps it beside the file.",
            "%(n)s photos of the backup are not in this file. The server that made it keeps them beside the file.",
            len(photos),
        )
        missing = [text % {"n": len(photos)}] if photos else []
        return replace(metadata, warnings=[*metadata.warnings, *missing])
    for done, photo in enumerate(photos, 1):
        for _block in archive.read(photo):
            pass
        reporter.progress(PHOTOS, done, len(photos))
    return metadata


def prove_backup(
    source: BinaryIO,
    *,
    path: Path | None = None,
    edited: bool = False,
    leave_out: bool = False,
    key: Key | None = None,
    user: Any = None,
    reporter: Reporter = SILENT,
    photos_known: Collection[str] = (),
) -> Proof:
    """Prove a backup, or a database file, of any age: restore it into a throw-away database, and compare every value.

    Faults are in the proof that is returned; nothing is raised. `path`, `key`: see `at_todays_schema`. `edited`: see
    `RestoreOptions`. `leave_out`: values that this site has no place for need not come back. `photos_known`: see
    `proof.prove`.
    """

    def look() -> tuple[bool, Key | None]:
        schema.check_site(database_of().connection)  # the throw-away database has all migrations
        return _look_at(source, edited, key, leave_out=leave_out)

    with logged("proof", user) as log:
        proof = prove(
            source,
            look,
            path=path,
            edited=edited,
            leave_out=leave_out,
            reporter=reporter,
            photos_known=photos_known,
        )
        database_of().close_if_lost()  # it has stood idle all the time
        log(f"{proof.verdict.value}, {proof.records} records, {proof.photos} photos")
        return proof


def prove_kept(
    name: str,
    *,
    place: str = "",
    leave_out: bool = False,
    key: Key | None = None,
    user: Any = None,
    reporter: Reporter = SILENT,
    photos_known: Collection[str] = (),
) -> Proof:
    """Prove a kept backup, and save the result beside the file, except with `leave_out`.

    `place`: the location to fetch it from, or `local`; by default, the one where it failed last, or the first one.
    `leave_out`: see `prove_backup`. `key`: tried first if the backup is encrypted. `photos_known`: see `proof.prove`.
    Without a verdict, the verdict from before is kept. Raises `NoSuchBackup`, `StorageFailed`.
    """
    backup = kept.find(name)
    last = backup.proof or {}
    failed_at = last.get("place", "") if last.get("verdict") == Verdict.FAILED.value else ""
    place = place or failed_at or next(iter(backup.locations))
    try:
        with kept.open_backup(name, place) as source:
            proof = prove_backup(
                source,
                leave_out=leave_out,
                key=key,
                user=user,
                reporter=reporter,
                photos_known=photos_known,
            )
    except (NoSuchBackup, InvalidBackup, LocationFailed) as error:
        if place == kept.LOCAL:
            raise
        verdict = Verdict.UNKNOWN if isinstance(error, LocationFailed) else Verdict.FAILED
        proof = Proof(verdict, aware_now().isoformat(), reason=error.message)
    proof = replace(proof, place=place)
    if not leave_out:
        kept.note_proof(name, proof.as_json(), is_verdict=proof.verdict is not Verdict.UNKNOWN)
    return proof


def compare_backups(
    first: BinaryIO,
    second: BinaryIO,
    reporter: Reporter = SILENT,
    *,
    leave_out: bool = False,
    keys: tuple[Key | None, Key | None] = (None, None),
) -> dict[str, dict[str, int]]:
    """Return model label -> how many records are added, changed, unchanged and removed in the second backup.

    `leave_out`: see `RestoreOptions`. `keys`: tried first on each backup if it is encrypted. Raises `InvalidBackup`,
    `KeyNeeded`, `RestoreRefused`, `StorageFailed`.
    """
    with logged("comparison", None) as log:
        is_older, key = _look_at(first, key=keys[0], leave_out=leave_out)
        keys = (key, _look_at(second, key=keys[1], leave_out=leave_out)[1])
        changes = compare(first, second, is_older=is_older, leave_out=leave_out, keys=keys, reporter=reporter)
        log(f"{len(changes)} models")
        return changes


def inspect_backup(
    source: BinaryIO, options: RestoreOptions, *, user: Any = None, key: Key | None = None
) -> Plan:
    """Return the plan of a restore for a preview: what it would do, and whether this user may do it. Changes nothing.

    `key`: tried first if the backup is encrypted. Raises `InvalidBackup`, `KeyNeeded`, or `RestoreRefused` if the
    backup is from a newer schema.
    """
    database = database_of()
    with (
        logged("preview", user) as log,
        gc_paused(),
        _damage_explained(database),
        database.exact_session(),
        at_todays_schema(source, options, key=key, user=user) as backup,
        unlocked(backup, edited=options.edited, key=key) as archive,
        Spool() as spool,
    ):
        with database.snapshot() as reader:
            tables = _tables()
            moments = {t.label: moment for t in tables if (moment := babybuddy.date_column_of(t))}
            preview = PreviewCollector(spool, options.mode, moments, babybuddy.USES)
            placing = Placing(archive, leave_out=options.leave_out)
            plan = _plan(archive, reader, spool, options, user, preview=preview, placing=placing)
            accounted_for = placing.accounted_for()
            missing = _missing_files(
                file
                for file in _files_in(archive, plan.tables)
                if (file[0].label, file[1].name, file[3]) not in accounted_for
            )
            plan = replace(
                plan,
                refusal=reader.untransactional(tables) or plan.refusal,
                warnings=[*plan.warnings, *_missing_in_words(missing)],
                photos=replace(plan.photos, missing=len({name for *_place, name in missing})),
            )
        log(f"{plan.metadata.total_records} records")
        return plan


@contextmanager
def photo_in(source: BinaryIO, sha256: str, *, edited: bool = False) -> Iterator[BinaryIO | None]:
    """Yield a photo of a backup, by its checksum, as a temporary file; None if there is none, or if it is too large to
    show. Only keys of the server are tried. Raises `InvalidBackup`, `KeyNeeded`, `StorageFailed`."""
    with unlocked(source, edited=edited) as archive, tempfile.TemporaryFile() as file:
        photos = archive.metadata.photos.values()
        photo = next((photo for photo in photos if photo.sha256 == sha256), None)
        if photo is None or photo.size > LARGEST_SHOWN or not archive.has_photo(photo):
            yield None
            return
        for block in archive.read(photo):
            file.write(block)
        file.seek(0)
        yield cast(BinaryIO, file)


def restore_backup(
    source: BinaryIO,
    options: RestoreOptions,
    *,
    user: Any = None,
    reporter: Reporter = SILENT,
    idempotency_key: str = "",
    key: Key | None = None,
    path: Path | None = None,
    most_removed: int | None = None,
) -> Result:
    """Restore a backup completely, or, if anything fails, change nothing.

    `idempotency_key`: identifies this request, see `ensure_not_repeated`. `key`: tried first if the backup is
    encrypted. `path`: see `at_todays_schema`. `most_removed`: how many records here may be deleted although existing
    data is not cleared, since a preview has shown them; None: any number. Raises `InvalidBackup`, `KeyNeeded`,
    `RestoreRefused`, `Busy`, `AlreadyRestored`, `StorageFailed`, `EncryptionUnavailable`.
    """
    with logged("restore", user) as log:
        result = _restore(
            source,
            options,
            user=user,
            reporter=reporter,
            idempotency_key=idempotency_key,
            key=key,
            path=path,
            most_removed=most_removed,
        )
        log(f"{result.records} records, safety copy {result.safety_copy}")
        return result


def undo_restore(
    *,
    safety_copy: str | None = None,
    without_safety_copy: bool = False,
    user: Any = None,
    reporter: Reporter = SILENT,
    idempotency_key: str = "",
    key: Key | None = None,
) -> Result:
    """Restore exactly the state before the last restore, or the state of another safety copy.

    `without_safety_copy`: see `RestoreOptions`. `key`: see `restore_backup`. Raises `AlreadyRestored` if no copy is
    named and the last restore was undone already, `NoSafetyCopy`, `NoSuchBackup`, and what `restore_backup` raises.
    """
    with logged("undo", user) as log:
        last = state.load_last_restore()
        copy = safety_copy or _copy_to_undo(last)
        undone = last if last is not None and copy == last.safety_copy else None
        label = _("before an undo") if undone else _("before going back to %(file)s") % {"file": copy}
        with kept.open_backup(copy) as source:
            is_ours = _is_ours(copy, source, undone, key)
            options = replace(
                UNDO,
                without_safety_copy=without_safety_copy,
                as_it_was=is_ours,
                undoes=is_ours and undone is not None and undone.kept_passwords,
            )
            result = _restore(
                source,
                options,
                user=user,
                reporter=reporter,
                idempotency_key=idempotency_key or copy,
                key=key,
                undo=_Undo(label, undone),
            )
        log(f"{result.records} records of {copy}, safety copy {result.safety_copy}")
        return result


def _is_ours(copy: str, source: BinaryIO, undone: state.LastRestore | None, key: Key | None) -> bool:
    """Tell whether a kept backup holds what this site was, to the letter: whoever can write to a location can change
    what is fetched from there, unless its checksum is known. Else it is checked as any other file.

    Raises `InvalidBackup` if another backup has taken its place in BACKUP_ROOT.
    """
    with unlocked(source, key=key) as archive:
        checksum = kept.checksum_of(archive.metadata)
    known = undone.checksum if undone is not None else ""
    if kept.find(copy).is_local:
        if known not in ("", checksum):
            raise InvalidBackup(
                _(
                    "The safety copy %(name)s is another backup than the one that was made before the last restore. "
                    "Nothing was changed. Look at what is in it, or choose another safety copy."
                )
                % {"name": copy}
            )
        return True
    return known == checksum


def safety_copy_to_undo() -> str:
    """Return the name of the safety copy that undoing the last restore would restore.

    Raises `NoSafetyCopy`; `AlreadyRestored` if the last restore was an undo.
    """
    return _copy_to_undo(state.load_last_restore())


def _copy_to_undo(last: state.LastRestore | None) -> str:
    if last is None:
        copies = kept.names(kept.BackupKind.SAFETY)
        if not copies:
            raise NoSafetyCopy(_("There is no restore to undo: nothing was restored on this server."))
        raise NoSafetyCopy(
            _(
                "It is not known any more which restore was the last one. The newest safety copy is %(name)s: look at "
                "what is in it, then restore it, clearing existing data."
            )
            % {"name": copies[0].text}
        )
    if not last.safety_copy:
        text = _(
            "The last restore cannot be undone: the database was damaged, and no safety copy of it could be made."
        )
        if last.damaged_file:
            text += " " + _("The damaged file is kept as %(path)s.") % {"path": last.damaged_file}
        raise NoSafetyCopy(text)
    if last.is_undo:
        raise AlreadyRestored(
            _("The last restore was undone already. To take that back, choose the safety copy %(name)s.")
            % {"name": last.safety_copy}
        )
    return last.safety_copy


@dataclass(frozen=True)
class _Undo:
    """That a restore is an undo. `label`: for its safety copy. `undone`: the last restore, if that is undone."""

    label: str
    undone: state.LastRestore | None


def _restore(
    source: BinaryIO,
    options: RestoreOptions,
    *,
    user: Any,
    reporter: Reporter,
    idempotency_key: str,
    key: Key | None,
    undo: _Undo | None = None,
    path: Path | None = None,
    most_removed: int | None = None,
) -> Result:
    """Restore or undo. For the other parameters, see `restore_backup`."""
    undone = undo.undone if undo else None
    database = database_of()
    tables = _tables()
    with ExitStack() as stack:
        stack.enter_context(gc_paused())
        stack.enter_context(_damage_explained(database, options))
        stack.enter_context(database.exact_session())
        rescue = None
        if options.without_safety_copy:
            _superusers_only(user, _("Only a superuser can restore without a complete safety copy."))
            stack.enter_context(database.exclusive())
            rescue = stack.enter_context(
                rescued(
                    database,
                    tables,
                    reporter,
                    lambda: _keep_readable(user, reporter),
                    clears=options.mode.clears,
                )
            )
        backup = stack.enter_context(
            _at_todays_schema(
                source, options, path=path, key=key, user=user, reporter=reporter, may_grow=True
            )
        )
        archive: Archive = stack.enter_context(
            backup if isinstance(backup, GrowingArchive) else unlocked(backup, edited=options.edited, key=key)
        )
        spool = stack.enter_context(Spool())
        if not options.without_safety_copy:
            stack.enter_context(database.exclusive())
        ensure_not_repeated(idempotency_key)
        if undone and not options.without_safety_copy and undone != state.load_last_restore():
            raise AlreadyRestored(
                _("Another backup was restored meanwhile, so nothing was undone. Look at it, then try again.")
            )
        database.check_transactional(tables)
        is_of_this_site = archive.metadata.instance == memo.site_id()
        database.natural_keys.keeps_numbers = options.as_it_was and is_of_this_site
        # Do as much as possible before other writers are locked out: reading, checking, converting, the safety copy.
        reporter.phase(Phase.CHECK)
        members = archive.metadata.models.items()
        total = sum(member.records for label, member in members if part_of(label) in options.parts)
        counter = RecordCounter(reporter, max(total, 0))
        placing = Placing(archive, reporter, leave_out=options.leave_out)
        with ExitStack() as stack_of_snapshot:
            # Plan and safety copy use the same snapshot. At the end it is checked whether anything has changed since.
            snapshot = database
            if not options.without_safety_copy:
                snapshot = stack_of_snapshot.enter_context(database.snapshot())
            marker = snapshot.change_marker(tables)
            plan = _plan(
                archive, snapshot, spool, options, user, report=counter.add, placing=placing, into=database
            )
            refuse(plan, options)
            reporter.phase(Phase.COPY)
            label = (
                undo.label
                if undo
                else _("before restoring %(file)s") % {"file": _named(archive.metadata.timestamp)}
            )
            safety_copy = stack.enter_context(_safety_copy(user, label, reporter, options, rescue))
            note = stack.enter_context(_taken_back(placing, safety_copy))
            if marker is not None:
                safety_copy.make(None if snapshot is database else snapshot)
        if placing.count(State.ADDED):
            reporter.phase(Phase.WRITE)
            placing.place(note)
        carried_out: list[state.LastRestore] = []
        # From here on, nobody else can write. What others have written until now must be in the safety copy.
        with _unless_carried_out(database, carried_out), database.restoring(tables), Spool() as fresh:
            has_changed = marker is None or database.change_marker(tables) != marker
            if has_changed:
                safety_copy.make()
            if has_changed or placing.has_moved:
                # If nothing was compared, only the policy depends on the data that is here, or which passwords stay.
                if plan.is_packed and not (plan.identical or placing.has_moved or options.undoes):
                    plan = check_policy(plan, database, superuser=_is_superuser(user))
                else:
                    plan = _plan(archive, database, fresh, options, user, placing=placing)
                refuse(plan, options)
            reporter.phase(Phase.WRITE)
            counter = RecordCounter(reporter, sum(plan.records.values()))
            reader = RecordReader(
                archive, as_it_was=options.as_it_was, merged=plan.merged, renamed=plan.renamed
            )
            lost = write(plan, database, tables, reader, counter)
            keys = next_keys(plan, database)
            check_removed(plan, lost, most_removed)
            reporter.phase(Phase.FINISH)
            warnings = [*plan.warnings, *lost_in_words(lost)]
            dangling_warnings, left_out = _check_dangling(database, options)
            warnings += [*dangling_warnings, *safety_copy.warnings]
            if left_out:
                warnings.append(
                    _("Left out, since they refer to something that is not there: %(places)s.")
                    % {"places": "; ".join(places_in_words(left_out))}
                )
            made = database.natural_keys.made
            unmade = database.natural_keys.unmake(undone.made if undone else ())
            database.reset_sequences(tables)
            if not options.as_it_was:  # the rows that this adds get their keys from the sequences
                warnings += babybuddy.after_restore(database, plan.records)
            keys |= unmade
            if not database.KEYS_AFTER_COMMIT:
                database.set_next_keys(keys)
            safety_copy.make_sure()
            last = state.LastRestore(
                aware_now().isoformat(),
                _digest(idempotency_key),
                safety_copy.name,
                is_undo=undo is not None,
                made=made,
                checksum=safety_copy.checksum,
                kept_passwords=not plan.accounts.passwords,
                damaged_file=rescue.aside if rescue else "",
            )
            state.save_last_restore(last)
            carried_out.append(last)
            safety_copy.is_needed = True  # from here on, even if the commit seems to fail
        if rescue:
            rescue.finish()
        # The restore is committed. Errors from here on become warnings and do not make it fail.
        if database.KEYS_AFTER_COMMIT:
            try:
                database.set_next_keys(keys)
            except DatabaseError as error:
                text = _("The next entries may get higher numbers than they would have (%(reason)s).")
                warnings.append(text % {"reason": reason_of(error)})
        try:
            kept.prune(keep=safety_copy.name)
        except BackupError as error:
            warnings.append(error.message)
        remove_leftovers()
        remove_rest(database)
        try:
            babybuddy.drop_caches()
        except Exception as error:  # noqa: BLE001  any cache backend may be configured
            logger.warning("the caches could not be emptied after a restore: %s", type(error).__name__)
            warnings.append(
                _("Restart Baby Buddy: its cache could not be cleared, so it may still show old numbers.")
            )
        whole = [place.model for place in left_out.named if place.field is None]
        records = {label: count - whole.count(label) for label, count in plan.records.items()}
        warnings = list(dict.fromkeys(warnings))  # warnings of the plan may come again
        missing: list[NamedFile] = []
        try:
            missing = _missing_files(_files_here(database))
        except DatabaseError as error:
            logger.warning("missing photos could not be looked for after a restore: %s", type(error).__name__)
        warnings += _missing_in_words(missing)
        return Result(records, safety_copy.name, warnings, [*plan.children], len(missing), placing.restored)


def empty_missing_files(*, user: Any = None, reporter: Reporter = SILENT) -> Result:
    """Clear the fields that name a missing file, since the host's pages fail for a missing photo.

    It can be undone like a restore. Raises `Busy`, `Damaged`, `StorageFailed`.
    """
    database = database_of()
    tables = _tables()
    options = RestoreOptions()
    with logged("emptying", user) as log, database.damage_explained(), database.exclusive():
        label = _("before missing photos were taken out")
        carried_out: list[state.LastRestore] = []
        with (
            _unless_carried_out(database, carried_out),
            _safety_copy(user, label, reporter, options, None) as safety_copy,
            database.restoring(tables),
        ):
            safety_copy.make()
            missing = _missing_files(_files_here(database))
            for table, column, key, _name in missing:
                database.empty(table, column, key)
            safety_copy.make_sure()
            last = state.LastRestore(
                aware_now().isoformat(),
                "",
                safety_copy.name,
                is_undo=False,
                checksum=safety_copy.checksum,
                kept_passwords=True,
            )
            state.save_last_restore(last)
            carried_out.append(last)
            safety_copy.is_needed = True
        log(f"{len(missing)} fields, safety copy {safety_copy.name}")
        return Result({}, safety_copy.name)


#: Table, column, key of a row (None: of a record), name of a file.
NamedFile = tuple[Table, Column, Any, str]


def _files_here(database: Database) -> Iterator[NamedFile]:
    for table in _tables():
        for _place, column in media.file_columns(table):
            for key, name in database.texts(table, column):
                yield table, column, key, name


def _files_in(archive: Archive, tables: Iterable[Table]) -> Iterator[NamedFile]:
    for table in tables:
        if columns := media.file_columns(table):
            for batch in RecordReader(archive).batches(table):
                for place, column in columns:
                    named = zip(batch[0], batch[place], strict=True)
                    yield from ((table, column, key, name) for key, name in named if name)
                del batch  # its notes may be long, and so may the next ones


def _missing_files(files: Iterable[NamedFile]) -> list[NamedFile]:
    """Return the files that are missing. If a storage cannot tell, they are assumed to be there."""
    by_column: dict[tuple[str, str], list[NamedFile]] = {}
    for file in files:
        by_column.setdefault((file[0].label, file[1].name), []).append(file)
    missing = []
    for (label, field), named in by_column.items():
        try:
            gone = media.missing(named[0][1], {name for *_others, name in named})
        except Exception as error:  # noqa: BLE001  a storage may be anybody's code
            logger.warning("the storage of %s, %s, does not answer: %s", label, field, type(error).__name__)
            continue
        missing += [file for file in named if file[3] in gone]
    return missing


def _missing_in_words(missing: Sequence[NamedFile]) -> list[str]:
    if not missing:
        return []
    places = Places()
    for table, column, key, name in missing:
        places.add(place_of(table.label, key, column.name, name))
    text = ngettext(
        "%(n)s photo is not in the media folder of this server, and pages that show it fail: %(places)s. Copy the "
        "media folder from the old server, or empty this field.",
        "%(n)s photos are not in the media folder of this server, and pages that show them fail: %(places)s. Copy the "
        "media folder from the old server, or empty these fields.",
        places.total,
    )
    return [text % {"n": places.total, "places": "; ".join(places_in_words(places))}]


def ensure_not_repeated(idempotency_key: str) -> None:
    """Raise `AlreadyRestored` if the same request was carried out last, at most `SENT_AGAIN` ago: somebody clicked
    twice, or a gateway did not wait for the answer and sent the request again.

    `idempotency_key`: for example the id of the upload, or a digest of the file. "" never counts as the same.
    """
    last = state.load_last_restore()
    if not idempotency_key or last is None or last.idempotency_key != _digest(idempotency_key):
        return
    if abs(aware_now() - dt.datetime.fromisoformat(last.at)) < SENT_AGAIN:
        minutes = SENT_AGAIN // dt.timedelta(minutes=1)
        raise AlreadyRestored(
            ngettext(
                "This was restored just now, so it is not restored again. To restore it "
                "anyway, wait %(n)s minute.",
                "This was restored just now, so it is not restored again. To restore it "
                "anyway, wait %(n)s minutes.",
                minutes,
            )
            % {"n": minutes}
        )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest() if key else ""


def check_storage() -> None:
    """Raise `StorageFailed` if this process cannot write kept backups. It must be run as the server's user."""
    files.check_folder()


def kept_backups(*, start: int = 0, most: int | None = None) -> list[kept.StoredBackup]:
    """List the kept backups, newest first. Raises `StorageFailed`.

    `start`: how many to skip. `most`: how many to list. A list from the beginning also has the backup that undo needs.
    """
    files.tidy()
    backups = kept.backups(start=start, most=most)
    undo = "" if start else kept.name_to_undo()
    if undo and undo not in {backup.name for backup in backups}:
        with suppress(NoSuchBackup):  # it was deleted
            backups.append(kept.find(undo))
    return backups


@contextmanager
def _damage_explained(database: Database, options: RestoreOptions | None = None) -> Iterator[None]:
    """Explain damage as `Database.damage_explained` does, and name missing tables; but not if these are only missing
    because migrations have not been applied yet. Raises `Busy` if tables were altered meanwhile.

    `options`: of a restore. If it has done already what is offered for damage, that is not offered again.
    """
    before = _altered(database)
    try:
        with database.damage_explained():
            yield
    except (RestoreRefused, StorageFailed, DatabaseError) as error:
        if altered := sorted({*_altered(database)} - {*before}):
            raise Busy(
                _(
                    "The tables of the database were altered meanwhile: %(tables)s. Nothing was changed. Please try "
                    "again."
                )
                % {"tables": ", ".join(altered)}
            ) from error
        if not isinstance(error, Damaged):
            raise
        if options and options.without_safety_copy and options.mode.clears:
            way_on = _(
                "If it cannot be repaired: make a new one with “manage.py migrate”, and restore into that."
            )
            damaged = Damaged(f"{error.message} {way_on}", error.details)
            damaged.offer = ""
            raise damaged from error
        missing: Iterable[str] = ()
        with suppress(DatabaseError):
            schema.check_site(database.connection)
            missing = database.missing_tables(_tables())
        if missing and error.must_clear:
            raise Damaged(
                _(
                    "Tables are missing in the database of this site. Nothing was changed. A restore that clears "
                    "existing data makes them anew. Missing are:"
                ),
                [*missing],
            ) from error
        raise


def _altered(database: Database) -> list[str]:
    """Return what `Database.altered` does; nothing where the database does not answer at all."""
    try:
        database.fetch("SELECT 1")
    except DatabaseError:
        return []
    return database.altered(_tables())


def _tables(*, everything: bool = False) -> list[Table]:
    """Return the tables in scope, in dependency order. `everything`: also those of all other models, which may refer to
    rows in scope."""
    models = models_in_scope(exclude=conf.exclude)
    if everything:
        models = [*models, *(model for model in _all_models() if model not in models)]
    return [Table(model, babybuddy.IDENTITIES.get(model._meta.label_lower, ())) for model in models]


def _tables_outside(scope: Iterable[Table]) -> list[Table]:
    """Return the tables here that no backup holds. `scope`: those that backups do."""
    labels = {table.label for table in scope}
    return [table for table in _tables(everything=True) if table.label not in labels]


def _all_models() -> list[Any]:
    from django.apps import apps

    models = [m for m in apps.get_models() if m._meta.managed and not m._meta.proxy and not m._meta.swapped]
    return [*filter(is_here, models)]


def _plan(
    archive: Archive,
    database: Database,
    spool: Spool,
    options: RestoreOptions,
    user: Any,
    *,
    preview: PreviewCollector | None = None,
    report: Report | None = None,
    placing: Placing | None = None,
    into: Database | None = None,
) -> Plan:
    tables = _tables()
    if not archive.metadata.has_checksums:
        schema.check_fields(archive, tables)
    validators = None if options.as_it_was else babybuddy.validators(database)
    with archive.completed():
        return build(
            RecordReader(
                archive, validators, preview, report, database=database, as_it_was=options.as_it_was
            ),
            database,
            tables,
            spool,
            options,
            superuser=_is_superuser(user),
            excluded={*(name.lower() for name in conf.exclude), *elsewhere()},
            outside=_tables_outside(tables),
            site=memo.site_id(),
            preview=preview,
            # Comparing texts reads the rows that are here, which may be damaged.
            as_text=not options.without_safety_copy,
            into=into,
            # An earlier state of this site needs no photos, since no restore removes any.
            placing=None if options.as_it_was else placing,
        )


def _is_superuser(user: Any) -> bool:
    return user is None or bool(user.is_superuser)


def _check_dangling(database: Database, options: RestoreOptions) -> tuple[list[str], Places]:
    """Raise `RecordsRefused` if the restore created dangling references, or leave them out, if that was chosen.

    Returns warnings about references that were dangling before, and what was left out. An undo may restore dangling
    references; if the engine does not accept any, they are left out. Those of models that no backup holds may stay.
    """
    scope = _tables()
    others = _tables_outside(scope)
    tables = others if options.as_it_was and database.takes_dangling else [*scope, *others]
    may_stay = tables if database.takes_dangling or not options.mode.clears else others
    if not database.dangling(tables, limit=1):
        return [], Places()
    before: list[str] = []
    with suppress(OperationalError), database.snapshot() as snapshot:  # it does not see the restore yet
        before = snapshot.dangling(may_stay, limit=1000)
    left_out = Places()
    if options.leave_out or (options.as_it_was and not database.takes_dangling):
        left_out = database.leave_out_dangling(scope, [] if options.mode.clears else before)
    lines = database.dangling(tables, limit=len(before) + MAX_NAMED)
    refuse_dangling([line for line in lines if line not in before])
    if not lines:
        return [], left_out
    warning = _("Rows that were here before refer to something that is not there: %(rows)s")
    return [warning % {"rows": "; ".join(lines[:MAX_NAMED])}], left_out


class _SafetyCopy:
    """The verified backup of the state before a restore. `label`: why it is made. `rescue`: given if the database was
    damaged, so that a copy of what could be read exists already."""

    def __init__(
        self, user: Any, label: str, reporter: Reporter, options: RestoreOptions, rescue: Rescue | None
    ) -> None:
        self._user, self._label, self._reporter, self._options = user, label, reporter, options
        self.name = rescue.safety_copy if rescue else ""
        self._is_made = rescue is not None
        #: See `kept.checksum_of`; "" for what could be read of a damaged database.
        self.checksum = ""
        #: Warnings about the copy.
        self.warnings = rescue.warnings if rescue else []
        #: Whether it was made now. If the state has been kept before, that backup is used.
        self._is_new = False
        #: Whether the restore may have changed something, so that the copy has to stay.
        self.is_needed = False

    def make(self, snapshot: Database | None = None) -> None:
        """Make the copy, or replace it by a new one. `snapshot`: see `_write_backup`.

        Raises `Damaged`, `StorageFailed`.
        """
        if self._is_made:
            return
        try:
            leave_out = self._options.without_safety_copy
            name, is_new, metadata = _keep_copy(
                self._user, self._label, self._reporter, leave_out=leave_out, snapshot=snapshot
            )
        except Unreadable as error:
            message = _(
                "The safety copy cannot hold all that is here, since not all of it can be read. Nothing was changed."
            )
            damaged = Damaged(message, error.details)
            damaged.must_clear = False
            raise damaged from error
        if name != self.name:
            self.discard()
            self.name, self._is_new = name, is_new
        self.checksum = kept.checksum_of(metadata)
        self.warnings = _lossy(metadata.left_out) if metadata.left_out else []

    def make_sure(self) -> None:
        """Make the copy again if somebody has deleted it. Raises what `make` raises."""
        if not self._is_made:
            try:
                kept.open_backup(self.name, kept.LOCAL).close()
            except NoSuchBackup:
                self.make()

    def discard(self) -> None:
        """Delete the copy, if it was made now."""
        if self.name and self._is_new:
            with suppress(BackupError):
                kept.delete(self.name)


def _keep_copy(
    user: Any, label: str, reporter: Reporter, *, leave_out: bool, snapshot: Database | None = None
) -> tuple[str, bool, Metadata]:
    """Keep a backup of the present state. `snapshot`: see `_write_backup`. Returns its name, whether it is new, and
    what it says of itself."""
    with tempfile.TemporaryFile() as file:
        key = key_for(Place.LOCAL)
        metadata = _write_backup(file, user, label, reporter, key, leave_out=leave_out, snapshot=snapshot)
        file.seek(0)
        same = kept.same_state(metadata)
        stored = same or kept.keep(file, metadata, kept.BackupKind.SAFETY)
        return stored.name, same is None, metadata


def _keep_readable(user: Any, reporter: Reporter) -> str:
    """Keep a backup of what can be read of a damaged database. Returns its name."""
    return _keep_copy(user, _("what could be read"), reporter, leave_out=True)[0]


def _lossy(left_out: Places) -> list[str]:
    """Return warnings about a safety copy from which something was left out. A database file is then kept as well."""
    warnings = [
        _("The safety copy lacks what cannot be read: %(places)s.")
        % {"places": "; ".join(places_in_words(left_out))}
    ]
    database = database_of()
    path = database.file()
    if path is not None:
        # Not in BACKUP_ROOT: this copy is not encrypted, but files there may have to be.
        copy = name_aside(path)
        with database.damage_explained():
            database.copy_file(copy)
        with suppress(OSError):
            shutil.copystat(path, copy)
        warnings.append(_("The database file from before is kept as %(name)s.") % {"name": copy})
    return warnings


@contextmanager
def _taken_back(
    placing: Placing, safety_copy: _SafetyCopy
) -> Iterator[Callable[[Sequence[PlacedFile]], None]]:
    """Take back the photos that are placed in the block, unless the restore may have been committed.

    Yields the function that notes them before they are written.
    """
    notes: list[str] = []
    try:
        yield lambda files: notes.append(placed.note(files))
    except BaseException:
        if not safety_copy.is_needed and placing.take_back():
            with suppress(BackupError):
                placed.forget(notes)
        raise


@contextmanager
def _unless_carried_out(database: Database, saved: Sequence[state.LastRestore]) -> Iterator[None]:
    """Suppress an error of the block if the restore was committed all the same: a connection may break before the
    answer to a COMMIT arrives.

    `saved`: holds what `state.save_last_restore` saved in the restore's transaction, if it has come so far. Raises
    `Busy` if the database does not say whether it was committed.
    """
    try:
        yield
    except (BackupError, DatabaseError) as error:
        if not saved or not _is_carried_out(database, saved[0], error):
            raise
        logger.warning("the connection broke just after the commit of a restore: %s", reason_of(error))


def _is_carried_out(database: Database, restore: state.LastRestore, error: Exception) -> bool:
    """Tell whether a restore is the last one. Waits a little for a database that does not answer."""
    until = time.monotonic() + database.LOCK_SECONDS
    while True:
        database.close_if_lost()
        try:
            last = state.load_last_restore()
            return last is not None and last.at == restore.at
        except Busy as busy:
            if time.monotonic() > until:
                raise Busy(
                    _(
                        "The connection to the database broke at the very end (%(reason)s), so it is not known whether "
                        "this was done. Look at the data before you try again."
                    )
                    % {"reason": reason_of(error)}
                ) from busy
            time.sleep(ASK_AGAIN)


@contextmanager
def _safety_copy(
    user: Any, label: str, reporter: Reporter, options: RestoreOptions, rescue: Rescue | None
) -> Iterator[_SafetyCopy]:
    """Discard the safety copy that is made in the block, unless the restore may have changed something."""
    copy = _SafetyCopy(user, label, reporter, options, rescue)
    try:
        yield copy
    except BaseException:
        if not copy.is_needed:
            copy.discard()
        raise

"""The API: create, keep, list, inspect, verify, prove, compare, restore, undo. Views and commands only translate
between it and people.

`user`: the `User` who does it; None is the command line, which may do everything. `reporter`: is informed of the
progress. All functions raise `exceptions.BackupError`, or rather the subclasses that their docstrings name.

Longer than most modules, since there are many of them. What they are made of is in modules of its own.
"""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from django.db import DatabaseError, InterfaceError, OperationalError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from . import babybuddy, media
from .archive import (
    README,
    Archive,
    Key,
    Metadata,
)
from .archive.limits import megabytes
from .archive.whole import write_whole
from .conf import aware_now, conf
from .database import database_of
from .database.sqlite_file import is_database
from .dump import Store, gc_paused
from .exceptions import (
    BackupError,
    Damaged,
    EncryptionUnavailable,
    Forbidden,
    InvalidBackup,
    KeyNeeded,
    LocationFailed,
    NoSuchBackup,
    StorageFailed,
    Unavailable,
    WrongKey,
    WrongSettings,
)
from .keeping import Keeping
from .last_restore import (
    copy_to_undo,
    forbidden_undo,
    not_the_last,
    unknown_in_words,
    unless_carried_out,
)
from .last_restore import ensure_not_repeated as ensure_not_repeated  # also part of the API
from .log import logged, logger
from .making import file_name, write_backup
from .media import NamedPhotos
from .missing_photos import files_here, files_in, missing_files, missing_in_words
from .options import (
    PHOTOS,
    SILENT,
    RecordCounter,
    Reporter,
    RestoreMode,
    RestoreOptions,
    Result,
)
from .proof import Proof, Verdict, compare, prove
from .restore.batches import Spool
from .restore.members import refuse_excluded_since
from .restore.photos import Placing
from .restore.plan import Plan
from .restore.preview import PreviewCollector
from .restoring import Undo, leave_out_damaged, plan_of, restore
from .safety_copy import prepared
from .site import counts_of, damage_explained, tables_here, tables_outside
from .storage import files, kept, state
from .storage.elsewhere import ask_again
from .storage.facts import proofs_of
from .storage.keys import Place, key_for, unlocked
from .storage.photos import mend
from .tables import places_in_words
from .todays_schema import brought_to_todays_schema, is_superuser, look_at, offers_for
from .upgrade import schema

#: An undo restores exactly the earlier state, whatever apps there are now, and whatever was wrong with that state.
UNDO = RestoreOptions(RestoreMode.CLEAR, clear_unknown_apps=True, as_it_was=True)
#: The largest photo, in bytes, of which a preview shows a small picture.
LARGEST_SHOWN = 64 * 1024 * 1024


def backup_name(user: Any = None, moment: dt.datetime | None = None) -> str:
    """Return the name of a backup, `backup_MMDDYY_HHMMSS.zip`, in the user's time zone. `moment`: aware; default:
    now."""
    return file_name((moment or aware_now()).astimezone(babybuddy.user_timezone(user)))


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
        metadata = write_backup(
            target, user, label, reporter, key, leave_out=leave_out, photos=photos, store=store
        )
        log(
            f"{metadata.total_records} records"
            + (f", {len(metadata.photos)} photos" if photos else "")
            + (f", encrypted with the key {key.id}" if key else "")
        )
    return metadata


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
        metadata = write_backup(
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
        if not (is_superuser(user) and _is_empty()):
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
    if own or not is_superuser(user):
        return own[:most]
    return [backup for backup in kept.of_other_sites(most=most) if backup.counts.get(babybuddy.CHILD)]


def _is_empty() -> bool:
    """Tell whether there is no child. False if the host has no such model, or if its table cannot be read."""
    return counts_of(table for table in tables_here() if table.label == babybuddy.CHILD) == {
        babybuddy.CHILD: 0
    }


def note_backup(metadata: Metadata, user: Any = None) -> None:
    """Save that somebody downloaded a backup, for `state.load_last_backup`."""
    dangling = places_in_words(metadata.dangling)
    state.save_last_backup(metadata.timestamp, user, metadata.total_records, dangling)


def counts() -> dict[str, int]:
    """Return model label -> number of records, for all models in scope that can be read."""
    return counts_of(tables_here())


def database_size() -> int | None:
    """Return the size of the database in bytes; None if it is not known."""
    try:
        return database_of().size()
    except DatabaseError:  # the database account may lack the permission
        return None


def database_failed(error: Exception) -> BackupError:
    """Return what an error of the database says that was met outside of a job: `Damaged`, or `Unavailable`. Raises the
    error itself if it says neither."""
    database = database_of()
    if isinstance(error, DatabaseError) and database.is_damage(error):
        return Damaged(database.damaged(error).message, offer="")
    if not isinstance(error, (OperationalError, InterfaceError)):
        raise error
    database.close_if_lost()
    return Unavailable(_("The database does not answer. Please try again later."))


def photos_here() -> tuple[int, int | None]:
    """Return how many photos a backup would contain now, and their bytes; None instead of the bytes if there are very
    many photos, or if a server would have to be asked for each."""
    database, photos = database_of(), NamedPhotos()
    try:
        for table in tables_here():
            for _place, column in media.file_columns(table):
                photos.see_names(table, column, database.texts(table, column))
    except (DatabaseError, WrongSettings):  # making a backup will report it
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
    with brought_to_todays_schema(
        source, options, path=path, key=key, user=user, reporter=reporter
    ) as backup:
        yield cast(BinaryIO, backup)


def key_of(source: BinaryIO, key: Key | None = None) -> Key | None:
    """Return the key that a file is encrypted with: `key`, or one that the server has; None if it is not encrypted.

    Needs no database. Raises `InvalidBackup`, `KeyNeeded`.
    """
    if is_database(source):
        return None
    with unlocked(
        source, edited=True, lenient=True, key=key
    ) as archive:  # the next step reports other faults
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
        faults: list[InvalidBackup] = []
        for label in archive.metadata.models:
            counts[label] = 0
            try:
                for batch in archive.records(label):
                    counts[label] += len(batch)
                    counter.add(label, len(batch))
            except InvalidBackup as error:  # others may be damaged, too
                faults.append(error)
        if faults:
            faults[0].details += [fault.message for fault in faults[1:]]
            raise faults[0]
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
        history = schema.load_history(database_of())
        schema.check_site(history)  # the throw-away database has all migrations
        return look_at(source, edited, key, leave_out=leave_out, history=history)

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


def mend_photos(name: str) -> int:
    """Store the photos of a kept backup in BACKUP_ROOT anew that are damaged or missing there, and whole in a location.
    Returns how many; 0 if they cannot be stored, or not be known."""
    mended = 0
    with (
        suppress(InvalidBackup, NoSuchBackup, StorageFailed, KeyNeeded, EncryptionUnavailable),
        kept.open_backup(name, kept.LOCAL) as source,
        unlocked(source) as archive,
    ):
        mended = mend(archive)
    if mended:
        logger.info("%s photos of %s were mended from a location", mended, name)
    return mended


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
    if place == kept.LOCAL and proofs_of(backup.facts).get(place, {}).get("verdict") == Verdict.FAILED.value:
        mend_photos(name)
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
    note: Callable[[str], object] = str,
) -> dict[str, dict[str, int]]:
    """Return model label -> how many records are added, changed, unchanged and removed in the second backup.

    `leave_out`: see `RestoreOptions`; `note` is then called with lines that name it. `keys`: tried first on each backup
    if it is encrypted. Raises `InvalidBackup`, `KeyNeeded`, `RestoreRefused`, `StorageFailed`.
    """
    with logged("comparison", None) as log:
        is_older, key = look_at(first, key=keys[0], leave_out=leave_out)
        keys = (key, look_at(second, key=keys[1], leave_out=leave_out)[1])
        changes, left_out = compare(
            first, second, is_older=is_older, leave_out=leave_out, keys=keys, reporter=reporter
        )
        for line in left_out:
            note(line)
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
        offers_for(user),
        damage_explained(database),
        at_todays_schema(source, options, key=key, user=user) as backup,
        database.exact_session(),
        unlocked(backup, edited=options.edited, lenient=options.leave_out, key=key) as archive,
        Spool() as spool,
    ):
        with database.snapshot() as reader:
            tables = tables_here()
            leave_out_damaged(archive, tables, options, reader)
            if not options.without_safety_copy:  # otherwise a new file is made
                reader.refuse_broken_indexes(tables)
            moments = {t.label: moment for t in tables if (moment := babybuddy.date_column_of(t))}
            preview = PreviewCollector(spool, options.mode, moments, babybuddy.uses())
            placing = Placing(archive, leave_out=options.leave_out)
            plan = plan_of(
                archive, reader, spool, options, user, preview=preview, placing=placing, into=database
            )
            accounted_for = placing.accounted_for()
            missing = missing_files(
                file
                for file in files_in(archive, plan.tables)
                if (file[0].label, file[1].name, file[3]) not in accounted_for
            )
            plan = replace(
                plan,
                refusal=reader.untransactional(tables) or plan.refusal,
                warnings=[*plan.warnings, *missing_in_words(missing, archive)],
                photos=replace(plan.photos, missing=len({name for *_place, name in missing})),
            )
        log(f"{plan.metadata.total_records} records")
        return plan


@contextmanager
def photo_in(source: BinaryIO, sha256: str, *, edited: bool = False) -> Iterator[BinaryIO | None]:
    """Yield a photo of a backup, by its checksum, as a temporary file; None if there is none, or if it is too large to
    show. Only keys of the server are tried. Raises `InvalidBackup`, `KeyNeeded`, `StorageFailed`."""
    with unlocked(source, edited=edited, lenient=True) as archive, tempfile.TemporaryFile() as file:
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
        result = restore(
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
    only_last: bool = False,
    without_safety_copy: bool = False,
    user: Any = None,
    reporter: Reporter = SILENT,
    idempotency_key: str = "",
    key: Key | None = None,
) -> Result:
    """Restore exactly the state before the last restore, or the state of another safety copy.

    `only_last`: the copy was that of the last restore when somebody looked; no other one is meant.
    `without_safety_copy`: see `RestoreOptions`. `key`: see `restore_backup`. Raises `AlreadyRestored` if no copy is
    named and the last restore was undone already, or if `only_last` is not so any more; `NoSafetyCopy`, `NoSuchBackup`,
    and what `restore_backup` raises.
    """
    with logged("undo", user) as log:
        last = state.load_last_restore()
        copy = safety_copy or copy_to_undo(last)
        undone = last if last is not None and copy == last.safety_copy else None
        if only_last and undone is None:
            ensure_not_repeated(idempotency_key or copy)  # which says that it was done just now
            if last is None:
                copy_to_undo(last)  # which says that the last restore is not known
            raise not_the_last(copy)
        label = _("before an undo") if undone else _("before going back to %(file)s") % {"file": copy}
        with kept.open_backup(copy) as source:
            with unlocked(source, key=key) as archive:
                metadata = archive.metadata
            is_ours = _is_ours(copy, metadata, undone)
            refuse_excluded_since(metadata, tables_outside(tables_here()))
            options = replace(
                UNDO,
                without_safety_copy=without_safety_copy,
                as_it_was=is_ours,
                undoes=undone is not None,
                left_passwords=is_ours and undone is not None and undone.kept_passwords,
                left_tokens=undone is not None and undone.kept_tokens,
            )
            try:
                result = restore(
                    source,
                    options,
                    user=user,
                    reporter=reporter,
                    idempotency_key=idempotency_key or copy,
                    key=key,
                    undo=Undo(label, undone),
                )
            except Forbidden as error:
                if without_safety_copy:
                    raise
                raise forbidden_undo(copy) from error
        log(f"{result.records} records of {copy}, safety copy {result.safety_copy}")
        return result


def _is_ours(copy: str, metadata: Metadata, undone: state.LastRestore | None) -> bool:
    """Tell whether a kept backup holds what this site was, to the letter: whoever can write to a location can change
    what is fetched from there, unless its checksum is known. Else it is checked as any other file.

    Raises `InvalidBackup` if another backup has taken its place in BACKUP_ROOT.
    """
    checksum = kept.checksum_of(metadata)
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
    return copy_to_undo(state.load_last_restore())


def empty_missing_files(*, user: Any = None, reporter: Reporter = SILENT) -> Result:
    """Clear the fields that name a missing file, since the host's pages fail for a missing photo.

    It can be undone like a restore. If none is missing, nothing is changed, the last restore stays the last one, and
    the result names no safety copy. Raises `Busy`, `Damaged`, `StorageFailed`.
    """
    database = database_of()
    tables = tables_here()
    options = RestoreOptions()
    with logged("emptying", user) as log, database.damage_explained(), database.exclusive():
        label = _("before missing photos were taken out")
        carried_out: list[state.LastRestore] = []
        with (
            unless_carried_out(database, tables, carried_out),
            prepared(database, user, label, reporter, options, None) as safety_copy,
            database.restoring(tables),
        ):
            missing = missing_files(files_here(database))
            if not missing:
                log("0 fields")
                return Result({}, "")
            safety_copy.make()
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
                kept_tokens=True,
            )
            carried_out.append(last)
            state.save_last_restore(last)
            safety_copy.is_needed = True
        log(f"{len(missing)} fields, safety copy {safety_copy.name}")
        return Result({}, safety_copy.name, unknown_in_words(last))


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

"""The API: create, inspect, verify, restore, undo. Views and commands only translate between this and people.

`user`: who does it, a `User`; None is the command line, which may do all. `progress` is called from time to time with
(label of the model, records done, records in all). Everything raises `exceptions.BackupError`.
"""

from __future__ import annotations

import datetime as dt
import gc
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

import django
from django.db import DatabaseError
from django.utils import timezone

from . import babybuddy, upgrade, vault
from .archive import Archive, Limits, Metadata, Writer
from .conf import conf
from .database import Database, refuse_records
from .exceptions import BackupError, StorageFailed
from .plan import Plan, Spool, build
from .records import Table
from .samples import Look
from .scope import models_in_scope

logger = logging.getLogger("backup")

Progress = Callable[[str, int, int], None]
#: Is told when a step of a restore begins: one of `STEPS`.
Step = Callable[[str], None]
STEPS = ("check", "copy", "write", "finish")


@dataclass(frozen=True)
class Result:
    """What a restore did. `restored`: model label -> records that were in the backup. `safety_copy`: the name of the
    backup that was taken just before."""

    restored: dict[str, int]
    safety_copy: str
    warnings: list[str] = field(default_factory=list)

    @property
    def records(self) -> int:
        return sum(self.restored.values())

    @classmethod
    def of_json(cls, said: dict[str, Any]) -> Result:
        return cls(said["restored"], said["safety_copy"], said["warnings"])

    def as_json(self) -> dict[str, Any]:
        return {
            "restored": self.restored,
            "records": self.records,
            "warnings": self.warnings,
            "safety_copy": self.safety_copy,
        }


def backup_name(user: Any = None, moment: dt.datetime | None = None) -> str:
    """`backup_MMDDYY_HHMMSS.zip` in the user's own time zone. `moment`: aware; now by default."""
    moment = (moment or timezone.now()).astimezone(babybuddy.user_timezone(user))
    return f"backup_{moment:%m%d%y_%H%M%S}.zip"


def create_backup(
    target: BinaryIO, *, user: Any = None, label: str = "", progress: Progress | None = None
) -> Metadata:
    """Write a backup of all that is in scope, at one moment, into `target`, a seekable binary file.

    `label`: a remark that goes into the metadata.
    """
    database = Database.of()
    with _logged("backup", user) as log, _in_bulk():
        tables = _tables()
        zone = babybuddy.user_timezone(user)
        with database.snapshot() as reader, Writer(target) as writer:
            metadata = Metadata(
                timestamp=timezone.now().astimezone(zone),
                timezone=zone.key,
                created_by=user.get_username() if user else "",
                label=label,
                babybuddy_version=babybuddy.version(),
                django_version=django.get_version(),
                database_engine=database.connection.vendor,
                migrations=upgrade.leaf_migrations(
                    database.connection, (t.model._meta.app_label for t in tables)
                ),
            )
            tell = _Teller(progress, sum(reader.count(table) for table in tables) if progress else 0)
            for table in tables:
                writer.add(table.label, table.file, _records(reader, table, tell))
            metadata = writer.finish(metadata)
        log(f"{metadata.total_records} records")
    return metadata


def note_backup(metadata: Metadata, user: Any = None) -> None:
    """Remember that a backup was taken for keeping, for `vault.last_backup`."""
    vault.note_backup(metadata.timestamp, user, metadata.total_records)


def database_size() -> int | None:
    """In bytes; None where that cannot be told."""
    try:
        return Database.of().size()
    except DatabaseError:  # not every account may look
        return None


def verify_backup(source: BinaryIO, progress: Progress | None = None) -> Metadata:
    """Read all of a backup: ZIP, checksums, counts, JSON. Needs no database. Raises `InvalidBackup`."""
    with open_archive(source) as archive:
        tell = _Teller(progress, archive.metadata.total_records if archive.metadata.has_checksums else 0)
        counts: dict[str, int] = {}
        for label in archive.metadata.models:
            counts[label] = 0
            for batch in archive.records(label):
                counts[label] += len(batch)
                tell(label, len(batch))
        return archive.metadata.counted(counts)


def inspect_backup(source: BinaryIO, *, clear: bool, user: Any = None) -> Plan:
    """What a restore would do, and whether this user may: the preview. Changes nothing.

    Raises `InvalidBackup`, or `RestoreRefused` where the backup's schema is not this site's.
    """
    database = Database.of()
    with _logged("preview", user) as log, _in_bulk(), open_archive(source) as archive, Spool() as spool:
        with database.snapshot() as reader:
            tables = _tables()
            look = Look({t.label: moment for t in tables if (moment := babybuddy.moment_of(t))}, spool)
            plan = _plan(archive, reader, spool, clear, user, compare=True, look=look)
            plan.count()
        log(f"{plan.metadata.total_records} records")
        return plan


def restore_backup(
    source: BinaryIO,
    *,
    clear: bool,
    user: Any = None,
    progress: Progress | None = None,
    step: Step | None = None,
) -> Result:
    """Restore a backup: all of it, or, whatever happens, nothing.

    `clear`: delete everything in scope first. `progress` counts the records that are written; with `step`, which is
    told of each step, those of the steps before, too.
    Raises `InvalidBackup`, `RestoreRefused`, `Busy`, `StorageFailed`.
    """
    database = Database.of()
    step, early = (step, progress) if step else (lambda name: None, None)
    with (
        _logged("restore", user) as log,
        _in_bulk(),
        open_archive(source) as archive,
        Spool() as spool,
        database.exclusive(),
    ):
        # What can be done before others are locked out is done before: reading, checking, converting, the safety copy.
        step("check")
        moment = database.moment()
        total = max(archive.metadata.total_records, 0)
        plan = _plan(archive, database, spool, clear, user, compare=not clear, tell=_Teller(early, total))
        _refuse(plan)
        step("copy")
        with _safety_copy(user, early) as safety_copy, database.restoring(), Spool() as fresh:
            if moment is None or database.moment() != moment:
                # Something was entered since, which may change what is to be done.
                if clear:
                    plan.judge(superuser=_is_superuser(user))
                else:
                    plan = _plan(archive, database, fresh, clear, user, compare=True)
                _refuse(plan)
            step("write")
            _write(plan, _Teller(progress, plan.metadata.total_records))
            step("finish")
            warnings = [*plan.warnings, *babybuddy.after_restore(database)]
            refuse_records(database.dangling(_tables(everything=True)))
            database.reset_sequences([*plan.tables, *plan.emptied])
        # The data is there now: what goes wrong from here on is told, but is no failure of the restore.
        babybuddy.drop_caches()
        try:
            vault.prune_safety_copies()
        except StorageFailed as error:
            warnings.append(error.message)
        restored = {
            label: member.records for label, member in plan.metadata.models.items() if plan.holds(label)
        }
        result = Result(restored, safety_copy, warnings)
        log(f"{result.records} records")
        return result


def _write(plan: Plan, tell: _Teller) -> None:
    """Carry out a plan. Raises `RecordsRefused`."""
    database = plan.database
    if plan.clear:
        database.clear([*plan.tables, *plan.emptied])
    for table in plan.tables:
        if plan.clear:
            for number, (count, packed) in enumerate(plan.prepared(table)):
                database.insert_prepared(table, packed, partial(plan.columns, table, number))
                tell(table.label, count)
        else:
            database.delete(table, plan.replaced.get(table.label, []))
            for step in plan.steps(table):
                database.insert(table, step.added)
                database.update(table, step.changed)
                tell(table.label, len(step.added) + len(step.changed) + step.unchanged)
    refuse_records(database.refused)


def undo_restore(*, user: Any = None, progress: Progress | None = None, step: Step | None = None) -> Result:
    """Bring back the state before the last restore. Raises `NoSafetyCopy`, and what `restore_backup` does."""
    with vault.open_safety_copy() as source:
        return restore_backup(source, clear=True, user=user, progress=progress, step=step)


@contextmanager
def _in_bulk() -> Iterator[None]:
    """Millions of rows come and go, none of them in a circle: Python's search for circles would take a third of the
    time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def open_archive(source: BinaryIO) -> Iterator[Archive]:
    with Archive(source, Limits(uncompressed=conf.max_uncompressed_size)) as archive:
        yield archive


def _tables(*, everything: bool = False) -> list[Table]:
    """Those in scope, in dependency order. `everything`: and all others of the project's that refer to something."""
    models = models_in_scope(exclude=conf.exclude)
    if everything:
        models = [*models, *(model for model in _all_models() if model not in models)]
    return [Table(model, babybuddy.IDENTITIES.get(model._meta.label_lower, ())) for model in models]


def _all_models() -> list[Any]:
    from django.apps import apps

    return [m for m in apps.get_models() if m._meta.managed and not m._meta.proxy and not m._meta.swapped]


def _plan(
    archive: Archive,
    database: Database,
    spool: Spool,
    clear: bool,
    user: Any,
    *,
    compare: bool,
    look: Look | None = None,
    tell: Callable[[str, int], None] | None = None,
) -> Plan:
    upgrade.check_schema(database.connection, archive.metadata)
    return build(
        archive,
        database,
        _tables(),
        spool,
        clear=clear,
        compare=compare,
        superuser=_is_superuser(user),
        validators=babybuddy.validators(database),
        excluded={name.lower() for name in conf.exclude},
        look=look,
        tell=tell,
    )


def _is_superuser(user: Any) -> bool:
    return user is None or bool(user.is_superuser)


def _refuse(plan: Plan) -> None:
    if plan.refusal:
        raise plan.refusal


def _records(database: Database, table: Table, tell: _Teller) -> Iterator[list[dict[str, Any]]]:
    for columns in database.columns(table):
        yield table.records(columns)
        tell(table.label, len(columns[0]))


@contextmanager
def _safety_copy(user: Any, progress: Progress | None) -> Iterator[str]:
    """A verified backup of the present state, which is kept if what happens inside ends well."""
    with tempfile.TemporaryFile() as file:
        create_backup(file, user=user, label="before a restore", progress=progress)
        verify_backup(file)
        file.seek(0)
        name = vault.keep_safety_copy(file)
    try:
        yield name
    except BaseException:
        vault.forget_safety_copy(name)  # nothing was changed, so there is nothing to go back to
        raise


class _Teller:
    """Counts records for `progress`."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, label: str, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(label, self._done, self._total)


@contextmanager
def _logged(what: str, user: Any) -> Iterator[Callable[[str], None]]:
    """One line for what was done or refused: who, what, how much, how long. No secrets, and nothing out of a file."""
    started = timezone.now()
    who = user.get_username() if user else "command line"
    said: list[str] = []

    def took() -> str:
        return f"{(timezone.now() - started).total_seconds():.1f} s"

    try:
        yield said.append
    except BackupError as error:
        logger.warning("%s by %r refused: %s, %s", what, who, error.code, took())
        raise
    logger.info("%s by %r: %s, %s", what, who, ", ".join(said), took())

"""Carries out a restore. The order of its steps is what makes it safe: the plan, the safety copy, and the photos come
first; then, while nobody else can write, the rows and the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from django.db import DatabaseError, OperationalError
from django.utils.translation import gettext as _

from . import babybuddy
from .archive import Archive, GrowingArchive, Key
from .archive.metadata import Metadata
from .conf import aware_now, conf
from .database import MAX_NAMED, Database, database_of, memo, reason_of, refuse_dangling
from .dump import gc_paused
from .exceptions import AlreadyRestored, BackupError, InvalidBackup
from .last_restore import digest, ensure_not_repeated, unknown_in_words, unless_carried_out
from .leftovers import remove_leftovers
from .log import logger
from .making import file_name
from .missing_photos import NamedFile, files_here, missing_files, missing_in_words
from .options import Phase, PlacedFile, Places, RecordCounter, Reporter, RestoreOptions, Result
from .rescue import remove_rest, rescued
from .restore.accounts import default_settings_in_words
from .restore.apply import next_keys, write
from .restore.batches import Report, Spool
from .restore.build import build
from .restore.dangling import MOST_BEFORE, left_out_in_words
from .restore.left_behind import with_held
from .restore.photos import Placing, State
from .restore.plan import Plan
from .restore.policy import check_removed, keeps_tokens, lost_in_words, refuse
from .restore.preview import PreviewCollector
from .restore.records import RecordReader
from .safety_copy import SafetyCopy, keep_readable, prepared
from .scope import excluded, part_of
from .site import damage_explained, tables_here, tables_outside
from .storage import kept, placed, state
from .storage.keys import unlocked
from .tables import Table
from .todays_schema import brought_to_todays_schema, is_superuser, offers_for, superusers_only
from .upgrade import schema


@dataclass(frozen=True)
class Undo:
    """That a restore is an undo. `label`: for its safety copy. `undone`: the last restore, if that is undone."""

    label: str
    undone: state.LastRestore | None


def restore(
    source: BinaryIO,
    options: RestoreOptions,
    *,
    user: Any,
    reporter: Reporter,
    idempotency_key: str,
    key: Key | None,
    undo: Undo | None = None,
    path: Path | None = None,
    most_removed: int | None = None,
) -> Result:
    """Restore or undo. For the other parameters, see `restore_backup`."""
    undone = undo.undone if undo else None
    database = database_of()
    tables = tables_here()
    with ExitStack() as stack:
        stack.enter_context(gc_paused())
        stack.enter_context(offers_for(user))
        stack.enter_context(damage_explained(database, options))
        stack.enter_context(database.exact_session())
        rescue = None
        if options.without_safety_copy:
            superusers_only(user, _("Only a superuser can restore without a complete safety copy."))
            stack.enter_context(database.exclusive())
            rescue = stack.enter_context(
                rescued(database, tables, options, reporter, lambda: keep_readable(user, reporter))
            )
        backup = stack.enter_context(
            brought_to_todays_schema(
                source, options, path=path, key=key, user=user, reporter=reporter, may_grow=True
            )
        )
        archive: Archive = stack.enter_context(
            backup
            if isinstance(backup, GrowingArchive)
            else unlocked(backup, edited=options.edited, lenient=options.leave_out, key=key)
        )
        leave_out_damaged(archive, tables, options, database)
        spool = stack.enter_context(Spool())
        if not options.without_safety_copy:
            stack.enter_context(database.exclusive())
        _ensure_none_meanwhile(undone, idempotency_key, options)
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
            marker = None if database.missing else snapshot.change_marker(tables)
            plan = plan_of(
                archive, snapshot, spool, options, user, report=counter.add, placing=placing, into=database
            )
            refuse(plan, options)
            reporter.phase(Phase.COPY)
            label = (
                undo.label
                if undo
                else _("before restoring %(file)s") % {"file": file_name(archive.metadata.timestamp)}
            )
            safety_copy = stack.enter_context(prepared(database, user, label, reporter, options, rescue))
            note = stack.enter_context(_taken_back(placing, safety_copy, database))
            if marker is not None:
                safety_copy.make(None if snapshot is database else snapshot)
        if placing.count(State.ADDED):
            reporter.phase(Phase.WRITE)
            placing.place(note)
        carried_out: list[state.LastRestore] = []
        # From here on, nobody else can write. What others have written until now must be in the safety copy.
        with unless_carried_out(database, tables, carried_out), database.restoring(tables), Spool() as fresh:
            # Again, since the lock may have been lost for a while. Now nobody else can commit a restore.
            _ensure_none_meanwhile(undone, idempotency_key, options)
            has_changed = marker is None or database.change_marker(tables) != marker
            if has_changed:
                safety_copy.make()
            if has_changed or placing.has_moved:
                plan = plan_of(archive, database, fresh, options, user, placing=placing)
                refuse(plan, options)
            reporter.phase(Phase.WRITE)
            counter = RecordCounter(reporter, sum(plan.records.values()))
            reader = RecordReader(
                archive, as_it_was=options.as_it_was, merged=plan.merged, renamed=plan.renamed
            )
            kept_tokens = keeps_tokens(plan, database)
            lost = write(plan, database, tables, reader, counter)
            keys = next_keys(plan, database)
            check_removed(plan, lost, most_removed)
            reporter.phase(Phase.FINISH)
            warnings = [*plan.warnings, *lost_in_words(lost)]
            dangling_warnings, left_out = _check_dangling(database, options, archive.metadata)
            warnings += [*dangling_warnings, *safety_copy.warnings]
            if left_out:
                warnings.append(left_out_in_words(left_out))
            made = database.natural_keys.made
            unmade = database.natural_keys.unmake(undone.made if undone else ())
            database.reset_sequences(tables)
            if not options.as_it_was:  # the rows that this adds get their keys from the sequences
                warnings += babybuddy.mend_settings(database, plan.records)
                warnings += default_settings_in_words(babybuddy.add_settings(database))
            keys |= unmade
            if not database.KEYS_AFTER_COMMIT:
                database.set_next_keys(keys)
                # A file may say anything, and rows were added; but an undo brings back even what makes no sense.
                database.reset_sequences([*unmade] if options.as_it_was else tables)
            safety_copy.make_sure()
            last = state.LastRestore(
                aware_now().isoformat(),
                digest(idempotency_key),
                safety_copy.name,
                is_undo=undo is not None,
                made=made,
                checksum=safety_copy.checksum,
                kept_passwords=not plan.accounts.passwords,
                kept_tokens=kept_tokens,
                damaged_file=rescue.aside if rescue else "",
            )
            carried_out.append(last)
            state.save_last_restore(last)
            safety_copy.is_needed = True  # from here on, even if the commit seems to fail
        if rescue:
            rescue.finish()
        # The restore is committed. Errors from here on become warnings and do not make it fail.
        warnings += _after_commit(database, keys, last)
        whole = [place.model for place in left_out.named if place.field is None]
        records = {label: count - whole.count(label) for label, count in plan.records.items()}
        warnings = list(dict.fromkeys(warnings))  # warnings of the plan may come again
        missing = _missing_here(database)
        warnings += missing_in_words(missing, archive)
        return Result(records, safety_copy.name, warnings, [*plan.children], len(missing), placing.restored)


def _ensure_none_meanwhile(
    undone: state.LastRestore | None, idempotency_key: str, options: RestoreOptions
) -> None:
    """Raise `AlreadyRestored` if this request was carried out already, or if what it undoes is not the last restore."""
    ensure_not_repeated(idempotency_key)
    if undone and not options.without_safety_copy and undone != state.load_last_restore():
        raise AlreadyRestored(
            _("Another backup was restored meanwhile, so nothing was undone. Look at it, then try again.")
        )


def _after_commit(database: Database, keys: dict[Table, int], last: state.LastRestore) -> list[str]:
    """Do what is left after the commit of a restore. Returns what went wrong, in words.

    `keys`: the next key of each table, where the engine can set them only now. `last`: the restore, whose safety copy
    must stay.
    """
    warnings = unknown_in_words(last)
    if database.KEYS_AFTER_COMMIT:
        try:
            database.set_next_keys(keys)
        except DatabaseError as error:
            text = _("The next entries may get higher numbers than they would have (%(reason)s).")
            warnings.append(text % {"reason": reason_of(error)})
    try:
        kept.prune(keep=last.safety_copy)
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
    return warnings


def _missing_here(database: Database) -> list[NamedFile]:
    try:
        return missing_files(files_here(database))
    except DatabaseError as error:
        logger.warning("missing photos could not be looked for after a restore: %s", type(error).__name__)
        return []


def leave_out_damaged(
    archive: Archive, tables: Sequence[Table], options: RestoreOptions, database: Database
) -> None:
    """Leave out of a backup what is damaged, if that was chosen: see `Archive.leave_out_damaged`."""
    if not options.leave_out:
        return
    by_label = {table.label: table for table in tables}
    reader = RecordReader(
        archive, _validators(options, database), database=database, as_it_was=options.as_it_was
    )

    def fits(label: str, record: Any) -> bool:
        try:
            return label not in by_label or bool(reader.batch_from(by_label[label], [record]))
        except InvalidBackup:
            return False

    archive.leave_out_damaged(fits)


def _validators(options: RestoreOptions, database: Database) -> babybuddy.Validators | None:
    return None if options.as_it_was else babybuddy.validators(database)


def plan_of(
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
    tables = tables_here()
    if not archive.metadata.has_checksums:
        schema.check_fields(archive, tables)
    with archive.completed():
        plan = build(
            RecordReader(
                archive,
                _validators(options, database),
                preview,
                report,
                database=database,
                as_it_was=options.as_it_was,
                superuser=is_superuser(user),
            ),
            database,
            tables,
            spool,
            options,
            superuser=is_superuser(user),
            excluded=excluded(conf.exclude),
            outside=tables_outside(tables),
            site=memo.site_id(),
            preview=preview,
            # Comparing texts reads the rows that are here, which may be damaged.
            as_text=not options.without_safety_copy,
            into=into,
            # An earlier state of this site needs no photos, since no restore removes any.
            placing=None if options.as_it_was else placing,
        )
    # Over a damaged database, only a restore that has made its tables anew can tell.
    return plan if options.without_safety_copy else with_held(plan, into or database, tables)


def _check_dangling(
    database: Database, options: RestoreOptions, metadata: Metadata
) -> tuple[list[str], Places]:
    """Raise `RecordsRefused` if the restore created dangling references, or leave them out, if that was chosen.

    Returns warnings about references that were dangling before, and what was left out. An undo may restore dangling
    references; if the engine does not accept any, they are left out. Those of models that no backup holds may stay.
    `metadata`: of the backup.
    """
    scope, others = tables_here(), tables_outside(tables_here())
    if options.as_it_was:  # what the backup never held stays as it is
        others = [*others, *(table for table in scope if table.label not in metadata.models)]
        scope = [table for table in scope if table.label in metadata.models]
    tables = others if options.as_it_was and database.takes_dangling else [*scope, *others]
    may_stay = tables if database.takes_dangling or not options.mode.clears else others
    if not database.dangling(tables, limit=1):
        return [], Places()
    before, is_all = _dangling_before(database, may_stay)
    left_out = Places()
    if not database.takes_dangling if options.as_it_was else options.leave_out:
        left_out = database.leave_out_dangling(scope, [] if options.mode.clears else before)
    lines = database.dangling(tables, limit=len(before) + MAX_NAMED)
    # What is not known may have been so before. Of rows that a restore does not write, none could be left out.
    checked = lines
    if not is_all:
        checked = database.dangling([table for table in tables if table in scope], limit=len(lines))
    new = [line for line in checked if line not in before]
    if new and options.as_it_was:
        new = [*new[: MAX_NAMED - 1], _("Delete these records first.")]
    refuse_dangling(new, offer="" if options.as_it_was else "leave_out")
    if not lines:
        return [], left_out
    warning = _("Rows that were here before refer to something that is not there: %(rows)s")
    return [warning % {"rows": "; ".join(lines[:MAX_NAMED])}], left_out


def _dangling_before(database: Database, tables: Sequence[Table]) -> tuple[list[str], bool]:
    """Return the references that were dangling before this restore, as lines for people, and whether these are all."""
    if database.locks_out_readers:  # it made tables anew, and checks what refers to them: there are none
        return [], True
    with suppress(OperationalError), database.snapshot() as snapshot:  # it does not see the restore yet
        before = snapshot.dangling(tables, limit=MOST_BEFORE)
        return before, len(before) < MOST_BEFORE
    return [], False


@contextmanager
def _taken_back(
    placing: Placing, safety_copy: SafetyCopy, database: Database
) -> Iterator[Callable[[Sequence[PlacedFile]], None]]:
    """Take back the photos that are placed in the block, unless the restore may have been committed, or another one may
    have found them there.

    Yields the function that notes them before they are written.
    """
    notes: list[str] = []
    try:
        yield lambda files: notes.append(placed.note(files))
    except BaseException:
        if not safety_copy.is_needed and database.was_exclusive() and placing.take_back():
            with suppress(BackupError):
                placed.forget(notes)
        raise

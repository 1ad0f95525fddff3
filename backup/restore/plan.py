"""What a restore of a backup would do to a database. Never writes: a preview shows a plan, a restore carries it out.

Which row a record *is*:

- Where existing data is cleared first, the row with its primary key: the backup's keys are the keys.
- Else, in this order: (1) the row that holds the same values in a unique field or constraint; it keeps its key, and the
  backup's references to the record follow it there - or, where the key is itself data (an API token), it makes way for
  the record; (2) the row with the same primary key; (3) none: the record is inserted with its key, or with a fresh one
  where another record claimed that row. A record that is two rows, or two records that are one row, are a conflict.

A plan reads the archive once: `prepare` checks every record, settles the keys, and keeps the rows in a temporary file
(their `Spool`); `steps` then yields them as they are to be written. In memory is only what differs, so that it does not
grow with the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress, islice
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..archive.lines import Lines, lines_of
from ..archive.metadata import Metadata
from ..archive.reader import Archive
from ..babybuddy import Validators
from ..database.base import MAX_NAMED, Database
from ..exceptions import BackupError, Conflict, Forbidden, InvalidBackup, RestoreRefused
from ..kinds import INTEGER, Plain
from ..scope import label_of
from ..tables import Batch, Row, Table, describe
from .batches import Spool, UniqueKeys
from .preview import Look


@dataclass(frozen=True)
class Changes:
    """What happens to the rows of one model."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0


@dataclass(frozen=True)
class Step:
    """Some rows, as they are to be written."""

    added: Sequence[Row] = ()
    changed: Sequence[Row] = ()
    unchanged: int = 0


@dataclass
class Plan:
    """`tables`: those of the backup, in dependency order. `emptied`: those that clearing empties beside them, since the
    backup does not hold them. `changes` is filled by `count`."""

    metadata: Metadata
    clear: bool
    tables: list[Table]
    emptied: list[Table]
    archive: Archive
    database: Database
    validators: Validators
    #: The rows, plain, by model label; where nothing is compared, only of models that have more to them than their key
    #: or that the backup has never seen, and of all models (see `prepared`) what `Database.pack` made of them.
    spool: Spool
    #: Whether it matters which records are here already: for a preview, and where existing data is kept. Else all
    #: rows are made ready for the driver as they are read, since that need not wait until others are locked out.
    compare: bool = True
    changes: dict[str, Changes] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    #: The same for a page: the record, and the keys of the rows here that it may be.
    clashes: list[tuple[Table, Row, list[Plain]]] = field(default_factory=list)
    #: Labels of apps that the backup has never seen, and of which clearing would delete something.
    unknown_apps: list[str] = field(default_factory=list)
    #: Why the restore may not be carried out (by this user), or None.
    refusal: BackupError | None = None
    #: Model label -> how many records were read.
    records: dict[str, int] = field(default_factory=dict)
    #: Model label -> how many of them are here already, to the letter.
    same: dict[str, int] = field(default_factory=dict)
    #: Model label -> up to which key all rows here are to the letter the backup's, and it has no others.
    reach: dict[str, Plain] = field(default_factory=dict)
    #: Model label -> the key that a record has in the backup -> the key of its row here, where they differ.
    moved: dict[str, dict[Plain, Plain]] = field(default_factory=dict)
    #: Model label -> keys of rows that make way for a record.
    replaced: dict[str, list[Plain]] = field(default_factory=dict)
    #: Gathers what a preview shows beside the counts; None for a restore.
    look: Look | None = None
    #: Is told of records that were read: model label, how many.
    tell: Callable[[str, int], None] | None = None

    def holds(self, label: str) -> bool:
        """Whether a model of the backup's is restored."""
        return self._table(label) is not None

    def as_json(self) -> dict[str, Any]:
        return {
            "metadata": self.metadata.as_json(),
            "clear_existing_data": self.clear,
            "changes": {label: vars(changes) for label, changes in self.changes.items()},
            "warnings": self.warnings,
            "conflicts": self.conflicts,
            "unknown_apps": self.unknown_apps,
            "refused": self.refusal.message if self.refusal else None,
        }

    # -- first pass: every record is read and checked, and the keys are settled ---

    def prepare(self) -> None:
        """Read and check the whole archive, and settle the keys. Raises `InvalidBackup`; the rest is in `conflicts`."""
        # First those that others may have to follow to another key.
        for table in sorted(self.tables, key=lambda table: not _has_identity(table)):
            self.records[table.label] = 0
            if self.compare and not _has_identity(table) and not any(self.moved.values()):
                self._skim(table)
                continue
            for columns in self._checked(table, self.archive.records(table.label, table.needs_exact_json)):
                self.records[table.label] += len(columns[0])
                if self.compare or _has_identity(table) or self._is_unknown(table):
                    self.spool.put(table.label, columns)
                if not self.compare:
                    self.spool.put(f"{table.label} prepared", [len(columns[0]), self._packed(table, columns)])
            if not self.clear and _has_identity(table):
                self._settle_keys(table)

    def _skim(self, table: Table) -> None:
        """Read and check only the records that are not here already, which is known by comparing text with text.

        What the database's rows look like in a file is sound, so a line that is the same is, too.
        """
        once = self._once(table)
        self.same[table.label] = 0
        reach: Plain = None
        differs = False
        for lines, columns in self._beside(table):
            before = self.records[table.label]
            text = self._text_of(table, columns)
            # By far the most are, in a backup of this very database.
            if text == lines.text:
                lines.count = len(columns[0])  # which need not be counted then
                self.records[table.label] += lines.count
                once.check(columns[0], rising=True)
                self.same[table.label] += lines.count
                reach = columns[0][-1]
                if self.look:
                    self.look.columns(table, columns)
                continue
            differs = True
            wanted = {*lines.each}
            here, rest = self._among(wanted, table, columns, text)
            rest = self.database.canonical(table, rest)  # what differs may be the same after all
            here |= self._among(wanted, table, rest, lines_of(table.record_template, rest) if rest else None)[
                0
            ]
            keys = list(map(here.get, lines.each))
            others = [line for line, key in zip(lines.each, keys, strict=True) if key is None]
            self.records[table.label] += lines.count
            self.same[table.label] += lines.count - len(others)
            records = self.archive.parse(table.label, others, table.needs_exact_json, before)
            columns = table.batch_from(records) if records else [()]
            read = iter(columns[0])
            once.check([next(read) if key is None else key for key in keys])
            if records:
                if self.look:
                    self.look.columns(table, columns)
                self.spool.put(table.label, columns)
        if not differs:
            self.reach[table.label] = reach

    def _among(
        self, lines: set[bytes], table: Table, columns: Batch, text: bytes | None
    ) -> tuple[dict[bytes, Plain], Batch]:
        """Of rows here, given as their columns and (but for None) as their text, which ones are among the lines: line
        -> key. And the others, as columns."""
        if not columns or text is None:
            return {}, columns
        texts = Lines(text).each
        found = list(map(lines.__contains__, texts))
        if self.look:
            self.look.columns(table, columns, found)
        here = dict(zip(compress(texts, found), compress(columns[0], found), strict=True))
        others = [place for place, is_there in enumerate(found) if not is_there]
        return here, [[column[place] for place in others] for column in columns] if others else []

    def _text_of(self, table: Table, columns: Batch) -> bytes | None:
        """Rows here as a file has them; None where there are none."""
        try:
            return lines_of(table.record_template, columns) if columns else None
        except TypeError:  # a value in the database that JSON cannot say: checking it tells which
            return None

    def _packed(self, table: Table, columns: Batch) -> list[bytes] | None:
        try:
            return self.database.pack(table, columns)
        except (LookupError, ValueError, OverflowError):
            return None  # a natural key that has to be made first, or a value that no driver takes

    def prepared(self, table: Table) -> Iterator[tuple[int, list[bytes] | None]]:
        """Where nothing is compared: of each batch the number of rows, and what `Database.pack` made of them."""
        yield from self.spool.batches(f"{table.label} prepared")

    def columns(self, table: Table, number: int) -> Batch:
        """The rows of one batch of `prepared` once more, plain."""
        batches = self._checked(table, self.archive.records(table.label, table.needs_exact_json))
        return next(islice(batches, number, None))

    def _beside(self, table: Table) -> Iterator[tuple[Lines, Batch]]:
        """A model's lines, and as columns the rows here whose keys lie above those of the lines before and up to the
        last of theirs; none where that cannot be told. The database is asked for the next ones while these are looked
        at."""
        asked: tuple[Lines, Callable[[], Batch]] | None = None
        after: int | None = None
        for lines in self.archive.lines(table.label):
            before, asked = asked, (lines, list)  # they are read as records, to be told what they are
            last = _key_in(table, lines.last)
            if last is not None:
                most = (
                    len(lines.text) // len(b"".join(table.record_template)) + 1
                )  # so many records fit into the text
                asked = lines, self.database.prefetch_range(table, after, last, most)
                after = last
            if before:
                yield before[0], before[1]()
        if asked:
            yield asked[0], asked[1]()

    def judge(self, *, superuser: bool) -> None:
        """Set `refusal` and `unknown_apps`. `superuser`: whether the one who asks may change accounts."""
        if self.clear:
            unknown = [table for table in [*self.tables, *self.emptied] if self._is_unknown(table)]
            self.unknown_apps = sorted({_app_of(table) for table in unknown if self._loses(table)})
        if self.conflicts:
            self.refusal = Conflict(
                _(
                    "Records of the backup match more than one row here, so it is not clear which rows they are:"
                ),
                self.conflicts,
            )
        elif not self._leaves_a_superuser():
            self.refusal = RestoreRefused(
                _(
                    "After this restore nobody could administer the site: no user would be active and a superuser."
                )
            )
        elif not superuser and self._changes_accounts():
            self.refusal = Forbidden(
                _(
                    "This restore would change user accounts, permissions or API tokens. Only a superuser can do that."
                )
            )

    def _is_unknown(self, table: Table) -> bool:
        """Whether a table is of an app that the backup has never seen."""
        return _app_of(table) not in self.metadata.apps

    def _loses(self, table: Table) -> bool:
        """Whether clearing changes or removes rows here."""
        steps = [*self.steps(table)] if table in self.tables else []
        return self.database.count(table) != sum(step.unchanged for step in steps)

    def _once(self, table: Table) -> UniqueKeys:
        in_order = self.metadata.has_checksums and table.key.kind is INTEGER
        return UniqueKeys(table, in_order=in_order, look=self.look if self.clear else None, tell=self.tell)

    def _checked(self, table: Table, batches: Iterable[list[Any]]) -> Iterator[Batch]:
        """A model's rows as the backup has them, as columns, every value checked, and no key twice."""
        validators = [
            (place, column.name, self.validators[table.label, column.name])
            for place, column in enumerate(table.columns)
            if (table.label, column.name) in self.validators
        ]
        once = self._once(table)
        for records in batches:
            columns = table.batch_from(records)
            for place, name, validator in validators:
                for key, value in zip(columns[0], columns[place], strict=True):
                    if reason := validator(value):
                        raise table.invalid(reason, key, name)
            once.check(columns[0])
            if self.look:
                self.look.columns(table, columns)
            yield columns

    def _rows(self, table: Table) -> Iterator[list[Row]]:
        for columns in self.spool.batches(table.label):
            yield list(zip(*columns, strict=True))

    def _settle_keys(self, table: Table) -> None:
        claimed: dict[Plain, Plain] = {}  # key of a row here -> of the record that it is, where they differ
        moved = self.moved.setdefault(table.label, {})
        replaced = self.replaced.setdefault(table.label, [])
        highest = self.database.highest_key(table) if table.key.kind is INTEGER else None
        for rows in self._rows(table):
            highest = _higher(highest, rows)
            settled = [self._refer(table, row, key=True) for row in rows]
            for row, new, matches in zip(rows, settled, self._matches(table, settled), strict=True):
                if new[0] != row[0]:  # its key is another row's key (a parent's), and goes where that went
                    moved[row[0]] = new[0]
                if len(matches) > 1 or (matches and table.key.refers_to and matches != [new[0]]):
                    rows_here = [*{*matches, new[0]}]
                    keys = ", ".join(map(str, rows_here))
                    self._conflict(
                        table,
                        row,
                        rows_here,
                        _("it matches the rows %(keys)s here by different unique values") % {"keys": keys},
                    )
                elif matches and matches[0] != new[0]:
                    (match,) = matches
                    if match in claimed:
                        self._conflict(
                            table,
                            row,
                            [match],
                            _("it matches row %(key)s here, as another record does") % {"key": match},
                        )
                    claimed[match] = row[0]
                    if table.key_is_data:
                        replaced.append(match)
                    else:
                        moved[row[0]] = match
        if not claimed or table.key_is_data:
            return
        # A record whose row went to another record: a row of its own, under a fresh key.
        for rows in self._rows(table):
            rows = [row for row in rows if row[0] in claimed and row[0] not in moved]
            settled = [self._refer(table, row, key=True) for row in rows]
            for row, matches in zip(rows, self._matches(table, settled), strict=True):
                if matches:
                    self._conflict(
                        table,
                        row,
                        [row[0]],
                        _("it matches row %(key)s here, as another record does") % {"key": row[0]},
                    )
                else:
                    highest = moved[row[0]] = _fresh(table, highest)

    def _matches(self, table: Table, rows: Sequence[Row]) -> list[list[Plain]]:
        """For each row, the keys of the rows here that it matches by unique values."""
        found: list[list[Plain]] = [[] for _row in rows]
        groups = [*table.uniques, (0,)] if table.key_is_data else table.uniques
        present = self.database.rows_by_key(table, [row[0] for row in rows]) if groups else {}
        for group in groups:
            asked = []
            for place, row in enumerate(rows):
                # The row with the same key holds the same values: then no other row can.
                here = present.get(row[0])
                if here is not None and all(row[i] == here[i] and row[i] is not None for i in group):
                    if group != (0,) and row[0] not in found[place]:
                        found[place].append(row[0])
                else:
                    asked.append(place)
            answers = self.database.matches(table, group, [rows[place] for place in asked])
            for place, keys in zip(asked, answers, strict=True):
                # An identity that no constraint guards may be in several rows: the record's own, else the first, is it.
                if len(keys) > 1:
                    keys = [rows[place][0]] if rows[place][0] in keys else [min(keys)]
                found[place] += [key for key in keys if key not in found[place]]
        return found

    def _conflict(self, table: Table, row: Row, rows_here: list[Plain], reason: str) -> None:
        if len(self.conflicts) < MAX_NAMED:
            self.conflicts.append(describe(table.label, row[0], None, reason))
            self.clashes.append((table, row, rows_here))

    # -- second pass: the rows as they are to be written ---

    def steps(self, table: Table) -> Iterator[Step]:
        """The rows of a table, under the keys that they get here, compared with those that are here now."""
        yield Step(unchanged=self.same.get(table.label, 0))
        replaced = {*self.replaced.get(table.label, ())}
        for rows in self._rows(table):
            if not self.clear:
                rows = [self._refer(table, row) for row in rows]
            here = self.database.rows_by_key(table, [row[0] for row in rows])
            added, changed, unchanged = [], [], 0
            for row in rows:
                present = here.get(row[0]) if row[0] not in replaced else None
                if present is None:
                    added.append(row)
                elif present != row:
                    changed.append(row)
                else:
                    unchanged += 1
            yield Step(added, changed, unchanged)

    def count(self) -> None:
        """Fill `changes`: what the preview shows."""
        for table in [*self.tables, *self.emptied]:
            before = self._count_here(table)
            added = changed = unchanged = 0
            for step in self.steps(table) if table in self.tables else ():
                added += len(step.added)
                changed += len(step.changed)
                unchanged += step.unchanged
                if self.look:
                    self.look.step(self.database, table, step.added, step.changed)
            removed = before - changed - unchanged if self.clear else len(self.replaced.get(table.label, ()))
            self.changes[table.label] = Changes(added, changed, unchanged, removed)
            if self.look:
                self.look.count_here(
                    self.database, table, same=before == unchanged and not added and not changed
                )
                if removed and self.clear:
                    self.look.missing(self.database, table)
                elif removed:
                    self.look.replaced(self.database, table, self.replaced[table.label])

    def _count_here(self, table: Table) -> int:
        """Counting rows takes a server as long as reading a tenth of them: those that were read are counted already."""
        if table.label not in self.reach:
            return self.database.count(table)
        return self.same[table.label] + self.database.count(table, after=self.reach[table.label])

    def _refer(self, table: Table, row: Row, *, key: bool = False) -> Row:
        """The row with its references, and its own key, moved to where those rows are here.

        `key`: before the table's own keys are settled: its key moves only where it is a reference itself.
        """
        values: list[Plain] | None = None
        own = self.moved.get(table.label)
        if own and row[0] in own and not key:
            values = [own[row[0]], *row[1:]]
        for place, label in table.references:
            moved = self.moved.get(label)
            if moved and row[place] in moved and (place or key):
                values = values or list(row)
                values[place] = moved[row[place]]
        for place, relation in enumerate(table.relations, len(table.columns)):
            moved = None if relation.target.is_natural else self.moved.get(relation.target.refers_to)
            if moved and any(value in moved for value in row[place]):
                values = values or list(row)
                values[place] = sorted(moved.get(value, value) for value in row[place])
        for type_place, place in table.generics:
            if isinstance(row[type_place], list) and row[place] is not None:
                moved = self.moved.get(".".join(row[type_place]))
                new = _moved_generic(moved, row[place]) if moved else row[place]
                if new != row[place]:
                    values = values or list(row)
                    values[place] = new
        return row if values is None else tuple(values)

    # -- who may come in afterwards ---

    def _table(self, label: str) -> Table | None:
        return next((table for table in self.tables if table.label == label), None)

    def _leaves_a_superuser(self) -> bool:
        model = get_user_model()
        label = label_of(model)
        table = self._table(label)
        if table is None:
            return not self.clear or not any(t.label == label for t in self.emptied)
        if not {"is_superuser", "is_active"} <= {*table.names}:
            return True  # a user model of its own kind, of which we cannot tell
        superuser, active = (1 + table.names.index(name) for name in ("is_superuser", "is_active"))
        overwritten = set()
        for rows in self._rows(table):
            for row in rows:
                if row[superuser] and row[active]:
                    return True
                overwritten.add(self.moved.get(label, {}).get(row[0], row[0]))
        if self.clear:
            return False
        here = model._base_manager.using(self.database.connection.alias).filter(
            is_superuser=True, is_active=True
        )
        return any(table.key.kind.dump(key) not in overwritten for key in here.values_list("pk", flat=True))

    def _changes_accounts(self) -> bool:
        """Whether somebody could gain by this restore: see "A restore" in the README. What merely happens by use (a
        sign-in, a token made since and gone again) does not count."""
        for label, ignored, may_go in (
            (label_of(get_user_model()), {"last_login"}, False),
            ("auth.group", set(), False),
            ("authtoken.token", {"created"}, True),
        ):
            table = self._table(label)
            if table is None:
                continue
            if any(
                step.added or any(self._differs(table, row, ignored) for row in step.changed)
                for step in self.steps(table)
            ):
                return True
            if self.clear and not may_go:
                present = sum(len(step.changed) + step.unchanged for step in self.steps(table))
                if self.database.count(table) != present:
                    return True
        return False

    def _differs(self, table: Table, row: Row, ignored: set[str]) -> bool:
        here = self.database.rows_by_key(table, [row[0]])[row[0]]
        places = [place for place, name in enumerate(("pk", *table.names)) if name not in ignored]
        return any(row[place] != here[place] for place in places)


def build(
    archive: Archive,
    database: Database,
    tables: Sequence[Table],
    spool: Spool,
    *,
    clear: bool,
    compare: bool,
    superuser: bool,
    validators: Validators | None = None,
    excluded: Iterable[str] = (),
    look: Look | None = None,
    tell: Callable[[str, int], None] | None = None,
) -> Plan:
    """The plan of a restore of `archive` into `database`, every record checked.

    `tables`: those in scope here. `compare`: see `Plan`. `superuser`: whether the one who asks may change accounts.
    `excluded`: labels that this site leaves out of backups, and so of restores. `look`, `tell`: see `Plan`.
    Raises `InvalidBackup`; see `Plan.refusal` for the rest.
    """
    metadata = archive.metadata
    known = {table.label: table for table in tables}
    here = {config.label for config in apps.get_app_configs()}
    warnings = []
    for label in [*metadata.models, *(metadata.upgraded.left_out if metadata.upgraded else ())]:
        if label in known:
            continue
        if label in excluded or label.split(".")[0] in excluded:
            warnings.append(
                _("%(model)s is in the backup, but left out of restores on this site.") % {"model": label}
            )
        elif label.split(".")[0] not in here:
            warnings.append(
                _("%(model)s is in the backup, but not installed here, and is left out.") % {"model": label}
            )
        else:
            raise InvalidBackup(
                _("The backup holds records of %(model)s, which this site does not know.") % {"model": label}
            )
    ours = [table for table in tables if table.label in metadata.models]
    others = [table for table in tables if table.label not in metadata.models]
    if not metadata.has_checksums:
        warnings.append(
            _("The backup is of format version 1.0, without checksums: damage to it may go unseen.")
        )
    unknown = sorted({_app_of(table) for table in tables} - metadata.apps)
    if unknown and clear:
        warnings.append(
            _("The backup has never seen these apps; what is there would be deleted: %(apps)s.")
            % {"apps": ", ".join(unknown)}
        )
    elif unknown:
        warnings.append(
            _("The backup has never seen these apps; what is there stays as it is: %(apps)s.")
            % {"apps": ", ".join(unknown)}
        )
        # What a migration put into an upgraded backup would else win over what people set here.
        ours = [table for table in ours if _app_of(table) not in unknown]
    lacking = [table.label for table in others if _app_of(table) not in unknown]
    if lacking and clear:
        warnings.append(
            ngettext(
                "The backup holds nothing of %(models)s; what is there would be deleted.",
                "The backup holds nothing of these, and what is there would be deleted: %(models)s.",
                len(lacking),
            )
            % {"models": ", ".join(lacking)}
        )
    plan = Plan(
        metadata,
        clear,
        ours,
        others if clear else [],
        archive,
        database,
        validators or {},
        spool,
        compare,
        warnings=warnings,
        look=look,
        tell=tell,
    )
    plan.prepare()
    plan.metadata = plan.metadata.counted(plan.records)
    plan.judge(superuser=superuser)
    return plan


def _key_in(table: Table, line: bytes) -> int | None:
    """The key at the beginning of a line that looks like ours; None where that is no number of 64 bits, or the line is
    another's."""
    head = table.record_template[0]
    key = line[len(head) : line.find(b",", len(head))] if line.startswith(head) else b""
    return int(key) if key.isdigit() and len(key) < 19 else None


def _app_of(table: Table) -> str:
    return table.model._meta.app_label


def _has_identity(table: Table) -> bool:
    """Whether more than the primary key says which row a record of this model is."""
    return bool(table.uniques) or table.key_is_data or bool(table.key.refers_to)


def _higher(highest: Plain, rows: Sequence[Row]) -> Plain:
    keys = [row[0] for row in rows if isinstance(row[0], int)]
    return max([*keys, highest or 0])


def _fresh(table: Table, highest: Plain) -> Plain:
    """A key that no row and no record has."""
    if table.key.kind is INTEGER:
        return (highest or 0) + 1
    return table.key.kind.dump(table.key.field.get_default())


def _moved_generic(moved: dict[Plain, Plain], key: Plain) -> Plain:
    """A generic reference holds the key in whatever type its own column has, often text."""
    if key in moved:
        return moved[key]
    for old, new in moved.items() if isinstance(key, str) else ():
        if str(old) == key:
            return str(new)
    return key

"""The plan: what restoring a backup would do to a database, as data. A preview shows it, and `apply` carries it out.

`build.build` makes it. The rows are in the plan's `Spool`. Memory only holds keys of records that are not the row here
with the same key, so that it does not grow with the number of rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from .. import babybuddy
from ..archive.metadata import Metadata
from ..database import Database
from ..exceptions import BackupError
from ..kinds import Plain
from ..options import RestoreMode, RestoreOptions
from ..tables import Row, Table
from .apart import are_apart
from .batches import ComparedBatch, Spool
from .identity import Conflict
from .key_map import KeyMap
from .preview import PreviewCollector
from .records import Merged, Renamed


@dataclass(frozen=True)
class Changes:
    """What happens to the rows of one model. `replaced`: how many of the `removed` rows are replaced by another record
    of the backup with the same key, which counts as `added`."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    replaced: int = 0

    def as_json(self) -> dict[str, int]:
        return {
            "added": self.added,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "removed": self.removed,
        }


@dataclass(frozen=True)
class PhotoChanges:
    """How many photos of the backup are added to the host's own, how many are there already, and how many files that
    records name would be missing."""

    added: int = 0
    unchanged: int = 0
    missing: int = 0

    def as_json(self) -> dict[str, int]:
        return vars(self).copy()


@dataclass(frozen=True)
class AccountChanges:
    """The names of the users whose name (with the other one), password, rights or API token a restore changes, whose
    token it removes, of those whom it adds or removes, and of the groups whose permissions it changes, or that it
    removes: see `accounts`."""

    renamed: Sequence[tuple[str, str]] = ()
    passwords: Sequence[str] = ()
    rights: Sequence[str] = ()
    tokens: Sequence[str] = ()
    tokens_removed: Sequence[str] = ()
    groups: Sequence[str] = ()
    groups_removed: Sequence[str] = ()
    added: Sequence[str] = ()
    removed: Sequence[str] = ()

    def __bool__(self) -> bool:
        return any(vars(self).values())


#: The lowest and the highest key of a range.
KeyRange = tuple[int, int]


@dataclass(frozen=True)
class Identical:
    """The records of a model that are identical to rows here. They are not in the spool."""

    count: int = 0
    #: All rows here up to this key were read, and the backup has no record above it. None if that is not so.
    up_to: Plain = None
    #: How many rows were read.
    rows_read: int = 0


@dataclass(frozen=True)
class Plan:
    """A plan. `tables`: those that are restored, in dependency order. `emptied`: those that clearing also empties,
    though the backup does not contain them."""

    metadata: Metadata
    options: RestoreOptions
    tables: Sequence[Table]
    emptied: Sequence[Table]
    #: The rows that may differ, under the label of their model. If rows are packed (`is_packed`), it has the packed
    #: rows of every model (see `packed`), and the rows themselves only of models that were compared, or that the policy
    #: needs.
    spool: Spool
    key_map: KeyMap
    #: Model label -> keys of the rows here that make way for a record.
    displaced: Mapping[str, Sequence[Plain]]
    #: See `Others.highest`. Also of models that rows which are not restored refer to: the highest key that is removed.
    highest_left_out: Mapping[str, int]
    #: See `Resolver.matched`.
    matched: Mapping[str, Set[Plain]]
    conflicts: Sequence[Conflict]
    #: Model label -> the records that are here already, by comparing texts. Of these models, only rows that differ are
    #: packed.
    identical: Mapping[str, Identical]
    warnings: list[str]
    #: Model label -> number of records that are restored.
    records: Mapping[str, int]
    #: Whether the rows are packed for the driver (see `packed`), which is possible if none of them gets another key.
    is_packed: bool = False
    #: See `RecordReader.merged`.
    merged: Merged = field(default_factory=dict)
    #: See `RecordReader.renamed`.
    renamed: Renamed = field(default_factory=dict)
    #: SQL statements that change tables here which cannot hold every character of their records.
    too_narrow: Sequence[str] = ()
    #: The names of the children that are restored, the first of them if there are many.
    children: Sequence[str] = ()
    #: The accounts that change. The `warnings` say so in words.
    accounts: AccountChanges = AccountChanges()
    #: Model label -> what happens to its rows; empty for a restore, which does not count them.
    changes: Mapping[str, Changes] = field(default_factory=dict)
    #: Model label -> keys of the rows here that go with others; empty for a restore, too. See `Replaced`.
    going: Mapping[str, Collection[Plain]] = field(default_factory=dict)
    photos: PhotoChanges = PhotoChanges()
    preview: PreviewCollector | None = None
    #: Labels of apps that the backup does not know, and of which clearing would delete something.
    unknown_apps: Sequence[str] = ()
    #: Why the restore must not be carried out (by this user); None if it may.
    refusal: BackupError | None = None

    @property
    def mode(self) -> RestoreMode:
        return self.options.mode

    def table(self, label: str) -> Table | None:
        """Return the table of a model that is restored, or None."""
        return next((table for table in self.tables if table.label == label), None)

    def photo_of(self, label: str, field: str, name: Plain) -> str:
        """Return the checksum of the photo in the backup that a record names, as it is restored; "" for none."""
        here = self.renamed.get((label, field), {})
        before = next((before for before, after in here.items() if after == name), name)
        photo = self.metadata.photos.get(before) if name else None
        return photo.sha256 if photo else ""

    def rows(self, table: Table) -> Iterator[list[Row]]:
        """Yield a table's rows as the backup has them, without identical ones."""
        yield from rows_of(self.spool, table)

    def batches(self, database: Database, table: Table) -> Iterator[ComparedBatch]:
        """Remap a table's rows, compare them with those that are here now, and yield the result batch by batch."""
        yield ComparedBatch(unchanged=self.identical.get(table.label, Identical()).count)
        displaced = {*self.displaced.get(table.label, ())}
        # If all rows are deleted, it does not matter which record a row was.
        apart = [] if self.mode.clears else babybuddy.apart(table)
        matched = self.matched.get(table.label, ())
        for rows in self._portions(database, table):
            current = database.rows_by_key(table, [row[0] for row in rows])
            added, changed, replaced, unchanged = [], [], [], 0
            for row in rows:
                present = current.get(row[0]) if row[0] not in displaced else None
                if present is None:
                    added.append(row)
                elif database.is_here(table, row, present):
                    unchanged += 1
                elif row[0] not in matched and are_apart(present, row, apart):
                    replaced.append(row)
                else:
                    changed.append(row)
            yield ComparedBatch(added, changed, replaced, unchanged)

    def _portions(self, database: Database, table: Table) -> Iterator[list[Row]]:
        """Yield a table's rows, remapped, as many at a time as can be read from the database at once."""
        for rows in self.rows(table):
            rows = self.key_map.remap(table, rows)
            start = 0
            for keys in database.portions(table, [row[0] for row in rows]):
                yield rows[start : start + len(keys)]
                start += len(keys)

    def packed(self, table: Table) -> Iterator[tuple[int, list[bytes] | None]]:
        """Yield for each batch the number of rows, and the rows packed by `Database.pack` (None: it could not be
        packed). Yields nothing if rows are not packed."""
        yield from self.spool.batches(packed_name(table))

    def between(self, table: Table) -> Iterator[list[KeyRange]] | None:
        """Yield lists of the ranges of keys in which no row here is identical to a record. None for a table that was
        not compared."""
        return self.spool.batches(between_name(table)) if table.label in self.identical else None

    def as_json(self) -> dict[str, Any]:
        return {
            "metadata": self.metadata.as_json(),
            "clear_existing_data": self.mode.clears,
            "parts": [part.value for part in self.options.parts],
            "changes": {label: changes.as_json() for label, changes in self.changes.items()},
            "photos": self.photos.as_json(),
            "warnings": self.warnings,
            "conflicts": [str(conflict) for conflict in self.conflicts],
            "unknown_apps": [*self.unknown_apps],
            "refused": self.refusal.message if self.refusal else None,
            "details": self.refusal.details if self.refusal else [],
            "offer": self.refusal.offer if self.refusal else "",
        }


def rows_of(spool: Spool, table: Table) -> Iterator[list[Row]]:
    for batch in spool.batches(table.label):
        yield list(zip(*batch, strict=True))


def packed_name(table: Table) -> str:
    """Return the name of a table's packed batches in the spool."""
    return f"{table.label} packed"


def between_name(table: Table) -> str:
    """Return the name of a table's ranges of keys between identical records in the spool."""
    return f"{table.label} between"

"""Reads the records of a backup, model by model, and checks every value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import compress, islice
from typing import Any

from django.utils.translation import gettext as _

from ..archive.reader import Archive
from ..babybuddy import Validators
from ..database import Database
from ..dump import References
from ..kinds import INTEGER, Plain
from ..tables import Batch, Row, Table, describe, in_order
from .batches import Report, UniqueKeys
from .preview import PreviewCollector
from .values import ValueChecks

#: See `RecordReader.merged`.
Merged = Mapping[str, Mapping[Plain, Plain]]
#: See `RecordReader.renamed`.
Renamed = Mapping[tuple[str, str], Mapping[Plain, Plain]]


class RecordReader:
    """Reads the records of a backup in batches, and checks every value.

    `validators`: those of the host, see `values`; None accepts every value that a database can hold. `database`: if
    given, numbers and durations that it cannot hold are refused, too. `preview`, `report`: are informed of what was
    read; either may be None. `as_it_was`: see `RestoreOptions`. `superuser`: see `Table.batch_from`. `merged`,
    `renamed`: see the attributes.
    """

    def __init__(
        self,
        archive: Archive,
        validators: Validators | None = None,
        preview: PreviewCollector | None = None,
        report: Report | None = None,
        *,
        database: Database | None = None,
        as_it_was: bool = False,
        superuser: bool = True,
        merged: Merged | None = None,
        renamed: Renamed | None = None,
    ) -> None:
        self.archive = archive
        self._as_it_was, self._superuser = as_it_was, superuser
        #: A warning for each model with keys that are so high that few are left after them.
        self._high_keys: dict[str, str] = {}
        #: Model label -> key of a record that was merged -> key of the record that it was merged with.
        self.merged: Merged = merged or {}
        #: (Model label, name of a field) -> a value in the backup, such as the name of a file -> that value here.
        self.renamed: Renamed = renamed or {}
        self._validators = validators
        self._database = database
        of_database = archive.metadata.is_of_database
        self._checks = (
            None if validators is None else ValueChecks(validators, database, of_database, superuser)
        )
        self._preview = preview
        self._report = report
        #: Is shown all records that are restored; None while they are read for another purpose.
        self.references: References | None = None

    @property
    def warnings(self) -> list[str]:
        """Warnings about the values that were read."""
        return [*self._high_keys.values(), *(self._checks.warnings if self._checks else ())]

    def quiet(self) -> RecordReader:
        """Return a reader of the same records without preview and report."""
        return RecordReader(
            self.archive,
            self._validators,
            database=self._database,
            as_it_was=self._as_it_was,
            superuser=self._superuser,
            merged=self.merged,
            renamed=self.renamed,
        )

    def batches(
        self, table: Table, without: Callable[[Table, Batch], Batch] | None = None
    ) -> Iterator[Batch]:
        """Yield a model's records, batch by batch. `without`: removes records or references from each batch.

        Raises `InvalidBackup`, possibly after some batches.
        """
        unique = self.unique_keys(table)
        for records in self.archive.records(table.label, table.needs_exact_json):
            batch = self.batch_from(table, records)
            del records  # which may be long, and so may the next ones
            self.accept(table, unique, batch[0])
            batch = without(table, batch) if without and batch[0] else batch
            self.collect(table, batch)
            yield batch
            del batch

    def rows(
        self, table: Table, without: Callable[[Table, Batch], Batch] | None = None
    ) -> Iterator[list[Row]]:
        """Yield what `batches` yields, by rows."""
        for batch in self.batches(table, without):
            yield list(zip(*batch, strict=True))

    def batch(self, table: Table, number: int) -> Batch:
        """Read one of the batches of `batches` again, without reporting it."""
        batches = self.archive.records(table.label, table.needs_exact_json)
        return self.batch_from(table, next(islice(batches, number, None)), validated=True)

    def batch_from(self, table: Table, records: Sequence[Any], *, validated: bool = False) -> Batch:
        """Check records and convert them to a batch. `validated`: they are known to be harmless to the host.

        Raises `InvalidRecord`.
        """
        batch = table.batch_from(records, as_it_was=self._as_it_was, superuser=self._superuser)
        if table.high_key is not None and batch and not self._as_it_was and max(batch[0]) > table.high_key:
            reason = _("its key is so high that few are left after it")
            self._high_keys[table.label] = describe(table.label, max(batch[0]), None, reason)
        if self._checks and not validated:
            self._checks.check(table, batch)
        if self._merges(table):
            batch = self._merge(table, batch)
        return self._rename(table, batch)

    def alters(self, table: Table) -> bool:
        """Tell whether records of the table are changed while they are read."""
        return self._merges(table) or any(label == table.label for label, _field in self.renamed)

    def _merges(self, table: Table) -> bool:
        """Tell whether records of the table, or records that it refers to, are merged."""
        labels = {table.label, *(label for _place, label in table.references)}
        labels |= {relation.target.refers_to for relation in table.relations}
        return any(self.merged.get(label) for label in labels)

    def _merge(self, table: Table, batch: Batch) -> Batch:
        gone = self.merged.get(table.label, {})
        kept = [key not in gone for key in batch[0]]
        batch = [[*compress(column, kept)] for column in batch]
        for place, label in table.references:
            if keys := self.merged.get(label):
                batch[place] = [keys.get(key, key) for key in batch[place]]
        for place, relation in enumerate(table.relations, len(table.columns)):
            if keys := self.merged.get(relation.target.refers_to):
                batch[place] = [in_order({keys.get(key, key) for key in targets}) for targets in batch[place]]
        return batch

    def _rename(self, table: Table, batch: Batch) -> Batch:
        for place, column in enumerate(table.columns) if self.renamed else ():
            if names := self.renamed.get((table.label, column.name)):
                batch[place] = [names.get(value, value) for value in batch[place]]
        return batch

    def unique_keys(self, table: Table) -> UniqueKeys:
        in_order = self.archive.metadata.is_sealed and table.key.kind is INTEGER
        return UniqueKeys(table, in_order=in_order)

    def accept(
        self, table: Table, unique: UniqueKeys, keys: Sequence[Plain], *, rising: bool = False
    ) -> None:
        """Check the keys of the next records, as `UniqueKeys.check` does, and report that they were read."""
        unique.check(keys, rising=rising)
        if keys and self._preview:
            self._preview.add_keys(table, keys, in_order=unique.in_order)
        if keys and self._report:
            self._report(table.label, len(keys))

    def collect(
        self, table: Table, batch: Sequence[Sequence[Plain]], which: Sequence[bool] | None = None
    ) -> None:
        """Let the preview count records by month, and look at what they refer to. `which`: whether each record counts;
        by default, all do."""
        if self._preview:
            self._preview.add_months(table, batch, which)
        if self.references and batch:
            chosen = batch if which is None else [[*compress(column, which)] for column in batch]
            self.references.see(table, chosen)

    def collect_difference(self, table: Table, batch: Batch, here: Batch) -> None:
        """Do what `collect` does with records that are not identical to rows here, and count these rows instead."""
        if batch:
            self.collect(table, batch)
        if self._preview:
            self._preview.add_difference(table, batch, here)

"""Handles references between parts of a backup that are restored and parts that stay as they are here, and those to
what is missing.

A record of a model that is not restored is matched with the row here that has the same unique values, and references to
it are remapped. If there is no such row, records that need it are left out, and so are records that need those;
optional references to it are removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import compress
from operator import not_

from django.contrib.auth import get_user_model
from django.utils.translation import gettext as _

from .. import babybuddy
from ..database import Database
from ..dump import ANY_KEY, checked_references, needed_generics, target_of
from ..exceptions import InvalidBackup
from ..kinds import INTEGER, NATURAL, Plain
from ..options import Places, RestoreMode
from ..tables import Batch, Row, Table, in_order, owner_of, owner_of_keys, place_of, refers_to_nothing
from .apart import are_apart, are_people, is_same_person, usable
from .collation import are_alike
from .dangling import Missing, left_out_in_words
from .identity import MatchedRows, Resolver
from .key_map import KeyMap
from .records import RecordReader

#: How often the records are read to find all that need records which are left out. Real ones need a few passes; a small
#: crafted file could ask for thousands.
MOST_PASSES = 50

#: Tells whether a value leads to nothing.
Check = Callable[[Plain], bool]


class Others:
    """The models that are not restored, but that restored ones refer to.

    `tables`: all in scope here, in dependency order. `restored`: those that are restored. `in_part`: those of which
    records were lost with a damaged file, so that their keys may be those of other rows, here or to come. `lost`: those
    of which the file has no records any longer. `missing`: what is left out since it refers to nothing. `site`: the id
    of this site. The keys that the records have here are added to `key_map`.
    """

    def __init__(
        self,
        reader: RecordReader,
        database: Database,
        tables: Sequence[Table],
        restored: Sequence[Table],
        key_map: KeyMap,
        in_part: Iterable[Table] = (),
        lost: Iterable[Table] = (),
        *,
        missing: Missing,
        mode: RestoreMode,
        site: str,
    ) -> None:
        self._database, self._missing, self._mode = database, missing, mode
        # What is left out of a backup of this very site may still be here, with what belongs to it.
        stays = not mode.clears and reader.archive.metadata.instance == site
        #: Label of a model that is not restored, or in part only -> keys in the backup of the records that are here.
        self._here: dict[str, set[Plain]] = {}
        #: Label of a model that is restored, and referred to -> keys of the records that are left out.
        self._gone: dict[str, set[Plain]] = {}
        #: The same keys as texts, of models that generic references lead to.
        self._texts: dict[str, set[str]] = {}
        #: Label -> the highest key of a record that is left out, where keys are numbers.
        self.highest: dict[str, int] = {}
        self._restored = restored
        #: Label -> key of a record -> positions in a row of what refers to something that is not here. Where existing
        #: data is kept, these fields keep what they have here.
        self.emptied: dict[str, dict[Plain, set[int]]] = {}
        #: Label -> number of records that are left out; and of those that `missing` names.
        self.left_out: Counter[str] = Counter()
        self._named: Counter[str] = Counter()
        #: Label -> the references of records that are restored to others that are not restored, or left out.
        self._unlinked: dict[str, Places] = {}
        in_backup = {*reader.archive.metadata.models, *(table.label for table in lost)}
        unresolved = _referred_to(tables, restored, in_backup=in_backup)
        # References to models that the backup lacks are looked up as those to missing records are: see `dangling`.
        for table in [table for table in unresolved if table.label in in_backup]:
            self._here[table.label] = self._present(reader, database, table, key_map, unresolved)
            unresolved.remove(table)
        for table in in_part:
            self._here[table.label] = {key for batch in reader.batches(table) for key in batch[0]}
        referred_to = {label for table in restored for label in labels_referred_to(table)}
        if any(table.generics for table in restored):
            referred_to |= {table.label for table in restored}
        concerned = [table for table in restored if self.concerns(table)]
        passes = 0
        while concerned:  # what needs a record that is left out may come before it
            passes += 1
            if passes > MOST_PASSES:
                raise _too_long_chain(concerned)
            before = {label: len(keys) for label, keys in self._gone.items()}
            for table in concerned:
                gone: set[Plain] = set()
                self.left_out[table.label] = self._named[table.label] = 0
                self._unlinked[table.label] = Places()
                for batch in reader.batches(table):
                    kept = self._which(table, batch)
                    complete = self._complete(table, batch)
                    self.left_out[table.label] += kept.count(False)
                    self._named[table.label] += complete.count(False)
                    self._note_unlinked(table, batch, kept)
                    gone.update(compress(batch[0], map(not_, kept)))
                    if stays and not all(complete):
                        gone.difference_update(
                            database.rows_by_key(table, [*compress(batch[0], map(not_, complete))])
                        )
                if gone and table.label in referred_to:
                    self._gone[table.label] = gone
                    self._here.get(table.label, set()).difference_update(gone)
                    self._texts.pop(table.label, None)
                if gone and table.key.kind is INTEGER:
                    self.highest[table.label] = max(gone)
            if before == {label: len(keys) for label, keys in self._gone.items()}:
                break
            concerned = [table for table in restored if self.concerns(table)]

    def concerns(self, table: Table) -> bool:
        """Tell whether a table refers to records that may not be here."""
        has_any = bool(self._here or self._gone or self._missing.values)
        return bool(self._checks(table)) or (has_any and bool(table.generics))

    def without(self, table: Table, batch: Batch) -> Batch:
        """Return records of the backup without those that are left out, and without references to what is not here."""
        if not self.concerns(table):
            return batch
        kept = self._which(table, batch)
        columns = [list(compress(column, kept)) for column in batch]
        for place, is_gone in self._checks(table):
            is_relation = place >= len(table.columns)
            for number, value in enumerate(columns[place]):
                if value is not None and (any(map(is_gone, value)) if is_relation else is_gone(value)):
                    columns[place][number] = [v for v in value if not is_gone(v)] if is_relation else None
                    if not self._mode.clears:
                        emptied = self.emptied.setdefault(table.label, {})
                        emptied.setdefault(columns[0][number], set()).add(place)
        return [*columns]

    def keep_own(self, resolver: Resolver, rows_of: Callable[[Table], Iterable[list[Row]]]) -> None:
        """Let the rows here keep what they have in the fields in which a record refers to what is not here.

        To be called when it is known which rows the records are. `rows_of`: returns the records of a table.
        """
        for table in self._restored:
            emptied = self.emptied.get(table.label, {})
            matched, displaced = (
                resolver.matched.get(table.label, ()),
                resolver.displaced.get(table.label, ()),
            )
            own: dict[Plain, dict[int, Plain]] = {}
            for batch in rows_of(table) if emptied else ():
                records = [row for row in batch if row[0] in emptied]
                new_rows = resolver.key_map.remap(table, records)
                here = self._database.rows_by_key(table, [row[0] for row in new_rows])
                for record, row in zip(records, new_rows, strict=True):
                    current = None if row[0] in displaced else here.get(row[0])
                    if current is not None:
                        own_values = _own_values(table, row, current, emptied[record[0]])
                        merged = tuple(own_values.get(place, value) for place, value in enumerate(row))
                        if row[0] in matched or not are_apart(current, merged, babybuddy.apart(table)):
                            own[record[0]] = own_values
            if own:
                resolver.key_map.keep(table, own)
                keys = {place_of(table.label, key, None, "").pk for key in own}
                unlinked = self._unlinked.get(table.label, Places())
                named = [place for place in unlinked.named if place.pk not in keys]
                self._unlinked[table.label] = Places(named, unlinked.total - len(unlinked.named) + len(named))

    def warnings(self) -> list[str]:
        """Return warnings about records, and references of others, that are left out; [] if none are."""
        counts = {label: count - self._named[label] for label, count in self.left_out.items()}
        models = ", ".join(f"{label} ({count})" for label, count in counts.items() if count)
        text = _("Left out, since they belong to users or other records that are not here: %(models)s.")
        unlinked = Places()
        for places in self._unlinked.values():
            unlinked.extend(places)
        return [
            *([text % {"models": models}] if models else ()),
            *([left_out_in_words(unlinked)] if unlinked else ()),
        ]

    def _note_unlinked(self, table: Table, batch: Batch, kept: Sequence[bool]) -> None:
        """Note the references to what is not here, of records that are restored without them."""
        named = [(column, column.name) for column in table.columns]
        named += [(relation.target, relation.name) for relation in table.relations]
        for place, is_gone in self._known_checks(table):
            is_relation = place >= len(table.columns)
            for key, value in compress(zip(batch[0], batch[place], strict=True), kept):
                for other in filter(is_gone, value if is_relation else [value]):
                    column, name = named[place]
                    reason = refers_to_nothing(column, other)
                    self._unlinked[table.label].add(place_of(table.label, key, name, reason))

    def _which(self, table: Table, batch: Batch) -> list[bool]:
        """Return for each record whether all that it needs is here."""
        kept = self._complete(table, batch)
        return _kept(table, batch, kept, self._known_checks(table), table.generics, self._lacks_any)

    def _complete(self, table: Table, batch: Batch) -> list[bool]:
        """Return for each record whether it needs nothing of what is missing altogether."""
        kept, generics = [True] * len(batch[0]), needed_generics(table)
        return _kept(table, batch, kept, self._missing_checks(table), generics, self._misses_any)

    def _checks(self, table: Table) -> list[tuple[int, Check]]:
        """Return (position in a row, what tells whether a value leads to nothing) of each column and relation that may
        hold such values."""
        return [*self._missing_checks(table), *self._known_checks(table)]

    def _known_checks(self, table: Table) -> list[tuple[int, Check]]:
        """Return what `_checks` does, for records of the backup that are not restored, or left out."""
        columns = len(table.columns)
        relations = enumerate((relation.target.refers_to for relation in table.relations), columns)
        known = self._here.keys() | self._gone.keys()
        references = [*table.references, *relations]
        return [(place, partial(self._lacks, label)) for place, label in references if label in known]

    def _missing_checks(self, table: Table) -> list[tuple[int, Check]]:
        """Return what `_checks` does, for what is missing altogether."""
        values = self._missing.values
        references = checked_references(table) if values else ()
        return [
            (place, values[target_of(column)].__contains__)
            for place, _name, column in references
            if target_of(column) in values
        ]

    def _misses_any(self, content_type: Plain, key: Plain) -> bool:
        """Tell whether a generic reference leads to what is missing altogether."""
        return str(key) in self._missing.values.get((owner_of(content_type), ANY_KEY), ())

    def _present(
        self,
        reader: RecordReader,
        database: Database,
        table: Table,
        key_map: KeyMap,
        unresolved: Sequence[Table],
    ) -> set[Plain]:
        """Return the keys (in the backup) of the records that exist here, and put those that differ here into
        `key_map`. Unique values that are keys of `unresolved` tables do not count. Users who were renamed exist, and
        nobody else is who has their name now.
        """
        present: set[Plain] = set()
        own: dict[Plain, Plain] = {}
        matcher, groups = MatchedRows(database), usable(table, unresolved)
        matcher.is_alike = are_alike if database.folds_texts else None

        def batches() -> Iterable[Batch]:
            is_there = table.label in reader.archive.metadata.models  # and not lost with the end of a file
            return reader.batches(table, self.without) if is_there else ()

        renamed = _renamed(table, batches(), database) if are_people(table) else set()
        for batch in batches():
            rows = key_map.remap_references(table, list(zip(*batch, strict=True)))
            for key, row, matches in zip(batch[0], rows, matcher.matches(table, rows, groups), strict=True):
                if key in renamed or matches == [row[0]]:
                    present.add(key)
                elif len(matches) == 1 and not table.key.refers_to and matches[0] not in renamed:
                    present.add(key)
                    own[key] = matches[0]
        if own:
            key_map.put(table, own)
        return present

    def _lacks_any(self, content_type: Plain, key: Plain) -> bool:
        """Tell whether a generic reference leads to a record that is not here. `key`: perhaps as a text."""
        label = owner_of(content_type)
        if label not in self._here and label not in self._gone:
            return False
        if label not in self._texts:
            keys = self._here[label] if label in self._here else self._gone[label]
            self._texts[label] = {*map(str, keys)}
        return (str(key) in self._texts[label]) is not (label in self._here)

    def _lacks(self, label: str, key: Plain) -> bool:
        if label in self._here:
            return key is not None and key not in self._here[label]
        return key in self._gone.get(label, ())


def _renamed(table: Table, batches: Iterable[Batch], database: Database) -> set[Plain]:
    """Return the keys of the records that are certainly the same user as the row with their key here, which has another
    name."""
    renamed: set[Plain] = set()
    name = 1 + table.names.index(get_user_model().USERNAME_FIELD)
    for batch in batches:
        here = database.rows_by_key(table, batch[0])
        renamed.update(
            row[0]
            for row in zip(*batch, strict=True)
            if row[0] in here and is_same_person(table, here[row[0]], row) and here[row[0]][name] != row[name]
        )
    return renamed


def _kept(
    table: Table,
    batch: Batch,
    kept: list[bool],
    checks: Iterable[tuple[int, Check]],
    generics: Iterable[tuple[int, int]],
    lacks_any: Callable[[Plain, Plain], bool],
) -> list[bool]:
    """Return which of the records in `kept` have all that they need, as some checks tell. `lacks_any`: checks a generic
    reference."""
    for place, is_gone in checks:
        if place < len(table.columns) and not table.columns[place].field.null:
            kept = [is_kept and not is_gone(key) for is_kept, key in zip(kept, batch[place], strict=True)]
    for type_place, place in generics:
        pairs = zip(batch[type_place], batch[place], strict=True)
        kept = [is_kept and not lacks_any(*pair) for is_kept, pair in zip(kept, pairs, strict=True)]
    return kept


def _too_long_chain(tables: Iterable[Table]) -> InvalidBackup:
    text = _(
        "Records of these models need one another in chains that are too long to tell what to leave out: %(models)s. "
        "Remove those chains from the file, and restore it as an edited one."
    )
    return InvalidBackup(text % {"models": ", ".join(sorted(table.label for table in tables))})


def _own_values(table: Table, row: Row, current: Row, places: Iterable[int]) -> dict[int, Plain]:
    """Return position -> value of what a record keeps of the row here. A relation has what both have."""
    relations = len(table.columns)
    return {
        place: in_order({*current[place], *row[place]}) if place >= relations else current[place]
        for place in places
    }


def tables_in_part(reader: RecordReader, restored: Iterable[Table]) -> list[Table]:
    """Return the tables of which the backup does not hold all records: since the file is damaged, or since not all
    could be read when it was made."""
    named = {p.model for p in reader.archive.metadata.left_out.named if p.pk is None and p.field is None}
    return [table for table in restored if table.label in named]


def tables_cut_off(reader: RecordReader, tables: Iterable[Table]) -> list[Table]:
    """Return the tables of which a file without its end may have held records after the cut."""
    archive = reader.archive
    return [t for t in tables if archive.lacks_metadata and t.label not in archive.metadata.models]


def labels_referred_to(table: Table) -> set[str]:
    """Return the labels of the models that a table refers to, without generic references."""
    relations = [relation.target for relation in table.relations]
    return {label for _place, label in _columns(table)} | {
        target.refers_to for target in relations if target.refers_to not in NATURAL
    }


def with_owners(labels: Iterable[str], tables: Sequence[Table]) -> set[str]:
    """Return labels of models (`owner_of_keys`) with those of the models that their rows belong to and go with. Generic
    references, which may lead to any model, are not followed."""
    found, known = {*labels}, 0
    while known < len(found):
        known = len(found)
        for table in tables:
            if owner_of_keys(table.label) in found:
                found |= {
                    owner_of_keys(label) for place, label in _columns(table) if table.columns[place].belongs
                }
    return found


def _columns(table: Table) -> list[tuple[int, str]]:
    """Return (position in a row, label of the other model) of each column that refers to another row."""
    return [*table.references, *((place, label) for place, label, _target in table.references_by_field)]


def _referred_to(
    tables: Sequence[Table], restored: Iterable[Table], *, in_backup: Collection[str]
) -> list[Table]:
    """Return the tables that are not restored, but that restored ones refer to; and the tables that these refer to in
    turn, since a reference may be part of what identifies a row. A generic reference may lead to all `in_backup`."""
    wanted = {label for table in restored for label in labels_referred_to(table)}
    if any(table.generics for table in restored):
        wanted |= {table.label for table in tables if table.label in in_backup}
    tables_needed = []
    for table in reversed(tables):
        if table.label in wanted and table not in restored:
            wanted |= labels_referred_to(table)
            tables_needed.append(table)
    return tables_needed[::-1]

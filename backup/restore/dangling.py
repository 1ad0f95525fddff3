"""Finds the records of a backup that would refer to nothing, before anything is written.

The database has the last word, when all is written: see `_check_dangling` in `restoring`. It also knows what was in no
backup, and takes different texts for the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from django.utils.translation import gettext as _

from ..archive.metadata import Metadata
from ..database import Database, dangling_refusal
from ..dump import References, Target, checked_references, needed_generics
from ..kinds import INTEGER, NATURAL, TEXT, Plain
from ..options import Place, Places, RestoreMode
from ..scope import label_of
from ..tables import Column, Table, describe, is_installed, owner_of, places_in_words
from .plan import Plan
from .records import RecordReader

#: How many references that are dangling here before a restore are told from new ones.
MOST_BEFORE = 1000


@dataclass(frozen=True)
class Missing:
    """What records of a backup refer to that is neither in it nor here. `values`: those that lead to nothing. `places`:
    the references."""

    values: Mapping[Target, Set[Plain]] = field(default_factory=dict)
    places: Places = field(default_factory=Places)


def references_of(
    reader: RecordReader,
    tables: Sequence[Table],
    emptied: Iterable[Table],
    scope: Iterable[Table],
    database: Database,
    metadata: Metadata,
    *,
    mode: RestoreMode,
    site: str,
    but: Iterable[Table] = (),
) -> References:
    """Return what finds dangling references among the records that are restored.

    `tables`: those that are restored, in the order in which their records are read. `emptied`, `mode`, `site`: see
    `Plan` and `build`. `scope`: all tables in scope here. `but`: those to which references are not checked.

    A row here counts if it stays, unless all that it shares with the missing one is a number that another site gave.
    """
    by_label = {table.label: table for table in scope}
    gone = {table.label for table in [*tables, *emptied]} if mode.clears else set[str]()
    is_of_another = metadata.instance != site

    def here(column: Column, values: Set[Plain], known: Set[Plain]) -> Collection[Plain]:
        model = column.field.model
        found: list[Plain] = []
        if not (label_of(model) in gone or (column.kind is INTEGER and is_of_another)):
            found = database.keys_with(model._meta.db_table, column, column, values)
        table = by_label.get(label_of(model))
        collation = database.collation(table, column) if table and column.kind is TEXT else ""
        if not collation:
            return found
        weights = {*database.weights(collation, [*known, *found])}
        texts = [*values]
        weighed = zip(texts, database.weights(collation, texts), strict=True)
        return [text for text, weight in weighed if weight in weights]

    referred_to = {
        column.refers_to for table in tables for _place, _name, column in checked_references(table)
    }
    # Records that are not restored are matched with rows here by `Others`.
    matched = (by_label.keys() & metadata.models.keys()) - {table.label for table in tables}
    but_labels = matched | {table.label for table in but}
    is_empty = {table.label for table in emptied}

    # Where no checksums prove otherwise, somebody may have removed by hand what they lead to, whose key is then that of
    # the next row.
    own = {table.label for table in tables} if mode.clears and not metadata.is_sealed else set[str]()

    def may_be_another(label: str) -> bool:
        # Nothing else checks generic references. The next row of an emptied table may get the number in one of them.
        return label in is_empty | own or (is_of_another and label not in gone | but_labels)

    with_generics = (
        [table for table in tables if needed_generics(table)] if is_of_another or is_empty or own else []
    )
    generic = _generic_keys(reader, with_generics, may_be_another)
    return References(tables, here, referred_to - NATURAL.keys() - but_labels, generic)


def _generic_keys(
    reader: RecordReader, tables: Iterable[Table], is_checked: Callable[[str], bool]
) -> dict[str, set[str]]:
    """Return label of a model -> the keys, as texts, to which generic references of tables lead. `is_checked`: tells
    whether references to a model are checked."""
    found: dict[str, set[str]] = {}
    for table in tables:
        for batch in reader.batches(table):
            for type_place, place in needed_generics(table):
                for content_type, key in zip(batch[type_place], batch[place], strict=True):
                    label = owner_of(content_type)
                    if key is not None and is_checked(label) and is_installed(label):
                        found.setdefault(label, set()).add(str(key))
    return found


def missing_in(reader: RecordReader, tables: Sequence[Table], references: References) -> Missing:
    """Read all records to find the dangling references among them. `tables`: in the same order as for `references_of`.

    It takes a pass of its own, since a record that is left out must not touch the row here that has its key.
    """
    references.missing = {}
    for table in tables:
        for batch in reader.batches(table):
            references.see(table, batch)
    places = references.dangling()
    return Missing(references.missing, places)


def with_dangling(plan: Plan, database: Database, references: References | None, missing: Missing) -> Plan:
    """Return the plan with a refusal for the dangling references that `references` found, or with a warning about those
    that are left out (`missing`)."""
    places = references.dangling() if references else missing.places
    if not places:
        return plan
    may_stay = not plan.mode.clears or (database.takes_dangling and not plan.options.leave_out)
    may_stay = may_stay and not plan.options.without_safety_copy
    before = {*database.dangling(plan.tables, limit=MOST_BEFORE)} if may_stay else ()
    named = [place for place in places.named if _line(plan, place) not in before]
    if not named:
        return plan
    if references is None:
        named = [_as_left_out(plan, place) for place in named]
        left_out = Places(named, places.total - len(places.named) + len(named))
        return replace(plan, warnings=[*plan.warnings, left_out_in_words(left_out)])
    lines = [describe(place.model, place.pk, place.field, place.reason) for place in named]
    return replace(plan, refusal=plan.refusal or dangling_refusal(lines))


def left_out_in_words(places: Places) -> str:
    """Return a warning about dangling references that are left out."""
    text = _("Left out, since they refer to something that is not there: %(places)s.")
    return text % {"places": "; ".join(places_in_words(places))}


def _as_left_out(plan: Plan, place: Place) -> Place:
    """Return the place without the field if the whole record is left out, since the reference must not be empty."""
    table = plan.table(place.model)
    whole = {column.name for column in table.columns if not column.field.null} if table else ()
    return replace(place, field=None) if place.field in whole else place


def _line(plan: Plan, place: Place) -> str:
    """Return what `Database.dangling` would, when the records have the keys that they get here."""
    key = plan.key_map.of(place.model).get(place.pk, place.pk)
    return describe(place.model, key, place.field, place.reason)

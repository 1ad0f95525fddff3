"""Finds the records of a backup that would refer to nothing, so that a preview tells it already.

The database has the last word, when all is written: see `_check_dangling` in `restoring`. It also knows what was in no
backup, and takes different texts for the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from dataclasses import replace

from django.utils.translation import gettext as _

from ..database import Database, dangling_refusal
from ..dump import References, Target
from ..kinds import TEXT, Plain
from ..options import Place, Places, RestoreOptions
from ..tables import Table, describe, places_in_words
from .plan import Plan

#: How many references that are dangling here before a restore are told from new ones.
MOST_BEFORE = 1000


def references_of(
    tables: Sequence[Table], database: Database, options: RestoreOptions, *, is_preview: bool
) -> References | None:
    """Return what collects the references of all records; None if they may be dangling, as in an earlier state of this
    site, or if a restore leaves them out, and says so itself. `tables`: in the order in which they are read."""
    by_label = {table.label: table for table in tables}

    def here(target: Target, values: Set[Plain]) -> Collection[Plain]:
        table = by_label[target[0]]
        column = next(column for column in table.columns if column.name == target[1])
        if column.kind is TEXT and database.collation(table, column):
            return values
        if options.mode.clears:
            return ()
        return database.keys_with(table.db_table, column, column, values)

    may_dangle = options.as_it_was or (options.leave_out and not is_preview)
    return None if may_dangle else References(tables, here)


def with_dangling(plan: Plan, database: Database, references: References | None) -> Plan:
    """Return the plan with a refusal for dangling references, or, if they are left out, with a warning."""
    places = references.dangling() if references else ()
    if not places:
        return plan
    options, before = plan.options, set[str]()
    if plan.mode.clears:
        may_stay = database.takes_dangling and not (options.leave_out or options.without_safety_copy)
    else:
        may_stay = True
    if may_stay:
        before.update(database.dangling(plan.tables, limit=MOST_BEFORE))
    named = [place for place in places.named if _line(plan, place) not in before]
    if not named:
        return plan
    if options.leave_out:
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

"""Finds what is not restored, but refers to rows that clearing removes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from django.utils.translation import gettext as _

from ..database import MAX_NAMED, Database, is_checked
from ..kinds import Plain
from ..tables import Table, describe
from .parts import labels_referred_to
from .plan import Plan
from .replaced import generic_reference


def referring_to(tables: Iterable[Table], restored: Iterable[Table], database: Database) -> list[Table]:
    """Return those of the tables that have rows here, and refer to models that are restored."""
    labels = {table.label for table in restored}
    referring = [table for table in tables if not labels.isdisjoint(labels_referred_to(table))]
    missing = database.missing_tables(referring).values() if referring else ()
    return [table for table in referring if table not in missing and database.count(table)]


def left_behind(plan: Plan, database: Database, staying: Sequence[Table]) -> list[str]:
    """Return the rows of models that are not restored, but refer to rows that are removed, as lines for people."""
    going: dict[str, set[Plain]] = {}
    lines: list[str] = []
    for table in staying:
        for place, label in table.references:
            column = table.columns[place]
            other = next((other for other in [*plan.tables, *plan.emptied] if other.label == label), None)
            if other is None or not is_checked(column):
                continue
            if label not in going:
                going[label] = {*keys_going(plan, database, other)}
            for batch in database.batches(table) if going[label] else ():
                for key, value in zip(batch[0], batch[place], strict=True):
                    if value in going[label] and len(lines) < MAX_NAMED:
                        reason = _("it refers to %(model)s %(key)s") % {
                            "model": label,
                            "key": column.shown(value),
                        }
                        lines.append(describe(table.label, key, column.name, reason))
    return lines


def generics_left_behind(plan: Plan, database: Database, staying: Sequence[Table]) -> list[str]:
    """Return generic references of models that are not restored to rows that are removed, as lines for people. No
    database checks these."""
    lines: list[str] = []
    with_generics = [table for table in staying if table.generics]
    for other in [*plan.tables, *plan.emptied] if with_generics else ():
        going = [*keys_going(plan, database, other)]
        for table in with_generics if going else ():
            for type_place, place in table.generics:
                column, keys, kind = generic_reference(table, type_place, place, other.label, going)
                found = database.keys_with(table.db_table, table.key, column, keys, kind)
                for row in database.rows_by_key(table, found[: MAX_NAMED - len(lines)]).values():
                    reason = _("it refers to %(model)s %(key)s") % {
                        "model": other.label,
                        "key": other.key.shown(row[place]),
                    }
                    lines.append(describe(table.label, row[0], column.name, reason))
    return lines


def keys_going(plan: Plan, database: Database, table: Table) -> Iterator[Plain]:
    """Yield the keys of all rows here that are removed, in falling order, for a table that was not compared as text."""
    rows = plan.rows(table) if table in plan.tables else ()
    coming = {row[0] for batch in rows for row in plan.key_map.remap(table, batch)}
    return (key for keys in database.keys_descending(table) for key in keys if key not in coming)

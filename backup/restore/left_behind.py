"""Finds what is not restored, but refers to rows that clearing removes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import chain

from django.utils.translation import gettext as _

from .. import babybuddy
from ..database import MAX_NAMED, Database, is_checked
from ..dump import needed_generics
from ..exceptions import RecordsRefused
from ..kinds import Plain
from ..tables import Table, describe, owner_of_keys
from .accounts import People
from .apart import are_apart
from .parts import labels_referred_to
from .plan import Plan
from .replaced import generic_reference


def referring_to(tables: Iterable[Table], restored: Iterable[Table], database: Database) -> list[Table]:
    """Return those of the tables that have rows here, and refer to models that are restored."""
    labels = {table.label for table in restored}
    referring = [table for table in tables if not labels.isdisjoint(labels_referred_to(table))]
    return with_rows(referring, database)


def attached(tables: Iterable[Table], database: Database) -> list[Table]:
    """Return those of the tables that have rows here, and whose rows are attached to others, such as tags."""
    return with_rows([table for table in tables if needed_generics(table)], database)


def with_rows(tables: Sequence[Table], database: Database) -> list[Table]:
    """Return those of the tables that are there, and have rows."""
    missing = database.missing_tables(tables).values() if tables else ()
    return [table for table in tables if table not in missing and database.count(table)]


def with_left_behind(
    plan: Plan,
    database: Database,
    staying: Sequence[Table],
    referring: Sequence[Table],
    with_generics: Sequence[Table],
    outside: Iterable[Table],
) -> Plan:
    """Return the plan with a warning, or a refusal, for what would refer to rows that it removes. `staying`: the tables
    that are not restored; `referring`: those of them that no backup holds. `with_generics`: the tables whose generic
    references stay. `outside`: all tables whose rows stay, even if they have none.

    If rows of some may be attached to others, no number is given twice: else a later restore could bring back the one
    that had it first, to which what stays of the second would belong.
    """
    if not plan.mode.clears:
        return plan
    lines, highest = _generics_left_behind(plan, database, with_generics)
    gives_none_twice = any(map(needed_generics, outside))
    next_keys = database.next_keys([*plan.tables, *plan.emptied]) if gives_none_twice else {}
    for table, following in next_keys.items():
        if table.high_key is not None and following <= table.high_key:
            highest[table.label] = max(following - 1, highest.get(table.label, 0))
    for label, number in plan.highest_left_out.items():
        highest[label] = max(number, highest.get(label, number))
    plan = replace(plan, highest_left_out=highest)
    if lines:
        warning = _("Rows that were here before refer to something that is not there: %(rows)s")
        plan = replace(plan, warnings=[*plan.warnings, warning % {"rows": "; ".join(lines)}])
    if plan.refusal is None and (lines := _left_behind(plan, database, referring)):
        lines.append(_ways_on())
        return replace(plan, refusal=_refusal_of(lines, offer=""))
    if plan.refusal is None and not plan.options.leave_out:
        plan = replace(plan, refusal=_refusal_of(_left_behind(plan, database, staying)))
    return plan


def with_handed_over(plan: Plan, database: Database, outside: Iterable[Table], people: People) -> Plan:
    """Return the plan with a refusal for rows that stay, and that another user would have then: an API token, say.
    `outside`: the tables whose rows stay."""
    replaced = people.replaced(as_it_was=plan.options.as_it_was) if plan.mode.clears else {}
    if not replaced or plan.refusal is not None:
        return plan
    lines: list[str] = []
    users = people.table
    tables = [t for t in outside if t.generics or users.label in map(owner_of_keys, labels_referred_to(t))]
    for table in with_rows(tables, database):
        is_concerned = any(
            found for _name, found in _referring(database, table, users, replaced.keys(), table.generics)
        )
        for user, names in replaced.items() if is_concerned else ():
            for name, found in _referring(database, table, users, {user}, table.generics):
                lines += [describe(table.label, key, name, names) for key in found[: MAX_NAMED - len(lines)]]
            if len(lines) >= MAX_NAMED:
                break
    if not lines:
        return plan
    # An undo is of a backup that was made already, without these models.
    lines.append(_("Delete these records first.") if plan.options.as_it_was else _ways_on())
    message = _("These records would stay, but would then be those of other users:")
    return replace(plan, refusal=RecordsRefused(message, lines))


def with_replaced(plan: Plan, database: Database, holding: Sequence[Table], people: People | None) -> Plan:
    """Return the plan with a refusal for rows that stay, and that would belong to another record then, which gets the
    key of the one that they refer to: a timer of one child to another child. `holding`: the tables whose rows stay, and
    that refer to others. `people`: see `with_handed_over`, which looks at users."""
    if not plan.mode.clears or plan.refusal is not None:
        return plan
    lines: list[str] = []
    replaced: dict[str, set[Plain]] = {}
    for other in plan.tables if holding else ():
        if people and other == people.table:
            continue
        keys = replaced[other.label] = _replaced(plan, database, other, replaced)
        tables = [t for t in holding if needed_generics(t) or other.label in labels_referred_to(t)]
        lines += _referring_lines(database, tables, other, keys, MAX_NAMED - len(lines))
    if not lines:
        return plan
    lines.append(_("Delete these records first.") if plan.options.as_it_was else _ways_on())
    lines.append(_("Or, if a record that they refer to was only changed since, change it back."))
    message = _("These records would stay, but what they refer to would be replaced by another record:")
    return replace(plan, refusal=RecordsRefused(message, lines))


def with_adopted(plan: Plan, database: Database, tables: Sequence[Table]) -> Plan:
    """Return the plan with a refusal for rows that stay, are attached to something that is not there any more, and
    would belong to a record of another site, which has its number: tags, say. `tables`: see `hanging`."""
    lines: list[str] = []
    for other in plan.tables if plan.refusal is None else ():
        if numbers := hanging(other, tables, database):
            rows = chain.from_iterable(plan.key_map.remap(other, batch) for batch in plan.rows(other))
            keys = {row[0] for row in rows if row[0] in numbers}
            lines += _referring_lines(database, tables, other, keys, MAX_NAMED - len(lines))
    if not lines:
        return plan
    lines.append(_ways_on() if plan.mode.clears else _("Delete these records first."))
    message = _("What these records refer to is gone, and another record would have its number:")
    return replace(plan, refusal=RecordsRefused(message, lines))


def hanging(other: Table, tables: Iterable[Table], database: Database) -> set[int]:
    """Return the numbers that no row of a model has here, and to which rows of some tables are attached: those whose
    owner was removed, as clearing does with owners of rows that no backup holds."""
    numbers = attached_to(other, tables, database)
    return (
        numbers - {*database.keys_with(other.db_table, other.key, other.key, numbers)} if numbers else numbers
    )


def attached_to(other: Table, tables: Iterable[Table], database: Database) -> set[int]:
    """Return the numbers of the rows of a model, whether they are there or not, to which rows of some tables are
    attached. What the database never gives to a row does not count."""
    content_type = tuple(other.label.split("."))
    numbers: set[int] = set()
    for table in tables if other.high_key is not None else ():
        for type_place, place in needed_generics(table):
            also = table.columns[type_place], content_type
            numbers |= database.numbers_in(table.db_table, table.columns[place], also)
    return {number for number in numbers if other.high_key is not None and number <= other.high_key}


def _replaced(
    plan: Plan, database: Database, table: Table, replaced: Mapping[str, Collection[Plain]]
) -> set[Plain]:
    """Return the keys of the rows here that are plainly other records than those that get their keys: also if they
    belong to such a row, to a child, say. `replaced`: model label -> such keys, of the models that this one refers to.
    """
    apart, matched = babybuddy.apart(table), plan.matched.get(table.label, ())
    keys: set[Plain] = set()
    for batch in plan.batches(database, table) if apart else ():
        here = database.rows_by_key(table, [row[0] for row in batch.changed])
        keys.update(
            row[0]
            for row in batch.changed
            if row[0] in here and row[0] not in matched and are_apart(here[row[0]], row, apart)
        )
    for place, label in table.references:
        owners = replaced.get(label, ()) if any(place in places for places in apart) else ()
        if owners:
            belonging = database.keys_with(table.db_table, table.key, table.columns[place], owners)
            keys |= {*belonging} & _keys_coming(plan, table)
    return keys


def with_held(plan: Plan, into: Database, tables: Sequence[Table]) -> Plan:
    """Return the plan with a refusal if something here does not let the rows go that it deletes; with a warning if that
    is so of its undo only. `into`: the connection to write to. `tables`: all in scope here."""
    if plan.mode.clears:
        refusal = into.held([*plan.tables, *plan.emptied], tables)
    else:
        going = {t: [*plan.displaced.get(t.label, ()), *plan.going.get(t.label, ())] for t in tables}
        refusals = (into.held([table], tables, keys) for table, keys in going.items() if keys)
        refusal = next(filter(None, refusals), None)
    if refusal:
        return replace(plan, refusal=plan.refusal or refusal)
    if plan.options.as_it_was or not (refusal := into.held(tables, tables)):
        return plan
    text = _(
        "This could not be undone: other tables refer to rows that an undo deletes and writes again. What mends it: "
        "%(statements)s"
    )
    return replace(plan, warnings=[*plan.warnings, text % {"statements": " ".join(refusal.details)}])


def _referring(
    database: Database, table: Table, other: Table, keys: Set[Plain], generics: Sequence[tuple[int, int]]
) -> Iterator[tuple[str, list[Plain]]]:
    """Yield the name of each field that may refer to rows of another table, and the keys of the rows that refer to one
    of some rows of it. `generics`: the generic references that count."""
    for place, label in table.references:
        if owner_of_keys(label) == other.label:
            column = table.columns[place]
            yield column.name, database.keys_with(table.db_table, table.key, column, keys)
    for relation in table.relations:
        if owner_of_keys(relation.target.key_of) == other.label:
            found = database.keys_with(relation.db_table, relation.owner, relation.target, keys)
            yield relation.name, [*dict.fromkeys(found)]
    for type_place, place in generics:
        column, values, kind = generic_reference(table, type_place, place, other.label, keys)
        yield column.name, database.keys_with(table.db_table, table.key, column, values, kind)


def _referring_lines(
    database: Database, tables: Iterable[Table], other: Table, keys: Set[Plain], most: int
) -> list[str]:
    """Return lines for people, at most `most`, about the rows of some tables that refer to some rows of another."""
    lines: list[str] = []
    for table in tables if keys else ():
        for name, found in _referring(database, table, other, keys, needed_generics(table)):
            place = next((place for place, column in enumerate(table.columns) if column.name == name), None)
            for row in database.rows_by_key(table, found[: most - len(lines)]).values():
                which = other.label if place is None else f"{other.label} {other.key.shown(row[place])}"
                lines.append(
                    describe(table.label, row[0], name, _("it refers to %(model)s") % {"model": which})
                )
    return lines


def _ways_on() -> str:
    return _("Delete these records first, or take their models out of BACKUP_EXCLUDE.")


def _refusal_of(lines: Sequence[str], offer: str = "leave_out") -> RecordsRefused | None:
    if not lines:
        return None
    message = _("These records would stay, but refer to something that this restore would delete:")
    return RecordsRefused(message, lines, offer=offer)


def _left_behind(plan: Plan, database: Database, staying: Sequence[Table]) -> list[str]:
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


def _generics_left_behind(
    plan: Plan, database: Database, with_generics: Sequence[Table]
) -> tuple[list[str], dict[str, int]]:
    """Return generic references of models that are not restored to rows that are removed, as lines for people; and
    model label -> the highest number of a row that will not be there, and that rows of such models are attached to: no
    new row must get it, or a tag would be that of the new one. No database checks these references."""
    lines: list[str] = []
    highest: dict[str, int] = {}
    for other in [*plan.tables, *plan.emptied] if with_generics else ():
        coming = _keys_coming(plan, other)
        if lost := attached_to(other, with_generics, database) - coming:
            highest[other.label] = max(lost)
        going = [key for keys in database.keys_descending(other) for key in keys if key not in coming]
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
    return lines, highest


def keys_going(plan: Plan, database: Database, table: Table) -> Iterator[Plain]:
    """Yield the keys of all rows here that are removed, in falling order, for a table that was not compared as text."""
    coming = _keys_coming(plan, table)
    return (key for keys in database.keys_descending(table) for key in keys if key not in coming)


def _keys_coming(plan: Plan, table: Table) -> set[Plain]:
    """Return the keys that the records of the backup get, for a table that was not compared as text."""
    rows = plan.rows(table) if table in plan.tables else ()
    return {row[0] for batch in rows for row in plan.key_map.remap(table, batch)}

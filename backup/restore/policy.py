"""Checks whether a plan may be carried out: who may do it, and what must not be lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from django.contrib.auth import get_user_model
from django.utils.translation import gettext as _

from .. import babybuddy
from ..database import Database
from ..exceptions import (
    BackupError,
    Forbidden,
    RecordsConflict,
    RemovesMore,
    RestoreRefused,
    UnknownApps,
)
from ..kinds import Plain
from ..options import Part, RestoreOptions
from ..scope import label_of, part_of
from ..tables import Row, Table
from .plan import Plan
from .records import RecordReader
from .replaced import Lost


def check_policy(plan: Plan, database: Database, *, superuser: bool) -> Plan:
    """Return the plan with `refusal` and `unknown_apps` set, for the present state of the database.

    `superuser`: whether the user may change accounts.
    """
    return replace(
        plan,
        unknown_apps=unknown_apps(plan, database),
        refusal=_refusal(plan, database, superuser=superuser),
    )


def is_unknown(table: Table, plan: Plan) -> bool:
    """Tell whether a table is of an app that the backup does not know."""
    return table.app not in plan.metadata.apps


def unknown_apps(plan: Plan, database: Database) -> list[str]:
    """Return the labels of the apps that the backup does not know and of which clearing would delete something."""
    if not plan.mode.clears:
        return []
    tables = [table for table in [*plan.tables, *plan.emptied] if is_unknown(table, plan)]
    return sorted({table.app for table in tables if _loses(plan, database, table)})


def _loses(plan: Plan, database: Database, table: Table) -> bool:
    """Tell whether clearing changes or removes rows here."""
    if table.db_table in database.missing:
        return table.db_table in database.damaged_names()
    batches = plan.batches(database, table) if table in plan.tables else ()
    return database.count(table) != sum(batch.unchanged for batch in batches)


def too_narrow_refusal(statements: Sequence[str]) -> RestoreRefused:
    return RestoreRefused(
        _("Tables here cannot hold every character of the backup (an emoji, say). What mends that:"),
        statements,
    )


def _refusal(plan: Plan, database: Database, *, superuser: bool) -> BackupError | None:
    if plan.too_narrow:
        return too_narrow_refusal(plan.too_narrow)
    if plan.conflicts and all(conflict.statement for conflict in plan.conflicts):
        mergeable = all(conflict.table.label in babybuddy.MERGEABLE for conflict in plan.conflicts)
        return RecordsConflict(
            _(
                "This database takes different texts for the same, so that it cannot hold both. What tells them apart:"
            ),
            [*map(str, plan.conflicts), *{conflict.statement: None for conflict in plan.conflicts}],
            offer="merge_tags" if mergeable else "",
        )
    if plan.conflicts and all(conflict.same_as is not None for conflict in plan.conflicts):
        return RecordsConflict(
            _(
                "Records of the backup have the same values where no two may have the same. Edit it, or leave one out:"
            ),
            [str(conflict) for conflict in plan.conflicts],
        )
    if plan.conflicts:
        return RecordsConflict(
            _("Records of the backup match more than one row here, so it is not clear which rows they are:"),
            [str(conflict) for conflict in plan.conflicts],
        )
    if not plan.options.as_it_was and not _leaves_a_superuser(plan, database):
        return RestoreRefused(
            _("After this restore nobody could administer the site: no user would be active and a superuser.")
        )
    if not superuser and _changes_accounts(plan, database):
        return Forbidden(
            _(
                "This restore would change user accounts, permissions or API tokens. Only a superuser can do that. "
                "You can restore the entries alone, with “parts=entries”."
            )
        )
    return None


def refuse(plan: Plan, options: RestoreOptions) -> None:
    """Raise the error for which a plan must not be carried out, or `UnknownApps` if the options do not allow it."""
    if plan.refusal:
        raise plan.refusal
    if plan.unknown_apps and not options.clear_unknown_apps:
        raise UnknownApps(
            _(
                "The backup does not know these apps, and this restore would delete their data. Allow it "
                "with “clear_unknown_apps”, or keep existing data:"
            ),
            sorted(plan.unknown_apps),
        )


def check_removed(plan: Plan, lost: Lost, most: int | None) -> None:
    """Raise `RemovesMore` if more records are deleted than were shown: others may enter some until the transaction
    begins."""
    if most is None or plan.mode.clears:
        return
    displaced = [(label, len(keys)) for label, keys in plan.displaced.items()]
    counts = [*displaced, *lost.replaced.items(), *lost.removed.items()]
    if sum(count for label, count in counts if babybuddy.is_entered(label)) > most:
        raise RemovesMore(
            _(
                "Meanwhile something was entered that this restore would delete. Nothing was changed. Look at the "
                "preview again."
            )
        )


def lost_in_words(lost: Lost) -> list[str]:
    """Return warnings about rows that other records replace, and about those that belong or refer to such a row; [] if
    there are none."""
    lines = []
    if counts := _counted(lost.replaced):
        text = _(
            "These records here have the same numbers as other records in the backup, which take their place: "
            "%(models)s."
        )
        lines.append(text % {"models": counts})
    if counts := _counted(lost.removed):
        text = _("Deleted with them is what belongs to them, and is not in the backup: %(models)s.")
        lines.append(text % {"models": counts})
    if counts := _counted(lost.emptied):
        text = _("What else referred to them, and is not in the backup, no longer does: %(models)s.")
        lines.append(text % {"models": counts})
    return lines


def _counted(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{label} ({count})" for label, count in numbers.items() if count)


def _leaves_a_superuser(plan: Plan, database: Database) -> bool:
    model = get_user_model()
    label = label_of(model)
    table = plan.table(label)
    if table is None:
        return all(emptied.label != label for emptied in plan.emptied)
    if not {"is_superuser", "is_active"} <= {*table.names}:
        return True  # a custom user model, for which this cannot be checked
    superuser, active = (1 + table.names.index(name) for name in ("is_superuser", "is_active"))
    overwritten: set[Plain] = set()
    for rows in plan.rows(table):
        for row in plan.key_map.remap(table, rows):
            if row[superuser] and row[active]:
                return True
            overwritten.add(row[0])
    if plan.mode.clears:
        return False
    current = model._base_manager.using(database.connection.alias).filter(is_superuser=True, is_active=True)
    return any(table.key.kind.dump(key) not in overwritten for key in current.values_list("pk", flat=True))


def _changes_accounts(plan: Plan, database: Database) -> bool:
    """Tell whether somebody could gain rights by this restore: see "What a restore does" in the README. What changes by
    mere use (the last sign-in) does not count, nor do tokens that stay: see `tokens_stay`."""
    known = babybuddy.accounts()
    for table in [*plan.tables, *plan.emptied]:
        if part_of(table.label) is not Part.ACCOUNTS:
            continue
        account = known.get(table.label, babybuddy.Account())
        may_go = account.may_go and plan.options.undoes
        if table in plan.emptied:
            if not may_go and database.count(table):
                return True
            continue
        if any(
            batch.added
            or batch.replaced
            or any(_differs(database, table, row, account.by_use) for row in batch.changed)
            for batch in plan.batches(database, table)
        ):
            return True
        if plan.mode.clears and not may_go:
            kept = sum(len(batch.changed) + batch.unchanged for batch in plan.batches(database, table))
            if database.count(table) != kept:
                return True
    return False


def tokens_stay(
    reader: RecordReader, database: Database, tables: Sequence[Table], options: RestoreOptions
) -> bool:
    """Tell whether all API tokens stay as they are, if somebody restores these tables who is no superuser.

    They may not cut off the apps and scripts of others, nor could they bring the tokens back that they removed. If the
    backup has one that is not here, which they may not restore, the plan has them all, and is refused. An undo leaves
    them if the restore did; else it is exact, or refused.
    """
    if options.undoes:
        return options.left_tokens
    by_label = {table.label: table for table in tables if table.label in reader.archive.metadata.models}
    table, users = by_label.get(babybuddy.TOKENS), by_label.get(label_of(get_user_model()))
    if table is None:
        return True
    user = 1 + table.names.index(babybuddy.SECRET_KEYS[table.label])
    #: Key of a user in the backup -> of the users here who have these of the tokens. Of all others there may be many.
    owners: dict[Plain, set[Plain]] = {}
    for rows in reader.rows(table):
        here = database.rows_by_key(table, [row[0] for row in rows])
        for row in rows:
            if row[0] not in here:
                return False
            owners.setdefault(row[user], set()).add(here[row[0]][user])
    same = {key: key for key in owners}
    if users is not None:
        name = 1 + users.names.index(get_user_model().USERNAME_FIELD)
        for rows in reader.rows(users):
            rows = [row for row in rows if row[0] in owners]
            for row, keys in zip(rows, database.matches(users, [name], rows), strict=True):
                same[row[0]] = keys[0] if keys else None
    return all(keys == {same[key]} for key, keys in owners.items())


def keeps_tokens(plan: Plan, database: Database) -> bool:
    """Tell whether a plan leaves all API tokens as they are."""
    table = next((t for t in [*plan.tables, *plan.emptied] if t.label == babybuddy.TOKENS), None)
    if table is None:
        return True
    unchanged = 0
    for batch in plan.batches(database, table) if table in plan.tables else ():
        if batch.added or batch.replaced or batch.changed:
            return False
        unchanged += batch.unchanged
    return not plan.mode.clears or database.count(table) == unchanged


def _differs(database: Database, table: Table, row: Row, by_use: frozenset[str]) -> bool:
    """Tell whether a row here differs from the backup's. `by_use`: the fields that change by mere use; ignored."""
    current = database.rows_by_key(table, [row[0]])[row[0]]
    return not by_use.issuperset(database.differing(table, row, current))

"""Finds the accounts that a restore changes, since it must never change passwords, rights or API tokens silently."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set

from django.contrib.auth import get_user_model
from django.utils.translation import ngettext

from .. import babybuddy
from ..database import MAX_NAMED, Database
from ..kinds import Plain
from ..scope import label_of
from ..tables import Row, Table
from .plan import AccountChanges, Plan
from .records import RecordReader, Renamed

#: The label of Django's groups.
GROUPS = "auth.group"
#: Fields of Django's users that say what somebody may do, beside the groups that they are in.
RIGHTS = ("is_active", "is_staff", "is_superuser", "user_permissions")

#: Key of a group -> its name, and its permissions.
_Groups = Mapping[Plain, tuple[str, Plain]]


def account_changes(plan: Plan, database: Database) -> AccountChanges:
    """Return the users whose password, rights or token change, of those who have an account before and after, and the
    users who are added or removed; and the groups that change or are removed."""
    users = plan.table(label_of(get_user_model()))
    if users is None:
        return AccountChanges()
    name = _place(users, str(getattr(get_user_model(), "USERNAME_FIELD", "username")))
    fold = _fold(database.folds_texts)
    current = {row[0]: row for row in _rows_here(database, users)}
    names_here = {key: str(row[name]) for key, row in current.items()}
    then, added = _counterparts(plan, users, name, current, names_here.values(), fold)
    names_then = {key: str(row[name]) for key, row in then.items()}
    if not plan.mode.clears:
        names_then = names_here | names_then
    if plan.mode.clears:  # a key may belong to another user afterwards
        by_name = {fold(names_then[key]): row for key, row in then.items()}
        both = [(row, by_name.get(fold(names_here[key]))) for key, row in current.items()]
        pairs = [(old, new) for old, new in both if new is not None]
    else:
        # Others have the same key only, and are replaced. Who is not in the backup may be in a group that is replaced.
        same = plan.matched.get(users.label, ())
        pairs = [(row, then.get(key, row)) for key, row in current.items() if key in same or key not in then]
    of_groups = _place(users, "groups") if "groups" in users.names else None
    in_groups = {group for row in current.values() for group in (row[of_groups] if of_groups else ())}
    groups_here, groups_then = _groups(plan, database, in_groups, fold)
    group_names = [group for group, _permissions in groups_here.values()]
    permitted = {fold(group): permissions for group, permissions in groups_then.values()}

    def differing(fields: Sequence[str]) -> list[str]:
        places = [_place(users, field) for field in fields if field in users.names]
        return sorted(str(old[name]) for old, new in pairs if any(old[p] != new[p] for p in places))

    def in_other_groups() -> list[str]:
        """Return the users whose groups have other names then. A key may belong to another group."""
        if of_groups is None:
            return []

        def names_in(row: Row, groups: _Groups) -> set[Plain]:
            return {fold(groups[key][0]) if key in groups else key for key in row[of_groups]}

        return [
            str(old[name]) for old, new in pairs if names_in(old, groups_here) != names_in(new, groups_then)
        ]

    tokens, tokens_removed = _tokens(plan, database, names_here, names_then)
    return AccountChanges(
        passwords=differing(["password"]),
        rights=sorted({*differing(RIGHTS), *in_other_groups()}),
        tokens=tokens,
        tokens_removed=tokens_removed,
        groups=sorted(
            group
            for group, permissions in groups_here.values()
            if permitted.get(fold(group), permissions) != permissions
        ),
        groups_removed=_not_among(group_names, permitted, fold),
        added=added,
        removed=_not_among(names_here.values(), names_then.values(), fold),
    )


def passwords_since(reader: RecordReader, database: Database, tables: Sequence[Table]) -> Renamed:
    """Return the passwords here that differ from those in the backup, in the form of `RecordReader.renamed`.

    Somebody changed them, or they were hashed anew when somebody signed in. If users who share a hash in the backup
    have different ones here, theirs are left out.
    """
    label = label_of(get_user_model())
    table = next((table for table in tables if table.label == label and "password" in table.names), None)
    if table is None:
        return {}
    place = _place(table, "password")
    hashes_here = {row[0]: row[place] for row in _rows_here(database, table)}
    since: dict[Plain, set[Plain]] = {}  # a set, since nothing keeps two users from having the same hash
    for batch in reader.batches(table):
        for key, password in zip(batch[0], batch[place], strict=True):
            since.setdefault(password, set()).add(hashes_here.get(key, password))
    passwords = {before: now for before, (now, *others) in since.items() if now != before and not others}
    return {(label, "password"): passwords} if passwords else {}


def _tokens(
    plan: Plan, database: Database, names_here: dict[Plain, str], names_then: dict[Plain, str]
) -> tuple[list[str], list[str]]:
    """Return the names of the users whose token changes, and of those whose token is removed. `names_…`: key of a user
    -> name; `names_then` may lack users of other names than those here."""
    tables = (table for table in [*plan.tables, *plan.emptied] if table.label == babybuddy.TOKENS)
    table = next(tables, None)
    owner = babybuddy.SECRET_KEYS[babybuddy.TOKENS]
    if table is None or owner not in table.names:
        return [], []
    user = _place(table, owner)
    current: dict[Plain, Plain] = {row[user]: row[0] for row in _rows_here(database, table)}
    then: dict[Plain, Plain] = {}
    if not plan.mode.clears:
        displaced = {*plan.displaced.get(table.label, ())}
        then = {
            owner: key
            for owner, key in current.items()
            if key not in displaced and names_then.get(owner) == names_here.get(owner)
        }
    owners = {key: owner for owner, key in then.items()}
    for row in _rows_then(plan, table):
        then.pop(owners.pop(row[0], None), None)
        if row[user] in names_then:
            owners.pop(then.get(row[user]), None)
            then[row[user]], owners[row[0]] = row[0], row[user]
    by_name = {names_here.get(owner): key for owner, key in current.items()}
    by_name_then = {names_then.get(owner): key for owner, key in then.items()}
    both = {*names_here.values()} & {*names_then.values()}
    differing = sorted(name for name in both if by_name.get(name) != by_name_then.get(name))
    return (
        [name for name in differing if name in by_name_then],
        [name for name in differing if name not in by_name_then],
    )


def _groups(
    plan: Plan, database: Database, keys: Set[Plain], fold: Callable[[str], str]
) -> tuple[_Groups, _Groups]:
    """Return the groups that are here, and those that are here after the restore, as far as these have the name or the
    key of one here, or one of the `keys`."""
    table = plan.table(GROUPS)
    if table is None:
        return {}, {}
    name, permissions = _place(table, "name"), _place(table, "permissions")
    current = {row[0]: row for row in _rows_here(database, table)}
    names = [str(row[name]) for row in current.values()]
    counterparts, _others = _counterparts(plan, table, name, {*current, *keys}, names, fold)
    here, then = (
        {key: (str(row[name]), row[permissions]) for key, row in rows.items()}
        for rows in (current, counterparts)
    )
    return here, then if plan.mode.clears else here | then


def _counterparts(
    plan: Plan,
    table: Table,
    name: int,
    keys: Collection[Plain],
    names: Iterable[str],
    fold: Callable[[str], str],
) -> tuple[dict[Plain, Row], list[str]]:
    """Return the rows after the restore that have one of the keys or names, by key, and the first of all other names,
    sorted: one more than is said. `name`: the position of the name.

    No more is held in memory: a small file may have any number of rows. Of those with the same name, which the database
    refuses, the last one is returned.
    """
    names = {*map(fold, names)}
    by_key: dict[Plain, Row] = {}
    by_name: dict[str, Row] = {}
    others: list[str] = []
    for row in _rows_then(plan, table):
        text = str(row[name])
        if row[0] in keys:
            by_key[row[0]] = row
        if (folded := fold(text)) in names:
            by_name[folded] = row
        elif len(others) <= MAX_NAMED or text < others[-1]:
            insort(others, text)
            del others[MAX_NAMED + 1 :]
    return {row[0]: row for row in [*by_name.values(), *by_key.values()]}, others


def _fold(folds: bool) -> Callable[[str], str]:
    """Return what makes names equal that are the same for the database. `folds`: whether it ignores case."""
    return str.casefold if folds else str


def _not_among(names: Iterable[str], others: Iterable[str], fold: Callable[[str], str]) -> list[str]:
    """Return the names that are not among the others. `fold`: see `_fold`."""
    known = {fold(name) for name in others}
    return sorted(name for name in names if fold(name) not in known)


def in_words(changes: AccountChanges) -> list[str]:
    """Return the changes as warnings."""
    lines = []
    if names := changes.passwords:
        text = ngettext(
            "The password of %(users)s becomes the one in the backup.",
            "The passwords of these users become those in the backup: %(users)s.",
            len(names),
        )
        lines.append(text % {"users": _listed(names)})
    if names := changes.rights:
        text = ngettext(
            "The rights of %(users)s become those in the backup.",
            "The rights of these users become those in the backup: %(users)s.",
            len(names),
        )
        lines.append(text % {"users": _listed(names)})
    if names := changes.tokens:
        text = ngettext(
            "The API token of %(users)s becomes the one in the backup.",
            "The API tokens of these users become those in the backup: %(users)s.",
            len(names),
        )
        lines.append(text % {"users": _listed(names)})
    if names := changes.tokens_removed:
        text = ngettext(
            "The API token of %(users)s is removed, so their apps and scripts have to sign in anew.",
            "The API tokens of these users are removed, so their apps and scripts have to sign in anew: %(users)s.",
            len(names),
        )
        lines.append(text % {"users": _listed(names)})
    if names := changes.groups:
        text = ngettext(
            "The permissions of the group %(groups)s become those in the backup.",
            "The permissions of these groups become those in the backup: %(groups)s.",
            len(names),
        )
        lines.append(text % {"groups": _listed(names)})
    if names := changes.groups_removed:
        text = ngettext(
            "The group %(groups)s is removed.",
            "These groups are removed: %(groups)s.",
            len(names),
        )
        lines.append(text % {"groups": _listed(names)})
    if names := changes.added:
        text = ngettext(
            "The user %(users)s is added.",
            "These users are added: %(users)s.",
            len(names),
        )
        lines.append(text % {"users": _listed(names)})
    if names := changes.removed:
        text = ngettext(
            "The user %(users)s is removed.",
            "These users are removed: %(users)s.",
            len(names),
        )
        lines.append(text % {"users": _listed(names)})
    return lines


def _listed(names: Sequence[str]) -> str:
    more = ["…"] if len(names) > MAX_NAMED else []
    return ", ".join([*names[:MAX_NAMED], *more])


def _place(table: Table, field: str) -> int:
    return 1 + table.names.index(field)


def _rows_here(database: Database, table: Table) -> Iterator[Row]:
    for batch in database.batches(table):
        yield from zip(*batch, strict=True)


def _rows_then(plan: Plan, table: Table) -> Iterator[Row]:
    for rows in plan.rows(table):
        yield from plan.key_map.remap(table, rows)

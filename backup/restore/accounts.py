"""Finds the accounts that a restore changes, since it must never change passwords, rights or API tokens silently."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from heapq import nsmallest
from itertools import chain

from django.contrib.auth import get_user_model
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import babybuddy
from ..database import MAX_NAMED, Database
from ..kinds import Plain
from ..scope import label_of
from ..tables import Row, Table
from .apart import is_same_person
from .collation import weights_of
from .plan import AccountChanges, Plan
from .records import RecordReader, Renamed

#: The label of Django's groups.
GROUPS = "auth.group"
#: Fields of Django's users that say what somebody may do, beside the groups that they are in.
RIGHTS = ("is_active", "is_staff", "is_superuser", "user_permissions")

#: When somebody joined. In a site's own history, this tells people apart whatever they are called.
_JOINED = "date_joined"

#: The field of a token that says whose it is.
_OWNER = babybuddy.SECRET_KEYS[babybuddy.TOKENS]

#: Returns what the database takes each of some names for. It may ignore case and accents.
_Fold = Callable[[Sequence[str]], Sequence[Plain]]
#: Key of a group -> its name, what the database takes that for, and its permissions.
_Groups = Mapping[Plain, tuple[str, Plain, Plain]]


@dataclass(frozen=True)
class People:
    """The users before and after a restore. Who has the same name, as the database takes it, is the same person."""

    table: Table
    #: Position of the name in a row.
    name: int
    #: Key -> row here.
    current: Mapping[Plain, Row]
    #: Key -> row after the restore, as far as it comes from the backup and has the key or the name of one here.
    then: Mapping[Plain, Row]
    #: Key -> what the database takes the name for. Who is renamed has the one from before in both.
    here: Mapping[Plain, Plain]
    there: Mapping[Plain, Plain]
    #: The keys of those who are renamed.
    renamed: Set[Plain]
    #: The first names of those who are added: see `_counterparts`.
    added: Sequence[str]

    def replaced(self, *, as_it_was: bool) -> dict[Plain, str]:
        """Return key of a user here under which the backup has another person -> both names, if all users are cleared.
        `as_it_was`: see `RestoreOptions`; then, whoever joined at the same moment is the same person."""
        joined = _place(self.table, _JOINED) if as_it_was and _JOINED in self.table.names else None
        return {
            key: f"“{self.current[key][self.name]}” → “{self.then[key][self.name]}”"
            for key, person in self.here.items()
            if self.there.get(key, person) != person
            and (joined is None or self.current[key][joined] != self.then[key][joined])
        }


def people_of(plan: Plan, database: Database) -> People | None:
    """Return the users before and after a restore; None if users are not restored."""
    users = plan.table(label_of(get_user_model()))
    if users is None:
        return None
    name = _place(users, get_user_model().USERNAME_FIELD)
    fold = _fold(database, users, name)
    current = {row[0]: row for row in _rows_here(database, users)}
    here = _folded({key: str(row[name]) for key, row in current.items()}, fold)
    then, added = _counterparts(plan, users, name, current, {*here.values()}, fold)
    names_then = {key: str(row[name]) for key, row in then.items()}
    there = _folded(names_then, fold)
    renamed = _renamed(users, current, then, here, there)
    there |= {key: here[key] for key in renamed}
    names_of_renamed = {names_then[key] for key in renamed}
    added = [other for other in added if other not in names_of_renamed]
    return People(users, name, current, then, here, there, renamed, added)


def account_changes(plan: Plan, database: Database, people: People | None) -> AccountChanges:
    """Return the users whose name, password, rights or token change, of those who have an account before and after, and
    the users who are added or removed; and the groups that change or are removed."""
    if people is None:  # BACKUP_EXCLUDE may name them, but not the tokens
        names = _names_of_owners(plan, database)
        tokens, tokens_removed = _tokens(plan, database, names, names, names)
        return AccountChanges(tokens=tokens, tokens_removed=tokens_removed)
    users, name, current, then = people.table, people.name, people.current, people.then
    people_here, people_then = people.here, people.there
    names_here = {key: str(row[name]) for key, row in current.items()}
    if plan.mode.clears:  # a key may belong to another user afterwards
        by_name = {people_then[key]: row for key, row in then.items()}
        both = [(row, by_name.get(people_here[key])) for key, row in current.items()]
        pairs = [(old, new) for old, new in both if new is not None]
    else:
        people_then = {**people_here, **people_then}
        # Others have the same key only, and are replaced. Who is not in the backup may be in a group that is replaced.
        same = {*plan.matched.get(users.label, ()), *people.renamed}
        pairs = [(row, then.get(key, row)) for key, row in current.items() if key in same or key not in then]
    of_groups = _place(users, "groups") if "groups" in users.names else None
    in_groups = {group for row in current.values() for group in (row[of_groups] if of_groups else ())}
    groups_here, groups_then = _groups(plan, database, in_groups)
    permitted = {folded: permissions for _group, folded, permissions in groups_then.values()}

    def differing(fields: Sequence[str]) -> list[str]:
        places = [_place(users, field) for field in fields if field in users.names]
        return sorted(str(old[name]) for old, new in pairs if any(old[p] != new[p] for p in places))

    def in_other_groups() -> list[str]:
        """Return the users whose groups have other names then. A key may belong to another group."""
        if of_groups is None:
            return []

        def names_in(row: Row, groups: _Groups) -> set[Plain]:
            return {groups[key][1] if key in groups else key for key in row[of_groups]}

        return [
            str(old[name]) for old, new in pairs if names_in(old, groups_here) != names_in(new, groups_then)
        ]

    tokens, tokens_removed = _tokens(plan, database, names_here, people_here, people_then)
    stay = {*people_then.values()}
    return AccountChanges(
        renamed=sorted((str(old[name]), str(new[name])) for old, new in pairs if old[name] != new[name]),
        passwords=differing(["password"]),
        rights=sorted({*differing(RIGHTS), *in_other_groups()}),
        tokens=tokens,
        tokens_removed=tokens_removed,
        groups=sorted(
            group
            for group, folded, permissions in groups_here.values()
            if permitted.get(folded, permissions) != permissions
        ),
        groups_removed=sorted(
            group for group, folded, _permissions in groups_here.values() if folded not in permitted
        ),
        added=people.added,
        removed=sorted(names_here[key] for key, person in people_here.items() if person not in stay),
    )


def _renamed(
    users: Table,
    current: Mapping[Plain, Row],
    then: Mapping[Plain, Row],
    people_here: Mapping[Plain, Plain],
    people_then: Mapping[Plain, Plain],
) -> set[Plain]:
    """Return the keys of the users who have another name then, and are the same people: nobody else has one of the two
    names."""
    here, there = {*people_here.values()}, {*people_then.values()}
    return {
        key
        for key, row in current.items()
        if key in then
        and is_same_person(users, row, then[key])
        and people_here[key] not in there
        and people_then[key] not in here
    }


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


def _table_of_tokens(plan: Plan) -> Table | None:
    """Return the table of the tokens, if a restore touches it."""
    tables = (table for table in [*plan.tables, *plan.emptied] if table.label == babybuddy.TOKENS)
    return next((table for table in tables if _OWNER in table.names), None)


def _names_of_owners(plan: Plan, database: Database) -> dict[Plain, str]:
    """Return key of a user here -> name, if tokens are restored, but no users."""
    table = _table_of_tokens(plan)
    if table is None:
        return {}
    dump = table.columns[_place(table, _OWNER)].kind.dump
    users = get_user_model()._base_manager.using(database.connection.alias)
    return {dump(key): str(name) for key, name in users.values_list("pk", get_user_model().USERNAME_FIELD)}


def _tokens(
    plan: Plan,
    database: Database,
    names_here: Mapping[Plain, str],
    people_here: Mapping[Plain, Plain],
    people_then: Mapping[Plain, Plain],
) -> tuple[list[str], list[str]]:
    """Return the names of the users whose token changes, and of those whose token is removed. `names_here`: key of a
    user -> name; `people_…`: what the database takes that for. `people_then` may lack users who are not here."""
    table = _table_of_tokens(plan)
    if table is None:
        return [], []
    user = _place(table, _OWNER)
    current: dict[Plain, Plain] = {row[user]: row[0] for row in _rows_here(database, table)}
    then: dict[Plain, Plain] = {}
    if not plan.mode.clears:
        displaced = {*plan.displaced.get(table.label, ())}
        then = {
            owner: key
            for owner, key in current.items()
            if key not in displaced and people_then.get(owner) == people_here.get(owner)
        }
    owners = {key: owner for owner, key in then.items()}
    for row in chain.from_iterable(_rows_then(plan, table)):
        then.pop(owners.pop(row[0], None), None)
        if row[user] in people_then:
            owners.pop(then.get(row[user]), None)
            then[row[user]], owners[row[0]] = row[0], row[user]
    by_person = {people_here.get(owner): key for owner, key in current.items()}
    by_person_then = {people_then.get(owner): key for owner, key in then.items()}
    stay = {*people_then.values()}
    differing = sorted(
        (names_here[key], person)
        for key, person in people_here.items()
        if person in stay and by_person.get(person) != by_person_then.get(person)
    )
    return (
        [name for name, person in differing if person in by_person_then],
        [name for name, person in differing if person not in by_person_then],
    )


def _groups(plan: Plan, database: Database, keys: Set[Plain]) -> tuple[_Groups, _Groups]:
    """Return the groups that are here, and those that are here after the restore, as far as these have the name or the
    key of one here, or one of the `keys`."""
    table = plan.table(GROUPS)
    if table is None:
        return {}, {}
    name, permissions = _place(table, "name"), _place(table, "permissions")
    fold = _fold(database, table, name)

    def groups(rows: Mapping[Plain, Row]) -> dict[Plain, tuple[str, Plain, Plain]]:
        folded = _folded({key: str(row[name]) for key, row in rows.items()}, fold)
        return {key: (str(row[name]), folded[key], row[permissions]) for key, row in rows.items()}

    here = groups({row[0]: row for row in _rows_here(database, table)})
    names = {folded for _name, folded, _permissions in here.values()}
    counterparts, _others = _counterparts(plan, table, name, {*here, *keys}, names, fold)
    then = groups(counterparts)
    return here, then if plan.mode.clears else here | then


def _counterparts(
    plan: Plan, table: Table, name: int, keys: Collection[Plain], names: Set[Plain], fold: _Fold
) -> tuple[dict[Plain, Row], list[str]]:
    """Return the rows after the restore that have one of the keys or names, by key, and the first of all other names,
    sorted: one more than is said. `name`: the position of the name. `names`: as `fold` returns them.

    No more is held in memory: a small file may have any number of rows. Of those with the same name, which the database
    refuses, the last one is returned.
    """
    by_key: dict[Plain, Row] = {}
    by_name: dict[Plain, Row] = {}
    others: list[str] = []
    for rows in _rows_then(plan, table):
        texts = [str(row[name]) for row in rows]
        for row, text, folded in zip(rows, texts, fold(texts), strict=True):
            if row[0] in keys:
                by_key[row[0]] = row
            if folded in names:
                by_name[folded] = row
            elif len(others) <= MAX_NAMED or text < others[-1]:
                insort(others, text)
                del others[MAX_NAMED + 1 :]
    return {row[0]: row for row in [*by_name.values(), *by_key.values()]}, others


def _fold(database: Database, table: Table, name: int) -> _Fold:
    """Return what makes names equal that are the same for the database. `name`: the position of the column."""
    collation = database.collation(table, table.columns[name])
    return partial(weights_of, database, collation) if collation else list


def _folded(names: Mapping[Plain, str], fold: _Fold) -> dict[Plain, Plain]:
    return dict(zip(names, fold([*names.values()]), strict=True))


def in_words(changes: AccountChanges) -> list[str]:
    """Return the changes as warnings."""
    lines = [
        _("The user %(user)s is then called %(name)s, as in the backup.") % {"user": user, "name": name}
        for user, name in changes.renamed[:MAX_NAMED]
    ]
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


def default_settings(plan: Plan, database: Database, tables: Iterable[Table]) -> list[str]:
    """Return the names of the users who have no settings after a restore, and get the default ones: the first, and one
    more than is said. `tables`: all here."""
    by_label = {table.label: table for table in tables}
    users, settings = (by_label.get(label) for label in (label_of(get_user_model()), babybuddy.USER_SETTINGS))
    if users is None or settings is None:
        return []

    def here(table: Table) -> Iterator[Row]:
        is_cleared = plan.mode.clears and any(t.label == table.label for t in [*plan.tables, *plan.emptied])
        return iter(()) if is_cleared else _rows_here(database, table)

    def then(table: Table) -> Iterator[Row]:
        restored = plan.table(table.label)
        return chain.from_iterable(_rows_then(plan, restored)) if restored else iter(())

    batches = plan.batches(database, users) if plan.table(users.label) else ()
    replaced = {row[0] for batch in batches for row in batch.replaced}  # what belongs to them goes
    owner = _place(settings, "user")
    owners = {row[0]: row[owner] for row in here(settings) if row[owner] not in replaced}
    owners |= {row[0]: row[owner] for row in then(settings)}
    known = {*owners.values()}

    def lacking() -> Iterator[str]:
        name = _place(users, get_user_model().USERNAME_FIELD)
        for row in chain(then(users), here(users)):
            if row[0] not in known:
                known.add(row[0])
                yield str(row[name])

    return nsmallest(MAX_NAMED + 1, lacking())


def default_settings_in_words(names: Sequence[str]) -> list[str]:
    """Return what a preview and a result say of users who get the default settings; [] if there are none."""
    if not names:
        return []
    text = ngettext(
        "The user %(users)s gets the default settings.",
        "These users get the default settings: %(users)s.",
        len(names),
    )
    return [text % {"users": _listed(sorted(names))}]


def _listed(names: Sequence[str]) -> str:
    more = ["…"] if len(names) > MAX_NAMED else []
    return ", ".join([*names[:MAX_NAMED], *more])


def _place(table: Table, field: str) -> int:
    return 1 + table.names.index(field)


def _rows_here(database: Database, table: Table) -> Iterator[Row]:
    for batch in database.batches(table):
        yield from zip(*batch, strict=True)


def _rows_then(plan: Plan, table: Table) -> Iterator[list[Row]]:
    for rows in plan.rows(table):
        yield plan.key_map.remap(table, rows)

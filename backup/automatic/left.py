"""Finds out how many records of a backup another one still has: the same records, not as many."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.utils.translation import gettext as _

from .. import babybuddy
from ..archive import Archive
from ..exceptions import StorageFailed
from ..tables import Table

#: Memory of a temporary database, in KiB. It is enough for a million records; more of them go to a temporary file.
_MEMORY = 32 * 1024


@dataclass(frozen=True)
class Gone:
    """What is gone rightly: the records that one backup has and a later one does not. Both are open."""

    before: Archive
    after: Archive


def records_left(label: str, before: Archive, now: Archive, gone: Sequence[Gone] = ()) -> tuple[int, int]:
    """Return how many records of a model a backup has, and how many of them another one still has, or are gone rightly.
    Raises `InvalidBackup`, `StorageFailed`.

    An entry is the same if it is of the same child and the same moment, whatever its key: a key may be given to another
    entry later, and an entry gets another key if it is restored beside others.
    """
    then = before.metadata.models[label].records
    gone = [pair for pair in gone if label in pair.before.metadata.models]
    same = [_same_children(before, archive) for archive in (now, *(pair.before for pair in gone))]
    if label == babybuddy.CHILD:
        left = {*same[0]}
        for children, pair in zip(same[1:], gone, strict=True):
            still = _same_children(pair.before, pair.after)
            left |= {key for key, other in children.items() if other not in still}
        return then, len(left)
    names = _told_apart_by(label)
    left_ones = 0
    with ExitStack() as stack, _room_explained():
        bags = [stack.enter_context(closing(_Bag())) for _same in same]
        bags[0].put(_identity(record, names) for record in _records(label, now))
        for bag, pair in zip(bags[1:], gone, strict=True):
            bag.put(_gone(label, pair, names))
        for record in _records(label, before):
            pairs = zip(same, bags, strict=True)
            left_ones += any(bag.take(_identity(record, names, children)) for children, bag in pairs)
    return then, left_ones


def photos_left(before: Archive, now: Archive, gone: Sequence[Gone] = ()) -> tuple[int, int]:
    """Do as `records_left` does for photos, which may have other names now."""
    left = {*_photos(now)}
    for pair in gone:
        left |= {*_photos(pair.before)} - {*_photos(pair.after)}
    return len(before.metadata.photos), sum(photo in left for photo in _photos(before))


def _photos(archive: Archive) -> Iterator[str]:
    return (photo.sha256 for photo in archive.metadata.photos.values())


def _gone(label: str, pair: Gone, names: Sequence[str]) -> Iterator[object]:
    """Yield the identities of the records that are gone rightly."""
    same = _same_children(pair.before, pair.after)
    with closing(_Bag()) as still:
        still.put(_identity(record, names) for record in _records(label, pair.after))
        for record in _records(label, pair.before):
            if not still.take(_identity(record, names, same)):
                yield _identity(record, names)


@contextmanager
def _room_explained() -> Iterator[None]:
    """Raise `StorageFailed` if a temporary database has no room."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageFailed(
            _("The server cannot store the files that this needs (%(reason)s). Nothing was changed.")
            % {"reason": error}
        ) from error


class _Bag:
    """Hashable things, each as often as it was put in. They are in a temporary database, so that ten millions of them
    take no more memory than one."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute(f"PRAGMA cache_size = -{_MEMORY}")
        self._database.execute("BEGIN")  # nothing is ever committed
        self._database.execute("CREATE TABLE bag (thing INTEGER PRIMARY KEY, number INTEGER)")

    def put(self, things: Iterable[object]) -> None:
        sql = "INSERT INTO bag VALUES (?, 1) ON CONFLICT (thing) DO UPDATE SET number = number + 1"
        self._database.executemany(sql, ((hash(thing),) for thing in things))

    def take(self, thing: object) -> bool:
        """Take one out. Returns False if there is none."""
        sql = "UPDATE bag SET number = number - 1 WHERE thing = ? AND number > 0"
        return self._database.execute(sql, [hash(thing)]).rowcount == 1

    def close(self) -> None:
        self._database.close()


def _records(label: str, archive: Archive) -> Iterator[Mapping[str, Any]]:
    for batch in archive.records(label) if label in archive.metadata.models else ():
        yield from batch


def _same_children(before: Archive, other: Archive) -> dict[object, object]:
    """Return key of a child -> its key in another backup, of those that are there. A new child does not make up for one
    that is gone, even if it has the same key, nor does one child for two."""
    if not all(babybuddy.CHILD in archive.metadata.models for archive in (before, other)):
        return {}
    then, there = _children(before), _children(other)
    alike: dict[object, list[object]] = {}
    for key in there:
        alike.setdefault(babybuddy.looks(there[key]), []).append(key)
    same: dict[object, object] = {}
    taken: set[object] = set()

    def take(key: object, others: Iterable[object]) -> None:
        other = next((other for other in others if other not in taken), None)
        if key not in same and other is not None:
            same[key] = other
            taken.add(other)

    for key, child in then.items():  # the very same first
        take(key, [key] if key in alike.get(babybuddy.looks(child), ()) else ())
    for key, child in then.items():  # then those that got another key, which twins may have exchanged
        take(key, alike.get(babybuddy.looks(child), ()))
    for key, child in then.items():  # then those that were renamed, or whose birth date was corrected
        take(key, [key] if key in there and babybuddy.may_be_same_child(child, there[key]) else ())
    return same


def _children(archive: Archive) -> dict[object, Mapping[str, Any]]:
    return {record["pk"]: record["fields"] for record in _records(babybuddy.CHILD, archive)}


def _told_apart_by(label: str) -> Sequence[str]:
    """Return the fields by which records of a model are told apart; () if only by their keys."""
    try:
        sets = babybuddy.apart_by(Table(apps.get_model(label)))
    except LookupError:  # the backups are of an app that is not installed any more
        return ()
    return sets[0] if len(sets) == 1 else ()


def _identity(
    record: Mapping[str, Any], names: Sequence[str], same: Mapping[object, object] | None = None
) -> object:
    """Return what tells a record from others. `names`: of fields; where it lacks one of them, its key tells it.

    `same`: see `_same_children`; None if the record is of the other backup. The entries of a child that is not there
    are looked for by its key: it may be the same child under another name, and that a child is gone is told anyway.
    """
    fields = record["fields"]
    if not names or any(name not in fields for name in names):
        return ("pk", repr(record["pk"]))
    values = {name: fields[name] for name in names}
    if same is not None and "child" in values:
        values["child"] = same.get(values["child"], values["child"])
    return tuple(map(repr, values.values()))

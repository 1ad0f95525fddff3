"""Finds out how many records of a backup another one still has: the same records, not as many."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any

from django.apps import apps

from .. import babybuddy
from ..archive import Archive
from ..tables import Table


def records_left(label: str, before: Archive, *others: Archive) -> tuple[int, int]:
    """Return how many records of a model a backup has, and how many of them at least one of the others still has.
    Raises `InvalidBackup`.

    An entry is the same if it is of the same child and the same moment, whatever its key: a key may be given to another
    entry later, and an entry gets another key if it is restored beside others.
    """
    then = before.metadata.models[label].records
    others = tuple(other for other in others if label in other.metadata.models)
    same = [_same_children(before, other) for other in others]
    if label == babybuddy.CHILD:
        return then, len({key for children in same for key in children})
    names = _told_apart_by(label)
    left = 0
    with ExitStack() as stack:
        there = [
            stack.enter_context(closing(_Bag(_identity(record, names) for record in _records(label, other))))
            for other in others
        ]
        for record in _records(label, before):
            pairs = zip(same, there, strict=True)
            left += any(bag.take(_identity(record, names, children)) for children, bag in pairs)
    return then, left


class _Bag:
    """Hashable things, each as often as it was put in. They are in a temporary database, so that a million of them take
    no more memory than a thousand."""

    def __init__(self, things: Iterable[object]) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("BEGIN")  # nothing is ever committed
        self._database.execute("CREATE TABLE bag (thing INTEGER PRIMARY KEY, number INTEGER)")
        sql = "INSERT INTO bag VALUES (?, 1) ON CONFLICT (thing) DO UPDATE SET number = number + 1"
        self._database.executemany(sql, ((hash(thing),) for thing in things))

    def take(self, thing: object) -> bool:
        """Take one out. Returns False if there is none."""
        sql = "UPDATE bag SET number = number - 1 WHERE thing = ? AND number > 0"
        return self._database.execute(sql, [hash(thing)]).rowcount == 1

    def close(self) -> None:
        self._database.close()


def photos_left(before: Archive, *others: Archive) -> tuple[int, int]:
    """Do as `records_left` does for photos, which may have other names now."""
    there = {photo.sha256 for other in others for photo in other.metadata.photos.values()}
    photos = before.metadata.photos.values()
    return len(photos), sum(photo.sha256 in there for photo in photos)


def _records(label: str, archive: Archive) -> Iterator[Mapping[str, Any]]:
    for batch in archive.records(label):
        yield from batch


def _same_children(before: Archive, other: Archive) -> dict[object, object]:
    """Return key of a child -> its key in another backup, of those that are there. A new child does not make up for one
    that is gone, even if it has the same key."""
    if not all(babybuddy.CHILD in archive.metadata.models for archive in (before, other)):
        return {}
    there = [(record["pk"], record["fields"]) for record in _records(babybuddy.CHILD, other)]
    same: dict[object, object] = {}
    for record in _records(babybuddy.CHILD, before):
        key, child = record["pk"], record["fields"]
        matches = [
            other_key
            for other_key, other_child in there
            if babybuddy.is_same_child(child, other_child, has_same_key=key == other_key)
        ]
        if matches:
            same[key] = key if key in matches else matches[0]
    return same


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

"""Finds out how many records of a backup another one still has: the same records, not as many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from .. import babybuddy
from ..archive import Archive
from ..site import tables_here


def records_left(label: str, before: Archive, now: Archive) -> tuple[int, int]:
    """Return how many records of a model a backup has, and how many of them a newer one still has. 0 is left if the
    newer one leaves out the model. Raises `InvalidBackup`.

    An entry is the same if it is of the same child and the same moment, whatever its key: a key may be given to another
    entry later, and an entry gets another key if it is restored beside others.
    """
    then = before.metadata.models[label].records
    if label not in now.metadata.models:
        return then, 0
    names = _told_apart_by(label)
    same = _same_children(before, now)
    if label == babybuddy.CHILD:
        return then, len(same)
    here: Counter[object] = Counter()
    for record in _records(label, now):
        here[_identity(record, names)] += 1
    left = 0
    for record in _records(label, before):
        identity = _identity(record, names, same)
        if here[identity] > 0:
            here[identity] -= 1
            left += 1
    return then, left


def photos_left(before: Archive, now: Archive) -> tuple[int, int]:
    """Return how many photos a backup has, and how many of them a newer one still has, maybe under other names."""
    here = {photo.sha256 for photo in now.metadata.photos.values()}
    there = before.metadata.photos.values()
    return len(there), sum(photo.sha256 in here for photo in there)


def _records(label: str, archive: Archive) -> Iterator[Mapping[str, Any]]:
    for batch in archive.records(label):
        yield from batch


def _same_children(before: Archive, now: Archive) -> dict[object, object]:
    """Return key of a child -> its key in a newer backup, of those that are still there. A new child does not make up
    for one that is gone, even if it has the same key."""
    if babybuddy.CHILD not in before.metadata.models or babybuddy.CHILD not in now.metadata.models:
        return {}
    here = [(record["pk"], record["fields"]) for record in _records(babybuddy.CHILD, now)]
    same: dict[object, object] = {}
    for record in _records(babybuddy.CHILD, before):
        key, child = record["pk"], record["fields"]
        matches = [
            other_key
            for other_key, other in here
            if babybuddy.is_same_child(child, other, has_same_key=key == other_key)
        ]
        if matches:
            same[key] = key if key in matches else matches[0]
    return same


def _told_apart_by(label: str) -> list[str]:
    """Return the fields by which records of a model are told apart; [] if only by their keys."""
    for table in tables_here():
        if table.label == label and len(sets := babybuddy.apart_by(table)) == 1:
            return [*sets[0]]
    return []


def _identity(
    record: Mapping[str, Any], names: list[str], same: Mapping[object, object] | None = None
) -> object:
    """Return what tells a record from others. `names`: of fields; where it lacks one of them, its key tells it.

    `same`: see `_same_children`; by default, the record is of the newer backup.
    """
    fields = record["fields"]
    if not names or any(name not in fields for name in names):
        return ("pk", repr(record["pk"]))
    values = {name: fields[name] for name in names}
    if same is not None and "child" in values:
        values["child"] = same.get(values["child"], ())  # of a child that is gone: equal to none
    return tuple(map(repr, values.values()))

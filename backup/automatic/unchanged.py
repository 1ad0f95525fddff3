"""Tells whether two backups hold the same data, apart from what changes by mere use, such as the last sign-in."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from .. import babybuddy
from ..archive import Archive
from ..tables import are_same


def is_unchanged(before: Archive, now: Archive) -> bool:
    """Tell whether two backups hold the same data. A field of `babybuddy.uses`, such as the last sign-in, may differ.

    Raises `InvalidBackup` if the first one is damaged: all of it is read, since it is kept instead of the second.
    """
    then, today = before.metadata, now.metadata
    if then.migrations != today.migrations or then.members.keys() != today.members.keys():
        return False
    if then.left_out != today.left_out:  # a value may have been corrected to the one that stood in for it
        return False
    for kind, members in then.members.items():
        if members.keys() != today.members[kind].keys():
            return False
    for label, member in then.models.items():
        same = member.sha256 == today.models[label].sha256
        used = babybuddy.uses().get(label)
        if not same and (used is None or not _same_but(used, before, now, label)):
            return False
    if any(photo.sha256 != today.photos[name].sha256 for name, photo in then.photos.items()):
        return False
    for label in then.models:
        for _lines in before.lines(label):
            pass
    return True


def _same_but(field: str, before: Archive, now: Archive, label: str) -> bool:
    """Tell whether the records of a model are the same, apart from this field."""
    pairs = zip_longest(_without(field, before, label), _without(field, now, label))
    return all(are_same(one, other) for one, other in pairs)


def _without(field: str, archive: Archive, label: str) -> Iterator[Any]:
    for batch in archive.records(label):
        for record in batch:
            yield {**record, "fields": {**record["fields"], field: None}}

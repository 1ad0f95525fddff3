"""What a backup says of rows that refer to nothing."""

import tracemalloc

from core import models as core

from backup import dump
from backup.dump import References
from backup.options import Places
from backup.tables import Table, place_of
from tests.zoo import models as zoo

CHILD, NOTE, SPECIES, ENCLOSURE, KEEPER = map(
    Table, (core.Child, core.Note, zoo.Species, zoo.Enclosure, zoo.Keeper)
)


def batch(table, **columns):
    """Rows of which only these columns hold anything."""
    count = len(next(iter(columns.values())))
    return [columns.get(name, [None] * count) for name in ("pk", *table.names)]


def named(references):
    return [(place.model, place.pk, place.field) for place in references.dangling().named]


def test_rows_that_refer_to_nothing_are_named():
    references = References([CHILD, NOTE])
    references.see(CHILD, batch(CHILD, pk=[1, 2]))
    references.see(NOTE, batch(NOTE, pk=[1, 2, 3], child=[1, 3, None]))
    references.see(NOTE, batch(NOTE, pk=[4], child=[3]))
    assert named(references) == [("core.note", 2, "child"), ("core.note", 4, "child")]


def test_what_comes_later_is_there():
    """Of a tree, and of a circle of models."""
    references = References([SPECIES, ENCLOSURE, KEEPER])
    references.see(SPECIES, batch(SPECIES, pk=["a", "b"], parent=["c", "d"]))
    references.see(SPECIES, batch(SPECIES, pk=["c"], parent=["x"]))
    references.see(SPECIES, batch(SPECIES, pk=["d"], parent=["a"]))
    references.see(ENCLOSURE, batch(ENCLOSURE, pk=[1, 2], head=[7, 8]))
    relations = {"animals": [[]], "enclosure": [1], "pk": [8]}
    references.see(KEEPER, batch(KEEPER, **relations))
    assert named(references) == [("zoo.species", "c", "parent"), ("zoo.enclosure", 1, "head")]


def test_many_take_no_more_memory_than_some(monkeypatch):
    """Nor are there words for more of them than are named."""
    worded = []
    monkeypatch.setattr(dump, "place_of", lambda *parts: worded.append(1) or place_of(*parts))
    references = References([CHILD, NOTE, SPECIES])
    tracemalloc.start()
    try:
        for start in range(0, 50_000, 1000):
            keys = range(start, start + 1000)
            references.see(NOTE, batch(NOTE, pk=keys, child=[9_000_000 + key for key in keys]))
            references.see(SPECIES, batch(SPECIES, pk=[], parent=[]))
        _size, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert references.dangling().total == 50_000
    assert len(worded) == Places.MOST
    assert len(references.dangling().named) == Places.MOST
    assert peak < 1024**2


def test_many_that_refer_to_one_that_may_come_take_no_more_memory_than_some():
    references = References([SPECIES])
    tracemalloc.start()
    try:
        for _number in range(300):
            references.see(SPECIES, batch(SPECIES, pk=["a"] * 100, parent=["b"] * 100))
        _size, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert references.dangling().total == 30_000
    assert peak < 1024**2

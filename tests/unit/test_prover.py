"""Compares a backup with what was restored from it in a child process, whose database is SQLite."""

import tempfile

import pytest

from backup import services
from backup.proof import Verdict
from tests.support.backups import records_of, rewritten, take
from tests.zoo.filling import fill_unlike_orders


@pytest.fixture
def unlike_orders(family, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    fill_unlike_orders()


def test_keys_that_this_database_sorts_in_an_order_of_its_own(unlike_orders):
    file = take()
    found = services.prove_backup(file)
    assert (found.verdict, found.reason) == (Verdict.PROVED, "")
    assert found.records == sum(map(len, records_of(file).values()))


@pytest.mark.parametrize("label", ["core.child", "zoo.species"])
def test_records_in_any_order(unlike_orders, label):
    def turn(records):
        records[label].reverse()

    found = services.prove_backup(rewritten(take(), turn), edited=True)
    assert (found.verdict, found.reason) == (Verdict.PROVED, "")

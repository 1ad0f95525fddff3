"""Under which migrations a backup was made, and whether it fits here."""

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from backup.database import database_of
from backup.exceptions import RestoreRefused
from backup.upgrade import schema
from tests.support.backups import inspect, metadata_of, restore, rewritten, take
from tests.support.filling import fill
from tests.support.snapshots import differences, snapshot


@pytest.fixture
def file(host_db):
    fill(days=1, children=1, odd=False)
    return take()


def with_migrations(file, **migrations):
    return rewritten(file, change_metadata=lambda metadata: metadata["migrations"].update(migrations))


def refused_both_ways(file):
    before = snapshot()
    with pytest.raises(RestoreRefused) as caught:
        restore(file, clear=True)
    assert not differences(before, snapshot())
    with pytest.raises(RestoreRefused):
        inspect(file, clear=False)
    return caught.value


def test_leaves(host_db):
    leaves = schema.leaf_migrations(
        schema.load_history(database_of()), ["core", "auth", "core", "no_such_app"]
    )
    graph = MigrationLoader(connection).graph
    assert leaves == {
        "auth": [name for _, name in graph.leaf_nodes("auth")],
        "core": [name for _, name in graph.leaf_nodes("core")],
        "no_such_app": [],
    }


def test_every_app_in_scope_is_named(file):
    said = metadata_of(file)
    assert said["migrations"].keys() == {label.split(".")[0] for label in said["models"]}
    assert all(said["migrations"].values())


def test_todays_schema_is_fine(file):
    before = snapshot()
    restore(with_migrations(file), clear=True)
    assert not differences(before, snapshot())


@pytest.mark.parametrize("names", [["0999_later"], ["0036_medication", "0037_of_a_fork"], ["x"]])
def test_unknown_migrations_are_named(file, names):
    error = refused_both_ways(with_migrations(file, core=names))
    unknown = [f"core.{name}" for name in names if name != "0036_medication"]
    assert error.details == unknown
    assert "2.10.0" in error.message


def test_unknown_migrations_of_several_apps(file):
    error = refused_both_ways(with_migrations(file, core=["0999_later"], auth=["0998_later"]))
    assert error.details == ["auth.0998_later", "core.0999_later"]


def test_apps_that_are_not_here_say_nothing(file):
    before = snapshot()
    restore(with_migrations(file, elsewhere=["0001_initial"]), clear=True)
    assert not differences(before, snapshot())

"""Tables that are made at once are those that the migrations make one by one."""

import json
import subprocess
import sys

import pytest

from tests.support import older
from tests.support.backups import metadata_of
from tests.support.matrices import again

#: Builds the database of some migrations in a child's scratch folder, and describes its tables and who made them.
BUILD = """
import json
import sys
from pathlib import Path

from backup.upgrade import child

class Reporter(child.ParentReporter):
    def __init__(self):
        super().__init__(sys.stderr)
        self.ran = []

    def on_migration(self, action, migration=None, fake=False):
        if action == "apply_success":
            self.ran.append(f"{migration.app_label}.{migration.name}")

migrations, folder, one_by_one = json.loads(sys.stdin.readline())
child.set_up(Path(folder), {})

from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from backup.upgrade.building import build_schema

reporter = Reporter()
build_schema(migrations, [], reporter, one_by_one=one_by_one)
tables = {}
with connection.cursor() as cursor:
    for name in connection.introspection.table_names(cursor):
        constraints = connection.introspection.get_constraints(cursor, name).items()
        cursor.execute(f'PRAGMA table_xinfo("{name}")')
        columns = sorted(row[1:] for row in cursor.fetchall())
        (sql,) = cursor.execute("SELECT sql FROM sqlite_master WHERE name = %s", [name]).fetchone()
        tables[name] = {
            "columns": columns,
            "constraints": sorted(repr((name, sorted(details.items(), key=str))) for name, details in constraints),
            "is_numbered": "AUTOINCREMENT" in sql,
        }
applied = sorted(".".join(key) for key in MigrationRecorder(connection).applied_migrations())
print(json.dumps({"ran": reporter.ran, "applied": applied, "tables": tables}), flush=True)
"""


def build(folder, migrations, one_by_one):
    folder = folder / str(one_by_one)
    folder.mkdir()
    order = json.dumps([migrations, str(folder), one_by_one])
    done = subprocess.run(
        [sys.executable, "-c", BUILD], input=order, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "version", ["1.12", *(again(name) for name in older.VERSIONS if name not in ("1.12", "1.9.1"))]
)
def test_all_at_once_and_one_by_one(host_db, tmp_path, version):
    migrations = metadata_of(older.old(version) / "backup.zip")["migrations"]
    built = {one_by_one: build(tmp_path, migrations, one_by_one) for one_by_one in (False, True)}
    assert built[False].pop("ran") == []
    assert "core.0001_initial" in built[True].pop("ran")
    assert built[False] == built[True]


def test_an_app_that_is_ahead_of_another(host_db, tmp_path, monkeypatch):
    """It needs newer migrations of that than the backup names."""
    monkeypatch.setenv("BACKUP_TEST_TROUBLE", "none")
    migrations = metadata_of(older.old("2.6.0") / "backup.zip")["migrations"] | {"trouble": ["0001_initial"]}
    built = {one_by_one: build(tmp_path, migrations, one_by_one) for one_by_one in (False, True)}
    assert built[False].pop("ran") == []
    assert "trouble.0001_initial" in built[True].pop("ran")
    assert built[False] == built[True]

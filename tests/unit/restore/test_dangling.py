"""References that are dangling here already, which a restore of the site's own backup does not refuse."""

import datetime as dt

import pytest
from django.db import connection

from backup import services
from backup.options import RestoreMode, RestoreOptions
from tests.scenarios.test_pointless import unchecked
from tests.support.backups import take
from tests.zoo import models as zoo

#: PostgreSQL takes no such rows.
MODES = [RestoreMode.OVERWRITE, *([RestoreMode.CLEAR] if connection.vendor != "postgresql" else [])]
#: Only SQLite takes a text that is longer than it may be, of which messages show the beginning.
LONG = "nowhere" * (60 if connection.vendor == "sqlite" else 7)


@pytest.mark.parametrize("mode", MODES)
def test_what_was_dangling_here_is_not_new(filled, mode):
    """Though drivers return values in another form than a file has, of the row's key or of what it refers to."""
    duration = zoo.Lap._meta.pk.get_db_prep_value(dt.timedelta(seconds=12.345678), connection)
    with unchecked() as cursor:
        for table, column, value in (
            ("zoo_tide_species", "species_id", LONG),
            ("zoo_lap_tides", "tide_id", "1999-01-02 03:04:05"),
            ("zoo_coin_laps", "lap_id", duration),
        ):
            cursor.execute(f"SELECT MIN(id) FROM {table}")
            cursor.execute(f"UPDATE {table} SET {column} = %s WHERE id = %s", [value, *cursor.fetchone()])
    file = take()
    options = RestoreOptions(mode)
    assert services.inspect_backup(file, options).refusal is None
    file.seek(0)
    warnings = services.restore_backup(file, options).warnings
    (line,) = [line for line in warnings if "were here before" in line]
    assert all(f"zoo.{model} " in line for model in ("tide", "lap", "coin"))

"""PostgreSQL's arrays, whose values Django's own field converts: the same after a restore, whatever is in them."""

import datetime as dt
import json
from decimal import Decimal

import pytest
from django.db import connection, models
from django.test.utils import isolate_apps

from backup.archive import lines_of
from backup.database import database_of
from backup.options import Places
from backup.tables import Table

pytestmark = pytest.mark.skipif(connection.vendor != "postgresql", reason="the others have no arrays")
NEW_YEAR = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)


@pytest.fixture
def table(host_db):
    from django.contrib.postgres.fields import ArrayField

    with isolate_apps("tests.zoo"):

        class Arrays(models.Model):
            binary = ArrayField(models.BinaryField(), null=True)
            numbers = ArrayField(models.DecimalField(max_digits=20, decimal_places=5), null=True)
            moments = ArrayField(ArrayField(models.DateTimeField()), null=True)

            class Meta:
                app_label = "zoo"

        with connection.schema_editor() as editor:
            editor.create_model(Arrays)
        numbers = [Decimal("123456789012345.12345"), None]
        Arrays.objects.create(binary=[b"\0\xff", b""], numbers=numbers, moments=[[NEW_YEAR, NEW_YEAR]])
        Arrays.objects.create(binary=[])
        try:
            yield Table(Arrays)
        finally:
            with connection.schema_editor() as editor:
                editor.delete_model(Arrays)


@pytest.mark.parametrize("is_packed", [True, False])
def test_arrays_come_back_as_they_were(table, is_packed):
    database = database_of()

    def stored():
        names = ", ".join(f'"{name}"::text' for name in table.names)
        return database.fetch(f"SELECT {names} FROM {table.db_table} ORDER BY id")

    before = stored()
    (columns,) = database.batches(table)
    batch = table.batch_from(json.loads(b"[" + lines_of(table.record_template, columns) + b"]"))
    with database.restoring([table]):
        database.clear([table])
        if is_packed:
            database.insert_packed(table, [(database.pack(table, batch), lambda: batch)])
        else:
            database.insert(table, list(zip(*batch, strict=True)))
        assert not database.refused
    assert stored() == before


def test_what_nobody_could_restore_is_named(table):
    """The field does not take it: a backup with it would be refused, also one that undoes a restore."""
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table.db_table} (numbers) VALUES ('{{NaN}}')")
    database = database_of()
    database.unreadable = Places()
    (columns,) = database.batches(table)
    (place,) = database.unreadable.named
    assert (place.pk, place.field) == (3, "numbers")
    assert columns[1 + table.names.index("numbers")][2] is None

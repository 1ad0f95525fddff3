"""Values that a database cannot hold, or cannot even be asked for, in what tells which row a record is.

Each engine has its own; a record with one is refused by name, or comes as it is. Nothing else may happen.
"""

from datetime import timedelta

import pytest
from core.models import HeightPercentile, WeightPercentile
from django.contrib.contenttypes.models import ContentType
from django.db import connection

from backup import services
from backup.exceptions import BackupError
from backup.options import RestoreMode, RestoreOptions
from tests.support.backups import inspect, records_of, restore, rewritten, take
from tests.support.filling import fill
from tests.support.snapshots import differences, snapshot
from tests.zoo.models import Kind, KindNote, Tide

LONGEST = "999999999 00:00:00"
#: (label, field; "pk" is the key) -> values.
ODD = {
    ("core.tag", "name"): ["nul \0", "\x01", "x" * 10_000, "\ufeff", "\U0010ffff"],
    ("core.child", "slug"): ["nul\0", "x" * 10_000],
    # Not a key, but one that PostgreSQL holds, and no backup could be made any more.
    ("core.feeding", "duration"): [LONGEST],
    ("core.heightpercentile", "age_in_days"): [LONGEST, f"-{LONGEST}"],
    ("auth.user", "username"): ["nul\0", "x" * 10_000],
    ("authtoken.token", "pk"): ["nul\0", "x" * 10_000, ""],
    ("core.note", "pk"): [2**63, 2**64 - 1, -(2**63), 2**70, -1],
    ("zoo.species", "pk"): ["nul\0", "x" * 10_000, ""],
    ("zoo.reserved", "pk"): [2**63, 2**64 - 1, -(2**63), 2**70, 0],
    ("zoo.tide", "pk"): ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00+14:00"],
    ("zoo.day", "pk"): ["0001-01-01", "9999-12-31"],
    ("zoo.lap", "pk"): [LONGEST, f"-{LONGEST}"],
    ("zoo.coin", "pk"): ["NaN", "Infinity", "1E+999", "12345678901234567890.12", "1E-9", "0.125", "1E-999"],
    ("zoo.specimen", "pk"): ["ffffffff-ffff-ffff-ffff-ffffffffffff", "4b528c69-908d-e165-4ed0-f39b49eb42ab"],
    ("zoo.sample", "pk"): [2**31, 2**63],
}


def fill_few():
    """A row of everything, and few of what there are thousands of."""
    fill(days=1, children=1)
    for model in (WeightPercentile, HeightPercentile):
        model.objects.filter(age_in_days__gt=timedelta(days=3)).delete()
    keys = [*Tide.objects.order_by("pk").values_list("pk", flat=True)]
    Tide.objects.filter(pk__gt=keys[20], pk__lt=keys[-20]).delete()


@pytest.fixture
def filled(host_db, django_db_setup):
    django_db_setup.filled(fill_few)


@pytest.mark.parametrize(("label", "field"), ODD, ids=lambda part: part)
def test_it_is_refused_by_name_or_comes_as_it_is(filled, label, field):
    file, before = take(), snapshot()
    if not records_of(file)[label]:
        pytest.skip("there is none")
    for value in ODD[label, field]:

        def change(records, value=value):
            record = records[label][-1]
            if field == "pk":
                record["pk"] = value
            else:
                record["fields"][field] = value

        odd = rewritten(file, change)
        for clear in (False, True):
            try:
                inspect(odd, clear=clear)
                restore(odd, clear=clear)
            except BackupError as error:
                told = " ".join([error.message, *error.details])
                # A token is named by its user, since its key is secret.
                assert label in told or (label == "authtoken.token" and "token of" in told), told
                assert not differences(before, snapshot()), (value, clear)
            else:
                if field == "pk" and isinstance(value, str) and label == "zoo.coin":
                    assert value in {record["pk"] for record in records_of(take())[label]}
                restore(file, clear=True)
                assert not differences(before, snapshot()), (value, clear)


@pytest.mark.parametrize("is_deleted", [True, False])
@pytest.mark.parametrize("mode", RestoreMode)
def test_a_key_that_each_database_numbers_by_itself(filled, mode, is_deleted):
    """A content type or a permission, directly, through another model, or as a parent; what it is called here is what
    decides. One of an app that is not installed is made."""
    types = {kind.pk: kind.type for kind in Kind.objects.select_related("type")}
    stranger = ContentType.objects.create(app_label="gone", model="stranger")
    Kind.objects.create(type=stranger, text="of a stranger")
    before, by_name = snapshot(), {kind.type.model: kind.text for kind in Kind.objects.all()}
    names = {
        note.kind.type.model: (note.about.type.model, note.text) for note in KindNote.objects.select_related()
    }
    likes = {(kind.type.model, like.type.model) for kind in Kind.objects.all() for like in kind.like.all()}
    file = take()
    pks = {record["pk"][-1] for record in records_of(file)["zoo.kind"]}
    assert pks == {kind.model for kind in [*types.values(), stranger]}

    if is_deleted:
        KindNote.objects.all().delete()
        Kind.objects.all().delete()
        stranger.delete()  # it gets another number
    else:
        Kind.objects.update(text="changed")
        KindNote.objects.filter(text="of a chain").update(text="changed")
    after = snapshot()
    services.inspect_backup(file, RestoreOptions(mode))
    assert not differences(after, snapshot())
    services.restore_backup(file, RestoreOptions(mode))
    assert {kind.type.model: kind.text for kind in Kind.objects.all()} == by_name
    assert {
        note.kind.type.model: (note.about.type.model, note.text) for note in KindNote.objects.select_related()
    } == names
    assert likes == {
        (kind.type.model, like.type.model) for kind in Kind.objects.all() for like in kind.like.all()
    }
    if not is_deleted:
        assert not differences(before, snapshot())
    services.undo_restore()
    assert not differences(after, snapshot())


@pytest.mark.skipif(connection.vendor != "sqlite", reason="the others have types")
@pytest.mark.parametrize("mode", RestoreMode)
def test_a_key_in_another_form_than_django_writes(filled, mode):
    """It is found nevertheless, and what refers to it finds it."""
    before = snapshot()
    with connection.constraint_checks_disabled(), connection.cursor() as cursor:
        hyphens = "substr(id, 1, 8) || '-' || substr(id, 9, 4) || '-' || substr(id, 13)"
        cursor.execute(f"UPDATE zoo_specimen SET id = {hyphens} WHERE substr(id, 32) > '4'")
        for name, column in {
            "zoo_tide": "at",
            "zoo_tide_species": "tide_id",
            "zoo_lap_tides": "tide_id",
        }.items():
            cursor.execute(f"UPDATE {name} SET {column} = replace({column}, ' ', 'T') || 'Z'")
    assert not differences(before, snapshot())
    file = take()
    Tide.objects.update(height=0)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE zoo_specimen SET char = 'changed'")
        cursor.execute("DELETE FROM zoo_tide_species")
    changed = snapshot()
    services.restore_backup(file, RestoreOptions(mode))
    assert not differences(before, snapshot())
    services.undo_restore()
    assert not differences(changed, snapshot())

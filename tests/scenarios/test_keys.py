"""The keys that databases give by themselves: after clearing or an undo the next one is what it was before."""

from contextlib import closing

import pytest
from babybuddy.models import Settings
from core import models as core
from django.apps import apps
from django.contrib.auth.models import User
from django.db import DatabaseError, connection
from django.utils import timezone

from backup import services
from backup.database import database_of
from backup.exceptions import Busy, InvalidBackup, InvalidRecord, RecordsRefused, RestoreRefused
from backup.options import Part, RestoreMode, RestoreOptions
from backup.proof import Verdict
from backup.safety_copy import SafetyCopy
from backup.scope import models_in_scope
from backup.tables import HIGHEST, Table
from tests.support.backups import refused, restore, rewritten, take
from tests.support.snapshots import differences, snapshot

NOTE = Table(core.Note)


def enter(**fields):
    note = core.Note(child=core.Child.objects.first(), note="n", time=timezone.now(), **fields)
    note.save(force_insert=True)
    return note.pk


def next_keys():
    return {
        table.label: key for table, key in database_of().next_keys([*map(Table, models_in_scope())]).items()
    }


def with_key(key):
    """A change of a backup: one more note under that key."""

    def change(records):
        records["core.note"].append({**records["core.note"][-1], "pk": key})

    return change


def without_next_keys(metadata):
    metadata.pop("next_keys", None)


def test_the_next_key_is_the_one_that_the_next_row_gets(family):
    expected = next_keys()["core.note"]
    assert enter() == expected
    core.Note.objects.filter(pk=enter()).delete()
    assert next_keys()["core.note"] == expected + 2


@pytest.mark.parametrize("last_is_deleted", [False, True])
def test_after_clearing_the_next_key_is_what_it_was_when_the_backup_was_made(family, last_is_deleted):
    before = enter()
    if last_is_deleted:
        core.Note.objects.filter(pk=before).delete()
    file, keys = take(), next_keys()
    assert [enter() for _ in range(3)] == [before + 1, before + 2, before + 3]
    core.Tag.objects.create(name="one more")
    restore(file, clear=True)
    assert next_keys() == keys
    assert enter() == before + 1


def test_of_a_file_that_does_not_say_it_is_the_one_after_the_highest(family):
    before = enter()
    file = rewritten(take(), change_metadata=without_next_keys)
    enter(), enter()
    restore(file, clear=True)
    assert enter() == before + 1


def test_no_key_of_a_record_that_is_left_out_is_given_again(family):
    """What hung on it, its tags say, would belong to the next one."""
    last = enter()

    def lose_its_child(records):
        records["core.note"][-1]["fields"]["child"] = 987654

    file = rewritten(take(), lose_its_child)
    services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR, leave_out=True))
    assert not core.Note.objects.filter(pk=last).exists()
    assert enter() == last + 1


def test_nor_that_of_a_record_of_somebody_who_is_not_here(family):
    gone = User.objects.create_user("gone")
    last = core.Timer.objects.create(user=gone).pk
    file = take()
    gone.delete()
    services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR, (Part.ENTRIES,)))
    assert not core.Timer.objects.filter(pk=last).exists()
    assert core.Timer.objects.create(user=User.objects.first()).pk == last + 1


@pytest.mark.parametrize("clear", [True, False])
def test_undo_cures_a_high_key(family, clear):
    keys = next_keys()
    file = rewritten(take(), with_key(2_000_000_000), without_next_keys)
    restore(file, clear=clear)
    assert enter() == 2_000_000_001
    services.undo_restore()
    core.Note.objects.filter(pk__gt=2_000_000_000).delete()
    assert next_keys() == keys
    assert enter() == keys["core.note"]


def test_undo_of_a_state_with_other_keys_only(family):
    """The rows are those of a safety copy that is kept already; the next key is another."""
    file = take()
    restore(file, clear=True)
    core.Note.objects.filter(pk=enter()).delete()
    keys = next_keys()
    restore(rewritten(file, with_key(2_000_000_000)), clear=True)
    services.undo_restore()
    assert next_keys() == keys


def test_a_restore_that_fails_leaves_keys_that_are_free(family):
    keys = next_keys()

    def break_it(records):
        records["core.note"][0]["fields"]["child"] = 987654
        records["core.note"] = records["core.note"][:1]

    refused(rewritten(take(), break_it, without_next_keys), RecordsRefused, clear=True)
    assert enter() >= keys["core.note"]


@pytest.mark.parametrize("clear", [True, False])
def test_a_restore_that_is_refused_leaves_the_next_keys_as_they_were(family, clear):
    file = take()
    core.Note.objects.filter(pk=enter()).delete()
    keys, before = next_keys(), snapshot()

    def break_it(records):
        with_key(2_000_000_000)(records)
        records["core.note"][0]["fields"]["child"] = 987654

    refused(rewritten(file, break_it, without_next_keys), RecordsRefused, clear=clear)
    assert next_keys() == keys
    assert not differences(before, snapshot())
    restore(rewritten(file, with_key(2_000_000_000), without_next_keys), clear=clear)
    high = next_keys()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SafetyCopy, "make_sure", refuse)
        with pytest.raises(Busy):
            services.undo_restore()
    assert next_keys() == high


def refuse(copy):
    raise Busy("just before the commit")


@pytest.mark.skipif(connection.vendor != "postgresql", reason="the others have no sequences")
@pytest.mark.parametrize("clear", [True, False])
def test_a_restore_that_fails_just_before_the_commit_leaves_the_sequences_as_they_were(
    family, monkeypatch, clear
):
    file = rewritten(take(), with_key(2_140_000_000), without_next_keys)
    core.Note.objects.all().delete()

    def sequences():
        models = [*apps.get_app_config("core").get_models(), User]
        names = [f"{model._meta.db_table}_id_seq" for model in models]
        return {name: database_of().fetch(f"SELECT last_value, is_called FROM {name}") for name in names}

    def end(copy):
        ((number,),) = database_of().fetch("SELECT pg_backend_pid()")
        with closing(connection.copy()) as own, own.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 10000)", [number])

    before = sequences()
    with monkeypatch.context() as patch:
        patch.setattr(SafetyCopy, "make_sure", end)
        with pytest.raises(Busy):
            restore(file, clear=clear)
    assert sequences() == before
    restore(file, clear=clear)
    assert enter() == 2_140_000_001


@pytest.mark.skipif(connection.vendor != "postgresql", reason="the others never give a key that is in use")
@pytest.mark.parametrize("parts", [(*Part,), (Part.ACCOUNTS,)])
@pytest.mark.parametrize("clear", [True, False])
def test_a_counter_that_is_behind_does_not_stop_what_a_restore_adds(family, clear, parts):
    """Other tools fill tables without raising the counters; whoever has no settings gets some under a free key."""
    table = Settings._meta.db_table
    User.objects.create_user("nobody's settings")
    Settings.objects.filter(user__username="nobody's settings").delete()
    file = take()
    User.objects.filter(username="nobody's settings").delete()
    database_of().fetch("SELECT setval(pg_get_serial_sequence(%s, 'id'), 1)", [table])
    keys = next_keys()
    restore(file, clear=clear, parts=parts)
    user = User.objects.get(username="nobody's settings")
    assert user.settings.pk == max(Settings.objects.values_list("pk", flat=True))
    assert next_keys()["babybuddy.settings"] == user.settings.pk + 1
    services.undo_restore()
    assert not User.objects.filter(pk=user.pk).exists()
    assert next_keys() == keys


def test_what_a_file_says_is_not_believed_beyond_measure(family):
    file = take()

    def say(keys):
        return rewritten(file, change_metadata=lambda metadata: metadata.update(next_keys=keys))

    restore(say({"core.note": 2**70 // 2**7, "core.child": 1, "gone.model": 3}), clear=True)
    assert enter() < 2**63 // 1000 * 999 + 10
    assert core.Child.objects.create(first_name="a", last_name="b", birth_date=timezone.now()).pk > 1
    for wrong in ([], {"core.note": "7"}, {"core.note": 0}, {"core.note": True}, {"core.note": 2**64}, None):
        error = refused(say(wrong), InvalidBackup, clear=True)
        assert "next_keys" in error.message


@pytest.mark.skipif(connection.vendor == "mysql", reason="it has no key beyond the last")
def test_undo_of_a_state_in_which_no_row_could_be_added(family):
    file = take()
    table = NOTE.db_table
    if connection.vendor == "sqlite":
        highest = 2**63 - 1
        database_of().execute("UPDATE sqlite_sequence SET seq = %s WHERE name = %s", [highest, table])
    else:
        highest = HIGHEST[core.Note._meta.pk.get_internal_type()]
        database_of().fetch("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", [table, highest])
    keys = next_keys()
    assert keys["core.note"] == highest + 1
    restore(file, clear=False)
    restore(file, clear=True)
    assert enter() < highest
    core.Note.objects.filter(pk=enter()).delete()
    services.undo_restore()
    assert next_keys() == keys
    with pytest.raises(DatabaseError):
        enter()


def test_a_safety_copy_with_the_highest_key_can_be_undone_to(family):
    """Somebody had got it in there, by another way than a restore."""
    file = take()
    highest = HIGHEST[core.Note._meta.pk.get_internal_type()]
    enter(pk=highest)
    before = snapshot()
    restore(file, clear=True)
    services.undo_restore()
    assert not differences(before, snapshot())
    file = take()
    core.Note.objects.filter(pk=highest).delete()
    refused(file, InvalidRecord)


def test_what_a_site_gives_after_the_highest_key_that_all_may_bring_can_be_restored(family):
    """And proved, by superusers; staff can restore it as long as such records are here already."""
    staff = User.objects.create_user("staff", is_staff=True)
    entries = RestoreOptions(RestoreMode.CLEAR, (Part.ENTRIES,))

    def restored(file, user):
        file.seek(0)
        return services.restore_backup(file, entries, user=user)

    restored(rewritten(take(), with_key(NOTE.high_key), without_next_keys), staff)
    assert enter() == NOTE.high_key + 1
    file, before = take(), snapshot()
    assert services.prove_backup(file).verdict is Verdict.PROVED
    core.Note.objects.filter(pk__gte=NOTE.high_key).delete()
    with pytest.raises(InvalidRecord, match=f"core.note {NOTE.high_key + 1}: only a superuser"):
        restored(file, staff)
    result = restored(file, None)
    (warning,) = [line for line in result.warnings if "core.note" in line]
    assert f"core.note {NOTE.high_key + 1}: its key is so high that few are left" in warning
    assert not differences(before, snapshot())
    assert enter() == NOTE.high_key + 2


def test_a_key_with_few_after_it_is_refused(family):
    error = refused(rewritten(take(), with_key(NOTE.highest_usable_key + 1)), InvalidRecord)
    assert "no more entries could be added" in error.message
    usual = next_keys()["core.note"]
    restore(rewritten(take(), with_key(NOTE.highest_usable_key), without_next_keys), clear=False)
    first = usual if connection.vendor == "postgresql" else NOTE.highest_usable_key + 1
    assert [enter() for _ in range(3)] == [first, first + 1, first + 2]


@pytest.mark.skipif(connection.vendor != "mysql", reason="the others put keys back in the transaction itself")
def test_keys_that_cannot_be_put_back_after_the_commit_are_a_warning(family, monkeypatch):
    file, before = take(), snapshot()
    enter(), enter()
    kind = type(database_of())

    def fail(*args):
        raise DatabaseError("no such right")

    monkeypatch.setattr(kind, "set_next_keys", fail)
    result = restore(file, clear=True)
    assert not differences(before, snapshot())
    assert any("no such right" in warning for warning in result.warnings)


postgresql_only = pytest.mark.skipif(
    connection.vendor != "postgresql", reason="the others always continue after the highest key"
)


@pytest.fixture(params=["integer", "bigint"])
def last_key(request, family):
    """The last key that notes can have: their column may be wider than Baby Buddy made it."""
    table, execute = NOTE.db_table, database_of().execute
    if request.param == "bigint":
        execute(f"ALTER TABLE {table} ALTER id TYPE bigint")
        (sequence,) = database_of().fetch("SELECT pg_get_serial_sequence(%s, 'id')", [table])[0]
        execute(f"ALTER SEQUENCE {sequence} AS bigint")
    return 2**63 - 1 if request.param == "bigint" else 2**31 - 1


@pytest.fixture
def serial(family):
    """Older versions of Django made sequences that are no identity."""
    table = NOTE.db_table
    for statement in (
        f"ALTER TABLE {table} ALTER id DROP IDENTITY IF EXISTS",
        "CREATE SEQUENCE notes_seq AS integer",
        f"ALTER TABLE {table} ALTER id SET DEFAULT nextval('notes_seq')",
        f"ALTER SEQUENCE notes_seq OWNED BY {table}.id",
    ):
        database_of().execute(statement)
    database_of().fetch("SELECT setval('notes_seq', %s)", [core.Note.objects.latest("pk").pk])


@postgresql_only
@pytest.mark.parametrize("clear", [True, False])
def test_a_sequence_at_its_end_hinders_no_restore(last_key, clear):
    file = take()
    database_of().fetch("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", [NOTE.db_table, last_key])
    keys = next_keys()
    assert keys["core.note"] == last_key + 1
    restore(file, clear=clear)
    services.undo_restore()
    assert next_keys() == keys
    restore(file, clear=clear)


def _test_a_stray(last, clear):
    before = enter()
    file = take()
    enter(pk=last)
    assert enter() == before + 1
    keys = next_keys()
    with_stray = snapshot()
    restore(file, clear=clear)
    assert enter() == before + (1 if clear else 2)
    services.undo_restore()
    assert next_keys() == keys
    assert not differences(with_stray, snapshot())
    assert enter() == before + 2


@postgresql_only
@pytest.mark.parametrize("clear", [True, False])
def test_a_row_with_the_last_key_does_not_move_the_sequence(last_key, clear):
    _test_a_stray(last_key, clear)


@postgresql_only
def test_nor_one_that_is_no_identity(serial):
    _test_a_stray(2**31 - 1, clear=True)


@postgresql_only
@pytest.mark.parametrize("clear", [True, False])
def test_nor_does_a_restore_that_brings_such_a_row(family, clear):
    before = enter()
    enter(pk=NOTE.highest_usable_key)
    file = take()
    core.Note.objects.filter(pk__gt=before).delete()
    restore(file, clear=clear)
    assert core.Note.objects.filter(pk=NOTE.highest_usable_key).exists()
    assert [enter(), enter()] == [before + 1, before + 2]


@postgresql_only
def test_nor_does_one_that_is_refused(family):
    before = enter()
    file = take()
    enter(pk=2**31 - 1)

    def break_it(records):
        records["core.note"][0]["fields"]["child"] = 987654

    for clear in (True, False):
        refused(rewritten(file, break_it), RecordsRefused, clear=clear)
    assert enter() == before + 1


@postgresql_only
def test_a_number_that_the_database_cannot_take_is_no_damage(family, monkeypatch):
    def overflow(copy):
        database_of().fetch("SELECT 9223372036854775807 + 1")

    monkeypatch.setattr(SafetyCopy, "make_sure", overflow)
    error = refused(take(), RestoreRefused)
    assert "damaged" not in error.message
    assert "out of range" in error.message

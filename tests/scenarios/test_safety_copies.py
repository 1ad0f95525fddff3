"""No safety copy goes that an undo may need, and an undo takes no other file for it."""

import io
from datetime import timedelta

import pytest
from freezegun import freeze_time

from backup import services
from backup.archive import RECORDS, Writer
from backup.automatic import run as automatic
from backup.conf import conf
from backup.exceptions import AlreadyRestored, InvalidBackup
from backup.storage import kept, keys
from tests.scenarios.test_undo import NOW, THE_FUTURE, an_unknown_time_zone, enter
from tests.support.backups import encrypted, restore, rewritten, take
from tests.support.snapshots import differences, snapshot

# --- Which safety copies are kept -------------------------------------------------------------------------


def test_a_state_is_kept_once(family):
    file, then = take(), snapshot()
    enter("of great worth")
    worth = snapshot()
    results = [restore(file, clear=True) for _ in range(7)]
    names = [copy.name for copy in kept.backups()]
    assert len(names) == 2
    assert {result.safety_copy for result in results} == {*names}
    assert not differences(then, snapshot())
    services.undo_restore(safety_copy=results[0].safety_copy)
    assert not differences(worth, snapshot())


def test_a_damaged_copy_of_the_state_is_no_copy_of_it(family):
    file = take()
    name = restore(file, clear=True).safety_copy
    (path,) = conf.root.rglob(name)
    data = bytearray(path.read_bytes())
    data[data.index(b"core/feeding.json") + 200] ^= 1
    path.write_bytes(data)
    again = restore(file, clear=True).safety_copy
    assert again != name
    with kept.open_backup(again) as copy:
        services.verify_backup(copy)


def test_a_copy_that_is_deleted_while_the_restore_runs(family, acting_before_the_lock):
    """A backup of the same state was there, and somebody has no use for it."""
    file = take()
    enter("of great worth")
    worth = snapshot()
    name = services.keep_backup().name
    acting_before_the_lock(lambda: kept.delete(name))
    result = restore(file, clear=True)
    assert result.safety_copy != name
    assert result.safety_copy in {copy.name for copy in kept.backups()}
    services.undo_restore()
    assert not differences(worth, snapshot())


def test_retention_between_an_undo_and_taking_it_back(family, settings):
    """An automatic backup of the same state is no safety copy: BACKUP_KEEP removes it when another one is made."""
    settings.BACKUP_KEEP, settings.BACKUP_PROVE = "last=1", "off"
    file = take()
    enter("of great worth")
    restore(file, clear=True)
    restored = snapshot()
    automatic.run(now=True)
    copy = services.undo_restore().safety_copy
    automatic.run(now=True)
    services.undo_restore(safety_copy=copy)
    assert not differences(restored, snapshot())


def test_an_old_safety_copy_of_the_same_state_stays_for_another_day(family):
    file = take()
    enter("of great worth")
    worth = snapshot()
    with freeze_time(NOW - timedelta(days=2)):
        restore(file, clear=True)
        services.undo_restore()
    copy = restore(file, clear=True).safety_copy
    for number in range(7):
        enter(f"note {number}")
        restore(file, clear=True)
    services.undo_restore(safety_copy=copy)
    assert not differences(worth, snapshot())


def test_none_younger_than_a_day_is_pruned(family):
    file = take()
    for number in range(7):
        with freeze_time(NOW + timedelta(hours=number)):
            enter(f"note {number}")
            restore(file, clear=True)
    assert len(kept.backups()) == 8 - 1
    with freeze_time(NOW + timedelta(days=2)):
        enter("another")
        name = restore(file, clear=True).safety_copy
        names = [copy.name for copy in kept.backups()]
    assert len(names) == 5
    assert names[0] == name


def test_the_copy_of_the_last_restore_is_not_pruned_however_old(family):
    file, then = take(), snapshot()
    enter("one more")
    restore(file, clear=True)  # what is there now is kept with the next one, and never again
    for day in range(1, 10):
        with freeze_time(NOW + timedelta(days=3 * day)):
            enter(f"note {day}")
            restore(file, clear=True)
    with freeze_time(NOW + timedelta(days=60)):
        restore(file, clear=True)
        services.undo_restore()
    assert not differences(then, snapshot())


def test_copies_of_the_future_push_none_out(family):
    file = take()
    with freeze_time(THE_FUTURE):
        for number in range(5):
            enter(f"note {number}")
            services.keep_backup(kept.BackupKind.SAFETY)
    enter("of great worth")
    now = snapshot()
    result = restore(file, clear=True)
    assert result.safety_copy in {copy.name for copy in kept.backups()}
    assert kept.backups()[0].name == result.safety_copy
    services.undo_restore()
    assert not differences(now, snapshot())


def test_a_restore_of_the_future_refuses_nothing(family):
    file = take()
    with freeze_time(THE_FUTURE):
        restore(file, clear=True, idempotency_key="x")
        with pytest.raises(AlreadyRestored):
            restore(file, clear=True, idempotency_key="x")
    restore(file, clear=True, idempotency_key="x")


# --- A copy that is fetched from somewhere else -------------------------------------------------------------


@pytest.fixture(params=["in clear", "encrypted"])
def elsewhere(request, family, settings, tmp_path):
    """Call it to restore a backup, so that an undo has to fetch what was before from another place. Returns the state
    before, the file there, and the key that it is encrypted with, or None."""
    settings.BACKUP_LOCATIONS, settings.BACKUP_PROVE = f"nas={tmp_path / 'nas'}", "off"
    key = keys.add().key if request.param == "encrypted" else None
    file = take()

    def restored():
        enter("since")
        before = snapshot()
        made = services.keep_backup()
        assert automatic._copy(None) == ""
        assert restore(file, clear=True).safety_copy == made.name
        kept.delete_here(made)
        (path,) = (tmp_path / "nas").glob("site_*/kept/*")
        return before, path, key

    return restored


def test_undo_of_what_was_fetched_from_a_location(elsewhere):
    """It is what was here, to the letter, whatever was wrong with it."""
    an_unknown_time_zone()
    before, _path, _key = elsewhere()
    services.undo_restore()
    assert not differences(before, snapshot())


def test_undo_does_not_trust_who_can_write_to_a_location(elsewhere, family):
    _before, path, key = elsewhere()
    with path.open("rb") as file, keys.unlocked(file) as archive:
        clear = io.BytesIO()
        with Writer(clear) as writer:
            for label, member in archive.metadata.models.items():
                writer.write(member.file, archive.read(member))
                writer.register(RECORDS, label, member)
            writer.finish(archive.metadata)

    def change(records):
        records["core.child"][0]["fields"]["picture"] = "../../../etc/passwd"

    changed = rewritten(clear, change)
    path.write_bytes((encrypted(changed, key) if key else changed).getvalue())
    now = snapshot()
    with pytest.raises(InvalidBackup, match="another backup than its name says"):
        services.undo_restore(user=family.staff)
    assert not differences(now, snapshot())


def test_undo_does_not_take_another_backup_for_the_copy(family):
    """Somebody put another one in its place, with its name."""
    enter("of another day")
    another = take()
    enter("since")
    name = restore(another, clear=True).safety_copy
    now = snapshot()
    (path,) = conf.root.rglob(name)
    path.write_bytes(another.getvalue())
    with pytest.raises(InvalidBackup, match=f"{name} is another backup"):
        services.undo_restore()
    assert not differences(now, snapshot())

"""What holds the key of a row that gets another one follows: by a chain, through a proxy, or in a circle."""

import random

import pytest
from core import models as core
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType

from backup import services
from backup.exceptions import RecordsConflict
from backup.options import Part, RestoreMode, RestoreOptions
from backup.restore.apart import usable
from backup.tables import Table
from tests.support.backups import inspect, refused, restore, take
from tests.support.snapshots import differences, snapshot
from tests.zoo.models import Animal, Badge, Bird, Cot, Fob, Hook, Key, Link, Lock, OldLock, Passport, Sign

KEPT = pytest.mark.parametrize("mode", [RestoreMode.OVERWRITE, RestoreMode.KEEP_BOTH])


def clear_locks():
    for model in (Hook, Fob, Lock, Key, Link, Sign):
        model.objects.all().delete()


def make(locks, keys=None):
    """Make locks and keys that belong together. `locks`: key -> name; `keys`: key -> the name of its lock."""
    clear_locks()
    Lock.objects.bulk_create(Lock(pk=pk, name=name) for pk, name in locks.items())
    numbers = {name: pk for pk, name in locks.items()}
    for pk, name in (keys or {}).items():
        Key.objects.create(pk=pk, name=f"{name} key", lock_id=numbers[name])
        Lock.objects.filter(name=name).update(key=pk)


def in_a_ring():
    """Let each lock be followed by another one, in the order of their names."""
    locks = [*Lock.objects.order_by("name")]
    for lock, after in zip(locks, [*locks[1:], locks[0]], strict=True):
        Lock.objects.filter(pk=lock.pk).update(next=after)


def exchange_numbers(user, other):
    """Let each have the other's name and password: the same people then have other numbers."""
    User.objects.filter(pk=user.pk).update(username="in between")
    User.objects.filter(pk=other.pk).update(username=user.username, password=user.password)
    User.objects.filter(pk=user.pk).update(username=other.username, password=other.password)


def belongings():
    """Return what belongs together, by names."""
    return (
        sorted(Lock.objects.values_list("name", "key__name", "next__name")),
        sorted(Key.objects.values_list("name", "lock__name")),
    )


@KEPT
def test_a_reference_to_a_field_that_is_a_reference(host_db, mode):
    make({101: "door", 102: "gate"})
    for lock in Lock.objects.all():
        fob = Fob.objects.create(pk=lock.pk - 100, lock=lock, text=lock.name)
        Hook.objects.create(pk=lock.pk - 100, fob=fob, text=lock.name)
    file = take()
    make({102: "door", 101: "gate"})
    file.seek(0)
    assert services.inspect_backup(file, RestoreOptions(mode)).changes["zoo.hook"].added == 2
    file.seek(0)
    services.restore_backup(file, RestoreOptions(mode))
    assert Hook.objects.count() == 2
    assert all(hook.text == hook.fob.text == hook.fob.lock.name for hook in Hook.objects.all())
    assert inspect(file, clear=False).changes["zoo.hook"].unchanged == 2


@KEPT
def test_a_generic_reference_to_a_proxy(host_db, mode):
    make({101: "door", 102: "gate"})
    proxy = ContentType.objects.get_for_model(OldLock, for_concrete_model=False)
    for lock in Lock.objects.all():
        Sign.objects.create(content_type=proxy, object_id=lock.pk, text=lock.name)
    file = take()
    make({102: "door", 101: "gate"})
    file.seek(0)
    services.restore_backup(file, RestoreOptions(mode))
    assert Sign.objects.count() == 2
    assert all(sign.text == sign.target.name for sign in Sign.objects.all())
    assert {sign.content_type for sign in Sign.objects.all()} == {proxy}


@pytest.mark.parametrize("clear", [True, False])
def test_a_key_that_is_a_reference_to_what_stays(family, clear):
    """Accounts stay, so that a record goes to the user of the same name, whatever number they have here."""
    Badge.objects.all().delete()
    users = family.staff, family.plain
    for user in users:
        Badge.objects.create(user=user, text=user.username)
    badge = ContentType.objects.get_for_model(Badge)
    Sign.objects.create(content_type=badge, object_id=users[0].pk, text=users[0].username)
    file = take()
    Badge.objects.all().delete()
    exchange_numbers(*users)
    restore(file, clear=clear, parts=(Part.ENTRIES,))
    assert Badge.objects.count() == 2
    assert all(badge.text == badge.user.username for badge in Badge.objects.all())
    assert Sign.objects.filter(content_type=badge).get().target.text == users[0].username


def test_a_key_that_is_a_reference_to_what_changes_places(family):
    """Settings stay, with the users to whom they belong."""
    Badge.objects.all().delete()
    Badge.objects.create(user=family.plain, text=family.plain.username)
    file = take()
    exchange_numbers(family.plain, family.staff)
    restore(file, clear=True, parts=(Part.ENTRIES, Part.ACCOUNTS))
    assert Badge.objects.get().pk == family.staff.pk
    assert Badge.objects.get().user.username == Badge.objects.get().text


# --- Circles ---


def test_what_can_be_asked_for_before_all_keys_are_known():
    lock, key, passport, bird = map(Table, (Lock, Key, Passport, Bird))
    name, of_lock = [(key.columns.index(column),) for column in key.nonkey_columns]
    assert usable(key, [lock, key]) == [name]
    assert usable(key, [key]) == [name, of_lock]
    assert usable(lock, [lock]) == [(1,), (2,)], "not by the next lock"
    assert usable(passport, [Table(Animal), passport]) == [], "it is the passport of an animal"
    assert usable(passport, [bird, passport]) == passport.uniques, "birds have the keys of animals"


@KEPT
def test_a_circle_of_unique_keys(host_db, mode):
    make({1: "door", 2: "gate"}, {1: "door", 2: "gate"})
    expected, file = belongings(), take()
    make({1: "gate", 2: "door"}, {1: "gate", 2: "door"})
    file.seek(0)
    services.restore_backup(file, RestoreOptions(mode))
    assert belongings() == expected
    changes = inspect(file, clear=False).changes
    assert changes["zoo.lock"].unchanged == changes["zoo.key"].unchanged == 2


def test_a_circle_of_one(host_db):
    make({1: "a", 2: "b", 3: "c"})
    in_a_ring()
    expected, file = belongings(), take()
    make({1: "b", 2: "c", 3: "a"})
    in_a_ring()
    restore(file, clear=False)
    assert belongings() == expected


def test_one_of_a_circle_was_renamed(host_db):
    """Its key says which one it is."""
    make({1: "door", 2: "gate"}, {1: "door", 2: "gate"})
    expected, file = belongings(), take()
    make({7: "gate", 1: "door"}, {5: "gate", 2: "door"})
    Lock.objects.filter(name="gate").update(name="new gate")
    restore(file, clear=False)
    assert belongings() == expected
    assert Lock.objects.get(name="gate").pk == 7


@pytest.mark.parametrize("seed", range(5))
def test_circles_under_any_keys(host_db, seed):
    shuffle = random.Random(seed).shuffle
    names = [*"abcdefg"]

    def make_under_other_keys():
        shuffle(names)
        locks = dict(enumerate(names, 1))
        shuffle(names)
        make(locks, dict(enumerate(names, 1)))
        in_a_ring()

    make_under_other_keys()
    expected, file = belongings(), take()
    make_under_other_keys()
    here = belongings()
    assert here == expected
    before = dict(Lock.objects.values_list("name", "pk"))
    Lock.objects.filter(name="a").update(next=None)
    restore(file, clear=False)
    assert belongings() == expected
    assert before == dict(Lock.objects.values_list("name", "pk"))


def test_only_a_circle_tells_them_apart(host_db):
    """It is not guessed which of them they are; cleared, nothing has to be told apart."""

    def make_links(**following):
        Link.objects.update(next=None)
        Link.objects.all().delete()
        Link.objects.bulk_create(Link(pk=int(name[1:])) for name in following)
        for name, after in following.items():
            Link.objects.filter(pk=int(name[1:])).update(next=after)

    make_links(n1=1, n3=3)
    expected, file = snapshot(), take()
    make_links(n2=3, n3=2)
    details = refused(file, RecordsConflict).details
    assert any(line.startswith("zoo.link 3: ") and "clear" in line for line in details)
    restore(file, clear=True)
    assert not differences(expected, snapshot())


@KEPT
def test_what_refers_to_another_field_of_a_row_that_changes_follows_it(host_db, mode):
    """Also where that is itself a reference; the preview counts it, and an undo brings it back."""
    for name in ("Leo", "Mia"):
        core.Child.objects.create(first_name=name, last_name="X", birth_date="2026-01-01")
    locks = [Lock.objects.create(name=name) for name in ("a", "b")]
    fob = Fob.objects.create(lock=locks[0], text="a fob")
    Cot.objects.create(pk=1, child_id="leo-x", text="in the backup")
    file = take()
    Cot.objects.update(child_id="mia-x")
    core.Child.objects.filter(first_name="Leo").update(slug="lion")
    Cot.objects.create(pk=2, child_id="lion", guest_id="lion", text="its own")
    Cot.objects.create(pk=3, child_id="mia-x", guest_id="lion", text="mentions it")
    Cot.objects.create(pk=4, child_id="mia-x", text="not at all")
    Fob.objects.update(lock=locks[1])
    hook = Hook.objects.create(fob_id=locks[1].pk, text="a hook")
    before = snapshot()
    file.seek(0)
    plan = services.inspect_backup(file, RestoreOptions(mode))
    assert plan.refusal is None
    counts = {
        label: (plan.changes[label].changed, plan.changes[label].removed) for label in ("zoo.cot", "zoo.hook")
    }
    # What belongs to another row here is another record, where both are kept.
    both = mode is RestoreMode.KEEP_BOTH
    assert counts == {"zoo.cot": (2 if both else 3, 0), "zoo.hook": (0 if both else 1, 0)}
    file.seek(0)
    services.restore_backup(file, RestoreOptions(mode))
    assert [*Cot.objects.order_by("pk").values_list("child_id", "guest_id")] == [
        ("mia-x" if both else "leo-x", None),
        ("leo-x", "leo-x"),
        ("mia-x", "leo-x"),
        ("mia-x", None),
        *([("leo-x", None)] if both else ()),
    ]
    assert Hook.objects.get(pk=hook.pk).fob == fob
    assert [*Fob.objects.order_by("pk").values_list("lock__name", flat=True)] == (
        ["b", "a"] if both else ["a"]
    )
    services.undo_restore()
    assert not differences(before, snapshot())

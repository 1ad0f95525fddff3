"""A restore says whose passwords, rights and tokens it changes."""

import time

import pytest
from core import models as core
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.utils import timezone
from rest_framework.authtoken.models import Token

from backup import services
from backup.exceptions import Forbidden, RecordsRefused
from backup.options import RestoreMode, RestoreOptions
from tests.support.backups import inspect, refused, restore, rewritten, take
from tests.support.filling import fill
from tests.support.snapshots import differences, snapshot
from tests.zoo import models as zoo


@pytest.fixture
def small_site(host_db):
    return fill(days=1, children=1, odd=False)


def changes_of(file, clear):
    accounts = inspect(file, clear=clear).accounts
    return [*accounts.passwords], [*accounts.rights], [*accounts.tokens]


@pytest.mark.parametrize("clear", [True, False])
def test_nothing_changes_nothing_is_said(small_site, clear):
    file = take()
    User.objects.update(first_name="changed", last_login=None)
    plan = inspect(file, clear=clear)
    assert not plan.accounts
    assert restore(file, clear=clear).warnings == plan.warnings == []


@pytest.mark.parametrize("clear", [True, False])
def test_it_is_said_whose_accounts_change(small_site, clear):
    file = take()
    staff = User.objects.get(username="grandma")
    staff.set_password("another")
    staff.save()
    User.objects.filter(username="joe").update(is_staff=True)
    User.objects.get(username="admin").groups.clear()
    Token.objects.filter(user=staff).delete()
    Token.objects.create(user=staff)
    groups = ["admin"] if User.objects.filter(username="admin", groups__isnull=False) else []
    assert changes_of(file, clear) == (["grandma"], [*groups, "joe"], ["grandma"])
    result = restore(file, clear=clear)
    assert len(result.warnings) == 3
    assert all("grandma" in line or "joe" in line for line in result.warnings)
    assert changes_of(file, clear) == ([], [], [])


@pytest.mark.parametrize("clear", [True, False])
def test_under_other_keys(small_site, clear):
    """It is the people that count, and not their numbers."""
    file = take()
    User.objects.create_user("late")
    assert changes_of(file, clear) == ([], [], [])
    token = Token.objects.get(user__username="grandma")
    Token.objects.filter(pk=token.pk).delete()
    Token.objects.create(user=User.objects.get(username="late"), key=token.pk)
    accounts = inspect(file, clear=clear).accounts
    assert [*accounts.tokens] == ["grandma"]
    assert [*accounts.tokens_removed] == ([] if clear else ["late"])


@pytest.mark.parametrize("has_member", [True, False])
def test_a_token_that_is_removed(small_site, has_member):
    """There is none of this user in the backup: nobody is told that theirs becomes that."""
    Token.objects.all().delete()
    file = take() if has_member else rewritten(take(), lambda records: records.pop("authtoken.token"))
    Token.objects.create(user=User.objects.get(username="joe"))
    plan = inspect(file, clear=True)
    assert ([*plan.accounts.tokens], [*plan.accounts.tokens_removed]) == ([], ["joe"])
    (line,) = (line for line in plan.warnings if "joe" in line)
    assert line == "The API token of joe is removed, so their apps and scripts have to sign in anew."
    assert line in restore(file, clear=True).warnings
    assert not Token.objects.exists()


@pytest.mark.parametrize("clear", [True, False])
def test_who_comes_and_who_goes(small_site, clear):
    file = take()
    User.objects.filter(username="nanny").delete()
    User.objects.create_user("late")
    accounts = inspect(file, clear=clear).accounts
    assert accounts.added == ["nanny"]
    assert accounts.removed == (["late"] if clear else [])
    assert accounts
    warnings = restore(file, clear=clear).warnings
    assert any("nanny" in line for line in warnings)
    assert any("late" in line for line in warnings) == clear


@pytest.mark.parametrize("clear", [True, False])
def test_groups_whose_permissions_change(small_site, clear):
    group = Group.objects.first()
    file = take()
    group.permissions.add(Permission.objects.exclude(group=group).first())
    Group.objects.create(name="night shift")
    accounts = inspect(file, clear=clear).accounts
    assert accounts.groups == [group.name]
    assert accounts.groups_removed == (["night shift"] if clear else [])
    lines = restore(file, clear=clear).warnings
    assert any(group.name in line for line in lines)
    assert any("night shift" in line and "removed" in line for line in lines) == clear
    assert not inspect(file, clear=clear).accounts


def with_more_users(file, number, *, tokens=False):
    """Return the backup with more users, with a token each."""

    def change(records):
        user = {**records["auth.user"][0]["fields"], "groups": [], "user_permissions": []}
        token = records["authtoken.token"][0]["fields"]
        for pk in range(1000, 1000 + number):
            name = f"u{pk}"
            records["auth.user"].append(
                {"model": "auth.user", "pk": pk, "fields": {**user, "username": name}}
            )
            if tokens:
                fields = {**token, "user": pk}
                records["authtoken.token"].append(
                    {"model": "authtoken.token", "pk": f"{pk:040x}", "fields": fields}
                )
        records["authtoken.token"].sort(key=lambda record: record["pk"])

    return rewritten(file, change)


@pytest.mark.parametrize("clear", [True, False])
def test_of_many_who_come_the_first_are_named(small_site, clear):
    plan = inspect(with_more_users(take(), 3000), clear=clear)
    named = sorted(f"u{pk}" for pk in range(1000, 4000))[:20]
    assert [*plan.accounts.added][:20] == named
    assert any(line.endswith(f"{named[-1]}, ….") for line in plan.warnings)
    assert (plan.accounts.removed, plan.accounts.tokens) == ([], [])


@pytest.mark.parametrize("clear", [True, False])
def test_many_tokens_take_no_longer_each(small_site, clear):
    def taken(number):
        file = with_more_users(take(), number, tokens=True)
        began = time.process_time()
        inspect(file, clear=clear)
        return time.process_time() - began

    taken(10)
    assert taken(16_000) < 4 * taken(4_000) * 1.5


@pytest.mark.parametrize("clear", [True, False])
def test_tokens_that_are_exchanged(small_site, clear):
    """Each is the other one's for a moment while the records are read."""
    first, second = User.objects.create_user("ann"), User.objects.create_user("ben")
    for user, key in ((first, "a" * 40), (second, "b" * 40)):
        Token.objects.create(user=user, key=key)
    file = take()
    Token.objects.filter(user__in=[first, second]).delete()
    for user, key in ((first, "b" * 40), (second, "a" * 40)):
        Token.objects.create(user=user, key=key)
    assert changes_of(file, clear) == ([], [], ["ann", "ben"])
    restore(file, clear=clear)
    assert changes_of(file, clear) == ([], [], [])


@pytest.mark.skipif(connection.vendor != "mysql", reason="the others tell every name from every other")
@pytest.mark.parametrize("clear", [True, False])
def test_a_name_that_is_the_same_to_the_database(small_site, clear):
    """Who has it is one person, whose token, password and rights are compared."""
    user = User.objects.create_user("Renée", is_staff=True)
    Token.objects.create(user=user, key="a" * 40)
    file = take()
    User.objects.filter(pk=user.pk).update(username="RENÉE", is_staff=False)
    Token.objects.filter(user=user).delete()
    Token.objects.create(user=user, key="b" * 40)
    accounts = inspect(file, clear=clear).accounts
    assert ([*accounts.tokens], [*accounts.rights]) == (["RENÉE"], ["RENÉE"])
    assert ([*accounts.renamed], [*accounts.added], [*accounts.removed]) == ([("RENÉE", "Renée")], [], [])
    if clear:  # keeping existing data, such a record is in conflict with the row
        User.objects.filter(pk=user.pk).update(username="Renee")
        accounts = inspect(file, clear=clear).accounts
        assert ([*accounts.tokens], [*accounts.removed]) == (["Renee"], [])


@pytest.mark.parametrize("clear", [True, False])
def test_somebody_who_is_renamed(small_site, clear):
    """The password has a salt of its own, so it is the same person, who keeps what is theirs."""
    file = take()
    User.objects.filter(username="grandma").update(username="nonna", is_superuser=True)
    plan = inspect(file, clear=clear)
    accounts = plan.accounts
    assert (accounts.renamed, accounts.added, accounts.removed) == ([("nonna", "grandma")], [], [])
    assert (accounts.rights, accounts.tokens, accounts.tokens_removed) == (["nonna"], [], [])
    renamed = "The user nonna is then called grandma, as in the backup."
    rights = "The rights of nonna become those in the backup."
    assert plan.warnings == [renamed, rights]
    assert (plan.changes["auth.user"].changed, plan.changes["auth.user"].removed) == (1, 0)
    Token.objects.filter(user__username="nonna").update(key="a" * 40)
    assert inspect(file, clear=clear).accounts.tokens == ["nonna"]
    lacking = rewritten(file, lambda records: records["authtoken.token"].clear())
    assert ("nonna" in inspect(lacking, clear=clear).accounts.tokens_removed) == clear
    taken = User.objects.create_user("grandma")
    assert not inspect(file, clear=clear).accounts.renamed, "somebody else has that name"
    taken.delete()
    core.Timer.objects.create(user=User.objects.get(username="nonna"), start=timezone.now(), name="of nonna")
    assert restore(lacking, clear=clear).warnings[:2] == [renamed, rights]
    assert Token.objects.filter(key="a" * 40, user__username="grandma").exists() != clear
    assert core.Timer.objects.filter(name="of nonna", user__username="grandma").exists() != clear


def test_tokens_change_though_users_are_left_out(small_site, settings):
    settings.BACKUP_EXCLUDE = ["auth.user"]
    file = take()
    Token.objects.filter(user__username="grandma").delete()
    Token.objects.create(user=User.objects.get(username="grandma"))
    assert inspect(file, clear=False).accounts.tokens == ["grandma"]


def test_somebody_in_whose_place_another_one_comes(small_site):
    """The row with the same key, under another name."""
    file = take()
    User.objects.filter(username="nanny").update(username="late", password="another")
    accounts = inspect(file, clear=False).accounts
    assert (accounts.added, accounts.removed) == (["nanny"], ["late"])


@pytest.fixture
def exchange_groups(small_site):
    """Two groups, and ann, who is in the one with rights. Call it to exchange the groups' numbers."""
    Group.objects.create(pk=911, name="nurses"), Group.objects.create(pk=912, name="helpers")
    Group.objects.get(pk=911).permissions.set(Permission.objects.filter(codename="add_feeding"))
    User.objects.create_user("ann").groups.add(911)

    def exchange():
        for pk, name in ((911, "in between"), (912, "nurses"), (911, "helpers")):
            Group.objects.filter(pk=pk).update(name=name)
        Group.objects.get(pk=912).permissions.set(Group.objects.get(pk=911).permissions.all())
        Group.objects.get(pk=911).permissions.clear()

    return exchange


@pytest.mark.parametrize("clear", [True, False])
def test_a_group_is_known_by_its_name(exchange_groups, clear):
    """Under the number of the nurses there are helpers here: who is in that group gets the rights of a nurse."""
    file = take()
    exchange_groups()
    accounts = inspect(file, clear=clear).accounts
    assert (accounts.rights, accounts.groups, accounts.groups_removed) == (["ann"], [], [])
    assert not User.objects.get(username="ann").get_all_permissions()
    assert [line for line in restore(file, clear=clear).warnings if "ann" in line]
    assert User.objects.get(username="ann").get_all_permissions() == {"core.add_feeding"}
    assert not inspect(file, clear=clear).accounts


@pytest.mark.parametrize("clear", [True, False])
def test_the_same_groups_under_other_numbers_are_no_change(exchange_groups, clear):
    file = take()
    exchange_groups()
    User.objects.get(username="ann").groups.set([912])
    plan = inspect(file, clear=clear)
    assert not plan.accounts
    assert not restore(file, clear=clear).warnings
    assert [group.name for group in User.objects.get(username="ann").groups.all()] == ["nurses"]


@pytest.mark.parametrize("clear", [True, False])
def test_staff_exchange_no_groups_by_a_restore(exchange_groups, clear):
    file = take()
    exchange_groups()
    staff = User.objects.get(username="grandma")
    refused(file, Forbidden, clear=clear, user=staff)


def test_who_is_in_a_group_that_is_replaced(small_site):
    """They are not in the backup, and lose what they may do by it."""
    Group.objects.create(pk=911, name="carers")
    file = take()
    doctors = Group.objects.get(pk=911)
    doctors.name = "doctors"
    doctors.save()
    doctors.permissions.set(Permission.objects.filter(codename="add_feeding"))
    User.objects.create_user("ann").groups.add(doctors)
    before = snapshot()
    plan = inspect(file, clear=False)
    accounts = plan.accounts
    assert (accounts.rights, accounts.groups, accounts.groups_removed) == (["ann"], [], ["doctors"])
    assert plan.changes["auth.user"].changed == 1
    assert any("auth.user (1)" in line for line in plan.warnings)
    result = restore(file, clear=False)
    assert {*result.warnings} == {*plan.warnings}
    assert not User.objects.get(username="ann").groups.exists()
    services.undo_restore()
    assert not differences(before, snapshot())
    file.seek(0)
    keep_both = RestoreOptions(RestoreMode.KEEP_BOTH)
    assert not services.inspect_backup(file, keep_both).accounts
    file.seek(0)
    services.restore_backup(file, keep_both)
    assert [group.name for group in User.objects.get(username="ann").groups.all()] == ["doctors"]


def with_numbers_exchanged(file, first, second):
    """Return a backup in which two users have exchanged their numbers."""
    keys = {first.pk: second.pk, second.pk: first.pk}

    def change(records):
        for user in records["auth.user"]:
            user["pk"] = keys.get(user["pk"], user["pk"])
        records["auth.user"].sort(key=lambda user: user["pk"])
        for label in ("babybuddy.settings", "admin.logentry", "core.timer", "authtoken.token"):
            for record in records.get(label, []):
                record["fields"]["user"] = keys.get(record["fields"]["user"], record["fields"]["user"])

    return rewritten(file, change)


@pytest.mark.parametrize("excluded", ["authtoken", "admin", "zoo.badge", "zoo.sign"])
def test_what_no_backup_holds_stays_with_whom_it_belongs_to(small_site, settings, excluded):
    """Clearing brings back the numbers of a backup of this site: under one there may be another user meanwhile."""
    settings.BACKUP_EXCLUDE = [excluded]
    ann, ben = User.objects.create_user("ann"), User.objects.create_user("ben")
    file = with_numbers_exchanged(take(), ann, ben)
    owned = {
        "authtoken": lambda: Token.objects.create(user=ann),
        "admin": lambda: LogEntry.objects.create(user=ann, action_flag=1),
        "zoo.badge": lambda: zoo.Badge.objects.create(user=ann),
        "zoo.sign": lambda: zoo.Sign.objects.create(target=ann, text="of ann"),
    }[excluded]()
    plan = inspect(file, clear=True)
    error = refused(file, RecordsRefused, clear=True)
    assert str(error) == str(plan.refusal)
    assert excluded in error.details[0]
    assert str(owned.pk) not in str(error) or excluded != "authtoken"
    assert "BACKUP_EXCLUDE" in error.details[-1]
    assert not error.offer
    owned.delete()
    restore(file, clear=True)
    assert User.objects.get(pk=ann.pk).username == "ben"


def test_an_undo_gives_nobody_the_token_of_another_one(small_site, settings):
    """After a restore the next user gets the number of one whom it removed."""
    settings.BACKUP_EXCLUDE = ["authtoken"]
    file = take()
    User.objects.create_user("ann")
    restore(file, clear=True)
    ben = User.objects.create_user("ben")
    token = Token.objects.create(user=ben)
    before = snapshot()
    with pytest.raises(RecordsRefused, match=r"authtoken\.token.*“ben” → “ann”"):
        services.undo_restore()
    settings.BACKUP_EXCLUDE = []  # which the backup that brings back what was before knows nothing of
    with pytest.raises(RecordsRefused, match="Delete these records first"):
        services.undo_restore()
    assert not differences(before, snapshot())
    token.delete()
    services.undo_restore()
    assert User.objects.get(pk=ben.pk).username == "ann"


@pytest.mark.parametrize("excluded_since", [True, False])
def test_an_undo_leaves_what_its_backup_never_held(small_site, settings, excluded_since):
    """The token of somebody who has another name, and another password, since."""
    settings.BACKUP_EXCLUDE = ["authtoken"]
    ann = User.objects.create_user("ann", password="x")
    Token.objects.create(user=ann)
    file = take()
    before = snapshot()
    restore(file, clear=True)
    ann = User.objects.get(pk=ann.pk)
    ann.username = "anne"
    ann.set_password("y")
    ann.save()
    settings.BACKUP_EXCLUDE = ["authtoken"] if excluded_since else []
    services.undo_restore()
    assert not differences(before, snapshot())


def test_an_undo_leaves_nothing_that_would_refer_to_whom_it_removes(small_site, settings):
    """What its backup never held stays, so that who came with the restore can have got a token since."""
    settings.BACKUP_EXCLUDE = ["authtoken"]
    User.objects.create_user("newbie")
    file = take()
    User.objects.get(username="newbie").delete()
    restore(file, clear=True)
    settings.BACKUP_EXCLUDE = []
    token = Token.objects.create(user=User.objects.get(username="newbie"))
    before = snapshot()
    with pytest.raises(RecordsRefused, match="Delete these records first") as caught:
        services.undo_restore()
    assert "authtoken.token" in str(caught.value)
    assert not differences(before, snapshot())
    token.delete()
    services.undo_restore()
    assert not User.objects.filter(username="newbie")


def test_an_earlier_state_has_its_own_numbers_whatever_it_never_held(small_site, settings):
    """Somebody was removed and has come back since, with another number."""
    settings.BACKUP_EXCLUDE = ["authtoken"]
    file = take()
    ann = User.objects.create_user("ann")
    before = snapshot()
    copy = restore(file, clear=True).safety_copy
    User.objects.create_user("ben")
    User.objects.create_user("ann")
    restore(file, clear=False)
    settings.BACKUP_EXCLUDE = []
    services.undo_restore(safety_copy=copy)
    assert User.objects.get(username="ann").pk == ann.pk
    assert not differences(before, snapshot())


def test_a_preview_warns_in_the_order_of_the_result(small_site):
    group = Group.objects.create(name="family")
    file = take()
    Group.objects.filter(pk=group.pk).update(name="friends")
    User.objects.create_user("aunt")
    User.objects.filter(username="grandma").update(is_superuser=True)
    before = inspect(file, clear=False).warnings
    assert len(before) > 2
    assert restore(file, clear=False).warnings == before

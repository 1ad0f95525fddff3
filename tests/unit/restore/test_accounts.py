"""A restore says whose passwords, rights and tokens it changes."""

import pytest
from django.contrib.auth.models import Group, Permission, User
from rest_framework.authtoken.models import Token

from tests.support.backups import inspect, restore, take
from tests.support.filling import fill


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
    tokens = ["grandma"] if clear else ["grandma", "late"]
    assert changes_of(file, clear) == ([], [], tokens)


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
    expected = sorted([group.name, "night shift"]) if clear else [group.name]
    assert inspect(file, clear=clear).accounts.groups == expected
    assert any(group.name in line for line in restore(file, clear=clear).warnings)
    assert not inspect(file, clear=clear).accounts


def test_somebody_in_whose_place_another_one_comes(small_site):
    """The row with the same key, under another name."""
    file = take()
    User.objects.filter(username="nanny").update(username="late")
    accounts = inspect(file, clear=False).accounts
    assert (accounts.added, accounts.removed) == (["nanny"], ["late"])

"""A restore says whose passwords, rights and tokens it changes."""

import pytest
from django.contrib.auth.models import User
from rest_framework.authtoken.models import Token

from tests.support.backups import inspect, restore, take
from tests.support.filling import fill


@pytest.fixture
def family(host_db):
    return fill(days=1, children=1, odd=False)


def changes_of(file, clear):
    accounts = inspect(file, clear=clear).accounts
    return [*accounts.passwords], [*accounts.rights], [*accounts.tokens]


@pytest.mark.parametrize("clear", [True, False])
def test_nothing_changes_nothing_is_said(family, clear):
    file = take()
    User.objects.update(first_name="changed", last_login=None)
    plan = inspect(file, clear=clear)
    assert not plan.accounts
    assert restore(file, clear=clear).warnings == plan.warnings == []


@pytest.mark.parametrize("clear", [True, False])
def test_it_is_said_whose_accounts_change(family, clear):
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
def test_under_other_keys(family, clear):
    """It is the people that count, and not their numbers."""
    file = take()
    User.objects.create_user("late")
    assert changes_of(file, clear) == ([], [], [])
    token = Token.objects.get(user__username="grandma")
    Token.objects.filter(pk=token.pk).delete()
    Token.objects.create(user=User.objects.get(username="late"), key=token.pk)
    tokens = ["grandma"] if clear else ["grandma", "late"]
    assert changes_of(file, clear) == ([], [], tokens)

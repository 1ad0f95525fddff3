"""Columns whose values are secrets, in the words of messages. (All else of tables is tested where it is used.)"""

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import models
from django.test.utils import isolate_apps
from rest_framework.authtoken.models import Token

from backup.database import database_of
from backup.exceptions import InvalidRecord
from backup.restore.collation import collation_conflict
from backup.restore.values import ValueChecks
from backup.tables import Table, cannot_store, refers_to_nothing


@pytest.fixture
def table():
    """Of a plug-in's model, whose secrets are of several kinds."""

    def refuse(value):
        raise ValidationError(f"“{value}” is too weak.")

    with isolate_apps("core"):

        class Device(models.Model):
            name = models.CharField(max_length=50, unique=True)
            api_key = models.CharField(max_length=50, unique=True, validators=[refuse])
            secret_number = models.DecimalField(max_digits=9, decimal_places=1)
            owner = models.ForeignKey(Token, on_delete=models.CASCADE)
            secret_moment = models.DateTimeField(null=True)

            class Meta:
                app_label = "core"

        yield Table(Device)


def column(table, name):
    return next(column for column in table.columns if column.name == name)


def test_which_are_secret(table):
    assert [c.name for c in table.columns if c.is_secret] == [
        "api_key",
        "secret_number",
        "owner",
        "secret_moment",
    ]
    assert Table(Token).key.is_secret
    assert [c.name for c in Table(get_user_model()).columns if c.is_secret] == ["password"]


def test_reasons_do_not_quote_them(table):
    assert cannot_store(column(table, "name"), "abc") == "abc cannot be stored in this database"
    assert cannot_store(column(table, "api_key"), "abc") == "••• cannot be stored in this database"
    assert "abc" not in refers_to_nothing(column(table, "owner"), "abc")
    with pytest.raises(ValueError, match=r"^•••"):
        column(table, "secret_number").checker()("12.34")


def test_refusals_do_not_quote_them(host_db, table):
    row = (1, "name", "12345678", "1.5", "abcdefgh", None)
    with pytest.raises(InvalidRecord) as caught:
        ValueChecks({}, superuser=False).check(table, [[value] for value in row])
    assert str(caught.value).startswith("core.device 1, field api_key: “•••")
    conflict = collation_conflict(database_of(), table, row, 2, "12345678", 7, "nocase")
    assert "12345678" not in conflict.reason
    assert "“name”" in collation_conflict(database_of(), table, row, 1, "Name", 7, "nocase").reason


def test_what_a_database_says_is_told_without_them(host_db):
    """PostgreSQL quotes a whole row."""
    users = Table(get_user_model())
    secret = "pbkdf2_sha256$1$salt$hash"
    row = tuple(secret if column.name == "password" else None for column in users.columns)
    error = ValueError(f'null value in column "x" DETAIL: Failing row contains (5, {secret[:20]}..., t)')
    field, reason = database_of()._explain(users, row, error)
    assert field is None
    assert reason == 'null value in column "x" DETAIL: Failing row contains (5, •••'

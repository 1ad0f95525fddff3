"""Converts between natural keys and numbers, for content types and permissions, which each database numbers itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from django.apps import apps
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import ManyToOneRel, Model

from ..kinds import NATURAL
from ..tables import Table
from .values import ConvertAll

#: The texts of a natural key: app and model of a content type; codename, app and model of a permission.
NaturalKey = tuple[str, ...]


class NaturalKeys:
    """The natural keys in one database. They are read once, and again after `forget`.

    A number without a row, or whose permission has no content type, has no natural key: it stays a number, and points
    at nothing. In another database, or later, that number may be the one of a real row. So a restore writes a number
    that no row has (see `nowhere`), and reading converts it back.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        fetch: Callable[[str, Sequence[str]], list[tuple[Any, ...]]],
        table_names: Callable[[], set[str]],
    ) -> None:
        """`fetch`: reads the `id` and these columns, which are unique together, of a table, from the connection or from
        a snapshot of it. `table_names`: returns the names of all tables."""
        self._connection = connection
        self._fetch = fetch
        self._table_names = table_names
        #: Model label and natural key of each row that was created since `forget`; referenced rows come first.
        self.made: list[tuple[str, NaturalKey]] = []
        #: Whether the numbers in a backup are those of this database, so that they can come back as they were.
        self.keeps_numbers = False

    def forget(self) -> None:
        """Forget the natural keys, so that they are read again when they are needed."""
        self.made = []
        self.__dict__.pop("_by_number", None)
        self.__dict__.pop("_numbers", None)

    def db_tables(self) -> list[str]:
        """Return the names of the tables that hold the natural keys."""
        return [
            apps.get_model(label)._meta.db_table
            for label in NATURAL
            if apps.is_installed(f"django.contrib.{label.partition('.')[0]}")
        ]

    @cached_property
    def _by_number(self) -> dict[str, dict[int, NaturalKey]]:
        """Model label -> number in this database -> natural key."""
        by_number: dict[str, dict[int, NaturalKey]] = {label: {} for label in NATURAL}
        fetch = self._fetch
        if apps.is_installed("django.contrib.contenttypes"):
            types = by_number["contenttypes.contenttype"]
            for pk, app, model in fetch("django_content_type", ("app_label", "model")):
                types[pk] = (app, model)
            if apps.is_installed("django.contrib.auth"):
                for pk, type_pk, codename in fetch("auth_permission", ("content_type_id", "codename")):
                    if type_pk in types:
                        by_number["auth.permission"][pk] = (codename, *types[type_pk])
        return by_number

    @cached_property
    def _numbers(self) -> dict[str, dict[NaturalKey, int]]:
        """Model label -> natural key -> number."""
        return {
            label: {natural: pk for pk, natural in naturals.items()}
            for label, naturals in self._by_number.items()
        }

    def to_natural(self, label: str) -> ConvertAll:
        """Return a function that converts a column of numbers to natural keys. Numbers without one stay numbers.

        It raises `ValueError` for a value that is not a number, which SQLite stores as well.
        """

        def convert(values: Sequence[Any]) -> Sequence[Any]:
            known: dict[Any, Any] = self._by_number[label]
            if unknown := {*values} - known.keys() - {None}:
                known = {**known, **{number: without_key(number) for number in unknown}}
            return list(map(known.get, values))

        return convert

    def to_numbers(self, label: str) -> ConvertAll:
        """Return a function that converts a column of natural keys to numbers."""

        def convert(values: Sequence[Any]) -> Sequence[Any]:
            numbers = {value: self.number_of(label, value) for value in {*values} - {None}}
            return [numbers.get(value) for value in values]

        return convert

    def number_of(self, label: str, natural: Any) -> int:
        """Return the number of a natural key in this database.

        A key that is missing here (of an app that is not installed, for example) is created; Django, too, keeps those
        of apps that were removed. A number, which had no natural key at the site of the backup, leads nowhere here,
        too, and the check of references will report it. Raises `LookupError` if a key would have to be created outside
        a transaction.
        """
        if not isinstance(natural, tuple):
            is_free = natural not in self._by_number[label]
            return int(natural) if self.keeps_numbers and is_free else nowhere(natural)
        known = self._numbers[label]
        if natural not in known:
            if not self._connection.in_atomic_block:
                raise LookupError(natural)
            manager = apps.get_model(label)._base_manager.using(self._connection.alias)
            if label == "contenttypes.contenttype":
                known[natural] = manager.create(app_label=natural[0], model=natural[1]).pk
            else:
                codename, *type_key = natural
                type_pk = self.number_of("contenttypes.contenttype", tuple(type_key))
                known[natural] = manager.create(codename=codename, content_type_id=type_pk, name=codename).pk
            self._by_number[label][known[natural]] = natural
            self.made.append((label, natural))
        return known[natural]

    def has(self, label: str, natural: Any) -> bool:
        """Tell whether there is a row with a natural key here. A number, which stands for a missing row, is one that a
        column may hold."""
        return not isinstance(natural, tuple) or natural in self._numbers[label]

    def unmake(self, made: Iterable[tuple[str, Sequence[str]]]) -> dict[Table, int]:
        """Delete rows that a restore created, if they exist and nothing refers to them. `made`: see the attribute.

        Returns table -> the lowest number of the deleted rows, which is what its next row would have got before.
        """
        lowest: dict[str, int] = {}
        for label, natural in reversed([*made]):
            number = self._numbers[label].get(tuple(natural))
            model = apps.get_model(label)
            if number is not None and not self._is_used(model, number):
                # `delete()` would look for referring rows in tables that may not exist.
                rows = model._base_manager.using(self._connection.alias).filter(pk=number)
                rows._raw_delete(self._connection.alias)
                lowest[label] = min(number, lowest.get(label, number))
        self.forget()
        return {Table(apps.get_model(label)): number for label, number in lowest.items()}

    def _is_used(self, model: type[Model], number: int) -> bool:
        """Tell whether a row of any existing table refers to this row."""
        tables = self._table_names()
        return any(
            relation.related_model._base_manager.using(self._connection.alias)
            .filter(**{relation.field.name: number})
            .exists()
            for relation in model._meta.get_fields(include_hidden=True)
            if isinstance(relation, ManyToOneRel) and relation.related_model._meta.db_table in tables
        )


def nowhere(number: int) -> int:
    """Return a number that no row has, in place of one without a natural key: -1 for 0, -2 for 1 …"""
    return min(number, ~number)


def without_key(number: Any) -> int:
    """Return the number without a natural key that a column holds, as itself or as `nowhere` returns it."""
    if type(number) is not int:
        raise ValueError(number)
    return max(number, ~number)

"""Content types and permissions, which each database numbers by itself: natural key <-> number."""

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


class NaturalKeys:
    """The natural keys of one database. They are read once, and again after `forget`."""

    def __init__(
        self, connection: BaseDatabaseWrapper, fetch: Callable[[str], list[tuple[Any, ...]]]
    ) -> None:
        """`fetch`: runs a query on the connection, or on the snapshot that stands for it, and returns the rows."""
        self._connection = connection
        self._fetch = fetch
        #: Model label and natural key of each row that was made since `forget`, those first that others refer to.
        self.made: list[tuple[str, list[str]]] = []

    def forget(self) -> None:
        """Read them again where they are needed next."""
        self.made = []
        self.__dict__.pop("_by_number", None)
        self.__dict__.pop("_numbers", None)

    @cached_property
    def _by_number(self) -> dict[str, dict[int, list[str]]]:
        """Model label -> the number that this database gave -> natural key."""
        by_number: dict[str, dict[int, list[str]]] = {label: {} for label in NATURAL}
        quote, fetch = self._connection.ops.quote_name, self._fetch
        if apps.is_installed("django.contrib.contenttypes"):
            types = by_number["contenttypes.contenttype"]
            for pk, app, model in fetch(f"SELECT id, app_label, model FROM {quote('django_content_type')}"):
                types[pk] = [app, model]
            if apps.is_installed("django.contrib.auth"):
                sql = f"SELECT id, codename, content_type_id FROM {quote('auth_permission')}"
                for pk, codename, type_pk in fetch(sql):
                    by_number["auth.permission"][pk] = [codename, *types.get(type_pk, ["", ""])]
        return by_number

    @cached_property
    def _numbers(self) -> dict[str, dict[tuple[str, ...], int]]:
        """Model label -> natural key -> number."""
        return {
            label: {tuple(natural): pk for pk, natural in naturals.items()}
            for label, naturals in self._by_number.items()
        }

    def to_natural(self, label: str) -> ConvertAll:
        """Return what turns a column of numbers into natural keys. A number that is nobody's stays as it is."""

        def convert(values: Sequence[Any]) -> Sequence[Any]:
            return list(map(self._by_number[label].get, values, values))

        return convert

    def to_numbers(self, label: str) -> ConvertAll:
        """Return what turns a column of natural keys into numbers. The same few come again and again."""

        def convert(values: Sequence[Any]) -> Sequence[Any]:
            keys = [tuple(value) if type(value) is list else value for value in values]
            numbers = {
                key: self.number_of(label, [*key] if type(key) is tuple else key) for key in {*keys} - {None}
            }
            return [numbers.get(key) for key in keys]

        return convert

    def number_of(self, label: str, natural: Any) -> int:
        """Return the number of a natural key in this database.

        A key that this database does not have (of an app that is not installed, say) is made, as Django itself keeps
        those of apps that went away. A number, which was nobody's where the backup was made, stays one: the check of
        references tells. Raises `LookupError` if a key would have to be made outside of a transaction.
        """
        if not isinstance(natural, list):
            assert isinstance(natural, int)
            return natural
        known = self._numbers[label]
        key = tuple(natural)
        if key not in known:
            if not self._connection.in_atomic_block:
                raise LookupError(key)
            manager = apps.get_model(label)._base_manager.using(self._connection.alias)
            if label == "contenttypes.contenttype":
                known[key] = manager.create(app_label=key[0], model=key[1]).pk
            else:
                codename, *type_key = natural
                type_pk = self.number_of("contenttypes.contenttype", type_key)
                known[key] = manager.create(codename=codename, content_type_id=type_pk, name=codename).pk
            self._by_number[label][known[key]] = natural
            self.made.append((label, natural))
        return known[key]

    def unmake(self, made: Iterable[tuple[str, list[str]]]) -> dict[Table, int]:
        """Delete rows that a restore `made`, see there, so far as they are here and nothing refers to them. Returns the
        lowest of their numbers by table: the one that its next row got before."""
        lowest: dict[str, int] = {}
        for label, natural in reversed([*made]):
            number = self._numbers[label].get(tuple(natural))
            model = apps.get_model(label)
            if number is not None and not self._is_used(model, number):
                # `delete()` would look for rows that refer to it, in tables that may not exist.
                rows = model._base_manager.using(self._connection.alias).filter(pk=number)
                rows._raw_delete(self._connection.alias)
                lowest[label] = min(number, lowest.get(label, number))
        self.forget()
        return {Table(apps.get_model(label)): number for label, number in lowest.items()}

    def _is_used(self, model: type[Model], number: int) -> bool:
        """Tell whether a row of any table that is here refers to one of these."""
        tables = {*self._connection.introspection.table_names()}
        return any(
            relation.related_model._base_manager.using(self._connection.alias)
            .filter(**{relation.field.name: number})
            .exists()
            for relation in model._meta.get_fields(include_hidden=True)
            if isinstance(relation, ManyToOneRel) and relation.related_model._meta.db_table in tables
        )

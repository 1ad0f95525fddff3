"""Describes a model as we read and write it: `Table`, with its `Column`s and `Relation`s.

The data of a model has two forms, and converting between them loses nothing:

- A **row** is a tuple of plain values (see `kinds`): the primary key, then the other columns, then for each plain
  many-to-many relation a sorted list of keys. All other modules work on rows. Two rows are equal if and only if they
  hold the same data, whatever database they are from (to Python, some others are equal, too: see `are_same`).
- A **record** is Django's fixture form, `{"model": "core.feeding", "pk": 7, "fields": {…}}`.

Longer than most modules, since all that others have to know of a model is here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from operator import itemgetter
from typing import Any

from django.apps import apps
from django.db.models import CASCADE, AutoField, BigAutoField, Field, Model, SmallAutoField
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from . import babybuddy
from .exceptions import InvalidRecord
from .kinds import (
    DECIMAL,
    FLOAT,
    INTEGER,
    JSON,
    NATURAL,
    Kind,
    Plain,
    kind_of,
    most_places,
    places_of,
    target_of,
)
from .options import HIDDEN, Place, Places
from .scope import generic_references, label_of

#: The highest key that a database gives by itself, by the type of the key.
HIGHEST = {"SmallAutoField": 2**15 - 1, "AutoField": 2**31 - 1, "BigAutoField": 2**63 - 1}

Row = tuple[Plain, ...]
#: Rows held by column: one sequence of values for each column and relation, all of the same length.
Batch = list[Sequence[Plain]]


def are_same(one: Plain, other: Plain) -> bool:
    """Tell whether two plain values are the same. Python finds more of them equal: true, 1 and 1.0; 0.0 and -0.0; and
    objects of JSON whose keys have another order."""
    return bool(one == other) and (isinstance(one, str) or repr(one) == repr(other))


@dataclass(frozen=True)
class Column:
    """A column of a model's table. `name`: the name of the field; `column`: the name in the database."""

    field: Field[Any, Any]
    kind: Kind
    #: The label of the model that the column refers to; "" if it is not a reference.
    refers_to: str

    @classmethod
    def of(cls, field: Field[Any, Any]) -> Column:
        remote = field.remote_field
        return cls(field, kind_of(field), label_of(remote.model) if remote is not None else "")

    @property
    def name(self) -> str:
        return self.field.name

    @property
    def column(self) -> str:
        assert self.field.column is not None
        return self.field.column

    @property
    def is_natural(self) -> bool:
        return self.kind.name == "natural"

    @property
    def natural_model(self) -> str:
        """The label of the model whose natural keys the column holds. The column may refer to it through others, whose
        primary keys are references."""
        return label_of(target_of(self.field).model)

    @property
    def refers_by_key(self) -> bool:
        """Whether it is a reference by primary key, and not by another unique field (`to_field`)."""
        return bool(self.refers_to) and bool(self.field.target_field.primary_key)  # type: ignore[attr-defined]

    @property
    def key_of(self) -> str:
        """The label of the model whose primary key the column holds; "" if it is no reference, or holds something else.
        Another unique field (`to_field`) may be a reference itself, so that a primary key is at the end of the chain.
        """
        if self.refers_by_key or not self.refers_to:
            return self.refers_to
        target = target_of(self.field)
        return label_of(target.model) if target.primary_key else ""

    @property
    def belongs(self) -> bool:
        """Whether a row belongs to the one that the column refers to, so that it has to go with it, or Django would
        delete it then. Other references are emptied."""
        remote = self.field.remote_field
        return remote is not None and (not self.field.null or remote.on_delete is CASCADE)

    @property
    def is_secret(self) -> bool:
        """Whether no page and no message may show its values: passwords, keys of tokens, and what refers to these."""
        return babybuddy.is_secret(self.name) or any(
            field.primary_key and label_of(field.model) in babybuddy.SECRET_KEYS
            for field in (self.field, target_of(self.field))
        )

    def shown(self, value: object) -> object:
        """Return a value as messages quote it."""
        return HIDDEN if self.is_secret else value

    def without_secret(self, reason: str, value: object) -> str:
        """Return a reason that somebody else gave, up to where it quotes a secret value, or the beginning of one."""
        beginning = "" if value is None else str(value)[:8]
        if not (self.is_secret and beginning and beginning in reason):
            return reason
        return reason.partition(beginning)[0] + HIDDEN

    @property
    def all_canonical(self) -> Callable[[Sequence[Any]], bool]:
        canonical = self._fit if self.kind is DECIMAL else self.kind.all_canonical
        if self.field.null or self.kind is JSON:  # in a JSON field, null is a value
            return canonical
        return lambda values: None not in values and canonical(values)

    def _fit(self, values: Sequence[Any]) -> bool:
        return self.kind.all_canonical(values) and all(map(self._has_room, {*values} - {None}))

    def _has_room(self, number: str) -> bool:
        """Tell whether the column has enough decimal places for a number, which would be rounded silently otherwise."""
        most = most_places(self.field)
        return most is None or places_of(number) <= most

    def checker(self) -> Callable[[Any], Plain]:
        check = self.kind.check
        nullable = self.field.null or self.kind is JSON

        def checked(value: Any) -> Plain:
            if value is None and not nullable:
                raise ValueError(_("a value is needed"))
            plain = None if value is None else check(value)
            if self.kind is DECIMAL and plain is not None and not self._has_room(plain):
                raise ValueError(cannot_store(self, _short(plain)))
            return plain

        return checked


@dataclass(frozen=True)
class Relation:
    """A plain many-to-many relation, whose table has no model but the one that Django creates."""

    name: str
    db_table: str
    #: The column with the key of the row that the relation belongs to.
    owner: Column
    target: Column

    @classmethod
    def of(cls, field: Any) -> Relation:
        through = field.remote_field.through
        owner = Column.of(through._meta.get_field(field.m2m_field_name()))
        target = Column.of(through._meta.get_field(field.m2m_reverse_field_name()))
        return cls(field.name, through._meta.db_table, owner, target)

    @property
    def all_canonical(self) -> Callable[[Sequence[Any]], bool]:
        return lambda values: not any(values) and {list}.issuperset(map(type, values))

    def checker(self) -> Callable[[Any], Plain]:
        check = self.target.kind.check

        def checked(value: Any) -> Plain:
            if not isinstance(value, list):
                raise ValueError(_("a list of keys is needed"))
            keys = in_order(check(key) for key in value)
            if any(a == b for a, b in pairwise(keys)):
                raise ValueError(_("a key is in the list twice"))
            return keys

        return checked


@lru_cache(maxsize=1024)
def owner_of_keys(label: str) -> str:
    """Return the label of the model that the primary keys of a model belong to. That is another one for a proxy, and if
    the key is a reference, as in multi-table inheritance. A model that is not installed is its own."""
    try:
        target = target_of(apps.get_model(label)._meta.pk)
    except (LookupError, ValueError):
        return label
    return label_of(target.model) if target.primary_key else label


def is_installed(label: str) -> bool:
    """Tell whether a model of this label is installed here."""
    try:
        apps.get_model(label)
    except (LookupError, ValueError):
        return False
    return True


def owner_of(content_type: Plain) -> str:
    """Return the label of the model that owns the keys to which generic references with this content type point."""
    return owner_of_keys(".".join(content_type)) if isinstance(content_type, tuple) else ""


def in_order(keys: Iterable[Plain]) -> list[Plain]:
    """Sort the keys of a many-to-many list as they are in rows."""
    return sorted(keys, key=lambda key: (isinstance(key, (str, tuple)), key))


class Table:
    """A model's columns and relations, and what identifies its rows.

    `identities`: sets of fields that identify a row, in addition to the unique ones that the model declares.
    """

    def __init__(self, model: type[Model], identities: Iterable[Sequence[str]] = ()) -> None:
        meta = model._meta
        self.model = model
        self.label = label_of(model)
        self.db_table = meta.db_table
        self.key = Column.of(meta.pk)
        self.nonkey_columns = tuple(
            Column.of(field)
            for field in meta.local_concrete_fields
            if not field.primary_key and not getattr(field, "generated", False)
        )
        self.relations = tuple(
            Relation.of(field)
            for field in meta.local_many_to_many
            if field.remote_field.through._meta.auto_created  # type: ignore[union-attr]
        )
        parts: tuple[Column | Relation, ...] = (*self.nonkey_columns, *self.relations)
        self.names = tuple(part.name for part in parts)
        self._identities = tuple(identities)

    def __repr__(self) -> str:
        return f"<Table {self.label}>"

    @property
    def app(self) -> str:
        """The label of the model's app."""
        return str(self.model._meta.app_label)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """All columns of the table itself, in the order of a row."""
        return (self.key, *self.nonkey_columns)

    @cached_property
    def db_tables(self) -> list[tuple[str, tuple[Column, ...]]]:
        """The database's tables that hold the model's rows, with their columns: its own, then its relations'."""
        related = [(relation.db_table, (relation.owner, relation.target)) for relation in self.relations]
        return [(self.db_table, self.columns), *related]

    @cached_property
    def needs_exact_json(self) -> bool:
        """Whether records may hold arbitrary JSON, with whole numbers beyond 64 bits."""
        return any(column.kind is JSON or column.kind.name == "own" for column in self.columns)

    @cached_property
    def exact_places(self) -> list[int]:
        """The positions in a row of values that have to be compared by `are_same`."""
        return [
            place
            for place, column in enumerate(self.columns)
            if column.kind in (FLOAT, JSON) or column.kind.name == "own"
        ]

    @cached_property
    def uniques(self) -> list[tuple[int, ...]]:
        """The sets of columns, as positions in a row, whose values are unique together; without the primary key.

        Constraints with a condition or an expression are not among them; the database checks those.
        """
        meta = self.model._meta
        names: list[Sequence[str]] = [
            (f.name,) for f in meta.local_concrete_fields if f.unique and not f.primary_key
        ]
        names += meta.unique_together
        names += [constraint.fields for constraint in meta.total_unique_constraints]
        return [group for group in dict.fromkeys([*self._places(names), *self.identities]) if group != (0,)]

    @cached_property
    def identities(self) -> list[tuple[int, ...]]:
        """Those of `uniques` that no constraint of the database makes unique."""
        return self._places(self._identities)

    def _places(self, groups: Iterable[Sequence[str]]) -> list[tuple[int, ...]]:
        places = {column.name: place for place, column in enumerate(self.columns)}
        return [tuple(places[name] for name in group) for group in groups if all(n in places for n in group)]

    @cached_property
    def references(self) -> list[tuple[int, str]]:
        """(position in a row, label of the other model) of each column that holds the primary key of another row."""
        return [
            (place, column.key_of)
            for place, column in enumerate(self.columns)
            if column.key_of and column.key_of not in NATURAL
        ]

    @cached_property
    def references_by_field(self) -> list[tuple[int, str, Column]]:
        """(position in a row, label of the other model, its column) of each column that holds another unique value of
        another row than its primary key (`to_field`)."""
        targets = [
            (place, column.field.target_field)  # type: ignore[attr-defined]
            for place, column in enumerate(self.columns)
            if column.refers_to and not column.refers_by_key
        ]
        return [(place, label_of(target.model), Column.of(target)) for place, target in targets]

    @cached_property
    def generics(self) -> list[tuple[int, int]]:
        """(position of the content type, position of the key) of each generic reference."""
        places = {column.name: place for place, column in enumerate(self.columns)}
        return [
            (places[ct], places[key])
            for ct, key in generic_references(self.model)
            if ct in places and key in places
        ]

    @cached_property
    def belongs_by(self) -> list[int]:
        """The positions in a row of what tells to which other rows it belongs, besides its key: see `Column.belongs`.
        What a generic reference leads to is such a row, too."""
        places = {place for place, column in enumerate(self.columns) if place and column.belongs}
        return sorted(places.union(*self.generics))

    @cached_property
    def key_is_data(self) -> bool:
        """Whether the primary key is itself data, as an API token is, so that another key cannot take its place."""
        field = self.key.field
        return not self.key.refers_to and not field.has_default() and self.key.kind is not INTEGER

    @cached_property
    def record_template(self) -> list[bytes]:
        """The constant text of a record in JSON: what stands before the key and each other value, and the end."""
        before = [f'{{"model":"{self.label}","pk":', *(f',"{name}":' for name in self.names), "}}"]
        before[1] = ',"fields":{' + before[1].removeprefix(",")
        return [text.encode() for text in before]

    def batch_from(self, records: Sequence[Any], *, as_it_was: bool = False, superuser: bool = True) -> Batch:
        """Convert records of a file to a batch, with every value checked and in canonical form.

        `as_it_was`: accept keys near the highest one of their column, since they were there before. `superuser`: accept
        keys up to `highest_usable_key`, not only up to `high_key`. Raises `InvalidRecord` with model, key, field and
        reason.
        """
        batch = self._fast_batch(records)
        if batch is None:  # convert one by one, which is slow, to find the wrong record
            batch = list(zip(*map(self.row_from, records), strict=True))
        limit = self.highest_usable_key if superuser else self.high_key
        if limit is not None and not as_it_was and batch and max(batch[0]) > limit:
            key = next(key for key in batch[0] if key > limit)
            if self.is_usable(key):
                reason = _(
                    "only a superuser can restore it, since its key is so high that few are left after it"
                )
            else:
                reason = _("its key is so high that soon no more entries could be added")
            raise self.invalid(reason, key)
        return batch

    def checked(self, batch: Batch) -> Batch | None:
        """Return a batch with every value checked and in canonical form; None if `batch_from` would raise an error."""
        try:
            batch = self._checked(batch)
        except (TypeError, ValueError, AttributeError):
            return None
        return batch if self.is_usable(max(batch[0])) else None

    def is_usable(self, key: Any) -> bool:
        """Tell whether a record may have a key, as far as there is room for others after it."""
        return self.highest_usable_key is None or key <= self.highest_usable_key

    @property
    def is_numbered(self) -> bool:
        """Whether the database gives the keys itself, in rising order."""
        return self.highest_usable_key is not None

    @cached_property
    def highest_usable_key(self) -> int | None:
        """The highest key that a record may have, so that there is room for keys after it; None if the database does
        not give the keys. The last thousand keys of the column's range are reserved, of a small one a thousandth.
        """
        field = self.key.field
        if not isinstance(field, AutoField | BigAutoField | SmallAutoField):
            return None
        highest = HIGHEST[field.get_internal_type()]
        return highest - min(1000, highest // 1000)

    @cached_property
    def high_key(self) -> int | None:
        """The highest key that everybody may bring in, which leaves a thousandth of the column's range; None if the
        database does not give the keys. It is lower than `highest_usable_key`, since from then on a site gives higher
        keys, and has to be able to restore its own backups anywhere.
        """
        if self.highest_usable_key is None:
            return None
        return HIGHEST[self.key.field.get_internal_type()] // 1000 * 999

    def _fast_batch(self, records: Sequence[Any]) -> Batch | None:
        """Convert records one column at a time; returns None if one of them does not have the form of a record."""
        count = len(self.names)
        try:
            fields = [record["fields"] for record in records]
            if (
                {3}.issuperset(map(len, records))
                and {self.label}.issuperset(map(itemgetter("model"), records))
                and {count}.issuperset(map(len, fields))
            ):
                values = zip(*map(self._values, fields), strict=True) if count else ()
                return self._checked([[record["pk"] for record in records], *values])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            pass
        return None

    def _checked(self, batch: Iterable[Sequence[Any]]) -> Batch:
        return [
            values if part.all_canonical(values) else list(map(check, values))
            for part, check, values in zip(self._parts, self._checks, batch, strict=True)
        ]

    def row_from(self, record: Any) -> Row:
        """Convert one record to a row, like `batch_from`."""
        try:
            if len(record) == 3 and record["model"] == self.label:
                fields = record["fields"]
                if len(fields) == len(self.names):
                    values = (record["pk"], *self._values(fields))
                    return tuple([check(value) for check, value in zip(self._checks, values, strict=True)])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            pass
        raise self._what_is_wrong(record)

    @property
    def _parts(self) -> tuple[Column | Relation, ...]:
        return (self.key, *self.nonkey_columns, *self.relations)

    @cached_property
    def _values(self) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
        if len(self.names) > 1:
            return itemgetter(*self.names)
        return lambda fields: tuple(fields[name] for name in self.names)

    @cached_property
    def _checks(self) -> list[Callable[[Any], Plain]]:
        return [part.checker() for part in self._parts]

    def _what_is_wrong(self, record: Any) -> InvalidRecord:
        """Return the error for a record that `row_from` could not convert."""
        no_record = _("it is not in the form of a record")
        if not isinstance(record, dict) or not isinstance(record.get("fields"), dict) or "pk" not in record:
            return self.invalid(no_record)
        pk, fields = record["pk"], record["fields"]
        if record.get("model") != self.label:
            return self.invalid(_("it says that it is of another model"), pk)
        for unknown in [name for name in record if name not in ("model", "pk", "fields")]:
            return self.invalid(_("it has an unknown part “%(name)s”") % {"name": _short(unknown)}, pk)
        for name in fields:
            if name not in self.names:
                return self.invalid(_("this site has no such field"), pk, name)
        for name, part, check in zip(("pk", *self.names), self._parts, self._checks, strict=True):
            if name != "pk" and name not in fields:
                return self.invalid(_("it is missing"), pk, name)
            value = pk if name == "pk" else fields[name]
            try:
                check(value)
            except (ValueError, TypeError, AttributeError) as error:
                column = part.target if isinstance(part, Relation) else part
                return self.invalid(column.without_secret(str(error), value), pk, name)
        return self.invalid(no_record, pk)

    def invalid(self, reason: str, pk: object = None, field: str | None = None) -> InvalidRecord:
        """Return an `InvalidRecord` for a record of this model."""
        message = describe(self.label, pk, field, reason)
        known = None if self.label in babybuddy.SECRET_KEYS else pk
        return InvalidRecord(message, model=self.label, pk=known, field=field)


def describe(label: str, pk: object, field: str | None, reason: str) -> str:
    """Return “core.child 7, field slug: reason”, the form in which all messages name a record. A secret key is hidden,
    also in the reason."""
    if pk is not None and label in babybuddy.SECRET_KEYS:
        reason, pk = reason.replace(str(pk), HIDDEN), None
    place = label if pk is None else f"{label} {_short(pk)}"
    if field:
        place = _("%(record)s, field %(field)s") % {"record": place, "field": _short(field)}
    return place if not reason else _("%(place)s: %(reason)s") % {"place": place, "reason": reason}


def cannot_store(column: Column, value: object) -> str:
    """Return the reason for refusing a value that the database cannot hold."""
    return _("%(value)s cannot be stored in this database") % {"value": column.shown(value)}


#: The most places that a message names.
MAX_NAMED = 20


def refers_to_nothing(column: Column, key: object) -> str:
    """Return the reason, as a phrase, if a reference is dangling."""
    return nothing_there(column.refers_to, column.shown(key))


def nothing_there(label: str, key: object) -> str:
    """Return the reason, as a phrase, if a reference to a row of a model is dangling."""
    words = {"model": label, "key": HIDDEN if label in babybuddy.SECRET_KEYS else _short(key)}
    return _("it refers to %(model)s %(key)s, which is not there") % words


def place_of(label: str, pk: Plain, field: str | None, reason: str) -> Place:
    """Return a place for a file: short, and without a secret."""
    if label in babybuddy.SECRET_KEYS:
        reason, pk = reason.replace(str(pk), HIDDEN), None
    return Place(label, pk if type(pk) is int or pk is None else _short(pk), field, reason[:200])


def places_in_words(places: Places) -> list[str]:
    """Return lines for people that name the first places, and say how many more there are."""
    lines = [describe(p.model, p.pk, p.field, p.reason) for p in places.named[:MAX_NAMED]]
    if more := places.total - len(lines):
        lines.append(ngettext("and %(n)s more", "and %(n)s more", more) % {"n": more})
    return lines


def _short(value: object) -> str:
    """Shorten a value from a file for a message: one line, at most 80 characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:81])
    return text if len(text) <= 80 else text[:80] + "…"

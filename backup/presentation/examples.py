"""Example records of a preview in readable form: with the names of fields, and values in the viewer's language."""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import DatabaseError
from django.db.models import FileField
from django.template.defaultfilters import yesno
from django.utils.formats import date_format, localize
from django.utils.text import capfirst
from django.utils.translation import pgettext

from .. import babybuddy
from ..kinds import BOOLEAN, DATE, DATETIME, DURATION, FLOAT, INTEGER, NATURAL, TIME, Plain
from ..options import HIDDEN
from ..restore.preview import Samples
from ..tables import Column, Relation, Row, Table, are_same
from .names import grouped, number, shortened, titled


@dataclass(frozen=True)
class Value:
    """Field of an example record. `before`: its value here, if that differs; else None. `photo`: the checksum of
    the photo in the backup that it names; "" if it names none."""

    name: str
    text: str
    before: str | None = None
    photo: str = ""


@dataclass(frozen=True)
class Example:
    """Record in readable form. `values`: its fields; of a record that changes, those that differ. `about`: the fields
    that tell which record it is."""

    title: str
    values: list[Value]
    about: list[Value]


class Examples:
    """Puts example rows into readable form. Referenced records are called by their names, if they can be found.

    `photo_of`: from model label, field and value of a record of the backup to the checksum of its photo, or "".
    """

    def __init__(
        self,
        tables: dict[str, Table],
        samples: dict[str, Samples],
        zone: zoneinfo.ZoneInfo,
        photo_of: Callable[[str, str, Plain], str] = lambda label, field, name: "",
    ) -> None:
        self._tables, self._samples, self._zone, self._photo_of = tables, samples, zone, photo_of
        self._names = self._names_of_others()

    def of(self, label: str) -> dict[str, list[Example]]:
        """Return the examples of a model: added, changed, used, removed."""
        samples = self._samples.get(label, Samples())
        table = self._tables[label]
        return {
            "added": [self._whole(table, row, is_in_backup=True) for row in samples.added],
            "changed": [self._change(table, *rows) for rows in samples.changed],
            "used": [self._change(table, *rows) for rows in samples.used],
            "removed": [self._whole(table, row) for row in samples.removed],
        }

    def _whole(self, table: Table, row: Row, *, is_in_backup: bool = False) -> Example:
        kinds = {key: kind for kind, key in table.generics}
        values = []
        for place, part in enumerate(_parts(table), 1):
            if row[place] in (None, "", []) or place in kinds.values():
                continue
            if place in kinds:  # "Feeding: No. 7", not "Content type: Feeding, Object ID: 7"
                kind = self._text(table.columns[kinds[place]], row[kinds[place]])
                values.append(Value(kind, number(row[place])))
            else:
                photo = self._photo(table, part, row[place]) if is_in_backup else ""
                values.append(Value(field_name(table, part), self._text(part, row[place]), photo=photo))
        return Example(title_of(table, row), values, [])

    def _change(self, table: Table, current: Row, new: Row) -> Example:
        values, about = [], []
        date_column = babybuddy.date_column_of(table)
        for part, before, after in zip(_parts(table), current[1:], new[1:], strict=True):
            if are_same(before, after):
                if part is date_column or (
                    isinstance(part, Column) and part.refers_to and before is not None
                ):
                    about.append(Value(field_name(table, part), self._text(part, after)))
                continue
            texts = self._text(part, before), self._text(part, after)
            if (
                texts[0] == texts[1] != HIDDEN
            ):  # they differ in what is not shown, such as fractions of a second
                texts = shortened(str(before)), shortened(str(after))
            photo = self._photo(table, part, after)
            values.append(Value(field_name(table, part), texts[1], texts[0], photo))
        return Example(title_of(table, new), values, about)

    def _photo(self, table: Table, part: Column | Relation, value: Plain) -> str:
        is_file = isinstance(part, Column) and isinstance(part.field, FileField)
        return self._photo_of(table.label, part.name, value) if is_file else ""

    def _text(self, part: Column | Relation, value: Plain) -> str:
        if isinstance(part, Relation):
            if len(value) > 10:
                return grouped(len(value))
            return ", ".join(self._reference(part.target, key) for key in value) or _nothing()
        if value is None or value == "":
            return _nothing()
        if part.is_secret:
            return HIDDEN
        if isinstance(value, bytes):  # a value of a row here that cannot be read
            return shortened(value.decode(errors="replace"))
        if part.refers_to:
            return self._reference(part, value)
        choices = dict(getattr(part.field, "flatchoices", None) or ())
        if not isinstance(value, list | dict) and value in choices:
            return shortened(str(choices[value]))
        return shortened(_readable(part, value, self._zone))

    def _reference(self, column: Column, key: Plain) -> str:
        if isinstance(key, tuple):  # a natural key, of a content type or permission
            try:
                return (
                    str(capfirst(apps.get_model(*key)._meta.verbose_name)) if len(key) == 2 else str(key[0])
                )
            except LookupError:
                return ".".join(map(str, key))
        return self._names.get((column.refers_to, key)) or number(key)

    def _names_of_others(self) -> dict[tuple[str, Plain], str]:
        """Return (label, key) -> name for all records that the samples refer to."""
        wanted: dict[str, set[Plain]] = {}
        for label, samples in self._samples.items():
            table = self._tables[label]
            for row in samples.rows():
                for target, key in _references(table, row):
                    wanted.setdefault(target, set()).add(key)
        names = {}
        for label, keys in wanted.items():
            model = apps.get_model(label)
            load = self._tables[label].key.kind.load if label in self._tables else model._meta.pk.to_python
            try:
                loaded = {load(key): key for key in keys}
                current = model._base_manager.in_bulk([*loaded])
            except (OverflowError, ValueError, ValidationError, DatabaseError):
                current = {}  # the file contains something that cannot be a key
            for key, record in current.items():
                if key in loaded:  # MySQL also returns keys that differ in case
                    names[label, loaded[key]] = called(record)
            # A record that is not here may be among those that the backup adds.
            samples = self._samples.get(label, Samples())
            for row in samples.added:
                if row[0] in keys:
                    names.setdefault((label, row[0]), called(instance(self._tables[label], row)))
        return names


def _nothing() -> str:
    # Translators: a field without a value, as in "now: Green, in the backup: (nothing)"
    return pgettext("value", "(nothing)")


def title_of(table: Table, row: Row) -> str:
    """Return "Night (No. 8)"; the user's name for an API token, whose key is a secret."""
    if table.label in babybuddy.SECRET_KEYS:
        return called(instance(table, row))
    if table.key_is_data:
        return ""
    # The name of a record with references may be made of other records, which would take a query each.
    name = "" if table.references or table.generics else called(instance(table, row))
    return titled(name if name != str(table.model._meta.verbose_name) else "", row[0])


def _parts(table: Table) -> tuple[Column | Relation, ...]:
    return (*table.nonkey_columns, *table.relations)


def _references(table: Table, row: Row) -> Iterator[tuple[str, Plain]]:
    for place, label in table.references:
        if row[place] is not None and not isinstance(row[place], bytes):
            yield label, row[place]
    for place, relation in enumerate(table.relations, len(table.columns)):
        if relation.target.refers_to not in NATURAL and relation.target.refers_by_key:
            yield from ((relation.target.refers_to, key) for key in row[place][:10])


def instance(table: Table, row: Row) -> Any:
    """Return an unsaved instance of the model with the values of a row."""
    values = {
        column.field.attname: None if value is None or isinstance(value, bytes) else column.kind.load(value)
        for column, value in zip(table.columns, row, strict=False)
        if not column.is_natural
    }
    return table.model(**values)


def called(record: Any) -> str:
    """Return the name of a record, shortened; "" if its `__str__` fails. A token is called by its user."""
    try:
        if owner := babybuddy.SECRET_KEYS.get(record._meta.label_lower):
            record = getattr(record, owner)
        return shortened(str(record))
    except Exception:  # noqa: BLE001  a model's own code, which may not expect a record that is not in the database
        return ""


def field_name(table: Table, part: Column | Relation) -> str:
    """Return the model's own name of a field, in the viewer's language."""
    field: Any = table.model._meta.get_field(part.name)
    return str(capfirst(field.verbose_name))


def _readable(column: Column, value: Plain, zone: zoneinfo.ZoneInfo) -> str:
    kind = column.kind
    if kind is BOOLEAN:
        return str(yesno(value))
    if kind is DATETIME:
        moment = kind.load(value)
        with suppress(OverflowError):  # before the year 1 or after 9999 there
            moment = moment.astimezone(zone) if moment.tzinfo else moment
        return date_format(moment, "DATETIME_FORMAT")
    if kind is DATE:
        return date_format(kind.load(value), "DATE_FORMAT")
    if kind is TIME:
        return date_format(kind.load(value), "TIME_FORMAT")
    if kind is DURATION:
        return str(value).partition(".")[0]
    if kind in (INTEGER, FLOAT):
        return str(localize(value))
    return str(value)

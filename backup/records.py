"""Rows and records: what a model's table holds, as the fixture form that the file holds, and back.

Two forms of the same data, and nothing is lost between them:

- a **row** is a tuple of *plain* values, the primary key first, then the model's other columns, then one sorted list of
  keys for each plain many-to-many relation. A plain value is what JSON can say: a `datetime` is its ISO text, a NaN is
  "NaN". All other rooms work on rows; two rows that are equal hold the same data, on whatever database they were read.
- a **record** is Django's fixture form, `{"model": "core.feeding", "pk": 7, "fields": {…}}`.

Which plain form a field takes is its **kind**, chosen once a field from Django's own field classes: see `KINDS`.
Knows fields and relations of any model, live or historical; no files, no SQL, and nothing of any host.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property, lru_cache
from itertools import pairwise
from operator import itemgetter
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models import Field, Model
from django.utils import timezone
from django.utils.dateparse import parse_duration
from django.utils.duration import duration_string
from django.utils.encoding import is_protected_type
from django.utils.translation import gettext as _

from .exceptions import InvalidRecord
from .scope import generic_references, label_of

Plain = Any  # None, bool, int, float, str, or a list or dict of those
Row = tuple[Plain, ...]
Record = dict[str, Any]

#: Models whose rows each database numbers itself: references to them are natural keys.
NATURAL = {"contenttypes.contenttype": 2, "auth.permission": 3}


@dataclass(frozen=True)
class Kind:
    """How one sort of field is said in JSON.

    `dump`: the field's Python value -> plain. `check`: a value out of a file -> plain in its one canonical form, or
    `ValueError` with the reason. `load`: plain -> Python. None of them sees None, which every kind leaves as it is.
    `all_fine`: whether every value of a column, None among them, is in its canonical form: a short cut past `check`.
    """

    name: str
    dump: Callable[[Any], Plain]
    check: Callable[[Any], Plain]
    load: Callable[[Plain], Any]
    all_fine: Callable[[Sequence[Any]], bool] = lambda values: False


def _same(value: Any) -> Any:
    return value


def _of_type(cls: type, reason: Callable[[], str]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) is not cls:  # so that true is no 1
            raise ValueError(reason())
        return value

    return check


_UNBOUNDED = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def plain_float(value: float) -> float | str:
    """NaN and the infinities by name, since JSON has no number for them; every other float as it is."""
    if value - value == 0:
        return value
    if value != value:
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


_UNBOUNDED_VALUES = {float("inf"), float("-inf")}  # no JSON parser of ours makes a NaN


def _check_float(value: Any) -> float | str:
    if type(value) is float:
        return plain_float(value)
    if type(value) is int:
        return float(value)
    if isinstance(value, str) and value in _UNBOUNDED:
        return value
    raise ValueError(_("a number is needed"))


def load_float(value: float | str) -> float:
    return _UNBOUNDED[value] if isinstance(value, str) else value


def plain_datetime(value: dt.datetime) -> str:
    """ISO 8601 in UTC, to the microsecond; without a zone where the project has none (`USE_TZ = False`)."""
    if value.tzinfo is None:
        return value.isoformat()
    return value.astimezone(dt.timezone.utc).replace(tzinfo=None).isoformat() + "Z"


def _parse_datetime(value: Any) -> dt.datetime:
    if not isinstance(value, str):
        raise ValueError(_("a date and time is needed"))
    try:
        moment = dt.datetime.fromisoformat(value[:-1] + "+00:00" if value.endswith("Z") else value)
        # A backup of a project with time zones, restored into one without, and the other way round.
        if settings.USE_TZ and moment.tzinfo is None:
            return timezone.make_aware(moment)
        if not settings.USE_TZ and moment.tzinfo is not None:
            return timezone.make_naive(moment)
        return moment.astimezone(dt.timezone.utc) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        raise ValueError(_("a date and time is needed")) from None


def _parse_date(value: Any) -> dt.date:
    try:
        return dt.date.fromisoformat(value)
    except (ValueError, TypeError):
        raise ValueError(_("a date is needed")) from None


def _parse_time(value: Any) -> dt.time:
    try:
        parsed = dt.time.fromisoformat(value)
    except (ValueError, TypeError):
        parsed = None
    if parsed is None or parsed.tzinfo is not None:
        raise ValueError(_("a time of day is needed"))
    return parsed


def _parse_duration(value: Any) -> dt.timedelta:
    try:
        parsed = parse_duration(value) if value else None  # Django takes "" for zero
    except (ValueError, TypeError, OverflowError):
        parsed = None
    if parsed is None:
        raise ValueError(_("a duration is needed"))
    return parsed


def _parse_decimal(value: Any) -> Decimal:
    try:
        if isinstance(value, str):
            return Decimal(value)
    except InvalidOperation:
        pass
    raise ValueError(_("a decimal number, as text, is needed"))


def _parse_uuid(value: Any) -> UUID:
    try:
        return UUID(value)
    except (ValueError, TypeError, AttributeError):
        raise ValueError(_("a UUID is needed")) from None


def _parse_binary(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise ValueError(_("base64 is needed")) from None


def _dump_binary(value: Any) -> str:
    return base64.b64encode(bytes(value)).decode("ascii")


#: JSON's null, where a column also knows SQL's NULL: `null` in a record is SQL's, as in Django's own fixtures.
_JSON_NULL = "$json"


def _finite(number: str) -> float:
    value = float(number)
    if value - value != 0:
        raise ValueError(number)
    return value


def _whole(number: str) -> int:
    _finite(number)
    return int(number)


def parse_json(text: str) -> Any:
    """What a column's JSON text says. Raises `ValueError` where it is none, or a number is beyond what a float holds
    (`1e999`, which PostgreSQL writes out): Python would take it for infinity, which the file would turn into null, and
    no reader of ours takes so large a whole number either."""
    return json.loads(text, parse_float=_finite, parse_int=_whole, parse_constant=_finite)


def plain_json(value: Any, nullable: bool) -> Plain:
    """A JSON value that a column holds, so that it cannot be taken for the column being NULL."""
    if nullable and (value is None or (isinstance(value, dict) and value.keys() == {_JSON_NULL})):
        return {_JSON_NULL: value}
    return value


def load_json(value: Plain, nullable: bool) -> Any:
    if nullable and isinstance(value, dict) and value.keys() == {_JSON_NULL}:
        return value[_JSON_NULL]
    return value


#: What Django's `duration_string` says, and nothing else.
_DURATION = re.compile(
    r"(?:-?[1-9]\d{0,8} )?(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.(?!000000)\d{6})?", re.ASCII
)


def _parsed_kind(
    name: str,
    dump: Callable[[Any], str],
    parse: Callable[[Any], Any],
    canonical: re.Pattern[str] | None = None,
) -> Kind:
    """`canonical`: what matches it need not be parsed, to be told that it is right."""

    def check(value: Any) -> str:
        if canonical and isinstance(value, str) and canonical.fullmatch(value):
            return value
        return dump(parse(value))

    # Dates and durations come again and again; the same one need not be parsed again.
    known = lru_cache(maxsize=4096)(check)

    def all_fine(values: Sequence[Any]) -> bool:
        try:
            return all(value is None or known(value) == value for value in set(values))
        except (ValueError, TypeError):
            return False

    return Kind(name, dump, check, parse, all_fine)


def _all_of_type(*types: type) -> Callable[[Sequence[Any]], bool]:
    allowed = {*types, type(None)}
    return lambda values: allowed.issuperset(map(type, values))


_ZEROS = str.maketrans("123456789", "000000000")
_UTC_SHAPES = {"0000-00-00T00:00:00Z", "0000-00-00T00:00:00.000000Z"}


def _all_utc(values: Sequence[Any]) -> bool:
    """Whether all are moments in the form that `plain_datetime` gives. A column at once costs a tenth of what parsing
    each value and saying it again does: the shape says that the form is the one, parsing that there is such a moment.
    """
    try:
        moments = [value for value in values if value is not None] if None in values else values
        text = "\n".join(moments)
        if not settings.USE_TZ or text.count("\n") + 1 != len(moments):
            return not moments
        if ".000000Z" in text or "T24" in text:  # the latter is midnight, to Python 3.14
            return False
        if not _UTC_SHAPES.issuperset(text.translate(_ZEROS).split("\n")):
            return False
        return all(map(dt.datetime.fromisoformat, text.replace("Z", "").split("\n")))
    except (ValueError, TypeError):
        return False


INTEGER = Kind(
    "integer", _same, _of_type(int, lambda: _("a whole number is needed")), _same, _all_of_type(int)
)
FLOAT = Kind(
    "float",
    plain_float,
    _check_float,
    load_float,
    lambda values: {float, type(None)}.issuperset(map(type, values)) and _UNBOUNDED_VALUES.isdisjoint(values),
)
BOOLEAN = Kind(
    "boolean", bool, _of_type(bool, lambda: _("true or false is needed")), _same, _all_of_type(bool)
)
TEXT = Kind("text", str, _of_type(str, lambda: _("text is needed")), _same, _all_of_type(str))
DATETIME = Kind(
    "datetime",
    plain_datetime,
    lambda value: plain_datetime(_parse_datetime(value)),
    _parse_datetime,
    _all_utc,
)
DATE = _parsed_kind("date", dt.date.isoformat, _parse_date)
TIME = _parsed_kind("time", dt.time.isoformat, _parse_time)
DURATION = _parsed_kind("duration", duration_string, _parse_duration, _DURATION)
DECIMAL = _parsed_kind("decimal", str, _parse_decimal)
UUID_ = _parsed_kind("uuid", str, _parse_uuid)
BINARY = _parsed_kind("binary", _dump_binary, _parse_binary)
JSON = Kind("json", _same, _same, _same)

#: Django's `Field.get_internal_type()` -> kind. What is not here (a PostgreSQL array, a custom field) goes through the
#: field's own `value_to_string` and `to_python`, as in Django's serializers.
KINDS: dict[str, Kind] = {
    **dict.fromkeys(
        [f"{size}{base}Field" for size in ("", "Big", "Small") for base in ("Auto", "Integer")]
        + [f"Positive{size}IntegerField" for size in ("", "Big", "Small")],
        INTEGER,
    ),
    **dict.fromkeys(
        [f"{name}Field" for name in ("Char", "Text", "Slug", "Email", "URL", "File", "FilePath")]
        + [f"{name}Field" for name in ("GenericIPAddress", "CommaSeparatedInteger")],
        TEXT,
    ),
    "BooleanField": BOOLEAN,
    "FloatField": FLOAT,
    "DateTimeField": DATETIME,
    "DateField": DATE,
    "TimeField": TIME,
    "DurationField": DURATION,
    "DecimalField": DECIMAL,
    "UUIDField": UUID_,
    "BinaryField": BINARY,
    "JSONField": JSON,
}


def _own_kind(field: Field) -> Kind:
    """The kind of a field that only its own class knows how to say."""

    def dump(value: Any) -> Plain:
        if is_protected_type(value) and not isinstance(value, (dt.date, dt.time, dt.timedelta, Decimal)):
            return plain_float(value) if isinstance(value, float) else value
        return field.value_to_string(SimpleNamespace(**{field.attname: value}))  # type: ignore[arg-type]

    def load(value: Any) -> Any:
        try:
            return field.to_python(value)
        except ValidationError as error:
            raise ValueError(" ".join(error.messages)) from None

    def check(value: Any) -> Plain:
        load(value)
        return value

    return Kind("own", dump, check, load)


def _natural_kind(length: int) -> Kind:
    def check(value: Any) -> Plain:
        if isinstance(value, list) and len(value) == length and all(type(part) is str for part in value):
            return value
        raise ValueError(_("a natural key, a list of %(length)s texts, is needed") % {"length": length})

    def all_fine(values: Sequence[Any]) -> bool:
        # They are few, and come again and again.
        if not {list, type(None)}.issuperset(map(type, values)):
            return False
        different = {tuple(value) for value in values if value is not None}
        return all(len(parts) == length and {str}.issuperset(map(type, parts)) for parts in different)

    return Kind("natural", _same, check, _same, all_fine)


def _target_of(field: Field) -> Field:
    """The field at the end of a chain of references, whose type the column has."""
    while field.remote_field is not None and getattr(field, "target_field", None) is not None:
        field = field.target_field  # type: ignore[attr-defined]
    return field


def _kind_of(field: Field) -> Kind:
    target = _target_of(field)
    if field is not target and label_of(target.model) in NATURAL and target.primary_key:
        return _natural_kind(NATURAL[label_of(target.model)])
    own_conversion = hasattr(target, "from_db_value") and not type(target).__module__.startswith(
        "django.db.models."
    )
    kind = None if own_conversion else KINDS.get(target.get_internal_type())
    return kind or _own_kind(target)


@dataclass(frozen=True)
class Column:
    """One column of a model's table. `name`: the field's; `column`: the database's."""

    field: Field
    kind: Kind
    #: The model whose key the column holds, "" where it is no reference.
    refers_to: str

    @classmethod
    def of(cls, field: Field) -> Column:
        remote = field.remote_field
        return cls(field, _kind_of(field), label_of(remote.model) if remote is not None else "")

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
    def refers_by_key(self) -> bool:
        """Whether the reference holds the other row's primary key, and not another unique field of it (`to_field`)."""
        return bool(self.refers_to) and bool(self.field.target_field.primary_key)  # type: ignore[attr-defined]

    @property
    def all_fine(self) -> Callable[[Sequence[Any]], bool]:
        if self.field.null or self.kind is JSON:  # the JSON value null is no missing value
            return self.kind.all_fine
        return lambda values: None not in values and self.kind.all_fine(values)

    def checker(self) -> Callable[[Any], Plain]:
        check = self.kind.check
        nullable = self.field.null or self.kind is JSON

        def checked(value: Any) -> Plain:
            if value is not None:
                return check(value)
            if nullable:
                return None
            raise ValueError(_("a value is needed"))

        return checked


@dataclass(frozen=True)
class Relation:
    """A plain many-to-many relation: its own table, which no model but Django's automatic one stands for."""

    name: str
    table: str
    owner: str  # the column with the owner's key
    target: Column

    @classmethod
    def of(cls, field: Any) -> Relation:
        through = field.remote_field.through
        target = Column.of(through._meta.get_field(field.m2m_reverse_field_name()))
        return cls(field.name, through._meta.db_table, field.m2m_column_name(), target)

    @property
    def all_fine(self) -> Callable[[Sequence[Any]], bool]:
        return lambda values: not any(values) and {list}.issuperset(map(type, values))

    def checker(self) -> Callable[[Any], Plain]:
        check = self.target.kind.check

        def checked(value: Any) -> Plain:
            if not isinstance(value, list):
                raise ValueError(_("a list of keys is needed"))
            keys = in_order(check(key) for key in value)
            if any(a == b for a, b in pairwise(keys)):
                raise ValueError(_("a key stands twice in the list"))
            return keys

        return checked


def in_order(keys: Iterable[Plain]) -> list[Plain]:
    """The keys of a many-to-many list in the one order that rows keep them in."""
    return sorted(keys, key=lambda key: (isinstance(key, (str, list)), key))


class Table:
    """A model as its rows: columns, relations, and what makes a row the same row.

    `identities`: more sets of fields that together say which row a record is, beside the unique ones that the model
    declares.
    """

    def __init__(self, model: type[Model], identities: Iterable[Sequence[str]] = ()) -> None:
        meta = model._meta
        self.model = model
        self.label = label_of(model)
        self.db_table = meta.db_table
        self.key = Column.of(meta.pk)
        self.columns = tuple(
            Column.of(field)
            for field in meta.local_concrete_fields
            if not field.primary_key and not getattr(field, "generated", False)
        )
        self.relations = tuple(
            Relation.of(field)
            for field in meta.local_many_to_many
            if field.remote_field.through._meta.auto_created  # type: ignore[union-attr]
        )
        parts: tuple[Column | Relation, ...] = (*self.columns, *self.relations)
        self.names = tuple(part.name for part in parts)
        self._identities = tuple(identities)

    def __repr__(self) -> str:
        return f"<Table {self.label}>"

    @property
    def file(self) -> str:
        return self.label.replace(".", "/", 1) + ".json"

    @property
    def stored(self) -> tuple[Column, ...]:
        """All columns of the table itself, in the order that a row has them."""
        return (self.key, *self.columns)

    @cached_property
    def needs_exact_json(self) -> bool:
        """Whether values may be JSON of any shape, with whole numbers beyond 64 bits."""
        return any(column.kind is JSON or column.kind.name == "own" for column in self.stored)

    @cached_property
    def uniques(self) -> list[tuple[int, ...]]:
        """The sets of columns, as positions in a row, whose values belong to one row only, the primary key aside.

        Declared ones that hold for every row; a constraint with a condition or an expression is left to the database.
        """
        meta = self.model._meta
        names: list[Sequence[str]] = [
            (f.name,) for f in meta.local_concrete_fields if f.unique and not f.primary_key
        ]
        names += meta.unique_together
        names += [constraint.fields for constraint in meta.total_unique_constraints]
        names += self._identities
        places = {column.name: place for place, column in enumerate(self.stored)}
        found = [tuple(places[name] for name in group) for group in names if all(n in places for n in group)]
        return [group for group in dict.fromkeys(found) if group != (0,)]

    @cached_property
    def references(self) -> list[tuple[int, str]]:
        """(place in a row, label of the other model) of each column that holds another row's primary key."""
        return [
            (place, column.refers_to)
            for place, column in enumerate(self.stored)
            if column.refers_by_key and not column.is_natural
        ]

    @cached_property
    def generics(self) -> list[tuple[int, int]]:
        """(place of the content type, place of the key) of each generic reference."""
        places = {column.name: place for place, column in enumerate(self.stored)}
        return [
            (places[ct], places[key])
            for ct, key in generic_references(self.model)
            if ct in places and key in places
        ]

    @cached_property
    def key_is_data(self) -> bool:
        """Whether the primary key says something itself (an API token), so that it cannot be exchanged for another."""
        field = self.key.field
        return not self.key.refers_to and not field.has_default() and self.key.kind is not INTEGER

    @cached_property
    def frame(self) -> list[bytes]:
        """What a record is in JSON, without its values: what stands before the key and each part, and the end."""
        before = [f'{{"model":"{self.label}","pk":', *(f',"{name}":' for name in self.names), "}}"]
        before[1] = ',"fields":{' + before[1].removeprefix(",")
        return [text.encode() for text in before]

    def columns_of(self, records: Sequence[Any]) -> list[Sequence[Plain]]:
        """Records out of a file as the columns of their rows, every value checked and in its canonical form.

        Raises `InvalidRecord` with model, key, field and reason.
        """
        count = len(self.names)
        try:
            fields = [record["fields"] for record in records]
            if (
                {3}.issuperset(map(len, records))
                and {self.label}.issuperset(map(itemgetter("model"), records))
                and {count}.issuperset(map(len, fields))
            ):
                values = zip(*map(self._values, fields), strict=True) if count else ()
                columns = [[record["pk"] for record in records], *values]
                return [
                    some if part.all_fine(some) else list(map(check, some))
                    for part, check, some in zip(self._parts, self._checks, columns, strict=True)
                ]
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            pass  # slowly, one by one, to find which it is
        return list(zip(*map(self.row, records), strict=True))

    def row(self, record: Any) -> Row:
        """One record as its row, like `columns_of`."""
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
        return (self.key, *self.columns, *self.relations)

    @cached_property
    def _values(self) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
        if len(self.names) > 1:
            return itemgetter(*self.names)
        return lambda fields: tuple(fields[name] for name in self.names)

    @cached_property
    def _checks(self) -> list[Callable[[Any], Plain]]:
        return [part.checker() for part in self._parts]

    def _what_is_wrong(self, record: Any) -> InvalidRecord:
        """The error for a record that `row` could not read: slow, and only for that."""
        if not isinstance(record, dict) or not isinstance(record.get("fields"), dict) or "pk" not in record:
            return self.invalid(_("it has not the form of a record"))
        pk, fields = record["pk"], record["fields"]
        if record.get("model") != self.label:
            return self.invalid(_("it says that it is of another model"), pk)
        for unknown in [name for name in record if name not in ("model", "pk", "fields")]:
            return self.invalid(
                _("it has a part “%(name)s” that no record has") % {"name": _short(unknown)}, pk
            )
        for name in fields:
            if name not in self.names:
                return self.invalid(_("this site has no such field"), pk, name)
        for name, check in zip(("pk", *self.names), self._checks, strict=True):
            if name != "pk" and name not in fields:
                return self.invalid(_("it is missing"), pk, name)
            try:
                check(pk if name == "pk" else fields[name])
            except (ValueError, TypeError, AttributeError) as error:
                return self.invalid(str(error), pk, name)
        return self.invalid(_("it has not the form of a record"), pk)

    def invalid(self, reason: str, pk: object = None, field: str | None = None) -> InvalidRecord:
        """`InvalidRecord` for one of this model's records, `reason` being why."""
        return InvalidRecord(describe(self.label, pk, field, reason), model=self.label, pk=pk, field=field)


def describe(label: str, pk: object, field: str | None, reason: str) -> str:
    """“core.child 7, field slug: reason” - the way every message names a record."""
    place = label if pk is None else f"{label} {_short(pk)}"
    if field:
        place = _("%(record)s, field %(field)s") % {"record": place, "field": _short(field)}
    return _("%(place)s: %(reason)s") % {"place": place, "reason": reason}


def _short(value: object) -> str:
    """A value out of a file for a message: on one line, and not long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:81])
    return text if len(text) <= 80 else text[:80] + "…"

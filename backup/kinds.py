"""Field type <-> canonical JSON value: which plain form each of Django's fields takes, and how it is checked.

A plain value is what JSON can say: a `datetime` is its ISO text, a NaN is "NaN". The kind of a field is chosen once,
from Django's own field classes: see `KINDS`. Knows fields of any model, live or historical; no files and no SQL.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models import Field
from django.utils import timezone
from django.utils.dateparse import parse_duration
from django.utils.duration import duration_string
from django.utils.encoding import is_protected_type
from django.utils.translation import gettext as _

from .scope import label_of

Plain = Any  # None, bool, int, float, str, or a list or dict of those

#: Models whose rows each database numbers itself: references to them are natural keys.
NATURAL = {"contenttypes.contenttype": 2, "auth.permission": 3}


@dataclass(frozen=True)
class Kind:
    """How one sort of field is said in JSON.

    `dump`: the field's Python value -> plain. `check`: a value out of a file -> plain in its one canonical form, or
    `ValueError` with the reason. `load`: plain -> Python. None of them sees None, which every kind leaves as it is.
    `all_canonical`: whether all values of a column, None among them, are in canonical form: a shortcut past `check`.
    """

    name: str
    dump: Callable[[Any], Plain]
    check: Callable[[Any], Plain]
    load: Callable[[Plain], Any]
    all_canonical: Callable[[Sequence[Any]], bool] = lambda values: False


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

    def all_canonical(values: Sequence[Any]) -> bool:
        try:
            return all(value is None or known(value) == value for value in set(values))
        except (ValueError, TypeError):
            return False

    return Kind(name, dump, check, parse, all_canonical)


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


def _own_kind(field: Field[Any, Any]) -> Kind:
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

    def all_canonical(values: Sequence[Any]) -> bool:
        # They are few, and come again and again.
        if not {list, type(None)}.issuperset(map(type, values)):
            return False
        different = {tuple(value) for value in values if value is not None}
        return all(len(parts) == length and {str}.issuperset(map(type, parts)) for parts in different)

    return Kind("natural", _same, check, _same, all_canonical)


def _target_of(field: Field[Any, Any]) -> Field[Any, Any]:
    """The field at the end of a chain of references, whose type the column has."""
    while field.remote_field is not None and getattr(field, "target_field", None) is not None:
        field = field.target_field  # type: ignore[attr-defined]
    return field


def kind_of(field: Field[Any, Any]) -> Kind:
    target = _target_of(field)
    if field is not target and label_of(target.model) in NATURAL and target.primary_key:
        return _natural_kind(NATURAL[label_of(target.model)])
    own_conversion = hasattr(target, "from_db_value") and not type(target).__module__.startswith(
        "django.db.models."
    )
    kind = None if own_conversion else KINDS.get(target.get_internal_type())
    return kind or _own_kind(target)

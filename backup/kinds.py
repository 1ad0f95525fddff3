"""Converts the values of Django's fields to JSON and back: `Kind`, and which field has which kind.

A plain value is one that JSON can express: a `datetime` is its ISO text, a NaN is "NaN". Each plain value has one
canonical form, so that two values are the same if and only if their plain values are (see `tables.are_same`). Works
with fields of live and of historical models; knows no files and no SQL.
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

#: None, bool, int, float, str, or a list or dict of those.
Plain = Any

#: Models whose rows each database numbers itself -> the number of texts in their natural key. References to them are
#: natural keys.
NATURAL = {"contenttypes.contenttype": 2, "auth.permission": 3}


@dataclass(frozen=True, eq=False)
class Kind:
    """How one kind of field is expressed in JSON.

    `dump` converts the field's Python value to a plain one, and `load` converts it back. `check` takes a value from a
    file and returns it in canonical form, or raises `ValueError` with the reason. None of the three is called with
    None, which all kinds keep as it is. `all_canonical` tells whether all values of a column (None included) are in
    canonical form, so that `check` can be skipped; False if it cannot tell.
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
        if type(value) is not cls:  # true is not accepted for 1
            raise ValueError(reason())
        return value

    return check


UNBOUNDED = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def plain_float(value: float) -> float | str:
    """Return NaN and the infinities by name, since JSON has no number for them, and every other float unchanged."""
    if value - value == 0:
        return value
    if value != value:
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


_UNBOUNDED_VALUES = {float("inf"), float("-inf")}  # our JSON parsers never return a NaN


def _check_float(value: Any) -> float | str:
    if type(value) is float:
        return plain_float(value)
    if type(value) is int:
        return float(value)
    if isinstance(value, str) and value in UNBOUNDED:
        return value
    raise ValueError(_("a number is needed"))


def load_float(value: float | str) -> float:
    return UNBOUNDED[value] if isinstance(value, str) else value


def plain_datetime(value: dt.datetime) -> str:
    """Return ISO 8601 in UTC, to the microsecond; without an offset if the project has no time zones (`USE_TZ`)."""
    if value.tzinfo is None:
        return value.isoformat()
    return value.astimezone(dt.timezone.utc).replace(tzinfo=None).isoformat() + "Z"


def _parse_datetime(value: Any) -> dt.datetime:
    try:
        if not isinstance(value, str):
            raise ValueError(value)
        moment = dt.datetime.fromisoformat(value[:-1] + "+00:00" if value.endswith("Z") else value)
        # The backup may be of a project with time zones and this one be without, or the other way round.
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
        # Python 3.14 parses 24:00 as midnight.
        parsed = None if str(value).startswith("24") else dt.time.fromisoformat(value)
    except (ValueError, TypeError):
        parsed = None
    if parsed is None or parsed.tzinfo is not None:
        raise ValueError(_("a time of day is needed"))
    return parsed


def _parse_duration(value: Any) -> dt.timedelta:
    try:
        parsed = parse_duration(value) if value else None  # Django parses "" as zero
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


#: Marks JSON's null in a nullable JSON field, where `null` in a record is SQL's NULL, as in Django's fixtures.
_JSON_NULL = "$json"


def _finite(number: str) -> float:
    value = float(number)
    if value - value != 0:
        raise ValueError(number)
    return value


def _whole(number: str) -> int:
    _finite(number)
    return int(number)


#: Matches what may be half of a surrogate pair, in the text of JSON.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str | bytes) -> Any:
    """Parse the text of a JSON column.

    Raises `ValueError` if it is not JSON; if a number is too large for a float (`1e999`, which PostgreSQL accepts):
    Python would parse it as infinity, which the file would turn into null; or if half of a surrogate pair is in it
    (`"\\ud83d"`, which SQLite accepts): no file can hold that.
    """
    value = json.loads(text, parse_float=_finite, parse_int=_whole, parse_constant=_finite)
    if isinstance(text, bytes) or _SURROGATE.search(text):
        _check_writable(value)
    return value


def _check_writable(value: Plain) -> None:
    """Raise `ValueError` or `TypeError` if a value cannot be written as JSON in UTF-8."""
    json.dumps(value, ensure_ascii=False).encode()


def plain_json(value: Any, nullable: bool) -> Plain:
    """Wrap JSON's null in a nullable field, so that it cannot be mistaken for SQL's NULL."""
    if nullable and (value is None or (isinstance(value, dict) and value.keys() == {_JSON_NULL})):
        return {_JSON_NULL: value}
    return value


def load_json(value: Plain, nullable: bool) -> Any:
    """Undo `plain_json`."""
    if nullable and isinstance(value, dict) and value.keys() == {_JSON_NULL}:
        return value[_JSON_NULL]
    return value


#: Matches exactly what Django's `duration_string` returns.
_DURATION = re.compile(
    r"(?:-?[1-9]\d{0,8} )?(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.(?!000000)\d{6})?", re.ASCII
)


def _parsed_kind(
    name: str,
    dump: Callable[[Any], str],
    parse: Callable[[Any], Any],
    canonical: re.Pattern[str] | None = None,
) -> Kind:
    """Return a kind whose values are checked by parsing them. Texts that match `canonical` need no parsing."""

    def check(value: Any) -> str:
        if canonical and isinstance(value, str) and canonical.fullmatch(value):
            return value
        return dump(parse(value))

    # The same dates and durations occur again and again; parse each once.
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
    """Tell whether all values are what `plain_datetime` returns.

    Ten times as fast as checking each value: the shape of the text shows that the form is canonical, and parsing it
    shows that the date exists.
    """
    try:
        moments = [value for value in values if value is not None] if None in values else values
        text = "\n".join(moments)
        if not settings.USE_TZ or text.count("\n") + 1 != len(moments):
            return not moments
        if ".000000Z" in text or "T24" in text:  # Python 3.14 parses the latter as midnight
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

#: Django's `Field.get_internal_type()` -> kind. Other fields (a PostgreSQL array, a custom field) are converted by
#: their own `value_to_string` and `to_python`, as in Django's serializers.
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


def _are_equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except (TypeError, ValueError):  # an array says of each element whether it is equal
        return False


def _own_kind(field: Field[Any, Any]) -> Kind:
    """Return a kind that converts values with the field's own methods."""

    def dump(value: Any) -> Plain:
        if is_protected_type(value) and not isinstance(value, (dt.date, dt.time, dt.timedelta, Decimal)):
            plain = plain_float(value) if isinstance(value, float) else value
        else:
            plain = text_of(value)
            _check_writable(plain)
        again = load(plain)  # columns can hold more than their fields take; nobody could restore that
        # A field that does not know its own text would change the value with each restore.
        if not (_are_equal(again, value) or is_stored_alike(again, value)) or is_stored_as_null(value):
            raise ValueError(plain)
        return plain

    def text_of(value: Any) -> Plain:
        return field.value_to_string(SimpleNamespace(**{field.attname: value}))  # type: ignore[arg-type]

    def is_stored_alike(one: Any, other: Any) -> bool:
        """Tell whether two values are written into the column alike. Some values equal nothing: NaN, for one."""
        prepared = field.get_prep_value(one), field.get_prep_value(other)
        if _are_equal(*prepared) or repr(prepared[0]) == repr(prepared[1]):
            return True
        return prepared[0] is one and prepared[1] is other and str(text_of(one)) == str(text_of(other))

    def is_stored_as_null(value: Any) -> bool:
        return field.get_prep_value(value) is None

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
    """Return the kind of a reference by natural key, `length` texts; or a number, which points at nothing.

    The texts are a list in a record. They are a tuple in a row, since they may be its primary key.
    """

    def check(value: Any) -> Plain:
        if type(value) is int:
            return value
        if (
            isinstance(value, list | tuple)
            and len(value) == length
            and all(type(part) is str for part in value)
        ):
            return tuple(value)
        raise ValueError(_("a natural key, a list of %(length)s texts, is needed") % {"length": length})

    def all_canonical(values: Sequence[Any]) -> bool:
        # There are only a few different ones; check each once.
        if not {tuple, type(None)}.issuperset(map(type, values)):
            return False
        return all(
            len(parts) == length and {str}.issuperset(map(type, parts)) for parts in {*values} - {None}
        )

    return Kind("natural", _same, check, _same, all_canonical)


@lru_cache(maxsize=4096)
def places_of(number: str) -> int:
    """Return how many decimal places a plain decimal number needs."""
    exponent = Decimal(number).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def most_places(field: Field[Any, Any]) -> int | None:
    """Return how many decimal places the column of a field has; None if it is not for decimal numbers."""
    return getattr(target_of(field), "decimal_places", None)


def target_of(field: Field[Any, Any]) -> Field[Any, Any]:
    """Follow a chain of references to the field whose type the column has."""
    while field.remote_field is not None and getattr(field, "target_field", None) is not None:
        field = field.target_field  # type: ignore[attr-defined]
    return field


def kind_of(field: Field[Any, Any]) -> Kind:
    """Return the kind of a field; of a reference, the kind of the key that it holds."""
    target = target_of(field)
    if field is not target and label_of(target.model) in NATURAL and target.primary_key:
        return _natural_kind(NATURAL[label_of(target.model)])
    own_conversion = hasattr(target, "from_db_value") and not type(target).__module__.startswith(
        "django.db.models."
    )
    kind = None if own_conversion else KINDS.get(target.get_internal_type())
    return kind or _own_kind(target)

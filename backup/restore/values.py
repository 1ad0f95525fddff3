"""Finds values in a backup that the host cannot cope with, though a database can hold them: values that its validators
refuse, empty texts that must not be empty, names that lead out of a file's storage, and what `babybuddy` adds to that.
Also what the database cannot hold, so that a preview tells it already.

Columns are checked one at a time, and each value once. Most columns need no check.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from django.core.exceptions import SuspiciousFileOperation, ValidationError
from django.core.files.utils import validate_file_name
from django.db.models import FileField
from django.utils.translation import gettext as _

from .. import babybuddy
from ..archive.names import shown
from ..babybuddy import Validator, Validators
from ..database import Database, refuse_records
from ..exceptions import RecordsConflict
from ..kinds import DATETIME, DECIMAL, DURATION, FLOAT, TEXT, Plain
from ..tables import MAX_NAMED, Batch, Column, Table, describe

#: Returns what is wrong with a value; None if nothing is.
Check = Callable[[Plain], "str | None"]


class ValueChecks:
    """The checks of all tables. `validators`: those that the host's models do not declare themselves. `database`: where
    the values are to go; None if it can hold them. `of_database`: whether they come from a database file. `superuser`:
    whether what the host accepts is only warned of, see `Validator.is_accepted`."""

    def __init__(
        self,
        validators: Validators,
        database: Database | None = None,
        of_database: bool = False,
        superuser: bool = True,
    ) -> None:
        self._validators = validators
        self._database = database
        self._superuser = superuser
        #: What people can do about a value that is refused, a sentence.
        self._way_on = way_on(of_database)
        #: Warnings about values that will be corrected, or that the host accepts, each once.
        self.warnings: list[str] = []
        self._checks: dict[Table, list[tuple[int, Check, bool]]] = {}
        #: (Table, values that identify one of its records) -> key of the record.
        self._identified: dict[tuple[Table, tuple[Plain, ...]], Plain] = {}

    def check(self, table: Table, batch: Batch) -> None:
        """Check a batch of records. Raises `InvalidRecord`, `RecordsConflict`, `RecordsRefused`."""
        if table not in self._checks:
            self._checks[table] = [*self._checks_of(table)]
        for place, check, is_accepted in self._checks[table]:
            values = batch[place]
            if isinstance(check, _Moments) and not check.may_be_wrong(values):
                continue
            for value in _different(values):
                if reason := check(value):
                    key = batch[0][values.index(value)]
                    self._judge(table, key, table.columns[place], value, reason, is_accepted=is_accepted)
        for place, column in enumerate(table.columns):
            validator = self._validators.get((table.label, column.name))
            # Most values are there many times. If one of them is at fault, its record is looked for.
            if column.kind is FLOAT and _all_finite(batch[place]):
                continue
            if validator and (validator.also or any(map(validator.check, _different(batch[place])))):
                self._check_records(table, batch, place, validator)
        self._check_identities(table, batch)
        self._check_held(table, batch)

    def _checks_of(self, table: Table) -> Iterable[tuple[int, Check, bool]]:
        """Yield the position of a column, its check, and whether the host accepts what it finds."""
        for place, column in enumerate(table.columns):
            if column.refers_to:
                continue
            may_be_empty = column.field.blank or babybuddy.may_be_empty(table.label, column.name)
            if column.kind is TEXT and not may_be_empty:
                yield place, _emptiness, False
            if column.kind is DATETIME:
                if too_late := babybuddy.latest(table.label):
                    yield place, _Moments("", too_late, babybuddy.too_far_in_the_future), False
                yield place, _Moments(*_IN_EVERY_ZONE, _not_in_every_zone), True
            if isinstance(column.field, FileField):
                # Its validators may read the file itself, which need not be in the backup.
                yield place, _file_name, False
            elif (own := own_validators(column)) and babybuddy.is_validated(table.label, column.name):
                yield place, _validity(column, own), babybuddy.is_of_plug_in(table.label)

    def _check_held(self, table: Table, batch: Batch) -> None:
        """Raise `RecordsRefused` as the database would, for values that it cannot hold."""
        database = self._database
        if database is None:
            return
        lines: list[str] = []
        for place, column in enumerate(table.columns):
            reasons: dict[Plain, str | None] = {}
            for value in self._unlikely(database, column, batch[place]):
                reasons[value] = database.why_refused(table, column, value)
            if any(reasons.values()):
                lines += [
                    describe(table.label, key, column.name, reason)
                    for key, value in zip(batch[0], batch[place], strict=True)
                    if isinstance(value, Hashable) and (reason := reasons.get(value))
                ]
        # Texts may each fit into a statement, but not all of a row.
        texts = [
            batch[place]
            for place, column in enumerate(table.columns)
            if column.kind is TEXT and not column.field.max_length
        ]
        if len(texts) > 1 and database.fits_surely < sys.maxsize and not lines:
            for key, *row in zip(batch[0], *texts, strict=True):
                text = "".join(filter(None, row))
                if reason := database.why_too_long(text):
                    lines.append(describe(table.label, key, None, reason))
        refuse_to_write(lines, self._way_on)

    def _unlikely(self, database: Database, column: Column, values: Sequence[Any]) -> Iterable[Plain]:
        """Return the values of a column that a database may not hold, found without a look into each."""
        kind = column.kind
        if kind is TEXT and database.IS_SERVER:
            most = min(column.field.max_length or sys.maxsize, database.fits_surely)
            texts = {text for text in values if text and len(text) > most}
            return (
                texts.union(text for text in values if text and "\0" in text)
                if TEXT in database.BOUNDED
                else texts
            )
        if kind is DURATION:
            values = [value for value in values if value is not None and len(value) >= _LONG_DURATION]
        if kind not in _HELD or kind not in database.BOUNDED or (kind is FLOAT and _all_finite(values)):
            return ()
        return _different(values)

    def _check_identities(self, table: Table, batch: Batch) -> None:
        """Raise `RecordsConflict` if two records are the same to the host, though not to the database."""
        for group in table.identities:
            columns = [self._as_compared(table, place, batch[place]) for place in group]
            for key, *values in zip(batch[0], *columns, strict=True):
                other = self._identified.setdefault((table, (*group, *values)), key)
                if other != key:
                    names = ", ".join(table.columns[place].name for place in group)
                    reason = _("its %(fields)s are those of record %(key)s") % {"fields": names, "key": other}
                    raise RecordsConflict(describe(table.label, key, None, f"{reason}. {self._way_on}"))

    def _as_compared(self, table: Table, place: int, values: Sequence[Plain]) -> Sequence[Plain]:
        """Return what is equal if the database takes values for the same: it may ignore case, accents or blanks."""
        column = table.columns[place]
        if self._database is None or column.kind is not TEXT:
            return values
        collation = self._database.collation(table, column)
        return self._database.weights(collation, values) if collation else values

    def _check_records(self, table: Table, batch: Batch, place: int, validator: Validator) -> None:
        names = [column.name for column in table.columns]
        others = [batch[names.index(name)] for name in validator.also]
        for key, *values in zip(batch[0], batch[place], *others, strict=True):
            reason = validator.check(*values)
            if reason and validator.is_mended:
                self._warn(reason)
            elif reason:
                is_accepted = validator.is_accepted
                self._judge(table, key, table.columns[place], values[0], reason, is_accepted=is_accepted)

    def _judge(
        self, table: Table, key: Plain, column: Column, value: Plain, reason: str, *, is_accepted: bool
    ) -> None:
        """Raise `InvalidRecord` for a value, or only warn of it: see `Validator.is_accepted`."""
        reason = column.without_secret(reason, value)
        if isinstance(value, str) and value:  # all of it may be in the reason, whatever it is
            reason = reason.replace(value, shown(value))
        reason = reason.rstrip(".")
        if is_accepted and self._superuser:
            self._warn(describe(table.label, key, column.name, reason))
            return
        hint = _("Only a superuser can restore it.") if is_accepted else self._way_on
        raise table.invalid(f"{reason}. {hint}", key, column.name)

    def _warn(self, text: str) -> None:
        if text not in self.warnings and len(self.warnings) < MAX_NAMED:
            self.warnings.append(text)


def _different(values: Sequence[Plain]) -> Iterable[Plain]:
    """Return each value once; all of them if they cannot be compared."""
    return {*values} if values and all(isinstance(value, Hashable) for value in values) else values


def refuse_to_write(lines: Sequence[str], way_on: str) -> None:
    """Raise `RecordsRefused` for records that the database cannot take, unless there are none. `way_on`: a sentence."""
    refuse_records([*lines[: MAX_NAMED - 1], way_on] if lines else [])


def way_on(of_database: bool) -> str:
    """Return what people can do about a value that is refused, as a sentence. `of_database`: see `ValueChecks`."""
    if of_database:
        return _(
            "Correct it with the Baby Buddy that the database is from, or with sqlite3 in a copy of it, then restore "
            "that."
        )
    return _("Correct it in the file. A superuser can restore that as an edited file.")


#: Kinds of numbers of which databases cannot hold every value.
_HELD = (FLOAT, DURATION, DECIMAL)


#: Shorter durations have at most eight digits of days, which every database can hold; to check each takes long.
_LONG_DURATION = len("100000000 00:00:00")


def _all_finite(values: Sequence[Plain]) -> bool:
    """Tell whether no number is given by name, as NaN and the infinities are."""
    return {float, type(None)}.issuperset(map(type, values))


def own_validators(column: Column) -> list[Callable[[Any], None]]:
    """Return the validators that a field's class or its model declares, without those that Django adds for length and
    range, since the database checks these anyway."""
    field: Any = column.field
    return [*field.default_validators, *field._validators]


def _emptiness(value: Plain) -> str | None:
    return _("it must not be empty") if value == "" else None


#: The first moment that people of every time zone can be shown, and the first that some cannot: for them, it is before
#: the year 1 or after the year 9999.
_IN_EVERY_ZONE = ("0001-01-02", "9999-12-31")


def _not_in_every_zone(moment: str) -> str:
    return _("pages would fail, since “%(value)s” is in no year that every time zone has") % {"value": moment}


class _Moments:
    """A check of moments. `first`: the first one that is taken. `too_late`: the first one after it that is not.
    `reason`: returns what is wrong with one."""

    def __init__(self, first: str, too_late: str, reason: Callable[[str], str]) -> None:
        self._first, self._too_late, self._reason = first, too_late, reason

    def __call__(self, value: Plain) -> str | None:
        if value is None or self._first <= value < self._too_late:
            return None
        return self._reason(value)

    def may_be_wrong(self, values: Sequence[Any]) -> bool:
        """Tell whether one of the moments may be refused. This is many times as fast as to check each."""
        moments = [*filter(None, values)] if None in values else values
        return bool(moments) and not (self._first <= min(moments) and max(moments) < self._too_late)


def _validity(column: Column, validators: Sequence[Callable[[Any], None]]) -> Check:
    """Return a check by Django's validators, which ignore empty values."""
    load = column.kind.load

    def check(value: Plain) -> str | None:
        if value is None or value == "":
            return None
        try:
            for validate in validators:
                validate(load(value))
        except ValidationError as error:
            return " ".join(error.messages)
        return None

    return check


#: A Windows drive at the beginning of a path.
_DRIVE = re.compile(r"[A-Za-z]:")


def _file_name(value: Plain) -> str | None:
    """Check that the name of a file stays inside its storage, on every system."""
    if value is None or value == "":
        return None
    try:
        validate_file_name(value.replace("\\", "/"), allow_relative_path=True)
    except SuspiciousFileOperation:
        pass
    else:
        if "\0" not in value and not _DRIVE.match(value):
            return None
    return not_a_file_name()


def not_a_file_name() -> str:
    """Return the reason for refusing a name that no uploaded file can have."""
    return _("it is not the name of an uploaded file")

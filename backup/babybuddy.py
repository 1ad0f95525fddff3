"""Every fact about the host, Baby Buddy, in tables and small functions. Imports nothing of ours except types.

The facts are from the source of version 2.10.0. If the host is another one, or lacks an app, they have no effect.
Longer than most modules, to keep all that is known of the host in one place.
"""

from __future__ import annotations

import json
import posixpath
import re
import zoneinfo
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.db import DatabaseError, InterfaceError
from django.db.models import FloatField
from django.http import HttpRequest
from django.utils import translation
from django.utils.dateparse import parse_duration
from django.utils.text import slugify
from django.utils.translation import get_supported_language_variant, gettext_lazy
from django.utils.translation import gettext as _

if TYPE_CHECKING:
    from .database import Database
    from .tables import Column, Table


class Validator(NamedTuple):
    """A check of values. `check`: returns what is wrong with a value; None if nothing is.

    `also`: names of other fields of the record whose values `check` needs, too. `is_mended`: `mend_settings` replaces
    such a value, so the result is only a warning, which says by what. `is_accepted`: the host accepts such a value, so
    backups of it may have one: a superuser can restore it, with a warning.
    """

    check: Callable[..., str | None]
    also: Sequence[str] = ()
    is_mended: bool = False
    is_accepted: bool = False


#: (model label, field) -> the validator of its values. See `validators`.
Validators = dict[tuple[str, str], Validator]

#: Texts that may be empty though forms refuse that: a note may only have a picture, the host makes an empty slug of an
#: emoji (see `_slug`), and Django may write an empty text to its log.
_MAY_BE_EMPTY = {
    ("core.note", "note"),
    ("core.child", "slug"),
    ("core.tag", "slug"),
    ("admin.logentry", "object_repr"),
}

#: Apps and models that backups leave out, each for its reason; `scope.LEFT_OUT` has those that are Django's own.
LEFT_OUT = {"axes": "a server's log of login attempts; restored, it would bring lock-outs back"}

#: Pairs of fields (content type, key) that refer to a row of any model, if no `GenericForeignKey` says so.
GENERIC_REFERENCES = {"admin.logentry": [("content_type", "object_id")]}

#: Fields that identify a row although no constraint does: two site settings of the same name break every page that
#: reads them.
IDENTITIES: dict[str, list[Sequence[str]]] = {
    "dbsettings.setting": [("module_name", "class_name", "attribute_name")],
}

#: Apps and models that hold settings, of users or of the site.
SETTINGS = {"babybuddy.settings", "dbsettings", "sites"}

#: Models whose records may be merged if the database considers their names the same: only a label is lost.
MERGEABLE = {"core.tag"}

#: Models whose records are part of the record that they refer to: an entry with other tags is another entry.
ATTACHED = {"core.tagged"}

#: Models whose primary key is a secret, such as an API token -> the field that names its owner.
SECRET_KEYS = {"authtoken.token": "user"}

#: What the names of fields hold whose values nobody may see: passwords of the host's users, and secrets of plug-ins.
_SECRET = re.compile(r"password|token|secret|(api|private)_?key", re.IGNORECASE)

#: Groups of models in a preview, in this order.
CARE, ACCOUNTS, SEEDED, OTHER = "care", "accounts", "seeded", "other"
GROUPS = (CARE, ACCOUNTS, SEEDED, OTHER)

#: Apps that hold accounts and settings.
_ACCOUNTS = {"admin", "auth", "authtoken", "babybuddy", "dbsettings", "otp_static", "otp_totp", "sites"}
#: Tables that the host's migrations fill, the same in every installation.
_SEEDED = {"core.heightpercentile", "core.weightpercentile"}
#: Models whose records do not belong to one moment, though they hold a date.
_TIMELESS = {"core.child", "core.tag", "core.tagged"}
#: The model of children, on which the entries hang, and who are called by their names in a headline.
CHILD = "core.child"
#: The model of the settings of a user, without which they cannot sign in.
USER_SETTINGS = "babybuddy.settings"
#: The model of API tokens, each of one user.
TOKENS = "authtoken.token"


def uses() -> dict[str, str]:
    """Return model label -> the field that the host sets whenever a record is used: at every sign-in, at every entry
    with the tag."""
    return {get_user_model()._meta.label_lower: "last_login", "core.tag": "last_used"}


@dataclass(frozen=True)
class Account:
    """A model of accounts and rights. `by_use`: its fields that change when somebody merely uses the site. `may_go`:
    whether whoever is no superuser may delete its records by undoing the restore that brought them."""

    by_use: frozenset[str] = frozenset()
    may_go: bool = False


def accounts() -> dict[str, Account]:
    """Return model label -> `Account`, for the models that only superusers may change by a restore."""
    return {
        get_user_model()._meta.label_lower: Account(by_use=frozenset({"last_login"})),
        "auth.group": Account(),
        TOKENS: Account(by_use=frozenset({"created"}), may_go=True),
    }


#: Plural names, if the host has no good one.
NAMES = {
    "babybuddy.settings": gettext_lazy("User settings"),
    "core.tagged": gettext_lazy("Tags on entries"),
    "dbsettings.setting": gettext_lazy("Site settings"),
}


#: The template that the host's pages extend.
PAGE_TEMPLATE = "babybuddy/page.html"
#: The template of the host's menu, and the name of the URL of the last entry that it shows to staff.
MENU_TEMPLATE = "babybuddy/nav-dropdown.html"
MENU_LAST_STAFF_URL = "admin:index"


_NAME = ("first_name", "last_name")


def child_name(table: Table, row: Sequence[Any]) -> str:
    """Return the name of a child. `table`: the one of `CHILD`; `row`: one of its rows."""
    places = {column.name: place for place, column in enumerate(table.columns)}
    return " ".join(str(row[places[name]]) for name in _NAME if name in places and row[places[name]])


def is_secret(field: str) -> bool:
    """Tell whether no page and no message may show the values of a field of this name."""
    return bool(_SECRET.search(field))


def is_entered(label: str) -> bool:
    """Tell whether people enter the records of a model. Others are the same in every installation."""
    return label not in _SEEDED


def group_of(label: str) -> str:
    """Return the group of a model, one of `GROUPS`."""
    app = label.split(".")[0]
    if label in _SEEDED:
        return SEEDED
    if app in _ACCOUNTS:
        return ACCOUNTS
    return CARE if app == "core" or not apps.is_installed("babybuddy") else OTHER


def is_care(label: str) -> bool:
    """Tell whether the records of a model are about the care of a child, which a family would miss."""
    return group_of(label) == CARE


def may_be_empty(label: str, field: str) -> bool:
    """Tell whether the host copes with an empty text that a form would refuse. Plug-ins are expected to. A user may
    have no password."""
    is_password = (label, field) == (get_user_model()._meta.label_lower, "password")
    return is_password or is_of_plug_in(label) or (label, field) in _MAY_BE_EMPTY


def is_validated(label: str, field: str) -> bool:
    """Tell whether all values of a field have passed its validators. Users may also be created by a proxy's header or a
    command, which validate neither name nor address, and the host copes with all of them."""
    user = get_user_model()
    return label != user._meta.label_lower or field not in {user.USERNAME_FIELD, user.get_email_field_name()}


def is_of_plug_in(label: str) -> bool:
    """Tell whether a model is a plug-in's, which may save values without any form, and so without validators."""
    return group_of(label) == OTHER


def date_column_of(table: Table) -> Column | None:
    """Return the column that dates a care record: its first moment, else its first date; None for other models."""
    if group_of(table.label) != CARE or table.label in _TIMELESS:
        return None
    for kind in ("datetime", "date"):
        for column in table.nonkey_columns:
            if column.kind.name == kind and not column.field.null:
                return column
    return None


#: Model label -> sets of fields. Two rows with the same key that differ in at least one field of each set are plainly
#: different records. So a child that is renamed, or whose birth date is corrected, is still the same child.
_APART: dict[str, list[Sequence[str]]] = {
    "core.child": [("first_name", "last_name"), ("birth_date",)],
    "core.tag": [("name",)],
    "core.tagged": [("content_type", "object_id")],
    "auth.group": [("name",)],
    USER_SETTINGS: [("user",)],
}


def apart_by(table: Table) -> list[Sequence[str]]:
    """Return sets of fields: two rows with the same key that differ in at least one field of each set are plainly
    different records. [] if that cannot be told. Entries differ by their child or their moment."""
    sets = _APART.get(table.label, [])
    user = get_user_model()
    if table.label == user._meta.label_lower:  # nobody gets what another one has: rights, tokens, timers
        sets = [(user.USERNAME_FIELD,)]
    date_column = date_column_of(table)
    if date_column is not None:
        sets = [("child", date_column.name)]
    return sets


def apart(table: Table) -> list[list[int]]:
    """Return what `apart_by` returns, as positions in a row."""
    places = {column.name: place for place, column in enumerate(table.columns)}
    return [[places[name] for name in names if name in places] for names in apart_by(table)]


def looks(child: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what makes a record of `CHILD` plainly the same child: its name and birth date. `child`: the fields."""
    return tuple(repr(child.get(name)) for names in _APART[CHILD] for name in names)


def may_be_same_child(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two records of `CHILD` with the same key are the same child: its name or its birth date is the same.
    `one`, `other`: the fields."""
    return any(all(one.get(name) == other.get(name) for name in names) for names in _APART[CHILD])


def version() -> str:
    """Return Baby Buddy's version, such as "2.10.0"; "" if it is not installed."""
    if not apps.is_installed("babybuddy"):
        return ""
    return str(getattr(apps.get_app_config("babybuddy").module, "VERSION", ""))


#: The numbers of the last migrations of core and of babybuddy -> the releases that have them.
RELEASES = {
    ("0014", "0017"): "1.9.0",
    ("0016", "0019"): "1.9.1-1.9.2",
    ("0016", "0020"): "1.9.3",
    ("0018", "0020"): "1.10",
    ("0023", "0022"): "1.11-1.12",
    ("0024", "0023"): "1.13",
    ("0025", "0026"): "1.14",
    ("0025", "0027"): "1.15-1.16",
    ("0029", "0028"): "2.0.0-2.0.2",
    ("0029", "0029"): "2.0.3-2.0.4",
    ("0030", "0029"): "2.1",
    ("0033", "0029"): "2.2-2.3",
    ("0033", "0030"): "2.4",
    ("0034", "0032"): "2.5",
    ("0034", "0034"): "2.6.0",
    ("0035", "0034"): "2.6.1-2.6.3",
    ("0035", "0035"): "2.7-2.8",
    ("0036", "0035"): "2.9-2.10",
}


def release(migrations: dict[str, list[str]]) -> str:
    """Return the releases that have these last migrations, for data that names no version; "" if none has."""
    core, own = (
        max((name[:4] for name in migrations.get(app, ())), default="") for app in ("core", "babybuddy")
    )
    return RELEASES.get((core, own), "")


#: Migrations that can no longer be followed -> the migration after the obstacle, and the fields that it gives to each
#: record of a model. In 1.9.0 `napping` may not be null, and core 0015 no longer computes it; whatever value it gets
#: here, core 0028 computes it anew. Since 0011, of version 1.4, no migration before it changed any data.
IMPASSABLE: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    f"core.{name}": ("0015_add_nap_field_for_sleep", {"core.sleep": {"napping": False}})
    for name in (
        "0011_auto_20200214_1939",
        "0012_auto_20200813_0238",
        "0013_auto_20210415_0528",
        "0014_alter_child_slug",
    )
}
#: The numbers of migrations of core from which no way leads to today's schema: the first one of version 1.0 that is no
#: beginning, and the one after the last.
_TOO_OLD = ("0002", "0011")


def too_old(migrations: dict[str, list[str]]) -> str:
    """Return what to do about data at migrations of which no way leads to today's schema; "" if one does."""
    first, after = _TOO_OLD
    if not (apps.is_installed("babybuddy") and first <= max(migrations.get("core", ()), default="") < after):
        return ""
    return _(
        "This is data of a Baby Buddy older than 1.4, which can no longer be upgraded. Update that Baby Buddy to "
        "version 1.16 first."
    )


def past_obstacles(
    migrations: dict[str, list[str]],
) -> tuple[dict[str, list[str]], dict[str, dict[str, Any]]]:
    """Return the migrations at which to load data that was made at these; and model label -> fields to add to each
    record."""
    added: dict[str, dict[str, Any]] = {}
    passed: dict[str, list[str]] = {}
    for app, names in migrations.items():
        passed[app] = []
        for name in names:
            beyond, fields = IMPASSABLE.get(f"{app}.{name}", (name, {}))
            passed[app].append(beyond)
            added.update(fields)
    return passed, added


def owns(apps_with_data: Iterable[str]) -> bool:
    """Tell whether a database with data of these apps is one of Baby Buddy, provided that this host is Baby Buddy."""
    return {app for app in ("babybuddy", "core") if apps.is_installed(app)} <= {*apps_with_data}


def folder() -> Path:
    """Return the host's folder: some of its migrations read files by paths relative to it."""
    if not apps.is_installed("babybuddy"):
        return Path.cwd()
    return Path(apps.get_app_config("babybuddy").path).parent


def user_timezone(user: Any) -> zoneinfo.ZoneInfo:
    """Return the time zone that a user chose; the host's if they chose none, or one that Python does not know.

    So it is if the database does not answer: the page that says so needs a zone, too.
    """
    chosen = None
    with suppress(DatabaseError, InterfaceError):
        chosen = getattr(getattr(user, "settings", None), "timezone", None)
    for name in (chosen, settings.TIME_ZONE):
        if name and is_time_zone(name):
            return zoneinfo.ZoneInfo(name)
    return zoneinfo.ZoneInfo("UTC")


def is_time_zone(name: str) -> bool:
    """Tell whether Python knows a time zone of this name."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def is_thumbnail(name: str) -> bool:
    """Tell whether a file has the name of a thumbnail. The host makes thumbnails of photos, and shows existing ones."""
    folder = str(getattr(settings, "IMAGEKIT_CACHEFILE_DIR", "CACHE/images")).strip("/")
    # Some file systems ignore case.
    return posixpath.normpath(name).casefold().startswith(f"{folder}/".casefold())


def validators(database: Database) -> Validators:
    """Return checks for values that would break the host, though its models declare no validators for them."""
    return {
        **{
            ("babybuddy.settings", field): Validator(choice.check, is_mended=True)
            for field, choice in _choices(database).items()
        },
        ("babybuddy.settings", "dashboard_hide_age"): Validator(_dashboard_hide_age),
        **{(label, "date"): Validator(_day_measured) for label in ("core.height", "core.weight")},
        ("core.child", "slug"): Validator(_slug, also=_NAME),
        ("core.tag", "slug"): Validator(_slug, also=("name",)),
        ("core.feeding", "type"): Validator(_feeding_type),
        **{(label, "duration"): Validator(_duration) for label in _PERIODS},
        **{(label, "duration"): Validator(_computed_duration) for label in _PERIODS - {_PUMPING}},
        **{(label, "age_in_days"): Validator(_age) for label in _SEEDED},
        ("admin.logentry", "change_message"): Validator(_change_message),
        **{(label, "end"): Validator(_end, also=("start",)) for label in _PERIODS},
        ("core.medication", "next_dose_interval"): Validator(_next_dose, also=("time",), is_accepted=True),
        **{field: Validator(_finite, is_accepted=True) for field in _measures()},
        ("dbsettings.setting", "value"): Validator(
            _site_setting, also=("module_name", "class_name", "attribute_name")
        ),
    }


def too_far_in_the_future(moment: str) -> str:
    """Return what is wrong with a date, or a date and time, after which the host cannot compute with it."""
    return _("“%(value)s” is too far in the future") % {"value": moment}


def _too_long(duration: str) -> str:
    return _("“%(value)s” is too long") % {"value": duration}


def _day_measured(day: Any) -> str | None:
    """Check that there is a day after one: reports of growth end with it. Returns what is wrong, or None."""
    if not day or day < "9999-12-31":
        return None
    return too_far_in_the_future(day)


def _dashboard_hide_age(duration: Any) -> str | None:
    """Check how far back the dashboard goes: less than 1,000 years. Returns what is wrong, or None."""
    parsed = parse_duration(duration) if duration else None
    if parsed is None or abs(parsed) < timedelta(days=365 * 1000):
        return None
    return _too_long(duration)


def _slug(slug: Any, *names: Any) -> str | None:
    """Check that a child or a tag has a slug, without which pages that list them fail, unless the host itself makes
    none of its name. The database lets only one child be without.

    Older versions of it make slugs of ASCII only.
    """
    return _("it must not be empty") if slug == "" and slugify(" ".join(names)) else None


#: The host's growth tables go up to five years.
_OLDEST = timedelta(days=36_525)


def _age(duration: Any) -> str | None:
    """Check an age of the growth tables, which is added to birth dates: 0 to 100 years."""
    if duration is None or timedelta() <= (parse_duration(duration) or timedelta()) <= _OLDEST:
        return None
    return _("“%(value)s” is no age of a child") % {"value": duration}


def _feeding_type(value: Any) -> str | None:
    """Check that it is one of the host's: a report looks for it among them. Other choices are only shown."""
    field = apps.get_model("core", "feeding")._meta.get_field("type")
    if value in dict(field.flatchoices):
        return None
    return str(field.error_messages["invalid_choice"]) % {"value": value}


def _duration(duration: Any) -> str | None:
    """Check that a duration has at most four digits of days: the host cannot add up longer ones (2.10)."""
    if not duration or duration.find(" ") <= len("-9999"):
        return None
    return _too_long(duration)


def _computed_duration(duration: Any) -> str | None:
    """Check a duration that the host has always computed from start and end, and that its pages add up."""
    return _("it must not be empty") if duration is None else _duration(duration)


def _next_dose(interval: Any, time: Any) -> str | None:
    """Check that pages can show when the next dose may be given, whatever the time zone."""
    if not (interval and time):
        return None
    try:
        moment = datetime.fromisoformat(time.rstrip("Z")) + (parse_duration(interval) or timedelta())
        if timedelta(days=1) <= moment - datetime.min <= datetime.max - datetime.min - timedelta(days=1):
            return None
    except OverflowError:
        pass
    return _("pages of its child would fail, since “%(value)s” later is too far away") % {"value": interval}


def _measures() -> Iterator[tuple[str, str]]:
    """Yield model label and field of each number of the host's care records that may have decimal places."""
    for model in apps.get_models() if apps.is_installed("core") else ():
        label = model._meta.label_lower
        if label.startswith("core.") and is_care(label):
            yield from ((label, f.name) for f in model._meta.local_fields if isinstance(f, FloatField))


def _finite(number: Any) -> str | None:
    """Check that the API can list a number: JSON has no NaN and no infinity."""
    if not isinstance(number, str):
        return None
    return _("the API would fail, since “%(value)s” is not a number for it") % {"value": number}


#: How much deeper in the stack a page may parse JSON.
_HEADROOM = 200


def _change_message(text: Any) -> str | None:
    """Check that the admin's history can show a message of its log, which is plain text or made of JSON."""
    if not text or not text.startswith("["):
        return None
    try:
        with suppress(json.JSONDecodeError):
            json.loads("[" * _HEADROOM + text + "]" * _HEADROOM)
        apps.get_model("admin", "logentry")(change_message=text).get_change_message()
    except Exception:  # noqa: BLE001 - whatever JSON may hold instead of what the admin writes
        return _("the history could not show it")
    return None


_PUMPING = "core.pumping"
#: Entries that have a start and an end. The host's forms accept a day between them at most. Before version 2.0 pumping
#: had only one moment, and so no duration until version 2.6.1 computed it.
_PERIODS = {"core.feeding", _PUMPING, "core.sleep", "core.tummytime"}
#: How long an entry may take.
_LONGEST = timedelta(days=7)
#: The host looks up the days of entries among those around today. It also shows older ones that take some weeks, or end
#: before they start, which older versions let pass when clocks go back.
_RECENT = timedelta(days=60)


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


def latest(label: str) -> str | None:
    """Return the first moment that is too late for the records of a model; None if there is none.

    Reports list each day up to the last entry. The host's forms accept none of the future, but a clock may have been
    wrong: another one then, or this one now, which may never have been set.
    """
    return f"{max(_now().year, _THIS_YEAR) + 10}" if label in _PERIODS else None


#: A year that is over, or nearly.
_THIS_YEAR = 2026


def _end(end: Any, start: Any) -> str | None:
    """Check that an entry ends soon after it begins: else pages of its child fail, or list each day of centuries."""
    if not (start and end) or (start <= end and start[:10] == end[:10]):
        return None
    ended, began = (datetime.fromisoformat(moment.rstrip("Z")) for moment in (end, start))
    took = ended - began
    is_shown = abs(took) <= _RECENT and max(ended, began) < _now() - _RECENT
    if timedelta() <= took <= _LONGEST or is_shown:
        return None
    return _("“%(value)s” is before its start, or more than a week later") % {"value": end}


def _site_setting(value: Any, *key: str) -> str | None:
    """Check the text of a site setting, which may have to be a number or a time of day. Returns what is wrong, or None.

    The text is in the language of the user who set it, in the form in which the host writes it there.
    """
    if not apps.is_installed("dbsettings"):
        return None
    from dbsettings.loading import get_all_settings

    for setting in get_all_settings():
        if all(map(_may_be_taken_for, key, setting.key)) and not _can_be_read(setting, value):
            return _("“%(value)s” is no value of this setting") % {"value": value}
    return None


#: Letters that a collation takes for others: utf8mb4_lithuanian_ci has i for y, utf8mb4_roman_ci i for j and u for v.
_SAME_LETTERS = str.maketrans("yjv", "iiu")


def _may_be_taken_for(text: str, name: str) -> bool:
    """Tell whether some database may take a text for the name of a setting, which is in ASCII: it may ignore case and
    blanks at the end, and what is not in ASCII may be the same as anything, or as nothing."""
    folded, other = (part.rstrip().lower().translate(_SAME_LETTERS) for part in (text, name))
    return folded == other or not re.fullmatch("[!-~]*", folded)


def _can_be_read(setting: Any, value: Any) -> bool:
    if setting.meaningless(value) and not setting.required:
        return True
    for language in (None, *dict(settings.LANGUAGES)):
        with (
            suppress(ValidationError, ValueError, TypeError, ArithmeticError),
            translation.override(language),
        ):
            read = setting.to_python(value)
            if read is not None and (language is None or setting.get_db_prep_save(read) == value):
                return True
    return False


@dataclass(frozen=True)
class _Choice:
    """A user's choice that each site offers others for. `is_usable`: whether one is offered here. `of_site`: what takes
    the place of any other. `in_words`: says so, of a text that is cut to a length that a person reads."""

    is_usable: Callable[[str], bool]
    of_site: str
    in_words: Callable[[str], str]

    def check(self, text: str) -> str | None:
        return None if self.is_usable(text) else self.in_words(text[:100])


def _choices(database: Database) -> dict[str, _Choice]:
    """Return field of a user's settings -> its choice. With a time zone that Python or the database does not know,
    every page would fail for its user. The host puts the language into a page's script as it is, so it may only be one
    that the site offers, or a variant of it, such as "en" of older versions."""
    is_zone = lru_cache(lambda name: is_time_zone(name) and not database.unknown_time_zones([name]))
    zone = settings.TIME_ZONE if is_zone(settings.TIME_ZONE) else "UTC"
    return {
        "timezone": _Choice(
            is_zone,
            zone,
            lambda name: (
                _("“%(name)s” is a time zone that is not known here. Its users get the site's, %(zone)s.")
                % {"name": name, "zone": zone}
            ),
        ),
        "language": _Choice(
            _is_usable_language,
            settings.LANGUAGE_CODE,
            lambda name: (
                _("“%(name)s” is a language that is not known here. Its users get the site's, %(language)s.")
                % {"name": name, "language": settings.LANGUAGE_CODE}
            ),
        ),
    }


def _is_usable_language(code: str) -> bool:
    if code in {settings.LANGUAGE_CODE, *dict(settings.LANGUAGES)}:
        return True
    try:
        return bool(
            re.fullmatch("[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}", code)
            and get_supported_language_variant(code)
        )
    except (LookupError, ValueError):
        return False


def superuser_addresses() -> list[str]:
    """Return the e-mail addresses of the active superusers who have one. (The host sets no ADMINS.)"""
    users = get_user_model()._default_manager.filter(is_superuser=True, is_active=True)
    addresses = {getattr(user, user.get_email_field_name(), "") for user in users}
    return sorted(filter(None, addresses))


def mend_settings(database: Database, restored: Collection[str]) -> list[str]:
    """Set the site's time zone or language for users whose own is unknown, after a restore, in its transaction.

    `restored`: labels of the models of which records were restored. Returns what was done, as warnings.
    """
    if not apps.is_installed("babybuddy"):
        return []
    alias = database.connection.alias
    model = apps.get_model(USER_SETTINGS)
    warnings = []
    if model._meta.label_lower in restored:
        rows = model._base_manager.using(alias)
        for field, choice in _choices(database).items():
            for text in sorted({*rows.values_list(field, flat=True)}):
                if reason := choice.check(text):
                    keys = [pk for pk, own in rows.values_list("pk", field) if own == text]
                    rows.filter(pk__in=keys).update(**{field: choice.of_site})
                    warnings.append(reason)
    return warnings


def add_settings(database: Database) -> list[str]:
    """Create settings for users who have none after a restore, in its transaction, since they could not sign in.

    Returns the names of these users.
    """
    if not apps.is_installed("babybuddy"):
        return []
    alias = database.connection.alias
    users = get_user_model()._base_manager.using(alias).filter(settings__isnull=True)
    names = dict(users.values_list("pk", get_user_model().USERNAME_FIELD))
    model = apps.get_model(USER_SETTINGS)
    model._base_manager.using(alias).bulk_create(model(user_id=pk) for pk in sorted(names))
    return [*names.values()]


def drop_caches() -> None:
    """Delete what the host caches for ever: the number of children, and each site setting."""
    keys = ["core.child.count"]
    if apps.is_installed("dbsettings"):
        from dbsettings.loading import get_all_settings

        keys += [".".join(["dbsettings", *setting.key]) for setting in get_all_settings()]
    with suppress(DatabaseError):  # some hosts lack the cache's table; then nothing is cached either
        cache.delete_many(keys)
    from django.contrib.contenttypes.models import ContentType

    ContentType.objects.clear_cache()


def is_home_assistant(request: HttpRequest) -> bool:
    """Tell whether a request comes through Home Assistant's ingress. There the host's middleware logs an error for
    every streamed answer, and API tokens do not work."""
    return bool(getattr(request, "is_homeassistant_ingress_request", False))

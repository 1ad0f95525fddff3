"""All that we know about Baby Buddy and that nobody else needs to.

Facts read from its source, version 2.10.0. Where the host is not Baby Buddy, or an app of it is not installed, what is
said here of it does nothing.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.db import DatabaseError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

if TYPE_CHECKING:
    from .database import Database
    from .tables import Column, Table

#: (model label, field) -> what is wrong with a value of that field, or None. See `validators`.
Validators = dict[tuple[str, str], Callable[[Any], "str | None"]]

#: Sets of fields that say which row a record is, though no constraint does: two site settings of the same name make
#: every page that reads it fail.
IDENTITIES: dict[str, list[Sequence[str]]] = {
    "dbsettings.setting": [("module_name", "class_name", "attribute_name")],
}

#: The groups that a preview shows models in, in this order.
CARE, ACCOUNTS, SEEDED, OTHER = "care", "accounts", "seeded", "other"
GROUPS = (CARE, ACCOUNTS, SEEDED, OTHER)

#: Apps that hold accounts and settings.
_ACCOUNTS = {"admin", "auth", "authtoken", "babybuddy", "dbsettings", "otp_static", "otp_totp", "sites"}
#: Tables that the host's own migrations fill, the same in every installation.
_SEEDED = {"core.heightpercentile", "core.weightpercentile"}
#: Records of the host's that are not of one moment, though they hold a date.
_TIMELESS = {"core.child", "core.tag", "core.tagged"}
#: Fields that the host sets whenever a record is used: at every sign-in, at every entry with the tag.
USES = {"auth.user": "last_login", "core.tag": "last_used"}

#: Models that the host has no good name for, in the plural.
NAMES = {
    "babybuddy.settings": gettext_lazy("Settings of the users"),
    "core.tagged": gettext_lazy("Tags on entries"),
    "dbsettings.setting": gettext_lazy("Settings of the site"),
}


def group_of(label: str) -> str:
    """The group of a model, one of `GROUPS`."""
    app = label.split(".")[0]
    if label in _SEEDED:
        return SEEDED
    if app in _ACCOUNTS:
        return ACCOUNTS
    return CARE if app == "core" or not apps.is_installed("babybuddy") else OTHER


def moment_of(table: Table) -> Column | None:
    """The column that says when it was what a care record tells of: its first moment, else its first date."""
    if group_of(table.label) != CARE or table.label in _TIMELESS:
        return None
    for kind in ("datetime", "date"):
        for column in table.nonkey_columns:
            if column.kind.name == kind and not column.field.null:
                return column
    return None


def version() -> str:
    """Of Baby Buddy, such as "2.10.0"; "" where it is not there."""
    if not apps.is_installed("babybuddy"):
        return ""
    return str(getattr(apps.get_app_config("babybuddy").module, "VERSION", ""))


#: The last migrations of core and of babybuddy -> the releases that have them.
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
    """Which releases have these last migrations, for data that does not say where it is from; "" where none has."""
    core, own = (
        max((name[:4] for name in migrations.get(app, ())), default="") for app in ("core", "babybuddy")
    )
    return RELEASES.get((core, own), "")


#: Migrations that fail on data as it was, by name -> the next one, behind which they pass, and what it adds to each
#: record of a model. Version 1.9.0: `napping` may not be null, and what worked it out is no longer in core 0015;
#: whatever it says, core 0028 works it out anew.
IMPASSABLE: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "core.0014_alter_child_slug": (
        "0015_add_nap_field_for_sleep",
        {"core.sleep": {"napping": False}},
    ),
}


def past_obstacles(
    migrations: dict[str, list[str]],
) -> tuple[dict[str, list[str]], dict[str, dict[str, Any]]]:
    """The migrations under which data of these is to be loaded, and model label -> fields that its records get more."""
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
    """Whether a database with the tables of these apps is one of Baby Buddy's (where this is Baby Buddy)."""
    return {app for app in ("babybuddy", "core") if apps.is_installed(app)} <= {*apps_with_data}


def folder() -> Path:
    """Where the host is: some of its migrations read files from below it, by relative paths."""
    if not apps.is_installed("babybuddy"):
        return Path.cwd()
    return Path(apps.get_app_config("babybuddy").path).parent


def user_timezone(user: Any) -> zoneinfo.ZoneInfo:
    """The zone that a user chose in their settings; the host's where there is none, or Python does not know it."""
    chosen = getattr(getattr(user, "settings", None), "timezone", None)
    for name in (chosen, settings.TIME_ZONE):
        if name and is_time_zone(name):
            return zoneinfo.ZoneInfo(name)
    return zoneinfo.ZoneInfo("UTC")


def is_time_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def validators(database: Database) -> Validators:
    """A zone that Python or the database does not know is an error on every page that its user opens."""
    known: dict[str, bool] = {}

    def time_zone(name: Any) -> str | None:
        if name not in known:
            known[name] = is_time_zone(name) and not database.unknown_time_zones([name])
        return None if known[name] else _("“%(name)s” is a time zone that is not known here") % {"name": name}

    return {("babybuddy.settings", "timezone"): time_zone}


def after_restore(database: Database) -> list[str]:
    """What must hold, inside the restore's transaction: a user without a Settings row cannot sign in.

    Returns what was done, as warnings.
    """
    if not apps.is_installed("babybuddy"):
        return []
    alias = database.connection.alias
    model = apps.get_model("babybuddy", "settings")
    users = get_user_model()._base_manager.using(alias).filter(settings__isnull=True).order_by("pk")
    names = {user.pk: user.get_username() for user in users}
    model._base_manager.using(alias).bulk_create(model(user_id=pk) for pk in names)
    if not names:
        return []
    text = ngettext(
        "User %(names)s had no settings in the backup, and got the usual ones.",
        "These users had no settings in the backup, and got the usual ones: %(names)s.",
        len(names),
    )
    return [text % {"names": ", ".join(names.values())}]


def drop_caches() -> None:
    """What the host keeps of the data for ever: the number of children, and each site setting with its key."""
    keys = ["core.child.count"]
    if apps.is_installed("dbsettings"):
        from dbsettings.loading import get_all_settings

        keys += [".".join(["dbsettings", *setting.key]) for setting in get_all_settings()]
    with suppress(DatabaseError):  # the cache's table is absent on some hosts; then nothing is cached either
        cache.delete_many(keys)
    from django.contrib.contenttypes.models import ContentType

    ContentType.objects.clear_cache()

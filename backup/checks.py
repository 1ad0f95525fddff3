"""System checks of the set-up, for `manage.py check`, `migrate` and the start of the server.

What would leak a backup, or make every backup and restore fail or miss data, is an error: `migrate` stops at it, and
with it the start of a container. What is wrong with single settings or with a place of copies is a warning, since the
host, or a restore in an emergency, must not stop at it: what needs the setting refuses to go on without it, and the
status says so. Only `check_tables` needs a database; it runs when Django checks databases, as in `migrate`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DEFAULT_DB_ALIAS, DatabaseError
from django.template import TemplateDoesNotExist, TemplateSyntaxError
from django.urls import NoReverseMatch, reverse

from backup import menu
from backup.archive import Key, encryption
from backup.automatic.notices import what_mail_lacks
from backup.conf import OPTIONS, Conf, conf, wrong_settings
from backup.database import database_of
from backup.exceptions import (
    BackupError,
    EncryptionUnavailable,
    LocationFailed,
    UnknownDatabase,
    WrongKey,
    WrongSettings,
)
from backup.scope import models_in_scope, unmanaged
from backup.storage import files, owner
from backup.storage.keys import Place
from backup.storage.locations import Location, locations
from backup.tables import Table

SERVED = ("MEDIA_ROOT", "STATIC_ROOT", "WHITENOISE_ROOT")
#: What the names of settings begin with, and how alike the rest of two names must be (0 to 1) for one to be the other,
#: misspelled.
PREFIX, CLOSE = "BACKUP_", 0.75
SNIPPET_LAST = "Let babybuddy_settings_snippet.py be the end of the settings module that is used: {}."


@register(Tags.urls)
def check_urls(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    try:
        reverse("backup:index")
    except NoReverseMatch:
        hint = SNIPPET_LAST.format("it sets ROOT_URLCONF to backup.root_urls")
        return [Error("The pages of Backup & Restore have no URLs.", hint=hint, id="backup.E001")]
    return []


@register("settings")
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    return [
        Warning(
            error.reason,
            hint=f"What it is: {' '.join((getattr(Conf, name).__doc__ or '').split())}",
            id="backup.W013",
        )
        for name, error in wrong_settings().items()
    ]


@register("settings")
def check_names(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Look for names of settings that are misspelled. In the environment there may be those of other programs, so only
    what comes close to one of ours counts there."""
    messages: list[CheckMessage] = []
    for name in sorted(_strange(dir(settings)) | _strange(os.environ)):
        near = get_close_matches(name[len(PREFIX) :], [known[len(PREFIX) :] for known in OPTIONS], 1, CLOSE)
        if near or hasattr(settings, name):
            hint = f"Is {PREFIX}{near[0]} meant? " if near else ""
            hint += "README.md, section “Settings”, lists those that there are."
            messages.append(
                Warning(f"There is no setting {name}, so it does nothing.", hint=hint, id="backup.W017")
            )
    return messages


def _strange(names: Iterable[str]) -> set[str]:
    """Return those of the names that look like a setting of this app and are none."""
    return {name for name in names if name.startswith(PREFIX)} - {*OPTIONS, "BACKUP_HOST_URLCONF"}


@register(Tags.security)
def check_root(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    if "backups" in settings.STORAGES:
        return []  # Backups go there, BACKUP_ROOT is not used.
    try:
        root = conf.root.resolve()
    except WrongSettings:
        return []  # W013 says so.
    if name := _served(root):
        return [
            Error(
                f"Backups would lie in {root}, under {name}, where everybody can download them.",
                hint="Set BACKUP_ROOT to a folder that no web server shows.",
                id="backup.E003",
            )
        ]
    if not owner.can_write(root):
        return [
            Warning(
                f"No backup can be kept, and nothing restored. {owner.in_the_way(root)}",
                hint="Or set BACKUP_ROOT to a folder that this user can write into.",
                id="backup.W001",
            )
        ]
    return []


def _served(folder: Path) -> str:
    """Return the setting of a public folder that contains this one; "" if it is in none."""
    for name in SERVED:
        served = getattr(settings, name, None)
        if served and folder.resolve().is_relative_to(Path(served).resolve()):
            return name
    return ""


@register(Tags.security)
def check_encryption(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    try:
        key, places = conf.key, conf.encrypt
    except WrongSettings:
        return []  # W013 says so.
    messages: list[CheckMessage] = []
    if key:
        try:
            Key.parse(key)
        except WrongKey as error:
            hint = "Copy it from what “manage.py backup_key” printed, without the setting."
            messages.append(Warning(f"BACKUP_KEY is not a key. {error}", hint=hint, id="backup.W015"))
    if key or places:
        try:
            encryption.check_available()
        except EncryptionUnavailable as error:
            hint = "Until then no backup is made that is to be encrypted."
            messages.append(Warning(str(error), hint=hint, id="backup.W016"))
    return messages


@register(Tags.security)
def check_locations(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check the addresses of locations, without connecting to them. Messages contain no address."""
    messages: list[CheckMessage] = []
    known: list[tuple[object, str]] = []
    for place in _locations():
        try:
            folder, target = place.folder, place.target
        except LocationFailed as error:
            hint = "README.md, section “Copies elsewhere”, says how addresses are written. No copies go there yet."
            messages.append(Warning(error.message, hint=hint, id="backup.W014"))
            continue
        if folder and (name := _served(folder)):
            message = f"Copies in location “{place.name}” would lie under {name}, where everybody can download them."
            hint = "Let BACKUP_LOCATIONS name a folder that no web server shows."
            messages.append(Error(message, hint=hint, id="backup.E009"))
        if folder and _shares_disk_with_root(folder):
            message = f"Location “{place.name}” and BACKUP_ROOT are one in the other, on the same disk."
            hint = "What destroys one destroys both: name a folder on another disk, or mount that."
            messages.append(Warning(message, hint=hint, id="backup.W020"))
        if same := next((name for other, name in known if other == target), ""):
            message = (
                f"Locations “{same}” and “{place.name}” are the same place, so there is one copy, not two."
            )
            hint = "Let BACKUP_LOCATIONS name each place once."
            messages.append(Warning(message, hint=hint, id="backup.W019"))
        known.append((target, place.name))
    return messages


def _shares_disk_with_root(folder: Path) -> bool:
    """Tell whether a folder is in BACKUP_ROOT, or that in it, and no other disk is mounted on the way."""
    if "backups" in settings.STORAGES:
        return False
    try:
        root, folder = conf.root.resolve(), folder.resolve()
    except WrongSettings:
        return False  # W013 says so.
    is_nested = folder.is_relative_to(root) or root.is_relative_to(folder)
    return is_nested and _disk(folder) == _disk(root)


def _disk(folder: Path) -> int:
    """Return the number of the disk on which a folder is, or would be made."""
    while not os.path.exists(folder):
        folder = folder.parent
    return folder.stat().st_dev


@register(Tags.security, deploy=True)
def check_in_clear(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    messages: list[CheckMessage] = []
    for place in _locations():
        try:
            leaves, is_open = place.is_remote, place.is_open
            is_clear = leaves and not place.encrypts
        except BackupError:
            continue  # W014 or W013 says so; or no key can be read, so that nothing is sent there
        if is_clear:
            message = f"Copies in location “{place.name}” leave this machine in clear: whoever runs it can read them."
            hint = "Make a key: “manage.py backup_key --new”. BACKUP_ENCRYPT, where it is set, must name the location."
            messages.append(Warning(message, hint=hint, id="backup.W009"))
        if is_open:
            message = f"Copies in location “{place.name}” go there over a connection that nothing encrypts."
            messages.append(
                Warning(message, hint="Let its address use TLS: https://, webdavs://.", id="backup.W010")
            )
    try:
        if files.is_remote() and not conf.encrypts(Place.LOCAL.value):
            message = "Backups leave this machine in clear: they lie in the storage “backups”."
            hint = "Make a key, “manage.py backup_key --new”, and let BACKUP_ENCRYPT name local."
            messages.append(Warning(message, hint=hint, id="backup.W009"))
    except BackupError:
        pass  # W013 says so; or the storage cannot be made, which every page reports
    return messages


# With `deploy`, since Baby Buddy sends no mails by default, and each command would warn of it. The page says it, too.
@register("settings", deploy=True)
def check_mails(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    first = {
        "server": ("This site sends no mails", "Set EMAIL_HOST and EMAIL_FROM"),
        "recipients": (
            "No active superuser has an e-mail address",
            "Give one an address, or set BACKUP_NOTIFY to one",
        ),
    }.get(what_mail_lacks())
    if first is None:
        return []
    why, what_to_do = first
    message = f"{why}, so nobody is told when backups fail or entries are lost."
    hint = (
        f"{what_to_do}; or BACKUP_WEBHOOK_URL or BACKUP_PING_URL, to tell a program; or BACKUP_NOTIFY to off, to look "
        "for yourself."
    )
    return [Warning(message, hint=hint, id="backup.W018")]


@register("settings")
def check_sender(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    if what_mail_lacks(asks_database=False) != "sender":
        return []
    message = "The mails that tell of failing backups have no sender, so a mail server may refuse them."
    hint = "Set EMAIL_FROM to an address that your mail server takes; or BACKUP_NOTIFY to off, for no mails."
    return [Warning(message, hint=hint, id="backup.W011")]


def _locations() -> list[Location]:
    try:
        return locations()
    except WrongSettings:
        return []  # W013 says so.


@register(Tags.models)
def check_scope(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    from backup.scope import lacks_users, models_in_scope, routed

    try:
        unknown = sorted(name for name in conf.exclude if not _is_known(name))
        models = models_in_scope(exclude=conf.exclude)
        composite = [model._meta.label_lower for model in models if _has_composite_key(model)]
    except (DatabaseError, WrongSettings):
        return []  # W013 says so; or a model asks what the database supports, and it does not answer.
    return [
        *(
            Error(
                f"BACKUP_EXCLUDE names {name}, which is no installed app and no model of one.",
                hint='Names are those of apps, "metrics", or of models, "metrics.sample".',
                id="backup.E004",
            )
            for name in unknown
        ),
        *(
            Error(
                f"{label} has a composite primary key, which cannot be backed up.",
                hint=f'Leave it out: add "{label}" to BACKUP_EXCLUDE.',
                id="backup.E005",
            )
            for label in composite
        ),
        *(
            Warning(
                f"Backups do not hold {', '.join(labels)}: a router of this site has it in another database.",
                hint="Make backups of that database with its own tools."
                + " The users of this site are in it: no restore brings them back." * lacks_users(),
                id="backup.W008",
            )
            for labels in [routed()]
            if labels
        ),
    ]


def _is_known(name: str) -> bool:
    try:
        if "." in name:
            apps.get_model(name)
        else:
            apps.get_app_config(name)
    except (LookupError, ValueError):
        return False
    return True


def _has_composite_key(model: Any) -> bool:
    return bool(getattr(model._meta, "pk_fields", None)) and len(model._meta.pk_fields) > 1  # Django 5.2+


@register(Tags.templates)
def check_menu(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    if not menu.found_first():
        hint = SNIPPET_LAST.format("it sets the template's folder first in TEMPLATES")
        message = (
            f'The user menu has no "Backup & Restore": another {menu.NAME} is found before that of this app.'
        )
        return [Warning(message, hint=hint, id="backup.W002")]
    try:
        placed = menu.has_place()
    except TemplateSyntaxError as error:
        placed, reason = False, str(error)
    except TemplateDoesNotExist:
        placed, reason = False, f"there is no {menu.NAME} but that of this app"
    else:
        reason = "it has no link to the database administration"
    if not placed:
        return [
            Warning(
                f'The user menu has no "Backup & Restore": its place there was not found, {reason}.',
                hint="Open /backup/ by its address; a newer babybuddy-backup may know this menu.",
                id="backup.W003",
            )
        ]
    return []


@register(Tags.compatibility)
def check_tokens(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    if apps.is_installed("rest_framework.authtoken"):
        return []
    return [
        Warning(
            "Scripts cannot sign in: API tokens are not installed.",
            hint='Add "rest_framework.authtoken" to INSTALLED_APPS; people can use the pages without.',
            id="backup.W004",
        )
    ]


@register(Tags.database)
def check_tables(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    if DEFAULT_DB_ALIAS not in (databases or ()):
        return []
    try:
        database = database_of()
    except UnknownDatabase as error:
        hint = "The other parts of Baby Buddy are not concerned; make backups with the database's own tools."
        return [Warning(str(error), hint=hint, id="backup.W005")]
    messages: list[CheckMessage] = []
    try:
        tables = [Table(model) for model in models_in_scope(exclude=conf.exclude)]
        if statements := database.without_transactions(tables):
            message = (
                "Nothing can be restored, since a restore that fails could not be undone in these tables."
            )
            messages.append(Warning(message, hint=" ".join(statements), id="backup.W006"))
        if statements := database.without_all_characters(tables):
            message = "These tables cannot hold every character, emoji for one, that a backup may bring."
            messages.append(Warning(message, hint=" ".join(statements), id="backup.W007"))
        there = database.table_names()
        models = [model for model in unmanaged(conf.exclude) if model._meta.db_table in there]
        if models:
            labels = ", ".join(model._meta.label_lower for model in models)
            message = f"Backups do not hold {labels}, whose tables Django does not manage (managed = False)."
            hint = "Make backups of them with the database's own tools, or add them to BACKUP_EXCLUDE."
            messages.append(Warning(message, hint=hint, id="backup.W012"))
    except (DatabaseError, WrongSettings):
        return []  # The database does not answer, which Django reports itself; or W013 says so.
    return messages

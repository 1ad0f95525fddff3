"""Identifies the site, and stores a note about its last restore in the database, without a table of our own."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from datetime import timezone as zones
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings as project
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import DateTimeField, F, QuerySet
from django.db.models.expressions import RawSQL
from django.utils import timezone
from django.utils.translation import gettext as _

from ..exceptions import Busy, StorageFailed
from . import database_of, interface_explained
from .session import notes_table

#: The beginning of the key of our row. Keys of real sessions contain no hyphen.
KEY = "backup-"
#: When the row expires; until then, `clearsessions` does not delete it.
KEPT = timedelta(days=3650)
#: Connection settings -> id. It is cached, since a restore needs it while its connection is busy.
_sites: dict[tuple[str, ...], str] = {}


def site_id() -> str:
    """Return the id of this site, that is, of its database. Raises `StorageFailed` if the database does not answer.

    It is made of two things: the moment at which the first migration was applied, which differs between sites, is in no
    backup, and stays the same when the database is moved; and the name of the database (of the file, not its folder),
    which differs between copies on the same server.
    """
    connection = connections[DEFAULT_DB_ALIAS]
    settings = tuple(str(connection.settings_dict[name]) for name in ("ENGINE", "HOST", "PORT", "NAME"))
    if settings not in _sites:
        try:
            migrations = MigrationRecorder(connection).migration_qs.order_by("pk")
            with interface_explained(), database_of().exact_session():
                first = migrations.values_list("app", "name", _applied()).first()
        except (DatabaseError, UnicodeDecodeError) as error:
            raise StorageFailed(
                _("The database does not say which site this is, so the files of this site cannot be told.")
            ) from error
        if first is not None and timezone.is_naive(first[2]):  # the id is the same with and without USE_TZ
            first = (*first[:2], first[2].replace(tzinfo=zones.utc))
        text = repr([Path(settings[-1]).name, *map(str, first or ())])
        _sites[settings] = hashlib.sha256(text.encode()).hexdigest()[:12]
    return _sites[settings]


def _applied() -> Any:
    """Return the moment at which a migration was applied, as the database has it, for a query: without USE_TZ, some
    would give it in the time zone of the project."""
    if project.USE_TZ:
        return F("applied")
    database = database_of()
    return RawSQL(database.in_utc(database.quote("applied")), [], output_field=DateTimeField())


def forget_site() -> None:
    """Let `site_id` ask the database again, since that is another one now."""
    _sites.clear()


def has_notes() -> bool:
    """Tell whether the database has a place for a note, which it lacks if a router has the sessions in another one.
    Raises `Busy` if it does not answer."""
    try:
        with interface_explained(), database_of().exact_session():
            return bool(database_of().table_names().intersection(notes_table()))
    except DatabaseError as error:
        trouble = database_of().trouble(error)
        if isinstance(trouble, Busy):
            raise trouble from error
        return True


def save_note(text: str) -> None:
    """Save a text about a restore, in its transaction, so that both are committed or neither. Replaces the one before.

    A file could name a restore that was rolled back, or miss one. So it is a row in the table of Django's sessions,
    which backups do not contain and restores do not touch. Its key is as secret as that of any session, and its content
    signs nobody in. If the database has no such table, nothing is saved: see `has_notes`.
    """
    if (rows := _rows()) is not None:
        # By key: otherwise MySQL would lock all rows that it looked at, which are other people's sessions.
        rows.model._default_manager.using(rows.db).filter(pk__in=[row.pk for row in rows]).delete()
        rows.create(
            session_key=KEY + secrets.token_hex(16), session_data=text, expire_date=timezone.now() + KEPT
        )


def load_note() -> str:
    """Return what `save_note` saved; "" if there is nothing, or if it cannot be read.

    Raises `Busy` if the database does not answer: that must not be mistaken for "there was no restore".
    """
    try:
        with interface_explained(), database_of().exact_session():
            rows = _rows()
            return (rows.values_list("session_data", flat=True).first() or "") if rows is not None else ""
    except UnicodeDecodeError:  # the database is damaged: see `reason_of`
        return ""
    except DatabaseError as error:
        trouble = database_of().trouble(error)
        if isinstance(trouble, Busy):
            raise trouble from error
        return ""


def _rows() -> QuerySet[Any] | None:
    """Return our rows in the table of sessions; None if there is no such table."""
    if not database_of().table_names().intersection(notes_table()):
        return None
    model = apps.get_model("sessions", "Session")
    rows: QuerySet[Any] = model._default_manager.using(DEFAULT_DB_ALIAS)
    return rows.filter(session_key__startswith=KEY).order_by("pk")

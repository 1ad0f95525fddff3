"""Writes a backup of this site: for a download, for the server, as a safety copy."""

from __future__ import annotations

import datetime as dt
import os
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, BinaryIO

import django
from django.utils.translation import gettext as _

from . import babybuddy
from .archive import Key, Limits, Metadata, Writer
from .archive.limits import megabytes
from .conf import MAX_PHOTOS, aware_now, if_right
from .database import Database, database_of, memo
from .dump import Store, gc_paused, next_keys_of, unreadable, write_photos, write_records
from .exceptions import StorageFailed
from .media import NamedPhotos
from .options import Places, Reporter
from .scope import models_in_scope
from .site import altered, damage_explained, tables_in_database, unknown_parts
from .upgrade import schema


def file_name(moment: dt.datetime) -> str:
    """Return the name of a backup of a moment, in the time zone of that: `backup_MMDDYY_HHMMSS.zip`."""
    return f"backup_{moment:%m%d%y_%H%M%S}.zip"


def write_backup(
    target: BinaryIO,
    user: Any,
    label: str,
    reporter: Reporter,
    key: Key | None,
    *,
    leave_out: bool = False,
    photos: bool = False,
    store: Store | None = None,
    snapshot: Database | None = None,
) -> Metadata:
    """Write a backup, encrypted if there is a key. `photos`, `store`: see `create_backup`. `snapshot`: to read from;
    None opens a new one."""
    database = database_of()
    zone = babybuddy.user_timezone(user)
    named = NamedPhotos() if photos else None
    with (
        damage_explained(database),
        database.exact_session(),
        Writer(target, Limits(photos=if_right("max_photos", MAX_PHOTOS))) as writer,
    ):
        applied = schema.applied(database)
        history = schema.load_history(database)
        tables = tables_in_database(history)
        migrations = schema.leaf_migrations(history, (table.model._meta.app_label for table in tables))
        excluded = schema.migrated_apps(history) & {model._meta.app_label for model in models_in_scope()}
        is_migrated = not schema.pending(history)
        # Apps that no backup holds may well be of a newer version.
        newer = schema.unknown_apps(history) & {table.app for table in tables}
        # Asked before the snapshot: during it, a pooler may have no other connection to give.
        site = memo.site_id()
        with gc_paused(), nullcontext(snapshot) if snapshot else database.snapshot() as reader:
            metadata = Metadata(
                timestamp=aware_now().astimezone(zone),
                timezone=zone.key,
                created_by=user.get_username() if user else "",
                label=label,
                instance=site,
                babybuddy_version=babybuddy.version() if is_migrated else babybuddy.release(migrations),
                django_version=django.get_version(),
                database_engine=database.connection.vendor,
                migrations=migrations,
                excluded=sorted(excluded - migrations.keys()),
            )
            if key:
                writer.encrypt(key, metadata)
            # “migrate” may have run since. (The history also has what replaces those that are applied.)
            if schema.applied(reader) != applied:
                raise altered(["django_migrations"])
            reader.unreadable = Places()
            unknown = [*unknown_parts(reader, tables, newer)] if newer or not is_migrated else []
            for place in unknown:
                reader.unreadable.add(place)
            dangling = write_records(writer, reader, tables, reporter, named)
            next_keys = next_keys_of(reader, tables, leaves_out=bool(reader.unreadable))
            if reader.unreadable and not leave_out:
                is_newer = bool(newer and unknown)
                raise unreadable(reader.unreadable, is_migrated=is_migrated, is_newer=is_newer)
            metadata = replace(
                metadata,
                left_out=reader.unreadable,
                dangling=dangling,
                next_keys=next_keys,
                includes_media=photos,
            )
        if named is not None:  # after the snapshot, which need not stay open while photos are read
            if store is not None:
                store.begin(key)
            else:
                _check_space(target, named)
            metadata = replace(metadata, warnings=write_photos(writer, named, reporter, store))
        return writer.finish(metadata)


def _check_space(target: BinaryIO, photos: NamedPhotos) -> None:
    """Raise `StorageFailed` if the disk of a file has no room for photos."""
    try:
        disk = os.fstatvfs(target.fileno())
    except (AttributeError, OSError):  # Windows; a file in memory
        return
    free, size = disk.f_bavail * disk.f_frsize, photos.size() or 0
    if size > free:
        raise StorageFailed(
            _(
                "The photos take %(size)s MB, and where the backup is written only %(free)s MB are free. Make room, "
                "or make a backup without photos."
            )
            % {"size": megabytes(size), "free": megabytes(free)}
        )

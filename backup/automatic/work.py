"""Determines what a visit to the locations has to do, for all of them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from django.utils import translation

from ..database import memo
from ..storage import elsewhere, kept, keys
from ..storage.kept import BackupKind, StoredBackup
from . import guard
from .status import retention_of


@dataclass(frozen=True)
class Work:
    """What to do in each location.

    `known`: all known backups, by `StoredBackup.identity`. `wanted`: the backups to copy, newest first. `damaged`:
    those that cannot be copied, since they cannot be opened. `newest`: the newest automatic backup in BACKUP_ROOT that
    can be opened. `with_photos`: see `guard.newest_with_photos`. `key_ids`: of the keys that backups here and copies
    anywhere are encrypted with, as far as that is noted. `keys_here`: of those that this server has. `halted`, `site`:
    see `retention.verdicts`. `language`: of messages. `user`: see `copy`.
    """

    known: Mapping[str, StoredBackup]
    wanted: Sequence[StoredBackup]
    damaged: Sequence[StoredBackup]
    newest: StoredBackup | None
    with_photos: str
    key_ids: Set[str]
    halted: str
    keys_here: Set[str]
    site: str
    language: str | None
    user: Any


def work_now(halted: str, user: Any) -> Work:
    """Return what to do: copy the backups in BACKUP_ROOT, except safety copies and those about to be removed."""
    backups, site = kept.backups(), memo.site_id()
    here = [b for b in backups if b.is_local and b.site == site]
    local = [b for b in here if not b.is_damaged]
    goes = {verdict.backup.name for verdict in retention_of(local, site, halted) if not verdict.stays}
    wanted = [b for b in local if b.kind is not BackupKind.SAFETY and b.name not in goes]
    damaged = [b for b in here if b.is_damaged and b.kind is not BackupKind.SAFETY]
    known = {backup.identity: backup for backup in backups}
    ids = {key_id for seen in elsewhere.seen().values() for key_id in seen.key_ids}
    ids |= {backup.key_id for backup in local} - {""}
    newest = next((b for b in local if b.kind is BackupKind.AUTOMATIC and not b.is_locked), None)
    with_photos = guard.newest_with_photos(local)
    language = translation.get_language()
    return Work(known, wanted, damaged, newest, with_photos, ids, halted, keys.ids(), site, language, user)

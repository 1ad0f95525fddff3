"""The shrink guard: compares the number of entries, and of photos, with that of the automatic backup before.

If data was lost, newer backups without it must not push out the last good one. So if there are far fewer entries or
photos, `retention` removes nothing until a superuser says that this is right.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, TypeVar

from .. import babybuddy
from ..archive import Archive
from ..exceptions import (
    BackupError,
    EncryptionUnavailable,
    InvalidBackup,
    KeyNeeded,
    LocationFailed,
    NoSuchBackup,
)
from ..log import logger
from ..storage import kept, keys, locations
from ..storage.facts import UNREADABLE
from ..storage.kept import BackupKind, StoredBackup
from ..storage.locations import Location
from ..storage.names import Name

T = TypeVar("T")

#: A backup is damaged or gone, or its key or the library for it is not here.
CANNOT_OPEN = (InvalidBackup, NoSuchBackup, KeyNeeded, EncryptionUnavailable)

#: The guard steps in if a model lost more records than this, and more than a fifth of them. Fewer are everyday use.
MANY = 50
FIFTH = 5
#: Facts beside a backup: the losses that it shows; and who said, and when, that they are right.
SHRUNK, ACCEPTED = "shrunk", "accepted"
#: Facts that go over from backup to backup: when nothing was there to compare one with, so that older ones may be
#: somewhere, and the moment of the newest of those that one was compared with since.
ALONE, CHECKED = "alone", "checked"
#: Stands for the label of a model in the losses of photos.
PHOTOS = "photos"


@dataclass(frozen=True)
class Loss:
    """Records of a model that are gone, or photos. `model`: its label, or `PHOTOS`. `before`, `now`: how many there
    were, and how many are left."""

    model: str
    before: int
    now: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def references(backups: Iterable[StoredBackup]) -> list[StoredBackup]:
    """Return the backups that a new one can be compared with: those that can be opened, and that show no losses
    themselves, unless a superuser has said that these are right."""
    return [
        backup
        for backup in backups
        if not (backup.is_damaged or backup.is_locked or UNREADABLE in backup.facts or shrunk([backup]))
    ]


def found_in(file: BinaryIO) -> dict[str, Any]:
    """Return what the guard says of a new automatic backup, as facts. It is compared with the newest one that can be
    opened and that shows no losses itself, wherever that is; and with the newest one that none was compared with, since
    it was not there for a while. Raises `StorageFailed`."""
    facts: dict[str, Any] = {}
    found: list[Loss] = []
    has_failed = False
    for backup in references(kept.backups(BackupKind.AUTOMATIC)):
        moment = backup.created.isoformat()
        is_first = not facts
        if not (is_first or facts.get(CHECKED, "") < moment < facts[ALONE]):
            continue
        try:
            lost = compare(losses, backup, file)
        except LocationFailed as error:  # the visit that follows compares: see `found_elsewhere`
            logger.warning("a new backup cannot be compared: %s", error.code)
            has_failed = True
            continue
        if lost is None:
            continue
        found = [*{loss.model: loss for loss in [*found, *lost]}.values()]
        if not is_first:
            facts[CHECKED] = moment
            break
        facts = {name: backup.facts[name] for name in (ALONE, CHECKED) if name in backup.facts}
        if has_failed and ALONE not in facts:
            facts = {ALONE: _now(), CHECKED: moment}
        if ALONE not in facts:
            return _facts(found)
    return {**(facts or {ALONE: _now()}), **_facts(found)}


def _now() -> str:
    return dt.datetime.now(dt.timezone.utc).isoformat()


def compare(comparison: Callable[[Archive, Archive], T], backup: StoredBackup, file: BinaryIO) -> T | None:
    """Return what `comparison` returns for an older backup and a new one, which is in `file`. None if the older one
    cannot be opened. Raises `StorageFailed`."""
    try:
        with kept.open_backup(backup.name) as source, keys.unlocked(source) as then:
            file.seek(0)
            with keys.unlocked(file) as today:
                return comparison(then, today)
    except CANNOT_OPEN as error:
        logger.warning("%s cannot be compared with: %s", backup.name, error.code)
        return None


def found_elsewhere(
    location: Location, copies: Sequence[Name], newest: StoredBackup | None
) -> dict[str, Any]:
    """Compare the newest backup in BACKUP_ROOT with the newest of the copies in a location that no backup was compared
    with: those from before BACKUP_ROOT was lost, say.

    `copies`: those that can be opened, newest first. `newest`: None if there is none. Returns facts about that. They
    also say that this was done, so it is done once. Raises `StorageFailed`, or, if none of the copies can be compared
    with, `InvalidBackup`, `KeyNeeded`, `NoSuchBackup` or `EncryptionUnavailable`.
    """
    if newest is None:
        return {}
    alone, checked = (str(newest.facts.get(name, "")) for name in (ALONE, CHECKED))
    copies = [
        name
        for name in copies
        if name.kind is BackupKind.AUTOMATIC and checked < name.created.isoformat() < alone
    ]
    trouble: BackupError | None = None
    for name in copies:
        try:
            with (
                locations.open_parts(location, name.path) as before,
                keys.unlocked(before) as then,
                kept.open_backup(newest.name, kept.LOCAL) as here,
                keys.unlocked(here) as today,
            ):
                return {**_facts(losses(then, today)), CHECKED: copies[0].created.isoformat()}
        except CANNOT_OPEN as error:
            trouble = error
    if trouble is not None:
        raise trouble
    return {}


def _facts(losses: Iterable[Loss]) -> dict[str, Any]:
    """Return the losses as facts; {} if there are none."""
    entries = [loss.as_json() for loss in losses]
    return {SHRUNK: entries} if entries else {}


def losses(before: Archive, now: Archive) -> list[Loss]:
    """Return which models lost records: at least one child, or many records of care; and whether photos were lost.

    Raises `InvalidBackup`. A model that is no longer in the backup at all, since an update of the host or
    BACKUP_EXCLUDE removed it, is passed over.
    """
    fewer = []
    for label, member in before.metadata.models.items():
        if label not in now.metadata.models:
            continue
        then, today = member.records, now.metadata.models[label].records
        if label == babybuddy.CHILD:
            then, today = _children(before, now)
            is_lost = today < then
        else:
            is_lost = babybuddy.is_care(label) and _are_many(then, today)
        if is_lost:
            fewer.append(Loss(label, then, today))
    if (
        before.metadata.includes_media and now.metadata.includes_media
    ):  # BACKUP_PHOTOS may have been switched off
        then, today = len(before.metadata.photos), len(now.metadata.photos)
        # There are more warnings than before if records still name the photos: then nobody took them away on purpose,
        # the folder of photos may not be mounted, and a few are too many.
        are_named = len(now.metadata.warnings) > len(before.metadata.warnings)
        if _are_many(then, today, 0 if are_named else MANY):
            fewer.append(Loss(PHOTOS, then, today))
    return fewer


def _are_many(then: int, today: int, many: int = MANY) -> bool:
    lost = then - today
    return lost > many and lost * FIFTH > then


def _children(before: Archive, now: Archive) -> tuple[int, int]:
    """Return how many children there were, and how many of them are left. So a new child does not make up for one that
    is gone, even if it has the same key."""
    then, today = (
        [(record["pk"], record["fields"]) for batch in archive.records(babybuddy.CHILD) for record in batch]
        for archive in (before, now)
    )
    left = [
        key
        for key, child in then
        if any(
            babybuddy.is_same_child(child, other, has_same_key=key == other_key) for other_key, other in today
        )
    ]
    return len(then), len(left)


def shrunk(backups: Iterable[StoredBackup]) -> list[StoredBackup]:
    """Return the backups that show losses of which no superuser has said yet that they are right."""
    return [b for b in backups if b.facts.get(SHRUNK) and not b.facts.get(ACCEPTED)]


def losses_of(backups: Sequence[StoredBackup]) -> list[Loss]:
    """Return the losses that these backups show together: one for each model, from its first loss to its last.

    `backups`: newest first.
    """
    by_model: dict[str, Loss] = {}
    for backup in backups:
        for entry in backup.facts.get(SHRUNK, []):
            model, before, now = entry["model"], entry["before"], entry["now"]
            by_model[model] = Loss(model, before, by_model[model].now if model in by_model else now)
    return [*by_model.values()]

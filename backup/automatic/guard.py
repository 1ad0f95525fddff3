"""The shrink guard: compares the number of entries, and of photos, with that of the automatic backup before.

If data was lost, newer backups without it must not push out the last good one. So if there are far fewer entries or
photos, `retention` removes nothing until a superuser says that this is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .. import babybuddy
from ..archive import Archive
from ..storage.kept import StoredBackup

#: The guard steps in if a model lost more records than this, and more than a fifth of them. Fewer are everyday use.
MANY = 50
FIFTH = 5
#: Facts beside a backup: the losses that it shows, and who said, and when, that they are right.
SHRUNK, ACCEPTED = "shrunk", "accepted"
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
            then, today = _children(before), _children(before, now)
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


def _children(*archives: Archive) -> int:
    """Return how many children are in all of these archives. So a new child does not make up for one that is gone."""
    keys = [{r["pk"] for batch in a.records(babybuddy.CHILD) for r in batch} for a in archives]
    return len(set.intersection(*keys))


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

"""The shrink guard: finds what is fewer than in the automatic backup before.

Data that was lost must not push the last good backup out. If some is fewer, `retention` removes nothing until a
superuser says that it is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .. import babybuddy
from ..archive import Archive
from ..storage.kept import StoredBackup

#: A model is guarded where it lost more records than this, and more than a fifth of them. Fewer go in everyday use.
MANY = 50
FIFTH = 5
#: The fact beside a backup: what is fewer in it, and, once somebody said that it is right, who.
SHRUNK, ACCEPTED = "shrunk", "accepted"


@dataclass(frozen=True)
class Loss:
    """Records of a model that are gone. `model`: its label. `before`, `now`: how many there were, and are."""

    model: str
    before: int
    now: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def losses(before: Archive, now: Archive) -> list[Loss]:
    """Return what is fewer now than before: a child, or many records of care. Raises `InvalidBackup`.

    A model that is not there any more, since an update of the host or BACKUP_EXCLUDE took it away, lost nothing.
    """
    found = []
    for label, member in before.metadata.models.items():
        if label not in now.metadata.models:
            continue
        then, today = member.records, now.metadata.models[label].records
        if label == babybuddy.CHILD:
            then, today = _children(before), _children(before, now)
            is_lost = today < then
        else:
            lost = then - today
            is_lost = babybuddy.is_care(label) and lost > MANY and lost * FIFTH > then
        if is_lost:
            found.append(Loss(label, then, today))
    return found


def _children(*archives: Archive) -> int:
    """Return the number of children that are in all of these. One that came does not make up for one that went."""
    keys = [{r["pk"] for batch in a.records(babybuddy.CHILD) for r in batch} for a in archives]
    return len(set.intersection(*keys))


def shrunk(backups: Iterable[StoredBackup]) -> list[StoredBackup]:
    """Return the backups in which something is fewer, and about which nobody has said yet that it is right."""
    return [b for b in backups if b.facts.get(SHRUNK) and not b.facts.get(ACCEPTED)]


def losses_of(backups: Sequence[StoredBackup]) -> list[Loss]:
    """Return what is fewer in these backups, newest first; each model once, from the first loss to the last."""
    found: dict[str, Loss] = {}
    for backup in backups:
        for entry in backup.facts.get(SHRUNK, []):
            model, before, now = entry["model"], entry["before"], entry["now"]
            found[model] = Loss(model, before, found[model].now if model in found else now)
    return [*found.values()]

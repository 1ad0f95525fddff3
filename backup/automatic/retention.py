"""Which automatic backups stay, and why. A pure computation: nothing here looks at a clock or at a file."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from django.utils.translation import gettext as _

from ..storage.kept import BackupKind, StoredBackup

#: Rule of BACKUP_KEEP -> the period that a moment lies in, as people write it.
PERIODS: dict[str, Callable[[dt.datetime], str]] = {
    "hourly": lambda moment: f"{moment:%Y-%m-%d %H:00}",
    "daily": lambda moment: f"{moment:%Y-%m-%d}",
    "weekly": lambda moment: f"{moment.date() - dt.timedelta(days=moment.weekday())}",  # from Monday
    "monthly": lambda moment: f"{moment:%Y-%m}",
    "yearly": lambda moment: f"{moment:%Y}",
}


@dataclass(frozen=True)
class Verdict:
    """What becomes of a backup. `reasons`: why it stays; none if it goes."""

    backup: StoredBackup
    reasons: tuple[str, ...]

    @property
    def stays(self) -> bool:
        return bool(self.reasons)


def verdicts(
    backups: Iterable[StoredBackup],
    rules: Mapping[str, int | None],
    *,
    site: str,
    zone: ZoneInfo,
    now: dt.datetime,
    halted: str = "",
) -> list[Verdict]:
    """Return what becomes of each automatic backup of this site, newest first.

    `rules`: see `conf.keep_rules`. `site`: its id. `zone`: the one that days and weeks are of. `halted`: why nothing is
    removed at all; "" if the rules hold. What is no automatic backup, or another site's, has no verdict: no rule
    removes it.
    """
    own = [b for b in backups if b.kind is BackupKind.AUTOMATIC and b.site == site]
    own.sort(key=lambda backup: (backup.created, backup.name), reverse=True)
    # What is dated in the future, or damaged, must not push a good one out; nor must what lacks something.
    counted = [backup for backup in own if backup.created <= now and not backup.is_damaged]
    whole = [backup for backup in counted if not backup.left_out]
    reasons: dict[str, list[str]] = {backup.name: [] for backup in own}
    for backup in own:
        if backup.created > now:
            reasons[backup.name].append(_("dated in the future"))
        if backup.is_damaged:
            reasons[backup.name].append(_("damaged: look at it, then delete it"))
        if backup.is_undo:
            reasons[backup.name].append(_("the last restore can be undone with it"))
        if backup.pinned:
            reasons[backup.name].append(_("pinned"))
    for backup in counted[:1]:
        reasons[backup.name].append(_("the newest"))
    for backup in whole[:1] if counted[:1] != whole[:1] else ():
        reasons[backup.name].append(_("the newest that lacks nothing"))
    for backup in [b for b in whole if (b.proof or {}).get("verdict") == "proved"][:1]:
        reasons[backup.name].append(_("the newest that is proved"))
    for rule, number in rules.items():
        among_all = [found for found in _wanted(counted, rule, number, zone) if found[0].left_out]
        for backup, period in [*_wanted(whole, rule, number, zone), *among_all]:
            reasons[backup.name].append(f"{rule} {period}".rstrip())
    return [Verdict(backup, tuple(reasons[backup.name]) or ((halted,) if halted else ())) for backup in own]


def _wanted(
    backups: list[StoredBackup], rule: str, number: int | None, zone: ZoneInfo
) -> list[tuple[StoredBackup, str]]:
    """Return the backups that a rule wants, and of which period each is the last one. `backups`: newest first.

    A period without a backup does not count.
    """
    if rule == "last":
        return [(backup, "") for backup in backups[:number]]
    last_ones: dict[str, StoredBackup] = {}
    for backup in backups:
        last_ones.setdefault(PERIODS[rule](backup.created.astimezone(zone)), backup)
    return [(backup, period) for period, backup in [*last_ones.items()][:number]]

"""Decides which automatic backups stay, and why. A pure computation: it looks at no clock and no file."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from django.utils.translation import gettext as _

from ..storage.kept import BackupKind, StoredBackup

#: Rule of BACKUP_KEEP -> function that returns the period of a moment, as text.
PERIODS: dict[str, Callable[[dt.datetime], str]] = {
    "hourly": lambda moment: f"{moment:%Y-%m-%d %H:00}",
    "daily": lambda moment: f"{moment:%Y-%m-%d}",
    "weekly": lambda moment: f"{moment.date() - dt.timedelta(days=moment.weekday())}",  # begins on Monday
    "monthly": lambda moment: f"{moment:%Y-%m}",
    "yearly": lambda moment: f"{moment:%Y}",
}


@dataclass(frozen=True)
class Verdict:
    """Whether a backup stays. `reasons`: why it does, in words; empty if it is to be removed."""

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
    compared_with: Callable[[StoredBackup], Iterable[str]] = lambda backup: (),
) -> list[Verdict]:
    """Return a verdict for each automatic backup of this site, newest first.

    `rules`: see `conf.keep_rules`. `site`: the id of this site. `zone`: the time zone of days and weeks. `halted`: why
    nothing is removed at all; "" if the rules apply. `compared_with`: returns the identities of other backups that
    have to stay as long as that one. Other backups have no verdict, since no rule removes them.
    """
    own = [b for b in backups if b.kind is BackupKind.AUTOMATIC and b.site == site]
    own.sort(key=lambda backup: (backup.created, backup.name), reverse=True)
    # A backup that is damaged, locked, incomplete, or dated in the future must not push out a good one.
    counted = [b for b in own if b.created <= now and not (b.is_damaged or b.is_locked)]
    whole = [backup for backup in counted if not backup.lacks_something]
    reasons: dict[str, list[str]] = {backup.name: [] for backup in own}
    for backup in own:
        if backup.created > now:
            reasons[backup.name].append(_("dated in the future"))
        if backup.is_damaged and backup.is_local and backup.is_elsewhere:
            reasons[backup.name].append(
                _("damaged here: look at its copies, and put a good one in its place")
            )
        elif backup.is_damaged:
            reasons[backup.name].append(_("damaged: look at it, then delete it"))
        if backup.is_locked:  # nobody knows what it holds, and a site that has lost its keys may need it
            reasons[backup.name].append(_("encrypted with a key that is not on this server"))
        if backup.is_undo:
            reasons[backup.name].append(_("the last restore can be undone with it"))
        if backup.pinned:
            reasons[backup.name].append(_("pinned"))
    for backup in counted[:1]:
        reasons[backup.name].append(_("the newest"))
    for backup in whole[:1] if counted[:1] != whole[:1] else ():
        reasons[backup.name].append(_("the newest that lacks nothing"))
    # Photos that are left out from now on, perhaps by mistake, must not be gone within days.
    for name in dict.fromkeys(b.name for b in map(_with_photos, (counted, whole)) if b is not None):
        reasons[name].append(_("the newest with photos"))
    for backup in [b for b in whole or counted if (b.proof or {}).get("verdict") == "proved"][:1]:
        reasons[backup.name].append(_("the newest that is proved"))
    for rule, number in rules.items():
        among_all = [pair for pair in _wanted(counted, rule, number, zone) if pair[0].lacks_something]
        for backup, period in [*_wanted(whole, rule, number, zone), *among_all]:
            reasons[backup.name].append(f"{rule} {period}".rstrip())
    by_identity = {backup.identity: backup for backup in own}
    asked = [backup for backup in own if reasons[backup.name]]
    compared: set[str] = set()
    while asked:
        more = {*compared_with(asked.pop())} & by_identity.keys() - compared
        compared |= more
        asked += [by_identity[identity] for identity in more]
    for backup in own:
        if backup.identity in compared:
            reasons[backup.name].append(_("older ones are compared with it"))
    return [Verdict(backup, tuple(reasons[backup.name]) or ((halted,) if halted else ())) for backup in own]


def _with_photos(backups: list[StoredBackup]) -> StoredBackup | None:
    """Return the newest backup with photos, if newer ones do not show whether these are still there; else None.

    `backups`: newest first.
    """
    for number, backup in enumerate(backups):
        if backup.photos:
            return backup if number else None
        if backup.includes_photos and not backup.lacks_something:
            return None  # there are no photos any more
    return None


def _wanted(
    backups: list[StoredBackup], rule: str, number: int | None, zone: ZoneInfo
) -> list[tuple[StoredBackup, str]]:
    """Return the backups that a rule keeps, each with the period of which it is the last one.

    `backups`: newest first. `number`: how many to keep; None is all. Periods without a backup do not count.
    """
    if rule == "last":
        return [(backup, "") for backup in backups[:number]]
    last_ones: dict[str, StoredBackup] = {}
    for backup in backups:
        last_ones.setdefault(PERIODS[rule](backup.created.astimezone(zone)), backup)
    return [(backup, period) for period, backup in [*last_ones.items()][:number]]

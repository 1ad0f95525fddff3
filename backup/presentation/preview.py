"""A plan in words, for the preview: one sentence, and the models in their groups with counts and examples."""

from __future__ import annotations

import zoneinfo
from collections import Counter
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, npgettext

from .. import babybuddy
from ..options import Part
from ..restore.plan import PhotoChanges, Plan
from .chart import chart
from .conflicts import conflict_in_words
from .examples import Examples
from .names import entered, grouped, model_names
from .parts import TITLES

#: What may happen to a record. `used`: it only differs in when it was last used.
KINDS = ("added", "changed", "used", "removed")

_GROUPS = {
    babybuddy.CARE: TITLES[Part.ENTRIES],
    babybuddy.ACCOUNTS: gettext_lazy("Accounts and settings"),
    babybuddy.SEEDED: gettext_lazy("Growth tables that come with Baby Buddy"),
    babybuddy.OTHER: gettext_lazy("Other records"),
}


def preview(plan: Plan, zone: zoneinfo.ZoneInfo) -> dict[str, Any]:
    """Return the context of the preview's template. `zone`: the viewer's time zone."""
    groups = _groups(plan, zone)
    total = {
        kind: sum(row["counts"][kind] for group in groups for row in group["differing"] if row["is_entered"])
        for kind in KINDS
    }
    is_seeded_only = not any(total.values()) and any(group["differing"] for group in groups)
    collected = plan.preview
    return {
        "groups": groups,
        "empty": sum(not any(vars(changes).values()) for changes in plan.changes.values()),
        "total": total,
        "sentence": _("Only the growth tables that come with Baby Buddy will change.")
        if is_seeded_only
        else sentence(total, photos=plan.photos.added),
        "photos": photos_in_words(plan.photos),
        "records": entered(plan.records),
        "children": plan.children,
        "children_lost": children_lost(plan),
        "chart": chart(collected.months, collected.months_here) if collected else None,
        "conflicts": [conflict_in_words(conflict) for conflict in plan.conflicts],
    }


def children_lost(plan: Plan) -> list[str]:
    """Return the names of the children here that will be deleted, the first of them if there are many."""
    samples = plan.preview.samples.get(babybuddy.CHILD) if plan.preview else None
    tables = [table for table in [*plan.tables, *plan.emptied] if table.label == babybuddy.CHILD]
    return [
        babybuddy.child_name(table, row) for table in tables for row in (samples.removed if samples else ())
    ]


def photos_in_words(photos: PhotoChanges) -> list[str]:
    """Return clauses that say what happens to photos; [] if there are none."""
    added, unchanged, missing = photos.added, photos.unchanged, photos.missing
    return _clauses(
        (
            added,
            ngettext("%(number)s photo will be added", "%(number)s photos will be added", added),
            "",  # always the first
        ),
        (
            unchanged,
            ngettext("%(number)s photo is already here", "%(number)s photos are already here", unchanged),
            # Translators: of photos
            ngettext("%(number)s is already here", "%(number)s are already here", unchanged),
        ),
        (
            missing,
            ngettext("%(number)s photo is missing", "%(number)s photos are missing", missing),
            # Translators: of photos
            ngettext("%(number)s is missing", "%(number)s are missing", missing),
        ),
    )


def _clauses(*numbers: tuple[int, str, str]) -> list[str]:
    """Return the clauses of a sentence. `numbers`: each is a number, its clause if it comes first in the sentence, and
    its clause if it follows another one. Zeros are left out."""
    clauses = [(grouped(number), first, later) for number, first, later in numbers if number]
    return [(later if place else first) % {"number": n} for place, (n, first, later) in enumerate(clauses)]


def sentence(total: dict[str, int], photos: int = 0) -> str:
    """Return one sentence that says what happens. `total`: each of `KINDS` -> number of records. `photos`: how many
    are added."""
    if not (total["added"] or total["changed"] or total["removed"]):
        if photos and total["used"]:
            return _("Records will change only in when they were last used.")
        if photos:
            return _("No record will change.")
        if total["used"]:
            return _(
                "Nothing will change except when some records were last used, such as your last sign-in."
            )
        return _("Nothing will change: everything in the backup is already here.")
    added, changed, removed = total["added"], total["changed"], total["removed"]
    # Translators: these make one sentence: "1,204 records will be added, 3 will change, 12 will be deleted."
    parts = _clauses(
        (
            added,
            ngettext("%(number)s record will be added", "%(number)s records will be added", added),
            "",  # always the first
        ),
        (
            changed,
            ngettext("%(number)s record will change", "%(number)s records will change", changed),
            npgettext("records", "%(number)s will change", "%(number)s will change", changed),
        ),
        (
            removed,
            ngettext("%(number)s record will be deleted", "%(number)s records will be deleted", removed),
            npgettext("records", "%(number)s will be deleted", "%(number)s will be deleted", removed),
        ),
    )
    # Translators: between two parts of a sentence
    joined = _(", ").join(parts)
    if removed:
        return _("%(changes)s.") % {"changes": joined}
    return _("%(changes)s; nothing will be deleted.") % {"changes": joined}


def _groups(plan: Plan, zone: zoneinfo.ZoneInfo) -> list[dict[str, Any]]:
    """Return the models in groups: those that differ first, and none without records in both backup and database."""
    names = model_names(plan.changes)
    samples = plan.preview.samples if plan.preview else {}
    used_only: Counter[str] = plan.preview.used if plan.preview else Counter()
    tables = {table.label: table for table in [*plan.tables, *plan.emptied]}
    examples = Examples(tables, samples, zone, plan.photo_of)
    groups: dict[str, list[dict[str, Any]]] = {group: [] for group in babybuddy.GROUPS}
    for label, changes in sorted(plan.changes.items(), key=lambda item: names[item[0]].lower()):
        if any(vars(changes).values()):
            used = used_only[label]
            counts = {**vars(changes), "changed": changes.changed - used, "used": used}
            row = {
                "name": names[label],
                "counts": counts,
                "examples": examples.of(label),
                "is_entered": babybuddy.is_entered(label),
            }
            groups[babybuddy.group_of(label)].append(row)
    return [
        {
            "id": group,
            "title": _GROUPS[group],
            "differing": [row for row in rows if _differs(row)],
            "same": [row for row in rows if not _differs(row)],
        }
        for group, rows in groups.items()
        if rows
    ]


def _differs(row: dict[str, Any]) -> bool:
    return any(row["counts"][kind] for kind in KINDS)

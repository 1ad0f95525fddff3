"""A plan in words, for the preview page: groups of models, example records in readable form, the chart by month.

Everything comes out as plain text; the templates escape it.
"""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db import DatabaseError
from django.template.defaultfilters import yesno
from django.utils import timezone
from django.utils.formats import date_format, localize, number_format
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext

from . import babybuddy
from .kinds import (
    BOOLEAN,
    DATE,
    DATETIME,
    DURATION,
    FLOAT,
    INTEGER,
    TIME,
    Plain,
)
from .restore.plan import Plan
from .restore.preview import Samples
from .tables import Column, Relation, Row, Table

#: Of records, in the order in which a preview tells of them. `used`: what differs is only when they were last used.
KINDS = ("added", "changed", "used", "removed")
#: Characters that are shown of a value.
LENGTH = 160
#: Fields whose value is for nobody's eyes; that it differs is shown.
_SECRET = re.compile(r"password|token|secret|api_?key", re.IGNORECASE)
_HIDDEN = "•••"

_GROUPS = {
    babybuddy.CARE: gettext_lazy("Children and entries"),
    babybuddy.ACCOUNTS: gettext_lazy("Accounts and settings"),
    babybuddy.SEEDED: gettext_lazy("Growth tables that come with Baby Buddy"),
    babybuddy.OTHER: gettext_lazy("Other records"),
}


def preview(plan: Plan, zone: zoneinfo.ZoneInfo) -> dict[str, Any]:
    """What the preview's template shows. `zone`: the viewer's."""
    groups = _groups(plan, zone)
    total = {
        kind: sum(row["counts"][kind] for group in groups for row in group["differing"]) for kind in KINDS
    }
    return {
        "groups": groups,
        "empty": sum(not any(vars(changes).values()) for changes in plan.changes.values()),
        "total": total,
        "sentence": _sentence(total, plan.clear),
        "chart": _chart(plan),
        "conflicts": [_conflict(*clash) for clash in plan.clashes],
    }


def model_names(labels: Iterable[str]) -> dict[str, str]:
    """Label -> the host's own plural, in the viewer's language; two that are alike get their label added."""
    names = {}
    for label in labels:
        try:
            own = apps.get_model(label)._meta.verbose_name_plural
            names[label] = str(babybuddy.NAMES.get(label) or capfirst(own))
        except LookupError:
            names[label] = label
    often = Counter(names.values())
    return {label: f"{name} ({label})" if often[name] > 1 else name for label, name in names.items()}


#: A model's label, and the key of a record where one follows it: "core.feeding 8".
_LABEL = re.compile(r"(?<![\w./-])([a-z]\w*\.[a-z]\w*)(?![\w/-]|\.\w)(?: (\d+)\b)?")


def in_words(message: str) -> str:
    """A message for a page: for scripts and commands it names models by their labels, for a person as the host does."""

    def name(found: re.Match[str]) -> str:
        label, key = found.groups()
        try:
            return _record(label, _number(key)) if key else model_names([label])[label]
        except LookupError:
            return found[0]

    return _LABEL.sub(name, str(message))


def _record(label: str, name: str) -> str:
    """As “Feeding No. 8”, “Tag Night (No. 8)”."""
    kind = babybuddy.NAMES.get(label) or capfirst(apps.get_model(label)._meta.verbose_name)
    return f"{kind} {name}"


def _number(key: Plain) -> str:
    # Translators: the number of a record in the database
    return pgettext("record", "No. %(key)s") % {"key": _cut(str(key))}


def grouped(number: int) -> str:
    """1204 -> "1,204", in the viewer's language, also where the host does not group digits elsewhere."""
    return number_format(number, decimal_pos=0, force_grouping=True)


# -- the counts ---


def _sentence(total: dict[str, int], clear: bool) -> str:
    """All of it in one sentence."""
    if not (total["added"] or total["changed"] or total["removed"]):
        if total["used"]:
            return _(
                "Nothing would change, except the time when something was last used, such as your last sign-in: all "
                "else that is in the backup is here, as it was."
            )
        return _("Nothing would change: all that is in the backup is here, as it was.")
    added, changed, removed = total["added"], total["changed"], total["removed"]
    parts = {
        # Translators: these make one sentence: "1,204 records come back, 3 change, 12 entered since would be lost."
        "come_back": ngettext("%(number)s record comes back", "%(number)s records come back", added)
        % {"number": grouped(added)},
        # Translators: the middle of that sentence; of records
        "change": ngettext("%(number)s changes", "%(number)s change", changed) % {"number": grouped(changed)},
        # Translators: the end of that sentence; of records
        "lost": ngettext(
            "%(number)s entered since would be lost", "%(number)s entered since would be lost", removed
        )
        % {"number": grouped(removed)},
    }
    if clear and removed:
        return _("%(come_back)s, %(change)s, %(lost)s.") % parts
    return _("%(come_back)s, %(change)s, and nothing is lost.") % parts


def _groups(plan: Plan, zone: zoneinfo.ZoneInfo) -> list[dict[str, Any]]:
    """The models in their groups, those that differ first. Models with no records anywhere are left out."""
    names = model_names(plan.changes)
    samples = plan.look.samples if plan.look else {}
    tables = {table.label: table for table in [*plan.tables, *plan.emptied]}
    examples = _Examples(tables, samples, zone)
    groups: dict[str, list[dict[str, Any]]] = {group: [] for group in babybuddy.GROUPS}
    for label, changes in sorted(plan.changes.items(), key=lambda item: names[item[0]].lower()):
        if any(vars(changes).values()):
            used = plan.look.used[label] if plan.look else 0
            counts = {**vars(changes), "changed": changes.changed - used, "used": used}
            row = {"name": names[label], "counts": counts, "examples": examples.of(label)}
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


# -- example records ---


@dataclass(frozen=True)
class Value:
    """A field of an example record. `before`: None where the record has only one state."""

    name: str
    text: str
    before: str | None = None


@dataclass(frozen=True)
class Example:
    """`values`: what there is to see of it; of a record that changes, what differs. `about`: what tells which it is."""

    title: str
    values: list[Value]
    about: list[Value]


class _Examples:
    """Rows in readable form. What they refer to is named as its model names it, where it can be found."""

    def __init__(
        self, tables: dict[str, Table], samples: dict[str, Samples], zone: zoneinfo.ZoneInfo
    ) -> None:
        self._tables, self._samples, self._zone = tables, samples, zone
        self._names = self._names_of_others()

    def of(self, label: str) -> dict[str, list[Example]]:
        samples = self._samples.get(label, Samples())
        table = self._tables[label]
        return {
            "added": [self._whole(table, row) for row in samples.added],
            "changed": [self._change(table, *rows) for rows in samples.changed],
            "used": [self._change(table, *rows) for rows in samples.used],
            "removed": [self._whole(table, row) for row in samples.removed],
        }

    def _whole(self, table: Table, row: Row) -> Example:
        kinds = {key: kind for kind, key in table.generics}
        values = []
        for place, part in enumerate(_parts(table), 1):
            if row[place] in (None, "", []) or place in kinds.values():
                continue
            if place in kinds:  # "Feeding: No. 7", not "Content type: Feeding, Object ID: 7"
                kind = self._text(table.columns[kinds[place]], row[kinds[place]])
                values.append(Value(kind, _number(row[place])))
            else:
                values.append(Value(_name(table, part), self._text(part, row[place])))
        return Example(_title(table, row), values, [])

    def _change(self, table: Table, here: Row, new: Row) -> Example:
        values, about = [], []
        moment = babybuddy.moment_of(table)
        for part, before, after in zip(_parts(table), here[1:], new[1:], strict=True):
            if before == after:
                if part is moment or (isinstance(part, Column) and part.refers_to and before is not None):
                    about.append(Value(_name(table, part), self._text(part, after)))
                continue
            texts = self._text(part, before), self._text(part, after)
            if (
                texts[0] == texts[1] != _HIDDEN
            ):  # they differ in what is not shown of them, fractions of a second say
                texts = _cut(str(before)), _cut(str(after))
            values.append(Value(_name(table, part), texts[1], texts[0]))
        return Example(_title(table, new), values, about)

    def _text(self, part: Column | Relation, value: Plain) -> str:
        if isinstance(part, Relation):
            if len(value) > 10:
                return grouped(len(value))
            return ", ".join(self._reference(part.target, key) for key in value) or _nothing()
        if value is None or value == "":
            return _nothing()
        if _SECRET.search(part.name):
            return _HIDDEN
        if part.refers_to:
            return self._reference(part, value)
        choices = dict(getattr(part.field, "flatchoices", None) or ())
        if not isinstance(value, list | dict) and value in choices:
            return _cut(str(choices[value]))
        return _cut(_readable(part, value, self._zone))

    def _reference(self, column: Column, key: Plain) -> str:
        if isinstance(key, list):  # a natural key: of a model, or of a permission
            try:
                return (
                    str(capfirst(apps.get_model(*key)._meta.verbose_name)) if len(key) == 2 else str(key[0])
                )
            except LookupError:
                return ".".join(map(str, key))
        return self._names.get((column.refers_to, key)) or _number(key)

    def _names_of_others(self) -> dict[tuple[str, Plain], str]:
        """(label, key) -> the name, of all records that the samples refer to."""
        wanted: dict[str, set[Plain]] = {}
        for label, samples in self._samples.items():
            table = self._tables[label]
            for row in samples.rows():
                for target, key in _references(table, row):
                    wanted.setdefault(target, set()).add(key)
        names = {}
        for label, keys in wanted.items():
            try:
                here = apps.get_model(label)._base_manager.in_bulk([*keys])
            except (OverflowError, DatabaseError):
                here = {}  # a number out of a file that no key can be
            for key, found in here.items():
                names[label, key if isinstance(key, int) else str(key)] = _called(found)
            # What is not here comes back with the backup, and may be among its own examples.
            samples = self._samples.get(label, Samples())
            for row in samples.added:
                if row[0] in keys:
                    names.setdefault((label, row[0]), _called(_instance(self._tables[label], row)))
        return names


def _nothing() -> str:
    # Translators: a field without a value, as in "now: Green, in the backup: (nothing)"
    return pgettext("value", "(nothing)")


def _title(table: Table, row: Row) -> str:
    if table.key_is_data:
        return ""  # an API token is its own key
    # What names itself by others would have to ask for them, record by record.
    name = "" if table.references or table.generics else _called(_instance(table, row))
    return _named(name if name != str(table.model._meta.verbose_name) else "", row[0])


def _named(name: str, key: Plain) -> str:
    """As “Night (No. 8)”, “No. 8”."""
    return f"{name} ({_number(key)})" if name else _number(key)


def _parts(table: Table) -> tuple[Column | Relation, ...]:
    return (*table.nonkey_columns, *table.relations)


def _references(table: Table, row: Row) -> Iterator[tuple[str, Plain]]:
    for place, label in table.references:
        if row[place] is not None:
            yield label, row[place]
    for place, relation in enumerate(table.relations, len(table.columns)):
        if not relation.target.is_natural and relation.target.refers_by_key:
            yield from ((relation.target.refers_to, key) for key in row[place][:10])


def _instance(table: Table, row: Row) -> Any:
    values = {
        column.field.attname: None if value is None else column.kind.load(value)
        for column, value in zip(table.columns, row, strict=False)
        if not column.is_natural
    }
    return table.model(**values)


def _called(record: Any) -> str:
    """What a record is called; "" where it cannot say."""
    try:
        return _cut(str(record))
    except Exception:  # noqa: BLE001  anybody's code, and not meant for a record that is not here
        return ""


def _name(table: Table, part: Column | Relation) -> str:
    """The host's own name of a field, in the viewer's language."""
    field: Any = table.model._meta.get_field(part.name)
    return str(capfirst(field.verbose_name))


def _readable(column: Column, value: Plain, zone: zoneinfo.ZoneInfo) -> str:
    kind = column.kind
    if kind is BOOLEAN:
        return str(yesno(value))
    if kind is DATETIME:
        moment = kind.load(value)
        with suppress(OverflowError):  # at the end of time
            moment = moment.astimezone(zone) if moment.tzinfo else moment
        return date_format(moment, "DATETIME_FORMAT")
    if kind is DATE:
        return date_format(kind.load(value), "DATE_FORMAT")
    if kind is TIME:
        return date_format(kind.load(value), "TIME_FORMAT")
    if kind is DURATION:
        return str(value).partition(".")[0]
    if kind in (INTEGER, FLOAT):
        return str(localize(value))
    return str(value)


def _cut(text: str) -> str:
    return text if len(text) <= LENGTH else text[:LENGTH] + "…"


# -- conflicts ---


def _conflict(table: Table, row: Row, keys: list[Plain]) -> str:
    """A record that may be several rows here, or a row that several records may be; and by what they are alike."""
    record = _instance(table, row)
    rows = []
    for here in table.model._base_manager.filter(pk__in=keys).order_by("pk"):
        alike = {
            _name(table, table.columns[place])
            for group in table.uniques
            if all(_same(table.columns[place], record, here) for place in group)
            for place in group
        }
        name = _named(_called(here), here.pk)
        # Translators: one of the rows that a record may be: "Nap (No. 7), by its Slug"
        by = _("%(name)s, by its %(fields)s") % {"name": name, "fields": ", ".join(sorted(alike))}
        rows.append(by if alike else name)
    words = {"record": _record(table.label, _title(table, row)), "rows": "; ".join(rows)}
    if len(keys) > 1:
        return _("%(record)s in the backup could be any of these here: %(rows)s.") % words
    return _("%(record)s in the backup could be what another record of the backup is, too: %(rows)s.") % words


def _same(column: Column, record: Any, here: Any) -> bool:
    name = column.field.attname
    return bool(getattr(record, name) == getattr(here, name))


# -- the chart by month ---

#: The newest months that are drawn: more would be too narrow on a phone.
MONTHS = 24
WIDTH, HEIGHT = 360, 120


@dataclass(frozen=True)
class Month:
    """Of one month: its name, how many records there are, and the bars: place and heights, as SVG wants them."""

    name: str
    backup: int
    here: int
    x: str
    x_here: str
    width: str
    y: str
    height: str
    y_here: str
    height_here: str


def _chart(plan: Plan) -> dict[str, Any] | None:
    """By month, what the backup holds and what is here now; None where there is nothing to see."""
    if plan.look is None:
        return None
    backup, here = plan.look.months, plan.look.months_here
    months = _continuous(
        sorted(month for month in {*backup, *here} if re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", month))
    )
    if not months:
        return None
    highest = max(max(backup[month], here[month]) for month in months)
    step = WIDTH / len(months)
    width = min(step * 0.4, 24)
    bars = []
    for place, month in enumerate(months):
        middle = (place + 0.5) * step
        tall, tall_here = (_height(counts[month], highest) for counts in (backup, here))
        bars.append(
            Month(
                date_format(dt.date(int(month[:4]), int(month[5:]), 1), "YEAR_MONTH_FORMAT"),
                backup[month],
                here[month],
                *(f"{number:.1f}" for number in (middle - width, middle, width)),
                *(f"{number:.1f}" for number in (HEIGHT - tall, tall, HEIGHT - tall_here, tall_here)),
            )
        )
    older = any(month < months[0] for month in {*backup, *here})
    return {"months": bars, "first": bars[0].name, "last": bars[-1].name, "older": older}


def _height(count: int, highest: int) -> float:
    return max(count / highest * (HEIGHT - 4), 2) if count else 0


def _continuous(months: Sequence[str]) -> list[str]:
    """The newest of the months, and those between them that have nothing, unless there are too many of them."""
    months = months[-MONTHS:]
    if not months:
        return []
    first, last = (int(month[:4]) * 12 + int(month[5:]) - 1 for month in (months[0], months[-1]))
    if last - first >= 2 * MONTHS:
        return [*months]
    every = [f"{number // 12:04}-{number % 12 + 1:02}" for number in range(first, last + 1)]
    return every[-MONTHS:]


# -- how far a restore is ---

#: Without a sign of life for so long, it may have been interrupted.
SILENCE = dt.timedelta(minutes=2)

_STEPS = {
    "check": gettext_lazy("Checking the backup"),
    "copy": gettext_lazy("Making a safety copy of what is here now"),
    "write": gettext_lazy("Writing the records"),
    "finish": gettext_lazy("Checking the result"),
}


def progress(state: dict[str, Any] | None) -> dict[str, Any]:
    """The state of a restore (see `state.load_progress`) for a page and its script."""
    if state is None:
        return {"state": "unknown", "text": "", "done": None, "total": None}
    if "result" in state or "error" in state:
        return {"state": "ended", "text": "", "done": None, "total": None}
    name = state.get("phase", "check")
    place = [*_STEPS].index(name) + 1
    text = _("Step %(place)s of %(steps)s: %(step)s") % {
        "place": place,
        "steps": len(_STEPS),
        "step": _STEPS[name],
    }
    done, total = state.get("done"), state.get("total")
    if done is not None and total:
        text = _("%(step)s, %(done)s of %(total)s records") % {
            "step": text,
            "done": grouped(min(done, total)),
            "total": grouped(total),
        }
    return {
        "state": "running",
        "step": str(_STEPS[name]),
        "text": text,
        "done": done,
        "total": total,
        "silent": _is_silent(state),
    }


def _is_silent(state: dict[str, Any]) -> bool:
    return timezone.now() - dt.datetime.fromisoformat(state["at"]) > SILENCE


def last_restore(state: dict[str, Any] | None) -> dict[str, Any] | None:
    """The same for the index page, in few words."""
    if state is None:
        return None
    how = "done" if "result" in state else "failed" if "error" in state else "running"
    records = state["result"]["records"] if how == "done" else None
    return {"how": how, "id": state["id"], "at": dt.datetime.fromisoformat(state["at"]), "records": records}

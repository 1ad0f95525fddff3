"""What people call models, records and numbers: in the host's own words, in the viewer's language."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from django.apps import apps
from django.utils.formats import number_format
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

from .. import babybuddy
from ..kinds import Plain

#: How many characters of a value are shown.
LENGTH = 160
#: A model's label, followed by the key of a record or not: "core.feeding 8".
_LABEL = re.compile(r"(?<![\w./-])([a-z]\w*\.[a-z]\w*)(?![\w/-]|\.\w)(?: (\d+)\b)?")


def model_names(labels: Iterable[str]) -> dict[str, str]:
    """Return model label -> name in the plural. If two models have the same name, their labels are added."""
    names = {}
    for label in labels:
        try:
            own = apps.get_model(label)._meta.verbose_name_plural
            names[label] = str(babybuddy.NAMES.get(label) or capfirst(own))
        except LookupError:
            names[label] = label
    often = Counter(names.values())
    return {label: f"{name} ({label})" if often[name] > 1 else name for label, name in names.items()}


def entered(records: Mapping[str, int]) -> int:
    """Return how many records people have entered, that is, without those that come with every installation.

    `records`: model label -> number of records.
    """
    return sum(count for label, count in records.items() if babybuddy.is_entered(label))


def in_words(message: str) -> str:
    """Replace the labels in a message by names: scripts and commands get "core.feeding 8", pages "Feeding No. 8"."""

    def name(match: re.Match[str]) -> str:
        label, key = match.groups()
        try:
            return record_name(label, number(key)) if key else model_names([label])[label]
        except LookupError:
            return match[0]

    return _LABEL.sub(name, str(message))


def record_name(label: str, title: str) -> str:
    """Return "Feeding No. 8", or "Tag Night (No. 8)". Raises `LookupError` for a model that is unknown."""
    kind = babybuddy.NAMES.get(label) or capfirst(apps.get_model(label)._meta.verbose_name)
    return f"{kind} {title}"


def titled(name: str, key: Plain) -> str:
    """Return "Night (No. 8)", or "No. 8" for a record that has no name."""
    return f"{name} ({number(key)})" if name else number(key)


def number(key: Plain) -> str:
    """Return "No. 8"."""
    # Translators: the number of a record in the database
    return pgettext("record", "No. %(key)s") % {"key": shortened(str(key))}


def grouped(number: int) -> str:
    """Return 1204 as "1,204", in the viewer's language, even if the host does not group digits."""
    return number_format(number, decimal_pos=0, force_grouping=True)


def shortened(text: str) -> str:
    """Cut a text after `LENGTH` characters."""
    return text if len(text) <= LENGTH else text[:LENGTH] + "…"


def records_and_photos(records: int, photos: int) -> str:
    """Return "48,211 records and 312 photos"."""
    return _("%(records)s and %(photos)s") % {
        "records": records_in_words(records),
        "photos": photos_in_words(photos),
    }


def records_in_words(number: int) -> str:
    """Return "48,211 records"."""
    return ngettext("%(n)s record", "%(n)s records", number) % {"n": grouped(number)}


def photos_in_words(number: int) -> str:
    """Return "312 photos"."""
    return ngettext("%(n)s photo", "%(n)s photos", number) % {"n": grouped(number)}

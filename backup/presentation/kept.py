"""Kept backups in words: what each contains, and how that differs from the database now."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.utils import formats, timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import babybuddy
from ..proof import Proof, Verdict
from ..storage.kept import LOCAL, BackupKind, StoredBackup
from .names import entered, grouped, model_names, photos_in_words, records_and_photos, records_in_words

#: How many models are named whose numbers of records differ; the others are added up.
NAMED = 4

_KINDS = {
    BackupKind.AUTOMATIC: gettext_lazy("Automatic"),
    BackupKind.MANUAL: gettext_lazy("Made by hand"),
    BackupKind.SAFETY: gettext_lazy("Safety copy"),
}


@dataclass(frozen=True)
class KeptInWords:
    """A line of the list. `holds`: the numbers of children and records. `since`: how the numbers in the database differ
    from those in the backup, by model. `proof`: the result of its proof; "" if there was none. `elsewhere`: the places
    of its copies; "" if there are none."""

    backup: StoredBackup
    kind: str | Promise
    holds: str
    since: tuple[str, ...]
    proof: str
    elsewhere: str


def kept_in_words(backups: Sequence[StoredBackup], now: Mapping[str, int]) -> list[KeptInWords]:
    """Return a line for each backup. `now`: model label -> number of records in the database; {} if unknown."""
    return [
        KeptInWords(
            backup,
            _KINDS[backup.kind],
            holds(backup),
            _since(backup, now) if now else (),
            _proof(backup),
            _elsewhere(backup),
        )
        for backup in backups
    ]


def _elsewhere(backup: StoredBackup) -> str:
    """Return "Copies: nas, cloud"."""
    if not backup.is_elsewhere:
        return ""
    names = [name for name in backup.locations if name != LOCAL]
    if not backup.is_local:
        return _("Not on this server any more, only in: %(names)s.") % {"names": ", ".join(names)}
    return _("Copies: %(names)s") % {"names": ", ".join(names)}


def entered_in(backup: StoredBackup, proof: Proof | None = None) -> int:
    """Return how many records of a backup people have entered. If its file here tells no numbers, since it is damaged
    or its key is gone, a proof of a copy tells how many came back, in all."""
    return proof.records if proof and not backup.counts else entered(backup.counts)


def holds(backup: StoredBackup) -> str:
    """Return "2 children, 7,665 records", or "2 children, 7,665 records, 312 photos", and what is missing."""
    children, records = backup.counts.get(babybuddy.CHILD, 0), entered_in(backup)
    content = _("%(children)s, %(records)s") % {
        "children": ngettext("%(n)s child", "%(n)s children", children) % {"n": grouped(children)},
        "records": records_in_words(records),
    }
    if backup.photos:
        content = _("%(records)s, %(photos)s") % {
            "records": content,
            "photos": photos_in_words(backup.photos),
        }
    if not (lacking := backup.left_out.total):
        return content
    lacks = ngettext(
        "without %(n)s value that cannot be read", "without %(n)s values that cannot be read", lacking
    )
    return f"{content} ({lacks % {'n': grouped(lacking)}})"


def verdict_in_words(proof: Proof, backup: StoredBackup) -> str:
    """Return the result of a proof, in a sentence."""
    records = entered_in(backup, proof)
    if proof.verdict is Verdict.PROVED:
        if proof.photos:
            what = records_and_photos(records, proof.photos)
            return _("Proved: all %(what)s came back identical.") % {"what": what}
        return ngettext(
            "Proved: its %(n)s record came back identical.",
            "Proved: all %(n)s records came back identical.",
            records,
        ) % {"n": grouped(records)}
    if proof.verdict is Verdict.FAILED:
        return _("This backup could not be restored in a trial: %(reason)s") % {"reason": proof.reason}
    return _("It could not be told whether this backup is good: %(reason)s") % {"reason": proof.reason}


def _proof(backup: StoredBackup) -> str:
    """Return "Proved on Nov. 24: all 48,211 records came back identical"."""
    if not backup.proof:
        return ""
    proof = Proof.from_json(backup.proof)
    date = formats.date_format(timezone.localtime(dt.datetime.fromisoformat(proof.at)), "DATE_FORMAT")
    if proof.verdict is Verdict.UNKNOWN:
        return _("It could not be told on %(date)s whether it is good: %(reason)s") % {
            "date": date,
            "reason": proof.reason,
        }
    if proof.verdict is not Verdict.PROVED:
        if proof.place in ("", LOCAL):
            return _("Failed its proof on %(date)s: %(reason)s") % {"date": date, "reason": proof.reason}
        return _("The copy in “%(place)s” failed its proof on %(date)s: %(reason)s") % {
            "place": proof.place,
            "date": date,
            "reason": proof.reason,
        }
    records = entered_in(backup, proof)
    if photos := proof.photos - proof.photos_known:
        what = records_and_photos(records, photos)
        text = _("Proved on %(date)s: all %(what)s came back identical.") % {"date": date, "what": what}
    else:
        text = ngettext(
            "Proved on %(date)s: its %(n)s record came back identical.",
            "Proved on %(date)s: all %(n)s records came back identical.",
            records,
        ) % {"date": date, "n": grouped(records)}
    return " ".join(filter(None, [text, read_before(proof)]))


def read_before(proof: Proof) -> str:
    """Return "309 more photos did so in the week before.", of those that a proof need not read; "" if it read all."""
    if not proof.photos_known:
        return ""
    return ngettext(
        "%(n)s more photo did so in the week before.",
        "%(n)s more photos did so in the week before.",
        proof.photos_known,
    ) % {"n": grouped(proof.photos_known)}


def _since(backup: StoredBackup, now: Mapping[str, int]) -> tuple[str, ...]:
    """Return ("Feedings +12", "Notes -1"): how many more or fewer records of care are in the database now."""
    if backup.is_damaged:
        return ()
    more = {
        label: count - backup.counts.get(label, 0)
        for label, count in now.items()
        if babybuddy.group_of(label) == babybuddy.CARE and count != backup.counts.get(label, 0)
    }
    ordered = sorted(more, key=lambda label: (label != babybuddy.CHILD, -abs(more[label])))
    names = model_names(ordered)
    parts = [f"{names[label]} {_signed(more[label])}" for label in ordered[:NAMED]]
    if others := sum(abs(more[label]) for label in ordered[NAMED:]):
        parts.append(ngettext("%(n)s other", "%(n)s others", others) % {"n": grouped(others)})
    return tuple(parts)


def _signed(number: int) -> str:
    return f"+{grouped(number)}" if number > 0 else f"\N{MINUS SIGN}{grouped(-number)}"

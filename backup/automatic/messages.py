"""The messages of the states of automatic backups, see `status`."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from django.utils import formats, timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import babybuddy
from ..archive.names import shown
from ..conf import conf
from ..dump import MOST_WARNINGS
from ..options import Place
from ..presentation import names
from ..presentation.kept import entered_in, read_before
from ..proof import Proof, Verdict
from ..storage.content import Content
from ..storage.elsewhere import Seen, State
from ..storage.facts import proofs_of
from ..storage.kept import StoredBackup
from ..storage.names import parse, parsed
from ..tables import describe
from .guard import PHOTOS, Loss


def locations_fail(locations: Sequence[Seen]) -> str:
    """Return what is wrong with the locations, in words; "" if nothing is."""
    reasons = [seen.message for seen in locations if seen.state is State.FAILED]
    if not reasons:
        return ""
    return _("Copies elsewhere fail. %(reasons)s") % {"reasons": " ".join(reasons)}


def ok(last: StoredBackup | None) -> str:
    """Return what is known about the last backup; "" if there is none."""
    if last is None:
        return ""
    proof = Proof.from_json(last.proof) if last.proof else None
    records = entered_in(last, proof)
    if proof is not None and proof.verdict is Verdict.PROVED:
        dates = {"date": _date(last.created), "proved": _day(dt.datetime.fromisoformat(proof.at))}
        if photos := proof.photos - proof.photos_known:
            what = names.records_and_photos(records, photos)
            text = _(
                "The last automatic backup (%(date)s) was proved on %(proved)s: all %(what)s came back identical."
            ) % {**dates, "what": what}
        else:
            text = ngettext(
                "The last automatic backup (%(date)s) was proved on %(proved)s: its %(n)s record came back identical.",
                "The last automatic backup (%(date)s) was proved on %(proved)s: all %(n)s records came back identical.",
                records,
            ) % {**dates, "n": names.grouped(records)}
        return " ".join(filter(None, [text, read_before(proof)]))
    return ngettext(
        "The last automatic backup (%(date)s) holds %(n)s record.",
        "The last automatic backup (%(date)s) holds %(n)s records.",
        records,
    ) % {"date": _date(last.created), "n": names.grouped(records)}


def photos_missing(last: StoredBackup | None) -> str:
    """Return how many photos the last backup lacks, which its records name; "" if it lacks none."""
    missing = len(last.warnings) if last is not None else 0
    if not missing:
        return ""
    return ngettext(
        "It lacks %(n)s photo that entries name.",
        "It lacks %(n)s photos that entries name.",
        missing,
    ) % {"n": names.grouped(missing) if missing <= MOST_WARNINGS else f"{names.grouped(MOST_WARNINGS)}+"}


def bad(backup: StoredBackup, locations: Iterable[Seen]) -> str:
    """Return that a backup is damaged or failed its proof, and what follows from that. `locations`: how each was last
    seen."""
    proof = backup.proof or {}
    words = {
        "date": _date(backup.created),
        "place": proof.get("place"),
        "reason": _sentence(str(proof.get("reason", ""))),
    }
    if proof.get("place") in conf.locations:
        return (
            _(
                "The copy in “%(place)s” of the backup of %(date)s could not be restored in a trial. %(reason)s No old "
                "backup is removed until this one is deleted or proved."
            )
            % words
        )
    if proof.get("verdict") == Verdict.FAILED.value:
        text = _(
            "The backup of %(date)s could not be restored in a trial. %(reason)s No old backup is removed until this "
            "one is deleted or proved."
        )
    else:
        text = _(
            "The backup of %(date)s is damaged: its file cannot be read. No old backup is removed until this one is "
            "deleted or mended."
        )
    message = text % words
    return " ".join(filter(None, [message, _other_copies(backup, locations)]))


def _other_copies(backup: StoredBackup, locations: Iterable[Seen]) -> str:
    """Return which locations have a copy of a backup that is damaged here, and what to do with it; "" if none has one.
    A copy may be damaged, too, and nobody know: only those that are known to be are left out."""
    proofs, copies = proofs_of(backup.facts), []
    for seen in locations:
        content = seen.copies.get(backup.copies.get(seen.name, ""))
        is_proved_bad = proofs.get(seen.name, {}).get("verdict") == Verdict.FAILED.value
        if content is not None and not (content.is_damaged or is_proved_bad):
            copies.append(f"“{seen.name}”")
    if not copies:
        return ""
    return ngettext(
        "%(copies)s has another copy of it. If that is good, put it into BACKUP_ROOT in its place, and prove it.",
        "%(copies)s have other copies of it. Put one that is good into BACKUP_ROOT in its place, and prove it.",
        len(copies),
    ) % {"copies": ", ".join(copies)}


def lossy(backup: StoredBackup) -> str:
    """Return a message that names the places of missing values, not the values: it may be sent by mail.

    What is said of a table as a whole, such as that an index lacks rows, has no value of a record in it. Records whose
    keys are secret have none in their places either.
    """

    def is_of_a_record(place: Place) -> bool:
        return place.pk is not None or place.model in babybuddy.SECRET_KEYS

    places = [
        describe(place.model, place.pk, place.field, "" if is_of_a_record(place) else place.reason)
        for place in backup.left_out.named[:3]
    ]
    return ngettext(
        "The last automatic backup (%(date)s) lacks %(n)s value that cannot be read: %(places)s. Mend it, on the page "
        "of the entry, say. Older backups that lack nothing stay.",
        "The last automatic backup (%(date)s) lacks %(n)s values that cannot be read: %(places)s. Mend them, on the "
        "pages of the entries, say. Older backups that lack nothing stay.",
        backup.left_out.total,
    ) % {
        "date": _date(backup.created),
        "n": names.grouped(backup.left_out.total),
        "places": ", ".join(places) + (" …" if backup.left_out.total > len(places) else ""),
    }


def overdue(until: dt.datetime | None) -> str:
    """Return that a backup is overdue. `until`: up to when the data is backed up, aware; None if there is no backup."""
    if until is None:
        return _("There is no automatic backup yet. The first one is made when Baby Buddy is used.")
    return _(
        "An automatic backup is overdue: the last one (%(date)s) is too old. If none is made while Baby Buddy is used, "
        "run “manage.py backup --automatic” on the server, which says why."
    ) % {"date": _date(until)}


def shrunk(losses: Sequence[Loss]) -> str:
    """Return which models lost records, and how many photos are gone. If there are several losses of one model, found
    by different backups, each has the moment of that one."""
    called = names.model_names(loss.model for loss in losses if loss.model != PHOTOS)
    numbers = Counter(loss.model for loss in losses)
    moments = {name.text: _date(name.created) for name in parsed({loss.backup for loss in losses})}

    def line(loss: Loss) -> str:
        before = names.grouped(loss.before)
        what = (
            names.photos_in_words(loss.before) if loss.model == PHOTOS else f"{called[loss.model]} {before}"
        )
        moment = moments.get(loss.backup) if numbers[loss.model] > 1 else ""
        return f"{what} → {names.grouped(loss.now)}" + (f" ({moment})" if moment else "")

    lines = ", ".join(dict.fromkeys(map(line, losses)))
    return _(
        "Entries are fewer than in the backup before: %(losses)s. No old backup is removed until a superuser says that "
        "this is right."
    ) % {"losses": lines}


def _sentence(text: str) -> str:
    """Return a text on one line, with a full stop, which lines about records lack."""
    line = " ".join(text.split())
    return line if not line or line.endswith((".", "。", "…", "!", "?")) else f"{line}."


def _day(moment: dt.datetime) -> str:
    return formats.date_format(timezone.localtime(moment), "DATE_FORMAT")


def _date(moment: dt.datetime) -> str:
    return formats.date_format(timezone.localtime(moment), "DATETIME_FORMAT")


def there(copies: Mapping[str, Content]) -> str:
    """Return "7 backups, the newest of Nov. 26, 2026, 3:12 a.m."; "" if there is none. Those that cannot be read do not
    count."""
    moments = [parse(text).created for text, content in copies.items() if not content.is_damaged]
    if not moments:
        return ""
    newest = timezone.localtime(max(moments))
    return ngettext(
        "%(n)s backup, of %(date)s",
        "%(n)s backups, the newest of %(date)s",
        len(moments),
    ) % {"n": len(moments), "date": formats.date_format(newest, "DATETIME_FORMAT")}


def lacking(photos: int) -> str:
    """Return what to say of so many photos for which there was no room; "" for none."""
    if not photos:
        return ""
    return ngettext(
        "The backup was made, but %(n)s photo is not in it: there is no room on the disk of BACKUP_ROOT.",
        "The backup was made, but %(n)s photos are not in it: there is no room on the disk of BACKUP_ROOT.",
        photos,
    ) % {"n": photos}


def beyond(photos: int) -> str:
    """Return what to say of so many photos that were too many; "" for none."""
    if not photos:
        return ""
    return ngettext(
        "The backup was made, but %(n)s photo is not in it: there are more than BACKUP_MAX_PHOTOS allows.",
        "The backup was made, but %(n)s photos are not in it: there are more than BACKUP_MAX_PHOTOS allows.",
        photos,
    ) % {"n": photos}


def unsent(name: str, backups: Sequence[StoredBackup], locations: Iterable[Seen]) -> str:
    """Return that backups are damaged, so that they cannot be sent to a location of this name, and what to do.
    `locations`: how each was last seen."""
    others = {backup.name: _other_copies(backup, locations) for backup in backups}
    copied = {name: copies for name, copies in others.items() if copies}
    alone = [name for name in others if name not in copied]
    sentences = []
    if alone:
        sentences.append(
            ngettext(
                "%(n)s backup cannot be copied to “%(name)s”, since it is damaged: %(backup)s. Look at it, then delete "
                "it.",
                "%(n)s backups cannot be copied to “%(name)s”, since they are damaged: %(backup)s and others. Look at "
                "them, then delete them.",
                len(alone),
            )
            % {"n": len(alone), "name": name, "backup": alone[0]}
        )
    if copied:
        first, copies = next(iter(copied.items()))
        sentences.append(
            ngettext(
                "%(n)s backup cannot be copied to “%(name)s”, since it is damaged here: %(backup)s. %(copies)s",
                "%(n)s backups cannot be copied to “%(name)s”, since they are damaged here, among them %(backup)s. "
                "%(copies)s",
                len(copied),
            )
            % {"n": len(copied), "name": name, "backup": first, "copies": copies}
        )
    return " ".join(sentences)


def unsent_photos(name: str, photos: Sequence[str]) -> str:
    """Return that photos are whole nowhere, so that they cannot be sent to a location of this name; "" for none."""
    if not photos:
        return ""
    return ngettext(
        "%(n)s photo cannot be copied to “%(name)s”, since it is damaged or missing: %(photo)s.",
        "%(n)s photos cannot be copied to “%(name)s”, since they are damaged or missing: %(photo)s and others.",
        len(photos),
    ) % {"n": names.grouped(len(photos)), "name": name, "photo": shown(photos[0])}


def unknown_photos(name: str, backups: Sequence[str]) -> str:
    """Return that nobody can tell which photos of damaged backups a location of this name lacks; "" for none."""
    if not backups:
        return ""
    return ngettext(
        "%(n)s backup is damaged, so that its photos cannot be copied to “%(name)s”: %(backup)s. Look at it, then "
        "delete it.",
        "%(n)s backups are damaged, so that their photos cannot be copied to “%(name)s”: %(backup)s and others. Look "
        "at them, then delete them.",
        len(backups),
    ) % {"n": names.grouped(len(backups)), "name": name, "backup": backups[0]}


def out_of_reach(name: str, reasons: Sequence[str]) -> str:
    """Return that photos may be whole in places that do not answer, so that they cannot be sent to a location of this
    name now. `reasons`: why not."""
    return _(
        "Photos that are damaged or missing here cannot be copied to “%(name)s” now, since places that may have them "
        "cannot be asked. %(reasons)s"
    ) % {"name": name, "reasons": " ".join(reasons)}


def not_replaced(name: str, denied: Sequence[str]) -> str:
    """Return that files in a location of this name should be replaced by others, and it does not allow that."""
    return ngettext(
        "%(n)s file in “%(name)s” is damaged or out of date, and cannot be replaced there: %(file)s.",
        "%(n)s files in “%(name)s” are damaged or out of date, and cannot be replaced there: %(file)s and others.",
        len(denied),
    ) % {"n": len(denied), "name": name, "file": denied[0]}


def gone(name: str, gone: Sequence[str], there: Iterable[str]) -> str:
    """Return what to say of copies that are gone from a location, and not by this app. `there`: the files in it."""
    sent = {parse(text).identity for text in there}
    lost = [text for text in gone if parse(text).identity not in sent]
    message = ngettext(
        "%(n)s copy in “%(name)s” is gone, and not by this app: %(copy)s.",
        "%(n)s copies in “%(name)s” are gone, and not by this app: %(copy)s and others.",
        len(gone),
    ) % {"n": len(gone), "name": name, "copy": gone[0]}
    if not lost:
        return f"{message} " + _("What was lost was sent again.")
    return f"{message} " + _("If nobody deleted them on purpose, find out who can write there.")

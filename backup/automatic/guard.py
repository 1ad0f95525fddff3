"""The shrink guard: compares the number of entries, and of photos, with that of the automatic backup before.

If data was lost, newer backups without it must not push out the last good one. So if there are far fewer entries or
photos, `retention` removes nothing until a superuser says that this is right, or until they are there again.

What was lost is noted beside the new backup. Only the notes beside the newest backup count: each is compared with the
newest one that shows no losses itself, and with those that the losses before it were found by. So a loss stays as long
as it is not accepted, and ends once what was lost is restored: the same records, since new ones do not make up for it.

Notes can be lost, and a backup can come back that was away for a while. So each backup is compared once more before a
rule removes it: see `lost_without`. Longer than most modules, since what is noted decides what is compared.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, BinaryIO, TypeVar

from .. import babybuddy
from ..archive import Archive
from ..exceptions import (
    EncryptionUnavailable,
    InvalidBackup,
    KeyNeeded,
    NoSuchBackup,
    StorageFailed,
)
from ..log import logger
from ..storage import kept, keys
from ..storage.facts import UNREADABLE
from ..storage.files import parse_json
from ..storage.kept import BackupKind, StoredBackup
from ..storage.names import parsed
from .left import Gone, photos_left, records_left

T = TypeVar("T")

#: A backup is damaged or gone, or its key or the library for it is not here.
CANNOT_OPEN = (InvalidBackup, NoSuchBackup, KeyNeeded, EncryptionUnavailable)

#: The guard steps in if a model lost more records than this, and more than a fifth of them. Fewer are everyday use.
MANY = 50
FIFTH = 5
#: A fact beside a backup, and beside its copies: the losses that it shows.
SHRUNK = "shrunk"
#: Who said, and when, that a loss is right. Older versions noted that beside the backup, for all losses together.
ACCEPTED = "accepted"
#: Label of a model -> what a superuser has confirmed, when this backup was there already: see `Confirmed`.
EXPECTED = "expected"
#: Stands for the label of a model in the losses of photos.
PHOTOS = "photos"


@dataclass(frozen=True)
class Loss:
    """Records of a model that are gone, or photos. `model`: its label, or `PHOTOS`. `before`, `now`: how many there
    were, and how many are left. `backup`: the name of the backup that has them; "" in notes of older versions.
    `accepted`: who said that this is right, and when, as JSON; {} if nobody did."""

    model: str
    before: int
    now: int
    backup: str = ""
    accepted: Mapping[str, str] = field(default_factory=dict)

    @property
    def grade(self) -> int:
        """How much is left: the number of children, else of fifths. It changes if people have to be notified again, and
        not with each entry."""
        if self.model == babybuddy.CHILD:
            return self.now
        return self.now * FIFTH // max(self.before, 1)

    @property
    def is_of(self) -> tuple[str, str]:
        """What it is about: the model, and the backup that has the records, wherever that is."""
        return self.model, _identity(self.backup)

    def covers(self, other: Loss) -> bool:
        """Tell whether whoever accepts this loss accepts the other one, too: no more of the same is gone."""
        return self.is_of == other.is_of and self.now <= other.now

    def as_json(self) -> dict[str, Any]:
        return {"model": self.model, "before": self.before, "now": self.now}

    def as_fact(self) -> dict[str, Any]:
        accepted = {ACCEPTED: dict(self.accepted)} if self.accepted else {}
        return {**self.as_json(), "backup": self.backup, **accepted}


@dataclass(frozen=True)
class Confirmed:
    """That it is right that records are gone which one backup has and a later one has not. Of the same records, it is
    right in other backups, too. `backup`, `after`: the names of both. If one is gone, people are asked again."""

    backup: str
    after: str

    def as_fact(self) -> dict[str, Any]:
        return {"backup": self.backup, "after": self.after}


def _identity(name: str) -> str:
    return next((other.identity for other in parsed([name])), "")


# -- what is noted ---


def noted(facts: Mapping[str, Any]) -> list[Loss]:
    """Return the losses that the facts beside a backup, or a copy of it, tell of. Damaged entries are passed over."""
    losses = []
    entries = facts.get(SHRUNK)
    for entry in entries if isinstance(entries, list) else ():
        with suppress(KeyError, TypeError, ValueError, AttributeError, OverflowError):
            backup = str(entry.get("backup", ""))
            accepted = entry.get(ACCEPTED) or (facts.get(ACCEPTED) if not backup else None) or {}
            model, counts = str(entry["model"]), (int(entry["before"]), int(entry["now"]))
            if model == PHOTOS or len(model.split(".")) == 2:  # what is no label cannot be shown
                losses.append(Loss(model, *counts, backup, dict(accepted)))
    return losses


def open_losses(facts: Mapping[str, Any]) -> list[Loss]:
    """Return the noted losses of which no superuser has said yet that they are right."""
    return [loss for loss in noted(facts) if not loss.accepted]


def newest(backups: Iterable[StoredBackup]) -> StoredBackup | None:
    """Return the automatic backup whose losses count: the newest; None if there is none.

    `backups`: newest first. One that is in a location only, and of which nothing is noted, says nothing; nor does one
    whose notes are damaged, or that is dated in the future.
    """
    now = dt.datetime.now(dt.timezone.utc)
    for backup in backups:
        says_something = backup.is_local or SHRUNK in backup.facts
        if backup.created <= now and says_something and UNREADABLE not in backup.facts:
            return backup
    return None


def losses_now(backups: Iterable[StoredBackup]) -> list[Loss]:
    """Return the losses of which people must be told. `backups`: all automatic ones, newest first."""
    last = newest(backups)
    return open_losses(last.facts) if last is not None else []


def merged(facts: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts beside a backup, with the losses that were found since. If one was noted already, what was said
    of it holds, unless more is gone now."""
    known = noted(facts)
    new = [loss for loss in _with_accepted(noted(found), known) if not loss.accepted]
    return {**facts, **as_facts({loss.is_of: loss for loss in [*known, *new]}.values())}


def with_accepted(
    facts: Mapping[str, Any], losses: Iterable[Loss], accepted: Mapping[str, str]
) -> dict[str, Any]:
    """Return the facts beside a backup, with a note that the losses are right. `accepted`: see `Loss`."""
    return {
        **facts,
        **as_facts(_with_accepted(noted(facts), [replace(loss, accepted=accepted) for loss in losses])),
    }


def _with_accepted(losses: Iterable[Loss], known: Iterable[Loss]) -> list[Loss]:
    """Return the losses, as accepted where those that are known cover them."""
    accepted = [loss for loss in known if loss.accepted]
    return [
        next((replace(loss, accepted=other.accepted) for other in accepted if other.covers(loss)), loss)
        for loss in losses
    ]


def with_expected(
    facts: Mapping[str, Any], losses: Iterable[Loss], after: Callable[[Loss], str]
) -> dict[str, Any]:
    """Return the facts beside an older backup, noting that a superuser has confirmed these losses, so that comparing
    with it later does not raise them again. `after`: returns the name of the backup that shows a loss."""
    noted = {label: {one.backup: one for one in confirmed} for label, confirmed in expected(facts).items()}
    for loss in losses:
        if loss.backup:
            confirmed = noted.setdefault(loss.model, {})
            confirmed[loss.backup] = Confirmed(loss.backup, after(loss))
    return {
        **facts,
        EXPECTED: {label: [one.as_fact() for one in ones.values()] for label, ones in noted.items()},
    }


def expected(facts: Mapping[str, Any]) -> dict[str, list[Confirmed]]:
    """Return what is noted as `EXPECTED` beside a backup. Damaged entries are passed over."""
    noted = facts.get(EXPECTED)
    found: dict[str, list[Confirmed]] = {}
    for label, entries in noted.items() if isinstance(noted, dict) else ():
        for entry in entries if isinstance(entries, list) else ():
            with suppress(KeyError, TypeError):
                one = Confirmed(str(entry["backup"]), str(entry["after"]))
                found.setdefault(label, []).append(one)
    return found


def compared_with(backup: StoredBackup) -> set[str]:
    """Return the identities of the backups that tell which losses of this one are right, so that they stay as long as
    it."""
    confirmed = [one for ones in expected(backup.facts).values() for one in ones]
    return {_identity(name) for one in confirmed for name in (one.backup, one.after)} - {backup.identity}


def needed_by(backups: Iterable[StoredBackup]) -> set[str]:
    """Return the identities of the backups that must not be removed before these: see `compared_with`."""
    return {identity for backup in backups for identity in compared_with(backup)}


def are_covered(losses: Iterable[Loss], shown: str) -> bool:
    """Tell whether somebody to whom this was shown has seen all of these losses. `shown`: see `Status.shown`."""
    facts: Any = None
    with suppress(ValueError):
        facts = parse_json(shown)
    seen = noted(facts) if isinstance(facts, dict) else []
    return all(any(other.covers(loss) for other in seen) for loss in losses)


def as_facts(losses: Iterable[Loss]) -> dict[str, Any]:
    """Return the losses as facts; {} if there are none."""
    entries = [loss.as_fact() for loss in losses]
    return {SHRUNK: entries} if entries else {}


def in_short(losses: Iterable[Loss]) -> list[Loss]:
    """Return one loss for each model, the greatest."""
    by_model: dict[str, Loss] = {}
    for loss in losses:
        other = by_model.get(loss.model)
        if other is None or _lost(loss) > _lost(other):
            by_model[loss.model] = loss
    return [*by_model.values()]


def backup_before(backups: Sequence[StoredBackup], losses: Iterable[Loss]) -> str:
    """Return the name of the last backup that has what is lost, a child first of all; "" if it is gone.

    `backups`: all automatic ones, newest first. The losses of older versions do not name it.
    """
    loss = max(in_short(losses), key=lambda loss: (loss.model == babybuddy.CHILD, loss.backup), default=None)
    if loss is None:
        return ""
    wanted = {_identity(loss.backup)} if loss.backup else {b.identity for b in references(backups)}
    return next((b.name for b in backups if b.identity in wanted and not b.is_damaged), "")


def _lost(loss: Loss) -> tuple[int, str]:
    return loss.before - loss.now, loss.backup


# -- finding losses ---


def references(backups: Iterable[StoredBackup]) -> list[StoredBackup]:
    """Return the backups that a new one can be compared with: those that can be opened, and that show no losses
    themselves, unless a superuser has said that these are right."""
    return [backup for backup in filter(_can_be_opened, backups) if not open_losses(backup.facts)]


def _can_be_opened(backup: StoredBackup) -> bool:
    return not (backup.is_damaged or backup.is_locked or UNREADABLE in backup.facts)


def found_in(file: BinaryIO) -> dict[str, Any]:
    """Return the losses that a new automatic backup shows, as facts. It is compared with the newest one that can be
    opened, and, if that shows losses itself, with the newest that does not, wherever these are; and with those by which
    the losses were found that the last backup shows. Raises `StorageFailed` if backups cannot be listed.
    """
    backups = kept.backups(BackupKind.AUTOMATIC)
    found: list[Loss] = []
    compared: set[str] = set()
    for backup in filter(_can_be_opened, backups):
        shows_losses = bool(open_losses(backup.facts))
        if shows_losses and compared:
            continue
        try:
            lost = _compared_with(backup.name, backup.facts, file)
        except StorageFailed as error:  # it is compared before it is removed: see `lost_without`
            logger.warning("a new backup cannot be compared with %s: %s", backup.name, error.code)
            continue
        if lost is not None:
            found += lost
            compared.add(backup.identity)
            if not shows_losses:
                break
    last = newest(backups)
    known = noted(last.facts) if last is not None else []
    facts = {backup.name: backup.facts for backup in backups}
    still = _still_lost([loss for loss in known if not loss.accepted], compared, facts, file)
    return as_facts({loss.is_of: loss for loss in [*found, *still]}.values())


def _still_lost(
    known: Sequence[Loss], compared: set[str], facts: Mapping[str, Mapping[str, Any]], file: BinaryIO
) -> list[Loss]:
    """Return which of the losses that the last backup shows a new one shows as well: what was added since does not make
    up for what is gone. Where that cannot be told, the loss stays.

    `compared`: the identities of the backups that the new one was compared with as a whole already. `facts`: name of a
    backup -> the facts beside it.
    """
    found: list[Loss] = []
    for name in dict.fromkeys(loss.backup for loss in known):
        if not name and compared:
            continue
        of_it = [loss for loss in known if loss.backup == name]
        lost = more = None
        with suppress(StorageFailed):
            if name:
                lost = compare(partial(_not_back, of_it, facts.get(name, {})), name, file)
            if name and _identity(name) not in compared:
                more = _compared_with(name, facts.get(name, {}), file)
        found += [*(of_it if lost is None else lost), *(more or ())]
    return found


def _not_back(known: Iterable[Loss], facts: Mapping[str, Any], before: Archive, now: Archive) -> list[Loss]:
    """Return the known losses of which the backup before has records, or photos, that the new one still does not have,
    or leaves out altogether. `facts`: beside the backup before."""
    lost = []
    for loss in known:
        if loss.model == PHOTOS and not now.metadata.includes_media:
            lost.append(loss)
        elif loss.model != PHOTOS and loss.model not in before.metadata.models:
            lost.append(replace(loss, now=0))
        else:
            then, left = _left(loss.model, before, now)
            if left < then and not _is_right(loss.model, before, now, facts, lambda then, left: left < then):
                lost.append(replace(loss, now=left))
    return lost


def _compared_with(name: str, facts: Mapping[str, Any], file: BinaryIO) -> list[Loss] | None:
    return compare(lambda then, today: losses(then, today, name, facts), name, file)


def compare(
    comparison: Callable[[Archive, Archive], T], name: str, file: BinaryIO, place: str = ""
) -> T | None:
    """Return what `comparison` returns for an older backup and a new one, which is in `file`. None if the older one
    cannot be opened. `place`: see `kept.open_backup`. Raises `StorageFailed`."""
    try:
        with kept.open_backup(name, place) as source, keys.unlocked(source) as then:
            file.seek(0)
            with keys.unlocked(file) as today:
                return comparison(then, today)
    except CANNOT_OPEN as error:
        logger.warning("%s cannot be compared with: %s", name, error.code)
        return None


def lost_without(
    name: str, facts: Mapping[str, Any], file: BinaryIO, newest: str, with_photos: str = ""
) -> list[Loss]:
    """Return what would be lost without an older backup: what the newest one lacks of it.

    `name`, `facts`, `file`: of the older backup, wherever it is. `newest`: the name of the newest automatic backup in
    BACKUP_ROOT. `with_photos`: that of the newest one with photos: see `newest_with_photos`. Raises one of
    `CANNOT_OPEN`, `StorageFailed`.
    """
    with ExitStack() as stack:
        before = stack.enter_context(keys.unlocked(file))
        now, photos = (
            stack.enter_context(keys.unlocked(stack.enter_context(kept.open_backup(text, kept.LOCAL))))
            for text in (newest, with_photos or newest)
        )
        return losses(before, now, name, facts, photos)


def newest_with_photos(backups: Iterable[StoredBackup]) -> str:
    """Return the name of the newest backup in BACKUP_ROOT that tells which photos there are; "" if none does.

    `backups`: newest first. The newest of all does not if BACKUP_PHOTOS was switched off since.
    """
    now = dt.datetime.now(dt.timezone.utc)
    past = (b for b in backups if b.is_local and b.kind is BackupKind.AUTOMATIC and b.created <= now)
    usable = filter(_can_be_opened, past)
    return next((backup.name for backup in usable if backup.includes_photos), "")


def losses(
    before: Archive, now: Archive, name: str, facts: Mapping[str, Any], photos: Archive | None = None
) -> list[Loss]:
    """Return of which models records are gone: at least one child, or many records of care; and whether photos are.
    The records are compared, not only how many there are. What a superuser has said is right is not among them.

    `name`, `facts`: of the backup before. `photos`: a backup that tells which photos there are now, if `now` does not.
    A model that is no longer in the backup at all, since an update of the host or BACKUP_EXCLUDE removed it, is passed
    over. Raises `InvalidBackup`, `StorageFailed`.
    """
    labels = [
        label for label in before.metadata.models if babybuddy.is_care(label) and label in now.metadata.models
    ]
    photos = photos if photos is not None and not now.metadata.includes_media else now
    if before.metadata.includes_media and photos.metadata.includes_media:
        labels.append(PHOTOS)
    # There are other warnings than before if records still name the photos: then nobody took them away on purpose, the
    # folder of photos may not be mounted, and a few are too many.
    many_photos = 0 if {*photos.metadata.warnings} - {*before.metadata.warnings} else MANY

    def are_lost(label: str, then: int, left: int) -> bool:
        if label == babybuddy.CHILD:
            return left < then
        return _are_many(then, left, many_photos if label == PHOTOS else MANY)

    found = []
    for label in labels:
        there = photos if label == PHOTOS else now
        then, left = _left(label, before, there)
        is_lost = partial(are_lost, label)
        if is_lost(then, left) and not _is_right(label, before, there, facts, is_lost):
            found.append(Loss(label, then, left, name))
    return found


def _is_right(
    label: str,
    before: Archive,
    now: Archive,
    facts: Mapping[str, Any],
    is_lost: Callable[[int, int], bool],
) -> bool:
    """Tell whether a superuser has said of the records, or photos, that are gone that this is right.

    `facts`: beside the backup before. `is_lost`: tells whether something is lost by how many there were and are left.
    """
    with ExitStack() as stack:
        gone: list[Gone] = []
        for one in expected(facts).get(label, []):
            archives = [*_opened((one.backup, one.after), stack)]
            if len(archives) == 2 and (label != PHOTOS or archives[1].metadata.includes_media):
                gone.append(Gone(*archives))
        return bool(gone) and not is_lost(*_left(label, before, now, gone))


def _opened(names: Iterable[str], stack: ExitStack) -> Iterator[Archive]:
    """Yield those of the backups that can be opened. Raises `NoSuchBackup` if a location does not answer, so that it is
    not known now."""
    for name in names:
        try:
            yield stack.enter_context(keys.unlocked(stack.enter_context(kept.open_backup(name))))
        except StorageFailed as error:
            raise NoSuchBackup(error.message) from error
        except CANNOT_OPEN as error:
            logger.warning("%s cannot be compared with: %s", name, error.code)


def _left(label: str, before: Archive, now: Archive, gone: Sequence[Gone] = ()) -> tuple[int, int]:
    return photos_left(before, now, gone) if label == PHOTOS else records_left(label, before, now, gone)


def _are_many(then: int, today: int, many: int = MANY) -> bool:
    lost = then - today
    return lost > many and lost * FIFTH > then

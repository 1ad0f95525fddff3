"""Proves a backup (`prove`), or compares two (`compare`), by restoring into a throw-away database.

A child process does the work (`prover`), with the same code as a restore. It cannot access the live database, cache or
files. This module is the parent's side.
"""

from __future__ import annotations

import enum
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

from django.utils.translation import gettext as _

from .archive import Key, Keys, open_archive, photos_beside
from .archive.limits import megabytes
from .archive.photos import stored_name
from .conf import aware_now
from .database.sqlite_file import is_database
from .exceptions import BackupError, InvalidBackup, NoSuchBackup, RecordsRefused, TooLarge, UpgradeFailed
from .options import SILENT, Reporter
from .upgrade import process

#: The module that the child runs.
CHILD = "backup.prover"
#: The second file of a comparison, in the folder of the child.
OTHER = "other"
#: The folder of photos that are stored beside the file, in the folder of the child.
PHOTOS = "photos"
#: Bytes on the disk for each byte of records: rows with their indexes, the safety copy, and temporary files.
ROOM = 3


class Verdict(enum.Enum):
    """The result of a proof."""

    #: Everything came back identical.
    PROVED = "proved"
    #: The file is at fault: damaged, or it cannot be restored.
    FAILED = "failed"
    #: The backup could not be proved for another reason, so it may be good.
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Proof:
    """The proof of one file. `at`: when, ISO 8601. `reason`: why it is not proved, for people, in their language; "" if
    it is. `place`: of a kept backup, the location of the file, or `local`. `photos_known`: how many photos were not
    read, since an earlier proof has read them recently. `offer`: see `BackupError`. `left_out`: lines that name what
    did not come back: models that this site does not restore, and what was left out by choice. Neither of the two is
    saved."""

    verdict: Verdict
    at: str
    records: int = 0
    photos: int = 0
    reason: str = ""
    place: str = ""
    photos_known: int = 0
    offer: str = ""
    left_out: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict.value,
            "at": self.at,
            "records": self.records,
            "photos": self.photos,
            "reason": self.reason,
            "place": self.place,
            **({"photos_known": self.photos_known} if self.photos_known else {}),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Proof:
        """Return the proof from what `as_json` returned. Keys of newer versions are ignored."""
        known = {field.name: content[field.name] for field in fields(cls) if field.name in content}
        return cls(**{**known, "verdict": Verdict(content["verdict"])})


def prove(
    source: BinaryIO,
    look: Callable[[], tuple[bool, Key | None]],
    *,
    path: Path | None = None,
    edited: bool = False,
    leave_out: bool = False,
    reporter: Reporter = SILENT,
    photos_known: Collection[str] = (),
) -> Proof:
    """Restore a backup or a database file into a throw-away database, and compare. Never raises a `BackupError`.

    `look`: returns whether it has to be brought to today's schema first, and the key it is encrypted with; it may
    raise. `path`, `leave_out`: see `upgrade.process.upgraded`. `photos_known`: checksums of photos beside the file that
    need not be read, since an earlier proof has read them recently.
    """

    def proof(verdict: Verdict, reason: str = "", **counts: Any) -> Proof:
        return Proof(verdict, aware_now().isoformat(), reason=reason, **counts)

    try:
        is_older, key = look()
        if lacking := _lacking_room(source, key, photos_known):
            return proof(Verdict.UNKNOWN, lacking)
        with process.scratch_folder() as folder:
            process.copy_source(source, folder / process.SOURCE, path)
            order = {
                "job": "prove",
                "is_older": is_older,
                "edited": edited,
                "leave_out": leave_out,
                "keys": _texts(key),
                "photos_known": _bring_photos(source, key, folder / PHOTOS, photos_known),
            }
            outcome = process.run_child(CHILD, folder, order, reporter)
    except process.TooLate:
        return proof(Verdict.UNKNOWN, _("It took longer than BACKUP_UPGRADE_SECONDS allows."))
    except process.Died as died:
        return proof(
            Verdict.UNKNOWN,
            _("The process that proves it ended early (%(reason)s).") % {"reason": died.reason},
        )
    except BackupError as error:
        return proof(_verdict_of(error), str(error), offer=error.offer)
    if "unknown" in outcome:
        return proof(Verdict.UNKNOWN, outcome["unknown"])
    counts = {name: outcome[name] for name in ("records", "photos", "photos_known")}
    return proof(Verdict.PROVED, **counts, left_out=tuple(outcome["left_out"]))


def _texts(*keys: Key | None) -> list[str]:
    """Return keys as texts, for the order of a child; "" for None."""
    return [key.text if key else "" for key in keys]


def _verdict_of(error: BackupError) -> Verdict:
    """Return FAILED if the file is to blame for an error, else UNKNOWN."""
    if isinstance(error, TooLarge):  # it is too large for the limits of this site
        return Verdict.UNKNOWN
    at_fault = isinstance(error, (InvalidBackup, RecordsRefused, UpgradeFailed))
    return Verdict.FAILED if at_fault else Verdict.UNKNOWN


def _bring_photos(
    source: BinaryIO, key: Key | None, folder: Path, photos_known: Collection[str]
) -> list[str]:
    """Put the photos that are stored beside the file into the child's folder; missing ones are left to the child.

    Returns the checksums of those that are there, but need not be read: see `prove`. Raises `StorageFailed`.
    """
    beside, known = photos_beside(source), []
    if beside is None or is_database(source):
        return []
    folder.mkdir()
    with open_archive(source, edited=True, lenient=True, keys=Keys(key)) as archive:
        for photo in archive.metadata.photos.values():
            if archive.holds(photo) or not beside.has(photo, archive.key):
                continue
            if photo.sha256 in photos_known:
                known.append(photo.sha256)
            elif not (folder / stored_name(photo.sha256, archive.key)).exists():
                with suppress(FileNotFoundError, NoSuchBackup):
                    beside.bring(photo, archive.key, folder)
    return known


def _lacking_room(source: BinaryIO, key: Key | None, photos_known: Collection[str]) -> str:
    """Return why there is no room for a proof; "" if there is."""
    if is_database(source):
        needed = ROOM * source.seek(0, 2)
    else:
        with open_archive(source, edited=True, lenient=True, keys=Keys(key)) as archive:
            photos = archive.metadata.photos.values()
            inside = sum(photo.size for photo in photos if archive.holds(photo))
            beside = sum(
                photo.size
                for photo in photos
                if not archive.holds(photo) and photo.sha256 not in photos_known
            )
            # Photos are copied: those in the file with it, and those beside it, if they are on another machine.
            needed = ROOM * (archive.unpacked_size - inside) + 2 * (inside + beside)
    free = shutil.disk_usage(process.temporary_folder()).free
    if free >= needed:
        return ""
    return _(
        "There is no room for it: %(size)s MB are needed, %(free)s MB are free in the temporary folder."
    ) % {"size": megabytes(needed), "free": megabytes(free)}


def compare(
    first: BinaryIO,
    second: BinaryIO,
    *,
    is_older: bool,
    leave_out: bool = False,
    keys: tuple[Key | None, Key | None] = (None, None),
    reporter: Reporter = SILENT,
) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Return what restoring the second file over the first one would change, as in a preview; and lines that name what
    both lack, if that is left out.

    `is_older`: whether the first has to be brought to today's schema. `leave_out`: see `RestoreOptions`. `keys`: of
    both files. The changes are model label -> the numbers of "added", "changed", "unchanged", "removed". Raises what a
    restore raises, and `UpgradeFailed`.
    """
    with process.scratch_folder() as folder:
        process.copy_source(first, folder / process.SOURCE, None)
        process.copy_source(second, folder / OTHER, None)
        order = {
            "job": "compare",
            "is_older": is_older,
            "edited": False,
            "leave_out": leave_out,
            "keys": _texts(*keys),
        }
        try:
            outcome = process.run_child(CHILD, folder, order, reporter)
        except process.TooLate as error:
            raise UpgradeFailed(
                _("The comparison took longer than BACKUP_UPGRADE_SECONDS allows.")
            ) from error
        except process.Died as error:
            raise UpgradeFailed(
                _("The process that compares them ended early (%(reason)s).") % {"reason": error.reason}
            ) from error
    return outcome["changes"], outcome["left_out"]

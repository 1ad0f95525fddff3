"""The values that pass between `services` and those who call it: what to restore, how, and what came of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol


class RestoreMode(enum.Enum):
    """What happens to the data that is there: see "What a restore does" in the README."""

    #: Nothing is deleted; the backup's records win over those that are there. A row that is plainly another record
    #: than the backup's with the same key is replaced.
    OVERWRITE = "overwrite"
    #: The same, but such a row stays, and the backup's record gets a fresh key.
    KEEP_BOTH = "keep_both"
    #: Everything in scope is deleted first; afterwards the database holds exactly the backup.
    CLEAR = "clear"

    @property
    def clears(self) -> bool:
        """Whether rows that the backup does not hold are deleted."""
        return self is RestoreMode.CLEAR


class Part(enum.Enum):
    """What of a backup comes back: see `scope.part_of`, which says of each model which part it is of."""

    #: All that is of neither of the others.
    ENTRIES = "entries"
    #: Users, groups, what they may do, and API tokens.
    ACCOUNTS = "accounts"
    #: The users' own settings and those of the site.
    SETTINGS = "settings"


def parts_named(text: str) -> tuple[Part, ...]:
    """Return the parts that a text names, with commas between them, in the order of `Part`. Raises `ValueError` with
    the name that is none."""
    names = [name for name in (name.strip().lower() for name in text.split(",")) if name]
    for name in names:
        if name not in (part.value for part in Part):
            raise ValueError(name)
    return tuple(part for part in Part if part.value in names)


@dataclass(frozen=True)
class RestoreOptions:
    """How to restore.

    `parts`: what comes back, in the order of `Part`; the others stay as they are here, even where existing data is
    cleared. `clear_unknown_apps`: clear even the rows of apps that the backup has never seen; without it a clearing
    restore that would delete some is refused. `edited`: somebody edited the file after it was made, so its checksums
    and counts are not held against it. `leave_out`: leave out what cannot be restored (a value that nobody can read, a
    row that points at nothing), each named, instead of restoring nothing. `without_safety_copy`: restore although the
    safety copy cannot hold all that is here, since that is damaged: what can be read is kept, and the database file as
    it is, if it is one. `merge_tags`: of tags whose names are the same to the database (by its
    collation) make one. `as_it_was`: bring back a state that this very site was in, whatever it was: an undo is not
    refused for what was wrong with the data before. `undoes`: that state is the one just before the last restore.
    """

    mode: RestoreMode = RestoreMode.OVERWRITE
    parts: tuple[Part, ...] = tuple(Part)
    clear_unknown_apps: bool = False
    edited: bool = False
    leave_out: bool = False
    without_safety_copy: bool = False
    merge_tags: bool = False
    as_it_was: bool = False
    undoes: bool = False


@dataclass(frozen=True)
class PlacedFile:
    """A file that a restore put into the storage of a field. `model`: its label. `size`: in bytes."""

    model: str
    field: str
    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Place:
    """A value, or, without `field`, a whole record (without `pk`, all of a model) with which something is wrong.

    `model`: its label. `reason`: what is wrong, as a phrase. `tables.places_in_words` makes a line of it.
    """

    model: str
    pk: Any
    field: str | None
    reason: str


@dataclass
class Places:
    """Places that are named one by one, but no more than `MOST` of them; the others are only counted."""

    MOST: ClassVar[int] = 500

    named: list[Place] = field(default_factory=list)
    total: int = 0

    def __bool__(self) -> bool:
        return self.total > 0

    def add(self, place: Place) -> None:
        self.total += 1
        if len(self.named) < self.MOST:
            self.named.append(place)

    def extend(self, others: Places) -> None:
        self.total += others.total
        self.named += others.named[: max(self.MOST - len(self.named), 0)]


class Phase(enum.Enum):
    """The phases of a restore, in their order."""

    CHECK = "check"
    COPY = "copy"
    WRITE = "write"
    FINISH = "finish"


#: What a reporter is told of in place of a model's label, where what is counted are photos.
PHOTOS = "photos"


class Reporter(Protocol):
    """Who is told how far a job is: a progress bar, a page. See `Silent` for one that ignores it."""

    def phase(self, phase: Phase) -> None:
        """Take note that a phase of a restore begins."""

    def progress(self, label: str, done: int, total: int) -> None:
        """Take note that `done` of `total` records, photos or migrations are done. `label`: of the model, `PHOTOS`,
        or the name of the migration."""


class Silent:
    """A `Reporter` that reports to nobody."""

    def phase(self, phase: Phase) -> None:
        pass

    def progress(self, label: str, done: int, total: int) -> None:
        pass


SILENT = Silent()


class RecordCounter:
    """Adds up records, and reports the sum: `total` are expected."""

    def __init__(self, reporter: Reporter, total: int) -> None:
        self._reporter, self._total, self._done = reporter, total, 0

    def add(self, label: str, count: int) -> None:
        self._done += count
        self._reporter.progress(label, self._done, self._total)


@dataclass(frozen=True)
class Result:
    """What a restore did. `restored`: model label -> records that came from the backup. `children`: the names of the
    first of the children among them. `photos`: how many of the backup's are there now. `safety_copy`: the name of the
    backup that was taken just before. `missing_files`: how many fields name a file, a photo say, that is not there."""

    restored: dict[str, int]
    safety_copy: str
    warnings: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    missing_files: int = 0
    photos: int = 0

    @property
    def records(self) -> int:
        return sum(self.restored.values())

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Result:
        known = ("restored", "safety_copy", "warnings", "children", "missing_files", "photos")
        return cls(**{name: content[name] for name in known if name in content})

    def as_json(self) -> dict[str, Any]:
        return {
            "restored": self.restored,
            "records": self.records,
            "photos": self.photos,
            "children": self.children,
            "warnings": self.warnings,
            "safety_copy": self.safety_copy,
            "missing_files": self.missing_files,
        }

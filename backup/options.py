"""The values that pass between `services` and its callers: what to restore and how, progress, and results."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

from . import babybuddy

#: Stands for a secret, such as a password or a token's key, where a value is shown or quoted.
HIDDEN = "•••"


class RestoreMode(enum.Enum):
    """What happens to existing data: see "What a restore does" in the README."""

    #: Existing rows stay, but the backup's records overwrite those that they match. A row that is plainly another
    #: record than the one with its key in the backup is replaced.
    OVERWRITE = "overwrite"
    #: The same, but such a row stays, and the backup's record gets a fresh key.
    KEEP_BOTH = "keep_both"
    #: Everything in scope is deleted first, so that the database contains exactly the backup afterwards.
    CLEAR = "clear"

    @property
    def clears(self) -> bool:
        """Whether rows that are not in the backup are deleted."""
        return self is RestoreMode.CLEAR


class Part(enum.Enum):
    """A part of a backup that can be restored by itself. `scope.part_of` says which part a model belongs to."""

    #: Everything that is in neither of the other parts.
    ENTRIES = "entries"
    #: Users, groups, their permissions, and API tokens.
    ACCOUNTS = "accounts"
    #: The users' own settings and those of the site.
    SETTINGS = "settings"


def parts_named(text: str) -> tuple[Part, ...]:
    """Return the parts that a text names, separated by commas, in the order of `Part`. Raises `ValueError` with the
    first name that is not a part."""
    names = [name for name in (name.strip().lower() for name in text.split(",")) if name]
    for name in names:
        if name not in (part.value for part in Part):
            raise ValueError(name)
    return tuple(part for part in Part if part.value in names)


@dataclass(frozen=True)
class RestoreOptions:
    """How to restore.

    `parts`: the parts to restore, in the order of `Part`; the others stay as they are here, even if existing data is
    cleared. `clear_unknown_apps`: also clear the rows of apps that the backup does not know; without it, a clearing
    restore that would delete such rows is refused. `edited`: somebody changed the file by hand, so its checksums and
    counts are not checked. `leave_out`: leave out and name what cannot be restored (unreadable values, dangling
    references; for superusers also damaged parts of the file), instead of restoring nothing. `without_safety_copy`:
    restore although existing data is so damaged that the safety copy cannot contain all of it; what can be read is
    kept, and a database file is kept as it is. `merge_tags`: merge tags whose names are the same to the database (by
    its collation). `as_it_was`: restore an earlier state of this very site, even if something was wrong with its data.
    `undoes`: that state is the one just before the last restore. `left_passwords`, `left_tokens`: that restore left all
    of them as they were: unless a superuser asks, what has changed since stays.
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
    left_passwords: bool = False
    left_tokens: bool = False


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
    """A value with which something is wrong; without `field`, a whole record; without `pk`, a whole model.

    `model`: its label. `reason`: what is wrong, as a phrase for people. `tables.places_in_words` makes lines of places.
    """

    model: str
    pk: Any
    field: str | None
    reason: str

    def without_secrets(self) -> Place:
        """Return the place of a file without a reason that may quote a secret, as earlier versions wrote it."""
        if HIDDEN in self.reason or not babybuddy.is_secret(self.field or self.reason):
            return self
        return replace(self, reason=HIDDEN)


@dataclass
class Places:
    """A collection of places. At most `MOST` of them are stored (`named`); all are counted (`total`)."""

    MOST: ClassVar[int] = 500

    named: list[Place] = field(default_factory=list)
    total: int = 0

    def __bool__(self) -> bool:
        return self.total > 0

    def add(self, place: Place) -> None:
        self.total += 1
        if not self.is_full:
            self.named.append(place)

    @property
    def is_full(self) -> bool:
        """Whether further places are only counted."""
        return len(self.named) >= self.MOST

    def extend(self, others: Places) -> None:
        self.total += others.total
        self.named += others.named[: max(self.MOST - len(self.named), 0)]


class Phase(enum.Enum):
    """The phases of a restore, in their order."""

    CHECK = "check"
    COPY = "copy"
    WRITE = "write"
    FINISH = "finish"


#: The label with which a reporter is informed of photos, in place of a model's label.
PHOTOS = "photos"


class Reporter(Protocol):
    """Shows the progress of a job to people: a progress bar, a page. `Silent` is one that shows nothing."""

    def phase(self, phase: Phase) -> None:
        """Report that a phase of a restore begins."""

    def progress(self, label: str, done: int, total: int) -> None:
        """Report that `done` of `total` records, photos or migrations are done. `label`: of the model, `PHOTOS`, or the
        name of the migration."""


class Silent:
    """A `Reporter` that shows nothing."""

    def phase(self, phase: Phase) -> None:
        pass

    def progress(self, label: str, done: int, total: int) -> None:
        pass


SILENT = Silent()


class RecordCounter:
    """Counts records, and reports the sum. `total`: how many are expected."""

    def __init__(self, reporter: Reporter, total: int) -> None:
        self._reporter, self._total, self._done = reporter, total, 0

    def begin(self, label: str) -> None:
        """Report the model whose records come next, so that an error while they are read is not put down to another."""
        self.add(label, 0)

    def add(self, label: str, count: int) -> None:
        self._done += count
        self._reporter.progress(label, self._done, self._total)


@dataclass(frozen=True)
class Result:
    """What a restore did. `restored`: model label -> number of records from the backup. `children`: the names of
    children among them, the first if there are many. `photos`: how many of the backup's photos are there now.
    `safety_copy`: the name of the backup that was made just before. `missing_files`: how many fields name a missing
    file."""

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

"""The content of `metadata.json`: `Metadata`, its JSON, and the checks when it is read from a file."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, cast

from django.utils.translation import gettext as _

from ..conf import in_every_zone
from ..exceptions import DamagedBackup, InvalidBackup
from ..options import Place, Places
from .limits import Limits
from .members import KINDS, MEDIA, README, RECORDS, Member, Photo, Records
from .names import METADATA

#: The newest version of the format that we read. We write the lowest version that can express the backup.
VERSION = "1.2"
_PLACES = ("left_out", "dangling")
_TEXTS = (
    "timezone",
    "created_by",
    "label",
    "instance",
    "babybuddy_version",
    "django_version",
    "database_engine",
)


@dataclass(frozen=True)
class Upgrade:
    """How a backup came to today's schema: see `upgrade.process`.

    `babybuddy_version`: the one that the data is from. `migrations`: those that were run. `left_out`: apps or models of
    that time that are not in scope here. `new_apps`: apps or models here that the data does not know; what the backup
    contains of theirs was created by migrations, and would be there whatever the data was.
    """

    babybuddy_version: str
    migrations: list[str]
    left_out: list[str]
    new_apps: list[str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def cut(self) -> Upgrade:
        """Return this with lists and texts that are no longer than a reader takes them: the newest migrations."""
        lists = (
            self.migrations[-Limits.names :],
            self.left_out[: Limits.names],
            self.new_apps[: Limits.names],
        )
        return Upgrade(
            self.babybuddy_version[: Limits.name],
            *([name[: Limits.name] for name in names] for names in lists),
        )


#: The label of what an upgrade makes of a database file.
DATABASE_FILE = "db.sqlite3"


@dataclass(frozen=True)
class Metadata:
    """The content of `metadata.json`: see docs/format.md.

    `timestamp`: aware. `instance`: the id of the site that the backup is of; "" if that is not known. `migrations`:
    app label -> the names of its newest migrations. `members`: key of a kind (see `members.KINDS`) -> its members.
    `version`: of the file; set by the writer; "" if the file has lost its metadata. `includes_media`: whether it was
    to include photos. `left_out`: values and records that could not be read. `dangling`: records with dangling
    references. `warnings`: sentences for people about photos that are not in it, and why.
    """

    timestamp: dt.datetime
    timezone: str = "UTC"
    created_by: str = ""
    label: str = ""
    instance: str = ""
    babybuddy_version: str = ""
    django_version: str = ""
    database_engine: str = ""
    migrations: dict[str, list[str]] = field(default_factory=dict)
    #: The apps of which the site left out all models (BACKUP_EXCLUDE). To its data they were not new.
    excluded: list[str] = field(default_factory=list)
    members: dict[str, Mapping[str, Member]] = field(default_factory=dict)
    #: Model label -> the key that the next row of it would have got, if that is not the one after the highest.
    next_keys: dict[str, int] = field(default_factory=dict)
    version: str = RECORDS.version
    includes_media: bool = False
    #: Only for a backup that is the result of an upgrade.
    upgraded: Upgrade | None = None
    left_out: Places = field(default_factory=Places)
    dangling: Places = field(default_factory=Places)
    warnings: list[str] = field(default_factory=list)
    #: Whether the file is read as one that somebody edited. Not in the file.
    is_edited: bool = False
    #: The id of the key that the file is encrypted with; "" if it is not encrypted. Not in the file.
    key_id: str = ""

    @property
    def models(self) -> dict[str, Records]:
        """Model label -> its member."""
        return cast(dict[str, Records], self.members.get(RECORDS.key, {}))

    @property
    def photos(self) -> dict[str, Photo]:
        """Name -> the photo's member. A kept backup lists photos but does not contain them: see `Archive.has_photo`."""
        return cast(dict[str, Photo], self.members.get(MEDIA.key, {}))

    @property
    def hides_names(self) -> bool:
        """Whether the names of members in the ZIP reveal nothing, since it was written encrypted. It may be unencrypted
        now, if somebody unpacked it and packed it again."""
        return README.key in self.members

    @property
    def has_checksums(self) -> bool:
        """False for version 1.0, which recorded neither checksums nor migrations, and for a file that has lost them."""
        return self.version not in ("1.0", "")

    @property
    def is_sealed(self) -> bool:
        """Whether checksums, counts and the order of keys must be as they were written."""
        return self.has_checksums and not self.is_edited

    @property
    def is_of_database(self) -> bool:
        """Whether an upgrade made it of a database file, and not of a backup."""
        return self.upgraded is not None and self.label == DATABASE_FILE

    @property
    def models_count(self) -> int:
        return len(self.models)

    @property
    def total_records(self) -> int:
        return sum(member.records for member in self.models.values())

    def counted(self, records: dict[str, int]) -> Metadata:
        """Return the metadata with these numbers of records, by label, unless the file states them itself."""
        if self.is_sealed:
            return self
        models = {
            label: replace(member, records=records.get(label, 0)) for label, member in self.models.items()
        }
        return replace(self, members={**self.members, RECORDS.key: models})

    def cut(self) -> Metadata:
        """Return the metadata with its texts cut to the length that a reader accepts."""
        warnings = [line[: Limits.text] for line in self.warnings[: Limits.warnings]]
        return replace(
            self,
            warnings=warnings,
            upgraded=self.upgraded and self.upgraded.cut(),
            **{name: getattr(self, name)[: Limits.text] for name in _TEXTS},
        )

    def lowest_version(self) -> str:
        """Return the lowest version of the format that can express the backup."""
        return max(
            (kind.version for kind in KINDS if self.members.get(kind.key)),
            key=_numbers,
            default=RECORDS.version,
        )

    @property
    def apps(self) -> set[str]:
        """The apps that were installed at the site that the data is from."""
        apps = {*self.migrations, *(label.split(".")[0] for label in self.models)}
        return apps - {*self.upgraded.new_apps} if self.upgraded else apps

    def knows(self, label: str) -> bool:
        """Tell whether the data of the backup knows a model, or became records of it: see `Upgrade.new_apps`."""
        new = self.upgraded.new_apps if self.upgraded else ()
        return label.partition(".")[0] in self.apps and label not in new

    def as_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "timestamp": self.timestamp.isoformat(),
            "timezone": self.timezone,
            "created_by": self.created_by,
            "label": self.label,
            "instance": self.instance,
            "babybuddy_version": self.babybuddy_version,
            "django_version": self.django_version,
            "database_engine": self.database_engine,
            "models_count": self.models_count,
            "total_records": self.total_records,
            "includes_media": self.includes_media,
            "migrations": self.migrations,
            **({"excluded": self.excluded} if self.excluded else {}),
            **{
                kind.key: kind.as_json(self.members.get(kind.key, {}))
                for kind in KINDS
                if kind is RECORDS or self.members.get(kind.key)
            },
            **({"next_keys": self.next_keys} if self.next_keys else {}),
            **({"upgraded": self.upgraded.as_json()} if self.upgraded else {}),
            **{name: _places_as_json(getattr(self, name)) for name in _PLACES if getattr(self, name)},
            **({"warnings": self.warnings} if self.warnings else {}),
        }


def lost_metadata(timestamp: dt.datetime, *, edited: bool = False) -> Metadata:
    """Return the metadata of a file that has lost them: they say nothing, as little as those of version 1.0.

    `timestamp`: when it was made, as far as anything tells.
    """
    reason = _(
        "it is damaged or missing, so no photo can be restored, and other damage to the backup may go unnoticed"
    )
    return Metadata(
        timestamp, version="", left_out=Places([Place(METADATA, None, None, reason)], 1), is_edited=edited
    )


def _check_version(content: Any) -> None:
    """Raise `InvalidBackup` if `metadata.json`, parsed, is of a version that we do not know.

    This must be checked first: a newer version may contain what would otherwise be reported as a fault.
    """
    if not isinstance(content, dict):
        raise _wrong_metadata(METADATA)
    version = content.get("version")
    if not isinstance(version, str) or not re.fullmatch(r"[1-9]\d{0,2}\.\d{1,3}", version, re.ASCII):
        raise _wrong_metadata("version")
    if _numbers(version) > _numbers(VERSION):
        raise InvalidBackup(
            _(
                "The backup has format version %(version)s, which is newer than this app can read; update the app."
            )
            % {"version": version}
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def parse_metadata(content: Any, *, edited: bool = False) -> Metadata:
    """Return the metadata from `metadata.json`, parsed. `edited`: ignore its numbers of models and records.

    Raises `DamagedBackup` if a part is missing or of the wrong type; `InvalidBackup` if the file must be refused.
    """
    _check_version(content)
    version = content["version"]
    try:
        timestamp = in_every_zone(dt.datetime.fromisoformat(re.sub("Z$", "+00:00", content["timestamp"])))
    except (KeyError, TypeError, ValueError) as error:
        raise _wrong_metadata("timestamp") from error
    texts: dict[str, Any] = {}
    for name in _TEXTS:
        value = content.get(name, "")
        if not isinstance(value, str) or len(value) > Limits.text:
            raise _wrong_metadata(name)
        texts[name] = value
    includes_media = content.get("includes_media", False)
    if not isinstance(includes_media, bool):
        raise _wrong_metadata("includes_media")
    metadata = Metadata(
        timestamp=timestamp, version=version, includes_media=includes_media, is_edited=edited, **texts
    )
    if not metadata.has_checksums:
        return metadata
    metadata = replace(
        metadata,
        migrations=_migrations(content.get("migrations")),
        excluded=_excluded(content.get("excluded", [])),
        members=_members(content, version),
        next_keys=_next_keys(content.get("next_keys", {})),
        upgraded=_upgraded(content.get("upgraded")),
        left_out=_places("left_out", content),
        dangling=_places("dangling", content),
        warnings=_warnings(content.get("warnings", [])),
    )
    if metadata.photos and not includes_media:
        raise _wrong_metadata("includes_media")
    if edited:
        return metadata
    for name, value in (("models_count", metadata.models_count), ("total_records", metadata.total_records)):
        if type(content.get(name)) is not int or content[name] != value:
            raise InvalidBackup(
                _wrong_metadata(name).message, offer="edited"
            )  # which nobody needs to leave out
    return metadata


def _migrations(content: Any) -> dict[str, list[str]]:
    if (
        not isinstance(content, dict)
        or not _are_names([*content])
        or not all(map(_are_names, content.values()))
        or sum(map(len, content.values())) > Limits.names
    ):
        raise _wrong_metadata("migrations")
    return content


def _excluded(content: Any) -> list[str]:
    if not _are_names(content):
        raise _wrong_metadata("excluded")
    return cast(list[str], content)


def _are_names(content: Any) -> bool:
    """Tell whether this is a list of names of apps, models or migrations, and no longer than any site has it."""
    return (
        isinstance(content, list)
        and len(content) <= Limits.names
        and all(isinstance(name, str) and len(name) <= Limits.name for name in content)
    )


def _next_keys(content: Any) -> dict[str, int]:
    if (
        not isinstance(content, dict)
        or not _are_names([*content])
        or not all(type(key) is int and 1 <= key <= 2**63 for key in content.values())
    ):
        raise _wrong_metadata("next_keys")
    return content


def _upgraded(content: Any) -> Upgrade | None:
    if content is None:
        return None
    if not isinstance(content, dict) or content.keys() != {part.name for part in fields(Upgrade)}:
        raise _wrong_metadata("upgraded")
    version, *lists = (content[part.name] for part in fields(Upgrade))
    if not _are_names([version]) or not all(map(_are_names, lists)):
        raise _wrong_metadata("upgraded")
    return Upgrade(**content)


def _places_as_json(places: Places) -> dict[str, Any]:
    return {"total": places.total, "places": [asdict(place) for place in places.named]}


def _places(name: str, metadata: dict[str, Any]) -> Places:
    if name not in metadata:
        return Places()
    content = metadata[name]
    try:
        total, named = content["total"], [Place(**place) for place in content["places"]]
    except (TypeError, KeyError) as error:
        raise _wrong_metadata(name) from error
    if type(total) is not int or not len(named) <= min(total, Places.MOST) or total >= 2**63:
        raise _wrong_metadata(name)
    for place in named:
        if type(place.pk) is int and abs(place.pk) >= 2**64:
            raise _wrong_metadata(name)
        texts = (place.model, str(place.pk), "" if place.field is None else place.field, place.reason)
        if not isinstance(place.pk, int | str | None) or not all(
            isinstance(text, str) and len(text) <= Limits.text for text in texts
        ):
            raise _wrong_metadata(name)
    return Places([place.without_secrets() for place in named], total)


def _warnings(content: Any) -> list[str]:
    if not isinstance(content, list) or len(content) > Limits.warnings:
        raise _wrong_metadata("warnings")
    if not all(isinstance(line, str) and len(line) <= Limits.text for line in content):
        raise _wrong_metadata("warnings")
    return content


def _members(content: dict[str, Any], version: str) -> dict[str, Mapping[str, Member]]:
    members: dict[str, Mapping[str, Member]] = {}
    files = {METADATA}
    for kind in KINDS:
        if kind is RECORDS or (kind.key in content and _numbers(version) >= _numbers(kind.version)):
            try:
                members[kind.key] = listed = kind.parse(content.get(kind.key), README.key in content)
            except ValueError as error:
                raise _wrong_metadata(kind.key) from error
            named = {member.file for member in listed.values()}
            if len(named) != len(listed) or named & files:
                raise _wrong_metadata(kind.key)
            files |= named
    return members


def _wrong_metadata(part: str) -> DamagedBackup:
    message = _("metadata.json is not valid: “%(part)s” is missing or wrong.") % {"part": part}
    return DamagedBackup(message, offer="")  # the reader knows whether there is anything else to restore

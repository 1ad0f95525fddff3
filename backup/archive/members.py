"""The kinds of members that a backup file has: one entry of `KINDS` each.

A member is one file inside of the ZIP, beside `metadata.json`, which lists it. Reader and writer treat all members
alike (names, sizes, checksums); what differs from kind to kind is here. A new kind is a new entry of `KINDS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from ..exceptions import InvalidBackup
from .limits import Limits
from .names import is_photo_name, shown


@dataclass(frozen=True, slots=True)
class Member:
    """A member, as `metadata.json` lists it. `file`: its name in the ZIP. `sha256`: of the uncompressed bytes, in
    hexadecimal; "" in a file of version 1.0, which has no checksums."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Records(Member):
    """The records of a model. `records`: their number; -1 in a file of version 1.0, which does not state it."""

    records: int


@dataclass(frozen=True, slots=True)
class Photo(Member):
    """A file that records name, such as a photo. `name`: its name in the storage, which records contain. `size`: in
    bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class MemberKind:
    """A kind of member.

    `key`: the key in `metadata.json` that lists the members of this kind. `version`: the lowest version of the format
    whose readers know the kind. `parse`: takes the value of that key, and whether the ZIP hides names
    (`Metadata.hides_names`); returns identifier (a label, a name) -> member; raises `ValueError` if the value is wrong.
    `as_json`: does the reverse.
    """

    key: str
    version: str
    parse: Callable[[Any, bool], Mapping[str, Member]]
    as_json: Callable[[Mapping[str, Any]], Any]


# -- records of a model ---


def records_file(label: str) -> str:
    """Return the name of a model's member: `core/child.json` for `core.child`."""
    return f"{label.replace('.', '/')}.json"


#: Matches the name of a model's member.
RECORDS_FILE = re.compile(r"(\w+)/(\w+)\.json")


def records_by_name(names: Iterable[str]) -> dict[str, Records]:
    """Return the members of a version 1.0 file, which lists none: `core/child.json` is core.child. Raises `ValueError`
    with the first name that is no model's."""
    members = {}
    for name in names:
        match = RECORDS_FILE.fullmatch(name)
        if match is None:
            raise ValueError(name)
        members[f"{match[1]}.{match[2]}"] = Records(name, "", -1)
    return members


def _parse_records(value: Any, hides_names: bool) -> dict[str, Records]:
    members = {}
    for label, entry in value.items() if isinstance(value, dict) else [("", None)]:
        if (
            not re.fullmatch(r"\w+\.\w+", label)
            or len(label) > Limits.name
            or not isinstance(entry, dict)
            or entry.get("file") != records_file(label)
            or type(entry.get("records")) is not int
            or not 0 <= entry["records"] < 2**63
            or not isinstance(entry.get("sha256"), str)
        ):
            raise ValueError(label)
        members[label] = Records(entry["file"], entry["sha256"], entry["records"])
    return members


def _records_as_json(members: Mapping[str, Records]) -> dict[str, Any]:
    return {
        label: {"file": member.file, "records": member.records, "sha256": member.sha256}
        for label, member in members.items()
    }


RECORDS = MemberKind("models", "1.1", _parse_records, _records_as_json)


# -- the unencrypted README of an encrypted backup ---


README_FILE = "README.txt"


def _parse_readme(value: Any, hides_names: bool) -> dict[str, Member]:
    if (
        not isinstance(value, dict)
        or value.keys() != {"file", "sha256"}
        or value["file"] != README_FILE
        or not isinstance(value["sha256"], str)
    ):
        raise ValueError(README_FILE)
    return {README_FILE: Member(README_FILE, value["sha256"])}


def _readme_as_json(members: Mapping[str, Member]) -> dict[str, str]:
    member = members[README_FILE]
    return {"file": member.file, "sha256": member.sha256}


README = MemberKind("readme", "1.2", _parse_readme, _readme_as_json)


# -- photos ---


def photo_file(name: str, number: int, *, hides_names: bool) -> str:
    """Return the name of a photo's member. `number`: its place among the photos, from 1."""
    return f"media/{number:04}" if hides_names else f"media/{name}"


def _parse_photos(value: Any, hides_names: bool) -> dict[str, Photo]:
    members: dict[str, Photo] = {}
    for number, entry in enumerate(value if isinstance(value, list) else [None], 1):
        if (
            not isinstance(entry, dict)
            or not isinstance(name := entry.get("name"), str)
            or type(size := entry.get("size")) is not int
            or not 0 <= size < 2**63
            or not isinstance(sha256 := entry.get("sha256"), str)
            or not re.fullmatch("[0-9a-f]{64}", sha256)
        ):
            raise ValueError(number)
        if not is_photo_name(name):
            raise InvalidBackup(
                _("The backup has a photo named “%(name)s”, which is no name for one.")
                % {"name": shown(name)}
            )
        if name in members:
            raise InvalidBackup(_("The backup has the photo “%(name)s” twice.") % {"name": shown(name)})
        members[name] = Photo(photo_file(name, number, hides_names=hides_names), sha256, name, size)
    return members


def _photos_as_json(members: Mapping[str, Photo]) -> list[dict[str, Any]]:
    return [{"name": photo.name, "size": photo.size, "sha256": photo.sha256} for photo in members.values()]


MEDIA = MemberKind("media", "1.2", _parse_photos, _photos_as_json)

#: All kinds. Every backup has members of the first one.
KINDS: tuple[MemberKind, ...] = (RECORDS, README, MEDIA)

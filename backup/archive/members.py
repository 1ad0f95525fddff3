"""The kinds of members that a backup file has: one entry of `KINDS` each.

A member is one file inside of the ZIP, beside `metadata.json`, which lists it. Reader and writer treat all members
alike (names, sizes, checksums); what differs from kind to kind is here. A new kind is a new entry of `KINDS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Member:
    """What `metadata.json` says of a member. `file`: its name in the ZIP. `sha256`: of the uncompressed bytes, in hex;
    "" in a file of version 1.0, which has no checksums."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Records(Member):
    """The records of a model. `records`: how many; -1 in a file of version 1.0, which does not say."""

    records: int


@dataclass(frozen=True)
class MemberKind:
    """A kind of member.

    `key`: under it, `metadata.json` lists the members of this kind. `version`: the lowest version of the format whose
    readers know the kind. `parse`: from what stands under the key to the members, by whatever tells them apart (a
    label, a name); raises `ValueError` where that is not what it should be. `as_json`: the way back.
    """

    key: str
    version: str
    parse: Callable[[Any], Mapping[str, Member]]
    as_json: Callable[[Mapping[str, Any]], Any]


# -- records of a model ---


def records_file(label: str) -> str:
    """Return the name of a model's member: `core/child.json` for `core.child`."""
    return f"{label.replace('.', '/')}.json"


def records_by_name(names: Iterable[str]) -> dict[str, Records]:
    """Return the members of a version 1.0 file, which lists none: `core/child.json` is core.child. Raises `ValueError`
    with the first name that is no model's."""
    members = {}
    for name in names:
        match = re.fullmatch(r"(\w+)/(\w+)\.json", name)
        if match is None:
            raise ValueError(name)
        members[f"{match[1]}.{match[2]}"] = Records(name, "", -1)
    return members


def _parse_records(value: Any) -> dict[str, Records]:
    members = {}
    for label, entry in value.items() if isinstance(value, dict) else [("", None)]:
        if (
            not re.fullmatch(r"\w+\.\w+", label)
            or not isinstance(entry, dict)
            or entry.get("file") != records_file(label)
            or type(entry.get("records")) is not int
            or entry["records"] < 0
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


# -- what an encrypted backup says in clear ---


README_FILE = "README.txt"


def _parse_readme(value: Any) -> dict[str, Member]:
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

#: All kinds. Every backup has members of the first one.
KINDS: tuple[MemberKind, ...] = (RECORDS, README)

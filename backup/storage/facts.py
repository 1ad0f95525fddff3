"""Facts about a kept backup that are not in it, such as whether it is pinned, and the results of its proofs. They are
in a small JSON file beside it, which is deleted with it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..conf import in_every_zone
from . import files
from .names import Name

#: The name of BACKUP_ROOT where the names of locations are used.
LOCAL = "local"
#: A fact: place of a copy -> the result of its last proof.
_PROOFS = "proofs"
#: The results that a proof can have: see `proof.Verdict`.
VERDICTS = ("proved", "failed", "unknown")
#: A fact: that the others were damaged, so that nobody knows what they were.
UNREADABLE = "unreadable"
#: A fact: place of a copy -> when a proof of it was last tried, whatever the result.
TRIED = "proof_tried"


def load(name: Name) -> dict[str, Any]:
    """Return the facts about a backup; {} if there are none. If they are damaged, the backup counts as pinned.

    Raises `StorageFailed` if they cannot be read: taken for missing, a pinned backup might be removed.
    """
    text = files.read_file(name.facts)
    if text is None:
        return {}
    facts: Any = None
    with suppress(ValueError):
        facts = files.parse_json(text)
    return facts if isinstance(facts, dict) else {"pinned": True, UNREADABLE: True}


def save(name: Name, facts: Mapping[str, Any]) -> None:
    """Save the facts about a backup, in place of those before. Raises `StorageFailed`."""
    files.put_json(name.facts, dict(facts))


def proofs_of(facts: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return place of a copy -> its last proof, as JSON of `proof.Proof`. Damaged entries are passed over."""
    proofs = facts.get(_PROOFS)
    return {
        place: proof
        for place, proof in (proofs.items() if isinstance(proofs, dict) else ())
        if _is_proof(proof)
    }


def _is_proof(content: Any) -> bool:
    """Tell whether this is a proof as JSON, and not a damaged note."""
    return (
        isinstance(content, dict)
        and content.get("verdict") in VERDICTS
        and _is_moment(content.get("at"))
        and isinstance(content.get("records"), int)
        and all(isinstance(content.get(name, 0), int) for name in ("photos", "photos_known"))
        and all(isinstance(content.get(name, ""), str) for name in ("reason", "place"))
    )


def _is_moment(text: Any) -> bool:
    """Tell whether this is a moment in ISO 8601 with a UTC offset, which pages can show."""
    try:
        in_every_zone(dt.datetime.fromisoformat(text))
    except (TypeError, ValueError):
        return False
    return True


def tried(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return place of a copy -> when a proof of it was last tried, ISO 8601."""
    moments = facts.get(TRIED)
    return {place: at for place, at in moments.items() if _is_moment(at)} if isinstance(moments, dict) else {}


def counting_proof(facts: Mapping[str, Any], copies: Mapping[str, str]) -> Mapping[str, Any] | None:
    """Return the proof that counts for a backup: the newest that failed, of a copy that is still there; else the newest
    that succeeded; else the newest without a verdict. None if there is none.

    Each copy has a proof of its own, since a file is what is proved. A success counts for the backup wherever the copy
    was, since all copies have the same content.
    """
    proofs = [
        proof for place, proof in proofs_of(facts).items() if proof["verdict"] != "failed" or place in copies
    ]
    failed = [proof for proof in proofs if proof["verdict"] == "failed"]
    proved = [proof for proof in proofs if proof["verdict"] == "proved"]
    return max(failed or proved or proofs, key=lambda proof: str(proof["at"]), default=None)


def with_proof(facts: Mapping[str, Any], proof: Mapping[str, Any], *, is_verdict: bool) -> dict[str, Any]:
    """Return the facts with the result of a proof added. `proof`: as JSON of `proof.Proof`. `is_verdict`: whether it
    has a verdict; otherwise the last verdict of that copy is kept."""
    place, proofs = proof["place"], proofs_of(facts)
    if is_verdict or place not in proofs:
        proofs[place] = proof
    return {**facts, _PROOFS: proofs, TRIED: {**tried(facts), place: proof["at"]}}


def without_proof(facts: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the facts without the proof of a copy, which was replaced by another file."""
    return {**facts, _PROOFS: {where: proof for where, proof in proofs_of(facts).items() if where != place}}

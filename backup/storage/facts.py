"""What is known about a kept backup and is not in it: whether it is pinned, say, and what its proofs came to. It lies
beside it in one small JSON file, and goes with it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from . import files
from .names import Name

#: Where a backup lies that is in BACKUP_ROOT: the name that it has among those of locations.
LOCAL = "local"
#: The fact beside a backup: what the proofs of its copies came to, by the place of each.
_PROOFS = "proofs"
#: What a proof may come to: see `proof.Verdict`.
VERDICTS = ("proved", "failed", "unknown")
#: The fact beside a backup: when a proof of it was tried last, whatever came of it, by the place of each copy.
TRIED = "proof_tried"


def load(name: Name) -> dict[str, Any]:
    """Return what is known about a backup and is not in it. Raises `StorageFailed`: what could not be read is not what
    is not there, else a rule might remove what is pinned."""
    file = files.open_file(name.facts)
    if file is None:
        return {}
    with file:
        try:
            facts = json.loads(file.read())
        except ValueError:
            return {}
    return facts if isinstance(facts, dict) else {}


def save(name: Name, facts: Mapping[str, Any]) -> None:
    """Remember this about a backup, in place of what was known. Raises `StorageFailed`."""
    files.put_json(name.facts, dict(facts))


def proofs_of(facts: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the place of each copy that a proof was made of -> the proof, as `proof.Proof` has it as JSON."""
    found = facts.get(_PROOFS)
    return {
        place: proof
        for place, proof in (found.items() if isinstance(found, dict) else ())
        if _is_proof(proof)
    }


def _is_proof(content: Any) -> bool:
    """Tell whether this is what a proof came to, and no note that is damaged."""
    return (
        isinstance(content, dict)
        and content.get("verdict") in VERDICTS
        and _is_moment(content.get("at"))
        and isinstance(content.get("records"), int)
        and all(isinstance(content.get(name, 0), int) for name in ("photos", "photos_known"))
        and all(isinstance(content.get(name, ""), str) for name in ("reason", "place"))
    )


def _is_moment(text: Any) -> bool:
    """Tell whether this is a moment in ISO 8601, with its offset."""
    try:
        return dt.datetime.fromisoformat(text).tzinfo is not None
    except (TypeError, ValueError):
        return False


def tried(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the place of each copy of which a proof was tried -> when, ISO 8601."""
    found = facts.get(TRIED)
    return {place: at for place, at in found.items() if _is_moment(at)} if isinstance(found, dict) else {}


def counting_proof(facts: Mapping[str, Any], copies: Mapping[str, str]) -> Mapping[str, Any] | None:
    """Return the proof that counts: the newest that failed, of a copy that is still there, else the newest that proved
    it, else the newest that could not tell.

    Each copy has one of its own, since it is the file that is proved. What was proved once holds the same wherever else
    it lies.
    """
    proofs = [
        proof for place, proof in proofs_of(facts).items() if proof["verdict"] != "failed" or place in copies
    ]
    failed = [proof for proof in proofs if proof["verdict"] == "failed"]
    proved = [proof for proof in proofs if proof["verdict"] == "proved"]
    return max(failed or proved or proofs, key=lambda proof: str(proof["at"]), default=None)


def with_proof(facts: Mapping[str, Any], proof: Mapping[str, Any], *, is_verdict: bool) -> dict[str, Any]:
    """Return the facts with what the proof of a copy came to. `proof`: as `proof.Proof` has it as JSON. `is_verdict`:
    whether it says something; else the last verdict of that copy stands."""
    place, proofs = proof["place"], proofs_of(facts)
    if is_verdict or place not in proofs:
        proofs[place] = proof
    return {**facts, _PROOFS: proofs, TRIED: {**tried(facts), place: proof["at"]}}


def without_proof(facts: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the facts without what the proof of a copy came to: another file lies there now."""
    return {**facts, _PROOFS: {where: proof for where, proof in proofs_of(facts).items() if where != place}}

"""The key of an encrypted backup. It is generated, not chosen, and made to be typed in again years later."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from django.utils.translation import gettext as _

from ..exceptions import KeyNeeded, WrongKey

#: Capital letters and digits, without those that look alike: I, L, O, 0, 1.
ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_GROUP, _GROUPS = 5, 6


@dataclass(frozen=True)
class Key:
    """A key. `text`: as it is printed, which is also the password of the ZIP. It is not part of the `repr`, which may
    appear in error reports."""

    text: str = field(repr=False)

    @classmethod
    def make(cls) -> Key:
        """Return a new key, with about 124 random bits."""
        random = "".join(secrets.choice(ALPHABET) for _number in range(_GROUP * (_GROUPS - 1)))
        return cls(_grouped(random + _check(random)))

    @classmethod
    def parse(cls, typed: str) -> Key:
        """Return the key that somebody typed. Lower case, blanks and missing hyphens do not matter.

        Raises `WrongKey` if it cannot be a key.
        """
        signs = re.sub(r"[\s\-\u2010-\u2015]", "", typed).upper()
        if len(signs) != _GROUP * _GROUPS or not set(signs) <= set(ALPHABET):
            raise WrongKey(
                _(
                    "This is not a key. A key has six groups of five letters and digits, never I, L, O, 0 or 1."
                )
            )
        if _check(signs[:-_GROUP]) != signs[-_GROUP:]:
            raise WrongKey(_("There is a mistake in the key. Compare it with the one that you keep."))
        return cls(_grouped(signs))

    @property
    def id(self) -> str:
        """Four capital letters by which people and files name the key. They reveal nothing about it."""
        return _digest("id", self.text, _LETTERS, 4)

    @property
    def last_group(self) -> str:
        return self.text[-_GROUP:]


@dataclass(frozen=True)
class Keys:
    """The keys to try on a backup. `given`: the one that somebody gave for it. `others`: returns the keys of the
    server; it is only called for an encrypted backup that `given` does not open."""

    given: Key | None = None
    others: Callable[[], Sequence[Key]] = tuple


def _grouped(signs: str) -> str:
    return "-".join(signs[start : start + _GROUP] for start in range(0, len(signs), _GROUP))


def _check(random: str) -> str:
    """Return the last group, a checksum that reveals typing errors in the others."""
    return _digest("check", random, ALPHABET, _GROUP)


def _digest(purpose: str, text: str, alphabet: str, length: int) -> str:
    number = int.from_bytes(hashlib.sha256(f"babybuddy-backup {purpose} {text}".encode()).digest(), "big")
    signs = []
    for _place in range(length):
        number, rest = divmod(number, len(alphabet))
        signs.append(alphabet[rest])
    return "".join(signs)


def key_needed(key_id: str) -> KeyNeeded:
    """Return the error for an encrypted backup whose key is not known."""
    return KeyNeeded(
        _("The backup is encrypted. It needs the key with the id %(key_id)s.") % {"key_id": key_id},
        key_id=key_id,
    )

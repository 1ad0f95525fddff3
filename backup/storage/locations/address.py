"""The parts of an address such as `sftp://USER:PASSWORD@HOST:PORT/PATH?known_hosts=FILE`.

They are not parsed by `urllib`: its errors show the text that they are about, passwords included, and it silently
misreads a password that contains `#`, `?` or `/`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from django.utils.translation import gettext as _

from ...exceptions import WrongAddress

HIGHEST_PORT = 65535


@dataclass(frozen=True, repr=False)
class Address:
    """The parts of an address, with percent-encoding decoded; "" or None for parts that it lacks.

    `path`: without the first slash. `host`: an IPv6 address is without brackets.
    """

    scheme: str
    user: str
    password: str
    host: str
    port: int | None
    path: str
    parameters: dict[str, str]

    def target(self, *parameters: str) -> Address:
        """Return the address without what only says how to get in. `parameters`: the names of those that say more."""
        said = {name: self.parameters[name] for name in parameters if name in self.parameters}
        return replace(self, password="", parameters=said)

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse(text: str, *parameters: str) -> Address:
    """Return the parts of an address. `parameters`: the names allowed after its `?`. Raises `WrongAddress`."""
    scheme, _mark, rest = text.partition("://")
    rest, _mark, query = rest.partition("?")
    place, _mark, path = rest.partition("/")
    credentials, at, place = place.rpartition("@")
    if not at and "@" in path + query:
        raise WrongAddress(
            _("In its address, a character in user or password is not percent-encoded: write %(characters)s.")
            % {
                "characters": ", ".join(
                    f"{character} → {quote(character, safe='')}" for character in "/?#@:%"
                )
            }
        )
    user, _mark, password = credentials.partition(":")
    host, port = _host_and_port(place)
    return Address(
        scheme,
        _decoded(user, _("user")),
        _decoded(password, _("password")),
        host,
        port,
        _decoded(path, _("path")).strip("/"),
        _parameters(query, parameters),
    )


def _host_and_port(place: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]\s]+)(?::([0-9]{1,10}))?", place)
    if not match:
        raise WrongAddress(
            _("Its address has no host, or its port is not a number.")
            if place
            else _("Its address has no host between @ (or //) and the next slash.")
        )
    port = int(match[2]) if match[2] else None
    if port is not None and not 0 < port <= HIGHEST_PORT:
        raise WrongAddress(
            _("The port in its address must be between 1 and %(highest)s.") % {"highest": HIGHEST_PORT}
        )
    return _decoded(match[1].strip("[]"), _("host")), port


def _parameters(query: str, known: tuple[str, ...]) -> dict[str, str]:
    values = {}
    for part in filter(None, query.split("&")):
        name, _equals, value = part.partition("=")
        if name not in known or name in values:
            raise WrongAddress(
                _("After the ? of its address, only these may stand, each once: %(names)s.")
                % {"names": ", ".join(known)}
                if known
                else _("Nothing may stand after a ? in its address.")
            )
        values[name] = _decoded(value, name)
    return values


def _decoded(text: str, part: str) -> str:
    try:
        if re.search(r"%(?![0-9A-Fa-f]{2})", text):
            raise ValueError
        text = unquote(text, errors="strict")
        if not text.isprintable():
            raise ValueError
    except ValueError:
        raise WrongAddress(
            _(
                "In its address, the %(part)s is not percent-encoded as it should be: write %(character)s as %(code)s."
            )
            % {"part": part, "character": "%", "code": quote("%")}
        ) from None
    return text

"""The "Backup & Restore" entry in the host's user menu.

The host's template is neither copied nor changed: its rendered menu passes through `with_entry`. The entry follows the
link to the database administration, the last of the links that the host shows to staff.
"""

from __future__ import annotations

import re
from pathlib import Path

from django.template import TemplateDoesNotExist, engines
from django.template.backends.django import DjangoTemplates
from django.template.base import Node, Template, TextNode
from django.template.defaulttags import URLNode
from django.template.loader import get_template
from django.template.loader_tags import BlockNode
from django.urls import NoReverseMatch, reverse
from django.utils.html import escape

from backup import babybuddy

NAME = babybuddy.MENU_TEMPLATE
NEIGHBOUR = babybuddy.MENU_LAST_STAFF_URL
OVERRIDE = Path(__file__).absolute().parent / "overrides" / NAME


def with_entry(menu: str, *, marked: bool = False) -> str:
    """Return a rendered menu with the entry inserted; unchanged if it has no place for it.

    `marked`: whether the entry has a mark, which asks for attention.
    """
    try:
        neighbour = escape(reverse(NEIGHBOUR))
        url = reverse("backup:index")
    except NoReverseMatch:
        return menu
    end = _end_of_link(menu, neighbour)
    if end is None:
        return menu
    entry = get_template("backup/menu_entry.html").render({"url": url, "marked": marked})
    return menu[:end] + entry + menu[end:]


def _end_of_link(menu: str, url: str) -> int | None:
    """Return the position after the last dropdown item that links to `url` (as written in the HTML); None if none."""
    end = None
    for link in re.finditer(r"<a\s([^>]*)>.*?</a\s*>", menu, re.DOTALL | re.IGNORECASE):
        attributes = link[1]
        if "dropdown-item" in attributes and re.search(
            rf"""\bhref\s*=\s*(["']?){re.escape(url)}\1(?=\s|$)""", attributes
        ):
            end = link.end()
    return end


def found_first() -> bool:
    """Tell whether the template that the host's pages extend is ours."""
    try:
        template = get_template(NAME).template  # type: ignore[attr-defined]
    except TemplateDoesNotExist:
        return False
    return bool(Path(template.origin.name).absolute() == OVERRIDE)


def has_place() -> bool:
    """Tell whether the host's menu has a place for the entry. Only its template is read; it is not rendered."""
    url = "/neighbour/"
    for block in _host_template().nodelist.get_nodes_by_type(BlockNode):
        if isinstance(block, BlockNode) and block.name == "nav":
            menu = "".join(_text(node, url) for node in block.nodelist.get_nodes_by_type(Node))
            if _end_of_link(menu, url) is not None:
                return True
    return False


def _text(node: Node, url: str) -> str:
    """Return the text of a template's node; `url` for the tag of the address that we look for."""
    if isinstance(node, TextNode):
        return node.s
    return url if isinstance(node, URLNode) and node.view_name.var == NEIGHBOUR else ""


def _host_template() -> Template:
    """Return the host's own template, which ours shadows."""
    engine = next(backend.engine for backend in engines.all() if isinstance(backend, DjangoTemplates))
    origin = get_template(NAME).template.origin  # type: ignore[attr-defined]
    template, _ = engine.find_template(NAME, skip=[origin])
    return template

from __future__ import annotations

from django import template
from django.template.base import NodeList, Parser, Token
from django.template.context import Context
from django.utils.html import format_html
from django.utils.safestring import SafeString

from backup import menu
from backup.access import is_allowed
from backup.presentation import names

register = template.Library()


class BackupEntryNode(template.Node):
    def __init__(self, nodelist: NodeList) -> None:
        self.nodelist = nodelist

    def render(self, context: Context) -> str:
        rendered = self.nodelist.render(context)
        request = context.get("request")
        user = getattr(request, "user", None)
        return menu.with_entry(rendered) if user is not None and is_allowed(user) else rendered


@register.tag
def backup_entry(parser: Parser, token: Token) -> BackupEntryNode:
    """{% backup_entry %}the host's menu{% end_backup_entry %}: with our entry, for who may follow it."""
    nodelist = parser.parse(("end_backup_entry",))
    parser.delete_first_token()
    return BackupEntryNode(nodelist)


register.filter("grouped", names.grouped)
register.filter("in_words", names.in_words)


@register.filter
def isolated(text: object) -> SafeString:
    """For a text in a sentence: where it runs the other way, as a date in Hebrew, the sentence keeps its order."""
    return format_html("<bdi>{}</bdi>", text)

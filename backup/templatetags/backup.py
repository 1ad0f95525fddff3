"""Tags and filters of the app's templates."""

from __future__ import annotations

from django import template
from django.template.base import NodeList, Parser, Token
from django.template.context import Context
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from backup import menu
from backup.access import is_allowed
from backup.automatic.status import needs_attention
from backup.presentation import names

register = template.Library()


class BackupEntryNode(template.Node):
    """Renders the host's menu, with our entry for users who may back up and restore."""

    def __init__(self, nodelist: NodeList) -> None:
        self.nodelist = nodelist

    def render(self, context: Context) -> str:
        rendered = self.nodelist.render(context)
        request = context.get("request")
        user = getattr(request, "user", None)
        if user is None or not is_allowed(user):
            return rendered
        return menu.with_entry(rendered, marked=needs_attention())


@register.tag
def backup_entry(parser: Parser, token: Token) -> BackupEntryNode:
    """Add our entry to the menu between `{% backup_entry %}` and `{% end_backup_entry %}`."""
    nodelist = parser.parse(("end_backup_entry",))
    parser.delete_first_token()
    return BackupEntryNode(nodelist)


register.filter("grouped", names.grouped)
register.filter("in_words", names.in_words)


@register.filter
def isolated(text: object) -> SafeString:
    """Isolate a text inside a sentence, so that text of the other direction (a date in Hebrew) does not reorder it. A
    tuple of texts becomes a list, with each text isolated from its neighbours."""
    texts = text if isinstance(text, tuple) else (text,)
    return format_html_join(", ", "<bdi>{}</bdi>", ((each,) for each in texts))

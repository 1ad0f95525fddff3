from datetime import timedelta

from django import template
from django.db import models
from django.template.defaultfilters import truncatechars

from core.utils import in_reading_order

register = template.Library()


@register.filter
def columns(meta):
    """The fields worth a column in a list."""
    return [field for field in in_reading_order(meta) if field.name not in ("tags", "picture", "image")]


@register.filter
def value(row, field):
    """What to show of a field: texts short, empty ones not at all."""
    shown = getattr(row, f"get_{field.name}_display", lambda: getattr(row, field.name))()
    if isinstance(field, models.TextField):
        shown = truncatechars(shown or "", 60)
    return "" if shown is None else brief(shown)


@register.filter
def brief(value):
    """A duration without its microseconds."""
    return str(value).partition(".")[0] if isinstance(value, timedelta) else value

"""Conflicts in words: which record of the backup may be which rows here, and which fields they have in common."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _

from .. import babybuddy
from ..restore.identity import Conflict
from ..tables import Column
from .examples import called, field_name, instance, title_of
from .names import record_name, titled


def conflict_in_words(conflict: Conflict) -> str:
    """Describe a record that matches several rows here, or a row that several records match."""
    table = conflict.table
    if not conflict.rows_here:  # the cause is the database's, or in the backup itself
        name = record_name(table.label, title_of(table, conflict.row))
        return f"{name}: {conflict.reason}. {conflict.statement}".strip()
    record = instance(table, conflict.row)
    rows = []
    for current in table.model._base_manager.filter(pk__in=conflict.rows_here).order_by("pk"):
        alike = {
            field_name(table, table.columns[place])
            for group in table.uniques
            if all(_same(table.columns[place], record, current) for place in group)
            for place in group
        }
        name = (
            called(current) if table.label in babybuddy.SECRET_KEYS else titled(called(current), current.pk)
        )
        # Translators: one of the rows that a record may be: "Nap (No. 7), by its Slug"
        by = _("%(name)s, by its %(fields)s") % {"name": name, "fields": ", ".join(sorted(alike))}
        rows.append(by if alike else name)
    words = {"record": record_name(table.label, title_of(table, conflict.row)), "rows": "; ".join(rows)}
    if len(conflict.rows_here) > 1:
        return _("%(record)s in the backup could be any of these here: %(rows)s.") % words
    return _("%(record)s in the backup could be what another record of the backup is, too: %(rows)s.") % words


def _same(column: Column, record: Any, current: Any) -> bool:
    name = column.field.attname
    return bool(getattr(record, name) == getattr(current, name))

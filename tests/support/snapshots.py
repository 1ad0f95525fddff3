"""Reads everything that a backup should hold, independently of the code under test, to compare by value."""

import json
from collections import Counter
from functools import cache

from django.apps import apps
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connection, connections, models

LEFT_OUT_APPS = {"contenttypes", "sessions", "axes"}


def snapshot(alias="default"):
    """Return model label -> key -> field -> value, for every row.

    Equal data gives equal snapshots on any two databases: references to content types and permissions, which each
    database numbers itself, are names; rows of a plain many-to-many table are pairs, since their own keys mean
    nothing.
    """
    natural = _natural_keys(alias)
    tables = {}
    for model in apps.get_models(include_auto_created=True):
        meta = model._meta
        if not meta.managed or meta.proxy or meta.app_label in LEFT_OUT_APPS or model is Permission:
            continue
        rows = [*_rows(model, alias, natural)]
        if meta.auto_created:
            pairs = (tuple(value for name, value in row.items() if name != meta.pk.attname) for row in rows)
            tables[meta.label_lower] = dict(Counter(pairs))
        else:
            tables[meta.label_lower] = {row[meta.pk.attname]: row for row in rows}
            assert len(tables[meta.label_lower]) == len(rows), f"{meta.label_lower}: two rows have one key"
    return tables


def differences(before, after, limit=20):
    """Return up to `limit` differences of two snapshots, a line each; [] if they are equal."""
    lines = []
    for label in sorted(before.keys() | after.keys()):
        old, new = before.get(label, {}), after.get(label, {})
        for key in [*old, *(key for key in new if key not in old)]:
            if old.get(key) == new.get(key):
                continue
            if key in old and key in new and isinstance(old[key], dict):
                lines += [
                    f"{label} {key!r}: {name} was {str(value)[:80]!r}, is {str(new[key].get(name))[:80]!r}"
                    for name, value in old[key].items()
                    if value != new[key].get(name)
                ]
            else:
                what = "added" if key not in old else "lost" if key not in new else "changed"
                lines.append(f"{label} {key!r}: {what}")
            if len(lines) >= limit:
                return lines[:limit]
    return lines


def schema():
    """Return the columns of all tables, and their keys, indexes, references and checks with their names, as lines."""
    introspection, lines = connection.introspection, set()
    with connection.cursor() as cursor:
        for table in introspection.table_names(cursor):
            for column in introspection.get_table_description(cursor, table):
                lines.add(f"{table} {column._replace(display_size=None)}")  # of the rows that are there
            for name, constraint in introspection.get_constraints(cursor, table).items():
                lines.add(f"{table} {name} {constraint}")
        if connection.vendor == "postgresql":  # which may have left rows unchecked
            cursor.execute("SELECT conname FROM pg_constraint WHERE NOT convalidated")
            lines |= {f"{name} is not valid" for (name,) in cursor.fetchall()}
    return lines


def _natural_keys(alias):
    types = {
        pk: (app, model)
        for pk, app, model in ContentType.objects.using(alias).values_list("pk", "app_label", "model")
    }
    permissions = Permission.objects.using(alias).order_by("pk")
    return {
        ContentType: types,
        Permission: {
            pk: (codename, *types.get(key, ("missing", key)))
            for pk, codename, key in permissions.values_list("pk", "codename", "content_type_id")
        },
    }


def _rows(model, alias, natural):
    """Yield the rows of a table, with its own columns only: those of a multi-table parent are in the parent's table."""
    compiler, statement, converters, names = _query(model, connections[alias])
    fields = model._meta.local_concrete_fields
    references = [
        (field.attname, natural[field.remote_field.model])
        for field in fields
        if field.remote_field and field.remote_field.model in natural
    ]
    documents = [field.attname for field in fields if isinstance(field, models.JSONField)]
    special = {name for name, _keys in references}.union(documents)
    with connections[alias].cursor() as cursor:
        cursor.execute(*statement)
        rows = cursor.fetchall()
    for values in compiler.apply_converters(rows, converters):
        row = dict(zip(names, values, strict=True))
        for name, value in row.items():
            if name in special:
                continue
            if isinstance(value, float):
                row[name] = repr(value)  # NaN equals NaN
            elif isinstance(value, memoryview):
                row[name] = bytes(value)
        for name, keys in references:
            row[name] = keys.get(row[name], ("missing", row[name]))
        for name in documents:
            row[name] = json.dumps(row[name], sort_keys=True)  # True is not 1, 1 is not 1.0
            row[f"{name}_is_null"] = bool(row[f"{name}_is_null"])
        yield row


@cache
def _query(model, connection):
    """Return the statement with which Django reads all rows of a table, which takes longer to make than to run."""
    fields = model._meta.local_concrete_fields
    # None may be SQL's null, or JSON's: only the database tells.
    nulls = {
        f"{field.attname}_is_null": models.ExpressionWrapper(
            models.Q(**{f"{field.name}__isnull": True}), models.BooleanField()
        )
        for field in fields
        if isinstance(field, models.JSONField)
    }
    names = [*(field.attname for field in fields), *nulls]
    query = model._base_manager.annotate(**nulls).values(*names).query
    compiler = query.get_compiler(connection=connection)
    statement = compiler.as_sql()
    converters = compiler.get_converters([expression for expression, *_ in compiler.select])
    return compiler, statement, converters, names

"""Chooses the models that a backup contains, and their order."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from django.apps import apps as live_apps
from django.apps.registry import Apps
from django.contrib.auth import get_user_model
from django.db import DEFAULT_DB_ALIAS, connections, router
from django.db.models import Model

from . import babybuddy
from .options import Part

#: Apps and models that backups leave out -> the reason. BACKUP_EXCLUDE names more. (The cache table and the migration
#: history are not models, so they are left out anyway.)
LEFT_OUT = {
    "contenttypes.contenttype": "each database makes and numbers its own",
    "auth.permission": "each database makes and numbers its own",
    "sessions": "who is signed in belongs to a server, not to the data",
    **babybuddy.LEFT_OUT,
}

#: Apps whose models say who may do what, or with what people and scripts sign in, beside the user model: Django's, and
#: those of packages that are often added.
_ACCOUNTS = {
    *("auth", "authtoken", "otp_static", "otp_totp", "otp_email", "otp_webauthn", "two_factor", "mfa"),
    *("account", "socialaccount", "social_django", "oauth2_provider", "knox", "rest_framework_api_key"),
}


def label_of(model: type[Model]) -> str:
    """Return the name of a model in metadata and records, `core.feeding`; for a proxy, that of its concrete model."""
    return model._meta.concrete_model._meta.label_lower  # type: ignore[union-attr]


def part_of(label: str) -> Part:
    """Return the part of a backup that a model belongs to. `label`: see `label_of`."""
    app = label.split(".")[0]
    user = get_user_model()
    if app in _ACCOUNTS or label in {label_of(model) for model in (user, *user._meta.get_parent_list())}:
        return Part.ACCOUNTS
    return Part.ENTRIES if babybuddy.SETTINGS.isdisjoint({app, label}) else Part.SETTINGS


def models_in_scope(registry: Apps = live_apps, exclude: Iterable[str] = ()) -> list[type[Model]]:
    """Return the managed, concrete, non-proxy models, each after the models that it refers to.

    `registry`: `django.apps.apps`, or the `apps` of a migration state (historical models). `exclude`: labels of apps
    ("reports") or models ("core.timer"), upper or lower case. The order is the same at every call. Models of another
    database are not among them, since neither one moment nor one transaction spans two; nor are those for which
    `migrate` makes no table here.
    """
    left_out = _left_out(exclude)
    models = [
        model
        for model in registry.get_models()
        if model._meta.managed
        and not model._meta.proxy
        and not model._meta.swapped
        and left_out.isdisjoint(_names(model))
        and is_here(model)
    ]
    # Historical models are not remembered: that would keep them in memory.
    order = _in_order_of_today if registry is live_apps else _in_order
    return [*order(tuple(sorted(models, key=label_of)))]


def left_out_apps() -> set[str]:
    """Return the labels of the apps with models that no backup holds for one of the reasons in `LEFT_OUT`."""
    return {name.partition(".")[0] for name in LEFT_OUT}


def _left_out(exclude: Iterable[str]) -> set[str]:
    return {*LEFT_OUT, *(name.lower() for name in exclude)}


def _names(model: type[Model]) -> tuple[str, str]:
    """Return the names by which a model can be left out."""
    return model._meta.label_lower, model._meta.app_label.lower()


def unmanaged(exclude: Iterable[str] = ()) -> list[type[Model]]:
    """Return the models that no backup holds because Django does not manage them. Those that show the table of another
    model are not among them. `exclude`: as in `models_in_scope`."""
    models = live_apps.get_models(include_auto_created=True)
    tables = {model._meta.db_table for model in models if model._meta.managed}
    left_out = _left_out(exclude)
    return [
        model
        for model in sorted(models, key=label_of)
        if not model._meta.managed
        and not model._meta.proxy
        and model._meta.db_table not in tables
        and left_out.isdisjoint(_names(model))
    ]


def excluded(exclude: Iterable[str]) -> set[str]:
    """Return the names of the apps and models that are left out of restores here: those in `exclude`, those in another
    database, and those that Django does not manage."""
    return {*(name.lower() for name in exclude), *elsewhere(), *map(label_of, unmanaged(exclude))}


def is_here(model: type[Model]) -> bool:
    """Tell whether the table of a model is in the site's default database. A router may put it into another one, and
    the model may be for other kinds of databases only (`Meta.required_db_vendor`)."""
    meta = model._meta
    return not _is_routed(model) and (not meta.managed or meta.can_migrate(DEFAULT_DB_ALIAS))


def _is_routed(model: type[Model]) -> bool:
    """Tell whether a router puts a model into another database: its table, or only its rows. Where it is read from does
    not matter: that may be a copy of the default database."""
    return not (
        router.allow_migrate_model(DEFAULT_DB_ALIAS, model) and _is_default(router.db_for_write(model))
    )


def _is_default(alias: str) -> bool:
    """Tell whether an alias leads to the default database: a second one may be for another way to it, a pooler say."""
    if alias == DEFAULT_DB_ALIAS:
        return True
    if alias not in connections:
        return False
    own, other = (connections[name].settings_dict for name in (DEFAULT_DB_ALIAS, alias))
    mirrored = other.get("TEST", {}).get("MIRROR") == DEFAULT_DB_ALIAS
    return mirrored or all(own.get(part) == other.get(part) for part in ("ENGINE", "NAME", "HOST", "PORT"))


def lacks_users() -> bool:
    """Tell whether backups lack the users of the site, since a router has them in another database."""
    return _is_routed(get_user_model())


def elsewhere() -> list[str]:
    """Return the labels of the models that do not have their tables in the site's default database."""
    return [model._meta.label_lower for model in _managed() if not is_here(model)]


def routed() -> list[str]:
    """Return the labels of those that a router puts into another database."""
    return [model._meta.label_lower for model in _managed() if _is_routed(model)]


def _managed() -> list[type[Model]]:
    """Return the models that have a table of their own, which Django makes somewhere."""
    models = (
        model
        for model in live_apps.get_models()
        if model._meta.managed and not model._meta.proxy and not model._meta.swapped
    )
    return sorted(models, key=label_of)


def _in_order(models: tuple[type[Model], ...]) -> tuple[type[Model], ...]:
    """Sort models so that each comes after those it refers to.

    Circular references are cut at a reference that is not part of a unique key, if there is one. Only unique keys need
    the order: to match a record by a unique key (see `restore.identity`), the keys in it must have been resolved.
    """
    known = {label_of(model): model for model in models}
    needs: dict[str, dict[str, bool]] = {}
    for label, model in known.items():
        in_keys = _fields_in_unique_keys(model)
        targets: dict[str, bool] = {}
        for field in [*model._meta.local_concrete_fields, *model._meta.local_many_to_many]:
            related = getattr(field, "related_model", None)
            if isinstance(related, type) and label_of(related) in known and related is not model:
                target = label_of(related)
                targets[target] = targets.get(target, False) or field.name in in_keys
        for generic in generic_references(model):
            targets.update((other, True) for other in known if other != label and generic[1] in in_keys)
        needs[label] = targets
    while True:
        try:
            order = TopologicalSorter(needs).static_order()
            return tuple(known[label] for label in order)
        except CycleError as error:
            circle = error.args[1]  # each model is needed by the next one
            edges = [(needer, needed) for needed, needer in pairwise(circle)]
            weakest = min(edges, key=lambda edge: needs[edge[0]][edge[1]])
            del needs[weakest[0]][weakest[1]]


_in_order_of_today = lru_cache(maxsize=8)(_in_order)


def generic_references(model: type[Model]) -> list[tuple[str, str]]:
    """Return the (content type field, key field) pairs of a model, which refer to a row of any model."""
    return babybuddy.GENERIC_REFERENCES.get(model._meta.label_lower) or [
        (field.ct_field, field.fk_field)
        for field in model._meta.private_fields
        if hasattr(field, "ct_field")
        and hasattr(field, "fk_field")
        and not field.many_to_many
        and not field.one_to_many
    ]


def _fields_in_unique_keys(model: type[Model]) -> set[str]:
    meta = model._meta
    names = {field.name for field in meta.local_concrete_fields if field.unique}
    names.update(name for together in meta.unique_together for name in together)
    names.update(name for constraint in meta.total_unique_constraints for name in constraint.fields)
    return names

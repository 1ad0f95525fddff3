"""Under which migrations a backup was made, and what that means here."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader
from django.utils.translation import gettext as _

from .archive import Metadata
from .exceptions import RestoreRefused


def leaf_migrations(connection: BaseDatabaseWrapper, app_labels: Iterable[str]) -> dict[str, list[str]]:
    """App label -> names of its applied migrations that no other applied one of the app builds on."""
    loader = MigrationLoader(connection)
    return _leaves(loader, loader.applied_migrations.keys(), app_labels)


def _leaves(
    loader: MigrationLoader, applied: Iterable[tuple[str, str]], app_labels: Iterable[str]
) -> dict[str, list[str]]:
    applied = {key for key in applied if key in loader.graph.node_map}
    return {
        app: sorted(
            name
            for label, name in applied
            if label == app
            and not any(
                child.key[0] == app and child.key in applied
                for child in loader.graph.node_map[label, name].children
            )
        )
        for app in sorted(set(app_labels))
    }


def check_schema(connection: BaseDatabaseWrapper, metadata: Metadata) -> None:
    """Raise `RestoreRefused` where the backup was made under another schema than this site's, naming the migrations.

    A version 1.0 file names none: it is taken for today's schema, and each field is checked as it is read.
    """
    loader = MigrationLoader(connection)
    here = _leaves(loader, loader.applied_migrations.keys(), metadata.migrations)
    unknown, behind = [], []
    for app, names in sorted(metadata.migrations.items()):
        if app not in loader.migrated_apps:
            continue  # the app is not here: its models are named one by one
        if missing := sorted(set(names) - {name for label, name in loader.graph.node_map if label == app}):
            unknown += [f"{app}.{name}" for name in missing]
        elif sorted(names) != here[app]:
            behind += [f"{app}.{name}" for name in here[app]]
    made_by = metadata.babybuddy_version or "?"
    if unknown:
        raise RestoreRefused(
            _(
                "The backup comes from a newer or a different Baby Buddy (%(version)s), with changes to the database "
                "that are unknown here. Update Baby Buddy first, then restore. Unknown are:"
            )
            % {"version": made_by},
            unknown,
        )
    if behind:
        raise RestoreRefused(
            _(
                "The backup was made by another version of Baby Buddy (%(version)s), before or after changes to the "
                "database; it can only be restored into that version. This site has:"
            )
            % {"version": made_by},
            behind,
        )

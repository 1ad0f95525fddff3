"""Checks which members of a backup are restored, and says which are not, or only in part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.apps import apps
from django.utils.translation import gettext as _

from ..archive.metadata import Metadata
from ..database import MAX_NAMED
from ..exceptions import InvalidBackup, RestoreRefused
from ..options import Places
from ..tables import Table, places_in_words


def check_members(
    metadata: Metadata, tables: Sequence[Table], excluded: Iterable[str], *, leave_out: bool
) -> list[str]:
    """Return warnings about what is in the file but not restored. `leave_out`: see `RestoreOptions`.

    Raises `InvalidBackup` for an unknown model.
    """
    warnings = not_restored(metadata, tables, excluded)
    if len(warnings) > MAX_NAMED:
        warnings[MAX_NAMED:] = ["…"]
    if metadata.version == "1.0":  # what has lost its metadata is named below
        warnings.append(
            _("The backup has format version 1.0, without checksums: damage to it may go unnoticed.")
        )
    if metadata.left_out:
        warnings.append(
            _("The backup lacks what could not be read, or points at nothing: %(places)s.")
            % {"places": _listed(metadata.left_out)}
        )
    if metadata.dangling and not leave_out:
        warnings.append(
            _("Records of the backup refer to something that is not in it: %(places)s.")
            % {"places": _listed(metadata.dangling)}
        )
    if metadata.is_edited:
        warnings.append(
            _("The backup is read as an edited file, whatever its checksums say: damage to it may go unseen.")
        )
    return warnings


def not_restored(metadata: Metadata, tables: Sequence[Table], excluded: Iterable[str]) -> list[str]:
    """Return lines that name the models of the file, or of the older one that it was made of, that are not restored.

    Raises `InvalidBackup` for an unknown model.
    """
    known = {table.label for table in tables}
    installed = {config.label for config in apps.get_app_configs()}
    lines = []
    for label in [*metadata.models, *(metadata.upgraded.left_out if metadata.upgraded else ())]:
        app = label.partition(".")[0]
        if label in known:
            continue
        if label in excluded or app in excluded:
            text = _("%(model)s is in the backup, but left out of restores on this site.")
        elif app not in installed:
            text = _("%(model)s is in the backup, but not installed here, and is left out.")
        elif label not in metadata.models:
            text = _(
                "%(model)s is in the backup, but migrations have removed it, or moved its records elsewhere."
            )
        else:
            raise InvalidBackup(
                _("The backup holds records of %(model)s, which this site does not know.") % {"model": label}
            )
        lines.append(text % {"model": label})
    return lines


def refuse_excluded_since(metadata: Metadata, outside: Iterable[Table]) -> None:
    """Raise `RestoreRefused` if an earlier state of this site has models that BACKUP_EXCLUDE names by now: their rows
    would stay, and refer to rows that go, or to others that get the same keys. `outside`: see `build`."""
    if labels := [table.label for table in outside if table.label in metadata.models]:
        text = _(
            "The safety copy holds models that BACKUP_EXCLUDE names now: %(models)s. Take them out of it, restart Baby "
            "Buddy, then try again."
        )
        raise RestoreRefused(text % {"models": ", ".join(labels)})


def in_part_in_words(in_part: Iterable[Table]) -> list[str]:
    text = _(
        "These models come back in part only, but all of their records here would be deleted: %(models)s."
    )
    models = ", ".join(table.label for table in in_part)
    return [text % {"models": models}] if models else []


def _listed(places: Places) -> str:
    return "; ".join(places_in_words(places))

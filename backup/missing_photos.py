"""Finds the photos that records name and that are not there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.utils.translation import ngettext

from . import media
from .archive import Archive
from .database import Database
from .log import logger
from .options import Places
from .restore.records import RecordReader
from .site import tables_here
from .tables import Column, Table, place_of, places_in_words

#: Table, column, key of a row (None: of a record), name of a file.
NamedFile = tuple[Table, Column, Any, str]


def files_here(database: Database) -> Iterator[NamedFile]:
    for table in tables_here():
        for _place, column in media.file_columns(table):
            for key, name in database.texts(table, column):
                yield table, column, key, name


def files_in(archive: Archive, tables: Iterable[Table]) -> Iterator[NamedFile]:
    for table in tables:
        if columns := media.file_columns(table):
            for batch in RecordReader(archive).batches(table):
                for place, column in columns:
                    named = zip(batch[0], batch[place], strict=True)
                    yield from ((table, column, key, name) for key, name in named if name)
                del batch  # its notes may be long, and so may the next ones


def missing_files(files: Iterable[NamedFile]) -> list[NamedFile]:
    """Return the files that are missing. If a storage cannot tell, they are assumed to be there."""
    by_column: dict[tuple[str, str], list[NamedFile]] = {}
    for file in files:
        by_column.setdefault((file[0].label, file[1].name), []).append(file)
    missing = []
    for (label, field), named in by_column.items():
        try:
            gone = media.missing(named[0][1], {name for *_others, name in named})
        except Exception as error:  # noqa: BLE001  a storage may be anybody's code
            logger.warning("the storage of %s, %s, does not answer: %s", label, field, type(error).__name__)
            continue
        missing += [file for file in named if file[3] in gone]
    return missing


def missing_in_words(missing: Sequence[NamedFile], archive: Archive) -> list[str]:
    """Return what is missing, and where it may be found. `archive`: the backup that is, or was, restored."""
    photos = archive.metadata.photos
    beside, others = Places(), Places()
    for table, column, key, name in missing:
        is_beside = name in photos and not archive.holds(photos[name])
        (beside if is_beside else others).add(place_of(table.label, key, column.name, name))
    lines = []
    if beside.total:
        text = ngettext(
            "%(n)s field names a photo of the backup that is neither in this file nor on this server. Photos of a "
            "kept backup are where its file is from, in the folder “photos” next to the folder “kept”. Set "
            "BACKUP_LOCATIONS to that location, restart Baby Buddy, and choose the file again as a superuser. Or run "
            "“manage.py restore” with the path of the file there. Missing is: %(places)s.",
            "%(n)s fields name a photo of the backup that is neither in this file nor on this server. Photos of a "
            "kept backup are where its file is from, in the folder “photos” next to the folder “kept”. Set "
            "BACKUP_LOCATIONS to that location, restart Baby Buddy, and choose the file again as a superuser. Or run "
            "“manage.py restore” with the path of the file there. Missing are: %(places)s.",
            beside.total,
        )
        lines += [_said(text, beside), *archive.photo_failures]
    if others.total:
        text = ngettext(
            "%(n)s field names a photo that is not in the media folder of this server, and pages that show it fail: "
            "%(places)s. Copy the media folder from the old server, or empty this field.",
            "%(n)s fields name a photo that is not in the media folder of this server, and pages that show it fail: "
            "%(places)s. Copy the media folder from the old server, or empty these fields.",
            others.total,
        )
        lines.append(_said(text, others))
    return lines


def _said(text: str, places: Places) -> str:
    return text % {"n": places.total, "places": "; ".join(places_in_words(places))}

"""Every difference between SQLite, PostgreSQL and MySQL/MariaDB, behind one interface: `database_of(alias)`.

Reads and writes the rows of `tables.Table` with bulk SQL; no `Model.save()`, so no signals and no side effects.
It knows Django's fields only through their columns; what a row means is up to `restore`.

    with database.snapshot() as reader:           # one consistent moment, whatever is written meanwhile
        for batch in reader.batches(table): ...
    with database.exclusive():                    # one restore at a time
        marker = database.change_marker(tables)
        ...                                       # a safety copy, from a snapshot
        with database.restoring(tables):          # one transaction; from here on nobody else writes to the tables
            if database.change_marker(tables) != marker: ...  # somebody wrote meanwhile: copy and plan again
            database.clear(tables); database.insert(table, rows); database.update(table, rows)

The hooks that an engine implements are listed in `base`.
"""

from __future__ import annotations

from django.db import DEFAULT_DB_ALIAS, connections
from django.utils.translation import gettext as _

from ..exceptions import UnknownDatabase
from ..tables import MAX_NAMED
from .base import Database, is_checked
from .errors import (
    Job,
    dangling_refusal,
    interface_explained,
    reason_of,
    refuse_dangling,
    refuse_records,
)
from .mysql import MySQL
from .postgresql import PostgreSQL
from .sqlite import SQLite, is_disk_trouble

__all__ = [
    "MAX_NAMED",
    "Database",
    "Job",
    "SQLite",
    "dangling_refusal",
    "database_of",
    "interface_explained",
    "is_checked",
    "is_disk_trouble",
    "reason_of",
    "refuse_dangling",
    "refuse_records",
]

#: Django's `connection.vendor` -> the class for it. Any other database is refused.
VENDORS: dict[str, type[Database]] = {
    "sqlite": SQLite,
    "postgresql": PostgreSQL,
    "mysql": MySQL,
}


def database_of(alias: str = DEFAULT_DB_ALIAS) -> Database:
    """Return the database of an alias of `DATABASES`.

    Raises `UnknownDatabase` for a vendor that is not in `VENDORS`.
    """
    connection = connections[alias]
    try:
        return VENDORS[connection.vendor](connection)
    except KeyError:
        raise UnknownDatabase(
            _("Backups work on %(known)s, not on the database that this site uses (%(vendor)s).")
            % {"known": "SQLite, PostgreSQL, MySQL, MariaDB", "vendor": connection.vendor}
        ) from None

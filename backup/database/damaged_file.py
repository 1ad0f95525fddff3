"""Reads a damaged SQLite file, and uses another one in its place."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from django.db import DatabaseError, OperationalError
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.sqlite3.schema import DatabaseSchemaEditor

from ..tables import Table
from .errors import reason_of
from .salvage import Salvage
from .session import RawRows

#: Parts of SQLite's messages about damage, or about a missing table or column.
DAMAGE = ("malformed", "not a database", "unsupported file format", "no such table", "no such column")

#: Parts of what SQLite says of an index that lacks rows.
LACKING = ("missing from index", "wrong # of entries in index")

#: The key in the settings of a connection for the name of the site's database, where another file is used instead.
INSTEAD_OF = "BACKUP_INSTEAD_OF"


class UncheckedSchemaEditor(DatabaseSchemaEditor):
    """Django's editor for SQLite, without the check of all references of all tables at its end."""

    __enter__ = BaseDatabaseSchemaEditor.__enter__
    __exit__ = BaseDatabaseSchemaEditor.__exit__


class DamagedFile(Salvage):
    """Reads texts that are not valid, and reads rows by SQLite's row numbers, without an index that may be damaged."""

    #: The connection that a snapshot reads from, instead of Django's.
    _source: sqlite3.Connection | None

    def _fetch(self, sql: str, params: Sequence[Any]) -> RawRows:
        try:
            return super()._fetch(sql, params)
        except OperationalError as error:
            if "decode" not in str(error):
                raise
        except UnicodeDecodeError as error:  # its message quotes a damaged schema
            raise DatabaseError(reason_of(error)) from error
        # A text that is not UTF-8 is returned as bytes.
        raw = self._source or self.connection.connection
        raw.text_factory = _text_or_bytes
        try:
            return super()._fetch(sql, params)
        finally:
            raw.text_factory = str

    def is_damage(self, error: DatabaseError) -> bool:
        return super().is_damage(error) or any(words in str(error) for words in DAMAGE)

    def broken_indexes(self, table: Table) -> dict[str, str]:
        names = [name for name, _columns in table.db_tables if name not in self.missing]
        is_number = table.key.field.db_type(self.connection) == "integer"  # then rows are sorted by it
        is_read_by_number = is_number and not table.uniques and len(names) == 1
        broken = {}
        for name in names:
            lacks = self._lacks_rows(name)
            # The check takes ten times as long, and is only needed if an index is used to read the table as a whole.
            lines = self._integrity(name) if lacks or not is_read_by_number else []
            for line in lines[::-1]:
                if lacks or any(words in line for words in LACKING):
                    broken[name] = line
        return broken

    def _lacks_rows(self, db_table: str) -> bool:
        """Tell whether an index of a table has another number of rows than the table, or cannot be read."""
        sql = f"SELECT SUM(1) FROM {self.quote(db_table)}"  # for COUNT(*), SQLite would choose an index by itself
        rows = self.fetch(f"{sql} NOT INDEXED")
        try:
            return any(
                self.fetch(f"{sql} INDEXED BY {self.quote(name)}") != rows for name in self._indexes(db_table)
            )
        except DatabaseError as error:
            if not self.is_damage(error):
                raise
            return True

    def _indexes(self, db_table: str) -> list[str]:
        """Return the names of a table's indexes, except those that are meant to lack rows."""
        sql = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = %s"
        return [
            name for name, made in self.fetch(sql, [db_table]) if not re.search(r"(?i)\bwhere\b", made or "")
        ]

    def _integrity(self, db_table: str) -> list[str]:
        """Return what SQLite says of a table and its indexes; nothing if they are as they should be."""
        try:
            lines = [line for (line,) in self.fetch(f"PRAGMA integrity_check({self.quote(db_table)})")]
        except DatabaseError as error:
            if not self.is_damage(error):
                raise
            lines = [reason_of(error)]
        return [line for line in lines if line != "ok"]

    def _rows_between(self, columns: str, db_table: str, name: str, first: Any, last: Any) -> RawRows:
        if db_table not in self.unindexed:
            try:
                return super()._rows_between(columns, db_table, name, first, last)
            except DatabaseError:
                if self.unreadable is None:
                    raise
        sql = f"SELECT {columns} FROM {self.quote(db_table)} NOT INDEXED WHERE {name} BETWEEN %s AND %s"
        return self.fetch(sql, [first, last])

    @contextmanager
    def instead(self, file: Path) -> Iterator[None]:
        before = self.connection.settings_dict
        name, new = str(before["NAME"]), str(file)
        if name.startswith("file:"):
            new = urlsplit(name)._replace(path=quote(file.as_posix())).geturl()
        self.connection.close()
        self.connection.settings_dict = {**before, "NAME": new, INSTEAD_OF: name}
        try:
            yield
        finally:
            self.connection.close()
            self.connection.settings_dict = before

    def schema_editor(self) -> BaseDatabaseSchemaEditor:
        return UncheckedSchemaEditor(self.connection, atomic=False)

    def numbered(self, table: Table, low: int, high: int) -> RawRows:
        return self.numbered_by(
            table, f"rowid FROM {self.quote(table.db_table)} NOT INDEXED", "rowid", low, high
        )

    def first_number(self, table: Table) -> int:
        sql = f"SELECT MIN(rowid) FROM {self.quote(table.db_table)} NOT INDEXED"
        return min(0, int(self.fetch(sql)[0][0] or 0))

    def last_number(self, table: Table) -> int:
        for sql, params in (
            (f"SELECT MAX(rowid) FROM {self.quote(table.db_table)} NOT INDEXED", []),
            ("SELECT seq FROM sqlite_sequence WHERE name = %s", [table.db_table]),
        ):
            try:
                rows = self.fetch(sql, params)
                return int(rows[0][0] or 0) if rows else 0
            except DatabaseError as error:
                if "no such" in str(error) and not params:
                    raise
        return 2**31


def _text_or_bytes(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data

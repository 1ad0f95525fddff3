"""Makes the safety copy: the backup of the state before a restore, which undo brings back."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.utils.translation import gettext as _

from .archive import Metadata
from .database import Database, database_of
from .exceptions import BackupError, Damaged, NoSuchBackup, Unreadable
from .making import write_backup
from .options import Places, Reporter, RestoreOptions
from .rescue import Rescue, name_aside
from .storage import kept
from .storage.keys import Place, key_for
from .tables import places_in_words


class SafetyCopy:
    """The verified backup of the state before a restore. `label`: why it is made. `rescue`: given if the database was
    damaged, so that a copy of what could be read exists already. `database`: the one that is restored."""

    def __init__(
        self,
        database: Database,
        user: Any,
        label: str,
        reporter: Reporter,
        options: RestoreOptions,
        rescue: Rescue | None,
    ) -> None:
        self._database = database
        self._user, self._label, self._reporter, self._options = user, label, reporter, options
        self.name = rescue.safety_copy if rescue else ""
        self._is_made = rescue is not None
        #: See `kept.checksum_of`; "" for what could be read of a damaged database.
        self.checksum = ""
        #: Warnings about the copy.
        self.warnings = rescue.warnings if rescue else []
        #: Whether it was made now. If the state has been kept before, that backup is used.
        self._is_new = False
        #: Whether the restore may have changed something, so that the copy has to stay.
        self.is_needed = False

    def make(self, snapshot: Database | None = None) -> None:
        """Make the copy, or replace it by a new one. `snapshot`: see `write_backup`.

        Raises `Damaged`, `StorageFailed`.
        """
        if self._is_made:
            return
        try:
            leave_out = self._options.without_safety_copy
            name, is_new, metadata = _keep_copy(
                self._user, self._label, self._reporter, leave_out=leave_out, snapshot=snapshot
            )
        except Unreadable as error:
            message = _(
                "The safety copy cannot hold all that is here, since not all of it can be read. Nothing was changed."
            )
            damaged = Damaged(message, error.details)
            damaged.must_clear = False
            raise damaged from error
        if name != self.name:
            self.discard()
            self.name, self._is_new = name, is_new
        self.checksum = kept.checksum_of(metadata)
        self.warnings = _lossy(metadata.left_out) if metadata.left_out else []

    def make_sure(self) -> None:
        """Make the copy again if somebody has deleted it. Raises what `make` raises."""
        if not self._is_made:
            try:
                kept.open_backup(self.name, kept.LOCAL).close()
            except NoSuchBackup:
                self.make()

    def discard(self) -> None:
        """Delete the copy, if it was made now. Another restore may have found the state kept by it."""
        if self.name and self._is_new and self._database.was_exclusive():
            with suppress(BackupError):
                kept.delete(self.name)


def _keep_copy(
    user: Any, label: str, reporter: Reporter, *, leave_out: bool, snapshot: Database | None = None
) -> tuple[str, bool, Metadata]:
    """Keep a backup of the present state. `snapshot`: see `write_backup`. Returns its name, whether it is new, and
    what it says of itself."""
    with tempfile.TemporaryFile() as file:
        key = key_for(Place.LOCAL)
        metadata = write_backup(file, user, label, reporter, key, leave_out=leave_out, snapshot=snapshot)
        file.seek(0)
        same = kept.same_state(metadata)
        stored = same or kept.keep(file, metadata, kept.BackupKind.SAFETY)
        return stored.name, same is None, metadata


def keep_readable(user: Any, reporter: Reporter) -> str:
    """Keep a backup of what can be read of a damaged database. Returns its name."""
    return _keep_copy(user, _("what could be read"), reporter, leave_out=True)[0]


def _lossy(left_out: Places) -> list[str]:
    """Return warnings about a safety copy from which something was left out. A database file is then kept as well."""
    warnings = [
        _("The safety copy lacks what cannot be read: %(places)s.")
        % {"places": "; ".join(places_in_words(left_out))}
    ]
    database = database_of()
    path = database.file()
    if path is not None:
        # Not in BACKUP_ROOT: this copy is not encrypted, but files there may have to be.
        copy = name_aside(path)
        with database.damage_explained():
            database.copy_file(copy)
        with suppress(OSError):
            shutil.copystat(path, copy)
        warnings.append(_("The database file from before is kept as %(name)s.") % {"name": copy})
    return warnings


@contextmanager
def prepared(
    database: Database,
    user: Any,
    label: str,
    reporter: Reporter,
    options: RestoreOptions,
    rescue: Rescue | None,
) -> Iterator[SafetyCopy]:
    """Discard the safety copy that is made in the block, unless the restore may have changed something."""
    copy = SafetyCopy(database, user, label, reporter, options, rescue)
    try:
        yield copy
    except BaseException:
        if not copy.is_needed:
            copy.discard()
        raise

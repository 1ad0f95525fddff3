"""What can go wrong, as one tree: whoever calls `backup.services` needs to catch `BackupError` only.

    BackupError                 500  nothing below fits
    ├── InvalidBackup           400  the file is no backup, damaged, or not what it says
    │   ├── InvalidRecord       400  … at one record: model, key, field and reason are named
    │   └── TooLarge            413  … or larger than BACKUP_MAX_UPLOAD_SIZE or BACKUP_MAX_UNCOMPRESSED_SIZE
    ├── RestoreRefused          409  the file is sound, its restore is not: no superuser left, newer schema …
    │   ├── RecordsConflict     409  records that match two different rows
    │   ├── RecordsRefused      409  records that the database refused, the first twenty of them
    │   ├── UnknownApps         409  clearing would empty apps that the backup does not know, and nobody said so
    │   ├── UpgradeFailed       409  an older backup could not be brought to today's schema
    │   └── Forbidden           403  a superuser could do it, this user cannot
    ├── Busy                    409  another restore is running
    ├── AlreadyRestored         409  this very request was carried out just before
    ├── NoSafetyCopy            404  nothing to undo
    ├── UnknownDatabase         409  a database of a vendor that the app does not know
    └── StorageFailed           507  a file on the server's disk could not be written or read

Every message is a sentence for the person at the screen, already translated; `code` is for programs.
"""

from __future__ import annotations

from collections.abc import Sequence


class BackupError(Exception):
    """Base of all errors of this app.

    `message`: one or more sentences for people. `code`: stable, for programs. `status`: the HTTP status that fits.
    `details`: lines that belong to the message, such as one a conflict.
    """

    code = "error"
    status = 500
    #: Whether it stands in the log.
    logged = False

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = str(message)
        self.details = [str(line) for line in details]

    def __str__(self) -> str:
        return "\n".join([self.message, *self.details])


class InvalidBackup(BackupError):
    code = "invalid_backup"
    status = 400


class InvalidRecord(InvalidBackup):
    """A record in the file that cannot be read. `model`: its label; `pk` and `field` where they are known."""

    code = "invalid_record"

    def __init__(self, message: str, *, model: str, pk: object = None, field: str | None = None) -> None:
        super().__init__(message)
        self.model = model
        self.pk = pk
        self.field = field


class TooLarge(InvalidBackup):
    code = "too_large"
    status = 413


class RestoreRefused(BackupError):
    code = "refused"
    status = 409


class RecordsConflict(RestoreRefused):
    code = "conflict"


class RecordsRefused(RestoreRefused):
    code = "records_refused"


class UnknownApps(RestoreRefused):
    code = "unknown_apps"


class UpgradeFailed(RestoreRefused):
    code = "upgrade_failed"


class Forbidden(RestoreRefused):
    code = "forbidden"
    status = 403


class Busy(BackupError):
    code = "busy"
    status = 409


class AlreadyRestored(BackupError):
    code = "already_restored"
    status = 409


class UnknownDatabase(BackupError):
    code = "unknown_database"
    status = 409


class NoSafetyCopy(BackupError):
    code = "no_safety_copy"
    status = 404


class StorageFailed(BackupError):
    code = "storage_failed"
    status = 507

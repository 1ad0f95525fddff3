"""The errors of the app. Callers of `backup.services` only need to catch `BackupError`.

    BackupError                 500  none of the below
    ├── InvalidBackup           400  the file is not a backup, damaged, or inconsistent
    │   ├── InvalidRecord       400  … at one record: the message names model, key, field and reason
    │   ├── DamagedBackup       400  … damaged: what can be read of it can be restored
    │   ├── WrongChecksum       400  … or a piece of it arrived damaged
    │   ├── NoSuchUpload        404  … or no longer there: uploads expire
    │   └── TooLarge            413  … or it is larger than BACKUP_MAX_UPLOAD_SIZE or BACKUP_MAX_UNCOMPRESSED_SIZE
    ├── Unreadable              409  values in a database that nobody can read; they can be left out
    ├── RestoreRefused          409  the file is valid, but must not be restored: no superuser left, newer schema …
    │   ├── RecordsConflict     409  records that match more than one row
    │   ├── RecordsRefused      409  records that the database does not accept; the first twenty are named
    │   │   └── Mismatch        409  … or that differ after a trial restore
    │   ├── Damaged             409  the site's own database cannot be read, or not all of it
    │   ├── UnknownApps         409  clearing would delete data of apps that the backup does not know
    │   ├── UpgradeFailed       409  an older backup could not be brought to today's schema
    │   └── Forbidden           403  this user may not do it, a superuser may
    ├── KeyNeeded               409  the backup is encrypted, and its key is not known here
    │   └── WrongKey            409  … nor is the key that was given the right one, or a key at all
    ├── EncryptionUnavailable   409  something is to be encrypted, but there is no key, or no library for it
    ├── Busy                    409  another restore is running
    ├── LossesChanged           409  more entries are gone than whoever confirmed it has seen
    ├── AlreadyRestored         409  the same request was carried out just before
    ├── Incomplete              409  not all of an upload has arrived yet
    ├── WrongOffset             409  a piece of an upload does not follow the last one
    ├── NoSafetyCopy            404  there is nothing to undo
    ├── NoSuchBackup            404  no kept backup has this name
    ├── Unavailable             503  the database does not answer
    ├── UnknownDatabase         409  the app does not support this database
    ├── NoSuchLocation          404  no location has this name
    ├── WrongSettings           500  a setting of this app is wrong; the message names it
    └── StorageFailed           507  a file on the server could not be written or read
        └── LocationFailed      507  … or in a location; any trouble that is none of these:
            ├── Unreachable     507  nobody answers at its address
            ├── Slow            507  it was reached, but does not answer in time
            ├── Full            507  it has no room
            ├── NotMounted      507  a folder whose disk is not there
            ├── NotVerified     507  it cannot prove that it is the server it should be
            ├── WrongAddress    507  its address cannot be right; the message says which part
            ├── LibraryMissing  507  a library is not installed; the message says which extra brings it
            └── Denied          507  it refuses the user, or what was asked for
                ├── CannotList  507  … it lets nobody list, which is fine for an append-only place
                ├── CannotRead  507  … nor read
                └── CannotDelete 507 … nor delete

Every message is a translated sentence for people; `code` is for programs.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext as _

#: Characters of a name from a file that an error keeps. There it may have megabytes, and the error goes into an answer.
MOST = 200


class BackupError(Exception):
    """Base of all errors of this app.

    `message`: one or more translated sentences. `code`: a stable name for programs. `status`: the HTTP status of the
    answer. `details`: further lines of the message, such as one for each conflict.
    """

    code = "error"
    status = 500
    #: The option with which it can be done all the same, a name in `RestoreOptions`; "" if there is none.
    offer = ""
    #: Whether it was logged already.
    logged = False

    def __init__(self, message: str, details: Sequence[str] = (), offer: str | None = None) -> None:
        super().__init__(message)
        self.message = str(message)
        self.details = [str(line) for line in details]
        self.offer = self.offer if offer is None else offer

    def __str__(self) -> str:
        return "\n".join([self.message, *self.details])


class InvalidBackup(BackupError):
    code = "invalid_backup"
    status = 400


class InvalidRecord(InvalidBackup):
    """A record that cannot be read. `model`: its label. `pk`, `field`: None if they are not known."""

    code = "invalid_record"

    def __init__(self, message: str, *, model: str, pk: object = None, field: str | None = None) -> None:
        super().__init__(message)
        self.model = model
        self.pk = pk[:MOST] if isinstance(pk, str) else pk
        self.field = field and field[:MOST]


class DamagedBackup(InvalidBackup):
    """Part of the file is missing or was changed. A superuser may leave that out."""

    offer = "leave_out"


class WrongChecksum(InvalidBackup):
    code = "wrong_checksum"


class NoSuchUpload(InvalidBackup):
    code = "no_such_upload"
    status = 404


class TooLarge(InvalidBackup):
    code = "too_large"
    status = 413


class Unreadable(BackupError):
    code = "unreadable"
    status = 409
    offer = "leave_out"


class RestoreRefused(BackupError):
    code = "refused"
    status = 409


class RemovesMore(RestoreRefused):
    """More rows here would be deleted than whoever confirmed it has seen."""

    code = "removes_more"


class RecordsConflict(RestoreRefused):
    code = "conflict"


class RecordsRefused(RestoreRefused):
    code = "records_refused"


class Mismatch(RecordsRefused):
    """What came back of a backup is not what is in it."""

    code = "mismatch"


class Damaged(RestoreRefused):
    code = "damaged"
    offer = "without_safety_copy"
    #: Whether there is no way but to clear what is here.
    must_clear = True


class UnknownApps(RestoreRefused):
    code = "unknown_apps"


class UpgradeFailed(RestoreRefused):
    code = "upgrade_failed"


class Forbidden(RestoreRefused):
    code = "forbidden"
    status = 403


class KeyNeeded(BackupError):
    """`key_id`: the id of the key; "" if it is not known."""

    code = "key_needed"
    status = 409

    def __init__(self, message: str, details: Sequence[str] = (), *, key_id: str = "") -> None:
        super().__init__(message, details)
        self.key_id = key_id


class WrongKey(KeyNeeded):
    code = "wrong_key"


class EncryptionUnavailable(BackupError):
    code = "encryption_unavailable"
    status = 409


class Busy(BackupError):
    code = "busy"
    status = 409


class LossesChanged(BackupError):
    code = "losses_changed"
    status = 409


class AlreadyRestored(BackupError):
    code = "already_restored"
    status = 409


class Incomplete(BackupError):
    code = "incomplete"
    status = 409


class WrongOffset(BackupError):
    code = "wrong_offset"
    status = 409


class UnknownDatabase(BackupError):
    code = "unknown_database"
    status = 409


class Unavailable(BackupError):
    code = "unavailable"
    status = 503


class WrongSettings(BackupError, ImproperlyConfigured):
    """`reason`: what is wrong with the setting, without its value, which may be a secret. As a text, the error is that:
    those who run commands need no advice to restart."""

    code = "wrong_settings"
    reason = ""

    @classmethod
    def because(cls, reason: str) -> WrongSettings:
        text = _("A setting of this site is wrong: %(reason)s Correct it, and restart Baby Buddy.")
        error = cls(text % {"reason": reason})
        error.reason = reason
        return error

    def __str__(self) -> str:
        return self.reason or super().__str__()


class NoSafetyCopy(BackupError):
    code = "no_safety_copy"
    status = 404


class NoSuchBackup(BackupError):
    code = "no_such_backup"
    status = 404


class StorageFailed(BackupError):
    code = "storage_failed"
    status = 507


class NoSuchLocation(BackupError):
    code = "no_such_location"
    status = 404


class LocationFailed(StorageFailed):
    """A location does not do what it should. No message has a part of its address."""

    code = "location_failed"


class Unreachable(LocationFailed):
    code = "unreachable"


class Slow(LocationFailed):
    code = "slow"


class Full(LocationFailed):
    code = "full"


class NotMounted(LocationFailed):
    code = "not_mounted"


class NotVerified(LocationFailed):
    code = "not_verified"


class WrongAddress(LocationFailed):
    code = "wrong_address"


class LibraryMissing(LocationFailed):
    code = "library_missing"


class Denied(LocationFailed):
    code = "denied"


class CannotList(Denied):
    code = "cannot_list"


class CannotRead(Denied):
    code = "cannot_read"


class CannotDelete(Denied):
    code = "cannot_delete"

"""Tells what the last restore was: whether a request is it, what undoes it, and whether it was committed at all."""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from django.db import DatabaseError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .conf import aware_now
from .database import Database, memo, reason_of
from .exceptions import AlreadyRestored, BackupError, Busy, Forbidden, NoSafetyCopy, NoSuchBackup
from .log import logger
from .storage import kept, state
from .tables import Table

#: For this long after a restore, the same request is taken for a second click, or for one that a gateway sent again.
SENT_AGAIN = dt.timedelta(minutes=5)


#: Seconds between two tries to ask a database that does not answer.
ASK_AGAIN = 0.5


def ensure_not_repeated(idempotency_key: str) -> None:
    """Raise `AlreadyRestored` if the same request was carried out last, at most `SENT_AGAIN` ago: somebody clicked
    twice, or a gateway did not wait for the answer and sent the request again.

    `idempotency_key`: for example the id of the upload, or a digest of the file. "" never counts as the same.
    """
    last = state.load_last_restore()
    if not idempotency_key or last is None or last.idempotency_key != digest(idempotency_key):
        return
    if abs(aware_now() - dt.datetime.fromisoformat(last.at)) < SENT_AGAIN:
        minutes = SENT_AGAIN // dt.timedelta(minutes=1)
        raise AlreadyRestored(
            ngettext(
                "This was restored just now, so it is not restored again. To restore it "
                "anyway, wait %(n)s minute.",
                "This was restored just now, so it is not restored again. To restore it "
                "anyway, wait %(n)s minutes.",
                minutes,
            )
            % {"n": minutes}
        )


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest() if key else ""


def copy_to_undo(last: state.LastRestore | None) -> str:
    if last is None:
        if not memo.has_notes() and (name := state.under_way().get("safety_copy")) and _is_there(name):
            raise NoSafetyCopy(
                _(
                    "It is not known any more which restore was the last one. The safety copy of the newest "
                    "one is %(name)s: look at what is in it, then restore it, clearing existing data."
                )
                % {"name": name}
            )
        copies = kept.names(kept.BackupKind.SAFETY)
        if not copies:
            raise NoSafetyCopy(_("There is no restore to undo: nothing was restored on this server."))
        raise NoSafetyCopy(
            _(
                "It is not known any more which restore was the last one. The newest safety copy is %(name)s: look at "
                "what is in it, then restore it, clearing existing data."
            )
            % {"name": copies[0].text}
        )
    if not last.safety_copy:
        text = _(
            "The last restore cannot be undone: the database was damaged, and no safety copy of it could be made."
        )
        if last.damaged_file:
            text += " " + _("The damaged file is kept as %(path)s.") % {"path": last.damaged_file}
        raise NoSafetyCopy(text)
    if last.is_undo:
        if not _is_there(last.safety_copy):
            raise AlreadyRestored(_("The last restore was undone already."))
        raise AlreadyRestored(
            _("The last restore was undone already. To take that back, choose the safety copy %(name)s.")
            % {"name": last.safety_copy}
        )
    return last.safety_copy


def _is_there(copy: str) -> bool:
    """Tell whether a safety copy was neither deleted nor pruned meanwhile."""
    try:
        kept.find(copy)
    except NoSuchBackup:
        return False
    return True


def not_the_last(copy: str) -> AlreadyRestored:
    """Return the error for an undo of the last restore that names the safety copy of another one, if that is there."""
    if not _is_there(copy):
        return AlreadyRestored(
            _(
                "Meanwhile there was another restore or undo. Nothing was changed. The safety copy that this one would "
                "bring back is no longer there."
            )
        )
    return AlreadyRestored(
        _(
            "Meanwhile there was another restore or undo. Nothing was changed. To go back further all the same, choose "
            "the safety copy %(name)s under “Backups on the server”."
        )
        % {"name": copy}
    )


def forbidden_undo(copy: str) -> Forbidden:
    """Return the error for whoever may not change accounts, as going back to a safety copy would."""
    return Forbidden(
        _(
            "Going back would change user accounts, permissions or API tokens. Only a superuser can do that. You can "
            "restore the entries of the safety copy alone, with “kept=%(name)s”, “clear_existing_data=true” and "
            "“parts=entries”."
        )
        % {"name": copy}
    )


@contextmanager
def unless_carried_out(
    database: Database, tables: Sequence[Table], saved: Sequence[state.LastRestore]
) -> Iterator[None]:
    """Suppress an error of the block if the restore was committed all the same: a connection may break before the
    answer to a COMMIT arrives. If it was rolled back, the restore before stays the last one.

    `tables`: those that the restore has locked. `saved`: holds what `state.save_last_restore` is to save in the
    restore's transaction, if it has come so far. Raises `Busy` if it is not known whether it was committed.
    """
    try:
        yield
    except BaseException as error:
        if not saved:
            raise
        if database.committed_on is not None:
            if not isinstance(error, (BackupError, DatabaseError)):
                raise  # Ctrl-C while the COMMIT is answered says nothing of it
            if _is_carried_out(database, tables, saved[0], error):
                logger.warning("the connection broke just after the commit of a restore: %s", _cause(error))
                return
        state.take_back(saved[0])
        raise


def _is_carried_out(
    database: Database, tables: Sequence[Table], restore: state.LastRestore, error: Exception
) -> bool:
    """Tell whether a restore is the last one. Waits a little for a database that does not answer. A file does not know
    more than the error says."""
    is_refused = database.has_refused_commit(error)
    until = time.monotonic() + database.LOCK_SECONDS
    while True:
        database.close_if_lost()
        try:
            if is_last(restore):
                return True
            if not is_refused:
                database.wait_for_writers(tables)  # the server may still be about to carry out the COMMIT
                if is_last(restore):
                    return True
            if is_refused or memo.has_notes():
                return False
        except Busy:
            if time.monotonic() <= until:
                time.sleep(ASK_AGAIN)
                continue
        except BackupError:
            pass  # a server that may only be read, say, which nobody can wait for
        raise Busy(
            _(
                "The connection to the database broke at the very end (%(reason)s), so it is not known whether "
                "this was done. Look at the data before you try again."
            )
            % {"reason": _cause(error)}
        ) from error


def _cause(error: Exception) -> str:
    """Return what the database said. Our own error adds that nothing was changed, which nobody knows here."""
    said = error.__cause__ if isinstance(error, BackupError) else None
    return reason_of(said or error)


def is_last(restore: state.LastRestore) -> bool:
    """Tell whether a restore is known to be the last one. Raises `Busy`: see `state.load_last_restore`."""
    last = state.load_last_restore()
    return last is not None and last.at == restore.at


def unknown_in_words(restore: state.LastRestore) -> list[str]:
    """Return a warning if a restore was committed, but could not be noted, as when the disk is full."""
    try:
        is_known = is_last(restore)
    except Busy:  # the file can be read all the same
        is_known = state.under_way().get("at") != restore.at
    if is_known or not restore.safety_copy:
        return []
    text = _(
        "Undo does not know this restore, since the server could not take note of it. To undo it, restore the safety "
        "copy %(name)s, clearing existing data."
    )
    return [text % {"name": restore.safety_copy}]

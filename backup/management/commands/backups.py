"""`manage.py backups`: lists the kept backups, the status, and which of them retention would remove next."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from django.utils import timezone

from backup import services
from backup.archive.names import shown
from backup.automatic import status
from backup.automatic.retention import Verdict
from backup.conf import if_right
from backup.exceptions import WrongSettings
from backup.management.base import BackupCommand
from backup.storage import kept
from backup.storage.kept import StoredBackup


class Command(BackupCommand):
    help = (
        "Lists the backups that the server keeps, newest first; tells how automatic backups are, and which of them "
        "BACKUP_KEEP would remove next, and why the others stay."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="In JSON, as GET /backup/ answers.")
        group = parser.add_mutually_exclusive_group()
        group.add_argument("--pin", metavar="NAME", help="Pin this backup: no rule removes it.")
        group.add_argument("--unpin", metavar="NAME", help="Unpin this backup.")
        group.add_argument("--delete", metavar="NAME", help="Delete this backup from the server.")
        group.add_argument(
            "--label", nargs=2, metavar=("NAME", "TEXT"), help="Give this backup another label; '' for none."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if self._changed(**options):
            return
        backups, current = services.kept_backups(), status.status()
        if options["json"]:
            content = {
                "max_upload_size": if_right("max_upload_size", None),
                "backups": [backup.as_json() for backup in backups],
                "status": current.as_json(),
            }
            self.show(json.dumps(content, indent=2))
            return
        verdicts: dict[str, Verdict] = {}
        with suppress(WrongSettings):  # the status, below, says what is wrong
            verdicts = {verdict.backup.name: verdict for verdict in status.retention()}
        for backup in backups:
            self.show(_line(backup, verdicts.get(backup.name)))
        if not backups:
            self.show("No backup is kept yet.")
        self.show(f"\n{current.state.value}: {current.message}")
        for seen in current.locations:
            at = f" ({timezone.localtime(seen.at).isoformat(timespec='seconds')})" if seen.at else ""
            self.show(f"{seen.name}: {seen.state.value}{at}: {seen.message}")
        if current.next:
            self.show(f"The next automatic backup is due at {timezone.localtime(current.next).isoformat()}.")

    def _changed(
        self,
        pin: str | None,
        unpin: str | None,
        delete: str | None,
        label: list[str] | None,
        **others: Any,
    ) -> bool:
        """Carry out an option about one backup. Returns whether there was such an option."""
        if pin or unpin:
            name = kept.pin(str(pin or unpin), bool(pin)).name
            status.remember(status.status())  # a visit to the locations is due
            self.report(f"{name} is {'pinned' if pin else 'no longer pinned'}.")
        elif delete:
            try:
                former = kept.delete(delete)
            finally:
                status.remember(status.status())  # a visit to the locations is due
            self.report(f"{delete} is deleted.")
            for place in former:
                self.report(
                    f"A copy is left in “{place}”, and is deleted when BACKUP_LOCATIONS names that again."
                )
        elif label:
            name, text = label
            self.report(f"{kept.note(name, label=text[:200]).name} has another label.")
        else:
            return False
        return True


def _line(backup: StoredBackup, verdict: Verdict | None) -> str:
    """Return the lines about a kept backup. `verdict`: of retention; None if it does not apply to the backup."""
    if backup.is_damaged:
        what = "damaged: it cannot be read"
    elif backup.is_locked:
        what = "its key is not known here"
    else:
        photos = f", {backup.photos} photos" if backup.photos else ""
        what = f"{backup.records} records{photos}" + (f", “{shown(backup.label)}”" if backup.label else "")
    notes = [
        backup.kind.value,
        f"{backup.size} bytes",
        *([f"encrypted with the key {backup.key_id}"] if backup.encrypted else []),
        *(["pinned"] if backup.pinned else []),
        *([f"in {', '.join(backup.locations)}"] if backup.is_elsewhere else []),
        *(["the last restore can be undone with it"] if backup.is_undo else []),
    ]
    lines = [backup.name, f"    {what} ({', '.join(notes)})"]
    if verdict is not None:
        lines.append(
            f"    stays: {', '.join(verdict.reasons)}" if verdict.stays else "    would be removed next"
        )
    return "\n".join(lines)

"""`manage.py backup_key`: prints the kit with the key of encrypted backups, or makes a new key."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from backup.kit import kit, new_key
from backup.management.base import BackupCommand


class Command(BackupCommand):
    help = (
        "Prints the key that new backups are encrypted with, and how to open one. Keep it where the backups are not: "
        "without it nobody can read them."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--new",
            action="store_true",
            help="Make a new key first. The old ones stay, since older backups need them.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        made = new_key() if options["new"] else kit()
        self.show(
            f"Key of the encrypted backups of Baby Buddy\n\n"
            f"    Key:  {made.key.text}\n"
            f"    Id:   {made.key.id}\n"
            f"    Site: {made.site}\n"
            + (f"    Made: {made.made}\n" if made.made else "")
            + f"\nThe backups are in {made.place}.\n"
            + (f"Copies are in {', '.join(made.copies)}, in a folder {made.folder}.\n" if made.copies else "")
            + "\n"
            "To open one without Baby Buddy, use 7-Zip (Windows), Keka (macOS), GNOME Files or bsdtar (Linux). The\n"
            "password is the key exactly as it stands here, in capital letters, with the hyphens.\n\n"
            "To restore one, type in the key where you are asked for it; lower case and blanks do no harm."
        )

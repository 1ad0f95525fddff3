"""The pages, and the same in JSON for scripts. Views only translate between HTTP and `backup.services`."""

from __future__ import annotations

from .automatic import acknowledge, run, status, test_location
from .download import download
from .index import index
from .kept import delete, empty_missing, kept, label, pin, prove, undo
from .key import key
from .progress import progress
from .restore import cancel, confirm, preview, preview_photo, question, restore
from .upload import piece, upload

__all__ = [
    "acknowledge",
    "cancel",
    "confirm",
    "delete",
    "download",
    "empty_missing",
    "index",
    "kept",
    "key",
    "label",
    "piece",
    "pin",
    "preview",
    "preview_photo",
    "progress",
    "prove",
    "question",
    "restore",
    "run",
    "status",
    "test_location",
    "undo",
    "upload",
]

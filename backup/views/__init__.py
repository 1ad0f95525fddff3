"""The pages, and the same in JSON for scripts. Views only translate between HTTP and `backup.services`."""

from __future__ import annotations

from .download import download
from .index import index
from .kept import delete_safety_copy, safety_copy, undo
from .progress import progress
from .restore import cancel, confirm, preview, question, restore, upload

__all__ = [
    "cancel",
    "confirm",
    "delete_safety_copy",
    "download",
    "index",
    "preview",
    "progress",
    "question",
    "restore",
    "safety_copy",
    "undo",
    "upload",
]

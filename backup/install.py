"""`python -m backup.install PATH_TO_SETTINGS`: put babybuddy_settings_snippet.py into a settings file, once.

For container images and scripts: it is safe to run at every start, and needs neither Django nor the host. The snippet
of an earlier version is replaced by this one's. The file is replaced in one step, so a Baby Buddy that starts meanwhile
reads the old text or the new, never half of it.

Exit codes: 0 the snippet is there; 1 it could not be put there, with the reason on stderr; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import ast
import enum
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from .storage.atomic import atomic_write

SNIPPET = "babybuddy_settings_snippet"
#: The snippet in a settings file, of this version or an earlier one.
_INSTALLED = re.compile(rb"(?ms)^# --- babybuddy-backup: begin\b.*?^# --- babybuddy-backup: end\b[^\n]*\n?")


class Outcome(enum.Enum):
    """What was done, as a message."""

    ADDED = "Backup & Restore was added to {path}. Restart Baby Buddy to see it in the user menu."
    UPDATED = "Backup & Restore in {path} was brought up to date. Restart Baby Buddy."
    UNCHANGED = "Backup & Restore is in {path} already; nothing was changed."


class InstallError(Exception):
    """The snippet could not be put there. Its text says why."""


def snippet() -> bytes:
    """Return the text of the snippet, which is read and not imported, since it only works in a settings module.

    Raises `InstallError` if it is not installed.
    """
    spec = find_spec(SNIPPET)
    if spec is None or spec.origin is None:
        raise InstallError(
            f"{SNIPPET}.py was not found. Is babybuddy-backup installed in this Python, {sys.executable}?"
        )
    return Path(spec.origin).read_bytes()


def install(path: Path) -> Outcome:
    """Put the snippet into a settings file, or replace an earlier version of it there. Raises `InstallError`."""
    if not path.is_file():
        raise InstallError(f"{path} is {'no file' if path.exists() else 'missing'}.")
    # A link stays a link: the file that it points to is replaced.
    path = path.resolve()
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InstallError(f"{path} cannot be read: {error.strerror}.") from error
    wanted = snippet()
    if wanted in text:
        return Outcome.UNCHANGED
    outcome = Outcome.UPDATED if _INSTALLED.search(text) else Outcome.ADDED
    if outcome is Outcome.UPDATED:
        new = _INSTALLED.sub(lambda _match: wanted, text, count=1)
    else:
        _check_is_settings_module(path, text)
        new = text.rstrip() + b"\n\n\n" + wanted
    if not os.access(path, os.W_OK):
        raise InstallError(f"{path} may not be written by this user.")
    try:
        _replace(path, new)
    except OSError as error:
        raise InstallError(f"{path} could not be written: {error.strerror}.") from error
    return outcome


def _check_is_settings_module(path: Path, text: bytes) -> None:
    """Raise `InstallError` unless the module defines or imports INSTALLED_APPS, `from .base import *` included."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise InstallError(f"{path} is no Python module: {error}.") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "INSTALLED_APPS":
            return
        if isinstance(node, ast.ImportFrom) and {"*", "INSTALLED_APPS"} & {name.name for name in node.names}:
            return
    raise InstallError(
        f"{path} is no Django settings module: it has neither INSTALLED_APPS nor `from … import *`."
    )


def _replace(path: Path, text: bytes) -> None:
    """Replace the content of a file, and keep its mode and its owner."""
    before = path.stat()
    with atomic_write(path) as file:
        file.write(text)
        os.chmod(file.name, before.st_mode & 0o7777)
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(file.name, before.st_uid, before.st_gid)


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit code: see above."""
    parser = argparse.ArgumentParser(
        prog="python -m backup.install",
        description="Plug Backup & Restore into Baby Buddy: append the snippet to its settings module, once.",
    )
    parser.add_argument(
        "settings",
        type=Path,
        metavar="PATH_TO_SETTINGS",
        help="the settings module that Baby Buddy runs with, such as babybuddy/settings/base.py",
    )
    path = parser.parse_args(arguments).settings
    try:
        outcome = install(path)
    except InstallError as error:
        print(error, file=sys.stderr)
        return 1
    print(outcome.value.format(path=path))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m backup.install PATH_TO_SETTINGS`: append babybuddy_settings_snippet.py to a settings file, once.

For container images and scripts: safe to run at every start, needs neither Django nor the host. The file is
replaced in one step, so a Baby Buddy that starts meanwhile reads the old text or the new, never half of it.

Exit codes: 0 appended, or there already; 1 could not, with the reason on stderr; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from .storage.atomic import atomic_write

SNIPPET = "babybuddy_settings_snippet"
MARK = b"# --- babybuddy-backup: begin"


class InstallError(Exception):
    """Why the snippet could not be appended, for people."""


def snippet() -> bytes:
    """The text of the snippet; it is not executed, as it belongs into a settings module."""
    spec = find_spec(SNIPPET)
    if spec is None or spec.origin is None:
        raise InstallError(
            f"{SNIPPET}.py was not found. Is babybuddy-backup installed in this Python, {sys.executable}?"
        )
    return Path(spec.origin).read_bytes()


def install(path: Path) -> bool:
    """True: appended; False: it was there already."""
    if not path.is_file():
        raise InstallError(f"{path} is {'no file' if path.exists() else 'missing'}.")
    # A link stays a link: what it points to is replaced.
    path = path.resolve()
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InstallError(f"{path} cannot be read: {error.strerror}.") from error
    if MARK in text:
        return False
    _check_is_settings_module(path, text)
    if not os.access(path, os.W_OK):
        raise InstallError(f"{path} may not be written by this user.")
    try:
        _replace(path, text.rstrip() + b"\n\n\n" + snippet())
    except OSError as error:
        raise InstallError(f"{path} could not be written: {error.strerror}.") from error
    return True


def _check_is_settings_module(path: Path, text: bytes) -> None:
    """Raise InstallError unless the module has INSTALLED_APPS, if only by `from .base import *`."""
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
    """Write a file anew; its mode and its owner stay."""
    before = path.stat()
    with atomic_write(path) as file:
        file.write(text)
        os.chmod(file.name, before.st_mode & 0o7777)
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(file.name, before.st_uid, before.st_gid)


def main(arguments: list[str] | None = None) -> int:
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
        appended = install(path)
    except InstallError as error:
        print(error, file=sys.stderr)
        return 1
    if appended:
        print(f"Backup & Restore was added to {path}. Restart Baby Buddy to see it in the user menu.")
    else:
        print(f"Backup & Restore is in {path} already; nothing was changed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

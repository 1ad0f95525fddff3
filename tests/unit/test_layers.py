"""Imports go down only, and never in a circle: the architecture of docs/architecture.md, held."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import backup

PACKAGE = Path(backup.__file__).parent

#: From the lowest up. A room may import what stands before it, and itself.
ROOMS = [
    "exceptions",
    "ownership",
    "babybuddy",
    "conf",
    "options",
    "threads",
    "scope",
    "kinds",
    "tables",
    "media",
    "archive",
    "database",
    "dump",
    "restore",
    "upgrade",
    "storage",
    "rescue",
    "log",
    "log_file",
    "keeping",
    "leftovers",
    "kit",
    "proof",
    "site",
    "making",
    "safety_copy",
    "last_restore",
    "missing_photos",
    "todays_schema",
    "restoring",
    "services",
    "prover",
    "presentation",
    "automatic",
    "access",
    "forms",
    "menu",
    "views",
    "urls",
    "root_urls",
    "templatetags",
    "management",
    "checks",
    "plug_in",
    "apps",
    "install",
]
#: Rooms that stand on fewer of ours than lie below them.
ONLY = {
    "babybuddy": [],
    "threads": [],
    "archive": ["exceptions", "conf", "options", "threads"],  # no model
    "database": [
        "exceptions",
        "babybuddy",
        "conf",
        "options",
        "threads",
        "scope",
        "kinds",
        "tables",
    ],  # no file
    "storage": ["exceptions", "ownership", "conf", "options", "archive", "database"],  # no model
    "access": ["exceptions", "conf", "options", "storage"],
    "forms": ["options"],
    "menu": ["babybuddy"],
}
#: What those who only translate between people and the services do without.
CALLERS = {"views", "management", "presentation"}
BEHIND_SERVICES = (
    "backup.dump",
    "backup.upgrade",
    "backup.media",
    "backup.prover",
    "backup.site",
    "backup.making",
    "backup.safety_copy",
    "backup.last_restore",
    "backup.missing_photos",
    "backup.todays_schema",
    "backup.restoring",
)
#: What of the restore they show.
SHOWN = {f"backup.restore.{name}" for name in ("plan", "preview", "identity", "accounts")}
#: The host's own apps: see `babybuddy`, which knows them by name only.
HOST = {"babybuddy", "core", "dashboard", "api", "reports"}
#: What of Django's a room must do without.
WITHOUT = {
    "archive": ("django.db", "django.apps", "django.contrib", "rest_framework", "importlib"),
    "storage": ("django.apps", "django.contrib", "rest_framework"),
    "database": ("zipfile",),
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    """`backup.archive` for the file archive/__init__.py, `backup.archive.reader` for archive/reader.py."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(path): path for path in MODULES}


def imported(path):
    """What a file imports, in functions too: dotted names. Left out is what babybuddy.py takes for its types."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    if name_of(path) == "backup.babybuddy":
        types = [
            node for node in nodes if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        ]
        nodes = [node for node in nodes if not any(node in ast.walk(block) for block in types)]
    package = path.parent.relative_to(PACKAGE.parent).parts
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) + 1 - node.level], *filter(None, [node.module])]
            base = base if node.level else [node.module]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def ours(path):
    """The modules of this package that a file imports. A name that is not a module's is one of its package."""
    for name in imported(path):
        if name in NAMES:
            yield name
        elif (parent := name.rpartition(".")[0]) in NAMES:
            yield parent


def room_of(name):
    return name.partition(".")[2].partition(".")[0]  # none, for the package itself


def test_every_room_has_its_place():
    assert {room_of(name) for name in NAMES} - {""} == {*ROOMS}


@pytest.mark.parametrize("name", NAMES)
def test_imports_go_down(name):
    room = room_of(name)
    below = ["", room, *ONLY.get(room, ROOMS[: ROOMS.index(room)] if room else [])]
    assert [other for other in ours(NAMES[name]) if room_of(other) not in below] == []
    assert [other for other in imported(NAMES[name]) if other.startswith(WITHOUT.get(room, ()))] == []
    assert [other for other in imported(NAMES[name]) if other.partition(".")[0] in HOST] == []


@pytest.mark.parametrize("name", [name for name in NAMES if room_of(name) in CALLERS])
def test_who_only_translates_stays_outside(name):
    others = [*ours(NAMES[name])]
    assert [other for other in others if other.startswith(BEHIND_SERVICES)] == []
    assert {other for other in others if other.startswith("backup.restore")} <= SHOWN
    assert [other for other in others if other.startswith("backup.database")] == []


def test_there_are_no_circles():
    """Not within a room either. A package and its modules are apart: what it imports from them is for others."""
    TopologicalSorter({name: {*ours(path)} - {name, "backup"} for name, path in NAMES.items()}).prepare()


@pytest.mark.parametrize("name", NAMES)
def test_a_long_module_says_why(name):
    text = NAMES[name].read_text(encoding="utf-8")
    if text.count("\n") > 450:
        assert "Longer than" in (ast.get_docstring(ast.parse(text)) or ""), "why is it one?"

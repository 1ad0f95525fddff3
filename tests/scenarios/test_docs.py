"""The README and the other guides are true: whatever in them can be compared with the app is compared."""

import ast
import contextlib
import datetime as dt
import importlib.util
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.urls import resolve

from backup import __version__, kinds, plug_in, services
from backup.archive import VERSION, Limits, Member, Metadata, Photo, Upgrade
from backup.automatic.guard import Loss
from backup.automatic.status import State, Status
from backup.conf import Conf, conf
from backup.database import VENDORS, base
from backup.exceptions import BackupError
from backup.options import Place, Places
from backup.scope import LEFT_OUT
from backup.storage.elsewhere import Seen
from backup.storage.kept import backups as stored_backups
from tests.support.backups import metadata_of, records_of, take
from tests.support.http import error_of, script, upload, url
from tests.unit.test_layers import ROOMS

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
#: File -> text, of all guides.
GUIDES = {
    path: path.read_text(encoding="utf-8")
    for path in [
        *REPOSITORY.glob("*.md"),
        *REPOSITORY.glob("docs/*.md"),
        REPOSITORY / "backup/locale/README.md",
    ]
}
OPERATIONS = GUIDES[REPOSITORY / "docs/operations.md"]
ALL_GUIDES = "\n".join(GUIDES.values())
COMMANDS = sorted(name for name, app in get_commands().items() if app == "backup")
OPTIONS = {f"BACKUP_{name.upper()}": name for name, what in vars(Conf).items() if isinstance(what, property)}


def section(title):
    """What stands between a heading and the next one of its rank."""
    _, found, rest = README.partition(f"\n## {title}\n")
    assert found, f"the README has no section {title!r}"
    return rest.partition("\n## ")[0]


def rows(text):
    """The cells of all tables, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rules = [place for place, row in enumerate(cells) if set(row[0]) <= {"-"} and row[0]]
    return [row for place, row in enumerate(cells) if place not in rules and place + 1 not in rules]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def shell_lines():
    """Every command line in the guides, continued lines joined."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", ALL_GUIDES, re.DOTALL | re.MULTILINE)
    text = "".join(block for language, block in fences if language in ("", "shell"))
    return text.replace("\\\n", " ").splitlines()


def calls_of(start):
    """The arguments of all command lines that hold `start`, up to the end of that one command."""
    found = []
    for line in shell_lines():
        for rest in line.split(start)[1:]:
            found.append(shlex.split(re.split(r"&&|'$|\|", rest)[0]))
    assert found, start
    return found


def parser_of(command):
    return load_command_class("backup", command).create_parser("manage.py", command)


def own_options(command):
    """Those that not every command of Django's has: destination -> ways to write it."""
    common = {action.dest for action in BaseCommand().create_parser("manage.py", "any")._actions}
    return {
        action.dest: action.option_strings
        for action in parser_of(command)._actions
        if action.dest not in common and action.option_strings
    }


# -- settings ------------------------------------------------------------------------------------------------


def test_every_setting_is_in_the_table():
    assert {name for row in rows(section("Settings")) for name in names(row[0])} == OPTIONS.keys()


def test_no_setting_is_made_up():
    assert set(re.findall(r"\bBACKUP_(?!TEST_)\w+", ALL_GUIDES)) == OPTIONS.keys()


def test_each_can_come_from_the_environment():
    assert plug_in.OPTIONS.keys() == OPTIONS.keys()


@pytest.mark.parametrize("name", sorted(OPTIONS.keys() - {"BACKUP_ROOT"}))
def test_its_default_is_true(settings, name):
    if hasattr(settings, name):
        delattr(settings, name)
    (default,) = (row[1] for row in rows(section("Settings")) if names(row[0]) == [name])
    assert ast.literal_eval(names(default)[0]) == getattr(conf, OPTIONS[name])


def test_the_default_folder_is_true(settings, monkeypatch, tmp_path):
    settings.BACKUP_ROOT = None
    settings.BASE_DIR = tmp_path / "host"
    settings.MEDIA_ROOT = tmp_path / "host" / "media"
    (default,) = (row[1] for row in rows(section("Settings")) if names(row[0]) == ["BACKUP_ROOT"])
    beside, otherwise = names(default)
    engine = "django.db.backends."
    monkeypatch.setitem(settings.DATABASES, "default", {"ENGINE": engine + "sqlite3", "NAME": "/there/db"})
    assert conf.root == Path("/there", beside)
    monkeypatch.setitem(settings.DATABASES, "default", {"ENGINE": engine + "postgresql", "NAME": "db"})
    assert conf.root == tmp_path / "host" / otherwise
    settings.MEDIA_ROOT = tmp_path / "data" / "media"
    assert conf.root == tmp_path / "data" / "backups"


# -- commands and addresses ----------------------------------------------------------------------------------


def test_every_command_and_every_option_is_in_the_table():
    told, command = {}, None
    for first, option, _meaning in (row for row in rows(section("Use it")) if len(row) == 3):
        command = names(first)[0] if first else command
        told.setdefault(command, set()).update(names(option))
    assert sorted(told) == COMMANDS
    for command in COMMANDS:
        known = own_options(command)
        assert told[command] <= {text for texts in known.values() for text in texts}
        assert all(told[command].intersection(texts) for texts in known.values()), command


def test_each_command_line_is_understood():
    asked = set()
    for command, *arguments in calls_of("manage.py "):
        if command in COMMANDS:
            parser_of(command).parse_args(arguments)
            asked.add(command)
        else:
            assert command in get_commands()
    assert asked == set(COMMANDS)


def test_each_module_is_there():
    modules = re.findall(r"python3? -m ([\w.]+)", ALL_GUIDES)
    assert {"tests", "tests.demo", "backup.install"} <= set(modules)
    for module in modules:
        assert importlib.util.find_spec(module), module


def test_the_file_that_is_installed_has_the_name_that_it_is_given():
    assert set(re.findall(r"[\w.]+-[\d.]+-py3-none-any\.whl", ALL_GUIDES)) == {
        f"babybuddy_backup-{__version__}-py3-none-any.whl"
    }
    assert f"\n## {__version__}" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


def test_each_address_is_there():
    addresses = set(re.findall(r"/backup/(?:[\w]+/)+(?=[\s`])", ALL_GUIDES))
    assert {"/backup/download/", "/backup/restore/", "/backup/restore/confirm/"} <= addresses
    for address in addresses:
        assert resolve(address).namespace == "backup"


def test_what_scripts_get_is_what_is_told(family):
    (table,) = re.findall(r"^## What scripts get\n(.*?)^## ", OPERATIONS, re.DOTALL | re.MULTILINE)
    told = {
        row[0]: [re.findall(r'"(\w+)"', text) for text in names(row[1]) if text.startswith("{")]
        for row in rows(table)
    }
    front, kept, status, run, preview, restored, error = told.values()
    client = script(family.admin)
    made = client.post(url("run")).json()
    assert [[*made]] == run
    services.prove_kept(made["name"])
    index = client.get(url("index")).json()
    assert [[*index]] == front
    entry = index["backups"][0]
    assert [[*entry], [*entry["proof"]]] == kept
    stored = stored_backups()[0]
    seen = Seen("nas")
    content = Status(
        State.OK, "", "", stored, proved=stored, losses=[Loss("core.note", 2, 1)], locations=[seen]
    )
    content = content.as_json()
    parts = [content["last"], content["proof"], content["shrunk"][0], content["locations"][0]]
    assert [[*content], *map(list, parts)] == status
    answer = client.post(url("restore"), {"backup_file": upload()}).json()
    assert [[*answer], [*answer["changes"]["core.child"]], [*answer["photos"]]] == preview
    assert [[*client.post(url("confirm"), {"upload": answer["upload"]}).json()]] == restored
    missing = client.post(url("undo"), {"safety_copy": made["name"].replace("manual", "safety")})
    assert [["error", *error_of(missing)]] == error


def test_each_status_is_in_the_list():
    kinds = [BackupError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    given = {str(kind.status) for kind in kinds if kind is not BackupError} | {"401", "403"}
    (told,) = re.findall(r"with\s+status (.*?)\.\n", section("Use it"), re.DOTALL)
    assert set(re.findall(r"\b\d{3}\b", told)) == given


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_each_link_leads_somewhere(path):
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", GUIDES[path]):
        linked = path.parent / target if target else path
        assert linked.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings]


# -- the file ------------------------------------------------------------------------------------------------


def test_the_keys_of_the_metadata_are_those_of_a_backup(host_db):
    metadata = metadata_of(take())
    told = {name: row[1] for row in rows(section("The file")) for name in names(row[0])}
    assert list(told) == list(metadata)
    assert names(told["models"]) == list(next(iter(metadata["models"].values())))
    assert f"Format version {VERSION}." in README


FORMAT = GUIDES[REPOSITORY / "docs/format.md"]


def format_section(title):
    return re.split(r"^#+ ", FORMAT.partition(f"# {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def test_the_specified_keys_are_those_that_are_written():
    now = dt.datetime.now(dt.timezone.utc)
    places = Places()
    places.add(Place("core.note", 7, "note", "damaged"))
    metadata = Metadata(
        now,
        members={
            "readme": {"README.txt": Member("README.txt", "")},
            "media": {"a.jpg": Photo("media/0001", "0" * 64, "a.jpg", 7)},
        },
        excluded=["metrics"],
        next_keys={"core.note": 7},
        upgraded=Upgrade("2.0", [], [], []),
        left_out=places,
        dangling=places,
        warnings=["A photo is missing."],
    )
    told = {name: row for row in rows(format_section("metadata.json")) for name in names(row[0])}
    assert list(told) == list(metadata.as_json())
    assert names(told["upgraded"][2]) == list(metadata.upgraded.as_json())
    assert names(told["models"][2]) == ["file", "records", "sha256"]
    assert names(told["media"][2]) == list(metadata.as_json()["media"][0])
    types = {"text": str, "integer": int, "true or false": bool, "object": dict, "list": list}
    for name, value in metadata.as_json().items():
        assert type(value) is types[told[name][1]], name
    assert names(told["database_engine"][2]) == [*VENDORS]


def test_the_specified_versions_and_limits_are_those_of_the_reader():
    assert f"version {VERSION}." in FORMAT
    assert rows(format_section("Versions"))[-1][0] == VERSION
    limits = Limits(uncompressed=0)
    (*_, ratio), (*_, photos), *others = rows(format_section("Limits"))[1:]
    assert ratio == f"{limits.ratio} to 1"
    assert names(photos) == ["BACKUP_MAX_PHOTOS"]
    photo = f", and {limits.photo} for each photo"
    assert [int(number.removesuffix(photo).replace(",", "")) for _name, number in others] == [
        limits.members,
        limits.directory,
        limits.metadata,
        limits.record,
        limits.values,
    ]


@pytest.mark.parametrize(
    "kind", [vars(kinds)[name] for name in ("FLOAT", "DECIMAL", "DATETIME", "DURATION", "UUID_")]
)
def test_the_specified_values_are_canonical(kind):
    told = {row[0]: names(row[1]) for row in rows(format_section("Values"))}
    name = {"datetime": "date and time", "uuid": "UUID"}.get(kind.name, kind.name)
    for text in told[name]:
        if text.startswith('"'):
            value = json.loads(text)
            assert kind.check(value) == value


def test_the_sample_record_is_one(filled):
    (sample,) = re.findall(r"^\[\n(\{.*?)\n\]$", section("The file"), re.DOTALL | re.MULTILINE)
    sample = ast.literal_eval(sample)
    record = next(iter(records_of(take())[sample["model"]]))
    assert list(sample) == list(record)
    assert sample["fields"].keys() == record["fields"].keys()


def test_what_is_left_out_is_true():
    told = dict(re.findall(r"^- `([\w.]+)`: (.+)$", section("The file"), re.MULTILINE))
    assert told == LEFT_OUT


# -- the architecture ----------------------------------------------------------------------------------------

ARCHITECTURE = GUIDES[REPOSITORY / "docs/architecture.md"]
MODULES = {
    ".".join(path.relative_to(REPOSITORY / "backup").with_suffix("").parts).removesuffix(".__init__")
    for path in (REPOSITORY / "backup").rglob("*.py")
    if path.read_text(encoding="utf-8")
} - {"__init__"}


def test_the_architecture_names_every_module():
    (table,) = re.findall(r"^## Modules\n(.*?)^## ", ARCHITECTURE, re.DOTALL | re.MULTILINE)
    assert {name for row in rows(table) for name in names(row[0])} == MODULES


def test_the_layers_are_those_that_are_held():
    (table,) = re.findall(r"^## Layers\n(.*?)^## ", ARCHITECTURE, re.DOTALL | re.MULTILINE)
    told = [name for row in rows(table) for name in names(row[1])]
    assert told == ROOMS[: len(told)]
    assert told[-1] == "prover"


@pytest.mark.parametrize("engine", VENDORS.values(), ids=VENDORS)
def test_what_an_engine_overrides_is_in_the_list_of_hooks(engine):
    shared = {name for parent in engine.__mro__[1:-1] for name in vars(parent)}
    own = {name for name in vars(engine) if not name.startswith("_")} & shared
    assert own - {*re.findall(r"`(\w+)", base.__doc__)} == set()
    assert set(re.findall(r"^`(\w+)\(", base.__doc__, re.MULTILINE)) <= shared


def test_each_path_in_the_guides_is_there():
    paths = set(re.findall(r"`((?:backup|docs|tests)/[\w./-]*)`", ALL_GUIDES))
    assert "backup/database/sqlite.py" in paths
    assert [path for path in sorted(paths) if not (REPOSITORY / path).exists()] == []


def test_each_name_in_the_architecture_is_there():
    """Such as `restore.identity`, or `Database.snapshot()`, or `services.create_backup`."""
    dotted = set(re.findall(r"`([A-Za-z_]+(?:\.\w+)+)(?:\(\w*\))?`", ARCHITECTURE))
    dotted = {name for name in dotted if not re.search(r"\.(py|md|json|toml|sqlite3)$", name)}
    assert {"restore.identity", "Database.snapshot", "services.create_backup"} <= dotted
    assert [name for name in sorted(dotted) if not is_there(name.split("."))] == []


def is_there(parts):
    """Whether a module of the app, or what it holds, has this name; or what `database` and `options` hold."""
    for package in ("backup", "backup.database", "backup.options"):
        found, place = importlib.import_module(package), package
        for part in parts:
            place += f".{part}"
            with contextlib.suppress(ImportError):
                importlib.import_module(place)
            found = getattr(found, part, None)
        if found is not None:
            return True
    return False


def test_the_script_that_sends_pieces(tmp_path):
    """Also where nobody ends a program quietly that is still writing when the one after it has enough."""
    (script,) = re.findall(r"```shell\n(SITE=.*?)```", OPERATIONS, re.DOTALL)
    content = bytes(range(256)) * 4000
    (tmp_path / "backup_112326_143022.zip").write_bytes(content)
    curl = """curl() { case "$*" in *POST*) echo '{"upload": "x"}' ;; *PATCH*) cat >> sent ;; esac; }\n"""
    curl += "trap '' PIPE\n"  # as where cron or a service starts it
    done = subprocess.run(
        ["bash", "-c", curl + script.replace("900000", "300000")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert (tmp_path / "sent").read_bytes() == content

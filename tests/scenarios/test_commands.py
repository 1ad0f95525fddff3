"""`backup`, `restore` and `verify_backup`, as a person or cron runs them."""

import io
import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from core.models import Child
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from freezegun import freeze_time

from backup import services
from backup.archive import Upgrade
from backup.conf import conf
from backup.exceptions import Unreadable
from backup.management.base import BackupCommand
from backup.management.commands import restore as restoring
from backup.storage import kept
from backup.storage.atomic import PARTIAL
from tests.support.backups import metadata_of, packed, spoiled, unpacked
from tests.support.http import script, url
from tests.support.snapshots import differences, snapshot


def command(*arguments):
    out, err = io.StringIO(), io.StringIO()
    call_command(*map(str, arguments), stdout=out, stderr=err)
    return out.getvalue()


def manage(*arguments, **environment):
    """In a process of its own; cwd is the host."""
    return subprocess.run(
        [sys.executable, "manage.py", *map(str, arguments)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


@pytest.fixture
def terminal(monkeypatch):
    """Somebody who types the lines of this list."""
    typed = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: typed.pop(0))
    return typed


# --- backup -----------------------------------------------------------------------------------------------


def verified(path):
    with open(path, "rb") as file:
        return services.verify_backup(file)


def test_backup_into_the_root(family):
    out = command("backup")
    path = Path(out.splitlines()[0])
    assert path.parent == conf.root
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    metadata = verified(path)
    assert f"{metadata.total_records} records" in out
    assert metadata.created_by == ""


@pytest.mark.parametrize("slash", ["", "/"])
def test_backup_into_a_folder(family, tmp_path, slash):
    with freeze_time("2026-11-23 14:30:22"):
        out = command("backup", "--output", f"{tmp_path}{slash}", "--label", "before the update")
    path = tmp_path / "backup_112326_143022.zip"
    assert out.splitlines()[0] == str(path)
    assert verified(path).label == "before the update"
    assert list(tmp_path.iterdir()) == [path]


def test_backup_into_a_file_for_its_user_alone(family, tmp_path):
    path = tmp_path / "mine.zip"
    path.write_text("an older one")
    command("backup", "--output", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert verified(path).total_records > 0


@pytest.mark.parametrize("output", [None, "folder"])
def test_two_backups_of_the_same_second_are_two_files(family, tmp_path, monkeypatch, output):
    """The second one begins before the first one is there: each gets a name of its own."""
    real, others = services.create_backup, []

    def create(target, **kwargs):
        if not others:
            others.append("")
            others[0] = command("backup", *where).splitlines()[0]
        return real(target, **kwargs)

    where = [] if output is None else ["--output", tmp_path]
    monkeypatch.setattr(services, "create_backup", create)
    monkeypatch.setattr(services, "backup_name", lambda user: "backup_112326_143022.zip")
    out = command("backup", *where, "--label", "the second one")
    third = command("backup", *where)
    folder = conf.root if output is None else tmp_path
    names = [Path(path).name for path in (others[0], out.splitlines()[0], third.splitlines()[0])]
    assert names == [f"backup_112326_143022{number}.zip" for number in ("", "_2", "_3")]
    assert [verified(folder / name).label for name in names] == ["", "the second one", ""]
    assert {path.name for path in folder.glob("backup_*")} == {*names}


def test_backup_by_a_link_replaces_its_target(family, tmp_path):
    target, link = tmp_path / "target.zip", tmp_path / "link.zip"
    link.symlink_to(target)  # of nothing, at first
    for label in ("first", "second"):
        command("backup", "--output", link, "--label", label)
        assert link.is_symlink()
        assert verified(target).label == label


@pytest.mark.skipif(os.name == "nt", reason="such files are POSIX's")
def test_backup_into_what_is_no_file(family, tmp_path):
    pipe, copy = tmp_path / "pipe", tmp_path / "copy.zip"
    os.mkfifo(pipe)
    with copy.open("wb") as file, subprocess.Popen(["timeout", "30", "cat", pipe], stdout=file):
        assert str(pipe) in command("backup", "--output", pipe)
    assert verified(copy).total_records > 0
    assert pipe.is_fifo()


# Not /dev/stdout or /dev/null, which root would replace if this failed.
@pytest.mark.skipif(not Path("/proc/self/fd/1").exists(), reason="no /proc")
def test_stdout_by_its_path(family):
    """Nothing but the ZIP, as with `-`."""
    result = manage("backup", "--output", "/proc/self/fd/1")
    assert (result.returncode, result.stderr.count(b"\n")) == (0, 1)
    assert services.verify_backup(io.BytesIO(result.stdout))


def test_backup_that_fails_leaves_the_older_one(family, tmp_path, monkeypatch):
    path = tmp_path / "mine.zip"
    path.write_text("an older one")

    def full(target, **kwargs):
        target.write(b"PK")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(services, "create_backup", full)
    with pytest.raises(CommandError, match="No space left on device"):
        command("backup", "--output", path)
    assert path.read_text() == "an older one"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_backup_left_is_swept(family, tmp_path):
    old, new = (tmp_path / f".mine.zip.{name}{PARTIAL}" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"PK")
    os.utime(old, (0, 0))
    command("backup", "--output", tmp_path / "mine.zip")
    assert not old.exists()
    assert new.exists(), "it might still be written"


def test_backup_into_no_folder(family, tmp_path):
    with pytest.raises(CommandError, match="There is no folder"):
        command("backup", "--output", tmp_path / "none" / "b.zip")


def test_backup_into_a_pipe(family):
    """Nothing but the ZIP on stdout, and no progress bar on a stderr that is no terminal."""
    result = manage("backup", "--output", "-")
    assert result.returncode == 0
    metadata = services.verify_backup(io.BytesIO(result.stdout))
    assert result.stderr.decode() == (f"{metadata.total_records} records of {metadata.models_count} models\n")


def test_backup_is_not_for_a_terminal(family, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with pytest.raises(CommandError, match="cannot be shown on a terminal"):
        command("backup", "--output", "-")


def test_progress_bar_on_a_terminal(family, monkeypatch, tmp_path):
    err = io.StringIO()
    monkeypatch.setattr(err, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", err)
    command("backup", "--output", tmp_path)
    assert "rows/s" in err.getvalue()


# --- backups that the server keeps -------------------------------------------------------------------------


def test_a_kept_backup_is_pinned_labelled_and_deleted_by_command(family):
    name = services.keep_backup().name
    assert "pinned" in command("backups", "--pin", name)
    assert kept.find(name).pinned
    command("backups", "--unpin", name)
    assert not kept.find(name).pinned
    command("backups", "--label", name, "holiday")
    assert kept.find(name).label == "holiday"
    command("backups", "--delete", name)
    assert kept.backups() == []
    for option in ("--pin", "--unpin", "--delete"):
        with pytest.raises(CommandError, match="no longer there"):
            command("backups", option, name)


def test_a_backup_is_kept_listed_and_restored_by_its_name(family):
    assert "No backup is kept" in command("backups")
    then = snapshot()
    name = command("backup", "--keep", "--label", "before the update").splitlines()[0]
    (copy,) = kept.backups()
    assert (copy.name, copy.kind, copy.label, copy.by) == (
        name,
        kept.BackupKind.MANUAL,
        "before the update",
        "",
    )
    out = command("backups")
    for text in (name, "manual", "before the update", f"{copy.records} records"):
        assert text in out
    listed = json.loads(command("backups", "--json"))
    assert (listed["backups"], listed["status"]["state"]) == ([copy.as_json()], "off")
    assert listed == script(family.admin).get(url("index")).json()
    Child.objects.create(first_name="New", last_name="Baby", birth_date="2026-03-01")
    command("restore", name, "--clear", "--no-input")
    assert not differences(then, snapshot())
    with pytest.raises(CommandError, match="cannot be read"):
        command("restore", name.replace("manual", "safety"), "--no-input")
    with pytest.raises(CommandError, match="takes no --output"):
        command("backup", "--keep", "--output", conf.root)


def test_what_retention_would_remove_is_told_in_advance(family, settings):
    settings.BACKUP_KEEP = "last=1"
    for day in (1, 2, 3):
        with freeze_time(f"2026-11-0{day} 12:00"):
            services.keep_backup(kept.BackupKind.AUTOMATIC)
    kept.pin(kept.names()[2].text, True)
    removed = [
        line.strip() for line in command("backups").splitlines() if "stays" in line or "removed" in line
    ]
    assert removed == ["stays: the newest, last", "would be removed next", "stays: pinned"]
    assert len(kept.names()) == 3


# --- restore ----------------------------------------------------------------------------------------------


@pytest.fixture
def saved(family, tmp_path):
    """A backup, and what was there then; one child more is there now."""
    path = tmp_path / "saved.zip"
    with path.open("wb") as file:
        services.create_backup(file)
    before = snapshot()
    Child.objects.create(first_name="New", last_name="Baby", birth_date="2026-03-01")
    return path, before


def test_restore_and_undo(saved):
    path, before = saved
    now = snapshot()
    out = command("restore", path, "--clear", "--no-input")
    assert not differences(before, snapshot())
    assert kept.backups()[0].name in out
    assert "records restored" in out
    command("restore", "--undo", "--no-input")
    assert not differences(now, snapshot())


def test_restore_keeps_what_is_there_without_clear(saved):
    path, _ = saved
    command("restore", path, "--noinput")
    assert Child.objects.filter(first_name="New").exists()


@pytest.mark.parametrize(("clear", "removed"), [((), "0"), (("--clear",), "1")])
def test_dry_run_shows_and_changes_nothing(saved, clear, removed):
    path, _ = saved
    now = snapshot()
    out = command("restore", path, "--dry-run", *clear)
    row = next(line.split() for line in out.splitlines() if line.startswith("core.child "))
    assert row == ["core.child", "0", "0", "2", removed]
    assert not differences(now, snapshot())
    assert not kept.backups()


def test_the_headlines_leave_out_the_growth_tables_as_the_page_does(saved):
    path, _ = saved
    models = _labels_of(path)
    seeded = sum(models[f"core.{name}percentile"]["records"] for name in ("weight", "height"))
    entered = sum(model["records"] for model in models.values()) - seeded
    assert seeded
    more = f"and {seeded} of the growth tables that come with Baby Buddy"
    out = command("restore", path, "--dry-run")
    assert re.search(rf"^{entered} records come from the backup, of Mia Lind, .*, {more}$", out, re.MULTILINE)
    out = command("restore", path, "--no-input")
    assert re.search(rf"^{entered} records restored, of Mia Lind, .*, {more}$", out, re.MULTILINE)


def _labels_of(path):
    with open(path, "rb") as file:
        return metadata_of(file)["models"]


def test_restore_asks(saved, terminal):
    path, before = saved
    now = snapshot()
    for answer in ("", "n", "maybe"):
        terminal.append(answer)
        with pytest.raises(CommandError, match="Nothing was changed"):
            command("restore", path, "--clear")
    assert not differences(now, snapshot())
    terminal.append("y")
    out = command("restore", path, "--clear")
    assert "core.child" in out, "the preview comes first"
    number = sum(
        len(rows)
        for label, rows in before.items()
        if label in _labels_of(path) and not label.endswith("percentile")
    )
    for line in (
        f"{number} records come from the backup, of Mia Lind, ",
        f"{number} records restored, of Mia Lind, ",
    ):
        assert line in out
    assert not differences(before, snapshot())
    terminal.append("yes")
    assert kept.backups()[0].name in command("restore", "--undo")
    assert not differences(now, snapshot())


def test_restore_without_anybody_to_ask(saved):
    path, _ = saved
    result = manage("restore", path)
    assert result.returncode == 1
    assert b"Traceback" not in result.stderr
    assert b"--no-input" in result.stderr
    assert Child.objects.filter(first_name="New").exists()


def test_undo_without_a_restore(family):
    with pytest.raises(CommandError, match="no restore to undo"):
        command("restore", "--undo", "--no-input")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x.zip", "--undo"],
        ["--undo", "--dry-run"],
        ["--undo", "--clear"],
        ["--undo", "--only", "entries"],
        ["x.zip", "--only", "entry"],
        ["x.zip", "--only", ","],
        ["/nowhere.zip", "--no-input"],
    ],
)
def test_restore_of_nothing_sensible(family, arguments):
    with pytest.raises(CommandError):
        command("restore", *arguments)


def test_only_some_parts(saved):
    path, before = saved
    User.objects.filter(username="grandma").update(password="new")
    now = snapshot()
    preview = command("restore", path, "--dry-run", "--clear", "--only", "entries,settings")
    assert "Only entries and settings; accounts here stay as they are." in preview
    assert "auth.user" not in preview
    command("restore", path, "--clear", "--no-input", "--only", "Settings,entries")
    assert not differences({**before, "auth.user": now["auth.user"]}, snapshot())


def test_undo_takes_no_file(saved):
    path, _ = saved
    now = snapshot()
    with pytest.raises(CommandError, match="--undo takes no FILE"):
        command("restore", path, "--undo", "--no-input")
    assert not differences(now, snapshot())


def test_restore_of_what_is_no_backup(family, tmp_path):
    path = tmp_path / "b.zip"
    path.write_bytes(b"hello")
    result = manage("restore", path, "--no-input")
    assert result.returncode == 1
    assert result.stderr.decode().splitlines()[-1].startswith("CommandError: ")
    assert "Traceback" not in result.stderr.decode()


# --- All of them ------------------------------------------------------------------------------------------


def into_a_closed_pipe(*arguments):
    """As `| head -0` does: whoever reads the output is gone before any of it is there."""
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run(
            [sys.executable, "manage.py", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(write)


@pytest.mark.skipif(os.name == "nt", reason="pipes are POSIX's")
def test_nobody_reads_the_output(saved, tmp_path):
    path, before = saved
    for arguments in (
        ["restore", path, "--dry-run"],
        ["verify_backup", path],
        ["backup", "--output", "-"],
        ["backup", "--output", tmp_path / "there.zip"],
        ["restore", path, "--clear", "--no-input"],
    ):
        result = into_a_closed_pipe(*arguments)
        assert "Traceback" not in result.stderr
        assert "Exception" not in result.stderr, arguments
        assert result.returncode == (1 if arguments[-1] == "-" else 0), arguments
    verified(tmp_path / "there.zip")
    assert not differences(before, snapshot())


def shell(line, *arguments):
    """Run `manage.py` by a shell: `"$@"` in the line stands for the interpreter and the arguments."""
    return subprocess.run(
        ["/bin/sh", "-c", line, "sh", sys.executable, "manage.py", *map(str, arguments)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("end", [">&-", "2>&-", ">&- 2>&-", ">/dev/full", "2>/dev/full", "<&-"])
def test_what_is_done_is_done_although_it_cannot_be_told(saved, tmp_path, end):
    path, before = saved
    result = shell(f'"$@" {end}', "backup", "--output", tmp_path / "there.zip")
    assert (result.returncode, "Traceback" in result.stderr) == (0, False), result.stderr
    assert verified(tmp_path / "there.zip")
    result = shell(f'"$@" {end}', "restore", path, "--clear", "--no-input")
    assert (result.returncode, "Traceback" in result.stderr) == (0, False), result.stderr
    assert not differences(before, snapshot())
    if end == ">/dev/full":
        assert "No space left" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("end", [">&-", ">/dev/full"])
def test_a_backup_that_has_nowhere_to_go_is_an_error_in_words(family, end):
    result = shell(f'"$@" {end}', "backup", "--output", "-")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("CommandError: "), line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_what_was_asked_for_and_cannot_be_shown_is_an_error(saved):
    for arguments in (["restore", saved[0], "--dry-run"], ["backups", "--json"]):
        result = shell('"$@" >/dev/full', *arguments)
        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        assert "No space left" in line


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="no /dev/stdin")
def test_a_backup_comes_through_a_pipe(saved):
    path, before = saved
    for arguments in (["verify_backup"], ["prove_backup"], ["restore", "--clear", "--no-input"]):
        name, *options = arguments
        result = shell(f'cat "{path}" | "$@"', name, "/dev/stdin", *options)
        assert (result.returncode, result.stderr) == (0, ""), arguments
    assert not differences(before, snapshot())


def test_quiet(saved, tmp_path):
    """What was asked for is still shown: a dry run's result."""
    path, _ = saved
    for arguments in (
        ["backup", "--output", tmp_path],
        ["verify_backup", path],
        ["restore", path, "--clear", "--no-input"],
        ["restore", "--undo", "--no-input"],
    ):
        assert command(*arguments, "-v0") == ""
    assert "core.child" in command("restore", path, "--dry-run", "-v0")
    result = manage("backup", "--output", "-", "-v0")
    assert services.verify_backup(io.BytesIO(result.stdout))
    assert result.stderr == b""


def test_the_label_is_shown(family, tmp_path):
    path = tmp_path / "b.zip"
    command("backup", "--output", path, "--label", "before\x1b[31m the update")
    for arguments in (["verify_backup", path], ["restore", path, "--dry-run"]):
        out = command(*arguments)
        assert "the update" in out
        assert "\x1b" not in out, "nothing for the terminal to carry out"


# --- verify_backup ----------------------------------------------------------------------------------------


def test_verify_needs_no_database(saved, tmp_path):
    path, _ = saved
    none = {"DATABASE_URL": f"sqlite:///{tmp_path}/nowhere/db.sqlite3"}
    result = manage("verify_backup", path, **none)
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"is whole" in result.stdout


def test_verify_a_damaged_file(saved):
    path, _ = saved
    path.write_bytes(spoiled(path.read_bytes()))
    result = manage("verify_backup", path)
    assert result.returncode == 1
    assert result.stderr.decode().splitlines()[-1].startswith("CommandError: ")
    assert "Traceback" not in result.stderr.decode()


def test_what_takes_ascii_only_shows_other_characters_as_codes(family, tmp_path):
    path = tmp_path / "größe.zip"
    with path.open("w+b") as file:
        services.create_backup(file, label="für 🍼")
    result = manage("verify_backup", path, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (result.returncode, result.stderr) == (0, b"")
    assert rb"f\xfcr" in result.stdout


def test_a_file_that_was_edited_is_told_the_switch(saved):
    path, _ = saved
    members = unpacked(io.BytesIO(path.read_bytes()))
    members["core/child.json"] = members["core/child.json"].replace(b'"first_name":"', b'"first_name":"x', 1)
    path.write_bytes(packed(members).getvalue())
    with pytest.raises(CommandError, match=r"--edited\."):
        command("restore", path, "--no-input")
    command("restore", path, "--no-input", "--edited")
    assert Child.objects.filter(first_name__startswith="x").exists()


def test_data_of_the_same_version_was_brought_to_no_other(saved):
    path, _ = saved
    with path.open("rb") as file:
        metadata = services.verify_backup(file)
    same, others = metadata.babybuddy_version, ["core.0001_x"]
    assert restoring._upgrade_line(replace(metadata, upgraded=Upgrade(same, [], [], []))) == ""
    line = restoring._upgrade_line(replace(metadata, upgraded=Upgrade(same, others, [], [])))
    assert same not in line
    assert "core.0001_x" in line
    line = restoring._upgrade_line(replace(metadata, upgraded=Upgrade("1.9", others, [], [])))
    assert f"from Baby Buddy 1.9 to {same}" in line


def test_verify_nothing(tmp_path):
    with pytest.raises(CommandError, match="cannot be read"):
        command("verify_backup", tmp_path / "none.zip")


@pytest.mark.parametrize("has_switch", [True, False])
def test_only_a_switch_that_is_there_is_named(has_switch):
    class Command(BackupCommand):
        def add_arguments(self, parser):
            if has_switch:
                parser.add_argument("--leave-out", action="store_true")

        def handle(self, **options):
            raise Unreadable("The notes of Mia cannot be read.")

    with pytest.raises(CommandError, match="The notes of Mia") as caught:
        call_command(Command())
    assert ("add --leave-out." in str(caught.value)) == has_switch
    assert ("To go on" in str(caught.value)) == has_switch


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BACKUP_LOCATIONS", "nowhere"),
        ("BACKUP_LOCATIONS", {"nas": "gopher://host/x"}),
        ("BACKUP_LOCATIONS", {"nas": "sftp://host/x"}),  # without its library
        ("BACKUP_PROVE", "yes"),
        ("BACKUP_KEEP", "last=0"),
        ("BACKUP_SCHEDULE", "dayly"),
        ("BACKUP_SAFETY_COPIES", 0),
        ("BACKUP_KEY", "no key"),
        ("BACKUP_NOTIFY", "somebody"),
    ],
)
def test_what_is_wrong_with_copies_stops_no_restore(
    family, settings, monkeypatch, tmp_path, capsys, name, value
):
    """Nor `migrate`, with which a container starts: both stop at errors of the checks. It is named all the same."""
    call_command("backup", output=str(tmp_path / "x.zip"))
    before = snapshot()
    monkeypatch.setitem(sys.modules, "paramiko", None)
    setattr(settings, name, value)
    call_command("check")
    assert name in (said := capsys.readouterr().err) or "“nas”" in said
    for arguments, options in (([str(tmp_path / "x.zip")], {"clear": True}), ([], {"undo": True})):
        Child.objects.all().delete()
        now = snapshot()
        call_command("restore", *arguments, interactive=False, skip_checks=False, **options)
        assert not differences(before, snapshot())
        before = now


def test_a_restore_without_a_setting_that_it_needs_changes_nothing(family, settings, tmp_path):
    """Whether the safety copy may lie there in clear is not known."""
    call_command("backup", output=str(tmp_path / "x.zip"))
    Child.objects.all().delete()
    before = snapshot()
    settings.BACKUP_ENCRYPT = "lcoal"
    with pytest.raises(CommandError, match="BACKUP_ENCRYPT names lcoal"):
        call_command("restore", str(tmp_path / "x.zip"), interactive=False, clear=True, skip_checks=False)
    assert not differences(before, snapshot())

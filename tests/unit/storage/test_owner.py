"""Whose the files are that root makes, and what is said where the server's user cannot write."""

import io
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.core.files.base import ContentFile
from django.core.management import CommandError, call_command
from django.db import connection

from backup import services
from backup.conf import conf
from backup.database import Job, database_of
from backup.exceptions import StorageFailed
from backup.storage import files, kept, owner

pytestmark = pytest.mark.skipif(
    os.name == "nt" or os.geteuid() != 0, reason="only root can give files away, and become somebody else"
)
#: The server's user, and somebody else.
SERVER, OTHER = 33, 4242


@pytest.fixture
def data(host_db, settings, monkeypatch):
    """A folder with the data of a site that is not root's, and BACKUP_ROOT in it, which is not there yet."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "media").mkdir()
    for place in (folder, folder / "media"):
        os.chown(place, SERVER, SERVER)
    files.site_id()  # which asks the database, as another user could not
    monkeypatch.setattr(owner, "data_places", lambda: [folder / "media"])
    settings.BACKUP_ROOT = folder / "backups"
    yield folder
    shutil.rmtree(folder)


@contextmanager
def acting_as(user):
    os.setegid(user)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def owners(folder):
    return {path.stat().st_uid for path in [folder, *folder.rglob("*")]}


def test_what_a_command_of_root_makes_is_the_servers(data):
    call_command("backup", keep=True, verbosity=0, stdout=io.StringIO())
    call_command("backup", verbosity=0, stdout=io.StringIO())
    (backup,) = kept.backups()
    assert owners(conf.root) == {SERVER}
    with acting_as(SERVER):
        files.put("staged/x.zip", ContentFile(b"x"))
        files.put_json(kept.parse(backup.name).facts, {"pinned": True})
        kept.delete(backup.name)


def test_what_root_made_before_is_given_away_too(data):
    site = conf.root / files.path_of("")
    (site / "kept").mkdir(parents=True)
    outside = data / "outside"
    outside.write_text("root's")
    (site / "kept" / "link").symlink_to(outside)
    os.link(outside, site / "kept" / "hard")
    with acting_as(SERVER), pytest.raises(StorageFailed, match="cannot write") as caught:
        files.put("kept/x.json", ContentFile(b"x"))
    for part in (str(conf.root), "www-data", "sudo mkdir -p", "chown -R"):
        assert part in caught.value.message
    files.put("last/x.json", ContentFile(b"x"))
    assert outside.stat().st_uid == 0, "links are not followed"
    with acting_as(SERVER):
        files.put("kept/x.json", ContentFile(b"x"))
    assert stat.S_IMODE((site / "kept").stat().st_mode) & 0o077 in (0, 0o055)


def test_a_folder_that_the_server_cannot_write_is_told_by_check(data, settings):
    """Run by root, and by whoever else, it speaks of the server's user."""

    def told():
        return [message for message in run_checks() if message.id == "backup.W001"]

    assert told() == []
    settings.BACKUP_ROOT = data / "roots" / "backups"
    (data / "roots").mkdir(mode=0o755)
    for user in (0, OTHER, SERVER):
        with acting_as(user):
            (warning,) = told()
        assert f"“www-data”, whom Baby Buddy runs as, cannot write into the folder {conf.root}" in warning.msg
        assert f"sudo mkdir -p {conf.root} && sudo chown -R www-data {conf.root}" in warning.msg
    with acting_as(SERVER), pytest.raises(CommandError, match="chown -R www-data"):
        call_command("backup", verbosity=0)
    os.chown(data / "roots", 0, SERVER)
    (data / "roots").chmod(0o770)
    assert told() == [], "by its group"
    data.chmod(0o700)
    os.chown(data, OTHER, OTHER)
    assert len(told()) == 1, "it cannot come as far as there"


@pytest.mark.parametrize("below", ["", "below"])
def test_a_file_in_place_of_the_folder_is_told_as_such(data, settings, client, below):
    file = data / "file"
    file.write_text("somebody's")
    settings.BACKUP_ROOT = file / below
    told = [message.msg for message in run_checks() if message.id == "backup.W001"]
    client.force_login(User.objects.get())
    told.append(client.get("/backup/").content.decode())
    for arguments in ({"keep": True}, {"automatic": True, "now": True}, {}):
        with pytest.raises(CommandError) as caught:
            call_command("backup", verbosity=0, **arguments)
        told.append(str(caught.value))
    assert len(told) == 5
    for text in told:
        assert f"{file} is a file" in text
        assert "mkdir" not in text
    assert file.read_text() == "somebody's"


def test_the_page_says_so_before_anything_fails(data, settings, client):
    admin = User.objects.get()
    client.force_login(admin)
    assert "chown" not in client.get("/backup/").content.decode()
    settings.BACKUP_ROOT = data / "roots" / "backups"
    (data / "roots").mkdir(mode=0o755)
    with acting_as(SERVER), pytest.raises(StorageFailed, match="www-data"):
        services.check_storage()
    settings.BACKUP_ROOT = "/dev/null/backups"
    assert "/dev/null is a file" in client.get("/backup/").content.decode()


def test_a_folder_around_it_that_the_server_may_not_enter(data, settings):
    around = data / "roots"
    (around / "backups").mkdir(mode=0o700, parents=True)
    around.chmod(0o700)
    settings.BACKUP_ROOT = around / "backups"
    with acting_as(SERVER), pytest.raises(StorageFailed, match="chown"), files.storage_errors():
        os.listdir(conf.root)


def test_data_of_root_is_roots(host_db):
    services.keep_backup()
    assert owners(conf.root) == {0}
    assert owner.can_write(conf.root)


def test_the_lock_of_a_command_of_root_is_one_for_the_server(host_db):
    """SQLite takes no lock of a file that it cannot write, and does not say so."""
    if connection.vendor != "sqlite":
        pytest.skip("a file is locked")
    database = Path(connection.settings_dict["NAME"])
    lock = Path(f"{database}-restoring")
    lock.unlink(missing_ok=True)
    os.chown(database, SERVER, SERVER)
    try:
        for _ in range(2):
            with database_of().lock(Job.RESTORE):
                pass
            assert lock.stat().st_uid == SERVER
            os.chown(lock, 0, 0)  # of an earlier version
        database.parent.chmod(0o755)
        with (
            acting_as(SERVER),
            pytest.raises(StorageFailed, match="another user"),
            database_of().lock(Job.RESTORE),
        ):
            pass
    finally:
        database.parent.chmod(0o700)
        lock.unlink()
        os.chown(database, 0, 0)

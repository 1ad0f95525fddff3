"""Two sites with one BACKUP_ROOT: what one keeps there, the other does not see."""

import datetime as dt
import shutil
from pathlib import Path

import pytest
from core import models as core
from django.contrib.auth.models import User
from django.db import connection, connections
from django.db.migrations.recorder import MigrationRecorder

from backup import services
from backup.automatic import run
from backup.conf import conf
from backup.database import Job, database_of, memo
from backup.exceptions import KeyNeeded, NoSuchBackup
from backup.storage import kept, keys, state, uploads
from backup.storage.kept import BackupKind
from tests.support.backups import restore, take
from tests.support.processes import ask, process
from tests.support.snapshots import snapshot

OTHER = """
    import sys
    from django.contrib.auth.models import User
    from backup import services
    from backup.automatic import run
    from backup.exceptions import BackupError
    from backup.storage import kept, state, uploads

    user = User.objects.get(username="admin")
    for line in sys.stdin:
        what, *rest = line.split()
        try:
            if what == "run":
                answer = run.run(now=True).made
            elif what == "list":
                answer = [copy.name for copy in services.kept_backups()]
            elif what == "undo":
                answer = services.undo_restore(safety_copy=rest[0] if rest else None).records
            elif what == "delete":
                answer = kept.delete(rest[0])
            elif what == "last":
                answer = state.load_last_backup(), state.newest_progress(user)
        except BackupError as error:
            answer = error.code
        print(answer, flush=True)
"""


@pytest.fixture
def other(family, tmp_path, monkeypatch):
    """Another site, in another process: a copy of this one's database in the same folder, under another name."""
    if connection.vendor != "sqlite":
        pytest.skip("two files in one folder")
    with open(connection.settings_dict["NAME"], "rb") as file:
        copy = Path(connection.settings_dict["NAME"]).with_name("other.sqlite3")
        copy.write_bytes(file.read())
    with monkeypatch.context() as patch:
        patch.setenv("DATABASE_URL", f"sqlite:///{copy}")
        with process(OTHER) as child:
            yield child
    copy.unlink()


def test_another_sites_backups_are_not_seen(family, other):
    admin = User.objects.get(username="admin")
    name = restore(take(), clear=True).safety_copy
    services.note_backup(services.create_backup(take()), admin)
    state.save_progress(uploads.new_id(admin), admin, {"phase": "check"})
    assert ask(other, "list") == "[]"
    assert ask(other, "undo") == "no_safety_copy"
    assert ask(other, f"undo {name}") == "no_such_backup"
    assert ask(other, f"delete {name}") == "no_such_backup"
    assert ask(other, "last") == "(None, None)"
    assert [copy.name for copy in kept.backups()] == [name]
    assert state.load_last_backup() is not None
    assert state.newest_progress(admin) is not None


def test_two_sites_make_automatic_backups_side_by_side(family, other):
    """In one folder, at one time: each has its own lock, its own list and its own moment of the next one."""
    with database_of().lock(Job.AUTOMATIC_BACKUP):
        assert ask(other, "run") == "True"
    assert kept.names(BackupKind.AUTOMATIC) == []
    assert run.run(now=True).made
    assert len(kept.names(BackupKind.AUTOMATIC)) == 1
    assert len([*conf.root.glob("automatic_*.json")]) == 2


@pytest.fixture
def made_anew(family, monkeypatch):
    """A function after which the database is one that was just made: nobody's child in it, and another site."""
    migrations = MigrationRecorder(connection).migration_qs
    first = migrations.order_by("pk").first()

    def make():
        migrations.filter(pk=first.pk).update(applied=first.applied + dt.timedelta(days=1))
        monkeypatch.setattr(memo, "_sites", {})
        core.Child.objects.all().delete()

    yield make
    migrations.filter(pk=first.pk).update(applied=first.applied)


def test_a_database_that_was_made_anew_is_offered_what_was_kept(family, made_anew, client):
    then = snapshot()["core.feeding"]
    names = [services.keep_backup(label=label).name for label in ("first", "second")]
    assert services.backups_for_an_empty_site(family.admin, most=3) == [], "it is not empty"
    made_anew()
    services.keep_backup(label="of nothing")
    assert names[0] not in [backup.name for backup in kept.backups()]
    offered = services.backups_for_an_empty_site(family.admin, most=3)
    assert [backup.name for backup in offered] == names[::-1]
    assert services.backups_for_an_empty_site(family.staff, most=3) == [], "it may be another family's"
    with pytest.raises(NoSuchBackup):
        services.open_kept(names[0], family.staff)
    client.force_login(family.admin)
    page = client.get("/backup/").content.decode()
    assert page.index("This Baby Buddy is empty") < page.index(names[1]) < page.index('id="state-title"')
    fields = {"kept": names[1], "clear_existing_data": "true"}
    assert (
        "What this backup would do" in client.post("/backup/restore/", fields, follow=True).content.decode()
    )
    result = client.post("/backup/restore/confirm/", fields, headers={"Accept": "application/json"})
    assert result.status_code == 200
    assert snapshot()["core.feeding"] == then
    with pytest.raises(NoSuchBackup):
        services.open_kept(names[0], family.admin)


def test_without_its_key_what_was_kept_beside_is_no_download(family, made_anew, settings):
    settings.BACKUP_ENCRYPT = ["local"]
    keys.add()
    name = services.keep_backup().name
    made_anew()
    (conf.root / "keys.json").unlink()
    with pytest.raises(KeyNeeded):
        services.open_whole(name, family.admin)


def test_an_emptied_site_is_offered_its_own(family, client):
    name = services.keep_backup().name
    core.Child.objects.all().delete()
    for user in (family.admin, family.staff):
        assert [backup.name for backup in services.backups_for_an_empty_site(user, most=3)] == [name]


def test_a_site_is_the_same_wherever_its_database_lies(family, tmp_path, monkeypatch):
    """The folder was mounted elsewhere, the secret key is a new one."""
    if connection.vendor != "sqlite":
        pytest.skip("a file that is moved")
    name = restore(take(), clear=True).safety_copy
    moved = tmp_path / Path(connection.settings_dict["NAME"]).name
    connections.close_all()
    shutil.copyfile(connection.settings_dict["NAME"], moved)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{moved}")
    monkeypatch.setenv("SECRET_KEY", "another")
    with process(OTHER) as child:
        assert ask(child, "list") == str([name])
        assert int(ask(child, "undo"))

"""Two sites with one BACKUP_ROOT: what one keeps there, the other does not see."""

import shutil
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections

from backup import services
from backup.storage import kept, state, uploads
from tests.support.backups import restore, take
from tests.support.processes import ask, process

OTHER = """
    import sys
    from django.contrib.auth.models import User
    from backup import services
    from backup.exceptions import BackupError
    from backup.storage import kept, state, uploads

    user = User.objects.get(username="admin")
    for line in sys.stdin:
        what, *rest = line.split()
        try:
            if what == "list":
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

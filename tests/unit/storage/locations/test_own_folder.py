"""No location is BACKUP_ROOT itself, by whatever way that is reached: copies there would be none."""

import pytest

from backup import services
from backup.automatic import copies
from backup.conf import conf
from backup.exceptions import WrongAddress
from backup.storage import elsewhere, files, kept
from backup.storage.elsewhere import State

from .conftest import SERVERS


@pytest.fixture(params=SERVERS)
def own(request, remote, settings, tmp_path, family):
    """A location that is the place of the backups, as seen by a server."""
    there = remote(request.param)
    if there.kind == "s3":
        backend = {"BACKEND": "storages.backends.s3.S3Storage"}
        backend["OPTIONS"] = {
            "bucket_name": "backups",
            "location": f"{tmp_path.name}/a b",
            "endpoint_url": there.server.endpoint,
            "access_key": there.server.key,
            "secret_key": there.server.secret,
        }
        settings.STORAGES = {**settings.STORAGES, "backups": backend}
    else:
        folder = tmp_path if there.kind == "sftp" else there.server.folder / tmp_path.name
        settings.BACKUP_ROOT = str(folder / "a b")
    return there.place


def content():
    names = files.names_in(files.KEPT) + files.names_in(files.PHOTOS)
    return {name: files.read_file(name) for name in names}


def test_a_server_that_has_the_backups_themselves_is_refused(own):
    made = services.keep_backup()
    kept.change(made.name, lambda facts: {**facts, "label": "before the update"})
    before = content()
    with pytest.raises(WrongAddress, match=r"“there”: Its folder is that of the backups themselves"):
        own.test()
    copies.copy()
    seen = elsewhere.seen()["there"]
    assert (seen.state, [*seen.copies]) == (State.FAILED, [])
    assert "a copy there would be none" in seen.message
    assert content() == before
    assert files.names_in(files.RESTORES) == files.names_in("test") == []


def test_a_copy_of_the_backups_is_another_place(remote, tmp_path, settings, family):
    """Somebody may have copied BACKUP_ROOT there by other means before."""
    there = remote("sftp")
    services.keep_backup()
    (tmp_path / "a b").mkdir()
    for path in conf.root.rglob("*"):
        copy = tmp_path / "a b" / path.relative_to(conf.root)
        copy.mkdir() if path.is_dir() else copy.write_bytes(path.read_bytes())
    there.place.test()
    copies.copy()
    assert elsewhere.seen()["there"].state is State.OK

"""The storage `backups` on S3, for several machines: all that BACKUP_ROOT does, and whatever S3 says is `StorageFailed`
with nothing changed."""

import io

import pytest
from core import models as core
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.management import call_command
from django.test import Client

from backup import services
from backup.exceptions import StorageFailed
from backup.storage import content, files, kept, keys, uploads
from backup.storage.kept import BackupKind
from tests.support import servers
from tests.support.backups import restore, take
from tests.support.http import script, url
from tests.support.snapshots import differences, snapshot


@pytest.fixture(scope="session")
def s3_server():
    with servers.s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_server, family, settings):
    """The server, and `s3.use(…)`: the storage `backups` on it, by way of a proxy."""
    s3_server.reset()
    proxy = servers.Proxy(s3_server.port)
    s3_server.proxy = proxy

    def use(bucket="backups", key=s3_server.key, secret=s3_server.secret, **more):
        import botocore.config

        options = {
            "bucket_name": bucket,
            "endpoint_url": f"http://127.0.0.1:{proxy.port}",
            "region_name": "us-east-1",
            "access_key": key,
            "secret_key": secret,
            "client_config": botocore.config.Config(retries={"total_max_attempts": 1}),
            **more,
        }
        backend = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
        settings.STORAGES = {**settings.STORAGES, "backups": backend}
        content._remembered.cache_clear()  # as in another process

    s3_server.use = use
    use()
    yield s3_server
    proxy.close()


@pytest.fixture
def admin(family):
    return User.objects.get(username="admin")


pytestmark = pytest.mark.filterwarnings(
    # django-storages closes no connection.
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::ResourceWarning",
)


def test_all_that_the_folder_does(s3, admin, client, settings, tmp_path):
    """Keep, list, pin, download, preview, restore, undo, delete, keys; and nothing lies on this machine."""
    before = snapshot()
    call_command("backup", keep=True, label="by hand", verbosity=0)
    stored = services.kept_backups()[0]
    assert (stored.kind, stored.label, stored.records > 0) == (BackupKind.MANUAL, "by hand", True)
    kept.pin(stored.name, True)
    assert services.kept_backups()[0].pinned
    http = script(admin)
    response = http.get(url("kept", stored.name))
    whole = b"".join(response.streaming_content)
    assert len(whole) == stored.size
    services.verify_backup(io.BytesIO(whole))
    core.Note.objects.all().delete()
    emptied = snapshot()
    preview = http.post(url("restore"), {"kept": stored.name}).json()
    result = http.post(url("confirm"), {"upload": preview["upload"], "kept": stored.name})
    assert result.status_code == 200, result.content
    assert not differences(before, snapshot())
    assert http.post(url("undo")).status_code == 200
    assert not differences(emptied, snapshot())
    upload_id = uploads.stage(ContentFile(whole), admin)
    with uploads.open_staged(upload_id, admin) as file:
        assert file.read() == whole
    key = keys.add().key
    assert keys.current().key == key
    kept.pin(stored.name, False)
    assert http.post(url("kept_delete", stored.name)).status_code in (200, 204)
    assert stored.name not in [backup.name for backup in services.kept_backups()]
    call_command("backup", automatic=True, now=True, verbosity=0)
    newest = services.kept_backups()[0]
    assert newest.kind is BackupKind.AUTOMATIC
    assert http.get(url("status")).json()["last"]["records"] == newest.records
    assert [path for path in (tmp_path, *files.conf.root.rglob("*.zip")) if path.suffix == ".zip"] == []


TROUBLE = {
    "down": lambda s3: s3.proxy.close(),
    "no such bucket": lambda s3: s3.use(bucket="nobodys"),
    "cut": lambda s3: s3.proxy.bad(0),
}


def fails_and_changes_nothing(admin, file):
    """Whatever needs the storage is `StorageFailed`, 507 on a page; the page, the status and a download answer."""
    http, browser = script(admin), Client()
    browser.force_login(admin)
    now = snapshot()
    for act in (
        lambda: restore(file, clear=True),
        services.kept_backups,
        lambda: services.undo_restore(),
        lambda: uploads.stage(ContentFile(b"x"), admin),
    ):
        with pytest.raises(StorageFailed):
            act()
    file.seek(0)
    answers = {
        507: [http.post(url("restore"), {"backup_file": file}), http.post(url("run"))],
        200: [browser.get(url("index")), http.get(url("status")), http.get(url("download"))],
    }
    for status, found in answers.items():
        assert [answer.status_code for answer in found] == [status] * len(found)
        for answer in found:
            if answer.streaming:
                services.verify_backup(io.BytesIO(b"".join(answer.streaming_content)))
    assert not differences(now, snapshot())


@pytest.mark.parametrize("trouble", TROUBLE)
def test_what_goes_wrong(s3, admin, trouble, caplog):
    file = take()
    restore(file, clear=True)
    TROUBLE[trouble](s3)
    fails_and_changes_nothing(admin, file)
    assert s3.secret not in caplog.text


def test_denied(s3, admin):
    file = take()
    restore(file, clear=True)
    with s3.user_who_may("ListBucket") as (key, secret):
        s3.use(key=key, secret=secret)
        now = snapshot()
        with pytest.raises(StorageFailed):
            restore(file, clear=True)
        assert not differences(now, snapshot())
    with s3.user_who_may("PutObject") as (key, secret):
        s3.use(key=key, secret=secret)
        fails_and_changes_nothing(admin, file)


@pytest.mark.parametrize("overwrites", [True, False])
def test_a_write_that_fails_loses_nothing(s3, overwrites):
    """A bucket that takes nothing more may still allow that files are deleted."""
    s3.use(file_overwrite=overwrites)
    stored = restore(take(), clear=True).safety_copy
    kept.pin(stored, True)
    keys.add()
    ring = keys.ring()
    with s3.user_who_may("ListBucket", "GetObject", "DeleteObject") as (key, secret):
        s3.use(key=key, secret=secret, file_overwrite=overwrites)
        for write in (keys.add, lambda: kept.pin(stored, False)):
            with pytest.raises(StorageFailed):
                write()
    s3.use(file_overwrite=overwrites)
    assert keys.ring() == ring
    assert kept.backups()[0].pinned
    keys.add()
    assert len(keys.ring()) == len(ring) + 1
    kept.pin(stored, False)
    assert not kept.backups()[0].pinned


def test_cut_in_the_middle_of_an_upload(s3, admin):
    """Of the safety copy, say: no restore without it; and no half file has its name."""
    core.Note.objects.bulk_create(
        core.Note(child=core.Child.objects.first(), note=f"{number * 7919 % 1000003}" * 40)
        for number in range(4000)
    )
    file, now = take(), snapshot()
    size = file.seek(0, 2)
    file.seek(0)
    s3.proxy.bad(size // 2)
    with pytest.raises(StorageFailed):
        restore(file, clear=True)
    assert not differences(now, snapshot())
    s3.proxy.limit = None
    assert services.kept_backups() == []
    restore(file, clear=True)


def test_cut_in_the_middle_of_a_download(s3, admin):
    core.Note.objects.bulk_create(
        core.Note(child=core.Child.objects.first(), note=f"{number * 7919 % 1000003}" * 40)
        for number in range(4000)
    )
    restore(take(), clear=True)
    stored, now = services.kept_backups()[0], snapshot()
    s3.proxy.bad(stored.size // 2, towards_client=True)
    with pytest.raises(StorageFailed):
        services.undo_restore(safety_copy=stored.name)
    s3.proxy.bad(stored.size // 2, towards_client=True)
    answer = script(admin).get(url("kept", stored.name))
    assert answer.status_code == 507
    assert not differences(now, snapshot())
    s3.proxy.limit = None
    services.undo_restore()

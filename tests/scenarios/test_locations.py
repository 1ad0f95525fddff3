"""One automatic run, and copies lie in all four kinds of location, encrypted, by themselves; each is fetched back from
there, opened by other tools, and restored where nothing is known but the key."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from core import models as core
from django.core import mail
from django.test import Client

from backup import services
from backup.archive import Key
from backup.automatic import run, status
from backup.conf import conf
from backup.database import memo
from backup.options import RestoreMode, RestoreOptions
from backup.proof import Verdict
from backup.storage import elsewhere, kept, keys
from backup.storage.locations import location
from tests.support import servers
from tests.support.http import script, upload, url
from tests.support.matrices import again
from tests.support.photos import files, picture, put
from tests.support.snapshots import differences, snapshot

KINDS = ("nas", "cloud", "sftp", "nextcloud")


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """The addresses of a folder and of three servers, and a proxy before each server."""
    folder = tmp_path_factory.mktemp("servers")
    with (
        servers.s3_server() as s3,
        servers.dav_server(folder / "dav") as dav,
        servers.ssh_server(folder / "ssh") as ssh,
    ):
        proxies = {
            "cloud": servers.Proxy(s3.port),
            "sftp": servers.Proxy(ssh.port),
            "nextcloud": servers.Proxy(dav.port),
        }
        ssh.knows(proxies["sftp"].port)

        def fresh(name):
            s3.reset()
            (dav.folder / name).mkdir()
            (folder / name).mkdir()
            return {
                "nas": str(folder / name / "nas"),
                "cloud": s3.address(prefix=f"/{name}", port=proxies["cloud"].port),
                "sftp": ssh.address(f"{folder}/{name}/sftp", port=proxies["sftp"].port),
                "nextcloud": dav.address(f"/{name}/babybuddy", port=proxies["nextcloud"].port),
            }

        yield fresh, proxies
        for proxy in proxies.values():
            proxy.close()


@pytest.fixture
def site(four, filled, settings, tmp_path):
    """A family's site with a key, and the four locations."""
    fresh, proxies = four
    for proxy in proxies.values():
        proxy.is_down = False
    settings.BACKUP_LOCATIONS = fresh(tmp_path.name)
    settings.BACKUP_SCHEDULE = "daily"
    settings.BACKUP_PROVE = "off"
    mail.outbox = []
    keys.add()
    return proxies


#: What must be in no page, log or message.
SECRETS = ("se%2Fcr%2Bet", "se/cr+et", servers.PASSWORD, "p%2Fa%3Fs")


def secrets():
    return [*SECRETS, str(Path(conf.locations["nas"]).parent)]


def fetched(name, folder):
    """The copy in a location, as a file."""
    (copy,) = elsewhere.seen()[name].copies
    path = folder / f"{name}.zip"
    with location(name).fetch(f"kept/{copy}") as file:
        path.write_bytes(file.read())
    return path


@pytest.mark.slow
def test_it_lands_encrypted_in_all_four_and_comes_back(site, tmp_path, caplog):
    key = keys.current().key
    before = snapshot()
    made = run.run().backup
    states = {seen["name"]: seen for seen in status.status().as_json()["locations"]}
    assert {name: seen["state"] for name, seen in states.items()} == dict.fromkeys(KINDS, "ok"), states
    assert kept.find(made.name).locations == ("local", *KINDS)
    assert not kept.find(made.name).encrypted, "it is in clear here"
    core.Note.objects.all().delete()
    kept.delete_here(made)
    for name in KINDS:
        path = fetched(name, tmp_path)
        assert b"core/child" not in path.read_bytes().replace(b"core/child.json", b"")
        for tool in (
            ["7z", "t", f"-p{key.text}", str(path)],
            ["bsdtar", "-xOf", str(path), "--passphrase", key.text, "metadata.json"],
        ):
            if shutil.which(tool[0]) is None:
                servers.missing(tool[0])
            done = subprocess.run(tool, capture_output=True, check=True)
            if tool[0] == "bsdtar":
                assert json.loads(done.stdout)["total_records"] == made.records
        with kept.open_backup(made.name, name) as file:
            services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR))
        assert not differences(before, snapshot()), name
    assert services.prove_kept(made.name, place="nextcloud").verdict is Verdict.PROVED
    for secret in secrets():
        assert secret not in caplog.text
        assert secret not in json.dumps(status.status().as_json())
        for path in conf.root.rglob("*"):
            assert path.is_dir() or secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("down", ["cloud", "sftp", "nextcloud"])
def test_one_that_is_down_is_told_apart_and_delays_no_other(site, down):
    site[down].is_down = True
    made = run.run().backup
    seen = elsewhere.seen()
    assert {name: found.state.value for name, found in seen.items()} == {
        name: "failed" if name == down else "ok" for name in KINDS
    }
    assert down in seen[down].message
    assert "cannot be reached" in seen[down].message
    assert seen[down].next_try is not None
    assert kept.find(made.name).locations == ("local", *(name for name in KINDS if name != down))
    site[down].is_down = False
    elsewhere.ask_again()
    run.copy_again()
    assert kept.find(made.name).locations == ("local", *KINDS)


def test_page_and_api_without_local_file_and_servers(site, filled):
    made = run.run().backup
    kept.delete_here(made)
    for proxy in site.values():
        proxy.is_down = True
    shutil.rmtree(conf.locations["nas"])
    (name,) = (backup.name for backup in kept.backups())
    client = script(filled.admin)
    assert client.get(url("status")).json()["state"] == "ok"
    assert client.get(url("index")).json()["backups"][0]["locations"] == [*KINDS]
    for method, view in (("get", "kept"), ("post", "kept_prove")):
        answer = getattr(client, method)(url(view, name))
        assert answer.status_code in (200, 507), answer.content
        for secret in secrets():
            assert secret not in answer.content.decode()
    refused = client.post(url("restore"), {"kept": name})
    assert refused.status_code == 507
    browser = Client()
    browser.force_login(filled.admin)
    page = browser.get(url("index")).content.decode()
    for secret in secrets():
        assert secret not in page


def test_with_nothing_but_the_kit_on_another_host(site, tmp_path, django_db_setup, filled):
    """The file, taken out of a location by other means, and the key, typed in: by page, script and command."""
    text = keys.current().key.text
    run.run()
    before = snapshot()
    path = fetched("nextcloud", tmp_path)
    shutil.rmtree(conf.root)  # with the ring
    core.Child.objects.all().delete()
    answer = script(filled.admin).post(
        url("confirm"), {"backup_file": upload(path.read_bytes()), "clear_existing_data": "true"}
    )
    assert answer.json()["error"]["code"] == "key_needed"
    assert answer.json()["error"]["key_id"] == Key.parse(text).id
    answer = script(filled.admin).post(
        url("confirm"),
        {
            "backup_file": upload(path.read_bytes()),
            "clear_existing_data": "true",
            "key": text.lower().replace("-", " "),
        },
    )
    assert answer.status_code == 200, answer.content
    assert not differences(before, snapshot())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_down", [False, again(True)])
def test_photos_of_a_lost_server_come_from_each_kind_of_location(
    site, filled, settings, tmp_path, monkeypatch, kind, is_down
):
    """On a new server, which has nothing but the address, the file that somebody took from there, and the key."""
    settings.MEDIA_ROOT = tmp_path / "media"
    child = core.Child.objects.order_by("pk").first()
    core.Child.objects.filter(pk=child.pk).update(picture="child/picture/anna.png")
    core.Note.objects.create(child=child, note="ben", image="notes/images/ben.png")
    contents = {"child/picture/anna.png": picture(1), "notes/images/ben.png": picture(2)}
    for name, content in contents.items():
        put(name, content)
    text = keys.current().key.text
    run.run()
    data = fetched(kind, tmp_path).read_bytes()
    for folder in (conf.root, Path(settings.MEDIA_ROOT)):
        shutil.rmtree(folder)
    monkeypatch.setattr(memo, "_sites", dict.fromkeys(memo._sites, "0" * 12))
    settings.BACKUP_LOCATIONS = {kind: conf.locations[kind]}
    if is_down:
        if kind == "nas":
            shutil.rmtree(conf.locations[kind])
        else:
            site[kind].is_down = True
    fields = {"clear_existing_data": "true", "key": text}
    preview = script(filled.admin).post(url("restore"), {"backup_file": upload(data), **fields}).json()
    assert preview["photos"]["added"] == (0 if is_down else 2)
    assert any("cannot be reached" in line for line in preview["warnings"]) == (is_down and kind != "nas")
    result = script(filled.admin).post(url("confirm"), {"upload": preview["upload"], **fields}).json()
    assert files() == ({} if is_down else contents)
    assert result["photos"] == len(files())
    for secret in SECRETS:
        assert secret not in json.dumps([preview, result])

"""Encrypted backups from end to end: made, kept, restored, undone, upgraded, proved; and never in clear instead."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from core.models import Child
from django.core.management import CommandError, call_command

from backup import services
from backup.archive import Key
from backup.automatic import run as automatic
from backup.conf import conf
from backup.exceptions import EncryptionUnavailable, KeyNeeded, StorageFailed, WrongKey
from backup.options import RestoreMode, RestoreOptions
from backup.proof import Verdict
from backup.storage import content, kept, keys
from backup.storage.keys import Place
from tests.support import older
from tests.support.backups import encrypted
from tests.support.snapshots import differences, snapshot

CLEAR = RestoreOptions(RestoreMode.CLEAR)


@pytest.fixture
def key(family):
    return keys.add().key


def taken(**options):
    file = io.BytesIO()
    services.create_backup(file, encrypt=True, **options)
    return file


def is_encrypted(source):
    with zipfile.ZipFile(source) as archive:
        return all(info.flag_bits & 1 for info in archive.infolist() if info.filename != "README.txt")


def forget_keys():
    (conf.root / "keys.json").unlink()


def command(*arguments):
    out = io.StringIO()
    call_command(*map(str, arguments), stdout=out, stderr=io.StringIO())
    return out.getvalue()


# -- restoring ---


def test_it_comes_back_whole(key):
    before = snapshot()
    file = taken()
    assert is_encrypted(file)
    Child.objects.all().delete()
    result = services.restore_backup(file, CLEAR)
    assert differences(before, snapshot()) == []
    assert result.records


def test_on_another_site_with_nothing_but_the_key(key):
    file = taken()
    before = snapshot()
    forget_keys()
    keys.add()  # another one
    for work in (services.verify_backup, lambda source: services.inspect_backup(source, CLEAR)):
        with pytest.raises(KeyNeeded) as caught:
            work(file)
        assert caught.value.key_id == key.id
    with pytest.raises(WrongKey):
        services.restore_backup(file, CLEAR, key=Key.make())
    assert differences(before, snapshot()) == []
    Child.objects.all().delete()
    assert services.inspect_backup(file, CLEAR, key=key).refusal is None
    services.restore_backup(file, CLEAR, key=key)
    assert differences(before, snapshot()) == []


def test_an_older_key_of_the_ring(key):
    file = taken()
    assert keys.add().key != key
    assert services.verify_backup(file).key_id == key.id
    assert services.create_backup(io.BytesIO(), encrypt=True).key_id != key.id


def test_a_ring_that_cannot_be_read_is_no_matter_where_the_key_is_given(key):
    file = taken()
    (conf.root / "keys.json").write_text("{")
    with pytest.raises(StorageFailed):
        services.verify_backup(file)
    assert services.verify_backup(file, key=key).total_records


# -- what is kept on the server ---


def test_safety_copies_are_encrypted(key, settings):
    settings.BACKUP_ENCRYPT = ["local"]
    file = io.BytesIO()
    services.create_backup(file)
    assert not is_encrypted(file)  # a download
    Child.objects.all().delete()
    before = snapshot()
    services.restore_backup(file, CLEAR)
    (copy,) = kept.backups()
    assert (copy.encrypted, copy.key_id, copy.is_damaged) == (True, key.id, False)
    assert copy.records
    with kept.open_backup(copy.name) as source:
        assert is_encrypted(source)
    services.undo_restore()
    assert differences(before, snapshot()) == []
    for path in conf.root.rglob("*.zip"):
        assert is_encrypted(path)


def test_a_restore_whose_safety_copy_cannot_be_encrypted_is_refused(key, settings):
    settings.BACKUP_ENCRYPT = ["all"]
    file = taken()
    Child.objects.all().delete()
    before = snapshot()
    (conf.root / "keys.json").write_text("{")
    with pytest.raises(StorageFailed):
        services.restore_backup(file, CLEAR, key=key)
    forget_keys()
    with pytest.raises(EncryptionUnavailable):
        services.restore_backup(file, CLEAR, key=key)
    assert differences(before, snapshot()) == []
    assert kept.backups() == []


def test_nothing_falls_back_to_clear(family, settings, tmp_path):
    settings.BACKUP_ENCRYPT = ["download", "local"]
    target = io.BytesIO()
    for work in (
        lambda: services.create_backup(target),
        lambda: services.create_backup(target, place=Place.LOCAL),
        services.keep_backup,
    ):
        with pytest.raises(EncryptionUnavailable, match="there is no key"):
            work()
    assert target.getvalue() == b""
    with pytest.raises(CommandError, match="there is no key"):
        command("backup", "--output", tmp_path)
    assert [*tmp_path.glob("*.zip")] == [*conf.root.rglob("*.zip")] == []


def test_what_is_kept_is_listed_even_without_its_key(key, settings):
    settings.BACKUP_ENCRYPT = ["local"]
    made = services.keep_backup(label="before the holidays")
    assert (made.label, made.key_id) == ("before the holidays", key.id)
    ring = (conf.root / "keys.json").read_bytes()
    for broken in (lambda: forget_keys(), lambda: (conf.root / "keys.json").write_text("{")):
        content._remembered.cache_clear()
        broken()
        (listed,) = kept.backups()
        assert (listed.label, listed.key_id, listed.is_damaged) == ("", key.id, False)
        assert listed.size == made.size
        (conf.root / "keys.json").write_bytes(ring)
        assert kept.backups() == [made]  # it is not remembered that it was closed


def test_one_in_clear_is_no_safety_copy_where_they_are_to_be_encrypted(key, settings):
    plain = services.keep_backup()
    settings.BACKUP_ENCRYPT = ["local"]
    file = taken()
    result = services.restore_backup(file, CLEAR)
    assert result.safety_copy != plain.name
    assert kept.find(result.safety_copy).encrypted


def test_it_is_proved(key, settings):
    settings.BACKUP_ENCRYPT = ["all"]
    made = services.keep_backup()
    proof = services.prove_kept(made.name)
    assert (proof.verdict, proof.reason) == (Verdict.PROVED, "")
    assert proof.records == made.records
    forget_keys()
    proof = services.prove_kept(made.name)
    assert proof.verdict is Verdict.UNKNOWN  # the file may be as good as ever
    assert key.id in proof.reason


def test_automatic_backups(key, settings):
    """Made, read back, proved, compared with the one before; and one in clear is no substitute."""
    settings.BACKUP_SCHEDULE = "daily"
    settings.BACKUP_PROVE = "all"
    in_clear = automatic.run(now=True)
    assert in_clear.made
    settings.BACKUP_ENCRYPT = ["local"]
    first = automatic.run(now=True)
    assert first.made
    assert first.backup.encrypted
    assert kept.find(first.backup.name).proof["verdict"] == "proved"
    assert not automatic.run(now=True).made  # nothing has changed
    keys.add()
    assert not automatic.run(now=True).made
    Child.objects.all().delete()
    second = automatic.run(now=True)
    assert (second.made, second.backup.key_id) == (True, keys.current().key.id)
    assert second.backup.key_id != first.backup.key_id


# -- older backups ---


def test_an_older_one_stays_encrypted(host_db, monkeypatch):
    """What is made of it is encrypted with the same key, which the child is told by its standard input alone."""
    key = Key.make()
    file = encrypted(io.BytesIO((older.old("2.6.0") / "backup.zip").read_bytes()), key)
    with pytest.raises(KeyNeeded), services.at_todays_schema(file):
        pass
    started, popen = [], subprocess.Popen

    def watched(command, **options):
        started.append(json.dumps([command, options["env"]]))
        return popen(command, **options)

    monkeypatch.setattr(subprocess, "Popen", watched)
    with services.at_todays_schema(file, key=key) as backup:
        assert is_encrypted(backup)
        plan = services.inspect_backup(backup, CLEAR, key=key)
        services.restore_backup(backup, CLEAR, key=key)
    assert plan.metadata.upgraded.migrations
    (told,) = started
    assert key.text not in told
    assert Child.objects.exists()


# -- commands ---


def manage(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "manage.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


def test_the_kit(family):
    with pytest.raises(CommandError, match="no key yet"):
        command("backup_key")
    out = command("backup_key", "--new")
    key = keys.current().key
    assert key.text in out
    assert key.id in out
    assert str(conf.root) in out
    assert command("backup_key") == out
    assert command("backup_key", "--new") != out
    assert len(keys.ring()) == 2


def test_by_command(key, tmp_path):
    before = snapshot()
    path = Path(command("backup", "--encrypt", "--output", tmp_path / "elsewhere.zip").splitlines()[0])
    assert is_encrypted(path)
    assert "is whole" in command("verify_backup", path)
    forget_keys()
    for name in ("verify_backup", "restore"):
        with pytest.raises(CommandError, match=key.id):
            command(name, path)
    with pytest.raises(CommandError, match="not the key"):
        command("verify_backup", path, "--key", Key.make().text)
    with pytest.raises(CommandError, match="not a key"):
        command("verify_backup", path, "--key", "hunter2")
    typed = key.text.lower().replace("-", " ")
    assert "is whole" in command("verify_backup", path, "--key", typed)
    Child.objects.all().delete()
    assert "came back identical" in command("prove_backup", path, "--key", typed)
    with pytest.raises(CommandError, match="not the key"):
        command("prove_backup", path, "--key", Key.make().text)
    with pytest.raises(CommandError, match=key.id):
        command("compare_backups", path, path)
    assert "core.child" in command("compare_backups", path, path, "--key", typed)
    command("restore", path, "--dry-run", "--key", typed)
    command("restore", path, "--clear", "--no-input", "--key", typed)
    assert differences(before, snapshot()) == []


def test_the_key_is_asked_for_on_a_terminal(key, tmp_path, monkeypatch):
    command("backup", "--encrypt", "--output", tmp_path / "elsewhere.zip")
    forget_keys()
    asked = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("backup.management.base.getpass", lambda question: asked.append(question) or key.text)
    monkeypatch.setattr("builtins.input", lambda question: "yes")
    assert "is whole" in command("verify_backup", tmp_path / "elsewhere.zip")
    assert "records restored" in command("restore", tmp_path / "elsewhere.zip")
    assert all(key.id in question for question in asked)
    assert len(asked) == 2
    with pytest.raises(CommandError, match=key.id):
        command("restore", tmp_path / "elsewhere.zip", "--no-input")


def test_the_key_by_a_variable(key, tmp_path):
    command("backup", "--encrypt", "--output", tmp_path / "elsewhere.zip")
    forget_keys()
    done = manage("verify_backup", tmp_path / "elsewhere.zip", BACKUP_KEY=key.text)
    assert done.returncode == 0, done.stderr
    done = manage("verify_backup", tmp_path / "elsewhere.zip", BACKUP_KEY=Key.make().text)
    assert done.returncode == 1
    assert key.id in done.stderr


def test_undo_of_what_is_encrypted(key, settings):
    settings.BACKUP_ENCRYPT = ["local"]
    file = taken()
    Child.objects.all().delete()
    before = snapshot()
    services.restore_backup(file, CLEAR)
    forget_keys()
    settings.BACKUP_ENCRYPT = []
    with pytest.raises(CommandError, match=key.id):
        command("restore", "--undo", "--no-input")
    command("restore", "--undo", "--no-input", "--key", key.text)
    assert differences(before, snapshot()) == []

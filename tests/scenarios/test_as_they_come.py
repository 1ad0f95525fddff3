"""Files as people have them: unpacked, edited by hand, packed in something else, or another thing altogether."""

import bz2
import gzip
import io
import json
import lzma
import re
import tarfile

import pytest
from core import models as core
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.urls import reverse

from backup import services
from backup.exceptions import Forbidden, InvalidBackup
from backup.options import RestoreMode, RestoreOptions
from tests.support.backups import packed, take, unpacked
from tests.support.filling import fill
from tests.support.http import error_of, script, upload
from tests.support.snapshots import differences, snapshot

NOTE = "core/note.json"


@pytest.fixture
def plain_family(host_db):
    family = fill(days=1, children=1, odd=False)
    for model in (core.WeightPercentile, core.HeightPercentile):
        model.objects.all().delete()
    core.Note.objects.create(child=core.Child.objects.first(), note="Frist smile!")
    return family


# -- edited by hand ------------------------------------------------------------------------------------------


def by_hand(file, change, name=NOTE):
    """A backup with one member changed, and nothing else."""
    members = unpacked(file)
    members[name] = change(members[name])
    return packed(members)


def pretty(data):
    return json.dumps(json.loads(data), indent=2, ensure_ascii=False).encode()


#: Ways of editors: no value is another one.
EDITORS = {
    "a byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "CR LF": lambda data: data.replace(b"\n", b"\r\n"),
    "pretty-printed": pretty,
    "no last line break": lambda data: data.rstrip(),
    "one record broken into lines": lambda data: data.replace(b',"pk":', b',\n  "pk": ', 1),
    "two records on a line": lambda data: data.replace(b",\n", b", ", 1),
    "sorted backwards": lambda data: json.dumps(json.loads(data)[::-1]).encode(),
}
OPTIONS = {mode: RestoreOptions(mode, edited=True) for mode in RestoreMode}


def refused_twice(file, options, error=InvalidBackup, user=None):
    before = snapshot()
    messages = []
    for act in (services.inspect_backup, services.restore_backup):
        file.seek(0)
        with pytest.raises(error) as caught:
            act(file, options, user=user)
        messages.append(str(caught.value))
    assert not differences(before, snapshot())
    assert messages[0] == messages[1]
    return messages[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_file_of_dumpdata_is_told(plain_family, encoding):
    """Windows' shell writes UTF-16 where `>` is used."""
    text = json.dumps([{"model": "core.child", "pk": 1, "fields": {"first_name": "Zoë"}}], ensure_ascii=False)
    assert "dumpdata" in refused_twice(io.BytesIO(text.encode(encoding)), RestoreOptions())


@pytest.mark.parametrize("name", EDITORS)
def test_a_file_that_went_through_an_editor(plain_family, name):
    before = snapshot()
    file = by_hand(take(), EDITORS[name])
    message = refused_twice(file, RestoreOptions())
    assert NOTE in message
    assert "edited" in message
    core.Note.objects.all().delete()
    for mode in (RestoreMode.OVERWRITE, RestoreMode.CLEAR):
        file.seek(0)
        plan = services.inspect_backup(file, OPTIONS[mode])
        assert plan.metadata.models["core.note"].records == len(before["core.note"])
        assert any("edited" in warning for warning in plan.warnings)
        file.seek(0)
        services.restore_backup(file, OPTIONS[mode])
        assert not differences(before, snapshot())


@pytest.mark.parametrize("mode", RestoreMode)
def test_a_word_that_was_mended(plain_family, mode):
    before = snapshot()
    file = by_hand(take(), lambda data: data.replace(b"Frist", b"First"))
    assert "edited" in refused_twice(file, RestoreOptions(mode))
    file.seek(0)
    services.restore_backup(file, OPTIONS[mode])
    note = core.Note.objects.get(note="First smile!")
    before["core.note"][note.pk]["note"] = "First smile!"
    assert not differences(before, snapshot())


def test_a_record_more_and_one_less(plain_family):
    before = snapshot()
    last = core.Note.objects.order_by("pk").last().pk

    def change(data):
        records = json.loads(data)
        return json.dumps([{**records[-1], "pk": last + 7}, *records[:-1]]).encode()

    file = by_hand(take(), change)
    file.seek(0)
    services.restore_backup(file, OPTIONS[RestoreMode.CLEAR])
    notes = before["core.note"]
    notes[last + 7] = {**notes.pop(last), "id": last + 7}
    assert not differences(before, snapshot())


def test_metadata_that_went_through_an_editor(plain_family):
    before = snapshot()
    file = by_hand(
        take(), lambda data: b"\xef\xbb\xbf" + pretty(data).replace(b"\n", b"\r\n"), "metadata.json"
    )
    services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR))
    assert not differences(before, snapshot())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data.replace(b'"pk":', b'"pk" ', 1), NOTE),
        (lambda data: data.replace(b'"child":', b'"chld":', 1), "chld"),
        (lambda data: data.replace(b'"note":"', b'"note":7,"x":"', 1), "core.note"),
        (lambda data: data.replace(b"{", b"{{", 1), NOTE),
        (lambda data: data[:-20], NOTE),
    ],
    ids=["no JSON", "unknown field", "type", "bracket", "cut"],
)
def test_everything_else_is_held_against_it(plain_family, change, says):
    assert says in refused_twice(by_hand(take(), change), OPTIONS[RestoreMode.OVERWRITE])


def test_only_a_superuser_says_that_a_file_was_edited(plain_family, django_user_model):
    staff = django_user_model.objects.create_user("nurse", is_staff=True)
    file = by_hand(take(), EDITORS["CR LF"])
    assert "superuser" in refused_twice(file, OPTIONS[RestoreMode.OVERWRITE], Forbidden, staff)


def test_the_command_says_so_too(plain_family, tmp_path):
    before = snapshot()
    path = tmp_path / "backup.zip"
    path.write_bytes(by_hand(take(), EDITORS["pretty-printed"]).getvalue())
    with pytest.raises(CommandError, match="edited"):
        call_command("restore", str(path), interactive=False)
    with pytest.raises(CommandError, match="edited"):
        call_command("verify_backup", str(path))
    core.Note.objects.all().delete()
    call_command("restore", str(path), edited=True, interactive=False)
    assert not differences(before, snapshot())


# -- unpacked ------------------------------------------------------------------------------------------------


def unpack(file, folder):
    for name, data in unpacked(file).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


@pytest.mark.parametrize("below", ["", "backup_112326_143022"], ids=["itself", "a folder around it"])
def test_a_folder(plain_family, tmp_path, below, capsys):
    before = snapshot()
    unpack(take(), tmp_path / below)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    call_command("verify_backup", str(tmp_path))
    assert "is whole" in capsys.readouterr().out
    core.Note.objects.all().delete()
    call_command("restore", str(tmp_path), interactive=False)
    assert not differences(before, snapshot())


def test_a_folder_with_something_else_in_it(plain_family, tmp_path):
    unpack(take(), tmp_path)
    (tmp_path / "core/more.txt").write_bytes(b"x")
    with pytest.raises(CommandError, match=r"core/more\.txt"):
        call_command("restore", str(tmp_path), interactive=False)
    (tmp_path / "core/more.txt").unlink()
    (tmp_path / NOTE).unlink()
    (tmp_path / NOTE).symlink_to("/etc/passwd")
    with pytest.raises(CommandError, match=r"core/note\.json.*link"):
        call_command("restore", str(tmp_path), interactive=False)


def test_a_folder_of_no_backup(plain_family, tmp_path, settings):
    with pytest.raises(CommandError, match=r"metadata\.json"):
        call_command("restore", str(tmp_path), interactive=False)
    settings.BACKUP_MAX_UNCOMPRESSED_SIZE = 1000
    (tmp_path / "large.bin").write_bytes(bytes(2000))
    with pytest.raises(CommandError, match="BACKUP_MAX_UNCOMPRESSED_SIZE"):
        call_command("restore", str(tmp_path), interactive=False)


# -- something else ------------------------------------------------------------------------------------------


DATABASE = b"SQLite format 3\0" + bytes(5000)


def tar(mode="w"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        entry = tarfile.TarInfo("data/db.sqlite3")
        entry.size = len(DATABASE)
        archive.addfile(entry, io.BytesIO(DATABASE))
    return file.getvalue()


FIXTURE = b'[{"model": "core.note", "pk": 1, "fields": {}}]'
OTHERS = {
    "a database in a ZIP": (packed({"data/db.sqlite3": DATABASE}).getvalue(), r"data/db\.sqlite3.*[Tt]ake"),
    "a backup in a ZIP": (packed({"x/backup_112326_143022.zip": b"x"}).getvalue(), r"backup_112326.*[Tt]ake"),
    "another ZIP": (packed({"x.txt": b"x"}).getvalue(), r"no metadata\.json"),
    "a tar": (tar(), "tar.*[Uu]npack"),
    "a tar.gz": (tar("w:gz"), "gzip.*[Uu]npack"),
    "a gz": (gzip.compress(DATABASE), "gzip.*[Uu]npack"),
    "a bz2": (bz2.compress(DATABASE), "bzip2.*[Uu]npack"),
    "an xz": (lzma.compress(DATABASE), "xz.*[Uu]npack"),
    "a 7z": (b"7z\xbc\xaf\x27\x1c" + bytes(99), "7-Zip.*[Uu]npack"),
    "a RAR": (b"Rar!\x1a\x07\x01\x00" + bytes(99), "RAR.*[Uu]npack"),
    "dumpdata": (FIXTURE, "loaddata"),
    "dumpdata, indented": (b'\xef\xbb\xbf\r\n[\r\n  {\r\n    "model": "core.note"' + FIXTURE, "loaddata"),
    "another JSON": (b'{"a": 1}', "not a ZIP"),
    "a list": (b"[1, 2]", "not a ZIP"),
    "SQL": (b"BEGIN TRANSACTION;\n", "not a ZIP"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_thing_is_called_by_its_name(plain_family, name, tmp_path):
    data, says = OTHERS[name]
    for act in (services.inspect_backup, services.restore_backup):
        with pytest.raises(InvalidBackup, match=says) as caught:
            act(io.BytesIO(data), RestoreOptions())
        assert caught.value.message[-1] == "."
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(CommandError, match=says):
        call_command("verify_backup", str(path))


# -- on the page ---------------------------------------------------------------------------------------------


def test_the_page_takes_an_edited_file(plain_family, client):
    client.force_login(plain_family.admin)
    before = snapshot()
    file = by_hand(take(), EDITORS["CR LF"])
    core.Note.objects.all().delete()

    def send(**data):
        upload = SimpleUploadedFile("backup.zip", file.getvalue())
        return client.post(reverse("backup:restore"), {"backup_file": upload, **data}, follow=True)

    assert 'name="edited"' in client.get(reverse("backup:index")).content.decode()
    page = send()
    assert page.status_code == 400
    assert "edited" in page.content.decode()
    page = send(edited="true")
    assert page.status_code == 200
    form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.content.decode()))
    assert form["edited"] == "true"
    client.post(reverse("backup:confirm"), form)
    assert not differences(before, snapshot())


@pytest.mark.parametrize(("name", "offer"), [("admin", "edited"), ("staff", None)])
def test_who_may_not_restore_an_edited_file_is_not_offered_that(plain_family, name, offer):
    file = by_hand(take(), EDITORS["CR LF"])
    client = script(getattr(plain_family, name))
    answer = client.post(reverse("backup:restore"), {"backup_file": upload(file.getvalue())})
    assert answer.status_code == 400
    error = error_of(answer)
    assert error.get("offer") == offer
    assert "a superuser can restore it as an edited file" in error["message"]


def test_the_page_asks_only_superusers_for_edited_files(plain_family, client, django_user_model):
    client.force_login(django_user_model.objects.create_user("nurse", is_staff=True))
    assert 'name="edited"' not in client.get(reverse("backup:index")).content.decode()

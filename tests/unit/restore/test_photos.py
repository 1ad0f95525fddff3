"""Photos of a backup go where the host has its own: no file is overwritten, and records follow their photos."""

import datetime as dt
import hashlib
import io
import warnings
import zipfile
import zlib

import pytest
from core import models as core
from django.core.files.storage import FileSystemStorage
from PIL import Image

from backup import services
from backup.exceptions import InvalidBackup, StorageFailed
from backup.media import content_is
from backup.options import Part, RestoreMode, RestoreOptions
from backup.proof import Verdict
from backup.restore import photos as placing
from backup.storage import placed
from tests.support.backups import inspect, restore, take
from tests.support.photos import files, picture, put, setting, with_damage, with_photos
from tests.support.snapshots import differences, snapshot

A, B = "child/picture/a.png", "notes/images/b.png"
both_modes = pytest.mark.parametrize("clear", [True, False], ids=["clear", "overwrite"])


@pytest.fixture
def media(family, settings, tmp_path):
    """Where the host has its photos; none yet."""
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.MEDIA_ROOT.mkdir()
    return settings.MEDIA_ROOT


@pytest.fixture
def child(family):
    return core.Child.objects.earliest("pk")


@pytest.fixture
def note(child):
    return core.Note.objects.create(child=child, note="a photo")


@pytest.fixture
def backup(media, child, note):
    """A backup whose child and note have a photo each; here they have none."""
    return with_photos(
        take(),
        {A: picture(1), B: picture(2)},
        setting(core_child={child.pk: {"picture": A}}, core_note={note.pk: {"image": B}}),
    )


def value(record, field):
    record.refresh_from_db()
    return getattr(record, field).name


def counts(plan):
    return plan.as_json()["photos"]


@both_modes
def test_they_come_byte_for_byte(backup, child, note, clear):
    plan = inspect(backup, clear=clear)
    assert counts(plan) == {"added": 2, "unchanged": 0, "missing": 0}
    assert files() == {}, "a preview writes nothing"
    result = restore(backup, clear=clear)
    assert files() == {A: picture(1), B: picture(2)}
    assert (value(child, "picture"), value(note, "image")) == (A, B)
    assert (result.photos, result.missing_files) == (2, 0)
    assert result.as_json()["photos"] == 2
    assert not [line for line in [*plan.warnings, *result.warnings] if "photo" in line]


@both_modes
def test_what_is_there_is_left_alone(backup, media, clear):
    put(A, picture(1))
    before = (media / A).stat()
    assert counts(inspect(backup, clear=clear)) == {"added": 1, "unchanged": 1, "missing": 0}
    assert restore(backup, clear=clear).photos == 2
    after = (media / A).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert files() == {A: picture(1), B: picture(2)}


@both_modes
def test_other_content_stays_and_the_record_follows_its_photo(backup, child, note, clear):
    """The host's thumbnails go by the name."""
    put(A, picture(9))
    core.Child.objects.filter(pk=child.pk).update(picture=A)
    core.Note.objects.filter(pk=note.pk).update(image=B)
    plan = inspect(backup, clear=clear)
    assert counts(plan) == {"added": 2, "unchanged": 0, "missing": 0}
    assert plan.changes["core.child"].changed == 1, "it has another photo, though the same name"
    assert plan.changes["core.note"].changed == 0
    restore(backup, clear=clear)
    name = value(child, "picture")
    assert name.startswith("child/picture/a_")
    assert name.endswith(".png")
    assert files() == {A: picture(9), name: picture(1), B: picture(2)}
    assert value(note, "image") == B
    # Once more, nothing is added.
    assert counts(inspect(backup, clear=clear)) == {"added": 0, "unchanged": 2, "missing": 0}
    assert inspect(backup, clear=clear).changes["core.child"].changed == 0
    restore(backup, clear=clear)
    assert value(child, "picture") == name
    assert len(files()) == 3


def test_preview_and_restore_agree_where_names_differ(backup, child):
    put(A, picture(9))
    for mode in RestoreMode:
        plan = services.inspect_backup(backup, RestoreOptions(mode))
        (row,) = [
            row
            for pair in plan.preview.samples["core.child"].changed
            for row in pair[1:]
            if row[0] == child.pk
        ]
        services.restore_backup(backup, RestoreOptions(mode))
        assert value(child, "picture") in row
        core.Child.objects.filter(pk=child.pk).update(picture="")


def test_undo_needs_no_files(backup, media):
    put(A, picture(9))
    core.Child.objects.update(picture=A)
    before = snapshot()
    restore(backup, clear=True)
    services.undo_restore()
    assert not differences(before, snapshot())
    assert len(files()) == 3, "nothing was deleted"


def test_photos_follow_their_records(backup, child):
    """Of parts that are not restored, nothing comes."""
    restore(backup, clear=False, parts=(Part.SETTINGS,))
    assert files() == {}
    restore(backup, clear=False, parts=(Part.ENTRIES,))
    assert files() == {A: picture(1), B: picture(2)}


def test_a_photo_that_no_record_names_stays_in_the_file(media):
    file = with_photos(take(), {A: picture(1)})
    assert counts(inspect(file, clear=False)) == {"added": 0, "unchanged": 0, "missing": 0}
    restore(file, clear=False)
    assert files() == {}


def test_missing_are_only_those_that_the_file_does_not_bring(backup, media, child, note):
    file = with_photos(
        take(),
        {A: picture(1)},
        setting(core_child={child.pk: {"picture": A}}, core_note={note.pk: {"image": B}}),
    )
    plan = inspect(file, clear=False)
    assert counts(plan) == {"added": 1, "unchanged": 0, "missing": 1}
    (line,) = [line for line in plan.warnings if "media folder" in line]
    assert B in line
    assert A not in line
    assert restore(file, clear=False).missing_files == 1
    assert counts(inspect(take(), clear=False)) == {"added": 0, "unchanged": 0, "missing": 1}


def test_one_photo_of_two_records_comes_once(media, child, note):
    change = setting(core_child={child.pk: {"picture": A}}, core_note={note.pk: {"image": A}})
    put(A, picture(9))
    restore(with_photos(take(), {A: picture(1)}, change), clear=False)
    assert value(child, "picture") == value(note, "image") != A
    assert len(files()) == 2


def test_names_that_fill_the_field_are_cut(media, child):
    name = f"child/picture/{'x' * 82}.png"
    assert len(name) == 100
    put(name, picture(9))
    restore(
        with_photos(take(), {name: picture(1)}, setting(core_child={child.pk: {"picture": name}})),
        clear=False,
    )
    assert len(value(child, "picture")) <= 100
    assert files()[value(child, "picture")] == picture(1)


def test_permissions_are_those_of_the_hosts_own(backup, media, settings):
    settings.FILE_UPLOAD_PERMISSIONS = 0o640
    restore(backup, clear=False)
    assert (media / A).stat().st_mode & 0o777 == 0o640
    assert [path.name for path in media.rglob(".*")] == []


def test_a_media_folder_that_is_a_link(backup, settings, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    settings.MEDIA_ROOT = tmp_path / "link"
    settings.MEDIA_ROOT.symlink_to(tmp_path / "elsewhere")
    restore(backup, clear=False)
    assert (tmp_path / "elsewhere" / A).read_bytes() == picture(1)
    assert settings.MEDIA_ROOT.is_symlink()


# --- What is no photo -------------------------------------------------------------------------------------


def a_bomb():
    """A picture that says that it is as large as a city, in a few bytes."""
    data = io.BytesIO()
    Image.new("1", (1, 1)).save(data, "PNG")
    bomb = bytearray(data.getvalue())
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    return bytes(bomb)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
NO_PICTURES = {
    "a.svg": SVG,
    "a.html": b"<script>alert(1)</script>",
    "a.png": b"<script>alert(1)</script>",
    "b.png": SVG,
    "picture.html": picture(1),
    "picture.svg": picture(1),
    ".htaccess": picture(1),
    "page.php": picture(1, "GIF"),
    "none": picture(1),
    "bomb.png": a_bomb(),
    "empty.png": b"",
    "cut.png": picture(1)[:30],
}


@both_modes
@pytest.mark.parametrize("base", NO_PICTURES)
def test_what_is_no_picture_is_left_out_and_told(media, child, note, base, clear):
    name = f"child/picture/{base}"
    change = setting(core_child={child.pk: {"picture": name}}, core_note={note.pk: {"image": B}})
    file = with_photos(take(), {name: NO_PICTURES[base], B: picture(2)}, change)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        plan = inspect(file, clear=clear)
        result = restore(file, clear=clear)
    for lines in (plan.warnings, result.warnings):
        (line,) = [line for line in lines if name in line]
        assert f"core.child {child.pk}, field picture" in line
    assert counts(plan) == {"added": 1, "unchanged": 0, "missing": 0}
    assert files() == {B: picture(2)}
    assert not value(child, "picture"), "the host's pages would fail for a photo that is not there"
    assert (result.photos, result.missing_files) == (1, 0)


def test_where_a_file_has_the_name_the_record_keeps_it(media, child):
    put(A, picture(9))
    file = with_photos(take(), {A: SVG}, setting(core_child={child.pk: {"picture": A}}))
    assert any(A in line for line in restore(file, clear=False).warnings)
    assert value(child, "picture") == A
    assert files() == {A: picture(9)}


@pytest.mark.parametrize(
    "name", ["../a.png", "/etc/a.png", "C:/a.png", "child/../../a.png", "a\0.png", "a\\b.png"]
)
def test_names_that_lead_out_are_refused(media, child, name):
    before = snapshot()
    for change in (None, setting(core_child={child.pk: {"picture": name}})):
        with pytest.raises(InvalidBackup):
            restore(with_photos(take(), {name: picture(1)}, change), clear=False)
    assert files() == {}
    assert list(media.parent.glob("a*")) == []
    assert not differences(before, snapshot())


@pytest.mark.parametrize("folder", ["CACHE/images", "cache/Images"])
def test_none_comes_under_the_name_of_a_thumbnail(media, child, note, folder):
    """The host makes one only where there is none, so it would show that picture in place of the photo of another."""
    name = f"{folder}/child/picture/a/0123456789abcdef.jpg"
    change = setting(core_child={child.pk: {"picture": A}}, core_note={note.pk: {"image": name}})
    result = restore(with_photos(take(), {A: picture(1), name: picture(2)}, change), clear=False)
    assert files() == {A: picture(1)}
    assert not value(note, "image")
    assert any(name in line for line in result.warnings)


@pytest.mark.parametrize("lie", [{"size": 3}, {"size": 10**12}, {"sha256": "0" * 64}], ids=str)
def test_lies_are_found_before_anything_is_written(media, child, lie):
    file = with_photos(take(), {A: picture(1)}, setting(core_child={child.pk: {"picture": A}}), **lie)
    before = snapshot()
    for act in (inspect, restore):
        with pytest.raises(InvalidBackup):
            act(file, clear=True)
    assert files() == {}
    assert not differences(before, snapshot())


def test_a_photo_that_is_in_the_file_twice_is_refused(backup):
    with warnings.catch_warnings(), zipfile.ZipFile(backup, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(f"media/{A}", picture(3))
    with pytest.raises(InvalidBackup):
        restore(backup, clear=False)
    assert files() == {}


# --- Names that the file system takes for the same --------------------------------------------------------


class Folding(FileSystemStorage):
    """A file system that does not tell upper from lower case."""

    def path(self, name):
        return super().path(name.lower())


def fold(settings):
    storage = {"BACKEND": f"{__name__}.Folding"}
    settings.STORAGES = {**settings.STORAGES, "default": storage}


@both_modes
def test_names_that_differ_by_case_only(media, settings, child, note, clear):
    """Each record keeps its own photo, whether the file system tells the names apart or not."""
    other = "child/picture/A.PNG"
    change = setting(core_child={child.pk: {"picture": A}}, core_note={note.pk: {"image": other}})
    file = with_photos(take(), {A: picture(1), other: picture(2)}, change)
    restore(file, clear=clear)
    assert files() == {A: picture(1), other: picture(2)}
    services.undo_restore()
    for path in [media / A, media / other]:
        path.unlink()
    fold(settings)
    result = restore(file, clear=clear)
    first, second = (
        child.picture.storage.open(value(child, "picture")),
        note.image.storage.open(value(note, "image")),
    )
    with first, second:
        assert (first.read(), second.read()) == (picture(1), picture(2))
    assert len(files()) == result.photos == 2


def test_names_that_are_all_taken(backup, child):
    """By parts of the photo that storages were left with, say: never is a file overwritten."""
    digest = hashlib.sha256(picture(1)).hexdigest()
    taken = [A, *(f"child/picture/a_{digest[:digits]}.png" for digits in placing.DIGITS)]
    for name in taken:
        put(name, picture(9))
    restore(backup, clear=False)
    assert value(child, "picture") not in taken
    assert files() == {name: picture(9) for name in taken} | {
        value(child, "picture"): picture(1),
        B: picture(2),
    }


@both_modes
def test_a_name_that_is_taken_at_the_last_moment(backup, child, monkeypatch, clear):
    """Between the check and the writing, somebody uploads another photo: both stay."""
    real = placing.Placing.place

    def place(self, note):
        put(A, picture(9))
        real(self, note)

    monkeypatch.setattr(placing.Placing, "place", place)
    restore(backup, clear=clear)
    name = value(child, "picture")
    assert name != A
    assert files() == {A: picture(9), name: picture(1), B: picture(2)}


class Renaming(FileSystemStorage):
    """Gives every file a name of its own, as some servers do."""

    def get_available_name(self, name, max_length=None):
        return super().get_available_name(name.replace(".png", "-mine.png"), max_length)


def test_a_name_that_the_storage_chose_is_noted(backup, media, settings, child):
    """Else nobody could tell later whose file it is."""
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": f"{__name__}.Renaming"}}
    restore(backup, clear=True)
    assert value(child, "picture") == A.replace(".png", "-mine.png")
    noted = {file.name for name in placed.noted(dt.timedelta()) for file in placed.read(name)}
    assert {*files()} <= noted


# --- Storages and disks that fail -------------------------------------------------------------------------


class Failing(FileSystemStorage):
    fails = "save"

    def _fail(self, what):
        if self.fails == what:
            raise PermissionError(13, "Permission denied")

    def _save(self, name, content):
        self._fail("save")
        return super()._save(name, content)

    def listdir(self, path):
        self._fail("listdir")
        return super().listdir(path)


@pytest.mark.parametrize("what", ["save", "listdir"])
def test_a_storage_that_takes_nothing(backup, media, settings, child, what, monkeypatch):
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": f"{__name__}.Failing"}}
    monkeypatch.setattr(Failing, "fails", what)
    before = snapshot()
    with pytest.raises(StorageFailed, match="Permission denied") as caught:
        restore(backup, clear=True)
    assert caught.value.offer == "leave_out"
    assert not differences(before, snapshot())
    assert files() == {}
    options = RestoreOptions(RestoreMode.CLEAR, leave_out=True)
    result = services.restore_backup(backup, options)
    assert any("2 photos are left out" in line for line in result.warnings)
    assert value(child, "picture") == A, "the photo may be copied there later"
    assert (result.photos, files()) == (0, {})


def test_a_photo_that_is_damaged_can_be_left_out(media, child, note):
    change = setting(core_child={child.pk: {"picture": A}}, core_note={note.pk: {"image": B}})
    file = with_damage(with_photos(take(), {A: picture(1), B: picture(2)}, change), picture(1))
    before = snapshot()
    with pytest.raises(InvalidBackup) as caught:
        restore(file, clear=True)
    assert caught.value.offer == "leave_out"
    assert not differences(before, snapshot())
    result = services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR, leave_out=True))
    assert any(f"core.child {child.pk}" in line and A in line for line in result.warnings)
    assert files() == {B: picture(2)}
    assert (result.photos, result.missing_files) == (1, 1)


def test_a_disk_that_has_no_room(backup, media, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    for act in (inspect, restore):
        with pytest.raises(StorageFailed, match="MB free"):
            act(backup, clear=False)
    assert files() == {}
    result = services.restore_backup(backup, RestoreOptions(leave_out=True))
    assert result.photos == 0


def test_content_is_compared_whole(media):
    put(A, picture(1))
    storage = core.Child._meta.get_field("picture").storage
    digest = hashlib.sha256(picture(1)).hexdigest()
    assert content_is(storage, A, len(picture(1)), digest) is True
    assert content_is(storage, A, len(picture(1)), "0" * 64) is False
    assert content_is(storage, A, 1, digest) is False
    assert content_is(storage, "child/picture/none.png", 1, digest) is None
    assert content_is(storage, "child", 1, digest) is False


@both_modes
@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_name_that_no_file_can_have_is_left_out(media, child, note, clear, place):
    """A storage that is no folder may have had it. The limit of the system counts bytes."""
    part = "日" * 94
    name = f"n/{part}.png" if place == "file" else f"{part}/a.png"
    backup = with_photos(
        take(),
        {A: picture(1), name: picture(2)},
        setting(core_child={child.pk: {"picture": A}}, core_note={note.pk: {"image": name}}),
    )
    put("n/b.png", picture(3))
    how = RestoreOptions(RestoreMode.CLEAR if clear else RestoreMode.OVERWRITE)
    result = services.restore_backup(backup, how)
    assert files() == {A: picture(1), "n/b.png": picture(3)}
    assert value(child, "picture") == A
    assert value(note, "image") in ("", None)
    assert [line for line in result.warnings if "not the name of an uploaded file" in line]
    assert services.prove_backup(backup).verdict is Verdict.PROVED

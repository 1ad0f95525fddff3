"""What people and scripts are shown of the photos in a backup: numbers, and small pictures that are safe to show."""

import io
import re
import subprocess
import sys
import textwrap

import pytest
from core import models as core
from django.core.management import call_command
from django.urls import reverse
from PIL import Image

from backup.presentation.thumbnails import MEMORY, SIDE, thumbnail
from tests.support.backups import take
from tests.support.http import script, upload
from tests.support.photos import files, picture, put, setting, with_photos

A, B, SVG = "child/picture/a.png", "notes/images/b.jpg", "child/picture/c.svg"


@pytest.fixture
def backup(family, settings, tmp_path):
    """A backup that gives a child and a note a photo, and another child what is none."""
    settings.MEDIA_ROOT = tmp_path / "media"
    child, other = core.Child.objects.order_by("pk")[:2]
    note = core.Note.objects.create(child=child, note="x")
    change = setting(
        core_child={child.pk: {"picture": A}, other.pk: {"picture": SVG}}, core_note={note.pk: {"image": B}}
    )
    note_photo = picture(2, "JPEG", (400, 300))
    file = with_photos(take(), {A: picture(1), B: note_photo, SVG: b"<svg/>"}, change)
    note.delete()
    return file.getvalue()


@pytest.fixture
def previewed(backup, family, client):
    """The page of the preview."""
    client.force_login(family.admin)
    answer = client.post(reverse("backup:restore"), {"backup_file": upload(backup)}, follow=True)
    assert answer.status_code == 200
    return answer


def pictures(page):
    return re.findall(r'<img src="([^"]*/photo/[^"]*)" alt=""', page.content.decode())


def test_the_page_counts_photos_and_shows_small_ones(previewed, client):
    text = " ".join(previewed.content.decode().split())
    assert "2 photos will be added." in text
    sizes = set()
    for address in pictures(previewed):
        answer = client.get(address)
        assert answer.status_code == 200
        assert answer["Content-Type"] == "image/jpeg"
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert "no-store" in answer["Cache-Control"]
        sizes.add(Image.open(io.BytesIO(answer.content)).size)
    assert sizes == {(8, 8), (SIDE, SIDE * 3 // 4)}
    assert files() == {}, "nothing is written where others see it"


def test_they_are_for_whom_the_upload_is(previewed, client, family):
    (address, *_others) = pictures(previewed)
    client.force_login(family.staff)
    assert client.get(address).status_code == 404
    client.logout()
    assert client.get(address).status_code == 302


def test_a_record_that_changes_only_in_its_photo(family, settings, tmp_path, client):
    settings.MEDIA_ROOT = tmp_path / "media"
    child = core.Child.objects.earliest("pk")
    put(A, picture(9))
    core.Child.objects.filter(pk=child.pk).update(picture=A)
    file = with_photos(take(), {A: picture(1)}).getvalue()
    client.force_login(family.admin)
    page = client.post(reverse("backup:restore"), {"backup_file": upload(file)}, follow=True)
    (address,) = pictures(page)
    small = Image.open(io.BytesIO(client.get(address).content))
    assert all(abs(a - b) < 10 for a, b in zip(small.convert("RGB").getpixel((4, 4)), (1, 0, 7), strict=True))


def test_no_record_changes_and_photos_come(family, settings, tmp_path, client):
    """After the media folder was lost, say."""
    settings.MEDIA_ROOT = tmp_path / "media"
    core.Child.objects.update(picture=A)
    file = with_photos(take(), {A: picture(1)}).getvalue()
    client.force_login(family.admin)
    page = client.post(reverse("backup:restore"), {"backup_file": upload(file)}, follow=True)
    text = " ".join(page.content.decode().split())
    assert "Records will change only in when they were last used." in text  # by signing in
    assert "1 photo will be added." in text


def test_scripts_and_commands_are_told_the_same(backup, family, tmp_path, capsys):
    answer = script(family.admin).post(reverse("backup:restore"), {"backup_file": upload(backup)})
    assert answer.json()["photos"] == {"added": 2, "unchanged": 0, "missing": 0}
    path = tmp_path / "x.zip"
    path.write_bytes(backup)
    call_command("restore", str(path), dry_run=True)
    assert "Photos: 2 added, 0 already here, 0 missing" in capsys.readouterr().out
    call_command("restore", str(path), interactive=False)
    assert re.search(r"\d+ records and 2 photos restored", capsys.readouterr().out)
    answer = script(family.admin).post(reverse("backup:confirm"), {"backup_file": upload(backup)})
    assert answer.json()["photos"] == 2
    assert any(SVG in line for line in answer.json()["warnings"])


def test_the_result_says_how_many(backup, family, client):
    client.force_login(family.admin)
    data = {"backup_file": upload(backup), "confirmed": "yes"}
    page = client.post(reverse("backup:restore"), data, follow=True)
    staged = re.search(r'name="upload" value="([^"]+)"', page.content.decode())[1]
    data = {
        "upload": staged,
        "parts": ["entries"],
        "confirmed": "yes",
        "previewed": "entries,accounts,settings",
    }
    answer = client.post(reverse("backup:confirm"), data, follow=True)
    assert "2 photos are in place." in " ".join(answer.content.decode().split())


def test_a_small_picture_is_upright_and_no_larger():
    photo = Image.new("RGB", (900, 300), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    data = io.BytesIO()
    photo.save(data, "JPEG", exif=exif)
    small = Image.open(io.BytesIO(thumbnail(data)))
    assert small.height == SIDE
    assert small.width < small.height
    assert not small.getexif()


@pytest.mark.parametrize(
    "content", [b"", b"<svg/>", b"%!PS-Adobe-3.0", picture(1)[:40], b"GIF89a" + b"\xff" * 40]
)
def test_what_is_no_picture_is_not_shown(content):
    assert thumbnail(io.BytesIO(content)) is None


def test_a_bomb_is_not_decoded():
    data = io.BytesIO()
    Image.new("1", (9000, 9000)).save(data, "PNG")
    assert len(data.getvalue()) < 100_000
    assert thumbnail(data) is None


def in_scans(side):
    """A baseline JPEG, square and grey, with a scan for each of its three components."""

    def segment(marker, data):
        return bytes([0xFF, marker]) + (len(data) + 2).to_bytes(2, "big") + data

    size = side.to_bytes(2, "big")
    components = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    code = bytes([1] + 15 * [0] + [0])
    scan = bytes((side + 7) // 8 * ((side + 7) // 8) // 4 + 1)
    return io.BytesIO(
        b"\xff\xd8"
        + segment(0xDB, b"\0" + 64 * b"\1")
        + segment(0xC0, b"\x08" + size + size + b"\x03" + components)
        + segment(0xC4, b"\x00" + code)
        + segment(0xC4, b"\x10" + code)
        + b"".join(segment(0xDA, bytes([1, number, 0, 0, 63, 0])) + scan for number in (1, 2, 3))
        + b"\xff\xd9"
    )


def test_a_jpeg_that_would_be_held_as_a_whole_is_only_decoded_if_it_is_small():
    assert thumbnail(in_scans(1000))
    assert thumbnail(in_scans(9000)) is None
    photo = io.BytesIO()
    Image.new("RGB", (8660, 5773)).save(photo, "JPEG", quality=1)  # as phones make them
    assert thumbnail(photo)


SHOW = """
    import re, sys
    from pathlib import Path
    from backup.presentation.thumbnails import thumbnail

    def peak():
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

    small, large = sys.argv[1:]
    thumbnail(small)
    before = peak()
    thumbnail(large)
    print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize(
    ("form", "mode", "side", "options"),
    [
        ("PNG", "RGBA", 4300, {"compress_level": 1}),
        ("PNG", "RGBA", 4800, {"compress_level": 1}),
        ("JPEG", "L", 12000, {"progressive": True}),
        ("WEBP", "RGBA", 4000, {"lossless": True, "method": 0}),
    ],
)
def test_a_small_picture_takes_little_memory(tmp_path, form, mode, side, options):
    small, large = tmp_path / "small", tmp_path / "large"
    Image.new("RGB", (600, 600)).save(small, form)
    Image.new(mode, (side, side)).save(large, form, **options)
    command = [sys.executable, "-c", textwrap.dedent(SHOW), small, large]
    taken = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert taken * 1024 < MEMORY * 1.25

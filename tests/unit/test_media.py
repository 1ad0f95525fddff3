"""Photos that are not where their records say, as after a move to another server: named, and emptied by choice."""

import re

import pytest
from core import models as core
from django.core.files.base import ContentFile
from django.core.management import call_command
from django.urls import reverse

from backup import services
from backup.presentation.preview import photos_in_words
from backup.storage import kept
from tests.support.backups import inspect, restore, take
from tests.support.http import script, upload
from tests.support.snapshots import differences, snapshot

both_modes = pytest.mark.parametrize("clear", [True, False])


@pytest.fixture
def photos(family, settings, tmp_path):
    """One photo that is there, and three that are not: one of a child, two of notes with the same name."""
    settings.MEDIA_ROOT = tmp_path / "media"
    child, other = core.Child.objects.order_by("pk")[:2]
    child.picture.save("there.png", ContentFile(b"x"))
    core.Child.objects.filter(pk=other.pk).update(picture="child/picture/gone.png")
    notes = [core.Note.objects.create(child=child, note="x", image="notes/images/gone.png") for _ in range(2)]
    yield other, notes
    child.picture.delete(save=False)


def about_photos(lines):
    return [line for line in lines if "gone.png" in line]


@both_modes
def test_preview_and_result_count_them(photos, clear):
    other, notes = photos
    file = take()
    for warnings in (inspect(file, clear=clear).warnings, (result := restore(file, clear=clear)).warnings):
        (line,) = about_photos(warnings)
        assert line.startswith("3 fields name a photo that is not in the media folder")
        for name in (f"core.child {other.pk}", f"core.note {notes[0].pk}", f"core.note {notes[1].pk}"):
            assert name in line
        assert "there.png" not in line
    assert result.as_json()["missing_files"] == 3
    assert photos_in_words(inspect(file, clear=clear).photos) == ["2 photos are missing"]


@both_modes
def test_where_all_are_there_nothing_is_said(family, clear):
    file = take()
    assert not about_photos(inspect(file, clear=clear).warnings)
    assert restore(file, clear=clear).missing_files == 0


def emptied(before, photos):
    other, notes = photos
    before["core.child"][other.pk]["picture"] = None
    for note in notes:
        before["core.note"][note.pk]["image"] = None
    return before


def test_they_are_emptied_by_choice_and_that_can_be_undone(photos):
    before = snapshot()
    result = services.empty_missing_files()
    assert result.restored == {}
    assert not differences(emptied(snapshot(), photos), snapshot())
    assert snapshot() != before
    services.undo_restore()
    assert not differences(before, snapshot())


def test_if_none_is_missing_undo_still_means_the_restore(family, client, capsys):
    """As after a click, the browser's Back, and another click."""
    file = take()
    core.Note.objects.create(child=core.Child.objects.first(), note="written since")
    before = snapshot()
    restore(file, clear=True)
    copies = kept.backups()
    client.force_login(family.admin)
    client.post(reverse("backup:empty_missing"))
    assert "No photo is missing." in client.get(reverse("backup:index")).content.decode()
    assert script(family.admin).post(reverse("backup:empty_missing")).json()["safety_copy"] == ""
    call_command("restore", empty_missing_files=True)
    assert capsys.readouterr().out == "No photo is missing.\n"
    assert kept.backups() == copies
    services.undo_restore()
    assert not differences(before, snapshot())


def test_emptying_twice_is_undone_as_once(photos):
    before = snapshot()
    services.empty_missing_files()
    services.empty_missing_files()
    services.undo_restore()
    assert not differences(before, snapshot())


def test_a_command_empties_them(photos, tmp_path):
    before = snapshot()
    (tmp_path / "x.zip").write_bytes(take().getvalue())
    call_command("restore", str(tmp_path / "x.zip"), interactive=False, clear=True, empty_missing_files=True)
    assert not differences(emptied(before, photos), snapshot())


def test_the_page_and_a_script_empty_them(photos, family, client):
    before = snapshot()
    file = take().getvalue()
    answer = script(family.admin).post(reverse("backup:confirm"), {"backup_file": upload(file)})
    assert answer.json()["missing_files"] == 3
    client.force_login(family.admin)
    answer = client.post(reverse("backup:confirm"), {"backup_file": upload(file)}, follow=True)
    answer = script(family.admin).post(reverse("backup:empty_missing"))
    assert answer.status_code == 200
    after = snapshot()
    for state in (before, after):
        for user in state["auth.user"].values():
            user["last_login"] = None
    assert not differences(emptied(before, photos), after)


def test_the_result_offers_it(photos, family, client):
    client.force_login(family.admin)
    answer = client.post(reverse("backup:undo"), {"safety_copy": restore(take(), clear=True).safety_copy})
    assert re.search(f'action="{reverse("backup:empty_missing")}"', answer.content.decode())
    answer = client.post(reverse("backup:empty_missing"), follow=True)
    assert answer.status_code == 200
    assert not core.Note.objects.filter(image="notes/images/gone.png").exists()

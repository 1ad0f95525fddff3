"""A folder as a location: the marker tells a disk that is not mounted from one that is new."""

import io
import os
import shutil
import subprocess

import pytest

from backup.conf import conf
from backup.exceptions import NotMounted, WrongAddress
from backup.storage.locations import location
from backup.storage.locations.folder import MARKER


@pytest.fixture
def nas(host_db, settings, tmp_path):
    settings.BACKUP_LOCATIONS = f"nas={tmp_path / 'nas'}"
    return tmp_path / "nas"


def test_not_mounted(nas):
    """Each act says so; the same folder with its marker is fine again, and so is a new one that is given one."""
    place = location("nas")
    assert place.names() == []
    place.send("kept/a.zip", io.BytesIO(b"a"))
    mounted = nas.rename(nas.with_name("elsewhere"))
    for is_there in (False, True):
        if is_there:
            nas.mkdir()
        for act in (
            place.names,
            lambda: place.fetch("kept/a.zip"),
            lambda: place.read_part("kept/a.zip", 0, 1),
            lambda: place.size("kept/a.zip"),
            lambda: place.delete("kept/a.zip"),
            lambda: place.send("kept/b.zip", io.BytesIO(b"b")),
            place.other_sites,
            place.test,
        ):
            with pytest.raises(NotMounted, match=MARKER) as caught:
                act()
            assert str(nas) not in str(caught.value)
            assert caught.value.code == "not_mounted"
    assert [*nas.iterdir()] == []
    nas.rmdir()
    mounted.rename(nas)
    assert place.names() == ["a.zip"]
    shutil.rmtree(nas)
    nas.mkdir()
    (nas / MARKER).touch()
    place.send("kept/b.zip", io.BytesIO(b"b"))
    assert place.names() == ["b.zip"]


def test_a_folder_that_is_none(nas, settings, tmp_path):
    settings.BACKUP_LOCATIONS = {"nas": str(tmp_path / "no" / "such")}
    with pytest.raises(WrongAddress, match="above"):
        location("nas").send("kept/a.zip", io.BytesIO(b"a"))
    settings.BACKUP_LOCATIONS = ["nas=relative/folder"]
    with pytest.raises(WrongAddress, match="whole path"):
        location("nas").names()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("is_new", [True, False])
def test_what_root_sends_belongs_to_the_owner_of_the_folder(nas, is_new):
    """As the files of BACKUP_ROOT do: otherwise the server could not remove it."""
    (nas.parent if is_new else nas).mkdir(exist_ok=True)
    os.chown(nas.parent if is_new else nas, 33, 4242)
    (nas.parent / "roots").touch()
    place = location("nas")
    place.send("kept/a.zip", io.BytesIO(b"a"))
    place.send("kept/b.zip", io.BytesIO(b"b"))
    infos = [path.stat() for path in [nas, *nas.rglob("*")]]
    assert len(infos) >= 6
    assert {(info.st_uid, info.st_gid) for info in infos} == {(33, 4242)}
    assert (nas.parent / "roots").stat().st_uid == 0


def test_the_folder_of_the_backups_themselves_is_none(host_db, settings):
    settings.BACKUP_LOCATIONS = {"there": f"{conf.root}"}
    place = location("there")
    for act in (place.names, place.test, lambda: place.send("kept/a.zip", io.BytesIO(b"a"))):
        with pytest.raises(WrongAddress, match="copy there would be none"):
            act()
    assert not (conf.root / MARKER).exists()


@pytest.fixture
def mounted(host_db, settings, tmp_path):
    """BACKUP_ROOT, and another folder that it is mounted at, too: as by two volumes of a container."""
    settings.BACKUP_ROOT = str(tmp_path / "backups")
    there = tmp_path / "nas"
    for folder in (conf.root, there):
        folder.mkdir()
    if subprocess.run(["mount", "--bind", conf.root, there], check=False, capture_output=True).returncode:
        pytest.skip("may not mount here")
    yield there
    subprocess.run(["umount", there], check=True)


def test_another_mount_of_it_is_none_either(mounted, settings):
    settings.BACKUP_LOCATIONS = {"there": str(mounted)}
    with pytest.raises(WrongAddress, match="copy there would be none"):
        location("there").names()
    settings.BACKUP_LOCATIONS = {"there": str(mounted / "inside")}
    assert location("there").names() == [], "what is inside may be another disk"

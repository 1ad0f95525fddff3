"""Makes photos for tests, and puts them into backups without the code under test."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

from django.conf import settings
from django.core.files.storage import default_storage
from PIL import Image

from tests.support.backups import rewritten


def picture(number=0, form="PNG", size=(8, 8)):
    """Return the bytes of a small picture, a different one for each number."""
    data = io.BytesIO()
    Image.new("RGB", size, (number % 256, number // 256 % 256, 7)).save(data, form)
    return data.getvalue()


def with_photos(file, photos, change=None, **lies):
    """Return a backup with photos. `photos`: name -> content. `change`: see `rewritten`. `lies`: false values for each
    photo in its metadata."""
    data = rewritten(file, change).getvalue()
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if name != "metadata.json":
                new.writestr(name, old.read(name), zipfile.ZIP_DEFLATED)
        for name, content in photos.items():
            new.writestr(f"media/{name}", content)
        metadata = json.loads(old.read("metadata.json"))
        metadata["version"], metadata["includes_media"] = "1.2", True
        metadata["media"] = [
            {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()} | lies
            for name, content in photos.items()
        ]
        new.writestr("metadata.json", json.dumps(metadata))
    return target


def setting(**fields):
    """Return a change for `rewritten` that sets fields of records, as in `core_child={1: {"picture": …}}`."""

    def change(records):
        for label, by_key in fields.items():
            for record in records[label.replace("_", ".", 1)]:
                record["fields"].update(by_key.get(record["pk"], {}))

    return change


def files():
    """Return name -> content of every file below MEDIA_ROOT."""
    root = Path(settings.MEDIA_ROOT)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def put(name, content):
    """Write a file into the host's media folder."""
    path = Path(default_storage.path(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def with_damage(file, content):
    """Return a copy of a backup in which one bit of this content is changed. It must not be compressed."""
    data = file.getvalue()
    place = data.index(content) + len(content) // 2
    return io.BytesIO(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])

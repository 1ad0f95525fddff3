"""Feeds the reader of backups what a fuzzer thinks of that watches which code is reached.

    python -m tests.fuzz --seconds 60

Needs the extra `fuzz`. Whatever the bytes are, a file is read or refused by `InvalidBackup` with a sentence on one
line, in little time and memory; anything else ends this with an error and the bytes that did it. Keep what is found as
an entry of the table in `tests/scenarios/test_hostile.py`.
"""

import argparse
import base64
import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import atheris
from django.conf import settings

settings.configure(USE_I18N=False)
with atheris.instrument_imports(include=["backup.archive", "zipfile"]):
    import zipfile

    from backup.archive import Archive, Key, Keys, Limits, encryption
from backup.exceptions import InvalidBackup, KeyNeeded  # noqa: E402

#: Small, so that they are reached.
LIMITS = Limits(
    uncompressed=1_000_000,
    members=20,
    photos=10,
    record=50_000,
    values=1000,
    metadata=20_000,
    directory=20_000,
)
KEY = Key.make()
MEMBER = "core/note.json"
BEGINNING = b'{"model":"core.note","pk":1,"fields":{"note":"a"}}'
RECORDS = b'[\n{"model":"core.note","pk":1,"fields":{"note":"a\\"b"}},\n{"model":"core.note","pk":2,"fields":{}}\n]\n'


def metadata_of(data, records, **other):
    return {
        "version": "1.1",
        "timestamp": "2026-11-23T14:30:22.123456+01:00",
        "models_count": 1,
        "total_records": records,
        "migrations": {"core": ["0036_medication"]},
        "models": {
            "core.note": {"file": MEMBER, "records": records, "sha256": hashlib.sha256(data).hexdigest()}
        },
        **other,
    }


def packed(metadata, data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("metadata.json", metadata)
        archive.writestr(MEMBER, data)
    return file.getvalue()


def with_records(data):
    """A backup whose member is this."""
    return packed(json.dumps(metadata_of(data, data.count(b'"model"'))), data)


def with_photos(data):
    """A backup with photos: one of which content and name are the two halves of the bytes, and one that is sound."""
    name, content = data[: len(data) // 2].decode(errors="replace"), data[len(data) // 2 :]
    photos = {name: content, "notes/images/sound.jpg": b"sound"}
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(MEMBER, RECORDS)
        for name, content in photos.items():
            archive.writestr(f"media/{name}".replace("\0", "")[:1000], content)
        media = [
            {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in photos.items()
        ]
        archive.writestr("metadata.json", json.dumps(photo_metadata(media)))
    return file.getvalue()


def photo_metadata(media, **other):
    return metadata_of(RECORDS, 2, **{"version": "1.2", "includes_media": True, "media": media, **other})


def with_media(data):
    """A backup whose list of photos is this, as JSON or as text."""
    try:
        media = json.loads(data)
    except (ValueError, RecursionError):
        media = data.decode(errors="replace")
    return packed(json.dumps(photo_metadata(media, warnings=media)), RECORDS)


def encrypted(metadata, data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in (("metadata.json", metadata), (MEMBER, data)):
            info = encryption.entry(name)
            with archive.open(info, "w") as member:
                encryption.encrypt(member, info, KEY, member._compressor)
                member.write(content)
                encryption.end(member)
    return file.getvalue()


def renamed(data):
    """The ZIP of a sound backup whose names are these bytes, a line each."""
    file = io.BytesIO()
    names = data.decode(errors="replace").split("\n")
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # names that come twice
        for name, content in zip(names, itertools.cycle([json.dumps(metadata_of(RECORDS, 2)), RECORDS])):
            archive.writestr(name.replace("\0", "")[:1000] or "-", content)
    return file.getvalue()


#: What the bytes are taken for, by the first of them: those that follow would else hardly ever be a ZIP.
FORMS = [
    lambda data: data,
    lambda data: packed(data, RECORDS),
    with_records,
    lambda data: packed('{"version": "1.0", "timestamp": "2025-01-02T03:04:05+00:00"}', data),
    # As we lay it out at first, and then in any way; and the other way round.
    lambda data: with_records(b"[\n" + b",\n".join([BEGINNING] * 3) + data),
    lambda data: with_records(b"\xef\xbb\xbf[" + data + b",\n" + BEGINNING + b"\n]\n"),
    renamed,
    # Behind the encryption, and the encryption itself.
    lambda data: encrypted(json.dumps(metadata_of(data, data.count(b'"model"'))).encode(), data),
    lambda data: data,
    with_photos,
    with_media,
]
SEEDS = [
    packed(json.dumps(metadata_of(RECORDS, 2)), RECORDS),
    json.dumps(metadata_of(RECORDS, 2)).encode(),
    RECORDS,
    b'[{"model": "core.note", "pk": 1, "fields": {"note": "]\\"[{"}}, {"a": [1, {}]}]',
    b',\r\n  {"model": "core.note",\n"pk": 2, "fields": {}}, ' + BEGINNING + b"]",
    BEGINNING + b" ,\t" + BEGINNING,
    b"backup\\metadata.json\nbackup\\core\\note.json\n__MACOSX/._backup\nbackup/.DS_Store",
    RECORDS,
    encrypted(json.dumps(metadata_of(RECORDS, 2)).encode(), RECORDS),
    b"child/picture/../a.jpgabcdefghijklmnopqrstuv",
    json.dumps([{"name": "a.jpg", "size": 0, "sha256": hashlib.sha256(b"").hexdigest()}]).encode(),
]


def try_one(data):
    if not data:
        return
    file = io.BytesIO(FORMS[data[0] % len(FORMS)](data[1:]))
    try:
        with Archive(file, LIMITS, keys=Keys(KEY)) as archive:
            for label in archive.metadata.models:
                for exact in (False, True):
                    for _ in archive.records(label, exact):
                        pass
            for photo in archive.metadata.photos.values():
                path = os.path.normpath(os.path.join("/media", photo.name))
                if path != f"/media/{photo.name}":
                    raise AssertionError(photo.name)
                if archive.has_photo(photo):
                    for _ in archive.read(photo):
                        pass
            json.dumps(archive.metadata.as_json())
    except (InvalidBackup, KeyNeeded) as error:
        if not error.message.isprintable() or len(error.message) > 500:
            raise AssertionError(error.message) from error


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="a folder to go on from, and to keep what is new in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        corpus = options.corpus or Path(scratch, "corpus")
        corpus.mkdir(exist_ok=True)
        for number, seed in enumerate(SEEDS):
            (corpus / f"seed-{number}").write_bytes(bytes([number]) + seed)
        found = Path(scratch, "found")
        found.mkdir()
        arguments = [
            f"-max_total_time={options.seconds}",
            "-timeout=10",  # seconds, for one file
            "-rss_limit_mb=1024",
            "-max_len=20000",
            "-verbosity=0",
            f"-artifact_prefix={found}/",
            str(corpus),
        ]
        # A process of its own: the fuzzer ends the one that it runs in.
        ended = subprocess.run([sys.executable, "-m", "tests.fuzz", *arguments], check=False).returncode
        for file in found.iterdir():
            print(f"{file.name}: {base64.b64encode(file.read_bytes()).decode()}")
    print("Nothing was found." if ended == 0 else "Something was found.")
    sys.exit(ended)


if __name__ == "__main__":
    if any(argument.startswith("-artifact_prefix=") for argument in sys.argv):
        atheris.Setup(sys.argv, try_one)
        atheris.Fuzz()
    else:
        main()

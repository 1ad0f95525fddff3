"""Memory is bounded by bytes, not by the number of rows: long notes are read few at a time."""

import math
import sys

import pytest
from core import models as core
from django.utils import timezone
from PIL import Image

from backup.database import database_of
from backup.presentation.thumbnails import FORMATS, MEMORY
from tests.support.backups import checksums_of, inspect, restore, rewritten, take
from tests.support.changing import change_everything
from tests.support.matrices import again
from tests.support.processes import hear, process

#: Letters of a long note, one of which makes Python keep four bytes of each.
LETTERS = 100_000
#: MiB that a job may take beside what a process of the host takes anyway. All of the notes would take many times that.
MOST = 150

JOB = """
    import re, sys
    from pathlib import Path
    from backup import services
    from backup.options import RestoreMode, RestoreOptions
    from core.models import Note

    def peak():
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

    list(Note.objects.values_list("pk", flat=True))  # what a first query loads
    services.verify_backup, services.inspect_backup
    job, path = sys.argv[1:]
    before = peak()
    if job == "backup":
        with open(path, "w+b") as file:
            services.create_backup(file)
    else:
        with open(path, "rb") as file:
            services.inspect_backup(file, RestoreOptions(RestoreMode(job)))
    print(peak() - before, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("job", ["backup", "overwrite", "clear"])
def test_long_notes_are_read_few_at_a_time(family, tmp_path, job):
    """Short ones in the backup, so that many of it are read at a time."""
    child, now = family.children[0], timezone.now()
    core.Note.objects.bulk_create(core.Note(child=child, note="short", time=now) for _ in range(400))
    path = tmp_path / "backup.zip"
    path.write_bytes(take().getvalue())
    core.Note.objects.update(note="🍼" + "x" * LETTERS)
    with process(JOB, job, path) as child:
        taken = int(hear(child)) / 1024
    assert taken < MOST


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("mode", [again("overwrite"), "clear"])
def test_the_longest_notes_are_read_one_at_a_time(family, tmp_path, mode):
    """A note of 15 MB takes 60 MB in memory, with one wide letter; there must not be several of it."""
    text = "🍼" + "".join(map(str, range(3_000_000)))[:15_000_000]

    def change(records):
        note = records["core.note"][0]
        records["core.note"] = [
            {**note, "pk": 1000 + number, "fields": {**note["fields"], "note": text}} for number in range(3)
        ]

    path = tmp_path / "backup.zip"
    path.write_bytes(rewritten(take(), change).getvalue())
    with process(JOB, mode, path) as child:
        taken = int(hear(child)) / 1024
    assert taken < 200


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("mode", [again("overwrite"), "clear"])
def test_many_accounts_are_read_few_at_a_time(family, tmp_path, mode):
    """Long names of a few bytes in the file: all of them would take 80 MB."""

    def change(records):
        user, group = records["auth.user"][0], records["auth.group"][0]
        wide = {"first_name": "🍼" * 150, "last_name": "🍼" * 150, "password": "🍼" * 128}
        records["auth.user"] += [
            {**user, "pk": 1000 + number, "fields": {**user["fields"], **wide, "username": f"u{number}"}}
            for number in range(30_000)
        ]
        records["auth.group"] += [
            {**group, "pk": 1000 + number, "fields": {**group["fields"], "name": f"{number}" + "🍼" * 140}}
            for number in range(30_000)
        ]

    path = tmp_path / "backup.zip"
    path.write_bytes(rewritten(take(), change).getvalue())
    with process(JOB, mode, path) as child:
        taken = int(hear(child)) / 1024
    assert taken < 50


SMALL_PICTURES = """
    import re, sys, threading
    from pathlib import Path
    from backup.presentation.thumbnails import thumbnail

    def peak():
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

    def show(path):
        with open(path, "rb") as photo:
            assert thumbnail(photo)

    small, large = sys.argv[1:]
    show(small)
    before = peak()
    threads = [threading.Thread(target=show, args=[large]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(peak() - before, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_small_pictures_are_made_one_at_a_time(family, tmp_path):
    """Browsers ask for six at once, and the threads of a worker share its memory."""
    paths = tmp_path / "small.png", tmp_path / "large.png"
    for path, side in zip(paths, (10, math.isqrt(MEMORY // FORMATS["PNG"])), strict=True):
        Image.new("RGB", (side, side)).save(path)
    with process(SMALL_PICTURES, *paths) as child:
        taken = int(hear(child)) * 1024
    assert taken < 1.5 * MEMORY


@pytest.mark.parametrize("bytes_at_a_time", [1, 500, 5000])
def test_long_rows_are_read_and_compared_as_others_are(filled, monkeypatch, bytes_at_a_time):
    """Few at a time, wherever they are; with relations, and with keys of all kinds."""
    file = take()
    change_everything()
    changed = take()
    plans = [inspect(file, clear=clear).as_json()["changes"] for clear in (True, False)]
    kind = type(database_of())
    monkeypatch.setattr(kind, "BATCH", 7)
    monkeypatch.setattr(kind, "BATCH_BYTES", bytes_at_a_time)
    monkeypatch.setattr(kind, "SHORT", bytes_at_a_time)
    assert checksums_of(take()) == checksums_of(changed)
    assert [inspect(file, clear=clear).as_json()["changes"] for clear in (True, False)] == plans
    restore(file, clear=True)
    assert checksums_of(take()) == checksums_of(file)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("mode", [again("overwrite"), "clear"])
def test_of_many_records_with_the_same_values_few_are_held(family, tmp_path, mode):
    """Only some are named."""

    def change(records):
        settings = records["babybuddy.settings"][0]
        records["babybuddy.settings"] = [{**settings, "pk": 1000 + number} for number in range(60_000)]

    path = tmp_path / "backup.zip"
    path.write_bytes(rewritten(take(), change).getvalue())
    with process(JOB, mode, path) as child:
        taken = int(hear(child)) / 1024
    assert taken < 40

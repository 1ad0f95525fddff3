"""Others write while a restore runs: every change that was acknowledged is in the safety copy or in the result."""

import time
from collections import Counter

import pytest
from core import models as core
from django.contrib.auth.models import User
from django.db import connections

from backup import services
from backup.options import RestoreMode, RestoreOptions, Silent
from backup.storage import kept
from tests.support.backups import records_of, take
from tests.support.changing import add_everywhere, change_everything
from tests.support.processes import hear, process
from tests.support.snapshots import differences, snapshot


class Acting(Silent):
    """A reporter that lets somebody else do something as a phase begins."""

    def __init__(self, phase, act):
        self._phase, self._act = phase, act

    def phase(self, phase):
        if phase is self._phase:
            self._act()


def restore(file, mode, reporter):
    file.seek(0)
    return services.restore_backup(file, RestoreOptions(mode), reporter=reporter)


@pytest.mark.parametrize("mode", [RestoreMode.CLEAR, RestoreMode.OVERWRITE], ids=str)
def test_what_is_written_in_every_table_before_the_lock_is_in_the_safety_copy(
    filled, acting_before_the_lock, mode
):
    file = take()
    change_everything()
    states = []

    def write():
        User.objects.filter(username="newcomer").update(username="earlier")
        core.Note.objects.filter(note="changed").update(note="just now")
        core.Tag.objects.filter(name="new tag").update(name="earlier tag", slug="earlier")
        states.append(snapshot())

    acting_before_the_lock(write)
    restore(file, mode, Silent())
    services.undo_restore()
    assert not differences(states[0], snapshot())


def test_rows_in_every_table_before_the_lock(filled, acting_before_the_lock):
    before, file = snapshot(), take()
    states = []

    def write():
        add_everywhere()
        states.append(snapshot())

    acting_before_the_lock(write)
    restore(file, RestoreMode.CLEAR, Silent())
    assert not differences(before, snapshot()), "exactly the backup"
    services.undo_restore()
    assert not differences(states[0], snapshot())


def test_somebody_takes_the_keys_of_the_file(family, acting_before_the_lock):
    """The plan would insert rows that are there by now."""
    before, file = snapshot(), take()
    notes = list(core.Note.objects.all())
    core.Note.objects.all().delete()

    def take_the_keys():
        for note in notes:
            note.note = "somebody else's"
        core.Note.objects.bulk_create(notes)

    acting_before_the_lock(take_the_keys)
    restore(file, RestoreMode.OVERWRITE, Silent())
    assert not differences(before, snapshot())
    services.undo_restore()
    assert {*core.Note.objects.values_list("note", flat=True)} == {"somebody else's"}


# --- In another process, all the while --------------------------------------------------------------------

WRITER = """
    import sys, pathlib, time
    from core import models as core
    from django.contrib.auth.models import Group
    from django.db import DatabaseError, connection
    from tests.support.changing import ENTRIES

    stop = pathlib.Path(sys.argv[1])
    print("writing", flush=True)
    number = 0
    while not stop.exists():
        number += 1
        for model in [*ENTRIES, core.Tag, core.Timer, Group]:
            name = f"w{number} {model._meta.label_lower}"
            try:
                if model in (core.Tag, Group):
                    row = model(name=name[:50])
                else:
                    row = model.objects.order_by("pk").first()
                    if row is None:
                        continue
                    row.pk = None
                    if model is core.Timer:
                        row.name = name
                    else:
                        setattr(row, next(n for n in ("note", "notes", "milestone") if hasattr(row, n)), name)
                row.save()
            except (DatabaseError, core.Child.DoesNotExist):
                connection.close()
                continue
            print(model._meta.label_lower, row.pk, name, sep="|", flush=True)
            time.sleep(0.01)
    print("done", flush=True)
"""


def texts_of(fields):
    return {value for value in fields.values() if isinstance(value, str) and value.startswith("w")}


@pytest.mark.parametrize("mode", [RestoreMode.CLEAR, RestoreMode.OVERWRITE], ids=str)
@pytest.mark.parametrize("rows", [0, 4000])
def test_nothing_that_was_acknowledged_vanishes(family, tmp_path, mode, rows):
    child = family.children[0]
    moment = core.Note.objects.first().time
    core.Note.objects.bulk_create(core.Note(child=child, time=moment, note=f"n{i}") for i in range(rows))
    file = take()
    stop = tmp_path / "stop"
    connections.close_all()
    with process(WRITER, stop) as writer:
        assert hear(writer) == "writing"
        time.sleep(0.5)
        result = restore(file, mode, Silent())
        time.sleep(0.5)
        stop.touch()
        said = writer.stdout.read().splitlines()
    assert said[-1] == "done", writer.stderr
    acknowledged = [line.split("|") for line in said[:-1]]
    assert len(acknowledged) > 20

    with kept.open_backup(result.safety_copy) as copy:
        copied = {
            label: {text for row in rows for text in texts_of(row["fields"])}
            for label, rows in records_of(copy).items()
        }
    now = {
        label: {text for row in rows.values() for text in texts_of(row)}
        for label, rows in snapshot().items()
        if label in copied
    }
    lost = Counter(label for label, _key, name in acknowledged if name[:50] not in copied[label] | now[label])
    assert not lost
    if mode is RestoreMode.CLEAR:
        survived = Counter(
            label for label, _key, name in acknowledged if name[:50] in copied[label] & now[label]
        )
        assert not survived, "what was there before is gone"

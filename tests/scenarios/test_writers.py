"""Others write while a restore runs: every change that was acknowledged is in the safety copy or in the result."""

import threading
import time

import pytest
from core import models as core
from django.apps import apps
from django.contrib.auth.models import Group, User
from django.db import connection, connections

from backup import services
from backup.options import RestoreMode, RestoreOptions, Silent
from tests.support.backups import take
from tests.support.changing import ENTRIES, add_everywhere, change_everything
from tests.support.filling import UNTIL
from tests.support.matrices import again
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
    from django.core.exceptions import ObjectDoesNotExist
    from django.db import DatabaseError, connection
    from tests.support.changing import add_numbered, models_kept

    stop = pathlib.Path(sys.argv[1])
    print("writing", flush=True)
    number = 0
    while not stop.exists():
        number += 1
        for model in models_kept():
            try:
                told = add_numbered(model, number)
            except (DatabaseError, ObjectDoesNotExist):
                connection.close()
                continue
            if told:
                print(model._meta.label_lower, *told, sep="|", flush=True)
                time.sleep(0.002)
    print("done", flush=True)
"""


def add_notes(rows):
    """So many, by the database itself."""
    core.Note.objects.create(child=core.Child.objects.first(), note="one of many", time=UNTIL)
    names = ", ".join(
        connection.ops.quote_name(field.column)
        for field in core.Note._meta.local_concrete_fields
        if not field.primary_key
    )
    count = 1
    while count < rows:
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO core_note ({names}) SELECT {names} FROM core_note "
                f"WHERE note = 'one of many' ORDER BY id LIMIT {min(count, rows - count)}"
            )
        count *= 2


def values_here(acknowledged):
    """Model label -> the values that its rows have in the field by which they are told."""
    fields = {label: name for label, name, _value in acknowledged}
    return {
        label: {
            str(value)
            for value in apps.get_model(label)._base_manager.values_list(name, flat=True).distinct()
        }
        for label, name in fields.items()
    }


@pytest.mark.parametrize(
    ("mode", "rows"),
    [
        again(RestoreMode.CLEAR, 0),
        again(RestoreMode.OVERWRITE, 0),
        (RestoreMode.CLEAR, 4000),
        (RestoreMode.OVERWRITE, 4000),
        again(RestoreMode.CLEAR, 300_000),  # it takes up to a minute
    ],
    ids=str,
)
def test_nothing_that_was_acknowledged_vanishes(filled, tmp_path, mode, rows):
    """Somebody writes to every table all the while. What was there before the restore is what an undo brings back."""
    if rows:
        add_notes(rows)
    file = take()
    stop = tmp_path / "stop"
    connections.close_all()
    with process(WRITER, stop) as writer:
        heard = []
        hearing = threading.Thread(target=lambda: heard.extend(writer.stdout.read().splitlines()))
        assert hear(writer) == "writing"
        hearing.start()  # the writer would wait where nobody reads what it says
        time.sleep(1)
        restore(file, mode, Silent())
        time.sleep(0.5)
        stop.touch()
        hearing.join()
        assert heard[-1] == "done", writer.stderr.read()
    acknowledged = [line.split("|") for line in heard[:-1]]
    labels = {label for label, _name, _value in acknowledged}
    assert len(acknowledged) > 40
    assert labels >= {
        model._meta.label_lower for model in [*ENTRIES, core.Child, core.Tag, core.Timer, Group]
    }

    now = values_here(acknowledged)
    services.undo_restore()
    before = values_here(acknowledged)
    lost = [told for told in acknowledged if told[2] not in before[told[0]] | now[told[0]]]
    assert not lost
    if mode is RestoreMode.CLEAR:
        survived = [told for told in acknowledged if told[2] in before[told[0]] & now[told[0]]]
        assert not survived, "what was there before is gone"

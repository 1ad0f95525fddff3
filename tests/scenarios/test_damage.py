"""Data that cannot be read: a backup, a safety copy and a restore all the same, by choice, with all that is lost named.

SQLite lets a column hold anything, and a file of its own may be damaged: no other engine does either.
"""

import errno
import io
import operator
import os
import re
import shutil
import signal
import sqlite3
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from core import models as core
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.urls import reverse

from backup import rescue, services
from backup.automatic import run as automatic
from backup.conf import conf
from backup.database import memo
from backup.database.lock_file import LOCK_FILES
from backup.exceptions import BackupError, Damaged, Forbidden, InvalidBackup, StorageFailed, Unreadable
from backup.options import Part, RestoreMode, RestoreOptions
from backup.storage import kept, keys
from backup.tables import places_in_words
from backup.upgrade import process
from tests.support.backups import inspect, metadata_of, records_of, rewritten, take
from tests.support.http import error_of, script, upload
from tests.support.matrices import again
from tests.support.older import old
from tests.support.processes import process as other
from tests.support.snapshots import differences, snapshot
from tests.zoo import models as zoo

pytestmark = pytest.mark.skipif(connection.vendor != "sqlite", reason="of SQLite")

CLEAR = RestoreOptions(RestoreMode.CLEAR)

LATIN = "Fièvre".encode("latin-1")


def spoil():
    """Three values that nobody can read: one that may be missing, one that may not, and a text of other bytes."""
    change = core.DiaperChange.objects.first()
    weight = core.Weight.objects.first()
    note = core.Note.objects.first()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE core_diaperchange SET amount = '3,45' WHERE id = %s", [change.pk])
        cursor.execute("UPDATE core_weight SET weight = '' WHERE id = %s", [weight.pk])
        cursor.execute("UPDATE core_note SET note = CAST(%s AS TEXT) WHERE id = %s", [LATIN, note.pk])
    return change.pk, weight.pk, note.pk


def expected(before, change, weight, note):
    """What a backup holds that leaves out what `spoil` spoiled."""
    before["core.diaperchange"][change]["amount"] = None
    del before["core.weight"][weight]
    before["core.note"][note]["note"] = "Fi\N{REPLACEMENT CHARACTER}vre"
    return before


def assert_named(text, change, weight, note):
    for name, value in (
        (f"core.diaperchange {change}, field amount", "3,45"),
        (f"core.weight {weight}", "weight"),
        (f"core.note {note}, field note", r"Fi\xe8vre"),
    ):
        assert name in text
        assert value in text


def test_what_cannot_be_read_is_named_all_at_once_and_left_out_by_choice(family):
    spoiled = spoil()
    with pytest.raises(Unreadable) as caught:
        take()
    assert len(caught.value.details) == 3
    assert caught.value.offer == "leave_out"
    assert_named(str(caught.value), *spoiled)

    file = take(leave_out=True)
    left_out = metadata_of(file)["left_out"]
    assert left_out["total"] == 3
    assert {(place["model"], place["pk"], place["field"]) for place in left_out["places"]} == {
        ("core.diaperchange", spoiled[0], "amount"),
        ("core.weight", spoiled[1], None),
        ("core.note", spoiled[2], "note"),
    }
    file.seek(0)
    plan = services.inspect_backup(file, CLEAR)
    assert_named("\n".join(plan.warnings), *spoiled)


def test_no_message_quotes_a_secret(family, client):
    """Nor does a backup, or the preview of one that an earlier version made."""
    user = family.plain
    secret = user.password.partition("$")[2]
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE auth_user SET password = %s WHERE id = %s", [user.password.encode() + b"\xff", user.pk]
        )
    with pytest.raises(Unreadable, match=rf"auth\.user {user.pk}, field password: •••") as caught:
        take()
    assert secret not in str(caught.value)
    backup = take(leave_out=True)
    (place,) = metadata_of(backup)["left_out"]["places"]
    assert place == {"model": "auth.user", "pk": user.pk, "field": "password", "reason": "•••"}
    with pytest.raises(Damaged) as caught:
        services.restore_backup(backup, CLEAR)
    assert secret not in str(caught.value)

    def as_before(metadata):
        metadata["left_out"] = {
            "total": 2,
            "places": [
                {**place, "reason": f"b'pbkdf2_sha256${secret}"[:80]},
                {"model": "auth.user", "pk": 9, "field": None, "reason": f"whose password is b'{secret}"},
            ],
        }

    client.force_login(get_user_model().objects.get(username="admin"))
    for file in (backup, rewritten(backup, None, as_before)):
        page = client.post(reverse("backup:restore"), {"backup_file": upload(file.getvalue())}, follow=True)
        assert "field password: •••" in page.content.decode()
        assert secret[:20] not in page.content.decode()


def test_what_is_no_number_in_place_of_a_content_type(family):
    tagged = core.Tagged.objects.first()
    with connection.constraint_checks_disabled(), connection.cursor() as cursor:
        cursor.execute("UPDATE core_tagged SET content_type_id = 'x' WHERE id = %s", [tagged.pk])
    with pytest.raises(
        Unreadable, match=rf"core\.tagged {tagged.pk}: the whole record, whose content_type is 'x'"
    ):
        take()
    before = snapshot()
    del before["core.tagged"][tagged.pk]
    services.restore_backup(take(leave_out=True), replace(CLEAR, without_safety_copy=True))
    assert not differences(before, snapshot())


def test_no_key_of_a_record_that_is_left_out_is_given_again(family):
    last = core.Weight.objects.order_by("pk").last()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE core_weight SET weight = 'x' WHERE id = %s", [last.pk])
    file = take(leave_out=True)
    services.restore_backup(file, replace(CLEAR, without_safety_copy=True))
    left_out, last.pk, last.weight = last.pk, None, 5
    last.save()
    assert last.pk == left_out + 1


@pytest.mark.parametrize(
    "text",
    [
        r'"\ud83d"',
        r'{"name": "\ud83d"}',
        r'{"\uDE00": 1}',
        r'[1, {"a": ["\ude00\ud83d", 18446744073709551616]}]',
    ],
)
def test_half_of_a_surrogate_pair_in_json(family, text):
    """Django and its API take it, but no file of text can hold it."""
    emptied, gone, sound = (zoo.Specimen.objects.create(text=name) for name in ("emptied", "gone", "sound"))
    with connection.cursor() as cursor:
        for row, field, value in (
            (emptied, "json", text),
            (gone, "json_required", text),
            (sound, "json", r'["\ud83d\ude00", "\\ud83d"]'),
        ):
            cursor.execute(f"UPDATE zoo_specimen SET {field} = %s WHERE id = %s", [value, row.pk.hex])
    with pytest.raises(Unreadable) as caught:
        take()
    assert len(caught.value.details) == 2
    assert f"zoo.specimen {emptied.pk}, field json: " in str(caught.value)
    assert f"zoo.specimen {gone.pk}: the whole record, whose json_required is " in str(caught.value)

    file = take(leave_out=True)
    assert inspect(file, clear=False).as_json()["changes"]["zoo.specimen"]["changed"] == 1
    file.seek(0)
    with pytest.raises(Damaged, match="The safety copy cannot hold"):
        services.restore_backup(file, CLEAR)
    file.seek(0)
    services.restore_backup(file, replace(CLEAR, without_safety_copy=True))
    assert zoo.Specimen.objects.get(pk=emptied.pk).json is None
    assert zoo.Specimen.objects.get(pk=sound.pk).json == ["\N{GRINNING FACE}", r"\ud83d"]
    assert not zoo.Specimen.objects.filter(pk=gone.pk).exists()


def test_nothing_else_is_lost(family):
    before = snapshot()
    change, weight, note = spoil()
    file = take(leave_out=True)
    services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR, without_safety_copy=True))
    assert not differences(expected(before, change, weight, note), snapshot())


def path():
    return Path(connection.settings_dict["NAME"])


def places_of(table, file):
    """The positions of the pages with rows of a table, or with entries of an index, and the size of a page."""
    connection.close()
    with closing(sqlite3.connect(file)) as database:
        size = database.execute("PRAGMA page_size").fetchone()[0]
        pages = database.execute(
            "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY path", [table]
        )
        return [(number - 1) * size for (number,) in pages], size


def hurt(table, which, file=None, content=b"\xff"):
    """Overwrite a page of a table, or of an index: `which` of them."""
    file = file or path()
    places, size = places_of(table, file)
    with file.open("r+b") as raw:
        raw.seek(places[which])
        raw.write(content * size)


def forget_last(index):
    """Let an index lack its last entry."""
    (place, *_more), _size = places_of(index, path())
    with path().open("r+b") as raw:
        raw.seek(place + 3)  # the number of entries of a page
        number = int.from_bytes(raw.read(2), "big")
        raw.seek(place + 3)
        raw.write((number - 1).to_bytes(2, "big"))


def exchange(table, one, other):
    """Exchange two pages of a table, as a disk does that writes to a wrong place."""
    places, size = places_of(table, path())
    with path().open("r+b") as raw:
        contents = []
        for which in (one, other):
            raw.seek(places[which])
            contents.append(raw.read(size))
        for which, content in zip((other, one), contents, strict=True):
            raw.seek(places[which])
            raw.write(content)


def set_aside():
    """The damaged files that are kept beside the database."""
    return [*path().parent.glob(f"{path().name}-damaged-*")]


def beside():
    """What is beside the database, except for the files that are locked in its place."""
    locks = {f"{path()}-{lock}" for lock in LOCK_FILES.values()}
    return {file for file in path().parent.glob(f"{path().name}-*") if str(file) not in locks}


@pytest.fixture(autouse=True)
def nothing_set_aside():
    yield
    memo.forget_site()  # a new file may be another one
    for file in set_aside():
        file.unlink()


@pytest.fixture
def many(family):
    """Notes on several pages of the file."""
    child = core.Child.objects.first()
    core.Note.objects.bulk_create(
        core.Note(child=child, note=f"{number} " + "x" * 200) for number in range(200)
    )
    return family


@pytest.mark.parametrize("which", [0, 3, -1])
def test_rows_around_a_damaged_page(many, which):
    before = snapshot()
    hurt("core_note", which)
    with pytest.raises(Unreadable) as caught:
        take()
    assert "core.note" in str(caught.value)
    file = take(leave_out=True)
    (place,) = metadata_of(file)["left_out"]["places"]
    assert place["model"] == "core.note"
    found = {record["pk"] for record in records_of(file)["core.note"]}
    lost = before["core.note"].keys() - found
    first, last = map(int, re.findall(r"\d+", place["reason"]))
    assert lost == {key for key in before["core.note"] if first <= key <= last}
    assert 0 < len(lost) < 40
    assert records_of(file)["core.child"]


def hide(count):
    """Let the index by which the notes of a child are found lack the last rows of those, as a disk does that loses
    what was written. Returns its name."""
    (index,) = [name for name in names_of_indexes("core_note") if "child" in name]
    connection.close()
    with closing(sqlite3.connect(path(), isolation_level=None)) as database:
        made = database.execute("SELECT * FROM sqlite_master WHERE name = ?", [index]).fetchone()
        database.execute("PRAGMA writable_schema = ON")
        database.execute("DELETE FROM sqlite_master WHERE name = ?", [index])
    with closing(sqlite3.connect(path(), isolation_level=None)) as database:
        database.execute(
            "INSERT INTO core_note (child_id, note, time, image) SELECT child_id, note, time, image FROM core_note"
            " LIMIT ?",
            [count],
        )
        database.execute("PRAGMA writable_schema = ON")
        database.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", made)
    return index


@pytest.mark.parametrize("clear", [True, False])
def test_an_index_by_which_rows_of_a_child_are_found(many, clear):
    """A restore in which the child is another one would leave the rows to that one which it does not find."""
    file, there = take(), core.Note.objects.count()
    index = hide(30)
    before, records = snapshot(), records_of(take(leave_out=True))
    assert len(records["core.note"]) == there + 30
    with pytest.raises(Unreadable, match=rf"core.note: .*{index}.*REINDEX"):
        take()
    for refused in (services.inspect_backup, services.restore_backup):
        with pytest.raises(Damaged) as caught:
            refused(file, CLEAR if clear else RestoreOptions(RestoreMode.OVERWRITE))
        assert index in "".join([str(caught.value), *caught.value.details])
        assert caught.value.offer == "without_safety_copy"
    assert not differences(before, snapshot())
    with connection.cursor() as cursor:
        cursor.execute("REINDEX")
    assert records_of(take()) == records
    services.restore_backup(file, CLEAR)


@pytest.mark.parametrize("content", [b"\0", b"\xff"])
@pytest.mark.parametrize("table", ["core_note", "auth_user_groups"])
def test_an_index_that_cannot_be_read(many, table, content):
    """All rows can be, which a backup has; but no page of the host can look one up."""
    before = records_of(take())
    label = table.replace("_", ".") if table == "core_note" else "auth.user, field groups"
    hurt(index_of(table), 0, content=content)
    with pytest.raises(Unreadable, match=f"{label}: .*malformed.*REINDEX"):
        take()
    assert records_of(take(leave_out=True)) == before


@pytest.mark.parametrize("which", ["core_note", "index"])
def test_what_shows_its_progress_reads_damaged_files_as_well(many, tmp_path, which):
    """The rows are counted for that, and the count may fail although they can be read."""
    before = records_of(take())
    hurt(index_of("core_note") if which == "index" else "core_note", 0, content=b"\0")
    expected = records_of(take(leave_out=True))
    assert (expected == before) is (which == "index")
    call_command("backup", output=str(tmp_path / "x.zip"), leave_out=True)
    assert records_of(io.BytesIO((tmp_path / "x.zip").read_bytes())) == expected
    with suppress(BackupError):  # it says that something is left out
        automatic.run(now=True)
    (made,) = kept.backups()
    with kept.open_backup(made.name) as file:
        assert records_of(io.BytesIO(file.read())) == expected


def test_an_index_that_lacks_rows(family):
    """SQLite reads by it, and says nothing. Nor does its quick check."""
    before, good = records_of(take()), take()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name FROM sqlite_master WHERE type = 'index' AND (tbl_name = 'auth_user_groups' AND sql LIKE"
            " 'CREATE UNIQUE%' OR name = 'sqlite_autoindex_authtoken_token_1')"
        )
        indexes = [name for (name,) in cursor.fetchall()]
    assert len(indexes) == 2
    for index in indexes:
        forget_last(index)
    with pytest.raises(Unreadable) as caught:
        take()
    assert [line.split(":")[0] for line in caught.value.details] == [
        "auth.user, field groups",
        "authtoken.token",
    ]
    file = take(leave_out=True)
    found = records_of(file)
    key = operator.itemgetter("pk")
    assert {label: sorted(rows, key=key) for label, rows in found.items()} == {
        label: sorted(rows, key=key) for label, rows in before.items()
    }
    with pytest.raises(Damaged):
        services.restore_backup(good, CLEAR)
    raw = io.BytesIO(path().read_bytes())
    with pytest.raises(Unreadable, match="authtoken"):
        services.inspect_backup(raw, CLEAR)
    good.seek(0)
    kept_file(services.restore_backup(good, ALL_THE_SAME)).unlink()
    assert records_of(take()) == before
    with connection.cursor() as cursor:
        assert cursor.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    services.undo_restore()
    assert records_of(take()) == before


@pytest.mark.parametrize(("one", "other"), [(0, 1), again(1, -2)])
def test_rows_in_a_wrong_place(many, one, other):
    """All of them can be read, but not in the order of their keys, as a backup has them."""
    before, records = snapshot(), records_of(take())
    exchange("core_note", one, other)
    file = take(leave_out=True)
    lost = {place["pk"] for place in metadata_of(file).get("left_out", {}).get("places", ())}
    found = records_of(file)
    assert found["core.note"] == [record for record in records["core.note"] if record["pk"] not in lost]
    assert len(lost) < 20
    kept_file(services.restore_backup(file, ALL_THE_SAME)).unlink()
    assert not [line for line in differences(before, snapshot()) if not any(str(pk) in line for pk in lost)]


def index_of(table, file=None):
    """The name of an index of a table, here or in another file."""
    if file is None:
        return names_of_indexes(table)[0]
    with closing(sqlite3.connect(file)) as database:
        sql = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql <> ''"
        return database.execute(sql, [table]).fetchone()[0]


def names_of_indexes(table):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = %s AND sql <> ''", [table]
        )
        return [name for (name,) in cursor.fetchall()]


def test_a_table_that_is_missing(family):
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE core_note")
    with pytest.raises(Unreadable, match="core_note is missing"):
        take()
    file = take(leave_out=True)
    assert "core.note" not in metadata_of(file)["models"]
    assert records_of(file)["core.feeding"]


def test_the_way_on_from_the_page(family):
    """A backup that the server keeps, as a download: the error offers one of everything else."""
    spoiled = spoil()
    client = Client()
    client.force_login(family.admin)
    response = client.post(reverse("backup:run"), {"label": "before the holidays"})
    assert response.status_code == 409
    page = response.content.decode()
    form = page.split(f'action="{reverse("backup:run")}"')[1].split("</form>")[0]
    fields = dict(re.findall(r'type="hidden" name="(label|leave_out)" value="([^"]*)"', form))
    assert fields == {"label": "before the holidays", "leave_out": "true"}
    done = client.post(reverse("backup:run"), fields, follow=True).content.decode()
    assert "3 values" in done
    assert "before the holidays" in done
    (stored,) = kept.backups()
    assert stored.left_out.total == 3
    assert_named("\n".join(places_in_words(stored.left_out)), *spoiled)
    refused = script(family.admin).post(reverse("backup:run"))
    assert error_of(refused)["offer"] == "leave_out"
    answer = script(family.admin).post(reverse("backup:run"), {"leave_out": "true"}).json()
    assert answer["left_out"] == 3


# -- a restore over it ----------------------------------------------------------------------------------------


ALL_THE_SAME = RestoreOptions(RestoreMode.CLEAR, without_safety_copy=True)


def kept_file(result):
    """The path of the database file that a result says is kept."""
    (path,) = re.findall(r"\S+\.sqlite3\S*", " ".join(result.warnings))
    return Path(path.rstrip("."))


@pytest.mark.parametrize("mode", RestoreMode)
def test_over_values_that_cannot_be_read(family, mode):
    before, good = snapshot(), take()
    spoiled = spoil()
    as_read = records_of(take(leave_out=True))
    options = RestoreOptions(mode)
    services.inspect_backup(good, options)  # a preview is no problem
    good.seek(0)
    with pytest.raises(Damaged) as caught:
        services.restore_backup(good, options)
    assert caught.value.offer == "without_safety_copy"
    assert_named(str(caught.value), *spoiled)

    good.seek(0)
    result = services.restore_backup(good, replace(options, without_safety_copy=True))
    assert not differences(before, snapshot())
    assert_named("\n".join(result.warnings), *spoiled)
    with closing(sqlite3.connect(kept_file(result))) as raw:
        assert raw.execute("SELECT amount FROM core_diaperchange WHERE id = ?", spoiled[:1]).fetchone() == (
            "3,45",
        )
    services.undo_restore()
    assert records_of(take()) == as_read


@pytest.fixture
def made_already(django_db_setup, monkeypatch):
    """A new database is a copy, and not made by a child process: `test_over_a_damaged_file` has that."""
    monkeypatch.setattr(process, "fresh_database", lambda reporter: nullcontext(django_db_setup.stock))


def test_a_damaged_database_is_not_kept_in_clear_among_what_is_encrypted(family, settings):
    settings.BACKUP_ENCRYPT = ["local"]
    keys.add()
    good = take()
    spoil()
    result = services.restore_backup(good, ALL_THE_SAME)
    assert kept_file(result).parent == path().parent
    for file in filter(Path.is_file, conf.root.rglob("*")):
        assert not file.read_bytes().startswith(b"SQLite format 3")
    kept_file(result).unlink()


@pytest.mark.parametrize("wal", [True, False])
def test_a_new_file_keeps_the_journal_of_the_old_one(many, made_already, wal):
    """SQLite's write-ahead log is a property of the file, which a site may rely on."""
    good = take()
    connection.close()
    with closing(sqlite3.connect(path())) as database:
        mode = "WAL" if wal else "DELETE"
        assert database.execute(f"PRAGMA journal_mode = {mode}").fetchone() == (mode.lower(),)
    hurt("core_note", 3)
    result = services.restore_backup(good, ALL_THE_SAME)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        assert cursor.fetchone() == (mode.lower(),)
        cursor.execute("PRAGMA journal_mode = DELETE")
    for suffix in ("", "-wal", "-shm"):
        Path(f"{kept_file(result)}{suffix}").unlink(missing_ok=True)


@pytest.mark.parametrize("how", ["a page", again("the header"), again("a byte of the header")])
def test_over_a_damaged_file(many, monkeypatch, how):
    before, good, site = snapshot(), take(), memo.site_id()
    inode, tables = path().stat().st_ino, connection.introspection.table_names()
    if how == "a page":
        hurt("core_note", 3)
    else:
        connection.close()
        with path().open("r+b") as file:
            file.seek(47 if how == "a byte of the header" else 0)  # the format of the schema
            file.write(b"\xff" * (1 if how == "a byte of the header" else 4096))
    for act in (services.inspect_backup, services.restore_backup):
        good.seek(0)
        with pytest.raises(Damaged) as caught:
            act(good, CLEAR)
        assert caught.value.offer == "without_safety_copy"
    good.seek(0)
    with pytest.raises(Damaged):  # nothing can be added to it
        services.restore_backup(good, RestoreOptions(without_safety_copy=True))
    if how == "a page":
        with pytest.raises(InvalidBackup):
            services.restore_backup(io.BytesIO(b"no backup"), ALL_THE_SAME)
        assert path().stat().st_ino == inode  # it was put back

    if how == "a page":
        monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 600)
    good.seek(0)
    result = services.restore_backup(good, ALL_THE_SAME)
    assert not differences(before, snapshot())
    assert (
        connection.introspection.table_names() == tables
    )  # also those without a model, such as that of the cache
    assert any("Restart" in warning for warning in result.warnings) is (how == "a page")
    aside = kept_file(result)
    assert aside.stat().st_ino == inode
    aside.unlink()
    if how == "a page":
        memo.forget_site()
        assert memo.site_id() == site
        services.undo_restore()  # to what could be read
        assert core.Feeding.objects.count() == len(before["core.feeding"])
        assert 150 < core.Note.objects.count() < len(before["core.note"])


def hurt_all(*names):
    """Overwrite all pages of tables and indexes."""
    for name in names:
        with suppress(IndexError):
            while True:
                hurt(name, 0)


def test_damage_to_the_numbers_of_the_next_entries(family, django_db_setup):
    before = records_of(take())
    hurt_all("sqlite_sequence")
    with pytest.raises(Unreadable, match="sqlite_sequence") as caught:
        take()
    assert caught.value.offer == "leave_out"
    made = take(leave_out=True)
    assert records_of(made) == before
    assert "next_keys" not in metadata_of(made)
    damaged = io.BytesIO(path().read_bytes())
    django_db_setup.put_back()
    for file in (made, damaged):
        services.restore_backup(file, replace(CLEAR, leave_out=True))
        assert records_of(take()) == before


@pytest.mark.parametrize("table", ["django_content_type", "auth_permission"])
def test_content_types_are_read_by_their_index(family, table):
    before = records_of(take())
    hurt_all(table)
    assert records_of(take()) == before


def test_damage_to_all_content_types(family, django_db_setup):
    before = records_of(take())
    with connection.cursor() as cursor:
        indexes = connection.introspection.get_constraints(cursor, "django_content_type")
    hurt_all("django_content_type", *(name for name in indexes if "_app_label_model_" in name))
    with pytest.raises(Unreadable, match="django_content_type") as caught:
        take()
    assert caught.value.offer == "leave_out"
    made = take(leave_out=True)
    said = metadata_of(made)
    assert said["dangling"]["total"] >= len(before["core.tagged"])
    assert records_of(made)["core.feeding"] == before["core.feeding"]
    damaged = io.BytesIO(path().read_bytes())
    django_db_setup.put_back()
    for file in (made, damaged):
        file.seek(0)
        services.restore_backup(file, replace(CLEAR, leave_out=True))
        after = records_of(take())
        assert after["core.feeding"] == before["core.feeding"]
        assert not after["core.tagged"]


def test_over_a_file_that_does_not_say_which_site_it_is(many):
    """It becomes another site: what was kept is not listed any more, but still there."""
    good, site = take(), memo.site_id()
    services.keep_backup()
    hurt_all("django_migrations")
    memo.forget_site()
    result = services.restore_backup(good, ALL_THE_SAME)
    assert memo.site_id() != site
    assert any(f"site_{site}" in warning for warning in result.warnings)


def test_over_a_damaged_file_that_lacks_a_migration(many):
    """`migrate` may fail there, but a new file is up to date."""
    before, good = snapshot(), take()
    hurt("core_note", 3)
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE core_medication")
    MigrationRecorder(connection).record_unapplied("core", "0036_medication")
    services.restore_backup(good, ALL_THE_SAME)
    assert not differences(before, snapshot())
    call_command("migrate", verbosity=0)


def test_parts_are_not_restored_over_a_damaged_file(many):
    """Nobody could sign in."""
    good = take()
    hurt("core_note", 3)
    with pytest.raises(Damaged, match="Restore all parts") as caught:
        services.restore_backup(good, replace(ALL_THE_SAME, parts=(Part.ENTRIES,)))
    assert "auth_user" in caught.value.details
    services.restore_backup(good, ALL_THE_SAME)


def test_over_a_damaged_file_of_which_nothing_else_can_be_kept(many, made_already, settings):
    """The damaged file itself is all that is left, which is said."""
    before, good = snapshot(), take()
    settings.BACKUP_ENCRYPT = ["local"]  # without a key
    hurt("core_note", 3)
    result = services.restore_backup(good, ALL_THE_SAME)
    assert not differences(before, snapshot())
    assert not result.safety_copy
    assert any("could not be kept" in warning for warning in result.warnings)
    kept_file(result)


#: Restores over a damaged file, and is killed at a step. The new database is a copy of another one.
KILLED = """
    import os, signal, sys
    from contextlib import contextmanager, nullcontext
    from pathlib import Path
    from backup import rescue, services
    from backup.database import Database
    from backup.upgrade import process
    from tests.scenarios.test_damage import ALL_THE_SAME

    step, path, fresh = sys.argv[1:]
    process.fresh_database = lambda reporter: nullcontext(Path(fresh))

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def dying(owner, name, after):
        real = getattr(owner, name)

        def call(*arguments, **named):
            if not after:
                die()
            real(*arguments, **named)
            die()

        setattr(owner, name, call)

    restoring = Database.restoring

    @contextmanager
    def killed(*arguments):
        with restoring(*arguments):
            yield
            if step == "written":
                die()
        die()

    if step in ("written", "committed"):
        Database.restoring = killed
    else:
        owner, name, after = {
            "copied": (rescue.shutil, "copyfile", True),
            "put aside": (os, "link", True),
            "to be put in place": (os, "replace", False),
            "put in place": (os, "replace", True),
            "synced": (rescue, "sync_folder", True),
        }[step]
        if step != "copied":  # of what comes before, it uses the same functions
            finish = rescue._replace
            rescue._replace = lambda *arguments: (dying(owner, name, after), finish(*arguments))
        else:
            dying(owner, name, after)
    with open(path, "rb") as file:
        services.restore_backup(file, ALL_THE_SAME)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize(
    ("step", "wal"),
    [
        ("copied", False),
        ("written", False),
        ("committed", False),
        ("put aside", False),
        ("to be put in place", False),
        ("put in place", False),
        ("synced", False),
        # The log matters where it is written to, and where the file that it belongs to gives way to another.
        again("committed", True),
        again("to be put in place", True),
        again("put in place", True),
    ],
)
def test_killed_while_a_damaged_file_is_replaced(many, made_already, tmp_path, capfd, step, wal):
    """The site has the old data or the new, is the same site, and can go on as if nothing had been."""
    before, site, good = snapshot(), memo.site_id(), tmp_path / "good.zip"
    good.write_bytes(take().getvalue())
    connection.close()
    if wal:
        with closing(sqlite3.connect(path())) as database:
            database.execute("PRAGMA journal_mode = WAL")
    hurt("core_note", 3)
    core.Feeding.objects.filter(pk=core.Feeding.objects.first().pk).delete()
    connection.close()
    damaged = path().read_bytes()
    fresh = process.fresh_database(None).enter_result
    with other(KILLED, step, good, fresh) as child:
        assert child.wait(60) == -signal.SIGKILL, child.stderr.read()
    is_new = step in ("put in place", "synced")
    memo.forget_site()
    assert memo.site_id() == site
    if is_new:
        assert not differences(before, snapshot())
        assert [file.read_bytes() for file in set_aside()] == [damaged]
        good.write_bytes(take().getvalue())
    else:
        assert path().read_bytes() == damaged
        with pytest.raises(CommandError, match="--without-safety-copy"):
            call_command("restore", str(good), clear=True, interactive=False)
    call_command("backups")
    assert "what could be read" in capfd.readouterr().out
    call_command("restore", str(good), clear=True, interactive=False, without_safety_copy=True)
    assert not differences(before, snapshot())
    connection.close()
    assert beside() == {*set_aside()}
    call_command("restore", undo=True, interactive=False)
    assert core.Feeding.objects.count() == len(before["core.feeding"]) - (not is_new)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode = DELETE")


def test_a_new_file_that_cannot_take_the_place_of_the_old_one(many, made_already, monkeypatch):
    """Nothing was changed, and nothing is left."""
    good = take()
    hurt("core_note", 3)
    damaged = path().read_bytes()

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(rescue.os, "link", full)
        patched.setattr(rescue, "sync_folder", full)  # never reached
        patched.setattr(rescue.os, "replace", full)
        with pytest.raises(StorageFailed, match=re.escape(os.strerror(errno.ENOSPC))):
            services.restore_backup(good, ALL_THE_SAME)
    assert path().read_bytes() == damaged
    assert not beside()
    services.restore_backup(good, ALL_THE_SAME)


# -- commands, pages, scripts ---------------------------------------------------------------------------------


def test_a_command_leaves_out_by_choice(family, tmp_path, capfd):
    spoiled = spoil()
    with pytest.raises(CommandError, match="add --leave-out") as caught:
        call_command("backup", output=str(tmp_path / "x.zip"))
    assert_named(str(caught.value), *spoiled)
    assert not [*tmp_path.iterdir()]
    call_command("backup", output=str(tmp_path / "x.zip"), leave_out=True)
    assert_named(capfd.readouterr().err, *spoiled)
    with pytest.raises(CommandError, match="add --without-safety-copy"):
        call_command("restore", str(tmp_path / "x.zip"), clear=True, interactive=False)
    call_command("restore", str(tmp_path / "x.zip"), clear=True, interactive=False, without_safety_copy=True)
    assert "is kept as" in capfd.readouterr().out
    take()


@pytest.mark.parametrize(
    "damage",
    [again(lambda data: b"\xff" * 5000), lambda data: data.replace(b"AUTOINCREMENT", b"AUTOINCREMEN\x85", 1)],
    ids=["noise", "a schema that SQLite cannot quote as text"],
)
def test_a_command_restores_over_a_database_that_does_not_even_open(family, tmp_path, capfd, damage):
    before, good = snapshot(), tmp_path / "x.zip"
    good.write_bytes(take().getvalue())
    connection.close()
    path().write_bytes(damage(path().read_bytes()))
    with pytest.raises(CommandError, match="damaged"):
        call_command("backup", output=str(tmp_path / "y.zip"))
    with pytest.raises(CommandError, match="--without-safety-copy"):
        call_command("restore", str(good), clear=True, interactive=False)
    call_command("restore", str(good), clear=True, interactive=False, without_safety_copy=True)
    assert not differences(before, snapshot())
    (aside,) = set_aside()
    with pytest.raises(CommandError, match="no safety copy") as caught:
        call_command("restore", undo=True, interactive=False)
    assert str(aside) in str(caught.value)


def test_the_page_offers_a_backup_of_everything_else(family, client):
    client.force_login(family.admin)
    spoil()
    answer = client.get(reverse("backup:download"))
    assert answer.status_code == 409
    assert "3,45" in answer.content.decode()
    (link,) = re.findall(r'href="([^"]*leave_out=true)"', answer.content.decode())
    answer = client.get(link)
    assert answer.status_code == 200
    assert answer["X-Backup-Left-Out"] == "3"
    assert metadata_of(io.BytesIO(b"".join(answer.streaming_content)))["left_out"]["total"] == 3


def test_the_page_restores_over_unreadable_values_in_a_second_step(family, client):
    before, good = snapshot(), take().getvalue()
    client.force_login(family.admin)
    spoil()
    answer = client.post(
        reverse("backup:restore"), {"backup_file": upload(good), "clear_existing_data": "on"}
    )
    answer = client.get(answer["Location"])
    assert answer.status_code == 200
    fields = {**fields_in(answer, "confirm"), "confirmed": "yes"}
    answer = client.post(reverse("backup:confirm"), fields)
    assert answer.status_code == 409
    fields = fields_in(answer, "confirm")
    assert fields["without_safety_copy"] == "true"
    answer = client.post(reverse("backup:confirm"), fields, follow=True)
    assert "Are you sure?" in answer.content.decode()  # not by one click
    answer = client.post(reverse("backup:confirm"), {**fields, "confirmed": "yes"}, follow=True)
    assert answer.status_code == 200
    before["auth.user"][family.admin.pk]["last_login"] = None
    after = snapshot()
    after["auth.user"][family.admin.pk]["last_login"] = None
    assert not differences(before, after)


def test_the_page_restores_over_a_damaged_file(many, made_already, client):
    """No preview can be made, but there is a way on from the page."""
    before, good = snapshot(), take().getvalue()
    client.force_login(many.admin)
    hurt("core_note", 3)
    assert client.get(reverse("backup:index")).status_code == 200
    preview = client.post(reverse("backup:restore"), {"backup_file": upload(good)})
    answer = client.get(preview["Location"])
    assert answer.status_code == 409
    said = answer.content.decode().split('id="restoring-failed"')[0]
    assert said.count("Nothing was changed.") == 1
    fields = fields_in(answer, "confirm")
    assert (fields["without_safety_copy"], fields["clear_existing_data"]) == ("true", "true")
    answer = client.post(reverse("backup:confirm"), {**fields, "confirmed": "yes"}, follow=True)
    assert len(set_aside()) == 1
    assert answer.status_code == 200
    for state in (before, after := snapshot()):
        state["auth.user"][many.admin.pk]["last_login"] = None
    assert not differences(before, after)


def test_a_script_is_told_of_the_way_on(family):
    good = take().getvalue()
    spoil()
    client = script(family.admin)
    answer = client.post(
        reverse("backup:confirm"), {"backup_file": upload(good), "clear_existing_data": "true"}
    )
    assert answer.status_code == 409
    assert error_of(answer)["code"] == "damaged"
    assert error_of(answer)["offer"] == "without_safety_copy"
    answer = client.post(
        reverse("backup:confirm"),
        {"backup_file": upload(good), "clear_existing_data": "true", "without_safety_copy": "true"},
    )
    assert answer.status_code == 200


def test_only_a_superuser_is_offered_to_do_without_a_safety_copy(family):
    good = take().getvalue()
    spoil()
    client = script(family.staff)
    fields = {"clear_existing_data": "true", "parts": "entries"}
    answer = client.post(reverse("backup:confirm"), {"backup_file": upload(good), **fields})
    assert error_of(answer)["code"] == "damaged"
    assert "offer" not in error_of(answer)


def test_only_a_superuser_does_without_a_safety_copy(family):
    with pytest.raises(Forbidden):
        services.restore_backup(take(), ALL_THE_SAME, user=family.staff)


def fields_in(answer, action):
    page = answer.content.decode()
    form = page.split(f'action="{reverse("backup:" + action)}"')[1].split("</form>")[0]
    return dict(re.findall(r'type="hidden" name="(?!csrf)([^"]*)" value="([^"]*)"', form))


# -- an old db.sqlite3 ----------------------------------------------------------------------------------------


@pytest.fixture
def old_file(tmp_path):
    """A database file of another Baby Buddy, with a table that nobody wants."""
    file = tmp_path / "db.sqlite3"
    shutil.copyfile(old("2.9") / "db.sqlite3", file)
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE axes_junk (id integer PRIMARY KEY, path text)")
        database.executemany("INSERT INTO axes_junk (path) VALUES (?)", [["x" * 300]] * 50)
        database.commit()
    return file


def restore_file(file, **options):
    with file.open("rb") as source:
        return services.restore_backup(source, RestoreOptions(RestoreMode.CLEAR, **options))


def test_what_cannot_be_read_of_a_file_is_left_out_by_choice(host_db, old_file):
    hurt("axes_junk", 2, old_file)  # which nobody wants
    hurt("core_sleep", 1, old_file)
    with closing(sqlite3.connect(old_file)) as database:
        database.execute("UPDATE core_temperature SET temperature = '37,5' WHERE id = 1")
        database.execute("UPDATE core_note SET child_id = 77 WHERE id = (SELECT MIN(id) FROM core_note)")
        count = database.execute("SELECT COUNT(*) FROM core_temperature").fetchone()[0]
        database.commit()
    with pytest.raises(Unreadable, match=r"core\.temperature 1: .*37,5") as caught:
        restore_file(old_file)
    assert [line.split()[0] for line in caught.value.details] == ["core.sleep:", "core.temperature"]
    result = restore_file(old_file, leave_out=True)
    assert "37,5" in " ".join(result.warnings)
    assert "core.child 77" in " ".join(result.warnings)
    assert core.Temperature.objects.count() == count - 1
    assert core.Sleep.objects.exists()
    assert not core.Note.objects.filter(child_id=77).exists()


def test_a_damaged_index_of_a_file_costs_no_row(host_db, old_file):
    for table in ("core_sleep", "core_note"):
        hurt(index_of(table, old_file), 0, old_file, b"\0")
    with closing(sqlite3.connect(old_file)) as database:
        rows = database.execute("SELECT id, start FROM core_sleep NOT INDEXED").fetchall()
    with pytest.raises(Unreadable, match=r"core\.sleep") as caught:
        restore_file(old_file)
    assert caught.value.offer == "leave_out"
    restore_file(old_file, leave_out=True)
    assert {*core.Sleep.objects.values_list("pk", flat=True)} == {key for key, _start in rows}

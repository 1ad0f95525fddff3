"""Damage to a backup file: it is named, a superuser can leave it out, and nothing that was lost comes back wrong."""

import io
import json
import re
import zipfile
from dataclasses import replace

import pytest
from core import models as core
from django.contrib.contenttypes.models import ContentType
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone

from backup import services
from backup.archive import Archive, Key, Limits, Writer
from backup.exceptions import DamagedBackup, InvalidBackup, RecordsRefused, WrongKey
from backup.options import RestoreMode, RestoreOptions
from tests.support import older
from tests.support.backups import encrypted, packed, records_of, rewritten, take, unpacked
from tests.support.http import error_of, script, upload

MODES = RestoreMode.OVERWRITE, RestoreMode.CLEAR
LEFT_OUT = {mode: RestoreOptions(mode, leave_out=True) for mode in MODES}


def data_of(data, name):
    """Where the packed bytes of a member begin and end."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = archive.getinfo(name)
    header = data[info.header_offset : info.header_offset + 30]
    start = (
        info.header_offset
        + 30
        + int.from_bytes(header[26:28], "little")
        + int.from_bytes(header[28:], "little")
    )
    return start, start + info.compress_size


def flipped(file, name, where=0.5):
    """The file with a bit flipped in a member."""
    data = bytearray(file.getvalue())
    start, end = data_of(bytes(data), name)
    data[start + int((end - start - 1) * where)] ^= 0x10
    return io.BytesIO(bytes(data))


def without(file, name):
    members = unpacked(file)
    del members[name]
    return packed(members)


def cut_off(file, name="metadata.json"):
    """The file as an interrupted download leaves it, which has come to the middle of a member."""
    start, end = data_of(file.getvalue(), name)
    return io.BytesIO(file.getvalue()[: (start + end) // 2])


HOW = [lambda f: flipped(f, "core/note.json"), cut_off, lambda f: without(f, "core/tag.json")]


@pytest.fixture
def many(family):
    """A family with so many notes that a part of them can be read."""
    core.Note.objects.bulk_create(
        core.Note(child=family.children[0], note=f"No. {n} of many: {n**5 % 7919}") for n in range(400)
    )
    return family


@pytest.mark.parametrize("where", [0.02, 0.5, 0.97])
@pytest.mark.parametrize("mode", MODES)
def test_a_flipped_bit_costs_what_comes_after_it(many, mode, where):
    file = take()
    before = {record["pk"]: record for record in records_of(file)["core.note"]}
    damaged = flipped(file, "core/note.json", where)
    for options in (RestoreOptions(mode), RestoreOptions(mode, edited=True)):
        for do in (services.inspect_backup, services.restore_backup):
            with pytest.raises(InvalidBackup, match=r"“core/note\.json” in the backup is damaged") as caught:
                do(damaged, options)
            assert caught.value.offer == "leave_out"

    core.Note.objects.all().delete()
    core.Feeding.objects.all().delete()
    plan = services.inspect_backup(damaged, LEFT_OUT[mode])
    result = services.restore_backup(damaged, LEFT_OUT[mode])
    for warnings in (plan.warnings, result.warnings):
        assert any("core.note" in line and "core/note.json" in line for line in warnings)
        assert any("in part only" in line for line in warnings) == mode.clears
    assert result.restored["core.note"] == core.Note.objects.count() == plan.records["core.note"]
    assert core.Note.objects.count() <= len(before)
    assert where < 0.1 or core.Note.objects.count() > (where - 0.3) * len(before)
    assert core.Feeding.objects.count() == len(records_of(file)["core.feeding"])


def test_a_missing_member_counts_as_empty(many):
    damaged = without(take(), "core/timer.json")
    for options in (RestoreOptions(), RestoreOptions(edited=True)):
        with pytest.raises(InvalidBackup, match=r"“core/timer\.json” is missing") as caught:
            services.inspect_backup(damaged, options)
        assert caught.value.offer == "leave_out"
    result = services.restore_backup(damaged, RestoreOptions(RestoreMode.CLEAR, edited=True, leave_out=True))
    assert any("core/timer.json" in line for line in result.warnings)
    assert not core.Timer.objects.exists()
    assert core.Note.objects.exists()


@pytest.mark.parametrize(
    "how",
    [
        lambda f: flipped(f, "metadata.json"),
        cut_off,
        lambda f: cut_off(f, "core/note.json"),
        lambda f: without(f, "metadata.json"),
        lambda f: packed_again(f, "metadata.json", lambda text: text[:400]),
        lambda f: packed_again(f, "metadata.json", lambda text: b""),
        lambda f: packed_again(f, "metadata.json", lambda text: b"[%b]" % text),
        lambda f: packed_again(f, "metadata.json", lambda text: text.replace(b'"models"', b'"madels"')),
    ],
)
def test_a_backup_without_its_metadata_or_its_end(many, how):
    file = take()
    damaged = how(file)
    options = LEFT_OUT[RestoreMode.OVERWRITE]
    for edited in (True, False):
        with pytest.raises(InvalidBackup, match=r"metadata\.json|end of the file is missing") as caught:
            services.inspect_backup(damaged, RestoreOptions(edited=edited))
        assert caught.value.offer == "leave_out"
    core.Child.objects.all().delete()
    plans = [services.inspect_backup(damaged, replace(options, edited=edited)) for edited in (True, False)]
    result = services.restore_backup(damaged, options)
    for warnings in (*(plan.warnings for plan in plans), result.warnings):
        (said,) = [line for line in warnings if "metadata.json" in line]
        assert "may go unnoticed" in said
        assert not [line for line in warnings if "1.0" in line], "nobody knows its version"
    assert core.Child.objects.count() == len(records_of(file)["core.child"])


@pytest.mark.parametrize(
    ("text", "said"), [(b'{"version": "7.0"}', "newer"), (b"[%b1]" % (b"1," * 600_000), "too long")]
)
def test_metadata_that_is_not_damaged_but_refused(family, text, said):
    """It takes an update, or is meant to do harm."""
    file = packed_again(take(), "metadata.json", lambda _text: text)
    for options in (RestoreOptions(), *LEFT_OUT.values()):
        with pytest.raises(InvalidBackup, match=said) as caught:
            services.inspect_backup(file, options)
        assert caught.value.offer == ""


@pytest.mark.parametrize("text", [b"", b"[]"])
def test_no_backup_is_lost_with_its_metadata(family, text):
    """What has no records must not empty the site."""
    for options in (RestoreOptions(), *LEFT_OUT.values()):
        with pytest.raises(InvalidBackup, match=r"metadata\.json") as caught:
            services.inspect_backup(packed({"metadata.json": text, "core/": b""}), options)
        assert caught.value.offer == ""


def test_numbers_that_somebody_who_edited_the_file_did_not_correct(family):
    file = rewritten(take(), change_metadata=lambda metadata: metadata.update(total_records=1))
    with pytest.raises(InvalidBackup, match="total_records") as caught:
        services.inspect_backup(file, RestoreOptions())
    assert caught.value.offer == "edited"
    assert services.inspect_backup(file, RestoreOptions(edited=True)).refusal is None


def packed_again(file, name, change):
    """The file as somebody packs it who has unpacked a damaged one: only the text of a member shows the damage."""
    members = unpacked(file)
    members[name] = change(members[name])
    return packed(members)


TEXTS = [
    lambda text: text[: len(text) // 2],
    lambda text: text[: len(text) // 2] + b"\0" * 50 + text[len(text) // 2 + 50 :],
]


@pytest.mark.parametrize("change", TEXTS)
@pytest.mark.parametrize("mode", MODES)
def test_what_was_damaged_before_it_was_packed_is_left_out_of_an_edited_file(many, mode, change):
    damaged = packed_again(take(), "core/note.json", change)
    options = RestoreOptions(mode, edited=True)
    for do in (services.inspect_backup, services.restore_backup):
        with pytest.raises(DamagedBackup, match=r"“core/note\.json” cannot be read") as caught:
            do(damaged, options)
        assert caught.value.offer == "leave_out"
    core.Note.objects.all().delete()
    options = replace(options, leave_out=True)
    plan = services.inspect_backup(damaged, options)
    result = services.restore_backup(damaged, options)
    for warnings in (plan.warnings, result.warnings):
        assert any("core/note.json" in line and "damaged" in line for line in warnings)
        assert any("edited" in line for line in warnings)
    assert 150 < core.Note.objects.count() == plan.records["core.note"] < 250


@pytest.mark.parametrize("change", TEXTS)
def test_what_was_edited_badly_comes_from_the_page_in_part(many, client, change):
    data = packed_again(take(), "core/note.json", change).getvalue()
    client.force_login(many.admin)
    form = {"backup_file": upload(data), "edited": "true", "clear_existing_data": "true"}
    page = client.post(reverse("backup:restore"), form, follow=True).content.decode()
    form = page.split(f'action="{reverse("backup:restore")}"')[1].split("</form>")[0]
    fields = dict(re.findall(r'type="hidden" name="(?!csrf)([^"]*)" value="([^"]*)"', form))
    assert (fields["edited"], fields["leave_out"]) == ("true", "true")
    page = client.post(reverse("backup:restore"), fields, follow=True).content.decode()
    assert "What this backup would do" in page
    assert "core/note.json" in page


# -- who may do it, and where ---


def test_only_a_superuser_may(many):
    """Whoever leaves out what is damaged takes a file whose checksums are wrong."""
    damaged = flipped(take(), "core/note.json")
    for options in (RestoreOptions(), *LEFT_OUT.values()):
        for do in (services.inspect_backup, services.restore_backup):
            with pytest.raises(DamagedBackup) as caught:
                do(damaged, options, user=many.staff)
            assert caught.value.offer == ""
    services.restore_backup(damaged, LEFT_OUT[RestoreMode.OVERWRITE], user=many.admin)


@pytest.mark.parametrize("how", HOW)
def test_the_page_and_a_script_are_offered_it(many, client, how):
    data = how(take()).getvalue()
    answer = script(many.admin).post(reverse("backup:confirm"), {"backup_file": upload(data)})
    assert (answer.status_code, error_of(answer)["offer"]) == (400, "leave_out")
    client.force_login(many.admin)
    answer = client.post(reverse("backup:restore"), {"backup_file": upload(data)}, follow=True)
    form = answer.content.decode().split(f'action="{reverse("backup:restore")}"')[1].split("</form>")[0]
    fields = dict(re.findall(r'type="hidden" name="(?!csrf)([^"]*)" value="([^"]*)"', form))
    assert fields["leave_out"] == "true"
    answer = client.post(reverse("backup:restore"), fields, follow=True)
    assert "The backup lacks" in answer.content.decode()
    assert "Please note" in answer.content.decode()


@pytest.mark.parametrize("how", HOW)
def test_the_commands_are_offered_it(many, tmp_path, how):
    file = take()
    sound, damaged = tmp_path / "sound.zip", tmp_path / "damaged.zip"
    sound.write_bytes(file.getvalue())
    damaged.write_bytes(how(file).getvalue())
    for command in (
        ["restore", str(damaged), "--no-input"],
        ["prove_backup", str(damaged)],
        ["compare_backups", str(sound), str(damaged)],
    ):
        with pytest.raises(CommandError, match="--leave-out"):
            call_command(*command)
        out = io.StringIO()
        call_command(*command, "--leave-out", stdout=out)
        assert re.search(r"(core/note|core/tag|metadata)\.json", out.getvalue())


def test_verify_names_every_member_that_is_damaged(many, tmp_path):
    damaged = flipped(flipped(take(), "core/note.json"), "core/child.json")
    path = tmp_path / "damaged.zip"
    path.write_bytes(damaged.getvalue())
    with pytest.raises(CommandError, match=r"(?s)core/child\.json.*core/note\.json"):
        call_command("verify_backup", str(path))


# -- encrypted, and older ---


@pytest.mark.parametrize(
    "how",
    [
        lambda f: flipped(f, "core/note.json", 0.7),
        lambda f: flipped(f, "metadata.json"),
        lambda f: cut_off(f),
        lambda f: cut_off(f, "core/note.json"),
    ],
    ids=["a bit of a member", "a bit of the metadata", "without its end", "without much of it"],
)
def test_an_encrypted_backup(many, how):
    key = Key.make()
    file = take()
    damaged = how(encrypted(file, key))
    with pytest.raises(InvalidBackup, match="damaged") as caught:
        services.inspect_backup(damaged, RestoreOptions(), key=key)
    assert caught.value.offer == "leave_out"
    core.Child.objects.all().delete()
    assert services.inspect_backup(damaged, LEFT_OUT[RestoreMode.OVERWRITE], key=key).refusal is None
    services.restore_backup(damaged, LEFT_OUT[RestoreMode.OVERWRITE], key=key)
    assert core.Child.objects.count() == len(records_of(file)["core.child"])


def test_an_encrypted_backup_whose_metadata_is_not_json(many):
    """It is read with its key, and with no other."""
    key, file = Key.make(), take()
    target = io.BytesIO()
    with Archive(file, Limits()) as archive, Writer(target) as writer:
        writer.encrypt(key, archive.metadata)
        for member in archive.metadata.models.values():
            writer.write(member.file, archive.read(member))
        writer.write("metadata.json", [b"{"])
    core.Child.objects.all().delete()
    for options in (RestoreOptions(), *LEFT_OUT.values()):
        with pytest.raises(WrongKey):
            services.inspect_backup(target, options, key=Key.make())
    with pytest.raises(DamagedBackup, match=r"metadata\.json") as caught:
        services.inspect_backup(target, RestoreOptions(), key=key)
    assert caught.value.offer == "leave_out"
    services.restore_backup(target, LEFT_OUT[RestoreMode.OVERWRITE], key=key)
    assert core.Child.objects.count() == len(records_of(file)["core.child"])


def test_an_older_backup(host_db, scratch):
    data = older.old("2.0") / "backup.zip"
    file = io.BytesIO(data.read_bytes())
    before = len(records_of(file)["core.feeding"])
    damaged = flipped(file, "core/feeding.json", 0.9)
    with pytest.raises(InvalidBackup, match=r"core/feeding\.json") as caught:
        services.restore_backup(damaged, RestoreOptions())
    assert caught.value.offer == "leave_out"
    result = services.restore_backup(damaged, LEFT_OUT[RestoreMode.OVERWRITE])
    assert any("core/feeding.json" in line for line in result.warnings)
    assert 0 < core.Feeding.objects.count() <= before


# -- nothing silently wrong ---


def stored(file, change):
    """The backup without compression, with the text of notes changed and not its checksum: damage that unpacks."""
    members = unpacked(file)
    data = packed(members, zipfile.ZIP_STORED).getvalue()
    text = members["core/note.json"]
    changed = change(text)
    assert len(changed) == len(text)
    assert changed != text
    return io.BytesIO(data.replace(text, changed))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[::-1].replace(b'"child"'[::-1], b'"chold"'[::-1], 3)[::-1],
        lambda text: text[::-1].replace(b'"time":"2'[::-1], b'"time":"x'[::-1], 3)[::-1],
        lambda text: text[::-1].replace(b'"model"'[::-1], b'"mod\xffl"'[::-1], 3)[::-1],
    ],
    ids=["a field of no model", "a value of no field", "no text"],
)
def test_what_unpacks_but_is_no_record_ends_what_is_read(many, change):
    file = take()
    core.Note.objects.all().delete()
    result = services.restore_backup(stored(file, change), LEFT_OUT[RestoreMode.OVERWRITE])
    assert result.restored["core.note"] == core.Note.objects.count() == len(records_of(file)["core.note"]) - 3


def test_entries_of_a_lost_child_do_not_become_those_of_another_one(many):
    """At another site, the number of the lost child is that of somebody else."""
    file = without(elsewhere(take()), "core/child.json")
    core.Note.objects.all().delete()
    services.inspect_backup(file, LEFT_OUT[RestoreMode.OVERWRITE])
    result = services.restore_backup(file, LEFT_OUT[RestoreMode.OVERWRITE])
    assert not core.Note.objects.exists()
    assert any("core.note (" in line for line in result.warnings)


def test_entries_of_a_lost_child_come_back_to_it_where_it_still_is(many):
    file = take()
    core.Note.objects.all().delete()
    services.restore_backup(without(file, "core/child.json"), LEFT_OUT[RestoreMode.OVERWRITE])
    assert core.Note.objects.count() == len(records_of(file)["core.note"])


def test_entries_of_a_lost_child_are_left_out_and_named_where_all_is_cleared(many):
    file = without(take(), "core/child.json")
    result = services.restore_backup(file, LEFT_OUT[RestoreMode.CLEAR])
    assert not core.Note.objects.exists()
    assert any(line.startswith("Left out, since they") and "core.note (" in line for line in result.warnings)


@pytest.mark.parametrize("mode", MODES)
def test_a_field_that_referred_to_what_is_lost_is_named(family, mode):
    child, start = family.children[0], "2026-01-01T00:00Z"
    key = core.Timer.objects.create(user=family.admin, child=child, start=start).pk
    file = without(elsewhere(take()), "core/child.json")
    core.Timer.objects.all().delete()
    named = f"core.timer {key}, field child"
    for do in (services.inspect_backup, services.restore_backup):
        assert [line for line in do(file, LEFT_OUT[mode]).warnings if named in line]
    assert core.Timer.objects.get(pk=key).child is None


# -- files without their end ---


def test_a_file_without_its_end_that_has_many_photos(many, settings):
    members = unpacked(take())
    for number in range(2100):
        members[f"media/notes/images/{number}.png"] = b"x" * 40
    for name in "core/timer.json", "metadata.json":
        members[name] = members.pop(name)
    damaged = cut_off(packed(members, zipfile.ZIP_STORED), "core/timer.json")
    core.Child.objects.all().delete()
    services.restore_backup(damaged, LEFT_OUT[RestoreMode.OVERWRITE])
    assert core.Child.objects.exists()


def test_a_file_that_ends_soon_after_a_large_member_begins(many):
    """The length of what is lost does not count."""
    members = unpacked(take())
    members["media/large.txt"] = b"".join(b"%d," % (n**3 % 7919) for n in range(4_000_000))
    members["metadata.json"] = members.pop("metadata.json")
    data = packed(members).getvalue()
    start, _end = data_of(data, "media/large.txt")
    core.Child.objects.all().delete()
    services.restore_backup(io.BytesIO(data[: start + 100]), LEFT_OUT[RestoreMode.OVERWRITE])
    assert core.Child.objects.exists()


def test_a_file_without_its_end_that_has_folders(many):
    """Other tools add an entry for each when they pack a backup again. It has no content."""
    file = take()
    damaged = cut_off(packed({"core/": b"", **unpacked(file)}, zipfile.ZIP_STORED))
    core.Child.objects.all().delete()
    services.restore_backup(damaged, LEFT_OUT[RestoreMode.OVERWRITE])
    assert core.Child.objects.count() == len(records_of(file)["core.child"])


# -- tags of what was lost ---


def elsewhere(file):
    """The backup as one of another site."""

    def change(metadata):
        metadata["instance"] = "0" * len(metadata["instance"])

    return rewritten(file, change_metadata=change)


@pytest.fixture
def tagged(many):
    """A family of which each note has a tag of its own."""
    notes = core.Note.objects.values_list("pk", flat=True)
    core.Tag.objects.bulk_create(core.Tag(name=f"T{pk}", slug=f"t{pk}") for pk in notes)
    of_notes = ContentType.objects.get_for_model(core.Note)
    core.Tagged.objects.bulk_create(
        core.Tagged(tag=tag, content_type=of_notes, object_id=int(tag.name[1:]))
        for tag in core.Tag.objects.filter(slug__in=[f"t{pk}" for pk in notes])
    )
    core.Temperature.objects.first().tags.add("warm")
    return many


def tags_of_nothing():
    """The generic references that lead to no row: the next one would get the tag."""
    links = core.Tagged.objects.select_related("content_type")
    return [link for link in links if not link.content_type.get_all_objects_for_this_type(pk=link.object_id)]


@pytest.mark.parametrize(
    "how",
    [
        lambda f: flipped(f, "core/note.json"),
        lambda f: without(f, "core/temperature.json"),
        lambda f: without(f, "core/note.json"),
        lambda f: without(f, "core/child.json"),
        lambda f: flipped(without(f, "core/child.json"), "core/note.json"),
        lambda f: moved_to_the_end(f, "core/temperature.json"),
        lambda f: moved_to_the_end(f, "core/note.json"),
    ],
    ids=["a bit", "temperature", "note", "child", "both", "cut off", "cut off notes"],
)
def test_tags_of_lost_entries_do_not_become_those_of_the_next(tagged, how):
    damaged = how(take())
    texts = dict(core.Note.objects.values_list("pk", "note"))
    services.inspect_backup(damaged, LEFT_OUT[RestoreMode.CLEAR])
    services.restore_backup(damaged, LEFT_OUT[RestoreMode.CLEAR])
    assert not tags_of_nothing()
    child = core.Child.objects.first() or core.Child.objects.create(first_name="A", birth_date="2026-01-01")
    assert not core.Note.objects.create(child=child, note="the next").tags.count()
    for note in core.Note.objects.exclude(note="the next"):
        # The bit may have made another number of one in the file, which nobody can tell.
        assert f"T{note.pk}" in note.tags.names() or texts.get(note.pk) != note.note


def test_a_long_chain_of_lost_entries_is_refused(family):
    """To follow it takes reading the file once for each link, of which a small file may have any number."""
    of_marks = ContentType.objects.get_for_model(core.Tagged)
    tag = core.Tag.objects.create(name="x", slug="x")
    core.Tagged.objects.all().delete()
    core.Tagged.objects.bulk_create(
        core.Tagged(pk=pk, tag=tag, content_type=of_marks, object_id=pk + 1) for pk in range(1, 3001)
    )
    file = elsewhere(take())
    core.Tagged.objects.all().delete()
    with pytest.raises(InvalidBackup, match=r"core\.tagged"):
        services.inspect_backup(file, LEFT_OUT[RestoreMode.OVERWRITE])


def of_version_1_0(file):
    said = {"version": "1.0", "timestamp": "2025-01-02T03:04:05+00:00"}
    return packed({**unpacked(file), "metadata.json": json.dumps(said)})


@pytest.mark.parametrize("made", [lambda f: f, elsewhere, of_version_1_0], ids=["here", "elsewhere", "1.0"])
def test_tags_of_entries_that_somebody_took_out_of_the_file(family, made):
    """By hand: the number of such an entry is that of the next one, where existing data is cleared."""
    note = core.Note.objects.create(child=family.children[0], note="taken out", time=timezone.now())
    note.tags.add("private")
    highest = core.Tagged.objects.latest("pk").pk
    edited = packed({**unpacked(made(take())), "core/note.json": b"[\n]\n"})
    for do in (services.inspect_backup, services.restore_backup):
        plan_or_error = None
        try:
            options = RestoreOptions(RestoreMode.CLEAR, edited=made is not of_version_1_0)
            plan_or_error = do(edited, options).refusal
        except RecordsRefused as error:
            plan_or_error = error
        assert plan_or_error.offer == "leave_out"
        assert [line for line in plan_or_error.details if "core.tagged" in line]
    for file in (edited, without(edited, "metadata.json")):
        options = replace(options, leave_out=True)
        for do in (services.inspect_backup, services.restore_backup):
            assert [line for line in do(file, options).warnings if "core.tagged" in line]
        assert not tags_of_nothing()
        assert core.Tagged.objects.exists()
        link = core.Tagged.objects.create(
            tag=core.Tag.objects.first(), content_object=core.Child.objects.first()
        )
        assert link.pk > highest, "no number of what was left out is given again"
        link.delete()


def moved_to_the_end(file, name):
    """The file without its end, and so without this member, which no list names."""
    members = unpacked(file)
    members = {n: data for n, data in members.items() if n not in (name, "metadata.json")} | {
        name: members[name],
        "metadata.json": members["metadata.json"],
    }
    data = packed(members).getvalue()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return io.BytesIO(data[: archive.getinfo(name).header_offset])


@pytest.mark.parametrize(
    "how",
    [
        lambda f: without(elsewhere(f), "core/note.json"),
        lambda f: moved_to_the_end(f, "core/note.json"),
    ],
    ids=["missing", "cut off"],
)
def test_tags_of_lost_entries_do_not_become_those_of_others_here(tagged, how):
    damaged = how(take())
    core.Tagged.objects.all().delete()
    services.restore_backup(damaged, LEFT_OUT[RestoreMode.OVERWRITE])
    assert not core.Tagged.objects.filter(content_type__model="note").exists()
    assert core.Temperature.objects.filter(tags__name="warm").exists()


@pytest.mark.parametrize("mode", MODES)
def test_what_a_file_without_its_end_lacks_is_named(many, mode):
    damaged = moved_to_the_end(take(), "core/note.json")
    for do in (services.inspect_backup, services.restore_backup):
        warnings = do(damaged, LEFT_OUT[mode]).warnings
        assert any("no records of" in line and "core.note" in line for line in warnings)


def test_tags_of_lost_entries_of_an_older_backup(host_db, scratch):
    file = io.BytesIO((older.old("2.0") / "backup.zip").read_bytes())
    services.inspect_backup(flipped(file, "core/feeding.json"), LEFT_OUT[RestoreMode.CLEAR])
    services.restore_backup(flipped(file, "core/feeding.json"), LEFT_OUT[RestoreMode.CLEAR])
    assert not tags_of_nothing()


def test_tags_of_entries_of_a_lost_child_of_an_older_backup(host_db, scratch):
    file = io.BytesIO((older.old("2.0") / "backup.zip").read_bytes())
    services.restore_backup(without(file, "core/child.json"), LEFT_OUT[RestoreMode.CLEAR])
    assert not core.Feeding.objects.exists()
    assert not tags_of_nothing()

"""Rows that are plainly another record than the backup's with the same key: replaced and said so, or both kept."""

import datetime as dt

import pytest
from babybuddy.models import Settings
from core import models as core
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from rest_framework.authtoken.models import Token

from backup import services
from backup.exceptions import RecordsRefused
from backup.options import Part, RestoreMode, RestoreOptions
from backup.presentation.modes import other_modes
from tests.support.backups import inspect, restore, rewritten, take
from tests.support.snapshots import differences, snapshot
from tests.zoo import models as zoo

UTC = dt.timezone.utc
START = dt.datetime(2026, 3, 1, tzinfo=UTC)


def keep_both(file):
    file.seek(0)
    return services.restore_backup(file, RestoreOptions(RestoreMode.KEEP_BOTH))


def a_family(name, birth_date, feedings, start):
    """A child with feedings, each tagged, and a note."""
    core.Tagged.objects.all().delete()
    core.Tag.objects.all().delete()
    core.Child.objects.all().delete()
    child = core.Child(pk=1, first_name=name, last_name="X", birth_date=birth_date, slug=name.lower())
    core.Child.objects.bulk_create([child])
    core.Feeding.objects.bulk_create(
        [
            core.Feeding(
                pk=number,
                child=child,
                start=start + dt.timedelta(hours=number),
                end=start + dt.timedelta(hours=number, minutes=20),
                duration=dt.timedelta(minutes=20),
                type="formula",
                method="bottle",
                notes=f"{name} {number}",
            )
            for number in range(1, feedings + 1)
        ]
    )
    core.Note.objects.bulk_create([core.Note(pk=1, child=child, note=name, time=start)])
    tag = core.Tag(pk=1, name=f"tag of {name}", slug=f"tag-of-{name.lower()}")
    core.Tag.objects.bulk_create([tag])
    kind = ContentType.objects.get_for_model(core.Feeding)
    core.Tagged.objects.bulk_create(
        [
            core.Tagged(pk=number, content_type=kind, object_id=number, tag=tag)
            for number in range(1, feedings + 1)
        ]
    )


@pytest.fixture
def mia_over_ben(host_db):
    """The backup of Mia's family, over the one of Ben's, under the same numbers."""
    a_family("Mia", dt.date(2024, 5, 5), 10, START)
    file = take()
    a_family("Ben", dt.date(2026, 1, 1), 30, START + dt.timedelta(days=400))
    return file


def test_the_preview_says_what_is_lost(mia_over_ben):
    plan = inspect(mia_over_ben, clear=False)
    changes = plan.changes["core.feeding"]
    assert changes.as_json() == {"added": 10, "changed": 0, "unchanged": 0, "removed": 30}
    assert changes.replaced == 10
    assert plan.changes["core.child"].as_json() == {"added": 1, "changed": 0, "unchanged": 0, "removed": 1}
    assert plan.changes["core.note"].removed == 1
    assert plan.changes["core.tag"].removed == 1
    assert [row[0] for row in plan.preview.samples["core.child"].removed] == [1]
    (warning,) = [line for line in plan.warnings if "core.feeding (10)" in line]
    assert "core.child (1)" in warning
    (warning,) = [line for line in plan.warnings if "core.feeding (20)" in line]
    assert "core.tagged (20)" in warning


def test_a_tag_of_an_entry_that_is_left_out_and_goes_here(mia_over_ben):
    """The note here is Ben's, and that of the backup belongs to nobody."""
    kind = [*ContentType.objects.get_for_model(core.Note).natural_key()]

    def change(records):
        records["core.note"][0]["fields"]["child"] = 9999
        link = records["core.tagged"][-1]
        for number in (98, 99):
            fields = {**link["fields"], "content_type": kind, "object_id": 1}
            records["core.tagged"].append({**link, "pk": number, "fields": fields})

    file = rewritten(mia_over_ben, change)
    options = RestoreOptions(leave_out=True)
    plan = services.inspect_backup(file, options)
    result = services.restore_backup(file, options)
    assert not core.Note.objects.exists()
    assert not core.Tagged.objects.filter(content_type__model="note")
    for warnings in (plan.warnings, result.warnings):
        assert [line for line in warnings if "core.tagged (22)" in line]


def test_the_result_says_how_many_were_replaced(mia_over_ben):
    result = restore(mia_over_ben, clear=False)
    assert any("core.feeding (10)" in line and "core.child (1)" in line for line in result.warnings)
    assert any("core.feeding (20)" in line and "core.tagged (20)" in line for line in result.warnings)
    assert core.Child.objects.get().first_name == "Mia"


def test_nothing_of_a_replaced_record_comes_to_belong_to_another_one(mia_over_ben):
    """Ben's other feedings are not Mia's, his tags are not at her entries, and his timer is not hers, nor at no
    child."""
    user = User.objects.get(username="admin")
    core.Timer.objects.bulk_create([core.Timer(pk=1, name="of Ben", start=START, user=user, child_id=1)])
    core.Note.objects.bulk_create([core.Note(pk=2, child_id=1, note="of Ben", time=START)])
    before = snapshot()
    assert inspect(mia_over_ben, clear=False).changes["core.timer"].as_json() == {
        "added": 0,
        "changed": 0,
        "unchanged": 0,
        "removed": 1,
    }
    result = restore(mia_over_ben, clear=False)
    assert any("core.timer (1)" in line for line in result.warnings)
    assert {note.note for note in core.Note.objects.all()} == {"Mia"}
    assert all(feeding.notes.startswith("Mia") for feeding in core.Feeding.objects.all())
    assert not core.Timer.objects.exists()
    assert {tagged.tag.name for tagged in core.Tagged.objects.all()} == {"tag of Mia"}
    assert core.Tagged.objects.count() == core.Feeding.objects.count() == 10
    services.undo_restore()
    assert not differences(before, snapshot())


@pytest.mark.parametrize("mode", [RestoreMode.OVERWRITE, RestoreMode.KEEP_BOTH])
def test_nobody_gets_what_belongs_to_another_user_or_group(host_db, mode):
    """Who has the number of another one in the backup: neither their token, nor their timers, nor their rights."""
    admin = User.objects.get(username="admin")
    managers = Group.objects.create(pk=50, name="managers")
    managers.permissions.set(Permission.objects.all()[:5])
    dad = User.objects.create_superuser("dad", id=50)
    dad.groups.add(managers)
    file = take()
    dad.delete()
    managers.delete()
    nanny, sue = User.objects.create_user("nanny", id=50), User.objects.create_user("sue", id=51)
    sitters = Group.objects.create(pk=50, name="sitters")
    sue.groups.add(sitters)
    nanny.groups.add(sitters)
    token = Token.objects.create(user=nanny).key
    core.Timer.objects.bulk_create([core.Timer(pk=1, name="of the nanny", start=START, user=nanny)])
    before = snapshot()
    file.seek(0)
    plan = services.inspect_backup(file, RestoreOptions(mode))
    file.seek(0)
    services.restore_backup(file, RestoreOptions(mode))
    dad, managers = User.objects.get(username="dad"), Group.objects.get(name="managers")
    assert dad.is_superuser
    assert [*dad.groups.all()] == [managers]
    assert managers.permissions.count() == 5
    assert not core.Timer.objects.filter(user=dad).exists()
    assert not Token.objects.filter(user=dad).exists()
    assert managers not in User.objects.get(username="sue").groups.all()
    if mode is RestoreMode.KEEP_BOTH:
        assert Token.objects.get(key=token).user == User.objects.get(username="nanny")
        assert [*User.objects.get(username="nanny").groups.all()] == [Group.objects.get(name="sitters")]
        assert not plan.accounts.removed
        assert not plan.accounts.rights
    else:
        assert not Token.objects.filter(key=token).exists()
        assert (plan.accounts.removed, plan.accounts.groups_removed) == (["nanny"], ["sitters"])
        assert plan.accounts.rights == ["sue"]
        assert plan.changes["core.timer"].removed == 1
        assert plan.changes["authtoken.token"].removed == 1
    assert plan.accounts.added == ["dad"]
    assert User.objects.get(username="admin") == admin
    services.undo_restore()
    assert not differences(before, snapshot())


@pytest.mark.parametrize("mode", [RestoreMode.OVERWRITE, RestoreMode.CLEAR])
def test_keeping_both_is_offered_where_something_would_be_lost(mia_over_ben, mode):
    def offered(file):
        return other_modes(services.inspect_backup(file, RestoreOptions(mode)))

    assert RestoreMode.KEEP_BOTH in offered(mia_over_ben)
    file = take()
    core.Feeding.objects.get(pk=3).delete()
    others = [other for other in RestoreMode if other not in (mode, RestoreMode.KEEP_BOTH)]
    assert offered(file) == others, "what is added only is the same in both"


def test_both_are_kept(mia_over_ben):
    before = snapshot()
    mia_over_ben.seek(0)
    plan = services.inspect_backup(mia_over_ben, RestoreOptions(RestoreMode.KEEP_BOTH))
    assert plan.changes["core.feeding"].as_json() == {
        "added": 10,
        "changed": 0,
        "unchanged": 0,
        "removed": 0,
    }
    assert not sum(changes.removed for changes in plan.changes.values())
    keep_both(mia_over_ben)
    after = snapshot()
    for label, rows in before.items():
        assert {key: after[label].get(key) for key in rows} == rows, f"{label}: nothing is lost"
    ben, mia = core.Child.objects.order_by("pk")
    assert (ben.pk, ben.first_name, mia.first_name) == (1, "Ben", "Mia")
    assert core.Feeding.objects.filter(child=ben).count() == 30
    assert sorted(core.Feeding.objects.filter(child=mia).values_list("notes", "start")) == sorted(
        (f"Mia {number}", START + dt.timedelta(hours=number)) for number in range(1, 11)
    )
    assert core.Note.objects.get(child=mia).note == "Mia"
    # Tags went along: each at the entry that it was at.
    tagged = {
        core.Feeding.objects.get(pk=tagged.object_id).notes: tagged.tag.name
        for tagged in core.Tagged.objects.all()
    }
    assert tagged == {
        **{f"Ben {number}": "tag of Ben" for number in range(1, 31)},
        **{f"Mia {number}": "tag of Mia" for number in range(1, 11)},
    }


def test_an_entry_that_was_edited_is_the_same_entry(host_db):
    """Of the same child and moment: it is changed, and nobody says that it is lost."""
    a_family("Mia", dt.date(2024, 5, 5), 3, START)
    file = take()
    core.Feeding.objects.update(notes="now", amount=3)
    core.Child.objects.update(first_name="Maria")
    plan = inspect(file, clear=False)
    assert plan.changes["core.feeding"].as_json() == {
        "added": 0,
        "changed": 3,
        "unchanged": 0,
        "removed": 0,
    }
    assert plan.changes["core.child"].as_json()["changed"] == 1
    before = snapshot()
    keep_both(file)
    assert core.Child.objects.get().first_name == "Mia"
    assert {*core.Feeding.objects.values_list("notes", flat=True)} == {"Mia 1", "Mia 2", "Mia 3"}
    assert [line for line in differences(before, snapshot()) if "lost" in line or "added" in line] == []


def test_entries_since_a_crash_are_kept(host_db):
    """The family started anew, and logged some before the old backup turned up: the same child, other moments."""
    a_family("Mia", dt.date(2024, 5, 5), 10, START)
    file = take()
    a_family("Mia", dt.date(2024, 5, 5), 4, START + dt.timedelta(days=500))
    core.Note.objects.all().delete()
    assert inspect(file, clear=False).changes["core.feeding"].removed == 4
    keep_both(file)
    assert core.Child.objects.count() == 1
    assert core.Feeding.objects.count() == 14
    assert User.objects.count() == 1


def signs(*targets):
    """A sign at each of some rows, each with one more at itself, under the same numbers each time."""
    zoo.Sign.objects.all().delete()
    first = [zoo.Sign(pk=n, target=target, text=f"at {target}") for n, target in enumerate(targets, 1)]
    more = [zoo.Sign(pk=10 + sign.pk, target=sign, text=f"more {sign.text}") for sign in first]
    zoo.Sign.objects.bulk_create([*more, *first])


def plug_in_rows(name, username):
    """Rows of a plug-in that belong to a child and to a user: directly, by a key, by another field, in a chain."""
    user = User.objects.create_user(username, id=50)
    zoo.Cot.objects.bulk_create([zoo.Cot(pk=1, child_id=name.lower(), text=f"cot of {name}")])
    zoo.Blanket.objects.bulk_create([zoo.Blanket(pk=n, cot_id=1) for n in (1, 2)])
    badge = zoo.Badge.objects.create(user=user, text=username)
    LogEntry.objects.bulk_create([LogEntry(pk=1, user=user, action_flag=1, object_repr=username)])
    signs(core.Child.objects.get(), core.Feeding.objects.get(pk=1), zoo.Cot.objects.get(), badge)


def owners():
    """What each row of a plug-in belongs to, by names in place of keys."""

    def named(row):
        if isinstance(row, zoo.Sign):
            return f"{row.text} -> {named(row.target)}"
        return getattr(row, "notes", None) or str(getattr(row, "text", row))

    return sorted(
        [
            *(f"{cot.text} {cot.child.first_name}" for cot in zoo.Cot.objects.all()),
            *(f"blanket {blanket.cot.text}" for blanket in zoo.Blanket.objects.all()),
            *(f"badge {badge.text} {badge.user.username}" for badge in zoo.Badge.objects.all()),
            *(f"log {entry.object_repr} {entry.user.username}" for entry in LogEntry.objects.all()),
            *map(named, zoo.Sign.objects.all()),
        ]
    )


def test_what_belongs_to_what_is_kept_is_kept(host_db):
    """Whatever model it is of: nothing here comes to belong to what the backup brings, nor the other way round."""
    a_family("Mia", dt.date(2024, 5, 5), 2, START)
    plug_in_rows("Mia", "dad")
    file, of_mia = take(), owners()
    for model in (zoo.Cot, zoo.Badge, LogEntry):
        model.objects.all().delete()
    User.objects.get(username="dad").delete()
    a_family("Ben", dt.date(2026, 1, 1), 3, START + dt.timedelta(days=400))
    plug_in_rows("Ben", "nanny")
    before, of_ben = snapshot(), owners()
    file.seek(0)
    plan = services.inspect_backup(file, RestoreOptions(RestoreMode.KEEP_BOTH))
    changed = [label for label, changes in plan.changes.items() if changes.changed or changes.removed]
    assert not changed
    for _ in range(2):
        keep_both(file)
        after = snapshot()
        for label, rows in before.items():
            assert {key: after[label].get(key) for key in rows} == rows, f"{label}: nothing is lost"
        assert owners() == sorted([*of_ben, *of_mia])


def test_what_refers_to_a_child_of_another_name_is_no_other_record(host_db):
    """The child was renamed, and with it the slug, by which others refer to it."""
    a_family("Mia", dt.date(2024, 5, 5), 1, START)
    plug_in_rows("Mia", "dad")

    def rename(records):
        records["core.child"][0]["fields"].update(first_name="Maria", slug="maria")
        records["zoo.cot"][0]["fields"]["child"] = "maria"

    before = snapshot()
    keep_both(rewritten(take(), rename))
    after = snapshot()
    assert core.Child.objects.get().slug == zoo.Cot.objects.get().child_id == "maria"
    assert {label: [*rows] for label, rows in after.items()} == {
        label: [*rows] for label, rows in before.items()
    }


def test_keeping_both_twice_adds_nothing_twice(mia_over_ben):
    keep_both(mia_over_ben)
    once = snapshot()
    mia_over_ben.seek(0)
    plan = services.inspect_backup(mia_over_ben, RestoreOptions(RestoreMode.KEEP_BOTH))
    assert not [label for label, changes in plan.changes.items() if changes.added or changes.changed]
    keep_both(mia_over_ben)
    assert not differences(once, snapshot())
    # What was edited since is another record, and so both are kept; its tag goes along.
    core.Feeding.objects.filter(notes="Mia 3").update(notes="edited")
    keep_both(mia_over_ben)
    assert core.Feeding.objects.filter(notes__startswith="Mia").count() == 10
    assert core.Feeding.objects.count() == 41
    assert core.Tagged.objects.count() == 41


def test_equal_records_stay_as_many_as_they_are(host_db):
    """Each row here is one record of the backup at most, be it by its key or by its values."""
    a_family("Mia", dt.date(2024, 5, 5), 3, START)
    core.Tagged.objects.all().delete()
    same = {"notes": "twice", "start": START, "end": START + dt.timedelta(minutes=20)}
    core.Feeding.objects.update(**same)
    file = take()
    other = core.Feeding.objects.filter(pk__in=[1, 2])
    other.update(start=START + dt.timedelta(days=1), notes="another")
    keep_both(file)
    assert core.Feeding.objects.filter(notes="twice").count() == 3
    keep_both(file)
    assert core.Feeding.objects.filter(notes="twice").count() == 3
    assert core.Feeding.objects.filter(notes="another").count() == 2


def test_tags_stay_at_their_entries_whatever_the_order_of_models(host_db):
    """Those of weights, a model that comes after that of the tags on entries."""
    kind = ContentType.objects.get_for_model(core.Weight)

    def weights(name):
        child = core.Child.objects.get()
        core.Weight.objects.all().delete()
        rows = [
            core.Weight(pk=n, child=child, weight=n, date=child.birth_date, notes=f"{name} {n}")
            for n in range(1, 4)
        ]
        core.Weight.objects.bulk_create(rows)
        core.Tagged.objects.all().delete()
        tag = core.Tag.objects.get()
        core.Tagged.objects.bulk_create(
            [core.Tagged(pk=n, content_type=kind, object_id=n, tag=tag) for n in range(1, 4)]
        )

    a_family("Mia", dt.date(2024, 5, 5), 1, START)
    weights("Mia")
    file = take()
    a_family("Ben", dt.date(2026, 1, 1), 1, START + dt.timedelta(days=400))
    weights("Ben")
    for _ in range(2):
        keep_both(file)
        tagged = {
            core.Weight.objects.get(pk=row.object_id).notes: row.tag.name for row in core.Tagged.objects.all()
        }
        assert tagged == {f"{name} {n}": f"tag of {name}" for name in ("Mia", "Ben") for n in range(1, 4)}
        assert core.Weight.objects.count() == core.Tagged.objects.count() == 6


@pytest.mark.parametrize("tag", ["tag of Ben", None])
def test_a_record_with_other_tags_is_another_record(mia_over_ben, tag):
    """One that was brought before, and whose tag was exchanged or taken away since: its tags stay what they are."""
    keep_both(mia_over_ben)
    edited = core.Feeding.objects.get(notes="Mia 3")
    kind = ContentType.objects.get_for_model(core.Feeding)
    tags = core.Tagged.objects.filter(content_type=kind)
    if tag is None:
        tags.filter(object_id=edited.pk).delete()
    else:
        tags.filter(object_id=edited.pk).update(tag=core.Tag.objects.get(name=tag))
    keep_both(mia_over_ben)

    def tags_of(feeding):
        return {*tags.filter(object_id=feeding.pk).values_list("tag__name", flat=True)}

    second = core.Feeding.objects.exclude(pk=edited.pk).get(notes="Mia 3")
    assert tags_of(edited) == ({tag} if tag else set())
    assert tags_of(second) == {"tag of Mia"}
    assert core.Feeding.objects.filter(notes__startswith="Mia").count() == 11
    once = snapshot()
    keep_both(mia_over_ben)
    assert not differences(once, snapshot())


def test_what_stays_by_choice_keeps_its_user(host_db):
    """Where only accounts come back: who has the number of another one in the backup stays, with what is theirs."""
    bob = User.objects.create_user("bob", id=50)
    file = take()
    bob.delete()
    carol = User.objects.create_user("carol", id=50)
    core.Timer.objects.bulk_create([core.Timer(pk=1, name="of carol", start=START, user=carol)])
    before = snapshot()
    file.seek(0)
    services.restore_backup(file, RestoreOptions(parts=(Part.ACCOUNTS,)))
    assert core.Timer.objects.get().user.username == "carol"
    assert User.objects.get(username="bob").pk != 50
    assert {key: snapshot()["babybuddy.settings"].get(key) for key in before["babybuddy.settings"]} == before[
        "babybuddy.settings"
    ]
    services.undo_restore()
    assert not differences(before, snapshot())


def test_a_record_that_is_left_out_takes_no_place(host_db):
    """The backup has a timer of a user who is not here, under the number of one of a child that is replaced."""
    gone = User.objects.create_user("gone")
    a_family("Mia", dt.date(2024, 5, 5), 1, START)
    core.Timer.objects.bulk_create([core.Timer(pk=7, name="of gone", start=START, user=gone, child_id=1)])
    file = take()
    gone.delete()
    a_family("Ben", dt.date(2026, 1, 1), 1, START + dt.timedelta(days=400))
    admin = User.objects.get(username="admin")
    core.Timer.objects.bulk_create(
        [core.Timer(pk=pk, name="of Ben", start=START, user=admin, child_id=1) for pk in (7, 8)]
    )
    file.seek(0)
    services.restore_backup(file, RestoreOptions(parts=(Part.ENTRIES,)))
    assert core.Child.objects.get().first_name == "Mia"
    assert not core.Timer.objects.exists()


def test_settings_of_another_user_that_have_the_same_number(host_db):
    """The settings of somebody who joined since make way, which is said, or stay."""
    ann = User.objects.create_user("ann")
    Settings.objects.update_or_create(user=ann, defaults={"pagination_count": 50})
    key = Settings.objects.get(user=ann).pk
    file = take()
    ann.delete()
    dora = User.objects.create_user("dora")
    Settings.objects.filter(user=dora).delete()
    Settings.objects.bulk_create([Settings(pk=key, user=dora, pagination_count=10)])
    plan = inspect(file, clear=False)
    assert plan.changes["babybuddy.settings"].replaced == 1
    result = restore(file, clear=False)
    for warnings in (plan.warnings, result.warnings):
        assert [line for line in warnings if "same numbers" in line and "babybuddy.settings (1)" in line]
        assert [line for line in warnings if "dora" in line and "default settings" in line]
    assert Settings.objects.get(user__username="ann").pagination_count == 50
    services.undo_restore()
    keep_both(file)
    counts = dict(Settings.objects.values_list("user__username", "pagination_count"))
    assert (counts["ann"], counts["dora"]) == (50, 10)


def test_a_token_that_goes_is_counted_once(host_db):
    dad = User.objects.create_user("dad", id=50)
    Token.objects.create(user=dad)
    file = take()
    dad.delete()
    Token.objects.create(user=User.objects.create_user("nanny", id=50))
    plan = inspect(file, clear=False)
    assert plan.changes["authtoken.token"].removed == 1
    assert plan.changes["auth.user"].removed == 1
    restore(file, clear=False)
    assert Token.objects.get(user__username="dad")
    assert Token.objects.filter(user_id=50).count() == 1


def of_another_site(file):
    def change(metadata):
        metadata["instance"] = "another"

    return rewritten(file, change_metadata=change)


@pytest.mark.parametrize("mode", [RestoreMode.OVERWRITE, RestoreMode.KEEP_BOTH])
def test_rows_of_excluded_models_stay_with_whom_they_belong_to(mia_over_ben, settings, mode):
    nanny = User.objects.create_user("nanny", id=50)
    file = take()
    User.objects.filter(pk=50).update(username="dad", is_superuser=True)
    settings.BACKUP_EXCLUDE = ["authtoken", "core.timer"]
    token = Token.objects.create(user=nanny).key
    ben = core.Child.objects.get()
    core.Timer.objects.bulk_create([core.Timer(pk=1, name="of Ben", start=START, user=nanny, child=ben)])
    for backup in (file, mia_over_ben):
        before = snapshot()
        backup.seek(0)
        services.restore_backup(backup, RestoreOptions(mode))
        assert Token.objects.get(key=token).user.username == "dad"
        timer = core.Timer.objects.get()
        assert (timer.user.username, timer.child.first_name) == ("dad", "Ben")
    assert User.objects.filter(username="nanny").exists()
    assert {child.first_name for child in core.Child.objects.all()} == {"Ben", "Mia"}
    services.undo_restore()
    assert not differences(before, snapshot())


def test_clearing_gives_nobody_the_token_of_another_one(host_db, settings):
    nanny = User.objects.create_superuser("nanny", id=50)
    file = of_another_site(take())
    User.objects.filter(pk=50).update(username="dad")
    settings.BACKUP_EXCLUDE = ["authtoken"]
    token = Token.objects.create(user=nanny)
    before = snapshot()
    for leave_out in (False, True):
        options = RestoreOptions(RestoreMode.CLEAR, leave_out=leave_out)
        file.seek(0)
        refusal = services.inspect_backup(file, options).refusal
        assert "BACKUP_EXCLUDE" in str(refusal)
        assert not refusal.offer
        file.seek(0)
        with pytest.raises(RecordsRefused, match=r"authtoken\.token"):
            services.restore_backup(file, options)
    assert not differences(before, snapshot())
    User.objects.create_user("dad2", id=51)
    Token.objects.filter(pk=token.pk).update(user=User.objects.get(username="admin"))
    file.seek(0)
    services.restore_backup(file, RestoreOptions(RestoreMode.CLEAR))
    assert Token.objects.get().user.username == "admin"
    assert {user.username for user in User.objects.all()} == {"admin", "nanny"}


def test_what_belongs_to_what_goes_goes_too(host_db):
    """Also where it comes before that in the order: a tag of a keeper's, and what refers to a table in a circle."""
    a_family("Mia", dt.date(2024, 5, 5), 1, START)
    file = take()
    a_family("Ben", dt.date(2026, 1, 1), 3, START + dt.timedelta(days=400))
    kind = ContentType.objects.get_for_model(core.Feeding)
    sign = zoo.Sign.objects.create(content_type=kind, object_id="3", text="at Ben's feeding")
    other = zoo.Sign.objects.create(target=sign, text="at the sign")
    zoo.Sign.objects.create(target=other, text="at the sign at the sign")
    before = snapshot()
    plan = inspect(file, clear=False)
    assert plan.changes["zoo.sign"].removed == 3
    restore(file, clear=False)
    assert not zoo.Sign.objects.exists()
    services.undo_restore()
    assert not differences(before, snapshot())


def cots(name, other):
    """Cots of two children: each is the child's by its slug, and the other one is only mentioned."""
    zoo.Cot.objects.bulk_create(
        [
            zoo.Cot(pk=1, child_id=name, text="its own"),
            zoo.Cot(pk=2, child_id=other, guest_id=name, heir_id=1, text="mentions it twice"),
            zoo.Cot(pk=3, child_id=name, guest_id=name, heir_id=1, text="both"),
            zoo.Cot(pk=4, child_id=other, text="not at all"),
        ]
    )


@pytest.fixture
def mia_over_zoe(host_db):
    """A backup of Mia, over Zoe under the same number, who has cots, and so has Leo, who is the same in both."""
    leo = core.Child(pk=2, first_name="Leo", last_name="X", birth_date=dt.date(2023, 1, 1), slug="leo")
    a_family("Mia", dt.date(2024, 5, 5), 1, START)
    core.Child.objects.bulk_create([leo])
    file = take()
    a_family("Zoe", dt.date(2026, 1, 1), 1, START + dt.timedelta(days=400))
    core.Child.objects.bulk_create([leo])
    cots("zoe", "leo")
    return file


def test_what_refers_to_what_goes_by_another_field(mia_over_zoe):
    """What belongs to it goes, and what only mentions it is emptied; the preview says the same as the result."""
    before = snapshot()
    plan = inspect(mia_over_zoe, clear=False)
    assert plan.refusal is None
    assert plan.changes["zoo.cot"].as_json() == {"added": 0, "changed": 1, "unchanged": 0, "removed": 2}
    result = restore(mia_over_zoe, clear=False)
    lines = [line for line in plan.warnings if "zoo.cot" in line]
    assert lines == [line for line in result.warnings if "zoo.cot" in line]
    assert ["(2)" in lines[0], "(1)" in lines[1], len(lines)] == [True, True, 2]
    mentioned = {**before["zoo.cot"][2], "guest_id": None, "heir_id": None}
    assert snapshot()["zoo.cot"] == {2: mentioned, 4: before["zoo.cot"][4]}
    services.undo_restore()
    assert not differences(before, snapshot())


def test_keeping_both_keeps_what_refers_to_them(mia_over_zoe):
    before = snapshot()["zoo.cot"]
    mia_over_zoe.seek(0)
    plan = services.inspect_backup(mia_over_zoe, RestoreOptions(RestoreMode.KEEP_BOTH))
    assert not [line for line in plan.warnings if "zoo.cot" in line]
    keep_both(mia_over_zoe)
    assert snapshot()["zoo.cot"] == before
    assert {child.first_name for child in core.Child.objects.all()} == {"Mia", "Leo", "Zoe"}


@pytest.mark.parametrize("excluded", ["zoo.cot", "zoo"])
def test_what_no_backup_holds_keeps_what_it_refers_to_by_another_field(mia_over_zoe, settings, excluded):
    settings.BACKUP_EXCLUDE = [excluded]
    before = snapshot()["zoo.cot"]
    restore(mia_over_zoe, clear=False)
    assert snapshot()["zoo.cot"] == before
    assert {child.first_name for child in core.Child.objects.all()} == {"Mia", "Leo", "Zoe"}


def test_what_no_backup_holds_keeps_what_that_belongs_to(mia_over_zoe, settings):
    """A blanket keeps its cot, and the cot its child."""
    settings.BACKUP_EXCLUDE = ["zoo.blanket"]
    zoo.Blanket.objects.create(cot_id=1)
    before = snapshot()
    assert inspect(mia_over_zoe, clear=False).refusal is None
    restore(mia_over_zoe, clear=False)
    after = snapshot()
    assert (after["zoo.blanket"], after["zoo.cot"]) == (before["zoo.blanket"], before["zoo.cot"])
    assert {child.first_name for child in core.Child.objects.all()} == {"Mia", "Leo", "Zoe"}


def test_what_no_backup_holds_keeps_what_has_the_number_of_another_one_of_a_plug_in(host_db, settings):
    """A blanket of Ben's cot does not come to belong to Mia's."""
    a_family("Mia", dt.date(2024, 5, 5), 1, START)
    zoo.Cot.objects.create(pk=1, child_id="mia", text="of Mia")
    file = take()
    a_family("Ben", dt.date(2026, 1, 1), 1, START + dt.timedelta(days=400))
    zoo.Cot.objects.create(pk=1, child_id="ben", text="of Ben")
    zoo.Blanket.objects.create(cot_id=1)
    settings.BACKUP_EXCLUDE = ["zoo.blanket"]
    restore(file, clear=False)
    assert zoo.Blanket.objects.get().cot.text == "of Ben"
    assert {(cot.text, cot.child_id) for cot in zoo.Cot.objects.all()} == {
        ("of Mia", "mia"),
        ("of Ben", "ben"),
    }

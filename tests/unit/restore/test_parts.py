"""Some parts of a backup come back: the others stay as they are here, and what refers to them follows."""

import pytest
from babybuddy.models import Settings
from core import models as core
from dbsettings.models import Setting
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from rest_framework.authtoken.models import Token

from backup import services
from backup.exceptions import Forbidden, RecordsRefused
from backup.options import Part, RestoreMode, RestoreOptions, Silent
from backup.scope import models_in_scope, part_of
from tests.support.backups import inspect, metadata_of, records_of, restore, rewritten, take
from tests.support.changing import add_everywhere, renumber, renumbered
from tests.support.snapshots import differences, snapshot
from tests.zoo import models as zoo

ENTRIES, ACCOUNTS, SETTINGS = Part
MODES = pytest.mark.parametrize("clear", [True, False], ids=["clear", "overwrite"])


def part_of_table(label):
    """Of a table of pairs, the part of its owner."""
    model = apps.get_model(label)
    if model._meta.auto_created:
        return part_of(model._meta.auto_created._meta.label_lower)
    return part_of(label)


def only(tables, *parts):
    return {label: rows for label, rows in tables.items() if part_of_table(label) in parts}


def change_a_bit():
    """Something of each part."""
    User.objects.filter(username="grandma").update(password="other", first_name="changed")
    Token.objects.filter(user__username="joe").delete()
    Group.objects.create(name="night shift").permissions.add(Permission.objects.first())
    Settings.objects.update(language="fr", pagination_count=100)
    Setting.objects.update(value="changed")
    core.Note.objects.update(note="changed")
    core.Child.objects.update(picture="changed")
    LogEntry.objects.all().delete()
    core.Timer.objects.update(name="changed")


def test_which_model_is_which_part():
    parts = {}
    for model in models_in_scope():
        parts.setdefault(part_of(model._meta.label_lower), set()).add(model._meta.label_lower)
    assert parts[ACCOUNTS] == {"auth.user", "auth.group", "authtoken.token"}
    assert parts[SETTINGS] == {"babybuddy.settings", "dbsettings.setting"}
    assert {"core.child", "core.timer", "admin.logentry", "zoo.egg"} <= parts[ENTRIES]


@MODES
@pytest.mark.parametrize("part", [*Part], ids=lambda part: part.value)
def test_a_part_alone(family, clear, part):
    then, file = snapshot(), take()
    change_a_bit()
    if part is not ACCOUNTS:
        add_everywhere()
    before = snapshot()
    plan = inspect(file, clear=clear, parts=(part,))
    result = restore(file, clear=clear, parts=(part,))
    after = snapshot()
    others = [other for other in Part if other is not part]
    assert not differences(only(before, *others), only(after, *others)), "the others stay"
    for label, rows in only(then, part).items():
        assert {key: after[label].get(key) for key in rows} == rows, label
    if clear:
        # Nobody can do without settings: the newcomer gets the default ones.
        assert len(differences(only(then, part), only(after, part))) == (part is SETTINGS)
    assert (
        {*plan.changes}
        == {*result.restored}
        == {label for label in records_of(file) if part_of(label) is part}
    )
    assert plan.as_json()["parts"] == [part.value]
    services.undo_restore()
    assert not differences(before, snapshot())


@MODES
def test_references_follow_the_people(family, clear):
    """Users have other keys here, and changed places: what comes back belongs to those of the same name."""
    zoo.Sign.objects.create(target=family.staff, text="user")
    then, file = snapshot(), take()
    moves = {family.staff.pk: family.plain.pk, family.plain.pk: family.staff.pk, family.admin.pk: 4711}
    renumber(User, moves)
    expected = renumbered(then, {"auth.user": moves})
    core.Timer.objects.update(user_id=4711)
    LogEntry.objects.update(user_id=family.staff.pk)
    zoo.Sign.objects.all().delete()
    Settings.objects.update(language="fr")
    restore(file, clear=clear, parts=(ENTRIES, SETTINGS))
    assert not differences(expected, snapshot())


@MODES
def test_what_is_said_of_nobody_is_left_out(family, clear):
    """A generic reference to a user who is not here must not lead to who has that number here."""
    gone = User.objects.create(username="gone")
    user = ContentType.objects.get_for_model(User)
    log = {
        "user": family.admin,
        "content_type": user,
        "action_flag": 1,
        "change_message": "",
        "object_repr": "x",
    }
    of_gone = LogEntry.objects.create(object_id=str(gone.pk), **log)
    of_admin = LogEntry.objects.create(object_id=str(family.admin.pk), **log)
    zoo.Sign.objects.create(target=gone, text="of gone")
    zoo.Sign.objects.create(target=family.admin, text="of the admin")
    file, number = take(), gone.pk
    gone.delete()
    User.objects.create(pk=number, username="another")
    LogEntry.objects.all().delete()
    zoo.Sign.objects.all().delete()
    result = restore(file, clear=clear, parts=(ENTRIES,))
    assert LogEntry.objects.get(pk=of_admin.pk).get_edited_object() == family.admin
    assert not LogEntry.objects.filter(pk=of_gone.pk).exists()
    assert [sign.text for sign in zoo.Sign.objects.filter(content_type=user)] == ["of the admin"]
    assert any("admin.logentry (1)" in line and "zoo.sign (1)" in line for line in result.warnings)


@MODES
def test_what_hangs_on_nobody_is_left_out(family, clear):
    LogEntry.objects.filter(pk=LogEntry.objects.first().pk).update(user=family.staff)
    file = take()
    User.objects.filter(username="grandma").delete()
    core.Timer.objects.all().delete()
    timers = {timer["fields"]["user"] for timer in records_of(file)["core.timer"]}
    assert family.staff.pk in timers
    # Somebody else has the number now.
    core.Timer.objects.create(user=User.objects.create(pk=family.staff.pk, username="other"))
    before = snapshot()
    plan = inspect(file, clear=clear, parts=(ENTRIES, SETTINGS))
    result = restore(file, clear=clear, parts=(ENTRIES, SETTINGS))
    for warnings in (plan.warnings, result.warnings):
        (line,) = [line for line in warnings if "core.timer (1)" in line]
        assert "admin.logentry (1)" in line
        assert "babybuddy.settings (1)" in line
    assert core.Timer.objects.filter(user__username="other").exists() is not clear
    assert core.Timer.objects.exclude(user__username="other").count() == len(timers) - 1
    assert result.restored["core.timer"] == len(timers) - 1
    changes = plan.changes["core.timer"]
    assert changes.added + changes.changed + changes.unchanged == len(timers) - 1
    assert not differences(only(before, ACCOUNTS), only(snapshot(), ACCOUNTS))


def test_accounts_over_people_with_other_keys(family):
    """They keep their keys, and so their timers and settings, though all accounts are replaced."""
    file = take()
    moves = {family.staff.pk: family.plain.pk, family.plain.pk: family.staff.pk, family.admin.pk: 4711}
    renumber(User, moves)
    before = snapshot()
    User.objects.update(password="changed")
    plan = inspect(file, clear=True, parts=(ACCOUNTS,))
    assert plan.changes["auth.user"].as_json() == {"added": 0, "changed": 5, "unchanged": 0, "removed": 0}
    restore(file, clear=True, parts=(ACCOUNTS,))
    assert not differences(before, snapshot())


def test_somebody_who_goes_leaves_nothing_to_somebody_else(family):
    """A user of the backup has the number of one who is not in it: no timer changes hands."""
    file = take()
    nanny = User.objects.get(username="nanny")
    User.objects.filter(pk=nanny.pk).update(username="other", password="another")
    core.Timer.objects.create(user_id=nanny.pk, name="of other")
    before = snapshot()
    with pytest.raises(RecordsRefused):
        restore(file, clear=True, parts=(ACCOUNTS,))
    assert not differences(before, snapshot())


def test_what_stays_behind_of_users_who_go_is_told_beforehand(family):
    """Their timers and settings stay, since no more than accounts were wanted: preview and restore say so alike."""
    file = take()
    other = User.objects.create_user("other")
    core.Timer.objects.create(user=other, name="of other")
    settings = Settings.objects.get(user=other)
    before = snapshot()
    refusal = inspect(file, clear=True, parts=(ACCOUNTS,)).refusal
    assert isinstance(refusal, RecordsRefused)
    text = "\n".join(refusal.details)
    assert f"babybuddy.settings {settings.pk}, field user" in text
    assert "core.timer" in text
    assert f"auth.user {other.pk}" in text
    with pytest.raises(RecordsRefused) as caught:
        restore(file, clear=True, parts=(ACCOUNTS,))
    assert caught.value.details == refusal.details
    assert not differences(before, snapshot())
    assert inspect(file, clear=True, parts=(ACCOUNTS, SETTINGS)).refusal.details == [
        line for line in refusal.details if "timer" in line
    ]
    assert inspect(file, clear=True).refusal is None
    assert inspect(file, clear=False, parts=(ACCOUNTS,)).refusal is None
    options = RestoreOptions(RestoreMode.CLEAR, parts=(ACCOUNTS,), leave_out=True)
    for act in (services.inspect_backup, services.restore_backup):
        file.seek(0)
        assert not getattr(act(file, options), "refusal", None)
    assert not core.Timer.objects.filter(name="of other")


@pytest.mark.parametrize("leave_out", [True, False])
def test_who_is_removed_may_be_what_anything_refers_to(family, leave_out):
    """No database checks such references, so they stay, and are named."""
    file = take()
    User.objects.bulk_create([User(username="other")])  # without settings, which would be refused
    other = User.objects.get(username="other")
    sign = zoo.Sign.objects.create(target=other, text="of other")
    zoo.Sign.objects.create(target=family.staff, text="of who stays")
    options = RestoreOptions(RestoreMode.CLEAR, parts=(ACCOUNTS,), leave_out=leave_out)
    for act in (services.inspect_backup, services.restore_backup):
        file.seek(0)
        (line,) = [line for line in act(file, options).warnings if "were here before" in line]
        assert line.endswith(f": zoo.sign {sign.pk}, field object_id: it refers to auth.user {other.pk}")
    assert zoo.Sign.objects.count() >= 2


def test_new_users_get_settings(family):
    file = take()
    User.objects.filter(username="nanny").delete()
    result = restore(file, clear=False, parts=(ACCOUNTS,))
    assert any("nanny" in line for line in result.warnings)
    assert Settings.objects.get(user__username="nanny").language == "en-US"


def test_a_backup_without_accounts(family):
    """The site that made it knows whose the timers are; nobody else does."""
    before = snapshot()
    file = rewritten(take(), lambda records: records.pop("auth.user"))
    core.Timer.objects.all().delete()
    restore(file, clear=False, parts=(ENTRIES,))
    assert not differences(before, snapshot())
    file = rewritten(file, change_metadata=lambda metadata: metadata.update(instance="0" * 32))
    with pytest.raises(RecordsRefused, match=r"(?s)core\.timer .*auth\.user") as caught:
        restore(file, clear=False, parts=(ENTRIES,))
    assert caught.value.offer == "leave_out"
    core.Timer.objects.all().delete()
    services.restore_backup(file, RestoreOptions(parts=(ENTRIES,), leave_out=True))
    assert not core.Timer.objects.exists()


@MODES
def test_staff_restores_entries(family, clear):
    then, file = snapshot(), take()
    change_a_bit()
    before = snapshot()
    plan = inspect(file, clear=clear, user=family.staff)
    assert isinstance(plan.refusal, Forbidden)
    assert "entries" in plan.refusal.message
    assert inspect(file, clear=clear, user=family.staff, parts=(ENTRIES,)).refusal is None
    restore(file, clear=clear, user=family.staff, parts=(ENTRIES,))
    expected = {**before, **only(then, ENTRIES)}
    assert not differences(expected, snapshot())


@MODES
def test_nobody_needs_to_administer_what_is_not_restored(family, clear):
    def change(records):
        for record in records["auth.user"]:
            record["fields"]["is_superuser"] = False

    file = rewritten(take(), change)
    assert inspect(file, clear=True).refusal is not None
    restore(file, clear=clear, parts=(ENTRIES, SETTINGS))
    assert User.objects.filter(is_superuser=True).exists()


class Last(Silent):
    def progress(self, label, done, total):
        self.last = done, total


@MODES
def test_progress_reaches_the_end(family, clear):
    file, reporter = take(), Last()
    restore(file, clear=clear, parts=(SETTINGS,), reporter=reporter)
    count = sum(
        metadata_of(file)["models"][label]["records"]
        for label in ("babybuddy.settings", "dbsettings.setting")
    )
    assert reporter.last == (count, count)


def test_both_can_be_kept(family):
    """With parts, too: another child under the same number, and users under other numbers."""
    file = take()
    renumber(User, {family.staff.pk: 4711})
    core.Child.objects.filter(pk=family.children[0].pk).update(
        first_name="Ben", last_name="X", birth_date="2020-02-02", slug="ben"
    )
    children = core.Child.objects.count()
    file.seek(0)
    services.restore_backup(file, RestoreOptions(RestoreMode.KEEP_BOTH, parts=(ENTRIES,)))
    assert core.Child.objects.count() == children + 1
    assert core.Timer.objects.filter(user_id=4711).count() == 1
    assert ContentType.objects.count()


@MODES
@pytest.mark.parametrize("part", [ENTRIES, ACCOUNTS, SETTINGS])
@pytest.mark.parametrize("name", ["nonna", "grandmä"])
def test_somebody_who_was_renamed_is_here(family, clear, part, name):
    """The password has a salt of its own, so it is the same person, whose entries and settings are theirs."""
    grandma = User.objects.get(username="grandma")
    core.Timer.objects.create(user=grandma, start="2024-05-01T10:00:00Z", name="grandma's")
    file = take()
    before = snapshot()
    User.objects.filter(pk=grandma.pk).update(username=name)
    restore(file, clear=clear, parts=(part,))
    if part is not ACCOUNTS:
        User.objects.filter(pk=grandma.pk).update(username="grandma")
    assert not differences(before, snapshot())


@MODES
@pytest.mark.parametrize("part", [ENTRIES, SETTINGS])
def test_names_that_moved_on_to_other_people(family, clear, part):
    """Who has the name now is somebody else, as the passwords tell."""
    grandma = User.objects.get(username="grandma")
    for user in (grandma, family.admin):
        core.Timer.objects.create(user=user, start="2024-05-01T10:00:00Z", name=f"of {user}")
    file = take()
    before = snapshot()
    User.objects.filter(pk=grandma.pk).update(username="nonna")
    User.objects.filter(pk=family.admin.pk).update(username="grandma")
    restore(file, clear=clear, parts=(part,))
    User.objects.filter(pk=family.admin.pk).update(username=family.admin.username)
    User.objects.filter(pk=grandma.pk).update(username="grandma")
    assert not differences(before, snapshot())

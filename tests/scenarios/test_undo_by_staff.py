"""What a staff user may undo: nothing of it brings back or takes away what lets somebody sign in."""

from dataclasses import replace
from itertools import chain

import pytest
from core import models as core
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.test import override_settings
from rest_framework.authtoken.models import Token

from backup import services
from backup.exceptions import Forbidden
from backup.options import Part
from tests.scenarios.test_undo import enter
from tests.support.backups import how, inspect, restore, rewritten, take
from tests.support.snapshots import differences, snapshot

MD5 = "django.contrib.auth.hashers.MD5PasswordHasher"


class Newer(PBKDF2PasswordHasher):
    """The hasher that a site changed to. The real one takes half a second of processor time for each password."""

    iterations = 1


NEWER = f"{__name__}.Newer"


def change_password(name, password):
    user = User.objects.get(username=name)
    user.set_password(password)
    user.save()


@pytest.fixture
def hashed_by_md5(family, settings):
    """The admin's password was hashed in another way than it would be now, at each sign-in."""
    settings.PASSWORD_HASHERS = [MD5]
    change_password("admin", "before")
    settings.PASSWORD_HASHERS = [NEWER, MD5]


@pytest.mark.parametrize("since", ["before", "changed"], ids=["signed in", "changed"])
def test_undo_by_staff_leaves_a_password_that_was_hashed_anew(family, hashed_by_md5, since):
    """By a sign-in, or since somebody changed it: nothing tells the two apart. The old one may be known to many."""
    file = take()
    enter("since")
    before = snapshot()
    restore(file, clear=True, user=family.staff)
    change_password("admin", since)  # a sign-in does the same
    services.undo_restore(user=family.staff)
    assert [line for line in differences(before, snapshot()) if ": password was" not in line] == []
    assert User.objects.get(username="admin").check_password(since)


def test_undo_by_staff_leaves_a_password_that_was_changed_since(family):
    """It was hashed as it would be now, so that no sign-in can have changed it."""
    file = take()
    enter("since")
    before = snapshot()
    restore(file, clear=True, user=family.staff)
    change_password("admin", "changed")
    services.undo_restore(user=family.staff)
    assert [line for line in differences(before, snapshot()) if ": password was" not in line] == []
    assert User.objects.get(username="admin").check_password("changed")


def test_undo_by_staff_while_somebody_changes_a_password(family, hashed_by_md5, acting_before_the_lock):
    file = take()
    enter("since")
    restore(file, clear=True, user=family.staff)
    acting_before_the_lock(lambda: change_password("admin", "changed"))
    services.undo_restore(user=family.staff)
    assert User.objects.get(username="admin").check_password("changed")
    assert core.Note.objects.filter(note="since").exists()


def undo_is_forbidden(user):
    now = snapshot()
    with pytest.raises(Forbidden):
        services.undo_restore(user=user)
    assert not differences(now, snapshot())


def test_undo_by_staff_where_two_have_the_same_hash(family, hashed_by_md5):
    User.objects.filter(username="grandma").update(password=User.objects.get(username="admin").password)
    file = take()
    restore(file, clear=True, user=family.staff)
    change_password("admin", "changed")
    undo_is_forbidden(family.staff)


def test_undo_by_staff_of_a_restore_that_changed_passwords(family, hashed_by_md5):
    """By a superuser: it is theirs to undo."""
    file = take()
    with override_settings(PASSWORD_HASHERS=[MD5]):
        change_password("admin", "another")
    restore(file, clear=True, user=family.admin)
    undo_is_forbidden(family.staff)


def test_undo_by_staff_of_a_restore_that_changed_a_password_set_meanwhile(family, acting_before_the_lock):
    """Of an edited file, all rows are written anew, whatever is here."""
    file = take()
    acting_before_the_lock(lambda: change_password("admin", "meanwhile"))
    result = services.restore_backup(file, replace(how(clear=True), edited=True), user=family.admin)
    assert "The password of admin becomes the one in the backup." in result.warnings
    undo_is_forbidden(family.staff)


def test_undo_by_a_superuser_brings_the_very_hash_back(family, hashed_by_md5):
    file = take()
    enter("since")
    before = snapshot()
    restore(file, clear=True, user=family.staff)
    change_password("admin", "changed")
    services.undo_restore(user=family.admin)
    assert not differences(before, snapshot())


@pytest.mark.parametrize("is_there", [True, False], ids=["some in the backup", "none in the backup"])
def test_a_restore_by_staff_leaves_tokens_that_were_made_since(family, is_there):
    """The host makes one for whoever looks at their settings; others are of the scripts of superusers."""
    if not is_there:
        Token.objects.all().delete()
    file = take()
    enter("since")
    for user in (family.admin, family.staff, family.inactive):
        Token.objects.get_or_create(user=user)
    before = snapshot()
    plan = inspect(file, clear=True, user=family.staff)
    assert plan.refusal is None
    assert not plan.accounts
    restore(file, clear=True, user=family.staff)
    assert snapshot()["authtoken.token"] == before["authtoken.token"]
    assert not core.Note.objects.filter(note="since").exists()
    services.undo_restore(user=family.staff)
    assert not differences(before, snapshot())


def test_undo_by_staff_leaves_tokens_as_they_are_by_now(family):
    """One that was revoked since, and one that was made. Going back to an older copy must not bring it back either."""
    file = take()
    enter("since")
    before = snapshot()
    copy = restore(file, clear=True, user=family.staff).safety_copy
    Token.objects.filter(user__username="admin").delete()
    Token.objects.create(user=family.inactive)
    now = snapshot()["authtoken.token"]
    services.undo_restore(user=family.staff)
    after = snapshot()
    assert after["authtoken.token"] == now
    assert not differences({**before, "authtoken.token": now}, after)
    restore(file, clear=True, parts=[Part.ENTRIES])
    with pytest.raises(Forbidden):
        services.undo_restore(safety_copy=copy, user=family.staff)


@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize("name", ["admin", "staff"])
def test_undo_by_staff_where_a_file_has_another_date_of_a_token(family, name, clear):
    """No file of a staff user changes a token. One of a superuser does; then the undo brings back what was there."""
    before = snapshot()

    def change(records):
        records["authtoken.token"][0]["fields"]["created"] = "2001-01-01T00:00:00Z"

    restore(rewritten(take(), change), clear=clear, user=getattr(family, name))
    assert Token.objects.filter(created__year=2001).exists() == (name == "admin")
    services.undo_restore(user=family.staff)
    assert not differences(before, snapshot())


@pytest.mark.parametrize("clear", [True, False])
def test_a_restore_by_staff_of_users_under_other_keys(family, clear):
    """The tokens stay with them, one that the backup lacks and one that it has, and they keep their keys."""
    Token.objects.get_or_create(user=family.inactive)
    joe, nanny = User.objects.get(username="joe").pk, family.inactive.pk
    before, others = snapshot(), {joe: nanny, nanny: joe + 1000}

    def change(records):
        for record in records["auth.user"]:
            record["pk"] = others.get(record["pk"], record["pk"])
        records["auth.user"].sort(key=lambda record: record["pk"])
        for record in chain.from_iterable(records.values()):
            if (user := record["fields"].get("user")) in others:
                record["fields"]["user"] = others[user]
        tokens = records["authtoken.token"]
        tokens[:] = [record for record in tokens if record["fields"]["user"] != joe + 1000]

    file = rewritten(take(), change)
    assert inspect(file, clear=clear, user=family.staff).refusal is None
    enter("since")
    restore(file, clear=clear, user=family.staff)
    core.Note.objects.filter(note="since").delete()
    assert not differences(before, snapshot())


def test_a_token_that_is_left_out_takes_no_others_with_it(family):
    """Its user is in the backup no more. So it brings no token in, but the plan has the tokens."""

    def edited(records):
        fields = {"user": 99_999, "created": "2026-01-01T00:00:00Z"}
        records["authtoken.token"] = [{"model": "authtoken.token", "pk": "f" * 40, "fields": fields}]

    def lossy(metadata):
        place = {"model": "auth.user", "pk": None, "field": None, "reason": "it could not be read"}
        metadata["left_out"] = {"total": 1, "places": [place]}

    file, before = rewritten(take(), edited, lossy), snapshot()
    file.seek(0)
    with pytest.raises(Forbidden):
        services.restore_backup(file, replace(how(clear=True), leave_out=True), user=family.staff)
    assert not differences(before, snapshot())


def test_undo_by_staff_of_a_restore_that_brought_a_token(family):
    """By a superuser: it goes again."""
    file = take()
    Token.objects.filter(user__username="joe").delete()
    before = snapshot()
    restore(file, clear=True, user=family.admin)
    assert Token.objects.filter(user__username="joe").exists()
    services.undo_restore(user=family.staff)
    assert not differences(before, snapshot())


@pytest.mark.parametrize("is_there", [True, False], ids=["some in the backup", "no member in the backup"])
def test_undo_by_staff_of_a_restore_that_removed_a_token(family, is_there):
    """By a superuser, after whose restore there is exactly the backup."""
    file = take() if is_there else rewritten(take(), lambda records: records.pop("authtoken.token"))
    Token.objects.create(user=family.inactive)
    before = snapshot()
    restore(file, clear=True, user=family.admin)
    assert not Token.objects.filter(user=family.inactive).exists()
    undo_is_forbidden(family.staff)
    services.undo_restore(user=family.admin)
    assert not differences(before, snapshot())


def test_staff_cannot_go_back_to_a_password_that_was_given_up(family, settings):
    """It may be one that they know."""
    settings.PASSWORD_HASHERS = [MD5]
    admin = User.objects.get(username="admin")
    admin.set_password("known")
    admin.save()
    copy = services.keep_backup(user=family.staff).name
    settings.PASSWORD_HASHERS = [NEWER, MD5]
    admin.set_password("another")
    admin.save()
    before = snapshot()
    with pytest.raises(Forbidden):
        services.undo_restore(safety_copy=copy, user=family.staff)
    assert not differences(before, snapshot())
    services.undo_restore(safety_copy=copy, user=family.admin)
    assert User.objects.get(username="admin").check_password("known")

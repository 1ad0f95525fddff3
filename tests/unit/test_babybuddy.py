"""What Baby Buddy needs of us, and what works in it after a restore."""

import base64
import datetime as dt
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from babybuddy import VERSION
from babybuddy.models import Settings
from core import models as core
from dbsettings import settings as dbsettings_settings
from dbsettings.models import Setting
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from freezegun import freeze_time

from backup import babybuddy, services
from backup.options import Part
from tests.support.backups import inspect, restore, rewritten, take
from tests.support.filling import PASSWORD
from tests.support.snapshots import differences, snapshot

# --- Names and zones --------------------------------------------------------------------------------------


def user_in(zone):
    user = User(username="somebody")
    user.settings = Settings(user=user, timezone=zone)
    return user


@pytest.mark.parametrize(
    ("zone", "moment", "name"),
    [
        ("UTC", "2026-11-23T14:30:22Z", "backup_112326_143022.zip"),
        ("Europe/Berlin", "2026-11-23T14:30:22Z", "backup_112326_153022.zip"),
        ("America/New_York", "2026-01-01T04:59:59Z", "backup_123125_235959.zip"),
        ("Asia/Kathmandu", "2026-12-31T18:15:00Z", "backup_010127_000000.zip"),
        # The hour that Berlin skips, and the one that it has twice.
        ("Europe/Berlin", "2026-03-29T00:59:59Z", "backup_032926_015959.zip"),
        ("Europe/Berlin", "2026-03-29T01:00:00Z", "backup_032926_030000.zip"),
        ("Europe/Berlin", "2026-10-25T00:30:00Z", "backup_102526_023000.zip"),
        ("Europe/Berlin", "2026-10-25T01:30:00Z", "backup_102526_023000.zip"),
        # What Python does not know: the host's own.
        ("Mars/Phobos", "2026-11-23T14:30:22Z", "backup_112326_103022.zip"),
        ("", "2026-11-23T14:30:22Z", "backup_112326_103022.zip"),
        ("../../etc/passwd", "2026-11-23T14:30:22Z", "backup_112326_103022.zip"),
        ("\0", "2026-11-23T14:30:22Z", "backup_112326_103022.zip"),
    ],
)
def test_the_name_is_in_the_users_zone(settings, zone, moment, name):
    settings.TIME_ZONE = "Etc/GMT+4"
    with (
        freeze_time(moment),
        timezone.override("Asia/Tokyo"),
    ):  # a zone left by somebody's request counts for nothing
        assert services.backup_name(user_in(zone)) == name
        assert services.backup_name(user_in(zone), timezone.now() + dt.timedelta(days=366)) != name


def test_the_name_without_a_user(settings):
    settings.TIME_ZONE = "Asia/Tokyo"
    with freeze_time("2026-11-23T14:30:22Z"):
        assert services.backup_name() == "backup_112326_233022.zip"
        settings.TIME_ZONE = "Nowhere"
        assert services.backup_name() == "backup_112326_143022.zip"


def test_a_user_without_settings_has_the_zone_of_the_host(settings, family):
    settings.TIME_ZONE = "Asia/Tokyo"
    Settings.objects.filter(user=family.staff).delete()
    user = User.objects.get(pk=family.staff.pk)
    assert babybuddy.user_timezone(user) == ZoneInfo("Asia/Tokyo")


def test_version():
    assert babybuddy.version() == VERSION


# --- What must hold afterwards ----------------------------------------------------------------------------


@pytest.mark.parametrize("clear", [True, False])
def test_a_user_without_settings_gets_some(family, clear):
    Settings.objects.filter(user__in=[family.staff, family.plain]).delete()
    before, file = snapshot(), take()
    plan = inspect(file, clear=clear)
    result = restore(file, clear=clear)
    assert plan.warnings == result.warnings == ["These users get the default settings: grandma, joe."]
    assert Settings.objects.filter(user__in=[family.staff, family.plain]).count() == 2
    Settings.objects.filter(user__in=[family.staff, family.plain]).delete()
    assert not differences(before, snapshot()), "and nothing else"


def who_gets_default_settings(file, **how):
    """Return what the preview says of that, once it is sure that the restore says the same."""

    def of(lines):
        return [line for line in lines if "default settings" in line]

    said = of(inspect(file, **how).warnings)
    assert of(restore(file, **how).warnings) == said
    return said


@pytest.mark.parametrize("clear", [True, False])
def test_settings_that_are_not_restored(family, clear):
    """The backup has them, or they are here: only who really gets the default ones is named."""
    file = take()
    assert not who_gets_default_settings(file, clear=clear, parts=(Part.ACCOUNTS,))
    User.objects.get(pk=family.plain.pk).delete()
    assert not who_gets_default_settings(file, clear=clear, parts=(Part.ENTRIES,))
    said = who_gets_default_settings(file, clear=clear, parts=(Part.ACCOUNTS,))
    assert said == ["The user joe gets the default settings."]
    assert not who_gets_default_settings(file, clear=clear, parts=(Part.SETTINGS,))


@pytest.mark.parametrize("clear", [True, False])
def test_settings_of_whoever_is_not_in_the_backup(family, clear):
    file = take()
    User.objects.create(username="late")
    assert not who_gets_default_settings(file, clear=clear)
    if clear:
        User.objects.create(username="late")
    said = who_gets_default_settings(file, clear=clear, parts=(Part.SETTINGS,))
    assert said == ["The user late gets the default settings."] * clear


def test_settings_go_with_the_user_whom_another_one_replaces(family):
    Settings.objects.filter(user=family.plain).delete()
    file = take()
    User.objects.filter(pk=family.plain.pk).update(username="late", password="another")
    Settings.objects.create(user=family.plain)
    assert who_gets_default_settings(file, clear=False) == ["The user joe gets the default settings."]


def test_of_many_who_get_default_settings_the_first_are_named(family):
    file = take()
    User.objects.bulk_create(User(username=f"u{number:03}") for number in range(30))
    (said,) = who_gets_default_settings(file, clear=False)
    assert said.endswith("u018, u019, ….")


def test_settings_left_out_of_backups(family, settings):
    settings.BACKUP_EXCLUDE = ["babybuddy"]
    file = take()
    User.objects.get(pk=family.plain.pk).delete()
    assert who_gets_default_settings(file, clear=False) == ["The user joe gets the default settings."]
    assert Client().login(username="joe", password=PASSWORD)


def test_the_number_of_children_is_counted_anew(family):
    file = take()
    core.Child.objects.all().delete()
    assert core.Child.count() == 0  # and cached, for ever
    assert cache.get("core.child.count") == 0
    restore(file, clear=True)
    assert core.Child.count() == 2


def test_site_settings_are_read_anew(family, monkeypatch):
    monkeypatch.setattr(dbsettings_settings, "USE_CACHE", True)
    cache.clear()
    file = take()
    assert core.Sleep.settings.nap_start_min == dt.time(7, 30)
    core.Sleep.settings.nap_start_min = dt.time(9, 45)
    assert core.Sleep.settings.nap_start_min == dt.time(9, 45)
    restore(file, clear=True)
    assert core.Sleep.settings.nap_start_min == dt.time(7, 30)


def test_a_host_without_the_cache_table(family):
    """Nothing is cached there; a restore works, and its transaction is not spoilt."""
    before, file = snapshot(), take()
    core.Feeding.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE cache_default RENAME TO cache_elsewhere")
    try:
        restore(file, clear=True)
        assert not differences(before, snapshot())
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE cache_elsewhere RENAME TO cache_default")


@pytest.mark.parametrize("clear", [True, False])
def test_migrate_creates_nothing_after_a_restore(filled, django_db_setup, clear):
    call_command(
        "migrate", verbosity=0
    )  # as at each start; the second time it gives the group its permissions
    before, file = snapshot(), take()
    django_db_setup.put_back()
    restore(file, clear=clear)
    call_command("migrate", verbosity=0)
    assert not differences(before, snapshot())
    assert Group.objects.get(name="read_only")


# --- The host at work after a restore ---------------------------------------------------------------------


PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"  # 1 by 1
)


#: How a backup comes to an empty host. Both bring the same rows there, and those are what these tests look at.
MODES = {"clear": True, "overwrite": False} if connection.vendor == "sqlite" else {"clear": True}


@pytest.fixture(params=MODES.values(), ids=MODES)
def restored(request, filled, django_db_setup, settings):
    """The family, on another server, which has got their pictures by other means."""
    picture = Path(settings.MEDIA_ROOT, core.Note.objects.get(note="With a picture").image.name)
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(base64.b64decode(PICTURE))
    file = take()
    django_db_setup.put_back()
    restore(file, clear=request.param)
    return filled


def sign_in(user):
    client = Client(raise_request_exception=True)
    password = "admin" if user.username == "admin" else PASSWORD
    answer = client.post(reverse("babybuddy:login"), {"username": user.username, "password": password})
    assert answer.status_code == 302, answer.content
    return client


def test_everybody_can_sign_in_and_see_the_dashboard(restored):
    users = User.objects.filter(is_active=True)
    assert len(users) == 4
    for user in users:
        client = sign_in(user)
        page = client.get(reverse("dashboard:dashboard"), follow=True)
        assert page.status_code == 200
    assert not Client().login(username="nanny", password=PASSWORD)


def test_pages_open(restored):
    client = sign_in(restored.admin)
    child = core.Child.objects.get(slug="little-one")
    for name, arguments in [
        ("dashboard:dashboard-child", [child.slug]),
        ("core:child", [child.slug]),
        ("core:child-list", []),
        ("core:feeding-list", []),
        ("core:note-list", []),
        ("core:tag-list", []),
        ("core:timeline", []),
        ("babybuddy:user-list", []),
        ("babybuddy:user-settings", []),
        ("babybuddy:user-add-device", []),
        ("babybuddy:user-update", [restored.staff.pk]),
    ]:
        assert client.get(reverse(name, args=arguments)).status_code == 200, name
    assert client.get("/settings/").status_code == 200


def posted(client, name, data, *arguments):
    answer = client.post(reverse(name, args=arguments), data)
    assert answer.status_code == 302, answer.context and [
        form.errors for form in [answer.context.get("form")] if form
    ]


def test_a_child_and_a_feeding_can_be_added(restored):
    client = sign_in(restored.admin)
    before = set(core.Feeding.objects.values_list("pk", flat=True))
    posted(client, "core:child-add", {"first_name": "New", "last_name": "Comer", "birth_date": "2026-04-01"})
    child = core.Child.objects.get(first_name="New")
    assert core.Child.count() == 4
    start = timezone.localtime() - dt.timedelta(minutes=20)
    times = {"start": start, "end": start + dt.timedelta(minutes=10)}
    data = {name: moment.strftime("%Y-%m-%dT%H:%M:%S") for name, moment in times.items()}
    posted(
        client,
        "core:feeding-add",
        {"child": child.pk, **data, "type": "formula", "method": "bottle", "tags": "night"},
    )
    (feeding,) = core.Feeding.objects.filter(child=child)
    assert feeding.pk not in before
    assert [tag.name for tag in feeding.tags.all()] == ["night"]


def test_a_user_can_be_edited(restored):
    client = sign_in(restored.admin)
    user = restored.plain
    data = {
        "username": user.username,
        "first_name": "Joseph",
        "last_name": "",
        "email": "",
        "is_active": "on",
        "is_read_only": "on",
    }
    posted(client, "babybuddy:user-update", data, user.pk)
    assert User.objects.get(pk=user.pk).first_name == "Joseph"


def test_tokens_work(restored):
    from tests.support.filling import token_key

    client = Client(headers={"Authorization": f"Token {token_key('grandma')}"})
    answer = client.get("/api/children/")
    assert answer.status_code == 200
    assert answer.json()["count"] == 3


def test_permissions_are_those_of_before(restored):
    user = User.objects.get(username="saba@home")
    assert user.has_perm("core.view_child")
    assert user.has_perm("core.add_feeding")
    assert not user.has_perm("core.delete_child")
    assert {group.name for group in user.groups.all()} == {"grandparents", "read_only"}


def test_site_settings_can_be_read_and_are_there_once(restored):
    keys = list(Setting.objects.values_list("module_name", "class_name", "attribute_name"))
    assert len(keys) == len(set(keys))
    assert core.Feeding.settings.feeding_diff_end is True


def test_a_restore_leaves_no_zone_and_no_language_behind(family):
    file = rewritten(take())
    with timezone.override("Asia/Tokyo"):
        restore(file, clear=True, user=family.admin)
        assert timezone.get_current_timezone_name() == "Asia/Tokyo"

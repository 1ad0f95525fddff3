"""Fills a host, the stand-in or a real one, with a family's data: the same each time, with some unusual values."""

import hashlib
import random
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone

from core import models as core
from dbsettings.loading import set_setting_value
from django.apps import apps
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache
from django.db import connection, transaction
from rest_framework.authtoken.models import Token

# Hours after daylight saving time began in Europe.
UNTIL = datetime(2026, 3, 29, 12, 0, 0, 123457, tzinfo=timezone.utc)
PASSWORD = "lullaby-42"

CHILDREN = [("Mia", "Lind"), ("Zoë 🐘", ""), ("נועה", "כהן"), ("Leo", "Lind"), ("Ana María", "O'Neil-Núñez")]
TAGS = ["night", "Oma & Opa", "לילה טוב", "🍼", 'said "more"', "vaccine"]
REMARKS = [
    None,
    "",
    "All well.",
    "Two\nlines",
    "Woke up at once; then slept.",
    "Liked the carrots 🥕",
    "'quoted'",
]
ODD_TEXTS = [
    "line\nfeed, carriage\r\nreturn, tab\t, trailing space ",
    "\u2028 and \u2029 end a line in JavaScript, \u0085 in Python; \ufeff is no mark here",
    "שלום עם ניקוד: שָׁלוֹם، مرحبا",
    "👩‍👩‍👧‍👦 is one sign, e\u0301 two, \U0001d11e beyond the first plane",
    '{"model": "core.child"}, \\n is no line end, </script>, %s, {{ x }}',
    "",
    "long " * 40_000,
]


def token_key(username):
    """Return the API token that `fill` gives a user, always the same."""
    return hashlib.sha1(username.encode()).hexdigest()


@dataclass
class Family:
    """The users and children that `fill` made. The password of `admin` is admin, that of all others PASSWORD."""

    admin: User  # superuser
    staff: User  # staff, with permissions of their own and of a group, in Berlin, in German
    plain: User  # neither, in New York
    reader: User  # in the host's read-only group, in Jerusalem, in Hebrew
    inactive: User
    children: list[core.Child]


@transaction.atomic
def fill(days=5, children=3, until=UNTIL, odd=True):
    """Add entries of `days` days for `children` children, up to the time `until`; with `odd`, also unusual values that
    are allowed. Return the `Family`."""
    rng = random.Random(1)
    family = Family(*_users(until), children=_children(children, until))
    entries = [entry for child in family.children for entry in _entries(rng, child, days, until)]
    if odd:
        entries += _odd_entries(family.children[0], until)
    by_model = {}
    for entry in entries:
        by_model.setdefault(type(entry), []).append(entry)
    for model, rows in by_model.items():
        model.objects.bulk_create(rows, batch_size=200)
        if rows[0].pk is None:  # MySQL, unlike MariaDB, does not say under which key a row was inserted
            for row, key in zip(rows, model.objects.order_by("pk").values_list("pk", flat=True), strict=True):
                row.pk = key
    _tags(rng, by_model, until)
    _timers(family, until)
    _site(family, until)
    if odd:
        # Like rows that are older than the field.
        core.Note.objects.filter(image="").exclude(note="").update(image=None)
        if apps.is_installed("tests.zoo"):
            from tests.zoo.filling import fill_zoo

            fill_zoo(until)
    return family


def fill_a_little():
    """Add one day's entries of two children, and delete most rows of the growth tables. Return the `Family`."""
    family = fill(days=1, children=2, odd=False)
    for model in (core.WeightPercentile, core.HeightPercentile):
        model.objects.filter(age_in_days__gt=timedelta(days=3)).delete()
    return family


def odd_floats():
    """Return those of NaN and the infinities that this database can store. SQLite stores NaN as NULL."""
    odd = {"sqlite": ["inf", "-inf"], "postgresql": ["nan", "inf", "-inf"]}
    return [float(text) for text in odd.get(connection.vendor, [])]


def _users(until):
    people = [
        # username, first and last name, staff, active, language, time zone
        ("grandma", "Änne", "Lind", True, True, "de", "Europe/Berlin"),
        ("joe", "Joe", "O'Neil", False, True, "en-US", "America/New_York"),
        ("saba@home", "אבי", "כהן", False, True, "he", "Asia/Jerusalem"),
        ("nanny", "", "", False, False, "fr", "UTC"),
    ]
    admin = User.objects.filter(is_superuser=True).earliest("pk")
    users = [admin]
    for username, first, last, staff, active, language, zone in people:
        user = User.objects.create(
            username=username,
            email=f"{token_key(username)[:6]}@example.com",
            password=make_password(PASSWORD, salt=token_key(username)[:22]),
            date_joined=until - timedelta(days=150, microseconds=1),
            first_name=first,
            last_name=last,
            is_staff=staff,
            is_active=active,
        )
        # The host has made the row; `user.settings` is saved with the user.
        user.settings.language, user.settings.timezone = language, zone
        user.settings.dashboard_refresh_rate = None if staff else timedelta(minutes=5)
        user.save()
        users.append(user)

    Token.objects.filter(user__in=users).delete()
    Token.objects.bulk_create([Token(key=token_key(user.username), user=user) for user in users[:4]])
    # Set afterwards, since the field is `auto_now_add`.
    Token.objects.update(created=until - timedelta(days=99, microseconds=1))

    group = Group.objects.create(name="grandparents")
    group.permissions.set(
        Permission.objects.filter(codename__in=["view_child", "add_feeding", "change_note"])
    )
    _, staff, _, reader, _ = users
    staff.groups.add(group)
    staff.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    reader.groups.add(group, Group.objects.get(name="read_only"))
    return users


def _children(number, until):
    born = (until - timedelta(days=200)).date()
    children = []
    for index in range(number):
        first, last = CHILDREN[index % len(CHILDREN)]
        again = index // len(CHILDREN)
        child = core.Child(
            first_name=f"{first} {again + 1}" if again else first,  # `save` makes a unique slug of the name
            last_name=last,
            birth_date=born - timedelta(days=700 * (index % 9)),
            birth_time=time(3, 21, 45, 678901) if index == 0 else None,
        )
        child.save()
        children.append(child)
    # A slug from before the child got its name: `save` would compute it again.
    core.Child.objects.filter(pk=children[-1].pk).update(slug="little-one")
    children[-1].slug = "little-one"
    cache.delete("core.child.count")
    return children


def _entries(rng, child, days, until):
    """Yield entries: each day eight feedings, diaper changes and sleeps, and sometimes something else."""

    def some(low, high, digits=1):
        return round(rng.uniform(low, high), digits)

    def period(start, minutes):
        duration = timedelta(minutes=minutes, microseconds=rng.randrange(10**6))
        return {"child": child, "start": start, "end": start + duration, "duration": duration}

    def noted():
        return {"notes": rng.choice(REMARKS)}

    for day in range(days):
        start = until - timedelta(days=days - day)
        at = [
            start + timedelta(hours=3 * n, minutes=rng.randrange(30), microseconds=rng.randrange(10**6))
            for n in range(8)
        ]
        for moment in at:
            method = rng.choice(["left breast", "right breast", "both breasts", "bottle"])
            milk = {
                "type": rng.choice(["breast milk", "formula"]) if method == "bottle" else "breast milk",
                "method": method,
                "amount": some(60, 180) if method == "bottle" else None,
            }
            yield core.Feeding(**period(moment, rng.randrange(5, 25)), **milk, **noted())
            yield core.DiaperChange(
                child=child,
                time=moment + timedelta(minutes=30),
                wet=rng.random() < 0.8,
                solid=rng.random() < 0.4,
                color=rng.choice(["", "brown", "yellow", "green"]),
                amount=rng.choice([None, some(1, 9)]),
                **noted(),
            )
            nap = 6 <= moment.hour <= 18
            yield core.Sleep(
                **period(moment + timedelta(minutes=40), rng.randrange(20, 90)), nap=nap, **noted()
            )
        yield core.TummyTime(**period(at[2], rng.randrange(2, 9)), milestone=rng.choice(["", "Rolled over!"]))
        yield core.Pumping(**period(at[5], 15), amount=some(50, 150), **noted())
        yield core.Temperature(child=child, time=at[4], temperature=some(36, 38.5), **noted())
        yield core.Note(
            child=child, time=at[3], note=rng.choice(["First laugh!", "Grandma came by.", "New tooth 🦷"])
        )
        yield core.Medication(
            child=child,
            time=at[6],
            name=rng.choice(["Vitamin D", "Paracetamol"]),
            dosage=rng.choice([None, 0.1, 2.5]),
            dosage_unit=rng.choice(["", "drops", "ml"]),
            next_dose_interval=rng.choice([None, timedelta(hours=6)]),
            **noted(),
        )
        if day % 7 == 0:
            date, weeks = start.date(), day / 7
            yield core.Weight(child=child, date=date, weight=round(7 + 0.1 * weeks, 2), **noted())
            yield core.Height(child=child, date=date, height=round(65 + 0.4 * weeks, 1), **noted())
            yield core.HeadCircumference(
                child=child, date=date, head_circumference=round(42 + 0.1 * weeks, 1), **noted()
            )
            yield core.BMI(child=child, date=date, bmi=round(16.5 + 0.02 * weeks, 2), **noted())


def _odd_entries(child, until):
    for text in ODD_TEXTS:
        yield core.Note(child=child, time=until, note=text)
    yield core.Note(child=child, time=until, note="With a picture", image="notes/images/ünï côde.png")
    for value in [0.1 + 0.2, 1e-300, 1.7976931348623157e308, 123456789.12345679, *odd_floats()]:
        yield core.BMI(child=child, date=until.date(), bmi=value)
    # In Berlin, the hour that was skipped, and the one that was repeated.
    for start in (datetime(2026, 3, 29, 0, 30), datetime(2025, 10, 26, 0, 30)):
        start = start.replace(tzinfo=timezone.utc)
        for hours in (1, 2):
            duration = timedelta(hours=hours, microseconds=999999)
            yield core.Sleep(child=child, start=start, end=start + duration, duration=duration, nap=False)
    yield core.Pumping(child=child, start=until, end=until, duration=None, amount=0)


def _tags(rng, by_model, until):
    tags = [
        core.Tag(
            name=name,
            slug=f"tag-{index}",
            color=f"#{index}0ff7f",
            last_used=until - timedelta(hours=index, microseconds=7),
        )
        for index, name in enumerate(TAGS)
    ]
    for tag in tags:
        tag.save()
    tagged = [
        core.Tagged(content_type=ContentType.objects.get_for_model(model), object_id=row.pk, tag=tag)
        for model, rows in by_model.items()
        for row in rows[:: max(1, len(rows) // 20)]
        for tag in rng.sample(tags, rng.randrange(1, 3))
    ]
    # `save` would change `last_used` of each tag.
    core.Tagged.objects.bulk_create(tagged, batch_size=200)


def _timers(family, until):
    def timer(user, child, name, minutes):
        return core.Timer(user=user, child=child, name=name, start=until - timedelta(minutes=minutes))

    child = family.children[0]
    core.Timer.objects.bulk_create(
        [
            timer(family.admin, child, "Nap", 42),
            timer(family.staff, None, None, 7),
            timer(family.plain, child, "", 3),
        ]
    )


def _site(family, until):
    set_setting_value("core.models", "Sleep", "nap_start_min", time(7, 30))
    set_setting_value("core.models", "Feeding", "feeding_diff_end", True)
    child = family.children[0]
    LogEntry.objects.bulk_create(
        [
            LogEntry(
                action_time=until - timedelta(days=index, microseconds=index),
                user=family.admin,
                content_type=ContentType.objects.get_for_model(child) if index else None,
                object_id=str(child.pk) if index else None,
                object_repr=str(child),
                action_flag=CHANGE,
                change_message='[{"changed": {"fields": ["First name"]}}]',
            )
            for index in range(3)
        ]
    )

"""Makes a host of an older version: its database, filled, and a backup of it.

`python -m tests.support.older VERSION FOLDER` makes `db.sqlite3` and `backup.zip` of a version in `VERSIONS`; it runs
in a process of its own, whose database is that file, since the host's migrations write to `default`.

`tests/data` has such files of the stand-in, each made when its version was new: what was written then must always be
restorable. `python -m tests.support.older` without arguments adds those that are missing there, and leaves the others
alone.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from datetime import date, datetime, timedelta, timezone
from functools import cache
from pathlib import Path

from filelock import FileLock

#: Version -> the numbers of the last migrations of core and of babybuddy, and whether it had dbsettings.
VERSIONS = {
    "1.9": (14, 17, False),
    "1.9.1": (16, 19, False),
    "1.12": (23, 22, False),
    "1.16": (25, 27, False),
    "2.0": (29, 28, True),
    "2.2": (33, 29, True),
    "2.6.0": (34, 34, True),
    "2.9": (36, 35, True),
}
# Hours after daylight saving time ended in Europe.
UNTIL = datetime(2022, 10, 30, 12, 0, 0, 123457, tzinfo=timezone.utc)


TESTS = Path(__file__).resolve().parents[1]
STAND_IN = TESTS / "host"
#: Folders named by the version, with both files, of the stand-in only.
GOLDEN = TESTS / "data"
GOLDEN_VERSIONS = ["1.9", "1.12", "1.16", "2.0", "2.2", "2.6.0", "2.9"]


@cache
def old(version):
    """Return the folder with both files of a version: the golden ones if there are any."""
    if Path.cwd() == STAND_IN and version in GOLDEN_VERSIONS:
        return GOLDEN / version
    return _made_once(f"old-{version}", lambda folder: make(version, folder))


def make(version, folder):
    """Make both files, in a new process. Return their folder."""
    _run([sys.executable, "-m", "tests.support.older", version, str(folder)], folder / "db.sqlite3")
    return folder


@cache
def updated_in_place(version):
    """Return the path of the old database, after an update by the host's own command."""

    def update(folder):
        file = folder / "db.sqlite3"
        shutil.copyfile(old(version) / "db.sqlite3", file)
        _run([sys.executable, "manage.py", "migrate", "--verbosity=0", "--skip-checks"], file)

    return _made_once(f"updated-{version}", update) / "db.sqlite3"


def _made_once(name, fill_folder):
    """Return a folder that the first process of a test run that needs it makes, while the others wait."""
    folder = Path(os.environ["BACKUP_TEST_SHARED"], name)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
            fill_folder(unfinished)
            unfinished.rename(folder)
    return folder


def _run(command, database):
    environment = {**os.environ, "DATABASE_URL": f"sqlite:///{database}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def main(version, folder):
    import django

    django.setup()

    from django.apps import apps
    from django.conf import settings
    from django.contrib.auth.management import create_permissions
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    from backup import babybuddy, services
    from backup.archive import Metadata, Writer
    from backup.database import database_of
    from backup.dump import write_records
    from backup.scope import models_in_scope
    from backup.tables import Table
    from backup.upgrade import schema

    executor = MigrationExecutor(connection)
    targets = _targets(executor.loader.graph, version)
    executor.migrate(targets)
    loader = MigrationExecutor(connection).loader
    historical = loader.project_state(targets).apps
    for config in apps.get_app_configs():
        create_permissions(config, verbosity=0, apps=historical)
    fill(historical)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA page_size = 512")  # small, for what is kept in the repository
        cursor.execute("VACUUM")

    if version == [*VERSIONS][-1]:  # the present version: a backup by the app itself
        settings.BACKUP_EXCLUDE = ["zoo"]
        with (folder / "backup.zip").open("w+b") as file:
            services.create_backup(file, label="before the update")
        return
    migrations = schema.leaf_migrations(
        schema.load_history(database_of()), {m._meta.app_label for m in models_in_scope(historical)}
    )
    tables = [Table(m) for m in models_in_scope(historical) if migrations.get(m._meta.app_label)]
    metadata = Metadata(
        timestamp=UNTIL,
        timezone="Europe/Berlin",
        created_by="admin",
        label="before the update",
        babybuddy_version=babybuddy.release(migrations),
        django_version="",
        database_engine="sqlite",
        migrations={app: names for app, names in migrations.items() if names},
    )
    with (folder / "backup.zip").open("w+b") as file, Writer(file) as writer:
        write_records(writer, database_of(), tables)
        writer.finish(metadata)


def _targets(graph, version):
    """Return the last migrations of a version; for apps without versions here, the newest ones."""
    core, babybuddy, dbsettings = VERSIONS[version]
    last = {"core": core, "babybuddy": babybuddy, "zoo": 0, "dbsettings": 999 if dbsettings else 0}
    targets = []
    for app, leaf in graph.leaf_nodes():
        if app in last:
            names = [name for label, name in graph.nodes if label == app and int(name[:4]) <= last[app]]
            targets += [(app, max(names))] if names else []
        else:
            targets.append((app, leaf))
    return targets


def fill(apps):
    """Add a family's data: rows that each data migration since then changes."""

    def add(label, **values):
        model = apps.get_model(label)
        known = {name for field in model._meta.concrete_fields for name in (field.name, field.attname)}
        return model._base_manager.create(**{name: v for name, v in values.items() if name in known})

    def content_type(label):
        app, model = label.split(".")
        return apps.get_model("contenttypes.contenttype").objects.get(app_label=app, model=model).pk

    def has(label):
        try:
            return apps.get_model(label)
        except LookupError:
            return None

    fill_people(apps, add)
    admin = apps.get_model("auth.user").objects.get(username="admin")
    children = [
        add("core.child", first_name="Mia", last_name="Lind", birth_date=date(2022, 1, 31), slug="mia-lind"),
        add(
            "core.child",
            first_name="Zoë 🐘",
            last_name="O'N",
            birth_date=date(2020, 2, 29),
            slug="little-one",
        ),
    ]
    made = []
    for day in range(12):
        child = children[day % 2]
        start = UNTIL - timedelta(hours=11 * day, microseconds=day)
        end = start + timedelta(minutes=95, microseconds=7)
        # As it was computed then across a change of the clocks: an hour too much.
        period = {
            "child": child,
            "start": start,
            "end": end,
            "duration": end - start + timedelta(hours=day % 3),
        }
        notes = {"notes": [None, "", "Slept »well«;\nthen not.", "🥕"][day % 4]}
        made += [
            add("core.feeding", **period, **notes, type="formula", method="bottle", amount=90 + day / 3),
            # Not what the time of day suggests.
            add("core.sleep", **period, **notes, napping=not 6 <= start.hour <= 18, nap=bool(day % 2)),
            add("core.tummytime", **period, milestone="Rolled over!" if day == 3 else ""),
            add(
                "core.diaperchange",
                child=child,
                time=end,
                wet=True,
                solid=day % 2,
                color="",
                amount=None,
                **notes,
            ),
            add("core.temperature", child=child, time=end, temperature=36.6 + day / 7, **notes),
            add("core.note", child=child, time=end, note="Lacht 😀 zum ersten Mal", image=None),
            add("core.weight", child=child, date=end.date(), weight=4.2 + day / 9, **notes),
        ]
        if "end" in {field.name for field in apps.get_model("core.timer")._meta.fields}:
            add("core.timer", name=f"stopped {day}", start=start, end=end, duration=end - start, active=False,
                user=admin, child=child)  # fmt: skip
        if has("core.pumping"):
            made.append(add("core.pumping", **period, **notes, time=end, amount=80.5))
        for name in ("height", "headcircumference", "bmi"):
            if has(f"core.{name}"):
                date_, value = end.date(), 50 + day / 11
                add(
                    f"core.{name}",
                    child=child,
                    date=date_,
                    height=value,
                    head_circumference=value,
                    bmi=value,
                    **notes,
                )
        if has("core.medication"):
            made.append(add("core.medication", child=child, time=end, name="Vitamin D", dosage=0.1, dosage_unit="ml",
                            next_dose_interval=timedelta(hours=6), **notes))  # fmt: skip
    add("core.timer", name=None, start=UNTIL, end=None, duration=None, active=True, user=admin, child=None)

    if has("core.tagged"):
        tags = [
            add("core.tag", name=name, slug=f"tag-{n}", color="#00ff7f", last_used=UNTIL)
            for n, name in enumerate(["night", "Oma & Opa", "לילה"])
        ]
        for n, row in enumerate(made):
            if hasattr(type(row), "tags"):
                add("core.tagged", content_type_id=content_type(row._meta.label_lower), object_id=row.pk,
                    tag=tags[n % 3])  # fmt: skip
    add("admin.logentry", action_time=UNTIL, user=admin, content_type_id=content_type("core.child"), object_id="1",
        object_repr="Mia", action_flag=2, change_message="[]")  # fmt: skip
    if has("dbsettings.setting"):
        for name, value in (("nap_start_min", "09:00:00"), ("nap_start_max", "17:30:00")):
            add(
                "dbsettings.setting",
                module_name="core.models",
                class_name="Sleep",
                attribute_name=name,
                value=value,
            )
    for name in ("weightpercentile", "heightpercentile"):
        if model := has(f"core.{name}"):  # deleted rows must not come back
            model.objects.filter(pk__gt=20).delete()


def fill_people(apps, add):
    standard = add("auth.group", name="standard")
    grandparents = add("auth.group", name="grandparents")
    permissions = apps.get_model("auth.permission").objects.filter(
        codename__in=["view_child", "add_feeding", "change_sleep"]
    )
    for group in (standard, grandparents):
        group.permissions.set(permissions)
    for number, (name, language) in enumerate([("admin", "en-US"), ("grandma", "en"), ("joe", "de")]):
        user = add(
            "auth.user",
            username=name,
            password="md5$salt$of-no-use",
            is_superuser=number == 0,
            is_staff=number < 2,
            is_active=True,
            date_joined=UNTIL - timedelta(days=99, microseconds=number + 1),
        )
        user.groups.set([standard, grandparents])
        user.user_permissions.set(permissions[:number])
        add("babybuddy.settings", user=user, language=language, timezone="Europe/Berlin",
            dashboard_refresh_rate=timedelta(minutes=number) if number else None)  # fmt: skip
        add("authtoken.token", key=f"{number:040x}", user=user)
    apps.get_model("authtoken.token").objects.update(created=UNTIL)  # not at creation: it is `auto_now_add`
    # As the host's `migrate` leaves it.
    everything = apps.get_model("auth.permission").objects.filter(
        content_type__app_label="core", codename__startswith="view_"
    )
    add("auth.group", name="read_only").permissions.set(everything)


def add_golden_files():
    os.environ["PYTHONPATH"] = os.pathsep.join([str(STAND_IN), str(TESTS.parent)])
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    os.chdir(STAND_IN)
    for version in GOLDEN_VERSIONS:
        if not (GOLDEN / version).exists():
            (GOLDEN / version).mkdir(parents=True)
            make(version, GOLDEN / version)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2])) if sys.argv[1:] else add_golden_files()

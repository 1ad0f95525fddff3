"""Measures speed and memory, compared with Django's tools and with the floor. `python -m tests.benchmark --help`

Fills a database with the given number of rows (two children make about 45,000 a year), then runs each job in a new
process on the same rows: this app, Django's `dumpdata` and `loaddata`, and the floor, which is the bare database
driver, orjson and the same deflate with nothing in between. Times do not include the start of Python and Django, and
are medians of three rounds, since the machine may be busy; `dumpdata` and `loaddata`, which take minutes, run once. The
databases' own tools run as well if they are installed (`support.native`). The result is ratios for people to judge: no
run fails because it is slow.

`restore full` clears a database that holds the same rows while others read and write, and prints how long these waited
at most. `--phases` shows how long each part of a restore took.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import random
import re
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

TESTS = Path(__file__).resolve().parent
#: The number of rows with which memory is measured first, to see how it grows.
FEW = 50_000
#: Jobs that take minutes, and only run in the first round.
ONCE = ("dumpdata", "loaddata")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_050_000)
    parser.add_argument(
        "--database", metavar="URL", default=os.environ.get("DATABASE_URL", ""), help="default: SQLite"
    )
    parser.add_argument("--baby-buddy", metavar="PATH", default=TESTS / "host", help="the host to run in")
    parser.add_argument(
        "--skip",
        action="append",
        default=[],
        choices=["dumpdata", "loaddata"],
        help="leave out a job that takes minutes",
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="JOB", choices=[*JOBS], help="of: " + ", ".join(JOBS)
    )
    parser.add_argument("--phases", action="store_true", help="print how long each part of a restore takes")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    host = Path(options.baby_buddy).resolve()
    sys.path[:0] = [str(host), str(TESTS.parent)]
    os.chdir(host)
    if options.job:
        if options.job == "migrate":  # into `default`: many migrations of the host ignore other databases
            shutil.copyfile(file_of("older.sqlite3"), file_of("migrated.sqlite3"))
            os.environ["DATABASE_URL"] = f"sqlite:///{file_of('migrated.sqlite3')}"
        run_job(options.job, phases=options.phases)
        return
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        os.environ.update(
            BACKUP_TEST_FOLDER=folder,
            BACKUP_ROOT=f"{folder}/backups",
            DATABASE_URL=options.database,
            DJANGO_SETTINGS_MODULE="tests.settings",
        )
        run_all(options, host, Path(folder))


def run_all(options: argparse.Namespace, host: Path, folder: Path) -> None:
    import django

    django.setup()
    from django.db import connection, connections
    from django.test.utils import setup_databases, teardown_databases

    from tests.conftest import database_url
    from tests.support import native
    from tests.support.stock import keep_stock

    def measure(name: str) -> dict[str, float]:
        """Run a job in a process of its own. Return what `run_job` prints."""
        connections.close_all()
        command = [sys.executable, "-m", "tests.benchmark", "--job", name, "--baby-buddy", str(host)]
        command += ["--phases"] * options.phases
        done = subprocess.run(command, cwd=TESTS.parent, stdout=subprocess.PIPE, check=True, text=True)
        measured = json.loads(done.stdout.splitlines()[-1])
        phases = "".join(f", {phase} {seconds:.2f}" for phase, seconds in measured.get("phases", {}).items())
        print(f"    {name}: {measured['seconds']:.2f} s, {measured['peak']:.0f} MiB{phases}", file=sys.stderr)
        return measured

    def measure_in_rounds(
        names: list[str], times: int, before: Callable[[], None] = lambda: None
    ) -> dict[str, list[dict[str, float]]]:
        """Run all jobs one after the other, several times, so that a slow phase of the machine affects them alike.

        Return name of a job -> what `measure` returned in each round. `before`: is called before each job.
        """
        names = [n for n in names if n not in options.skip and (not options.only or n in options.only)]
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for number in range(times):
            for name in names:
                if number == 0 or name not in ONCE:
                    before()
                    measured[name].append(measure(name))
        return measured

    before = setup_databases(verbosity=0, interactive=False, serialized_aliases=())
    os.environ["DATABASE_URL"] = database_url(connection.settings_dict)
    stock = keep_stock()
    try:
        results: dict[int, dict[str, list[dict[str, float]]]] = {}
        for rows in sorted({min(FEW, options.rows), options.rows}):
            full = rows == options.rows
            stock.put_back()
            print(f"  {rows:,} rows", file=sys.stderr)
            fill(rows)
            measure("backup")
            file_of("ours.zip").rename(file_of("strewn.zip"))
            strew_changes()
            measure("backup")  # the other jobs read it
            times = options.rounds if full else 1  # with few rows, only memory is of interest
            names = ["backup", "verify", "prove", "encrypted backup", "encrypted verify", "preview"]
            names += ["preview strewn", "overwrite", "overwrite strewn", "restore full"]
            if full:
                names += ["native backup"] if native.is_installed() else []
                names += ["floor backup", "dumpdata"]
            measured = measure_in_rounds(names, times)
            afterwards = ["restore"]
            if full and native.is_installed():
                native.prepare(file_of("native"))
                measured |= measure_in_rounds(["native restore"], times, before=native.empty)
            if full and connection.vendor == "sqlite":
                afterwards += make_files(host)
            if full:
                afterwards += ["floor restore", "loaddata"]
            measured |= measure_in_rounds(afterwards, times, before=stock.put_back)
            results[rows] = measured
        report(results, connection, folder)
    finally:
        stock.drop()
        teardown_databases(before, verbosity=0)


# -- the data ------------------------------------------------------------------------------------------------


def fill(rows: int) -> None:
    """Add about this many rows, of the kinds and sizes that a family makes, the same at each call."""
    from core import models
    from django.contrib.contenttypes.models import ContentType

    chance = random.Random(rows)
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    children = [
        models.Child.objects.create(first_name=name, last_name="Bench", birth_date=now.date())
        for name in ("Ada", "Ben")
    ]
    tags = models.Tag.objects.bulk_create(
        models.Tag(name=f"tag {n}", slug=f"tag-{n}", color="#112233", last_used=now) for n in range(20)
    )
    words = [
        "slept",
        "well",
        "after",
        "a",
        "long",
        "walk",
        "with",
        "grandma",
        "and",
        "was",
        "hungry",
        "again",
        "at",
        "four",
    ]

    def notes() -> str:
        return " ".join(chance.choices(words, k=chance.randint(3, 25))) if chance.random() < 0.25 else ""

    def period(longest: int) -> dict:
        start = now - timedelta(
            seconds=chance.randint(0, 700_000_000), microseconds=chance.randint(0, 999_999)
        )
        length = timedelta(minutes=chance.randint(1, longest))
        return {"start": start, "end": start + length, "duration": length}

    def make(model, share, values) -> None:
        count = int(rows * share)
        for first in range(0, count, 5000):
            model.objects.bulk_create(
                model(child=children[n % 2], **values(n)) for n in range(first, min(first + 5000, count))
            )

    make(
        models.Feeding,
        0.25,
        lambda n: {
            **period(40),
            "type": "formula",
            "method": "bottle",
            "amount": n % 90 / 10,
            "notes": notes(),
        },
    )
    make(
        models.DiaperChange,
        0.25,
        lambda n: {
            "time": period(1)["start"],
            "wet": n % 2 == 0,
            "solid": n % 3 == 0,
            "color": "brown",
            "amount": None,
            "notes": notes(),
        },
    )
    make(models.Sleep, 0.15, lambda n: {**period(300), "nap": n % 4 > 0, "notes": notes()})
    make(models.Pumping, 0.10, lambda n: {**period(30), "amount": n / 7, "notes": notes()})
    make(models.TummyTime, 0.05, lambda n: {**period(20), "milestone": ""})
    make(
        models.Temperature,
        0.05,
        lambda n: {"temperature": 36 + n % 40 / 10, "time": period(1)["start"], "notes": notes()},
    )
    feeding = ContentType.objects.get_for_model(models.Feeding)
    keys = list(models.Feeding.objects.values_list("pk", flat=True)[: int(rows * 0.15)])
    for first in range(0, len(keys), 5000):
        models.Tagged.objects.bulk_create(
            models.Tagged(content_type=feeding, object_id=key, tag=tags[key % 20])
            for key in keys[first : first + 5000]
        )


def strew_changes() -> None:
    """Change each thousandth row of every large table."""
    from core import models

    for model in (
        models.Feeding,
        models.DiaperChange,
        models.Sleep,
        models.Pumping,
        models.Temperature,
        models.Tagged,
        models.TummyTime,
    ):
        rows = model.objects.filter(pk__in=range(500, model.objects.count(), 1000))
        if model is models.Tagged:
            rows.update(tag=models.Tag.objects.first())
        else:
            rows.update(**{"milestone" if model is models.TummyTime else "notes": "changed"})


def make_files(host: Path) -> list[str]:
    """Copy the database to a file of the present version, and to an older one. Return the jobs that need them."""
    from django.db import connection

    shutil.copyfile(connection.settings_dict["NAME"], file_of("db.sqlite3"))
    shutil.copyfile(file_of("db.sqlite3"), file_of("older.sqlite3"))
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "core", OLDER, "--verbosity=0", "--skip-checks"],
        cwd=host,
        env={
            **os.environ,
            "DATABASE_URL": f"sqlite:///{file_of('older.sqlite3')}",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        check=True,
    )
    return ["db.sqlite3", "older.sqlite3", "migrate"]


#: The migration of the host at which the older file is; a later one rewrites most of the rows.
OLDER = "0033"


# -- the jobs, each in a process of its own ------------------------------------------------------------------


def run_job(name: str, *, phases: bool) -> None:
    import django

    django.setup()
    import orjson  # noqa: F401  imported before the clock starts, as in a server
    from django.db import connection

    import backup.services  # noqa: F401
    import tests.support.backups  # noqa: F401

    connection.ensure_connection()
    spent = measure_phases() if phases else None
    started = time.perf_counter()
    more = JOBS[name]() or {}
    seconds = time.perf_counter() - started
    if spent:
        more["phases"] = spent
    print(json.dumps({"seconds": seconds, "peak": peak_memory(), **more}))


#: Part of a restore -> module and name of the function whose time it is; "database": a method.
PARTS = {
    "check": ("services", "_plan"),
    "safety copy": ("services", "_keep_copy"),
    "reading it back": ("storage.kept", "_check"),
    "marker": ("database", "change_marker"),
    "lock": ("database", "lock_out_writers"),
    "clear": ("database", "clear"),
    "write": ("services", "write"),
    "references": ("services", "_check_dangling"),
    "deferred": ("database", "check_deferred_constraints"),
    "counters": ("database", "reset_sequences"),
    "next keys": ("database", "set_next_keys"),
    "upgrade": ("upgrade.process", "_run"),
}


def measure_phases() -> Counter[str]:
    """Have the parts of a restore timed. Return part -> seconds, which grow as they run.

    Time within two parts counts in both: reading the safety copy back is part of making it, clearing part of writing.
    """
    from importlib import import_module

    from backup.database import database_of

    spent: Counter[str] = Counter()

    def timed(part: str, function: Callable) -> Callable:
        def run(*args, **options):
            started = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                spent[part] += time.perf_counter() - started

        return run

    for part, (place, name) in PARTS.items():
        owner = type(database_of()) if place == "database" else import_module(f"backup.{place}")
        setattr(owner, name, timed(part, getattr(owner, name)))
    return spent


def peak_memory() -> float:
    """Return the peak in MiB. That of `getrusage` would include the process that this one was forked from."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def file_of(name: str) -> Path:
    return Path(os.environ["BACKUP_TEST_FOLDER"]) / name


def backup() -> dict:
    from backup import services

    with file_of("ours.zip").open("w+b") as target:
        services.create_backup(target)
    return {"size": file_of("ours.zip").stat().st_size}


def verify() -> None:
    from backup import services

    with file_of("ours.zip").open("rb") as source:
        services.verify_backup(source)


def prove() -> dict:
    """Prove the backup. The memory is that of the child process, which does the work."""
    from backup import services
    from backup.proof import Verdict

    with file_of("ours.zip").open("rb") as source:
        proof = services.prove_backup(source)
    assert proof.verdict is Verdict.PROVED, proof.reason
    return {"peak": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024}


def encrypted_backup() -> dict:
    from backup import services
    from backup.storage import keys

    if not keys.current():
        keys.add()
    with file_of("encrypted.zip").open("w+b") as target:
        services.create_backup(target, encrypt=True)
    return {"size": file_of("encrypted.zip").stat().st_size}


def encrypted_verify() -> None:
    from backup import services

    with file_of("encrypted.zip").open("rb") as source:
        services.verify_backup(source)


def preview() -> None:
    _preview("ours.zip")


def preview_strewn() -> None:
    _preview("strewn.zip")


def _preview(name: str) -> None:
    from backup import services
    from tests.support.backups import how

    with file_of(name).open("rb") as source:
        services.inspect_backup(source, how(clear=True))


def restore() -> None:
    _restore("ours.zip", clear=True)


def overwrite() -> dict:
    with others() as waited:
        _restore("ours.zip", clear=False)
    return waited


def overwrite_strewn() -> dict:
    with others() as waited:
        _restore("strewn.zip", clear=False)
        # Undo the changes for the next round: what is measured is two restores.
        _restore("ours.zip", clear=False)
    return waited


def restore_full() -> dict:
    with others() as waited:
        _restore("ours.zip", clear=True)
    return waited


def restore_today() -> None:
    _restore("db.sqlite3", clear=True)


def restore_older() -> None:
    _restore("older.sqlite3", clear=True)


def _restore(name: str, *, clear: bool) -> None:
    from backup import services
    from tests.support.backups import how

    with file_of(name).open("rb") as source:
        services.restore_backup(source, how(clear=clear))


@contextmanager
def others() -> Iterator[dict]:
    """Have others read and write up to fifty times a second. Yields how many seconds they had to wait at most."""
    from django.db import connection

    waited = {"write": 0.0, "read": 0.0}
    done = threading.Event()

    def work(name: str, sql: str) -> None:
        other = connection.copy()
        if other.vendor == "sqlite":
            other.settings_dict["OPTIONS"]["timeout"] = 600
        other.set_autocommit(False)
        while not done.is_set():
            started = time.perf_counter()
            with closing(other.cursor()) as cursor:
                cursor.execute(sql)
                cursor.fetchall() if name == "read" else None
            waited[name] = max(waited[name], time.perf_counter() - started)
            other.rollback()
            time.sleep(0.02)
        other.close()

    statements = {
        "write": "UPDATE core_child SET first_name = first_name",
        "read": "SELECT COUNT(*) FROM core_child",
    }
    threads = [threading.Thread(target=work, args=item) for item in statements.items()]
    for thread in threads:
        thread.start()
    try:
        yield waited
    finally:
        done.set()
        for thread in threads:
            thread.join()


def migrate() -> None:
    from django.core.management import call_command

    call_command("migrate", verbosity=0, skip_checks=True)


def native_backup() -> dict:
    from tests.support import native

    native.backup(file_of("native.out"))
    return {"size": file_of("native.out").stat().st_size}


def native_restore() -> None:
    from tests.support import native

    native.restore(file_of("native"))


def dumpdata() -> dict:
    from django.core.management import call_command

    call_command("dumpdata", *EXCLUDED, output=str(file_of("django.json.gz")))
    return {"size": file_of("django.json.gz").stat().st_size}


#: Options that leave out what loaddata cannot load, and what our backups leave out as well.
EXCLUDED = [
    f"--exclude={name}"
    for name in (
        "contenttypes",
        "auth.permission",
        "sessions",
        "axes",
        "babybuddy.settings",
        "admin.logentry",
        "zoo",
    )
]


def loaddata() -> None:
    from django.core.management import call_command

    call_command("loaddata", str(file_of("django.json.gz")), verbosity=0)


def floor_tables():
    from backup.site import tables_here

    return [(table, [column.column for column in table.columns]) for table in tables_here()]


def driver():
    """Return the connection of the bare driver, and its placeholder for a parameter."""
    from django.db import connection

    if connection.vendor == "sqlite":
        return sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None), "?"
    return connection.connection, "%s"


def floor_backup() -> dict:
    """Compress rows as JSON lines. This is no backup, since values are only converted if JSON needs it."""
    import orjson

    raw, _mark = driver()
    import zlib

    from backup.archive.deflate import isal_zlib

    packer = (isal_zlib or zlib).compressobj(1, zlib.DEFLATED, -15)
    with file_of("floor.bin").open("wb") as target:
        for table, columns in floor_tables():
            cursor = raw.cursor()
            names = ", ".join(map(quoted, columns))
            cursor.execute(f"SELECT {names} FROM {quoted(table.db_table)}")
            while rows := cursor.fetchmany(1000):
                lines = b"\n".join(
                    [orjson.dumps(dict(zip(columns, row, strict=True)), default=str) for row in rows]
                )
                target.write(packer.compress(lines + b"\n"))
        target.write(packer.flush())
    return {"size": file_of("floor.bin").stat().st_size}


def quoted(name: str) -> str:
    from django.db import connection

    return connection.ops.quote_name(name)


def floor_restore() -> None:
    """Insert JSON lines, as this app writes them, by the bare driver, in one transaction, after emptying the tables."""
    import zipfile

    import orjson
    from django.db import connection, transaction

    from backup.archive.members import records_file

    archive = zipfile.ZipFile(file_of("ours.zip"))
    rows: dict[str, list[tuple]] = {}
    raw, mark = driver()
    with transaction.atomic():
        if connection.vendor == "sqlite":
            raw.execute("BEGIN")
        elif connection.vendor == "mysql":
            raw.cursor().execute("SET foreign_key_checks = 0, sql_mode = ''")
        for table, columns in floor_tables():
            if table.model._meta.app_label != "core":
                continue
            cursor = raw.cursor()
            cursor.execute(f"DELETE FROM {quoted(table.db_table)}")
            names = ", ".join(map(quoted, columns))
            one = f"({', '.join([mark] * len(columns))})"
            types = stored_types(table)
            batch: list[tuple] = []

            def insert(batch: list[tuple], cursor=cursor, table=table, names=names, one=one) -> None:
                if connection.vendor == "sqlite":
                    cursor.executemany(f"INSERT INTO {quoted(table.db_table)} ({names}) VALUES {one}", batch)
                elif connection.vendor == "postgresql":
                    copy_rows(cursor, table.db_table, names, batch)
                elif batch:
                    cursor.execute(
                        f"INSERT INTO {quoted(table.db_table)} ({names}) VALUES {', '.join([one] * len(batch))}",
                        [value for row in batch for value in row],
                    )

            for line in archive.open(records_file(table.label)):
                if not line.startswith(b"{"):
                    continue
                record = orjson.loads(line.rstrip(b",\n"))
                row = (record["pk"], *record["fields"].values())
                batch.append(
                    tuple([f(v) if f else v for f, v in zip(types, row, strict=False)]) if any(types) else row
                )
                if len(batch) == 1000:
                    insert(batch)
                    batch = []
            insert(batch)
        if connection.vendor == "sqlite":
            raw.execute("COMMIT")
    del rows


def stored_types(table) -> list:
    """Return for each column a function that makes its values acceptable to the driver, and no more; None if none is
    needed."""
    from django.db import connection

    conversions = []
    for column in table.columns:
        if column.is_natural:
            conversions.append(lambda value: 1)
        elif column.kind.name == "duration" and connection.vendor == "mysql":
            conversions.append(lambda value: None if value is None else hash(value) % 10**12)
        elif column.kind.name == "datetime" and connection.vendor == "mysql":
            conversions.append(lambda value: value[:-1])
        else:
            conversions.append(None)
    return conversions


def copy_rows(cursor, db_table: str, names: str, batch: list[tuple]) -> None:
    text = io.StringIO()
    for row in batch:
        text.write("\t".join(["\\N" if value is None else str(value) for value in row]) + "\n")
    sql = f"COPY {quoted(db_table)} ({names}) FROM STDIN"
    if hasattr(cursor, "copy_expert"):
        text.seek(0)
        cursor.copy_expert(sql, text)
    else:
        with cursor.copy(sql) as copy:
            copy.write(text.getvalue())


JOBS = {
    "backup": backup,
    "verify": verify,
    "prove": prove,
    "encrypted backup": encrypted_backup,
    "encrypted verify": encrypted_verify,
    "preview": preview,
    "preview strewn": preview_strewn,
    "restore": restore,
    "restore full": restore_full,
    "overwrite": overwrite,
    "overwrite strewn": overwrite_strewn,
    "db.sqlite3": restore_today,
    "older.sqlite3": restore_older,
    "migrate": migrate,
    "native backup": native_backup,
    "native restore": native_restore,
    "dumpdata": dumpdata,
    "loaddata": loaddata,
    "floor backup": floor_backup,
    "floor restore": floor_restore,
}
#: The ratios to print: title, job, the other job.
COMPARED = [
    ("backup / its own tool", "backup", "native backup"),
    ("restore with clearing, full / its own tool", "restore full", "native restore"),
    ("restore with clearing, empty / its own tool", "restore", "native restore"),
    ("preview, identical / backup", "preview", "backup"),
    ("preview, changes strewn / backup", "preview strewn", "backup"),
    ("overwrite, identical / restore with clearing", "overwrite", "restore full"),
    ("proof / restore of a backup", "prove", "restore"),
    ("today's db.sqlite3 / restore of a backup", "db.sqlite3", "restore"),
    ("older db.sqlite3 / migrate in place", "older.sqlite3", "migrate"),
]


# -- the table -----------------------------------------------------------------------------------------------


def report(results: dict[int, dict[str, list[dict[str, float]]]], connection, folder: Path) -> None:
    few, many = min(results), max(results)
    measured = results[many]

    def median(name: str, key: str = "seconds", rows: int = many) -> float:
        return statistics.median(run[key] for run in results[rows][name])

    def ratio(name: str, other: str) -> float:
        """Return the median of the ratios of each round; the ratio of the medians if one of the two ran only once."""
        pairs = [*zip(measured[name], measured[other], strict=False)]
        if len(pairs) == 1:
            return median(name) / median(other)
        return statistics.median(one["seconds"] / another["seconds"] for one, another in pairs)

    with connection.cursor() as cursor:
        cursor.execute("SELECT sqlite_version()" if connection.vendor == "sqlite" else "SELECT version()")
        version = cursor.fetchone()[0]
    import django

    print(f"{many:,} rows, {connection.vendor} {version.split(' on ')[0].removeprefix('PostgreSQL ')}")
    print(
        f"Python {platform.python_version()}, Django {django.get_version()}, "
        f"{os.cpu_count()} cores, {platform.machine()}\n"
    )
    print("| job | seconds | against Django | against the floor | peak memory | grows by |")
    print("|---|---|---|---|---|---|")
    rivals = {"backup": ("dumpdata", "floor backup"), "restore": ("loaddata", "floor restore")}
    for name in measured:
        theirs, floor = rivals.get(name, ("", ""))
        times = f"{1 / ratio(name, theirs):.1f} times as fast" if theirs in measured else ""
        share = f"{ratio(name, floor):.2f} times" if floor in measured else ""
        peak = median(name, "peak")
        grown = few != many and name in results[few]
        growth = f"{peak - median(name, 'peak', few):+.0f} MiB" if grown else ""
        print(f"| {name} | {median(name):.2f} | {times} | {share} | {peak:.0f} MiB | {growth} |")
    print()
    for words, name, other in COMPARED:
        if name in measured and other in measured:
            print(f"{words}: {ratio(name, other):.2f}")
    for name, runs in measured.items():
        if "write" in runs[0]:
            writers, readers = median(name, "write"), max(run["read"] for run in runs)
            print(
                f"{name}: others waited to write {writers:.2f} of {median(name):.2f} s, to read {readers:.3f} s"
            )
    sizes = {name: median(name, "size") for name, runs in measured.items() if "size" in runs[0]}
    print("sizes: " + ", ".join(f"{name} {size / 1024 / 1024:.1f} MiB" for name, size in sizes.items()))


if __name__ == "__main__":
    main()

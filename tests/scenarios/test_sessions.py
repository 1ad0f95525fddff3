"""Whatever the sessions of the database are set to: a backup is the same, and so is what a restore makes of it."""

import threading
from contextlib import contextmanager

import pytest
from core import models as core
from django.db import connection
from django.db.backends.signals import connection_created

from backup import services
from backup.database import database_of
from backup.exceptions import BackupError
from tests.support.backups import checksums_of, inspect, restore, take
from tests.support.changing import change_everything
from tests.support.snapshots import differences, snapshot

#: Groups of settings that a session can have at a time.
ODD = {
    "mysql": [
        (
            "SET SESSION sql_select_limit = 2",
            "SET SESSION max_join_size = 3",
            "SET SESSION sql_safe_updates = 1",
            "SET SESSION unique_checks = 0",
        ),
        (
            "SET SESSION sql_auto_is_null = 1",
            "SET SESSION time_zone = '+05:30'",
            "SET SESSION group_concat_max_len = 4",
            "SET SESSION lc_time_names = 'de_DE'",
        ),
    ],
    "postgresql": [
        (
            "SET DateStyle = 'German'",
            "SET bytea_output = 'escape'",
            "SET extra_float_digits = -10",
            "SET intervalstyle = 'iso_8601'",
            "SET standard_conforming_strings = off",
        ),
        (
            "SET DateStyle = 'ISO, DMY'",
            "SET quote_all_identifiers = on",
            "SET idle_in_transaction_session_timeout = 200",
            "SET default_transaction_isolation = 'serializable'",
            "SET search_path = public, pg_catalog",
        ),
    ],
    "sqlite": [
        (
            "PRAGMA reverse_unordered_selects = 1",
            "PRAGMA case_sensitive_like = 1",
            "PRAGMA writable_schema = 1",
            "PRAGMA journal_mode = OFF",
        ),
        (
            "PRAGMA recursive_triggers = 1",
            "PRAGMA ignore_check_constraints = 1",
            "PRAGMA foreign_keys = 0",
            "PRAGMA journal_mode = MEMORY",
        ),
    ],
}[connection.vendor]


@contextmanager
def odd_sessions(*statements):
    """Every connection of this process begins with these statements."""

    def spoil(connection, **kwargs):
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    connection_created.connect(spoil)
    connection.close()
    try:
        yield
    finally:
        connection_created.disconnect(spoil)
        connection.close()


@pytest.mark.parametrize("statements", ODD)
def test_a_backup_and_a_restore_are_the_same_in_odd_sessions(filled, statements):
    file = take()
    change_everything()
    changed = take()
    plans = [inspect(file, clear=clear).as_json() for clear in (True, False)]
    with odd_sessions(*statements):
        odd = take()
        odd_plans = [inspect(file, clear=clear).as_json() for clear in (True, False)]
        restore(file, clear=True)
    assert checksums_of(odd) == checksums_of(changed)
    assert odd_plans == plans
    assert checksums_of(take()) == checksums_of(file)
    with odd_sessions(*statements):
        services.undo_restore()
    assert checksums_of(take()) == checksums_of(changed)


BOUNDS = {
    "mysql": ["max_statement_time = 0.5", "max_execution_time = 500"],
    "postgresql": ["statement_timeout = 500", "transaction_timeout = 500"],
    "sqlite": [],
}[connection.vendor]


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_session_that_bounds_how_long_statements_take(filled, bound):
    """Each reads or locks the notes, which somebody else lets nobody do for a while."""
    name = bound.split()[0]
    known = (
        "SHOW VARIABLES LIKE %s"
        if connection.vendor == "mysql"
        else "SELECT 1 FROM pg_settings WHERE name = %s"
    )
    if not database_of().fetch(known, [name]):
        pytest.skip("not every version and kind of server has it")

    @contextmanager
    def slow():
        own = connection.copy()
        with own.cursor() as cursor:
            if connection.vendor == "postgresql":
                own.set_autocommit(False)
                cursor.execute("LOCK TABLE core_note IN ACCESS EXCLUSIVE MODE")
            else:
                cursor.execute("LOCK TABLES core_note WRITE")
        own.inc_thread_sharing()
        timer = threading.Timer(1.5, own.close)
        timer.start()
        try:
            yield
        finally:
            timer.join()

    with odd_sessions(f"SET {bound}"):
        with slow():
            file = take()
        core.Note.objects.update(note="changed")
        before = snapshot()
        with slow():
            restore(file, clear=True)
        with slow():
            services.undo_restore()
    assert not differences(before, snapshot())


REFUSING = {
    "mysql": ["SET SESSION TRANSACTION READ ONLY"],
    "postgresql": ["SET default_transaction_read_only = on"],
    "sqlite": ["PRAGMA query_only = 1"],
}[connection.vendor]


@pytest.mark.parametrize("statement", REFUSING)
def test_a_session_that_cannot_write_is_told_in_words(filled, statement):
    file = take()
    core.Note.objects.update(note="changed")
    before = snapshot()
    with odd_sessions(statement), pytest.raises(BackupError):
        restore(file, clear=True)
    assert not differences(before, snapshot())

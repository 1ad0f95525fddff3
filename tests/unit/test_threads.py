"""Under gunicorn's gevent workers, no wait of a restore lets another request go on in its thread."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from backup import threads
from tests.support.backups import restore, take
from tests.support.snapshots import differences, snapshot


def gevent(*patched):
    return SimpleNamespace(is_module_patched=lambda name: name in patched)


@pytest.fixture
def greenlets(monkeypatch):
    monkeypatch.setitem(sys.modules, "gevent.monkey", gevent("threading"))


def never(*args, **options):
    pytest.fail("another greenlet would go on")


@pytest.mark.parametrize("clear", [True, False])
def test_a_restore_gives_way_to_no_greenlet(filled, greenlets, monkeypatch, clear):
    monkeypatch.setattr(threading.Thread, "start", never)
    monkeypatch.setattr(time, "sleep", never)
    before, file = snapshot(), take()
    restore(file, clear=clear)
    assert not differences(before, snapshot())


@pytest.mark.parametrize("module", [None, gevent(), gevent("socket")])
def test_else_there_are_threads(monkeypatch, module):
    monkeypatch.setitem(sys.modules, "gevent.monkey", module)
    with threads.worker() as worker:
        assert isinstance(worker, ThreadPoolExecutor)
        assert worker.submit(threading.current_thread).result() is not threading.current_thread()


def test_work_at_once(greenlets):
    with threads.worker() as worker:
        assert worker.submit(threading.current_thread).result() is threading.current_thread()
        failed = worker.submit(int, "x")
        with pytest.raises(ValueError, match="'x'"):
            failed.result()
        with pytest.raises(KeyboardInterrupt):
            worker.submit(interrupted)


def interrupted():
    raise KeyboardInterrupt

"""Runs a call to a storage, which may be a remote server, with a limit on how long it may hang.

A client that hangs cannot be interrupted in Python, so it runs in a thread of its own, which is abandoned if no bytes
have moved for some time. Threads are reused, since clients such as boto3's open a connection for each thread.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from django.db import connections

T = TypeVar("T")
#: Seconds after which a storage that does not answer is considered to hang.
ANSWER = 20
#: The same while a file is sent or fetched, counted from the last bytes that moved.
STALLED = 120


class DoesNotAnswer(OSError):
    """The storage did not answer in time."""


class Activity:
    """Notes when bytes last moved. The work calls `moved` whenever they do, and `check` when something else came, such
    as a part of a list, which gives it no more time. `is_abandoned`: whether nobody waits for the work any more."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.is_abandoned = False

    def moved(self) -> None:
        self.check()
        self.last = time.monotonic()

    def check(self) -> None:
        """End abandoned work: a server that sends without end would fill the memory or the disk in its thread."""
        if self.is_abandoned:
            raise DoesNotAnswer("abandoned")


class WatchedFile:
    """A wrapper around a file that reports each read to an `Activity`, and that libraries cannot close."""

    def __init__(self, file: Any, activity: Activity) -> None:
        self._file, self._activity = file, activity

    def read(self, *args: Any) -> Any:
        self._activity.moved()
        return self._file.read(*args)

    def close(self) -> None:
        """Do nothing: whoever opened the file may read it again, and closes it."""

    def __iter__(self) -> Any:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Worker:
    """A thread that runs one piece of work after another."""

    def __init__(self) -> None:
        self.work: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self.outcome: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        # A daemon thread: the process can end although one hangs.
        threading.Thread(target=self._run, name="storage", daemon=True).start()

    def _run(self) -> None:
        while True:
            work = self.work.get()
            outcome: tuple[Any, BaseException | None]
            try:
                outcome = work(), None
            except BaseException as error:  # noqa: BLE001  raised again by who asked
                outcome = None, error
            finally:
                connections.close_all()  # a storage may keep its files in a database
            self.outcome.put(outcome)
            del work, outcome


_idle: list[_Worker] = []
os.register_at_fork(after_in_child=_idle.clear)  # threads do not survive a fork


def bounded(work: Callable[[Activity], T], seconds: float) -> T:
    """Run `work` in another thread, and return or raise what it returns or raises.

    Raises `DoesNotAnswer` if nothing has moved for this many seconds. `work` then goes on in its thread until it
    reports to its `Activity`, and its result is ignored.
    """
    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    activity = Activity()
    worker.work.put(lambda: work(activity))
    while True:
        try:
            result, error = worker.outcome.get(timeout=max(activity.last + seconds - time.monotonic(), 0.01))
            break
        except queue.Empty:
            if time.monotonic() - activity.last >= seconds:
                activity.is_abandoned = True
                raise DoesNotAnswer(f"no answer within {seconds} seconds") from None
    _idle.append(worker)
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]

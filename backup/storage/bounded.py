"""Waits for a storage that may be anybody's server, but not for ever.

A client that hangs cannot be interrupted in Python, so it works in a thread of its own, which is given up when nothing
has moved for some time. Threads are kept for the next call, since clients such as boto3's connect once a thread.
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
#: Seconds after which a storage that did not answer a question is taken to hang.
ANSWER = 20
#: The same while a file is sent or fetched, counted from the last bytes that moved.
STALLED = 120


class DoesNotAnswer(OSError):
    """A storage hangs."""


class Activity:
    """What work reports to whenever bytes have moved."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def moved(self) -> None:
        self.last = time.monotonic()


class WatchedFile:
    """A file that reports each read as an activity, and stays open, whatever a library does; all else is as with
    `file`."""

    def __init__(self, file: Any, activity: Activity) -> None:
        self._file, self._activity = file, activity

    def read(self, *args: Any) -> Any:
        self._activity.moved()
        return self._file.read(*args)

    def close(self) -> None:
        """Leave it open: who opened it reads it again, or closes it."""

    def __iter__(self) -> Any:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Worker:
    """A thread that does one piece of work after another."""

    def __init__(self) -> None:
        self.work: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self.outcome: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        # A daemon, so that one that hangs is not waited for when the process ends.
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
    """Return what `work` returns, or raise what it raises.

    Raises `DoesNotAnswer` when nothing has moved for so many seconds; `work` then goes on by itself, and what it
    returns is dropped.
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
                raise DoesNotAnswer(f"no answer within {seconds} seconds") from None
    _idle.append(worker)
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]

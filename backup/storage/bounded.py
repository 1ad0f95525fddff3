"""Runs a call to a storage, which may be a remote server, with a limit on how long it may hang.

A client that hangs cannot be interrupted in Python, so it runs in a thread of its own, which is abandoned if no bytes
have moved for some time. Threads are reused, since clients such as boto3's open a connection for each thread.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeVar

from django.db import connections

T = TypeVar("T")
#: Seconds after which a storage that does not answer is considered to hang.
ANSWER = 20
#: The same while a file is sent or fetched, counted from the last bytes that moved.
STALLED = 120
#: Seconds that a page waits for all locations together, since some hosts end a request after 30 seconds, and others the
#: process that carries it out. A file may take longer if it comes fast enough: so many bytes give a second more.
PAGE, SPEED = 25, 64 * 1024


class DoesNotAnswer(OSError):
    """The storage did not answer in time."""


class PageWaitsNoLonger(DoesNotAnswer):
    """The time of a page is up. A command would have waited longer."""


class Patience:
    """How many seconds a page still waits. Only the time within calls counts, not the work between them."""

    def __init__(self, seconds: float) -> None:
        self._most = self._left = seconds
        self._until = 0.0

    def begin(self) -> None:
        """Note that a call begins. Raises `PageWaitsNoLonger`."""
        if self._left <= 0:
            raise PageWaitsNoLonger
        self._until = time.monotonic() + self._left

    def moved(self, size: int) -> None:
        self._until = min(self._until + size / SPEED, time.monotonic() + self._most)

    def remaining(self) -> float:
        self._left = self._until - time.monotonic()
        return self._left

    @contextmanager
    def shared(self, number: int) -> Iterator[Patience]:
        """Yield the patience with the next of `number` places, so that the first does not take the time of all."""
        part = Patience(self._left / number)
        try:
            yield part
        finally:
            self._left -= part._most - part._left


_patience: ContextVar[Patience | None] = ContextVar("patience", default=None)


def patience() -> Patience | None:
    """Return the patience of the page that is asking; None if it is a command, or another process."""
    return _patience.get()


@contextmanager
def page_waits() -> Iterator[None]:
    """Bound the time that the block waits for locations, all calls together."""
    with _with(Patience(PAGE)):
        yield


@contextmanager
def unhurried() -> Iterator[None]:
    """Let the block wait for locations as long as a command does."""
    with _with(None):
        yield


@contextmanager
def one_of(number: int) -> Iterator[None]:
    """Give the block, which asks one of the `number` places that remain, an equal share of a page's remaining time."""
    whole = _patience.get()
    if whole is None:
        yield
        return
    with whole.shared(number) as part, _with(part):
        yield


@contextmanager
def _with(patience: Patience | None) -> Iterator[None]:
    before = _patience.set(patience)
    try:
        yield
    finally:
        _patience.reset(before)


class Activity:
    """Notes when bytes last moved. The work calls `moved` whenever they do, and `check` when something else came, such
    as a part of a list, which gives it no more time. `is_abandoned`: whether nobody waits for the work any more.
    `patience`: of a page, if it is one that waits."""

    def __init__(self, patience: Patience | None = None) -> None:
        self.last = time.monotonic()
        self.patience = patience
        self.is_abandoned = False

    def moved(self, size: int) -> None:
        self.check()
        self.last = time.monotonic()
        if self.patience is not None:
            self.patience.moved(size)

    def check(self) -> None:
        """End abandoned work: a server that sends without end would fill the memory or the disk in its thread."""
        if self.is_abandoned:
            raise DoesNotAnswer("abandoned")


class WatchedFile:
    """A wrapper around a file that reports each read to an `Activity`, and that libraries cannot close."""

    def __init__(self, file: Any, activity: Activity) -> None:
        self._file, self._activity = file, activity

    def read(self, *args: Any) -> Any:
        content = self._file.read(*args)
        self._activity.moved(len(content))
        return content

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
        self.outcome: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
        # A daemon thread: the process can end although one hangs.
        threading.Thread(target=self._run, name="storage", daemon=True).start()

    def _run(self) -> None:
        while True:
            work = self.work.get()
            outcome: tuple[Any, Exception | None]
            try:
                outcome = work(), None
            except Exception as error:  # noqa: BLE001  raised again by who asked
                outcome = None, error
            except BaseException as error:  # noqa: BLE001  as above
                # It would end whoever asked, as if the process were to end. Who handles errors says its name only.
                outcome = None, type(type(error).__name__, (Exception,), {})()
            finally:
                connections.close_all()  # a storage may keep its files in a database
            self.outcome.put(outcome)
            del work, outcome


_idle: list[_Worker] = []
os.register_at_fork(after_in_child=_idle.clear)  # threads do not survive a fork


def bounded(work: Callable[[Activity], T], seconds: float, patience: Patience | None = None) -> T:
    """Run `work` in another thread, and return or raise what it returns or raises.

    What is no `Exception`, such as `asyncio.CancelledError`, is raised as one of the same name.

    Raises `DoesNotAnswer` if nothing has moved for this many seconds, or `PageWaitsNoLonger` if the patience is at its
    end. `work` then goes on in its thread until it reports to its `Activity`, and its result is ignored.
    """
    if patience is not None:
        patience.begin()
    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    activity = Activity(patience)
    worker.work.put(lambda: work(activity))
    while True:
        left = activity.last + seconds - time.monotonic()
        page = patience.remaining() if patience is not None else left
        if min(left, page) <= 0:
            activity.is_abandoned = True
            raise PageWaitsNoLonger if page < left else DoesNotAnswer(f"no answer within {seconds} seconds")
        with suppress(queue.Empty):
            result, error = worker.outcome.get(timeout=max(min(left, page), 0.01))
            break
    if patience is not None:
        patience.remaining()
    _idle.append(worker)
    if error is not None:
        try:
            raise error
        finally:
            # It refers to this frame, so what it holds, such as a socket, would stay open for some time.
            del error
    return result  # type: ignore[no-any-return]

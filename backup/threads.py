"""Runs work in a thread beside this one, and lets other threads go on; but not where threads are greenlets, as under
`gunicorn -k gevent`.

There each wait for a thread lets other requests go on in this same thread. If a restore waited while it holds the locks
of the database, one of these could ask the database for them, in C, where nothing goes on any more: neither would end.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any


def worker() -> Executor:
    """Return a thread that does one piece of work after another; where it would be a greenlet, one that does each at
    once."""
    return _AtOnce() if are_greenlets() else ThreadPoolExecutor(1, "backup")


def give_way() -> None:
    """Let another thread have the interpreter lock now."""
    if not are_greenlets():
        time.sleep(0)


def are_greenlets() -> bool:
    """Tell whether gevent has put greenlets in the place of threads."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


class _AtOnce(Executor):
    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  raised again by who asks for the result
            future.set_exception(error)
        return future

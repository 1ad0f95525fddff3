"""How long a page waits for locations."""

import asyncio
import os
import signal
import threading
import time

import pytest

from backup.storage import bounded as waiting
from backup.storage.bounded import (
    SPEED,
    DoesNotAnswer,
    PageWaitsNoLonger,
    bounded,
    one_of,
    page_waits,
    patience,
    unhurried,
)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(waiting, "PAGE", 0.4)


def ask(work, seconds=60):
    return bounded(work, seconds, patience())


def sleeps(seconds):
    return lambda _activity: time.sleep(seconds)


def took(act, error=PageWaitsNoLonger):
    began = time.monotonic()
    with pytest.raises(error) as caught:
        act()
    assert type(caught.value) is error
    return time.monotonic() - began


def sends(size, times, pause):
    def work(activity):
        for _ in range(times):
            time.sleep(pause)
            activity.moved(size)
        return "all of it"

    return work


def test_all_calls_together():
    with page_waits():
        ask(sleeps(0.25))
        assert took(lambda: ask(sleeps(5))) < 0.25
        assert took(lambda: ask(sleeps(5))) < 0.05


def test_what_happens_in_between_does_not_count():
    with page_waits():
        for _ in range(3):
            time.sleep(0.2)
            assert ask(lambda _activity: "here") == "here"


def test_one_that_does_not_answer_at_all():
    with page_waits():
        assert took(lambda: ask(sleeps(5), 0.1), DoesNotAnswer) < 0.3


def test_a_byte_now_and_then_gives_no_more_time():
    with page_waits():
        assert took(lambda: ask(sends(1, 100, 0.05))) < 0.6


def test_a_file_that_comes_fast_enough_may_be_long():
    with page_waits():
        assert ask(sends(SPEED // 10, 16, 0.05)) == "all of it"


def test_what_came_fast_does_not_pay_for_what_stalls():
    def work(activity):
        activity.moved(100 * SPEED)
        time.sleep(5)

    with page_waits():
        assert took(lambda: ask(work)) < 0.6


def test_each_place_has_its_share():
    with page_waits():
        with one_of(2):
            assert took(lambda: ask(sleeps(5))) < 0.3
        with one_of(1):
            ask(sleeps(0.1))
            assert took(lambda: ask(sleeps(5))) < 0.2
        assert took(lambda: ask(sleeps(5))) < 0.2


def test_a_command_waits():
    with one_of(2):
        ask(sleeps(0.5))
    with page_waits(), unhurried():
        ask(sleeps(0.5))


class PanicException(BaseException):
    """As those of libraries in Rust."""


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, PanicException, SystemExit]
)
def test_what_is_no_exception_is_raised_as_one(error):
    def work(_activity):
        raise error("secret")

    with pytest.raises(Exception) as caught:  # noqa: PT011
        ask(work)
    assert type(caught.value).__name__ == error.__name__
    assert "secret" not in str(caught.value)
    assert ask(lambda _activity: "here") == "here"


def test_who_waits_can_be_interrupted():
    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        ask(sleeps(5))
    timer.join()

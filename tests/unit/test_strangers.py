"""What becomes of the body of a request that was refused before it was read."""

import socket
import threading

from django.http import HttpResponse
from django.test import RequestFactory

from backup import access


def test_a_stranger_who_sends_little_by_little_is_not_waited_for():
    """Each byte alone comes soon enough; ten seconds of them would keep the worker busy."""
    ours, theirs = socket.socketpair()
    request = RequestFactory().post("/backup/upload/", **{"gunicorn.socket": ours})
    response = HttpResponse(status=401)
    access.drop_body(request, response)
    sent, is_over = 0, threading.Event()

    def send():
        nonlocal sent
        while not is_over.wait(0.05):
            theirs.send(b"x")
            sent += 1

    stranger = threading.Thread(target=send)
    with ours, theirs:
        stranger.start()
        response.close()
        is_over.set()
        stranger.join()
    assert 0 < sent < 100

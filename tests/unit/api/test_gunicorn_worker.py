"""The server's worker ends what takes too long, and refuses in our own form."""

import json
import socket
import time
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.http.errors import InvalidRequestLine, LimitRequestHeaders

from api import gunicorn_conf
from api.gunicorn_worker import LONGEST_BATCH_SECONDS, LONGEST_REQUEST_SECONDS, BoundedThreadWorker


class Silent:
    """A log that keeps nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: None


@pytest.fixture
def worker() -> Any:
    """A worker that was never started: only the methods that we override are called."""
    made = BoundedThreadWorker.__new__(BoundedThreadWorker)
    made.log, made.pending_conns, made._busy_since = Silent(), deque(), {}
    made._with_batches = set()
    return made


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(2)
        yield ours, theirs


class Connection(SimpleNamespace):
    """What the worker knows of a connection."""

    __hash__ = object.__hash__


def test_a_batch_may_take_longer(worker: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    """It is as long as it has items; and it ends, too."""
    ours, theirs = pair
    conn = Connection(sock=ours)
    theirs.settimeout(5)
    worker._with_batches.add(conn)
    worker._busy_since[conn] = time.monotonic() - LONGEST_BATCH_SECONDS + 5
    worker.murder_pending()
    ours.sendall(b"still open")
    assert theirs.recv(10) == b"still open"
    worker._busy_since[conn] = time.monotonic() - LONGEST_BATCH_SECONDS - 5
    worker.murder_pending()
    assert theirs.recv(10) == b""


def test_a_request_that_never_ends_is_ended(worker: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    """A thread that reads from it gets the end of the stream; a younger request is left alone."""
    ours, theirs = pair
    conn = Connection(sock=ours)
    worker._busy_since[conn] = time.monotonic() - LONGEST_REQUEST_SECONDS + 5
    worker.murder_pending()
    theirs.sendall(b"x")
    assert ours.recv(1) == b"x"
    worker._busy_since[conn] -= 10
    worker.murder_pending()
    assert theirs.recv(1) == b""
    assert ours.recv(1) == b""
    ours.close()
    worker.murder_pending()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidRequestLine("x"), 400, "INVALID_REQUEST"),
        (LimitRequestHeaders("x"), 431, "INVALID_REQUEST"),
        (RuntimeError("x"), 500, "INTERNAL"),
    ],
)
def test_what_never_reached_the_application_is_refused_as_a_problem(
    worker: Any, pair: tuple[socket.socket, socket.socket], error: Exception, status: int, code: str
) -> None:
    """The same form as everywhere, and nothing of the error's text."""
    ours, theirs = pair
    worker.handle_error(None, ours, ("", 0), error)
    head, _, body = theirs.recv(10_000).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert f"Content-Length: {len(body)}".encode() in head
    assert (json.loads(body)["status"], json.loads(body)["code"]) == (status, code)


def test_the_server_has_room_for_all_that_wait() -> None:
    """More threads than waiting requests, and more connections than threads."""
    assert gunicorn_conf.threads > 200
    assert gunicorn_conf.worker_connections > gunicorn_conf.threads
    assert gunicorn_conf.graceful_timeout <= 5

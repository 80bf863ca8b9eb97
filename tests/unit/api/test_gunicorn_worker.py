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
from gunicorn.workers.gthread import ThreadWorker

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


def test_requests_that_follow_at_once_stay_in_their_thread(
    worker: Any, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its own time, and a batch's longer one ends with it; then the connection goes back."""
    ours, theirs = pair
    conn, served = Connection(sock=ours), []

    def serve(_: Any, conn: Any) -> bool:
        served.append((ours.recv(1), worker._busy_since[conn], conn in worker._with_batches))
        worker._with_batches.add(conn)
        if len(served) < 3:
            theirs.sendall(b"x")
        return True

    monkeypatch.setattr(ThreadWorker, "handle", serve)
    worker.alive = True
    theirs.sendall(b"x")
    assert worker.handle(conn) is True
    bodies, times, with_batches = zip(*served, strict=True)
    assert (bodies, with_batches) == ((b"x",) * 3, (False,) * 3)
    assert times[0] < times[1] < times[2]
    assert not worker._busy_since
    assert not worker._with_batches


@pytest.mark.parametrize("answer", [False, object()])
def test_a_connection_that_is_over_or_waits_goes_back_at_once(
    worker: Any, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    """Also where more has come; a server that stops keeps none."""
    ours, theirs = pair
    theirs.sendall(b"x")
    calls = []
    monkeypatch.setattr(ThreadWorker, "handle", lambda _, conn: calls.append(conn) or answer)
    worker.alive = True
    assert worker.handle(Connection(sock=ours)) is answer
    monkeypatch.setattr(ThreadWorker, "handle", lambda _, conn: calls.append(conn) or True)
    worker.alive = False
    assert worker.handle(Connection(sock=ours)) is True
    assert len(calls) == 2


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

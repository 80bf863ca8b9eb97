"""The server's worker ends what takes too long, and refuses in our own form."""

import http.client
import json
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import RequestParser
from gunicorn.http.errors import InvalidRequestLine, LimitRequestHeaders
from gunicorn.workers.gthread import ThreadWorker

from api import gunicorn_conf
from api.contract import Problem
from api.gunicorn_worker import (
    LINGER_SECONDS,
    LONGEST_BATCH_SECONDS,
    LONGEST_HEAD_SECONDS,
    LONGEST_REQUEST_SECONDS,
    BodyParser,
    BoundedThreadWorker,
    _linger,
)
from ops.processes import Child, wait_until
from ops.servers import HOST, free_port, port_is_free
from shared.problems import PROBLEMS
from tests.tls import make_certificates

BATCH = SimpleNamespace(
    headers=[("HOST", "localhost")], version=(1, 1), path="/batches", should_close=lambda: False
)
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Silent:
    """A log that keeps nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: None


@pytest.fixture
def worker() -> Any:
    """A worker that was never started: only the methods that we override are called."""
    made = BoundedThreadWorker.__new__(BoundedThreadWorker)
    made.cfg, made.log, made.pending_conns, made._busy_since = Config(), Silent(), deque(), {}
    made._with_batches, made._without_head = set(), set()
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
    conn, served = Connection(sock=ours, parser=RequestParser(worker.cfg, ours, None)), []

    def serve(_: Any, conn: Any) -> bool:
        served.append((conn.parser.unreader.read(), worker._busy_since[conn], conn in worker._with_batches))
        worker._with_batches.add(conn)
        if len(served) < 3:
            theirs.sendall(HEAD)
        return True

    monkeypatch.setattr(ThreadWorker, "handle", serve)
    worker.alive = True
    theirs.sendall(HEAD)
    assert worker.handle(conn) is True
    bodies, times, with_batches = zip(*served, strict=True)
    assert (bodies, with_batches) == ((HEAD,) * 3, (False,) * 3)
    assert times[0] < times[1] < times[2]
    assert not worker._busy_since
    assert not worker._with_batches


@pytest.mark.parametrize("answer", [False, object()])
def test_a_connection_that_is_over_or_waits_goes_back_at_once(
    worker: Any, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    """Also where more has come; a server that stops keeps none."""
    ours, theirs = pair
    theirs.sendall(HEAD)
    theirs.shutdown(socket.SHUT_WR)
    calls = []
    monkeypatch.setattr(ThreadWorker, "handle", lambda _, conn: calls.append(conn) or answer)
    worker.alive = True
    assert worker.handle(Connection(sock=ours)) is answer
    monkeypatch.setattr(ThreadWorker, "handle", lambda _, conn: calls.append(conn) or True)
    worker.alive = False
    assert worker.handle(Connection(sock=ours)) is True
    assert len(calls) == 2


@pytest.mark.parametrize("step", ["send", "receive"])
def test_a_client_that_is_silent_in_its_request_is_left(
    worker: Any, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """One that sends no more of a batch kept its thread for a quarter of an hour; nothing is logged of it."""

    def serve(_: Any, __: Any, conn: Any) -> None:
        if step == "receive":
            conn.sock.recv(1)
        while True:
            conn.sock.sendall(bytes(65_536))

    monkeypatch.setattr("api.gunicorn_worker.LONGEST_SILENCE_SECONDS", 0.1)
    monkeypatch.setattr(ThreadWorker, "handle_request", serve)
    conn = accepted(worker, pair[0], monkeypatch)
    with pytest.raises(ConnectionResetError):
        worker.handle_request(BATCH, conn)


def accepted(worker: Any, sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> Connection:
    """Return a connection as the server has it whose first request is here."""
    monkeypatch.setattr(ThreadWorker, "enqueue_req", lambda *_: None)
    monkeypatch.setattr("api.gunicorn_worker._has_head", lambda _: True)
    conn = Connection(sock=sock, client=None, parser=None)
    worker.enqueue_req(conn)
    return conn


def test_a_client_that_is_slow_and_not_silent_is_served(
    worker: Any, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long one piece takes to send, as long as some of it is taken."""
    ours, theirs = pair
    body = bytes(2_000_000)

    def serve(_: Any, __: Any, conn: Any) -> None:
        conn.sock.sendall(body)

    def read_slowly() -> int:
        received = 0
        while received < len(body):
            time.sleep(0.02)
            received += len(theirs.recv(40_000))
        return received

    monkeypatch.setattr("api.gunicorn_worker.LONGEST_SILENCE_SECONDS", 0.4)
    monkeypatch.setattr(ThreadWorker, "handle_request", serve)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_slowly)
        conn = accepted(worker, ours, monkeypatch)
        began = time.monotonic()
        worker.handle_request(BATCH, conn)
        assert time.monotonic() - began > 0.4
        assert reading.result() == len(body)


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


@pytest.mark.parametrize(
    ("path", "is_batch"),
    [("/batches", True), ("/mounted/batches", True), ("/predict", False), ("/batches/1/results", False)],
)
def test_only_what_brings_a_batch_may_take_longer(
    worker: Any,
    pair: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    is_batch: bool,
) -> None:
    """By its path, wherever the application is mounted."""
    conn, seen = Connection(sock=pair[0]), []
    monkeypatch.setattr(ThreadWorker, "handle_request", lambda *_: seen.append(conn in worker._with_batches))
    worker.handle_request(SimpleNamespace(**{**vars(BATCH), "path": path}), conn)
    assert seen == [is_batch]


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


def answer_early(environ: Any, start_response: Any) -> list[bytes]:
    """Refuse a body unread, and answer everything else."""
    status = "404 Not Found" if environ["REQUEST_METHOD"] == "POST" else "200 OK"
    start_response(status, [("Content-Length", "2")])
    return [b"ok"]


@contextmanager
def serving(folder: Path, *more: str) -> Iterator[int]:
    """Give the port of a server with two threads."""
    port = free_port()
    options = f"--bind {HOST}:{port} --threads 2 --keep-alive 5 --worker-connections 100".split()
    command = [sys.executable, "-m", "gunicorn", "--no-control-socket", *options, *more]
    command += ["-k", "api.gunicorn_worker.BoundedThreadWorker", f"{__name__}:answer_early"]
    child = Child("server", command, folder / "log")
    child.start()
    try:
        assert wait_until(lambda: not port_is_free(port), 20), child.log.read_text()
        yield port
    finally:
        child.stop(10)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that speaks no TLS."""
    with serving(tmp_path_factory.mktemp("server")) as port:
        yield port


def _status(connection: socket.socket, request: bytes) -> int:
    connection.sendall(request)
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer.status


def test_a_connection_over_tls_is_kept(tmp_path: Path) -> None:
    """A server with a certificate of its own closed each one at its second request."""
    made = make_certificates(tmp_path / "tls")
    context = ssl.create_default_context(cafile=made.ca_file)
    own = ["--certfile", str(made.server_file), "--keyfile", str(made.server_file)]
    with (
        serving(tmp_path, *own) as port,
        socket.create_connection((HOST, port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as connection,
    ):
        assert [_status(connection, HEAD) for _ in range(5)] == [200] * 5


def test_a_body_that_was_read_is_not_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    """Nor is a time-out set for that; what is left of another one is dropped."""
    ours, theirs = pair
    theirs.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" * 2)
    watched = Connection(recv=ours.recv, gettimeout=lambda: None, settimeout=lambda _: times.append(1))
    times: list[int] = []
    parser = BodyParser(Config(), watched, None)
    assert next(parser).body.read() == b"abc"
    assert parser.finish_body(time.monotonic() + 1)
    assert not times
    next(parser)
    assert parser.finish_body(time.monotonic() + 1)
    assert times
    assert parser.unreader.buf.getvalue() == b""


def test_a_head_that_is_not_whole_holds_no_thread(served: int) -> None:
    """Nothing, a byte, or a byte behind a whole request: more of them than threads, and others are served."""
    slow = [socket.create_connection((HOST, served), timeout=9) for _ in range(12)]
    try:
        for connection in slow[4:8]:
            connection.sendall(HEAD[:1])
        for connection in slow[8:]:
            assert _status(connection, HEAD + HEAD[:1]) == 200
        began = time.monotonic()
        with socket.create_connection((HOST, served), timeout=5) as connection:
            assert _status(connection, HEAD) == 200
        assert time.monotonic() - began < 1
        # What comes in pieces is answered.
        for piece in (HEAD[1:10], HEAD[10:-2]):
            slow[4].sendall(piece)
            time.sleep(0.05)
        assert _status(slow[4], HEAD[-2:]) == 200
        # The others are hung up on.
        for connection in [*slow[:4], *slow[5:]]:
            connection.settimeout(max(0.1, began + LONGEST_HEAD_SECONDS + 3 - time.monotonic()))
            assert connection.recv(1) == b""
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: [::1]:5000\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: tiles_1.lab.example:443\r\n\r\n", 200),
    ],
)
def test_a_request_names_one_host(served: int, head: bytes, status: int) -> None:
    """Else it is read differently by whatever stands before the server (RFC 9112, section 3.2)."""
    with socket.create_connection((HOST, served), timeout=5) as connection:
        assert _status(connection, head) == status


@pytest.mark.parametrize("size", [1_000_000, 20_000_000])
def test_a_client_that_is_refused_while_it_sends_hears_why(served: int, size: int) -> None:
    """Its connection is not reset before it has read the answer."""
    for _ in range(3):
        with socket.create_connection((HOST, served), timeout=5) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
            time.sleep(0.05)
            assert _status(connection, bytes(size)) == 404


@pytest.mark.parametrize(
    ("stated", "sent", "goes_on"),
    [
        (b"Content-Length: 1000", bytes(1_000), True),
        (b"Content-Length: 1000000", bytes(1_000_000), False),
        (b"Content-Length: 1000", b"", False),
        (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n", True),
        (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n", False),
        (b"Transfer-Encoding: chunked", b"nonsense\r\n", False),
    ],
    ids=["short", "long", "late", "short chunks", "late chunks", "broken chunks"],
)
def test_an_answer_ahead_of_its_body_says_whether_the_connection_goes_on(
    served: int, stated: bytes, sent: bytes, goes_on: bool
) -> None:
    """Else a client's next request, which may be no one to repeat, meets a closed connection."""
    with socket.create_connection((HOST, served), timeout=5) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n%b" % (stated, sent))
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.read()) == (404, b"ok")
        assert answer.will_close is not goes_on
        if goes_on:
            assert _status(connection, HEAD) == 200
        else:
            assert connection.recv(1) == b""


def test_a_client_that_is_silent_once_it_is_refused_is_left_in_time(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """It holds a thread no longer, whatever time-out its connection has."""
    pair[0].settimeout(LINGER_SECONDS + 5)
    began = time.monotonic()
    _linger(pair[0])
    assert LINGER_SECONDS <= time.monotonic() - began < LINGER_SECONDS + 4


def test_a_client_that_never_stops_sending_is_left_in_time(served: int) -> None:
    """It does not keep its thread."""
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 99\r\n\r\n"
    with socket.create_connection((HOST, served), timeout=9) as connection:
        began = time.monotonic()
        assert _status(connection, head) == 404
        with pytest.raises(OSError, match=r"reset|pipe"):  # noqa: PT012 - the second may be one later
            while time.monotonic() - began < 9:
                connection.sendall(b"x")
                time.sleep(0.1)
    assert LINGER_SECONDS - 0.5 < time.monotonic() - began < LINGER_SECONDS + 3


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidRequestLine("x"), 400, "INVALID_REQUEST"),
        (LimitRequestHeaders("x"), 431, "INVALID_REQUEST"),
        (RuntimeError("x"), 500, "INTERNAL"),
    ],
)
def test_what_never_reached_the_application_is_refused_as_a_problem(
    worker: Any,
    pair: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    code: str,
) -> None:
    """The same form as everywhere, and nothing of the error's text."""
    monkeypatch.setenv("SCRIPT_NAME", "/tiles")
    ours, theirs = pair
    worker.handle_error(None, ours, ("", 0), error)
    head, _, body = theirs.recv(10_000).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert f"Content-Length: {len(body)}".encode() in head
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["type"].startswith("/tiles/docs/errors#")
    assert problem["title"] == PROBLEMS[code].title
    assert problem.keys() >= Problem.model_fields.keys()
    assert ("well-formed" in problem["detail"]) == (status != 500)


def test_the_server_has_room_for_all_that_wait() -> None:
    """More threads than waiting requests, and more connections than threads."""
    assert gunicorn_conf.threads > 200
    assert gunicorn_conf.worker_connections > gunicorn_conf.threads
    assert gunicorn_conf.graceful_timeout <= 5
    # And what stands before it closes a connection first: nginx and the balancers of AWS keep one for 60 s.
    assert gunicorn_conf.keepalive > 60


def test_no_header_says_where_the_server_is_mounted() -> None:
    """Every client behind a proxy that passes on what it gets could; the operator says it in SCRIPT_NAME."""
    config = Config()
    config.set("forwarder_headers", gunicorn_conf.forwarder_headers)
    assert config.forwarder_headers == []

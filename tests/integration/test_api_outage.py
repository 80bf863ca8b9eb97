"""A real gunicorn over real servers: stores that hang, bodies that do not end, clients that are slow."""

import http.client
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from ops.processes import Child, wait_until
from ops.servers import HOST, ObjectServer, RedisServer, free_port
from shared.job_store_redis import RedisJobStore, connect
from shared.model_registry import ModelRegistry
from shared.object_store import WORKER_PATIENCE
from shared.object_store_s3 import S3ObjectStore
from tests.factories import jpeg_bytes, write_model
from tests.work import claim, succeed

pytestmark = pytest.mark.integration
BUCKET = "histoqueue"
JPEG = {"Content-Type": "image/jpeg"}


@dataclass(frozen=True)
class Answer:
    """One answer, and how long it took."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Stack:
    """The API on a port, and the two servers behind it, which tests may stop and continue."""

    port: int
    api: Child
    redis: Child
    objects: Child
    bucket: S3ObjectStore
    jobs: RedisJobStore

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request on a connection of its own."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=40)
        began = time.monotonic()
        try:
            connection.request(method, path, body, {**(JPEG if body else {}), **headers})
            answer = connection.getresponse()
            read = json.loads(answer.read())
        finally:
            connection.close()
        return Answer(answer.status, dict(answer.headers), read, time.monotonic() - began)

    def submit(self, _number: int = 0) -> Answer:
        """Submit a tile."""
        return self.ask("POST", "/predict", jpeg_bytes())


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Servers of this file's own, since they are made to hang."""
    folder = tmp_path_factory.mktemp("outage")
    redis = RedisServer(free_port(), "for-this-test", folder / "redis")
    objects = ObjectServer(free_port(), "key", "secret-of-this-test", folder / "objects")
    port = free_port()
    environment = {**os.environ, **objects.environment(), "REDIS_URL": redis.url, "S3_BUCKET": BUCKET}
    command = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf"]
    command += ["--bind", f"{HOST}:{port}", "api.wsgi:app"]
    children = [
        redis.child(folder / "redis.log"),
        objects.child(folder / "objects.log"),
        Child("api", command, folder / "api.log", environment=environment),
    ]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in objects.environment().items():
            patch.setenv(name, value)
        try:
            for child in children:
                child.start()
            assert wait_until(redis.is_ready, 20)
            assert wait_until(lambda: objects.is_ready(BUCKET), 20)
            bucket = S3ObjectStore(BUCKET, objects.url, "us-east-1", WORKER_PATIENCE)
            ModelRegistry(bucket, "lung-cnn").publish(write_model(folder / "model"))
            jobs = RedisJobStore(connect(redis.url, timeout_seconds=5))
            made = Stack(port, children[2], children[0], children[1], bucket, jobs)
            assert wait_until(lambda: _listens(port), 20), made.api.log.read_text()
            yield made
        finally:
            for child in reversed(children):
                child.send(signal.SIGCONT)
                child.stop(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


@pytest.mark.parametrize(
    ("which", "code"), [("redis", "JOB_STORE_UNAVAILABLE"), ("objects", "OBJECT_STORE_UNAVAILABLE")]
)
def test_a_store_that_hangs_is_a_503_within_five_seconds(stack: Stack, which: str, code: str) -> None:
    """Also for many requests at once; the process stays alive, keeps nothing, and recovers by itself."""
    assert stack.submit().status == 202
    # Longer than a process believes what it last read about the live model.
    time.sleep(11)
    before = stack.bucket.list_keys("uploads/")
    child: Child = getattr(stack, which)
    child.send(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(24) as clients:
            answers = list(clients.map(stack.submit, range(24)))
        alive = stack.ask("GET", "/healthz")
        ready = stack.ask("GET", "/readyz")
    finally:
        child.send(signal.SIGCONT)
    assert {(answer.status, answer.body["code"]) for answer in answers} == {(503, code)}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers)
    seconds = sorted(answer.seconds for answer in answers)
    assert seconds[-1] < 5, seconds
    assert (alive.status, ready.status) == (200, 503)
    assert (alive.seconds < 1, ready.seconds < 5.5) == (True, True)
    assert wait_until(lambda: stack.submit().status == 202, 20)
    left = set(stack.bucket.list_keys("uploads/")) - set(before)
    # Of the refused ones nothing was recorded; an image that was on its way into a hung store may be there.
    assert len(left) < 30 if which == "objects" else len(left) == 1


def test_a_waiting_request_is_answered_when_redis_says_so(stack: Stack) -> None:
    """Long before it would look for itself, the first one of the process included."""
    job_id = stack.submit().body["id"]
    with ThreadPoolExecutor(1) as clients:
        parked = clients.submit(stack.ask, "GET", f"/result/{job_id}?wait=20")
        time.sleep(0.5)
        assert claim(stack.jobs, job_id)
        assert succeed(stack.jobs, job_id, {"class": "lung_n"})
        ended = time.monotonic()
        answer = parked.result()
        assert time.monotonic() - ended < 0.5
    assert (answer.status, answer.body["status"]) == (200, "succeeded")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_far_over_the_limit_is_refused_while_it_streams_in(stack: Stack, chunked: bool) -> None:
    """413 with the limit, long before 200 MB have been sent."""
    block, total, sent = jpeg_bytes()[:3] * 21_845, 200_000_000, 0
    with socket.create_connection((HOST, stack.port), timeout=20) as connection:
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {total}"
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n{length}\r\n\r\n"
        connection.sendall(head.encode())
        connection.setblocking(False)
        while sent < total and not _readable(connection):
            try:
                frame = b"%x\r\n%s\r\n" % (len(block), block) if chunked else block
                _send_all(connection, frame)
            except OSError:
                break
            sent += len(block)
        connection.settimeout(20)
        answer = http.client.HTTPResponse(connection, method="POST")
        answer.begin()
        problem = json.loads(answer.read())
    assert (answer.status, problem["code"], problem["limit"]) == (413, "REQUEST_TOO_LARGE", 20_000_000)
    assert sent < 60_000_000


def _readable(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


def _send_all(connection: socket.socket, data: bytes) -> None:
    while data:
        try:
            data = data[connection.send(data) :]
        except BlockingIOError:
            if _readable(connection):
                return
            time.sleep(0.001)


def test_slow_clients_do_not_keep_others_from_being_served(stack: Stack) -> None:
    """A hundred that have sent half a head or half a body, and one that asks."""
    halves = [
        b"POST /predict HTTP/1.1\r\nHost",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nx",
    ]
    slow = [socket.create_connection((HOST, stack.port), timeout=5) for _ in range(100)]
    try:
        for number, connection in enumerate(slow):
            connection.sendall(halves[number % 2])
        time.sleep(0.5)
        assert stack.ask("GET", "/healthz").seconds < 1
        assert stack.submit().status == 202
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
        ),
    ],
)
def test_what_the_server_refuses_itself_is_a_problem_too(
    stack: Stack, request_text: bytes, status: int
) -> None:
    """A bad request line, a long head, a long address, a broken chunk."""
    with socket.create_connection((HOST, stack.port), timeout=10) as connection:
        connection.sendall(request_text)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        problem = json.loads(answer.read())
    assert (answer.status, problem["status"], problem["code"]) == (status, status, "INVALID_REQUEST")
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_parked_requests_do_not_delay_a_stop(stack: Stack) -> None:
    """They are answered with 202, and the server is gone within seconds. Last: it ends the server."""
    path = stack.submit().body["links"]["self"]
    with ThreadPoolExecutor(5) as clients:
        parked = [clients.submit(stack.ask, "GET", f"{path}?wait=30") for _ in range(5)]
        time.sleep(0.5)
        began = time.monotonic()
        stack.api.stop(20)
        assert time.monotonic() - began < 6
        assert [answer.result().status for answer in parked] == [202] * 5
    assert stack.api.exit_code == 0

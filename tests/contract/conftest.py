"""Both sides of the ledger, a Redis that a test may harm, and a second S3 server."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from moto.server import ThreadedMotoServer

from ops.processes import Child, wait_until
from ops.servers import RedisServer, free_port
from shared.job_store import JobStore
from shared.job_store_memory import MemoryJobStore
from shared.job_store_redis import RedisJobStore, connect
from shared.object_store import Patience
from shared.schemas import wall_clock_ms
from shared.services import REDIS_TIMEOUT_SECONDS
from tests.work import Clock

#: Of a client of an S3 server.
PATIENCE = Patience(connect_seconds=1, read_seconds=5, attempts=1)
#: A client, and its server.
OwnRedis = tuple[redis.Redis, Child]


@pytest.fixture
def clock() -> Clock:
    """Time that a test moves; it starts now."""
    return Clock(wall_clock_ms())


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest, clock: Clock) -> Iterator[JobStore]:
    """Each side of the port, empty."""
    if request.param == "memory":
        yield MemoryJobStore(clock)
    else:
        client = request.getfixturevalue("limited_client")
        redis_store = RedisJobStore(client, clock)
        redis_store.found()
        yield redis_store


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    """A server of the test's own, which it may harm, and a client that gives up as the program's does."""
    server = RedisServer(free_port(), "password", tmp_path / "data")
    child = server.child(tmp_path / "log")
    child.start()
    try:
        assert wait_until(server.is_ready, 20)
        with connect(server.url, REDIS_TIMEOUT_SECONDS) as client:
            yield client, child
    finally:
        child.send(signal.SIGCONT)
        child.stop(10)


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """Another S3 server, so that nothing rests on one server's habits."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()

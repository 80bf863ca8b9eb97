"""Real servers on free ports, started for the session and ended by their ids."""

import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from ops.processes import wait_until
from ops.servers import ObjectServer, RedisServer, free_port
from shared.job_store_redis import connect
from tests import limited_redis

# A shell that runs the tests in the background ignores Ctrl-C, and so would every program that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Valkey of our own with a password and every write on disk."""
    folder = tmp_path_factory.mktemp("redis")
    server = RedisServer(free_port(), secrets.token_hex(16), folder / "data")
    child = server.child(folder / "redis.log")
    child.start()
    try:
        assert wait_until(server.is_ready, 20), child.log.read_text()
        yield server
    finally:
        child.stop(10)


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of an empty Redis."""
    client = connect(redis_server.url, timeout_seconds=5)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def limited_url(redis_server: RedisServer, redis_client: redis.Redis) -> Iterator[str]:
    """Address of the empty Redis as a user with the shipped rights alone; nothing may be refused to it."""
    url = limited_redis.limit(redis_client, redis_server.url)
    redis_client.execute_command("ACL", "LOG", "RESET")
    yield url
    assert limited_redis.denials(redis_client) == []


@pytest.fixture
def limited_client(limited_url: str) -> Iterator[redis.Redis]:
    """A client with the shipped rights, as the program has them."""
    client = connect(limited_url, timeout_seconds=5)
    yield client
    client.close()


@pytest.fixture(scope="session")
def object_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """An rclone of our own over an empty folder."""
    folder = tmp_path_factory.mktemp("objects")
    server = ObjectServer(free_port(), secrets.token_hex(8), secrets.token_hex(16), folder / "data")
    child = server.child(folder / "object-store.log")
    child.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        try:
            assert wait_until(lambda: server.is_ready("histoqueue"), 20), child.log.read_text()
            yield server
        finally:
            child.stop(10)


@pytest.fixture(scope="session")
def real_tiles() -> Path:
    """The folder of real tiles; the test is skipped where it is missing."""
    folder = DATA / "lc25000-lung-224"
    if not folder.is_dir():
        pytest.skip("the real tiles are not on this machine")
    return folder

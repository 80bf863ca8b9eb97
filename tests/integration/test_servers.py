"""How the servers of `make up` are told what they are told."""

from pathlib import Path

import pytest
from redis import Redis

from ops.processes import wait_until
from ops.servers import RedisServer, free_port

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("name", ['a "quoted" word', "back\\slash", "ü b\\", "it's"])
def test_redis_keeps_its_data_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    """Its settings have a way of their own to write a quotation mark."""
    server = RedisServer(free_port(), "secret", tmp_path / name)
    child = server.child(tmp_path / "redis.log")
    child.start()
    try:
        assert wait_until(server.is_ready, 10), child.log.read_text()
        with Redis.from_url(server.url) as client:
            client.set("a", "b")
        assert list((tmp_path / name).rglob("*.aof"))
    finally:
        child.stop(5)

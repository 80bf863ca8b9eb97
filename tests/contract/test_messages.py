"""What lies on the queue: an id and a time, as JSON, and nothing else of ours."""

import base64
import json
import signal
import time
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from ops.processes import wait_until
from ops.servers import RedisServer, free_port
from shared import keys
from shared.errors import QueueUnavailable
from shared.job_store_redis import connect
from shared.schemas import Priority, new_job_id
from shared.settings import Settings
from shared.task_queue import INFER_TASK, CeleryTaskQueue, make_celery

pytestmark = pytest.mark.integration


@pytest.fixture
def queue(limited_url: str, limited_client: redis.Redis) -> CeleryTaskQueue:
    """The real queue, empty, with the shipped rights in Redis."""
    return CeleryTaskQueue(make_celery(Settings(redis_url=SecretStr(limited_url))), limited_client)


def test_a_message_holds_an_id_and_no_pixels(queue: CeleryTaskQueue, redis_client: redis.Redis) -> None:
    """It is small, it is JSON, and it goes to the one queue under the task's name."""
    job_id = new_job_id()
    queue.enqueue(job_id, 1_700_000_000_000)
    (raw,) = redis_client.lrange(keys.INFERENCE_QUEUE, 0, -1)
    assert len(raw) < 500
    message = json.loads(raw)
    assert message["content-type"] == "application/json"
    assert message["headers"]["task"] == INFER_TASK
    assert message["headers"]["id"] == job_id
    assert json.loads(base64.b64decode(message["body"])) == [[], {}, {}]


def test_the_oldest_message_is_the_one_that_leaves_next(queue: CeleryTaskQueue) -> None:
    """First in, first out; an empty queue has none."""
    assert queue.heads()[Priority.INTERACTIVE] is None
    queue.enqueue(new_job_id(), 1_700_000_000_000)
    queue.enqueue(new_job_id(), 1_700_000_009_000)
    assert queue.heads()[Priority.INTERACTIVE] == 1_700_000_000_000


@pytest.mark.parametrize(
    "garbage", ["", "{", "[]", '{"headers": {}}', '{"headers": {"published_at_ms": "x"}}']
)
def test_garbage_at_the_head_holds_the_reaper_back(
    queue: CeleryTaskQueue, redis_client: redis.Redis, garbage: str
) -> None:
    """Nothing is known of what lies behind it, so nothing is taken for lost."""
    queue.enqueue(new_job_id(), 1_700_000_000_000)
    redis_client.rpush(keys.INFERENCE_QUEUE, garbage)
    assert queue.heads()[Priority.INTERACTIVE] == 0


def test_no_result_is_kept_and_no_channel_is_opened(
    queue: CeleryTaskQueue, redis_client: redis.Redis
) -> None:
    """Nothing grows with the number of submissions but the queue itself."""
    for _ in range(50):
        queue.enqueue(new_job_id(), 1_700_000_000_000)
    names = set(redis_client.keys("*"))
    assert names <= {keys.INFERENCE_QUEUE, f"_kombu.binding.{keys.INFERENCE_QUEUE}"}
    assert redis_client.pubsub_channels() == []


def test_a_queue_that_is_away_says_so_soon(redis_client: redis.Redis) -> None:
    """The API cannot wait; the reaper publishes later."""
    settings = Settings(redis_url=SecretStr("redis://127.0.0.1:1/0"))
    queue = CeleryTaskQueue(make_celery(settings), redis_client)
    started = time.monotonic()
    with pytest.raises(QueueUnavailable):
        queue.enqueue(new_job_id(), 0)
    assert time.monotonic() - started < 4


def test_a_queue_that_hangs_says_so_in_time(tmp_path: Path) -> None:
    """Accepting a job takes no longer than its client listens, also on a connection that was well before."""
    server = RedisServer(free_port(), "password", tmp_path / "data")
    child = server.child(tmp_path / "log")
    child.start()
    try:
        assert wait_until(server.is_ready, 20)
        client = connect(server.url, timeout_seconds=1)
        queue = CeleryTaskQueue(make_celery(Settings(redis_url=SecretStr(server.url))), client)
        queue.enqueue(new_job_id(), 0)
        child.send(signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(QueueUnavailable):
            queue.enqueue(new_job_id(), 0)
        assert time.monotonic() - started < 4.5
    finally:
        child.kill()


def test_each_priority_has_a_queue_of_its_own(queue: CeleryTaskQueue, redis_client: redis.Redis) -> None:
    """And a head of its own, which the reaper judges by."""
    queue.enqueue(new_job_id(), 1_700_000_000_000, Priority.BULK)
    assert queue.heads() == {Priority.INTERACTIVE: None, Priority.BULK: 1_700_000_000_000}
    queue.enqueue(new_job_id(), 1_700_000_009_000)
    assert queue.heads() == {Priority.INTERACTIVE: 1_700_000_009_000, Priority.BULK: 1_700_000_000_000}
    assert (redis_client.llen(keys.INFERENCE_QUEUE), redis_client.llen(keys.BULK_QUEUE)) == (1, 1)


def test_what_a_client_was_told_travels_with_the_message(
    queue: CeleryTaskQueue, redis_client: redis.Redis
) -> None:
    """So that the worker can say how well it held; without a forecast there is none."""
    queue.enqueue(new_job_id(), 1_700_000_000_000, Priority.INTERACTIVE, 1_700_000_004_000)
    queue.enqueue(new_job_id(), 1_700_000_000_000)
    second, first = (json.loads(raw)["headers"] for raw in redis_client.lrange(keys.INFERENCE_QUEUE, 0, -1))
    assert first["expected_end_ms"] == 1_700_000_004_000
    assert "expected_end_ms" not in second

"""What lies on the queue: an id and a few numbers, as Celery's JSON, and nothing else of ours."""

import json
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from shared import keys
from shared.job_store import REPUBLISH_AFTER_MS
from shared.job_store_redis import RedisJobStore
from shared.queue_order import QUEUES
from shared.schemas import Job, NewJob, Priority, Standing
from shared.settings import Settings
from shared.task_queue import INFER_TASK, RedisTaskQueue, make_celery
from tests.work import Clock, bulk_job, new_job

pytestmark = pytest.mark.integration


@pytest.fixture
def ledger(limited_client: redis.Redis, clock: Clock) -> RedisJobStore:
    """The real ledger, empty, with the shipped rights in Redis."""
    return RedisJobStore(limited_client, clock)


@pytest.fixture
def queue(limited_client: redis.Redis) -> RedisTaskQueue:
    """What the reaper looks at."""
    return RedisTaskQueue(limited_client)


def accept(ledger: RedisJobStore, new: NewJob | None = None) -> Job:
    """Accept a job."""
    return ledger.create(new or new_job(), max_open=100).job


def messages(client: redis.Redis, queue: str = keys.INFERENCE_QUEUE) -> list[dict[str, Any]]:
    """Return the messages of a queue, the one that leaves next first."""
    return [json.loads(raw) for raw in reversed(client.lrange(queue, 0, -1))]


@pytest.mark.parametrize("priority", list(Priority))
def test_a_message_is_what_kombu_would_have_published(
    ledger: RedisJobStore, redis_client: redis.Redis, limited_url: str, priority: Priority
) -> None:
    """Byte by byte in its words; only the tag, which must be its own, differs. It holds no pixels."""
    job = accept(ledger, bulk_job() if priority == Priority.BULK else new_job())
    app = make_celery(Settings(redis_url=SecretStr(limited_url)))
    assert job.standing is not None
    headers = {
        "task": INFER_TASK,
        "id": job.id,
        "published_at_ms": job.published_at_ms,
        "standing": list(job.standing.model_dump().values()),
    }
    with app.producer_or_acquire() as producer:
        producer.publish(
            ([], {}, {}), exchange="", routing_key=QUEUES[priority], serializer="json", headers=headers
        )
    ours, kombus = messages(redis_client, QUEUES[priority])
    tags = {message["properties"].pop("delivery_tag") for message in (ours, kombus)}
    assert ours == kombus
    assert len(tags) == 2
    assert len(json.dumps(ours)) < 500


def test_each_message_has_a_tag_of_its_own(
    ledger: RedisJobStore, redis_client: redis.Redis, clock: Clock
) -> None:
    """An acknowledgement goes by it: two messages of one job must not be taken for one."""
    job = accept(ledger)
    accept(ledger)
    ledger.cancel(job.id)
    clock.advance(0.001)
    ledger.retry(job.id, 100)
    tags = [message["properties"]["delivery_tag"] for message in messages(redis_client)]
    assert len(set(tags)) == 3


def test_the_oldest_message_is_the_one_that_leaves_next(
    ledger: RedisJobStore, queue: RedisTaskQueue, clock: Clock
) -> None:
    """First in, first out; an empty queue has none."""
    assert queue.heads()[Priority.INTERACTIVE] is None
    first = accept(ledger)
    clock.advance(9)
    accept(ledger)
    assert queue.heads()[Priority.INTERACTIVE] == first.published_at_ms


@pytest.mark.parametrize(
    "garbage",
    [
        *("", "{", "[]", "[" * 100_000, '{"headers": {}}', '{"headers": {"published_at_ms": "x"}}'),
        *('{"headers": {"published_at_ms": 1e999}}', b"\xff\xfe", b'{"headers": "\xe4"}'),
    ],
    ids=range(9),
)
def test_garbage_at_the_head_holds_the_reaper_back(
    ledger: RedisJobStore, queue: RedisTaskQueue, redis_client: redis.Redis, garbage: str | bytes
) -> None:
    """Nothing is known of what lies behind it, so nothing is taken for lost."""
    accept(ledger)
    redis_client.rpush(keys.INFERENCE_QUEUE, garbage)
    assert queue.heads() == {Priority.INTERACTIVE: 0, Priority.BULK: None}


def test_each_priority_has_a_queue_of_its_own(
    ledger: RedisJobStore, queue: RedisTaskQueue, redis_client: redis.Redis, clock: Clock
) -> None:
    """And a head of its own, which the reaper judges by."""
    bulk = accept(ledger, bulk_job())
    assert queue.heads() == {Priority.INTERACTIVE: None, Priority.BULK: bulk.published_at_ms}
    clock.advance(9)
    interactive = accept(ledger)
    assert queue.heads() == {
        Priority.INTERACTIVE: interactive.published_at_ms,
        Priority.BULK: bulk.published_at_ms,
    }
    assert (redis_client.llen(keys.INFERENCE_QUEUE), redis_client.llen(keys.BULK_QUEUE)) == (1, 1)


def test_what_a_client_was_told_travels_with_the_message(
    ledger: RedisJobStore, redis_client: redis.Redis, clock: Clock
) -> None:
    """So that the worker can say how well it held; one that repeats a lost message says nothing."""
    accept(ledger)
    clock.advance(1)
    job = accept(ledger)
    told = messages(redis_client)[-1]["headers"]["standing"]
    assert told == [1, 0, 0, 0, 1_000]
    assert Standing.of(told) == job.standing
    redis_client.delete(keys.INFERENCE_QUEUE)
    clock.advance(REPUBLISH_AFTER_MS / 1000 + 1)
    assert len(ledger.reap([job.id], {})) == 1
    (again,) = messages(redis_client)
    assert (again["headers"]["id"], again["headers"].get("standing")) == (job.id, None)

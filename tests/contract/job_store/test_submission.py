"""How a job comes into the ledger: once, within the limits, and with its message."""

import json
import signal
import time
from collections import Counter
from typing import Any

import pytest
import redis

from ops.processes import wait_until
from shared import job_store_redis, keys, redis_ledger
from shared.errors import IdempotencyKeyReused, JobNotFound, JobStoreUnavailable, QueueFull, QuotaReached
from shared.job_store import REPUBLISH_AFTER_MS, JobStore
from shared.job_store_memory import MemoryJobStore
from shared.job_store_redis import RedisJobStore
from shared.redis_ledger import CREATE_PATIENCE_MS
from shared.schemas import Idempotency, JobStatus, NewJob, Standing, new_job_id
from tests.contract.conftest import OwnRedis
from tests.work import Clock, accept, bulk_job, claim, new_job, reap, succeed


def test_an_accepted_job_is_queued_and_reads_back_whole(store: JobStore) -> None:
    """Given a new job, when it is accepted, then the record holds all of it."""
    new = new_job()
    created = store.create(new, max_open=10)
    assert not created.replayed
    assert created.job == store.get(new.id)
    assert created.job.status == JobStatus.QUEUED
    assert created.job.spec == new.spec
    assert created.job.version == 1
    assert created.job.deadline_ms - created.job.created_at_ms == 3_600_000
    assert store.depth().open == 1
    assert created.job.standing == Standing(
        ahead=0, others=0, ended_lately=0, bulk_ended_lately=0, busy_ms_lately=0
    )


@pytest.mark.parametrize(
    "said",
    [
        {"custom_id": None},
        {"request_id": "r"},
        {"explain": True},
        {"custom_id": None, "explain": True},
        {"custom_id": None, "request_id": "r", "explain": True},
    ],
)
def test_whatever_is_said_of_a_job_reads_back(store: JobStore, said: dict[str, Any]) -> None:
    """And what is not, as it was not."""
    new = new_job(**said)
    store.create(new, max_open=10)
    assert store.get(new.id).spec == new.spec


def test_accepting_the_same_id_twice_makes_one_job(store: JobStore) -> None:
    """A call that was repeated because its answer was lost changes nothing."""
    new = new_job()
    first = store.create(new, max_open=1)
    assert store.create(new, max_open=1).job == first.job
    assert store.depth().open == 1


def test_one_job_too_many_is_refused_with_depth_and_limit(store: JobStore) -> None:
    """Admission is decided in the same call as the record: nothing is left of the refused one."""
    accept(store)
    refused = new_job()
    with pytest.raises(QueueFull) as caught:
        store.create(refused, max_open=1)
    assert (caught.value.depth, caught.value.limit) == (1, 1)
    with pytest.raises(JobNotFound):
        store.get(refused.id)


def test_an_idempotency_key_gives_the_first_job_again(store: JobStore) -> None:
    """A replay returns the job as it stands now, also over the admission limit."""
    key = Idempotency(key="k" * 64, fingerprint="f" * 64)
    assert store.find_replay(key) is None
    first = store.create(new_job(idempotency=key), max_open=1)
    claim(store, first.job.id)
    again = store.create(new_job(idempotency=key), max_open=1)
    assert again.replayed
    assert again.job.id == first.job.id
    assert again.job.status == JobStatus.RUNNING
    assert store.find_replay(key) == again.job


def test_an_idempotency_key_with_another_request_is_refused(store: JobStore) -> None:
    """The same key for another image is the caller's mistake, said before anything is stored."""
    store.create(new_job(idempotency=Idempotency(key="k", fingerprint="a")), max_open=10)
    other = Idempotency(key="k", fingerprint="b")
    with pytest.raises(IdempotencyKeyReused):
        store.find_replay(other)
    with pytest.raises(IdempotencyKeyReused):
        store.create(new_job(idempotency=other), max_open=10)


def test_an_unknown_id_is_not_found(store: JobStore) -> None:
    """Unknown is never shown as pending."""
    with pytest.raises(JobNotFound):
        store.get(new_job_id())
    with pytest.raises(JobNotFound):
        store.cancel(new_job_id())
    assert claim(store, new_job_id()) is None


@pytest.mark.integration
def test_an_error_among_several_answers_is_the_ledgers(redis_client: redis.Redis) -> None:
    """One command of the look at the queue fails; no half of an answer is taken for the whole."""
    redis_client.set(keys.OPEN, "no set at all")
    with pytest.raises(JobStoreUnavailable) as caught:
        RedisJobStore(redis_client).admission(None)
    assert "WRONGTYPE" in str(caught.value.__cause__)


@pytest.mark.integration
def test_a_submission_that_reaches_redis_too_late_is_not_accepted(
    own_redis: OwnRedis,
) -> None:
    """Its caller was told "try again": no job may come to life when a hung Redis goes on."""
    client, child = own_redis
    store = RedisJobStore(client)
    store.found()
    known, late = new_job(), new_job()
    store.create(known, max_open=10)
    child.send(signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(JobStoreUnavailable):
        store.create(late, max_open=10)
    assert time.monotonic() - started < 5
    time.sleep(max(0.0, started + CREATE_PATIENCE_MS / 1000 + 0.5 - time.monotonic()))
    child.send(signal.SIGCONT)
    assert wait_until(lambda: bool(client.ping()), 5)
    with pytest.raises(JobNotFound):
        store.get(late.id)
    assert store.depth().open == 1
    assert store.create(late, max_open=10).job.status == JobStatus.QUEUED


@pytest.mark.integration
def test_a_submission_is_accepted_at_once_after_redis_clock_was_set(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes an hour ahead of what this process took it for: the first answer tells its time."""
    store = RedisJobStore(redis_client)
    store.found()
    accept(store)
    for module in (redis_ledger, job_store_redis):
        monkeypatch.setattr(module, "monotonic_ms", lambda: time.monotonic_ns() / 1_000_000 - 3_600_000)
    assert accept(store).status == JobStatus.QUEUED


def owned_by(owner: str) -> NewJob:
    """Return a job of this API key."""
    new = new_job()
    return new.model_copy(update={"spec": new.spec.model_copy(update={"owner": owner})})


def test_one_owner_has_as_many_open_jobs_as_it_may(store: JobStore) -> None:
    """Every way out of being open makes room, and a retry takes it; the jobs of others do not count."""
    jobs = [store.create(owned_by("a"), 100, max_owned=2).job for _ in range(2)]
    with pytest.raises(QuotaReached) as refused:
        store.create(owned_by("a"), 100, max_owned=2)
    assert (refused.value.depth, refused.value.limit) == (2, 2)
    store.create(owned_by("b"), 100, max_owned=1)
    with pytest.raises(QuotaReached):
        store.create(owned_by("b"), 100, max_owned=1)
    store.create(new_job(), 100, max_owned=2)
    assert [store.admission(owner).owned for owner in ("a", "b", None)] == [2, 1, 0]
    store.cancel(jobs[0].id)
    store.create(owned_by("a"), 100, max_owned=2)
    with pytest.raises(QuotaReached):
        store.retry(jobs[0].id, 100, max_owned=2)
    store.delete(jobs[1].id)
    store.retry(jobs[0].id, 100, max_owned=2)
    assert store.admission("a").owned == 2
    assert claim(store, jobs[0].id)
    assert succeed(store, jobs[0].id, {})
    assert store.admission("a").owned == 1


def test_no_count_is_kept_of_an_owner_without_an_open_job(redis_client: redis.Redis, clock: Clock) -> None:
    """Keys come and go for years."""
    store = RedisJobStore(redis_client, clock)
    job = store.create(owned_by("a"), 100).job
    assert redis_client.hgetall(keys.OWNED) == {"a": "1"}
    store.cancel(job.id)
    assert redis_client.hgetall(keys.OWNED) == {}


def test_what_queues_a_job_publishes_its_message(store: JobStore, clock: Clock) -> None:
    """One message each time, in the queue of its priority; a repetition and a refusal publish none."""
    first, second, third = new_job(), bulk_job(), bulk_job()
    store.create(first, 3)
    store.create(first, 3)
    store.create_many([second, third], 3)
    with pytest.raises(QueueFull):
        store.create(new_job(), 3)
    assert published(store) == ([first.id], [second.id, third.id])
    store.cancel(second.id)
    store.retry(second.id, 3)
    clock.advance(REPUBLISH_AFTER_MS / 1000 + 1)
    reap(store)
    interactive, bulk = published(store)
    assert interactive == [first.id] * 2
    assert Counter(bulk) == {second.id: 3, third.id: 2}
    claim(store, first.id)
    succeed(store, first.id, {}, answer_key="key")
    assert store.answer(new_job(), first.id)
    assert len(published(store)[0]) == 2


def published(store: JobStore) -> tuple[list[str], list[str]]:
    """Return whose messages were published, interactive and bulk ones, in order."""
    if isinstance(store, MemoryJobStore):
        lists = (store.queue.messages, store.queue.bulk_messages)
        return [job_id for job_id, _ in lists[0]], [job_id for job_id, _ in lists[1]]
    client: redis.Redis = store._redis  # type: ignore[attr-defined]
    raw = [list(reversed(client.lrange(name, 0, -1))) for name in (keys.INFERENCE_QUEUE, keys.BULK_QUEUE)]
    found = [[json.loads(message)["headers"]["id"] for message in messages] for messages in raw]
    return found[0], found[1]

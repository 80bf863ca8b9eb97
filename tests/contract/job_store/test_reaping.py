"""What a reaper publishes again, and what it ends."""

import time

import pytest
import redis

from ops.processes import wait_until
from shared import job_store, job_store_redis, keys, redis_ledger
from shared.job_store import MOST_LOST_WORKERS, REPUBLISH_AFTER_MS, Heads, JobStore
from shared.job_store_redis import RedisJobStore
from shared.schemas import JobStatus, Priority
from tests.work import LEASE, Clock, accept, bulk_job, claim, new_job, reap


def test_the_reaper_leaves_a_fresh_and_a_waiting_job_alone(store: JobStore, clock: Clock) -> None:
    """A long queue is not published twice: older messages are still ahead of it."""
    first = accept(store)
    assert reap(store) == []
    clock.advance(3600 / 2)
    second = accept(store)
    assert reap(store, oldest=first.published_at_ms) == []
    assert store.get(first.id).version == 1
    assert store.get(second.id).version == 1


def test_the_reaper_publishes_a_job_whose_message_was_lost(store: JobStore, clock: Clock) -> None:
    """Newer messages have left the queue, or none is there: this one's is gone."""
    lost = accept(store)
    clock.advance(REPUBLISH_AFTER_MS / 1000 + 2)
    newer = accept(store)
    assert reap(store, oldest=newer.published_at_ms) == [lost.id]
    republished = store.get(lost.id)
    assert republished.published_at_ms > lost.published_at_ms
    assert reap(store, oldest=newer.published_at_ms) == []


def test_two_reapers_at_once_publish_a_job_once(store: JobStore, clock: Clock) -> None:
    """The second one found the same, and comes when the first is done."""
    lost = accept(store)
    clock.advance(REPUBLISH_AFTER_MS / 1000 + 1)
    due = store.due({}, 10)
    assert [store.reap(due, {}) for _ in range(2)] == [[lost.id], []]


def test_the_reaper_publishes_a_job_whose_worker_was_lost(store: JobStore, clock: Clock) -> None:
    """As soon as the lease has lapsed, whatever lies in the queue."""
    job = accept(store)
    claim(store, job.id)
    assert reap(store, oldest=0) == []
    clock.advance(LEASE + 1)
    assert reap(store, oldest=0) == [job.id]
    assert (store.get(job.id).status, store.get(job.id).lost) == (JobStatus.QUEUED, 1)


def test_a_job_that_loses_every_worker_fails_at_last(store: JobStore, clock: Clock) -> None:
    """There is an end to it, and the end says why."""
    job = accept(store)
    for _ in range(MOST_LOST_WORKERS):
        assert claim(store, job.id)
        clock.advance(LEASE + 1)
        reap(store)
    final = store.get(job.id)
    assert final.status == JobStatus.FAILED
    assert final.error is not None
    assert final.error.code == "ATTEMPTS_EXHAUSTED"
    assert store.depth().open == 0


def test_the_reaper_never_brings_an_ended_job_back(store: JobStore, clock: Clock) -> None:
    """It raced with the end of the job: nothing is published, nothing is indexed."""
    job = accept(store)
    claim(store, job.id)
    clock.advance(LEASE + 1)
    due = store.due({}, 10)
    assert due == [job.id]
    store.cancel(job.id)
    assert store.reap(due, {}) == []
    assert store.due({}, 10) == []
    assert store.depth().open == 0


@pytest.mark.integration
def test_a_lost_message_is_found_whatever_became_of_redis_clock(
    limited_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was set an hour ahead since this process asked; or the machine slept, and counted none of that."""
    for module in (job_store, job_store_redis):
        monkeypatch.setattr(module, "REPUBLISH_AFTER_MS", 10)
    store = RedisJobStore(limited_client)
    store.found()
    job = accept(store)
    monkeypatch.setattr(redis_ledger, "monotonic_ms", lambda: time.monotonic_ns() / 1_000_000 - 3_600_000)
    assert wait_until(lambda: reap(store) == [job.id], 2)


def test_a_record_that_redis_cannot_read_holds_up_no_other(redis_client: redis.Redis, clock: Clock) -> None:
    """The reaper goes on behind it, and does not meet it again at once."""
    store = RedisJobStore(redis_client, clock)
    poison = accept(store, expires_in=30)
    clock.advance(1)
    sound = accept(store)
    redis_client.delete(keys.JOB + poison.id)
    redis_client.set(keys.JOB + poison.id, "no record at all")
    clock.advance(40)
    assert store.due({}, 10) == [poison.id, sound.id]
    assert reap(store) == [sound.id]
    assert store.due({}, 10) == []
    assert store.depth().running == 0
    clock.advance(61)
    assert set(store.due({}, 10)) == {poison.id, sound.id}


def test_each_queue_has_its_own_watermark(store: JobStore, clock: Clock) -> None:
    """A backlog of one priority hides no lost message of the other, and is not published twice."""
    bulk, interactive = (store.create(new, 100).job for new in (bulk_job(), new_job()))
    clock.advance(60)
    heads: Heads = {Priority.BULK: bulk.published_at_ms, Priority.INTERACTIVE: None}
    assert store.reap(store.due(heads, 10), heads) == [interactive.id]
    clock.advance(60)
    heads = {Priority.INTERACTIVE: clock() - 60_000}
    assert store.reap(store.due(heads, 10), heads) == [bulk.id]

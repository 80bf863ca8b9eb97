"""How a worker takes a job under a lease, keeps it, and gives it back."""

from collections.abc import Callable

import pytest
import redis

from shared import keys
from shared.errors import JobStoreUnavailable
from shared.job_store import JobStore
from shared.job_store_redis import UNREADABLE_HOLD_SECONDS, RedisJobStore
from shared.schemas import JobStatus, new_job_id
from tests.work import LEASE, RUN, Clock, accept, claim, reap, succeed


def test_a_claim_counts_the_attempt_before_any_work(store: JobStore) -> None:
    """The record says "running, attempt 1" from the moment that a worker holds it."""
    job = accept(store)
    claimed = claim(store, job.id)
    assert claimed is not None
    assert (claimed.status, claimed.attempt) == (JobStatus.RUNNING, 1)
    assert claimed.started_at_ms is not None
    assert not claimed.is_suspect
    assert store.get(job.id) == claimed
    assert claimed.standing is None


def test_a_second_delivery_is_dropped_while_the_lease_lives(store: JobStore, clock: Clock) -> None:
    """Twice the message is once the work."""
    job = accept(store)
    assert claim(store, job.id, "first")
    assert claim(store, job.id, "second") is None
    clock.advance(LEASE - 1)
    assert claim(store, job.id, "second") is None


def test_a_lapsed_lease_is_taken_over_and_the_loss_is_counted(store: JobStore, clock: Clock) -> None:
    """The next worker knows that one was lost with this job."""
    job = accept(store)
    claim(store, job.id, "first")
    clock.advance(LEASE + 1)
    claimed = claim(store, job.id, "second")
    assert claimed is not None
    assert (claimed.attempt, claimed.lost, claimed.is_suspect) == (2, 1, True)


def test_only_the_holder_can_finish(store: JobStore, clock: Clock) -> None:
    """A worker that was given up for lost comes too late, whatever it has."""
    job = accept(store)
    claim(store, job.id, "first")
    clock.advance(LEASE + 1)
    claim(store, job.id, "second")
    assert not succeed(store, job.id, {"class": "old"}, "first")
    assert not store.renew(job.id, "first", LEASE)
    assert not store.release(job.id, "first", 0)
    assert not store.strike(job.id, "first", 1)
    assert succeed(store, job.id, {"class": "new"}, "second", timings_ms={"decode": 1.5})
    final = store.get(job.id)
    assert final.result == {"class": "new"}
    assert final.timings_ms == {"decode": 1.5}


def test_a_call_whose_answer_was_lost_may_be_made_again(store: JobStore) -> None:
    """The connection repeats it by itself: one claim, strike and outcome are booked, and told twice."""
    job = accept(store)
    first = claim(store, job.id)
    assert first is not None
    assert claim(store, job.id) == first
    assert store.strike(job.id, "token", 1)
    assert store.strike(job.id, "token", 1)
    assert succeed(store, job.id, {"class": "x"})
    ended = store.get(job.id)
    assert succeed(store, job.id, {"class": "x"})
    assert store.get(job.id) == ended
    assert (ended.attempt, ended.strikes) == (1, 1)


def test_a_renewed_lease_lives_on_up_to_the_longest_run(store: JobStore, clock: Clock) -> None:
    """A worker keeps its job while it says so, but not for ever."""
    job = accept(store)
    claim(store, job.id, run_seconds=40)
    clock.advance(10)
    assert store.renew(job.id, "token", LEASE)
    clock.advance(10)
    assert claim(store, job.id, "other", run_seconds=40) is None
    assert store.renew(job.id, "token", LEASE)
    clock.advance(14)
    assert store.renew(job.id, "token", LEASE)
    clock.advance(7)
    assert not store.renew(job.id, "token", LEASE)
    assert claim(store, job.id, "other", run_seconds=40) is not None


def test_a_released_job_uses_no_attempt_and_waits_for_its_hold_off(store: JobStore, clock: Clock) -> None:
    """Handing a job back is nobody's fault; the reaper publishes it when the hold-off is over."""
    job = accept(store)
    claim(store, job.id)
    assert store.release(job.id, "token", 5)
    released = store.get(job.id)
    assert (released.status, released.attempt, released.lost) == (JobStatus.QUEUED, 0, 0)
    assert reap(store) == []
    clock.advance(6)
    assert reap(store) == [job.id]
    assert claim(store, job.id, "next") is not None


def test_strikes_are_counted_for_the_holder(store: JobStore) -> None:
    """A job that kills the engine while alone is suspect from then on, also for the next worker."""
    job = accept(store)
    claim(store, job.id)
    for strikes in (1, 2, 2):
        assert store.strike(job.id, "token", strikes)
    assert store.get(job.id).strikes == 2
    assert store.get(job.id).is_suspect


def test_several_jobs_are_claimed_in_one_exchange(store: JobStore) -> None:
    """Each as if it were alone: what is held, ended or unknown is not among those taken."""
    free, held, ended, also_free = (accept(store) for _ in range(4))
    assert claim(store, held.id, "other")
    store.cancel(ended.id)
    names = [free.id, held.id, ended.id, new_job_id(), also_free.id]
    taken = store.claim_all({job_id: f"token of {job_id}" for job_id in names}, LEASE, RUN)
    assert list(taken) == [free.id, also_free.id]
    for job_id, job in taken.items():
        assert (job.id, job.status, job.attempt) == (job_id, JobStatus.RUNNING, 1)
        assert store.renew(job_id, f"token of {job_id}", LEASE)
    assert store.claim_all({}, LEASE, RUN) == {}


@pytest.mark.integration
@pytest.mark.parametrize(
    "spoil",
    [
        lambda client, job: client.hset(keys.JOB + job, "spec", "{}"),
        # The script stops in the middle.
        lambda client, job: client.hset(keys.JOB + job, "priority", "urgent"),
        lambda client, job: client.hset(keys.JOB + job, "note", b"\xff\xfe"),
        lambda client, job: [client.delete(keys.JOB + job), client.set(keys.JOB + job, "no record")],
    ],
    ids=["spec", "priority", "bytes", "type"],
)
def test_a_record_that_cannot_be_read_keeps_no_other_from_its_worker(
    redis_client: redis.Redis, clock: Clock, spoil: Callable[[redis.Redis, str], object]
) -> None:
    """Another version's, or a damaged one, in the middle of a group."""
    store = RedisJobStore(redis_client, clock)
    store.found()
    first, bad, last = (accept(store).id for _ in range(3))
    spoil(redis_client, bad)
    taken = store.claim_all({first: "one", bad: "two", last: "three"}, LEASE, RUN)
    assert list(taken) == [first, last]
    assert store.renew(first, "one", LEASE)


@pytest.mark.integration
def test_a_claimed_job_that_cannot_be_read_is_handed_back(redis_client: redis.Redis, clock: Clock) -> None:
    """A worker of the version that wrote it may take it; it has lost no worker, and used no attempt."""
    store = RedisJobStore(redis_client, clock)
    store.found()
    job_id = accept(store).id
    spec = redis_client.hget(keys.JOB + job_id, "spec")
    redis_client.hset(keys.JOB + job_id, "spec", "{}")
    assert store.claim_all({job_id: "token"}, LEASE, RUN) == {}
    redis_client.hset(keys.JOB + job_id, "spec", str(spec))
    job = store.get(job_id)
    assert (job.status, job.attempt) == (JobStatus.QUEUED, 0)
    assert store.reap(store.due({}, 10), {}) == []
    clock.advance(UNREADABLE_HOLD_SECONDS + 1)
    assert store.reap(store.due({}, 10), {}) == [job_id]
    assert store.get(job_id).lost == 0


@pytest.mark.integration
def test_a_claim_that_redis_refuses_whole_is_an_error(redis_client: redis.Redis) -> None:
    """As where it may only be read from: nothing was claimed, and nobody is told that there was nothing."""
    store = RedisJobStore(redis_client)
    store.found()
    job_id = accept(store).id
    redis_client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(JobStoreUnavailable):
            store.claim_all({job_id: "token"}, LEASE, RUN)
    finally:
        redis_client.execute_command("REPLICAOF", "NO", "ONE")

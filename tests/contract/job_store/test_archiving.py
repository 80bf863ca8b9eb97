"""Which outcomes are to be copied into the object store, and by whom."""

import redis

from shared import keys
from shared.job_store import JobStore
from shared.job_store_redis import RedisJobStore
from shared.schemas import JobError, JobStatus, new_job_id
from tests.work import Clock, accept, claim, fail, succeed


def test_an_ended_job_is_to_be_archived_by_one(store: JobStore, clock: Clock) -> None:
    """Whole, as the ledger has it; by somebody else if the first does not say that it is done."""
    waiting, ended = accept(store), accept(store)
    assert store.unarchived(10) == []
    claim(store, ended.id)
    succeed(store, ended.id, {"class": "x"}, timings_ms={"decode": 1})
    assert store.unarchived(10) == [store.get(ended.id)]
    assert store.unarchived(10) == []
    clock.advance(31)
    taken = store.unarchived(10)
    assert [job.id for job in taken] == [ended.id]
    assert store.archived(taken) == []
    clock.advance(31)
    assert store.unarchived(10) == []
    assert store.get(waiting.id).status == JobStatus.QUEUED


def test_one_that_is_deleted_while_it_is_archived_is_named(store: JobStore) -> None:
    """So that its copy is removed again."""
    kept, deleted = accept(store), accept(store)
    for job in (kept, deleted):
        store.cancel(job.id)
    taken = store.unarchived(10)
    store.delete(deleted.id)
    assert store.archived(taken) == [deleted.id]
    assert store.archived([]) == []


def test_an_outcome_past_its_tombstone_is_off_the_list(redis_client: redis.Redis, clock: Clock) -> None:
    """The object store was away all the time: there is nothing left to be archived."""
    store = RedisJobStore(redis_client, clock)
    job = accept(store)
    store.cancel(job.id)
    redis_client.delete(keys.JOB + job.id)
    assert store.unarchived(10) == []
    assert redis_client.zcard(keys.UNARCHIVED) == 0


def test_an_outcome_that_cannot_be_read_holds_up_no_other(redis_client: redis.Redis) -> None:
    """Such as one of a newer version, during an upgrade; it is looked at again later."""
    store = RedisJobStore(redis_client)
    jobs = [accept(store) for _ in range(4)]
    for job, spec in zip(jobs, ("{}", "[[], [null]]", "[[], null]"), strict=False):
        store.cancel(job.id)
        redis_client.hset(keys.JOB + job.id, "spec", spec)
    store.cancel(jobs[3].id)
    redis_client.set(keys.JOB + "another", "no record at all")
    redis_client.zadd(keys.UNARCHIVED, {"another": 1})
    assert [job.id for job in store.unarchived(10)] == [jobs[3].id]
    assert redis_client.zcard(keys.UNARCHIVED) == 5


def test_one_that_is_retried_while_it_is_archived_is_named(store: JobStore) -> None:
    """What ended once must not be found in the object store while it runs again."""
    job = accept(store)
    store.cancel(job.id)
    taken = store.unarchived(10)
    store.retry(job.id, 10)
    assert store.archived(taken) == [job.id]


def test_an_outcome_that_leaves_the_object_store_is_to_be_put_there_again(
    store: JobStore, clock: Clock
) -> None:
    """After a while, in which its job may be retried; that of a job that is open, or deleted, never."""
    waiting, deleted, kept, retried = (accept(store) for _ in range(4))
    for job in (deleted, kept, retried):
        store.cancel(job.id)
    store.archived(store.unarchived(10))
    store.delete(deleted.id)
    ids = (waiting.id, deleted.id, kept.id, retried.id, new_job_id())
    assert [store.unarchive(job_id) for job_id in ids] == [False, False, True, True, False]
    assert store.unarchived(10) == []
    store.retry(retried.id, 10)
    clock.advance(31)
    assert [job.id for job in store.unarchived(10)] == [kept.id]


def test_one_that_ended_anew_while_it_was_archived_is_archived_anew(store: JobStore, clock: Clock) -> None:
    """Also where somebody has put the later outcome there: the earlier one may have come over it."""
    job = accept(store)
    claim(store, job.id, "a")
    fail(store, job.id, JobError(code="POISON", detail="x"), "a")
    earlier = store.unarchived(10)
    store.retry(job.id, 10)
    claim(store, job.id, "b")
    succeed(store, job.id, {"class": "x"}, "b")
    later = store.unarchived(10)
    assert store.archived(later) == []
    assert store.archived(earlier) == []
    assert store.unarchived(10) == later
    assert store.archived(later) == []
    clock.advance(31)
    assert store.unarchived(10) == []

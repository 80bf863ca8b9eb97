"""How a job ends: by its outcome, its owner's word or its deadline, and once."""

import pytest
import redis

from shared import keys
from shared.errors import JobAlreadyFinal, JobStoreUnavailable
from shared.job_store import Ending, JobStore
from shared.job_store_redis import RedisJobStore
from shared.schemas import JobError, JobStatus
from tests.work import LEASE, RUN, Clock, accept, claim, fail, reap, succeed


def test_the_first_final_write_wins(store: JobStore) -> None:
    """Nothing changes a job that has ended."""
    job = accept(store)
    claim(store, job.id)
    assert succeed(store, job.id, {"class": "x"})
    before = store.get(job.id)
    assert not fail(store, job.id, JobError(code="X", detail="y"))
    with pytest.raises(JobAlreadyFinal):
        store.cancel(job.id)
    assert claim(store, job.id, "other") is None
    assert store.get(job.id) == before
    assert store.depth().open == 0


def test_a_failure_keeps_its_reason(store: JobStore) -> None:
    """The error reads back as it was written."""
    job = accept(store)
    claim(store, job.id)
    error = JobError(code="INVALID_IMAGE", detail="Expected an image. Received: «text»")
    assert fail(store, job.id, error)
    assert store.get(job.id).error == error
    assert store.get(job.id).status == JobStatus.FAILED


def test_canceling_a_queued_job_ends_it_for_good(store: JobStore) -> None:
    """It holds with every worker down: a later delivery finds a final job."""
    job = accept(store)
    canceled = store.cancel(job.id)
    assert not canceled.was_running
    assert canceled.job.status == JobStatus.CANCELED
    assert claim(store, job.id) is None
    assert store.depth().open == 0


def test_canceling_a_running_job_discards_its_result(store: JobStore) -> None:
    """The worker's outcome is refused."""
    job = accept(store)
    claim(store, job.id)
    assert store.cancel(job.id).was_running
    assert not succeed(store, job.id, {"class": "x"})
    assert store.get(job.id).result is None


def test_a_job_past_its_deadline_ends_by_being_read(store: JobStore, clock: Clock) -> None:
    """No worker is needed for it."""
    job = accept(store, expires_in=5)
    clock.advance(6)
    late = store.get(job.id)
    assert late.status == JobStatus.EXPIRED
    assert late.error is not None
    assert late.error.code == "DEADLINE_EXCEEDED"
    assert store.depth().open == 0


def test_a_job_past_its_deadline_is_not_run(store: JobStore, clock: Clock) -> None:
    """A claim that comes too late ends the job."""
    job = accept(store, expires_in=5)
    clock.advance(6)
    assert claim(store, job.id) is None
    assert store.get(job.id).status == JobStatus.EXPIRED


def test_the_deadline_bounds_the_wait_and_not_the_run(store: JobStore, clock: Clock) -> None:
    """A job that was claimed in time may finish, while its worker lives."""
    job = accept(store, expires_in=5)
    claim(store, job.id)
    clock.advance(6)
    assert store.get(job.id).status == JobStatus.RUNNING
    assert reap(store) == []
    assert succeed(store, job.id, {"class": "x"})


def test_a_lost_worker_past_the_deadline_ends_the_job(store: JobStore, clock: Clock) -> None:
    """Nothing runs for ever."""
    job = accept(store, expires_in=5)
    claim(store, job.id)
    clock.advance(LEASE + 1)
    assert reap(store) == []
    assert store.get(job.id).status == JobStatus.EXPIRED


def test_several_jobs_end_in_one_exchange(store: JobStore) -> None:
    """Each as if it were alone; said twice, it is the same; a lost lease is refused."""
    good, bad, lost = (accept(store) for _ in range(3))
    assert len(store.claim_all({job.id: "token" for job in (good, bad, lost)}, LEASE, RUN)) == 3
    endings = [
        Ending(good.id, "token", {"fetch": 1.0}, result={"class": "lung_n"}, answer_key="key"),
        Ending(bad.id, "token", {}, error=JobError(code="INVALID_IMAGE", detail="no image")),
        Ending(lost.id, "another token", {}, result={"class": "lung_n"}),
    ]
    for _ in range(2):
        assert store.end_all(endings) == [True, True, False]
    assert store.get(good.id).result == {"class": "lung_n"}
    assert store.get(good.id).timings_ms == {"fetch": 1.0}
    assert store.admission(None, "key").answered_by == good.id
    assert store.get(bad.id).error == JobError(code="INVALID_IMAGE", detail="no image")
    assert store.get(lost.id).status == JobStatus.RUNNING
    assert store.end_all([]) == []


def test_an_outcome_that_cannot_be_written_is_an_error_in_its_place(store: JobStore) -> None:
    """Whatever is wrong with it; those that travel with it end."""
    jobs = [accept(store) for _ in range(4)]
    assert len(store.claim_all({job.id: "token" for job in jobs}, LEASE, RUN)) == 4
    endings = [
        Ending(jobs[0].id, "token", {}, result={"class": "lung_n"}),
        Ending(jobs[1].id, "token", {}, result={"class": object()}),
        Ending(jobs[2].id, "token", {}, error=JobError(code="INVALID_IMAGE", detail="\ud800")),
        Ending(jobs[3].id, "token", {}, result={"class": "lung_n"}),
    ]
    first, odd, unspeakable, last = store.end_all(endings)
    assert (first, last) == (True, True)
    assert isinstance(odd, TypeError)
    assert isinstance(unspeakable, ValueError)
    assert [store.get(job.id).status.is_final for job in jobs] == [True, False, False, True]


@pytest.mark.integration
def test_an_end_that_redis_refuses_is_an_error_in_its_place(redis_client: redis.Redis) -> None:
    """The ledger's own, so that it is asked again."""
    store = RedisJobStore(redis_client)
    store.found()
    good, bad = accept(store), accept(store)
    store.claim_all({good.id: "token", bad.id: "token"}, LEASE, RUN)
    redis_client.delete(keys.JOB + bad.id)
    redis_client.set(keys.JOB + bad.id, "no record")
    said = store.end_all([Ending(job.id, "token", {}, result={}) for job in (bad, good)])
    assert (type(said[0]), said[1]) == (JobStoreUnavailable, True)


def test_redis_keeps_no_index_entry_of_an_ended_job(redis_client: redis.Redis, clock: Clock) -> None:
    """Every index is empty when every job has ended, and the record has a time to live."""
    store = RedisJobStore(redis_client, clock)
    job = accept(store)
    claim(store, job.id)
    succeed(store, job.id, {})
    for index in (keys.OPEN, keys.PUBLISHED, keys.LEASED):
        assert redis_client.zcard(index) == 0
    assert redis_client.pttl(keys.JOB + job.id) > 0

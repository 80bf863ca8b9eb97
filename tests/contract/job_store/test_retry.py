"""How a job that has ended is run again."""

from typing import Any

import pytest
import redis

from shared.errors import JobAlreadyFinal, JobNotFound, JobNotRetryable, QueueFull, ResultExpired
from shared.job_store import JobStore
from shared.job_store_redis import RedisJobStore
from shared.schemas import JobError, JobStatus, new_job_id
from tests.work import Clock, accept, claim, clean, fail, succeed


def test_a_retried_job_is_as_new_under_its_own_id(store: JobStore, clock: Clock) -> None:
    """All its time before it, no trace of the first try, a message due, and its image kept."""
    job = accept(store, expires_in=100, image_retention=60)
    claim(store, job.id, "a")
    store.strike(job.id, "a", 1)
    fail(store, job.id, JobError(code="POISON", detail="x"), "a", timings_ms={"decode": 1})
    clock.advance(50)
    again = store.retry(job.id, 10)
    assert (again.id, again.status, again.spec) == (job.id, JobStatus.QUEUED, job.spec)
    assert (again.attempt, again.lost, again.strikes) == (0, 0, 0)
    assert (again.error, again.timings_ms, again.started_at_ms, again.finished_at_ms) == (None,) * 4
    assert again.expires_at_ms is None
    assert again.deadline_ms - again.published_at_ms == 100_000
    assert store.unarchived(10) == []
    assert not fail(store, job.id, JobError(code="POISON", detail="x"), "a")
    clock.advance(80)
    assert clean(store) == []
    assert claim(store, job.id, "b") is not None
    assert succeed(store, job.id, {"class": "x"}, "b")
    clock.advance(3)
    assert [done.id for done in store.unarchived(10)] == [job.id]


def test_a_job_that_is_open_or_has_a_result_is_not_retried(store: JobStore) -> None:
    """Nothing about it changes."""
    job = accept(store)
    for prepare in (
        lambda: None,
        lambda: claim(store, job.id),
        lambda: succeed(store, job.id, {"class": "x"}),
    ):
        prepare()
        before = store.get(job.id)
        with pytest.raises(JobNotRetryable):
            store.retry(job.id, 10)
        assert store.get(job.id) == before
    with pytest.raises(JobNotFound):
        store.retry(new_job_id(), 10)


def test_a_job_whose_image_is_gone_is_not_retried(store: JobStore, clock: Clock) -> None:
    """Past its retention, or deleted."""
    late, deleted = accept(store, image_retention=60), accept(store)
    store.cancel(late.id)
    clock.advance(61)
    clean(store)
    store.delete(deleted.id)
    clock.advance(1)
    for job in (late, deleted):
        with pytest.raises(ResultExpired):
            store.retry(job.id, 10)


def test_a_full_queue_takes_no_retry(store: JobStore) -> None:
    """It counts as any other job."""
    ended = accept(store)
    store.cancel(ended.id)
    accept(store)
    with pytest.raises(QueueFull):
        store.retry(ended.id, 1)
    assert store.retry(ended.id, 2).status == JobStatus.QUEUED


def lose_the_next_answer(patch: pytest.MonkeyPatch) -> None:
    """Have the connection break when a script's answer has come, and before anybody has read it."""
    kind = redis.Connection
    read = kind.read_response
    lost = []

    def lose(self: redis.Connection, *args: Any, **options: Any) -> Any:
        answer = read(self, *args, **options)
        if isinstance(answer, list) and not lost:
            lost.append(answer)
            self.disconnect()
            raise redis.ConnectionError("lost")
        return answer

    patch.setattr(kind, "read_response", lose)


@pytest.mark.parametrize("was_running", [False, True])
def test_an_owners_word_whose_answer_was_lost_is_answered_as_the_first_time(
    redis_client: redis.Redis, clock: Clock, monkeypatch: pytest.MonkeyPatch, was_running: bool
) -> None:
    """The connection repeats it by itself: nobody is told that a job was canceled, or queued, before."""
    store = RedisJobStore(redis_client, clock)
    job = accept(store)
    if was_running:
        claim(store, job.id)
    with monkeypatch.context() as patch:
        lose_the_next_answer(patch)
        canceled = store.cancel(job.id)
    assert (canceled.job, canceled.was_running) == (store.get(job.id), was_running)
    with pytest.raises(JobAlreadyFinal):
        store.cancel(job.id)
    with monkeypatch.context() as patch:
        lose_the_next_answer(patch)
        retried = store.retry(job.id, 10)
    assert retried == store.get(job.id)
    assert store.totals().retried == 1
    with pytest.raises(JobNotRetryable):
        store.retry(job.id, 10)


def test_an_image_that_may_be_on_its_way_out_is_not_run_again(store: JobStore, clock: Clock) -> None:
    """Its retention is over, although nobody has deleted it yet."""
    job = accept(store, image_retention=60)
    store.cancel(job.id)
    clock.advance(60)
    with pytest.raises(ResultExpired):
        store.retry(job.id, 10)

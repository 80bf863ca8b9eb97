"""When images and results go, by their time or their owner's word."""

import pytest
import redis

from shared import keys
from shared.errors import JobNotFound, ResultExpired
from shared.job_store import Cleanable, JobStore
from shared.job_store_redis import RedisJobStore
from shared.schemas import Idempotency, new_job_id
from tests.work import LEASE, Clock, accept, claim, clean, new_job, succeed


def test_a_result_past_its_retention_is_expired_and_later_unknown(store: JobStore, clock: Clock) -> None:
    """410 first; the tombstone outlives the result."""
    job = accept(store, retention=60)
    store.cancel(job.id)
    clock.advance(61)
    with pytest.raises(ResultExpired):
        store.get(job.id)


def test_an_image_goes_first_and_then_the_result(store: JobStore, clock: Clock) -> None:
    """Each when its own retention is over, and each once; the word "expired" stays."""
    job = accept(store, image_retention=60, retention=600)
    assert clean(store) == []
    claim(store, job.id)
    succeed(store, job.id, {"class": "x"})
    assert clean(store) == []
    clock.advance(61)
    assert clean(store) == [job.spec.input.key]
    assert clean(store) == []
    assert store.get(job.id).result == {"class": "x"}
    clock.advance(540)
    assert clean(store) == [None]
    assert clean(store) == []
    with pytest.raises(ResultExpired):
        store.get(job.id)


def test_an_image_that_could_not_be_deleted_is_named_again(store: JobStore, clock: Clock) -> None:
    """Nothing is taken for gone before somebody has said so."""
    job = accept(store)
    store.cancel(job.id)
    clock.advance(61)
    first = store.cleanable(100)
    assert [item.job_id for item in first] == [job.id]
    clock.advance(61)
    assert store.cleanable(100) == first


def test_what_is_to_be_cleaned_is_given_to_one_cleaner(store: JobStore, clock: Clock) -> None:
    """The next one gets what is behind it; nobody runs the job again meanwhile."""
    jobs = [accept(store) for _ in range(2)]
    for job in jobs:
        store.cancel(job.id)
        clock.advance(1)
    clock.advance(60)
    assert [item.job_id for _ in range(3) for item in store.cleanable(1)] == [job.id for job in jobs]
    for job in jobs:
        with pytest.raises(ResultExpired):
            store.retry(job.id, 10)
    store.delete(jobs[1].id)
    clock.advance(1)
    assert [item.job_id for item in store.cleanable(10)] == [jobs[1].id]


def test_a_spec_that_cannot_be_read_holds_up_no_other_cleaning(
    redis_client: redis.Redis, clock: Clock
) -> None:
    """Neither one in other words, nor what is no record at all."""
    store = RedisJobStore(redis_client, clock)
    jobs = [accept(store) for _ in range(3)]
    for job in jobs:
        store.cancel(job.id)
    redis_client.hset(keys.JOB + jobs[0].id, "spec", "{}")
    redis_client.delete(keys.JOB + jobs[1].id)
    redis_client.set(keys.JOB + jobs[1].id, "no record at all")
    clock.advance(61)
    assert jobs[2].id in [item.job_id for item in store.cleanable(10)]


def test_an_open_job_keeps_its_image(store: JobStore, clock: Clock) -> None:
    """However long it waits."""
    accept(store, expires_in=1e6)
    clock.advance(9e5)
    assert clean(store) == []


def test_nothing_of_the_caller_is_left_with_a_dropped_result(redis_client: redis.Redis, clock: Clock) -> None:
    """The tombstone holds no result, no error and no words of the caller's."""
    store = RedisJobStore(redis_client, clock)
    job = accept(store)
    claim(store, job.id)
    succeed(store, job.id, {"class": "lung_aca"}, timings_ms={"decode": 1})
    for _ in range(2):
        clock.advance(601)
        clean(store)
    left = str(redis_client.hgetall(keys.JOB + job.id))
    assert "lung_aca" not in left
    assert "Grüße" not in left
    assert "decode" not in left
    assert redis_client.zcard(keys.ENDED) == 0


def test_a_deleted_job_is_forgotten_at_once(store: JobStore, clock: Clock) -> None:
    """It answers as expired, and is cleaned twice: once more after whoever was archiving it."""
    job = accept(store)
    claim(store, job.id)
    succeed(store, job.id, {"class": "x"})
    assert store.delete(job.id) == job.spec.input.key
    assert store.delete(job.id) == job.spec.input.key
    clock.advance(1)
    with pytest.raises(ResultExpired):
        store.get(job.id)
    assert store.unarchived(10) == []
    (item,) = store.cleanable(10)
    assert (item.image_key, item.deleted) == (job.spec.input.key, True)
    store.cleaned(item)
    assert store.cleanable(10) == []
    clock.advance(61)
    (item,) = store.cleanable(10)
    assert (item.image_key, item.deleted) == (None, True)
    store.cleaned(item)
    clock.advance(1000)
    assert store.cleanable(10) == []


def test_a_deleted_job_is_over_for_its_worker(store: JobStore) -> None:
    """Its outcome is refused, and no reaper brings it back."""
    job = accept(store)
    claim(store, job.id)
    store.delete(job.id)
    assert not store.renew(job.id, "token", LEASE)
    assert not succeed(store, job.id, {})
    assert store.depth().open == 0
    with pytest.raises(JobNotFound):
        store.delete(new_job_id())


def test_a_record_that_appears_while_it_is_deleted_keeps_its_words(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison takes the job in between the two looks; its spec stays what it is."""
    store = RedisJobStore(redis_client)
    store.found()
    job = accept(store)
    monkeypatch.setattr(store, "_spec", lambda job_id: None)
    with pytest.raises(JobNotFound):
        store.delete(job.id)
    assert store.get(job.id).spec == job.spec


def test_two_cleaners_at_once_drop_no_result_before_its_time(store: JobStore, clock: Clock) -> None:
    """One comes with what it found when the other has just noted that the image is gone."""
    job = accept(store, image_retention=60, retention=600)
    claim(store, job.id)
    succeed(store, job.id, {"class": "x"})
    clock.advance(61)
    (first,) = store.cleanable(10)
    clock.advance(61)
    clean(store)
    store.cleaned(first)
    store.cleaned(Cleanable(job.id, None, has_heatmap=False, deleted=False))
    assert store.get(job.id).result == {"class": "x"}
    assert store.cleanable(10) == []
    clock.advance(540)
    assert clean(store) == [None]


@pytest.mark.integration
def test_redis_drops_by_itself_what_nobody_may_ask_for_any_more(redis_client: redis.Redis) -> None:
    """Each key in its time, and an open job's record never."""
    store = RedisJobStore(redis_client)
    store.found()
    waits, result, tombstone = 3600, 600, 600

    def left(key: str) -> object:
        """Return how many seconds this one has; -1: it stays."""
        return pytest.approx(redis_client.ttl(key), abs=10)

    again = Idempotency(key="job", fingerprint="f")
    job = store.create(new_job(expires_in=waits, retention=result, idempotency=again), 10).job
    record = keys.JOB + job.id
    assert (left(record), left(f"{keys.IDEMPOTENCY}job")) == (-1, waits + result + tombstone)
    store.cancel(job.id)
    assert left(record) == result + tombstone
    store.retry(job.id, 10)
    assert left(record) == -1
    claim(store, job.id)
    succeed(store, job.id, {"class": "x"}, answer_key="answer")
    assert (left(record), left(f"{keys.ANSWER}answer")) == (result + tombstone, result)

    ended = store.get(job.id)
    redis_client.delete(record, f"{keys.IDEMPOTENCY}job")
    assert store.restore_ended(ended, 60, tombstone, again)
    assert (left(record), left(f"{keys.IDEMPOTENCY}job")) == (result + tombstone, result + tombstone)

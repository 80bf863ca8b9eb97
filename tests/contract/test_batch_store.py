"""What a ledger promises about batches, held against the Redis one and the one in memory."""

import time

import pytest
import redis

from shared import job_store_redis_batches, keys, redis_ledger
from shared.batch_store import INTAKE_SECONDS
from shared.errors import (
    BatchNotFound,
    IdempotencyKeyReused,
    JobStoreFull,
    JobStoreUnavailable,
    LedgerRebuilding,
    QueueFull,
    QuotaReached,
    ResultExpired,
    cause_of,
)
from shared.job_store import JobStore
from shared.job_store_memory import MemoryJobStore
from shared.job_store_redis import RedisJobStore
from shared.schemas import Idempotency, Job, JobError, JobStatus, NewBatch, NewJob, Priority, new_job_id
from tests import work
from tests.work import Clock, new_job


def begin(
    store: JobStore,
    idempotency: Idempotency | None = None,
    owner: str | None = None,
    *,
    is_full: bool = False,
) -> str:
    """Begin a batch whose results are kept for ten minutes."""
    new = NewBatch(
        id=new_job_id(),
        owner=owner,
        expires_in_seconds=3600,
        retention_seconds=600,
        tombstone_seconds=600,
        idempotency=idempotency,
    )
    return store.create_batch(new, is_full=is_full)


def member(batch_id: str, owner: str | None = None, expires_in: float = 3600) -> NewJob:
    """Return a job of this batch."""
    return new_job(expires_in=expires_in, batch=batch_id, priority=Priority.BULK, owner=owner)


def fill(store: JobStore, batch_id: str, count: int, expires_in: float = 3600) -> list[Job]:
    """Accept so many members."""
    jobs = store.create_many([member(batch_id, expires_in=expires_in) for _ in range(count)], 1000)
    return [job for job in jobs if isinstance(job, Job)]


def fail(store: JobStore, job: Job, code: str) -> None:
    """Run a job to its failure."""
    assert work.claim(store, job.id)
    assert work.fail(store, job.id, JobError(code=code, detail="x"))


def succeed(store: JobStore, job: Job) -> None:
    """Run a job to its result."""
    assert work.claim(store, job.id)
    assert work.succeed(store, job.id, {"class": "x"})


def test_a_batch_counts_its_members_whatever_becomes_of_them(store: JobStore, clock: Clock) -> None:
    """By status and by reason, through every transition."""
    batch_id = begin(store)
    jobs = fill(store, batch_id, 8, expires_in=100)
    store.batch(batch_id, seal=True)
    succeed(store, jobs[0])
    fail(store, jobs[1], "POISON")
    fail(store, jobs[2], "POISON")
    fail(store, jobs[3], "INPUT_MISSING")
    store.cancel(jobs[4].id)
    work.claim(store, jobs[5].id)
    work.claim(store, jobs[6].id)
    store.release(jobs[6].id, "token", 0)
    batch = store.batch(batch_id)
    assert batch.counts == {
        "queued": 2, "running": 1, "succeeded": 1, "failed": 3, "canceled": 1, "expired": 0,
    }  # fmt: skip
    assert batch.reasons == {"INPUT_MISSING": 1, "POISON": 2}
    assert (batch.completed_at_ms, batch.owner, batch.deleted) == (None, None, 0)
    store.retry(jobs[1].id, 1000)
    store.delete(jobs[2].id)
    store.delete(jobs[2].id)
    clock.advance(101)
    store.reap(store.due({}, 100), {})
    batch = store.batch(batch_id)
    assert batch.counts == {
        "queued": 0, "running": 0, "succeeded": 1, "failed": 1, "canceled": 1, "expired": 4,
    }  # fmt: skip
    assert (batch.deleted, batch.reasons) == (1, {"DEADLINE_EXCEEDED": 4, "INPUT_MISSING": 1})
    assert batch.completed_at_ms == clock()


def test_a_batch_is_completed_when_it_is_whole_and_nothing_is_open(store: JobStore, clock: Clock) -> None:
    """Not while more may come, not while one is open; a retry opens it again."""
    batch_id = begin(store)
    first, second = fill(store, batch_id, 2)
    succeed(store, first)
    fail(store, second, "POISON")
    assert store.batch(batch_id).completed_at_ms is None
    assert store.batch(batch_id, seal=True).completed_at_ms == clock()
    clock.advance(5)
    store.retry(second.id, 1000)
    assert store.batch(batch_id).completed_at_ms is None
    succeed(store, second)
    batch = store.batch(batch_id)
    assert (batch.completed_at_ms, batch.expires_at_ms) == (clock(), clock() + 600_000)


def test_a_batch_that_was_left_behind_gets_no_more_members(store: JobStore, clock: Clock) -> None:
    """Whoever submitted it died in between: it is completed all the same."""
    batch_id = begin(store)
    succeed(store, fill(store, batch_id, 1)[0])
    clock.advance(INTAKE_SECONDS - 1)
    assert not store.batch(batch_id).is_whole
    clock.advance(2)
    assert store.batch(batch_id).is_whole


def test_ends_are_told_in_order_and_each_job_once(store: JobStore) -> None:
    """A job that is retried moves to where it ended last; a deleted one is told no more."""
    batch_id = begin(store)
    jobs = fill(store, batch_id, 4)
    assert store.members(batch_id, 0, 10) == [job.id for job in jobs]
    assert store.members(batch_id, 1, 2) == [job.id for job in jobs[1:3]]
    for job in (jobs[2], jobs[0], jobs[3]):
        fail(store, job, "POISON")
    assert [job.id for job in store.ended(batch_id, 0, 2)] == [jobs[2].id, jobs[0].id]
    store.retry(jobs[0].id, 1000)
    store.delete(jobs[3].id)
    assert [job.id for job in store.ended(batch_id, 0, 10)] == [jobs[2].id]
    succeed(store, jobs[0])
    assert [job.id for job in store.ended(batch_id, 0, 10)] == [jobs[2].id, jobs[0].id]
    assert [job.id for job in store.ended(batch_id, 3, 10)] == [jobs[0].id]
    assert store.batch(batch_id).ends == 4
    assert store.statuses([job.id for job in jobs]) == ["succeeded", "queued", "failed", None]


def test_many_are_accepted_until_there_is_no_room(store: JobStore) -> None:
    """Those that came first are in; each of the others says why it is not; a repetition changes nothing."""
    batch_id = begin(store)
    news = [member(batch_id) for _ in range(5)]
    found = store.create_many(news, max_open=3)
    assert [isinstance(item, Job) for item in found] == [True] * 3 + [False] * 2
    assert isinstance(found[4], QueueFull)
    again = store.create_many(news[:3], max_open=3)
    assert [item.id for item in again if isinstance(item, Job)] == [new.id for new in news[:3]]
    assert store.members(batch_id, 0, 10) == [new.id for new in news[:3]]
    owned = store.create_many([member(batch_id, "a") for _ in range(3)], 1000, max_owned=2)
    assert isinstance(owned[2], QuotaReached)
    assert store.admission("a").owned == 2
    assert store.create_many([], 10) == []


def test_a_key_gives_the_first_batch_again(store: JobStore) -> None:
    """With another request it is refused."""
    repeat = Idempotency(key="k", fingerprint="f")
    batch_id = begin(store, repeat)
    assert begin(store, repeat) == batch_id
    with pytest.raises(IdempotencyKeyReused):
        begin(store, Idempotency(key="k", fingerprint="g"))


def test_a_ledger_short_of_memory_finds_a_batch_and_begins_none(store: JobStore) -> None:
    """With a key or without; what is refused leaves its key free."""
    repeat = Idempotency(key="k", fingerprint="f")
    batch_id = begin(store, repeat)
    assert begin(store, repeat, is_full=True) == batch_id
    for key in (Idempotency(key="new", fingerprint="f"), None):
        with pytest.raises(JobStoreFull):
            begin(store, key, is_full=True)
    begin(store, Idempotency(key="new", fingerprint="g"))


def test_a_batch_whose_request_is_repeated_may_get_more_members(store: JobStore) -> None:
    """Until it is whole again no end of one of them completes it: its owner is told once."""
    repeat = Idempotency(key="k", fingerprint="f")
    batch_id = begin(store, repeat)
    succeed(store, fill(store, batch_id, 1)[0])
    completed = store.batch(batch_id, seal=True)
    assert completed.completed_at_ms
    begin(store, repeat)
    for _ in range(2):
        succeed(store, fill(store, batch_id, 1)[0])
        found = store.batch(batch_id)
        assert (found.is_whole, found.completed_at_ms) == (False, None)
    assert store.batch(batch_id, seal=True).completed_at_ms
    # Nothing is added: it stays completed all along.
    begin(store, repeat)
    assert store.batch(batch_id).completed_at_ms
    assert store.batch(batch_id, seal=True).completed_at_ms


def test_a_restored_batch_is_whole_by_itself_in_its_time(store: JobStore, clock: Clock) -> None:
    """However long ago it was begun: whoever restores it is still at it."""
    new = NewBatch(id=new_job_id(), expires_in_seconds=3600, retention_seconds=600, tombstone_seconds=600)
    store.create_batch(new, begun_at_ms=clock() - 10 * INTAKE_SECONDS * 1000)
    clock.advance(INTAKE_SECONDS - 1)
    assert not store.batch(new.id).is_whole
    clock.advance(2)
    assert store.batch(new.id).is_whole


def test_a_batch_expires_with_its_last_result(store: JobStore, clock: Clock) -> None:
    """First 410, then unknown."""
    batch_id = begin(store, owner="a")
    (job,) = fill(store, batch_id, 1)
    store.batch(batch_id, seal=True)
    store.cancel(job.id)
    clock.advance(601)
    with pytest.raises(ResultExpired) as caught:
        store.batch(batch_id)
    assert caught.value.owner == "a"
    with pytest.raises(BatchNotFound):
        store.batch(new_job_id())


def test_a_job_of_no_batch_is_taken_in_again_and_a_member_of_a_lost_one_is_not(store: JobStore) -> None:
    """It can then be retried, or deleted, as any other; a batch begins before its members."""
    job = store.create(member(""), 10).job
    store.cancel(job.id)
    ended = store.get(job.id)
    other = ended.model_copy(update={"id": new_job_id()})
    assert store.restore_ended(other, 60, 600)
    assert store.get(other.id) == other
    assert store.retry(other.id, 10).status == JobStatus.QUEUED
    lost = other.spec.model_copy(update={"batch": new_job_id()})
    assert not store.restore_ended(ended.model_copy(update={"id": new_job_id(), "spec": lost}), 60, 600)


def test_a_job_is_taken_in_again_with_its_key_unless_a_later_one_has_it(store: JobStore) -> None:
    """A repetition of its request finds it, and one with another image is refused."""
    store.cancel((job := store.create(member(""), 10).job).id)
    ended, keys_ = store.get(job.id), [Idempotency(key=key, fingerprint="f") for key in ("a", "b")]
    first, second = (ended.model_copy(update={"id": new_job_id()}) for _ in keys_)
    later = store.create(member("").model_copy(update={"idempotency": keys_[1]}), 10).job
    assert store.restore_ended(first, 60, 600, keys_[0])
    assert store.restore_ended(second, 60, 600, keys_[1])
    assert store.find_replay(keys_[0]) == first
    assert (found := store.find_replay(keys_[1]))
    assert found.id == later.id
    with pytest.raises(IdempotencyKeyReused):
        store.find_replay(Idempotency(key="a", fingerprint="other"))


def test_a_member_past_its_retention_is_told_no_more(store: JobStore, clock: Clock) -> None:
    """As by itself; the others of a batch that is open for long are."""
    batch_id = begin(store)
    first, second = fill(store, batch_id, 2)
    succeed(store, first)
    clock.advance(300)
    succeed(store, second)
    clock.advance(301)
    assert [job.id for job in store.ended(batch_id, 0, 10)] == [second.id]
    with pytest.raises(ResultExpired):
        store.get(first.id)


def test_a_reason_is_counted_no_more_once_its_result_is_dropped(store: JobStore, clock: Clock) -> None:
    """One of two, of a batch that a third member keeps open."""
    batch_id = begin(store)
    first, second, _ = fill(store, batch_id, 3)
    fail(store, first, "POISON")
    clock.advance(400)
    fail(store, second, "POISON")
    clock.advance(201)
    for _ in range(2):
        work.clean(store)
    assert store.batch(batch_id).reasons == {"POISON": 1}


def test_every_key_of_a_batch_has_a_time_to_live(redis_client: redis.Redis, clock: Clock) -> None:
    """From the beginning: nothing is left of one that nobody comes back to."""
    store = RedisJobStore(redis_client, clock)
    store.found()
    batch_id = begin(store, Idempotency(key="k", fingerprint="f"))
    assert 5_900_000 < redis_client.pttl(f"{keys.IDEMPOTENCY}k") <= 6_000_000
    assert 4_700_000 < redis_client.pttl(f"{keys.BATCH}{batch_id}") <= 4_800_000
    jobs = fill(store, batch_id, 2)
    succeed(store, jobs[0])
    for part in ("", ":jobs", ":ended"):
        assert 4_700_000 < redis_client.pttl(f"{keys.BATCH}{batch_id}{part}") <= 4_800_000
    store.batch(batch_id, seal=True)
    succeed(store, jobs[1])
    for part in ("", ":jobs", ":ended"):
        assert redis_client.pttl(f"{keys.BATCH}{batch_id}{part}") <= 1_200_000


@pytest.mark.parametrize("side", ["memory", "redis"])
def test_a_member_that_had_ended_is_taken_in_again(
    store: JobStore, clock: Clock, side: str, request: pytest.FixtureRequest
) -> None:
    """A ledger that lost its data has it as it was: counts, order, retention, and a retry."""
    batch_id = begin(store)
    done, failed = fill(store, batch_id, 2)
    succeed(store, done)
    fail(store, failed, "POISON")
    cached = store.answer(member(batch_id), done.id)
    assert cached
    jobs = [store.get(done.id), store.get(failed.id), cached.job]
    if side == "memory":
        empty: JobStore = MemoryJobStore(clock, founded=False)
    else:
        client = request.getfixturevalue("limited_client")
        request.getfixturevalue("redis_client").flushall()
        empty = RedisJobStore(client, clock)
    with pytest.raises(LedgerRebuilding):
        empty.batch(batch_id)
    new = NewBatch(id=batch_id, expires_in_seconds=3600, retention_seconds=600, tombstone_seconds=600)
    empty.create_batch(new, begun_at_ms=clock() - 5000)
    for job in jobs:
        assert empty.restore_ended(job, 60, 600)
        assert not empty.restore_ended(job, 60, 600)
    batch = empty.batch(batch_id, seal=True)
    assert (batch.counts[JobStatus.SUCCEEDED], batch.reasons) == (2, {"POISON": 1})
    assert batch.created_at_ms == clock() - 5000
    assert batch.completed_at_ms is not None
    assert empty.ended(batch_id, 0, 10) == jobs
    assert empty.members(batch_id, 0, 10) == [job.id for job in jobs]
    totals = empty.totals()
    assert totals.accepted + totals.retried == totals.open + sum(totals.ended.values())
    again = empty.retry(failed.id, 10)
    assert (again.status, again.deadline_ms - clock()) == (JobStatus.QUEUED, 3_600_000)
    finished = empty.cancel(again.id).job
    assert (finished.finished_at_ms, finished.expires_at_ms) == (clock(), clock() + 600_000)
    assert empty.retry(again.id, 10).status == JobStatus.QUEUED
    clock.advance(61)
    assert {item.job_id for item in empty.cleanable(10)} == {done.id, cached.job.id}


def test_an_item_that_redis_refused_says_why(redis_client: redis.Redis) -> None:
    """For the operator's log: the others of its exchange are accepted."""
    store = RedisJobStore(redis_client)
    store.found()
    refused, accepted = (member(begin(store)) for _ in range(2))
    redis_client.set(keys.JOB + refused.id, "no record")
    away, job = store.create_many([refused, accepted], 1000)
    assert isinstance(away, JobStoreUnavailable)
    assert (cause_of(away) or "").startswith("WRONGTYPE")
    assert isinstance(job, Job)


@pytest.mark.integration
def test_members_are_accepted_again_after_redis_clock_was_set(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes an hour ahead of what this process took it for: the first answer tells its time."""
    store = RedisJobStore(redis_client)
    store.found()
    batch_id = begin(store)
    assert len(fill(store, batch_id, 1)) == 1
    for module in (redis_ledger, job_store_redis_batches):
        monkeypatch.setattr(module, "monotonic_ms", lambda: time.monotonic_ns() / 1_000_000 - 3_600_000)
    assert [len(fill(store, batch_id, 1)) for _ in range(2)] == [0, 1]

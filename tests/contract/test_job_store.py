"""What a ledger promises, held against the Redis one and the one in memory."""

import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from ops.processes import Child, wait_until
from ops.servers import RedisServer, free_port
from shared import job_store, job_store_redis, keys, redis_ledger
from shared.errors import (
    IdempotencyKeyReused,
    JobAlreadyFinal,
    JobNotFound,
    JobNotRetryable,
    JobStoreUnavailable,
    LedgerRebuilding,
    QueueFull,
    QuotaReached,
    ResultExpired,
)
from shared.job_store import (
    MOST_LOST_WORKERS,
    REPUBLISH_AFTER_MS,
    Change,
    Cleanable,
    Ending,
    Heads,
    JobStore,
)
from shared.job_store_memory import MemoryJobStore
from shared.job_store_redis import UNREADABLE_HOLD_SECONDS, RedisJobStore, connect
from shared.redis_ledger import CREATE_PATIENCE_MS
from shared.schemas import (
    Idempotency,
    Job,
    JobError,
    JobStatus,
    NewJob,
    Priority,
    Standing,
    new_job_id,
    wall_clock_ms,
)
from shared.services import REDIS_TIMEOUT_SECONDS
from tests.work import LEASE, RUN, Clock, claim, fail, new_job, succeed

#: A client, and its server.
OwnRedis = tuple[redis.Redis, Child]


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    """A server of the test's own, which it may harm, and a client that gives up as the program's does."""
    server = RedisServer(free_port(), "password", tmp_path / "data")
    child = server.child(tmp_path / "log")
    child.start()
    try:
        assert wait_until(server.is_ready, 20)
        with connect(server.url, REDIS_TIMEOUT_SECONDS) as client:
            yield client, child
    finally:
        child.send(signal.SIGCONT)
        child.stop(10)


def accept(store: JobStore, **options: float) -> Job:
    """Accept one job."""
    return store.create(new_job(**options), max_open=1000).job  # type: ignore[arg-type]  # the float options only


def reap(store: JobStore, oldest: int | None = None) -> list[str]:
    """Do what the reaper does in one pass, where the queue of interactive jobs has this head."""
    heads = {Priority.INTERACTIVE: oldest}
    return store.reap(store.due(heads, 1000), heads)


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


def test_a_result_past_its_retention_is_expired_and_later_unknown(store: JobStore, clock: Clock) -> None:
    """410 first; the tombstone outlives the result."""
    job = accept(store, retention=60)
    store.cancel(job.id)
    clock.advance(61)
    with pytest.raises(ResultExpired):
        store.get(job.id)


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


def test_the_depth_tells_waiting_from_running(store: JobStore) -> None:
    """What capacity and readiness are judged by."""
    first, second = accept(store), accept(store)
    claim(store, first.id)
    depth = store.depth()
    assert (depth.open, depth.running) == (2, 1)
    assert depth.oldest_published_at_ms == second.published_at_ms


def test_the_drain_rate_counts_the_last_minute(store: JobStore, clock: Clock) -> None:
    """Jobs that ended per second, and zero again when a minute has passed."""
    assert store.drain_rate() == 0
    for _ in range(6):
        store.cancel(accept(store).id)
    assert store.drain_rate() == pytest.approx(0.1)
    clock.advance(75)
    assert store.drain_rate() == 0


def test_the_service_rate_leaves_out_when_there_was_nothing_to_do(store: JobStore, clock: Clock) -> None:
    """One job that took two seconds in a quiet minute: half a job a second, whenever it is asked."""
    assert store.service_rate() == 0
    job = accept(store)
    clock.advance(2)
    store.cancel(job.id)
    assert store.service_rate() == pytest.approx(0.5)
    clock.advance(30)
    assert store.service_rate() == pytest.approx(0.5)
    job = accept(store)
    assert job.standing
    assert (job.standing.ended_lately, job.standing.busy_ms_lately) == (1, 2_000)
    store.cancel(job.id)
    clock.advance(75)
    assert store.service_rate() == 0
    job = accept(store)
    assert job.standing
    assert (job.standing.ended_lately, job.standing.busy_ms_lately) == (0, 0)
    clock.advance(1)
    store.cancel(job.id)
    assert store.service_rate() == 1
    standing = accept(store).standing
    assert standing
    assert (standing.ended_lately, standing.busy_ms_lately) == (1, 1_000)


def test_the_service_rate_of_a_busy_ledger_is_its_drain_rate(store: JobStore, clock: Clock) -> None:
    """A job a second for over two minutes, two always waiting; then none for ten, while they wait."""
    waiting = [accept(store) for _ in range(2)]
    for _ in range(135):
        job = accept(store)
        clock.advance(1)
        store.cancel(job.id)
    assert store.service_rate() == pytest.approx(1, rel=0.02)
    assert store.drain_rate() == pytest.approx(1, rel=0.2)
    standing = store.get(waiting[1].id).standing
    assert standing
    assert standing.busy_ms_lately == pytest.approx(1_000 * standing.ended_lately, abs=1_000)
    clock.advance(600)
    store.cancel(waiting[0].id)
    for _ in range(2):
        clock.advance(0.004)
        assert 1 / 60 <= store.service_rate() <= 1 / 50
        standing = store.get(waiting[1].id).standing
        assert standing
        assert 50_000 <= standing.busy_ms_lately <= 60_000


@pytest.mark.parametrize("seconds", [0.05, 9, 45, 65, 200])
def test_the_service_rate_of_slow_jobs_is_no_better_than_they_are(
    store: JobStore, clock: Clock, seconds: float
) -> None:
    """One after the other, with pauses; by what a minute shows, in which one may end that began before it."""
    for _ in range(6):
        job = accept(store)
        clock.advance(seconds)
        store.cancel(job.id)
        for _ in range(2):
            clock.advance(3)
            assert 0.8 <= store.service_rate() * min(seconds, 48) <= 2


def test_what_the_rates_are_counted_in_does_not_grow(redis_client: redis.Redis, clock: Clock) -> None:
    """A number for each ten seconds of two minutes, and not for each of a year."""
    store = RedisJobStore(redis_client, clock)
    for _ in range(40):
        store.cancel(accept(store).id)
        store.cancel(store.create(bulk_job(), 10).job.id)
        clock.advance(10)
    assert redis_client.hlen(keys.BUSY) <= 15
    assert redis_client.hlen(keys.DRAINED) <= 30


def test_a_change_is_told_to_who_listens(store: JobStore) -> None:
    """Waiting for a result needs no polling."""
    changes = store.changes()
    assert next(changes) is None
    job = accept(store)
    assert claim(store, job.id)
    store.cancel(job.id)
    heard = [change for change in (next(changes) for _ in range(4)) if change]
    assert heard == [Change(job.id, JobStatus.RUNNING), Change(job.id, JobStatus.CANCELED)]
    changes.close()  # type: ignore[attr-defined]  # both are generators


def test_the_notice_of_an_end_holds_the_job_as_it_ended(store: JobStore) -> None:
    """Who waits for it need not read it; a change in between holds nothing."""
    changes = store.changes()
    assert next(changes) is None
    job = accept(store)
    assert claim(store, job.id)
    assert succeed(store, job.id, {"class": "lung_n", "text": "ä b"}, timings_ms={"fetch": 1.5})
    running, ended = (change for change in (next(changes) for _ in range(2)) if change)
    assert running.ended is None
    assert ended.ended is not None
    assert ended.ended() == store.get(job.id)
    changes.close()  # type: ignore[attr-defined]


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


def test_a_notice_in_other_words_is_passed_over(limited_client: redis.Redis) -> None:
    """Another version's, during an upgrade: who waits looks for itself now and then."""
    changes = RedisJobStore(limited_client).changes()
    assert next(changes) is None
    for notice in ("an-id", "", "an-id soon"):
        limited_client.publish(keys.CHANGES, notice)
    limited_client.publish(keys.CHANGES, "an-id failed")
    heard = [next(changes) for _ in range(4)]
    assert heard == [None, None, None, Change("an-id", JobStatus.FAILED)]
    changes.close()  # type: ignore[attr-defined]


def clean(store: JobStore) -> list[str | None]:
    """Do what the reaper does, without an object store; return the keys of the images that are to go."""
    items = store.cleanable(100)
    for item in items:
        store.cleaned(item)
    return [item.image_key for item in items]


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


def test_nothing_of_the_caller_is_left_with_a_dropped_result(redis_client: object, clock: Clock) -> None:
    """The tombstone holds no result, no error and no words of the caller's."""
    client = redis_client
    store = RedisJobStore(client, clock)  # type: ignore[arg-type]
    job = accept(store)
    claim(store, job.id)
    succeed(store, job.id, {"class": "lung_aca"}, timings_ms={"decode": 1})
    for _ in range(2):
        clock.advance(601)
        clean(store)
    left = str(client.hgetall(keys.JOB + job.id))  # type: ignore[attr-defined]
    assert "lung_aca" not in left
    assert "Grüße" not in left
    assert "decode" not in left
    assert client.zcard(keys.ENDED) == 0  # type: ignore[attr-defined]


def test_every_version_of_a_job_is_a_new_one(store: JobStore, clock: Clock) -> None:
    """The ETag changes with each visible change."""
    job = accept(store)
    seen = [job.version]
    claim(store, job.id, "a")
    seen.append(store.get(job.id).version)
    store.release(job.id, "a", 0)
    seen.append(store.get(job.id).version)
    claim(store, job.id, "b")
    seen.append(store.get(job.id).version)
    clock.advance(LEASE + 1)
    reap(store)
    seen.append(store.get(job.id).version)
    store.cancel(job.id)
    seen.append(store.get(job.id).version)
    assert seen == sorted(set(seen))


def test_redis_keeps_no_index_entry_of_an_ended_job(redis_client: object, clock: Clock) -> None:
    """Every index is empty when every job has ended, and the record has a time to live."""
    client = redis_client
    store = RedisJobStore(client, clock)  # type: ignore[arg-type]
    job = accept(store)
    claim(store, job.id)
    succeed(store, job.id, {})
    for index in (keys.OPEN, keys.PUBLISHED, keys.LEASED):
        assert client.zcard(index) == 0  # type: ignore[attr-defined]
    assert client.pttl(keys.JOB + job.id) > 0  # type: ignore[attr-defined]


@pytest.mark.integration
def test_an_error_among_several_answers_is_the_ledgers(redis_client: redis.Redis) -> None:
    """One command of the look at the queue fails; no half of an answer is taken for the whole."""
    redis_client.set(keys.OPEN, "no set at all")
    with pytest.raises(JobStoreUnavailable) as caught:
        RedisJobStore(redis_client).admission()
    assert "WRONGTYPE" in str(caught.value.__cause__)


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


@pytest.mark.integration
@pytest.mark.parametrize("call", ["script", "single", "pipeline"])
def test_a_connection_to_a_server_that_is_no_master_any_more_is_given_up(
    redis_client: redis.Redis, redis_server: RedisServer, call: str
) -> None:
    """Behind one address another server may be the master by now: the next call finds it."""
    with connect(redis_server.url, REDIS_TIMEOUT_SECONDS) as client:
        store = RedisJobStore(client)
        store.found()
        before = client.client_id()
        redis_client.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            if call == "script":
                with pytest.raises(JobStoreUnavailable):
                    accept(store)
            elif call == "single":
                with pytest.raises(redis.exceptions.ReadOnlyError):
                    client.set("name", "value")
            else:
                # What travels with a command that is refused is answered all the same.
                pipe = client.pipeline(transaction=False).set("name", "value").get("name")
                refused, read = pipe.execute(raise_on_error=False)
                assert (type(refused), read) == (redis.exceptions.ReadOnlyError, None)
            assert client.client_id() != before
        finally:
            redis_client.execute_command("REPLICAOF", "NO", "ONE")
        assert accept(store).status == JobStatus.QUEUED


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


def test_a_job_is_restored_as_old_as_it_is(store: JobStore) -> None:
    """Its time in the queue goes on."""
    new = new_job(expires_in=3600)
    accepted_at_ms = wall_clock_ms() - 1_000_000
    job = store.create(new, 10, accepted_at_ms).job
    assert job.created_at_ms == accepted_at_ms
    assert job.deadline_ms == accepted_at_ms + 3_600_000
    assert job.published_at_ms > accepted_at_ms
    # Its readers may know it under versions of the ledger that was lost.
    assert job.version > 1_000_000
    late = store.create(new_job(expires_in=10), 10, accepted_at_ms).job
    assert store.get(late.id).status == JobStatus.EXPIRED


def test_ids_without_a_record_are_told(store: JobStore) -> None:
    """In order; an ended job has one too."""
    known = accept(store)
    store.cancel(known.id)
    others = [new_job_id(), new_job_id()]
    assert store.unknown([others[0], known.id, others[1]]) == others
    assert store.unknown([]) == []


def test_a_comparison_is_made_by_one_and_then_not_for_a_while(store: JobStore) -> None:
    """Until it is over nobody else makes one, and after it the right is gone."""
    assert store.sweep_is_due()
    assert store.begin_sweep(60)
    assert not store.begin_sweep(60)
    assert store.hold_sweep(60)
    assert store.end_sweep(is_whole=True)
    assert not store.sweep_is_due()
    assert not store.hold_sweep(60)
    assert not store.end_sweep(is_whole=True)
    assert store.begin_sweep(60)
    assert store.end_sweep(is_whole=False)


def test_whoever_compares_and_falls_silent_loses_the_right(store: JobStore, clock: Clock) -> None:
    """Somebody else takes it."""
    assert store.begin_sweep(0.05)
    # Redis lets a key lapse by its own clock.
    clock.advance(1)
    time.sleep(0.1)
    assert not store.hold_sweep(60)
    assert not store.end_sweep(is_whole=True)
    assert store.begin_sweep(60)


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


@pytest.mark.integration
def test_a_comparison_that_a_loss_of_data_overtook_speaks_for_nobody_elses(redis_client: redis.Redis) -> None:
    """Another worker has begun anew: what this one had put into the ledger before is gone again."""
    overtaken, other = RedisJobStore(redis_client), RedisJobStore(redis_client)
    assert overtaken.begin_sweep(60)
    redis_client.flushdb()
    assert other.begin_sweep(60)
    assert not overtaken.hold_sweep(60)
    assert not overtaken.end_sweep(is_whole=True)
    assert not other.is_founded()
    assert other.hold_sweep(60)
    assert other.end_sweep(is_whole=True)
    assert other.is_founded()


@pytest.mark.integration
def test_a_comparison_is_due_at_once_where_another_server_answers(own_redis: OwnRedis) -> None:
    """One that took over, or was started again, may lack the last writes: nothing else would tell."""
    client, child = own_redis
    store = RedisJobStore(client)
    assert store.begin_sweep(60)
    assert store.end_sweep(is_whole=True)
    assert not store.sweep_is_due()
    assert store.begin_sweep(60)
    child.stop(10)
    child.start()
    assert wait_until(lambda: _answers(store), 20)
    assert store.is_founded()
    assert store.sweep_is_due()
    # What was compared with the earlier one says nothing of this one.
    assert store.end_sweep(is_whole=True)
    assert store.sweep_is_due()
    assert store.begin_sweep(60)
    assert store.end_sweep(is_whole=True)
    assert not store.sweep_is_due()


def _answers(store: JobStore) -> bool:
    try:
        store.ping()
    except JobStoreUnavailable:
        return False
    return True


@pytest.mark.parametrize("answer", [{}, redis.exceptions.NoPermissionError("INFO")])
def test_a_server_that_does_not_name_itself_is_compared_as_before(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    """Some services answer only a part of INFO, or none of it."""

    def info(section: str) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(redis_client, "info", info)
    store = RedisJobStore(redis_client)
    assert store.sweep_is_due()
    assert store.begin_sweep(60)
    assert store.end_sweep(is_whole=True)
    assert not store.sweep_is_due()


@pytest.fixture(params=["memory", "redis"])
def wiped(request: pytest.FixtureRequest) -> JobStore:
    """Each side, after a loss of all its data."""
    if request.param == "memory":
        return MemoryJobStore(founded=False)
    return RedisJobStore(request.getfixturevalue("limited_client"))


def test_a_ledger_that_lost_its_data_says_so(wiped: JobStore) -> None:
    """It knows no id, no key, and cannot tell whether there ever was one; what is new it accepts."""
    repeat = Idempotency(key="k", fingerprint="f")
    assert not wiped.is_founded()
    assert accept(wiped).status == JobStatus.QUEUED
    calls: list[Callable[[], object]] = [
        lambda: wiped.get(new_job_id()),
        lambda: wiped.cancel(new_job_id()),
        lambda: wiped.delete(new_job_id()),
        lambda: wiped.find_replay(repeat),
        lambda: wiped.create(new_job(idempotency=repeat), 10),
    ]
    for call in calls:
        with pytest.raises(LedgerRebuilding):
            call()
    restored = wiped.create(new_job(idempotency=repeat), 10, wall_clock_ms()).job
    replay = wiped.find_replay(repeat)
    assert replay is not None
    assert replay.id == restored.id
    wiped.found()
    assert wiped.is_founded()
    with pytest.raises(JobNotFound):
        wiped.get(new_job_id())


@pytest.mark.integration
def test_a_full_redis_refuses_new_jobs_and_ends_old_ones(own_redis: OwnRedis) -> None:
    """With no byte left, accepted work still gets its outcome, and gets out of the way."""
    client, _ = own_redis
    store = RedisJobStore(client)
    store.found()
    first, second = accept(store), accept(store)
    client.config_set("maxmemory", 1)
    fresh = RedisJobStore(client)
    assert fresh.memory_share() > 1
    with pytest.raises(JobStoreUnavailable):
        accept(store)
    assert claim(store, first.id) is not None
    assert store.renew(first.id, "token", LEASE)
    assert succeed(store, first.id, {"class": "x"})
    assert store.cancel(second.id).job.status == JobStatus.CANCELED
    taken = store.unarchived(10)
    assert {job.id for job in taken} == {first.id, second.id}
    assert store.archived(taken) == []
    store.delete(first.id)
    assert store.depth().open == 0


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
    clock.advance(61)
    assert set(store.due({}, 10)) == {poison.id, sound.id}


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


@pytest.mark.integration
def test_no_limit_is_no_share(own_redis: OwnRedis) -> None:
    """A Redis without maxmemory is never short of it; as `make up` starts it, it has some."""
    client, _ = own_redis
    assert 0 < RedisJobStore(client).memory_share() < 0.5
    client.config_set("maxmemory", 0)
    assert RedisJobStore(client).memory_share() == 0


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


def test_the_ledger_tells_its_time(store: JobStore, clock: Clock) -> None:
    """Whoever compares ages goes by it."""
    clock.advance(3600)
    assert store.now_ms() == clock.now_ms


@pytest.mark.parametrize("skew_seconds", [-3600, 3600])
def test_a_worker_with_a_wrong_clock_harms_nobody(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, skew_seconds: int
) -> None:
    """Leases, deadlines and what is due go by Redis' clock alone."""
    right, wrong = RedisJobStore(redis_client), RedisJobStore(redis_client)
    running, waiting = accept(right), accept(right)
    claim(right, running.id, "right")
    real_time, real_time_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real_time() + skew_seconds)
    monkeypatch.setattr(time, "time_ns", lambda: real_time_ns() + skew_seconds * 10**9)
    assert reap(wrong) == []
    assert abs(wrong.now_ms() - real_time() * 1000) < 60_000
    assert claim(wrong, running.id, "wrong") is None
    claimed = claim(wrong, waiting.id, "wrong")
    assert claimed is not None
    assert claimed.started_at_ms is not None
    assert abs(claimed.started_at_ms - real_time() * 1000) < 60_000
    assert right.renew(running.id, "right", LEASE)
    assert wrong.renew(waiting.id, "wrong", LEASE)
    assert accept(wrong).deadline_ms - real_time() * 1000 < 3_660_000


def test_the_ledgers_time_is_asked_for_anew(redis_client: redis.Redis) -> None:
    """Also by who had an estimate of it before Redis' clock was set."""
    jobs = RedisJobStore(redis_client)
    jobs.now_ms()
    jobs._clock_lead_ms = 3_600_000.0
    assert abs(jobs.now_ms() - time.time() * 1000) > 60_000
    jobs._clock_asked_at -= 6
    assert abs(jobs.now_ms() - time.time() * 1000) < 60_000


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


def test_an_image_that_may_be_on_its_way_out_is_not_run_again(store: JobStore, clock: Clock) -> None:
    """Its retention is over, although nobody has deleted it yet."""
    job = accept(store, image_retention=60)
    store.cancel(job.id)
    clock.advance(60)
    with pytest.raises(ResultExpired):
        store.retry(job.id, 10)


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
    store.create(owned_by("b"), 100, max_owned=2)
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


def bulk_job() -> NewJob:
    """Return a job that nobody waits for."""
    return new_job(priority=Priority.BULK)


def test_each_priority_has_its_own_places(store: JobStore, clock: Clock) -> None:
    """A job knows how many of its own are ahead, and how many others wait; a retried one is at the end."""
    jobs = []
    for new in (bulk_job(), new_job(), bulk_job(), new_job(), bulk_job()):
        clock.advance(1)
        jobs.append(store.create(new, 100).job)
    standings = [store.get(job.id).standing for job in jobs]
    places = [(here.ahead, here.others) for here in standings if here]
    assert places == [(0, 2), (0, 3), (1, 2), (1, 3), (2, 2)]
    depth = store.depth()
    assert {name: item.queued for name, item in depth.waiting.items()} == {"interactive": 2, "bulk": 3}
    assert depth.waiting[Priority.BULK].oldest_published_at_ms == jobs[0].published_at_ms
    assert depth.oldest_published_at_ms == jobs[0].published_at_ms
    store.cancel(jobs[0].id)
    clock.advance(1)
    retried = store.retry(jobs[0].id, 100)
    assert retried.spec.priority == Priority.BULK
    assert retried.standing == Standing(
        ahead=2, others=2, ended_lately=1, bulk_ended_lately=1, busy_ms_lately=5_000
    )
    assert (store.drain_rate(), store.drain_rate(Priority.INTERACTIVE)) == (pytest.approx(1 / 60), 0)
    assert store.drain_rate(Priority.BULK) == store.drain_rate()


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


def test_each_queue_has_its_own_watermark(store: JobStore, clock: Clock) -> None:
    """A backlog of one priority hides no lost message of the other, and is not published twice."""
    bulk, interactive = (store.create(new, 100).job for new in (bulk_job(), new_job()))
    clock.advance(60)
    heads: Heads = {Priority.BULK: bulk.published_at_ms, Priority.INTERACTIVE: None}
    assert store.reap(store.due(heads, 10), heads) == [interactive.id]
    clock.advance(60)
    heads = {Priority.INTERACTIVE: clock() - 60_000}
    assert store.reap(store.due(heads, 10), heads) == [bulk.id]

"""What the ledger tells of the queue: how many wait, at which place, and how fast they end."""

import pytest
import redis

from shared import keys
from shared.job_store import JobStore
from shared.job_store_redis import RedisJobStore
from shared.schemas import Priority, Standing
from tests.work import Clock, accept, bulk_job, claim, new_job


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

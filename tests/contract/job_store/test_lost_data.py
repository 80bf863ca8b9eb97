"""What a ledger says that lost its data, and who compares it with the object store."""

import time
from collections.abc import Callable

import pytest
import redis

from ops.processes import wait_until
from shared.errors import JobNotFound, JobStoreUnavailable, LedgerRebuilding
from shared.job_store import JobStore
from shared.job_store_memory import MemoryJobStore
from shared.job_store_redis import RedisJobStore
from shared.schemas import Idempotency, JobStatus, new_job_id, wall_clock_ms
from tests.contract.conftest import OwnRedis
from tests.work import Clock, accept, new_job


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

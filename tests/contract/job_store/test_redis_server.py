"""What the ledger makes of its server: its clock, its memory, and another in its place."""

import time

import pytest
import redis
from structlog.testing import capture_logs

from ops.servers import RedisServer
from shared.errors import JobStoreUnavailable
from shared.job_store import JobStore
from shared.job_store_redis import RedisJobStore, connect
from shared.schemas import JobStatus
from shared.services import REDIS_TIMEOUT_SECONDS
from tests.contract.conftest import OwnRedis
from tests.work import LEASE, Clock, accept, claim, reap, succeed


@pytest.mark.integration
def test_the_ledgers_time_is_the_servers(redis_client: redis.Redis) -> None:
    """To the millisecond, but for how long the asking takes."""
    seconds, micros = redis_client.time()
    assert RedisJobStore(redis_client).now_ms() == pytest.approx(seconds * 1000 + micros / 1000, abs=500)


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
def test_a_server_that_is_not_set_as_it_must_be_is_said(
    redis_client: redis.Redis, limited_client: redis.Redis
) -> None:
    """At each comparison, so at once after each of its starts; with the shipped rights."""
    store = RedisJobStore(limited_client)
    loose = {"appendonly": "no", "maxmemory-policy": "allkeys-lru", "maxmemory": 0}
    before = {name: redis_client.config_get(name)[name] for name in loose}
    said = []
    try:
        for settings in (before, loose):
            for name, value in settings.items():
                redis_client.config_set(name, value)
            with capture_logs() as lines:
                assert store.begin_sweep(60)
            assert store.end_sweep(is_whole=True)
            said.append([line["reason"] for line in lines if line["event"] == "redis_may_lose_jobs"])
    finally:
        for name, value in before.items():
            redis_client.config_set(name, value)
    assert said == [
        [],
        ["appendonly is off, maxmemory-policy is allkeys-lru, maxmemory is not set"],
    ]


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


@pytest.mark.integration
def test_no_limit_is_no_share(own_redis: OwnRedis) -> None:
    """A Redis without maxmemory is never short of it; as `make up` starts it, it has some."""
    client, _ = own_redis
    assert 0 < RedisJobStore(client).memory_share() < 0.5
    client.config_set("maxmemory", 0)
    assert RedisJobStore(client).memory_share() == 0


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

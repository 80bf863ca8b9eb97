"""Requests counted on a real Redis: for all servers together, and never in the way of its loss."""

import pytest
import redis

from ops.servers import free_port
from shared.errors import RateLimited
from shared.job_store_redis import connect
from shared.rate_limits import RateLimits, in_process, on_redis

pytestmark = pytest.mark.integration


@pytest.fixture(params=["memory", "redis"])
def rates(request: pytest.FixtureRequest) -> RateLimits:
    """Each side."""
    if request.param == "memory":
        return in_process()
    return on_redis(request.getfixturevalue("redis_client"))


def test_one_too_many_is_refused_and_told_when_to_come_back(rates: RateLimits) -> None:
    """Each key has a count of its own; no limit means no count."""
    for _ in range(3):
        rates.count("a", 3)
    with pytest.raises(RateLimited) as refused:
        rates.count("a", 3)
    assert 1 <= refused.value.retry_after_seconds <= 60
    rates.count("b", 3)
    rates.count("a", 0)


def test_two_servers_count_together(redis_client: redis.Redis) -> None:
    """The limit is the key's, wherever it asks."""
    on_redis(redis_client).count("a", 1)
    with pytest.raises(RateLimited):
        on_redis(redis_client).count("a", 1)


def test_a_wiped_redis_only_resets_the_count(redis_client: redis.Redis) -> None:
    """It opens nothing and closes nothing."""
    rates = on_redis(redis_client)
    rates.count("a", 1)
    redis_client.flushall()
    rates.count("a", 1)
    with pytest.raises(RateLimited):
        rates.count("a", 1)


def test_counts_leave_nothing_behind(redis_client: redis.Redis) -> None:
    """Every key of theirs has an end, under one prefix."""
    on_redis(redis_client).count("a", 5)
    names = redis_client.keys("*")
    assert names
    assert all(name.startswith("rates:") and redis_client.ttl(name) > 0 for name in names)


def test_a_redis_that_is_away_lets_pass() -> None:
    """What needs it says so itself; what does not goes on."""
    rates = on_redis(connect(f"redis://127.0.0.1:{free_port()}/0", 0.5))
    for _ in range(3):
        rates.count("a", 1)

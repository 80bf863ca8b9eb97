"""Both sides of the ledger."""

from collections.abc import Iterator

import pytest

from shared.job_store import JobStore
from shared.job_store_memory import MemoryJobStore
from shared.job_store_redis import RedisJobStore
from shared.schemas import wall_clock_ms
from tests.work import Clock


@pytest.fixture
def clock() -> Clock:
    """Time that a test moves; it starts now."""
    return Clock(wall_clock_ms())


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest, clock: Clock) -> Iterator[JobStore]:
    """Each side of the port, empty."""
    if request.param == "memory":
        yield MemoryJobStore(clock)
    else:
        client = request.getfixturevalue("limited_client")
        redis_store = RedisJobStore(client, clock)
        redis_store.found()
        yield redis_store

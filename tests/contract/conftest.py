"""Both sides of the ledger, and a clock that a test moves."""

from collections.abc import Iterator

import pytest

from shared.job_store import JobStore
from shared.job_store_memory import MemoryJobStore
from shared.job_store_redis import RedisJobStore
from shared.schemas import wall_clock_ms


class Clock:
    """Time that a test moves; starts now."""

    def __init__(self) -> None:
        self.now_ms = wall_clock_ms()

    def __call__(self) -> int:
        """Return the time."""
        return self.now_ms

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ms += int(seconds * 1000)


@pytest.fixture
def clock() -> Clock:
    """Time that a test moves."""
    return Clock()


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

"""Both sides of the ledger, a clock that a test moves, and a job to put in."""

from collections.abc import Iterator

import pytest

from shared.job_store import JobStore
from shared.job_store_memory import MemoryJobStore
from shared.job_store_redis import RedisJobStore
from shared.schemas import Idempotency, InputInfo, JobSpec, ModelRef, NewJob, new_job_id, wall_clock_ms


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


def new_job(
    expires_in: float = 3600,
    idempotency: Idempotency | None = None,
    retention: float = 600,
    image_retention: float = 60,
) -> NewJob:
    """Return a job that can be accepted."""
    return NewJob(
        id=new_job_id(),
        spec=JobSpec(
            model=ModelRef(name="lung-cnn", version="1.0.0", sha256="0" * 64),
            input=InputInfo(
                key="uploads/x", sha256="1" * 64, bytes=10, width=224, height=224, media_type="image/png"
            ),
            custom_id="Grüße",
        ),
        expires_in_seconds=expires_in,
        image_retention_seconds=image_retention,
        retention_seconds=retention,
        tombstone_seconds=600,
        idempotency=idempotency,
    )

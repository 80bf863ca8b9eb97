"""One attempt at a job, as it goes through the worker."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import structlog

from shared.errors import JobStoreUnavailable
from shared.schemas import Job
from worker.leases import Lease
from worker.supervisor import Outcome

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, eq=False)
class Message:
    """What came from the queue."""

    job_id: str
    #: What its client's ETA followed from, as the message has it.
    standing: object = None
    #: Called, once, when the message may be acknowledged.
    ended: Callable[[], object] = lambda: None


@dataclass(eq=False)
class Run:
    """One attempt at a job, from its claim on; its image is with the engine, or on its way there."""

    message: Message
    job: Job
    lease: Lease
    began: float = field(default_factory=time.monotonic)
    timings: dict[str, float] = field(default_factory=dict)
    image: bytes = b""
    #: Resolved when the engine has answered, or never gets the image.
    future: Future[Outcome] = field(default_factory=Future)


def about(run: Run) -> AbstractContextManager[object]:
    """Have what is logged in the block say which job it is about."""
    return structlog.contextvars.bound_contextvars(job_id=run.job.id, request_id=run.job.spec.request_id)


@contextmanager
def timed(timings: dict[str, float], name: str) -> Iterator[None]:
    """Add how long the block took, in ms."""
    started = time.perf_counter()
    yield
    timings[name] = round((time.perf_counter() - started) * 1000, 2)


def leave_to_the_reaper(job_id: str, error: JobStoreUnavailable) -> None:
    """Note that nothing more is done about a job.

    Unclaimed: the reaper publishes it again. Claimed: its lease lapses, and then it does.
    """
    _log.warning("job_left_to_the_reaper", job_id=job_id, error=str(error))

"""The use cases of a batch as a whole: find it, cancel it, run once more what ended without a result."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from api.lookup import is_of
from api.removal import cancel_job
from api.retry import retry_job
from shared.api_keys import ApiKey
from shared.batch_store import no_such_batch
from shared.errors import (
    CallerError,
    HistoQueueError,
    JobAlreadyFinal,
    JobNotRetryable,
    QueueFull,
    ResultExpired,
)
from shared.founding import founded
from shared.schemas import Batch, JobStatus, is_job_id
from shared.services import Services
from shared.settings import Settings

#: One request goes on for so long; what is left is told, and the same request again goes on with it.
LONGEST_SECONDS = 25.0
_AT_ONCE = 200
_THREADS = 8
_OPEN = frozenset({JobStatus.QUEUED, JobStatus.RUNNING})
_FAILED = frozenset({JobStatus.FAILED, JobStatus.EXPIRED})


@dataclass
class Done:
    """What a request did to the members of a batch."""

    batch: Batch
    changed: int = 0
    #: Members that were not reached in time, or that nobody tried after the queue was full.
    left: int = 0
    problems: list[tuple[str, HistoQueueError]] = field(default_factory=list)


def find_batch(services: Services, batch_id: str, caller: ApiKey | None) -> Batch:
    """Return the batch with this id, if it is this caller's.

    Raises:
        BatchNotFound: if there never was one, or it is another key's.
        ResultExpired: if its results are past their retention.
        Unavailable: if the ledger is away, or is being rebuilt.
    """
    if not is_job_id(batch_id):
        raise no_such_batch(batch_id[:40])
    try:
        batch = founded(services, lambda: services.jobs.batch(batch_id))
    except ResultExpired as expired:
        if not is_of(caller, expired.owner):
            raise no_such_batch(batch_id) from None
        raise
    if not is_of(caller, batch.owner):
        raise no_such_batch(batch_id)
    return batch


def cancel_batch(services: Services, batch: Batch) -> Done:
    """End every member that is open; each as `cancel_job` does."""
    return _each(services, batch, _OPEN, lambda job_id: cancel_job(services, job_id))


def retry_batch(services: Services, settings: Settings, batch: Batch) -> Done:
    """Queue every member that failed or expired once more; each as `retry_job` does."""
    return _each(services, batch, _FAILED, lambda job_id: retry_job(services, settings, job_id))


def _each(
    services: Services, batch: Batch, statuses: frozenset[JobStatus], change: Callable[[str], object]
) -> Done:
    """Change every member in one of these statuses, several at the same time."""

    def refusal(job_id: str) -> HistoQueueError | None:
        try:
            change(job_id)
        except HistoQueueError as error:
            return error
        return None

    done = Done(batch)
    until = time.monotonic() + LONGEST_SECONDS
    is_over = False
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="batch") as pool:
        for job_ids in _members(services, batch.id, statuses):
            is_over = is_over or time.monotonic() > until
            if is_over:
                done.left += len(job_ids)
                continue
            for job_id, refused in zip(job_ids, pool.map(refusal, job_ids), strict=True):
                if refused is None:
                    done.changed += 1
                elif isinstance(refused, QueueFull):
                    done.left += 1
                    is_over = True
                elif isinstance(refused, (JobAlreadyFinal, JobNotRetryable)):
                    continue  # it ended, or was retried, in this moment
                elif isinstance(refused, CallerError):
                    done.problems.append((job_id, refused))
                else:
                    raise refused
    done.batch = services.jobs.batch(batch.id)
    return done


def _members(services: Services, batch_id: str, statuses: frozenset[JobStatus]) -> Iterator[list[str]]:
    """Yield the members in one of these statuses, some at a time."""
    start = 0
    while job_ids := services.jobs.members(batch_id, start, _AT_ONCE):
        start += len(job_ids)
        found = services.jobs.statuses(job_ids)
        yield [job_id for job_id, status in zip(job_ids, found, strict=True) if status in statuses]

"""Whether there is room for one more job, and when there will be."""

import math

from shared.errors import QueueFull, QuotaReached
from shared.founding import found_if_empty
from shared.job_store import JobStore, no_memory
from shared.schemas import Admission
from shared.services import Services
from shared.settings import Settings

#: From this share of Redis' memory on, what is left belongs to the jobs that were accepted.
MOST_MEMORY_SHARE = 0.75
#: The longest that a client is told to stay away, in seconds.
MOST_RETRY_AFTER_SECONDS = 30


def check_room(services: Services, settings: Settings, known: Admission, owner: str | None) -> None:
    """Return if, by what is known, one more job of this owner would be accepted now.

    Raises:
        QueueFull: if as many jobs are open as are admitted, in all or (QuotaReached) of one owner.
        JobStoreFull: if Redis runs out of memory.
        Unavailable: if the ledger or the object store is away.
    """
    jobs = services.jobs
    most_owned = settings.max_open_jobs_per_key
    if known.open >= settings.max_open_jobs:
        raise QueueFull(known.open, settings.max_open_jobs, seconds_until_room(jobs))
    if owner and most_owned and known.owned >= most_owned:
        raise QuotaReached(known.owned, most_owned, seconds_until_room(jobs))
    if not known.is_founded:
        # A new installation is whole before its first upload; after that only a comparison could tell.
        found_if_empty(services)
    check_memory(jobs)


def check_memory(jobs: JobStore) -> None:
    """Return if there is memory for the record of one more job.

    Raises:
        JobStoreFull: if Redis runs out of it.
    """
    if is_full(jobs):
        raise no_memory()


def is_full(jobs: JobStore) -> bool:
    """Tell whether what is left of Redis' memory belongs to the jobs that were accepted."""
    return jobs.memory_share() >= MOST_MEMORY_SHARE


def seconds_until_room(jobs: JobStore) -> int:
    """Return when, as fast as jobs end, one of the open ones has ended and its place is free."""
    rate = jobs.service_rate()
    return retry_after(1 / rate if rate else MOST_RETRY_AFTER_SECONDS)


def retry_after(seconds: float) -> int:
    """Return whole seconds for a `Retry-After` header, from 1 to 30."""
    return max(1, min(MOST_RETRY_AFTER_SECONDS, math.ceil(seconds)))

"""What a worker does with one job of the ledger, by hand."""

from collections.abc import Mapping
from typing import Any

from shared.job_store import Ending, JobStore
from shared.schemas import Job, JobError

LEASE = 15.0
RUN = 300.0


def claim(jobs: JobStore, job_id: str, token: str = "token", run_seconds: float = RUN) -> Job | None:
    """Take a job for `LEASE` seconds; None where it is not to be had."""
    return jobs.claim_all({job_id: token}, LEASE, run_seconds).get(job_id)


def succeed(
    jobs: JobStore,
    job_id: str,
    result: dict[str, Any],
    token: str = "token",
    timings_ms: Mapping[str, float] | None = None,
    answer_key: str | None = None,
) -> bool:
    """End a job with a result; False where the token does not hold it."""
    return _end(jobs, Ending(job_id, token, dict(timings_ms or {}), result=result, answer_key=answer_key))


def fail(
    jobs: JobStore,
    job_id: str,
    error: JobError,
    token: str = "token",
    timings_ms: Mapping[str, float] | None = None,
) -> bool:
    """End a job with an error; False where the token does not hold it."""
    return _end(jobs, Ending(job_id, token, dict(timings_ms or {}), error=error))


def _end(jobs: JobStore, ending: Ending) -> bool:
    (said,) = jobs.end_all([ending])
    if isinstance(said, Exception):
        raise said
    return said

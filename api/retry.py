"""The use case of a retry: run once more what ended without a result."""

import structlog

from api.removal import keep_outcome
from api.room import seconds_until_room
from shared.archive import Archive
from shared.errors import QueueFull, ResultExpired
from shared.founding import remembered
from shared.schemas import RETRYABLE, Job
from shared.services import Services
from shared.settings import Settings

_log = structlog.stdlib.get_logger("api.retry")


def retry_job(services: Services, settings: Settings, job_id: str) -> Job:
    """Queue a job that ended without a result once more; its image is still there.

    Raises:
        JobNotFound: if the id is unknown.
        JobNotRetryable: if it is open, or has succeeded.
        ResultExpired: if it is deleted, or its image is past its retention.
        QueueFull: if as many jobs are open as are admitted.
    """
    jobs = services.jobs
    known = remembered(services, settings, job_id, lambda: jobs.get(job_id))
    # What ended once must not be found there if Redis' data is lost while it runs again, so it goes first. If
    # it does not run again after all, it is put there again.
    is_taken_out = known.status in RETRYABLE and jobs.unarchive(job_id)
    if is_taken_out:
        Archive(services.objects).delete(job_id)
    try:
        job = jobs.retry(job_id, settings.max_open_jobs, settings.max_open_jobs_per_key)
    except (QueueFull, ResultExpired) as refused:
        if is_taken_out:
            keep_outcome(services, known)
        if isinstance(refused, QueueFull):
            raise type(refused)(refused.depth, refused.limit, seconds_until_room(jobs)) from None
        raise
    _log.info("job_retried", job_id=job_id)
    return job

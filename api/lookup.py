"""Find a job: in the ledger, or, where that lost its data, among the outcomes in the object store."""

from shared.archive import Archive
from shared.errors import JobNotFound, LedgerRebuilding, ResultExpired
from shared.recovery import founded
from shared.schemas import Job, wall_clock_ms
from shared.services import Services


def find_job(services: Services, job_id: str) -> Job:
    """Return the job with this id.

    Raises:
        JobNotFound: if there never was one, as far as anything knows.
        ResultExpired: if it was deleted, or is past its retention.
        Unavailable: if the ledger is away, or is being rebuilt and the job has no outcome yet.
    """
    try:
        return services.jobs.get(job_id)
    except (JobNotFound, LedgerRebuilding):
        job = Archive(services.objects).get(job_id)
        if job is None:
            return founded(services, lambda: services.jobs.get(job_id))
    if job.expires_at_ms is not None and wall_clock_ms() > job.expires_at_ms:
        raise ResultExpired("The result is past its retention and was dropped. Submit the image again.")
    return job

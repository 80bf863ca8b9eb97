"""The use cases of a job that its owner wants no more: cancel it, or have nothing of it kept."""

import structlog

from shared.archive import Archive, note_archived
from shared.errors import JobAlreadyFinal, JobNotFound, LedgerRebuilding, ObjectStoreUnavailable, Unavailable
from shared.founding import founded, remembered
from shared.job_store import Canceled, already_final
from shared.schemas import Job
from shared.services import Services
from shared.settings import Settings

_log = structlog.stdlib.get_logger("api.removal")


def cancel_job(services: Services, job_id: str) -> Canceled:
    """End a job for good; once this returns it stays ended, whatever dies.

    Raises:
        JobNotFound: if the id is unknown.
        JobAlreadyFinal: if it had ended before.
        ResultExpired: if it is deleted, or past its retention.
    """
    archive = Archive(services.objects)
    try:
        canceled = founded(services, lambda: services.jobs.cancel(job_id))
    except JobAlreadyFinal:
        # What is deleted or dropped is gone, whatever is asked of it.
        services.jobs.get(job_id)
        raise
    except (JobNotFound, LedgerRebuilding):
        if (job := archive.get(job_id)) is None:
            raise
        raise already_final(job.status) from None
    _log.info("job_canceled", job_id=job_id)
    keep_outcome(services, canceled.job)
    return canceled


def keep_outcome(services: Services, job: Job) -> None:
    """Put how a job ended into the object store; where that fails, a worker does it later."""
    archive = Archive(services.objects)
    try:
        # At once, and not by a worker in its own time: else a loss of Redis' data could bring the job back.
        archive.put(job)
        note_archived(services.jobs, archive, [job])
    except Unavailable:
        _log.warning("archiving_left_to_a_worker", job_id=job.id)


def delete_job(services: Services, settings: Settings, job_id: str) -> None:
    """Forget a job: its image, its result and every copy; what the object store holds back is cleaned later.

    Raises:
        JobNotFound: if the id is unknown.
        Unavailable: if the ledger is away; or the object store, for a job that only that still knows.
    """
    archive = Archive(services.objects)
    try:
        image_key = remembered(services, settings, job_id, lambda: services.jobs.delete(job_id))
    except (JobNotFound, LedgerRebuilding):
        # A member of a batch that is lost itself.
        if (job := archive.get(job_id)) is None:
            raise
        services.objects.delete(job.spec.input.key)
        archive.forget(job_id)
        _log.info("job_deleted", job_id=job_id)
        return
    _log.info("job_deleted", job_id=job_id)
    try:
        services.objects.delete(image_key)
        archive.forget(job_id)
    except ObjectStoreUnavailable:
        _log.warning("cleaning_left_to_a_worker", job_id=job_id)

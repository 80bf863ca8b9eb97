"""Find a caller's job: in the ledger, or, where that lost its data, among the outcomes kept elsewhere."""

from shared.api_keys import ApiKey
from shared.archive import Archive
from shared.errors import JobNotFound, LedgerRebuilding, ResultExpired
from shared.founding import founded
from shared.job_store import no_such_job, result_expired
from shared.schemas import Job, is_job_id, wall_clock_ms
from shared.services import Services


def checked_id(job_id: str) -> str:
    """Return what stands in a path, if it could be an id of ours.

    Raises:
        JobNotFound: if it is anything else.
    """
    if not is_job_id(job_id):
        raise JobNotFound(f"Expected an id that POST /predict returned. Received: {job_id[:40]!r}")
    return job_id


def find_job(services: Services, job_id: str, caller: ApiKey | None) -> Job:
    """Return the job with this id, if it is this caller's.

    Raises:
        JobNotFound: if there never was one, as far as anything knows, or it is another key's.
        ResultExpired: if it was deleted, or is past its retention.
        Unavailable: if the ledger is away, or is being rebuilt and the job has no outcome yet.
    """
    try:
        job = _find(services, job_id)
    except ResultExpired as expired:
        _check_owner(expired.owner, job_id, caller)
        raise
    _check_owner(job.spec.owner, job_id, caller)
    return job


def check_owner(services: Services, job_id: str, caller: ApiKey | None) -> None:
    """Return if the caller may change this job, whatever has become of it; else raise as `find_job`."""
    if caller is None or caller.is_admin:
        return
    try:
        find_job(services, job_id, caller)
    except ResultExpired:
        return


def is_of(caller: ApiKey | None, owner: str | None) -> bool:
    """Tell whether the caller may see what is this owner's."""
    return caller is None or caller.is_admin or owner == caller.id


def _check_owner(owner: str | None, job_id: str, caller: ApiKey | None) -> None:
    if not is_of(caller, owner):
        raise no_such_job(job_id)


def _find(services: Services, job_id: str) -> Job:
    try:
        return services.jobs.get(job_id)
    except (JobNotFound, LedgerRebuilding):
        job = Archive(services.objects).get(job_id)
        if job is None:
            return founded(services, lambda: services.jobs.get(job_id))
    if job.expires_at_ms is not None and wall_clock_ms() > job.expires_at_ms:
        raise result_expired(job.spec.owner)
    return job

"""The use case of a submission: store the image, record and enqueue its job; or find what it repeats."""

import hashlib
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Thread
from time import monotonic

import structlog

from api.options import Options
from api.removal import keep_outcome
from api.uploads import ImageUpload
from shared.archive import Archive
from shared.crash_points import crash_point
from shared.envelope import UPLOADS, AcceptedJob, seal
from shared.errors import (
    IdempotencyKeyReused,
    InvalidRequest,
    JobStoreUnavailable,
    LedgerRebuilding,
    ObjectStoreUnavailable,
    QueueFull,
    QuotaReached,
    ResultExpired,
)
from shared.founding import found_if_empty, founded, remembered
from shared.job_store import Created, JobStore, no_memory
from shared.schemas import (
    RETRYABLE,
    Admission,
    Idempotency,
    InputInfo,
    Job,
    JobSpec,
    NewJob,
    new_job_id,
    wall_clock_ms,
)
from shared.services import Services
from shared.settings import Settings

#: From the first look into the ledger on: later than this an image is not stored, and its job not recorded.
#: With a store or a Redis that hangs on top of what was slow before, the answer would take over 5 s.
LATEST_STORE_SECONDS = 1.25
LATEST_RECORD_SECONDS = 2.0
#: From this share of Redis' memory on, what is left belongs to the jobs that were accepted.
MOST_MEMORY_SHARE = 0.75
#: The longest that a client is told to stay away, in seconds.
MOST_RETRY_AFTER_SECONDS = 30
# No blank at either end: a server in between may take it away.
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?")
_log = structlog.stdlib.get_logger("api.submission")


def submit(
    services: Services,
    settings: Settings,
    upload: ImageUpload,
    options: Options,
    repeat: Idempotency | None,
    request_id: str,
    owner: str | None = None,
) -> Created:
    """Accept an image: once this returns, its job is never lost.

    Raises:
        QueueFull: if as many jobs are open as are admitted, in all or (QuotaReached) of one owner.
        JobStoreFull: if Redis runs out of memory.
        IdempotencyKeyReused: if the key came with another request before.
        UnknownModelVersion: if the options name a version that there is not.
        Unavailable: if the ledger or the object store is away, or no model is published.
        ResultExpired: if it repeats a request whose result is past its retention.
    """
    jobs, began = services.jobs, monotonic()
    if repeat and (known := founded(services, lambda: jobs.find_replay(repeat))):
        return Created(jobs.get(known.id), replayed=True)
    new = _describe(services, settings, upload, options, repeat, request_id, owner)
    may_answer = options.cache and settings.cache_answers
    # Asked before the image is stored: a full queue, or a ledger that is away, then leaves nothing behind.
    found = jobs.admission(owner, new.spec.answer_key if may_answer else None)
    if found.answered_by and (answered := _answer(jobs, new, found.answered_by)):
        return answered
    check_room(services, settings, found, owner)
    if monotonic() - began > LATEST_STORE_SECONDS:
        raise JobStoreUnavailable("The job store took too long. Nothing was accepted; send it again.")
    key = new.spec.input.key
    seal(upload.file, AcceptedJob(job=new, accepted_at_ms=wall_clock_ms()))
    crash_point("api.before_put")
    services.objects.put(key, upload.file, upload.media_type)
    crash_point("api.after_put")
    if monotonic() - began > LATEST_RECORD_SECONDS:
        # Nobody waits for the deletion either.
        Thread(target=discard, args=(services, key), daemon=True).start()
        raise ObjectStoreUnavailable("The object store took too long. Nothing was accepted; send it again.")
    # A ledger that goes away right here may have recorded the job before its answer was lost. Then the
    # repeated request finds that job, so its image stays; only a refusal is certain.
    with _discarding_when_refused(services, key):
        created = jobs.create(new, settings.max_open_jobs, max_owned=settings.max_open_jobs_per_key)
    if created.replayed:
        discard(services, key)
        return Created(jobs.get(created.job.id), replayed=True)
    crash_point("api.after_create")
    _log.info("job_accepted", job_id=created.job.id)
    return created


def _answer(jobs: JobStore, new: NewJob, answered_by: str) -> Created | None:
    """End a job with what an earlier one has found in the same image; None where that is kept no more."""
    check_memory(jobs)
    created = jobs.answer(new, answered_by)
    if created is None:
        return None
    if not created.replayed:
        count_cached(1)
        _log.info("job_accepted", job_id=created.job.id, answered_by=answered_by)
        return created
    return Created(jobs.get(created.job.id), replayed=True)


def count_cached(jobs: int) -> None:
    """Count jobs that took over an earlier answer."""
    # Here and not above, as in `create_app`: it must know where its processes count together.
    from shared import metrics  # noqa: PLC0415

    metrics.CACHED_ANSWERS.inc(jobs)


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


def idempotency(
    header: str | None, path: str, upload: ImageUpload, options: Options, owner: str | None = None
) -> Idempotency | None:
    """Return what makes a repetition of this request by this owner known again; None without the header.

    Raises:
        InvalidRequest: if the header is not 1 to 255 printable ASCII characters.
    """
    return repeat_of(header, path, f"{upload.sha256}\n{options.canonical()}", owner)


def repeat_of(header: str | None, path: str, content: str, owner: str | None) -> Idempotency | None:
    """Return the same for any request; `content` tells it from another one with the same key.

    Raises:
        InvalidRequest: if the header is not 1 to 255 printable ASCII characters.
    """
    if header is None:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(header):
        raise InvalidRequest("Expected Idempotency-Key to be 1 to 255 printable ASCII characters.")
    # An owner is hexadecimal and a path begins with a slash: no two scopes can be the same text.
    return Idempotency(key=_sha256(f"{owner or ''}{path}\n{header}"), fingerprint=_sha256(content))


def _describe(
    services: Services,
    settings: Settings,
    upload: ImageUpload,
    options: Options,
    repeat: Idempotency | None,
    request_id: str,
    owner: str | None,
) -> NewJob:
    job_id = new_job_id()
    version = options.model_version
    spec = JobSpec(
        model=services.models.live() if version is None else services.models.reference(version),
        input=input_of(upload, job_id, options.mpp),
        explain=options.explain,
        custom_id=options.custom_id,
        request_id=request_id,
        owner=owner,
        priority=options.priority,
        webhook_url=options.webhook_url,
    )
    return new_job(job_id, spec, settings, options.expires_in, repeat)


def input_of(upload: ImageUpload, job_id: str, mpp: float | None) -> InputInfo:
    """Return what the record says of this job's image."""
    return InputInfo(
        key=f"{UPLOADS}{datetime.now(UTC):%Y/%m/%d}/{job_id}",
        sha256=upload.sha256,
        bytes=upload.bytes,
        width=upload.width,
        height=upload.height,
        media_type=upload.media_type,
        mpp=mpp,
    )


def new_job(
    job_id: str,
    spec: JobSpec,
    settings: Settings,
    expires_in: float | None,
    repeat: Idempotency | None = None,
) -> NewJob:
    """Return a job to be accepted, with this installation's times."""
    return NewJob(
        id=job_id,
        spec=spec,
        expires_in_seconds=expires_in or settings.job_expires_seconds,
        image_retention_seconds=settings.image_retention_seconds,
        retention_seconds=settings.result_retention_seconds,
        tombstone_seconds=settings.tombstone_seconds,
        idempotency=repeat,
    )


@contextmanager
def _discarding_when_refused(services: Services, key: str) -> Iterator[None]:
    try:
        yield
    except QueueFull as full:
        discard(services, key)
        raise type(full)(full.depth, full.limit, seconds_until_room(services.jobs)) from None
    except (IdempotencyKeyReused, LedgerRebuilding):
        discard(services, key)
        raise


def seconds_until_room(jobs: JobStore) -> int:
    """Return when, as fast as jobs end, one of the open ones has ended and its place is free."""
    rate = jobs.service_rate()
    return retry_after(1 / rate if rate else MOST_RETRY_AFTER_SECONDS)


def retry_after(seconds: float) -> int:
    """Return whole seconds for a `Retry-After` header, from 1 to 30."""
    return max(1, min(MOST_RETRY_AFTER_SECONDS, math.ceil(seconds)))


def discard(services: Services, key: str) -> None:
    """Delete an image that no job was accepted for."""
    try:
        services.objects.delete(key)
    except ObjectStoreUnavailable:
        _log.warning("upload_left_behind", key=key)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

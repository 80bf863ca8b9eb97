"""The use case of a submission: store the image, record and enqueue its job; or find what it repeats."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Thread
from time import monotonic

import structlog

from api.options import Options
from api.room import check_memory, check_room, seconds_until_room
from api.uploads import ImageUpload
from shared.crash_points import crash_point
from shared.envelope import UPLOADS, AcceptedJob, seal
from shared.errors import (
    IdempotencyKeyReused,
    JobStoreUnavailable,
    LedgerRebuilding,
    ObjectStoreUnavailable,
    QueueFull,
)
from shared.founding import founded
from shared.job_store import Created, JobStore
from shared.schemas import Idempotency, InputInfo, JobSpec, NewJob, new_job_id, wall_clock_ms
from shared.services import Services
from shared.settings import Settings

#: From the first look into the ledger on: later than this an image is not stored, and its job not recorded.
#: With a store or a Redis that hangs on top of what was slow before, the answer would take over 5 s.
LATEST_STORE_SECONDS = 1.25
LATEST_RECORD_SECONDS = 2.0
_log = structlog.stdlib.get_logger("api.submission")


def submit(
    services: Services,
    settings: Settings,
    upload: ImageUpload,
    options: Options,
    repeat: Idempotency | None,
    request_id: str,
    owner: str | None,
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


def discard(services: Services, key: str) -> None:
    """Delete an image that no job was accepted for."""
    try:
        services.objects.delete(key)
    except ObjectStoreUnavailable:
        _log.warning("upload_left_behind", key=key)

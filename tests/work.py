"""A job for the ledger, a clock for it, what a worker does, by hand, and a store that refuses a key."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from shared.errors import ObjectStoreUnavailable
from shared.job_store import Ending, JobStore
from shared.schemas import (
    Idempotency,
    InputInfo,
    Job,
    JobError,
    JobSpec,
    ModelRef,
    NewJob,
    Priority,
    new_job_id,
)

LEASE = 15.0
RUN = 300.0
MODEL = ModelRef(name="lung-cnn", version="1.0.0", sha256="0" * 64)


class Clock:
    """A ledger's time in milliseconds since the epoch, which a test moves."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        """Return the time."""
        return self.now_ms

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ms += int(seconds * 1000)


def new_job(
    image: bytes = b"image",
    mpp: float | None = None,
    expires_in: float = 3600,
    retention: float = 600,
    image_retention: float = 60,
    idempotency: Idempotency | None = None,
    **spec: Any,
) -> NewJob:
    """Return a job that can be accepted; `spec` is what else its caller states."""
    job_id = new_job_id()
    accepted = InputInfo(
        key=f"uploads/2026/11/22/{job_id}",
        sha256=hashlib.sha256(image).hexdigest(),
        bytes=len(image),
        width=224,
        height=224,
        media_type="image/png",
        mpp=mpp,
    )
    return NewJob(
        id=job_id,
        spec=JobSpec(**{"model": MODEL, "input": accepted, "custom_id": "Grüße", **spec}),
        expires_in_seconds=expires_in,
        image_retention_seconds=image_retention,
        retention_seconds=retention,
        tombstone_seconds=600,
        idempotency=idempotency,
    )


def bulk_job() -> NewJob:
    """Return a job that nobody waits for."""
    return new_job(priority=Priority.BULK)


def accept(store: JobStore, **options: float) -> Job:
    """Accept one job."""
    return store.create(new_job(**options), max_open=1000).job  # type: ignore[arg-type]  # the float options only


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


def reap(store: JobStore, oldest: int | None = None) -> list[str]:
    """Do what the reaper does in one pass, where the queue of interactive jobs has this head."""
    heads = {Priority.INTERACTIVE: oldest}
    return store.reap(store.due(heads, 1000), heads)


def clean(store: JobStore) -> list[str | None]:
    """Do what the reaper does, without an object store; return the keys of the images that are to go."""
    items = store.cleanable(100)
    for item in items:
        store.cleaned(item)
    return [item.image_key for item in items]


def _end(jobs: JobStore, ending: Ending) -> bool:
    (said,) = jobs.end_all([ending])
    if isinstance(said, Exception):
        raise said
    return said


def refusing(real: Callable[..., Any], part: str) -> Callable[..., Any]:
    """Return a call of the object store that refuses the keys with this part, and makes every other."""

    def refuse_some(key: str, *rest: object) -> Any:
        if part in key:
            raise ObjectStoreUnavailable("refused")
        return real(key, *rest)

    return refuse_some

"""A job as its JSON: the only place that decides what a client sees of the ledger's record."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flask import url_for

from api.problems import job_problem
from shared.errors import JobStoreUnavailable
from shared.job_store import JobStore
from shared.schemas import RETRYABLE, Job, JobStatus, Priority


@dataclass(frozen=True)
class QueuePlace:
    """How many queued jobs are ahead, and in how many seconds this one ends; None where that is unknown."""

    position: int | None = None
    eta_seconds: float | None = None


def queue_place(jobs: JobStore, job: Job) -> QueuePlace | None:
    """Return where a queued job stands; None for any other.

    It is a courtesy: a ledger that cannot say makes no accepted job an error.
    """
    if job.status != JobStatus.QUEUED:
        return None
    try:
        place = jobs.place(job.id)
        rate = jobs.drain_rate()
        # An interactive job need not know.
        bulk_rate = jobs.drain_rate(Priority.BULK) if job.spec.priority == Priority.BULK else 0
    except JobStoreUnavailable:
        return QueuePlace()
    return QueuePlace(place.position, place.eta_seconds(rate, bulk_rate)) if place else QueuePlace()


def job_json(job: Job, place: QueuePlace | None) -> dict[str, Any]:
    """Return the job as docs/reference/http-api.md states it; links are paths on this server."""
    spec = job.spec
    return {
        "id": job.id,
        "status": job.status.value,
        "custom_id": spec.custom_id,
        "priority": spec.priority.value,
        "cached": job.cached,
        "created_at": timestamp(job.created_at_ms),
        "started_at": timestamp(job.started_at_ms),
        "finished_at": timestamp(job.finished_at_ms),
        "expires_at": timestamp(job.expires_at_ms),
        "attempt": job.attempt,
        "queue": {"position": place.position, "eta_seconds": place.eta_seconds} if place else None,
        "model": spec.model.model_dump(),
        # Where the image lies is nobody's business.
        "input": spec.input.model_dump(exclude={"key"}),
        "result": job.result,
        "error": job_problem(job),
        "timings_ms": _timings(job),
        "batch": None,
        "links": {
            "self": url_for("jobs.result", job_id=job.id),
            "cancel": None if job.status.is_final else url_for("jobs.cancel", job_id=job.id),
            "retry": url_for("jobs.retry", job_id=job.id) if job.status in RETRYABLE else None,
            "events": url_for("jobs.events", job_id=job.id),
            "heatmap": url_for("jobs.heatmap", job_id=job.id) if _may_have_heatmap(job) else None,
        },
    }


def timestamp(milliseconds: int | None) -> str | None:
    """Return RFC 3339 in UTC with milliseconds, such as 2026-01-31T09:30:00.125Z."""
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _may_have_heatmap(job: Job) -> bool:
    """One was asked for, and may still come, or the image has a class that it shows."""
    has_class = job.result is not None and job.result.get("class") is not None
    return job.spec.explain and (has_class or not job.status.is_final)


def _timings(job: Job) -> dict[str, float] | None:
    if job.started_at_ms is None:
        return None
    return {"queue": job.started_at_ms - job.created_at_ms, **(job.timings_ms or {})}

"""A job and a batch as JSON: the only place that decides what is seen of the ledger's records."""

from datetime import UTC, datetime
from typing import Any

from shared.problems import job_problem
from shared.schemas import RETRYABLE, Batch, Job
from shared.settings import Settings

#: Said wherever a result may be read.
NOTICE = "Research use only, not for diagnostic use."


def job_body(job: Job, settings: Settings, root: str, queue: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the job as docs/reference/http-api.md states it; links are paths below `root`."""
    spec, here = job.spec, f"{root}/result/{job.id}"
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
        "queue": queue,
        "model": spec.model.model_dump(),
        # Where the image lies is nobody's business.
        "input": spec.input.model_dump(exclude={"key"}),
        "result": job.result,
        "error": job_problem(job, settings, root),
        "timings_ms": _timings(job),
        "batch": spec.batch,
        "links": {
            "self": here,
            "cancel": None if job.status.is_final else f"{here}/cancel",
            "retry": f"{here}/retry" if job.status in RETRYABLE else None,
            "events": f"{here}/events",
            "heatmap": f"{here}/heatmap.png" if may_have_heatmap(job) else None,
            "deliveries": f"{here}/deliveries" if spec.webhook_url else None,
        },
    }


def batch_body(batch: Batch, root: str) -> dict[str, Any]:
    """Return the batch as docs/reference/http-api.md states it; links are paths below `root`."""
    is_open, here = batch.completed_at_ms is None, f"{root}/batches/{batch.id}"
    status = "completed" if not is_open else "running" if batch.is_whole else "accepting"
    return {
        "id": batch.id,
        "status": status,
        "created_at": timestamp(batch.created_at_ms),
        "completed_at": timestamp(batch.completed_at_ms),
        "expires_at": timestamp(batch.expires_at_ms),
        "total": sum(batch.counts.values()) + batch.deleted,
        "counts": {**{name.value: number for name, number in batch.counts.items()}, "deleted": batch.deleted},
        "reasons": batch.reasons,
        "links": {
            "self": here,
            "results": f"{here}/results",
            "cancel": f"{here}/cancel" if is_open else None,
            "retry": f"{here}/retry" if batch.reasons else None,
            "deliveries": f"{here}/deliveries" if batch.webhook_url else None,
        },
    }


def timestamp(milliseconds: int | None) -> str | None:
    """Return RFC 3339 in UTC with milliseconds, such as 2026-01-31T09:30:00.125Z."""
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def may_have_heatmap(job: Job) -> bool:
    """Tell whether one was asked for, and may still come, or the image has a class that it shows."""
    has_class = job.result is not None and job.result.get("class") is not None
    return job.spec.explain and (has_class or not job.status.is_final)


def _timings(job: Job) -> dict[str, float] | None:
    if job.started_at_ms is None:
        return None
    return {"queue": job.started_at_ms - job.created_at_ms, **(job.timings_ms or {})}

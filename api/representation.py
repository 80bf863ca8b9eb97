"""A job as an answer has it, with its place in the queue."""

from dataclasses import dataclass
from typing import Any

from flask import request

from api.context import context
from shared.errors import JobStoreUnavailable
from shared.job_store import JobStore
from shared.representation import job_body
from shared.schemas import Job, JobStatus, Priority


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
    queue = {"position": place.position, "eta_seconds": place.eta_seconds} if place else None
    return job_body(job, context().settings, queue, request.script_root)

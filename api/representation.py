"""A job as an answer has it, with its place in the queue."""

from dataclasses import asdict
from typing import Any

from flask import request

from api.context import context
from shared.queue_order import place_of
from shared.representation import job_body
from shared.schemas import Job


def job_json(job: Job) -> dict[str, Any]:
    """Return the job as docs/reference/http-api.md states it; links are paths on this server."""
    place = place_of(job)
    return job_body(job, context().settings, request.script_root, asdict(place) if place else None)

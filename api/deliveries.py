"""Routes: what a job's webhook was told, and the wish to tell it once more."""

from typing import Any

from flask import Blueprint, Response, jsonify, url_for

from api.access import caller
from api.context import context
from api.lookup import find_job
from shared.deliveries import Delivery, DeliveryState, job_subject
from shared.errors import JobNotFound, NoDelivery
from shared.representation import timestamp
from shared.schemas import is_job_id

bp = Blueprint("deliveries", __name__)


@bp.get("/result/<any_text:job_id>/deliveries")
def show(job_id: str) -> Response:
    """Return each event of the job and what became of telling it; no address is named."""
    _check(job_id)
    return _answer(job_id)


@bp.post("/result/<any_text:job_id>/redeliver")
def redeliver(job_id: str) -> Response:
    """Tell the newest event once more, now, under its id; 202. It turns on again what a 410 turned off."""
    _check(job_id)
    if context().services.deliveries.redeliver(job_subject(job_id)) is None:
        raise NoDelivery("Expected an ended job with a webhook_url. This one has nothing to tell.")
    answer = _answer(job_id)
    answer.status_code = 202
    return answer


def _check(job_id: str) -> None:
    if not is_job_id(job_id):
        raise JobNotFound(f"Expected an id that POST /predict returned. Received: {job_id[:40]!r}")
    find_job(context().services, job_id, caller())


def _answer(job_id: str) -> Response:
    deliveries, subject = context().services.deliveries, job_subject(job_id)
    told = deliveries.of(subject)
    body = {
        "job": job_id,
        "disabled": deliveries.is_off(subject),
        "deliveries": [_delivery_json(delivery) for delivery in told],
        "links": {
            "job": url_for("jobs.result", job_id=job_id),
            "redeliver": url_for("deliveries.redeliver", job_id=job_id) if told else None,
        },
    }
    answer = jsonify(body)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _delivery_json(delivery: Delivery) -> dict[str, Any]:
    """Return what its owner sees: neither the address that was connected to, nor the words of its answer."""
    is_pending = delivery.state == DeliveryState.PENDING
    return {
        "id": delivery.id,
        "event": delivery.event,
        "state": delivery.state.value,
        "announced_at": timestamp(delivery.announced_at_ms),
        "attempt": delivery.attempt,
        "next_attempt_at": timestamp(delivery.due_ms) if is_pending else None,
        "tries": [
            {
                "at": timestamp(made.at_ms),
                "status": made.status,
                "error": made.error,
                "duration_ms": made.duration_ms,
            }
            for made in delivery.tries
        ],
    }

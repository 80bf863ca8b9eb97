"""Routes: what the webhook of a job or a batch was told, and the wish to tell it once more."""

from typing import Any

from flask import Blueprint, Response, jsonify, request

from api.access import caller
from api.batch_actions import find_batch
from api.context import context
from api.lookup import checked_id, find_job
from shared.deliveries import Delivery, DeliveryState, batch_subject, job_subject
from shared.errors import NoDelivery
from shared.representation import timestamp

bp = Blueprint("deliveries", __name__)


@bp.get("/result/<any_text:job_id>/deliveries")
def show(job_id: str) -> Response:
    """Return each event of the job and what became of telling it; no address is named."""
    return _answer(_job(job_id), "job", f"/result/{job_id}")


@bp.post("/result/<any_text:job_id>/redeliver")
def redeliver(job_id: str) -> Response:
    """Tell the newest event once more, now, under its id; 202. It turns on again what a 410 turned off."""
    return _tell_again(_job(job_id), "job", f"/result/{job_id}")


@bp.get("/batches/<batch_id>/deliveries")
def show_batch(batch_id: str) -> Response:
    """Return each time that the batch was completed and what became of telling it."""
    return _answer(_batch(batch_id), "batch", f"/batches/{batch_id}")


@bp.post("/batches/<batch_id>/redeliver")
def redeliver_batch(batch_id: str) -> Response:
    """Tell once more, now, that the batch is completed; 202."""
    return _tell_again(_batch(batch_id), "batch", f"/batches/{batch_id}")


def _job(job_id: str) -> str:
    find_job(context().services, checked_id(job_id), caller())
    return job_subject(job_id)


def _batch(batch_id: str) -> str:
    find_batch(context().services, batch_id, caller())
    return batch_subject(batch_id)


def _tell_again(subject: str, kind: str, path: str) -> Response:
    if context().services.deliveries.redeliver(subject) is None:
        raise NoDelivery(f"Expected an ended {kind} with a webhook_url. This one has nothing to tell.")
    answer = _answer(subject, kind, path)
    answer.status_code = 202
    return answer


def _answer(subject: str, kind: str, path: str) -> Response:
    deliveries, here = context().services.deliveries, f"{request.script_root}{path}"
    told = deliveries.of(subject)
    body = {
        kind: path.rpartition("/")[2],
        "disabled": deliveries.is_off(subject),
        "deliveries": [_delivery_json(delivery) for delivery in told],
        "links": {kind: here, "redeliver": f"{here}/redeliver" if told else None},
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

"""Routes of batches: submit, counts, results so far, cancel, retry."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, jsonify, request, stream_with_context, url_for

from api.access import caller, owner
from api.batch_actions import Done, cancel_batch, find_batch, retry_batch
from api.batch_intake import receive
from api.batch_results import MEDIA_TYPES, MOST_RESULTS, lines
from api.batch_submission import SubmittedBatch, submit_batch
from api.body import upload_request
from api.context import context
from api.options import BatchOptions, check_webhook, read_options
from api.problems import item_problem
from api.request_log import request_id
from api.room import retry_after
from shared.errors import InvalidRequest
from shared.representation import NOTICE, batch_body
from shared.schemas import Batch, wall_clock_ms

bp = Blueprint("batches", __name__)

#: Members in one page of results, where nobody says.
USUAL_RESULTS = 1_000
_LISTED_AT_ONCE = 500


@bp.post("/batches")
def submit() -> Response:
    """Accept what can be accepted: 202 with the batch, its jobs, and a problem for each other item."""
    here = context()
    intake, fields = receive(upload_request(), here.settings, here.services.objects)
    options = read_options(request.args, fields, BatchOptions)
    check_webhook(options.webhook_url, here.settings)
    submitted = submit_batch(
        here.services,
        here.settings,
        intake,
        options,
        request.headers.get("Idempotency-Key"),
        request_id(),
        owner(),
    )
    answer = Response(
        stream_with_context(_submitted_json(submitted)), status=202, content_type="application/json"
    )
    answer.headers["Location"] = url_for("batches.show", batch_id=submitted.batch.id)
    if submitted.replayed:
        answer.headers["Idempotency-Replayed"] = "true"
    return _with_notice(_with_pause(answer, submitted.batch))


@bp.get("/batches/<batch_id>")
def show(batch_id: str) -> Response:
    """Return how many members are in each status, and why those without a result have none."""
    batch = _found(batch_id)
    return _with_notice(_with_pause(jsonify(batch_body(batch, request.script_root)), batch))


@bp.get("/batches/<batch_id>/results")
def results(batch_id: str) -> Response:
    """Return what has ended since the cursor; the next one is a header, and a link where more may come."""
    batch = _found(batch_id)
    _check_names({"cursor", "limit", "format"})
    start = _number("cursor", 0, 2**53)
    count = min(_number("limit", USUAL_RESULTS, MOST_RESULTS, least=1), max(0, batch.ends - start))
    form = request.args.get("format", "ndjson")
    if form not in MEDIA_TYPES:
        expected = ", ".join(MEDIA_TYPES)
        raise InvalidRequest(f"Expected format to be one of {expected}. Received: {form[:40]!r}")
    body = lines(context().services.jobs, batch.id, start, count, form)
    answer = Response(stream_with_context(body), content_type=MEDIA_TYPES[form])
    cursor = min(start, batch.ends) + count
    answer.headers["X-Next-Cursor"] = str(cursor)
    if cursor < batch.ends or batch.completed_at_ms is None:
        following = {"cursor": str(cursor), "format": form}
        if "limit" in request.args:
            following["limit"] = request.args["limit"]
        address = f"{url_for('batches.results', batch_id=batch_id)}?{urlencode(following)}"
        answer.headers["Link"] = f'<{address}>; rel="next"'
    if cursor >= batch.ends:
        _with_pause(answer, batch)
    return _with_notice(answer)


@bp.post("/batches/<batch_id>/cancel")
def cancel(batch_id: str) -> Response:
    """End every member that is open, for good: 202 with how many; `left` were not reached in time."""
    return _done(cancel_batch(context().services, _found(batch_id)), "canceled")


@bp.post("/batches/<batch_id>/retry")
def retry(batch_id: str) -> Response:
    """Queue every member that failed or expired once more: 202 with how many; `left` found no room."""
    here = context()
    return _done(retry_batch(here.services, here.settings, _found(batch_id)), "retried")


def _found(batch_id: str) -> Batch:
    return find_batch(context().services, batch_id, caller())


def _check_names(known: set[str]) -> None:
    """Refuse a query that says what nobody reads: a misspelt cursor would give the first page for ever."""
    for name, values in request.args.lists():
        if name not in known or len(values) > 1:
            expected = ", ".join(sorted(known))
            raise InvalidRequest(f"Expected only {expected}, each once. Received: {name[:40]!r}")


def _number(name: str, usual: int, most: int, least: int = 0) -> int:
    text = request.args.get(name)
    if text is None:
        return usual
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and least <= int(text) <= most):
        raise InvalidRequest(
            f"Expected {name} to be a whole number from {least} to {most}. Received: {text[:40]!r}"
        )
    return int(text)


def _submitted_json(submitted: SubmittedBatch) -> Iterator[str]:
    """Yield the answer in pieces: it is as long as the batch."""
    head = json.dumps(
        {
            **batch_body(submitted.batch, request.script_root),
            "accepted": len(submitted.accepted),
            "rejected": len(submitted.problems),
        }
    )
    yield head[:-1] + ', "items": ['
    items = (
        {"custom_id": name, "id": job_id, "links": {"self": f"{request.script_root}/result/{job_id}"}}
        for name, job_id in submitted.accepted
    )
    yield from _listed(items)
    yield '], "problems": ['
    yield from _listed(
        {"custom_id": name, **item_problem(error, "/batches")} for name, error in submitted.problems
    )
    yield "]}\n"


def _listed(values: Iterator[dict[str, Any]]) -> Iterator[str]:
    """Yield the values as JSON with commas between them, some at a time."""
    separator, piece = "", []
    for value in values:
        piece.append(separator + json.dumps(value))
        separator = ", "
        if len(piece) == _LISTED_AT_ONCE:
            yield "".join(piece)
            piece = []
    yield "".join(piece)


def _done(done: Done, verb: str) -> Response:
    problems = [
        {"id": job_id, **item_problem(error, f"/result/{job_id}")}
        for job_id, error in done.problems[:MOST_RESULTS]
    ]
    body = {
        **batch_body(done.batch, request.script_root),
        verb: done.changed,
        "left": done.left,
        "problems": problems,
    }
    answer = jsonify(body)
    answer.status_code = 202
    if done.left:
        answer.headers["Retry-After"] = str(retry_after(1))
        return _with_notice(answer)
    return _with_notice(_with_pause(answer, done.batch))


def _with_pause(answer: Response, batch: Batch) -> Response:
    """Say when to ask again for an open batch: when its members will have ended, at the rate until now."""
    if batch.completed_at_ms is None:
        ended = sum(count for status, count in batch.counts.items() if status.is_final)
        left = sum(batch.counts.values()) - ended
        seconds = (wall_clock_ms() - batch.created_at_ms) / 1000
        if batch.ends > ended + batch.deleted:
            # Some were retried, maybe hours after: its age tells no rate.
            seconds = left
        elif ended:
            seconds *= left / ended
        answer.headers["Retry-After"] = str(retry_after(seconds))
    return answer


def _with_notice(answer: Response) -> Response:
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-HistoQueue-Notice"] = NOTICE
    return answer

"""What the client can ask of a server, as conversations that either client runs."""

from __future__ import annotations

import itertools
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from ._errors import (
    JobAlreadyFinal,
    JobNotRetryable,
    MethodNotAllowed,
    NotSupported,
    RouteNotFound,
    WaitTimedOut,
    error_for,
)
from ._http import Answer, Flow, FormFile, Pause, Request, retry_after_seconds
from ._models import BatchRecord, JobRecord
from ._options import as_query
from ._retry import Patience, exchange
from ._upload import Upload

#: The server holds no answer back for longer.
LONGEST_WAIT_SECONDS = 30.0
#: For the acceptance of a batch, on top of what any answer may take.
BATCH_SECONDS = 60.0
#: The shortest and the longest pause between two looks at a batch.
BATCH_PAUSE_SECONDS = (0.05, 5.0)
#: Jobs in one page of a batch's results.
BATCH_PAGE = 1000
PNG_SIGNATURE = b"\x89PNG"
T = TypeVar("T")


def submit(
    upload: Upload, options: Mapping[str, Any], wait: float | None, key: str | None, patience: Patience
) -> Flow[JobRecord]:
    """Submit one image under one idempotency key, however often it must be sent.

    Returns the job as it stands, after at most `wait` seconds of waiting for its end.
    """
    _check_number(wait)
    held = min(wait or 0.0, LONGEST_WAIT_SECONDS)
    headers = {"Content-Type": upload.media_type, "Idempotency-Key": key or uuid.uuid4().hex}
    if held > 0:
        headers["Prefer"] = f"wait={math.ceil(held)}"
    began = patience.clock()
    request = Request("POST", "/predict", as_query(options), headers, upload.body, wait_seconds=held)
    record = job_in((yield from exchange(request, patience)))
    if not wait or record.is_final:
        return record
    left = wait - (patience.clock() - began)
    try:
        return (yield from wait_for(record, max(0.0, left), patience))
    except WaitTimedOut:
        return record


def get(job: JobRecord | str, patience: Patience) -> Flow[JobRecord]:
    """Return the job as it stands."""
    return job_in((yield from exchange(Request("GET", job_path(job)), patience)))


def wait_for(record: JobRecord, timeout: float | None, patience: Patience) -> Flow[JobRecord]:
    """Return the job once it is final.

    Raises:
        WaitTimedOut: if it is not after `timeout` seconds; None waits as long as it takes.
        ValueError: if `timeout` is no number.
    """
    _check_number(timeout)
    end = math.inf if timeout is None else patience.clock() + timeout
    tag: dict[str, str] = {}
    while not record.is_final:
        asked_at = patience.clock()
        held = min(LONGEST_WAIT_SECONDS, end - asked_at)
        if held <= 0:
            raise WaitTimedOut(f"Expected {record.id} to end within {timeout:g} s. It is {record.status}.")
        query = {"wait": f"{held:.3f}"}
        answer = yield from exchange(
            Request("GET", job_path(record), query, tag, wait_seconds=held), patience
        )
        if answer.status != 304:
            record = job_in(answer)
            tag = {"If-None-Match": answer.headers["ETag"]} if "ETag" in answer.headers else {}
        if not record.is_final and patience.clock() - asked_at < held / 2:
            # The server holds no more requests back just now: come back when it says.
            yield Pause(min(_when_to_ask_again(answer, patience), max(0.0, end - patience.clock())))
    return record


def _check_number(seconds: float | None) -> None:
    if seconds is not None and math.isnan(seconds):
        # No time is past it: the wait would have no end.
        raise ValueError(f"Expected seconds to wait for. Received: {seconds}")


def submit_batch(
    files: Sequence[FormFile], options: Mapping[str, Any], key: str, patience: Patience
) -> Flow[BatchRecord]:
    """Submit some images in one request under one idempotency key, however often it must be sent.

    What was refused for lack of time or room is asked for again; what is accepted then stays accepted.

    Raises:
        NotSupported: if the server takes no batches.
        HistoQueueError: the error of the last answer, or of the last item that was refused.
    """
    headers = {"Idempotency-Key": key}
    request = Request("POST", "/batches", as_query(options), headers, files=files, wait_seconds=BATCH_SECONDS)
    began = patience.clock()
    for attempt in itertools.count():
        batch = _batch_in((yield from supported(exchange(request, patience), "POST /batches")))
        refused = next((problem for problem in batch.problems.values() if problem.retryable), None)
        if refused is None:
            return batch
        pause = patience.pause_seconds(attempt, 1.0)
        if patience.clock() - began + pause > patience.seconds:
            raise error_for(refused)
        yield Pause(pause)
    raise AssertionError("unreachable")


def wait_for_batch(
    batch: BatchRecord, patience: Patience, usual_seconds: float
) -> Flow[dict[str, JobRecord]]:
    """Return the batch's jobs once all have ended, by the names of their files; a deleted one is left out.

    `usual_seconds` is what another batch like this one took: it is left alone for most of that.

    Raises:
        BatchNotFound: if the server does not know the batch.
        ResultExpired: if it knows it no more.
    """
    ended: dict[str, JobRecord] = {}
    began, looked_at, cursor = patience.clock(), patience.clock(), 0
    path = batch.links.get("results") or f"/batches/{quote(batch.id, safe='')}/results"
    if usual_seconds:
        yield Pause(_within(BATCH_PAUSE_SECONDS, 0.8 * usual_seconds))
    while len(ended) < len(batch.jobs):
        query, before = {"cursor": str(cursor), "limit": str(BATCH_PAGE)}, len(ended)
        answer = yield from exchange(Request("GET", path, query), patience)
        ended.update((str(record.custom_id), record) for record in _records_in(answer))
        if "Link" not in answer.headers:
            break  # nothing more will come
        following, left = _next_cursor(answer), len(batch.jobs) - len(ended)
        if left and following - cursor < BATCH_PAGE:
            now = patience.clock()
            longest = usual_seconds / 5 or (now - began) / 2
            yield Pause(pause_of_batch(len(ended) - before, left, now - looked_at, longest))
            looked_at = now
        cursor = following
    return ended


def pause_of_batch(ended: int, left: int, lately: float, longest: float) -> float:
    """Return for how long to leave a batch alone: until the rest has ended, at the rate of lately.

    So many `ended` in the seconds of `lately`, and so many are `left`. Where none has, or the first ones only
    just began, that tells nothing.

    >>> pause_of_batch(ended=24, left=8, lately=1.5, longest=2.0)
    0.5
    >>> pause_of_batch(ended=0, left=32, lately=1.0, longest=0.75)
    0.75
    """
    return _within(BATCH_PAUSE_SECONDS, min(longest, lately * left / ended) if ended else longest)


def _next_cursor(answer: Answer) -> int:
    text = answer.headers.get("X-Next-Cursor", "")
    if not (text.isascii() and text.isdigit()):
        raise answer.unexpected("X-Next-Cursor")
    return int(text)


def _within(bounds: tuple[float, float], value: float) -> float:
    return max(bounds[0], min(bounds[1], value))


def _when_to_ask_again(answer: Answer, patience: Patience) -> float:
    seconds = retry_after_seconds(answer.headers)
    return patience.pause_seconds(0, 1.0 if seconds is None else min(seconds, LONGEST_WAIT_SECONDS))


def cancel(record: JobRecord, patience: Patience) -> Flow[JobRecord]:
    """End the job; one that is canceled already is returned as it is.

    Raises:
        JobAlreadyFinal: if it had ended in another way.
    """
    path = record.links.get("cancel") or f"{job_path(record)}/cancel"
    try:
        return job_in((yield from exchange(Request("POST", path), patience)))
    except JobAlreadyFinal:
        # The answer to an earlier try may have been lost.
        found = yield from get(record, patience)
        if found.status != "canceled":
            raise
        return found


def retry(record: JobRecord, patience: Patience) -> Flow[JobRecord]:
    """Run a failed, expired or canceled job again, under its id; one that is open is returned as it is.

    Raises:
        JobNotRetryable: if it has succeeded.
    """
    request = Request("POST", record.links.get("retry") or f"{job_path(record)}/retry")
    try:
        return job_in((yield from supported(exchange(request, patience), "POST /result/<id>/retry")))
    except JobNotRetryable:
        # The answer to an earlier try may have been lost.
        found = yield from get(record, patience)
        if found.is_final:
            raise
        return found


def delete(record: JobRecord, patience: Patience) -> Flow[None]:
    """Cancel the job and delete its image and its result."""
    request = Request("DELETE", job_path(record))
    answer = yield from supported(exchange(request, patience), "DELETE /result/<id>")
    if answer.status != 204:
        raise answer.unexpected("status 204")


def heatmap(record: JobRecord, patience: Patience) -> Flow[bytes]:
    """Return the heat map as a PNG file."""
    path = record.links.get("heatmap")
    if not path:
        raise NotSupported(f"Expected job {record.id} to have a heat map. Submit it with explain=True.")
    while True:
        answer = yield from exchange(Request("GET", path), patience)
        if answer.status == 200 and not answer.body.startswith(PNG_SIGNATURE):
            raise answer.unexpected("a PNG file")
        if answer.status == 200:
            return answer.body
        yield Pause(_when_to_ask_again(answer, patience))


def models(patience: Patience) -> Flow[Mapping[str, Any]]:
    """Return what the server tells of its model versions."""
    answer = yield from supported(exchange(Request("GET", "/models"), patience), "GET /models")
    return answer.json()


def capacity(patience: Patience) -> Flow[Mapping[str, Any]]:
    """Return how much work is open and how fast it is done."""
    answer = yield from supported(exchange(Request("GET", "/capacity"), patience), "GET /capacity")
    return answer.json()


def ready(patience: Patience) -> Flow[Mapping[str, Any]]:
    """Return the server's checks where a job that came now would be done; asks once.

    Raises:
        NotReady: with each reason.
    """
    return (yield from look_at("/readyz", patience)).json()


def look_at(path: str, patience: Patience) -> Flow[Answer]:
    """Return the whole answer to one GET, asked once."""
    return (yield from exchange(Request("GET", path, repeat=False), patience))


def job_in(answer: Answer) -> JobRecord:
    """Return the job that an answer holds.

    Raises:
        UnexpectedAnswer: if it holds none.
    """
    body = answer.json()
    try:
        return JobRecord.from_json(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise answer.unexpected("a job") from error


def _batch_in(answer: Answer) -> BatchRecord:
    body = answer.json()
    try:
        return BatchRecord.from_json(body)
    except (KeyError, TypeError, AttributeError) as error:
        raise answer.unexpected("a batch") from error


def _records_in(answer: Answer) -> list[JobRecord]:
    """Return the jobs of a page, one a line."""
    try:
        return [JobRecord.from_json(json.loads(line)) for line in answer.body.splitlines()]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise answer.unexpected("jobs, one a line,") from error


def job_path(job: JobRecord | str) -> str:
    """Return where a job is: its own link, or the contract's route where only its id or address is known.

    >>> job_path("http://127.0.0.1:5000/result/0192f0c4")
    '/result/0192f0c4'
    """
    if isinstance(job, JobRecord):
        return job.links.get("self") or job_path(job.id)
    job_id = job.split("?")[0].rstrip("/").rpartition("/")[2]
    return f"/result/{quote(job_id, safe='')}"


def supported(flow: Flow[T], what: str) -> Flow[T]:
    """Hold a conversation about a route that not every server has.

    Raises:
        NotSupported: if this one has not.
    """
    try:
        return (yield from flow)
    except (RouteNotFound, MethodNotAllowed) as error:
        raise NotSupported(
            f"Expected a server with {what}. This one has no such route: it is older, or set up without it.",
            error.problem,
        ) from error

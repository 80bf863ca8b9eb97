"""Every error as an answer of RFC 9457 problem+json; the table of them is in `shared/problems.py`."""

from collections.abc import Iterable
from typing import Any

import structlog
from flask import Flask, Response, json, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestedRangeNotSatisfiable

from api.context import context
from api.request_log import request_id
from shared.errors import HistoQueueError, NothingValid, QueueFull, Unavailable
from shared.problems import problem_body, problem_limits

CONTENT_TYPE = "application/problem+json"
_log = structlog.stdlib.get_logger("api.problems")


#: What Flask and the server report by status alone; any other 4xx is a malformed request.
_CODES = {
    401: "UNAUTHENTICATED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "REQUEST_TOO_LARGE",
    415: "UNSUPPORTED_IMAGE_FORMAT",
    503: "UNAVAILABLE",
}
#: What a 415 says is taken, in place of it.
_ACCEPTED = {
    "image": "image/jpeg, image/png, image/tiff, multipart/form-data",
    "batches": "multipart/form-data, application/zip, application/json",
}
_RETRY_AFTER_SECONDS = 5
#: Of a batch without a valid item, so many problems are told.
MOST_TOLD = 100


def init_problems(app: Flask) -> None:
    """Let every error of this application leave as a problem."""
    app.register_error_handler(HistoQueueError, _answer_ours)
    app.register_error_handler(HTTPException, _answer_http)
    app.register_error_handler(Exception, _answer_unexpected)


def problem(
    code: str, detail: str, instance: str, request_id: str | None, status: int | None = None, **members: Any
) -> dict[str, Any]:
    """Return a problem object; `instance` is a path below where the application is mounted."""
    limits = problem_limits(context().settings)
    given = {**({"limit": limits[code]} if code in limits else {}), **members}
    return problem_body(code, detail, instance, request_id, request.script_root, status, **given)


def item_problem(error: HistoQueueError, instance: str) -> dict[str, Any]:
    """Return why one item of a batch is no job."""
    return problem(error.code, error.detail, instance, request_id(), **_room(error))


def problem_answer(
    code: str,
    detail: str = "",
    *,
    status: int | None = None,
    retry_after_seconds: int | None = None,
    allow: Iterable[str] = (),
    **members: Any,
) -> Response:
    """Return the present request's answer for this code, by default with the status of its row."""
    body = problem(code, detail, request.path, request_id(), status, **members)
    answer = Response(json.dumps(body), status=body["status"], content_type=CONTENT_TYPE)
    answer.headers["Cache-Control"] = "no-store"
    if retry_after_seconds is None and body["status"] == 503:
        retry_after_seconds = _RETRY_AFTER_SECONDS
    if retry_after_seconds is not None:
        answer.headers["Retry-After"] = str(retry_after_seconds)
    if code == "UNSUPPORTED_IMAGE_FORMAT":
        answer.headers["Accept"] = _ACCEPTED["batches" if request.endpoint == "batches.submit" else "image"]
    if body["status"] == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    if allow:
        answer.headers["Allow"] = ", ".join(sorted(allow))
    return answer


def _answer_ours(error: HistoQueueError) -> Response:
    if isinstance(error, QueueFull):
        return problem_answer(
            error.code,
            error.detail,
            retry_after_seconds=error.retry_after_seconds,
            **_room(error),
        )
    if isinstance(error, NothingValid):
        problems = [
            {"custom_id": name, **item_problem(each, "/batches")} for name, each in error.problems[:MOST_TOLD]
        ]
        return problem_answer(error.code, error.detail, problems=problems)
    if isinstance(error, Unavailable):
        # The client is told that it is away; why, with every address, is for the log.
        _log.warning("unavailable", code=error.code, cause=str(error.__cause__))
        return problem_answer(error.code, error.detail, retry_after_seconds=error.retry_after_seconds)
    answer = problem_answer(error.code, error.detail)
    if answer.status_code >= 500:
        _log.error("operator_must_act", code=error.code, detail=error.detail)
    return answer


def _room(error: HistoQueueError) -> dict[str, Any]:
    """Return what a problem for want of room says of the queue."""
    return {"queue_depth": error.depth, "limit": error.limit} if isinstance(error, QueueFull) else {}


def _answer_http(error: HTTPException) -> Response:
    status = error.code or 500
    code = _CODES.get(status, "INVALID_REQUEST" if status < 500 else "INTERNAL")
    allow = error.valid_methods if isinstance(error, MethodNotAllowed) else None
    answer = problem_answer(code, status=status, allow=allow or ())
    if isinstance(error, RequestedRangeNotSatisfiable) and error.length is not None:
        answer.headers["Content-Range"] = f"{error.units} */{error.length}"
    return answer


def _answer_unexpected(error: Exception) -> Response:
    _log.error("unexpected_error", exc_info=error)
    return problem_answer("INTERNAL")

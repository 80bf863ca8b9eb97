"""Every request has an id, which its answer and all its log lines carry, and one log line of its own."""

import re
import time
import uuid

import structlog
from flask import Flask, Response, g, request

#: What is taken over from a caller: it goes into headers, log lines and the job's record.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
#: https://www.w3.org/TR/trace-context/: version, trace, parent, flags; a trace of zeros is none.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)
_PROBES = ("/healthz", "/readyz")
_log = structlog.stdlib.get_logger("api")


def init_request_log(app: Flask) -> None:
    """Name and log the requests of this application."""
    app.before_request(_begin)
    app.after_request(_end)


def request_id() -> str:
    """Return the id of the present request."""
    name: str = g.request_id
    return name


def seconds_taken() -> float:
    """Return how long ago the present request's head came in."""
    return time.monotonic() - float(g.began_at)


def _begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    trace = _TRACEPARENT.fullmatch(request.headers.get("traceparent", ""))
    # A caller that traces its requests finds this one, and its job in the worker's log, by the trace.
    fallback = trace[1] if trace else str(uuid.uuid4())
    g.request_id = given if REQUEST_ID.fullmatch(given) else fallback
    g.began_at = time.monotonic()
    # The thread has served another request before.
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)
    if trace and g.request_id != trace[1]:
        structlog.contextvars.bind_contextvars(trace_id=trace[1])


def _end(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.request_id
    # Probes come every few seconds for ever; a failing one is told by what fails.
    log = _log.debug if request.path in _PROBES else _log.info
    log(
        "request",
        method=request.method,
        # The rule and not the path: a path is the caller's text.
        route=request.url_rule.rule if request.url_rule else None,
        status=response.status_code,
        ms=round(seconds_taken() * 1000, 1),
    )
    return response

"""Every operation of the contract: what it takes, what it answers, and which problems it may have."""

from dataclasses import dataclass, field
from typing import Any

_JSON = "application/json"
_TEXT = {"type": "string"}
#: A version that is published.
MODEL_VERSION = {"type": "string", "format": "model-version"}
_EVENTS = {
    "type": "object",
    "properties": {"id": _TEXT, "data": {"type": "string", "description": "The job, as JSON."}},
}
_JOB = {"$ref": "#/components/schemas/Job"}
_DELIVERIES = {"$ref": "#/components/schemas/Deliveries"}
_WAIT = {
    "name": "wait",
    "in": "query",
    "description": "Seconds to hold the answer until the job is final; at most 30 count.",
    "schema": {"type": "number", "minimum": 0, "maximum": 999_999_999, "multipleOf": 0.001},
}
_PREFER = {"name": "Prefer", "in": "header", "description": "`wait=n` (RFC 7240)", "schema": _TEXT}
_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
}
_LEDGER = ("JOB_STORE_UNAVAILABLE", "LEDGER_REBUILDING")
_FIND = ("JOB_NOT_FOUND", "RESULT_EXPIRED", *_LEDGER)


def _header(schema: dict[str, Any]) -> dict[str, Any]:
    return {"schema": schema, "required": True}


def _answer(description: str, schema: dict[str, Any] | None, media_type: str = _JSON, **headers: Any) -> Any:
    content = {"content": {media_type: {"schema": schema}}} if schema else {}
    return {"description": description, "headers": headers, **content}


def _job(description: str, **headers: Any) -> Any:
    return _answer(description, _JOB, ETag=_header(_TEXT), **headers)


@dataclass(frozen=True)
class Operation:
    """One method of one path; `endpoint` is the view's name in the application."""

    method: str
    path: str
    endpoint: str
    summary: str
    answers: dict[str, Any]
    problems: tuple[str, ...] = ()
    parameters: tuple[dict[str, Any], ...] = ()
    body: dict[str, Any] = field(default_factory=dict)
    takes_options: bool = False
    #: Problems that are a 404 here, whatever they are elsewhere.
    not_found: tuple[str, ...] = ()


_IMAGES = {
    **{
        kind: {"schema": {"type": "string", "format": "binary"}}
        for kind in ("image/jpeg", "image/png", "image/tiff")
    },
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {"file": {"type": "string", "format": "binary"}},
            "required": ["file"],
            "additionalProperties": False,
        }
    },
}
_LOCATION = {"Location": _header(_TEXT)}
_SOON = {"Retry-After": _header({"type": "integer", "minimum": 1, "maximum": 30})}
_OBJECT = {"type": "object"}

OPERATIONS = (
    Operation(
        "post",
        "/predict",
        "jobs.predict",
        "Submit one image",
        {
            "202": _job("Stored, recorded and queued", **_LOCATION, **_SOON),
            "200": _job("Final by now", **_LOCATION),
        },
        (
            "INVALID_REQUEST",
            "REQUEST_TOO_LARGE",
            "IMAGE_TOO_LARGE",
            "UNSUPPORTED_IMAGE_FORMAT",
            "INVALID_IMAGE",
            "WEBHOOKS_OFF",
            "WEBHOOK_REFUSED",
            "UNKNOWN_MODEL_VERSION",
            "IDEMPOTENCY_KEY_REUSED",
            "RESULT_EXPIRED",
            "QUEUE_FULL",
            "QUOTA_REACHED",
            "JOB_STORE_FULL",
            "NO_MODEL",
            "INVALID_MODEL",
            *_LEDGER,
        ),
        (
            _PREFER,
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "The same key with the same request gives the same job.",
                "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
            },
        ),
        _IMAGES,
        takes_options=True,
    ),
    Operation(
        "get",
        "/result/{id}",
        "jobs.result",
        "Read a job",
        {
            "200": _job("Final", Expires=_header(_TEXT)),
            "202": _job("Queued or running", **_SOON),
            "304": _answer("Still the version of If-None-Match", None),
        },
        ("INVALID_REQUEST", *_FIND),
        (_ID, _WAIT, _PREFER, {"name": "If-None-Match", "in": "header", "schema": _TEXT}),
    ),
    Operation(
        "delete",
        "/result/{id}",
        "jobs.delete",
        "Forget a job, its image and its result",
        {"204": _answer("Forgotten", None)},
        ("JOB_NOT_FOUND", *_LEDGER),
        (_ID,),
    ),
    Operation(
        "get",
        "/result/{id}/events",
        "jobs.events",
        "Follow a job, as server-sent events",
        {
            "200": _answer("The job as it is, then each change", _EVENTS, "text/event-stream"),
            "204": _answer("Final, and that was told before", None),
        },
        _FIND,
        (_ID, {"name": "Last-Event-ID", "in": "header", "schema": _TEXT}),
    ),
    Operation(
        "get",
        "/result/{id}/heatmap.png",
        "jobs.heatmap",
        "See where the network looked",
        {
            "200": _answer("The heat map", {"type": "string", "format": "binary"}, "image/png"),
            "202": _job("Queued or running", **_SOON),
        },
        ("NO_HEATMAP", "OBJECT_STORE_UNAVAILABLE", *_FIND),
        (_ID,),
    ),
    Operation(
        "post",
        "/result/{id}/cancel",
        "jobs.cancel",
        "End a job for good",
        {"200": _job("It had not started"), "202": _job("It was running; its outcome is refused")},
        ("JOB_ALREADY_FINAL", *_FIND),
        (_ID,),
    ),
    Operation(
        "post",
        "/result/{id}/retry",
        "jobs.retry",
        "Queue a job that ended without a result once more",
        {"202": _job("Queued", **_LOCATION, **_SOON)},
        ("JOB_NOT_RETRYABLE", "QUEUE_FULL", "QUOTA_REACHED", *_FIND),
        (_ID,),
    ),
    Operation(
        "get",
        "/result/{id}/deliveries",
        "deliveries.show",
        "What became of telling the webhook",
        {"200": _answer("Each event of the job, oldest first", _DELIVERIES)},
        _FIND,
        (_ID,),
    ),
    Operation(
        "post",
        "/result/{id}/redeliver",
        "deliveries.redeliver",
        "Tell the webhook the newest event once more",
        {"202": _answer("It is on its way", _DELIVERIES)},
        ("NO_DELIVERY", *_FIND),
        (_ID,),
    ),
    Operation(
        "get",
        "/models",
        "models.versions",
        "List the published versions",
        {"200": _answer("Newest first", _OBJECT)},
        ("NO_MODEL", "INVALID_MODEL"),
    ),
    *(
        Operation(
            "get",
            path,
            endpoint,
            summary,
            {"200": answer},
            ("NO_MODEL", "INVALID_MODEL"),
            ({"name": "version", "in": "path", "required": True, "schema": MODEL_VERSION},),
            not_found=("UNKNOWN_MODEL_VERSION",),
        )
        for path, endpoint, summary, answer in (
            ("/models/{version}", "models.version", "Describe a version", _answer("The version", _OBJECT)),
            (
                "/models/{version}/card",
                "models.card",
                "Read its model card",
                _answer("Markdown", _TEXT, "text/markdown"),
            ),
        )
    ),
    Operation(
        "get",
        "/capacity",
        "capacity.capacity",
        "How much is open",
        {"200": _answer("Counts", _OBJECT)},
        _LEDGER,
    ),
    Operation(
        "get",
        "/metrics",
        "metrics.show",
        "What Prometheus reads",
        {"200": _answer("Metrics", _TEXT, "text/plain")},
    ),
    Operation("get", "/healthz", "health.live", "Does the process answer", {"200": _answer("Yes", _OBJECT)}),
    Operation(
        "get",
        "/readyz",
        "health.ready",
        "Would a job be done now",
        {"200": _answer("Yes", _OBJECT)},
        ("NOT_READY",),
    ),
    Operation("get", "/", "index.show", "Where to begin", {"200": _answer("Links", _OBJECT)}),
)

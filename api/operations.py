"""Every operation of the contract: what it takes, what it answers, and which problems it may have."""

from dataclasses import dataclass, field
from typing import Any

from api.batch_items import LONGEST_NAME
from api.batch_results import MEDIA_TYPES, MOST_RESULTS
from api.options import BatchOptions, Options

_JSON = "application/json"
_TEXT = {"type": "string"}
_BINARY = {"type": "string", "format": "binary"}
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
_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key with the same request gives the same job, or the same batch.",
    "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
}
_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "description": "Only where the job is still in this version, by its `ETag`.",
    "schema": _TEXT,
}
_LEDGER = ("JOB_STORE_UNAVAILABLE", "LEDGER_REBUILDING")
_FIND_BATCH = ("BATCH_NOT_FOUND", "RESULT_EXPIRED", *_LEDGER)
#: Of a submission whose content is sound.
_SUBMIT = (
    "IDEMPOTENCY_KEY_REUSED",
    "RESULT_EXPIRED",
    "QUEUE_FULL",
    "QUOTA_REACHED",
    "JOB_STORE_FULL",
    "NO_MODEL",
    "INVALID_MODEL",
    "UNAVAILABLE",
    *_LEDGER,
)
_FIND = ("JOB_NOT_FOUND", "RESULT_EXPIRED", *_LEDGER)


def _header(schema: dict[str, Any]) -> dict[str, Any]:
    return {"schema": schema, "required": True}


def _count(name: str, least: int, most: int, description: str) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": least, "maximum": most}
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _answer(description: str, schema: dict[str, Any] | None, media_type: str = _JSON, **headers: Any) -> Any:
    content = {"content": {media_type: {"schema": schema}}} if schema else {}
    return {"description": description, "headers": headers, **content}


def _job(description: str, **headers: Any) -> Any:
    return _answer(description, _JOB, ETag=_header(_TEXT), **headers)


def _final(description: str, **headers: Any) -> Any:
    return _job(description, Expires=_header(_TEXT), **headers)


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
    #: The options that it takes as query parameters.
    options: type[BatchOptions] | None = None
    #: Problems that are a 404 here, whatever they are elsewhere.
    not_found: tuple[str, ...] = ()


_IMAGES = {
    **{
        kind: {"schema": _BINARY}
        # The last one says nothing, and the content decides anyway.
        for kind in ("image/jpeg", "image/png", "image/tiff", "application/octet-stream")
    },
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {"file": _BINARY},
            "required": ["file"],
            "additionalProperties": False,
        }
    },
}
_KEY = {"type": "string", "format": "object-key"}
#: No length: one that is too long is a problem of its item, and not of the request.
_NAME = {"type": "string", "format": "printable", "description": f"1 to {LONGEST_NAME} printable characters."}
_MANY = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {
                "file": {
                    # Of several parts with one name, and of their names, a schema cannot speak.
                    "description": "A file; any number of parts have this name. Or one zip archive.",
                    "type": "string",
                    "format": "binary",
                }
            },
            "required": ["file"],
            "additionalProperties": False,
        }
    },
    "application/zip": {"schema": _BINARY},
    _JSON: {
        "schema": {
            "type": "object",
            "properties": {
                "keys": {
                    "type": "array",
                    "items": {
                        "anyOf": [
                            _KEY,
                            {
                                "type": "object",
                                "properties": {"key": _KEY, "custom_id": _NAME},
                                "required": ["key"],
                                "additionalProperties": False,
                            },
                        ]
                    },
                    "minItems": 1,
                    "uniqueItems": True,
                }
            },
            "required": ["keys"],
            "additionalProperties": False,
        }
    },
}
_BATCH_DELIVERIES = {"$ref": "#/components/schemas/BatchDeliveries"}
_BATCH = {"$ref": "#/components/schemas/Batch"}
_LOCATION = {"Location": _header(_TEXT)}
_SOON = {"Retry-After": _header({"type": "integer", "minimum": 1, "maximum": 30})}
_MET: dict[str, Any] = {"Preference-Applied": {"schema": _TEXT}}
_REPLAYED: dict[str, Any] = {"Idempotency-Replayed": {"schema": {"type": "string", "enum": ["true"]}}}
#: While the batch, or the job, is open.
_WHILE_OPEN: dict[str, Any] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1, "maximum": 30}}}
_UNCHANGED = _answer(
    "Still the version of If-None-Match", None, ETag=_header(_TEXT), Expires={"schema": _TEXT}, **_WHILE_OPEN
)
_OBJECT = {"type": "object"}

OPERATIONS = (
    Operation(
        "post",
        "/predict",
        "jobs.predict",
        "Submit one image",
        {
            "202": _job("Stored, recorded and queued", **_LOCATION, **_SOON, **_REPLAYED),
            "200": _final("Final by now", **_LOCATION, **_MET, **_REPLAYED),
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
            *_SUBMIT,
        ),
        (
            _PREFER,
            _IDEMPOTENCY,
        ),
        _IMAGES,
        options=Options,
    ),
    Operation(
        "get",
        "/result/{id}",
        "jobs.result",
        "Read a job",
        {
            "200": _final("Final", **_MET),
            "202": _job("Queued or running", **_SOON),
            "304": _UNCHANGED,
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
        ("JOB_NOT_FOUND", "JOB_CHANGED", *_LEDGER),
        (_ID, _IF_MATCH),
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
            "200": _answer("The heat map", _BINARY, "image/png", ETag=_header(_TEXT), Expires=_header(_TEXT)),
            "202": _job("Queued or running", **_SOON),
            "304": _UNCHANGED,
        },
        ("NO_HEATMAP", "OBJECT_STORE_UNAVAILABLE", *_FIND),
        (_ID, {"name": "If-None-Match", "in": "header", "schema": _TEXT}),
    ),
    Operation(
        "post",
        "/result/{id}/cancel",
        "jobs.cancel",
        "End a job for good",
        {"200": _final("It had not started"), "202": _final("It was running; its outcome is refused")},
        ("JOB_ALREADY_FINAL", "JOB_CHANGED", *_FIND),
        (_ID, _IF_MATCH),
    ),
    Operation(
        "post",
        "/result/{id}/retry",
        "jobs.retry",
        "Queue a job that ended without a result once more",
        {"202": _job("Queued", **_LOCATION, **_SOON)},
        ("JOB_NOT_RETRYABLE", "JOB_CHANGED", "QUEUE_FULL", "QUOTA_REACHED", *_FIND),
        (_ID, _IF_MATCH),
    ),
    Operation(
        "post",
        "/batches",
        "batches.submit",
        "Submit many images",
        {
            "202": _answer(
                "What could be accepted is",
                {"$ref": "#/components/schemas/SubmittedBatch"},
                Location=_header(_TEXT),
                **_WHILE_OPEN,
                **_REPLAYED,
            )
        },
        (
            "INVALID_REQUEST",
            "WEBHOOKS_OFF",
            "WEBHOOK_REFUSED",
            "BATCH_TOO_LARGE",
            "UNSUPPORTED_IMAGE_FORMAT",
            "UNKNOWN_MODEL_VERSION",
            "NOTHING_VALID",
            "CUSTOM_ID_REPEATED",
            *_SUBMIT,
        ),
        (_IDEMPOTENCY,),
        _MANY,
        options=BatchOptions,
    ),
    Operation(
        "get",
        "/batches/{id}",
        "batches.show",
        "Count a batch's jobs by status and by reason",
        {"200": _answer("The batch", _BATCH, **_WHILE_OPEN)},
        _FIND_BATCH,
        (_ID,),
    ),
    Operation(
        "get",
        "/batches/{id}/results",
        "batches.results",
        "Read what has ended so far",
        {
            "200": {
                "description": "One line, row or feature for each job that ended since the cursor",
                "headers": {"X-Next-Cursor": _header(_TEXT), "Link": {"schema": _TEXT}, **_WHILE_OPEN},
                "content": {
                    kind.partition(";")[0]: {"schema": _OBJECT if "json" in kind else _TEXT}
                    for kind in MEDIA_TYPES.values()
                },
            }
        },
        ("INVALID_REQUEST", *_FIND_BATCH),
        (
            _ID,
            _count("cursor", 0, 2**53, "Where the last page ended, by its `X-Next-Cursor`."),
            _count("limit", 1, MOST_RESULTS, "Jobs in one page."),
            {"name": "format", "in": "query", "schema": {"type": "string", "enum": list(MEDIA_TYPES)}},
        ),
    ),
    *(
        Operation(
            "post",
            f"/batches/{{id}}/{verb}",
            f"batches.{verb}",
            summary,
            {
                "202": _answer(
                    "How many there were, and how many are left to another request",
                    {"$ref": f"#/components/schemas/{schema}"},
                    **_WHILE_OPEN,
                )
            },
            _FIND_BATCH,
            (_ID,),
        )
        for verb, summary, schema in (
            ("cancel", "End every open job of a batch for good", "CanceledBatch"),
            ("retry", "Queue what failed or expired once more", "RetriedBatch"),
        )
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
        "/batches/{id}/deliveries",
        "deliveries.show_batch",
        "What became of telling a batch's webhook",
        {"200": _answer("Each time that the batch was completed, oldest first", _BATCH_DELIVERIES)},
        _FIND_BATCH,
        (_ID,),
    ),
    Operation(
        "post",
        "/batches/{id}/redeliver",
        "deliveries.redeliver_batch",
        "Tell the webhook once more that the batch is completed",
        {"202": _answer("It is on its way", _BATCH_DELIVERIES)},
        ("NO_DELIVERY", *_FIND_BATCH),
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
    Operation(
        "get", "/", "web.index", "Where to begin", {"200": _answer("Links", _OBJECT, Vary=_header(_TEXT))}
    ),
)

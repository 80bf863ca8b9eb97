"""Routes: the contract for machines, /openapi.json, the page that shows it, /docs, and that of all problems.

The document is written from what the server itself uses: the options of a submission and the table of
problems; a test compares it with the routes.
"""

from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from flask import Blueprint, Response, jsonify, request, send_from_directory, url_for
from pydantic.json_schema import models_json_schema

from api.access import PUBLIC, SCOPES
from api.contract import SCHEMAS
from api.operations import MODEL_VERSION, OPERATIONS, Operation
from api.problems import CONTENT_TYPE
from shared.problems import PROBLEMS, anchor
from shared.representation import NOTICE
from shared.schemas import Priority

bp = Blueprint("openapi", __name__)
_NUMBER = {"type": "integer"}
#: What some problems say beside the members that all have: a schema, and the codes that have it.
_MEMBERS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "limit": (
        _NUMBER,
        {"REQUEST_TOO_LARGE", "IMAGE_TOO_LARGE", "QUEUE_FULL", "QUOTA_REACHED", "RATE_LIMITED"},
    ),
    "queue_depth": (_NUMBER, {"QUEUE_FULL", "QUOTA_REACHED"}),
    "problems": (
        {"type": "array", "items": {"$ref": "#/components/schemas/ItemProblem"}},
        {"NOTHING_VALID"},
    ),
    "reasons": ({"type": "array", "items": {"type": "string"}}, {"NOT_READY"}),
    "checks": ({"type": "object", "additionalProperties": {"type": "string"}}, {"NOT_READY"}),
}
_FORM = "multipart/form-data"
_ASSETS = str(files("flask_openapi3_swagger") / "templates" / "swagger")
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>HistoQueue</title>
<link rel="stylesheet" href="{style}"></head><body><div id="swagger-ui"></div>
<script src="{bundle}"></script><script src="{start}"></script></body></html>
"""
_ERRORS = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>HistoQueue: errors</title></head><body>
<h1>Errors</h1><p>What the codes of <a href="{docs}">the contract</a> mean. {notice}</p>
{problems}</body></html>
"""
_ERROR = """<h2 id="{anchor}">{title}</h2>
<p><code>{code}</code>, status {status}, {retry}. {advice}</p>
"""
_START = 'SwaggerUIBundle({{url: "{document}", dom_id: "#swagger-ui", validatorUrl: null}});\n'


@bp.get("/openapi.json")
def document() -> Response:
    """Return the contract as OpenAPI 3.1; its paths lie below where the application is mounted."""
    return jsonify({**openapi_document(), "servers": [{"url": request.script_root or "/"}]})


@bp.get("/docs")
def docs() -> Response:
    """Show the contract; every asset comes from this server."""
    page = _PAGE.format(
        style=url_for("openapi.asset", name="css/swagger-ui.css"),
        bundle=url_for("openapi.asset", name="js/swagger-ui-bundle.js"),
        start=url_for("openapi.asset", name="start.js"),
    )
    return Response(page, content_type="text/html; charset=utf-8")


@bp.get("/docs/errors")
def errors() -> Response:
    """Explain every code; the `type` of a problem leads to its heading."""
    problems = [
        _ERROR.format(
            anchor=anchor(code),
            title=escape(kind.title),
            code=code,
            status=kind.status,
            retry="may succeed later" if kind.retryable else "will not succeed as it is",
            advice=escape(kind.advice),
        )
        for code, kind in sorted(PROBLEMS.items())
    ]
    page = _ERRORS.format(docs=url_for("openapi.docs"), notice=NOTICE, problems="".join(problems))
    return Response(page, content_type="text/html; charset=utf-8")


@bp.get("/docs/<path:name>")
def asset(name: str) -> Response:
    """Return a script or a style of that page."""
    if name == "start.js":
        script = _START.format(document=url_for("openapi.document"))
        return Response(script, content_type="text/javascript; charset=utf-8")
    return send_from_directory(_ASSETS, name)


@cache
def openapi_document() -> dict[str, Any]:
    """Return the whole document."""
    _, schemas = models_json_schema(
        [(model, "serialization") for model in SCHEMAS], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "HistoQueue", "version": "1", "description": NOTICE},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    needs_key = operation.endpoint not in PUBLIC
    codes = [*operation.problems, "INTERNAL"]
    if needs_key:
        codes += ["UNAUTHENTICATED", "FORBIDDEN", "RATE_LIMITED", "OBJECT_STORE_UNAVAILABLE"]
    described: dict[str, Any] = {
        "operationId": operation.endpoint,
        "summary": operation.summary,
        "parameters": [*operation.parameters, *_options(operation)],
        "responses": {**operation.answers, **_problems(codes, operation.not_found)},
        "security": [{"bearer": []}, {"header": []}] if needs_key else [],
    }
    if needs_key:
        described["description"] = (
            f"Needs a key with the scope `{SCOPES[operation.endpoint]}` where there are keys."
        )
    if operation.body:
        described["requestBody"] = {"required": True, "content": _content(operation)}
    return described


def _content(operation: Operation) -> dict[str, Any]:
    """Return what the body may be: a form may hold the options, too."""
    form = operation.body.get(_FORM)
    if form is None:
        return operation.body
    fields = {option["name"]: option["schema"] for option in _options(operation)}
    schema = form["schema"]
    described = {**schema, "properties": {**schema["properties"], **fields}}
    return {**operation.body, _FORM: {"schema": described}}


def _options(operation: Operation) -> list[dict[str, Any]]:
    if operation.options is None:
        return []
    schema = operation.options.model_json_schema()["properties"]
    return [
        {
            "name": name,
            "in": "query",
            "description": item.get("description", ""),
            "schema": _schema(name, item),
        }
        for name, item in schema.items()
    ]


def _schema(name: str, item: dict[str, Any]) -> dict[str, Any]:
    """Return an option's schema: one that is left out has its default, and its text is never null."""
    if name == "model_version":
        return MODEL_VERSION
    if name == "priority":
        return {"type": "string", "enum": [priority.value for priority in Priority]}
    (kept,) = [choice for choice in item.get("anyOf", [item]) if choice.get("type") != "null"]
    # What a pattern cannot say: printable in any alphabet; a URL that something may be sent to.
    formats = {"custom_id": "printable", "webhook_url": "webhook-url"}
    return {**kept, "format": formats[name]} if name in formats else dict(kept)


def _problems(codes: list[str], not_found: tuple[str, ...]) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {404: list(not_found)} if not_found else {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    return {str(status): _problem(status, found) for status, found in sorted(by_status.items())}


def _problem(status: int, codes: list[str]) -> dict[str, Any]:
    headers = (
        {"Retry-After": {"schema": {"type": "integer"}, "required": True}} if status in (429, 503) else {}
    )
    if status in (401, 415):
        name = "WWW-Authenticate" if status == 401 else "Accept"
        headers = {name: {"schema": {"type": "string"}, "required": True}}
    members = {name: schema for name, (schema, having) in _MEMBERS.items() if having & set(codes)}
    schema = {
        "allOf": [
            {"$ref": "#/components/schemas/Problem"},
            {"properties": {"code": {"enum": codes}, "status": {"const": status}, **members}},
        ]
    }
    return {
        "description": " ".join(f"`{code}`: {PROBLEMS[code].title}." for code in codes),
        "headers": headers,
        "content": {CONTENT_TYPE: {"schema": schema}},
    }

"""Every status that /openapi.json states is given by this server, with the headers that it states for it.

One row an answer. A status that is stated and has no row here, or a row that is not stated, fails.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from api import create_app
from api.access import SCOPES
from api.context import context
from api.openapi import openapi_document
from shared.api_keys import KeyStore, Scope
from shared.errors import ObjectStoreUnavailable
from shared.object_store_memory import MemoryObjectStore
from shared.representation import NOTICE
from shared.schemas import JobError
from shared.services import Services
from shared.worker_registry import MemoryWorkerRegistry
from tests.factories import jpeg_bytes, png_bytes, truncated, zip_bytes
from tests.unit.api.test_models import publish_with_card
from tests.work import Clock, claim, fail, succeed

DOCUMENT = openapi_document()
UNKNOWN = "00000000-0000-4000-8000-000000000000"
#: Headers that are on every answer, say how a body is written, or are for what lies in between.
ALIKE = {
    *("Content-Type", "Content-Length", "Cache-Control", "X-Request-Id", "X-HistoQueue-Notice"),
    *("X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy", "Content-Security-Policy"),
    *("Cross-Origin-Resource-Policy", "X-Accel-Buffering"),
}
#: Whose results are for research alone; what a webhook was told holds none.
ABOUT_JOBS = ("/predict", "/result", "/batches")
#: Answered alike by every route that needs a key.
BY_ACCESS = ("401", "403", "429", "503")


@dataclass
class World:
    """A server, its ledger and its clock, and somebody with a key."""

    app: Flask
    services: Services
    clock: Clock
    key: str
    folder: Path

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Send a request with the key."""
        headers = {"X-API-Key": self.key, **options.pop("headers", {})}
        return self.app.test_client().open(path, method=method, headers=headers, **options)

    def submit(self, body: bytes | None = None, query: str = "", **options: Any) -> Any:
        """Send a tile."""
        options.setdefault("content_type", "image/jpeg")
        data = jpeg_bytes() if body is None else body
        return self.ask("POST", f"/predict{query}", data=data, **options)

    def open_job(self, query: str = "") -> str:
        """Return the path of a queued job."""
        return str(self.submit(query=f"?cache=false{query}").headers["Location"])

    def running_job(self) -> str:
        """Return the path of a job that a worker is at."""
        path = self.open_job()
        assert claim(self.services.jobs, path.rpartition("/")[2])
        return path

    def ended_job(self, query: str = "") -> str:
        """Return the path of a job that has succeeded."""
        path = self.open_job(query)
        job = claim(self.services.jobs, path.rpartition("/")[2])
        assert job is not None
        assert succeed(self.services.jobs, job.id, {"class": "lung_n"}, answer_key=job.spec.answer_key)
        return path

    def failed_job(self) -> str:
        """Return the path of a job that has failed."""
        path = self.running_job()
        error = JobError(code="INVALID_IMAGE", detail="broken")
        assert fail(self.services.jobs, path.rpartition("/")[2], error)
        return path

    def deleted_job(self) -> str:
        """Return the path of a job that is gone."""
        path = self.open_job()
        assert self.ask("DELETE", path).status_code == 204
        return path

    def submit_batch(self, body: bytes | None = None, query: str = "", **options: Any) -> Any:
        """Send an archive of one tile."""
        options.setdefault("content_type", "application/zip")
        data = zip_bytes({"a.jpg": jpeg_bytes()}) if body is None else body
        return self.ask("POST", f"/batches{query}", data=data, **options)

    def batch(self) -> str:
        """Return the path of a batch whose one job is queued."""
        return str(self.submit_batch().headers["Location"])

    def expired_batch(self) -> str:
        """Return the path of a batch past its retention."""
        path = self.batch()
        self.ask("POST", f"{path}/cancel")
        self.clock.advance(8 * 86_400)
        return path


@pytest.fixture
def world(app: Flask, services: Services, clock: Clock, tmp_path: Path) -> World:
    text = KeyStore(services.objects).create("somebody", frozenset(Scope))[1]
    context(app).keys.refresh()
    return World(app, services, clock, text, tmp_path)


def with_heatmap(world: World) -> Any:
    path = world.ended_job("&explain=true")
    world.services.objects.put(f"heatmaps/{path[8:10]}/{path[8:]}.png", png_bytes(), "image/png")
    return world.ask("GET", f"{path}/heatmap.png")


def a_key_used_twice(world: World) -> Any:
    headers = {"Idempotency-Key": "k"}
    world.submit(headers=headers)
    return world.submit(jpeg_bytes(seed=1), headers=headers)


def a_key_whose_job_is_gone(world: World) -> Any:
    headers = {"Idempotency-Key": "k"}
    path = world.submit(headers=headers).headers["Location"]
    world.ask("DELETE", path)
    return world.submit(headers=headers)


def a_full_queue(world: World) -> Any:
    return [world.submit(jpeg_bytes(seed=seed)) for seed in range(6)][-1]


def told_before(world: World) -> Any:
    path = world.ended_job()
    return world.ask("GET", f"{path}/events", headers={"Last-Event-ID": "3"})


def unchanged(world: World) -> Any:
    path = world.ended_job()
    return world.ask("GET", path, headers={"If-None-Match": world.ask("GET", path).headers["ETag"]})


def with_heatmap_unchanged(world: World) -> Any:
    known = with_heatmap(world)
    return world.ask("GET", known.request.path, headers={"If-None-Match": known.headers["ETag"]})


def a_full_queue_and_a_retry(world: World) -> Any:
    path = world.failed_job()
    a_full_queue(world)
    return world.ask("POST", f"{path}/retry")


def a_version(world: World, path: str) -> Any:
    publish_with_card(world.services, world.folder / "new", b"# Card\n")
    return world.ask("GET", path)


def a_known_answer(world: World) -> Any:
    world.ended_job()
    return (
        create_app(world.services, context(world.app).settings.model_copy(update={"cache_answers": True}))
        .test_client()
        .post("/predict", data=jpeg_bytes(), content_type="image/jpeg", headers={"X-API-Key": world.key})
    )


def a_key_whose_batch_is_gone(world: World) -> Any:
    headers = {"Idempotency-Key": "k"}
    path = world.submit_batch(headers=headers).headers["Location"]
    world.ask("POST", f"{path}/cancel")
    world.clock.advance(8 * 86_400)
    return world.submit_batch(headers=headers)


def a_full_queue_and_a_batch(world: World) -> Any:
    a_full_queue(world)
    return world.submit_batch()


def told_once_more(world: World) -> Any:
    path = world.ended_job("&webhook_url=https://receiver.example.org/")
    return world.ask("POST", f"{path}/redeliver")


def a_told_batch(world: World) -> str:
    path = str(world.submit_batch(query="?webhook_url=https://receiver.example.org/").headers["Location"])
    world.ask("POST", f"{path}/cancel")
    return path


def nobody_works(world: World) -> Any:
    bare = replace(world.services, workers=MemoryWorkerRegistry())
    return create_app(bare, context(world.app).settings).test_client().get("/readyz")


def in_another_version(world: World, method: str, what: str = "") -> Any:
    return world.ask(method, world.failed_job() + what, headers={"If-Match": 'W/"another"'})


#: Method, path, status.
Row = tuple[str, str, str]
Scenario = Callable[[World], Any]
_JOB = "/result/{id}"
_NONE = f"/result/{UNKNOWN}"
_BATCH = "/batches/{id}"
_NO_BATCH = f"/batches/{UNKNOWN}"
ROWS: dict[Row, Scenario] = {
    ("post", "/predict", "202"): lambda world: world.submit(),
    ("post", "/predict", "200"): a_known_answer,
    ("post", "/predict", "400"): lambda world: world.submit(query="?mpp=far"),
    ("post", "/predict", "410"): a_key_whose_job_is_gone,
    ("post", "/predict", "413"): lambda world: world.submit(b"\xff\xd8\xff" + bytes(400_000)),
    ("post", "/predict", "415"): lambda world: world.submit(b"GIF89a"),
    ("post", "/predict", "422"): lambda world: world.submit(truncated(jpeg_bytes())),
    ("post", "/predict", "429"): a_full_queue,
    ("get", _JOB, "200"): lambda world: world.ask("GET", world.ended_job()),
    ("get", _JOB, "202"): lambda world: world.ask("GET", world.open_job()),
    ("get", _JOB, "304"): unchanged,
    ("get", _JOB, "400"): lambda world: world.ask("GET", f"{world.open_job()}?wait=long"),
    ("get", _JOB, "404"): lambda world: world.ask("GET", _NONE),
    ("get", _JOB, "410"): lambda world: world.ask("GET", world.deleted_job()),
    ("delete", _JOB, "204"): lambda world: world.ask("DELETE", world.open_job()),
    ("delete", _JOB, "412"): lambda world: in_another_version(world, "DELETE"),
    ("delete", _JOB, "404"): lambda world: world.ask("DELETE", _NONE),
    ("get", f"{_JOB}/events", "200"): lambda world: world.ask("GET", f"{world.ended_job()}/events"),
    ("get", f"{_JOB}/events", "204"): told_before,
    ("get", f"{_JOB}/events", "404"): lambda world: world.ask("GET", f"{_NONE}/events"),
    ("get", f"{_JOB}/events", "410"): lambda world: world.ask("GET", f"{world.deleted_job()}/events"),
    ("get", f"{_JOB}/heatmap.png", "200"): with_heatmap,
    ("get", f"{_JOB}/heatmap.png", "202"): lambda world: world.ask(
        "GET", f"{world.open_job('&explain=true')}/heatmap.png"
    ),
    ("get", f"{_JOB}/heatmap.png", "304"): with_heatmap_unchanged,
    ("get", f"{_JOB}/heatmap.png", "404"): lambda world: world.ask("GET", f"{world.ended_job()}/heatmap.png"),
    ("get", f"{_JOB}/heatmap.png", "410"): lambda world: world.ask(
        "GET", f"{world.deleted_job()}/heatmap.png"
    ),
    ("post", f"{_JOB}/cancel", "200"): lambda world: world.ask("POST", f"{world.open_job()}/cancel"),
    ("post", f"{_JOB}/cancel", "202"): lambda world: world.ask("POST", f"{world.running_job()}/cancel"),
    ("post", f"{_JOB}/cancel", "404"): lambda world: world.ask("POST", f"{_NONE}/cancel"),
    ("post", f"{_JOB}/cancel", "409"): lambda world: world.ask("POST", f"{world.ended_job()}/cancel"),
    ("post", f"{_JOB}/cancel", "412"): lambda world: in_another_version(world, "POST", "/cancel"),
    ("post", f"{_JOB}/cancel", "410"): lambda world: world.ask("POST", f"{world.deleted_job()}/cancel"),
    ("post", f"{_JOB}/retry", "202"): lambda world: world.ask("POST", f"{world.failed_job()}/retry"),
    ("post", f"{_JOB}/retry", "404"): lambda world: world.ask("POST", f"{_NONE}/retry"),
    ("post", f"{_JOB}/retry", "409"): lambda world: world.ask("POST", f"{world.ended_job()}/retry"),
    ("post", f"{_JOB}/retry", "412"): lambda world: in_another_version(world, "POST", "/retry"),
    ("post", f"{_JOB}/retry", "410"): lambda world: world.ask("POST", f"{world.deleted_job()}/retry"),
    ("post", f"{_JOB}/retry", "429"): a_full_queue_and_a_retry,
    ("get", f"{_JOB}/deliveries", "200"): lambda world: world.ask("GET", f"{world.ended_job()}/deliveries"),
    ("get", f"{_JOB}/deliveries", "404"): lambda world: world.ask("GET", f"{_NONE}/deliveries"),
    ("get", f"{_JOB}/deliveries", "410"): lambda world: world.ask("GET", f"{world.deleted_job()}/deliveries"),
    ("post", f"{_JOB}/redeliver", "202"): told_once_more,
    ("post", f"{_JOB}/redeliver", "404"): lambda world: world.ask("POST", f"{_NONE}/redeliver"),
    ("post", f"{_JOB}/redeliver", "409"): lambda world: world.ask("POST", f"{world.ended_job()}/redeliver"),
    ("post", f"{_JOB}/redeliver", "410"): lambda world: world.ask("POST", f"{world.deleted_job()}/redeliver"),
    ("post", "/batches", "202"): lambda world: world.submit_batch(),
    ("post", "/batches", "400"): lambda world: world.submit_batch(query="?mpp=far"),
    ("post", "/batches", "410"): a_key_whose_batch_is_gone,
    ("post", "/batches", "413"): lambda world: world.submit_batch(
        b'{"keys": ["%s"]}' % (b"x" * 3_000_000), content_type="application/json"
    ),
    ("post", "/batches", "415"): lambda world: world.submit_batch(content_type="text/plain"),
    ("post", "/batches", "422"): lambda world: world.submit_batch(zip_bytes({"a.png": b"text"})),
    ("post", "/batches", "429"): a_full_queue_and_a_batch,
    ("get", _BATCH, "200"): lambda world: world.ask("GET", world.batch()),
    ("get", _BATCH, "404"): lambda world: world.ask("GET", _NO_BATCH),
    ("get", _BATCH, "410"): lambda world: world.ask("GET", world.expired_batch()),
    ("get", f"{_BATCH}/results", "200"): lambda world: world.ask("GET", f"{world.batch()}/results"),
    ("get", f"{_BATCH}/results", "400"): lambda world: world.ask("GET", f"{world.batch()}/results?limit=x"),
    ("get", f"{_BATCH}/results", "404"): lambda world: world.ask("GET", f"{_NO_BATCH}/results"),
    ("get", f"{_BATCH}/results", "410"): lambda world: world.ask("GET", f"{world.expired_batch()}/results"),
    ("post", f"{_BATCH}/cancel", "202"): lambda world: world.ask("POST", f"{world.batch()}/cancel"),
    ("post", f"{_BATCH}/cancel", "404"): lambda world: world.ask("POST", f"{_NO_BATCH}/cancel"),
    ("post", f"{_BATCH}/cancel", "410"): lambda world: world.ask("POST", f"{world.expired_batch()}/cancel"),
    ("get", f"{_BATCH}/deliveries", "200"): lambda world: world.ask(
        "GET", f"{a_told_batch(world)}/deliveries"
    ),
    ("get", f"{_BATCH}/deliveries", "404"): lambda world: world.ask("GET", f"{_NO_BATCH}/deliveries"),
    ("get", f"{_BATCH}/deliveries", "410"): lambda world: world.ask(
        "GET", f"{world.expired_batch()}/deliveries"
    ),
    ("post", f"{_BATCH}/redeliver", "202"): lambda world: world.ask(
        "POST", f"{a_told_batch(world)}/redeliver"
    ),
    ("post", f"{_BATCH}/redeliver", "404"): lambda world: world.ask("POST", f"{_NO_BATCH}/redeliver"),
    ("post", f"{_BATCH}/redeliver", "409"): lambda world: world.ask("POST", f"{world.batch()}/redeliver"),
    ("post", f"{_BATCH}/redeliver", "410"): lambda world: world.ask(
        "POST", f"{world.expired_batch()}/redeliver"
    ),
    ("post", f"{_BATCH}/retry", "202"): lambda world: world.ask("POST", f"{world.batch()}/retry"),
    ("post", f"{_BATCH}/retry", "404"): lambda world: world.ask("POST", f"{_NO_BATCH}/retry"),
    ("post", f"{_BATCH}/retry", "410"): lambda world: world.ask("POST", f"{world.expired_batch()}/retry"),
    ("get", "/models", "200"): lambda world: world.ask("GET", "/models"),
    ("get", "/models/{version}", "200"): lambda world: world.ask("GET", "/models/1.0.0"),
    ("get", "/models/{version}", "404"): lambda world: world.ask("GET", "/models/9.9.9"),
    ("get", "/models/{version}/card", "200"): lambda world: a_version(world, "/models/1.1.0/card"),
    ("get", "/models/{version}/card", "404"): lambda world: world.ask("GET", "/models/1.0.0/card"),
    ("get", "/capacity", "200"): lambda world: world.ask("GET", "/capacity"),
    ("get", "/metrics", "200"): lambda world: world.ask("GET", "/metrics"),
    ("get", "/healthz", "200"): lambda world: world.ask("GET", "/healthz"),
    ("get", "/readyz", "200"): lambda world: world.ask("GET", "/readyz"),
    ("get", "/readyz", "503"): nobody_works,
    ("get", "/", "200"): lambda world: world.ask("GET", "/"),
}


def stated() -> list[Row]:
    """Return every method, path and status of the document."""
    return [
        (method, path, status)
        for path, operations in DOCUMENT["paths"].items()
        for method, operation in operations.items()
        for status in operation["responses"]
    ]


def needs_key(method: str, path: str) -> bool:
    return bool(DOCUMENT["paths"][path][method]["security"])


def check(answer: Any, row: Row) -> None:
    """Hold an answer to what the document states for it."""
    method, path, status = row
    wanted = DOCUMENT["paths"][path][method]["responses"][status]
    assert str(answer.status_code) == status, answer.get_data(as_text=True)
    missing = [name for name, header in wanted["headers"].items() if header.get("required")]
    assert [name for name in missing if name not in answer.headers] == []
    assert set(answer.headers.keys()) - ALIKE <= wanted["headers"].keys()
    if status in ("200", "202", "304") and path.startswith(ABOUT_JOBS) and "deliver" not in path:
        assert answer.headers["X-HistoQueue-Notice"] == NOTICE
    if "content" not in wanted:
        # What has no content has no type either.
        assert "Content-Type" not in answer.headers
        return
    content = wanted["content"]
    assert answer.mimetype in content
    members = members_of(content[answer.mimetype].get("schema", {}))
    assert not (answer.is_json and members) or answer.get_json().keys() <= members
    if answer.mimetype == "application/problem+json":
        assert answer.headers["Cache-Control"] == "no-store"
        codes = wanted["content"][answer.mimetype]["schema"]["allOf"][1]["properties"]["code"]["enum"]
        assert answer.get_json()["code"] in codes


def members_of(schema: dict[str, Any]) -> set[str]:
    """Return what an object of this schema may have; nothing where that is left open."""
    if "$ref" in schema:
        return members_of(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    return set(schema.get("properties", ())).union(*map(members_of, schema.get("allOf", ())))


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_an_answer_of_a_route_is_given_as_stated(world: World, row: Row) -> None:
    """Status, headers, type, members, and for a problem its code."""
    with ROWS[row](world) as answer:
        check(answer, row)


def test_every_answer_that_is_stated_has_a_row() -> None:
    """What every route answers alike is tried below."""
    alike = {row for row in stated() if row[2] == "500" or (row[2] in BY_ACCESS and needs_key(*row[:2]))}
    assert set(stated()) - alike <= set(ROWS) <= set(stated())


@pytest.mark.parametrize("row", [row for row in stated() if row[2] == "500"], ids=" ".join)
def test_a_bug_is_a_problem_too(world: World, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 without a word of what broke."""

    def broken(**_: Any) -> None:
        raise RuntimeError("at 10.0.0.1")

    method, path, _ = row
    name = DOCUMENT["paths"][path][method]["operationId"]
    monkeypatch.setitem(world.app.view_functions, name, broken)
    answer = world.ask(method.upper(), filled(path))
    check(answer, row)
    assert "10.0.0.1" not in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    "row", [row for row in stated() if row[2] in BY_ACCESS and needs_key(*row[:2])], ids=" ".join
)
def test_who_may_not_is_told_alike_everywhere(world: World, row: Row) -> None:
    """Without a key, with one for something else, too often, and while nobody can say who may."""
    method, path, status = row
    name = DOCUMENT["paths"][path][method]["operationId"]
    settings, store = context(world.app).settings, KeyStore(world.services.objects)
    other = store.create("other", frozenset(Scope) - {SCOPES[name], Scope.ADMIN})[1]
    app = create_app(world.services, settings.model_copy(update={"max_requests_per_minute": 1}))
    if status == "503":
        app = create_app(replace(world.services, objects=AwayStore()), settings)
    keys = {"401": [None], "403": [other], "429": [world.key, world.key], "503": [world.key]}
    for key in keys[status]:
        headers = {"X-API-Key": key} if key else {}
        answer = app.test_client().open(filled(path), method=method.upper(), headers=headers)
    check(answer, row)


def filled(path: str) -> str:
    return path.replace("{id}", UNKNOWN).replace("{version}", "1.0.0")


class AwayStore(MemoryObjectStore):
    """An object store that answers nobody."""

    def list_keys(self, prefix: str) -> list[str]:
        """Fail."""
        raise ObjectStoreUnavailable("The object store does not answer.")

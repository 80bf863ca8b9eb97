"""Many images in one request: each is a job of its own, and what cannot be one says why."""

import io
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api import create_app
from shared.api_keys import KeyStore, Scope
from shared.batch_archive import BATCHES, WHOLE, BatchArchive, BegunBatch
from shared.errors import JobStoreUnavailable, ObjectStoreUnavailable
from shared.schemas import JobError, Priority, new_job_id
from shared.services import Services
from shared.settings import Settings
from tests.factories import jpeg_bytes, png_bytes, truncated
from tests.unit.api.batches.conftest import TILES, Finish, codes, send_files
from tests.work import Clock, claim, fail, succeed


def test_an_open_batch_says_when_to_ask_again(
    client: FlaskClient, finish: Finish, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From how fast its members have ended; a completed one, and a page behind which more lies, do not."""
    monkeypatch.setattr("api.batches.wall_clock_ms", clock)
    accepted = send_files(client, TILES)
    where = accepted.headers["Location"]
    assert accepted.headers["Retry-After"] == "1"
    clock.advance(12)
    assert client.get(where).headers["Retry-After"] == "12"
    finish(accepted.json["items"][0]["id"])
    assert client.get(where).headers["Retry-After"] == "24"
    assert client.get(f"{where}/results").headers["Retry-After"] == "24"
    finish(accepted.json["items"][1]["id"])
    assert "Retry-After" not in client.get(f"{where}/results?limit=1").headers
    clock.advance(60)
    assert client.get(where).headers["Retry-After"] == "30"
    finish(accepted.json["items"][2]["id"])
    for path in (where, f"{where}/results"):
        assert "Retry-After" not in client.get(path).headers


def test_a_batch_that_is_answered_at_once_needs_no_waiting(services: Services, settings: Settings) -> None:
    """All of it was known: nobody is told to ask again."""
    client = create_app(services, settings).test_client()
    for item in send_files(client, TILES).json["items"]:
        job = claim(services.jobs, item["id"])
        assert job
        succeed(services.jobs, item["id"], {"class": "lung_aca"}, answer_key=job.spec.answer_key)
    again = send_files(client, TILES)
    assert again.json["status"] == "completed"
    assert "Retry-After" not in again.headers


def test_a_batch_that_was_begun_and_not_kept_is_kept_by_the_next_request(
    client: FlaskClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a loss of Redis' data would lose it: the first request ended between the two."""
    headers = {"Idempotency-Key": "k"}

    def away(*_: object) -> None:
        raise ObjectStoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(services.objects, "put", away)
        assert send_files(client, TILES, headers=headers).status_code == 503
    batch = send_files(client, TILES, headers=headers).json
    kept = services.objects.list_keys(f"batches/{batch['id']}/batch.json")
    assert len(kept) == 1
    found = BatchArchive(services.objects).read(kept[0])
    assert isinstance(found, BegunBatch)
    assert found.batch.id == batch["id"]
    # Else it would be taken for one that gets more members.
    assert f"{BATCHES}{batch['id']}/{WHOLE}" in services.objects.list_keys(BATCHES)


def test_the_same_request_at_the_same_time_stores_each_image_once(
    app: Flask, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job of one may run already, and some servers take an object away while it is put there again."""
    put, stored = services.objects.put, Counter[str]()

    def put_slowly(key: str, *rest: Any) -> None:
        stored[key] += 1
        time.sleep(0.05)
        put(key, *rest)

    def send(_: int) -> Any:
        return send_files(app.test_client(), TILES, headers={"Idempotency-Key": "k"}).json

    monkeypatch.setattr(services.objects, "put", put_slowly)
    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(send, range(4)))
    assert {(batch["id"], batch["accepted"]) for batch in batches} == {(batches[0]["id"], 3)}
    uploads = {key: times for key, times in stored.items() if key.startswith("uploads/")}
    assert list(uploads.values()) == [1, 1, 1]


def test_an_item_that_found_no_room_says_how_much_there_is(client: FlaskClient) -> None:
    """As the refusal of a single image does."""
    answer = send_files(client, {f"{number}.png": png_bytes(seed=number) for number in range(22)})
    assert {(item["code"], item["limit"], item["queue_depth"]) for item in answer.json["problems"]} == {
        ("QUEUE_FULL", 20, 20)
    }


def test_links_lead_below_where_the_server_is_mounted(client: FlaskClient) -> None:
    """Of a batch, its jobs and what its webhook was told; the server in front passes the prefix on."""
    mounted = {"environ_overrides": {"SCRIPT_NAME": "/tiles"}}
    batch = send_files(client, TILES, **mounted).json
    where = batch["links"]["self"]
    assert where == f"/tiles/batches/{batch['id']}"
    inside = where.removeprefix("/tiles")
    for answer in (
        batch,
        client.get(inside, **mounted).json,
        client.post(f"{inside}/cancel", **mounted).json,
        client.get(f"{inside}/deliveries", **mounted).json,
        client.get(f"/result/{batch['items'][0]['id']}/deliveries", **mounted).json,
    ):
        assert all(link is None or link.startswith("/tiles/") for link in answer["links"].values()), answer


def test_problems_lead_below_where_the_server_is_mounted(client: FlaskClient, services: Services) -> None:
    """Of a request, an item of a batch, and a job that failed: what explains them, and what they concern."""
    mounted = {"environ_overrides": {"SCRIPT_NAME": "/tiles"}}
    batch = send_files(client, {**TILES, "broken.png": truncated(png_bytes())}, **mounted).json
    job_id = batch["items"][0]["id"]
    claim(services.jobs, job_id)
    fail(services.jobs, job_id, JobError(code="MODEL_ERROR", detail="no number"))
    for problem, instance in (
        (client.get("/nowhere", **mounted).json, "/tiles/nowhere"),
        (batch["problems"][0], "/tiles/batches"),
        (send_files(client, {"broken.png": b"x"}, **mounted).json["problems"][0], "/tiles/batches"),
        (client.get(f"/result/{job_id}", **mounted).json["error"], f"/tiles/result/{job_id}"),
    ):
        assert problem["instance"] == instance
        assert problem["type"].startswith("/tiles/docs/errors#"), problem


def test_many_files_become_jobs_and_the_bad_ones_problems(client: FlaskClient, services: Services) -> None:
    """202 with where the batch is; every item is a job by its name, and bulk."""
    answer = send_files(client, {**TILES, "broken.png": truncated(png_bytes()), "page.html": b"<html>"})
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/batches/{answer.json['id']}"
    assert [item["custom_id"] for item in answer.json["items"]] == list(TILES)
    assert codes(answer) == {"broken.png": "INVALID_IMAGE", "page.html": "UNSUPPORTED_IMAGE_FORMAT"}
    assert (answer.json["accepted"], answer.json["rejected"], answer.json["total"]) == (3, 2, 3)
    for item in answer.json["items"]:
        job = services.jobs.get(item["id"])
        assert (job.spec.custom_id, job.spec.priority) == (item["custom_id"], Priority.BULK)
        assert client.get(item["links"]["self"]).json["batch"] == answer.json["id"]
    assert len(services.queue.bulk_messages) == 3  # type: ignore[attr-defined]


def test_a_batch_is_refused_only_where_nothing_is_valid_or_names_repeat(
    client: FlaskClient, services: Services
) -> None:
    """422, with why; and nothing is left of it."""
    nothing = send_files(client, {"a.png": b"", "b.png": b"text"})
    assert (nothing.status_code, nothing.json["code"]) == (422, "NOTHING_VALID")
    assert codes(nothing) == {"a.png": "INVALID_IMAGE", "b.png": "UNSUPPORTED_IMAGE_FORMAT"}
    files = [(io.BytesIO(jpeg_bytes()), "same.jpg"), (io.BytesIO(jpeg_bytes(seed=1)), "same.jpg")]
    repeated = client.post("/batches", data={"file": files}, content_type="multipart/form-data")
    assert (repeated.status_code, repeated.json["code"]) == (422, "CUSTOM_ID_REPEATED")
    assert services.jobs.depth().open == 0
    assert services.objects.list_keys("uploads/") == []


def test_a_full_queue_takes_what_there_is_room_for(client: FlaskClient, services: Services) -> None:
    """The rest are problems that may be tried again; the same request with its key accepts them later."""
    tiles = {f"{number}.png": png_bytes(32, 32, seed=number) for number in range(25)}
    answer = send_files(client, tiles, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json["accepted"]) == (202, 20)
    assert {item["retryable"] for item in answer.json["problems"]} == {True}
    assert set(codes(answer).values()) == {"QUEUE_FULL"}
    assert len(services.objects.list_keys("uploads/")) == 20
    none = send_files(client, {"other.png": png_bytes(seed=3)})
    assert (none.status_code, none.json["code"]) == (429, "QUEUE_FULL")
    for item in answer.json["items"][:10]:
        services.jobs.cancel(item["id"])
    again = send_files(client, tiles, headers={"Idempotency-Key": "k"})
    assert (again.json["id"], again.json["accepted"]) == (answer.json["id"], 25)
    assert again.headers["Idempotency-Replayed"] == "true"
    for other in (TILES, {**tiles, "0.png": png_bytes(32, 32, seed=99)}):
        refused = send_files(client, other, headers={"Idempotency-Key": "k"})
        assert (refused.status_code, refused.json["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")


def test_a_full_queue_begins_no_batch(client: FlaskClient, services: Services) -> None:
    """Else each key would leave one without members, for two weeks."""
    send_files(client, {f"{number}.png": png_bytes(32, 32, seed=number) for number in range(20)})
    kept = services.objects.list_keys("batches/")
    refused = send_files(client, TILES, headers={"Idempotency-Key": "k"})
    assert (refused.status_code, refused.json["code"], refused.json["limit"]) == (429, "QUEUE_FULL", 20)
    assert services.objects.list_keys("batches/") == kept
    # The key belongs to nothing yet.
    assert send_files(client, {"a.png": png_bytes()}, headers={"Idempotency-Key": "k"}).status_code == 429


def test_a_ledger_that_goes_away_in_between_loses_nothing(
    client: FlaskClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not accepted for sure is a problem that may be tried again, and found by the key."""
    tiles = {f"{number}.png": png_bytes(32, 32, seed=number) for number in range(15)}
    create_many = services.jobs.create_many

    def break_off(news: Any, *limits: Any) -> Any:
        return [*create_many(news[:5], *limits), *[JobStoreUnavailable("away")] * (len(news) - 5)]

    monkeypatch.setattr(services.jobs, "create_many", break_off)
    answer = send_files(client, tiles, headers={"Idempotency-Key": "k"})
    assert (answer.json["accepted"], set(codes(answer).values())) == (5, {"JOB_STORE_UNAVAILABLE"})
    assert len(services.objects.list_keys("uploads/")) == 15
    monkeypatch.undo()
    again = send_files(client, tiles, headers={"Idempotency-Key": "k"})
    assert (again.json["accepted"], again.json["problems"]) == (15, [])
    assert services.jobs.depth().open == 15


def test_another_keys_batch_is_not_there(services: Services, clock: Clock) -> None:
    """404 for every route, also when its results are gone; the admin and its owner see it."""
    store = KeyStore(services.objects)
    mine, other, admin = (
        {"Authorization": f"Bearer {store.create(name, scopes)[1]}"}
        for name, scopes in (
            ("a", frozenset({Scope.SUBMIT, Scope.READ})),
            ("b", frozenset({Scope.SUBMIT, Scope.READ})),
            ("c", frozenset({Scope.ADMIN})),
        )
    )
    client = create_app(services, Settings()).test_client()
    links = send_files(client, TILES, headers=mine).json["links"]
    for call, path in (
        (client.get, links["self"]),
        (client.get, links["results"]),
        (client.post, links["cancel"]),
        (client.post, f"{links['self']}/retry"),
    ):
        refused = call(path, headers=other)
        assert (refused.status_code, refused.json["code"]) == (404, "BATCH_NOT_FOUND")
        assert call(path, headers=mine).status_code in (200, 202)
        assert call(path, headers=admin).status_code in (200, 202)
    for path in (f"/batches/{new_job_id()}", "/batches/nothing"):
        assert client.get(path, headers=mine).status_code == 404
    client.post(links["cancel"], headers=mine)
    clock.advance(8 * 86_400)
    asked = [client.get(links["self"], headers=headers).status_code for headers in (mine, other, admin)]
    assert asked == [410, 404, 410]


def test_a_batch_past_its_retention_is_gone(client: FlaskClient, clock: Any) -> None:
    """410, as its jobs."""
    batch = send_files(client, TILES).json
    client.post(batch["links"]["cancel"])
    clock.advance(8 * 86_400)
    for path in (batch["links"]["self"], batch["links"]["results"]):
        assert (client.get(path).status_code, client.get(path).json["code"]) == (410, "RESULT_EXPIRED")

"""An image that was answered before is answered at once, where nothing speaks against it."""

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from flask.testing import FlaskClient
from structlog.testing import capture_logs

from api import create_app
from shared.archive import Archive
from shared.services import Services
from shared.settings import Settings
from tests.factories import jpeg_bytes
from tests.unit.api.test_metrics import read
from tests.work import claim, succeed

Submit = Callable[..., Any]


@pytest.fixture
def settings() -> Settings:
    return Settings(max_open_jobs=2)


@pytest.fixture
def answered(submit: Submit, services: Services) -> dict[str, Any]:
    """Have the one tile answered by a worker; return its job."""
    job = submit().get_json()
    claimed = claim(services.jobs, job["id"])
    assert claimed is not None
    result = {"class": "lung_aca", "confidence": 0.97}
    assert succeed(services.jobs, job["id"], result, answer_key=claimed.spec.answer_key)
    return dict(job)


def test_the_same_image_is_answered_at_once(
    submit: Submit, client: FlaskClient, services: Services, answered: dict[str, Any]
) -> None:
    """200 with a job of its own; nothing is stored, nothing is queued."""
    stored, queued = services.objects.list_keys(""), len(services.queue.messages)  # type: ignore[attr-defined]
    answer = submit(path="/predict?custom_id=again")
    job = answer.get_json()
    assert (answer.status_code, job["cached"], job["status"]) == (200, True, "succeeded")
    assert (job["result"]["class"], job["custom_id"]) == ("lung_aca", "again")
    assert job["id"] != answered["id"]
    assert answer.headers["Location"] == job["links"]["self"]
    assert client.get(job["links"]["self"]).get_json() == job
    assert services.objects.list_keys("") == stored
    assert len(services.queue.messages) == queued  # type: ignore[attr-defined]


def test_a_redis_short_of_memory_takes_no_known_answer_either(
    submit: Submit, client: FlaskClient, services: Services, answered: dict[str, Any]
) -> None:
    """Each has a record of its own, and what is left belongs to the jobs that were accepted."""
    services.jobs.memory_in_use = 0.75  # type: ignore[attr-defined]
    batch = {"file": [(BytesIO(jpeg_bytes()), "a.jpg")]}
    for answer in (submit(), client.post("/batches", data=batch)):
        assert (answer.status_code, answer.get_json()["code"]) == (503, "JOB_STORE_FULL")
    assert services.jobs.totals().accepted == 1


def test_a_redis_short_of_memory_begins_no_batch(client: FlaskClient, services: Services) -> None:
    """Each request with a new key left an empty one behind; one that was begun is found as ever."""

    def send(key: str) -> Any:
        batch = {"file": [(BytesIO(jpeg_bytes()), "a.jpg")]}
        return client.post("/batches", data=batch, headers={"Idempotency-Key": key})

    known, stored = send("known"), services.objects.list_keys("batches/")
    assert known.status_code == 202
    services.jobs.memory_in_use = 0.75  # type: ignore[attr-defined]
    refused = send("new")
    assert (refused.status_code, refused.get_json()["code"]) == (503, "JOB_STORE_FULL")
    assert services.objects.list_keys("batches/") == stored
    repeated = send("known")
    assert (repeated.status_code, repeated.get_json()["id"]) == (202, known.get_json()["id"])


def test_the_log_has_the_id_of_a_job_that_no_worker_had(submit: Submit, answered: dict[str, Any]) -> None:
    """And of the one whose answer it is."""
    with capture_logs() as logs:
        job_id = submit().get_json()["id"]
    (entry,) = (entry for entry in logs if entry["event"] == "job_accepted")
    assert (entry["job_id"], entry["answered_by"]) == (job_id, answered["id"])


@pytest.mark.parametrize("options", ["cache=false", "mpp=0.5", "explain=true"])
def test_it_is_computed_where_the_caller_wants_something_else(
    submit: Submit, answered: dict[str, Any], options: str
) -> None:
    """The caller objects, states another scale, or wants a heat map."""
    answer = submit(path=f"/predict?{options}")
    assert (answer.status_code, answer.get_json()["cached"]) == (202, False)


def send_batch(
    client: FlaskClient, files: dict[str, bytes], query: str = "", key: str | None = "mine"
) -> dict[str, Any]:
    """Submit files together; return the batch as it stands then, with the counts that are not 0."""
    data = {"file": [(BytesIO(body), name) for name, body in files.items()]}
    answer = client.post(f"/batches{query}", data=data, headers={"Idempotency-Key": key} if key else {})
    assert answer.status_code == 202, answer.text
    batch = client.get(answer.get_json()["links"]["self"]).get_json()
    return {**batch, "counts": {name: number for name, number in batch["counts"].items() if number}}


def test_items_of_a_batch_are_answered_at_once(
    client: FlaskClient, services: Services, answered: dict[str, Any]
) -> None:
    """What is known has ended when the batch is accepted; only what is not known is stored and queued."""
    batch = send_batch(client, {"known.jpg": jpeg_bytes(), "new.jpg": jpeg_bytes(seed=1)})
    assert batch["counts"] == {"succeeded": 1, "queued": 1}
    (line,) = client.get(batch["links"]["results"]).text.splitlines()
    job = json.loads(line)
    assert (job["custom_id"], job["cached"], job["result"]["class"]) == ("known.jpg", True, "lung_aca")
    # Nothing else could bring it back, were the ledger to lose its data now.
    assert Archive(services.objects).get(job["id"]) == services.jobs.get(job["id"])
    queued = services.queue.bulk_messages  # type: ignore[attr-defined]
    assert len(queued) == 1
    assert sorted(key.rpartition("/")[2] for key in services.objects.list_keys("uploads/")) == sorted(
        [answered["id"], queued[0][0]]
    )


def test_what_was_answered_at_once_is_counted(
    client: FlaskClient, submit: Submit, answered: dict[str, Any]
) -> None:
    """One by one and in a batch; a repetition is none."""
    name = ("histoqueue_cached_answers_total",)
    before, files = read(client)[name], {"a.jpg": jpeg_bytes(), "b.jpg": jpeg_bytes()}
    for _ in range(2):
        submit(headers={"Idempotency-Key": "k"})
        send_batch(client, {"new.jpg": jpeg_bytes(seed=1), **files})
    assert read(client)[name] == before + 3


def test_a_batch_of_known_images_needs_no_room(
    client: FlaskClient, submit: Submit, answered: dict[str, Any]
) -> None:
    """The queue is full, and nobody waits in it for these."""
    for seed in (2, 3):
        assert submit(jpeg_bytes(seed=seed)).status_code == 202
    files = {"a.jpg": jpeg_bytes(), "b.jpg": jpeg_bytes()}
    for key in (None, "first"):
        batch = send_batch(client, files, key=key)
        assert (batch["status"], batch["counts"]) == ("completed", {"succeeded": 2})
    # One that is new beside them finds no room, and costs the others nothing.
    for key in (None, "second"):
        assert send_batch(client, {"new.jpg": jpeg_bytes(seed=9), **files}, key=key)["counts"] == {
            "succeeded": 2
        }


@pytest.mark.parametrize("query", ["?cache=false", "?mpp=0.5"])
def test_items_are_computed_where_the_caller_wants_something_else(
    client: FlaskClient, answered: dict[str, Any], query: str
) -> None:
    """As for one image."""
    assert send_batch(client, {"a.jpg": jpeg_bytes()}, query)["counts"] == {"queued": 1}


def test_an_item_whose_answer_is_dropped_meanwhile_is_computed(
    client: FlaskClient, services: Services, answered: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there when it was looked for."""
    look = services.jobs.answered_by

    def look_and_lose(answer_keys: list[str]) -> list[str | None]:
        found = look(answer_keys)
        services.jobs.delete(answered["id"])
        return found

    monkeypatch.setattr(services.jobs, "answered_by", look_and_lose)
    assert send_batch(client, {"a.jpg": jpeg_bytes()})["counts"] == {"queued": 1}


def test_another_image_is_computed(submit: Submit, answered: dict[str, Any]) -> None:
    """One byte is enough."""
    assert submit(jpeg_bytes(seed=1)).status_code == 202


def test_a_full_queue_keeps_nobody_from_what_is_known(submit: Submit, answered: dict[str, Any]) -> None:
    """It needs no place in it."""
    assert [submit(jpeg_bytes(seed=seed)).status_code for seed in (1, 2, 3)] == [202, 202, 429]
    assert submit().status_code == 200


def test_deleting_one_leaves_the_other(submit: Submit, client: FlaskClient, answered: dict[str, Any]) -> None:
    """Each job is its owner's to delete; what is deleted answers no more."""
    copy = submit().get_json()
    assert client.delete(answered["links"]["self"]).status_code == 204
    assert client.get(copy["links"]["self"]).get_json()["result"]["class"] == "lung_aca"
    assert submit().status_code == 202


def test_a_key_repeats_the_answered_job(submit: Submit, answered: dict[str, Any]) -> None:
    """The same request gets the same id; with other options the key is refused."""
    headers = {"Idempotency-Key": "k"}
    first, again = submit(headers=headers), submit(headers=headers)
    assert first.get_json() == again.get_json()
    assert (first.headers.get("Idempotency-Replayed"), again.headers["Idempotency-Replayed"]) == (
        None,
        "true",
    )
    assert submit(path="/predict?cache=false", headers=headers).status_code == 422


def test_the_operator_can_turn_it_off(
    services: Services, settings: Settings, answered: dict[str, Any]
) -> None:
    """`CACHE_ANSWERS=false`."""
    off = create_app(services, settings.model_copy(update={"cache_answers": False})).test_client()
    assert off.post("/predict", data=jpeg_bytes(), content_type="image/jpeg").status_code == 202

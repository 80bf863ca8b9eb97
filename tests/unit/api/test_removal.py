"""What a client's word ends: a job that is canceled stays so, a job that is deleted leaves nothing."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from structlog.testing import capture_logs

from api import create_app
from shared.archive import Archive
from shared.errors import ObjectStoreUnavailable
from shared.job_store_memory import MemoryJobStore
from shared.schemas import new_job_id
from shared.services import Services
from shared.settings import Settings
from tests.factories import jpeg_bytes
from tests.work import claim, succeed

Submit = Callable[..., Any]


def test_a_deleted_job_leaves_nothing_and_answers_410(
    submit: Submit, client: FlaskClient, services: Services, finish: Callable[[str], None]
) -> None:
    """Image, result and every copy are gone at once; only the word that it was there is kept."""
    job_id = submit(path="/predict?custom_id=patient-7").get_json()["id"]
    finish(job_id)
    Archive(services.objects).put(services.jobs.get(job_id))
    Archive(services.objects).quarantine(services.jobs.get(job_id), jpeg_bytes())
    Archive(services.objects).put_heatmap(job_id, b"heat")
    answer = client.delete(f"/result/{job_id}")
    assert (answer.status_code, answer.data) == (204, b"")
    assert [key for key in services.objects.list_keys("") if job_id in key] == []
    gone = client.get(f"/result/{job_id}")
    assert (gone.status_code, gone.get_json()["code"]) == (410, "RESULT_EXPIRED")
    assert b"patient-7" not in gone.data
    assert client.delete(f"/result/{job_id}").status_code == 204


def test_the_log_says_what_became_of_a_job_that_no_worker_had(submit: Submit, client: FlaskClient) -> None:
    """By its id: the line of a request names its route alone."""
    canceled, deleted = (submit().get_json()["id"] for _ in range(2))
    with capture_logs() as logs:
        client.post(f"/result/{canceled}/cancel")
        client.delete(f"/result/{deleted}")
    told = [(entry["event"], entry["job_id"]) for entry in logs if "job_id" in entry]
    assert told == [("job_canceled", canceled), ("job_deleted", deleted)]


def test_deleting_an_open_job_cancels_it(submit: Submit, client: FlaskClient, services: Services) -> None:
    """No worker runs it any more."""
    job_id = submit().get_json()["id"]
    assert client.delete(f"/result/{job_id}").status_code == 204
    assert claim(services.jobs, job_id) is None
    assert services.jobs.depth().open == 0


def test_deleting_what_a_worker_runs_refuses_its_outcome(
    submit: Submit, client: FlaskClient, services: Services
) -> None:
    """A result that comes later is not kept."""
    job_id = submit().get_json()["id"]
    claim(services.jobs, job_id)
    client.delete(f"/result/{job_id}")
    assert not succeed(services.jobs, job_id, {"class": "lung_n"})
    assert client.get(f"/result/{job_id}").status_code == 410


def test_an_object_store_that_is_away_is_cleaned_later(
    submit: Submit, client: FlaskClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wish is recorded, so it is done when the store is back."""
    job_id = submit().get_json()["id"]

    def away(key: str) -> None:
        raise ObjectStoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(services.objects, "delete", away)
        assert client.delete(f"/result/{job_id}").status_code == 204
    (left,) = services.jobs.cleanable(10)
    assert (left.job_id, left.deleted) == (job_id, True)
    assert left.image_key is not None


def test_what_was_deleted_is_not_said_to_be_old(submit: Submit, client: FlaskClient) -> None:
    """A 410 has one text for both: after a while nobody knows which it was."""
    where = submit().headers["Location"]
    client.delete(where)
    assert "deleted" in client.get(where).get_json()["detail"]


def test_an_id_never_issued_cannot_be_deleted(client: FlaskClient) -> None:
    """404, as for every other route."""
    assert client.delete(f"/result/{'0' * 8}-0000-0000-0000-{'0' * 12}").status_code == 404


def test_a_canceled_job_is_in_the_object_store_before_the_answer(
    submit: Submit, client: FlaskClient, services: Services
) -> None:
    """Even a loss of Redis' data a moment later does not bring it back."""
    job_id = submit().get_json()["id"]
    assert client.post(f"/result/{job_id}/cancel").status_code == 200
    archived = Archive(services.objects).get(job_id)
    assert archived == services.jobs.get(job_id)
    assert services.jobs.unarchived(10) == []


def test_a_cancellation_needs_no_object_store(
    submit: Submit, client: FlaskClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker puts it there when the store is back."""
    job_id = submit().get_json()["id"]

    def away(*_: object) -> None:
        raise ObjectStoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(services.objects, "put", away)
        assert client.post(f"/result/{job_id}/cancel").status_code == 200
    assert [job.id for job in services.jobs.unarchived(10)] == [job_id]


def test_a_job_retried_while_its_cancellation_is_archived_leaves_no_copy(
    submit: Submit, client: FlaskClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is queued: after a loss of Redis' data it must not be taken for ended."""
    job_id = submit().get_json()["id"]
    put = services.objects.put

    def retried_meanwhile(key: str, body: bytes, content_type: str) -> None:
        services.jobs.retry(job_id, 10)
        put(key, body, content_type)

    monkeypatch.setattr(services.objects, "put", retried_meanwhile)
    assert client.post(f"/result/{job_id}/cancel").status_code == 200
    assert Archive(services.objects).get(job_id) is None


@pytest.fixture
def wiped(services: Services, settings: Settings, clock: Any) -> FlaskClient:
    """The same installation after its Redis lost its data."""
    jobs = MemoryJobStore(clock, founded=False)
    return create_app(replace(services, jobs=jobs), settings).test_client()


def test_an_outcome_is_served_from_the_object_store(
    submit: Submit, finish: Callable[[str], None], services: Services, client: FlaskClient, wiped: FlaskClient
) -> None:
    """The same answer as before, tag and all."""
    job_id = submit().get_json()["id"]
    finish(job_id)
    Archive(services.objects).put(services.jobs.get(job_id))
    before, after = client.get(f"/result/{job_id}"), wiped.get(f"/result/{job_id}")
    assert after.get_json() == before.get_json()
    assert after.headers["ETag"] == before.headers["ETag"]
    assert wiped.post(f"/result/{job_id}/cancel").status_code == 409
    assert wiped.delete(f"/result/{job_id}").status_code == 204
    assert services.objects.list_keys("results/") == []
    assert wiped.get(f"/result/{job_id}").status_code == 410


def test_an_outcome_past_its_retention_is_served_from_nowhere(
    submit: Submit,
    finish: Callable[[str], None],
    services: Services,
    wiped: FlaskClient,
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may lie there until somebody compares."""
    monkeypatch.setattr("api.lookup.wall_clock_ms", clock)
    job_id = submit().get_json()["id"]
    finish(job_id)
    Archive(services.objects).put(services.jobs.get(job_id))
    assert wiped.get(f"/result/{job_id}").status_code == 200
    clock.advance(7 * 86_400 + 1)
    gone = wiped.get(f"/result/{job_id}")
    assert (gone.status_code, gone.get_json()["code"]) == (410, "RESULT_EXPIRED")


def test_a_job_that_the_ledger_lost_can_be_run_once_more(
    submit: Submit, services: Services, client: FlaskClient, wiped: FlaskClient
) -> None:
    """Its answer has the link; the image is still there."""
    job_id = submit().get_json()["id"]
    client.post(f"/result/{job_id}/cancel")
    answer = wiped.get(f"/result/{job_id}").get_json()
    retried = wiped.post(answer["links"]["retry"])
    assert (retried.status_code, retried.get_json()["status"]) == (202, "queued")
    assert services.objects.list_keys("results/") == []
    assert wiped.get(f"/result/{job_id}").get_json()["input"] == answer["input"]


def test_a_member_of_a_lost_batch_is_deleted_from_where_it_lies(
    client: FlaskClient, services: Services, wiped: FlaskClient
) -> None:
    """Its batch is not there that it would be counted in; image and outcome go all the same."""
    batch = client.post("/batches", data={"file": (io.BytesIO(jpeg_bytes()), "a.jpg")}).get_json()
    path = batch["items"][0]["links"]["self"]
    assert client.post(f"{path}/cancel").status_code == 200
    assert len(services.objects.list_keys("uploads/") + services.objects.list_keys("results/")) == 2
    assert wiped.delete(path).status_code == 204
    assert services.objects.list_keys("uploads/") + services.objects.list_keys("results/") == []


def test_a_job_without_an_outcome_is_not_denied(
    submit: Submit, wiped: FlaskClient, services: Services
) -> None:
    """503 and when to ask again, not 404: it was accepted."""
    job_id = submit().get_json()["id"]
    assert services.objects.list_keys("uploads/")
    for answer in (
        wiped.get(f"/result/{job_id}"),
        wiped.post(f"/result/{job_id}/cancel"),
        wiped.delete(f"/result/{job_id}"),
        wiped.post(
            "/predict", data=jpeg_bytes(), content_type="image/jpeg", headers={"Idempotency-Key": "k"}
        ),
    ):
        assert (answer.status_code, answer.get_json()["code"]) == (503, "LEDGER_REBUILDING")
        assert int(answer.headers["Retry-After"]) > 0
    assert wiped.post("/predict", data=jpeg_bytes(), content_type="image/jpeg").status_code == 202


def test_a_redis_short_of_memory_accepts_no_more(submit: Submit, services: Services) -> None:
    """What is left belongs to the jobs that were accepted; nothing is stored."""
    services.jobs.memory_in_use = 0.75  # type: ignore[attr-defined]
    answer = submit()
    assert (answer.status_code, answer.get_json()["code"]) == (503, "JOB_STORE_FULL")
    assert int(answer.headers["Retry-After"]) > 0
    assert services.objects.list_keys("uploads/") == []
    services.jobs.memory_in_use = 0.74  # type: ignore[attr-defined]
    assert submit().status_code == 202


def test_a_new_installation_needs_no_worker_to_begin(
    services: Services, settings: Settings, clock: Any
) -> None:
    """The first upload finds an empty store, so everything after it can be told from what was lost."""
    jobs = MemoryJobStore(clock, founded=False)
    client = create_app(replace(services, jobs=jobs), settings).test_client()
    assert client.post("/predict", data=jpeg_bytes(), content_type="image/jpeg").status_code == 202
    keyed = {"Idempotency-Key": "k"}
    answer = client.post("/predict", data=jpeg_bytes(), content_type="image/jpeg", headers=keyed)
    assert answer.status_code == 202
    assert client.get(f"/result/{new_job_id()}").status_code == 404


def test_a_job_is_deleted_in_the_version_that_its_caller_has_seen(
    submit: Submit, client: FlaskClient, services: Services
) -> None:
    """And not in a later one: a worker has taken it up meanwhile. Gone is gone in any version."""
    seen = submit()
    path = seen.headers["Location"]
    assert claim(services.jobs, path.rpartition("/")[2])
    refused = client.delete(path, headers={"If-Match": seen.headers["ETag"]})
    assert (refused.status_code, refused.get_json()["code"]) == (412, "JOB_CHANGED")
    now = client.get(path)
    assert now.get_json()["status"] == "running"
    for _ in range(2):
        assert client.delete(path, headers={"If-Match": now.headers["ETag"]}).status_code == 204
    other = submit().headers["Location"]
    assert client.post(f"{other}/cancel", headers={"If-Match": "*"}).status_code == 200

"""Submit, result, cancel: statuses, headers and the job's JSON."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.archive import Archive
from shared.envelope import read_job
from shared.schemas import JobError
from shared.services import Services
from tests.factories import jpeg_bytes, png_bytes, truncated
from tests.work import Clock, claim, fail, succeed

Submit = Callable[..., Any]
Finish = Callable[[str], None]
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def test_a_submission_is_stored_recorded_and_enqueued(submit: Submit, services: Services) -> None:
    """202 with the job, after the image, the record and the message are there."""
    answer = submit(headers={"X-Request-Id": "req-1"})
    job = answer.get_json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == job["links"]["self"] == f"/result/{job['id']}"
    assert answer.headers["X-Request-Id"] == "req-1"
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["X-HistoQueue-Notice"] == "Research use only, not for diagnostic use."
    stored = services.jobs.get(job["id"])
    assert stored.spec.request_id == "req-1"
    assert re.fullmatch(rf"uploads/\d{{4}}/\d\d/\d\d/{job['id']}", stored.spec.input.key)
    upload = services.objects.get(stored.spec.input.key, 100_000)
    assert upload.startswith(jpeg_bytes())
    assert read_job(upload).job.spec == stored.spec
    assert list(services.queue.messages) == [(job["id"], stored.published_at_ms)]  # type: ignore[attr-defined]


def test_a_queued_job_as_json(submit: Submit, services: Services) -> None:
    """Every field of the contract is there, and no object key."""
    job = submit(path="/predict?custom_id=tile-7&mpp=0.5").get_json()
    image = jpeg_bytes()
    assert job == {
        "id": job["id"],
        "status": "queued",
        "custom_id": "tile-7",
        "priority": "interactive",
        "cached": False,
        "created_at": "2027-01-15T08:00:00.125Z",
        "started_at": None,
        "finished_at": None,
        "expires_at": None,
        "attempt": 0,
        "queue": {"position": 0, "eta_seconds": None},
        "model": services.models.live().model_dump(),
        "input": {
            "sha256": job["input"]["sha256"],
            "bytes": len(image),
            "width": 64,
            "height": 48,
            "media_type": "image/jpeg",
            "mpp": 0.5,
        },
        "result": None,
        "error": None,
        "timings_ms": None,
        "batch": None,
        "links": {
            "self": f"/result/{job['id']}",
            "cancel": f"/result/{job['id']}/cancel",
            "retry": None,
            "events": f"/result/{job['id']}/events",
            "heatmap": None,
            "deliveries": None,
        },
    }


def test_a_finished_job_as_json(submit: Submit, client: FlaskClient, finish: Finish, clock: Clock) -> None:
    """200 with the result, its times, and until when it is kept."""
    job_id = submit().get_json()["id"]
    clock.advance(2)
    finish(job_id)
    answer = client.get(f"/result/{job_id}")
    job = answer.get_json()
    assert answer.status_code == 200
    assert (job["status"], job["attempt"], job["queue"]) == ("succeeded", 1, None)
    assert job["result"] == {"class": "lung_aca", "confidence": 0.97}
    assert job["timings_ms"] == {"queue": 2000, "fetch": 1}
    assert job["started_at"] == job["finished_at"] == "2027-01-15T08:00:02.125Z"
    assert job["expires_at"] == "2027-01-22T08:00:02.125Z"
    assert job["links"]["cancel"] is None
    assert answer.headers["Expires"] == "Fri, 22 Jan 2027 08:00:02 GMT"
    assert "Retry-After" not in answer.headers


def test_a_failed_job_is_an_answer_and_not_an_error(
    submit: Submit, client: FlaskClient, services: Services
) -> None:
    """200, with the same problem object that an HTTP error would carry."""
    job_id = submit(headers={"X-Request-Id": "req-9"}).get_json()["id"]
    assert claim(services.jobs, job_id)
    assert fail(services.jobs, job_id, JobError(code="INVALID_IMAGE", detail="It is cut."))
    answer = client.get(f"/result/{job_id}")
    assert (answer.status_code, answer.get_json()["status"]) == (200, "failed")
    assert answer.get_json()["error"] == {
        "type": "/docs/errors#invalid-image",
        "title": "The image cannot be decoded",
        "status": 422,
        "detail": "It is cut.",
        "instance": f"/result/{job_id}",
        "code": "INVALID_IMAGE",
        "retryable": False,
        "request_id": "req-9",
    }


def test_an_open_job_says_when_to_ask_again(
    submit: Submit, client: FlaskClient, services: Services, finish: Finish, clock: Clock
) -> None:
    """From the rate at which jobs end, and by no cache's memory."""
    for _ in range(3):
        clock.advance(5)
        job_id = submit().get_json()["id"]
        clock.advance(4)
        finish(job_id)
    jobs = []
    for _ in range(2):
        clock.advance(1)
        jobs.append(submit().get_json()["id"])
    assert client.get(f"/result/{jobs[0]}").headers["Retry-After"] == "1"
    answer = client.get(f"/result/{jobs[1]}")
    # Three jobs in twelve seconds, and none in the second since: one more takes over four.
    assert answer.get_json()["queue"] == {"position": 1, "eta_seconds": 4.3}
    assert (answer.status_code, answer.headers["Retry-After"]) == (202, "5")
    assert answer.headers["Cache-Control"] == "no-store"
    assert claim(services.jobs, jobs[1])
    running = client.get(f"/result/{jobs[1]}")
    assert running.get_json()["status"] == "running"
    assert (running.status_code, running.headers["Retry-After"]) == (202, "1")


def test_an_unchanged_state_is_not_sent_again(submit: Submit, client: FlaskClient, finish: Finish) -> None:
    """304 for the same version, a full answer for the next one."""
    job_id = submit().get_json()["id"]
    tag = client.get(f"/result/{job_id}").headers["ETag"]
    same = client.get(f"/result/{job_id}", headers={"If-None-Match": tag})
    assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", tag)
    assert same.headers["Retry-After"] == "1"
    finish(job_id)
    changed = client.get(f"/result/{job_id}", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag
    assert changed.headers["Cache-Control"] == "private, no-cache"
    # Its place in the queue changes and the version does not: the bytes are not what it stands for.
    assert tag.startswith("W/")
    strong = client.get(f"/result/{job_id}", headers={"If-None-Match": changed.headers["ETag"][2:]})
    assert strong.status_code == 304


@pytest.mark.parametrize(
    "path",
    [
        UNKNOWN,
        "1",
        "..%2F..%2Fetc%2Fpasswd",
        "../../etc/passwd",
        "%2e%2e/%2e%2e/x",
        "/x",
        "%2Fetc%2Fpasswd",
        "a/b/c",
        "x%00y",
        "%ff%fe",
        "%0d%0aSet-Cookie:x",
        UNKNOWN.upper() + "x",
        UNKNOWN + "/",
        "x" * 3000,
    ],
)
def test_what_is_no_id_of_ours_is_not_found(client: FlaskClient, path: str) -> None:
    """Path characters included; nothing but an id ever reaches the ledger."""
    answer = client.get(f"/result/{path}")
    assert (answer.status_code, answer.get_json()["code"]) == (404, "JOB_NOT_FOUND")
    assert client.post(f"/result/{path}/cancel").get_json()["code"] == "JOB_NOT_FOUND"


def test_a_result_past_its_retention_is_gone(
    submit: Submit, client: FlaskClient, finish: Finish, clock: Clock
) -> None:
    """410 while its tombstone stands, 404 after that."""
    job_id = submit().get_json()["id"]
    finish(job_id)
    clock.advance(7 * 86_400 + 1)
    answer = client.get(f"/result/{job_id}")
    assert (answer.status_code, answer.get_json()["code"]) == (410, "RESULT_EXPIRED")
    clock.advance(7 * 86_400)
    assert client.get(f"/result/{job_id}").status_code == 404


def test_a_job_that_waited_too_long_has_expired(submit: Submit, client: FlaskClient, clock: Clock) -> None:
    """Reading it is enough: no worker is needed to end it."""
    job_id = submit(path="/predict?expires_in=60").get_json()["id"]
    clock.advance(61)
    answer = client.get(f"/result/{job_id}")
    assert (answer.status_code, answer.get_json()["status"]) == (200, "expired")
    assert answer.get_json()["error"]["code"] == "DEADLINE_EXCEEDED"


def test_canceling_a_queued_job_ends_it(submit: Submit, client: FlaskClient) -> None:
    """200 the first time, 409 from then on."""
    cancel = submit().get_json()["links"]["cancel"]
    answer = client.post(cancel)
    assert (answer.status_code, answer.get_json()["status"]) == (200, "canceled")
    again = client.post(cancel)
    assert (again.status_code, again.get_json()["code"]) == (409, "JOB_ALREADY_FINAL")


def test_canceling_a_running_job_refuses_its_outcome(
    submit: Submit, client: FlaskClient, services: Services
) -> None:
    """202: a worker is at it, and what it finds is dropped."""
    job = submit().get_json()
    assert claim(services.jobs, job["id"])
    answer = client.post(job["links"]["cancel"])
    assert (answer.status_code, answer.get_json()["status"]) == (202, "canceled")
    assert not succeed(services.jobs, job["id"], {})


def test_a_version_can_be_chosen(submit: Submit, services: Services) -> None:
    """It is pinned when the job is accepted; one that there is not is refused."""
    answer = submit(path="/predict?model_version=1.0.0")
    assert answer.get_json()["model"]["version"] == "1.0.0"
    for version in ("9.9.9", "latest", "../x", ""):
        unknown = submit(path=f"/predict?model_version={version}")
        assert (unknown.status_code, unknown.get_json()["code"]) == (422, "UNKNOWN_MODEL_VERSION")
    assert services.jobs.depth().open == 1


def test_every_other_path_and_method_is_a_problem(client: FlaskClient) -> None:
    """What Flask refuses itself has the same form."""
    missing = client.get("/nowhere")
    assert (missing.status_code, missing.get_json()["code"]) == (404, "NOT_FOUND")
    wrong = client.get("/predict")
    assert (wrong.status_code, wrong.get_json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert wrong.headers["Allow"] == "OPTIONS, POST"
    assert client.get("/").get_json()["links"]["predict"] == "/predict"


def test_a_heat_map_is_a_png_once_its_job_has_ended(
    submit: Submit, client: FlaskClient, finish: Finish, services: Services
) -> None:
    """202 with the job until then; the job links to it."""
    job = submit(path="/predict?explain=true").get_json()
    pending = client.get(job["links"]["heatmap"])
    assert (pending.status_code, pending.get_json()["id"]) == (202, job["id"])
    assert int(pending.headers["Retry-After"]) >= 1
    finish(job["id"])
    Archive(services.objects).put_heatmap(job["id"], png_bytes())
    answer = client.get(job["links"]["heatmap"])
    assert (answer.status_code, answer.content_type, answer.data) == (200, "image/png", png_bytes())
    known = client.get(job["links"]["heatmap"], headers={"If-None-Match": answer.headers["ETag"]})
    assert (known.status_code, known.data, known.headers["ETag"]) == (304, b"", answer.headers["ETag"])
    other = client.get(job["links"]["heatmap"], headers={"If-None-Match": pending.headers["ETag"]})
    assert other.status_code == 200
    client.delete(job["links"]["self"])
    assert client.get(job["links"]["heatmap"]).status_code == 410


@pytest.mark.parametrize(
    "spoiled",
    [b"", b"a picture", truncated(png_bytes()), png_bytes().replace(b"IDAT", b"IDAX")],
)
def test_a_damaged_heat_map_is_none(
    submit: Submit, client: FlaskClient, finish: Finish, services: Services, spoiled: bytes
) -> None:
    """It would be shown as one, as far as it goes."""
    job = submit(path="/predict?explain=true").get_json()
    finish(job["id"])
    Archive(services.objects).put_heatmap(job["id"], spoiled)
    assert client.get(job["links"]["heatmap"]).get_json()["code"] == "NO_HEATMAP"


def test_without_a_heat_map_there_is_none_to_read(
    submit: Submit, client: FlaskClient, finish: Finish, services: Services
) -> None:
    """It was not asked for, or the image got no class: 404 in its own word; an unknown id is another 404."""
    plain = submit().get_json()
    assert plain["links"]["heatmap"] is None
    answer = client.get(f"{plain['links']['self']}/heatmap.png")
    assert (answer.status_code, answer.get_json()["code"]) == (404, "NO_HEATMAP")
    rejected = submit(path="/predict?explain=true").get_json()
    finish(rejected["id"])
    assert client.get(rejected["links"]["heatmap"]).get_json()["code"] == "NO_HEATMAP"
    canceled = submit(path="/predict?explain=true").get_json()
    client.post(f"{canceled['links']['self']}/cancel")
    Archive(services.objects).put_heatmap(canceled["id"], png_bytes())  # before its worker heard of that
    assert client.get(canceled["links"]["heatmap"]).get_json()["code"] == "NO_HEATMAP"
    unknown = client.get("/result/00000000-0000-4000-8000-000000000000/heatmap.png")
    assert (unknown.status_code, unknown.get_json()["code"]) == (404, "JOB_NOT_FOUND")

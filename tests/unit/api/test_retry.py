"""A job that ended without a result is run once more, under its own id."""

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.archive import Archive
from shared.errors import JobStoreUnavailable
from shared.services import Services
from shared.settings import Settings

Submit = Callable[..., Any]


def test_a_canceled_job_is_queued_again(submit: Submit, client: FlaskClient, services: Services) -> None:
    """202 with the job, a new message, and no old outcome in the object store."""
    first = submit(path="/predict?custom_id=tile").get_json()
    assert first["links"]["retry"] is None
    client.post(f"/result/{first['id']}/cancel")
    services.queue.messages.clear()  # type: ignore[attr-defined]
    ended = client.get(f"/result/{first['id']}").get_json()
    answer = client.post(ended["links"]["retry"])
    job = answer.get_json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/result/{first['id']}"
    assert (job["id"], job["status"], job["custom_id"]) == (first["id"], "queued", "tile")
    assert [item for item, _ in services.queue.messages] == [first["id"]]  # type: ignore[attr-defined]
    assert Archive(services.objects).get(first["id"]) is None


def test_a_result_is_not_thrown_away(
    submit: Submit, client: FlaskClient, services: Services, finish: Callable[[str], None]
) -> None:
    """409, and both copies of the result stay."""
    job_id = submit().get_json()["id"]
    finish(job_id)
    Archive(services.objects).put(services.jobs.get(job_id))
    answer = client.post(f"/result/{job_id}/retry")
    assert (answer.status_code, answer.get_json()["code"]) == (409, "JOB_NOT_RETRYABLE")
    assert client.get(f"/result/{job_id}").get_json()["result"]["class"] == "lung_aca"
    assert Archive(services.objects).get(job_id) is not None


def test_an_open_job_and_an_unknown_one_are_not_retried(submit: Submit, client: FlaskClient) -> None:
    """409 and 404."""
    job_id = submit().get_json()["id"]
    assert client.post(f"/result/{job_id}/retry").status_code == 409
    assert client.post("/result/nothing/retry").status_code == 404


def test_a_full_queue_says_when_to_come_back(submit: Submit, client: FlaskClient) -> None:
    """429 with Retry-After, as for a submission."""
    job_id = submit().get_json()["id"]
    client.post(f"/result/{job_id}/cancel")
    for _ in range(5):
        submit()
    answer = client.post(f"/result/{job_id}/retry")
    assert (answer.status_code, answer.get_json()["code"]) == (429, "QUEUE_FULL")
    # One job has ended within the last minute.
    assert answer.headers["Retry-After"] == "30"


def test_a_job_whose_image_is_gone_keeps_its_outcome(
    submit: Submit, client: FlaskClient, services: Services, settings: Settings, clock: Any
) -> None:
    """410: there is nothing to run it on."""
    job_id = submit().get_json()["id"]
    client.post(f"/result/{job_id}/cancel")
    clock.advance(settings.image_retention_seconds + 1)
    answer = client.post(f"/result/{job_id}/retry")
    assert (answer.status_code, answer.get_json()["code"]) == (410, "RESULT_EXPIRED")
    assert Archive(services.objects).get(job_id) == services.jobs.get(job_id)


def test_a_retry_that_comes_to_nothing_leaves_the_outcome_where_it_was(
    submit: Submit, client: FlaskClient, services: Services, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that has ended is not run after a loss of data: at once where it is refused, else by a worker."""
    refused, broken_off = (submit().get_json()["id"] for _ in range(2))
    for job_id in (refused, broken_off):
        client.post(f"/result/{job_id}/cancel")

    def away(*_: object) -> None:
        raise JobStoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(services.jobs, "retry", away)
        assert client.post(f"/result/{broken_off}/retry").status_code == 503
    for _ in range(5):
        submit()
    assert client.post(f"/result/{refused}/retry").status_code == 429
    assert Archive(services.objects).get(refused) == services.jobs.get(refused)
    clock.advance(31)
    assert [job.id for job in services.jobs.unarchived(10)] == [broken_off]

"""A batch is canceled and retried as a whole."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.schemas import JobError, JobStatus
from shared.services import Services
from tests.factories import png_bytes
from tests.unit.api.batches.conftest import TILES, Finish, send_files
from tests.work import Clock, claim, fail, succeed


@pytest.mark.parametrize("failed", [1, 3])
def test_a_batch_that_is_retried_long_after_is_not_measured_by_its_age(
    failed: int,
    client: FlaskClient,
    services: Services,
    finish: Finish,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where all of it failed, or a part: the hours in between say nothing of how fast it is done now."""
    monkeypatch.setattr("api.batches.wall_clock_ms", clock)
    accepted = send_files(client, TILES)
    where = accepted.headers["Location"]
    ids = [item["id"] for item in accepted.json["items"]]
    for job_id in ids[:failed]:
        assert claim(services.jobs, job_id)
        fail(services.jobs, job_id, JobError(code="ENGINE_FAILED", detail="lost"))
    for job_id in ids[failed:]:
        finish(job_id)
    clock.advance(3600)
    retried = client.post(f"{where}/retry")
    assert retried.json["retried"] == failed
    assert retried.headers["Retry-After"] == str(failed)
    assert client.get(where).headers["Retry-After"] == str(failed)


def test_a_batch_is_canceled_and_retried_as_a_whole(
    client: FlaskClient, services: Services, finish: Finish
) -> None:
    """What has ended stays; a retry takes what failed or expired, and not what its owner ended."""
    batch = send_files(client, {f"{n}.png": png_bytes(32, 32, seed=n) for n in range(6)}).json
    ids = [item["id"] for item in batch["items"]]
    finish(ids[0])
    claim(services.jobs, ids[1])
    fail(services.jobs, ids[1], JobError(code="MODEL_ERROR", detail="x"))
    claim(services.jobs, ids[2])
    canceled = client.post(batch["links"]["cancel"])
    assert (canceled.status_code, canceled.json["canceled"], canceled.json["left"]) == (202, 4, 0)
    assert canceled.json["counts"]["canceled"] == 4
    assert not succeed(services.jobs, ids[2], {})
    retried = client.post(canceled.json["links"]["retry"])
    assert (retried.status_code, retried.json["retried"]) == (202, 1)
    assert services.jobs.get(ids[1]).status == "queued"
    assert retried.json["status"] == "running"
    assert client.post(batch["links"]["cancel"]).json["canceled"] == 1


def test_a_retry_of_a_batch_takes_what_there_is_room_for(
    client: FlaskClient, services: Services, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that expired, too; behind the first that finds none nothing is tried; the rest comes later."""
    monkeypatch.setattr("api.batch_actions._AT_ONCE", 2)
    tiles = {f"{number}.png": png_bytes(32, 32, seed=number) for number in range(7)}
    batch = send_files(client, tiles, query_string={"expires_in": "60"}).json
    ids = [item["id"] for item in batch["items"]]
    claim(services.jobs, ids[0])
    fail(services.jobs, ids[0], JobError(code="MODEL_ERROR", detail="x"))
    clock.advance(61)
    services.jobs.reap(services.jobs.due({}, 100), {})
    for seed in range(18):
        assert client.post("/predict", data=png_bytes(seed=seed), content_type="image/png").status_code == 202
    tried, retry = [], services.jobs.retry

    def note(job_id: str, *limits: int) -> Any:
        tried.append(job_id)
        return retry(job_id, *limits)

    monkeypatch.setattr(services.jobs, "retry", note)
    answer = client.post(f"{batch['links']['self']}/retry")
    assert (answer.json["retried"], answer.json["left"], answer.json["problems"]) == (2, 5, [])
    assert (sorted(tried), answer.headers["Retry-After"]) == (sorted(ids[:4]), "1")
    for job_id in services.jobs.members(batch["id"], 0, 2):
        services.jobs.cancel(job_id)
    answer = client.post(f"{batch['links']['self']}/retry")
    assert (answer.json["retried"], answer.json["left"]) == (2, 3)


def test_a_batch_that_takes_too_long_is_gone_on_with_by_the_same_request(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not reached is told, and nothing was done to it."""
    batch = send_files(client, TILES).json
    with monkeypatch.context() as patch:
        patch.setattr("api.batch_actions.LONGEST_SECONDS", -1.0)
        late = client.post(batch["links"]["cancel"])
    assert (late.json["canceled"], late.json["left"], late.json["counts"]["queued"]) == (0, 3, 3)
    assert late.headers["Retry-After"] == "1"
    again = client.post(batch["links"]["cancel"])
    assert (again.json["canceled"], again.json["left"]) == (3, 0)


def test_what_changes_while_a_batch_is_retried_holds_up_no_other(
    client: FlaskClient, services: Services, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has a result by then and needs no retry; one is deleted, which is a problem of its own."""
    batch = send_files(client, TILES).json
    done, deleted, failed = (item["id"] for item in batch["items"])
    finish(done)
    client.delete(f"/result/{deleted}")
    claim(services.jobs, failed)
    fail(services.jobs, failed, JobError(code="MODEL_ERROR", detail="x"))
    monkeypatch.setattr(services.jobs, "statuses", lambda job_ids: [JobStatus.FAILED] * len(job_ids))
    answer = client.post(f"{batch['links']['self']}/retry")
    assert (answer.json["retried"], answer.json["left"]) == (1, 0)
    assert [(item["id"], item["code"]) for item in answer.json["problems"]] == [(deleted, "RESULT_EXPIRED")]

"""The routes of webhooks: what is accepted, what is refused, and what became of the telling."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api import create_app
from api.context import context
from ops.prepare import webhook_secret
from shared.api_keys import KeyStore, Scope
from shared.deliveries import DeliveryState, Try, job_subject
from shared.envelope import read_job
from shared.services import Services
from shared.settings import Settings
from tests.factories import jpeg_bytes
from tests.work import Clock

URL = "https://receiver.example.org/hook?token=s3cret"


@pytest.fixture
def settings() -> Settings:
    """Those of an installation that sends webhooks, also to one private network."""
    return Settings(webhook_secret=webhook_secret(), webhook_allow_cidrs="10.1.0.0/16")


def accept(client: FlaskClient, **options: str) -> Any:
    """Submit a tile."""
    return client.post("/predict", query_string=options, data=jpeg_bytes(), content_type="image/jpeg")


@pytest.mark.parametrize("url", [URL, "http://10.1.2.3:8080/", "https://[2606:4700:4700::1111]/", "http://a"])
def test_a_url_is_accepted_and_kept_with_the_image(client: FlaskClient, services: Services, url: str) -> None:
    """It survives a loss of Redis' data; no answer shows it."""
    answer = accept(client, webhook_url=url)
    assert answer.status_code == 202
    job = services.jobs.get(answer.get_json()["id"])
    assert job.spec.webhook_url == url
    upload = services.objects.get(job.spec.input.key, 1_000_000)
    assert read_job(upload).job.spec.webhook_url == url
    assert "receiver" not in answer.text
    assert answer.get_json()["links"]["deliveries"] == f"/result/{job.id}/deliveries"


def test_it_may_be_a_form_field(client: FlaskClient, services: Services) -> None:
    """As every option."""
    form = {"file": (io.BytesIO(jpeg_bytes()), "tile.jpg"), "webhook_url": URL}
    answer = client.post("/predict", data=form)
    assert services.jobs.get(answer.get_json()["id"]).spec.webhook_url == URL


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://a/", "https://user:s3cret@a.example/", "https://a.example/#x", "http://a.example/ü"],
)
def test_what_is_no_url_is_a_400(client: FlaskClient, services: Services, url: str) -> None:
    """Nothing is stored, and the answer does not repeat what may be a secret."""
    answer = accept(client, webhook_url=url)
    assert (answer.status_code, answer.get_json()["code"]) == (400, "INVALID_REQUEST")
    assert "s3cret" not in answer.text
    assert services.jobs.totals().accepted == 0


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://169.254.169.254/latest/meta-data/",
            "http://127.0.0.1:6379/",
            "http://localhost/",
            "http://[::1]/",
        ),
        *("http://2130706433/", "http://0x7f.1/", "http://10.2.0.1/", "http://[::ffff:10.1.2.3]/"),
    ],
)
def test_an_address_inside_is_a_422(client: FlaskClient, services: Services, url: str) -> None:
    """With a code of its own."""
    answer = accept(client, webhook_url=url)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "WEBHOOK_REFUSED")
    assert services.jobs.totals().accepted == 0


def test_without_a_secret_no_webhook_is_promised(services: Services) -> None:
    """Nothing could be signed, so nothing would be sent."""
    client = create_app(services, Settings()).test_client()
    answer = accept(client, webhook_url=URL)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "WEBHOOKS_OFF")
    assert accept(client).status_code == 202


def test_another_webhook_is_another_request(client: FlaskClient) -> None:
    """For an Idempotency-Key."""
    headers = {"Idempotency-Key": "k"}
    for url, status in ((URL, 202), (URL, 202), (URL + "2", 422)):
        answer = client.post(
            "/predict",
            query_string={"webhook_url": url},
            data=jpeg_bytes(),
            content_type="image/jpeg",
            headers=headers,
        )
        assert answer.status_code == status


def test_what_became_of_it_is_shown(
    client: FlaskClient, services: Services, finish: Callable[[str], None], clock: Clock
) -> None:
    """State, attempts, the next one; neither the URL nor an address."""
    job_id = accept(client, webhook_url=URL).get_json()["id"]
    path = f"/result/{job_id}/deliveries"
    empty = client.get(path).get_json()
    assert (empty["deliveries"], empty["disabled"], empty["links"]["redeliver"]) == ([], False, None)
    assert client.post(f"/result/{job_id}/redeliver").status_code == 409
    finish(job_id)
    (taken,) = services.deliveries.take(4, 4, 60)
    assert services.deliveries.claim(taken, "t", 30)
    made = Try(at_ms=clock.now_ms, status=503, error="not_accepted", duration_ms=12)
    services.deliveries.settle(taken.delivery_id, "t", DeliveryState.PENDING, made, 60)
    answer = client.get(path)
    assert answer.get_json() == {
        "job": job_id,
        "disabled": False,
        "deliveries": [
            {
                "id": taken.delivery_id,
                "event": "job.succeeded",
                "state": "pending",
                "announced_at": "2027-01-15T08:00:00.125Z",
                "attempt": 1,
                "next_attempt_at": "2027-01-15T08:01:00.125Z",
                "tries": [
                    {
                        "at": "2027-01-15T08:00:00.125Z",
                        "status": 503,
                        "error": "not_accepted",
                        "duration_ms": 12,
                    }
                ],
            }
        ],
        "links": {"job": f"/result/{job_id}", "redeliver": f"/result/{job_id}/redeliver"},
    }
    assert "receiver.example.org" not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    clock.advance(1)
    again = client.post(f"/result/{job_id}/redeliver")
    assert again.status_code == 202
    (told,) = again.get_json()["deliveries"]
    assert (told["id"], told["next_attempt_at"]) == (taken.delivery_id, "2027-01-15T08:00:01.125Z")


def test_unknown_and_deleted_jobs_answer_as_everywhere(client: FlaskClient) -> None:
    """404 and 410."""
    job_id = accept(client, webhook_url=URL).get_json()["id"]
    client.delete(f"/result/{job_id}")
    for method, name in (("GET", "deliveries"), ("POST", "redeliver")):
        for path, status in ((job_id, 410), ("x", 404), ("0192f0c4-5b1e-4c1b-9d43-2f6f0f6f8a11", 404)):
            assert client.open(f"/result/{path}/{name}", method=method).status_code == status


def test_deliveries_are_their_owners(
    app: Flask, client: FlaskClient, services: Services, finish: Callable[[str], None]
) -> None:
    """For another key there is no such job; reading and sending once more need their scopes."""
    store = KeyStore(services.objects)

    def key(*scopes: Scope) -> dict[str, str]:
        return {"X-API-Key": store.create("k", frozenset(scopes))[1]}

    mine, other = key(Scope.SUBMIT, Scope.READ), key(Scope.SUBMIT, Scope.READ)
    reader, admin = key(Scope.READ), key(Scope.ADMIN)
    context(app).keys.refresh()
    answer = client.post(
        "/predict",
        query_string={"webhook_url": URL},
        data=jpeg_bytes(),
        content_type="image/jpeg",
        headers=mine,
    )
    job_id = answer.get_json()["id"]
    finish(job_id)
    show, again = f"/result/{job_id}/deliveries", f"/result/{job_id}/redeliver"
    asked = [client.get(show, headers=headers).status_code for headers in ({}, mine, other, reader, admin)]
    assert asked == [401, 200, 404, 404, 200]
    sent = [client.post(again, headers=headers).status_code for headers in ({}, mine, other, reader, admin)]
    assert sent == [401, 202, 404, 403, 202]
    assert services.deliveries.of(job_subject(job_id))[0].attempt == 0

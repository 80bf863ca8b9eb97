"""What one API key may have and send; the others are not held up by it."""

from typing import Any

import pytest
from flask import Flask

from api import create_app
from api.context import context
from shared.api_keys import KeyStore, Scope
from shared.services import Services
from shared.settings import Settings
from tests.factories import jpeg_bytes


@pytest.fixture
def limited(services: Services, settings: Settings) -> Flask:
    """An application that admits two open jobs and six requests a minute of one key."""
    changes = {"max_open_jobs_per_key": 2, "max_requests_per_minute": 6}
    return create_app(services, settings.model_copy(update=changes))


@pytest.fixture
def key(limited: Flask, services: Services) -> Any:
    """Make a key; return the header that carries it."""

    def make() -> dict[str, str]:
        text = KeyStore(services.objects).create("a", frozenset({Scope.SUBMIT, Scope.READ}))[1]
        context(limited).keys.refresh()
        return {"X-API-Key": text}

    return make


def post(app: Flask, headers: dict[str, str]) -> Any:
    """Submit the one tile."""
    return app.test_client().post("/predict", data=jpeg_bytes(), content_type="image/jpeg", headers=headers)


def test_a_key_has_as_many_open_jobs_as_it_may(
    limited: Flask, key: Any, services: Services, finish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """429 with the numbers, nothing stored; another key is not held up; an end makes room."""
    one, two = key(), key()
    jobs = [post(limited, one).get_json()["id"] for _ in range(2)]
    with monkeypatch.context() as patch:
        # It is not even tried.
        patch.setattr(services.objects, "put", None)
        refused = post(limited, one)
    assert (refused.status_code, refused.get_json()["code"]) == (429, "QUOTA_REACHED")
    assert (refused.get_json()["queue_depth"], refused.get_json()["limit"]) == (2, 2)
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    assert len(services.objects.list_keys("uploads/")) == 2
    assert post(limited, two).status_code == 202
    finish(jobs[0])
    assert post(limited, one).status_code == 202


def test_a_retry_counts_against_the_quota(limited: Flask, key: Any) -> None:
    """It opens a job as a submission does."""
    one = key()
    first = post(limited, one).get_json()["links"]
    client = limited.test_client()
    assert client.post(first["cancel"], headers=one).status_code == 200
    for _ in range(2):
        assert post(limited, one).status_code == 202
    answer = client.post(f"{first['self']}/retry", headers=one)
    assert (answer.status_code, answer.get_json()["code"]) == (429, "QUOTA_REACHED")


def test_a_key_that_asks_too_often_is_told_when_to_come_back(limited: Flask, key: Any) -> None:
    """429 RATE_LIMITED, within the minute; another key, and what needs none, go on."""
    one, two = key(), key()
    client = limited.test_client()
    answers = [client.get("/capacity", headers=one) for _ in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 6 + [429]
    assert (answers[-1].get_json()["code"], answers[-1].get_json()["limit"]) == ("RATE_LIMITED", 6)
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert client.get("/capacity", headers=two).status_code == 200
    assert client.get("/healthz", headers=one).status_code == 200


def test_without_keys_nobody_is_counted(limited: Flask) -> None:
    """On loopback, with nothing configured, there is nobody to tell apart."""
    client = limited.test_client()
    assert {client.get("/capacity").status_code for _ in range(8)} == {200}

"""Alive is not ready, and ready says why it is not."""

import threading
import time
from dataclasses import replace

import pytest
from flask.testing import FlaskClient
from structlog.testing import capture_logs

from api import create_app, health
from api.context import context
from shared.errors import JobStoreUnavailable
from shared.schemas import WorkerStatus
from shared.services import Services
from shared.settings import Settings


class Pinging:
    """A store of which only the ping is of interest."""

    def __init__(self, ping: object) -> None:
        self.ping = ping


def test_an_idle_process_is_alive_whatever_is_away(bare_services: Services, settings: Settings) -> None:
    """It asks nobody."""
    answer = create_app(bare_services, settings).test_client().get("/healthz")
    assert answer.status_code == 200
    assert answer.get_json() == {"status": "ok", "notice": "Research use only, not for diagnostic use."}


def test_ready_means_that_a_job_would_be_done(client: FlaskClient) -> None:
    """Both stores, a model and a worker are there."""
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.get_json() == {
        "status": "ready",
        "checks": {"job_store": "ok", "object_store": "ok", "model": "ok", "worker": "ok"},
    }


def test_each_reason_is_told(bare_services: Services, settings: Settings) -> None:
    """No model is published, and the only worker has loaded another one."""
    bare_services.workers.report(
        WorkerStatus(name="w1", model_name="colon-cnn", model_version="1.0.0", reported_at_ms=0)
    )
    answer = create_app(bare_services, settings).test_client().get("/readyz")
    problem = answer.get_json()
    assert (answer.status_code, answer.mimetype) == (503, "application/problem+json")
    assert (problem["code"], answer.headers["Retry-After"]) == ("NOT_READY", "2")
    assert [reason.partition(":")[0] for reason in problem["reasons"]] == ["model", "worker"]
    assert problem["checks"]["job_store"] == "ok"


def test_what_keeps_a_worker_from_beginning_is_told(services: Services, settings: Settings) -> None:
    """Such as a model that is damaged: until it is mended no worker ever reports."""
    services.workers.complain("Expected model.keras to have the digest of its manifest.")
    client = create_app(services, settings).test_client()
    assert client.get("/readyz").status_code == 200
    services.workers.withdraw("w1")
    (reason,) = client.get("/readyz").get_json()["reasons"]
    assert reason.endswith(
        "None has reported lately. One that cannot begin says: "
        "Expected model.keras to have the digest of its manifest."
    )


def test_a_live_version_that_every_worker_refuses_is_told(services: Services, settings: Settings) -> None:
    """New jobs would wait for it without end, although the workers go on with those of an older version."""

    def report(name: str, refused: dict[str, str]) -> None:
        status = {"name": name, "model_name": "lung-cnn", "model_version": "0.9.0", "reported_at_ms": 0}
        services.workers.report(WorkerStatus.model_validate({**status, "refused": refused}))

    client = create_app(services, settings).test_client()
    report("w1", {"0.8.0": "Expected other probabilities."})
    assert client.get("/readyz").status_code == 200
    report("w1", {"1.0.0": "Expected probabilities (0.9, 0.1) for golden-1.png."})
    (reason,) = client.get("/readyz").get_json()["reasons"]
    assert reason == (
        "worker: Expected a worker that can run lung-cnn 1.0.0, which new jobs get. Each refuses it: "
        "Expected probabilities (0.9, 0.1) for golden-1.png."
    )
    report("w2", {})
    assert client.get("/readyz").status_code == 200


def test_a_store_that_hangs_does_not_hang_the_answer(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer names it, and later ones come as fast although its threads are all taken."""
    monkeypatch.setattr(health, "CHECKS_SECONDS", 0.2)
    release, pings = threading.Event(), []

    def hang() -> None:
        pings.append(1)
        release.wait()

    hanging = replace(services, objects=Pinging(hang))  # type: ignore[arg-type]
    app = create_app(hanging, settings)
    client, checkers = app.test_client(), context(app).checkers
    try:
        for _ in range(10):
            began = time.monotonic()
            answer = client.get("/readyz")
            assert answer.status_code == 503
            assert answer.get_json()["checks"]["object_store"] == "failing"
            assert time.monotonic() - began < 1
    finally:
        release.set()
    # What found no thread is not done afterwards, for nobody.
    checkers.shutdown()
    assert len(pings) <= checkers._max_workers


def test_a_store_that_refuses_or_breaks_is_told_without_its_inside(
    services: Services, settings: Settings
) -> None:
    """An address or a traceback is for the log."""

    def refuse() -> None:
        raise JobStoreUnavailable("The job store does not answer. Ask again later.")

    def explode() -> None:
        raise RuntimeError("redis://secret@host")

    broken = replace(services, jobs=Pinging(refuse), objects=Pinging(explode))  # type: ignore[arg-type]
    answer = create_app(broken, settings).test_client().get("/readyz")
    assert answer.get_json()["reasons"] == [
        "job_store: The job store does not answer. Ask again later.",
        "object_store: The check broke; the log says why.",
    ]


def test_the_log_says_once_why_it_is_not_ready_and_when_it_is_again(
    services: Services, settings: Settings
) -> None:
    """With the cause that no client is told, and not again with every probe."""
    trouble = [True]

    def refuse() -> None:
        if trouble:
            raise JobStoreUnavailable("The job store does not answer.") from OSError("invalid password")

    broken = replace(services, jobs=Pinging(refuse))  # type: ignore[arg-type]
    client = create_app(broken, settings).test_client()
    with capture_logs() as logs:
        answers = [client.get("/readyz") for _ in range(3)]
        trouble.clear()
        answers += [client.get("/readyz") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503] * 3 + [200] * 3
    assert all("password" not in answer.get_data(as_text=True) for answer in answers)
    ours = [entry for entry in logs if entry["event"] in ("not_ready", "ready_again")]
    assert [(entry["event"], entry["check"], entry.get("cause")) for entry in ours] == [
        ("not_ready", "job_store", "invalid password"),
        ("ready_again", "job_store", None),
    ]

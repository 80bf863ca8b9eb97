"""Server-sent events: the job as it is, then each change, and the end with its end."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api import events
from api.context import context
from shared.services import Services

Submit = Callable[..., Any]


@pytest.fixture(autouse=True)
def listeners_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener leaves right after its last waiter."""
    monkeypatch.setattr(events, "LINGER_SECONDS", 0.0)


def told(body: str) -> list[tuple[int, dict[str, Any]]]:
    """Return the events of a stream: id and job."""
    blocks = [
        dict(line.split(": ", 1) for line in block.splitlines()) for block in body.split("\n\n") if block
    ]
    return [(int(block["id"]), json.loads(block["data"])) for block in blocks if "data" in block]


def test_a_stream_tells_every_change_and_ends(
    submit: Submit, client: FlaskClient, services: Services, finish: Callable[[str], None]
) -> None:
    """Queued, then its end; each event is the whole job, its id the version."""
    job = submit().get_json()
    timer = threading.Timer(0.3, finish, [job["id"]])
    timer.start()
    answer = client.get(job["links"]["events"])
    timer.join()
    assert answer.content_type == "text/event-stream; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    heard = told(answer.get_data(as_text=True))
    assert heard[0][1]["status"] == "queued"
    assert heard[-1][1]["status"] == "succeeded"
    assert heard[-1][1]["result"]["class"] == "lung_aca"
    assert [number for number, _ in heard] == sorted({number for number, _ in heard})
    assert heard[-1][0] == services.jobs.get(job["id"]).version


def test_what_was_told_is_not_told_again(
    submit: Submit, client: FlaskClient, services: Services, finish: Callable[[str], None]
) -> None:
    """A client that comes again names the last event that it had."""
    job_id = submit().get_json()["id"]
    first = services.jobs.get(job_id).version
    timer = threading.Timer(0.3, finish, [job_id])
    timer.start()
    resumed = client.get(f"/result/{job_id}/events", headers={"Last-Event-ID": str(first)})
    heard = told(resumed.get_data(as_text=True))
    timer.join()
    assert [job["status"] for _, job in heard][-1] == "succeeded"
    assert first not in [number for number, _ in heard]
    last = services.jobs.get(job_id).version
    over = client.get(f"/result/{job_id}/events", headers={"Last-Event-ID": str(last)})
    assert (over.status_code, over.data) == (204, b"")


def test_an_ended_job_is_told_once(
    submit: Submit, client: FlaskClient, finish: Callable[[str], None]
) -> None:
    """Whoever comes late, or with an id of something else, gets the end at once."""
    job_id = submit().get_json()["id"]
    finish(job_id)
    for headers in ({}, {"Last-Event-ID": "nonsense"}):
        heard = told(client.get(f"/result/{job_id}/events", headers=headers).get_data(as_text=True))
        assert [job["status"] for _, job in heard] == ["succeeded"]


def test_a_quiet_stream_says_that_it_lives(
    submit: Submit, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comment now and then; and it ends before the server would end it."""
    monkeypatch.setattr(events, "KEEPALIVE_SECONDS", 0.0)
    monkeypatch.setattr(events, "REREAD_SECONDS", 0.05)
    monkeypatch.setattr(events, "LONGEST_STREAM_SECONDS", 0.5)
    body = client.get(submit().get_json()["links"]["events"]).get_data(as_text=True)
    assert body.startswith("retry: 1000\n\n")
    assert body.count(": nothing new") >= 2
    assert len(told(body)) == 1


def test_a_stopping_server_ends_its_streams(submit: Submit, app: Flask) -> None:
    """Their clients go on elsewhere; none delays the stop until its time is over."""
    stopping = threading.Event()
    context(app).waiting.stop_when(stopping.is_set)
    timer = threading.Timer(0.2, stopping.set)
    timer.start()
    began = time.monotonic()
    body = app.test_client().get(submit().get_json()["links"]["events"]).get_data(as_text=True)
    assert time.monotonic() - began < events.REREAD_SECONDS + 0.5
    assert [job["status"] for _, job in told(body)] == ["queued"]
    timer.join()


def test_a_deleted_job_ends_its_streams(submit: Submit, client: FlaskClient, services: Services) -> None:
    """The next request is told 410."""
    job_id = submit().get_json()["id"]
    timer = threading.Timer(0.3, services.jobs.delete, [job_id])
    timer.start()
    heard = told(client.get(f"/result/{job_id}/events").get_data(as_text=True))
    timer.join()
    assert [job["status"] for _, job in heard] == ["queued"]


def test_where_all_seats_are_taken_a_stream_is_the_job_as_it_is(
    submit: Submit, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends at once, and says when to come again."""
    monkeypatch.setattr(events.WaitingRoom, "_enter", lambda *_: False)
    body = client.get(submit().get_json()["links"]["events"]).get_data(as_text=True)
    assert [job["status"] for _, job in told(body)] == ["queued"]


def test_an_unknown_job_has_no_events(client: FlaskClient) -> None:
    """A problem document, and no stream."""
    answer = client.get("/result/nothing/events")
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")

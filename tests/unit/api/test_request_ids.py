"""Every request can be found by one id: the caller's, that of its trace, or one that it is given."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from flask.testing import FlaskClient

from shared.services import Services

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def test_the_trace_names_the_request_and_its_job(
    submit: Callable[..., Any], client: FlaskClient, services: Services
) -> None:
    """The answer carries it, and so does the record that the worker logs by."""
    answer = submit(headers={"traceparent": PARENT})
    assert answer.headers["X-Request-Id"] == TRACE
    assert services.jobs.get(answer.get_json()["id"]).spec.request_id == TRACE
    problem = client.get("/nowhere", headers={"traceparent": PARENT}).get_json()
    assert problem["request_id"] == TRACE


def test_each_request_is_one_line_of_the_log(client: FlaskClient) -> None:
    """By its rule and never by its path, which is the caller's text; probes would drown the others."""
    with structlog.testing.capture_logs() as logs:
        for path in ("/result/patient-4711", "/patient-4711", "/healthz", "/readyz"):
            client.get(path)
    lines = [line for line in logs if line["event"] == "request"]
    assert [(line["log_level"], line["method"], line["route"], line["status"]) for line in lines] == [
        ("info", "GET", "/result/<any_id:job_id>", 404),
        ("info", "GET", None, 404),
        ("debug", "GET", "/healthz", 200),
        ("debug", "GET", "/readyz", 200),
    ]
    assert "4711" not in str(lines)


def test_an_id_of_the_callers_own_comes_first(client: FlaskClient) -> None:
    """The trace then stands beside it in the log."""
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        answer = client.get("/models", headers={"X-Request-Id": "mine-1", "traceparent": PARENT})
    assert answer.headers["X-Request-Id"] == "mine-1"
    (line,) = [line for line in logs if line["event"] == "request"]
    assert (line["request_id"], line["trace_id"]) == ("mine-1", TRACE)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "00",
        PARENT.upper(),
        PARENT[:-1],
        PARENT.replace("00-", "ff-", 1),
        PARENT.replace(TRACE, "0" * 32),
        PARENT.replace("00f067aa0ba902b7", "0" * 16),
        PARENT.replace(TRACE, TRACE[:-1] + "\u00e4"),
    ],
)
def test_what_is_no_trace_names_nothing(client: FlaskClient, given: str) -> None:
    """The request is given an id of its own, and no error."""
    answer = client.get("/healthz", headers={"traceparent": given})
    assert answer.status_code == 200
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", answer.headers["X-Request-Id"])


def test_a_later_version_of_the_header_is_read_as_this_one(client: FlaskClient) -> None:
    """What comes behind is left aside, as its standard asks."""
    later = f"01-{TRACE}-00f067aa0ba902b7-01-something"
    assert client.get("/healthz", headers={"traceparent": later}).headers["X-Request-Id"] == TRACE

"""Every error has one row, one documented form, and gives nothing away."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.error_reference import reference_page
from shared import errors
from shared.problems import PROBLEMS, REFERENCE, anchor
from shared.services import Services

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "errors.md"


def subclasses(kind: type[errors.HistoQueueError]) -> Iterator[type[errors.HistoQueueError]]:
    """Walk the error tree."""
    yield kind
    for child in kind.__subclasses__():
        yield from subclasses(child)


def test_every_error_has_a_row() -> None:
    """A new error cannot be forgotten here."""
    codes = {kind.code for kind in subclasses(errors.HistoQueueError) if kind.__module__ == "shared.errors"}
    assert codes <= PROBLEMS.keys()


def test_the_branches_of_the_tree_agree_with_the_rows() -> None:
    """The caller's errors are 4xx and never retried as they are; what is away is retried."""
    for kind in subclasses(errors.CallerError):
        if kind is not errors.CallerError:
            assert 400 <= PROBLEMS[kind.code].status < 500
            assert not PROBLEMS[kind.code].retryable
    for kind in subclasses(errors.Unavailable):
        assert PROBLEMS[kind.code].status in (429, 503)
        assert PROBLEMS[kind.code].retryable


def test_the_reference_page_lists_every_code() -> None:
    """It is written by `python -m api.error_reference`."""
    assert PAGE.read_text(encoding="utf-8") == reference_page()


def test_the_type_of_every_problem_leads_to_its_heading(client: FlaskClient) -> None:
    """On a page that needs no key, of the server that said it."""
    page = client.get(REFERENCE)
    assert page.status_code == 200
    for code, kind in PROBLEMS.items():
        assert f'<h2 id="{anchor(code)}">{kind.title}</h2>' in page.text
        assert f"<code>{code}</code>" in page.text
    assert "not for diagnostic use" in page.text


def test_a_problem_has_all_its_members(client: FlaskClient) -> None:
    """RFC 9457's, and ours."""
    answer = client.get("/result/nothing", headers={"X-Request-Id": "abc"})
    assert answer.content_type == "application/problem+json"
    assert answer.get_json() == {
        "type": "/docs/errors#job-not-found",
        "title": "There is no such job",
        "status": 404,
        "detail": "Expected an id that POST /predict returned. Received: 'nothing'",
        "instance": "/result/nothing",
        "code": "JOB_NOT_FOUND",
        "retryable": False,
        "request_id": "abc",
    }


def test_an_unexpected_error_tells_the_client_nothing(
    app: Flask, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log has the traceback, the answer has the id to find it by."""

    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError("secret inside")

    answer = app.test_client().get("/broken", headers={"X-Request-Id": "find-me"})
    assert (answer.status_code, answer.get_json()["code"]) == (500, "INTERNAL")
    assert answer.get_json()["request_id"] == "find-me"
    assert "secret" not in answer.text
    logged = caplog.text + capsys.readouterr().out
    assert "unexpected_error" in logged
    assert "secret inside" in logged


def test_a_model_that_is_not_sound_is_the_operators_to_mend(
    services: Services,
    client: FlaskClient,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """503: the caller can do nothing but come back."""
    services.objects.put("models/lung-cnn/current.json", b"{}", "application/json")
    services.models._live = None
    answer = client.get("/models")
    assert (answer.status_code, answer.get_json()["code"]) == (503, "INVALID_MODEL")
    assert "operator_must_act" in caplog.text + capsys.readouterr().out


@pytest.mark.parametrize("given", ["ok-1.2_x", "a" * 128])
def test_a_request_id_is_taken_over(client: FlaskClient, given: str) -> None:
    """So that a caller finds its request in our log."""
    assert client.get("/healthz", headers={"X-Request-Id": given}).headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "a b", "a" * 129, "<script>", "ä", "a\tb"])
def test_a_request_id_that_is_none_is_replaced(client: FlaskClient, given: str) -> None:
    """It goes into headers and log lines."""
    answered = client.get("/nowhere", headers={"X-Request-Id": given}).headers["X-Request-Id"]
    assert answered != given
    assert len(answered) == 36

"""What `histoqueue doctor` finds out."""

import email.utils
import json
from datetime import UTC, datetime, timedelta

import pytest
from flask import Response, request
from histoqueue import _doctor, _http
from histoqueue._cli import main

from tests.api_server import ApiServer

Output = pytest.CaptureFixture[str]


def test_doctor_examines_everything(server: ApiServer, capsys: Output) -> None:
    """Both ends, what lies between, and what the server admits."""
    assert main(["doctor"]) == 0
    lines = {line[4:13].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert list(lines) == ["client", "library", "server", "clock", "ready", "version", "model", "limits"]
    assert all(line.startswith("ok") for line in lines.values())
    assert lines["model"] == "ok  model    1.0.0"
    assert lines["limits"] == "ok  limits   0 of at most 500 jobs open, 1 workers"
    assert lines["version"].startswith("ok  version  server ")


def test_doctor_takes_no_page_for_the_server(server: ApiServer, capsys: Output) -> None:
    """It says what answers, and looks no further."""
    server.app.before_request(lambda: Response("<title>Log in</title>", content_type="text/html"))
    assert main(["doctor"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert "Received: status 200, text/html, '<title>Log in</title>'" in lines[-1]
    assert [line[:3].strip() for line in lines] == ["ok", "ok", "BAD"]


def test_doctor_shows_no_password(capsys: Output) -> None:
    """An address may hold one, for a proxy in front of the server; what doctor says is sent to others."""
    assert main(["doctor", "--server", "http://lab:hunter2@127.0.0.1:9/tiles"]) == 3
    shown = capsys.readouterr()
    assert "http://127.0.0.1:9/tiles" in shown.out
    assert "hunter2" not in shown.out + shown.err


def test_doctor_finds_a_server_without_a_worker(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """In the server's words, and the status tells that all is not well."""
    monkeypatch.setattr(server.services.workers, "live", list)
    assert main(["doctor", "--json"]) == 3
    found = {line["what"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert found["ready"]["is_well"] is False
    assert "worker" in found["ready"]["text"]


@pytest.mark.parametrize(
    ("seconds", "is_well", "text"), [(0, True, ""), (3600, False, "behind"), (-3600, False, "ahead of")]
)
def test_doctor_compares_the_clocks(seconds: int, is_well: bool, text: str) -> None:
    """Retention and dates are told by the server's."""
    date = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
    finding = _doctor._clock(_http.Answer(200, {"Date": date}, b""))
    assert finding.is_well is is_well
    assert text in finding.text


def test_doctor_says_that_no_version_is_live(server: ApiServer, capsys: Output) -> None:
    """In a word, not in one of Python's."""
    empty = json.dumps({"live": None, "versions": []})
    server.app.before_request(lambda: Response(empty) if request.path == "/models" else None)
    main(["doctor"])
    assert "model    none live" in capsys.readouterr().out


@pytest.mark.parametrize("body", [b"", b"<html>"])
def test_a_server_without_a_date_is_no_fault(body: bytes) -> None:
    """Nothing can be said of its clock."""
    finding = _doctor._clock(_http.Answer(200, {}, body))
    assert finding.is_well is None

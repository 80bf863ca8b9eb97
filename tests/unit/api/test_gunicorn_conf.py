"""What gunicorn is told."""

import runpy

import pytest

from api import gunicorn_conf


def test_a_server_without_a_process_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would listen, and answer nobody."""
    monkeypatch.setenv("WEB_CONCURRENCY", "0")
    with pytest.raises(SystemExit, match=r"^error: WEB_CONCURRENCY: expected 1 process"):
        runpy.run_path(gunicorn_conf.__file__)

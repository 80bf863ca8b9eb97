"""No answer can be framed, sniffed or run in a browser; a page runs what this server sends alone."""

import re

import pytest
from flask.testing import FlaskClient

PATHS = ["/", "/healthz", "/readyz", "/models", "/nowhere"]
PATHS += ["/openapi.json", "/docs", "/docs/errors", "/docs/start.js"]


@pytest.mark.parametrize("path", [*PATHS, "/result/x/events", "/result/x/heatmap.png"])
def test_every_answer_forbids_what_it_does_not_need(client: FlaskClient, path: str) -> None:
    """Also a problem, a script and what is no route at all."""
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/docs"])
def test_data_may_load_nothing(client: FlaskClient, path: str) -> None:
    """Opened in a browser, an answer stays text."""
    assert client.get(path).headers["Content-Security-Policy"].startswith("default-src 'none'; frame")


def test_a_page_runs_what_it_names_from_this_server_and_no_inline_script(client: FlaskClient) -> None:
    """Its policy allows what it loads, and a script that somebody smuggled into it would not run."""
    answer = client.get("/docs")
    policy = answer.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert re.findall(r"<script(?! src=)", answer.text) == []
    loaded = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert len(loaded) == 3
    for path in loaded:
        assert path.startswith("/docs/")
        with client.get(path) as asset:
            assert asset.status_code == 200

"""What stands at the root: a page for browsers, the routes for everything else."""

import re

import pytest
from flask.testing import FlaskClient

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


def test_a_browser_gets_the_page_and_all_that_it_names_is_there(client: FlaskClient) -> None:
    """From this server alone, and with no script in the page itself."""
    answer = client.get("/", headers={"Accept": BROWSER})
    assert answer.content_type == "text/html; charset=utf-8"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert "Research use only, not for diagnostic use." in answer.text
    assert re.findall(r"<script(?!.* src=)|\son\w+=|style=", answer.text) == []
    paths = re.findall(r'(?:src|href|action)="([^"]+)"', answer.text)
    assert len(paths) == 6
    for path in paths:
        assert path.startswith("/")
        if path != "/predict":
            with client.get(path) as asset:
                assert asset.status_code == 200, path


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/json, text/html;q=0.5"])
def test_a_program_gets_the_routes(client: FlaskClient, accept: str | None) -> None:
    """As it always did."""
    answer = client.get("/", headers={"Accept": accept} if accept else {})
    assert answer.get_json()["links"] == {
        "predict": "/predict",
        "models": "/models",
        "capacity": "/capacity",
        "metrics": "/metrics",
        "contract": "/openapi.json",
        "docs": "/docs",
        "live": "/healthz",
        "ready": "/readyz",
    }
    assert answer.headers["Vary"] == "Accept"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; frame")


def test_the_page_runs_its_own_scripts_and_styles_and_nothing_else(client: FlaskClient) -> None:
    """What somebody smuggled into it would not run, and not even change its looks."""
    policy = client.get("/", headers={"Accept": BROWSER}).headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "style-src 'self';" in policy
    # Nor could it send the key's form, or what the page asks for, elsewhere.
    assert "form-action 'self'; base-uri 'none';" in policy
    assert "unsafe" not in policy


def test_an_asset_is_one_of_the_pages_and_no_other_file(client: FlaskClient) -> None:
    """A path does not lead out of their folder."""
    for name in ("page.js", "page.css", "icon.svg", "example.png"):
        with client.get(f"/static/{name}") as answer:
            assert answer.status_code == 200
    for name in ("../web.py", "%2e%2e/web.py", "nothing.js", "../templates/page.html"):
        assert client.get(f"/static/{name}").status_code == 404


def test_a_range_that_lies_beyond_an_asset_is_told_how_long_that_is(client: FlaskClient) -> None:
    """RFC 9110: who asked can ask for a part that is there."""
    with client.get("/static/page.css") as whole:
        length = len(whole.data)
    answer = client.get("/static/page.css", headers={"Range": f"bytes={length}-"})
    assert (answer.status_code, answer.content_type) == (416, "application/problem+json")
    assert answer.headers["Content-Range"] == f"bytes */{length}"

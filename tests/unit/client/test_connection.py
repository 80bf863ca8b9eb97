"""How a server is reached: its address, its certificate, and the key that goes to it alone."""

import json
import time
from pathlib import Path

import httpx2
import pytest
from histoqueue import Client, ServerUnreachable, UnexpectedAnswer
from histoqueue._connection import Connection

from tests.api_server import ApiServer
from tests.factories import png_bytes
from tests.tls import TlsFront, make_certificates


def test_the_api_key_goes_to_its_server_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a bearer token; a link to another host is not followed."""
    asked: list[httpx2.Request] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        job = {"id": "a1", "status": "queued", "links": {"self": "//elsewhere.example/result/a1"}}
        return httpx2.Response(202, content=json.dumps(job))

    monkeypatch.setenv("HISTOQUEUE_API_KEY", "secret")
    with Client("http://lab.example/hq", transport=httpx2.MockTransport(respond), patience=0) as client:
        job = client.submit(b"\xff\xd8\xff")
        with pytest.raises(UnexpectedAnswer, match="Expected a link"):
            job.refresh()
    assert str(asked[0].url) == "http://lab.example/hq/predict"
    assert asked[0].headers["Authorization"] == "Bearer secret"
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("link", "path"),
    [
        ("/result/a1", "/hq/result/a1"),
        ("/hq/result/a1", "/hq/result/a1"),
        ("/hqs/result/a1", "/hq/hqs/result/a1"),
        ("http://lab.example/hq/result/a1", "/hq/result/a1"),
    ],
)
def test_a_link_is_found_below_the_address(link: str, path: str) -> None:
    """Whether or not the server knows where it is mounted; so is an address that somebody has noted."""
    assert Connection.to("http://lab.example/hq", None).url(link) == f"http://lab.example{path}"


@pytest.mark.parametrize(
    ("status", "times", "advice"),
    [
        (301, 1, "https://lab/in; use that as its address"),
        (308, 1, "https://lab/in; use that as its address"),
        (302, 2, "https://lab/in, as a network or a proxy does that wants a login"),
    ],
)
def test_a_redirect_is_explained(status: int, times: int, advice: str) -> None:
    """It is not followed: it might lead a key, or an image, elsewhere. One for a while is waited for.

    What a login page is told in its address is not shown.
    """
    asked = []

    def move(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(status, headers={"Location": "https://lab/in?state=secret#x"})

    client = Client("http://lab", transport=httpx2.MockTransport(move), patience=1)
    with client, pytest.raises(ServerUnreachable, match=f"redirects to {advice}"):
        client.submit(b"\xff\xd8\xff")
    assert min(len(asked), 2) == times


def test_a_certificate_that_is_not_trusted_is_told_at_once(server: ApiServer, tmp_path: Path) -> None:
    """Time mends none."""
    front, began = TlsFront(make_certificates(tmp_path / "tls"), server.port), time.monotonic()
    try:
        with (
            Client(f"https://127.0.0.1:{front.port}", patience=20) as client,
            pytest.raises(ServerUnreachable, match="certificate verify failed"),
        ):
            client.submit(png_bytes())
    finally:
        front.close()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "url",
    ["lab:5000", "ftp://lab", "http://", "127.0.0.1", "http://lab:port", "http://la\nb\x7f", "http://[::1"],
)
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    """With what was expected."""
    with pytest.raises(ValueError, match="Expected an address"):
        Client(url)


def test_what_surrounds_a_key_or_an_address_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file or a clipboard adds a line's end."""
    monkeypatch.setenv("HISTOQUEUE_API_KEY", " secret\n")
    monkeypatch.setenv("HISTOQUEUE_URL", " http://lab/\n")
    connection = Connection.to(None, None)
    assert connection.headers["Authorization"] == "Bearer secret"
    assert connection.base_url == "http://lab"
    assert Connection.to(None, "other\r\n").headers["Authorization"] == "Bearer other"
    monkeypatch.setenv("HISTOQUEUE_API_KEY", " \n")
    assert "Authorization" not in Connection.to(None, None).headers


@pytest.mark.parametrize("key", ["sec\nret", "sec\x00ret", "s\xe9cret", "secret\u2019"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key: str) -> None:
    """What is said may end up in a log."""
    with pytest.raises(ValueError, match="Expected an API key") as caught:
        Client("http://lab", api_key=key)
    assert key[-3:] not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_connection_does_not_show_its_key() -> None:
    """Nor does whatever prints it."""
    assert "secret" not in repr(Connection.to("http://me:secret@lab", "secret"))

"""What is sent reaches the address that was judged, and nothing that the other side does holds it longer."""

import contextlib
import http.server
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from shared.settings import Settings
from shared.webhook_address import (
    Address,
    parse_networks,
)
from tests.tls import make_certificates
from worker.webhook_delivery import make_sender
from worker.webhook_http import Answer, WebhookSender

LOOPBACK = parse_networks("127.0.0.0/8")
NAME = "receiver.example.org"


class Receiver(http.server.ThreadingHTTPServer):
    """Answers every request with one status, and keeps what came."""

    def __init__(self, status: int = 204, **headers: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.headers = status, headers
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/hook"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[..., Receiver]]:
    """Start a receiver; all are ended after the test."""
    started: list[Receiver] = []

    def start(status: int = 204, tls: Path | None = None, **headers: str) -> Receiver:
        receiver = Receiver(status, **headers)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
        threading.Thread(target=receiver.serve_forever, args=(0.02,), daemon=True).start()
        started.append(receiver)
        return receiver

    yield start
    for receiver in started:
        receiver.shutdown()
        receiver.server_close()


class Names:
    """A name server whose answers change."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), 0

    def __call__(self, host: str, port: int) -> list[Address]:
        """Return the next answer; the last one stays."""
        self.asked += 1
        return [ip_address(self.answers[min(self.asked, len(self.answers)) - 1])]


def sender(**options: Any) -> WebhookSender:
    """Return one that may send to this machine."""
    return WebhookSender(options.pop("allowed", LOOPBACK), **options)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (200, None),
        (204, None),
        (299, None),
        (301, "redirect"),
        (404, "not_accepted"),
        (410, "gone"),
        (500, "not_accepted"),
    ],
)
def test_only_a_2xx_counts(serve: Callable[..., Receiver], status: int, error: str | None) -> None:
    """Everything else is refused, with one word."""
    receiver = serve(status)
    assert sender().post(receiver.url, b"{}", {"webhook-id": "a"}) == Answer(status, error)
    ((method, path, headers, body),) = receiver.seen
    assert (method, path, body) == ("POST", "/hook", b"{}")
    assert headers["webhook-id"] == "a"
    assert headers["Host"] == f"127.0.0.1:{receiver.server_port}"


def test_a_redirect_is_not_followed(serve: Callable[..., Receiver]) -> None:
    """It would lead past the check of the address."""
    inside = serve()
    outside = serve(302, Location=inside.url)
    assert sender().post(outside.url, b"{}", {}) == Answer(302, "redirect")
    assert inside.seen == []


def test_the_environments_proxy_is_not_used(
    serve: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would look the name up a second time, elsewhere."""
    proxy, receiver = serve(), serve()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    assert sender().post(receiver.url, b"{}", {}).status == 204
    assert (len(proxy.seen), len(receiver.seen)) == (0, 1)


def test_a_name_is_looked_up_once_and_the_connection_goes_to_that_address(
    serve: Callable[..., Receiver],
) -> None:
    """A name server that answers differently the second time is not asked a second time."""
    receiver = serve()
    names = Names("127.0.0.1", "169.254.169.254")
    answer = sender(resolve=names).post(f"http://{NAME}:{receiver.server_port}/", b"{}", {})
    assert answer == Answer(204, None)
    assert names.asked == 1
    assert receiver.seen[0][2]["Host"] == f"{NAME}:{receiver.server_port}"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "fe80::1%2",
        "0.0.0.0",
    ],
)
def test_a_name_that_leads_inside_is_not_connected_to(serve: Callable[..., Receiver], address: str) -> None:
    """Whatever it is called."""
    receiver = serve()
    answer = sender(allowed=(), resolve=Names(address)).post(
        f"http://{NAME}:{receiver.server_port}/", b"{}", {}
    )
    assert answer == Answer(None, "forbidden_address")
    assert receiver.seen == []


def test_the_end_of_an_ipv6_address_is_no_port(
    serve: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent to as any other, whatever its last digits are."""
    receiver, connect = serve(), socket.create_connection
    reached: list[tuple[str, int]] = []

    def connect_here(address: tuple[str, int], timeout: float) -> socket.socket:
        reached.append(address)
        return connect(("127.0.0.1", receiver.server_port), timeout)

    monkeypatch.setattr(socket, "create_connection", connect_here)
    answer = sender(allowed=parse_networks("fd12::/16")).post("http://[fd12::ab]:8080/hook", b"{}", {})
    assert (answer, reached) == (Answer(204, None), [("fd12::ab", 8080)])
    assert receiver.seen[0][2]["Host"] == "[fd12::ab]:8080"


def test_the_certificate_is_held_against_the_name(serve: Callable[..., Receiver], tmp_path: Path) -> None:
    """Although the connection goes to an address; and the name is what the receiver is told."""
    right = make_certificates(tmp_path / "right", NAME)
    wrong = make_certificates(tmp_path / "wrong", "another.example.org")
    for certificates, expected in ((right, Answer(204, None)), (wrong, Answer(None, "tls"))):
        receiver = serve(tls=certificates.server_file)
        sending = sender(resolve=Names("127.0.0.1"), ca_file=str(certificates.ca_file))
        # A name may end in the root's dot, which no certificate has.
        for name in (NAME, f"{NAME}."):
            assert sending.post(f"https://{name}:{receiver.server_port}/", b"{}", {}) == expected
    unknown = sender(resolve=Names("127.0.0.1"), ca_file=str(wrong.ca_file))
    receiver = serve(tls=right.server_file)
    assert unknown.post(f"https://{NAME}:{receiver.server_port}/", b"{}", {}) == Answer(None, "tls")


def test_what_a_setting_trusts_is_trusted(serve: Callable[..., Receiver], tmp_path: Path) -> None:
    """An authority of one's own, and a private network."""
    certificates = make_certificates(tmp_path, "localhost")
    receiver = serve(tls=certificates.server_file)
    trusting = Settings(webhook_allow_cidrs="127.0.0.0/8", webhook_ca_file=certificates.ca_file)
    for settings, expected in (
        (trusting, Answer(204, None)),
        (Settings(), Answer(None, "forbidden_address")),
    ):
        url = f"https://localhost:{receiver.server_port}/"
        assert make_sender(settings).post(url, b"{}", {}) == expected


@pytest.mark.parametrize(
    "drop", [b"", b"HTTP/1.1 200 OK\r\nX-Header: a", b"HTTP/1.1 100 Continue\r\n\r\n", b"H"]
)
def test_an_answer_that_trickles_ends_at_the_deadline(drop: bytes) -> None:
    """Each byte in time, the whole never: it counts as silence."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connected, _ = server.accept()
            with connected:
                while not over.wait(0.02):
                    try:
                        connected.sendall(drop)
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.getsockname()[1]}/"
            assert sender(timeout_seconds=0.3).post(url, b"{}", {}) == Answer(None, "timeout")
        finally:
            over.set()
            thread.join(10)


def test_an_endless_body_is_not_read() -> None:
    """The status line is all that is wanted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sent = 0

        def pour() -> None:
            nonlocal sent
            connected, _ = server.accept()
            with connected:
                try:
                    connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
                    while True:
                        sent += connected.send(b"x" * 65_536)
                except OSError:
                    return

        thread = threading.Thread(target=pour)
        thread.start()
        answer = sender().post(f"http://127.0.0.1:{server.getsockname()[1]}/", b"{}", {})
        assert answer == Answer(200, None)
        thread.join(10)
        assert not thread.is_alive()
        assert sent < 50_000_000


def test_answers_before_the_answer_without_end_are_given_up_soon() -> None:
    """They would be read, one after the other and by nothing but computing, until the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def pour() -> None:
            connected, _ = server.accept()
            with connected, contextlib.suppress(OSError):
                while True:
                    connected.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

        thread = threading.Thread(target=pour)
        thread.start()
        answer = sender().post(f"http://127.0.0.1:{server.getsockname()[1]}/", b"{}", {})
        thread.join(10)
    assert answer == Answer(None, "no_answer")


def test_a_look_up_that_hangs_ends_at_the_deadline() -> None:
    """The system's own cannot be told when to end."""
    over = threading.Event()

    def hang(host: str, port: int) -> list[Address]:
        over.wait(30)
        return []

    try:
        answer = sender(timeout_seconds=0.2, resolve=hang).post(f"http://{NAME}/", b"{}", {})
        assert answer == Answer(None, "timeout")
    finally:
        over.set()


def test_a_handshake_that_hangs_ends_at_the_deadline() -> None:
    """A server that takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}/"
        assert sender(timeout_seconds=0.3).post(url, b"{}", {}) == Answer(None, "timeout")


@pytest.mark.parametrize(
    ("answer", "word"), [(b"", "no_answer"), (b"SSH-2.0-x\r\n", "no_answer"), (b"HTTP/1.1 9", "no_answer")]
)
def test_what_is_no_http_is_no_answer(answer: bytes, word: str) -> None:
    """Another service listens there."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            connected, _ = server.accept()
            with connected:
                connected.recv(65_536)
                connected.sendall(answer)

        thread = threading.Thread(target=speak)
        thread.start()
        made = sender().post(f"http://127.0.0.1:{server.getsockname()[1]}/", b"{}", {})
        thread.join(10)
    assert made == Answer(None, word)


def test_a_closed_port_and_an_unknown_name_have_words() -> None:
    """Neither is an accident of ours."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert sender().post(f"http://127.0.0.1:{port}/", b"{}", {}) == Answer(None, "no_connection")

    def unknown(host: str, port: int) -> list[Address]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    assert sender(resolve=unknown).post("http://a.example/", b"", {}) == Answer(None, "name_not_found")


def test_the_system_is_asked_for_a_name(serve: Callable[..., Receiver]) -> None:
    """The only name that every machine knows."""
    receiver = serve()
    assert sender().post(f"http://localhost:{receiver.server_port}/", b"{}", {}) == Answer(204, None)


def test_a_broken_address_of_a_name_does_not_hide_a_working_one(serve: Callable[..., Receiver]) -> None:
    """Both come from the one look-up; a forbidden one among them is left out."""
    receiver = serve()

    def names(host: str, port: int) -> list[Address]:
        return [ip_address(text) for text in ("169.254.169.254", "127.0.0.2", "127.0.0.1")]

    url = f"http://{NAME}:{receiver.server_port}/"
    assert sender(resolve=names).post(url, b"{}", {}) == Answer(204, None)

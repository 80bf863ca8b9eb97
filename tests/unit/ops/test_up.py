"""What `make up` does about what does not start, without starting any of it."""

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.request import proxy_bypass

import pytest

from ops import up
from ops.servers import RedisServer, free_port, port_is_free
from ops.supervisor import CannotStart, Supervisor
from shared.errors import explain
from shared.services import in_memory
from shared.settings import Settings
from tests.factories import write_model


def test_a_redis_that_does_not_start_is_told_with_what_mends_it(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    """Its own words, in its log, say that files are damaged, and not that none of them is needed."""
    broker = RedisServer(free_port(), "password", tmp_path / "redis")
    with pytest.raises(CannotStart, match=rf"AOF.* move {tmp_path}/redis away and start again"):
        up._wait_for_redis(supervisor, broker)


def test_a_redis_that_reads_its_files_is_waited_for(
    supervisor: Supervisor, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million jobs take it longer than any other start may take."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = RedisServer(server.getsockname()[1], "password", tmp_path)
        # By then it has read them.
        monkeypatch.setattr(RedisServer, "is_ready", lambda _: bool(said))
        threading.Thread(target=_answer_loading, args=(server,), daemon=True).start()
        up._wait_for_redis(supervisor, broker)
    assert said == ["waiting for Redis: it still reads its files"]


def _answer_loading(server: socket.socket) -> None:
    with suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection:
                while asked := connection.recv(65_536):
                    connection.sendall(
                        b"-LOADING Redis is loading the dataset in memory\r\n" * asked.count(b"*")
                    )


def test_what_keeps_the_whole_from_being_ready_is_said(supervisor: Supervisor) -> None:
    """The time-out named the logs alone, and none of the reasons that /readyz had given all the while."""
    answers = [
        (
            b'HTTP/1.0 503 No\r\n\r\n{"detail": "worker: none has reported"}',
            "NOT_READY: worker: none has rep",
        ),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n<html>", "NOT_READY: HTTP Error 502: Bad Gateway"),
        (b"+PONG\r\n", "NOT_READY: the API does not answer: "),
        (b"HTTP/1.0 200 OK\r\n\r\n", None),
    ]
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        for answer, said in answers:
            sender = threading.Thread(target=_answer_once, args=(server, answer))
            sender.start()
            if said is None:
                up._ask_ready(url)
            else:
                with pytest.raises(up.NotReady) as caught:
                    up._ask_ready(url)
                assert explain(caught.value).startswith(said)
            sender.join()
    with pytest.raises(CannotStart, match=r"within 0\.2 s.*Last: NOT_READY: the API does not answer"):
        supervisor.wait_telling_why("the system", lambda: up._ask_ready(url), 0.2, 3)


def _answer_once(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(65_536)
        connection.sendall(answer)


def test_a_port_is_kept_from_a_second_one_before_the_api_listens_on_it() -> None:
    """The second said `ready` by the answer of the first."""
    port = free_port()
    with up._claimed(port):
        assert port_is_free(port)  # for the API
        with pytest.raises(CannotStart, match=f"port {port} of 127.0.0.1 is taken"), up._claimed(port):
            pass
    with up._claimed(port):
        pass


def test_a_model_of_another_name_is_waited_for(
    supervisor: Supervisor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundled one is not it; the command that publishes one needs the servers that run."""
    services = in_memory(Settings(model_name="colon-cnn"))
    folder = write_model(tmp_path / "one", model="colon-cnn")
    seen: list[str] = []

    def look() -> None:
        seen.append(capsys.readouterr().out)
        services.models.publish(folder)

    supervisor.look = look  # type: ignore[method-assign]
    up._prepare_model(supervisor, services, may_publish=True)
    assert services.models.live().name == "colon-cnn"
    assert "waiting for a model: Expected a version of colon-cnn" in seen[0]
    assert "ops.models publish FOLDER" in seen[0]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_closed_terminal_ends_it_unless_that_is_ignored(
    supervisor: Supervisor, number: signal.Signals
) -> None:
    """`nohup make up &` runs on."""
    before = {each: signal.getsignal(each) for each in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    try:
        for ignored in (False, True):
            signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
            up._hear_signals(supervisor)
            is_heard = signal.getsignal(number) == supervisor.ask_to_stop
            assert is_heard is not (ignored and number == signal.SIGHUP)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
def test_words_that_find_no_room_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full, or a pipe that nobody reads."""
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        up._say("redis ended")
        with suppress(OSError):
            full.close()


class _Mounted(BaseHTTPRequestHandler):
    """Answers as an API does that is mounted below /tiles."""

    def do_GET(self) -> None:
        """Know nothing else."""
        self.send_response(200 if self.path == "/tiles/readyz" else 400)
        self.end_headers()


def test_an_api_that_is_mounted_below_a_path_is_asked_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers nowhere else: all was ended after three minutes, as not ready."""
    with HTTPServer(("127.0.0.1", 0), _Mounted) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PORT", str(server.server_port))
        with pytest.raises(up.NotReady):
            up._ask_ready(up.UpSettings().url)
        monkeypatch.setenv("SCRIPT_NAME", "/tiles")
        up._ask_ready(up.UpSettings().url)
        server.shutdown()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "127.0.0.1"),
        ({"NO_PROXY": "lab.example"}, "lab.example,127.0.0.1"),
        ({"no_proxy": "a", "NO_PROXY": "b"}, "a,127.0.0.1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_a_proxy_of_the_environment_stands_between_none_of_ours(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: str
) -> None:
    """It would be asked for 127.0.0.1, and mean itself."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"http_proxy": "http://proxy.example:3128", **given}.items():
        monkeypatch.setenv(name, value)
    for name, value in up._past_the_proxy().items():
        monkeypatch.setenv(name, value)
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == expected
    assert proxy_bypass("127.0.0.1:5000")
    assert bool(proxy_bypass("elsewhere.example")) is (expected == "*")

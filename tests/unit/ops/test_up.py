"""What `make up` does about what does not start, without starting any of it."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from urllib.request import proxy_bypass

import pytest

from ops import up
from ops.processes import Child
from ops.servers import RedisServer, free_port, port_is_free
from shared.errors import ObjectStoreUnavailable, explain
from shared.services import in_memory
from shared.settings import Settings
from tests.factories import write_model


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> up.Supervisor:
    """Return one whose words are in `said`, and which does not wait before it starts a child again."""
    monkeypatch.setattr(up, "RESTART_AFTER_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(up, "START_TIMEOUT_SECONDS", 0.2)
    return up.Supervisor(SAID.append)


SAID: list[str] = []


def test_a_child_that_cannot_be_started_is_tried_again(supervisor: up.Supervisor, tmp_path: Path) -> None:
    """Its program is gone for a while, or ends before it has read what it is told: the others run on."""
    program = tmp_path / "program"

    def write() -> None:
        program.write_text(f"#!{sys.executable}\nimport time; time.sleep(60)\n")
        program.chmod(0o700)

    write()
    child = Child("program", [str(program)], tmp_path / "log")
    supervisor.start(child)
    try:
        program.unlink()
        child.kill()
        for _ in range(4):
            supervisor.look()
        assert any("program did not start" in line for line in SAID)
        write()
        end = time.monotonic() + 10
        while not child.is_running and time.monotonic() < end:
            supervisor.look()
        assert child.is_running
    finally:
        child.kill()


def test_a_given_server_that_does_not_answer_is_told_with_the_cause(supervisor: up.Supervisor) -> None:
    """It is no child of ours: none of its logs is here."""

    def ask() -> None:
        raise ObjectStoreUnavailable("away") from ConnectionError("nobody listens on store:9000")

    with pytest.raises(up.CannotStart, match=r"the object store was not ready.*nobody listens on store:9000"):
        up._wait_telling_why(supervisor, "the object store", ask, 0.2, 3)


def test_what_a_given_server_is_waited_for_is_said_meanwhile(supervisor: up.Supervisor) -> None:
    """Once for each cause, and not at once: a server of ours is only starting."""
    asked: list[float] = []
    SAID.clear()

    def ask() -> None:
        asked.append(time.monotonic())
        if len(asked) < 8:
            assert SAID or asked[-1] - asked[0] < 0.3
            raise ObjectStoreUnavailable("away") from ConnectionError("nobody listens on store:9000")

    up._wait_telling_why(supervisor, "the object store", ask, 1.0, 0.1)
    assert SAID == [
        "waiting for the object store: OBJECT_STORE_UNAVAILABLE: nobody listens on store:9000",
    ]


def test_a_redis_that_does_not_start_is_told_with_what_mends_it(
    supervisor: up.Supervisor, tmp_path: Path
) -> None:
    """Its own words, in its log, say that files are damaged, and not that none of them is needed."""
    broker = RedisServer(free_port(), "password", tmp_path / "redis")
    with pytest.raises(up.CannotStart, match=rf"AOF.* move {tmp_path}/redis away and start again"):
        up._wait_for_redis(supervisor, broker)


def test_a_redis_that_reads_its_files_is_waited_for(
    supervisor: up.Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million jobs take it longer than any other start may take."""
    SAID.clear()
    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = RedisServer(server.getsockname()[1], "password", tmp_path)
        # By then it has read them.
        monkeypatch.setattr(RedisServer, "is_ready", lambda _: bool(SAID))
        threading.Thread(target=_answer_loading, args=(server,), daemon=True).start()
        up._wait_for_redis(supervisor, broker)
    assert SAID == ["waiting for Redis: it still reads its files"]


def _answer_loading(server: socket.socket) -> None:
    with suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection:
                while asked := connection.recv(65_536):
                    connection.sendall(
                        b"-LOADING Redis is loading the dataset in memory\r\n" * asked.count(b"*")
                    )


def test_what_keeps_the_whole_from_being_ready_is_said(supervisor: up.Supervisor) -> None:
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
    with pytest.raises(up.CannotStart, match=r"within 0\.2 s.*Last: NOT_READY: the API does not answer"):
        up._wait_telling_why(supervisor, "the system", lambda: up._ask_ready(url), 0.2, 3)


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
        with pytest.raises(up.CannotStart, match=f"port {port} of 127.0.0.1 is taken"), up._claimed(port):
            pass
    with up._claimed(port):
        pass


def test_a_model_of_another_name_is_waited_for(
    supervisor: up.Supervisor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
    supervisor: up.Supervisor, number: signal.Signals
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


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", '{"redis": null}', '{"redis": 5}', '{"redis": ""}'])
def test_passwords_that_are_none_are_said_in_one_line(tmp_path: Path, text: str) -> None:
    """With what mends it."""
    path = tmp_path / "secrets.json"
    path.write_text(text)
    with pytest.raises(up.CannotStart, match=r"secrets\.json.*Remove it"):
        up._passwords(path)
    path.unlink()
    made = up._passwords(path)
    assert up._passwords(path) == made


def test_what_is_in_the_data_directory_is_its_owners_alone(tmp_path: Path) -> None:
    """Passwords, and every image."""
    with up._locked(tmp_path / "data"):
        up._passwords(tmp_path / "data/secrets.json")
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "data/secrets.json").stat().st_mode & 0o777 == 0o600


class Program:
    """Stands for a child: runs as the test says, and notes what is asked of it."""

    pid, exit_code, log, is_running = 1, 70, "its log", True

    def __init__(self, name: str, asked: list[tuple[str, str, float]]) -> None:
        self.name = name
        self._asked = asked

    def start(self, held: Sequence[int]) -> None:
        """Note it."""
        self._asked.append((self.name, "start", 0))

    def bound_log(self) -> None:
        """Find no room for what is to be kept."""
        self._asked.append((self.name, "bound", 0))
        raise OSError(28, "No space left on device")

    def send(self, number: int) -> None:
        """Note it."""
        self._asked.append((self.name, "send", number))

    def reap(self, seconds: float) -> None:
        """Note it."""
        self._asked.append((self.name, "reap", seconds))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The supervisor's time, in `now`, which the test moves."""
    made = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(up, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def test_a_child_that_keeps_ending_is_started_at_ever_longer_intervals(clock: SimpleNamespace) -> None:
    """Up to half a minute, and not without end; one that ran for a minute begins anew."""
    said: list[str] = []
    supervisor, child = up.Supervisor(said.append), Program("worker", [])
    supervisor.start(child)  # type: ignore[arg-type]
    supervisor._watched[0].started_at = clock.now

    def fall(seconds: float) -> list[str]:
        child.is_running = False
        said.clear()
        for _ in range(int(seconds / 0.5)):
            clock.now += 0.5
            supervisor.look()
        return [line.partition("again in ")[2].partition(" ")[0] for line in said if "again in" in line]

    assert fall(95.5) == ["0.5", "1", "2", "4", "8", "16", "30", "30"]
    child.is_running = True
    clock.now += up.WELL_AFTER_SECONDS + 1
    supervisor.look()
    assert fall(2) == ["0.5", "1"]


def test_logs_are_looked_at_now_and_then_and_a_full_disk_ends_nothing(clock: SimpleNamespace) -> None:
    """Each child's, every ten seconds."""
    asked: list[tuple[str, str, float]] = []
    supervisor = up.Supervisor(lambda line: None)
    for name in ("redis", "worker"):
        supervisor.start(Program(name, asked))  # type: ignore[arg-type]
    for _ in range(62):
        clock.now += 0.5
        supervisor.look()
    assert [name for name, what, _ in asked if what == "bound"] == ["redis", "worker"] * 3


def test_the_servers_outlive_those_who_use_them(clock: SimpleNamespace) -> None:
    """The API, the worker and the webhooks are asked to end, and have ended, before Redis is."""
    asked: list[tuple[str, str, float]] = []
    supervisor = up.Supervisor(lambda line: None)
    for name in ("redis", "objects", "webhooks", "worker", "api"):
        supervisor.start(Program(name, asked))  # type: ignore[arg-type]
    asked.clear()
    supervisor.stop()
    clients, servers = ("webhooks", "worker", "api"), ("redis", "objects")
    assert asked == [
        *((name, "send", signal.SIGTERM) for name in clients),
        *((name, "reap", up.DRAIN_SECONDS) for name in clients),
        *((name, "send", signal.SIGTERM) for name in servers),
        *((name, "reap", up.STOP_SECONDS) for name in servers),
    ]

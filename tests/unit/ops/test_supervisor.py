"""Children that end, and what is waited for."""

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

import ops.supervisor
from ops.processes import Child
from ops.supervisor import DRAIN_SECONDS, STOP_SECONDS, WELL_AFTER_SECONDS, CannotStart, Supervisor
from shared.errors import ObjectStoreUnavailable


def test_a_child_that_cannot_be_started_is_tried_again(
    supervisor: Supervisor, said: list[str], tmp_path: Path
) -> None:
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
        assert any("program did not start" in line for line in said)
        write()
        end = time.monotonic() + 10
        while not child.is_running and time.monotonic() < end:
            supervisor.look()
        assert child.is_running
    finally:
        child.kill()


def test_a_given_server_that_does_not_answer_is_told_with_the_cause(supervisor: Supervisor) -> None:
    """It is no child of ours: none of its logs is here."""

    def ask() -> None:
        raise ObjectStoreUnavailable("away") from ConnectionError("nobody listens on store:9000")

    with pytest.raises(CannotStart, match=r"the object store was not ready.*nobody listens on store:9000"):
        supervisor.wait_telling_why("the object store", ask, 0.2, 3)


def test_what_a_given_server_is_waited_for_is_said_meanwhile(supervisor: Supervisor, said: list[str]) -> None:
    """Once for each cause, and not at once: a server of ours is only starting."""
    asked: list[float] = []

    def ask() -> None:
        asked.append(time.monotonic())
        if len(asked) < 8:
            assert said or asked[-1] - asked[0] < 0.3
            raise ObjectStoreUnavailable("away") from ConnectionError("nobody listens on store:9000")

    supervisor.wait_telling_why("the object store", ask, 1.0, 0.1)
    assert said == [
        "waiting for the object store: OBJECT_STORE_UNAVAILABLE: nobody listens on store:9000",
    ]


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


class Holding(Program):
    """A program that ends at once, and notes what it is given to hold."""

    is_running = False

    def start(self, held: Sequence[int]) -> None:
        """Note it."""
        self._asked.append((self.name, "start", sum(held)))


def test_what_is_held_is_held_by_each_child_whenever_it_is_started(supervisor: Supervisor) -> None:
    """As the lock of the data: it lasts until the last child has ended."""
    asked: list[tuple[str, str, float]] = []
    supervisor.hold(7)
    supervisor.start(Holding("api", asked))  # type: ignore[arg-type]
    for _ in range(2):
        supervisor.look()
    assert asked == [("api", "start", 7)] * 2


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The supervisor's time, in `now`, which the test moves."""
    made = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(ops.supervisor, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def test_a_child_that_keeps_ending_is_started_at_ever_longer_intervals(clock: SimpleNamespace) -> None:
    """Up to half a minute, and not without end; one that ran for a minute begins anew."""
    said: list[str] = []
    supervisor, child = Supervisor(said.append), Program("worker", [])
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
    clock.now += WELL_AFTER_SECONDS + 1
    supervisor.look()
    assert fall(2) == ["0.5", "1"]


def test_logs_are_looked_at_now_and_then_and_a_full_disk_ends_nothing(clock: SimpleNamespace) -> None:
    """Each child's, every ten seconds."""
    asked: list[tuple[str, str, float]] = []
    supervisor = Supervisor(lambda line: None)
    for name in ("redis", "worker"):
        supervisor.start(Program(name, asked))  # type: ignore[arg-type]
    for _ in range(62):
        clock.now += 0.5
        supervisor.look()
    assert [name for name, what, _ in asked if what == "bound"] == ["redis", "worker"] * 3


def test_the_servers_outlive_those_who_use_them(clock: SimpleNamespace) -> None:
    """The API, the worker and the webhooks are asked to end, and have ended, before Redis is."""
    asked: list[tuple[str, str, float]] = []
    supervisor = Supervisor(lambda line: None)
    for name in ("redis", "objects", "webhooks", "worker", "api"):
        supervisor.start(Program(name, asked))  # type: ignore[arg-type]
    asked.clear()
    supervisor.stop()
    clients, servers = ("webhooks", "worker", "api"), ("redis", "objects")
    assert asked == [
        *((name, "send", signal.SIGTERM) for name in clients),
        *((name, "reap", DRAIN_SECONDS) for name in clients),
        *((name, "send", signal.SIGTERM) for name in servers),
        *((name, "reap", STOP_SECONDS) for name in servers),
    ]

"""The engine process as its parent sees it."""

import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from structlog.testing import capture_logs

import worker.supervisor
from ops.processes import wait_until
from shared.errors import EngineCrashed, EngineOutOfMemory, EngineTimedOut, InvalidModel
from shared.schemas import ModelRef
from tests.fake_engine import CRASH, GROW, HANG, SHORT
from tests.unit.worker.conftest import fake_supervisor, infer
from worker.supervisor import REST_SECONDS, EngineSupervisor

MODEL = ModelRef(name="lung-cnn", version="1.0.0", sha256="0" * 64)
OTHER = ModelRef(name="lung-cnn", version="2.0.0", sha256="1" * 64)
BROKEN = ModelRef(name="lung-cnn", version="6.6.6", sha256="2" * 64)


def is_alive(pid: int | None) -> bool:
    """Tell whether a process has this id."""
    try:
        os.kill(pid or -1, 0)
    except ProcessLookupError:
        return False
    return True


def test_outcomes_come_back_in_order(supervisor: EngineSupervisor) -> None:
    """One outcome an image, each for its own."""
    outcomes = infer(supervisor, MODEL, [b"a", b"", b"ccc"])
    assert [outcome["result"]["text"] for outcome in outcomes] == ["a", "", "ccc"]


def test_scales_go_over_the_pipe_with_their_images(supervisor: EngineSupervisor) -> None:
    """One for each image, nothing where nothing was stated."""
    outcomes = supervisor.run(MODEL, [b"a", b"b"], [0.25, None], [False, False])
    assert [outcome["result"]["mpp"] for outcome in outcomes] == [0.25, None]


def test_one_engine_serves_many_micro_batches(supervisor: EngineSupervisor) -> None:
    """Nothing is started again without need."""
    infer(supervisor, MODEL, [b"a"])
    pid = supervisor.pid
    infer(supervisor, MODEL, [b"b" * 300_000])
    assert supervisor.pid == pid


def test_a_crash_is_told_and_the_next_call_has_a_fresh_engine(supervisor: EngineSupervisor) -> None:
    """A segmentation fault ends the engine and nothing else."""
    with pytest.raises(EngineCrashed, match="-11"):
        infer(supervisor, MODEL, [CRASH, b"a"])
    assert supervisor.model is None
    assert infer(supervisor, MODEL, [b"a"])[0]["result"]["text"] == "a"


def test_a_hanging_engine_is_killed_in_time(supervisor: EngineSupervisor) -> None:
    """No answer by the deadline, then no process either."""
    supervisor.ensure(MODEL)
    pid = supervisor.pid
    started = time.monotonic()
    with pytest.raises(EngineTimedOut):
        infer(supervisor, MODEL, [HANG])
    assert time.monotonic() - started < 3
    assert not is_alive(pid)


def test_an_engine_that_has_answered_is_killed_no_more(supervisor: EngineSupervisor) -> None:
    """Its time is that of one micro-batch; one thread watches them all, and ends when none comes."""
    infer(supervisor, MODEL, [b"a"])
    pid, watcher = supervisor.pid, supervisor._watchdog._thread
    assert watcher is not None
    for _ in range(20):
        infer(supervisor, MODEL, [b"a"])
        assert supervisor._watchdog._thread is watcher
    watcher.join(supervisor._timeout + 5 * REST_SECONDS)
    assert supervisor._watchdog._thread is None
    assert infer(supervisor, MODEL, [b"a"])[0]["result"]["text"] == "a"
    assert supervisor.pid == pid


def test_a_watcher_that_rests_is_woken(supervisor: EngineSupervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it would have rested."""
    monkeypatch.setattr("worker.supervisor.REST_SECONDS", 60)
    infer(supervisor, MODEL, [b"a"])
    watchdog = supervisor._watchdog
    assert wait_until(lambda: watchdog._has_nothing_to_watch, 5)
    began = time.monotonic()
    with pytest.raises(EngineTimedOut):
        infer(supervisor, MODEL, [HANG])
    assert time.monotonic() - began < 10


def test_what_may_be_done_meanwhile_is_done_before_a_start_and_before_an_answer(
    supervisor: EngineSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start may take minutes; and nothing is done while the engine has nothing to do."""
    steps: list[str] = []
    ensure, recv = supervisor.ensure, Connection.recv_bytes

    def note_start(model: ModelRef) -> None:
        steps.append("start")
        ensure(model)

    def note_answer(connection: "Connection[bytes, bytes]") -> bytes:
        steps.append("answer")
        return recv(connection)

    monkeypatch.setattr(supervisor, "ensure", note_start)
    monkeypatch.setattr(Connection, "recv_bytes", note_answer)
    for _ in range(2):
        supervisor.run(MODEL, [b"a"], [None], [False], lambda: steps.append("meanwhile"))
    assert steps == ["meanwhile", "start", "answer", "meanwhile", "answer", "meanwhile", "answer"]


def test_an_engine_that_takes_no_bytes_is_killed_in_time(supervisor: EngineSupervisor) -> None:
    """A stopped process leaves its pipe full; the deadline holds for sending too."""
    supervisor.ensure(MODEL)
    assert supervisor.pid is not None
    os.kill(supervisor.pid, signal.SIGSTOP)
    with pytest.raises(EngineTimedOut):
        infer(supervisor, MODEL, [b"x" * 5_000_000])


def test_an_engine_that_died_while_idle_is_replaced_without_blame(supervisor: EngineSupervisor) -> None:
    """The image that comes next did not kill it."""
    supervisor.ensure(MODEL)
    assert supervisor.pid is not None
    os.kill(supervisor.pid, signal.SIGKILL)
    while supervisor.model is not None:
        time.sleep(0.01)
    assert infer(supervisor, MODEL, [b"a"])[0]["result"]["text"] == "a"


def test_another_version_gets_another_engine(supervisor: EngineSupervisor) -> None:
    """A job runs with the version that it was accepted for."""
    infer(supervisor, MODEL, [b"a"])
    first = supervisor.pid
    infer(supervisor, OTHER, [b"a"])
    assert supervisor.model == OTHER
    assert not is_alive(first)


def test_a_broken_model_is_told_in_its_own_words(supervisor: EngineSupervisor) -> None:
    """The engine's reason reaches the operator's log."""
    with pytest.raises(InvalidModel, match="Expected a whole model"):
        supervisor.ensure(BROKEN)
    assert supervisor.pid is None


def test_a_version_that_has_failed_its_proof_costs_the_good_engine_once(supervisor: EngineSupervisor) -> None:
    """Jobs of both come in turns: the broken version is refused out of hand, and the good one goes on."""
    infer(supervisor, MODEL, [b"a"])
    with pytest.raises(InvalidModel):
        infer(supervisor, BROKEN, [b"b"])
    infer(supervisor, MODEL, [b"a"])
    pid = supervisor.pid
    for _ in range(3):
        with pytest.raises(InvalidModel, match="Expected a whole model"):
            infer(supervisor, BROKEN, [b"b"])
        infer(supervisor, MODEL, [b"a"])
    assert supervisor.pid == pid


def test_a_refused_version_is_said_once_and_known_until_it_has_proven_itself(
    supervisor: EngineSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each job would drown it. One that nobody has tried for long may be well again."""
    infer(supervisor, MODEL, [b"a"])
    with capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(InvalidModel):
                supervisor.ensure(BROKEN)
    (said,) = [line for line in lines if line["event"] == "model_refused"]
    assert (said["model"], said["version"], said["log_level"]) == ("lung-cnn", "6.6.6", "error")
    assert supervisor.refused == {BROKEN: said["error"]}
    with monkeypatch.context() as patch:
        patch.setattr(worker.supervisor, "REFUSED_SECONDS", 0.0)
        with pytest.raises(InvalidModel):
            supervisor.ensure(BROKEN)
        assert supervisor.refused == {}
    supervisor._refused.clear()
    supervisor._fetch_model = lambda _: Path("good")
    supervisor.ensure(BROKEN)
    assert supervisor.refused == {}


def test_a_version_that_failed_is_tried_again_later(supervisor: EngineSupervisor) -> None:
    """Its proof may have failed for a reason that has passed."""
    supervisor.ensure(MODEL)
    with pytest.raises(InvalidModel):
        supervisor.ensure(BROKEN)
    supervisor._fetch_model = lambda _: Path("good")
    with pytest.raises(InvalidModel):
        supervisor.ensure(BROKEN)
    reason, _ = supervisor._refused[BROKEN]
    supervisor._refused[BROKEN] = (reason, time.monotonic())
    supervisor.ensure(BROKEN)
    assert supervisor.model == BROKEN


def test_a_worker_that_has_had_no_good_engine_yet_tries_each_time(supervisor: EngineSupervisor) -> None:
    """There is nothing to lose, and the version may have been mended in its place."""
    with pytest.raises(InvalidModel):
        supervisor.ensure(BROKEN)
    supervisor._fetch_model = lambda _: Path("good")
    supervisor.ensure(BROKEN)
    assert supervisor.model == BROKEN


def test_a_slow_download_is_no_standstill(supervisor: EngineSupervisor) -> None:
    """It takes as long as the network does; each start and each micro-batch is timed by itself."""
    seen: list[bool] = []

    def fetch_slowly(model: ModelRef) -> Path:
        before = supervisor.progressed_at
        time.sleep(0.05)
        seen.append(supervisor.progressed_at >= before + 0.05)
        return Path("good")

    supervisor._fetch_model = fetch_slowly
    asked_at = time.monotonic()
    supervisor.ensure(MODEL)
    assert seen == [True]
    started_at = supervisor.progressed_at
    assert asked_at + 0.05 < started_at < time.monotonic()
    assert supervisor.progressed_at == started_at
    infer(supervisor, MODEL, [b"a"])
    assert supervisor.progressed_at > started_at


def test_a_download_that_fails_leaves_the_time_running(supervisor: EngineSupervisor) -> None:
    """A fetch that is over, however it ended, is none any more."""

    def fail(model: ModelRef) -> Path:
        raise OSError("no room")

    supervisor._fetch_model = fail
    with pytest.raises(OSError, match="no room"):
        supervisor.ensure(MODEL)
    assert not supervisor._is_fetching


def test_too_few_outcomes_are_never_matched_to_the_wrong_image(supervisor: EngineSupervisor) -> None:
    """An answer of another length is no answer."""
    with pytest.raises(EngineCrashed, match="Expected 2 outcomes"):
        infer(supervisor, MODEL, [b"a", SHORT])


def test_an_engine_that_takes_too_much_memory_is_killed() -> None:
    """Before the machine runs out of it, and long before its time is over; the next call has a fresh one."""
    supervisor = fake_supervisor(timeout_seconds=60)
    try:
        supervisor.ensure(MODEL)
        pid = supervisor.pid
        with pytest.raises(EngineOutOfMemory, match="bytes of memory"):
            infer(supervisor, MODEL, [GROW])
        assert not is_alive(pid)
        assert infer(supervisor, MODEL, [b"a"])[0]["result"]["text"] == "a"
    finally:
        supervisor.stop()


def test_a_version_that_cannot_be_fetched_costs_no_engine(
    supervisor: EngineSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is well goes on serving its own."""
    infer(supervisor, MODEL, [b"a"])
    pid = supervisor.pid

    def damaged(model: ModelRef) -> Path:
        raise InvalidModel(f"{model.version} is damaged")

    with monkeypatch.context() as patch:
        patch.setattr(supervisor, "_fetch_model", damaged)
        with pytest.raises(InvalidModel):
            infer(supervisor, OTHER, [b"a"])
        assert infer(supervisor, MODEL, [b"b"])[0]["result"]["text"] == "b"
        assert supervisor.refused == {OTHER: "2.0.0 is damaged"}
    assert supervisor.pid == pid

"""A worker's life, with an engine that needs no model."""

import errno
import threading
import time
from collections.abc import Iterator

import pytest
import structlog
from celery.utils.dispatch import Signal

from shared.errors import InvalidModel, JobStoreUnavailable, NoModel
from shared.job_store import Cleanable
from shared.schemas import ModelRef, WorkerStatus
from shared.services import Services, in_memory
from shared.settings import Settings
from shared.task_queue import INFER_TASK
from worker import lifecycle
from worker.app import make_app, start_or_exit
from worker.batcher import EngineUnusable
from worker.intake import Intake
from worker.leases import Lease
from worker.lifecycle import Worker
from worker.supervisor import EngineSupervisor

MODEL = ModelRef(name="lung-cnn", version="1.0.0", sha256="0" * 64)


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Services:
    """Everything in memory, with a live model."""
    made = in_memory(Settings())
    monkeypatch.setattr(made.models, "live", lambda: MODEL)
    return made


@pytest.fixture
def ended() -> list[int]:
    """The statuses that the worker ended its process with."""
    return []


@pytest.fixture
def worker(
    services: Services, supervisor: EngineSupervisor, ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Worker]:
    """A worker whose engine is a fake, and whose every report is soon."""
    monkeypatch.setattr(lifecycle, "REPORT_EVERY_SECONDS", 0.05)
    made = Worker(Settings(), services, end_process=ended.append)
    made.supervisor = supervisor
    made.batcher._engine = supervisor
    yield made
    made.stop()


def wait_for(check: object, seconds: float = 5) -> bool:
    """Poll until true."""
    done = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if check():  # type: ignore[operator]
            return True
        done.wait(0.02)
    return False


def test_it_reports_only_while_it_consumes(worker: Worker, services: Services) -> None:
    """A model alone is not enough: the consumer's loop must have ticked."""
    worker.start()
    assert not wait_for(services.workers.live, 0.3)
    worker.tick()
    assert wait_for(services.workers.live)
    (status,) = services.workers.live()
    assert (status.model_name, status.model_version) == ("lung-cnn", "1.0.0")


def test_it_tells_which_versions_it_refuses(worker: Worker, services: Services) -> None:
    """It goes on with the jobs of the others, and readiness is judged by the live one."""
    worker.start()
    broken = ModelRef(name="lung-cnn", version="6.6.6", sha256="f" * 64)
    with pytest.raises(EngineUnusable):
        worker.batcher.submit(b"a", broken, False, lambda: True).result(10)
    worker.batcher.submit(b"a", MODEL, False, lambda: True).result(10)
    worker.tick()
    assert wait_for(services.workers.live)
    (status,) = services.workers.live()
    assert status.model_version == "1.0.0"
    assert set(status.refused) == {"6.6.6"}
    assert "Expected a whole model" in status.refused["6.6.6"]


def test_it_does_not_start_without_a_model(
    worker: Worker, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks again until there is one, and takes no message meanwhile."""
    monkeypatch.setattr(lifecycle, "MODEL_RETRY_SECONDS", 0.01)
    answers = iter([ModelRef(name="lung-cnn", version="6.6.6", sha256="f" * 64)] * 2 + [MODEL])
    monkeypatch.setattr(services.models, "live", lambda: next(answers))
    worker.start()
    assert worker.supervisor.model == MODEL
    assert list(answers) == []


def test_a_cache_that_cannot_be_written_is_waited_for(
    worker: Worker, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is somebody's to mend; meanwhile no message is taken."""
    monkeypatch.setattr(lifecycle, "MODEL_RETRY_SECONDS", 0.01)
    answers = iter([OSError("No space left on device"), MODEL])

    def live() -> ModelRef:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(services.models, "live", live)
    worker.start()
    assert worker.supervisor.model == MODEL


def test_it_says_once_why_it_has_no_model(
    worker: Worker, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once more where the reason is another; it looks every two seconds, for days perhaps."""
    monkeypatch.setattr(lifecycle, "MODEL_RETRY_SECONDS", 0.01)
    answers = iter([OSError("no room")] * 3 + [NoModel("none yet")] * 3 + [MODEL])

    def live() -> ModelRef:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(services.models, "live", live)
    with structlog.testing.capture_logs() as lines:
        worker.start()
    assert [line["error"] for line in lines if line["event"] == "no_model_yet"] == ["no room", "none yet"]


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (
            InvalidModel("Expected model.keras to have its digest."),
            "Expected model.keras to have its digest.",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "/home/somebody"), "No space left on device"),
    ],
)
def test_readiness_hears_why_a_worker_cannot_begin(
    worker: Worker, services: Services, monkeypatch: pytest.MonkeyPatch, error: Exception, trouble: str
) -> None:
    """Its log is elsewhere, and may be nobody's; a path of its machine is for the log alone."""
    monkeypatch.setattr(lifecycle, "MODEL_RETRY_SECONDS", 0.01)
    answers = [error]

    def live() -> ModelRef:
        if answers:
            raise answers.pop()
        return MODEL

    monkeypatch.setattr(services.models, "live", live)
    worker.start()
    assert services.workers.trouble() == trouble


@pytest.mark.parametrize("tells_events", [False, True])
def test_messages_go_to_the_runner_unless_events_are_wanted(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, tells_events: bool
) -> None:
    """Events come of Celery's own way alone, with a thread for each message."""
    # Its hooks are for the whole process.
    monkeypatch.setattr(Signal, "connect", lambda *_, **__: None)
    app = make_app(Settings(task_events=tells_events), worker)
    assert isinstance(app.tasks[INFER_TASK].Strategy, Intake) is not tells_events


def test_a_worker_that_cannot_start_never_consumes(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process ends; Celery alone would log the error and take messages all the same."""

    def broken() -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(worker, "start", broken)
    with pytest.raises(SystemExit):
        start_or_exit(worker)


def test_a_stopped_worker_has_withdrawn_and_left_no_engine(worker: Worker, services: Services) -> None:
    """Readiness follows at once, not after the report has run out."""
    worker.start()
    worker.tick()
    assert wait_for(services.workers.live)
    worker.stop()
    assert services.workers.live() == []
    assert worker.supervisor.pid is None
    assert worker.is_draining


def test_a_worker_that_drains_keeps_what_it_holds(
    worker: Worker, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heat map may still be on its way to a slow store: the job is nobody else's before that is over."""
    renewed = threading.Event()
    monkeypatch.setattr(services.jobs, "renew", lambda *_: renewed.set() or True)
    worker.leases._lease_seconds = 0.03
    worker.start()
    worker.drain()
    worker.batcher.join(5)
    worker.leases.add(Lease("one"))
    assert renewed.wait(2)


def test_a_stuck_worker_ends_itself(worker: Worker, ended: list[int]) -> None:
    """Somebody starts another, which can work; its jobs are free when their leases lapse."""
    worker.start()
    worker.batcher.is_stuck = lambda limit_seconds: True  # type: ignore[method-assign]
    assert wait_for(lambda: ended == [1])


def test_a_worker_that_keeps_no_leases_ends_itself(worker: Worker, ended: list[int]) -> None:
    """It would lose every job that takes longer than one lasts."""
    worker.start()
    worker.leases.stop()
    assert wait_for(lambda: ended == [1])


def test_it_reports_again_after_an_error_of_any_kind(
    worker: Worker, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that reports is also the one that sees whether the worker is stuck."""
    errors = iter([KeyError("a bug"), JobStoreUnavailable("away")])
    report = services.workers.report

    def fail_twice(status: WorkerStatus) -> None:
        if error := next(errors, None):
            raise error
        report(status)

    monkeypatch.setattr(services.workers, "report", fail_twice)
    worker.start()
    worker.tick()
    assert wait_for(services.workers.live)


def test_a_worker_whose_consumer_stands_still_ends_itself(
    worker: Worker, ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Redis answers: then nothing but a fresh process helps."""
    monkeypatch.setattr(lifecycle, "STANDSTILL_SECONDS", 0.2)
    monkeypatch.setattr(lifecycle, "TICK_LASTS_SECONDS", 0.1)
    worker.start()
    worker.tick()
    assert wait_for(lambda: ended == [1])


def test_a_worker_that_ticks_or_waits_for_redis_or_was_paused_does_not_end(
    worker: Worker, services: Services, ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only looks that found no tick count, and not the time in which nobody looked."""
    monkeypatch.setattr(lifecycle, "STANDSTILL_SECONDS", 0.2)
    monkeypatch.setattr(lifecycle, "TICK_LASTS_SECONDS", 0.1)
    worker.start()
    until = time.monotonic() + 0.6
    while time.monotonic() < until:
        worker.tick()
        time.sleep(0.02)

    def away() -> None:
        raise JobStoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(services.jobs, "ping", away)
        time.sleep(0.6)
        worker.tick()
    monkeypatch.setattr(lifecycle, "STANDSTILL_SECONDS", 5)
    worker._ticked_at -= 1000
    time.sleep(0.3)
    assert ended == []


def test_a_job_that_never_ends_does_not_keep_a_stopped_worker(worker: Worker, ended: list[int]) -> None:
    """Its process ends; the job is free when its lease lapses."""
    worker.start()
    worker._longest_stop_seconds = 0.1
    worker.runner._open = 1
    worker.stop()
    assert ended == [1]
    assert worker.supervisor.pid is None


def test_a_hung_object_store_does_not_hold_up_the_reaper(
    worker: Worker, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost jobs are found while a deletion waits for an answer that does not come."""
    looks, hung = [], threading.Event()

    def hang(limit: int) -> list[Cleanable]:
        hung.wait(20)
        return []

    monkeypatch.setattr(services.jobs, "cleanable", hang)
    monkeypatch.setattr(services.jobs, "due", lambda oldest, limit: looks.append(hung.is_set()) or [])
    worker.start()
    assert wait_for(lambda: len(looks) >= 4, 15)
    hung.set()


def test_the_engine_has_as_many_threads_as_the_settings_say() -> None:
    """The cores are counted only where they say none."""
    settings = Settings(engine_threads=3, engine_decode_threads=5)
    told = Worker(settings, in_memory(settings)).supervisor._options
    assert (told.threads, told.decode_threads) == (3, 5)
